/*-------------------------------------------------------------------------
 *
 * status.c
 *	  What the views show, and the SQL functions of a source segment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "barrier.h"
#include "compat.h"
#include "history.h"
#include "points.h"
#include "publisher.h"
#include "settings.h"
#include "shared_state.h"
#include "snapshot.h"
#include "status.h"

PG_FUNCTION_INFO_V1(multisite_workers);
PG_FUNCTION_INFO_V1(multisite_points);
PG_FUNCTION_INFO_V1(multisite_segment_states);
PG_FUNCTION_INFO_V1(multisite_create_consistency_point);
PG_FUNCTION_INFO_V1(multisite_wait_for_consistency_point);
PG_FUNCTION_INFO_V1(multisite_take_over_pipe);
PG_FUNCTION_INFO_V1(multisite_identity);
PG_FUNCTION_INFO_V1(multisite_barrier_raise);
PG_FUNCTION_INFO_V1(multisite_write_restore_point);
PG_FUNCTION_INFO_V1(multisite_barrier_lower);
PG_FUNCTION_INFO_V1(multisite_commits);

long
interval_milliseconds(const Interval *interval)
{
	int64		us = interval->time +
	interval->day * USECS_PER_DAY + interval->month * INT64CONST(30) * USECS_PER_DAY;

	if (us < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a timeout must not be negative")));
	return Min(us / 1000, INT_MAX);
}

/* A row that is being filled; values that are 0 by nature are NULL. */
typedef struct Row
{
	Datum		values[24];
	bool		nulls[24];
	int			n;
} Row;

static void
add(Row *row, Datum value, bool isnull)
{
	Assert(row->n < (int) lengthof(row->values));
	row->values[row->n] = value;
	row->nulls[row->n] = isnull;
	row->n++;
}

static void
add_text(Row *row, const char *text)
{
	add(row, text[0] ? CStringGetTextDatum(text) : (Datum) 0, text[0] == '\0');
}

static void
add_lsn(Row *row, XLogRecPtr lsn)
{
	add(row, LSNGetDatum(lsn), XLogRecPtrIsInvalid(lsn));
}

static void
add_time(Row *row, TimestampTz time)
{
	add(row, TimestampTzGetDatum(time), time == 0);
}

static void
add_bigint(Row *row, int64 value)
{
	add(row, Int64GetDatum(value), false);
}

static void
add_timeline(Row *row, TimeLineID timeline)
{
	add(row, Int32GetDatum(timeline), timeline == 0);
}

static void
put(ReturnSetInfo *rsinfo, Row *row)
{
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row->values, row->nulls);
	memset(row, 0, sizeof(*row));
}

/* Age of the newest point applied here, in seconds; negative if there is none */
static double
applied_age(void)
{
	uint64		newest = history_newest();

	for (uint64 id = newest; id > 0 && id + HISTORY_SIZE > newest; id--)
	{
		PointRecord point;

		if (history_by_id(id, &point) && history_state(&point) == POINT_APPLIED)
			return Max(GetCurrentTimestamp() - point.created_at, 0) / 1000000.0;
	}
	return -1;
}

Datum
multisite_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		recovering = RecoveryInProgress();
	XLogRecPtr	flushed = recovering ? InvalidXLogRecPtr : flush_position_compat();
	double		age;

	InitMaterializedSRF_compat(fcinfo);
	age = applied_age();
	for (int i = 0; i < NUM_WORKERS; i++)
	{
		WorkerSlot	slot;
		Row			row = {0};
		int64		lag_bytes = -1;
		double		lag_seconds = -1;

		LWLockAcquire(multisite_shared->lock, LW_SHARED);
		slot = multisite_shared->workers[i];
		LWLockRelease(multisite_shared->lock);

		if (i == WORKER_PUBLISHER && slot.durable_lsn != 0 && flushed != 0)
		{
			lag_bytes = flushed > slot.durable_lsn ? flushed - slot.durable_lsn : 0;
			lag_seconds = lag_bytes == 0 || slot.target_time == 0 ? 0 :
				Max(GetCurrentTimestamp() - slot.target_time, 0) / 1000000.0;
		}
		/* what a promoted server has not applied it never will */
		else if (i == WORKER_RECEIVER && slot.durable_lsn != 0 && recovering)
		{
			lag_bytes = slot.durable_lsn > slot.applied_lsn ? slot.durable_lsn - slot.applied_lsn : 0;
			lag_seconds = age;
		}

		if (recovering && slot.generation == 0 && (i == WORKER_PUBLISHER || i == WORKER_POINTS))
			strlcpy(slot.reason, i == WORKER_POINTS && !AM_COORDINATOR() ?
					"points are made on the coordinator" :
					"this server is a standby; it begins after a promotion", REASON_SIZE);

		add_text(&row, worker_kind_name(i));
		add_text(&row, worker_state_name(slot.state));
		add_text(&row, slot.reason);
		add_time(&row, slot.state_since);
		add(&row, Int32GetDatum(slot.pid), slot.pid == 0);
		add_timeline(&row, slot.timeline);
		add_lsn(&row, slot.sent_lsn);
		add_lsn(&row, i == WORKER_PUBLISHER ? slot.durable_lsn : InvalidXLogRecPtr);
		add_lsn(&row, i == WORKER_RECEIVER ? slot.durable_lsn : InvalidXLogRecPtr);
		add_lsn(&row, slot.released_lsn);
		add_lsn(&row, slot.applied_lsn);
		add(&row, Int64GetDatum(lag_bytes), lag_bytes < 0);
		add(&row, Float8GetDatum(lag_seconds), lag_seconds < 0);
		add_bigint(&row, slot.bytes);
		add_bigint(&row, slot.messages);
		add_bigint(&row, slot.rate);
		add_time(&row, slot.failing_since);
		add_text(&row, slot.last_error);
		add_time(&row, slot.last_error_at);
		put(rsinfo, &row);
	}
	return (Datum) 0;
}

Datum
multisite_points(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PointRecord *points;
	int			n;

	InitMaterializedSRF_compat(fcinfo);
	n = history_after(0, &points);
	for (int i = 0; i < n; i++)
	{
		PointRecord *p = &points[i];
		Row			row = {0};

		add_bigint(&row, p->id);
		add_text(&row, p->name);
		add_text(&row, history_state_name(history_state(p)));
		add_time(&row, p->created_at);
		add_time(&row, p->restore_point_at);
		add_lsn(&row, p->lsn);
		add_timeline(&row, p->timeline);
		add(&row, Int32GetDatum(p->nsegments), false);
		add(&row, Float8GetDatum(p->barrier_us / 1000.0), false);
		add(&row, Float8GetDatum(p->skew_us / 1000.0), false);
		add_time(&row, p->published_at);
		add_time(&row, p->staged_at);
		add_time(&row, p->released_at);
		add_time(&row, p->applied_at);
		put(rsinfo, &row);
	}
	return (Datum) 0;
}

static const char *
segment_state_name(WireSegmentState state)
{
	switch (state)
	{
		case WIRE_SEGMENT_STARTING:
			return "starting";
		case WIRE_SEGMENT_FOLLOWING:
			return "following";
		case WIRE_SEGMENT_FAILED:
			return "failed";
		case WIRE_SEGMENT_PROMOTING:
			return "promoting";
		case WIRE_SEGMENT_PROMOTED:
			return "promoted";
	}
	return "unknown";
}

static void
add_point_name(Row *row, uint64 id)
{
	PointRecord point;

	if (id != 0 && history_by_id(id, &point))
		add_text(row, point.name);
	else
		add_text(row, id == 0 ? "" : psprintf("%llu", (unsigned long long) id));
}

Datum
multisite_segment_states(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SegmentEntry *entries;
	int			n;

	InitMaterializedSRF_compat(fcinfo);
	n = segments_snapshot(NULL, &entries);
	for (int i = 0; i < n; i++)
	{
		const WireStatus *s = &entries[i].status;
		long		silence = segment_silence(&entries[i]);
		Row			row = {0};

		add_text(&row, entries[i].site);
		add(&row, Int32GetDatum(entries[i].segment), false);
		add_text(&row, segment_state_name(s->state));
		add_text(&row, silence == 0 ? s->reason :
				 psprintf("has not been heard of for %ld s; its last words: %s", silence, s->reason));
		add_timeline(&row, s->timeline);
		add_lsn(&row, s->base_lsn);
		add_lsn(&row, s->staged_lsn);
		add_lsn(&row, s->released_lsn);
		add_lsn(&row, s->applied_lsn);
		add_point_name(&row, s->passed_point);
		add_point_name(&row, s->staged_point);
		add_point_name(&row, s->released_point);
		add_point_name(&row, s->applied_point);
		add(&row, Int64GetDatum(s->replay_rate), s->replay_rate == 0);
		add_time(&row, entries[i].heard_at);
		put(rsinfo, &row);
	}
	return (Datum) 0;
}

/*
 * multisite_create_consistency_point(name text) returns text
 *
 * The point exists, published and durable in Kafka, when this returns.
 */
Datum
multisite_create_consistency_point(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	char		result[WIRE_NAME_SIZE];

	points_require_source(name);
	request_call(WORKER_POINTS, ACTION_CREATE_POINT, name,
				 points_create_timeout(), NULL, NULL, result);
	PG_RETURN_TEXT_P(cstring_to_text(result));
}

static PointState
parse_state(const char *text)
{
	for (PointState state = POINT_PUBLISHED; state <= POINT_APPLIED; state++)
	{
		if (strcmp(text, history_state_name(state)) == 0)
			return state;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown state of a consistency point: \"%s\"", text),
			 errhint("Known are published, staged, released and applied.")));
}

/*
 * multisite_wait_for_consistency_point(name text, state text, timeout interval)
 * returns boolean: false if the timeout came first
 */
Datum
multisite_wait_for_consistency_point(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PointState	state = parse_state(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	long		timeout = interval_milliseconds(PG_GETARG_INTERVAL_P(2));
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
	bool		reached = false;

	let_go_of_snapshot();
	ConditionVariablePrepareToSleep(&multisite_shared->changed);
	for (;;)
	{
		PointRecord point;
		long		left;

		/* one that does not exist here yet may be on its way */
		if (history_by_name(name, &point))
		{
			PointState	now = history_state(&point);

			/* a source has published what its remote sites cannot be at */
			if (now == POINT_PASSED && (point.passed || state != POINT_PUBLISHED))
			{
				ConditionVariableCancelSleep();
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("consistency point \"%s\" is passed", name),
						 errdetail("%s", history_why_passed(&point))));
			}
			reached = now >= state;
		}
		else if (!RecoveryInProgress())
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("consistency point \"%s\" does not exist", name),
					 errhint("See multisite_consistency_points.")));
		}
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (reached || left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&multisite_shared->changed, left,
										   wait_event_compat(WAIT_FOR_POINT));
	}
	ConditionVariableCancelSleep();
	hold_snapshots_again();
	PG_RETURN_BOOL(reached);
}

/* multisite_take_over_pipe(): see refuse_claim() in publisher.c */
Datum
multisite_take_over_pipe(PG_FUNCTION_ARGS)
{
	publisher_take_over();
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * What the point manager calls on each segment
 * ------------------------------------------------------------------------
 */

Datum
multisite_identity(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(multisite_cluster_name);
	values[1] = CStringGetTextDatum(multisite_site_name);
	values[2] = Int32GetDatum(multisite_segment_id);
	values[3] = BoolGetDatum(RecoveryInProgress());
	values[4] = CStringGetTextDatum(psprintf("%llu", (unsigned long long) GetSystemIdentifier()));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

Datum
multisite_barrier_raise(PG_FUNCTION_ARGS)
{
	barrier_raise(PG_GETARG_INT32(0), PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}

static XLogRecPtr unflushed_restore_point = InvalidXLogRecPtr;

Datum
multisite_write_restore_point(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TimeLineID	timeline;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {0};

	points_check_length(name);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	unflushed_restore_point = barrier_write_restore_point(name, &timeline);
	values[0] = LSNGetDatum(unflushed_restore_point);
	values[1] = Int32GetDatum(timeline);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* Commits go on first; then the restore point is made durable. */
Datum
multisite_barrier_lower(PG_FUNCTION_ARGS)
{
	barrier_lower();
	if (!XLogRecPtrIsInvalid(unflushed_restore_point))
		publisher_flush(unflushed_restore_point);
	unflushed_restore_point = InvalidXLogRecPtr;
	PG_RETURN_VOID();
}

Datum
multisite_commits(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) barrier_commits());
}
