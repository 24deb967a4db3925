-- Every object of the extension that can bear a comment bears one, and the first
-- sentence of a public one fits a line of \df+.
CREATE EXTENSION container_manager;

-- Objects without a comment: none
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS without_comment
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass
    AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'container_manager')
    AND d.deptype = 'e'
    AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_namespace'::regclass,
                      'pg_event_trigger'::regclass)
    AND obj_description(d.objid, d.classid::regclass::name) IS NULL
    AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND d.classid = 'pg_class'::regclass
                    AND c.relkind = 'S')
ORDER BY 1;

-- Columns of public tables and views, and indexes, without a comment: none
SELECT a.attrelid::regclass AS of_relation, a.attname AS without_comment
FROM pg_attribute a
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = a.attrelid AND d.deptype = 'e'
    JOIN pg_class c ON c.oid = a.attrelid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'container_manager')
    AND c.relkind IN ('r', 'v') AND c.relnamespace <> 'cm_internal'::regnamespace
    AND a.attnum > 0 AND NOT a.attisdropped
    AND col_description(a.attrelid, a.attnum) IS NULL
ORDER BY 1, 2;
SELECT i.indexrelid::regclass AS index_without_comment
FROM pg_index i
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indrelid AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'container_manager')
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
    AND obj_description(i.indexrelid, 'pg_class') IS NULL
ORDER BY 1;

-- Public objects whose first sentence is too long: none
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS too_long,
    length(split_part(obj_description(d.objid, d.classid::regclass::name), '. ', 1)) AS length
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass
    AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'container_manager')
    AND d.deptype = 'e'
    AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass)
    AND pg_describe_object(d.classid, d.objid, d.objsubid) ~ '^\w+ (view )?(public\.)?cm_(?!internal)'
    AND length(split_part(obj_description(d.objid, d.classid::regclass::name), '. ', 1)) > 60
ORDER BY 1;

-- Functions that run with their owner's rights and do not fix search_path: none
SELECT p.oid::regprocedure AS open_search_path
FROM pg_proc p
    JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'container_manager')
    AND p.prosecdef
    AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%')
ORDER BY 1;

DROP EXTENSION container_manager;
