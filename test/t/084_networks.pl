# Networks: jobs that find each other by alias, addresses of their own, several
# networks joined before the start, through a crash in between as well; what is
# refused when written, and what turns out on the host; making, listing and
# removing networks, once, whoever else is there.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::Engine;
use CM::Proxy;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'net', count_starts => 1);
$engine->import_busybox('busybox:test');
my $proxy = CM::Proxy->start($engine);
my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s');
$node->add_host('local', $proxy->url);

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# SQLSTATE and message of what is refused.
sub refusal
{
	my ($sql) = @_;
	my $stderr = '';
	$node->psql('postgres', "\\set VERBOSITY verbose\n$sql", stderr => \$stderr);
	return $stderr =~ /ERROR:\s+(\w+: .*)/ ? $1 : "none: $stderr";
}

sub submit { my ($command, $networks) = @_; return $node->submit("'busybox:test', \$\$$command\$\$, host => 'local', networks => '$networks'"); }

# State and error of what was asked of the host.
sub outcome
{
	my ($call) = @_;
	my $id = value("SELECT $call");
	return value("CALL cm_await_host_request($id)");
}

my $addresses = q{ip -4 -o addr show scope global | awk '{print $4}' | sort};

# ------------------------------------------------------- asked for and used in one transaction

my $ids = value(<<"SQL");
BEGIN;
SELECT cm_create_network('local', 'app', subnet => '10.5.0.0/24');
SELECT cm_create_network('local', 'back', subnet => '10.6.0.0/24', internal => true);
SELECT cm_submit_job('busybox:test', \$\$$addresses; echo served >/tmp/index.html; exec httpd -f -p 8080 -h /tmp\$\$,
    host => 'local', networks => '["back", {"network_name": "app", "aliases": ["api", "web"], "ip": "10.5.0.7"}]');
COMMIT;
SQL
my ($first_request, undef, $server) = split /\n/, $ids;
is($node->job_wait($server, status => 'running|failed'), 'running', 'a job that came with its networks runs')
  or diag(value("SELECT failure_reason, error FROM cm_jobs WHERE id = $server"));
ok($node->wait_for_sql("SELECT cm_job_output($server) LIKE '%10.5.0.7/24%10.6.0.%/24%'", 't'), 'it is on both networks, with its address')
  or diag(value("SELECT cm_job_output($server)"));
is(value("SELECT string_agg(state, ' ') FROM cm_host_requests"), 'done done', 'both networks were made');
is(value("CALL cm_await_host_request($first_request)"), 'done|', 'who waits for what is done is told at once');

my $client = submit('until wget -qO- http://api:8080/index.html; do sleep 0.2; done; wget -qO- http://10.5.0.7:8080/index.html', '["app"]');
is($node->job_wait($client), 'completed', 'another job reaches it');
is(value("SELECT rtrim(cm_job_output($client), chr(10))"), "served\nserved", 'by its alias and by its address');

is(value("SELECT name, driver, internal, subnets, belongs_to FROM cm_list_networks('local') WHERE name IN ('app', 'back', 'bridge') ORDER BY name")
	  =~ s/^(bridge\|bridge\|f)\|[^|]*\|/$1||/mr,
	"app|bridge|f|10.5.0.0/24|this database\nback|bridge|t|10.6.0.0/24|this database\nbridge|bridge|f||foreign", 'networks are listed');
like(value("SELECT cm_job_docker_command($server)"), qr/ --network back --network name=app,alias=api,alias=web,ip=10\.5\.0\.7 /, 'the docker command has them');
like(value("SELECT explanation FROM cm_job_explain($server) WHERE item = 'limits'"), qr/network back, app,/, 'so has the explanation');

# ------------------------------------------------------- what turns out on the host

sub fails
{
	my ($what, $networks, $reason, $error) = @_;
	my $id = submit('true', $networks);
	$node->job_wait($id);
	is(value("SELECT status, failure_reason FROM cm_jobs WHERE id = $id"), "failed|$reason", "$what: reason");
	like(value("SELECT error FROM cm_jobs WHERE id = $id"), $error, "$what: error");
	return $id;
}

my $missing = fails('network missing', '["app", "nowhere"]', 'network', qr/^network "nowhere" not found on host "local"$/);
like(value("SELECT explanation FROM cm_job_explain($missing) WHERE item = 'advice'"), qr/cm_create_network\('local', 'nowhere'\).*cm_list_networks\('local'\)/, 'network missing: advice');
my $host_id = $engine->docker(qw(network inspect --format {{.Id}} host));
fails('id of the network "host"', qq(["$host_id"]), 'network', qr/^network "$host_id" not found on host "local"$/);
fails('its beginning', sprintf('["%s"]', substr($host_id, 0, 12)), 'network', qr/not found on host "local"$/);
fails('address of another', '[{"network_name": "app", "ip": "10.5.0.7"}]', 'network', qr/Address already in use/);
fails('address of no subnet', '["back", {"network_name": "app", "ip": "10.9.0.7"}]', 'network', qr/10\.9\.0\.7/);

is(value("SELECT cm_cancel_job($server)"), 't', 'the first one is stopped');
is($node->job_wait($server), 'cancelled', 'and ends');

# ------------------------------------------------------- refused when written

for (
	[ '"app"', '22023', 'networks is not a JSON array' ],
	[ '[7]', '22023', 'networks has what is neither a text nor an object' ],
	[ '[{"name": "app"}]', '22023', 'networks has an unknown key "name"' ],
	[ '[{"network_name": 7}]', '22023', 'network_name in networks is not a text' ],
	[ '[{"aliases": ["x"]}]', '22023', 'name of a network is missing' ],
	[ '[{"network_name": "app", "aliases": "x"}]', '22023', 'aliases in networks is not a JSON array' ],
	[ '[{"network_name": "app", "aliases": [7]}]', '22023', 'aliases in networks has what is not a text' ],
	[ '[{"network_name": "bridge", "aliases": ["x"]}]', '22023', 'network "bridge" takes no aliases' ],
	[ '["none", "app"]', '22023', 'network "none" is given with others' ],
	[ '["app", {"network_name": "app"}]', '22023', 'network "app" is given twice' ],
	[ '[{"network_name": "host"}]', '42501', 'network "host" is not allowed' ],
	[ '["app", "container:x"]', '42501', 'network "container:x" is not allowed' ])
{
	my ($networks, $sqlstate, $message) = @$_;
	is(refusal("SELECT cm_submit_job('busybox:test', 'true', networks => '$networks')"), "$sqlstate: $message", "refused: $networks");
}
like(refusal("SELECT cm_create_network('local', 'host')"), qr/^22023: network "host" is the engine's own/, 'refused: a network "host"');
like(refusal("SELECT cm_create_network('local', 'a/b')"), qr/^22023: network "a\/b" is not a valid name/, 'refused: a network of a bad name');
like(refusal("SELECT cm_create_network('local', 'x', subnet => 'fd00::/64')"), qr/^22023: subnet takes IPv4/, 'refused: IPv6 as subnet');
like(refusal("SELECT cm_create_network('nowhere', 'x')"), qr/^42704: host "nowhere" does not exist/, 'refused: a host that is not there');
like(refusal("BEGIN; CALL cm_await_host_request($first_request); COMMIT"), qr/^25001: /, 'refused: to wait in a transaction block');
like(refusal("SELECT cm_wait_host_request(cm_create_network('local', 'x'))"), qr/^55000: request \d+ was made by this transaction/, 'refused: to wait for what is not committed');

# ------------------------------------------------------- made and removed once

$engine->docker(qw(network create theirs));
is(outcome(q{cm_create_network('local', 'app', subnet => '10.5.0.0/24')}), 'done|', 'a network that is there as asked for is done');
is(outcome(q{cm_create_network('local', 'app', subnet => '10.7.0.0/24')}), 'failed|network "app" on host "local" is there, and made otherwise', 'one made otherwise is not');
is(outcome(q{cm_create_network('local', 'theirs')}), q{failed|network "theirs" on host "local" is not this database's}, 'nor one that others made');
is(outcome(q{cm_remove_network('local', 'theirs')}), q{failed|network "theirs" on host "local" is not this database's}, 'which is not removed, either');
is(outcome(q{cm_create_network('local', 'overlap', subnet => '10.5.0.0/16')}) =~ s/: .*//r, 'failed|host "local" refused', 'what the engine refuses fails');
like(value("SELECT error FROM cm_host_requests WHERE name = 'overlap'"), qr/overlaps/, 'in its words');

my $sleeper = submit('sleep 1000', '["app"]');
$node->job_wait($sleeper, status => 'running');
like(outcome(q{cm_remove_network('local', 'app')}), qr/^failed\|.*active endpoints/, 'one in use stays');
like(value("SELECT hint FROM cm_host_requests ORDER BY id DESC LIMIT 1"), qr/Containers are on it/, 'and it is said why');
value("SELECT cm_cancel_job($sleeper)");
$node->job_wait($sleeper);
ok(wait_until(sub { outcome(q{cm_remove_network('local', 'app')}) eq 'done|' }), 'without containers it is removed');
is(outcome(q{cm_remove_network('local', 'app')}), 'done|', 'and is gone');
is(value("SELECT string_agg(name, ' ' ORDER BY name) FROM cm_list_networks('local')"), 'back bridge host none theirs', 'others are left alone');

# ------------------------------------------------------- killed with some networks joined

# No container gets to its second network; and no network is made.
value("SELECT cm_create_network('local', n) FROM unnest(ARRAY['one', 'two', 'three']) n");
ok($node->wait_for_sql("SELECT count(*) FROM cm_host_requests WHERE state = 'waiting'", 0), 'three networks more');
$proxy->tell('lose 1000000 /connect');
my $joining = submit("$addresses | wc -l", '["one", {"network_name": "two", "aliases": ["x"]}, "three"]');
ok(wait_until(sub { my @c = $engine->containers; @c == 1 && $c[0]{State} eq 'created' }), 'killed: the container is made');
is(value("SELECT container_id IS NULL FROM cm_internal.queue WHERE job_id = $joining"), 't', 'killed: its id is not recorded');
kill 'KILL', $node->executor_pid;
$proxy->tell('lose 0 -');
ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE id = $joining", 'completed'), 'killed: the job completes')
  or diag(value("SELECT status, failure_reason, error, detail FROM cm_jobs WHERE id = $joining"));
is(value("SELECT rtrim(cm_job_output($joining), chr(10))"), '3', 'killed: on all of its networks');
is(value("SELECT attempt FROM cm_jobs WHERE id = $joining"), 1, 'killed: in its first attempt');
my $container = value("SELECT container_id FROM cm_jobs WHERE id = $joining");
is(scalar(grep { $_ eq $container } $engine->starts), 1, 'killed: started once');
ok(wait_until(sub { !$engine->containers }), 'no container is left');

# A request is carried out once more after a crash, and is no error then.
$proxy->tell('lose 1000000 /networks/');
my $request = value("SELECT cm_create_network('local', 'four')");
kill 'KILL', $node->executor_pid;
$proxy->tell('lose 0 -');
ok($node->wait_for_sql("SELECT state FROM cm_host_requests WHERE id = $request", 'done'), 'killed: the request is carried out');
is(value("SELECT count(*) FROM cm_list_networks('local') WHERE name = 'four'"), 1, 'killed: once');

done_testing();
