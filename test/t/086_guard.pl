# The guard: what a database user may not have on a host is had by no column, no
# spelling and no way into the tables, neither by an ordinary role nor by a
# superuser.  What counts in the end is what the engine was asked for: all
# containers that it made are looked at.  And what docker_options may have is had.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::Engine;
use JSON::PP;
use PostgreSQL::Test::Utils ();
use Test::More;

CM::Engine->require_engine;

my $json = JSON::PP->new->canonical->allow_nonref;
# What an engine fills in by itself where it is not told: all of it less safe.
my $engine = CM::Engine->start(name => 'e1',
	args => [ '--default-cgroupns-mode=host', '--default-ipc-mode=shareable', '--default-ulimit', 'nofile=1000:2000' ]);
$engine->import_busybox('busybox:test');
$engine->import_busybox('named:test', user => 'job');
$engine->import_busybox('number:test', user => '2000');
$engine->import_busybox('root:test', user => 'root');
my $node = do {
	# For a database that can hold all letters.
	local $ENV{LC_ALL} = 'C.UTF-8';
	CM::Cluster->new_with_extension('main',
		'container_manager.stop_grace' => '0',
		'container_manager.poll_interval' => '200ms',
		'container_manager.allow_image_user' => 'on');
};
$node->add_host('e1', $engine, 'max_concurrent_jobs => 50');
my $host_network = (grep { $_->{Name} eq 'host' } @{ $engine->api_json('GET', '/v1.41/networks') })[0]{Id};

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub quote { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }

sql(<<'SQL');
CREATE ROLE app LOGIN;
GRANT SELECT, INSERT ON cm_jobs TO app;
GRANT EXECUTE ON FUNCTION cm_submit_job TO app;
CREATE TABLE attack (n int PRIMARY KEY, col text NOT NULL, value text NOT NULL);
CREATE TABLE outcome (n int, way text, job bigint, sqlstate text, said text);
GRANT SELECT ON attack TO app;
GRANT SELECT, INSERT ON outcome TO app;
SQL

# ------------------------------------------------------- the attacks

my @attacks;
sub attack { my ($column, @values) = @_; push @attacks, map { [ $column, $_ ] } @values; return; }

# Go's decoder (docker-engine.md 7.1).
attack('docker_options',
	'{"Privileged": true}', '{"privileged": true}', '{"pRiViLeGeD": true}', '{"HostConfig": {"privileged": true}}',
	'{"hostconfig": {"Privileged": true}}', '{"HOSTCONFIG": {"Dns": ["10.0.0.1"]}}', '{"Ho\u017ftConfig": {"Privileged": true}}',
	'{"HostConfig": {"Bind\u017f": ["/etc:/x"]}}', qq({"HostConfig": {"Bind\x{17f}": ["/etc:/x"]}}), '{"Bind\u017f": ["/etc:/x"]}',
	'{"HostConfig": {"Lin\u212as": ["a"]}}', qq({"HostConfig": {"Lin\x{212a}s": ["a"]}}), '{"HostConfig": {"MACADDRE\u017f\u017f": "x"}}',
	'{"\u0050rivileged": true}', '{"HostConfig": {"\u0050rivileged": true}}', '{"HostConfig": {"NetworkMode": "ho\u0073t"}}',
	'{"Privileged": false, "privileged": true}', '{"privileged": true, "Privileged": false}',
	'{"HostConfig": {"Privileged": true}, "HostConfig": {"Memory": 1}}', '{"HostConfig": {}, "hostconfig": {"Privileged": true}}',
	'{"HostConfig": {"Privileged": true}, "HostConfig": null}', '{"HostConfig": null}', '{"HostConfig": []}', '{"HostConfig": "x"}',
	'{"Privileged": true, "Binds": ["/:/host"], "PidMode": "host"}', '{"Binds": ["/:/host"]}', '{"PidMode": "host"}',
	'{"Hostname": "a"} {"Privileged": true}', '{"Hostname": "a"}, "HostConfig": {"Privileged": true}', '[]', '"x"', '7',
	'{"Hostname": "a\u0000"}', '{"Unknown": 1}', '{"HostConfig": {"Unknown": 1}}', '{"": 1}', '{"HostConfig": {"HostConfig": {"Privileged": true}}}',
	'{"Hostname": "a\",\"HostConfig\":{\"Privileged\":true},\"x\":\""}', '{"Hostname": {"a": "b"}}', '{"Hostname": null}');

# All that is denied (7.3), and what the engine's create request has besides.
my %never = (
	Privileged => 'true', CapAdd => '["SYS_ADMIN"]', Capabilities => '["ALL"]', Binds => '["/:/host"]',
	Mounts => '[{"Type": "bind", "Source": "/", "Target": "/host"}]', VolumesFrom => '["x"]', VolumeDriver => '"nfs"', ContainerIDFile => '"/x"',
	StorageOpt => '{"size": "1T"}', NetworkMode => '"host"', PidMode => '"host"', IpcMode => '"host"', UTSMode => '"host"', UsernsMode => '"host"',
	CgroupnsMode => '"host"', Cgroup => '"container:x"', CgroupParent => '"/"', Devices => '[{"PathOnHost": "/dev/sda"}]',
	DeviceCgroupRules => '["c *:* rwm"]', DeviceRequests => '[{"Count": -1}]', SecurityOpt => '["seccomp=unconfined"]',
	MaskedPaths => '[]', ReadonlyPaths => '[]', Runtime => '"nvidia"', OomKillDisable => 'true', KernelMemory => '1', KernelMemoryTCP => '1',
	CpuRealtimePeriod => '1', CpuRealtimeRuntime => '1', Links => '["x:y"]', PortBindings => '{"80/tcp": [{"HostPort": "80"}]}',
	PublishAllPorts => 'true', LogConfig => '{"Type": "syslog"}', Annotations => '{"run.oci.x": "y"}', Isolation => '"default"',
	BlkioWeightDevice => '[]', BlkioDeviceReadBps => '[]', IOMaximumIOps => '1', CpuCount => '1', ConsoleSize => '[1, 1]', AutoRemove => 'true',
	RestartPolicy => '{"Name": "always"}', Init => 'false', CapDrop => '[]', Memory => '0', MemorySwap => '-1', NanoCpus => '0', CpuQuota => '-1',
	CpuPeriod => '1', PidsLimit => '-1', Ulimits => '[{"Name": "core", "Hard": -1, "Soft": -1}]', ShmSize => '1099511627776',
	Tmpfs => '{"/proc": ""}', ReadonlyRootfs => 'false');
for my $name (sort keys %never)
{
	my $folded = lcfirst $name;
	attack('docker_options', qq({"HostConfig": {"$name": $never{$name}}}), qq({"$name": $never{$name}}), qq({"HostConfig": {"$folded": $never{$name}}}));
}
my %whole = (
	MacAddress => '"02:00:00:00:00:01"', NetworkingConfig => '{"EndpointsConfig": {"host": {}}}', Volumes => '{"/x": {}}', User => '"0"', Env => '["A=b"]',
	Labels => '{"container-manager.job": "1"}', Image => '"x"', Cmd => '["x"]', Entrypoint => '["x"]', Tty => 'true', StdinOnce => 'true',
	Healthcheck => '{"Test": ["CMD", "x"]}', Shell => '["x"]', OnBuild => '["x"]', ExposedPorts => '{"80/tcp": {}}', StopSignal => '"SIGKILL"',
	NetworkDisabled => 'true', WorkingDir => '"/x"', ArgsEscaped => 'true', Platform => '"x"', GwPriority => '1');
attack('docker_options', map { qq({"$_": $whole{$_}}) } sort keys %whole);

# Values that go too far in what can be had.
attack('docker_options', map { qq({"HostConfig": {$_}}) } '"OomScoreAdj": -1', '"OomScoreAdj": 1.5', '"OomScoreAdj": "1"',
	'"OomScoreAdj": 99999999999999999999', '"CpuShares": 1025', '"CpuShares": true', '"BlkioWeight": 1000', '"MemorySwappiness": 100', '"MemorySwappiness": -1',
	'"MemoryReservation": -1', '"MemoryReservation": 1099511627776', '"GroupAdd": ["0"]', '"GroupAdd": ["docker"]', '"GroupAdd": [0]', '"GroupAdd": ["999"]',
	'"Dns": ["x"]', '"Dns": "10.0.0.1"', '"Dns": ["10.0.0.1\noptions x"]', '"DnsSearch": ["a b"]', '"DnsOptions": ["ndots:2\nnameserver 10.0.0.1"]',
	'"ExtraHosts": ["a:b"]', '"ExtraHosts": ["a:10.0.0.1\n10.0.0.1 b"]', '"Sysctls": {"kernel.core_pattern": "|/x"}', '"Sysctls": {"kernel.shmmax": "1"}',
	'"Sysctls": {"net.ipv4.ip_forward": "1"}', '"Sysctls": {"net.core.somaxconn": 1}', '"Sysctls": {"net.core.somaxconn": "1\n"}', '"CpusetCpus": "all"');
attack('docker_options', '{"StopTimeout": -1}', '{"StopTimeout": 100000}', '{"Hostname": "a b"}', '{"Hostname": ""}', '{"Domainname": "a/b"}', '{"OpenStdin": 1}', '{"AttachStdin": "true"}');

# The other columns.
attack('networks', map { $json->encode($_) } ['host'], ['HOST'], ['Host'], ['default'], ['container:x'], ["container:$host_network"], ['ns:/proc/1/ns/net'], ['pasta:x'],
	['slirp4netns:port_handler=x'], ['../host'], ["host\n"], [''], ['a b'], [ { network_name => 'host' } ], [['host']], 'host', { host => {} });
attack('volumes', map { $json->encode($_) } [ { name => '/etc', target => '/x' } ], [ { name => '../x', target => '/x' } ], [ { name => 'a:b', target => '/x' } ],
	[ { name => 'x', target => '/proc' } ], [ { name => 'x', target => '/x:/y' } ], [ { name => '/var/run/docker.sock', target => '/s' } ], [ { type => 'bind', source => '/', target => '/x' } ],
	[ { name => 'x', target => '/x', driver => 'local', options => { o => 'bind', device => '/', type => 'none' } } ], ['/:/host'], '/:/host');
attack('tmpfs', map { $json->encode($_) } { '/proc' => 1 }, { '/sys/fs/cgroup' => 1 }, { '/dev' => 1 }, { '/dev/shm' => 1 }, { '/' => 1 }, { '/a/../proc' => 1 }, { '//proc' => 1 },
	{ '/x:rw,exec,suid' => 1 }, { 'x' => 1 }, { '/x' => -1 }, { '/x' => '1m,exec' }, { '/x' => 1_000_000 });
attack('run_as', '0', 'root', '0:0', '00', '-1', '+2000', ' 2000', '4294967296', '1000', '2000:0', '2000:root', '', 'Image', 'job', "2000\n");
attack('image', '', '--privileged', 'x --privileged', '../x', 'busybox:test?platform=x', "busybox:test\n", 'busybox:test#x', 'http://10.0.0.1/x', 'x/../../containers/create',
	'file:///etc/passwd', 'busybox:' . 'x' x 200, '%2e%2e/x', 'Busybox', 'busybox@sha256:short');
attack('environment', map { $json->encode($_) } { 'A=B' => 'x' }, { '' => 'x' }, { "A\n" => 'x' }, { CONTAINER_MANAGER_X => '1' }, { A => ['x'] }, { A => undef }, { '1A' => 'x' }, ['A=b'], 'A=b');
attack('labels', map { $json->encode($_) } { '' => 'x' }, { "a\n" => 'x' }, { 'a b' => 'x' }, { a => { b => 'c' } }, { a => undef }, ['a'], { 'a"' => 'x' });
attack('memory_limit', 0, -1, 5, 4096, 2147483647);
attack('cpu_limit', 0, -1, 3, 'NaN', 'Infinity', '1e300');
attack('timeout_seconds', 0, -1, 86400, 2147483647);
attack('working_directory', 'x', '/../etc', "/a\nb");
attack('namespace', '../x', 'a/b', 'a b', '');
attack('name', "a\nb");
attack('args', '{}', '{{a},{b}}', '{NULL}');
attack('entrypoint', '{""}', '{NULL}');

my $i = 0;
{
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	my $rows = join ",\n", map { '(' . $i++ . ', ' . quote($_->[0]) . ', ' . quote($_->[1]) . ')' } @attacks;
	utf8::encode($rows);
	sql("INSERT INTO attack VALUES $rows");
}

# ------------------------------------------------------- the ways

# Each tries all attacks as the role that it runs as, and notes what became of it.
sql(<<'SQL');
CREATE FUNCTION try_all(way text, form text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	a record;
	id bigint;
	typ text;
BEGIN
	FOR a IN SELECT * FROM attack ORDER BY n LOOP
		SELECT format_type(atttypid, NULL) INTO typ FROM pg_attribute
			WHERE attrelid = 'cm_jobs'::regclass AND attname = a.col;
		BEGIN
			id := NULL;
			-- The image and the command of a job that would do no harm.
			EXECUTE format(form, a.col, a.value, typ,
				CASE WHEN a.col = 'image' THEN '' ELSE ', ''busybox:test''' END,
				CASE WHEN a.col = 'image' THEN '' ELSE ', image' END,
				CASE WHEN a.col IN ('args', 'entrypoint') THEN '' ELSE ', ''exec sleep 600''' END,
				CASE WHEN a.col IN ('args', 'entrypoint') THEN '' ELSE ', command' END,
				CASE WHEN a.col = 'image' THEN '' ELSE ', image => ''busybox:test''' END,
				CASE WHEN a.col IN ('args', 'entrypoint') THEN '' ELSE ', command => ''exec sleep 600''' END) INTO id;
			INSERT INTO outcome VALUES (a.n, way, id, NULL, NULL);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO outcome VALUES (a.n, way, NULL, SQLSTATE, SQLERRM);
		END;
	END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION try_all TO app;
SQL

my %form = (
	'function' => 'SELECT cm_submit_job(%1$I => %2$L::%3$s %8$s %9$s)',
	'options' => 'SELECT cm_submit_job(options => jsonb_build_object(%1$L, to_jsonb(%2$L::%3$s)) %8$s %9$s)',
	'INSERT' => 'INSERT INTO cm_jobs (%1$I %5$s %7$s) VALUES (%2$L::%3$s %4$s %6$s) RETURNING id');
# A template with the attack in it, and a job of that.
$form{template} = 'WITH t AS (INSERT INTO cm_templates (name, %1$I %5$s %7$s) VALUES (\'attack\', %2$L::%3$s %4$s %6$s) RETURNING name)'
  . ' SELECT cm_submit_job(template => name) FROM t'
  if sql(q{SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass('cm_templates')}) eq 't';

for my $role (qw(app superuser))
{
	for my $way (sort keys %form)
	{
		next if $way eq 'template' && $role eq 'app';
		# Each in a transaction of its own: what is not refused is submitted.
		my $set = $role eq 'app' ? 'SET ROLE app;' : '';
		sql("$set SELECT try_all(" . quote("$role, $way") . ', ' . quote($form{$way}) . ')');
	}
}

# COPY, which no function can do: each attack by a statement of its own.
sub copy_text { my ($text) = @_; $text =~ s/\\/\\\\/g; $text =~ s/\n/\\n/g; $text =~ s/\t/\\t/g; return $text; }

for my $role (qw(app superuser))
{
	my $script = $role eq 'app' ? "SET ROLE app;\n" : '';
	for my $n (0 .. $#attacks)
	{
		my ($column, $value) = @{ $attacks[$n] };
		my %row = (image => 'busybox:test', command => 'exec sleep 600', name => "copy $n", $column => $value);
		delete $row{command} if $column =~ /^(args|entrypoint)$/;
		my @columns = sort keys %row;
		$script .= 'COPY cm_jobs (' . join(', ', @columns) . ") FROM STDIN;\n" . join("\t", map { copy_text($row{$_}) } @columns) . "\n\\.\n";
	}
	local $ENV{PGCLIENTENCODING} = 'UTF8';
	utf8::encode($script);
	my $stderr = '';
	$node->psql('postgres', $script, on_error_stop => 0, stderr => \$stderr);
	my $n_errors = () = $stderr =~ /ERROR:/g;
	is($n_errors, scalar @attacks, "$role, COPY: every attack is refused");
}

# ------------------------------------------------------- what came of them

# Duplicates are one to the database; what is left of these is harmless.
my $passed = sql(q{SELECT o.way || ': ' || a.col || ' ' || a.value FROM outcome o JOIN attack a USING (n) WHERE o.sqlstate IS NULL ORDER BY 1 LIMIT 20});
is($passed, '', 'none of the attacks passes');
is(sql('SELECT count(*) FROM outcome'), @attacks * (2 * 3 + (exists $form{template} ? 1 : 0)), 'all were tried');
# Some columns are refused by their type, and a mistake in these tests would be, too.
is(sql(q{SELECT DISTINCT o.sqlstate || ' ' || o.said FROM outcome o WHERE o.sqlstate NOT IN ('22023', '42501', '53400', '22P02', '22P05', '0A000', '22003')
	-- A template's name is given, and it has no namespace.
	AND NOT (o.way LIKE '%template' AND o.sqlstate IN ('42701', '42703'))}), '', 'each for what it is');
is(sql(q{SELECT count(*) FROM outcome o JOIN attack a USING (n) WHERE strpos(o.said, a.value) > 0 AND a.col = 'environment'}), 0, 'no values of variables are told');
my @undetailed = grep { $_ ne '' } split /\n/, sql(q{SELECT DISTINCT a.value FROM outcome o JOIN attack a USING (n) WHERE a.col = 'docker_options'
	AND o.sqlstate IN ('22023', '42501', '53400') AND o.said !~ '^docker_options'});
is("@undetailed", '', 'each refusal of an option names the column');

# UPDATE, which is for nobody.
my $id = sql(q{SELECT cm_submit_job('busybox:test', 'true', run_at => now() + interval '1 h')});
for my $change (q{docker_options = '{"Hostname": "a"}'}, q{run_as = '0'}, q{image = 'x'}, q{networks = '["host"]'}, q{labels = '{"a\nb": "c"}'}, q{environment = '{}'})
{
	for my $role (qw(app postgres))
	{
		sql('GRANT UPDATE ON cm_jobs TO app');
		my ($status, undef, $stderr) = $node->psql('postgres', ($role eq 'app' ? 'SET ROLE app; ' : '') . "UPDATE cm_jobs SET $change WHERE id = $id");
		isnt($status, 0, "$role: UPDATE of $change is refused");
	}
}

# A superuser who goes past the triggers: the guard is asked again at the start.
my %behind = (
	run_as => [ quote('0'), qr/run_as of 0 is below/ ],
	docker_options => [ quote('{"HostConfig": {"Privileged": true}}'), qr/docker_options cannot have "HostConfig.Privileged"/ ],
	networks => [ quote('["host"]'), qr/network "host" is not allowed/ ],
	memory_limit => [ '100000', qr/memory_limit of 100000 MB is over the limit/ ],
	environment => [ quote('{"A=B": "c"}'), qr/name "A=B" of an environment variable is not valid/ ],
	image => [ quote('--privileged'), qr/image "--privileged" is not valid/ ]);
my %late = map { $_ => sql(q{SELECT cm_submit_job('busybox:test', 'true', run_at => now() + interval '1 h')}) } sort keys %behind;
sql("BEGIN; SET LOCAL session_replication_role = replica; UPDATE cm_jobs SET $_ = $behind{$_}[0], run_at = now() WHERE id = $late{$_};"
	  . " UPDATE cm_internal.queue SET run_at = now(), is_due = true WHERE job_id = $late{$_}; COMMIT")
  for sort keys %behind;
for my $column (sort keys %behind)
{
	$node->job_wait($late{$column});
	is(sql("SELECT status, failure_reason FROM cm_jobs WHERE id = $late{$column}"), 'failed|policy', "$column written past the triggers: not started");
	like(sql("SELECT error FROM cm_jobs WHERE id = $late{$column}"), $behind{$column}[1], 'and it is told');
}

# Settings of the moment of the start.
my $before = sql(q{SELECT cm_submit_job('busybox:test', 'true', run_as => 'image', run_at => now() + interval '1 h')});
$node->safe_psql('postgres', 'ALTER SYSTEM SET container_manager.allow_image_user = off');
$node->reload;
like(($node->psql('postgres', q{SELECT cm_submit_job('named:test', 'true', run_as => 'image')}))[2], qr/run_as of 'image' is not allowed.*allow_image_user/s, 'the setting is off: refused');
sql("BEGIN; SET LOCAL session_replication_role = replica; UPDATE cm_internal.queue SET run_at = now(), is_due = true WHERE job_id = $before; COMMIT");
$node->job_wait($before);
is(sql("SELECT status, failure_reason FROM cm_jobs WHERE id = $before"), 'failed|policy', 'and also what was submitted before');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET container_manager.allow_image_user');
$node->reload;

is(scalar $engine->containers, 0, 'the engine was asked for no container in all this');
is($engine->api_json('GET', '/v1.41/info')->{Containers}, 0, 'it says so, too');

# ------------------------------------------------------- the audit

my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
like($log, qr/LOG:  policy violation: role "app", column docker_options, HostConfig\.Privileged: not allowed\n/, 'the log tells who tried what');
like($log, qr/LOG:  policy violation: role "app", column memory_limit: over a limit\n/, 'also what is over a limit');
like($log, qr/LOG:  policy violation: role "app", column run_as: not valid\n/, 'and what is not even valid');
like($log, qr/LOG:  policy violation: role "\w+", job $late{docker_options} at its start, column docker_options, HostConfig\.Privileged: not allowed\n/, 'and at the start of a job');
is(scalar(() = $log =~ /LOG:  policy violation:.*(?:sda|syslog|nvidia|SYS_ADMIN)/g), 0, 'and no values');
unlike($log, qr/policy violation:[^\n]*\n[^\n]*STATEMENT:/, 'nor the statement');

# ------------------------------------------------------- what can be had

# Text that would be more, were it copied into the request; and every option.
my $inject = '"],"HostConfig":{"Privileged":true,"Binds":["/:/host"]},"x":["';
my %may = (
	'words' => [ "args => ARRAY['sh', '-c', 'exec sleep 600', " . quote($inject) . ']', sub { is_deeply($_[0]{Config}{Cmd}, [ 'sh', '-c', 'exec sleep 600', $inject ], 'words are words') } ],
	'variables' => [ "command => 'exec sleep 600', environment => jsonb_build_object('A', " . quote($inject) . q{, 'LD_PRELOAD', '/x')},
		sub { ok((grep { $_ eq "A=$inject" } @{ $_[0]{Config}{Env} }), 'variables are variables') } ],
	'labels' => [ "command => 'exec sleep 600', labels => jsonb_build_object('container-manager.job', '1', 'com.docker.compose.project', 'x', 'traefik.enable', " . quote($inject) . ')',
		sub { is(scalar(grep { !/^container-manager\./ } keys %{ $_[0]{Config}{Labels} }), 0, 'labels of users have a prefix') } ],
	'names' => [ "command => 'exec sleep 600', name => " . quote($inject) . q{, working_directory => '/tmp/"x'}, sub { is($_[0]{Config}{WorkingDir}, '/tmp/"x', 'a folder is a folder') } ],
	'a bare HostConfig' => [ q{command => 'exec sleep 600', docker_options => '{"HostConfig": {}}'}, sub { } ],
	'two of them, of which the database keeps the last' => [ q{command => 'exec sleep 600', docker_options => '{"HostConfig": {"Privileged": true}, "HostConfig": {"Dns": ["10.0.0.1"]}}'},
		sub { is_deeply($_[0]{HostConfig}{Dns}, ['10.0.0.1'], 'that is what is had') } ],
	"xCAT's dockerflag" => [ q{command => '/bin/sh', docker_options => '{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"OpenStdin":true}'},
		sub { is_deeply([ map { $_[0]{Config}{$_} ? 1 : 0 } qw(AttachStdin AttachStdout AttachStderr OpenStdin Tty) ], [ 1, 1, 1, 1, 0 ], 'a shell waits at an open stdin') } ],
	'every option' => [ q{command => 'exec sleep 600', memory_limit => 64, docker_options => '{"Hostname": "worker-1", "Domainname": "example.com", "StopTimeout": 7,
		"HostConfig": {"Dns": ["10.0.0.1", "fd00::1"], "DnsSearch": ["a.example"], "DnsOptions": ["ndots:2"], "ExtraHosts": ["db:10.0.0.2", "me:host-gateway"],
		"GroupAdd": ["2000"], "OomScoreAdj": 500, "CpuShares": 512, "BlkioWeight": 300, "CpusetCpus": "0", "CpusetMems": "0", "MemoryReservation": 33554432,
		"MemorySwappiness": 10, "Sysctls": {"net.core.somaxconn": "1024"}}}'}, \&has_every_option ],
	q{an image's user by name} => [ q{image => 'named:test', command => 'exec sleep 600', run_as => 'image'}, sub { is($_[0]{Config}{User}, '1001:1001', 'runs as its number') } ],
	q{an image's user by number} => [ q{image => 'number:test', command => 'exec sleep 600', run_as => 'image'}, sub { is($_[0]{Config}{User}, '2000:2000', 'runs as it is') } ],
);

sub has_every_option
{
	my ($c) = @_;
	my $h = $c->{HostConfig};
	is("$c->{Config}{Hostname} $c->{Config}{Domainname} $c->{Config}{StopTimeout}", 'worker-1 example.com 7', 'names and time');
	is_deeply([ @$h{qw(Dns DnsSearch DnsOptions ExtraHosts GroupAdd)} ],
		[ [ '10.0.0.1', 'fd00::1' ], ['a.example'], ['ndots:2'], [ 'db:10.0.0.2', 'me:host-gateway' ], ['2000'] ], 'lists');
	is_deeply([ @$h{qw(OomScoreAdj CpuShares CpusetCpus MemoryReservation MemorySwappiness)} ], [ 500, 512, '0', 33_554_432, 10 ], 'numbers');
	is_deeply($h->{Sysctls}, { 'net.core.somaxconn' => '1024' }, 'settings of the kernel');
	return;
}

# What no container of a job has, whatever was asked for.
sub is_safe
{
	my ($c, $name) = @_;
	my $h = $c->{HostConfig};
	my @wrong = grep { ref $h->{$_} eq 'ARRAY' ? @{ $h->{$_} } : ref $h->{$_} eq 'HASH' ? %{ $h->{$_} } : $h->{$_} }
	  qw(Privileged Binds VolumesFrom VolumeDriver Devices DeviceCgroupRules DeviceRequests CapAdd PidMode UTSMode UsernsMode Cgroup CgroupParent
	  Links PortBindings PublishAllPorts OomKillDisable AutoRemove Mounts Annotations);
	is("@wrong", '', "$name: nothing of the host") or diag(explain $h);
	is_deeply([ @$h{qw(CapDrop SecurityOpt NetworkMode IpcMode CgroupnsMode PidsLimit NanoCpus)} ], [ ['ALL'], ['no-new-privileges'], 'bridge', 'private', 'private', 256, 1_000_000_000 ],
		"$name: confined");
	ok($h->{Memory} > 0 && $h->{MemorySwap} == $h->{Memory} && $h->{OomScoreAdj} >= 0 && $h->{ReadonlyRootfs} && @{ $h->{MaskedPaths} } > 5 && @{ $h->{ReadonlyPaths} } > 3, "$name: limited");
	like($c->{Config}{User}, qr/^(?:65534:65534|1001:1001|2000:2000)$/, "$name: as nobody who counts");
	is_deeply($c->{Mounts}, [], "$name: nothing is mounted");
	return;
}

my %job = map { $_ => sql('SET ROLE app; SELECT cm_submit_job(' . ($may{$_}[0] =~ /image =>/ ? '' : q{image => 'busybox:test', }) . "$may{$_}[0])") } sort keys %may;
my $root = sql(q{SELECT cm_submit_job('root:test', 'true', run_as => 'image')});
for my $name (sort keys %may)
{
	is($node->job_wait($job{$name}, status => 'running|failed|completed'), 'running', "$name: runs") or diag(sql("SELECT error, detail, hint FROM cm_jobs WHERE id = $job{$name}"));
	my $c = $engine->inspect(sql("SELECT container_id FROM cm_jobs WHERE id = $job{$name}"));
	$may{$name}[1]->($c);
}
$node->job_wait($root);
like(sql("SELECT failure_reason || ': ' || error FROM cm_jobs WHERE id = $root"), qr/^policy: the user of image "root:test" on host "e1" is not allowed: run_as of 0 is below the lowest allowed uid 1001$/,
	q{an image's root is refused});
my @made = $engine->containers;
is(scalar @made, scalar keys %may, 'these are all the containers that there are');
is_safe($engine->inspect($_->{Id}), $_->{Names}[0]) for @made;
like($engine->as_root('cat', '/proc/' . $engine->inspect(sql("SELECT container_id FROM cm_jobs WHERE id = $job{'every option'}"))->{State}{Pid} . '/status'),
	qr/^Groups:\s*2000 65534\s*$|^Groups:\s*65534 2000\s*$/m, 'kernel: the groups that were asked for');
sql('SELECT cm_cancel_job(id) FROM cm_jobs WHERE completed_at IS NULL');
ok(wait_until(sub { !$engine->containers }), 'no container is left') or diag(join "\n", map { "@{ $_->{Names} } $_->{State}" } $engine->containers);
done_testing();
