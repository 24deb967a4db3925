# Failover: the primary is killed with jobs running on two hosts, of which one was
# taken unknown to the standby, on a host that does not answer at first.  The
# promoted standby takes up what runs, starts nothing twice, and finishes every
# job; the old primary, back again, sees who is in charge and stays away.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_jobs = 30;

CM::Engine->require_engine;
my %engine = map { $_ => CM::Engine->start(name => $_, count_starts => 1) } qw(e1 e2);
$_->import_busybox('busybox:test') for values %engine;

my $old = CM::Cluster->new('old');
$old->init(allows_streaming => 1);
$old->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'container_manager'
max_worker_processes = 16
fsync = off
restart_after_crash = on
log_min_messages = info
log_statement = none
container_manager.poll_interval = 500ms
container_manager.heartbeat_interval = 1s
CONF
$old->start;
$old->safe_psql('postgres', 'CREATE EXTENSION container_manager');
$old->add_host($_, $engine{$_}, 'max_concurrent_jobs => 40') for qw(e1 e2);
$old->backup('base');
my $new = CM::Cluster->new('new');
$new->init_from_backup($old, 'base', has_streaming => 1);
$new->start;

sub in_old { my ($sql) = @_; return $old->safe_psql('postgres', $sql); }
sub in_new { my ($sql) = @_; return $new->safe_psql('postgres', $sql); }
sub wait_old { my ($sql, $expected, $what) = @_; return ok($old->wait_for_sql($sql, $expected), $what); }
sub wait_new { my ($sql, $expected, $what) = @_; return ok($new->wait_for_sql($sql, $expected), $what); }

# A job that runs until let_all_end.
sub waiting_job { my ($more) = @_; return $old->submit(q{'busybox:test', 'trap over=1 USR1; echo begun; until [ $over ]; do sleep 0.2; done; echo over; exit 5'} . $more); }

sub let_all_end
{
	for my $engine (values %engine)
	{
		$engine->api('POST', "/v1.41/containers/$_->{Id}/kill?signal=USR1") for $engine->containers(status => 'running');
	}
	return;
}

sub marks { my ($engine) = @_; return $engine->docker(qw(volume ls --quiet --filter label=container-manager.kind=marker)); }
sub starts { return map { $_->starts } values %engine; }

sub is_started_once
{
	my ($n, $what) = @_;
	my %times;
	$times{$_}++ for starts();
	is(scalar(keys %times), $n, "$what: so many containers were started");
	is(join(' ', grep { $times{$_} > 1 } sort keys %times), '', "$what: none of them twice");
	return;
}

# --- before

my @running = map { waiting_job(", host => 'e" . (1 + $_ % 2) . "'") } 1 .. $n_jobs;
wait_old("SELECT count(*) FROM cm_jobs WHERE status = 'running'", $n_jobs, "$n_jobs jobs run");
in_old("SELECT cm_disable_host(name) FROM cm_hosts");
my $unknown = waiting_job('');
my $expiring = waiting_job(", max_wait => '1 h'");
$old->wait_for_catchup($new);
is(in_new("SELECT status || attempt FROM cm_jobs WHERE id = $unknown"), 'pending0', 'the standby knows a job as pending');
is(in_old('SELECT incarnation FROM cm_internal.identity'), 1, 'the primary is the first incarnation');
is(marks($engine{e1}) . marks($engine{e2}), '', 'and leaves no mark');

# Cut off, the standby does not hear of what the primary then does.
$new->append_conf('postgresql.conf', "primary_conninfo = ''");
$new->reload;
wait_new("SELECT count(*) FROM pg_stat_wal_receiver", 0, 'the standby is cut off');
in_old("SELECT cm_enable_host('e2')");
wait_old("SELECT count(*) FROM cm_jobs WHERE id IN ($unknown, $expiring) AND status = 'running' AND host = 'e2'", 2, 'the primary starts it, and another one');
is_started_once($n_jobs + 2, 'before');

# --- the primary is killed, and its standby promoted

$old->kill9;
$engine{e2}->pause;
$new->promote;
wait_new('SELECT state FROM cm_status', 'running', 'the promoted server runs an executor');
is(in_new('SELECT incarnation FROM cm_internal.identity'), 2, 'as another incarnation');
cmp_ok(in_new('SELECT old_jobs_up_to FROM cm_internal.identity'), '>=', $unknown, 'which knows what may be under way already');
in_new("UPDATE cm_internal.queue SET expires_at = now() WHERE job_id = $expiring");
in_new('SELECT cm_enable_host(name) FROM cm_hosts');
wait_new("SELECT state FROM cm_host_status WHERE name = 'e1'", 'healthy', 'one host answers');
my $fresh = $new->submit(q{'busybox:test', 'exit 0'});
is($new->job_wait($fresh), 'completed', 'a new job runs there');
cmp_ok($fresh, '>', $unknown + 1000, 'its number was not given to another by the old primary');
is(in_new("SELECT status || attempt FROM cm_jobs WHERE id = $unknown"), 'pending0', 'what may have begun on the other host waits');
is(in_new("SELECT status || attempt FROM cm_jobs WHERE id = $expiring"), 'pending0', 'though it has waited too long: it may have begun in time');
is(in_new("SELECT why FROM cm_ps WHERE id = $unknown"), 'may have begun on "e2"', 'and says so');
like(in_new("SELECT explanation FROM cm_job_explain($unknown) WHERE item = 'advice'"), qr/goes on when the host answers.*cm_remove_host/, 'with advice');

# The executor is killed when it has taken over but not yet left its mark on the other host.
my $pid = $new->executor_pid;
kill 'KILL', $pid;
ok($new->wait_for_sql("SELECT executor_pid <> $pid FROM cm_status WHERE state = 'running'", 't'), 'the executor comes back');
is(in_new('SELECT incarnation FROM cm_internal.identity'), 2, 'as the same incarnation');
is(in_new("SELECT status || attempt FROM cm_jobs WHERE id = $unknown"), 'pending0', 'it waits still');

$engine{e2}->resume;
wait_new("SELECT status || host || attempt FROM cm_jobs WHERE id = $unknown", 'runninge21', 'when that host answers, the job runs where it was begun');
my $epoch = in_new('SELECT epoch FROM cm_internal.identity');
wait_new("SELECT status || host || attempt FROM cm_jobs WHERE id = $expiring", 'runninge21', 'and so does the other one');
is(marks($_), "container-manager-$epoch-2", $_->name . ': the mark is there') for values %engine;
is_started_once($n_jobs + 3, 'after');

# --- the old primary comes back in the middle

my $first = $running[0];
$old->start;
wait_old('SELECT state FROM cm_status', 'held', 'the old primary holds');
like(in_old('SELECT explanation FROM cm_status'), qr/another server has taken over.*mark on host "e[12]".*Nothing is started, stopped or removed/, 'says why');
like(in_old('SELECT advice FROM cm_status'), qr/standby.*cm_take_over/, 'and what to do');
is(in_old('SELECT held_because || seen_incarnation FROM cm_internal.identity'), 'superseded2', 'keeps it');
in_old("SELECT cm_cancel_job($first)");
my $mine = $old->submit(q{'busybox:test', 'exit 0'});
is(in_old("SELECT why FROM cm_ps WHERE id = $mine"), 'held: see cm_status', 'its jobs wait');
like(in_old("SELECT explanation FROM cm_job_explain($first) WHERE item = 'why'"), qr/when this server last knew|asked for it to be cancelled/, 'what it knows is old');
is(in_old("SELECT state FROM cm_host_status WHERE name = 'e2'"), 'unknown', 'it claims to know no host');
$old->restart;
my $turns = in_old('SELECT transactions FROM cm_status');
wait_old("SELECT state FROM cm_status WHERE transactions > $turns + 2", 'held', 'nor after a restart');

# --- the end

let_all_end();
wait_new("SELECT count(*) FROM cm_jobs WHERE status = 'failed' AND exit_code = 5 AND attempt = 1 AND NOT logs_incomplete",
	$n_jobs + 2, 'every job comes to its own end');
is(in_new("SELECT count(*) FROM cm_jobs WHERE exit_code = 5 AND cm_job_output(id) <> E'begun\\nover\\n'"), 0, 'with its output');
is(in_new("SELECT count(*) FROM (SELECT FROM cm_job_events WHERE status = 'failed' GROUP BY job_id HAVING count(*) > 1) x"), 0, 'once');
is_started_once($n_jobs + 3, 'at the end');
wait_new("SELECT count(*) FROM cm_list_containers('e1') UNION ALL SELECT count(*) FROM cm_list_containers('e2')", "0\n0", 'nothing is left on the hosts');
is(in_old('SELECT state FROM cm_status'), 'held', 'the old primary holds still');

# --- whoever is told to takes over, and the other one sees it

is(in_old('SELECT cm_take_over()'), 't', 'the old primary is told to take over');
wait_old('SELECT state FROM cm_status', 'running', 'it does so at once');
is(in_old('SELECT cm_take_over()'), 'f', 'and once');
is(in_old('SELECT incarnation FROM cm_internal.identity'), 3, 'above the other one');
wait_new('SELECT state FROM cm_status', 'held', 'which sees it and holds');
is($old->job_wait($mine), 'completed', 'what waited here runs');
ok(wait_for_marks("container-manager-$epoch-3"), 'the mark of the last one has taken the place of the others');
in_new('SELECT cm_take_over()');
wait_new('SELECT state FROM cm_status', 'running', 'and the other way round');
wait_old('SELECT state FROM cm_status', 'held', 'the first holds');
is(in_new('SELECT incarnation FROM cm_internal.identity'), 4, 'above that');

# DROP EXTENSION on the one that holds touches nothing; on the other the mark goes, too.
my $last = $new->submit(q{'busybox:test', 'sleep 600'});
wait_new("SELECT status FROM cm_jobs WHERE id = $last", 'running', 'a job runs');
in_old('DROP EXTENSION container_manager');
wait_old("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor'", 0, 'dropped on the one that holds: its executor goes');
is(in_new("SELECT status FROM cm_jobs WHERE id = $last"), 'running', 'what runs is not touched');
ok(wait_for_marks("container-manager-$epoch-4"), 'nor the mark');
in_new('DROP EXTENSION container_manager');
wait_new("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor'", 0, 'dropped on the other');
is(scalar(map { $_->containers } values %engine), 0, 'containers are gone');
ok(wait_for_marks(''), 'and the marks');

sub wait_for_marks
{
	my ($expected) = @_;
	my $found;
	for (1 .. 600)
	{
		$found = join ',', map { marks($_) } @engine{qw(e1 e2)};
		return 1 if $found eq "$expected,$expected";
		select(undef, undef, undef, 0.1);
	}
	diag("marks: $found");
	return 0;
}

$_->stop for $old, $new;
done_testing();
