\echo Use "CREATE EXTENSION container_manager" to load this file. \quit

-- Nothing of this extension is of use to PUBLIC: each part of this script ends by
-- revoking what it made, and what views must leave executable is in a schema
-- that nobody may use.  An administrator grants what a role needs (README,
-- "Security").
CREATE SCHEMA cm_internal;
REVOKE ALL ON SCHEMA cm_internal FROM PUBLIC;
COMMENT ON SCHEMA cm_internal IS
    'container_manager: what the executor needs. Not an interface; it may change with any version.';
