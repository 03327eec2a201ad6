/*-------------------------------------------------------------------------
 *
 * receiver.h
 *	  The worker that stages and releases WAL on a remote segment.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_RECEIVER_H
#define MULTISITE_RECEIVER_H

extern PGDLLEXPORT void multisite_receiver_main(Datum arg);

#endif							/* MULTISITE_RECEIVER_H */
