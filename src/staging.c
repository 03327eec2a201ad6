/*-------------------------------------------------------------------------
 *
 * staging.c
 *	  WAL that has arrived at a remote segment and is not released yet.
 *
 * Staged WAL lies in pg_wal/multisite, in files named like WAL segments and
 * of their size, where recovery does not look, and on the file system of
 * pg_wal, so that a whole segment is released by a rename.
 *
 * A release of the bytes from R (released_lsn) to X is atomic for recovery,
 * and for anyone who promotes the server by hand: a record at R connects what
 * follows to what was released before, so whatever lies behind R is out of
 * reach for as long as that record is not there.  Hence the order:
 *
 *	1. the intent (X and its point) is made durable in the state file;
 *	2. the segments behind R's are put into pg_wal, the last one first; of the
 *	   one in which X lies, a copy that ends at X and is zero behind it;
 *	3. in R's segment the bytes behind the first eight are written and synced;
 *	4. those eight bytes, which lie in one sector and are the length and the
 *	   xid of the record (or the magic number of a page), are written.
 *
 * If R is a segment's start, or the timeline changes in its segment, then
 * steps 3 and 4 are the rename of that segment or of the history file.
 * A crash before step 4 leaves recovery at R, one after it at X, and the
 * intent makes the next start do all of it again, to the same bytes.
 *
 * The state file has two places that are written in turn, so that a torn
 * write leaves the one before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/lwlock.h"

#include "compat.h"
#include "history.h"
#include "staging.h"
#include "statefile.h"

#define STATE_FILE		MULTISITE_DIR "/state"
#define STATE_TEMP		MULTISITE_DIR "/state.tmp"
#define TEMP_FILE		MULTISITE_DIR "/tail.tmp"
/* the bytes whose write makes a release */
#define CONNECTING_BYTES 8

static StagingState state;
StagingState *staging = &state;

static uint64 state_serial;
static int	state_fd = -1;

static int	segment_fd = -1;	/* the staged segment that is being written */
static TimeLineID segment_tli;
static XLogSegNo segment_no;
static size_t unsynced;
static int	read_fd = -1;		/* the file that staging_read() has open */
static char read_path[MAXPGPATH];
static bool directory_dirty;

/* ------------------------------------------------------------------------
 * Small things
 * ------------------------------------------------------------------------
 */

static void
staged_path(char *path, TimeLineID tli, XLogSegNo segno)
{
	char		name[MAXFNAMELEN];

	XLogFileName(name, tli, segno, wal_segment_size);
	snprintf(path, MAXPGPATH, MULTISITE_DIR "/%s", name);
}

static void
released_path(char *path, TimeLineID tli, XLogSegNo segno)
{
	XLogFilePath(path, tli, segno, wal_segment_size);
}

static bool
file_exists(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		return true;
	if (errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	return false;
}

static int
open_file(const char *path, int flags)
{
	int			fd = BasicOpenFile(path, flags | PG_BINARY);

	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	return fd;
}

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void
write_at(int fd, const char *path, const char *data, size_t len, off_t offset)
{
	while (len > 0)
	{
		ssize_t		written;

		errno = 0;
		written = pg_pwrite(fd, data, len, offset);
		if (written <= 0)
		{
			if (errno == EINTR)
				continue;
			if (errno == 0)
				errno = ENOSPC;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write file \"%s\": %m", path)));
		}
		data += written;
		len -= written;
		offset += written;
	}
}

static void
sync_fd(int fd, const char *path)
{
	if (pg_fsync(fd) != 0)
		ereport(data_sync_elevel(ERROR),
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m", path)));
}

/*
 * The timeline of the file that holds a segment, as far as WAL before upto is
 * concerned: a timeline that begins behind that does not count.
 */
static TimeLineID
timeline_of_segment(XLogSegNo segno, XLogRecPtr upto)
{
	XLogRecPtr	end;

	/* a segment in which a timeline begins is the new timeline's */
	XLogSegNoOffsetToRecPtr(segno + 1, 0, wal_segment_size, end);
	return staging_timeline_at(Min(end, upto));
}

/* ------------------------------------------------------------------------
 * The state file
 * ------------------------------------------------------------------------
 */

void
staging_save(void)
{
	char		place[STATE_PLACE];
	size_t		at = statefile_write(place, &state, state_serial + 1);

	write_at(state_fd, STATE_FILE, place, STATE_PLACE, at);
	sync_fd(state_fd, STATE_FILE);
	state_serial++;
}

bool
staging_open(void)
{
	char		bytes[STATE_FILE_SIZE];
	ssize_t		len;
	uint32		version;

	staging_close();
	multisite_dir_create();
	memset(&state, 0, sizeof(state));
	state_serial = 0;
	unsynced = 0;
	(void) unlink(TEMP_FILE);

	if (!file_exists(STATE_FILE))
		return false;
	state_fd = open_file(STATE_FILE, O_RDWR);
	len = pg_pread(state_fd, bytes, sizeof(bytes), 0);
	if (len < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", STATE_FILE)));
	switch (statefile_read(bytes, len, &state, &state_serial, &version))
	{
		case STATE_FILE_OK:
			break;
		case STATE_FILE_OTHER_VERSION:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("file \"%s\" has format version %u, expected %u",
							STATE_FILE, version, STATE_VERSION)));
			break;
		case STATE_FILE_INVALID:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("file \"%s\" has no valid content", STATE_FILE),
					 errhint("Take a new base backup for this segment.")));
			break;
	}
	return true;
}

void
staging_create(const StagingState *initial)
{
	staging_discard();
	close_fd(&state_fd);
	state = *initial;

	/* an empty file under its name would be taken for a broken one */
	state_fd = open_file(STATE_TEMP, O_RDWR | O_CREAT | O_TRUNC);
	staging_save();
	(void) durable_rename(STATE_TEMP, STATE_FILE, ERROR);
}

void
staging_close(void)
{
	close_fd(&state_fd);
	close_fd(&segment_fd);
	close_fd(&read_fd);
}

/* ------------------------------------------------------------------------
 * Staging
 * ------------------------------------------------------------------------
 */

static void
sync_segment(void)
{
	char		path[MAXPGPATH];

	if (segment_fd < 0 || unsynced == 0)
		return;
	staged_path(path, segment_tli, segment_no);
	sync_fd(segment_fd, path);
}

/* Makes the given staged segment the one that is written. */
static void
open_segment(TimeLineID tli, XLogSegNo segno)
{
	char		path[MAXPGPATH];
	struct stat st;

	if (segment_fd >= 0 && segment_tli == tli && segment_no == segno)
		return;
	sync_segment();
	close_fd(&segment_fd);

	staged_path(path, tli, segno);
	segment_fd = open_file(path, O_RDWR | O_CREAT);
	segment_tli = tli;
	segment_no = segno;
	if (fstat(segment_fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	if (st.st_size != wal_segment_size)
	{
		if (ftruncate(segment_fd, wal_segment_size) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not extend file \"%s\": %m", path)));
		directory_dirty = true;
	}
}

void
staging_append(const char *data, size_t len)
{
	while (len > 0)
	{
		XLogSegNo	segno;
		uint32		offset = XLogSegmentOffset(state.staged_lsn, wal_segment_size);
		size_t		part = Min(len, wal_segment_size - offset);
		char		path[MAXPGPATH];

		XLByteToSeg(state.staged_lsn, segno, wal_segment_size);
		open_segment(state.timeline, segno);
		staged_path(path, state.timeline, segno);
		write_at(segment_fd, path, data, part, offset);
		unsynced += part;
		state.staged_lsn += part;
		data += part;
		len -= part;
	}
}

size_t
staging_unsynced(void)
{
	return unsynced;
}

void
staging_sync(void)
{
	sync_segment();
	unsynced = 0;
	if (directory_dirty)
		fsync_fname(MULTISITE_DIR, true);
	directory_dirty = false;
	staging_save();
}

bool
staging_read(void *arg, XLogRecPtr lsn, char *buf, int len)
{
	XLogSegNo	segno;
	TimeLineID	tli;

	XLByteToSeg(lsn, segno, wal_segment_size);
	tli = timeline_of_segment(segno, PG_UINT64_MAX);
	while (len > 0)
	{
		char		path[MAXPGPATH];
		int			part = len;

		if (lsn < state.released_lsn)
		{
			part = Min((XLogRecPtr) part, state.released_lsn - lsn);
			released_path(path, state.released_timeline, segno);
		}
		else
			staged_path(path, tli, segno);

		if (read_fd < 0 || strcmp(path, read_path) != 0)
		{
			close_fd(&read_fd);
			read_fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
			if (read_fd < 0)
			{
				if (errno == ENOENT)
					return false;
				ereport(ERROR,
						(errcode_for_file_access(),
						 errmsg("could not open file \"%s\": %m", path)));
			}
			strlcpy(read_path, path, MAXPGPATH);
		}
		if (pg_pread(read_fd, buf, part, XLogSegmentOffset(lsn, wal_segment_size)) != part)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", path)));
		buf += part;
		lsn += part;
		len -= part;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Timelines
 * ------------------------------------------------------------------------
 */

static void
staged_history_path(char *path, TimeLineID tli)
{
	char		name[MAXFNAMELEN];

	TLHistoryFileName(name, tli);
	snprintf(path, MAXPGPATH, MULTISITE_DIR "/%s", name);
}

static void
write_temp(const char *text, size_t len)
{
	int			fd = open_file(TEMP_FILE, O_RDWR | O_CREAT | O_TRUNC);

	PG_TRY();
	{
		write_at(fd, TEMP_FILE, text, len, 0);
		sync_fd(fd, TEMP_FILE);
	}
	PG_FINALLY();
	{
		close(fd);
	}
	PG_END_TRY();
}

void
staging_put_history(TimeLineID timeline, const char *text, size_t len)
{
	char		path[MAXPGPATH];

	write_temp(text, len);
	staged_history_path(path, timeline);
	durable_rename(TEMP_FILE, path, ERROR);
}

/*
 * The new timeline's first segment holds what its timeline has in common
 * with the old one, too, as a server's own would.
 */
void
staging_switch_timeline(void)
{
	XLogSegNo	segno;
	XLogRecPtr	at;
	TimeLineID	next = state.next_timeline;
	XLogRecPtr	fork = state.switch_lsn;
	char		path[MAXPGPATH];

	if (state.nswitches == STAGING_MAX_SWITCHES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("more than %d timelines between two consistency points", STAGING_MAX_SWITCHES),
				 errhint("Create a consistency point on the source.")));

	sync_segment();
	XLByteToSeg(fork, segno, wal_segment_size);
	XLogSegNoOffsetToRecPtr(segno, 0, wal_segment_size, at);
	if (at < fork)
	{
		char	   *buf = palloc(XLOG_BLCKSZ);

		open_segment(next, segno);
		staged_path(path, next, segno);
		while (at < fork)
		{
			int			part = Min(XLOG_BLCKSZ, fork - at);

			if (!staging_read(NULL, at, buf, part))
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("WAL before the start of timeline %u is missing", next)));
			write_at(segment_fd, path, buf, part, XLogSegmentOffset(at, wal_segment_size));
			at += part;
		}
		pfree(buf);
		sync_fd(segment_fd, path);
	}
	state.switches[state.nswitches].timeline = next;
	state.switches[state.nswitches].begin = fork;
	state.nswitches++;
	state.timeline = next;
	state.staged_lsn = fork;
	state.next_timeline = 0;
	state.switch_lsn = 0;
	staging_sync();
}

/* ------------------------------------------------------------------------
 * Releasing
 * ------------------------------------------------------------------------
 */

/*
 * Puts a file into pg_wal.  A recycled segment may have its name; the lock
 * keeps the checkpointer from giving another one that name between our look
 * and our rename (see InstallXLogFileSegment() in xlog.c).
 */
static void
place_file(const char *from, const char *to)
{
	LWLockAcquire(ControlFileLock, LW_EXCLUSIVE);
	durable_rename(from, to, ERROR);
	LWLockRelease(ControlFileLock);
}

/* Copies staged bytes into an open file at the place where they belong. */
static void
copy_staged(int fd, const char *path, XLogRecPtr from, XLogRecPtr to)
{
	char	   *buf = palloc(XLOG_BLCKSZ * 16);

	while (from < to)
	{
		int			part = Min(XLOG_BLCKSZ * 16, to - from);

		if (!staging_read(NULL, from, buf, part))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("staged WAL at %X/%X is missing", LSN_FORMAT_ARGS(from)),
					 errhint("Take a new base backup for this segment.")));
		write_at(fd, path, buf, part, XLogSegmentOffset(from, wal_segment_size));
		from += part;
	}
	pfree(buf);
}

/*
 * Has recovery replayed this?  Then all before it was in pg_wal, and what is
 * not there any more has gone with a restartpoint.
 */
static bool
is_replayed(XLogRecPtr upto)
{
	return replay_position_compat(NULL) >= upto;
}

/* Puts a segment of which nothing was released before into pg_wal. */
static void
place_segment(XLogSegNo segno, XLogRecPtr upto)
{
	TimeLineID	tli = timeline_of_segment(segno, upto);
	XLogRecPtr	begin;
	char		staged[MAXPGPATH];
	char		released[MAXPGPATH];
	int			fd;

	XLogSegNoOffsetToRecPtr(segno, 0, wal_segment_size, begin);
	staged_path(staged, tli, segno);
	released_path(released, tli, segno);

	if (segment_fd >= 0 && segment_no == segno && segment_tli == tli)
	{
		sync_segment();
		close_fd(&segment_fd);
	}
	if (upto >= begin + wal_segment_size)
	{
		/* gone from staging: an interrupted release has placed it already */
		if (file_exists(staged) || !(file_exists(released) || is_replayed(upto)))
			place_file(staged, released);
		return;
	}

	fd = open_file(TEMP_FILE, O_RDWR | O_CREAT | O_TRUNC);
	PG_TRY();
	{
		if (ftruncate(fd, wal_segment_size) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not extend file \"%s\": %m", TEMP_FILE)));
		copy_staged(fd, TEMP_FILE, begin, upto);
		sync_fd(fd, TEMP_FILE);
	}
	PG_FINALLY();
	{
		close(fd);
	}
	PG_END_TRY();
	place_file(TEMP_FILE, released);
}

/*
 * Steps 3 and 4: the bytes from R on in the segment that recovery reads, the
 * first eight of them last.
 */
static void
connect_tail(XLogRecPtr from, XLogRecPtr upto)
{
	XLogSegNo	segno;
	char		path[MAXPGPATH];
	char		staged[MAXPGPATH];
	XLogRecPtr	end;
	XLogRecPtr	connected = from + CONNECTING_BYTES;
	int			fd;

	XLByteToSeg(from, segno, wal_segment_size);
	XLogSegNoOffsetToRecPtr(segno + 1, 0, wal_segment_size, end);
	end = Min(upto, end);
	released_path(path, state.released_timeline, segno);
	staged_path(staged, state.released_timeline, segno);

	sync_segment();
	if (!file_exists(path) && is_replayed(upto))
		return;
	fd = open_file(path, O_RDWR);
	PG_TRY();
	{
		copy_staged(fd, path, connected, end);
		sync_fd(fd, path);
		copy_staged(fd, path, from, connected);
		sync_fd(fd, path);
	}
	PG_FINALLY();
	{
		close(fd);
	}
	PG_END_TRY();
}

/* Does the release that is under way enter this timeline? */
static bool
enters_timeline(TimeLineID tli)
{
	for (int i = 0; i < state.nswitches; i++)
	{
		if (state.switches[i].timeline == tli)
			return true;
	}
	return false;
}

static void
place_history(TimeLineID tli)
{
	char		staged[MAXPGPATH];
	char		released[MAXPGPATH];

	staged_history_path(staged, tli);
	TLHistoryFilePath(released, tli);
	if (file_exists(staged))
		place_file(staged, released);
	else if (file_exists(released))
		return;					/* an interrupted release has placed it already */
	else if (enters_timeline(tli))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the history of timeline %u is missing", tli),
				 errhint("Take a new base backup for this segment.")));
	else
	{
		char		text[64];

		snprintf(text, sizeof(text), "# timeline %u is not in the history of this server\n", tli);
		write_temp(text, strlen(text));
		place_file(TEMP_FILE, released);
	}
}

/*
 * The histories of the timelines that a release enters, and of the numbers in
 * between.  Recovery finds the newest timeline by counting up until a history
 * is missing.  But the source has left out a number that another server took
 * before it, one that was promoted by mistake beside the same archive, say.
 * Of all these files only the newest is read, so for such a number one that
 * has no ancestors will do: nothing could follow it, if it were the newest.
 *
 * The newest comes first: recovery sees none of them until the last one,
 * which is next to its own timeline, is there, and then all of them.
 */
static void
place_histories(void)
{
	for (TimeLineID tli = state.intent_timeline; tli > state.released_timeline; tli--)
		place_history(tli);
}

/* Removes staged segments before this one; histories, too, if it is the last. */
static void
remove_staged_before(XLogSegNo before)
{
	DIR		   *dir = AllocateDir(MULTISITE_DIR);
	struct dirent *entry;

	while ((entry = ReadDir(dir, MULTISITE_DIR)) != NULL)
	{
		char		path[MAXPGPATH * 2];

		if (IsXLogFileName(entry->d_name))
		{
			TimeLineID	tli;
			XLogSegNo	segno;

			XLogFromFileName(entry->d_name, &tli, &segno, wal_segment_size);
			if (segno >= before)
				continue;
			if (segment_fd >= 0 && segment_no == segno && segment_tli == tli)
				close_fd(&segment_fd);
		}
		else if (!IsTLHistoryFileName(entry->d_name) || before != UINT64_MAX)
			continue;

		snprintf(path, sizeof(path), MULTISITE_DIR "/%s", entry->d_name);
		if (unlink(path) != 0)
			ereport(WARNING,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", path)));
	}
	FreeDir(dir);
}

/* Removes what staging_release() has copied, and files of left timelines. */
static void
remove_released(void)
{
	XLogSegNo	first;

	XLByteToSeg(state.released_lsn, first, wal_segment_size);
	remove_staged_before(first);
}

void
staging_finish_intent(void)
{
	XLogRecPtr	from = state.released_lsn;
	XLogRecPtr	upto = state.intent_lsn;
	XLogSegNo	first,
				last;
	bool		continues;		/* does R's own segment file go on? */

	if (state.intent_point == 0)
		return;

	if (upto > from)
	{
		XLByteToSeg(from, first, wal_segment_size);
		XLByteToPrevSeg(upto, last, wal_segment_size);
		continues = XLogSegmentOffset(from, wal_segment_size) != 0 &&
			timeline_of_segment(first, upto) == state.released_timeline;

		for (XLogSegNo segno = last; segno > first; segno--)
			place_segment(segno, upto);
		if (!continues && XLogSegmentOffset(from, wal_segment_size) != 0)
			place_segment(first, upto);
		place_histories();
		if (continues)
			connect_tail(from, upto);
		else if (XLogSegmentOffset(from, wal_segment_size) == 0)
			place_segment(first, upto);
	}

	state.released_timeline = state.intent_timeline;
	state.released_lsn = upto;
	state.released_point = state.intent_point;
	state.intent_timeline = 0;
	state.intent_lsn = 0;
	state.intent_point = 0;

	/* timelines that began before the released one are history */
	{
		int			kept = 0;

		for (int i = 0; i < state.nswitches; i++)
		{
			if (state.switches[i].begin >= upto)
				state.switches[kept++] = state.switches[i];
		}
		state.nswitches = kept;
	}
	staging_save();
	WakeupRecovery();
	remove_released();
}

TimeLineID
staging_timeline_at(XLogRecPtr lsn)
{
	return decide_timeline_at(state.released_timeline, state.switches, state.nswitches, lsn);
}

void
staging_release(uint64 point, XLogRecPtr lsn)
{
	if (lsn < state.released_lsn || lsn > state.staged_lsn)
		elog(ERROR, "cannot release %X/%X: %X/%X is released, and %X/%X staged",
			 LSN_FORMAT_ARGS(lsn), LSN_FORMAT_ARGS(state.released_lsn), LSN_FORMAT_ARGS(state.staged_lsn));
	state.intent_timeline = staging_timeline_at(lsn);
	state.intent_lsn = lsn;
	state.intent_point = point;
	staging_save();
	staging_finish_intent();
}

void
staging_discard(void)
{
	remove_staged_before(UINT64_MAX);
}
