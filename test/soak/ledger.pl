# Rounds of the ledger (see CM::Ledger) for as long as wanted: `make soak ROUNDS=200`.
# A line per round, and the sum at the end.  Each round has a seed of its own;
# `make soak ROUNDS=1 SEED=n` makes the same once more, as far as time lets it.
use strict;
use warnings;

use CM::Engine;
use CM::Ledger;
use List::Util qw(sum0);
use Test::More;

CM::Engine->require_engine;

my $n_rounds = $ENV{ROUNDS} || 20;
my $first = $ENV{SEED} || time % 1_000_000 * 1000;
my $begun = time;
my ($ledger, %faults, %tally, @results);
for my $seed ($first .. $first + $n_rounds - 1)
{
	# A new server and new engines after a violation, or what is left would spoil all that follows.
	undef $ledger if @results && @{ $results[-1]{violations} };
	$ledger //= CM::Ledger->new(seed => $seed, name => "ledger_$seed");
	my $result = $ledger->round($seed);
	push @results, $result;
	# Diagnostics are not held back by prove.
	diag(CM::Ledger::line_of($result));
	ok(!@{ $result->{violations} }, "seed $seed") or diag($result->{report});
	$faults{$_} += $result->{faults}{$_} for keys %{ $result->{faults} };
	$tally{$_} += $result->{tally}{$_} for keys %{ $result->{tally} };
}
diag(sprintf '%d rounds, %d jobs, %d starts, %d faults (%s), %d violations, %d s', $n_rounds,
	sum0(map { $_->{jobs} } @results), sum0(map { $_->{starts} } @results), sum0(values %faults),
	join(', ', map { "$_ $faults{$_}" } sort keys %faults), sum0(map { scalar @{ $_->{violations} } } @results), time - $begun);
diag("seen: $_ $tally{$_}") for sort keys %tally;
done_testing();
