# A streaming standby: it says what it is, runs no executor, and takes no work;
# promoted after its primary was stopped in order it goes on where that left off.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use PostgreSQL::Test::Utils;
use Test::More;

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');

my $primary = CM::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'container_manager'
max_worker_processes = 16
fsync = off
log_min_messages = info
log_statement = none
CONF
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION container_manager');
$primary->backup('base');
my $standby = CM::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

sub status_of { my ($node, $column) = @_; return $node->safe_psql('postgres', "SELECT $column FROM cm_status"); }

sub processes
{
	my ($node) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'container_manager%'");
}

sub complaints
{
	my ($sql) = @_;
	my ($stdout, $stderr) = ('', '');
	$standby->psql('postgres', $sql, stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

sub work_on_the_primary
{
	my %job;
	$primary->add_host('local', $engine);
	$job{finished} = $primary->submit(q{'busybox:test', 'printf hello'});
	$primary->job_wait($job{finished});
	$job{running} = $primary->submit(q{'busybox:test', 'echo begun; until [ -e /tmp/go ]; do sleep 0.2; done; echo over; exit 5'});
	$job{later} = $primary->submit(q{'busybox:test', 'echo later', run_at => now() + interval '1 h'});
	ok($primary->wait_for_sql("SELECT status || cm_job_output(id) FROM cm_jobs WHERE id = $job{running}", "runningbegun\n"), 'a job runs');
	$primary->wait_for_catchup($standby);
	return %job;
}

sub is_a_standby
{
	my (%job) = @_;
	is(status_of($standby, 'state'), 'standby', 'standby: cm_status says so');
	is(status_of($standby, 'is_running'), 'f', 'standby: nothing runs');
	like(status_of($standby, 'explanation'), qr/standby.*primary.*promotion/, 'standby: in words');
	is(processes($standby), 0, 'standby: no launcher, no executor');
	like(complaints('SELECT cm_start_executor()'), qr/ERROR:.*recovery.*HINT:.*promoted/s, 'standby: cm_start_executor() is refused');
	like(complaints("SELECT cm_submit_job('busybox:test')"), qr/ERROR:.*read-only/, 'standby: no job can be submitted');
	is($standby->safe_psql('postgres', "SELECT cm_job_output($job{finished})"), 'hello', 'standby: output is read there');
	like(complaints('TABLE cm_ps; TABLE cm_host_status; TABLE cm_queue_status; TABLE cm_job_summary'), qr/\A\z/, 'standby: views');
	for my $name (sort keys %job)
	{
		is(complaints("SELECT * FROM cm_job_explain($job{$name})"), '', "standby: cm_job_explain of $name");
	}
	# It is asked at the end of every transaction; a restart changes nothing.
	$standby->restart;
	is(processes($standby), 0, 'standby: nor after a restart');
	is(status_of($primary, 'state'), 'running', 'primary: runs meanwhile');
	return;
}

sub promoted
{
	my (%job) = @_;
	$primary->stop('fast');
	my ($container) = $engine->containers(label => "container-manager.job=$job{running}");
	is($container && $container->{State}, 'running', 'the container runs on without a server');
	my $log = -s $standby->logfile;
	$standby->promote;
	ok($standby->wait_for_sql('SELECT state FROM cm_status', 'running'), 'promoted: the executor starts by itself');
	is($standby->safe_psql('postgres', "SELECT status || ' ' || attempt FROM cm_jobs WHERE id = $job{running}"), 'running 1', 'promoted: the job runs');
	ok($standby->wait_for_sql('SELECT healthy_hosts FROM cm_status', 1), 'promoted: the host is there');
	$engine->docker_try('exec', $container->{Id}, 'touch', '/tmp/go');
	is($standby->job_wait($job{running}), 'failed', 'promoted: it comes to its end');
	is($standby->safe_psql('postgres', "SELECT attempt || ' ' || exit_code || ' ' || cm_job_output(id) FROM cm_jobs WHERE id = $job{running}"),
		"1 5 begun\nover\n", 'promoted: started once, with exit code and output');
	my $new = $standby->submit(q{'busybox:test', 'echo new'});
	is($standby->job_wait($new), 'completed', 'promoted: a new job runs');
	is($standby->safe_psql('postgres', "SELECT status FROM cm_jobs WHERE id = $job{later}"), 'pending', 'promoted: what waited waits');
	$standby->safe_psql('postgres', "SELECT cm_cancel_job($job{later})");
	is($standby->job_wait($job{later}), 'cancelled', 'promoted: and can be cancelled');
	unlike(substr(slurp_file($standby->logfile), $log), qr/ERROR|FATAL(?!.*walreceiver|.*terminating walreceiver|.*could not connect to the primary)|PANIC/, 'promoted: no error in the log');
	return;
}

my %job = work_on_the_primary();
is_a_standby(%job);
promoted(%job);

$standby->stop;
done_testing();
