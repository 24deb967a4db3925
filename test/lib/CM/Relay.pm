# CM::Relay: test/fake/tcp_relay.py for a script: a TCP port of this machine in
# front of an engine.
#
#   my $relay = CM::Relay->start('127.0.0.1', $engine->socket);
#   $node->add_host('plain', $relay->url, 'tls_enabled => false');
#   $relay->tell('cut');
#
# The commands are described at the head of the program.  It ends with the object, as
# CM::Proxy does.
package CM::Relay;

use strict;
use warnings;

use parent 'CM::Proxy';

use File::Basename qw(dirname);
use File::Spec;
use IPC::Open2 qw(open2);

my $program = File::Spec->rel2abs(dirname(__FILE__) . '/../../fake/tcp_relay.py');

# target: a socket's path, or host:port.  Option: name, for the URL.
sub start
{
	my ($class, $address, $target, %option) = @_;
	my $self = bless { owner => $$ }, $class;
	$self->{pid} = open2($self->{answers}, $self->{commands}, 'python3', $program, $address, $target);
	my $port = readline $self->{answers};
	die "the relay on $address did not start\n" unless defined $port;
	chomp $port;
	my $host = $option{name} // ($address =~ /:/ ? "[$address]" : $address);
	$self->{where} = "$host:$port";
	return $self;
}

sub where { return $_[0]{where}; }
sub url { return "tcp://$_[0]{where}"; }

1;
