-- Who this database is to the engines.  Not dumped: a restored copy is
-- somebody else.
CREATE TABLE cm_internal.identity (
    epoch uuid NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    incarnation integer NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX identity_is_one_row ON cm_internal.identity ((true));
COMMENT ON TABLE cm_internal.identity IS
    'One row: the epoch under which containers are labelled. The oid tells a copy of the database, the system identifier an upgraded cluster.';

INSERT INTO cm_internal.identity (epoch, system_identifier, database_oid)
SELECT gen_random_uuid(), s.system_identifier, d.oid
FROM pg_control_system() s, pg_database d
WHERE d.datname = current_database();
