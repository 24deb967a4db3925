# Executors and their databases, on a server with the library preloaded: CREATE
# EXTENSION is all that it takes, in several databases at once; an executor comes
# back after whatever ended it; it steps aside for those who want the database for
# themselves; a copy of a database does not touch what the original started.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_preloaded('main', 'container_manager.poll_interval' => '2s');
$node->start;

my $executors = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor'";
my $odd_schema = q{Odd é. ;};

# What a statement gives in a database; dies if it fails.
sub sql
{
	my ($database, $sql) = @_;
	return $node->safe_psql($database, $sql);
}

# The words on stderr, for statements that may warn or fail.
sub complaints
{
	my ($database, $sql) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql($database, $sql, stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

sub wait_in
{
	my ($database, $sql, $expected, $what, %option) = @_;
	return ok($node->wait_for_sql($sql, $expected, database => $database, %option), $what);
}

sub submit
{
	my ($database, $command, $more) = @_;
	$more = defined $more ? ", $more" : '';
	return sql($database, "SELECT cm_submit_job('busybox:test', '$command'$more)");
}

# A job that runs until end_job.
sub submit_endless
{
	my ($database) = @_;
	my $job = submit($database, 'echo begun; while :; do sleep 0.2; done', 'timeout_seconds => 600');
	wait_in($database, "SELECT status FROM cm_jobs WHERE id = $job", 'running', "$database: job $job runs");
	return $job;
}

# A job that ends by itself some time after its executor was disturbed.
sub runs_a_job
{
	my ($database, $what) = @_;
	my $job = submit($database, 'printf out; exit 3');
	my $status = $node->job_wait($job, database => $database);
	is("$status " . sql($database, "SELECT exit_code || ' ' || cm_job_output($job) FROM cm_jobs WHERE id = $job"),
		"failed 3 out", "$what: a job runs")
	  or diag(sql($database, "SELECT * FROM cm_job_explain($job)"), "\n", sql($database, 'TABLE cm_status'));
	return;
}

sub executor
{
	my ($database) = @_;
	return $node->executor_pid(database => $database);
}

# Containers of a database, by the epoch that it has now.
sub epoch { my ($database) = @_; return sql($database, 'SELECT epoch FROM cm_internal.identity'); }

sub containers_of
{
	my ($epoch) = @_;
	return $engine->containers(label => "container-manager.epoch=$epoch");
}

sub log_since
{
	my ($offset) = @_;
	return substr(slurp_file($node->logfile), $offset);
}

sub end_of_log { return -s $node->logfile; }

# Gives a database the extension and a host.
sub equip
{
	my ($database) = @_;
	sql($database, 'CREATE EXTENSION container_manager');
	add_host($database);
	return;
}

sub add_host { my ($database) = @_; return sql($database, "SELECT cm_add_host('local', '" . $engine->url . "')"); }

sub several_at_once
{
	my @databases = qw(one two odd);
	sql('postgres', 'CREATE ROLE alice CREATEDB LOGIN');
	sql('postgres', 'CREATE DATABASE one');
	sql('postgres', 'CREATE DATABASE two OWNER alice');
	sql('postgres', 'CREATE DATABASE odd');
	sql('odd', qq{CREATE SCHEMA "$odd_schema"});
	sql('postgres', qq{ALTER DATABASE odd SET search_path = "$odd_schema"});

	my @runs = map {
		my $schema = $_ eq 'odd' ? qq{ SCHEMA "$odd_schema"} : '';
		IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($_), '-c', "CREATE EXTENSION container_manager$schema" ]);
	} @databases;
	$_->finish or die "CREATE EXTENSION failed\n" for @runs;
	my $committed = time;
	wait_in('postgres', $executors, 3, 'three executors');
	note sprintf 'after %.1f s', time - $committed;

	add_host($_) for @databases;
	runs_a_job($_, $_) for @databases;
	is(sql($_, 'SELECT state FROM cm_status'), 'running', "$_: cm_status") for @databases;
	is(sql('odd', "SELECT count(*) FROM pg_class WHERE relname = 'cm_jobs' AND relnamespace = '\"$odd_schema\"'::regnamespace"),
		1, 'the schema of odd name has it');
	return;
}

sub survives_restart
{
	my $job = submit_endless('two');
	$node->restart;
	wait_in('postgres', $executors, 3, 'all are back after a restart of the server');
	runs_a_job($_, "$_ after a restart") for qw(one two odd);
	is(sql('two', "SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'what ran then runs still');
	sql('two', "SELECT cm_cancel_job($job)");
	is($node->job_wait($job, database => 'two'), 'cancelled', 'and can be cancelled');
	return;
}

sub survives_termination
{
	my $job = submit('one', 'until [ -e /tmp/go ]; do sleep 0.2; done; printf done; exit 4');
	wait_in('one', "SELECT status FROM cm_jobs WHERE id = $job", 'running', 'a job runs');
	my $pid = executor('one');
	sql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_in('one', "SELECT is_running AND executor_pid <> $pid FROM cm_status", 't', 'a terminated executor is started again');
	$engine->docker('exec', sql('one', "SELECT container_id FROM cm_jobs WHERE id = $job"), 'touch', '/tmp/go');
	is($node->job_wait($job, database => 'one'), 'failed', 'its job comes to its end');
	is(sql('one', "SELECT attempt || ' ' || exit_code || ' ' || cm_job_output(id) FROM cm_jobs WHERE id = $job"),
		'1 4 done', 'started once, with exit code and output');

	$pid = executor('one');
	my $launcher = sql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'container_manager launcher'");
	sql('postgres', "SELECT pg_terminate_backend($launcher)");
	wait_in('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager launcher' AND pid <> $launcher",
		1, 'a terminated launcher is started again');
	is(executor('one'), $pid, 'executors outlive it');
	sql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_in('one', "SELECT is_running AND executor_pid <> $pid FROM cm_status", 't', 'and are looked after by the next');
	return;
}

sub kept_out_by_setting
{
	my $job = submit_endless('two');
	my $pid = executor('two');
	sql('postgres', 'ALTER DATABASE two SET container_manager.enabled = off');
	sql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_in('two', 'SELECT state FROM cm_status', 'disabled', 'enabled = off keeps the executor out');
	like(sql('two', 'SELECT advice FROM cm_status'), qr/ALTER DATABASE two SET container_manager\.enabled = on.*cm_start_executor/, 'with advice');
	like(complaints('two', "SELECT cm_submit_job('busybox:test', 'exit 3')"),
		qr/WARNING:.*nobody runs it: container_manager\.enabled is off.*HINT/s, 'who submits is warned');
	is(sql('two', "SELECT why FROM cm_ps WHERE state = 'pending'"), 'no executor running', 'cm_ps says why');
	is(sql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor' AND datname = 'two'"), 0, 'there is none');
	like(complaints('two', 'SELECT cm_start_executor()'), qr/ERROR:.*enabled is off.*HINT/s, 'cm_start_executor() says the same');

	sql('postgres', 'ALTER DATABASE two SET container_manager.enabled = on');
	is(sql('two', 'SELECT cm_start_executor()'), 't', 'turned on again it is started by hand');
	wait_in('two', "SELECT count(*) FROM cm_jobs WHERE status = 'pending'", 0, 'and does what has waited');
	is(sql('two', "SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'what ran before is taken up');
	sql('two', "SELECT cm_cancel_job($job)");
	$node->job_wait($job, database => 'two');

	# For all of the server, while they run; what a database says goes before.
	sql('postgres', 'ALTER SYSTEM SET container_manager.enabled = off');
	$node->reload;
	wait_in('postgres', "$executors AND datname IN ('one', 'odd')", 0, 'turned off in the file: executors go');
	is(sql('two', 'SELECT state FROM cm_status'), 'running', 'two: ALTER DATABASE had turned it on');
	wait_in('one', 'SELECT state FROM cm_status', 'disabled', 'one: disabled');
	sql('postgres', 'ALTER SYSTEM RESET container_manager.enabled');
	$node->reload;
	wait_in($_, 'SELECT state FROM cm_status', 'running', "$_: turned on again it comes back") for qw(one two odd);
	sql('postgres', 'ALTER DATABASE two RESET container_manager.enabled');

	is(sql('two', 'SELECT cm_stop_executor()'), 't', 'cm_stop_executor()');
	is(sql('two', 'SELECT state FROM cm_status'), 'stopped', 'is another thing');
	like(complaints('two', "SELECT cm_submit_job('busybox:test', 'exit 3')"), qr/WARNING:.*nobody runs it/, 'and is warned of, too');
	is(sql('two', 'SELECT cm_start_executor()'), 't', 'cm_start_executor() undoes it');
	wait_in('two', "SELECT count(*) FROM cm_jobs WHERE status = 'pending'", 0, 'and the job runs');
	return;
}

sub renamed_and_moved
{
	my $job = submit_endless('two');
	my $dir = $node->basedir . '/space';
	mkdir $dir;
	sql('postgres', "CREATE TABLESPACE space LOCATION '$dir'");

	sql('postgres', 'ALTER DATABASE two RENAME TO deux');
	wait_in('deux', 'SELECT state FROM cm_status', 'running', 'RENAME: the executor comes back');
	sql('postgres', 'ALTER DATABASE deux SET TABLESPACE space');
	wait_in('deux', 'SELECT state FROM cm_status', 'running', 'SET TABLESPACE: the executor comes back');
	runs_a_job('deux', 'afterwards');

	# In a block, and undone.
	is(complaints('postgres', 'BEGIN; ALTER DATABASE deux RENAME TO two; ROLLBACK'), '', 'RENAME undone');
	wait_in('deux', 'SELECT state FROM cm_status', 'running', 'the executor comes back then, too');
	is(sql('deux', "SELECT status || ' ' || attempt FROM cm_jobs WHERE id = $job"), 'running 1', 'the job has run on all the time');
	sql('deux', "SELECT cm_cancel_job($job)");
	$node->job_wait($job, database => 'deux');

	# Who may not do it cannot send the executor away either.
	my $pid = executor('one');
	my ($stdout, $stderr);
	for my $statement ('DROP DATABASE one', 'ALTER DATABASE one RENAME TO x', 'CREATE DATABASE x TEMPLATE one')
	{
		isnt($node->psql('postgres', "SET ROLE alice; $statement", stderr => \$stderr), 0, "alice: $statement fails");
	}
	is(executor('one'), $pid, 'and the executor has stayed');
	return;
}

sub copied
{
	my $running = submit_endless('one');
	my $later = submit('one', 'echo later', "run_at => now() + interval '1 h'");
	my $epoch = epoch('one');
	my $log = end_of_log();
	sql('postgres', 'CREATE DATABASE copy TEMPLATE one');
	wait_in('one', 'SELECT state FROM cm_status', 'running', 'TEMPLATE: the executor of the original comes back');

	# At once: the copy's executor may not have looked round yet.
	my $early = submit('copy', 'echo early');
	is($node->job_wait($early, database => 'copy'), 'completed', 'copy: a job submitted at once runs')
	  or diag(sql('copy', "SELECT * FROM cm_job_explain($early)"));
	wait_in('copy', 'SELECT state FROM cm_status', 'running', 'the copy has an executor');
	isnt(epoch('copy'), $epoch, 'the copy has an epoch of its own');
	is(epoch('one'), $epoch, 'the original keeps its');
	is(sql('copy', "SELECT string_agg(status, ' ' ORDER BY id) FROM cm_jobs WHERE id IN ($running, $later)"),
		'running pending', 'unfinished jobs in the copy stay as they were');
	is(sql('copy', "SELECT count(*) FROM cm_jobs WHERE id IN ($running, $later) AND detail LIKE '%copied with the database%'"),
		2, 'and say why');
	is(sql('copy', "SELECT count(*) FROM cm_ps WHERE id IN ($running, $later) AND why LIKE 'cop%'"), 2, 'cm_ps, too');
	like(sql('copy', "SELECT string_agg(explanation, ' ') FROM cm_job_explain($running)"), qr/as another database left it.*cm_adopt_restored_jobs/s,
		'and cm_job_explain');
	is(sql('copy', "SELECT count(*) FROM cm_job_events e WHERE e.job_id = $running"),
		sql('one', "SELECT count(*) FROM cm_job_events e WHERE e.job_id = $running"), 'no events are made up');
	runs_a_job('copy', 'copy');
	like(complaints('copy', "SELECT cm_cancel_job($running)"), qr/ERROR:.*copy from another database/, 'copy: an inert job cannot be cancelled');
	is(scalar containers_of($epoch), 1, 'the container of the original is there');
	is(sql('one', "SELECT status || ' ' || attempt FROM cm_jobs WHERE id = $running"), 'running 1', 'its job runs on');
	like(log_since($log), qr/database "copy" is a copy of another one/, 'the log tells of the copy');
	sql('one', "SELECT cm_cancel_job(id) FROM unnest(ARRAY[$running, $later]) id");
	is($node->job_wait($_, database => 'one'), 'cancelled', 'original: cancelled there') for $running, $later;
	is(sql('copy', "SELECT status FROM cm_jobs WHERE id = $running"), 'running', 'not in the copy');
	return;
}

sub dropped
{
	my $log = end_of_log();
	my $epoch = epoch('copy');
	submit_endless('copy');
	sql('postgres', 'DROP DATABASE copy');
	is(scalar containers_of($epoch), 1, 'DROP DATABASE leaves the containers');
	like(log_since($log), qr/LOG:.*database "copy" was dropped while container_manager was at work in it/, 'and says so in the log');

	# The same name again is another database.
	sql('postgres', 'CREATE DATABASE copy');
	equip('copy');
	isnt(epoch('copy'), $epoch, 'a database of the same name has another epoch');
	runs_a_job('copy', 'the same name again');
	is(scalar containers_of($epoch), 1, 'what the other one left stays');
	my $forced = epoch('copy');
	submit_endless('copy');
	my $session = $node->session('copy');
	$session->query_safe('SELECT 1');
	isnt($node->psql('postgres', 'DROP DATABASE copy'), 0, 'DROP DATABASE fails while somebody else is connected');
	wait_in('copy', 'SELECT state FROM cm_status', 'running', 'then the executor comes back');
	sql('postgres', 'DROP DATABASE copy WITH (FORCE)');
	eval { $session->quit; 1 };
	is(scalar containers_of($forced), 1, 'DROP DATABASE WITH (FORCE) leaves the containers');

	# A terminated executor of a database that is gone is not started for ever.
	runs_a_job('one', 'another database meanwhile');
	my $said = log_since($log);
	unlike($said, qr/FATAL:.*database.*does not exist/, 'nobody looks for the database that is gone');
	is(scalar(() = $said =~ /was dropped while container_manager was at work/g), 2, 'FORCE is in the log, too');
	for my $container (map { containers_of($_) } $epoch, $forced)
	{
		$engine->docker('rm', '-f', $container->{Id});
	}
	return;
}

# max_worker_processes: the launcher takes one, and others may want some.
sub too_few_workers
{
	sql('postgres', "ALTER SYSTEM SET max_worker_processes = 3");
	sql('postgres', "ALTER SYSTEM SET max_logical_replication_workers = 0");
	my $log = end_of_log();
	$node->restart;
	sql('postgres', 'CREATE DATABASE more');
	equip('more');
	my @databases = qw(one deux odd more);
	my $in_state = sub {
		my ($state) = @_;
		return grep { sql($_, 'SELECT state FROM cm_status') eq $state } @databases;
	};
	my $deadline = time + $CM::Cluster::patience;
	my @waiting;
	until ((@waiting = $in_state->('no worker slot')) >= 2 && $in_state->('running') + @waiting == @databases || time > $deadline)
	{
		usleep(100_000);
	}
	cmp_ok(scalar @waiting, '>=', 2, 'max_worker_processes too small: cm_status says so')
	  or diag(map { sql($_, 'TABLE cm_status') . "\n" } @databases);
	my $database = $waiting[0] // return;
	like(sql($database, 'SELECT advice FROM cm_status'), qr/max_worker_processes = 11/, 'with advice');
	like(complaints($database, "SELECT cm_submit_job('busybox:test', 'exit 0')"), qr/WARNING:.*nobody runs it/, 'who submits is warned');
	like(complaints($database, 'SELECT cm_start_executor()'), qr/ERROR:.*no background worker.*max_worker_processes/s, 'cm_start_executor() says the same');
	my $said = log_since($log);
	is(scalar(() = $said =~ /no background worker is left for the container_manager executor/g), 1, 'logged once')
	  or diag(join "\n", $said =~ /^.*no background worker.*$/mg);

	# Where one goes another comes, without a restart.
	my ($there) = $in_state->('running');
	sql('postgres', "DROP DATABASE $there");
	@databases = grep { $_ ne $there } @databases;
	$deadline = time + $CM::Cluster::patience;
	my $n = @waiting;
	until ($in_state->('no worker slot') < $n || time > $deadline) { usleep(100_000); }
	cmp_ok(scalar $in_state->('no worker slot'), '<', $n, 'a slot that becomes free is used');

	sql('postgres', "ALTER SYSTEM RESET max_worker_processes");
	$node->restart;
	wait_in($_, 'SELECT state FROM cm_status', 'running', "$_: runs with enough of them") for @databases;
	return;
}

several_at_once();
survives_restart();
survives_termination();
kept_out_by_setting();
renamed_and_moved();
copied();
dropped();
too_few_workers();
unlike(slurp_file($node->logfile), qr/PANIC|was terminated by signal|TRAP:/, 'nothing has crashed');

$node->stop;
done_testing();
