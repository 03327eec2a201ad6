/*-------------------------------------------------------------------------
 *
 * staging.h
 *	  WAL that has arrived at a remote segment and is not released yet.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_STAGING_H
#define MULTISITE_STAGING_H

#include "access/xlogdefs.h"

#include "decide.h"

#define STAGING_MAX_SWITCHES 8

/*
 * All that a receiver must remember; on disk by staging_save().  Whatever
 * came later than the last save comes again from Kafka.
 */
typedef struct StagingState
{
	/* what this is a copy of; never changes */
	uint64		system_id;
	int32		segment;
	uint32		wal_segment_size;
	char		cluster[NAMEDATALEN];
	char		source_site[NAMEDATALEN];
	TimeLineID	base_timeline;	/* where the base backup's WAL ended */
	XLogRecPtr	base_lsn;

	/* next messages to read */
	int64		pipe_offset;
	int64		points_offset;
	int64		release_offset;
	int64		release_base;	/* decisions before this one were for others */

	/* what is staged */
	uint32		epoch;			/* newest claim */
	TimeLineID	timeline;
	XLogRecPtr	staged_lsn;
	TimeLineID	next_timeline;	/* by a history message: what may follow */
	XLogRecPtr	switch_lsn;
	int			nswitches;		/* the first is the released timeline */
	TimelineSwitch switches[STAGING_MAX_SWITCHES];

	/* what recovery may read */
	TimeLineID	released_timeline;
	XLogRecPtr	released_lsn;
	uint64		released_point; /* 0: still the base backup's WAL */
	TimeLineID	intent_timeline;	/* a release that has begun; 0 if none */
	XLogRecPtr	intent_lsn;
	uint64		intent_point;

	uint64		passed_point;	/* points up to this one lie before base_lsn */
	uint64		promote_point;	/* 0 until promotion is decided */
	bool		promoted;
	bool		offline;		/* that promotion goes on without Kafka */
} StagingState;

extern StagingState *staging;	/* of this process */

/* Opens what there is; false when this server has never staged anything. */
extern bool staging_open(void);

/* Begins at the end of the WAL of a base backup. */
extern void staging_create(const StagingState *initial);

extern void staging_save(void);
extern void staging_close(void);

/* Adds WAL at staged_lsn. */
extern void staging_append(const char *data, size_t len);

/* Makes all that was appended durable, and saves the state. */
extern void staging_sync(void);

/* Bytes appended since the last sync. */
extern size_t staging_unsynced(void);

/* Keeps a timeline history file until the timeline's WAL is released. */
extern void staging_put_history(TimeLineID timeline, const char *text, size_t len);

/* The WAL goes on with next_timeline from switch_lsn. */
extern void staging_switch_timeline(void);

/* The timeline that the WAL which ends at lsn belongs to. */
extern TimeLineID staging_timeline_at(XLogRecPtr lsn);

/* For walcheck: reads released WAL from pg_wal, the rest from staging. */
extern bool staging_read(void *arg, XLogRecPtr lsn, char *buf, int len);

/*
 * Hands the WAL up to lsn, the end of a point, to recovery: all of it or, if
 * the server dies at any moment, nothing or all of it.
 */
extern void staging_release(uint64 point, XLogRecPtr lsn);

/* Finishes a release that a crash interrupted. */
extern void staging_finish_intent(void);

/* Removes staged WAL; after a promotion it is no longer this server's. */
extern void staging_discard(void);

#endif							/* MULTISITE_STAGING_H */
