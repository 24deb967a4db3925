# A dump restored into another database, by psql and by pg_restore: what is over
# can be read there as before; what is not over stays as it is and says so, whatever
# state it was in; nothing is started, ended, removed or told of because of the copy,
# and the original goes on.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_with_extension('main', 'container_manager.max_memory_limit' => '2048MB');
my $dir = PostgreSQL::Test::Utils::tempdir();
my %job;

sub sql
{
	my ($sql, $database) = @_;
	return $node->safe_psql($database // 'postgres', $sql);
}

# The words on stderr.
sub complaints
{
	my ($database, $sql) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql($database, $sql, stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

sub submit
{
	my ($name, @arguments) = @_;
	my $arguments = join ', ', "'busybox:test'", @arguments, "name => '$name'";
	$job{$name} = sql("SELECT cm_submit_job($arguments)");
	return $job{$name};
}

# What is the same in both databases, for jobs that are over.
sub history
{
	my ($database) = @_;
	my $ids = join ', ', @job{qw(finished failed too_big of_nobody)};
	return join "\n", map { sql($_, $database) } (
		"SELECT id, status, failure_reason, exit_code, error, hint, created_at, started_at, completed_at, updated_at, owner, epoch, attempt,"
		  . " cm_job_output(id), cm_job_stderr(id), cm_job_output_bytes(id) FROM cm_jobs WHERE id IN ($ids) ORDER BY id",
		"SELECT * FROM cm_job_attempts WHERE job_id IN ($ids) ORDER BY 1, 2",
		"SELECT * FROM cm_job_logs($job{finished})",
		# The state is told "as another database left it"; a host may be known there or not.
		"SELECT * FROM cm_job_explain($job{failed}) WHERE item NOT IN ('state', 'host')");
}

sub jobs_there
{
	$node->add_host('local', $engine, "max_concurrent_jobs => 7", "description => 'the one'");
	$node->add_host('away', 'unix:///nonexistent/socket');
	sql("SELECT cm_disable_host('away', 'in repair')");

	submit('finished', q{E'echo out; echo oops >&2; printf ''a\\\\000b''; echo "ünï"'});
	submit('failed', q{'exit 7'});
	submit('too_big', q{'echo big'}, 'memory_limit => 2000');
	sql("CREATE ROLE shortlived; GRANT USAGE ON SCHEMA public TO shortlived;"
		  . " GRANT EXECUTE ON FUNCTION cm_submit_job TO shortlived; GRANT INSERT, SELECT ON cm_jobs TO shortlived");
	$job{of_nobody} = sql("SET ROLE shortlived; SELECT cm_submit_job('busybox:test', 'echo mine')");
	$node->job_wait($_) for values %job;
	$job{later_of_nobody} = sql("SET ROLE shortlived; SELECT cm_submit_job('busybox:test', 'echo mine', host => 'away')");

	submit('running', q{'echo begun; until [ -e /tmp/go ]; do sleep 0.2; done; echo over; exit 5'});
	submit('later', q{'echo later'}, "run_at => now() + interval '1 h'");
	submit('waiting', q{'echo waiting'}, "host => 'away'");
	submit('big_later', q{'echo big'}, 'memory_limit => 2000', "host => 'away'");
	ok($node->wait_for_sql("SELECT status || cm_job_output(id) FROM cm_jobs WHERE id = $job{running}", "runningbegun\n"), 'a job runs');

	# From now on the limits are lower, and a role is gone.
	sql("REASSIGN OWNED BY shortlived TO CURRENT_USER; DROP OWNED BY shortlived; DROP ROLE shortlived");
	sql("ALTER SYSTEM SET container_manager.max_memory_limit = '1000MB'");
	$node->reload;
	return;
}

sub dump_all
{
	sql("CREATE ROLE dumper LOGIN; GRANT pg_read_all_data TO dumper");
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/plain.sql" ], 'pg_dump');
	$node->command_ok([ 'pg_dump', '-Fc', '-U', 'dumper', '-d', $node->connstr('postgres'), '-f', "$dir/custom" ],
		'pg_dump by a role that may read all data');
	my $dump = slurp_file("$dir/plain.sql");
	unlike($dump, qr/identity \(epoch|COPY cm_internal\.queue/, 'who the database is, and its queue, are not in it');
	return;
}

sub restore
{
	my ($how) = @_;
	sql("CREATE DATABASE $how");
	# Whoever listens hears of no job, since none has changed.
	my $listener = $node->session($how);
	$listener->query_safe('LISTEN cm_job_status');
	my @command = $how eq 'plain'
	  ? ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($how), '-f', "$dir/plain.sql")
	  : ('pg_restore', '--exit-on-error', '-d', $node->connstr($how), "$dir/custom");
	$node->command_ok(\@command, "$how: restored without an error");
	ok($node->wait_for_sql('SELECT state FROM cm_status', 'running', database => $how), "$how: has an executor");
	return $listener;
}

sub unfinished { return @job{qw(running later waiting big_later later_of_nobody)}; }

sub inert
{
	my ($database) = @_;
	my $ids = join ', ', unfinished();
	is(sql("SELECT string_agg(status, ' ' ORDER BY id) FROM cm_jobs WHERE id IN ($ids)", $database),
		'pending running pending pending pending', "$database: unfinished jobs are as they were");
	is(sql("SELECT count(*) FROM cm_internal.queue", $database), 0, "$database: none is on the queue");
	is(sql("SELECT count(*) FROM cm_jobs WHERE id IN ($ids) AND detail LIKE '%does not run here%'", $database), 5,
		"$database: they say why in detail");
	is(sql("SELECT count(*) FROM cm_ps WHERE id IN ($ids) AND why LIKE 'cop%'", $database), 5, "$database: cm_ps says why");
	like(sql('SELECT explanation FROM cm_status', $database), qr/5 .*(copy|copied|another database)/, "$database: cm_status tells of them");
	for my $name (qw(running later big_later later_of_nobody))
	{
		like(sql("SELECT string_agg(item || ': ' || explanation, ' ' ORDER BY item) FROM cm_job_explain($job{$name})", $database),
			qr/advice: [^:]*cm_adopt_restored_jobs.*as another database left it/, "$database: cm_job_explain of $name");
		like(complaints($database, "SELECT cm_cancel_job($job{$name})"), qr/ERROR:.*copy from another database/, "$database: $name cannot be cancelled");
	}
	return;
}

sub copy_is_right
{
	my ($database, $before) = @_;
	is(history($database), $before, "$database: what is over can be read as before");
	inert($database);
	is(sql("SELECT count(*) || ' ' || max(seq) FROM cm_job_events", $database), sql("SELECT count(*) || ' ' || max(seq) FROM cm_job_events"),
		"$database: no events are made up");
	isnt(sql('SELECT epoch FROM cm_internal.identity', $database), sql('SELECT epoch FROM cm_internal.identity'), "$database: an epoch of its own");
	is(sql("SELECT id, name, connection_string, max_concurrent_jobs, is_active, description FROM cm_hosts ORDER BY id", $database),
		sql("SELECT id, name, connection_string, max_concurrent_jobs, is_active, description FROM cm_hosts ORDER BY id"), "$database: hosts come along");
	is(sql("SELECT state || ' ' || drain_reason FROM cm_host_status WHERE name = 'away'", $database), 'drained in repair', "$database: drains, too");
	return;
}

# New work in the copy, beside what came along.
sub copy_works
{
	my ($database) = @_;
	my $new = sql("SELECT cm_submit_job('busybox:test', 'printf new')", $database);
	cmp_ok($new, '>', (sort { $a <=> $b } values %job)[-1], "$database: numbers go on");
	is($node->job_wait($new, database => $database), 'completed', "$database: a new job runs")
	  or diag(sql("SELECT * FROM cm_job_explain($new)", $database));
	is(sql("SELECT cm_job_output($new)", $database), 'new', "$database: and is read");
	cmp_ok(sql("SELECT min(seq) FROM cm_job_events WHERE job_id = $new", $database), '>', 1, "$database: so do the events'");
	is(sql("SELECT name || id FROM cm_add_host('third', 'unix:///x') JOIN cm_hosts ON name = 'third'", $database), 'third3', "$database: and the hosts'")
	  if sql("SELECT count(*) FROM pg_proc WHERE proname = 'cm_add_host' AND prorettype = 'record'::regtype", $database);
	return;
}

sub original_is_unharmed
{
	my ($before) = @_;
	my $epoch = sql('SELECT epoch FROM cm_internal.identity');
	is(history('postgres'), $before, 'the original: history as it was');
	is(sql("SELECT status || ' ' || attempt FROM cm_jobs WHERE id = $job{running}"), 'running 1', 'the original: its job runs on');
	my @containers = $engine->containers(label => "container-manager.epoch=$epoch");
	is(scalar @containers, 1, 'in its container') or return;
	$engine->docker('exec', $containers[0]{Id}, 'touch', '/tmp/go');
	is($node->job_wait($job{running}), 'failed', 'to its end');
	is(sql("SELECT exit_code || ' ' || cm_job_output(id) FROM cm_jobs WHERE id = $job{running}"), "5 begun\nover\n", 'with exit code and output');
	sql("SELECT cm_enable_host('away')");
	is(sql("SELECT cm_cancel_job($job{later})"), 't', 'and what waits can be cancelled');
	is($node->job_wait($job{later}), 'cancelled', 'there');
	return;
}

jobs_there();
dump_all();
my $before = history('postgres');
for my $how (qw(plain custom))
{
	my $listener = restore($how);
	copy_is_right($how, $before);
	copy_works($how);
	my $heard = $listener->query_safe('SELECT 1');
	my $old = join '|', values %job;
	unlike("$heard $listener->{stderr}", qr/"job_id":(?:$old),/, "$how: no notification is made up");
	$listener->quit;
}

# A copy of the copy is the same again, and one that is dropped takes nothing with it.
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('custom'), '-f', "$dir/again" ], 'pg_dump of the copy');
sql('CREATE DATABASE again');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('again'), "$dir/again" ], 'restored');
copy_is_right_again();
sql('DROP EXTENSION container_manager', 'plain');
ok($node->wait_for_sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'container_manager executor' AND datname = 'plain'", 0),
	'DROP EXTENSION in a copy');
original_is_unharmed($before);
is(sql("SELECT status FROM cm_jobs WHERE id = $job{running}", 'custom'), 'running', 'the copies take no notice of it');
adopted_in_a_template_copy('custom');
adopted_jobs_run('custom');

$node->stop;
done_testing();

# Adoption is the first thing that is done there, so that no executor has looked yet.
sub adopted_in_a_template_copy
{
	my ($template) = @_;
	sql("CREATE DATABASE twin TEMPLATE $template");
	is(sql('SELECT cm_adopt_restored_jobs()', 'twin'), 5, 'twin: jobs that came by a copy are adopted');
	ok($node->wait_for_sql("SELECT status || attempt FROM cm_jobs WHERE id = $job{running}", 'running2', database => 'twin'),
		'twin: and run');
	is(sql("SELECT count(cm_cancel_job(job_id)) FROM cm_internal.queue", 'twin'), 5, 'twin: all five are in its queue');
	ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0, database => 'twin'), 'twin: and end when cancelled');
	return;
}

# Now that the original is done with them, the copy may run them after all.
sub adopted_jobs_run
{
	my ($database) = @_;
	my $epoch = sql('SELECT epoch FROM cm_internal.identity', $database);
	is(sql('BEGIN; SELECT cm_adopt_restored_jobs(); ROLLBACK', $database), 5, "$database: adoption that is rolled back");
	is(sql("SELECT count(*) FROM cm_internal.queue", $database), 0, "$database: changes nothing");
	is(sql('SELECT cm_adopt_restored_jobs()', $database), 5, "$database: the unfinished jobs are adopted");
	is(sql('SELECT cm_adopt_restored_jobs()', $database), 0, "$database: once");
	ok($node->wait_for_sql("SELECT status || attempt FROM cm_jobs WHERE id = $job{running}", 'running2', database => $database),
		"$database: what ran elsewhere runs as a new attempt");
	is(sql("SELECT concat_ws(' ', attempt, status, failure_reason, logs_incomplete) FROM cm_job_attempts WHERE job_id = $job{running}", $database),
		'1 failed abandoned t', "$database: the one that ran there is given up");
	my ($container) = $engine->containers(label => "container-manager.epoch=$epoch");
	$engine->docker('exec', $container->{Id}, 'touch', '/tmp/go');
	is($node->job_wait($job{running}, database => $database), 'failed', "$database: it ends");
	is(sql("SELECT exit_code || ' ' || cm_job_output(id) FROM cm_jobs WHERE id = $job{running}", $database), "5 begun\nover\n", "$database: as it should");
	like(sql("SELECT why FROM cm_ps WHERE id = $job{later}", $database), qr/not due/, "$database: what was not due waits");
	is(sql("SELECT cm_cancel_job($job{later})", $database), 't', "$database: and can be cancelled");
	is($node->job_wait($job{later}, database => $database), 'cancelled', "$database: now");
	sql("SELECT cm_add_host('away', '" . $engine->url . "', if_exists => 'update'), cm_enable_host('away')", $database);
	is($node->job_wait($job{waiting}, database => $database), 'completed', "$database: what waited for a host runs when that is there");
	is(sql("SELECT cm_job_output($job{waiting})", $database), "waiting\n", "$database: with its output");
	for my $name (qw(big_later later_of_nobody))
	{
		is($node->job_wait($job{$name}, database => $database), 'failed', "$database: $name is checked again");
		is(sql("SELECT failure_reason FROM cm_jobs WHERE id = $job{$name}", $database), 'policy', "$database: and refused");
	}
	is(sql('SELECT count(*) FROM cm_internal.inert_jobs', $database), 0, "$database: no inert job is left");
	return;
}

sub copy_is_right_again
{
	is(history('again'), $before, 'the copy of a copy: history');
	ok($node->wait_for_sql('SELECT state FROM cm_status', 'running', database => 'again'), 'the copy of a copy: has an executor');
	inert('again');
	return;
}
