# Calls whose fate is not known: the reply to a create or a start is cut or never
# comes, whether the engine carried it out or not, and the executor may be killed
# right then.  Each job runs exactly once all the same.  And a host that is away
# while its jobs run: they wait, say so, and end as the host tells afterwards.
#
# On fake engines, one for each case, which count the starts of each container.
use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub wait_until
{
	my ($condition) = @_;
	my $deadline = time + $CM::Cluster::patience;
	my $is_so;
	until ($is_so = $condition->() or time > $deadline) { usleep(20_000) }
	return $is_so;
}

sub submit
{
	my ($host, $environment) = @_;
	return $node->submit("'x', args => '{x}', host => '$host', environment => '$environment'");
}

# ------------------------------------------------------- cut and hanging replies

my %fault = (
	lost_before => { close_after_request => 1 },
	lost_after => { close_after_request => 1, effect => JSON::PP::true },
	torn => { half_body => 1 },
	garbled => { garbage => 1, effect => JSON::PP::true },
	hangs_before => { hang => 1 },
	hangs_after => { hang => 1, effect => JSON::PP::true });
# The answer to start has no body that could be torn.
my @cases = grep { $_ ne 'start_torn' } map { my $verb = $_; map { "${verb}_$_" } sort keys %fault } qw(create start);
my %fake = map { $_ => CM::FakeEngine->start } @cases;
$node->add_host($_, $fake{$_}) for @cases;

sub begin_round
{
	my %job;
	for (@cases)
	{
		my ($verb, $fault) = /^(create|start)_(\w+)$/;
		$fake{$_}->fault(method => 'POST', path => "/$verb\$", times => 1, %{ $fault{$fault} });
		$job{$_} = submit($_, '{"FAKE_RUN_MS": "200", "FAKE_EXIT": "5", "FAKE_STDOUT": "one\ntwo\n"}');
	}
	for my $case (@cases)
	{
		ok(wait_until(sub { !%{ $fake{$case}->state->{faults} } }), "$case: request is sent");
	}
	return %job;
}

sub check_round
{
	my ($round, %job) = @_;
	for my $case (@cases)
	{
		my $id = $job{$case};
		$node->job_wait($id);
		is(value("SELECT status, failure_reason, exit_code, attempt, cm_job_output(id) FROM cm_jobs WHERE id = $id"),
			"failed|exit_code|5|1|one\ntwo\n", "$round, $case: ended as it did")
		  or diag(value("SELECT detail, error FROM cm_jobs WHERE id = $id"));
		is(value("SELECT string_agg(status, ' ' ORDER BY seq) FROM cm_job_events WHERE job_id = $id"),
			'launching running failed', "$round, $case: events");
		ok(wait_until(sub { !%{ $fake{$case}->state->{containers} } }), "$round, $case: no container is left");
		my %starts = %{ $fake{$case}->state->{starts_by_name} };
		my ($name) = grep { /^cm-default-$id-/ } keys %starts;
		is(join(' ', grep { /^cm-default-$id-/ } map { "$_ $starts{$_}" } sort keys %starts), "$name 1", "$round, $case: started once");
	}
	return;
}

# A reply that never comes is given up with the connection.
my %job = begin_round();
for my $case (grep { /hangs/ } @cases)
{
	$fake{$case}->close_door;
	$fake{$case}->open_door;
}
check_round('executor lives', %job);

%job = begin_round();
my $pid = $node->executor_pid;
kill 'KILL', $pid;
ok($node->wait_for_sql("SELECT count(*) FROM cm_status WHERE executor_pid <> $pid AND is_running", 1), 'executor killed: another one works');
check_round('executor killed', %job);

# ------------------------------------------------------- a host is away

my $away = $fake{create_lost_before};
my $host = 'create_lost_before';
my @runs = map { submit($host, '{"FAKE_RUN_MS": "600000"}') } 1 .. 3;
$node->job_wait($_, status => 'running') for @runs;
$away->close_door;
my $ids = join ',', @runs;
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($ids) AND status = 'running' AND detail LIKE 'host unreachable since 20%'", 3),
	'host away: its jobs run on and say so');
like(value("SELECT why FROM cm_ps WHERE id = $runs[0]"), qr/^host unreachable since/, 'host away: in cm_ps');
like(value("SELECT explanation FROM cm_job_explain($runs[0]) WHERE item = 'why'"), qr/host unreachable since/, 'host away: explained');
like(value("SELECT explanation FROM cm_job_explain($runs[0]) WHERE item = 'advice'"), qr/does not answer/, 'host away: advice');
my $waits = submit($host, '{"FAKE_EXIT": "0"}');
like(value("SELECT explanation FROM cm_job_explain($waits) WHERE item = 'why'"), qr/It waits: .*unhealthy/,
	'host away: a new job waits and says why');

# One ends meanwhile, one is cancelled, one runs on.
$away->end_container(value("SELECT container_id FROM cm_jobs WHERE id = $runs[0]"), 7);
is(value("SELECT cm_cancel_job($runs[1])"), 't', 'host away: a job is cancelled');
ok($node->wait_for_sql("SELECT detail FROM cm_jobs WHERE id = $runs[1]", 'cancelling when the host answers'), 'host away: that waits for the host');
kill 'KILL', $node->executor_pid;
ok($node->wait_for_sql("SELECT count(*) FROM cm_status WHERE is_running", 1), 'host away: executor killed, another one works');
is(value("SELECT count(*) FROM cm_jobs WHERE id IN ($ids) AND status = 'running'"), 3, 'host away: all run on for all that is known');
$away->open_door;
is($node->job_wait($runs[0]), 'failed', 'host back: the end is picked up');
is(value("SELECT failure_reason, exit_code FROM cm_jobs WHERE id = $runs[0]"), 'exit_code|7', 'host back: as it was');
is($node->job_wait($runs[1]), 'cancelled', 'host back: cancelled');
is($node->job_wait($waits), 'completed', 'host back: what waited runs');
ok($node->wait_for_sql("SELECT status, detail IS NULL FROM cm_jobs WHERE id = $runs[2]", 'running|t'), 'host back: a job runs on and says nothing');
$away->end_container(value("SELECT container_id FROM cm_jobs WHERE id = $runs[2]"), 0);
is($node->job_wait($runs[2]), 'completed', 'host back: it ends');
is_deeply($away->state->{started_twice}, [], 'host back: nothing was started twice');

is(value('SELECT count(*) FROM cm_internal.queue'), 0, 'queue is empty');
is(value('SELECT last_error FROM cm_status'), '', 'the executor met no error');
done_testing();
