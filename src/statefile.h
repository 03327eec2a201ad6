/*-------------------------------------------------------------------------
 *
 * statefile.h
 *	  The format of a receiver's state file.
 *
 * The file has two places, which are written in turn: so one of them is whole
 * whenever the server dies.  Nothing here touches the file itself, so that
 * unit tests and a fuzzer run the very same code.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_STATEFILE_H
#define MULTISITE_STATEFILE_H

#include "staging.h"

#define STATE_PLACE		4096	/* bytes of a place */
#define STATE_FILE_SIZE (2 * STATE_PLACE)
#define STATE_VERSION	2

typedef enum StateFileVerdict
{
	STATE_FILE_OK,
	STATE_FILE_INVALID,			/* neither place is whole */
	STATE_FILE_OTHER_VERSION	/* *version */
} StateFileVerdict;

/* Reads the newer whole place of a file of len bytes. */
extern StateFileVerdict statefile_read(const char *bytes, size_t len, StagingState *state,
									   uint64 *serial, uint32 *version);

/* Fills in a place, which belongs at the offset that is returned. */
extern size_t statefile_write(char *place, const StagingState *state, uint64 serial);

#endif							/* MULTISITE_STATEFILE_H */
