# Hosts of executor_type mock: jobs go through the states, events, notifications
# and logs of real ones and end as scripted, without an engine; a crash loses none
# and repeats none; and only superusers may make such hosts.
use strict;
use warnings;

use CM::Cluster;
use JSON::PP;
use List::Util qw(max);
use Test::More;
use Time::HiRes qw(usleep);

my $node = CM::Cluster->new_with_extension('main',
	'container_manager.stop_grace' => '500ms',
	'container_manager.poll_interval' => '1h',
	'container_manager.max_log_size' => '64kB');
my $json = JSON::PP->new->utf8->canonical;

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub script_sql { my ($script) = @_; return "'" . $json->encode($script) =~ s/'/''/gr . "'"; }

sub add_mock
{
	my ($name, $script, @more) = @_;
	return $node->add_host($name, "mock://$name", "executor_type => 'mock'",
		'executor_config => ' . script_sql($script), @more);
}

sub set_script
{
	my ($name, $script) = @_;
	return value("UPDATE cm_hosts SET executor_config = " . script_sql($script) . " WHERE name = '$name'");
}

sub submit
{
	my ($command, @more) = @_;
	return $node->submit(join ', ', "'app:1'", "'$command'", @more, (grep { /host =>/ } @more) ? () : "host => 'm'");
}

sub events
{
	my ($id) = @_;
	return value("SELECT string_agg(concat_ws('/', attempt, status, failure_reason, exit_code), ' ' ORDER BY seq)"
		  . " FROM cm_job_events WHERE job_id = $id");
}

sub ends
{
	my ($id, $status, $what) = @_;
	return is(value("SELECT cm_wait_job($id, '1 h')"), $status, $what);
}

sub runs { my ($id) = @_; return ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $id", 'running'), "job $id runs"); }

sub restarts
{
	my ($pid) = @_;
	return ok($node->wait_for_sql("SELECT count(*) FROM cm_status WHERE executor_pid <> $pid AND is_running", 1),
		'another executor works');
}

my %long = (delay => '24 h');
my %script = (
	stdout => "job {{job_id}}, attempt {{attempt}}, {{name}} {{image}}: {{command}}; {{other}} {\n",
	rules => [
		{ command => 'fail *', exit_code => 3, stdout => "\n", stderr => "boom\nbang" },
		(map { { command => $_, failure => $_ } } qw(oom killed image_pull create start network infrastructure)),
		{ command => 'long*', %long },
		{ command => 'deaf', %long, on_term => 'ignore' },
		{ command => 'clean', %long, on_term => 0 },
		{ command => 'slow', launch_delay => '24 h' },
		{ command => 'a while', delay => '1500 ms' },
		{ command => 'big', stdout => "x" x 65536, stderr => 'y' },
		{ command => '--by args', exit_code => 4 },
		{ name => 'flaky', attempt => 1, exit_code => 75 },
		{ labels => { team => 'b*' }, exit_code => 5 },
		{ image => 'other:*', exit_code => 6 },
	]);
add_mock('m', \%script, 'max_concurrent_jobs => 50');
ok($node->wait_for_sql("SELECT state, engine_version, error FROM cm_host_status WHERE name = 'm'", 'healthy|mock|'),
	'the host is healthy');

# ------------------------------------------------------- a job

my ($out, $err);
$node->psql('postgres', "LISTEN cm_job_status;\nSELECT cm_submit_job('app:1', 'work', name => 'mine') AS job \\gset\n"
	  . "CALL cm_await_job(:job, '1 h');\nSELECT 1;\nSELECT 'id ' || :job", stdout => \$out, stderr => \$err);
my ($job) = $out =~ /^id (\d+)$/m;
my @told = map { decode_json($_) } $out =~ /with payload "(\{.*?\})" received/g;
is(join(' ', map { $_->{status} } grep { $_->{job_id} == $job } @told), 'launching running completed',
	'every transition is notified, in order') || diag "$out\n$err";
is(events($job), '1/launching 1/running 1/completed/0', 'and is an event');
is(value("SELECT cm_job_output($job)"), "job $job, attempt 1, mine app:1: work; {{other}} {\n",
	'output with placeholders; others are left as they are');
is(value("SELECT concat_ws('|', status, host, container_id, exit_code, oom_killed, logs_incomplete, failure_reason, error)"
		  . " FROM cm_jobs WHERE id = $job"), "completed|m|mock-$job-1|0|f|f", 'its row');
is(value("SELECT claimed_at <= started_at AND started_at <= completed_at AND engine_started_at = started_at"
		  . " AND engine_finished_at = engine_started_at AND inspect #>> '{State,ExitCode}' = '0'"
		  . " FROM cm_job_attempts WHERE job_id = $job"), 't', 'its attempt');
is(value("CALL cm_run_job('app:1', 'fail now', host => 'm')") =~ s/^\d+\|//r, "failed|3|\n", 'cm_run_job gives the exit code');

# ------------------------------------------------------- every way to end

$job = submit('fail well');
ends($job, 'failed', 'another exit code');
is(events($job), '1/launching 1/running 1/failed/exit_code/3', 'is a failure');
is(value("SELECT string_agg(stream || ' ' || line, ',' ORDER BY logged_at, stream) FROM cm_job_logs($job)"),
	'stderr boom,stderr bang,stdout ', 'what it wrote, by stream');
is(value("SELECT cm_job_output_bytes($job, 'stderr')"), '\x626f6f6d0a62616e67', 'byte for byte');

my %end_of = (
	oom => '1/launching 1/running 1/failed/oom/137',
	killed => '1/launching 1/running 1/failed/killed/137',
	infrastructure => '1/launching 1/failed/infrastructure',
	map { $_ => "1/launching 1/failed/$_" } qw(image_pull create start network));
for my $failure (sort keys %end_of)
{
	$job = submit($failure);
	ends($job, 'failed', "scripted: $failure");
	is(events($job), $end_of{$failure}, "$failure: its events");
	isnt(value("SELECT error FROM cm_jobs WHERE id = $job"), '', "$failure: in words");
}
is(value("SELECT exit_code FROM cm_jobs WHERE id = " . ended_job("'app:1', args => ARRAY['--by', 'args'], host => 'm'")), 4,
	'a rule by the words of args');
is(value("SELECT exit_code FROM cm_jobs WHERE id = " . ended_job(q('app:1', 'x', labels => '{"team": "blue"}', host => 'm'))), 5,
	'by labels');
is(value("SELECT exit_code FROM cm_jobs WHERE id = " . ended_job(q('other:2', 'x', host => 'm'))), 6, 'by image');

sub ended_job
{
	my ($arguments) = @_;
	my $id = $node->submit($arguments);
	value("SELECT cm_wait_job($id, '1 h')");
	return $id;
}

# ------------------------------------------------------- stopping

my %stopped = ('long one' => 143, deaf => 137, clean => 0);
my %cancelled = map { $_ => submit($_) } sort keys %stopped;
my %timed = map { $_ => submit($_, 'timeout_seconds => 1') } sort keys %stopped;
for my $command (sort keys %stopped)
{
	my ($cancelled, $timed) = ($cancelled{$command}, $timed{$command});
	runs($cancelled);
	ok($node->wait_for_sql("SELECT count(*) > 0 FROM cm_job_logs($cancelled)", 't'), "$command: its output is there while it runs");
	value("SELECT cm_cancel_job($cancelled)");
	ends($cancelled, 'cancelled', "$command: cancelled");
	is(events($cancelled), "1/launching 1/running 1/cancelled/cancelled/$stopped{$command}", "$command: by a signal");
	ends($timed, 'timeout', "$command: over its time");
	is(events($timed), "1/launching 1/running 1/timeout/timeout/$stopped{$command}", "$command: by a signal");
	is(value("SELECT count(*) FROM cm_job_logs($timed)"), 1, 'its output is there once');
}
$job = submit('slow');
ok($node->wait_for_sql("SELECT status, detail FROM cm_jobs WHERE id = $job", 'launching|pulling'), 'a slow launch');
value("SELECT cm_cancel_job($job)");
ends($job, 'cancelled', 'is cancelled');
is(events($job), '1/launching 1/cancelled/cancelled', 'before it ran');
$job = submit('slow', "max_wait => '1 s'");
ends($job, 'failed', 'or expires');
is(events($job), '1/launching 1/failed/expired', 'before it ran');

# ------------------------------------------------------- again

$job = submit('x', "name => 'flaky'", 'max_attempts => 3', "retry_on => '75'", "retry_delay => '1 ms'");
ends($job, 'completed', 'the second attempt is better');
is(events($job), '1/launching 1/running 1/pending/exit_code/75 2/launching 2/running 2/completed/0', 'its events');
is(value("SELECT string_agg(concat_ws('/', attempt, status, exit_code, container_id), ' ' ORDER BY attempt)"
		  . " FROM cm_job_attempts WHERE job_id = $job"), "1/failed/75/mock-$job-1 2/completed/0/mock-$job-2", 'a row for each attempt');
like(value("SELECT cm_job_output($job, 1)"), qr/attempt 1/, 'and its output');
like(value("SELECT cm_job_output($job, 2)"), qr/attempt 2/, 'each its own');

# ------------------------------------------------------- what is kept

$job = submit('big');
ends($job, 'completed', 'much output');
is(value("SELECT logs_incomplete, length(cm_job_output($job)), length(cm_job_stderr($job)) FROM cm_jobs WHERE id = $job"),
	't|65536|0', 'what comes first is kept, up to max_log_size');

# ------------------------------------------------------- capacity

add_mock('narrow', { delay => '100 ms' }, 'max_concurrent_jobs => 3');
value("SELECT cm_disable_host('narrow', 'test')");
value("SELECT count(cm_submit_job('app:1', 'n', host => 'narrow', name => 'narrow')) FROM generate_series(1, 12)");
ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = 'narrow'", 'drained'), 'a drained host');
$job = submit('after');
ends($job, 'completed', 'while another host works');
is(value("SELECT count(*) FROM cm_jobs WHERE name = 'narrow' AND status = 'pending'"), 12, 'starts none');
value("SELECT cm_enable_host('narrow')");
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE name = 'narrow' AND status = 'completed'", 12), 'enabled, it runs them');
my ($used, $most) = (0, 0);
for my $status (split /\n/, value("SELECT e.status FROM cm_job_events e JOIN cm_jobs j ON j.id = e.job_id"
			  . " WHERE j.name = 'narrow' ORDER BY seq"))
{
	$used += $status eq 'launching' ? 1 : $status eq 'completed' ? -1 : 0;
	$most = max($most, $used);
}
is($most, 3, 'as many at once as it has slots');

# ------------------------------------------------------- waking

sub turns { return value('SELECT turns FROM cm_internal.executor_status()'); }

$job = submit('long watched');
runs($job);
ok($node->wait_for_sql("SELECT count(*) FROM cm_job_logs($job)", 1), 'its output is stored');
my $before = turns();
my $short = submit('a while');
ends($short, 'completed', 'a job of a second and a half');
cmp_ok(turns() - $before, '<', 25, 'few turns: nothing is polled');
is(value("SELECT engine_finished_at - engine_started_at FROM cm_job_attempts WHERE job_id = $short"), '00:00:01.5',
	'it ran as long as scripted');

# ------------------------------------------------------- out of reach

my $failing = submit('long', "on_host_loss => 'fail'", "host_loss_grace => '100 ms'");
my $waiting = submit('long');
my $abandoned = submit('long');
runs($_) for $failing, $waiting, $abandoned;
set_script('m', { %script, unreachable => JSON::PP::true });
ok($node->wait_for_sql("SELECT state, error FROM cm_host_status WHERE name = 'm'",
		'unhealthy|executor_config says that it does not answer'), 'a host that does not answer');
is(value("SELECT ok, engine_version, error FROM cm_check_host('m')"), 'f||executor_config says that it does not answer',
	'nor when asked');
ends($failing, 'failed', 'a job that does not wait for it');
is(events($failing), '1/launching 1/running 1/failed/host_lost', 'is lost');
like(value("SELECT status || ' ' || detail FROM cm_jobs WHERE id = $waiting"), qr/^running host unreachable since /, 'another one waits');
value("SELECT cm_abandon_job($abandoned, 'for a test')");
ends($abandoned, 'failed', 'a job can be given up');
is(events($abandoned), '1/launching 1/running 1/failed/abandoned', 'is abandoned');
my $later = submit('later');
value("SELECT cm_cancel_job($job)");
set_script('m', \%script);
ends($later, 'completed', 'it answers again, and takes jobs');
ends($job, 'cancelled', 'and cancels');
is(value("SELECT status, detail FROM cm_jobs WHERE id = $waiting"), 'running|', 'what waited runs on');
set_script('m', { %script, rules => [ { command => 'long', exit_code => 9 } ] });
ends($waiting, 'failed', 'a script without its delay ends it');
is(value("SELECT exit_code FROM cm_jobs WHERE id = $waiting"), 9, 'as it says');
is(value("SELECT count(*), bool_or(logs_incomplete) FROM cm_job_logs($waiting), cm_jobs WHERE id = $waiting"), '1|f',
	'what it printed stays');
set_script('m', \%script);

# ------------------------------------------------------- many, and a crash

add_mock('many', { exit_codes => { 0 => 0.75, 1 => 0.25 }, delay => [ '0 ms', '500 ms' ], stdout => "{{job_id}}\n",
		rules => [ { command => 'fixed', delay => '2 s' } ] }, 'max_concurrent_jobs => 60');
add_mock('quick', { exit_codes => { 0 => 3, 2 => 1 } }, 'max_concurrent_jobs => 1000');

value("SELECT count(cm_submit_job('app:1', 'quick', host => 'quick', name => 'quick')) FROM generate_series(1, 2000)");
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE name = 'quick' AND completed_at IS NOT NULL", 2000), '2000 jobs');
note '2000 jobs in ' . value("SELECT max(completed_at) - min(created_at) FROM cm_jobs WHERE name = 'quick'");
my $twos = value("SELECT count(*) FROM cm_jobs WHERE name = 'quick' AND status = 'failed' AND exit_code = 2");
ok(abs($twos - 500) < 100, "a quarter of them end with 2: $twos");

sub crash
{
	my ($pid) = $node->executor_pid;
	kill 'KILL', $pid;
	return restarts($pid);
}

value("SELECT count(cm_submit_job('app:1', c, host => 'many', name => 'many')) FROM generate_series(1, 200),"
	  . " unnest(ARRAY['x', 'fixed']) c");
for my $round (1 .. 2)
{
	my $done = $round * 80;
	ok($node->wait_for_sql("SELECT count(*) FILTER (WHERE completed_at IS NOT NULL) > $done AND count(*) FILTER (WHERE status = 'running') > 0"
			  . " FROM cm_jobs WHERE name = 'many'", 't'), 'jobs run');
	crash();
}
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE name = 'many' AND status IN ('completed', 'failed')", 400),
	'all end, though the executor was killed twice');
is(value("SELECT count(*) FROM (SELECT string_agg(e.status, ' ' ORDER BY e.seq) FROM cm_job_events e JOIN cm_jobs j ON j.id = e.job_id"
		  . " WHERE j.name = 'many' GROUP BY j.id) s (states) WHERE states NOT IN ('launching running completed', 'launching running failed')"),
	0, 'each went through its states once');
is(value("SELECT count(*) FROM cm_job_attempts a JOIN cm_jobs j ON j.id = a.job_id WHERE j.name = 'many'"), 400, 'in one attempt');
is(value("SELECT count(*) FROM cm_jobs WHERE name = 'many' AND (cm_job_output(id) <> id || E'\\n' OR logs_incomplete)"), 0,
	'and printed once');
is(value("SELECT count(*) FROM cm_job_attempts a JOIN cm_jobs j ON j.id = a.job_id"
		  . " WHERE j.name = 'many' AND j.command = 'fixed' AND engine_finished_at - engine_started_at <> '2 s'"), 0,
	'those that ran meanwhile ran on');
my $ones = value("SELECT count(*) FROM cm_jobs WHERE name = 'many' AND exit_code = 1");
ok(abs($ones - 100) < 50, "exit codes as scripted: $ones of 400");

# What the next executor finds half done: launching, its row locked by somebody.
my $session = $node->session('postgres', on_error_stop => 0);
my $half = submit('slow');
ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $half", 'launching'), 'a job is launching');
$session->query_safe("BEGIN; SELECT FROM cm_jobs WHERE id = $half FOR UPDATE");
set_script('m', { %script, rules => [] });
crash();
eval { $session->quit };
ends($half, 'completed', 'it is launched by the next executor');
is(events($half), '1/launching 1/running 1/completed/0', 'and runs once');
set_script('m', \%script);

# ------------------------------------------------------- what else is asked of a host

is(value("SELECT ok, latency_ms, engine_version, api_version, error FROM cm_check_host('m')"), 't|0|mock||', 'cm_check_host');
is(value("SELECT string_agg(key, ' ') FROM cm_host_info('m')"), 'Name ServerVersion Script', 'cm_host_info');
is(value("SELECT count(*) FROM cm_list_containers('m')"), 0, 'cm_list_containers');
like(value("SELECT cm_job_docker_command($half)"), qr/^docker run .* -c slow$/, 'what docker would be told');
$node->psql('postgres', "\\set VERBOSITY verbose\nSELECT cm_host_env('m')", stderr => \$err);
like($err, qr/ERROR:  55000: host "m" has no engine/, 'cm_host_env');
is(value("SELECT host_type, tls_enabled, tls_verify FROM cm_hosts WHERE name = 'm'"), 'mock|f|f', 'its row');

# ------------------------------------------------------- rights

value(q{CREATE ROLE admin LOGIN; GRANT INSERT, SELECT, UPDATE, DELETE ON cm_hosts TO admin;
	GRANT EXECUTE ON FUNCTION cm_add_host, cm_disable_host, cm_enable_host, cm_remove_host TO admin});

sub sqlstate
{
	my ($sql, @options) = @_;
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \$err, extra_params => \@options);
	return $err =~ /ERROR:  (\w{5}):/ ? $1 : $err;
}

my $add = "SELECT cm_add_host('x', 'mock://x', executor_type => 'mock')";
for my $sql ($add, "INSERT INTO cm_hosts (name, connection_string, executor_type) VALUES ('x', 'mock://x', 'mock')",
	"UPDATE cm_hosts SET weight = 5 WHERE name = 'm'",
	"SELECT cm_add_host('m', 'mock://m', executor_type => 'mock', if_exists => 'update')",
	"UPDATE cm_hosts SET executor_type = 'mock', connection_string = 'mock://r' WHERE name = 'real'")
{
	value("INSERT INTO cm_hosts (name, connection_string) VALUES ('real', 'unix:///nowhere/docker.sock') ON CONFLICT DO NOTHING");
	is(sqlstate($sql, '-U', 'admin'), '42501', "refused to who is no superuser: $sql");
	like($err, qr/Only superusers may write/, 'with a hint');
	is(sqlstate("SET ROLE admin; $sql"), '42501', 'nor by a superuser who took the role');
}
is(sqlstate("SELECT cm_disable_host('m', 'x'); SELECT cm_enable_host('m')", '-U', 'admin'), '', 'draining is no change of the row');
is(sqlstate("SELECT cm_remove_host('real')", '-U', 'admin'), '', 'other hosts are not concerned');
is(sqlstate($add), '', 'superusers may');

# ------------------------------------------------------- a row that no trigger saw

value(q{ALTER TABLE cm_hosts DISABLE TRIGGER check_host;
	UPDATE cm_hosts SET executor_config = '{"rules": 5}' WHERE name = 'x';
	ALTER TABLE cm_hosts ENABLE TRIGGER check_host});
ok($node->wait_for_sql("SELECT state, error FROM cm_host_status WHERE name = 'x'",
		'unhealthy|executor_config of host "x": "rules" is not an array of rules'), 'a bad script bars the host');

# ------------------------------------------------------- the end

my $pid = $node->executor_pid;
submit('long');
my $offset = -s $node->logfile;
value('DROP EXTENSION container_manager CASCADE');
ok($node->wait_for_sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0), 'DROP EXTENSION ends the executor');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset), qr/may be left on host/, 'and leaves nothing behind');

done_testing();
