# Copies of the server's files, made in several ways, and started beside the
# original or in its place: which of them go on by themselves, which hold, and how
# a hold ends.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use PostgreSQL::Test::Utils;
use Test::More;

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1', count_starts => 1);
$engine->import_busybox('busybox:test');
my $main = CM::Cluster->new('main');
$main->init(allows_streaming => 1, has_archiving => 1);
$main->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'container_manager'
max_worker_processes = 16
fsync = off
restart_after_crash = on
log_min_messages = info
log_statement = none
container_manager.poll_interval = 200ms
container_manager.heartbeat_interval = 1s
CONF
$main->start;
$main->safe_psql('postgres', 'CREATE EXTENSION container_manager');
$main->add_host('local', $engine, 'max_concurrent_jobs => 1');

my $waits = q{'busybox:test', 'echo begun; until [ -e /tmp/go ]; do sleep 0.2; done; echo over; exit 5'};
my $n_starts = 0;

sub in { my ($node, $sql) = @_; return $node->safe_psql('postgres', $sql); }
sub incarnation { return in($_[0], 'SELECT incarnation FROM cm_internal.identity'); }
sub why_held { return in($_[0], 'SELECT held_because FROM cm_internal.identity'); }
sub wait_in { my ($node, $sql, $expected, $what) = @_; return ok($node->wait_for_sql($sql, $expected), $what); }
sub is_running { my ($node, $what) = @_; return wait_in($node, 'SELECT state FROM cm_status', 'running', "$what: goes on"); }

sub container_of
{
	my ($job) = @_;
	my ($container) = $engine->containers(label => "container-manager.job=$job");
	return $container;
}

sub let_end { my ($job) = @_; return $engine->docker_try('exec', container_of($job)->{Id}, 'touch', '/tmp/go'); }

# It has looked at its tables some times, and done nothing else.
sub is_idle
{
	my ($node, $what) = @_;
	my $turns = in($node, 'SELECT transactions FROM cm_status');
	wait_in($node, "SELECT state FROM cm_status WHERE transactions > $turns + 2", 'held', "$what: stays so");
	is(scalar(my @starts = $engine->starts), $n_starts, "$what: starts nothing");
	return;
}

sub is_held
{
	my ($node, $reason, $what) = @_;
	wait_in($node, 'SELECT state FROM cm_status', 'held', "$what: holds");
	is(why_held($node), $reason, "$what: because it is $reason");
	is(in($node, 'SELECT is_running FROM cm_status'), 'f', "$what: does not count as running");
	is(in($node, 'SELECT healthy_hosts FROM cm_status'), 0, "$what: claims no host");
	is_idle($node, $what);
	return;
}

sub clone
{
	my ($name, $backup, %option) = @_;
	my $node = CM::Cluster->new($name);
	$node->init_from_backup($main, $backup, %option);
	$node->append_conf('postgresql.conf', 'archive_mode = off');
	return $node;
}

# --- the original goes on

my $running = $main->submit($waits);
wait_in($main, "SELECT status FROM cm_jobs WHERE id = $running", 'running', 'a job runs');
my $pending = $main->submit(q{'busybox:test', 'exit 0'});
$n_starts = 1;
$main->backup('with jobs');

$main->restart;
is_running($main, 'restarted');
is(incarnation($main), 1, 'restarted: as it was');
my $pid = $main->executor_pid;
kill 'KILL', $pid;
wait_in($main, "SELECT executor_pid <> $pid FROM cm_status WHERE state = 'running'", 't', 'restarted after a crash: goes on');
$main->stop;
my $moved = "$main->{_basedir}/moved";
mkdir $moved or die "could not make $moved: $!\n";
rename $main->data_dir, "$moved/pgdata" or die "could not move the data directory: $!\n";
my $home = $main->{_basedir};
$main->{_basedir} = $moved;
$main->start;
is_running($main, 'moved to another folder');
is(incarnation($main), 1, 'moved: as it was');
$main->stop;
rename $main->data_dir, "$home/pgdata" or die "could not move the data directory back: $!\n";
$main->{_basedir} = $home;
$main->start;
is_running($main, 'moved back');
is(in($main, "SELECT status || attempt FROM cm_jobs WHERE id = $running"), 'running1', 'the job runs on');

# --- a clone beside it

my $clone = clone('clone', 'with jobs');
$clone->start;
is_held($clone, 'copied', 'clone');
like(in($clone, 'SELECT explanation FROM cm_status'), qr/On hold since.*are a copy.*Nothing is started, stopped or removed/, 'clone: says why');
like(in($clone, 'SELECT advice FROM cm_status'), qr/original.*cm_take_over/, 'clone: and what to do');
is(in($clone, "SELECT why FROM cm_ps WHERE id = $pending"), 'held: see cm_status', 'clone: what waits says why');
like(in($clone, "SELECT explanation FROM cm_job_explain($pending) WHERE item = 'advice'"), qr/cm_status/, 'clone: with advice');
like(in($clone, "SELECT explanation FROM cm_job_explain($running) WHERE item = 'why'"), qr/on hold and does not look/, 'clone: does not pretend to know what runs');
is(in($clone, 'SELECT state FROM cm_host_status'), 'unknown', 'clone: nor the host');
is(in($clone, 'SELECT cm_start_executor()'), 'f', 'clone: an executor is there');
my ($stdout, $stderr);
$clone->psql('postgres', "SELECT cm_submit_job('busybox:test', 'exit 0')", stdout => \$stdout, stderr => \$stderr);
like($stderr, qr/WARNING:.*nobody runs it: this server is on hold.*HINT:.*cm_status/s, 'clone: who submits is warned');
in($clone, "SELECT cm_cancel_job($running), cm_set_priority($pending, 99)");
in($clone, 'UPDATE cm_hosts SET max_concurrent_jobs = 10');
in($clone, 'CREATE ROLE somebody');
$clone->psql('postgres', 'SET ROLE somebody; SELECT cm_take_over()', stderr => \$stderr);
like($stderr, qr/permission denied for function cm_take_over/, 'clone: not everybody may take over');
$clone->restart;
is_held($clone, 'copied', 'clone, restarted');
is(in($main, 'SELECT state FROM cm_status'), 'running', 'the original runs');
is(in($main, "SELECT status || attempt FROM cm_jobs WHERE id = $running"), 'running1', 'with its job');

# A copy of the database within the clone is somebody else, with jobs of its own.
in($clone, 'CREATE DATABASE apart TEMPLATE postgres');
wait_in($clone, 'SELECT state FROM cm_status', 'held', 'clone: holds after it was copied from');
$clone->safe_psql('apart', 'SELECT cm_start_executor()');
ok($clone->wait_for_sql('SELECT state FROM cm_status', 'running', database => 'apart'), 'a copy within the clone runs');
my $own = $clone->safe_psql('apart', q{SELECT cm_submit_job('busybox:test', 'exit 0')});
is($clone->job_wait($own, database => 'apart'), 'completed', 'and has jobs of its own');
$n_starts++;
isnt($clone->safe_psql('apart', 'SELECT epoch FROM cm_internal.identity'), in($main, 'SELECT epoch FROM cm_internal.identity'), 'under an epoch of its own');

# --- it is told to take over

my $session = $clone->session;
$session->query_safe('BEGIN; SELECT cm_take_over()');
is_held($clone, 'copied', 'asked, not committed');
$session->query_safe('ROLLBACK');
is_held($clone, 'copied', 'asked, rolled back');
$session->quit;
is(in($clone, 'SELECT cm_take_over()'), 't', 'asked');
is_running($clone, 'asked');
wait_in($main, 'SELECT state FROM cm_status', 'held', 'the original sees it and holds');
is(why_held($main), 'superseded', 'because it is superseded');
is($clone->job_wait($running), 'cancelled', 'what was asked of the clone is done now');
is($clone->job_wait($pending), 'completed', 'and what waited runs');

# --- another one, which may take over by itself, comes too late

my $late = clone('late', 'with jobs');
$late->append_conf('postgresql.conf', 'container_manager.take_over_copies = on');
$late->start;
wait_in($late, 'SELECT held_because FROM cm_internal.identity', 'superseded', 'a second clone finds that another one has taken over');
is(incarnation($late), 2, 'though its incarnation is the same');
$late->restart;
wait_in($late, 'SELECT state FROM cm_status', 'held', 'the setting does not end that');
is(incarnation($late), 2, 'nor raises it');
$late->stop;
is(in($clone, 'SELECT state FROM cm_status'), 'running', 'the first goes on');

# --- the original is told to take over again, and is then set back in time

$clone->stop;
in($main, 'SELECT cm_take_over()');
is_running($main, 'asked');
is(incarnation($main), 3, 'above the clone');
wait_in($main, "SELECT count(*) FROM cm_internal.queue", 0, 'what it had is brought to an end');
my $again = $main->submit($waits);
wait_in($main, "SELECT status FROM cm_jobs WHERE id = $again", 'running', 'a job runs');
$n_starts = () = $engine->starts;
in($main, "SELECT pg_create_restore_point('before')");
my $after = $main->submit(q{'busybox:test', 'exit 0', run_at => now() + interval '1 h'});
in($main, 'SELECT pg_switch_wal()');
$main->stop;

my $restored = clone('restored', 'with jobs', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', "recovery_target_name = 'before'\nrecovery_target_action = promote\n");
$restored->start;
is_held($restored, 'copied', 'recovered to a point in time');
is(in($restored, "SELECT status FROM cm_jobs WHERE id = $again"), 'running', 'recovered: knows of the job');
is(in($restored, "SELECT count(*) FROM cm_jobs WHERE id = $after"), 0, 'recovered: not of what came later');
in($restored, 'SELECT cm_take_over()');
is_running($restored, 'recovered, asked');
is(incarnation($restored), 4, 'above the one that it was restored from');
let_end($again);
is($restored->job_wait($again), 'failed', 'the job ends');
is(in($restored, "SELECT attempt || ' ' || exit_code || ' ' || cm_job_output(id) FROM cm_jobs WHERE id = $again"), "1 5 begun\nover\n", 'started once, with its output');
my $next = $restored->submit(q{'busybox:test', 'exit 0'});
cmp_ok($next, '>', $after + 1000, 'numbers are not given out twice');
is($restored->job_wait($next), 'completed', 'recovered: a new job runs');
$n_starts++;
$restored->stop;

# In place: the same files, another timeline.
$restored->append_conf('postgresql.conf', "recovery_target_name = ''\nrestore_command = 'false'\n");
$restored->append_conf('recovery.signal', '');
$restored->start;
is_held($restored, 'recovered', 'recovered in place');
like(in($restored, 'SELECT explanation FROM cm_status'), qr/recovered to an earlier point/, 'in place: says so');
$restored->append_conf('postgresql.conf', 'container_manager.take_over_copies = on');
$restored->reload;
is_running($restored, 'the setting ends that');
is(incarnation($restored), 5, 'with another incarnation');
$restored->restart;
is_running($restored, 'restarted');
is(incarnation($restored), 5, 'restarted: as it was');
$restored->stop;

done_testing();
