/*-------------------------------------------------------------------------
 *
 * status.h
 *	  The views' functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_STATUS_H
#define MULTISITE_STATUS_H

#include "utils/timestamp.h"

/* An interval as milliseconds; ERROR if it is negative. */
extern long interval_milliseconds(const Interval *interval);

/*
 * On a standby, the snapshot of a statement that waits for replay would hold
 * that replay up, or be cancelled by it.  Lets go of it if nothing can be read
 * by it any more: when the statement reads no table, and is a transaction of
 * its own.
 */
extern void let_go_of_snapshot(void);

/* ERROR unless this server is the coordinator of a site that follows another. */
extern void require_remote_coordinator(void);

#endif							/* MULTISITE_STATUS_H */
