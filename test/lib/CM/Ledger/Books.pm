# CM::Ledger::Books: what has to be true after a round of CM::Ledger.
#
# What the database says is compared with what nobody of ours has written: the
# starts that the container runtime counted, and what each container told its
# witness (see CM::Engine): that it began, how many lines it had printed, and its
# exit code.  Names of containers tell job and attempt.
#
# What an engine itself loses when it is killed or stopped, or its disk is full, is
# not held against the books where such a fault met the attempt; the facts are those
# of the probes in Docker Engine 20.10, and each stands where it is allowed for.
package CM::Ledger::Books;

use strict;
use warnings;

use JSON::PP;
use Time::HiRes qw(time);

my $json = JSON::PP->new->utf8->canonical->pretty->allow_nonref;

# A fault counts for an attempt that lived at the time, or near it: what follows from
# an engine's end is seen a while after it.
my $margin = 3;

sub open    ## no critic (builtin name)
{
	my ($class, $ledger, $plan) = @_;
	my $self = bless { ledger => $ledger, plan => $plan, violations => [], about => {}, tally => {} }, $class;
	$self->{log_at} = -s $ledger->{node}->logfile;
	$self->{n_starts_before}{$_} = scalar $ledger->{engines}{$_}->starts for keys %{ $ledger->{engines} };
	return $self;
}

# The job is what to print of when it comes to the report.
sub violation
{
	my ($self, $job, $text) = @_;
	push @{ $self->{violations} }, ($job && $job->{token} ? "$job->{token} ($job->{kind}): " : '') . $text;
	$self->{about}{ $job->{token} } = $job if $job && $job->{token};
	return;
}

sub violations { return @{ $_[0]{violations} }; }
sub n_starts { return scalar @{ $_[0]{starts} // [] }; }

# How often something happened that is worth knowing, by words.
sub tally { return $_[0]{tally}; }
sub count { my ($self, $what) = @_; $self->{tally}{$what}++; return; }

# Did one of these faults meet this host, or all, between two times?
sub met
{
	my ($self, $kinds, $host, $from, $to) = @_;
	return scalar grep {
		$_->{kind} =~ /^(?:$kinds)$/
		  && (!defined $_->{host} || !defined $host || $_->{host} eq $host)
		  && $_->{from} < $to + $margin
		  && ($_->{to} // time) > $from - $margin
	} @{ $self->{ledger}{faults} };
}

# The same for the life of an attempt.
sub attempt_met
{
	my ($self, $attempt, $kinds) = @_;
	return $self->met($kinds, $attempt->{host}, $attempt->{begun_s} // $attempt->{claimed_s} // $attempt->{completed_s}, $attempt->{completed_s});
}

# ------------------------------------------------------- reading

sub load
{
	my ($self) = @_;
	my $ledger = $self->{ledger};
	my $mine = "name LIKE 's$self->{plan}{seed}-%'";
	my %job_of = map { $_->{token} => $_ } @{ $self->{plan}{jobs} };
	for my $row ($ledger->rows("SELECT *, extract(epoch from created_at) AS created_s, extract(epoch from completed_at) AS completed_s FROM cm_jobs WHERE $mine"))
	{
		my $job = $job_of{ $row->{name} };
		$self->violation($job, 'two rows for one submit') if $job->{row};
		@$job{qw(row is_there)} = ($row, 1);
		$self->{job_by_id}{ $row->{id} } = $job;
		push @{ $self->{rows} }, $job;
	}
	for my $attempt ($ledger->rows('SELECT a.*, NULL AS inspect, extract(epoch from claimed_at) AS claimed_s, extract(epoch from a.completed_at) AS completed_s,'
			  . " encode(cm_job_output_bytes(job_id, 'stdout', attempt), 'escape') AS stdout,"
			  . " encode(cm_job_output_bytes(job_id, 'stderr', attempt), 'escape') AS stderr FROM cm_job_attempts a ORDER BY job_id, attempt"))
	{
		my $job = $self->{job_by_id}{ $attempt->{job_id} };
		$self->violation(undef, "attempt of no job: $attempt->{job_id}"), next unless $job;
		push @{ $job->{attempts} }, $attempt;
	}
	$self->{events} = [ $ledger->rows('SELECT *, extract(epoch from at) AS at_s FROM cm_job_events ORDER BY seq') ];
	push @{ $self->{events_of}{ $_->{job_id} } }, $_ for @{ $self->{events} };
	for my $attempt (map { @{ $_->{attempts} // [] } } @{ $self->{rows} })
	{
		my ($launch) = grep { $_->{status} eq 'launching' && $_->{attempt} == $attempt->{attempt} } @{ $self->{events_of}{ $attempt->{job_id} } };
		$attempt->{begun_s} = $launch->{at_s} if $launch;
	}
	$self->load_starts;
	return;
}

sub load_starts
{
	my ($self) = @_;
	my $engines = $self->{ledger}{engines};
	for my $host (sort keys %$engines)
	{
		my @starts = $engines->{$host}->start_records;
		splice @starts, 0, $self->{n_starts_before}{$host};
		for my $start (@starts)
		{
			$start->{host} = $host;
			$start->{witness} = read_witness($engines->{$host}->witness($start->{id}));
			push @{ $self->{starts} }, $start;
			push @{ $self->{starts_by_name}{ $start->{name} } }, $start;
		}
	}
	return;
}

# {begun => times, lines => n, exit => code or undef}
sub read_witness
{
	my ($lines) = @_;
	my %told = (begun => 0, lines => 0);
	for my $line (@{ $lines // [] })
	{
		if ($line eq 'begin') { $told{begun}++; }
		elsif ($line =~ /^exit (\d+)$/) { $told{exit} //= $1; }
		elsif ($line =~ /^\d+$/) { $told{lines} = $line; }
	}
	return \%told;
}

# ------------------------------------------------------- the books

sub check
{
	my ($self) = @_;
	$self->load;
	$self->check_starts;
	$self->check_submit($_) for @{ $self->{plan}{jobs} };
	$self->check_job($_) for @{ $self->{rows} };
	$self->check_events($_) for @{ $self->{rows} };
	$self->check_listener($_) for @{ $self->{ledger}{lives} };
	$self->check_log;
	return;
}

# No container twice, no name twice: a name is a job and an attempt.
sub check_starts
{
	my ($self) = @_;
	my $epoch = substr $self->{ledger}{epoch}, 0, 8;
	for my $name (sort keys %{ $self->{starts_by_name} })
	{
		my @starts = @{ $self->{starts_by_name}{$name} };
		my ($id, $attempt, $its_epoch) = $name =~ /^cm-default-(\d+)-(\d+)-([0-9a-f]{8})$/;
		$self->violation(undef, "start of a container that is not ours: \"$name\""), next unless defined $id;
		my $job = $its_epoch eq $epoch ? $self->{job_by_id}{$id} : undef;
		$self->violation($job, scalar(@starts) . " starts of $name") if @starts > 1;
		$self->violation($job, "$name has run $_->{witness}{begun} times") for grep { $_->{witness}{begun} > 1 } @starts;
		next if $its_epoch ne $epoch;
		$self->violation(undef, "$name was started, and there is no such job"), next unless $job;
		my ($row) = grep { $_->{attempt} == $attempt } @{ $job->{attempts} };
		$self->violation($job, "$name was started, and there is no such attempt"), next unless $row;
		$self->violation($job, "$name: container $starts[0]{id} was started, and is not recorded")
		  if ($row->{container_id} // '') ne $starts[0]{id};
	}
	return;
}

# What was acknowledged is there, unless the user asked for less and the server
# crashed, or the extension was dropped.
sub check_submit
{
	my ($self, $job) = @_;
	return if $job->{is_there};
	return $self->count('submits before DROP EXTENSION') if $job->{generation} != $self->{ledger}{generation};
	if (!$job->{is_acknowledged})
	{
		return $self->count('submits refused by a server that was away')
		  if $self->met('executor_kill|launcher_kill|postmaster_kill|immediate_stop', undef, $job->{submitted_at} - 10, $job->{submitted_at});
		return $self->violation($job, "could not be submitted: $job->{error}");
	}
	return $self->count('asynchronous commits lost')
	  if $job->{is_async}
	  && $self->met('executor_kill|launcher_kill|postmaster_kill|immediate_stop', undef, $job->{submitted_at}, $job->{submitted_at} + 5);
	return $self->violation($job, 'was submitted, and is lost');
}

sub check_job
{
	my ($self, $job) = @_;
	my $row = $job->{row};
	my @attempts = @{ $job->{attempts} // [] };
	return $self->violation($job, "has not ended: $row->{status}, " . ($row->{detail} // '')) unless defined $row->{completed_at};
	$self->count($row->{status} . ($row->{failure_reason} ? " $row->{failure_reason}" : ''));
	$self->violation($job, "attempt $row->{attempt} of $row->{max_attempts}") if $row->{attempt} > $row->{max_attempts};
	my $numbers = join ' ', map { $_->{attempt} } @attempts;
	$self->violation($job, "rows of attempts: $numbers, for attempt $row->{attempt}") if $numbers ne join ' ', 1 .. $row->{attempt};
	# Between two attempts it may be cancelled or expire; then it ends as none of them.
	my @events = @{ $self->{events_of}{ $row->{id} } // [] };
	my $ended_between = @attempts && @events > 1 && $events[-2]{status} eq 'pending';
	$self->count('ended between attempts') if $ended_between;
	$self->count('further attempts') for 2 .. @attempts;
	$self->check_retries($job, $ended_between);
	for my $column (@attempts && !$ended_between ? qw(status failure_reason exit_code container_id logs_incomplete oom_killed host) : ())
	{
		my ($of_job, $of_attempt) = map { $_->{$column} // 'null' } $row, $attempts[-1];
		$self->violation($job, "$column is $of_job, and $of_attempt for its last attempt") if $of_job ne $of_attempt;
	}
	$self->check_end($job);
	$self->check_attempt($job, $_) for @attempts;
	return;
}

# An attempt is followed by another if its end is listed, unless it was the last.
sub check_retries
{
	my ($self, $job, $ended_between) = @_;
	my @attempts = @{ $job->{attempts} // [] };
	for my $i (0 .. $#attempts)
	{
		my ($attempt, $is_last) = ($attempts[$i], $i == $#attempts);
		my $reason = $attempt->{failure_reason} // '';
		my $on = $job->{retry_on} // "'infrastructure, image_pull'";
		my $is_listed = $attempt->{status} ne 'completed' && $reason !~ /^(?:cancelled|expired)$/
		  && ($on =~ /any|\b\Q$reason\E\b/ || ($reason eq 'exit_code' && $on =~ /\b$attempt->{exit_code}\b/));
		my $says = "attempt $attempt->{attempt} of $job->{row}{max_attempts} ended $reason " . ($attempt->{exit_code} // '');
		$self->violation($job, "$says, and was tried again") if !$is_last && !$is_listed;
		$self->violation($job, "$says, and was not tried again")
		  if $is_last && $is_listed && !$ended_between && $attempt->{attempt} < $job->{row}{max_attempts} && !$self->{ledger}{is_cancelled}{ $job->{token} };
	}
	return;
}

# What the job says of itself may be true.
sub check_end
{
	my ($self, $job) = @_;
	my $row = $job->{row};
	my ($status, $reason) = ($row->{status}, $row->{failure_reason} // '');
	$self->violation($job, "is timeout, and had time") if $status eq 'timeout' && !defined $job->{timeout_seconds};
	$self->violation($job, "is cancelled, and nobody asked for it")
	  if $status eq 'cancelled' && !$self->{ledger}{is_cancelled}{ $job->{token} };
	$self->violation($job, "is expired, and could wait") if $reason eq 'expired' && !defined $job->{max_wait};
	$self->violation($job, "has an exit code, and never ran") if !@{ $job->{attempts} // [] } && defined $row->{exit_code};
	$self->violation($job, "$status without an attempt") if !@{ $job->{attempts} // [] } && "$status $reason" !~ /^(?:cancelled|failed expired)/;
	return;
}

sub starts_of
{
	my ($self, $attempt) = @_;
	my $name = "cm-default-$attempt->{job_id}-$attempt->{attempt}-" . substr $self->{ledger}{epoch}, 0, 8;
	return @{ $self->{starts_by_name}{$name} // [] };
}

sub check_attempt
{
	my ($self, $job, $attempt) = @_;
	my ($start) = $self->starts_of($attempt);
	my $says = join ' ', grep { defined } "attempt $attempt->{attempt}:", @$attempt{qw(status failure_reason exit_code)};
	my $is_begun = $start && $start->{witness}{begun};
	my $reason = $attempt->{failure_reason} // $attempt->{status};
	$self->violation($job, "$says, and was started") if $start && $reason =~ /^(?:expired|image_pull|image_policy|create|policy)$/;
	if (!$is_begun)
	{
		$self->violation($job, "$says, and its program never began")
		  if defined $attempt->{exit_code} && !$self->may_have_died_unseen($attempt, $start);
		$self->violation($job, "$says, and printed without having begun") if length "$attempt->{stdout}$attempt->{stderr}";
		$self->violation($job, "$says, and never ran")
		  if $reason =~ /^(?:completed|timeout|exit_code|oom)$/ && !$self->was_stopped_by_its_engine($attempt, $start);
	}
	$self->violation($job, "$says, and was claimed only after it was launched")
	  if ($attempt->{claimed_s} // 0) > ($attempt->{begun_s} // $attempt->{claimed_s} // 0) + 0.5;
	$self->check_reason($job, $attempt, $says);
	return unless $is_begun;
	$self->check_exit($job, $attempt, $start, $says);
	$self->check_output($job, $attempt, $start, $says);
	return;
}

# A process that is killed before its first words, by a cancel or its engine's end,
# has run for all that.
sub may_have_died_unseen
{
	my ($self, $attempt, $start) = @_;
	return 1 if $self->was_stopped_by_its_engine($attempt, $start);
	return $start && ($attempt->{failure_reason} // '') =~ /^(?:cancelled|timeout|infrastructure|killed)$/;
}

# runc itself is the container's first process until it executes the program.  If its
# engine stops then, runc gets the SIGTERM, and as what is written in Go and cannot die
# of a signal (no first process can) it exits with 2: all that the engine knows.
sub was_stopped_by_its_engine
{
	my ($self, $attempt, $start) = @_;
	return $start && ($attempt->{exit_code} // 0) == 2 && $self->attempt_met($attempt, 'engine_restart');
}

# A reason that speaks of somebody else's fault needs one.
sub check_reason
{
	my ($self, $job, $attempt, $says) = @_;
	my %cause = (
		infrastructure => 'engine_kill|engine_restart',
		killed => 'engine_restart',
		start => 'engine_kill|engine_restart|proxy_refuse|disk_full',
		create => 'engine_kill|engine_restart|proxy_refuse|disk_full');
	my $reason = $attempt->{failure_reason} // '';
	return if $attempt->{status} ne 'failed' || $reason =~ /^(?:exit_code|expired)$/;
	return $self->violation($job, "$says, which no fault can bring about") unless $cause{$reason};
	$self->violation($job, "$says, and no such fault was there: " . ($attempt->{error} // '')) unless $self->attempt_met($attempt, $cause{$reason});
	return;
}

# The exit code is what the program ended with.  An engine that is killed, or whose
# time to stop is over before it has seen all its containers end, does not know the
# code when it starts again; it says 255 then.
sub check_exit
{
	my ($self, $job, $attempt, $start, $says) = @_;
	my ($told, $code) = ($start->{witness}{exit}, $attempt->{exit_code});
	my $reason = $attempt->{failure_reason} // '';
	if (!defined $code)
	{
		$self->violation($job, "$says, has no exit code") if $reason ne 'infrastructure' && $reason ne 'killed';
		return;
	}
	return if $code == 255 && $self->attempt_met($attempt, 'engine_kill|engine_restart');
	if (defined $told)
	{
		# Between its last word and its end it may still be killed.
		my $is_right = $code == $told || ($code == 137 && $reason =~ /^(?:cancelled|timeout|infrastructure|killed)$/);
		$self->violation($job, "$says, and it exited with $told") unless $is_right;
	}
	else
	{
		$self->violation($job, "$says, and it was killed") if $code != 137 && !($code == 143 && $start->{witness}{lines} == 0);
	}
	my $is_ok = $reason eq 'exit_code' ? $code != 0 : $attempt->{status} ne 'completed' || $code == 0;
	$self->violation($job, "$says: these do not fit") unless $is_ok;
	$self->violation($job, "$says, and was killed") if $reason eq 'exit_code' && !defined $told;
	return;
}

# ------------------------------------------------------- output

# Numbers of the lines of both streams; says what is wrong with them.
sub read_output
{
	my ($job, $attempt, $start) = @_;
	my $host = substr $start->{id}, 0, 12;
	my (@numbers, @faults);
	for my $stream (qw(stdout stderr))
	{
		my $last = 0;
		for my $line (split /^/, $attempt->{$stream} // '')
		{
			my ($n) = $line =~ /\A\Q$job->{token} $host \E(\d+)\n\z/;
			push(@faults, "$stream has a line \"$line\""), next unless defined $n;
			push @faults, "$stream has line $n behind $last" if $n <= $last;
			push @faults, "$stream has line $n" if ($n % 5 == 0) != ($stream eq 'stderr');
			$last = $n;
			push @numbers, $n;
		}
	}
	return (\@numbers, \@faults);
}

sub check_output
{
	my ($self, $job, $attempt, $start, $says) = @_;
	my ($numbers, $faults) = read_output($job, $attempt, $start);
	$self->violation($job, "$says: " . join '; ', splice @$faults, 0, 3) if @$faults;
	my $n = $start->{witness}{lines};
	my %has = map { $_ => 1 } @$numbers;
	# A line may be printed and not yet noted when the end comes.
	my $is_ended = defined $start->{witness}{exit} && $start->{witness}{lines} >= $job->{lines};
	$self->violation($job, "$says: line $_ was never printed") for grep { $_ > $n + ($is_ended ? 0 : 1) } @$numbers;
	my @missing = grep { !$has{$_} } 1 .. $n;
	my $is_flagged = $attempt->{logs_incomplete} ? 1 : 0;
	# What is written while an engine is away or being killed is lost, and with a full
	# disk all of it, without a word.
	my $has_cause = $self->attempt_met($attempt, 'engine_kill|engine_restart|disk_full');
	$self->count('logs_incomplete') if $is_flagged;
	$self->count('output short, flagged') if @missing && $is_flagged;
	if (@missing && !$is_flagged)
	{
		return $self->count('output short, disk full') if $self->attempt_met($attempt, 'disk_full');
		$self->violation($job, sprintf '%s: %d of %d lines are missing from %d on, and it says nothing of it', $says, scalar @missing, $n, $missing[0]);
	}
	$self->violation($job, sprintf '%s: %d of %d lines are missing from %d on, and no engine lost them', $says, scalar @missing, $n, $missing[0])
	  if @missing && $is_flagged && !$has_cause;
	$self->violation($job, "$says: logs_incomplete without a cause") if !@missing && $is_flagged && !$has_cause;
	return;
}

# ------------------------------------------------------- events

my %follows = (
	'' => qr/^(?:pending|launching|cancelled|failed)$/,
	pending => qr/^(?:launching|cancelled|failed)$/,
	launching => qr/^(?:running|failed|cancelled|pending)$/,
	running => qr/^(?:completed|failed|timeout|cancelled|pending)$/);

sub check_events
{
	my ($self, $job) = @_;
	my $row = $job->{row};
	my ($before, $attempt) = ('', 0);
	for my $event (@{ $self->{events_of}{ $row->{id} } // [] })
	{
		my $may_follow = $follows{$before} // qr/(?!)/;
		$self->violation($job, "event $event->{status} after " . ($before || 'nothing')) unless $event->{status} =~ $may_follow;
		$self->violation($job, "event of attempt $event->{attempt} after $attempt") if $event->{attempt} < $attempt;
		($before, $attempt) = @$event{qw(status attempt)};
	}
	$self->violation($job, "is $row->{status}, and the last event says " . ($before || 'nothing')) if $before ne $row->{status};
	$self->violation($job, "is at attempt $row->{attempt}, and the last event at $attempt") if $attempt != $row->{attempt};
	return;
}

# What a listener heard is what is recorded, in order and without gaps for its life.
sub check_listener
{
	my ($self, $listener) = @_;
	my $heard = $listener->heard;
	# Its events went with the extension.
	return if $listener->{generation} != $self->{ledger}{generation} || !defined $heard->{since};
	my @seqs = grep { $_ > $heard->{since} } @{ $heard->{seqs} };
	my @recorded = grep { $_->{seq} > $heard->{since} } @{ $self->{events} };
	my $n = @seqs;
	$self->count('listeners');
	if ($listener->{is_finished} && !$heard->{is_whole})
	{
		$self->violation(undef, "a listener has not heard all until $heard->{until}");
	}
	splice @recorded, $n if @recorded > $n;
	my $expected = join ' ', map { $_->{seq} } @recorded;
	$self->violation(undef, "a listener heard @seqs for $expected") if "@seqs" ne $expected;
	for my $event (@recorded)
	{
		my $payload = $heard->{payloads}{ $event->{seq} } or next;
		my @differ = grep { ($payload->{$_} // 'null') ne ($event->{$_} // 'null') } qw(job_id status attempt exit_code);
		$self->violation($self->{job_by_id}{ $event->{job_id} }, "notification $event->{seq} differs in @differ") if @differ;
	}
	return;
}

# ------------------------------------------------------- the server's log

sub log_lines
{
	my ($self) = @_;
	CORE::open(my $fh, '<', $self->{ledger}{node}->logfile) or return;
	seek $fh, $self->{log_at}, 0;
	chomp(my @lines = <$fh>);
	return @lines;
}

sub check_log
{
	my ($self) = @_;
	for my $line ($self->log_lines)
	{
		$self->violation(undef, "server log: $line") if $line =~ /PANIC:|TRAP:|terminated by signal (?!9:)/;
	}
	return;
}

# ------------------------------------------------------- the report

sub since { my ($self, $at) = @_; return defined $at ? sprintf '%.2f', $at - $self->{ledger}{round_begun} : '-'; }

# Everything that is known of the jobs that something is wrong with.
sub report
{
	my ($self) = @_;
	return '' unless $self->violations;
	my $ledger = $self->{ledger};
	my @text = ("seed $self->{plan}{seed}, violations:", (map { "  $_" } $self->violations), "times are seconds since " . $ledger->{round_begun} . ', faults:');
	push @text, map { sprintf '  %s to %s: %s %s', $self->since($_->{from}), $self->since($_->{to}), $_->{kind}, $_->{host} // '' } @{ $ledger->{faults} };
	my @about = map { $self->{about}{$_} } sort keys %{ $self->{about} };
	push @text, map { $self->report_job($_) } splice @about, 0, 6;
	push @text, 'server log:', grep { /container_manager|terminated by|FATAL|PANIC|database system/ && !/\bjob \d+\b/ } $self->log_lines;
	return join "\n", @text, '';
}

sub report_job
{
	my ($self, $job) = @_;
	my $ledger = $self->{ledger};
	my @text = ("--- $job->{token}: $job->{kind}, submitted at " . $self->since($job->{submitted_at}) . ', cancel at '
		  . $self->since($ledger->{is_cancelled}{ $job->{token} }));
	my $row = $job->{row} or return @text;
	push @text, $json->encode($row);
	push @text, map { $json->encode({ %$_, stdout => shorten($_->{stdout}), stderr => shorten($_->{stderr}) }) } @{ $job->{attempts} // [] };
	push @text, 'inspect: ' . $_ for split /\n/, $ledger->sql("SELECT inspect FROM cm_job_attempts WHERE job_id = $row->{id}");
	push @text, 'events:', map { "  $_->{seq} $_->{at} attempt $_->{attempt} $_->{status} " . ($_->{failure_reason} // '') . ' ' . ($_->{detail} // '') } @{ $self->{events_of}{ $row->{id} } // [] };
	my $epoch = substr $ledger->{epoch}, 0, 8;
	my $name = qr/cm-default-$row->{id}-\d+-$epoch/;
	my @starts = grep { $_->{name} =~ $name } @{ $self->{starts} // [] };
	my $ids = join '|', map { substr $_, 0, 12 } grep { defined } (map { $_->{id} } @starts), map { $_->{container_id} } @{ $job->{attempts} // [] };
	push @text, 'starts:', map { '  ' . $self->since($_->{at}) . " $_->{host} $_->{name} $_->{id} " . $json->encode($_->{witness}) =~ s/\s+/ /gr } @starts;
	my $words = $ids ? qr/$name|$ids/ : $name;
	for my $host (sort keys %{ $ledger->{proxy_log} })
	{
		push @text, map { "proxy $host: $_" } grep { /$words/ } file_lines($ledger->{proxy_log}{$host});
		push @text, map { "dockerd $host: $_" } grep { /$words/ } file_lines($ledger->{engines}{$host}->log_file);
	}
	push @text, 'server log:', map { "  $_" } grep { /\bjob $row->{id}\b|$words/ } $self->log_lines;
	return @text;
}

sub shorten { my ($text) = @_; return length($text // '') > 200 ? substr($text, 0, 100) . ' ... ' . substr($text, -100) : $text; }

sub file_lines
{
	my ($file) = @_;
	CORE::open(my $fh, '<', $file) or return;
	chomp(my @lines = <$fh>);
	return @lines;
}

1;
