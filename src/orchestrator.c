/*-------------------------------------------------------------------------
 *
 * orchestrator.c
 *	  The worker on a remote coordinator that decides what is released.
 *
 * It reads the source's points and its own site's status messages, and writes
 * decisions to the release topic: "release point n" as soon as every segment
 * that n names has staged it.  A newer point makes the ones before it
 * superfluous, so only the newest releasable one is decided.
 *
 * The newest decision is its whole state: a new orchestrator reads that one
 * and the points from there on, and hears what each segment has from the
 * status topic, which keeps the newest message of each.
 *
 * A promotion is a decision, too: it names the point, after it nothing is
 * released any more, and every receiver carries it out on its own; when all
 * others have, a last decision lets the coordinator follow.  So it goes on
 * whatever process dies, and asking for it again joins the one under way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "decide.h"
#include "history.h"
#include "kafka.h"
#include "messages.h"
#include "orchestrator.h"
#include "settings.h"
#include "worker.h"

#define DECISION_TIMEOUT_MS 30000
#define TOPIC_CHECK_MS		1000
#define NAMED_SEGMENTS		3		/* in a reason */
#define RECEIVER_BEGINS_MS	10000
#define IDLE_WAIT_MS		1000	/* to see a promotion by hand */
#define ENDS_CHECK_MS		5000
#define HOLD_BACK_MS		10000
#define HOLD_BACK_BYTES		(UINT64CONST(1) << 30)
#define TELL_AGAIN_MS		15000	/* longer than a segment is quiet */
#define CHOICE				(HISTORY_SIZE - 256)	/* so many points can be decided */

enum
{
	FROM_POINTS,
	FROM_STATUS,
	FROM_RELEASE,
	NUM_TOPICS
};

static KafkaHandle *consumer;
static KafkaHandle *producer;
static char *release_topic;
static char *points_topic;
static char *status_topic;
static char *fingerprint;

static MemoryContext points_context;
static KnownPoint *points;		/* in ascending order of id */
static int	npoints;
static int	max_points;

static WireRelease decision;	/* the newest one */
static TimestampTz decided_at;	/* or read */
static bool unsure;				/* whether one that was sent has become the newest */
static int64 last_offset;		/* of the release topic, as far as we know it */
static bool overtaken;			/* somebody else has written to it */

static SegmentKnown *known;		/* in ascending order of segment */
static int	nknown;

static int64 ends[FROM_RELEASE];	/* of the others, when this attempt began */
static TimestampTz ends_asked_at;
static int64 withdrawn_at;		/* offset of the newest status that withdraws */

/* ------------------------------------------------------------------------
 * Decisions
 * ------------------------------------------------------------------------
 */

static bool
settings_changed(void)
{
	return worker_reloaded() && kafka_settings_changed(fingerprint);
}

/* Before anything can be decided: who asks is told what that waits for. */
static void
refuse_request(const Request *request, char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this site cannot decide anything yet"),
			 errdetail("The orchestrator %s", sentence(worker_slot()->reason)),
			 errhint("See multisite_status.")));
}

/*
 * The receiver's state file tells decisions about us from older ones, and
 * promotions.  At a start it is ready in a moment, and requests wait for it;
 * if it fails, or takes longer, they are told so.  False if a setting changed.
 */
static bool
wait_for_receiver(void)
{
	TimestampTz began = GetCurrentTimestamp();

	while (pg_atomic_read_u64(&multisite_shared->release_base) == 0)
	{
		WorkerState state;
		char		reason[REASON_SIZE];

		LWLockAcquire(multisite_shared->lock, LW_SHARED);
		state = multisite_shared->workers[WORKER_RECEIVER].state;
		strlcpy(reason, multisite_shared->workers[WORKER_RECEIVER].reason, REASON_SIZE);
		LWLockRelease(multisite_shared->lock);
		worker_set_state(WORKER_STARTING, "waits for this server's receiver to begin, which says: %s", reason);
		if (state == WORKER_FAILED ||
			TimestampDifferenceExceeds(began, GetCurrentTimestamp(), RECEIVER_BEGINS_MS))
			worker_serve_request(refuse_request);
		worker_wait(0, NULL, IDLE_WAIT_MS); /* it sets our latch */
		if (settings_changed())
			return false;
	}
	return true;
}

/*
 * Reads the newest decision, as the receivers see it.  Behind it there may be
 * some that came too late, of attempts of ours that ended before they were
 * acknowledged.
 */
static void
read_last_decision(void)
{
	int64		low,
				high;
	int64		found = -1;
	KafkaMessage message;
	WireHeader	header;

	memset(&decision, 0, sizeof(decision));
	decided_at = GetCurrentTimestamp();
	unsure = false;
	overtaken = false;
	kafka_watermarks(consumer, release_topic, &low, &high);
	last_offset = high - 1;
	if (low == high)
		return;
	for (int64 offset = Max(low, high - DECISION_WINDOW); offset < high; offset++)
	{
		WireRelease release;
		WireError	error;

		if (found < 0)
			kafka_read_at(consumer, release_topic, offset, &message);
		else
			kafka_read_next(consumer, offset, &message);
		error = message_decode(&message, &header);
		if (error == WIRE_OK && header.kind != WIRE_RELEASE)
			error = WIRE_BAD_KIND;
		if (error == WIRE_OK)
			error = wire_decode_release(message.body, message.body_len, &release);
		message_check(error, release_topic, &message);
		if (found < 0 || decide_newer(&decision, &release))
		{
			decision = release;
			found = offset;
		}
	}
	if (header.system_id != GetSystemIdentifier())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("topic \"%s\" belongs to another database system", release_topic),
				 errhint("Check multisite.cluster_name, multisite.source_site and multisite.site_name.")));
	if ((uint64) found + 1 < pg_atomic_read_u64(&multisite_shared->release_base))
	{
		WireRelease fresh = {.decision = decision.decision};

		decision = fresh;
	}
}

static void
decision_delivered(void *arg, uint64 tag, int64 offset)
{
	if (offset != last_offset + 1)
		overtaken = true;
	last_offset = offset;
}

static void
decision_overtaken(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("somebody else has written to topic \"%s\"", release_topic),
			 errdetail("It may have been an earlier attempt of this worker. The newest decision is read again.")));
}

/*
 * Publishes a decision; it holds once Kafka has acknowledged it, unless one
 * that we did not know of came before it.
 */
static void
decide(WireRelease next)
{
	WireHeader	header = {
		.kind = WIRE_RELEASE,
		.segment = COORDINATOR_ID,
		.system_id = GetSystemIdentifier(),
		.pg_major = PG_VERSION_NUM / 10000,
		.wal_segment_size = wal_segment_size
	};
	char		body[WIRE_RELEASE_MAX];
	size_t		len;

	next.decision = decision.decision + 1;
	next.status_offset = kafka_next_offset(consumer, FROM_STATUS);
	unsure = true;
	len = wire_encode_release(&next, body, sizeof(body));
	if (!kafka_produce(producer, release_topic, &header, NULL, body, len, NULL, NULL, 0))
		kafka_not_taken(producer);
	kafka_flush(producer, DECISION_TIMEOUT_MS);
	if (overtaken)
		decision_overtaken();
	decision = next;
	decided_at = GetCurrentTimestamp();
	unsure = false;
}

static KnownPoint *
find_point(uint64 id)
{
	for (int i = 0; i < npoints; i++)
	{
		if (points[i].needs.id == id)
			return &points[i];
	}
	return NULL;
}

static KnownPoint *
find_point_by_name(const char *name)
{
	for (int i = 0; i < npoints; i++)
	{
		if (strcmp(points[i].name, name) == 0)
			return &points[i];
	}
	return NULL;
}

/*
 * Segments know the newest HISTORY_SIZE points only, and may have read of more
 * than we have: an older one can no longer be decided.
 */
static bool
too_old(const KnownPoint *point)
{
	return point->needs.id + CHOICE < points[npoints - 1].needs.id;
}

/*
 * Points before the released one are of no use any more, and of those behind
 * it only the newest are, however long nothing can be released.
 */
static void
forget_points(void)
{
	int			kept = 0;

	for (int i = 0; i < npoints; i++)
	{
		uint64		id = points[i].needs.id;

		if (id == decision.released_point || id == decision.promote_point ||
			(id > decision.released_point && !too_old(&points[i])))
			points[kept++] = points[i];
		else
			pfree(unconstify(WireManifestEntry *, points[i].needs.entries));
	}
	npoints = kept;
}

static void
release_point(const KnownPoint *point)
{
	WireRelease next = decision;

	next.released_point = point->needs.id;
	next.points_offset = point->offset;
	next.paused = false;
	strlcpy(next.name, point->name, WIRE_NAME_SIZE);
	decide(next);
	history_reached(point->needs.id, POINT_STAGED, GetCurrentTimestamp());
	history_reached(point->needs.id, POINT_RELEASED, GetCurrentTimestamp());
	forget_points();
}

static void pg_attribute_printf(1, 2)
set_reason(const char *fmt,...)
{
	va_list		args;
	char		reason[REASON_SIZE];

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	strlcpy(multisite_shared->release_reason, reason, REASON_SIZE);
	LWLockRelease(multisite_shared->lock);
}

static const SegmentKnown *
find_known(int32 segment)
{
	for (int i = 0; i < nknown; i++)
	{
		if (known[i].segment == segment)
			return &known[i];
	}
	return NULL;
}

/* Why the newest point waits for a segment, in words. */
static void
explain_wait(const KnownPoint *point, int32 segment)
{
	const SegmentKnown *k = find_known(segment);
	long		silence = segment_silent_for(multisite_site_name, segment);

	if (k == NULL)
		set_reason("point \"%s\" waits for segment %d, of which nothing was heard yet",
				   point->name, segment);
	else if (silence > 0)
		set_reason("point \"%s\" waits for segment %d, which has not been heard of for %ld s",
				   point->name, segment, silence);
	else if (k->status.state == WIRE_SEGMENT_FAILED)
		set_reason("point \"%s\" waits for segment %d, which %s%s",
				   point->name, segment,
				   strncmp(k->status.reason, HAD_FAILED, strlen(HAD_FAILED)) == 0 ? "" : "failed: ",
				   k->status.reason);
	else
	{
		for (uint32 i = 0; i < point->needs.nsegments; i++)
		{
			const WireManifestEntry *entry = &point->needs.entries[i];

			if (entry->segment == segment)
				set_reason("point \"%s\" waits for segment %d to stage %X/%X; it has staged %X/%X",
						   point->name, segment, LSN_FORMAT_ARGS(entry->lsn),
						   LSN_FORMAT_ARGS(k->status.staged_lsn));
		}
	}
}

/* The newest point that may be released, if there is one after the last. */
static const KnownPoint *
newest_releasable(void)
{
	PointHeld	held;
	const KnownPoint *point = decide_newest(points, npoints, decision.released_point,
											known, nknown, &held);

	if (point && too_old(point))
		point = NULL;

	if (held.point == NULL)
		set_reason("no point waits");
	else if (held.verdict == POINT_WAITS)
		explain_wait(held.point, held.blocker);
	else
		set_reason("point \"%s\" lies before the base backup of segment %d",
				   held.point->name, held.blocker);
	return point;
}

/* ------------------------------------------------------------------------
 * Messages
 * ------------------------------------------------------------------------
 */

static void
take_manifest(const KafkaMessage *message)
{
	WireManifest manifest;
	const WireManifestEntry *entries = message_manifest(points_topic, message, &manifest);
	WireManifestEntry *copy;
	KnownPoint *point;
	MemoryContext old;

	if (manifest.id < decision.released_point ||
		(npoints > 0 && manifest.id <= points[npoints - 1].needs.id))
		return;

	if (npoints >= 2 * CHOICE)
		forget_points();
	old = MemoryContextSwitchTo(points_context);
	if (npoints == max_points)
	{
		max_points = Max(max_points * 2, 64);
		points = points ? repalloc(points, max_points * sizeof(KnownPoint)) :
			palloc(max_points * sizeof(KnownPoint));
	}
	copy = palloc(sizeof(WireManifestEntry) * manifest.nsegments);
	memcpy(copy, entries, sizeof(WireManifestEntry) * manifest.nsegments);
	MemoryContextSwitchTo(old);

	point = &points[npoints++];
	point->needs.id = manifest.id;
	point->needs.nsegments = manifest.nsegments;
	point->needs.entries = copy;
	point->offset = message->offset;
	strlcpy(point->name, manifest.name, WIRE_NAME_SIZE);
}

static void
know_segment(int32 segment, const WireStatus *status)
{
	int			at = 0;
	MemoryContext old;

	while (at < nknown && known[at].segment < segment)
		at++;
	if (at == nknown || known[at].segment != segment)
	{
		old = MemoryContextSwitchTo(points_context);
		known = known ? repalloc(known, (nknown + 1) * sizeof(SegmentKnown)) :
			palloc(sizeof(SegmentKnown));
		MemoryContextSwitchTo(old);
		memmove(&known[at + 1], &known[at], (nknown - at) * sizeof(SegmentKnown));
		nknown++;
	}
	known[at].segment = segment;
	known[at].heard = true;
	known[at].status = *status;
	segment_heard(multisite_site_name, segment, status);
}

static void
take_status(const KafkaMessage *message)
{
	WireHeader	header;
	WireStatus	status;

	if (!message_status(message, &header, &status))
		return;
	know_segment(header.segment, &status);
	if (status.withdraws)
		withdrawn_at = message->offset;
}

static void
take_messages(void)
{
	KafkaMessage message;

	kafka_serve(consumer);
	while (kafka_poll(consumer, &message))
	{
		if (message.topic == FROM_STATUS)
			take_status(&message);
		else if (message.topic == FROM_RELEASE)
		{
			/* our own are acknowledged before we come here */
			if (message.offset > last_offset)
				decision_overtaken();
		}
		else
			take_manifest(&message);
	}
}

/* ------------------------------------------------------------------------
 * Promotion and other requests
 * ------------------------------------------------------------------------
 */

static const KnownPoint *
choose_point(const Request *request)
{
	const KnownPoint *point;
	int32		blocker = 0;

	if (!request->has_name)
	{
		point = newest_releasable();
		if (point == NULL)
			point = find_point(decision.released_point);
		if (point == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this site is not yet consistent"),
					 errdetail("No consistency point after the base backups is staged on all segments."),
					 errhint("See multisite_segments for what each of them waits for.")));
	}
	else
		point = find_point_by_name(request->name);
	if (point == NULL)
	{
		PointRecord record;

		if (history_by_name(request->name, &record))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("consistency point \"%s\" is passed", request->name),
					 errdetail("A later one is released already: \"%s\".", decision.name),
					 request->action == ACTION_HOLD_AT ?
					 errhint("Call multisite_pause() before you make the point, or multisite_verify() with its name.") : 0));
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consistency point \"%s\" does not exist", request->name),
				 errhint("See multisite_consistency_points.")));
	}

	if (point->needs.id != decision.released_point && too_old(point))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("consistency point \"%s\" is too old", point->name),
				 errdetail("Segments remember the newest %d points only.", HISTORY_SIZE)));

	/* a released one, too: a segment may have been built anew since */
	switch (decide_point(&point->needs, known, nknown, &blocker))
	{
		case POINT_RELEASABLE:
			break;
		case POINT_WAITS:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("consistency point \"%s\" is not staged on all segments", point->name),
					 errdetail("Segment %d does not have it.", blocker)));
			break;
		case POINT_UNUSABLE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("consistency point \"%s\" cannot be used at this site", point->name),
					 errdetail("It lies before the base backup of segment %d.", blocker),
					 errhint("That segment joins with the next point. If there will be none, promote the other segments by hand, and restore this one by other means.")));
			break;
	}
	return point;
}

static const char *held_by(void);

/* A promotion without Kafka, or the session that begins one, decides alone. */
static bool
is_offline(void)
{
	bool		offline;

	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	offline = multisite_shared->offline ||
		(multisite_shared->holder != 0 && multisite_shared->holder_promotes);
	LWLockRelease(multisite_shared->lock);
	return offline;
}

static void
refuse_beside_offline(void)
{
	if (is_offline())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a promotion without Kafka is under way"),
				 errhint("Call multisite_promote(offline => true).")));
}

static void
decide_promotion(const Request *request)
{
	const KnownPoint *point;
	WireRelease next = decision;

	refuse_beside_offline();
	if (decision.promote_point != 0)
	{
		/* join the one under way, unless it goes elsewhere */
		if (request->has_name && strcmp(request->name, decision.name) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a promotion to consistency point \"%s\" is under way", decision.name)));
		decide(decision);		/* again, for a segment that was made anew */
		return;
	}
	point = choose_point(request);
	next.released_point = next.promote_point = point->needs.id;
	next.points_offset = point->offset;
	next.paused = false;
	strlcpy(next.name, point->name, WIRE_NAME_SIZE);
	decide(next);
	history_reached(point->needs.id, POINT_RELEASED, GetCurrentTimestamp());
	forget_points();
	ereport(LOG,
			(errmsg("promotion of site \"%s\" to consistency point \"%s\" is decided",
					multisite_site_name, point->name)));
}

/*
 * For a session that verifies a point (verify.c), and holds us there.  A pause
 * ends with it: the source's digests come with a later point.
 */
static void
hold_at(const Request *request)
{
	const KnownPoint *point;

	if (decision.promote_point != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a promotion to consistency point \"%s\" is under way", decision.name)));
	refuse_beside_offline();
	if (held_by() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("the session that wanted to hold the site has gone")));
	point = choose_point(request);
	if (point->needs.id != decision.released_point || decision.paused)
		release_point(point);
}

static void
serve_request(const Request *request, char *name)
{
	if (request->action == ACTION_PROMOTE)
		decide_promotion(request);
	else if (request->action == ACTION_HOLD_AT)
		hold_at(request);
	else
	{
		WireRelease next = decision;

		if (decision.promote_point != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a promotion to consistency point \"%s\" is under way", decision.name)));
		next.paused = request->action == ACTION_PAUSE;
		if (next.paused != decision.paused)
			decide(next);
	}
	strlcpy(name, decision.name, WIRE_NAME_SIZE);
}

/* The segments that the coordinator's promotion waits for, in words; palloc'd. */
static char *
not_promoted(const PointNeeds *needs)
{
	StringInfoData buf;
	int			n = 0;

	initStringInfo(&buf);
	for (uint32 i = 0; i < needs->nsegments; i++)
	{
		int32		segment = needs->entries[i].segment;
		const SegmentKnown *k = find_known(segment);
		long		silence;

		if (segment == COORDINATOR_ID || (k && k->status.promoted_point == needs->id))
			continue;
		if (++n > NAMED_SEGMENTS)
			continue;
		silence = segment_silent_for(multisite_site_name, segment);
		appendStringInfo(&buf, "%s%d", n > 1 ? ", " : "", segment);
		if (silence > 0)
			appendStringInfo(&buf, " (which has not been heard of for %ld s)", silence);
	}
	if (n > NAMED_SEGMENTS)
		appendStringInfo(&buf, " and %d more", n - NAMED_SEGMENTS);
	return buf.data;
}

/* Lets the coordinator follow once all others accept writes. */
static void
drive_promotion(void)
{
	const KnownPoint *point = find_point(decision.promote_point);
	WireRelease next = decision;

	if (point == NULL)
	{
		worker_set_state(WORKER_PROMOTING, "reads the point of the promotion");
		return;
	}
	if (!decision.segments_promoted)
	{
		if (!decide_others_promoted(&point->needs, known, nknown, COORDINATOR_ID))
		{
			char	   *names = not_promoted(&point->needs);

			worker_set_state(WORKER_PROMOTING, "waits for segment %s to be promoted at \"%s\"", names, decision.name);
			pfree(names);
			return;
		}
		next.segments_promoted = true;
		decide(next);
	}
	worker_set_state(WORKER_PROMOTING, "waits for the coordinator to be promoted at \"%s\"", decision.name);
}

/* ------------------------------------------------------------------------
 * Sessions that hold the site where it is
 * ------------------------------------------------------------------------
 */

void
orchestrator_hold(bool promotes)
{
	pid_t		other;

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	other = multisite_shared->holder;
	if (other == 0)
	{
		multisite_shared->holder = MyProcPid;
		multisite_shared->holder_promotes = promotes;
	}
	LWLockRelease(multisite_shared->lock);
	if (other != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session verifies a consistency point, or promotes the site"),
				 errdetail("Its process is %d.", (int) other)));
}

void
orchestrator_let_go(int code, Datum arg)
{
	bool		ours;

	LWLockAcquire(multisite_shared->lock, LW_EXCLUSIVE);
	ours = multisite_shared->holder == MyProcPid;
	if (ours)
		multisite_shared->holder = 0;
	LWLockRelease(multisite_shared->lock);
	if (ours)
		worker_wake(WORKER_ORCHESTRATOR);
}

/* Why nothing may be released, besides a pause; NULL if nothing is in the way */
static const char *
held_by(void)
{
	const char *reason = NULL;

	LWLockAcquire(multisite_shared->lock, LW_SHARED);
	if (multisite_shared->offline)
		reason = "the site is promoted without Kafka";
	else if (multisite_shared->holder != 0)
		reason = "a session verifies a consistency point";
	LWLockRelease(multisite_shared->lock);
	return reason;
}

/* ------------------------------------------------------------------------
 * The worker
 * ------------------------------------------------------------------------
 */

/* The smallest of a figure over the segments of the newest point. */
static uint64
least(size_t field)
{
	const PointNeeds *needs = &points[npoints - 1].needs;
	uint64		result = PG_UINT64_MAX;
	int			k = 0;

	for (uint32 i = 0; i < needs->nsegments; i++)
	{
		while (k < nknown && known[k].segment < needs->entries[i].segment)
			k++;
		if (k == nknown || known[k].segment != needs->entries[i].segment)
			return 0;
		result = Min(result, *(const uint64 *) ((const char *) &known[k].status + field));
	}
	return result;
}

/* Points before a segment's base backup are those that the site is never at. */
static void
note_unusable(void)
{
	const PointNeeds *needs = &points[npoints - 1].needs;
	uint64		upto = 0;

	if (least(offsetof(WireStatus, base_lsn)) == 0)
		return;					/* one has not begun yet */
	for (uint32 i = 0; i < needs->nsegments; i++)
		upto = Max(upto, find_known(needs->entries[i].segment)->status.base_point);
	history_unusable(upto);
}

static void
note_progress(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (npoints == 0)
		return;
	note_unusable();
	history_reached(least(offsetof(WireStatus, staged_point)), POINT_STAGED, now);
	history_reached(least(offsetof(WireStatus, applied_point)), POINT_APPLIED, now);
}

/* False if a setting changed before it was done. */
static bool
open_topics(void)
{
	const char *names[NUM_TOPICS];
	int64		offsets[NUM_TOPICS];
	int64		low;

	worker_set_state(WORKER_CONNECTING, "connects to Kafka");
	points_topic = topic_points(multisite_source_site);
	status_topic = topic_status(multisite_source_site, multisite_site_name);
	release_topic = topic_release(multisite_source_site, multisite_site_name);
	producer = kafka_open_producer(1024 * 1024, decision_delivered, NULL);
	consumer = kafka_open_consumer(CONSUMER_FOLLOWS, producer);
	kafka_ensure_topic(producer, status_topic, TOPIC_STATUS);
	kafka_ensure_topic(producer, release_topic, TOPIC_PIPE);
	while (!kafka_topic_exists(consumer, points_topic))
	{
		worker_set_state(WORKER_CONNECTING, "waits for topic %s, which the source coordinator creates", points_topic);
		worker_serve_request(refuse_request);
		worker_wait(0, NULL, TOPIC_CHECK_MS);
		if (settings_changed())
			return false;
	}
	if (!wait_for_receiver())
		return false;
	kafka_watermarks(consumer, points_topic, &low, &ends[FROM_POINTS]);
	kafka_watermarks(consumer, status_topic, &offsets[FROM_STATUS], &ends[FROM_STATUS]);
	read_last_decision();
	ends_asked_at = GetCurrentTimestamp();

	names[FROM_POINTS] = points_topic;
	offsets[FROM_POINTS] = Max(low, decision.released_point ?
							   (int64) decision.points_offset : ends[FROM_POINTS] - HISTORY_SIZE);
	/* Kafka has lost some; those that we know are taken once, by their ids */
	if (offsets[FROM_POINTS] > ends[FROM_POINTS])
		offsets[FROM_POINTS] = low;
	names[FROM_STATUS] = status_topic;
	names[FROM_RELEASE] = release_topic;
	offsets[FROM_RELEASE] = last_offset + 1;
	kafka_assign(consumer, NUM_TOPICS, names, offsets);
	return true;
}

/* Nothing is decided, and no request refused, before all there is was read. */
static bool
all_read(void)
{
	const char *const names[FROM_RELEASE] = {[FROM_POINTS] = points_topic, [FROM_STATUS] = status_topic};
	bool		all = true;

	for (int i = 0; i < FROM_RELEASE; i++)
	{
		int64		low,
					high;

		if (kafka_next_offset(consumer, i) >= ends[i])
			continue;
		all = false;
		/* Kafka may have lost the end of it meanwhile */
		if (TimestampDifferenceExceeds(ends_asked_at, GetCurrentTimestamp(), ENDS_CHECK_MS))
		{
			ends_asked_at = GetCurrentTimestamp();
			kafka_watermarks(consumer, names[i], &low, &high);
			ends[i] = Min(ends[i], high);
		}
	}
	return all;
}

/* Has a segment that is there not read the newest decision? */
static bool
missed_by_some(void)
{
	const KnownPoint *point;

	if (!TimestampDifferenceExceeds(decided_at, GetCurrentTimestamp(), TELL_AGAIN_MS))
		return false;
	point = find_point(decision.released_point);
	for (uint32 i = 0; point && i < point->needs.nsegments; i++)
	{
		int32		segment = point->needs.entries[i].segment;
		const SegmentKnown *k = find_known(segment);

		if (k && decide_missed(&decision, &k->status) &&
			segment_silent_for(multisite_site_name, segment) == 0)
			return true;
	}
	return false;
}

/*
 * Does a segment of a point, or one that we know nothing of, need it soon?
 * What is not released has to be checked again by a new attempt of a receiver,
 * and whoever promotes a segment by hand does without it: so it is not more
 * than some, nor for long.
 */
static bool
is_needed(const KnownPoint *point)
{
	if (TimestampDifferenceExceeds(decided_at, GetCurrentTimestamp(), HOLD_BACK_MS))
		return true;
	for (uint32 i = 0; i < point->needs.nsegments; i++)
	{
		const WireManifestEntry *entry = &point->needs.entries[i];
		const SegmentKnown *k = find_known(entry->segment);

		if (k == NULL || decide_hungry(&k->status) ||
			entry->lsn > k->status.released_lsn + HOLD_BACK_BYTES)
			return true;
	}
	return false;
}

/* Carries out what is asked for, and releases what can be. */
static void
serve(void)
{
	const KnownPoint *point;

	worker_serve_request(serve_request);
	if (unsure)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("Kafka did not acknowledge a decision in time"),
				 errdetail("It may have it all the same. The newest decision is read again.")));
	/* a segment waits to hear that we know what it has lost, or has not heard */
	if ((decide_answer(&decision, withdrawn_at, kafka_next_offset(consumer, FROM_STATUS)) ||
		 missed_by_some()) &&
		!is_offline())
		decide(decision);
	note_progress();
	if (decision.promote_point != 0)
		drive_promotion();
	else
	{
		point = newest_releasable();
		if (point != NULL && !decision.paused && held_by() == NULL)
		{
			if (is_needed(point))
				release_point(point);
			else
				set_reason("point \"%s\" is staged, and waits until recovery on a segment is nearly done with the last one",
						   point->name);
		}
		if (held_by())
			worker_set_state(WORKER_PAUSED, "%s", held_by());
		else if (decision.paused)
			worker_set_state(WORKER_PAUSED, "releases nothing until multisite_resume()");
		else if (kafka_trouble(consumer))
			worker_set_state(WORKER_CONNECTING, "Kafka cannot be reached: %s", kafka_trouble(consumer));
		else
			worker_set_state(WORKER_WAITING, "%s", multisite_shared->release_reason);
	}
}

static AttemptEnd
orchestrator_attempt(void)
{
	struct stat st;

	fingerprint = kafka_settings_fingerprint();
	if (!AM_COORDINATOR() || stat(STANDBY_SIGNAL_FILE, &st) != 0)
	{
		worker_set_state(WORKER_STOPPED, AM_COORDINATOR() ? "this server is no standby" :
						 "points are released by the coordinator of the site");
		return ATTEMPT_FINISHED;
	}
	if (multisite_cluster_name[0] == '\0' || multisite_source_site[0] == '\0')
	{
		worker_disabled(multisite_cluster_name[0] == '\0' ?
						"multisite.cluster_name is not set" : "multisite.source_site is not set");
		return ATTEMPT_AGAIN;
	}
	settings_check_source_site();

	points_context = AllocSetContextCreate(CurrentMemoryContext, "multisite points",
										   ALLOCSET_DEFAULT_SIZES);
	points = NULL;
	npoints = max_points = 0;
	known = NULL;
	nknown = 0;
	withdrawn_at = -1;
	if (!open_topics())
		return ATTEMPT_AGAIN;

	for (;;)
	{
		pgsocket	sockets[2] = {kafka_socket(consumer), kafka_socket(producer)};

		take_messages();
		kafka_serve(producer);
		if (all_read())
			serve();
		else if (kafka_trouble(consumer))
			worker_set_state(WORKER_CONNECTING, "Kafka cannot be reached: %s", kafka_trouble(consumer));
		else
			worker_set_state(WORKER_CONNECTING, "reads which points there are, and what each segment has of them");
		if (!kafka_trouble(consumer))
			worker_is_well();
		if (!RecoveryInProgress())
		{
			worker_set_state(WORKER_PROMOTED, "this server accepts writes");
			return ATTEMPT_FINISHED;
		}
		worker_wait(2, sockets, IDLE_WAIT_MS);
		if (settings_changed())
			return ATTEMPT_AGAIN;
	}
}

static void
orchestrator_release(void)
{
	kafka_close(consumer);
	consumer = NULL;
	kafka_close(producer);
	producer = NULL;
}

void
multisite_orchestrator_main(Datum arg)
{
	static const WorkerRoutine routine = {
		.kind = WORKER_ORCHESTRATOR,
		.attempt = orchestrator_attempt,
		.release = orchestrator_release
	};

	worker_main(&routine);
}
