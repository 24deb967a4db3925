-- What to look at.  Views read with the owner's rights, so that SELECT on one is
-- all it takes.  Only EXECUTE on the functions that they call is checked
-- against whoever asks: PUBLIC has it, and no use of it but through a view, for
-- want of USAGE on the schema.

CREATE FUNCTION cm_internal.executor_status(
    OUT phase text, OUT is_preloaded boolean, OUT has_launcher boolean, OUT in_recovery boolean,
    OUT is_enabled boolean, OUT executor_pid integer,
    OUT started_at timestamptz, OUT last_turn_at timestamptz,
    OUT last_error_at timestamptz, OUT last_error text,
    OUT blocked_on text, OUT blocked_by integer[],
    OUT turns bigint, OUT wakeups bigint, OUT transactions bigint, OUT polls bigint,
    OUT claimed bigint, OUT finished bigint, OUT http_requests bigint)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_status_read_executor';
COMMENT ON FUNCTION cm_internal.executor_status() IS
    'What shared memory knows of this database''s executor.';

CREATE FUNCTION cm_internal.short_image(image text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'cm_status_short_image';
COMMENT ON FUNCTION cm_internal.short_image(text) IS
    'An image reference in short: busybox:1.36.';

CREATE FUNCTION cm_internal.short_interval(duration interval) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE
    WHEN extract(epoch FROM duration) < 1 THEN '0s'
    WHEN extract(epoch FROM duration) < 60 THEN trunc(extract(epoch FROM duration)) || 's'
    WHEN extract(epoch FROM duration) < 3600 THEN trunc(extract(epoch FROM duration) / 60) || 'm'
    WHEN extract(epoch FROM duration) < 86400 THEN trunc(extract(epoch FROM duration) / 3600) || 'h'
    ELSE trunc(extract(epoch FROM duration) / 86400) || 'd'
END;
COMMENT ON FUNCTION cm_internal.short_interval(interval) IS
    'A duration in up to four characters: 3s, 5m, 2h, 4d.';

CREATE FUNCTION cm_internal.short_time(at timestamptz) RETURNS text
LANGUAGE sql STABLE STRICT
RETURN to_char(at, CASE WHEN at < clock_timestamp() + interval '18 h' THEN 'HH24:MI' ELSE 'YYYY-MM-DD' END);
COMMENT ON FUNCTION cm_internal.short_time(timestamptz) IS
    'A time to come: its hour, or its day where that is not today.';

-- With what is preloaded already, where the caller may read that.
CREATE FUNCTION cm_internal.preload_line() RETURNS text
LANGUAGE sql STABLE
RETURN format('shared_preload_libraries = ''%s''',
    CASE
        WHEN NOT pg_has_role('pg_read_all_settings', 'USAGE') THEN '..., container_manager'
        WHEN current_setting('shared_preload_libraries') = '' THEN 'container_manager'
        ELSE current_setting('shared_preload_libraries') || ', container_manager'
    END);
COMMENT ON FUNCTION cm_internal.preload_line() IS
    'The line for postgresql.conf that preloads this library.';

CREATE FUNCTION cm_internal.host_pulses(
    OUT host_id integer, OUT last_checked timestamptz, OUT response_ms double precision,
    OUT failures integer)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'cm_status_read_pulses';
COMMENT ON FUNCTION cm_internal.host_pulses() IS
    'When this database''s executor last looked at its hosts, from shared memory.';

-- An engine says name=userns, name=seccomp,profile=default.
CREATE FUNCTION cm_internal.has_option(options text[], name text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN EXISTS (SELECT FROM unnest(options) o WHERE split_part(o, ',', 1) = 'name=' || name);
COMMENT ON FUNCTION cm_internal.has_option(text[], text) IS
    'Whether an engine has a security option.';

-- Hosts that take no jobs, whoever wants that.
CREATE VIEW cm_internal.drained_hosts AS
SELECT h.id AS host_id,
       CASE WHEN d.host_name IS NULL THEN 'configuration' ELSE d.drained_by END AS drained_by,
       CASE WHEN d.host_name IS NOT NULL THEN d.reason
            WHEN NOT h.is_active THEN 'is_active is false'
            ELSE 'require_userns is set, and its engine has no user namespaces' END AS reason,
       d.drained_at
FROM cm_hosts h
LEFT JOIN cm_internal.host_drains d ON d.host_name = h.name
LEFT JOIN cm_internal.host_states s ON s.host_id = h.id
WHERE d.host_name IS NOT NULL OR NOT h.is_active
   OR (h.executor_config @> '{"require_userns": true}' AND s.live_restore IS NOT NULL
       AND NOT cm_internal.has_option(s.security_options, 'userns')
       AND NOT cm_internal.has_option(s.security_options, 'rootless'));
COMMENT ON VIEW cm_internal.drained_hosts IS
    'Hosts where running jobs end and none start, and who wants that.';

-- Hosts as the executor may use them.  What it saw is only told while it runs.
CREATE VIEW cm_host_status AS
SELECT
    h.name,
    CASE
        WHEN d.host_id IS NOT NULL THEN 'drained'
        WHEN e.phase <> 'at work' THEN 'unknown'
        ELSE coalesce(s.state, 'unknown')
    END AS state,
    h.max_concurrent_jobs AS slots,
    coalesce(u.running, 0) AS running,
    coalesce(u.launching, 0) AS launching,
    coalesce(w.waiting, 0) AS waiting,
    s.cpus,
    s.memory_bytes AS memory,
    h.connection_string AS url,
    s.engine_version,
    s.api_version,
    s.last_seen,
    s.error,
    CASE
        WHEN e.phase = 'on hold' THEN
            'This server is on hold, so this is what was last seen; see cm_status.'
        WHEN e.phase <> 'at work' THEN
            'No executor is running, so this is what was last seen; see cm_status.'
        ELSE coalesce(s.hint, c.hint)
    END AS hint,
    d.drained_by,
    d.reason AS drain_reason,
    d.drained_at,
    s.since,
    CASE WHEN e.phase <> 'at work' THEN 'unknown' ELSE coalesce(s.state, 'unknown') END AS health,
    p.last_checked,
    round(p.response_ms::numeric, 1)::double precision AS response_ms,
    p.failures,
    s.containers_running,
    s.containers_paused,
    s.containers_stopped,
    s.images,
    s.disk_free,
    s.storage_driver,
    s.security_options,
    s.seen_engine_id AS engine_id
FROM cm_hosts h
CROSS JOIN cm_internal.executor_status() e
LEFT JOIN cm_internal.host_states s ON s.host_id = h.id
LEFT JOIN cm_internal.drained_hosts d ON d.host_id = h.id
LEFT JOIN cm_internal.host_pulses() p ON p.host_id = h.id
LEFT JOIN (
    SELECT q.host_id,
           count(*) FILTER (WHERE q.status = 'running') AS running,
           count(*) FILTER (WHERE q.status = 'launching') AS launching
    FROM cm_internal.queue q
    WHERE q.status <> 'pending'
    GROUP BY q.host_id
) u ON u.host_id = h.id
LEFT JOIN (
    SELECT q.placement, count(*) AS waiting
    FROM cm_internal.queue q
    WHERE q.status = 'pending' AND q.is_due AND q.placement > 0
    GROUP BY q.placement
) w ON w.placement = h.id
LEFT JOIN LATERAL (
    SELECT format('Its %s certificate "%s" %s: see cm_certificates.', c.kind, c.subject,
                  CASE c.state WHEN 'expired' THEN 'has expired'
                               ELSE format('expires in %s day(s)', c.days_left) END) AS hint
    FROM cm_certificates c
    WHERE c.host = h.name AND c.state IN ('expiring', 'expired')
    ORDER BY c.not_after
    LIMIT 1
) c ON true
ORDER BY h.name;
COMMENT ON VIEW cm_host_status IS
    'Hosts, one row each: whether they answer, and their load.';
COMMENT ON COLUMN cm_host_status.name IS 'Name of the host.';
COMMENT ON COLUMN cm_host_status.state IS
    'unknown (not seen by a running executor), healthy, unhealthy or drained.';
COMMENT ON COLUMN cm_host_status.slots IS 'How many jobs may be launching or running there at once.';
COMMENT ON COLUMN cm_host_status.running IS 'Jobs that run there.';
COMMENT ON COLUMN cm_host_status.launching IS 'Jobs that are being started there.';
COMMENT ON COLUMN cm_host_status.waiting IS 'Jobs that are due and must run there.';
COMMENT ON COLUMN cm_host_status.cpus IS 'CPUs of the host.';
COMMENT ON COLUMN cm_host_status.memory IS 'Memory of the host in bytes; see pg_size_pretty.';
COMMENT ON COLUMN cm_host_status.url IS 'Connection string.';
COMMENT ON COLUMN cm_host_status.engine_version IS 'Version of the engine.';
COMMENT ON COLUMN cm_host_status.api_version IS 'API version spoken with it.';
COMMENT ON COLUMN cm_host_status.last_seen IS 'When it last answered.';
COMMENT ON COLUMN cm_host_status.error IS 'Why it is unhealthy.';
COMMENT ON COLUMN cm_host_status.hint IS 'What to do about it, or that a certificate expires.';
COMMENT ON COLUMN cm_host_status.drained_by IS 'Who disabled it.';
COMMENT ON COLUMN cm_host_status.drain_reason IS 'Why it was disabled.';
COMMENT ON COLUMN cm_host_status.drained_at IS 'When it was disabled by cm_disable_host.';
COMMENT ON COLUMN cm_host_status.since IS 'Since when its health is what it is.';
COMMENT ON COLUMN cm_host_status.health IS
    'unknown, healthy or unhealthy, whether drained or not.';
COMMENT ON COLUMN cm_host_status.last_checked IS 'When it was last asked.';
COMMENT ON COLUMN cm_host_status.response_ms IS 'How long that answer took; NULL: none came.';
COMMENT ON COLUMN cm_host_status.failures IS 'How often in a row it did not answer.';
COMMENT ON COLUMN cm_host_status.containers_running IS 'Containers that run there, anybody''s.';
COMMENT ON COLUMN cm_host_status.containers_paused IS 'Containers that are paused there.';
COMMENT ON COLUMN cm_host_status.containers_stopped IS 'Containers there that do not run.';
COMMENT ON COLUMN cm_host_status.images IS 'Images there.';
COMMENT ON COLUMN cm_host_status.disk_free IS
    'Bytes free for its data, where it tells (zfs); else NULL.';
COMMENT ON COLUMN cm_host_status.storage_driver IS 'How it stores images and containers.';
COMMENT ON COLUMN cm_host_status.security_options IS 'What it has switched on, as name=seccomp.';
COMMENT ON COLUMN cm_host_status.engine_id IS 'ID of the engine that answered last.';

-- Why a pending job is not started: the one place for that reasoning.  NULL
-- for any other job.  The order is that of what has to change first.
CREATE FUNCTION cm_internal.waiting_reason(job bigint) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    q record;
    hosts record;
    e record;
    why text;
    unsure text;
    pause record;
    n_taken bigint;
BEGIN
    SELECT s.phase INTO e FROM cm_internal.executor_status() s;
    SELECT j.epoch <> i.epoch AS is_copy, j.placement_strategy, j.memory_limit, j.cpu_limit,
           cm_internal.labels_as_text(j.host_labels) AS labels, k.placement, k.run_at, k.cancel_requested_by,
           j.namespace, j.template, k.concurrency_key, k.concurrency_limit, k.waits_for,
           a.failure_reason AS tried
    INTO q
    FROM @extschema@.cm_jobs j
    CROSS JOIN cm_internal.current_identity i
    LEFT JOIN cm_internal.queue k ON k.job_id = j.id
    LEFT JOIN @extschema@.cm_job_attempts a ON a.job_id = j.id AND a.attempt = k.attempt
    WHERE j.id = waiting_reason.job AND j.status = 'pending';

    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF q.is_copy THEN
        RETURN 'copy from another database';
    ELSIF q.placement IS NULL THEN
        RETURN 'not in the queue';
    ELSIF q.cancel_requested_by IS NOT NULL THEN
        RETURN 'cancelling';
    ELSIF q.waits_for > 0 THEN
        RETURN cm_internal.describe_dependencies(waiting_reason.job);
    ELSIF q.run_at > clock_timestamp() AND q.tried IS NOT NULL THEN
        RETURN format('retry %s (%s)', cm_internal.short_time(q.run_at), q.tried);
    ELSIF q.run_at > clock_timestamp() THEN
        RETURN format('not due (until %s)', cm_internal.short_time(q.run_at));
    ELSIF e.phase = 'on hold' THEN
        RETURN 'held: see cm_status';
    ELSIF e.phase <> 'at work' THEN
        RETURN 'no executor running';
    END IF;

    SELECT concat(CASE WHEN p.template IS NOT NULL THEN 'template '
                       WHEN p.namespace IS NOT NULL THEN 'namespace ' END, 'paused: ', p.reason) AS why
    INTO pause
    FROM cm_internal.pauses p
    WHERE (p.namespace IS NULL OR p.namespace = q.namespace)
      AND (p.template IS NULL OR p.template = q.template)
    ORDER BY p.namespace NULLS FIRST, p.template NULLS FIRST
    LIMIT 1;
    IF FOUND THEN
        RETURN pause.why;
    END IF;
    IF q.concurrency_key IS NOT NULL THEN
        SELECT count(*) INTO n_taken
        FROM cm_internal.queue k
        WHERE k.concurrency_key = q.concurrency_key AND k.concurrency_key IS NOT NULL
          AND k.status <> 'pending';
        IF n_taken >= q.concurrency_limit THEN
            RETURN format('key "%s" in use (%s of %s)', q.concurrency_key[2], n_taken, q.concurrency_limit);
        END IF;
    END IF;

    SELECT count(*) AS n,
           min(c.name) AS name,
           count(*) FILTER (WHERE c.state = 'lacking') AS lacking,
           count(*) FILTER (WHERE c.state = 'drained') AS drained,
           count(*) FILTER (WHERE c.state = 'unhealthy') AS unhealthy,
           count(*) FILTER (WHERE c.state = 'unknown') AS unknown,
           count(*) FILTER (WHERE c.state = 'full') AS busy,
           count(*) FILTER (WHERE c.state = 'short') AS short,
           min(c.used) AS used,
           min(c.slots) AS slots,
           CASE WHEN min(c.lacks) = max(c.lacks) THEN min(c.lacks)
                ELSE (SELECT string_agg(l.key || '=' || l.value, ' ' ORDER BY l.key)
                      FROM jsonb_each_text(q.labels) l) END AS lacks,
           CASE WHEN bool_or(c.state = 'short' AND c.is_memory_short) THEN 'memory' ELSE 'CPUs' END AS short_of
    INTO hosts
    FROM (
        SELECT h.name, h.max_concurrent_jobs AS slots, coalesce(u.used, 0) AS used, l.lacks,
               r.is_memory_short,
               CASE WHEN l.lacks IS NOT NULL THEN 'lacking'
                    WHEN d.host_id IS NOT NULL THEN 'drained'
                    WHEN s.state IS DISTINCT FROM 'healthy' THEN coalesce(s.state, 'unknown')
                    WHEN coalesce(u.used, 0) >= h.max_concurrent_jobs THEN 'full'
                    WHEN q.placement < -1 AND q.placement_strategy = 'resources'
                         AND (r.is_memory_short OR r.are_cpus_short) THEN 'short'
                    ELSE 'free' END AS state
        FROM @extschema@.cm_hosts h
        LEFT JOIN cm_internal.drained_hosts d ON d.host_id = h.id
        LEFT JOIN cm_internal.host_states s ON s.host_id = h.id
        LEFT JOIN (
            SELECT k.host_id, count(*) AS used
            FROM cm_internal.queue k
            WHERE k.status <> 'pending'
            GROUP BY k.host_id
        ) u ON u.host_id = h.id
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(j.memory_limit), 0) + q.memory_limit > s.memory_bytes / 1048576 AS is_memory_short,
                   coalesce(sum(j.cpu_limit), 0) + q.cpu_limit > s.cpus AS are_cpus_short
            FROM cm_internal.queue k
            JOIN @extschema@.cm_jobs j ON j.id = k.job_id
            WHERE k.status <> 'pending' AND k.host_id = h.id
              AND q.placement < -1 AND q.placement_strategy = 'resources'
        ) r
        CROSS JOIN LATERAL (
            SELECT string_agg(w.key || '=' || w.value, ' ' ORDER BY w.key) AS lacks
            FROM jsonb_each_text(q.labels) w
            WHERE q.placement < -1 AND w.value IS DISTINCT FROM h.labels ->> w.key
        ) l
        WHERE q.placement <= 0 OR q.placement = h.id
    ) c
    WHERE q.placement <> -1;
    why := cm_internal.describe_hosts(q.placement > 0 OR q.placement = -1, hosts.n, hosts.name, hosts.lacking,
        hosts.lacks, hosts.drained, hosts.unhealthy, hosts.unknown, hosts.busy, hosts.short, hosts.short_of,
        hosts.used, hosts.slots);
    IF why = 'about to be started' AND q.placement <= 0 AND waiting_reason.job <=
            (SELECT i.old_jobs_up_to FROM cm_internal.identity i) THEN
        SELECT format('may have begun on "%s"', h.name) INTO unsure
        FROM @extschema@.cm_hosts h
        LEFT JOIN cm_internal.host_states s ON s.host_id = h.id
        WHERE s.state IS DISTINCT FROM 'healthy'
        ORDER BY h.name LIMIT 1;
    END IF;
    RETURN coalesce(unsure, why);
END
$$;
COMMENT ON FUNCTION cm_internal.waiting_reason(bigint) IS
    'Why a pending job is not started, in some 30 characters.';

CREATE FUNCTION cm_internal.describe_dependencies(job bigint) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('waits for %s %s: %s%s', d.n, CASE d.n WHEN 1 THEN 'job' ELSE 'jobs' END,
                  array_to_string(d.first, ', '), CASE WHEN d.n > 3 THEN ', ...' ELSE '' END)
    FROM (SELECT (SELECT count(*) FROM cm_internal.dependencies c WHERE c.job_id = job) AS n,
                 ARRAY(SELECT c.depends_on FROM cm_internal.dependencies c
                       WHERE c.job_id = job ORDER BY c.depends_on LIMIT 3) AS first) d
$$;
COMMENT ON FUNCTION cm_internal.describe_dependencies(bigint) IS
    'Which jobs a job waits for; the first three of them.';

-- One host is named, several are counted.
CREATE FUNCTION cm_internal.describe_hosts(
    is_pinned boolean, n bigint, name text, lacking bigint, label text, drained bigint, unhealthy bigint,
    not_seen bigint, busy bigint, short bigint, short_of text, used bigint, slots integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN n = 0 AND is_pinned THEN 'its host was removed'
    WHEN n = 0 THEN 'no hosts defined'
    WHEN lacking + drained + unhealthy + not_seen + busy + short < n THEN 'about to be started'
    WHEN n = 1 AND lacking = 1 THEN format('host "%s" lacks label %s', name, label)
    WHEN n = 1 AND drained = 1 THEN format('host "%s" drained', name)
    WHEN n = 1 AND unhealthy = 1 THEN format('host "%s" unhealthy', name)
    WHEN n = 1 AND not_seen = 1 THEN format('host "%s" not seen yet', name)
    WHEN n = 1 AND short = 1 THEN format('host "%s" short of %s', name, short_of)
    WHEN n = 1 THEN format('host "%s" full (%s of %s)', name, used, slots)
    WHEN lacking = n THEN 'no host has label ' || label
    WHEN drained = n THEN 'all hosts drained'
    WHEN unhealthy = n THEN 'all hosts unhealthy'
    WHEN not_seen = n THEN 'no host seen yet'
    WHEN busy = n THEN 'all hosts full'
    WHEN short = n THEN 'all hosts short of ' || short_of
    ELSE concat_ws(', ',
        CASE WHEN busy > 0 THEN format('%s %s full', busy, CASE busy WHEN 1 THEN 'host' ELSE 'hosts' END) END,
        nullif(short, 0) || ' short of ' || short_of,
        nullif(unhealthy, 0) || ' unhealthy',
        nullif(not_seen, 0) || ' not seen yet',
        nullif(drained, 0) || ' drained',
        CASE WHEN lacking > 0 THEN
            format('%s %s label %s', lacking, CASE lacking WHEN 1 THEN 'lacks' ELSE 'lack' END, label) END)
END;
COMMENT ON FUNCTION cm_internal.describe_hosts(boolean, bigint, text, bigint, text, bigint, bigint, bigint,
    bigint, bigint, text, bigint, integer) IS
    'Why none of the hosts takes a job, from counts.';

-- The first pending jobs in the order in which they will be claimed.  Each
-- placement is a run of its own in queue_ready, so the runs' heads are taken
-- one by one: a million waiting jobs cost no more than a hundred.
CREATE VIEW cm_internal.first_pending AS
WITH RECURSIVE placements AS (
    (SELECT q.placement FROM cm_internal.queue q
     WHERE q.status = 'pending' AND q.is_ready
     ORDER BY q.placement LIMIT 1)
    UNION ALL
    SELECT (SELECT q.placement FROM cm_internal.queue q
            WHERE q.status = 'pending' AND q.is_ready AND q.placement > p.placement
            ORDER BY q.placement LIMIT 1)
    FROM placements p
    WHERE p.placement IS NOT NULL
),
ready AS (
    SELECT q.job_id, q.priority, q.run_at
    FROM placements p
    CROSS JOIN LATERAL (
        SELECT k.job_id, k.priority, k.run_at
        FROM cm_internal.queue k
        WHERE k.status = 'pending' AND k.is_ready AND k.placement = p.placement
        ORDER BY k.priority DESC, k.run_at, k.job_id
        LIMIT 100
    ) q
    ORDER BY q.priority DESC, q.run_at, q.job_id
    LIMIT 100
),
-- Not to be started, though their time has come: they wait for other jobs, or are
-- paused.
waiting AS (
    SELECT q.job_id
    FROM cm_internal.queue q
    WHERE q.status = 'pending' AND q.is_due AND NOT q.is_ready
    ORDER BY q.job_id
    LIMIT 100
),
later AS (
    SELECT q.job_id, q.run_at
    FROM cm_internal.queue q
    WHERE NOT q.is_due
    ORDER BY q.run_at
    LIMIT 100
)
SELECT a.job_id, row_number() OVER (ORDER BY a.part, a.priority DESC, a.run_at, a.job_id) AS position
FROM (
    SELECT 1 AS part, r.job_id, r.priority, r.run_at FROM ready r
    UNION ALL
    SELECT 2, w.job_id, 0, NULL FROM waiting w
    UNION ALL
    SELECT 3, l.job_id, 0, l.run_at FROM later l
) a
ORDER BY position
LIMIT 100;
COMMENT ON VIEW cm_internal.first_pending IS
    'The first 100 pending jobs, in the order of claims; those that may not be started yet come last.';

-- Unfinished jobs that came along with a copy of another database.  Two ranges,
-- since an index has no use for <>.
CREATE VIEW cm_internal.inert_jobs AS
SELECT j.id
FROM cm_internal.current_identity i
JOIN cm_jobs j ON (j.epoch < i.epoch OR j.epoch > i.epoch) AND j.completed_at IS NULL;
COMMENT ON VIEW cm_internal.inert_jobs IS
    'Unfinished jobs of another database, which came with a restore or a copy and do not run here.';

CREATE VIEW cm_ps AS
WITH shown AS (
    SELECT q.job_id, CASE q.status WHEN 'running' THEN 1 ELSE 2 END AS part, q.job_id AS position
    FROM cm_internal.queue q
    WHERE q.status <> 'pending'
    UNION ALL
    SELECT f.job_id, 3, f.position
    FROM cm_internal.first_pending f
    UNION ALL
    (SELECT i.id, 5, i.id FROM cm_internal.inert_jobs i ORDER BY i.id LIMIT 100)
    UNION ALL
    (SELECT j.id, 4, row_number() OVER (ORDER BY j.completed_at DESC, j.id DESC)
     FROM cm_jobs j
     WHERE j.completed_at > now() - interval '1 h'
     ORDER BY j.completed_at DESC, j.id DESC
     LIMIT 20)
)
SELECT
    j.id,
    CASE WHEN length(j.namespace) > 8 THEN left(j.namespace, 7) || '~' ELSE j.namespace END AS namespace,
    CASE WHEN length(j.name) > 12 THEN left(j.name, 11) || '~' ELSE j.name END AS name,
    CASE WHEN length(i.image) > 16 THEN left(i.image, 15) || '~' ELSE i.image END AS image,
    j.status AS state,
    CASE WHEN length(w.why) > 28 THEN left(w.why, 27) || '~' ELSE w.why END AS why,
    CASE WHEN length(h.host) > 8 THEN left(h.host, 7) || '~' ELSE h.host END AS host,
    format('%s/%s', j.attempt, j.max_attempts) AS att,
    j.exit_code AS exit,
    cm_internal.short_interval(clock_timestamp() - j.created_at) AS age,
    cm_internal.short_interval(coalesce(j.completed_at, CASE WHEN s.part < 5 THEN clock_timestamp() END)
        - j.started_at) AS took
FROM shown s
JOIN cm_jobs j ON j.id = s.job_id
LEFT JOIN cm_internal.queue q ON q.job_id = s.job_id
CROSS JOIN LATERAL (SELECT cm_internal.short_image(j.image) AS image) i
CROSS JOIN LATERAL (SELECT coalesce(j.host, j.requested_host) AS host) h
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN s.part = 3 THEN cm_internal.waiting_reason(j.id)
        WHEN s.part = 4 THEN j.failure_reason
        WHEN s.part = 5 THEN 'copy from another database'
        WHEN q.cancel_requested_by IS NOT NULL THEN 'cancelling'
        ELSE j.detail
    END AS why
    OFFSET 0
) w
ORDER BY s.part, s.position;
COMMENT ON VIEW cm_ps IS
    'Unfinished jobs and those that ended lately, for \watch. Of the pending ones the first 100 in the order of claims: cm_queue_status counts them all; then the last 20 that ended within the hour, and what a copy of another database brought along.';
COMMENT ON COLUMN cm_ps.id IS 'Number of the job.';
COMMENT ON COLUMN cm_ps.namespace IS 'Namespace; ~ stands for what was cut off.';
COMMENT ON COLUMN cm_ps.name IS 'Name of the job; ~ stands for what was cut off.';
COMMENT ON COLUMN cm_ps.image IS 'Image, in short.';
COMMENT ON COLUMN cm_ps.state IS 'Status of the job.';
COMMENT ON COLUMN cm_ps.why IS 'Why it waits or failed, or what it is doing; cm_job_explain tells more.';
COMMENT ON COLUMN cm_ps.host IS 'Host where it runs or ran, or must run.';
COMMENT ON COLUMN cm_ps.att IS 'Attempt, and how many there may be.';
COMMENT ON COLUMN cm_ps.exit IS 'Exit code.';
COMMENT ON COLUMN cm_ps.age IS 'Time since it was submitted.';
COMMENT ON COLUMN cm_ps.took IS 'How long it ran, or has been running.';

CREATE VIEW cm_queue_status AS
SELECT
    coalesce(h.name, CASE g.host_id WHEN 0 THEN 'any' ELSE '(removed)' END) AS host,
    g.status,
    g.jobs,
    g.due,
    g.oldest_run_at,
    g.next_run_at
FROM (
    SELECT coalesce(q.host_id, CASE WHEN q.placement < -1 THEN 0 ELSE q.placement END) AS host_id,
           q.status,
           count(*) AS jobs,
           count(*) FILTER (WHERE q.run_at <= now()) AS due,
           min(q.run_at) FILTER (WHERE q.run_at <= now()) AS oldest_run_at,
           min(q.run_at) FILTER (WHERE q.run_at > now()) AS next_run_at
    FROM cm_internal.queue q
    GROUP BY 1, 2
) g
LEFT JOIN cm_hosts h ON h.id = g.host_id
ORDER BY g.host_id <> 0, 1, array_position(ARRAY['running', 'launching', 'pending'], g.status);
COMMENT ON VIEW cm_queue_status IS
    'Unfinished jobs, counted by host and status.';
COMMENT ON COLUMN cm_queue_status.host IS 'Host where they are or must run; any: the executor chooses.';
COMMENT ON COLUMN cm_queue_status.status IS 'pending, launching or running.';
COMMENT ON COLUMN cm_queue_status.jobs IS 'How many jobs.';
COMMENT ON COLUMN cm_queue_status.due IS 'How many of them are due.';
COMMENT ON COLUMN cm_queue_status.oldest_run_at IS 'Since when the first of them is due.';
COMMENT ON COLUMN cm_queue_status.next_run_at IS 'When the next of them becomes due.';

CREATE VIEW cm_job_summary AS
SELECT
    j.namespace,
    cm_internal.short_image(j.image) AS image,
    count(*) AS jobs,
    count(*) FILTER (WHERE j.status = 'completed') AS completed,
    count(*) FILTER (WHERE j.status = 'failed') AS failed,
    count(*) FILTER (WHERE j.status = 'timeout') AS timeout,
    count(*) FILTER (WHERE j.status = 'cancelled') AS cancelled,
    mode() WITHIN GROUP (ORDER BY j.failure_reason)
        FILTER (WHERE j.status = 'failed') AS main_failure,
    round(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM j.completed_at - j.started_at)::float8)::numeric, 1) AS p50_seconds,
    round(percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM j.completed_at - j.started_at)::float8)::numeric, 1) AS p95_seconds,
    round(percentile_cont(0.95) WITHIN GROUP (ORDER BY greatest(extract(epoch FROM j.started_at - greatest(j.created_at, j.run_at)), 0)::float8)::numeric, 1) AS p95_wait_seconds,
    max(j.completed_at) AS last_completed_at
FROM cm_jobs j
WHERE j.completed_at > now() - interval '24 h'
GROUP BY 1, 2
ORDER BY jobs DESC, 1, 2;
COMMENT ON VIEW cm_job_summary IS
    'The last 24 hours by namespace and image.';
COMMENT ON COLUMN cm_job_summary.namespace IS 'Namespace.';
COMMENT ON COLUMN cm_job_summary.image IS 'Image, in short.';
COMMENT ON COLUMN cm_job_summary.jobs IS 'Jobs that ended.';
COMMENT ON COLUMN cm_job_summary.completed IS 'Those that completed.';
COMMENT ON COLUMN cm_job_summary.failed IS 'Those that failed.';
COMMENT ON COLUMN cm_job_summary.timeout IS 'Those that ran too long.';
COMMENT ON COLUMN cm_job_summary.cancelled IS 'Those that were cancelled.';
COMMENT ON COLUMN cm_job_summary.main_failure IS 'The most frequent failure_reason of those that failed.';
COMMENT ON COLUMN cm_job_summary.p50_seconds IS 'Run time that half of them stayed below.';
COMMENT ON COLUMN cm_job_summary.p95_seconds IS 'Run time that 95 % of them stayed below.';
COMMENT ON COLUMN cm_job_summary.p95_wait_seconds IS 'Time from being due to running that 95 % of them stayed below.';
COMMENT ON COLUMN cm_job_summary.last_completed_at IS 'When the last of them ended.';

-- A view, unlike a function's text, follows when the schema is renamed.
CREATE VIEW cm_internal.host_counts AS
SELECT count(*) AS hosts,
       count(*) FILTER (WHERE d.host_id IS NULL AND s.state = 'healthy') AS healthy
FROM cm_hosts h
LEFT JOIN cm_internal.host_states s ON s.host_id = h.id
LEFT JOIN cm_internal.drained_hosts d ON d.host_id = h.id;
COMMENT ON VIEW cm_internal.host_counts IS 'How many hosts there are, and how many can be used.';

-- What cm_status counts.  Whoever asks why nothing moves must be answered though
-- somebody has locked these very tables: then there are no numbers.
CREATE FUNCTION cm_internal.count_work(
    OUT pending bigint, OUT launching bigint, OUT running bigint, OUT oldest_pending_at timestamptz,
    OUT hosts bigint, OUT healthy bigint, OUT copies bigint,
    OUT held_because text, OUT held_since timestamptz, OUT seen_on text,
    OUT paused text, OUT is_all_paused boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
BEGIN
    SELECT count(*) FILTER (WHERE q.status = 'pending'),
           count(*) FILTER (WHERE q.status = 'launching'),
           count(*) FILTER (WHERE q.status = 'running'),
           min(q.run_at) FILTER (WHERE q.status = 'pending' AND q.run_at <= now())
    INTO pending, launching, running, oldest_pending_at
    FROM cm_internal.queue q;
    SELECT c.hosts, c.healthy INTO hosts, healthy FROM cm_internal.host_counts c;
    SELECT count(*) INTO copies FROM cm_internal.inert_jobs;
    SELECT i.held_because, i.held_since, i.seen_on INTO held_because, held_since, seen_on
    FROM cm_internal.identity i;
    SELECT string_agg(format('%s by %s since %s: %s',
               CASE WHEN p.namespace IS NULL AND p.template IS NULL THEN 'all jobs'
                    ELSE concat_ws(' in ', 'template "' || p.template || '"', 'namespace "' || p.namespace || '"') END,
               p.paused_by, date_trunc('second', p.paused_at), p.reason), '; '
               ORDER BY p.namespace NULLS FIRST, p.template NULLS FIRST),
           coalesce(bool_or(p.namespace IS NULL AND p.template IS NULL), false)
    INTO paused, is_all_paused
    FROM cm_internal.pauses p;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END
$$;
COMMENT ON FUNCTION cm_internal.count_work() IS
    'Counts for cm_status, and why it is on hold. NULL where somebody has locked the tables.';

CREATE VIEW cm_status AS
WITH facts AS (
    SELECT e.*,
           CASE
               WHEN e.in_recovery THEN 'standby'
               WHEN e.phase = 'at work' THEN 'running'
               WHEN e.phase = 'on hold' THEN 'held'
               WHEN NOT e.is_enabled THEN 'disabled'
               WHEN e.phase = 'held' THEN 'stepped aside'
               WHEN e.phase IN ('starting', 'crashed', 'no worker slot', 'stopped') THEN e.phase
               WHEN NOT e.is_preloaded THEN 'not preloaded'
               ELSE 'not started'
           END AS state
    FROM cm_internal.executor_status() e
)
SELECT
    f.state = 'running' AS is_running,
    f.state,
    CASE f.state
        WHEN 'standby' THEN
            'This server is a standby: jobs run on the primary, and here after promotion.'
        WHEN 'held' THEN
            'On hold since ' || coalesce(date_trunc('second', c.held_since)::text, 'its start') || ': '
            || CASE c.held_because
                WHEN 'copied' THEN
                    'this server''s files are a copy (a clone, a restored backup), or were moved to another file system.'
                WHEN 'recovered' THEN
                    'this server was recovered to an earlier point in time.'
                WHEN 'superseded' THEN
                    format('another server has taken over the jobs, as a mark on host "%s" says.', c.seen_on)
                ELSE 'why is not known while cm_internal.identity is locked.' END
            || ' Nothing is started, stopped or removed on any host.'
        WHEN 'disabled' THEN
            'The executor is switched off for this database: container_manager.enabled is off.'
        WHEN 'stepped aside' THEN
            'The executor stepped aside for a command such as DROP DATABASE or CREATE DATABASE ... TEMPLATE, and comes back when that ends.'
        WHEN 'stopped' THEN
            'The executor was sent away by cm_stop_executor() and stays away until it is started or the server restarts.'
        WHEN 'starting' THEN
            'The executor was started and is not at work yet.'
        WHEN 'crashed' THEN CASE
            WHEN f.is_preloaded THEN
                'The executor ended by an error; the launcher starts it again, less often each time.'
            ELSE 'The executor ended, and nobody starts it again: the library is not in shared_preload_libraries.' END
        WHEN 'no worker slot' THEN
            format('No executor could be started: all background workers are in use (max_worker_processes = %s).',
                   current_setting('max_worker_processes'))
        WHEN 'not preloaded' THEN
            'No executor runs: the library is not in shared_preload_libraries, so the server starts none by itself.'
        WHEN 'not started' THEN CASE
            WHEN f.has_launcher THEN 'No executor has been started for this database.'
            ELSE 'No executor runs, and the launcher, which starts them, does not run either.' END
        ELSE CASE
            WHEN f.blocked_on IS NOT NULL THEN
                format('The executor runs, but waits for a lock on %s that another session holds.', f.blocked_on)
            WHEN f.last_turn_at < clock_timestamp() - interval '3 min' THEN
                format('The executor runs, but has done nothing for %s.',
                       cm_internal.short_interval(clock_timestamp() - f.last_turn_at))
            WHEN c.hosts = 0 THEN 'The executor runs; there is no host yet that could run jobs.'
            WHEN c.healthy = 0 THEN 'The executor runs, but no host can be used.'
            WHEN c.is_all_paused THEN 'The executor runs, but starts no job: paused.'
            ELSE 'The executor runs.' END
    END
    || coalesce(' Paused: ' || c.paused || '.', '')
    || CASE WHEN c.copies > 0 THEN
           format(' %s unfinished %s came as a copy from another database and will not run here; cm_adopt_restored_jobs() has them run.',
                  c.copies, CASE c.copies WHEN 1 THEN 'job' ELSE 'jobs' END)
       ELSE '' END AS explanation,
    CASE f.state
        WHEN 'standby' THEN NULL
        WHEN 'held' THEN CASE c.held_because
            WHEN 'copied' THEN
                'If the original still runs, leave this as it is, or CREATE DATABASE ... TEMPLATE of this one for a copy with jobs of its own. If this server replaces it: stop the original, then SELECT cm_take_over();'
            WHEN 'recovered' THEN
                'What was started after that point is not known here and may run again. To go on, SELECT cm_take_over();'
            WHEN 'superseded' THEN
                'Stop this server, or make it a standby of the other one. If this one is to have the jobs: stop the other, then SELECT cm_take_over();'
            END
        WHEN 'disabled' THEN
            format('ALTER DATABASE %I SET container_manager.enabled = on; then SELECT cm_start_executor(); in a new session.',
                   current_database())
        WHEN 'stepped aside' THEN NULL
        WHEN 'stopped' THEN 'SELECT cm_start_executor();'
        WHEN 'starting' THEN NULL
        WHEN 'crashed' THEN CASE
            WHEN f.is_preloaded THEN 'See last_error and the server''s log.'
            ELSE format('SELECT cm_start_executor(); starts another. The server''s log says why this one ended. With %s in postgresql.conf and a restart of the server it is done by itself.',
                        cm_internal.preload_line()) END
        WHEN 'no worker slot' THEN
            format('Put max_worker_processes = %s into postgresql.conf and restart the server.',
                   current_setting('max_worker_processes')::integer + 8)
        WHEN 'not preloaded' THEN
            format('Put %s into postgresql.conf and restart the server; until then, SELECT cm_start_executor(); runs one.',
                   cm_internal.preload_line())
        WHEN 'not started' THEN CASE
            WHEN f.has_launcher THEN 'SELECT cm_start_executor();'
            ELSE 'See the server''s log for the end of the container_manager launcher; SELECT cm_start_executor(); runs an executor without it.' END
        ELSE CASE
            WHEN f.blocked_on IS NOT NULL THEN
                format('Let that session end its transaction, or SELECT pg_terminate_backend(%s);',
                       coalesce(f.blocked_by[1]::text, 'pid'))
            WHEN f.last_turn_at < clock_timestamp() - interval '3 min' THEN
                format('See pg_stat_activity for pid %s, and the server''s log.', f.executor_pid)
            WHEN c.hosts = 0 THEN
                'SELECT cm_add_host(''local'', ''unix:///var/run/docker.sock'');'
            WHEN c.healthy = 0 THEN 'See error and hint in cm_host_status.'
            WHEN c.is_all_paused THEN 'SELECT cm_resume();'
            WHEN c.paused IS NOT NULL THEN 'SELECT cm_resume(namespace => ..., template => ...); as it was paused.'
            WHEN NOT f.is_preloaded THEN
                format('It will not run after a restart of the server unless you put %s into postgresql.conf.',
                       cm_internal.preload_line()) END
    END AS advice,
    f.executor_pid,
    f.started_at,
    f.last_turn_at,
    f.last_error,
    f.last_error_at,
    c.pending,
    c.launching,
    c.running,
    c.oldest_pending_at,
    c.hosts,
    CASE WHEN f.state = 'running' THEN c.healthy ELSE 0 END AS healthy_hosts,
    f.blocked_on,
    f.blocked_by,
    f.transactions,
    f.polls,
    f.wakeups,
    c.paused,
    (SELECT x.extversion FROM pg_extension x WHERE x.extname = 'container_manager') AS version
FROM facts f, cm_internal.count_work() c;
COMMENT ON VIEW cm_status IS
    'One row: does it run, and if not, why and what to do. Counts all unfinished jobs.';
COMMENT ON COLUMN cm_status.is_running IS 'Whether this database''s executor is at work.';
COMMENT ON COLUMN cm_status.state IS
    'running, starting, held, not preloaded, disabled, standby, stepped aside, stopped, no worker slot, crashed or not started.';
COMMENT ON COLUMN cm_status.explanation IS 'The state in a sentence.';
COMMENT ON COLUMN cm_status.advice IS 'What to do; NULL when all is well.';
COMMENT ON COLUMN cm_status.executor_pid IS 'Process of the executor.';
COMMENT ON COLUMN cm_status.started_at IS 'When it was started.';
COMMENT ON COLUMN cm_status.last_turn_at IS 'When its loop last turned.';
COMMENT ON COLUMN cm_status.last_error IS 'The last error that it met.';
COMMENT ON COLUMN cm_status.last_error_at IS 'When that was.';
COMMENT ON COLUMN cm_status.pending IS 'Jobs that wait to be started, those not due included.';
COMMENT ON COLUMN cm_status.launching IS 'Jobs that are being started.';
COMMENT ON COLUMN cm_status.running IS 'Jobs that run.';
COMMENT ON COLUMN cm_status.oldest_pending_at IS 'Since when the first pending job is due.';
COMMENT ON COLUMN cm_status.hosts IS 'Hosts in cm_hosts.';
COMMENT ON COLUMN cm_status.healthy_hosts IS 'Those that answer and may take jobs; 0 while no executor runs.';
COMMENT ON COLUMN cm_status.blocked_on IS 'Table that the executor could not lock.';
COMMENT ON COLUMN cm_status.blocked_by IS 'Processes that keep it from that.';
COMMENT ON COLUMN cm_status.transactions IS 'Transactions of this executor so far.';
COMMENT ON COLUMN cm_status.polls IS 'Those that only looked for work.';
COMMENT ON COLUMN cm_status.wakeups IS 'How often it was woken.';
COMMENT ON COLUMN cm_status.paused IS
    'What is paused: by whom, since when and why; NULL: nothing.';
COMMENT ON COLUMN cm_status.version IS 'Installed version of the extension.';

REVOKE ALL ON FUNCTION
    cm_internal.executor_status(),
    cm_internal.host_pulses(),
    cm_internal.has_option(text[], text),
    cm_internal.short_image(text),
    cm_internal.short_interval(interval),
    cm_internal.short_time(timestamptz),
    cm_internal.preload_line(),
    cm_internal.waiting_reason(bigint),
    cm_internal.describe_dependencies(bigint),
    cm_internal.describe_hosts(boolean, bigint, text, bigint, text, bigint, bigint, bigint, bigint, bigint,
        text, bigint, integer),
    cm_internal.count_work()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    cm_internal.executor_status(),
    cm_internal.host_pulses(),
    cm_internal.has_option(text[], text),
    cm_internal.short_image(text),
    cm_internal.short_interval(interval),
    cm_internal.preload_line(),
    cm_internal.waiting_reason(bigint),
    cm_internal.count_work()
TO PUBLIC;
REVOKE ALL ON
    cm_ps,
    cm_status,
    cm_host_status,
    cm_queue_status,
    cm_job_summary,
    cm_internal.first_pending,
    cm_internal.inert_jobs,
    cm_internal.host_counts,
    cm_internal.drained_hosts
FROM PUBLIC;
