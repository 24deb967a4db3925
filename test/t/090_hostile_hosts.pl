# Engines that answer nonsense, too much, too slowly or not at all when a host is
# asked what it is: each has its own clear error, in cm_host_status and from
# cm_check_host; the executor stays small, is the same process, serves a good host
# all the while, and takes each host back when its engine behaves again.

use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use CM::Logs qw(wait_until memory_of);
use Test::More;
use Time::HiRes qw(time);

# MB of the executor: replies of 1 MB at most are read here.
my $bound = $ENV{CM_SANITIZED} ? 300 : 60;

my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
my $good = CM::FakeEngine->start;
$node->add_host('good', $good);

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub hex_of { my ($text) = @_; return [ unpack('H*', $text), '', 1 ]; }

# An answer as it goes over the wire; what follows it, and how often (0: for ever).
sub raw
{
	my ($head, @pieces) = @_;
	return (raw => [ ($head eq '' ? () : hex_of($head =~ s/\n/\r\n/gr)), @pieces ]);
}

my $ok = "HTTP/1.1 200 OK\n";
my $json = '{"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}';
my $stranger = 'what answers there does not speak the Docker Engine API';

# How the engine misbehaves, and what is said of it.
my @version = (
	[ 'a page', { status => 200, body => '<html>' }, qr/^$stranger: cannot make sense of the reply: not valid JSON at byte/ ],
	[ 'nothing', { status => 200, body => '' }, qr/^$stranger: .*not valid JSON/ ],
	[ 'a list', { status => 200, body => '[]' }, qr/^$stranger: cannot make sense of the API version/ ],
	[ 'versions that are none', { status => 200, body => '{"Version": 7, "ApiVersion": 1.41}' }, qr/cannot make sense of the API version/ ],
	[ 'a version of another kind', { status => 200, body => '{"ApiVersion": "2.0"}' }, qr/cannot make sense of the API version/ ],
	[ 'deep JSON', { status => 200, body => '[' x 100_000 }, qr/JSON is nested too deeply/ ],
	[ 'bytes that are no text', { raw(qq{${ok}Content-Length: 8\n\n}, hex_of("{\"a\xff\xfe\":1}")) }, qr/JSON is not UTF-8/ ],
	[ 'a NUL', { raw(qq{${ok}Content-Length: 9\n\n}, hex_of("{\"a\0b\":1}")) }, qr/JSON is not UTF-8/ ],
	[ 'a body of 1 TB', { huge_body => 1 << 40 }, qr/reply is longer than 1048576 bytes/ ],
	[ 'a length of 1 TB', { raw("${ok}Content-Length: 1099511627776\n\n", [ '', 'x', 0 ]) }, qr/reply is longer than 1048576 bytes/ ],
	[ 'a length that is too long', { raw("${ok}Content-Length: 1000\n\n", hex_of($json)) }, qr/connection closed before the reply was complete/ ],
	[ 'a length that is too short', { raw("${ok}Content-Length: 20\n\n", hex_of($json)) }, qr/not valid JSON/ ],
	[ 'a length that is none', { raw("${ok}Content-Length: -5\n\n", hex_of($json)) }, qr/^$stranger/ ],
	[ 'HTTP/0.9', { raw('', hex_of($json)) }, qr/^$stranger: reply is not valid HTTP/ ],
	[ 'chunks that are none', { raw("${ok}Transfer-Encoding: chunked\n\nzz\n{}\n") }, qr/^$stranger/ ],
	[ 'a chunk of 16 EB', { raw("${ok}Transfer-Encoding: chunked\n\nfffffffffffffff0\n", [ '', 'x', 0 ]) }, qr/^$stranger/ ],
	[ 'headers for ever', { endless_headers => 1 }, qr/reply headers are longer than 65536 bytes/ ],
	[ 'a header for ever', { raw("${ok}X: ", [ '', 'x', 0 ]) }, qr/reply headers are longer than/ ],
	[ 'interim answers for ever', { raw('', [ '', "HTTP/1.1 100 Continue\r\n\r\n", 0 ]) }, qr/reply headers are longer than 65536 bytes/ ],
	[ 'another protocol', { raw("HTTP/1.1 101 UPGRADED\nConnection: Upgrade\nUpgrade: tcp\n\n") }, qr/^$stranger/ ],
	[ 'a redirect', { redirect => 'http://127.0.0.1:1/' }, qr/HTTP status 302/ ],
	[ 'a byte at a time', { slow_drip_ms => 500 }, qr/^timed out/ ],
	[ 'half of it', { half_body => 1 }, qr/connection closed before the reply was complete/ ],
);
my @info = (
	[ 'the answer to another request', { status => 200, body => '[]' }, qr/cannot make sense of the reply to info/ ],
	[ 'too new', { status => 400, message => 'client version 1.41 is too old. Minimum supported API version is 1.44' }, qr/client version 1\.41 is too old\. Minimum/ ],
	[ 'long words', { status => 500, message => "a\nb\x1b[31m\t" x 40_000 }, qr/^a b \[31m a b/ ],
);
my @events = (
	[ 'no such path', { status => 404, message => 'page not found' }, qr/page not found/ ],
	[ 'an end at once', { pieces => [ [ '', "\n", 1 ] ] }, qr/^the engine closed the event stream$/ ],
);
my @cases = (
	(map { [ 'version', '/version$', @$_ ] } @version),
	(map { [ 'info', '/info$', @$_ ] } @info),
	(map { [ 'events', '/events$', @$_ ] } @events));

# ------------------------------------------------------- all at once

my (@fake, @host);
for my $case (@cases)
{
	my ($call, $path, $what, $fault) = @$case;
	my $fake = CM::FakeEngine->start;
	$fake->fault(method => 'GET', path => $path, %$fault);
	push @fake, $fake;
	push @host, sprintf 'h%02d', scalar @host;
	$node->add_host($host[-1], $fake);
}
my $executor = $node->executor_pid;
my ($memory, @jobs) = (0);

# The good host always has jobs.
sub look
{
	my $now = memory_of($executor);
	$memory = $now if $now > $memory;
	push @jobs, $node->submit(q{'x:1', 'echo hello', host => 'good'});
	return;
}

sub state_of { my ($host) = @_; return sql("SELECT state || '|' || coalesce(error, '') FROM cm_host_status WHERE name = '$host'"); }

my $begun = time;
for my $i (0 .. $#cases)
{
	my ($call, undef, $what, undef, $error) = @{ $cases[$i] };
	my $seen = '';
	wait_until("$call: $what", sub { look(); $seen = state_of($host[$i]); return $seen =~ /^unhealthy\|/ && $seen =~ s/^unhealthy\|//r =~ $error });
	like($seen, qr/^unhealthy\|/, "$call: $what: unhealthy");
	like($seen =~ s/^\w+\|//r, $error, "$call: $what: and why");
	cmp_ok(length $seen, '<', 600, "$call: $what: in a line") or diag($seen);
}
note sprintf 'it took %.1f s', time - $begun;

# The same from a session: cm_check_host answers, cm_host_info throws.
my $session = $node->session('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $largest = 0;
for my $i (grep { $cases[$_][0] eq 'version' } 0 .. $#cases)
{
	my (undef, undef, $what, undef, $error) = @{ $cases[$i] };
	my $answer = $session->query("SELECT ok || '|' || error FROM cm_check_host('$host[$i]', timeout => '3 s')");
	like($answer, qr/^f\w*\|/, "cm_check_host: $what");
	like($answer =~ s/^\w+\|//r, $error, "cm_check_host: $what: and why");
	my $now = memory_of($pid);
	$largest = $now if $now > $largest;
}
for my $i (grep { $cases[$_][0] eq 'info' } 0 .. $#cases)
{
	$session->{stderr} = '';
	$session->query("SELECT * FROM cm_host_info('$host[$i]')");
	like($session->{stderr}, qr/ERROR:  host "$host[$i]": /, "cm_host_info: $cases[$i][2]");
}
cmp_ok($largest, '<', $bound, 'the session stays small') or note($largest);
my ($slow) = grep { $cases[$_][2] eq 'a byte at a time' } 0 .. $#cases;
for my $call ("cm_check_host('$host[$slow]', '1 h')", "cm_host_info('$host[$slow]')")
{
	$session->{stderr} = '';
	$session->query("SET statement_timeout = '300ms'; SELECT * FROM $call; RESET statement_timeout");
	like($session->{stderr}, qr/canceling statement due to statement timeout/, "$call can be interrupted");
}
$session->quit;

# ------------------------------------------------------- and back

$_->clear_faults for @fake;
for my $i (0 .. $#cases)
{
	ok(wait_until("$cases[$i][2] is over", sub { look(); return state_of($host[$i]) eq 'healthy|' }), "$cases[$i][0]: $cases[$i][2]: healthy again");
}
# One that comes and goes is not asked all the time.
my $flapping = $fake[0];
my $before = $flapping->state->{requests}{'GET /version'};
my $from = time;
wait_until('5 s', sub { look(); $flapping->drop_events; return time - $from > 5 });
my $rate = ($flapping->state->{requests}{'GET /version'} - $before) / (time - $from);
cmp_ok($rate, '<', 4, 'a host that comes and goes is tried seldom');
note sprintf '%.1f times a second', $rate;

my %job = map { $host[$_] => $node->submit("'x:1', 'echo hello', host => '$host[$_]'") } 0 .. $#cases;
is(join(' ', map { $node->job_wait($job{$_}) } @host), join(' ', ('completed') x @host), 'and all of them run jobs');
is(scalar(grep { @{ $_->state->{started_twice} } } @fake), 0, 'each once');

my $all = join ',', @jobs;
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($all) AND status <> 'completed'", 0),
	scalar(@jobs) . ' jobs of the good host have completed meanwhile');
cmp_ok($memory, '>', 0, 'the memory of the executor was seen');
cmp_ok($memory, '<', $bound, 'the executor stays small');
note sprintf 'executor at most %.1f MB, session %.1f MB', $memory, $largest;
is($node->executor_pid, $executor, 'it is the same executor');
is(sql('SELECT last_error FROM cm_status'), '', 'it met no error');

done_testing();
