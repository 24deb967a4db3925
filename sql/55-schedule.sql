-- Submitting many jobs, and keeping jobs from being started.

CREATE FUNCTION cm_submit_jobs(jobs jsonb) RETURNS TABLE (n integer, id bigint)
LANGUAGE C VOLATILE STRICT ROWS 1000 AS 'MODULE_PATHNAME', 'cm_submit_jobs';
COMMENT ON FUNCTION cm_submit_jobs(jsonb) IS
    'Submits many jobs at once: an array of objects. Their keys are parameters of cm_submit_job. Returns the position of each, from 1, and its id.';

CREATE FUNCTION cm_internal.check_scope(namespace text, template text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF namespace = '' OR template = '' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = CASE namespace WHEN '' THEN 'namespace is empty' ELSE 'template is empty' END,
            HINT = 'Leave it out to mean all.';
    END IF;
END
$$;
COMMENT ON FUNCTION cm_internal.check_scope(text, text) IS 'Refuses empty names, which might be meant for all.';

CREATE FUNCTION cm_pause(
    reason text DEFAULT NULL,
    namespace text DEFAULT NULL,
    template text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM cm_internal.check_scope(cm_pause.namespace, cm_pause.template);
    IF coalesce(cm_pause.reason, '') !~ '\S' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'reason is missing',
            HINT = 'Say why: SELECT cm_pause(''disk is full''). It is shown to whoever wonders why nothing starts.';
    ELSIF octet_length(cm_pause.reason) > 1000 THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'reason is longer than 1000 bytes';
    END IF;
    INSERT INTO cm_internal.pauses AS p (namespace, template, reason, paused_by)
    VALUES (cm_pause.namespace, cm_pause.template, cm_pause.reason, cm_internal.caller())
    ON CONFLICT ON CONSTRAINT pauses_scope DO NOTHING;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_pause(text, text, text) IS
    'Keeps jobs from being started; those that run go on. All of them, or those of a namespace, of a template, or of a template in a namespace. False: it is paused already.';

CREATE FUNCTION cm_resume(
    namespace text DEFAULT NULL,
    template text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM cm_internal.check_scope(cm_resume.namespace, cm_resume.template);
    DELETE FROM cm_internal.pauses p
    WHERE p.namespace IS NOT DISTINCT FROM cm_resume.namespace
      AND p.template IS NOT DISTINCT FROM cm_resume.template;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_resume(text, text) IS
    'Undoes the cm_pause of the same namespace and template. Other pauses stay: cm_status has them. False: there was none.';

REVOKE ALL ON FUNCTION
    cm_internal.check_scope(text, text),
    cm_pause(text, text, text),
    cm_resume(text, text),
    cm_submit_jobs(jsonb)
FROM PUBLIC;
