/*-------------------------------------------------------------------------
 *
 * walcheck.h
 *	  Reads WAL, wherever it lies, to see that it is a valid chain of records
 *	  and where its restore points end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_WALCHECK_H
#define MULTISITE_WALCHECK_H

#include "access/xlogdefs.h"
#include "access/xlogreader.h"
#include "datatype/timestamp.h"

typedef struct WalCheck WalCheck;

/*
 * Copies len bytes from lsn on into buf, all of one segment.  Returns false
 * if the bytes are not there.
 */
typedef bool (*WalRead) (void *arg, XLogRecPtr lsn, char *buf, int len);

typedef void (*RestorePointSeen) (void *arg, const char *name, TimestampTz time,
								  XLogRecPtr end);

/* A record of RM_XACT_ID. */
typedef void (*XactSeen) (void *arg, XLogReaderState *record);

/* start is the end of a record; seen and xact_seen may be NULL */
extern WalCheck *walcheck_begin(XLogRecPtr start, WalRead read,
								RestorePointSeen seen, XactSeen xact_seen, void *arg);
extern void walcheck_end(WalCheck *check);

/*
 * Goes on to the last record that ends at or before available.  Returns the
 * end of that record.  *problem is set (palloc'd) when what follows it is
 * not valid WAL, although it is all there.
 */
extern XLogRecPtr walcheck_advance(WalCheck *check, XLogRecPtr available, char **problem);

#endif							/* MULTISITE_WALCHECK_H */
