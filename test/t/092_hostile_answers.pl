# Answers about single containers that make no sense: to inspect, create, start,
# kill and pull.  Nonsense is no answer: the job waits, and ends as its container
# did when the engine talks sense; what a container of somebody else did is not
# taken over; nothing is started twice.

use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use CM::Http qw(unix_json);
use CM::Logs qw(wait_until memory_of);
use JSON::PP;
use Math::BigInt;
use Test::More;

# Replies of one engine take 128 MB together.
my $bound = $ENV{CM_SANITIZED} ? 900 : 250;

my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
my %fake = map { $_ => CM::FakeEngine->start } qw(bad pull good);
$node->add_host($_, $fake{$_}, 'max_concurrent_jobs => 100') for sort keys %fake;
my $executor = $node->executor_pid;
my $memory = 0;
my @good;

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub look
{
	my $now = memory_of($executor);
	$memory = $now if $now > $memory;
	push @good, $node->submit(q{'x:1', 'echo hello', host => 'good'});
	return;
}

# Ends are looked for together, so that they may come in any order.
sub until_over
{
	my (@jobs) = @_;
	my $list = join ',', @jobs;
	ok(wait_until('their ends', sub { look(); return sql("SELECT count(*) FROM cm_jobs WHERE id IN ($list) AND completed_at IS NULL") == 0 }),
		'all of them end');
	return;
}

sub outcome { my ($job) = @_; return sql("SELECT concat_ws('|', status, failure_reason, exit_code) FROM cm_jobs WHERE id = $job"); }

# ------------------------------------------------------- inspect

sub changed
{
	my ($change) = @_;
	return sub {
		my ($inspect) = @_;
		$change->($inspect);
		return { status => 200, body => JSON::PP->new->allow_bignum->encode($inspect) };
	};
}

sub state_with { my (%value) = @_; return changed(sub { $_[0]{State} = { %{ $_[0]{State} }, %value }; }); }

# What the engine says three times of a container that ended with 3; then the truth.
my $nonsense = 'failed|exit_code|3';
my @inspect = (
	[ 'nothing', sub { return { status => 200, body => '' } }, $nonsense ],
	[ 'a list', sub { return { status => 200, body => '[]' } }, $nonsense ],
	[ 'a page', sub { return { status => 502, body => '<html>' } }, $nonsense ],
	[ 'half of it', sub { return { half_body => 1 } }, $nonsense ],
	[ 'too much', sub { return { huge_body => 1 << 30 } }, $nonsense ],
	[ 'no HTTP', sub { return { garbage => 1 } }, $nonsense ],
	[ 'no state', changed(sub { delete $_[0]{State} }), $nonsense ],
	[ 'an id that is none', changed(sub { $_[0]{Id} = uc $_[0]{Id} }), $nonsense ],
	[ 'a short id', changed(sub { $_[0]{Id} = substr $_[0]{Id}, 0, 12 }), $nonsense ],
	[ 'no time', state_with(StartedAt => undef), $nonsense ],
	[ 'a time that is none', state_with(StartedAt => '9999-99-99T99:99:99Z'), $nonsense ],
	[ 'a time that is long', state_with(StartedAt => '2026-11-21T20:43:52.' . '9' x 100_000 . 'Z'), $nonsense ],
	[ 'a number for a time', state_with(StartedAt => 1_700_000_000), $nonsense ],
	[ 'no truth value', state_with(Running => 'no'), $nonsense ],
	[ 'no exit code', state_with(ExitCode => undef), $nonsense ],
	[ 'an exit code in words', state_with(ExitCode => '0'), $nonsense ],
	[ 'an exit code of 33 bits', state_with(ExitCode => 4_294_967_296), $nonsense ],
	[ 'an exit code of 70 bits', state_with(ExitCode => Math::BigInt->new('1180591620717411303424')), $nonsense ],
	[ 'an exit code with a fraction', state_with(ExitCode => 0.5), $nonsense ],
	# What can be, however odd, is taken as it is said.
	[ 'the largest exit code', state_with(ExitCode => 2_147_483_647), 'failed|exit_code|2147483647' ],
	# No process ends with less than 0: podman says so of one whose end it missed.
	[ 'the least exit code', state_with(ExitCode => -2_147_483_648), 'failed|infrastructure|255' ],
	[ 'times at the ends', state_with(StartedAt => '0000-01-01T00:00:00Z', FinishedAt => '9999-12-31T23:59:59.999999999-23:59'), qr/^(?:failed\|exit_code|timeout\|timeout)\|3$/ ],
	[ 'an end before its start', state_with(StartedAt => '2026-01-02T00:00:00Z', FinishedAt => '2026-01-01T00:00:00Z'), $nonsense ],
	[ 'an end that is none', state_with(FinishedAt => 'never'), $nonsense ],
	[ 'much in it', changed(sub { $_[0]{Name} = "\x{1f600}" x 100_000; $_[0]{State}{Error} = "a\x{85}\n" x 10_000; $_[0]{HostConfig}{Memory} = 1e300; }), $nonsense ],
	# Another container's end is not this job's.
	[ 'another job', changed(sub { $_[0]{Config}{Labels}{'container-manager.job'} = '999999' }), qr/^failed\|(?!exit_code)\w+\|?$/ ],
	[ 'another database', changed(sub { $_[0]{Config}{Labels}{'container-manager.epoch'} = '11111111-2222-3333-4444-555555555555' }), qr/^failed\|(?!exit_code)\w+\|?$/ ],
	[ 'no labels', changed(sub { $_[0]{Config} = [] }), qr/^failed\|(?!exit_code)\w+\|?$/ ],
);

sub inspects
{
	my @jobs = map { $node->submit(q{'x:1', host => 'bad', environment => '{"FAKE_RUN_MS": "6000000"}'}) } @inspect;
	$node->job_wait($_, status => 'running') for @jobs;
	my %container = map { $_ => sql("SELECT container_id FROM cm_jobs WHERE id = $_") } @jobs;
	for my $i (0 .. $#inspect)
	{
		my $id = $container{ $jobs[$i] };
		my $truth = unix_json($fake{bad}->socket, 'GET', "/v1.41/containers/$id/json");
		$truth->{State} = { %{ $truth->{State} }, Status => 'exited', Running => JSON::PP::false, ExitCode => 3, FinishedAt => $truth->{State}{StartedAt} };
		$fake{bad}->fault(method => 'GET', path => "/containers/$id/json", times => 3, %{ $inspect[$i][1]->($truth) });
	}
	$fake{bad}->end_container($_, 3) for values %container;
	until_over(@jobs);
	for my $i (0 .. $#inspect)
	{
		my ($what, undef, $expected) = @{ $inspect[$i] };
		my $outcome = outcome($jobs[$i]);
		ref $expected ? like($outcome, $expected, "inspect: $what") : is($outcome, $expected, "inspect: $what");
	}
	$fake{bad}->clear_faults;
	is(sql('SELECT count(*) FROM cm_job_attempts WHERE inspect IS NOT NULL AND octet_length(inspect::text) > 65536'), 0, 'what is kept of it is small');
	return;
}

# ------------------------------------------------------- create, start, kill

my $other_id = '{"Id": "' . 'ab' x 32 . '"}';
my @create = (
	[ 'a page', { status => 201, body => '<html>' } ],
	[ 'nothing', { status => 204 } ],
	[ 'an id that is none', { status => 201, body => '{"Id": "../../x"}' } ],
	[ 'a number', { status => 201, body => '{"Id": 7}' } ],
	[ 'too much', { huge_body => 1 << 30 } ],
	[ 'another id', { status => 201, body => $other_id } ],
);
my @start = (
	[ 'a page', { status => 200, body => '<html>' } ],
	[ 'too much', { huge_body => 1 << 30 } ],
	[ 'no HTTP', { garbage => 1 } ],
	[ 'a redirect', { redirect => '/v1.41/containers/x/start' } ],
	[ 'a failure', { status => 500, message => "no\0thing \x1b[2J" } ],
);

# The engine does what it is asked to, and says this.
sub begin_with
{
	my ($path, @cases) = @_;
	my @jobs;
	for my $case (@cases)
	{
		$fake{bad}->fault(method => 'POST', path => $path, times => 1, effect => JSON::PP::true, %{ $case->[1] });
		push @jobs, $node->submit(q{'x:1', host => 'bad', environment => '{"FAKE_STDOUT": "one\n", "FAKE_EXIT": "3", "FAKE_RUN_MS": "100"}'});
		ok(wait_until("$path: $case->[0]", sub { look(); return !%{ $fake{bad}->state->{faults} } }), "$path: $case->[0]: is answered so");
	}
	return @jobs;
}

sub begins
{
	my %jobs = (create => [ begin_with('/containers/create$', @create) ], start => [ begin_with('/start$', @start) ]);
	until_over(map { @$_ } values %jobs);
	# The id of a container that is not there: whether it ran cannot be known.
	is(outcome($jobs{create}[$_]), $create[$_][0] eq 'another id' ? outcome($jobs{create}[$_]) : $nonsense, "create: $create[$_][0]") for 0 .. $#create;
	is(outcome($jobs{start}[$_]), $nonsense, "start: $start[$_][0]") for 0 .. $#start;
	my ($strange) = grep { $create[$_][0] eq 'another id' } 0 .. $#create;
	unlike(outcome($jobs{create}[$strange]), qr/^completed/, 'create: another id: it has not completed');
	return;
}

sub kills
{
	my $job = $node->submit(q{'x:1', host => 'bad', environment => '{"FAKE_RUN_MS": "6000000"}'});
	$node->job_wait($job, status => 'running');
	$fake{bad}->fault(method => 'POST', path => '/kill', times => 1, %$_) for { garbage => 1 }, { huge_body => 1 << 30 }, { status => 200, body => '<html>' };
	sql("SELECT cm_cancel_job($job)");
	until_over($job);
	like(outcome($job), qr/^cancelled\|cancelled/, 'kill: the job is cancelled');
	return;
}

# ------------------------------------------------------- pull

sub pulls
{
	$fake{pull}->set(images => []);
	my @pull = (
		[ 'lines for ever', { pieces => [ [ '', '{"status":"Downloading","id":"a","progressDetail":{"current":5,"total":-1}}' . "\n", 0 ] ] } ],
		[ 'a line for ever', { pieces => [ [ '', 'x', 0 ] ] } ],
		[ 'layers for ever', { pieces => [ map { [ '', qq({"status":"Downloading","id":"$_","progressDetail":{"current":9223372036854775807,"total":9223372036854775807}}\n), 1 ] } 1 .. 500 ], then => 'hang' } ],
	);
	my @jobs;
	for my $i (0 .. $#pull)
	{
		$fake{pull}->fault(method => 'POST', path => '/images/create$', times => 1, %{ $pull[$i][1] });
		push @jobs, $node->submit("'x:$i', 'echo hello', host => 'pull'");
		ok(wait_until("pull: $pull[$i][0]", sub { look(); return sql("SELECT coalesce(detail, '') FROM cm_jobs WHERE id = $jobs[$i]") =~ /^pulling/ && !%{ $fake{pull}->state->{faults} } }),
			"pull: $pull[$i][0]: it is told of");
		like(sql("SELECT detail FROM cm_jobs WHERE id = $jobs[$i]"), qr/^pulling(?: \d+ %)?$/, "pull: $pull[$i][0]: in words");
	}
	look() for 1 .. 20;
	sql("SELECT cm_cancel_job($_)") for @jobs;
	until_over(@jobs);
	like(outcome($_), qr/^cancelled\|/, 'a pull without end is cancelled') for @jobs;

	my %error = (
		"no\0pe\x1b[31m" => { pieces => [ [ '', '{"errorDetail":{"message":"no\u001b[31mpe\u0085"}}' . "\n", 1 ] ] },
		lie => { pieces => [ [ '', qq({"status":"Status: Downloaded newer image"}\n), 1 ] ] },
		none => { pieces => [ [ '', qq({"errorDetail":{}}\n), 1 ] ] });
	for my $what (sort keys %error)
	{
		$fake{pull}->fault(method => 'POST', path => '/images/create$', times => 1, %{ $error{$what} });
		my $job = $node->submit(q{'y:1', 'echo hello', host => 'pull'});
		until_over($job);
		is(outcome($job), 'failed|image_pull', 'a pull that fails in its own way');
		is(sql("SELECT count(*) FROM cm_jobs WHERE id = $job AND concat(error, hint, detail) ~ '[[:cntrl:]]'"), 0, 'is told of in plain words');
	}
	return;
}

# ------------------------------------------------------- each as long as may be

sub many_long_ones
{
	my $asked = sub { return $fake{bad}->state->{requests}{'GET /containers/ID/json'} };
	my @jobs = split /\n/, sql(q{SELECT cm_submit_job('x:1', host => 'bad', environment => '{"FAKE_RUN_MS": "6000000"}') FROM generate_series(1, 100)});
	my $list = join ',', @jobs;
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($list) AND status = 'running'", 100), '100 jobs run');
	my $before = $asked->();
	$fake{bad}->fault(method => 'GET', path => '/containers/[^/]+/json$', pieces => [ [ '', ' ', 3_900_000 ] ], then => 'hang');
	$fake{bad}->end_container($_, 3) for split /\n/, sql("SELECT container_id FROM cm_jobs WHERE id IN ($list)");
	# Those that found no room for their answers ask again.
	ok(wait_until('more looks', sub { look(); return $asked->() >= $before + 130 }), 'answers of 400 MB altogether');
	$fake{bad}->clear_faults;
	$fake{bad}->close_door;
	$fake{bad}->open_door;
	until_over(@jobs);
	is(scalar(grep { outcome($_) ne $nonsense } @jobs), 0, 'and all end as they did');
	return;
}

inspects();
begins();
many_long_ones();
kills();
pulls();

my $good = join ',', @good;
$node->job_wait($good[-1]);
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($good) AND status <> 'completed'", 0), scalar(@good) . ' jobs of another host have completed');
is_deeply([ map { @{ $_->state->{started_twice} } } values %fake ], [], 'nothing was started twice');
cmp_ok($memory, '>', 0, 'the memory of the executor was seen');
cmp_ok($memory, '<', $bound, 'the executor stays small');
note sprintf 'executor: %.1f MB at most', $memory;
is($node->executor_pid, $executor, 'it is the same executor');
is(sql('SELECT last_error FROM cm_status'), '', 'it met no error');
done_testing();
