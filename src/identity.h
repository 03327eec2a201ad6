/*-------------------------------------------------------------------------
 *
 * identity.h
 *	  Who this server is, as told to Kafka and to other servers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_IDENTITY_H
#define MULTISITE_IDENTITY_H

#include "access/xlogdefs.h"

#include "wire.h"

/*
 * Fills in this server's claim: a random number kept in a file that no base
 * backup carries along, the host's name and the data directory.
 */
extern void identity_claim(WireClaim *claim, TimeLineID timeline);

#endif							/* MULTISITE_IDENTITY_H */
