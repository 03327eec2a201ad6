/*-------------------------------------------------------------------------
 *
 * barrier.c
 *	  The commit barrier of one segment.
 *
 * While the barrier is up, nothing that makes a transaction durable begins:
 * neither the commit of a transaction with an xid, nor COMMIT PREPARED or
 * ROLLBACK PREPARED, nor, from the restore point on, PREPARE TRANSACTION.
 * Reads and statements go on.  A point
 * is a consistent cut because it is written while the barriers of all
 * segments are up; docs/consistency.md has the proof.
 *
 * The two sides meet as in Dekker's algorithm.  A committing backend sets its
 * own flag, then looks whether the barrier is up; the raiser sets the barrier
 * up, then looks at the flags; with a full memory barrier between the two
 * steps on either side, at least one of them sees the other.  A backend that
 * sees the barrier takes its flag back and waits.  While the barrier is down
 * that costs a commit two writes to a cache line of its own and two memory
 * barriers, and no lock.
 *
 * A backend waits before it has written anything of its commit and while
 * interrupts are accepted, so it can be cancelled or terminated.  The wait
 * for synchronous replication lies between setting and clearing the flag, but
 * behind the commit record: whoever is in it has done all that a point needs.
 * A raiser must not wait for it, since with synchronous_commit = remote_apply
 * that wait ends with the very point.  Only a verified point has to, since its
 * snapshots see a commit at the end of that wait.
 *
 * The barrier comes down by the one who raised it, at the latest when its
 * process ends, or, whoever notices it first, once its time is over.
 * Restore points are written under the lock that lowering it needs, so that a
 * restore point is never written after its barrier came down.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "replication/syncrep.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"

#include "barrier.h"
#include "compat.h"

/* One per process, on a cache line of its own. */
typedef union BackendFlag
{
	struct
	{
		pg_atomic_uint32 committing;
		/* written by the owner only */
		uint64		commits;
	};
	char		pad[PG_CACHE_LINE_SIZE];
} BackendFlag;

/*
 * PREPARE TRANSACTION waits only once all segments are drained.  It need not
 * wait at all for the proof, and before that it must not: where a transaction
 * manager lives in a server, as Citus does, a commit that is under way there,
 * and that its raiser waits for, prepares on other segments.
 */
typedef enum BarrierState
{
	BARRIER_DOWN,
	BARRIER_DRAINS,				/* segments wait for commits under way */
	BARRIER_CUTS				/* restore points are being written */
} BarrierState;

typedef struct BarrierShared
{
	LWLock	   *lock;			/* held to lower, shared to write a restore point */
	pg_atomic_uint32 up;			/* a BarrierState */
	pid_t		owner;			/* who raised it; protected by lock */
	TimestampTz deadline;		/* when it comes down by itself */
	ConditionVariable lowered;	/* waiting commits */
	ConditionVariable drained;	/* the raiser */
	int			nflags;
	BackendFlag flags[FLEXIBLE_ARRAY_MEMBER];
} BarrierShared;

#define SYNC_REP_CHECK_MS	5

static BarrierShared *barrier = NULL;
static bool exit_hook_installed = false;
static ProcessUtility_hook_type prev_ProcessUtility = NULL;

static int
flag_count(void)
{
	return max_backends_compat() + NUM_AUXILIARY_PROCS + max_prepared_xacts;
}

Size
barrier_shmem_size(void)
{
	return MAXALIGN(offsetof(BarrierShared, flags) + PG_CACHE_LINE_SIZE +
					mul_size(sizeof(BackendFlag), flag_count()));
}

void
barrier_shmem_init(void)
{
	bool		found;

	barrier = ShmemInitStruct("multisite_repl barrier", barrier_shmem_size(), &found);
	if (found)
		return;
	memset(barrier, 0, barrier_shmem_size());
	barrier->lock = &(GetNamedLWLockTranche("multisite_repl"))[2].lock;
	pg_atomic_init_u32(&barrier->up, BARRIER_DOWN);
	ConditionVariableInit(&barrier->lowered);
	ConditionVariableInit(&barrier->drained);
	barrier->nflags = flag_count();
	for (int i = 0; i < barrier->nflags; i++)
		pg_atomic_init_u32(&barrier->flags[i].committing, 0);
}

static BackendFlag *
my_flag(void)
{
	return &barrier->flags[MY_PROC_NUMBER()];
}

/* Caller holds the lock exclusively. */
static void
lower_locked(void)
{
	barrier->owner = 0;
	barrier->deadline = 0;
	pg_atomic_write_u32(&barrier->up, BARRIER_DOWN);
	ConditionVariableBroadcast(&barrier->lowered);
}

/* Lowers a barrier whose time is over; returns the milliseconds it has left */
static long
lower_if_expired(void)
{
	long		left;

	LWLockAcquire(barrier->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u32(&barrier->up) == BARRIER_DOWN)
		left = 0;
	else
	{
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), barrier->deadline);
		if (left <= 0)
		{
			lower_locked();
			left = 0;
			ereport(LOG,
					(errmsg("commit barrier came down after multisite.barrier_timeout"),
					 errdetail("The consistency point for which it was up is given up.")));
		}
	}
	LWLockRelease(barrier->lock);
	return left;
}

/* ------------------------------------------------------------------------
 * The committing side
 * ------------------------------------------------------------------------
 */

static inline bool
holds_up(bool prepares)
{
	uint32		up = pg_atomic_read_u32(&barrier->up);

	return prepares ? up == BARRIER_CUTS : up != BARRIER_DOWN;
}

/* counts: whether there is something that a point made by itself is for */
static void
commit_begins(bool counts, bool prepares)
{
	BackendFlag *flag = my_flag();

	for (;;)
	{
		pg_atomic_write_u32(&flag->committing, 1);
		pg_memory_barrier();
		if (likely(!holds_up(prepares)))
		{
			/*
			 * Counted now, not at its end: with synchronous_commit =
			 * remote_apply that end waits for the point which is only made
			 * because there was a commit.
			 */
			if (counts)
				flag->commits++;
			return;
		}

		/* step back, and let the raiser see it */
		pg_atomic_write_u32(&flag->committing, 0);
		ConditionVariableBroadcast(&barrier->drained);

		ConditionVariablePrepareToSleep(&barrier->lowered);
		while (holds_up(prepares))
		{
			long		left = lower_if_expired();

			if (left > 0)
				(void) ConditionVariableTimedSleep(&barrier->lowered, left,
												   wait_event_compat(WAIT_FOR_BARRIER));
		}
		ConditionVariableCancelSleep();
	}
}

/* Must not throw: the transaction may be committed already. */
static void
commit_ends(void)
{
	BackendFlag *flag = my_flag();

	if (pg_atomic_read_u32(&flag->committing) == 0)
		return;
	pg_atomic_write_u32(&flag->committing, 0);
	pg_memory_barrier();
	if (unlikely(pg_atomic_read_u32(&barrier->up) != BARRIER_DOWN))
		ConditionVariableBroadcast(&barrier->drained);
}

/* Not static, so that a test can take it out: test/nobarrier/nobarrier.c. */
void
multisite_barrier_xact_callback(XactEvent event, void *arg)
{
	bool		has_xid;

	if (barrier == NULL || MyProc == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			has_xid = TransactionIdIsValid(GetTopTransactionIdIfAny());
			if (has_xid || is_distributed_compat())
				commit_begins(has_xid || segments_wrote_compat(), event == XACT_EVENT_PRE_PREPARE);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			commit_ends();
			break;
		default:
			break;
	}
}

static void
next_ProcessUtility(PROCESS_UTILITY_PARAMETERS)
{
	if (prev_ProcessUtility)
		prev_ProcessUtility(PROCESS_UTILITY_ARGUMENTS);
	else
		standard_ProcessUtility(PROCESS_UTILITY_ARGUMENTS);
}

/*
 * COMMIT PREPARED and ROLLBACK PREPARED write their record without any
 * transaction callback of the prepared transaction, so they are caught here.
 */
static void
barrier_ProcessUtility(PROCESS_UTILITY_PARAMETERS)
{
	bool		guarded = false;

	if (barrier != NULL && IsA(pstmt->utilityStmt, TransactionStmt))
	{
		TransactionStmtKind kind = ((TransactionStmt *) pstmt->utilityStmt)->kind;

		guarded = kind == TRANS_STMT_COMMIT_PREPARED || kind == TRANS_STMT_ROLLBACK_PREPARED;
	}
	if (!guarded)
	{
		next_ProcessUtility(PROCESS_UTILITY_ARGUMENTS);
		return;
	}

	commit_begins(true, false);
	PG_TRY();
	{
		next_ProcessUtility(PROCESS_UTILITY_ARGUMENTS);
	}
	PG_FINALLY();
	{
		commit_ends();
	}
	PG_END_TRY();
}

void
barrier_install_hooks(void)
{
	RegisterXactCallback(multisite_barrier_xact_callback, NULL);
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = barrier_ProcessUtility;
}

uint64
barrier_commits(void)
{
	uint64		commits = 0;

	for (int i = 0; i < barrier->nflags; i++)
		commits += barrier->flags[i].commits;
	return commits;
}

/* ------------------------------------------------------------------------
 * The raising side
 * ------------------------------------------------------------------------
 */

void
barrier_lower(void)
{
	LWLockAcquire(barrier->lock, LW_EXCLUSIVE);
	if (barrier->owner == MyProcPid)
		lower_locked();
	LWLockRelease(barrier->lock);
}

static void
lower_at_exit(int code, Datum arg)
{
	barrier_lower();
}

/* Has this process written its commit record?  The lock orders both. */
static bool
waits_for_standby(int process)
{
	bool		waits;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	waits = ProcGlobal->allProcs[process].syncRepState != SYNC_REP_NOT_WAITING;
	LWLockRelease(SyncRepLock);
	return waits;
}

/*
 * The first commit that is under way, from *next on; false when none is.
 * Completely: one that waits for a standby is under way, too.
 */
static bool
find_committing(volatile int *next, bool completely)
{
	for (; *next < barrier->nflags; (*next)++)
	{
		if (pg_atomic_read_u32(&barrier->flags[*next].committing) != 0 &&
			(completely || !waits_for_standby(*next)))
			return true;
	}
	return false;
}

static int
process_id(int process)
{
	return (int) ProcGlobal->allProcs[process].pid;
}

void
barrier_raise(int timeout_ms, bool completely)
{
	pid_t		other;
	TimestampTz deadline;
	volatile int checked = 0;	/* flags that were seen clear */

	if (!exit_hook_installed)
	{
		before_shmem_exit(lower_at_exit, (Datum) 0);
		exit_hook_installed = true;
	}

	(void) lower_if_expired();
	LWLockAcquire(barrier->lock, LW_EXCLUSIVE);
	other = barrier->owner;
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	if (other == 0)
	{
		barrier->owner = MyProcPid;
		barrier->deadline = deadline;
		pg_atomic_write_u32(&barrier->up, BARRIER_DRAINS);
	}
	LWLockRelease(barrier->lock);
	if (other != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the commit barrier is up already"),
				 errdetail("Process %d raised it.", (int) other)));

	pg_memory_barrier();
	PG_TRY();
	{
		/*
		 * A flag once seen clear needs no second look: it may be set again for
		 * a moment, but whoever sets it now sees the barrier.
		 */
		ConditionVariablePrepareToSleep(&barrier->drained);
		while (find_committing(&checked, completely))
		{
			long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

			if (left <= 0)
				ereport(ERROR,
						(errcode(ERRCODE_QUERY_CANCELED),
						 errmsg("commits under way did not end in %d ms", timeout_ms),
						 errdetail("Process %d is committing.", process_id(checked)),
						 errhint("See pg_stat_activity, and multisite.barrier_timeout.")));

			/* nobody tells us when a commit begins to wait for a standby */
			if (SyncRepStandbyNames && SyncRepStandbyNames[0])
				left = Min(left, SYNC_REP_CHECK_MS);
			(void) ConditionVariableTimedSleep(&barrier->drained, left,
											   wait_event_compat(WAIT_FOR_COMMITS));
		}
		ConditionVariableCancelSleep();
	}
	PG_CATCH();
	{
		ConditionVariableCancelSleep();
		barrier_lower();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
refuse_late(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the commit barrier came down before the restore point was written"),
			 errhint("multisite.barrier_timeout may be too short.")));
}

/* Is it this process's, with time left?  Caller holds the lock. */
static bool
is_ours(void)
{
	return barrier->owner == MyProcPid && GetCurrentTimestamp() < barrier->deadline;
}

void
barrier_require_up(void)
{
	bool		up;

	LWLockAcquire(barrier->lock, LW_SHARED);
	up = is_ours();
	LWLockRelease(barrier->lock);
	if (!up)
		refuse_late();
}

XLogRecPtr
barrier_write_restore_point(const char *name, TimeLineID *timeline)
{
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	LWLockAcquire(barrier->lock, LW_SHARED);
	if (is_ours())
	{
		pg_atomic_write_u32(&barrier->up, BARRIER_CUTS);
		lsn = XLogRestorePoint(name);
	}
	LWLockRelease(barrier->lock);

	if (XLogRecPtrIsInvalid(lsn))
		refuse_late();
	*timeline = insert_timeline_compat();
	return lsn;
}
