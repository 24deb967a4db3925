# Many jobs at once: slots are never exceeded, the queue's order is kept, and
# neither a slow, hung or full host nor a long queue delays anybody else.  The
# poll comes once an hour here, so that all of it happens by being woken.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::FakeEngine;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = CM::Cluster->new_with_extension('main',
	'container_manager.poll_interval' => '1h',
	'container_manager.heartbeat_interval' => '600s');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Submits so many jobs to a host; more arguments as cm_submit_job has them.
sub submit_many
{
	my ($host, $n, $run_ms, @more) = @_;
	my $arguments = join ', ', "'busybox:test'", "environment => '{\"FAKE_RUN_MS\": \"$run_ms\"}'",
	  (defined $host ? "host => '$host'" : ()), @more;
	return sql("SELECT min(id) || ' ' || max(id) FROM (SELECT cm_submit_job($arguments) AS id"
		  . " FROM generate_series(1, $n) g) s");
}

sub add_fake
{
	my ($name, $slots) = @_;
	my $fake = CM::FakeEngine->start;
	$node->add_host($name, $fake, "max_concurrent_jobs => $slots");
	ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = '$name'", 'healthy'), "$name is there");
	return $fake;
}

sub all_end
{
	my ($host, $n, $what) = @_;
	return ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE host = '$host' AND status = 'completed'", $n),
		$what);
}

# The most jobs that were launching or running on a host at once, by the events.
sub most_at_once
{
	my ($host) = @_;
	return sql(<<"SQL");
SELECT max(n) FROM (SELECT sum(CASE status WHEN 'launching' THEN 1 WHEN 'running' THEN 0 ELSE -1 END)
    OVER (ORDER BY seq) AS n FROM cm_job_events WHERE host = '$host') s
SQL
}

sub running { return $_[0]->state->{running}; }

sub wait_running
{
	my ($fake, $n, $what) = @_;
	my $deadline = time + $CM::Cluster::patience;
	usleep(20_000) while running($fake) != $n && time < $deadline;
	return is(running($fake), $n, $what);
}

# The numbers of the jobs in the order in which their containers were created.
sub create_order
{
	my ($fake) = @_;
	return map { $_->{name} =~ /^cm-default-(\d+)-/ ? $1 : $_->{name} } @{ $fake->state->{create_order} };
}

# How often the executor has looked because it was time to.
sub polls { return sql('SELECT polls FROM cm_internal.executor_status()'); }

sub end_all
{
	my ($fake) = @_;
	my $containers = $fake->state->{containers};
	$fake->end_container($_) for grep { $containers->{$_}{status} eq 'running' } keys %$containers;
	return;
}

# --- slots

{
	my $fake = add_fake('sixteen', 16);
	my $hold = $fake->fault(method => 'POST', path => '/containers/create$', hold => 1);
	submit_many('sixteen', 200, 250);
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE host = 'sixteen' AND status = 'launching'", 16),
		'200 jobs on 16 slots: 16 are launched');
	$fake->clear_faults($hold);
	all_end('sixteen', 200, 'all end');
	my $state = $fake->state;
	cmp_ok($state->{max_running}, '<=', 16, 'the engine ran no more than 16 at once');
	is(most_at_once('sixteen'), 16, '16 were launching or running at most');
	is("$state->{creates} $state->{starts}", '200 200', 'each once');
	ok($fake->wait_for('removes', 200), 'all are removed');
	sql("SELECT cm_disable_host('sixteen', 'done')");
}

# --- slots that change, a drain

{
	my $fake = add_fake('changing', 2);
	submit_many('changing', 12, 1e9);
	wait_running($fake, 2, 'two run on two slots');
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 5 WHERE name = 'changing'");
	wait_running($fake, 5, 'more slots are used at once');
	sql("SELECT cm_add_host('changing', '" . $fake->url . "', max_concurrent_jobs => 1, if_exists => 'update')");
	is(sql("SELECT slots FROM cm_host_status WHERE name = 'changing'"), 1, 'fewer slots');
	is(running($fake), 5, 'end no job');
	end_all($fake);
	wait_running($fake, 1, 'only one follows the five');
	is($fake->state->{starts}, 6, 'and no others');

	sql("SELECT cm_disable_host('changing', 'maintenance')");
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 3 WHERE name = 'changing'");
	submit_many('changing', 1, 1e9, 'priority => 100');
	# The executor has heard of both when it has done what was asked for later.
	my $other = add_fake('other', 1);
	submit_many('other', 1, 0);
	all_end('other', 1, 'a job on another host');
	is(running($fake), 1, 'a drained host gets no job, and what runs there goes on');
	like(sql("SELECT string_agg(DISTINCT why, ';') FROM cm_ps WHERE state = 'pending'"), qr/drained/, 'the jobs say so');
	end_all($fake);
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE host = 'changing' AND status = 'completed'", 6),
		'what ran there ends');
	is($fake->state->{starts}, 6, 'and nothing takes its place');
	sql("SELECT cm_enable_host('changing')");
	wait_running($fake, 3, 'enabled, it takes jobs again');
	sql("SELECT cm_disable_host(name, 'done') FROM cm_hosts WHERE name IN ('changing', 'other')");
	end_all($fake);
}

# --- the order of the queue

{
	my $fake = add_fake('ordered', 0);
	sql(<<'SQL');
SELECT setseed(0.5);
SELECT count(cm_submit_job('busybox:test', host => 'ordered', environment => '{"FAKE_RUN_MS": "0"}',
    priority => (random() * 10)::int * 10,
    run_at => date_trunc('day', now()) - (random() * 10)::int * interval '1 h'))
FROM generate_series(1, 1000);
SQL
	my $expected = sql("SELECT string_agg(id::text, ' ' ORDER BY priority DESC, run_at, id)"
		  . " FROM cm_jobs WHERE requested_host = 'ordered'");
	isnt($expected, join(' ', sort { $a <=> $b } split / /, $expected), 'the order is not that of the ids');
	my $began = time;
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 1 WHERE name = 'ordered'");
	all_end('ordered', 1000, '1,000 jobs on one slot all end');
	note sprintf '1,000 jobs on one slot: %.1f s', time - $began;
	is(sql("SELECT string_agg(job_id::text, ' ' ORDER BY seq) FROM cm_job_events"
			  . " WHERE host = 'ordered' AND status = 'launching'"), $expected, 'claimed by priority, run_at, id');
	is(join(' ', create_order($fake)), $expected, 'and created in that order');
	is($fake->state->{max_running}, 1, 'one by one');
	sql("SELECT cm_disable_host('ordered', 'done')");
}

{
	my $fake = add_fake('reordered', 0);
	my ($first) = split / /, submit_many('reordered', 4, 0);
	my @jobs = map { $first + $_ } 0 .. 3;
	is(sql("SELECT cm_set_priority($jobs[2], 90), cm_set_priority($jobs[0], 10)"), 't|t', 'priorities change');
	ok($node->wait_for_sql("SELECT string_agg(priority::text, ' ' ORDER BY id) FROM cm_jobs WHERE id >= $first",
			'10 50 90 50'), 'the rows say so');
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 1 WHERE name = 'reordered'");
	all_end('reordered', 4, 'all end');
	is_deeply([ create_order($fake) ], [ @jobs[ 2, 1, 3, 0 ] ], 'started by the new priorities');
	is(sql("SELECT cm_set_priority($jobs[2], 5)"), 'f', 'too late for a job that is over');

	# By their time, though nothing else happens.
	my $polls = polls();
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 10 WHERE name = 'reordered'");
	my ($from) = split / /, submit_many('reordered', 5, 0, "run_at => clock_timestamp() + g * interval '400 ms'");
	all_end('reordered', 9, 'jobs with a run_at to come');
	my $late = sql("SELECT string_agg((1000 * extract(epoch FROM e.at - j.run_at))::int::text, ' ' ORDER BY j.id)"
		  . " FROM cm_jobs j JOIN cm_job_events e ON e.job_id = j.id AND e.status = 'launching' WHERE j.id >= $from");
	note "claimed so many ms after run_at: $late";
	is(scalar(grep { $_ < 0 } split / /, $late), 0, 'none starts too early');
	is(polls(), $polls, 'nor does one wait for a poll');
	sql("SELECT cm_disable_host('reordered', 'done')");
}

# --- which host

{
	my $left = add_fake('left', 10);
	my $right = add_fake('right', 10);
	submit_many(undef, 8, 1e9);
	wait_running($left, 4, 'jobs are shared out');
	wait_running($right, 4, 'evenly');
	end_all($right);
	ok($node->wait_for_sql("SELECT running + launching FROM cm_host_status WHERE name = 'right'", 0), 'one host idle');
	submit_many(undef, 3, 1e9);
	wait_running($right, 3, 'the least loaded host gets the next jobs');
	is(running($left), 4, 'and the other one none');
	sql("UPDATE cm_hosts SET weight = 300 WHERE name = 'right'");
	end_all($_) for $left, $right;
	ok($node->wait_for_sql("SELECT sum(running + launching) FROM cm_host_status WHERE name IN ('left', 'right')", 0),
		'both idle');
	submit_many(undef, 8, 1e9);
	wait_running($right, 6, 'three times the weight, three times the jobs');
	wait_running($left, 2, 'and the rest elsewhere');
	sql("SELECT cm_disable_host(name, 'done') FROM cm_hosts WHERE name IN ('left', 'right')");
	end_all($_) for $left, $right;
}

# --- bad hosts

# Of a job on the good host, for the eye only.
sub note_slowest
{
	my ($from) = @_;
	note 'the slowest took ', sql("SELECT max(completed_at - created_at) FROM cm_jobs WHERE id >= $from AND host = 'good'");
	return;
}

my $good = add_fake('good', 10);
{
	my ($slow, $hung) = (add_fake('slow', 10), add_fake('hung', 10));
	my $deaf = CM::FakeEngine->start;
	$deaf->fault(method => '.*', path => '.*', hang => 1);
	$node->add_host('deaf', $deaf);
	submit_many('hung', 30, 100);
	$hung->wait_for('starts', 5);
	$hung->pause;
	my $hold = $slow->fault(method => 'POST', path => '/containers/create$', hold => 1);
	my ($from) = split / /, submit_many('slow', 10, 0);
	submit_many('deaf', 10, 0);
	ok($slow->wait_for('held', 1), 'a slow host has been asked to create');
	sql(join(';', ("SELECT cm_submit_job('busybox:test', host => 'good', environment => '{\"FAKE_RUN_MS\": \"0\"}')") x 20));
	all_end('good', 20, 'jobs on a good host all end beside a slow, a hung and a deaf one');
	note_slowest($from);
	my $state = $slow->state;
	# None was answered, nor given up for being late.
	cmp_ok($state->{held}, '>=', 1, 'while the slow host has answered nothing');
	is($state->{requests}{'POST /containers/create'}, $state->{held}, 'to what it was asked first');
	$slow->clear_faults($hold);
	$hung->resume;
	all_end('hung', 30, 'the hung host goes on when it wakes up');
	is($hung->state->{max_running} <= 10, 1, 'within its slots');
	is_deeply($hung->state->{started_twice}, [], 'and starts none twice');
	all_end('slow', 10, 'the slow host ends its jobs');
	is(sql("SELECT count(*) FROM cm_jobs WHERE requested_host = 'deaf' AND status = 'pending'"), 10,
		'the deaf host has got none');
	sql("SELECT cm_disable_host(name, 'done') FROM cm_hosts WHERE name IN ('slow', 'hung', 'deaf')");
}

# --- a long queue for a full host

# Rows of the queue that were read so far; processes tell with some delay.
sub queue_reads
{
	return sql('SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_all_tables'
		  . " WHERE relid = 'cm_internal.queue'::regclass");
}

sub queue_scans
{
	return sql("SELECT seq_scan + idx_scan FROM pg_stat_all_tables WHERE relid = 'cm_internal.queue'::regclass");
}

# Runs jobs on the good host until what the executor read of the queue is told.
sub run_until_told
{
	my $scans = queue_scans();
	my $deadline = time + $CM::Cluster::patience;
	my $n = 0;
	while ($n < 20 || (queue_scans() < $scans + 20 && time < $deadline))
	{
		my ($job) = split / /, submit_many('good', 1, 0);
		$node->job_wait($job);
		$n++;
	}
	return $n;
}

{
	my $full = add_fake('full', 1);
	submit_many('full', 1, 1e9);
	wait_running($full, 1, 'a full host');
	my $began = time;
	submit_many('full', 10_000, 0, 'priority => 100');
	note sprintf '10,000 jobs submitted in %.1f s', time - $began;
	run_until_told();
	my $before = queue_reads();
	my ($from) = sql('SELECT max(id) FROM cm_jobs');
	my $n = run_until_told();
	note_slowest($from);
	my $reads = queue_reads() - $before;
	note "$reads rows of the queue were read for $n jobs";
	# One look through the queue for each would be 10,000 rows each.
	cmp_ok($reads, '<', 1000 * $n, 'jobs for a free host are found without going through 10,000 for a full one')
	  or diag(sql("SELECT string_agg(concat_ws(' ', indexrelname, idx_scan, idx_tup_read, idx_tup_fetch), E'\\n') FROM pg_stat_all_indexes"
		  . " WHERE relid = 'cm_internal.queue'::regclass"));
	my ($job) = split / /, submit_many(undef, 1, 0);
	is($node->job_wait($job), 'completed', 'and those for any host run');
	is($full->state->{starts}, 1, 'the full host took no more');
}

# --- a real engine

SKIP:
{
	skip 'no Docker engines here', 3 unless CM::Engine->available || $ENV{CM_TEST_REQUIRE_DOCKER};
	CM::Engine->require_engine;
	my $engine = CM::Engine->start(name => 'e1');
	$engine->import_busybox('busybox:test');
	$node->add_host('real', $engine, 'max_concurrent_jobs => 6');
	my $began = time;
	sql("SELECT count(cm_submit_job('busybox:test', 'sleep 0.3; echo ' || g, host => 'real', networks => '[\"none\"]'))"
		  . ' FROM generate_series(1, 40) g');
	all_end('real', 40, '40 jobs on a real engine');
	note sprintf '40 jobs of 0.3 s on 6 slots of a real engine: %.1f s', time - $began;
	is(most_at_once('real'), 6, 'six at once and no more');
	is(sql("SELECT count(*) FROM cm_jobs WHERE host = 'real' AND cm_job_output(id) = split_part(command, 'echo ', 2) || E'\\n'"),
		40, 'each with its own output');
}

$node->stop('fast');
done_testing();
