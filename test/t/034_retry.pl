# Attempts that follow one another: what is tried again, how often and when, what
# is kept of each, what ends the trying, and a job that is run again by hand.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::FakeEngine;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'e1', count_starts => 1);
$engine->import_busybox('busybox:test');
my $fake = CM::FakeEngine->start(images => ['there:1'], pull_ms => 0);
# The poll comes once an hour: the next attempt must not hang on it.
my $node = CM::Cluster->new_with_extension('main',
	'container_manager.poll_interval' => '1h',
	'container_manager.stop_grace' => '1s');
$node->add_host('e', $engine, 'max_concurrent_jobs => 20');
$node->add_host('f', $fake, 'max_concurrent_jobs => 20');

my $json = JSON::PP->new->utf8->allow_nonref;

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub row
{
	my ($sql) = @_;
	my $text = value("SELECT to_json(r) FROM ($sql) r");
	return length $text ? $json->decode($text) : undef;
}

sub job { my ($id) = @_; return row("SELECT * FROM cm_jobs WHERE id = $id"); }

sub submit { my ($rest) = @_; return $node->submit("$rest, retry_delay => '100 ms', host => 'e'"); }

sub events
{
	my ($id) = @_;
	return value("SELECT string_agg(concat_ws('/', attempt, status, failure_reason, exit_code), ' ' ORDER BY seq)"
		  . " FROM cm_job_events WHERE job_id = $id");
}

sub attempts
{
	my ($id) = @_;
	return value("SELECT string_agg(concat_ws('/', attempt, status, failure_reason, exit_code, host), ' ' ORDER BY attempt)"
		  . " FROM cm_job_attempts WHERE job_id = $id");
}

# Waits for the end: retried jobs are pending now and then.
sub ends
{
	my ($id, $status, $what) = @_;
	return is(value("SELECT cm_wait_job($id, '1 h')"), $status, $what);
}

sub complaint
{
	my ($sql) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

# --- exit codes, only where listed

{
	my $once = submit("'busybox:test', 'echo tried; exit 75', max_attempts => 3");
	my $listed = submit("'busybox:test', 'echo on \$HOSTNAME; echo err >&2; exit 75', max_attempts => 3, retry_on => '70, 75'");
	my $any = submit("'busybox:test', 'exit 9', max_attempts => 2, retry_on => 'any'");
	my $good = submit("'busybox:test', 'true', max_attempts => 3, retry_on => 'any'");

	ends($once, 'failed', 'an exit code that is not listed');
	is(attempts($once), '1/failed/exit_code/75/e', 'is not tried again');

	ends($listed, 'failed', 'one that is listed');
	is(attempts($listed), join(' ', map { "$_/failed/exit_code/75/e" } 1 .. 3), 'is tried as often as it may be');
	is(events($listed),
		'1/launching 1/running 1/pending/exit_code/75 2/launching 2/running 2/pending/exit_code/75'
		  . ' 3/launching 3/running 3/failed/exit_code/75',
		'and each transition is told');
	my $job = job($listed);
	is("$job->{attempt} $job->{exit_code} $job->{failure_reason}", '3 75 exit_code', 'the row tells of the last');
	is(value("SELECT count(DISTINCT cm_job_output($listed, a)) FROM generate_series(1, 3) a"), 3,
		'each attempt has its own output');
	like(value("SELECT cm_job_output($listed, 2)"), qr/\Aon [0-9a-f]{12}\n?\z/, 'whole');
	is(value("SELECT string_agg(line, ' ') FROM cm_job_logs($listed, attempt => 1) WHERE stream = 'stderr'"), 'err',
		'stderr too');
	is(value("SELECT count(DISTINCT container_id) FROM cm_job_attempts WHERE job_id = $listed"), 3,
		'and a container of its own');
	is(value("SELECT bool_and(next.claimed_at > this.completed_at) FROM cm_job_attempts this"
			  . " JOIN cm_job_attempts next ON next.job_id = this.job_id AND next.attempt = this.attempt + 1"
			  . " WHERE this.job_id = $listed"), 't', 'one after the other');
	like(value("SELECT explanation FROM cm_job_explain($listed) WHERE item = 'attempts'"), qr/^3 of 3: 1 failed/, 'explained');
	like(value("SELECT explanation FROM cm_job_explain($listed) WHERE item = 'retries'"), qr/70, 75/, 'with the rule');

	ends($any, 'failed', 'any exit code');
	is(attempts($any), '1/failed/exit_code/9/e 2/failed/exit_code/9/e', 'is tried again with any');
	ends($good, 'completed', 'what completes');
	is(attempts($good), '1/completed/0/e', 'is not tried again');
}

# --- an attempt that completes ends it

{
	my $later = submit("'registry.invalid/late:1', 'true', max_attempts => 1000");
	ok($node->wait_for_sql("SELECT attempt > 1 FROM cm_jobs WHERE id = $later", 't'), 'a job whose image is not there yet');
	$engine->import_busybox('registry.invalid/late:1');
	ends($later, 'completed', 'completes when it is');
	my $n = value("SELECT count(*) FROM cm_job_attempts WHERE job_id = $later");
	cmp_ok($n, '>', 1, "by a later attempt ($n)");
	is(job($later)->{attempt}, $n, 'by the attempt that the row says');
	is(value("SELECT string_agg(DISTINCT status, ' ') FROM cm_job_attempts WHERE job_id = $later AND attempt < $n"), 'failed',
		'all before it have failed');
	is(job($later)->{failure_reason}, undef, 'no reason is left over');
}

# --- other reasons

{
	my $oom = submit("'busybox:test', 'tail /dev/zero', memory_limit => 8, max_attempts => 2, retry_on => 'oom'");
	my $timeout = submit("'busybox:test', 'sleep 600', timeout_seconds => 1, max_attempts => 2, retry_on => 'timeout'");
	my $pull = submit("'registry.invalid/nope:1', max_attempts => 2");
	my $policy = submit("'busybox:test', 'true', memory_limit => 64, max_attempts => 5, retry_on => 'any', run_at => now() + '1 h'");
	ends($oom, 'failed', 'out of memory');
	like(attempts($oom), qr{\A1/failed/oom/137/e 2/failed/oom/137/e\z}, 'tried again where it is listed');
	ends($timeout, 'timeout', 'too slow');
	like(attempts($timeout), qr{\A1/timeout/timeout/\d+/e 2/timeout/timeout/\d+/e\z}, 'likewise');
	ends($pull, 'failed', 'an image that cannot be pulled');
	is(attempts($pull), '1/failed/image_pull/e 2/failed/image_pull/e', 'is tried again unless said otherwise');
	is(events($pull), '1/launching 1/pending/image_pull 2/launching 2/failed/image_pull', 'from launching to pending');
	is(value("SELECT cm_cancel_job($policy)"), 't', 'one that waits is cancelled');
	ends($policy, 'cancelled', 'at once');
	is(attempts($policy), '', 'without an attempt');
}

# --- waiting for the next attempt

{
	my $slow = $node->submit("'busybox:test', 'echo once; exit 1', max_attempts => 3, retry_on => 'any',"
		  . " retry_delay => '1 h', host => 'e', max_wait => '2 h'");
	ok($node->wait_for_sql("SELECT status || attempt FROM cm_jobs WHERE id = $slow", 'pending1'), 'a long wait for the next');
	my $job = job($slow);
	like($job->{detail}, qr/\Aattempt 1 of 3 ended as exit_code; the next is due at /, 'says so');
	is($job->{$_}, undef, "$_ is not there") for qw(failure_reason exit_code started_at completed_at container_id);
	is(value("SELECT run_at - updated_at BETWEEN '29 min' AND '61 min' FROM cm_jobs WHERE id = $slow"), 't',
		'half to all of the delay lies before it');
	is(value("SELECT expires_at - run_at FROM cm_internal.queue WHERE job_id = $slow"), '02:00:00', 'max_wait counts from then');
	like(value("SELECT why FROM cm_ps WHERE id = $slow"), qr/\Aretry \d\d:\d\d \(exit_code\)\z/, 'cm_ps tells');
	is(value("SELECT att FROM cm_ps WHERE id = $slow"), '1/3', 'which attempt it was');
	like(value("SELECT explanation FROM cm_job_explain($slow) WHERE item = 'why'"), qr/It waits: retry .*Attempt 1 of 3 ended as exit_code/, 'and cm_job_explain');
	is(value("SELECT cm_job_output($slow) = E'once\\n'"), 't', 'output of the attempt that was');
	is(value("SELECT cm_retry_job($slow)"), 'f', 'it is not over: not run again by hand');
	is(value("SELECT cm_wait_job($slow, '100 ms')"), '', 'nor waited for to an end');
	$node->restart;
	is(job($slow)->{status}, 'pending', 'a restart leaves it waiting');
	is(value("SELECT cm_cancel_job($slow)"), 't', 'it can be cancelled');
	ends($slow, 'cancelled', 'then it is over');
	is(events($slow), '1/launching 1/running 1/pending/exit_code/1 1/cancelled/cancelled', 'as is told');
	is(attempts($slow), '1/failed/exit_code/1/e', 'the attempt stays what it was');
}

# --- cancelled while it runs: no other attempt

{
	my $cancelled = submit("'busybox:test', 'trap \"exit 3\" TERM; echo up; sleep 600 & wait', max_attempts => 5, retry_on => 'any'");
	ok($node->wait_for_sql("SELECT line FROM cm_job_logs($cancelled)", 'up'), 'running');
	value("SELECT cm_cancel_job($cancelled)");
	ends($cancelled, 'cancelled', 'a cancelled job');
	is(attempts($cancelled), '1/cancelled/cancelled/3/e', 'is not tried again');
}

# --- the container of an earlier attempt never stands in the way

{
	my $id = $node->submit("'there:1', environment => '{\"FAKE_RUN_MS\": \"0\", \"FAKE_EXIT\": \"7\"}', host => 'f',"
		  . " max_attempts => 20, retry_on => 'any', retry_delay => '0'");
	ends($id, 'failed', '20 attempts without a delay');
	is(value("SELECT count(*) FROM cm_job_attempts WHERE job_id = $id"), 20, 'are 20 attempts');
	is($fake->state->{starts}, 20, 'and 20 starts');
	is_deeply($fake->state->{started_twice}, [], 'of as many containers');
	ok($fake->wait_for('removes', 20), 'all of which are removed');
}

# --- crashes between attempts

{
	my @ids = map { submit("'busybox:test', 'echo \$HOSTNAME; sleep 0.2; exit 1', max_attempts => 6, retry_on => 'any'") } 1 .. 6;
	for my $n (1 .. 3)
	{
		# Each round comes when somebody is at a further attempt.
		ok($node->wait_for_sql("SELECT max(attempt) > $n FROM cm_jobs WHERE id >= $ids[0]", 't'), "attempt $n is over");
		kill 'KILL', $node->executor_pid;
		ok($node->poll_query_until('postgres', 'SELECT true'), 'the server is back after the executor was killed');
	}
	ends($_, 'failed', "job $_ comes to its end") for @ids;
	for my $id (@ids)
	{
		is(value("SELECT count(*) || ' ' || count(DISTINCT container_id) || ' ' || max(attempt) FROM cm_job_attempts WHERE job_id = $id"),
			'6 6 6', "job $id: six attempts, six containers");
		is(value("SELECT bool_and(cm_job_output(job_id, attempt) LIKE left(container_id, 12) || '%')"
				  . " FROM cm_job_attempts WHERE job_id = $id AND NOT logs_incomplete"), 't', 'each with its own output');
	}
	my %starts;
	$starts{$_}++ for $engine->starts;
	is(scalar(grep { $_ > 1 } values %starts), 0, 'no container was started twice');
	is(value("SELECT max(n) FROM (SELECT count(*) AS n FROM cm_job_attempts GROUP BY job_id, attempt) s"), 1, 'one row per attempt');
}

# --- run again by hand

{
	my $id = submit("'busybox:test', 'echo \$HOSTNAME; exit 4'");
	ends($id, 'failed', 'a job that failed');
	my $first = value("SELECT cm_job_output($id)");
	is(value("SELECT cm_retry_job($id)"), 't', 'is run again by hand');
	is(value("SELECT cm_wait_job($id, '1 h')"), 'failed', 'waiting right after it waits for the new end');
	is(value("SELECT count(*) FROM cm_job_attempts WHERE job_id = $id"), 2, 'a second attempt was made');
	is(events($id), '1/launching 1/running 1/failed/exit_code/4 1/pending 2/launching 2/running 2/failed/exit_code/4', 'and told');
	is(job($id)->{max_attempts}, 2, 'though only one was allowed');
	is(value("SELECT cm_job_output($id, 1)"), $first, 'the output of the first is kept');
	isnt(value("SELECT cm_job_output($id)"), $first, 'the new one has its own');

	my $done = submit("'busybox:test', 'true'");
	ends($done, 'completed', 'one that completed');
	is(value("BEGIN; SELECT cm_retry_job($done); SELECT cm_retry_job($done); COMMIT"), "t\nf", 'can be run again, once');
	ends($done, 'completed', 'to the same end');
	is(value("SELECT count(*) FROM cm_job_attempts WHERE job_id = $done"), 2, 'by one more attempt');
	is(value("BEGIN; SELECT cm_retry_job($done); ROLLBACK"), 't', 'rolled back');
	is(value("SELECT cm_retry_job(id) FROM cm_jobs WHERE id = $id"), 't', 'over a selection');
	ends($id, 'failed', 'also');
	is(value("SELECT count(*) FROM cm_job_attempts WHERE job_id = $done"), 2, 'it never was');
	like(complaint("BEGIN; SELECT cm_retry_job($done); SELECT cm_wait_job($done); COMMIT"),
		qr/ERROR:  job $done was submitted or retried by this transaction/, 'waiting for it before COMMIT is refused');
	like(complaint('SELECT cm_retry_job(-1)'), qr/ERROR:  job -1 does not exist/, 'no such job');

	value("CREATE ROLE other; GRANT USAGE ON SCHEMA public TO other; GRANT EXECUTE ON FUNCTION cm_retry_job, cm_abandon_job TO other");
	like(complaint("SET ROLE other; SELECT cm_retry_job($done)"), qr/ERROR:  job $done belongs to role/, 'only its owner may');
	like(complaint("SET ROLE other; SELECT cm_abandon_job($done, 'x')"), qr/ERROR:  job $done belongs to role/, 'likewise');
	is(value("SELECT has_function_privilege('public', 'cm_retry_job(bigint)', 'EXECUTE')"), 'f', 'nobody by default');

	# Nobody is there to do it: it can be called back.
	value('SELECT cm_stop_executor()');
	is(value("SELECT cm_retry_job($id)"), 't', 'asked for while no executor runs');
	like(value("SELECT explanation FROM cm_job_explain($id) WHERE item = 'why'"), qr/asked for it to be run again/, 'it is told');
	is(value("SELECT cm_cancel_job($id)"), 't', 'and called back');
	is(value("SELECT cm_cancel_job($id)"), 'f', 'once');
	value('SELECT cm_start_executor()');
	ends($id, 'cancelled', 'before it ran');
	is(value("SELECT max(attempt) FROM cm_job_attempts WHERE job_id = $id"), 3, 'no attempt was made');

	# Its host is gone meanwhile.
	$node->add_host('short', $engine);
	my $pinned = $node->submit("'busybox:test', 'true', host => 'short'");
	ends($pinned, 'completed', 'on a host that is then removed');
	value("SELECT cm_remove_host('short')");
	value("SELECT cm_retry_job($pinned)");
	ok($node->wait_for_sql("SELECT why FROM cm_ps WHERE id = $pinned AND state = 'pending'", 'its host was removed'),
		'it waits, and is not run elsewhere');
	value("SELECT cm_cancel_job($pinned)");
	ends($pinned, 'cancelled', 'until it is cancelled');
}

# The attempt is over: what was seen of it is what is stored.
ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0), 'nothing is left in the queue');
is(value('SELECT count(*) FROM cm_internal.requests'), 0, 'nor among the requests');
is(value("SELECT count(*) FROM cm_jobs j WHERE j.attempt <> (SELECT count(*) FROM cm_job_attempts a WHERE a.job_id = j.id)"), 0,
	'all attempts are there');
my $deadline = time + $CM::Cluster::patience;
usleep(100_000) while $engine->docker('ps', '-aq') ne '' && time < $deadline;
is($engine->docker('ps', '-aq'), '', 'no container is left');

$node->stop('fast');
done_testing();
