package CM::Document;

# A Markdown file of the tree, as tests read it: its sections, blocks of code and tables.
use strict;
use warnings;

use File::Basename qw(dirname);

sub new
{
	my ($class, $name) = @_;
	open(my $file, '<:encoding(UTF-8)', dirname(__FILE__) . "/../../../$name") or die "could not read $name: $!\n";
	local $/ = undef;
	return bless { name => $name, text => scalar <$file> }, $class;
}

sub text { my ($self) = @_; return $self->{text}; }

# The text below a heading of the second rank; '' is what stands before the first.
sub section
{
	my ($self, $heading) = @_;
	my ($text) =
	  $heading eq ''
	  ? $self->{text} =~ /\A(.*?)^## /ms
	  : $self->{text} =~ /^## \Q$heading\E\n(.*?)(?=^## |\z)/ms;
	die "$self->{name}: no section \"$heading\"\n" unless defined $text;
	return $text;
}

sub headings { my ($self) = @_; return $self->{text} =~ /^## (.+)$/gm; }

# Blocks of code of a text as [language, text].
sub blocks
{
	my ($text) = @_;
	my @blocks;
	push @blocks, [ $1, $2 ] while $text =~ /^```([^\n]*)\n(.*?)^```$/gms;
	return @blocks;
}

# The cells of a table's rows, its head left out: [cell, ...] each.
sub table_rows
{
	my ($text, $head) = @_;
	my ($body) = $text =~ /^\| \Q$head\E \|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)/m;
	die "no table \"$head\"\n" unless defined $body;
	return map { [ map { s/\A\s+|\s+\z//gr } grep { length } split /(?<!\\)\|/ ] } split /\n/, $body;
}

sub code_words { my ($text) = @_; return $text =~ /`([^`\n]+)`/g; }

1;
