# A fast shutdown of the server with jobs running and a host that hangs: it ends
# within seconds, without an immediate stop; what runs on the hosts runs on, is
# taken up after the start, and comes to its end as if nothing had happened.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::FakeEngine;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;
my $n_real = 20;
my $n_fake = 50;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $fake = CM::FakeEngine->start;
my $hanging = CM::FakeEngine->start;
my $node = CM::Cluster->new_with_extension('main');
$node->add_host('real', $engine, 'max_concurrent_jobs => 100');
$node->add_host('fake', $fake, 'max_concurrent_jobs => 100');
$node->add_host('hanging', $hanging);

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# Jobs that print, wait until they are released, print again, and end with an
# exit code of their own.  The fake's are released by the test.
sub submit_all
{
	sql("SELECT cm_submit_job('busybox:test', format('echo begun %s; until [ -e /tmp/go ]; do sleep 0.3; done; echo over %s; exit %s', n, n, n),"
		  . " name => 'real ' || n, host => 'real', memory_limit => 16, cpu_limit => 0.1) FROM generate_series(1, $n_real) n");
	sql("SELECT cm_submit_job('any:1', 'sleep infinity', name => 'fake ' || n, host => 'fake') FROM generate_series(1, $n_fake) n");
	return;
}

sub running { my ($host) = @_; return "SELECT count(*) FROM cm_jobs WHERE status = 'running' AND host = '$host'"; }

sub containers_of_real { return $engine->containers(label => 'container-manager.kind=job'); }

# A host that takes connections and answers nothing, in the middle of a launch.
sub hang
{
	$hanging->fault(method => 'POST', path => '/containers/create', hang => 1, times => 1);
	sql("SELECT cm_submit_job('any:1', 'echo x', name => 'hanging', host => 'hanging')");
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE name = 'hanging'", 'launching'), 'a job is being launched');
	$hanging->pause;
	return;
}

sub stop_fast
{
	my $log = -s $node->logfile;
	my $begun = time;
	# Dies if the server is not down after pg_ctl's own patience.
	$node->stop('fast');
	my $took = time - $begun;
	# The hanging host's call would last for two minutes.
	cmp_ok($took, '<', 100, 'a fast shutdown waits for no host');
	note("it took $took s");
	my $said = substr(slurp_file($node->logfile), $log);
	like($said, qr/received fast shutdown request.*database system is shut down/s, 'in order');
	unlike($said, qr/immediate shutdown|SIGKILL|terminated by signal|PANIC/, 'without force');
	return;
}

sub run_on
{
	is(scalar(grep { $_->{State} eq 'running' } containers_of_real()), $n_real, 'the containers run on');
	is($fake->state->{running}, $n_fake, 'those of the fake, too');
	return;
}

# Some end while the server is away, the others after it is back.
sub end_half
{
	my ($rest) = @_;
	my @containers = containers_of_real();
	@containers = @containers[ 0 .. $n_real / 2 - 1 ] unless $rest;
	for my $container (grep { $_->{State} eq 'running' } @containers)
	{
		$engine->docker('exec', $container->{Id}, 'touch', '/tmp/go');
	}
	my $all = $fake->state->{containers};
	my @names = grep { $all->{$_}{status} eq 'running' } sort keys %$all;
	@names = @names[ 0 .. $n_fake / 2 - 1 ] unless $rest;
	$fake->end_container($_, $all->{$_}{labels}{'container-manager.job'} % 200) for @names;
	return;
}

sub ended_right
{
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL AND name <> 'hanging'", 0), 'all come to their end');
	is(sql("SELECT count(*) FROM cm_jobs WHERE host = 'real' AND name = 'real ' || exit_code AND attempt = 1"
			  . " AND status = 'failed' AND failure_reason = 'exit_code' AND NOT logs_incomplete"),
		$n_real, 'with their exit codes')
	  or diag(sql("SELECT id, name, status, failure_reason, exit_code, error FROM cm_jobs WHERE host = 'real'"));
	is(sql("SELECT count(*) FROM cm_jobs WHERE host = 'real'"
			  . " AND cm_job_output(id) = format(E'begun %s\\nover %s\\n', exit_code, exit_code)"),
		$n_real, 'and all of their output')
	  or diag(sql("SELECT id, name, cm_job_output(id) FROM cm_jobs WHERE host = 'real'"));
	is(sql("SELECT count(*) FROM cm_jobs WHERE host = 'fake' AND attempt = 1 AND exit_code = id % 200"), $n_fake, 'those of the fake host, too')
	  or diag(sql("SELECT id, status, failure_reason, exit_code, error FROM cm_jobs WHERE host = 'fake'"));
	is_deeply($fake->state->{started_twice}, [], 'none was started twice');
	is($fake->state->{creates}, $n_fake, 'nor made twice');
	is(sql("SELECT count(*) FROM (SELECT job_id FROM cm_job_events WHERE status = 'running' GROUP BY job_id HAVING count(*) > 1) x"),
		0, 'nor recorded as started twice');
	ok(wait_until(sub { !containers_of_real() }), 'no container is left');
	ok(wait_until(sub { !%{ $fake->state->{containers} } }), 'nor on the fake');
	return;
}

sub wait_until
{
	my ($condition) = @_;
	my $deadline = time + $CM::Cluster::patience;
	usleep(50_000) until $condition->() || time > $deadline;
	return $condition->();
}

submit_all();
ok($node->wait_for_sql(running('fake'), $n_fake), "$n_fake jobs run on the fake");
ok($node->wait_for_sql(running('real'), $n_real), "$n_real jobs run");
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE host = 'real' AND cm_job_output(id) LIKE 'begun%'", $n_real), 'and have printed');
hang();
stop_fast();
run_on();
end_half();
$node->start;
ok($node->wait_for_sql("SELECT is_running FROM cm_status", 't'), 'the executor is back');
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE completed_at IS NOT NULL", ($n_real + $n_fake) / 2), 'what ended meanwhile is recorded');
stop_fast();
$node->start;
end_half('rest');
ended_right();

# The hanging host comes back: its job is started, and once.
is(sql("SELECT status FROM cm_jobs WHERE name = 'hanging'"), 'launching', 'the job on the hanging host still waits');
$hanging->resume;
is($node->job_wait(sql("SELECT id FROM cm_jobs WHERE name = 'hanging'")), 'completed', 'and runs when the host is back');
is_deeply($hanging->state->{started_twice}, [], 'once');

$node->stop;
done_testing();
