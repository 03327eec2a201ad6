/*-------------------------------------------------------------------------
 *
 * decide.c
 *	  The decisions that keep the promises.  See decide.h.
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "decide.h"

/* Timelines in a history; nobody fails over so often. */
#define MAX_FORKS	64

/*
 * A foreign message must be named as such whatever else it says, and a
 * publisher that lost its claim is ignored before its bytes are looked at,
 * since it may write other bytes at LSNs that we have.
 */
PipeVerdict
decide_origin(const PipePosition *position, const WireHeader *header)
{
	if (header->segment != position->segment)
		return PIPE_WRONG_SEGMENT;
	/* before the system, which is another one, too, when one site was upgraded */
	if (header->pg_major != position->pg_major)
		return PIPE_WRONG_VERSION;
	if (header->system_id != position->system_id)
		return PIPE_WRONG_SYSTEM;
	if (header->wal_segment_size != position->wal_segment_size)
		return PIPE_WRONG_SEGMENT_SIZE;
	if (header->epoch < position->epoch)
		return header->kind == WIRE_CLAIM ? PIPE_MADE_ANEW : PIPE_STALE_CLAIM;
	return PIPE_TAKE;
}

static bool
is_behind(const WireHeader *header, uint32 timeline, uint64 lsn)
{
	uint64		end = header->lsn + (header->kind == WIRE_WAL ? header->length : 0);

	return header->timeline > timeline ||
		(header->timeline == timeline && end > lsn);
}

/*
 * Within a pipe, (timeline, end) grows, so a binary search finds the place,
 * but for this: behind a claim may be messages of the publisher that lost it.
 * The search may end at one of those, so what is around is read one by one.
 */
int64
decide_find_start(int64 low, int64 high, int64 window, PipeReader read, void *arg,
				  uint64 system_id, uint32 timeline, uint64 lsn, uint32 *epoch)
{
	int64		end = high;
	int64		first = low;
	int64		offset;

	while (first < high)
	{
		int64		middle = first + (high - first) / 2;
		WireHeader	header = read(arg, middle);

		if (is_behind(&header, timeline, lsn))
			high = middle;
		else
			first = middle + 1;
	}

	*epoch = 0;
	for (offset = Max(low, first - window); offset < end; offset++)
	{
		WireHeader	header = read(arg, offset);

		if (header.system_id != system_id)
			continue;
		if (header.epoch >= *epoch && is_behind(&header, timeline, lsn))
			break;
		*epoch = Max(*epoch, header.epoch);
	}
	return offset;
}

/* May a receiver append the WAL of this message, and what of it? */
PipeVerdict
decide_wal(const PipePosition *position, const WireHeader *header, uint32 *skip)
{
	uint64		end = header->lsn + header->length;
	PipeVerdict origin = decide_origin(position, header);

	*skip = 0;
	if (origin != PIPE_TAKE)
		return origin;

	if (header->timeline < position->timeline)
	{
		/*
		 * An older timeline under a valid claim is a repetition of what led
		 * to ours, if it does not reach past what we have.
		 */
		return end <= position->lsn ? PIPE_DUPLICATE : PIPE_UNKNOWN_TIMELINE;
	}

	if (header->timeline > position->timeline)
	{
		if (header->timeline != position->next_timeline)
			return PIPE_UNKNOWN_TIMELINE;
		if (position->switch_lsn < position->released_lsn)
			return PIPE_RELEASED_PAST_FORK;
		if (position->switch_lsn > position->lsn)
			return PIPE_GAP;	/* the old timeline's end is missing */
		if (header->lsn > position->switch_lsn)
			return PIPE_GAP;
		if (end <= position->switch_lsn)
			return PIPE_DUPLICATE;
		*skip = (uint32) (position->switch_lsn - header->lsn);
		return PIPE_SWITCH;
	}

	if (header->lsn > position->lsn)
		return PIPE_GAP;
	if (end <= position->lsn)
		return PIPE_DUPLICATE;
	*skip = (uint32) (position->lsn - header->lsn);
	return PIPE_TAKE;
}

/*
 * A history file has a line for each ancestor: its id, the LSN at which it
 * was left, and a reason; '#' starts a comment.  See readTimeLineHistory()
 * in src/backend/access/transam/timeline.c.
 */
int
decide_parse_history(const char *text, size_t len, TimelineFork *forks, int max_forks)
{
	int			n = 0;
	size_t		at = 0;

	while (at < len)
	{
		char		line[128];
		size_t		start = at;
		size_t		line_len;
		unsigned int tli,
					hi,
					lo;
		char	   *p = line;

		while (at < len && text[at] != '\n')
			at++;
		line_len = Min(at - start, sizeof(line) - 1);
		memcpy(line, text + start, line_len);
		line[line_len] = '\0';
		at++;

		while (*p == ' ' || *p == '\t' || *p == '\r')
			p++;
		if (*p == '\0' || *p == '#')
			continue;
		if (sscanf(p, "%u %X/%X", &tli, &hi, &lo) != 3 || tli == 0 ||
			n >= max_forks ||
			(n > 0 && tli <= forks[n - 1].timeline))
			return -1;
		forks[n].timeline = tli;
		forks[n].end_lsn = ((uint64) hi << 32) | lo;
		n++;
	}
	return n;
}

uint64
decide_fork_of(const TimelineFork *forks, int nforks, uint32 ancestor)
{
	for (int i = 0; i < nforks; i++)
	{
		if (forks[i].timeline == ancestor)
			return forks[i].end_lsn;
	}
	return 0;
}

HistoryVerdict
decide_history(const PipePosition *position, const WireHeader *header,
			   const char *text, size_t len, uint64 *fork)
{
	TimelineFork forks[MAX_FORKS];
	int			nforks;

	if (header->timeline <= position->timeline)
		return HISTORY_KNOWN;
	nforks = decide_parse_history(text, len, forks, lengthof(forks));
	*fork = nforks > 0 ? decide_fork_of(forks, nforks, position->timeline) : 0;
	return *fork != 0 ? HISTORY_FOLLOWS : HISTORY_FOREIGN;
}

uint32
decide_timeline_at(uint32 first, const TimelineSwitch *switches, int nswitches, uint64 lsn)
{
	uint32		timeline = first;

	for (int i = 0; i < nswitches; i++)
	{
		if (switches[i].begin < lsn)
			timeline = switches[i].timeline;
	}
	return timeline;
}

/*
 * If the WAL here is of a later timeline than the point, the source has left
 * the point's before it: its segment failed over to a standby that had not
 * got that far.  If it is of an earlier one, the later one is still to come.
 */
StagedVerdict
decide_staged(uint32 timeline, uint64 lsn, uint32 timeline_here,
			  uint64 released_lsn, uint64 valid_end)
{
	if (lsn < released_lsn)
		return STAGED_BEFORE;
	if (timeline < timeline_here)
		return STAGED_VOID;
	if (lsn > valid_end || timeline > timeline_here)
		return STAGED_WAITS;
	return lsn == released_lsn ? STAGED_RELEASED : STAGED_HERE;
}

bool
decide_newer(const WireRelease *newest, const WireRelease *release)
{
	return release->decision > newest->decision;
}

bool
decide_release(const WireRelease *newest, uint64 released_point, uint64 staged_point)
{
	return newest->released_point > released_point &&
		newest->released_point <= staged_point;
}

bool
decide_answer(const WireRelease *newest, int64 withdrawn_at, int64 status_end)
{
	return withdrawn_at >= newest->status_offset || newest->status_offset > status_end;
}

bool
decide_missed(const WireRelease *newest, const WireStatus *status)
{
	return status->state == WIRE_SEGMENT_FOLLOWING &&
		status->staged_point >= newest->released_point &&
		status->passed_point < newest->released_point &&
		(status->released_point < newest->released_point || newest->promote_point != 0);
}

bool
decide_hungry(const WireStatus *status)
{
	return status->replay_rate == 0 ||
		status->applied_lsn + status->replay_rate >= status->released_lsn;
}

bool
decide_leave(const WireRelease *newest, uint64 behind, int64 withdrawn_at)
{
	return withdrawn_at >= 0 && newest->decision > behind &&
		newest->status_offset > withdrawn_at;
}

PromotionStep
decide_promotion_step(const WireRelease *newest, bool coordinator,
					  uint64 released_point, uint64 applied_point)
{
	if (newest->promote_point == 0)
		return PROMOTION_NONE;
	if (released_point < newest->promote_point)
		return PROMOTION_STAGES;
	if (applied_point < newest->promote_point)
		return PROMOTION_APPLIES;
	if (coordinator && !newest->segments_promoted)
		return PROMOTION_OTHERS;
	return PROMOTION_NOW;
}

/*
 * May a server claim a pipe whose last claim is the given one (last is NULL
 * when there is none)?  A copy of the server with the same postgresql.conf
 * would write other bytes at the same LSNs; only a higher timeline proves
 * that its WAL has left the old one's.
 */
ClaimVerdict
decide_claim(const WireHeader *last, const WireClaim *last_claim,
			 uint64 system_id, const WireClaim *ours, bool take_over)
{
	if (last == NULL)
		return CLAIM_FREE;
	if (last->system_id != system_id)
		return CLAIM_FOREIGN_SYSTEM;
	if (memcmp(last_claim->identity, ours->identity, WIRE_IDENTITY_SIZE) == 0 &&
		strcmp(last_claim->host, ours->host) == 0 &&
		strcmp(last_claim->data_directory, ours->data_directory) == 0)
		return CLAIM_OURS;
	if (ours->timeline < last_claim->timeline)
		return CLAIM_STALE;
	if (ours->timeline > last_claim->timeline)
		return CLAIM_FAILOVER;
	return take_over ? CLAIM_TAKE_OVER : CLAIM_COPY;
}

/*
 * It is the first message of its number, so a binary search finds it, but for
 * those of publishers that had lost their claim: see decide_find_start().  Of
 * two claims with the same number the second has ended its publisher.
 */
int64
decide_find_claim(int64 low, int64 high, int64 window, PipeReader read, void *arg,
				  uint32 epoch)
{
	int64		first = low;
	int64		end = high;

	while (first < high)
	{
		int64		middle = first + (high - first) / 2;

		if (read(arg, middle).epoch >= epoch)
			high = middle;
		else
			first = middle + 1;
	}
	for (int64 offset = Max(low, first - window); offset <= first && offset < end; offset++)
	{
		WireHeader	header = read(arg, offset);

		if (header.kind == WIRE_CLAIM && header.epoch == epoch)
			return offset;
	}
	return -1;
}

/*
 * Claims and histories do not count where there is WAL: the publisher may
 * have ended before the WAL that they announce came.  If a newer number comes
 * without its claim, that was before the first message that we took, and what
 * came since is of a publisher that had lost its own.
 */
void
decide_pipe_end(WireHeader *end, uint32 *epoch, const WireHeader *header)
{
	bool		newer = header->epoch > *epoch;

	if (header->epoch < *epoch)
		return;
	*epoch = header->epoch;
	if (end->kind != WIRE_WAL || header->system_id != end->system_id ||
		(newer && header->kind != WIRE_CLAIM) ||
		(header->kind == WIRE_WAL &&
		 is_behind(header, end->timeline, end->lsn + end->length)))
		*end = *header;
}

bool
decide_outclaimed(uint32 epoch, bool claiming, const WireHeader *other)
{
	return other->epoch > epoch || (claiming && other->epoch == epoch);
}

/*
 * A publisher goes on where the pipe ends, or, if its server has left that
 * timeline before that place, where it left it.
 */
StartVerdict
decide_start(const ServerPosition *server, const WireHeader *end,
			 uint32 *timeline, uint64 *lsn)
{
	uint64		fork;

	*timeline = server->timeline;
	if (end == NULL)
	{
		/* WAL before this timeline is the old site's */
		*lsn = server->slot_lsn;
		if (server->nforks > 0)
			*lsn = Max(*lsn, server->forks[server->nforks - 1].end_lsn);
		return server->timeline > 1 ? START_ENTER : START_AT;
	}
	*lsn = end->lsn + (end->kind == WIRE_WAL ? end->length : 0);
	if (end->timeline > server->timeline)
		return START_OLD_TIMELINE;
	if (end->timeline == server->timeline)
	{
		if (*lsn > server->flush_lsn)
			return START_BEHIND;
	}
	else
	{
		fork = server->nforks > 0 ?
			decide_fork_of(server->forks, server->nforks, end->timeline) : 0;
		if (fork == 0)
			return START_FOREIGN_TIMELINE;
		if (*lsn >= fork)
		{
			/* the walsender streams nothing of a timeline from its very end on */
			for (int i = server->nforks - 1; i >= 0 && server->forks[i].timeline > end->timeline; i--)
				*timeline = server->forks[i].timeline;
			*lsn = fork;
			return START_ENTER;
		}
		/* the rest of the old timeline comes first */
		*timeline = end->timeline;
	}

	/*
	 * A claim tells where its publisher went on.  If no WAL is there, that one
	 * may have ended before it published the history of that timeline.
	 */
	return end->kind == WIRE_CLAIM && *timeline > 1 ? START_ENTER : START_AT;
}

/*
 * A margin of one segment: if Kafka loses what it had acknowledged, the pipe
 * can be filled again from where it ends then.
 */
uint64
decide_slot(uint64 acked, uint32 wal_segment_size)
{
	return acked > wal_segment_size ? acked - wal_segment_size : 0;
}

/*
 * However long Kafka is away, the remote sites must find all of the points
 * that wait for it when it is back: they keep a few thousand, and the
 * manifests come before their WAL.  So the points get fewer as time goes on, to
 * about 64 * ln(t / interval) after t: some 500 in a day, 100 more in a week.
 * The remote site then gets on in steps of a 64th of what lies behind it.
 */
int64
decide_point_interval(int64 interval, int64 unacknowledged)
{
	return Max(interval, unacknowledged / 64);
}

/*
 * May a point be released?  Only when every segment that it names has it on
 * disk: the loss of Kafka and of the source site at once then still leaves
 * every segment able to reach it.
 */
PointVerdict
decide_point(const PointNeeds *point, const SegmentKnown *known, int nknown,
			 int32 *blocker)
{
	PointVerdict verdict = POINT_RELEASABLE;
	int			k = 0;

	for (uint32 i = 0; i < point->nsegments; i++)
	{
		int32		segment = point->entries[i].segment;

		while (k < nknown && known[k].segment < segment)
			k++;
		if (k >= nknown || known[k].segment != segment || !known[k].heard)
		{
			if (verdict == POINT_RELEASABLE)
			{
				verdict = POINT_WAITS;
				*blocker = segment;
			}
			continue;
		}
		/* it stands there, or can go there, whatever has become of later ones */
		if (known[k].status.released_point == point->id ||
			known[k].status.staged_point == point->id)
			continue;
		if (known[k].status.passed_point >= point->id)
		{
			*blocker = segment;
			return POINT_UNUSABLE;
		}
		if (known[k].status.staged_point < point->id &&
			verdict == POINT_RELEASABLE)
		{
			verdict = POINT_WAITS;
			*blocker = segment;
		}
	}
	return verdict;
}

/*
 * A newer point makes the ones before it superfluous.  Whoever holds back a
 * newer point by what it has staged holds back this one, too, unless it has
 * staged that.
 */
const KnownPoint *
decide_newest(const KnownPoint *points, int npoints, uint64 released,
			  const SegmentKnown *known, int nknown, PointHeld *held)
{
	uint64		ceiling = PG_UINT64_MAX;

	held->point = NULL;
	for (int i = npoints - 1; i >= 0 && points[i].needs.id > released; i--)
	{
		int32		blocker = 0;
		PointVerdict verdict;

		if (points[i].needs.id > ceiling)
			continue;
		verdict = decide_point(&points[i].needs, known, nknown, &blocker);
		if (verdict == POINT_RELEASABLE)
			return &points[i];
		if (held->point == NULL)
		{
			held->point = &points[i];
			held->verdict = verdict;
			held->blocker = blocker;
		}
		for (int k = 0; k < nknown && verdict == POINT_WAITS; k++)
		{
			if (known[k].segment == blocker)
				ceiling = known[k].status.staged_point;
		}
	}
	return NULL;
}

bool
decide_others_promoted(const PointNeeds *point, const SegmentKnown *known, int nknown,
					   int32 coordinator)
{
	int			k = 0;

	for (uint32 i = 0; i < point->nsegments; i++)
	{
		int32		segment = point->entries[i].segment;

		if (segment == coordinator)
			continue;
		while (k < nknown && known[k].segment < segment)
			k++;
		if (k == nknown || known[k].segment != segment ||
			known[k].status.promoted_point != point->id)
			return false;
	}
	return true;
}

static bool
has_point(const SegmentStaged *segment, uint64 point)
{
	/* one that is promoted has put its points away but for that one */
	if (segment->promotion != 0)
		return segment->promotion == point;
	for (int i = 0; i < segment->npoints; i++)
	{
		if (segment->points[i] == point)
			return true;
	}
	return false;
}

/* The first segment that does not have the point, or NULL */
static const SegmentStaged *
who_lacks(const SegmentStaged *segments, int nsegments, uint64 point)
{
	for (int i = 0; i < nsegments; i++)
	{
		if (!has_point(&segments[i], point))
			return &segments[i];
	}
	return NULL;
}

OfflineVerdict
decide_offline(const SegmentStaged *segments, int nsegments, uint64 wanted,
			   uint64 *point, int32 *blocker)
{
	const SegmentStaged *lacking;

	/* where one segment has begun to go, all must go */
	for (int i = 0; i < nsegments; i++)
	{
		if (segments[i].promotion == 0)
			continue;
		*point = segments[i].promotion;
		*blocker = segments[i].segment;
		if (wanted != 0 && wanted != *point)
			return OFFLINE_UNDER_WAY;
		wanted = *point;
	}
	if (wanted == 0)
	{
		for (int i = segments[0].npoints - 1; i >= 0; i--)
		{
			*point = segments[0].points[i];
			if (who_lacks(segments, nsegments, *point) == NULL)
				return OFFLINE_AT;
		}
		return OFFLINE_NONE;
	}
	*point = wanted;
	lacking = who_lacks(segments, nsegments, wanted);
	if (lacking == NULL)
		return OFFLINE_AT;
	*blocker = lacking->segment;
	return OFFLINE_LACKS;
}

/* How far the clocks of two segments may differ: microseconds. */
#define CLOCK_DIFFERENCE	INT64CONST(10000000)

/*
 * Is the outcome that other knows of the transaction that is prepared on us,
 * or of an earlier one of the same gid?  An outcome comes after all PREPAREs,
 * but the clocks may differ.  So one that seems to be older counts, too, if it
 * is by less than they may differ, and if nothing is known of an earlier
 * transaction of that gid.
 */
static bool
outcome_counts(const GidKnown *us, const GidKnown *other)
{
	if (other->outcome == GID_NO_OUTCOME || other->prepared)
		return false;
	if (other->ended_at >= us->prepared_at)
		return true;
	return us->prepared_at - other->ended_at <= CLOCK_DIFFERENCE &&
		us->outcomes == 0 && other->outcomes == 1;
}

DoubtVerdict
decide_in_doubt(const GidKnown *known, int nknown, int self, bool *counts)
{
	bool		committed = false;
	bool		rolled_back = false;

	for (int i = 0; i < nknown; i++)
	{
		counts[i] = i != self && outcome_counts(&known[self], &known[i]);
		committed |= counts[i] && known[i].outcome == GID_COMMITTED;
		rolled_back |= counts[i] && known[i].outcome == GID_ROLLED_BACK;
	}
	if (committed && rolled_back)
		return DOUBT_CONTRADICTION;
	return committed ? DOUBT_COMMIT : rolled_back ? DOUBT_ROLLBACK : DOUBT_UNKNOWN;
}
