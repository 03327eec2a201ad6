/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The frame that all background workers share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_WORKER_H
#define MULTISITE_WORKER_H

#include "shared_state.h"

/*
 * A worker's work is a sequence of attempts.  attempt() runs until it throws
 * an ERROR, or returns because a setting changed or because the worker's job
 * is done.  release() frees what attempt() holds outside of memory contexts
 * (Kafka handles, connections); it is called after each attempt and at
 * process exit, and must not throw.
 */
typedef enum AttemptEnd
{
	ATTEMPT_AGAIN,				/* settings changed: begin anew at once */
	ATTEMPT_FINISHED			/* the worker ends, for good */
} AttemptEnd;

typedef struct WorkerRoutine
{
	WorkerKind	kind;
	AttemptEnd	(*attempt) (void);
	void		(*release) (void);
	bool		serves_offline; /* a failed attempt leaves requests waiting */
} WorkerRoutine;

extern void worker_main(const WorkerRoutine *routine);
extern WorkerSlot *worker_slot(void);

/* Shows what the worker does, and in words what it waits for. */
extern void worker_set_state(WorkerState state, const char *fmt,...) pg_attribute_printf(2, 3);

/*
 * Shows an error, and logs it unless it repeats the last one; for a part of
 * the work that fails while the rest goes on.
 */
extern void worker_report_error(const ErrorData *edata);

/*
 * For a PG_CATCH behind which the attempt goes on: takes the error, which is
 * copied to that context, and gives back what an ERROR may leave held.
 */
extern ErrorData *worker_take_error(MemoryContext context);

/* After a failure, and after as many that each pause is twice the last. */
#define FIRST_PAUSE_MS		1000
#define LONGEST_PAUSE_MS	30000

/* The work goes well: ends a series of failures, and says so once. */
extern void worker_is_well(void);

/*
 * Waits for the latch, for one of the sockets to become readable, or for the
 * timeout (milliseconds, -1 for none).  Takes care of interrupts and reloads.
 * The caller then looks at everything that may have happened.
 */
extern void worker_wait(int nsockets, const pgsocket *sockets, long timeout_ms);

/* True once after a reload of postgresql.conf. */
extern bool worker_reloaded(void);

/*
 * Connects this worker to a database, or, by NULL, to the shared catalogs
 * only; the first call counts.  Ends the process if there is no such database.
 */
extern void worker_connect(const char *database);

/* From any process: ends the wait of this server's worker of that kind. */
extern void worker_wake(WorkerKind kind);

/*
 * Carries out the session's request, if there is one.  serve() fills in the
 * result; an ERROR that it raises is the session's, not the worker's.
 */
extern void worker_serve_request(void (*serve) (const Request *request, char *result));

/*
 * True, after a reload at the earliest, where this server is not configured
 * to publish; for the workers of a source.
 */
extern bool worker_is_no_source(void);

/*
 * Waits, in state WORKER_DISABLED, until a reload of postgresql.conf.  reason
 * says which setting keeps the worker from its work.
 */
extern void worker_disabled(const char *reason);

#endif							/* MULTISITE_WORKER_H */
