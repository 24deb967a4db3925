# Certificates by SQL: a CA, a server's and clients' certificates, which openssl
# finds right; a real dockerd that is started with them, and a job over it while
# they are renewed; CA keys and secrets that nothing shows in the clear; sealed
# rows that are damaged, moved, or of another key; a dump and its restore.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use File::Temp ();
use IPC::Run ();
use MIME::Base64 qw(decode_base64);
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

CM::Engine->require_engine;

my $folder = File::Temp->newdir(TEMPLATE => 'certsXXXX', TMPDIR => 1);
chmod 0755, $folder;
my $key_file = "$folder/secret.key";
my @keys = map { my $digit = $_; join '', map { sprintf '%02x', (37 * $_ + $digit) % 256 } 1 .. 32 } 1 .. 3;

my $node = CM::Cluster->new_preloaded('main',
	'container_manager.heartbeat_interval' => '1s',
	'container_manager.stop_grace' => '1s',
	'log_min_messages' => 'debug5',
	'log_statement' => 'all');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION container_manager');

key_files();
makes();
openssl_agrees();
bad_input();
sealed_rows();
in_use();
engine();
shown_nowhere();
done_testing();

# ------------------------------------------------------- tools

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# What psql says to an error, from "22023: ..." on.
sub refusal
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $status == 0 ? "no error: $stdout" : $stderr =~ s/\A.*?ERROR:\s*//sr;
}

sub spew
{
	my ($file, $text, $mode) = @_;
	unlink $file;
	open(my $fh, '>', $file) or die "could not write $file: $!\n";
	print $fh $text;
	close $fh or die "could not write $file: $!\n";
	chmod $mode // 0600, $file;
	return $file;
}

sub set_key_file
{
	my ($file) = @_;
	sql("ALTER SYSTEM SET container_manager.secret_key_file = '$file'");
	return reload('container_manager.secret_key_file', $file);
}

sub reload
{
	my ($name, $value) = @_;
	$node->reload;
	return ok($node->wait_for_sql("SHOW $name", $value), "$name is set");
}

sub openssl
{
	my (@args) = @_;
	my $output = '';
	IPC::Run::run([ 'openssl', @args ], '<', \undef, '>', \$output, '2>&1');
	return $output;
}

# The texts of an issued certificate, as files NAME-ca.pem, ...
sub issue
{
	my ($name, $call) = @_;
	my %file;
	my $texts = sql("SELECT encode(convert_to(concat_ws('|', ca_pem, cert_pem, key_pem), 'UTF8'), 'base64') FROM $call");
	@file{qw(ca cert key)} = split /\|/, decode_base64($texts);
	return { map { $_ => spew("$folder/$name-$_.pem", $file{$_}, 0644) } qw(ca cert key) };
}

# ------------------------------------------------------- the file of keys

sub key_files
{
	my $make = q{SELECT cm_create_ca('none')};
	like(refusal($make), qr/^55000: .*there is no secret key file.*HINT: .*openssl rand -hex 32/s, 'no key file');
	my @bad = (
		[ 'missing', sub { unlink $key_file }, qr/^F0000: .*could not read.*No such file/s ],
		[ 'group', sub { spew($key_file, "$keys[0]\n", 0640) }, qr/^F0000: .*can be read or changed by others.*mode 0600/s ],
		[ 'others', sub { spew($key_file, "$keys[0]\n", 0604) }, qr/^F0000: .*can be read or changed by others/s ],
		[ 'empty', sub { spew($key_file, "\n# nothing\n") }, qr/^F0000: .*has no key in it/s ],
		[ 'short', sub { spew($key_file, "# a\n" . substr($keys[0], 1) . "\n") }, qr/^F0000: .*line 2 .* is no key/s ],
		[ 'letters', sub { spew($key_file, 'g' x 64) }, qr/^F0000: .*line 1 .* is no key/s ],
		[ 'long', sub { spew($key_file, '#' x 20000) }, qr/^F0000: .*longer than 16384 bytes/s ],
		[ 'many', sub { spew($key_file, "$keys[0]\n" x 65) }, qr/^F0000: .*line 65 /s ],
		[ 'directory', sub { unlink $key_file; mkdir $key_file or die }, qr/^F0000: .*not a plain file/s ]);
	set_key_file($key_file);
	for my $case (@bad)
	{
		my ($name, $prepare, $expected) = @$case;
		$prepare->();
		my $said = refusal($make);
		like($said, $expected, "key file: $name");
		unlike($said, qr/\Q$keys[0]\E|gggg/, 'which is not shown');
	}
	rmdir $key_file or die;
	is(sql('SELECT count(*) FROM cm_certificates'), 0, 'nothing was made');
	my ($status, $stdout, $stderr) = $node->psql('postgres', q{CREATE ROLE nobody; SET ROLE nobody; SHOW container_manager.secret_key_file});
	like($stderr, qr/must be superuser|permission denied/, 'others do not see where it is');
	spew($key_file, "# first seals\r\n\r\n$keys[0]\r\n");
	return;
}

# ------------------------------------------------------- made, and found right

my ($server, $client, $rsa);

sub makes
{
	my $pem = sql(q{SELECT cm_create_ca('docker')});
	like($pem, qr/^-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----$/s, 'cm_create_ca returns the certificate');
	sql(q{SELECT cm_create_ca('old.rsa', common_name => 'Zürich', key_type => 'rsa', valid_for => '90 days')});
	my ($status, $stdout, $stderr) = $node->psql('postgres', q{SELECT dockerd_command, daemon_json::jsonb ->> 'tlskey'
		FROM cm_issue_server_certificate('docker', 'engine.example.com')});
	is($stdout, 'dockerd --tlsverify --tlscacert=/etc/docker/certs/ca.pem --tlscert=/etc/docker/certs/server-cert.pem'
		  . ' --tlskey=/etc/docker/certs/server-key.pem -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376|/etc/docker/certs/server-key.pem',
		'what to start dockerd with');
	like($stderr, qr/NOTICE: .*returned this once.*HINT: .*dockerd --tlsverify/s, 'is told as a hint, too');
	$server = issue('server', q{cm_issue_server_certificate('docker', 'engine.test',
		ARRAY['127.0.0.1', 'IP:::1', 'DNS:localhost', '0:0:0:0:0:0:0:1', 'ENGINE.test'], valid_for => '30 days')});
	$client = issue('client', q{cm_issue_client_certificate('docker')});
	$rsa = issue('rsa', q{cm_issue_client_certificate('old.rsa', common_name => 'ci', key_type => 'rsa', trust => '{old.rsa,docker,docker}')});
	is(sql(q{SELECT string_agg(concat_ws('/', ca, kind, common_name, sans, host, issued_by = current_user), ' ' ORDER BY issued_at) FROM cm_issued_certificates}),
		'docker/server/engine.example.com/DNS:engine.example.com/t '
		  . 'docker/server/engine.test/DNS:engine.test, IP:127.0.0.1, IP:::1, DNS:localhost/t '
		  . 'docker/client/container_manager/t old.rsa/client/ci/t', 'cm_issued_certificates');
	return;
}

sub openssl_agrees
{
	is(openssl('verify', '-x509_strict', '-purpose', 'sslserver', '-verify_hostname', 'engine.test', '-CAfile', $server->{ca}, $server->{cert}), "$server->{cert}: OK\n", 'server');
	is(openssl('verify', '-purpose', 'sslserver', '-verify_ip', '::1', '-CAfile', $server->{ca}, $server->{cert}), "$server->{cert}: OK\n", 'by address');
	like(openssl('verify', '-purpose', 'sslserver', '-verify_hostname', 'other.test', '-CAfile', $server->{ca}, $server->{cert}), qr/hostname mismatch/i, 'not by another name');
	like(openssl('verify', '-purpose', 'sslclient', '-CAfile', $server->{ca}, $server->{cert}), qr/purpose/, 'not as a client');
	is(openssl('verify', '-x509_strict', '-purpose', 'sslclient', '-CAfile', $client->{ca}, $client->{cert}), "$client->{cert}: OK\n", 'client');
	like(openssl('verify', '-purpose', 'sslserver', '-CAfile', $client->{ca}, $client->{cert}), qr/purpose/, 'not as a server');
	like(openssl('verify', '-CAfile', $client->{ca}, $rsa->{cert}), qr/error/, 'nor of another CA');
	is(openssl('verify', '-x509_strict', '-purpose', 'sslclient', '-CAfile', $rsa->{ca}, $rsa->{cert}), "$rsa->{cert}: OK\n", 'RSA, with two CAs trusted');
	is(scalar(() = slurp_file($rsa->{ca}) =~ /BEGIN CERTIFICATE/g), 2, 'each once');

	my $text = openssl('x509', '-noout', '-text', '-in', $server->{cert});
	like($text, qr/$_/, "x509 -text: $_")
	  for 'Version: 3', 'CN = engine\.test', 'id-ecPublicKey', 'NIST CURVE: P-256', 'ecdsa-with-SHA256',
	  'Basic Constraints: critical\s+CA:FALSE', 'Key Usage: critical\s+Digital Signature\n', 'Extended Key Usage: *\s+TLS Web Server Authentication\n',
	  'Subject Key Identifier', 'Authority Key Identifier',
	  'DNS:engine.test, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:localhost\n';
	$text = openssl('x509', '-noout', '-text', '-in', $client->{ca});
	like($text, qr/$_/, "of the CA: $_") for 'CA:TRUE, pathlen:0', 'Certificate Sign, CRL Sign';
	like(openssl('x509', '-noout', '-text', '-in', $rsa->{cert}), qr/rsaEncryption.*3072 bit/s, '3072 bits');

	for my $of ($server, $client, $rsa)
	{
		is(openssl('x509', '-noout', '-pubkey', '-in', $of->{cert}), openssl('pkey', '-pubout', '-in', $of->{key}), 'the key is of the certificate');
		my %field = map { /^(.*?)=(.*)/ } split /\n/, openssl('x509', '-noout', '-serial', '-enddate', '-startdate', '-in', $of->{cert});
		is(length $field{serial}, 32, 'a serial of 128 bits');
		is(sql("SELECT not_after = '$field{notAfter}' AND not_before = '$field{notBefore}' FROM cm_issued_certificates WHERE serial = lower('$field{serial}')"), 't',
			'is listed, with its time');
	}
	is(sql(q{SELECT string_agg(concat_ws('/', source, kind, ca, subject, key_type, days_left, state), ' ' ORDER BY days_left, subject) FROM cm_certificates}),
		'issued/server/docker/CN=engine.test/EC P-256/29/expiring created/ca/old.rsa/CN=Z\C3\BCrich/RSA 3072/89/valid '
		  . 'issued/client/old.rsa/CN=ci/RSA 3072/89/valid issued/client/docker/CN=container_manager/EC P-256/364/valid '
		  . 'issued/server/docker/CN=engine.example.com/EC P-256/364/valid created/ca/docker/CN=docker/EC P-256/3649/valid',
		'cm_certificates; nothing outlives its CA');
	return;
}

# ------------------------------------------------------- refused

sub bad_input
{
	my $before = sql('SELECT count(*) FROM cm_issued_certificates');
	my @long = (q{'a}, 'b' x 64, q{'});
	my @cases = (
		[ q{cm_create_ca(NULL)}, '22023: invalid name' ],
		[ q{cm_create_ca('a b')}, '22023: invalid name "a b" of a CA' ],
		[ q{cm_create_ca(E'a\nb')}, '22023: invalid name "a\?b" of a CA' ],
		[ q{cm_create_ca('docker')}, '23505: CA "docker" exists already' ],
		[ q{cm_create_ca('x', valid_for => '7301 days')}, '22023: invalid valid_for' ],
		[ q{cm_create_ca('x', valid_for => '-1 day')}, '22023: invalid valid_for' ],
		[ q{cm_create_ca('x', key_type => 'dsa')}, '22023: invalid key_type' ],
		[ q{cm_create_ca('x', common_name => repeat('é', 65))}, '22023: invalid common_name' ],
		[ q{cm_create_ca('x', common_name => '')}, '22023: invalid common_name' ],
		[ q{cm_create_ca('x', common_name => E'a\x1bb')}, '22023: invalid common_name: it contains a control' ],
		[ q{cm_drop_ca('dockre')}, '42704: CA "dockre" does not exist.*Perhaps "docker"' ],
		[ q{cm_drop_ca(NULL)}, '22023: name of the CA is missing' ],
		[ q{cm_issue_client_certificate(NULL)}, '22023: name of the CA is missing' ],
		[ q{cm_issue_client_certificate('docker', trust => '{docker,nix}')}, '42704: CA "nix" does not exist' ],
		[ q{cm_issue_client_certificate('docker', 'nohost')}, '42704: host "nohost" does not exist' ],
		[ q{cm_issue_client_certificate('docker', valid_for => '826 days')}, '22023: invalid valid_for' ],
		[ q{cm_issue_client_certificate('old.rsa', valid_for => '91 days')}, '22023: .*CA "old.rsa" ends before' ],
		[ q{cm_issue_server_certificate('docker', NULL)}, '22023: host_name is missing' ],
		(map { [ "cm_issue_server_certificate('docker', $_->[0])", qq{22023: invalid $_->[1].*: $_->[2]} ] }
			[ q{'*.example.com'}, 'name "\*\.example', 'wildcards' ], [ q{''}, 'common_name', 'it must have' ], [ q{'a b'}, 'name "a b"', 'it is neither' ],
			[ q{'a,DNS:b'}, 'name "a,DNS:b"', 'it is neither' ], [ q{'127.1'}, 'name "127.1"', 'it is neither' ], [ q{'IP:a'}, 'name "IP:a"', 'it is not an IP' ],
			[ q{'a', ARRAY['dirName:x']}, 'name "dirName:x"', 'it is neither' ], [ q{'a', ARRAY['-a']}, 'name "-a"', 'it is neither' ],
			[ q{'a', ARRAY[repeat('a.', 127)]}, 'name "a.a', 'it is longer' ], [ q{'a', ARRAY['DNS:10.0.0.1']}, 'name "DNS:10.0.0.1"', 'it is neither' ]),
		[ q{cm_issue_server_certificate('docker', 'a', ARRAY['b', NULL])}, '22023: invalid sans: a name is NULL' ],
		[ q{cm_issue_server_certificate('docker', 'a', (SELECT array_agg('h' || i) FROM generate_series(1, 100) i))}, '22023: invalid sans: there are more' ],
		[ q{cm_issue_server_certificate('docker', repeat('a', 60) || '.test')}, '22023: invalid common_name' ]);
	like(refusal("SELECT $_->[0]"), qr/^$_->[1]/s, $_->[0] =~ s/[^ -~]/?/gr) for @cases;
	is(sql('SELECT count(*) FROM cm_issued_certificates'), $before, 'nothing was noted of these');
	like(refusal('SET ROLE nobody; ' . $_), qr/^42501/, "others may not $_")
	  for q{SELECT cm_create_ca('y')}, q{SELECT cm_issue_client_certificate('docker')}, q{TABLE cm_certificates}, q{TABLE cm_internal.cas};
	return;
}

# ------------------------------------------------------- sealed

sub use_of { my ($ca) = @_; return "SELECT cert_pem <> '' FROM cm_issue_client_certificate('$ca', common_name => 'try')"; }

sub sealed_rows
{
	my $damaged = 'the sealed text is damaged, or was moved';
	is(sql(q{
		CREATE FUNCTION try_ca(ca text) RETURNS text LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM cm_issue_client_certificate(ca, common_name => 'try');
			RETURN 'used';
		EXCEPTION WHEN others THEN
			RETURN regexp_replace(SQLERRM, '^.*: (the sealed text is damaged, or was moved|it was sealed with key).*', '\1');
		END $$;
		DO $$
		DECLARE
			kept int;
			good bytea := (SELECT key_sealed FROM cm_internal.cas WHERE name = 'docker');
		BEGIN
			CREATE TEMP TABLE said (n int, what text);
			FOR n IN 0 .. length(good) - 1 LOOP
				UPDATE cm_internal.cas SET key_sealed = set_byte(good, n, get_byte(good, n) # 1) WHERE name = 'docker';
				INSERT INTO said VALUES (n, try_ca('docker'));
			END LOOP;
			FOREACH kept IN ARRAY ARRAY[0, 1, 36, 37, length(good) - 1] LOOP
				UPDATE cm_internal.cas SET key_sealed = substr(good, 1, kept) WHERE name = 'docker';
				INSERT INTO said VALUES (-1, try_ca('docker'));
			END LOOP;
			UPDATE cm_internal.cas SET key_sealed = good || '\x00' WHERE name = 'docker';
			INSERT INTO said VALUES (-1, try_ca('docker'));
			UPDATE cm_internal.cas SET key_sealed = good WHERE name = 'docker';
		END $$;
		SELECT string_agg(what || ' ' || n, ', ' ORDER BY n) FROM (
			SELECT what, CASE WHEN n BETWEEN 1 AND 8 THEN 'key id' ELSE 'else' END AS n FROM said GROUP BY 1, 2) s}),
		"$damaged else, it was sealed with key key id", 'each byte counts');
	sql('BEGIN; UPDATE cm_internal.cas c SET key_sealed = o.key_sealed FROM cm_internal.cas o WHERE c.name <> o.name; COMMIT');
	is(sql("SELECT try_ca('docker') || '; ' || try_ca('old.rsa')"), "$damaged; $damaged", 'rows that were swapped do not open');
	sql('UPDATE cm_internal.cas c SET key_sealed = o.key_sealed FROM cm_internal.cas o WHERE c.name <> o.name');
	is(sql(use_of('docker')), 't', 'swapped back they do');

	spew($key_file, "$keys[1]\n");
	my $id = substr(openssl_sha256($keys[0]), 0, 16);
	like(refusal(use_of('docker')), qr/^55000: the key of CA "docker" cannot be used: it was sealed with key $id.*HINT: .*into the file/s, 'another key');
	spew($key_file, "$keys[1]\n$keys[0]\n");
	is(sql(use_of('docker')), 't', 'an old key opens from the second line');
	sql(q{SELECT cm_create_ca('second')});
	spew($key_file, "$keys[1]\n");
	is(sql(use_of('second')), 't', 'the first line seals');
	spew($key_file, "$keys[2]\n$keys[1]\n$keys[0]\n");
	is(sql("SELECT try_ca('docker') || ' ' || try_ca('second')"), 'used used', 'all lines open');
	return;
}

sub openssl_sha256
{
	my ($hex) = @_;
	my $digest = '';
	IPC::Run::run([ 'openssl', 'dgst', '-sha256', '-r' ], '<', \pack('H*', $hex), '>', \$digest);
	return $digest;
}

# ------------------------------------------------------- when they end

sub in_use
{
	sql(q{SELECT cm_create_ca('short', valid_for => '2 days')});
	is(sql(q{SELECT days_left, state FROM cm_certificates WHERE ca = 'short'}), '1|expiring', 'a CA about to end');
	sql('ALTER SYSTEM SET container_manager.certificate_warning_days = 0');
	reload('container_manager.certificate_warning_days', 0);
	is(sql(q{SELECT state FROM cm_certificates WHERE ca = 'short'}), 'valid', 'is so from when the setting says');
	is(sql(q{SELECT cm_internal.certificate_state(now() - interval '2 days', now() - interval '1 s') || ', ' ||
		cm_internal.certificate_state(now() + interval '1 h', now() + interval '1 day')}), 'expired, not yet valid', 'other states');
	sql('ALTER SYSTEM RESET container_manager.certificate_warning_days');
	reload('container_manager.certificate_warning_days', 30);
	is(sql(q{SELECT cm_drop_ca('short')}), 't', 'what is not in use can be dropped');
	is(sql(q{SELECT count(*), max(problem) FROM cm_internal.read_certificates('-----BEGIN CERTIFICATE-----' || chr(10) || 'AAAA' || chr(10) || '-----END CERTIFICATE-----')}),
		'1|the certificate cannot be read', 'what is no certificate is told as such');
	my $bundle = slurp_file($rsa->{ca});
	is(sql("SELECT string_agg(subject, ' ' ORDER BY number) FROM cm_internal.read_certificates('noise\n$bundle more')"), 'CN=Z\C3\BCrich CN=docker', 'a bundle is read whole');
	my $torn = substr($bundle, 0, length($bundle) - 200);
	is(sql("SELECT count(*), max(problem) FROM cm_internal.read_certificates('$torn')"), '1|certificate 2 cannot be read', 'or not');
	return;
}

# ------------------------------------------------------- a real engine

sub listen_with
{
	my ($engine, $of) = @_;
	$engine->stop;
	$engine->start_again(args => [ '--live-restore', '--host', 'tcp://0.0.0.0:2376', '--tlsverify',
			'--tlscacert', $of->{ca}, '--tlscert', $of->{cert}, '--tlskey', $of->{key} ]);
	return;
}

# The CAs of what is in use for the host, by where it is.
sub uses
{
	my ($expected, $what) = @_;
	return ok($node->wait_for_sql(q{SELECT string_agg(concat_ws(' ', source, kind, ca), ', ' ORDER BY source, kind, ca) FROM cm_certificates WHERE host = 'tls'}, $expected), $what);
}

sub healthy
{
	my ($what) = @_;
	return ok($node->wait_for_sql(q{SELECT state FROM cm_host_status WHERE name = 'tls'}, 'healthy'), $what)
	  && is(sql(q{SELECT ok, error FROM cm_check_host('tls')}), 't|', 'and cm_check_host finds it well');
}

sub warnings_of
{
	my ($subject) = @_;
	return scalar(() = slurp_file($node->logfile) =~ /WARNING:  container_manager: the \w+ certificate "CN=$subject".* expires at/g);
}

sub wait_for_warning
{
	my ($subject) = @_;
	$node->reload;
	return ok($node->wait_for_log(qr/WARNING:  container_manager: the \w+ certificate "CN=$subject".* expires at/), "the log warns of $subject");
}

sub engine
{
	my $engine = CM::Engine->start(name => 'e1', live_restore => 1, count_starts => 1);
	$engine->import_busybox('busybox:test');
	my $address = $engine->address;
	listen_with($engine, issue('s1', "cm_issue_server_certificate('docker', '$address')"));
	$node->add_host('tls', "tcp://$address:2376");
	is(sql(q{SELECT key_pem IS NULL FROM cm_issue_client_certificate('docker', 'tls')}), 't', 'a key that is stored for a host is not returned');
	healthy('a host with certificates by SQL alone');
	uses('presented server docker, stored ca docker, stored client docker', 'what is in use for it');
	my $job = $node->submit(q{'busybox:test', 'echo before; while [ ! -e /tmp/end ]; do usleep 50000; done; echo after', host => 'tls'});
	ok($node->wait_for_sql("SELECT line FROM cm_job_logs($job)", 'before'), 'a job runs there');

	sql(q{SELECT FROM cm_issue_client_certificate('docker', 'tls', common_name => 'soon', valid_for => '10 days')});
	is(sql(q{SELECT hint FROM cm_host_status WHERE name = 'tls'}), 'Its client certificate "CN=soon" expires in 9 day(s): see cm_certificates.', 'cm_host_status tells of the end');
	wait_for_warning('soon');
	healthy('with a renewed client certificate');

	# Another CA, step by step as the README has it.
	sql(q{SELECT cm_create_ca('next')});
	sql(q{SELECT FROM cm_issue_client_certificate('docker', 'tls', trust => '{docker,next}')});
	listen_with($engine, issue('s2', "cm_issue_server_certificate('next', '$address', trust => '{docker,next}')"));
	uses('presented server next, stored ca docker, stored ca next, stored client docker', 'both CAs are trusted');
	healthy('with a server certificate of the next CA');
	like(refusal(q{SELECT cm_drop_ca('docker')}), qr/^55000: CA "docker" cannot be dropped: it is in use.*"tls"/s, 'a CA in use stays');
	sql(q{SELECT FROM cm_issue_client_certificate('next', 'tls')});
	uses('presented server next, stored ca next, stored client next', 'and then the next one alone');
	listen_with($engine, issue('s3', "cm_issue_server_certificate('next', '$address')"));
	healthy('which is all that the engine takes');
	sql(q{SELECT cm_create_ca('later', valid_for => '20 days')});
	wait_for_warning('later');
	is(warnings_of('soon') . warnings_of('later'), '11', 'each once');

	is(sql("SELECT status FROM cm_jobs WHERE id = $job"), 'running', 'the job ran all the while');
	$engine->docker('exec', sql("SELECT container_id FROM cm_jobs WHERE id = $job"), 'touch', '/tmp/end');
	is($node->job_wait($job), 'completed', 'to its end');
	is(sql("SELECT string_agg(line, ' ') FROM (SELECT line FROM cm_job_logs($job)) l"), 'before after', 'with its output');
	is(scalar($engine->starts), 1, 'started once');
	dump_and_restore();
	is(sql(q{SELECT cm_drop_ca('docker')}), 't', 'a CA that nothing uses goes');
	$engine->stop;
	return;
}

# ------------------------------------------------------- elsewhere

sub dump_and_restore
{
	my $dump = "$folder/dump.sql";
	IPC::Run::run([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-f', $dump, 'postgres' ]) or die 'pg_dump failed';
	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	$node->safe_psql('postgres', 'ALTER DATABASE restored SET container_manager.enabled = off');
	$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port, '-f', $dump, 'restored' ], 'restored');
	is($node->safe_psql('restored', q{SELECT string_agg(DISTINCT name, ' ') FROM cm_internal.cas}), 'docker later next old.rsa second', 'CAs are restored');
	is($node->safe_psql('restored', use_of('docker')), 't', 'and can be used');
	is($node->safe_psql('restored', q{SELECT ok, error FROM cm_check_host('tls')}), 't|', 'as can the key of a host');
	my $keys = slurp_file($key_file);
	spew($key_file, 'ab' x 32);
	my ($status, $stdout, $stderr) = $node->psql('restored', use_of('docker'));
	like($stderr, qr/the key of CA "docker" cannot be used: it was sealed with key [0-9a-f]{16}, which is not in the secret key file/, 'not without the key');
	spew($key_file, $keys);
	return;
}

# The CAs' keys are known to nobody, but each begins as all P-256 keys do.
sub shown_nowhere
{
	sql('CHECKPOINT');
	my $marker = (split /\n/, slurp_file($client->{ca}))[3];
	my @secrets = ('PRIVATE KEY', 'MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEH', @keys, map { (split /\n/, slurp_file($_->{key}))[2] } $server, $client, $rsa);
	my @where = ($node->data_dir, $node->logfile, "$folder/dump.sql");
	my $found = '';
	IPC::Run::run([ 'grep', '-rlaF', $marker, @where ], '>', \$found, '2>', '/dev/null');
	like($found, qr/base/, 'certificates are found in files');
	like($found, qr/dump\.sql/, 'and in the dump');
	for my $secret (@secrets)
	{
		IPC::Run::run([ 'grep', '-rlaF', $secret, @where ], '>', \$found, '2>', '/dev/null');
		is($found, '', substr($secret, 0, 12) . '... is nowhere');
	}
	my $der = '';
	IPC::Run::run([ 'openssl', 'pkey', '-in', $client->{key}, '-outform', 'DER' ], '>', \$der);
	my $prefix = join '', map { sprintf '\\x%02x', ord } split //, substr($der, 3, 24);
	IPC::Run::run([ 'grep', '-rlaP', $prefix, @where ], '>', \$found, '2>', '/dev/null');
	is($found, '', 'nor as bytes');
	is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE query ~ 'PRIVATE K[E]Y'}), 0, 'nor what sessions do');
	return;
}
