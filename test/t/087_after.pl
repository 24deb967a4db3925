# After a failure: the container of a job that says keep_container stays for a look
# and goes when its time is over, through kills of everybody; what runs in a
# container and what it has changed; what is said of failures of every common kind;
# and a dry run, which leaves nothing behind.
use strict;
use warnings;

use CM::Cluster;
use CM::Engine;
use CM::Logs qw(wait_until);
use File::Temp;
use IPC::Run ();
use Test::More;

CM::Engine->require_engine;
my $engine = CM::Engine->start(name => 'e1', live_restore => 1);
$engine->import_busybox('busybox:test');
import_bare();
my $node = CM::Cluster->new_with_extension('main', 'container_manager.heartbeat_interval' => '1s', 'container_manager.min_uid' => 0);
$node->add_host('local', $engine, 'max_concurrent_jobs => 1');
sql('CREATE ROLE app LOGIN; GRANT SELECT, INSERT ON cm_jobs TO app;'
	  . ' GRANT EXECUTE ON FUNCTION cm_submit_job, cm_remove_kept_container, cm_job_processes, cm_job_changes TO app; CREATE ROLE other LOGIN;'
	  . ' GRANT EXECUTE ON FUNCTION cm_remove_kept_container, cm_job_changes TO other');

# As root, and with a root that can be written: there is something to be seen.
my $writes = q{run_as => '0', read_only => false};

dry_run();
look_into_running();
my $kept = keep_one();
keep_through_kills($kept);
remove_at_once($kept);
keep_last_attempt_only();
keep_for_a_time();
keep_few();
forget_with_host();
explain_failures();
drop_all();
done_testing();

# ------------------------------------------------------- tools

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# What a statement says when it fails: SQLSTATE and message, or 'none'.
sub refusal
{
	my ($sql, %option) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n" . ($option{role} ? "SET ROLE $option{role};" : '') . $sql);
	return $stderr =~ /ERROR:\s+(.*)/ ? $1 : "none: $stderr";
}

sub fail_job
{
	my ($arguments, $command) = @_;
	my $id = $node->submit("'busybox:test', " . ($command ? "\$x\$$command\$x\$" : "'exit 3'") . ", $arguments");
	is($node->job_wait($id), 'failed', "job $id fails") or diag(sql("SELECT error, detail FROM cm_jobs WHERE id = $id"));
	return $id;
}

sub container_of { my ($id) = @_; return sql("SELECT container_id FROM cm_job_attempts WHERE job_id = $id ORDER BY attempt DESC LIMIT 1"); }

sub is_there
{
	my ($container) = @_;
	return scalar grep { $_->{Id} eq $container } $engine->containers;
}

sub goes { my ($container, $what) = @_; return ok(wait_until($what, sub { !is_there($container) }), $what); }

# A container like the kept one, of a job that has kept none, is removed at the next
# look at the host: what is there after that has been looked at, and left.
sub wait_for_look
{
	my ($kept, $what) = @_;
	my $labels = $engine->inspect($kept)->{Config}{Labels};
	my $other = sql("SELECT min(j.id) FROM cm_jobs j WHERE j.status = 'completed'");
	my %labels = (%$labels, 'container-manager.job' => $other);
	my $decoy = $engine->docker('create', (map { ('--label', "$_=$labels{$_}") } sort keys %labels), 'busybox:test', 'true');
	return goes($decoy, "$what: what is left over is removed") && ok(is_there($kept), "$what: what is kept is not");
}

# Two images: one without a shell, one whose shell is for a CPU that nobody has.
sub import_bare
{
	my $busybox = slurp('/bin/busybox');
	import_files('bare:test', '/true' => $busybox);
	substr $busybox, 18, 2, "\xed\xfe";
	import_files('foreign:test', '/bin/sh' => $busybox);
	return;
}

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<:raw', $file) or die "$file: $!\n";
	local $/ = undef;
	return scalar <$fh>;
}

sub import_files
{
	my ($image, $file, $content) = @_;
	my $root = File::Temp->newdir;
	mkdir "$root/$_" for qw(bin dev etc proc sys tmp);
	open(my $fh, '>:raw', "$root$file") or die "$root$file: $!\n";
	print $fh $content;
	close $fh or die "$root$file: $!\n";
	chmod 0755, "$root$file";
	my $tar = File::Temp->new(SUFFIX => '.tar');
	IPC::Run::run([ qw(tar --owner=0 --group=0 -C), "$root", '-cf', $tar->filename, '.' ]) or die "tar failed\n";
	$engine->docker('import', $tar->filename, $image);
	return;
}

# ------------------------------------------------------- a dry run

sub dry_run
{
	my ($status, $stdout, $stderr) = $node->psql('postgres',
		q{SET ROLE app; SELECT coalesce(cm_submit_job('busybox:test', 'echo "$A"', environment => '{"A": "b c"}', host => 'local', dry_run => true)::text, 'nothing')});
	is($stdout, 'nothing', 'dry run: it returns NULL');
	like($stderr, qr/NOTICE:  nothing is submitted; the job would run as: docker run .* -e 'A=b c' .* busybox:test -c 'echo "\$A"'/, 'dry run: it shows the command');
	like(refusal(q{SELECT cm_submit_job('busybox:test', memory_limit => 1000000, dry_run => true)}), qr/^53400: memory_limit/, 'dry run: the guard looks');
	like(refusal(q{SELECT cm_submit_job('busybox:test', host => 'nowhere', dry_run => true)}), qr/^42704: host "nowhere"/, 'dry run: the host must be there');
	like(refusal(q{SELECT cm_submit_job('busybox:test', options => '{"imagee": 1}', dry_run => true)}), qr/^22023: options has an unknown key/, 'dry run: options are looked at');
	like(refusal(q{SELECT cm_submit_job('busybox:test', dry_run => true)}, role => 'other'), qr/^42501: permission denied/, 'dry run: not for whoever may not submit');
	is(sql('SELECT count(*) FROM cm_jobs') . sql('SELECT count(*) FROM cm_internal.queue'), '00', 'dry run: nothing is submitted');
	is($node->job_wait($node->submit(q{'busybox:test', 'true', dry_run => NULL})), 'completed', 'no dry run: the job runs');
	return;
}

# ------------------------------------------------------- a look inside

sub look_into_running
{
	my $id = $node->submit(qq{'busybox:test', 'echo x > /new; rm /etc/group; echo y >> /etc/passwd; sleep 600', $writes});
	is($node->job_wait($id, status => 'running'), 'running', 'a job runs');
	my $waiting = $node->submit(q{'busybox:test', 'true'});
	ok($node->wait_for_sql("SELECT count(*) FROM cm_job_processes($id) WHERE command = 'sleep 600'", 1), 'processes: what it runs is shown');
	is(sql("SELECT user_name || ' ' || (pid > 0) || ' ' || (elapsed ~ '^[0-9:]+\$') || ' ' || (SELECT count(*) FROM cm_job_processes($id) p WHERE p.pid = c.parent_pid)"
			  . " FROM cm_job_processes($id) c WHERE command = 'sleep 600'"), 'root true true 1', 'processes: user, number, age and parent');
	is(sql("SET ROLE app; SELECT string_agg(change || ' ' || path, ', ' ORDER BY path) FROM cm_job_changes($id) WHERE path !~ '^/(tmp|sbin)'"),
		'changed /etc, deleted /etc/group, changed /etc/passwd, added /new', 'changes: of one that runs');
	like(refusal("SELECT * FROM cm_job_changes($id)", role => 'other'), qr/^42501: permission denied for table cm_jobs/, 'changes: not for whoever may not read the job');
	like(refusal("SELECT * FROM cm_job_processes($waiting)"), qr/^55000: job $waiting has no container/, 'processes: none of one that waits');
	like(refusal('SELECT * FROM cm_job_changes(999)'), qr/^42704: job 999 does not exist/, 'changes: no such job');
	$engine->stop;
	like(refusal("SELECT * FROM cm_job_changes($id)"), qr/^58030: host "local": /, 'changes: its host does not answer');
	$engine->start_again;
	sql("SELECT cm_cancel_job($id)");
	is($node->job_wait($waiting), 'completed', 'the other job runs');
	is($node->job_wait($id), 'cancelled', 'it is cancelled');
	like(refusal("SELECT * FROM cm_job_processes($id)"), qr/^55000: job $id has no container/, 'processes: none of one that is over');
	return;
}

# ------------------------------------------------------- keeping

sub keep_one
{
	my $id = fail_job("keep_container => '1 hour', $writes", 'echo found > /kept.txt; echo said; exit 3');
	my $container = container_of($id);
	like(sql("SELECT detail FROM cm_jobs WHERE id = $id"), qr/^container kept until \d{4}-/, 'kept: detail says until when');
	is($engine->inspect($container)->{State}{Status}, 'exited', 'kept: the container is there');
	is($engine->docker('logs', $container), 'said', 'kept: docker logs');
	like($engine->docker('cp', "$container:/kept.txt", '-'), qr/^kept\.txt\0.*found\n/s, 'kept: docker cp');
	ok($engine->docker('commit', $container, 'look:1'), 'kept: docker commit');
	is(sql("SELECT change FROM cm_job_changes($id) WHERE path = '/kept.txt'"), 'added', 'kept: its changes');
	like(refusal("SELECT * FROM cm_job_processes($id)"), qr/^55000: job $id does not run/, 'kept: it has no processes');
	my $short = substr $container, 0, 12;
	like(sql("SELECT explanation FROM cm_job_explain($id) WHERE item = 'container'"), qr/^$short, kept on host local until .*docker cp $short:/, 'kept: explained');
	# The host has but one slot.
	like(refusal(q{UPDATE cm_hosts SET connection_string = 'unix:///elsewhere' WHERE name = 'local'}),
		qr/^55000: connection_string of host "local" cannot be changed: containers are kept there/, 'its host stays where it is');
	my $fine = $node->submit(q{'busybox:test', 'true', keep_container => '1 hour'});
	is($node->job_wait($fine), 'completed', 'kept: it holds no slot');
	goes(container_of($fine), 'what completed is not kept');
	is(sql("SELECT coalesce(detail, 'none') FROM cm_jobs WHERE id = $fine"), 'none', 'and does not say so');
	return $id;
}

sub keep_through_kills
{
	my ($id) = @_;
	my $container = container_of($id);
	my $pid = $node->executor_pid;
	kill 'KILL', $pid;
	ok($node->wait_for_sql("SELECT count(*) FROM cm_status WHERE executor_pid <> $pid AND is_running", 1), 'the executor is killed');
	wait_for_look($container, 'executor killed');
	$node->stop('immediate');
	ok(wait_until('the server', sub { $node->start(fail_ok => 1) }), 'the server is started again');
	wait_for_look($container, 'server restarted');
	$engine->kill9;
	$engine->start_again;
	wait_for_look($container, 'engine killed');
	return;
}

sub remove_at_once
{
	my ($id) = @_;
	like(refusal("SELECT cm_remove_kept_container($id)", role => 'other'), qr/^42501: job $id belongs to role/, 'removal: not for others');
	is(sql("SELECT cm_remove_kept_container($id)"), 't', 'removal: it is asked for');
	goes(container_of($id), 'removal: it is gone');
	ok($node->wait_for_sql("SELECT coalesce(detail, 'none') FROM cm_jobs WHERE id = $id", 'none'), 'removal: the job says nothing of it any more');
	is(sql("SELECT cm_remove_kept_container($id)"), 'f', 'removal: once');
	like(refusal("SELECT * FROM cm_job_changes($id)"), qr/^55000: job $id has no container/, 'removal: there are no changes to be seen');
	return;
}

sub keep_last_attempt_only
{
	my $id = fail_job("keep_container => '1 hour', max_attempts => 2, retry_on => '3', retry_delay => '10 ms'");
	my ($first, $second) = split /\n/, sql("SELECT container_id FROM cm_job_attempts WHERE job_id = $id ORDER BY attempt");
	goes($first, 'of two attempts, the first is not kept');
	ok(is_there($second), 'but the second');
	sql("SELECT cm_retry_job($id)");
	ok($node->wait_for_sql("SELECT attempt || status FROM cm_jobs WHERE id = $id", '3failed'), 'it runs once more');
	goes($second, 'then the second is not kept, either');
	ok(is_there(container_of($id)), 'but the third');
	sql("DELETE FROM cm_jobs WHERE id = $id");
	ok($node->wait_for_sql('SELECT count(*) FROM cm_internal.kept_containers', 0), 'nor of a job that is deleted');
	return;
}

sub keep_for_a_time
{
	my $id = fail_job("keep_container => '2 s'");
	my $container = container_of($id);
	goes($container, 'it goes when its time is over');
	is(sql("SELECT clock_timestamp() >= completed_at + keep_container FROM cm_jobs WHERE id = $id"), 't', 'and not before');
	$id = fail_job("keep_container => '1 s'");
	$node->stop('immediate');
	$node->start;
	goes(container_of($id), 'also when that was while the server was down');
	$id = fail_job("keep_container => '1 s'");
	$engine->stop;
	ok($node->wait_for_sql("SELECT count(*) FROM cm_internal.kept_containers WHERE job_id = $id", 0), 'its time is over while the engine is down');
	$engine->start_again;
	goes(container_of($id), 'it goes when the engine is back');
	sql("ALTER SYSTEM SET container_manager.max_keep_container = 0; SELECT pg_reload_conf()");
	ok($node->wait_for_sql('SHOW container_manager.max_keep_container', 0), 'keeping is forbidden');
	like(refusal(q{SELECT cm_submit_job('busybox:test', keep_container => '1 s')}), qr/^53400: keep_container of 1 s is over the limit of 0 s/, 'then it is refused');
	sql("ALTER SYSTEM RESET container_manager.max_keep_container; SELECT pg_reload_conf()");
	ok($node->wait_for_sql('SHOW container_manager.max_keep_container', '1d'), 'and allowed again');
	return;
}

sub keep_few
{
	sql("ALTER SYSTEM SET container_manager.max_kept_containers = 2; SELECT pg_reload_conf()");
	ok($node->wait_for_sql('SHOW container_manager.max_kept_containers', 2), 'two may be kept');
	my @ids = map { fail_job("keep_container => '1 hour'") } 1 .. 3;
	goes(container_of($ids[0]), 'of three, the oldest gives way');
	is(join(' ', map { is_there(container_of($_)) } @ids), '0 1 1', 'the others stay');
	return;
}

sub forget_with_host
{
	my @containers = split /\n/, sql('SELECT container_id FROM cm_internal.kept_containers');
	my ($status, $stdout, $stderr) = $node->psql('postgres', q{SELECT cm_remove_host('local')});
	like($stderr, qr/WARNING:  containers that were kept for a look are left on host "local"/, 'a host is removed: it says what is left there');
	is(sql('SELECT count(*) FROM cm_internal.kept_containers'), 0, 'a host is removed: nothing is kept');
	is(scalar(grep { is_there($_) } @containers), 2, 'a host is removed: they are there');
	$node->add_host('local', $engine, 'max_concurrent_jobs => 16');
	goes($_, 'the host is added again: one is removed') for @containers;
	return;
}

# ------------------------------------------------------- advice

# What, how, exit code, and what is said of it.
sub explain_failures
{
	my $busybox = q{'busybox:test', memory_limit => 64, command => };
	my @cases = (
		[ 'EROFS', $busybox . q{'touch /x'}, 1, qr/says "Read-only file system": .*read_only => false/ ],
		[ 'EACCES', $busybox . q{'echo > /x', read_only => false}, 1, qr/says "Permission denied": it runs as user 65534/ ],
		[ 'not executable', $busybox . q{'echo exit > /tmp/f; /tmp/f'}, 126, qr/the file must be executable by user 65534/ ],
		[ 'not found', $busybox . q{'no-such-command'}, 127, qr/was not found/ ],
		[ 'SIGKILL of itself', $busybox . q{'kill -9 $$'}, 137, qr/SIGKILL/ ],
		[ 'out of memory', q{'busybox:test', 'exec tail -c 1000000000 /dev/zero', memory_limit => 16}, 137, qr/higher memory_limit/ ],
		[ 'no shell', q{'bare:test', 'true'}, 127, qr{has no /bin/sh} ],
		[ 'not in the image', q{'bare:test', args => '{nothing}'}, 127, qr/init could not start the command/ ],
		[ 'another CPU', q{'foreign:test', 'true'}, undef, qr/another kind of CPU/ ],
		[ 'a full tmpfs', $busybox . q{'dd if=/dev/zero of=/small/x bs=1M count=2', tmpfs => '{"/small": 1}'}, 1, qr/a tmpfs or the host's disk is full/ ],
		[ 'no such name', $busybox . q{'wget http://nowhere.invalid/', networks => '["none"]'}, 1, qr/could not be resolved; its network is none, which leads nowhere/ ],
	);
	my @ids = map { $node->submit($_->[1]) } @cases;
	for my $i (0 .. $#cases)
	{
		my ($what, undef, $exit, $advice) = @{ $cases[$i] };
		$node->job_wait($ids[$i]);
		my $code = sql("SELECT exit_code FROM cm_jobs WHERE id = $ids[$i]");
		is($code, $exit, "$what: exit code") if defined $exit;
		my $said = sql("SELECT explanation FROM cm_job_explain($ids[$i]) WHERE item = 'advice'");
		like($said, $advice, "$what: advice") or diag("exit code $code\n", sql("SELECT string_agg(line, ' / ') FROM cm_job_logs($ids[$i])"));
		note("$what: $said");
	}
	return;
}

sub drop_all
{
	my $container = container_of(fail_job("keep_container => '1 hour'"));
	ok(is_there($container), 'one is kept');
	sql('DROP EXTENSION container_manager');
	goes($container, 'DROP EXTENSION removes it');
	return;
}
