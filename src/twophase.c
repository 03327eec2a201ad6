/*-------------------------------------------------------------------------
 *
 * twophase.c
 *	  What a remote segment knows of transactions that were prepared on it.
 *
 * After a promotion a transaction may be prepared on one segment and finished
 * on another, which then has to know how it ended.  The server itself forgets
 * that with the COMMIT PREPARED, so the receiver notes each PREPARE, COMMIT
 * PREPARED and ROLLBACK PREPARED that it reads in the WAL, in a log.
 *
 * A commit record names the transaction by its xid alone (but for wal_level =
 * logical); its gid is in the record of the PREPARE.  Those that are not
 * finished yet are therefore kept in memory, too, by their xid.
 *
 * The log runs ahead of what is released: entries are written as WAL is
 * checked, made durable just before a release, and those of WAL that was not
 * released are cut off at the next beginning, with what a crash has torn.
 * They come again from the staged WAL, or from another timeline's.
 *
 * A log that has become long is written anew, with the transactions that are
 * not finished, and the newer half of the others.
 *
 * It lies in pg_wal, so that a base backup does not carry it along.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/rmgr.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "history.h"
#include "shared_state.h"
#include "twophase.h"

PG_FUNCTION_INFO_V1(multisite_prepared_outcomes);

#define LOG_FILE		MULTISITE_DIR "/twophase"
#define LOG_TEMP		MULTISITE_DIR "/twophase.tmp"
#define STATE_FILES		"pg_twophase"
#define BUFFER_SIZE		(256 * 1024)
#define LOG_SIZE_MAX	(32 * 1024 * 1024)	/* from here on it is shortened */

/* A transaction that is prepared and not finished. */
typedef struct Unfinished
{
	TransactionId xid;			/* hash key */
	char		gid[TWOPHASE_GID_SIZE];
} Unfinished;

static MemoryContext log_context;
static int	log_fd = -1;
static off_t log_size;			/* of the file */
static off_t shortened_size;	/* the same, when it was shortened last */
static StringInfoData buffer;	/* behind log_size, not written yet */
static bool unsynced;			/* written, not synced */
static HTAB *unfinished;

/* ------------------------------------------------------------------------
 * The file
 * ------------------------------------------------------------------------
 */

static void
file_error(const char *action, const char *path)
{
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", action, path)));
}

/* The whole file, palloc'd; NULL if there is none. */
static char *
read_file(const char *path, size_t *len)
{
	int			fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	struct stat st;
	char	   *data;
	size_t		done = 0;

	if (fd < 0)
	{
		if (errno == ENOENT)
			return NULL;
		file_error("open", path);
	}
	if (fstat(fd, &st) != 0)
		file_error("stat", path);
	data = MemoryContextAllocHuge(CurrentMemoryContext, st.st_size + 1);
	while (done < (size_t) st.st_size)
	{
		ssize_t		got = read(fd, data + done, Min(st.st_size - done, 16 * 1024 * 1024));

		if (got < 0 && errno != EINTR)
			file_error("read", path);
		if (got == 0)
			break;				/* it was cut meanwhile */
		if (got > 0)
			done += got;
	}
	CloseTransientFile(fd);
	*len = done;
	return data;
}

static void
write_all(int fd, const char *path, const char *data, size_t len)
{
	while (len > 0)
	{
		ssize_t		written;

		errno = 0;
		written = write(fd, data, Min(len, 16 * 1024 * 1024));
		if (written <= 0)
		{
			if (errno == EINTR)
				continue;
			if (errno == 0)
				errno = ENOSPC;
			file_error("write", path);
		}
		data += written;
		len -= written;
	}
}

/* Makes a file of this content the log, atomically. */
static void
replace_log(const char *data, size_t len)
{
	int			fd = OpenTransientFile(LOG_TEMP, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);

	if (fd < 0)
		file_error("create", LOG_TEMP);
	write_all(fd, LOG_TEMP, data, len);
	CloseTransientFile(fd);
	(void) durable_rename(LOG_TEMP, LOG_FILE, ERROR);
}

static void
open_log(void)
{
	struct stat st;

	twophase_close();
	log_fd = BasicOpenFile(LOG_FILE, O_RDWR | O_APPEND | PG_BINARY);
	if (log_fd < 0)
		file_error("open", LOG_FILE);
	if (fstat(log_fd, &st) != 0)
		file_error("stat", LOG_FILE);
	log_size = st.st_size;
}

void
twophase_close(void)
{
	if (log_fd >= 0)
		close(log_fd);
	log_fd = -1;
}

static HTAB *
make_table(const char *name, MemoryContext context)
{
	HASHCTL		ctl = {
		.keysize = sizeof(TransactionId),
		.entrysize = sizeof(Unfinished),
		.hcxt = context
	};

	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* What an entry says of the transactions that are not finished. */
static void
apply_entry(HTAB *table, const TwophaseEntry *entry)
{
	Unfinished *u;

	switch (entry->kind)
	{
		case TWOPHASE_PREPARED:
			u = hash_search(table, &entry->xid, HASH_ENTER, NULL);
			strlcpy(u->gid, entry->gid, TWOPHASE_GID_SIZE);
			break;
		case TWOPHASE_COMMITTED:
		case TWOPHASE_ROLLED_BACK:
			(void) hash_search(table, &entry->xid, HASH_REMOVE, NULL);
			break;
		case TWOPHASE_PROMOTED:
			break;
	}
}

/* ------------------------------------------------------------------------
 * Writing, by the receiver
 * ------------------------------------------------------------------------
 */

static void
flush_buffer(void)
{
	if (buffer.len == 0)
		return;
	write_all(log_fd, LOG_FILE, buffer.data, buffer.len);
	log_size += buffer.len;
	unsynced = true;
	resetStringInfo(&buffer);
}

static void
add_entry(const TwophaseEntry *entry)
{
	char		bytes[TWOPHASE_ENTRY_MAX];

	appendBinaryStringInfo(&buffer, bytes, twophase_encode(entry, bytes));
	apply_entry(unfinished, entry);
	if (buffer.len >= BUFFER_SIZE)
		flush_buffer();
}

/* Forgets what this process had in memory. */
static void
reset_memory(void)
{
	MemoryContext old;

	if (log_context == NULL)
		log_context = AllocSetContextCreate(TopMemoryContext, "multisite two-phase log",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(log_context);
	old = MemoryContextSwitchTo(log_context);
	initStringInfo(&buffer);
	MemoryContextSwitchTo(old);
	unfinished = make_table("multisite unfinished", log_context);
	unsynced = false;
	shortened_size = 0;
}

/*
 * A PREPARE's record, and its state file, begin with this header; the gid
 * follows.  The entry's LSN is left to the caller.
 */
static bool
parse_prepare(const char *data, size_t len, TwophaseEntry *entry)
{
	size_t		at;
	size_t		gidlen;

	if (!prepare_header_compat(data, len, &entry->xid, &entry->time, &at, &gidlen))
		return false;
	if (gidlen < 2 || gidlen > TWOPHASE_GID_SIZE || len - at < gidlen)
		return false;
	entry->kind = TWOPHASE_PREPARED;
	memcpy(entry->gid, data + at, gidlen);
	entry->gid[gidlen - 1] = '\0';
	return entry->gid[0] != '\0';
}

/*
 * Transactions that were prepared before the base backup began.  Their PREPARE
 * is not in its WAL, but their state files are there.
 */
static void
add_state_files(void)
{
	DIR		   *dir = AllocateDir(STATE_FILES);
	struct dirent *de;

	while ((de = ReadDir(dir, STATE_FILES)) != NULL)
	{
		char		path[MAXPGPATH * 2];
		char	   *data;
		size_t		len;
		TwophaseEntry entry = {0};
		pg_crc32c	crc,
					expected;

		size_t		digits = strspn(de->d_name, "0123456789ABCDEF");

		/* 17 put the xid's epoch in front */
		if (de->d_name[digits] != '\0' || (digits != 8 && digits != 16))
			continue;
		snprintf(path, sizeof(path), STATE_FILES "/%s", de->d_name);
		data = read_file(path, &len);
		if (data == NULL)
			continue;			/* recovery has just finished it */
		if (len > sizeof(crc))
		{
			INIT_CRC32C(crc);
			COMP_CRC32C(crc, data, len - sizeof(crc));
			FIN_CRC32C(crc);
			memcpy(&expected, data + len - sizeof(crc), sizeof(crc));
			if (EQ_CRC32C(crc, expected) && parse_prepare(data, len - sizeof(crc), &entry))
				add_entry(&entry);
		}
		pfree(data);
	}
	FreeDir(dir);
}

void
twophase_create(void)
{
	char		header[TWOPHASE_HEADER_SIZE];

	twophase_encode_header(header);
	replace_log(header, sizeof(header));
	open_log();
	reset_memory();
	add_state_files();
}

void
twophase_begin(XLogRecPtr released)
{
	char	   *data;
	size_t		len;
	size_t		good = TWOPHASE_HEADER_SIZE;
	size_t		size;
	TwophaseEntry entry;

	(void) unlink(LOG_TEMP);
	data = read_file(LOG_FILE, &len);
	if (data == NULL || !twophase_check_header(data, len))
	{
		/* a version that had none staged here, or it is broken: begin anew */
		if (data)
			ereport(LOG,
					(errmsg("file \"%s\" is not a log of prepared transactions, and is made anew", LOG_FILE)));
		twophase_create();
		return;
	}
	reset_memory();
	while ((size = twophase_decode(data + good, len - good, &entry)) > 0 && entry.lsn <= released)
	{
		apply_entry(unfinished, &entry);
		good += size;
	}
	pfree(data);
	open_log();
	if ((size_t) log_size > good)
	{
		if (ftruncate(log_fd, good) != 0)
			file_error("truncate", LOG_FILE);
		log_size = good;
		unsynced = true;
	}
}

void
twophase_see(void *arg, XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record);
	char	   *data = XLogRecGetData(record);
	size_t		len = XLogRecGetDataLen(record);
	TwophaseEntry entry = {0};
	Unfinished *u;

	switch (info & XLOG_XACT_OPMASK)
	{
		case XLOG_XACT_PREPARE:
			/* the state file may have told already */
			if (!parse_prepare(data, len, &entry) ||
				hash_search(unfinished, &entry.xid, HASH_FIND, NULL) != NULL)
				return;
			break;
		case XLOG_XACT_COMMIT_PREPARED:
			{
				xl_xact_parsed_commit parsed;

				ParseCommitRecord(info, (xl_xact_commit *) data, &parsed);
				entry.kind = TWOPHASE_COMMITTED;
				entry.xid = parsed.twophase_xid;
				entry.time = parsed.xact_time;
				strlcpy(entry.gid, parsed.twophase_gid, TWOPHASE_GID_SIZE);
				break;
			}
		case XLOG_XACT_ABORT_PREPARED:
			{
				xl_xact_parsed_abort parsed;

				ParseAbortRecord(info, (xl_xact_abort *) data, &parsed);
				entry.kind = TWOPHASE_ROLLED_BACK;
				entry.xid = parsed.twophase_xid;
				entry.time = parsed.xact_time;
				strlcpy(entry.gid, parsed.twophase_gid, TWOPHASE_GID_SIZE);
				break;
			}
		default:
			return;
	}
	if (entry.kind != TWOPHASE_PREPARED)
	{
		u = hash_search(unfinished, &entry.xid, HASH_FIND, NULL);
		if (u)
			strlcpy(entry.gid, u->gid, TWOPHASE_GID_SIZE);
		if (entry.gid[0] == '\0')
			return;				/* prepared before all that we know */
	}
	entry.lsn = record->EndRecPtr;
	add_entry(&entry);
}

/*
 * Shortens the log.  What was prepared and is not finished at released stays,
 * and so does all that is behind released, where we may have to begin again.
 */
static void
shorten(XLogRecPtr released)
{
	size_t		len;
	char	   *data = read_file(LOG_FILE, &len);
	HTAB	   *table = make_table("multisite unfinished at release", CurrentMemoryContext);
	StringInfoData kept;
	TwophaseEntry entry;
	size_t		size;
	char		header[TWOPHASE_HEADER_SIZE];

	if (data == NULL)
		file_error("open", LOG_FILE);
	for (size_t at = TWOPHASE_HEADER_SIZE;
		 (size = twophase_decode(data + at, len - at, &entry)) > 0 && entry.lsn <= released;
		 at += size)
		apply_entry(table, &entry);

	initStringInfo(&kept);
	twophase_encode_header(header);
	appendBinaryStringInfo(&kept, header, sizeof(header));
	for (size_t at = TWOPHASE_HEADER_SIZE;
		 (size = twophase_decode(data + at, len - at, &entry)) > 0;
		 at += size)
	{
		if (entry.lsn > released ||
			(entry.kind == TWOPHASE_PREPARED ?
			 hash_search(table, &entry.xid, HASH_FIND, NULL) != NULL :
			 at > len / 2))
			appendBinaryStringInfo(&kept, data + at, size);
	}
	replace_log(kept.data, kept.len);
	open_log();
	shortened_size = log_size;
	hash_destroy(table);
	pfree(kept.data);
	pfree(data);
}

void
twophase_sync(XLogRecPtr released)
{
	flush_buffer();
	if (log_size > LOG_SIZE_MAX && log_size > 2 * shortened_size)
		shorten(released);
	else if (unsynced && pg_fsync(log_fd) != 0)
		ereport(data_sync_elevel(ERROR),
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m", LOG_FILE)));
	unsynced = false;
}

void
twophase_promoted(XLogRecPtr released, const char *point, uint32 nsegments)
{
	TwophaseEntry entry = {.kind = TWOPHASE_PROMOTED,.xid = nsegments,.lsn = released,.time = GetCurrentTimestamp()};
	char		known[TWOPHASE_GID_SIZE];
	uint32		n;

	twophase_begin(released);
	if (!twophase_promotion(known, &n))
	{
		strlcpy(entry.gid, point, TWOPHASE_GID_SIZE);
		add_entry(&entry);
	}
	twophase_sync(released);
}

/* ------------------------------------------------------------------------
 * Reading, by sessions
 * ------------------------------------------------------------------------
 */

bool
twophase_promotion(char *point, uint32 *nsegments)
{
	size_t		len;
	char	   *data = read_file(LOG_FILE, &len);
	bool		found = false;
	TwophaseEntry entry;
	size_t		size;

	if (data == NULL)
		return false;
	for (size_t at = TWOPHASE_HEADER_SIZE;
		 twophase_check_header(data, len) && (size = twophase_decode(data + at, len - at, &entry)) > 0;
		 at += size)
	{
		if (entry.kind != TWOPHASE_PROMOTED)
			continue;
		found = true;
		strlcpy(point, entry.gid, TWOPHASE_GID_SIZE);
		*nsegments = entry.xid;
	}
	pfree(data);
	return found;
}

typedef struct Outcome
{
	char		gid[TWOPHASE_GID_SIZE]; /* hash key */
	int32		outcomes;
	TwophaseEntry last;
} Outcome;

/*
 * multisite.prepared_outcomes(point text, gids text[])
 *
 * How transactions of these gids have ended on this segment up to the point
 * of its promotion: the last outcome of each gid, and how many there were.  A
 * gid without one is left out.
 */
Datum
multisite_prepared_outcomes(PG_FUNCTION_ARGS)
{
	char	   *point = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HASHCTL		ctl = {
		.keysize = TWOPHASE_GID_SIZE,
		.entrysize = sizeof(Outcome),
		.hcxt = CurrentMemoryContext
	};
	HTAB	   *table;
	HASH_SEQ_STATUS seq;
	Outcome    *o;
	Datum	   *gids;
	bool	   *nulls;
	int			ngids;
	char	   *data;
	size_t		len;
	size_t		size;
	TwophaseEntry entry;
	char		promoted_at[TWOPHASE_GID_SIZE];
	uint32		nsegments;

	InitMaterializedSRF_compat(fcinfo);
	if (RecoveryInProgress() || !twophase_promotion(promoted_at, &nsegments))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server was not promoted at a consistency point"),
				 errdetail("It has no log of the prepared transactions that ended before its promotion.")));
	if (strcmp(point, promoted_at) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server was promoted at consistency point \"%s\", not at \"%s\"",
						promoted_at, point)));

	table = hash_create("multisite outcomes", 64, &ctl, HASH_ELEM | HASH_STRINGS_COMPAT | HASH_CONTEXT);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT,
					  &gids, &nulls, &ngids);
	for (int i = 0; i < ngids; i++)
	{
		char	   *gid = nulls[i] ? NULL : TextDatumGetCString(gids[i]);

		if (gid && strlen(gid) < TWOPHASE_GID_SIZE)
		{
			o = hash_search(table, gid, HASH_ENTER, NULL);
			o->outcomes = 0;
		}
	}

	data = read_file(LOG_FILE, &len);
	for (size_t at = TWOPHASE_HEADER_SIZE;
		 data && (size = twophase_decode(data + at, len - at, &entry)) > 0;
		 at += size)
	{
		CHECK_FOR_INTERRUPTS();
		if (entry.kind != TWOPHASE_COMMITTED && entry.kind != TWOPHASE_ROLLED_BACK)
			continue;
		o = hash_search(table, entry.gid, HASH_FIND, NULL);
		if (o == NULL)
			continue;
		o->outcomes++;
		o->last = entry;
	}

	hash_seq_init(&seq, table);
	while ((o = hash_seq_search(&seq)) != NULL)
	{
		Datum		values[4];
		bool		isnull[4] = {0};

		if (o->outcomes == 0)
			continue;
		values[0] = CStringGetTextDatum(o->gid);
		values[1] = CStringGetTextDatum(o->last.kind == TWOPHASE_COMMITTED ? "committed" : "rolled back");
		values[2] = TimestampTzGetDatum(o->last.time);
		values[3] = Int32GetDatum(o->outcomes);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
	}
	return (Datum) 0;
}
