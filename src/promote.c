/*-------------------------------------------------------------------------
 *
 * promote.c
 *	  Promotion of a remote cluster, as its operator sees it.
 *
 * The session only asks the orchestrator (orchestrator.c) and watches; it may
 * be cancelled or lost at any time without holding anything up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "greenplum.h"
#include "offline.h"
#include "settings.h"
#include "shared_state.h"
#include "snapshot.h"
#include "status.h"

PG_FUNCTION_INFO_V1(multisite_promote);
PG_FUNCTION_INFO_V1(multisite_pause);
PG_FUNCTION_INFO_V1(multisite_resume);

#define REQUEST_TIMEOUT_MS 60000

void
require_remote_coordinator(void)
{
	if (!AM_COORDINATOR())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is segment %d, not the coordinator", multisite_segment_id),
				 errhint("Connect to the coordinator of the remote site.")));
	if (!RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is no remote coordinator"),
				 errdetail("It is not a standby that follows another site.")));
}

/* What a session has told its client of each segment so far. */
typedef struct Told
{
	int32		segment;
	WireSegmentState state;
	bool		silent;
} Told;

typedef struct Progress
{
	Told		told[MAX_SEGMENT_ENTRIES + 1];
	int			n;
} Progress;

static Told *
told_of(Progress *progress, int32 segment)
{
	Told	   *told;

	for (int t = 0; t < progress->n; t++)
	{
		if (progress->told[t].segment == segment)
			return &progress->told[t];
	}
	told = &progress->told[progress->n++];
	told->segment = segment;
	told->state = WIRE_SEGMENT_STARTING;
	return told;
}

static void
tell_promoted(Progress *progress, int32 segment)
{
	Told	   *told = told_of(progress, segment);

	if (told->state != WIRE_SEGMENT_PROMOTED)
		ereport(NOTICE, (errmsg("segment %d accepts writes", segment)));
	told->state = WIRE_SEGMENT_PROMOTED;
}

static void
tell_progress(Progress *progress)
{
	SegmentEntry *entries;
	int			n = segments_snapshot(multisite_site_name, &entries);

	for (int i = 0; i < n; i++)
	{
		long		silence = segment_silence(&entries[i]);
		WireSegmentState state = entries[i].status.state;
		Told	   *told = told_of(progress, entries[i].segment);

		if (silence > 0 && !told->silent)
			ereport(NOTICE, (errmsg("segment %d has not been heard of for %ld s", entries[i].segment, silence)));
		told->silent = silence > 0;
		if (told->state == state || told->silent)
			continue;
		if (state == WIRE_SEGMENT_PROMOTED)
			tell_promoted(progress, entries[i].segment);
		else if (state == WIRE_SEGMENT_PROMOTING || state == WIRE_SEGMENT_FAILED)
			ereport(NOTICE, (errmsg("segment %d: %s", entries[i].segment, entries[i].status.reason)));
		told->state = state;
	}
	pfree(entries);
}

/*
 * multisite_promote(point text, timeout interval, offline boolean) returns text
 *
 * Promotes the site at a consistency point, the newest releasable one if none
 * is named; returns its name once every segment accepts writes.
 */
Datum
multisite_promote(PG_FUNCTION_ARGS)
{
	char	   *point = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	long		timeout = PG_ARGISNULL(1) ? INT_MAX : interval_milliseconds(PG_GETARG_INTERVAL_P(1));
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
	char		name[WIRE_NAME_SIZE];
	Progress   *progress = palloc0(sizeof(Progress));

	if (!RecoveryInProgress() && multisite_shared->promoted_at[0])
	{
		if (point && strcmp(point, multisite_shared->promoted_at) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this site is promoted already, at consistency point \"%s\"",
							multisite_shared->promoted_at)));
		ereport(NOTICE, (errmsg("this site is promoted already")));
		PG_RETURN_TEXT_P(cstring_to_text(multisite_shared->promoted_at));
	}
	require_remote_coordinator();
	greenplum_check_promotion();
	if (point && strlen(point) >= WIRE_NAME_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consistency point \"%s\" does not exist", point)));

	if (!PG_ARGISNULL(2) && PG_GETARG_BOOL(2))
		PG_RETURN_TEXT_P(cstring_to_text(offline_promote(point, until)));

	let_go_of_snapshot();
	request_call(WORKER_ORCHESTRATOR, ACTION_PROMOTE, point, Min(timeout, REQUEST_TIMEOUT_MS),
				 NULL, NULL, name);
	ereport(NOTICE, (errmsg("promotion at consistency point \"%s\" is decided", name)));

	ConditionVariablePrepareToSleep(&multisite_shared->changed);
	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		tell_progress(progress);
		if (!RecoveryInProgress() && multisite_shared->promoted_at[0])
			break;
		if (left <= 0)
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("the promotion at consistency point \"%s\" is not finished yet", name),
					 errdetail("%s", sentence(multisite_shared->workers[WORKER_ORCHESTRATOR].reason)),
					 errhint("It goes on by itself. Call multisite_promote() again to watch it, and see multisite_segments.")));
		}
		(void) ConditionVariableTimedSleep(&multisite_shared->changed, left,
										   wait_event_compat(WAIT_FOR_PROMOTION));
	}
	ConditionVariableCancelSleep();
	/* the last word of this server itself is to Kafka, and comes back to nobody */
	tell_promoted(progress, COORDINATOR_ID);
	hold_snapshots_again();
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/* multisite_pause() returns text: the point at which the site holds */
Datum
multisite_pause(PG_FUNCTION_ARGS)
{
	char		name[WIRE_NAME_SIZE];

	require_remote_coordinator();
	request_call(WORKER_ORCHESTRATOR, ACTION_PAUSE, NULL, REQUEST_TIMEOUT_MS, NULL, NULL, name);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

Datum
multisite_resume(PG_FUNCTION_ARGS)
{
	char		name[WIRE_NAME_SIZE];

	require_remote_coordinator();
	request_call(WORKER_ORCHESTRATOR, ACTION_RESUME, NULL, REQUEST_TIMEOUT_MS, NULL, NULL, name);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}
