-- Who this database is to the engines.  Not dumped: a restored copy is
-- somebody else.
CREATE TABLE cm_internal.identity (
    epoch uuid NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    incarnation integer NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX identity_is_one_row ON cm_internal.identity ((true));
COMMENT ON INDEX cm_internal.identity_is_one_row IS 'Keeps the table at one row.';
COMMENT ON TABLE cm_internal.identity IS
    'One row: the epoch under which containers are labelled. The oid tells a copy of the database, the system identifier an upgraded cluster.';

INSERT INTO cm_internal.identity (epoch, system_identifier, database_oid)
SELECT gen_random_uuid(), s.system_identifier, d.oid
FROM pg_control_system() s, pg_database d
WHERE d.datname = current_database();

-- Jobs may be submitted to a copy before its executor has looked round: both
-- must come to the same epoch without asking each other.
CREATE VIEW cm_internal.current_identity AS
SELECT
    CASE WHEN i.database_oid = d.oid THEN i.epoch
         ELSE left(encode(sha256(convert_to(
                  concat_ws('/', i.epoch, d.oid, i.system_identifier), 'UTF8')), 'hex'), 32)::uuid
    END AS epoch
FROM cm_internal.identity i, pg_database d
WHERE d.datname = current_database();
COMMENT ON VIEW cm_internal.current_identity IS
    'The epoch of this database. In one copied by CREATE DATABASE it is new, though the table may still be as it was copied.';
