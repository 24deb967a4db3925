# CM::Ledger::Plan: what a round of the ledger does and when, drawn from a seed
# alone: make_plan($seed) gives {seed, span, jobs => [...], events => [...]}.
#
# A job is {token, kind, sql, lines, codes, is_stubborn, ...}: the token stands in
# its name and in each line that it prints.  It tells what it does twice, once to
# the engine by its output and once to its witness (see CM::Engine): "begin", the
# number of each line when it is printed, and "exit CODE".
#
# An event is {at, do => 'submit', jobs, is_async}, {at, do => 'cancel', token} or
# {at, do => 'fault', kind, host, lasts}; at and lasts are seconds.
package CM::Ledger::Plan;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(make_plan fault_kinds);

# Names of hosts, see CM::Ledger: all are reached through a proxy.  "live" has live
# restore, and so has "small", whose disk can be filled.
my @hosts = qw(live plain small);

# Kinds of faults: how often next to others, hosts, and how long they last at most
# (0: they are over at once).
my %fault = (
	executor_kill => [3],
	executor_terminate => [2],
	launcher_kill => [2],
	postmaster_kill => [3, undef, 2],
	immediate_stop => [2, undef, 2],
	drop_create => [1],
	engine_kill => [4, [qw(live plain)], 2],
	engine_restart => [3, [qw(live plain)], 2],
	engine_hang => [2, [qw(live plain)], 5],
	proxy_cut => [3, \@hosts],
	proxy_flaky => [4, \@hosts, 5],
	proxy_stall => [2, \@hosts, 5],
	proxy_refuse => [2, \@hosts, 2],
	disk_full => [2, ['small'], 4]);

sub fault_kinds { my @kinds = sort keys %fault; return @kinds; }

# Kinds of jobs: how often next to others.
my %weight = (
	instant => 10,
	steady => 9,
	heavy => 5,
	failing => 8,
	timing_out => 3,
	deaf => 1,
	expiring => 2,
	retried => 7,
	persistent => 3);

sub one_of { my @choices = @_; return $choices[ int rand @choices ]; }
sub between { my ($from, $to) = @_; return $from + int rand($to - $from + 1); }

sub draw_weighted
{
	my (%chances) = @_;
	my $total = 0;
	$total += $chances{$_} for keys %chances;
	my $at = rand $total;
	for my $key (sort keys %chances)
	{
		return $key if ($at -= $chances{$key}) < 0;
	}
	return;
}

# What each kind is, as fields of the job.
my %make = (
	instant => sub { return (lines => 1); },
	steady => sub { return (lines => between(3, 12), pause => '0.25'); },
	heavy => sub { return (lines => between(500, 2500)); },
	failing => sub { return (lines => between(1, 4), pause => '0.2', code => one_of(1, 2, 3, 7, 42, 75, 100, 126, 127, 254)); },
	timing_out => sub { return (lines => 1000, pause => '0.2', timeout_seconds => between(1, 2)); },
	deaf => sub { return (lines => 1000, pause => '0.2', timeout_seconds => 1, is_deaf => 1); },
	expiring => sub { return (lines => 1, max_wait => one_of("'1 s'", "'2 s'"), priority => 0); },
	# Whether an attempt is worth another, its container's name tells: half of all are.
	retried => sub {
		return (lines => between(1, 30), pause => '0.05', code => one_of(0, 0, 3), at_end => 'case $HOSTNAME in *[0-7]) c=75;; esac;',
			max_attempts => between(2, 4), retry_on => "'75'", retry_delay => one_of("'100 ms'", "'1 s'"));
	},
	persistent => sub {
		return (lines => between(1, 8), pause => '0.1', code => one_of(1, 9), max_attempts => between(2, 3), retry_on => "'any'", retry_delay => "'200 ms'");
	});

# The shell text that a job runs.  Every fifth line goes to stderr.
sub command_of
{
	my ($job) = @_;
	my $pause = $job->{pause} ? "sleep $job->{pause}" : ':';
	my $trap = $job->{is_deaf} ? q{trap '' TERM} : q{trap 'echo exit 143 >&3; exit 143' TERM};
	return "exec 3>>/witness/log; echo begin >&3; $trap; i=0; while [ \$i -lt $job->{lines} ]; do i=\$((i+1));"
	  . " if [ \$((i % 5)) = 0 ]; then echo $job->{token} \$HOSTNAME \$i >&2; else echo $job->{token} \$HOSTNAME \$i; fi;"
	  . " echo \$i >&3; $pause; done; c=$job->{code}; $job->{at_end} echo exit \$c >&3; exit \$c";
}

sub submit_sql
{
	my ($job) = @_;
	my @arguments = ("'busybox:test'", '$command$' . command_of($job) . '$command$', "name => '$job->{token}'",
		'memory_limit => 32', 'cpu_limit => 0.5', 'networks => ' . (rand() < 0.1 ? q{'["bridge"]'} : q{'["none"]'}));
	push @arguments, "host => '$job->{host}'" if $job->{host};
	push @arguments, map { defined $job->{$_} ? "$_ => $job->{$_}" : () } qw(timeout_seconds max_wait priority max_attempts retry_on retry_delay);
	return 'SELECT cm_submit_job(' . join(', ', @arguments) . ');';
}

sub make_job
{
	my ($seed, $number) = @_;
	my $kind = draw_weighted(%weight);
	my %job = (
		token => "s$seed-$number",
		kind => $kind,
		code => 0,
		at_end => '',
		host => one_of(@hosts, @hosts, undef),
		# Some are tried again after what is nobody's fault.
		(rand() < 0.25 ? (max_attempts => 3, retry_delay => "'300 ms'") : ()),
		$make{$kind}->());
	$job{sql} = submit_sql(\%job);
	return \%job;
}

# Jobs come in bursts; some users do not wait for their commit to be on disk.
sub draw_jobs
{
	my ($plan) = @_;
	my $n = between(40, 56);
	while (@{ $plan->{jobs} } < $n)
	{
		my $at = rand $plan->{span};
		my @burst = map { make_job($plan->{seed}, @{ $plan->{jobs} } + $_) } 1 .. between(1, 10);
		push @{ $plan->{jobs} }, @burst;
		push @{ $plan->{events} }, { at => $at, do => 'submit', jobs => \@burst, is_async => rand() < 0.4 };
		for my $job (@burst)
		{
			push @{ $plan->{events} }, { at => $at + rand 5, do => 'cancel', token => $job->{token} } if rand() < 0.12;
		}
	}
	return;
}

# A crash right after a commit that is not on disk may lose it.
sub draw_hasty_burst
{
	my ($plan, $at) = @_;
	my @burst = map { make_job($plan->{seed}, @{ $plan->{jobs} } + $_) } 1 .. between(1, 3);
	push @{ $plan->{jobs} }, @burst;
	push @{ $plan->{events} }, { at => $at - 0.001, do => 'submit', jobs => \@burst, is_async => 1 };
	return;
}

sub draw_faults
{
	my ($plan) = @_;
	my %chances = map { $_ => $fault{$_}[0] } keys %fault;
	for (1 .. between(3, 7))
	{
		my $kind = draw_weighted(%chances);
		my (undef, $hosts, $longest) = @{ $fault{$kind} };
		my $at = 0.5 + rand $plan->{span};
		draw_hasty_burst($plan, $at) if $kind =~ /kill|stop/ && rand() < 0.5;
		push @{ $plan->{events} }, {
			at => $at,
			do => 'fault',
			kind => $kind,
			host => $hosts ? one_of(@$hosts) : undef,
			lasts => $longest ? rand $longest : 0,
			# For the fault to make of it what it likes.
			draw => rand };
	}
	return;
}

sub make_plan
{
	my ($seed) = @_;
	srand $seed;
	my %plan = (seed => $seed, span => 4 + rand 5, jobs => [], events => []);
	draw_jobs(\%plan);
	draw_faults(\%plan);
	return \%plan;
}

1;
