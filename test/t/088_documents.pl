# What doc/ shows is run as it stands there: each block of SQL, in order, in one
# database with a real engine; a plain block behind one is what its last
# statement gives.
use strict;
use warnings;

use CM::Cluster;
use CM::Document;
use CM::Engine;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'documents');
$engine->import_busybox('busybox:demo');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = CM::Cluster->new_preloaded('main', 'container_manager.secret_key_file' => "$dir/secret.key", 'listen_addresses' => '*');

# As the documents have it: a key, and a server that is where the engine is.
open(my $key, '>', "$dir/secret.key") or die "could not write a key: $!\n";
print $key 'ab' x 32, "\n";
close $key or die "could not write a key: $!\n";
chmod 0600, "$dir/secret.key";
$node->append_conf('pg_hba.conf', 'host jobs reporter 10.209.0.0/16 scram-sha-256');
(my $here = $engine->address) =~ s/\.2\z/.1/;
$engine->as_root(qw(iptables -t nat -A PREROUTING -i docker0 -p tcp --dport), $node->port, qw(-j DNAT --to-destination), "$here:" . $node->port);
$engine->as_root(qw(iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE));
chomp(my $bindir = qx'"${PG_CONFIG:-pg_config}" --bindir');
$engine->import_with_program('psql:demo', "$bindir/psql");
$node->start;

# Columns are as wide as what is in them, and some of that is told by a clock.
sub tidy
{
	my ($text) = @_;
	return join "\n", grep { length } map { s/\s+/ /gr =~ s/\A | \z//gr =~ s/-[-+]*-/-/gr } split /\n/, $text;
}

# Gives the outputs of the statements; dies at nothing, but tells of errors.
sub run_sql
{
	my ($database, $sql, $what) = @_;
	my ($stdout, $stderr) = ('', '');
	my $status = $node->psql($database, "\\pset format aligned\n\\pset tuples_only off\n\\pset footer off\n$sql",
		stdout => \$stdout, stderr => \$stderr, on_error_stop => 1);
	ok($status == 0 && $stderr !~ /ERROR/, "$what: runs: " . (grep { !/\A(?:--|\s*\z)/ } split /\n/, $sql)[0])
	  || diag("$sql\n$stderr");
	return split /\n\n+/, $stdout;
}

sub run_document
{
	my ($name, $database) = @_;
	my $document = CM::Document->new("doc/$name");
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION container_manager');
	$node->safe_psql($database, "SELECT cm_add_host('local', '" . $engine->url . "')");
	$node->wait_for_sql("SELECT state FROM cm_host_status", 'healthy', database => $database) or die "no engine\n";
	for my $heading ($document->headings)
	{
		my @results;
		for my $block (CM::Document::blocks($document->section($heading)))
		{
			my ($language, $text) = @$block;
			@results = run_sql($database, $text, "$name, $heading") if $language eq 'sql';
			is(tidy($results[-1] // ''), tidy($text), "$name, $heading: output as shown")
			  || diag($node->safe_psql($database, 'SELECT id, status, error, cm_job_stderr(id) FROM cm_jobs ORDER BY id DESC LIMIT 1'))
			  if $language eq '' && @results;
			@results = () if $language ne 'sql';
		}
	}
	return $document;
}

sub known_names
{
	my ($database) = @_;
	return map { $_ => 1 } split /\n/, $node->safe_psql($database, q{
		SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass
			AND d.objid = c.oid AND d.deptype = 'e'
		UNION SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass
			AND d.objid = p.oid AND d.deptype = 'e'});
}

for my $name (qw(hosts jobs cookbook copies))
{
	my $document = run_document("$name.md", $name);
	my %known = known_names($name);
	is(join(' ', grep { !$known{$_} && !/\Acm_(?:job_|job_status|internal)\z/ } $document->text =~ /\b(cm_[a-z_]+)/g), '',
		"$name.md: every cm_ name exists");
	my %setting = map { $_ => 1 } split /\n/, $node->safe_psql($name, 'SELECT name FROM pg_settings');
	is(join(' ', grep { !$setting{$_} } $document->text =~ /\b(container_manager\.[a-z_]+)/g), '',
		"$name.md: every setting exists");
}
$node->stop;
done_testing();
