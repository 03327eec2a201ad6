/*-------------------------------------------------------------------------
 *
 * statefile.c
 *	  The format of a receiver's state file.  See statefile.h.
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"

#include "compat.h"
#endif

#include "port/pg_crc32c.h"

#include "statefile.h"

#define STATE_MAGIC		0x5453534DU

typedef struct StateOnDisk
{
	uint32		magic;
	uint32		version;
	uint64		serial;			/* the place with the greater one counts */
	pg_crc32c	crc;			/* of serial and state */
	StagingState state;
} StateOnDisk;

StaticAssertDecl(sizeof(StateOnDisk) <= STATE_PLACE, "the state must fit its place");

static pg_crc32c
state_crc(const StateOnDisk *disk)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &disk->serial, sizeof(disk->serial));
	COMP_CRC32C(crc, &disk->state, sizeof(disk->state));
	FIN_CRC32C(crc);
	return crc;
}

/* What would lead us astray even with a right checksum. */
static bool
is_sane(const StagingState *state)
{
	return memchr(state->cluster, '\0', sizeof(state->cluster)) != NULL &&
		memchr(state->source_site, '\0', sizeof(state->source_site)) != NULL &&
		state->nswitches >= 0 && state->nswitches <= STAGING_MAX_SWITCHES;
}

StateFileVerdict
statefile_read(const char *bytes, size_t len, StagingState *state, uint64 *serial, uint32 *version)
{
	StateFileVerdict verdict = STATE_FILE_INVALID;

	*serial = 0;
	*version = 0;
	for (size_t at = 0; at < STATE_FILE_SIZE; at += STATE_PLACE)
	{
		StateOnDisk disk;

		if (at + sizeof(disk) > len)
			break;
		memcpy(&disk, bytes + at, sizeof(disk));
		if (disk.magic != STATE_MAGIC || (at > 0 && verdict != STATE_FILE_INVALID && disk.serial < *serial))
			continue;
		if (disk.version != STATE_VERSION)
		{
			/* its checksum is over something else, its serial is where ours is */
			verdict = STATE_FILE_OTHER_VERSION;
			*serial = disk.serial;
			*version = disk.version;
			continue;
		}
		if (disk.crc != state_crc(&disk) || !is_sane(&disk.state))
			continue;
		verdict = STATE_FILE_OK;
		*serial = disk.serial;
		*state = disk.state;
	}
	return verdict;
}

size_t
statefile_write(char *place, const StagingState *state, uint64 serial)
{
	StateOnDisk disk;

	/* not by assignment: padding has a checksum, too */
	memset(&disk, 0, sizeof(disk));
	disk.magic = STATE_MAGIC;
	disk.version = STATE_VERSION;
	disk.serial = serial;
	memcpy(&disk.state, state, sizeof(StagingState));
	disk.crc = state_crc(&disk);
	memset(place, 0, STATE_PLACE);
	memcpy(place, &disk, sizeof(disk));
	return (serial % 2) * STATE_PLACE;
}
