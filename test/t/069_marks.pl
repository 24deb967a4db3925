# The marks by which servers tell who is in charge, on an engine that forgets,
# forges or refuses them; and its list of containers as cm_list_containers shows it.
use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use CM::Http qw(unix_http);
use CM::Logs qw(wait_until);
use JSON::PP;
use Test::More;

my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s', 'container_manager.poll_interval' => '500ms');
my $fake = CM::FakeEngine->start;
my $good = CM::FakeEngine->start;
$node->add_host('good', $good);
$node->add_host('fake', $fake);
my $epoch = sql('SELECT epoch FROM cm_internal.identity');

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub wait_for { my ($sql, $expected, $what) = @_; return ok($node->wait_for_sql($sql, $expected), $what); }
sub is_in_state { my ($state, $what) = @_; return wait_for('SELECT state FROM cm_status', $state, $what); }
sub volumes { my ($engine) = @_; return join ' ', sort keys %{ $engine->state->{volumes} }; }
sub list_marks { my ($body, %more) = @_; return $fake->fault(method => 'GET', path => '/volumes$', status => 200, body => $body, %more); }

sub is_seen
{
	my $seen = $fake->state->{requests}{'GET /volumes'};
	return ok(wait_until('lists of volumes', sub { $fake->state->{requests}{'GET /volumes'} >= $seen + 2 }), 'the host is asked');
}

sub mark
{
	my (%change) = @_;
	my %label = (version => '1', kind => 'marker', epoch => $epoch, incarnation => '9', home => '1.1', %change);
	return { Name => 'm', Labels => { map { ("container-manager.$_" => $label{$_}) } keys %label } };
}

sub json { return JSON::PP->new->canonical->encode($_[0]); }


my $unfit = q{SELECT state || ': ' || hint FROM cm_host_status WHERE name = 'fake' AND error LIKE '%volumes whether another server has taken over%'};
my $healthy = q{SELECT string_agg(state, ' ') FROM cm_host_status};

wait_for($healthy, 'healthy healthy', 'both hosts are there');
is(volumes($fake), '', 'the first incarnation leaves no mark');

# --- what cannot be asked is not used, and says why

for my $fault ([ status => 501, message => 'not implemented' ], [ status => 404, message => 'page not found' ], [ status => 200, body => '[]' ], [ status => 200, body => '{"Volumes": 3}' ], [ status => 200, body => '{"Vol' ])
{
	$fake->fault(method => 'GET', path => '/volumes$', @$fault);
	wait_for($unfit, 'unhealthy: The engine must allow to list and to make volumes.', "a host that answers @$fault cannot be used");
	$fake->clear_faults;
	wait_for($healthy, 'healthy healthy', 'it can when it answers as it should');
}

# --- marks that are none of ours, or no marks at all

my @strange = (
	[ {} ], [ [] ], [undef], [5], [ { Labels => undef } ], [ { Labels => 'x' } ], [ { Labels => { 'container-manager.kind' => 'marker' } } ],
	map { [ mark(@$_) ] } [ epoch => '00000000-0000-0000-0000-00000000000f' ], [ version => '2' ], [ kind => 'job' ], [ incarnation => '-3' ],
	[ incarnation => '9999999999' ], [ incarnation => '2x' ], [ incarnation => '' ]);
list_marks(json({ Volumes => [ map { @$_ } @strange ] }));
is_seen();
$fake->clear_faults;
list_marks('{}');
is_seen();
$fake->clear_faults;
list_marks('{"Volumes": null}');
is_seen();
$fake->clear_faults;
is(sql('SELECT state FROM cm_status'), 'running', 'nonsense is no reason to step down');
wait_for($healthy, 'healthy healthy', 'nor to give the host up');

# --- somebody else's

my $job = $node->submit(q{'busybox:test', host => 'good', environment => '{"FAKE_RUN_MS": "600000"}'});
wait_for("SELECT status FROM cm_jobs WHERE id = $job", 'running', 'a job runs on the other host');
list_marks(json({ Volumes => [ mark(incarnation => '1') ] }));
is_in_state('held', 'a mark of the same incarnation by another server');
like(sql('SELECT explanation FROM cm_status'), qr/mark on host "fake"/, 'the host that shows it is named');
is($good->state->{removes}, 0, 'what runs elsewhere is left');
sql('SELECT cm_take_over()');
is_in_state('running', 'told to take over');
wait_for("SELECT incarnation FROM cm_internal.identity", 2, 'above that');
$fake->clear_faults;
wait_for($healthy, 'healthy healthy', 'both hosts are used');
is(volumes($_), "container-manager-$epoch-2", 'and marked') for $fake, $good;
is(sql("SELECT status || attempt FROM cm_jobs WHERE id = $job"), 'running1', 'the job is taken up again');

# --- marks that get lost

unix_http($fake->socket, 'DELETE', "/v1.41/volumes/container-manager-$epoch-2");
ok(wait_until('the mark', sub { volumes($fake) eq "container-manager-$epoch-2" }), 'a mark that somebody removed is made again');
$fake->fault(method => 'POST', path => '/volumes/create$', status => 201, body => '{}');
unix_http($fake->socket, 'DELETE', "/v1.41/volumes/container-manager-$epoch-2");
wait_for(q{SELECT state || ': ' || error FROM cm_host_status WHERE name = 'fake' AND state = 'unhealthy'},
	'unhealthy: the engine does not keep the volume that says who is in charge', 'an engine that does not keep it is not used');
$fake->clear_faults;
$fake->fault(method => 'POST', path => '/volumes/create$', status => 500, message => 'no space left on device');
wait_for(q{SELECT state FROM cm_host_status WHERE name = 'fake' AND error LIKE '%no space left on device'}, 'unhealthy', 'nor one that cannot');
is(sql(q{SELECT state FROM cm_host_status WHERE name = 'good'}), 'healthy', 'which is that host alone');
$fake->clear_faults;
wait_for($healthy, 'healthy healthy', 'until it does');

# Two take over at the same time: both see no mark, and the other one's was first.
unix_http($fake->socket, 'DELETE', "/v1.41/volumes/container-manager-$epoch-2");
my $theirs = mark(incarnation => '2');
$theirs->{Name} = "container-manager-$epoch-2";
list_marks('{"Volumes": []}', times => 1);
unix_http($fake->socket, 'POST', '/v1.41/volumes/create', json($theirs));
is_in_state('held', 'the mark of another one who was quicker');
sql('SELECT cm_take_over()');
is_in_state('running', 'told to take over');
wait_for($healthy, 'healthy healthy', 'both hosts are used');
ok(wait_until('one mark', sub { volumes($fake) eq "container-manager-$epoch-3" }), 'the lower marks are removed');

# --- seen by labels and events alone

my $container = {
	Id => 'b' x 64,
	State => 'running',
	Names => ['/x'],
	Labels => { 'container-manager.version' => '1', 'container-manager.kind' => 'job', 'container-manager.epoch' => $epoch,
		'container-manager.job' => '99', 'container-manager.attempt' => '1', 'container-manager.incarnation' => '4' }
};
$fake->emit(Type => 'container', Action => 'start', Actor => { ID => $container->{Id}, Attributes => { %{ $container->{Labels} }, 'container-manager.epoch' => 'x' } });
$fake->emit(Type => 'container', Action => 'start', Actor => { ID => $container->{Id}, Attributes => { %{ $container->{Labels} }, 'container-manager.incarnation' => '3' } });
is_seen();
is(sql('SELECT state FROM cm_status'), 'running', 'events of others, and of our own');
$fake->emit(Type => 'container', Action => 'start', Actor => { ID => $container->{Id}, Attributes => $container->{Labels} });
is_in_state('held', 'the event of a container by a later server');
sql('SELECT cm_take_over()');
wait_for("SELECT incarnation FROM cm_internal.identity", 5, 'above that');
wait_for($healthy, 'healthy healthy', 'both hosts are used');
$container->{Labels}{'container-manager.incarnation'} = '6';
$fake->fault(method => 'GET', path => '/containers/json$', status => 200, body => json([$container]));
is_in_state('held', 'a container by a later server on the list');
$fake->clear_faults;
sql('SELECT cm_take_over()');
wait_for($healthy, 'healthy healthy', 'both hosts are used');

# --- cm_list_containers

my $labels = '"container-manager.version":"1","container-manager.kind":"job","container-manager.job":"7","container-manager.attempt":"2"';
my $id = 'a' x 64;
my $uuid = '00000000-0000-0000-0000-00000000000f';
my @lists = (
	'{}' => qr/ERROR:.*host "fake": .*cannot make sense of the reply to list/,
	'[' => qr/ERROR:.*host "fake": .*cannot make sense of the reply/,
	'[null, 3, {}, {"Labels": []}, {"Labels": {"container-manager.kind": "job"}}]' => qr/\A\z/,
	qq([{"Id":"$id","Labels":{$labels,"container-manager.epoch":"x"}}]) => qr/\A\z/,
	qq([{"Id":"short","Labels":{$labels,"container-manager.epoch":"$uuid"}}]) => qr/\A\z/,
	qq([{"Id":"$id","Names":7,"Created":1e400,"Labels":{$labels,"container-manager.epoch":"$uuid"}}]) => qr/\A$id\|\|\|\|\|foreign\|$uuid\|\|7\|2\z/,
	qq([{"Id":"$id","Names":["/a\\u001b[31mb"],"Created":-5,"State":"odd","Labels":{$labels,"container-manager.epoch":"$uuid","container-manager.incarnation":"99999999999"}}]) =>
	  qr/\A$id\|a \[31mb\|\|odd\|\|foreign\|$uuid\|\|7\|2\z/,
	'[' . join(',', map { qq({"Id":"$id","Labels":{$labels,"container-manager.epoch":"$uuid"}}) } 1 .. 1000) . ']' => qr/\A(?:$id\S*\n?){1000}\z/);
while (my ($body, $expected) = splice @lists, 0, 2)
{
	my $fault = $fake->fault(method => 'GET', path => '/containers/json$', status => 200, body => $body);
	my ($stdout, $stderr) = ('', '');
	$node->psql('postgres', "SELECT * FROM cm_list_containers('fake')", stdout => \$stdout, stderr => \$stderr);
	like($stdout . $stderr, $expected, 'a list of ' . substr($body, 0, 60));
	$fake->clear_faults($fault);
}
is(sql("SELECT belongs_to || state FROM cm_list_containers('good')"), 'this databaserunning', 'a good one');

$node->stop;
done_testing();
