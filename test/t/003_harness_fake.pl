# The tests' own tools: the fake engine behaves as the real one where tests rely
# on it, and its faults do what they say.
use strict;
use warnings;

use CM::FakeEngine;
use CM::Http qw(unix_http unix_json);
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(time);

my $fake = CM::FakeEngine->start;
my $socket = $fake->socket;

sub call
{
	my ($method, $path, $data) = @_;
	return unix_json($socket, $method, "/v1.41$path", $data);
}

sub status
{
	my ($method, $path, $body, $timeout) = @_;
	my ($status) = unix_http($socket, $method, $path, $body, timeout => $timeout // 60);
	return $status;
}

sub create
{
	my ($name, %config) = @_;
	return call('POST', "/containers/create?name=$name", { Image => 'busybox:test', %config })->{Id};
}

is((unix_http($socket, 'GET', '/_ping'))[1], 'OK', 'ping');
is(call('GET', '/version')->{ApiVersion}, '1.41', 'version');
is(status('GET', '/v1.99/info'), 400, 'too new a version');

# Life of a container, traps included.
my $id = create('one', Env => [ 'FAKE_EXIT=3', "FAKE_STDOUT=hello\n", "FAKE_STDERR=oops\n" ], Labels => { a => 'b' });
like($id, qr/^[0-9a-f]{64}$/, 'create');
is(status('POST', '/v1.41/containers/create?name=one', '{"Image":"x"}'), 409, 'a name can be had once');
is(call('POST', "/containers/$id/wait")->{StatusCode}, 0, 'wait on a created container answers 0 at once');
is(status('POST', "/v1.41/containers/$id/start"), 204, 'start');
is(call('POST', "/containers/$id/wait")->{StatusCode}, 3, 'wait');
my $state = call('GET', '/containers/one/json')->{State};
is("$state->{Status} $state->{ExitCode}", 'exited 3', 'inspect');
my ($code, $log) = unix_http($socket, 'GET', "/v1.41/containers/$id/logs?stdout=1&stderr=1");
is($log, "\1\0\0\0\0\0\0\6hello\n\2\0\0\0\0\0\0\5oops\n", 'logs in frames');
($code, $log) = unix_http($socket, 'GET', "/v1.41/containers/$id/logs?stdout=1&timestamps=1");
like(substr($log, 8), qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z hello$/, 'logs with time stamps');
is(status('POST', "/v1.41/containers/$id/kill"), 409, 'kill of an exited one');
is(status('POST', "/v1.41/containers/$id/start"), 204, 'start of an exited one runs it again');
call('POST', "/containers/$id/wait");
is_deeply($fake->state->{started_twice}, ['one'], 'and that is told');
is(scalar @{ call('GET', '/containers/json?all=1&filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D') }, 1, 'list by label');
is(scalar @{ call('GET', '/containers/json?all=1&filters=%7B%22label%22%3A%5B%22a%3Dc%22%5D%7D') }, 0, 'list by another');

# A command instead of the environment; kill; removal.
create('two', Cmd => [ 'sh', '-c', 'echo hi; sleep 1000; exit 4' ]);
is(status('POST', '/v1.41/containers/two/start'), 204, 'start by command');
is(status('POST', '/v1.41/containers/two/start'), 304, 'start of a running one');
is(status('DELETE', '/v1.41/containers/two'), 409, 'a running one is not removed');
is(status('POST', '/v1.41/containers/two/kill?signal=TERM'), 204, 'kill');
is(call('POST', '/containers/two/wait')->{StatusCode}, 143, 'exit code of the signal');
is(status('DELETE', '/v1.41/containers/two'), 204, 'remove');
is(status('GET', '/v1.41/containers/two/json'), 404, 'is gone');
create('three', Cmd => [ 'sleep', 'infinity' ]);
status('POST', '/v1.41/containers/three/start');
$fake->end_container('three', 9);
is(call('GET', '/containers/three/json')->{State}{ExitCode}, 9, 'ended from outside');

# Images.
$fake->set(images => ['here:1']);
is(status('POST', '/v1.41/containers/create', '{"Image":"away:1"}'), 404, 'image missing');
like((unix_http($socket, 'POST', '/v1.41/images/create?fromImage=away&tag=1'))[1], qr/Downloaded/, 'pull');
is(status('POST', '/v1.41/containers/create', '{"Image":"away:1"}'), 201, 'image there');
$fake->set(images => undef);

# Faults.
my $fault = $fake->fault(method => 'POST', path => '/start$', close_after_request => 1, times => 1);
create('four');
is(status('POST', '/v1.41/containers/four/start'), 0, 'connection closed');
is($fake->state->{containers}{four}{starts}, 0, 'without effect');
$fake->fault(path => '/start$', close_after_request => 1, effect => 1, times => 1);
is(status('POST', '/v1.41/containers/four/start'), 0, 'connection closed');
is($fake->state->{containers}{four}{starts}, 1, 'with effect');
for my $case (
	[ { status => 500, message => 'no space left on device' }, 500, 'status' ],
	[ { hang => 1 }, 0, 'hang' ],
	[ { garbage => 1 }, 0, 'garbage' ],
	[ { endless_headers => 1 }, 0, 'endless headers' ],
	[ { redirect => 'http://elsewhere/' }, 302, 'redirect' ],
	[ { huge_body => 3_000_000 }, 200, 'huge body' ],
	[ { delay_ms => 100 }, 200, 'delay' ],
	[ { hold => 1 }, 0, 'hold' ],
	[ { slow_drip_ms => 0.1 }, 200, 'slow drip' ],
	[ { half_body => 1 }, 200, 'half a body' ])
{
	my ($what, $expected, $name) = @$case;
	$fake->fault(path => '/info$', times => 1, %$what);
	# None at all is waited for so long.
	is(status('GET', '/v1.41/info', undef, $expected ? 60 : 1), $expected, $name);
}
{
	my $held = create('held', Env => ['FAKE_RUN_MS=1e12']);
	my $fault = $fake->fault(path => '/start$', hold => 1, effect => 1, times => 1);
	my $client = IO::Socket::UNIX->new(Peer => $socket);
	print $client "POST /v1.41/containers/$held/start HTTP/1.0\r\n\r\n";
	$client->flush;
	ok($fake->wait_for(held => 1), 'a request is held back');
	is($fake->state->{containers}{held}{status}, 'running', 'which has had its effect');
	$fake->clear_faults($fault);
	like(do { local $/; <$client> }, qr{^HTTP/1.1 204}, 'and is answered when it is let go');
	is($fake->state->{held}, 0, 'none is held');
	$fake->end_container('held');
}
my ($half_status, $half) = do {
	$fake->fault(path => '/info$', times => 1, half_body => 1);
	unix_http($socket, 'GET', '/v1.41/info');
};
ok(!eval { JSON::PP::decode_json($half) }, 'half a body is not whole');
is(status('GET', '/v1.41/info'), 200, 'faults end by their times');

# Versions of newer engines.
$fake->set(api_version => '1.52', min_api_version => '1.44');
($code, my $text) = unix_http($socket, 'GET', '/v1.41/info');
is($code, 400, 'too old a version');
like($text, qr/client version 1\.41 is too old\. Minimum supported API version is 1\.44, please upgrade/, 'says so');
$fake->set(api_version => '1.41', min_api_version => '1.12');

# A daemon that is away.
$fake->close_door;
is(status('GET', '/_ping'), 0, 'refused');
$fake->open_door;
is(status('GET', '/_ping'), 200, 'and back');
is($fake->state->{containers}{one}{status}, 'exited', 'with what it had');
$fake->control('POST', '/reset');
is($fake->state->{creates}, 0, 'reset');

# Events.
my $events = IO::Socket::UNIX->new(Peer => $socket);
print $events "GET /v1.41/events?filters=%7B%22event%22%3A%5B%22die%22%5D%2C%22label%22%3A%5B%22a%3Db%22%5D%7D HTTP/1.0\r\n\r\n";
$events->flush;
ok($fake->wait_for(event_streams => 1), 'event stream');
for my $label (qw(b c))
{
	my $event_id = create("event-$label", Labels => { a => $label }, Env => ['FAKE_EXIT=7']);
	status('POST', "/v1.41/containers/$event_id/start");
}
ok($fake->wait_for(exits => 2), 'both ended');
$fake->emit(Type => 'container', Action => 'die', Actor => { ID => 'x', Attributes => { a => 'b' } });
$fake->drop_events;
my $stream = do { local $/; <$events> };
is(scalar(() = $stream =~ /"Action": "die"/g), 2, 'events by filter, and one made up');
like($stream, qr/"exitCode": "7"/, 'with the exit code');

done_testing();
