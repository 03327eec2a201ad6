/*-------------------------------------------------------------------------
 *
 * shared_state.c
 *	  What workers and sessions share.  See shared_state.h.
 *
 * All of it can be rebuilt: from Kafka, from our files, or by asking again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "barrier.h"
#include "compat.h"
#include "history.h"
#include "settings.h"
#include "shared_state.h"

#define SILENT_MS	30000		/* three heartbeats of a receiver */
#define SILENT_FAILED_MS	60000	/* one that fails reports with each attempt */

MultisiteShared *multisite_shared = NULL;

Size
shared_state_size(void)
{
	return MAXALIGN(sizeof(MultisiteShared)) + history_shmem_size() + barrier_shmem_size();
}

/* shmem_startup_hook calls this in every process that attaches. */
void
shared_state_init(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	multisite_shared = ShmemInitStruct("multisite_repl", sizeof(MultisiteShared), &found);
	if (!found)
	{
		memset(multisite_shared, 0, sizeof(MultisiteShared));
		multisite_shared->lock = &(GetNamedLWLockTranche("multisite_repl"))->lock;
		ConditionVariableInit(&multisite_shared->changed);
		pg_atomic_init_u64(&multisite_shared->release_base, 0);
		pg_atomic_init_u64(&multisite_shared->awaited_lsn, 0);
		pg_atomic_init_u64(&multisite_shared->released_lsn, 0);
		pg_atomic_init_u64(&multisite_shared->released_before, 0);
		for (int i = 0; i < NUM_WORKERS; i++)
			strlcpy(multisite_shared->workers[i].reason, "not started yet", REASON_SIZE);
	}
	history_shmem_init();
	barrier_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

const char *
worker_kind_name(WorkerKind kind)
{
	switch (kind)
	{
		case WORKER_PUBLISHER:
			return "publisher";
		case WORKER_RECEIVER:
			return "receiver";
		case WORKER_ORCHESTRATOR:
			return "orchestrator";
		case WORKER_POINTS:
			return "points";
	}
	return "unknown";
}

const char *
worker_state_name(WorkerState state)
{
	switch (state)
	{
		case WORKER_STOPPED:
			return "stopped";
		case WORKER_DISABLED:
			return "disabled";
		case WORKER_STARTING:
			return "starting";
		case WORKER_CONNECTING:
			return "connecting";
		case WORKER_POSITIONING:
			return "positioning";
		case WORKER_WAITING:
			return "waiting";
		case WORKER_RUNNING:
			return "running";
		case WORKER_BLOCKED:
			return "blocked";
		case WORKER_PAUSED:
			return "paused";
		case WORKER_PROMOTING:
			return "promoting";
		case WORKER_PROMOTED:
			return "promoted";
		case WORKER_FAILED:
			return "failed";
	}
	return "unknown";
}

char *
sentence(const char *text)
{
	size_t		len = strlen(text);

	return psprintf("%s%s", text, len > 0 && strchr(".?!", text[len - 1]) ? "" : ".");
}

/* Tell everyone who waits for something to look again. */
void
shared_changed(void)
{
	ConditionVariableBroadcast(&multisite_shared->changed);
}

/* ------------------------------------------------------------------------
 * Requests
 * ------------------------------------------------------------------------
 */

/* This session's request, 0 while it has none. */
static uint64 my_ticket = 0;

static void
worker_not_running(WorkerKind worker)
{
	char		reason[REASON_SIZE];

	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	strlcpy(reason, multisite_shared->workers[worker].reason, REASON_SIZE);
	LWLockRelease(multisite_shared->lock);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the %s worker is not at work on this server", worker_kind_name(worker)),
			 reason[0] ? errdetail("It says: %s", sentence(reason)) : 0,
			 errhint("See multisite_status.")));
}

/*
 * The worker may be between two attempts, because Kafka is away, say: the
 * request waits with it, but its caller should not wait without a reason.
 */
static void
worker_cannot_serve(WorkerKind worker, long timeout_ms)
{
	char		reason[REASON_SIZE];
	WorkerState state;

	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	strlcpy(reason, multisite_shared->workers[worker].reason, REASON_SIZE);
	state = multisite_shared->workers[worker].state;
	LWLockRelease(multisite_shared->lock);
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("no answer from the %s worker in %ld ms", worker_kind_name(worker), timeout_ms),
			 errdetail("Its state is \"%s\": %s", worker_state_name(state), sentence(reason))));
}

/* The caller of a request leaves, perhaps before its end. */
static void
abandon_request(int code, Datum arg)
{
	WorkerKind	worker = DatumGetInt32(arg);
	Request    *request = &multisite_shared->requests[worker];

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	if (my_ticket != 0 && request->ticket == my_ticket)
	{
		request->abandoned = true;
		if (request->meeting == MEETING_WORKER_WAITS)
			request->meeting = MEETING_GIVE_UP;
		/*
		 * One that has begun goes on; then it makes room by itself.  But what
		 * is decided by nobody yet is not to happen at some later time: a
		 * promotion, of all things.
		 */
		if (request->state != REQUEST_RUNNING)
			request->state = REQUEST_NONE;
	}
	my_ticket = 0;
	LWLockRelease(multisite_shared->lock);
	ConditionVariableCancelSleep();
	shared_changed();
}

static void
call_worker(WorkerKind worker, RequestAction action, const char *name, long timeout_ms,
			void (*meet) (void *), void *arg, char *result)
{
	Request    *request = &multisite_shared->requests[worker];
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	ConditionVariablePrepareToSleep(&multisite_shared->changed);
	for (;;)
	{
		Request		now;
		long		left;

		LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
		if (multisite_shared->workers[worker].pid == 0 ||
			multisite_shared->workers[worker].state == WORKER_DISABLED)
		{
			/* it would be started within a second, if it is to run here at all */
			if (my_ticket != 0 && request->ticket == my_ticket)
				request->state = REQUEST_NONE;
			LWLockRelease(multisite_shared->lock);
			worker_not_running(worker);
		}
		if (my_ticket == 0 && request->state == REQUEST_NONE)
		{
			memset(request, 0, sizeof(*request));
			request->state = REQUEST_QUEUED;
			request->ticket = my_ticket = ++multisite_shared->next_ticket;
			request->action = action;
			request->has_name = name != NULL;
			strlcpy(request->name, name ? name : "", WIRE_NAME_SIZE);
			SetLatch(multisite_shared->workers[worker].latch);
		}
		now = *request;
		LWLockRelease(multisite_shared->lock);

		if (my_ticket != 0 && now.ticket != my_ticket)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("the request to the %s worker was lost", worker_kind_name(worker)),
					 errhint("Look in multisite_consistency_points and multisite_status for its outcome.")));
		if (my_ticket != 0 && now.state == REQUEST_DONE)
		{
			strlcpy(result, now.result, WIRE_NAME_SIZE);
			return;
		}
		if (my_ticket != 0 && now.state == REQUEST_ERROR)
			ereport(ERROR,
					(errcode(now.sqlerrcode),
					 errmsg("%s", now.message),
					 now.detail[0] ? errdetail("%s", now.detail) : 0,
					 now.hint[0] ? errhint("%s", now.hint) : 0));
		if (my_ticket != 0 && meet && now.meeting == MEETING_WORKER_WAITS)
		{
			meet(arg);
			LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
			if (request->ticket == my_ticket && request->meeting == MEETING_WORKER_WAITS)
				request->meeting = MEETING_GO_ON;
			LWLockRelease(multisite_shared->lock);
			shared_changed();
			/* what it waited for may have taken our wake-ups */
			ConditionVariablePrepareToSleep(&multisite_shared->changed);
			continue;
		}

		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (left <= 0)
		{
			/* one that has begun goes on; its outcome shows in the views */
			LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
			if (my_ticket != 0 && request->ticket == my_ticket && request->state == REQUEST_QUEUED)
				request->state = REQUEST_NONE;
			LWLockRelease(multisite_shared->lock);
			worker_cannot_serve(worker, timeout_ms);
		}
		(void) ConditionVariableTimedSleep(&multisite_shared->changed, left,
										   wait_event_compat(WAIT_FOR_WORKER));
	}
}

void
request_call(WorkerKind worker, RequestAction action, const char *name, long timeout_ms,
			 void (*meet) (void *), void *arg, char *result)
{
	my_ticket = 0;
	PG_ENSURE_ERROR_CLEANUP(abandon_request, Int32GetDatum(worker));
	{
		call_worker(worker, action, name, timeout_ms, meet, arg, result);
	}
	PG_END_ENSURE_ERROR_CLEANUP(abandon_request, Int32GetDatum(worker));
	abandon_request(0, Int32GetDatum(worker));
}

/* Takes the queued request, if there is one. */
bool
request_take(WorkerKind worker, Request *request)
{
	Request    *shared = &multisite_shared->requests[worker];
	bool		found;

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	found = shared->state == REQUEST_QUEUED;
	if (found)
	{
		shared->state = REQUEST_RUNNING;
		*request = *shared;
	}
	LWLockRelease(multisite_shared->lock);
	return found;
}

static RequestState
request_state(WorkerKind worker)
{
	RequestState state;

	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	state = multisite_shared->requests[worker].state;
	LWLockRelease(multisite_shared->lock);
	return state;
}

bool
request_waits(WorkerKind worker)
{
	return request_state(worker) == REQUEST_QUEUED;
}

bool
request_is_open(WorkerKind worker)
{
	RequestState state = request_state(worker);

	return state == REQUEST_QUEUED || state == REQUEST_RUNNING;
}

void
request_done(WorkerKind worker, const char *result)
{
	Request    *request = &multisite_shared->requests[worker];

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	if (request->state == REQUEST_RUNNING)
	{
		request->state = request->abandoned ? REQUEST_NONE : REQUEST_DONE;
		strlcpy(request->result, result, WIRE_NAME_SIZE);
	}
	LWLockRelease(multisite_shared->lock);
	shared_changed();
}

/* Ends the request, taken or still queued, with an error. */
void
request_failed(WorkerKind worker, const ErrorData *edata)
{
	Request    *request = &multisite_shared->requests[worker];

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	if (request->state == REQUEST_RUNNING || request->state == REQUEST_QUEUED)
	{
		request->state = request->abandoned ? REQUEST_NONE : REQUEST_ERROR;
		request->sqlerrcode = edata->sqlerrcode;
		strlcpy(request->message, edata->message ? edata->message : "unknown error", ERROR_TEXT_SIZE);
		strlcpy(request->detail, edata->detail ? edata->detail : "", ERROR_TEXT_SIZE);
		strlcpy(request->hint, edata->hint ? edata->hint : "", ERROR_TEXT_SIZE);
	}
	LWLockRelease(multisite_shared->lock);
	shared_changed();
}

bool
request_meet(WorkerKind worker, TimestampTz deadline)
{
	Request    *request = &multisite_shared->requests[worker];
	RequestMeeting meeting;

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	request->meeting = request->abandoned ? MEETING_GIVE_UP : MEETING_WORKER_WAITS;
	LWLockRelease(multisite_shared->lock);
	shared_changed();

	ConditionVariablePrepareToSleep(&multisite_shared->changed);
	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
		meeting = request->meeting;
		if (meeting != MEETING_WORKER_WAITS || left <= 0)
			request->meeting = MEETING_NONE;
		LWLockRelease(multisite_shared->lock);
		if (meeting != MEETING_WORKER_WAITS || left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&multisite_shared->changed, left, wait_event_compat(WAIT_FOR_SEGMENTS));
	}
	ConditionVariableCancelSleep();
	return meeting == MEETING_GO_ON;
}

/* ------------------------------------------------------------------------
 * Segments of remote sites
 * ------------------------------------------------------------------------
 */

void
segment_heard(const char *site, int32 segment, const WireStatus *status)
{
	SegmentEntry *entry = NULL;

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < multisite_shared->nsegments; i++)
	{
		SegmentEntry *e = &multisite_shared->segments[i];

		if (e->segment == segment && strcmp(e->site, site) == 0)
			entry = e;
	}
	if (entry == NULL && multisite_shared->nsegments < MAX_SEGMENT_ENTRIES)
	{
		entry = &multisite_shared->segments[multisite_shared->nsegments++];
		strlcpy(entry->site, site, NAMEDATALEN);
		entry->segment = segment;
	}
	if (entry != NULL)
	{
		entry->heard = true;
		entry->heard_at = GetCurrentTimestamp();
		entry->status = *status;
	}
	LWLockRelease(multisite_shared->lock);
	shared_changed();
}

long
segment_silence(const SegmentEntry *entry)
{
	TimestampTz now = GetCurrentTimestamp();

	if (entry->status.state == WIRE_SEGMENT_PROMOTED ||
		!TimestampDifferenceExceeds(entry->heard_at, now,
									entry->status.state == WIRE_SEGMENT_FAILED ?
									SILENT_FAILED_MS : SILENT_MS))
		return 0;
	/* nobody listens to the own site any more once it is promoted */
	if (strcmp(entry->site, multisite_site_name) == 0 && !RecoveryInProgress())
		return 0;
	return (now - entry->heard_at) / USECS_PER_SEC;
}

long
segment_silent_for(const char *site, int32 segment)
{
	long		silence = 0;

	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	for (int i = 0; i < multisite_shared->nsegments; i++)
	{
		const SegmentEntry *e = &multisite_shared->segments[i];

		if (e->segment == segment && strcmp(e->site, site) == 0)
			silence = segment_silence(e);
	}
	LWLockRelease(multisite_shared->lock);
	return silence;
}

static int
compare_entries(const void *a, const void *b)
{
	const SegmentEntry *x = a;
	const SegmentEntry *y = b;
	int			c = strcmp(x->site, y->site);

	if (c != 0)
		return c;
	return x->segment < y->segment ? -1 : x->segment > y->segment;
}

/*
 * A palloc'd copy of what is known of a site's segments (of all sites, if
 * site is NULL), in ascending order of site and segment.
 */
int
segments_snapshot(const char *site, SegmentEntry **entries)
{
	int			n = 0;

	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	*entries = palloc(sizeof(SegmentEntry) * Max(multisite_shared->nsegments, 1));
	for (int i = 0; i < multisite_shared->nsegments; i++)
	{
		SegmentEntry *e = &multisite_shared->segments[i];

		if (site == NULL || strcmp(e->site, site) == 0)
			(*entries)[n++] = *e;
	}
	LWLockRelease(multisite_shared->lock);
	qsort(*entries, n, sizeof(SegmentEntry), compare_entries);
	return n;
}
