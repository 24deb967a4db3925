CREATE FUNCTION cm_internal.announce() RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_announce';
COMMENT ON FUNCTION cm_internal.announce() IS
    'Has the executor started when CREATE EXTENSION commits.';
REVOKE ALL ON FUNCTION cm_internal.announce() FROM PUBLIC;

-- Last in the script, so that the warning that it may give is the last word.
SELECT cm_internal.announce();
