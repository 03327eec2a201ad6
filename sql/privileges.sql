-- Who may do what.
CREATE EXTENSION multisite_repl;
CREATE ROLE nobody_special;
CREATE ROLE watcher IN ROLE pg_monitor;

-- nothing of ours may be executed or read by everybody
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'multisite_repl')
  AND has_function_privilege('nobody_special', p.oid, 'EXECUTE');
SELECT c.oid::regclass FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass
WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'multisite_repl')
  AND has_table_privilege('nobody_special', c.oid, 'SELECT, INSERT, UPDATE, DELETE');

SET ROLE nobody_special;
SELECT multisite_create_consistency_point('mine');
SELECT * FROM multisite_status;
-- 16 has another message
\set VERBOSITY sqlstate
SHOW multisite.kafka_options;
\set VERBOSITY default
RESET ROLE;

-- pg_monitor sees the views, and does nothing
SET ROLE watcher;
SELECT count(*) FROM multisite_status;
SELECT count(*) >= 0 FROM multisite_consistency_points;
SELECT count(*) FROM multisite_segments;
SELECT conninfo FROM multisite.segment;
SELECT multisite_create_consistency_point('mine');
SELECT multisite_promote();
SELECT * FROM multisite_in_doubt;
SELECT * FROM multisite_resolve_in_doubt();
SELECT * FROM multisite.prepared_outcomes('a', '{}');
RESET ROLE;

-- EXECUTE can be granted, but a segment's connection string needs a superuser
GRANT EXECUTE ON FUNCTION multisite_add_segment(integer, text, text) TO nobody_special;
GRANT EXECUTE ON FUNCTION multisite_create_consistency_point(text) TO nobody_special;
SET ROLE nobody_special;
SELECT multisite_add_segment(0, 'host=/tmp user=postgres');
SELECT multisite_create_consistency_point('by grant');
RESET ROLE;

-- values that may be secret are shown to nobody
-- (the server's configuration file sets it)
SHOW multisite.kafka_options;
SELECT count(*) FROM pg_settings WHERE name IN ('multisite.kafka_options', 'multisite.local_conninfo')
	OR setting LIKE '%geheim%' OR reset_val LIKE '%geheim%' OR boot_val LIKE '%geheim%';

DROP EXTENSION multisite_repl;
DROP ROLE nobody_special;
DROP ROLE watcher;
