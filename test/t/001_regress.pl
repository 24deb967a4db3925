# The SQL tests (pg_regress), on a server of their own with the library
# preloaded; their differences are shown here, for CI keeps no files.
use strict;
use warnings;

use CM::Cluster;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $node = CM::Cluster->new_preloaded('regress');
$node->start;

# One TAP test per script, from pg_regress's own lines.
my $output = '';
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;
IPC::Run::run(
	[ 'make', '--silent', 'installcheck', 'PG_CONFIG=' . ($ENV{PG_CONFIG} // 'pg_config') ],
	'>', \$output, '2>&1');
my $status = $?;

my $count = 0;
while ($output =~ /^(?:test|ok \d+\s+- )\s*(\S+)\s+(?:\.\.\. )?(\S+)/mg)
{
	my ($name, $result) = ($1, $2);
	ok($result ne 'FAILED', "regress: $name");
	$count++;
}
ok($count > 0, 'scripts were run');
is($status, 0, 'pg_regress ended well') or diag($output);
if ($status != 0 && -e 'regression.diffs')
{
	my @lines = split /\n/, slurp_file('regression.diffs');
	diag(join "\n", @lines > 300 ? (@lines[ 0 .. 299 ], '...') : @lines);
}
$node->stop;

done_testing();
