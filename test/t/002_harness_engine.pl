# The tests' own tools: a real engine that can be stopped, killed and hung, and
# leaves nothing.  When this fails, look here before looking at the extension.
use strict;
use warnings;

use CM::Engine;
use CM::Http qw(unix_http);
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;

my $began = time;
my $engine = CM::Engine->start(name => 'e1', live_restore => 1);
note sprintf 'started in %.2f s', time - $began;

$engine->import_busybox('busybox:test', user => '1001', env => { A => 'b' });
is($engine->docker(qw(run --rm busybox:test id -u)), '1001', 'image with a user');
is($engine->docker(qw(run --rm busybox:test sh -c), 'echo $A'), 'b', 'image with an environment');
my ($status, $stdout, $stderr) = $engine->docker_try(qw(run --rm busybox:test sh -c), 'echo no >&2; exit 3');
is("$status|$stdout|$stderr", "3||no\n", 'exit status and stderr of a command');

$engine->import_busybox('busybox:words', entrypoint => [ 'echo', 'a b' ], cmd => ['c']);
is($engine->docker(qw(run --rm busybox:words)), 'a b c', 'image with ENTRYPOINT and CMD');

# A container outlives its killed daemon.
$engine->docker(qw(run --detach --name long --label k=v busybox:test sleep 1000));
my $started = $engine->inspect('long')->{State}{StartedAt};
$began = time;
$engine->kill9;
is((unix_http($engine->socket, 'GET', '/_ping'))[0], 0, 'no answer from a killed engine');
$engine->start_again;
note sprintf 'killed and started again in %.2f s', time - $began;
my ($container) = $engine->containers(label => 'k=v');
is($container->{State}, 'running', 'container runs on after kill -9 with live restore');
is($engine->inspect('long')->{State}{StartedAt}, $started, 'and was not started again');
is(scalar $engine->containers(label => 'k=other'), 0, 'filter');

$engine->pause;
is((unix_http($engine->socket, 'GET', '/_ping', undef, timeout => 0.3))[0], 0, 'no answer from a hung engine');
$engine->resume;
ok($engine->wait_ready, 'answer after it woke up');
$began = time;
$engine->restart;
note sprintf 'restarted in %.2f s', time - $began;
is($engine->docker(qw(ps --quiet --filter name=long --format {{.Names}})), 'long', 'restart keeps it, too');

# Two at a time, each with a network of its own.
$began = time;
my $other = CM::Engine->start(name => 'e2', data_mb => 64, args => [qw(--host tcp://0.0.0.0:2375 --tls=false)]);
note sprintf 'started with a file system and TCP in %.2f s', time - $began;
isnt($other->socket, $engine->socket, 'second engine');
is(scalar $other->containers, 0, 'second engine sees nothing of the first');
my $peer = $other->address . ':2375';
my $ping = sub {
	return IO::Socket::INET->new(PeerAddr => $peer, Timeout => 1) ? 1 : 0;
};
require IO::Socket::INET;
is($ping->(), 1, 'reached by TCP');
$other->cut_network;
is($ping->(), 0, 'not when the network is cut');
$other->mend_network;
my $deadline = time + 180;
my $mended;
until ($mended = $ping->() or time > $deadline) { usleep(50_000) }
is($mended, 1, 'and again when it is mended');
like($other->as_root(qw(df -m), $other->dir . '/data'), qr/\b64\b/, 'data on a small file system');
ok(!eval { CM::Engine->start(args => ['--no-such-option']); 1 }, 'a wrong option is an error');
like($@, qr/unknown flag: --no-such-option/, 'that carries the daemon\'s words');

# Nothing stays.
my $dir = $engine->dir;
$began = time;
undef $engine;
$other->destroy;
note sprintf 'ended in %.2f s', time - $began;
ok(!-e $dir && !-e $other->dir, 'folders are gone');
# Of these two: other scripts may have engines of their own at the time.
my @groups = map { m{([^/]+/e\d+)$} ? ("/sys/fs/cgroup/*/$1", "/sys/fs/cgroup/$1") : () } $dir, $other->dir;
is(scalar @groups, 4, 'names of their control groups');
is(join(' ', grep { -d } glob "@groups"), '', 'control groups are gone');
is(scalar(grep { m{\Q$dir\E} } split /\n/, do { local (@ARGV, $/) = '/proc/mounts'; <> }), 0, 'mounts are gone');
my @left = grep { m{\Q$dir\E/} } map { local (@ARGV, $/) = $_; <> // '' } glob '/proc/[0-9]*/cmdline';
is(scalar @left, 0, 'processes are gone');

done_testing();
