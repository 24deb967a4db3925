# What cm_job_docker_command prints makes, run by a shell, the same container as
# the job's own: the same words, variables, user, limits and mounts, whatever
# characters they hold.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::Logs qw(docker_logs wait_until);
use IPC::Run ();
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test', env => { OF_IMAGE => 'yes' });
$engine->import_busybox('words:test', entrypoint => [ '/bin/sh', '-c' ], cmd => ['never run'], user => '1001', workdir => '/var');
my $node = CM::Cluster->new_preloaded('main', 'container_manager.pids_limit' => 99);
$node->start;
make_database();

my $print = q{printf '<%s>' "$@"; echo; exec tail -f /dev/null};
my %jobs = (
	'a command with quotes and newlines' => q{'busybox:test', $x$printf '<%s>' "it's" "$A" "$EMPTY" `echo \$x` 'a\b' "é
line  two	tab" !x; echo; exec tail -f /dev/null$x$, environment =>
		'{"A": "\" '' \n \t $HOME `id` \\\\ é !", "EMPTY": "", "OF_IMAGE": "no", "N": 1.50}'},
	'an entrypoint of two words and args' => qq{'busybox:test', entrypoint => '{/bin/sh,-c}', args => ARRAY[\$x\$$print\$x\$,
		'zero', '', 'two words', E'line\\nline', '\$HOME', '-x', '--', 'é"\\''', '*', '~', 'a=b', E'\\x01\\u0085\\x1b1']},
	q{args for the image's entrypoint} => qq{'words:test', args => ARRAY[\$x\$set -- "\$HOME" "\$PWD"; $print\$x\$]},
	'limits on processes' => q{'busybox:test', 'ulimit -n; ulimit -Hn; df -m /dev/shm | tail -n 1 | awk "{print \$2}"; exec tail -f /dev/null',
		ulimits => '{"nofile": {"soft": 128, "hard": 256}, "core": 0}', shm_size => 7, pids_limit => 20, stop_signal => 'SIGUSR1',
		stop_grace => '1500 ms', log_limit => 1, success_exit_codes => '{0,3}'},
	'an empty entrypoint' => q{'words:test', entrypoint => '{}', args => '{/bin/sh,-c,"echo bare; exec tail -f /dev/null",""}'},
	q{an entrypoint without the image's words} => q{'words:test', entrypoint => '{sleep,600}'},
	'limits, and a bare uid' => q{'busybox:test', 'id; pwd; ls -ld /tmp "/a b" | cut -c1-30; exec tail -f /dev/null', run_as => '2000',
		memory_limit => 64, cpu_limit => 0.25, networks => '["none"]', tmpfs => '{"/a b": 3, "/z": 2}', working_directory => '/a b'},
	"options in Docker's words" => q{'busybox:test', 'hostname; cat /etc/resolv.conf; grep -h me /etc/hosts; exec tail -f /dev/null', docker_options =>
		'{"Hostname": "its-1", "OpenStdin": true, "HostConfig": {"Dns": ["10.0.0.1"], "ExtraHosts": ["me:10.0.0.2"], "GroupAdd": ["2000"], "OomScoreAdj": 7, "CpuShares": 512}}'},
	'a group, another /tmp, a writable root' => q{'busybox:test', 'id; echo $HOME; df -m /tmp | tail -n 1 | awk "{print \$2}"; exec tail -f /dev/null',
		run_as => '2000:3000', read_only => false, tmpfs => '{"/tmp": 5}', environment => '{"HOME": "/h"}', networks => '[]'},
);
compare($_, $jobs{$_}) for sort keys %jobs;

ok(wait_until('no containers', sub { !$engine->containers }), 'nothing is left')
  or diag(join "\n", map { "@{ $_->{Names} } $_->{State}" } $engine->containers);
like((psql(q{SELECT cm_job_docker_command(999)}))[1], qr/job 999 does not exist/, 'no such job');
done_testing();

# ------------------------------------------------------- tools

# With an encoding that can hold what is quoted.
sub make_database
{
	$node->safe_psql('postgres', q{CREATE DATABASE utf8 TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'});
	ask('CREATE EXTENSION container_manager');
	ask(q{SELECT cm_add_host('local', '} . $engine->url . q{')});
	return;
}

sub ask
{
	my ($sql) = @_;
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	return $node->safe_psql('utf8', $sql);
}

sub psql
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) = $node->psql('utf8', $sql);
	return ($stdout, $stderr);
}

# The job's container and the command's are looked at while both run.
sub compare
{
	my ($name, $arguments) = @_;
	my $id = ask("SELECT cm_submit_job($arguments)");
	my $status = $node->job_wait($id, database => 'utf8', status => 'running|failed|completed');
	is($status, 'running', "$name: the job runs") or return diag(ask("SELECT error FROM cm_jobs WHERE id = $id"));
	my $job = ask("SELECT container_id FROM cm_jobs WHERE id = $id");
	my $own = run_line($id, $name) or return;
	is_deeply(traits($own), traits($job), "$name: the same container") or diag(ask("SELECT cm_job_docker_command($id)"));
	is_deeply($engine->inspect($own)->{Config}{Labels} // {}, {}, "$name: without the labels by which the executor knows its own");
	is_same_output($own, $job, $name);
	$engine->docker('rm', '-f', $own);
	ask("SELECT cm_cancel_job($id)");
	is($node->job_wait($id, database => 'utf8'), 'cancelled', "$name: the job is cancelled");
	return;
}

# Pastes the line into a shell, for the background; gives the container.
sub run_line
{
	my ($id, $name) = @_;
	my $line = ask("SELECT cm_job_docker_command($id)");
	like($line, qr/\Adocker run --rm=false /, "$name: the line") or return;
	$line =~ s/\Adocker run /docker run --detach /;
	my $shell = ask(q{SELECT string_agg(e, E'\n') FROM cm_host_env('local') e}) . "\n$line\n";
	local $ENV{PATH} = "/usr/bin:$ENV{PATH}";
	local $ENV{LC_ALL} = 'C.UTF-8';
	my ($stdout, $stderr) = ('', '');
	IPC::Run::run([ '/bin/bash', '-s' ], '<', \$shell, '>', \$stdout, '2>', \$stderr);
	like($stdout, qr/\A[0-9a-f]{64}\n\z/, "$name: it can be run") or diag($line, "\n", $stderr);
	chomp $stdout;
	return $stdout =~ /\A[0-9a-f]{64}\z/ ? $stdout : undef;
}

# What decides over what runs, and how.  The line says /bin/sh and -c apart,
# which is the same to the engine.
sub traits
{
	my ($container) = @_;
	my $c = $engine->inspect($container);
	my %trait = map { $_ => $c->{HostConfig}{$_} } qw(ReadonlyRootfs CapDrop CapAdd SecurityOpt PidsLimit Memory
	  MemorySwap NanoCpus ShmSize Ulimits Init Tmpfs NetworkMode IpcMode Privileged AutoRemove RestartPolicy Binds);
	$trait{$_} = $c->{Config}{$_} for qw(User WorkingDir Image Tty OpenStdin Healthcheck StopTimeout);
	$trait{StopSignal} = $c->{Config}{StopSignal} // 'SIGTERM';
	$trait{Ulimits} = [ sort { $a->{Name} cmp $b->{Name} } @{ $trait{Ulimits} // [] } ];
	$trait{words} = [ grep { defined } @{ $c->{Config}{Entrypoint} // [] }, @{ $c->{Config}{Cmd} // [] } ];
	shift @{ $trait{words} } if @{ $trait{words} } && $trait{words}[0] eq '';
	$trait{Env} = [ sort @{ $c->{Config}{Env} // [] } ];
	$trait{CapAdd} //= [];
	$trait{Binds} //= [];
	return \%trait;
}

sub is_same_output
{
	my ($own, $job, $name) = @_;
	my (@own, @job);
	ok( wait_until("the output of $name", sub {
			@own = docker_logs($engine, $own);
			@job = docker_logs($engine, $job);
			return "@own" eq "@job" && ("@own" =~ /\S/ || $name =~ /without/);
		}), "$name: the same output") or diag("the job: @job\nthe command: @own");
	return;
}
