# The ledger: jobs of all kinds, while everything is killed that can be, and then
# the books must balance.  See CM::Ledger; `make soak` is the same for hours.
use strict;
use warnings;

use CM::Engine;
use CM::Ledger;
use CM::Ledger::Plan qw(make_plan fault_kinds);
use Test::More;

CM::Engine->require_engine;

my @seeds = (12, 21, 59);
my %planned = map { $_->{kind} => 1 } grep { $_->{do} eq 'fault' } map { @{ make_plan($_)->{events} } } @seeds;
is(join(' ', sort keys %planned), join(' ', fault_kinds()), 'the seeds have each kind of fault');

my $ledger = CM::Ledger->new;
for my $seed (@seeds)
{
	my $result = $ledger->round($seed);
	is(join("\n", @{ $result->{violations} }), '', "seed $seed: the books balance") or diag($result->{report});
	note(CM::Ledger::line_of($result));
}
done_testing();
