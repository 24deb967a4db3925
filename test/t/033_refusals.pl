# What is refused, and who is left in peace: job numbers out of turn, containers
# made for another definition, an address that changes under running jobs, a start
# that the engine's own restart may have cut.  An engine that says no again and
# again is asked seldom.  A lock on one host, a renamed schema or a new extension
# in one transaction do not stop jobs.
#
# Nothing here is found by polling: poll and heartbeat come too late for that.
use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use CM::Http qw(unix_http unix_json);
use JSON::PP;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = CM::Cluster->new_with_extension('main',
	'container_manager.poll_interval' => '1h',
	'container_manager.heartbeat_interval' => '600s',
	'container_manager.stop_grace' => '100ms');
my %fake;

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# SQLSTATE and message of what is refused.
sub refusal
{
	my ($sql) = @_;
	my $stderr = '';
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \$stderr);
	return $stderr =~ /ERROR:\s+(\w+: .*)/ ? $1 : "none: $stderr";
}

sub wait_until
{
	my ($condition) = @_;
	my $deadline = time + $CM::Cluster::patience;
	my $is_so;
	until ($is_so = $condition->() or time > $deadline) { usleep(20_000) }
	return $is_so;
}

# Hosts of the given names, each with an engine of its own.
sub add_hosts
{
	my (@names) = @_;
	for my $name (@names)
	{
		$fake{$name} = CM::FakeEngine->start;
		$node->add_host($name, $fake{$name}, 'max_concurrent_jobs => 60');
	}
	for (@names)
	{
		ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = '$_'", 'healthy'), "host $_ is there");
	}
	return @fake{@names};
}

sub submit
{
	my ($host, $environment, @more) = @_;
	return $node->submit(join ', ', "'x', args => '{x}', host => '$host', environment => '$environment'", @more);
}

my $ends = '{"FAKE_EXIT": "0"}';
my $endless = '{"FAKE_RUN_MS": "600000"}';

sub container_name
{
	my ($id) = @_;
	return value("SELECT 'cm-default-$id-1-' || left(epoch::text, 8) FROM cm_internal.identity");
}

# Started so often, over all containers of this name.
sub starts { my ($fake, $id) = @_; return $fake->state->{starts_by_name}{ container_name($id) } // 0; }
sub creates { my ($fake, $id) = @_; my $name = container_name($id); return scalar grep { $_->{name} eq $name } @{ $fake->state->{create_order} }; }
sub status_of { my ($fake, $id) = @_; return ($fake->state->{containers}{ container_name($id) } // {})->{status} // 'absent'; }

# How a job ended.
sub outcome { my ($id) = @_; return value("SELECT status, failure_reason, exit_code, cm_job_output(id) FROM cm_jobs WHERE id = $id"); }

sub error_of { my ($id) = @_; return value("SELECT error FROM cm_jobs WHERE id = $id"); }

# ------------------------------------------------------- wake-ups

sub renew_extension
{
	my ($epoch) = value('SELECT epoch FROM cm_internal.identity');
	value('BEGIN; DROP EXTENSION container_manager CASCADE; CREATE EXTENSION container_manager; COMMIT');
	ok($node->wait_for_sql('SELECT is_running FROM cm_status', 't'), 'extension made anew in one transaction: an executor works');
	isnt(value('SELECT epoch FROM cm_internal.identity'), $epoch, 'extension made anew: it is another one');
	add_hosts('new');
	for (1 .. 3)
	{
		my $at = time;
		my $id = submit('new', $ends);
		is($node->job_wait($id), 'completed', "extension made anew: job $_ runs at once");
		note sprintf('%.2f s', time - $at);
	}
	return;
}

# ------------------------------------------------------- job numbers

sub refuse_job_numbers
{
	my ($when) = @_;
	for my $id (-5, 0, "(SELECT coalesce(max(id), 0) + 100000 FROM cm_jobs)", '9223372036854775807')
	{
		like(refusal("INSERT INTO cm_jobs (id, image, command) VALUES ($id, 'x', 'x')"),
			qr/^22023: id of a job cannot be given/, "$when: job number $id is refused");
	}
	return;
}

sub accept_restored_number
{
	my $epoch = '11111111-2222-3333-4444-555555555555';
	value("CREATE TEMP TABLE t AS SELECT * FROM cm_jobs LIMIT 1; UPDATE t SET id = 7000000, epoch = '$epoch'; INSERT INTO cm_jobs SELECT * FROM t");
	is(value('SELECT epoch FROM cm_jobs WHERE id = 7000000'), $epoch, 'a job number that comes with an epoch, as from a dump, is taken');
	is(value('SELECT count(*) FROM cm_internal.queue WHERE job_id = 7000000'), 0, 'and that job is not queued');
	value('DELETE FROM cm_jobs WHERE id = 7000000');
	return;
}

# ------------------------------------------------------- containers of another definition

# A container as another server with our past might have made it.
sub make_foreign
{
	my ($fake, $id, $is_started) = @_;
	my $name = container_name($id);
	my %label = (version => '1', kind => 'job', epoch => value('SELECT epoch FROM cm_internal.identity'),
		job => "$id", attempt => '1', spec => 'a' x 64);
	my $made = unix_json($fake->socket, 'POST', "/v1.41/containers/create?name=$name",
		{ Image => 'x', Env => ['FAKE_STDOUT=other'], Labels => { map { ("container-manager.$_" => $label{$_}) } keys %label } });
	return unless $is_started;
	unix_http($fake->socket, 'POST', "/v1.41/containers/$made->{Id}/start");
	return;
}

# Both wait for room while the containers are made; the checks come at the end.
sub begin_foreign
{
	my ($fake) = add_hosts('foreign');
	value("UPDATE cm_hosts SET max_concurrent_jobs = 1 WHERE name = 'foreign'");
	my $blocker = submit('foreign', $endless);
	$node->job_wait($blocker, status => 'running');
	my ($exited, $created) = map { submit('foreign', '{"FAKE_STDOUT": "mine"}') } 1 .. 2;
	make_foreign($fake, $exited, 1);
	make_foreign($fake, $created, 0);
	is(status_of($fake, $exited), 'exited', 'foreign container has ended');
	is(status_of($fake, $created), 'created', 'foreign container was not started');
	value("UPDATE cm_hosts SET max_concurrent_jobs = 5 WHERE name = 'foreign'");
	return ($exited, $created);
}

sub end_foreign
{
	my ($exited, $created) = @_;
	my $fake = $fake{foreign};
	is($node->job_wait($exited), 'failed', 'other definition, exited: the job fails');
	is(outcome($exited), 'failed|create||', 'other definition, exited: its result is not the job\'s');
	like(error_of($exited), qr/^container name "cm-default-.*" is taken/, 'other definition, exited: it says why');
	is(starts($fake, $exited), 1, 'other definition, exited: the job is not run');
	$node->job_wait($created);
	is(outcome($created), 'completed||0|mine', 'other definition, created: it gives way') or diag(error_of($created));
	is(starts($fake, $created), 1, 'other definition, created: the job runs once');
	is(creates($fake, $created), 2, 'other definition, created: in a container of its own');
	return;
}

# ------------------------------------------------------- a row that is behind its container

sub set_enabled
{
	my ($on) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET container_manager.enabled = $on");
	$node->reload;
	return $node->wait_for_sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor'", $on eq 'on' ? 1 : 0);
}

# The claim is lost, as with a server whose last transactions are gone.
sub adopt_running
{
	my ($fake) = add_hosts('behind');
	value("UPDATE cm_hosts SET max_concurrent_jobs = 1 WHERE name = 'behind'");
	my $id = submit('behind', $endless);
	$node->job_wait($id, status => 'running');
	ok(set_enabled('off'), 'row behind: the executor goes');
	value("UPDATE cm_hosts SET max_concurrent_jobs = 0 WHERE name = 'behind'");
	value(<<"SQL");
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE cm_internal.queue SET status = 'pending', attempt = 0, host_id = NULL, container_id = NULL, started_at = NULL
	WHERE job_id = $id;
UPDATE cm_jobs SET status = 'pending', attempt = 0, container_id = NULL, started_at = NULL WHERE id = $id;
COMMIT;
SQL
	ok(set_enabled('on'), 'row behind: an executor comes');
	ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = 'behind' AND last_seen > (SELECT started_at FROM cm_status)", 'healthy'),
		'row behind: the host is known again');
	is(value("SELECT status, attempt FROM cm_jobs WHERE id = $id"), 'pending|0', 'row behind: the job waits');
	value("UPDATE cm_hosts SET max_concurrent_jobs = 1 WHERE name = 'behind'");
	is($node->job_wait($id, status => 'running'), 'running', 'row behind: the job is claimed');
	$fake->end_container(container_name($id), 6);
	$node->job_wait($id);
	is(outcome($id), 'failed|exit_code|6|', 'row behind: its container was taken up');
	is(creates($fake, $id) . ' ' . starts($fake, $id), '1 1', 'row behind: no other one was made or started');
	return;
}

# ------------------------------------------------------- an engine that says no

sub count_requests
{
	my ($fake) = @_;
	my $n = 0;
	$n += $_ for values %{ $fake->state->{requests} };
	return $n;
}

# Requests per second on each of the hosts.
sub measure
{
	my (@names) = @_;
	my $from = time;
	my %before = map { $_ => count_requests($fake{$_}) } @names;
	wait_until(sub { time - $from > 3 });
	return map { $_ => (count_requests($fake{$_}) - $before{$_}) / (time - $from) } @names;
}

sub stubborn_engines
{
	my @names = qw(kill create inspect);
	add_hosts(@names);
	my %job = map { $_ => submit($_, $endless) } qw(kill inspect);
	$node->job_wait($_, status => 'running') for values %job;

	$fake{kill}->fault(method => 'POST', path => '/kill$', status => 500, message => 'permission denied');
	value("SELECT cm_cancel_job($job{kill})");
	$fake{create}->fault(method => 'POST', path => '/containers/create$', status => 409, message => 'Conflict. The name is already in use');
	$job{create} = submit('create', $ends);
	$fake{inspect}->fault(method => 'GET', path => '/containers/[^/]+/json$', status => 500, message => 'oops');
	$fake{inspect}->end_container(container_name($job{inspect}), 3);
	ok(wait_until(sub { $fake{kill}->state->{requests}{'POST /containers/ID/kill'} }), 'kill: it is refused');
	ok(wait_until(sub { $fake{create}->state->{requests}{'POST /containers/create'} }), 'create: it is refused');
	ok(wait_until(sub { $fake{inspect}->state->{requests}{'GET /containers/ID/json'} }), 'inspect: it is refused');

	my %rate = measure(@names);
	cmp_ok($rate{$_}, '<', 10, "$_ refused: it is asked seldom") for @names;
	note map { sprintf "%s: %.1f requests/s\n", $_, $rate{$_} } @names;
	is(value("SELECT count(*) FROM cm_jobs WHERE id IN ($job{kill}, $job{create}, $job{inspect}) AND completed_at IS NULL"), 3,
		'nothing is said of jobs whose engine refuses');

	$fake{$_}->clear_faults for @names;
	$node->job_wait($job{$_}) for @names;
	is(outcome($job{kill}), 'cancelled|cancelled|143|', 'kill refused for a while: the job is cancelled');
	is(outcome($job{create}), 'completed||0|', 'create refused for a while: the job runs');
	is(outcome($job{inspect}), 'failed|exit_code|3|', 'inspect refused for a while: the job ends as it did');
	is(join(' ', map { starts($fake{$_}, $job{$_}) } @names), '1 1 1', 'each was started once');

	$fake{create}->fault(method => 'POST', path => '/containers/create$', status => 409, message => 'Conflict. The name is already in use');
	my $nameless = submit('create', $ends);
	is($node->job_wait($nameless), 'failed', 'a name is taken for good, by no container: the job fails');
	like(outcome($nameless), qr/^failed\|create\|\|/, 'as create');
	$fake{create}->clear_faults;
	return;
}

sub creates_cut
{
	my ($fake) = add_hosts('cut');
	$fake->fault(method => 'POST', path => '/containers/create$', close_after_request => 1);
	my $from = time;
	my $first = value("SELECT min(cm_submit_job('x', args => '{x}', host => 'cut', environment => '$ends')) FROM generate_series(1, 50)");
	ok(wait_until(sub { time - $from > 5 && ($fake->state->{requests}{'POST /containers/create'} // 0) > 1 }), 'creates cut: they were tried');
	is(value("SELECT count(*) FROM cm_jobs WHERE id >= $first AND completed_at IS NOT NULL"), 0, 'creates cut for 5 s: no job fails');
	$fake->clear_faults;
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id >= $first AND status = 'completed'", 50), 'creates cut for 5 s: all jobs complete');
	is(value("SELECT count(*) FROM cm_jobs WHERE id >= $first AND attempt <> 1"), 0, 'creates cut: at the first attempt');
	my $state = $fake->state;
	is("$state->{starts} " . @{ $state->{started_twice} }, '50 0', 'creates cut: each runs once');
	return;
}

# ------------------------------------------------------- locks, names, addresses

sub removal_not_committed
{
	my ($gone, $other) = add_hosts('gone', 'other');
	my $session = $node->session;
	$session->query_safe('BEGIN');
	$session->query_safe("SELECT cm_remove_host('gone')");
	$gone->close_door;
	my @ids = map { submit('other', $ends) } 1 .. 10;
	is(join(' ', map { $node->job_wait($_) } @ids), join(' ', ('completed') x 10),
		'a host is being removed: jobs of another one go on') or diag(value('SELECT last_error, blocked_on FROM cm_status'));
	$session->query_safe('ROLLBACK');
	$session->quit;
	# Any turn will do; with nothing to do it would be the next poll.
	is($node->job_wait(submit('other', $ends)), 'completed', 'not removed after all: another job runs');
	ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = 'gone'", 'unhealthy'), 'not removed after all: its state is told');
	$gone->open_door;
	ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = 'gone'", 'healthy'), 'not removed after all: it comes back');
	is($node->job_wait(submit('gone', $ends)), 'completed', 'not removed after all: it runs jobs');
	return;
}

sub keep_address
{
	my ($old) = add_hosts('moving');
	my $new = CM::FakeEngine->start;
	my $url = $new->url;
	my $id = submit('moving', $endless);
	$node->job_wait($id, status => 'running');
	my $refused = qr/^55000: connection_string of host "moving" cannot be changed: jobs run there/;
	like(refusal("SELECT cm_add_host('moving', '$url', if_exists => 'update')"), $refused, 'address where jobs run is kept: cm_add_host');
	like(refusal("UPDATE cm_hosts SET connection_string = '$url' WHERE name = 'moving'"), $refused, 'address where jobs run is kept: UPDATE');
	$old->end_container(container_name($id), 4);
	$node->job_wait($id);
	is(outcome($id), 'failed|exit_code|4|', 'address kept: the job ends as it did');
	value("SELECT cm_add_host('moving', '$url', if_exists => 'update')");
	$id = submit('moving', $ends);
	is($node->job_wait($id), 'completed', 'address of an idle host is changed');
	is(starts($new, $id), 1, 'and the job runs there');
	return;
}

sub rename_schema
{
	my ($fake) = add_hosts('renamed');
	my $before = submit('renamed', $endless);
	$node->job_wait($before, status => 'running');
	value('ALTER SCHEMA public RENAME TO elsewhere; ALTER DATABASE postgres SET search_path = elsewhere, public');
	my $id = submit('renamed', $ends);
	is($node->job_wait($id), 'completed', 'schema renamed: a new job runs');
	$fake->end_container(container_name($before), 5);
	$node->job_wait($before);
	is(outcome($before), 'failed|exit_code|5|', 'schema renamed: a job that ran then ends as it did');
	is(refusal('SELECT last_error FROM cm_status'), 'none: ', 'schema renamed: cm_status answers');
	value('ALTER SCHEMA elsewhere RENAME TO public; ALTER DATABASE postgres RESET search_path');
	is($node->job_wait(submit('renamed', $ends)), 'completed', 'schema renamed back: a new job runs');
	return;
}

# ------------------------------------------------------- a start that the engine's restart cut

# The start is taken and nothing comes of it, as far as the engine knows later.
sub begin_cut_starts
{
	my %job;
	for my $name (qw(forgets remembers))
	{
		my ($fake) = add_hosts($name);
		$fake->fault(method => 'POST', path => '/start$', hang => 1, times => 1);
		$job{$name} = submit($name, $ends);
		ok(wait_until(sub { !%{ $fake->state->{faults} } }), "start cut, engine $name: it was sent");
		$fake->close_door;
		$fake->forget_events if $name eq 'forgets';
		$fake->open_door;
	}
	return %job;
}

sub end_cut_starts
{
	my (%job) = @_;
	$node->job_wait($_) for values %job;
	is(outcome($job{forgets}), 'failed|infrastructure||', 'start cut by a restart: whether it ran is not known');
	like(error_of($job{forgets}), qr/^the engine of host "forgets" was restarted while it started the container/, 'start cut by a restart: it says so');
	is(outcome($job{remembers}), 'completed||0|', 'start cut, engine lives: it runs');
	is(creates($fake{remembers}, $job{remembers}) . ' ' . starts($fake{remembers}, $job{remembers}), '2 1', 'start cut, engine lives: in another container, once');
	is(creates($fake{forgets}, $job{forgets}) . ' ' . starts($fake{forgets}, $job{forgets}), '1 0', 'start cut by a restart: it is not started again');
	ok(wait_until(sub { status_of($fake{forgets}, $job{forgets}) eq 'absent' }), 'start cut by a restart: the container is removed');
	return;
}

# ------------------------------------------------------- all of it

refuse_job_numbers('first job of all');
renew_extension();
refuse_job_numbers('later');
accept_restored_number();
# These take some seconds by themselves.
my %cut_starts = begin_cut_starts();
my @foreign = begin_foreign();
stubborn_engines();
creates_cut();
end_cut_starts(%cut_starts);
end_foreign(@foreign);
removal_not_committed();
keep_address();
rename_schema();
adopt_running();

is_deeply([ map { @{ $_->state->{started_twice} } } values %fake ], [], 'nothing was started twice');
my $blocker = value("SELECT job_id FROM cm_internal.queue");
is(value('SELECT count(*) FROM cm_internal.queue'), 1, 'the queue holds nothing but what runs on');
is(value("SELECT status FROM cm_jobs WHERE id = $blocker"), 'running', 'which runs');
is(value('SELECT last_error FROM cm_status'), '', 'the executor met no error');
done_testing();
