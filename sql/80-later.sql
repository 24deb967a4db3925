-- Names and parameters that are fixed, of functions that this version does not
-- have: they are refused by name.

CREATE FUNCTION cm_pause(
    reason text DEFAULT NULL,
    namespace text DEFAULT NULL,
    template text DEFAULT NULL
) RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_not_available';
COMMENT ON FUNCTION cm_pause(text, text, text) IS 'Keeps jobs from being started. Not available in this version.';

CREATE FUNCTION cm_resume(
    namespace text DEFAULT NULL,
    template text DEFAULT NULL
) RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_not_available';
COMMENT ON FUNCTION cm_resume(text, text) IS 'Undoes cm_pause. Not available in this version.';

CREATE FUNCTION cm_submit_jobs(jobs jsonb) RETURNS TABLE (n integer, id bigint)
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_not_available';
COMMENT ON FUNCTION cm_submit_jobs(jsonb) IS 'Submits many jobs at once. Not available in this version.';

REVOKE ALL ON FUNCTION
    cm_pause(text, text, text),
    cm_resume(text, text),
    cm_submit_jobs(jsonb)
FROM PUBLIC;
