/* sql/multisite_repl--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION multisite_repl" to load this file. \quit

CREATE SCHEMA multisite;
COMMENT ON SCHEMA multisite IS 'tables and functions that multisite_repl itself uses';
GRANT USAGE ON SCHEMA multisite TO pg_monitor;

-- ---------------------------------------------------------------------------
-- The registry of segments
-- ---------------------------------------------------------------------------

CREATE TABLE multisite.segment (
	site text NOT NULL,
	segment_id integer NOT NULL CHECK (segment_id >= -1),
	conninfo text NOT NULL,
	PRIMARY KEY (site, segment_id)
);
COMMENT ON TABLE multisite.segment IS 'how the coordinator of each site reaches its segments';
COMMENT ON COLUMN multisite.segment.site IS 'multisite.site_name of the segment';
COMMENT ON COLUMN multisite.segment.segment_id IS 'multisite.segment_id of the segment';
COMMENT ON COLUMN multisite.segment.conninfo IS 'libpq connection string; may hold a password';
REVOKE ALL ON multisite.segment FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('multisite.segment', '');

CREATE TABLE multisite.point_name (
	name text PRIMARY KEY,
	reserved_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE multisite.point_name IS 'names that were given to consistency points; each may be used once';
COMMENT ON COLUMN multisite.point_name.name IS 'name of a consistency point';
COMMENT ON COLUMN multisite.point_name.reserved_at IS 'when it was first asked for';
REVOKE ALL ON multisite.point_name FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('multisite.point_name', '');

CREATE FUNCTION multisite_add_segment(segment_id integer, conninfo text, site text DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'multisite_add_segment'
LANGUAGE C VOLATILE CALLED ON NULL INPUT;
COMMENT ON FUNCTION multisite_add_segment(integer, text, text) IS
'registers a segment of a site (default: this one), or changes its connection string; superuser only';
REVOKE ALL ON FUNCTION multisite_add_segment(integer, text, text) FROM PUBLIC;

CREATE FUNCTION multisite_remove_segment(segment_id integer, site text DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'multisite_remove_segment'
LANGUAGE C VOLATILE CALLED ON NULL INPUT;
COMMENT ON FUNCTION multisite_remove_segment(integer, text) IS
'removes a segment of a site (default: this one) from the registry; superuser only';
REVOKE ALL ON FUNCTION multisite_remove_segment(integer, text) FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Consistency points
-- ---------------------------------------------------------------------------

CREATE FUNCTION multisite_create_consistency_point(name text DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'multisite_create_consistency_point'
LANGUAGE C VOLATILE CALLED ON NULL INPUT;
COMMENT ON FUNCTION multisite_create_consistency_point(text) IS
'creates a consistency point across all segments and publishes it; returns its name; on the source coordinator';
REVOKE ALL ON FUNCTION multisite_create_consistency_point(text) FROM PUBLIC;

CREATE FUNCTION multisite_wait_for_consistency_point(name text, state text DEFAULT 'applied',
													 timeout interval DEFAULT '1 minute')
RETURNS boolean
AS 'MODULE_PATHNAME', 'multisite_wait_for_consistency_point'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite_wait_for_consistency_point(text, text, interval) IS
'waits until a point is published, staged, released or applied; false if the timeout comes first';
REVOKE ALL ON FUNCTION multisite_wait_for_consistency_point(text, text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION multisite_wait_for_consistency_point(text, text, interval) TO pg_monitor;

-- ---------------------------------------------------------------------------
-- Verified points
-- ---------------------------------------------------------------------------

CREATE TABLE multisite.verified_point (
	point text PRIMARY KEY,
	digested_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE multisite.verified_point IS 'the newest points whose tables were digested on the source';
COMMENT ON COLUMN multisite.verified_point.point IS 'name of the consistency point';
COMMENT ON COLUMN multisite.verified_point.digested_at IS 'when its digests were complete';
REVOKE ALL ON multisite.verified_point FROM PUBLIC;

CREATE TABLE multisite.digest (
	point text NOT NULL REFERENCES multisite.verified_point ON DELETE CASCADE,
	segment_id integer NOT NULL,
	database text NOT NULL,
	table_name text NOT NULL,
	row_count bigint NOT NULL,
	digest text NOT NULL,
	PRIMARY KEY (point, segment_id, database, table_name)
);
COMMENT ON TABLE multisite.digest IS 'what the tables held at verified points, on the source';
COMMENT ON COLUMN multisite.digest.point IS 'name of the consistency point';
COMMENT ON COLUMN multisite.digest.segment_id IS 'segment of the table; the coordinator is -1';
COMMENT ON COLUMN multisite.digest.database IS 'database of the table';
COMMENT ON COLUMN multisite.digest.table_name IS 'table, with its schema';
COMMENT ON COLUMN multisite.digest.row_count IS 'number of rows';
COMMENT ON COLUMN multisite.digest.digest IS 'sum of a 64-bit hash of each row''s text';
REVOKE ALL ON multisite.digest FROM PUBLIC;

CREATE FUNCTION multisite_create_verified_point(name text DEFAULT NULL, tables text[] DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'multisite_create_verified_point'
LANGUAGE C VOLATILE CALLED ON NULL INPUT;
COMMENT ON FUNCTION multisite_create_verified_point(text, text[]) IS
'creates a consistency point, and digests of all tables, or these, as they are at it, for multisite_verify(); on the source coordinator; superuser only';
REVOKE ALL ON FUNCTION multisite_create_verified_point(text, text[]) FROM PUBLIC;

CREATE FUNCTION multisite_verify(point text, tables text[] DEFAULT NULL, timeout interval DEFAULT '10 minutes',
								 OUT segment_id integer, OUT database text, OUT table_name text,
								 OUT source_rows bigint, OUT remote_rows bigint, OUT result text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'multisite_verify'
LANGUAGE C VOLATILE CALLED ON NULL INPUT;
COMMENT ON FUNCTION multisite_verify(text, text[], interval) IS
'holds the remote site at a verified point and compares its tables with the source''s; the result is equal, different or missing; on the remote coordinator; superuser only';
REVOKE ALL ON FUNCTION multisite_verify(text, text[], interval) FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- The remote site
-- ---------------------------------------------------------------------------

CREATE FUNCTION multisite_promote(point text DEFAULT NULL, timeout interval DEFAULT '5 minutes',
								  offline boolean DEFAULT false)
RETURNS text
AS 'MODULE_PATHNAME', 'multisite_promote'
LANGUAGE C VOLATILE CALLED ON NULL INPUT;
COMMENT ON FUNCTION multisite_promote(text, interval, boolean) IS
'promotes the whole remote site at a consistency point, by default the newest that all segments have; offline: without Kafka, over the registered connection strings; on the remote coordinator';
REVOKE ALL ON FUNCTION multisite_promote(text, interval, boolean) FROM PUBLIC;

CREATE FUNCTION multisite_pause()
RETURNS text
AS 'MODULE_PATHNAME', 'multisite_pause'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite_pause() IS
'holds the remote site at its newest released point, which is returned; WAL is still staged';
REVOKE ALL ON FUNCTION multisite_pause() FROM PUBLIC;

CREATE FUNCTION multisite_resume()
RETURNS text
AS 'MODULE_PATHNAME', 'multisite_resume'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite_resume() IS 'ends multisite_pause()';
REVOKE ALL ON FUNCTION multisite_resume() FROM PUBLIC;

CREATE FUNCTION multisite_take_over_pipe()
RETURNS void
AS 'MODULE_PATHNAME', 'multisite_take_over_pipe'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite_take_over_pipe() IS
'lets this server publish to a pipe that another server claimed on the same timeline; that other one must be gone for good';
REVOKE ALL ON FUNCTION multisite_take_over_pipe() FROM PUBLIC;

CREATE FUNCTION multisite_resolve_in_doubt(timeout interval DEFAULT '1 minute',
										   OUT gid text, OUT segment_id integer, OUT action text,
										   OUT done boolean, OUT error text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'multisite_resolve_in_doubt'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite_resolve_in_doubt(interval) IS
'commits or rolls back the prepared transactions whose outcome follows from another segment, and lists the others; on the promoted coordinator';
REVOKE ALL ON FUNCTION multisite_resolve_in_doubt(interval) FROM PUBLIC;

CREATE FUNCTION multisite.in_doubt(
	OUT gid text, OUT segment_id integer, OUT database text, OUT owner text, OUT prepared_at timestamptz,
	OUT prepared_on integer[], OUT committed_on integer[], OUT rolled_back_on integer[], OUT absent_on integer[],
	OUT verdict text, OUT reason text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'multisite_in_doubt'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.in_doubt() IS 'behind multisite_in_doubt';
REVOKE ALL ON FUNCTION multisite.in_doubt() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION multisite.in_doubt() TO pg_monitor;

CREATE VIEW multisite_in_doubt AS SELECT * FROM multisite.in_doubt();
COMMENT ON VIEW multisite_in_doubt IS
'on a promoted coordinator: the prepared transactions of all segments, and what the other segments know of each';
COMMENT ON COLUMN multisite_in_doubt.gid IS 'global identifier, the same on all segments';
COMMENT ON COLUMN multisite_in_doubt.segment_id IS 'segment on which it is prepared';
COMMENT ON COLUMN multisite_in_doubt.database IS 'database in which it is prepared';
COMMENT ON COLUMN multisite_in_doubt.owner IS 'user who prepared it';
COMMENT ON COLUMN multisite_in_doubt.prepared_at IS 'when, by the clock of the segment at the source';
COMMENT ON COLUMN multisite_in_doubt.prepared_on IS 'segments on which it is prepared, this one among them';
COMMENT ON COLUMN multisite_in_doubt.committed_on IS 'segments that committed it before the point of the promotion';
COMMENT ON COLUMN multisite_in_doubt.rolled_back_on IS 'segments that rolled it back before the point of the promotion';
COMMENT ON COLUMN multisite_in_doubt.absent_on IS 'segments that know nothing of it';
COMMENT ON COLUMN multisite_in_doubt.verdict IS 'commit, rollback, unknown or contradiction';
COMMENT ON COLUMN multisite_in_doubt.reason IS 'from what the verdict follows, in words';
REVOKE ALL ON multisite_in_doubt FROM PUBLIC;
GRANT SELECT ON multisite_in_doubt TO pg_monitor;

CREATE FUNCTION multisite.prepared_outcomes(point text, gids text[], OUT gid text, OUT outcome text,
											OUT ended_at timestamptz, OUT outcomes integer)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'multisite_prepared_outcomes'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.prepared_outcomes(text, text[]) IS
'how prepared transactions of these gids have ended on this segment before its promotion at this point';
REVOKE ALL ON FUNCTION multisite.prepared_outcomes(text, text[]) FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- What the source coordinator calls on each segment
-- ---------------------------------------------------------------------------

CREATE FUNCTION multisite.identity(OUT cluster_name text, OUT site_name text, OUT segment_id integer,
								   OUT in_recovery boolean, OUT system_id text)
AS 'MODULE_PATHNAME', 'multisite_identity'
LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION multisite.identity() IS 'which segment this server is';
REVOKE ALL ON FUNCTION multisite.identity() FROM PUBLIC;

CREATE FUNCTION multisite.barrier_raise(timeout_ms integer, completely boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME', 'multisite_barrier_raise'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.barrier_raise(integer, boolean) IS
'holds back commits until multisite.barrier_lower(), the end of this session, or the timeout';
REVOKE ALL ON FUNCTION multisite.barrier_raise(integer, boolean) FROM PUBLIC;

CREATE FUNCTION multisite.write_restore_point(name text, OUT lsn pg_lsn, OUT timeline integer)
AS 'MODULE_PATHNAME', 'multisite_write_restore_point'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.write_restore_point(text) IS
'writes a restore point under the barrier that this session raised';
REVOKE ALL ON FUNCTION multisite.write_restore_point(text) FROM PUBLIC;

CREATE FUNCTION multisite.barrier_lower()
RETURNS void
AS 'MODULE_PATHNAME', 'multisite_barrier_lower'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.barrier_lower() IS
'lets commits go on, and makes the restore point durable';
REVOKE ALL ON FUNCTION multisite.barrier_lower() FROM PUBLIC;

CREATE FUNCTION multisite.commits()
RETURNS bigint
AS 'MODULE_PATHNAME', 'multisite_commits'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.commits() IS
'commits of transactions with an xid since server start; a point is skipped when it has not changed';
REVOKE ALL ON FUNCTION multisite.commits() FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- What the remote coordinator calls on each segment, to promote it without Kafka
-- ---------------------------------------------------------------------------

CREATE FUNCTION multisite.staged_points(OUT points text, OUT promotion bigint)
AS 'MODULE_PATHNAME', 'multisite_staged_points'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.staged_points() IS
'ids of the points at which this segment can be promoted, and that of a promotion that has begun, or 0';
REVOKE ALL ON FUNCTION multisite.staged_points() FROM PUBLIC;

CREATE FUNCTION multisite.promote_segment(point text, others_promoted boolean)
RETURNS void
AS 'MODULE_PATHNAME', 'multisite_promote_segment'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.promote_segment(text, boolean) IS
'lets this segment be promoted at a point without Kafka; part of multisite_promote(offline => true)';
REVOKE ALL ON FUNCTION multisite.promote_segment(text, boolean) FROM PUBLIC;

CREATE FUNCTION multisite.wait_promoted(timeout_ms integer)
RETURNS void
AS 'MODULE_PATHNAME', 'multisite_wait_promoted'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.wait_promoted(integer) IS 'waits until this segment accepts writes';
REVOKE ALL ON FUNCTION multisite.wait_promoted(integer) FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Greenplum
-- ---------------------------------------------------------------------------

CREATE FUNCTION multisite_accept_configuration()
RETURNS integer
AS 'MODULE_PATHNAME', 'multisite_accept_configuration'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite_accept_configuration() IS
'on a promoted Greenplum coordinator in utility role: checks that gp_segment_configuration names the segments of its own site, and lets it start in dispatch role; returns how many there are, itself included; superuser only';
REVOKE ALL ON FUNCTION multisite_accept_configuration() FROM PUBLIC;

CREATE FUNCTION multisite.flush_wal()
RETURNS integer
AS 'MODULE_PATHNAME', 'multisite_flush_wal'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.flush_wal() IS
'makes the WAL of this server durable, and returns its timeline; called on each Greenplum segment after a restore point';
REVOKE ALL ON FUNCTION multisite.flush_wal() FROM PUBLIC;

CREATE FUNCTION multisite.keep_on_coordinator(relation regclass)
RETURNS void
AS 'MODULE_PATHNAME', 'multisite_keep_on_coordinator'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.keep_on_coordinator(regclass) IS
'makes the rows of a new table stay on the Greenplum coordinator; elsewhere it does nothing';
REVOKE ALL ON FUNCTION multisite.keep_on_coordinator(regclass) FROM PUBLIC;

SELECT multisite.keep_on_coordinator('multisite.segment');
SELECT multisite.keep_on_coordinator('multisite.point_name');
SELECT multisite.keep_on_coordinator('multisite.verified_point');
SELECT multisite.keep_on_coordinator('multisite.digest');

-- ---------------------------------------------------------------------------
-- Views
-- ---------------------------------------------------------------------------

CREATE FUNCTION multisite.workers(
	OUT worker text, OUT state text, OUT reason text, OUT since timestamptz, OUT pid integer,
	OUT timeline integer, OUT sent_lsn pg_lsn, OUT published_lsn pg_lsn, OUT staged_lsn pg_lsn,
	OUT released_lsn pg_lsn, OUT applied_lsn pg_lsn, OUT lag_bytes bigint, OUT lag_seconds double precision,
	OUT bytes bigint, OUT messages bigint, OUT bytes_per_second bigint,
	OUT failing_since timestamptz, OUT last_error text, OUT last_error_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'multisite_workers'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.workers() IS 'behind multisite_status';
REVOKE ALL ON FUNCTION multisite.workers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION multisite.workers() TO pg_monitor;

CREATE VIEW multisite_status AS SELECT * FROM multisite.workers();
COMMENT ON VIEW multisite_status IS 'one row for each worker of this server: what it does, and why it waits or failed';
COMMENT ON COLUMN multisite_status.worker IS 'publisher, receiver, orchestrator or points';
COMMENT ON COLUMN multisite_status.state IS 'stopped, disabled, starting, connecting, positioning, waiting, running, blocked, paused, promoting, promoted or failed';
COMMENT ON COLUMN multisite_status.reason IS 'what it waits for, or why it failed, in words';
COMMENT ON COLUMN multisite_status.since IS 'when it entered this state';
COMMENT ON COLUMN multisite_status.pid IS 'process id; null when no process runs';
COMMENT ON COLUMN multisite_status.timeline IS 'timeline of the WAL at hand';
COMMENT ON COLUMN multisite_status.sent_lsn IS 'publisher: handed to the Kafka client up to here';
COMMENT ON COLUMN multisite_status.published_lsn IS 'publisher: acknowledged by Kafka up to here';
COMMENT ON COLUMN multisite_status.staged_lsn IS 'receiver: on disk, not visible to recovery, up to here';
COMMENT ON COLUMN multisite_status.released_lsn IS 'receiver: handed to recovery up to here, the end of a point';
COMMENT ON COLUMN multisite_status.applied_lsn IS 'receiver: replayed up to here';
COMMENT ON COLUMN multisite_status.lag_bytes IS 'publisher: WAL that Kafka has not acknowledged; receiver: WAL that is staged and not applied; null once this server is promoted';
COMMENT ON COLUMN multisite_status.lag_seconds IS 'publisher: age of that WAL; receiver: age of the newest applied point; null once this server is promoted';
COMMENT ON COLUMN multisite_status.bytes IS 'bytes carried since the worker started';
COMMENT ON COLUMN multisite_status.messages IS 'messages carried since the worker started';
COMMENT ON COLUMN multisite_status.bytes_per_second IS 'over the last seconds';
COMMENT ON COLUMN multisite_status.failing_since IS 'when the present series of failures began; null when all is well';
COMMENT ON COLUMN multisite_status.last_error IS 'last error, kept after it is over';
COMMENT ON COLUMN multisite_status.last_error_at IS 'when that happened';
REVOKE ALL ON multisite_status FROM PUBLIC;
GRANT SELECT ON multisite_status TO pg_monitor;

CREATE FUNCTION multisite.points(
	OUT id bigint, OUT name text, OUT state text, OUT created_at timestamptz,
	OUT restore_point_at timestamptz, OUT lsn pg_lsn, OUT timeline integer, OUT segments integer,
	OUT barrier_ms double precision, OUT skew_ms double precision, OUT published_at timestamptz,
	OUT staged_at timestamptz, OUT released_at timestamptz, OUT applied_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'multisite_points'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.points() IS 'behind multisite_consistency_points';
REVOKE ALL ON FUNCTION multisite.points() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION multisite.points() TO pg_monitor;

CREATE VIEW multisite_consistency_points AS SELECT * FROM multisite.points();
COMMENT ON VIEW multisite_consistency_points IS
'the newest 4,096 consistency points; on a coordinator the times are those of the slowest segment';
COMMENT ON COLUMN multisite_consistency_points.id IS 'counts the points of a source site';
COMMENT ON COLUMN multisite_consistency_points.name IS 'name of the point and of its restore points';
COMMENT ON COLUMN multisite_consistency_points.state IS 'created, published, staged, released, applied, or passed (never to be applied: before the end of a base backup, lost in a failover, after the promotion, or never published)';
COMMENT ON COLUMN multisite_consistency_points.created_at IS 'just before the barriers rose, by the source coordinator''s clock';
COMMENT ON COLUMN multisite_consistency_points.restore_point_at IS 'time in this segment''s restore point';
COMMENT ON COLUMN multisite_consistency_points.lsn IS 'end of this segment''s restore point';
COMMENT ON COLUMN multisite_consistency_points.timeline IS 'timeline of that LSN';
COMMENT ON COLUMN multisite_consistency_points.segments IS 'number of segments, the coordinator included';
COMMENT ON COLUMN multisite_consistency_points.barrier_ms IS 'how long commits waited, milliseconds';
COMMENT ON COLUMN multisite_consistency_points.skew_ms IS 'from the first to the last restore point, milliseconds';
COMMENT ON COLUMN multisite_consistency_points.published_at IS 'acknowledged by Kafka';
COMMENT ON COLUMN multisite_consistency_points.staged_at IS 'on the remote disk';
COMMENT ON COLUMN multisite_consistency_points.released_at IS 'handed to recovery';
COMMENT ON COLUMN multisite_consistency_points.applied_at IS 'replayed';
REVOKE ALL ON multisite_consistency_points FROM PUBLIC;
GRANT SELECT ON multisite_consistency_points TO pg_monitor;

CREATE FUNCTION multisite.segment_states(
	OUT site text, OUT segment_id integer, OUT state text, OUT reason text, OUT timeline integer,
	OUT base_lsn pg_lsn, OUT staged_lsn pg_lsn, OUT released_lsn pg_lsn, OUT applied_lsn pg_lsn,
	OUT passed_point text, OUT staged_point text, OUT released_point text, OUT applied_point text,
	OUT replay_bytes_per_second bigint, OUT heard_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'multisite_segment_states'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION multisite.segment_states() IS 'behind multisite_segments';
REVOKE ALL ON FUNCTION multisite.segment_states() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION multisite.segment_states() TO pg_monitor;

CREATE FUNCTION multisite.mask_conninfo(conninfo text)
RETURNS text
AS 'MODULE_PATHNAME', 'multisite_mask_conninfo'
LANGUAGE C IMMUTABLE STRICT;
COMMENT ON FUNCTION multisite.mask_conninfo(text) IS 'a connection string without its secrets';
REVOKE ALL ON FUNCTION multisite.mask_conninfo(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION multisite.mask_conninfo(text) TO pg_monitor;

CREATE VIEW multisite_segments AS
SELECT coalesce(r.site, s.site) AS site,
	   coalesce(r.segment_id, s.segment_id) AS segment_id,
	   multisite.mask_conninfo(r.conninfo) AS conninfo,
	   s.state, s.reason, s.timeline, s.base_lsn, s.staged_lsn, s.released_lsn, s.applied_lsn,
	   s.passed_point, s.staged_point, s.released_point, s.applied_point,
	   s.replay_bytes_per_second, s.heard_at
FROM multisite.segment r
FULL JOIN multisite.segment_states() s ON r.site = s.site AND r.segment_id = s.segment_id;
COMMENT ON VIEW multisite_segments IS
'on a coordinator: the registered segments of all sites, and what those of remote sites reported last';
COMMENT ON COLUMN multisite_segments.site IS 'site of the segment';
COMMENT ON COLUMN multisite_segments.segment_id IS 'id of the segment; the coordinator is -1';
COMMENT ON COLUMN multisite_segments.conninfo IS 'where it is reached, without secrets; null if it is not registered';
COMMENT ON COLUMN multisite_segments.state IS 'starting, following, failed, promoting or promoted; null if it reported nothing, as a source segment';
COMMENT ON COLUMN multisite_segments.reason IS 'what it waits for, or why it failed, in words; or for how long it has been silent';
COMMENT ON COLUMN multisite_segments.timeline IS 'timeline of what it stages';
COMMENT ON COLUMN multisite_segments.base_lsn IS 'where the WAL of its base backup ended';
COMMENT ON COLUMN multisite_segments.staged_lsn IS 'on its disk up to here';
COMMENT ON COLUMN multisite_segments.released_lsn IS 'handed to its recovery up to here';
COMMENT ON COLUMN multisite_segments.applied_lsn IS 'replayed up to here';
COMMENT ON COLUMN multisite_segments.passed_point IS 'newest point that lies before its base backup''s end, or was lost in a failover of its source';
COMMENT ON COLUMN multisite_segments.staged_point IS 'newest point that it has on disk';
COMMENT ON COLUMN multisite_segments.released_point IS 'newest point that is released on it';
COMMENT ON COLUMN multisite_segments.applied_point IS 'newest point that it has applied';
COMMENT ON COLUMN multisite_segments.replay_bytes_per_second IS 'how fast its recovery was, measured at the last large release';
COMMENT ON COLUMN multisite_segments.heard_at IS 'when it reported last, by this server''s clock';
REVOKE ALL ON multisite_segments FROM PUBLIC;
GRANT SELECT ON multisite_segments TO pg_monitor;

CREATE VIEW multisite_estimates AS
WITH point AS (
	SELECT id, name, created_at FROM multisite.points() WHERE published_at IS NOT NULL OR state <> 'passed'
), segment AS (
	SELECT s.*, staged.id AS staged_id, applied.id AS applied_id, applied.created_at AS applied_created_at,
		   pg_wal_lsn_diff(s.staged_lsn, s.applied_lsn) AS not_applied
	FROM multisite.segment_states() s
	LEFT JOIN point staged ON staged.name = s.staged_point
	LEFT JOIN point applied ON applied.name = s.applied_point
), slowest AS (
	SELECT DISTINCT ON (site) site, segment_id, state, reason, staged_id, staged_lsn
	FROM segment ORDER BY site, staged_id NULLS FIRST, not_applied DESC
)
SELECT s.site,
	   (SELECT name FROM point WHERE id = min(s.applied_id) AND bool_and(s.applied_id IS NOT NULL)) AS applied_point,
	   CASE WHEN bool_and(s.applied_id IS NOT NULL) THEN
			extract(epoch FROM clock_timestamp() - min(s.applied_created_at))::float8
	   END AS rpo_seconds,
	   max(s.not_applied / s.replay_bytes_per_second)::float8 AS rto_seconds,
	   slowest.segment_id AS slowest_segment,
	   CASE WHEN newest.id IS NULL THEN 'there is no point yet'
			WHEN bool_and(s.applied_id >= newest.id) THEN 'the newest point is applied'
			WHEN slowest.staged_id >= newest.id THEN
				format('point "%s" is staged on all segments, ', newest.name) || coalesce(
					'but the site is paused: ' || coalesce(
						(SELECT w.reason FROM multisite.workers() w WHERE w.worker = 'orchestrator' AND w.state = 'paused'),
						max(s.reason) FILTER (WHERE s.reason LIKE '%until multisite_resume()%')),
					min(format('but segment %s %s', s.segment_id, s.reason)) FILTER (WHERE s.reason LIKE 'has not been heard of %'),
					'and is being released or applied')
			ELSE format('point "%s" waits for segment %s, which has staged %s: %s', newest.name, slowest.segment_id,
						coalesce(slowest.staged_lsn::text, 'nothing'), coalesce(slowest.reason, 'it gives no reason'))
	   END AS reason
FROM segment s
JOIN slowest USING (site)
LEFT JOIN LATERAL (SELECT id, name FROM point ORDER BY id DESC LIMIT 1) newest ON true
-- a site that was promoted is no remote of itself
WHERE pg_is_in_recovery() OR s.site <> current_setting('multisite.site_name')
GROUP BY s.site, slowest.segment_id, slowest.staged_id, slowest.staged_lsn, slowest.reason, newest.id, newest.name;
COMMENT ON VIEW multisite_estimates IS
'on a coordinator: for each remote site, what would be lost and how long a promotion would take if the source were lost now';
COMMENT ON COLUMN multisite_estimates.site IS 'remote site';
COMMENT ON COLUMN multisite_estimates.applied_point IS 'newest point that all of its segments have applied';
COMMENT ON COLUMN multisite_estimates.rpo_seconds IS 'age of that point: work that is younger would be lost, but for points that are staged already';
COMMENT ON COLUMN multisite_estimates.rto_seconds IS 'predicted time to replay what is staged on the slowest segment, by its measured rate; null before a rate was measured';
COMMENT ON COLUMN multisite_estimates.slowest_segment IS 'segment that is behind the others';
COMMENT ON COLUMN multisite_estimates.reason IS 'why the newest point is not applied yet, in words';
REVOKE ALL ON multisite_estimates FROM PUBLIC;
GRANT SELECT ON multisite_estimates TO pg_monitor;
