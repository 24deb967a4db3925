CREATE FUNCTION cm_wait_job(id bigint, timeout interval DEFAULT '60 s')
RETURNS text
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'cm_wait_job';
COMMENT ON FUNCTION cm_wait_job(bigint, interval) IS
    'Waits for a job''s end: its status, or NULL at the timeout. The job must be committed. The calling statement holds its snapshot meanwhile; CALL cm_await_job does not.';

CREATE PROCEDURE cm_await_job(
    id bigint,
    timeout interval DEFAULT '60 s',
    INOUT status text DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'cm_await_job';
COMMENT ON PROCEDURE cm_await_job(bigint, interval, text) IS
    'Waits for a job''s end without holding a snapshot. Gives back its status, or NULL at the timeout. Commits; not for use in a transaction block.';

-- The parameters up to options are those of cm_submit_job, in its order: they
-- are passed on by position.
CREATE PROCEDURE cm_run_job(
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
    wait_timeout interval DEFAULT NULL,
    fail_on_error boolean DEFAULT false,
    INOUT job_id bigint DEFAULT NULL,
    INOUT status text DEFAULT NULL,
    INOUT exit_code integer DEFAULT NULL,
    INOUT output text DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'cm_run_job';
COMMENT ON PROCEDURE cm_run_job IS
    'Submits a job, commits, and waits for its end. Gives back id, status, exit code and stdout. With fail_on_error it raises unless the job completed; a status that is not final means that wait_timeout passed.';

REVOKE ALL ON FUNCTION cm_wait_job(bigint, interval) FROM PUBLIC;
REVOKE ALL ON PROCEDURE cm_await_job(bigint, interval, text) FROM PUBLIC;
REVOKE ALL ON PROCEDURE cm_run_job FROM PUBLIC;
