# Hosts by TCP: a real dockerd with --tlsverify, reached by IPv4, IPv6 and names;
# what is said of all that can be wrong with certificates, names and ports; jobs
# over it with their output, while the line is cut and while certificates of both
# ends are replaced; and name servers that are silent.
use strict;
use warnings;

use CM::Certs;
use CM::Cluster;
use CM::Engine;
use CM::Relay;
use File::Copy ();
use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use IPC::Run ();
use POSIX ();
use Test::More;
use Time::HiRes qw(time);

CM::Engine->require_engine;

# No proxy is ever used: this one is not there.
$ENV{$_} = 'http://127.0.0.1:9' for map { ($_, uc) } qw(http_proxy https_proxy all_proxy);

my $tmp = File::Temp->newdir;
my $certs = CM::Certs->new;
$certs->make_ca($_) for 'ca', 'other-ca', 'next-ca';
my $engine = CM::Engine->start(name => 'e1', live_restore => 1, count_starts => 1);
$engine->import_busybox('busybox:test');
my $address = $engine->address;
my $sans = "IP:$address,IP:127.0.0.1,IP:::1,DNS:localhost,DNS:engine.test";
$certs->issue('server', ca => 'ca', use => 'serverAuth', san => $sans);
$certs->issue('client', ca => 'ca', use => 'clientAuth');
listen_with('ca', 'server');
my $good = $certs->client_dir('client', ca => 'ca');

my $node = CM::Cluster->new_with_extension('main',
	'container_manager.heartbeat_interval' => '1s',
	'container_manager.stop_grace' => '1s');
my $local = CM::Relay->start('127.0.0.1', "$address:2376");
$node->add_host('tls', "tcp://$address:2376", "tls_cert_path => '$good'");

everywhere();
messages();
plain();
stored();
jobs();
cut();
rotated();
silent_names();

is(sql('SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL'), 0, 'every job is over');
is(scalar($engine->starts), sql('SELECT count(*) FROM cm_jobs'), 'and was started once');
done_testing();

# ------------------------------------------------------- tools

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub refusal
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $status == 0 ? "no error: $stdout" : $stderr =~ s/\A.*?ERROR:\s*//sr;
}

# Lets the engine listen with that certificate, for clients of that CA.
sub listen_with
{
	my ($ca, $server) = @_;
	$engine->stop;
	$engine->start_again(args => [ '--live-restore', '--host', 'tcp://0.0.0.0:2376', '--tlsverify', '--tlscacert', $certs->cert($ca),
			'--tlscert', $certs->cert($server), '--tlskey', $certs->key($server) ]);
	return;
}

sub healthy
{
	my ($host, $state) = @_;
	$state //= 'healthy';
	return ok($node->wait_for_sql("SELECT state FROM cm_host_status WHERE name = '$host'", $state), "host $host is $state");
}

# What cm_check_host says, and that cm_host_status comes to say the same.
sub says
{
	my ($what, $url, $error, $hint, @more) = @_;
	$node->add_host('bad', $url, @more);
	my $answer = sql(q{SELECT concat_ws('|', ok, error, hint) FROM cm_check_host('bad', '2 s')});
	like($answer, qr/^f\|$error\|.*$hint/, $what);
	healthy('bad', 'unhealthy');
	like(sql(q{SELECT concat_ws('|', 'f', error, hint) FROM cm_host_status WHERE name = 'bad'}), qr/^f\|$error\|.*$hint/, 'cm_host_status says so, too');
	note $answer;
	sql(q{SELECT cm_remove_host('bad')});
	return;
}

sub with { my ($dir) = @_; return "tls_cert_path => '$dir'"; }

sub run_on
{
	my ($host) = @_;
	my $job = $node->submit("'busybox:test', 'echo out; echo err >&2', host => '$host'");
	is($node->job_wait($job), 'completed', "a job on host $host") or diag(sql("SELECT error, detail FROM cm_jobs WHERE id = $job"));
	is(sql("SELECT cm_job_output($job) || cm_job_stderr($job)"), "out\nerr\n", 'with its output');
	return;
}

# ------------------------------------------------------- by address and by name

sub everywhere
{
	my $v6 = CM::Relay->start('::1', "$address:2376");
	my %url = (v4 => $local->url, v6 => $v6->url, name => $local->url =~ s/127\.0\.0\.1/localhost/r);
	$node->add_host($_, $url{$_}, with($good)) for sort keys %url;
	for my $host ('tls', sort keys %url)
	{
		is(sql("SELECT ok, error FROM cm_check_host('$host')"), 't|', "cm_check_host by $host");
		healthy($host);
		run_on($host);
	}
	is(sql(q{SELECT value FROM cm_host_info('v6') WHERE key = 'ID'}), $engine->api_json('GET', '/info')->{ID}, 'cm_host_info');
	is(sql(q{SELECT DISTINCT belongs_to FROM cm_list_containers('name')}), sql(q{SELECT DISTINCT belongs_to FROM cm_list_containers('tls')}), 'cm_list_containers');
	is(sql(q{SELECT host_type, tls_enabled, tls_verify FROM cm_hosts WHERE name = 'tls'}), 'tcp|t|t', 'TLS and verification unless said otherwise');
	is(sql(q{SELECT * FROM cm_host_env('tls')}), "export DOCKER_HOST=tcp://$address:2376\nunset DOCKER_CONTEXT; export DOCKER_TLS_VERIFY=1\nexport DOCKER_CERT_PATH=$good", 'cm_host_env');
	sql("SELECT cm_remove_host('$_')") for sort keys %url;
	return;
}

# ------------------------------------------------------- what is said

sub messages
{
	$certs->issue('stranger', ca => 'other-ca', use => 'clientAuth');
	$certs->issue('old-client', ca => 'ca', use => 'clientAuth', days => 0);
	$certs->issue('no-client', ca => 'ca', use => 'serverAuth');
	my $url = "tcp://$address:2376";
	my $here = qr/\Q$address\E:2376/;

	my $no_client = $certs->client_dir(undef, ca => 'ca');
	says('no client certificate', $url, qr/$here (?:wants a client certificate, and none is given|closed the connection after the TLS handshake)/,
		qr/cert\.pem and key\.pem into the directory of tls_cert_path/, with($no_client));
	for my $client ('stranger', 'old-client', 'no-client')
	{
		says("client certificate that the engine does not take: $client", $url,
			qr/$here (?:does not accept the client certificate: .*|closed the connection after the TLS handshake)/,
			qr/clientAuth, and issued by the CA/, with($certs->client_dir($client, ca => 'ca')));
	}
	says('foreign CA', $url, qr/certificate of $here is not issued by a trusted CA: .*/, qr/ca\.pem of tls_cert_path/,
		with($certs->client_dir('client', ca => 'other-ca')));
	says('no CA but the system\'s', $url, qr/certificate of $here is not issued by a trusted CA: .*/, qr/ca\.pem of tls_cert_path/);
	is(sql(qq{BEGIN; SELECT cm_add_host('bad', '$url', tls_verify => false, tls_cert_path => '$good') > 0; SELECT ok FROM cm_check_host('bad'); ROLLBACK}),
		"t\nt", 'without verification it would do');

	servers();
	files($url);
	says('refused', 'tcp://127.0.0.1:1', qr/connection to 127\.0\.0\.1:1 refused/, qr/Nothing listens there/);
	says('refused, and the port of Swarm', 'tcp://127.0.0.1:2377', qr/connection to 127\.0\.0\.1:2377 refused/, qr/2377 is Swarm's own/);
	my $silent = CM::Relay->start('127.0.0.1', $engine->socket);
	$silent->tell('stall');
	says('silence', $silent->url, qr/TLS handshake with \S+ timed out/, qr/hangs/);
	$silent->tell('pass');
	says('TLS to a plain port', $silent->url, qr/\S+ does not speak TLS/, qr/tls_enabled => false/, with($good));
	says('plain HTTP to a TLS port', $local->url, qr/\S+ speaks TLS, and the host is set to go without/, qr/tls_enabled => true/, 'tls_enabled => false');
	$engine->cut_network;
	says('nobody there', $url, qr/(?:connection to $here timed out|could not connect to $here: No route to host)/, qr/heck/, with($good));
	$engine->mend_network;
	healthy('tls');
	return;
}

# Servers with certificates that an engine should not have.
sub servers
{
	$certs->issue('expired', ca => 'ca', use => 'serverAuth', san => $sans, days => 0);
	$certs->issue('elsewhere', ca => 'ca', use => 'serverAuth', san => 'DNS:elsewhere,IP:192.0.2.1');
	$certs->issue('odd', ca => 'ca', use => 'clientAuth', san => $sans);
	my %expected = (
		expired => [ qr/certificate of \S+ has expired/, qr/Issue a new certificate/ ],
		elsewhere => [ qr/certificate of \S+ is for another name: .*/, qr/with "127\.0\.0\.1" among its subjectAltNames/ ],
		odd => [ qr/certificate of \S+ is not for servers/, qr/serverAuth/ ]);
	for my $server (sort keys %expected)
	{
		listen_with('ca', $server);
		says("server certificate: $server", $local->url, @{ $expected{$server} }, with($good));
	}
	listen_with('ca', 'server');
	healthy('tls');
	return;
}

sub files
{
	my ($url) = @_;
	my $broken = $certs->client_dir('client', ca => 'ca');
	says('no such directory', $url, qr{/nowhere/certs: No such file or directory}, qr/tls_cert_path names a directory/, with('/nowhere/certs'));
	write_file("$broken/cert.pem", 'nonsense');
	says('no certificate', $url, qr{$broken/cert\.pem: not in PEM form}, qr/tls_cert_path/, with($broken));
	write_file("$broken/cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	says('malformed certificate', $url, qr{$broken/cert\.pem: .*}, qr/./, with($broken));
	$certs->fill_dir($broken, 'client');
	write_file("$broken/ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	says('malformed CA', $url, qr{$broken/ca\.pem: .*}, qr/./, with($broken));
	$certs->fill_dir($broken, 'stranger');
	$certs->fill_dir($broken, undef, ca => 'ca');
	File::Copy::copy($certs->key('client'), "$broken/key.pem");
	says('key of another certificate', $url, qr{$broken/key\.pem: .*}, qr/./, with($broken));
	unlink "$broken/key.pem";
	says('no key', $url, qr{$broken: has only one of cert\.pem and key\.pem}, qr/tls_cert_path/, with($broken));
	$certs->fill_dir($broken, 'client');
	chmod 0000, "$broken/key.pem";
	says('key that cannot be read', $url, qr{$broken/key\.pem: Permission denied}, qr/user "cmtest" must be able to read it/, with($broken));
	unlink "$broken/ca.pem";
	says('no CA', $url, qr{$broken/ca\.pem: No such file or directory}, qr/tls_cert_path/, with($broken));
	return;
}

# ------------------------------------------------------- stored in the database

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or die "could not read $file: $!\n";
	local $/;
	return scalar <$fh>;
}

sub set_tls
{
	my ($host, %part) = @_;
	return "SELECT cm_set_host_tls('$host'" . join('', map { ", $_ => '$part{$_}'" } sort keys %part) . ')';
}

sub stored
{
	my %part = (ca => slurp($certs->cert('ca')), cert => slurp($certs->cert('client')), key => slurp($certs->key('client')));
	my $stranger = slurp($certs->key('stranger'));
	$node->add_host('stored', "tcp://$address:2376");
	like(refusal(set_tls('stored', %part)), qr/^\w+: key cannot be sealed: .*HINT:/s, 'a key needs a key file');
	my $key_file = $node->data_dir . '/../secret.key';
	write_file($key_file, 'a' x 64 . "\n");
	sql("ALTER SYSTEM SET container_manager.secret_key_file = '$key_file'");
	sql('SELECT pg_reload_conf()');
	ok($node->wait_for_sql(q{SHOW container_manager.secret_key_file}, $key_file), 'there is one');

	like(refusal(set_tls('stored', %part, key => $stranger)), qr/^22023: key cannot be used: /, 'key of another certificate');
	like(refusal(set_tls('stored', %part, cert => 'nonsense')), qr/^22023: cert cannot be used: /, 'no certificate');
	like(refusal(set_tls('stored', ca => 'nonsense')), qr/^22023: ca cannot be used: /, 'no CA');
	like(refusal(set_tls('stored', cert => $part{cert})), qr/^22023: cert cannot be used: .*HINT: .*together/s, 'certificate without key');
	like(refusal(set_tls('stored')), qr/^22023: nothing is given/, 'nothing');
	like(refusal(set_tls('strd', %part)), qr/^42704: host "strd" does not exist/, 'unknown host');
	is(sql('SELECT count(*) FROM cm_internal.host_tls'), 0, 'nothing was stored');
	says_stored(%part);
	is_secret($part{key}, $stranger);

	$certs->issue('renewed', ca => 'ca', use => 'clientAuth');
	is(sql(set_tls('stored', %part, cert => slurp($certs->cert('renewed')), key => slurp($certs->key('renewed')))), 't', 'renewed');
	run_on('stored');
	write_file($key_file, 'b' x 64 . "\n");
	healthy('stored');
	sql(q{UPDATE cm_hosts SET tls_verify = false WHERE name = 'stored'});
	healthy('stored', 'unhealthy');
	for my $view (q{SELECT error || '|' || hint FROM cm_check_host('stored')}, q{SELECT error || '|' || hint FROM cm_host_status WHERE name = 'stored'})
	{
		like(sql($view), qr/^stored key cannot be opened: .*\|./, 'sealed with another key');
	}
	write_file($key_file, 'b' x 64 . "\n" . 'a' x 64 . "\n");
	healthy('stored');
	is(sql(q{SELECT cm_drop_host_tls('stored')}), 't', 'dropped');
	healthy('stored', 'unhealthy');
	is(sql(q{SELECT cm_drop_host_tls('stored')}), 'f', 'once');
	sql(set_tls('stored', %part));
	sql(q{SELECT cm_remove_host('stored')});
	is(sql('SELECT count(*) FROM cm_internal.host_tls'), 0, 'it goes with its host');
	return;
}

sub says_stored
{
	my (%part) = @_;
	is(sql(set_tls('stored', %part)), 't', 'CA, certificate and key are stored');
	is(sql(q{SELECT ok, error FROM cm_check_host('stored')}), 't|', 'and used');
	healthy('stored');
	run_on('stored');
	like(sql(q{SELECT string_agg(l, ' ') FROM cm_host_env('stored') l}), qr/DOCKER_TLS_VERIFY=1 # DOCKER_CERT_PATH: /, 'cm_host_env');
	return;
}

# Not in what is dumped, which has all tables, nor in the log.
sub is_secret
{
	my (@keys) = @_;
	my $dump = "$tmp/dump";
	IPC::Run::run([ 'pg_dump', '--dbname', $node->connstr('postgres'), '--file', $dump ]) or die "pg_dump failed\n";
	my $pieces = sql(q{SELECT string_agg(t::text, ' ') FROM cm_internal.host_tls t}) . sql(q{SELECT string_agg(s::text, ' ') FROM pg_settings s});
	my %place = (dump => slurp($dump), 'log' => slurp($node->logfile), 'tables and settings' => $pieces);
	like($place{dump}, qr/host_tls/, 'there is a dump');
	for my $place (sort keys %place)
	{
		for my $key (@keys)
		{
			my $line = (split /\n/, $key)[1];
			my $hex = unpack('H*', $line);
			unlike($place{$place}, qr/\Q$line\E|$hex/, "no key in the $place");
		}
	}
	return;
}

sub write_file
{
	my ($file, $text) = @_;
	open(my $fh, '>', $file) or die "could not write $file: $!\n";
	print $fh $text;
	close $fh or die "could not write $file: $!\n";
	chmod 0600, $file;
	return;
}

# ------------------------------------------------------- without TLS

sub plain
{
	my $relay = CM::Relay->start('127.0.0.1', $engine->socket);
	$node->add_host('plain', $relay->url, 'tls_enabled => false');
	healthy('plain');
	run_on('plain');
	is(sql(q{SELECT * FROM cm_host_env('plain')}), 'export DOCKER_HOST=' . $relay->url . "\nunset DOCKER_CONTEXT DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH", 'cm_host_env');
	like(refusal("SELECT cm_add_host('far', 'tcp://$address:2375', tls_enabled => false)"),
		qr/^42501: host "far" cannot be used without TLS\n.*HINT:.*container_manager\.allow_plain_tcp/s, 'not to another machine');
	sql(q{SELECT cm_remove_host('plain')});
	return;
}

# ------------------------------------------------------- jobs

sub jobs
{
	my $job = $node->submit(q{'busybox:test', 'echo one; exec sleep 600', host => 'tls'});
	is($node->job_wait($job, status => 'running|failed'), 'running', 'a job runs');
	ok($node->wait_for_sql("SELECT line FROM cm_job_logs($job)", 'one'), 'its output comes while it runs');
	sql("SELECT cm_cancel_job($job)");
	is($node->job_wait($job), 'cancelled', 'and it is cancelled');
	my $big = $node->submit(q{'busybox:test', 'seq 1 20000', host => 'tls'});
	is($node->job_wait($big), 'completed', 'much output');
	is(sql("SELECT md5(cm_job_output($big)) = md5((SELECT string_agg(n || E'\\n', '' ORDER BY n) FROM generate_series(1, 20000) n)) FROM cm_jobs WHERE id = $big AND NOT logs_incomplete"),
		't', 'comes whole');
	return;
}

sub cut
{
	$node->add_host('cut', $local->url, with($good));
	healthy('cut');
	my $job = $node->submit(q{'busybox:test', 'i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); usleep 100000; done', host => 'cut'});
	ok($node->wait_for_sql("SELECT line FROM cm_job_logs($job) WHERE line = '3'", '3'), 'a job prints');
	$local->tell('cut');
	is($node->job_wait($job), 'completed', 'the line is cut, the job goes on');
	is(sql("SELECT string_agg(line, ' ' ORDER BY line::int) FROM cm_job_logs($job)"), join(' ', 0 .. 29), 'all it printed is there, once');
	is(sql("SELECT attempt FROM cm_jobs WHERE id = $job"), 1, 'in one attempt');
	sql(q{SELECT cm_remove_host('cut')});
	return;
}

# ------------------------------------------------------- rotation

# What the executor has seen: PEM by where it was.
sub certificates_are
{
	my (%file) = @_;
	for my $source (sort keys %file)
	{
		ok($node->wait_for_sql("SELECT translate(c.cert, E' \\n', '') FROM cm_internal.host_certificates c JOIN cm_hosts h ON h.id = c.host_id WHERE h.name = 'tls' AND source = '$source'",
				slurp($file{$source}) =~ s/\s//gr), "$source is known");
	}
	return;
}

# First the client's files, which the engine does not know yet; then the engine's.
sub rotated
{
	my $pid = $node->executor_pid;
	certificates_are('ca.pem' => $certs->cert('ca'), 'cert.pem' => $certs->cert('client'), presented => $certs->cert('server'));
	my $job = $node->submit(q{'busybox:test', 'echo before; while [ ! -e /tmp/end ]; do usleep 50000; done; echo after', host => 'tls'});
	ok($node->wait_for_sql("SELECT line FROM cm_job_logs($job)", 'before'), 'a job runs');
	$certs->issue('next-server', ca => 'next-ca', use => 'serverAuth', san => $sans);
	$certs->issue('next-client', ca => 'next-ca', use => 'clientAuth');
	$certs->fill_dir($good, 'next-client', ca => 'next-ca');
	healthy('tls', 'unhealthy');
	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'it runs on');
	listen_with('next-ca', 'next-server');
	healthy('tls');
	$engine->docker('exec', sql("SELECT container_id FROM cm_jobs WHERE id = $job"), 'touch', '/tmp/end');
	is($node->job_wait($job), 'completed', 'and ends as it should');
	is(sql("SELECT string_agg(line, ' ') FROM (SELECT line FROM cm_job_logs($job)) l"), 'before after', 'with all its output');
	run_on('tls');
	certificates_are('ca.pem' => $certs->cert('next-ca'), 'cert.pem' => $certs->cert('next-client'), presented => $certs->cert('next-server'));
	is($node->executor_pid, $pid, 'by the same executor');
	return;
}

# ------------------------------------------------------- names

# Asked for engine.test we tell the engine's address; of all else we say nothing.
sub answer_names
{
	my ($socket, $until) = @_;
	my $deadline = time + 300;
	my $select = IO::Select->new($socket);
	while (time < $deadline)
	{
		next unless $select->can_read(1);
		$socket->recv(my $query, 512) // next;
		my ($id, $question) = (substr($query, 0, 2), substr($query, 12));
		$question =~ /\A((?:[\x01-\x3f].*?)\x00)(..)../s or next;
		my ($name, $type) = (join('.', unpack('(C/a)*', substr($1, 0, -1))), unpack('n', $2));
		return 1 if $name eq $until;
		next unless $name eq 'engine.test';
		my @answer = $type == 1 ? pack('nnnNn/a', 0xc00c, 1, 1, 1, pack('C4', split /\./, $address)) : ();
		$socket->send($id . pack('nnnnn', 0x8180, 1, scalar @answer, 0, 0) . substr($question, 0, length($1) + 4) . join('', @answer));
	}
	return 0;
}

sub silent_names
{
	my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1', LocalPort => 53) or die "could not serve names: $!\n";
	$node->add_host('silent', 'tcp://silent.test:2376', with($good));
	ok(answer_names($socket, 'silent.test'), 'a name is looked up, and nobody answers');
	my $job = $node->submit(q{'busybox:test', 'echo hi', host => 'tls'});
	is($node->job_wait($job), 'completed', 'jobs on other hosts run meanwhile');
	healthy('silent', 'unhealthy');
	like(sql(q{SELECT error || '|' || hint FROM cm_host_status WHERE name = 'silent'}), qr/^host name "silent\.test" could not be resolved in time\|.*resolv\.conf/, 'cm_host_status says why');
	like(sql(q{SELECT error FROM cm_check_host('silent', '1 s')}), qr/^host name "silent\.test" could not be resolved in time/, 'cm_check_host, too');
	sql(q{SELECT cm_remove_host('silent')});

	$node->add_host('named', 'tcp://engine.test:2376', with($good));
	$node->add_host('far', 'tcp://localhost:2375', 'tls_enabled => false');
	my $answerer = fork() // die "could not fork: $!\n";
	if ($answerer == 0)
	{
		answer_names($socket, 'no such');
		POSIX::_exit(0);
	}
	close $socket;
	healthy('named');
	run_on('named');
	kill 'KILL', $answerer;
	waitpid($answerer, 0);
	says('unknown name', 'tcp://unknown.test:2376', qr/host name "unknown\.test" could not be resolved/, qr/DNS/);
	sql("SELECT cm_remove_host('$_')") for 'named', 'far';
	return;
}
