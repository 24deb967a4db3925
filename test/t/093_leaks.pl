# What the executor keeps of jobs that are over: nothing.  Its memory is looked at
# between batches of jobs, when it has come to rest, and may not grow with their
# number; its descriptors are as many as before.  `make leaks` runs 20000 jobs and
# holds it to 50 bytes a job; by itself it is a shorter form, which no leak of 1 kB
# a job gets through.
#
# Under the sanitizers only few jobs are run, of many kinds, and then the executor
# ends, which lets LeakSanitizer look (see test/lib/sanitized).
use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use CM::Logs qw(wait_until);
use JSON::PP;
use List::Util qw(sum);
use Test::More;
use Time::HiRes qw(time);

my $n_jobs = $ENV{CM_SANITIZED} ? 200 : $ENV{CM_LEAK_JOBS} // 4000;
my $batch = $n_jobs / 20;
my $is_long = $n_jobs >= 20_000;
# Bytes a job: what a few pages more or less make of it is larger with fewer jobs.
my $bound = $is_long ? 50 : 400;

my $fake = CM::FakeEngine->start;
my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
$node->add_host('fake', $fake, 'max_concurrent_jobs => 50');
my $executor = $node->executor_pid;

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# Bytes of anonymous memory, and open descriptors.
sub resources
{
	open(my $status, '<', "/proc/$executor/status") or die "no process $executor: $!\n";
	my ($kb) = map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$status>;
	my @open = glob "/proc/$executor/fd/*";
	return ($kb * 1024, scalar @open);
}

# Runs to their ends, the removal of their containers included.
my $n_done = 0;

sub run_batch
{
	my ($n) = @_;
	sql("SELECT count(cm_submit_job('x:1', 'echo hello ' || n)) FROM generate_series(1, $n) n");
	$n_done += $n;
	die "jobs do not end\n" unless $node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0);
	die "containers are left\n" unless wait_until('removals', sub { !%{ $fake->state->{containers} } });
	rest();
	return;
}

sub turns { return sql('SELECT turns FROM cm_internal.executor_status()'); }

# Some heartbeats: the executor has given back what a busy time took.
sub rest
{
	my $turns = turns();
	die "the executor takes no turns\n" unless wait_until('heartbeats', sub { turns() > $turns + 8 });
	return;
}

# Of the line through the points by least squares.
sub slope
{
	my (@points) = @_;
	my ($x, $y) = map { my $i = $_; sum(map { $_->[$i] } @points) / @points } 0, 1;
	return sum(map { ($_->[0] - $x) * ($_->[1] - $y) } @points) / sum(map { ($_->[0] - $x)**2 } @points);
}

# ------------------------------------------------------- jobs by the thousand

my $began = time;
my (@points, $fds);
for (1 .. 20)
{
	run_batch($batch);
	my ($bytes, $open) = resources();
	push @points, [ $n_done, $bytes ] if $n_done >= $n_jobs / 4;
	$fds //= $open if $n_done >= $n_jobs / 4;
}
my (undef, $fds_then) = resources();
my $slope = slope(@points);
note sprintf '%d jobs in %.0f s: %.1f bytes a job; RssAnon %d kB at %d jobs, %d kB at %d; %d descriptors, then %d', $n_done, time - $began,
	$slope, $points[0][1] / 1024, $points[0][0], $points[-1][1] / 1024, $points[-1][0], $fds, $fds_then;
SKIP:
{
	skip 'a sanitizer keeps what is freed', 1 if $ENV{CM_SANITIZED};
	cmp_ok($slope, '<', $bound, "under $bound bytes a job");
}
# libcurl keeps up to 16 connections for the next request.
cmp_ok($fds_then, '<=', $fds + 16, 'no descriptors are kept');

# ------------------------------------------------------- the less usual

sub hosts_come_and_go
{
	my @more = map { CM::FakeEngine->start } 1 .. 2;
	my ($before) = resources();
	my $n = $is_long ? 400 : $ENV{CM_SANITIZED} ? 10 : 60;
	$node->add_host('other', $more[0]);
	for my $i (1 .. $n)
	{
		my $url = $more[ $i % 2 ]->url;
		sql("UPDATE cm_hosts SET name = '" . 'other' . $i . "', connection_string = '$url' WHERE name LIKE 'other%'");
	}
	ok($node->wait_for_sql("SELECT name, state FROM cm_host_status WHERE name LIKE 'other%'", "other$n|healthy"), "renamed and moved $n times");
	sql("SELECT cm_remove_host('other$n')");
	ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.host_states', 1), 'and removed');
	note sprintf 'memory %d kB more', ((resources())[0] - $before) / 1024;
	return;
}

sub odd_jobs
{
	my $bad = CM::FakeEngine->start(images => [ 'here:1', 'x:1' ]);
	$node->add_host('odd', $bad);
	$bad->fault(method => 'GET', path => '/containers/json$', strays => 2000, skip => 2, times => 2);
	$bad->fault(method => 'POST', path => '/containers/create$', garbage => 1, times => 1, effect => JSON::PP::true);
	$bad->fault(method => 'GET', path => '/logs$', half_body => 1, times => 2);
	$bad->fault(method => 'POST', path => '/images/create$', times => 1, pieces => [ [ '', qq({"errorDetail":{"message":"no"}}\n), 1 ] ]);
	my @jobs = map { $node->submit("$_, host => 'odd'") } q{'here:1', 'echo one'}, q{'gone:1'}, q{'x:1', environment => '{"FAKE_EXIT": "3"}'},
		q{'x:1', environment => '{"FAKE_START_ERROR": "500 no"}'}, q{'x:1', environment => '{"FAKE_RUN_MS": "600000"}', timeout_seconds => 1},
		q{'x:1', environment => '{"FAKE_OOM": "1"}'}, q{'x:1', environment => '{"FAKE_RUN_MS": "1000", "FAKE_LINES": "20000"}'};
	my $running = $node->submit(q{'x:1', environment => '{"FAKE_RUN_MS": "600000"}', host => 'odd'});
	is($node->job_wait($running, status => 'running'), 'running', 'a job runs');
	sql("SELECT cm_cancel_job($running)");
	$node->job_wait($_) for @jobs, $running;
	is(sql('SELECT count(*) FROM cm_internal.queue'), 0, 'odd jobs end');
	# What is under way when the executor ends.
	$node->submit(q{'x:1', environment => '{"FAKE_RUN_MS": "600000"}', host => 'odd'}) for 1 .. 3;
	ok($bad->wait_for('running', 3), 'some run on');
	$bad->drop_events;
	return;
}

hosts_come_and_go();
odd_jobs();
is($node->executor_pid, $executor, 'it is the same executor');

$node->safe_psql('postgres', 'ALTER SYSTEM SET container_manager.enabled = off');
$node->reload;
ok($node->wait_for_sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor'", 0), 'the executor ends in order');
$node->stop;
done_testing();
