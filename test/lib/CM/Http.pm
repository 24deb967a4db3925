# CM::Http: one HTTP request on a unix socket, for tests that look at an engine
# past the docker command line, and for the control of the fake engine.
package CM::Http;

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IO::Socket::UNIX;
use JSON::PP;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(time);

our @EXPORT_OK = qw(unix_http unix_json);

# unix_http($socket, 'GET', '/path', $body, timeout => 120)
# gives (status, body); status 0 where no whole answer came.  HTTP/1.0, so the
# answer ends with the connection and is never chunked.
sub unix_http
{
	my ($path, $method, $target, $body, %option) = @_;
	my $deadline = time + ($option{timeout} // 120);
	$body //= '';

	my $server = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path)
	  or return (0, "could not connect to $path: $!");
	local $SIG{PIPE} = 'IGNORE';
	my $head = "$method $target HTTP/1.0\r\nHost: test\r\n";
	$head .= "Content-Type: application/json\r\n" if length $body;
	$head .= 'Content-Length: ' . length($body) . "\r\n\r\n";
	print $server $head, $body;
	$server->flush;

	my $answer = '';
	my $readable = IO::Select->new($server);
	for (;;)
	{
		my $left = $deadline - time;
		return (0, "no answer in time to $method $target") if $left <= 0;
		next unless $readable->can_read($left);
		my $got = sysread($server, $answer, 65536, length $answer);
		next if !defined $got && $!{EINTR};
		last unless $got;
	}
	return (0, "torn answer to $method $target")
	  unless $answer =~ m{\AHTTP/1\.\d (\d+)[^\n]*\n.*?\r\n\r\n(.*)\z}s;
	return ($1, $2);
}

# The same with JSON both ways; dies unless the status is 2xx.
sub unix_json
{
	my ($path, $method, $target, $data, %option) = @_;
	my $body = defined $data ? JSON::PP->new->utf8->canonical->encode($data) : undef;
	my ($status, $answer) = unix_http($path, $method, $target, $body, %option);
	die "$method $target: $status $answer\n" unless $status =~ /^2/;
	return length $answer ? JSON::PP->new->utf8->allow_nonref->decode($answer) : undef;
}

1;
