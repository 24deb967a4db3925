\echo Use "CREATE EXTENSION container_manager" to load this file. \quit

-- Nothing of this extension is open to PUBLIC: new functions are, by default,
-- so the right is taken away before the first is made.  An administrator
-- grants what a role needs (README, "Security").
CREATE SCHEMA cm_internal;
COMMENT ON SCHEMA cm_internal IS
    'container_manager: what the executor needs. Not an interface; it may change with any version.';
