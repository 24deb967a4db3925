# A server that does not have the library in shared_preload_libraries: it says what
# to do, in every place where somebody would look; an executor can be started by
# hand, and works until the server is restarted.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use PostgreSQL::Test::Utils;
use Test::More;

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $node = CM::Cluster->new_preloaded('main', 'shared_preload_libraries' => '');
$node->start;

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub complaints
{
	my ($sql) = @_;
	my ($stdout, $stderr) = ('', '');
	$node->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

my $line = qr/shared_preload_libraries = 'container_manager'/;

sub says_so
{
	is(sql('SELECT state FROM cm_status'), 'not preloaded', 'cm_status');
	like(sql('SELECT advice FROM cm_status'), qr/$line.*postgresql\.conf.*restart.*cm_start_executor/, 'with advice');
	like(complaints("SELECT cm_submit_job('busybox:test', 'printf early')"),
		qr/WARNING:.*nobody runs it: .*shared_preload_libraries.*HINT:.*cm_start_executor/s, 'who submits a job is warned');
	is(sql('SELECT why FROM cm_ps'), 'no executor running', 'cm_ps');
	return;
}

sub started_by_hand
{
	my $said = complaints('SELECT cm_start_executor()');
	like($said, qr/WARNING:.*until the server is restarted.*HINT:.*$line/s, 'cm_start_executor() says what to add to postgresql.conf');
	is(sql('SELECT state FROM cm_status'), 'running', 'cm_status: runs');
	like(sql('SELECT advice FROM cm_status'), qr/not run after a restart.*$line/, 'but not for ever');
	is(sql('SELECT cm_start_executor()'), 'f', 'a second call starts nothing');
	is($node->job_wait(1), 'completed', 'the job that was submitted before runs');
	is(complaints("SELECT cm_submit_job('busybox:test', 'exit 3')"), '', 'no warning now');
	is($node->job_wait(2), 'failed', 'the next one, too');
	return;
}

sub in_one_transaction
{
	sql('DROP EXTENSION container_manager');
	like(complaints('BEGIN; CREATE EXTENSION container_manager; SELECT cm_start_executor(); COMMIT'),
		qr/ERROR:.*created or altered in this transaction.*HINT:.*Commit/s, 'in the transaction of CREATE EXTENSION it cannot be started');
	return;
}

# Without the library the server does not ask the executor to step aside.
sub dropped_database
{
	sql('CREATE DATABASE other');
	$node->psql('other', "CREATE EXTENSION container_manager; SELECT cm_start_executor()");
	ok($node->wait_for_sql('SELECT state FROM cm_status', 'running', database => 'other'), 'an executor in another database');
	isnt($node->psql('postgres', 'DROP DATABASE other'), 0, 'DROP DATABASE fails: somebody is connected');
	is($node->safe_psql('other', 'SELECT cm_stop_executor()'), 't', 'cm_stop_executor()');
	is($node->safe_psql('other', 'SELECT state FROM cm_status'), 'stopped', 'cm_status: stopped');
	sql('DROP DATABASE other');
	sql('CREATE DATABASE other');
	$node->psql('other', "CREATE EXTENSION container_manager; SELECT cm_start_executor()");
	sql('DROP DATABASE other WITH (FORCE)');
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'container_manager%'"), 0, 'DROP DATABASE WITH (FORCE)');
	return;
}

sub ended
{
	my $warning = complaints('CREATE EXTENSION container_manager');
	like($warning, qr/WARNING:.*not preloaded.*HINT:.*$line.*cm_start_executor/s, 'CREATE EXTENSION warns');
	$node->add_host('local', $engine);
	complaints('SELECT cm_start_executor()');
	my $job = sql("SELECT cm_submit_job('busybox:test', 'echo begun; until [ -e /tmp/go ]; do sleep 0.2; done; exit 5')");
	is($node->job_wait($job, status => 'running'), 'running', 'a job runs');
	my $pid = $node->executor_pid;
	sql("SELECT pg_terminate_backend($pid)");
	ok($node->wait_for_sql('SELECT state FROM cm_status', 'crashed'), 'cm_status: ended by itself');
	like(complaints("SELECT cm_submit_job('busybox:test', 'exit 0')"), qr/WARNING:.*nobody runs it/, 'who submits a job is warned');
	like(sql('SELECT advice FROM cm_status'), qr/cm_start_executor/, 'with advice, for nobody brings it back');
	complaints('SELECT cm_start_executor()');
	is(sql('SELECT state FROM cm_status'), 'running', 'started again by hand');
	is(sql("SELECT status || attempt FROM cm_jobs WHERE id = $job"), 'running1', 'the job runs on');

	# Preloaded as was advised.
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'container_manager'");
	$node->restart;
	ok($node->wait_for_sql('SELECT state FROM cm_status', 'running'), 'preloaded after a restart it runs by itself');
	is(sql('SELECT advice FROM cm_status'), '', 'without advice');
	my ($container) = $engine->containers(label => "container-manager.job=$job");
	$engine->docker('exec', $container->{Id}, 'touch', '/tmp/go');
	is($node->job_wait($job), 'failed', 'and the job comes to its end');
	is(sql("SELECT attempt || ' ' || exit_code || ' ' || cm_job_output(id) FROM cm_jobs WHERE id = $job"), "1 5 begun\n", 'started once');
	return;
}

like(complaints('CREATE EXTENSION container_manager'), qr/WARNING:.*not preloaded.*HINT:.*$line.*cm_start_executor/s, 'CREATE EXTENSION warns');
$node->add_host('local', $engine);
says_so();
started_by_hand();
$node->restart;
says_so_after_restart();
in_one_transaction();
dropped_database();
ended();
unlike(slurp_file($node->logfile), qr/PANIC|was terminated by signal|TRAP:/, 'nothing has crashed');

$node->stop;
done_testing();

sub says_so_after_restart
{
	is(sql('SELECT state FROM cm_status'), 'not preloaded', 'after a restart it is as before');
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'container_manager%'"), 0, 'no process of ours');
	return;
}
