# Every way in which a job can end, on a real engine: state, reason, words, exit
# code, the attempt's row and the sequence of events are those that are true.
# What a real engine cannot be made to do (answer late or with an error) is done
# by a fake one.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::Engine;
use CM::FakeEngine;
use JSON::PP;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
$engine->import_busybox('busybox:user', cmd => [ 'sh', '-c', 'echo by default; exit 4' ]);
my $fake = CM::FakeEngine->start(images => ['there:1'], pull_ms => 0);
my $node = CM::Cluster->new_with_extension('main',
	'container_manager.stop_grace' => '5s',
	'container_manager.heartbeat_interval' => '2s');
$node->add_host('e', $engine, 'max_concurrent_jobs => 20');
$node->add_host('nopull', $fake, 'auto_pull_images => false');

my $json = JSON::PP->new->utf8->allow_nonref;
my $B = "'busybox:test'";

# ------------------------------------------------------- helpers

sub row
{
	my ($sql) = @_;
	my $text = $node->safe_psql('postgres', "SELECT to_json(r) FROM ($sql) r");
	return length $text ? $json->decode($text) : undef;
}

sub job { my ($id) = @_; return row("SELECT * FROM cm_jobs WHERE id = $id"); }

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub submit_on { my ($host, $rest) = @_; return $node->submit("$rest, host => '$host'"); }

# Exact, which value() is not: psql ends with a newline of its own.
sub output { my ($id) = @_; return row("SELECT cm_job_output($id) AS text")->{text}; }

sub cancel { my ($id) = @_; return value("SELECT cm_cancel_job($id)"); }

sub events
{
	my ($id) = @_;
	return value("SELECT string_agg(status, ' ' ORDER BY seq) FROM cm_job_events WHERE job_id = $id");
}

# Waits until the job has printed a line: from then on its traps are set.
sub wait_for_line
{
	my ($id) = @_;
	return $node->wait_for_sql("SELECT count(*) > 0 FROM cm_job_logs($id)", 't');
}

sub container_of
{
	my ($id) = @_;
	return value("SELECT container_id FROM cm_jobs WHERE id = $id");
}

sub matches
{
	my ($got, $expected, $what) = @_;
	if (!defined $expected) { is($got, undef, "$what: none"); }
	elsif (ref $expected) { like($got // '', $expected, $what); }
	else { is($got, $expected, $what); }
	return;
}

# The end of a job as its row, attempt, events, cm_ps and cm_job_explain have it.
# Expected: status, reason, exit (undef: none), error, hint, why and advice (in
# cm_job_explain) as patterns, oom, events, attempt.
sub ended
{
	my ($what, $id, %e) = @_;
	$node->job_wait($id);
	my $j = job($id);
	$e{attempt} //= 1;
	$e{events} //= "launching running $e{status}";

	is("$j->{status} " . ($j->{failure_reason} // '-'), "$e{status} " . ($e{reason} // '-'), "$what: state")
	  or diag($json->encode($j));
	is($j->{exit_code}, $e{exit}, "$what: exit code");
	matches($j->{error}, $e{error}, "$what: error");
	matches($j->{hint}, $e{hint}, "$what: hint") if exists $e{hint};
	is($j->{oom_killed} ? 1 : 0, $e{oom} // 0, "$what: flag for memory");
	is($j->{attempt}, $e{attempt}, "$what: attempt");
	is(events($id), $e{events}, "$what: events");

	my @keys = qw(status failure_reason error hint exit_code oom_killed host container_id started_at logs_incomplete);
	my $a = row("SELECT * FROM cm_job_attempts WHERE job_id = $id");
	is_deeply($a ? { map { $_ => $a->{$_} } @keys } : undef,
		$e{attempt} ? { map { $_ => $j->{$_} } @keys } : undef, "$what: row of the attempt");
	ok(defined $j->{completed_at}, "$what: has an end");
	is(defined $j->{started_at} ? 1 : 0, $e{events} =~ /running/ ? 1 : 0, "$what: has run or not");

	my %told = split /[|\n]/, value("SELECT item, explanation FROM cm_job_explain($id) WHERE explanation !~ E'[|\\n]'");
	matches($told{why}, $e{why} // qr/./, "$what: explained");
	matches($told{advice}, $e{advice}, "$what: advice") if exists $e{advice};
	is(value("SELECT state, why FROM cm_ps WHERE id = $id"), "$e{status}|" . ($e{reason} // ''), "$what: in cm_ps");
	return $j;
}

# How a job that is not over is explained.
sub explained
{
	my ($what, $id, $why, $in_ps) = @_;
	like(value("SELECT explanation FROM cm_job_explain($id) WHERE item = 'why'"), $why, "$what: explained");
	like(value("SELECT why FROM cm_ps WHERE id = $id"), $in_ps, "$what: in cm_ps");
	return;
}

# ------------------------------------------------------- ends by itself

my %id;
my $eat = 'tail /dev/zero';
my %submitted = (
	ok => "$B, 'echo fine'",
	code => "$B, 'echo why >&2; exit 3'",
	own => "'busybox:user'",
	missing => "$B, args => '{nosuchcmd,x}'",
	missing_in_shell => "$B, 'nosuchcmd'",
	not_executable => "$B, args => '{/etc/passwd}'",
	shell_less => "$B, entrypoint => '{/bin/echo}', args => '{a  b,\$HOME}'",
	# An engine may miss a kill that the container's end follows at once.
	oom => "$B, 'echo begun; $eat; code=\$?; sleep 0.5; exit \$code', memory_limit => 16",
	oom_at_once => "$B, 'exec $eat', memory_limit => 16",
	oom_child => "$B, '$eat; echo went on; sleep 0.5; exit 0', memory_limit => 16",
	oom_child_fails => "$B, '$eat; sleep 0.5; exit 5', memory_limit => 16",
	no_network => "$B, 'true', networks => '[\"nonet\"]'",
	no_directory => "$B, 'true', working_directory => '/etc/passwd'",
	timeout => "$B, 'echo begun; sleep 1000', timeout_seconds => 5",
	timeout_trap => "$B, 'trap \"echo bye; exit 0\" TERM; echo begun; sleep 1000 & wait', timeout_seconds => 5",
	timeout_deaf => "$B, 'trap \"\" TERM; echo begun; sleep 1000', timeout_seconds => 5",
);
$id{$_} = submit_on('e', $submitted{$_}) for sort keys %submitted;

ended('exit 0', $id{ok}, status => 'completed', exit => 0, error => undef, hint => undef, why => qr/exit code 0/);
ended('exit 3', $id{code}, status => 'failed', reason => 'exit_code', exit => 3,
	error => qr/code 3/, why => qr/exit code 3/, advice => qr/cm_job_logs\($id{code}\)/);
ended('command of the image', $id{own}, status => 'failed', reason => 'exit_code', exit => 4, error => qr/code 4/);
is(output($id{own}), "by default\n", 'command of the image: its output');
ended('command missing', $id{missing}, status => 'failed', reason => 'exit_code', exit => 127,
	error => qr/code 127/, hint => qr/not found/, why => qr/not found/, advice => qr/FATAL tini/);
ended('command missing in a shell', $id{missing_in_shell}, status => 'failed', reason => 'exit_code', exit => 127,
	error => qr/code 127/, hint => qr/not found/);
ended('not executable', $id{not_executable}, status => 'failed', reason => 'exit_code', exit => 126,
	error => qr/code 126/, hint => qr/executable/, why => qr/could not be executed/);
ended('without a shell', $id{shell_less}, status => 'completed', exit => 0, error => undef);
is(output($id{shell_less}), "a  b \$HOME\n", 'without a shell: words as they are');

ended('out of memory', $id{oom}, status => 'failed', reason => 'oom', exit => 137, oom => 1,
	error => qr/memory_limit of 16 MB/, hint => qr/memory_limit/, why => qr/memory_limit of 16 MB/);
$node->job_wait($id{oom_at_once});
my $noticed = job($id{oom_at_once})->{oom_killed};
ended('out of memory at once', $id{oom_at_once}, status => 'failed', reason => $noticed ? 'oom' : 'exit_code', exit => 137,
	oom => $noticed ? 1 : 0, error => qr/memory|code 137/, hint => qr/memory/);
ended('child out of memory, exit 0', $id{oom_child}, status => 'completed', exit => 0, oom => 1,
	error => undef, why => qr/exit code 0.*memory/);
is(output($id{oom_child}), "went on\n", 'child out of memory: it went on');
ended('child out of memory, exit 5', $id{oom_child_fails}, status => 'failed', reason => 'oom', exit => 5, oom => 1,
	error => qr/memory/);

ended('network missing', $id{no_network}, status => 'failed', reason => 'network', exit => undef,
	events => 'launching failed', error => qr/network "nonet" not found on host "e"/, hint => qr/Create the network/,
	why => qr/"nonet"/);
ended('directory is a file', $id{no_directory}, status => 'failed', reason => 'create', exit => undef,
	events => 'launching failed', error => qr/not a directory/);

ended('timeout', $id{timeout}, status => 'timeout', reason => 'timeout', exit => 143,
	error => qr/timeout_seconds of 5/, why => qr/timeout_seconds \(5\)/, advice => qr/timeout_seconds/);
is(output($id{timeout}), "begun\n", 'timeout: output is kept');
ended('timeout, ends in order', $id{timeout_trap}, status => 'timeout', reason => 'timeout', exit => 0, error => qr/timeout_seconds/);
is(output($id{timeout_trap}), "begun\nbye\n", 'timeout, ends in order: last words are kept');
ended('timeout, deaf', $id{timeout_deaf}, status => 'timeout', reason => 'timeout', exit => 137, error => qr/timeout_seconds/);
is(value("SELECT completed_at - started_at > interval '9.9 s' FROM cm_jobs WHERE id = $id{timeout_deaf}"), 't',
	'timeout, deaf: SIGKILL only after the grace time');
is(output($id{timeout_deaf}), "begun\n", 'timeout, deaf: output is kept');

# ------------------------------------------------------- stopped while it runs

my $wait_long = 'echo ready; sleep 1000 & wait';
%submitted = (
	cancel => "$B, 'trap \"echo bye; exit 0\" TERM; $wait_long'",
	cancel_deaf => "$B, 'trap \"\" TERM; echo ready; sleep 1000'",
	kill => "$B, '$wait_long'",
	stop => "$B, '$wait_long'",
	rm => "$B, '$wait_long'",
	usr1 => "$B, 'trap \"exit 3\" USR1; $wait_long'",
	signal => "$B, 'trap \"echo again\" HUP; echo ready; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 6'",
);
$id{$_} = submit_on('e', $submitted{$_}) for sort keys %submitted;
wait_for_line($id{$_}) for sort keys %submitted;

explained('running', $id{kill}, qr/Its container runs/, qr/^$/);
is(cancel($id{$_}), 't', "$_: is cancelled") for qw(cancel cancel_deaf);
is(cancel($id{cancel_deaf}), 'f', 'cancelled twice');
explained('cancelling', $id{cancel_deaf}, qr/asked for it to be cancelled/, qr/^cancelling/);
ended('cancel', $id{cancel}, status => 'cancelled', reason => 'cancelled', exit => 0, error => qr/cancelled/,
	why => qr/cancelled while it ran/);
is(output($id{cancel}), "ready\nbye\n", 'cancel: last words are kept');
ended('cancel, deaf', $id{cancel_deaf}, status => 'cancelled', reason => 'cancelled', exit => 137, error => qr/cancelled/);
is(cancel($id{$_}), 'f', "cancelled when it is over ($_)") for qw(cancel cancel_deaf ok code);
ok(!defined eval { cancel(999999); }, 'an unknown job cannot be cancelled');

$engine->docker('kill', container_of($id{kill}));
$engine->docker('stop', '-t', '5', container_of($id{stop}));
$engine->docker('rm', '-f', container_of($id{rm}));
ended('docker kill', $id{kill}, status => 'failed', reason => 'killed', exit => 137, error => qr/from outside on host "e"/,
	hint => qr/docker kill/, why => qr/killed from outside/);
ended('docker stop', $id{stop}, status => 'failed', reason => 'killed', exit => 143, error => qr/from outside/);
my $removed = $node->job_wait($id{rm}) && job($id{rm});
ended('docker rm -f', $id{rm}, status => 'failed', reason => 'killed', exit => $removed->{exit_code}, error => qr/from outside/);

# A signal that does not end it is no kill.
$engine->docker('kill', '-s', 'HUP', container_of($id{signal}));
ok($node->wait_for_sql("SELECT cm_job_output($id{signal})", "ready\nagain\n"), 'a signal from outside arrives');
$engine->docker('exec', container_of($id{signal}), 'touch', '/tmp/go');
ended('signal that it takes', $id{signal}, status => 'failed', reason => 'exit_code', exit => 6, error => qr/code 6/);
$engine->docker('kill', '-s', 'USR1', container_of($id{usr1}));
ended('signal that ends it in order', $id{usr1}, status => 'failed', reason => 'exit_code', exit => 3, error => qr/code 3/);

# ------------------------------------------------------- it waits

# One slot, taken; and a host that takes nothing.
$node->add_host('full', my $small = CM::FakeEngine->start, 'max_concurrent_jobs => 1');
my $blocker = submit_on('full', q('x', args => '{x}', environment => '{"FAKE_RUN_MS": 600000}'));
$node->job_wait($blocker, status => 'running');
$id{expired} = submit_on('full', q('x', args => '{x}', max_wait => '700 ms'));
$id{full} = submit_on('full', q('x', args => '{x}'));
explained('host full', $id{full}, qr/It waits: .*full/, qr/full/);
is(cancel($id{full}), 't', 'pending: is cancelled');
ended('cancel, host full', $id{full}, status => 'cancelled', reason => 'cancelled', exit => undef, attempt => 0,
	events => 'cancelled', error => qr/cancelled/, why => qr/before it ran/);
is(cancel($id{full}), 'f', 'pending: cancelled twice');
ended('expired', $id{expired}, status => 'failed', reason => 'expired', exit => undef, attempt => 0,
	events => 'failed', error => qr/max_wait/, why => qr/max_wait \(00:00:00.7\)/, advice => qr/max_wait/);

value("SELECT cm_disable_host('full', 'new disk')");
$id{disabled} = submit_on('full', q('x', args => '{x}'));
explained('host disabled', $id{disabled}, qr/It waits: .*drained/, qr/drained/);
is(cancel($id{disabled}), 't', 'host disabled: is cancelled');
ended('cancel, host disabled', $id{disabled}, status => 'cancelled', reason => 'cancelled', exit => undef, attempt => 0,
	events => 'cancelled', error => qr/cancelled/);
$id{later} = submit_on('e', qq($B, 'true', run_at => now() + interval '1 h'));
explained('not due', $id{later}, qr/It waits: not due/, qr/not due/);
is(cancel($id{later}), 't', 'not due: is cancelled');
ended('cancel, not due', $id{later}, status => 'cancelled', reason => 'cancelled', exit => undef, attempt => 0,
	events => 'cancelled', error => qr/cancelled/);
is(cancel($blocker), 't', 'on a disabled host: is cancelled');
ended('cancel on a disabled host', $blocker, status => 'cancelled', reason => 'cancelled', exit => 143, error => qr/cancelled/);

# ------------------------------------------------------- it is launched

$node->add_host('slow', my $slow = CM::FakeEngine->start(images => ['there:1'], pull_ms => 600_000));
sub launch
{
	my ($image, $rest) = @_;
	return submit_on('slow', qq('$image', args => '{x}') . ($rest // ''));
}

# While it pulls.
my @pulling = map { launch('slow:1') } 1 .. 2;
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($pulling[0], $pulling[1]) AND detail LIKE 'pulling%'", 2),
	'pulling: shown');
explained('pulling', $pulling[0], qr/being launched: pulling/, qr/^pulling/);
is(cancel($pulling[0]), 't', 'pulling: is cancelled');
ended('cancel while pulling', $pulling[0], status => 'cancelled', reason => 'cancelled', exit => undef,
	events => 'launching cancelled', error => qr/cancelled/, why => qr/before it ran/);
is(value("SELECT status FROM cm_jobs WHERE id = $pulling[1]"), 'launching', 'another job\'s pull goes on');
is($slow->state->{pulls}{'slow:1'}, 1, 'one pull for both');
cancel($pulling[1]);
ended('cancel of the last that pulls', $pulling[1], status => 'cancelled', reason => 'cancelled', exit => undef,
	events => 'launching cancelled', error => qr/cancelled/);

# While create or start is under way: it may be carried out all the same.
for my $verb (qw(create start))
{
	my $hold = $slow->fault(method => 'POST', path => "/$verb\$", hold => 1, times => 1);
	my $job = launch('there:1', q(, environment => '{"FAKE_RUN_MS": 600000}'));
	ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $job", 'launching'), "$verb: under way");
	ok($slow->wait_for('held', 1), "$verb: is sent");
	is(cancel($job), 't', "during $verb: is cancelled");
	$slow->clear_faults($hold);
	my $ran = $verb eq 'start';
	ended("cancel during $verb", $job, status => 'cancelled', reason => 'cancelled',
		exit => $ran ? 143 : undef, error => qr/cancelled/,
		events => $ran ? 'launching running cancelled' : 'launching cancelled');
}

# The engine refuses.
for my $verb (qw(create start))
{
	$slow->fault(method => 'POST', path => "/$verb\$", status => 500, message => "no way: \x{201c}bad $verb\x{201d}", times => 1);
	my $job = launch('there:1');
	ended("$verb refused", $job, status => 'failed', reason => $verb, exit => undef, events => 'launching failed',
		error => qr/host "slow".*no way: .*bad $verb/, why => qr/engine/);
}

# A start that is refused, though the container runs: it did run.
$slow->fault(method => 'POST', path => '/start$', status => 500, message => 'odd', effect => JSON::PP::true, times => 1);
ended('start refused, but done', launch('there:1', q(, environment => '{"FAKE_RUN_MS": 300, "FAKE_EXIT": 9}')),
	status => 'failed', reason => 'exit_code', exit => 9, error => qr/code 9/);

# ------------------------------------------------------- images

ended('image missing, no pull', submit_on('nopull', q('nope:1', args => '{x}')), status => 'failed', reason => 'image_pull',
	exit => undef, events => 'launching failed', error => qr/image "nope:1" not found on host "nopull"/,
	hint => qr/auto_pull_images/, why => qr/"nope:1"/);
is_deeply($fake->state->{pulls}, {}, 'image missing, no pull: none was tried');

# Nobody listens there.
my $refused = ended('registry refused', submit_on('e', q('127.0.0.1:5001/cm/b:1', args => '{true}')), status => 'failed',
	reason => 'image_pull', exit => undef, events => 'launching failed',
	error => qr{image "127.0.0.1:5001/cm/b:1" .*could not be pulled}, hint => qr/registry/);
like($refused->{detail}, qr/connection refused/, 'registry refused: the engine\'s words');

# A registry of its own.
$engine->as_root('sh', '-c', 'cat > "$0/registry.yml" <<X
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $0/registry}}
http: {addr: 127.0.0.1:5000}
X', $engine->dir);
$engine->spawn_as_root('docker-registry', 'serve', $engine->dir . '/registry.yml');
$engine->docker('tag', 'busybox:test', '127.0.0.1:5000/cm/b:1');
my @push;
ok(wait_until(sub { @push = $engine->docker_try('push', '127.0.0.1:5000/cm/b:1'); !$push[0] }), 'registry: image pushed')
  or diag($push[2]);
my ($digest) = $engine->docker('inspect', '--format', '{{index .RepoDigests 0}}', '127.0.0.1:5000/cm/b:1') =~ /(sha256:\w+)/;
$engine->docker('rmi', '127.0.0.1:5000/cm/b:1');

my $tag_missing = ended('tag missing', submit_on('e', q('127.0.0.1:5000/cm/b:2', args => '{true}')), status => 'failed',
	reason => 'image_pull', exit => undef, events => 'launching failed', error => qr{"127.0.0.1:5000/cm/b:2" .*could not be pulled});
like($tag_missing->{detail}, qr/manifest.*unknown|not found/, 'tag missing: the engine\'s words');
my @real = map { submit_on('e', qq('127.0.0.1:5000/cm/b:1', 'echo pulled $_')) } 1 .. 3;
for my $n (1 .. 3)
{
	ended("real pull $n", $real[ $n - 1 ], status => 'completed', exit => 0, error => undef);
	is(output($real[ $n - 1 ]), "pulled $n\n", "real pull $n: output");
}
$engine->docker('rmi', '127.0.0.1:5000/cm/b:1');
ended('pull by digest', submit_on('e', qq('127.0.0.1:5000/cm/b\@$digest', 'echo same')), status => 'completed', exit => 0, error => undef);

# ------------------------------------------------------- a full disk

my $crammed = CM::Engine->start(name => 'crammed', data_mb => 40);
$crammed->import_busybox('busybox:test');
$node->add_host('crammed', $crammed);
$crammed->as_root('sh', '-c', 'dd if=/dev/zero of="$0/data/fill" bs=4k 2>/dev/null; true', $crammed->dir);
ended('disk full', submit_on('crammed', qq($B, 'true')), status => 'failed', reason => 'create', exit => undef,
	events => 'launching failed', error => qr/no space left on device/, hint => qr/disk is full/);
$crammed->as_root('rm', $crammed->dir . '/data/fill');
ended('disk mended', submit_on('crammed', qq($B, 'echo again')), status => 'completed', exit => 0, error => undef);

# ------------------------------------------------------- nothing is left

ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0), 'queue is empty');
for ([ e => $engine ], [ crammed => $crammed ])
{
	my ($name, $of) = @$_;
	ok(wait_until(sub { !$of->containers }), "no container is left on $name")
	  or diag($json->encode([ $of->containers ]));
}
for ([ nopull => $fake ], [ full => $small ], [ slow => $slow ])
{
	my ($name, $of) = @$_;
	ok(wait_until(sub { !%{ $of->state->{containers} } }), "no container is left on $name");
	is_deeply($of->state->{started_twice}, [], "nothing was started twice on $name");
}
is(value('SELECT last_error FROM cm_status'), '', 'the executor met no error');

done_testing();
