/*-------------------------------------------------------------------------
 *
 * receiver.c
 *	  The worker that stages and releases WAL on a remote segment.
 *
 * It reads three topics: the segment's pipe, the source's points, and the
 * release decisions of its own site's orchestrator.  What it has read is
 * staged (staging.c), checked to be valid WAL (walcheck.c), and, once the
 * orchestrator says so, handed to recovery.  What it has is told to the
 * orchestrator by the status topic.
 *
 * In each round of its loop it takes the messages there are, makes them
 * durable, and only then acts on them and reports them; WAL that no known
 * point waits for is gathered for a moment before that, since each sync costs
 * the disk a journal entry or two.  Everything that it must remember is in the
 * state file; a message that is read twice is recognized by its LSN, its
 * point's id or its decision's number.
 *
 * It works by shared memory, files and Kafka alone, so that it runs on a
 * standby without hot_standby, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "decide.h"
#include "history.h"
#include "kafka.h"
#include "messages.h"
#include "receiver.h"
#include "settings.h"
#include "staging.h"
#include "twophase.h"
#include "walcheck.h"
#include "worker.h"

#define SYNC_BYTES			(64 * 1024 * 1024)	/* and a message, at most, between syncs */
#define GATHER_MS			200		/* see may_gather() */
#define STATUS_MS			200		/* between two with nothing but a new LSN */
#define AWAITED_MS			1000	/* commits may wait again */
#define HOLD_MESSAGES		32		/* so many, so small, in so much time */
#define HOLD_MESSAGE_BYTES	(64 * 1024)
#define HOLD_MS				500
#define GATHER_BYTES		(256 * 1024)	/* so little waits for all that time */
#define TURN_MESSAGES		1000	/* and so many: a manifest costs a sync of its own */
#define TURN_BYTES			(8 * 1024 * 1024)	/* of WAL, between two looks at the rest */
/* the newest points are all that the history keeps; a few come twice */
#define POINTS_WINDOW		(HISTORY_SIZE + 256)
#define RATE_MS				500
#define APPLY_CHECK_MS		20	/* recovery tells nobody how far it is */
#define RECOVERY_CHECK_MS	100
#define HEARTBEAT_MS		10000
#define TOPIC_CHECK_MS		1000
#define PIPE_RETRY_MS		30000
#define PROBATION_MS		5000	/* an attempt behind one that has failed */

/* The topics; the first two as kafka_assign() numbers them. */
enum
{
	FROM_POINTS,
	FROM_RELEASE,
	FROM_PIPE,					/* read by a consumer of its own */
	NUM_TOPICS
};

/* A restore point that the WAL behind released_lsn holds. */
typedef struct SeenPoint
{
	char		name[MAXFNAMELEN];
	TimestampTz time;
	XLogRecPtr	end;
} SeenPoint;

static KafkaHandle *consumer;	/* of points and decisions */
static KafkaHandle *pipe_consumer;	/* a backlog in it holds up nothing else */
static KafkaHandle *finder;		/* looks up single messages at the first start */
static KafkaHandle *producer;
static char *topics[NUM_TOPICS];
static char *status_topic;
static char *fingerprint;

static WalCheck *check;
static TimeLineID checked_timeline;	/* as of which it began */
static XLogRecPtr valid_end;	/* staged, durable and valid up to here */
static SeenPoint *seen;
static int	nseen;
static int	max_seen;

static uint64 staged_point;		/* newest point staged and valid */
static uint64 applied_point;
static XLogRecPtr applied_lsn;
static WireRelease decision;	/* the newest one read */
static uint64 base_point;		/* newest point before the base backup's end */
static bool state_dirty;		/* an offset moved */
static bool awaited;			/* commits wait until we say what we have staged */
static TimestampTz awaited_at;	/* when some last did */
static bool more_waits;			/* the last turn ended before the pipe did */
static TimestampTz gathers_since;	/* what is staged waits to be synced; else 0 */
static bool holds;				/* Kafka is not asked for more meanwhile */
static TimestampTz pipe_stopped_at;	/* the pipe cannot be followed; else 0 */
static bool pipe_works;			/* this attempt has taken something from it */
static bool pipe_searched;		/* this attempt has looked for its place */
static int64 pipe_expected;		/* take nothing before this offset; -1: take all */

/* see may_leave_timeline() */
static bool withdraws;
static uint64 withdrawal;		/* its number, as a tag of status messages */
static int64 withdrawn_at;		/* where the orchestrator can read it; -1: not yet sent */
static uint64 withdrawn_behind; /* the newest decision then */
static bool leave_given;

static WireStatus reported;
static TimestampTz reported_at;

/* how fast recovery replays */
static XLogRecPtr rate_lsn;
static TimestampTz rate_since;
static uint64 replay_rate;
static bool rate_known;			/* since recovery had nothing to do */

/* ------------------------------------------------------------------------
 * What a standby must be
 * ------------------------------------------------------------------------
 */

static void
refuse_setting(const char *name, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("\"%s\" is set on a standby that follows site \"%s\" through Kafka",
					name, multisite_source_site),
			 errdetail("%s", why),
			 errhint("Remove %s from postgresql.conf and postgresql.auto.conf (pg_basebackup -R writes it there), and reload.",
					 name)));
}

/*
 * A remote segment must have no other way to WAL than through us, and must
 * not stop on its own: either would leave it at a state that is no point.
 */
static void
check_standby_settings(void)
{
	static const char *const targets[] = {
		"recovery_target", "recovery_target_lsn", "recovery_target_name",
		"recovery_target_time", "recovery_target_xid"
	};

	if (PrimaryConnInfo && PrimaryConnInfo[0])
		refuse_setting("primary_conninfo",
					   "It would stream from another server, past the last consistency point.");
	if (recoveryRestoreCommand && recoveryRestoreCommand[0])
		refuse_setting("restore_command",
					   "It would fetch WAL past the last consistency point.");
	for (size_t i = 0; i < lengthof(targets); i++)
	{
		const char *value = GetConfigOption(targets[i], true, false);

		if (value && value[0])
			refuse_setting(targets[i], "Recovery would end at that target.");
	}
	if (strcmp(GetConfigOption("recovery_target_timeline", false, false), "latest") != 0)
		refuse_setting("recovery_target_timeline",
					   "It must be \"latest\", so that the standby follows a failover at the source.");
}

/* ------------------------------------------------------------------------
 * The first start: where a base backup's WAL ends
 * ------------------------------------------------------------------------
 */

/* The timelines by which recovery would look for a segment, newest first. */
typedef struct LocalWal
{
	List	   *history;
	TimeLineID	timeline;		/* of the file read last */
	int			fd;
	XLogSegNo	segno;
} LocalWal;

static bool
local_read(void *arg, XLogRecPtr lsn, char *buf, int len)
{
	LocalWal   *local = arg;
	XLogSegNo	segno;

	XLByteToSeg(lsn, segno, wal_segment_size);
	if (local->fd < 0 || segno != local->segno)
	{
		ListCell   *lc;

		if (local->fd >= 0)
			close(local->fd);
		local->fd = -1;
		foreach(lc, local->history)
		{
			TimeLineHistoryEntry *entry = lfirst(lc);
			char		path[MAXPGPATH];
			XLogSegNo	begin = 0;

			if (!XLogRecPtrIsInvalid(entry->begin))
				XLByteToSeg(entry->begin, begin, wal_segment_size);
			if (segno < begin)
				continue;
			XLogFilePath(path, entry->tli, segno, wal_segment_size);
			local->fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
			if (local->fd >= 0)
			{
				local->segno = segno;
				local->timeline = entry->tli;
				break;
			}
		}
	}
	return local->fd >= 0 &&
		pg_pread(local->fd, buf, len, XLogSegmentOffset(lsn, wal_segment_size)) == len;
}

/*
 * Zeroes what follows the end of the last whole record in its segment, a part
 * of a record, say.  Recovery cannot use it, and a release must find nothing
 * there.
 */
static void
clear_tail(TimeLineID tli, XLogRecPtr end)
{
	char		path[MAXPGPATH];
	XLogSegNo	segno;
	int			fd;
	bool		dirty = false;
	static const PGAlignedXLogBlock zeroes;

	if (XLogSegmentOffset(end, wal_segment_size) == 0)
		return;
	XLByteToSeg(end, segno, wal_segment_size);
	XLogFilePath(path, tli, segno, wal_segment_size);
	fd = OpenTransientFile(path, O_RDWR | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path)));
	for (uint32 at = XLogSegmentOffset(end, wal_segment_size); at < (uint32) wal_segment_size;)
	{
		uint32		part = XLOG_BLCKSZ - at % XLOG_BLCKSZ;
		PGAlignedXLogBlock page;

		if (pg_pread(fd, page.data, part, at) != part)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", path)));
		if (memcmp(page.data, zeroes.data, part) != 0)
		{
			if (pg_pwrite(fd, zeroes.data, part, at) != part)
				ereport(ERROR,
						(errcode_for_file_access(),
						 errmsg("could not write file \"%s\": %m", path)));
			dirty = true;
		}
		at += part;
	}
	if (dirty && pg_fsync(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m", path)));
	CloseTransientFile(fd);
}

static void
wait_for_recovery(void)
{
	worker_set_state(WORKER_STARTING, "waits for recovery to begin");
	while (XLogRecPtrIsInvalid(replay_position_compat(NULL)))
		worker_wait(0, NULL, RECOVERY_CHECK_MS);
}

/*
 * Recovery reads pg_wal up to the end of the last valid record.  We find the
 * same place by the same means.  *tli is the timeline at start, and then there.
 */
static XLogRecPtr
local_wal_end(XLogRecPtr start, TimeLineID *tli)
{
	LocalWal	local = {.fd = -1};
	WalCheck   *scan;
	XLogRecPtr	end;
	char	   *problem;

	local.history = readTimeLineHistory(findNewestTimeLine(*tli));
	local.timeline = *tli;
	scan = walcheck_begin(start, local_read, NULL, NULL, &local);
	end = walcheck_advance(scan, PG_UINT64_MAX, &problem);
	walcheck_end(scan);
	if (local.fd >= 0)
		close(local.fd);
	if (end != start)
		*tli = local.timeline;
	return end;
}

static void
find_base(StagingState *initial)
{
	XLogRecPtr	start = replay_position_compat(&initial->base_timeline);

	worker_set_state(WORKER_STARTING, "looks for the end of the base backup's WAL");
	initial->base_lsn = local_wal_end(start, &initial->base_timeline);
	clear_tail(initial->base_timeline, initial->base_lsn);
}

/*
 * Has this server WAL behind what was released to it, in pg_wal or replayed
 * already?  Not from us: primary_conninfo, say, was set for a while.  *end
 * gets where that WAL ends.
 */
static bool
has_foreign_wal(XLogRecPtr *end)
{
	TimeLineID	tli = staging->released_timeline;

	*end = replay_position_compat(NULL);
	if (*end <= staging->released_lsn)
		*end = local_wal_end(staging->released_lsn, &tli);
	return *end > staging->released_lsn;
}

/*
 * Begins the log of prepared transactions with what the base backup has of
 * them: the state files of those that are older than recovery's redo point,
 * and the WAL from there on, as far as it is there.
 */
static void
find_prepared(XLogRecPtr upto)
{
	LocalWal	local = {.fd = -1};
	XLogRecPtr	redo;
	TimeLineID	tli;
	WalCheck   *scan;
	char	   *problem;

	GetOldestRestartPoint(&redo, &tli);
	(void) replay_position_compat(&tli);
	local.history = readTimeLineHistory(findNewestTimeLine(tli));
	twophase_create();
	scan = walcheck_begin(redo, local_read, NULL, twophase_see, &local);
	(void) walcheck_advance(scan, upto, &problem);
	walcheck_end(scan);
	if (local.fd >= 0)
		close(local.fd);
	twophase_sync(upto);
}

static int64
message_timestamp(const KafkaMessage *message)
{
	if (message->timestamp <= 0)
		return GetCurrentTimestamp();
	return (message->timestamp - ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * INT64CONST(1000))) * 1000;
}

static void
unexpected_message(const WireHeader *header, const KafkaMessage *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("unexpected message in Kafka topic \"%s\"", topics[message->topic]),
			 errdetail("The message at offset %lld is a %s message.",
					   (long long) message->offset, wire_kind_name(header->kind))));
}

static WireHeader
read_pipe(void *arg, int64 offset)
{
	static int64 last;
	KafkaMessage message;
	WireHeader	header;

	if (finder == NULL)
	{
		finder = kafka_open_consumer(CONSUMER_LOOKS_UP, NULL);
		last = -1;
	}
	if (last >= 0 && offset == last + 1)
		kafka_read_next(finder, offset, &message);
	else
		kafka_read_at(finder, topics[FROM_PIPE], offset, &message);
	last = offset;
	message_check(message_decode(&message, &header), topics[FROM_PIPE], &message);
	return header;
}

/*
 * Where to read on for what follows an LSN.  *epoch gets the claim that holds
 * there.
 */
static int64
find_pipe_offset(TimeLineID timeline, XLogRecPtr lsn, uint32 *epoch)
{
	int64		low,
				high;
	int64		offset;

	worker_set_state(WORKER_POSITIONING, "looks for %X/%X in topic %s",
					 LSN_FORMAT_ARGS(lsn), topics[FROM_PIPE]);
	kafka_watermarks(pipe_consumer, topics[FROM_PIPE], &low, &high);
	offset = decide_find_start(low, high, PIPE_WINDOW, read_pipe, NULL,
							   GetSystemIdentifier(), timeline, lsn, epoch);
	kafka_close(finder);
	finder = NULL;
	return offset;
}

/*
 * Has the pipe a message of the newest claim that we have seen?  A topic that
 * was deleted and made anew counts its claims from the beginning, and all of
 * its messages would pass for those of a publisher that has lost its claim.
 */
static bool
pipe_has_our_claim(int64 low, int64 high)
{
	bool		found = false;
	int64		last = high - 1;

	finder = kafka_open_consumer(CONSUMER_LOOKS_UP, NULL);
	/* the last message tells, unless it is such a publisher's */
	for (int64 at = last; low < high && !found; at = low + (high - low) / 2)
	{
		KafkaMessage message;
		WireHeader	header;

		kafka_read_at(finder, topics[FROM_PIPE], at, &message);
		message_check(message_decode(&message, &header), topics[FROM_PIPE], &message);
		found = header.epoch >= staging->epoch;
		if (at == last)
			high = last;
		else
			low = at + 1;
	}
	kafka_close(finder);
	finder = NULL;
	return found;
}

/*
 * Where a segment begins to read points that has none yet: at those that its
 * history can hold.  *passed gets the newest one before them, since they
 * cannot be released here, whatever is staged.
 */
static int64
find_points_offset(uint64 *passed)
{
	int64		low,
				high;
	int64		offset;
	KafkaMessage message;
	WireManifest manifest;

	*passed = 0;
	kafka_watermarks(consumer, topics[FROM_POINTS], &low, &high);
	if (high - low <= POINTS_WINDOW)
		return low;
	offset = high - POINTS_WINDOW;
	finder = kafka_open_consumer(CONSUMER_LOOKS_UP, NULL);
	kafka_read_at(finder, topics[FROM_POINTS], offset, &message);
	(void) message_manifest(topics[FROM_POINTS], &message, &manifest);
	*passed = manifest.id - 1;
	kafka_close(finder);
	finder = NULL;
	return offset;
}

static void
load_points(void)
{
	history_load();
	base_point = history_newest_passed(PASSED_BACKUP);
}

/* This server will never be at this point.  state gets it, too. */
static void
pass_point(StagingState *state, PointRecord *point, PassedWhy why)
{
	point->passed = why;
	history_put(point, true);
	state->passed_point = Max(state->passed_point, point->id);
	if (why == PASSED_BACKUP)
		base_point = Max(base_point, point->id);
}

/* Points from before a base that was found anew cannot be released any more. */
static void
pass_points_before_base(StagingState *initial)
{
	PointRecord *points;
	int			n = history_after(0, &points);

	for (int i = 0; i < n; i++)
	{
		if (points[i].lsn < initial->base_lsn)
			pass_point(initial, &points[i], PASSED_BACKUP);
	}
	pfree(points);
}

static void
create_staging(void)
{
	StagingState initial;
	int64		high;

	memset(&initial, 0, sizeof(initial));
	initial.system_id = GetSystemIdentifier();
	initial.segment = multisite_segment_id;
	initial.wal_segment_size = wal_segment_size;
	strlcpy(initial.cluster, multisite_cluster_name, NAMEDATALEN);
	strlcpy(initial.source_site, multisite_source_site, NAMEDATALEN);
	find_base(&initial);
	initial.timeline = initial.released_timeline = initial.base_timeline;
	initial.staged_lsn = initial.released_lsn = initial.base_lsn;
	initial.pipe_offset = find_pipe_offset(initial.base_timeline, initial.base_lsn, &initial.epoch);
	initial.points_offset = find_points_offset(&initial.passed_point);

	/*
	 * Decisions made so far were about what stood here before, a promotion
	 * perhaps: no point is released without what this segment has staged.
	 */
	kafka_watermarks(consumer, topics[FROM_RELEASE], &initial.release_offset, &high);
	initial.release_offset = initial.release_base = high;
	find_prepared(initial.base_lsn);
	/* first: once there is a state, nothing would do that */
	pass_points_before_base(&initial);
	staging_create(&initial);
	ereport(LOG,
			(errmsg("multisite receiver begins at %X/%X on timeline %u",
					LSN_FORMAT_ARGS(initial.base_lsn), initial.base_timeline),
			 errdetail("That is the end of the base backup's WAL. The remote is not yet consistent until its first consistency point is applied.")));
}

static void
check_state(void)
{
	const char *what = NULL;

	if (staging->system_id != GetSystemIdentifier())
		what = "system identifier";
	else if (staging->segment != multisite_segment_id)
		what = "multisite.segment_id";
	else if (strcmp(staging->cluster, multisite_cluster_name) != 0)
		what = "multisite.cluster_name";
	else if (strcmp(staging->source_site, multisite_source_site) != 0)
		what = "multisite.source_site";
	else if (staging->wal_segment_size != (uint32) wal_segment_size)
		what = "wal_segment_size";
	if (what)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("what this standby has staged belongs to another source"),
				 errdetail("It was staged with another %s: cluster \"%s\", site \"%s\", segment %d.",
						   what, staging->cluster, staging->source_site, staging->segment),
				 errhint("Restore the setting, or take a new base backup.")));
}

/*
 * A server with WAL that we did not release is at no point, and a promotion
 * would end behind that of the decision.  It is as good as a new base backup,
 * though: so it begins anew, and is consistent again with the next point.
 */
static void
leave_if_foreign(void)
{
	XLogRecPtr	end;

	if (WalRcvRunning())
		worker_set_state(WORKER_STARTING, "waits for the walreceiver to end");
	while (WalRcvRunning())
	{
		worker_wait(0, NULL, RECOVERY_CHECK_MS);
		check_standby_settings();
	}
	if (staging->intent_point != 0 || !has_foreign_wal(&end))
		return;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this standby has WAL that multisite_repl did not release, and is at no consistency point"),
			 errdetail("Released was the WAL up to %X/%X, but there is some up to %X/%X, by primary_conninfo or restore_command perhaps. The segment begins anew, as after a base backup.",
					   LSN_FORMAT_ARGS(staging->released_lsn), LSN_FORMAT_ARGS(end)),
			 errhint("It can be promoted again once its next consistency point is applied.")));
	staging_discard();
	staging->system_id = 0;
}

/* ------------------------------------------------------------------------
 * Messages
 * ------------------------------------------------------------------------
 */

static PipePosition
pipe_position(void)
{
	PipePosition position = {
		.system_id = staging->system_id,
		.segment = staging->segment,
		.pg_major = PG_VERSION_NUM / 10000,
		.wal_segment_size = wal_segment_size,
		.epoch = staging->epoch,
		.timeline = staging->timeline,
		.lsn = staging->staged_lsn,
		.released_lsn = staging->released_lsn,
		.next_timeline = staging->next_timeline,
		.switch_lsn = staging->switch_lsn
	};

	return position;
}

static void
refuse_pipe(PipeVerdict verdict, const WireHeader *header, int64 offset)
{
	const char *topic = topics[FROM_PIPE];

	switch (verdict)
	{
		case PIPE_TAKE:
		case PIPE_SWITCH:
		case PIPE_DUPLICATE:
		case PIPE_STALE_CLAIM:
			return;
		case PIPE_WRONG_SEGMENT:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("topic \"%s\" carries the WAL of another segment", topic),
					 errdetail("The message at offset %lld is of segment %d, this is segment %d.",
							   (long long) offset, header->segment, staging->segment),
					 errhint("Check multisite.segment_id of both servers.")));
			break;
		case PIPE_MADE_ANEW:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("topic \"%s\" was made anew", topic),
					 errdetail("The claim at offset %lld has number %u, but number %u was seen before.",
							   (long long) offset, header->epoch, staging->epoch),
					 errhint("Take a new base backup for this segment.")));
			break;
		case PIPE_WRONG_SYSTEM:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("topic \"%s\" carries the WAL of another database system", topic),
					 errdetail("The message at offset %lld is of system %llu, this is a copy of %llu.",
							   (long long) offset, (unsigned long long) header->system_id,
							   (unsigned long long) staging->system_id),
					 errhint("Check multisite.cluster_name and multisite.segment_id, or take a new base backup of the right server.")));
			break;
		case PIPE_WRONG_VERSION:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("topic \"%s\" carries the WAL of another major version", topic),
					 errdetail("The source is PostgreSQL %d, this is PostgreSQL %d.",
							   header->pg_major, PG_VERSION_NUM / 10000)));
			break;
		case PIPE_WRONG_SEGMENT_SIZE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("topic \"%s\" carries WAL of another wal_segment_size", topic),
					 errdetail("The source's is %u bytes, this server's is %d.",
							   header->wal_segment_size, wal_segment_size)));
			break;
		case PIPE_GAP:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("WAL is missing in topic \"%s\"", topic),
					 errdetail("%X/%X on timeline %u is needed next, but the message at offset %lld begins at %X/%X on timeline %u.",
							   LSN_FORMAT_ARGS(staging->staged_lsn), staging->timeline,
							   (long long) offset, LSN_FORMAT_ARGS(header->lsn), header->timeline),
					 errhint("If the base backup is older than the beginning of the topic, take a new one while the publisher runs.")));
			break;
		case PIPE_UNKNOWN_TIMELINE:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("topic \"%s\" goes on with a timeline that does not follow from what is staged", topic),
					 errdetail("Staged is %X/%X on timeline %u; the message at offset %lld has %X/%X on timeline %u.",
							   LSN_FORMAT_ARGS(staging->staged_lsn), staging->timeline,
							   (long long) offset, LSN_FORMAT_ARGS(header->lsn), header->timeline),
					 errhint("Take a new base backup for this segment.")));
			break;
		case PIPE_RELEASED_PAST_FORK:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("the source's new timeline %u began before what is released here", header->timeline),
					 errdetail("It began at %X/%X, but %X/%X is released.",
							   LSN_FORMAT_ARGS(staging->switch_lsn),
							   LSN_FORMAT_ARGS(staging->released_lsn)),
					 errhint("Take a new base backup for this segment.")));
			break;
	}
}

/* A repeated range must repeat its bytes, as far as we still have them. */
static void
compare_staged(const WireHeader *header, const char *body, uint32 len)
{
	XLogRecPtr	from = Max(header->lsn, staging->released_lsn);
	XLogRecPtr	to = Min(header->lsn + len, staging->staged_lsn);
	PGAlignedXLogBlock page;

	if (header->timeline != staging->timeline)
		return;
	while (from < to)
	{
		int			part = Min(to - from, XLOG_BLCKSZ - from % XLOG_BLCKSZ);

		if (staging_read(NULL, from, page.data, part) &&
			memcmp(page.data, body + (from - header->lsn), part) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("topic \"%s\" has two versions of the same WAL", topics[FROM_PIPE]),
					 errdetail("What came again for %X/%X differs from what is staged.",
							   LSN_FORMAT_ARGS(from)),
					 errhint("Two servers may publish as this segment.")));
		from += part;
	}
}

static void
take_history(const WireHeader *header, const char *body, size_t len)
{
	PipePosition position = pipe_position();
	uint64		fork;
	HistoryVerdict verdict = decide_history(&position, header, body, len, &fork);

	if (verdict == HISTORY_KNOWN)
		return;
	if (verdict == HISTORY_FOREIGN)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("timeline %u of topic \"%s\" does not follow from timeline %u",
						header->timeline, topics[FROM_PIPE], staging->timeline),
				 errhint("Take a new base backup for this segment.")));
	staging_put_history(header->timeline, body, len);
	staging->next_timeline = header->timeline;
	staging->switch_lsn = fork;
}

/* Reads the pipe from where we are in it. */
static void
follow_pipe(void)
{
	const char *const names[1] = {topics[FROM_PIPE]};

	kafka_assign(pipe_consumer, 1, names, &staging->pipe_offset);
}

/*
 * Offsets are where we left off only as long as Kafka keeps what it has
 * acknowledged.  If it does not, the publisher fills the pipe again, and the
 * same WAL has other offsets.  So a gap, or the pipe's end before our offset,
 * is believed only when the place is not found by LSN either; we look once in
 * an attempt.
 */
static bool
find_place_again(void)
{
	int64		offset;
	uint32		epoch;

	if (pipe_searched)
		return false;
	pipe_searched = true;
	offset = find_pipe_offset(staging->timeline, staging->staged_lsn, &epoch);
	ereport(LOG,
			(errmsg("multisite receiver found its place in topic \"%s\" anew", topics[FROM_PIPE]),
			 errdetail("It was at offset %lld, and goes on at offset %lld for %X/%X.",
					   (long long) staging->pipe_offset, (long long) offset,
					   LSN_FORMAT_ARGS(staging->staged_lsn))));
	staging->pipe_offset = pipe_expected = offset;
	follow_pipe();
	return true;
}

/*
 * The newest point that this segment has on its timeline before an LSN; *lost
 * is set if it has any behind it.
 */
static uint64
newest_point_before(XLogRecPtr lsn, bool *lost)
{
	PointRecord *points;
	int			npoints = history_after(staging->released_point, &points);
	uint64		newest = staging->released_point;

	*lost = false;
	for (int i = 0; i < npoints; i++)
	{
		if (points[i].passed || points[i].lsn > staging->staged_lsn)
			continue;
		if (points[i].lsn > lsn)
			*lost = true;
		else if (!*lost)
			newest = points[i].id;
	}
	pfree(points);
	return Min(newest, staged_point);
}

/*
 * A point that was reported as staged may be released by a decision that is
 * under way, and other segments go there.  So this one does not leave it for a
 * timeline on which it does not exist before the orchestrator has said that it
 * knows; what it decided before that is carried out first, and the timeline
 * refused.
 */
static bool
may_leave_timeline(void)
{
	bool		lost;

	(void) newest_point_before(staging->switch_lsn, &lost);
	if (!lost || leave_given)
	{
		withdraws = leave_given = false;
		return true;
	}
	withdraws = true;
	withdrawal++;
	withdrawn_at = -1;
	withdrawn_behind = decision.decision;
	ereport(LOG,
			(errmsg("multisite receiver waits to follow the source to timeline %u at %X/%X",
					staging->next_timeline, LSN_FORMAT_ARGS(staging->switch_lsn)),
			 errdetail("A staged consistency point lies behind that. The orchestrator must not release it any more.")));
	return false;
}

static void
status_delivered(void *arg, uint64 tag, int64 offset)
{
	/* it is said again and again; Kafka may have lost the first of them */
	if (withdraws && tag == withdrawal && (withdrawn_at < 0 || offset < withdrawn_at))
		withdrawn_at = offset;
}

/* Reads on in the pipe once the orchestrator knows. */
static void
look_for_leave(void)
{
	if (!withdraws || leave_given || !decide_leave(&decision, withdrawn_behind, withdrawn_at))
		return;
	leave_given = true;
	if (pipe_stopped_at == 0)
	{
		pipe_expected = staging->pipe_offset;
		follow_pipe();
	}
}

/* Returns false if the pipe is to be read from another place, or later. */
static bool
take_wal(const WireHeader *header, const KafkaMessage *message)
{
	const char *wal = message_wal(topics[FROM_PIPE], message, header);
	PipePosition position = pipe_position();
	uint32		skip;
	PipeVerdict verdict = decide_wal(&position, header, &skip);

	switch (verdict)
	{
		case PIPE_SWITCH:
			if (!may_leave_timeline())
				return false;
			staging_switch_timeline();
			ereport(LOG,
					(errmsg("multisite receiver follows the source to timeline %u at %X/%X",
							staging->timeline, LSN_FORMAT_ARGS(staging->staged_lsn))));
			/* FALLTHROUGH */
		case PIPE_TAKE:
			if (skip > 0)
				compare_staged(header, wal, skip);
			staging_append(wal + skip, header->length - skip);
			if (header->awaited)
			{
				awaited = true;
				awaited_at = GetCurrentTimestamp();
			}
			break;
		case PIPE_DUPLICATE:
			compare_staged(header, wal, header->length);
			break;
		case PIPE_GAP:
			if (find_place_again())
				return false;
			/* FALLTHROUGH */
		default:
			refuse_pipe(verdict, header, message->offset);
			break;
	}
	return true;
}

static void
take_from_pipe(const WireHeader *header, const KafkaMessage *message)
{
	PipePosition position = pipe_position();
	PipeVerdict verdict = decide_origin(&position, header);

	refuse_pipe(verdict, header, message->offset);
	if (verdict == PIPE_TAKE)
	{
		if (header->epoch > staging->epoch)
			staging->epoch = header->epoch;
		if (header->kind == WIRE_HISTORY)
			take_history(header, message->body, message->body_len);
		else if (header->kind == WIRE_WAL &&
				 !take_wal(header, message))
			return;
	}
	staging->pipe_offset = message->offset + 1;
}

static void
follow_points_and_decisions(void)
{
	const char *const names[2] = {topics[FROM_POINTS], topics[FROM_RELEASE]};
	const int64 offsets[2] = {staging->points_offset, staging->release_offset};

	kafka_assign(consumer, 2, names, offsets);
}

/* For a PG_CATCH behind which the attempt goes on. */
static void
show_error(MemoryContext context)
{
	ErrorData  *edata = worker_take_error(context);

	worker_report_error(edata);
	FreeErrorData(edata);
}

/* Shows the error at hand, and leaves the pipe alone. */
static void
stop_pipe(MemoryContext context)
{
	show_error(context);
	kafka_close(finder);
	finder = NULL;
	pipe_stopped_at = GetCurrentTimestamp();
}

/*
 * A pipe that cannot be followed must not keep this segment from what it can
 * do with what it has: release staged points, and be promoted.  So its error
 * is shown, its further messages are left where they are, and the rest of the
 * work goes on until the pipe is tried again.
 */
static void
try_pipe(const WireHeader *header, WireError error, const KafkaMessage *message)
{
	MemoryContext context = CurrentMemoryContext;

	if (pipe_stopped_at != 0 || (withdraws && !leave_given))
		return;
	/* some of an earlier assignment may still be in the queue */
	if (pipe_expected >= 0 && message->offset != pipe_expected)
		return;
	pipe_expected = -1;
	PG_TRY();
	{
		message_check(error, topics[FROM_PIPE], message);
		if (header->kind > WIRE_HISTORY)
			unexpected_message(header, message);
		take_from_pipe(header, message);
		pipe_works = true;
	}
	PG_CATCH();
	{
		stop_pipe(context);
		kafka_assign(pipe_consumer, 0, NULL, NULL);
	}
	PG_END_TRY();
}

static void
take_manifest(const KafkaMessage *message)
{
	WireManifest manifest;
	const WireManifestEntry *entries = message_manifest(topics[FROM_POINTS], message, &manifest);
	PointRecord point;

	staging->points_offset = message->offset + 1;
	if (history_by_id(manifest.id, &point) || manifest.id <= staging->released_point)
		return;

	for (uint32 i = 0; i < manifest.nsegments; i++)
	{
		if (entries[i].segment != staging->segment)
			continue;
		memset(&point, 0, sizeof(point));
		point.id = manifest.id;
		strlcpy(point.name, manifest.name, WIRE_NAME_SIZE);
		point.created_at = manifest.created_at;
		point.published_at = message_timestamp(message);
		point.lsn = entries[i].lsn;
		point.timeline = entries[i].timeline;
		point.nsegments = manifest.nsegments;
		point.barrier_us = manifest.barrier_us;
		point.skew_us = manifest.skew_us;
		if (point.lsn < staging->base_lsn)
			pass_point(staging, &point, PASSED_BACKUP);
		else
			history_put(&point, true);
	}
}

static void
take_decision(const KafkaMessage *message)
{
	WireRelease release;

	message_check(wire_decode_release(message->body, message->body_len, &release),
				  topics[FROM_RELEASE], message);

	/* kept until it is carried out, so the offset stays at it */
	if (decide_newer(&decision, &release))
	{
		staging->release_offset = message->offset;
		decision = release;
	}
}

static void
take_point_or_decision(const KafkaMessage *message)
{
	WireHeader	header;

	message_check(message_decode(message, &header), topics[message->topic], message);
	if (message->topic == FROM_POINTS)
		take_manifest(message);
	else if (header.kind == WIRE_RELEASE)
		take_decision(message);
	else
		unexpected_message(&header, message);
}

/* Does no commit, and no promotion, wait for WAL to be durable? */
static bool
nobody_waits(void)
{
	return decision.promote_point == 0 &&
		TimestampDifferenceExceeds(awaited_at, GetCurrentTimestamp(), AWAITED_MS);
}

/*
 * Takes what there is, up to what one sync should cover, and what may keep
 * the rest of the work waiting; true if any.
 */
static bool
take_messages(void)
{
	WorkerSlot *slot = worker_slot();
	KafkaMessage message;
	size_t		upto = nobody_waits() ? Min(staging_unsynced() + TURN_BYTES, SYNC_BYTES) : SYNC_BYTES;
	int			n = 0;

	kafka_serve(consumer);
	kafka_serve(pipe_consumer);
	for (; n < TURN_MESSAGES && kafka_poll(consumer, &message); n++)
	{
		CHECK_FOR_INTERRUPTS();
		take_point_or_decision(&message);
		slot->bytes += message.body_len;
	}
	for (; n < TURN_MESSAGES && staging_unsynced() < upto &&
		 kafka_poll(pipe_consumer, &message); n++)
	{
		WireHeader	header;
		WireError	error = message_decode(&message, &header);

		CHECK_FOR_INTERRUPTS();
		try_pipe(&header, error, &message);
		slot->bytes += message.body_len;
	}
	more_waits = staging_unsynced() >= upto;
	slot->messages += n;
	state_dirty |= n > 0;
	return n > 0;
}

/* ------------------------------------------------------------------------
 * Points
 * ------------------------------------------------------------------------
 */

static void
note_restore_point(void *arg, const char *name, TimestampTz time, XLogRecPtr end)
{
	if (nseen == max_seen)
	{
		max_seen = Max(max_seen * 2, 64);
		seen = seen ? repalloc(seen, max_seen * sizeof(SeenPoint)) :
			MemoryContextAlloc(TopMemoryContext, max_seen * sizeof(SeenPoint));
	}
	strlcpy(seen[nseen].name, name, MAXFNAMELEN);
	seen[nseen].time = time;
	seen[nseen].end = end;
	nseen++;
}

/* Checks what is staged from the last release on. */
static void
begin_check(void)
{
	if (check)
		walcheck_end(check);
	nseen = 0;
	checked_timeline = staging->timeline;
	valid_end = staging->released_lsn;
	staged_point = staging->released_point;
	twophase_begin(valid_end);
	check = walcheck_begin(valid_end, staging_read, note_restore_point, twophase_see, NULL);
}

static const SeenPoint *
find_seen(XLogRecPtr end)
{
	for (int i = 0; i < nseen; i++)
	{
		if (seen[i].end == end)
			return &seen[i];
	}
	return NULL;
}

/*
 * The source has left the timeline before this point: its segment failed over
 * to a standby that had not got that far.  There will never be such a state.
 */
static void
void_point(PointRecord *point)
{
	ereport(LOG,
			(errmsg("consistency point \"%s\" is void", point->name),
			 errdetail("It lies at %X/%X on timeline %u, which the source left before that.",
					   LSN_FORMAT_ARGS(point->lsn), point->timeline)));
	pass_point(staging, point, PASSED_FORK);
	staging_save();
}

/*
 * A point counts as staged when the WAL up to it is durable and valid and
 * ends in the restore point of its name.
 */
static void
check_points(void)
{
	PointRecord *points;
	int			npoints;
	char	   *problem;
	uint64		before;

	/* what was read past a fork does not count */
	if (checked_timeline != staging->timeline)
		begin_check();
	before = staged_point;
	valid_end = walcheck_advance(check, staging->staged_lsn, &problem);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("staged WAL is invalid at %X/%X", LSN_FORMAT_ARGS(valid_end)),
				 errdetail("%s.", problem),
				 errhint("Nothing of it was released. Remove pg_wal/multisite while the server is down to stage it again from Kafka.")));

	if (history_newest() <= staged_point)
		return;
	npoints = history_after(staged_point, &points);
	for (int i = 0; i < npoints; i++)
	{
		const SeenPoint *restore_point;
		StagedVerdict verdict;

		if (points[i].passed)
		{
			/* known from the history, if we died before the state was saved */
			staging->passed_point = Max(staging->passed_point, points[i].id);
			continue;
		}
		verdict = decide_staged(points[i].timeline, points[i].lsn,
								staging_timeline_at(points[i].lsn),
								staging->released_lsn, valid_end);
		if (verdict == STAGED_BEFORE)
			continue;
		if (verdict == STAGED_VOID)
		{
			void_point(&points[i]);
			continue;
		}
		if (verdict == STAGED_WAITS)
			break;
		if (verdict == STAGED_RELEASED)
		{
			/* our state was lost, and what was released before is the base now */
			staged_point = points[i].id;
			continue;
		}
		restore_point = find_seen(points[i].lsn);
		if (restore_point == NULL || strcmp(restore_point->name, points[i].name) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("consistency point \"%s\" is not in the WAL", points[i].name),
					 errdetail("Its manifest says that its restore point ends at %X/%X, but %s%s%s ends there.",
							   LSN_FORMAT_ARGS(points[i].lsn),
							   restore_point ? "restore point \"" : "no restore point",
							   restore_point ? restore_point->name : "",
							   restore_point ? "\"" : "")));
		points[i].restore_point_at = restore_point->time;
		history_put(&points[i], false);
		staged_point = points[i].id;
	}
	pfree(points);
	if (!AM_COORDINATOR() && staged_point > before)
		history_reached(staged_point, POINT_STAGED, GetCurrentTimestamp());
}

static void
release_decided(void)
{
	PointRecord point;
	uint64		target = decision.released_point;
	bool		idle = applied_point == staging->released_point;
	int			kept = 0;

	if (!decide_release(&decision, staging->released_point, staged_point))
		return;
	check_standby_settings();
	if (!history_by_id(target, &point))
	{
		/* what lies before a base backup may never have been known */
		if (target <= staging->passed_point && target != decision.promote_point)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consistency point \"%s\" is to be released, but this segment does not know it any more",
						decision.name[0] ? decision.name : psprintf("point %llu", (unsigned long long) target)),
				 errdetail("It is point %llu; the newest %d are known.",
						   (unsigned long long) target, HISTORY_SIZE)));
	}
	if (point.passed)
		return;
	twophase_sync(staging->released_lsn);
	pg_atomic_write_u64(&multisite_shared->released_before, staging->released_lsn);
	pg_atomic_write_u64(&multisite_shared->released_lsn, point.lsn);
	staging_release(target, point.lsn);
	for (int i = 0; i < nseen; i++)
	{
		if (seen[i].end > point.lsn)
			seen[kept++] = seen[i];
	}
	nseen = kept;
	if (idle)
	{
		/* recovery had nothing to do until now */
		rate_lsn = InvalidXLogRecPtr;
		rate_known = false;
	}
	if (!AM_COORDINATOR())
		history_reached(target, POINT_RELEASED, GetCurrentTimestamp());
}

/* Looks how far recovery is. */
static void
check_applied(void)
{
	TimestampTz now = GetCurrentTimestamp();

	applied_lsn = replay_position_compat(NULL);
	if (rate_lsn == InvalidXLogRecPtr)
	{
		rate_lsn = applied_lsn;
		rate_since = now;
	}
	/*
	 * As long as there is more to replay, what was in some time tells the
	 * rate; a release that does not take as long tells it, too.
	 */
	if (applied_point < staging->released_point && applied_lsn > rate_lsn + 1024 * 1024 &&
		(TimestampDifferenceExceeds(rate_since, now, RATE_MS) ||
		 (applied_lsn >= staging->released_lsn && now > rate_since && !rate_known)))
	{
		replay_rate = (applied_lsn - rate_lsn) * INT64CONST(1000000) / (now - rate_since);
		rate_lsn = applied_lsn;
		rate_since = now;
		rate_known = true;
	}
	if (applied_lsn < staging->released_lsn || staging->released_point == applied_point)
		return;
	applied_point = staging->released_point;
	if (!AM_COORDINATOR())
		history_reached(applied_point, POINT_APPLIED, now);
}

/* ------------------------------------------------------------------------
 * Reporting
 * ------------------------------------------------------------------------
 */

static const char *
kafka_says(void)
{
	return kafka_trouble(consumer) ? kafka_trouble(consumer) : kafka_trouble(pipe_consumer);
}

/* False if it is not sent, which is to be tried again. */
static bool
send_status(const WireStatus *status)
{
	WireHeader	header = {
		.kind = WIRE_STATUS,
		.segment = multisite_segment_id,
		.timeline = staging->timeline,
		.system_id = GetSystemIdentifier(),
		.pg_major = PG_VERSION_NUM / 10000,
		.wal_segment_size = wal_segment_size
	};
	char		body[WIRE_STATUS_MAX];
	char		key[16];
	WireStatus	said = *status;
	size_t		len;

	/* the newest is what counts, and it is told once there is an answer */
	if (kafka_under_way(producer) >= KAFKA_MAX_UNDER_WAY)
		return false;
	said.base_point = base_point;
	len = wire_encode_status(&said, body, sizeof(body));
	snprintf(key, sizeof(key), "%d", multisite_segment_id);
	if (!kafka_produce(producer, status_topic, &header, key, body, len, NULL, NULL,
					   status->withdraws ? withdrawal : 0))
		return false;
	reported = *status;
	reported_at = GetCurrentTimestamp();
	return true;
}

/*
 * Tells the orchestrator and the source what has changed.  What makes them
 * act, a point's progress or a new state, goes out at once; bare LSNs, and
 * nothing at all, from time to time.
 */
static void
report(WireSegmentState segment_state)
{
	WorkerSlot *slot = worker_slot();
	TimestampTz now = GetCurrentTimestamp();
	WireStatus	status = {
		.state = segment_state,
		.timeline = staging->timeline,
		.base_lsn = staging->base_lsn,
		.staged_lsn = staging->staged_lsn,
		.released_lsn = staging->released_lsn,
		.applied_lsn = applied_lsn,
		.passed_point = staging->passed_point,
		.staged_point = staged_point,
		.released_point = staging->released_point,
		.applied_point = applied_point,
		.promoted_point = staging->promoted ? staging->promote_point : 0,
		.replay_rate = replay_rate,
		.sent_at = now,
		.withdraws = withdraws && !leave_given
	};
	bool		urgent;
	bool		lost;

	/* also before the end of our timeline is read, by a new attempt for instance */
	if (staging->next_timeline != 0)
		status.staged_point = newest_point_before(staging->switch_lsn, &lost);

	if (segment_state != WIRE_SEGMENT_FAILED)
		strlcpy(status.reason, slot->reason, WIRE_TEXT_SIZE);
	else if (slot->state == WORKER_FAILED)
		strlcpy(status.reason, slot->last_error, WIRE_TEXT_SIZE);
	else						/* on probation */
		snprintf(status.reason, WIRE_TEXT_SIZE, HAD_FAILED "%s", slot->last_error);

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	slot->timeline = staging->timeline;
	slot->durable_lsn = staging->staged_lsn;
	slot->released_lsn = staging->released_lsn;
	slot->applied_lsn = applied_lsn;
	LWLockRelease(multisite_shared->lock);

	urgent = status.state != reported.state ||
		status.withdraws != reported.withdraws ||
		status.passed_point != reported.passed_point ||
		status.staged_point != reported.staged_point ||
		status.released_point != reported.released_point ||
		status.applied_point != reported.applied_point ||
		status.promoted_point != reported.promoted_point ||
		decide_hungry(&status) != decide_hungry(&reported) ||
		(awaited && status.staged_lsn != reported.staged_lsn) ||
		/* a pause, say; while Kafka is away, its words change all the time */
		(consumer != NULL && kafka_says() == NULL && strcmp(status.reason, reported.reason) != 0);
	urgent |= TimestampDifferenceExceeds(reported_at, now,
										 status.staged_lsn != reported.staged_lsn ? STATUS_MS : HEARTBEAT_MS);
	if (!urgent || send_status(&status))
		awaited = false;
}

static void
show_state(void)
{
	const char *trouble = kafka_says();

	if (pipe_stopped_at != 0)
		worker_set_state(WORKER_FAILED, "%s", worker_slot()->last_error);
	else if (trouble)
		worker_set_state(WORKER_CONNECTING, "Kafka cannot be reached: %s", trouble);
	else if (withdraws)
		worker_set_state(WORKER_WAITING, "waits for the orchestrator to give up points that the source has lost at %X/%X",
						 LSN_FORMAT_ARGS(staging->switch_lsn));
	else if (decision.paused)
		worker_set_state(WORKER_PAUSED, "stages WAL, and releases none until multisite_resume()");
	else if (staging->released_point == 0)
		worker_set_state(WORKER_WAITING, "not yet consistent: waits for the first consistency point after the base backup (%X/%X)",
						 LSN_FORMAT_ARGS(staging->base_lsn));
	else if (applied_point < staging->released_point)
		worker_set_state(WORKER_RUNNING, "recovery applies the released consistency point");
	else
		worker_set_state(WORKER_WAITING, "waits for WAL and for the next consistency point");
}

/* ------------------------------------------------------------------------
 * Promotion
 * ------------------------------------------------------------------------
 */

static void
request_promotion(void)
{
	int			fd = OpenTransientFile(PROMOTE_SIGNAL_FILE, O_WRONLY | O_CREAT | PG_BINARY);

	/* as pg_promote() does */
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", PROMOTE_SIGNAL_FILE)));
	CloseTransientFile(fd);
	if (kill(PostmasterPid, SIGUSR1) != 0)
		ereport(ERROR,
				(errmsg("could not signal the postmaster: %m")));
}

static void
show_promoted(void)
{
	PointRecord point;

	if (staging->promote_point == 0)
	{
		worker_set_state(WORKER_PROMOTED, "this segment was promoted at %X/%X, which is no consistency point",
						 LSN_FORMAT_ARGS(staging->released_lsn));
		return;
	}
	if (!history_by_id(staging->promote_point, &point))
		snprintf(point.name, WIRE_NAME_SIZE, "point %llu", (unsigned long long) staging->promote_point);
	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	strlcpy(multisite_shared->promoted_at, point.name, WIRE_NAME_SIZE);
	LWLockRelease(multisite_shared->lock);
	worker_set_state(WORKER_PROMOTED, "this segment was promoted at consistency point \"%s\"", point.name);
}

/* Points behind that of the promotion are of a history that did not happen. */
static void
forget_later_points(void)
{
	PointRecord *points;
	int			n = history_after(staging->promote_point, &points);

	for (int i = 0; i < n; i++)
	{
		points[i].passed = PASSED_PROMOTION;
		history_put(&points[i], false);
	}
	pfree(points);
}

/* Where this server was promoted, for multisite_in_doubt. */
static void
note_promotion(void)
{
	PointRecord point;

	if (history_by_id(staging->promote_point, &point))
		twophase_promoted(staging->released_lsn, point.name, point.nsegments);
}

/*
 * Who promotes by hand does not look whether a release is under way, which
 * then has come in time for recovery, or too late; nor where WAL of
 * somebody else's has led.  Where the new timeline begins tells at which point
 * this server was promoted, if at any.
 */
static void
find_promotion(void)
{
	List	   *timelines = readTimeLineHistory(findNewestTimeLine(staging->released_timeline));
	TimeLineID	last = Max(staging->released_timeline, staging->intent_timeline);
	ListCell   *lc;
	PointRecord *points;
	int			npoints;
	bool		found = false;

	staging->intent_timeline = 0;
	staging->intent_lsn = InvalidXLogRecPtr;
	staging->intent_point = 0;
	npoints = history_after(0, &points);
	foreach(lc, timelines)
	{
		TimeLineHistoryEntry *entry = lfirst(lc);

		if (entry->tli > last)
			continue;
		found = entry->end == staging->released_lsn;
		for (int i = 0; i < npoints && !found; i++)
		{
			if (points[i].timeline == entry->tli && points[i].lsn == entry->end)
			{
				found = true;
				staging->released_timeline = points[i].timeline;
				staging->released_lsn = points[i].lsn;
				staging->released_point = points[i].id;
			}
		}
		if (!found)
		{
			ereport(WARNING,
					(errmsg("this segment was not promoted at a consistency point"),
					 errdetail("Its new timeline begins at %X/%X; released was the WAL up to %X/%X.",
							   LSN_FORMAT_ARGS(entry->end), LSN_FORMAT_ARGS(staging->released_lsn))));
			staging->released_lsn = entry->end;
			staging->released_point = 0;
		}
		break;
	}
	pfree(points);
}

/*
 * The others wait to hear of a promotion that was decided.  One by hand is
 * told if Kafka is there to be told.
 */
static void
report_promoted(bool by_hand)
{
	MemoryContext context = CurrentMemoryContext;

	if (producer == NULL)
	{
		status_topic = topic_status(staging->source_site, multisite_site_name);
		producer = kafka_open_producer(1024 * 1024, NULL, NULL);
	}
	PG_TRY();
	{
		/* it is told once, so it must not be left out for others under way */
		kafka_flush(producer, 30000);
		report(WIRE_SEGMENT_PROMOTED);
		kafka_flush(producer, 30000);
	}
	PG_CATCH();
	{
		if (!by_hand)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
}

/*
 * This server accepts writes: tells so, and puts away what it was.  It is done
 * only when Kafka has the message, if that must be; until then the next
 * attempt, or the next start, does all of this again.
 */
static void
finish_promotion(void)
{
	bool		by_hand;

	find_promotion();
	by_hand = staging->promote_point == 0 || staging->promote_point != staging->released_point;
	applied_lsn = staging->released_lsn;
	applied_point = staging->released_point;
	staged_point = staging->released_point;
	staging->promote_point = staging->released_point;
	note_promotion();
	staging_save();
	staging_discard();
	forget_later_points();
	show_promoted();
	staging->promoted = true;
	if (!staging->offline)
		report_promoted(by_hand);
	staging_save();
	worker_is_well();
	ereport(LOG,
			(errmsg("multisite receiver ends: this segment was promoted at %X/%X",
					LSN_FORMAT_ARGS(staging->released_lsn))));
}

/*
 * Carries a decided promotion out as far as it goes now.  Returns true when
 * this server accepts writes.
 */
static bool
promote_decided(void)
{
	PromotionStep step = decide_promotion_step(&decision, AM_COORDINATOR(),
											   staging->released_point, applied_point);
	static bool requested = false;

	if (step == PROMOTION_NONE)
		return false;
	if (staging->promote_point == 0)
	{
		staging->promote_point = decision.promote_point;
		staging_save();
	}
	switch (step)
	{
		case PROMOTION_STAGES:
			worker_set_state(WORKER_PROMOTING, "waits until the point of the promotion is staged here");
			return false;
		case PROMOTION_APPLIES:
			worker_set_state(WORKER_PROMOTING, "waits for recovery to apply the point of the promotion");
			return false;
		case PROMOTION_OTHERS:
			worker_set_state(WORKER_PROMOTING, "waits for the other segments: the coordinator is promoted last");
			return false;
		default:
			break;
	}
	worker_set_state(WORKER_PROMOTING, "waits for recovery to end");
	if (!requested)
	{
		XLogRecPtr	end;

		if (has_foreign_wal(&end))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a promotion would not end at the consistency point"),
					 errdetail("The point is at %X/%X, but this server has WAL up to %X/%X that multisite_repl did not release.",
							   LSN_FORMAT_ARGS(staging->released_lsn), LSN_FORMAT_ARGS(end))));
		request_promotion();
		requested = true;
	}
	return !RecoveryInProgress();
}

/* ------------------------------------------------------------------------
 * The worker
 * ------------------------------------------------------------------------
 */

/* Tells the other side why the last attempt ended. */
static void
report_failure(void)
{
	WorkerSlot *slot = worker_slot();
	WireStatus	status = {
		.state = WIRE_SEGMENT_FAILED,
		.timeline = staging->timeline,
		.base_lsn = staging->base_lsn,
		.staged_lsn = staging->staged_lsn,
		.released_lsn = staging->released_lsn,
		.passed_point = staging->passed_point,
		.staged_point = staging->released_point,
		.released_point = staging->released_point,
		.sent_at = GetCurrentTimestamp()
	};

	strlcpy(status.reason, slot->last_error, WIRE_TEXT_SIZE);
	(void) send_status(&status);
	/* this attempt may fail as quickly as the last, and what is under way then ends with it */
	kafka_flush(producer, 15000);
}

/*
 * What the other side is told.  What made the last attempt fail may make this
 * one fail, too, only a moment later, so the failure stands for a while.
 */
static WireSegmentState
state_to_tell(bool on_probation)
{
	if (on_probation)
		return WIRE_SEGMENT_FAILED;
	if (decision.promote_point != 0)
		return WIRE_SEGMENT_PROMOTING;
	return pipe_stopped_at != 0 ? WIRE_SEGMENT_FAILED : WIRE_SEGMENT_FOLLOWING;
}

static void
finish_release(void)
{
	if (staging->intent_point == 0)
		return;
	check_state();
	check_standby_settings();
	staging_finish_intent();
	ereport(LOG,
			(errmsg("multisite receiver finishes the release up to %X/%X, which was interrupted",
					LSN_FORMAT_ARGS(staging->released_lsn))));
}

/*
 * Finishes what a crash has interrupted, before Kafka is needed: the other
 * segments may stand at that point already, and the WAL before it goes with
 * the next restartpoint.  If that fails, the attempt goes on as far as it can
 * tell the orchestrator why.
 */
static void
try_release(void)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		finish_release();
	}
	PG_CATCH();
	{
		show_error(context);
	}
	PG_END_TRY();
}

/*
 * False if a request came meanwhile, which may be served without Kafka, or a
 * reload: the topic may be waited for because a setting was wrong, and a new
 * attempt checks those of the standby, too.
 */
static bool
wait_for_topic(const char *topic, const char *who)
{
	while (!kafka_topic_exists(consumer, topic))
	{
		if (request_waits(WORKER_RECEIVER) || worker_reloaded())
			return false;
		worker_set_state(WORKER_CONNECTING, "waits for topic %s, which %s creates", topic, who);
		worker_wait(0, NULL, TOPIC_CHECK_MS);
	}
	return true;
}

static void
refuse_offset(int topic, int64 offset, int64 low, int64 high)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg("topic \"%s\" does not have what this server has to read next", topics[topic]),
			 errdetail("It needs offset %lld, but the topic holds %lld to %lld.",
					   (long long) offset, (long long) low, (long long) high),
			 errhint("Kafka deleted messages that were not read yet: check the topic's retention, and take a new base backup for this segment.")));
}

static void
open_points(void)
{
	int64		low,
				high;

	kafka_watermarks(consumer, topics[FROM_POINTS], &low, &high);
	if (staging->points_offset < low)
		refuse_offset(FROM_POINTS, staging->points_offset, low, high);
	/* Kafka has lost some; those that we know are taken once, by their ids */
	if (staging->points_offset > high)
		staging->points_offset = low;
}

static void
open_decisions(void)
{
	int64		low,
				high;

	/* what matters of old decisions is in the newest one */
	kafka_watermarks(consumer, topics[FROM_RELEASE], &low, &high);
	if (staging->release_offset < low)
		staging->release_offset = low;

	/*
	 * We are at the newest one that was read, or at the end where there was
	 * none.  At the end, Kafka has lost some, and may have got others since:
	 * the newest one that is there, if it is about us.  Some may have come
	 * late, see orchestrator.c.
	 */
	if (staging->release_offset >= high)
		staging->release_offset = Min(high, Max(high - DECISION_WINDOW, Max(low, staging->release_base)));
}

/* As try_pipe(): whatever is wrong with the pipe must not stop the rest. */
static void
open_pipe(void)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		int64		low,
					high;

		if (!kafka_topic_exists(consumer, topics[FROM_PIPE]))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("topic \"%s\" does not exist", topics[FROM_PIPE]),
					 errdetail("It was there before."),
					 errhint("If the source segment's publisher makes it anew, take a new base backup for this segment.")));
		if (staging->timeline == staging->base_timeline &&
			staging->staged_lsn == staging->base_lsn)
		{
			/*
			 * A base backup of a new primary may be older than that one's
			 * claim, with WAL that it does not come from in between.
			 */
			staging->pipe_offset = find_pipe_offset(staging->base_timeline,
													staging->base_lsn, &staging->epoch);
			staging->next_timeline = 0;
			staging->switch_lsn = 0;
		}
		kafka_watermarks(pipe_consumer, topics[FROM_PIPE], &low, &high);
		if (staging->epoch > 0 && low < high && !pipe_has_our_claim(low, high))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("topic \"%s\" was made anew", topics[FROM_PIPE]),
					 errdetail("It has no message of claim number %u, which was seen before.", staging->epoch),
					 errhint("Take a new base backup for this segment.")));
		if (staging->pipe_offset < low)
			refuse_offset(FROM_PIPE, staging->pipe_offset, low, high);
		if (staging->pipe_offset > high)
			(void) find_place_again();
	}
	PG_CATCH();
	{
		stop_pipe(context);
	}
	PG_END_TRY();
}

/* False if it is to begin anew: see wait_for_topic(). */
static bool
open_topics(void)
{
	worker_set_state(WORKER_CONNECTING, "connects to Kafka");
	topics[FROM_PIPE] = topic_wal(multisite_source_site, multisite_segment_id);
	topics[FROM_POINTS] = topic_points(multisite_source_site);
	topics[FROM_RELEASE] = topic_release(multisite_source_site, multisite_site_name);
	status_topic = topic_status(multisite_source_site, multisite_site_name);
	producer = kafka_open_producer(1024 * 1024, status_delivered, NULL);
	consumer = kafka_open_consumer(CONSUMER_FOLLOWS, producer);
	pipe_consumer = kafka_open_consumer(CONSUMER_FOLLOWS, producer);
	kafka_ensure_topic(producer, status_topic, TOPIC_STATUS);
	kafka_ensure_topic(producer, topics[FROM_RELEASE], TOPIC_PIPE);
	if (worker_slot()->failing_since != 0)
		report_failure();
	check_standby_settings();
	if (staging->system_id != 0)
	{
		check_state();
		leave_if_foreign();
	}
	if (staging->system_id == 0 &&
		!wait_for_topic(topics[FROM_PIPE], "the source segment's publisher"))
		return false;
	if (!wait_for_topic(topics[FROM_POINTS], "the source coordinator"))
		return false;

	if (staging->system_id == 0)
		create_staging();
	open_points();
	open_decisions();
	open_pipe();
	follow_points_and_decisions();
	if (pipe_stopped_at == 0)
		follow_pipe();
	return true;
}

/*
 * A source whose commits wait for Kafka sends hundreds of small messages a
 * second, and a fetch that waits is answered after each.  So none waits while
 * they gather; but what the last one brings then is lost, and with few
 * messages, or large ones, that would cost more than it saves.
 */
static void
begin_to_gather(void)
{
	static TimestampTz last_at;
	static uint64 last_messages;
	static uint64 last_bytes;
	TimestampTz now = GetCurrentTimestamp();
	uint64		messages = worker_slot()->messages - last_messages;
	uint64		bytes = worker_slot()->bytes - last_bytes;

	holds = messages >= HOLD_MESSAGES && bytes / messages < HOLD_MESSAGE_BYTES &&
		!TimestampDifferenceExceeds(last_at, now, HOLD_MS);
	last_at = now;
	last_messages += messages;
	last_bytes += bytes;
	gathers_since = now;
}

/* Will recovery be done with the released point soon? */
static bool
recovery_is_hungry(void)
{
	const WireStatus status = {
		.applied_lsn = applied_lsn,
		.released_lsn = staging->released_lsn,
		.replay_rate = replay_rate
	};

	return decide_hungry(&status);
}

/*
 * Is there something about the released point to be told?  That recovery will
 * be done with it soon is told once, and then it is looked at again and again;
 * but in a backlog what is gathered need not be synced for each look.
 */
static bool
recovery_has_news(bool hungry)
{
	return applied_point < staging->released_point && hungry &&
		(!more_waits || !decide_hungry(&reported) ||
		 applied_lsn >= staging->released_lsn);
}

/* Has all come of the next point's WAL, but is not reported yet? */
static bool
next_point_is_here(void)
{
	static uint64 behind;
	static uint64 newest;
	static uint64 passed;
	static XLogRecPtr end;

	if (history_newest() <= staged_point)
		return false;
	if (behind != staged_point || newest != history_newest() || passed != staging->passed_point)
	{
		PointRecord *points;
		int			n = history_after(staged_point, &points);

		behind = staged_point;
		newest = history_newest();
		passed = staging->passed_point;
		end = InvalidXLogRecPtr;
		for (int i = 0; i < n && end == InvalidXLogRecPtr; i++)
		{
			if (!points[i].passed)
				end = points[i].lsn;
		}
		pfree(points);
	}
	return end <= staging->staged_lsn;
}

/*
 * May what was taken wait for more, before all of it is made durable?  Nobody
 * is told of it sooner than that, unless commits wait for it: a status with
 * nothing but a new LSN waits as long.  A point does not, unless more comes
 * already, as in a backlog, and recovery has enough to do.  Nor does the news
 * that it has not.  Returns in *left for how long, in milliseconds.
 */
static bool
may_gather(bool any, long *left)
{
	bool		hungry;

	if (staging_unsynced() == 0)
		return false;
	applied_lsn = replay_position_compat(NULL);
	hungry = recovery_is_hungry();
	if (gathers_since == 0)
		begin_to_gather();
	*left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
											TimestampTzPlusMilliseconds(gathers_since, GATHER_MS));
	return (*left > 0 || more_waits) &&
		nobody_waits() &&
		staging_unsynced() < SYNC_BYTES &&
		((any && !hungry) || !next_point_is_here()) &&
		!decide_release(&decision, staging->released_point, staged_point) &&
		!recovery_has_news(hungry) &&
		RecoveryInProgress() &&
		!request_waits(WORKER_RECEIVER);
}

static AttemptEnd
follow(void)
{
	TimestampTz began;

	memset(&reported, 0, sizeof(reported));
	reported_at = 0;
	if (!open_topics())
		return ATTEMPT_AGAIN;
	finish_release();
	begin_check();
	pg_atomic_write_u64(&multisite_shared->released_lsn, staging->released_lsn);
	pg_atomic_write_u64(&multisite_shared->release_base, staging->release_base + 1);
	worker_wake(WORKER_ORCHESTRATOR);
	applied_point = 0;
	began = GetCurrentTimestamp();

	for (;;)
	{
		bool		on_probation;
		pgsocket	sockets[3] = {kafka_socket(consumer), kafka_socket(producer), kafka_socket(pipe_consumer)};
		bool		any = take_messages();
		long		left;

		if (may_gather(any, &left))
		{
			kafka_serve(producer);
			/* a point's manifest, from the other consumer, ends the wait */
			if ((holds || staging_unsynced() < GATHER_BYTES) && history_newest() <= staged_point)
			{
				/* not before all that has come is taken */
				if (holds && !any)
					kafka_hold(pipe_consumer);
				worker_wait(2, sockets, holds && any ? 0 : left);
			}
			else
			{
				kafka_go_on(pipe_consumer);
				worker_wait(3, sockets, any ? 0 : left);
			}
			continue;
		}
		kafka_go_on(pipe_consumer);
		if (staging_unsynced() > 0 || state_dirty)
		{
			staging_sync();
			state_dirty = false;
			gathers_since = 0;
		}
		check_points();
		look_for_leave();
		if (!RecoveryInProgress())
		{
			finish_promotion();
			return ATTEMPT_FINISHED;
		}
		if (request_waits(WORKER_RECEIVER))
			return ATTEMPT_AGAIN;	/* serves it without Kafka */
		release_decided();
		check_applied();
		show_state();
		if (promote_decided())
			continue;
		on_probation = worker_slot()->failing_since != 0 &&
			!TimestampDifferenceExceeds(began, GetCurrentTimestamp(), PROBATION_MS);
		report(state_to_tell(on_probation));
		kafka_serve(producer);
		if (!on_probation && pipe_works && kafka_says() == NULL && pipe_stopped_at == 0)
			worker_is_well();
		if (pipe_stopped_at != 0 && decision.promote_point == 0 &&
			TimestampDifferenceExceeds(pipe_stopped_at, GetCurrentTimestamp(), PIPE_RETRY_MS))
			return ATTEMPT_AGAIN;

		/* a reload is noticed by it, too */
		worker_wait(3, sockets, any ? 0 :
					applied_point < staging->released_point || decision.promote_point ?
					APPLY_CHECK_MS : 1000);
		if (worker_reloaded())
		{
			check_standby_settings();
			if (pipe_stopped_at != 0 || kafka_settings_changed(fingerprint))
				return ATTEMPT_AGAIN;
		}
	}
}

/* ------------------------------------------------------------------------
 * Without Kafka
 *
 * When Kafka is lost together with the source, what is staged is all there
 * will ever be.  The session that promotes the site (offline.c) asks each
 * segment what it has, and then tells each at which point to be promoted.
 * ------------------------------------------------------------------------
 */

#define OFFLINE_MS			10000	/* to wait for the next request */

static void
show_staged(void)
{
	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	multisite_shared->staged_points.from = staging->released_point;
	multisite_shared->staged_points.to = staged_point;
	multisite_shared->staged_points.promotion = staging->promote_point;
	multisite_shared->offline = staging->offline;
	LWLockRelease(multisite_shared->lock);
}

static void
refuse_offline(const Request *request, char *result)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this segment has staged nothing yet")));
}

static void
serve_offline(const Request *request, char *result)
{
	PointRecord point;
	StagingState before;

	if (request->action == ACTION_SHOW_STAGED)
	{
		show_staged();
		return;
	}
	if (!history_by_name(request->name, &point) || point.passed ||
		point.id < staging->released_point || point.id > staged_point)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("consistency point \"%s\" is not staged on this segment, or passed", request->name)));
	if (staging->promote_point != 0 && staging->promote_point != point.id)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this segment is being promoted at another consistency point than \"%s\"", request->name)));
	before = *staging;
	staging->promote_point = point.id;
	staging->offline = true;
	PG_TRY();
	{
		staging_save();
	}
	PG_CATCH();
	{
		/* what is not on disk was not decided */
		*staging = before;
		PG_RE_THROW();
	}
	PG_END_TRY();
	show_staged();
	decision.promote_point = decision.released_point = point.id;
	decision.segments_promoted = request->action == ACTION_PROMOTE_OFFLINE_LAST;
}

static AttemptEnd
follow_offline(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), OFFLINE_MS);

	if (staging->system_id == 0)
	{
		worker_serve_request(refuse_offline);
		return ATTEMPT_AGAIN;
	}
	check_state();
	check_standby_settings();
	finish_release();
	begin_check();
	pg_atomic_write_u64(&multisite_shared->released_lsn, staging->released_lsn);
	applied_point = 0;
	if (staging->offline)
		decision.promote_point = decision.released_point = staging->promote_point;
	worker_set_state(WORKER_RUNNING, "checks what is staged");
	for (;;)
	{
		check_points();
		show_staged();
		worker_serve_request(serve_offline);
		if (!RecoveryInProgress())
		{
			finish_promotion();
			return ATTEMPT_FINISHED;
		}
		release_decided();
		check_applied();
		if (promote_decided())
			continue;
		if (!staging->offline && GetCurrentTimestamp() > until)
			return ATTEMPT_AGAIN;
		worker_wait(0, NULL, staging->offline ? APPLY_CHECK_MS : OFFLINE_MS);
	}
}

static AttemptEnd
receiver_attempt(void)
{
	struct stat st;
	bool		known;

	fingerprint = kafka_settings_fingerprint();
	check = NULL;
	nseen = 0;
	memset(&decision, 0, sizeof(decision));
	pipe_stopped_at = 0;
	pipe_works = false;
	pipe_searched = false;
	pipe_expected = -1;
	withdraws = leave_given = false;
	awaited = false;
	awaited_at = 0;
	gathers_since = 0;
	rate_lsn = InvalidXLogRecPtr;
	rate_known = false;

	if (multisite_cluster_name[0] == '\0')
	{
		worker_disabled("multisite.cluster_name is not set");
		return ATTEMPT_AGAIN;
	}
	if (stat(STANDBY_SIGNAL_FILE, &st) != 0)
	{
		/* a primary, perhaps one that was promoted while nobody looked */
		load_points();
		known = staging_open();
		if (known && staging->promoted)
			show_promoted();
		else if (!known || (staging->promote_point == 0 && staging->released_point == 0 &&
							staging->intent_point == 0))
			worker_set_state(WORKER_STOPPED, "this server is no standby");
		else
		{
			while (RecoveryInProgress())
				worker_wait(0, NULL, RECOVERY_CHECK_MS);
			finish_promotion();
		}
		return ATTEMPT_FINISHED;
	}
	if (multisite_source_site[0] == '\0')
	{
		worker_disabled("multisite.source_site is not set");
		return ATTEMPT_AGAIN;
	}
	settings_check_source_site();
	load_points();
	wait_for_recovery();
	(void) staging_open();
	try_release();
	if (staging->offline || request_waits(WORKER_RECEIVER))
		return follow_offline();
	return follow();
}

static void
receiver_release(void)
{
	kafka_close(consumer);
	consumer = NULL;
	kafka_close(pipe_consumer);
	pipe_consumer = NULL;
	kafka_close(finder);
	finder = NULL;
	kafka_close(producer);
	producer = NULL;
	staging_close();
	twophase_close();
}

void
multisite_receiver_main(Datum arg)
{
	static const WorkerRoutine routine = {
		.kind = WORKER_RECEIVER,
		.attempt = receiver_attempt,
		.release = receiver_release,
		.serves_offline = true
	};

	worker_main(&routine);
}
