/*-------------------------------------------------------------------------
 *
 * nobarrier.c
 *	  Takes the commit barrier out of a server, for a test.
 *
 * Preloaded after multisite_repl it removes the callback by which commits
 * wait at the barrier.  Points are still made, but they are no consistent
 * cuts, and the checkers must see that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	XactCallback callback = (XactCallback) load_external_function("$libdir/multisite_repl",
																  "multisite_barrier_xact_callback",
																  true, NULL);

	UnregisterXactCallback(callback, NULL);
	ereport(LOG, (errmsg("the commit barrier is switched off, for a test")));
}
