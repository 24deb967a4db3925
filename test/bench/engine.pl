# What the extension adds to a real engine: latency from COMMIT to the create
# request and from a container's end to the recorded one, and jobs per second next
# to a plain client.  `make bench`; measures and shows, and asserts no time.
# CM_BENCH_SAMPLES=n, CM_BENCH_CONTAINERS=n, CM_BENCH_ROUNDS=n.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use File::Basename qw(dirname);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:bench');
# As a server is run: what is committed is on disk.
my $node = CM::Cluster->new_preloaded('bench', 'fsync' => 'on', 'log_min_messages' => 'warning');
$node->start;
for my $database (qw(latency rate))
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION container_manager');
}

my $stderr = '';
my $done = IPC::Run::run(
	[ '/usr/bin/python3', '-u', dirname(__FILE__) . '/measure.py',
		'host=' . $node->host . ' port=' . $node->port . ' user=' . getpwuid($<),
		$engine->socket, PostgreSQL::Test::Utils::tempdir_short() ],
	'<', \undef, '>', sub { diag($_[0]) }, '2>', \$stderr);
ok($done, 'measured') or diag($stderr);
$node->stop;

done_testing();
