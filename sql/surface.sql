-- The SQL surface: what CREATE EXTENSION installs, and that it works on a
-- cluster of one.
CREATE EXTENSION multisite_repl;

SELECT pg_describe_object(classid, objid, objsubid) AS object
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND classid <> 'pg_type'::regclass
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'multisite_repl')
ORDER BY pg_describe_object(classid, objid, objsubid) COLLATE "C";

-- every object, and every column of a view or table, has a comment
WITH member AS (
	SELECT classid, objid FROM pg_depend
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'multisite_repl'))
SELECT pg_describe_object(classid, objid, 0) AS without_comment
FROM member
WHERE classid <> 'pg_type'::regclass AND obj_description(objid, (SELECT relname FROM pg_class WHERE oid = classid)) IS NULL
UNION ALL
SELECT pg_describe_object(classid, objid, attnum)
FROM member JOIN pg_attribute ON attrelid = objid AND attnum > 0
WHERE classid = 'pg_class'::regclass AND objid::regclass::text !~ 'pkey' AND col_description(objid, attnum) IS NULL;

-- the workers
SELECT worker, state IN ('waiting', 'running', 'connecting', 'starting', 'positioning') AS works, state = 'stopped' AS stopped
FROM multisite_status ORDER BY worker;

-- points; a session that asks early waits for the worker
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
SELECT multisite_create_consistency_point('regress one');
SELECT multisite_create_consistency_point() ~ '^multisite_00000002_\d{8}T\d{6}\.\d{3}Z$' AS has_a_name;
SELECT multisite_wait_for_consistency_point('regress one', 'published');
SELECT multisite_wait_for_consistency_point('regress one', 'applied', '1 ms');
SELECT id, left(name, 18) AS name, state, segments, timeline, barrier_ms > 0 AS barrier, skew_ms >= 0 AS skew,
	   lsn IS NOT NULL AS lsn, published_at >= created_at AS published, applied_at
FROM multisite_consistency_points ORDER BY id;

-- the registry
SELECT multisite_add_segment(0, 'host=a.example port=5432 user=u password=secret dbname=d sslpassword=hush');
SELECT multisite_add_segment(0, 'host=b.example', 'dr');
SELECT multisite_add_segment(0, 'host=c.example', 'dr');
SELECT site, segment_id, conninfo, state FROM multisite_segments ORDER BY site, segment_id;
SELECT multisite_remove_segment(0);
SELECT multisite_remove_segment(0, 'dr');
SELECT count(*) FROM multisite_segments;

SHOW multisite.segment_id;
DROP EXTENSION multisite_repl;
SELECT count(*) FROM pg_namespace WHERE nspname = 'multisite';
