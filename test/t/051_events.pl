# What others hear of jobs: events and notifications, each transition once and
# in order, and the functions that wait for a job's end, which are woken.
use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = CM::Cluster->new_with_extension('main',
	'container_manager.poll_interval' => '1h',
	'container_manager.heartbeat_interval' => '600s');
my $fake = CM::FakeEngine->start;
$node->add_host('fake', $fake, 'max_concurrent_jobs => 100');
ok($node->wait_for_sql('SELECT healthy_hosts FROM cm_status', 1), 'the host is there');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# SQLSTATE and text of the error that a statement ends with.
sub refusal
{
	my ($sql, @psql) = @_;
	my ($stdout, $stderr);
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stdout => \$stdout, stderr => \$stderr, on_error_stop => 0);
	return $stderr =~ /ERROR:  (\w{5}): (.*)/s ? ($1, $2) : ('none', "$stdout $stderr");
}

# A job of the fake engine: a statement that submits it.
sub job_sql
{
	my (%env) = @_;
	my $pairs = join ', ', map { "'$_', '$env{$_}'" } sort keys %env;
	return "cm_submit_job('busybox:test', environment => jsonb_build_object($pairs))";
}

sub submit { my (%env) = @_; return sql('SELECT ' . job_sql(%env)); }

sub events_of
{
	my ($job) = @_;
	return sql("SELECT string_agg(status, ' ' ORDER BY seq) FROM cm_job_events WHERE job_id = $job");
}

# The events as they ought to be notified.
sub expected_payloads
{
	my ($condition) = @_;
	return split /\n/, sql(<<"SQL");
SELECT format('{"seq":%s,"job_id":%s,"status":"%s","attempt":%s,"exit_code":%s}',
    seq, job_id, status, attempt, coalesce(exit_code::text, 'null'))
FROM cm_job_events WHERE $condition ORDER BY seq;
SQL
}

# What a listening session has heard, waiting for so many.
sub hear
{
	my ($session, $n, $channel) = @_;
	my $deadline = time + $CM::Cluster::patience;
	my @heard;
	for (;;)
	{
		my $output = $session->query_safe('SELECT 1');
		push @heard, $output =~ /Asynchronous notification "$channel" with payload "(.*)" received/g;
		return @heard if @heard >= $n || time > $deadline;
		usleep(20_000);
	}
	return;
}

# Waits until the session of that pid sleeps in one of our functions.
sub wait_asleep
{
	my ($pid) = @_;
	return ok($node->wait_for_sql("SELECT state, wait_event_type FROM pg_stat_activity WHERE pid = $pid"
			  . " AND (query LIKE '%cm_await_job%' OR query LIKE '%cm_wait_job%' OR query LIKE '%cm_run_job%')",
			'active|Extension'), 'it sleeps');
}

my $listener = $node->session;
$listener->query_safe('LISTEN cm_job_status');

# --- transitions

{
	sql('SELECT count(*) FROM (SELECT ' . job_sql(FAKE_RUN_MS => 20)
		  . ' FROM generate_series(1, 50)) s; SELECT count(*) FROM (SELECT '
		  . job_sql(FAKE_RUN_MS => 0, FAKE_EXIT => 3) . ' FROM generate_series(1, 50)) s');
	ok($node->wait_for_sql("SELECT string_agg(DISTINCT status, ' ') FROM cm_jobs", 'completed failed'), '100 jobs end');
	my @heard = hear($listener, 300, 'cm_job_status');
	is(scalar @heard, 300, '300 notifications');
	is_deeply(\@heard, [ expected_payloads('true') ], 'they are the events, in their order, word for word');
	is(sql("SELECT string_agg(DISTINCT all_of_it, ';') FROM (SELECT string_agg(status || coalesce(' ' || exit_code, ''), ' '"
			  . ' ORDER BY seq) AS all_of_it FROM cm_job_events GROUP BY job_id) s'),
		'launching running completed 0;launching running failed 3', 'each job shows each of its states once');
	is(sql('SELECT count(*) FROM (SELECT at < lag(at) OVER (ORDER BY seq) AS back FROM cm_job_events) s WHERE back'), 0,
		'their times ascend, too');
	is(sql('SELECT count(*) FROM cm_job_events e JOIN cm_jobs j ON j.id = e.job_id'
			  . ' WHERE e.host = j.host AND e.attempt = 1 AND (e.failure_reason IS NOT NULL) = (e.status = \'failed\')'), 300,
		'with host, attempt and reason');
}

# --- a job that ends before the executor knows that it started

# stopped: the executor sees nothing at all between the start and the end.
sub end_unseen
{
	my ($is_stopped, $what) = @_;
	my $executor = $node->executor_pid;
	my $hold = $fake->fault(method => 'POST', path => '/start$', effect => JSON::PP::true(), hold => 1, times => 1);
	my $state = $fake->state;
	my $job = submit(FAKE_RUN_MS => 1e9);
	ok($fake->wait_for('held', 1), 'a start is carried out, and not answered yet');
	kill 'STOP', $executor if $is_stopped;
	my ($name) = grep { /^cm-default-$job-/ } keys %{ $fake->state->{containers} };
	$fake->end_container($name);
	is($fake->state->{held}, 1, $what);
	$fake->clear_faults($hold);
	kill 'CONT', $executor;
	is($node->job_wait($job), 'completed', 'the job completes');
	is(events_of($job), 'launching running completed', 'and shows every state');
	is(sql("SELECT started_at <= completed_at FROM cm_jobs WHERE id = $job"), 't', 'with a start before its end');
	is(scalar hear($listener, 3, 'cm_job_status'), 3, 'each is notified');
	return;
}

end_unseen(0, 'the job ends before the answer');
end_unseen(1, 'answer and end come at once');

# --- what is no transition

{
	sql('BEGIN; SELECT ' . job_sql(FAKE_RUN_MS => 0) . '; ROLLBACK');
	# As a restore does: not news.
	sql("INSERT INTO cm_job_events (job_id, attempt, status) VALUES (1, 1, 'running')");
	sql("COPY cm_job_events (job_id, attempt, status) FROM stdin;\n1\t1\tcompleted\n\\.\n");
	my $last = sql('SELECT max(seq) FROM cm_job_events');
	my $job = submit(FAKE_RUN_MS => 0);
	is($node->job_wait($job), 'completed', 'a job after a rolled back one and restored events');
	is_deeply([ hear($listener, 3, 'cm_job_status') ], [ expected_payloads("seq > $last") ], 'is all that is notified');
	is(sql("SELECT count(DISTINCT job_id) FROM cm_job_events WHERE seq > $last"), 1, 'a rolled back job has no events');
	sql("DELETE FROM cm_job_events WHERE seq BETWEEN $last - 1 AND $last");
}

# --- channels of single jobs

{
	sql('ALTER SYSTEM SET container_manager.job_channels = on');
	$node->reload;
	my $session = $node->session;
	my $submitter = $node->session;
	$submitter->query_safe('BEGIN');
	my $job = $submitter->query_safe('SELECT ' . job_sql(FAKE_RUN_MS => 50));
	my $other = $submitter->query_safe('SELECT ' . job_sql(FAKE_RUN_MS => 50));
	$session->query_safe("LISTEN cm_job_$job");
	# The executor reads the file at its next turn, which the commit brings.
	$submitter->query_safe('COMMIT');
	$node->job_wait($_) for $job, $other;
	is_deeply([ hear($session, 3, "cm_job_$job") ], [ expected_payloads("job_id = $job") ], 'a channel for one job');
	is(scalar hear($listener, 6, 'cm_job_status'), 6, 'and all on the common one');
	$_->quit for $session, $submitter;
	sql('ALTER SYSTEM RESET container_manager.job_channels');
	$node->reload;
}

# --- a queue of notifications that is nearly full
#
# Its 8 GB are too much to fill, so the function that tells is made to lie.  Who
# has planned with it before keeps the true one, so the executor starts anew.

sub pretend_queue_usage
{
	my ($body) = @_;
	sql('SET allow_system_table_mods = on; CREATE OR REPLACE FUNCTION pg_catalog.pg_notification_queue_usage()'
		  . " RETURNS float8 VOLATILE PARALLEL RESTRICTED STRICT $body");
	my $old = $node->executor_pid;
	sql("SELECT pg_terminate_backend($old)");
	ok($node->wait_for_sql("SELECT executor_pid <> $old AND healthy_hosts = 1 FROM cm_status", 't'), 'a new executor');
	return;
}

{
	my $log = -s $node->logfile;
	pretend_queue_usage("LANGUAGE sql AS 'SELECT 0.95::float8'");
	for (1 .. 2)
	{
		my $job = submit(FAKE_RUN_MS => 1100);
		is($node->job_wait($job), 'completed', 'a job completes');
		is(events_of($job), 'launching running completed', 'its events are recorded');
	}
	is(hear_now(), 0, 'nothing is notified');
	my $count = () = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /WARNING:.*nearly full/g;
	is($count, 1, 'one warning says so');
	pretend_queue_usage("LANGUAGE internal AS 'pg_notification_queue_usage'");
	my $job = submit(FAKE_RUN_MS => 100);
	is($node->job_wait($job), 'completed', 'when there is room again');
	like((hear($listener, 1, 'cm_job_status'))[-1], qr/"job_id":$job,"status":"completed"/, 'it goes on');
}

sub hear_now { return my @heard = $listener->query_safe('SELECT 1') =~ /(Asynchronous) notification/g; }

# --- waiting

# Milliseconds from a job's end to the waiting statement's, the least and the most.
sub wake_times
{
	my ($statement) = @_;
	my $session = $node->session;
	my @ms;
	for (1 .. 10)
	{
		my $job = submit(FAKE_RUN_MS => 100);
		(my $sql = $statement) =~ s/JOB/$job/;
		my $output = $session->query_safe("$sql;\nSELECT 'ms ' || (1000 * extract(epoch FROM clock_timestamp() - completed_at))::int"
			  . " FROM cm_jobs WHERE id = $job");
		like($output, qr/completed/, 'it says how the job ended');
		push @ms, $output =~ /ms (\d+)/ ? $1 : 1e6;
	}
	$session->quit;
	@ms = sort { $a <=> $b } @ms;
	return @ms[ 0, 9 ];
}

for my $statement (q{SELECT cm_wait_job(JOB, '1 h')}, q{CALL cm_await_job(JOB, '1 h')})
{
	my ($least, $most) = wake_times($statement);
	note "$statement: woken after $least to $most ms";
	# Who is not woken looks after 5 s.
	cmp_ok($least, '<', 2500, "$statement is woken, and does not look now and then");
}

# How often a process has gone to sleep.
sub sleeps
{
	my ($pid) = @_;
	open(my $status, '<', "/proc/$pid/status") or die "no process $pid: $!\n";
	my ($n) = map { /^voluntary_ctxt_switches:\s+(\d+)/ ? $1 : () } <$status>;
	close $status;
	return $n;
}

# Runs a statement in a session of its own; gives session and pid when it waits.
sub begin_waiting
{
	my ($statement, $before) = @_;
	my $session = $node->session('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe($before) if defined $before;
	$session->query_until(qr/sent/, "\\echo sent\n$statement;\n");
	wait_asleep($pid);
	return ($session, $pid);
}

# The rest of what it prints, and its errors.
sub end_waiting
{
	my ($session) = @_;
	my $output = $session->query('SELECT 1 WHERE false');
	my $error = $session->{stderr};
	$session->{stderr} = '';
	return ($output, $error);
}

{
	my $job = submit(FAKE_RUN_MS => 1e9);
	my ($session, $pid) = begin_waiting("CALL cm_await_job($job, '1 h')", "SET default_transaction_isolation = 'repeatable read'");
	is(sql("SELECT backend_xmin IS NULL, backend_xid IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't|t',
		'cm_await_job holds no snapshot');
	is(sql("SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype <> 'virtualxid'"), 0, 'and no lock');
	my ($before, $began) = (sleeps($pid), time);
	$node->job_wait(submit(FAKE_RUN_MS => 0)) for 1 .. 20;
	# It looks every 5 s.
	cmp_ok(sleeps($pid) - $before, '<=', 2 + (time - $began) / 2, 'and sleeps, though other jobs end meanwhile');
	end_job($job);
	like((end_waiting($session))[0], qr/completed/, 'until its own ends');
	$session->quit;

	$job = submit(FAKE_RUN_MS => 1e9);
	($session, $pid) = begin_waiting("SELECT cm_wait_job($job, '1 h')",
		'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM cm_jobs');
	is(sql("SELECT count(*) FROM pg_locks WHERE pid = $pid AND mode <> 'AccessShareLock' AND locktype <> 'virtualxid'"), 0,
		'cm_wait_job holds no lock that could be in the way');
	end_job($job);
	like((end_waiting($session))[0], qr/completed/, 'it sees the end at REPEATABLE READ');
	my $later = submit(FAKE_RUN_MS => 100);
	is($session->query_safe("SELECT cm_wait_job($later, '1 h')"), 'completed', 'and a job that was committed later');
	is($session->query_safe("SELECT count(*) FROM cm_jobs WHERE id = $later"), 0, 'that its own snapshot does not show');
	$session->quit;
}

sub end_job
{
	my ($job) = @_;
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $job", 'running'), 'a job runs');
	my ($name) = grep { /^cm-default-$job-/ } keys %{ $fake->state->{containers} };
	$fake->end_container($name);
	return;
}

{
	my $job = submit(FAKE_RUN_MS => 1e9);
	is(sql("SELECT cm_wait_job($job, '0.2 s') IS NULL, cm_wait_job($job, '0') IS NULL, cm_wait_job(NULL) IS NULL"), 't|t|t',
		'NULL at the timeout');
	is(sql("CALL cm_await_job($job, '0.2 s')"), '', 'as the procedure');
	like(join(' ', refusal("SELECT cm_wait_job($job, '-1 s')")), qr/^22023 timeout must not be negative/, 'negative timeout');
	for my $call ('SELECT cm_wait_job(123456)', 'CALL cm_await_job(123456)')
	{
		like(join(' ', refusal($call)), qr/^42704 .*123456/, "unknown job: $call");
	}
	for my $call ("SELECT cm_wait_job($job, '1 h')", "CALL cm_await_job($job, '1 h')")
	{
		like(join(' ', refusal("SET statement_timeout = '2s'; $call")), qr/^57014 .*timeout.*waiting for job $job/s,
			"statement_timeout: $call");
		my ($session, $pid) = begin_waiting($call);
		sql("SELECT pg_cancel_backend($pid)");
		like((end_waiting($session))[1], qr/canceling statement.*waiting for job $job, which goes on/s, "cancel: $call");
		is($session->query_safe('SELECT 1'), '1', 'the session goes on');
		$session->quit;
	}
	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'and so does the job');
	like(join(' ', refusal("BEGIN; CALL cm_await_job($job)")), qr/^25001 .*HINT/s, 'cm_await_job in a transaction block');
	my $count = sql('SELECT count(*) FROM cm_jobs');
	like(join(' ', refusal('BEGIN; SELECT cm_wait_job(' . job_sql(FAKE_RUN_MS => 0) . ')')), qr/^55000 .*COMMIT first/s,
		'a job of its own transaction');
	like(join(' ', refusal('SELECT cm_wait_job(' . job_sql(FAKE_RUN_MS => 0) . ')')), qr/^55000 /, 'or statement');
	is(sql('SELECT count(*) FROM cm_jobs'), $count, 'which is rolled back');
	end_job($job);
	is($node->job_wait($job), 'completed', 'a job that many waited for');
	is(sql("SELECT cm_wait_job($job, '0')"), 'completed', 'what is over is told at once');
}

# --- running

# CALL cm_run_job for a job of the fake engine.
sub run_sql
{
	my ($more, %env) = @_;
	my $pairs = join ', ', map { qq("$_": "$env{$_}") } sort keys %env;
	return "CALL cm_run_job('busybox:test', environment => '{$pairs}'" . ($more ? ", $more" : '') . ')';
}

sub last_job { return sql('SELECT max(id) FROM cm_jobs'); }

{
	my $output = sql(run_sql('', FAKE_STDOUT => 'hello', FAKE_EXIT => 3));
	is($output, last_job() . '|failed|3|hello', 'cm_run_job gives back id, status, exit code and output');

	my $n = last_job();
	for my $block ('BEGIN; ' . run_sql(''), "SAVEPOINT a; " . run_sql(''))
	{
		like(join(' ', refusal("BEGIN; $block")), qr/^25001 .*cm_submit_job/s, 'refused in a transaction block');
	}
	my ($stdout, $stderr);
	$node->command_fails([ 'psql', '-XAt', '-c', 'SELECT 1; ' . run_sql('') ], 'nor with others in one string');
	is(last_job(), $n, 'before anything is submitted');

	for my $case ([ 'fail_on_error => true', 3, 'failed' ], [ 'fail_on_error => true', 0, '' ], [ '', 3, '' ])
	{
		my ($more, $exit_code, $failed) = @$case;
		my $status = $node->psql('postgres', run_sql($more, FAKE_EXIT => $exit_code, FAKE_STDERR => 'oh no'),
			stdout => \$stdout, stderr => \$stderr, on_error_stop => 1);
		my $job = last_job();
		is($status, $failed ? 3 : 0, "psql's exit status, exit code $exit_code, $more");
		like($stderr, qr/job $job failed.*oh no/s, 'what failed') if $failed;
	}

	my $job = last_job() + 1;
	$output = sql(run_sql("wait_timeout => '0.3 s'", FAKE_RUN_MS => 1e9));
	like($output, qr/^\d+\|(?:pending|launching|running)\|\|$/, 'wait_timeout: how far it is');
	my $long = last_job();
	like(join(' ', refusal(run_sql("wait_timeout => '0.3 s', fail_on_error => true", FAKE_RUN_MS => 100_000))),
		qr/^55000 .*cm_await_job/s, 'or an error, if it is to fail');
	my ($session, $pid) = begin_waiting(run_sql('', FAKE_RUN_MS => 1e9));
	my $waited = last_job();
	is(sql("SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't', 'it waits without a snapshot');
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $waited", 'running'), 'its job runs');
	sql("SELECT pg_cancel_backend($pid)");
	like((end_waiting($session))[1], qr/canceling statement.*job $waited, which goes on/s, 'Ctrl-C names the job');
	$session->quit;
	end_job($_) for $long, $waited;
	is($node->job_wait($_), 'completed', 'which goes on') for $long, $waited;
	like((refusal("CALL cm_run_job('')"))[1], qr/image/, 'bad input');
	my $in_block = q(DO $$ DECLARE a bigint; b text; c int; d text; BEGIN
		CALL cm_run_job('busybox:1', environment => '{"FAKE_RUN_MS": "0"}', job_id => a, status => b, exit_code => c, output => d);
		ASSERT b = 'completed', b; END $$);
	is((refusal($in_block))[0], 'none', 'in a DO block of its own');
	is((refusal("BEGIN; $in_block"))[0], '25001', 'not in one within a transaction');
}

$listener->quit;
$node->stop('fast');
done_testing();
