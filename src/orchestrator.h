/*-------------------------------------------------------------------------
 *
 * orchestrator.h
 *	  The worker on a remote coordinator that decides what is released.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_ORCHESTRATOR_H
#define MULTISITE_ORCHESTRATOR_H

extern PGDLLEXPORT void multisite_orchestrator_main(Datum arg);

/*
 * For a session: from here on no point is released by itself, nor, if it
 * promotes, by a promotion through Kafka; ERROR if another session has said so.  orchestrator_let_go() ends it; it is for
 * PG_ENSURE_ERROR_CLEANUP, and ignores its arguments.
 */
extern void orchestrator_hold(bool promotes);
extern void orchestrator_let_go(int code, Datum arg);

#endif							/* MULTISITE_ORCHESTRATOR_H */
