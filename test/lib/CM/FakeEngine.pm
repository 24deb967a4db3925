# CM::FakeEngine: test/fake/fake_engine.py for a script, when a real engine
# cannot be made to do what the test needs, or not a thousand times a second.
#
#   my $fake = CM::FakeEngine->start;
#   $fake->fault(method => 'POST', path => '/start$', hang => 1, times => 1);
#   ... $node->add_host('fake', $fake) ...
#   is($fake->state->{starts}, 1);
#
# The controls are described in fake_engine.py.  It needs no root.
package CM::FakeEngine;

use strict;
use warnings;

use CM::Http qw(unix_http unix_json);
use File::Basename qw(dirname);
use File::Spec;
use File::Temp ();
use JSON::PP;
use POSIX ();
use Scalar::Util qw(weaken);
use Time::HiRes qw(time usleep);

my $program = File::Spec->rel2abs(dirname(__FILE__) . '/../../fake/fake_engine.py');
my @engines;

# Options: those of fake_engine.py by name: api_version => '1.44', ...
sub start
{
	my ($class, %option) = @_;
	my $self = bless {
		folder => File::Temp->newdir(TEMPLATE => 'fakeXXXX', TMPDIR => 1),
		option => \%option,
		owner => $$
	}, $class;
	# The server runs as this user, too, but tests may try others.
	chmod 0755, $self->{folder};
	$self->{socket} = "$self->{folder}/s";
	push @engines, $self;
	weaken $engines[-1];
	$self->start_again;
	return $self;
}

sub socket { return $_[0]{socket}; }    ## no critic (builtin name)
sub url { return "unix://$_[0]{socket}"; }
sub pid { return $_[0]{pid}; }

sub start_again
{
	my ($self) = @_;
	die "is running\n" if $self->{pid};
	my $pid = fork() // die "could not fork: $!\n";
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$self->{folder}/log");
		open(STDERR, '>&', \*STDOUT);
		exec('python3', $program, '--socket', $self->{socket}) or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	my $deadline = time + 120;
	until ((unix_http("$self->{socket}.control", 'GET', '/state'))[0] == 200)
	{
		if (time > $deadline || waitpid($pid, 1) == $pid)
		{
			open(my $log, '<', "$self->{folder}/log");
			die "fake engine did not start: ", <$log>;
		}
		usleep(20_000);
	}
	$self->set(%{ $self->{option} }) if %{ $self->{option} };
	return;
}

# Ends it as kill -9 does a daemon, but its containers are gone, too.
sub kill9
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;
	return if $self->{owner} != $$;
	kill 'KILL', $pid;
	waitpid($pid, 0);
	return;
}

sub pause { kill 'STOP', $_[0]{pid}; return; }
sub resume { kill 'CONT', $_[0]{pid}; return; }

# ------------------------------------------------------- controls

sub control
{
	my ($self, $method, $path, $data) = @_;
	return unix_json("$self->{socket}.control", $method, $path, $data);
}

# Adds a fault, gives its number; clear_faults takes all away, or one.
sub fault { my ($self, %fault) = @_; return $self->control('POST', '/fault', \%fault)->{id}; }

sub clear_faults
{
	my ($self, $id) = @_;
	return $self->control('DELETE', '/fault' . (defined $id ? "/$id" : ''));
}

sub set { my ($self, %setting) = @_; return $self->control('POST', '/set', \%setting); }
sub state { return $_[0]->control('GET', '/state'); }    ## no critic (builtin name)
sub drop_events { return $_[0]->control('POST', '/drop_events', {}); }
sub forget_events { return $_[0]->control('POST', '/forget_events', {}); }
sub emit { my ($self, %event) = @_; return $self->control('POST', '/emit', \%event); }

# A daemon that is away (connection refused) and its return; state is kept.
sub close_door { return $_[0]->control('POST', '/listen', { on => JSON::PP::false }); }
sub open_door { return $_[0]->control('POST', '/listen', { on => JSON::PP::true }); }

# Ends a running container from outside.
sub end_container
{
	my ($self, $container, $exit_code) = @_;
	return $self->control('POST', '/end', { container => $container, exit_code => $exit_code // 0 });
}

# Waits until a value in state() is at least the expected one.
sub wait_for
{
	my ($self, $counter, $at_least, $seconds) = @_;
	my $deadline = time + ($seconds // 300);
	while (time < $deadline)
	{
		my $value = $self->state->{$counter};
		return 1 if defined $value && $value >= $at_least;
		usleep(20_000);
	}
	return 0;
}

sub DESTROY { my ($self) = @_; local ($@, $?, $!); $self->kill9; return; }

END
{
	my $status = $?;
	$_->kill9 for grep { defined } @engines;
	$? = $status;
}

1;
