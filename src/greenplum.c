/*-------------------------------------------------------------------------
 *
 * greenplum.c
 *	  What is different when the server is Greenplum.
 *
 * There the coordinator is a transaction manager: every write begins in a
 * session on it, which prepares and commits the transaction on the segments.
 *
 *	- A point is cut by gp_create_restore_point(), which writes a restore point
 *	  on all segments and then on the coordinator.  By itself it is no
 *	  consistent cut: a transaction may have been prepared on one segment only,
 *	  or be committed on the coordinator and not yet on the segments.  So it
 *	  runs while our commit barrier is up, on the coordinator alone.  With the
 *	  coordinator drained no distributed transaction is between its beginning
 *	  to prepare and its last commit on a segment: nothing is in doubt.
 *	- The segments are those of gp_segment_configuration.  A copy of a
 *	  coordinator has a copy of it, which names the source's segments.  In
 *	  dispatch role the copy would send them whatever its recovery finds to be
 *	  done: commit and abort prepared transactions of theirs.  Hence a
 *	  coordinator that has a source site starts in utility role only, until
 *	  multisite_accept_configuration() has seen that the catalog names
 *	  segments of its own site.
 *
 * Nothing here depends on the server's version; where there is no Greenplum,
 * nothing of it is reached.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "barrier.h"
#include "compat.h"
#include "greenplum.h"
#include "history.h"
#include "publisher.h"
#include "segments.h"
#include "settings.h"
#include "shared_state.h"

PG_FUNCTION_INFO_V1(multisite_flush_wal);
PG_FUNCTION_INFO_V1(multisite_keep_on_coordinator);
PG_FUNCTION_INFO_V1(multisite_accept_configuration);

/* The catalog names this site's segments.  In pg_wal, so no backup has it. */
#define ACCEPTED_FILE	MULTISITE_DIR "/accepted_configuration"
#define ACCEPTED_TEMP	MULTISITE_DIR "/accepted_configuration.tmp"

#define CONNECT_TIMEOUT_MS 10000

/* ------------------------------------------------------------------------
 * Points
 * ------------------------------------------------------------------------
 */

/* A step of the session that dispatches, which must work in time. */
static void
dispatch(Peer *dispatcher, const char *query, int nparams, const char *const *params, const char *step)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   multisite_barrier_timeout + INT64CONST(1000));

	peers_send(dispatcher, 1, query, nparams, params);
	if (peers_collect(dispatcher, 1, deadline) && dispatcher->result != NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_EXCEPTION),
			 errmsg("the coordinator could not %s", step),
			 errdetail("%s", sentence(dispatcher->error ? dispatcher->error : "It gave no answer")),
			 errhint("No consistency point was made. See gp_segment_configuration for the state of the segments.")));
}

static WireManifestEntry *
find_entry(WireManifestEntry *entries, int nentries, const char *segment)
{
	int32		id = pg_strtoint32(segment);

	for (int i = 0; i < nentries; i++)
	{
		if (entries[i].segment == id)
			return &entries[i];
	}
	return NULL;
}

static void
refuse_segments(int expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the segments of the cluster have changed"),
			 errdetail("gp_segment_configuration had %d, the coordinator among them.", expected)));
}

/* The restore points' ends: the coordinator's first, then by content id. */
static void
read_restore_points(const Peer *dispatcher, WireManifestEntry *entries, int nentries)
{
	if (PQntuples(dispatcher->result) != nentries)
		refuse_segments(nentries);
	for (int i = 0; i < nentries; i++)
	{
		entries[i].segment = pg_strtoint32(PQgetvalue(dispatcher->result, i, 0));
		entries[i].lsn = DatumGetLSN(DirectFunctionCall1(pg_lsn_in,
														 CStringGetDatum(PQgetvalue(dispatcher->result, i, 1))));
		entries[i].timeline = 0;
		if (i > 0 && entries[i].segment <= entries[i - 1].segment)
			elog(ERROR, "restore points are not in the order of the segments");
	}
	if (entries[0].segment != COORDINATOR_ID)
		elog(ERROR, "the coordinator has no restore point");
}

/* On which timeline each of them lies; all are durable now. */
static void
read_timelines(const Peer *dispatcher, WireManifestEntry *entries, int nentries)
{
	for (int i = 0; i < PQntuples(dispatcher->result); i++)
	{
		WireManifestEntry *entry = find_entry(entries, nentries, PQgetvalue(dispatcher->result, i, 0));

		if (entry == NULL)
			refuse_segments(nentries);
		entry->timeline = strtoul(PQgetvalue(dispatcher->result, i, 1), NULL, 10);
	}
	publisher_flush(entries[0].lsn);
	entries[0].timeline = insert_timeline_compat();
	for (int i = 0; i < nentries; i++)
	{
		if (entries[i].timeline == 0)
			refuse_segments(nentries);
	}
}

void
greenplum_cut(Peer *dispatcher, WireManifest *manifest, WireManifestEntry *entries, int nentries)
{
	const char *params[1] = {manifest->name};
	TimestampTz raised_at,
				first_at,
				last_at;

	PG_TRY();
	{
		/*
		 * In a transaction block, which is rolled back: its own commit would
		 * wait at the barrier, and count as a commit.  The restore points do
		 * not depend on it.  One session has one connection to each segment
		 * in it, so all steps are taken by the same server.
		 */
		dispatch(dispatcher, "BEGIN", 0, NULL, "begin a transaction");
		/* connects to the segments now, not while commits wait */
		dispatch(dispatcher, "SELECT 1 FROM gp_dist_random('gp_id')", 0, NULL, "reach all segments");
		raised_at = GetCurrentTimestamp();
		manifest->created_at = raised_at;

		/*
		 * Completely: a commit waits for the standby coordinator before it is
		 * sent to the segments.
		 */
		barrier_raise(multisite_barrier_timeout, true);
		first_at = GetCurrentTimestamp();
		dispatch(dispatcher, "SELECT segment_id, restore_lsn FROM gp_create_restore_point($1) "
				 "p (segment_id smallint, restore_lsn pg_lsn)",
				 1, params, "write restore points on all segments");
		last_at = GetCurrentTimestamp();
		barrier_require_up();
		barrier_lower();
		read_restore_points(dispatcher, entries, nentries);
		dispatch(dispatcher, "SELECT gp_execution_segment(), multisite.flush_wal() FROM gp_dist_random('gp_id')",
				 0, NULL, "make the restore points of all segments durable");
		read_timelines(dispatcher, entries, nentries);
		dispatch(dispatcher, "ROLLBACK", 0, NULL, "end its transaction");
	}
	PG_CATCH();
	{
		barrier_lower();
		peer_close(dispatcher);
		PG_RE_THROW();
	}
	PG_END_TRY();

	manifest->nsegments = nentries;
	manifest->barrier_us = Min(last_at - raised_at, PG_UINT32_MAX);
	manifest->skew_us = Min(last_at - first_at, PG_UINT32_MAX);
}

/*
 * multisite.flush_wal() returns integer
 *
 * Makes all WAL of this server that is written so far durable; returns its
 * timeline.
 */
Datum
multisite_flush_wal(PG_FUNCTION_ARGS)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();

	/* where the next record would begin is behind the header of a new page */
	if (end % wal_segment_size == SizeOfXLogLongPHD || end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		end -= end % XLOG_BLCKSZ;
	publisher_flush(end);
	PG_RETURN_INT32((int32) insert_timeline_compat());
}

/* ------------------------------------------------------------------------
 * The publisher's walsender
 *
 * Greenplum does not choose synchronous standbys by their names.  On the
 * coordinator a commit waits as soon as any walsender streams, and takes the
 * first one for the standby coordinator's; on a segment that has a mirror
 * synchronous_standby_names is '*'.  So commits would wait for Kafka where
 * they should wait for the mirror, and for ever where there is none.
 *
 * Whether a walsender counts is seen by its state, which it changes from
 * "catchup" to "streaming".  Ours is given the state of one that has only been
 * connected to, and leaves that as it is.  (That of one that carries a base
 * backup would do as well, but gpstate would tell of a mirror that is being
 * made.)  Who commits looks at the states under SyncRepLock, so nobody sees it
 * before.
 *
 * One thing remains.  The walsender looks at its state, and then changes it: if
 * we come in between it streams, for all to see.  That happens once at most,
 * but a commit that waits for it then waits until it ends, hidden again or not.
 * So if it is seen it is replaced.
 * ------------------------------------------------------------------------
 */

#define HIDDEN_STATE	WALSNDSTATE_STARTUP

void
greenplum_begin_to_hide(void)
{
	if (ON_GREENPLUM)
		LWLockAcquire(SyncRepLock, LW_EXCLUSIVE);
}

void
greenplum_hide_walsender(int pid)
{
	bool		found = false;

	if (!ON_GREENPLUM)
		return;
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];

		SpinLockAcquire(&walsnd->mutex);
		if (walsnd->pid == pid)
		{
			walsnd->state = HIDDEN_STATE;
			found = true;
		}
		SpinLockRelease(&walsnd->mutex);
	}
	LWLockRelease(SyncRepLock);
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the walsender of this server's publisher has ended")));
}

void
greenplum_check_hidden(int pid)
{
	bool		seen = false;

	if (!ON_GREENPLUM)
		return;
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];

		SpinLockAcquire(&walsnd->mutex);
		seen |= walsnd->pid == pid && walsnd->state == WALSNDSTATE_STREAMING;
		SpinLockRelease(&walsnd->mutex);
	}
	if (seen)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the walsender of this server's publisher could be taken for a mirror's"),
				 errdetail("It is replaced by another one.")));
}

void
greenplum_refuse(const char *function)
{
	if (ON_GREENPLUM)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s() is not available on Greenplum", function)));
}

/* ------------------------------------------------------------------------
 * Tables of the extension
 * ------------------------------------------------------------------------
 */

/*
 * multisite.keep_on_coordinator(relation regclass) returns void
 *
 * The extension's tables are the coordinator's own: workers use them in
 * utility role, also on a standby coordinator, which has no segments.
 */
Datum
multisite_keep_on_coordinator(PG_FUNCTION_ARGS)
{
	if (greenplum_role_compat() == ROLE_DISPATCH)
		keep_on_coordinator_compat(PG_GETARG_OID(0));
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * Which segments a coordinator may reach
 * ------------------------------------------------------------------------
 */

void
greenplum_check_start(void)
{
	if (greenplum_role_compat() != ROLE_DISPATCH || !AM_COORDINATOR() ||
		multisite_source_site[0] == '\0' || access(ACCEPTED_FILE, F_OK) == 0)
		return;
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this coordinator must not start in dispatch role: its gp_segment_configuration may name the segments of site \"%s\"",
					multisite_source_site),
			 errdetail("It is a copy of that site's coordinator, and would end that site's prepared transactions."),
			 errhint("Start it with gp_role=utility. After its promotion, write the addresses of this site's segments into gp_segment_configuration and call multisite_accept_configuration().")));
}

/* The dbid that the catalog has for a primary, or the coordinator; 0 if none. */
static int
catalog_dbid(int32 content)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(content)};
	int			dbid = 0;
	bool		isnull;

	SPI_connect();
	if (SPI_execute_with_args("SELECT dbid::integer FROM pg_catalog.gp_segment_configuration "
							  "WHERE content = $1 AND role = 'p'",
							  1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read gp_segment_configuration");
	if (SPI_processed == 1)
		dbid = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return dbid;
}

void
greenplum_check_promotion(void)
{
	int			dbid;

	if (!ON_GREENPLUM)
		return;

	/*
	 * At the end of its recovery a coordinator makes itself the one that the
	 * catalog names.  It has nothing to do if it is that already, as a copy
	 * of the source's coordinator is; it refuses if it is neither that nor
	 * the standby.
	 */
	dbid = catalog_dbid(COORDINATOR_ID);
	if (dbid != dbid_compat())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is not the coordinator that its gp_segment_configuration names"),
				 errdetail("Its gp_dbid is %d, the coordinator's dbid is %d: the source has activated its standby coordinator.",
						   dbid_compat(), dbid),
				 errhint("Write gp_dbid = %d into internal.auto.conf, restart this server with gp_role=utility, and call multisite_promote() again.",
						 dbid)));
}

/*
 * A coordinator does not find itself in the catalog by another dbid than it
 * has.  A segment refuses the fault tolerance service's questions if they are
 * for another one; it is asked as soon as it has a mirror.
 */
static void
check_dbids(Peer *peers, int npeers, TimestampTz deadline)
{
	peers_send(peers, npeers, "SELECT pg_catalog.current_setting('gp_dbid')", 0, NULL);
	(void) peers_collect(peers, npeers, deadline);
	segments_require_all(peers, npeers, "be asked for its gp_dbid");
	for (int i = 0; i < npeers; i++)
	{
		int			is = pg_strtoint32(PQgetvalue(peers[i].result, 0, 0));
		int			dbid = catalog_dbid(peers[i].segment);

		if (dbid != is)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("gp_segment_configuration has dbid %d for content %d", dbid, peers[i].segment),
					 errdetail("The gp_dbid of that server is %d.", is),
					 errhint("Correct the row's dbid.")));
	}
}

/* ERROR unless the only coordinator is this server, and there are no mirrors. */
static void
check_catalog(void)
{
	int32		mirrors;
	int32		coordinators;
	bool		isnull;
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(PostPortNumber)};

	SPI_connect();
	if (SPI_execute_with_args("SELECT (count(*) FILTER (WHERE role <> 'p'))::integer, "
							  "(count(*) FILTER (WHERE content = -1 AND role = 'p' AND port = $1))::integer "
							  "FROM pg_catalog.gp_segment_configuration",
							  1, types, values, NULL, true, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read gp_segment_configuration");
	mirrors = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	coordinators = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	SPI_finish();
	if (mirrors > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("gp_segment_configuration has %d mirrors", mirrors),
				 errdetail("They are the source's. Mirrors of this site's own are added when the cluster runs."),
				 errhint("Delete the rows whose role is \"m\".")));
	if (coordinators != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("gp_segment_configuration does not name this server as the coordinator"),
				 errdetail("The row whose content is -1 should have port %d.", PostPortNumber)));
}

static void
write_accepted(void)
{
	int			fd;

	multisite_dir_create();
	fd = OpenTransientFile(ACCEPTED_TEMP, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", ACCEPTED_TEMP)));
	CloseTransientFile(fd);
	durable_rename(ACCEPTED_TEMP, ACCEPTED_FILE, ERROR);
}

/*
 * multisite_accept_configuration() returns integer
 *
 * Asks each server that gp_segment_configuration names who it is.  If all are
 * promoted segments of this site the coordinator may start in dispatch role
 * from now on.  Returns how many segments there are, the coordinator included.
 */
Datum
multisite_accept_configuration(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CONNECT_TIMEOUT_MS);
	int			npeers;
	Peer	   *peers;

	if (!ON_GREENPLUM)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("this server is not Greenplum, and has no gp_segment_configuration")));
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to accept the configuration of the segments")));
	if (!AM_COORDINATOR() || RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is no promoted coordinator"),
				 errhint("Call multisite_promote() first.")));
	check_catalog();
	peers = segments_connect_site(false, deadline, &npeers);
	check_dbids(peers, npeers, deadline);
	for (int i = 0; i < npeers; i++)
		peer_close(&peers[i]);
	write_accepted();
	PG_RETURN_INT32(npeers);
}
