# CM::Proxy: test/fake/engine_proxy.py for a script: a bad line to a real engine.
#
#   my $proxy = CM::Proxy->start($engine, seed => 1);
#   $node->add_host('local', $proxy->url);
#   $proxy->tell('flaky 0.3');
#   ...
#   $proxy->tell('pass');
#
# The commands are described at the head of the program.  It ends with the object.
package CM::Proxy;

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Spec;
use File::Temp ();
use IPC::Open2 qw(open2);

my $program = File::Spec->rel2abs(dirname(__FILE__) . '/../../fake/engine_proxy.py');

# Options: seed; log, a file.
sub start
{
	my ($class, $engine, %option) = @_;
	my $self = bless { folder => File::Temp->newdir(TEMPLATE => 'proxyXXXX', TMPDIR => 1), owner => $$ }, $class;
	chmod 0755, $self->{folder};
	$self->{socket} = "$self->{folder}/s";
	$self->{pid} = open2($self->{answers}, $self->{commands}, 'python3', $program, $self->{socket},
		$engine->socket, $option{log} // "$self->{folder}/log", $option{seed} // 1);
	$self->tell('pass');
	return $self;
}

sub url { return "unix://$_[0]{socket}"; }

sub tell    ## no critic (builtin name)
{
	my ($self, $command) = @_;
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{commands} } "$command\n";
	$self->{commands}->flush;
	my $answer = readline $self->{answers};
	die ref($self) . " is gone at \"$command\"\n" unless defined $answer && $answer eq "ok\n";
	return;
}

sub DESTROY
{
	my ($self) = @_;
	return if $self->{owner} != $$;
	local ($@, $?, $!);
	close $self->{commands};
	waitpid($self->{pid}, 0);
	return;
}

1;
