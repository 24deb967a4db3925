-- Environment variables from templates, and where each of a job's comes from.

CREATE TABLE cm_environment_templates (
    name text PRIMARY KEY,
    description text,
    environment_variables_text text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT name_is_plain CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$')
);
SELECT pg_extension_config_dump('cm_environment_templates', '');
COMMENT ON TABLE cm_environment_templates IS
    'Environment variables that jobs share. Jobs keep what they were submitted with: later changes do not reach them. Not for secrets.';
COMMENT ON COLUMN cm_environment_templates.name IS 'What jobs call it by: environment_template.';
COMMENT ON COLUMN cm_environment_templates.description IS 'What it is for.';
COMMENT ON COLUMN cm_environment_templates.environment_variables_text IS
    'A line KEY=VALUE per variable; # begins a comment. The value is the rest of the line as it stands.';
COMMENT ON COLUMN cm_environment_templates.created_at IS 'When it was written first.';
COMMENT ON COLUMN cm_environment_templates.updated_at IS 'When it was last changed.';

CREATE FUNCTION cm_internal.check_environment_template() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'cm_check_environment_template';
COMMENT ON FUNCTION cm_internal.check_environment_template() IS
    'Refuses a text that is malformed, by its line.';
CREATE TRIGGER check_environment_template BEFORE INSERT OR UPDATE ON cm_environment_templates
    FOR EACH ROW EXECUTE FUNCTION cm_internal.check_environment_template();

CREATE FUNCTION cm_internal.read_environment(environment_variables_text text)
RETURNS TABLE (name text, value text)
LANGUAGE C STABLE STRICT ROWS 10 AS 'MODULE_PATHNAME', 'cm_read_environment';
COMMENT ON FUNCTION cm_internal.read_environment(text) IS 'The variables of an environment template''s text.';

CREATE FUNCTION cm_internal.find_environment_template(name text) RETURNS text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_text text;
BEGIN
    SELECT t.environment_variables_text INTO found_text
    FROM @extschema@.cm_environment_templates t WHERE t.name = find_environment_template.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = '42704',
            MESSAGE = format('environment template "%s" does not exist', cm_internal.one_line(find_environment_template.name)),
            HINT = 'The environment templates are in cm_environment_templates.',
            TABLE = 'cm_jobs', COLUMN = 'environment_template';
    END IF;
    RETURN found_text;
END
$$;
COMMENT ON FUNCTION cm_internal.find_environment_template(text) IS
    'The text of that environment template, or an error.';

-- said: what the job says itself; filled: with what its template gives it.  Of a
-- variable that several layers have, the highest counts, be it plain or a secret.
CREATE FUNCTION cm_internal.merge_environment(
    template_environment text, template text, filled jsonb, filled_secrets jsonb,
    environment_template text, said jsonb, said_secrets jsonb,
    OUT environment jsonb, OUT secret_environment jsonb, OUT environment_sources jsonb)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH own AS (
        SELECT e.key, e.value, false AS is_secret FROM jsonb_each(said) e
        UNION ALL SELECT e.key, e.value, true FROM jsonb_each(said_secrets) e),
    layers AS (
        SELECT 1 AS n, v.name, to_jsonb(v.value) AS value, false AS is_secret,
               format('environment template "%s"', template_environment) AS source
        FROM cm_internal.read_environment(cm_internal.find_environment_template(template_environment)) v
        UNION ALL
        SELECT 2, e.key, e.value, e.is_secret,
               CASE WHEN e.key LIKE 'CM\_PARAM\_%' THEN format('parameter "%s"', substr(e.key, 10))
                    ELSE format('template "%s"', template) END
        FROM (SELECT e.key, e.value, false AS is_secret FROM jsonb_each(filled) e
              UNION ALL SELECT e.key, e.value, true FROM jsonb_each(filled_secrets) e) e
        WHERE NOT EXISTS (SELECT FROM own o WHERE o.key = e.key)
        UNION ALL
        SELECT 3, v.name, to_jsonb(v.value), false, format('environment template "%s"', environment_template)
        FROM cm_internal.read_environment(cm_internal.find_environment_template(environment_template)) v
        UNION ALL
        SELECT 4, o.key, o.value, o.is_secret, NULL FROM own o),
    highest AS (
        SELECT l.*, max(l.n) OVER (PARTITION BY l.name) AS highest FROM layers l)
    SELECT jsonb_object_agg(h.name, h.value) FILTER (WHERE NOT h.is_secret),
           jsonb_object_agg(h.name, h.value) FILTER (WHERE h.is_secret),
           jsonb_object_agg(h.name, h.source) FILTER (WHERE h.source IS NOT NULL)
    FROM highest h
    WHERE h.n = h.highest
$$;
COMMENT ON FUNCTION cm_internal.merge_environment(text, text, jsonb, jsonb, text, jsonb, jsonb) IS
    'A job''s variables from all layers, the highest last. Of a variable, the source is noted unless it is the job itself.';

CREATE FUNCTION cm_job_environment(job_id bigint)
RETURNS TABLE (name text, value text, source text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job record;
BEGIN
    SELECT j.environment, j.secret_environment, j.environment_sources INTO job
    FROM @extschema@.cm_jobs j WHERE j.id = cm_job_environment.job_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = '42704',
            MESSAGE = format('job %s does not exist', cm_job_environment.job_id);
    END IF;
    RETURN QUERY
    SELECT e.name, e.value, e.source
    FROM (SELECT v.key AS name, v.value, coalesce(job.environment_sources ->> v.key, 'job') AS source
          FROM jsonb_each_text(job.environment) v
          UNION ALL
          SELECT v.key, '********', format('secret "%s"', v.value)
                 || coalesce(' of ' || (job.environment_sources ->> v.key), '')
          FROM jsonb_each_text(job.secret_environment) v
          UNION ALL
          SELECT d.name, '/tmp', 'default' FROM unnest(ARRAY['HOME', 'TMPDIR']) d(name)
          WHERE NOT coalesce(job.environment ? d.name, false) AND NOT coalesce(job.secret_environment ? d.name, false)) e
    ORDER BY e.name COLLATE "C";
END
$$;
COMMENT ON FUNCTION cm_job_environment(bigint) IS
    'Environment variables of a job, and where each is from. Values of secrets are masked; those of the image are not known here.';

REVOKE ALL ON FUNCTION
    cm_internal.check_environment_template(),
    cm_internal.read_environment(text),
    cm_internal.find_environment_template(text),
    cm_internal.merge_environment(text, text, jsonb, jsonb, text, jsonb, jsonb),
    cm_job_environment(bigint)
FROM PUBLIC;
