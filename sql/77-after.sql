-- After a failure, and while a job runs: a look at its container.

-- One narrow row per container that stays; most databases have none.
CREATE TABLE cm_internal.kept_containers (
    job_id bigint PRIMARY KEY,
    attempt integer NOT NULL,
    host_id integer NOT NULL,
    container_id text NOT NULL,
    kept_at timestamptz NOT NULL,
    keep_until timestamptz NOT NULL
);
CREATE INDEX kept_containers_due ON cm_internal.kept_containers (keep_until);
COMMENT ON TABLE cm_internal.kept_containers IS
    'Containers of failed jobs that are not to be removed yet.';
COMMENT ON INDEX cm_internal.kept_containers_due IS 'Which is to go next.';

CREATE FUNCTION cm_internal.leave_kept_containers(host_id integer, host_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    containers text;
BEGIN
    WITH left_there AS (
        DELETE FROM cm_internal.kept_containers k
        WHERE k.host_id = leave_kept_containers.host_id
        RETURNING k.job_id, k.container_id)
    SELECT string_agg(left(l.container_id, 12), ' ' ORDER BY l.job_id) INTO containers FROM left_there l;
    IF containers IS NOT NULL THEN
        RAISE WARNING USING
            MESSAGE = format('containers that were kept for a look are left on host "%s"', host_name),
            HINT = format('There: docker rm -v %s. They are also removed when the host is added again.', containers);
    END IF;
END
$$;
COMMENT ON FUNCTION cm_internal.leave_kept_containers(integer, text) IS
    'Forgets the kept containers of a host that is removed.';

CREATE FUNCTION cm_remove_kept_container(id bigint) RETURNS boolean
STRICT LANGUAGE C AS 'MODULE_PATHNAME', 'cm_remove_kept_container';
COMMENT ON FUNCTION cm_remove_kept_container(bigint) IS
    'Removes the container that a failed job has kept. False: it keeps none.';

CREATE FUNCTION cm_job_processes(
    id bigint,
    OUT pid bigint, OUT parent_pid bigint, OUT user_name text, OUT elapsed text, OUT command text)
RETURNS SETOF record
STRICT ROWS 10 LANGUAGE C AS 'MODULE_PATHNAME', 'cm_job_processes';
COMMENT ON FUNCTION cm_job_processes(bigint) IS
    'The processes of a running job, as its engine counts them. Asks the job''s host, and waits for its answer.';

CREATE FUNCTION cm_job_changes(id bigint, OUT path text, OUT change text)
RETURNS SETOF record
STRICT LANGUAGE C AS 'MODULE_PATHNAME', 'cm_job_changes';
COMMENT ON FUNCTION cm_job_changes(bigint) IS
    'What differs from the image in a job''s container. Of one that runs, or is kept: added, changed or deleted. Not what is in tmpfs and volumes.';

REVOKE ALL ON FUNCTION
    cm_internal.leave_kept_containers(integer, text),
    cm_remove_kept_container(bigint),
    cm_job_processes(bigint),
    cm_job_changes(bigint)
FROM PUBLIC;
