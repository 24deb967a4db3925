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
    'Submits a job; it runs after COMMIT. Returns its id. NULL leaves a parameter unsaid; options takes further columns of cm_jobs. With dry_run it checks all of it, shows the docker command line in a NOTICE, submits nothing and returns NULL.';

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
