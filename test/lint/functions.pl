#!/usr/bin/env perl
#
# functions.pl MAX FILE...: functions longer than MAX lines, brace to brace.
# Bodies begin and end with a brace in the first column, as everywhere here.
use strict;
use warnings;

my $max = shift;
my $wrong = 0;
for my $file (@ARGV)
{
	open(my $fh, '<', $file) or die "could not read $file: $!\n";
	my ($begin, $name, $last) = (0, '', '');
	while (my $line = <$fh>)
	{
		if ($line =~ /^\{/ && $last !~ /^\s*(typedef\s+)?(struct|enum|union)\b|=\s*$/)
		{
			$begin = $.;
		}
		elsif ($line =~ /^\}/ && $begin)
		{
			my $length = $. - $begin - 1;
			if ($length > $max)
			{
				print "$file:$begin: $name has $length lines, more than $max\n";
				$wrong = 1;
			}
			$begin = 0;
		}
		$name = "$1()" if !$begin && $line =~ /^(\w+)\(/;
		$last = $line if $line =~ /\S/;
	}
}
exit $wrong;
