# What is stored of a job's output is what `docker logs` prints, byte for byte:
# while it runs, after it has ended, and whatever it prints.
#
# The engine is asked after the container's exit and before its removal: a
# session that holds the rows of the jobs keeps their ends from being recorded,
# and only then are containers removed.

use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::Logs qw(docker_logs engine_records is_same_output chunks_are_sound wait_until until_file);
use Test::More;

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_with_extension('main');
$node->add_host('local', $engine, 'max_concurrent_jobs => 40');

# Commands begin when they are told to by a file.
my $gate = until_file('go');

sub submit_command
{
	my ($command) = @_;
	return $node->submit("'busybox:test', \$c\$$command\$c\$, networks => '[\"none\"]'");
}

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub container_of { my ($job) = @_; return sql("SELECT container_id FROM cm_jobs WHERE id = $job"); }

sub touch_file { my ($job, $file) = @_; $engine->docker('exec', container_of($job), 'touch', "/tmp/$file"); return; }

# ------------------------------------------------------- kinds of output

my %command = (
	'an unterminated last line' => q{echo one; printf 'last, no newline'},
	'only an unterminated line' => q{printf x},
	'a line of 40,000 bytes' => q{head -c 40000 /dev/zero | tr '\0' 'a'; echo; echo after},
	'40,000 bytes, err within' =>
	  q{head -c 20000 /dev/zero | tr '\0' 'a'; echo err >&2; head -c 20000 /dev/zero | tr '\0' 'b'; echo},
	'lines about the engine\'s limit' => q{for n in 16383 16384 16385; do }
	  . q{head -c $n /dev/zero | tr '\0' 'l'; echo; done; head -c 16384 /dev/zero | tr '\0' 'm'},
	'NUL and invalid UTF-8' =>
	  q{printf 'a\0b\377\376c\n\0\0\n\303'; echo; printf '\355\240\200\n\360\220'; printf '\0' >&2},
	'UTF-8 over the limit of a part' => q{printf a; for i in $(seq 6000); do printf '€€'; done; echo},
	'carriage returns' => q{printf 'one\r\ntwo\rthree\r\n\r\n\r'},
	'nothing' => q{:},
	'only stderr' => q{echo out of luck >&2; printf 'no end' >&2},
	'empty lines' => q{echo; echo; echo >&2; echo},
	'both, interleaved' =>
	  q{i=0; while [ $i -lt 3000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done},
	'200,000 short lines' => q{seq 200000},
	'control characters' => q{printf '\033[31mred\033[0m\b\t\v\f"\\\\\1\177 <&>\342\200\250\n'},
	'random bytes' => q{head -c 300000 /dev/urandom; head -c 100000 /dev/urandom >&2},
);
my @names = sort keys %command;
my %job = map { $_ => submit_command($gate . $command{$_}) } @names;
$job{killed} = submit_command($gate . q{i=0; while :; do echo line $i; i=$((i+1)); done});
my $jobs = join ',', values %job;
my $n_jobs = keys %job;
ok($node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($jobs) AND status = 'running'", $n_jobs),
	'all jobs run');

my $holder = $node->session;
$holder->query_safe("BEGIN; SELECT count(*) FROM (SELECT FROM cm_jobs WHERE id IN ($jobs) FOR UPDATE) x");
touch_file($_, 'go') for values %job;
wait_until('output of the job that is to be killed',
	sub { sql("SELECT count(*) > 1000 FROM cm_job_logs($job{killed})") eq 't' });
$engine->docker('kill', container_of($job{killed}));
ok( wait_until(
		'the end of all containers', sub { !$engine->containers(status => 'running') }),
	'all containers have ended');

my %printed = map { $_ => [ docker_logs($engine, container_of($job{$_})) ] } keys %job;
my @interleaved = engine_records($engine, container_of($job{'both, interleaved'}));
$holder->query_safe('COMMIT');
$holder->quit;

for my $name (@names, 'killed')
{
	like($node->job_wait($job{$name}), qr/^(?:completed|failed)$/, "$name: ended");
	is_same_output($node, $job{$name}, @{ $printed{$name} }, $name);
	is(sql("SELECT logs_incomplete FROM cm_jobs WHERE id = $job{$name}"), 'f', "$name: complete");
}
ok(length $printed{killed}[0] > 10_000, 'the killed job had printed much');
is(length $printed{'a line of 40,000 bytes'}[0], 40_007, 'the engine keeps the long line');

# ------------------------------------------------------- as lines

is( sql("SELECT string_agg(stream || ' ' || line, ';' ORDER BY ordinality)"
		  . " FROM cm_job_logs($job{'both, interleaved'}) WITH ORDINALITY"),
	join(';', map { ($_->[0] == 1 ? 'stdout ' : 'stderr ') . substr($_->[1], 0, -1) } @interleaved),
	'lines of both streams come in the order of the engine');
is(sql("SELECT count(*), max(length(line)) FROM cm_job_logs($job{'a line of 40,000 bytes'})"),
	'2|40000', 'parts of a long line are joined');
is( sql('SELECT string_agg(length(line)::text, \' \' ORDER BY ordinality)'
		  . " FROM cm_job_logs($job{'lines about the engine\'s limit'}) WITH ORDINALITY"),
	'16383 16384 16385 16384',
	'lines about the limit of a part');
is(sql("SELECT count(*) FROM cm_job_logs($job{nothing})"), 0, 'no line of nothing');
is(sql("SELECT cm_job_output($job{nothing}) = '', cm_job_stderr($job{nothing}) = ''"),
	't|t', 'no output is empty, not NULL');
is(sql("SELECT cm_job_output_lossy($job{nothing}), cm_job_output_lossy($job{'NUL and invalid UTF-8'})"),
	'f|t', 'text says whether it is all');
is(sql("SELECT cm_job_output($job{'carriage returns'}) = E'one\\r\\ntwo\\rthree\\r\\n\\r\\n\\r'"),
	't', 'carriage returns stay in text');

# ------------------------------------------------------- parameters

my $short = $job{'200,000 short lines'};
is(sql("SELECT string_agg(line, ' ' ORDER BY ordinality) FROM cm_job_logs($short, tail => 3) WITH ORDINALITY"),
	'199998 199999 200000', 'tail');
is(sql("SELECT count(*) FROM cm_job_logs($short, tail => 0)"), 0, 'tail of none');
is(sql("SELECT count(*), min(line::int) FROM cm_job_logs($short, tail => 1000000)"),
	'200000|1', 'tail of more than there is');
my $both = $job{'both, interleaved'};
is( sql("SELECT array_agg(DISTINCT stream), count(*) FROM cm_job_logs($both, stream => 'stderr')"),
	'{stderr}|3000', 'one stream');
is( sql("SELECT string_agg(line, ' ' ORDER BY ordinality)"
		  . " FROM cm_job_logs($both, stream => 'stderr', tail => 2) WITH ORDINALITY"),
	'err 2998 err 2999', 'tail of one stream');
is( sql(<<"SQL"), 't', 'since gives what is not older');
WITH l AS (SELECT * FROM cm_job_logs($short) WITH ORDINALITY),
m AS (SELECT logged_at AS at FROM l WHERE ordinality = 150000)
SELECT (SELECT count(*) FROM m, cm_job_logs($short, since => m.at) s)
	= (SELECT count(*) FROM l, m WHERE l.logged_at >= m.at)
SQL
is(sql("SELECT count(*) FROM cm_job_logs($short, since => now() + interval '1 day')"), 0, 'since later');
is(sql("SELECT count(*) FROM cm_job_logs($short, attempt => 1)"), 200_000, 'attempt');

sub fails_with
{
	my ($call, $state, $words) = @_;
	my $stderr = '';
	$node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM $call", stderr => \$stderr);
	like($stderr, qr/ERROR:  $state: $words/, "$call is refused");
	return;
}

fails_with("cm_job_logs($short, attempt => 2)", '42704', 'job \d+ has no attempt 2');
fails_with("cm_job_logs($short, attempt => 0)", '42704', 'job \d+ has no attempt 0');
fails_with('cm_job_logs(987654321)', '42704', '.*987654321');
fails_with('cm_job_output(987654321)', '42704', '.*987654321');
fails_with('cm_job_result(987654321)', '42704', '.*987654321');
fails_with("cm_job_output_bytes($short, 'stdout', 7)", '42704', 'job \d+ has no attempt 7');
fails_with("cm_job_output_bytes($short, 'stdin')", '22023', '.*stdin');
fails_with("cm_job_logs($short, stream => 'all')", '22023', '.*all');
fails_with("cm_job_logs($short, tail => -1)", '22023', 'tail must not be negative');

my %json = (
	'{"a": [1, 2.50, null], "b": "\u00e9"}' => '{"a": [1, 2.50, null], "b": "é"}',
	'17' => '17',
	'not JSON' => '',
	'{"a": 1' => '',
	'{"a": "\u0000"}' => '',
	'' => '');
my %json_job = map { $_ => submit_command("printf '%s\\n' '$_'") } keys %json;
for my $text (sort keys %json)
{
	$node->job_wait($json_job{$text});
	is(sql("SELECT cm_job_result($json_job{$text})"), $json{$text}, "result of '$text'");
}

# ------------------------------------------------------- while it runs

my $live = submit_command(
	$gate . 'echo early; echo warned >&2; ' . until_file('end') . 'printf late');
is($node->job_wait($live, status => 'running'), 'running', 'a job runs');
is(sql("SELECT count(*) FROM cm_job_logs($live)"), 0, 'it has printed nothing yet');
touch_file($live, 'go');
ok( $node->wait_for_sql(
		"SELECT string_agg(stream || ' ' || line, ';' ORDER BY stream DESC) FROM cm_job_logs($live)",
		'stdout early;stderr warned'),
	'lines are seen while it runs');
is(sql("SELECT status FROM cm_jobs WHERE id = $live"), 'running', 'it does run');
touch_file($live, 'end');
is($node->job_wait($live), 'completed', 'it ends');
is_same_output($node, $live, "early\nlate", "warned\n", 'a job that was watched');

# The engine's live view loses the unterminated end about every other time.
my @ends = map { submit_command('echo one; sleep 0.4; echo two; printf "the end"') } 1 .. 25;
my $ends = join ',', @ends;
ok( $node->wait_for_sql("SELECT count(*) FROM cm_jobs WHERE id IN ($ends) AND status = 'completed'", 25),
	'25 jobs with an unterminated end');
is( sql("SELECT count(*) FROM unnest(ARRAY[$ends]::bigint[]) j"
		  . " WHERE cm_job_output_bytes(j) = E'one\\ntwo\\nthe end'"),
	25, 'none of them lost it');
chunks_are_sound($node, $ends[0], 'an unterminated end');

# ------------------------------------------------------- deletion

is(sql("SELECT count(*) > 0 FROM cm_internal.log_chunks WHERE job_id = $short"), 't', 'there are chunks');
sql("DELETE FROM cm_jobs WHERE id = $short");
is(sql("SELECT count(*) FROM cm_internal.log_chunks WHERE job_id = $short"), 0, 'they go with the job');
ok(wait_until('no containers', sub { !$engine->containers }), 'no container is left');

done_testing();
