/*-------------------------------------------------------------------------
 *
 * shared_state.h
 *	  What workers and sessions share: who runs, in which state and why, what
 *	  is known of the cluster's segments, and requests to workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_SHARED_STATE_H
#define MULTISITE_SHARED_STATE_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "access/xlogdefs.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "wire.h"

typedef enum WorkerKind
{
	WORKER_PUBLISHER,
	WORKER_RECEIVER,
	WORKER_ORCHESTRATOR,
	WORKER_POINTS
} WorkerKind;

#define NUM_WORKERS (WORKER_POINTS + 1)

/* What a worker does.  Each comment says what ends the state. */
typedef enum WorkerState
{
	WORKER_STOPPED,				/* the postmaster starts it */
	WORKER_DISABLED,			/* a setting that it needs is set */
	WORKER_STARTING,			/* the server's recovery is far enough */
	WORKER_CONNECTING,			/* Kafka, or its own server, answers */
	WORKER_POSITIONING,			/* it found where in the pipe to go on */
	WORKER_WAITING,				/* there is something to do */
	WORKER_RUNNING,				/* the work at hand is done */
	WORKER_BLOCKED,				/* Kafka acknowledges what was sent */
	WORKER_PAUSED,				/* multisite_resume() */
	WORKER_PROMOTING,			/* this server accepts writes */
	WORKER_PROMOTED,			/* final */
	WORKER_FAILED				/* the next attempt, a reload, or an operator */
} WorkerState;

#define ERROR_TEXT_SIZE		512
#define REASON_SIZE			WIRE_TEXT_SIZE

typedef struct WorkerSlot
{
	/* all protected by MultisiteShared.lock */
	pid_t		pid;			/* 0 when no process runs */
	uint64		generation;		/* so that a dead worker's clean-up cannot hit
								 * its successor */
	Latch	   *latch;
	WorkerState state;
	char		reason[REASON_SIZE];
	TimestampTz state_since;
	TimestampTz failing_since;	/* 0 when the last attempt worked */
	char		logged_error[ERROR_TEXT_SIZE];	/* so that it is logged once */
	char		last_error[ERROR_TEXT_SIZE];
	TimestampTz last_error_at;

	/* figures for the views; which of them a worker has depends on its kind */
	TimeLineID	timeline;
	XLogRecPtr	sent_lsn;		/* publisher: handed to librdkafka */
	XLogRecPtr	durable_lsn;	/* acknowledged by Kafka / staged and fsynced */
	XLogRecPtr	target_lsn;		/* newest LSN known upstream */
	TimestampTz target_time;	/* when that was heard */
	XLogRecPtr	released_lsn;
	XLogRecPtr	applied_lsn;
	uint64		bytes;			/* since the worker started */
	uint64		messages;
	uint64		rate;			/* bytes a second, over the last seconds */
} WorkerSlot;

typedef enum RequestState
{
	REQUEST_NONE,
	REQUEST_QUEUED,
	REQUEST_RUNNING,
	REQUEST_DONE,
	REQUEST_ERROR
} RequestState;

typedef enum RequestAction
{
	ACTION_CREATE_POINT,
	ACTION_CREATE_VERIFIED_POINT,	/* its session meets the worker, see below */
	ACTION_HOLD_AT,				/* release this point and none after it */
	ACTION_PROMOTE,
	ACTION_SHOW_STAGED,			/* receiver: fill in staged_points below */
	ACTION_PROMOTE_OFFLINE,		/* receiver: promote this segment at a point */
	ACTION_PROMOTE_OFFLINE_LAST,	/* the coordinator's: all others are promoted */
	ACTION_PAUSE,
	ACTION_RESUME
} RequestAction;

/* Where a worker waits for the session whose request it carries out. */
typedef enum RequestMeeting
{
	MEETING_NONE,
	MEETING_WORKER_WAITS,
	MEETING_GO_ON,
	MEETING_GIVE_UP
} RequestMeeting;

/* One call from a session to a worker; protected by MultisiteShared.lock */
typedef struct Request
{
	RequestState state;
	uint64		ticket;			/* tells a caller's request from a later one */
	bool		abandoned;		/* nobody waits for its outcome any more */
	RequestMeeting meeting;
	RequestAction action;
	bool		has_name;
	char		name[WIRE_NAME_SIZE];	/* of a point */
	char		result[WIRE_NAME_SIZE];
	int			sqlerrcode;
	char		message[ERROR_TEXT_SIZE];
	char		detail[ERROR_TEXT_SIZE];
	char		hint[ERROR_TEXT_SIZE];
} Request;

/* What was heard of a segment of a remote site. */
typedef struct SegmentEntry
{
	char		site[NAMEDATALEN];	/* empty when the entry is free */
	int32		segment;
	bool		heard;
	TimestampTz heard_at;
	WireStatus	status;
} SegmentEntry;

#define MAX_SEGMENT_ENTRIES 2048

typedef struct MultisiteShared
{
	LWLock	   *lock;			/* protects what has no lock of its own */
	ConditionVariable changed;	/* broadcast at each change one may wait for */

	WorkerSlot	workers[NUM_WORKERS];
	Request		requests[NUM_WORKERS];
	uint64		next_ticket;

	int			nsegments;
	SegmentEntry segments[MAX_SEGMENT_ENTRIES];

	/* on a remote coordinator: what holds back the next point, in words */
	char		release_reason[REASON_SIZE];

	/* the point of this server's promotion; empty before that */
	char		promoted_at[WIRE_NAME_SIZE];

	/*
	 * On a remote coordinator: while the session of this pid verifies a point
	 * or promotes the site offline, no point is released by itself.
	 */
	pid_t		holder;
	bool		holder_promotes;

	/*
	 * On a remote segment: the first release decision that is about it, plus
	 * one; 0 until the receiver knows it.
	 */
	pg_atomic_uint64 release_base;

	/* On a remote segment: which points it has, as of ACTION_SHOW_STAGED. */
	struct
	{
		uint64		from;		/* released, 0 before the first */
		uint64		to;			/* staged */
		uint64		promotion;	/* the point of a promotion that has begun, or 0 */
	}			staged_points;
	bool		offline;		/* that promotion goes on without Kafka */

	/* to be published without delay up to here: see publisher_flush() */
	pg_atomic_uint64 awaited_lsn;

	/* read by the startup process's log filter, without the lock */
	pg_atomic_uint64 released_lsn;	/* where recovery finds no more WAL */
	pg_atomic_uint64 released_before;	/* the same, before the last release */
} MultisiteShared;

extern MultisiteShared *multisite_shared;

extern Size shared_state_size(void);
extern void shared_state_init(void);

extern const char *worker_kind_name(WorkerKind kind);
extern const char *worker_state_name(WorkerState state);

extern void shared_changed(void);

/* The text with a full stop, unless it ends with one or the like; palloc'd. */
extern char *sentence(const char *text);

/*
 * Passes a request to a worker and waits for its end.  The worker's error is
 * raised here.  Returns the result in result, of WIRE_NAME_SIZE bytes.
 * meet, if given, is called when the worker waits in request_meet().
 */
extern void request_call(WorkerKind worker, RequestAction action, const char *name,
						 long timeout_ms, void (*meet) (void *), void *arg,
						 char *result);

/* For the worker: takes the queued request, if there is one. */
extern bool request_take(WorkerKind worker, Request *request);
extern bool request_waits(WorkerKind worker);
extern bool request_is_open(WorkerKind worker); /* queued, or being carried out */
extern void request_done(WorkerKind worker, const char *result);
extern void request_failed(WorkerKind worker, const ErrorData *edata);

/*
 * For the worker: lets the caller do its part of the request now.  False if
 * it could not, is gone, or was not done by the deadline.
 */
extern bool request_meet(WorkerKind worker, TimestampTz deadline);

extern void segment_heard(const char *site, int32 segment, const WireStatus *status);
/*
 * For how many seconds nothing was heard of a segment, which reports every ten
 * seconds; 0 if that is not long, or if it has no more to report.
 */
extern long segment_silence(const SegmentEntry *entry);
extern long segment_silent_for(const char *site, int32 segment);

extern int	segments_snapshot(const char *site, SegmentEntry **entries);

#endif							/* MULTISITE_SHARED_STATE_H */
