# Two servers, one of them with two databases, use one engine: none touches the
# others' containers, and each shows them as foreign.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
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
$engine->docker_try('exec', $container->{Id}, 'touch', '/tmp/go');
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

$_->stop for values %node;
done_testing();
