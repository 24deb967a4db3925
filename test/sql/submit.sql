-- What cm_submit_job and INSERT INTO cm_jobs refuse, each with SQLSTATE, column,
-- DETAIL and HINT, and what they make of what they take.  No job is committed,
-- so that nothing here waits for an executor or an engine.
CREATE EXTENSION container_manager;
SELECT cm_add_host('h1', 'unix:///nowhere/docker.sock', is_active => false) > 0 AS added;

CREATE PROCEDURE try(statement text) LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; of_column text; detail text; hint text;
BEGIN
    EXECUTE statement;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'accepted';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
        of_column = COLUMN_NAME, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE NOTICE '%', concat_ws(E'\n', CASE WHEN state = 'ZZ000' THEN message
            ELSE concat_ws(' ', state, '[' || nullif(of_column, '') || ']', message) END,
        ' detail: ' || nullif(detail, ''), ' hint: ' || nullif(hint, ''));
END
$$;
CREATE PROCEDURE submit(arguments text) LANGUAGE plpgsql AS $$
BEGIN
    CALL try(format('SELECT cm_submit_job(%s)', arguments));
END
$$;

-- The image
CALL submit($$NULL$$);
CALL submit($$''$$);
CALL submit($$' '$$);
CALL submit($$'Busybox'$$);
CALL submit($$'busybox:'$$);
CALL submit($$'busybox@sha256:12'$$);
CALL submit($$'busybox:1.36 --privileged'$$);
CALL submit($$E'busy\nbox'$$);
CALL submit($$'../../etc'$$);
CALL submit($$repeat('a', 2000)$$);
CALL submit($$'registry.example:5000/a/b:1'$$);
CALL try($$INSERT INTO cm_jobs (command) VALUES ('true')$$);
CALL try($$INSERT INTO cm_jobs (image) VALUES ('')$$);

-- What is run
CALL submit($$'busybox', ''$$);
CALL submit($$'busybox', E' \n\t'$$);
CALL submit($$'busybox', 'true', args => '{a}'$$);
CALL submit($$'busybox', 'true', args => '{}'$$);
CALL submit($$'busybox', 'true', entrypoint => '{sh}'$$);
CALL submit($$'busybox', args => '{}'$$);
CALL submit($$'busybox', entrypoint => '{}'$$);
CALL submit($$'busybox', args => '{}', entrypoint => '{}'$$);
CALL submit($$'busybox', args => '{}', entrypoint => '{sh}'$$);
CALL submit($$'busybox', args => '{sh}', entrypoint => '{}'$$);
CALL submit($$'busybox', entrypoint => '{""}'$$);
CALL submit($$'busybox', entrypoint => '{"",sh}'$$);
CALL submit($$'busybox', args => '{ls,NULL,-l}'$$);
CALL submit($$'busybox', entrypoint => '{NULL}'$$);
CALL submit($$'busybox', args => '{{ls,-l},{a,b}}'$$);
CALL submit($$'busybox', args => '[5:6]={ls,-l}'$$);
CALL submit($$'busybox', args => array_fill(''::text, '{4096}')$$);
CALL submit($$'busybox', args => array_fill(''::text, '{4097}')$$);
CALL submit($$'busybox', repeat('x', 131071)$$);
CALL submit($$'busybox', repeat('x', 131072)$$);
CALL submit($$'busybox', args => ARRAY[repeat('x', 131072)]$$);
CALL submit($$'busybox', E'echo \x00'$$);

-- Environment
CALL submit($$'busybox', environment => '[]'$$);
CALL submit($$'busybox', environment => '"A=1"'$$);
CALL submit($$'busybox', environment => 'null'$$);
CALL submit($$'busybox', environment => '{"A": null}'$$);
CALL submit($$'busybox', environment => '{"A": {"B": 1}}'$$);
CALL submit($$'busybox', environment => '{"A": [1]}'$$);
CALL submit($$'busybox', environment => '{"A": "\u0000"}'$$);
CALL submit($$'busybox', environment => '{"": "1"}'$$);
CALL submit($$'busybox', environment => '{"1A": "1"}'$$);
CALL submit($$'busybox', environment => '{"A=B": "1"}'$$);
CALL submit($$'busybox', environment => '{"A B": "1"}'$$);
CALL submit($$'busybox', environment => '{"A\nB": "1"}'$$);
CALL submit($$'busybox', environment => '{"A\nB\u001b[31m": []}'$$);
CALL submit($$'busybox', environment => jsonb_build_object(repeat('x', 300), null)$$);
CALL submit($$'busybox', environment => '{"A-B": "1"}'$$);
CALL submit($$'busybox', environment => '{"CONTAINER_MANAGER_JOB": "1"}'$$);
CALL submit($$'busybox', environment => (SELECT jsonb_object_agg('N' || n, n) FROM generate_series(1, 4097) n)$$);
CALL submit($$'busybox', environment => jsonb_build_object('A', repeat('x', 131072))$$);
CALL submit($$'busybox', environment => (SELECT jsonb_object_agg('N' || n, repeat('x', 120000)) FROM generate_series(1, 5) n)$$);
CALL submit($$'busybox', environment => '{"A": "", "_b1": "two words", "C": 1.50, "D": true, "E": -12345678901234567890.5, "F": "é"}'$$);

-- Limits
CALL submit($$'busybox', memory_limit => 5$$);
CALL submit($$'busybox', memory_limit => -1$$);
CALL submit($$'busybox', memory_limit => 2049$$);
CALL submit($$'busybox', memory_limit => 2147483647$$);
CALL submit($$'busybox', memory_limit => 2048$$);
CALL submit($$'busybox', cpu_limit => 0$$);
CALL submit($$'busybox', cpu_limit => -5$$);
CALL submit($$'busybox', cpu_limit => 0.005$$);
CALL submit($$'busybox', cpu_limit => 2.5$$);
CALL submit($$'busybox', cpu_limit => 1e100$$);
CALL submit($$'busybox', cpu_limit => 'NaN'$$);
CALL submit($$'busybox', cpu_limit => 'Infinity'$$);
CALL submit($$'busybox', cpu_limit => '-Infinity'$$);
CALL submit($$'busybox', cpu_limit => 0.01$$);
CALL submit($$'busybox', timeout_seconds => 0$$);
CALL submit($$'busybox', timeout_seconds => -1$$);
CALL submit($$'busybox', timeout_seconds => 3601$$);
CALL submit($$'busybox', timeout_seconds => 3600$$);
SET container_manager.default_memory_limit = '4GB';
CALL submit($$'busybox'$$);
RESET container_manager.default_memory_limit;
SET container_manager.default_run_as = '0:0';
CALL submit($$'busybox'$$);
RESET container_manager.default_run_as;
CALL try('SET container_manager.default_run_as = root');
CALL try('SET container_manager.max_memory_limit = 1');
CALL try('SET container_manager.min_uid = 0');

-- Limits on processes, how a job is stopped, and what its exit codes mean
CALL submit($$'busybox', ulimits => '[]'$$);
CALL submit($$'busybox', ulimits => '{"nofile": "1024"}'$$);
CALL submit($$'busybox', ulimits => '{"nofile": 1.5}'$$);
CALL submit($$'busybox', ulimits => '{"nofile": {"soft": 1}}'$$);
CALL submit($$'busybox', ulimits => '{"nofile": {"soft": 1, "hard": 2, "x": 3}}'$$);
CALL submit($$'busybox', ulimits => '{"nofile": {"soft": 3, "hard": 2}}'$$);
CALL submit($$'busybox', ulimits => '{"nofile": 1e99}'$$);
CALL submit($$'busybox', ulimits => '{"nofile": -1}'$$);
CALL submit($$'busybox', ulimits => '{"rtprio": 99}'$$);
CALL submit($$'busybox', ulimits => '{"memlock": 536870913}'$$);
CALL submit($$'busybox', ulimits => '{"nofile": {"soft": 1, "hard": 2}, "core": 0, "memlock": 536870912}'$$);
CALL submit($$'busybox', shm_size => 0$$);
CALL submit($$'busybox', shm_size => 513$$);
CALL submit($$'busybox', shm_size => 512$$);
CALL submit($$'busybox', pids_limit => 0$$);
CALL submit($$'busybox', pids_limit => -1$$);
CALL submit($$'busybox', pids_limit => 257$$);
CALL submit($$'busybox', pids_limit => 256$$);
CALL submit($$'busybox', log_limit => 0$$);
CALL submit($$'busybox', log_limit => 2147483647$$);
CALL submit($$'busybox', log_limit => 256$$);
CALL submit($$'busybox', stop_signal => 'KILL'$$);
CALL submit($$'busybox', stop_signal => 'SIGUSR1'$$);
CALL submit($$'busybox', stop_grace => '-1 ms'$$);
CALL submit($$'busybox', stop_grace => '61 s'$$);
CALL submit($$'busybox', stop_grace => '1000000 years'$$);
CALL submit($$'busybox', stop_grace => '0'$$);
CALL submit($$'busybox', stop_grace => '1 min'$$);
CALL submit($$'busybox', success_exit_codes => '{}'$$);
CALL submit($$'busybox', success_exit_codes => '{0,256}'$$);
CALL submit($$'busybox', success_exit_codes => '{-1}'$$);
CALL submit($$'busybox', success_exit_codes => '{0,NULL}'$$);
CALL submit($$'busybox', success_exit_codes => '{3,0,255,3}'$$);
CALL submit($$'busybox', options => '{"ulimits": {"nofile": 10}, "shm_size": 5, "success_exit_codes": [0, 3], "stop_grace": "5 s"}'$$);

-- Where
CALL submit($$'busybox', host => 'nowhere'$$);
CALL submit($$'busybox', host => ''$$);
CALL submit($$'busybox', host => 'h1'$$);
CALL submit($$'busybox', networks => '["host"]'$$);
CALL submit($$'busybox', networks => '["HOST"]'$$);
CALL submit($$'busybox', networks => '["default"]'$$);
CALL submit($$'busybox', networks => '["container:x"]'$$);
CALL submit($$'busybox', networks => '["ns:/proc/1/ns/net"]'$$);
CALL submit($$'busybox', networks => '[""]'$$);
CALL submit($$'busybox', networks => '["a b"]'$$);
CALL submit($$'busybox', networks => '["a", "b"]'$$);
CALL submit($$'busybox', networks => '[{"name": "a", "aliases": ["b"]}]'$$);
CALL submit($$'busybox', networks => '[1]'$$);
CALL submit($$'busybox', networks => '[null]'$$);
CALL submit($$'busybox', networks => '"bridge"'$$);
CALL submit($$'busybox', networks => '{"bridge": {}}'$$);
CALL submit($$'busybox', networks => 'null'$$);
CALL submit($$'busybox', networks => '[]'$$);
CALL submit($$'busybox', networks => '["my-net_1.x"]'$$);

-- As whom
CALL submit($$'busybox', run_as => 'root'$$);
CALL submit($$'busybox', run_as => ''$$);
CALL submit($$'busybox', run_as => '0'$$);
CALL submit($$'busybox', run_as => '0:0'$$);
CALL submit($$'busybox', run_as => '1000'$$);
CALL submit($$'busybox', run_as => '2000:0'$$);
CALL submit($$'busybox', run_as => '00'$$);
CALL submit($$'busybox', run_as => '-1'$$);
CALL submit($$'busybox', run_as => '+2000'$$);
CALL submit($$'busybox', run_as => ' 2000'$$);
CALL submit($$'busybox', run_as => '2000:'$$);
CALL submit($$'busybox', run_as => '2000:nogroup'$$);
CALL submit($$'busybox', run_as => '4294967296'$$);
CALL submit($$'busybox', run_as => 'image'$$);
CALL submit($$'busybox', run_as => '1001'$$);
CALL submit($$'busybox', run_as => '1001:5'$$);

-- Files
CALL submit($$'busybox', working_directory => ''$$);
CALL submit($$'busybox', working_directory => 'tmp'$$);
CALL submit($$'busybox', working_directory => '/a/../b'$$);
CALL submit($$'busybox', working_directory => E'/a\nb'$$);
CALL submit($$'busybox', working_directory => '/' || repeat('a', 4096)$$);
CALL submit($$'busybox', working_directory => '/tmp'$$);
CALL submit($$'busybox', tmpfs => '[]'$$);
CALL submit($$'busybox', tmpfs => '"/x"'$$);
CALL submit($$'busybox', tmpfs => '{"x": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/x/": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"//proc": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/x/../proc": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/proc": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/sys/fs": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/dev/shm": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/x:suid": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/x,suid": 1}'$$);
CALL submit($$'busybox', tmpfs => '{"/x": 0}'$$);
CALL submit($$'busybox', tmpfs => '{"/x": -1}'$$);
CALL submit($$'busybox', tmpfs => '{"/x": 1.5}'$$);
CALL submit($$'busybox', tmpfs => '{"/x": 1e30}'$$);
CALL submit($$'busybox', tmpfs => '{"/x": "64m"}'$$);
CALL submit($$'busybox', tmpfs => '{"/x": null}'$$);
CALL submit($$'busybox', tmpfs => '{"/x": 513}'$$);
CALL submit($$'busybox', tmpfs => '{"/x": 513}', memory_limit => 513$$);
CALL submit($$'busybox', tmpfs => (SELECT jsonb_object_agg('/x' || n, 1) FROM generate_series(1, 33) n)$$);
CALL submit($$'busybox', tmpfs => '{"/tmp": 1, "/process": 2}'$$);

-- Names and labels
CALL submit($$'busybox', name => repeat('x', 256)$$);
CALL submit($$'busybox', name => E'a\nb'$$);
CALL submit($$'busybox', name => 'Nightly é report'$$);
CALL submit($$'busybox', namespace => ''$$);
CALL submit($$'busybox', namespace => '../x'$$);
CALL submit($$'busybox', labels => '[]'$$);
CALL submit($$'busybox', labels => '{"a": null}'$$);
CALL submit($$'busybox', labels => '{"a": {}}'$$);
CALL submit($$'busybox', labels => '{"": "1"}'$$);
CALL submit($$'busybox', labels => '{"a b": "1"}'$$);
CALL submit($$'busybox', labels => jsonb_build_object(repeat('a', 64), 1)$$);
CALL submit($$'busybox', labels => jsonb_build_object('a', repeat('x', 4097))$$);
CALL submit($$'busybox', labels => (SELECT jsonb_object_agg('k' || n, repeat('x', 4096)) FROM generate_series(1, 16) n)$$);
CALL submit($$'busybox', labels => '{"team": "reports", "run/7.b": 7, "x": ""}'$$);

-- When
CALL submit($$'busybox', priority => -1$$);
CALL submit($$'busybox', priority => 101$$);
CALL submit($$'busybox', priority => 100$$);
CALL submit($$'busybox', run_at => 'infinity'$$);
CALL submit($$'busybox', run_at => '-infinity'$$);
CALL submit($$'busybox', run_at => '2001-01-01'$$);
CALL submit($$'busybox', max_wait => '-1 s'$$);
CALL submit($$'busybox', max_wait => '1 month -1 day'$$);
CALL submit($$'busybox', max_wait => '101 years'$$);
CALL submit($$'busybox', max_wait => '1 day'$$);

-- How often
CALL submit($$'busybox', max_attempts => 0$$);
CALL submit($$'busybox', max_attempts => 1001$$);
CALL submit($$'busybox', max_attempts => 3$$);
CALL submit($$'busybox', retry_on => ''$$);
CALL submit($$'busybox', retry_on => 'ANY'$$);
CALL submit($$'busybox', retry_on => '75, 256'$$);
CALL submit($$'busybox', retry_on => 'oom, policy'$$);
CALL submit($$'busybox', retry_on => 'host_lost'$$);
CALL submit($$'busybox', max_attempts => 3, retry_on => 'any'$$);
CALL submit($$'busybox', max_attempts => 3, retry_on => ' oom , 75,exit_code'$$);
CALL submit($$'busybox', retry_delay => '-1 s'$$);
CALL submit($$'busybox', retry_delay => '31 days'$$);
CALL submit($$'busybox', retry_delay => '1000000 years'$$);
CALL submit($$'busybox', retry_delay => '0'$$);
CALL submit($$'busybox', on_host_loss => 'run'$$);
CALL submit($$'busybox', on_host_loss => 'retry'$$);
CALL submit($$'busybox', on_host_loss => 'retry', max_attempts => 2$$);
CALL submit($$'busybox', on_host_loss => 'fail', host_loss_grace => '-1 s'$$);
CALL submit($$'busybox', on_host_loss => 'fail', host_loss_grace => '1 month 1 day'$$);
CALL submit($$'busybox', on_host_loss => 'fail', host_loss_grace => '1 month'$$);
CALL try('SELECT cm_retry_job(4711)');
CALL try('SELECT cm_abandon_job(4711, NULL)');
CALL try($$SELECT cm_abandon_job(4711, ' ')$$);
CALL try($$SELECT cm_abandon_job(4711, repeat('x', 1001))$$);
CALL try($$SELECT cm_abandon_job(4711, 'gone')$$);

-- Secrets and templates that are not there, options that nobody may have
CALL submit($$'busybox', secret_environment => '{"A": "s"}'$$);
CALL submit($$'busybox', environment_template => 'e'$$);
CALL submit($$'busybox', docker_options => '{"Privileged": true}'$$);

-- options
CALL submit($$'busybox', options => '[]'$$);
CALL submit($$'busybox', options => '"x"'$$);
CALL submit($$'busybox', options => 'null'$$);
CALL submit($$'busybox', options => '{"memory_limt": 6}'$$);
CALL submit($$'busybox', options => '{"Memory_Limit": 6}'$$);
CALL submit($$'busybox', options => '{"privileged": true}'$$);
CALL submit($$'busybox', options => '{"options": {}}'$$);
CALL submit($$'busybox', options => '{"status": "running"}'$$);
CALL submit($$'busybox', options => '{"owner": "x"}'$$);
CALL submit($$'busybox', options => '{"epoch": "00000000-0000-0000-0000-000000000000"}'$$);
CALL submit($$'busybox', options => '{"": 1}'$$);
CALL submit($$'busybox', options => jsonb_build_object(repeat('é', 300), 1)$$);
CALL submit($$'busybox', options => '{"image": "x"}'$$);
CALL submit($$'busybox', memory_limit => 6, options => '{"memory_limit": 6}'$$);
CALL submit($$'busybox', options => '{"memory_limit": "much"}'$$);
CALL submit($$'busybox', options => '{"memory_limit": 5}'$$);
CALL submit($$'busybox', options => '{"template": "t"}'$$);
CALL submit($$'busybox', options => '{"args": ["ls", "-l"], "memory_limit": 6, "labels": {"a": "b"}, "read_only": false}'$$);
CALL submit($$NULL, options => '{"image": "busybox"}'$$);

-- Columns that are the executor's
CALL try($$INSERT INTO cm_jobs (image, status) VALUES ('busybox', 'completed')$$);
CALL try($$INSERT INTO cm_jobs (image, status) VALUES ('busybox', 'nonsense')$$);
CALL try($$INSERT INTO cm_jobs (image, failure_reason) VALUES ('busybox', 'oom')$$);
CALL try($$INSERT INTO cm_jobs (image, detail) VALUES ('busybox', 'x')$$);
CALL try($$INSERT INTO cm_jobs (image, error) VALUES ('busybox', 'x')$$);
CALL try($$INSERT INTO cm_jobs (image, hint) VALUES ('busybox', 'x')$$);
CALL try($$INSERT INTO cm_jobs (image, requested_host) VALUES ('busybox', 'h1')$$);
CALL try($$INSERT INTO cm_jobs (image, attempt) VALUES ('busybox', 1)$$);
CALL try($$INSERT INTO cm_jobs (image, container_id) VALUES ('busybox', 'x')$$);
CALL try($$INSERT INTO cm_jobs (image, exit_code) VALUES ('busybox', 0)$$);
CALL try($$INSERT INTO cm_jobs (image, oom_killed) VALUES ('busybox', true)$$);
CALL try($$INSERT INTO cm_jobs (image, logs_incomplete) VALUES ('busybox', true)$$);
CALL try($$INSERT INTO cm_jobs (image, started_at) VALUES ('busybox', now())$$);
CALL try($$INSERT INTO cm_jobs (image, completed_at) VALUES ('busybox', now())$$);
CALL try($$INSERT INTO cm_jobs (image, owner) VALUES ('busybox', 'pg_monitor')$$);

-- NULL is unsaid in every column, also where it has a default
CREATE FUNCTION null_columns() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c name;
BEGIN
    FOR c IN SELECT attname FROM pg_attribute
             WHERE attrelid = 'cm_jobs'::regclass AND attnum > 0 AND attname <> 'image' ORDER BY attnum
    LOOP
        BEGIN
            EXECUTE format('INSERT INTO cm_jobs (image, %I) VALUES (''busybox'', NULL)', c);
        EXCEPTION WHEN others THEN
            RAISE NOTICE '% %: %', sqlstate, c, sqlerrm;
        END;
    END LOOP;
END
$$;
BEGIN;
SELECT null_columns();
SELECT DISTINCT owner = current_user AS mine, status, attempt, created_at = now() AS now FROM cm_jobs;
ROLLBACK;

-- What becomes of what is taken
BEGIN;
SELECT cm_submit_job('busybox:1', 'x', environment => '{"a": 1.50, "b": true, "c": "t"}', labels => '{"l": 1}',
    host => 'h1', cpu_limit => 1.5) > 0 AS submitted;
INSERT INTO cm_jobs (image, created_at, updated_at) VALUES ('busybox:2', '2001-01-01', '2001-01-01');
SELECT image, status, namespace, host, requested_host, environment, labels, memory_limit, cpu_limit,
    timeout_seconds, networks, priority, run_as, read_only, tmpfs, run_at = now() AS at_once,
    created_at = now() AS created_now, updated_at = now() AS updated_now, owner = current_user AS mine
FROM cm_jobs ORDER BY id \gx
SELECT q.status, h.name, q.priority, q.is_due FROM cm_internal.queue q LEFT JOIN cm_hosts h ON h.id = q.placement
ORDER BY q.job_id;

-- Requests for a job that waits
CALL try('SELECT cm_cancel_job(-1)');
CALL try('SELECT cm_set_priority(-1, 5)');
CALL try('SELECT cm_set_priority(min(id), 101) FROM cm_jobs');
CALL try('SELECT cm_set_priority(min(id), -1) FROM cm_jobs');
SELECT cm_cancel_job(NULL), cm_set_priority(NULL, 1);
SELECT cm_set_priority(min(id), 7) FROM cm_jobs;
SELECT cm_cancel_job(min(id)) AS first FROM cm_jobs;
SELECT cm_cancel_job(min(id)) AS again FROM cm_jobs;
SELECT action, priority, requested_by = current_user AS mine FROM cm_internal.requests ORDER BY id;

-- Changes by hand
CALL try($$UPDATE cm_jobs SET status = 'completed'$$);
CALL try($$UPDATE cm_jobs SET priority = 1$$);
CALL try($$UPDATE cm_jobs SET image = 'other'$$);
CALL try($$UPDATE cm_jobs SET owner = 'pg_monitor'$$);
CALL try($$UPDATE cm_jobs SET epoch = gen_random_uuid()$$);
CALL try($$UPDATE cm_jobs SET id = id + 1000$$);
CALL try($$UPDATE cm_jobs SET run_at = NULL$$);
CALL try($$UPDATE cm_jobs SET exit_code = 0, name = 'x'$$);
CALL try($$UPDATE cm_jobs SET labels = '[]'$$);
CALL try($$UPDATE cm_jobs SET labels = '{"a": {"b": 1}}'$$);
CALL try($$UPDATE cm_jobs SET labels = jsonb_build_object('a', repeat('x', 5000))$$);
CALL try($$UPDATE cm_jobs SET name = E'a\nb'$$);
UPDATE cm_jobs SET name = 'renamed', labels = '{"a": "b"}', image = image;
SELECT DISTINCT name, labels FROM cm_jobs;
DO $$
BEGIN
    DELETE FROM cm_jobs;
EXCEPTION WHEN others THEN
    RAISE NOTICE '% %', sqlstate, regexp_replace(sqlerrm, '\d+', 'N');
END
$$;
CALL try('TRUNCATE cm_jobs');
ROLLBACK;

-- A row that comes out of a dump: taken as it is, inert, and it may be deleted
BEGIN;
INSERT INTO cm_jobs (id, image, status, attempt, exit_code, memory_limit, cpu_limit, timeout_seconds, run_as,
    networks, placement_strategy, owner, epoch)
VALUES (900, 'busybox', 'failed', 1, 3, 99999, 99, 99999, '0:0', '["bridge"]', 'pack', 'gone',
        '00000000-0000-0000-0000-000000000001'),
    (901, 'busybox', 'pending', 0, NULL, 99999, 99, 99999, '0:0', '["bridge"]', 'pack', 'gone',
        '00000000-0000-0000-0000-000000000001');
SELECT count(*) AS queued FROM cm_internal.queue;
CALL try('SELECT cm_cancel_job(900)');
CALL try('SELECT cm_set_priority(901, 1)');
CALL try($$UPDATE cm_jobs SET status = 'pending' WHERE id = 900$$);
UPDATE cm_jobs SET name = 'old', labels = '{"kept": "yes"}' WHERE id = 900;
DELETE FROM cm_jobs WHERE id = 900;
SELECT id, status, owner FROM cm_jobs;
TRUNCATE cm_jobs;
SELECT count(*) FROM cm_jobs;
ROLLBACK;

DROP PROCEDURE try, submit;
DROP FUNCTION null_columns;
DROP EXTENSION container_manager;
