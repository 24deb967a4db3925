# Recovery from kill -9 in the middle of work: of the executor, of the server, of
# the engine.  In every round jobs are pending, launching and running when it
# happens; afterwards each has ended once, truthfully, with all of its output
# where the engine has kept it, no container is left, and none was started twice
# as the container runtime itself counts.
#
# It takes about a minute and a half.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;

my $live = CM::Engine->start(name => 'live', count_starts => 1, live_restore => 1);
my $plain = CM::Engine->start(name => 'plain', count_starts => 1);
my %engine = (live => $live, plain => $plain);
$_->import_busybox('busybox:test') for $live, $plain;
my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
$node->add_host($_, $engine{$_}, 'max_concurrent_jobs => 7') for sort keys %engine;

# ------------------------------------------------------- helpers

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub wait_until
{
	my ($condition, $seconds) = @_;
	my $deadline = time + ($seconds // 60);
	my $is_so;
	until ($is_so = $condition->() or time > $deadline) { usleep(20_000) }
	return $is_so;
}

sub lines { my ($n) = @_; return join '', map { "line $_\n" } 1 .. $n; }

# Kinds of jobs: command, exit code, output.
my %kind = (
	instant => [ 'echo hello', 0, "hello\n" ],
	steady => [ 'for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 0.25; done', 0, lines(10) ],
	heavy => [ 'i=0; while [ $i -lt 8000 ]; do i=$((i+1)); echo line $i; done', 0, lines(8000) ],
	failing => [ 'echo line 1; sleep 0.5; echo line 2; exit 7', 7, lines(2) ]);
my @mix = (qw(steady instant heavy failing) x 3);

# Submits the mix in one transaction; gives {id => kind}.
sub submit_mix
{
	my ($host) = @_;
	my $sql = join ' UNION ALL ', map { "SELECT '$mix[$_]', cm_submit_job('busybox:test', \$\$$kind{$mix[$_]}[0]\$\$, host => '$host')" } 0 .. $#mix;
	return map { reverse split /\|/ } split /\n/, value($sql);
}

# Until some run, some are launched and some wait.
sub wait_for_work
{
	my ($ids) = @_;
	return $node->wait_for_sql(
		"SELECT count(*) FILTER (WHERE status = 'running') > 1 AND count(*) FILTER (WHERE status = 'pending') > 0"
		  . " AND count(*) FILTER (WHERE status = 'launching') > 0 FROM cm_jobs WHERE id IN ($ids)", 't');
}

# An output that is what the engine may have kept of another: nothing twice,
# nothing out of order, nothing made up.
sub is_part_of
{
	my ($part, $whole) = @_;
	my ($last, $n) = (0, scalar split /\n/, $whole);
	return $part eq '' || $part eq $whole unless $whole =~ /^line/;
	for my $line (split /\n/, $part)
	{
		return 0 unless $line =~ /^line (\d+)$/ && $1 > $last && $1 <= $n;
		$last = $1;
	}
	return 1;
}

sub check_output
{
	my ($round, $id, $kind, $is_exact, $ended_itself) = @_;
	my $output = value("SELECT cm_job_output($id)");
	$output .= "\n" if length $output && $output !~ /\n\z/;
	my $expected = $kind{$kind}[2];
	my $is_good = $is_exact ? $output eq $expected : is_part_of($output, $expected);
	my $is_told = $output eq $expected || value("SELECT logs_incomplete FROM cm_jobs WHERE id = $id") eq 't';
	ok($is_told, "$round: job $id ($kind) says that output is missing") if $ended_itself;
	ok($is_good, "$round: output of job $id ($kind)")
	  or diag(sprintf "%d bytes for %d: %.100s", length $output, length $expected, $output);
	return;
}

# The books of one round.  Options: lossy (the engine lost output, or killed).
sub check_round
{
	my ($round, $engine, $jobs, %option) = @_;
	my $ids = join ',', sort { $a <=> $b } keys %$jobs;
	ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($ids) AND completed_at IS NULL", 0), "$round: all ended")
	  or diag(value("SELECT id, status, detail FROM cm_jobs WHERE id IN ($ids) AND completed_at IS NULL"));
	is(value("SELECT job_id, count(*) FROM cm_job_events WHERE job_id IN ($ids) AND status IN ('completed', 'failed', 'timeout', 'cancelled')"
			  . ' GROUP BY 1 HAVING count(*) <> 1'), '', "$round: each once");
	is(value("SELECT count(DISTINCT job_id) FROM cm_job_events WHERE job_id IN ($ids) AND status IN ('completed', 'failed')"),
		scalar keys %$jobs, "$round: each has an event of its end");
	is(value("SELECT string_agg(j.id::text, ',') FROM cm_jobs j LEFT JOIN cm_job_attempts a ON a.job_id = j.id WHERE j.id IN ($ids) AND"
			  . ' (j.attempt, j.status, j.exit_code, j.container_id) IS DISTINCT FROM (a.attempt, a.status, a.exit_code, a.container_id)'),
		'', "$round: rows of attempts agree");
	my @states = split /\n/, value("SELECT id, status, coalesce(failure_reason, '-'), coalesce(exit_code::text, '-'), logs_incomplete FROM cm_jobs WHERE id IN ($ids) ORDER BY id");
	for (@states)
	{
		my ($id, $status, $reason, $exit, $is_incomplete) = split /\|/;
		my ($kind, $expected) = ($jobs->{$id}, $kind{ $jobs->{$id} }[1]);
		my $is_right = $exit eq $expected && $status eq ($expected ? 'failed' : 'completed') && $reason eq ($expected ? 'exit_code' : '-');
		my $is_told = $option{lossy} && $status eq 'failed' && "$reason $exit" =~ /$option{lossy}/;
		ok($is_right || $is_told, "$round: end of job $id ($kind)") or diag("$_\n" . value("SELECT error, detail FROM cm_jobs WHERE id = $id"));
		is($is_incomplete, 'f', "$round: output of job $id ($kind) is complete") unless $option{lossy};
		check_output($round, $id, $kind, !$option{lossy}, $is_right);
	}
	check_containers($round, $engine, $jobs);
	return;
}

# As the runtime counts: each container once, and none but those recorded.
sub check_containers
{
	my ($round, $engine, $jobs) = @_;
	ok(wait_until(sub { !$engine->containers }), "$round: no container is left")
	  or diag(join "\n", map { "$_->{Names}[0] $_->{State} $_->{Status}" } $engine->containers);
	my %starts;
	$starts{$_}++ for $engine->starts;
	is(join(' ', grep { $starts{$_} != 1 } sort keys %starts), '', "$round: none was started twice");
	my %recorded = map { split /\|/ } split /\n/, value('SELECT container_id, job_id FROM cm_job_attempts WHERE container_id IS NOT NULL');
	is(join(' ', grep { !$recorded{$_} } sort keys %starts), '', "$round: none was started that is not recorded");
	my %ran = map { $_ => 1 } split /\n/, value('SELECT container_id FROM cm_job_attempts WHERE exit_code IS NOT NULL AND host = ' . "'$engine->{name}'");
	is(join(' ', grep { !$starts{$_} } sort keys %ran), '', "$round: those that ran were started");
	return;
}

sub round
{
	my ($name, $host, $break, %option) = @_;
	my $began = time;
	my %jobs = submit_mix($host);
	ok(wait_for_work(join ',', keys %jobs), "$name: jobs pending, launching and running");
	$break->($engine{$host});
	check_round($name, $engine{$host}, \%jobs, %option);
	note sprintf '%s: %.1f s', $name, time - $began;
	return;
}

# ------------------------------------------------------- the server

sub start_server
{
	# Children of a killed postmaster need a moment to see it.
	return wait_until(sub { $node->start(fail_ok => 1) });
}

round('executor killed', 'live', sub {
		my $pid = $node->executor_pid;
		kill 'KILL', $pid;
		ok($node->wait_for_sql("SELECT count(*) FROM cm_status WHERE executor_pid <> $pid AND is_running", 1),
			'executor killed: another one works');
	});
round('backend killed', 'plain', sub {
		my $session = $node->session('postgres', on_error_stop => 0);
		kill 'KILL', $session->query_safe('SELECT pg_backend_pid()');
		eval { $session->quit };
	});
round('immediate stop', 'live', sub { $node->stop('immediate'); ok(start_server(), 'immediate stop: started') });
round('postmaster killed', 'plain', sub { $node->kill9; ok(start_server(), 'postmaster killed: started') });

# Away for longer than the jobs run.
round('long outage of the server', 'live', sub {
		my ($engine) = @_;
		$node->stop('immediate');
		ok(wait_until(sub { !grep { $_->{State} eq 'running' } $engine->containers }), 'long outage: containers end by themselves');
		ok(start_server(), 'long outage: started');
	});

# ------------------------------------------------------- the engine

# An engine that is killed may lose an exit code; it says 255 then, and without
# live restore it kills what still runs.  One that was killed in a start does not
# know whether the container runs: then nobody does, and there is no exit code.
my $told = qr/^(?:infrastructure|killed|start|create) /;
my $lost = qr/^infrastructure (?:255|-)$/;

round('engine killed, live restore', 'live', sub {
		my ($engine) = @_;
		$engine->kill9;
		ok($node->wait_for_sql("SELECT count(*) > 0 AND bool_and(detail LIKE 'host unreachable since%') FROM cm_jobs WHERE status = 'running'", 't'),
			'engine killed: running jobs say so');
		is(value("SELECT count(*) FROM cm_job_events e JOIN cm_jobs j ON j.id = e.job_id WHERE e.failure_reason = 'infrastructure'"), 0,
			'engine killed: none is given up');
		$engine->start_again;
	}, lossy => $lost);
round('engine killed', 'plain', sub { my ($engine) = @_; $engine->kill9; $engine->start_again }, lossy => $told);
round('engine restarted, live restore', 'live', sub { my ($engine) = @_; $engine->restart }, lossy => $lost);
round('engine restarted', 'plain', sub { my ($engine) = @_; $engine->restart }, lossy => $told);

# A hung engine has requests in its sockets that it may carry out later, when
# nobody waits for the answer any more.
round('engine hangs, executor killed', 'live', sub {
		my ($engine) = @_;
		$engine->pause;
		my $pid = $node->executor_pid;
		kill 'KILL', $pid;
		ok($node->wait_for_sql("SELECT count(*) FROM cm_status WHERE executor_pid <> $pid AND is_running", 1),
			'engine hangs: another executor works');
		$engine->resume;
	});
round('both killed', 'live', sub {
		my ($engine) = @_;
		kill 'KILL', $node->executor_pid;
		$engine->kill9;
		$engine->start_again;
	}, lossy => qr/^(?:infrastructure (?:255|-)|exit_code 255)$/);

# ------------------------------------------------------- containers that are left

# A container of a job that is over is removed by the next list; what is not
# ours is left alone.
my $job = $node->submit(q('busybox:test', 'sleep 1000', host => 'live'));
$node->job_wait($job, status => 'running');
my %label = %{ $live->inspect(value("SELECT container_id FROM cm_jobs WHERE id = $job"))->{Config}{Labels} };
value("SELECT cm_cancel_job($job)");
is($node->job_wait($job), 'cancelled', 'a job is over');
ok(wait_until(sub { !$live->containers }), 'its container is removed');

sub run_labelled
{
	my ($verb, $name, %labels) = @_;
	$live->docker($verb, ($verb eq 'run' ? '-d' : ()), '--name', $name, (map { ('--label', "$_=$labels{$_}") } sort keys %labels),
		'busybox:test', 'sleep', '1000');
	return;
}

sub label_named { my ($part) = @_; my ($key) = grep { /\.\Q$part\E$/ } keys %label; return $key // die "no label $part\n"; }
run_labelled('run', 'stranger');
run_labelled('run', 'other_epoch', %label, label_named('epoch') => '00000000-0000-0000-0000-000000000000');
run_labelled('run', 'unknown_job', %label, label_named('job') => 999_999);
# Held still, or it would remove the one between its making and its start.
my $remover = $node->executor_pid;
kill 'STOP', $remover;
run_labelled('create', 'left_created', %label);
run_labelled('run', 'left_running', %label);
kill 'CONT', $remover;
my $names = sub { return join ' ', sort map { $_->{Names}[0] =~ s{^/}{}r } $live->containers; };
ok(wait_until(sub { $names->() eq 'other_epoch stranger unknown_job' }), 'containers of a job that is over are removed')
  or diag($names->());
ok(wait_until(sub { $node->log_contains(qr/container of an unknown job 999999 runs on host "live"/) }), 'one of an unknown job is told of');
my $lists = $node->submit(q('busybox:test', 'true', host => 'live'));
is($node->job_wait($lists), 'completed', 'a job meanwhile');
is(join(' ', map { $live->inspect($_)->{State}{Status} } qw(other_epoch stranger unknown_job)), 'running running running', 'the others run on');
is(value("SELECT status FROM cm_jobs WHERE id = $job"), 'cancelled', 'the job stays as it ended');
$live->docker('rm', '-f', qw(other_epoch stranger unknown_job));

is(value('SELECT count(*) FROM cm_internal.queue'), 0, 'queue is empty');
done_testing();
