# The table "Images and the safe defaults" of the README, row by row: images of
# each kind, made for it, on a real engine, and what becomes of their jobs with
# the defaults and with what the table says they need.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::Logs qw(wait_until);
use File::Temp ();
use IPC::Run ();
use JSON::PP;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'images');
$engine->import_busybox('shell:1');
my $node = CM::Cluster->new_with_extension('main', 'container_manager.stop_grace' => '5s');
$node->add_host('local', $engine, 'max_concurrent_jobs => 4');

my $json = JSON::PP->new->utf8->allow_nonref;

# ------------------------------------------------------- images

# From a folder that make($folder) fills.
sub import_tree
{
	my ($ref, $make, @changes) = @_;
	my $root = File::Temp->newdir;
	chmod 0755, "$root";
	$make->("$root");
	my $tar = File::Temp->new(SUFFIX => '.tar');
	IPC::Run::run([ qw(tar --owner=0 --group=0 --numeric-owner -C), "$root", '-cf', $tar->filename, '.' ])
	  or die "tar failed\n";
	return $engine->docker('import', (map { ('--change', $_) } @changes), $tar->filename, $ref);
}

# From the shell image by commands run as root, as a Dockerfile's RUN does.
sub build_image
{
	my ($ref, $commands, @changes) = @_;
	$engine->docker(qw(run --name building --network none --user 0 shell:1 sh -ec), $commands);
	$engine->docker('commit', (map { ('--change', $_) } 'CMD ["sh"]', @changes), 'building', $ref);
	return $engine->docker(qw(rm building));
}

# No shell, no /tmp, nothing but the program, its libraries and its modules.
sub import_interpreter
{
	my ($ref, $program, @modules) = @_;
	return import_tree($ref,
		sub {
			my ($root) = @_;
			CM::Engine::copy_into($root, $program, CM::Engine::libraries_of($program), @modules);
			chmod 0755, "$root$program", map { "$root$_" } CM::Engine::libraries_of($program);
		},
		"ENTRYPOINT [\"$program\"]");
}

# ------------------------------------------------------- jobs

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub job
{
	my ($id) = @_;
	return $json->decode(value("SELECT to_json(r) FROM (SELECT *, cm_job_output(id) AS stdout,"
			  . " cm_job_stderr(id) AS stderr,"
			  . " (SELECT explanation FROM cm_job_explain(id) WHERE item = 'advice') AS advice"
			  . " FROM cm_jobs WHERE id = $id) r"));
}

# Runs a job; gives its row with output and advice.
sub run_job
{
	my ($arguments) = @_;
	my $id = $node->submit($arguments);
	$node->job_wait($id);
	return job($id);
}

sub show { return "@{[ map { $_ // 'NULL' } @{$_[0]}{qw(status failure_reason exit_code stdout stderr error advice)} ]}"; }

sub works
{
	my ($what, $arguments, $stdout) = @_;
	my $j = run_job($arguments);
	return like("$j->{status}: $j->{stdout}", qr/\Acompleted: $stdout\s*\z/, $what) || diag(show($j));
}

# Expected: exit code, patterns for its output and for the advice.
sub fails
{
	my ($what, $arguments, $exit, $output, $advice) = @_;
	my $j = run_job($arguments);
	is("$j->{status} $j->{failure_reason} " . ($j->{exit_code} // '-'),
		"failed exit_code $exit", "$what: fails") || diag(show($j));
	like("$j->{stdout}$j->{stderr}", $output, "$what: its words") if $output;
	like($j->{advice} // '', $advice, "$what: advice") if $advice;
	return $j;
}

sub refused
{
	my ($what, $arguments, $sqlstate, $hint) = @_;
	my ($status, undef, $stderr) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT cm_submit_job($arguments)");
	like($stderr // '', qr/ERROR:  $sqlstate: .*HINT: [^\n]*$hint/s, "$what: refused with the setting named");
	return;
}

sub set_min_uid
{
	my ($uid) = @_;
	value("ALTER SYSTEM SET container_manager.min_uid = $uid");
	value('SELECT pg_reload_conf()');
	$node->wait_for_sql('SHOW container_manager.min_uid', $uid) or die "settings were not read\n";
	return;
}

# Waits until the executor goes by the new settings: it checks again at start.
sub set_min_uid_everywhere
{
	my ($uid) = @_;
	set_min_uid($uid);
	my $pid = $node->executor_pid;
	value("SELECT pg_terminate_backend($pid)");
	$node->wait_for_sql("SELECT executor_pid <> $pid AND is_running FROM cm_status", 't')
	  or die "the executor did not come back\n";
	return;
}

# ------------------------------------------------------- shell image

works('shell', "'shell:1', 'id -u; id -g; echo \$HOME \$TMPDIR; echo x > /tmp/x && cat /tmp/x'",
	"65534\n65534\n/tmp /tmp\nx");
works('script made and run in /tmp',
	"'shell:1', 'printf \"#!/bin/sh\\necho ran\" > /tmp/s; chmod +x /tmp/s; exec /tmp/s'", 'ran');

# ------------------------------------------------------- interpreters

my ($perl_base) = glob('/usr/lib/*/perl-base');
import_interpreter('perl:1', '/usr/bin/perl', $perl_base);

my $cache = 'mkdir "$ENV{HOME}/.cache" or die "mkdir: $!"; open(my $f, ">", "$ENV{HOME}/.cache/x") or die "open: $!";'
  . ' print $f "kept"; close $f; print "$] ", -s "$ENV{HOME}/.cache/x"';
works('interpreter with a cache under HOME', "'perl:1', args => ARRAY['-e', \$x\$$cache\$x\$]", "$] 4");

(my $python = qx(python3 -c 'import sys; print(sys.executable)')) =~ s/\s+\z//;
(my $python_modules = qx(python3 -c 'import os; print(os.path.dirname(os.__file__))')) =~ s/\s+\z//;
my @python_modules = grep { !m{/(?:test|dist-packages|site-packages|idlelib|config-[^/]*|__pycache__)\z} }
  glob("$python_modules/*");
import_interpreter('python:1', $python, @python_modules);
works('another, which caches beside its modules if it can',
	"'python:1', args => ARRAY['-c', 'import json, tempfile, os, sys; f = tempfile.NamedTemporaryFile();"
	  . " print(json.dumps([f.name[:5], os.path.expanduser(chr(126))]))']",
	quotemeta('["/tmp/", "/tmp"]'));

# ------------------------------------------------------- one static binary

# busybox alone: it does what its name says.
import_tree('static:1',
	sub { IPC::Run::run([ 'cp', '/bin/busybox', "$_[0]/echo" ]); },
	'ENTRYPOINT ["/echo"]', 'CMD ["by", "default"]');
works('static binary by itself', "'static:1'", 'by default');
works('static binary with args', "'static:1', args => ARRAY['given', '\$HOME']", 'given \$HOME');
works('static binary by entrypoint', "'static:1', entrypoint => ARRAY['/echo', '-n'], args => ARRAY['x']", 'x');
my $no_shell = fails('static binary with command', "'static:1', 'echo x'", 127, qr{/bin/sh}, qr/has no \/bin\/sh/);
like($no_shell->{hint} // '', qr{/bin/sh}, 'its HINT tells why');

# ------------------------------------------------------- tool with ENTRYPOINT

$engine->import_busybox('tool:1', entrypoint => [ 'expr', '6' ], cmd => [ '+', '1' ]);
works('tool by itself', "'tool:1'", '7');
works('tool with args', "'tool:1', args => ARRAY['*', '7']", '42');
works('command does without the ENTRYPOINT', "'tool:1', 'echo x'", 'x');

# ------------------------------------------------------- its own USER

$engine->import_busybox('user:1', user => 'job', env => { HOME => '/home' });
works('USER and HOME of the image are not used', "'user:1', 'id -u; echo \$HOME'", "65534\n/tmp");
works('its number by run_as', "'user:1', 'id -u; id -g', run_as => '1001'", "1001\n1001");

# ------------------------------------------------------- writes beside itself

build_image('cache:1', 'mkdir -p /var/cache /app/data; chown 65534 /app/data');
fails('writes to /var/cache', "'cache:1', 'echo x > /var/cache/x'", 1,
	qr/Read-only file system/, qr/tmpfs|read_only => false/);
works('with a tmpfs there',
	"'cache:1', 'echo x > /var/cache/x; cat /var/cache/x', tmpfs => '{\"/var/cache\": 64}'", 'x');
fails('read_only => false, but the folder is root\'s', "'cache:1', 'echo x > /var/cache/x', read_only => false",
	1, qr/Permission denied/, qr/run_as/);
works('read_only => false, and the folder is its user\'s',
	"'cache:1', 'echo x > /app/data/x; cat /app/data/x', read_only => false", 'x');

# ------------------------------------------------------- files of one user only

build_image('secret:1', 'echo s > /root.conf; echo u > /user.conf; chmod 600 /*.conf; chown 1500 /user.conf');
fails('files of root only', "'secret:1', 'cat /root.conf'", 1, qr/Permission denied/, qr/run_as/);
works('files of another user, by run_as', "'secret:1', 'cat /user.conf', run_as => '1500'", 'u');
refused('root', "'secret:1', 'cat /root.conf', run_as => '0'", '42501', 'container_manager\.min_uid');
refused('a service of the host', "'shell:1', 'true', run_as => '999:999'", '42501', 'container_manager\.min_uid');

# ------------------------------------------------------- ports, sockets

# One process serves, another asks.
my $port_80 = 'mkdir /tmp/w; echo served > /tmp/w/index.html; httpd -f -p 80 -h /tmp/w & '
  . 'i=0; until wget -q -O - http://127.0.0.1/ || [ $i -ge 100 ]; do i=$((i + 1)); usleep 100000; done; kill $!';
works('port 80', "'shell:1', '$port_80', networks => '[\"none\"]'", 'served');
works('socket for echo requests', "'perl:1', args => ARRAY['-e', 'socket(my \$s, 2, 2, 1) or die \$!; print \"open\"']", 'open');

# ------------------------------------------------------- needs a capability

fails('mount', "'shell:1', 'mount -t tmpfs none /mnt || mount -t tmpfs none /tmp'", 1, qr/denied|not permitted/);
fails('raw socket',
	"'perl:1', args => ARRAY['-e', 'socket(my \$s, 2, 3, 1) or die \"socket: \$!\"']",
	1, qr/Operation not permitted/, qr/capabilities/);

# ------------------------------------------------------- must be root

fails('chown as nobody', "'cache:1', 'chown 1500 /app/data'", 1, qr/not permitted|Read-only/);
set_min_uid_everywhere(0);
works('root where allowed', "'secret:1', 'id -u; cat /root.conf', run_as => '0'", "0\ns");
works('port 80 as root', "'shell:1', '$port_80', run_as => '0', networks => '[\"none\"]'", 'served');
fails('chown as root', "'secret:1', 'touch /tmp/x; chown 1500 /tmp/x', run_as => '0'", 1,
	qr/Operation not permitted/, qr/capabilities/);
fails('files of others as root', "'secret:1', 'cat /user.conf', run_as => '0'", 1, qr/Permission denied/);
fails('mount as root', "'shell:1', 'mount -t tmpfs none /tmp', run_as => '0'", 1, qr/denied|not permitted/);
fails('change of user as root', "'shell:1', 'su job -c id', run_as => '0'", 1, qr/not permitted|can.t set/i);
set_min_uid_everywhere(1001);

# ------------------------------------------------------- VOLUME

build_image('volume:1', 'mkdir /data /rootdata; chown 65534 /data', 'VOLUME ["/data", "/rootdata"]');
works('VOLUME can be written, although the rest is read-only',
	"'volume:1', 'echo kept > /data/x; cat /data/x'", 'kept');
works('and is new for each job', "'volume:1', 'ls -A /data'", '');
fails('VOLUME whose folder is root\'s', "'volume:1', 'echo x > /rootdata/x'", 1, qr/Permission denied/);
ok(wait_until('removal of containers', sub { !$engine->containers }), 'containers are removed');
is($engine->docker(qw(volume ls --quiet)), '', 'and their anonymous volumes with them');

# ------------------------------------------------------- many processes

# Orphans of a main program that waits for none of them: more in all than may
# live at once, so that zombies left would stop it.
my $orphans = 'my $until = time + 30; for (1 .. 300) { my $pid;'
  . ' until (defined($pid = fork)) { die "fork: $!" if time > $until; select(undef, undef, undef, 0.05) }'
  . ' if (!$pid) { fork; exit } waitpid $pid, 0 } print "all"';
works('zombies are reaped', "'perl:1', args => ARRAY['-e', \$x\$$orphans\$x\$]", 'all');

my $children = 'for (1 .. 300) { my $pid = fork // die "fork $_: $!"; if (!$pid) { sleep 100; exit } }';
fails('more than pids_limit processes', "'perl:1', args => ARRAY['-e', \$x\$$children\$x\$]", 11,
	qr/fork 2[45]\d: Resource temporarily unavailable/, qr/container_manager\.pids_limit/);

# ------------------------------------------------------- signals

# Both have printed when they are cancelled, so that what they do about signals
# is settled.
sub cancelled_when_running
{
	my ($command) = @_;
	my $id = $node->submit("'shell:1', \$x\$$command\$x\$");
	$node->wait_for_sql("SELECT cm_job_output($id) LIKE 'ready%'", 't');
	value("SELECT cm_cancel_job($id)");
	$node->job_wait($id);
	return job($id);
}

my $deaf = cancelled_when_running('trap "" TERM; echo ready; while :; do sleep 1; done');
is("$deaf->{status} $deaf->{exit_code}", 'cancelled 137', 'a program deaf to SIGTERM gets SIGKILL') || diag(show($deaf));
my $plain = cancelled_when_running('echo ready; sleep 100');
is("$plain->{status} $plain->{exit_code}", 'cancelled 143', 'one that says nothing of signals ends at once')
  || diag(show($plain));
my $polite = cancelled_when_running('trap "echo saved; exit 5" TERM; echo ready; while :; do sleep 0.1; done');
is("$polite->{status} $polite->{exit_code} $polite->{stdout}", "cancelled 5 ready\nsaved\n", 'one that handles it is heard')
  || diag(show($polite));

done_testing();
