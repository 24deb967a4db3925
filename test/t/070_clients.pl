# Applications as they are: psycopg2 and node-postgres with sessions of their own,
# then both at once through pgbouncer in transaction mode.  They submit in their
# own transactions, take some back, listen or follow cm_job_events, CALL
# cm_run_job, and act on errors.  What was rolled back never reached the engine.
# The applications are in test/clients and print what they checked.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use File::Basename qw(dirname);
use File::Spec;
use File::Temp ();
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;

my $clients = File::Spec->rel2abs(dirname(__FILE__) . '/../clients');
my $began_at = int time;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_with_extension(
	'main',
	'max_prepared_transactions' => 5,
	# Nothing sets the executor's latch at COMMIT PREPARED.
	'container_manager.poll_interval' => '1s');
$node->add_host('local', $engine);
$node->safe_psql('postgres', 'CREATE TABLE orders (id text PRIMARY KEY, job bigint NOT NULL)');

# Where Debian and npm put modules; another nodejs does not look there by itself.
$ENV{NODE_PATH} = '/usr/share/nodejs:/usr/lib/node_modules:/usr/local/lib/node_modules';
$ENV{PGUSER} = getpwuid $<;

my @rolled_back;

sub python_app
{
	my ($kind, $host, $port, $name) = @_;
	return [ '/usr/bin/python3', "$clients/psycopg2_app.py", $kind,
		"host=$host port=$port dbname=postgres user=$ENV{PGUSER}", $name ];
}

sub node_app
{
	my ($kind, $host, $port, $name) = @_;
	return [ 'node', "$clients/node_postgres_app.js", $kind, $port, $host, 'postgres', $name ];
}

# Each line of an application's is a check.
sub take_report
{
	my ($name, $stdout, $stderr) = @_;
	my $done = 0;
	for my $line (split /\n/, $stdout)
	{
		my ($word, $what, $seen) = split /\t/, $line, 3;
		push @rolled_back, $what if $word eq 'rolled back';
		$done = 1 if $word eq 'done';
		next unless $word =~ /^(?:not )?ok$/;
		ok($word eq 'ok', $what) or diag($seen);
	}
	ok($done, "$name: came to its end") or diag($stderr);
	return;
}

# Runs applications at the same time.
sub run_apps
{
	my (%app) = @_;
	my (%out, %err, %run);
	for my $name (sort keys %app)
	{
		($out{$name}, $err{$name}) = ('', '');
		$run{$name} = IPC::Run::start($app{$name}, '<', \undef, '>', \$out{$name}, '2>', \$err{$name},
			IPC::Run::timeout(900));
	}
	for my $name (sort keys %app)
	{
		eval { $run{$name}->finish; 1 } or do { $err{$name} .= $@; $run{$name}->kill_kill };
		take_report($name, $out{$name}, $err{$name});
	}
	return;
}

# pgbouncer beside the server, in transaction mode, with fewer sessions than
# the applications want.
my $pooler;
my $pooler_dir;

sub start_pooler
{
	$pooler_dir = PostgreSQL::Test::Utils::tempdir_short();
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my ($host, $server_port) = ($node->host, $node->port);
	my %file = (
		'users.txt' => qq("$ENV{PGUSER}" ""\n),
		'pgbouncer.ini' => <<"EOF_INI");
[databases]
postgres = host=$host port=$server_port dbname=postgres
[pgbouncer]
pool_mode = transaction
default_pool_size = 4
listen_addr =
unix_socket_dir = $pooler_dir
listen_port = $port
auth_type = trust
auth_file = $pooler_dir/users.txt
logfile = $pooler_dir/log
EOF_INI
	PostgreSQL::Test::Utils::append_to_file("$pooler_dir/$_", $file{$_}) for keys %file;
	$pooler = IPC::Run::start([ 'pgbouncer', '--quiet', "$pooler_dir/pgbouncer.ini" ],
		'<', \undef, '>', '/dev/null', '2>', '/dev/null');
	my $deadline = time + $CM::Cluster::patience;
	until (-S "$pooler_dir/.s.PGSQL.$port")
	{
		if (time > $deadline || !$pooler->pumpable)
		{
			die "pgbouncer did not start: ", PostgreSQL::Test::Utils::slurp_file("$pooler_dir/log");
		}
		usleep(20_000);
	}
	return $port;
}

# All that the engine creates: a listener of our own, for it remembers the last
# 256 events only.
my $created = '';
my $watcher = IPC::Run::start(
	[ '/usr/bin/docker', '--host', $engine->url, 'events', '--since', $began_at, '--filter', 'event=create',
		'--format', 'job {{index .Actor.Attributes "container-manager.job"}}.' ],
	'<', \undef, '>', \$created, '2>', '/dev/null');

# Waits until the watcher has told of the last job, too.
sub created_jobs
{
	my $last = $node->submit(q('busybox:test', 'true'));
	my $deadline = time + $CM::Cluster::patience;
	until ($created =~ /^job $last\.$/m || time > $deadline)
	{
		$watcher->pump_nb;
		usleep(20_000);
	}
	$watcher->kill_kill;
	return map { $_ => 1 } $created =~ /^job (\d+)\.$/mg;
}

run_apps(psycopg2 => python_app('direct', $node->host, $node->port, 'psycopg2'));
run_apps('node-postgres' => node_app('direct', $node->host, $node->port, 'node-postgres'));

my $port = start_pooler();
run_apps(
	'pooled psycopg2' => python_app('pooled', $pooler_dir, $port, 'pooled psycopg2'),
	'pooled node-postgres' => node_app('pooled', $pooler_dir, $port, 'pooled node-postgres'));
$pooler->signal('TERM');
eval { $pooler->finish };

# Sequences do not roll back: the ids tell rolled back jobs from all others.
cmp_ok(scalar @rolled_back, '>=', 10, 'jobs were rolled back') or diag("@rolled_back");
my $ids = join ',', @rolled_back;
is($node->safe_psql('postgres', "SELECT count(*) FROM cm_jobs WHERE id IN ($ids)"), 0, 'none of them is in cm_jobs');
is($node->safe_psql('postgres', "SELECT count(*) FROM cm_job_events WHERE job_id IN ($ids)"), 0, 'none had an event');
my %created = created_jobs();
is(scalar keys %created, $node->safe_psql('postgres', 'SELECT count(*) FROM cm_jobs WHERE attempt > 0'),
	'the engine told of every job that ran');
is(join(' ', grep { $created{$_} } @rolled_back), '', 'none reached the engine');

ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0), 'nothing is left in the queue');
my $deadline = time + $CM::Cluster::patience;
usleep(50_000) while $engine->containers && time < $deadline;
is(scalar $engine->containers, 0, 'nor on the engine');
$node->stop;

done_testing();
