CREATE FUNCTION cm_start_executor() RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_start_executor';
COMMENT ON FUNCTION cm_start_executor() IS
    'Starts the executor of this database, and waits for it. False: one runs already. Needed only after cm_stop_executor(), after container_manager.enabled was turned on again, and where container_manager is not in shared_preload_libraries.';

CREATE FUNCTION cm_stop_executor() RETURNS boolean
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_stop_executor';
COMMENT ON FUNCTION cm_stop_executor() IS
    'Stops the executor of this database, and waits for it. It stays away until cm_start_executor() or a restart of the server; containers go on running and are taken up again. False: none ran.';

REVOKE ALL ON FUNCTION
    cm_start_executor(),
    cm_stop_executor()
FROM PUBLIC;
