/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The frame that all background workers share.  See worker.h.
 *
 * A worker makes attempts at its work.  An ERROR ends an attempt: everything
 * that it held is given back, the error is shown in multisite_status and
 * logged, once, however often it repeats, and after a pause that doubles up
 * to half a minute the next attempt begins from nothing.  That is a restart
 * of the process in all but the process, whose exit the postmaster would log
 * each time.  SIGTERM ends it, a reload or a request ends the pause.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "settings.h"
#include "worker.h"

#define MAX_EVENTS			8

static const WorkerRoutine *my_routine = NULL;
static uint64 my_generation;
static bool reloaded = false;

/* The sets of sockets that were waited for last, the newest one first. */
typedef struct CachedWaitSet
{
	WaitEventSet *set;
	int			nsockets;
	pgsocket	sockets[4];
} CachedWaitSet;

static CachedWaitSet wait_sets[2];	/* the publisher goes to and fro between two */

WorkerSlot *
worker_slot(void)
{
	return &multisite_shared->workers[my_routine->kind];
}

/* Runs at the process's end, unless our successor is there already. */
static void
leave_slot(int code, Datum arg)
{
	WorkerSlot *slot = worker_slot();

	my_routine->release();

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	if (slot->generation == my_generation)
	{
		slot->pid = 0;
		slot->latch = NULL;
		if (slot->state != WORKER_PROMOTED && slot->state != WORKER_STOPPED)
		{
			slot->state = WORKER_STOPPED;
			strlcpy(slot->reason, "the process has ended", REASON_SIZE);
		}
	}
	LWLockRelease(multisite_shared->lock);
	shared_changed();
}

static void
take_slot(void)
{
	WorkerSlot *slot = worker_slot();
	Request    *request = &multisite_shared->requests[my_routine->kind];

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	my_generation = ++slot->generation;
	slot->pid = MyProcPid;
	slot->latch = MyLatch;
	slot->state = WORKER_STARTING;
	slot->state_since = GetCurrentTimestamp();
	slot->reason[0] = '\0';
	slot->bytes = slot->messages = slot->rate = 0;
	if (request->state == REQUEST_RUNNING)
	{
		/* our predecessor ended in the middle of it, and its caller may have left */
		request->state = request->abandoned ? REQUEST_NONE : REQUEST_ERROR;
		request->sqlerrcode = ERRCODE_CRASH_SHUTDOWN;
		strlcpy(request->message, "the worker that carried out this request has died", ERROR_TEXT_SIZE);
	}
	LWLockRelease(multisite_shared->lock);
	before_shmem_exit(leave_slot, (Datum) 0);
	shared_changed();
}

void
worker_set_state(WorkerState state, const char *fmt,...)
{
	WorkerSlot *slot = worker_slot();
	char		reason[REASON_SIZE];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);

	/* only this process writes these fields, so it may look without the lock */
	if (slot->state == state && strcmp(slot->reason, reason) == 0)
		return;

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	if (slot->state != state)
		slot->state_since = GetCurrentTimestamp();
	slot->state = state;
	strlcpy(slot->reason, reason, REASON_SIZE);
	LWLockRelease(multisite_shared->lock);
	shared_changed();
	pgstat_report_activity(STATE_RUNNING, reason);
}

void
worker_is_well(void)
{
	WorkerSlot *slot = worker_slot();
	TimestampTz since = slot->failing_since;

	if (since == 0)
		return;
	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	slot->failing_since = 0;
	slot->logged_error[0] = '\0';
	LWLockRelease(multisite_shared->lock);
	ereport(LOG,
			(errmsg("multisite %s works again", worker_kind_name(my_routine->kind)),
			 errdetail("It had failed since %s.", timestamptz_to_str(since))));
}

static bool
is_wait_set_of(const CachedWaitSet *cached, int nsockets, const pgsocket *sockets)
{
	return cached->set != NULL && nsockets == cached->nsockets &&
		(nsockets == 0 || memcmp(sockets, cached->sockets, nsockets * sizeof(pgsocket)) == 0);
}

static void
make_wait_set(CachedWaitSet *cached, int nsockets, const pgsocket *sockets)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	Assert(nsockets <= (int) lengthof(cached->sockets));
	if (cached->set)
		FreeWaitEventSet(cached->set);
	cached->set = CreateWaitEventSet_compat(MAX_EVENTS);
	AddWaitEventToSet(cached->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(cached->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < nsockets; i++)
	{
		AddWaitEventToSet(cached->set, WL_SOCKET_READABLE, sockets[i], NULL, NULL);
		cached->sockets[i] = sockets[i];
	}
	cached->nsockets = nsockets;
	MemoryContextSwitchTo(old);
}

void
worker_wait(int nsockets, const pgsocket *sockets, long timeout_ms)
{
	WaitEvent	events[MAX_EVENTS];
	int			n;

	if (!is_wait_set_of(&wait_sets[0], nsockets, sockets))
	{
		CachedWaitSet older = wait_sets[1];

		wait_sets[1] = wait_sets[0];
		wait_sets[0] = older;
		if (!is_wait_set_of(&wait_sets[0], nsockets, sockets))
			make_wait_set(&wait_sets[0], nsockets, sockets);
	}

	n = WaitEventSetWait(wait_sets[0].set, timeout_ms, events, lengthof(events),
						 wait_event_compat(WAIT_FOR_WORK));
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
	}
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		reloaded = true;
	}
}

/* The sockets in them are about to be closed. */
static void
forget_wait_sets(void)
{
	for (size_t i = 0; i < lengthof(wait_sets); i++)
	{
		if (wait_sets[i].set)
			FreeWaitEventSet(wait_sets[i].set);
		wait_sets[i].set = NULL;
	}
}

bool
worker_reloaded(void)
{
	bool		result = reloaded;

	reloaded = false;
	return result;
}

void
worker_disabled(const char *reason)
{
	worker_set_state(WORKER_DISABLED, "%s", reason);
	while (!worker_reloaded())
		worker_wait(0, NULL, -1);
}

void
worker_connect(const char *database)
{
	static bool connected = false;
	MemoryContext context = CurrentMemoryContext;

	if (!connected)
	{
		become_utility_compat();
		BackgroundWorkerInitializeConnection(database, NULL, 0);
	}
	connected = true;
	/* its transaction has ended in TopMemoryContext, which is never reset */
	MemoryContextSwitchTo(context);
}

bool
worker_is_no_source(void)
{
	if (multisite_cluster_name[0] == '\0')
		worker_disabled("multisite.cluster_name is not set");
	else if (!multisite_publish)
		worker_disabled("multisite.publish is off");
	else
		return false;
	return true;
}

ErrorData *
worker_take_error(MemoryContext context)
{
	ErrorData  *edata;

	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	FlushErrorState();
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	AbortOutOfAnyTransaction();
	AtEOXact_Files(false);		/* outside a transaction nobody else does */
	MemoryContextSwitchTo(context);
	return edata;
}

void
worker_wake(WorkerKind kind)
{
	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	if (multisite_shared->workers[kind].latch)
		SetLatch(multisite_shared->workers[kind].latch);
	LWLockRelease(multisite_shared->lock);
}

void
worker_serve_request(void (*serve) (const Request *request, char *result))
{
	WorkerKind	kind = my_routine->kind;
	Request		request;
	char		result[WIRE_NAME_SIZE] = "";
	MemoryContext context = CurrentMemoryContext;

	if (!request_take(kind, &request))
		return;
	PG_TRY();
	{
		serve(&request, result);
		request_done(kind, result);
	}
	PG_CATCH();
	{
		ErrorData  *edata = worker_take_error(context);

		request_failed(kind, edata);
		FreeErrorData(edata);
	}
	PG_END_TRY();
}

/*
 * An error in one line: "message (detail Hint: hint)".  Half a hint may mislead,
 * so one that is too long is left out.
 */
static void
describe_error(char text[ERROR_TEXT_SIZE], const ErrorData *edata)
{
	const char *message = edata->message ? edata->message : "unknown error";
	const char *detail = edata->detail ? edata->detail : "";

	if (edata->hint &&
		snprintf(text, ERROR_TEXT_SIZE, "%s (%s%sHint: %s)", message, detail,
				 detail[0] ? " " : "", edata->hint) < ERROR_TEXT_SIZE)
		return;
	if (detail[0])
		snprintf(text, ERROR_TEXT_SIZE, "%s (%s)", message, detail);
	else
		strlcpy(text, message, ERROR_TEXT_SIZE);
}

void
worker_report_error(const ErrorData *edata)
{
	WorkerSlot *slot = worker_slot();
	const char *message = edata->message ? edata->message : "unknown error";
	bool		is_new;

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	is_new = strncmp(slot->logged_error, message, ERROR_TEXT_SIZE - 1) != 0;
	strlcpy(slot->logged_error, message, ERROR_TEXT_SIZE);
	LWLockRelease(multisite_shared->lock);

	/* first the log, so that whoever sees the state finds the reason there */
	if (is_new)
	{
		/* as it is, but at a level that does not end the process */
		ereport(LOG,
				(errcode(edata->sqlerrcode),
				 errmsg("multisite %s failed: %s", worker_kind_name(my_routine->kind), message),
				 edata->detail ? errdetail("%s", edata->detail) : 0,
				 edata->hint ? errhint("%s", edata->hint) : 0,
				 errcontext("attempts go on, and are not logged while they fail in the same way")));
	}

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	describe_error(slot->last_error, edata);
	slot->last_error_at = GetCurrentTimestamp();
	if (slot->failing_since == 0)
		slot->failing_since = slot->last_error_at;
	LWLockRelease(multisite_shared->lock);
	worker_set_state(WORKER_FAILED, "%s", slot->last_error);
}

/* Gives back whatever, beside locks, an attempt may hold when an ERROR ends it. */
static void
give_all_back(void)
{
	ConditionVariableCancelSleep();
	pgstat_report_wait_end();
	AbortOutOfAnyTransaction();
	AtEOXact_Files(false);
	if (MyReplicationSlot)
		ReplicationSlotRelease();
	my_routine->release();
	forget_wait_sets();
}

void
worker_main(const WorkerRoutine *routine)
{
	MemoryContext context;
	volatile long pause = FIRST_PAUSE_MS;

	my_routine = routine;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	take_slot();

	context = AllocSetContextCreate(TopMemoryContext, "multisite worker", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		AttemptEnd	end = ATTEMPT_AGAIN;
		bool		failed = false;
		volatile bool outdated = false;

		/* it goes by the settings as they are now */
		reloaded = false;
		MemoryContextSwitchTo(context);
		PG_TRY();
		{
			end = routine->attempt();
			routine->release();
			forget_wait_sets();
		}
		PG_CATCH();
		{
			ErrorData  *edata;
			bool		asked;

			/* who asks after a reload is not answered with what was wrong before it */
			outdated = reloaded || ConfigReloadPending;
			HOLD_INTERRUPTS();
			LWLockReleaseAll(); /* before we take one */
			asked = request_is_open(routine->kind);
			MemoryContextSwitchTo(context);
			edata = CopyErrorData();
			FlushErrorState();
			give_all_back();
			MemoryContextSwitchTo(context);
			if (worker_slot()->failing_since == 0)
				pause = FIRST_PAUSE_MS;
			worker_report_error(edata);
			/* who has come since may find things mended */
			if (asked && !routine->serves_offline && !(outdated && request_waits(routine->kind)))
				request_failed(routine->kind, edata);
			RESUME_INTERRUPTS();
			failed = true;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(context);

		if (failed)
		{
			/* whatever wakes us is a reason to try at once */
			worker_wait(0, NULL, outdated || request_waits(routine->kind) ? FIRST_PAUSE_MS : pause);
			pause = Min(pause * 2, LONGEST_PAUSE_MS);
		}
		else if (end == ATTEMPT_FINISHED)
			proc_exit(0);		/* exit code 0: the postmaster lets it rest */
	}
}
