# Maintenance of hosts: disabled with a reason, drained and waited for, several at
# once by pattern, enabled again; removed with running jobs, by force, from engines
# that answer and that do not.  The jobs' history stays.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::FakeEngine;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_with_extension('main',
	'container_manager.heartbeat_interval' => '1s',
	'container_manager.stop_grace' => '1s');

drained();
refused();
several();
removed();
removed_silent();
undone();

is(sql('SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL'), 0, 'every job is over');
is(scalar $engine->containers, 0, 'no container is left');
$node->stop('fast');
done_testing();

# ------------------------------------------------------- tools

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub wait_in { my ($sql, $expected, $what) = @_; return ok($node->wait_for_sql($sql, $expected), $what); }

# The error of a statement that must fail: SQLSTATE, message and the rest.
sub refusal
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $status == 0 ? "no error: $stdout" : $stderr =~ s/\A.*?ERROR:\s*//sr;
}

# Runs until it finds /tmp/go.
sub running
{
	my ($host) = @_;
	my $job = $node->submit("'busybox:test', 'until [ -e /tmp/go ]; do sleep 0.1; done', host => '$host'");
	is($node->job_wait($job, status => 'running|failed'), 'running', "job $job runs on $host");
	return $job;
}

sub let_go
{
	my ($job) = @_;
	$engine->docker('exec', sql("SELECT container_id FROM cm_jobs WHERE id = $job"), 'touch', '/tmp/go');
	return;
}

# ------------------------------------------------------- one host

sub drained
{
	$node->add_host('one', $engine);
	my ($first, $second) = (running('one'), running('one'));
	is(sql(q{SELECT cm_disable_host('one', 'new kernel')}), 't', 'disabled');
	is(sql(q{SELECT cm_wait_host_drained('one', '0')}), 'f', 'not drained yet');
	is(sql(q{SELECT cm_add_host('one', connection_string, if_exists => 'update') > 0 FROM cm_hosts}), 't', 'the configuration is applied again');
	my $url = $engine->url;
	sql(qq{SELECT cm_add_host('one', '$url', max_concurrent_jobs => 5, if_exists => 'update')});
	my $waiting = $node->submit(q{'busybox:test', 'true', host => 'one'});
	let_go($first);
	is($node->job_wait($first), 'completed', 'one job ends');
	is(sql("SELECT status FROM cm_jobs WHERE id = $waiting"), 'pending', 'its slot is given to nobody');
	is(sql(q{SELECT state, drain_reason, running FROM cm_host_status}), 'drained|new kernel|1', 'for it stays disabled');
	my $function = $node->session;
	my $procedure = $node->session;
	$function->query_until(qr/sent/, "\\echo sent\nSELECT 'drained ' || cm_wait_host_drained('one', '1 h');\n");
	$procedure->query_until(qr/sent/, "\\echo sent\nCALL cm_await_host_drained('o*', '1 h');\n");
	wait_in(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE '%host_drained%' AND state = 'active' AND pid <> pg_backend_pid()},
		2, 'two sessions wait');
	is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL cm_await_host_drained%' AND backend_xmin IS NULL}), 1, 'CALL holds no snapshot');
	let_go($second);
	like($function->query('SELECT 1'), qr/drained true/, 'cm_wait_host_drained');
	like($procedure->query('SELECT 1'), qr/^t$/m, 'cm_await_host_drained');
	$_->quit for $function, $procedure;
	is(sql("SELECT count(*) FROM cm_internal.queue WHERE host_id IS NOT NULL"), 0, 'nothing runs there');
	is(sql(q{SELECT cm_wait_host_drained('one')}), 't', 'drained it is at once');
	is(sql(q{SELECT cm_enable_host('one')}), 't', 'enabled');
	is($node->job_wait($waiting), 'completed', 'what waited runs');
	return;
}

sub refused
{
	like(refusal(q{SELECT cm_wait_host_drained('one')}), qr/^55000: host "one" is not disabled.*HINT:.*cm_disable_host\('one'\)/s, 'not disabled');
	like(refusal(q{BEGIN; SELECT cm_disable_host('one'); SELECT cm_wait_host_drained('one')}), qr/^55000: host "one" was disabled by this transaction/, 'not committed');
	like(refusal(q{BEGIN; UPDATE cm_hosts SET is_active = false WHERE name = 'one'; SELECT cm_wait_host_drained('one')}),
		qr/^55000: host "one" was disabled by this transaction/, 'nor by UPDATE');
	like(refusal(q{SELECT cm_wait_host_drained('two')}), qr/^42704: host "two" does not exist/, 'no such host');
	like(refusal(q{SELECT cm_wait_host_drained('t*')}), qr/^42704: no host matches "t\*"/, 'nor such hosts');
	like(refusal(q{BEGIN; CALL cm_await_host_drained('one')}), qr/^25001: cm_await_host_drained cannot run in a transaction block/, 'CALL in a transaction');
	sql('CREATE ROLE nobody');
	like(refusal("SET ROLE nobody; $_"), qr/^42501: permission denied for (?:function|procedure)/, "not for everybody: $_")
	  for q{SELECT cm_wait_host_drained('one')}, q{CALL cm_await_host_drained('one')}, q{SELECT cm_check_hosts()}, q{SELECT cm_host_security_report()},
	  q{SELECT cm_accept_engine('one')};
	return;
}

# ------------------------------------------------------- several

sub several
{
	$node->add_host($_, $engine) for 'staging-1', 'staging-2', 'staging_3', 'Staging-4', 'prod';
	my $drained = q{SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM cm_host_status WHERE state = 'drained'};
	is(sql(q{SELECT cm_disable_host(name_pattern => 'staging-*', reason => 'move')}), 't', 'a pattern');
	is(sql($drained), 'staging-1 staging-2', 'means what it matches: _ and case count');
	is(sql(q{SELECT cm_disable_host('staging?3')}), 't', 'also in place of the name');
	is(sql($drained), 'staging-1 staging-2 staging_3', 'one more');
	is(sql(q{SELECT cm_wait_host_drained('staging*')}), 't', 'all are drained');
	is(sql(q{SELECT cm_enable_host(name_pattern => 'staging-?')}), 't', 'enabled');
	is(sql($drained), 'staging_3', 'those two');
	is(sql(q{SELECT cm_enable_host('*'); SELECT cm_enable_host('*')}), "t\nf", 'all');
	is(sql(q{SELECT string_agg(host || ok, ' ' ORDER BY host) FROM cm_check_host('staging-*')}), 'staging-1true staging-2true', 'cm_check_host');
	sql(q{SELECT cm_remove_host(name) FROM cm_hosts WHERE name <> 'one'});
	return;
}

# ------------------------------------------------------- removed

sub removed
{
	$node->add_host('old', $engine);
	my $done = $node->submit(q{'busybox:test', 'echo kept', host => 'old'});
	is($node->job_wait($done), 'completed', 'a job has run there');
	my $job = $node->submit(q{'busybox:test', 'trap "" TERM; while true; do sleep 0.1; done', host => 'old', max_attempts => 5, retry_on => 'any'});
	is($node->job_wait($job, status => 'running|failed'), 'running', 'one runs that does not want to end');
	my $later = $node->submit(q{'busybox:test', 'true', host => 'old', run_at => 'tomorrow'});
	like(refusal(q{SELECT cm_remove_host('old')}), qr/^55000: host "old" cannot be removed: it has unfinished jobs/, 'refused');
	is(sql(q{BEGIN; SELECT cm_remove_host('old', force => true); ROLLBACK; SELECT count(*) FROM cm_internal.host_drains}), "t\n0", 'rolled back');
	is(sql(q{SELECT cm_remove_host('old', force => true)}), 't', 'by force');
	is($node->job_wait($_), 'cancelled', "job $_ is cancelled") for $job, $later;
	wait_in(q{SELECT count(*) FROM cm_hosts WHERE name = 'old'}, 0, 'then the host is removed');
	is(sql(q{SELECT string_agg(d::text, ' ') FROM cm_internal.host_drains d}), '', 'with all that was kept of it');
	is(sql("SELECT string_agg(concat_ws(' ', host, requested_host, status, attempt), ', ' ORDER BY id) FROM cm_jobs WHERE id IN ($done, $job, $later)"),
		'old old completed 1, old old cancelled 1, old old cancelled 0', 'its jobs are kept, with its name');
	is(sql("SELECT string_agg(host, ' ') FROM cm_job_attempts WHERE job_id IN ($done, $job)"), 'old old', 'and their attempts');
	is(sql("SELECT cm_job_output($done) = E'kept\\n'"), 't', 'and their output');
	is(sql(q{SELECT cm_remove_host('one', force => true)}), 't', 'without jobs force is not needed');
	is(sql('SELECT count(*) FROM cm_hosts'), 0, 'and it is removed at once');
	return;
}

sub removed_silent
{
	my $fake = CM::FakeEngine->start;
	$node->add_host('dead', $fake);
	my $job = $node->submit(q{'busybox:1', 'sleep 600', host => 'dead', max_attempts => 5, retry_on => 'any'});
	is($node->job_wait($job, status => 'running|failed'), 'running', 'a job runs');
	$fake->kill9;
	wait_in(q{SELECT state FROM cm_host_status}, 'unhealthy', 'its engine is gone');
	my $waiting = $node->submit(q{'busybox:1', 'true', host => 'dead'});
	is(sql(q{SELECT cm_remove_host('dead', force => true); SELECT cm_remove_host('dead', force => true)}), "t\nf", 'removed by force');
	is($node->job_wait($waiting), 'cancelled', 'what waited is cancelled');
	is($node->job_wait($job), 'failed', 'what ran is given up');
	like(sql("SELECT concat_ws(' ', failure_reason, attempt, host, error) FROM cm_jobs WHERE id = $job"),
		qr/^abandoned 1 dead abandoned by ".+": host "dead" was removed by force and does not answer$/, 'as abandoned');
	wait_in('SELECT count(*) FROM cm_hosts', 0, 'the host is removed');
	return;
}

# While no executor runs, nothing has happened yet.
sub undone
{
	$node->add_host('kept', $engine);
	my $job = running('kept');
	sql('SELECT cm_stop_executor()');
	is(sql(q{SELECT cm_remove_host('kept', force => true)}), 't', 'by force, without an executor');
	is(sql(q{SELECT state, drain_reason FROM cm_host_status}), 'drained|being removed', 'it is to be removed');
	is(sql(q{SELECT cm_disable_host('kept', 'other')}), 'f', 'which is no matter of a reason');
	is(sql(q{SELECT cm_enable_host('kept')}), 't', 'that is undone');
	sql('SELECT cm_start_executor()');
	is($node->job_wait($node->submit(q{'busybox:test', 'true', host => 'kept'})), 'completed', 'it runs jobs');
	let_go($job);
	is($node->job_wait($job), 'completed', 'and the one that ran has gone on');
	return;
}
