# Environment templates and secrets: what a job sees of them on a real engine, and
# where a secret's text is not to be found.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use IPC::Run ();
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'secrets');
$engine->import_busybox('busybox:demo');
my $node = CM::Cluster->new_preloaded('main', 'log_min_messages' => 'debug5');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION container_manager');
$node->add_host('local', $engine);

my $dir = PostgreSQL::Test::Utils::tempdir();
my %plain = map { $_ => "plain-$_-" . join '', map { sprintf '%02x', rand 256 } 1 .. 16 } qw(bound file copied registry);

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub refusal
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $status == 0 ? "no error: $stdout" : $stderr =~ s/\A.*?ERROR:\s*//sr;
}

sub spew
{
	my ($file, $text) = @_;
	open(my $fh, '>', $file) or die "could not write $file: $!\n";
	print $fh $text;
	close $fh or die "could not write $file: $!\n";
	chmod 0600, $file;
	return $file;
}

sub set_keys
{
	my (@keys) = @_;
	return spew("$dir/secret.key", join "\n", @keys, '');
}

# As a parameter of the protocol, not as a literal.
sub set_bound
{
	my ($name, $value) = @_;
	my $file = spew("$dir/bench.sql", "\\set n 1\nSELECT cm_set_secret('$name', :v);\n");
	return $node->command_ok([ 'pgbench', '-n', '-M', 'extended', '-t', '1', '-D', "v=$value", '-f', $file,
		'-h', $node->host, '-p', $node->port, 'postgres' ], "$name is set by a parameter");
}

my @keys = map { my $digit = $_; join '', map { sprintf '%02x', (37 * $_ + $digit) % 256 } 1 .. 32 } 1 .. 2;

# --- without a key file
like(refusal("SELECT cm_set_secret('a', 'b')"), qr/^55000: secret "a" cannot be sealed.*HINT: .*openssl rand -hex 32/s, 'no key file');
set_keys($keys[0]);
sql("ALTER SYSTEM SET container_manager.secret_key_file = '$dir/secret.key'");
$node->reload;
ok($node->wait_for_sql('SHOW container_manager.secret_key_file', "$dir/secret.key"), 'there is one');

# --- in
set_bound('bound', $plain{bound});
spew("$dir/value", "$plain{file}\n");
is(sql("SELECT cm_set_secret_from_file('from-file', '$dir/value')"), 't', 'from a file');
unlink "$dir/value";
$node->command_ok([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', 'COPY cm_secrets_load (name, value) FROM STDIN' ], 'COPY of nothing');
IPC::Run::run([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', 'COPY cm_secrets_load (name, value) FROM STDIN' ],
	'<', \"copied\t$plain{copied}\n", '>', \my $out, '2>', \my $err);
is($err, '', 'by COPY');
is(sql('SELECT string_agg(name, $$ $$ ORDER BY name) FROM cm_secrets'), 'bound copied from-file', 'listed');

# --- a job sees them
my $job = $node->submit(q('busybox:demo', 'printf %s "$A" "$B" "$C" | md5sum',
	secret_environment => '{"A": "bound", "B": "from-file", "C": "copied"}'));
is($node->job_wait($job), 'completed', 'a job with secrets');
require Digest::MD5;
is(sql("SELECT split_part(cm_job_output($job), ' ', 1)"), Digest::MD5::md5_hex($plain{bound} . $plain{file} . $plain{copied}),
	'has their values');
is(sql("SELECT name, value, source FROM cm_job_environment($job) WHERE name = 'A'"), 'A|********|secret "bound"', 'masked');

# --- not those that are missing, or not for the caller
like(refusal(q(SELECT cm_submit_job('busybox:demo', 'true', secret_environment => '{"A": "none"}'))),
	qr/^42704: secret "none" does not exist in namespace "default", or is not for role/, 'missing');
like(refusal(q(SELECT cm_submit_job('busybox:demo', 'true', environment => '{"A": "1"}', secret_environment => '{"A": "bound"}'))),
	qr/^22023: environment variable "A" is in environment, too/, 'both');
sql('CREATE ROLE app; GRANT USAGE ON SCHEMA public TO app; GRANT EXECUTE ON FUNCTION cm_submit_job TO app; GRANT INSERT, SELECT ON cm_jobs TO app');
my $as_app = q(SET ROLE app; SELECT cm_submit_job('busybox:demo', 'test -n "$A"', secret_environment => '{"A": "bound"}'));
like(refusal($as_app), qr/^42704: secret "bound" does not exist .* is not for role "app"/, 'not for a role');
is(sql("SELECT cm_grant_secret('bound', 'app')"), 't', 'granted');
is($node->job_wait(sql($as_app)), 'completed', 'then it is');

# --- environment templates
sql("INSERT INTO cm_environment_templates VALUES ('web', NULL, E'# c\\nA=of the template\\n\\nB=x = y \\n')");
like(refusal("INSERT INTO cm_environment_templates VALUES ('bad', NULL, E'A=1\\nB\\n')"), qr/^22023: environment_variables_text cannot be used: line 2 has no =/, 'malformed');
$job = $node->submit(q('busybox:demo', 'echo "$A|$B|$C"', environment_template => 'web', environment => '{"A": "own", "C": "c"}'));
sql("UPDATE cm_environment_templates SET environment_variables_text = 'B=changed'");
is($node->job_wait($job), 'completed', 'a job with an environment template');
is(sql("SELECT cm_job_output($job)"), "own|x = y |c\n", 'what it sees');
is(sql("SELECT string_agg(name || ' ' || source, ', ' ORDER BY name) FROM cm_job_environment($job)"),
	'A job, B environment template "web", C job, HOME default, TMPDIR default', 'where it is from');

# --- in order: image < template's environment template < template < job's environment template < job
$engine->import_busybox('busybox:env', env => { map { $_ => 0 } qw(A B C D Z) });
sql("INSERT INTO cm_environment_templates VALUES ('low', NULL, replace('A=1 B=1 C=1 D=1 S=1 T=1 U=1', ' ', chr(10))), ('high', NULL, replace('C=3 D=3 T=3', ' ', chr(10)))");
sql(q[SELECT cm_create_template('layered', 'busybox:env', 'echo "$Z$A$B$C$D$E$T" {{p}}; printf %s "$S$U" | md5sum',
	environment_template => 'low', environment => '{"B": "{{q}}", "C": "2", "D": "{{unused}}", "U": "2"}', parameters => '{"unused": null}',
	secret_environment => '{"S": "bound", "T": "bound"}')]);
$job = sql(q[SELECT cm_submit_job(template => 'layered', parameters => '{"p": "x y", "q": "2", "unused": ""}',
	environment_template => 'high', environment => '{"D": "4", "E": "4"}', secret_environment => '{"U": "from-file"}')]);
is($node->job_wait($job), 'completed', 'a job with all layers');
is(sql("SELECT cm_job_output($job)"), "0123443 x y\n" . Digest::MD5::md5_hex("$plain{bound}$plain{file}") . "  -\n", 'the highest counts');
is(sql("SELECT string_agg(concat_ws('=', name, value, source), ', ' ORDER BY name) FROM cm_job_environment($job) WHERE source <> 'default'"),
	'A=1=environment template "low", B=2=template "layered", C=3=environment template "high", CM_PARAM_p=x y=parameter "p", D=4=job, E=4=job,'
	  . ' S=********=secret "bound" of template "layered", T=3=environment template "high", U=********=secret "from-file"', 'and all are shown');
like(refusal(q[SELECT cm_create_template('t', environment_template => 'none')]), qr/^42704: environment template "none" does not exist/, 'a template is checked');
like(refusal(q[SELECT cm_submit_job('busybox:demo', 'true', secret_environment => '{"CM_PARAM_x": "bound"}')]),
	qr/^42501: environment variable "CM_PARAM_x" is reserved/, 'parameters are not for secrets');

# --- who may what
like(refusal(q(SET ROLE app; SELECT cm_submit_job('busybox:demo', 'true', environment_sources => '{}'))), qr/^42883/, 'no such parameter');
like(refusal(q(INSERT INTO cm_jobs (image, environment_sources) VALUES ('busybox:demo', '{"A": "x"}'))), qr/environment_sources/, 'sources are not given');
sql('CREATE ROLE keeper; GRANT USAGE ON SCHEMA public TO keeper; GRANT EXECUTE ON FUNCTION cm_set_secret, cm_drop_secret, cm_grant_secret,'
	  . ' cm_set_secret_from_file TO keeper; GRANT SELECT ON cm_secrets TO keeper, app; GRANT INSERT ON cm_secrets_load TO keeper');
like(refusal("SET ROLE keeper; SELECT cm_set_secret('bound', 'x')"), qr/^42501: permission denied for secret "bound"/, "another's is not changed");
like(refusal("SET ROLE keeper; SELECT cm_drop_secret('copied')"), qr/^42704: secret "copied" does not exist/, 'nor dropped, nor told of');
like(refusal("SET ROLE keeper; SELECT cm_set_secret_from_file('x', '$dir/bench.sql')"), qr/^42501: permission denied to read files/, 'no files');
is(sql("SET ROLE keeper; SELECT name FROM cm_secrets"), '', 'and none is listed');
is(sql("SET ROLE app; SELECT name FROM cm_secrets"), 'bound', 'but those that one was granted');
is(sql("SET ROLE keeper; SELECT cm_set_secret('own', 'x'), cm_set_secret('own', 'y'), cm_drop_secret('own')"), 't|f|t', 'one sets, changes and drops');
sql('GRANT CREATE ON SCHEMA public TO keeper; SET ROLE keeper; CREATE FUNCTION trap() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS'
	  . q{ $$ SELECT cm_grant_secret('bound', 'keeper') $$});
like(refusal('SELECT trap()'), qr/^42704: secret "bound" does not exist/, "nor by a function of one's own that somebody else calls");
sql('DROP FUNCTION trap(); REVOKE CREATE ON SCHEMA public FROM keeper');
is(sql('SELECT count(*) FROM cm_secrets_load'), 0, 'nothing is read back');
like(refusal(q(SELECT cm_set_secret('a b', 'x'))), qr/^22023: name of the secret is not valid/, 'a name that is none');
like(refusal(q(SELECT cm_set_secret('a', NULL))), qr/^22023: value of secret "a" is missing/, 'no value');
like(refusal(q(SELECT cm_set_secret('a', repeat('x', 65537)))), qr/^22023: value of secret "a" is longer than 65536 bytes/, 'too long');

# --- dropped, or taken away, while a job waits
sql("SELECT cm_pause('wait'); SELECT cm_set_secret('going', 'x')");
my $waiting = $node->submit(q('busybox:demo', 'true', secret_environment => '{"A": "going"}'));
my $of_app = sql($as_app);
sql("SELECT cm_drop_secret('going'), cm_revoke_secret('bound', 'app'); SELECT cm_resume()");
is($node->job_wait($_), 'failed', 'it fails') for $waiting, $of_app;
is(sql("SELECT string_agg(failure_reason || ' ' || error, '; ' ORDER BY id) FROM cm_jobs WHERE id IN ($waiting, $of_app)"),
	join('; ', map { qq(policy secret "$_" does not exist in namespace "default", or is not for the job's owner) } 'going', 'bound'), 'and says why');
ok($node->wait_for_sql("SELECT last_used_at > created_at FROM cm_secrets WHERE name = 'bound'", 't'), 'when one was last used is known');

# --- swapped rows, another key, rotation
my $fails = sub {
	my ($what, $pattern) = @_;
	my $id = $node->submit(q('busybox:demo', 'true', secret_environment => '{"A": "bound"}'));
	$node->job_wait($id);
	return like(sql("SELECT failure_reason, error, hint FROM cm_jobs WHERE id = $id"), $pattern, $what);
};
my $before = sql("SELECT sealed FROM cm_internal.secrets WHERE name = 'bound'");
sql("UPDATE cm_internal.secrets s SET sealed = o.sealed FROM cm_internal.secrets o WHERE s.name = 'bound' AND o.name = 'copied'");
$fails->('a row that was swapped', qr/^create\|secret "bound" cannot be opened: the sealed text is damaged, or was moved/);
sql("UPDATE cm_internal.secrets SET sealed = '$before' WHERE name = 'bound'");
set_keys($keys[1]);
$fails->('another key', qr/^create\|secret "bound" cannot be opened: it was sealed with key [0-9a-f]{16}/);
set_keys(@keys[1, 0]);
is(sql('SELECT * FROM cm_rotate_secret_key()'), "secrets|3|0\nkeys of CAs|0|0\nkeys of hosts|0|0", 'rotated');
is(sql('SELECT * FROM cm_rotate_secret_key()'), "secrets|0|3\nkeys of CAs|0|0\nkeys of hosts|0|0", 'once');
set_keys($keys[1]);
is($node->job_wait($node->submit(q('busybox:demo', 'true', secret_environment => '{"A": "bound"}'))), 'completed', 'the old key is not needed any more');

# --- a registry that wants a password
sub log_in
{
	my ($login) = @_;
	sql("SELECT cm_set_secret('registry-login', '$login')");
	sql(q(UPDATE cm_hosts SET executor_config = '{"registry_auth": {"127.0.0.1:5000": "registry-login"}}'));
	return;
}

sub pull
{
	my ($tag) = @_;
	my $id = $node->submit("'127.0.0.1:5000/private:$tag', 'echo pulled'");
	$node->job_wait($id);
	return sql("SELECT concat_ws('|', status, failure_reason, error, hint) FROM cm_jobs WHERE id = $id");
}

$engine->as_root('sh', '-c', 'cat > "$0/registry.yml" <<X
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $0/registry}}
http: {addr: 127.0.0.1:5000}
auth: {htpasswd: {realm: private, path: $0/htpasswd}}
X
printf %s "$1" > "$0/htpasswd"', $engine->dir, 'puller:' . crypt($plain{registry}, '$2b$05$abcdefghijklmnopqrstuu') . "\n");
$engine->spawn_as_root('docker-registry', 'serve', $engine->dir . '/registry.yml');
my @login;
for (1 .. 100)
{
	@login = $engine->docker_try('login', '-u', 'puller', '-p', $plain{registry}, '127.0.0.1:5000');
	last unless $login[0];
	select undef, undef, undef, 0.1;
}
is($login[0], 0, 'the registry knows its user') or diag($login[2]);
for my $tag (1, 2)
{
	$engine->docker('tag', 'busybox:demo', "127.0.0.1:5000/private:$tag");
	$engine->docker('push', "127.0.0.1:5000/private:$tag");
	$engine->docker('rmi', "127.0.0.1:5000/private:$tag");
}
$engine->docker('logout', '127.0.0.1:5000');
like(pull(1), qr/^failed\|image_pull\|.*could not be pulled\|The registry wants a user and password/, 'nobody may pull');
log_in("puller:$plain{registry}");
is(pull(1), 'completed', 'but who has the password');
log_in('puller:wrong');
like(pull(2), qr/^failed\|image_pull\|.*\|The registry wants a user and password that are right/, 'a wrong one');
log_in('no colon');
like(pull(2), qr/^failed\|image_pull\|.*secret "registry-login" for registry "127.0.0.1:5000" is not user:password/, 'nor what is none');
sql("SELECT cm_drop_secret('registry-login')");
like(pull(2), qr/^failed\|image_pull\|.*secret "registry-login" for registry "127.0.0.1:5000" does not exist/, 'none');
set_bound('registry-login', "puller:$plain{registry}");
is(pull(2), 'completed', 'and when it is there again');

# --- nowhere
my %open = (open => 'open-' . join '', map { sprintf '%02x', rand 256 } 1 .. 16);    # what is no secret is found, by the same looks
IPC::Run::run([ 'psql', '-X', '-At', '-d', $node->connstr('postgres') ], '<',
	\qq[LISTEN cm_job_status; SELECT cm_submit_job('busybox:demo', 'true # $open{open}', name => '$open{open}',
	secret_environment => '{"A": "bound", "B": "from-file", "C": "copied"}') AS job \\gset
CALL cm_await_job(:job, '60 s', NULL);
SELECT 'the end';\n], '>', \my $heard, '2>', \my $complaints);
like($heard, qr/Asynchronous notification "cm_job_status".*completed/s, 'listeners hear of jobs');
IPC::Run::run([ 'pg_dump', '-d', $node->connstr('postgres') ], '>', "$dir/dump.sql");
sql('CHECKPOINT');
spew("$dir/heard", "$heard$complaints");

# Files in which a text is.
sub grep_for
{
	my ($text) = @_;
	IPC::Run::run([ 'grep', '-rlaF', $text, $node->data_dir, $node->logfile, "$dir/dump.sql", "$dir/heard" ], '>', \my $found, '2>', '/dev/null');
	return $found;
}

# Tables and views, of users and internal ones, that have a row with that text.
sub ask_for
{
	my ($text) = @_;
	return sql("SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
		  . " WHERE c.relkind IN ('r', 'v') AND (n.nspname = 'cm_internal' OR c.relname LIKE 'cm\\_%' OR c.relname = 'pg_stat_activity')"
		  . " AND (xpath('/table/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %s t WHERE to_jsonb(t)::text LIKE ''%%%s%%'' %s',"
		  . " c.oid::regclass, '$text', CASE c.relname WHEN 'pg_stat_activity' THEN 'AND pid <> pg_backend_pid()' END), true, false, '')))[1]::text <> '0'");
}

# The memory of a process, read as its debugger would.
sub search_memory
{
	my ($pid, @texts) = @_;
	my %found;
	open(my $maps, '<', "/proc/$pid/maps") or die "could not read the maps of $pid: $!\n";
	open(my $memory, '<:raw', "/proc/$pid/mem") or die "could not read the memory of $pid: $!\n";
	while (<$maps>)
	{
		my ($from, $to) = /\A([0-9a-f]+)-([0-9a-f]+) rw/ or next;
		next if /\[v(?:var|dso|syscall)/;
		($from, $to) = (hex $from, hex $to);
		sysseek $memory, $from, 0 or next;
		my $bytes = '';
		while (length $bytes < $to - $from) { sysread($memory, $bytes, $to - $from - length $bytes, length $bytes) or last; }
		for my $text (@texts) { $found{$text}++ if index($bytes, $text) >= 0; }
	}
	return join ' ', sort keys %found;
}

like(grep_for($open{open}), qr/dump\.sql/, 'looks: a job\'s text is in a dump');
like(grep_for($open{open}), qr/\Q@{[ $node->data_dir ]}\E/, 'looks: and in the data directory');
like(ask_for($open{open}), qr/cm_jobs/, 'looks: and in cm_jobs');
my $executor = $node->executor_pid;
is(search_memory($executor, 'docker run', @plain{sort keys %plain}), 'docker run', 'it is not in the memory of the executor')
  or diag(join ', ', map { "$_ $plain{$_}" } sort keys %plain);
for my $name (sort keys %plain)
{
	is(grep_for($plain{$name}), '', "$name is in no file");
	is(ask_for($plain{$name}), '', "$name is in no row");
}

# --- a dump with the same key file, and without
sql('CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', "$dir/dump.sql" ], 'restored');
sub in_copy
{
	my $id = $node->safe_psql('copy', q(SELECT cm_submit_job('busybox:demo', 'printf %s "$A" | md5sum', secret_environment => '{"A": "bound"}')));
	$node->job_wait($id, database => 'copy');
	return $node->safe_psql('copy', "SELECT status || coalesce(error, cm_job_output(id)) FROM cm_jobs WHERE id = $id");
}
is($node->safe_psql('copy', q(SELECT string_agg(name, ' ' ORDER BY name) FROM cm_secrets)), 'bound copied from-file registry-login', 'secrets come along');
is(in_copy(), 'completed' . Digest::MD5::md5_hex($plain{bound}) . "  -\n", 'and can be used with the key file');
unlink "$dir/secret.key";
like(in_copy(), qr/^failedsecret "bound" cannot be opened: /, 'but not without');
$node->stop;
done_testing();
