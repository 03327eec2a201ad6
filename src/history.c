/*-------------------------------------------------------------------------
 *
 * history.c
 *	  The consistency points that this server knows.
 *
 * A ring in shared memory, whose place for a point follows from its id, with
 * a file of the same shape: one block a point, with a checksum, so that a
 * point is added or changed by a single write, and a torn block loses that
 * point's times only.  On a remote segment the file is what makes the staged
 * points known when Kafka is gone; everywhere it is the history that the
 * views show.
 *
 * The file is in pg_wal, so that a base backup does not carry it along.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "history.h"
#include "shared_state.h"

#define HISTORY_FILE	MULTISITE_DIR "/points"
#define HISTORY_BLOCK	256

typedef struct HistoryBlock
{
	uint32		magic;
	pg_crc32c	crc;			/* of what follows */
	PointRecord point;
} HistoryBlock;

#define HISTORY_MAGIC	0x50544D53
StaticAssertDecl(sizeof(HistoryBlock) <= HISTORY_BLOCK, "a point must fit its block");

typedef struct HistoryShared
{
	LWLock	   *lock;
	uint64		newest;			/* greatest id */
	PointRecord points[HISTORY_SIZE];
} HistoryShared;

static HistoryShared *history = NULL;

Size
history_shmem_size(void)
{
	return MAXALIGN(sizeof(HistoryShared));
}

void
history_shmem_init(void)
{
	bool		found;

	history = ShmemInitStruct("multisite_repl points", sizeof(HistoryShared), &found);
	if (!found)
	{
		memset(history, 0, sizeof(HistoryShared));
		history->lock = &(GetNamedLWLockTranche("multisite_repl"))[1].lock;
	}
}

PointState
history_state(const PointRecord *point)
{
	if (point->passed)
		return POINT_PASSED;
	if (point->applied_at)
		return POINT_APPLIED;
	if (point->unusable)
		return POINT_PASSED;
	if (point->released_at)
		return POINT_RELEASED;
	if (point->staged_at)
		return POINT_STAGED;
	if (point->published_at)
		return POINT_PUBLISHED;
	return POINT_CREATED;
}

const char *
history_state_name(PointState state)
{
	switch (state)
	{
		case POINT_CREATED:
			return "created";
		case POINT_PUBLISHED:
			return "published";
		case POINT_STAGED:
			return "staged";
		case POINT_RELEASED:
			return "released";
		case POINT_APPLIED:
			return "applied";
		case POINT_PASSED:
			return "passed";
	}
	return "unknown";
}

const char *
history_why_passed(const PointRecord *point)
{
	switch ((PassedWhy) point->passed)
	{
		case PASSED_NOT:
			break;
		case PASSED_BACKUP:
			return "It lies before the end of this server's base backup.";
		case PASSED_FORK:
			return "It was lost in a failover of this segment's source.";
		case PASSED_PROMOTION:
			return "It comes after the point at which this site was promoted.";
		case PASSED_NUMBER:
			return "Its number was used by another server.";
		case PASSED_UNPUBLISHED:
			return "It was never published: its points worker ended, or began anew, before Kafka had it.";
	}
	return "It lies before the end of the base backup of a segment of the remote site.";
}

void
multisite_dir_create(void)
{
	if (MakePGDirectory(MULTISITE_DIR) < 0)
	{
		if (errno == EEXIST)
			return;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", MULTISITE_DIR)));
	}
	fsync_fname("pg_wal", true);
}

static pg_crc32c
block_crc(const HistoryBlock *block)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &block->point, sizeof(block->point));
	FIN_CRC32C(crc);
	return crc;
}

void
history_load(void)
{
	int			fd;
	char		buf[HISTORY_BLOCK];

	multisite_dir_create();
	fd = OpenTransientFile(HISTORY_FILE, O_RDONLY | PG_BINARY);
	if (fd < 0)
	{
		if (errno == ENOENT)
			return;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", HISTORY_FILE)));
	}

	LWLockAcquire(history->lock, LW_EXCLUSIVE);
	for (int i = 0; i < HISTORY_SIZE; i++)
	{
		HistoryBlock block;

		if (pg_pread(fd, buf, HISTORY_BLOCK, (off_t) i * HISTORY_BLOCK) != HISTORY_BLOCK)
			break;
		memcpy(&block, buf, sizeof(block));
		if (block.magic != HISTORY_MAGIC || block.crc != block_crc(&block) ||
			block.point.id == 0 || block.point.id > WIRE_MAX_POINT || block.point.id % HISTORY_SIZE != (uint64) i ||
			history->points[i].id > block.point.id)
			continue;
		block.point.name[WIRE_NAME_SIZE - 1] = '\0';
		history->points[i] = block.point;
		history->newest = Max(history->newest, block.point.id);
	}
	LWLockRelease(history->lock);
	CloseTransientFile(fd);
}

/* Caller holds the lock. */
static void
write_block(const PointRecord *point, bool durable)
{
	union
	{
		HistoryBlock block;
		char		bytes[HISTORY_BLOCK];
	}			u;
	int			fd;

	memset(&u, 0, sizeof(u));
	u.block.magic = HISTORY_MAGIC;
	u.block.point = *point;
	u.block.crc = block_crc(&u.block);

	fd = OpenTransientFile(HISTORY_FILE, O_RDWR | O_CREAT | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", HISTORY_FILE)));
	errno = 0;
	if (pg_pwrite(fd, u.bytes, HISTORY_BLOCK,
				  (off_t) (point->id % HISTORY_SIZE) * HISTORY_BLOCK) != HISTORY_BLOCK)
	{
		if (errno == 0)
			errno = ENOSPC;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", HISTORY_FILE)));
	}
	if (durable && pg_fsync(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m", HISTORY_FILE)));
	if (CloseTransientFile(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", HISTORY_FILE)));
}

void
history_put(const PointRecord *point, bool durable)
{
	PointRecord *place = &history->points[point->id % HISTORY_SIZE];

	LWLockAcquire(history->lock, LW_EXCLUSIVE);
	if (place->id <= point->id)
	{
		write_block(point, durable);
		*place = *point;
		history->newest = Max(history->newest, point->id);
	}
	LWLockRelease(history->lock);
	shared_changed();
}

bool
history_by_id(uint64 id, PointRecord *point)
{
	bool		found;

	LWLockAcquire(history->lock, LW_SHARED);
	*point = history->points[id % HISTORY_SIZE];
	found = id != 0 && point->id == id;
	LWLockRelease(history->lock);
	return found;
}

bool
history_by_name(const char *name, PointRecord *point)
{
	bool		found = false;

	LWLockAcquire(history->lock, LW_SHARED);
	for (int i = 0; i < HISTORY_SIZE && !found; i++)
	{
		if (history->points[i].id != 0 && strcmp(history->points[i].name, name) == 0)
		{
			*point = history->points[i];
			found = true;
		}
	}
	LWLockRelease(history->lock);
	return found;
}

uint64
history_newest(void)
{
	uint64		newest;

	LWLockAcquire(history->lock, LW_SHARED);
	newest = history->newest;
	LWLockRelease(history->lock);
	return newest;
}

static TimestampTz *
time_of_state(PointRecord *point, PointState state)
{
	switch (state)
	{
		case POINT_PUBLISHED:
			return &point->published_at;
		case POINT_STAGED:
			return &point->staged_at;
		case POINT_RELEASED:
			return &point->released_at;
		case POINT_APPLIED:
			return &point->applied_at;
		default:
			return NULL;
	}
}

void
history_reached(uint64 id, PointState state, TimestampTz at)
{
	bool		changed = false;

	LWLockAcquire(history->lock, LW_EXCLUSIVE);
	for (uint64 i = Min(id, history->newest); i > 0 && i + HISTORY_SIZE > history->newest; i--)
	{
		PointRecord *point = &history->points[i % HISTORY_SIZE];
		TimestampTz *when;

		if (point->id != i)
			continue;
		when = time_of_state(point, state);
		if (*when != 0)
			break;				/* and so it is for all before it */
		if (point->passed || point->unusable)
			continue;
		*when = at;
		write_block(point, false);
		changed = true;
	}
	LWLockRelease(history->lock);
	if (changed)
		shared_changed();
}

void
history_unusable(uint64 upto)
{
	static uint64 done_upto = 0;
	static uint64 done_newest = 0;
	bool		changed = false;

	LWLockAcquire(history->lock, LW_EXCLUSIVE);
	if (upto != done_upto || history->newest != done_newest)
	{
		for (int i = 0; i < HISTORY_SIZE; i++)
		{
			PointRecord *point = &history->points[i];
			/* what was applied before a segment was built anew stays so */
			bool		unusable = point->id <= upto && point->applied_at == 0;

			if (point->id == 0 || point->passed || point->unusable == unusable)
				continue;
			point->unusable = unusable;
			write_block(point, false);
			changed = true;
		}
		done_upto = upto;
		done_newest = history->newest;
	}
	LWLockRelease(history->lock);
	if (changed)
		shared_changed();
}

uint64
history_newest_passed(PassedWhy why)
{
	uint64		newest = 0;

	LWLockAcquire(history->lock, LW_SHARED);
	for (int i = 0; i < HISTORY_SIZE; i++)
	{
		if (history->points[i].passed == (uint8) why)
			newest = Max(newest, history->points[i].id);
	}
	LWLockRelease(history->lock);
	return newest;
}

int
history_after(uint64 from, PointRecord **points)
{
	int			n = 0;
	uint64		first;

	*points = palloc(sizeof(PointRecord) * HISTORY_SIZE);
	LWLockAcquire(history->lock, LW_SHARED);
	first = Max(from + 1, history->newest >= HISTORY_SIZE ? history->newest - HISTORY_SIZE + 1 : 1);
	for (uint64 id = first; id <= history->newest; id++)
	{
		if (history->points[id % HISTORY_SIZE].id == id)
			(*points)[n++] = history->points[id % HISTORY_SIZE];
	}
	LWLockRelease(history->lock);
	return n;
}
