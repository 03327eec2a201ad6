/*-------------------------------------------------------------------------
 *
 * segments.c
 *	  The registry of a cluster's segments.
 *
 * A table of the coordinator, with the segments of all sites: it is part of
 * what is replicated, so after a promotion the remote coordinator finds its
 * own site's addresses in it.
 *
 * On Greenplum gp_segment_configuration has the segments of the server's own
 * site; the table then is for a standby coordinator alone, whose copy of that
 * catalog is the source's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "segments.h"
#include "settings.h"
#include "shared_state.h"

PG_FUNCTION_INFO_V1(multisite_add_segment);
PG_FUNCTION_INFO_V1(multisite_remove_segment);
PG_FUNCTION_INFO_V1(multisite_mask_conninfo);

static const char *const from_registry =
"SELECT segment_id, conninfo FROM multisite.segment "
"WHERE site = $1 AND segment_id >= 0 ORDER BY segment_id";

/* $1 is not needed; the user is the bootstrap superuser, as on each segment */
static const char *const from_catalog =
"SELECT content::integer, format('host=''%s'' port=%s dbname=''%s'' user=''%s''', "
"address, port, current_setting('multisite.database'), rolname) "
"FROM gp_segment_configuration, pg_authid "
"WHERE $1 IS NOT NULL AND role = 'p' AND content >= 0 AND pg_authid.oid = 10 ORDER BY content";

static bool
is_in_catalog(const char *site)
{
	return ON_GREENPLUM && !RecoveryInProgress() && strcmp(site, multisite_site_name) == 0;
}

/*
 * Only the owner may read the table, since it may hold passwords; a session of
 * another user comes here by a function that it may execute.  That user's
 * search_path must not decide what runs as superuser.
 */
int
segments_registered(const char *site, RegisteredSegment **segments)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(site)};
	int			n;
	Oid			user;
	int			context;
	int			level = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (SPI_execute_with_args(is_in_catalog(site) ? from_catalog : from_registry,
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the registry of segments");
	n = SPI_processed;
	*segments = MemoryContextAlloc(caller, sizeof(RegisteredSegment) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		isnull;

		(*segments)[i].id = DatumGetInt32(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
		(*segments)[i].conninfo = MemoryContextStrdup(caller,
													  SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2));
	}
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(true, level);
	return n;
}

bool
segments_extension_exists(void)
{
	return OidIsValid(get_extension_oid("multisite_repl", true));
}

static void
check_answers(Peer *peers, int npeers, const char *query, bool standby_too, TimestampTz deadline)
{
	peers_send(peers, npeers, query, 0, NULL);
	(void) peers_collect(peers, npeers, deadline);
	for (int i = 0; i < npeers; i++)
	{
		Peer	   *peer = &peers[i];
		const char *cluster;
		const char *site;
		const char *segment;
		bool		recovering;

		if (peer->error)
			continue;
		if (PQntuples(peer->result) != 1 || PQnfields(peer->result) < 4)
		{
			peer_set_error(peer, "It did not say which segment it is");
			peer_close(peer);
			continue;
		}
		cluster = PQgetvalue(peer->result, 0, 0);
		site = PQgetvalue(peer->result, 0, 1);
		segment = PQgetvalue(peer->result, 0, 2);
		recovering = PQgetvalue(peer->result, 0, 3)[0] == 't';
		if (strcmp(cluster, multisite_cluster_name) == 0 &&
			strcmp(site, multisite_site_name) == 0 &&
			atoi(segment) == peer->segment && (standby_too || !recovering))
			continue;
		peer_set_error(peer, psprintf("The address registered for it leads to %ssegment %s of site \"%s\" of cluster \"%s\"",
									  recovering ? "the standby of " : "", segment, site, cluster));
		peer_close(peer);
	}
}

void
segments_check_identity(Peer *peers, int npeers, bool standby_too, TimestampTz deadline)
{
	check_answers(peers, npeers, "SELECT * FROM multisite.identity()", standby_too, deadline);
}

void
segments_check_settings(Peer *peers, int npeers, TimestampTz deadline)
{
	check_answers(peers, npeers,
				  "SELECT current_setting('multisite.cluster_name'), current_setting('multisite.site_name'), "
				  "current_setting('multisite.segment_id'), pg_is_in_recovery()",
				  false, deadline);
}

void
segments_require_all(const Peer *peers, int npeers, const char *step)
{
	for (int i = 0; i < npeers; i++)
	{
		if (peers[i].error)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_EXCEPTION),
					 errmsg("segment %d of site \"%s\" could not %s",
							peers[i].segment, multisite_site_name, step),
					 errdetail("%s", sentence(peers[i].error)),
					 peers[i].segment == COORDINATOR_ID ?
					 errhint("That is this server itself. See multisite.local_conninfo.") :
					 is_in_catalog(multisite_site_name) ?
					 errhint("Its address is that of gp_segment_configuration.") :
					 errhint("If its address is wrong, call multisite_add_segment(%d, conninfo).",
							 peers[i].segment)));
	}
}

/* What a memory context has to give back besides memory. */
typedef struct PeerSet
{
	MemoryContextCallback callback;
	int			npeers;
	Peer		peers[FLEXIBLE_ARRAY_MEMBER];
} PeerSet;

static void
close_peers(void *arg)
{
	PeerSet    *set = arg;

	for (int i = 0; i < set->npeers; i++)
	{
		peer_close(&set->peers[i]);
		peer_set_error(&set->peers[i], NULL);
	}
}

Peer *
segments_alloc_peers(int npeers)
{
	PeerSet    *set = palloc0(offsetof(PeerSet, peers) + sizeof(Peer) * npeers);

	set->npeers = npeers;
	set->callback.func = close_peers;
	set->callback.arg = set;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &set->callback);
	return set->peers;
}

Peer *
segments_connect_site(bool standby_too, TimestampTz deadline, int *npeers)
{
	RegisteredSegment *segments;
	int			n;
	Peer	   *peers;

	segments_require_database();
	n = segments_registered(multisite_site_name, &segments) + 1;
	peers = segments_alloc_peers(n);
	peers[0].segment = COORDINATOR_ID;
	peers[0].conninfo = conn_with_database(conn_local_conninfo(), multisite_database);
	for (int i = 1; i < n; i++)
	{
		peers[i].segment = segments[i - 1].id;
		peers[i].conninfo = segments[i - 1].conninfo;
	}
	(void) peers_connect(peers, n, false, deadline);
	segments_require_all(peers, n, "be reached");
	segments_check_identity(peers, n, standby_too, deadline);
	segments_require_all(peers, n, "be used");
	*npeers = n;
	return peers;
}

void
segments_require_database(void)
{
	if (strcmp(get_database_name(MyDatabaseId), multisite_database) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the registry of segments is in database \"%s\"", multisite_database),
				 errdetail("That is what multisite.database says; workers look nowhere else.")));
}

static void
check_site(const char *site)
{
	if (!settings_valid_name(site))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name of a site: \"%s\"", site),
				 errhint("Use letters, digits, \"_\" and \"-\", as in multisite.site_name.")));
}

static void
check_conninfo(const char *conninfo)
{
	char	   *problem = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &problem);

	if (options == NULL)
	{
		char	   *text = pstrdup(problem ? problem : "out of memory");

		PQfreemem(problem);
		if (text[0] && text[strlen(text) - 1] == '\n')
			text[strlen(text) - 1] = '\0';
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid connection string for a segment"),
				 errdetail("%s", sentence(text))));
	}
	PQconninfoFree(options);
}

/* What both functions below refuse; they are called on NULLs, for the site's. */
static void
check_registry_arguments(bool has_null)
{
	if (has_null)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the id and the connection string of a segment must not be null")));
	segments_require_database();
}

/*
 * multisite_add_segment(segment_id int, conninfo text, site text)
 *
 * Registers a segment, or replaces its connection string.  The coordinator
 * itself (-1) is registered only for other sites' use of the registry.
 */
Datum
multisite_add_segment(PG_FUNCTION_ARGS)
{
	int32		id;
	char	   *conninfo;
	char	   *site;
	Oid			types[3] = {TEXTOID, INT4OID, TEXTOID};
	Datum		values[3];

	check_registry_arguments(PG_ARGISNULL(0) || PG_ARGISNULL(1));
	id = PG_GETARG_INT32(0);
	conninfo = text_to_cstring(PG_GETARG_TEXT_PP(1));
	site = PG_ARGISNULL(2) ? multisite_site_name : text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to register a segment"),
				 errdetail("Workers connect with its connection string as the server's operating system user.")));
	if (id < COORDINATOR_ID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid segment id %d", id),
				 errhint("Segments have ids from 0 on; the coordinator is -1.")));
	check_site(site);
	check_conninfo(conninfo);

	values[0] = CStringGetTextDatum(site);
	values[1] = Int32GetDatum(id);
	values[2] = CStringGetTextDatum(conninfo);
	SPI_connect();
	if (SPI_execute_with_args("INSERT INTO multisite.segment (site, segment_id, conninfo) "
							  "VALUES ($1, $2, $3) ON CONFLICT (site, segment_id) "
							  "DO UPDATE SET conninfo = EXCLUDED.conninfo",
							  3, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not register segment %d", id);
	SPI_finish();
	PG_RETURN_VOID();
}

/* multisite_remove_segment(segment_id int, site text) */
Datum
multisite_remove_segment(PG_FUNCTION_ARGS)
{
	int32		id;
	char	   *site;
	Oid			types[2] = {TEXTOID, INT4OID};
	Datum		values[2];

	check_registry_arguments(PG_ARGISNULL(0));
	id = PG_GETARG_INT32(0);
	site = PG_ARGISNULL(1) ? multisite_site_name : text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to remove a segment")));
	values[0] = CStringGetTextDatum(site);
	values[1] = Int32GetDatum(id);
	SPI_connect();
	if (SPI_execute_with_args("DELETE FROM multisite.segment WHERE site = $1 AND segment_id = $2",
							  2, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not remove segment %d", id);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("segment %d of site \"%s\" is not registered", id, site)));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * A connection string without what is secret in it.  Only the fields that
 * say where it leads are kept: a list of what may be shown cannot leak what
 * a later libpq adds.
 */
Datum
multisite_mask_conninfo(PG_FUNCTION_ARGS)
{
	char	   *conninfo = text_to_cstring(PG_GETARG_TEXT_PP(0));
	static const char *const shown[] = {"host", "hostaddr", "port", "dbname", "user", "sslmode"};
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	StringInfoData buf;

	initStringInfo(&buf);
	for (PQconninfoOption *o = options; o && o->keyword; o++)
	{
		if (o->val == NULL || o->val[0] == '\0')
			continue;
		for (size_t i = 0; i < lengthof(shown); i++)
		{
			if (strcmp(o->keyword, shown[i]) == 0)
				appendStringInfo(&buf, "%s%s=%s", buf.len ? " " : "", o->keyword, o->val);
		}
	}
	PQconninfoFree(options);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf.data, buf.len));
}
