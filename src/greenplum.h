/*-------------------------------------------------------------------------
 *
 * greenplum.h
 *	  What is different when the server is Greenplum.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_GREENPLUM_H
#define MULTISITE_GREENPLUM_H

#include "conn.h"
#include "wire.h"

/*
 * While the library is loaded: FATAL if this coordinator must not reach the
 * segments that its catalog names, because they may be the source's.
 */
extern void greenplum_check_start(void);

/*
 * Before a promotion: ERROR if this coordinator's catalog names another one
 * than it is, since its recovery would then end by a FATAL.
 */
extern void greenplum_check_promotion(void);

/*
 * Makes a consistent cut over a session that dispatches: fills in the times
 * of the manifest, and the entries of the coordinator and of nentries - 1
 * segments, the coordinator's first.  All restore points are durable then.
 * Closes the session by an ERROR.
 */
extern void greenplum_cut(Peer *dispatcher, WireManifest *manifest,
						  WireManifestEntry *entries, int nentries);

/*
 * A publisher's walsender must not be taken for that of a mirror, or of the
 * standby coordinator.  To be called around START_REPLICATION; without an
 * effect elsewhere.
 */
extern void greenplum_begin_to_hide(void);
extern void greenplum_hide_walsender(int pid);

/* ERROR if it is seen nevertheless; to be called again and again. */
extern void greenplum_check_hidden(int pid);

/* ERROR on Greenplum, for a function that is not made for it. */
extern void greenplum_refuse(const char *function);

#endif							/* MULTISITE_GREENPLUM_H */
