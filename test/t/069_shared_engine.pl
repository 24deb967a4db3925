# Two servers, one of them with two databases, use one engine: none touches the
# others' containers, and each shows them as foreign.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::FakeEngine;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1', count_starts => 1);
$engine->import_busybox('busybox:test');
my %node = map { $_ => CM::Cluster->new_with_extension($_, 'container_manager.heartbeat_interval' => '1s') } qw(here there);
$node{here}->safe_psql('postgres', 'CREATE DATABASE other');
$node{here}->safe_psql('other', 'CREATE EXTENSION container_manager');
my @all = ([ here => 'postgres' ], [ here => 'other' ], [ there => 'postgres' ]);

sub sql { my ($where, $sql) = @_; return $node{ $where->[0] }->safe_psql($where->[1], $sql); }
sub wait_in { my ($where, $sql, $expected, $what) = @_; return ok($node{ $where->[0] }->wait_for_sql($sql, $expected, database => $where->[1]), "@$where: $what"); }
sub shown { my ($where, $columns) = @_; return sql($where, "SELECT $columns FROM cm_list_containers('local')"); }

my (%job, %epoch);
for my $where (@all)
{
	sql($where, "SELECT cm_add_host('local', '" . $engine->url . "')");
	$job{"@$where"} = sql($where, q{SELECT cm_submit_job('busybox:test', 'until [ -e /tmp/go ]; do sleep 0.2; done; exit 4')});
	$epoch{"@$where"} = sql($where, 'SELECT epoch FROM cm_internal.identity');
}
is(join(' ', values %job), '1 1 1', 'all have a job of the same number');
wait_in($_, 'SELECT status FROM cm_jobs', 'running', 'its job runs') for @all;
is($engine->docker(qw(run -d --name stranger busybox:test sleep 600)) ne '', 1, 'somebody else runs a container');

for my $where (@all)
{
	is(shown($where, "string_agg(belongs_to, ' ' ORDER BY belongs_to)"), 'foreign foreign this database', "@$where: sees its own and foreign containers");
	is(sql($where, "SELECT epoch = '$epoch{\"@$where\"}' AND job_id = 1 AND attempt = 1 AND incarnation = 1 AND state = 'running'"
		  . " AND image = 'busybox:test' AND name LIKE 'cm-default-1-1-%' AND created_at > now() - interval '1 h'"
		  . " FROM cm_list_containers('local') WHERE belongs_to = 'this database'"), 't', "@$where: with all that is known");
}

# One goes and one is killed off; the others' run on.
sql($all[2], 'SELECT cm_cancel_job(1)');
wait_in($all[2], 'SELECT status FROM cm_jobs', 'cancelled', 'its job is cancelled');
sql($all[1], 'DROP EXTENSION container_manager');
wait_in($all[1], "SELECT count(*) FROM pg_stat_activity WHERE datname = 'other' AND backend_type = 'container_manager executor'", 0, 'dropped');
$node{here}->restart;
$node{there}->restart;
wait_in($all[0], 'SELECT healthy_hosts FROM cm_status', 1, 'is back');
wait_in($all[2], 'SELECT healthy_hosts FROM cm_status', 1, 'is back');
is(shown($all[0], "string_agg(belongs_to, ' ')"), 'this database', 'only its own is left');
is(shown($all[2], "string_agg(belongs_to, ' ')"), 'foreign', 'which is foreign to the other');
is($engine->inspect('stranger')->{State}{Status}, 'running', 'the stranger runs');
my ($container) = $engine->containers(label => "container-manager.epoch=$epoch{'here postgres'}");
$engine->docker('exec', $container->{Id}, 'touch', '/tmp/go');
wait_in($all[0], 'SELECT status || exit_code FROM cm_jobs', 'failed4', 'its job ends as it should');
is(scalar(my @starts = $engine->starts), 4, 'everything was started once');

# A database that was copied is somebody else, too.
sql($all[0], q{SELECT cm_submit_job('busybox:test', 'until [ -e /tmp/go ]; do sleep 0.2; done; exit 4')});
wait_in($all[0], 'SELECT status FROM cm_jobs ORDER BY id DESC LIMIT 1', 'running', 'another job runs');
$node{here}->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
my $copy = [ here => 'copy' ];
sql($copy, 'SELECT cm_start_executor()');
wait_in($copy, 'SELECT healthy_hosts FROM cm_status', 1, 'runs');
isnt(sql($copy, 'SELECT epoch FROM cm_internal.identity'), $epoch{'here postgres'}, 'the copy has another epoch');
is(shown($copy, "string_agg(belongs_to, ' ')"), 'foreign', 'the copy does not take the container for its own');
wait_in($all[0], "SELECT belongs_to FROM cm_list_containers('local')", 'this database', 'but its own does');
sql($all[0], 'SELECT cm_cancel_job(max(id)) FROM cm_jobs');
wait_in($all[0], 'SELECT count(*) FROM cm_internal.queue', 0, 'it ends');

# --- hostile and unfit engines

my $fake = CM::FakeEngine->start;
sql($all[0], "SELECT cm_add_host('fake', '" . $fake->url . "')");
wait_in($all[0], "SELECT state FROM cm_host_status WHERE name = 'fake'", 'healthy', 'another engine is there');
my $good = '"container-manager.version":"1","container-manager.kind":"job","container-manager.job":"7","container-manager.attempt":"2"';
my $id = 'a' x 64;
my $uuid = '00000000-0000-0000-0000-00000000000f';
my @lists = (
	'{}' => qr/ERROR:.*host "fake": .*cannot make sense of the reply to list/,
	'[' => qr/ERROR:.*host "fake": .*cannot make sense of the reply/,
	'[null, 3, {}, {"Labels": []}, {"Labels": {"container-manager.kind": "job"}}]' => qr/\A\z/,
	qq([{"Id":"$id","Labels":{$good,"container-manager.epoch":"x"}}]) => qr/\A\z/,
	qq([{"Id":"short","Labels":{$good,"container-manager.epoch":"$uuid"}}]) => qr/\A\z/,
	qq([{"Id":"$id","Names":7,"Created":1e400,"Labels":{$good,"container-manager.epoch":"$uuid"}}]) => qr/\A$id\|\|\|\|\|foreign\|$uuid\|\|7\|2\z/,
	qq([{"Id":"$id","Names":["/a\\u001b[31mb"],"Created":-5,"State":"odd","Labels":{$good,"container-manager.epoch":"$uuid","container-manager.incarnation":"99999999999"}}])
		=> qr/\A$id\|a \[31mb\|\|odd\|\|foreign\|$uuid\|\|7\|2\z/);
while (my ($body, $expected) = splice @lists, 0, 2)
{
	$fake->fault(method => 'GET', path => '/containers/json$', status => 200, body => $body);
	my ($stdout, $stderr) = ('', '');
	$node{here}->psql('postgres', "SELECT * FROM cm_list_containers('fake')", stdout => \$stdout, stderr => \$stderr);
	like($stdout . $stderr, $expected, 'a list of ' . substr($body, 0, 60));
	$fake->clear_faults;
}

# What cannot be asked who is in charge is not used, and says why.
for my $fault ([ status => 501, message => 'volumes are not implemented' ], [ status => 200, body => '[]' ], [ status => 200, body => '{"Volumes": 3}' ])
{
	$fake->fault(method => 'GET', path => '/volumes$', @$fault);
	wait_in($all[0], "SELECT state || ': ' || hint FROM cm_host_status WHERE name = 'fake' AND error LIKE '%volumes whether another server has taken over%'",
		'unhealthy: The engine must allow to list and to make volumes.', 'a host that does not tell its volumes cannot be used');
	$fake->clear_faults;
	wait_in($all[0], "SELECT state FROM cm_host_status WHERE name = 'fake'", 'healthy', 'it can when it does');
}

# Marks that are none of ours, or no marks at all.
my %mark = (Name => 'm', Labels => { 'container-manager.version' => '1', 'container-manager.kind' => 'marker', 'container-manager.epoch' => $epoch{'here postgres'}, 'container-manager.incarnation' => '9' });
for my $change ({ epoch => $uuid }, { version => '2' }, { kind => 'job' }, { incarnation => '-3' }, { incarnation => '9999999999' }, { incarnation => '1', home => '1.1' })
{
	my %labels = (%{ $mark{Labels} }, map { ("container-manager.$_" => $change->{$_}) } keys %$change);
	my $volumes = JSON::PP->new->encode({ Volumes => [ { Name => 'm', Labels => \%labels }, undef, 5, { Labels => undef } ] });
	my $seen = $fake->state->{requests}{'GET /volumes'};
	$fake->fault(method => 'GET', path => '/volumes$', status => 200, body => $volumes);
	for (1 .. 600) { last if $fake->state->{requests}{'GET /volumes'} >= $seen + 2; select(undef, undef, undef, 0.1); }
	my $is_held = exists $change->{home};
	wait_in($all[0], 'SELECT state FROM cm_status', $is_held ? 'held' : 'running', "a mark with @{[%$change]}");
	$fake->clear_faults;
}

# That was a forged one: the host that shows it is named, and can be removed.
like(sql($all[0], 'SELECT explanation FROM cm_status'), qr/mark on host "fake"/, 'the witness is named');
sql($all[0], "SELECT cm_remove_host('fake')");
sql($all[0], 'SELECT cm_take_over()');
wait_in($all[0], 'SELECT healthy_hosts FROM cm_status', 1, 'goes on without it');

$_->stop for values %node;
done_testing();
