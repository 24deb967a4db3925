# CM::Ledger::Listener: a session that listens to cm_job_status for as long as its
# server lives, and what it has heard.
package CM::Ledger::Listener;

use strict;
use warnings;

use File::Temp ();
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time usleep);

my $json = JSON::PP->new->utf8;

sub start
{
	my ($class, $node, $generation) = @_;
	my $self = bless { output => File::Temp->new, generation => $generation, owner => $$, looked => 0 }, $class;
	pipe(my $reader, my $writer) or die "pipe: $!\n";
	$self->{commands} = $writer;
	$writer->autoflush(1);
	my $pid = fork() // die "fork: $!\n";
	if ($pid == 0)
	{
		close $writer;
		open(STDIN, '<&', $reader);
		open(STDOUT, '>', $self->{output}->filename);
		open(STDERR, '>', '/dev/null');
		exec('psql', '-XAtq', '-d', $node->connstr('postgres')) or POSIX::_exit(127);
	}
	close $reader;
	$self->{pid} = $pid;
	# In this order: what is committed after the first is heard.
	$self->say_sql('LISTEN cm_job_status', q{SELECT 'since', coalesce(max(seq), 0) FROM cm_job_events});
	return $self;
}

sub say_sql
{
	my ($self, @words) = @_;
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{commands} } "$_;\n" for @words;
	return;
}

# psql prints what it heard with the next answer.
sub is_listening
{
	my ($self) = @_;
	return 0 unless $self->{pid};
	if (waitpid($self->{pid}, WNOHANG) != 0)
	{
		delete $self->{pid};
		return 0;
	}
	return 1 if time - $self->{looked} < 0.1;
	$self->{looked} = time;
	$self->say_sql('SELECT 1');
	return 1;
}

# Its life ends in peace: is_whole, if it has heard all that is there now.
sub finish
{
	my ($self) = @_;
	$self->say_sql(q{SELECT 'until', coalesce(max(seq), 0) FROM cm_job_events});
	my $deadline = time + 30;
	my $heard;
	do
	{
		usleep(30_000);
		$self->{looked} = 0;
		$self->is_listening;
		$heard = $self->heard;
	} until ($heard->{is_whole} || !$self->{pid} || time > $deadline);
	$self->{is_finished} = $self->{pid} ? 1 : 0;
	$self->end;
	return;
}

sub end
{
	my ($self) = @_;
	close $self->{commands};
	my $pid = delete $self->{pid} or return;
	waitpid($pid, 0);
	return;
}

# {since, until, seqs => [...], payloads => {seq => ...}, is_whole}
sub heard
{
	my ($self) = @_;
	my %heard = (payloads => {}, seqs => []);
	open(my $fh, '<', $self->{output}->filename) or die "no output of a listener: $!\n";
	while (my $line = <$fh>)
	{
		last unless $line =~ /\n\z/;
		if ($line =~ /^(since|until)\|(\d+)$/) { $heard{$1} = $2; }
		elsif ($line =~ /^Asynchronous notification "cm_job_status" with payload "(.*)" received/)
		{
			my $payload = $json->decode($1);
			push @{ $heard{seqs} }, $payload->{seq};
			$heard{payloads}{ $payload->{seq} } = $payload;
		}
	}
	if (defined $heard{since} && defined $heard{until})
	{
		my $last = @{ $heard{seqs} } ? $heard{seqs}[-1] : 0;
		$heard{is_whole} = $heard{until} <= $heard{since} || $last >= $heard{until};
	}
	return \%heard;
}

sub DESTROY
{
	my ($self) = @_;
	return if $self->{owner} != $$;
	local ($@, $?, $!);
	$self->end;
	return;
}

1;
