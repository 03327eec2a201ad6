/*-------------------------------------------------------------------------
 *
 * in_doubt.c
 *	  Prepared transactions that a promotion has left in doubt.
 *
 * A session on the promoted coordinator asks all segments of the site which
 * transactions are prepared there, and then how those of the same gids have
 * ended on each of them before the point of the promotion (twophase.c).  The
 * rule is decide_in_doubt()'s: what has ended on one segment ends in the same
 * way on the others.
 *
 * A segment that was not asked may be the one that knows.  So either all of
 * them answer, as many as the point has, or there is an ERROR.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "conn.h"
#include "decide.h"
#include "segments.h"
#include "settings.h"
#include "shared_state.h"
#include "status.h"
#include "twophase.h"

PG_FUNCTION_INFO_V1(multisite_in_doubt);
PG_FUNCTION_INFO_V1(multisite_resolve_in_doubt);

#define LOOK_TIMEOUT_MS 60000

/* What is known of one gid; known[i] is by peers[i]. */
typedef struct Gid
{
	char	   *gid;
	GidKnown   *known;
} Gid;

/* A transaction that is prepared on one segment. */
typedef struct Doubt
{
	int			peer;
	Gid		   *gid;
	char	   *database;
	char	   *owner;
	DoubtVerdict verdict;
	bool	   *counts;			/* as decide_in_doubt() says */

	/* of multisite_resolve_in_doubt() */
	int			worker;			/* which of the workers' connections; -1: left */
	bool		done;
	char	   *error;
} Doubt;

typedef struct Doubts
{
	Peer	   *peers;
	int			npeers;
	Gid		   *gids;			/* in ascending order */
	int			ngids;
	Doubt	   *doubts;			/* in the order of their segments, then gids */
	int			ndoubts;
} Doubts;

/* ------------------------------------------------------------------------
 * Asking
 * ------------------------------------------------------------------------
 */

/* At which point this site was promoted, and with how many segments. */
static char *
require_promoted_coordinator(uint32 *nsegments)
{
	char	   *point = palloc(TWOPHASE_GID_SIZE);

	if (!AM_COORDINATOR())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is segment %d, not the coordinator", multisite_segment_id),
				 errhint("Connect to the coordinator of the promoted site.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this site is not promoted"),
				 errdetail("A standby does not show its prepared transactions, and they are not in doubt while the site follows another."),
				 errhint("Call it after multisite_promote().")));
	if (!twophase_promotion(point, nsegments))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server was not promoted at a consistency point"),
				 errhint("Prepared transactions of a site that was never promoted are in pg_prepared_xacts.")));
	return point;
}

/* ERROR unless as many segments are registered as the point has. */
static void
require_registered(const Doubts *all, const char *point, uint32 nsegments)
{
	StringInfoData registered,
				missing;
	SegmentEntry *entries;
	int			n;

	if ((uint32) all->npeers >= nsegments)
		return;
	initStringInfo(&registered);
	for (int i = 0; i < all->npeers; i++)
		appendStringInfo(&registered, "%s%d", i ? ", " : "", all->peers[i].segment);

	/* who has reported since the server's start is known by its id */
	initStringInfo(&missing);
	n = segments_snapshot(multisite_site_name, &entries);
	for (int i = 0; i < n; i++)
	{
		bool		found = false;

		for (int p = 0; p < all->npeers; p++)
			found |= all->peers[p].segment == entries[i].segment;
		if (!found)
			appendStringInfo(&missing, "%s%d", missing.len ? ", " : " Missing: ", entries[i].segment);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("consistency point \"%s\" has %u segments, but %d of site \"%s\" are registered",
					point, nsegments, all->npeers, multisite_site_name),
			 errdetail("Registered, with the coordinator: %s.%s%s", registered.data, missing.data,
					   missing.len ? "." : ""),
			 errhint("Call multisite_add_segment(id, conninfo) for the others: they may know how a transaction has ended.")));
}

static TimestampTz
from_unix(const char *microseconds)
{
	return strtoll(microseconds, NULL, 10) -
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
}

static int
compare_gids(const void *a, const void *b)
{
	return strcmp(((const Gid *) a)->gid, ((const Gid *) b)->gid);
}

static Gid *
find_gid(const Doubts *all, char *text)
{
	Gid			key = {.gid = text};

	return all->ngids ? bsearch(&key, all->gids, all->ngids, sizeof(Gid), compare_gids) : NULL;
}

/* Takes the rows of pg_prepared_xacts from all peers. */
static void
take_prepared(Doubts *all)
{
	int			n = 0;
	int			unique = 0;

	for (int i = 0; i < all->npeers; i++)
		n += PQntuples(all->peers[i].result);
	all->doubts = palloc0(sizeof(Doubt) * Max(n, 1));
	all->gids = palloc0(sizeof(Gid) * Max(n, 1));

	for (int i = 0; i < all->npeers; i++)
	{
		for (int row = 0; row < PQntuples(all->peers[i].result); row++)
			all->gids[all->ngids++].gid = pstrdup(PQgetvalue(all->peers[i].result, row, 0));
	}
	qsort(all->gids, all->ngids, sizeof(Gid), compare_gids);
	for (int i = 0; i < all->ngids; i++)
	{
		if (unique == 0 || strcmp(all->gids[unique - 1].gid, all->gids[i].gid) != 0)
			all->gids[unique++] = all->gids[i];
	}
	all->ngids = unique;
	for (int i = 0; i < all->ngids; i++)
		all->gids[i].known = palloc0(sizeof(GidKnown) * all->npeers);

	for (int i = 0; i < all->npeers; i++)
	{
		PGresult   *result = all->peers[i].result;

		for (int row = 0; row < PQntuples(result); row++)
		{
			Doubt	   *doubt = &all->doubts[all->ndoubts++];

			doubt->peer = i;
			doubt->gid = find_gid(all, PQgetvalue(result, row, 0));
			doubt->database = pstrdup(PQgetvalue(result, row, 1));
			doubt->owner = pstrdup(PQgetvalue(result, row, 2));
			doubt->worker = -1;
			doubt->gid->known[i].prepared = true;
			doubt->gid->known[i].prepared_at = from_unix(PQgetvalue(result, row, 3));
		}
	}
}

static char *
gids_as_array(const Doubts *all)
{
	Datum	   *gids = palloc(sizeof(Datum) * Max(all->ngids, 1));
	Oid			output;
	bool		varlena;

	for (int i = 0; i < all->ngids; i++)
		gids[i] = CStringGetTextDatum(all->gids[i].gid);
	getTypeOutputInfo(TEXTARRAYOID, &output, &varlena);
	return OidOutputFunctionCall(output,
								 PointerGetDatum(construct_array(gids, all->ngids, TEXTOID, -1, false, TYPALIGN_INT)));
}

static void
take_outcomes(Doubts *all)
{
	for (int i = 0; i < all->npeers; i++)
	{
		PGresult   *result = all->peers[i].result;

		for (int row = 0; row < PQntuples(result); row++)
		{
			Gid		   *gid = find_gid(all, PQgetvalue(result, row, 0));

			if (gid == NULL)
				continue;
			gid->known[i].outcome = strcmp(PQgetvalue(result, row, 1), "committed") == 0 ?
				GID_COMMITTED : GID_ROLLED_BACK;
			gid->known[i].ended_at = from_unix(PQgetvalue(result, row, 2));
			gid->known[i].outcomes = atoi(PQgetvalue(result, row, 3));
		}
	}
}

/* All that is in doubt at this site, with a verdict for each. */
static Doubts *
look(TimestampTz deadline)
{
	Doubts	   *all = palloc0(sizeof(Doubts));
	uint32		nsegments;
	char	   *point = require_promoted_coordinator(&nsegments);
	const char *params[2] = {point};

	all->peers = segments_connect_site(false, deadline, &all->npeers);
	require_registered(all, point, nsegments);
	peers_send(all->peers, all->npeers,
			   "SELECT gid, database, owner, (extract(epoch FROM prepared) * 1000000)::bigint "
			   "FROM pg_prepared_xacts ORDER BY gid COLLATE \"C\"", 0, NULL);
	(void) peers_collect(all->peers, all->npeers, deadline);
	segments_require_all(all->peers, all->npeers, "be asked for its prepared transactions");
	take_prepared(all);

	params[1] = gids_as_array(all);
	peers_send(all->peers, all->npeers,
			   "SELECT gid, outcome, (extract(epoch FROM ended_at) * 1000000)::bigint, outcomes "
			   "FROM multisite.prepared_outcomes($1, $2)", 2, params);
	(void) peers_collect(all->peers, all->npeers, deadline);
	segments_require_all(all->peers, all->npeers, "be asked how transactions have ended");
	take_outcomes(all);

	for (int i = 0; i < all->ndoubts; i++)
	{
		Doubt	   *doubt = &all->doubts[i];

		doubt->counts = palloc0(sizeof(bool) * all->npeers);
		doubt->verdict = decide_in_doubt(doubt->gid->known, all->npeers, doubt->peer, doubt->counts);
	}
	return all;
}

static void
close_all(Doubts *all)
{
	for (int i = 0; i < all->npeers; i++)
		peer_close(&all->peers[i]);
}

/* ------------------------------------------------------------------------
 * Showing
 * ------------------------------------------------------------------------
 */

typedef enum Place
{
	PREPARED_ON,
	COMMITTED_ON,
	ROLLED_BACK_ON,
	ABSENT_ON
} Place;

#define NUM_PLACES (ABSENT_ON + 1)

/* What peer i has to say of this one. */
static Place
place_of(const Doubt *doubt, int i)
{
	const GidKnown *known = &doubt->gid->known[i];

	if (known->prepared)
		return PREPARED_ON;
	if (!doubt->counts[i])
		return ABSENT_ON;
	return known->outcome == GID_COMMITTED ? COMMITTED_ON : ROLLED_BACK_ON;
}

static Datum
segments_in(const Doubts *all, const Doubt *doubt, Place place)
{
	Datum	   *ids = palloc(sizeof(Datum) * all->npeers);
	int			n = 0;

	for (int i = 0; i < all->npeers; i++)
	{
		if (place_of(doubt, i) == place)
			ids[n++] = Int32GetDatum(all->peers[i].segment);
	}
	return PointerGetDatum(construct_array(ids, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

static void
append_segments(StringInfo buf, const Doubts *all, const Doubt *doubt, Place place, const char *text)
{
	int			n = 0;

	for (int i = 0; i < all->npeers; i++)
	{
		if (place_of(doubt, i) == place)
			appendStringInfo(buf, "%s%d", n++ ? ", " : text, all->peers[i].segment);
	}
}

static char *
reason_of(const Doubts *all, const Doubt *doubt)
{
	StringInfoData buf;

	initStringInfo(&buf);
	switch (doubt->verdict)
	{
		case DOUBT_COMMIT:
			append_segments(&buf, all, doubt, COMMITTED_ON, "committed on segment ");
			break;
		case DOUBT_ROLLBACK:
			append_segments(&buf, all, doubt, ROLLED_BACK_ON, "rolled back on segment ");
			break;
		case DOUBT_CONTRADICTION:
			append_segments(&buf, all, doubt, COMMITTED_ON, "committed on segment ");
			append_segments(&buf, all, doubt, ROLLED_BACK_ON, ", but rolled back on segment ");
			break;
		case DOUBT_UNKNOWN:
			appendStringInfoString(&buf, "no other segment knows how it has ended");
			for (int i = 0; i < all->npeers; i++)
			{
				if (place_of(doubt, i) == ABSENT_ON && doubt->gid->known[i].outcome != GID_NO_OUTCOME)
					appendStringInfo(&buf, "; segment %d %s one of this gid at %s, before this one was prepared",
									 all->peers[i].segment,
									 doubt->gid->known[i].outcome == GID_COMMITTED ? "committed" : "rolled back",
									 timestamptz_to_str(doubt->gid->known[i].ended_at));
			}
			break;
	}
	return buf.data;
}

static const char *
verdict_name(DoubtVerdict verdict)
{
	switch (verdict)
	{
		case DOUBT_COMMIT:
			return "commit";
		case DOUBT_ROLLBACK:
			return "rollback";
		case DOUBT_CONTRADICTION:
			return "contradiction";
		case DOUBT_UNKNOWN:
			break;
	}
	return "unknown";
}

/* multisite.in_doubt(): behind the view multisite_in_doubt */
Datum
multisite_in_doubt(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Doubts	   *all;

	InitMaterializedSRF_compat(fcinfo);
	all = look(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_TIMEOUT_MS));
	for (int i = 0; i < all->ndoubts; i++)
	{
		Doubt	   *doubt = &all->doubts[i];
		Datum		values[11];
		bool		nulls[11] = {0};
		int			n = 0;

		values[n++] = CStringGetTextDatum(doubt->gid->gid);
		values[n++] = Int32GetDatum(all->peers[doubt->peer].segment);
		values[n++] = CStringGetTextDatum(doubt->database);
		values[n++] = CStringGetTextDatum(doubt->owner);
		values[n++] = TimestampTzGetDatum(doubt->gid->known[doubt->peer].prepared_at);
		for (Place place = PREPARED_ON; place < NUM_PLACES; place++)
			values[n++] = segments_in(all, doubt, place);
		values[n++] = CStringGetTextDatum(verdict_name(doubt->verdict));
		values[n++] = CStringGetTextDatum(reason_of(all, doubt));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	close_all(all);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * Resolving
 * ------------------------------------------------------------------------
 */

/*
 * A prepared transaction can only be ended in its own database.  Connects to
 * each database of each segment where there is something to do, and tells
 * each Doubt by which of these connections it is to be done.
 */
static Peer *
connect_databases(Doubts *all, TimestampTz deadline, int *nworkers)
{
	Peer	   *workers = segments_alloc_peers(all->ndoubts);
	char	  **databases = palloc0(sizeof(char *) * Max(all->ndoubts, 1));
	int			n = 0;

	for (int i = 0; i < all->ndoubts; i++)
	{
		Doubt	   *doubt = &all->doubts[i];
		Peer	   *peer = &all->peers[doubt->peer];
		int			w = 0;

		if (doubt->verdict != DOUBT_COMMIT && doubt->verdict != DOUBT_ROLLBACK)
			continue;
		while (w < n && (workers[w].segment != peer->segment || strcmp(databases[w], doubt->database) != 0))
			w++;
		if (w == n)
		{
			workers[w].segment = peer->segment;
			workers[w].conninfo = conn_with_database(peer->conninfo, doubt->database);
			databases[w] = doubt->database;
			n++;
		}
		doubt->worker = w;
	}
	(void) peers_connect(workers, n, false, deadline);
	segments_check_settings(workers, n, deadline);
	*nworkers = n;
	return workers;
}

/*
 * Sends the next command of each connection, and waits for all of them.
 * Returns false when there was none.
 */
static bool
resolve_round(Doubts *all, Peer *workers, int nworkers, int *next, TimestampTz deadline)
{
	Doubt	  **current = palloc0(sizeof(Doubt *) * Max(nworkers, 1));
	bool		any = false;

	for (int w = 0; w < nworkers; w++)
	{
		Peer	   *worker = &workers[w];
		Doubt	   *doubt;
		char	   *literal;
		char	   *command;

		while (next[w] < all->ndoubts && all->doubts[next[w]].worker != w)
			next[w]++;
		if (next[w] == all->ndoubts)
			continue;
		doubt = &all->doubts[next[w]++];
		any = true;
		if (worker->conn == NULL)
		{
			doubt->error = pstrdup(worker->error);
			continue;
		}
		peer_set_error(worker, NULL);
		literal = PQescapeLiteral(worker->conn, doubt->gid->gid, strlen(doubt->gid->gid));
		if (literal == NULL)
		{
			doubt->error = conn_error(worker->conn);
			continue;
		}
		command = psprintf("%s PREPARED %s", doubt->verdict == DOUBT_COMMIT ? "COMMIT" : "ROLLBACK", literal);
		PQfreemem(literal);
		peers_send(worker, 1, command, 0, NULL);
		current[w] = doubt;
	}
	(void) peers_collect(workers, nworkers, deadline);
	for (int w = 0; w < nworkers; w++)
	{
		if (current[w] == NULL)
			continue;
		current[w]->done = workers[w].error == NULL;
		current[w]->error = workers[w].error ? pstrdup(workers[w].error) : NULL;
	}
	pfree(current);
	return any;
}

/*
 * multisite_resolve_in_doubt(timeout interval)
 *
 * Ends the prepared transactions whose outcome follows from another segment.
 * What it has done is done, whatever becomes of the session's transaction.
 */
Datum
multisite_resolve_in_doubt(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   interval_milliseconds(PG_GETARG_INTERVAL_P(0)));
	Doubts	   *all;
	Peer	   *workers;
	int			nworkers;
	int		   *next;

	InitMaterializedSRF_compat(fcinfo);
	all = look(deadline);
	workers = connect_databases(all, deadline, &nworkers);
	next = palloc0(sizeof(int) * Max(nworkers, 1));
	while (resolve_round(all, workers, nworkers, next, deadline))
		CHECK_FOR_INTERRUPTS();

	for (int i = 0; i < all->ndoubts; i++)
	{
		Doubt	   *doubt = &all->doubts[i];
		bool		left = doubt->worker < 0;
		Datum		values[5];
		bool		nulls[5] = {0};

		values[0] = CStringGetTextDatum(doubt->gid->gid);
		values[1] = Int32GetDatum(all->peers[doubt->peer].segment);
		values[2] = CStringGetTextDatum(left ? "left" : verdict_name(doubt->verdict));
		values[3] = BoolGetDatum(doubt->done);
		nulls[4] = doubt->done;
		if (!doubt->done)
			values[4] = CStringGetTextDatum(left ? reason_of(all, doubt) : doubt->error);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	for (int w = 0; w < nworkers; w++)
		peer_close(&workers[w]);
	close_all(all);
	return (Datum) 0;
}
