/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The multisite.* settings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_SETTINGS_H
#define MULTISITE_SETTINGS_H

typedef enum Durability
{
	DURABILITY_KAFKA,			/* flushed = acknowledged by Kafka */
	DURABILITY_REMOTE			/* flushed = staged at every remote site */
} Durability;

/* identity of this server: fixed at start */
extern char *multisite_cluster_name;
extern char *multisite_site_name;
extern int	multisite_segment_id;
extern char *multisite_database;

/* reloadable */
extern char *multisite_source_site;
extern char *multisite_brokers;
extern char *multisite_kafka_options;
extern char *multisite_local_conninfo;
extern int	multisite_compression;	/* PACK_*, see pack.h */
extern bool multisite_publish;
extern bool multisite_prune;
extern int	multisite_prune_margin; /* MB */
extern int	multisite_consistency_point_interval;	/* milliseconds */
extern int	multisite_barrier_timeout;	/* milliseconds */
extern int	multisite_publisher_memory; /* kilobytes */

extern int	multisite_replication_factor;
extern int	multisite_durability;

#define COORDINATOR_ID	(-1)
#define AM_COORDINATOR() (multisite_segment_id == COORDINATOR_ID)

extern void settings_define(void);

/*
 * True when value may be part of a topic's name: letters, digits, '_' and
 * '-', at most 63 of them.  The dot separates parts, so it is not allowed.
 */
extern bool settings_valid_name(const char *value);

/* ERROR if a standby is to follow its own site. */
extern void settings_check_source_site(void);

/* Topics; the result is palloc'd. */
extern char *topic_wal(const char *site, int segment);
extern char *topic_points(const char *site);
extern char *topic_status(const char *site, const char *remote);
extern char *topic_release(const char *site, const char *remote);

#endif							/* MULTISITE_SETTINGS_H */
