-- What is refused of depends_on, unique_key, concurrency_key and their kin, of
-- cm_submit_jobs and cm_pause, each with SQLSTATE, column, DETAIL and HINT.  No job
-- is committed, so that nothing here waits for an executor or an engine.
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
        ' detail: ' || nullif(detail, ''), ' hint: ' || nullif(hint, ''));
END
$$;
CREATE PROCEDURE submit(arguments text) LANGUAGE plpgsql AS $$
BEGIN
    CALL try(format('SELECT cm_submit_job(%s)', arguments));
END
$$;

-- Jobs that it depends on
CALL submit($$'busybox', depends_on => '{4711}'$$);
CALL submit($$'busybox', depends_on => '{NULL}'$$);
CALL submit($$'busybox', depends_on => '{{1,2},{3,4}}'$$);
CALL submit($$'busybox', depends_on => array_fill(1::bigint, '{10001}')$$);
CALL submit($$'busybox', depends_on => '{0}'$$);
CALL submit($$'busybox', depends_on => '{-1}'$$);
CALL submit($$'busybox', depends_on_any_end => true$$);
CALL submit($$'busybox', depends_on => '{}'$$);
CALL submit($$'busybox', depends_on => ARRAY[cm_submit_job('busybox')]$$);

-- Ids of the same statement: no job can depend on itself, or on a later one
ALTER TABLE cm_jobs ALTER id RESTART 100;
BEGIN;
SELECT setval(pg_get_serial_sequence('cm_jobs', 'id'), 110) AS last;
CALL try($$INSERT INTO cm_jobs (id, image, depends_on) VALUES (105, 'busybox', '{105}')$$);
CALL try($$INSERT INTO cm_jobs (id, image, depends_on) VALUES (105, 'busybox', '{106}'), (106, 'busybox', '{105}')$$);
CALL try($$INSERT INTO cm_jobs (id, image, depends_on) VALUES (106, 'busybox', NULL), (105, 'busybox', '{106}')$$);
CALL try($$INSERT INTO cm_jobs (id, image, depends_on) VALUES (105, 'busybox', NULL), (106, 'busybox', '{105}')$$);
CALL try($$WITH a AS (INSERT INTO cm_jobs (id, image) VALUES (107, 'busybox') RETURNING id)
    INSERT INTO cm_jobs (id, image, depends_on) SELECT 106, 'busybox', ARRAY[id] FROM a$$);
CALL try($$INSERT INTO cm_internal.dependencies VALUES (5, 5, true, false)$$);
ROLLBACK;

-- Keys
CALL submit($$'busybox', unique_key => ''$$);
CALL submit($$'busybox', unique_key => repeat('x', 256)$$);
CALL submit($$'busybox', unique_key => E'a\nb'$$);
CALL submit($$'busybox', unique_key => 'k', on_conflict => 'ignore'$$);
CALL submit($$'busybox', on_conflict => 'skip'$$);
CALL submit($$'busybox', concurrency_key => ''$$);
CALL submit($$'busybox', concurrency_key => repeat('x', 256)$$);
CALL submit($$'busybox', concurrency_limit => 2$$);
CALL submit($$'busybox', concurrency_key => 'c', concurrency_limit => 0$$);
CALL submit($$'busybox', concurrency_key => 'c', concurrency_limit => 10001$$);
CALL submit($$'busybox', concurrency_key => 'c', concurrency_limit => 10000$$);
CALL try($$INSERT INTO cm_jobs (image, unique_key) VALUES ('busybox', 'k'), ('busybox', 'k')$$);
BEGIN;
INSERT INTO cm_jobs (image, name, unique_key, on_conflict)
    VALUES ('busybox', 'a', 'k', 'error'), ('busybox', 'b', 'k', 'skip'), ('busybox', 'c', 'k', 'replace'),
        ('busybox', 'd', 'k', 'replace'), ('busybox', 'e', NULL, NULL)
    RETURNING name, on_conflict, concurrency_limit;
SELECT j.name, array_agg(d.name ORDER BY d.name) AS waits_for
FROM cm_internal.dependencies w JOIN cm_jobs j ON j.id = w.job_id JOIN cm_jobs d ON d.id = w.depends_on
GROUP BY j.name ORDER BY 1;
SELECT j.name, q.waits_for, q.is_ready FROM cm_internal.queue q JOIN cm_jobs j ON j.id = q.job_id ORDER BY 1;
SELECT j.name, r.action FROM cm_internal.requests r JOIN cm_jobs j ON j.id = r.job_id ORDER BY 1;
ROLLBACK;

-- Many
CALL try($$SELECT * FROM cm_submit_jobs('{}')$$);
CALL try($$SELECT * FROM cm_submit_jobs('"x"')$$);
CALL try($$SELECT * FROM cm_submit_jobs('5')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, 5]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, []]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, {}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox", "memory_limt": 6}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox", "status": "running"}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox", "options": {}}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, {"image": "busybox", "memory_limit": "much"}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, {"image": "busybox", "memory_limit": 1e20}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox", "run_at": "soon"}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox", "name": {"a": 1}}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox", "args": "ls"}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox", "depends_on": [1, "x"]}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, {"image": "busybox"}, {"image": "Busybox"}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, {"image": "busybox", "memory_limit": 2}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, {"image": "busybox", "host": "x"}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox"}, {"image": "busybox", "depends_on": [4711]}]')$$);
CALL try($$SELECT * FROM cm_submit_jobs('[{"image": "busybox", "unique_key": "k"}, {"image": "busybox", "unique_key": "k"}]')$$);
BEGIN;
SELECT n FROM cm_submit_jobs('[{"image": "busybox", "command": "echo \"quoted\"", "environment": {"A": 1}},
    {"image": "busybox", "args": ["a b", "it''s"], "cpu_limit": 0.5, "read_only": false, "max_wait": "1 h", "name": null}]') ORDER BY n;
SELECT command, args, environment, cpu_limit, read_only, max_wait, name FROM cm_jobs ORDER BY id;
ROLLBACK;

-- Pauses
CALL try('SELECT cm_pause()');
CALL try($$SELECT cm_pause(' ')$$);
CALL try($$SELECT cm_pause(repeat('x', 1001))$$);
CALL try($$SELECT cm_pause('x', namespace => '')$$);
CALL try($$SELECT cm_pause('x', template => '')$$);
CALL try($$SELECT cm_resume(template => '')$$);
BEGIN;
SELECT cm_pause('x', template => 't'), cm_pause('y', template => 't'), cm_pause('x', namespace => 'n', template => 't'),
    cm_resume(), cm_resume(namespace => 'n'), cm_resume(template => 't'), cm_resume(template => 't');
SELECT regexp_replace(paused, ' by .* since .*: ', ' by who since when: ') AS paused FROM cm_status;
ROLLBACK;

SELECT (SELECT count(*) FROM cm_jobs) AS jobs, (SELECT count(*) FROM cm_internal.unique_keys) AS keys;
DROP PROCEDURE try, submit;
DROP EXTENSION container_manager;
