-- Certificates for hosts by TCP: our own CAs, what they issue, and when
-- everything in use ends.  Keys of CAs are stored sealed (crypto.h); those of
-- what they issue are returned once and not stored, or handed to a host.

CREATE TABLE cm_internal.cas (
    name text PRIMARY KEY,
    cert text NOT NULL,
    fingerprint text NOT NULL,
    key_sealed bytea NOT NULL,
    created_by name NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT pg_extension_config_dump('cm_internal.cas', '');
COMMENT ON TABLE cm_internal.cas IS
    'CAs by cm_create_ca: certificate, and key sealed for this name.';

CREATE TABLE cm_internal.issued_certificates (
    serial text PRIMARY KEY,
    ca text NOT NULL REFERENCES cm_internal.cas ON DELETE CASCADE,
    kind text NOT NULL,
    common_name text NOT NULL,
    host text,
    cert text NOT NULL,
    fingerprint text NOT NULL,
    issued_by name NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT kind_is_known CHECK (kind IN ('server', 'client'))
);
SELECT pg_extension_config_dump('cm_internal.issued_certificates', '');
CREATE INDEX issued_certificates_by_ca ON cm_internal.issued_certificates (ca, kind, common_name, issued_at);
COMMENT ON INDEX cm_internal.issued_certificates_by_ca IS 'Finds the last one of a name.';
COMMENT ON TABLE cm_internal.issued_certificates IS
    'What the CAs issued, without keys. host: whom a client certificate was given to.';

-- Not dumped: whoever restores is warned anew.
CREATE TABLE cm_internal.certificate_warnings (
    fingerprint text PRIMARY KEY,
    warned_at timestamptz NOT NULL
);
COMMENT ON TABLE cm_internal.certificate_warnings IS
    'When the server''s log last warned of a certificate''s end.';

-- Reading

CREATE FUNCTION cm_internal.read_certificates(
    pem text,
    OUT number integer, OUT subject text, OUT issuer text, OUT serial text, OUT fingerprint text,
    OUT sans text, OUT key_type text, OUT not_before timestamptz, OUT not_after timestamptz,
    OUT is_ca boolean, OUT problem text)
RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 1
AS 'MODULE_PATHNAME', 'cm_certificates_read';
COMMENT ON FUNCTION cm_internal.read_certificates(text) IS
    'The certificates of a PEM text. What cannot be read is a row with a problem.';

CREATE FUNCTION cm_internal.certificate_state(not_before timestamptz, not_after timestamptz)
RETURNS text
LANGUAGE C STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'cm_certificates_state';
COMMENT ON FUNCTION cm_internal.certificate_state(timestamptz, timestamptz) IS
    'valid, expiring, expired or not yet valid.';

-- Of what was issued under one name to one host only the last is in use.
CREATE VIEW cm_internal.certificates_in_use AS
SELECT 'created' AS source, 'ca' AS kind, c.name AS ca, NULL::text AS host, c.cert
FROM cm_internal.cas c
UNION ALL
SELECT 'issued', i.kind, i.ca, i.host, i.cert
FROM (SELECT DISTINCT ON (s.kind, s.common_name, s.host) s.*
      FROM cm_internal.issued_certificates s
      ORDER BY s.kind, s.common_name, s.host, s.issued_at DESC, s.serial) i
WHERE i.host IS NULL
UNION ALL
SELECT 'stored', 'ca', NULL, h.name, t.ca
FROM cm_internal.host_tls t JOIN cm_hosts h ON h.id = t.host_id
WHERE t.ca IS NOT NULL
UNION ALL
SELECT 'stored', 'client', NULL, h.name, t.cert
FROM cm_internal.host_tls t JOIN cm_hosts h ON h.id = t.host_id
WHERE t.cert IS NOT NULL
UNION ALL
SELECT CASE s.source WHEN 'presented' THEN 'presented' ELSE 'file' END,
       CASE s.source WHEN 'presented' THEN 'server' WHEN 'ca.pem' THEN 'ca' ELSE 'client' END,
       NULL, h.name, s.cert
FROM cm_internal.host_certificates s JOIN cm_hosts h ON h.id = s.host_id;
COMMENT ON VIEW cm_internal.certificates_in_use IS
    'PEM of all certificates in use, and where they are used.';

CREATE VIEW cm_certificates AS
SELECT
    u.source,
    u.kind,
    coalesce(u.ca, i.ca, a.name) AS ca,
    u.host,
    r.subject,
    r.issuer,
    r.serial,
    nullif(r.sans, '') AS sans,
    r.key_type,
    r.not_before,
    r.not_after,
    floor(extract(epoch FROM r.not_after - now()) / 86400)::integer AS days_left,
    coalesce(cm_internal.certificate_state(r.not_before, r.not_after), 'unreadable') AS state,
    r.fingerprint,
    r.problem
FROM cm_internal.certificates_in_use u
CROSS JOIN LATERAL cm_internal.read_certificates(u.cert) r
LEFT JOIN cm_internal.issued_certificates i ON i.serial = r.serial AND i.fingerprint = r.fingerprint
LEFT JOIN cm_internal.cas a ON a.fingerprint = r.fingerprint
ORDER BY r.not_after, u.source, u.host, u.ca, r.serial;
COMMENT ON VIEW cm_certificates IS
    'When each certificate in use ends. See container_manager.certificate_warning_days.';
COMMENT ON COLUMN cm_certificates.source IS
    'created (cm_create_ca), issued (the last for its name), stored (for a host in the database), file (of tls_cert_path) or presented (by an engine).';
COMMENT ON COLUMN cm_certificates.kind IS 'ca, server or client.';
COMMENT ON COLUMN cm_certificates.ca IS 'The CA of cm_create_ca that it is, or that issued it.';
COMMENT ON COLUMN cm_certificates.host IS 'The host that it is used for.';
COMMENT ON COLUMN cm_certificates.subject IS 'Whose it is.';
COMMENT ON COLUMN cm_certificates.issuer IS 'Who signed it.';
COMMENT ON COLUMN cm_certificates.serial IS 'Its number, hexadecimal.';
COMMENT ON COLUMN cm_certificates.sans IS 'Names and addresses that it is valid for.';
COMMENT ON COLUMN cm_certificates.key_type IS 'Kind of its key.';
COMMENT ON COLUMN cm_certificates.not_before IS 'When its time begins.';
COMMENT ON COLUMN cm_certificates.not_after IS 'When its time ends.';
COMMENT ON COLUMN cm_certificates.days_left IS 'Whole days until then; negative when it has ended.';
COMMENT ON COLUMN cm_certificates.state IS 'valid, expiring, expired, not yet valid or unreadable.';
COMMENT ON COLUMN cm_certificates.fingerprint IS 'Its SHA-256, hexadecimal.';
COMMENT ON COLUMN cm_certificates.problem IS 'Why it cannot be read.';

CREATE VIEW cm_issued_certificates AS
SELECT i.serial, i.ca, i.kind, i.common_name, nullif(r.sans, '') AS sans, i.host, r.not_before, r.not_after,
       i.issued_by, i.issued_at
FROM cm_internal.issued_certificates i
CROSS JOIN LATERAL cm_internal.read_certificates(i.cert) r
ORDER BY i.issued_at, i.serial;
COMMENT ON VIEW cm_issued_certificates IS
    'Every certificate that the CAs of this database issued.';
COMMENT ON COLUMN cm_issued_certificates.serial IS 'Its number, hexadecimal.';
COMMENT ON COLUMN cm_issued_certificates.ca IS 'Name of the CA.';
COMMENT ON COLUMN cm_issued_certificates.kind IS 'server or client.';
COMMENT ON COLUMN cm_issued_certificates.common_name IS 'Whose it is.';
COMMENT ON COLUMN cm_issued_certificates.sans IS 'Names and addresses that it is valid for.';
COMMENT ON COLUMN cm_issued_certificates.host IS 'The host that a client certificate was stored for.';
COMMENT ON COLUMN cm_issued_certificates.not_before IS 'When its time begins.';
COMMENT ON COLUMN cm_issued_certificates.not_after IS 'When its time ends.';
COMMENT ON COLUMN cm_issued_certificates.issued_by IS 'Who had it made.';
COMMENT ON COLUMN cm_issued_certificates.issued_at IS 'When it was made.';

-- Helpers

CREATE FUNCTION cm_internal.make_ca(
    name text, common_name text, key_type text, not_before timestamptz, not_after timestamptz,
    OUT cert text, OUT key_sealed bytea)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'cm_certificates_make_ca';
COMMENT ON FUNCTION cm_internal.make_ca(text, text, text, timestamptz, timestamptz) IS
    'Makes a CA''s key and certificate.';

CREATE FUNCTION cm_internal.issue_certificate(
    ca text, ca_cert text, ca_key_sealed bytea, kind text, common_name text, sans text[],
    key_type text, not_before timestamptz, not_after timestamptz,
    OUT cert text, OUT key text)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'cm_certificates_issue';
COMMENT ON FUNCTION cm_internal.issue_certificate(text, text, bytea, text, text, text[], text,
    timestamptz, timestamptz) IS
    'Makes a key and a certificate that a CA signs.';

CREATE FUNCTION cm_internal.find_ca(name text) RETURNS cm_internal.cas
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ca cm_internal.cas;
    nearest text;
BEGIN
    SELECT c.* INTO ca FROM cm_internal.cas c WHERE c.name = find_ca.name;
    IF FOUND THEN
        RETURN ca;
    END IF;
    IF find_ca.name IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'name of the CA is missing',
            HINT = 'SELECT cm_create_ca(''docker'') makes one.';
    END IF;
    nearest := cm_internal.nearest_word(find_ca.name, (SELECT array_agg(c.name) FROM cm_internal.cas c));
    RAISE EXCEPTION USING
        ERRCODE = '42704',
        MESSAGE = format('CA "%s" does not exist', cm_internal.one_line(find_ca.name)),
        HINT = CASE WHEN nearest IS NOT NULL THEN format('Perhaps "%s" was meant.', nearest)
                    ELSE 'TABLE cm_certificates lists those that there are; cm_create_ca makes one.' END;
END
$$;
COMMENT ON FUNCTION cm_internal.find_ca(text) IS 'The CA of that name, or an error.';

CREATE FUNCTION cm_internal.one_line(word text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN left(regexp_replace(word, '[\u0001-\u001f\u007f-\u009f]', '?', 'g'), 64);
COMMENT ON FUNCTION cm_internal.one_line(text) IS 'A word as messages show it.';

CREATE FUNCTION cm_internal.check_validity(valid_for interval, longest interval) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF valid_for < '1 minute' OR valid_for > longest THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('invalid valid_for %s: it must be from 1 minute to %s', valid_for, longest);
    END IF;
END
$$;
COMMENT ON FUNCTION cm_internal.check_validity(interval, interval) IS
    'Refuses a time that is too short or too long; NULL is unsaid.';

-- The certificates of these CAs, one after the other.
CREATE FUNCTION cm_internal.trusted_bundle(ca text, trust text[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT string_agg((cm_internal.find_ca(t.name)).cert, '' ORDER BY t.n)
        FROM (SELECT u.name, min(u.n) AS n
              FROM unnest(coalesce(nullif(trust, '{}'), ARRAY[ca])) WITH ORDINALITY u(name, n)
              GROUP BY u.name) t);
COMMENT ON FUNCTION cm_internal.trusted_bundle(text, text[]) IS
    'PEM of the CAs that are to be trusted: those, or the one that issues.';

CREATE FUNCTION cm_internal.issue(
    ca text, kind text, common_name text, sans text[], key_type text, valid_for interval, host text,
    OUT cert text, OUT key text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_ca cm_internal.cas := cm_internal.find_ca(issue.ca);
    of_ca record;
    not_after timestamptz;
BEGIN
    PERFORM cm_internal.check_validity(issue.valid_for, '825 days');
    SELECT r.* INTO of_ca FROM cm_internal.read_certificates(found_ca.cert) r;
    IF of_ca.not_after <= now() + interval '1 minute' THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('CA "%s" has expired', found_ca.name),
            DETAIL = format('It was valid until %s.', of_ca.not_after),
            HINT = 'Make another by cm_create_ca, and let hosts trust both until all have new certificates.';
    END IF;
    IF now() + issue.valid_for > of_ca.not_after THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('invalid valid_for %s: CA "%s" ends before', issue.valid_for, found_ca.name),
            DETAIL = format('It is valid until %s.', of_ca.not_after),
            HINT = 'Leave valid_for out, or make another CA by cm_create_ca.';
    END IF;
    not_after := least(now() + coalesce(issue.valid_for, '365 days'), of_ca.not_after);

    SELECT i.cert, i.key INTO issue.cert, issue.key
    FROM cm_internal.issue_certificate(found_ca.name, found_ca.cert, found_ca.key_sealed, issue.kind,
             issue.common_name, coalesce(issue.sans, '{}'), coalesce(issue.key_type, 'ec'),
             greatest(now() - interval '5 minutes', of_ca.not_before), not_after) i;
    INSERT INTO cm_internal.issued_certificates (serial, ca, kind, common_name, host, cert, fingerprint, issued_by)
    SELECT r.serial, found_ca.name, issue.kind, issue.common_name, issue.host, issue.cert, r.fingerprint,
           cm_internal.caller()
    FROM cm_internal.read_certificates(issue.cert) r;
END
$$;
COMMENT ON FUNCTION cm_internal.issue(text, text, text, text[], text, interval, text) IS
    'Issues a certificate and notes that.';

-- What administrators call

CREATE FUNCTION cm_create_ca(
    name text,
    common_name text DEFAULT NULL,
    key_type text DEFAULT 'ec',
    valid_for interval DEFAULT '3650 days'
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made record;
BEGIN
    IF cm_create_ca.name IS NULL OR cm_create_ca.name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$' THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = format('invalid name "%s" of a CA', cm_internal.one_line(cm_create_ca.name)),
            DETAIL = 'It is 1 to 63 letters, digits, "_", "." and "-", and begins with a letter or digit.';
    END IF;
    PERFORM cm_internal.check_validity(valid_for, '7300 days');
    IF EXISTS (SELECT FROM cm_internal.cas c WHERE c.name = cm_create_ca.name) THEN
        RAISE EXCEPTION USING
            ERRCODE = '23505',
            MESSAGE = format('CA "%s" exists already', cm_create_ca.name),
            HINT = 'Choose another name; hosts can trust both while certificates are renewed.';
    END IF;
    -- Before the key is read: cm_rotate_secret_key() waits for it, or is waited for.
    LOCK TABLE cm_internal.cas IN ROW EXCLUSIVE MODE;
    SELECT m.* INTO made
    FROM cm_internal.make_ca(cm_create_ca.name, coalesce(cm_create_ca.common_name, cm_create_ca.name),
             coalesce(key_type, 'ec'), now() - interval '5 minutes',
             now() + coalesce(valid_for, '3650 days')) m;
    INSERT INTO cm_internal.cas (name, cert, fingerprint, key_sealed, created_by)
    SELECT cm_create_ca.name, made.cert, r.fingerprint, made.key_sealed, cm_internal.caller()
    FROM cm_internal.read_certificates(made.cert) r;
    RETURN made.cert;
END
$$;
COMMENT ON FUNCTION cm_create_ca(text, text, text, interval) IS
    'Makes a CA, and returns its certificate. Its key is stored sealed and cannot be read. key_type is ec (P-256) or rsa (3072 bits).';

CREATE FUNCTION cm_drop_ca(name text, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_ca cm_internal.cas := cm_internal.find_ca(cm_drop_ca.name);
    used_by text;
BEGIN
    SELECT string_agg(DISTINCT format('"%s"', c.host), ', ') INTO used_by
    FROM @extschema@.cm_certificates c
    WHERE c.host IS NOT NULL
      AND c.ca = found_ca.name;
    IF used_by IS NOT NULL AND force IS NOT TRUE THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('CA "%s" cannot be dropped: it is in use', found_ca.name),
            DETAIL = format('It, or certificates of it, are used by host(s) %s.', used_by),
            HINT = 'Give these certificates of another CA first; with force => true it is dropped, and what it issued remains valid.';
    END IF;
    DELETE FROM cm_internal.cas c WHERE c.name = found_ca.name;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION cm_drop_ca(text, boolean) IS
    'Drops a CA and its key. What it issued stays valid until it ends; refused while hosts use that, unless forced.';

CREATE FUNCTION cm_issue_server_certificate(
    ca text,
    host_name text,
    sans text[] DEFAULT NULL,
    key_type text DEFAULT 'ec',
    valid_for interval DEFAULT NULL,
    trust text[] DEFAULT NULL
) RETURNS TABLE (ca_pem text, cert_pem text, key_pem text, dockerd_command text, daemon_json text)
LANGUAGE plpgsql SECURITY DEFINER
ROWS 1
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made record;
    path constant text := '/etc/docker/certs/';
BEGIN
    IF host_name IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '22023',
            MESSAGE = 'host_name is missing',
            HINT = 'Give the name or address by which the database server reaches the host; more go into sans.';
    END IF;
    ca_pem := cm_internal.trusted_bundle(ca, trust);
    SELECT i.* INTO made
    FROM cm_internal.issue(ca, 'server', host_name, ARRAY[host_name] || sans, key_type, valid_for, NULL) i;
    cert_pem := made.cert;
    key_pem := made.key;
    dockerd_command := format('dockerd --tlsverify --tlscacert=%1$sca.pem --tlscert=%1$sserver-cert.pem'
        ' --tlskey=%1$sserver-key.pem -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376', path);
    daemon_json := jsonb_pretty(jsonb_build_object('tls', true, 'tlsverify', true,
        'tlscacert', path || 'ca.pem', 'tlscert', path || 'server-cert.pem',
        'tlskey', path || 'server-key.pem',
        'hosts', jsonb_build_array('unix:///var/run/docker.sock', 'tcp://0.0.0.0:2376')));
    RAISE NOTICE USING
        MESSAGE = format('the private key of "%s" is returned this once, and is not stored', host_name),
        HINT = format('Put the three texts into %sca.pem, server-cert.pem and server-key.pem (mode 0400) on the host, and start: %s', path, dockerd_command);
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION cm_issue_server_certificate(text, text, text[], text, interval, text[]) IS
    'Makes key and certificate for a Docker host. Returned once, with what to start dockerd with; not stored. trust: CAs whose clients it takes; unsaid, the one that issues.';

CREATE FUNCTION cm_issue_client_certificate(
    ca text,
    host text DEFAULT NULL,
    common_name text DEFAULT NULL,
    key_type text DEFAULT 'ec',
    valid_for interval DEFAULT NULL,
    trust text[] DEFAULT NULL
) RETURNS TABLE (ca_pem text, cert_pem text, key_pem text)
LANGUAGE plpgsql SECURITY DEFINER
ROWS 1
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    made record;
    host_found text := CASE WHEN cm_issue_client_certificate.host IS NOT NULL
                            THEN (cm_internal.find_host(cm_issue_client_certificate.host)).name END;
BEGIN
    ca_pem := cm_internal.trusted_bundle(ca, trust);
    SELECT i.* INTO made
    FROM cm_internal.issue(ca, 'client',
             coalesce(cm_issue_client_certificate.common_name, host_found, 'container_manager'), NULL,
             key_type, valid_for, host_found) i;
    cert_pem := made.cert;
    IF host_found IS NULL THEN
        key_pem := made.key;
        RAISE NOTICE USING
            MESSAGE = 'the private key is returned this once, and is not stored',
            HINT = 'As ca.pem, cert.pem and key.pem (mode 0400) in one directory the three texts are what DOCKER_CERT_PATH and tls_cert_path name.';
    ELSE
        PERFORM @extschema@.cm_set_host_tls(host_found, ca_pem, made.cert, made.key);
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION cm_issue_client_certificate(text, text, text, text, interval, text[]) IS
    'Makes key and certificate for a client of Docker hosts. With host they are stored for it, and key_pem is NULL; without they are returned once. trust: CAs whose servers it takes; unsaid, the one that issues.';

-- For those who read them through views.
REVOKE ALL ON FUNCTION
    cm_internal.read_certificates(text),
    cm_internal.certificate_state(timestamptz, timestamptz),
    cm_internal.make_ca(text, text, text, timestamptz, timestamptz),
    cm_internal.issue_certificate(text, text, bytea, text, text, text[], text, timestamptz, timestamptz),
    cm_internal.find_ca(text),
    cm_internal.one_line(text),
    cm_internal.check_validity(interval, interval),
    cm_internal.trusted_bundle(text, text[]),
    cm_internal.issue(text, text, text, text[], text, interval, text),
    cm_create_ca(text, text, text, interval),
    cm_drop_ca(text, boolean),
    cm_issue_server_certificate(text, text, text[], text, interval, text[]),
    cm_issue_client_certificate(text, text, text, text, interval, text[])
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    cm_internal.read_certificates(text),
    cm_internal.certificate_state(timestamptz, timestamptz)
TO PUBLIC;
