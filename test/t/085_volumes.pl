# Volumes: made when they are missing, owned by the job that writes to them, read by
# another user's job after it; nobody else's; made, listed and removed by request; and
# made whole by whoever takes up a container after a crash.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::Engine;
use CM::Proxy;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'vol', count_starts => 1);
$engine->import_busybox('busybox:test');
my $proxy = CM::Proxy->start($engine);
my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
$node->add_host('local', $proxy->url);

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub refusal
{
	my ($sql) = @_;
	my $stderr = '';
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \$stderr);
	return $stderr =~ /ERROR:\s+(\w+: .*)/ ? $1 : "none: $stderr";
}

sub submit
{
	my ($command, $volumes, @more) = @_;
	return $node->submit(join ', ', "'busybox:test', \$\$$command\$\$, host => 'local', volumes => '$volumes'", @more);
}

# How it ended, and what it printed.
sub run
{
	my $id = submit(@_);
	$node->job_wait($id);
	return value("SELECT status, coalesce(failure_reason, '-'), rtrim(cm_job_output($id), chr(10)) FROM cm_jobs WHERE id = $id");
}

sub outcome
{
	my ($call) = @_;
	my $id = value("SELECT $call");
	return value("CALL cm_await_host_request($id)");
}

my $data = '[{"name": "data", "target": "/data"}]';
my $epoch = value('SELECT left(epoch::text, 8) FROM cm_internal.identity');
my $owner = q{stat -c '%u:%g %a' /data};

# ------------------------------------------------------- data from one job to the next

is(run("$owner; echo fetched >/data/file", $data, q{run_as => '2001:2002'}), 'completed|-|2001:2002 755', 'a new volume is its first job\'s');
is(run("cat /data/file; touch /data/other || echo not its own", $data, q{run_as => '3001'}) =~ s/\n.*//r, 'completed|-|fetched', 'another user\'s job reads it');
is(run("$owner; cat /data/file; touch /data/other", '[{"name": "data", "target": "/data", "read_only": true}]', q{run_as => '2001:2002'}),
	"failed|exit_code|2001:2002 755\nfetched", 'read-only it is not written, even by its owner');
is(run('ls /data; touch /data/more /here 2>/dev/null; ls /data', $data, q{run_as => '2001:2002'}), "completed|-|file\nfile\nmore", 'it stays, and the root is read-only');
is(run("chmod 1777 /data", $data, q{run_as => '2001:2002'}), 'completed|-|', 'its owner may open it to all');
is(run("$owner; touch /data/third", $data, q{run_as => '3001'}), 'completed|-|2001:2002 1777', 'and it stays as he left it');

is(value("SELECT namespace, name, coalesce(owner, '-'), belongs_to, engine_name FROM cm_list_volumes('local')"),
	"default|data|-|this database|cm-$epoch-default.data", 'it is listed');
my $last = value('SELECT max(id) FROM cm_jobs');
like(value("SELECT cm_job_docker_command($last)"), qr/ --mount type=volume,source=cm-$epoch-default\.data,target=\/data,volume-nocopy /, 'the docker command has it');
like(value("SELECT explanation FROM cm_job_explain($last) WHERE item = 'volumes'"), qr/^data at \/data$/, 'so has the explanation');

# An image's own folder in its place is neither copied nor its owner taken.
is(run('stat -c %u /etc; ls /etc', '[{"name": "config", "target": "/etc"}]', q{run_as => '2001'}) =~ s/\n.*//sr, 'completed|-|2001', 'nothing of the image is in it');

# ------------------------------------------------------- one's own alone

is(run('ls /data', $data, q{namespace => 'team'}), 'completed|-|', 'another namespace has another volume of that name');
is(value("SELECT string_agg(engine_name, ' ' ORDER BY engine_name) FROM cm_list_volumes('local') WHERE name = 'data'"),
	"cm-$epoch-default.data cm-$epoch-team.data", 'beside the first');
$engine->docker('volume', 'create', "cm-$epoch-default.theirs");
is(run('true', '[{"name": "theirs", "target": "/data"}]'), 'failed|policy|', 'a volume that others made is refused');
like(value("SELECT error FROM cm_jobs ORDER BY id DESC LIMIT 1"), qr/^volume "theirs" on host "local" is not this database's$/, 'in so many words');
# One that is a folder of the host, whatever labels it bears.
$engine->docker('volume', 'create', '--label', 'container-manager.version=1', '--label', 'container-manager.kind=volume',
	'--label', 'container-manager.epoch=' . value('SELECT epoch FROM cm_internal.identity'),
	'--label', 'container-manager.namespace=default', '--label', 'container-manager.volume=etc',
	qw(--opt type=none --opt o=bind --opt device=/etc), "cm-$epoch-default.etc");
is(run('cat /data/passwd', '[{"name": "etc", "target": "/data"}]'), 'failed|policy|', 'nor is a folder of the host to be had by a volume\'s options');

for (
	[ '{"a": "/b"}', '22023', 'volumes is not a JSON array' ],
	[ '["data"]', '22023', 'volumes has what is not an object' ],
	[ '[{"source": "/etc", "target": "/data"}]', '22023', 'volumes has an unknown key "source"' ],
	[ '[{"name": "/etc", "target": "/data"}]', '22023', 'volume "/etc" is not a valid name' ],
	[ '[{"name": "data", "target": "/data", "read_only": "yes"}]', '22023', 'read_only in volumes is not a boolean' ],
	[ '[{"name": "data"}]', '22023', 'path of a volume is missing' ],
	[ '[{"name": "data", "target": "/proc/x"}]', '42501', 'path "/proc/x" of a volume is not allowed' ],
	[ '[{"name": "data", "target": "/tmp"}]', '22023', 'path "/tmp" of a volume is in the way of "/tmp"' ])
{
	my ($volumes, $sqlstate, $message) = @$_;
	is(refusal("SELECT cm_submit_job('busybox:test', 'true', volumes => '$volumes')"), "$sqlstate: $message", "refused: $volumes");
}
like(refusal("SELECT cm_create_volume('local', 'a.b')"), qr/^22023: volume "a\.b" is not a valid name/, 'refused: a volume of a bad name');
like(refusal("SELECT cm_create_volume('local', 'a', owner => 'root')"), qr/^22023: owner "root" is not a uid or uid:gid/, 'refused: an owner by name');

# ------------------------------------------------------- made and removed by request

is(outcome(q{cm_create_volume('local', 'shared', owner => '4001:4002')}), 'done|', 'a volume is made');
is(outcome(q{cm_create_volume('local', 'shared', owner => '4001:4002')}), 'done|', 'once');
is(outcome(q{cm_create_volume('local', 'shared')}), 'failed|volume "shared" on host "local" is there, and made for another owner', 'for one owner');
is(run($owner, '[{"name": "shared", "target": "/data"}]', q{run_as => '2001'}), 'completed|-|4001:4002 755', 'whose it is from the first job on');
like(outcome(q{cm_create_volume('local', 'small', size_limit => 10)}), qr/^failed\|.*quota/, 'a limit that the storage cannot keep fails');
is(outcome(q{cm_remove_volume('local', 'theirs')}), q{failed|volume "theirs" on host "local" is not this database's}, 'what others made is not removed');
my $sleeper = submit('sleep 1000', $data);
$node->job_wait($sleeper, status => 'running');
like(outcome(q{cm_remove_volume('local', 'data')}), qr/^failed\|.*in use/, 'nor is what is in use');
value("SELECT cm_cancel_job($sleeper)");
$node->job_wait($sleeper);
ok(wait_until(sub { outcome(q{cm_remove_volume('local', 'data')}) eq 'done|' }), 'without containers it is removed');
is(value("SELECT string_agg(engine_name, ' ' ORDER BY engine_name) FROM cm_list_volumes('local') WHERE name = 'data'"), "cm-$epoch-team.data", 'and no other');

# ------------------------------------------------------- killed before it had its owner

$proxy->tell('lose 1000000 /archive');
my $job = submit($owner, '[{"name": "late", "target": "/data"}]', q{run_as => '2001:2002'});
ok(wait_until(sub { my @c = $engine->containers; @c && $c[0]{State} eq 'created' }), 'killed: the container is made');
is(value("SELECT container_id IS NULL FROM cm_internal.queue WHERE job_id = $job"), 't', 'killed: its id is not recorded');
kill 'KILL', $node->executor_pid;
$proxy->tell('lose 0 -');
ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $job", 'completed'), 'killed: the job completes')
  or diag(value("SELECT status, failure_reason, error, detail FROM cm_jobs WHERE id = $job"));
is(value("SELECT attempt, rtrim(cm_job_output($job), chr(10)) FROM cm_jobs WHERE id = $job"), '1|2001:2002 755', 'killed: it owns its volume');
my $container = value("SELECT container_id FROM cm_jobs WHERE id = $job");
is(scalar(grep { $_ eq $container } $engine->starts), 1, 'killed: started once');
ok(wait_until(sub { !$engine->containers }), 'no container is left, nor any helper');
my %starts;
$starts{$_}++ for $engine->starts;
is(join(' ', grep { $starts{$_} > 1 } sort keys %starts), '', 'none was started twice');

done_testing();
