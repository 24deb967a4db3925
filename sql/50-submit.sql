-- Submitting jobs, and what else may be done to them.

CREATE FUNCTION cm_internal.check_job() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_check_job';
COMMENT ON FUNCTION cm_internal.check_job() IS
    'Checks and completes a job that is submitted. The guard is asked here and again when the job is started.';

CREATE FUNCTION cm_internal.labels_as_text(labels jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(jsonb_object_agg(l.key, l.value), '{}') FROM jsonb_each_text(labels) l);
COMMENT ON FUNCTION cm_internal.labels_as_text(jsonb) IS
    'Labels with their values as text: 1 and "1" are the same.';

-- A key that another transaction has locked for dropping is passed over, and one
-- that it has not committed is not seen: then there is another one.
CREATE FUNCTION cm_internal.placement_key(
    host_labels jsonb, strategy text, memory_limit integer, cpu_limit numeric, most integer)
RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    labels jsonb := cm_internal.labels_as_text(placement_key.host_labels);
    memory integer := CASE strategy WHEN 'resources' THEN placement_key.memory_limit END;
    cpus numeric := CASE strategy WHEN 'resources' THEN placement_key.cpu_limit END;
    key integer;
BEGIN
    IF labels = '{}' AND memory IS NULL THEN
        RETURN 0;
    END IF;
    SELECT p.id INTO key
    FROM cm_internal.placements p
    WHERE p.host_labels = labels AND p.memory_limit IS NOT DISTINCT FROM memory
      AND p.cpu_limit IS NOT DISTINCT FROM cpus
    LIMIT 1
    FOR KEY SHARE SKIP LOCKED;
    IF FOUND THEN
        RETURN key;
    END IF;
    IF (SELECT count(*) FROM cm_internal.placements p) >= most THEN
        RAISE EXCEPTION USING
            ERRCODE = '53400',
            MESSAGE = 'unfinished jobs ask for too many different kinds of hosts',
            DETAIL = format('There are %s different host_labels, or memory and CPU limits with placement_strategy resources, among them.', most),
            HINT = 'Ask for what another job asks for, or wait until jobs have ended.',
            TABLE = 'cm_jobs', COLUMN = CASE labels WHEN '{}' THEN 'placement_strategy' ELSE 'host_labels' END;
    END IF;
    INSERT INTO cm_internal.placements AS p (host_labels, memory_limit, cpu_limit)
    VALUES (labels, memory, cpus)
    RETURNING p.id INTO key;
    RETURN key;
END
$$;
COMMENT ON FUNCTION cm_internal.placement_key(jsonb, text, integer, numeric, integer) IS
    'The placement key of a job that is bound to no certain host.';

-- An unfinished holder has the key, and so has one that is about to run again.
CREATE FUNCTION cm_internal.is_unfinished(job bigint) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM @extschema@.cm_jobs j CROSS JOIN cm_internal.current_identity i
                   WHERE j.id = job AND j.completed_at IS NULL AND j.epoch = i.epoch)
        OR EXISTS (SELECT FROM cm_internal.requests r
                   WHERE r.job_id = job AND r.action IN ('retry', 'adopt'))
$$;
COMMENT ON FUNCTION cm_internal.is_unfinished(bigint) IS
    'Whether a job of this database is unfinished, or about to run again.';

-- Whoever submits with the same key waits for the other's COMMIT where both
-- want to have it.  The executor never waits here: it deletes a row that nobody
-- has locked, and leaves others for whoever wants the key next.
CREATE FUNCTION cm_internal.take_unique_key(
    namespace text, unique_key text, job_id bigint, on_conflict text, submitter name, depends_on bigint[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    holder bigint;
    holder_owner name;
BEGIN
    LOOP
        INSERT INTO cm_internal.unique_keys AS u (namespace, unique_key, job_id)
        VALUES (take_unique_key.namespace, take_unique_key.unique_key, take_unique_key.job_id)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
        SELECT u.job_id INTO holder
        FROM cm_internal.unique_keys u
        WHERE u.namespace = take_unique_key.namespace AND u.unique_key = take_unique_key.unique_key;
        CONTINUE WHEN NOT FOUND;
        IF holder = take_unique_key.job_id THEN
            RETURN NULL;
        END IF;
        IF on_conflict <> 'replace' AND cm_internal.is_unfinished(holder) THEN
            IF on_conflict = 'skip' THEN
                RETURN holder;
            END IF;
            RAISE EXCEPTION USING
                ERRCODE = '23505',
                MESSAGE = format('job %s has unique_key "%s" and is not over', holder, take_unique_key.unique_key),
                DETAIL = format('A unique_key belongs to at most one unfinished job of a namespace, here "%s".', take_unique_key.namespace),
                HINT = 'Wait for its end, cancel it, or submit with on_conflict => ''skip'' or ''replace''.',
                TABLE = 'cm_jobs', COLUMN = 'unique_key';
        END IF;
        PERFORM FROM cm_internal.unique_keys u
        WHERE u.namespace = take_unique_key.namespace AND u.unique_key = take_unique_key.unique_key
          AND u.job_id = holder
        FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        IF cm_internal.is_unfinished(holder) THEN
            -- It was retried meanwhile.
            CONTINUE WHEN on_conflict <> 'replace';
            SELECT j.owner INTO holder_owner FROM @extschema@.cm_jobs j WHERE j.id = holder;
            IF to_regrole(quote_ident(holder_owner)) IS NULL
               OR NOT pg_has_role(submitter, holder_owner, 'USAGE') THEN
                RAISE EXCEPTION USING
                    ERRCODE = '42501',
                    MESSAGE = format('job %s, which has unique_key "%s", belongs to role "%s"', holder,
                                     take_unique_key.unique_key, holder_owner),
                    HINT = 'Only members of that role and superusers may replace it.',
                    TABLE = 'cm_jobs', COLUMN = 'unique_key';
            END IF;
            IF holder = ANY (take_unique_key.depends_on) THEN
                RAISE EXCEPTION USING
                    ERRCODE = '22023',
                    MESSAGE = format('job %s, which it depends on, would be replaced by it', holder),
                    HINT = 'Leave it out of depends_on: what replaces a job waits for its end.',
                    TABLE = 'cm_jobs', COLUMN = 'depends_on';
            END IF;
            INSERT INTO cm_internal.requests (job_id, action, requested_by) VALUES (holder, 'cancel', submitter);
            -- It may be one that waits for another to end that it replaced.
            INSERT INTO cm_internal.dependencies AS d (job_id, depends_on, any_end, replaces)
            SELECT take_unique_key.job_id, o.depends_on, true, true
            FROM cm_internal.dependencies o
            WHERE o.job_id = holder AND o.replaces
            UNION ALL
            SELECT take_unique_key.job_id, holder, true, true;
        END IF;
        UPDATE cm_internal.unique_keys u SET job_id = take_unique_key.job_id
        WHERE u.namespace = take_unique_key.namespace AND u.unique_key = take_unique_key.unique_key;
        RETURN NULL;
    END LOOP;
END
$$;
COMMENT ON FUNCTION cm_internal.take_unique_key(text, text, bigint, text, name, bigint[]) IS
    'Gives a unique_key to a job. NULL: it has it; else the job that has it and is not to be disturbed.';

CREATE FUNCTION cm_internal.enqueue_jobs() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_enqueue_jobs';
COMMENT ON FUNCTION cm_internal.enqueue_jobs() IS
    'Puts submitted jobs on the queue; the commit wakes the executor.';

CREATE FUNCTION cm_internal.guard_job() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_guard_job';
COMMENT ON FUNCTION cm_internal.guard_job() IS
    'Refuses changes that only the executor may make.';

CREATE FUNCTION cm_internal.forget_jobs() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_forget_jobs';
COMMENT ON FUNCTION cm_internal.forget_jobs() IS
    'Deletes attempts and output of deleted jobs.';

CREATE FUNCTION cm_internal.publish_events() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_publish_events';
COMMENT ON FUNCTION cm_internal.publish_events() IS
    'Notifies cm_job_status of transitions, in their order. Only in the executor.';

CREATE FUNCTION cm_internal.wake_executor() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_wake_executor';
COMMENT ON FUNCTION cm_internal.wake_executor() IS
    'Wakes the executor at commit: somebody asks for something.';

CREATE TRIGGER check_job BEFORE INSERT ON cm_jobs
    FOR EACH ROW EXECUTE FUNCTION cm_internal.check_job();
CREATE TRIGGER enqueue_jobs AFTER INSERT ON cm_jobs
    REFERENCING NEW TABLE AS cm_new_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.enqueue_jobs();
CREATE TRIGGER guard_update BEFORE UPDATE ON cm_jobs
    FOR EACH ROW EXECUTE FUNCTION cm_internal.guard_job();
CREATE TRIGGER guard_delete BEFORE DELETE ON cm_jobs
    FOR EACH ROW EXECUTE FUNCTION cm_internal.guard_job();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON cm_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.guard_job();
CREATE TRIGGER forget_jobs AFTER DELETE ON cm_jobs
    REFERENCING OLD TABLE AS cm_old_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.forget_jobs();
CREATE TRIGGER wake_executor AFTER INSERT ON cm_internal.requests
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.wake_executor();
CREATE TRIGGER wake_executor AFTER INSERT OR DELETE ON cm_internal.pauses
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.wake_executor();

-- The executor works as a replica, so that triggers of users on these tables
-- do not run with its rights; this one is its own.
CREATE TRIGGER publish_events AFTER INSERT ON cm_job_events
    REFERENCING NEW TABLE AS cm_new_events
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.publish_events();
ALTER TABLE cm_job_events ENABLE ALWAYS TRIGGER publish_events;

CREATE FUNCTION cm_submit_job(
    image text DEFAULT NULL,
    command text DEFAULT NULL,
    args text[] DEFAULT NULL,
    entrypoint text[] DEFAULT NULL,
    template text DEFAULT NULL,
    name text DEFAULT NULL,
    namespace text DEFAULT NULL,
    host text DEFAULT NULL,
    environment jsonb DEFAULT NULL,
    secret_environment jsonb DEFAULT NULL,
    environment_template text DEFAULT NULL,
    working_directory text DEFAULT NULL,
    run_as text DEFAULT NULL,
    memory_limit integer DEFAULT NULL,
    cpu_limit numeric DEFAULT NULL,
    timeout_seconds integer DEFAULT NULL,
    networks jsonb DEFAULT NULL,
    priority integer DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    max_wait interval DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    retry_on text DEFAULT NULL,
    retry_delay interval DEFAULT NULL,
    on_host_loss text DEFAULT NULL,
    host_loss_grace interval DEFAULT NULL,
    host_labels jsonb DEFAULT NULL,
    placement_strategy text DEFAULT NULL,
    depends_on bigint[] DEFAULT NULL,
    unique_key text DEFAULT NULL,
    labels jsonb DEFAULT NULL,
    read_only boolean DEFAULT NULL,
    tmpfs jsonb DEFAULT NULL,
    docker_options jsonb DEFAULT NULL,
    parameters jsonb DEFAULT NULL,
    volumes jsonb DEFAULT NULL,
    ulimits jsonb DEFAULT NULL,
    shm_size integer DEFAULT NULL,
    pids_limit integer DEFAULT NULL,
    stop_signal text DEFAULT NULL,
    stop_grace interval DEFAULT NULL,
    log_limit integer DEFAULT NULL,
    success_exit_codes integer[] DEFAULT NULL,
    keep_container interval DEFAULT NULL,
    depends_on_any_end boolean DEFAULT NULL,
    on_conflict text DEFAULT NULL,
    concurrency_key text DEFAULT NULL,
    concurrency_limit integer DEFAULT NULL,
    options jsonb DEFAULT NULL,
    dry_run boolean DEFAULT false
) RETURNS bigint
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_submit_job';
COMMENT ON FUNCTION cm_submit_job IS
    'Submits a job; it runs after COMMIT. Returns its id, or that of the job that has its unique_key and made on_conflict skip it. NULL leaves a parameter unsaid; options takes further columns of cm_jobs. With dry_run it checks all of it, shows the docker command line in a NOTICE, submits nothing and returns NULL.';

CREATE FUNCTION cm_cancel_job(id bigint) RETURNS boolean
STRICT LANGUAGE C AS 'MODULE_PATHNAME', 'cm_cancel_job';
COMMENT ON FUNCTION cm_cancel_job IS
    'Cancels a job, whether it waits or runs. A running container gets SIGTERM, then SIGKILL. False: it is over, or being cancelled already.';

CREATE FUNCTION cm_set_priority(id bigint, priority integer) RETURNS boolean
STRICT LANGUAGE C AS 'MODULE_PATHNAME', 'cm_set_priority';
COMMENT ON FUNCTION cm_set_priority IS
    'Changes the priority of a job that waits. 0 to 100, higher first. False: it does not wait any more.';

CREATE FUNCTION cm_retry_job(id bigint) RETURNS boolean
STRICT LANGUAGE C AS 'MODULE_PATHNAME', 'cm_retry_job';
COMMENT ON FUNCTION cm_retry_job(bigint) IS
    'Runs a job that is over once more, as a new attempt. Earlier attempts and their output are kept. False: it is not over, or about to run again already.';

CREATE FUNCTION cm_abandon_job(id bigint, reason text) RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_abandon_job';
COMMENT ON FUNCTION cm_abandon_job(bigint, text) IS
    'Gives up a job whose host is gone for good. It fails as abandoned, and is not tried again. Refused while its host answers. False: it has no host, or is over.';

CREATE FUNCTION cm_adopt_restored_jobs() RETURNS bigint
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_adopt_restored_jobs';
COMMENT ON FUNCTION cm_adopt_restored_jobs() IS
    'Has unfinished jobs of a restore or copy run here. Returns how many. They are checked again when they are started; what was under way elsewhere is given up as abandoned, and runs as a new attempt.';

REVOKE ALL ON FUNCTION
    cm_internal.check_job(),
    cm_internal.labels_as_text(jsonb),
    cm_internal.placement_key(jsonb, text, integer, numeric, integer),
    cm_internal.is_unfinished(bigint),
    cm_internal.take_unique_key(text, text, bigint, text, name, bigint[]),
    cm_internal.enqueue_jobs(),
    cm_internal.guard_job(),
    cm_internal.forget_jobs(),
    cm_internal.publish_events(),
    cm_internal.wake_executor(),
    cm_submit_job,
    cm_cancel_job,
    cm_set_priority,
    cm_retry_job(bigint),
    cm_abandon_job(bigint, text),
    cm_adopt_restored_jobs()
FROM PUBLIC;
