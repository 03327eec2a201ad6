/*-------------------------------------------------------------------------
 *
 * identity.c
 *	  Who this server is, as told to Kafka and to other servers.
 *
 * A copy of a data directory has the same system identifier and the same
 * postgresql.conf; the identity tells it from the original.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "history.h"
#include "identity.h"

#define IDENTITY_FILE	MULTISITE_DIR "/identity"
#define IDENTITY_TEMP	MULTISITE_DIR "/identity.tmp"

static bool
read_identity(uint8 *identity)
{
	int			fd = OpenTransientFile(IDENTITY_FILE, O_RDONLY | PG_BINARY);
	ssize_t		got;

	if (fd < 0)
	{
		if (errno == ENOENT)
			return false;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", IDENTITY_FILE)));
	}
	got = read(fd, identity, WIRE_IDENTITY_SIZE);
	CloseTransientFile(fd);
	if (got != WIRE_IDENTITY_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("file \"%s\" is truncated", IDENTITY_FILE),
				 errhint("Remove it, and call multisite_take_over_pipe().")));
	return true;
}

static void
make_identity(uint8 *identity)
{
	int			fd;

	multisite_dir_create();
	if (!pg_strong_random(identity, WIRE_IDENTITY_SIZE))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random identity")));
	fd = OpenTransientFile(IDENTITY_TEMP, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0 || write(fd, identity, WIRE_IDENTITY_SIZE) != WIRE_IDENTITY_SIZE)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", IDENTITY_TEMP)));
	CloseTransientFile(fd);
	durable_rename(IDENTITY_TEMP, IDENTITY_FILE, ERROR);
}

void
identity_claim(WireClaim *claim, TimeLineID timeline)
{
	memset(claim, 0, sizeof(*claim));
	claim->timeline = timeline;
	if (!read_identity(claim->identity))
		make_identity(claim->identity);
	if (gethostname(claim->host, WIRE_HOST_SIZE - 1) != 0)
		strlcpy(claim->host, "unknown", WIRE_HOST_SIZE);
	strlcpy(claim->data_directory, DataDir, WIRE_PATH_SIZE);
}
