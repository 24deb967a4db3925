# Podman's service instead of Docker's: the same jobs end in the same ways, and what
# is different there is as the README says.  Its containers do not need it: it is
# killed while they run, while it starts one, and with them, as when a machine is
# switched off.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::Engine;
use JSON::PP;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'p', flavour => 'podman', count_starts => 1);
$engine->import_busybox('busybox:test');
$engine->import_busybox('volume:test', change => ['VOLUME /data']);
my $node = CM::Cluster->new_with_extension('main',
	'container_manager.stop_grace' => '3s',
	'container_manager.heartbeat_interval' => '2s');
$node->add_host('p', $engine);
$node->add_host('nopull', $engine, 'auto_pull_images => false');

my $json = JSON::PP->new->utf8->allow_nonref;

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub job
{
	my ($id) = @_;
	return $json->decode(value("SELECT to_json(j) FROM cm_jobs j WHERE id = $id"));
}

sub submit { my ($arguments) = @_; return $node->submit("'busybox:test', $arguments, host => 'p'"); }

sub output { my ($id) = @_; return $json->decode(value("SELECT to_json(cm_job_output($id))")); }

sub wait_for_line
{
	my ($id) = @_;
	return $node->wait_for_sql("SELECT count(*) > 0 FROM cm_job_logs($id)", 't');
}

# Waits for the end of a job: "status reason exit", and patterns of its columns.
sub ended
{
	my ($what, $id, $end, %like) = @_;
	$node->job_wait($id);
	my $job = job($id);
	is(join(' ', map { $_ // '-' } @$job{qw(status failure_reason exit_code)}), $end, "$what: ended")
	  or diag($json->encode($job));
	like($job->{$_} // '', $like{$_}, "$what: $_") for sort keys %like;
	return $job;
}

# How often the runtime was asked to start the containers of a job.
sub starts
{
	my ($id) = @_;
	my %is_its = map { $_ => 1 } split /\n/, value("SELECT container_id FROM cm_job_attempts WHERE job_id = $id");
	return scalar grep { $is_its{$_} } $engine->starts;
}

# The next start: the service is killed by the runtime that it calls, when the
# container was started (after) or in its stead (before).
sub kill_in_next_start
{
	my ($when) = @_;
	my $script = <<'END';
if [ "$verb" = start ] && rm "DIR/kill_before" 2>/dev/null; then kill -9 $PPID; exit 1; fi
if [ "$verb" = start ] && rm "DIR/kill_after" 2>/dev/null; then runc "$@"; kill -9 $PPID; exit 1; fi
END
	my $dir = $engine->dir;
	$script =~ s/DIR/$dir/g;
	$engine->as_root('sh', '-c', 'grep -q kill_after "$0/runtime" || {
		{ sed \$d "$0/runtime"; echo "$2"; sed -n \$p "$0/runtime"; } > "$0/new" &&
		chmod 755 "$0/new" && mv "$0/new" "$0/runtime"; } && touch "$0/kill_$1"', $dir, $when, $script);
	return;
}

# After the service was killed by the runtime.
sub bring_back
{
	ok(wait_until(sub { ($engine->api('GET', '/_ping'))[0] == 0 }), 'the service is killed');
	$engine->start_again;
	return;
}

# ------------------------------------------------------- what it is

# It runs programs to tell its version, which takes its time on a busy machine.
like(value("SELECT concat_ws(' ', ok, api_version, engine_version, error) FROM cm_check_host('p', '2 min')"),
	qr/^t 1\.41 podman 4\.[0-9.]+$/, 'checked: good, and told apart by its version');
ok(wait_until(sub {
	my ($status, $version) = $node->psql('postgres', "SELECT value FROM cm_host_info('p') WHERE key = 'ServerVersion'");
	return $version =~ /^4\./;
}), 'info');
ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = 'p'", 'healthy'), 'the executor reaches it');
like(value("SELECT engine_version FROM cm_host_status WHERE name = 'p'"), qr/^podman 4\./, 'status: version');

# ------------------------------------------------------- how jobs end

my $inside = <<'END';
id -u; id -g
grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status
touch /x 2>&1; touch /tmp/x && echo wrote
mount | grep " on /tmp " | grep -o "size=[0-9]*k"
cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null
cat /proc/sys/net/ipv4/ip_unprivileged_port_start
touch /run/x 2>&1; touch /var/tmp/x && echo wrote there, too
echo $HOME $A
END
# Longer than the pieces that podman cuts, no newline at the end, and what is no text.
my $bytes = q(head -c 20000 /dev/zero | tr "\\\\0" x; echo; printf "a\\\\377\\\\000b\\\\n"; echo err >&2; printf end);
my %id = (
	ok => submit(q('echo out; echo err >&2')),
	code => submit(q('exit 3')),
	bytes => submit("E'$bytes'"),
	inside => submit("\$\$$inside\$\$" . q(, memory_limit => 64, environment => '{"A": "b"}')),
	no_entrypoint => submit(q(entrypoint => '{}', args => '{echo,a b}')),
	no_command => submit(q(args => '{/nonexistent}')),
	timeout => submit(q('sleep 1000', timeout_seconds => 1)),
	oom => submit(q('tail /dev/zero', memory_limit => 16)),
	cancel => submit(q('trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.1; done')),
	kill => submit(q('echo ready; sleep 1000')),
	network => submit(q('true', networks => '["nonet"]')),
	volume => submit(q('echo 42 >/data/x; cat /data/x', run_as => '2001', volumes => '[{"name": "data", "target": "/data"}]')),
	of_image => $node->submit("'volume:test', 'touch /data/x && echo made', host => 'p'"),
	pull => $node->submit("'127.0.0.1:5001/cm/b:1', 'true', host => 'p'"),
	no_pull => $node->submit("'nope:1', 'true', host => 'nopull'"));

ok(wait_for_line($id{cancel}), 'output is followed');
is(job($id{cancel})->{status}, 'running', 'while it runs');
my $listed = value("SELECT string_agg(state || ' ' || belongs_to, ',') FROM cm_list_containers('p') WHERE job_id = $id{cancel}");
like($listed, qr/^running /, 'listed');
is(value("SELECT cm_cancel_job($id{cancel})"), 't', 'cancel: asked for');
ended('cancel', $id{cancel}, 'cancelled cancelled 0');
is(output($id{cancel}), "ready\nbye\n", 'cancel: last words are kept');
ok(wait_for_line($id{kill}), 'kill: runs');
$engine->docker('kill', job($id{kill})->{container_id});
ended('kill', $id{kill}, 'failed killed 137', error => qr/from outside on host "p"/);

ended('ok', $id{ok}, 'completed - 0');
is(value("SELECT string_agg(stream || ' ' || line, ',' ORDER BY stream) FROM cm_job_logs($id{ok})"), 'stderr err,stdout out', 'ok: output');
is(value("SELECT string_agg(status, ' ' ORDER BY seq) FROM cm_job_events WHERE job_id = $id{ok}"), 'launching running completed', 'ok: events');
is(value("SELECT engine_finished_at > engine_started_at FROM cm_job_attempts WHERE job_id = $id{ok}"), 't', 'ok: times');
ended('code', $id{code}, 'failed exit_code 3', error => qr/^exited with code 3$/);
ended('bytes', $id{bytes}, 'completed - 0');
is(value("SELECT encode(cm_job_output_bytes($id{bytes}, 'stdout'), 'hex')"),
	unpack('H*', 'x' x 20000 . "\na\xff\0b\nend"), 'bytes: as they were printed');
is(job($id{bytes})->{logs_incomplete} ? 1 : 0, 0, 'bytes: whole');
ended('no entrypoint', $id{no_entrypoint}, 'completed - 0');
is(output($id{no_entrypoint}), "a b\n", 'no entrypoint: output');
ended('no command', $id{no_command}, 'failed exit_code 1', hint => qr/catatonit.*not found/);
like(value("SELECT cm_job_stderr($id{no_command})"), qr/catatonit.*No such file/, 'no command: stderr');
ended('timeout', $id{timeout}, 'timeout timeout 143', error => qr/timeout_seconds of 1$/);
ended('network', $id{network}, 'failed network -', error => qr/^network "nonet" not found on host "p"$/, hint => qr/Create the network/);
ended('volume', $id{volume}, 'completed - 0');
is(output($id{volume}), "42\n", 'a volume of its user');
ended('volume of the image', $id{of_image}, 'completed - 0');
is(output($id{of_image}), "made\n", 'a volume of the image');
ended('pull', $id{pull}, 'failed image_pull -', error => qr/"127.0.0.1:5001.*could not be pulled/, detail => qr/connection refused/);
ended('no pull', $id{no_pull}, 'failed image_pull -', error => qr/"nope:1" not found on host "nopull"/, hint => qr/auto_pull_images/);
# With version 1 of control groups podman does not learn of it, but the hint does.
my $oom = ended('oom', $id{oom}, job($id{oom})->{oom_killed} ? 'failed oom 137' : 'failed exit_code 137');
like("$oom->{error} $oom->{hint}", qr/want of memory/, 'oom: words');

ended('inside', $id{inside}, 'completed - 0');
my $seen = output($id{inside});
like($seen, qr/\A65534\n65534\n/, 'inside: nobody');
like($seen, qr/^$_$/m, "inside: $_")
  for qr/CapEff:\s0{16}/, qr/CapBnd:\s0{16}/, qr/NoNewPrivs:\s1/, qr/Seccomp:\s2/, qr{.*/x: Read-only file system}, qr/wrote/,
  qr/size=65536k/, qr/67108864/, qr/^256$/m, qr{/tmp b}, qr/1024/, qr/wrote there, too/;

# ------------------------------------------------------- its service is killed

# While jobs run: they run on, and so does what they print.
my $long = submit(q('echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo three; exit 7'));
my $meanwhile = submit(q('echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; sleep 1; echo two; exit 8'));
ok(wait_for_line($_), 'service killed: a job runs') for $long, $meanwhile;
like(value("SELECT string_agg(command, ' ') FROM cm_job_processes($long)"), qr{while \[ ! -e /tmp/go}, 'what runs in it is told');
$engine->docker('exec', job($meanwhile)->{container_id}, 'touch', '/tmp/go');
$engine->kill9;
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($long, $meanwhile) AND detail LIKE 'host unreachable%'", 2),
	'service killed: they wait for it');
my $pid = $node->executor_pid;
kill 'KILL', $pid;
ok($node->wait_for_sql("SELECT count(*) FROM cm_status WHERE executor_pid <> $pid AND is_running", 1), 'and the executor is, too');
# It has ended when its monitor has.
my $bundle = job($meanwhile)->{container_id};
ok(wait_until(sub { $engine->as_root('sh', '-c', "runc list -q | grep -c $bundle || true") =~ /^0/
	  || $engine->as_root('sh', '-c', "runc state $bundle 2>&1 || true") =~ /stopped|not exist/ }), 'service killed: one ends meanwhile');
$engine->start_again;
ended('ended meanwhile', $meanwhile, 'failed exit_code 8');
is(output($meanwhile), "one\ntwo\n", 'ended meanwhile: output');
is(job($meanwhile)->{logs_incomplete} ? 1 : 0, 0, 'ended meanwhile: whole');
is(job($long)->{status}, 'running', 'service killed: the other one runs on');
$engine->docker('exec', job($long)->{container_id}, 'touch', '/tmp/go');
ended('ran on', $long, 'failed exit_code 7');
is(output($long), "one\nthree\n", 'ran on: output');
is(starts($_), 1, 'service killed: started once') for $long, $meanwhile;

# While it starts a container that starts all the same: podman takes it for one that
# was never started, so that another start would be a second one.
kill_in_next_start('after');
my $started = submit(q('echo ran; sleep 1000'));
bring_back();
ended('killed after a start', $started, 'failed infrastructure -', error => qr/asked to start the container, and its answer was lost/,
	hint => qr/not known whether the command ran/);
is(starts($started), 1, 'killed after a start: not started again');

# While it starts one, and that is not started: nobody can tell.
kill_in_next_start('before');
my $unsure = submit(q('echo ran'));
bring_back();
ended('killed before a start', $unsure, 'failed infrastructure -', error => qr/asked to start the container, and its answer was lost/,
	hint => qr/not known whether the command ran/);
is(starts($unsure), 1, 'killed before a start: not tried again');

# The machine is switched off: what podman keeps of it says that it was never started.
my $lost = submit(q('echo ready; sleep 1000'));
ok(wait_for_line($lost), 'switched off: a job runs');
$engine->kill9;
$engine->as_root('sh', '-c', 'for p in $(pidof conmon catatonit sleep); do kill -9 $p; done;
	umount -l "$0"/data/overlay-containers/*/userdata/shm "$0"/data/overlay/*/merged 2>/dev/null
	rm -rf "$0"/exec/* /run/* 2>/dev/null; true', $engine->dir);
$engine->start_again;
ended('switched off', $lost, 'failed infrastructure 255', error => qr/ended while host "p" was out of reach/);
is(job($lost)->{logs_incomplete} ? 1 : 0, 1, 'switched off: its output may be cut');
is(starts($lost), 1, 'switched off: started once');

# ------------------------------------------------------- nothing is left

ended('at the end', submit(q('echo fine')), 'completed - 0');
ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0), 'queue is empty');
ok(wait_until(sub { !$engine->containers }), 'no container is left') or diag($json->encode([ $engine->containers ]));
is(value('SELECT last_error FROM cm_status'), '', 'the executor met no error');

done_testing();
