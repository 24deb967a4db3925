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
my %plain = map { $_ => "plain-$_-" . join '', map { sprintf '%02x', rand 256 } 1 .. 16 } qw(bound file copied);

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

# --- nowhere
IPC::Run::run([ 'pg_dump', '-d', $node->connstr('postgres') ], '>', "$dir/dump.sql");
sql('CHECKPOINT');
for my $name (sort keys %plain)
{
	my $found = '';
	IPC::Run::run([ 'grep', '-rlaF', $plain{$name}, $node->data_dir, $node->logfile, "$dir/dump.sql" ], '>', \$found, '2>', '/dev/null');
	is($found, '', "$name is nowhere");
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%plain-$name-%' AND pid <> pg_backend_pid()"), 0, 'nor in pg_stat_activity');
}
done_testing();
