# A job as it was submitted is the container that runs: the safe defaults, what
# each parameter does, text in every encoding of a database.  Who may submit
# and what he cannot forge.  And that nothing runs that was not committed.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::Engine;
use JSON::PP;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test');
$engine->import_busybox('words:test', entrypoint => [ 'echo', 'entry' ], cmd => [ 'cmd', 'line' ], workdir => '/var');
my $node = CM::Cluster->new_preloaded('main',
	'container_manager.poll_interval' => '200ms',
	'max_prepared_transactions' => 4);
$node->start;
my @awaited;
my @databases = (utf8 => 'UTF8', latin1 => 'LATIN1', ascii => 'SQL_ASCII');
make_databases();

safe_defaults();
environment();
what_is_run();
whose_and_where();
limits();
outputs_are();
encodings();
unprivileged();
search_paths();
transactions();

is($node->safe_psql('postgres', q{SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL}), 0, 'every job is over');
ok(wait_until(sub { !$engine->containers }), 'and no container is left')
  or diag(join "\n", map { "@{ $_->{Names} } $_->{State}" } $engine->containers);
done_testing();

# ------------------------------------------------------- tools

sub make_databases
{
	my @names = ('postgres');
	while (my ($name, $encoding) = splice @databases, 0, 2)
	{
		$node->safe_psql('postgres',
			"CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C'");
		push @names, $name;
	}
	for my $name (@names)
	{
		$node->safe_psql($name, 'CREATE EXTENSION container_manager');
		$node->safe_psql($name, "SELECT cm_add_host('local', '" . $engine->url . "')");
	}
	return;
}

# Submits and waits; gives (id, status, stdout without the newline at its end).
sub run_job
{
	my ($arguments, $database) = @_;
	$database //= 'postgres';
	my $id = $node->safe_psql($database, "SELECT cm_submit_job($arguments)");
	my $status = $node->job_wait($id, database => $database);
	my $output = $node->safe_psql($database, "SELECT cm_job_output($id)");
	chomp $output;
	return ($id, $status, $output);
}

# Submits now; outputs_are() waits for all and compares, so that they run together.
sub output_is
{
	my ($arguments, $expected, $name) = @_;
	push @awaited, [ $node->submit($arguments), $expected, $name ];
	return;
}

sub outputs_are
{
	for my $awaited (splice @awaited)
	{
		my ($id, $expected, $name) = @$awaited;
		my $status = $node->job_wait($id);
		my $output = $node->safe_psql('postgres', "SELECT cm_job_output($id)");
		chomp $output;
		is("$status: $output", "completed: $expected", $name)
		  or diag($node->safe_psql('postgres', "SELECT error, hint, cm_job_stderr(id) FROM cm_jobs WHERE id = $id"));
	}
	return;
}

# Inspects the container of a job that runs until it is cancelled.
sub inspect_job
{
	my ($arguments) = @_;
	my $id = $node->submit($arguments);
	is($node->job_wait($id, status => 'running|failed|completed'), 'running', "runs: $arguments");
	my $container = $node->safe_psql('postgres', "SELECT container_id FROM cm_jobs WHERE id = $id");
	return ($id, $engine->inspect($container));
}

sub end_job
{
	my ($id) = @_;
	$node->safe_psql('postgres', "SELECT cm_cancel_job($id)");
	is($node->job_wait($id), 'cancelled', "job $id is cancelled");
	return;
}

# The error of a statement that must fail, as one line.
sub error_of
{
	my ($database, $sql, %option) = @_;
	my ($status, $stdout, $stderr) = $node->psql($database, $sql, extra_params => $option{params} // []);
	return 'no error' if $status == 0;
	return $stderr =~ /ERROR:\s*(.*)/ ? $1 : $stderr;
}

# ------------------------------------------------------- the container

sub safe_defaults
{
	my ($id, $c) = inspect_job(q{'busybox:test', 'sleep 600', name => 'mine', labels => '{"team": "reports", "n": 7}'});
	my ($h, $config) = @$c{qw(HostConfig Config)};
	my $epoch = $node->safe_psql('postgres', 'SELECT epoch FROM cm_internal.identity');
	my $short = substr($epoch, 0, 8);
	is($c->{Name}, "/cm-default-$id-1-$short", 'name');
	is_deeply($h->{CapDrop}, ['ALL'], 'no capabilities');
	is(scalar @{ $h->{CapAdd} // [] }, 0, 'none added');
	is_deeply($h->{SecurityOpt}, ['no-new-privileges'], 'no new privileges');
	ok($h->{ReadonlyRootfs}, 'read-only root');
	ok(!$h->{Privileged}, 'not privileged');
	ok($h->{Init}, 'init');
	is($h->{PidsLimit}, 256, 'processes');
	is($h->{Memory}, 512 * 1024 * 1024, 'memory');
	is($h->{MemorySwap}, $h->{Memory}, 'and no swap');
	is($h->{NanoCpus}, 1e9, 'CPU');
	is($h->{NetworkMode}, 'bridge', 'network');
	is($h->{IpcMode}, 'private', 'IPC');
	is($h->{$_} // '', '', "$_ is not the host's") for qw(PidMode UTSMode UsernsMode);
	is($h->{RestartPolicy}{Name}, 'no', 'never restarted by the engine');
	is(scalar @{ $h->{$_} // [] }, 0, "no $_") for qw(Binds Devices Mounts VolumesFrom);
	like($h->{Tmpfs}{'/tmp'}, qr/^rw,exec,nosuid,nodev,mode=1777,size=512m,uid=65534,gid=65534$/, '/tmp');
	is($config->{User}, '65534:65534', 'user');
	ok(!$config->{Tty} && !$config->{OpenStdin}, 'neither terminal nor stdin');
	is_deeply($config->{Entrypoint}, [ '/bin/sh', '-c' ], 'command is for a shell');
	is_deeply($config->{Cmd}, ['sleep 600'], 'as it is');
	labels_are($config->{Labels}, $id, $epoch);
	# as the kernel has it
	my $status = $engine->as_root('cat', "/proc/$c->{State}{Pid}/status");
	like($status, qr/^NoNewPrivs:\s*1$/m, 'kernel: no new privileges');
	like($status, qr/^CapEff:\s*0+$/m, 'kernel: no effective capabilities');
	like($status, qr/^CapBnd:\s*0+$/m, 'kernel: none to be had');
	like($status, qr/^Uid:\s*65534\s+65534\s+65534\s+65534$/m, 'kernel: user');
	end_job($id);
	return;
}

sub labels_are
{
	my ($labels, $id, $epoch) = @_;
	my %user = map { $_ => $labels->{$_} } grep { /(?:team|\bn)$/ } keys %$labels;
	is_deeply([ sort values %user ], [ 7, 'reports' ], 'labels of the user, as text')
	  or diag(explain $labels);
	my @values = values %$labels;
	for my $value ($epoch, $id, 'job')
	{
		ok(scalar(grep { $_ eq $value } @values), "label with $value") or diag(explain $labels);
	}
	ok(scalar(grep { /^[0-9a-f]{64}$/ } @values), 'label with the hash of the definition');
	return;
}

sub environment
{
	output_is(q{'busybox:test', 'echo $HOME $TMPDIR; touch /tmp/a && echo x > $HOME/b && cat /tmp/b'},
		"/tmp /tmp\nx", 'HOME and TMPDIR, and /tmp can be written');
	output_is(q{'busybox:test', 'cp /bin/busybox /tmp/touch && /tmp/touch /tmp/c && ls /tmp/c'},
		'/tmp/c', 'programs in /tmp can be run');
	output_is(q{'busybox:test', 'echo $HOME $TMPDIR', environment => '{"HOME": "/h", "TMPDIR": "/t"}'},
		'/h /t', 'both can be said');
	output_is(
		q{'busybox:test', 'printf "%s|" "$A" "$B" "$C" "$D" "$E" "$F"', environment =>
		  '{"A": 1.50, "B": true, "C": false, "D": -12345678901234567890.125, "E": "a \"b\"\n$HOME `c`", "F": ""}'},
		qq{1.50|true|false|-12345678901234567890.125|a "b"\n\$HOME `c`||}, 'scalars become text, text is as it is');
	return;
}

sub what_is_run
{
	output_is(q{'words:test'}, 'entry cmd line', "neither: the image's own command");
	output_is(q{'words:test', args => '{a,"b c",""}'}, 'entry a b c ', "args go to the image's ENTRYPOINT");
	output_is(q{'words:test', 'echo $0 $#'}, '/bin/sh 0', 'command is run by a shell, without ENTRYPOINT');
	output_is(q{'words:test', entrypoint => '{echo,other}'}, 'other', "entrypoint goes without the image's CMD");
	output_is(q{'words:test', entrypoint => '{echo,other}', args => '{}'}, 'other', 'likewise with no args');
	output_is(q{'words:test', entrypoint => '{echo}', args => '{a,b}'}, 'a b', 'entrypoint and args');
	output_is(q{'words:test', entrypoint => '{}', args => '{echo,bare}'}, 'bare', 'no entrypoint, and args');
	output_is(q{'words:test', 'pwd'}, '/var', "the image's working directory");
	output_is(q{'words:test', 'pwd', working_directory => '/tmp'}, '/tmp', 'another');
	return;
}

sub whose_and_where
{
	output_is(q{'busybox:test', 'id -u; id -g; touch /tmp/a; echo $?', run_as => '2000:2000'}, "2000\n2000\n0", 'run_as uid:gid');
	output_is(q{'busybox:test', 'id -u; id -g', run_as => '2000'}, "2000\n2000", "run_as uid: not the group of root");
	my ($id, $status) = run_job(q{'busybox:test', 'echo x > /var/a'});
	is($status, 'failed', 'the root file system is read-only');
	like($node->safe_psql('postgres', "SELECT cm_job_stderr($id)"), qr/Read-only file system/, 'and says so');
	output_is(q{'busybox:test', 'chmod 700 /tmp; mount | grep -c "^overlay on / .*[(,]rw[,)]"', read_only => false}, '1', 'read_only => false');
	output_is(q{'busybox:test', 'ls /sys/class/net', networks => '["none"]'}, 'lo', 'networks => ["none"]');
	output_is(q{'busybox:test', 'ls /sys/class/net', networks => '[]'}, 'lo', 'networks => []');
	return;
}

sub limits
{
	output_is(
		q{'busybox:test', 'df -m /scratch /tmp | awk "NR > 1 {print \$6, \$2}"; touch /scratch/a && echo ok',
		  tmpfs => '{"/scratch": 3, "/tmp": 5}'},
		"/scratch 3\n/tmp 5\nok", 'sizes of tmpfs');
	output_is(q{'busybox:test', 'df -m /tmp | awk "NR > 1 {print \$2}"', memory_limit => 64}, '64', '/tmp is bounded by memory');
	my ($id, $c) = inspect_job(q{'busybox:test', 'sleep 600', memory_limit => 64, cpu_limit => 0.25});
	is($c->{HostConfig}{Memory}, 64 * 1024 * 1024, 'memory_limit');
	is($c->{HostConfig}{MemorySwap}, 64 * 1024 * 1024, 'with swap');
	is($c->{HostConfig}{NanoCpus}, 250_000_000, 'cpu_limit');
	my %group = control_groups($c->{State}{Pid});
	is($group{memory}, 64 * 1024 * 1024, 'control group: memory');
	is($group{cpu}, '0.25', 'control group: CPU');
	is($group{pids}, 256, 'control group: processes');
	end_job($id);
	return;
}

# What the kernel holds a process to, with control groups of either version.
sub control_groups
{
	my ($pid) = @_;
	my %path = map { my (undef, $names, $path) = split /:/, $_, 3; map { $_ => $path } split(/,/, $names || 'unified') }
	  split /\n/, $engine->as_root('cat', "/proc/$pid/cgroup");
	my $read = sub {
		my ($controller, $file) = @_;
		my $base = $path{$controller} ? "/sys/fs/cgroup/$controller$path{$controller}" : "/sys/fs/cgroup$path{unified}";
		my $text = $engine->as_root('cat', "$base/$file");
		chomp $text;
		return $text;
	};
	if (!$path{memory})
	{
		my ($quota, $period) = split / /, $read->('unified', 'cpu.max');
		return (memory => $read->('unified', 'memory.max'), pids => $read->('unified', 'pids.max'), cpu => $quota / $period);
	}
	return (
		memory => $read->('memory', 'memory.limit_in_bytes'),
		pids => $read->('pids', 'pids.max'),
		cpu => $read->('cpu', 'cpu.cfs_quota_us') / $read->('cpu', 'cpu.cfs_period_us'));
}

# ------------------------------------------------------- encodings

# The container is given UTF-8, whatever the database holds: o with diaeresis is
# c3 b6 there, and f6 in LATIN1.
sub encodings
{
	my $dump = q{printf %s "$A" | od -An -tx1; printf %s "zwölf" | od -An -tx1};
	for my $case ([ 'utf8', "ö" ], [ 'latin1', "ö" ], [ 'ascii', "ö" ])
	{
		my ($database, $text) = @$case;
		my $client = $database eq 'ascii' ? 'SQL_ASCII' : 'UTF8';
		local $ENV{PGCLIENTENCODING} = $client;
		my ($id, $status, $output) = run_job(
			"'busybox:test', '$dump', environment => '{\"A\": \"$text\"}', labels => '{\"l\": \"$text\"}'", $database);
		$output =~ s/\s+/ /g;
		is("$status: $output", 'completed:  c3 b6 7a 77 c3 b6 6c 66', "$database: command and environment are UTF-8");
		my ($echo) = (run_job("'busybox:test', args => '{echo,$text}'", $database))[2];
		is($echo, $text, "$database: args go and come back");
	}
	local $ENV{PGCLIENTENCODING} = 'SQL_ASCII';
	for my $column ("command => E'echo \\xf6'", "args => ARRAY[E'\\xf6']", "name => E'\\xf6'",
		"environment => jsonb_build_object('A', E'\\xf6')", "labels => jsonb_build_object('a', E'\\xc3')")
	{
		my ($name) = $column =~ /^(\w+)/;
		is(error_of('ascii', "SELECT cm_submit_job('busybox:test', $column)"), "$name is not valid UTF-8", "SQL_ASCII: $name");
	}
	is($node->safe_psql('ascii', 'SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL'), 0, 'nothing is half written');
	return;
}

# ------------------------------------------------------- rights

sub unprivileged
{
	$node->safe_psql('postgres', q{
		CREATE ROLE plain LOGIN; CREATE ROLE other LOGIN; CREATE ROLE nobody LOGIN;
		GRANT INSERT, SELECT ON cm_jobs TO plain, other;
		GRANT EXECUTE ON FUNCTION cm_submit_job, cm_cancel_job, cm_set_priority TO plain, other});
	my @as = (params => [ '-U', 'plain' ]);
	my $id = as_role('plain', q{SELECT cm_submit_job('busybox:test', 'sleep 600')});
	is($node->safe_psql('postgres', "SELECT owner FROM cm_jobs WHERE id = $id"), 'plain', 'owner is who submits');
	is($node->job_wait($id, status => 'running|failed'), 'running', 'and it runs');
	like(error_of('postgres', "SELECT cm_cancel_job($id)", params => [ '-U', 'other' ]),
		qr/^job $id belongs to role "plain"$/, 'nobody else cancels it');
	like(error_of('postgres', "SELECT cm_set_priority($id, 1)", params => [ '-U', 'other' ]),
		qr/^job $id belongs to role "plain"$/, 'nor sets its priority');
	is(as_role('plain', "SELECT cm_cancel_job($id)"), 't', 'its owner does');
	is($node->job_wait($id), 'cancelled', 'it ends');
	my $inserted = as_role('plain', q{INSERT INTO cm_jobs (image, command) VALUES ('busybox:test', 'echo hi') RETURNING id});
	is($node->job_wait($inserted), 'completed', 'a plain INSERT runs, too');
	forgeries(@as);
	like(error_of('postgres', q{SELECT cm_submit_job('busybox:test')}, params => [ '-U', 'nobody' ]),
		qr/permission denied for function cm_submit_job/, 'nothing is open to PUBLIC');
	return;
}

sub as_role
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}

sub forgeries
{
	my (@as) = @_;
	my %refused = (
		q{INSERT INTO cm_jobs (image, owner) VALUES ('a', 'other')} => qr/^owner of a job cannot be given/,
		q{INSERT INTO cm_jobs (image, status) VALUES ('a', 'completed')} => qr/^status of a job cannot be given/,
		q{INSERT INTO cm_jobs (image, epoch) VALUES ('a', gen_random_uuid())} => qr/^epoch of a job cannot be given/,
		q{INSERT INTO cm_jobs (image) VALUES ('a') ON CONFLICT (id) DO UPDATE SET status = 'completed'} => qr/permission denied/,
		q{UPDATE cm_jobs SET name = 'x'} => qr/permission denied for table cm_jobs/,
		q{DELETE FROM cm_jobs} => qr/permission denied for table cm_jobs/,
		q{TRUNCATE cm_jobs} => qr/permission denied for table cm_jobs/,
		q{INSERT INTO cm_internal.queue (job_id, placement, priority, run_at, is_due) VALUES (1, 0, 1, now(), true)} =>
		  qr/permission denied for schema cm_internal/,
		q{SELECT * FROM cm_internal.identity} => qr/permission denied for schema cm_internal/,
		q{SET session_replication_role = replica} => qr/permission denied to set parameter/,
		q{SET container_manager.max_memory_limit = '1TB'} => qr/cannot be changed now/,
		q{CREATE TABLE child () INHERITS (cm_jobs)} => qr/must be owner of table cm_jobs|permission denied for schema/,
		q{CREATE TRIGGER t BEFORE INSERT ON cm_jobs FOR EACH ROW EXECUTE FUNCTION cm_internal.check_job()} =>
		  qr/permission denied/,
	);
	like(error_of('postgres', $_, @as), $refused{$_}, "refused: $_") for sort keys %refused;
	my $copied = 'COPY cm_jobs (image, status) FROM STDIN;' . "\na\tcompleted\n\\.\n";
	like(error_of('postgres', $copied, @as), qr/^status of a job cannot be given/, 'refused: COPY of a status');
	is(error_of('postgres', q{INSERT INTO cm_jobs (image, owner) VALUES ('a', NULL)} . '; SELECT 1/0', @as),
		'division by zero', 'owner NULL is unsaid');
	$node->safe_psql('postgres', q{SELECT cm_cancel_job(id) FROM cm_jobs WHERE image = 'a' AND completed_at IS NULL});
	ok($node->wait_for_sql(q{SELECT count(*) FROM cm_jobs WHERE completed_at IS NULL}, 0), 'none of it is left unfinished');
	is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT owner, ' ') FROM cm_jobs WHERE image = 'a'}), 'plain', 'all are his own');
	return;
}

# A user's own objects in front of the system's: the triggers, which work with
# the owner's rights, do not take them.
sub search_paths
{
	$node->safe_psql('postgres', q{CREATE SCHEMA evil AUTHORIZATION plain; CREATE TABLE evil.trace (what text)});
	$node->safe_psql('postgres', q{GRANT INSERT, SELECT ON evil.trace TO PUBLIC});
	my $id = as_role('plain', q{
		SET search_path = evil, pg_temp, pg_catalog, public;
		CREATE FUNCTION evil.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS
			$$BEGIN INSERT INTO evil.trace VALUES (current_user); RETURN true; END$$;
		CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.trap);
		CREATE FUNCTION evil.trap(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS
			$$BEGIN INSERT INTO evil.trace VALUES (current_user); RETURN true; END$$;
		CREATE OPERATOR evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = evil.trap);
		CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS
			$$BEGIN INSERT INTO evil.trace VALUES (current_user); RETURN 'infinity'; END$$;
		CREATE FUNCTION evil.jsonb_populate_record(anyelement, jsonb) RETURNS anyelement LANGUAGE plpgsql AS
			$$BEGIN INSERT INTO evil.trace VALUES (current_user); RETURN NULL; END$$;
		CREATE TEMP TABLE cm_jobs (LIKE public.cm_jobs);
		CREATE TEMP TABLE cm_hosts (name text, id int);
		CREATE TEMP TABLE cm_new_jobs (id bigint);
		INSERT INTO cm_hosts VALUES ('local', 666);
		SELECT public.cm_submit_job('busybox:test', 'echo right', host => 'local', options => '{"priority": 3}')});
	is($node->job_wait($id), 'completed', 'the job runs as it would');
	is($node->safe_psql('postgres', "SELECT owner, priority, host FROM cm_jobs WHERE id = $id"), 'plain|3|local', 'and is what was asked for');
	is(as_role('plain', "SET search_path = evil, pg_temp, pg_catalog, public; SELECT public.cm_cancel_job($id)"), 'f', 'a request likewise');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM evil.trace}), 0, "no function of the user's ran")
	  or diag($node->safe_psql('postgres', 'SELECT * FROM evil.trace'));
	return;
}

# ------------------------------------------------------- transactions

sub transactions
{
	my $session = $node->session('postgres');
	my $id = ask($session, q{BEGIN; SELECT cm_submit_job('busybox:test', 'echo rolled back')});
	$session->query_safe('ROLLBACK');
	my $held = ask($session, q{BEGIN; SELECT cm_submit_job('busybox:test', 'echo held')});
	# Jobs that others submit meanwhile show that the executor has looked.
	output_is(q{'busybox:test', 'echo meanwhile'}, 'meanwhile', "another's job runs meanwhile");
	outputs_are();
	is(events_of($held), 0, 'an open transaction starts nothing');
	$session->query_safe('COMMIT');
	is($node->job_wait($held), 'completed', 'COMMIT does');
	is($node->safe_psql('postgres', "SELECT count(*) FROM cm_jobs WHERE id = $id"), 0, 'what was rolled back is not there');
	is(events_of($id), 0, 'and never ran');

	my $rolled = ask($session, q{BEGIN; SAVEPOINT a; SELECT cm_submit_job('busybox:test', 'echo inner')});
	my $kept = ask($session, q{ROLLBACK TO a; SELECT cm_submit_job('busybox:test', 'echo kept')});
	$session->query_safe('COMMIT');
	is($node->job_wait($kept), 'completed', 'after ROLLBACK TO SAVEPOINT what follows runs');
	is(events_of($rolled), 0, 'and what went before does not');

	my $prepared = ask($session, q{BEGIN; SELECT cm_submit_job('busybox:test', 'echo prepared')});
	$session->query_safe(q{PREPARE TRANSACTION 'p'});
	output_is(q{'busybox:test', 'echo meanwhile'}, 'meanwhile', "another's job runs meanwhile");
	outputs_are();
	is(events_of($prepared), 0, 'PREPARE TRANSACTION starts nothing');
	$session->query_safe(q{COMMIT PREPARED 'p'});
	is($node->job_wait($prepared), 'completed', 'COMMIT PREPARED is found by the poll');
	$session->quit;
	return;
}

# The last line that a session answers.
sub ask
{
	my ($session, $sql) = @_;
	my @lines = split /\n/, $session->query_safe($sql);
	return $lines[-1];
}

sub events_of
{
	my ($id) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM cm_job_events WHERE job_id = $id");
}
