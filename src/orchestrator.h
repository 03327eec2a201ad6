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

#endif							/* MULTISITE_ORCHESTRATOR_H */
