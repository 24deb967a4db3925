-- Templates: definitions of jobs, whole or in part, that jobs name.

-- Columns that cm_jobs has, too, mean the same and have the same types.
CREATE TABLE cm_templates (
    name text PRIMARY KEY,
    description text,
    is_active boolean NOT NULL DEFAULT true,
    image text,
    command text,
    args text[],
    entrypoint text[],
    host text,
    environment jsonb,
    secret_environment jsonb,
    environment_template text,
    working_directory text,
    run_as text,
    memory_limit integer,
    cpu_limit numeric,
    timeout_seconds integer,
    networks jsonb,
    priority integer,
    max_wait interval,
    max_attempts integer,
    retry_on text,
    retry_delay interval,
    on_host_loss text,
    host_loss_grace interval,
    host_labels jsonb,
    placement_strategy text,
    unique_key text,
    labels jsonb,
    read_only boolean,
    tmpfs jsonb,
    docker_options jsonb,
    parameters jsonb,
    volumes jsonb,
    ulimits jsonb,
    shm_size integer,
    pids_limit integer,
    stop_signal text,
    stop_grace interval,
    log_limit integer,
    success_exit_codes integer[],
    keep_container interval,
    on_conflict text,
    concurrency_key text,
    concurrency_limit integer,
    is_built_in boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
SELECT pg_extension_config_dump('cm_templates', '');
COMMENT ON TABLE cm_templates IS
    'Templates: what jobs that name one take for what is unsaid. NULL: unsaid. {{name}} in command, args, entrypoint and environment stands for a parameter.';

DO $$
DECLARE
    of_jobs record;
BEGIN
    FOR of_jobs IN
        SELECT t.attname, col_description(j.attrelid, j.attnum) AS comment
        FROM pg_attribute t
        JOIN pg_attribute j ON j.attname = t.attname
        WHERE t.attrelid = '@extschema@.cm_templates'::regclass AND t.attnum > 0
          AND j.attrelid = '@extschema@.cm_jobs'::regclass
    LOOP
        EXECUTE format('COMMENT ON COLUMN @extschema@.cm_templates.%I IS %L', of_jobs.attname, of_jobs.comment);
    END LOOP;
END
$$;
COMMENT ON COLUMN cm_templates.name IS 'Its name, for template => in a job.';
COMMENT ON COLUMN cm_templates.description IS 'What it is for.';
COMMENT ON COLUMN cm_templates.is_active IS 'Whether jobs may be submitted with it.';
COMMENT ON COLUMN cm_templates.parameters IS 'Defaults of its parameters, {"name": value}; null: a job must give it.';
COMMENT ON COLUMN cm_templates.is_built_in IS 'Whether it came with the extension and is as it was.';
COMMENT ON COLUMN cm_templates.created_at IS 'When it was made.';
COMMENT ON COLUMN cm_templates.updated_at IS 'When it was last changed.';

INSERT INTO cm_templates (name, description, memory_limit, cpu_limit, timeout_seconds, is_built_in,
    created_at, updated_at)
VALUES
    ('micro', 'Simple scripts, basic data validation', 128, 0.5, 300, true, now(), now()),
    ('standard', 'API calls, data processing, file operations', 512, 1.0, 1800, true, now(), now()),
    ('heavy', 'Machine learning, large data analysis, complex builds', 2048, 2.0, 3600, true, now(), now());

CREATE FUNCTION cm_internal.check_template() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_check_template';
COMMENT ON FUNCTION cm_internal.check_template() IS
    'Checks a template as if it were a job. One that comes out of a dump displaces those that came with the extension.';

CREATE TRIGGER check_template BEFORE INSERT OR UPDATE ON cm_templates
    FOR EACH ROW EXECUTE FUNCTION cm_internal.check_template();

-- A dump has this row always, so that a restore is known for one also where no
-- template is left in it.
CREATE TABLE cm_internal.restored_templates (
    is_restored boolean NOT NULL
);
SELECT pg_extension_config_dump('cm_internal.restored_templates', '');
COMMENT ON TABLE cm_internal.restored_templates IS
    'Written by a restore alone: then the templates of the extension give way to the dumped ones.';
INSERT INTO cm_internal.restored_templates VALUES (true);

CREATE FUNCTION cm_internal.forget_built_in_templates() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM @extschema@.cm_templates t WHERE t.is_built_in;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION cm_internal.forget_built_in_templates() IS
    'Deletes the templates that came with the extension; what was written is not stored.';

CREATE TRIGGER forget_built_in_templates BEFORE INSERT ON cm_internal.restored_templates
    FOR EACH ROW EXECUTE FUNCTION cm_internal.forget_built_in_templates();

CREATE FUNCTION cm_create_template(
    name text,
    image text DEFAULT NULL,
    command text DEFAULT NULL,
    args text[] DEFAULT NULL,
    entrypoint text[] DEFAULT NULL,
    host text DEFAULT NULL,
    environment jsonb DEFAULT NULL,
    secret_environment jsonb DEFAULT NULL,
    environment_template text DEFAULT NULL,
    working_directory text DEFAULT NULL,
    run_as text DEFAULT NULL,
    memory_limit integer DEFAULT NULL,
    cpu_limit numeric DEFAULT NULL,
    timeout_seconds integer DEFAULT NULL,
    networks jsonb DEFAULT NULL,
    priority integer DEFAULT NULL,
    max_wait interval DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    retry_on text DEFAULT NULL,
    retry_delay interval DEFAULT NULL,
    on_host_loss text DEFAULT NULL,
    host_loss_grace interval DEFAULT NULL,
    host_labels jsonb DEFAULT NULL,
    placement_strategy text DEFAULT NULL,
    unique_key text DEFAULT NULL,
    labels jsonb DEFAULT NULL,
    read_only boolean DEFAULT NULL,
    tmpfs jsonb DEFAULT NULL,
    docker_options jsonb DEFAULT NULL,
    parameters jsonb DEFAULT NULL,
    volumes jsonb DEFAULT NULL,
    ulimits jsonb DEFAULT NULL,
    shm_size integer DEFAULT NULL,
    pids_limit integer DEFAULT NULL,
    stop_signal text DEFAULT NULL,
    stop_grace interval DEFAULT NULL,
    log_limit integer DEFAULT NULL,
    success_exit_codes integer[] DEFAULT NULL,
    keep_container interval DEFAULT NULL,
    on_conflict text DEFAULT NULL,
    concurrency_key text DEFAULT NULL,
    concurrency_limit integer DEFAULT NULL,
    description text DEFAULT NULL,
    is_active boolean DEFAULT true,
    if_exists text DEFAULT 'error'
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF if_exists IS NULL OR if_exists NOT IN ('error', 'update', 'skip') THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('invalid if_exists "%s"', if_exists),
            HINT = 'Use ''error'', ''update'' or ''skip''.';
    END IF;
    INSERT INTO @extschema@.cm_templates AS t (
        name, image, command, args, entrypoint, host, environment, secret_environment,
        environment_template, working_directory, run_as, memory_limit, cpu_limit, timeout_seconds,
        networks, priority, max_wait, max_attempts, retry_on, retry_delay, on_host_loss,
        host_loss_grace, host_labels, placement_strategy, unique_key, labels, read_only, tmpfs,
        docker_options, parameters, volumes, ulimits, shm_size, pids_limit, stop_signal,
        stop_grace, log_limit, success_exit_codes, keep_container, on_conflict, concurrency_key,
        concurrency_limit, description, is_active)
    VALUES (
        cm_create_template.name, cm_create_template.image, cm_create_template.command,
        cm_create_template.args, cm_create_template.entrypoint, cm_create_template.host,
        cm_create_template.environment, cm_create_template.secret_environment,
        cm_create_template.environment_template, cm_create_template.working_directory,
        cm_create_template.run_as, cm_create_template.memory_limit, cm_create_template.cpu_limit,
        cm_create_template.timeout_seconds, cm_create_template.networks,
        cm_create_template.priority, cm_create_template.max_wait, cm_create_template.max_attempts,
        cm_create_template.retry_on, cm_create_template.retry_delay,
        cm_create_template.on_host_loss, cm_create_template.host_loss_grace,
        cm_create_template.host_labels, cm_create_template.placement_strategy,
        cm_create_template.unique_key, cm_create_template.labels, cm_create_template.read_only,
        cm_create_template.tmpfs, cm_create_template.docker_options, cm_create_template.parameters,
        cm_create_template.volumes, cm_create_template.ulimits, cm_create_template.shm_size,
        cm_create_template.pids_limit, cm_create_template.stop_signal,
        cm_create_template.stop_grace, cm_create_template.log_limit,
        cm_create_template.success_exit_codes, cm_create_template.keep_container,
        cm_create_template.on_conflict, cm_create_template.concurrency_key,
        cm_create_template.concurrency_limit, cm_create_template.description,
        coalesce(cm_create_template.is_active, true))
    ON CONFLICT ON CONSTRAINT cm_templates_pkey DO UPDATE SET (
        image, command, args, entrypoint, host, environment, secret_environment,
        environment_template, working_directory, run_as, memory_limit, cpu_limit, timeout_seconds,
        networks, priority, max_wait, max_attempts, retry_on, retry_delay, on_host_loss,
        host_loss_grace, host_labels, placement_strategy, unique_key, labels, read_only, tmpfs,
        docker_options, parameters, volumes, ulimits, shm_size, pids_limit, stop_signal,
        stop_grace, log_limit, success_exit_codes, keep_container, on_conflict, concurrency_key,
        concurrency_limit, description, is_active) = (
        EXCLUDED.image, EXCLUDED.command, EXCLUDED.args, EXCLUDED.entrypoint, EXCLUDED.host,
        EXCLUDED.environment, EXCLUDED.secret_environment, EXCLUDED.environment_template,
        EXCLUDED.working_directory, EXCLUDED.run_as, EXCLUDED.memory_limit, EXCLUDED.cpu_limit,
        EXCLUDED.timeout_seconds, EXCLUDED.networks, EXCLUDED.priority, EXCLUDED.max_wait,
        EXCLUDED.max_attempts, EXCLUDED.retry_on, EXCLUDED.retry_delay, EXCLUDED.on_host_loss,
        EXCLUDED.host_loss_grace, EXCLUDED.host_labels, EXCLUDED.placement_strategy,
        EXCLUDED.unique_key, EXCLUDED.labels, EXCLUDED.read_only, EXCLUDED.tmpfs,
        EXCLUDED.docker_options, EXCLUDED.parameters, EXCLUDED.volumes, EXCLUDED.ulimits,
        EXCLUDED.shm_size, EXCLUDED.pids_limit, EXCLUDED.stop_signal, EXCLUDED.stop_grace,
        EXCLUDED.log_limit, EXCLUDED.success_exit_codes, EXCLUDED.keep_container,
        EXCLUDED.on_conflict, EXCLUDED.concurrency_key, EXCLUDED.concurrency_limit,
        EXCLUDED.description, EXCLUDED.is_active)
        WHERE if_exists = 'update';
    IF NOT FOUND AND if_exists = 'error' THEN
        RAISE EXCEPTION USING
            ERRCODE = '23505',
            MESSAGE = format('template "%s" exists already', cm_create_template.name),
            HINT = 'Use if_exists => ''update'' to replace it, or if_exists => ''skip'' to leave it as it is.';
    END IF;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_create_template IS
    'Makes a template for jobs. NULL leaves a field to the job. False: it was there, and if_exists is skip.';

CREATE FUNCTION cm_internal.throw_no_template(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = '42704',
        MESSAGE = format('template "%s" does not exist', coalesce(name, 'NULL')),
        HINT = 'The templates are in cm_templates.';
END
$$;
COMMENT ON FUNCTION cm_internal.throw_no_template(text) IS 'Says that there is no such template.';

CREATE FUNCTION cm_drop_template(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM @extschema@.cm_templates t WHERE t.name = cm_drop_template.name;
    IF NOT FOUND THEN
        PERFORM cm_internal.throw_no_template(name);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION cm_drop_template(text) IS
    'Drops a template. Jobs that were made from it are as they were.';

CREATE FUNCTION cm_internal.set_template_active(name text, is_active boolean) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    was_active boolean;
BEGIN
    SELECT t.is_active INTO was_active
    FROM @extschema@.cm_templates t WHERE t.name = set_template_active.name
    FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM cm_internal.throw_no_template(name);
    END IF;
    UPDATE @extschema@.cm_templates t SET is_active = set_template_active.is_active
    WHERE t.name = set_template_active.name AND t.is_active <> set_template_active.is_active;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_internal.set_template_active(text, boolean) IS
    'Enables or disables a template. False: it was so.';

CREATE FUNCTION cm_enable_template(name text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'SELECT cm_internal.set_template_active(name, true)';
COMMENT ON FUNCTION cm_enable_template(text) IS
    'Lets jobs be submitted with a template again. False: they may already.';

CREATE FUNCTION cm_disable_template(name text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'SELECT cm_internal.set_template_active(name, false)';
COMMENT ON FUNCTION cm_disable_template(text) IS
    'Has jobs that name a template refused when submitted. Those that were submitted run. False: it is disabled already.';

CREATE FUNCTION cm_rename_template(name text, new_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE @extschema@.cm_templates t SET name = cm_rename_template.new_name
    WHERE t.name = cm_rename_template.name;
    IF NOT FOUND THEN
        PERFORM cm_internal.throw_no_template(name);
    END IF;
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION USING
        ERRCODE = '23505',
        MESSAGE = format('template "%s" exists already', new_name),
        HINT = 'Choose another name, or drop that one by cm_drop_template().';
END
$$;
COMMENT ON FUNCTION cm_rename_template(text, text) IS
    'Renames a template. Jobs keep the name that they were submitted with.';

REVOKE ALL ON cm_templates, cm_internal.restored_templates FROM PUBLIC;
REVOKE ALL ON FUNCTION
    cm_internal.check_template(),
    cm_internal.forget_built_in_templates(),
    cm_internal.throw_no_template(text),
    cm_internal.set_template_active(text, boolean),
    cm_create_template,
    cm_drop_template(text),
    cm_enable_template(text),
    cm_disable_template(text),
    cm_rename_template(text, text)
FROM PUBLIC;
