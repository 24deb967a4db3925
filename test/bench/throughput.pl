# Jobs per second from submit to the last end, on a fake engine, so that what is
# measured is the extension and not Docker.  `make bench`; CM_BENCH_JOBS=n.
use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use Test::More;
use Time::HiRes qw(time);

my $n_jobs = $ENV{CM_BENCH_JOBS} // 5000;

my $fake = CM::FakeEngine->start;
my $node = CM::Cluster->new_with_extension('bench');
$node->add_host('fake', $fake, 'max_concurrent_jobs => 100');

my $began = time;
$node->safe_psql('postgres',
	"SELECT count(cm_submit_job('busybox:bench', 'echo ' || n)) FROM generate_series(1, $n_jobs) n");
my $submitted = time;
my $done = $node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'completed'",
	$n_jobs, patience => 600);
my $ended = time;
ok($done, "$n_jobs jobs completed");

my $state = $fake->state;
is($state->{creates}, $n_jobs, 'each was created once');
is($state->{starts}, $n_jobs, 'and started once');
diag sprintf "submit: %.0f jobs/s; submit to end: %.0f jobs/s; %d at a time at most",
	$n_jobs / ($submitted - $began), $n_jobs / ($ended - $began), $state->{max_running};
$node->stop;

done_testing();
