# What pacing does to a real engine: jobs per second at 4, 16 and 64 slots, with
# pacing and without (container_manager.max_starts_in_flight = -1), in turn.
# `make bench`, or test/check-all test/bench/pacing.pl; shows, and asserts no time.
# CM_BENCH_PACED_JOBS=n (per measurement), CM_BENCH_ROUNDS=n.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use Test::More;
use Time::HiRes qw(time);

CM::Engine->require_engine;

my $n_jobs = $ENV{CM_BENCH_PACED_JOBS} || 128;
my $n_rounds = $ENV{CM_BENCH_ROUNDS} || 3;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:bench');
my $node = CM::Cluster->new_with_extension('bench', 'fsync' => 'on', 'log_min_messages' => 'warning');
$node->add_host('local', $engine);

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub set_pacing
{
	my ($value) = @_;
	sql("ALTER SYSTEM SET container_manager.max_starts_in_flight = $value");
	sql('SELECT pg_reload_conf()');
	return;
}

sub measure
{
	my $begun = time;
	my $last = sql("SELECT max(cm_submit_job('busybox:bench', args => '{true}')) FROM generate_series(1, $n_jobs)");
	$node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0) or die "jobs are left over\n";
	my $took = time - $begun;
	my $completed = sql("SELECT count(*) FROM cm_jobs WHERE id > $last - $n_jobs AND status = 'completed'");
	is($completed, $n_jobs, 'all jobs completed');
	return $n_jobs / $took;
}

sub load { open(my $fh, '<', '/proc/loadavg') or return '?'; return (split ' ', readline $fh)[0]; }

measure();    # nothing is warm yet, and nothing learnt
for my $slots (4, 16, 64)
{
	sql("UPDATE cm_hosts SET max_concurrent_jobs = $slots");
	my %rates;
	for my $round (1 .. $n_rounds)
	{
		for my $pacing (0, -1)
		{
			set_pacing($pacing);
			push @{ $rates{$pacing} }, measure();
		}
		diag(sprintf '%d slots, round %d: %.2f jobs/s paced, %.2f without, ratio %.2f; load %s', $slots, $round,
			$rates{0}[-1], $rates{-1}[-1], $rates{0}[-1] / $rates{-1}[-1], load());
	}
}
$node->stop;
done_testing();
