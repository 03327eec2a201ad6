/*-------------------------------------------------------------------------
 *
 * conn.c
 *	  libpq connections that answer interrupts.
 *
 * libpq's own waits know nothing of latches, so each wait here is a
 * WaitEventSet over the latch and the sockets of all connections that are
 * taking the step.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat.h"
#include "conn.h"
#include "settings.h"

char *
conn_error(PGconn *conn)
{
	char	   *text = pstrdup(conn ? PQerrorMessage(conn) : "out of memory");
	int			len = strlen(text);

	while (len > 0 && text[len - 1] == '\n')
		text[--len] = '\0';
	return text;
}

/* Appends a value of a connection string, quoted. */
static void
append_quoted(StringInfo buf, const char *value)
{
	appendStringInfoChar(buf, '\'');
	for (const char *p = value; *p; p++)
	{
		if (*p == '\'' || *p == '\\')
			appendStringInfoChar(buf, '\\');
		appendStringInfoChar(buf, *p);
	}
	appendStringInfoChar(buf, '\'');
}

/*
 * The host is the first Unix socket directory, the user the bootstrap
 * superuser, whatever its name is.
 */
char *
conn_local_conninfo(void)
{
	MemoryContext caller = CurrentMemoryContext;
	StringInfoData buf;
	List	   *directories;
	char	   *user;
	bool		in_transaction = IsTransactionState();

	if (multisite_local_conninfo[0])
		return pstrdup(multisite_local_conninfo);

	if (!SplitDirectoriesString(pstrdup(GetConfigOption("unix_socket_directories", false, false)),
								',', &directories) || directories == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("this server has no Unix socket by which its publisher could reach it"),
				 errhint("Set multisite.local_conninfo, or unix_socket_directories.")));

	/* a session is in a transaction, a worker is not */
	if (!in_transaction)
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
	}
	user = MemoryContextStrdup(caller, GetUserNameFromId(BOOTSTRAP_SUPERUSERID, false));
	if (!in_transaction)
		CommitTransactionCommand();
	MemoryContextSwitchTo(caller);

	initStringInfo(&buf);
	appendStringInfoString(&buf, "host=");
	append_quoted(&buf, linitial(directories));
	appendStringInfo(&buf, " port=%d user=", PostPortNumber);
	append_quoted(&buf, user);
	return buf.data;
}

char *
conn_with_database(const char *conninfo, const char *database)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "dbname=");
	append_quoted(&buf, database);
	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid connection string for a segment")));
	for (PQconninfoOption *o = options; o->keyword; o++)
	{
		if (o->val == NULL || strcmp(o->keyword, "dbname") == 0)
			continue;
		appendStringInfo(&buf, " %s=", o->keyword);
		append_quoted(&buf, o->val);
	}
	PQconninfoFree(options);
	return buf.data;
}

void
peer_close(Peer *peer)
{
	if (peer->result)
		PQclear(peer->result);
	peer->result = NULL;
	if (peer->conn)
		PQfinish(peer->conn);
	peer->conn = NULL;
	peer->is_known = false;
	peer->busy = false;
}

void
peer_set_error(Peer *peer, const char *error)
{
	/* peers outlive memory contexts, so their errors do, too */
	free(peer->error);
	peer->error = error ? strdup(error) : NULL;
}

static void
peer_failed(Peer *peer, const char *error)
{
	peer_set_error(peer, error);
	peer_close(peer);
}

static void
forget_set(WaitEventSet **set)
{
	if (*set)
		FreeWaitEventSet(*set);
	*set = NULL;
}

/*
 * Waits until a busy peer's socket is ready for what it waits for, marks
 * those peers as ready, and returns false when the deadline has passed.
 *
 * The caller keeps the set between the waits of one step, since to make it
 * anew for each answer would cost the square of the number of segments.  It
 * is forgotten when it no longer says what is waited for.
 */
static bool
peers_wait(Peer *peers, int npeers, WaitEventSet **set, TimestampTz deadline)
{
	WaitEvent	events[64];
	int			n;
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	if (left <= 0)
		return false;

	if (*set == NULL)
	{
		*set = CreateWaitEventSet_compat(npeers + 2);
		AddWaitEventToSet(*set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(*set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		for (int i = 0; i < npeers; i++)
		{
			if (peers[i].busy)
				AddWaitEventToSet(*set,
								  peers[i].poll == PGRES_POLLING_WRITING ?
								  WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE,
								  PQsocket(peers[i].conn), NULL, &peers[i]);
		}
	}
	n = WaitEventSetWait(*set, left, events, lengthof(events),
						 wait_event_compat(WAIT_FOR_SEGMENTS));
	for (int i = 0; i < n; i++)
	{
		Peer	   *peer = events[i].user_data;

		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (peer == NULL)
			continue;
		else if (peer->busy)
			peer->ready = true;
		else
			forget_set(set);	/* it has answered, and speaks again */
	}
	CHECK_FOR_INTERRUPTS();
	return true;
}

static int
count_busy(Peer *peers, int npeers)
{
	int			busy = 0;

	for (int i = 0; i < npeers; i++)
		busy += peers[i].busy ? 1 : 0;
	return busy;
}

static bool
all_well(Peer *peers, int npeers)
{
	for (int i = 0; i < npeers; i++)
	{
		if (peers[i].error)
			return false;
	}
	return true;
}

static void
peer_connect_start(Peer *peer, bool replication)
{
	/* dbname is expanded, so the fields after it win over those in it */
	const char *keywords[] = {"dbname", "fallback_application_name", "application_name",
		"connect_timeout", "options", replication ? "replication" : "client_encoding", NULL};
	const char *values[] = {peer->conninfo, "multisite", "multisite", "10",
	"", replication ? "true" : GetDatabaseEncodingName(), NULL};

	if (!replication)
	{
		/* keep our own short statements out of the way of the user's settings */
		values[4] = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 "
			"-c default_transaction_read_only=off -c synchronous_commit=local "
			"-c search_path=pg_catalog";
		/* the coordinator dispatches by itself */
		if (ON_GREENPLUM && !peer->dispatches)
			values[4] = psprintf("%s -c gp_role=utility", values[4]);
	}
	peer->conn = PQconnectStartParams(keywords, values, 1);
	if (peer->conn == NULL || PQstatus(peer->conn) == CONNECTION_BAD)
	{
		peer_failed(peer, conn_error(peer->conn));
		return;
	}
	peer->busy = true;
	peer->ready = false;
	peer->poll = PGRES_POLLING_WRITING;
}

/*
 * Takes busy peers to the end of a step.  The function does what can be done
 * for one that is ready, and says whether it waits for the same as before.
 */
static void
peers_finish(Peer *peers, int npeers, TimestampTz deadline, const char *late, bool (*go_on) (Peer *))
{
	WaitEventSet *set = NULL;

	PG_TRY();
	{
		while (count_busy(peers, npeers) > 0)
		{
			if (!peers_wait(peers, npeers, &set, deadline))
			{
				for (int i = 0; i < npeers; i++)
				{
					if (peers[i].busy)
						peer_failed(&peers[i], late);
				}
				break;
			}
			for (int i = 0; i < npeers; i++)
			{
				if (!peers[i].busy || !peers[i].ready)
					continue;
				peers[i].ready = false;
				if (!go_on(&peers[i]))
					forget_set(&set);
			}
		}
	}
	PG_FINALLY();
	{
		forget_set(&set);
	}
	PG_END_TRY();
}

static bool
peer_connect_on(Peer *peer)
{
	peer->poll = PQconnectPoll(peer->conn);
	if (peer->poll == PGRES_POLLING_OK)
	{
		peer->busy = false;
		(void) PQsetnonblocking(peer->conn, 1);
	}
	else if (peer->poll == PGRES_POLLING_FAILED)
		peer_failed(peer, conn_error(peer->conn));
	/* it may have gone on to another address, by another socket */
	return false;
}

bool
peers_connect(Peer *peers, int npeers, bool replication, TimestampTz deadline)
{
	for (int i = 0; i < npeers; i++)
	{
		peer_set_error(&peers[i], NULL);
		if (peers[i].conn && PQstatus(peers[i].conn) == CONNECTION_BAD)
			peer_close(&peers[i]);
		if (peers[i].conn == NULL)
			peer_connect_start(&peers[i], replication);
	}

	peers_finish(peers, npeers, deadline, "the connection was not made in time", peer_connect_on);
	return all_well(peers, npeers);
}

static void
send_step(Peer *peers, int npeers, const char *query, const char *statement,
		  int nparams, const char *const *params)
{
	for (int i = 0; i < npeers; i++)
	{
		Peer	   *peer = &peers[i];

		if (peer->error || peer->conn == NULL)
			continue;
		if (peer->result)
			PQclear(peer->result);
		peer->result = NULL;
		if (!(statement ?
			  PQsendQueryPrepared(peer->conn, statement, nparams, params, NULL, NULL, 0) :
			  PQsendQueryParams(peer->conn, query, nparams, NULL, params, NULL, NULL, 0)))
		{
			peer_failed(peer, conn_error(peer->conn));
			continue;
		}
		peer->busy = true;
		peer->ready = false;
		peer->poll = PQflush(peer->conn) == 0 ? PGRES_POLLING_READING : PGRES_POLLING_WRITING;
	}
}

void
peers_send(Peer *peers, int npeers, const char *query, int nparams, const char *const *params)
{
	send_step(peers, npeers, query, NULL, nparams, params);
}

void
peers_execute(Peer *peers, int npeers, const char *statement, int nparams, const char *const *params)
{
	send_step(peers, npeers, NULL, statement, nparams, params);
}

/* Takes what has arrived; the peer is no longer busy once all has. */
static bool
peer_consume(Peer *peer)
{
	PostgresPollingStatusType before = peer->poll;

	if (!PQconsumeInput(peer->conn))
	{
		peer_failed(peer, conn_error(peer->conn));
		return false;
	}
	peer->poll = PQflush(peer->conn) == 0 ? PGRES_POLLING_READING : PGRES_POLLING_WRITING;
	while (!PQisBusy(peer->conn))
	{
		PGresult   *result = PQgetResult(peer->conn);
		ExecStatusType status;

		if (result == NULL)
		{
			peer->busy = false;
			return true;
		}
		if (peer->result)
			PQclear(peer->result);
		peer->result = result;
		status = PQresultStatus(result);
		if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK &&
			status != PGRES_COPY_BOTH)
		{
			const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
			const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);

			peer_set_error(peer, primary == NULL ? conn_error(peer->conn) :
						   detail == NULL ? primary : psprintf("%s (%s)", primary, detail));
		}
		if (status == PGRES_COPY_BOTH)
		{
			peer->busy = false;
			return true;
		}
	}
	return peer->poll == before;
}

bool
peers_collect(Peer *peers, int npeers, TimestampTz deadline)
{
	peers_finish(peers, npeers, deadline, "no answer in time", peer_consume);
	return all_well(peers, npeers);
}
