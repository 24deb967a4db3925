# Order and time: jobs that depend on others, unique keys, concurrency keys,
# pauses, many jobs by one statement.  The engine is made up: nothing here
# depends on what a container does.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use JSON::PP;
use List::Util qw(max);
use Test::More;

my $node = CM::Cluster->new_with_extension('main',
	'container_manager.poll_interval' => '1h',
	'container_manager.stop_grace' => '100ms',
	'max_connections' => 60);

sub value { my ($sql, $database) = @_; return $node->safe_psql($database // 'postgres', $sql); }

sub wait_value { my ($sql, $expected, $what) = @_; return ok($node->wait_for_sql($sql, $expected), $what); }

sub add_mock
{
	my ($name, @more) = @_;
	my $script = '{"rules": [{"command": "long*", "delay": "24 h"}, {"command": "fail", "exit_code": 3},'
	  . ' {"command": "short", "delay": "20 ms"}]}';
	return $node->add_host($name, "mock://$name", "executor_type => 'mock'", "executor_config => '$script'", @more);
}

# Anything but a crash of the server: what psql says.
sub complaint
{
	my ($sql, @options) = @_;
	my $err;
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \$err, extra_params => \@options);
	return $err =~ s/^LOCATION:.*\n//gmr;
}

sub submit { my ($command, @more) = @_; return $node->submit(join ', ', "'app:1'", "'$command'", @more); }

sub ends
{
	my ($id, $status, $what) = @_;
	return is(value("SELECT cm_wait_job($id, '1 h')"), $status, $what);
}

sub status { my ($id) = @_; return value("SELECT concat_ws('/', status, failure_reason) FROM cm_jobs WHERE id = $id"); }

sub why { my ($id) = @_; return value("SELECT why FROM cm_ps WHERE id = $id"); }

sub cancel { my ($id) = @_; return value("SELECT cm_cancel_job($id)"); }

sub runs { my ($id) = @_; return wait_value("SELECT status FROM cm_jobs WHERE id = $id", 'running', "job $id runs"); }

# The position among all transitions.
sub seq
{
	my ($id, $status) = @_;
	return value("SELECT max(seq) FROM cm_job_events WHERE job_id = $id AND status = '$status'");
}

# How many of the jobs were launching or running at the same time, at most.
sub most_at_once
{
	my ($where) = @_;
	my %under_way;
	my $most = 0;
	for my $event (split /\n/, value("SELECT e.status, e.job_id FROM cm_job_events e JOIN cm_jobs j ON j.id = e.job_id WHERE $where ORDER BY e.seq"))
	{
		my ($status, $job) = split /\|/, $event;
		$under_way{$job} = 1 if $status eq 'launching';
		delete $under_way{$job} if $status !~ /\A(?:launching|running)\z/;
		$most = max($most, scalar keys %under_way);
	}
	return $most;
}

sub kill_executor
{
	my $pid = $node->executor_pid;
	kill 'KILL', $pid;
	return wait_value("SELECT count(*) FROM cm_status WHERE executor_pid <> $pid AND is_running", 1, 'another executor works');
}

sub nothing_left
{
	wait_value('SELECT (SELECT count(*) FROM cm_internal.queue) + (SELECT count(*) FROM cm_internal.requests)', 0, 'all are over');
	is(value('SELECT (SELECT count(*) FROM cm_internal.dependencies), (SELECT count(*) FROM cm_internal.unique_keys),'
			  . ' (SELECT count(*) FROM cm_internal.requests)'), '0|0|0', 'and leave nothing behind');
	return;
}

add_mock('m', 'max_concurrent_jobs => 100');
wait_value("SELECT state FROM cm_host_status WHERE name = 'm'", 'healthy', 'the host is healthy');

# ------------------------------------------------------- a job after others

{
	my $first = submit('long');
	my $second = submit('x', "depends_on => '{$first}'");
	my $third = submit('x', "depends_on => '{$second,$first,$first}'");
	runs($first);
	is(why($second), "waits for 1 job: $first", 'it waits for another');
	is(why($third), "waits for 2 jobs: $first, $second", 'or for two');
	like(value("SELECT explanation FROM cm_job_explain($third) WHERE item = 'why'"), qr/^It waits: waits for 2 jobs: $first, $second\.$/,
		'cm_job_explain says so, too');
	is(value("SELECT count(*) FROM cm_internal.queue WHERE is_ready AND status = 'pending'"), 0, 'claims do not see it');
	like(complaint("DELETE FROM cm_jobs WHERE id = $first"), qr/55000: job $first is not over/, 'what runs cannot be deleted');
	cancel($first);
	ends($third, 'cancelled', 'what depends on it is not run');
	is(status($second), 'cancelled/dependency_failed', 'for that reason');
	is(value("SELECT error FROM cm_jobs WHERE id = $second"), "job $first, which it depends on, ended as cancelled", 'in words');
	is(value("SELECT error FROM cm_jobs WHERE id = $third"), "job $first, which it depends on, ended as cancelled", 'likewise')
	  || diag value("SELECT * FROM cm_jobs WHERE id = $third");
	is(value("SELECT count(*) FROM cm_job_attempts WHERE job_id IN ($second, $third)"), 0, 'without an attempt');

	# Retried together, in whatever order, they wait for each other again.
	value("SELECT cm_retry_job(id) FROM cm_jobs WHERE id IN ($first, $second, $third) ORDER BY id DESC");
	runs($first);
	wait_value("SELECT why FROM cm_ps WHERE id = $third", "waits for 2 jobs: $first, $second", 'retried, they wait again');
	value("UPDATE cm_hosts SET executor_config = '{}'");
	ends($third, 'completed', 'and run');
	cmp_ok(seq($first, 'completed'), '<', seq($second, 'launching'), 'in order');
	cmp_ok(seq($second, 'completed'), '<', seq($third, 'launching'), 'one after the other');
	value(q(UPDATE cm_hosts SET executor_config = '{"rules": [{"command": "long*", "delay": "24 h"}, {"command": "fail", "exit_code": 3},
		{"command": "short", "delay": "20 ms"}]}'));
	value("SELECT cm_retry_job($third)");
	value("DELETE FROM cm_jobs WHERE id IN ($first, $second)");
	ends($third, 'completed', 'what has run once needs them no more');
	is(value("SELECT attempt FROM cm_jobs WHERE id = $third"), 2, 'by another attempt');
}

{
	my $failing = submit('fail');
	my $anyway = submit('x', "depends_on => '{$failing}'", 'depends_on_any_end => true');
	my $late = submit('x', "depends_on => '{$failing,$anyway}'");
	ends($anyway, 'completed', 'depends_on_any_end: it runs however they end');
	cmp_ok(seq($failing, 'failed'), '<', seq($anyway, 'launching'), 'after that');
	ends($late, 'cancelled', 'another one does not');
	is(value("SELECT error FROM cm_jobs WHERE id = $late"), "job $failing, which it depends on, ended as failed (exit_code)", 'in words');
	my $later = submit('x', "depends_on => '{$failing}'");
	ends($later, 'cancelled', 'nor one that is submitted after its end');
	my $after = submit('x', "depends_on => '{$anyway}'");
	ends($after, 'completed', 'one that has completed is no hindrance');
	is(value("BEGIN; SELECT cm_submit_job('app:1', 'x') AS a \\gset\nSELECT cm_submit_job('app:1', 'x', depends_on => ARRAY[:a]) > :a; COMMIT"),
		't', 'a job of the same transaction');
	my $expiring = submit('x', "depends_on => ARRAY[" . submit('long') . "]", "max_wait => '100 ms'");
	ends($expiring, 'failed', 'max_wait ends the waiting');
	is(status($expiring), 'failed/expired', 'as expired');
	value("SELECT cm_cancel_job(id) FROM cm_jobs WHERE completed_at IS NULL");
	nothing_left();
}

# Its end is being recorded while the other is submitted, and not yet committed.
{
	my $first = submit('long');
	runs($first);
	my $session = $node->session('postgres');
	my $second = $session->query_safe("BEGIN; SELECT cm_submit_job('app:1', 'x', depends_on => '{$first}', depends_on_any_end => true)");
	my $third = $session->query_safe("SELECT cm_submit_job('app:1', 'x', depends_on => '{$first}')");
	cancel($first);
	ends($first, 'cancelled', 'it ends');
	$session->query_safe('COMMIT');
	ends($second, 'completed', 'what was submitted before, and committed after, is not left waiting');
	is(value("SELECT cm_wait_job($third, '1 h')"), 'cancelled', 'either way');
	$session->quit;
	nothing_left();
}

# Recording the end and letting the next one go is one thing.
{
	my $first = submit('short');
	value(q{CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
		CREATE TRIGGER stop_here AFTER DELETE ON cm_internal.dependencies FOR EACH ROW EXECUTE FUNCTION stop_here();
		ALTER TABLE cm_internal.dependencies ENABLE ALWAYS TRIGGER stop_here});
	my $session = $node->session('postgres', on_error_stop => 0);
	$session->query_safe('SELECT pg_advisory_lock(4711)');
	my ($long, $next) = split /\n/, value("BEGIN; SELECT cm_submit_job('app:1', 'short') AS a \\gset\n"
		  . "SELECT :a; SELECT cm_submit_job('app:1', 'x', depends_on => ARRAY[:a]); COMMIT");
	wait_value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted", 1, 'between the two');
	is(status($long), 'running', 'the end is not recorded yet');
	my $pid = $node->executor_pid;
	value('ALTER DATABASE postgres SET container_manager.enabled = off');
	kill 'KILL', $pid;
	eval { $session->quit };
	ok($node->poll_query_until('postgres', 'SELECT true'), 'the executor is killed there');
	is(status($long), 'running', 'what it was about to commit');
	is(value("SELECT count(*) FROM cm_internal.dependencies WHERE job_id = $next AND depends_on = $long"), 1, 'has not happened');
	value('ALTER DATABASE postgres RESET container_manager.enabled');
	value('SELECT cm_start_executor()');
	ends($next, 'completed', 'then both do');
	cmp_ok(seq($long, 'completed'), '<', seq($next, 'launching'), 'in order');
	value('DROP TRIGGER stop_here ON cm_internal.dependencies; DROP FUNCTION stop_here');
	nothing_left();
}

# A locked row delays what it is about, and nothing else.
{
	my $first = submit('long');
	my $locked = submit('x', "depends_on => '{$first}'", 'depends_on_any_end => true');
	my $free = submit('x', "depends_on => '{$first}'", 'depends_on_any_end => true');
	runs($first);
	my $session = $node->session('postgres');
	$session->query_safe("BEGIN; SELECT FROM cm_internal.queue WHERE job_id = $locked FOR UPDATE");
	cancel($first);
	ends($free, 'completed', 'one whose row nobody has locked goes on');
	is(status($locked), 'pending', 'the other waits');
	$session->query_safe('COMMIT');
	$session->quit;
	ends($locked, 'completed', 'and is not forgotten');
	nothing_left();
}

# Likewise of one that is to end, for what it waits for did not complete.
{
	my $first = submit('long');
	my $locked = submit('x', "depends_on => '{$first}'");
	runs($first);
	my $session = $node->session('postgres');
	$session->query_safe("BEGIN; UPDATE cm_jobs SET name = 'locked' WHERE id = $locked");
	cancel($first);
	ends($first, 'cancelled', 'its row locked, a job is doomed');
	ends(submit('x'), 'completed', 'others go on');
	is(status($locked), 'pending', 'it waits');
	$session->query_safe('COMMIT');
	$session->quit;
	ends($locked, 'cancelled', 'and is not forgotten');
	nothing_left();
}

# One that somebody waits for is not deleted, however old the eyes are that look.
{
	my $first = submit('x');
	ends($first, 'completed', 'it is over');
	value('SELECT cm_stop_executor()');
	my $session = $node->session('postgres', on_error_stop => 0);
	$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM cm_jobs');
	my $second = submit('x', "depends_on => '{$first}'");
	my ($out, $failed) = $session->query("DELETE FROM cm_jobs WHERE id = $first");
	$session->quit;
	is(value("SELECT count(*) FROM cm_jobs WHERE id = $first"), 1, 'what is waited for stays');
	value('SELECT cm_start_executor()');
	ends($second, 'completed', 'and is seen to have completed');
	nothing_left();
}

# One that stands first for a key and is locked does not keep it.
{
	my $first = submit('long', "concurrency_key => 'l'");
	runs($first);
	my $head = submit('x', "concurrency_key => 'l'", 'priority => 90');
	my @behind = map { submit('x', "concurrency_key => 'l'") } 1 .. 2;
	my $session = $node->session('postgres');
	$session->query_safe("BEGIN; SELECT FROM cm_jobs WHERE id = $head FOR UPDATE");
	cancel($first);
	ends($_, 'completed', 'others of the key go on') for @behind;
	is(status($head), 'pending', 'while it is locked');
	$session->query_safe('COMMIT');
	$session->quit;
	ends($head, 'completed', 'then it goes, too');
	is(most_at_once("j.concurrency_key = 'l'"), 1, 'one after the other');
	nothing_left();
}

# One that is next and locked is looked for again soon, whatever the poll_interval.
{
	value("SELECT cm_pause('until it is locked')");
	my $locked = submit('x', 'priority => 90');
	my $session = $node->session('postgres');
	$session->query_safe("BEGIN; SELECT FROM cm_jobs WHERE id = $locked FOR UPDATE");
	value('SELECT cm_resume()');
	ends(submit('x'), 'completed', 'another goes before it');
	is(status($locked), 'pending', 'while it is locked');
	$session->query_safe('COMMIT');
	$session->quit;
	ends($locked, 'completed', 'then it goes');
	nothing_left();
}

# ------------------------------------------------------- many

sub reads { return value("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_all_tables WHERE relid = 'cm_internal.queue'::regclass"); }

{
	value("SELECT count(cm_submit_job('app:1', 'x', name => 'in')) FROM generate_series(1, 1000)");
	my $last = value("SELECT cm_submit_job('app:1', 'x', depends_on => (SELECT array_agg(id) FROM cm_jobs WHERE name = 'in'))");
	value("SELECT count(cm_submit_job('app:1', 'x', name => 'out', depends_on => '{$last}')) FROM generate_series(1, 1000)");
	wait_value("SELECT count(*) FROM cm_jobs WHERE name = 'out' AND status = 'completed'", 1000, 'a thousand, one, a thousand');
	cmp_ok(value("SELECT max(e.seq) FROM cm_job_events e JOIN cm_jobs j ON j.id = e.job_id WHERE j.name = 'in' AND e.status = 'completed'"),
		'<', seq($last, 'launching'), 'the one after all of the first');
	cmp_ok(seq($last, 'completed'), '<', value("SELECT min(e.seq) FROM cm_job_events e JOIN cm_jobs j ON j.id = e.job_id"
			  . " WHERE j.name = 'out' AND e.status = 'launching'"), 'all of the others after it');

	# A chain of which the first fails, with the executor killed on the way.
	value(q{DO $$ DECLARE last bigint := cm_submit_job('app:1', 'fail', run_at => now() + interval '200 ms');
		BEGIN FOR i IN 1..300 LOOP last := cm_submit_job('app:1', 'x', name => 'chain', depends_on => ARRAY[last]); END LOOP; END $$});
	kill_executor();
	wait_value("SELECT count(*) FROM cm_jobs WHERE name = 'chain' AND failure_reason = 'dependency_failed'", 300, 'a chain that breaks');
	value(q{DO $$ DECLARE last bigint := cm_submit_job('app:1', 'x'); BEGIN
		FOR i IN 1..60 LOOP last := cm_submit_job('app:1', 'short', name => 'good chain', depends_on => ARRAY[last]); END LOOP; END $$});
	for my $n (10, 30)
	{
		wait_value("SELECT count(*) > $n FROM cm_jobs WHERE name = 'good chain' AND status = 'completed'", 't', "more than $n have run");
		kill_executor();
	}
	wait_value("SELECT count(*) FROM cm_jobs WHERE name = 'good chain' AND status = 'completed'", 60, 'a chain through two crashes');
	is(most_at_once("j.name = 'good chain'"), 1, 'one at a time');
	nothing_left();
}

# ------------------------------------------------------- unique keys

{
	my $first = submit('long', "unique_key => 'nightly'");
	like(complaint("SELECT cm_submit_job('app:1', unique_key => 'nightly')"), qr/23505: job $first has unique_key "nightly" and is not over/,
		'a second one is refused');
	is(submit('x', "unique_key => 'nightly'", "on_conflict => 'skip'"), $first, 'or skipped: the id is that of the first');
	is(value("INSERT INTO cm_jobs (image, unique_key, on_conflict) VALUES ('app:1', 'nightly', 'skip'), ('app:1', 'other', 'skip')"
			  . " RETURNING unique_key"), 'other', 'by INSERT the row is left out');
	my $elsewhere = submit('x', "unique_key => 'nightly'", "namespace => 'b'");
	ends($elsewhere, 'completed', 'another namespace has keys of its own');
	like(value("CALL cm_run_job('app:1', 'x', unique_key => 'nightly', on_conflict => 'skip', wait_timeout => '10 ms')"), qr/^$first\|/,
		'cm_run_job waits for the first');
	runs($first);

	# Replaced while it runs, and again while that one waits.
	my $second = submit('long', "unique_key => 'nightly'", "on_conflict => 'replace'", "name => 'second'");
	my $third = submit('x', "unique_key => 'nightly'", "on_conflict => 'replace'");
	ends($third, 'completed', 'the last one replaces both');
	is(status($_), 'cancelled/cancelled', "job $_ was cancelled") for $first, $second;
	cmp_ok(seq($first, 'cancelled'), '<', seq($third, 'launching'), 'none runs beside the one that it replaces');

	# Deaf to signals for a while: what comes after waits for it, not only for its successor.
	value("UPDATE cm_hosts SET executor_config = '{\"rules\": [{\"command\": \"long*\", \"delay\": \"24 h\", \"launch_delay\": \"10 ms\", \"on_term\": \"ignore\"}]}'");
	my $deaf = submit('long', "unique_key => 'k'");
	runs($deaf);
	my @after = split /\n/, value('BEGIN;' . join('', map { "SELECT cm_submit_job('app:1', 'x', unique_key => 'k', on_conflict => 'replace');" } 1 .. 5) . 'COMMIT');
	ends($after[-1], 'completed', 'replaced over and over');
	cmp_ok(seq($deaf, 'cancelled'), '<', seq($after[-1], 'launching'), 'after the end of the one that ran');
	is(value("SELECT count(*) FROM cm_job_events WHERE status = 'launching' AND job_id IN (" . join(', ', @after[0 .. 3]) . ')'), 0,
		'those between never ran');

	# What was to replace it ends first: then the key is again that of the one that runs.
	my $stubborn = submit('long', "unique_key => 'back'", "stop_grace => '1 min'");
	runs($stubborn);
	my $successor = submit('x', "unique_key => 'back'", "on_conflict => 'replace'");
	cancel($successor);
	ends($successor, 'cancelled', 'a successor ends before its time');
	like(complaint("SELECT cm_submit_job('app:1', unique_key => 'back')"), qr/23505: job $stubborn has unique_key "back"/, 'nothing may run beside the first');
	like(complaint("SELECT cm_retry_job($successor)"), qr/23505: job $stubborn has unique_key "back"/, 'nor the successor');
	my $config = value("SELECT executor_config FROM cm_hosts");
	value("UPDATE cm_hosts SET executor_config = '{}'");
	value("SELECT cm_wait_job($stubborn, '1 h')");
	value("UPDATE cm_hosts SET executor_config = '$config'");

	like(complaint("BEGIN; SELECT cm_submit_job('app:1', unique_key => 'dep') AS a \\gset\n"
			  . "SELECT cm_submit_job('app:1', unique_key => 'dep', on_conflict => 'replace', depends_on => ARRAY[:a], run_at => now() + interval '1 h')"),
		qr/ERROR:  22023: job \d+, which it depends on, would be replaced by it/, 'not what it depends on');

	# The key of a job that is over is free; a job that is retried takes it again.
	my $over = submit('fail', "unique_key => 'again'");
	value("SELECT cm_wait_job($over)");
	my $holder = submit('long', "unique_key => 'again'");
	like(complaint("SELECT cm_retry_job($over)"), qr/23505: job $holder has unique_key "again"/, 'retrying is refused while another has the key');
	cancel($holder);
	ends($holder, 'cancelled', 'it is free');
	value("SELECT cm_stop_executor()");
	is(value("SELECT cm_retry_job($over)"), 't', 'retried then');
	like(complaint("SELECT cm_submit_job('app:1', unique_key => 'again')"), qr/23505: job $over has unique_key "again"/, 'it has the key at once');
	value("SELECT cm_start_executor()");
	ends($over, 'completed', 'and runs');

	value("CREATE ROLE other LOGIN; GRANT SELECT, INSERT ON cm_jobs TO other; GRANT EXECUTE ON FUNCTION cm_submit_job, cm_submit_jobs TO other");
	my $mine = submit('long', "unique_key => 'mine'");
	like(complaint("SELECT cm_submit_job('app:1', unique_key => 'mine', on_conflict => 'replace')", '-U', 'other'),
		qr/42501: job $mine, which has unique_key "mine", belongs to role "\w+"/, 'nobody replaces what is not his');
	is(value("SET ROLE other; SELECT cm_submit_job('app:1', unique_key => 'mine', on_conflict => 'skip')"), $mine, 'but may leave it at that');
	is(value("SET ROLE other; SELECT cm_submit_job('app:1', depends_on => '{$mine}', depends_on_any_end => true) > 0"), 't', 'or wait for it');

	# The executor ends a job whose key somebody is about to take.
	my $session = $node->session('postgres');
	$session->query_safe('BEGIN');
	$session->query_safe("SELECT cm_submit_job('app:1', unique_key => 'mine', on_conflict => 'replace')");
	cancel($mine);
	ends($mine, 'cancelled', 'the executor does not wait for whoever replaces it');
	$session->query_safe('ROLLBACK');
	$session->quit;
	my $next = submit('x', "unique_key => 'mine'");
	ends($next, 'completed', 'rolled back: the key is free');
	value("SELECT cm_cancel_job(id) FROM cm_jobs WHERE completed_at IS NULL");
	nothing_left();
}

# Many at the same time.
{
	my $script = $node->basedir . '/unique.sql';
	value(q(UPDATE cm_hosts SET executor_config = '{"rules": [{"command": "short", "delay": "5 ms"}]}'));
	PostgreSQL::Test::Utils::append_to_file($script, "\\set n random(1, 3)\n"
		  . "SELECT cm_submit_job('app:1', 'short', name => 'crowd', unique_key => 'u' || :n, on_conflict => CASE WHEN random() < 0.5 THEN 'skip' ELSE 'replace' END);\n");
	$node->command_ok([ 'pgbench', '-n', '-c', '8', '-j', '2', '-t', '40', '-f', $script, $node->connstr('postgres') ], 'a crowd');
	nothing_left();
	is(most_at_once("j.unique_key = 'u$_'"), 1, "key $_: never two at once") for 1 .. 3;
	cmp_ok(value("SELECT count(*) FROM cm_jobs WHERE name = 'crowd' AND status = 'completed'"), '>=', 3, 'and some ran');
}

# ------------------------------------------------------- concurrency keys

{
	value("SELECT count(cm_submit_job('app:1', 'short', name => 'keyed', concurrency_key => 'c', concurrency_limit => 3)) FROM generate_series(1, 40)");
	value("SELECT count(cm_submit_job('app:1', 'short', name => 'single', concurrency_key => 'c', namespace => 'b')) FROM generate_series(1, 10)");
	value("SELECT count(cm_submit_job('app:1', 'x', name => 'free')) FROM generate_series(1, 40)");
	nothing_left();
	is(most_at_once("j.name = 'keyed'"), 3, 'as many with a key at once as the limit says');
	is(most_at_once("j.name = 'single'"), 1, 'one, where it says nothing');
	is(value("SELECT count(*) FROM cm_jobs WHERE name IN ('keyed', 'single', 'free') AND status = 'completed'"), 90, 'all run');

	value(q(UPDATE cm_hosts SET executor_config = '{"rules": [{"command": "long*", "delay": "24 h"}]}'));
	my $long = submit('long', "concurrency_key => 'c'");
	runs($long);
	value("SELECT count(cm_submit_job('app:1', 'x', name => 'behind', concurrency_key => 'c', priority => 90)) FROM generate_series(1, 2500)");
	my $one = value("SELECT min(id) FROM cm_jobs WHERE name = 'behind'");
	wait_value("SELECT count(*) FROM cm_internal.queue WHERE is_held", 2500, 'two and a half thousand wait behind one');
	cmp_ok(value("SELECT max(n) FROM (SELECT count(*) AS n FROM cm_internal.queue WHERE is_held GROUP BY xmin::text) x"),
		'<=', 2000, 'put aside some at a time');
	is(why($one), 'key "c" in use (1 of 1)', 'and say for what');
	value("VACUUM ANALYZE cm_internal.queue");
	my $before = reads();
	for (1 .. 31) { my $id = submit('x', "name => 'beside'"); ends($id, 'completed', 'others run beside'); }
	value("SELECT pg_stat_force_next_flush()");
	cmp_ok((reads() - $before) / 31, '<', 300, 'at no cost: rows of the queue read per job');
	my $written = value("SELECT max(xmin::text::int8) FROM cm_internal.queue WHERE is_held");
	kill_executor();
	ends(submit('x'), 'completed', 'after a crash others run');
	is(status($long), 'running', 'it runs on');
	is(value("SELECT count(*), max(xmin::text::int8) FROM cm_internal.queue WHERE is_held"), "2500|$written",
		'those behind it are not touched');
	is(value("SELECT count(*) FROM cm_jobs WHERE name = 'behind' AND status <> 'pending'"), 0, 'and the others wait');
	value("SELECT cm_cancel_job(id) FROM cm_jobs WHERE name = 'behind' AND id > $one + 20");
	wait_value("SELECT count(*) FROM cm_internal.queue WHERE status = 'pending'", 21, 'most are cancelled');
	cancel($long);
	nothing_left();
	is(most_at_once("j.concurrency_key = 'c' AND j.namespace = 'default' AND j.name IS DISTINCT FROM 'keyed'"), 1, 'one after the other');

	# What leaves the key without ever running, or to be tried again, lets the next one go.
	add_mock('narrow', 'max_concurrent_jobs => 1');
	my $occupied = submit('long', "host => 'narrow'");
	runs($occupied);
	my $stuck = submit('x', "host => 'narrow'", "concurrency_key => 'd'", 'priority => 90');
	my $passing = submit('x', "concurrency_key => 'd'", "host => 'm'");
	ends($passing, 'completed', 'one that finds no host does not keep the key');
	cancel($occupied);
	ends($stuck, 'completed', 'and runs when it does');
	value(q(UPDATE cm_hosts SET executor_config = '{"rules": [{"command": "flaky", "attempt": 1, "exit_code": 75}]}'));
	value("SELECT cm_submit_job('app:1', 'flaky', name => 'flaky', concurrency_key => 'e', max_attempts => 3, retry_on => '75', retry_delay => '20 ms')"
		  . " FROM generate_series(1, 6)");
	nothing_left();
	is(value("SELECT count(*) FROM cm_jobs WHERE name = 'flaky' AND status = 'completed' AND attempt = 2"), 6, 'with retries');
	is(most_at_once("j.name = 'flaky'"), 1, 'too');
}

# ------------------------------------------------------- pauses

{
	value("SELECT cm_remove_host('narrow')");
	value(q(UPDATE cm_hosts SET executor_config = '{"rules": [{"command": "long*", "delay": "24 h"}, {"command": "go", "delay": "0 s"}]}'));
	my $running = submit('long');
	runs($running);
	is(value("SELECT cm_pause('disk is full')"), 't', 'everything is paused');
	is(value("SELECT cm_pause('again')"), 'f', 'once');
	my $paused = submit('x');
	like(value("SELECT explanation || advice FROM cm_status"),
		qr/The executor runs, but starts no job: paused\. Paused: all jobs by \w+ since 2.*: disk is full\..*SELECT cm_resume\(\);/, 'cm_status says so');
	is(why($paused), 'paused: disk is full', 'cm_ps, too');
	cancel($running);
	ends($running, 'cancelled', 'what runs goes on, and ends');
	kill_executor();
	is(status($paused), 'pending', 'a crash does not end the pause');
	is(value("SELECT cm_resume(namespace => 'b')"), 'f', 'another pause is not this one');
	is(value("SELECT cm_resume()"), 't', 'resumed');
	ends($paused, 'completed', 'it runs');
	is(value("SELECT paused IS NULL FROM cm_status"), 't', 'cm_status knows of no pause');

	value("SELECT cm_pause('quarter end', namespace => 'b')");
	value("SELECT count(cm_submit_job('app:1', 'x', name => 'paused', namespace => 'b', priority => 90)) FROM generate_series(1, 2500)");
	my $other = submit('x');
	ends($other, 'completed', 'other namespaces go on, though thousands stand before them');
	wait_value("SELECT count(*) FROM cm_internal.queue WHERE is_paused AND NOT is_ready", 2500, 'those are put aside');
	like(value("SELECT paused FROM cm_status"), qr/^namespace "b" by \w+ since .*: quarter end$/, 'cm_status names it');
	like(value("SELECT string_agg(explanation, ' ') FROM cm_job_explain((SELECT min(id) FROM cm_jobs WHERE name = 'paused'))"),
		qr/It waits: namespace paused: quarter end\..*cm_resume undoes that/, 'cm_job_explain, too');
	value("SELECT cm_resume(namespace => 'b')");
	wait_value("SELECT count(*) FROM cm_jobs WHERE name = 'paused' AND status = 'completed'", 2500, 'resumed, all run');

	# A key that a paused job was let in for is not lost.
	my $long = submit('long', "concurrency_key => 'p'");
	runs($long);
	my $in_b = submit('x', "concurrency_key => 'p'", 'priority => 90', "name => 'keyed and paused'");
	my $next = submit('x', "concurrency_key => 'p'");
	wait_value("SELECT count(*) FROM cm_internal.queue WHERE is_held", 2, 'two wait for a key');
	value("UPDATE cm_internal.queue SET is_held = false WHERE job_id = $in_b");
	value("ALTER TABLE cm_jobs DISABLE TRIGGER guard_update; UPDATE cm_jobs SET template = 't' WHERE id = $in_b; ALTER TABLE cm_jobs ENABLE TRIGGER guard_update");
	value("SELECT cm_pause('bad template', template => 't')");
	cancel($long);
	ends($next, 'completed', 'the next one has it');
	is(why($in_b), 'template paused: bad templa~', 'while the first is paused');
	value("ALTER TABLE cm_jobs DISABLE TRIGGER guard_update; UPDATE cm_jobs SET template = NULL WHERE id = $in_b; ALTER TABLE cm_jobs ENABLE TRIGGER guard_update");
	value("SELECT cm_resume(template => 't')");
	ends($in_b, 'completed', 'until it is not');
	nothing_left();

	like(complaint("SELECT cm_pause(' ')"), qr/22023: reason is missing.*HINT/s, 'a pause has a reason');
	like(complaint("SELECT cm_pause('x', namespace => '')"), qr/22023: namespace is empty/, 'an empty namespace is none');
	like(complaint("SELECT cm_pause('x')", '-U', 'other'), qr/42501: permission denied/, 'not everybody may');
}

# ------------------------------------------------------- many by one statement

{
	value("SELECT cm_stop_executor()");
	my $took = value(q{
		CREATE TABLE took (what text, ms numeric);
		DO $$ DECLARE began timestamptz := clock_timestamp(); n bigint; BEGIN
			SELECT count(*) INTO n FROM cm_submit_jobs((SELECT jsonb_agg(jsonb_build_object('image', 'app:1', 'command', 'go', 'name', 'batch',
				'args', NULL, 'priority', i % 100, 'environment', jsonb_build_object('I', i), 'labels', '{"team": "x"}'::jsonb, 'run_at', now() + interval '1 day'))
				FROM generate_series(1, 10000) i));
			INSERT INTO took VALUES ('10,000 submitted', extract(epoch FROM clock_timestamp() - began) * 1000);
			ASSERT n = 10000;
		END $$});
	is(value("SELECT count(*), count(DISTINCT priority), bool_and(environment ? 'I') FROM cm_jobs WHERE name = 'batch'"), '10000|100|t',
		'ten thousand jobs by one statement');
	for my $what ('cm_set_priority(id, 7)', 'cm_cancel_job(id)')
	{
		value("DO \$\$ DECLARE began timestamptz := clock_timestamp(); BEGIN PERFORM $what FROM cm_jobs WHERE name = 'batch';"
			  . " INSERT INTO took VALUES ('$what', extract(epoch FROM clock_timestamp() - began) * 1000); END \$\$");
	}
	is(value("SELECT count(*) FROM cm_internal.requests"), 20000, 'asked for something of each, twice');
	value('SELECT cm_start_executor()');
	nothing_left();
	is(value("SELECT count(*) FROM cm_jobs WHERE name = 'batch' AND status = 'cancelled' AND attempt = 0 AND priority = 7"), 10000, 'done to each');
	value("SELECT cm_retry_job(id) FROM cm_jobs WHERE name = 'batch' AND id % 10 = 0");
	wait_value("SELECT count(*) FROM cm_jobs WHERE name = 'batch' AND status = 'completed'", 1000, 'a thousand are run again');
	nothing_left();
	note $_ for split /\n/, value('SELECT what, round(ms) FROM took');

	my $first = submit('long', "unique_key => 'u'");
	is(value("SELECT string_agg(n || ':' || (id = $first)::text, ' ' ORDER BY n), count(DISTINCT id) FROM cm_submit_jobs('["
			  . '{"image": "app:1"}, {"image": "app:1", "unique_key": "u", "on_conflict": "skip"}, {"image": "app:1"},'
			  . '{"image": "app:1", "unique_key": "u", "on_conflict": "skip"}, {"image": "app:1", "unique_key": "v"}]' . "')"),
		'1:false 2:true 3:false 4:true 5:false|4', 'each has its number; skipped ones have the id of the job that is there');
	cancel($first);
	like(complaint("SELECT * FROM cm_submit_jobs('[{\"image\": \"app:1\"}]')", '-U', 'other'), qr/\A\z/, 'as any role that may');
	nothing_left();
}

# ------------------------------------------------------- dump, restore, adopt

{
	value("SELECT cm_pause('before the move')");
	my $first = submit('x', "name => 'one'");
	my $second = submit('x', "depends_on => '{$first}'", "unique_key => 'k'", "concurrency_key => 'c'");
	my $third = submit('x', "depends_on => '{$second}'");
	my $dump = $node->basedir . '/dump.sql';
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'dumped');
	value('CREATE DATABASE restored');
	$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'restored');
	is(value("SELECT paused ~ 'all jobs by .* before the move' FROM cm_status", 'restored'), 't', 'the pause came along');
	like(value("SELECT cm_submit_job('app:1', unique_key => 'k') > 0", 'restored'), qr/t/, 'a copy has no keys');
	is(value("SELECT cm_adopt_restored_jobs()", 'restored'), 1, 'one that another has the key of stays, and what waits for it');
	value("SELECT cm_cancel_job(id) FROM cm_jobs WHERE unique_key = 'k' AND id > $second; SELECT cm_resume()", 'restored');
	ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0, database => 'restored'), 'the others run');
	is(value("SELECT cm_adopt_restored_jobs()", 'restored'), 2, 'then they are adopted, too');
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $second", 'completed', database => 'restored'), 'and runs after what it depends on');
	is(value("SELECT (SELECT seq FROM cm_job_events WHERE job_id = $first AND status = 'completed')"
			  . " < (SELECT seq FROM cm_job_events WHERE job_id = $second AND status = 'launching')", 'restored'), 't', 'in order');
	is(status($second), 'pending', 'while the original waits');
	value('SELECT cm_resume()');
	ends($_, 'completed', 'until it is resumed') for $second, $third;
	nothing_left();
}

$node->stop;
done_testing();
