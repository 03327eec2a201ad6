/*-------------------------------------------------------------------------
 *
 * prune.h
 *	  Which messages of a pipe no remote site needs any more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_PRUNE_H
#define MULTISITE_PRUNE_H

#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#define PRUNE_MARKS 1024

/* A message of the pipe: all WAL before lsn is in it and those before it. */
typedef struct PruneMark
{
	uint64		lsn;
	int64		offset;
} PruneMark;

/* Some messages of the pipe, in its order, so that one need not be looked for. */
typedef struct PruneMarks
{
	PruneMark	marks[PRUNE_MARKS];
	int			n;
	uint64		step;			/* bytes of WAL between two */
} PruneMarks;

extern void prune_forget(PruneMarks *marks, uint64 step);

/* Kafka has acknowledged the message at offset, which ends at lsn. */
extern void prune_note(PruneMarks *marks, uint64 lsn, int64 offset);

/*
 * Up to which offset, exclusively, may messages be deleted when all remote
 * sites have applied the WAL before applied (0: one has not said), and margin
 * bytes before that are to stay?  -1 if no more than before.  The last
 * message of the pipe always stays: it says where the pipe ends.
 */
extern int64 prune_before(PruneMarks *marks, uint64 applied, uint64 margin);

#endif							/* MULTISITE_PRUNE_H */
