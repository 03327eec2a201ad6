/*-------------------------------------------------------------------------
 *
 * remote_sites.h
 *	  Which remote sites follow this one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_REMOTE_SITES_H
#define MULTISITE_REMOTE_SITES_H

#include "datatype/timestamp.h"

#include "kafka.h"

/* All zeroes at first; it lives as long as the memory context of the call. */
typedef struct RemoteSites
{
	int			n;
	char	  **topics;			/* where each reports, in ascending order */
	TimestampTz listed_at;
} RemoteSites;

/*
 * Lets the consumer read what all remote sites report, from the beginning; its
 * messages' topics are numbered as in sites->topics.  Asks Kafka for the sites
 * now and then.  Returns true if they have become others.
 */
extern bool remote_sites_follow(RemoteSites *sites, KafkaHandle *consumer);

/* The name of a site, palloc'd. */
extern char *remote_sites_name(const RemoteSites *sites, int number);

#endif							/* MULTISITE_REMOTE_SITES_H */
