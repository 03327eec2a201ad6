/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between server versions, and nothing else.
 *
 * A name that ends in _compat, or a function below, hides a difference; no
 * other file has a version conditional.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_COMPAT_H
#define MULTISITE_COMPAT_H

#include "access/xlog.h"
#include "access/xlogreader.h"
#include "access/xlog_internal.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 160000
#error "multisite_repl was built and tested on PostgreSQL 15 only so far"
#endif

/* 15 split recovery off xlog.c */
#include "access/xlogrecovery.h"

/* 15 moved shared memory requests into a hook of their own */
#define INSTALL_SHMEM_REQUEST_HOOK(hook) \
	(prev_shmem_request_hook = shmem_request_hook, shmem_request_hook = (hook))
#define CALL_PREV_SHMEM_REQUEST_HOOK() \
	do { if (prev_shmem_request_hook) prev_shmem_request_hook(); } while (0)

/* 17 gave extensions wait events with names of their own */
#define WAIT_EVENT_MULTISITE	PG_WAIT_EXTENSION

/* 16 replaced MyBackendType checks for the startup process by macros */
#define AM_STARTUP_PROCESS()	(MyBackendType == B_STARTUP)

/* 17 took the context's owner as first argument */
#define CreateWaitEventSet_compat(nevents) \
	CreateWaitEventSet(CurrentMemoryContext, (nevents))

/* 18 added a third argument */
#define ReplicationSlotAcquire_compat(name) \
	ReplicationSlotAcquire((name), true)

/* 14 made the timeline an argument of the caller's choice */
static inline XLogRecPtr
replay_position_compat(TimeLineID *tli)
{
	return GetXLogReplayRecPtr(tli);
}

static inline TimeLineID
insert_timeline_compat(void)
{
	return GetWALInsertionTimeLine();
}

#endif							/* MULTISITE_COMPAT_H */
