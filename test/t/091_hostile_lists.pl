# Lists and event streams made to hurt: a hundred thousand containers, JSON that
# takes many times its size, lists that do not end, events without end, of nobody,
# twice, and of no form.  The executor's memory is bounded, it works on for a good
# host meanwhile, and what such a host says of its jobs is not believed.

use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use CM::Logs qw(wait_until memory_of);
use Test::More;
use Time::HiRes qw(time);

# A list of 64 MB is allowed, and a tree of 4 million values takes 80 bytes each or more.
my $bound = $ENV{CM_SANITIZED} ? 2500 : 800;

my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
my %fake;
add_host('good');
my $executor = $node->executor_pid;
my ($memory, @jobs) = (0);

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub add_host
{
	my ($host, %fault) = @_;
	$fake{$host} = CM::FakeEngine->start;
	$fake{$host}->fault(method => 'GET', %fault) if %fault;
	$node->add_host($host, $fake{$host}, 'max_concurrent_jobs => 100');
	return;
}

sub look
{
	my $now = memory_of($executor);
	$memory = $now if $now > $memory;
	return;
}

sub state_of { my ($host) = @_; return sql("SELECT state || '|' || coalesce(error, '') FROM cm_host_status WHERE name = '$host'"); }

# Waits for that state, and then for a job of the good host.
sub becomes
{
	my ($host, $state, $what) = @_;
	ok(wait_until("$what: $state", sub { look(); return state_of($host) =~ $state }), "$what: $state") or diag(state_of($host));
	my $job = $node->submit(q{'x:1', 'echo hello', host => 'good'});
	ok(wait_until("$what: a job of another host", sub { look(); return sql("SELECT status FROM cm_jobs WHERE id = $job") eq 'completed' }),
		"$what: a job of another host completes");
	push @jobs, $job;
	note sprintf '%s: executor at most %.1f MB so far', $what, $memory;
	return;
}

sub misbehaves
{
	my ($host, $state, $what, %fault) = @_;
	$fake{$host}->clear_faults;
	$fake{$host}->fault(method => 'GET', path => '/containers/json$', %fault);
	becomes($host, $state, $what);
	$fake{$host}->clear_faults;
	becomes($host, qr/^healthy\|$/, "after $what") unless $state =~ /healthy/ && $state !~ /unhealthy/;
	return;
}

# ------------------------------------------------------- lists

sub lists
{
	my $epoch = sql('SELECT epoch FROM cm_internal.identity');
	my $ours = qq("container-manager.epoch":"$epoch","container-manager.version":"1","container-manager.kind":"job");
	my $bad = qr/^unhealthy\|.*cannot make sense of the reply/;
	add_host('lists');
	becomes('lists', qr/^healthy\|$/, 'a new host');

	misbehaves('lists', $bad, 'no list', status => 200, body => '{"message": "hello"}');
	misbehaves('lists', $bad, 'an id that is none', status => 200,
		body => qq([{"Id":"../../etc","State":"running","Labels":{$ours,"container-manager.job":"1","container-manager.attempt":"1"}}]));
	misbehaves('lists', qr/^unhealthy\|.*too many values/, 'too many values', pieces => [ [ '', '[', 1 ], [ '', '0,', 4_100_000 ], [ '', '0]', 1 ] ]);
	misbehaves('lists', qr/^unhealthy\|.*nested too deeply/, 'too deep', pieces => [ [ '', '[', 1_000_000 ] ]);
	misbehaves('lists', qr/^unhealthy\|.*longer than 67108864 bytes/, 'a list that does not end', pieces => [ [ '', '[{}', 1 ], [ '', ',{"Id":"x"}', 0 ] ]);
	return;
}

# As much as the bounds allow, and nothing wrong with it.
sub largest_list
{
	add_host('largest', path => '/containers/json$', pieces => [ [ '', '[{', 1 ], [ '', '"a":"b",', 3_999_000 ], [ '', '"a":0}]', 1 ] ]);
	becomes('largest', qr/^healthy\|$/, 'the largest tree');
	$fake{largest}->clear_faults;
	return;
}

# ------------------------------------------------------- containers of nobody

sub strays
{
	add_host('strays', path => '/containers/json$', strays => 100_000);
	becomes('strays', qr/^healthy\|$/, '100000 containers of unknown jobs');
	ok(wait_until('a warning', sub { look(); return $node->log_contains(qr/WARNING:  \d+ containers of unknown jobs run on host "strays"/) }),
		'they are told of');
	my @told = slurp_log() =~ /container of an unknown job \d+ runs on host "strays"/g;
	cmp_ok(scalar @told, '<=', 10, 'in a few lines');
	$fake{strays}->clear_faults;

	# Jobs that are over: their containers are removed, not all at once.
	my $jobs = sql(q{SELECT count(cm_submit_job('x:1', 'echo hello', host => 'good')) FROM generate_series(1, 300)});
	ok($node->wait_for_sql(q{SELECT count(*) FROM cm_internal.queue}, 0), "$jobs jobs are over");
	$fake{strays}->fault(method => 'DELETE', path => '/containers/', hang => 1);
	$fake{strays}->fault(method => 'GET', path => '/containers/json$', strays => 300, first_job => 1);
	ok(wait_until('removals', sub { look(); return ($fake{strays}->state->{requests}{'DELETE /containers/ID'} // 0) >= 64 }), 'leftovers are removed');
	becomes('strays', qr/^healthy\|$/, 'leftovers that cannot be removed');
	is($fake{strays}->state->{requests}{'DELETE /containers/ID'}, 64, '64 at a time');
	$fake{strays}->clear_faults;
	return;
}

sub slurp_log
{
	open(my $file, '<', $node->logfile) or die "could not read the log: $!\n";
	local $/ = undef;
	return scalar <$file>;
}

# ------------------------------------------------------- events

sub event
{
	my ($action, $id, %attributes) = @_;
	return { Type => 'container', Action => $action, Actor => { ID => $id, Attributes => \%attributes }, time => 1 };
}

sub labels_of
{
	my ($job) = @_;
	return %{ $fake{events}->state->{containers}{ sql("SELECT 'cm-default-$job-1-' || left(epoch::text, 8) FROM cm_internal.identity") }{labels} };
}

sub container_of { my ($job) = @_; return sql("SELECT container_id FROM cm_jobs WHERE id = $job"); }

sub running_job
{
	my $job = $node->submit(q{'x:1', host => 'events', environment => '{"FAKE_RUN_MS": "6000000"}'});
	is($node->job_wait($job, status => 'running'), 'running', 'a job runs');
	return $job;
}

# Another stream of events, with these pieces in it.
sub stream
{
	my (@pieces) = @_;
	my $before = $fake{events}->state->{requests}{'GET /events'};
	$fake{events}->fault(method => 'GET', path => '/events$', times => 1, pieces => \@pieces, then => 'hang');
	$fake{events}->close_door;
	$fake{events}->open_door;
	ok(wait_until('another stream', sub { look(); return $fake{events}->state->{requests}{'GET /events'} > $before }), 'another stream of events');
	becomes('events', qr/^healthy\|$/, 'the host with it');
	return;
}

sub events
{
	add_host('events');
	my $job = running_job();
	my $id = container_of($job);
	my %labels = labels_of($job);

	# Said once more, of others, and of no form: what runs, runs.
	$fake{events}->emit(%{ event('die', $id, %labels, exitCode => '0') }) for 1 .. 50;
	$fake{events}->emit(%{ event('destroy', $id, %labels) });
	$fake{events}->emit(%{ event('die', sprintf('%064x', $_), %labels, 'container-manager.job' => "$_") }) for 1 .. 50;
	$fake{events}->emit(%{ event('die', 'x' x 64, %labels) });
	$fake{events}->emit(%{ event('die', $id, %labels, 'container-manager.job' => '99999999999999999999', 'container-manager.attempt' => '-1') });
	becomes('events', qr/^healthy\|$/, 'events twice, of nobody and of no form');
	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'the job runs on');

	my $junk = "\xff\xfe\0{\"Type\n" . '{"Type":"container"' . "\n\n\n[]\nnull\n" . '{"Type":7,"Action":[],"Actor":"x"}' . "\n";
	stream([ unpack('H*', $junk), '', 1 ], [ '', 'x' x 1000, 3000 ], [ '', "\n{\"Type\":", 1 ]);
	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'junk: the job runs on');
	$fake{events}->end_container($id, 4);
	$node->job_wait($job);
	is(sql("SELECT status, exit_code FROM cm_jobs WHERE id = $job"), 'failed|4', 'its end is found without events');

	my $other = running_job();
	my $line = '{"Type":"container","Action":"die","Actor":{"ID":"%s","Attributes":{%s}}}' . "\n";
	%labels = labels_of($other);
	my $text = sprintf $line, container_of($other), join ',', map { qq("$_":"$labels{$_}") } sort keys %labels;
	stream([ '', $text, 0 ]);
	is(sql("SELECT status FROM cm_jobs WHERE id = $other"), 'running', 'events without end: the job runs on');
	$fake{events}->close_door;
	$fake{events}->open_door;
	$fake{events}->end_container(container_of($other), 5);
	$node->job_wait($other);
	is(sql("SELECT status, exit_code FROM cm_jobs WHERE id = $other"), 'failed|5', 'and ends as it did');
	is($fake{events}->state->{starts}, 2, 'each was started once');
	return;
}

lists();
largest_list();
strays();
events();

my $all = join ',', @jobs;
is(sql("SELECT count(*) FROM cm_jobs WHERE id IN ($all) AND status = 'completed'"), scalar @jobs, 'jobs of the good host have completed');
cmp_ok($memory, '>', 0, 'the memory of the executor was seen');
cmp_ok($memory, '<', $bound, 'the memory of the executor is bounded');
note sprintf 'executor: %.1f MB at most, %.1f MB now', $memory, memory_of($executor);
is($node->executor_pid, $executor, 'it is the same executor');
is(sql('SELECT last_error FROM cm_status'), '', 'it met no error');
done_testing();
