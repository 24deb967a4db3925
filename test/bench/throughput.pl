# Jobs per second from submit to the last end, on a fake engine, so that what is
# measured is the extension and not Docker, and what a job costs the executor.
# `make bench`; CM_BENCH_JOBS=n.
use strict;
use warnings;

use CM::Cluster;
use CM::FakeEngine;
use POSIX qw(sysconf _SC_CLK_TCK);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $n_jobs = $ENV{CM_BENCH_JOBS} // 5000;

# Processor time of a process so far, seconds.
sub cpu_time
{
	my ($pid) = @_;
	my @field = split / /, slurp_file("/proc/$pid/stat") =~ s/\A.*\) //sr;
	return ($field[11] + $field[12]) / sysconf(_SC_CLK_TCK);
}

sub counters
{
	my ($node) = @_;
	my $row = $node->safe_psql('postgres',
		'SELECT transactions, turns, http_requests FROM cm_internal.executor_status()');
	return (split(/\|/, $row), 1000 * cpu_time($node->executor_pid));
}

my $fake = CM::FakeEngine->start;
my $node = CM::Cluster->new_with_extension('bench');
$node->add_host('fake', $fake, 'max_concurrent_jobs => 100');

my @before = counters($node);
my $began = time;
$node->safe_psql('postgres',
	"SELECT count(cm_submit_job('busybox:bench', 'echo ' || n)) FROM generate_series(1, $n_jobs) n");
my $submitted = time;
my $done = $node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE status = 'completed'",
	$n_jobs, patience => 600);
my $ended = time;
my @after = counters($node);
ok($done, "$n_jobs jobs completed");

my $state = $fake->state;
is($state->{creates}, $n_jobs, 'each was created once');
is($state->{starts}, $n_jobs, 'and started once');
diag sprintf "submit: %.0f jobs/s; submit to end: %.0f jobs/s; %d at a time at most",
	$n_jobs / ($submitted - $began), $n_jobs / ($ended - $began), $state->{max_running};
diag sprintf 'executor per job: %.2f transactions, %.2f turns, %.2f requests, %.2f ms of processor time',
	map { ($after[$_] - $before[$_]) / $n_jobs } 0 .. 3;
$node->stop;

done_testing();
