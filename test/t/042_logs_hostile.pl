# An engine that tells nonsense of a job's output, tells it for ever or stops in
# the middle: the job ends all the same, says that its output may not be whole,
# and the executor stays small and serves other jobs.

use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use CM::Logs qw(is_stored chunks_are_sound wait_until memory_of);
use Test::More;
use Time::HiRes qw(time);

my $fake = CM::FakeEngine->start;
my $node = CM::Cluster->new_with_extension('main', 'container_manager.max_log_size' => '1MB');
$node->add_host('fake', $fake, 'max_concurrent_jobs => 100');
my $executor = $node->executor_pid;

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# A frame for the fake's "pieces": hex, text, how often (0: for ever).
sub frame
{
	my ($type, $text, $times) = @_;
	$text = "2026-11-21T20:43:52.903214210Z $text";
	return [ unpack('H*', pack('Cx3N', $type, length $text)), $text, $times // 1 ];
}

# Submits a job that prints "one" and runs until it is ended from outside.
sub submit
{
	return $node->submit(q{'x:1', environment => '{"FAKE_STDOUT": "one\n", "FAKE_RUN_MS": "600000"}'});
}

sub container_of { my ($job) = @_; return sql("SELECT container_id FROM cm_jobs WHERE id = $job"); }

sub lines_of
{
	my ($job) = @_;
	return sql("SELECT string_agg(line, ';' ORDER BY ordinality) FROM cm_job_logs($job) WITH ORDINALITY");
}

sub end { my ($job) = @_; $fake->end_container(container_of($job), 0); return; }

sub flags { my ($job) = @_; return sql("SELECT status, logs_incomplete, detail FROM cm_jobs WHERE id = $job"); }

my $whole = 'completed|f|';
my $broken = 'completed|t|logs incomplete';

# ------------------------------------------------------- live

# A live view that is nonsense does no harm: the last reading mends it.
my @live = (
	# what, the fault, what is seen of it, what is left in the end, flags
	[ 'a frame of an unknown type', [ frame(1, "one\n"), [ '0900000000000005', 'hello', 1 ] ], 'one', 'one', $whole ],
	[ 'an error of the engine', [ frame(1, "one\n"), frame(3, "Error grabbing logs\n") ], 'one', 'one', $whole ],
	[ 'an end within a frame', [ frame(1, "one\n"), [ '0100000000000064', 'torn', 1 ] ], 'one', 'one', $whole ],
	[ 'something else', [ frame(2, "other\n") ], 'other', 'one', $broken ],
	[ 'more than there is', [ frame(1, "one\n"), frame(1, "two\n") ], 'one;two', 'one;two', $broken ],
);
for my $case (@live)
{
	my ($what, $pieces, $seen, $left, $flags) = @$case;
	$fake->fault(method => 'GET', path => '/logs$', times => 1, pieces => $pieces, then => 'hang');
	my $job = submit();
	ok($node->wait_for_sql("SELECT string_agg(line, ';' ORDER BY ordinality)"
			  . " FROM cm_job_logs($job) WITH ORDINALITY", $seen), "live: $what: seen as far as it can be");
	end($job);
	$node->job_wait($job);
	is(flags($job), $flags, "live: $what: flags");
	is(lines_of($job), $left, "live: $what: lines");
	chunks_are_sound($node, $job, "live: $what");
}

# ------------------------------------------------------- the last reading

my $torn = [ '0100000000000064', 'torn', 1 ];
my $ones = frame(1, "x\n", 200_000);
my @last = (
	# what, the fault, lines in the end, flags
	[ '404', { status => 404, message => 'no such container' }, 'one', $broken ],
	[ '501', { status => 501, message => 'cannot be read' }, 'one', $broken ],
	[ '500 for a while', { status => 500, message => 'wait', times => 2 }, 'one', $whole ],
	[ '500 for ever', { status => 500, message => 'no' }, 'one', $broken ],
	[ 'a connection cut once', { close_after_request => 1, times => 1 }, 'one', $whole ],
	[ 'no HTTP', { garbage => 1 }, 'one', $broken ],
	[ 'a frame of an unknown type', { pieces => [ frame(1, "one\n"), [ '0900000000000005', 'hello', 1 ] ] }, 'one', $broken ],
	[ 'no frames', { pieces => [ [ '', "hello, I am raw\n", 1000 ] ] }, 'one', $broken ],
	[ 'a frame of 2 GB', { pieces => [ frame(1, "one\n"), [ '010000007fffffff', 'x', 1 ], [ '', 'x', 0 ] ] }, 'one', $broken ],
	[ 'a frame of 4 GB', { pieces => [ frame(1, "one\n"), [ '01000000ffffffff', 'x', 1 ], [ '', 'x', 0 ] ] }, 'one', $broken ],
	[ 'an end within a frame', { pieces => [ frame(1, "one\n"), frame(1, "two\n"), $torn ] }, 'one;two', $broken ],
	[ 'an end within a header', { pieces => [ frame(1, "one\n"), [ '010000', '', 1 ] ] }, 'one', $broken ],
	[ 'an error of the engine', { pieces => [ frame(1, "one\n"), frame(3, "Error grabbing logs\n") ] }, 'one', $broken ],
	[ 'errors for ever', { pieces => [ frame(3, "Error grabbing logs\n", 0) ] }, 'one', $broken ],
	[ 'a log that has shrunk', { status => 200, body => '' }, 'one', $broken ],
	[ 'a log that differs', { pieces => [ frame(1, "uno\n"), frame(2, "due\n") ] }, 'uno;due', $broken ],
	[ 'a log that has grown', { pieces => [ frame(1, "one\n"), frame(2, "two\n"), frame(1, 'end') ] }, 'one;two;end', $whole ],
	[ 'a stop within a frame', { pieces => [ frame(1, "one\n"), frame(1, "two\n"), $torn ], then => 'hang' }, 'one;two', $broken ],
	[ 'a stop, once', { hang => 1, times => 1 }, 'one', $whole ],
	[ 'a stop at a refusal', { status => 404, body => 'x' x 3_000_000 }, 'one', $broken ],
	[ 'a drip', { slow_drip_ms => 500 }, 'one', $broken ],
	[ 'output for ever', { pieces => [ frame(1, "one\n"), frame(2, 'y' x 1000, 0) ] }, undef, $broken ],
	[ 'output for ever that differs', { pieces => [ frame(1, 'z' x 1000, 0) ] }, undef, $broken ],
	[ 'nothing for ever', { pieces => [ frame(1, "one\n"), frame(1, '', 0) ] }, undef, $broken ],
	[ 'frames of two bytes', { pieces => [ frame(1, "one\n"), $ones ] }, undef, $whole ],
);
# Their containers' ids make the faults their own.
my @jobs = map { submit() } @last;
my $jobs = join ',', @jobs;
ok( $node->wait_for_sql(
		"SELECT count(*) FROM unnest(ARRAY[$jobs]::bigint[]) j, cm_job_logs(j) l WHERE l.line = 'one'",
		scalar @jobs),
	'the output of all is followed');
for my $i (0 .. $#last)
{
	$fake->fault(method => 'GET', path => '/containers/' . container_of($jobs[$i]) . '/logs', %{ $last[$i][1] });
}
my $begun = time;
end($_) for @jobs;

# Others are served meanwhile.
my $other = $node->submit(q{'x:1', 'echo hello'});
is($node->job_wait($other), 'completed', 'another job of that host ends');
is(lines_of($other), 'hello', 'with its output');

my $memory = 0;
ok( wait_until(
		'the end of all jobs',
		sub {
			my $now = memory_of($executor);
			$memory = $now if $now > $memory;
			return sql("SELECT count(*) FROM cm_jobs WHERE id IN ($jobs) AND status = 'completed'") == @jobs;
		}),
	'all jobs end');
note(sprintf 'it took %.1f s; the executor had at most %.1f MB', time - $begun, $memory);
cmp_ok($memory, '>', 0, 'the memory of the executor was seen');
cmp_ok($memory, '<', 150, 'the executor stays small');
is($node->executor_pid, $executor, 'it is the same executor');

for my $i (0 .. $#last)
{
	my ($what, undef, $lines, $flags) = @{ $last[$i] };
	is(flags($jobs[$i]), $flags, "$what: flags");
	is(lines_of($jobs[$i]), $lines, "$what: lines") if defined $lines;
	chunks_are_sound($node, $jobs[$i], $what);
}
my %job = map { $last[$_][0] => $jobs[$_] } 0 .. $#last;
my $limit = 1 << 20;
is_stored($node, $job{'output for ever'}, 'stderr', 'y' x 1000 x int(($limit - 4) / 1000),
	'output for ever: as much as the limit allows');
is_stored($node, $job{'output for ever that differs'}, 'stdout', 'z' x 1000 x int($limit / 1000),
	'output for ever that differs: as much as the limit allows');
is_stored($node, $job{'nothing for ever'}, 'stdout', "one\n", 'nothing for ever: nothing');
is_stored($node, $job{'frames of two bytes'}, 'stdout', "one\n" . "x\n" x 200_000, 'frames of two bytes');
is(sql('SELECT count(*) FROM cm_internal.queue'), 0, 'nothing is left to do');

done_testing();
