# Hosts: what cm_check_host says of engines that answer and of all that do not,
# engines too old and too new, adding, renaming, draining and removing them with
# jobs and without, and what administrators see and set: cm_host_info,
# cm_host_env, cm_queue_status, cm_job_summary, the limits on jobs.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::FakeEngine;
use File::Temp ();
use IO::Socket::UNIX;
use IPC::Run ();
use Socket qw(SOCK_STREAM);
use Test::More;
use Time::HiRes qw(time);

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_with_extension('main',
	'container_manager.heartbeat_interval' => '1s',
	'container_manager.stop_grace' => '1s');
my $folder = File::Temp->newdir(TEMPLATE => 'sockXXXX', TMPDIR => 1);
chmod 0755, $folder;
$node->add_host('local', $engine);

unreachable();
silent();
checked_in_its_transaction();
old_and_new();
asked();
summary();
queue();
limits();
drains();
renamed_and_removed();

is(sql('SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL'), 0, 'every job is over');
done_testing();

# ------------------------------------------------------- tools

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# The error of a statement that must fail: SQLSTATE, message and the rest.
sub refusal
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $status == 0 ? "no error: $stdout" : $stderr =~ s/\A.*?ERROR:\s*//sr;
}

# ok, error and hint of cm_check_host.
sub check
{
	my ($host) = @_;
	return sql("SELECT concat_ws('|', ok, error, hint) FROM cm_check_host('$host')");
}

sub why
{
	my ($job) = @_;
	return sql("SELECT explanation FROM cm_job_explain($job) WHERE item = 'why'");
}

sub sleeping_job
{
	my (@more) = @_;
	my $job = $node->submit(join ', ', q{'busybox:test', 'exec sleep 600'}, @more);
	is($node->job_wait($job, status => 'running|failed'), 'running', "job $job runs");
	return $job;
}

sub cancel
{
	my ($job) = @_;
	sql("SELECT cm_cancel_job($job)");
	is($node->job_wait($job), 'cancelled', "job $job is cancelled");
	return;
}

# ------------------------------------------------------- cm_check_host

sub unreachable
{
	is(sql(q{SELECT host, ok, latency_ms > 0, api_version >= '1.41', error, hint FROM cm_check_host('local')}),
		'local|t|t|t||', 'a real engine');
	is(sql(q{SELECT engine_version FROM cm_check_host('local')}), $engine->api_json('GET', '/version')->{Version}, 'its version');

	bind_only("$folder/deaf");
	$engine->as_root('python3', '-c', 'import socket, sys, os; socket.socket(socket.AF_UNIX).bind(sys.argv[1]); os.chmod(sys.argv[1], 0o600)',
		"$folder/closed");
	$engine->as_root('mkdir', '-m', '700', "$folder/private");
	open(my $file, '>', "$folder/file") or die "could not write: $!\n";
	close $file;
	my %expected = (
		missing => qr{^f\|socket $folder/missing: no such file\|Is the engine running},
		deaf => qr{^f\|socket $folder/deaf: connection refused\|Nothing listens on the socket: start the engine},
		closed => qr{^f\|socket $folder/closed: permission denied\|Give the socket to a group of its own .*"cmtest"},
		'private/s' => qr{^f\|socket $folder/private/s: permission denied\|.*user "cmtest" may not enter the directory},
		file => qr{^f\|$folder/file is not a socket\|Correct the connection string},
	);
	for my $name (sort keys %expected)
	{
		(my $host = $name) =~ tr{/}{-};
		$node->add_host($host, "unix://$folder/$name");
		like(check($host), $expected{$name}, "cm_check_host: $name");
		ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = '$host'", 'unhealthy'), 'the executor finds that, too');
		like(sql("SELECT concat_ws('|', 'f', error, hint) FROM cm_host_status WHERE name = '$host'"), $expected{$name}, 'and says the same');
		like(refusal("SELECT * FROM cm_host_info('$host')"), qr/^58030: host "$host": .*HINT:/s, 'cm_host_info throws');
		sql("SELECT cm_remove_host('$host')");
	}
	like(refusal(q{SELECT * FROM cm_check_host('lokal')}), qr/^42704: host "lokal" does not exist\nHINT:  Perhaps you mean\w* "local"/, 'unknown host');
	like(refusal(qq{SELECT * FROM cm_check_host('local', '$_')}), qr/^22023: timeout is not between/, "timeout $_")
	  for '0', '-1 s', '2 h', '1 month -30 days';
	return;
}

# A socket that is in the file system, and nobody has it open.
sub bind_only
{
	my ($path) = @_;
	my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path, Listen => 1) or die "could not bind $path: $!\n";
	close $socket;
	return;
}

# Takes connections and says nothing.
sub silent
{
	my $fake = CM::FakeEngine->start;
	$fake->fault(method => 'GET', path => '.', hang => 1);
	$node->add_host('silent', $fake);
	my $began = time;
	my $answer = sql(q{SELECT concat_ws('|', ok, latency_ms, error, hint) FROM cm_check_host('silent', timeout => '500 ms')});
	my $took = time - $began;
	like($answer, qr/^f\|[^|]*(?:in time|time)/, 'a silent engine is an answer, too');
	ok($took >= 0.5, 'after the time given') or diag($took);
	note "after $took s";
	like(refusal(q{SET statement_timeout = '300ms'; SELECT * FROM cm_check_host('silent', '1 h')}), qr/^57014: .*statement timeout/, 'statement_timeout');
	like(refusal(q{SET statement_timeout = '300ms'; SELECT * FROM cm_host_info('silent')}), qr/^57014: .*statement timeout/, 'also of cm_host_info');
	my $session = $node->session('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my @open = map { cancelled_check($session, $pid) } 1 .. 3;
	is($open[2], $open[0], 'and no connection stays behind') or diag("@open");
	$session->quit;
	sql(q{SELECT cm_remove_host('silent')});
	return;
}

# Cancels a check in a session; gives the number of its open files.
sub cancelled_check
{
	my ($session, $pid) = @_;
	$session->query_until(qr/sent/, "\\echo sent\nSELECT * FROM cm_check_host('silent', '1 h');\n");
	ok( $node->wait_for_sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $pid AND state = 'active'"
			  . " AND query LIKE '%cm_check_host%' AND wait_event_type = 'Extension'", 't'), 'a check that waits is cancelled');
	$session->query('SELECT 1');
	like($session->{stderr}, qr/canceling statement due to user request/, 'and ends');
	$session->{stderr} = '';
	my @open = glob "/proc/$pid/fd/*";
	return scalar @open;
}

sub checked_in_its_transaction
{
	my $url = $engine->url;
	is(sql("BEGIN; SELECT cm_add_host('new', '$url') > 0; SELECT ok FROM cm_check_host('new'); ROLLBACK"), "t\nt", 'a host that is not committed yet');
	is(sql(q{SELECT count(*) FROM cm_hosts WHERE name = 'new'}), 0, 'it is not there');
	return;
}

# ------------------------------------------------------- API versions

sub old_and_new
{
	unfit('old', qr/speaks API 1\.40 at most; 1\.41 or newer is needed/, qr/too old/, api_version => '1.40');
	unfit('future', qr/speaks API 1\.45 at least; 1\.44 is the newest/, qr/too new/, api_version => '1.60', min_api_version => '1.45');

	# The fake refuses requests outside of its range as engines do.
	my $fake = CM::FakeEngine->start(api_version => '1.52', min_api_version => '1.44');
	$node->add_host('modern', $fake);
	is(sql(q{SELECT ok, api_version FROM cm_check_host('modern')}), 't|1.44', '1.44 to 1.52: spoken to in 1.44');
	my $job = $node->submit(q{'busybox:1', 'echo hi', host => 'modern'});
	is($node->job_wait($job), 'completed', 'a job runs there') or diag(sql("SELECT error FROM cm_jobs WHERE id = $job"));
	is(sql("SELECT rtrim(cm_job_output($job), E'\\n')"), 'hi', 'with its output');
	is(sql(q{SELECT state, api_version FROM cm_host_status WHERE name = 'modern'}), 'healthy|1.44', 'cm_host_status');
	is($fake->state->{creates}, 1, 'created once');
	sql(q{SELECT cm_remove_host('modern')});
	return;
}

# A job that must run there waits and does not fail; with another engine it runs.
sub unfit
{
	my ($host, $error, $hint, %version) = @_;
	my $fake = CM::FakeEngine->start(%version);
	$node->add_host($host, $fake);
	like(check($host), qr/^f\|.*$error.*\|.*$hint/, "cm_check_host: $host");
	ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = '$host'", 'unhealthy'), 'is unhealthy');
	like(sql("SELECT error || '|' || hint FROM cm_host_status WHERE name = '$host'"), qr/$error.*\|.*$hint/, 'and cm_host_status says why');
	my $job = $node->submit("'busybox:1', 'echo hi', host => '$host'");
	# The executor has looked at it when one that came later is over.
	is($node->job_wait($node->submit(q{'busybox:test', 'true', host => 'local'})), 'completed', 'another job runs meanwhile');
	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'pending', 'a job for it waits');
	is(why($job), qq{It waits: host "$host" unhealthy.}, 'and says why');
	like(sql("SELECT explanation FROM cm_job_explain($job) WHERE item = 'advice'"), qr/cm_host_status/, 'and where to look');
	is($fake->state->{creates}, 0, 'nothing was created');
	$fake->set(api_version => '1.41', min_api_version => '1.12');
	is($node->job_wait($job), 'completed', 'with another engine it runs');
	sql("SELECT cm_remove_host('$host')");
	return;
}

# ------------------------------------------------------- cm_host_info, cm_host_env

sub asked
{
	my $info = $engine->api_json('GET', '/info');
	is(sql(q{SELECT string_agg(value, ' ' ORDER BY key COLLATE "C") FROM cm_host_info('local') WHERE key IN ('ID', 'NCPU', 'ServerVersion')}),
		"$info->{ID} $info->{NCPU} $info->{ServerVersion}", 'cm_host_info');
	is(sql(q{SELECT json_typeof(value::json) FROM cm_host_info('local') WHERE key = 'Plugins'}), 'object', 'nested values are JSON');

	my $odd = "$folder/it's \"a\" \$(id) `id` \\ é *";
	symlink $engine->socket, $odd or die "could not link: $!\n";
	(my $quoted = "unix://$odd") =~ s/'/''/g;
	sql("SELECT cm_add_host('odd', '$quoted')");
	is(sql(q{SELECT ok FROM cm_check_host('odd')}), 't', 'a socket with an odd name');
	my $lines = sql(q{SELECT * FROM cm_host_env('odd')});
	local @ENV{qw(DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH)} = (1, 1, '/nowhere');
	for my $shell ('bash', 'dash')
	{
		my $script = "$lines\n" . q{printf '%s|%s' "$DOCKER_HOST" "${DOCKER_TLS-}${DOCKER_TLS_VERIFY-}${DOCKER_CERT_PATH-}"};
		my ($stdout, $stderr) = ('', '');
		IPC::Run::run([ $shell, '-s' ], '<', \$script, '>', \$stdout, '2>', \$stderr);
		is($stdout, "unix://$odd|", "cm_host_env in $shell") or diag($lines, "\n", $stderr);
	}
	sql(q{SELECT cm_remove_host('odd')});
	return;
}

# ------------------------------------------------------- what is shown

sub summary
{
	my @end = map { $node->submit("'busybox:test', '$_', namespace => 'sums'") } 'true', 'sleep 0.3', 'exit 3', 'exit 4';
	push @end, $node->submit(q{'busybox:test', 'exec sleep 600', namespace => 'sums', timeout_seconds => 1});
	push @end, $node->submit(q{'nowhere.invalid/x:1', namespace => 'other'});
	my $late = $node->submit(q{'busybox:test', namespace => 'sums', run_at => 'tomorrow'});
	cancel($late);
	$node->job_wait($_) for @end;
	is(sql(q{SELECT image, jobs, completed, failed, timeout, cancelled, main_failure FROM cm_job_summary WHERE namespace = 'sums'}),
		'busybox:test|6|2|2|1|1|exit_code', 'cm_job_summary: how they ended');
	is(sql(q{SELECT s.p50_seconds = round(x.runs[3]::numeric, 1), s.p95_seconds >= 1, s.p95_seconds < x.runs[5] + 0.1,
			s.p95_wait_seconds BETWEEN 0 AND 60, s.last_completed_at = x.last
		FROM cm_job_summary s, (SELECT array_agg(extract(epoch FROM completed_at - started_at) ORDER BY completed_at - started_at) AS runs,
			max(completed_at) AS last FROM cm_jobs WHERE namespace = 'sums') x WHERE s.namespace = 'sums'}),
		't|t|t|t|t', 'and how long it took') or diag(sql(q{SELECT * FROM cm_job_summary}));
	is(sql(q{SELECT jobs, failed, main_failure, p50_seconds IS NULL FROM cm_job_summary WHERE namespace = 'other'}), '1|1|image_pull|t', 'by namespace');
	return;
}

sub queue
{
	is(sql('SELECT count(*) FROM cm_queue_status'), 0, 'cm_queue_status: nothing to do');
	my $running = sleeping_job(q{host => 'local'});
	sql(q{SELECT cm_disable_host('local')});
	my @waiting = map { $node->submit("'busybox:test', 'true'$_") } '', '', q{, host => 'local'}, q{, host => 'local', run_at => now() + interval '1 day'};
	is(sql('SELECT host, status, jobs, due, oldest_run_at <= now(), next_run_at > now() FROM cm_queue_status'),
		"any|pending|2|2|t|\nlocal|running|1|1|t|\nlocal|pending|2|1|t|t", 'cm_queue_status: by host and status');
	is(sql(q{SELECT q.oldest_run_at = min(j.run_at) FROM cm_queue_status q, cm_jobs j WHERE q.host = 'any' AND j.status = 'pending' AND j.requested_host IS NULL GROUP BY q.oldest_run_at}),
		't', 'since when') or diag(sql('SELECT * FROM cm_queue_status'));
	is(sql(q{SELECT state, slots, running, launching, waiting FROM cm_host_status WHERE name = 'local'}), 'drained|10|1|0|1', 'cm_host_status counts the same');
	sql(q{SELECT cm_enable_host('local')});
	$node->job_wait($_) for @waiting[ 0 .. 2 ];
	cancel($_) for $running, $waiting[3];
	return;
}

# ------------------------------------------------------- limits

sub set_and_reload
{
	my (%setting) = @_;
	sql("ALTER SYSTEM SET container_manager.$_ = '$setting{$_}'") for sort keys %setting;
	sql('SELECT pg_reload_conf()');
	# A new session has the value when the server has told all others.
	ok($node->wait_for_sql("SELECT current_setting('container_manager.$_')", $setting{$_}), "$_ is $setting{$_}") for sort keys %setting;
	return;
}

sub limits
{
	sql(q{SELECT cm_disable_host('local')});
	my %before = map { $_ => $node->submit("'busybox:test', 'true', $_") } 'cpu_limit => 1.5', 'timeout_seconds => 200';
	set_and_reload(max_cpu_limit => '0.5', max_timeout => '100s', pids_limit => 77, default_cpu_limit => '0.25', default_timeout => '50s');
	like(refusal(q{SELECT cm_submit_job('busybox:test', cpu_limit => 0.51)}), qr/^53400: cpu_limit of 0\.51 is over the limit of 0\.5\n.*max_cpu_limit/s, 'max_cpu_limit');
	like(refusal(q{SELECT cm_submit_job('busybox:test', timeout_seconds => 101)}), qr/^53400: timeout_seconds of 101 is over the limit of 100\n.*max_timeout/s, 'max_timeout');
	sql(q{SELECT cm_enable_host('local')});
	for my $limit (sort keys %before)
	{
		is($node->job_wait($before{$limit}), 'failed', "$limit, submitted before");
		like(sql("SELECT failure_reason || ' ' || error FROM cm_jobs WHERE id = $before{$limit}"), qr/^policy .*over the limit/, 'is checked again at its start');
	}
	my $job = sleeping_job();
	is(sql("SELECT cpu_limit, timeout_seconds FROM cm_jobs WHERE id = $job"), '0.25|50', 'default_cpu_limit, default_timeout');
	my $container = $engine->inspect(sql("SELECT container_id FROM cm_jobs WHERE id = $job"));
	is($container->{HostConfig}{PidsLimit}, 77, 'pids_limit');
	is($container->{HostConfig}{NanoCpus}, 250_000_000, 'its CPUs');
	like(sql("SELECT cm_job_docker_command($job)"), qr/ --pids-limit 77 .* --cpus 0\.25 /, 'cm_job_docker_command says so');
	cancel($job);
	sql('ALTER SYSTEM RESET ALL');
	sql('SELECT pg_reload_conf()');
	ok($node->wait_for_sql(q{SELECT current_setting('container_manager.pids_limit')}, '256'), 'as before');
	return;
}

# ------------------------------------------------------- life of a host

sub drains
{
	sql('CREATE ROLE operator; GRANT EXECUTE ON FUNCTION cm_disable_host, cm_enable_host TO operator');
	is(sql(q{SET ROLE operator; SELECT cm_disable_host('local', 'new disk'); SELECT cm_disable_host('local', 'new disk'); SELECT cm_disable_host('local')}),
		"t\nf\nf", 'cm_disable_host tells what is new');
	my $state = q{SELECT state, drained_by, drain_reason, drained_at IS NOT NULL FROM cm_host_status WHERE name = 'local'};
	is(sql($state), 'drained|operator|new disk|t', 'who and why');
	is(sql(q{SELECT cm_disable_host('local', 'new disks')}), 't', 'another reason');
	like(sql($state), qr/^drained\|(?!operator)\w+\|new disks\|t$/, "is another's");
	my $job = $node->submit(q{'busybox:test', 'true', host => 'local'});
	is(why($job), 'It waits: host "local" drained.', 'a job for it waits and says why');
	is(sql(q{SET ROLE operator; SELECT cm_enable_host('local'); SELECT cm_enable_host('local')}), "t\nf", 'cm_enable_host');
	is($node->job_wait($job), 'completed', 'and it runs');
	is(sql($state), 'healthy|||f', 'the drain is gone');
	sql(q{UPDATE cm_hosts SET is_active = false WHERE name = 'local'});
	is(sql($state), 'drained|configuration|is_active is false|f', 'is_active = false');
	is(sql(q{SELECT cm_enable_host('local')}), 't', 'is undone by cm_enable_host');
	sql('DROP OWNED BY operator; DROP ROLE operator');
	return;
}

sub renamed_and_removed
{
	$node->add_host('second', $engine->url);
	my $job = sleeping_job(q{host => 'second'});
	like(refusal($_), qr/^55000: host "second" cannot be (?:removed|renamed): it has unfinished jobs.*1 unfinished job.*HINT:.*cm_disable_host\('second'\)/s, "with a running job: $_")
	  for q{SELECT cm_remove_host('second')}, q{DELETE FROM cm_hosts WHERE name = 'second'}, q{UPDATE cm_hosts SET name = 'other' WHERE name = 'second'};
	like(refusal(q{UPDATE cm_hosts SET connection_string = 'unix:///elsewhere' WHERE name = 'second'}), qr/^55000: connection_string of host "second" cannot be changed: jobs run there/, 'nor is its address changed');
	like(refusal('TRUNCATE cm_hosts'), qr/^55000: cm_hosts cannot be truncated/, 'nor all truncated');
	sql(q{SELECT cm_disable_host('second', 'going')});
	my $waiting = $node->submit(q{'busybox:test', 'true', host => 'second'});
	cancel($job);
	like(refusal($_), qr/^55000: host "second" cannot be/, "with a waiting job: $_")
	  for q{SELECT cm_remove_host('second')}, q{UPDATE cm_hosts SET name = 'other' WHERE name = 'second'};
	cancel($waiting);

	sql(q{UPDATE cm_hosts SET name = 'third' WHERE name = 'second'});
	is(sql(q{SELECT state, drain_reason, engine_version IS NOT NULL FROM cm_host_status WHERE name = 'third'}), 'drained|going|t', 'renamed: drain and state go along');
	sql(q{SELECT cm_enable_host('third')});
	my $after = $node->submit(q{'busybox:test', 'echo third', host => 'third'});
	is($node->job_wait($after), 'completed', 'it runs jobs by its new name');
	is(sql("SELECT host FROM cm_jobs WHERE id IN ($job, $after) ORDER BY id"), "second\nthird", 'those that are over keep the old one');
	sql(q{SELECT cm_disable_host('third')});
	is(sql(q{SELECT cm_remove_host('third')}), 't', 'cm_remove_host');
	is(sql(q{SELECT (SELECT count(*) FROM cm_hosts WHERE name = 'third') + (SELECT count(*) FROM cm_internal.host_drains)}), 0, 'nothing of it is left');
	ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.host_states s WHERE NOT EXISTS (SELECT FROM cm_hosts h WHERE h.id = s.host_id)', 0), 'nor of its state');
	is(sql("SELECT host, status, rtrim(cm_job_output(id), E'\\n') FROM cm_jobs WHERE id = $after"), 'third|completed|third', 'its jobs are kept, with its name');
	is(sql("SELECT host FROM cm_job_attempts WHERE job_id = $after"), 'third', 'and their attempts');
	$node->add_host('third', $engine->url);
	is(sql(q{SELECT drain_reason IS NULL FROM cm_host_status WHERE name = 'third'}), 't', 'added again it is not drained');
	is($node->job_wait($node->submit(q{'busybox:test', 'true', host => 'third'})), 'completed', 'and runs jobs');
	is(sql(q{DELETE FROM cm_hosts WHERE name = 'third' RETURNING name}), 'third', 'DELETE');
	return;
}
