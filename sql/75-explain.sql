-- One job in words: why it is as it is, and what to do.  The two public
-- functions run with the owner's rights: EXECUTE is the right to grant.

CREATE FUNCTION cm_internal.duration_in_words(duration interval) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE
    WHEN extract(epoch FROM duration) < 0 THEN '0 s'
    WHEN extract(epoch FROM duration) < 60 THEN round(extract(epoch FROM duration), 1) || ' s'
    WHEN extract(epoch FROM duration) < 3600 THEN
        trunc(extract(epoch FROM duration) / 60) || ' min ' || trunc(extract(epoch FROM duration) % 60) || ' s'
    WHEN extract(epoch FROM duration) < 86400 THEN
        trunc(extract(epoch FROM duration) / 3600) || ' h ' || trunc(extract(epoch FROM duration) / 60 % 60) || ' min'
    ELSE
        trunc(extract(epoch FROM duration) / 86400) || ' d ' || trunc(extract(epoch FROM duration) / 3600 % 24) || ' h'
END;
COMMENT ON FUNCTION cm_internal.duration_in_words(interval) IS 'A duration as people say it.';

CREATE FUNCTION cm_internal.explain_exit_code(exit_code integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN exit_code IS NULL THEN 'It failed; no exit code is known.'
    WHEN exit_code = 0 THEN 'It ended with exit code 0, which is not among its success_exit_codes.'
    WHEN exit_code = 126 THEN
        'It ended with exit code 126: by convention, the command was found but could not be executed.'
    WHEN exit_code = 127 THEN
        'It ended with exit code 127: by convention, the command or something that it calls was not found.'
    WHEN exit_code = 137 THEN
        'It ended with exit code 137: SIGKILL. The engine reported neither an out-of-memory kill nor a kill from outside.'
    WHEN exit_code BETWEEN 129 AND 192 THEN
        format('It ended with exit code %s: signal %s%s.', exit_code, exit_code - 128,
               CASE exit_code
                   WHEN 129 THEN ', SIGHUP'
                   WHEN 130 THEN ', SIGINT'
                   WHEN 131 THEN ', SIGQUIT'
                   WHEN 132 THEN ', SIGILL (illegal instruction)'
                   WHEN 134 THEN ', SIGABRT (it gave up by itself)'
                   WHEN 135 THEN ', SIGBUS'
                   WHEN 136 THEN ', SIGFPE (arithmetic error)'
                   WHEN 139 THEN ', SIGSEGV (it crashed on bad memory access)'
                   WHEN 141 THEN ', SIGPIPE (it wrote to a closed pipe)'
                   WHEN 143 THEN ', SIGTERM (it was asked to end, not by us)'
                   WHEN 152 THEN ', SIGXCPU'
                   WHEN 153 THEN ', SIGXFSZ (file too large)'
                   WHEN 159 THEN ', SIGSYS (a forbidden system call)'
                   ELSE '' END)
    ELSE format('It ended with exit code %s, which is the program''s own way of saying that it failed.', exit_code)
END;
COMMENT ON FUNCTION cm_internal.explain_exit_code(integer) IS
    'What the exit code of a job that failed says.';

CREATE FUNCTION cm_internal.advise_exit_code(j @extschema@.cm_jobs) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE j.exit_code
    WHEN 126 THEN
        format('The file must be executable by user %s and made for the host''s kind of CPU; a script needs its interpreter in the image. cm_job_stderr(%s) names it.', j.run_as, j.id)
    WHEN 127 THEN
        format('Check its spelling and that the image has it: cm_job_stderr(%s) names it. The parameter command needs /bin/sh in the image; args and entrypoint do not.', j.id)
    WHEN 132 THEN 'The program may be built for a newer CPU than the host has.'
    WHEN 137 THEN
        format('Perhaps it was out of memory all the same: try a memory_limit above %s. Else a process in the container killed it.', j.memory_limit)
    WHEN 139 THEN 'That is an error of the program, or of libraries in the image that do not fit it.'
    WHEN 143 THEN 'A process in the container sent it, or the engine''s host was shut down.'
    ELSE format('Read what it said: SELECT * FROM cm_job_logs(%s);', j.id)
END;
COMMENT ON FUNCTION cm_internal.advise_exit_code(@extschema@.cm_jobs) IS
    'What to do about the exit code of a job that failed.';

-- {"network_name": "app", "aliases": ["api"]} is shown as app.
CREATE FUNCTION cm_internal.name_networks(networks jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce((SELECT string_agg(coalesce(n.network ->> 'network_name', n.network #>> '{}'), ', ' ORDER BY n.position)
    FROM jsonb_array_elements(networks) WITH ORDINALITY n (network, position)), 'none');
COMMENT ON FUNCTION cm_internal.name_networks(jsonb) IS 'The names of a job''s networks.';

-- Well-known words at the end of a failed job's output, which tell more than
-- its exit code.
CREATE FUNCTION cm_internal.advise_from_output(j @extschema@.cm_jobs) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH output AS (
        SELECT lower(encode(c.bytes, 'escape')) AS words
        FROM (VALUES (2), (1)) s (stream)
        CROSS JOIN LATERAL (
            SELECT substring(k.bytes FROM greatest(1, octet_length(k.bytes) - 65535)) AS bytes
            FROM cm_internal.log_chunks k
            WHERE k.job_id = j.id AND k.attempt = j.attempt AND k.stream = s.stream
            ORDER BY k.seq DESC
            LIMIT 2
        ) c
    )
    SELECT format('Its output says "%s": ', w.words) || w.advice
    FROM (SELECT m.name, format('a host name could not be resolved; its network is %s%s.', m.name,
               CASE m.name WHEN 'none' THEN ', which leads nowhere' ELSE '' END) AS unresolved
          FROM (SELECT cm_internal.name_networks(j.networks) AS name) m) n
    CROSS JOIN LATERAL (VALUES
        (1, 'exec /bin/sh failed: No such file or directory',
         'the image has no /bin/sh, which the parameter command needs. Give the program and its words by args or entrypoint.'),
        (2, 'exec format error',
         'the file is made for another kind of CPU than the host''s, or is a script without a first line like #!/bin/sh.'),
        (3, '[FATAL tini',
         'the container''s init could not start the command. The image lacks it, or it is not executable, or not made for this CPU.'),
        (4, 'catatonit: failed to exec',
         'the container''s init could not start the command. The image lacks it, or it is not executable, or not made for this CPU.'),
        (5, 'Read-only file system',
         CASE WHEN j.read_only THEN
             'only /tmp and tmpfs directories can be written. Write there, add tmpfs => ''{"/path": 64}'', or submit with read_only => false.'
         ELSE 'some directories of a container can never be written.' END),
        (6, 'No space left on device',
         format('a tmpfs or the host''s disk is full. /tmp holds up to %s MB unless tmpfs says otherwise.', j.memory_limit)),
        (7, 'Disk quota exceeded', 'what it may write on that disk is used up.'),
        (8, 'Cannot allocate memory',
         format('it reached memory_limit (%s MB) or the limit on processes.', j.memory_limit)),
        (9, 'Resource temporarily unavailable',
         'perhaps it reached the limit on processes and threads: pids_limit, at most container_manager.pids_limit.'),
        (10, 'Too many open files', 'it reached the limit on open files, a ulimit.'),
        (11, 'Operation not permitted',
         'containers have no capabilities here, so that chown, mount, raw sockets and the like fail.'),
        (12, 'Permission denied',
         CASE j.exit_code WHEN 126 THEN
             format('the file must be executable by user %s (chmod +x), and its interpreter, too.', j.run_as)
         ELSE format('it runs as user %s. Give that user the right in the image, write to /tmp, or choose another by run_as.', j.run_as) END),
        (13, 'EACCES',
         format('it runs as user %s. Give that user the right in the image, write to /tmp, or choose another by run_as.', j.run_as)),
        (14, 'bad address', n.unresolved),
        (15, 'name resolution', n.unresolved),
        (16, 'Could not resolve', n.unresolved),
        (17, 'Name or service not known', n.unresolved),
        (18, 'no such host', n.unresolved),
        (19, 'ENOTFOUND', n.unresolved),
        (20, 'Network is unreachable',
         format('it has no way there; its network is %s.', n.name))
    ) w (rank, words, advice)
    WHERE j.failure_reason = 'exit_code'
      AND EXISTS (SELECT FROM output o WHERE position(lower(w.words) IN o.words) > 0)
    ORDER BY w.rank
    LIMIT 1
$$;
COMMENT ON FUNCTION cm_internal.advise_from_output(@extschema@.cm_jobs) IS
    'What to do, going by words in a job''s output, or NULL.';

CREATE FUNCTION cm_internal.explain_end(j @extschema@.cm_jobs) RETURNS text
LANGUAGE sql STABLE
RETURN CASE j.failure_reason
    WHEN 'exit_code' THEN cm_internal.explain_exit_code(j.exit_code)
    WHEN 'oom' THEN
        format('The kernel killed it because it needed more than its memory_limit of %s MB.', j.memory_limit)
    WHEN 'killed' THEN
        'It was killed from outside the container, and not by us: by docker kill or stop, or because the engine or its host was shut down.'
    WHEN 'timeout' THEN
        format('It ran longer than its timeout_seconds (%s) and was stopped.', j.timeout_seconds)
    WHEN 'cancelled' THEN CASE
        WHEN j.started_at IS NULL AND EXISTS (SELECT FROM @extschema@.cm_job_attempts a
                WHERE a.job_id = j.id AND a.attempt = j.attempt AND a.status <> 'cancelled')
            THEN 'It was cancelled while it waited for its next attempt.'
        WHEN j.started_at IS NULL THEN 'It was cancelled before it ran.'
        ELSE 'It was cancelled while it ran, and stopped.' END
    WHEN 'expired' THEN
        format('It was not started within its max_wait (%s) after run_at.', j.max_wait)
    WHEN 'dependency_failed' THEN 'A job that it depends on did not complete.'
    WHEN 'image_pull' THEN format('The image "%s" could not be had.', j.image)
    WHEN 'image_policy' THEN format('The image "%s" is not allowed on this host.', j.image)
    WHEN 'create' THEN 'The engine refused to create the container.'
    WHEN 'start' THEN 'The engine created the container but could not start it.'
    WHEN 'network' THEN format('A network that it asks for is not there or could not be joined: "%s".',
        replace(cm_internal.name_networks(j.networks), ', ', '", "'))
    WHEN 'policy' THEN
        'What it asks for is no longer allowed: the limits were changed after it was submitted, or it was restored from elsewhere.'
    WHEN 'host_lost' THEN
        'Its host was not there any more; whether the program ran to its end, or runs on there, is not known.'
    WHEN 'abandoned' THEN 'It was given up; how it ended is not known.'
    WHEN 'infrastructure' THEN 'The engine or its host failed, not the job.'
    ELSE CASE j.status
        WHEN 'completed' THEN format('It ended with exit code %s%s.', j.exit_code,
            CASE WHEN j.exit_code <> 0 THEN ', which is among its success_exit_codes' ELSE '' END)
        ELSE 'No reason was recorded.' END
END;
COMMENT ON FUNCTION cm_internal.explain_end(@extschema@.cm_jobs) IS
    'Why a job ended as it did, in a sentence.';

CREATE FUNCTION cm_internal.advise_end(j @extschema@.cm_jobs) RETURNS text
LANGUAGE sql STABLE
RETURN CASE j.failure_reason
    WHEN 'exit_code' THEN CASE
        WHEN j.oom_killed THEN
            format('Perhaps that is why it failed: try a memory_limit above %s.', j.memory_limit)
        ELSE cm_internal.advise_exit_code(j) END
    WHEN 'oom' THEN
        'Submit it with a higher memory_limit, or make it need less. What it writes to /tmp and other tmpfs counts as memory.'
    WHEN 'killed' THEN 'Ask the host''s administrator; if nothing speaks against it, cm_retry_job() runs it again.'
    WHEN 'timeout' THEN
        'Submit it with a higher timeout_seconds, or make it do less. container_manager.max_timeout is the most that is allowed.'
    WHEN 'expired' THEN
        'Submit it again with a longer max_wait or a higher priority, or add slots: see cm_queue_status and cm_host_status.'
    WHEN 'dependency_failed' THEN
        'Look at that job. When it has been mended, cm_retry_job() runs it and this one again; depends_on_any_end does not ask how others end.'
    WHEN 'image_pull' THEN
        'Check the name and that the host can reach the registry; where auto_pull_images is off, the image must be put on the host first.'
    WHEN 'image_policy' THEN 'Use an image that the administrator allows.'
    WHEN 'create' THEN 'The error names what the engine objects to: correct that and submit it again.'
    WHEN 'start' THEN
        'The error has the engine''s words. Mostly the working directory or the command is not there, or the host lacks something.'
    WHEN 'network' THEN format('SELECT * FROM cm_list_networks(%L) shows what the host has; cm_create_network(%L, name) makes one. Or use bridge or none.', j.host, j.host)
    WHEN 'policy' THEN 'The error names the limit. Submit it again within the limits, or let the administrator raise them.'
    WHEN 'host_lost' THEN 'If it may run twice, cm_retry_job() runs it again.'
    WHEN 'abandoned' THEN 'If it may run twice, cm_retry_job() runs it again.'
    WHEN 'infrastructure' THEN
        'See error and hint in cm_host_status; when that is mended, cm_retry_job() runs it again, if it may run twice.'
END;
COMMENT ON FUNCTION cm_internal.advise_end(@extschema@.cm_jobs) IS
    'What to do about how a job ended, or NULL.';

CREATE FUNCTION cm_internal.advise_waiting(reason text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN reason = 'no executor running' THEN 'SELECT state, explanation, advice FROM cm_status;'
    WHEN reason LIKE 'held%' THEN 'SELECT state, explanation, advice FROM cm_status;'
    WHEN reason LIKE 'may have begun on %' THEN
        'It was submitted before this server took over, which has not yet seen what runs on that host. It goes on when the host answers; if that is gone for good, remove it by cm_remove_host.'
    WHEN reason = 'no hosts defined' THEN
        'SELECT cm_add_host(''local'', ''unix:///var/run/docker.sock'');'
    WHEN reason = 'copy from another database' THEN
        'It came with a restore or a copy of the database and is not run here. SELECT cm_adopt_restored_jobs() has all such jobs run here, if nobody runs them elsewhere.'
    WHEN reason = 'not in the queue' THEN 'It will not be run. Submit it again if it shall run.'
    WHEN reason = 'its host was removed' THEN 'Cancel it by cm_cancel_job and submit it for another host.'
    WHEN reason LIKE 'waits for %' THEN
        'None needed: it goes on when they have ended. SELECT * FROM cm_job_explain(id) tells of each.'
    WHEN reason LIKE 'paused: %' OR reason LIKE 'namespace paused: %' OR reason LIKE 'template paused: %' THEN
        'cm_status tells who paused it, since when and why; cm_resume undoes that.'
    WHEN reason LIKE 'key "%" in use %' THEN
        'None needed: it starts when enough jobs with its concurrency_key have ended.'
    WHEN reason LIKE 'not due%' OR reason LIKE 'retry %' THEN 'None needed: it becomes due by itself.'
    WHEN reason LIKE 'no host has label %' OR reason LIKE 'host "%" lacks label %' THEN
        'Give a host that label in cm_hosts.labels, or cancel the job by cm_cancel_job and submit it with other host_labels.'
    WHEN reason LIKE '%unhealthy%' THEN
        'See error and hint in cm_host_status; SELECT * FROM cm_check_host(name) tries a connection now.'
    WHEN reason LIKE '%drained%' THEN
        'cm_host_status tells who disabled it and why; SELECT cm_enable_host(name) undoes that.'
    WHEN reason LIKE '%full%' THEN
        'Wait for jobs to end, raise max_concurrent_jobs of a host, add a host, or raise its priority by cm_set_priority.'
    WHEN reason LIKE '%short of %' THEN
        'Wait for jobs to end, add a host, or submit it with lower limits or another placement_strategy. It never starts where a host has less in all than it asks for.'
    WHEN reason LIKE '%seen yet%' THEN
        'The executor has no answer from there since it started; SELECT * FROM cm_check_host(name) tries a connection now.'
END;
COMMENT ON FUNCTION cm_internal.advise_waiting(text) IS
    'What to do about a reason of cm_internal.waiting_reason.';

CREATE FUNCTION cm_internal.explain_times(j @extschema@.cm_jobs) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    due timestamptz := greatest(j.created_at, j.run_at);
    launched timestamptz;
    until timestamptz := coalesce(j.completed_at, clock_timestamp());
BEGIN
    SELECT min(e.at) INTO launched
    FROM @extschema@.cm_job_events e
    WHERE e.job_id = j.id AND e.attempt = j.attempt AND e.status = 'launching' AND e.at >= j.run_at;

    RETURN concat_ws(', ',
        'submitted ' || date_trunc('second', j.created_at),
        CASE WHEN due > until THEN 'due ' || date_trunc('second', due)
             ELSE 'waited ' || cm_internal.duration_in_words(coalesce(launched, j.started_at, until) - due) END,
        CASE WHEN j.started_at IS NULL AND j.completed_at IS NULL THEN 'has been launched for '
             ELSE 'launched in ' END
            || cm_internal.duration_in_words(coalesce(j.started_at, until) - launched),
        CASE WHEN j.completed_at IS NULL THEN 'has run ' ELSE 'ran ' END
            || cm_internal.duration_in_words(until - j.started_at),
        'ended ' || date_trunc('second', j.completed_at));
END
$$;
COMMENT ON FUNCTION cm_internal.explain_times(@extschema@.cm_jobs) IS
    'When and how long a job waited, was launched and ran.';

CREATE FUNCTION cm_internal.explain_output(j @extschema@.cm_jobs) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept record;
BEGIN
    SELECT coalesce(sum(octet_length(k.bytes)) FILTER (WHERE k.stream = 1), 0) AS stdout_bytes,
           coalesce(sum(cardinality(k.record_lengths)) FILTER (WHERE k.stream = 1), 0) AS stdout_lines,
           coalesce(sum(octet_length(k.bytes)) FILTER (WHERE k.stream = 2), 0) AS stderr_bytes,
           coalesce(sum(cardinality(k.record_lengths)) FILTER (WHERE k.stream = 2), 0) AS stderr_lines
    INTO kept
    FROM cm_internal.log_chunks k
    WHERE k.job_id = j.id AND k.attempt = j.attempt;

    RETURN format('stdout %s lines (%s), stderr %s lines (%s)%s',
        kept.stdout_lines, pg_size_pretty(kept.stdout_bytes),
        kept.stderr_lines, pg_size_pretty(kept.stderr_bytes),
        CASE
            WHEN j.logs_incomplete THEN '; logs incomplete: some output was lost or was more than container_manager.max_log_size'
            WHEN j.completed_at IS NULL THEN '; so far'
            ELSE '' END);
END
$$;
COMMENT ON FUNCTION cm_internal.explain_output(@extschema@.cm_jobs) IS
    'How much a job''s last attempt wrote, as kept.';

CREATE FUNCTION cm_internal.explain_attempts(j @extschema@.cm_jobs) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s of %s', j.attempt, j.max_attempts)
        || coalesce(': ' || string_agg(
               format('%s %s%s%s', a.attempt, a.status,
                      coalesce(' (' || a.failure_reason || coalesce(', exit code ' || nullif(a.exit_code, 0), '') || ')', ''),
                      ' on ' || a.host), '; ' ORDER BY a.attempt), '')
    FROM @extschema@.cm_job_attempts a
    WHERE a.job_id = j.id
$$;
COMMENT ON FUNCTION cm_internal.explain_attempts(@extschema@.cm_jobs) IS
    'A job''s attempts and how they ended.';

CREATE FUNCTION cm_internal.explain_kept(job bigint) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%1$s, kept on host %2$s until %3$s. There: docker logs %1$s; docker cp %1$s:/path .; docker commit %1$s name. Here: cm_job_changes(%4$s); cm_remove_kept_container(%4$s).',
                  left(k.container_id, 12), h.name, date_trunc('second', k.keep_until), k.job_id)
    FROM cm_internal.kept_containers k
    JOIN @extschema@.cm_hosts h ON h.id = k.host_id
    WHERE k.job_id = explain_kept.job AND k.keep_until > clock_timestamp()
$$;
COMMENT ON FUNCTION cm_internal.explain_kept(bigint) IS
    'Where the container of a failed job is kept and how to look at it, or NULL.';

CREATE FUNCTION cm_internal.find_job(id bigint) RETURNS @extschema@.cm_jobs
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    job @extschema@.cm_jobs;
BEGIN
    SELECT j.* INTO job FROM @extschema@.cm_jobs j WHERE j.id = find_job.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = '42704',
            MESSAGE = format('job %s does not exist', coalesce(find_job.id::text, 'NULL')),
            HINT = 'cm_ps shows unfinished and recent jobs, cm_jobs all.';
    END IF;
    RETURN job;
END
$$;
COMMENT ON FUNCTION cm_internal.find_job(bigint) IS
    'The row of a job; throws where there is none.';

CREATE FUNCTION cm_job_explain(id bigint) RETURNS TABLE (item text, explanation text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    j @extschema@.cm_jobs := cm_internal.find_job(cm_job_explain.id);
    is_over boolean := j.status IN ('completed', 'failed', 'timeout', 'cancelled');
    is_copy boolean := j.epoch <> (SELECT i.epoch FROM cm_internal.current_identity i);
    waiting text := cm_internal.waiting_reason(j.id);
    cancelled_by name;
    why text;
    advice text;
    host_state text;
BEGIN
    SELECT q.cancel_requested_by INTO cancelled_by FROM cm_internal.queue q WHERE q.job_id = j.id;
    SELECT CASE WHEN e.phase = 'at work' THEN s.state ELSE 'unknown' END INTO host_state
    FROM @extschema@.cm_hosts h
    JOIN cm_internal.host_states s ON s.host_id = h.id
    CROSS JOIN cm_internal.executor_status() e
    WHERE h.name = j.host;

    IF is_over THEN
        why := cm_internal.explain_end(j)
            || CASE WHEN j.oom_killed AND j.failure_reason IS DISTINCT FROM 'oom'
                    THEN ' The kernel killed a process of it for want of memory.' ELSE '' END;
        advice := coalesce(
            nullif(concat_ws(' ', j.hint, cm_internal.advise_from_output(j)), ''),
            cm_internal.advise_end(j));
        why := concat_ws(' ', why, (
            SELECT format('%s asked for it to be run again; the executor will do so.', r.requested_by)
            FROM cm_internal.requests r WHERE r.job_id = j.id AND r.action = 'retry' LIMIT 1));
    ELSIF is_copy THEN
        why := coalesce('It was ' || j.detail || '.', 'It is a copy from another database.');
        advice := cm_internal.advise_waiting('copy from another database');
    ELSIF cancelled_by IS NOT NULL THEN
        why := format('%s asked for it to be cancelled; it is being stopped.', cancelled_by);
    ELSIF j.status = 'pending' THEN
        why := concat_ws(' ', coalesce('It waits: ' || waiting || '.', 'It waits.'),
            upper(left(j.detail, 1)) || substr(j.detail, 2) || '.');
        advice := cm_internal.advise_waiting(waiting);
    ELSIF (SELECT e.phase = 'on hold' FROM cm_internal.executor_status() e) THEN
        why := 'It was ' || j.status || ' when this server last knew. It is on hold and does not look.';
        advice := cm_internal.advise_waiting('held');
    ELSIF j.status = 'launching' THEN
        why := coalesce('It is being launched: ' || j.detail || '.',
                        'It is being launched: its image is looked for or pulled, or its container made.');
    ELSE
        why := coalesce('Its container runs: ' || j.detail || '.', 'Its container runs.');
    END IF;
    IF j.status IN ('launching', 'running') AND NOT is_copy AND host_state = 'unhealthy' THEN
        advice := format('Its host does not answer: see error and hint in cm_host_status. Whether it runs is known when %s answers again; if that will never be, SELECT cm_abandon_job(%s, ''why'').', j.host, j.id);
    END IF;

    RETURN QUERY
    SELECT x.item, x.explanation
    FROM (VALUES
        (1, 'state', j.status || coalesce(' (' || nullif(j.failure_reason, j.status) || ')', '')
            || CASE WHEN is_copy THEN ', as another database left it' ELSE '' END),
        (2, 'why', why),
        (3, 'error', j.error),
        (4, 'advice', advice),
        (5, 'host', CASE
            WHEN is_over THEN coalesce(j.host, CASE WHEN j.attempt > 0 THEN 'none, when it ended' ELSE 'none; it was never given to one' END)
            WHEN j.host IS NULL AND j.requested_host IS NULL THEN
                'any' || coalesce(' with labels ' || (SELECT string_agg(l.key || '=' || l.value, ' ' ORDER BY l.key)
                    FROM jsonb_each_text(j.host_labels) l), '') || '; none chosen yet'
            WHEN j.host IS NULL OR j.status = 'pending' THEN 'must be ' || coalesce(j.requested_host, j.host)
            ELSE j.host || coalesce(', ' || host_state, '') END),
        (6, 'container', coalesce(cm_internal.explain_kept(j.id), left(j.container_id, 12))),
        (7, 'times', cm_internal.explain_times(j)),
        (8, 'limits', format('%s MB memory, %s CPU, %s s; user %s, network %s, root file system %s',
            j.memory_limit, trim_scale(j.cpu_limit), j.timeout_seconds, j.run_as,
            cm_internal.name_networks(j.networks),
            CASE WHEN j.read_only THEN 'read-only' ELSE 'writable' END)
            || coalesce('; ' || nullif(concat_ws(', ',
                '/dev/shm ' || j.shm_size || ' MB',
                j.pids_limit || ' processes',
                (SELECT string_agg(format('%s %s', u.key, coalesce(u.value ->> 'hard', u.value #>> '{}')), ', ' ORDER BY u.key)
                 FROM jsonb_each(j.ulimits) u),
                'output ' || j.log_limit || ' MB',
                'stopped by ' || j.stop_signal,
                'killed ' || cm_internal.duration_in_words(j.stop_grace) || ' later'), ''), '')),
        (8, 'volumes', (SELECT string_agg(format('%s at %s%s', v.volume ->> 'name', v.volume ->> 'target',
                CASE WHEN (v.volume ->> 'read_only')::boolean THEN ', read-only' ELSE '' END), '; ' ORDER BY v.position)
            FROM jsonb_array_elements(j.volumes) WITH ORDINALITY v (volume, position))),
        (9, 'output', CASE WHEN j.attempt > 0 THEN cm_internal.explain_output(j) END),
        (10, 'attempts', CASE WHEN j.attempt > 0 THEN cm_internal.explain_attempts(j) END),
        (11, 'retries', CASE WHEN j.max_attempts > 1 THEN
            format('up to %s attempts, on %s; the first after %s', j.max_attempts, j.retry_on,
                cm_internal.duration_in_words(j.retry_delay)) END),
        (12, 'lost host', CASE WHEN j.on_host_loss <> 'wait' THEN
            format('%s when its host does not answer for %s', j.on_host_loss,
                cm_internal.duration_in_words(j.host_loss_grace)) END)
    ) x (position, item, explanation)
    WHERE x.explanation IS NOT NULL
    ORDER BY x.position;
END
$$;
COMMENT ON FUNCTION cm_job_explain(bigint) IS
    'Why a job is as it is, and what to do about it. Whoever may execute this may ask about any job.';

CREATE FUNCTION cm_internal.network_words(networks jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce((
    SELECT array_agg(w.word ORDER BY n.position, w.position)
    FROM jsonb_array_elements(networks) WITH ORDINALITY n (network, position)
    CROSS JOIN LATERAL unnest(ARRAY['--network', concat_ws(',',
        CASE WHEN n.network -> 'aliases' <> '[]' OR n.network ->> 'ip' IS NOT NULL OR n.network ->> 'ip6' IS NOT NULL
             THEN 'name=' || (n.network ->> 'network_name')
             ELSE coalesce(n.network ->> 'network_name', n.network #>> '{}') END,
        (SELECT string_agg('alias=' || a.alias, ',' ORDER BY a.position)
         FROM jsonb_array_elements_text(CASE jsonb_typeof(n.network -> 'aliases')
             WHEN 'array' THEN n.network -> 'aliases' ELSE '[]' END) WITH ORDINALITY a (alias, position)),
        'ip=' || (n.network ->> 'ip'), 'ip6=' || (n.network ->> 'ip6'))])
        WITH ORDINALITY w (word, position)), ARRAY['--network', 'none']);
COMMENT ON FUNCTION cm_internal.network_words(jsonb) IS
    'Networks as options of docker run. More than one takes a client of Docker 25 or newer.';

CREATE FUNCTION cm_internal.volume_words(j @extschema@.cm_jobs) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(w.word ORDER BY v.position, w.position)
    FROM jsonb_array_elements(j.volumes) WITH ORDINALITY v (volume, position)
    CROSS JOIN LATERAL unnest(ARRAY['--mount', format('type=volume,source=cm-%s-%s.%s,target=%s%s,volume-nocopy',
        left(j.epoch::text, 8), j.namespace, v.volume ->> 'name', v.volume ->> 'target',
        CASE WHEN (v.volume ->> 'read_only')::boolean THEN ',readonly' ELSE '' END)])
        WITH ORDINALITY w (word, position)
$$;
COMMENT ON FUNCTION cm_internal.volume_words(@extschema@.cm_jobs) IS 'Volumes as options of docker run.';

-- What is attached at a docker run is not the container's, so that AttachStdin
-- and its like have no word.
CREATE FUNCTION cm_internal.docker_option_words(options jsonb) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(w.word ORDER BY f.n, v.n, w.n)
    FROM (VALUES (1, '{Hostname}', '--hostname'), (2, '{Domainname}', '--domainname'),
            (3, '{StopTimeout}', '--stop-timeout'), (4, '{HostConfig,Dns}', '--dns'),
            (5, '{HostConfig,DnsSearch}', '--dns-search'), (6, '{HostConfig,DnsOptions}', '--dns-option'),
            (7, '{HostConfig,ExtraHosts}', '--add-host'), (8, '{HostConfig,GroupAdd}', '--group-add'),
            (9, '{HostConfig,OomScoreAdj}', '--oom-score-adj'), (10, '{HostConfig,CpuShares}', '--cpu-shares'),
            (11, '{HostConfig,CpusetCpus}', '--cpuset-cpus'), (12, '{HostConfig,CpusetMems}', '--cpuset-mems'),
            (13, '{HostConfig,BlkioWeight}', '--blkio-weight'),
            (14, '{HostConfig,MemoryReservation}', '--memory-reservation'),
            (15, '{HostConfig,MemorySwappiness}', '--memory-swappiness'),
            (16, '{HostConfig,Sysctls}', '--sysctl'), (17, '{OpenStdin}', '--interactive')) f (n, path, flag)
    CROSS JOIN LATERAL (SELECT options #> f.path::text[]) o (value)
    CROSS JOIN LATERAL jsonb_array_elements_text(CASE jsonb_typeof(o.value)
        WHEN 'array' THEN o.value
        WHEN 'object' THEN (SELECT jsonb_agg(e.key || '=' || e.value ORDER BY e.key) FROM jsonb_each_text(o.value) e)
        ELSE jsonb_build_array(o.value) END) WITH ORDINALITY v (text, n)
    CROSS JOIN LATERAL unnest(CASE WHEN f.path <> '{OpenStdin}' THEN ARRAY[f.flag, v.text]
        WHEN v.text = 'true' THEN ARRAY[f.flag] END) WITH ORDINALITY w (word, n)
    WHERE o.value IS NOT NULL
$$;
COMMENT ON FUNCTION cm_internal.docker_option_words(jsonb) IS
    'The flags of docker run that docker_options stand for.';

-- One row per option, in the order of the line; a row that does not apply has
-- NULL words.  They follow the create request (engine_body.c), without our labels:
-- the executor must not take the container for its own.
CREATE FUNCTION cm_internal.docker_run_options(
    j @extschema@.cm_jobs, OUT place integer, OUT name text, OUT words text[])
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A bare uid is its own group, and the owner of what is writable.  Who the
    -- image's own user is, docker finds out as well.
    WITH u AS (SELECT nullif(j.run_as, 'image') || CASE WHEN j.run_as LIKE '%:%' THEN '' ELSE ':' || j.run_as END AS run_as)
    SELECT o.place, o.name, o.words
    FROM u
    CROSS JOIN LATERAL (
        VALUES
        (10, NULL, ARRAY['--rm=false', '--init', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges',
                         '--ipc', 'private', '--cgroupns', 'private', '--no-healthcheck']),
        (20, NULL, ARRAY['--pids-limit', coalesce(j.pids_limit::text,
                         current_setting('container_manager.pids_limit', true), '256')]),
        (21, NULL, ARRAY['--memory', j.memory_limit || 'm', '--memory-swap', j.memory_limit || 'm']),
        (22, NULL, ARRAY['--cpus', trim_scale(j.cpu_limit)::text]),
        (23, NULL, ARRAY['--shm-size', coalesce(j.shm_size, 64) || 'm']),
        (25, NULL, ARRAY['--stop-signal', j.stop_signal]),
        (26, NULL, ARRAY['--stop-timeout', ceil(extract(epoch FROM j.stop_grace))::bigint::text]),
        (30, NULL, CASE WHEN j.read_only THEN ARRAY['--read-only'] END),
        (45, NULL, cm_internal.volume_words(j)),
        (50, NULL, ARRAY['--user', u.run_as]),
        (60, NULL, cm_internal.network_words(j.networks)),
        (65, NULL, cm_internal.docker_option_words(j.docker_options)),
        (70, NULL, CASE WHEN EXISTS (SELECT FROM @extschema@.cm_hosts h
                                     WHERE h.name = coalesce(j.host, j.requested_host) AND NOT h.auto_pull_images)
                        THEN ARRAY['--pull', 'never'] END),
        (90, NULL, ARRAY['-w', j.working_directory])
        UNION ALL
        SELECT 24, l.key, ARRAY['--ulimit', l.key || '=' || CASE jsonb_typeof(l.value)
            WHEN 'object' THEN concat_ws(':', l.value ->> 'soft', l.value ->> 'hard')
            ELSE l.value #>> '{}' END]
        FROM jsonb_each(CASE jsonb_typeof(j.ulimits) WHEN 'object' THEN j.ulimits END) l
        UNION ALL
        SELECT 40, t.key, ARRAY['--tmpfs', format('%s:rw,exec,nosuid,nodev,mode=1777,size=%sm', t.key, t.value)
            || coalesce(',uid=' || split_part(u.run_as, ':', 1) || ',gid=' || split_part(u.run_as, ':', 2), '')]
        FROM jsonb_each_text(jsonb_build_object('/tmp', j.memory_limit) || j.tmpfs) t
        UNION ALL
        SELECT 80, e.key, ARRAY['-e', e.key || '=' || e.value]
        FROM jsonb_each_text(('{"HOME": "/tmp", "TMPDIR": "/tmp"}'::jsonb || coalesce(j.environment, '{}'))
            - ARRAY(SELECT jsonb_object_keys(j.secret_environment))) e
        UNION ALL
        SELECT 81, s.name, ARRAY['-e', s.name]
        FROM jsonb_object_keys(j.secret_environment) s (name)
    ) o (place, name, words)
    WHERE array_position(o.words, NULL) IS NULL AND o.words IS NOT NULL
$$;
COMMENT ON FUNCTION cm_internal.docker_run_options(@extschema@.cm_jobs) IS
    'The options of docker run that a job''s columns ask for.';

CREATE FUNCTION cm_job_docker_command(id bigint) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    j @extschema@.cm_jobs := cm_internal.find_job(cm_job_docker_command.id);
    words text[];
BEGIN
    SELECT ARRAY['docker', 'run'] || array_agg(w.word ORDER BY o.place, o.name, w.n) INTO words
    FROM cm_internal.docker_run_options(j) o
    CROSS JOIN LATERAL unnest(o.words) WITH ORDINALITY w (word, n);
    IF j.command IS NOT NULL THEN
        words := words || ARRAY['--entrypoint', '/bin/sh', j.image, '-c', j.command];
    ELSIF j.entrypoint IS NOT NULL THEN
        words := words || ARRAY['--entrypoint', coalesce(j.entrypoint[1], ''), j.image]
            || j.entrypoint[2:] || j.args;
    ELSE
        words := words || j.image || j.args;
    END IF;
    RETURN (SELECT string_agg(cm_internal.shell_quote(u.w), ' ' ORDER BY u.n)
            FROM unnest(words) WITH ORDINALITY u (w, n));
END
$$;
COMMENT ON FUNCTION cm_job_docker_command(bigint) IS
    'The docker command line that would do the same as a job. Safe to paste; secrets appear by name only and are taken from your shell''s environment.';

REVOKE ALL ON FUNCTION
    cm_internal.duration_in_words(interval),
    cm_internal.explain_exit_code(integer),
    cm_internal.advise_exit_code(cm_jobs),
    cm_internal.advise_from_output(cm_jobs),
    cm_internal.explain_kept(bigint),
    cm_internal.docker_run_options(cm_jobs),
    cm_internal.explain_end(cm_jobs),
    cm_internal.advise_end(cm_jobs),
    cm_internal.advise_waiting(text),
    cm_internal.explain_times(cm_jobs),
    cm_internal.explain_output(cm_jobs),
    cm_internal.explain_attempts(cm_jobs),
    cm_internal.name_networks(jsonb),
    cm_internal.network_words(jsonb),
    cm_internal.volume_words(cm_jobs),
    cm_internal.find_job(bigint),
    cm_internal.docker_option_words(jsonb),
    cm_job_explain(bigint),
    cm_job_docker_command(bigint)
FROM PUBLIC;
