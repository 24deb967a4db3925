CREATE FUNCTION cm_job_logs(
    id bigint,
    attempt integer DEFAULT NULL,
    stream text DEFAULT NULL,
    since timestamptz DEFAULT NULL,
    tail integer DEFAULT NULL)
RETURNS TABLE (logged_at timestamptz, stream text, line text)
LANGUAGE C STABLE ROWS 1000
AS 'MODULE_PATHNAME', 'cm_job_logs';
COMMENT ON FUNCTION cm_job_logs(bigint, integer, text, timestamptz, integer) IS
    'What a job wrote, line by line, also while it runs. Both streams in the order in which the engine got them; attempt: the last one unless said; stream: stdout or stderr; tail: only so many lines at the end.';

CREATE FUNCTION cm_job_output(id bigint, attempt integer DEFAULT NULL)
RETURNS text
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'cm_job_output';
COMMENT ON FUNCTION cm_job_output(bigint, integer) IS
    'What a job wrote to stdout, as text. NULL where no attempt was made. What cannot be text of this database is replaced, see cm_job_output_lossy.';

CREATE FUNCTION cm_job_stderr(id bigint, attempt integer DEFAULT NULL)
RETURNS text
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'cm_job_stderr';
COMMENT ON FUNCTION cm_job_stderr(bigint, integer) IS
    'What a job wrote to stderr, as text. See cm_job_output.';

CREATE FUNCTION cm_job_output_bytes(
    id bigint,
    stream text DEFAULT 'stdout',
    attempt integer DEFAULT NULL)
RETURNS bytea
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'cm_job_output_bytes';
COMMENT ON FUNCTION cm_job_output_bytes(bigint, text, integer) IS
    'What a job wrote to one stream, byte for byte.';

CREATE FUNCTION cm_job_output_lossy(id bigint, attempt integer DEFAULT NULL)
RETURNS boolean
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'cm_job_output_lossy';
COMMENT ON FUNCTION cm_job_output_lossy(bigint, integer) IS
    'Whether output as text is not all that was written. NUL bytes, bytes that are not UTF-8 and characters that the database''s encoding lacks are replaced there; cm_job_output_bytes has them.';

CREATE FUNCTION cm_job_result(id bigint, attempt integer DEFAULT NULL)
RETURNS jsonb
LANGUAGE C STABLE
AS 'MODULE_PATHNAME', 'cm_job_result';
COMMENT ON FUNCTION cm_job_result(bigint, integer) IS
    'What a job wrote to stdout, as JSON. Else its last line that is not empty, as JSON; NULL where that is not JSON either.';

REVOKE ALL ON FUNCTION
    cm_job_logs(bigint, integer, text, timestamptz, integer),
    cm_job_output(bigint, integer),
    cm_job_stderr(bigint, integer),
    cm_job_output_bytes(bigint, text, integer),
    cm_job_output_lossy(bigint, integer),
    cm_job_result(bigint, integer)
FROM PUBLIC;
