# Jobs that are made from templates run as these say: hostile parameters stay one
# word each in a real shell, limits reach the engine and hold there, exit codes mean
# what they are said to mean. And templates are in a dump as they are.
use strict;
use warnings;

use CM::Cluster qw(wait_until);
use CM::Engine;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

CM::Engine->require_engine;

my $engine = CM::Engine->start(name => 'e1');
$engine->import_busybox('busybox:test', env => { OF_IMAGE => 'image', BOTH => 'image' });
# A job that is not stopped by its own stop_grace would be there for ten minutes.
my $node = CM::Cluster->new_with_extension('main', 'container_manager.stop_grace' => '600s');
$node->add_host('local', $engine);

hostile_parameters();
merged_and_kept();
limits();
stopping();
exit_codes();
results();
dumps();

ok(wait_until(sub { !$engine->containers }), 'no container is left');
done_testing();

# ------------------------------------------------------- tools

sub sql
{
	my ($sql, $database) = @_;
	return $node->safe_psql($database // 'postgres', $sql);
}

sub ended
{
	my ($id, $status, $name) = @_;
	my $got = $node->job_wait($id);
	return is($got, $status, $name)
	  || diag(sql("SELECT status, failure_reason, error, hint, cm_job_stderr(id) FROM cm_jobs WHERE id = $id"));
}

sub output
{
	my ($id) = @_;
	return sql("SELECT cm_job_output($id)") =~ s/\n\z//r;
}

sub inspect
{
	my ($id) = @_;
	is($node->job_wait($id, status => 'running|failed|completed'), 'running', "job $id runs");
	return $engine->inspect(sql("SELECT container_id FROM cm_jobs WHERE id = $id"));
}

# ------------------------------------------------------- parameters

# What a shell might make something of, and random strings of it.
sub hostile_values
{
	my $touch = 'touch /tmp/pwned';
	my @values = (
		"'", '"', '\\', '`', '$', '', ' ', "\n", "\t", '-n', '--', '*', '/*', '~', '#', '!', '{{v0}}', '}}', '%s', '&', ';',
		"\$($touch)", "`$touch`", "'; $touch; '", "'\\''; $touch; #", "\"; $touch; \"", "\\\"; $touch; \\\"", "\n$touch\n",
		"\$'\\'; $touch #", "&& $touch", "| $touch", "> /tmp/pwned", "\${IFS}$touch", "\$((x[\$($touch)]))", "a b  c", "EOF\n$touch",
		"\x01\x1b[31m\x7f", "\r\n", "\$CM_PARAM_v0", "x=1 $touch");
	my @alphabet = ("'", '"', '\\', '`', '$', '(', ')', '{', '}', ';', '&', '|', '<', '>', "\n", ' ', '*', '#', '!', '~', '=', '%', 'a', '1', '-');
	my $state = 42;
	for (1 .. 40)
	{
		my $value = '';
		for (1 .. 30)
		{
			$state = ($state * 1103515245 + 12345) % 2**31;
			$value .= $alphabet[ ($state >> 16) % @alphabet ];
		}
		push @values, $value;
	}
	return @values;
}

sub hostile_parameters
{
	my @values = hostile_values();
	my @names = map { "v$_" } 0 .. $#values;
	my $json = JSON::PP->new->ascii->canonical->encode({ map { $names[$_] => $values[$_] } 0 .. $#values });
	my $words = join ' ', map { "{{$_}}" } @names;
	# As a word, assigned, substituted, compared, looped over; and from a variable.
	my $command = join "\n", "printf '%s\\0' $words",
	  (map { "x={{$_}}; printf '%s\\0' \"\$x\"; x=\$(printf %sx {{$_}}); printf '%s\\0' \"\${x%x}\"; x=`printf %sx {{$_}}`; printf '%s\\0' \"\${x%x}\"; [ x{{$_}} = \"x\$IN_$_\" ] && printf 'same\\0'; for x in {{$_}}; do printf '%s\\0' \"\$x\"; done" } @names),
	  'ls -A /tmp';
	my $environment = encode_json({ map { ("IN_$_" => "{{$_}}") } @names });
	sql("SELECT cm_create_template('shell', 'busybox:test', \$cm\$$command\$cm\$, environment => '$environment')");
	my $args = join ',', map { "\"{{$_}}\"" } @names;
	sql("SELECT cm_create_template('words', 'busybox:test', entrypoint => '{printf,\"%s\\\\0\"}', args => '{$args}')");

	my $shell = $node->submit("template => 'shell', parameters => \$json\$$json\$json\$");
	my $plain = $node->submit("template => 'words', parameters => \$json\$$json\$json\$");
	my $all = join '', map { "$_\0" } @values;
	ended($plain, 'completed', 'hostile parameters as words');
	is(sql("SELECT encode(cm_job_output_bytes($plain), 'hex')"), unpack('H*', $all), 'each is one word, byte for byte');
	ended($shell, 'completed', 'hostile parameters in a shell');
	$all .= join '', map { ("$_\0" x 3) . "same\0$_\0" } @values;
	is(sql("SELECT encode(cm_job_output_bytes($shell), 'hex')"), unpack('H*', $all), 'each is one word there, and nothing was run');
	is(sql("SELECT cm_job_stderr($shell)"), '', 'nor did the shell complain');

	my $literal = $node->submit(q{'busybox:test', 'echo "{{v0}}" {{nothing}}'});
	ended($literal, 'completed', 'without a template');
	is(output($literal), '{{v0}} {{nothing}}', 'braces are just braces');
	return;
}

# ------------------------------------------------------- what a job takes

sub merged_and_kept
{
	sql(q{SELECT cm_create_template('report', 'busybox:test', 'echo $OF_IMAGE $BOTH $A $B $C {{day}}; exit 7',
		environment => '{"BOTH": "template", "A": "template", "B": "template {{day}}"}', memory_limit => 64,
		labels => '{"team": "reports"}', parameters => '{"day": "monday"}')});
	# It is changed, renamed and dropped before the job can run.
	my $id = sql(q{BEGIN; SELECT cm_submit_job(template => 'report', environment => '{"A": "job", "C": "job {{day}}"}', labels => '{"run": 1}');
		UPDATE cm_templates SET command = 'echo changed', memory_limit = 32 WHERE name = 'report';
		DO $$BEGIN PERFORM cm_rename_template('report', 'other'), cm_drop_template('other'); END$$;
		COMMIT});
	ended($id, 'failed', 'a job whose template is gone');
	is(output($id), 'image template job template monday job {{day}} monday', 'image < template < job, and as it was when submitted');
	is(sql("SELECT template, memory_limit, labels, parameters FROM cm_jobs WHERE id = $id"),
		'report|64|{"run": 1, "team": "reports"}|{"day": "monday"}', 'its row tells');
	is(sql("SELECT cm_retry_job($id)"), 't', 'it can be tried again');
	ok($node->wait_for_sql("SELECT count(*) FROM cm_job_attempts WHERE job_id = $id", 2), 'and is');
	is(sql("SELECT cm_job_output($id, 1) = cm_job_output($id, 2)"), 't', 'as the same');

	my $c = inspect($id = $node->submit(q{'busybox:test', 'sleep 600', template => 'micro'}));
	is($c->{HostConfig}{Memory}, 128 * 1024 * 1024, 'micro: memory');
	is($c->{HostConfig}{NanoCpus}, 5e8, 'micro: CPUs');
	is(sql("SELECT timeout_seconds FROM cm_jobs WHERE id = $id"), 300, 'micro: time');
	sql("UPDATE cm_jobs SET name = 'stop me' WHERE id = $id");
	$engine->docker('kill', $c->{Id});
	ended($id, 'failed', 'and ends');
	return;
}

# ------------------------------------------------------- limits

sub limits
{
	my $id = $node->submit(q{'busybox:test', 'ulimit -Sn; ulimit -Hn; ulimit -c; df -m /dev/shm | tail -n 1 | awk "{print \\$2}"; sleep 600',
		ulimits => '{"nofile": {"soft": 128, "hard": 256}, "core": 0}', shm_size => 7, pids_limit => 20, stop_signal => 'SIGINT',
		stop_grace => '1500 ms'});
	my $c = inspect($id);
	is($c->{HostConfig}{ShmSize}, 7 * 1024 * 1024, 'shm_size');
	is($c->{HostConfig}{PidsLimit}, 20, 'pids_limit');
	is_deeply([ sort { $a->{Name} cmp $b->{Name} } @{ $c->{HostConfig}{Ulimits} } ],
		[ { Name => 'core', Soft => 0, Hard => 0 }, { Name => 'nofile', Soft => 128, Hard => 256 } ], 'ulimits');
	is($c->{Config}{StopSignal}, 'SIGINT', 'stop_signal');
	is($c->{Config}{StopTimeout}, 2, 'stop_grace, for whoever else stops it');
	ok($node->wait_for_sql("SELECT cm_job_output($id)", "128\n256\n0\n7\n"), 'they hold in the container')
	  or diag(output($id));
	like(sql("SELECT cm_job_docker_command($id)"),
		qr/--pids-limit 20 .*--shm-size 7m --ulimit core=0 --ulimit nofile=128:256 --stop-signal SIGINT --stop-timeout 2 /,
		'the command line has them');
	like(sql("SELECT explanation FROM cm_job_explain($id) WHERE item = 'limits'"),
		qr{; /dev/shm 7 MB, 20 processes, core 0, nofile 256, stopped by SIGINT, killed 1\.5 s later$}, 'the explanation, too');
	sql("SELECT cm_cancel_job($id)");
	ended($id, 'cancelled', 'it is cancelled');

	my $unsaid = inspect($id = $node->submit(q{'busybox:test', 'sleep 600'}));
	is_deeply([ @{ $unsaid->{HostConfig} }{qw(ShmSize PidsLimit)}, $unsaid->{Config}{StopSignal} ],
		[ 64 * 1024 * 1024, 256, 'SIGTERM' ], 'unsaid, there are limits all the same');
	sql("SELECT cm_cancel_job($id)");
	ended($id, 'cancelled', 'it ends by SIGTERM');

	my $forks = $node->submit(q{'busybox:test', 'i=0; while [ $i -lt 30 ]; do sleep 60 & i=$((i+1)); echo $i; done', pids_limit => 8});
	my $writes = $node->submit(q{'busybox:test', 'yes "$(printf %0999d 0)" | head -c 3000000', log_limit => 1});
	my $writes_all = $node->submit(q{'busybox:test', 'yes "$(printf %0999d 0)" | head -c 3000000'});
	ended($forks, 'failed', 'a fork bomb');
	like(sql("SELECT cm_job_stderr($forks)"), qr/can't fork/, 'is stopped by its pids_limit');
	ended($_, 'completed', 'a job that writes 3 MB') for $writes, $writes_all;
	is(sql("SELECT octet_length(cm_job_output_bytes($writes)) BETWEEN 1000000 AND 1048576, logs_incomplete FROM cm_jobs WHERE id = $writes"),
		't|t', 'log_limit: 1 MB of it is kept, and it says so');
	is(sql("SELECT octet_length(cm_job_output_bytes($writes_all)), logs_incomplete FROM cm_jobs WHERE id = $writes_all"),
		'3000000|f', 'else all of it');
	return;
}

sub stopping
{
	my $polite = $node->submit(q{'busybox:test', 'trap "echo saved; exit 3" USR1; trap "" TERM; echo ready; while :; do sleep 0.1; done',
		stop_signal => 'SIGUSR1'});
	my $deaf = $node->submit(q{'busybox:test', 'trap "" TERM; echo ready; while :; do sleep 0.1; done', stop_grace => '100 ms'});
	my $late = $node->submit(q{'busybox:test', 'trap "echo late; exit 0" HUP; echo ready; while :; do sleep 0.1; done',
		stop_signal => 'SIGHUP', timeout_seconds => 3});
	ok($node->wait_for_sql("SELECT cm_job_output($_)", "ready\n"), "job $_ is ready") for $polite, $deaf;
	sql("SELECT cm_cancel_job($_)") for $polite, $deaf;
	ended($polite, 'cancelled', 'stopped by its own signal');
	is(sql("SELECT exit_code, cm_job_output(id) FROM cm_jobs WHERE id = $polite"), "3|ready\nsaved\n", 'which it could catch');
	ended($deaf, 'cancelled', 'killed after its own stop_grace');
	is(sql("SELECT exit_code FROM cm_jobs WHERE id = $deaf"), 137, 'by SIGKILL');
	ended($late, 'timeout', 'its time is over');
	like(output($late), qr/late/, 'which it was told by its own signal');
	return;
}

# ------------------------------------------------------- the end

sub exit_codes
{
	my %job = map { $_->[0] => $node->submit("'busybox:test', 'exit $_->[1]', success_exit_codes => $_->[2]") } (
		[ 'listed', 3, "'{0,3}'" ], [ 'zero', 0, "'{0,3}'" ], [ 'other', 4, "'{0,3}'" ], [ 'zero is not', 0, "'{3}'" ], [ 'most', 255, "'{255}'" ]);
	ended($job{listed}, 'completed', 'a code that means success');
	ended($job{zero}, 'completed', '0 among them');
	ended($job{most}, 'completed', '255 among them');
	ended($job{other}, 'failed', 'a code that does not');
	ended($job{'zero is not'}, 'failed', '0 not among them');
	is(sql("SELECT exit_code, failure_reason, error FROM cm_jobs WHERE id = $job{listed}"), '3||', 'it failed at nothing');
	is(sql("SELECT failure_reason, error, hint FROM cm_jobs WHERE id = $job{'zero is not'}"),
		q{exit_code|exited with code 0|It is not among the job's success_exit_codes.}, 'and why it failed');
	is(sql("SELECT string_agg(explanation, ' ' ORDER BY id) FROM cm_jobs, cm_job_explain(id) WHERE item = 'why' AND id IN ($job{listed}, $job{'zero is not'})"),
		'It ended with exit code 3, which is among its success_exit_codes. It ended with exit code 0, which is not among its success_exit_codes.',
		'explained');
	return;
}

sub results
{
	my @rows = (
		[ 'all of it', '{"a": 1,\n "b": [2]}\n', '{"a": 1, "b": [2]}' ],
		[ 'the last line', 'working\n{"not": "this"}\n{"rows": 42}\n', '{"rows": 42}' ],
		[ 'the last line that is not empty', 'working\n[1, 2]\n\n \t\r\n', '[1, 2]' ],
		[ 'an end without a newline', 'working\n"done"', '"done"' ],
		[ 'carriage returns', 'working\r\n17\r\n', '17' ],
		[ 'no JSON', '{"a": 1}\nworking\n', '' ],
		[ 'the end of a value', '{"a":\n1}\nworking\n1}\n', '' ],
		[ 'nothing', '', '' ],
		[ 'blank lines', '\n\n', '' ]);
	my @jobs = map { $node->submit("'busybox:test', args => ARRAY['printf', '%b', \$\$$_->[1]\$\$]") } @rows;
	for my $i (0 .. $#rows)
	{
		ended($jobs[$i], 'completed', "prints: $rows[$i][0]");
		is(sql("SELECT cm_job_result($jobs[$i])"), $rows[$i][2], "result: $rows[$i][0]");
	}
	return;
}

# ------------------------------------------------------- dumps

sub dump_and_restore
{
	my ($from, $to) = @_;
	my $fields = 'name, description, is_active, image, command, memory_limit, created_at, updated_at';
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$from.sql";
	$node->command_ok([ 'pg_dump', '-d', $node->connstr($from), '-f', $file ], "$from: dumped");
	sql("CREATE DATABASE $to");
	$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($to), '-f', $file ], "$to: restored without an error");
	is(sql("SELECT $fields FROM cm_templates ORDER BY name", $to), sql("SELECT $fields FROM cm_templates ORDER BY name", $from),
		"$to: the templates are those of $from");
	return;
}

# Templates alone: without the jobs and hosts of the first database.
sub dumps
{
	for my $name (qw(edited none))
	{
		sql("CREATE DATABASE $name");
		sql('CREATE EXTENSION container_manager', $name);
	}
	sql(q{UPDATE cm_templates SET memory_limit = 100, description = 'mine' WHERE name = 'micro'; SELECT cm_drop_template('heavy');
		SELECT cm_disable_template('standard'); SELECT cm_create_template('own', 'busybox:test', 'echo {{a}}');
		INSERT INTO cm_templates (name, image, memory_limit, created_at, updated_at) VALUES ('too_big', 'busybox:test', 9999, now(), now())}, 'edited');
	dump_and_restore('edited', 'edited_again');
	is(sql('SELECT string_agg(name, chr(32) ORDER BY name) FROM cm_templates', 'edited_again'), 'micro own standard too_big', 'edited: they are there');
	dump_and_restore('edited_again', 'edited_twice');
	sql('DELETE FROM cm_templates', 'none');
	dump_and_restore('none', 'none_again');
	is(sql('SELECT count(*) FROM cm_templates', 'none_again'), 0, 'all were dropped, and none is back');
	return;
}
