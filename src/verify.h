/*-------------------------------------------------------------------------
 *
 * verify.h
 *	  Comparing both sites at a consistency point.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_VERIFY_H
#define MULTISITE_VERIFY_H

/* Does a session keep the remote site at the point that it verifies? */
extern bool verify_holds(void);

#endif							/* MULTISITE_VERIFY_H */
