# CREATE and DROP EXTENSION with jobs under way: committed, the executor removes what
# it had started and goes; rolled back, nothing has happened; in one transaction or
# in quick succession, the new one works and nothing of the old one is left.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_with_extension('main', 'container_manager.poll_interval' => '2s');
my $url = $engine->url;

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub epoch { return sql('SELECT epoch FROM cm_internal.identity'); }
sub ours { return $engine->containers(label => 'container-manager.epoch'); }

sub wait_until
{
	my ($condition) = @_;
	my $deadline = time + $CM::Cluster::patience;
	usleep(50_000) until $condition->() || time > $deadline;
	return $condition->();
}

# Jobs that run until they are told to end; some ignore SIGTERM.
sub start_endless
{
	my ($n) = @_;
	sql(q{SELECT cm_submit_job('busybox:test', 'trap "" TERM; while :; do sleep 0.2; done', memory_limit => 16, cpu_limit => 0.1)}
		  . " FROM generate_series(1, $n)");
	return;
}

sub running { return "SELECT count(*) FROM cm_jobs WHERE status = 'running'"; }

sub has_no_executor
{
	return $node->wait_for_sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor'", 0);
}

sub runs_a_job
{
	my ($what) = @_;
	my $job = $node->submit(q{'busybox:test', 'printf out; exit 3'});
	is($node->job_wait($job), 'failed', "$what: a job ends");
	is(sql("SELECT exit_code || ' ' || attempt || ' ' || cm_job_output(id) FROM cm_jobs WHERE id = $job"), '3 1 out', "$what: and is read");
	return;
}

sub create_rolled_back
{
	sql('DROP EXTENSION container_manager');
	ok(has_no_executor(), 'without the extension there is no executor');
	my $log = -s $node->logfile;
	sql('BEGIN; CREATE EXTENSION container_manager; ROLLBACK');
	sql('BEGIN; SAVEPOINT s; CREATE EXTENSION container_manager; ROLLBACK TO s; COMMIT');
	# A database that asks later is looked at after those that asked before.
	sql('CREATE DATABASE later');
	$node->safe_psql('later', 'CREATE EXTENSION container_manager');
	ok($node->wait_for_sql('SELECT state FROM cm_status', 'running', database => 'later'), 'CREATE EXTENSION in another database');
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor' AND datname = 'postgres'"), 0,
		'ROLLBACK of CREATE EXTENSION: no executor');
	sql('DROP DATABASE later');
	unlike(substr(slurp_file($node->logfile), $log), qr/ERROR|exited with exit code [2-9]/, 'and no error');
	sql('CREATE EXTENSION container_manager');
	ok($node->wait_for_sql('SELECT state FROM cm_status', 'running'), 'CREATE EXTENSION after that: an executor');
	return;
}

sub drop_rolled_back
{
	$node->add_host('local', $engine, 'max_concurrent_jobs => 20');
	start_endless(2);
	ok($node->wait_for_sql(running(), 2), 'jobs run');
	my $pid = $node->executor_pid;
	my $transactions = sql('SELECT transactions FROM cm_status');
	my $session = $node->session;
	$session->query_safe('BEGIN; DROP EXTENSION container_manager');
	# Long enough for the executor to find that it cannot work.
	my $job = "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND state = 'idle' AND state_change > now() - interval '1 s'";
	ok($node->wait_for_sql($job, 1), 'an open DROP EXTENSION: the executor goes on looking') for 1 .. 3;
	is(scalar(grep { $_->{State} eq 'running' } ours()), 2, 'and the containers run');
	$session->query_safe('ROLLBACK');
	$session->quit;
	is($node->executor_pid, $pid, 'ROLLBACK of DROP EXTENSION: the executor has stayed');
	runs_a_job('after it');
	is(sql(running()), 2, 'what ran runs');
	return;
}

sub dropped
{
	my $foreign = $engine->docker(qw(run -d --label kind=foreign busybox:test sleep 3600));
	my $other = $engine->docker(qw(run -d --label container-manager.epoch=00000000-0000-0000-0000-000000000000
		  --label container-manager.kind=job --label container-manager.version=1 --label container-manager.job=1
		  --label container-manager.attempt=1 busybox:test sleep 3600));
	start_endless(6);
	# Some run, some are being launched.
	ok($node->wait_for_sql('SELECT count(*) >= 4 FROM cm_jobs WHERE status = \'running\'', 't'), 'jobs run and are being launched');
	my $begun = time;
	sql('DROP EXTENSION container_manager');
	# The executor gives up after 25 s, and none comes after it: who removes them
	# does so in that time.
	ok(wait_until(sub { ours() == 1 }), 'DROP EXTENSION: containers are removed');
	ok(has_no_executor(), 'and the executor is gone');
	note(sprintf 'it took %.1f s', time - $begun);
	is_deeply([ map { $_->{Id} } ours() ], [$other], 'but those of another epoch')
	  or diag(explain([ map { $_->{Labels} } ours() ]));
	is($engine->inspect($_)->{State}{Running} ? 1 : 0, 1, 'foreign containers stay') for $foreign, $other;
	$engine->docker('rm', '-f', $foreign, $other);
	return;
}

sub in_one_transaction
{
	sql('CREATE SCHEMA elsewhere');
	sql("CREATE EXTENSION container_manager; SELECT cm_add_host('local', '$url')");
	start_endless(2);
	ok($node->wait_for_sql(running(), 2), 'jobs run');
	my $epoch = epoch();
	my $pid = $node->executor_pid;
	# In another schema, at that: nothing that was prepared for the old one fits.
	sql("BEGIN; DROP EXTENSION container_manager; CREATE EXTENSION container_manager SCHEMA elsewhere; COMMIT");
	sql("ALTER DATABASE postgres SET search_path = elsewhere, public");
	isnt(epoch(), $epoch, 'DROP and CREATE EXTENSION in one transaction: a new epoch');
	ok(wait_until(sub { !$engine->containers(label => "container-manager.epoch=$epoch") }), 'the old containers are removed');
	$node->add_host('local', $engine);
	runs_a_job('then');
	sql("ALTER DATABASE postgres RESET search_path");
	sql('DROP EXTENSION container_manager');
	ok(has_no_executor(), 'dropped again');
	return;
}

# How many descriptors to wait with the executor has; connections come and go.
sub n_epolls
{
	my $pid = $node->executor_pid;
	return scalar grep { (readlink($_) // '') =~ /eventpoll/ } glob "/proc/$pid/fd/*";
}

sub in_quick_succession
{
	sql("CREATE EXTENSION container_manager; SELECT cm_add_host('local', '$url')");
	my $before = $node->wait_for_sql('SELECT healthy_hosts FROM cm_status', 1) && n_epolls();
	my $log = -s $node->logfile;
	for my $round (1 .. 5)
	{
		start_endless(3);
		# Not waited for: they are waiting, being made, or run.
		usleep(int rand 400_000);
		sql('DROP EXTENSION container_manager') if $round % 2;
		sql(($round % 2 ? '' : 'BEGIN; DROP EXTENSION container_manager; ')
			  . "CREATE EXTENSION container_manager; SELECT cm_add_host('local', '$url');" . ($round % 2 ? '' : ' COMMIT;'));
	}
	my $epoch = epoch();
	runs_a_job('DROP and CREATE EXTENSION five times with jobs in flight');
	ok(wait_until(sub { !ours() }), 'no container is left')
	  or diag("epoch now: $epoch\n", explain([ map { $_->{Labels}, $_->{State} } ours() ]));
	is(sql("SELECT string_agg(DISTINCT status, ' ') FROM cm_jobs"), 'failed', 'no job of before is there');
	is(sql('SELECT state FROM cm_status'), 'running', 'the executor runs');
	cmp_ok($before, '>', 0, 'it waits by epoll');
	is(n_epolls(), $before, 'with as many descriptors to wait with as before');
	unlike(substr(slurp_file($node->logfile), $log), qr/ERROR|PANIC|terminated by signal/, 'and no error');
	return;
}

create_rolled_back();
drop_rolled_back();
dropped();
in_one_transaction();
in_quick_succession();

$node->stop;
done_testing();
