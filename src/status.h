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

/* ERROR unless this server is the coordinator of a site that follows another. */
extern void require_remote_coordinator(void);

#endif							/* MULTISITE_STATUS_H */
