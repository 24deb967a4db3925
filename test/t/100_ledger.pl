# The ledger: jobs of all kinds, while everything is killed that can be, and then
# the books must balance.  See CM::Ledger; `make soak` is the same for hours.
use strict;
use warnings;

use CM::Engine;
use CM::Ledger;
use CM::Ledger::Plan qw(fault_kinds);
use Test::More;

CM::Engine->require_engine;

# Together they have each kind of fault.
my @seeds = (1, 2, 3, 4, 5);
my $ledger = CM::Ledger->new;
my %n_faults;
for my $seed (@seeds)
{
	my $result = $ledger->round($seed);
	is(join("\n", @{ $result->{violations} }), '', "seed $seed: the books balance") or diag($result->{report});
	note(CM::Ledger::line_of($result));
	$n_faults{$_} += $result->{faults}{$_} for keys %{ $result->{faults} };
}
note(join ', ', map { "$_ " . ($n_faults{$_} // 0) } fault_kinds());
done_testing();
