/*-------------------------------------------------------------------------
 *
 * segments.h
 *	  The registry of a cluster's segments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_SEGMENTS_H
#define MULTISITE_SEGMENTS_H

typedef struct RegisteredSegment
{
	int32		id;
	char	   *conninfo;
} RegisteredSegment;

/*
 * The segments of a site but for the coordinator, in ascending order of
 * their ids; palloc'd in the current context.  Needs a transaction.
 */
extern int	segments_registered(const char *site, RegisteredSegment **segments);

/* Is the extension created in the database at hand?  Needs a transaction. */
extern bool segments_extension_exists(void);

#endif							/* MULTISITE_SEGMENTS_H */
