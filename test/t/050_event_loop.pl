# The executor's loop is a good guest in the database: it holds no transaction
# while it waits, does nothing when there is nothing to do, is woken by commits,
# and whoever holds a lock or breaks a row delays only what he holds.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::FakeEngine;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = CM::Cluster->new_preloaded('main',
	'shared_preload_libraries' => 'container_manager, pg_stat_statements',
	'pg_stat_statements.track' => 'all',
	'container_manager.poll_interval' => '1h',
	'container_manager.heartbeat_interval' => '600s');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION container_manager; CREATE EXTENSION pg_stat_statements');
my $fake = CM::FakeEngine->start;
$node->add_host('fake', $fake, 'max_concurrent_jobs => 100');
ok($node->wait_for_sql('SELECT healthy_hosts FROM cm_status', 1), 'the host is there');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# A call that submits a job to the fake engine.
sub job_sql
{
	my ($run_ms, @more) = @_;
	my $arguments = join ', ', "'busybox:test'", "host => 'fake'",
	  "environment => '{\"FAKE_RUN_MS\": \"$run_ms\", \"FAKE_LINES\": \"5\"}'", @more;
	return "cm_submit_job($arguments)";
}

sub submit { my (@arguments) = @_; return sql('SELECT ' . job_sql(@arguments)); }

sub end_job
{
	my ($job) = @_;
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $job", 'running'), 'a job runs')
	  unless $_[1];
	my ($name) = grep { /^cm-default-$job-/ } keys %{ $fake->state->{containers} };
	$fake->end_container($name);
	return;
}

# The executor's counters, read past views and tables, which may be locked.
sub counters
{
	my ($database) = @_;
	my $row = $node->safe_psql($database // 'postgres',
		'SELECT turns, wakeups, transactions, polls, http_requests FROM cm_internal.executor_status()');
	my %counter;
	@counter{qw(turns wakeups transactions polls http)} = split /\|/, $row;
	return \%counter;
}

sub grown
{
	my ($before, $database) = @_;
	my $now = counters($database);
	return { map { $_ => $now->{$_} - $before->{$_} } keys %$now };
}

# Seconds that a job takes from submit to end.
sub time_job
{
	my $job = submit(0);
	my $status = $node->job_wait($job);
	is($status, 'completed', 'a job completes') if $status ne 'completed';
	return sql("SELECT extract(epoch FROM completed_at - created_at)::numeric(9, 3) FROM cm_jobs WHERE id = $job");
}

# What one takes on this machine when nobody is in the way.
my $usual = (sort { $a <=> $b } map { time_job() } 1 .. 10)[5];
note "a job takes $usual s";

# Nothing that others do may be felt.  The machine may have other work, so some
# job has to be as quick as usual, not each.
sub is_undelayed
{
	my ($what) = @_;
	my $limit = $usual < 0.05 ? 0.2 : 4 * $usual;
	my @took;
	do { push @took, time_job() } until $took[-1] < $limit || @took >= 50;
	return cmp_ok($took[-1], '<', $limit, $what) || diag "took @took s";
}

# Waits until the executor has done what there was to do, and has counted it.
sub settle
{
	my $state;
	my $deadline = time + $CM::Cluster::patience;
	do { usleep(20_000); $state = $fake->state } until $state->{removes} == $state->{creates} || time > $deadline;
	my $executor = $node->executor_pid;
	return ok($node->wait_for_sql("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $executor", 'Extension'),
		'the executor waits');
}

sub lines_of { return sql("SELECT string_agg(line, ' ') FROM cm_job_logs($_[0])"); }
my $all_lines = 'line 1 line 2 line 3 line 4 line 5';

sub ends_right
{
	my ($job, $what) = @_;
	is($node->job_wait($job), 'completed', "$what: the job completes");
	is(lines_of($job), $all_lines, 'with its output');
	is(sql("SELECT logs_incomplete FROM cm_jobs WHERE id = $job"), 'f', 'all of it');
	is(sql("SELECT string_agg(status, ' ' ORDER BY seq) FROM cm_job_events WHERE job_id = $job"),
		'launching running completed', 'and every state');
	return;
}

# --- idle

sub set_intervals
{
	my ($poll, $heartbeat) = @_;
	sql("ALTER SYSTEM SET container_manager.poll_interval = '$poll'");
	sql("ALTER SYSTEM SET container_manager.heartbeat_interval = '$heartbeat'");
	$node->reload;
	# A commit that asks for something brings the executor to read the file.
	submit(0);
	ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0), 'intervals are set');
	$fake->wait_for('removes', $fake->state->{creates});
	return;
}

sub wait_polls
{
	my ($n) = @_;
	my $from = counters()->{polls};
	my $deadline = time + $CM::Cluster::patience;
	usleep(50_000) while counters()->{polls} < $from + $n && time < $deadline;
	return;
}

{
	set_intervals('500ms', '1s');
	wait_polls(2);
	my $before_reset = counters();
	sql('SELECT pg_stat_statements_reset()');
	my $began = time;
	my $before = counters();
	wait_polls(6);
	my $grown = grown($before);
	my $seconds = time - $began;
	my ($queries, $calls) = split /\|/, sql(<<'SQL');
SELECT count(*), sum(calls) FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = 'postgres')
    AND query NOT LIKE '%executor_status%' AND query NOT LIKE '%pg_stat_statements%'
SQL
	my $at_most = grown($before_reset)->{polls} + 1;
	note "idle for $seconds s: ", explain $grown;
	is($grown->{transactions}, $grown->{polls}, 'idle, each transaction is a poll');
	cmp_ok($grown->{polls}, '<=', $seconds / 0.5 + 1, 'and they come no more often than is set');
	is($grown->{wakeups}, 0, 'nobody wakes it');
	cmp_ok($grown->{http}, '<=', 2 * ($seconds + 1), 'the host is asked for its marks and its list once per heartbeat');
	cmp_ok($grown->{turns}, '<=', $grown->{polls} + 10 * $grown->{http} + 10, 'and the loop turns for nothing else');
	is($queries, 1, 'there is one query');
	ok($calls >= $grown->{polls} && $calls <= $at_most, 'for each poll') or diag "$grown->{polls} $calls $at_most";

	set_intervals('1h', '600s');
	# The heartbeat that was due by the interval before.
	my $asked = counters()->{http};
	my $deadline = time + 30;
	usleep(50_000) while counters()->{http} < $asked + 2 && time < $deadline;
	settle();
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	$node->safe_psql('other', 'CREATE EXTENSION container_manager');
	$node->safe_psql('other', "SELECT cm_add_host('fake', '" . $fake->url . "', max_concurrent_jobs => 100)");
	$before = counters();
	$node->safe_psql('other', 'SELECT ' . job_sql(0)) for 1 .. 10;
	$node->safe_psql('other', 'SELECT count(' . job_sql(0) . ') FROM generate_series(1, 300)');
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'completed'", 310, database => 'other'),
		'310 jobs in another database');
	$grown = grown($before);
	is("$grown->{wakeups} $grown->{transactions} $grown->{http}", '0 0 0', 'cost this one nothing');
	$node->safe_psql('other', 'DROP EXTENSION container_manager');
}

# --- waking

{
	my $session = $node->session;
	my @ms;
	my $before = counters();
	for (1 .. 20)
	{
		my $output = $session->query_safe('BEGIN; SELECT ' . job_sql(0)
			  . " AS job \\gset\nSELECT clock_timestamp() AS at \\gset\nCOMMIT; \\echo :job :at");
		my ($job, $at) = $output =~ /^(\d+) (.*)/;
		$node->job_wait($job);
		push @ms, sql("SELECT (1000 * extract(epoch FROM at - '$at'))::int FROM cm_job_events"
			  . " WHERE job_id = $job AND status = 'launching'");
	}
	@ms = sort { $a <=> $b } @ms;
	note "claimed after (ms): @ms";
	settle();
	my $grown = grown($before);
	# Two that come together are one.
	cmp_ok($grown->{wakeups}, '>=', 15, 'commits wake the executor');
	is($grown->{polls}, 0, 'which does not look by itself');

	$before = counters();
	$session->query_safe('BEGIN; SELECT ' . job_sql(0) . '; ROLLBACK') for 1 .. 5;
	$session->quit;
	settle();
	$grown = grown($before);
	is("$grown->{wakeups} $grown->{transactions}", '0 0', 'a rollback does not');
}

# --- no transaction while waiting

# Seconds that a process has waited for a processor so far.
sub starved
{
	my ($pid) = @_;
	open(my $schedstat, '<', "/proc/$pid/schedstat") or return 0;
	return (split / /, <$schedstat>)[1] / 1e9;
}

# In how many of so many samples the executor had a snapshot, the longest
# transaction that was seen, and seconds that it was kept from running meanwhile.
sub sample
{
	my ($n, $pause_us) = @_;
	my $executor = $node->executor_pid;
	my $session = $node->session;
	my ($held, $longest, $starved) = (0, 0, starved($executor));
	for (1 .. $n)
	{
		my ($xmin, $age) = split /\|/, $session->query_safe("SELECT coalesce(backend_xmin, backend_xid),"
			  . " extract(epoch FROM clock_timestamp() - xact_start) FROM pg_stat_activity WHERE pid = $executor");
		$held++ if length $xmin;
		$longest = $age if length($age // '') && $age > $longest;
		usleep($pause_us);
	}
	$session->quit;
	return ($held, $longest, starved($executor) - $starved);
}

{
	$fake->pause;
	my $job = submit(0);
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $job", 'launching'), 'a launch hangs');
	my ($held) = sample(40, 10_000);
	# One that ends, for something else, may be met.
	cmp_ok($held, '<=', 4, 'no transaction is open while a host hangs');
	$fake->resume;
	ends_right($job, 'when it answers');
}

SKIP:
{
	skip 'no Docker engines here', 3 unless CM::Engine->available || $ENV{CM_TEST_REQUIRE_DOCKER};
	CM::Engine->require_engine;
	my $engine = CM::Engine->start(name => 'e1');
	$engine->import_busybox('busybox:test');
	$node->add_host('real', $engine, 'max_concurrent_jobs => 4');
	my ($held, $longest);
	# A transaction lasts longer where the executor is kept from running in it,
	# so a busy machine gets some tries.
	for my $try (1 .. 5)
	{
		my $first = sql("SELECT min(id) FROM (SELECT cm_submit_job('busybox:test',"
			  . " 'for i in 1 2 3 4 5 6; do echo \$i; sleep 0.3; done', host => 'real', networks => '[\"none\"]') AS id"
			  . ' FROM generate_series(1, 24)) s');
		ok($node->wait_for_sql("SELECT running > 0 FROM cm_host_status WHERE name = 'real'", 't'), 'containers run');
		my $began = time;
		($held, $longest, my $starved) = sample(200, 45_000);
		my $seconds = time - $began;
		note "$held of 200 samples in $seconds s with a snapshot, the longest transaction $longest s,"
		  . " kept from running for $starved s";
		sql("SELECT count(cm_cancel_job(id)) FROM cm_jobs WHERE id >= $first AND completed_at IS NULL");
		ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0), 'all are over');
		$held -= 200 * $starved / $seconds;
		$longest -= $starved;
		last if $held <= 10 && $longest < 1;
	}
	cmp_ok($held, '<=', 10, 'hardly ever a snapshot while containers run and write');
	cmp_ok($longest, '<', 1, 'and none for long');
	sql("SELECT cm_disable_host('real', 'done')");
}

# --- locks of an ordinary user

{
	sql(<<'SQL');
CREATE ROLE submitter LOGIN;
GRANT SELECT, INSERT ON cm_jobs TO submitter;
GRANT SELECT ON cm_job_events, cm_job_attempts, cm_hosts, cm_status, cm_ps TO submitter;
SQL
	my $session = $node->session('postgres', on_error_stop => 0, extra_params => [ '-U', 'submitter' ]);
	my $job = submit(1e9);
	my @granted;
	$session->query_safe('BEGIN');
	for my $table (qw(cm_jobs cm_job_events cm_job_attempts cm_hosts))
	{
		for my $mode ('ACCESS SHARE', 'ROW SHARE', 'ROW EXCLUSIVE', 'SHARE UPDATE EXCLUSIVE', 'SHARE',
			'SHARE ROW EXCLUSIVE', 'EXCLUSIVE', 'ACCESS EXCLUSIVE')
		{
			$session->query('SAVEPOINT a');
			my (undef, $failed) = $session->query("LOCK TABLE $table IN $mode MODE");
			$session->{stderr} = '';
			push @granted, "$table $mode" unless $failed;
			$session->query('ROLLBACK TO a') if $failed;
		}
	}
	note "an ordinary user may lock: @granted";
	for my $strength ('UPDATE', 'NO KEY UPDATE', 'SHARE', 'KEY SHARE')
	{
		$session->query('SAVEPOINT a');
		my (undef, $failed) = $session->query("SELECT id FROM cm_jobs FOR $strength");
		$session->{stderr} = '';
		ok($failed, "SELECT FOR $strength is refused to him");
		$session->query('ROLLBACK TO a');
	}
	is_undelayed('his locks delay nobody');
	end_job($job);
	ends_right($job, 'his locks');
	$session->query_safe('COMMIT');
	$session->quit;
}

# --- a lock on one running job

sub lock_case
{
	my ($lock, $what, %option) = @_;
	my $job = submit(1e9);
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $job", 'running'), "$what: a job runs");
	my $session = $node->session;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	(my $sql = $lock) =~ s/JOB/$job/g;
	$session->query_safe("BEGIN; $sql");
	end_job($job, 'runs');
	ok($node->wait_for_sql('SELECT blocked_on, blocked_by FROM cm_status', "cm_jobs|{$pid}"), 'cm_status names the pid');
	like(sql('SELECT explanation || advice FROM cm_status'), qr/waits for a lock on cm_jobs.*pg_terminate_backend\($pid\)/,
		'and says what to do');
	is_undelayed('other jobs are not delayed');
	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'the locked one waits');
	my $began = time;
	my $before = counters();
	sample(10, 50_000);
	my $grown = grown($before);
	cmp_ok($grown->{transactions}, '<', 5 + 6 * (time - $began), 'without haste');
	is(sql('SELECT blocked_by FROM cm_status'), "{$pid}", 'the pid stands there all the time');
	$session->query_safe('ROLLBACK');
	ends_right($job, 'after it is released');
	ok($node->wait_for_sql('SELECT blocked_on IS NULL AND blocked_by IS NULL FROM cm_status', 't'), 'nothing is blocked any more');
	$session->quit;
	return;
}

lock_case('SELECT 1 FROM cm_jobs WHERE id = JOB FOR UPDATE', 'a locked job');
lock_case('SELECT 1 FROM cm_internal.queue WHERE job_id = JOB FOR UPDATE', 'a locked place in the queue');

# --- a lock on a waiting job

{
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 0 WHERE name = 'fake'");
	my @jobs = map { submit(0) } 1 .. 3;
	my $session = $node->session;
	$session->query_safe("BEGIN; SELECT 1 FROM cm_jobs WHERE id = $jobs[0] FOR UPDATE");
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 1 WHERE name = 'fake'");
	is($node->job_wait($_), 'completed', 'a locked job at the head of the queue does not stop those behind it')
	  for @jobs[ 1, 2 ];
	is(sql("SELECT status FROM cm_jobs WHERE id = $jobs[0]"), 'pending', 'it waits itself');
	is(sql("SELECT cm_cancel_job($jobs[0])"), 't', 'its cancellation is taken');
	is_undelayed('and does not stop others');
	is(sql("SELECT status FROM cm_jobs WHERE id = $jobs[0]"), 'pending', 'it waits for the lock');
	$session->query_safe('ROLLBACK');
	is($node->job_wait($jobs[0]), 'cancelled', 'and is carried out after the release');
	$session->quit;
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 100 WHERE name = 'fake'");
}

# --- locked tables, and the extension that is about to go

sub table_case
{
	my ($statement, $table, $what) = @_;
	my $starts = $fake->state->{starts};
	my @jobs = (submit(1e9), submit(1e9));
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'running'", 2), "$what: two jobs run");
	my $executor = $node->executor_pid;
	my $session = $node->session;
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("BEGIN; $statement");
	end_job($jobs[0], 'runs');
	my $seen = $node->wait_for_sql('SELECT blocked_on, blocked_by FROM cm_internal.executor_status()', "$table|{$pid}");
	ok($seen, 'the executor knows who is in its way');
	my $last_turn = "SELECT last_turn_at FROM cm_internal.executor_status()";
	my $at = sql($last_turn);
	my $turns = counters()->{turns};
	my $deadline = time + $CM::Cluster::patience;
	usleep(50_000) while counters()->{turns} < $turns + 3 && time < $deadline;
	cmp_ok(counters()->{turns}, '>=', $turns + 3, 'its loop goes on');
	cmp_ok(sql($last_turn), 'gt', $at, 'and shows it');
	ok($fake->wait_for('removes', $fake->state->{creates} - 2), 'what was recorded before is removed');
	my $state = $fake->state;
	is($state->{running}, 1, 'containers run on');
	is($state->{removes}, $state->{creates} - 2, 'none is removed before its end is recorded');
	my ($stdout, $stderr);
	$node->psql('postgres', "SET lock_timeout = '1s'; SELECT blocked_by FROM cm_status", stdout => \$stdout, stderr => \$stderr);
	# DROP EXTENSION locks the view, too.
	like("$stdout$stderr", $statement =~ /DROP/ ? qr/lock timeout/ : qr/\{$pid\}/, 'cm_status names the pid');
	$session->query_safe('ROLLBACK');
	ends_right($jobs[0], 'after the rollback');
	end_job($jobs[1]);
	ends_right($jobs[1], 'the one that ran on');
	is(submit_and_end(), 'completed', 'new jobs run');
	is($node->executor_pid, $executor, 'by the same executor');
	is($fake->state->{starts}, $starts + 3, 'nothing was started twice');
	ok($node->wait_for_sql('SELECT blocked_on IS NULL FROM cm_status', 't'), 'nothing is blocked any more');
	$session->quit;
	return;
}

sub submit_and_end { return $node->job_wait(submit(0)); }

table_case('LOCK TABLE cm_jobs IN ACCESS EXCLUSIVE MODE', 'cm_jobs', 'a locked table');
table_case('LOCK TABLE cm_internal.queue IN SHARE MODE', 'queue', 'a locked queue');
table_case('LOCK TABLE cm_hosts IN ACCESS EXCLUSIVE MODE', 'cm_hosts', 'locked hosts');
table_case('DROP EXTENSION container_manager', 'cm_jobs', 'an open DROP EXTENSION');

# --- what cannot be stored

sub broken_case
{
	my ($table, $what) = @_;
	my @jobs = map { submit(1e9) } 1 .. 3;
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'running'", 3), "$what: three jobs run");
	sql("ALTER TABLE $table ADD CONSTRAINT broken CHECK (job_id <> $jobs[1]) NOT VALID");
	# Whose output is stored already would not meet the constraint.
	end_job($_, 'runs') for @jobs;
	is($node->job_wait($_), 'completed', 'the others end') for @jobs[ 0, 2 ];
	ok($node->wait_for_sql("SELECT last_error ~ 'broken' FROM cm_status", 't'), 'last_error says what is wrong');
	is_undelayed('and new jobs are not delayed');
	is(sql("SELECT status FROM cm_jobs WHERE id = $jobs[1]"), 'running', 'it waits');
	my $began = time;
	my $before = counters();
	sample(10, 50_000);
	my $grown = grown($before);
	# A careful turn has a dozen transactions, and there is one a second.
	cmp_ok($grown->{transactions}, '<', 30 + 30 * (time - $began), 'without haste');
	sql("ALTER TABLE $table DROP CONSTRAINT broken");
	is($node->job_wait($jobs[1]), 'completed', 'and ends when that is mended');
	is(lines_of($jobs[1]), $all_lines, 'with its output');
	is(sql("SELECT string_agg(status, ' ' ORDER BY seq) FROM cm_job_events WHERE job_id = $jobs[1]"),
		'launching running completed', 'and every state');
	return;
}

broken_case('cm_job_attempts', 'an end that cannot be stored');
broken_case('cm_job_events', 'an event that cannot be stored');

{
	# A bad row of output, before anything of it is stored.
	my $session = $node->session;
	my $job = $session->query_safe('BEGIN; SELECT ' . job_sql(1e9));
	sql("ALTER TABLE cm_internal.log_chunks ADD CONSTRAINT broken CHECK (job_id <> $job) NOT VALID");
	$session->query_safe('COMMIT');
	$session->quit;
	end_job($job);
	ok($node->wait_for_sql("SELECT last_error ~ 'log_chunks' FROM cm_status", 't'), 'output that cannot be stored');
	is_undelayed('delays nobody else');
	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'its job does not end without it');
	sql('ALTER TABLE cm_internal.log_chunks DROP CONSTRAINT broken');
	ends_right($job, 'when that is mended');
}

# --- a killed executor

{
	my @jobs = map { submit(1e9) } 1 .. 3;
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'running'", 3), 'three jobs run');
	my $old = $node->executor_pid;
	my $began = time;
	sql("SELECT pg_terminate_backend($old)");
	ok($node->wait_for_sql("SELECT executor_pid <> $old AND is_running AND healthy_hosts = 1 FROM cm_status", 't'),
		'a terminated executor is back');
	note sprintf 'after %.2f s', time - $began;
	end_job($_, 'runs') for @jobs;
	ends_right($_, 'taken up again') for @jobs;
}

# --- memory

sub resources
{
	my ($pid) = @_;
	open(my $status, '<', "/proc/$pid/status") or die "no process $pid: $!\n";
	my ($rss) = map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$status>;
	close $status;
	opendir(my $fds, "/proc/$pid/fd") or die "no process $pid: $!\n";
	my $n = grep { !/^\./ } readdir $fds;
	closedir $fds;
	return ($rss, $n);
}

sub run_300
{
	my ($done) = sql("SELECT count(*) FROM cm_jobs WHERE status = 'completed'");
	sql('SELECT count(' . job_sql(20) . ') FROM generate_series(1, 300)');
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'completed'", $done + 300), '300 jobs');
	my $state = $fake->state;
	ok($fake->wait_for('removes', $state->{creates}), 'none of their containers is left');
	return;
}

{
	run_300();
	my $executor = $node->executor_pid;
	my ($rss, $fds, $rss_then, $fds_then);
	# How many jobs run at once differs, and what they need; a leak goes on.
	for my $round (1 .. 4)
	{
		($rss, $fds) = resources($executor);
		run_300();
		($rss_then, $fds_then) = resources($executor);
		note "RssAnon $rss kB, then $rss_then kB; $fds descriptors, then $fds_then";
		last if $rss_then < $rss + 1024 && abs($fds_then - $fds) <= 4;
	}
	cmp_ok($rss_then, '<', $rss + 1024, 'the executor does not grow');
	# libcurl keeps a connection or two for the next request.
	cmp_ok(abs($fds_then - $fds), '<=', 4, 'and keeps no descriptors');
}

$node->stop('fast');
done_testing();
