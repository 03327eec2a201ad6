/*-------------------------------------------------------------------------
 *
 * twophase.h
 *	  What a remote segment knows of transactions that were prepared on it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_TWOPHASE_H
#define MULTISITE_TWOPHASE_H

#include "access/xlogreader.h"

#include "twophase_log.h"

/*
 * For a receiver that begins from a base backup: a new log, with the prepared
 * transactions whose state files the backup has brought along.
 */
extern void twophase_create(void);

/*
 * Goes on with the log as it was at the release of this LSN: what it has of
 * WAL behind that is dropped, and comes again.
 */
extern void twophase_begin(XLogRecPtr released);

/* For walcheck: notes what a record of RM_XACT_ID says of a prepared one. */
extern void twophase_see(void *arg, XLogReaderState *record);

/* Makes durable what was noted; before the WAL that says so is released. */
extern void twophase_sync(XLogRecPtr released);

/* This server accepts writes: closes the log with the point of its promotion. */
extern void twophase_promoted(XLogRecPtr released, const char *point, uint32 nsegments);

extern void twophase_close(void);

/*
 * For sessions: at which point this server was promoted.  Returns false if it
 * was not, or knows nothing of it; the number of segments is 0 if that is not
 * known.
 */
extern bool twophase_promotion(char *point, uint32 *nsegments);

#endif							/* MULTISITE_TWOPHASE_H */
