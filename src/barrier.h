/*-------------------------------------------------------------------------
 *
 * barrier.h
 *	  The commit barrier of one segment.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_BARRIER_H
#define MULTISITE_BARRIER_H

#include "access/xact.h"
#include "access/xlogdefs.h"

extern Size barrier_shmem_size(void);
extern void barrier_shmem_init(void);
extern void barrier_install_hooks(void);
extern PGDLLEXPORT void multisite_barrier_xact_callback(XactEvent event, void *arg);

/*
 * Raises the barrier and waits until every commit that was under way has
 * written its record; completely: until it has ended, its wait for a standby
 * included, so that a snapshot sees it.  It comes down by itself after
 * timeout_ms, and when this process ends.  ERROR, with the barrier down, if it
 * is up already or the commits under way do not get that far in time.
 */
extern void barrier_raise(int timeout_ms, bool completely);

/*
 * Writes a restore point; ERROR if the barrier that this process raised is
 * no longer up, since the point would then be no consistent cut.  The record
 * is not flushed.
 */
extern XLogRecPtr barrier_write_restore_point(const char *name, TimeLineID *timeline);

/*
 * The same ERROR; for restore points that another session has written.  The
 * barrier cannot have been down meanwhile, since who raises it has to ask.
 */
extern void barrier_require_up(void);

/* Lowers the barrier, if this process raised it. */
extern void barrier_lower(void);

/* Commits of transactions with an xid since server start. */
extern uint64 barrier_commits(void);

#endif							/* MULTISITE_BARRIER_H */
