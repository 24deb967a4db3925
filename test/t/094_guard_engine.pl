# Engines that make containers otherwise than they were asked to, by a setting, a
# plugin or ill will: what would be dangerous is found before the start, is removed
# and fails the job, also where another executor made it.  And images that name
# their user as they like.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::FakeEngine;
use JSON::PP;
use Test::More;

my $json = JSON::PP->new->canonical;
my $node = CM::Cluster->new_with_extension('main',
	'container_manager.allow_image_user' => 'on',
	'container_manager.heartbeat_interval' => '600s');
my $fake = CM::FakeEngine->start;
$node->add_host('fake', $fake, 'max_concurrent_jobs => 200');

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub true { return JSON::PP::true; }

# Host settings as an engine may tell them, and whether that is one and the same.
my @harmless = (
	[ 'unsaid' => { HostConfig => { Privileged => undef, Binds => undef, CapAdd => [], Devices => [], PortBindings => {}, OomKillDisable => undef } } ],
	[ 'with its value' => { HostConfig => { SecurityOpt => ['no-new-privileges:true'] } } ],
	[ 'a label of SELinux' => { HostConfig => { SecurityOpt => [ 'no-new-privileges', 'label=level:s0:c1,c2' ] } } ],
	[ 'the default network' => { HostConfig => { NetworkMode => 'default' } } ],
	[ 'namespaces of its own' => { HostConfig => { PidMode => 'private', UTSMode => 'private', UsernsMode => 'private' } } ],
	[ 'limits of the engine' => { HostConfig => { Ulimits => [ { Name => 'nofile', Soft => 1024, Hard => 1024 } ], ShmSize => 1_048_576 } } ],
	[ 'the paths of the engine' => { HostConfig => { MaskedPaths => ['/proc/kcore'], ReadonlyPaths => ['/proc/sys'] } } ],
	[ 'another runtime, which an administrator chose' => { HostConfig => { Runtime => 'kata' } } ],
	[ 'a score that gives way' => { HostConfig => { OomScoreAdj => 100 } } ],
	[ 'a volume of the image' => { Mounts => [ { Type => 'volume', Name => 'ab' x 32, Driver => 'local', Destination => '/data' } ] } ],
	[ 'the same, as podman tells it' => { HostConfig => { Binds => [ 'ab' x 32 . ':/data:rw,nosuid' ] } } ],
);
my @dangerous = (
	[ 'HostConfig.Privileged', true() ],
	[ 'HostConfig.Binds', ['/:/host'] ],
	[ 'HostConfig.Binds', ['of-others:/data'] ],
	[ 'HostConfig.Binds', [ '/' . 'ab' x 32 . ':/data' ] ],
	[ 'HostConfig.Binds', { a => 'b' } ],
	[ 'HostConfig.Mounts', [ { Type => 'bind', Source => '/', Target => '/host' } ] ],
	[ 'HostConfig.VolumesFrom', ['other'] ],
	[ 'HostConfig.VolumeDriver', 'nfs' ],
	[ 'HostConfig.Devices', [ { PathOnHost => '/dev/sda', PathInContainer => '/dev/sda', CgroupPermissions => 'rwm' } ] ],
	[ 'HostConfig.DeviceCgroupRules', ['c *:* rwm'] ],
	[ 'HostConfig.DeviceRequests', [ { Count => -1, Capabilities => [ ['gpu'] ] } ] ],
	[ 'HostConfig.CapAdd', ['SYS_ADMIN'] ],
	[ 'HostConfig.CapDrop', undef ],
	[ 'HostConfig.CapDrop', ['NET_RAW'] ],
	[ 'HostConfig.SecurityOpt', undef ],
	[ 'HostConfig.SecurityOpt', [ 'no-new-privileges', 'seccomp=unconfined' ] ],
	[ 'HostConfig.SecurityOpt', [ 'no-new-privileges', 'label=disable' ] ],
	[ 'HostConfig.SecurityOpt', ['no-new-privileges:false'] ],
	[ 'HostConfig.SecurityOpt', 'no-new-privileges' ],
	[ 'HostConfig.MaskedPaths', [] ],
	[ 'HostConfig.ReadonlyPaths', [] ],
	[ 'HostConfig.PidMode', 'host' ],
	[ 'HostConfig.PidMode', 'container:x' ],
	[ 'HostConfig.IpcMode', 'host' ],
	[ 'HostConfig.IpcMode', 'shareable' ],
	[ 'HostConfig.UTSMode', 'host' ],
	[ 'HostConfig.UsernsMode', 'host' ],
	[ 'HostConfig.CgroupnsMode', 'host' ],
	[ 'HostConfig.NetworkMode', 'host' ],
	[ 'HostConfig.NetworkMode', 'container:x' ],
	[ 'HostConfig.NetworkMode', undef ],
	[ 'HostConfig.Cgroup', 'container:x' ],
	[ 'HostConfig.CgroupParent', '/' ],
	[ 'HostConfig.Links', ['/other:/x/y'] ],
	[ 'HostConfig.GroupAdd', ['0'] ],
	[ 'HostConfig.Sysctls', { 'kernel.core_pattern' => 'x' } ],
	[ 'HostConfig.Annotations', { 'run.oci.hooks' => 'x' } ],
	[ 'HostConfig.PortBindings', { '80/tcp' => [ { HostPort => '80' } ] } ],
	[ 'HostConfig.PublishAllPorts', true() ],
	[ 'HostConfig.Memory', 0 ],
	[ 'HostConfig.Memory', undef ],
	[ 'HostConfig.Memory', 2 << 40 ],
	[ 'HostConfig.NanoCpus', 0 ],
	[ 'HostConfig.PidsLimit', undef ],
	[ 'HostConfig.PidsLimit', -1 ],
	[ 'HostConfig.OomKillDisable', true() ],
	[ 'HostConfig.OomScoreAdj', -1000 ],
	[ 'HostConfig.ReadonlyRootfs', JSON::PP::false ],
	[ 'HostConfig.Init', JSON::PP::false ],
	[ 'HostConfig.AutoRemove', true() ],
	[ 'HostConfig.RestartPolicy', { Name => 'always' } ],
	[ 'HostConfig.LogConfig', { Type => 'none' } ],
	[ 'Config.User', '' ],
	[ 'Config.User', '0' ],
	[ 'Config.User', 'root' ],
	[ 'Config.Tty', true() ],
	[ 'Mounts', [ { Type => 'bind', Source => '/', Destination => '/host' } ] ],
	[ 'Mounts', [ { Type => 'volume', Name => 'of-others', Destination => '/data' } ] ],
	[ 'Mounts', [ {} ] ],
);

sub made_so
{
	my ($field, $value) = @_;
	my ($section, $name) = split /\./, $field;
	return defined $name ? { $section => { $name => $value } } : { $field => $value };
}

# The container is told otherwise when it is looked at; it would end at once.
sub submit_made
{
	my ($made) = @_;
	(my $environment = $json->encode({ FAKE_EXIT => '0', FAKE_MADE => $json->encode($made) })) =~ s/'/''/g;
	return $node->submit("'x:1', environment => '$environment', host => 'fake'");
}

sub outcome { my ($id) = @_; return sql("SELECT concat_ws('|', status, failure_reason) FROM cm_jobs WHERE id = $id"); }

# ------------------------------------------------------- what was made

my @good = map { submit_made($_->[1]) } @harmless;
my @bad = map { submit_made(made_so(@$_)) } @dangerous;
$node->job_wait($_) for @good, @bad;
is(outcome($good[$_]), 'completed', "taken as it was asked for: $harmless[$_][0]")
  or diag(sql("SELECT error, detail FROM cm_jobs WHERE id = $good[$_]"))
  for 0 .. $#good;
for my $i (0 .. $#bad)
{
	my ($field, $value) = @{ $dangerous[$i] };
	is(outcome($bad[$i]), 'failed|policy', "$field of " . $json->allow_nonref->encode($value));
	is(sql("SELECT error FROM cm_jobs WHERE id = $bad[$i]"),
		qq{host "fake" made a container whose $field is not what was asked for}, 'it is told');
}
my $state = $fake->state;
my ($epoch) = sql('SELECT left(epoch::text, 8) FROM cm_internal.identity');
is_deeply([ grep { $state->{starts_by_name}{"cm-default-$_-1-$epoch"} } @bad ], [], 'none of them was started');
ok(wait_until(sub { !%{ $fake->state->{containers} } }), 'all of them are removed')
  or diag(explain [ keys %{ $fake->state->{containers} } ]);
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
like($log, qr/LOG:  policy violation: host "fake", job $bad[0], HostConfig\.Privileged: made otherwise than asked for/, 'the log tells of it');
like(sql("SELECT detail FROM cm_jobs WHERE id = $bad[0]"), qr/^asked for: false; made: true/, 'and the job what was made');

# One look at each container is enough.
sub count_looks { my $requests = $fake->state->{requests}; return $requests->{'GET /containers/ID/json'} // 0; }
my $looks = count_looks();
my @plain = map { $node->submit(q{'x:1', environment => '{"FAKE_RUN_MS": "600000"}', host => 'fake'}) } 1 .. 5;
$node->job_wait($_, status => 'running') for @plain;
is(count_looks() - $looks, 5, 'five jobs that run: five looks');
$fake->end_container("cm-default-$_-1-$epoch") for @plain;
$node->job_wait($_) for @plain;

# A container whose making was not answered is found by its name: it is looked at, too.
for my $made ([ 'completed', {} ], [ 'failed|policy', { HostConfig => { Privileged => true() } } ])
{
	my $fault = $fake->fault(method => 'POST', path => '/containers/create', effect => true(), close_after_request => 1, times => 1);
	my $id = submit_made($made->[1]);
	$node->job_wait($id);
	is(outcome($id), $made->[0], 'found by its name: ' . $json->encode($made->[1]));
	my $starts = $fake->state->{starts_by_name}{"cm-default-$id-1-$epoch"} // 0;
	is($starts, $made->[0] eq 'completed' ? 1 : 0, 'and started so often');
}

# ------------------------------------------------------- users of images

$fake->set(
	users => { 'number:1' => '2000', 'both:1' => '2000:3000', 'name:1' => 'app', 'named:1' => 'app:staff', 'mixed:1' => 'app:3000',
		'root:1' => 'root', 'zero:1' => '0', 'low:1' => '1000', 'rootgroup:1' => '2000:0', 'toor:1' => 'toor', 'rootteam:1' => 'app:root',
		'nobody:1' => 'nosuch', 'nogroup:1' => 'app:nosuch', 'odd:1' => "app\n", 'long:1' => 'a' x 1000, 'huge:1' => '4294967296', 'unsaid:1' => '' },
	files => {
		'/etc/passwd' => "root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\napp:x:2000:3000::/:/bin/sh\n",
		'/etc/group' => "root:x:0:app\nstaff:x:4000:\n" });
my %user = (number => '2000:2000', both => '2000:3000', name => '2000:3000', named => '2000:4000', mixed => '2000:3000');
my %refused = (
	root => qr/is not allowed: run_as of 0 is below the lowest allowed uid 1001$/,
	zero => qr/is not allowed: run_as of 0 is below/,
	unsaid => qr/is not allowed: run_as of 0 is below/,
	toor => qr/is not allowed: run_as of 0 is below/,
	low => qr/is not allowed: run_as of 1000 is below/,
	rootgroup => qr/is not allowed: run_as of 2000:0 has the group of root/,
	rootteam => qr/is not allowed: run_as of 2000:0 has the group of root/,
	nobody => qr/is not listed in its \/etc\/passwd/,
	nogroup => qr/is of a group that its \/etc\/group does not list/,
	odd => qr/is named in a way that cannot be understood/,
	huge => qr/is named in a way that cannot be understood/,
	long => qr/is not told by the engine/);

sub submit_image_user
{
	my ($image) = @_;
	return $node->submit(qq{'$image:1', run_as => 'image', environment => '{"FAKE_RUN_MS": "600000"}', host => 'fake'});
}

my %job = map { $_ => submit_image_user($_) } sort(keys %user), sort keys %refused;
$node->job_wait($job{$_}, status => 'running|failed') for keys %job;
for my $image (sort keys %user)
{
	my $container = $fake->state->{containers}{"cm-default-$job{$image}-1-$epoch"};
	is($container ? $container->{status} : outcome($job{$image}), 'running', "image $image runs");
	is(CM::Http::unix_json($fake->socket, 'GET', "/v1.41/containers/cm-default-$job{$image}-1-$epoch/json")->{Config}{User}, $user{$image}, "as $user{$image}");
}
for my $image (sort keys %refused)
{
	is(outcome($job{$image}), 'failed|policy', "image $image is refused");
	like(sql("SELECT error FROM cm_jobs WHERE id = $job{$image}"), $refused{$image}, 'it is told');
}
is_deeply([ grep { $fake->state->{starts_by_name}{"cm-default-$job{$_}-1-$epoch"} } sort keys %refused ], [], 'none of these was started');
$fake->end_container("cm-default-$job{$_}-1-$epoch") for keys %user;
$node->job_wait($job{$_}) for keys %user;

# The engine is lost while a probe is there: it is never started, and gives way.
sub lose_at
{
	my ($what, %fault) = @_;
	$fake->fault(%fault, times => 1);
	my $id = submit_image_user('name');
	is($node->job_wait($id, status => 'running|failed'), 'running', "$what: the job runs") or diag(sql("SELECT error FROM cm_jobs WHERE id = $id"));
	my $name = "cm-default-$id-1-$epoch";
	is($fake->state->{starts_by_name}{$name}, 1, "$what: once");
	is(CM::Http::unix_json($fake->socket, 'GET', "/v1.41/containers/$name/json")->{Config}{User}, '2000:3000', "$what: as its user");
	$fake->end_container($name);
	is($node->job_wait($id), 'completed', "$what: it ends");
	return;
}
lose_at('the image is not told', method => 'GET', path => '/images/name', close_after_request => 1);
lose_at('the probe is made, and not told', method => 'POST', path => '/containers/create', effect => true(), close_after_request => 1);
lose_at('the file is cut', method => 'GET', path => '/archive', half_body => 1);
lose_at('its removal is not told', method => 'DELETE', path => '/containers/', effect => true(), close_after_request => 1);

# Files that make no sense.
for my $row ([ 'a page', 200, '<html>', qr/is not listed/ ], [ 'nothing', 200, '', qr/is not listed/ ], [ 'no file', 404, '{"message": "no such file"}', qr/is not listed/ ])
{
	my ($what, $status, $body, $error) = @$row;
	$fake->fault(method => 'GET', path => '/archive', status => $status, body => $body, times => 1);
	my $id = submit_image_user('name');
	$node->job_wait($id);
	is(outcome($id), 'failed|policy', "instead of the file: $what");
	like(sql("SELECT error FROM cm_jobs WHERE id = $id"), $error, 'it is told');
}

# An engine that has no time for it is asked again.
$fake->fault(method => 'GET', path => $_, status => 500, body => '{"message": "busy"}', times => 2) for '/archive', '/images/name';
my $patient = submit_image_user('name');
is($node->job_wait($patient, status => 'running|failed'), 'running', 'errors of the engine are no verdict');
$fake->end_container("cm-default-$patient-1-$epoch");
$node->job_wait($patient);

# ------------------------------------------------------- between create and start

# The setting changes while a start is not answered, and another executor takes it up.
my $starts = $fake->state->{requests}{'POST /containers/ID/start'};
$fake->fault(method => 'POST', path => '/start$', hang => 1, times => 1);
my $taken = $node->submit(q{'x:1', environment => '{"FAKE_RUN_MS": "600000"}', host => 'fake'});
ok(wait_until(sub { $fake->state->{requests}{'POST /containers/ID/start'} > $starts }), 'a start hangs');
sql('ALTER SYSTEM SET container_manager.pids_limit = 100');
$node->reload;
kill 'TERM', $node->executor_pid;
is($node->job_wait($taken, status => 'running|failed'), 'running', 'another limit is no violation') or diag(sql("SELECT error FROM cm_jobs WHERE id = $taken"));
$fake->end_container("cm-default-$taken-1-$epoch");
is($node->job_wait($taken), 'completed', 'it ends');

# An engine that loses what it makes is not asked without end.
$fake->fault(method => 'GET', path => '/containers/[^/]+/json', status => 404, body => '{"message": "No such container"}');
$fake->fault(method => 'POST', path => '/containers/create', status => 201, body => $json->encode({ Id => 'cd' x 32, Warnings => [] }));
my $creates = $fake->state->{requests}{'POST /containers/create'};
my $lost = $node->submit(q{'x:1', host => 'fake'});
is($node->job_wait($lost), 'failed', 'lost as soon as made');
like(sql("SELECT failure_reason || ' ' || error FROM cm_jobs WHERE id = $lost"), qr/^infrastructure host "fake" lost 8 containers/, 'it says so');
is($fake->state->{requests}{'POST /containers/create'} - $creates, 8, 'so often it was asked');
$fake->clear_faults;
ok(wait_until(sub { !%{ $fake->state->{containers} } }), 'no container is left, and no probe')
  or diag(explain [ keys %{ $fake->state->{containers} } ]);
is_deeply($fake->state->{started_twice}, [], 'nothing ran twice');
done_testing();
