/*-------------------------------------------------------------------------
 *
 * twophase_log.c
 *	  The entries of the log of prepared transactions: how they lie on disk.
 *
 * An entry is a fixed part, in the byte order of the server, whose file it
 * is, and the gid.  Each has a checksum of its own, so that a log whose end
 * was torn by a crash is good up to there.  No server state, and nothing that
 * is read is trusted.
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

#include "twophase_log.h"

#define LOG_MAGIC		0x4C32504DU
#define LOG_VERSION		1

typedef struct FixedPart
{
	pg_crc32c	crc;			/* of all that follows */
	uint16		length;			/* of the entry */
	uint8		kind;
	uint8		gid_length;
	uint32		xid;
	uint32		unused;
	uint64		lsn;
	int64		time;
} FixedPart;

StaticAssertDecl(sizeof(FixedPart) == 32, "an entry must have no padding");

void
twophase_encode_header(char *buf)
{
	uint32		header[2] = {LOG_MAGIC, LOG_VERSION};

	memcpy(buf, header, TWOPHASE_HEADER_SIZE);
}

bool
twophase_check_header(const char *buf, size_t len)
{
	char		expected[TWOPHASE_HEADER_SIZE];

	twophase_encode_header(expected);
	return len >= TWOPHASE_HEADER_SIZE && memcmp(buf, expected, TWOPHASE_HEADER_SIZE) == 0;
}

static pg_crc32c
entry_crc(const char *buf, size_t len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, buf + sizeof(pg_crc32c), len - sizeof(pg_crc32c));
	FIN_CRC32C(crc);
	return crc;
}

size_t
twophase_encode(const TwophaseEntry *entry, char *buf)
{
	size_t		gid_length = strlen(entry->gid);
	FixedPart	fixed = {
		.length = sizeof(FixedPart) + gid_length,
		.kind = entry->kind,
		.gid_length = gid_length,
		.xid = entry->xid,
		.lsn = entry->lsn,
		.time = entry->time
	};

	memcpy(buf, &fixed, sizeof(fixed));
	memcpy(buf + sizeof(fixed), entry->gid, gid_length);
	fixed.crc = entry_crc(buf, fixed.length);
	memcpy(buf, &fixed.crc, sizeof(fixed.crc));
	return fixed.length;
}

size_t
twophase_decode(const char *buf, size_t len, TwophaseEntry *entry)
{
	FixedPart	fixed;

	if (len < sizeof(fixed))
		return 0;
	memcpy(&fixed, buf, sizeof(fixed));
	if (fixed.length != sizeof(fixed) + fixed.gid_length || fixed.length > len ||
		fixed.gid_length == 0 || fixed.gid_length >= TWOPHASE_GID_SIZE ||
		fixed.kind < TWOPHASE_PREPARED || fixed.kind > TWOPHASE_PROMOTED ||
		fixed.crc != entry_crc(buf, fixed.length) ||
		memchr(buf + sizeof(fixed), '\0', fixed.gid_length) != NULL)
		return 0;
	entry->kind = fixed.kind;
	entry->xid = fixed.xid;
	entry->lsn = fixed.lsn;
	entry->time = fixed.time;
	memcpy(entry->gid, buf + sizeof(fixed), fixed.gid_length);
	entry->gid[fixed.gid_length] = '\0';
	return fixed.length;
}
