/*-------------------------------------------------------------------------
 *
 * conn.h
 *	  libpq connections that answer interrupts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_CONN_H
#define MULTISITE_CONN_H

#include "datatype/timestamp.h"
#include "libpq-fe.h"

/*
 * One of several connections that take the same step at the same time.  A
 * step never throws because of a connection: it leaves the reason in error.
 */
typedef struct Peer
{
	int32		segment;
	char	   *conninfo;
	bool		dispatches;		/* Greenplum: reaches all segments, not this
								 * server alone */
	PGconn	   *conn;			/* NULL when there is none */
	bool		is_known;		/* for the caller: what has to be done once on
								 * this connection was done */
	PGresult   *result;			/* of the last step */
	char	   *error;			/* malloc'd; NULL when the last step worked */
	/* internal */
	bool		busy;			/* takes a step */
	bool		ready;			/* its socket is */
	PostgresPollingStatusType poll; /* what the step waits for */
} Peer;

/*
 * Opens those that are not open.  params are sent besides conninfo.  All the
 * functions return true when no peer has an error.
 */
extern bool peers_connect(Peer *peers, int npeers, bool replication, TimestampTz deadline);

/* Sends the same query to all peers that have no error, without waiting. */
extern void peers_send(Peer *peers, int npeers, const char *query,
					   int nparams, const char *const *params);

/* The same for a statement that was made by PREPARE on each of them. */
extern void peers_execute(Peer *peers, int npeers, const char *statement,
						  int nparams, const char *const *params);

/* Waits for the results of peers_send(); closes peers that did not answer. */
extern bool peers_collect(Peer *peers, int npeers, TimestampTz deadline);

extern void peer_close(Peer *peer);
extern void peer_set_error(Peer *peer, const char *error);

/* Takes the newline off libpq's messages; palloc'd. */
extern char *conn_error(PGconn *conn);

/*
 * The connection string by which a worker or a session reaches its own
 * server, in a form for Peer.conninfo.
 */
extern char *conn_local_conninfo(void);

/* The same connection string to another database; palloc'd. */
extern char *conn_with_database(const char *conninfo, const char *database);

#endif							/* MULTISITE_CONN_H */
