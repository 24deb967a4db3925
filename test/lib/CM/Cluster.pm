# CM::Cluster: a PostgreSQL server with the extension preloaded.
#
#   my $node = CM::Cluster->new_preloaded('main', 'container_manager.x' => 'y');
#   $node->start;
#   $node->safe_psql('postgres', 'CREATE EXTENSION container_manager');
#
# It is a PostgreSQL::Test::Cluster with all that has; what is added here waits
# for conditions with a deadline, so that no script has to sleep.
package CM::Cluster;

use strict;
use warnings;

use parent -norequire, 'PostgreSQL::Test::Cluster';

use Exporter qw(import);
use PostgreSQL::Test::BackgroundPsql;
use PostgreSQL::Test::Cluster;
# Without its names: they would hide methods of the server's, such as command_fails.
use PostgreSQL::Test::Utils ();
use Test::More ();
use Time::HiRes qw(time usleep);

our @EXPORT_OK = qw(wait_until);

# Seconds until a wait gives up: long, for it is only reached when a test fails.
our $patience = 300;

# Waits until the condition holds, and gives what it gave last.
sub wait_until
{
	my ($condition) = @_;
	my $deadline = time + $patience;
	my $is_so;
	until ($is_so = $condition->() or time > $deadline) { usleep(20_000) }
	return $is_so;
}

# Makes and initialises a server, not started.  Further settings by name.
sub new_preloaded
{
	my ($class, $name, %setting) = @_;
	my $node = $class->new($name);
	$node->init;
	%setting = (
		'shared_preload_libraries' => 'container_manager',
		# Killing the server is part of some tests, cutting the power is not.
		'fsync' => 'off',
		'log_min_messages' => 'info',
		'log_statement' => 'none',
		'max_worker_processes' => '16',
		'restart_after_crash' => 'on',
		%setting);
	for my $key (sort keys %setting)
	{
		(my $value = $setting{$key}) =~ s/'/''/g;
		$node->append_conf('postgresql.conf', "$key = '$value'");
	}
	return $node;
}

# The same, started, with the extension made in database postgres.
sub new_with_extension
{
	my ($class, @args) = @_;
	my $node = $class->new_preloaded(@args);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION container_manager');
	return $node;
}

sub add_host
{
	my ($node, $name, $engine, @more) = @_;
	my $url = ref $engine ? $engine->url : $engine;
	my $arguments = join ', ', "'$name'", "'$url'", @more;
	return $node->safe_psql('postgres', "SELECT cm_add_host($arguments)");
}

# Waits until the query gives the expected text.  On time-out says what it gave
# instead and returns false; the caller's ok() makes it a failure:
#   ok($node->wait_for_sql('SELECT count(*) FROM x', 3), 'three rows');
sub wait_for_sql
{
	my ($node, $sql, $expected, %option) = @_;
	my $deadline = time + ($option{patience} // $patience);
	my $database = $option{database} // 'postgres';
	my ($stdout, $stderr);
	for (;;)
	{
		($stdout, $stderr) = ('', '');
		$node->psql($database, $sql, stdout => \$stdout, stderr => \$stderr);
		return 1 if $stdout eq $expected;
		last if time > $deadline;
		usleep(50_000);
	}
	Test::More::diag("waited for: $sql\nexpected: $expected\ngot: $stdout\n$stderr");
	return 0;
}

# Waits until a job is in a terminal state, or in the one of {status}; gives the
# state it is in.
sub job_wait
{
	my ($node, $id, %option) = @_;
	my $deadline = time + ($option{patience} // $patience);
	my $wanted = $option{status} // 'completed|failed|timeout|cancelled';
	my $status;
	for (;;)
	{
		$status = $node->safe_psql($option{database} // 'postgres',
			"SELECT status FROM cm_jobs WHERE id = $id");
		return $status if $status =~ /\A(?:$wanted)\z/ || time > $deadline;
		usleep(50_000);
	}
	return;
}

# Submits by the given arguments of cm_submit_job; gives the id.
sub submit
{
	my ($node, $arguments) = @_;
	return $node->safe_psql('postgres', "SELECT cm_submit_job($arguments)");
}

# The executor's pid, waiting until there is one.
sub executor_pid
{
	my ($node, %option) = @_;
	my $database = $option{database} // 'postgres';
	my $sql = "SELECT pid FROM pg_stat_activity WHERE datname = '$database'"
	  . " AND backend_type LIKE 'container_manager%'";
	my $deadline = time + ($option{patience} // $patience);
	my $pid = '';
	while ($pid eq '' && time < $deadline)
	{
		$pid = $node->safe_psql('postgres', $sql);
		usleep(50_000) if $pid eq '';
	}
	die "no executor in database $database\n" if $pid eq '';
	return $pid;
}

# A psql session in the background: ->query_safe($sql), ->quit, ...
sub session
{
	my ($node, $database, %option) = @_;
	return $node->background_psql($database // 'postgres', %option);
}

1;
