CREATE TABLE cm_hosts (
    id integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    name text PRIMARY KEY,
    host_type text NOT NULL,
    connection_string text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    tls_enabled boolean NOT NULL,
    tls_verify boolean NOT NULL,
    tls_cert_path text,
    max_concurrent_jobs integer NOT NULL DEFAULT 10,
    weight integer NOT NULL DEFAULT 100,
    auto_pull_images boolean NOT NULL DEFAULT true,
    executor_type text NOT NULL DEFAULT 'docker',
    executor_config jsonb NOT NULL DEFAULT '{}',
    labels jsonb NOT NULL DEFAULT '{}',
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT host_type_is_known CHECK (host_type IN ('unix', 'tcp', 'mock')),
    CONSTRAINT executor_type_is_known CHECK (executor_type IN ('docker', 'mock')),
    CONSTRAINT max_concurrent_jobs_in_range CHECK (max_concurrent_jobs BETWEEN 0 AND 10000),
    CONSTRAINT weight_in_range CHECK (weight BETWEEN 1 AND 1000),
    CONSTRAINT executor_config_is_an_object CHECK (jsonb_typeof(executor_config) = 'object'),
    CONSTRAINT labels_are_an_object CHECK (jsonb_typeof(labels) = 'object')
);
SELECT pg_extension_config_dump('cm_hosts', '');
SELECT pg_extension_config_dump('cm_hosts_id_seq', '');

COMMENT ON TABLE cm_hosts IS
    'Docker hosts, one row each: configuration only. Their state is in cm_host_status.';
COMMENT ON COLUMN cm_hosts.id IS 'Number used inside; names are for people.';
COMMENT ON COLUMN cm_hosts.name IS 'Unique name of the host.';
COMMENT ON COLUMN cm_hosts.host_type IS 'unix, tcp or mock, taken from the connection string.';
COMMENT ON COLUMN cm_hosts.connection_string IS 'unix:///path of a socket, tcp://host:port, or mock://NAME.';
COMMENT ON COLUMN cm_hosts.is_active IS 'Whether new jobs may be started there.';
COMMENT ON COLUMN cm_hosts.tls_enabled IS 'Whether a tcp host is spoken to by TLS.';
COMMENT ON COLUMN cm_hosts.tls_verify IS 'Whether the certificate of a tcp host is verified.';
COMMENT ON COLUMN cm_hosts.tls_cert_path IS 'Directory with ca.pem, cert.pem and key.pem, as DOCKER_CERT_PATH.';
COMMENT ON COLUMN cm_hosts.max_concurrent_jobs IS 'Slots: how many jobs may be launching or running there at once.';
COMMENT ON COLUMN cm_hosts.weight IS 'Share of jobs relative to other hosts, 1 to 1000.';
COMMENT ON COLUMN cm_hosts.auto_pull_images IS 'Whether an image that the host lacks is pulled.';
COMMENT ON COLUMN cm_hosts.executor_type IS 'docker or mock. Neither starts a job twice; mock runs none and ends them as scripted.';
COMMENT ON COLUMN cm_hosts.executor_config IS 'Options of the executor type: {"require_userns": true}; or the script of a mock host.';
COMMENT ON COLUMN cm_hosts.labels IS 'Labels for choosing hosts.';
COMMENT ON COLUMN cm_hosts.description IS 'Free text.';
COMMENT ON COLUMN cm_hosts.created_at IS 'When the host was added.';
COMMENT ON COLUMN cm_hosts.updated_at IS 'When its configuration was last changed.';

-- What the executor and administrators know of a host beyond its
-- configuration.  Written apart from it, so that configuration applied again
-- neither undoes a drain nor waits for the executor.
CREATE TABLE cm_internal.host_drains (
    host_name text PRIMARY KEY,
    reason text,
    drained_by name NOT NULL DEFAULT current_user,
    drained_at timestamptz NOT NULL DEFAULT now(),
    removed_by name
);
SELECT pg_extension_config_dump('cm_internal.host_drains', '');
COMMENT ON TABLE cm_internal.host_drains IS
    'Hosts that an administrator disabled, with reason: running jobs end, none start.';
COMMENT ON COLUMN cm_internal.host_drains.removed_by IS
    'Who wants the host removed by force: the executor cancels its jobs, then removes it.';

-- Certificates in the clear, for they are shown to everybody who connects; the key
-- sealed, bound to its host.
CREATE TABLE cm_internal.host_tls (
    host_id integer PRIMARY KEY,
    ca text,
    cert text,
    key_sealed bytea,
    set_by name NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT certificate_has_its_key CHECK ((cert IS NULL) = (key_sealed IS NULL))
);
SELECT pg_extension_config_dump('cm_internal.host_tls', '');
COMMENT ON TABLE cm_internal.host_tls IS
    'What cm_set_host_tls stored. The key is sealed.';

-- Not dumped: it is seen again.
CREATE TABLE cm_internal.host_certificates (
    host_id integer NOT NULL,
    source text NOT NULL,
    cert text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (host_id, source),
    CONSTRAINT source_is_known CHECK (source IN ('ca.pem', 'cert.pem', 'presented')),
    CONSTRAINT cert_is_bounded CHECK (octet_length(cert) <= 1048576)
);
COMMENT ON TABLE cm_internal.host_certificates IS
    'Certificates that the executor saw in use. PEM, of the files of tls_cert_path and as presented by the engine.';

CREATE TABLE cm_internal.host_states (
    host_id integer PRIMARY KEY,
    state text NOT NULL DEFAULT 'unknown',
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen timestamptz,
    engine_version text,
    api_version text,
    cpus integer,
    memory_bytes bigint,
    error text,
    hint text,
    engine_id text,
    seen_engine_id text,
    containers_running integer,
    containers_paused integer,
    containers_stopped integer,
    images integer,
    disk_free bigint,
    storage_driver text,
    security_options text[],
    warnings text[],
    live_restore boolean,
    experimental boolean,
    CONSTRAINT state_is_known CHECK (state IN ('unknown', 'healthy', 'unhealthy'))
) WITH (fillfactor = 50);
COMMENT ON TABLE cm_internal.host_states IS
    'What the executor last saw of each host; written when it changes.';
COMMENT ON COLUMN cm_internal.host_states.engine_id IS 'The engine that the host''s jobs are on.';
COMMENT ON COLUMN cm_internal.host_states.seen_engine_id IS 'The engine that answered last.';

CREATE TABLE cm_internal.accepted_engines (
    host_id integer PRIMARY KEY,
    engine_id text NOT NULL,
    accepted_by name NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE cm_internal.accepted_engines IS
    'Engines that an administrator accepts in place of that which a host''s jobs are on.';
