# pg_upgrade (to the same version, which it allows): the upgraded server goes on
# where the old one left off, under the same epoch, with what runs on the hosts; the
# old one, started again, leaves it alone.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use PostgreSQL::Test::Utils;
use Test::More;

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
my $old = CM::Cluster->new_with_extension('old');
my $new = CM::Cluster->new_preloaded('new');
my %job;

sub in_old { my ($sql) = @_; return $old->safe_psql('postgres', $sql); }
sub in_new { my ($sql) = @_; return $new->safe_psql('postgres', $sql); }

$old->add_host('local', $engine);
$job{finished} = $old->submit(q{'busybox:test', 'printf hello'});
$old->job_wait($job{finished});
$job{running} = $old->submit(q{'busybox:test', 'echo begun; until [ -e /tmp/go ]; do sleep 0.2; done; echo over; exit 5'});
$job{later} = $old->submit(q{'busybox:test', 'echo later', run_at => now() + interval '1 h'});
ok($old->wait_for_sql("SELECT status || cm_job_output(id) FROM cm_jobs WHERE id = $job{running}", "runningbegun\n"), 'a job runs');
my $epoch = in_old('SELECT epoch FROM cm_internal.identity');
my $before = in_old('SELECT seq, job_id, status FROM cm_job_events ORDER BY seq');
$old->stop;

my $bin = $old->config_data('--bindir');
chdir PostgreSQL::Test::Utils::tempdir();
$new->command_ok(
	[
		'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin,
		'-s', $new->host, '-p', $old->port, '-P', $new->port
	],
	'pg_upgrade');
my ($container) = $engine->containers(label => "container-manager.job=$job{running}");
is($container && $container->{State}, 'running', 'the container has run on');

$new->start;
ok($new->wait_for_sql('SELECT state FROM cm_status', 'running'), 'the executor starts by itself');
is(in_new('SELECT epoch FROM cm_internal.identity'), $epoch, 'under the same epoch');
is(in_new('SELECT incarnation FROM cm_internal.identity'), 2, 'as a higher incarnation');
is(in_new('SELECT seq, job_id, status FROM cm_job_events ORDER BY seq'), $before, 'no events are made up');
is(in_new("SELECT cm_job_output($job{finished})"), 'hello', 'what was over can be read');
is(in_new("SELECT string_agg(status || attempt, ' ' ORDER BY id) FROM cm_jobs"), 'completed1 running1 pending0', 'jobs are as they were');
$engine->docker_try('exec', $container->{Id}, 'touch', '/tmp/go');
is($new->job_wait($job{running}), 'failed', 'what ran comes to its end');
is(in_new("SELECT attempt || ' ' || exit_code || ' ' || cm_job_output(id) FROM cm_jobs WHERE id = $job{running}"), "1 5 begun\nover\n",
	'started once, with exit code and output');
my $fresh = $new->submit(q{'busybox:test', 'exit 0'});
is($new->job_wait($fresh), 'completed', 'a new job runs');
is($fresh, $job{later} + 1, 'with the next number');
in_new("SELECT cm_cancel_job($job{later})");
is($new->job_wait($job{later}), 'cancelled', 'what waits can be cancelled');

# Somebody starts the old one again.
$old->start;
ok($old->wait_for_sql('SELECT state FROM cm_status', 'held'), 'the old server holds');
is(in_old('SELECT held_because FROM cm_internal.identity'), 'superseded', 'because it was superseded');
is(in_old("SELECT status FROM cm_jobs WHERE id = $job{later}"), 'pending', 'it does nothing more');
is(in_new('SELECT state FROM cm_status'), 'running', 'the new one goes on');
$old->stop;

$new->stop;
done_testing();
