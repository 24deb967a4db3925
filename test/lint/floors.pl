#!/usr/bin/env perl
#
# floors.pl TREE: who includes whom (see floors.txt), and who may know what.
# Prints what is wrong; exit status 1 if anything is.
use strict;
use warnings;

# What only some files may include or use, so that a library or a burden has one
# place.  Patterns of file names without ending.
my @only_in = (
	[ qr{^\s*#\s*include\s*<curl/},             'curl',            qw(http http_tls) ],
	[ qr{^\s*#\s*include\s*<openssl/},          'OpenSSL',         qw(crypto*) ],
	[ qr{^\s*#\s*include\s*"executor/spi\.h"},  'SPI',             qw(store* logread sqlapi*) ],
	[ qr{\bPG_VERSION_NUM\b},                   'PG_VERSION_NUM',  qw(compat) ],
	[ qr{^\s*#\s*include\s*"common/jsonapi\.h"}, 'the JSON parser', qw(docker_json) ]);

my $tree = shift // '.';
my $wrong = 0;
my @places = read_floors("$tree/test/lint/floors.txt");

for my $file (sort glob "$tree/src/*.[ch]")
{
	(my $stem = $file) =~ s{^.*/|\.[ch]$}{}g;
	my $place = place_of($stem);
	if (!$place)
	{
		complain("$stem is on no floor: add it to test/lint/floors.txt");
		next;
	}
	check_file($file, $stem, $place);
}
exit($wrong ? 1 : 0);

sub check_file
{
	my ($file, $stem, $place) = @_;
	open(my $fh, '<', $file) or die "could not read $file: $!\n";
	while (my $line = <$fh>)
	{
		my $where = "$file:$.";
		$where =~ s{^.*/src/}{src/};
		for my $rule (@only_in)
		{
			my ($pattern, $what, @allowed) = @$rule;
			complain("$where: $what is for @allowed only")
			  if $line =~ $pattern && !grep { is_match($stem, $_) } @allowed;
		}
		next unless $line =~ m{^\s*#\s*include\s*[<"]([^">]+)[>"]};
		my $header = $1;
		complain("$where: floor 0 knows nothing of the server")
		  if $place->{floor} == 0 && $header =~ m{^(postgres|fmgr|miscadmin|c)\.h$|^(utils|storage|lib|access)/};
		next unless $header =~ m{^(\w+)\.h$} && -e "$tree/src/$header";
		next if $1 eq "${stem}_internal";
		my $other = place_of($1) or next;
		complain("$where: $stem (floor $place->{floor}) includes $header (floor $other->{floor})")
		  if $other->{floor} > $place->{floor};
		complain("$where: $header stands right of $stem on floor $place->{floor}")
		  if $other->{floor} == $place->{floor} && $other->{position} > $place->{position};
	}
	return;
}

sub read_floors
{
	my ($file) = @_;
	my @found;
	open(my $fh, '<', $file) or die "could not read $file: $!\n";
	while (my $line = <$fh>)
	{
		next unless $line =~ /^(\d)\s+(.*)/;
		my ($floor, $position) = ($1, 0);
		push @found, { floor => $floor, position => $position++, pattern => $_ } for split ' ', $2;
	}
	return @found;
}

sub place_of
{
	my ($stem) = @_;
	my ($place) = grep { is_match($stem, $_->{pattern}) } @places;
	return $place;
}

sub is_match
{
	my ($stem, $pattern) = @_;
	my $expression = join '(?:_\w+)?', map { quotemeta } split /\*/, "$pattern ", -1;
	$expression =~ s/\\ $//;
	return $stem =~ /^$expression$/;
}

sub complain
{
	print "$_[0]\n";
	$wrong++;
	return;
}
