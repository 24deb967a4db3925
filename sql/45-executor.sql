CREATE FUNCTION cm_start_executor() RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_start_executor';
COMMENT ON FUNCTION cm_start_executor() IS
    'Starts the executor of this database, and waits for it. False: one runs already. Needed only after cm_stop_executor(), after container_manager.enabled was turned on again, and where container_manager is not in shared_preload_libraries.';

CREATE FUNCTION cm_stop_executor() RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_stop_executor';
COMMENT ON FUNCTION cm_stop_executor() IS
    'Stops the executor of this database, and waits for it. It stays away until cm_start_executor() or a restart of the server; containers go on running and are taken up again. False: none ran.';

CREATE FUNCTION cm_internal.wake_identity() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_identity_wake';
COMMENT ON FUNCTION cm_internal.wake_identity() IS
    'Trigger: tells the executor of a wanted takeover, at commit.';
CREATE TRIGGER wake_identity AFTER UPDATE ON cm_internal.identity
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.wake_identity();

CREATE FUNCTION cm_take_over() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE cm_internal.identity i SET take_over_asked = true WHERE i.held_because IS NOT NULL;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_take_over() IS
    'Ends a hold: this server takes over the jobs. At commit; the server that had them stops as soon as it sees that on a host. See cm_status before. False: nothing is held.';

REVOKE ALL ON FUNCTION
    cm_internal.wake_identity(),
    cm_take_over(),
    cm_start_executor(),
    cm_stop_executor()
FROM PUBLIC;
