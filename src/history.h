/*-------------------------------------------------------------------------
 *
 * history.h
 *	  The consistency points that this server knows, newest HISTORY_SIZE.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_HISTORY_H
#define MULTISITE_HISTORY_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

#include "wire.h"

#define HISTORY_SIZE 4096

/* Why this server will never be at a point */
typedef enum PassedWhy
{
	PASSED_NOT,
	PASSED_BACKUP,				/* it lies before its base backup's end */
	PASSED_FORK,				/* its source left the timeline before it */
	PASSED_PROMOTION,			/* it lies behind that of its promotion */
	PASSED_NUMBER,				/* on a source: another one has its number */
	PASSED_UNPUBLISHED			/* on a source: Kafka has never got it */
} PassedWhy;

typedef struct PointRecord
{
	uint64		id;				/* 0: the place is empty */
	char		name[WIRE_NAME_SIZE];
	TimestampTz created_at;		/* by the manifest */
	TimestampTz restore_point_at;	/* by this segment's record; 0 unknown */
	TimestampTz published_at;
	TimestampTz staged_at;		/* 0 while it is not */
	TimestampTz released_at;
	TimestampTz applied_at;
	XLogRecPtr	lsn;			/* end of this segment's restore point */
	TimeLineID	timeline;
	uint32		nsegments;
	uint32		barrier_us;
	uint32		skew_us;
	uint8		passed;			/* a PassedWhy */
	bool		unusable;		/* see history_unusable() */
} PointRecord;

typedef enum PointState
{
	POINT_CREATED,
	POINT_PUBLISHED,
	POINT_STAGED,
	POINT_RELEASED,
	POINT_APPLIED,
	POINT_PASSED
} PointState;

extern PointState history_state(const PointRecord *point);
extern const char *history_state_name(PointState state);
extern const char *history_why_passed(const PointRecord *point);

extern Size history_shmem_size(void);
extern void history_shmem_init(void);

/* Reads the file; the worker that writes calls this before anything else. */
extern void history_load(void);

/*
 * Adds a point, or replaces what is known of it, in memory and in the file.
 * durable makes it survive a power failure before this returns.
 */
extern void history_put(const PointRecord *point, bool durable);

extern bool history_by_id(uint64 id, PointRecord *point);
extern bool history_by_name(const char *name, PointRecord *point);

/* The newest point for which each of these is known; 0 if there is none. */
extern uint64 history_newest(void);

/*
 * Notes that all points up to id have reached a state, at this time.  Points
 * that were skipped (a later one came with them) count as reached, too.
 */
extern void history_reached(uint64 id, PointState state, TimestampTz at);

/*
 * On a coordinator: points up to this id lie before the base backup of a
 * segment, at each remote site if this is the source.  Such a point is shown
 * as passed unless it was applied, but is not passed for this server itself.
 */
extern void history_unusable(uint64 upto);

/* The newest point that is passed for that reason, or 0 */
extern uint64 history_newest_passed(PassedWhy why);

/* Points with from < id, in ascending order; palloc'd. */
extern int	history_after(uint64 from, PointRecord **points);

/* Directory of our files, inside pg_wal; makes it if it is missing. */
#define MULTISITE_DIR		"pg_wal/multisite"
extern void multisite_dir_create(void);

#endif							/* MULTISITE_HISTORY_H */
