-- Secrets: sealed with a key that is not in the database.

CREATE TABLE cm_internal.secrets (
    namespace text NOT NULL,
    name text NOT NULL,
    sealed bytea NOT NULL,
    granted_to name[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by name NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by name NOT NULL,
    PRIMARY KEY (namespace, name)
);
SELECT pg_extension_config_dump('cm_internal.secrets', '');
COMMENT ON TABLE cm_internal.secrets IS 'What cm_set_secret stored, sealed for its namespace and name.';

-- Apart, so that using one does not look like changing it.
CREATE TABLE cm_internal.secret_uses (
    secret text PRIMARY KEY,
    last_used_at timestamptz
) WITH (fillfactor = 50);
SELECT pg_extension_config_dump('cm_internal.secret_uses', '');
COMMENT ON TABLE cm_internal.secret_uses IS
    'When the executor last gave a secret, "namespace/name", to a job. Of each secret a row.';

CREATE FUNCTION cm_internal.is_role_of(caller name, role name) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN role = 'public' OR coalesce(
    (SELECT c.rolsuper OR coalesce((SELECT pg_has_role(c.oid, r.oid, 'USAGE') FROM pg_roles r WHERE r.rolname = role), false)
     FROM pg_roles c WHERE c.rolname = caller), false);
COMMENT ON FUNCTION cm_internal.is_role_of(name, name) IS
    'Whether the caller has the rights of a role. Of a role that is gone nobody has, of public everybody.';

CREATE FUNCTION cm_internal.may_use_secret(caller name, created_by name, granted_to name[]) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT coalesce(bool_or(cm_internal.is_role_of(caller, r.role)), false) FROM unnest(granted_to || created_by) r(role));
COMMENT ON FUNCTION cm_internal.may_use_secret(name, name, name[]) IS
    'Whether jobs of that role may have the secret.';

CREATE VIEW cm_secrets WITH (security_barrier) AS
SELECT s.namespace, s.name, encode(substr(s.sealed, 2, 8), 'hex') AS key_id, s.granted_to,
       s.created_at, s.created_by, s.updated_at, s.updated_by, u.last_used_at
FROM cm_internal.secrets s
LEFT JOIN cm_internal.secret_uses u ON u.secret = s.namespace || '/' || s.name
WHERE cm_internal.may_use_secret(current_user, s.created_by, s.granted_to);
COMMENT ON VIEW cm_secrets IS 'Secrets that you may use, without their values.';
COMMENT ON COLUMN cm_secrets.namespace IS 'Namespace whose jobs may use it.';
COMMENT ON COLUMN cm_secrets.name IS 'Its name.';
COMMENT ON COLUMN cm_secrets.key_id IS 'The key that it is sealed with.';
COMMENT ON COLUMN cm_secrets.granted_to IS 'Roles whose jobs may use it, besides those of created_by.';
COMMENT ON COLUMN cm_secrets.created_at IS 'When it was set first.';
COMMENT ON COLUMN cm_secrets.created_by IS 'Who set it first; only that role may change it.';
COMMENT ON COLUMN cm_secrets.updated_at IS 'When its value was last set.';
COMMENT ON COLUMN cm_secrets.updated_by IS 'Who set it last.';
COMMENT ON COLUMN cm_secrets.last_used_at IS 'When a job last got it.';

CREATE FUNCTION cm_set_secret(name text, value text, namespace text DEFAULT 'default') RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_secrets_set';
COMMENT ON FUNCTION cm_set_secret(text, text, text) IS
    'Stores a secret, sealed; true where it is new. It cannot be read back. Give the value as a parameter: a literal is kept by psql''s history and, with log_statement, by the log.';

CREATE FUNCTION cm_set_secret_from_file(name text, path text, namespace text DEFAULT 'default') RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_secrets_set_from_file';
COMMENT ON FUNCTION cm_set_secret_from_file(text, text, text) IS
    'Stores a file of the server as a secret. Less one newline at its end. For superusers and roles of pg_read_server_files.';

-- What is copied into it is sealed row by row, and nothing can be read from it.
CREATE VIEW cm_secrets_load AS
SELECT NULL::text AS name, NULL::text AS value, NULL::text AS namespace WHERE false;
ALTER VIEW cm_secrets_load ALTER COLUMN namespace SET DEFAULT 'default';
COMMENT ON VIEW cm_secrets_load IS
    'Takes secrets by INSERT or COPY; each row is cm_set_secret. COPY cm_secrets_load (name, value) FROM STDIN. Nothing can be read from it.';
COMMENT ON COLUMN cm_secrets_load.name IS 'Name of the secret.';
COMMENT ON COLUMN cm_secrets_load.value IS 'Its value.';
COMMENT ON COLUMN cm_secrets_load.namespace IS 'Its namespace; default unless said.';

CREATE FUNCTION cm_internal.load_secret() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_secrets_load';
COMMENT ON FUNCTION cm_internal.load_secret() IS 'Stores a row of cm_secrets_load as cm_set_secret does.';
CREATE TRIGGER load_secret INSTEAD OF INSERT ON cm_secrets_load
    FOR EACH ROW EXECUTE FUNCTION cm_internal.load_secret();

CREATE FUNCTION cm_internal.find_own_secret(caller name, name text, namespace text) RETURNS cm_internal.secrets
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_secret cm_internal.secrets;
BEGIN
    SELECT s.* INTO found_secret FROM cm_internal.secrets s
    WHERE s.namespace = find_own_secret.namespace AND s.name = find_own_secret.name
    FOR UPDATE;
    IF NOT FOUND OR NOT cm_internal.may_use_secret(find_own_secret.caller, found_secret.created_by, found_secret.granted_to) THEN
        RAISE EXCEPTION USING
            ERRCODE = '42704',
            MESSAGE = format('secret "%s" does not exist in namespace "%s"',
                cm_internal.one_line(find_own_secret.name), cm_internal.one_line(find_own_secret.namespace)),
            HINT = 'TABLE cm_secrets lists those that you may use.';
    END IF;
    IF NOT cm_internal.is_role_of(find_own_secret.caller, found_secret.created_by) THEN
        RAISE EXCEPTION USING
            ERRCODE = '42501',
            MESSAGE = format('permission denied for secret "%s"', found_secret.name),
            DETAIL = format('Only role "%s", which set it, and superusers may change it.', found_secret.created_by);
    END IF;
    RETURN found_secret;
END
$$;
COMMENT ON FUNCTION cm_internal.find_own_secret(name, text, text) IS
    'The secret of that name if the caller may change it, or an error.';

CREATE FUNCTION cm_internal.drop_secret(caller name, name text, namespace text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_secret cm_internal.secrets := cm_internal.find_own_secret(drop_secret.caller, drop_secret.name, drop_secret.namespace);
BEGIN
    DELETE FROM cm_internal.secret_uses u WHERE u.secret = found_secret.namespace || '/' || found_secret.name;
    DELETE FROM cm_internal.secrets s WHERE (s.namespace, s.name) = (found_secret.namespace, found_secret.name);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_internal.drop_secret(name, text, text) IS 'What cm_drop_secret() does, for the caller that it tells.';

CREATE FUNCTION cm_drop_secret(name text, namespace text DEFAULT 'default') RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_secrets_drop';
COMMENT ON FUNCTION cm_drop_secret(text, text) IS
    'Drops a secret. Jobs that wait and name it fail with policy.';

CREATE FUNCTION cm_internal.grant_secret(caller name, name text, role name, namespace text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_secret cm_internal.secrets := cm_internal.find_own_secret(grant_secret.caller, grant_secret.name, grant_secret.namespace);
BEGIN
    IF grant_secret.role IS NULL OR grant_secret.role <> 'public'
       AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = grant_secret.role) THEN
        RAISE EXCEPTION USING
            ERRCODE = '42704',
            MESSAGE = format('role "%s" does not exist', grant_secret.role),
            HINT = 'Name a role, or public for all.';
    END IF;
    UPDATE cm_internal.secrets s SET granted_to = s.granted_to || grant_secret.role
    WHERE (s.namespace, s.name) = (found_secret.namespace, found_secret.name)
      AND grant_secret.role <> ALL (s.granted_to);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_internal.grant_secret(name, text, name, text) IS 'What cm_grant_secret() does, for the caller that it tells.';

CREATE FUNCTION cm_grant_secret(name text, role name, namespace text DEFAULT 'default') RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_secrets_grant';
COMMENT ON FUNCTION cm_grant_secret(text, name, text) IS
    'Lets jobs of a role use a secret; true if they could not. public: those of all.';

CREATE FUNCTION cm_internal.revoke_secret(caller name, name text, role name, namespace text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_secret cm_internal.secrets := cm_internal.find_own_secret(revoke_secret.caller, revoke_secret.name, revoke_secret.namespace);
BEGIN
    UPDATE cm_internal.secrets s SET granted_to = array_remove(s.granted_to, revoke_secret.role)
    WHERE (s.namespace, s.name) = (found_secret.namespace, found_secret.name)
      AND revoke_secret.role = ANY (s.granted_to);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_internal.revoke_secret(name, text, name, text) IS 'What cm_revoke_secret() does, for the caller that it tells.';

CREATE FUNCTION cm_revoke_secret(name text, role name, namespace text DEFAULT 'default') RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_secrets_revoke';
COMMENT ON FUNCTION cm_revoke_secret(text, name, text) IS
    'Undoes cm_grant_secret. Jobs that wait are asked again when they start.';

-- Names of secrets, {"NAME": "secret"}; those that the role's jobs may not have.
CREATE FUNCTION cm_internal.check_secrets(namespace text, secret_environment jsonb, role name) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing text;
BEGIN
    SELECT e.value INTO missing
    FROM jsonb_each_text(secret_environment) e
    WHERE NOT EXISTS (SELECT FROM cm_internal.secrets s
        WHERE s.namespace = check_secrets.namespace AND s.name = e.value
          AND cm_internal.may_use_secret(check_secrets.role, s.created_by, s.granted_to))
    ORDER BY e.key LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = '42704',
            MESSAGE = format('secret "%s" does not exist in namespace "%s", or is not for role "%s"',
                cm_internal.one_line(missing), cm_internal.one_line(check_secrets.namespace), check_secrets.role),
            HINT = 'TABLE cm_secrets lists those that you may use; cm_set_secret stores one, cm_grant_secret lets others use it.',
            TABLE = 'cm_jobs', COLUMN = 'secret_environment';
    END IF;
END
$$;
COMMENT ON FUNCTION cm_internal.check_secrets(text, jsonb, name) IS
    'Refuses secrets that are not there, or not for the role.';

CREATE FUNCTION cm_internal.reseal(purpose text, name text, sealed bytea) RETURNS bytea
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'cm_secrets_reseal';
COMMENT ON FUNCTION cm_internal.reseal(text, text, bytea) IS
    'The same, sealed with the first key of the file; as it is if it was already.';

CREATE FUNCTION cm_rotate_secret_key()
RETURNS TABLE (what text, resealed bigint, unchanged bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Whoever is sealing something with an older key is waited for.
    LOCK TABLE cm_internal.secrets, cm_internal.cas, cm_internal.host_tls IN SHARE ROW EXCLUSIVE MODE;
    what := 'secrets';
    WITH made AS MATERIALIZED (SELECT s.namespace, s.name, s.sealed,
             cm_internal.reseal('secret', s.namespace || '/' || s.name, s.sealed) AS new FROM cm_internal.secrets s),
    changed AS (UPDATE cm_internal.secrets s SET sealed = m.new FROM made m
        WHERE (s.namespace, s.name) = (m.namespace, m.name) AND m.new <> m.sealed RETURNING 1)
    SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM made) INTO resealed, unchanged;
    unchanged := unchanged - resealed;
    RETURN NEXT;
    what := 'keys of CAs';
    WITH made AS MATERIALIZED (SELECT c.name, c.key_sealed,
             cm_internal.reseal('ca', c.name, c.key_sealed) AS new FROM cm_internal.cas c),
    changed AS (UPDATE cm_internal.cas c SET key_sealed = m.new FROM made m
        WHERE c.name = m.name AND m.new <> m.key_sealed RETURNING 1)
    SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM made) INTO resealed, unchanged;
    unchanged := unchanged - resealed;
    RETURN NEXT;
    what := 'keys of hosts';
    WITH made AS MATERIALIZED (SELECT t.host_id, t.key_sealed,
             cm_internal.reseal('host_tls', t.host_id::text, t.key_sealed) AS new FROM cm_internal.host_tls t
             WHERE t.key_sealed IS NOT NULL),
    changed AS (UPDATE cm_internal.host_tls t SET key_sealed = m.new FROM made m
        WHERE t.host_id = m.host_id AND m.new <> m.key_sealed RETURNING 1)
    SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM made) INTO resealed, unchanged;
    unchanged := unchanged - resealed;
    RETURN NEXT;
    RAISE NOTICE USING
        MESSAGE = 'everything in this database is sealed with the first key of the file',
        HINT = 'The other keys may be removed from it when that is so in every database of the server, jobs that are launching have started, and no backup is kept that is sealed with them.';
END
$$;
COMMENT ON FUNCTION cm_rotate_secret_key() IS
    'Seals everything anew with the first key of the key file. All or nothing; tells how much of what, and when older keys may go.';

REVOKE ALL ON FUNCTION
    cm_internal.is_role_of(name, name),
    cm_internal.may_use_secret(name, name, name[]),
    cm_set_secret(text, text, text),
    cm_set_secret_from_file(text, text, text),
    cm_internal.load_secret(),
    cm_internal.find_own_secret(name, text, text),
    cm_internal.drop_secret(name, text, text),
    cm_internal.grant_secret(name, text, name, text),
    cm_internal.revoke_secret(name, text, name, text),
    cm_drop_secret(text, text),
    cm_grant_secret(text, name, text),
    cm_revoke_secret(text, name, text),
    cm_internal.check_secrets(text, jsonb, name),
    cm_internal.reseal(text, text, bytea),
    cm_rotate_secret_key()
FROM PUBLIC;
-- For whoever reads cm_secrets.
GRANT EXECUTE ON FUNCTION
    cm_internal.is_role_of(name, name),
    cm_internal.may_use_secret(name, name, name[])
TO PUBLIC;
