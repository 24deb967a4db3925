-- Networks and volumes of hosts.  Lists ask the engine from this session; what
-- changes an engine is a row that the executor carries out after COMMIT.  The
-- functions run with the owner's rights: EXECUTE is the right to grant.

CREATE TABLE cm_internal.host_requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch uuid NOT NULL,
    host_id integer NOT NULL,
    host text NOT NULL,
    action text NOT NULL CHECK (action IN ('create_network', 'remove_network', 'create_volume', 'remove_volume')),
    name text NOT NULL,
    namespace text,
    driver text,
    subnet cidr,
    subnet6 cidr,
    parent text,
    internal boolean,
    owner text,
    size_limit integer,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
    error text,
    hint text,
    requested_by name NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX host_requests_waiting ON cm_internal.host_requests (host_id, id) WHERE state = 'waiting';
COMMENT ON INDEX cm_internal.host_requests_waiting IS 'What is still to be done.';
COMMENT ON TABLE cm_internal.host_requests IS
    'Networks and volumes that hosts are to make or remove. What ended is kept for a week.';
COMMENT ON COLUMN cm_internal.host_requests.epoch IS 'The database that asks; a copy of it does not.';
CREATE TRIGGER wake_hosts AFTER INSERT ON cm_internal.host_requests
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.wake_hosts();

CREATE VIEW cm_host_requests AS
SELECT r.id, r.host, r.action, r.namespace, r.name, r.state, r.error, r.hint,
       r.requested_by, r.requested_at, r.finished_at
FROM cm_internal.host_requests r
ORDER BY r.id;
COMMENT ON VIEW cm_host_requests IS
    'Networks and volumes asked for, and what became of it. What ended is kept for a week.';
COMMENT ON COLUMN cm_host_requests.id IS 'Number of the request; see cm_await_host_request.';
COMMENT ON COLUMN cm_host_requests.host IS 'Host that it is for.';
COMMENT ON COLUMN cm_host_requests.action IS
    'create_network, remove_network, create_volume or remove_volume.';
COMMENT ON COLUMN cm_host_requests.namespace IS 'Namespace of the volume.';
COMMENT ON COLUMN cm_host_requests.name IS 'Name of the network or volume.';
COMMENT ON COLUMN cm_host_requests.state IS 'waiting, done or failed.';
COMMENT ON COLUMN cm_host_requests.error IS 'Why it failed.';
COMMENT ON COLUMN cm_host_requests.hint IS 'What to do about it.';
COMMENT ON COLUMN cm_host_requests.requested_by IS 'Who asked.';
COMMENT ON COLUMN cm_host_requests.requested_at IS 'When it was asked for.';
COMMENT ON COLUMN cm_host_requests.finished_at IS 'When it was done, or failed.';

-- Names as policy_attach.c has them.
CREATE FUNCTION cm_internal.check_network_name(name text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF lower(name) IN ('bridge', 'none', 'host', 'default') THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('network "%s" is the engine''s own', name),
            HINT = 'Choose another name.';
    ELSIF name IS NULL OR name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('network "%s" is not a valid name', left(name, 64)),
            HINT = 'A name has 1 to 255 letters, digits, "_", "." and "-", and begins with a letter or digit.';
    END IF;
END
$$;
COMMENT ON FUNCTION cm_internal.check_network_name(text) IS 'Throws where a network cannot bear that name.';

CREATE FUNCTION cm_internal.check_volume_name(name text, namespace text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF name IS NULL OR name !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('volume "%s" is not a valid name', left(name, 64)),
            HINT = 'A name has 1 to 63 letters, digits, "_" and "-", and begins with a letter or digit.';
    ELSIF namespace IS NULL OR namespace !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('namespace "%s" is not a valid name', left(namespace, 64)),
            HINT = 'A name has 1 to 63 letters, digits, "_", "." and "-", and begins with a letter or digit.';
    END IF;
END
$$;
COMMENT ON FUNCTION cm_internal.check_volume_name(text, text) IS 'Throws where a volume cannot bear that name.';

-- Subnets are taken as the engine will tell them, so that a repeated request
-- finds what it asked for.
CREATE FUNCTION cm_create_network(
    host text,
    name text,
    driver text DEFAULT 'bridge',
    subnet cidr DEFAULT NULL,
    subnet6 cidr DEFAULT NULL,
    internal boolean DEFAULT false,
    parent text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_create_network.host);
    request bigint;
BEGIN
    PERFORM cm_internal.check_network_name(cm_create_network.name);
    IF cm_create_network.driver IS NULL OR cm_create_network.driver NOT IN ('bridge', 'macvlan', 'ipvlan') THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('driver "%s" of a network is not known', cm_create_network.driver),
            HINT = 'Use bridge, macvlan or ipvlan.';
    ELSIF family(cm_create_network.subnet) = 6 OR family(cm_create_network.subnet6) = 4 THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'subnet takes IPv4, subnet6 takes IPv6',
            HINT = 'Write subnet => ''10.5.0.0/24'', subnet6 => ''fd00:5::/64''.';
    ELSIF cm_create_network.parent IS NOT NULL AND cm_create_network.driver = 'bridge' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'parent is of networks of driver macvlan or ipvlan',
            HINT = 'Leave it out.';
    ELSIF cm_create_network.parent !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('parent "%s" is not the name of a network interface', left(cm_create_network.parent, 64)),
            HINT = 'Write the name of one that the host has, such as eth0.';
    END IF;
    INSERT INTO cm_internal.host_requests (epoch, host_id, host, action, name, driver, subnet, subnet6,
        internal, parent, requested_by)
    SELECT i.epoch, found_host.id, found_host.name, 'create_network', cm_create_network.name,
           cm_create_network.driver, cm_create_network.subnet, cm_create_network.subnet6,
           coalesce(cm_create_network.internal, false), cm_create_network.parent, cm_internal.caller()
    FROM cm_internal.current_identity i
    RETURNING id INTO request;
    RETURN request;
END
$$;
COMMENT ON FUNCTION cm_create_network(text, text, text, cidr, cidr, boolean, text) IS
    'Has a host make a network, after COMMIT. Returns the number of the request: see cm_await_host_request. Jobs submitted with it, or later, come after it.';

CREATE FUNCTION cm_remove_network(host text, name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_remove_network.host);
    request bigint;
BEGIN
    PERFORM cm_internal.check_network_name(cm_remove_network.name);
    INSERT INTO cm_internal.host_requests (epoch, host_id, host, action, name, requested_by)
    SELECT i.epoch, found_host.id, found_host.name, 'remove_network', cm_remove_network.name, cm_internal.caller()
    FROM cm_internal.current_identity i
    RETURNING id INTO request;
    RETURN request;
END
$$;
COMMENT ON FUNCTION cm_remove_network(text, text) IS
    'Has a host remove a network of ours, after COMMIT. Returns the number of the request. One that others made, or with containers on it, stays: see cm_host_requests.';

CREATE FUNCTION cm_create_volume(
    host text,
    name text,
    namespace text DEFAULT 'default',
    owner text DEFAULT NULL,
    size_limit integer DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_create_volume.host);
    request bigint;
BEGIN
    PERFORM cm_internal.check_volume_name(cm_create_volume.name, cm_create_volume.namespace);
    IF cm_create_volume.owner !~ '^(0|[1-9][0-9]{0,9})(:(0|[1-9][0-9]{0,9}))?$'
       OR split_part(cm_create_volume.owner, ':', 1)::bigint > 2147483647
       OR nullif(split_part(cm_create_volume.owner, ':', 2), '')::bigint > 2147483647 THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('owner "%s" is not a uid or uid:gid', left(cm_create_volume.owner, 64)),
            HINT = 'Write it as the run_as of the job that is to own it, such as 65534:65534.';
    ELSIF cm_create_volume.size_limit < 1 THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('size_limit of %s MB is below the least of 1 MB', cm_create_volume.size_limit);
    END IF;
    INSERT INTO cm_internal.host_requests (epoch, host_id, host, action, name, namespace, owner, size_limit, requested_by)
    SELECT i.epoch, found_host.id, found_host.name, 'create_volume', cm_create_volume.name,
           cm_create_volume.namespace, cm_create_volume.owner, cm_create_volume.size_limit, cm_internal.caller()
    FROM cm_internal.current_identity i
    RETURNING id INTO request;
    RETURN request;
END
$$;
COMMENT ON FUNCTION cm_create_volume(text, text, text, text, integer) IS
    'Has a host make a volume, after COMMIT. Returns the number of the request. Not needed for most: a job''s volumes are made when they are missing. owner: whose it is, else of the first job that may write to it. size_limit in MB, where the host''s storage has quotas.';

CREATE FUNCTION cm_remove_volume(host text, name text, namespace text DEFAULT 'default') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_remove_volume.host);
    request bigint;
BEGIN
    PERFORM cm_internal.check_volume_name(cm_remove_volume.name, cm_remove_volume.namespace);
    INSERT INTO cm_internal.host_requests (epoch, host_id, host, action, name, namespace, requested_by)
    SELECT i.epoch, found_host.id, found_host.name, 'remove_volume', cm_remove_volume.name,
           cm_remove_volume.namespace, cm_internal.caller()
    FROM cm_internal.current_identity i
    RETURNING id INTO request;
    RETURN request;
END
$$;
COMMENT ON FUNCTION cm_remove_volume(text, text, text) IS
    'Has a host remove a volume and what is in it, after COMMIT. Returns the number of the request. One that a container has mounted stays: see cm_host_requests.';

CREATE FUNCTION cm_wait_host_request(id bigint, timeout interval DEFAULT '60 s') RETURNS text
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_wait_host_request';
COMMENT ON FUNCTION cm_wait_host_request(bigint, interval) IS
    'Waits for a request of cm_host_requests: its state. NULL: the timeout came first. The calling statement holds its snapshot meanwhile; CALL cm_await_host_request does not.';

CREATE PROCEDURE cm_await_host_request(
    id bigint,
    timeout interval DEFAULT '60 s',
    INOUT state text DEFAULT NULL,
    INOUT error text DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'cm_await_host_request';
COMMENT ON PROCEDURE cm_await_host_request(bigint, interval, text, text) IS
    'Waits for a request without holding a snapshot. Gives back done or failed and why, or NULL at the timeout. Commits; not for use in a transaction block.';

CREATE FUNCTION cm_internal.list_networks(
    host cm_hosts,
    OUT name text, OUT driver text, OUT scope text, OUT internal boolean, OUT subnets text,
    OUT epoch uuid, OUT network_id text)
RETURNS SETOF record
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'cm_hosts_list_networks';
COMMENT ON FUNCTION cm_internal.list_networks(cm_hosts) IS 'The networks on an engine.';

CREATE FUNCTION cm_list_networks(host text)
RETURNS TABLE (
    name text,
    driver text,
    scope text,
    internal boolean,
    subnets text,
    belongs_to text,
    network_id text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_list_networks.host);
BEGIN
    IF found_host.executor_type = 'mock' THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT n.name, n.driver, n.scope, n.internal, n.subnets,
           CASE WHEN n.epoch = i.epoch THEN 'this database' ELSE 'foreign' END, left(n.network_id, 12)
    FROM cm_internal.list_networks(found_host) n
    CROSS JOIN cm_internal.current_identity i
    ORDER BY n.name, n.network_id;
END
$$;
COMMENT ON FUNCTION cm_list_networks(text) IS
    'Networks on a host, asked now, from this session. foreign: not made by this database; jobs may join those, too. A mock host has none.';

CREATE FUNCTION cm_internal.list_volumes(
    host cm_hosts,
    OUT namespace text, OUT name text, OUT owner text, OUT created_at timestamptz,
    OUT epoch uuid, OUT engine_name text)
RETURNS SETOF record
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'cm_hosts_list_volumes';
COMMENT ON FUNCTION cm_internal.list_volumes(cm_hosts) IS 'The volumes on an engine that any database has made.';

CREATE FUNCTION cm_list_volumes(host text)
RETURNS TABLE (
    namespace text,
    name text,
    owner text,
    created_at timestamptz,
    belongs_to text,
    engine_name text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_list_volumes.host);
BEGIN
    IF found_host.executor_type = 'mock' THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT v.namespace, v.name, v.owner, v.created_at,
           CASE WHEN v.epoch = i.epoch THEN 'this database' ELSE 'foreign' END, v.engine_name
    FROM cm_internal.list_volumes(found_host) v
    CROSS JOIN cm_internal.current_identity i
    ORDER BY v.namespace, v.name, v.engine_name;
END
$$;
COMMENT ON FUNCTION cm_list_volumes(text) IS
    'Volumes of jobs on a host, asked now, from this session. foreign: of another database, of this server or another. What no container_manager made is not listed. A mock host has none.';

REVOKE ALL ON FUNCTION
    cm_internal.check_network_name(text),
    cm_internal.check_volume_name(text, text),
    cm_internal.list_networks(cm_hosts),
    cm_internal.list_volumes(cm_hosts),
    cm_create_network(text, text, text, cidr, cidr, boolean, text),
    cm_remove_network(text, text),
    cm_create_volume(text, text, text, text, integer),
    cm_remove_volume(text, text, text),
    cm_wait_host_request(bigint, interval),
    cm_list_networks(text),
    cm_list_volumes(text)
FROM PUBLIC;
REVOKE ALL ON PROCEDURE cm_await_host_request(bigint, interval, text, text) FROM PUBLIC;
