/*-------------------------------------------------------------------------
 *
 * points.c
 *	  The worker on the source coordinator that makes consistency points.
 *
 * A point is made in three steps, each of which all segments take at the same
 * time; the coordinator, which is this server, takes them in this process:
 *
 *	raise	the commit barriers; done when no segment has a commit under way
 *	write	a restore point of the point's name
 *	lower	the barriers, and make the restore points durable
 *
 * Then the manifest, which names the end of each restore point, is published.
 * If a step fails on one segment the barriers come down everywhere and there
 * is no manifest, without which nobody will ever release the half-made point.
 *
 * The worker makes a point when a session asks for it, and by itself every
 * multisite.consistency_point_interval if something was committed since the
 * last one.  It keeps its connections to the segments.  On Greenplum all but
 * the barrier is done through a session on the coordinator: greenplum.c.  It also listens to
 * what the remote sites report, for the views of this site.
 *
 * While Kafka is away it goes on making points, fewer and fewer, and their
 * manifests wait here, also for the next attempt.  That one could not begin
 * without Kafka: so an automatic point that fails does not end an attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "barrier.h"
#include "compat.h"
#include "conn.h"
#include "decide.h"
#include "greenplum.h"
#include "history.h"
#include "kafka.h"
#include "messages.h"
#include "points.h"
#include "publisher.h"
#include "remote_sites.h"
#include "segments.h"
#include "settings.h"
#include "worker.h"

#define RESERVED_PREFIX		"multisite_"
#define PUBLISH_TIMEOUT_MS	30000
#define IDLE_WAIT_MS		5000
#define ANSWER_MS			1000	/* after which Kafka is taken to be away */
#define WAITING_BYTES		(8 * 1024 * 1024)
#define LATE_WINDOW			1024	/* more than are made while Kafka is away for a week */

static KafkaHandle *producer;
static KafkaHandle *consumer;	/* of the remote sites' status topics */
static char *points_topic;
static char *fingerprint;

static Peer *peers;				/* the registered segments, connected or not */
static int	npeers;

/* On Greenplum: a session on this server, through which points are made. */
static Peer dispatcher = {.segment = COORDINATOR_ID, .dispatches = true};
static GreenplumRole server_role;

/* A manifest that Kafka has not acknowledged. */
typedef struct Manifest
{
	uint64		id;
	TimestampTz created_at;
	WireHeader	header;
	size_t		len;
	char		body[FLEXIBLE_ARRAY_MEMBER];
} Manifest;

static List *manifests;			/* in TopMemoryContext, oldest first */
static size_t manifests_bytes;
static int	handed;				/* so many of them librdkafka has */

static uint64 last_id;
static int64 last_offset;		/* of the points topic, as far as we know it */
static uint64 overtaken_id;		/* the first behind what somebody else wrote; or 0 */
static uint64 last_commits;		/* of all segments, at the last point */

static RemoteSites sites;

/* ------------------------------------------------------------------------
 * Segments
 * ------------------------------------------------------------------------
 */

static void
forget_peers(void)
{
	for (int i = 0; i < npeers; i++)
	{
		peer_close(&peers[i]);
		peer_set_error(&peers[i], NULL);
		pfree(peers[i].conninfo);
	}
	npeers = 0;
	peer_close(&dispatcher);
	peer_set_error(&dispatcher, NULL);
}

/* Reads the registry, and keeps the connections that are still right. */
static void
load_segments(void)
{
	RegisteredSegment *segments = NULL;
	int			n = 0;
	Peer	   *old = peers;
	int			nold = npeers;
	MemoryContext context = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(context);
	/* without its registry a cluster would look like a coordinator alone */
	if (!segments_extension_exists())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"multisite_repl\" does not exist in database \"%s\"", multisite_database),
				 errdetail("The registry of the cluster's segments is in it."),
				 errhint("CREATE EXTENSION multisite_repl, and register the segments if there are any.")));
	n = segments_registered(multisite_site_name, &segments);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);

	peers = MemoryContextAllocZero(TopMemoryContext, sizeof(Peer) * Max(n, 1));
	npeers = n;
	for (int i = 0; i < n; i++)
	{
		peers[i].segment = segments[i].id;
		peers[i].conninfo = MemoryContextStrdup(TopMemoryContext, segments[i].conninfo);
		for (int j = 0; j < nold; j++)
		{
			if (old[j].segment == peers[i].segment && strcmp(old[j].conninfo, peers[i].conninfo) == 0)
			{
				peers[i].conn = old[j].conn;
				peers[i].is_known = old[j].is_known;
				old[j].conn = NULL;
			}
		}
		pfree(segments[i].conninfo);
	}
	for (int j = 0; j < nold; j++)
	{
		peer_close(&old[j]);
		peer_set_error(&old[j], NULL);
		pfree(old[j].conninfo);
	}
	if (old)
		pfree(old);
	if (segments)
		pfree(segments);
}

/*
 * Raises the first error of a step; the primary message says of which one.
 * Whoever failed is connected anew next time: it may lack what we prepared, or
 * an update of the extension may have made that useless.
 */
static void
require_all(const char *step)
{
	int			first = -1;

	for (int i = npeers - 1; i >= 0; i--)
	{
		if (peers[i].error == NULL)
			continue;
		peer_close(&peers[i]);
		first = i;
	}
	if (first >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_EXCEPTION),
				 errmsg("segment %d could not %s", peers[first].segment, step),
				 errdetail("%s", sentence(peers[first].error)),
				 errhint("No consistency point was made. See multisite_segments for its address.")));
}

static TimestampTz
step_deadline(void)
{
	/* the segment itself gives up at the barrier's timeout, with a reason */
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), multisite_barrier_timeout + INT64CONST(1000));
}

/*
 * The steps of a point on a segment.  Commits wait for these, so the segment
 * need not parse and plan them each time.
 */
static const char *const statements[] = {
	"PREPARE multisite_raise (integer, boolean) AS SELECT multisite.barrier_raise($1, $2)",
	"PREPARE multisite_write (text) AS SELECT * FROM multisite.write_restore_point($1)",
	"PREPARE multisite_lower AS SELECT multisite.barrier_lower()",
	"PREPARE multisite_commits AS SELECT multisite.commits()",
};

/* A server that ended has left its last words and an end of file. */
static void
close_if_ended(Peer *peer)
{
	if (peer->conn && (!PQconsumeInput(peer->conn) || !PQconsumeInput(peer->conn)))
		peer_close(peer);
}

/* Greenplum connects to the segments; this server alone is reached by us. */
static void
connect_dispatcher(void)
{
	close_if_ended(&dispatcher);
	dispatcher.conninfo = conn_with_database(conn_local_conninfo(), multisite_database);
	if (!peers_connect(&dispatcher, 1, false, step_deadline()))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_EXCEPTION),
				 errmsg("the coordinator could not be reached by its own worker"),
				 errdetail("%s", sentence(dispatcher.error)),
				 errhint("No consistency point was made. See multisite.local_conninfo.")));
}

static void
connect_segments(void)
{
	TimestampTz deadline = step_deadline();

	load_segments();
	if (ON_GREENPLUM)
	{
		connect_dispatcher();
		return;
	}
	for (int i = 0; i < npeers; i++)
		close_if_ended(&peers[i]);
	(void) peers_connect(peers, npeers, false, deadline);
	require_all("be reached");
	for (int i = 0; i < npeers; i++)
	{
		/* it may have been connected by an attempt that failed for another one */
		if (peers[i].is_known)
			continue;
		/* a point must only ever be written on our own segments */
		segments_check_identity(&peers[i], 1, false, deadline);
		for (size_t j = 0; j < lengthof(statements); j++)
		{
			peers_send(&peers[i], 1, statements[j], 0, NULL);
			(void) peers_collect(&peers[i], 1, deadline);
		}
		peers[i].is_known = peers[i].error == NULL;
	}
	require_all("be used");
}

/* ------------------------------------------------------------------------
 * Making a point
 * ------------------------------------------------------------------------
 */

void
points_check_length(const char *name)
{
	size_t		len = strlen(name);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a consistency point must not be empty"),
				 errhint("Leave the name out to get one made.")));
	if (len >= WIRE_NAME_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("the name of a consistency point is too long"),
				 errdetail("It has %zu bytes; a restore point's name has %d at most.",
						   len, WIRE_NAME_SIZE - 1)));
	for (size_t i = 0; i < len; i++)
	{
		if (name[i] < 0x20 || name[i] > 0x7e)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the name of a consistency point must have printable ASCII characters only")));
	}
}

void
points_check_name(const char *name)
{
	points_check_length(name);
	if (name[0] == ' ' || name[strlen(name) - 1] == ' ')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a consistency point must not begin or end with a blank")));
	if (strncmp(name, RESERVED_PREFIX, strlen(RESERVED_PREFIX)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("the name of a consistency point must not begin with \"%s\"", RESERVED_PREFIX),
				 errdetail("Such names are made by multisite_repl itself.")));
}

void
points_require_source(const char *name)
{
	if (name)
		points_check_name(name);
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("consistency points cannot be created on a standby"),
				 errhint("Connect to the coordinator of the source site.")));
	if (!AM_COORDINATOR())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is segment %d, not the coordinator", multisite_segment_id),
				 errhint("Connect to the coordinator of the source site.")));
}

long
points_create_timeout(void)
{
	return 60000 + 4L * multisite_barrier_timeout;
}

/*
 * A name may be used once for ever: recovery_target_name would take the first
 * of two.  The table remembers what the history has forgotten.
 */
static void
reserve_name(const char *name)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	bool		taken;

	PointRecord existing;
	MemoryContext context = CurrentMemoryContext;

	if (history_by_name(name, &existing))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consistency point \"%s\" exists already", name),
				 errdetail("It was created at %s.", timestamptz_to_str(existing.created_at))));

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	values[0] = CStringGetTextDatum(name);
	SPI_connect();
	if (SPI_execute_with_args("INSERT INTO multisite.point_name (name) VALUES ($1) "
							  "ON CONFLICT DO NOTHING",
							  1, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not reserve the name of a consistency point");
	taken = SPI_processed == 0;
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	if (taken)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("the name \"%s\" was given to a consistency point before", name),
				 errdetail("That point is older than the history, or could not be completed; a segment may have a restore point of that name."),
				 errhint("Choose another name.")));
}

/*
 * A name of our own: readable by the time, and unique by the id; a point that
 * could not be completed has the id of the next one, so that takes another
 * millisecond.
 */
static void
make_name(char *name, uint64 id)
{
	static uint64 named_id;
	static TimestampTz named_at;
	TimestampTz at = GetCurrentTimestamp();
	pg_time_t	seconds;
	char		when[32];

	if (id == named_id)
		at = Max(at, named_at + 1000);
	named_id = id;
	named_at = at;
	seconds = timestamptz_to_time_t(at);
	pg_strftime(when, sizeof(when), "%Y%m%dT%H%M%S", pg_gmtime(&seconds));
	snprintf(name, WIRE_NAME_SIZE, RESERVED_PREFIX "%08llu_%s.%03dZ", (unsigned long long) id, when,
			 (int) (at % USECS_PER_SEC / 1000));
}

/* Lowers all barriers that may be up; a connection that fails lowers its own */
static void
lower_everywhere(void)
{
	barrier_lower();
	for (int i = 0; i < npeers; i++)
	{
		if (peers[i].conn == NULL)
			continue;
		if (peers[i].busy || PQtransactionStatus(peers[i].conn) == PQTRANS_ACTIVE)
			peer_close(&peers[i]);	/* its end lowers the barrier it raised */
		peer_set_error(&peers[i], NULL);
	}
	peers_send(peers, npeers, "SELECT multisite.barrier_lower()", 0, NULL);
	(void) peers_collect(peers, npeers, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000));
}

/*
 * The three steps.  Fills in the entries, the coordinator's first: its id is
 * the smallest.  For a verified point the session that asked for it takes its
 * snapshots while the barriers are up.
 */
static void
raise_write_lower(WireManifest *manifest, WireManifestEntry *entries, bool verified)
{
	char		timeout[16];
	const char *raise_params[2] = {timeout, verified ? "true" : "false"};
	const char *write_params[1] = {manifest->name};
	TimestampTz raised_at,
				first_at,
				last_at;
	TimeLineID	timeline;
	XLogRecPtr	lsn;

	snprintf(timeout, sizeof(timeout), "%d", multisite_barrier_timeout);
	PG_TRY();
	{
		/* raise */
		raised_at = GetCurrentTimestamp();
		manifest->created_at = raised_at;
		peers_execute(peers, npeers, "multisite_raise", 2, raise_params);
		barrier_raise(multisite_barrier_timeout, verified);
		(void) peers_collect(peers, npeers, step_deadline());
		require_all("raise its commit barrier");
		if (verified && !request_meet(WORKER_POINTS, TimestampTzPlusMilliseconds(raised_at, multisite_barrier_timeout)))
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("the snapshots of a verified consistency point were not taken in time"),
					 errhint("multisite.barrier_timeout may be too short.")));

		/* write */
		first_at = GetCurrentTimestamp();
		peers_execute(peers, npeers, "multisite_write", 1, write_params);
		lsn = barrier_write_restore_point(manifest->name, &timeline);
		(void) peers_collect(peers, npeers, step_deadline());
		last_at = GetCurrentTimestamp();
		require_all("write its restore point");

		entries[0].segment = COORDINATOR_ID;
		entries[0].lsn = lsn;
		entries[0].timeline = timeline;
		for (int i = 0; i < npeers; i++)
		{
			entries[i + 1].segment = peers[i].segment;
			entries[i + 1].lsn = DatumGetLSN(DirectFunctionCall1(pg_lsn_in,
																 CStringGetDatum(PQgetvalue(peers[i].result, 0, 0))));
			entries[i + 1].timeline = strtoul(PQgetvalue(peers[i].result, 0, 1), NULL, 10);
		}

		/* lower; each segment flushes its restore point after that */
		peers_execute(peers, npeers, "multisite_lower", 0, NULL);
		barrier_lower();
		publisher_flush(lsn);
		(void) peers_collect(peers, npeers, step_deadline());
		require_all("lower its commit barrier");
	}
	PG_CATCH();
	{
		lower_everywhere();
		PG_RE_THROW();
	}
	PG_END_TRY();

	manifest->nsegments = npeers + 1;
	manifest->barrier_us = Min(last_at - raised_at, PG_UINT32_MAX);
	manifest->skew_us = Min(last_at - first_at, PG_UINT32_MAX);
}

static void
forget_first_manifest(void)
{
	Manifest   *first = linitial(manifests);

	manifests_bytes -= first->len;
	manifests = list_delete_first(manifests);
	pfree(first);
	if (handed > 0)
		handed--;
}

static void
manifest_delivered(void *arg, uint64 tag, int64 offset)
{
	if (offset != last_offset + 1 && overtaken_id == 0)
		overtaken_id = tag;
	/* the next attempt looks which of those behind it count */
	if (overtaken_id == 0)
	{
		history_reached(tag, POINT_PUBLISHED, GetCurrentTimestamp());
		if (manifests != NIL && ((Manifest *) linitial(manifests))->id == tag)
			forget_first_manifest();
	}
	last_offset = offset;
}

/* The age of the oldest manifest that Kafka has not acknowledged; 0 if it has all. */
static int64
unacknowledged_for(void)
{
	if (manifests == NIL)
		return 0;
	return Max(GetCurrentTimestamp() - ((Manifest *) linitial(manifests))->created_at, 0);
}

static bool
kafka_is_away(void)
{
	return manifests != NIL &&
		(kafka_trouble(producer) || unacknowledged_for() > INT64CONST(1000) * ANSWER_MS);
}

/*
 * Of two manifests with the same number the first one counts.  Another one may
 * have come after we had looked for the greatest number: one that the former
 * coordinator, or an earlier attempt, had under way when it ended.
 */
static void
check_overtaken(void)
{
	PointRecord point;

	if (overtaken_id == 0)
		return;
	/* until the next attempt knows better */
	if (history_by_id(overtaken_id, &point))
	{
		point.passed = PASSED_NUMBER;
		history_put(&point, true);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("the number of a consistency point was used before"),
			 errdetail("Somebody else has written to topic \"%s\" meanwhile: a former coordinator, perhaps.", points_topic),
			 errhint("Create another consistency point.")));
}

/* Hands over what waits, as far as there may be more under way. */
static void
publish_waiting(void)
{
	while (handed < list_length(manifests) && kafka_under_way(producer) < KAFKA_MAX_UNDER_WAY)
	{
		Manifest   *next = list_nth(manifests, handed);

		if (!kafka_produce(producer, points_topic, &next->header, NULL, next->body, next->len,
						   NULL, NULL, next->id))
			break;
		handed++;
	}
}

/* May one more manifest wait for Kafka? */
static bool
has_room(void)
{
	return manifests_bytes + WIRE_MANIFEST_MAX(npeers + 1) <= WAITING_BYTES;
}

static void
publish_manifest(const WireManifest *manifest, const WireManifestEntry *entries)
{
	WireHeader	header = {
		.kind = WIRE_MANIFEST,
		.segment = COORDINATOR_ID,
		.timeline = entries[0].timeline,
		.system_id = GetSystemIdentifier(),
		.lsn = entries[0].lsn,
		.pg_major = PG_VERSION_NUM / 10000,
		.wal_segment_size = wal_segment_size
	};
	size_t		size = WIRE_MANIFEST_MAX(manifest->nsegments);
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Manifest   *last = palloc(offsetof(Manifest, body) + size);

	last->id = manifest->id;
	last->created_at = manifest->created_at;
	last->header = header;
	last->len = wire_encode_manifest(manifest, entries, last->body, size);
	manifests_bytes += last->len;
	manifests = lappend(manifests, last);
	MemoryContextSwitchTo(old);
	publish_waiting();
}

/* Commits on all segments so far; 0 if one cannot be asked. */
static uint64
count_commits(void)
{
	uint64		commits = barrier_commits();

	/* there each of them is the coordinator's, too */
	if (ON_GREENPLUM)
		return commits;
	peers_execute(peers, npeers, "multisite_commits", 0, NULL);
	(void) peers_collect(peers, npeers, step_deadline());
	require_all("be asked for its commits");
	for (int i = 0; i < npeers; i++)
		commits += strtou64(PQgetvalue(peers[i].result, 0, 0), NULL, 10);
	return commits;
}

/* Makes a point on the segments that are connected. */
static void
make_point(const char *name, uint64 commits, bool verified)
{
	WireManifest manifest;
	WireManifestEntry *entries = palloc(sizeof(WireManifestEntry) * (npeers + 1));
	PointRecord point;

	if (!has_room())
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("no more consistency points can wait for Kafka"),
				 errdetail("%d of them do.", list_length(manifests)),
				 errhint("No consistency point was made.")));
	worker_set_state(WORKER_RUNNING, "creates consistency point \"%s\"", name);
	memset(&manifest, 0, sizeof(manifest));
	manifest.id = last_id + 1;
	strlcpy(manifest.name, name, WIRE_NAME_SIZE);
	if (ON_GREENPLUM)
		greenplum_cut(&dispatcher, &manifest, entries, npeers + 1);
	else
		raise_write_lower(&manifest, entries, verified);

	memset(&point, 0, sizeof(point));
	point.id = last_id = manifest.id;
	strlcpy(point.name, manifest.name, WIRE_NAME_SIZE);
	point.created_at = manifest.created_at;
	point.restore_point_at = manifest.created_at;
	point.lsn = entries[0].lsn;
	point.timeline = entries[0].timeline;
	point.nsegments = manifest.nsegments;
	point.barrier_us = manifest.barrier_us;
	point.skew_us = manifest.skew_us;
	history_put(&point, true);
	publish_manifest(&manifest, entries);
	pfree(entries);

	/* counted before the barrier rose, so that no commit is overlooked */
	last_commits = commits;
}

/* ------------------------------------------------------------------------
 * Remote sites
 * ------------------------------------------------------------------------
 */

static bool
is_member(int32 segment)
{
	for (int i = 0; i < npeers; i++)
	{
		if (peers[i].segment == segment)
			return true;
	}
	return segment == COORDINATOR_ID;
}

/* The newest point that lies before a base backup of this remote site. */
static uint64
passed_at(const char *site, const SegmentEntry *entries, int n)
{
	uint64		passed = 0;

	for (int i = 0; i < n; i++)
	{
		if (is_member(entries[i].segment) && strcmp(entries[i].site, site) == 0)
			passed = Max(passed, entries[i].status.base_point);
	}
	return passed;
}

/* Notes in the history how far the slowest segment of all remote sites is. */
static void
note_progress(void)
{
	SegmentEntry *entries;
	int			n = segments_snapshot(NULL, &entries);
	uint64		passed = PG_UINT64_MAX;
	uint64		staged = PG_UINT64_MAX;
	uint64		released = PG_UINT64_MAX;
	uint64		applied = PG_UINT64_MAX;
	TimestampTz now = GetCurrentTimestamp();
	bool		begun = true;
	int			heard = 0;
	int			sites = 0;

	for (int i = 0; i < n; i++)
	{
		if (!is_member(entries[i].segment))
			continue;			/* it has left the cluster */
		if (strcmp(entries[i].site, multisite_site_name) == 0)
			continue;			/* from when this server followed another site */
		heard++;
		begun &= entries[i].status.base_lsn != 0;
		if (entries[i].segment == COORDINATOR_ID)
		{
			sites++;
			passed = Min(passed, passed_at(entries[i].site, entries, n));
		}
		staged = Min(staged, entries[i].status.staged_point);
		released = Min(released, entries[i].status.released_point);
		applied = Min(applied, entries[i].status.applied_point);
	}
	pfree(entries);
	if (sites == 0 || heard < sites * (npeers + 1))
		return;					/* not all have been heard of yet */
	if (begun)
		history_unusable(passed);
	history_reached(staged, POINT_STAGED, now);
	history_reached(released, POINT_RELEASED, now);
	history_reached(applied, POINT_APPLIED, now);
}

static void
take_remote_status(void)
{
	KafkaMessage message;
	bool		any = false;

	kafka_serve(consumer);
	while (kafka_poll(consumer, &message))
	{
		WireHeader	header;
		WireStatus	status;
		char	   *site;

		if (!message_status(&message, &header, &status))
			continue;
		site = remote_sites_name(&sites, message.topic);
		segment_heard(site, header.segment, &status);
		pfree(site);
		any = true;
	}
	if (any)
		note_progress();
}

/* ------------------------------------------------------------------------
 * The worker
 * ------------------------------------------------------------------------
 */

/* Is what the topic has under this number the point that we made? */
static void
note_published(const WireManifest *manifest, const WireHeader *header)
{
	PointRecord point;

	if (!history_by_id(manifest->id, &point) ||
		(point.published_at != 0 && point.passed != PASSED_NUMBER && point.passed != PASSED_UNPUBLISHED))
		return;
	if (point.lsn == header->lsn && point.timeline == header->timeline &&
		strcmp(point.name, manifest->name) == 0)
	{
		point.passed = PASSED_NOT;
		point.published_at = GetCurrentTimestamp();
	}
	else
		point.passed = PASSED_NUMBER;
	history_put(&point, false);
}

static bool
still_waits(uint64 id)
{
	ListCell   *lc;

	foreach(lc, manifests)
	{
		if (((Manifest *) lfirst(lc))->id == id)
			return true;
	}
	return false;
}

/*
 * What waited for Kafka when the worker ended will never be published; nor may
 * it count as published because a later one is.
 */
static void
give_up_unpublished(uint64 after)
{
	PointRecord *points;
	int			n = history_after(after, &points);

	for (int i = 0; i < n; i++)
	{
		if (points[i].published_at != 0 || points[i].staged_at != 0 || points[i].passed ||
			still_waits(points[i].id))
			continue;
		points[i].passed = PASSED_UNPUBLISHED;
		history_put(&points[i], false);
	}
	pfree(points);
}

/*
 * Ids go on from the greatest that was ever published.  Also looks what has
 * become of the points of an earlier attempt.
 */
static void
find_last_id(void)
{
	int64		low,
				high,
				first;
	uint64		first_id = 0;
	uint64		greatest = 0;	/* in the topic */
	bool	   *seen = palloc0(HISTORY_SIZE * sizeof(bool));

	last_id = history_newest();
	kafka_watermarks(consumer, points_topic, &low, &high);
	last_offset = high - 1;
	overtaken_id = 0;

	/* behind the greatest may be some that came too late, see above */
	first = Max(low, high - LATE_WINDOW);
	for (int64 offset = first; offset < high; offset++)
	{
		KafkaMessage message;
		WireHeader	header;
		WireManifest manifest;

		if (offset == first)
			kafka_read_at(consumer, points_topic, offset, &message);
		else
			kafka_read_next(consumer, offset, &message);
		(void) message_manifest(points_topic, &message, &manifest);
		(void) message_decode(&message, &header);
		if (header.system_id != GetSystemIdentifier())
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("topic \"%s\" belongs to another database system", points_topic),
					 errdetail("It was written by system %llu; this is system %llu.",
							   (unsigned long long) header.system_id,
							   (unsigned long long) GetSystemIdentifier()),
					 errhint("Check multisite.cluster_name and multisite.site_name.")));
		greatest = Max(greatest, manifest.id);
		if (offset == first && first > low)
			first_id = manifest.id;
		/* of two with the same number the first one counts */
		if (!seen[manifest.id % HISTORY_SIZE])
			note_published(&manifest, &header);
		seen[manifest.id % HISTORY_SIZE] = true;
	}
	pfree(seen);
	last_id = Max(last_id, greatest);
	/* Kafka has got these after all, or others in their place */
	while (manifests != NIL && ((Manifest *) linitial(manifests))->id <= greatest)
		forget_first_manifest();
	give_up_unpublished(first_id);
}

static void
show_state(bool failed)
{
	const char *trouble = kafka_trouble(producer);
	int			waiting = list_length(manifests);

	if (failed)
		worker_set_state(WORKER_FAILED, "%s", worker_slot()->last_error);
	else if (kafka_is_away())
		worker_set_state(WORKER_BLOCKED, "Kafka does not acknowledge%s%s; %d consistency point%s to be published",
						 trouble ? ": " : "", trouble ? trouble : "",
						 waiting, waiting == 1 ? " waits" : "s wait");
	else if (waiting == 0 && kafka_trouble(consumer))
		worker_set_state(WORKER_CONNECTING, "Kafka cannot be reached: %s", kafka_trouble(consumer));
	else if (multisite_consistency_point_interval > 0)
		worker_set_state(WORKER_WAITING, "waits for the next automatic consistency point");
	else
		worker_set_state(WORKER_WAITING, "waits for multisite_create_consistency_point()");
}

/* Waits for Kafka to have the point; says what may come of it if that is not soon. */
static void
publish_now(const char *name)
{
	MemoryContext context = CurrentMemoryContext;

	if (kafka_is_away())
		show_state(false);
	PG_TRY();
	{
		TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PUBLISH_TIMEOUT_MS);

		/* behind what waits already */
		do
		{
			publish_waiting();
			kafka_flush(producer, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until));
		} while (manifests != NIL && overtaken_id == 0);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		edata->hint = psprintf("Consistency point \"%s\" may still appear: then multisite_consistency_points shows it as published. "
							   "Check that the brokers of multisite.brokers are up and can be reached from this host.", name);
		ReThrowError(edata);
	}
	PG_END_TRY();
}

/* A session wants a point. */
static void
serve_request(const Request *request, char *name)
{
	connect_segments();
	if (request->has_name)
	{
		reserve_name(request->name);
		strlcpy(name, request->name, WIRE_NAME_SIZE);
	}
	else
		make_name(name, last_id + 1);
	make_point(name, count_commits(), request->action == ACTION_CREATE_VERIFIED_POINT);
	publish_now(name);
	check_overtaken();
}

/* A point of the interval, unless nothing was committed since the last one. */
static void
automatic_point(void)
{
	char		name[WIRE_NAME_SIZE];
	uint64		commits;

	connect_segments();
	commits = count_commits();
	if (commits == last_commits || !has_room())
		return;
	make_name(name, last_id + 1);
	make_point(name, commits, false);
}

/* False if it failed, which multisite_status shows until one does not. */
static bool
try_automatic_point(void)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool made = false;

	PG_TRY();
	{
		automatic_point();
		made = true;
	}
	PG_CATCH();
	{
		ErrorData  *edata = worker_take_error(context);

		worker_report_error(edata);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	return made;
}

/* From one automatic point to the next, in microseconds. */
static int64
automatic_gap(long pause)
{
	return Max(decide_point_interval(INT64CONST(1000) * multisite_consistency_point_interval,
									 unacknowledged_for()),
			   INT64CONST(1000) * pause);
}

static AttemptEnd
points_attempt(void)
{
	TimestampTz next_at;
	long		pause = 0;		/* since the last automatic point failed */
	MemoryContext step;

	fingerprint = kafka_settings_fingerprint();
	if (!AM_COORDINATOR())
	{
		worker_set_state(WORKER_STOPPED, "points are made on the coordinator");
		return ATTEMPT_FINISHED;
	}
	if (server_role == ROLE_UTILITY)
	{
		worker_set_state(WORKER_STOPPED, "this coordinator runs in utility role, without its segments");
		return ATTEMPT_FINISHED;
	}
	if (worker_is_no_source())
		return ATTEMPT_AGAIN;
	worker_connect(multisite_database);

	/* our own commits must not wait for a point, which only we can make */
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_OVERRIDE);

	worker_set_state(WORKER_CONNECTING, "connects to Kafka");
	handed = 0;
	memset(&sites, 0, sizeof(sites));
	history_load();
	points_topic = topic_points(multisite_site_name);
	producer = kafka_open_producer(8 * 1024 * 1024, manifest_delivered, NULL);
	consumer = kafka_open_consumer(CONSUMER_FOLLOWS, producer);
	kafka_ensure_topic(producer, points_topic, TOPIC_PIPE);
	find_last_id();

	/* what was committed before a restart was counted by nobody: a point will tell */
	last_commits = PG_UINT64_MAX;
	next_at = GetCurrentTimestamp();
	step = AllocSetContextCreate(CurrentMemoryContext, "multisite point", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		pgsocket	sockets[2] = {kafka_socket(producer), kafka_socket(consumer)};
		long		wait = IDLE_WAIT_MS;
		bool		automatic;

		kafka_serve(producer);
		publish_waiting();
		check_overtaken();
		/* it would wait a second for Kafka each time, and the next point for it */
		if (!kafka_is_away())
			(void) remote_sites_follow(&sites, consumer);
		take_remote_status();

		MemoryContextSwitchTo(step);
		worker_serve_request(serve_request);
		automatic = multisite_consistency_point_interval > 0;
		if (!automatic)
			pause = 0;
		else if (GetCurrentTimestamp() >= next_at)
		{
			if (!try_automatic_point())
				pause = Min(Max(pause * 2, FIRST_PAUSE_MS), LONGEST_PAUSE_MS);
			else
				pause = 0;
			/* keep the cadence, but do not make up for what was missed */
			next_at = Max(next_at + automatic_gap(pause),
						  TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause));
		}
		MemoryContextSwitchTo(step->parent);
		MemoryContextReset(step);

		show_state(pause > 0);
		if (pause == 0 && !kafka_is_away() && !kafka_trouble(consumer))
			worker_is_well();
		if (automatic)
		{
			/* an interval that was made shorter counts from now on, and Kafka's return */
			next_at = Min(next_at, GetCurrentTimestamp() + automatic_gap(pause));
			wait = Min(wait, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_at));
		}
		else
			next_at = GetCurrentTimestamp();
		worker_wait(2, sockets, wait);

		if (worker_reloaded())
		{
			if (!multisite_publish || kafka_settings_changed(fingerprint))
				return ATTEMPT_AGAIN;
			/* it may have mended what was wrong */
			if (pause > 0)
				next_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), FIRST_PAUSE_MS);
		}
	}
}

static void
points_release(void)
{
	barrier_lower();
	forget_peers();
	kafka_close(consumer);
	consumer = NULL;
	kafka_close(producer);
	producer = NULL;
}

void
multisite_points_main(Datum arg)
{
	static const WorkerRoutine routine = {
		.kind = WORKER_POINTS,
		.attempt = points_attempt,
		.release = points_release
	};

	server_role = greenplum_role_compat();
	worker_main(&routine);
}
