# Health of hosts: what is known of those that answer, and that an idle one costs
# no writes; hosts that hang beside hosts that answer; a host that fails and is
# back; one that is disabled for having failed too long; another engine under the
# URL of one whose jobs are not over; an engine that lacks what its host requires.
use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use File::Temp ();
use IO::Select;
use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);
use Test::More;

my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
my $folder = File::Temp->newdir(TEMPLATE => 'sockXXXX', TMPDIR => 1);
chmod 0755, $folder;
my $link = "$folder/engine";    # leads to one engine or another

facts();
others_hang();
fails_and_is_back();
disabled();
strangers();
without_userns();
report();

is(sql('SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL'), 0, 'every job is over');
$node->stop('fast');
done_testing();

# ------------------------------------------------------- tools

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub wait_in { my ($sql, $expected, $what) = @_; return ok($node->wait_for_sql($sql, $expected), $what); }

sub shown { my ($host, $columns) = @_; return sql("SELECT $columns FROM cm_host_status WHERE name = '$host'"); }

sub wait_shown
{
	my ($host, $columns, $expected, $what) = @_;
	return wait_in("SELECT $columns FROM cm_host_status WHERE name = '$host'", $expected, $what);
}

sub why { my ($job) = @_; return sql("SELECT explanation FROM cm_job_explain($job) WHERE item = 'why'"); }

sub running
{
	my ($host) = @_;
	my $job = $node->submit("'busybox:1', 'sleep 600', host => '$host'");
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

sub remove
{
	my ($host) = @_;
	is(sql("SELECT cm_remove_host('$host')"), 't', "$host is removed");
	return;
}

# ------------------------------------------------------- what is known of it

sub facts
{
	my $fake = CM::FakeEngine->start(
		cpus => 3,
		memory => 5 << 30,
		engine_version => '27.1.1',
		info => {
			ID => "A\x{1b}[31m B",
			ContainersPaused => 4,
			ContainersStopped => -5,
			Images => 7,
			Driver => 'zfs',
			DriverStatus => [ [ 'Zpool', 'rpool' ], ['odd'], 'odder', [ 'Space Available', '123456789012' ] ],
			SecurityOptions => [ 'name=apparmor', 7, undef, 'x' x 1000, "name=seccomp,profile=builtin\nname=userns" ],
			Warnings => [ map { "warning $_ " . 'y' x 220 } 1 .. 50 ],
			LiveRestoreEnabled => JSON::PP::true,
			ExperimentalBuild => 'yes',
		});
	$node->add_host('facts', $fake);
	wait_shown('facts', 'state, health', 'healthy|healthy', 'a host is healthy');
	is(shown('facts', 'cpus, memory, engine_version, containers_running, containers_paused, containers_stopped, images, disk_free, storage_driver, engine_id'),
		"3|5368709120|27.1.1|0|4|0|7|123456789012|zfs|A [31m B", 'what it tells');
	is(shown('facts', q{security_options[1], cardinality(security_options) = 3, array_to_string(security_options, ',') LIKE '%name=seccomp,profile=builtin name=userns'}),
		'name=apparmor|t|t', 'a line stays one, and is cut');
	is(sql(q{SELECT cardinality(warnings) < 10, live_restore, experimental FROM cm_internal.host_states}), 't|t|f', 'warnings are bounded');
	wait_in(q{SELECT count(*) FROM cm_host_status WHERE response_ms > 0 AND failures = 0 AND last_checked > since}, 1, 'how fast, and when');

	# Three looks later nothing has been written.
	my $row = sql('SELECT ctid, xmin FROM cm_internal.host_states');
	for my $i (1 .. 4)
	{
		my $before = shown('facts', 'last_checked');
		wait_shown('facts', "last_checked > '$before'", 't', "look $i");
	}
	is(sql('SELECT ctid, xmin FROM cm_internal.host_states'), $row, 'while nothing changes, nothing is written');

	my $job = running('facts');
	wait_shown('facts', 'containers_running', 1, 'its containers are counted');
	cancel($job);
	sql('SELECT cm_stop_executor()');
	is(shown('facts', 'state, health, last_checked IS NULL, response_ms IS NULL, images'), 'unknown|unknown|t|t|7', 'without an executor');
	sql('SELECT cm_start_executor()');
	remove('facts');
	return;
}

# ------------------------------------------------------- 20 hosts, 10 hang

sub others_hang
{
	my $fake = CM::FakeEngine->start;
	my @hung;
	for my $i (0 .. 9)
	{
		my $path = "$folder/hung$i";
		push @hung, IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path, Listen => 100) // die "could not bind: $!\n";
		symlink $fake->socket, "$folder/good$i" or die "could not link: $!\n";
	}
	sql(join ';', map { ("SELECT cm_add_host('hung$_', 'unix://$folder/hung$_')", "SELECT cm_add_host('good$_', 'unix://$folder/good$_')") } 0 .. 9);
	wait_in(q{SELECT count(*) FROM cm_host_status WHERE state = 'healthy'}, 10, 'those that answer are healthy');
	my @jobs = map { $node->submit("'busybox:1', 'true', host => 'good$_'") } 0 .. 9;
	is($node->job_wait($_), 'completed', "job $_ runs meanwhile") for @jobs;
	is(sql(q{SELECT count(*) FROM cm_host_status WHERE name LIKE 'hung%' AND state <> 'healthy' AND running + launching = 0}), 10, 'those that hang get no jobs');
	wait_in(q{SELECT count(*) FROM cm_host_status WHERE name LIKE 'hung%' AND state = 'unhealthy' AND error LIKE '%timed out%' AND failures > 0 AND response_ms IS NULL},
		10, 'and are unhealthy in the end');

	is(sql(q{SELECT string_agg(host || ok, ' ' ORDER BY host) FROM cm_check_hosts('1 s')}),
		join(' ', (map { "good${_}true" } 0 .. 9), map { "hung${_}false" } 0 .. 9), 'cm_check_hosts');
	is(sql(q{SELECT count(*) FROM cm_check_host('good?')}), 10, 'cm_check_host by pattern');
	is(sql(q{SELECT count(*) FROM cm_check_host('g*1')}), 1, 'likewise');

	# Nobody else connects then; so all are asked before any has answered.
	sql('SELECT cm_stop_executor()');
	for my $socket (@hung)
	{
		my $select = IO::Select->new($socket);
		close $socket->accept while $select->can_read(0);
	}
	my $session = $node->session;
	$session->query_until(qr/sent/, "\\echo sent\nSELECT 'ok ' || count(*) FILTER (WHERE ok) || ' of ' || count(*) FROM cm_check_hosts('1 h');\n");
	my @asked;
	for my $socket (@hung)
	{
		push @asked, scalar $socket->accept if IO::Select->new($socket)->can_read($CM::Cluster::patience);
	}
	is(scalar @asked, 10, 'all of them are asked at the same time');
	close $_ for @asked;
	like($session->query('SELECT 1'), qr/ok 10 of 20/, 'and the answer is there when the last has ended');
	$session->quit;
	sql(q{SELECT cm_remove_host(name) FROM cm_hosts});
	is(sql('SELECT count(*) FROM cm_check_hosts()'), 0, 'no hosts: no answers');
	sql('SELECT cm_start_executor()');
	return;
}

# ------------------------------------------------------- fails, and is back

sub fails_and_is_back
{
	my $fake = CM::FakeEngine->start;
	$node->add_host('weak', $fake);
	wait_shown('weak', 'state', 'healthy', 'healthy');
	$fake->close_door;
	$fake->drop_events;
	wait_shown('weak', q{state, failures >= 3, error LIKE '%connection refused%' OR error LIKE '%no such file%'}, 'unhealthy|t|t', 'it fails, is tried again, and again');
	my $job = $node->submit(q{'busybox:1', 'true', host => 'weak'});
	is(why($job), 'It waits: host "weak" unhealthy.', 'it gets no jobs');
	my $since = shown('weak', 'since');
	$fake->open_door;
	is($node->job_wait($job), 'completed', 'it is back by itself');
	wait_shown('weak', "state, failures, error IS NULL, since > '$since'", 'healthy|0|t|t', 'and healthy');
	remove('weak');
	return;
}

# ------------------------------------------------------- disabled

sub disabled
{
	my $fake = CM::FakeEngine->start;
	$node->add_host('bad', $fake);
	my $job = running('bad');
	sql(q{ALTER SYSTEM SET container_manager.disable_unhealthy_after = '1s'; SELECT pg_reload_conf()});
	$fake->close_door;
	$fake->drop_events;
	wait_shown('bad', 'state, health, drained_by', 'drained|unhealthy|container_manager', 'unhealthy for too long: disabled');
	like(shown('bad', 'drain_reason'), qr/^unhealthy since \d{4}-.*: .*(?:refused|no such file)/, 'why');
	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'its job waits');
	$fake->open_door;
	wait_shown('bad', 'state, health', 'drained|healthy', 'it is back, and stays disabled');
	my $other = $node->submit(q{'busybox:1', 'true', host => 'bad'});
	is(why($other), 'It waits: host "bad" drained.', 'it gets no jobs');
	is(sql(q{SELECT cm_enable_host('bad')}), 't', 'somebody enables it');
	is($node->job_wait($other), 'completed', 'and it gets jobs');
	cancel($job);
	sql(q{ALTER SYSTEM RESET container_manager.disable_unhealthy_after; SELECT pg_reload_conf()});
	remove('bad');
	return;
}

# ------------------------------------------------------- another engine

# While nobody holds a connection.
sub lead_to
{
	my ($engine) = @_;
	sql('SELECT cm_stop_executor()');
	unlink $link;
	symlink $engine->socket, $link or die "could not link: $!\n";
	sql('SELECT cm_start_executor()');
	return;
}

sub strangers
{
	my %engine = map { $_ => CM::FakeEngine->start(info => { ID => "ID-$_" }) } 'a', 'b';
	lead_to($engine{a});
	sql("SELECT cm_add_host('moved', 'unix://$link')");
	wait_shown('moved', 'state, engine_id', 'healthy|ID-a', 'engine a');
	is(sql(q{SELECT cm_accept_engine('moved')}), 'f', 'there is nothing to accept');
	lead_to($engine{b});
	wait_shown('moved', 'state, engine_id', 'healthy|ID-b', 'without jobs, any engine will do');
	my $job = running('moved');
	my $retried = $node->submit(q{'busybox:1', 'sleep 600', host => 'moved', max_attempts => 3});
	is($node->job_wait($retried, status => 'running|failed'), 'running', 'two jobs run');

	lead_to($engine{a});
	wait_shown('moved', 'state', 'unhealthy', 'another engine, while jobs are on the first');
	is(shown('moved', 'error'), 'another engine answers there: its ID is ID-a, and 2 unfinished jobs are on that with ID ID-b', 'it is told');
	like(shown('moved', 'hint'), qr/Bring that engine back; or, .* SELECT cm_accept_engine\('moved'\)/, 'with what to do');
	my $pinned = $node->submit(q{'busybox:1', 'true', host => 'moved'});
	wait_shown('moved', 'failures > 3', 't', 'it is tried again');
	is(sql("SELECT string_agg(status, ' ' ORDER BY id) FROM cm_jobs WHERE id IN ($job, $retried, $pinned)"), 'running running pending', 'nothing is lost');
	is($engine{a}->state->{creates}, 0, 'nothing is started');

	lead_to($engine{b});
	is($node->job_wait($pinned), 'completed', 'the right one is back: jobs run');
	wait_in("SELECT string_agg(status || attempt, ' ') FROM cm_jobs WHERE id IN ($job, $retried) AND detail IS NULL", 'running1 running1', 'and those that were there go on');

	lead_to($engine{a});
	wait_shown('moved', 'state', 'unhealthy', 'the other one again');
	is(sql(q{SELECT cm_accept_engine('moved'); SELECT cm_accept_engine('moved')}), "t\nf", 'it is accepted');
	is($node->job_wait($job), 'failed', 'what ran on the first is lost');
	is(sql("SELECT failure_reason FROM cm_jobs WHERE id = $job"), 'infrastructure', 'as infrastructure');
	wait_in("SELECT status, attempt FROM cm_jobs WHERE id = $retried", 'running|2', 'or is tried again, where it may be');
	wait_shown('moved', 'state, engine_id, error IS NULL', 'healthy|ID-a|t', 'it is healthy');
	is($engine{a}->state->{starts}, 1, 'one start there');

	lead_to($engine{b});
	wait_shown('moved', 'state', 'unhealthy', 'and back: that was not accepted');
	is(sql("SELECT cm_abandon_job($retried, 'gone')"), 't', 'its job is given up');
	is($node->job_wait($retried), 'failed', 'it fails');
	wait_shown('moved', 'state, engine_id', 'healthy|ID-b', 'then the engine is as good as any');
	is($engine{b}->state->{starts}, 3, 'nothing was started twice');
	remove('moved');
	return;
}

# ------------------------------------------------------- require_userns

sub without_userns
{
	my $fake = CM::FakeEngine->start(images => [], pull_ms => 1);
	my $held = $fake->fault(method => 'POST', path => '/images/create', hold => JSON::PP::true);
	$node->add_host('mapped', $fake, q{executor_config => '{"require_userns": true}'});
	wait_shown('mapped', 'state, health, drained_by', 'drained|healthy|configuration', 'an engine without user namespaces');
	is(shown('mapped', 'drain_reason'), 'require_userns is set, and its engine has no user namespaces', 'why');
	my $job = $node->submit(q{'busybox:1', 'true', host => 'mapped'});
	is(why($job), 'It waits: host "mapped" drained.', 'jobs wait');
	$fake->set(info => { SecurityOptions => [ 'name=seccomp,profile=default', 'name=userns' ] });
	wait_in("SELECT status FROM cm_jobs WHERE id = $job", 'launching', 'with them it is taken');
	ok($fake->wait_for('held', 1), 'its image is being pulled');
	$fake->set(info => {});
	wait_shown('mapped', 'state', 'drained', 'they are gone');
	$fake->clear_faults($held);
	is($node->job_wait($job), 'failed', 'it is not started');
	is(sql("SELECT failure_reason || ': ' || error FROM cm_jobs WHERE id = $job"),
		'policy: not started on host "mapped": its engine has no user namespaces, and require_userns is set for it', 'as policy');
	is($fake->state->{starts}, 0, 'nothing was started');
	sql(q{UPDATE cm_hosts SET executor_config = '{}' WHERE name = 'mapped'});
	is($node->job_wait($node->submit(q{'busybox:1', 'true', host => 'mapped'})), 'completed', 'without the requirement it is');
	remove('mapped');
	return;
}

# ------------------------------------------------------- security report

sub report
{
	my %info = (
		bare => { SecurityOptions => [], ExperimentalBuild => JSON::PP::true, Warnings => ['WARNING: API is accessible on http://0.0.0.0:2375 without encryption.'] },
		safe => { SecurityOptions => [ 'name=apparmor', 'name=seccomp,profile=builtin', 'name=userns' ], LiveRestoreEnabled => JSON::PP::true },
	);
	my %fake = map { $_ => CM::FakeEngine->start(info => $info{$_}, engine_version => $_ eq 'safe' ? '28.0.1' : '20.10.24') } keys %info;
	$node->add_host('bare', $fake{bare}, 'max_concurrent_jobs => 51');
	$node->add_host('safe', $fake{safe});
	wait_shown($_, 'state', 'healthy', "$_ is healthy") for 'bare', 'safe';
	is($node->job_wait($node->submit(q{'busybox:1', 'true', host => 'bare', read_only => false, memory_limit => 1025, cpu_limit => 2})), 'completed', 'a job');
	my $of = q{SELECT string_agg(finding || ' ' || severity, E'\n') FROM cm_host_security_report('%s')};
	is(sql(sprintf $of, 'safe'), join("\n", 'rootless info', map { "$_ ok" } qw(address apparmor engine_version experimental live_restore seccomp slots userns)), 'a safe one');
	is(sql(sprintf $of, 'bare'), join("\n", (map { "$_ critical" } 'engine warning', 'seccomp'),
			(map { "$_ warning" } qw(apparmor engine_version experimental slots userns)),
			(map { "$_ info" } qw(limits live_restore read_only rootless)), 'address ok'), 'a bare one');
	is(sql(q{SELECT explanation FROM cm_host_security_report('b*') WHERE finding = 'limits'}),
		'Of 1 job(s) in seven days, 1 with more than 1024 MB, 0 with more than 2 CPUs, 0 with more than an hour. None was without limits.', 'recent jobs');
	is(sql(q{SELECT count(*) FROM cm_host_security_report() WHERE severity <> 'ok' AND advice IS NULL}), 0, 'each has advice');
	remove($_) for 'bare', 'safe';
	return;
}
