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
	PIPE_MADE_ANEW,				/* a claim older than one that was seen before */
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

/*
 * A publisher has five messages of WAL under way at most, besides a claim and
 * a history; so many of publishers that have lost their claims, one after
 * another, may stand behind a newer one.  Who looks for a place reads all of
 * them, so it is no more than must be.
 */
#define PIPE_WINDOW			64

/* Reads the header of a pipe's message. */
typedef WireHeader (*PipeReader) (void *arg, int64 offset);

/*
 * Where a receiver begins to read that needs the WAL from lsn on: an offset
 * from low to high.  *epoch gets the claim that holds there.  window is how
 * many messages of a publisher that has lost its claim may follow the newer
 * one.
 */
extern int64 decide_find_start(int64 low, int64 high, int64 window,
							   PipeReader read, void *arg, uint64 system_id,
							   uint32 timeline, uint64 lsn, uint32 *epoch);

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

typedef enum HistoryVerdict
{
	HISTORY_KNOWN,				/* of a timeline that we are on, or have left */
	HISTORY_FOLLOWS,			/* it leaves ours at *fork */
	HISTORY_FOREIGN				/* it does not come from ours */
} HistoryVerdict;

/* For a message with the history of a timeline */
extern HistoryVerdict decide_history(const PipePosition *position, const WireHeader *header,
									 const char *text, size_t len, uint64 *fork);

/* From begin on, the WAL is of this timeline. */
typedef struct TimelineSwitch
{
	uint32		timeline;
	uint64		begin;
} TimelineSwitch;

/* The timeline that the WAL which ends at lsn belongs to */
extern uint32 decide_timeline_at(uint32 first, const TimelineSwitch *switches,
								 int nswitches, uint64 lsn);

typedef enum StagedVerdict
{
	STAGED_BEFORE,				/* it lies before what is released */
	STAGED_VOID,				/* the source left its timeline before it */
	STAGED_WAITS,				/* not all of it is here, or valid, yet */
	STAGED_RELEASED,			/* it is where what is released ends */
	STAGED_HERE					/* if the restore point of its name ends there */
} StagedVerdict;

/*
 * For a point whose end on this segment is lsn on timeline: has it been
 * staged?  timeline_here is decide_timeline_at() of that lsn, valid_end how
 * far what is staged is durable and valid.
 */
extern StagedVerdict decide_staged(uint32 timeline, uint64 lsn, uint32 timeline_here,
								   uint64 released_lsn, uint64 valid_end);

/*
 * Does a decision hold, after those that stand before it in the topic?  Of
 * two with the same number the first one does: the second is of an
 * orchestrator that did not know of the first.
 */
extern bool decide_newer(const WireRelease *newest, const WireRelease *release);

/* So many may come late, of attempts of an orchestrator that have ended. */
#define DECISION_WINDOW		64

/* Does the newest decision let a receiver release, and has it what it takes? */
extern bool decide_release(const WireRelease *newest, uint64 released_point,
						   uint64 staged_point);

/*
 * A segment's source has left its timeline before a point that the segment has
 * reported: it withdraws that by a status, and waits for leave to follow.
 *
 * Has the orchestrator, which has read all statuses before status_end and one
 * that withdraws at withdrawn_at (-1: none), to say so by a decision?  Also if
 * the newest one speaks of a status topic that was made anew since.
 */
extern bool decide_answer(const WireRelease *newest, int64 withdrawn_at, int64 status_end);

/*
 * Has a segment that tells this, some time after the newest decision, not read
 * it?  Kafka may have lost what the segment had read, and put the decision
 * where the segment does not look any more.
 */
extern bool decide_missed(const WireRelease *newest, const WireStatus *status);

/*
 * Will recovery on a segment be done with what is released in a second?  As
 * long as it will not, no release makes it faster: each copies a part of a WAL
 * segment and syncs it, and a promotion goes by what is staged.
 */
extern bool decide_hungry(const WireStatus *status);

/*
 * Does a decision give leave to who withdrew at withdrawn_at (-1: that is not
 * acknowledged yet), and knew of decisions up to number behind then?
 */
extern bool decide_leave(const WireRelease *newest, uint64 behind, int64 withdrawn_at);

typedef enum PromotionStep
{
	PROMOTION_NONE,				/* none is decided */
	PROMOTION_STAGES,			/* its point is not released here yet */
	PROMOTION_APPLIES,			/* nor applied */
	PROMOTION_OTHERS,			/* the coordinator is last */
	PROMOTION_NOW
} PromotionStep;

/* What a segment waits for until it may be promoted */
extern PromotionStep decide_promotion_step(const WireRelease *newest, bool coordinator,
										   uint64 released_point, uint64 applied_point);

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

/* The first claim of that number in a pipe; -1 if it is not there any more */
extern int64 decide_find_claim(int64 low, int64 high, int64 window,
							   PipeReader read, void *arg, uint32 epoch);

/*
 * Takes a pipe's messages one after the other, to find where it ends: with
 * *end, the last one with WAL that receivers have taken, if there is any.
 * *end and *epoch are zero before the first one.
 */
extern void decide_pipe_end(WireHeader *end, uint32 *epoch, const WireHeader *header);

/*
 * Does a message of somebody else, which came since we looked, end a
 * publisher?  Until its own claim is acknowledged (claiming), another one of
 * that number does, too.
 */
extern bool decide_outclaimed(uint32 epoch, bool claiming, const WireHeader *other);

/* Where a publisher's own server is. */
typedef struct ServerPosition
{
	uint32		timeline;
	uint64		flush_lsn;
	uint64		slot_lsn;		/* the oldest WAL that it keeps for us */
	const TimelineFork *forks;	/* that led to its timeline, oldest first */
	int			nforks;			/* -1 if they cannot be read */
} ServerPosition;

typedef enum StartVerdict
{
	START_AT,					/* at *lsn on *timeline */
	START_ENTER,				/* the same, behind that timeline's history */
	START_OLD_TIMELINE,			/* the pipe is on a newer one than the server */
	START_FOREIGN_TIMELINE,		/* the server does not come from the pipe's */
	START_BEHIND				/* the pipe has more than the server */
} StartVerdict;

/* Where does a publisher begin whose pipe ends with end (NULL: it is empty)? */
extern StartVerdict decide_start(const ServerPosition *server, const WireHeader *end,
								 uint32 *timeline, uint64 *lsn);

/* What the slot must keep, when Kafka has all before acked */
extern uint64 decide_slot(uint64 acked, uint32 wal_segment_size);

/*
 * How long after an automatic point the next one is made, when the oldest
 * manifest that Kafka has not acknowledged is that old (0: there is none).
 */
extern int64 decide_point_interval(int64 interval, int64 unacknowledged);

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

/* What a segment has, for a promotion without Kafka. */
typedef struct SegmentStaged
{
	int32		segment;
	uint64		promotion;		/* the point at which it is or is being promoted, or 0 */
	const uint64 *points;		/* usable ones, in ascending order */
	int			npoints;
} SegmentStaged;

typedef enum OfflineVerdict
{
	OFFLINE_AT,					/* *point */
	OFFLINE_NONE,				/* the segments have no point in common */
	OFFLINE_LACKS,				/* *blocker does not have the point that it must be */
	OFFLINE_UNDER_WAY			/* *blocker is promoted at *point, not the wanted one */
} OfflineVerdict;

/*
 * At which point is a site promoted without Kafka: the greatest that all
 * segments have; that of a promotion that has begun, if one has; wanted, if
 * that is not 0.
 */
extern OfflineVerdict decide_offline(const SegmentStaged *segments, int nsegments,
									 uint64 wanted, uint64 *point, int32 *blocker);

/* A point that is not older than the last released one. */
typedef struct KnownPoint
{
	PointNeeds	needs;
	char		name[WIRE_NAME_SIZE];
	int64		offset;			/* in points */
} KnownPoint;

/* Why the newest point is not released. */
typedef struct PointHeld
{
	const KnownPoint *point;	/* NULL if there is none, or it may be */
	PointVerdict verdict;
	int32		blocker;
} PointHeld;

/* The newest point behind released that may be released, or NULL */
extern const KnownPoint *decide_newest(const KnownPoint *points, int npoints,
									   uint64 released, const SegmentKnown *known,
									   int nknown, PointHeld *held);

/* Are all of a point's segments promoted at it, but for the coordinator? */
extern bool decide_others_promoted(const PointNeeds *point, const SegmentKnown *known,
								   int nknown, int32 coordinator);

/* How the last transaction of a gid has ended on a segment, as far as it knows. */
typedef enum GidOutcome
{
	GID_NO_OUTCOME,
	GID_COMMITTED,
	GID_ROLLED_BACK
} GidOutcome;

/* What one segment knows of a gid. */
typedef struct GidKnown
{
	bool		prepared;		/* there is such a prepared transaction now */
	int64		prepared_at;	/* microseconds, by that segment's clock */
	GidOutcome	outcome;
	int64		ended_at;
	uint32		outcomes;		/* how many ended that it knows of */
} GidKnown;

typedef enum DoubtVerdict
{
	DOUBT_UNKNOWN,				/* no other segment knows */
	DOUBT_COMMIT,
	DOUBT_ROLLBACK,
	DOUBT_CONTRADICTION			/* committed on one, rolled back on another */
} DoubtVerdict;

/*
 * What has to become of the prepared transaction on segment self, by what
 * all segments know of its gid.  counts[i] tells if i's outcome is about it.
 */
extern DoubtVerdict decide_in_doubt(const GidKnown *known, int nknown, int self, bool *counts);

#endif							/* MULTISITE_DECIDE_H */
