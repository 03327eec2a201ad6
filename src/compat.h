/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between server versions, and nothing else.
 *
 * A name that ends in _compat, or a macro below, hides a difference; no other
 * file has a version conditional.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_COMPAT_H
#define MULTISITE_COMPAT_H

/* Greenplum 7 is PostgreSQL 12 */
#if PG_VERSION_NUM < 120000 || (PG_VERSION_NUM < 130000 && !defined(GP_VERSION_NUM))
#error "multisite_repl needs PostgreSQL 13 or newer, or Greenplum 7"
#elif PG_VERSION_NUM >= 190000
#error "multisite_repl was never built or tested on this version of PostgreSQL; 13 to 18 are known"
#endif

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogreader.h"
#include "access/xlog_internal.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#if PG_VERSION_NUM >= 160000
#include "storage/proclist.h"
#endif
#if PG_VERSION_NUM >= 140000
#include "utils/wait_event.h"
#else
#include "pgstat.h"
#endif
#if PG_VERSION_NUM < 150000
#include "postmaster/autovacuum.h"
#endif
#if PG_VERSION_NUM < 160000
#include "replication/walsender.h"
#endif

#if PG_VERSION_NUM >= 130000
#include "postmaster/interrupt.h"
#else
#include "storage/condition_variable.h"
#include "storage/proclist.h"
#include "tcop/tcopprot.h"
#endif
#ifdef GP_VERSION_NUM
#include "catalog/gp_distribution_policy.h"
#include "cdb/cdbtm.h"
#include "cdb/cdbvars.h"
#include "utils/inval.h"
#endif

/* 15 split recovery off xlog.c */
#if PG_VERSION_NUM >= 150000
#include "access/xlogrecovery.h"
#endif

/*
 * 15 moved shared memory requests into a hook of their own; before, they are
 * made while the library is loaded.
 */
#if PG_VERSION_NUM >= 150000
#define INSTALL_SHMEM_REQUEST_HOOK(hook) \
	(prev_shmem_request_hook = shmem_request_hook, shmem_request_hook = (hook))
#else
typedef void (*shmem_request_hook_type) (void);
#define INSTALL_SHMEM_REQUEST_HOOK(hook) \
	(prev_shmem_request_hook = NULL, (hook) ())
#endif
#define CALL_PREV_SHMEM_REQUEST_HOOK() \
	do { if (prev_shmem_request_hook) prev_shmem_request_hook(); } while (0)

/*
 * Where those requests are made while the library is loaded, MaxBackends is
 * not known yet: the sum is that of InitializeMaxBackends().
 */
static inline int
max_backends_compat(void)
{
#if PG_VERSION_NUM < 150000
	if (MaxBackends == 0)
		return MaxConnections + autovacuum_max_workers + 1 +
			max_worker_processes + max_wal_senders;
#endif
	return MaxBackends;
}

/*
 * What a process of ours waits for.  From 17 on pg_stat_activity names it;
 * before, it is "Extension".
 */
typedef enum MultisiteWait
{
	WAIT_FOR_BARRIER,			/* a commit, until the barrier is down */
	WAIT_FOR_COMMITS,			/* the raiser, until no commit is under way */
	WAIT_FOR_KAFKA,
	WAIT_FOR_POINT,
	WAIT_FOR_PROMOTION,
	WAIT_FOR_SEGMENTS,			/* until another server answers */
	WAIT_FOR_WORK,				/* a worker's main loop */
	WAIT_FOR_WORKER				/* a session, until a worker answers */
} MultisiteWait;

static inline uint32
wait_event_compat(MultisiteWait wait)
{
#if PG_VERSION_NUM >= 170000
	static const char *const names[] = {
		[WAIT_FOR_BARRIER] = "MultisiteBarrier",
		[WAIT_FOR_COMMITS] = "MultisiteCommits",
		[WAIT_FOR_KAFKA] = "MultisiteKafka",
		[WAIT_FOR_POINT] = "MultisitePoint",
		[WAIT_FOR_PROMOTION] = "MultisitePromotion",
		[WAIT_FOR_SEGMENTS] = "MultisiteSegments",
		[WAIT_FOR_WORK] = "MultisiteWork",
		[WAIT_FOR_WORKER] = "MultisiteWorker",
	};
	static uint32 events[lengthof(names)];

	/* the server knows a name once for all processes, we for this one */
	if (events[wait] == 0)
		events[wait] = WaitEventExtensionNew(names[wait]);
	return events[wait];
#else
	(void) wait;
	return PG_WAIT_EXTENSION;
#endif
}

/* 13 gave all processes a type */
#if PG_VERSION_NUM >= 130000
#define AM_STARTUP_PROCESS()	(MyBackendType == B_STARTUP)
#else
#define AM_STARTUP_PROCESS()	AmStartupProcess()
#endif

/* 17 replaced the memory context by an owner; without one it lives until freed */
#if PG_VERSION_NUM >= 170000
#define CreateWaitEventSet_compat(nevents) CreateWaitEventSet(NULL, (nevents))
#else
#define CreateWaitEventSet_compat(nevents) CreateWaitEventSet(TopMemoryContext, (nevents))
#endif

/*
 * An ERROR if somebody else has it; 14 changed the argument that says so.  18
 * can raise one if it is invalid, too, but ours says what to do.
 */
#if PG_VERSION_NUM >= 180000
#define ReplicationSlotAcquire_compat(name) ReplicationSlotAcquire((name), true, false)
#elif PG_VERSION_NUM >= 140000
#define ReplicationSlotAcquire_compat(name) ReplicationSlotAcquire((name), true)
#elif PG_VERSION_NUM >= 130000
#define ReplicationSlotAcquire_compat(name) ((void) ReplicationSlotAcquire((name), SAB_Error))
#else
#define ReplicationSlotAcquire_compat(name) ReplicationSlotAcquire((name), true)
#endif

/* 16 says why a slot is invalid, and may leave its LSN */
#if PG_VERSION_NUM >= 160000
#define SLOT_IS_INVALID(slot)	((slot)->data.invalidated != RS_INVAL_NONE)
#else
#define SLOT_IS_INVALID(slot)	XLogRecPtrIsInvalid((slot)->data.restart_lsn)
#endif

/* 14 lets others look for a slot by its name, too */
static inline bool
slot_exists_compat(const char *name)
{
#if PG_VERSION_NUM >= 140000
	return SearchNamedReplicationSlot(name, true) != NULL;
#else
	bool		found = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		found = slot->in_use && strcmp(NameStr(slot->data.name), name) == 0;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
#endif
}

/* 17 took a process's number out of PGPROC */
#if PG_VERSION_NUM >= 170000
#define MY_PROC_NUMBER()		MyProcNumber
#else
#define MY_PROC_NUMBER()		(MyProc->pgprocno)
#endif

/* 14 moved xmin into PGPROC */
#if PG_VERSION_NUM >= 140000
#define MY_XMIN_COMPAT			(MyProc->xmin)
#else
#define MY_XMIN_COMPAT			(MyPgXact->xmin)
#endif

/* 14 told a utility hook whether it may change the tree; 12 had another tag */
#if PG_VERSION_NUM < 130000
#define PROCESS_UTILITY_PARAMETERS \
	PlannedStmt *pstmt, const char *queryString, \
	ProcessUtilityContext context, ParamListInfo params, \
	QueryEnvironment *queryEnv, DestReceiver *dest, char *completionTag
#define PROCESS_UTILITY_ARGUMENTS \
	pstmt, queryString, context, params, queryEnv, dest, completionTag
#elif PG_VERSION_NUM >= 140000
#define PROCESS_UTILITY_PARAMETERS \
	PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, \
	ProcessUtilityContext context, ParamListInfo params, \
	QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc
#define PROCESS_UTILITY_ARGUMENTS \
	pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc
#else
#define PROCESS_UTILITY_PARAMETERS \
	PlannedStmt *pstmt, const char *queryString, \
	ProcessUtilityContext context, ParamListInfo params, \
	QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc
#define PROCESS_UTILITY_ARGUMENTS \
	pstmt, queryString, context, params, queryEnv, dest, qc
#endif

/* 14 */
#ifndef LSN_FORMAT_ARGS
#define LSN_FORMAT_ARGS(lsn) (AssertVariableIsOfTypeMacro((lsn), XLogRecPtr), (uint32) ((lsn) >> 32)), ((uint32) (lsn))
#endif

/* 15 keeps a prefix for an extension; before, unknown settings only get a warning */
#if PG_VERSION_NUM >= 150000
#define MarkGUCPrefixReserved_compat(prefix) MarkGUCPrefixReserved(prefix)
#else
#define MarkGUCPrefixReserved_compat(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/* 14 wants it to be said; before, a hash table's keys are strings by default */
#if PG_VERSION_NUM >= 140000
#define HASH_STRINGS_COMPAT		HASH_STRINGS
#else
#define HASH_STRINGS_COMPAT		0
#endif

/* 15 */
#if PG_VERSION_NUM < 150000
#define strtou64(str, endptr, base) ((uint64) strtoull(str, endptr, base))
#endif

/* Sets a set-returning function up to put its rows into a tuplestore; 15 has it ready made */
#if PG_VERSION_NUM >= 150000
#define InitMaterializedSRF_compat(fcinfo) InitMaterializedSRF((fcinfo), 0)
#else
static inline void
InitMaterializedSRF_compat(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) || !(rsinfo->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	old = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, &rsinfo->setDesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult = tuplestore_begin_heap((rsinfo->allowedModes & SFRM_Materialize_Random) != 0,
											  false, work_mem);
	MemoryContextSwitchTo(old);
}
#endif

/* ------------------------------------------------------------------------
 * What 13 brought, and 12 lacks
 * ------------------------------------------------------------------------
 */
#if PG_VERSION_NUM < 130000

#define SignalHandlerForConfigReload PostgresSigHupHandler
#define TYPALIGN_INT 'i'
#define StaticAssertDecl(condition, message) _Static_assert(condition, message)
#define INTERRUPTS_PENDING_CONDITION() (InterruptPending)

/* PG_FINALLY: the three macros have to agree */
#undef PG_TRY
#undef PG_CATCH
#undef PG_END_TRY
#define PG_TRY() \
	do { \
		sigjmp_buf *_save_exception_stack = PG_exception_stack; \
		ErrorContextCallback *_save_context_stack = error_context_stack; \
		sigjmp_buf _local_sigjmp_buf; \
		bool		_do_rethrow = false; \
		if (sigsetjmp(_local_sigjmp_buf, 0) == 0) \
		{ \
			PG_exception_stack = &_local_sigjmp_buf
#define PG_CATCH() \
		} \
		else \
		{ \
			PG_exception_stack = _save_exception_stack; \
			error_context_stack = _save_context_stack
#define PG_FINALLY() \
		} \
		else \
			_do_rethrow = true; \
		{ \
			PG_exception_stack = _save_exception_stack; \
			error_context_stack = _save_context_stack
#define PG_END_TRY() \
		} \
		if (_do_rethrow) \
			PG_RE_THROW(); \
		PG_exception_stack = _save_exception_stack; \
		error_context_stack = _save_context_stack; \
	} while (0)

/* The sleep must have been prepared; returns whenever there may be news. */
static inline void
ConditionVariableTimedSleep(ConditionVariable *cv, long timeout, uint32 wait_event)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, wait_event);
	ResetLatch(MyLatch);
	SpinLockAcquire(&cv->mutex);
	if (!proclist_contains(&cv->wakeup, MyProc->pgprocno, cvWaitLink))
		proclist_push_tail(&cv->wakeup, MyProc->pgprocno, cvWaitLink);
	SpinLockRelease(&cv->mutex);
	CHECK_FOR_INTERRUPTS();
}

/* in minor releases of 12, too, but not in the one that Greenplum comes from */
static inline long
timestamp_difference_milliseconds(TimestampTz start, TimestampTz stop)
{
	TimestampTz diff = stop - start;

	if (diff <= 0)
		return 0;
	return diff >= (INT_MAX - 1L) * 1000 ? INT_MAX : (long) ((diff + 999) / 1000);
}
#define TimestampDifferenceMilliseconds timestamp_difference_milliseconds

#endif							/* PG_VERSION_NUM < 130000 */

/* 13 gave the reader's start a function of its own, and its callbacks a struct */
#if PG_VERSION_NUM >= 130000
#define WAL_PAGE_READ_PARAMETERS \
	XLogReaderState *reader, XLogRecPtr page, int reqLen, XLogRecPtr targetRecPtr, char *buf
#define XLogReaderAllocate_compat(callback, arg) \
	XLogReaderAllocate(wal_segment_size, NULL, XL_ROUTINE(.page_read = (callback)), (arg))
#define XLogReadRecord_compat(reader, start, errormsg) \
	((XLogRecPtrIsInvalid(start) ? (void) 0 : XLogBeginRead((reader), (start))), XLogReadRecord((reader), (errormsg)))
#else
#define WAL_PAGE_READ_PARAMETERS \
	XLogReaderState *reader, XLogRecPtr page, int reqLen, XLogRecPtr targetRecPtr, char *buf, TimeLineID *pageTLI
#define XLogReaderAllocate_compat(callback, arg) XLogReaderAllocate(wal_segment_size, (callback), (arg))
#define XLogReadRecord_compat(reader, start, errormsg) XLogReadRecord((reader), (start), (errormsg))
#endif

/*
 * The header of a PREPARE's record, and of its state file; gid_at says where
 * the gid follows.  13 made it public.  Greenplum, which 12 is for us, ends
 * what is prepared by itself, so that nobody needs it there.
 */
static inline bool
prepare_header_compat(const char *data, size_t len, TransactionId *xid,
					  TimestampTz *prepared_at, size_t *gid_at, size_t *gid_len)
{
#if PG_VERSION_NUM >= 130000
	xl_xact_prepare header;

	*gid_at = MAXALIGN(sizeof(header));
	if (len < *gid_at)
		return false;
	memcpy(&header, data, sizeof(header));
	*xid = header.xid;
	*prepared_at = header.prepared_at;
	*gid_len = header.gidlen;
	return true;
#else
	return false;
#endif
}

static inline XLogRecPtr
replay_position_compat(TimeLineID *tli)
{
	return GetXLogReplayRecPtr(tli);
}

/* Both for a server that is not in recovery; 15 made timelines no global of each process */
static inline XLogRecPtr
flush_position_compat(void)
{
#if PG_VERSION_NUM >= 150000
	return GetFlushRecPtr(NULL);
#else
	return GetFlushRecPtr();
#endif
}

static inline TimeLineID
insert_timeline_compat(void)
{
#if PG_VERSION_NUM >= 150000
	return GetWALInsertionTimeLine();
#else
	/* which this sets */
	(void) RecoveryInProgress();
	return ThisTimeLineID;
#endif
}

#if PG_VERSION_NUM < 160000
static inline void
set_walsender_latch(int pid, Latch *latch)
{
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];

		SpinLockAcquire(&walsnd->mutex);
		if (walsnd->pid == pid)
			walsnd->latch = latch;
		SpinLockRelease(&walsnd->mutex);
	}
}
#endif

/*
 * Who flushes WAL wakes the walsenders (WalSndWakeup(), walsender.c): those
 * whose latch is in WalSndCtl, and since 16 those that are in the list of a
 * condition variable.  This takes one off there, so that only its socket,
 * signals and timeouts still wake it.  Since 16 a walsender puts itself on the
 * list each time it goes to sleep: there this holds until it wakes, and does
 * nothing for one that is awake, so it is to be repeated.
 */
static inline void
let_walsender_sleep_compat(int pid)
{
#if PG_VERSION_NUM >= 160000
	PGPROC	   *proc = BackendPidGetProc(pid);
	ConditionVariable *cv = &WalSndCtl->wal_flush_cv;
	proclist_mutable_iter iter;

	if (proc == NULL)
		return;
	SpinLockAcquire(&cv->mutex);
	proclist_foreach_modify(iter, &cv->wakeup, cvWaitLink)
	{
		if (iter.cur == proc - ProcGlobal->allProcs && proc->pid == pid)
			proclist_delete(&cv->wakeup, iter.cur, cvWaitLink);
	}
	SpinLockRelease(&cv->mutex);
#else
	set_walsender_latch(pid, NULL);
#endif
}

/* Ends that, and wakes it: it sends what was flushed meanwhile. */
static inline void
wake_walsender_compat(int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	if (proc == NULL)
		return;
#if PG_VERSION_NUM < 160000
	set_walsender_latch(pid, &proc->procLatch);
#endif
	SetLatch(&proc->procLatch);
}

/* ------------------------------------------------------------------------
 * Greenplum.  What is done with this is in greenplum.c.
 * ------------------------------------------------------------------------
 */

typedef enum GreenplumRole
{
	ROLE_NONE,					/* this is no Greenplum */
	ROLE_DISPATCH,				/* on the coordinator: reaches the segments */
	ROLE_EXECUTE,				/* a segment's, for the coordinator */
	ROLE_UTILITY				/* this server alone */
} GreenplumRole;

#ifdef GP_VERSION_NUM
#define ON_GREENPLUM			true
#else
#define ON_GREENPLUM			false
#endif

/* Of this process; the postmaster's, in one that has just begun. */
static inline GreenplumRole
greenplum_role_compat(void)
{
#ifdef GP_VERSION_NUM
	return Gp_role == GP_ROLE_DISPATCH ? ROLE_DISPATCH :
		Gp_role == GP_ROLE_EXECUTE ? ROLE_EXECUTE : ROLE_UTILITY;
#else
	return ROLE_NONE;
#endif
}

/* For a worker, before it connects to a database: it never dispatches */
static inline void
become_utility_compat(void)
{
#ifdef GP_VERSION_NUM
	Gp_role = GP_ROLE_UTILITY;
#endif
}

static inline int
content_id_compat(void)
{
#ifdef GP_VERSION_NUM
	return GpIdentity.segindex;
#else
	return -1;
#endif
}

/* Which server of its gp_segment_configuration this one takes itself for */
static inline int
dbid_compat(void)
{
#ifdef GP_VERSION_NUM
	return GpIdentity.dbid;
#else
	return -1;
#endif
}

/* Is this a coordinator's transaction that segments take part in? */
static inline bool
is_distributed_compat(void)
{
#ifdef GP_VERSION_NUM
	return Gp_role == GP_ROLE_DISPATCH && isCurrentDtxActivated();
#else
	return false;
#endif
}

/* Has a segment written WAL for it? */
static inline bool
segments_wrote_compat(void)
{
#ifdef GP_VERSION_NUM
	return TopXactExecutorDidWriteXLog();
#else
	return false;
#endif
}

/* Makes the rows of a new table stay on the coordinator, as a catalog's do */
static inline void
keep_on_coordinator_compat(Oid relation)
{
#ifdef GP_VERSION_NUM
	GpPolicyRemove(relation);
	CacheInvalidateRelcacheByRelid(relation);
#endif
}

#endif							/* MULTISITE_COMPAT_H */
