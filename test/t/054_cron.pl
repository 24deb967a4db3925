# Recurrence by pg_cron, as doc/jobs.md has it: it submits, and a unique_key or a
# concurrency_key keeps runs apart.  Nothing of a container matters here.
use strict;
use warnings;

use CM::Cluster;
use CM::Document;
use Test::More;

my $node = CM::Cluster->new_preloaded('main',
	'shared_preload_libraries' => 'pg_cron,container_manager',
	'cron.database_name' => 'postgres',
	'cron.use_background_workers' => 'on',
	'max_worker_processes' => 20);
$node->start;

sub value { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# The lines that are shown there, but for the time.
my ($shown) = grep { /cron\.schedule/ } map { $_->[1] } CM::Document::blocks(CM::Document->new('doc/jobs.md')->section('Order and time'));
ok($shown, 'the document has an example');
$shown =~ s/0 3 \* \* \*/* * * * */ or die;
value('CREATE EXTENSION container_manager');
value("SELECT cm_add_host('m', 'mock://m', executor_type => 'mock', executor_config => '{\"delay\": \"24 h\"}')");
value($shown);
value(q{SELECT cron.schedule('waiting', '* * * * *', $$SELECT cm_submit_job('reports:7', 'x', name => 'waiting', concurrency_key => 'w')$$)});
value(q{SELECT cron.schedule('skipping', '* * * * *', $$SELECT cm_submit_job('reports:7', 'x', name => 'nightly report',
	unique_key => 'nightly report', on_conflict => 'skip')$$)});
ok($node->wait_for_sql("SELECT count(*) > 0 FROM cm_jobs WHERE name = 'nightly report' AND status = 'running'", 't'), 'it runs when its time comes');
ok($node->wait_for_sql("SELECT count(*) >= 3 FROM cron.job_run_details WHERE status = 'succeeded'", 't'), 'pg_cron is content with all three');
is(value("SELECT count(*) FROM cm_jobs WHERE name = 'nightly report'"), 1, 'of two that ask for the same, one is left out');
is(value("SELECT count(DISTINCT owner) FROM cm_jobs"), 1, 'it belongs to whoever scheduled it');
ok($node->wait_for_sql("SELECT status FROM cm_jobs WHERE name = 'waiting'", 'running'), 'and so does the other');
value("SELECT cm_submit_job('reports:7', 'x', name => 'waiting', concurrency_key => 'w')");
ok($node->wait_for_sql("SELECT count(*) FROM cm_internal.queue WHERE is_held", 1), 'the next run waits for this one');
value("SELECT cron.unschedule('nightly report'), cron.unschedule('waiting'), cron.unschedule('skipping')");
value("UPDATE cm_hosts SET executor_config = '{}'");
ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.queue', 0), 'all come to their end');
$node->stop;
done_testing();
