/*-------------------------------------------------------------------------
 *
 * offline.h
 *	  Promotion of a remote cluster when Kafka is lost, too.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_OFFLINE_H
#define MULTISITE_OFFLINE_H

#include "datatype/timestamp.h"

/*
 * Promotes the site at the named point, or the newest that all segments have
 * staged, if name is NULL.  Returns its name once every segment accepts
 * writes; ERROR if that is not so by the time given.  For a session on the
 * remote coordinator.
 */
extern char *offline_promote(const char *name, TimestampTz until);

#endif							/* MULTISITE_OFFLINE_H */
