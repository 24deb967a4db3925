# CM::Ledger: rounds of jobs through which everything is killed, on a real server
# and real engines, and afterwards the books: see CM::Ledger::Books for what has to
# be true then, and CM::Ledger::Plan for what happens.
#
#   my $ledger = CM::Ledger->new;
#   my $result = $ledger->round($seed);
#   {seed, jobs, faults => {kind => n}, starts, violations => [...], seconds}
#
# A plan follows from its seed; what comes of it does not quite, for time passes as
# the machine likes.
package CM::Ledger;

use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::Ledger::Books;
use CM::Ledger::Listener;
use CM::Ledger::Plan qw(make_plan);
use CM::Proxy;
use File::Copy ();
use JSON::PP;
use PostgreSQL::Test::Utils ();
use Time::HiRes qw(time usleep);

# Seconds until all jobs must have ended after the last fault, and until their
# containers must be gone after that.  A stray may stay for a minute.
my $settle_patience = 240;
my $sweep_patience = 150;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

sub new
{
	my ($class, %option) = @_;
	my $self = bless { log_dir => $PostgreSQL::Test::Utils::log_path, generation => 0 }, $class;
	my %engine_option = (live => [ live_restore => 1 ], plain => [], small => [ live_restore => 1, data_mb => 96 ]);
	for my $host (sort keys %engine_option)
	{
		my $engine = CM::Engine->start(name => $host, witness => 1, @{ $engine_option{$host} });
		$engine->import_busybox('busybox:test');
		$self->{engines}{$host} = $engine;
		$self->{proxy_log}{$host} = "$self->{log_dir}/proxy-$host.log";
		$self->{proxies}{$host} = CM::Proxy->start($engine, seed => $option{seed} // 1, log => $self->{proxy_log}{$host});
	}
	$self->{node} = CM::Cluster->new_with_extension(
		$option{name} // 'ledger',
		# Commits that nobody waits for stay in memory until somebody else's comes.
		'wal_writer_delay' => '10s',
		'container_manager.heartbeat_interval' => '1s',
		'container_manager.poll_interval' => '1s',
		'container_manager.stop_grace' => '2s');
	$self->add_hosts;
	return $self;
}

sub add_hosts
{
	my ($self) = @_;
	for my $host (sort keys %{ $self->{proxies} })
	{
		$self->sql("SELECT cm_add_host('$host', '" . $self->{proxies}{$host}->url . "', max_concurrent_jobs => 6)");
	}
	$self->{epoch} = $self->sql('SELECT epoch FROM cm_internal.identity');
	return;
}

# ------------------------------------------------------- the database

# (true, output) or (false, error): the server may be away.
sub try_sql
{
	my ($self, $sql) = @_;
	my ($stdout, $stderr, $timed_out) = ('', '');
	my $status = eval {
		$self->{node}->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr, on_error_stop => 1,
			timeout => 60, timed_out => \$timed_out);
	};
	# psql may have ended before it read all that it is given.
	die $@ if $@ && $@ !~ /Broken pipe/;
	return (1, $stdout) if defined $status && $status == 0 && !$timed_out;
	return (0, $timed_out ? 'timed out' : $stderr);
}

# Where the server is known to be there: tries again while it recovers.
sub sql
{
	my ($self, $sql) = @_;
	my ($is_done, $output);
	my $got = $self->wait_until(sub { ($is_done, $output) = $self->try_sql($sql); return $is_done; }, 60);
	die "$sql: $output\n" unless $got;
	return $output;
}

# Rows as hashes.
sub rows
{
	my ($self, $sql) = @_;
	return map { $json->decode($_) } split /\n/, $self->sql("SELECT to_jsonb(x) FROM ($sql) x");
}

sub wait_until
{
	my ($self, $condition, $seconds) = @_;
	my $deadline = time + $seconds;
	for (;;)
	{
		return 1 if $condition->();
		return 0 if time > $deadline;
		$self->attend;
		usleep(50_000);
	}
	return;
}

# What goes on beside: the listener.
sub attend
{
	my ($self) = @_;
	my $listener = $self->{listener};
	return if $listener && $listener->is_listening;
	push @{ $self->{lives} }, $listener if $listener;
	$self->{listener} = $self->{is_down} ? undef : CM::Ledger::Listener->start($self->{node}, $self->{generation});
	return;
}

# Its life ends here, and it must have heard all until now.
sub end_listener
{
	my ($self) = @_;
	my $listener = delete $self->{listener} or return;
	$listener->finish;
	push @{ $self->{lives} }, $listener;
	return;
}

# ------------------------------------------------------- faults

sub note_fault
{
	my ($self, $kind, $host, $from) = @_;
	my %fault = (kind => $kind, host => $host, from => $from // time, to => undef);
	push @{ $self->{faults} }, \%fault;
	return \%fault;
}

# Each gives false if it cannot be done now, and what undoes it otherwise (or 1).
my %fault = (
	executor_kill => sub { return kill_worker($_[0], 'container_manager executor'); },
	launcher_kill => sub { return kill_worker($_[0], 'container_manager launcher'); },
	executor_terminate => sub {
		my ($self) = @_;
		my ($is_done, $n) = $self->try_sql(
			"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'container_manager executor'");
		return $is_done && $n;
	},
	postmaster_kill => sub { return end_server($_[0], sub { $_[0]{node}->kill9 }); },
	immediate_stop => sub { return end_server($_[0], sub { $_[0]{node}->stop('immediate', fail_ok => 1) }); },
	engine_kill => sub {
		my ($self, $event) = @_;
		return end_engine($self, $event, sub { $_[0]->kill9 });
	},
	engine_restart => sub {
		my ($self, $event) = @_;
		return end_engine($self, $event, sub { $_[0]->stop });
	},
	engine_hang => sub {
		my ($self, $event) = @_;
		return hold_engine($self, $event, sub { $_[0]->pause }, sub { $_[0]->resume });
	},
	disk_full => sub {
		my ($self, $event) = @_;
		return hold_engine($self, $event, sub { fill_disk($_[0]) }, sub { $_[0]->as_root('rm', '-f', $_[0]->dir . '/data/filler') });
	},
	proxy_cut => sub { $_[0]->proxy($_[1]{host}, 'cut'); return 1; },
	proxy_flaky => sub { return disturb($_[0], $_[1], sprintf 'flaky %.2f', 0.1 + 0.7 * $_[1]{draw}); },
	proxy_stall => sub { return disturb($_[0], $_[1], 'stall'); },
	proxy_refuse => sub { return disturb($_[0], $_[1], sprintf 'refuse %.2f', 0.2 + 0.8 * $_[1]{draw}); },
	drop_create => sub { return drop_create($_[0], $_[1]); });

sub proxy { my ($self, $host, $command) = @_; $self->{proxies}{$host}->tell($command); return; }

sub kill_worker
{
	my ($self, $type) = @_;
	my ($is_done, $pid) = $self->try_sql("SELECT pid FROM pg_stat_activity WHERE backend_type = '$type'");
	return $is_done && $pid && kill 'KILL', $pid;
}

sub end_server
{
	my ($self, $end) = @_;
	return if $self->{is_down};
	# As it starts up there is nothing new to see, and a stop might not find it.
	return unless ($self->try_sql('SELECT 1'))[0];
	$self->{is_down} = 1;
	$end->($self);
	return sub {
		# Children of a killed postmaster need a moment to see it.
		my $deadline = time + 60;
		until ($self->{node}->start(fail_ok => 1))
		{
			die "the server does not start\n" if time > $deadline;
			usleep(50_000);
		}
		$self->{is_down} = 0;
	};
}

# At most one fault at a time of those that an engine itself has.
sub hold_engine
{
	my ($self, $event, $begin, $end) = @_;
	my $host = $event->{host};
	return if $self->{is_held}{$host};
	$self->{is_held}{$host} = 1;
	$begin->($self->{engines}{$host});
	return sub {
		$end->($self->{engines}{$host});
		delete $self->{is_held}{$host};
	};
}

# In half of the cases connections are refused meanwhile, as without a proxy, in the
# others they end as soon as they begin.
sub end_engine
{
	my ($self, $event, $end) = @_;
	my $is_refused = $event->{draw} < 0.5 && !$self->{is_disturbed}{ $event->{host} };
	return hold_engine($self, $event, sub {
			$end->(@_);
			$self->proxy($event->{host}, 'down') if $is_refused;
		}, sub {
			my ($engine) = @_;
			$engine->start_again;
			$self->proxy($event->{host}, 'up') if $is_refused;
		});
}

sub fill_disk
{
	my ($engine) = @_;
	eval { $engine->as_root('dd', 'if=/dev/zero', 'of=' . $engine->dir . '/data/filler', 'bs=64k'); 1 }
	  or $@ =~ /No space left/ or die $@;
	return;
}

sub disturb
{
	my ($self, $event, $command) = @_;
	my $host = $event->{host};
	return if $self->{is_disturbed}{$host};
	$self->{is_disturbed}{$host} = 1;
	$self->proxy($host, $command);
	return sub { $self->proxy($host, 'pass'); delete $self->{is_disturbed}{$host}; };
}

# The executor removes what it had started from memory: that it cannot do where it is
# killed meanwhile or a host does not answer.  So nothing else is out of order then.
sub drop_create
{
	my ($self, $event) = @_;
	return if $self->{is_down} || %{ $self->{is_held} } || %{ $self->{is_disturbed} };
	my $is_ready = sub {
		my ($is_done, $n) = $self->try_sql("SELECT healthy_hosts FROM cm_status WHERE state = 'running'");
		return $is_done && $n eq '3';
	};
	return unless $self->wait_until($is_ready, 30);
	$self->end_listener;
	my $epoch = $self->{epoch};
	my @words = ('DROP EXTENSION container_manager;', 'CREATE EXTENSION container_manager;');
	$self->sql($event->{draw} < 0.5 ? "BEGIN; @words COMMIT;" : "@words");
	$self->{generation}++;
	$self->add_hosts;
	my $is_clean = $self->wait_until(sub {
			return !grep { $_->containers(label => "container-manager.epoch=$epoch") } values %{ $self->{engines} };
		}, 60);
	$self->{books}->violation(undef, 'DROP EXTENSION has left containers') unless $is_clean;
	return 1;
}

# ------------------------------------------------------- events

sub do_submit
{
	my ($self, $event) = @_;
	my @jobs = @{ $event->{jobs} };
	my $words = join "\n", 'BEGIN;', ($event->{is_async} ? 'SET LOCAL synchronous_commit = off;' : ()), (map { $_->{sql} } @jobs), 'COMMIT;';
	my ($is_done, $output) = $self->try_sql($words);
	# Who finds no server comes again.
	if (!$is_done && $output =~ /connection to server .* failed/)
	{
		$self->schedule({ %$event, at => time - $self->{begun} + 0.3 });
		return;
	}
	for my $job (@jobs)
	{
		@$job{qw(is_acknowledged is_async submitted_at generation error)} =
		  ($is_done, $event->{is_async}, time, $self->{generation}, $is_done ? undef : $output);
	}
	return;
}

sub do_cancel
{
	my ($self, $event) = @_;
	$self->{is_cancelled}{ $event->{token} } = time;
	$self->try_sql("SELECT cm_cancel_job(id) FROM cm_jobs WHERE name = '$event->{token}'");
	return;
}

sub do_fault
{
	my ($self, $event) = @_;
	my $from = time;
	my $undo = $fault{ $event->{kind} }->($self, $event) or return;
	my $noted = $self->note_fault($event->{kind}, $event->{host}, $from);
	if (ref $undo)
	{
		$self->schedule({ at => time - $self->{begun} + $event->{lasts}, do => 'undo', undo => $undo, fault => $noted });
	}
	else
	{
		$noted->{to} = time;
	}
	return;
}

sub do_undo
{
	my ($self, $event) = @_;
	$event->{undo}->();
	$event->{fault}{to} = time;
	return;
}

my %do = (submit => \&do_submit, cancel => \&do_cancel, fault => \&do_fault, undo => \&do_undo);

sub schedule
{
	my ($self, @events) = @_;
	$self->{timeline} = [ sort { $a->{at} <=> $b->{at} } @{ $self->{timeline} }, @events ];
	return;
}

sub play
{
	my ($self, $plan) = @_;
	@$self{qw(timeline faults lives is_cancelled is_held is_disturbed)} = ([], [], [], {}, {}, {});
	$self->{begun} = $self->{round_begun} = time;
	$self->schedule(@{ $plan->{events} });
	while (my $event = shift @{ $self->{timeline} })
	{
		while (time - $self->{begun} < $event->{at})
		{
			$self->attend;
			usleep(20_000);
		}
		# On a slow machine all that is to come comes later, too.
		$self->{begun} = time - $event->{at};
		$do{ $event->{do} }->($self, $event);
	}
	return;
}

# ------------------------------------------------------- a round

sub left_containers
{
	my ($self) = @_;
	my @left;
	for my $host (sort keys %{ $self->{engines} })
	{
		push @left, map { "$host $_->{Names}[0] $_->{Status}" } $self->{engines}{$host}->containers;
	}
	return @left;
}

sub settle
{
	my ($self) = @_;
	my $unfinished = 'SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL';
	my $is_settled = $self->wait_until(sub { my ($is_done, $n) = $self->try_sql($unfinished); return $is_done && $n eq '0'; },
		$settle_patience);
	$self->{books}->violation(undef, 'jobs have not ended') unless $is_settled;
	my $is_swept = $self->wait_until(sub { return !$self->left_containers }, $is_settled ? $sweep_patience : 0);
	$self->{books}->violation(undef, "container left: $_") for $is_swept ? () : $self->left_containers;
	$self->attend;
	$self->end_listener;
	return;
}

# Finished rows go, and all that hangs on them must go along.
sub clear
{
	my ($self) = @_;
	$self->sql('DELETE FROM cm_jobs WHERE completed_at IS NOT NULL');
	for my $table (qw(cm_jobs cm_job_attempts cm_internal.queue cm_internal.requests cm_internal.log_chunks))
	{
		my $n = $self->sql("SELECT count(*) FROM $table");
		$self->{books}->violation(undef, "$n rows are left in $table") if $n ne '0';
	}
	return;
}

sub round
{
	my ($self, $seed) = @_;
	my $begun = time;
	my $plan = make_plan($seed);
	my $books = $self->{books} = CM::Ledger::Books->open($self, $plan);
	$self->play($plan);
	my $played = time;
	$self->settle;
	$books->check;
	$self->clear unless $books->violations;
	my %n_faults;
	$n_faults{ $_->{kind} }++ for @{ $self->{faults} };
	return {
		seed => $seed,
		jobs => scalar(grep { $_->{is_there} } @{ $plan->{jobs} }),
		faults => \%n_faults,
		starts => $books->n_starts,
		tally => $books->tally,
		violations => [ $books->violations ],
		report => scalar $books->report,
		settled => time - $played,
		seconds => time - $begun
	};
}

sub line_of
{
	my ($result) = @_;
	my $counts = sub { my ($n) = @_; return join(', ', map { "$_ $n->{$_}" } sort keys %$n) || 'none'; };
	return sprintf 'seed %d: %d jobs; faults: %s; %d starts; %d violations; %.1f s (%.1f after the last fault); %s', $result->{seed},
	  $result->{jobs}, $counts->($result->{faults}), $result->{starts}, scalar @{ $result->{violations} }, @$result{qw(seconds settled)},
	  $counts->($result->{tally});
}

1;
