# Which host gets a job: strategies, labels, what is left of memory and CPUs, and
# why a job waits; slots that are never exceeded, whoever submits or is killed; and
# jobs that no host can take, which are in nobody's way.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::FakeEngine;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = CM::Cluster->new_with_extension('main',
	'container_manager.poll_interval' => '500ms',
	'container_manager.heartbeat_interval' => '600s',
	'max_connections' => 60);

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub wait_sql { my ($sql, $expected, $what) = @_; return ok($node->wait_for_sql($sql, $expected), $what); }

sub error_of
{
	my ($sql) = @_;
	my $stderr = '';
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \$stderr);
	return $stderr;
}

# Jobs that run until they are told to end, or for so many ms.
sub submit_many
{
	my ($n, $ms, @more) = @_;
	my $arguments = join ', ', "'busybox:test'", "environment => '{\"FAKE_RUN_MS\": \"$ms\"}'", @more;
	return split / /, sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM"
		  . " (SELECT cm_submit_job($arguments) AS id FROM generate_series(1, $n) g) s");
}

sub held { my ($n, @more) = @_; return submit_many($n, 1e9, @more); }

my %fake;

sub add_fake
{
	my ($name, $setting, @more) = @_;
	$fake{$name} = CM::FakeEngine->start;
	$fake{$name}->set(%$setting) if %$setting;
	$node->add_host($name, $fake{$name}, @more);
	return wait_sql("SELECT state FROM cm_host_status WHERE name = '$name'", 'healthy', "$name is there");
}

# Where jobs are or were: "a 2, b 1".
sub hosts_of
{
	my (@jobs) = @_;
	my $list = join ',', @jobs;
	return sql("SELECT string_agg(host || ' ' || n, ', ' ORDER BY host) FROM (SELECT host, count(*) AS n FROM cm_jobs"
		  . " WHERE id IN ($list) AND status <> 'pending' GROUP BY host) s");
}

sub wait_hosts_of
{
	my ($expected, $what, @jobs) = @_;
	my $deadline = time + $CM::Cluster::patience;
	usleep(50_000) while hosts_of(@jobs) ne $expected && time < $deadline;
	return is(hosts_of(@jobs), $expected, $what);
}

sub why { my ($job) = @_; return sql("SELECT explanation FROM cm_job_explain($job) WHERE item = 'why'"); }
sub wait_why { my ($job, $expected, $what) = @_; return wait_sql("SELECT cm_internal.waiting_reason($job)", $expected, $what); }

# Cancels what is there and lets all of it end.
sub clear
{
	sql("SELECT cm_cancel_job(job_id) FROM cm_internal.queue");
	return wait_sql('SELECT count(*) FROM cm_internal.queue', 0, 'all is cleared');
}

sub only
{
	my (@names) = @_;
	my $list = join ',', map { "'$_'" } '', @names;
	sql("SELECT CASE WHEN name IN ($list) THEN cm_enable_host(name) ELSE cm_disable_host(name, 'not here') END FROM cm_hosts");
	return;
}

# --- what is refused

like(error_of("SELECT cm_submit_job('x', placement_strategy => 'best')"),
	qr/22023: placement_strategy of "best" is not known.*HINT:  Write least_loaded, round_robin/s, 'an unknown strategy');
like(error_of("SELECT cm_submit_job('x', host_labels => '[\"gpu\"]')"), qr/22023: host_labels is not a JSON object/,
	'labels that are no object');
like(error_of("SELECT cm_submit_job('x', host_labels => '{\"gpu\": [1]}')"),
	qr/22023: host_labels "gpu" is not a text, a number or a boolean.*COLUMN NAME:  host_labels/s, 'a label that is a list');
like(error_of("SELECT cm_submit_job('x', host_labels => '{\"\": 1}')"), qr/22023: host_labels "" cannot be used/,
	'a label without a name');
like(error_of("SELECT cm_submit_job('x', host_labels => jsonb_build_object('a', repeat('x', 256)))"),
	qr/22023: host_labels "a" cannot be used/, 'a long label');
like(error_of("SELECT cm_submit_job('x', host_labels => (SELECT jsonb_object_agg(g, g) FROM generate_series(1, 17) g))"),
	qr/53400: host_labels has 17 labels/, 'too many labels');
like(error_of("SELECT cm_submit_job('x', host => 'nowhere')"), qr/42704: host "nowhere" does not exist/, 'an unknown host');
like(error_of("SET container_manager.placement_strategy = 'best'"), qr/22023: invalid value for parameter/, 'an unknown setting');
like(error_of("SELECT count(cm_submit_job('x', host_labels => jsonb_build_object('n', g))) FROM generate_series(1, 1001) g"),
	qr/53400: unfinished jobs ask for too many different kinds of hosts.*COLUMN NAME:  host_labels/s, 'too many sets of labels');
is(sql('SELECT count(*) FROM cm_jobs'), 0, 'and none of it is left');
is(sql('SELECT count(*) FROM cm_internal.placements'), 0, 'nor a key');

# --- strategies, on engines that only count

add_fake('a', {}, 'max_concurrent_jobs => 400', 'weight => 100', q{labels => '{"disk": "ssd"}'});
add_fake('b', {}, 'max_concurrent_jobs => 400', 'weight => 150', q{labels => '{"disk": "ssd", "gpu": true, "level": 3}'});
add_fake('c', {}, 'max_concurrent_jobs => 400', 'weight => 200', q{labels => '{"gpu": "false"}'});
like(error_of("SELECT cm_submit_job('x', host => 'a', host_labels => '{\"disk\": \"ssd\"}')"),
	qr/22023: host and host_labels are both given/, 'a host and labels');

wait_hosts_of('a 20, b 30, c 40', 'least_loaded: by weight', held(90));
clear();
wait_hosts_of('a 10, b 10, c 10', 'round_robin: in turn', held(30, "placement_strategy => 'round_robin'"));
clear();
{
	my @jobs = held(450, "placement_strategy => 'weighted'");
	wait_sql("SELECT count(*) FROM cm_internal.queue WHERE status = 'running'", 450, 'weighted: all run');
	my %n = map { /(\w) (\d+)/ } split /, /, hosts_of(@jobs);
	note 'weighted: ', hosts_of(@jobs);
	# Six standard deviations.
	cmp_ok(abs($n{a} - 100), '<', 53, 'weight 100 of 450: about 100 of 450');
	cmp_ok(abs($n{b} - 150), '<', 60, 'weight 150 of 450: about 150');
	cmp_ok(abs($n{c} - 200), '<', 64, 'weight 200 of 450: about 200');
	clear();
}
{
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 3");
	wait_hosts_of('a 3, b 1', 'pack: one host after the other', held(4, "placement_strategy => 'pack'"));
	clear();
	my ($job) = split / /, sql("SET container_manager.placement_strategy = 'pack';"
		  . " INSERT INTO cm_jobs (image, environment) VALUES ('busybox:test', '{\"FAKE_RUN_MS\": \"1e9\"}') RETURNING id");
	is(sql("SELECT placement_strategy FROM cm_jobs WHERE id = $job"), 'pack', 'the setting fills in what a job does not say');
	clear();
}

# --- labels

{
	my @ssd = held(4, q{host_labels => '{"disk": "ssd"}'});
	wait_hosts_of('a 2, b 2', 'those that have the label', @ssd);
	my @gpu = held(1, q{host_labels => '{"gpu": "true", "level": "3"}'});
	wait_hosts_of('b 1', 'all labels; values compare as text', @gpu);
	my ($full) = held(1, q{host_labels => '{"gpu": true}'});
	wait_why($full, '1 host full, 2 lack label gpu=true', 'one is full, the others lack the label');
	my ($none) = held(1, q{host_labels => '{"gpu": "maybe"}'});
	wait_why($none, 'no host has label gpu=maybe', 'no host has it');
	like(sql("SELECT explanation FROM cm_job_explain($none) WHERE item = 'advice'"), qr/^Give a host that label/, 'and what to do');
	is(sql("SELECT explanation FROM cm_job_explain($none) WHERE item = 'host'"), 'any with labels gpu=maybe; none chosen yet',
		'what it asks for');
	wait_hosts_of('c 1', 'it is in nobody\'s way', held(1));
	sql(q{UPDATE cm_hosts SET labels = labels || '{"gpu": "maybe"}' WHERE name = 'c'});
	wait_hosts_of('c 1', 'a host that is given the label takes it', $none);
	is(sql("SELECT count(DISTINCT placement) FROM cm_internal.queue WHERE placement < -1"), 4, 'a key for each set of labels');
	clear();
	wait_sql('SELECT count(*) FROM cm_internal.placements', 0, 'which goes when no job asks for it');
	sql("SELECT cm_retry_job($none)");
	wait_hosts_of('c 1', 'and comes again with a job that is run again', $none);
	clear();
}

# --- a mix of reasons

{
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 1");
	my @fill = held(2, q{host_labels => '{"disk": "ssd"}'});
	wait_hosts_of('a 1, b 1', 'two hosts are full', @fill);
	add_fake('d', {}, q{labels => '{"disk": "ssd"}'});
	add_fake('e', {}, q{labels => '{"disk": "ssd"}'});
	sql("SELECT cm_disable_host('e', 'rest')");
	$fake{d}->kill9;
	wait_sql("SELECT state FROM cm_host_status WHERE name = 'd'", 'unhealthy', 'one does not answer');
	my ($job) = held(1, q{host_labels => '{"disk": "ssd"}'});
	wait_why($job, '2 hosts full, 1 unhealthy, 1 drained, 1 lacks label disk=ssd', 'each host has its reason');
	like(why($job), qr/2 hosts full, 1 unhealthy, 1 drained, 1 lacks label disk=ssd/, 'as cm_job_explain has it');
	my ($pinned) = held(1, "host => 'd'");
	wait_why($pinned, 'host "d" unhealthy', 'a host that is asked for by name');
	sql("SELECT cm_enable_host('e')");
	wait_hosts_of('e 1', 'a host that is enabled takes the job', $job);
	sql("SELECT cm_cancel_job($pinned)");
	clear();
	sql("SELECT cm_remove_host(name) FROM cm_hosts WHERE name IN ('d', 'e')");
}

# --- memory and CPUs

{
	only('r1', 'r2');
	add_fake('r1', { memory => 1 << 30, cpus => 4 }, 'max_concurrent_jobs => 50');
	add_fake('r2', { memory => 2 << 30, cpus => 4 }, 'max_concurrent_jobs => 50');
	my $resources = "placement_strategy => 'resources'";
	wait_hosts_of('r1 2, r2 4', 'a third of the memory, a third of the jobs',
		held(6, $resources, 'memory_limit => 256', 'cpu_limit => 0.1'));
	my ($big) = held(1, $resources, 'memory_limit => 2000', 'cpu_limit => 0.1', 'priority => 100');
	wait_why($big, '2 short of memory, 3 drained', 'memory that is not left');
	wait_hosts_of('r1 2, r2 4', 'what fits goes on, until none is left', held(7, $resources, 'memory_limit => 256', 'cpu_limit => 0.1'));
	my ($cpus) = held(1, $resources, 'memory_limit => 6', 'cpu_limit => 2');
	wait_why($cpus, '2 short of memory, 3 drained', 'not the least is left');
	wait_hosts_of('r2 1', 'other strategies do not look at it', held(1, 'memory_limit => 6', "placement_strategy => 'pack'"));
	clear();
	held(3, $resources, 'memory_limit => 6', 'cpu_limit => 2');
	($cpus) = held(2, $resources, 'memory_limit => 6', 'cpu_limit => 1.5');
	wait_sql("SELECT count(*) FROM cm_internal.queue WHERE status = 'running'", 4, 'four have CPUs');
	wait_sql("SELECT cm_internal.waiting_reason(max(job_id)) FROM cm_internal.queue", '2 short of CPUs, 3 drained', 'the fifth has not');
	clear();
	sql("SELECT cm_remove_host(name) FROM cm_hosts WHERE name IN ('r1', 'r2')");
}

# --- many that no host can take are in nobody's way

sub reads
{
	return sql('SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_all_tables'
		  . " WHERE relid = 'cm_internal.queue'::regclass");
}

sub scans { return sql("SELECT seq_scan + idx_scan FROM pg_stat_all_tables WHERE relid = 'cm_internal.queue'::regclass"); }

sub run_until_told
{
	my ($scans, $n) = (scans(), 0);
	my $deadline = time + $CM::Cluster::patience;
	while ($n < 10 || (scans() < $scans + 20 && time < $deadline))
	{
		my ($job) = submit_many(1, 0, q{host_labels => '{"disk": "ssd"}'});
		$node->job_wait($job);
		$n++;
	}
	return $n;
}

{
	only('a');
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 4 WHERE name = 'a'");
	wait_hosts_of('a 2', 'a host with one CPU left', held(2, "host => 'a'", 'cpu_limit => 1.5'));
	submit_many(2000, 0, 'priority => 100', q{host_labels => jsonb_build_object('gpu', (ARRAY['true', 'never'])[1 + g % 2])});
	submit_many(1000, 0, 'priority => 100', "placement_strategy => 'resources'", 'cpu_limit => 2');
	run_until_told();
	my $before = reads();
	my $n = run_until_told();
	my $reads = reads() - $before;
	note "$reads rows of the queue were read for $n jobs";
	# One look through the queue for each would be 3,000 rows each.
	cmp_ok($reads, '<', 1000 * $n, 'jobs for a free host are found without going through those for none');
	clear();
}

# --- slots, whoever submits and whatever is killed

{
	only();
	add_fake($_, {}, 'max_concurrent_jobs => 5') for qw(s t);
	my $from = sql('SELECT max(id) FROM cm_jobs');
	my $submit = q{SELECT cm_submit_job('busybox:test', environment => '{"FAKE_RUN_MS": "100"}');} x 25;
	my $executor = $node->executor_pid;
	my @submitters = map { IPC::Run::start([ 'psql', '-Xqc', $submit, $node->connstr('postgres') ], '>', \my $out) } 1 .. 8;
	$fake{s}->wait_for('starts', 1);
	sql("SELECT pg_terminate_backend($executor)");
	$_->finish for @submitters;
	wait_sql("SELECT count(*) > 20 FROM cm_jobs WHERE id > $from AND status = 'completed'", 't', 'another executor goes on');
	kill 'KILL', $node->executor_pid;
	wait_sql("SELECT count(*) FROM cm_jobs WHERE id > $from AND status = 'completed'", 200, '200 jobs of 8 sessions all end');
	for my $name (qw(s t))
	{
		my $state = $fake{$name}->state;
		cmp_ok($state->{max_running}, '<=', 5, "$name never ran more than its slots");
		is_deeply($state->{started_twice}, [], 'and none twice');
	}
	my @jobs = held(12);
	wait_hosts_of('s 5, t 5', 'all slots are used', @jobs);
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 2 WHERE name = 's'");
	my ($after) = held(1, 'priority => 100');
	is(sql("SELECT running + launching FROM cm_host_status WHERE name = 's'"), 5, 'fewer slots end no job');
	sql("SELECT cm_cancel_job(id) FROM cm_jobs WHERE host = 's' AND status = 'running' ORDER BY id LIMIT 3");
	wait_sql("SELECT count(*) FROM cm_internal.queue q JOIN cm_jobs j ON j.id = q.job_id WHERE j.host = 's'", 2, 'three of five end');
	sql("UPDATE cm_hosts SET max_concurrent_jobs = 6 WHERE name = 't'");
	wait_hosts_of('t 1', 'another slot elsewhere is used at once', $after);
	is(sql("SELECT count(*) FROM cm_internal.queue q JOIN cm_jobs j ON j.id = q.job_id WHERE j.host = 's'"), 2,
		'and none where there are none');
	clear();
}

# --- three real engines

SKIP:
{
	skip 'no Docker engines here', 3 unless CM::Engine->available || $ENV{CM_TEST_REQUIRE_DOCKER};
	CM::Engine->require_engine;
	sql("SELECT cm_disable_host(name, 'done') FROM cm_hosts");
	my %weight = (w100 => 100, w150 => 150, w200 => 200);
	my %engine;
	for my $name (sort keys %weight)
	{
		$engine{$name} = CM::Engine->start(name => $name);
		$engine{$name}->import_busybox('busybox:test');
		$node->add_host($name, $engine{$name}, 'max_concurrent_jobs => 30', "weight => $weight{$name}",
			q{labels => '{"real": true}'});
		wait_sql("SELECT state FROM cm_host_status WHERE name = '$name'", 'healthy', "$name is there");
	}
	my @jobs = split / /, sql(<<'SQL');
SELECT string_agg(id::text, ' ') FROM (SELECT cm_submit_job('busybox:test', 'exec sleep 1000', networks => '["none"]',
    memory_limit => 32, host_labels => '{"real": "true"}') AS id FROM generate_series(1, 45)) s
SQL
	wait_sql("SELECT count(*) FROM cm_internal.queue WHERE status = 'running'", 45, '45 jobs run');
	my %expected = (w100 => 10, w150 => 15, w200 => 20);
	my %n = map { $_ => scalar $engine{$_}->containers(status => 'running') } keys %expected;
	note join ', ', map { "$_: $n{$_}" } sort keys %n;
	cmp_ok(abs($n{$_} - $expected{$_}), '<=', 1, "$_ runs $expected{$_} of 45, give or take one") for sort keys %expected;
	clear();
}

$node->stop('fast');
done_testing();
