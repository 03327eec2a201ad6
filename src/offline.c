/*-------------------------------------------------------------------------
 *
 * offline.c
 *	  Promotion of a remote cluster when Kafka is lost, too.
 *
 * Nobody can decide through Kafka then.  The session itself reaches every
 * segment by its registered connection string, asks which points it has,
 * chooses the newest that all have, and tells each receiver to go there and be
 * promoted.  The coordinator notes the decision first, in its state file, so
 * that its orchestrator releases nothing else from then on, whatever becomes
 * of this session or of Kafka; it is promoted last.  Each segment notes it,
 * too, and carries it out on its own.  A call after one that was interrupted
 * finds a segment that has begun, and goes on to the same point.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "conn.h"
#include "decide.h"
#include "history.h"
#include "offline.h"
#include "orchestrator.h"
#include "segments.h"
#include "settings.h"
#include "shared_state.h"
#include "snapshot.h"
#include "status.h"

PG_FUNCTION_INFO_V1(multisite_staged_points);
PG_FUNCTION_INFO_V1(multisite_promote_segment);
PG_FUNCTION_INFO_V1(multisite_wait_promoted);

#define CONNECT_TIMEOUT_MS	10000
#define REQUEST_TIMEOUT_MS	60000

/* ------------------------------------------------------------------------
 * The session on the coordinator
 * ------------------------------------------------------------------------
 */

static long
milliseconds_left(TimestampTz until)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
}

/* The same query on some peers, each of which must answer. */
static void
ask(Peer *peers, int npeers, const char *query, int nparams, const char *const *params,
	TimestampTz until, const char *step)
{
	peers_send(peers, npeers, query, nparams, params);
	(void) peers_collect(peers, npeers, until);
	segments_require_all(peers, npeers, step);
}

/* A row of multisite.staged_points(): the ids are separated by blanks. */
static void
read_staged(const Peer *peer, SegmentStaged *staged)
{
	char	   *text = PQgetvalue(peer->result, 0, 0);
	int			max = 1;
	uint64	   *points;

	for (char *p = text; *p; p++)
		max += *p == ' ';
	points = palloc(sizeof(uint64) * max);
	staged->segment = peer->segment;
	staged->points = points;
	staged->npoints = 0;
	for (char *p = text; *p;)
	{
		points[staged->npoints++] = strtou64(p, &p, 10);
		while (*p == ' ')
			p++;
	}
	staged->promotion = strtou64(PQgetvalue(peer->result, 0, 1), NULL, 10);
}

static void
choose(const char *name, Peer *peers, int npeers, PointRecord *point)
{
	SegmentStaged *staged = palloc(sizeof(SegmentStaged) * npeers);
	uint64		id;
	int32		blocker = 0;
	OfflineVerdict verdict;

	if (name && !history_by_name(name, point))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consistency point \"%s\" does not exist", name),
				 errhint("See multisite_consistency_points.")));
	ask(peers, npeers, "SELECT * FROM multisite.staged_points()", 0, NULL,
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), REQUEST_TIMEOUT_MS),
		"say what it has staged");
	for (int i = 0; i < npeers; i++)
		read_staged(&peers[i], &staged[i]);
	verdict = decide_offline(staged, npeers, name ? point->id : 0, &id, &blocker);
	if (verdict == OFFLINE_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no consistency point that all segments have"),
				 errdetail("A segment may have been built anew after the last point."),
				 errhint("Compare multisite_consistency_points on each segment.")));
	if (!history_by_id(id, point))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consistency point %llu is not known on this server", (unsigned long long) id),
				 errhint("Promote each segment by pg_ctl promote: it ends at the newest released point.")));
	if (verdict == OFFLINE_UNDER_WAY)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a promotion to consistency point \"%s\" is under way", point->name),
				 errdetail("Segment %d has begun it.", blocker)));
	if (verdict == OFFLINE_LACKS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("consistency point \"%s\" is not staged on all segments, or passed", point->name),
				 errdetail("Segment %d does not have it.", blocker)));
	if (point->nsegments != (uint32) npeers)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%d segments of site \"%s\" are registered, but consistency point \"%s\" has %u",
						npeers, multisite_site_name, point->name, point->nsegments),
				 errdetail("The coordinator counts, too. The registry is as of the newest applied point."),
				 errhint("Promote each segment by pg_ctl promote: it ends at the newest released point.")));
}

static void
promote_at(const char *name, TimestampTz until, PointRecord *point)
{
	int			npeers;
	Peer	   *peers = segments_connect_site(true,
											  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CONNECT_TIMEOUT_MS),
											  &npeers);
	const char *params[2];
	char		timeout[16];

	choose(name, peers, npeers, point);
	/* a snapshot would be in the way of the replay that this waits for */
	let_go_of_snapshot();
	ereport(NOTICE, (errmsg("promotion at consistency point \"%s\" is decided", point->name)));

	/* the coordinator, which is the first, notes it before any other does */
	params[0] = point->name;
	params[1] = "false";
	ask(peers, 1, "SELECT multisite.promote_segment($1, $2)", 2, params, until, "note its promotion");
	ask(peers + 1, npeers - 1, "SELECT multisite.promote_segment($1, $2)", 2, params, until,
		"begin its promotion");
	snprintf(timeout, sizeof(timeout), "%ld", Min(milliseconds_left(until), INT_MAX));
	params[0] = timeout;
	ask(peers + 1, npeers - 1, "SELECT multisite.wait_promoted($1)", 1, params, until, "be promoted");
	for (int i = 1; i < npeers; i++)
		ereport(NOTICE, (errmsg("segment %d accepts writes", peers[i].segment)));
	params[0] = point->name;
	params[1] = "true";
	ask(peers, 1, "SELECT multisite.promote_segment($1, $2)", 2, params, until, "begin its promotion");
	params[0] = timeout;
	ask(peers, 1, "SELECT multisite.wait_promoted($1)", 1, params, until, "be promoted");
	hold_snapshots_again();
	for (int i = 0; i < npeers; i++)
		peer_close(&peers[i]);
}

char *
offline_promote(const char *name, TimestampTz until)
{
	PointRecord point;

	orchestrator_hold(true);
	PG_ENSURE_ERROR_CLEANUP(orchestrator_let_go, (Datum) 0);
	{
		promote_at(name, until, &point);
	}
	PG_END_ENSURE_ERROR_CLEANUP(orchestrator_let_go, (Datum) 0);
	orchestrator_let_go(0, (Datum) 0);
	return pstrdup(point.name);
}

/* ------------------------------------------------------------------------
 * What it calls on each segment
 * ------------------------------------------------------------------------
 */

static bool
is_promoted(void)
{
	return !RecoveryInProgress() && multisite_shared->promoted_at[0] != '\0';
}

/* What the receiver has decided already, and will note in a moment. */
static bool
is_being_promoted(void)
{
	return !RecoveryInProgress() &&
		multisite_shared->workers[WORKER_RECEIVER].pid != 0 &&
		multisite_shared->workers[WORKER_RECEIVER].state == WORKER_PROMOTING;
}

static void
require_remote_segment(void)
{
	if (!RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server does not follow another site")));
}

/*
 * multisite.staged_points(OUT points text, OUT promotion bigint)
 *
 * The ids of the points at which this segment can be promoted, in ascending
 * order; and that of a promotion that has begun, or 0.
 */
Datum
multisite_staged_points(PG_FUNCTION_ARGS)
{
	char		ignored[WIRE_NAME_SIZE];
	PointRecord *points;
	int			n = 0;
	uint64		from = 0;
	uint64		to = 0;
	uint64		promotion;
	StringInfoData ids;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	initStringInfo(&ids);
	if (is_promoted())
	{
		PointRecord point;

		promotion = history_by_name(multisite_shared->promoted_at, &point) ? point.id : 0;
	}
	else
	{
		require_remote_segment();
		let_go_of_snapshot();
		request_call(WORKER_RECEIVER, ACTION_SHOW_STAGED, NULL, REQUEST_TIMEOUT_MS, NULL, NULL, ignored);
		hold_snapshots_again();
		LWLockAcquire(multisite_shared->lock, LW_SHARED);
		from = multisite_shared->staged_points.from;
		to = multisite_shared->staged_points.to;
		promotion = multisite_shared->staged_points.promotion;
		LWLockRelease(multisite_shared->lock);
		n = history_after(from == 0 ? 0 : from - 1, &points);
	}
	for (int i = 0; i < n; i++)
	{
		if (points[i].id <= to && !points[i].passed)
			appendStringInfo(&ids, "%s%llu", ids.len > 0 ? " " : "", (unsigned long long) points[i].id);
	}
	values[0] = CStringGetTextDatum(ids.data);
	values[1] = Int64GetDatum((int64) promotion);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * multisite.promote_segment(point text, others_promoted boolean) returns void
 *
 * Lets this segment be promoted at a point, without Kafka; the coordinator
 * only once others_promoted is true.  Returns when that is noted on disk.
 */
Datum
multisite_promote_segment(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char		ignored[WIRE_NAME_SIZE];

	if (is_promoted() || is_being_promoted())
		PG_RETURN_VOID();
	require_remote_segment();
	let_go_of_snapshot();
	request_call(WORKER_RECEIVER,
				 PG_GETARG_BOOL(1) ? ACTION_PROMOTE_OFFLINE_LAST : ACTION_PROMOTE_OFFLINE,
				 name, REQUEST_TIMEOUT_MS, NULL, NULL, ignored);
	hold_snapshots_again();
	PG_RETURN_VOID();
}

/*
 * multisite.wait_promoted(timeout_ms integer) returns void
 *
 * Returns once this segment accepts writes; ERROR if that takes longer.
 */
Datum
multisite_wait_promoted(PG_FUNCTION_ARGS)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PG_GETARG_INT32(0));

	let_go_of_snapshot();
	ConditionVariablePrepareToSleep(&multisite_shared->changed);
	while (!is_promoted())
	{
		long		left = milliseconds_left(until);

		if (left <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("the promotion is not finished yet"),
					 errdetail("%s", sentence(multisite_shared->workers[WORKER_RECEIVER].reason)),
					 errhint("It goes on by itself. Call multisite_promote(offline => true) again.")));
		(void) ConditionVariableTimedSleep(&multisite_shared->changed, left,
										   wait_event_compat(WAIT_FOR_PROMOTION));
	}
	ConditionVariableCancelSleep();
	hold_snapshots_again();
	PG_RETURN_VOID();
}
