-- Templates: what is refused when one is written, and what jobs take from them.
-- No job is committed.
CREATE EXTENSION container_manager;

CREATE PROCEDURE try(statement text) LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; of_table text; of_column text; detail text; hint text;
BEGIN
    EXECUTE statement;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'accepted';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, of_table = TABLE_NAME,
        of_column = COLUMN_NAME, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE NOTICE '%', concat_ws(E'\n', CASE WHEN state = 'ZZ000' THEN message
            ELSE concat_ws(' ', state, '[' || nullif(of_table, '') || '.' || of_column || ']', message) END,
        ' detail: ' || nullif(detail, ''), ' hint: ' || nullif(hint, ''));
END
$$;
CREATE PROCEDURE make(arguments text) LANGUAGE plpgsql AS $$
BEGIN
    CALL try(format('SELECT cm_create_template(''t'', %s)', arguments));
END
$$;
CREATE PROCEDURE submit(arguments text) LANGUAGE plpgsql AS $$
BEGIN
    CALL try(format('SELECT cm_submit_job(%s)', arguments));
END
$$;
-- The columns that a job has been given, defaults left out
CREATE PROCEDURE show(arguments text) LANGUAGE plpgsql AS $$
DECLARE
    of_job bigint; made jsonb; plain jsonb;
BEGIN
    EXECUTE format('SELECT cm_submit_job(%s)', arguments) INTO of_job;
    SELECT to_jsonb(j) INTO made FROM cm_jobs j WHERE j.id = of_job;
    SELECT cm_submit_job('plain') INTO of_job;
    SELECT to_jsonb(j) INTO plain FROM cm_jobs j WHERE j.id = of_job;
    RAISE NOTICE '%', (SELECT string_agg(format('%s: %s', m.key, m.value), E'\n ' ORDER BY m.key)
        FROM jsonb_each(made) m WHERE m.value <> plain -> m.key AND m.key <> 'id');
    RAISE EXCEPTION USING ERRCODE = 'ZZ000';
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    NULL;
END
$$;

-- What came with the extension
SELECT name, memory_limit, cpu_limit, timeout_seconds, is_active, is_built_in FROM cm_templates ORDER BY memory_limit;

-- A template has the definition's columns of a job, with their types: what differs
SELECT column_name, j.data_type, t.data_type AS in_template
FROM (SELECT * FROM information_schema.columns WHERE table_name = 'cm_jobs') j
FULL JOIN (SELECT * FROM information_schema.columns WHERE table_name = 'cm_templates') t USING (column_name)
WHERE (j.data_type, j.udt_name) IS DISTINCT FROM (t.data_type, t.udt_name)
ORDER BY 1;
-- and cm_create_template has a parameter for each: what is missing
SELECT column_name FROM information_schema.columns WHERE table_name = 'cm_templates'
EXCEPT SELECT unnest(proargnames) FROM pg_proc WHERE proname = 'cm_create_template'
ORDER BY 1;

-- Names
CALL try($$SELECT cm_create_template('')$$);
CALL try($$SELECT cm_create_template(NULL)$$);
CALL try($$SELECT cm_create_template('a b')$$);
CALL try($$SELECT cm_create_template(repeat('x', 64))$$);
CALL try($$SELECT cm_create_template(repeat('x', 63))$$);
CALL try($$SELECT cm_create_template('micro')$$);
CALL try($$SELECT cm_create_template('micro', if_exists => 'replace')$$);
CALL try($$SELECT cm_create_template('micro', if_exists => NULL)$$);

-- The guard of jobs
CALL make($$NULL$$);
CALL make($$'Busybox'$$);
CALL make($$'busybox', 'true', args => '{a}'$$);
CALL make($$'busybox', command => ''$$);
CALL make($$'busybox', args => '{}'$$);
CALL make($$'busybox', args => '{{a,b},{c,d}}'$$);
CALL make($$'busybox', args => '{a,NULL}'$$);
CALL make($$'busybox', memory_limit => 4096$$);
CALL make($$'busybox', cpu_limit => 'NaN'$$);
CALL make($$'busybox', timeout_seconds => 0$$);
CALL make($$'busybox', run_as => '0'$$);
CALL make($$'busybox', networks => '["host"]'$$);
CALL make($$'busybox', environment => '[]'$$);
CALL make($$'busybox', environment => '{"1A": "x"}'$$);
CALL make($$'busybox', labels => '{"": "x"}'$$);
CALL make($$'busybox', tmpfs => '{"/proc": 1}'$$);
CALL make($$'busybox', priority => 101$$);
CALL make($$'busybox', max_wait => '-1 s'$$);
CALL make($$'busybox', placement_strategy => 'best'$$);
CALL make($$'busybox', host => 'nowhere'$$);
CALL make($$'busybox', host => 'nowhere', host_labels => '{}'$$);
CALL make($$'busybox', retry_on => 'nonsense'$$);
CALL make($$'busybox', ulimits => '{"nice": 1}'$$);
CALL make($$'busybox', stop_signal => 'SIGKILL'$$);
CALL make($$'busybox', success_exit_codes => '{256}'$$);
CALL try($$INSERT INTO cm_templates (name, image) VALUES ('t', 'Busybox')$$);
CALL try($$UPDATE cm_templates SET memory_limit = 1 WHERE name = 'micro'$$);
CALL try($$UPDATE cm_templates SET memory_limit = 256 WHERE name = 'micro'$$);
CALL try($$UPDATE cm_templates SET name = 'micro' WHERE name = 'heavy'$$);
CALL try($$UPDATE cm_templates SET name = '-' WHERE name = 'heavy'$$);

-- Placeholders and parameters
CALL make($$'busybox', 'echo {{'$$);
CALL make($$'busybox', 'echo {{a-b}}'$$);
CALL make($$'busybox', 'echo ''{{a}}'''$$);
CALL make($$'busybox', 'echo "{{a}}"'$$);
CALL make($$'busybox', 'echo ${{a}}'$$);
CALL make($$'busybox', 'echo $((1 + {{a}}))'$$);
CALL make($$'busybox', E'cat <<E\n{{a}}\nE'$$);
CALL make($$'busybox', args => '{"{{"}'$$);
CALL make($$'busybox', args => '{sh,-c,"echo {{a}}"}'$$);
CALL make($$'busybox', entrypoint => '{/bin/sh,-ec}', args => '{"echo {{a}}"}'$$);
CALL make($$'busybox', entrypoint => '{/bin/sh,-c,"echo $1",sh}', args => '{"{{a}}"}'$$);
CALL make($$'busybox', entrypoint => '{"{{program}}"}'$$);
CALL make($$'busybox', environment => '{"A": "{{a b}}"}'$$);
CALL make($$'busybox', environment => '{"A": "it''s ${{ a }}", "B": 1}'$$);
CALL make($$'busybox', parameters => '[]'$$);
CALL make($$'busybox', parameters => '{"a-b": 1}'$$);
CALL make($$'busybox', parameters => '{"a": []}'$$);
CALL make($$'busybox', parameters => jsonb_build_object('a', repeat('x', 600000))$$);
CALL make($$'busybox', parameters => (SELECT jsonb_object_agg('a' || n, n) FROM generate_series(1, 257) n)$$);
CALL make($$'busybox', 'echo {{a}}', parameters => '{"a": "x", "b": null}'$$);
CALL make($$'busybox', environment => '{"A": "{{a}}"}', parameters => jsonb_build_object('a', repeat('x', 131072))$$);
CALL make($$'busybox', args => array_fill('{{a}}'::text, '{4000}'), parameters => jsonb_build_object('a', repeat('x', 1000))$$);
CALL make($$'busybox', repeat('{{a}} ', 20000)$$);

-- What a job takes from one
BEGIN;
SELECT cm_create_template('t', 'busybox:1', 'echo {{what}} {{n}}', environment => '{"A": "a {{what}}", "B": "b"}',
    working_directory => '/w', run_as => '2000', memory_limit => 64, cpu_limit => 0.5, timeout_seconds => 10,
    networks => '["none"]', priority => 80, max_wait => '1 h', max_attempts => 3, retry_on => 'any', retry_delay => '1 s',
    on_host_loss => 'retry', host_loss_grace => '1 min', host_labels => '{"gpu": "yes"}', placement_strategy => 'pack',
    labels => '{"team": "a", "kind": "x"}', read_only => false, tmpfs => '{"/w": 1}', ulimits => '{"nofile": 99}', shm_size => 9,
    pids_limit => 9, stop_signal => 'SIGINT', stop_grace => '2 s', log_limit => 2, success_exit_codes => '{0,4}',
    parameters => '{"what": null, "n": 7}', description => 'a test') AS made;
SELECT cm_create_template('a', 'busybox', args => '{"{{x}}",-a,"{{x}}"}', entrypoint => '{echo,"{{y}}"}') AS made;
CALL show($$template => 't', parameters => '{"what": "it''s $(id) {{n}}"}'$$);
CALL show($$template => 't', parameters => '{"what": "w", "n": null}', image => 'other', environment => '{"B": "own {{what}}", "C": "c"}',
    labels => '{"kind": "y", "n": 1}', memory_limit => 32, priority => 10, read_only => true, max_attempts => 2, ulimits => '{}'$$);
-- a command or args of its own: placeholders in it are just text
CALL show($$command => 'echo {{what}}', template => 't', environment => '{"A": "own"}'$$);
CALL show($$args => '{"{{what}}"}', template => 't', parameters => '{"what": 1.50}'$$);
CALL show($$command => 'true', template => 'a'$$);
CALL show($$template => 'a', parameters => '{"x": true, "y": ""}'$$);
CALL show($$template => 'a', args => '{own}', parameters => '{"y": "$HOME"}'$$);
CALL submit($$template => 'a', entrypoint => '{env,sh,-c}', parameters => '{"x": "id"}'$$);
-- all of it by options, or by a plain INSERT
CALL show($$options => '{"template": "a", "parameters": {"x": 1, "y": 2}}'$$);
INSERT INTO cm_jobs (template, parameters) VALUES ('t', '{"what": "w"}')
RETURNING image, command, environment, priority, max_attempts, retry_on, on_host_loss, labels, read_only, tmpfs, parameters, template;
-- a template for its limits alone
CALL show($$'busybox:2', template => 'micro'$$);
CALL submit($$template => 'micro'$$);
-- a host of its own in place of labels
SELECT cm_add_host('h1', 'unix:///nowhere/docker.sock', is_active => false) > 0 AS added;
CALL show($$template => 't', host => 'h1', parameters => '{"what": "w"}'$$);
-- what is refused
CALL submit($$template => 'nonsense'$$);
CALL submit($$template => 't'$$);
CALL submit($$template => 't', parameters => '{"n": 1}'$$);
CALL submit($$template => 't', parameters => '{"what": null}'$$);
CALL submit($$template => 't', parameters => '{"what": "w", "wat": "w"}'$$);
CALL submit($$template => 't', parameters => '{"what": "w", "other": null}'$$);
CALL submit($$template => 't', parameters => '{"what": ["w"]}'$$);
CALL submit($$template => 't', parameters => '"what"'$$);
CALL submit($$template => 't', parameters => '{"what": "w"}', environment => '{"CM_PARAM_what": "x"}'$$);
CALL submit($$template => 't', parameters => jsonb_build_object('what', repeat('x', 131072))$$);
CALL submit($$template => 't', parameters => '{"what": "w"}', environment => '[]'$$);
CALL submit($$template => 't', parameters => '{"what": "w"}', environment => '"A=1"'$$);
CALL submit($$'busybox', parameters => '{"a": "b"}'$$);
CALL submit($$'busybox', parameters => '{}'$$);
CALL show($$'busybox', 'echo {{what}}', environment => '{"A": "{{what}}"}'$$);

-- Changing, renaming, disabling, dropping: a job that was made from it stays as it is
SELECT cm_submit_job(template => 't', parameters => '{"what": "w"}') AS job \gset
SELECT md5(j::text) AS before FROM cm_jobs j WHERE id = :job \gset
UPDATE cm_templates SET memory_limit = 512, command = 'other' WHERE name = 't';
SELECT cm_rename_template('t', 'u'), cm_disable_template('u'), cm_disable_template('u') AS again;
CALL submit($$template => 't', parameters => '{"what": "w"}'$$);
CALL submit($$template => 'u', parameters => '{"what": "w"}'$$);
SELECT cm_enable_template('u'), cm_enable_template('u') AS again;
CALL submit($$template => 'u', parameters => '{"what": "w"}'$$);
SELECT name, description, is_active, updated_at >= created_at AS in_order FROM cm_templates ORDER BY 1;
SELECT cm_create_template('u', 'busybox', if_exists => 'skip') AS made;
SELECT image, command FROM cm_templates WHERE name = 'u';
SELECT cm_create_template('u', 'busybox', if_exists => 'update') AS made;
SELECT image, command, memory_limit FROM cm_templates WHERE name = 'u';
SELECT cm_drop_template('u');
SELECT md5(j::text) = :'before' AS as_it_was, template FROM cm_jobs j WHERE id = :job;
CALL try($$SELECT cm_drop_template('u')$$);
CALL try($$SELECT cm_enable_template('u')$$);
CALL try($$SELECT cm_disable_template(NULL)$$);
CALL try($$SELECT cm_rename_template('u', 'v')$$);
CALL try($$SELECT cm_rename_template('micro', 'heavy')$$);
CALL try($$SELECT cm_rename_template('micro', '')$$);

-- One that was not checked, as it came out of a dump, is at submitting; those
-- that came with the extension have given way to it
INSERT INTO cm_templates (name, image, memory_limit, created_at, updated_at) VALUES ('old', 'busybox', 9999, now(), now());
SELECT name, is_built_in FROM cm_templates ORDER BY 1;
CALL submit($$template => 'old'$$);
CALL try($$UPDATE cm_templates SET is_active = false, description = 'x' WHERE name = 'old'$$);
CALL try($$UPDATE cm_templates SET run_as = '3000' WHERE name = 'old'$$);
ROLLBACK;
BEGIN;
INSERT INTO cm_internal.restored_templates VALUES (true);
SELECT count(*) AS left_of_the_extension FROM cm_templates;
SELECT count(*) AS marks FROM cm_internal.restored_templates;
ROLLBACK;

-- Who may
CREATE ROLE cm_templates_user;
GRANT EXECUTE ON FUNCTION cm_submit_job TO cm_templates_user;
GRANT SELECT, INSERT ON cm_jobs TO cm_templates_user;
SET ROLE cm_templates_user;
CALL try('TABLE cm_templates');
CALL try($$SELECT cm_create_template('x')$$);
CALL try($$SELECT cm_drop_template('micro')$$);
CALL submit($$'busybox', template => 'micro'$$);
RESET ROLE;
GRANT SELECT, INSERT ON cm_templates TO cm_templates_user;
SET ROLE cm_templates_user;
CALL try($$INSERT INTO cm_templates (name, created_at) VALUES ('x', now())$$);
CALL try($$INSERT INTO cm_templates (name) VALUES ('x')$$);
RESET ROLE;
REVOKE ALL ON cm_templates, cm_jobs FROM cm_templates_user;
REVOKE ALL ON FUNCTION cm_submit_job FROM cm_templates_user;
DROP ROLE cm_templates_user;

DROP PROCEDURE try, make, submit, show;
DROP EXTENSION container_manager;
