/*-------------------------------------------------------------------------
 *
 * publisher.h
 *	  The worker that publishes a source segment's WAL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_PUBLISHER_H
#define MULTISITE_PUBLISHER_H

#include "access/xlogdefs.h"

extern PGDLLEXPORT void multisite_publisher_main(Datum arg);

/*
 * Makes the WAL up to here durable, for somebody who waits for it at the other
 * site: it is then published without waiting for more.
 */
extern void publisher_flush(XLogRecPtr lsn);

/* Lets this server claim a pipe that another one on its timeline has. */
extern void publisher_take_over(void);

#endif							/* MULTISITE_PUBLISHER_H */
