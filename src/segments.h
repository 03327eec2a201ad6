/*-------------------------------------------------------------------------
 *
 * segments.h
 *	  The registry of a cluster's segments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_SEGMENTS_H
#define MULTISITE_SEGMENTS_H

#include "conn.h"

typedef struct RegisteredSegment
{
	int32		id;
	char	   *conninfo;
} RegisteredSegment;

/*
 * The segments of a site but for the coordinator, in ascending order of
 * their ids; palloc'd in the current context.  Needs a transaction.  Reads
 * the registry whatever the rights of the current user are.
 */
extern int	segments_registered(const char *site, RegisteredSegment **segments);

/*
 * A connection string may lead anywhere: to the other site's segment after a
 * promotion, say.  Asks each peer that has no error who it is; one that is
 * not this site's segment of its id, or is a standby where none is wanted,
 * gets an error and is closed.
 */
extern void segments_check_identity(Peer *peers, int npeers, bool standby_too,
									TimestampTz deadline);

/* The same for a connection to a database that may be without the extension. */
extern void segments_check_settings(Peer *peers, int npeers, TimestampTz deadline);

/*
 * For a session on the coordinator: connections to all segments of this site,
 * first this server itself, then the registered ones in the order of their
 * ids.  ERROR, of the first one that cannot be used.  All are closed when the
 * current memory context goes, also by an ERROR, if not before.
 */
extern Peer *segments_connect_site(bool standby_too, TimestampTz deadline, int *npeers);

/*
 * Peers of a session: zeroed, in the current memory context, and closed when
 * that goes.
 */
extern Peer *segments_alloc_peers(int npeers);

/* ERROR if a peer has an error: "segment 3 could not <step>". */
extern void segments_require_all(const Peer *peers, int npeers, const char *step);

/* ERROR unless the session is in the database that has the registry. */
extern void segments_require_database(void);

/* Is the extension created in the database at hand?  Needs a transaction. */
extern bool segments_extension_exists(void);

#endif							/* MULTISITE_SEGMENTS_H */
