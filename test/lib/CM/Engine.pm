# CM::Engine: a real engine of a test's own, Docker's or Podman's.
#
#   my $engine = CM::Engine->start(name => 'e1');
#   $engine->import_busybox('busybox:test');
#   $engine->docker(qw(run --rm busybox:test echo hello));
#
# The engine is dockerd, or podman's service, with its own data, processes and network, started as
# root by test/lib/engine-server, which test/check-all runs.  It ends with the
# object or the script, whatever became of it.  Starting one takes about half a
# second.
package CM::Engine;

use strict;
use warnings;

use CM::Http qw(unix_http unix_json);
use File::Basename qw(basename dirname);
use File::Temp ();
use IO::Select;
use IO::Socket::UNIX;
use IPC::Run ();
use JSON::PP;
use Scalar::Util qw(weaken);
use Socket qw(SOCK_STREAM SHUT_WR);
use Test::More ();

my $json = JSON::PP->new->utf8->canonical;
my @engines;

# True where engines can be started.
sub available { return defined $ENV{CM_ENGINE_SERVER}; }

# For the top of a script: skips it where there are no engines, unless they are
# demanded (CI), so that a broken set-up does not look like success.
sub require_engine
{
	return if available();
	my $reason = 'needs Docker engines: run it by test/check-all';
	Test::More::BAIL_OUT($reason) if $ENV{CM_TEST_REQUIRE_DOCKER};
	Test::More::plan(skip_all => $reason);
	return;
}

# Options: name (for messages); flavour => 'podman' (else 'docker'); live_restore => 1; data_mb => N puts the data
# on a file system of that size; count_starts => 1 keeps what starts() gives;
# witness => 1 does so, too, and gives each container a folder /witness to write
# to, for witness(); args => [...] goes to dockerd as it is.
sub start
{
	my ($class, %option) = @_;
	require_engine();
	my $server = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $ENV{CM_ENGINE_SERVER})
	  or die "could not connect to the engine server: $!\n";
	my $self = bless { name => $option{name} // 'engine', server => $server, buffer => '' }, $class;
	push @engines, $self;
	weaken $engines[-1];

	my @args = @{ $option{args} // [] };
	push @args, '--live-restore' if $option{live_restore};
	$self->_start(flavour => $option{flavour} // 'docker', args => \@args, map { $option{$_} ? ($_ => $option{$_}) : () } qw(data_mb count_starts witness));
	return $self;
}

sub name { return $_[0]{name}; }
sub socket { return $_[0]{socket}; }    ## no critic (builtin name)
sub url { return "unix://$_[0]{socket}"; }

# Where the scripts' network reaches the engine's (dockerd listens there only if
# told by args).
sub address { return $_[0]{address}; }

# The engine's log, and its folder (data in data/, root's).
sub log_file { return $_[0]{log}; }
sub dir { return $_[0]{dir}; }

# ------------------------------------------------------- life of the engine

# SIGTERM, and wait for the end; Docker's containers end too unless live_restore.
sub stop { my ($self, %option) = @_; $self->_ask(op => 'stop', %option); return; }

# SIGKILL to dockerd and its containerd, or to podman's service; containers run on.
sub kill9 { $_[0]->_ask(op => 'kill9'); return; }

# After stop or kill9, with the arguments of the first start unless given anew.
sub start_again { my ($self, %option) = @_; $self->_start(%option); return; }

sub restart { my ($self) = @_; $self->stop; $self->start_again; return; }

# A hung engine: connections are taken, nothing is answered.
sub pause { $_[0]->_ask(op => 'signal', signal => 'STOP'); return; }
sub resume { $_[0]->_ask(op => 'signal', signal => 'CONT'); return; }

# A cut network, for engines reached by TCP.
sub cut_network { $_[0]->as_root(qw(ip link set eth0 down)); return; }
sub mend_network { $_[0]->as_root(qw(ip link set eth0 up)); return; }

# Waits until the engine answers (start has waited already).
sub wait_ready
{
	my ($self, $seconds) = @_;
	my $deadline = time + ($seconds // 60);
	while (time <= $deadline)
	{
		my ($status) = unix_http($self->socket, 'GET', '/_ping', undef, timeout => 5);
		return 1 if $status == 200;
		select(undef, undef, undef, 0.05);
	}
	die "$self->{name}: no answer\n";
}

# Ends the engine and waits until nothing of it is left.
sub destroy
{
	my ($self) = @_;
	my $server = delete $self->{server} or return;
	return if $self->{owner} != $$;
	shutdown($server, SHUT_WR);
	my $readable = IO::Select->new($server);
	while ($readable->can_read(60))
	{
		last unless sysread($server, my $rest, 65536);
	}
	return;
}

# Runs a command as root among the engine's processes, in its network.
# Gives stdout; dies if it fails.
sub as_root
{
	my ($self, @argv) = @_;
	my $result = $self->_ask(op => 'run', argv => \@argv);
	die "$self->{name}: @argv: status $result->{status}: $result->{stderr}\n" if $result->{status};
	return $result->{stdout};
}

# The same in the background until the engine ends; gives {pid, log}.
sub spawn_as_root
{
	my ($self, @argv) = @_;
	return $self->_ask(op => 'spawn', argv => \@argv);
}

# ------------------------------------------------------- its containers

# The docker command line.  docker() gives stdout and dies on failure;
# docker_try() gives (exit status, stdout, stderr).
sub docker
{
	my ($self, @args) = @_;
	my ($status, $stdout, $stderr) = $self->docker_try(@args);
	die "$self->{name}: docker @args: status $status: $stderr\n" if $status;
	return $stdout;
}

sub docker_try
{
	my ($self, @args) = @_;
	# The packaged client fits the packaged engine; another one in PATH may not.
	my $client = $ENV{CM_DOCKER} // (-x '/usr/bin/docker' ? '/usr/bin/docker' : 'docker');
	my ($stdout, $stderr) = ('', '');
	IPC::Run::run([ $client, '--host', $self->url, @args ],
		'<', \undef, '>', \$stdout, '2>', \$stderr);
	my $status = $? >> 8;
	chomp $stdout;
	return ($status, $stdout, $stderr);
}

# One request of the Engine API: (status, body); api_json decodes and dies
# unless 2xx.
sub api { my ($self, @request) = @_; return unix_http($self->socket, @request); }
sub api_json { my ($self, @request) = @_; return unix_json($self->socket, @request); }

# All containers, running or not, as the API lists them; the filters are the
# API's: containers(label => 'a=b', status => 'exited').
sub containers
{
	my ($self, %filter) = @_;
	my $filters = '';
	if (%filter)
	{
		my %lists = map { $_ => ref $filter{$_} ? $filter{$_} : [ $filter{$_} ] } keys %filter;
		($filters = $json->encode(\%lists)) =~ s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ge;
		$filters = "&filters=$filters";
	}
	return @{ $self->api_json('GET', "/v1.41/containers/json?all=1$filters") };
}

# The starts of containers as the runtime saw them, one per start, in order:
# {id, at (seconds), name}; only with count_starts.  starts() gives the ids.
sub start_records
{
	my ($self) = @_;
	open(my $fh, '<', "$self->{dir}/starts") or return;
	my @records;
	while (my $line = <$fh>)
	{
		my ($id, $ns, $name) = split ' ', $line;
		push @records, { id => $id, at => $ns / 1e9, name => $name // '' };
	}
	return @records;
}

sub starts { return map { $_->{id} } $_[0]->start_records; }

# The lines that a container has written to its file /witness/log; undef where
# it has written none.
sub witness
{
	my ($self, $id) = @_;
	open(my $fh, '<', "$self->{dir}/witness/$id/log") or return;
	chomp(my @lines = <$fh>);
	return \@lines;
}

sub inspect
{
	my ($self, $container) = @_;
	return $self->api_json('GET', "/v1.41/containers/$container/json");
}

# Makes an image of Debian's static busybox: /bin/sh and all applets, /tmp,
# users root, nobody (65534) and job (1001).  Options: cmd => [...],
# entrypoint => [...], user => '1001', env => {A => 'b'}, workdir => '/x',
# change => ['LABEL a=b', ...].
sub import_busybox
{
	my ($self, $ref, %option) = @_;
	my @changes = @{ $option{change} // [] };
	my $words = JSON::PP->new->utf8;
	push @changes, 'CMD ' . $words->encode($option{cmd} // ['sh']);
	push @changes, 'ENTRYPOINT ' . $words->encode($option{entrypoint}) if $option{entrypoint};
	push @changes, "USER $option{user}" if defined $option{user};
	push @changes, "WORKDIR $option{workdir}" if defined $option{workdir};
	push @changes, map { "ENV $_=$option{env}{$_}" } sort keys %{ $option{env} // {} };
	return $self->docker('import', (map { ('--change', $_) } @changes), busybox_tree(), $ref);
}

# The tree as a tar file, made once per script.
my $tree_file;

sub busybox_tree
{
	return $tree_file->filename if $tree_file;
	my $root = File::Temp->newdir;
	mkdir "$root/$_" for qw(bin dev etc home proc sys tmp var);
	chmod 01777, "$root/tmp";
	IPC::Run::run([ 'cp', '/bin/busybox', "$root/bin/busybox" ]) or die "no /bin/busybox\n";
	for my $applet (split /\n/, qx(/bin/busybox --list))
	{
		symlink 'busybox', "$root/bin/$applet" unless $applet eq 'busybox';
	}
	_spew("$root/etc/passwd", "root:x:0:0::/:/bin/sh\njob:x:1001:1001::/tmp:/bin/sh\n"
		  . "nobody:x:65534:65534::/tmp:/bin/sh\n");
	_spew("$root/etc/group", "root:x:0:\njob:x:1001:\nnogroup:x:65534:\n");
	my $tar = File::Temp->new(SUFFIX => '.tar');
	IPC::Run::run([ qw(tar --owner=0 --group=0 --numeric-owner -C), "$root", '-cf', $tar->filename, '.' ])
	  or die "tar failed\n";
	$tree_file = $tar;
	return $tree_file->filename;
}

# Copies a file or folder to the same place below the root, links followed.
sub copy_into
{
	my ($root, @paths) = @_;
	IPC::Run::run([ qw(cp -rL --parents --no-preserve=mode), @paths, "$root/" ])
	  or die "could not copy @paths\n";
	return;
}

# The libraries that a program is linked to, its loader included.
sub libraries_of
{
	my ($program) = @_;
	my %seen;
	return grep { !$seen{$_}++ } qx(ldd $program) =~ m{(/\S+)}g;
}

# The same image with a program of this machine in its place, and in PATH.
sub import_with_program
{
	my ($self, $ref, $program) = @_;
	my $root = File::Temp->newdir;
	my $tar = File::Temp->new(SUFFIX => '.tar');
	copy_into("$root", $program, libraries_of($program));
	chmod 0755, "$root$program", map { "$root$_" } libraries_of($program);
	IPC::Run::run([ 'cp', busybox_tree(), $tar->filename ]) or die "could not copy the tree\n";
	IPC::Run::run([ qw(tar --owner=0 --group=0 --numeric-owner --mode=go+rX -C), "$root", '-rf', $tar->filename, map { basename($_) } glob("$root/*") ])
	  or die "tar failed\n";
	return $self->docker('import', '--change', 'ENV PATH=/bin:' . dirname($program), '--change', 'CMD ["sh"]', $tar->filename, $ref);
}

sub _spew
{
	my ($file, $text) = @_;
	open(my $fh, '>', $file) or die "could not write $file: $!\n";
	print $fh $text;
	close $fh or die "could not write $file: $!\n";
	return;
}

# ------------------------------------------------------- the helper

sub _start
{
	my ($self, %option) = @_;
	my $answer = $self->_ask(op => 'start', %option);
	@$self{qw(socket dir log address)} = @$answer{qw(socket dir log address)};
	return;
}

# Asks the engine server and waits for the answer.
sub _ask
{
	my ($self, %request) = @_;
	my $server = $self->{server} or die "$self->{name}: is destroyed\n";
	$self->{owner} //= $$;
	print $server $json->encode(\%request), "\n";
	$server->flush;
	my $end;
	until (($end = index($self->{buffer}, "\n")) >= 0)
	{
		my $got = sysread($server, $self->{buffer}, 65536, length $self->{buffer});
		next if !defined $got && $!{EINTR};
		die "$self->{name}: the engine server is gone\n" unless $got;
	}
	my $answer = $json->decode(substr($self->{buffer}, 0, $end + 1, ''));
	die "$self->{name}: $request{op}: $answer->{error}\n" if defined $answer->{error};
	return $answer;
}

# Ends what the script left running, and waits, so that the next script and the
# sandbox find nothing of it.
sub DESTROY { my ($self) = @_; local ($@, $?, $!); $self->destroy; return; }

END
{
	my $status = $?;
	$_->destroy for grep { defined } @engines;
	$? = $status;
}

1;
