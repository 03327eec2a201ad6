/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  Comparing both sites at a consistency point.
 *
 * multisite_create_verified_point(), on the source coordinator, makes a point
 * and reads the tables of all segments as they are at it.  For that it has a
 * connection to each database of each segment, with a transaction in which
 * the tables are locked as pg_dump locks them, and whose snapshot is taken
 * while the commit barrier is up: the points worker waits for that between
 * raising it and writing the restore points (request_meet()).  What the
 * snapshots see is therefore what the point holds.  The digests of the tables
 * are rows of a table, so they travel to the remote site as WAL does.
 *
 * multisite_verify(), on the remote coordinator, lets the remote site go to
 * that point and holds it there, reads the same tables under hot standby,
 * lets the site go on, waits for the source's digests to arrive, and
 * compares.
 *
 * A digest is the number of rows and the sum of a hash of each row's text, so
 * the order of the rows does not matter.  It is computed by plain SQL, since
 * the extension exists in one database only.  record_out() and textin() are
 * called by their names: a cast from a table's row to text could be any
 * function of the table's owner, and would run with our rights.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "conn.h"
#include "greenplum.h"
#include "history.h"
#include "orchestrator.h"
#include "points.h"
#include "segments.h"
#include "settings.h"
#include "shared_state.h"
#include "snapshot.h"
#include "status.h"

PG_FUNCTION_INFO_V1(multisite_create_verified_point);
PG_FUNCTION_INFO_V1(multisite_verify);

#define CONNECT_TIMEOUT_MS	10000
#define REQUEST_TIMEOUT_MS	60000
#define TABLES_IN_A_QUERY	50
#define KEPT_POINTS			10	/* the digests of older ones are deleted */

/* Text must look the same, whatever a role or a database has set. */
static const char *const session_settings =
	"SELECT set_config(name, value, false) FROM (VALUES "
	"('datestyle', 'ISO'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'), "
	"('extra_float_digits', '3'), ('bytea_output', 'hex'), ('lc_monetary', 'C'), "
	/* an ERROR, rather than a digest of only those rows that the role may see */
	"('row_security', 'off'), "
	"('lock_timeout', '30s')) s (name, value)";

/*
 * Plain tables that WAL carries.  Sequences are left out: a standby's are
 * ahead by what the source has in reserve.
 */
static const char *const list_tables =
	"SELECT format('%I.%I', n.nspname, c.relname) "
	"FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
	"WHERE c.relkind = 'r' AND c.relpersistence = 'p' "
	"AND (n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' OR c.oid = 'pg_largeobject'::regclass) "
	"AND ($1::text[] IS NULL OR format('%I.%I', n.nspname, c.relname) = ANY ($1)) "
	"ORDER BY 1";

/* One database of one segment; its connection is peers[] of the same index. */
typedef struct Source
{
	int32		segment;
	char	   *database;
	char	  **tables;			/* quoted */
	int			ntables;
} Source;

typedef struct Digest
{
	int32		segment;
	const char *database;
	const char *table;
	int64		rows;
	const char *digest;
} Digest;

typedef struct Reader
{
	Peer	   *peers;
	Source	   *sources;
	int			n;
	Digest	   *digests;
	int			ndigests;
} Reader;

/* ------------------------------------------------------------------------
 * Reading the tables of all segments
 * ------------------------------------------------------------------------
 */

static TimestampTz
in_milliseconds(int64 ms)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

/* Reading tables takes as long as it takes; it can be cancelled. */
#define UNLIMITED	in_milliseconds(INT_MAX)

/* A query without parameters on all connections of the reader. */
static void
run_everywhere(Reader *reader, const char *query, const char *what)
{
	peers_send(reader->peers, reader->n, query, 0, NULL);
	(void) peers_collect(reader->peers, reader->n, UNLIMITED);
	segments_require_all(reader->peers, reader->n, what);
}

/*
 * Connects to every database of every segment; expected is the number of
 * segments that the point has, 0 if it is not made yet.
 */
static void
open_reader(Reader *reader, int expected)
{
	int			nsegments;
	Peer	   *segments = segments_connect_site(RecoveryInProgress(),
												 in_milliseconds(CONNECT_TIMEOUT_MS), &nsegments);
	int			n = 0;

	if (expected != 0 && nsegments != expected)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%d segments of site \"%s\" are registered, but the point has %d",
						nsegments, multisite_site_name, expected),
				 errdetail("The coordinator counts, too."),
				 errhint("Call multisite_add_segment(id, conninfo, '%s') on the source coordinator.",
						 multisite_site_name)));
	peers_send(segments, nsegments,
			   "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1", 0, NULL);
	(void) peers_collect(segments, nsegments, in_milliseconds(CONNECT_TIMEOUT_MS));
	segments_require_all(segments, nsegments, "list its databases");

	for (int i = 0; i < nsegments; i++)
		n += PQntuples(segments[i].result);
	reader->peers = segments_alloc_peers(n);
	reader->sources = palloc0(sizeof(Source) * n);
	for (int i = 0; i < nsegments; i++)
	{
		for (int row = 0; row < PQntuples(segments[i].result); row++)
		{
			Source	   *source = &reader->sources[reader->n];
			Peer	   *peer = &reader->peers[reader->n++];

			source->segment = peer->segment = segments[i].segment;
			source->database = pstrdup(PQgetvalue(segments[i].result, row, 0));
			peer->conninfo = conn_with_database(segments[i].conninfo, source->database);
		}
		peer_close(&segments[i]);
	}

	(void) peers_connect(reader->peers, reader->n, false, in_milliseconds(CONNECT_TIMEOUT_MS));
	segments_require_all(reader->peers, reader->n, "be reached");
	run_everywhere(reader, session_settings, "change its settings");
}

static void
close_reader(Reader *reader)
{
	for (int i = 0; i < reader->n; i++)
		peer_close(&reader->peers[i]);
}

/* tables is an array in its text form, or NULL for all. */
static void
list_all_tables(Reader *reader, const char *tables)
{
	int			found = 0;

	peers_send(reader->peers, reader->n, list_tables, 1, &tables);
	(void) peers_collect(reader->peers, reader->n, UNLIMITED);
	segments_require_all(reader->peers, reader->n, "list its tables");
	for (int i = 0; i < reader->n; i++)
	{
		Source	   *source = &reader->sources[i];

		source->ntables = PQntuples(reader->peers[i].result);
		source->tables = palloc(sizeof(char *) * Max(source->ntables, 1));
		for (int t = 0; t < source->ntables; t++)
			source->tables[t] = pstrdup(PQgetvalue(reader->peers[i].result, t, 0));
		found += source->ntables;
	}
	if (found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("there is no table to verify"),
				 errhint("Tables are named with their schemas, as in '{public.orders}'.")));
}

/* Keeps the tables from being truncated, rewritten or dropped. */
static void
lock_tables(Reader *reader)
{
	for (int i = 0; i < reader->n; i++)
	{
		const Source *source = &reader->sources[i];
		StringInfoData query;

		if (source->ntables == 0)
			continue;
		initStringInfo(&query);
		appendStringInfoString(&query, "LOCK TABLE ");
		for (int t = 0; t < source->ntables; t++)
			appendStringInfo(&query, "%sONLY %s", t > 0 ? ", " : "", source->tables[t]);
		appendStringInfoString(&query, " IN ACCESS SHARE MODE");
		peers_send(&reader->peers[i], 1, query.data, 0, NULL);
		pfree(query.data);
	}
	(void) peers_collect(reader->peers, reader->n, UNLIMITED);
	segments_require_all(reader->peers, reader->n, "lock its tables");
}

static void
keep_digests(Reader *reader, int which)
{
	const Source *source = &reader->sources[which];
	PGresult   *result = reader->peers[which].result;

	for (int row = 0; row < PQntuples(result); row++)
	{
		Digest	   *digest = &reader->digests[reader->ndigests++];

		digest->segment = source->segment;
		digest->database = source->database;
		digest->table = source->tables[atoi(PQgetvalue(result, row, 0))];
		digest->rows = strtoll(PQgetvalue(result, row, 1), NULL, 10);
		digest->digest = pstrdup(PQgetvalue(result, row, 2));
	}
}

/* All segments and databases work at the same time, each table by table. */
static void
digest_tables(Reader *reader)
{
	int			total = 0;
	int			most = 0;

	for (int i = 0; i < reader->n; i++)
	{
		total += reader->sources[i].ntables;
		most = Max(most, reader->sources[i].ntables);
	}
	reader->digests = palloc_extended(sizeof(Digest) * Max(total, 1), MCXT_ALLOC_HUGE);
	for (int from = 0; from < most; from += TABLES_IN_A_QUERY)
	{
		for (int i = 0; i < reader->n; i++)
		{
			const Source *source = &reader->sources[i];
			StringInfoData query;

			if (from >= source->ntables)
				continue;
			initStringInfo(&query);
			for (int t = from; t < Min(from + TABLES_IN_A_QUERY, source->ntables); t++)
				appendStringInfo(&query,
								 "%sSELECT %d, count(*), "
								 "coalesce(sum(hashtextextended(textin(record_out(t.*)) COLLATE \"C\", 0)), 0) "
								 "FROM ONLY %s t",
								 t > from ? " UNION ALL " : "", t, source->tables[t]);
			peers_send(&reader->peers[i], 1, query.data, 0, NULL);
			pfree(query.data);
		}
		(void) peers_collect(reader->peers, reader->n, UNLIMITED);
		segments_require_all(reader->peers, reader->n, "read its tables");
		for (int i = 0; i < reader->n; i++)
		{
			if (from < reader->sources[i].ntables)
				keep_digests(reader, i);
		}
	}
}

/* ------------------------------------------------------------------------
 * The source
 * ------------------------------------------------------------------------
 */

/* Called while the commit barriers of all segments are up. */
static void
take_snapshots(void *arg)
{
	Reader	   *reader = arg;

	peers_send(reader->peers, reader->n, "SELECT 1", 0, NULL);
	(void) peers_collect(reader->peers, reader->n, in_milliseconds(multisite_barrier_timeout));
	segments_require_all(reader->peers, reader->n, "take a snapshot");
}

static void
execute(const char *query, int nargs, Oid *types, Datum *values, int expected)
{
	if (SPI_execute_with_args(query, nargs, types, values, NULL, false, 0) != expected)
		elog(ERROR, "could not write to the table of digests");
}

static void
store_digests(const Reader *reader, const char *point)
{
	Oid			types[6] = {TEXTOID, INT4OID, TEXTOID, TEXTOID, INT8OID, TEXTOID};
	Datum		values[6] = {CStringGetTextDatum(point)};
	Oid			kept_type[1] = {INT4OID};
	Datum		kept[1] = {Int32GetDatum(KEPT_POINTS)};

	SPI_connect();
	execute("INSERT INTO multisite.verified_point (point) VALUES ($1)", 1, types, values, SPI_OK_INSERT);
	for (int i = 0; i < reader->ndigests; i++)
	{
		const Digest *digest = &reader->digests[i];

		values[1] = Int32GetDatum(digest->segment);
		values[2] = CStringGetTextDatum(digest->database);
		values[3] = CStringGetTextDatum(digest->table);
		values[4] = Int64GetDatum(digest->rows);
		values[5] = CStringGetTextDatum(digest->digest);
		execute("INSERT INTO multisite.digest VALUES ($1, $2, $3, $4, $5, $6)", 6, types, values, SPI_OK_INSERT);
	}
	execute("DELETE FROM multisite.verified_point WHERE point IN "
			"(SELECT point FROM multisite.verified_point ORDER BY digested_at DESC OFFSET $1)",
			1, kept_type, kept, SPI_OK_DELETE);
	SPI_finish();
}

static char *
tables_argument(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return NULL;
	return OidOutputFunctionCall(F_ARRAY_OUT, PG_GETARG_DATUM(arg));
}

/*
 * multisite_create_verified_point(name text, tables text[]) returns text
 *
 * Makes a consistency point, and the digests of these tables (all, if NULL)
 * as they are at it on each segment.
 */
Datum
multisite_create_verified_point(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *tables = tables_argument(fcinfo, 1);
	char		result[WIRE_NAME_SIZE];
	Reader	   *reader = palloc0(sizeof(Reader));

	greenplum_refuse("multisite_create_verified_point");
	points_require_source(name);
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to verify a consistency point")));
	open_reader(reader, 0);
	list_all_tables(reader, tables);
	run_everywhere(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", "begin a transaction");
	lock_tables(reader);
	request_call(WORKER_POINTS, ACTION_CREATE_VERIFIED_POINT, name,
				 points_create_timeout(), take_snapshots, reader, result);
	digest_tables(reader);
	close_reader(reader);
	store_digests(reader, result);
	if (multisite_consistency_point_interval == 0)
		ereport(NOTICE,
				(errmsg("the digests of consistency point \"%s\" reach the remote site with the next point", result),
				 errhint("Call multisite_create_consistency_point(), since no points are made by themselves.")));
	PG_RETURN_TEXT_P(cstring_to_text(result));
}

/* ------------------------------------------------------------------------
 * The remote site
 * ------------------------------------------------------------------------
 */

/* Sleeps until something changes; false when the time is over. */
static bool
wait_for_change(TimestampTz until)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	if (left <= 0)
		return false;
	(void) ConditionVariableTimedSleep(&multisite_shared->changed, left, wait_event_compat(WAIT_FOR_POINT));
	return true;
}

static void
wait_for_state(const char *name, PointState state, TimestampTz until, PointRecord *point)
{
	bool		known = false;

	let_go_of_snapshot();
	ConditionVariablePrepareToSleep(&multisite_shared->changed);
	for (;;)
	{
		known = history_by_name(name, point);
		if (known && history_state(point) >= state)
			break;
		if (!wait_for_change(until))
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("consistency point \"%s\" is not %s yet", name, history_state_name(state)),
					 known ? errdetail("It is %s.", history_state_name(history_state(point))) :
					 errdetail("It is not known here.")));
	}
	ConditionVariableCancelSleep();
	hold_snapshots_again();
}

/* Has this site moved on, by a promotion for instance, while it was read? */
static void
check_still_there(const PointRecord *point)
{
	SegmentEntry *entries;
	int			n = segments_snapshot(multisite_site_name, &entries);
	bool		moved = !RecoveryInProgress();

	for (int i = 0; i < n; i++)
		moved = moved || entries[i].status.released_point > point->id ||
			entries[i].status.state == WIRE_SEGMENT_PROMOTING ||
			entries[i].status.state == WIRE_SEGMENT_PROMOTED;
	pfree(entries);
	if (moved)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this site left consistency point \"%s\" while it was verified", point->name)));
}

/* Lets the site go to the point, and reads its tables there. */
static void
read_at_point(Reader *reader, const char *name, const char *tables, TimestampTz until)
{
	char		at[WIRE_NAME_SIZE];
	PointRecord point;

	wait_for_state(name, POINT_STAGED, until, &point);
	request_call(WORKER_ORCHESTRATOR, ACTION_HOLD_AT, name, REQUEST_TIMEOUT_MS, NULL, NULL, at);
	wait_for_state(name, POINT_APPLIED, until, &point);
	open_reader(reader, point.nsegments);
	list_all_tables(reader, tables);
	digest_tables(reader);
	close_reader(reader);
	check_still_there(&point);
}

/* Waits until the source's digests are here; fills the SPI result. */
static void
read_source_digests(const char *name, const char *tables, TimestampTz until)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(name), tables ? CStringGetTextDatum(tables) : (Datum) 0};
	const char	nulls[3] = {' ', tables ? ' ' : 'n', '\0'};

	ConditionVariablePrepareToSleep(&multisite_shared->changed);
	for (;;)
	{
		if (SPI_execute_with_args("SELECT FROM multisite.verified_point WHERE point = $1",
								  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read the table of digests");
		if (SPI_processed > 0)
			break;
		/* a snapshot would keep recovery from applying the next point */
		let_go_of_snapshot();
		if (!wait_for_change(until))
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("the source's digests of consistency point \"%s\" have not arrived", name),
					 errdetail("They come with the first consistency point after multisite_create_verified_point() has ended there; multisite_create_consistency_point() makes none."),
					 errhint("If the site is paused, call multisite_resume().")));
		hold_snapshots_again();
	}
	ConditionVariableCancelSleep();
	if (SPI_execute_with_args("SELECT segment_id, database, table_name, row_count, digest FROM multisite.digest "
							  "WHERE point = $1 AND ($2::text[] IS NULL OR table_name = ANY ($2::text[])) "
							  "ORDER BY segment_id, database, table_name",
							  2, types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the table of digests");
}

static int
compare_keys(const void *a, const void *b)
{
	const Digest *x = a;
	const Digest *y = b;
	int			c;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	c = strcmp(x->database, y->database);
	return c != 0 ? c : strcmp(x->table, y->table);
}

/* What the SPI result, the source's digests, and ours say of each table. */
static void
compare(const Reader *reader, ReturnSetInfo *rsinfo)
{
	qsort(reader->digests, reader->ndigests, sizeof(Digest), compare_keys);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[row];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		int32		segment = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
		char	   *database = SPI_getvalue(tuple, desc, 2);
		char	   *table = SPI_getvalue(tuple, desc, 3);
		int64		rows = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &isnull));
		const Digest key = {.segment = segment, .database = database, .table = table};
		const Digest *ours = bsearch(&key, reader->digests, reader->ndigests, sizeof(Digest), compare_keys);
		Datum		values[6];
		bool		nulls[6] = {0};

		values[0] = Int32GetDatum(segment);
		values[1] = CStringGetTextDatum(database);
		values[2] = CStringGetTextDatum(table);
		values[3] = Int64GetDatum(rows);
		values[4] = Int64GetDatum(ours ? ours->rows : 0);
		nulls[4] = ours == NULL;
		values[5] = CStringGetTextDatum(ours == NULL ? "missing" :
										ours->rows == rows &&
										strcmp(ours->digest, SPI_getvalue(tuple, desc, 5)) == 0 ?
										"equal" : "different");
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/*
 * multisite_verify(point text, tables text[], timeout interval)
 *
 * Compares this site's tables at a verified point with the source's: one row
 * for each segment, database and table.
 */
Datum
multisite_verify(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name;
	char	   *tables = tables_argument(fcinfo, 1);
	Reader	   *reader = palloc0(sizeof(Reader));
	TimestampTz until;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the name of the point must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	until = in_milliseconds(PG_ARGISNULL(2) ? INT_MAX : interval_milliseconds(PG_GETARG_INTERVAL_P(2)));
	greenplum_refuse("multisite_verify");
	require_remote_coordinator();
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to verify a consistency point")));
	InitMaterializedSRF_compat(fcinfo);

	orchestrator_hold(false);
	PG_ENSURE_ERROR_CLEANUP(orchestrator_let_go, (Datum) 0);
	{
		read_at_point(reader, name, tables, until);
	}
	PG_END_ENSURE_ERROR_CLEANUP(orchestrator_let_go, (Datum) 0);
	orchestrator_let_go(0, (Datum) 0);

	SPI_connect();
	read_source_digests(name, tables, until);
	compare(reader, rsinfo);
	SPI_finish();
	return (Datum) 0;
}
