CREATE FUNCTION cm_internal.home(OUT home text, OUT timeline bigint)
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'cm_identity_home';
COMMENT ON FUNCTION cm_internal.home() IS
    'Where this cluster lives: inode and time of birth of its PG_VERSION; and its timeline, NULL in recovery.';

-- Who this database is to the engines.  Not dumped: a restored copy is
-- somebody else.
CREATE TABLE cm_internal.identity (
    epoch uuid NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    incarnation integer NOT NULL DEFAULT 1,
    home text NOT NULL,
    timeline bigint NOT NULL,
    held_because text,
    held_since timestamptz,
    seen_incarnation integer NOT NULL DEFAULT 0,
    seen_on text,
    take_over_asked boolean NOT NULL DEFAULT false,
    old_jobs_up_to bigint NOT NULL DEFAULT 0,
    CONSTRAINT held_because_is_known CHECK (held_because IN ('copied', 'recovered', 'superseded'))
);
CREATE UNIQUE INDEX identity_is_one_row ON cm_internal.identity ((true));
COMMENT ON INDEX cm_internal.identity_is_one_row IS 'Keeps the table at one row.';
COMMENT ON TABLE cm_internal.identity IS
    'One row: the epoch under which containers are labelled. The oid tells a copy of the database, the system identifier an upgraded cluster, home and timeline a copy of the files or a recovery.';
COMMENT ON COLUMN cm_internal.identity.incarnation IS
    'Raised by each takeover. Whoever sees a higher one of his epoch on a host stops.';
COMMENT ON COLUMN cm_internal.identity.held_because IS
    'Why nothing is done on any host; NULL: it is.';
COMMENT ON COLUMN cm_internal.identity.seen_incarnation IS
    'The incarnation that superseded this one, seen on the host seen_on.';
COMMENT ON COLUMN cm_internal.identity.old_jobs_up_to IS
    'Jobs up to this one may have been started by the server before the last takeover, unknown to this one.';

INSERT INTO cm_internal.identity (epoch, system_identifier, database_oid, home, timeline)
SELECT gen_random_uuid(), s.system_identifier, d.oid, h.home, h.timeline
FROM pg_control_system() s, pg_database d, cm_internal.home() h
WHERE d.datname = current_database();

-- Jobs may be submitted to a copy before its executor has looked round: both
-- must come to the same epoch without asking each other.  With the home in it,
-- for a clone of the cluster gives its next databases the same oids.
CREATE VIEW cm_internal.current_identity AS
SELECT
    CASE WHEN i.database_oid = d.oid THEN i.epoch
         ELSE left(encode(sha256(convert_to(
                  concat_ws('/', i.epoch, d.oid, i.system_identifier,
                            (SELECT h.home FROM cm_internal.home() h)), 'UTF8')), 'hex'), 32)::uuid
    END AS epoch
FROM cm_internal.identity i, pg_database d
WHERE d.datname = current_database();
COMMENT ON VIEW cm_internal.current_identity IS
    'The epoch of this database. In one copied by CREATE DATABASE it is new, though the table may still be as it was copied.';

-- For those who read current_identity through other views: it is called with
-- their rights, and without USAGE on the schema in no other way.
REVOKE ALL ON FUNCTION cm_internal.home() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION cm_internal.home() TO PUBLIC;
