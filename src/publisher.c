/*-------------------------------------------------------------------------
 *
 * publisher.c
 *	  The worker that publishes a source segment's WAL.
 *
 * It is a physical replication client of its own server: a walsender sends it
 * WAL over the Unix socket, and it gathers what comes into messages for
 * Kafka, and packs them (pack.h).  The status updates that it sends back carry
 *
 *	write	handed to librdkafka
 *	flush	acknowledged by Kafka, acks=all (or staged at every remote site,
 *			when multisite.durability is "remote")
 *	replay	applied at every remote site
 *
 * so that synchronous_standby_names and pg_stat_replication mean what they
 * say.  Where to go on after a restart is read from the pipe itself: it is
 * where its last message ends.
 *
 * The slot belongs to this worker, not to the walsender, because it has to
 * stay a segment behind what the walsender is told: if Kafka loses messages
 * that it had acknowledged (an unclean leader election), the pipe can be
 * filled again from where it ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "conn.h"
#include "decide.h"
#include "greenplum.h"
#include "history.h"
#include "identity.h"
#include "kafka.h"
#include "messages.h"
#include "pack.h"
#include "prune.h"
#include "publisher.h"
#include "remote_sites.h"
#include "settings.h"
#include "worker.h"

#define CONNECT_TIMEOUT_MS	10000
#define STATUS_INTERVAL_MS	10000
#define PRUNE_MS			10000
#define PRUNE_STEP			(16 * 1024 * 1024)	/* WAL between two places to cut */
#define GATHER_MS			50		/* see gather_time() */
#define BODY_BYTES			(896 * 1024)	/* of a message, at most: brokers take 1 MB */

/* Header of a walsender's 'w' message: type, start, end, time. */
#define WAL_MESSAGE_HEADER	(1 + 8 + 8 + 8)

/* What a remote site has of this segment. */
typedef struct RemoteSite
{
	TimeLineID	timeline;
	XLogRecPtr	staged_lsn;
	XLogRecPtr	applied_lsn;
} RemoteSite;

static Peer server = {.segment = 0};
static KafkaHandle *producer;
static KafkaHandle *status_consumer;
static KafkaHandle *finder;		/* looks up single messages of the pipe */
static int64 finder_next;		/* where it reads on; -1 if it has not read yet */
static char *pipe_topic;
static char *fingerprint;

static uint64 system_id;
static TimeLineID timeline;		/* that is being published */
static uint32 epoch;
static XLogRecPtr sent_lsn;
static char *batch;				/* WAL from sent_lsn on: the next message */
static size_t batch_len;
static size_t message_bytes = BODY_BYTES;	/* WAL to put into one, see publish_batch() */
static char *spare[KAFKA_MAX_UNDER_WAY];	/* buffers for what is packed, of BODY_BYTES */
static int	nspare;
static XLogRecPtr acked_lsn;
static PruneMarks marks;		/* of the pipe, to delete what is not needed */
static TimestampTz pruned_at;
static int64 claim_offset;		/* of our claim */
static TimeLineID claim_timeline;
static bool prune_fails;
static int64 last_offset;		/* of the pipe's last message, as far as we know */
static int64 foreign_from;		/* messages of somebody else: from this offset, */
static int64 foreign_to;		/* up to before this one; 0 if there are none */
static XLogRecPtr reported_flush;
static XLogRecPtr reported_replay;
static TimestampTz reported_at;
static bool walsender_sleeps;

static RemoteSites sites;
static RemoteSite *remotes;		/* as sites numbers them */

/* set by multisite_take_over_pipe(), for the next claim */
#define TAKE_OVER_FILE	MULTISITE_DIR "/take_over"

/* ------------------------------------------------------------------------
 * The pipe's end
 * ------------------------------------------------------------------------
 */

static WireHeader
pipe_header(WireKind kind, XLogRecPtr lsn)
{
	WireHeader	header = {
		.kind = kind,
		.segment = multisite_segment_id,
		.epoch = epoch,
		.timeline = timeline,
		.system_id = system_id,
		.lsn = lsn,
		.pg_major = PG_VERSION_NUM / 10000,
		.wal_segment_size = wal_segment_size
	};

	return header;
}

static void
close_finder(void)
{
	kafka_close(finder);
	finder = NULL;
}

static WireHeader
decode_pipe(const KafkaMessage *message)
{
	WireHeader	header;
	WireError	error = message_decode(message, &header);

	if (error == WIRE_OK && header.kind > WIRE_HISTORY)
		error = WIRE_BAD_KIND;
	message_check(error, pipe_topic, message);
	return header;
}

static void
open_finder(void)
{
	finder = kafka_open_consumer(CONSUMER_LOOKS_UP, NULL);
	finder_next = -1;
}

static WireHeader
read_pipe(int64 offset, KafkaMessage *message)
{
	if (offset == finder_next)
		kafka_read_next(finder, offset, message);
	else
		kafka_read_at(finder, pipe_topic, offset, message);
	finder_next = offset + 1;
	return decode_pipe(message);
}

/* A PipeReader */
static WireHeader
read_pipe_header(void *arg, int64 offset)
{
	KafkaMessage message;

	return read_pipe(offset, &message);
}

/* Behind its end may be what a publisher had under way that had lost its claim. */
static WireHeader
read_end(int64 low, int64 high)
{
	WireHeader	end = {0};
	KafkaMessage message;

	epoch = 0;
	for (int64 offset = Max(low, high - PIPE_WINDOW); offset < high; offset++)
	{
		WireHeader	header = read_pipe(offset, &message);

		decide_pipe_end(&end, &epoch, &header);
	}
	return end;
}

/* The claim under which the pipe was written last; false if it is gone. */
static bool
read_last_claim(int64 low, int64 high, uint32 last_epoch,
				WireHeader *header, WireClaim *claim)
{
	KafkaMessage message;
	int64		offset = decide_find_claim(low, high, PIPE_WINDOW, read_pipe_header, NULL, last_epoch);

	if (offset < 0)
		return false;
	*header = read_pipe(offset, &message);
	return wire_decode_claim(message.body, message.body_len, claim) == WIRE_OK;
}

static void
refuse_claim(ClaimVerdict verdict, const WireHeader *header, const WireClaim *claim)
{
	switch (verdict)
	{
		case CLAIM_FREE:
		case CLAIM_OURS:
		case CLAIM_FAILOVER:
		case CLAIM_TAKE_OVER:
			break;
		case CLAIM_FOREIGN_SYSTEM:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("topic \"%s\" belongs to another database system", pipe_topic),
					 errdetail("It was written by system %llu; this is system %llu.",
							   (unsigned long long) header->system_id,
							   (unsigned long long) system_id),
					 errhint("Check multisite.cluster_name, multisite.site_name and multisite.segment_id, or delete the topic if it is of no use any more.")));
			break;
		case CLAIM_STALE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("topic \"%s\" is on timeline %u already", pipe_topic, claim->timeline),
					 errdetail("It was claimed by %s:%s, which was promoted in this server's place.",
							   claim->host, claim->data_directory),
					 errhint("Make this server a standby of the new primary, or set multisite.publish = off.")));
			break;
		case CLAIM_COPY:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("topic \"%s\" is claimed by another server on the same timeline", pipe_topic),
					 errdetail("It was claimed by %s:%s on timeline %u.",
							   claim->host, claim->data_directory, claim->timeline),
					 errhint("If this server is a copy, set multisite.publish = off or another multisite.site_name. If it replaces that one for good, call multisite_take_over_pipe().")));
			break;
	}
}

/*
 * Reads the end of the pipe, and whether we may claim it.  Returns false if
 * the pipe is empty.
 */
static bool
read_pipe_end(TimeLineID server_timeline, WireHeader *end)
{
	int64		low,
				high;
	WireHeader	claim_header;
	WireClaim	claim;
	WireClaim	ours;
	ClaimVerdict verdict;
	bool		take_over = access(TAKE_OVER_FILE, F_OK) == 0;

	epoch = 0;
	prune_forget(&marks, PRUNE_STEP);

	worker_set_state(WORKER_POSITIONING, "reads the end of topic %s", pipe_topic);
	open_finder();
	kafka_watermarks(finder, pipe_topic, &low, &high);
	last_offset = high - 1;
	if (low == high)
		return false;

	*end = read_end(low, high);

	identity_claim(&ours, server_timeline);
	if (!read_last_claim(low, high, epoch, &claim_header, &claim))
	{
		/* pruned away; what is left tells the system and the timeline */
		claim_header = *end;
		claim.timeline = end->timeline;
		strlcpy(claim.host, "(unknown)", sizeof(claim.host));
		strlcpy(claim.data_directory, "(unknown)", sizeof(claim.data_directory));
		memset(claim.identity, 0, sizeof(claim.identity));
	}
	verdict = decide_claim(&claim_header, &claim, system_id, &ours, take_over);
	refuse_claim(verdict, &claim_header, &claim);
	if (verdict == CLAIM_TAKE_OVER)
		ereport(LOG,
				(errmsg("multisite publisher takes over topic \"%s\"", pipe_topic),
				 errdetail("It was claimed by %s:%s.", claim.host, claim.data_directory)));
	return true;
}

/* Somebody else's messages are in our pipe: is one of them a newer claim? */
static void
check_foreign_writer(bool claiming)
{
	KafkaMessage message;

	open_finder();
	for (int64 offset = foreign_from; offset < foreign_to; offset++)
	{
		WireHeader	header = read_pipe(offset, &message);

		if (decide_outclaimed(epoch, claiming, &header))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("another server has claimed topic \"%s\"", pipe_topic),
					 errdetail("Its claim is number %u, this server's was %u.", header.epoch, epoch)));
	}
	close_finder();
	foreign_to = 0;
}

static void
send_claim(TimeLineID server_timeline, XLogRecPtr lsn)
{
	WireClaim	claim;
	char		body[WIRE_CLAIM_MAX];
	size_t		len;
	WireHeader	header;

	epoch++;
	header = pipe_header(WIRE_CLAIM, lsn);
	identity_claim(&claim, server_timeline);
	len = wire_encode_claim(&claim, body, sizeof(body));
	if (!kafka_produce(producer, pipe_topic, &header, NULL, body, len, NULL, NULL, lsn))
		kafka_not_taken(producer);
	kafka_flush(producer, 30000);

	/* somebody else may have read the same end of the pipe, and claimed it */
	if (foreign_to != 0)
		check_foreign_writer(true);
	claim_offset = last_offset;
	claim_timeline = server_timeline;
	(void) unlink(TAKE_OVER_FILE);
}

void
publisher_take_over(void)
{
	int			fd;

	multisite_dir_create();
	fd = OpenTransientFile(TAKE_OVER_FILE, O_WRONLY | O_CREAT | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", TAKE_OVER_FILE)));
	CloseTransientFile(fd);
	worker_wake(WORKER_PUBLISHER);
}

/*
 * The points of a server are made one after another, so no two callers meet.
 * A publisher that fails is left to its pause: each point would end that.
 */
void
publisher_flush(XLogRecPtr lsn)
{
	bool		fails;

	XLogFlush(lsn);
	pg_atomic_write_u64(&multisite_shared->awaited_lsn, lsn);
	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	fails = multisite_shared->workers[WORKER_PUBLISHER].failing_since != 0;
	LWLockRelease(multisite_shared->lock);
	if (!fails)
		worker_wake(WORKER_PUBLISHER);
}

/* ------------------------------------------------------------------------
 * This server, by replication protocol
 * ------------------------------------------------------------------------
 */

static void
server_failed(const char *doing)
{
	const char *hint = NULL;
	char	   *error = server.error ? server.error : conn_error(server.conn);

	if (strstr(error, "pg_hba.conf") != NULL || strstr(error, "authentication failed") != NULL)
		hint = "pg_hba.conf needs a line such as \"local replication all peer\"; or set multisite.local_conninfo.";
	else if (strstr(error, "has already been removed") != NULL)
		hint = "The pipe cannot be continued: WAL that it needs is gone. Delete the topic, and take new base backups for this segment at the remote sites.";
	else if (strstr(error, "max_wal_senders") != NULL || strstr(error, "wal_level") != NULL)
		hint = "Raise max_wal_senders; wal_level must be replica or logical.";
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("could not %s: %s", doing, error),
			 hint ? errhint("%s", hint) : 0));
}

static PGresult *
server_exec(const char *command, const char *doing)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CONNECT_TIMEOUT_MS);

	if (server.result)
		PQclear(server.result);
	server.result = NULL;
	if (!PQsendQuery(server.conn, command))
		server_failed(doing);
	server.busy = true;
	server.poll = PGRES_POLLING_WRITING;
	if (!peers_collect(&server, 1, deadline))
		server_failed(doing);
	return server.result;
}

static void
connect_server(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CONNECT_TIMEOUT_MS);

	worker_set_state(WORKER_CONNECTING, "connects to its own server");
	server.conninfo = conn_local_conninfo();
	if (!peers_connect(&server, 1, true, deadline))
		server_failed("connect to its own server for replication");
}

static XLogRecPtr
parse_lsn(const char *text)
{
	unsigned int hi,
				lo;

	if (text == NULL || sscanf(text, "%X/%X", &hi, &lo) != 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("invalid LSN from the server: \"%s\"", text ? text : "(null)")));
	return ((uint64) hi << 32) | lo;
}

/* The slot's name: what is allowed in one, of "multisite_" and the site's. */
static void
slot_name(char *name)
{
	snprintf(name, NAMEDATALEN, "multisite_%s", multisite_site_name);
	for (char *p = name; *p; p++)
		*p = *p == '-' ? '_' : pg_tolower((unsigned char) *p);
}

static void
slot_has_lost_wal(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("replication slot \"%s\" has lost WAL that Kafka does not have", name),
			 errdetail("It exceeded max_slot_wal_keep_size while Kafka was away, or was dropped."),
			 errhint("Drop the slot, delete topic \"%s\", and take new base backups for this segment at the remote sites.",
					 pipe_topic)));
}

static void
acquire_slot(bool pipe_is_empty)
{
	char		name[NAMEDATALEN];

	slot_name(name);
	if (!slot_exists_compat(name))
	{
		server_exec(psprintf("CREATE_REPLICATION_SLOT \"%s\" PHYSICAL RESERVE_WAL", name),
					"create the replication slot");
		ereport(pipe_is_empty ? LOG : WARNING,
				(errmsg("created replication slot \"%s\"", name),
				 pipe_is_empty ? 0 :
				 errdetail("The pipe has WAL already, so there had been a slot before. If WAL that the pipe needs was removed meanwhile, it cannot be continued.")));
	}
	ReplicationSlotAcquire_compat(name);
	if (SLOT_IS_INVALID(MyReplicationSlot) || XLogRecPtrIsInvalid(MyReplicationSlot->data.restart_lsn))
		slot_has_lost_wal(name);
}

/* Makes our slot hold the WAL from this LSN on. */
static void
move_slot(XLogRecPtr lsn)
{
	ReplicationSlot *slot = MyReplicationSlot;

	SpinLockAcquire(&slot->mutex);
	slot->data.restart_lsn = lsn;
	SpinLockRelease(&slot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotsComputeRequiredLSN();
}

/* A new slot begins at the last checkpoint, which may be too late for us. */
static void
hold_wal(XLogRecPtr from)
{
	ReplicationSlot *slot = MyReplicationSlot;
	XLogSegNo	segno;

	if (slot->data.restart_lsn <= from)
		return;
	move_slot(from);
	/* looked at only now that nothing more can go */
	XLByteToSeg(from, segno, wal_segment_size);
	if (segno <= XLogGetLastRemovedSegno())
		slot_has_lost_wal(NameStr(slot->data.name));
}

/* Lets the server remove WAL that Kafka has, but for a margin. */
static void
advance_slot(XLogRecPtr acked)
{
	XLogRecPtr	keep = decide_slot(acked, wal_segment_size);

	if (keep <= MyReplicationSlot->data.restart_lsn)
		return;
	move_slot(keep);
}

/* The forks that led to a timeline, oldest first; -1 if they cannot be read. */
static int
read_history(TimeLineID tli, TimelineFork *forks, int max_forks)
{
	PGresult   *result = server_exec(psprintf("TIMELINE_HISTORY %u", tli), "read a timeline's history");

	return decide_parse_history(PQgetvalue(result, 0, 1), PQgetlength(result, 0, 1),
								forks, max_forks);
}

/* Publishes the history file of a timeline, and makes that one current. */
static void
enter_timeline(TimeLineID next, XLogRecPtr begin)
{
	PGresult   *result;
	WireHeader	header;

	result = server_exec(psprintf("TIMELINE_HISTORY %u", next), "read a timeline's history");
	if (PQntuples(result) != 1 || PQnfields(result) != 2)
		server_failed("read a timeline's history");
	timeline = next;
	header = pipe_header(WIRE_HISTORY, begin);
	if (!kafka_produce(producer, pipe_topic, &header, NULL, PQgetvalue(result, 0, 1),
					   PQgetlength(result, 0, 1), NULL, NULL, begin))
		kafka_not_taken(producer);
}

static void
start_streaming(XLogRecPtr from)
{
	PGresult   *result;

	greenplum_begin_to_hide();
	result = server_exec(psprintf("START_REPLICATION PHYSICAL %X/%X TIMELINE %u",
								  LSN_FORMAT_ARGS(from), timeline),
						 "start replication");
	if (PQresultStatus(result) != PGRES_COPY_BOTH)
		server_failed("start replication");
	greenplum_hide_walsender(PQbackendPID(server.conn));
	Assert(batch_len == 0);
	sent_lsn = from;
	reported_flush = reported_replay = InvalidXLogRecPtr;
	reported_at = 0;
}

/*
 * Where to begin.  *enter tells whether the history of the timeline that
 * begins there has to be published first.
 */
static XLogRecPtr
choose_start(TimeLineID server_timeline, XLogRecPtr server_flush,
			 const WireHeader *end, bool *enter)
{
	TimelineFork forks[64];
	XLogRecPtr	start;
	ServerPosition position = {
		.timeline = server_timeline,
		.flush_lsn = server_flush,
		.slot_lsn = MyReplicationSlot->data.restart_lsn,
		.forks = forks
	};
	StartVerdict verdict;

	if (server_timeline > 1 && (end == NULL || end->timeline != server_timeline))
		position.nforks = read_history(server_timeline, forks, lengthof(forks));
	verdict = decide_start(&position, end, &timeline, &start);
	*enter = verdict == START_ENTER;
	switch (verdict)
	{
		case START_AT:
		case START_ENTER:
			break;
		case START_OLD_TIMELINE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("topic \"%s\" is on timeline %u already", pipe_topic, end->timeline),
					 errdetail("This server is on timeline %u: another one was promoted in its place.",
							   server_timeline),
					 errhint("Make this server a standby of the new primary, or set multisite.publish = off.")));
			break;
		case START_FOREIGN_TIMELINE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("topic \"%s\" is on a timeline that this server does not come from", pipe_topic),
					 errdetail("The topic ends on timeline %u, this server is on timeline %u.",
							   end->timeline, server_timeline)));
			break;
		case START_BEHIND:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("topic \"%s\" is ahead of this server", pipe_topic),
					 errdetail("The topic ends at %X/%X, this server at %X/%X: it has lost WAL, or was restored from a backup.",
							   LSN_FORMAT_ARGS(start), LSN_FORMAT_ARGS(server_flush)),
					 errhint("Delete the topic, and take new base backups for this segment at the remote sites.")));
			break;
	}
	return start;
}

/* ------------------------------------------------------------------------
 * Streaming
 * ------------------------------------------------------------------------
 */

/* Called for each of our messages that Kafka has acknowledged, in order. */
static void
pipe_delivered(void *arg, uint64 tag, int64 offset)
{
	acked_lsn = Max(acked_lsn, (XLogRecPtr) tag);

	/* nobody else should write to our pipe, so its offsets are ours, one by one */
	if (offset > last_offset + 1)
	{
		if (foreign_to == 0)
			foreign_from = last_offset + 1;
		foreign_to = offset;
	}
	last_offset = offset;
	prune_note(&marks, tag, offset);
}

/* A buffer is used again: what is given back to the system costs page faults. */
static char *
take_buffer(void)
{
	char	   *buffer = nspare > 0 ? spare[--nspare] : malloc(BODY_BYTES);

	if (buffer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return buffer;
}

static void
give_buffer_back(void *buffer)
{
	if (nspare < KAFKA_MAX_UNDER_WAY)
		spare[nspare++] = buffer;
	else
		free(buffer);
}

static void
follow_remotes(void)
{
	if (!remote_sites_follow(&sites, status_consumer))
		return;
	/* what each has comes with the first message of it */
	remotes = remotes ? repalloc(remotes, sizeof(RemoteSite) * Max(sites.n, 1)) :
		palloc(sizeof(RemoteSite) * Max(sites.n, 1));
	memset(remotes, 0, sizeof(RemoteSite) * sites.n);
}

static void
take_remote_status(void)
{
	KafkaMessage message;

	kafka_serve(status_consumer);
	while (kafka_poll(status_consumer, &message))
	{
		WireHeader	header;
		WireStatus	status;

		if (!message_status(&message, &header, &status) ||
			header.segment != multisite_segment_id || header.system_id != system_id)
			continue;
		remotes[message.topic].timeline = status.timeline;
		remotes[message.topic].staged_lsn = status.staged_lsn;
		remotes[message.topic].applied_lsn = status.applied_lsn;
	}
}

/*
 * The smallest of what the remote sites have; 0 if there is none.  What a site
 * has of another timeline may be other bytes: it has to follow to ours first.
 */
static XLogRecPtr
least_remote(bool applied)
{
	XLogRecPtr	least = InvalidXLogRecPtr;

	for (int i = 0; i < sites.n; i++)
	{
		XLogRecPtr	lsn = applied ? remotes[i].applied_lsn : remotes[i].staged_lsn;

		if (remotes[i].timeline != timeline)
			lsn = InvalidXLogRecPtr;
		if (i == 0 || lsn < least)
			least = lsn;
	}
	return Min(least, acked_lsn);
}

/*
 * Deletes what all remote sites have applied.  A site counts from its first
 * status message until its status topic is deleted, however long it is away.
 */
static void
prune(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		before;
	char		problem[128];

	if (!multisite_prune || !TimestampDifferenceExceeds(pruned_at, now, PRUNE_MS))
		return;
	pruned_at = now;
	before = prune_before(&marks, least_remote(true), (uint64) multisite_prune_margin * 1024 * 1024);
	if (before < 0)
		return;
	if (claim_offset < before)
	{
		/* who publishes must still be in the pipe: claim it once more, at its end */
		kafka_flush(producer, 30000);
		send_claim(claim_timeline, sent_lsn);
	}
	if (kafka_delete_before(producer, pipe_topic, before, problem, sizeof(problem)))
	{
		if (prune_fails)
			ereport(LOG, (errmsg("topic \"%s\" is pruned again", pipe_topic)));
		prune_fails = false;
		return;
	}
	/* what stays now goes with the next mark */
	if (!prune_fails)
		ereport(LOG,
				(errmsg("could not delete old messages of topic \"%s\"", pipe_topic),
				 errdetail("Kafka said: %s.", problem),
				 errhint("The Kafka user needs the right to delete records; or set multisite.prune = off.")));
	prune_fails = true;
}

/*
 * The walsender gives up a client that says nothing for wal_sender_timeout,
 * and while we read nothing, because Kafka is slow, we do not see it ask.
 */
static long
status_interval(void)
{
	return wal_sender_timeout > 0 ?
		Min(STATUS_INTERVAL_MS, wal_sender_timeout / 4) : STATUS_INTERVAL_MS;
}

static void
send_feedback(bool force)
{
	StringInfoData reply;
	TimestampTz now = GetCurrentTimestamp();
	XLogRecPtr	flush = multisite_durability == DURABILITY_REMOTE ? least_remote(false) : acked_lsn;
	XLogRecPtr	replay = least_remote(true);

	/* first: no commit that waits for a mirror may be released by what we say */
	greenplum_check_hidden(PQbackendPID(server.conn));
	if (!force && flush == reported_flush && replay == reported_replay &&
		!TimestampDifferenceExceeds(reported_at, now, status_interval()))
		return;

	initStringInfo(&reply);
	pq_sendbyte(&reply, 'r');
	pq_sendint64(&reply, sent_lsn);
	pq_sendint64(&reply, flush);
	pq_sendint64(&reply, replay);
	pq_sendint64(&reply, now);
	pq_sendbyte(&reply, 0);
	if (PQputCopyData(server.conn, reply.data, reply.len) < 0 || PQflush(server.conn) < 0)
		server_failed("send feedback to its own server");
	pfree(reply.data);
	reported_flush = flush;
	reported_replay = replay;
	reported_at = now;
}

static uint64
get_int64(const char *p)
{
	uint64		value;

	memcpy(&value, p, sizeof(value));
	return pg_ntoh64(value);
}

/* On Greenplum that names mirrors, which we are none of. */
static bool
commits_wait(void)
{
	return !ON_GREENPLUM && SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0';
}

/*
 * Hands what is gathered to librdkafka.  Returns false, keeping it, when there
 * is no room.  Few messages can be under way, and each costs the broker
 * milliseconds, however small it is, so they are large: as much WAL as fits
 * when it is packed.  How much that is, messages before it tell.
 */
static bool
publish_batch(void)
{
	WorkerSlot *slot = worker_slot();

	while (batch_len > 0)
	{
		size_t		len = Min(batch_len, message_bytes);
		WireHeader	header;
		char	   *body;
		size_t		body_len;

		if (kafka_under_way(producer) >= KAFKA_MAX_UNDER_WAY ||
			!kafka_has_room(producer, Min(len, BODY_BYTES)))
			return false;
		header = pipe_header(WIRE_WAL, sent_lsn);
		header.length = len;
		header.awaited = multisite_durability == DURABILITY_REMOTE && commits_wait();
		body = take_buffer();
		body_len = pack_wal(multisite_compression, batch, len, body, BODY_BYTES, &header.packing);
		if (body_len == 0 && len > BODY_BYTES)
		{
			give_buffer_back(body);
			message_bytes = Max(len / 2, BODY_BYTES);
			continue;
		}
		if (body_len == 0)
		{
			body_len = len;
			memcpy(body, batch, len);
		}
		else if (len > message_bytes / 4 * 3 && body_len < BODY_BYTES / 3)
			message_bytes = Min(message_bytes * 2, WIRE_MAX_WAL);
		if (!kafka_produce(producer, pipe_topic, &header, NULL, body, body_len,
						   give_buffer_back, body, sent_lsn + len))
		{
			give_buffer_back(body);
			return false;
		}
		sent_lsn += len;
		slot->bytes += len;
		slot->messages++;
		batch_len -= len;
		memmove(batch, batch + len, batch_len);
	}
	return true;
}

/* A message of the walsender that is not, or not wholly, in the batch yet. */
static char *held;
static int	held_len;
static int	held_at;			/* what comes before this is */

/* Returns false, keeping the rest in held, when there is no room. */
static bool
gather_held(void)
{
	while (held_at < held_len)
	{
		size_t		part;

		if (batch_len >= message_bytes)
		{
			if (!publish_batch())
				return false;
			continue;
		}
		part = Min((size_t) (held_len - held_at), message_bytes - batch_len);
		memcpy(batch + batch_len, held + held_at, part);
		batch_len += part;
		held_at += part;
	}
	PQfreemem(held);
	held = NULL;
	return true;
}

/*
 * The server is known to have flushed this much.  Never less: what is left in
 * the socket was sent before we asked how much that is, see wake_walsender().
 */
static void
raise_target(XLogRecPtr flushed)
{
	WorkerSlot *slot = worker_slot();

	slot->target_lsn = Max(slot->target_lsn, flushed);
}

static void
hold(char *message, int len)
{
	WorkerSlot *slot = worker_slot();
	XLogRecPtr	start = get_int64(message + 1);

	held = message;
	held_len = len;
	held_at = WAL_MESSAGE_HEADER;
	raise_target(get_int64(message + 1 + 8));
	slot->target_time = get_int64(message + 1 + 16);
	if (start != sent_lsn + batch_len)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("unexpected WAL from the server"),
				 errdetail("Expected %X/%X, got %X/%X.",
						   LSN_FORMAT_ARGS(sent_lsn + batch_len), LSN_FORMAT_ARGS(start))));
}

/*
 * While we read nothing, nobody has to wake our walsender.  Each flush of a
 * busy server would: for some hundred bytes that nobody reads yet, it took
 * more CPU of the source than all that we do.
 */
static void
let_walsender_sleep(void)
{
	let_walsender_sleep_compat(PQbackendPID(server.conn));
	walsender_sleeps = true;
}

/* Until it has sent what was flushed meanwhile, the server is ahead of us, see gather_time(). */
static void
wake_walsender(void)
{
	if (!walsender_sleeps)
		return;
	raise_target(flush_position_compat());
	wake_walsender_compat(PQbackendPID(server.conn));
	walsender_sleeps = false;
}

/*
 * Takes what the walsender has sent, and what fills messages is published.
 * Returns false when its copy has ended.
 */
static bool
take_from_server(void)
{
	if (held && !gather_held())
		return true;

	wake_walsender();
	if (!PQconsumeInput(server.conn))
		server_failed("read WAL from its own server");
	for (;;)
	{
		char	   *buffer;
		int			len = PQgetCopyData(server.conn, &buffer, 1);

		if (len == 0)
			return true;
		if (len == -1)
			return false;
		if (len < 0)
			server_failed("read WAL from its own server");

		if (buffer[0] == 'w' && len > WAL_MESSAGE_HEADER)
		{
			hold(buffer, len);
			if (!gather_held())
				return true;
			continue;
		}
		if (buffer[0] == 'k' && len >= 1 + 8 + 8 + 1)
		{
			raise_target(get_int64(buffer + 1));
			if (buffer[1 + 8 + 8])
				send_feedback(true);
		}
		PQfreemem(buffer);
	}
}

/* The timeline that we read ends: goes on with the one that follows. */
static void
follow_timeline(void)
{
	PGresult   *result;
	TimeLineID	next;
	XLogRecPtr	begin;
	TimestampTz deadline;

	/* what is gathered is of the timeline that ends */
	while (!publish_batch())
	{
		if (kafka_in_flight(producer) == 0)
			kafka_not_taken(producer);
		kafka_flush(producer, 30000);
	}
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CONNECT_TIMEOUT_MS);
	if (PQputCopyEnd(server.conn, NULL) <= 0)
	{
		/* the copy was ended by an error, which has come already */
		result = PQgetResult(server.conn);
		if (PQresultStatus(result) == PGRES_FATAL_ERROR)
			peer_set_error(&server, PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
		PQclear(result);
		server_failed("read WAL from its own server");
	}
	if (server.result)
		PQclear(server.result);
	server.result = NULL;
	server.busy = true;
	server.poll = PGRES_POLLING_READING;

	/* the first result has the next timeline, the second ends the command */
	{
		PGresult   *first = NULL;

		while (server.busy)
		{
			if (PQflush(server.conn) < 0 || !PQconsumeInput(server.conn))
				server_failed("end a timeline");
			while (server.busy && !PQisBusy(server.conn))
			{
				result = PQgetResult(server.conn);
				if (result == NULL)
					server.busy = false;
				else if (first == NULL && PQresultStatus(result) == PGRES_TUPLES_OK)
					first = result;
				else
					PQclear(result);
			}
			if (server.busy)
			{
				pgsocket	socket = PQsocket(server.conn);

				if (GetCurrentTimestamp() > deadline)
					server_failed("end a timeline");
				worker_wait(1, &socket, 1000);
			}
		}
		server.result = first;
	}
	if (server.result == NULL || PQntuples(server.result) != 1 || PQnfields(server.result) < 2)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the server ended replication"),
				 errdetail("It may be shutting down.")));
	next = strtoul(PQgetvalue(server.result, 0, 0), NULL, 10);
	begin = parse_lsn(PQgetvalue(server.result, 0, 1));
	enter_timeline(next, begin);
	start_streaming(begin);
}

static void
update_figures(TimestampTz *last, uint64 *last_bytes)
{
	WorkerSlot *slot = worker_slot();
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	slot->timeline = timeline;
	slot->sent_lsn = sent_lsn;
	slot->durable_lsn = acked_lsn;
	if (TimestampDifferenceExceeds(*last, now, 2000))
	{
		slot->rate = (slot->bytes - *last_bytes) * INT64CONST(1000000) / Max(now - *last, 1);
		*last = now;
		*last_bytes = slot->bytes;
	}
	LWLockRelease(multisite_shared->lock);
}

static void
show_state(bool blocked)
{
	const char *trouble = kafka_trouble(producer);

	if (trouble && kafka_in_flight(producer) > 0)
		worker_set_state(WORKER_BLOCKED, "Kafka does not acknowledge: %s", trouble);
	else if (blocked)
		worker_set_state(WORKER_BLOCKED, "waits for Kafka's acknowledgements");
	else if (acked_lsn < worker_slot()->target_lsn)
		worker_set_state(WORKER_RUNNING, "publishes WAL");
	else
		worker_set_state(WORKER_WAITING, "all WAL is published; waits for more");
}

/*
 * A busy server flushes hundreds of times a second, and each time the
 * walsender has a few bytes for us.  What comes while Kafka has not answered
 * to the last message is taken together, and while no commit waits for Kafka
 * there is a pause in any case: that saves most of the requests,
 * acknowledgements and wake-ups, here, in Kafka and at the remote sites, which
 * sync what they have after each.  No site can use WAL before the point
 * behind it, and a point's restore point does not wait.  Returns how long to
 * wait.  A server that is ahead of us, or was idle, is read at once.
 */
static long
gather_time(TimestampTz taken_at)
{
	int			ms = commits_wait() && kafka_under_way(producer) == 0 ? 0 : GATHER_MS;
	XLogRecPtr	taken = sent_lsn + batch_len;

	if (taken < worker_slot()->target_lsn ||
		taken < pg_atomic_read_u64(&multisite_shared->awaited_lsn))
		return 0;
	/* not longer, should the clock be set back */
	return Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
											   TimestampTzPlusMilliseconds(taken_at, ms)), ms);
}

static AttemptEnd
stream(void)
{
	TimestampTz rate_at = GetCurrentTimestamp();
	uint64		rate_bytes = worker_slot()->bytes;
	TimestampTz taken_at = 0;

	for (;;)
	{
		XLogRecPtr	before;
		long		gather;
		bool		reads;
		pgsocket	sockets[3];
		int			nsockets = 0;

		/* first: what is acknowledged makes room */
		kafka_serve(producer);
		if (foreign_to != 0)
			check_foreign_writer(false);
		gather = gather_time(taken_at);
		reads = gather == 0;
		if (reads)
		{
			before = sent_lsn + batch_len;
			if (!take_from_server())
			{
				follow_timeline();
				continue;
			}
			if (sent_lsn + batch_len != before)
			{
				taken_at = GetCurrentTimestamp();
				gather = gather_time(taken_at);
			}
		}
		/* what the server is ahead of us comes at once, and fills the message */
		if (sent_lsn + batch_len >= worker_slot()->target_lsn)
			(void) publish_batch();
		follow_remotes();
		take_remote_status();
		prune();
		advance_slot(acked_lsn);
		/* a status update wakes the walsender: unless commits wait for it, it is sent when we read */
		if (reads || commits_wait())
			send_feedback(false);
		update_figures(&rate_at, &rate_bytes);
		show_state(held != NULL);
		if (!kafka_trouble(producer))
			worker_is_well();

		sockets[nsockets++] = kafka_socket(producer);
		sockets[nsockets++] = kafka_socket(status_consumer);
		/* a commit that waits is published as soon as it is flushed */
		if (held || (gather > 0 && !commits_wait()))
			let_walsender_sleep();
		if (held == NULL && gather == 0)
			sockets[nsockets++] = PQsocket(server.conn);
		worker_wait(nsockets, sockets, gather > 0 ? gather : status_interval());

		if (worker_reloaded() &&
			(!multisite_publish || kafka_settings_changed(fingerprint)))
			return ATTEMPT_AGAIN;
	}
}

static AttemptEnd
publisher_attempt(void)
{
	PGresult   *result;
	TimeLineID	server_timeline;
	XLogRecPtr	server_flush;
	WireHeader	end;
	bool		is_empty;
	XLogRecPtr	start;
	bool		enter;

	fingerprint = kafka_settings_fingerprint();
	if (worker_is_no_source())
		return ATTEMPT_AGAIN;
	worker_connect(NULL);		/* for the bootstrap superuser's name */

	if (batch == NULL)
		batch = MemoryContextAlloc(TopMemoryContext, WIRE_MAX_WAL);
	multisite_dir_create();
	foreign_to = 0;
	memset(&sites, 0, sizeof(sites));
	remotes = NULL;
	pipe_topic = topic_wal(multisite_site_name, multisite_segment_id);

	worker_set_state(WORKER_CONNECTING, "connects to Kafka");
	producer = kafka_open_producer((size_t) multisite_publisher_memory * 1024, pipe_delivered, NULL);
	status_consumer = kafka_open_consumer(CONSUMER_FOLLOWS, producer);
	kafka_ensure_topic(producer, pipe_topic, TOPIC_PIPE);

	connect_server();
	result = server_exec("IDENTIFY_SYSTEM", "identify its own server");
	system_id = strtou64(PQgetvalue(result, 0, 0), NULL, 10);
	server_timeline = strtoul(PQgetvalue(result, 0, 1), NULL, 10);
	server_flush = parse_lsn(PQgetvalue(result, 0, 2));
	if (system_id != GetSystemIdentifier())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("multisite.local_conninfo leads to another server"),
				 errdetail("That is system %llu, this is system %llu.",
						   (unsigned long long) system_id,
						   (unsigned long long) GetSystemIdentifier())));

	is_empty = !read_pipe_end(server_timeline, &end);
	close_finder();
	acquire_slot(is_empty);
	start = choose_start(server_timeline, server_flush, is_empty ? NULL : &end, &enter);
	hold_wal(start);
	/* from here on it goes by what Kafka acknowledges, across timelines, too */
	acked_lsn = start;
	send_claim(server_timeline, start);
	if (enter)
		enter_timeline(timeline, start);
	start_streaming(start);
	ereport(LOG,
			(errmsg("multisite publisher begins at %X/%X on timeline %u",
					LSN_FORMAT_ARGS(start), timeline),
			 errdetail("Topic %s, claim %u.", pipe_topic, epoch)));
	return stream();
}

static void
publisher_release(void)
{
	if (held)
		PQfreemem(held);
	held = NULL;
	batch_len = 0;
	walsender_sleeps = false;	/* the walsender ends with its connection */
	peer_close(&server);
	peer_set_error(&server, NULL);
	kafka_close(status_consumer);
	status_consumer = NULL;
	kafka_close(producer);
	producer = NULL;
	close_finder();
	if (MyReplicationSlot)
		ReplicationSlotRelease();
}

void
multisite_publisher_main(Datum arg)
{
	static const WorkerRoutine routine = {
		.kind = WORKER_PUBLISHER,
		.attempt = publisher_attempt,
		.release = publisher_release
	};

	worker_main(&routine);
}
