/*-------------------------------------------------------------------------
 *
 * points.h
 *	  The worker on the source coordinator that makes consistency points.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_POINTS_H
#define MULTISITE_POINTS_H

extern PGDLLEXPORT void multisite_points_main(Datum arg);

/* ERROR unless a session may give this name to a point. */
extern void points_check_name(const char *name);

/* ERROR if it is empty, too long, or not printable. */
extern void points_check_length(const char *name);

/*
 * ERROR unless this server can make consistency points and this can be the
 * name of one; NULL stands for a name that will be made.
 */
extern void points_require_source(const char *name);

/* Longest wait for a point, in milliseconds: the barrier twice, Kafka, a queue. */
extern long points_create_timeout(void);

#endif							/* MULTISITE_POINTS_H */
