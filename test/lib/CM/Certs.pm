# CM::Certs: certificates for a script, by the openssl command.
#
#   my $certs = CM::Certs->new;
#   $certs->make_ca('ca');
#   $certs->issue('server', ca => 'ca', use => 'serverAuth', san => 'IP:127.0.0.1');
#   my $dir = $certs->client_dir('client', ca => 'ca');    # ca.pem, cert.pem, key.pem
#
# All lie in one folder as NAME.pem and NAME.key, which goes with the object.
package CM::Certs;

use strict;
use warnings;

use File::Copy qw(copy);
use File::Temp ();
use IPC::Run ();

my @new_key = qw(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes);

sub new
{
	my ($class) = @_;
	my $self = bless { folder => File::Temp->newdir(TEMPLATE => 'certsXXXX', TMPDIR => 1) }, $class;
	chmod 0755, $self->{folder};
	return $self;
}

sub cert { my ($self, $name) = @_; return "$self->{folder}/$name.pem"; }
sub key { my ($self, $name) = @_; return "$self->{folder}/$name.key"; }

sub make_ca
{
	my ($self, $name) = @_;
	_openssl(qw(req -x509 -days 30), @new_key, '-subj', "/CN=$name", '-keyout', $self->key($name), '-out', $self->cert($name));
	return;
}

# Options: ca; use (serverAuth, clientAuth); san; days (0: has expired when it is made).
sub issue
{
	my ($self, $name, %option) = @_;
	my $extensions = "$self->{folder}/$name.ext";
	open(my $fh, '>', $extensions) or die "could not write $extensions: $!\n";
	print $fh "extendedKeyUsage=$option{use}\n";
	print $fh "subjectAltName=$option{san}\n" if $option{san};
	close $fh or die "could not write $extensions: $!\n";
	_openssl(qw(req -new), @new_key, '-subj', "/CN=$name", '-keyout', $self->key($name), '-out', "$extensions.csr");
	_openssl(qw(x509 -req -days), $option{days} // 30, '-in', "$extensions.csr", '-CA', $self->cert($option{ca}),
		'-CAkey', $self->key($option{ca}), '-extfile', $extensions, '-out', $self->cert($name));
	return;
}

# A directory for tls_cert_path: the CA's certificate and, if there is a client, its
# certificate and key.
sub client_dir
{
	my ($self, $client, %option) = @_;
	my $dir = "$self->{folder}/dir-" . ++$self->{n_dirs};
	mkdir $dir or die "could not make $dir: $!\n";
	$self->fill_dir($dir, $client, %option);
	return $dir;
}

# Puts other files in their places, each in one step.
sub fill_dir
{
	my ($self, $dir, $client, %option) = @_;
	_replace($self->cert($option{ca}), "$dir/ca.pem") if $option{ca};
	_replace($self->cert($client), "$dir/cert.pem") if $client;
	_replace($self->key($client), "$dir/key.pem") if $client;
	return;
}

sub _replace
{
	my ($from, $to) = @_;
	copy($from, "$to.new") && rename("$to.new", $to) or die "could not write $to: $!\n";
	return;
}

sub _openssl
{
	my (@args) = @_;
	my $output = '';
	IPC::Run::run([ 'openssl', @args ], '<', \undef, '>', \$output, '2>', \$output) or die "openssl @args: $output\n";
	return;
}

1;
