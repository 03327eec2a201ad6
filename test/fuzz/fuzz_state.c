/*-------------------------------------------------------------------------
 *
 * fuzz_state.c
 *	  Any bytes as a receiver's state file: what is accepted must be sane, and
 *	  be the newer of two places that are whole.
 *
 * The input is the file; it is also tried as the content of a place whose
 * checksum is right, beside one that is damaged.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "fuzz.h"
#include "statefile.h"

static void
check(const StagingState *state)
{
	must(memchr(state->cluster, '\0', NAMEDATALEN) != NULL, "a cluster that does not end");
	must(memchr(state->source_site, '\0', NAMEDATALEN) != NULL, "a site that does not end");
	must(state->nswitches >= 0 && state->nswitches <= STAGING_MAX_SWITCHES, "too many timelines");
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	StagingState state;
	StagingState again;
	uint64		serial;
	uint32		version;
	char		file[STATE_FILE_SIZE];
	char	   *copy = malloc(Max(size, 1));

	memcpy(copy, data, size);
	if (statefile_read(copy, size, &state, &serial, &version) == STATE_FILE_OK)
		check(&state);
	free(copy);

	memset(&state, 0, sizeof(state));
	memcpy(&state, data, Min(size, sizeof(state)));
	memset(file, 0, sizeof(file));
	for (serial = 7; serial <= 8; serial++)
	{
		char		place[STATE_PLACE];
		size_t		at;

		state.pipe_offset = serial;
		at = statefile_write(place, &state, serial);
		must(at + STATE_PLACE <= sizeof(file), "a place outside the file");
		memcpy(file + at, place, STATE_PLACE);
	}
	if (statefile_read(file, sizeof(file), &again, &serial, &version) != STATE_FILE_OK)
		return 0;				/* it was not sane */
	check(&again);
	must(serial == 8 && memcmp(&again, &state, sizeof(state)) == 0, "not the newer place");

	/* the newer one is torn: one byte of it is another */
	if (size > 0)
	{
		int			at = 24 + data[0] % 200;	/* in the state itself */

		file[at] ^= 1;
		must(statefile_read(file, sizeof(file), &again, &serial, &version) == STATE_FILE_OK &&
			 serial == 7 && again.pipe_offset == 7, "not the older place, when the newer one is torn");
		file[at] ^= 1;
		file[4] ^= 1;
		must(statefile_read(file, sizeof(file), &again, &serial, &version) == STATE_FILE_OTHER_VERSION,
			 "a newer state of another version is passed over");
	}
	return 0;
}
