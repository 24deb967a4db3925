# An engine on a machine that is reached by ssh: its socket is forwarded to here, as
# the README says, over a real sshd.  The line breaks while a job runs, and comes back.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::Engine;
use File::Temp ();
use IO::Socket::INET;
use IO::Socket::UNIX;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'far', count_starts => 1);
$engine->import_busybox('busybox:test');
my $folder = File::Temp->newdir(TEMPLATE => 'sshXXXX', TMPDIR => 1);
my $port = PostgreSQL::Test::Cluster::get_free_port();
my @running;

sub launch
{
	my ($log, @argv) = @_;
	my $pid = fork() // die "could not fork: $!\n";
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$folder/$log");
		open(STDERR, '>&', \*STDOUT);
		exec { $argv[0] } @argv or die "could not execute $argv[0]: $!\n";
	}
	push @running, $pid;
	return $pid;
}

sub finish
{
	my ($pid) = @_;
	kill 'KILL', $pid;
	waitpid $pid, 0;
	@running = grep { $_ != $pid } @running;
	return;
}

END
{
	my $status = $?;
	finish($_) for @running;
	$? = $status;
}

sub log_of
{
	my ($name) = @_;
	open(my $file, '<', "$folder/$name") or return '';
	local $/ = undef;
	return scalar <$file>;
}

# ------------------------------------------------------- the far end

for my $key (qw(host user))
{
	my $out = '';
	IPC::Run::run([ qw(ssh-keygen -q -t ed25519 -N), '', '-f', "$folder/$key" ], '>', \$out, '2>&1')
	  or die "ssh-keygen failed: $out\n";
}
rename "$folder/user.pub", "$folder/authorized_keys";
open(my $config, '>', "$folder/sshd_config") or die "could not write sshd_config: $!\n";
print $config <<"END";
ListenAddress 127.0.0.1:$port
HostKey $folder/host
AuthorizedKeysFile $folder/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
PidFile none
AllowStreamLocalForwarding local
END
close $config;
launch('sshd.log', '/usr/sbin/sshd', '-D', '-e', '-f', "$folder/sshd_config");
ok(wait_until(sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 5) }), 'sshd listens')
  or BAIL_OUT(log_of('sshd.log'));

my $public = do { open(my $file, '<', "$folder/host.pub") or die; <$file> };
open(my $known, '>', "$folder/known_hosts") or die "could not write known_hosts: $!\n";
print $known "[127.0.0.1]:$port $public";
close $known;

# ------------------------------------------------------- the line

my $user = getpwuid $<;
my $socket = "$folder/far.sock";

sub open_line
{
	my $pid = launch('ssh.log', qw(ssh -F none -N -T), '-p', $port, '-i', "$folder/user", '-l', $user,
		'-o', "UserKnownHostsFile=$folder/known_hosts",
		(map { ('-o', $_) } qw(BatchMode=yes ExitOnForwardFailure=yes StreamLocalBindUnlink=yes
			ServerAliveInterval=15 ServerAliveCountMax=3 StrictHostKeyChecking=yes)),
		'-L', "$socket:" . $engine->socket, '127.0.0.1');
	ok(wait_until(sub { IO::Socket::UNIX->new(Peer => $socket) }), 'the line is open')
	  or diag(log_of('ssh.log'), log_of('sshd.log'));
	return $pid;
}

my $line = open_line();
my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '2s');
$node->add_host('far', "unix://$socket");
sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub ended
{
	my ($what, $id, $end, $output) = @_;
	$node->job_wait($id);
	is(value("SELECT concat_ws(' ', status, exit_code, attempt, logs_incomplete) FROM cm_jobs WHERE id = $id"), $end, "$what: ended")
	  or diag(value("SELECT error, detail FROM cm_jobs WHERE id = $id"));
	is(value("SELECT array_to_string(array_agg(line), ' ') FROM cm_job_logs($id)"), $output, "$what: output");
	my $container = value("SELECT container_id FROM cm_jobs WHERE id = $id");
	is(scalar(grep { $_ eq $container } $engine->starts), 1, "$what: started once");
	return;
}

is(value("SELECT ok FROM cm_check_host('far', '1 min')"), 't', 'checked over the line');
ended('a job', $node->submit(q('busybox:test', 'echo far; exit 3')), 'failed 3 1 f', 'far');

# ------------------------------------------------------- it breaks

my %id = map {
	$_ => $node->submit(qq('busybox:test', 'echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two; exit 4'))
} qw(meanwhile afterwards);
ok($node->wait_for_sql("SELECT count(*) FROM cm_job_logs($id{$_})", 1), "$_: runs") for sort keys %id;
my %container = map { $_ => value("SELECT container_id FROM cm_jobs WHERE id = $id{$_}") } keys %id;
finish($line);
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'running' AND detail LIKE 'host unreachable%'", 2),
	'line broken: the jobs wait for it');
like(value("SELECT error FROM cm_check_host('far', '1 min')"), qr/connection refused/, 'line broken: checked');
my $waits = $node->submit(q('busybox:test', 'echo late'));
$engine->docker('exec', $container{meanwhile}, 'touch', '/tmp/go');
ok(wait_until(sub { !$engine->inspect($container{meanwhile})->{State}{Running} }), 'line broken: a job ends');

open_line();
ended('ended meanwhile', $id{meanwhile}, 'failed 4 1 f', 'one two');
ended('waited for the line', $waits, 'completed 0 1 f', 'late');
is(value("SELECT status FROM cm_jobs WHERE id = $id{afterwards}"), 'running', 'line is back: the other one runs on');
$engine->docker('exec', $container{afterwards}, 'touch', '/tmp/go');
ended('ran on', $id{afterwards}, 'failed 4 1 f', 'one two');

ok(wait_until(sub { !$engine->containers }), 'no container is left');
is(value('SELECT last_error FROM cm_status'), '', 'the executor met no error');
done_testing();
