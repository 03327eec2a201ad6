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
		return PIPE_STALE_CLAIM;
	return PIPE_TAKE;
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
