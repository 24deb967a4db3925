# A host that goes silent while jobs run there: they wait for it, visibly, unless
# they were submitted with another wish, or an administrator gives them up.  The
# engines' containers live on meanwhile, so that each wish shows its price.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;

my $lost = CM::Engine->start(name => 'e1', live_restore => 1, count_starts => 1);
my $other = CM::Engine->start(name => 'e2', count_starts => 1);
$_->import_busybox('busybox:test') for $lost, $other;
my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
$node->add_host('lost', $lost, 'max_concurrent_jobs => 20');
# Takes nothing yet, so that all begin on the other one.
$node->add_host('other', $other, 'max_concurrent_jobs => 0');

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

my %id;

# Runs until it finds /tmp/go.
sub submit_waiting
{
	my ($name, @more) = @_;
	my $arguments = join ', ', q{'busybox:test', 'echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; echo over; exit 6'},
	  "retry_delay => '0'", @more;
	$id{$name} = $node->submit($arguments);
	return;
}

sub let_go
{
	my ($engine, $name) = @_;
	my ($container) = $engine->containers(label => "container-manager.job=$id{$name}");
	$engine->docker('exec', $container->{Id}, 'touch', '/tmp/go');
	return;
}

sub shown
{
	my ($name, $column) = @_;
	return value("SELECT $column FROM cm_jobs WHERE id = $id{$name}");
}

sub complaint
{
	my ($sql) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

# The number of containers of ours, running or not, and their ids.
sub wait_for_containers
{
	my ($engine, $n, $what) = @_;
	my $deadline = time + $CM::Cluster::patience;
	my @found;
	usleep(100_000) while (@found = $engine->containers) != $n && time < $deadline;
	return is(scalar @found, $n, $what);
}

# --- it goes silent

submit_waiting('waits');
submit_waiting('fails', "on_host_loss => 'fail'", "host_loss_grace => '3 s'");
submit_waiting('patient', "on_host_loss => 'fail'", "host_loss_grace => '1 h'");
submit_waiting('retries', "on_host_loss => 'retry'", "host_loss_grace => '15 s'", 'max_attempts => 3');
submit_waiting('once more', "on_host_loss => 'retry'", "host_loss_grace => '1 s'", 'max_attempts => 2', "host => 'lost'");
submit_waiting('abandoned', 'max_attempts => 5', "retry_on => 'infrastructure, killed'");
submit_waiting('cancelled', "on_host_loss => 'retry'", "host_loss_grace => '1 h'", 'max_attempts => 2');
ok($node->wait_for_sql("SELECT status || line FROM cm_jobs, cm_job_logs(id) WHERE id = $id{$_}", 'runningbegun'), "$_: runs")
  for sort keys %id;
like(complaint("SELECT cm_abandon_job($id{abandoned}, 'x')"), qr/ERROR:  host "lost" of job $id{abandoned} answers.*HINT: .*cm_cancel_job/s,
	'a job whose host answers is not abandoned');

$lost->kill9;
ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = 'lost'", 'unhealthy'), 'the engine is killed; the containers run on');
value("UPDATE cm_hosts SET max_concurrent_jobs = 20 WHERE name = 'other'");
# Somebody gives the attempt up, and takes his time over it.
my $slow = $node->session;
is($slow->query_safe("BEGIN; SELECT cm_abandon_job($id{retries}, 'too slow')"), 't', 'an abandonment that is not committed yet');

ok($node->wait_for_sql("SELECT status || ' ' || failure_reason FROM cm_jobs WHERE id = $id{fails}", 'failed host_lost'), 'fail: after its grace');
like(shown('fails', 'error'), qr/\Ahost "lost" has not answered since \d/, 'fail: in words');
is(shown('fails', 'logs_incomplete'), 't', 'fail: what it prints is not known');
is(value("SELECT cm_job_output($id{fails}) = E'begun\\n'"), 't', 'fail: what it had printed is kept');

ok($node->wait_for_sql("SELECT status || ' ' || host || ' ' || attempt FROM cm_jobs WHERE id = $id{retries}", 'running other 2'),
	'retry: runs on another host, though the first may run on');
is(value("SELECT concat_ws(' ', attempt, status, failure_reason, host) FROM cm_job_attempts WHERE job_id = $id{retries}"),
	'1 failed host_lost lost', 'retry: the first attempt says why');
ok($node->wait_for_sql("SELECT status || ' ' || attempt FROM cm_jobs WHERE id = $id{'once more'}", 'pending 1'), 'retry: what must run there waits');

$slow->query_safe('COMMIT');
$slow->quit;
ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.requests', 0), 'the abandonment comes too late: it is forgotten');
is(shown('retries', "status || ' ' || attempt"), 'running 2', 'and does not concern the attempt that runs now');

is(shown('waits', 'status'), 'running', 'wait: stays running');
like(shown('waits', 'detail'), qr/\Ahost unreachable since \d\d\d\d-[-0-9: .+A-Z]+\z/, 'wait: says since when');
like(shown('patient', 'detail'), qr/\Ahost unreachable since .*, given up at \d/, 'fail, not yet: says until when');
like(value("SELECT string_agg(explanation, ' ') FROM cm_job_explain($id{waits}) WHERE item = 'advice'"), qr/cm_abandon_job\($id{waits}/, 'and what can be done');
like(value("SELECT explanation FROM cm_job_explain($id{patient}) WHERE item = 'lost host'"), qr/fail when its host does not answer for 1 h/, 'the wish is shown');

# --- given up by hand

like(complaint("SELECT cm_abandon_job($id{abandoned}, '')"), qr/ERROR:  reason is missing/, 'abandon: a reason is needed');
is(value("SELECT cm_abandon_job($id{'once more'}, 'it burnt down')"), 'f', 'abandon: not what waits');
is(value("SELECT cm_abandon_job($id{abandoned}, 'it burnt down')"), 't', 'abandon');
ok($node->wait_for_sql("SELECT status || ' ' || failure_reason FROM cm_jobs WHERE id = $id{abandoned}", 'failed abandoned'), 'abandon: it fails as that');
like(shown('abandoned', 'error'), qr/\Aabandoned by ".*": it burnt down\z/, 'abandon: by whom and why');
is(value("SELECT cm_abandon_job($id{abandoned}, 'again')"), 'f', 'abandon: it is over');
is(value("SELECT count(*) FROM cm_job_attempts WHERE job_id = $id{abandoned}"), 1, 'abandon: it is not tried again by itself');
is(value("SELECT cm_retry_job($id{abandoned})"), 't', 'by hand it is');
ok($node->wait_for_sql("SELECT status || ' ' || host FROM cm_jobs WHERE id = $id{abandoned}", 'running other'), 'on another host');

is(value("SELECT cm_cancel_job($id{cancelled})"), 't', 'cancel');
ok($node->wait_for_sql("SELECT detail FROM cm_jobs WHERE id = $id{cancelled}", 'cancelling when the host answers'), 'cancel: waits for the host');

# --- an executor that was not there when it went silent

kill 'KILL', $node->executor_pid;
ok($node->poll_query_until('postgres', 'SELECT true'), 'the server is back after a crash');
ok($node->wait_for_sql("SELECT detail LIKE 'host unreachable since %' FROM cm_jobs WHERE id = $id{waits}", 't'), 'the next executor waits for it, too');
submit_waiting('late', "on_host_loss => 'fail'", "host_loss_grace => '1 h'", "host => 'other'");
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'running' AND host = 'other'", 3), 'what runs elsewhere is taken up');

# --- it is back

$lost->start_again;
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'running' AND host = 'lost' AND detail IS NULL AND id IN ($id{waits}, $id{patient})", 2),
	'those that waited are picked up');
is($node->job_wait($id{cancelled}), 'cancelled', 'what was cancelled meanwhile is stopped');
ok($node->wait_for_sql("SELECT status || ' ' || host || ' ' || attempt FROM cm_jobs WHERE id = $id{'once more'}", 'running lost 2'),
	'what must run there runs again');
# waits, patient, and the second attempt of the one that must run there
wait_for_containers($lost, 3, 'what was given up is removed, though it ran');
let_go($lost, $_) for 'waits', 'patient', 'once more';
let_go($other, $_) for 'retries', 'abandoned', 'late';
is($node->job_wait($id{$_}), 'failed', "$_: ends") for 'waits', 'patient', 'once more', 'retries', 'abandoned', 'late';
is(shown($_, "exit_code || ' ' || failure_reason"), '6 exit_code', "$_: by itself") for 'waits', 'patient', 'once more', 'retries', 'abandoned', 'late';
is(value("SELECT cm_job_output($id{$_}) = E'begun\\nover\\n'"), 't', "$_: with all it printed") for 'waits', 'once more', 'retries', 'abandoned', 'late';

wait_for_containers($_, 0, 'no container is left') for $lost, $other;
my %starts;
$starts{$_}++ for $lost->starts, $other->starts;
is(scalar(grep { $_ > 1 } values %starts), 0, 'no container was started twice');
is(scalar keys %starts, 11, 'and none more than the attempts');
is(value('SELECT sum(attempt) FROM cm_jobs'), 11, 'that are counted');

# --- its output is all that is missing

{
	submit_waiting('ended', "on_host_loss => 'fail'", "host_loss_grace => '2 s'", "host => 'lost'");
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $id{ended}", 'running'), 'another one runs');
}
$lost->pause;
ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = 'lost'", 'unhealthy'), 'a host that hangs is unhealthy, too');
ok($node->wait_for_sql("SELECT status || ' ' || failure_reason FROM cm_jobs WHERE id = $id{ended}", 'failed host_lost'), 'and is given up likewise');
$lost->resume;
wait_for_containers($lost, 0, 'when it wakes up, what is left is removed');

$node->stop('fast');
done_testing();
