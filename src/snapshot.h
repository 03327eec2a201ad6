/*-------------------------------------------------------------------------
 *
 * snapshot.h
 *	  What a session that waits for replay does with its snapshot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_SNAPSHOT_H
#define MULTISITE_SNAPSHOT_H

/*
 * On a standby, the snapshot of a statement that waits for replay would hold
 * that replay up, or be cancelled by it.  Lets go of it before such a wait, if
 * nothing can be read by it any more: when the statement calls nothing but
 * this extension, and is a transaction of its own.  Else the wait counts as
 * any query.
 */
extern void let_go_of_snapshot(void);

/* After the wait: snapshots that are taken from now on hold replay up again. */
extern void hold_snapshots_again(void);

#endif							/* MULTISITE_SNAPSHOT_H */
