-- What cm_hosts and cm_add_host refuse, each with SQLSTATE, column, DETAIL and
-- HINT, and what they make of what they take.  No host is committed, so that
-- no executor looks for an engine.
CREATE EXTENSION container_manager;

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
        ' detail: ' || nullif(regexp_replace(detail, 'Failing row .*', 'Failing row'), ''), ' hint: ' || nullif(hint, ''));
END
$$;
CREATE PROCEDURE add(arguments text) LANGUAGE plpgsql AS $$
BEGIN
    CALL try(format('SELECT cm_add_host(%s)', arguments));
END
$$;
-- A host that is right but for the arguments.
CREATE PROCEDURE add_with(arguments text) LANGUAGE plpgsql AS $$
BEGIN
    CALL add($x$'a', 'unix:///a', $x$ || arguments);
END
$$;

-- Names
CALL add($$NULL, 'unix:///a'$$);
CALL add($$'', 'unix:///a'$$);
CALL add($$'-a', 'unix:///a'$$);
CALL add($$'.', 'unix:///a'$$);
CALL add($$'a b', 'unix:///a'$$);
CALL add($$E'a\nb\x1b[31m', 'unix:///a'$$);
CALL add($$'unix:///a', 'a'$$);
CALL add($$'é', 'unix:///a'$$);
CALL add($$repeat('a', 64), 'unix:///a'$$);
CALL add($$repeat('é', 300), 'unix:///a'$$);
CALL add($$repeat('a', 63), 'unix:///a'$$);
CALL add($$'Build-1.example_x', 'unix:///a'$$);

-- Where the engine is
CALL add($$'a', NULL$$);
CALL add($$'a', ''$$);
CALL add($$'a', ' unix:///a'$$);
CALL add($$'a', '/var/run/docker.sock'$$);
CALL add($$'a', 'var/run/docker.sock'$$);
CALL add($$'a', 'unix://'$$);
CALL add($$'a', 'unix://var/run/docker.sock'$$);
CALL add($$'a', 'unix:/var/run/docker.sock'$$);
CALL add($$'a', 'UNIX:///a'$$);
CALL add($$'a', 'unix:///a/../b'$$);
CALL add($$'a', 'unix:///./a'$$);
CALL add($$'a', 'unix:////a'$$);
CALL add($$'a', 'unix:///a/'$$);
CALL add($$'a', E'unix:///a\nb'$$);
CALL add($$'a', 'unix:///' || repeat('a', 107)$$);
CALL add($$'a', 'unix:///' || repeat('a', 106)$$);
CALL add($$'a', 'unix:///a b''c"d$é%2f'$$);
CALL add($$'a', 'http://localhost:2375'$$);
CALL add($$'a', 'https://localhost:2376'$$);
CALL add($$'a', 'ssh://root@localhost'$$);
CALL add($$'a', 'npipe:////./pipe/docker_engine'$$);
CALL add($$'a', 'fd://'$$);
CALL add($$'a', 'nonsense'$$);
CALL add($$'a', 'tcp://'$$);
CALL add($$'a', 'tcp://localhost'$$);
CALL add($$'a', 'tcp://localhost:0'$$);
CALL add($$'a', 'tcp://localhost:65536'$$);
CALL add($$'a', 'tcp://localhost:2376/x'$$);
CALL add($$'a', 'tcp://root@localhost:2376'$$);
CALL add($$'a', 'tcp://::1:2376'$$);
CALL add($$'a', 'tcp://127.1:2376'$$);
CALL add($$'a', 'tcp://localhost:2376'$$);
CALL add($$'a', 'tcp://[::1]:2376', tls_cert_path => '/certs'$$);
CALL add($$'a', 'tcp://docker1:2375'$$);
CALL add($$'a', 'tcp://docker1:2377', tls_verify => false$$);
CALL add($$'a', 'tcp://127.0.0.2:2375', tls_enabled => false$$);
CALL add($$'a', 'tcp://[::1]:2375', tls_enabled => false, tls_verify => false$$);
CALL add($$'a', 'tcp://localhost:2375', tls_enabled => false, tls_verify => true$$);
CALL add($$'a', 'tcp://localhost:2375', tls_enabled => false, tls_cert_path => '/certs'$$);
CALL add($$'a', 'tcp://docker1:2375', tls_enabled => false$$);
CALL add($$'a', 'tcp://192.0.2.1:2375', tls_enabled => false$$);
CALL add($$'a', 'tcp://[2001:db8::1]:2375', tls_enabled => false$$);
CALL add($$'a', 'tcp://docker1:2376', tls_cert_path => 'certs'$$);
CALL add($$'a', 'tcp://docker1:2376', tls_cert_path => ''$$);
CALL add($$'a', 'tcp://docker1:2376', tls_cert_path => E'/certs\n'$$);

-- TLS
CALL add_with($$tls_enabled => true$$);
CALL add_with($$tls_verify => true$$);
CALL add_with($$tls_cert_path => '/certs'$$);
CALL add_with($$tls_enabled => false, tls_verify => false$$);

-- Numbers
CALL add_with($$max_concurrent_jobs => -1$$);
CALL add_with($$max_concurrent_jobs => 10001$$);
CALL add_with($$max_concurrent_jobs => 0$$);
CALL add_with($$max_concurrent_jobs => 10000$$);
CALL add_with($$weight => 0$$);
CALL add_with($$weight => -1$$);
CALL add_with($$weight => 1001$$);
CALL add_with($$weight => 1$$);
CALL add_with($$weight => 1000$$);

-- Executors
CALL add_with($$executor_type => 'mock'$$);
CALL add_with($$executor_type => 'podman'$$);
CALL add_with($$executor_type => ''$$);
CALL add_with($$executor_type => E'x\ny'$$);
CALL add_with($$executor_type => 'docker'$$);
CALL add_with($$executor_config => '{"a": 1}'$$);
CALL add_with($$executor_config => '{"a\nb": {"c": 1}}'$$);
CALL add_with($$executor_config => jsonb_build_object(repeat('x', 300), 1)$$);
CALL add_with($$executor_config => '{"registry_auth": {"username": "u", "password": "p"}}'$$);
CALL add_with($$executor_config => '{"registry_auth": {"registry.example:5000": ["s"]}}'$$);
CALL add_with($$executor_config => '[]'$$);
CALL add_with($$executor_config => '"x"'$$);
CALL add_with($$executor_config => 'null'$$);
CALL add_with($$executor_config => '{}'$$);
CALL add_with($$executor_config => '{"require_userns": 1}'$$);
CALL add_with($$executor_config => '{"require_userns": true, "x": 1}'$$);
CALL add_with($$executor_config => '{"require_userns": true}'$$);

-- Labels
CALL add_with($$labels => '[]'$$);
CALL add_with($$labels => 'null'$$);
CALL add_with($$labels => '"x"'$$);
CALL add_with($$labels => '{"a": []}'$$);
CALL add_with($$labels => '{"a": {"b": 1}}'$$);
CALL add_with($$labels => '{"a": 1, "b\nc": {}}'$$);
CALL add_with($$labels => '{"a": 1, "b": "x", "c": true, "d": null}'$$);

-- The same by hand
CALL try($$INSERT INTO cm_hosts (name, connection_string) VALUES ('a', 'tcp://localhost:2376')$$);
CALL try($$INSERT INTO cm_hosts (name, connection_string) VALUES ('a b', 'unix:///a')$$);
CALL try($$INSERT INTO cm_hosts (connection_string) VALUES ('unix:///a')$$);
CALL try($$INSERT INTO cm_hosts (name) VALUES ('a')$$);
CALL try($$INSERT INTO cm_hosts (name, connection_string, weight) VALUES ('a', 'unix:///a', 0)$$);
CALL try($$INSERT INTO cm_hosts (name, connection_string, weight) VALUES ('a', 'unix:///a', NULL)$$);
CALL try($$INSERT INTO cm_hosts (name, connection_string, is_active) VALUES ('a', 'unix:///a', NULL)$$);
CALL try($$INSERT INTO cm_hosts (id, name, connection_string) VALUES (1, 'a', 'unix:///a')$$);
CALL try($$INSERT INTO cm_hosts (name, connection_string) VALUES ('a', 'unix:///a'), ('a', 'unix:///b')$$);

-- cm_add_host
CALL add_with($$if_exists => 'replace'$$);
CALL add_with($$if_exists => ''$$);
CALL add_with($$if_exists => NULL$$);
CALL add_with($$options => '{}'$$);
CALL add_with($$options => '{"wieght": 5}'$$);
CALL add_with($$options => '{"max_concurent_jobs": 5}'$$);
CALL add_with($$options => '{"weight": 5}'$$);
CALL add_with($$options => '{"something": 5}'$$);
CALL add_with($$options => '{"": 5}'$$);
CALL add_with($$options => '[]'$$);
CALL add_with($$options => 'null'$$);
CALL add_with($$options => '"weight"'$$);

-- Several at once
CALL try($$SELECT cm_disable_host()$$);
CALL try($$SELECT cm_disable_host('a', name_pattern => 'a*')$$);
CALL try($$SELECT cm_disable_host('a')$$);
CALL try($$SELECT cm_enable_host(name_pattern => 'a*')$$);
CALL try($$SELECT cm_check_host('a?')$$);
CALL try($$SELECT cm_host_security_report('b')$$);
CALL try($$SELECT cm_wait_host_drained('a')$$);
CALL try($$SELECT cm_wait_host_drained('*', '-1 s')$$);
CALL try($$CALL cm_await_host_drained('a')$$);
CALL try($$SELECT cm_accept_engine('a')$$);

-- What is made of it
CREATE VIEW shown AS
SELECT name, host_type, connection_string, is_active, tls_enabled, tls_verify, tls_cert_path, max_concurrent_jobs,
    weight, auto_pull_images, executor_type, executor_config, labels, description,
    created_at = now() AS created_now, updated_at = now() AS updated_now
FROM cm_hosts ORDER BY name;
BEGIN;
SELECT cm_add_host('a', 'unix:///a') AS id \gset
SELECT id = :id AS gives_its_id FROM cm_hosts;
INSERT INTO cm_hosts (name, connection_string, host_type) VALUES ('b', 'unix:///b', 'tcp');
-- NULL is unsaid
SELECT cm_add_host('c', 'unix:///c', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) > 0 AS added;
SELECT count(DISTINCT to_jsonb(s) - '{name,connection_string}'::text[]) AS kinds FROM shown s;
SELECT * FROM shown WHERE name = 'a' \gx
ROLLBACK;

-- Added again
BEGIN;
SELECT cm_add_host('a', 'unix:///a', weight => 7, labels => '{"l": 1}', description => 'first') AS id \gset
UPDATE cm_hosts SET created_at = '2001-01-01';
CALL add($$'a', 'unix:///b'$$);
CALL add($$'a', 'tcp://localhost:2376', if_exists => 'update'$$);
CALL add($$'a', 'unix:///b', if_exists => 'update', weight => 0$$);
CALL add($$'a', 'unix:///b', if_exists => 'skip', options => '{"x": 1}'$$);
SELECT cm_add_host('a', 'unix:///b', weight => 8, if_exists => 'skip') = :id AS same;
SELECT connection_string, weight FROM cm_hosts;
-- all of it is applied, what is not given with its default
SELECT cm_add_host('a', 'unix:///b', max_concurrent_jobs => 3, if_exists => 'update') = :id AS same;
SELECT * FROM shown \gx
-- and the row is left alone where that changes nothing
SELECT ctid AS before FROM cm_hosts \gset
SELECT cm_add_host('a', 'unix:///b', max_concurrent_jobs => 3, if_exists => 'update') = :id AS same;
SELECT ctid = :'before' AS untouched FROM cm_hosts;
-- where it is new, update and skip add it
SELECT cm_add_host('u', 'unix:///u', if_exists => 'update') > 0 AS added, cm_add_host('s', 'unix:///s', if_exists => 'skip') > 0 AS added;
-- a drain is not undone
SELECT cm_disable_host('a', 'repair'), cm_add_host('a', 'unix:///b', if_exists => 'update', weight => 5) = :id AS same;
SELECT state, drain_reason FROM cm_host_status WHERE name = 'a';
ROLLBACK;

-- Scripts of mock hosts
CREATE PROCEDURE add_mock(address text, script text, more text DEFAULT '') LANGUAGE plpgsql AS $$
BEGIN
    CALL add(format('%L, %L, executor_type => %L, executor_config => %L%s', 'm', address, 'mock', script, more));
END
$$;
CALL add_mock('mock://', '{}');
CALL add_mock('mock://a b', '{}');
CALL add_mock('unix:///a', '{}');
CALL add_mock('mock://1', '{}', ', tls_enabled => true');
CALL add_mock('mock://1', '{}', $$, tls_cert_path => '/x'$$);
CALL add_mock('mock://1', '[]');
CALL add_mock('mock://1', '{"exitcode": 1}');
CALL add_mock('mock://1', '{"a\nb": 1}');
CALL add_mock('mock://1', '{"delay": 100}');
CALL add_mock('mock://1', '{"delay": "1 day"}');
CALL add_mock('mock://1', '{"delay": ["2 s", "1 s"]}');
CALL add_mock('mock://1', '{"launch_delay": ["2 s"]}');
CALL add_mock('mock://1', '{"exit_code": 256}');
CALL add_mock('mock://1', '{"exit_code": "1"}');
CALL add_mock('mock://1', '{"exit_code": 1, "exit_codes": {"2": 1}}');
CALL add_mock('mock://1', '{"exit_codes": [1]}');
CALL add_mock('mock://1', '{"exit_codes": {}}');
CALL add_mock('mock://1', '{"exit_codes": {"0": 0}}');
CALL add_mock('mock://1', '{"exit_codes": {"01": 1}}');
CALL add_mock('mock://1', '{"exit_codes": {"-1": 1}}');
CALL add_mock('mock://1', '{"exit_codes": {"1": -1}}');
CALL add_mock('mock://1', '{"exit_codes": {"1": 1e300}}');
CALL add_mock('mock://1', '{"failure": "timeout"}');
CALL add_mock('mock://1', '{"failure": 1}');
CALL add_mock('mock://1', '{"failures": {"exit_code": 1}}');
CALL add_mock('mock://1', '{"failures": {"oom": 2}}');
CALL add_mock('mock://1', '{"failures": {"oom": 0.6, "killed": 0.6}}');
CALL add_mock('mock://1', '{"failures": "oom"}');
CALL add_mock('mock://1', '{"failure": "oom", "failures": {}}');
CALL add_mock('mock://1', '{"on_term": "exit"}');
CALL add_mock('mock://1', '{"on_term": -1}');
CALL add_mock('mock://1', '{"stdout": ["a"]}');
CALL add_mock('mock://1', jsonb_build_object('stderr', repeat('x', 65537))::text);
CALL add_mock('mock://1', '{"unreachable": "yes"}');
CALL add_mock('mock://1', '{"rules": {}}');
CALL add_mock('mock://1', '{"rules": [{"name": "a"}, 1]}');
CALL add_mock('mock://1', '{"rules": [{}]}');
CALL add_mock('mock://1', '{"rules": [{"exit_code": 1, "labels": {}}]}');
CALL add_mock('mock://1', '{"rules": [{"name": 1}]}');
CALL add_mock('mock://1', jsonb_build_object('rules', jsonb_build_array(jsonb_build_object('name', repeat('x', 1025))))::text);
CALL add_mock('mock://1', '{"rules": [{"attempt": 0}]}');
CALL add_mock('mock://1', '{"rules": [{"labels": ["a"]}]}');
CALL add_mock('mock://1', '{"rules": [{"labels": {"a": 1}}]}');
CALL add_mock('mock://1', '{"rules": [{"name": "a", "unreachable": true}]}');
CALL add_mock('mock://1', '{"rules": [{"name": "a", "rules": []}]}');
CALL add_mock('mock://1', '{"rules": [{"name": "a"}, {"name": "b", "delay": ""}]}');
CALL add_mock('mock://1', jsonb_build_object('rules', array_fill('{"name": "a"}'::jsonb, ARRAY[101]))::text);
CALL add_mock('mock://1', jsonb_build_object('rules', array_fill(jsonb_build_object('name', 'a', 'stdout', repeat('x', 65536)), ARRAY[17]))::text);
CALL add_mock('mock://1', '{"launch_delay": "0", "delay": ["1 ms", "2 s"], "exit_codes": {"0": 9, "255": 1}, "failures": {"oom": 1},
    "on_term": "ignore", "stdout": "a", "stderr": "", "unreachable": false, "rules": [{"name": "*", "namespace": "", "image": "a",
    "command": "b", "attempt": 1000, "labels": {"a": "b"}, "exit_code": 0, "failure": "killed"}]}');
CALL add_mock('mock://1', '{}');

-- Changed, renamed, removed
BEGIN;
SELECT cm_add_host('a', 'unix:///a') > 0 AS a, cm_add_host('b', 'unix:///b') > 0 AS b;
CALL try($$UPDATE cm_hosts SET connection_string = 'tcp://localhost:2376'$$);
CALL try($$UPDATE cm_hosts SET name = 'x y' WHERE name = 'a'$$);
CALL try($$UPDATE cm_hosts SET name = 'b' WHERE name = 'a'$$);
CALL try($$UPDATE cm_hosts SET weight = 0$$);
CALL try($$UPDATE cm_hosts SET weight = NULL$$);
CALL try($$UPDATE cm_hosts SET labels = '{"a": []}'$$);
CALL try($$UPDATE cm_hosts SET executor_type = 'mock'$$);
CALL try($$UPDATE cm_hosts SET tls_verify = true$$);
UPDATE cm_hosts SET tls_verify = NULL, host_type = 'tcp', connection_string = 'unix:///c' WHERE name = 'a';
SELECT tls_verify, host_type, connection_string FROM cm_hosts WHERE name = 'a';
CALL try('TRUNCATE cm_hosts');
CALL try('TRUNCATE cm_hosts CASCADE');
CALL try($$SELECT cm_remove_host('bb')$$);
CALL try($$SELECT cm_remove_host('nothing like it')$$);
CALL try($$SELECT cm_remove_host(NULL)$$);
SELECT cm_remove_host('b'), cm_remove_host('a', force => true);
CALL try($$SELECT cm_remove_host('a')$$);
CALL try($$SELECT cm_disable_host('a')$$);
CALL try($$SELECT cm_enable_host('a')$$);
CALL try($$SELECT * FROM cm_check_host('a')$$);
CALL try($$SELECT * FROM cm_host_info('a')$$);
CALL try($$SELECT * FROM cm_host_env('a')$$);
ROLLBACK;

-- cm_host_env: words that a shell reads back as they are
BEGIN;
SELECT cm_add_host('plain', 'unix:///var/run/docker.sock') > 0, cm_add_host('blank', 'unix:///a b/$(id)`x`') > 0,
    cm_add_host('quote', 'unix:///it''s "here"\') > 0, cm_add_host('other', 'unix:///é;&*~!#') > 0;
SELECT h.name, e FROM cm_hosts h CROSS JOIN LATERAL cm_host_env(h.name) e ORDER BY h.name, e;
ROLLBACK;

-- cm_run_job passes its parameters to cm_submit_job by position, all but dry_run
SELECT s.shared > 20 AS many,
    s.proargnames[:s.shared] = r.proargnames[:s.shared] AS same_names,
    (s.proargtypes::oid[])[0:s.shared - 1] = (r.proargtypes::oid[])[0:s.shared - 1] AS same_types,
    s.proargnames[s.shared + 1:] AS other, r.proargnames[s.shared + 1:] AS further
FROM (SELECT *, pronargs - 1 AS shared FROM pg_proc) s, pg_proc r
WHERE s.proname = 'cm_submit_job' AND r.proname = 'cm_run_job';

-- What jobs get by the settings of a session
BEGIN;
SET LOCAL container_manager.default_cpu_limit = 0.25;
SET LOCAL container_manager.default_timeout = '2min';
SET LOCAL container_manager.default_memory_limit = '64MB';
SET LOCAL container_manager.default_run_as = '2000';
SELECT cm_submit_job('busybox') > 0, cm_submit_job('busybox', cpu_limit => 1.5, timeout_seconds => 7, memory_limit => 6, run_as => '3000:3001') > 0;
SELECT cpu_limit, timeout_seconds, memory_limit, run_as FROM cm_jobs ORDER BY id;
ROLLBACK;
SET container_manager.default_cpu_limit = 3;
CALL try($$SELECT cm_submit_job('busybox')$$);
RESET container_manager.default_cpu_limit;
SET container_manager.default_timeout = '2h';
CALL try($$SELECT cm_submit_job('busybox')$$);
RESET container_manager.default_timeout;
CALL try('SET container_manager.default_cpu_limit = 0');
CALL try('SET container_manager.default_cpu_limit = ''NaN''');
CALL try('SET container_manager.default_timeout = 0');
CALL try('SET container_manager.max_cpu_limit = 100');
CALL try('SET container_manager.max_timeout = ''1d''');
CALL try('SET container_manager.pids_limit = 100000');

DROP VIEW shown;
DROP PROCEDURE try, add, add_with;
DROP EXTENSION container_manager;
