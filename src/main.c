/*-------------------------------------------------------------------------
 *
 * main.c
 *	  Entry of multisite_repl: settings, shared memory, hooks and workers.
 *
 *	publisher.c		source segment		WAL -> Kafka
 *	points.c		source coordinator	consistency points
 *	receiver.c		remote segment		Kafka -> staging -> pg_wal
 *	orchestrator.c	remote coordinator	what is released, and promotion
 *
 * greenplum.c has what is different there.
 *
 * All four are registered on every server and end at once where they are not
 * needed, so that a promoted server publishes, and a server that is made a
 * standby receives, with the same configuration.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "barrier.h"
#include "compat.h"
#include "greenplum.h"
#include "logfilter.h"
#include "orchestrator.h"
#include "points.h"
#include "publisher.h"
#include "receiver.h"
#include "settings.h"
#include "shared_state.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

#define RESTART_SECONDS 5

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
request_shmem(void)
{
	CALL_PREV_SHMEM_REQUEST_HOOK();
	RequestAddinShmemSpace(shared_state_size());
	RequestNamedLWLockTranche("multisite_repl", 3);
}

static void
startup_shmem(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	shared_state_init();
}

static void
register_worker(const char *name, const char *function, BgWorkerStartTime start, bool database)
{
	BackgroundWorker worker;

	/* Greenplum has fields that PostgreSQL has not */
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		(database ? BGWORKER_BACKEND_DATABASE_CONNECTION : 0);
	worker.bgw_start_time = start;
	worker.bgw_restart_time = RESTART_SECONDS;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "multisite_repl");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "%s", function);
	snprintf(worker.bgw_name, BGW_MAXLEN, "multisite %s", name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "multisite %s", name);
	RegisterBackgroundWorker(&worker);
}

void
_PG_init(void)
{
	/* by CREATE EXTENSION or a function, say: there would be no shared memory */
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("multisite_repl must be loaded through shared_preload_libraries"),
				 errdetail("It needs shared memory and background workers from server start on."),
				 errhint("Add multisite_repl to shared_preload_libraries in postgresql.conf, and restart the server.")));

	settings_define();
	greenplum_check_start();
	INSTALL_SHMEM_REQUEST_HOOK(request_shmem);
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	barrier_install_hooks();
	logfilter_install();

	register_worker("publisher", "multisite_publisher_main", BgWorkerStart_RecoveryFinished, true);
	register_worker("points", "multisite_points_main", BgWorkerStart_RecoveryFinished, true);
	register_worker("receiver", "multisite_receiver_main", BgWorkerStart_PostmasterStart, false);
	register_worker("orchestrator", "multisite_orchestrator_main", BgWorkerStart_PostmasterStart, false);
}
