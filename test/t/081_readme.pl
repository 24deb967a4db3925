# The README says what the product does: its SQL is run as it stands there, its
# output compared, its roles tried, and every name, default and object that it
# mentions is looked up in a real server.
use strict;
use warnings;

use CM::Cluster;
use CM::Document;
use CM::Engine;
use JSON::PP;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'readme');
$engine->import_busybox('busybox:demo');
my $node = CM::Cluster->new_preloaded('main');
$node->start;

# ------------------------------------------------------- the file

my $document = CM::Document->new('README.md');
my $readme = $document->text;

sub section { my ($heading) = @_; return $document->section($heading); }

sub blocks { return CM::Document::blocks(@_); }

sub sql_of { my ($text) = @_; return map { $_->[1] } grep { $_->[0] eq 'sql' } blocks($text); }

sub table_rows { return CM::Document::table_rows(@_); }

sub code_words { return CM::Document::code_words(@_); }

# ------------------------------------------------------- running it

# Gives the output in psql's own form, results apart; dies at the first error.
sub run_sql
{
	my ($database, $sql, @options) = @_;
	$sql =~ s{unix:///var/run/docker\.sock}{$engine->url}ge;
	my ($stdout, $stderr) = ('', '');
	my $status = $node->psql($database, "\\pset format aligned\n\\pset tuples_only off\n\\pset footer off\n$sql",
		stdout => \$stdout, stderr => \$stderr, on_error_stop => 1, extra_params => \@options);
	ok($status == 0 && $stderr !~ /ERROR/, "$database: runs: " . (split /\n/, $sql)[0]) || diag("$sql\n$stderr");
	return split /\n\n+/, $stdout;
}

sub value { my ($sql) = @_; return $node->safe_psql('started', $sql); }

sub column { my ($sql) = @_; return split /\n/, value($sql); }

# ------------------------------------------------------- first screen

# An engine reads two pipes and may come to stderr first.
sub sorted_lines { my ($text) = @_; return join "\n", sort map { s/\s+\z//r } split /\n/, $text; }

$node->safe_psql('postgres', 'CREATE DATABASE first');
$node->safe_psql('postgres', 'CREATE DATABASE started');

my ($sql, $shown) = map { $_->[1] } blocks(section(''));
my @results = run_sql('first', $sql);
(my $got = $results[-1]) =~ s/hello from [0-9a-f]{12}/hello from HOST/;
$shown =~ s/hello from [0-9a-f]{12}/hello from HOST/;
is(sorted_lines($got), sorted_lines($shown), 'first screen: output as shown');
my ($status) = $sql =~ /cm_wait_job\(1\);\s+-- (\w+)/;
like($results[-2], qr/^ \Q$status\E\s*\z/m, 'first screen: status as shown');

# ------------------------------------------------------- getting started

run_sql('started', $_) for sql_of(section('Installation'));
my ($started, @listening) = sql_of(section('Getting started'));
@results = run_sql('started', $started);
like("@results", qr/\| t  \| /, 'getting started: the host answers');
like("@results", qr/ 1 +\+\n 2 +\+\n 3 +\+/, 'getting started: the output is read');
like("@results", qr/completed \| +0 \| .*\d\d:\d\d:\d\d/, 'getting started: cm_run_job gives the date');
run_sql('started', $_) for @listening;

my ($payload) = "@listening" =~ /^-- (\{.*\})$/m;
my ($stdout, $stderr);
$node->psql('started', "LISTEN cm_job_status;\nCALL cm_run_job('busybox:demo', 'true');\nSELECT 1;",
	stdout => \$stdout, stderr => \$stderr);
my ($sent) = $stdout =~ /with payload "(\{.*?\})" received/;
my @keys = map { join ' ', sort keys %{ decode_json($_ // '{}') } } $sent, $payload;
is($keys[0], $keys[1], 'notifications have the keys that are shown') || diag("$stdout\n$stderr");

is(value("SELECT count(*) FROM cm_ps WHERE state = 'completed'"), 3, 'cm_ps shows what was done');

# ------------------------------------------------------- roles

run_sql('started', $_) for sql_of(section('Security'));
my $others = value("SELECT cm_submit_job('busybox:demo', 'sleep 100', name => 'others')");

sub as_role
{
	my ($role, $statement) = @_;
	my ($out, $err);
	$node->psql('started', "\\set VERBOSITY verbose\n$statement",
		stdout => \$out, stderr => \$err, extra_params => [ '-U', $role ]);
	my ($sqlstate) = $err =~ /ERROR:  (\w{5}):/;
	return wantarray ? ($out, $sqlstate // '', $err) : $out;
}

sub may
{
	my ($role, $statement, $expected, $what) = @_;
	my ($out, $sqlstate, $err) = as_role($role, $statement);
	return like("$sqlstate$out", $expected, "$role may $what") || diag("$statement\n$err");
}

sub may_not
{
	my ($role, $statement) = @_;
	my (undef, $sqlstate, $err) = as_role($role, $statement);
	return is($sqlstate, '42501', "$role may not: $statement") || diag($err);
}

my $mine = as_role('app', "SELECT cm_submit_job('busybox:demo', 'echo mine; echo bad >&2')");
may('app', "SELECT cm_wait_job($mine, '1 h')", qr/\Acompleted\z/, 'wait');
may('app', "CALL cm_await_job($mine, '1 h')", qr/\Acompleted\z/, 'wait by CALL');
may('app', "SELECT cm_job_output($mine)", qr/\Amine\s*\z/, 'read output');
may('app', "SELECT cm_job_stderr($mine)", qr/\Abad\s*\z/, 'read stderr');
may('app', "SELECT stream, line FROM cm_job_logs($mine) ORDER BY 1", qr/\Astderr\|bad\nstdout\|mine\z/, 'read lines');
may('app', "SELECT status, owner FROM cm_jobs WHERE id = $mine", qr/\Acompleted\|app\z/, 'read its job');
may('app', "SELECT count(*) FROM cm_job_events WHERE job_id = $mine", qr/\A3\z/, 'read events');
may('app', "SELECT status FROM cm_job_attempts WHERE job_id = $mine", qr/\Acompleted\z/, 'read attempts');
may('app', "SELECT state FROM cm_ps WHERE id = $mine", qr/\Acompleted\z/, 'look at cm_ps');
may('app', "SELECT explanation FROM cm_job_explain($mine) WHERE item = 'state'", qr/\Acompleted\z/, 'have it explained');
may('app', "CALL cm_run_job('busybox:demo', 'echo run')", qr/\A\d+\|completed\|0\|run\s*\z/, 'run a job');
may('app', "INSERT INTO cm_jobs (image, command) VALUES ('busybox:demo', 'true')", qr/\A\z/, 'insert a job');
may('app', "SELECT cm_submit_job('busybox:demo', 'sleep 100') AS job \\gset\nSELECT cm_cancel_job(:job)", qr/\At\z/,
	'cancel its own');
may('app', "SELECT name FROM cm_jobs WHERE id = $others", qr/\Aothers\z/, 'read those of others, as is said');

may_not('app', $_) for (
	"SELECT cm_cancel_job($others)", "SELECT cm_set_priority($others, 1)",
	"SELECT cm_submit_job('busybox:demo', 'true', run_as => '0')",
	"UPDATE cm_jobs SET priority = 1 WHERE id = $mine", "DELETE FROM cm_jobs WHERE id = $mine",
	"SELECT cm_add_host('x', 'unix:///x')", "INSERT INTO cm_hosts (name, connection_string) VALUES ('x', 'unix:///x')",
	'TABLE cm_hosts', 'TABLE cm_host_status', 'SELECT cm_stop_executor()', 'TABLE cm_internal.queue',
	'TABLE cm_internal.log_chunks', 'SELECT cm_internal.executor_status()',
	'SELECT cm_internal.waiting_reason(1)');
is((as_role('app', "INSERT INTO cm_jobs (image, owner) VALUES ('busybox:demo', 'postgres')"))[1], '22023',
	'app may not submit as another');
is((as_role('app', 'SET container_manager.min_uid = 0'))[1], '55P02', 'app may not raise a limit');
is((as_role('app', 'SET container_manager.default_timeout = 5; SHOW container_manager.default_timeout'))[0], '5s',
	'app may set a default');

my @views = column(q{SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass
	AND d.objid = c.oid AND d.deptype = 'e' WHERE c.relkind = 'v' AND c.relname LIKE 'cm\_%' ORDER BY 1});
may('watcher', "SELECT 'seen' FROM $_ LIMIT 1", $_ =~ /queue_status|certificates|requests/ ? qr/\A(?:seen)?\z/ : qr/\Aseen\z/, "look at $_")
  for grep { !/secrets/ } @views;
may('app', 'SELECT name FROM cm_secrets', qr/\A\z/, 'look for its secrets');
may_not('watcher', $_) for ('TABLE cm_secrets', 'TABLE cm_secrets_load');
may_not('watcher', $_) for ('TABLE cm_jobs', "SELECT cm_job_output($mine)",
	"SELECT cm_submit_job('busybox:demo', 'true')", "INSERT INTO cm_jobs (image) VALUES ('busybox:demo')");

# Not more: what the extension's objects allow a role is what the README grants
# it; what everybody has stands in a schema that nobody may use.
my ($grants) = join "\n", sql_of(section('Security'));
my $ours = "d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'container_manager')";
for my $role (qw(app watcher))
{
	my @allowed = column(qq{
		SELECT DISTINCT p.proname FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass
			AND d.objid = p.oid AND d.deptype = 'e' AND $ours
		WHERE has_function_privilege('$role', p.oid, 'EXECUTE') AND has_schema_privilege('$role', p.pronamespace, 'USAGE')
		UNION
		SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass
			AND d.objid = c.oid AND d.deptype = 'e'
		WHERE c.relkind IN ('r', 'v') AND has_any_column_privilege('$role', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
		OR c.relkind IN ('r', 'v') AND has_table_privilege('$role', c.oid, 'DELETE, TRUNCATE, TRIGGER')
		ORDER BY 1});
	my %granted;
	while ($grants =~ /^GRANT ([^;]*?) TO $role;/gms) { my $what = $1; $granted{$_} = 1 for $what =~ /\b(cm_\w+)/g; }
	is("@allowed", join(' ', sort keys %granted), "$role has the rights that are granted, and no others");
}
value("SELECT cm_cancel_job($others)");

# ------------------------------------------------------- names

sub extension_names
{
	return column(qq{
		SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass
			AND d.objid = c.oid AND d.deptype = 'e'
		WHERE c.relkind IN ('r', 'v') AND c.relname LIKE 'cm\\_%'
		UNION
		SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass
			AND d.objid = p.oid AND d.deptype = 'e'
		WHERE p.proname LIKE 'cm\\_%' ORDER BY 1});
}

my %public = map { $_ => 1 } extension_names();
my %channel = map { $_ => 1 } qw(cm_job_status cm_job_ cm_internal);
my %mentioned = map { $_ => 1 } $readme =~ /\b(cm_[a-z_]+)/g;
is(join(' ', grep { !$public{$_} && !$channel{$_} } sort keys %mentioned), '', 'every cm_ name exists');

my $reference = section('Reference');
is(join(' ', grep { $reference !~ /`(?:CALL )?$_(?:\(\))?`/ } sort keys %public), '',
	'every public object is in the reference');

for my $word (map { code_words($_->[1]) } table_rows($reference, 'what for | names'))
{
	my ($call, $name, $is_function) = $word =~ /\A(CALL )?(\w+)(\(\))?\z/;
	my $kind = value("SELECT coalesce((SELECT max(prokind) FROM pg_proc WHERE proname = '$name'), 'r')");
	is(($call ? 'p' : $is_function ? 'f' : 'r'), $kind, "reference: $name is written as what it is");
}

my %known = map { $_ => 1 } column(q{
	SELECT attname FROM pg_attribute a JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = a.attrelid
		AND d.deptype = 'e' WHERE a.attnum > 0
	UNION SELECT unnest(p.proargnames) FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass
		AND d.objid = p.oid AND d.deptype = 'e'
	UNION SELECT regexp_replace(name, '^container_manager\.', '') FROM pg_settings
	UNION SELECT proname FROM pg_proc
	UNION SELECT unnest(regexp_matches(pg_get_constraintdef(oid), '''(\w+)''', 'g')) FROM pg_constraint
		WHERE conname IN ('status_is_known', 'failure_reason_is_known', 'placement_strategy_is_known')});
# Neither a column nor a setting: who disabled a host, and a key of executor_config.
$known{$_} = 1 for qw(container_manager require_userns registry_auth);
my @words = map { /\A([a-z]+(?:_[a-z]+)+)(?: => .*| = .*)?\z/ ? $1 : () } code_words($readme =~ s/^```.*?^```$//gmsr);
is(join(' ', grep { !$known{$_} && !$public{$_} && !$channel{$_} } @words), '',
	'every column, parameter and setting exists');

# ------------------------------------------------------- states and settings

sub constraint_words
{
	my ($name) = @_;
	return map { s/[{}]//gr } column("SELECT (regexp_matches(pg_get_constraintdef(oid), '''(\\w+)''', 'g'))[1] FROM pg_constraint"
		  . " WHERE conname = '$name' AND conrelid = 'cm_jobs'::regclass ORDER BY 1");
}

my $how = section('How it works');
is(join(' ', sort map { code_words($_->[0]) } table_rows($how, 'status | meaning')),
	join(' ', sort(constraint_words('status_is_known'))), 'the states are those of cm_jobs');
my %reason = map { $_ => 1 } constraint_words('failure_reason_is_known');
is(join(' ', grep { !$reason{$_} } map { code_words($_->[0]) } table_rows($how, 'failure_reason | what happened')),
	'', 'the reasons exist');

my %default;
for my $row (table_rows(section('Settings'), 'name | default | change it when'))
{
	my @names = code_words($row->[0]);
	my @values = map { $_ eq 'none' ? '' : $_ } split /, /, $row->[1];
	is(scalar @values, scalar @names, "a default for each of @names");
	@default{@names} = @values;
}
my %real = map { /\Acontainer_manager\.(\w+)\|(.*)\z/ } column(
	"SELECT name, current_setting(name) FROM pg_settings WHERE name LIKE 'container_manager.%'");
is_deeply(\%default, \%real, 'the settings and their defaults are those of the server') || diag(explain(\%real));
is(join(' ', grep { !exists $real{$_} } $readme =~ /container_manager\.([a-z_]+)(?=\b)/g), '',
	'every container_manager. name is a setting');

done_testing();
