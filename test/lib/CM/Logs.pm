# CM::Logs: what the tests of jobs' output share: the engine's own account of
# what a container printed, what is stored of it, and whether the chunk table
# is in order.
package CM::Logs;

use strict;
use warnings;

use CM::Http qw(unix_http);
use Digest::MD5 qw(md5_hex);
use Exporter 'import';
use File::Temp ();
use IPC::Run ();
use Test::More ();
use Time::HiRes qw(time usleep);

our @EXPORT_OK = qw(
  docker_logs engine_records stored_digest digest_of is_stored is_same_output
  chunks_are_sound wait_until until_file memory_of);

# What `docker logs` prints, stdout and stderr apart, byte for byte.
sub docker_logs
{
	my ($engine, $container) = @_;
	my $client = $ENV{CM_DOCKER} // (-x '/usr/bin/docker' ? '/usr/bin/docker' : 'docker');
	my @files = map { File::Temp->new } 1 .. 2;
	IPC::Run::run([ $client, '--host', $engine->url, 'logs', $container ],
		'<', \undef, '>', $files[0]->filename, '2>', $files[1]->filename)
	  or die "docker logs $container failed\n";
	return map { _slurp($_->filename) } @files;
}

sub _slurp
{
	my ($name) = @_;
	open(my $file, '<:raw', $name) or die "could not read $name: $!\n";
	local $/ = undef;
	return scalar <$file> // '';
}

# The records of the engine's log in its order: ([stream, bytes], ...).
sub engine_records
{
	my ($engine, $container) = @_;
	my ($status, $body) =
	  unix_http($engine->socket, 'GET', "/v1.41/containers/$container/logs?stdout=1&stderr=1");
	die "no logs of $container: $status\n" unless $status == 200;
	my @records;
	for (my $at = 0; $at < length $body;)
	{
		my ($stream, $length) = unpack 'Cx3N', substr($body, $at, 8);
		push @records, [ $stream, substr($body, $at + 8, $length) ];
		$at += 8 + $length;
	}
	return @records;
}

sub digest_of { my ($bytes) = @_; return length($bytes) . ' ' . md5_hex($bytes); }

sub stored_digest
{
	my ($node, $job, $stream, %option) = @_;
	return $node->safe_psql($option{database} // 'postgres',
		"SELECT octet_length(b) || ' ' || md5(b)"
		  . " FROM (SELECT cm_job_output_bytes($job, '$stream') AS b) x");
}

# The stream as stored is these bytes.
sub is_stored
{
	my ($node, $job, $stream, $bytes, $name, %option) = @_;
	my $stored = stored_digest($node, $job, $stream, %option);
	return Test::More::pass($name) if $stored eq digest_of($bytes);
	Test::More::fail($name);
	my $ends = $node->safe_psql($option{database} // 'postgres',
		"SELECT encode(substr(b, 1, 60), 'escape') || ' ... '"
		  . " || encode(substr(b, greatest(octet_length(b) - 60, 1)), 'escape')"
		  . " FROM (SELECT cm_job_output_bytes($job, '$stream') AS b) x");
	Test::More::diag("job $job, $stream\n  stored:   $stored\n  expected: ",
		digest_of($bytes), "\n  stored are: $ends");
	return 0;
}

# Both streams are the given ones, and the chunks are sound.
sub is_same_output
{
	my ($node, $job, $stdout, $stderr, $name, %option) = @_;
	is_stored($node, $job, 'stdout', $stdout, "$name: stdout", %option);
	is_stored($node, $job, 'stderr', $stderr, "$name: stderr", %option);
	chunks_are_sound($node, $job, $name, %option);
	return;
}

# Chunks are numbered without gaps, say rightly which records they hold, and
# the records of both streams together are numbered 0, 1, 2 ...
sub chunks_are_sound
{
	my ($node, $job, $name, %option) = @_;
	my $faults = $node->safe_psql($option{database} // 'postgres', <<"SQL");
WITH c AS (SELECT *, row_number() OVER (PARTITION BY attempt, stream ORDER BY seq) - 1 AS n
	FROM cm_internal.log_chunks WHERE job_id = $job),
r AS (SELECT c.attempt, c.stream, c.seq, u.number, u.length, u.i,
		lag(u.number) OVER (PARTITION BY c.attempt, c.stream ORDER BY c.seq, u.i) AS before,
		row_number() OVER (PARTITION BY c.attempt ORDER BY u.number) - 1 AS n
	FROM c, unnest(c.record_numbers, c.record_lengths) WITH ORDINALITY AS u (number, length, i))
SELECT 'gap in seq: ' || count(*) FROM c WHERE seq <> n HAVING count(*) > 0
UNION ALL
SELECT 'first_record wrong: ' || count(*) FROM c
	WHERE first_record IS DISTINCT FROM record_numbers[1] HAVING count(*) > 0
UNION ALL
SELECT 'arrays differ in length: ' || count(*) FROM c
	WHERE cardinality(record_numbers) <> cardinality(record_lengths)
	OR cardinality(record_numbers) <> cardinality(record_times) HAVING count(*) > 0
UNION ALL
SELECT 'lengths do not add up: ' || count(*) FROM c
	WHERE octet_length(bytes) <> (SELECT sum(l) FROM unnest(record_lengths) l) HAVING count(*) > 0
UNION ALL
SELECT 'records out of order: ' || count(*) FROM r WHERE number <= before HAVING count(*) > 0
UNION ALL
SELECT 'record missing or twice: ' || min(number) FROM r WHERE number <> n HAVING count(*) > 0
SQL
	return Test::More::is($faults, '', "$name: chunks are sound");
}

# Waits for a condition; says on time-out what was waited for.
sub wait_until
{
	my ($what, $condition, %option) = @_;
	my $deadline = time + ($option{patience} // 300);
	until ($condition->())
	{
		if (time > $deadline)
		{
			Test::More::diag("waited in vain for: $what");
			return 0;
		}
		usleep(50_000);
	}
	return 1;
}

# Shell text for a container: waits until the test makes this file there.
sub until_file { my ($name) = @_; return "until [ -e /tmp/$name ]; do sleep 0.05; done; "; }

# Anonymous memory of a process in MB; 0 where it is gone.
sub memory_of
{
	my ($pid) = @_;
	open(my $status, '<', "/proc/$pid/status") or return 0;
	my ($line) = grep { /^RssAnon:/ } <$status>;
	return defined $line && $line =~ /(\d+)/ ? $1 / 1024 : 0;
}

1;
