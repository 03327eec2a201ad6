/*-------------------------------------------------------------------------
 *
 * decide.h
 *	  The decisions that keep the promises, with nothing behind them.
 *
 * What a receiver accepts, what the orchestrator releases, who may claim a
 * pipe: pure functions of what the caller knows, without server state, so
 * that unit tests and a simulator run the very same code.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_DECIDE_H
#define MULTISITE_DECIDE_H

#include "wire.h"

/* Where a receiver stands in its pipe. */
typedef struct PipePosition
{
	uint64		system_id;
	int32		segment;
	uint16		pg_major;
	uint32		wal_segment_size;
	uint32		epoch;			/* newest claim seen, or 0 */
	uint32		timeline;
	uint64		lsn;			/* the next byte it needs */
	uint64		released_lsn;	/* bytes before this cannot be taken back */
	/* Set by a history message: the timeline that may follow, and where */
	uint32		next_timeline;
	uint64		switch_lsn;
} PipePosition;

typedef enum PipeVerdict
{
	PIPE_TAKE,					/* append it, after skipping *skip bytes */
	PIPE_SWITCH,				/* the next timeline begins; then append it */
	PIPE_DUPLICATE,				/* we have all of it */
	PIPE_STALE_CLAIM,			/* written by a publisher that lost its claim */
	PIPE_WRONG_SEGMENT,
	PIPE_WRONG_SYSTEM,
	PIPE_WRONG_VERSION,
	PIPE_WRONG_SEGMENT_SIZE,
	PIPE_GAP,
	PIPE_UNKNOWN_TIMELINE,		/* no history leads from ours to it */
	PIPE_RELEASED_PAST_FORK		/* its timeline left ours before what we released */
} PipeVerdict;

/* For any message of a pipe: is it of our segment, system and format? */
extern PipeVerdict decide_origin(const PipePosition *position, const WireHeader *header);

/* For a message with WAL; *skip gets how much of it we have already. */
extern PipeVerdict decide_wal(const PipePosition *position, const WireHeader *header,
							  uint32 *skip);

/* One ancestor in a timeline history: the timeline ended at this LSN. */
typedef struct TimelineFork
{
	uint32		timeline;
	uint64		end_lsn;
} TimelineFork;

/* Parses a history file; returns the number of forks, or -1 if malformed. */
extern int	decide_parse_history(const char *text, size_t len,
								 TimelineFork *forks, int max_forks);

/*
 * Where timeline leaves ancestor, by timeline's history; 0 when ancestor is
 * not one of its ancestors.
 */
extern uint64 decide_fork_of(const TimelineFork *forks, int nforks, uint32 ancestor);

typedef enum ClaimVerdict
{
	CLAIM_FREE,					/* nobody has claimed the pipe yet */
	CLAIM_OURS,					/* the last claim is this server's */
	CLAIM_FAILOVER,				/* another server's, on an older timeline */
	CLAIM_TAKE_OVER,			/* another server's; the operator said so */
	CLAIM_FOREIGN_SYSTEM,
	CLAIM_STALE,				/* another server's, on a newer timeline */
	CLAIM_COPY					/* another server's, on this timeline */
} ClaimVerdict;

extern ClaimVerdict decide_claim(const WireHeader *last, const WireClaim *last_claim,
								 uint64 system_id, const WireClaim *ours,
								 bool take_over);

/* A point as the orchestrator sees it. */
typedef struct PointNeeds
{
	uint64		id;
	uint32		nsegments;
	const WireManifestEntry *entries;
} PointNeeds;

/* What the orchestrator last heard of a segment; heard is false before that */
typedef struct SegmentKnown
{
	int32		segment;
	bool		heard;
	WireStatus	status;
} SegmentKnown;

typedef enum PointVerdict
{
	POINT_RELEASABLE,
	POINT_WAITS,				/* *blocker has not staged it yet */
	POINT_UNUSABLE				/* it lies before *blocker's base backup */
} PointVerdict;

/* known must be in ascending order of segment */
extern PointVerdict decide_point(const PointNeeds *point, const SegmentKnown *known,
								 int nknown, int32 *blocker);

#endif							/* MULTISITE_DECIDE_H */
