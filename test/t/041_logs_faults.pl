# Output survives what happens meanwhile: much of it, a limit, kill -9 of the
# executor, a restart of the engine, somebody's lock, and databases whose
# encoding is not UTF-8.

use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::Logs qw(is_stored is_same_output chunks_are_sound wait_until until_file memory_of);
use CM::Proxy;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1', live_restore => 1);
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_with_extension('main');
$node->add_host('local', $engine);

sub submit_command
{
	my ($command) = @_;
	return $node->submit("'busybox:test', \$c\$$command\$c\$, networks => '[\"none\"]'");
}

sub sql { my ($sql, $database) = @_; return $node->safe_psql($database // 'postgres', $sql); }

sub container_of { my ($job) = @_; return sql("SELECT container_id FROM cm_jobs WHERE id = $job"); }

sub touch_file { my ($job, $file) = @_; $engine->docker('exec', container_of($job), 'touch', "/tmp/$file"); return; }

# Numbered lines of 100 bytes, so that a gap or a repetition shows.
sub numbered { my ($n) = @_; return join '', map { sprintf "%09d %089d\n", $_, $_ } 0 .. $n - 1; }

sub print_numbered
{
	my ($n, $pause) = @_;
	my $rest = $pause ? "if (i % 4000 == 0) { fflush(); system(\"sleep $pause\") }" : '';
	return "awk 'BEGIN { for (i = 0; i < $n; i++) { printf \"%09d %089d\\n\", i, i; $rest } }'";
}

sub stored_bytes
{
	my ($job) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql('postgres',
		"SELECT coalesce(sum(octet_length(bytes)), 0) FROM cm_internal.log_chunks WHERE job_id = $job",
		stdout => \$stdout, stderr => \$stderr);
	return $stdout || 0;
}

# ------------------------------------------------------- 50 MB

my $begun = time;
my $big = submit_command(print_numbered(500_000));
is($node->job_wait($big, status => 'running'), 'running', 'a job prints 50 MB');
my $executor = $node->executor_pid;
my $memory = 0;
ok( wait_until(
		'the end of 50 MB',
		sub {
			my $now = memory_of($executor);
			$memory = $now if $now > $memory;
			return sql("SELECT status FROM cm_jobs WHERE id = $big") eq 'completed';
		},
		patience => 900),
	'it ends');
note(sprintf '50 MB took %.1f s; the executor had at most %.1f MB', time - $begun, $memory);
cmp_ok($memory, '>', 0, 'the memory of the executor was seen');
cmp_ok($memory, '<', 60, 'the executor stays small');
is_same_output($node, $big, numbered(500_000), '', '50 MB');
is(sql("SELECT logs_incomplete FROM cm_jobs WHERE id = $big"), 'f', '50 MB: complete');

# One that prints until it is stopped.
my $flood = submit_command(print_numbered(1_000_000_000, 0.05));
ok(wait_until('the first output', sub { stored_bytes($flood) > 0 }), 'a job prints and prints');
is($node->job_wait(submit_command('echo small')), 'completed', 'another job of the same host ends');
is(sql("SELECT status FROM cm_jobs WHERE id = $flood"), 'running', 'meanwhile');
sql("SELECT cm_cancel_job($flood)");
is($node->job_wait($flood), 'cancelled', 'which is stopped');

# ------------------------------------------------------- kill -9 of the executor

# The job ends when it is told to, so that what is stored before was followed.
my $slow = submit_command(
	print_numbered(300_000, 0.05) . '; ' . until_file('end') . 'printf end');
for my $mark (4, 14)
{
	wait_until("$mark MB", sub { stored_bytes($slow) > $mark * 1_000_000 }, patience => 900);
	my $pid = $node->executor_pid;
	kill 'KILL', $pid;
	wait_until('the server after a crash',
		sub { $node->psql('postgres', 'SELECT 1', stdout => \my $out, stderr => \my $err) == 0 });
	my $now = $node->executor_pid;
	isnt($now, $pid, "another executor after kill -9 at $mark MB");
}
ok( wait_until('all of the output', sub { stored_bytes($slow) == 30_000_000 }, patience => 900),
	'the last executor follows the output on while the job runs');
touch_file($slow, 'end');
is($node->job_wait($slow), 'completed', 'the job ends');
is_same_output($node, $slow, numbered(300_000) . 'end', '', 'kill -9 of the executor');
is(sql("SELECT logs_incomplete FROM cm_jobs WHERE id = $slow"), 'f', 'kill -9: complete');

# ------------------------------------------------------- the engine restarts

my $gates = join '', map { until_file("go$_") . "echo line $_; echo err $_ >&2; " } 1 .. 3;
my $long = submit_command("${gates}printf end");
$node->job_wait($long, status => 'running');
my $lines = "SELECT string_agg(line, ';' ORDER BY ordinality)"
  . " FROM cm_job_logs($long, stream => 'stdout') WITH ORDINALITY";
touch_file($long, 'go1');
ok($node->wait_for_sql($lines, 'line 1'), 'a line before the engine restarts');
$engine->restart;
touch_file($long, 'go2');
ok($node->wait_for_sql($lines, 'line 1;line 2'), 'the next is seen after it, live');
is(sql("SELECT status FROM cm_jobs WHERE id = $long"), 'running', 'while the job runs');
touch_file($long, 'go3');
is($node->job_wait($long), 'completed', 'the job ends');
is_same_output($node, $long, "line 1\nline 2\nline 3\nend", "err 1\nerr 2\nerr 3\n", 'restart of the engine');

# An engine that is killed loses output; what it has is stored, and the loss is told.
my $torn = submit_command(print_numbered(200_000, 0.1));
$node->job_wait($torn, status => 'running');
wait_until('some output', sub { stored_bytes($torn) > 5_000_000 }, patience => 900);
$engine->kill9;
$engine->start_again;
like($node->job_wait($torn), qr/^(?:completed|failed)$/, 'a job whose engine was killed ends');
chunks_are_sound($node, $torn, 'kill -9 of the engine');
is(sql("SELECT logs_incomplete OR octet_length(cm_job_output_bytes(id)) = 20000000 FROM cm_jobs WHERE id = $torn"),
	't', 'output that is short is said to be incomplete');
is( sql("SELECT count(*) - count(DISTINCT line), count(*) > 50000 FROM cm_job_logs($torn)"),
	'0|t', 'no line is stored twice');

# Both are away when a job ends: the next executor has lost no connection, and yet the
# engine has lost output.
my $unseen = submit_command('echo line 1; sleep 3.7; echo line 2');
ok($node->wait_for_sql("SELECT line FROM cm_job_logs($unseen)", 'line 1'), 'a job prints, and server and engine are killed');
$node->stop('immediate');
$engine->kill9;
wait_until('the end of its processes', sub { !eval { $engine->as_root('pgrep', '-f', 'sleep 3[.]7'); 1 } });
$engine->start_again;
$node->start;
like($node->job_wait($unseen), qr/^(?:completed|failed)$/, 'it ends');
is(sql("SELECT logs_incomplete OR cm_job_output(id) = E'line 1\\nline 2\\n' FROM cm_jobs WHERE id = $unseen"),
	't', 'output that is short is said to be incomplete then, too');

# A line that is cut loses nothing.
my $proxy = CM::Proxy->start($engine);
sql("SELECT cm_add_host('local', '" . $proxy->url . "', if_exists => 'update')");
my $cut = submit_command("${gates}printf end");
my $so_far = $lines =~ s/\($long,/($cut,/r;
$node->job_wait($cut, status => 'running');
touch_file($cut, 'go1');
ok($node->wait_for_sql($so_far, 'line 1'), 'a line before the connection is lost');
$proxy->tell('cut');
touch_file($cut, "go$_") for 2, 3;
is($node->job_wait($cut), 'completed', 'the job ends');
is_same_output($node, $cut, "line 1\nline 2\nline 3\nend", "err 1\nerr 2\nerr 3\n", 'cut of the connection');
is(sql("SELECT logs_incomplete FROM cm_jobs WHERE id = $cut"), 'f', 'cut of the connection: complete');

# The end is seen after the connection was lost; whether the engine was restarted
# meanwhile is asked until there is an answer.  Where there is none, nobody knows that
# the output is whole.
my $asked = '/events?since=1&until=';
for my $line ([ "lose 4 $asked", 'f', 'an end behind a bad line' ],
	[ "deny 3 $asked", 'f', 'an end behind what finds no engine' ],
	[ "deny 1000 $asked", 't', 'an end at an engine that cannot tell' ])
{
	my ($command, $is_incomplete, $what) = @$line;
	my $away = submit_command("${gates}printf end");
	$node->job_wait($away, status => 'running');
	$proxy->tell('down');
	touch_file($away, "go$_") for 1 .. 3;
	my $container = container_of($away);
	wait_until('the container has ended', sub { $engine->inspect($container)->{State}{Status} eq 'exited' });
	$proxy->tell($command);
	$proxy->tell('up');
	is($node->job_wait($away), 'completed', $what);
	is_same_output($node, $away, "line 1\nline 2\nline 3\nend", "err 1\nerr 2\nerr 3\n", $what);
	is(sql("SELECT logs_incomplete FROM cm_jobs WHERE id = $away"), $is_incomplete, "$what: incomplete or not");
}
sql("SELECT cm_add_host('local', '" . $engine->url . "', if_exists => 'update')");

# ------------------------------------------------------- somebody's lock

my $locked = submit_command('echo one; ' . until_file('go') . 'echo two');
ok($node->wait_for_sql("SELECT line FROM cm_job_logs($locked)", 'one'), 'a job prints');
my $holder = $node->session;
$holder->query_safe("BEGIN; SELECT FROM cm_internal.queue WHERE job_id = $locked FOR UPDATE");
my $other = submit_command('echo three');
is($node->job_wait($other), 'completed', 'a lock on its row does not stop another job');
touch_file($locked, 'go');
ok( wait_until(
		'the end of the container', sub { !$engine->containers(status => 'running') }),
	'its container ends');
my $pid = $node->executor_pid;
my $cpu = cpu_of($pid);
my $until = time + 2;
usleep(100_000) while time < $until;
cmp_ok(cpu_of($pid) - $cpu, '<', 1, 'the executor does not spin while it waits for the lock');
$holder->query_safe('COMMIT');
$holder->quit;
is($node->job_wait($locked), 'completed', 'it ends when the lock is gone');
is_same_output($node, $locked, "one\ntwo\n", '', 'a locked job');

sub cpu_of
{
	my ($process) = @_;
	open(my $stat, '<', "/proc/$process/stat") or return 0;
	my @field = split / /, <$stat>;
	return ($field[13] + $field[14]) / 100;
}

# ------------------------------------------------------- the limit

sql("ALTER SYSTEM SET container_manager.max_log_size = '64kB'");
sql('SELECT pg_reload_conf()');
is(sql('SHOW container_manager.max_log_size'), '64kB', 'a low limit');
# The limit is the executor's when it has read its configuration, too.
my $over = submit_command(print_numbered(5000) . '; echo the end >&2; sleep 1; echo more; exit 4');
is($node->job_wait($over), 'failed', 'a job over the limit ends');
my $size = sql("SELECT octet_length(cm_job_output_bytes($over))");
cmp_ok($size, '<=', 65_536, 'no more is kept than the limit');
cmp_ok($size, '>', 65_536 - 101, 'and no less');
is_stored($node, $over, 'stdout', substr(numbered(5000), 0, $size), 'what is kept is the beginning');
chunks_are_sound($node, $over, 'over the limit');
is( sql("SELECT logs_incomplete, detail, exit_code FROM cm_jobs WHERE id = $over"),
	't|logs incomplete|4', 'the job says so');
is(sql("SELECT logs_incomplete FROM cm_job_attempts WHERE job_id = $over"), 't', 'so does its attempt');
my $parts = submit_command(q{head -c 60000 /dev/zero | tr '\0' x; head -c 20000 /dev/zero | tr '\0' y; echo; echo z});
$node->job_wait($parts);
is_stored($node, $parts, 'stdout', 'x' x 60_000 . 'y' x 5536, 'four parts of 16 kB fit exactly, and nothing comes behind them');
sql('ALTER SYSTEM RESET container_manager.max_log_size');
sql('SELECT pg_reload_conf()');

# ------------------------------------------------------- other encodings

my $text = q{printf 'caf\303\251 \342\202\254 \0\377 end\n'; printf '\303\251' >&2};
my %shown = (
	# encoding => [text as hex in the database's own encoding, stderr likewise]
	LATIN1 => [ 'caf' . "\xe9", "\xe9" ],
	SQL_ASCII => [ "caf\xc3\xa9", "\xc3\xa9" ]);
for my $encoding (sort keys %shown)
{
	my $database = lc $encoding;
	sql("CREATE DATABASE $database ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	sql('CREATE EXTENSION container_manager', $database);
	sql("SELECT cm_add_host('local', '" . $engine->url . "')", $database);
	my $job = sql("SELECT cm_submit_job('busybox:test', \$c\$$text\$c\$)", $database);
	is($node->job_wait($job, database => $database), 'completed', "$encoding: a job ends");
	# The engine itself replaces the byte that is not UTF-8.
	is_same_output($node, $job, "caf\xc3\xa9 \xe2\x82\xac \0\xef\xbf\xbd end\n", "\xc3\xa9", $encoding,
		database => $database);
	my $hex = sql("SELECT encode(textsend(line), 'hex') FROM cm_job_logs($job, stream => 'stdout')",
		$database);
	my $beginning = unpack 'H*', $shown{$encoding}[0];
	note("$encoding: $hex");
	like($hex, qr/^$beginning/, "$encoding: lines are text of the database");
	like($hex, qr/656e64$/, "$encoding: to the end");
	unlike($hex, qr/^(?:..)*00/, "$encoding: without NUL");
	is(sql("SELECT encode(textsend(cm_job_output($job)), 'hex')", $database), $hex . '0a',
		"$encoding: output is the same text");
	is(sql("SELECT encode(textsend(cm_job_stderr($job)), 'hex')", $database),
		unpack('H*', $shown{$encoding}[1]), "$encoding: stderr");
	is(sql("SELECT cm_job_output_lossy($job)", $database), 't', "$encoding: it was not all text");
	my $plain = sql("SELECT cm_submit_job('busybox:test', 'echo plain')", $database);
	$node->job_wait($plain, database => $database);
	is(sql("SELECT cm_job_output($plain), cm_job_output_lossy($plain)", $database),
		"plain\n|f", "$encoding: plain text is all there");
}

done_testing();
