-- Hosts: the checks on their rows, and the functions of administrators.  The
-- functions run with the owner's rights: EXECUTE is the right to grant.

CREATE FUNCTION cm_internal.check_host() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_hosts_check_row';
COMMENT ON FUNCTION cm_internal.check_host() IS
    'Trigger: checks a row of cm_hosts and fills what follows.';

CREATE FUNCTION cm_internal.wake_hosts() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_hosts_wake';
COMMENT ON FUNCTION cm_internal.wake_hosts() IS
    'Trigger: tells the executor that hosts changed, at commit.';

-- A queued job knows its host by id and shows it by name; neither may go or
-- change under it.  Jobs that are over keep the name as text.
CREATE FUNCTION cm_internal.guard_host() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unfinished bigint;
BEGIN
    SELECT count(*) INTO unfinished
    FROM cm_internal.queue q
    WHERE q.host_id = OLD.id OR q.placement = OLD.id;
    IF unfinished > 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('host "%s" cannot be %s: it has unfinished jobs', OLD.name,
                             CASE TG_OP WHEN 'DELETE' THEN 'removed' ELSE 'renamed' END),
            DETAIL = format('%s unfinished job(s) run there or can run nowhere else.', unfinished),
            HINT = format('Let them end after SELECT cm_disable_host(%L), or cancel them by cm_cancel_job; cm_ps shows them.', OLD.name);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION cm_internal.guard_host() IS
    'Trigger: keeps hosts with unfinished jobs.';

-- At another address there may be another engine, which knows nothing of them.
CREATE FUNCTION cm_internal.guard_host_address() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    under_way bigint;
    kept bigint;
BEGIN
    SELECT count(*) INTO under_way
    FROM cm_internal.queue q
    WHERE q.status <> 'pending' AND q.host_id = OLD.id;
    IF under_way > 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('connection_string of host "%s" cannot be changed: jobs run there', OLD.name),
            DETAIL = format('%s job(s) are launching or running on it.', under_way),
            HINT = format('Let them end after SELECT cm_disable_host(%L), or add the new address as another host.', OLD.name),
            COLUMN = 'connection_string', TABLE = 'cm_hosts';
    END IF;
    SELECT count(*) INTO kept
    FROM cm_internal.kept_containers k
    WHERE k.host_id = OLD.id AND k.keep_until > now();
    IF kept > 0 THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('connection_string of host "%s" cannot be changed: containers are kept there', OLD.name),
            DETAIL = format('%s container(s) of failed jobs are kept on it.', kept),
            HINT = 'Let their time end or see cm_remove_kept_container, or add the new address as another host.',
            COLUMN = 'connection_string', TABLE = 'cm_hosts';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION cm_internal.guard_host_address() IS
    'Trigger: keeps the address of hosts that hold containers.';

CREATE FUNCTION cm_internal.follow_host() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM cm_internal.host_drains d WHERE d.host_name = OLD.name;
        DELETE FROM cm_internal.host_states s WHERE s.host_id = OLD.id;
        PERFORM cm_internal.leave_kept_containers(OLD.id, OLD.name);
        DELETE FROM cm_internal.host_tls t WHERE t.host_id = OLD.id;
        DELETE FROM cm_internal.host_certificates c WHERE c.host_id = OLD.id;
        DELETE FROM cm_internal.accepted_engines a WHERE a.host_id = OLD.id;
    ELSE
        UPDATE cm_internal.host_drains d SET host_name = NEW.name WHERE d.host_name = OLD.name;
        UPDATE cm_internal.host_states s SET host_id = NEW.id WHERE s.host_id = OLD.id;
        -- Its key is bound to the number of the host: it must be given anew.
        DELETE FROM cm_internal.host_tls t WHERE t.host_id = OLD.id AND NEW.id <> OLD.id;
        DELETE FROM cm_internal.host_certificates c WHERE c.host_id = OLD.id AND NEW.id <> OLD.id;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION cm_internal.follow_host() IS
    'Trigger: takes a host''s drain and state along.';

CREATE FUNCTION cm_internal.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = '55000',
        MESSAGE = format('%s cannot be truncated', TG_TABLE_NAME),
        DETAIL = 'Rows in use would go unchecked.',
        HINT = format('Use DELETE FROM %I.', TG_TABLE_NAME);
END
$$;
COMMENT ON FUNCTION cm_internal.refuse_truncate() IS
    'Trigger: refuses TRUNCATE, which would pass by row triggers.';

CREATE TRIGGER check_host BEFORE INSERT OR UPDATE ON cm_hosts
    FOR EACH ROW EXECUTE FUNCTION cm_internal.check_host();
CREATE TRIGGER guard_host_address BEFORE UPDATE ON cm_hosts
    FOR EACH ROW WHEN (OLD.connection_string IS DISTINCT FROM NEW.connection_string)
    EXECUTE FUNCTION cm_internal.guard_host_address();
CREATE TRIGGER guard_host_name BEFORE UPDATE ON cm_hosts
    FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name OR OLD.id <> NEW.id)
    EXECUTE FUNCTION cm_internal.guard_host();
CREATE TRIGGER guard_host BEFORE DELETE ON cm_hosts
    FOR EACH ROW EXECUTE FUNCTION cm_internal.guard_host();
CREATE TRIGGER follow_host_name AFTER UPDATE ON cm_hosts
    FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name OR OLD.id <> NEW.id)
    EXECUTE FUNCTION cm_internal.follow_host();
CREATE TRIGGER follow_host AFTER DELETE ON cm_hosts
    FOR EACH ROW EXECUTE FUNCTION cm_internal.follow_host();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON cm_hosts
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.refuse_truncate();
CREATE TRIGGER wake_hosts AFTER INSERT OR UPDATE OR DELETE ON cm_hosts
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.wake_hosts();
CREATE TRIGGER wake_hosts AFTER INSERT OR UPDATE OR DELETE ON cm_internal.host_drains
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.wake_hosts();
CREATE TRIGGER wake_hosts AFTER INSERT OR UPDATE OR DELETE ON cm_internal.host_tls
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.wake_hosts();
CREATE TRIGGER wake_hosts AFTER INSERT OR UPDATE ON cm_internal.accepted_engines
    FOR EACH STATEMENT EXECUTE FUNCTION cm_internal.wake_hosts();

-- Helpers.

CREATE FUNCTION cm_internal.nearest_word(word text, words text[]) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'cm_hosts_nearest_word';
COMMENT ON FUNCTION cm_internal.nearest_word(text, text[]) IS
    'What a misspelt word was probably meant to be, or NULL.';

CREATE FUNCTION cm_internal.shell_quote(word text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE
    WHEN word ~ '^[A-Za-z0-9_./:@%+,-][A-Za-z0-9_./:@%+,=-]*$' THEN word
    WHEN word !~ '[\u0001-\u001f\u007f-\u009f]' THEN '''' || replace(word, '''', '''\''''') || ''''
    ELSE '$''' || (
        SELECT string_agg(CASE
                   WHEN c IN ('''', '\') THEN '\' || c
                   WHEN c = E'\n' THEN '\n'
                   WHEN c = E'\t' THEN '\t'
                   WHEN c !~ '[\u0001-\u001f\u007f-\u009f]' THEN c
                   WHEN ascii(c) < 128 THEN '\x' || lpad(to_hex(ascii(c)), 2, '0')
                   ELSE '\u' || lpad(to_hex(ascii(c)), 4, '0')
               END, '' ORDER BY position)
        FROM regexp_split_to_table(word, '') WITH ORDINALITY AS s (c, position)
    ) || ''''
END;
COMMENT ON FUNCTION cm_internal.shell_quote(text) IS
    'One word for a shell, safe to paste. With control characters it needs bash, zsh or ksh.';

-- Who called: current_user is the owner in a function of SECURITY DEFINER, and
-- session_user does not know of SET ROLE.
CREATE FUNCTION cm_internal.caller() RETURNS name
LANGUAGE sql STABLE PARALLEL RESTRICTED
RETURN CASE current_setting('role')
    WHEN 'none' THEN session_user
    ELSE current_setting('role')::name
END;
COMMENT ON FUNCTION cm_internal.caller() IS
    'The role that called a function running as its owner.';

CREATE FUNCTION cm_internal.find_host(name text) RETURNS @extschema@.cm_hosts
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    host @extschema@.cm_hosts;
    known text[];
BEGIN
    SELECT h.* INTO host FROM @extschema@.cm_hosts h WHERE h.name = find_host.name;
    IF FOUND THEN
        RETURN host;
    END IF;
    SELECT array_agg(h.name ORDER BY h.name) INTO known FROM @extschema@.cm_hosts h;
    RAISE EXCEPTION USING
        ERRCODE = '42704',
        MESSAGE = format('host "%s" does not exist', find_host.name),
        HINT = CASE
            WHEN known IS NULL THEN
                'There are no hosts yet: add one by cm_add_host(name, connection_string).'
            ELSE coalesce(
                'Perhaps you meant "' || cm_internal.nearest_word(find_host.name, known) || '".',
                'The hosts are listed in cm_hosts.')
        END;
END
$$;
COMMENT ON FUNCTION cm_internal.find_host(text) IS
    'The row of a host; throws where there is none.';

-- Host names hold neither * nor ?, so that a name is never taken for a pattern.
CREATE FUNCTION cm_internal.match_hosts(name_pattern text) RETURNS SETOF @extschema@.cm_hosts
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT h.* FROM @extschema@.cm_hosts h
    WHERE CASE
        WHEN name_pattern ~ '[*?]' THEN h.name LIKE translate(
            regexp_replace(name_pattern, '([\\%_])', '\\\1', 'g'), '*?', '%_')
        ELSE h.name = name_pattern
    END
    ORDER BY h.name;
END
$$;
COMMENT ON FUNCTION cm_internal.match_hosts(text) IS
    'The hosts of a name, or of a pattern with * and ?.';

CREATE FUNCTION cm_internal.find_hosts(name text) RETURNS SETOF @extschema@.cm_hosts
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM cm_internal.match_hosts(find_hosts.name);
    IF NOT FOUND AND find_hosts.name ~ '[*?]' THEN
        RAISE EXCEPTION USING
            ERRCODE = '42704',
            MESSAGE = format('no host matches "%s"', find_hosts.name),
            HINT = '* stands for any characters, ? for one. The hosts are listed in cm_hosts.';
    ELSIF NOT FOUND THEN
        PERFORM cm_internal.find_host(find_hosts.name);
    END IF;
END
$$;
COMMENT ON FUNCTION cm_internal.find_hosts(text) IS
    'The hosts of a name or pattern; throws where there is none.';

-- A drain is changed by whoever has the host's row locked: others, the executor
-- above all, see that without waiting.
CREATE FUNCTION cm_internal.lock_hosts(name text, name_pattern text) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[];
BEGIN
    IF (lock_hosts.name IS NULL) = (name_pattern IS NULL) THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'either name or name_pattern must be given',
            HINT = 'Write the name of a host, or name_pattern => ''staging-*'' for several.';
    END IF;
    SELECT array_agg(f.name ORDER BY f.name) INTO names
    FROM cm_internal.find_hosts(coalesce(lock_hosts.name, name_pattern)) f;
    PERFORM FROM @extschema@.cm_hosts h WHERE h.name = ANY (names) ORDER BY h.name FOR NO KEY UPDATE;
    RETURN names;
END
$$;
COMMENT ON FUNCTION cm_internal.lock_hosts(text, text) IS
    'The names of the hosts meant, with their rows locked; throws where there is none.';

CREATE FUNCTION cm_internal.refuse_host_options(options jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    option text;
    meant text;
BEGIN
    IF options IS NULL OR options = '{}' THEN
        RETURN;
    END IF;
    IF jsonb_typeof(options) <> 'object' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'options is not a JSON object',
            HINT = 'Write it as {"name": value}, or leave it out.';
    END IF;
    SELECT k INTO option FROM jsonb_object_keys(options) k LIMIT 1;
    SELECT cm_internal.nearest_word(option, array_agg(p)) INTO meant
    FROM unnest(ARRAY['name', 'connection_string', 'is_active', 'tls_enabled', 'tls_verify',
                      'tls_cert_path', 'max_concurrent_jobs', 'weight', 'auto_pull_images',
                      'executor_type', 'executor_config', 'labels', 'description']) p;
    RAISE EXCEPTION USING
        ERRCODE = '22023',
        MESSAGE = format('unknown option "%s"', option),
        DETAIL = 'This version knows no options of hosts.',
        HINT = coalesce('Perhaps you mean the parameter ' || meant || ' => ...',
                        'Leave options out.');
END
$$;
COMMENT ON FUNCTION cm_internal.refuse_host_options(jsonb) IS
    'Refuses options that this version does not know.';

-- What administrators call.

-- if_exists => 'update' applies all of the given configuration again and
-- writes only what differs, so that it may run with every deployment.
CREATE FUNCTION cm_add_host(
    name text,
    connection_string text,
    is_active boolean DEFAULT true,
    tls_enabled boolean DEFAULT NULL,
    tls_verify boolean DEFAULT NULL,
    tls_cert_path text DEFAULT NULL,
    max_concurrent_jobs integer DEFAULT 10,
    weight integer DEFAULT 100,
    auto_pull_images boolean DEFAULT true,
    executor_type text DEFAULT 'docker',
    executor_config jsonb DEFAULT '{}',
    labels jsonb DEFAULT '{}',
    description text DEFAULT NULL,
    if_exists text DEFAULT 'error',
    options jsonb DEFAULT NULL
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    host_id integer;
    has_tls boolean := coalesce(cm_add_host.tls_enabled, cm_add_host.connection_string LIKE 'tcp://%');
BEGIN
    IF if_exists IS NULL OR if_exists NOT IN ('error', 'update', 'skip') THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('invalid if_exists "%s"', if_exists),
            HINT = 'Use ''error'', ''update'' or ''skip''.';
    END IF;
    PERFORM cm_internal.refuse_host_options(options);

    SELECT h.id INTO host_id FROM @extschema@.cm_hosts h WHERE h.name = cm_add_host.name;
    IF NOT FOUND THEN
        INSERT INTO @extschema@.cm_hosts (name, connection_string, is_active, tls_enabled, tls_verify,
            tls_cert_path, max_concurrent_jobs, weight, auto_pull_images, executor_type,
            executor_config, labels, description)
        VALUES (cm_add_host.name, cm_add_host.connection_string, coalesce(cm_add_host.is_active, true),
            cm_add_host.tls_enabled, cm_add_host.tls_verify, cm_add_host.tls_cert_path,
            coalesce(cm_add_host.max_concurrent_jobs, 10), coalesce(cm_add_host.weight, 100),
            coalesce(cm_add_host.auto_pull_images, true), coalesce(cm_add_host.executor_type, 'docker'),
            coalesce(cm_add_host.executor_config, '{}'), coalesce(cm_add_host.labels, '{}'),
            cm_add_host.description)
        ON CONFLICT ON CONSTRAINT cm_hosts_pkey DO NOTHING
        RETURNING id INTO host_id;
        IF FOUND THEN
            RETURN host_id;
        END IF;
    END IF;

    IF if_exists = 'error' THEN
        RAISE EXCEPTION USING
            ERRCODE = '23505',
            MESSAGE = format('host "%s" exists already', cm_add_host.name),
            HINT = 'Use if_exists => ''update'' to change it, or if_exists => ''skip'' to leave it as it is.';
    END IF;
    IF if_exists = 'update' THEN
        UPDATE @extschema@.cm_hosts h
        SET connection_string = cm_add_host.connection_string,
            is_active = coalesce(cm_add_host.is_active, true),
            tls_enabled = has_tls,
            tls_verify = coalesce(cm_add_host.tls_verify, has_tls),
            tls_cert_path = cm_add_host.tls_cert_path,
            max_concurrent_jobs = coalesce(cm_add_host.max_concurrent_jobs, 10),
            weight = coalesce(cm_add_host.weight, 100),
            auto_pull_images = coalesce(cm_add_host.auto_pull_images, true),
            executor_type = coalesce(cm_add_host.executor_type, 'docker'),
            executor_config = coalesce(cm_add_host.executor_config, '{}'),
            labels = coalesce(cm_add_host.labels, '{}'),
            description = cm_add_host.description
        WHERE h.name = cm_add_host.name
          AND (h.connection_string, h.is_active, h.tls_enabled, h.tls_verify, h.tls_cert_path,
               h.max_concurrent_jobs, h.weight, h.auto_pull_images, h.executor_type,
               h.executor_config, h.labels, h.description)
              IS DISTINCT FROM
              (cm_add_host.connection_string, coalesce(cm_add_host.is_active, true),
               has_tls, coalesce(cm_add_host.tls_verify, has_tls),
               cm_add_host.tls_cert_path, coalesce(cm_add_host.max_concurrent_jobs, 10),
               coalesce(cm_add_host.weight, 100), coalesce(cm_add_host.auto_pull_images, true),
               coalesce(cm_add_host.executor_type, 'docker'),
               coalesce(cm_add_host.executor_config, '{}'), coalesce(cm_add_host.labels, '{}'),
               cm_add_host.description);
    END IF;
    RETURN (cm_internal.find_host(cm_add_host.name)).id;
END
$$;
COMMENT ON FUNCTION cm_add_host(text, text, boolean, boolean, boolean, text, integer, integer,
    boolean, text, jsonb, jsonb, text, text, jsonb) IS
    'Adds a Docker host and returns its number. The connection is not tried: see cm_check_host.';

CREATE FUNCTION cm_remove_host(name text, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    host @extschema@.cm_hosts := cm_internal.find_host(cm_remove_host.name);
BEGIN
    IF force THEN
        PERFORM cm_internal.lock_hosts(host.name, NULL);
    END IF;
    IF force AND EXISTS (SELECT FROM cm_internal.queue q
                         WHERE q.host_id = host.id OR q.placement = host.id) THEN
        INSERT INTO cm_internal.host_drains AS d (host_name, reason, drained_by, removed_by)
        VALUES (host.name, 'being removed', cm_internal.caller(), cm_internal.caller())
        ON CONFLICT ON CONSTRAINT host_drains_pkey DO UPDATE
            SET reason = EXCLUDED.reason, drained_by = EXCLUDED.drained_by, drained_at = now(),
                removed_by = EXCLUDED.removed_by
            WHERE d.removed_by IS NULL;
        RETURN FOUND;
    END IF;
    DELETE FROM @extschema@.cm_hosts h WHERE h.name = host.name;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_remove_host(text, boolean) IS
    'Removes a host that has no unfinished jobs. Jobs that ran there are kept. By force: the executor first cancels those that run there or must, gives up as abandoned those on a host that does not answer, then removes it. False: that was asked for already.';

CREATE FUNCTION cm_disable_host(
    name text DEFAULT NULL, reason text DEFAULT NULL, name_pattern text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO cm_internal.host_drains AS d (host_name, reason, drained_by)
    SELECT h, cm_disable_host.reason, cm_internal.caller()
    FROM unnest(cm_internal.lock_hosts(cm_disable_host.name, cm_disable_host.name_pattern)) h
    ON CONFLICT ON CONSTRAINT host_drains_pkey DO UPDATE
        SET reason = EXCLUDED.reason, drained_by = EXCLUDED.drained_by, drained_at = now()
        WHERE EXCLUDED.reason IS NOT NULL AND d.reason IS DISTINCT FROM EXCLUDED.reason
          AND d.removed_by IS NULL;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_disable_host(text, text, text) IS
    'Starts no more jobs on a host; those that run there end. The name may be a pattern: *, ?. True if that is new for any, or the reason is.';

CREATE FUNCTION cm_enable_host(name text DEFAULT NULL, name_pattern text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[] := cm_internal.lock_hosts(cm_enable_host.name, cm_enable_host.name_pattern);
    was_drained boolean;
BEGIN
    DELETE FROM cm_internal.host_drains d WHERE d.host_name = ANY (names);
    was_drained := FOUND;
    UPDATE @extschema@.cm_hosts h SET is_active = true WHERE h.name = ANY (names) AND NOT h.is_active;
    RETURN was_drained OR FOUND;
END
$$;
COMMENT ON FUNCTION cm_enable_host(text, text) IS
    'Undoes cm_disable_host, and is_active = false. The name may be a pattern: *, ?. True if any host was disabled.';

CREATE FUNCTION cm_internal.seal_host_key(host_id integer, ca text, cert text, key text) RETURNS bytea
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_hosts_seal_key';
COMMENT ON FUNCTION cm_internal.seal_host_key(integer, text, text, text) IS
    'Checks the parts of a host''s TLS, and seals the key.';

-- A statement that fails is logged; this one has a key in it.
CREATE FUNCTION cm_set_host_tls(host text, ca text DEFAULT NULL, cert text DEFAULT NULL, key text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET log_min_error_statement = panic
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_set_host_tls.host);
BEGIN
    IF NOT found_host.tls_enabled THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('host "%s" does not use TLS', found_host.name),
            HINT = 'Only tcp hosts with tls_enabled have certificates.';
    END IF;
    IF cm_set_host_tls.ca IS NULL AND cm_set_host_tls.cert IS NULL AND cm_set_host_tls.key IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('nothing is given for host "%s"', found_host.name),
            HINT = format('Give ca, or cert and key, or all; SELECT cm_drop_host_tls(%L) drops what is stored.', found_host.name);
    END IF;
    PERFORM cm_internal.lock_hosts(found_host.name, NULL);
    INSERT INTO cm_internal.host_tls AS t (host_id, ca, cert, key_sealed, set_by)
    VALUES (found_host.id, cm_set_host_tls.ca, cm_set_host_tls.cert,
            cm_internal.seal_host_key(found_host.id, cm_set_host_tls.ca, cm_set_host_tls.cert, cm_set_host_tls.key),
            cm_internal.caller())
    ON CONFLICT ON CONSTRAINT host_tls_pkey DO UPDATE
        SET ca = EXCLUDED.ca, cert = EXCLUDED.cert, key_sealed = EXCLUDED.key_sealed,
            set_by = EXCLUDED.set_by, set_at = now();
    RETURN true;
END
$$;
COMMENT ON FUNCTION cm_set_host_tls(text, text, text, text) IS
    'Stores CA, client certificate and key of a tcp host (PEM). They are used instead of tls_cert_path; the key is sealed and cannot be read back. Replaces what was stored.';

CREATE FUNCTION cm_drop_host_tls(host text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_drop_host_tls.host);
BEGIN
    PERFORM cm_internal.lock_hosts(found_host.name, NULL);
    DELETE FROM cm_internal.host_tls t WHERE t.host_id = found_host.id;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_drop_host_tls(text) IS
    'Drops what cm_set_host_tls stored. True if there was anything; from then on tls_cert_path counts.';

CREATE FUNCTION cm_wait_host_drained(name text, timeout interval DEFAULT '60 s') RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_wait_host_drained';
COMMENT ON FUNCTION cm_wait_host_drained(text, interval) IS
    'Waits until no job is left on a disabled host. The name may be a pattern. False: the timeout came first. The calling statement holds its snapshot meanwhile; CALL cm_await_host_drained does not.';

CREATE PROCEDURE cm_await_host_drained(
    name text,
    timeout interval DEFAULT '60 s',
    INOUT drained boolean DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'cm_await_host_drained';
COMMENT ON PROCEDURE cm_await_host_drained(text, interval, boolean) IS
    'Waits for a disabled host''s jobs without holding a snapshot. Gives back false at the timeout. Commits; not for use in a transaction block.';

CREATE FUNCTION cm_accept_engine(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    host @extschema@.cm_hosts := cm_internal.find_host(cm_accept_engine.name);
BEGIN
    PERFORM cm_internal.lock_hosts(host.name, NULL);
    INSERT INTO cm_internal.accepted_engines AS a (host_id, engine_id, accepted_by)
    SELECT host.id, s.seen_engine_id, cm_internal.caller()
    FROM cm_internal.host_states s
    WHERE s.host_id = host.id AND s.seen_engine_id <> s.engine_id
    ON CONFLICT ON CONSTRAINT accepted_engines_pkey DO UPDATE
        SET engine_id = EXCLUDED.engine_id, accepted_by = EXCLUDED.accepted_by, accepted_at = now()
        WHERE a.engine_id <> EXCLUDED.engine_id;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_accept_engine(text) IS
    'Accepts another engine in place of that with a host''s jobs. What ran there fails as infrastructure. False: it is the same.';

CREATE FUNCTION cm_internal.probe_engines(
    hosts @extschema@.cm_hosts[], timeout interval,
    OUT n integer, OUT ok boolean, OUT latency_ms double precision, OUT engine_version text,
    OUT api_version text, OUT error text, OUT hint text)
RETURNS SETOF record
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'cm_hosts_probe_engines';
COMMENT ON FUNCTION cm_internal.probe_engines(@extschema@.cm_hosts[], interval) IS
    'Asks engines who they are, all at the same time, from this session.';

CREATE FUNCTION cm_internal.read_engine_info(host cm_hosts) RETURNS text
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'cm_hosts_read_info';
COMMENT ON FUNCTION cm_internal.read_engine_info(cm_hosts) IS
    'The answer of an engine to /info, as JSON.';

CREATE FUNCTION cm_internal.check_hosts(hosts @extschema@.cm_hosts[], timeout interval)
RETURNS TABLE (
    host text,
    ok boolean,
    latency_ms double precision,
    engine_version text,
    api_version text,
    error text,
    hint text
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    engines @extschema@.cm_hosts[] := ARRAY(SELECT h FROM unnest(hosts) h WHERE h.executor_type = 'docker');
BEGIN
    RETURN QUERY
    SELECT engines[p.n].name, p.ok, round(p.latency_ms::numeric, 1)::double precision,
           p.engine_version, p.api_version, p.error, p.hint
    FROM cm_internal.probe_engines(engines, coalesce(check_hosts.timeout, '5 s')) p
    UNION ALL
    SELECT h.name, c.is_there, CASE WHEN c.is_there THEN 0.0::double precision END,
           CASE WHEN c.is_there THEN 'mock' END, NULL,
           CASE WHEN NOT c.is_there THEN 'executor_config says that it does not answer' END,
           CASE WHEN NOT c.is_there THEN 'Take "unreachable" out of executor_config.' END
    FROM unnest(hosts) h
    CROSS JOIN LATERAL (SELECT h.executor_config -> 'unreachable' IS DISTINCT FROM 'true' AS is_there) c
    WHERE h.executor_type = 'mock'
    ORDER BY 1;
END
$$;
COMMENT ON FUNCTION cm_internal.check_hosts(@extschema@.cm_hosts[], interval) IS
    'Tries the connections to hosts, all at the same time.';

CREATE FUNCTION cm_check_host(name text, timeout interval DEFAULT '5 s')
RETURNS TABLE (
    host text,
    ok boolean,
    latency_ms double precision,
    engine_version text,
    api_version text,
    error text,
    hint text
)
LANGUAGE plpgsql SECURITY DEFINER
ROWS 1
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT * FROM cm_internal.check_hosts(ARRAY(SELECT h FROM cm_internal.find_hosts(cm_check_host.name) h),
                                          cm_check_host.timeout);
END
$$;
COMMENT ON FUNCTION cm_check_host(text, interval) IS
    'Tries the connection to a host now, from this session. The name may be a pattern: *, ?. An unreachable host is an answer, not an error.';

CREATE FUNCTION cm_check_hosts(timeout interval DEFAULT '5 s')
RETURNS TABLE (
    host text,
    ok boolean,
    latency_ms double precision,
    engine_version text,
    api_version text,
    error text,
    hint text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT * FROM cm_internal.check_hosts(ARRAY(SELECT h FROM cm_internal.match_hosts('*') h),
                                          cm_check_hosts.timeout);
END
$$;
COMMENT ON FUNCTION cm_check_hosts(interval) IS
    'Tries the connections to all hosts now. At the same time, so that those that hang cost one timeout.';

CREATE FUNCTION cm_internal.list_engine(
    host cm_hosts,
    OUT container_id text, OUT name text, OUT image text, OUT state text, OUT created_at timestamptz,
    OUT epoch uuid, OUT incarnation integer, OUT job_id bigint, OUT attempt integer)
RETURNS SETOF record
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'cm_hosts_list_engine';
COMMENT ON FUNCTION cm_internal.list_engine(cm_hosts) IS
    'The containers on an engine that bear labels of any database''s jobs.';

CREATE FUNCTION cm_list_containers(host text)
RETURNS TABLE (
    container_id text,
    name text,
    image text,
    state text,
    created_at timestamptz,
    belongs_to text,
    epoch uuid,
    incarnation integer,
    job_id bigint,
    attempt integer
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_host @extschema@.cm_hosts := cm_internal.find_host(cm_list_containers.host);
BEGIN
    IF found_host.executor_type = 'mock' THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT c.container_id, c.name, c.image, c.state, c.created_at,
           CASE WHEN c.epoch = i.epoch THEN 'this database' ELSE 'foreign' END,
           c.epoch, c.incarnation, c.job_id, c.attempt
    FROM cm_internal.list_engine(found_host) c
    CROSS JOIN cm_internal.current_identity i
    ORDER BY c.created_at, c.container_id;
END
$$;
COMMENT ON FUNCTION cm_list_containers(text) IS
    'Containers of jobs on a host, asked now, from this session. foreign: of another database, of this server or another. What no container_manager made is not listed. A mock host has none.';

CREATE FUNCTION cm_host_info(name text) RETURNS TABLE (key text, value text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    host @extschema@.cm_hosts := cm_internal.find_host(cm_host_info.name);
BEGIN
    IF host.executor_type = 'mock' THEN
        RETURN QUERY
        VALUES ('Name', host.name), ('ServerVersion', 'mock'), ('Script', host.executor_config::text);
        RETURN;
    END IF;
    RETURN QUERY
    SELECT i.key, i.value
    FROM json_each_text(cm_internal.read_engine_info(host)::json) i;
END
$$;
COMMENT ON FUNCTION cm_host_info(text) IS
    'What docker info tells about a host, asked now. Nested values are JSON.';

CREATE FUNCTION cm_host_env(name text) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER
ROWS 4
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    host @extschema@.cm_hosts := cm_internal.find_host(cm_host_env.name);
BEGIN
    IF host.executor_type = 'mock' THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('host "%s" has no engine', host.name),
            DETAIL = 'Its executor_type is mock: there is nothing that the docker command could talk to.';
    END IF;
    RETURN NEXT 'export DOCKER_HOST=' || cm_internal.shell_quote(host.connection_string);
    IF NOT host.tls_enabled THEN
        RETURN NEXT 'unset DOCKER_CONTEXT DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH';
        RETURN;
    END IF;
    RETURN NEXT CASE WHEN host.tls_verify THEN 'unset DOCKER_CONTEXT; export DOCKER_TLS_VERIFY=1'
                     ELSE 'unset DOCKER_CONTEXT DOCKER_TLS_VERIFY; export DOCKER_TLS=1' END;
    RETURN NEXT CASE
        WHEN EXISTS (SELECT FROM cm_internal.host_tls t WHERE t.host_id = host.id) THEN
            '# DOCKER_CERT_PATH: a directory with the ca.pem, cert.pem and key.pem that are stored in the database'
        ELSE coalesce('export DOCKER_CERT_PATH=' || cm_internal.shell_quote(host.tls_cert_path),
                      'unset DOCKER_CERT_PATH')
    END;
END
$$;
COMMENT ON FUNCTION cm_host_env(text) IS
    'Shell lines that point the docker command at a host. As docker-machine env: eval "$(psql -XAtc "SELECT cm_host_env(''local'')")".';

REVOKE ALL ON FUNCTION
    cm_internal.check_host(),
    cm_internal.wake_hosts(),
    cm_internal.guard_host(),
    cm_internal.guard_host_address(),
    cm_internal.follow_host(),
    cm_internal.refuse_truncate(),
    cm_internal.nearest_word(text, text[]),
    cm_internal.shell_quote(text),
    cm_internal.caller(),
    cm_internal.find_host(text),
    cm_internal.refuse_host_options(jsonb),
    cm_internal.seal_host_key(integer, text, text, text),
    cm_set_host_tls(text, text, text, text),
    cm_drop_host_tls(text),
    cm_internal.match_hosts(text),
    cm_internal.find_hosts(text),
    cm_internal.lock_hosts(text, text),
    cm_internal.probe_engines(@extschema@.cm_hosts[], interval),
    cm_internal.check_hosts(@extschema@.cm_hosts[], interval),
    cm_internal.read_engine_info(@extschema@.cm_hosts),
    cm_internal.list_engine(@extschema@.cm_hosts),
    cm_list_containers(text),
    cm_add_host(text, text, boolean, boolean, boolean, text, integer, integer, boolean, text, jsonb,
        jsonb, text, text, jsonb),
    cm_remove_host(text, boolean),
    cm_disable_host(text, text, text),
    cm_enable_host(text, text),
    cm_wait_host_drained(text, interval),
    cm_accept_engine(text),
    cm_check_host(text, interval),
    cm_check_hosts(interval),
    cm_host_info(text),
    cm_host_env(text)
FROM PUBLIC;
REVOKE ALL ON PROCEDURE cm_await_host_drained(text, interval, boolean) FROM PUBLIC;
