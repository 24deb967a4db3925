-- What an administrator should know of the hosts' safety: the configuration, what
-- each engine says of itself, and the jobs of the last seven days.

CREATE VIEW cm_internal.host_findings AS
SELECT h.name AS host, f.severity, f.finding, f.explanation, f.advice
FROM cm_hosts h
LEFT JOIN cm_internal.host_states s ON s.host_id = h.id
CROSS JOIN LATERAL (
    SELECT s.live_restore IS NOT NULL AS is_known,
           h.host_type = 'tcp' AS is_tcp,
           h.connection_string ~ '^tcp://(localhost|127\.[0-9.]+|\[::1\])(:|$)' AS is_loopback,
           nullif(substring(s.engine_version FROM '^([0-9]{1,6})'), '')::integer AS major
) k
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs,
           count(*) FILTER (WHERE j.memory_limit > 1024) AS high_memory,
           count(*) FILTER (WHERE j.cpu_limit > 2) AS high_cpu,
           count(*) FILTER (WHERE j.timeout_seconds > 3600) AS long,
           count(*) FILTER (WHERE NOT j.read_only) AS writable,
           count(*) FILTER (WHERE j.run_as ~ '^0+(:|$)') AS root
    FROM cm_jobs j
    WHERE j.host = h.name AND j.created_at > now() - interval '7 days'
) j
CROSS JOIN LATERAL (
    SELECT v.* FROM (VALUES
    (k.is_tcp, 'tls',
     CASE WHEN h.tls_enabled THEN 'ok' WHEN k.is_loopback THEN 'warning' ELSE 'critical' END,
     CASE WHEN h.tls_enabled THEN 'The connection is encrypted by TLS.'
          ELSE 'TLS is off for a TCP connection: whoever reaches the port is root on the host.' END,
     CASE WHEN NOT h.tls_enabled THEN
         'Start the engine with --tlsverify on port 2376, and set tls_enabled and tls_verify.' END),
    (k.is_tcp AND h.tls_enabled, 'tls_verify',
     CASE WHEN h.tls_verify THEN 'ok' ELSE 'critical' END,
     CASE WHEN h.tls_verify THEN 'The engine''s certificate is verified.'
          ELSE 'The engine''s certificate is not verified: anybody in between can take its place.' END,
     CASE WHEN NOT h.tls_verify THEN 'Set tls_verify, with the CA of its certificate in tls_cert_path.' END),
    (true, 'address',
     CASE WHEN k.is_tcp AND NOT k.is_loopback THEN 'info' ELSE 'ok' END,
     CASE WHEN NOT k.is_tcp THEN 'A unix socket: local, guarded by file permissions.'
          WHEN k.is_loopback THEN 'A local connection.' ELSE 'A remote connection.' END,
     CASE WHEN k.is_tcp AND NOT k.is_loopback THEN
         'Let a firewall allow its port to the database server alone.' END),
    (NOT k.is_known, 'not seen', 'info',
     'The engine has not answered yet: what it has switched on is not known.',
     'SELECT * FROM cm_check_host(' || quote_literal(h.name) || ');'),
    (k.is_known, 'userns',
     CASE WHEN cm_internal.has_option(s.security_options, 'userns')
            OR cm_internal.has_option(s.security_options, 'rootless') THEN 'ok' ELSE 'warning' END,
     CASE WHEN cm_internal.has_option(s.security_options, 'rootless') THEN
              'The engine runs rootless: root in a container is no root on the host.'
          WHEN cm_internal.has_option(s.security_options, 'userns') THEN
              'Users of containers are mapped to others on the host.'
          ELSE 'No user namespaces: a user of a container is the same user on the host.' END,
     CASE WHEN NOT cm_internal.has_option(s.security_options, 'userns')
           AND NOT cm_internal.has_option(s.security_options, 'rootless') THEN
         'Set "userns-remap": "default" in daemon.json. executor_config {"require_userns": true} keeps jobs off until then.' END),
    (k.is_known, 'rootless',
     CASE WHEN cm_internal.has_option(s.security_options, 'rootless') THEN 'ok' ELSE 'info' END,
     CASE WHEN cm_internal.has_option(s.security_options, 'rootless') THEN 'The engine does not run as root.'
          ELSE 'The engine runs as root: its socket is root on the host.' END,
     CASE WHEN NOT cm_internal.has_option(s.security_options, 'rootless') THEN
         'Keep its socket and certificates to the database server; or run the engine rootless.' END),
    (k.is_known, 'seccomp',
     CASE WHEN cm_internal.has_option(s.security_options, 'seccomp')
            AND NOT 'name=seccomp,profile=unconfined' = ANY (s.security_options) THEN 'ok' ELSE 'critical' END,
     CASE WHEN NOT cm_internal.has_option(s.security_options, 'seccomp') THEN
              'System calls of containers are not filtered: seccomp is off.'
          WHEN 'name=seccomp,profile=unconfined' = ANY (s.security_options) THEN
              'System calls of containers are not filtered: the seccomp profile is unconfined.'
          ELSE 'System calls of containers are filtered by seccomp.' END,
     CASE WHEN NOT cm_internal.has_option(s.security_options, 'seccomp')
            OR 'name=seccomp,profile=unconfined' = ANY (s.security_options) THEN
         'Let the engine use its default profile, on a kernel with seccomp.' END),
    (k.is_known, 'apparmor',
     CASE WHEN cm_internal.has_option(s.security_options, 'apparmor')
            OR cm_internal.has_option(s.security_options, 'selinux') THEN 'ok' ELSE 'warning' END,
     CASE WHEN cm_internal.has_option(s.security_options, 'apparmor') THEN 'Containers are confined by AppArmor.'
          WHEN cm_internal.has_option(s.security_options, 'selinux') THEN 'Containers are confined by SELinux.'
          ELSE 'Containers are confined neither by AppArmor nor by SELinux.' END,
     CASE WHEN NOT cm_internal.has_option(s.security_options, 'apparmor')
           AND NOT cm_internal.has_option(s.security_options, 'selinux') THEN
         'Install apparmor on the host, or set "selinux-enabled": true in daemon.json, and restart the engine.' END),
    (k.is_known, 'live_restore',
     CASE WHEN s.live_restore THEN 'ok' ELSE 'info' END,
     CASE WHEN s.live_restore THEN 'Jobs run on while the engine is restarted.'
          ELSE 'A restart of the engine, as for a security update, ends its jobs.' END,
     CASE WHEN NOT s.live_restore THEN
         'Set "live-restore": true in daemon.json; else cm_disable_host and cm_wait_host_drained before a restart.' END),
    (k.is_known, 'experimental',
     CASE WHEN s.experimental THEN 'warning' ELSE 'ok' END,
     CASE WHEN s.experimental THEN 'Experimental features of the engine are on.'
          ELSE 'Experimental features are off.' END,
     CASE WHEN s.experimental THEN 'Remove "experimental" from daemon.json.' END),
    (k.major IS NOT NULL, 'engine_version',
     CASE WHEN k.major < 25 THEN 'warning' ELSE 'ok' END,
     format('The engine is of version %s.', s.engine_version),
     CASE WHEN k.major < 25 THEN
         'Docker no longer mends it: see that your distribution does, or upgrade.' END),
    (true, 'slots',
     CASE WHEN h.max_concurrent_jobs > 50 THEN 'warning' ELSE 'ok' END,
     format('%s jobs may run at once.', h.max_concurrent_jobs),
     CASE WHEN h.max_concurrent_jobs > 50 THEN 'A high limit: watch the host''s memory and CPUs.' END),
    (j.jobs > 0, 'limits',
     CASE WHEN j.high_memory + j.high_cpu + j.long > 0 THEN 'info' ELSE 'ok' END,
     format('Of %s job(s) in seven days, %s with more than 1024 MB, %s with more than 2 CPUs, %s with more than an hour. None was without limits.',
            j.jobs, j.high_memory, j.high_cpu, j.long),
     CASE WHEN j.high_memory + j.high_cpu + j.long > 0 THEN
         'If no job needs that, lower max_memory_limit, max_cpu_limit and max_timeout.' END),
    (j.root > 0, 'root', 'warning',
     format('%s job(s) in seven days ran as root.', j.root),
     'Give images a user of their own; container_manager.min_uid = 1001 refuses root.'),
    (j.writable > 0, 'read_only', 'info',
     format('%s job(s) in seven days had a root file system that they could write to.', j.writable),
     'A tmpfs for what they write is safer than read_only => false.')
    ) AS v (applies, finding, severity, explanation, advice)
    WHERE v.applies
    UNION ALL
    SELECT true, 'engine warning',
           CASE WHEN w ILIKE '%without encryption%' OR w ILIKE '%insecure%' OR w ILIKE '%accessible on%'
                THEN 'critical' ELSE 'info' END,
           'The engine says: ' || w, 'See the engine''s documentation.'
    FROM unnest(s.warnings) w
    UNION ALL
    SELECT true, 'certificate',
           CASE c.state WHEN 'valid' THEN 'ok' WHEN 'expiring' THEN 'warning' ELSE 'critical' END,
           format('The %s certificate "%s" is %s: it ends on %s.', c.kind, c.subject, c.state,
                  coalesce(c.not_after::date::text, 'a day that cannot be read')),
           CASE WHEN c.state <> 'valid' THEN
               'Replace it while jobs run: see cm_certificates, cm_issue_server_certificate and cm_issue_client_certificate.' END
    FROM cm_certificates c
    WHERE c.host = h.name
) f
WHERE h.executor_type = 'docker';
COMMENT ON VIEW cm_internal.host_findings IS
    'What is to be said of each host''s safety.';

CREATE FUNCTION cm_host_security_report(name text DEFAULT '*')
RETURNS TABLE (host text, severity text, finding text, explanation text, advice text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[] := ARRAY(SELECT h.name FROM cm_internal.find_hosts(cm_host_security_report.name) h);
BEGIN
    RETURN QUERY
    SELECT f.host, f.severity, f.finding, f.explanation, f.advice
    FROM cm_internal.host_findings f
    WHERE f.host = ANY (names)
    ORDER BY f.host, array_position('{critical,warning,info,ok}', f.severity), f.finding;
END
$$;
COMMENT ON FUNCTION cm_host_security_report(text) IS
    'How safe hosts are: findings with severity and advice. critical, warning, info or ok; of the configuration, of what the engine last told, and of the jobs of seven days. The name may be a pattern: *, ?.';

REVOKE ALL ON FUNCTION cm_host_security_report(text) FROM PUBLIC;
REVOKE ALL ON cm_internal.host_findings FROM PUBLIC;
