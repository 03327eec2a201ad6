/*-------------------------------------------------------------------------
 *
 * logfilter.h
 *	  Keeps the server's log quiet where our way of working would fill it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_LOGFILTER_H
#define MULTISITE_LOGFILTER_H

extern void logfilter_install(void);

#endif							/* MULTISITE_LOGFILTER_H */
