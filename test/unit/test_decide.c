/*-------------------------------------------------------------------------
 *
 * test_decide.c
 *	  The decisions, case by case.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "decide.h"

static PipePosition
position(void)
{
	PipePosition p = {.system_id = 1,.segment = 0,.pg_major = 15,.wal_segment_size = 1 << 24,.epoch = 5,
	.timeline = 2,.lsn = 1000,.released_lsn = 500};

	return p;
}

static WireHeader
wal(uint64 lsn, uint32 length)
{
	WireHeader	h = {.kind = WIRE_WAL,.segment = 0,.epoch = 5,.timeline = 2,.length = length,.system_id = 1,.lsn = lsn,
	.pg_major = 15,.wal_segment_size = 1 << 24};

	return h;
}

static PipeVerdict
verdict(PipePosition p, WireHeader h, uint32 *skip)
{
	return decide_wal(&p, &h, skip);
}

static void
test_wal(void)
{
	PipePosition p = position();
	WireHeader	h;
	uint32		skip;

	ok(verdict(p, wal(1000, 10), &skip) == PIPE_TAKE && skip == 0, "what continues is taken");
	ok(verdict(p, wal(990, 20), &skip) == PIPE_TAKE && skip == 10, "an overlap is trimmed");
	ok(verdict(p, wal(990, 10), &skip) == PIPE_DUPLICATE, "a duplicate is dropped");
	ok(verdict(p, wal(1001, 10), &skip) == PIPE_GAP, "a gap is refused");

	h = wal(1000, 10);
	h.segment = 1;
	ok(verdict(p, h, &skip) == PIPE_WRONG_SEGMENT, "another segment");
	h = wal(1000, 10);
	h.system_id = 2;
	ok(verdict(p, h, &skip) == PIPE_WRONG_SYSTEM, "another system");
	h = wal(1000, 10);
	h.pg_major = 16;
	ok(verdict(p, h, &skip) == PIPE_WRONG_VERSION, "another major version");
	h.system_id = 2;
	ok(verdict(p, h, &skip) == PIPE_WRONG_VERSION, "a source that was upgraded is told from another system");
	h = wal(1000, 10);
	h.wal_segment_size = 1 << 20;
	ok(verdict(p, h, &skip) == PIPE_WRONG_SEGMENT_SIZE, "another wal_segment_size");
	h = wal(1000, 10);
	h.epoch = 4;
	ok(verdict(p, h, &skip) == PIPE_STALE_CLAIM, "a claim that was lost");
	h.kind = WIRE_CLAIM;
	ok(decide_origin(&p, &h) == PIPE_MADE_ANEW, "an older claim, as such");
	h.kind = WIRE_WAL;
	h.epoch = 6;
	ok(verdict(p, h, &skip) == PIPE_TAKE, "a newer claim");

	h = wal(900, 50);
	h.timeline = 1;
	ok(verdict(p, h, &skip) == PIPE_DUPLICATE, "what led to our timeline, again");
	h = wal(1000, 50);
	h.timeline = 1;
	ok(verdict(p, h, &skip) == PIPE_UNKNOWN_TIMELINE, "a left timeline goes on");

	h = wal(800, 300);
	h.timeline = 3;
	ok(verdict(p, h, &skip) == PIPE_UNKNOWN_TIMELINE, "a timeline without history");
	p.next_timeline = 3;
	p.switch_lsn = 900;
	ok(verdict(p, h, &skip) == PIPE_SWITCH && skip == 100, "a timeline that left ours before our end");
	p.switch_lsn = 1000;
	ok(verdict(p, h, &skip) == PIPE_SWITCH && skip == 200, "a timeline that left ours at our end");
	p.switch_lsn = 1001;
	ok(verdict(p, h, &skip) == PIPE_GAP, "a timeline that left ours behind our end");
	p.switch_lsn = 499;
	ok(verdict(p, h, &skip) == PIPE_RELEASED_PAST_FORK, "a timeline that left ours before what is released");
	p.switch_lsn = 500;
	ok(verdict(p, h, &skip) == PIPE_GAP, "a new timeline whose beginning is missing");
	h = wal(500, 10);
	h.timeline = 3;
	ok(verdict(p, h, &skip) == PIPE_SWITCH && skip == 0, "a timeline that left ours where we released");
}

static void
test_history(void)
{
	const char *text = "1\t0/3000000\tno recovery target specified\n\n# comment\n2\t1/A0\tbefore 2000\n";
	TimelineFork forks[4];

	ok(decide_parse_history(text, strlen(text), forks, 4) == 2, "a history has two forks");
	ok(decide_fork_of(forks, 2, 1) == 0x3000000 && decide_fork_of(forks, 2, 2) == UINT64CONST(0x1000000A0), "at these LSNs");
	ok(decide_fork_of(forks, 2, 3) == 0, "and not of timeline 3");
	ok(decide_parse_history(text, strlen(text), forks, 1) == -1, "more forks than there is room for");
	ok(decide_parse_history("nonsense\n", 9, forks, 4) == -1, "nonsense");
	ok(decide_parse_history("2\t0/10\n1\t0/20\n", 14, forks, 4) == -1, "timelines out of order");
	ok(decide_parse_history("", 0, forks, 4) == 0, "an empty history");

	{
		PipePosition p = position();
		WireHeader	h = wal(1000, 10);
		uint64		fork = 0;

		ok(decide_history(&p, &h, text, strlen(text), &fork) == HISTORY_KNOWN, "the history of our own timeline");
		h.timeline = 3;
		ok(decide_history(&p, &h, text, strlen(text), &fork) == HISTORY_FOLLOWS && fork == UINT64CONST(0x1000000A0), "of one that follows");
		ok(decide_history(&p, &h, text, 10, &fork) == HISTORY_FOREIGN, "of one that does not, or cannot be read");
	}
}

static void
test_staged(void)
{
	TimelineSwitch switches[2] = {{2, 100}, {3, 200}};
	WireRelease newest = {.decision = 3,.released_point = 5};
	WireRelease other = {.decision = 3};

	ok(decide_timeline_at(1, switches, 2, 100) == 1 && decide_timeline_at(1, switches, 2, 101) == 2 &&
	   decide_timeline_at(1, switches, 2, 201) == 3 && decide_timeline_at(1, NULL, 0, 201) == 1, "the timeline at an LSN");

	ok(decide_staged(2, 99, 2, 100, 200) == STAGED_BEFORE, "a point before what is released");
	ok(decide_staged(1, 150, 2, 100, 200) == STAGED_VOID, "a point of a timeline that was left before it");
	ok(decide_staged(2, 201, 2, 100, 200) == STAGED_WAITS, "a point that is not all here");
	ok(decide_staged(3, 150, 2, 100, 200) == STAGED_WAITS, "a point of a timeline that is still to come");
	ok(decide_staged(2, 100, 2, 100, 200) == STAGED_RELEASED, "a point where the release ends");
	ok(decide_staged(2, 200, 2, 100, 200) == STAGED_HERE, "a point that is here");

	ok(!decide_newer(&newest, &other), "of two decisions with one number the first counts");
	other.decision = 4;
	ok(decide_newer(&newest, &other) && !decide_newer(&other, &newest), "a newer decision counts");

	newest.status_offset = 10;
	ok(decide_answer(&newest, 10, 20) && !decide_answer(&newest, 9, 20) && !decide_answer(&newest, -1, 20), "a withdrawal that is not answered yet");
	ok(decide_answer(&newest, -1, 9), "a decision about a status topic that was made anew");
	ok(decide_leave(&newest, 2, 9) && !decide_leave(&newest, 2, 10), "leave by a decision that knew of the withdrawal");
	ok(!decide_leave(&newest, 3, 9), "but not by one of before");
	ok(!decide_leave(&newest, 2, -1), "nor before the withdrawal is acknowledged");

	ok(decide_release(&newest, 4, 5) && decide_release(&newest, 4, 6), "a release");
	ok(!decide_release(&newest, 5, 6), "which was done already");
	ok(!decide_release(&newest, 4, 4), "which is not staged here");

	{
		WireStatus	status = {.state = WIRE_SEGMENT_FOLLOWING, .staged_point = 5, .released_point = 4};

		ok(decide_missed(&newest, &status), "a segment has missed a release");
		status.released_point = 5;
		ok(!decide_missed(&newest, &status), "it has not");
		newest.promote_point = 5;
		ok(decide_missed(&newest, &status), "it has missed the promotion at a point that it is at");
		status.state = WIRE_SEGMENT_PROMOTING;
		ok(!decide_missed(&newest, &status), "it has not missed the promotion");
		status = (WireStatus) {.state = WIRE_SEGMENT_FOLLOWING, .staged_point = 4, .released_point = 4};
		ok(!decide_missed(&newest, &status), "it cannot do anything about it yet");
		newest.promote_point = 0;

		status = (WireStatus) {.applied_lsn = 100, .released_lsn = 150};
		ok(decide_hungry(&status), "how fast recovery is, is not known");
		status.replay_rate = 49;
		ok(!decide_hungry(&status), "recovery has more than a second's work");
		status.replay_rate = 50;
		ok(decide_hungry(&status), "recovery is done in a second");
	}

	ok(decide_promotion_step(&newest, false, 9, 9) == PROMOTION_NONE, "no promotion is decided");
	newest.promote_point = 5;
	ok(decide_promotion_step(&newest, false, 4, 4) == PROMOTION_STAGES, "its point is not released");
	ok(decide_promotion_step(&newest, false, 5, 4) == PROMOTION_APPLIES, "nor applied");
	ok(decide_promotion_step(&newest, false, 5, 5) == PROMOTION_NOW, "a segment goes ahead");
	ok(decide_promotion_step(&newest, true, 5, 5) == PROMOTION_OTHERS, "the coordinator waits");
	newest.segments_promoted = true;
	ok(decide_promotion_step(&newest, true, 5, 5) == PROMOTION_NOW, "for the others");
}

/* A pipe of n messages. */
static WireHeader
pipe_read(void *arg, int64 offset)
{
	return ((WireHeader *) arg)[offset];
}

static void
test_pipe(void)
{
	/* server 1 has claim 5 on timeline 1, server 2 claim 6; two of claim 5 are late */
	WireHeader	pipe[] = {
		{.kind = WIRE_CLAIM,.epoch = 5,.timeline = 1,.system_id = 1,.lsn = 100},
		{.kind = WIRE_WAL,.epoch = 5,.timeline = 1,.system_id = 1,.lsn = 100,.length = 100},
		{.kind = WIRE_CLAIM,.epoch = 6,.timeline = 1,.system_id = 1,.lsn = 200},
		{.kind = WIRE_WAL,.epoch = 5,.timeline = 1,.system_id = 1,.lsn = 200,.length = 500},
		{.kind = WIRE_WAL,.epoch = 6,.timeline = 1,.system_id = 1,.lsn = 200,.length = 100},
		{.kind = WIRE_WAL,.epoch = 5,.timeline = 1,.system_id = 1,.lsn = 150,.length = 10},
		{.kind = WIRE_WAL,.epoch = 6,.timeline = 1,.system_id = 1,.lsn = 300,.length = 100},
		{.kind = WIRE_CLAIM,.epoch = 7,.timeline = 2,.system_id = 1,.lsn = 350}
	};
	const int	n = lengthof(pipe);
	WireHeader	end = {0};
	uint32		epoch = 0;
	TimelineFork fork = {1, 350};
	ServerPosition server = {.timeline = 2,.flush_lsn = 1000,.slot_lsn = 90,.forks = &fork,.nforks = 1};
	uint32		timeline;
	uint64		lsn;

	ok(decide_find_start(0, n, 8, pipe_read, pipe, 1, 1, 250, &epoch) == 4 && epoch == 6, "where 250 begins, past what is late");
	ok(decide_find_start(0, n, 8, pipe_read, pipe, 1, 1, 150, &epoch) == 1 && epoch == 5, "where 150 begins");
	ok(decide_find_start(0, n, 8, pipe_read, pipe, 1, 1, 900, &epoch) == 7 && epoch == 6, "a later timeline is behind all of this one");
	ok(decide_find_start(0, n, 8, pipe_read, pipe, 1, 2, 900, &epoch) == n && epoch == 7, "what has not come yet");
	ok(decide_find_start(0, n, 8, pipe_read, pipe, 2, 1, 150, &epoch) == n && epoch == 0, "nothing is of this system");

	ok(decide_find_claim(0, n, 8, pipe_read, pipe, 6) == 2 && decide_find_claim(0, n, 8, pipe_read, pipe, 5) == 0, "claims are found");
	ok(decide_find_claim(3, 7, 8, pipe_read, pipe, 6) == -1, "unless they are gone");

	epoch = 0;
	for (int i = 0; i < n; i++)
		decide_pipe_end(&end, &epoch, &pipe[i]);
	ok(epoch == 7 && end.lsn == 300 && end.length == 100, "the pipe ends with the last WAL that counts");
	ok(decide_start(&server, &end, &timeline, &lsn) == START_ENTER && timeline == 2 && lsn == 350, "and goes on at the fork, with the history");
	memset(&end, 0, sizeof(end));
	epoch = 0;
	for (int i = 3; i < n; i++)
		decide_pipe_end(&end, &epoch, &pipe[i]);
	ok(end.lsn == 300, "late messages in front do not count");

	ok(decide_start(&server, NULL, &timeline, &lsn) == START_ENTER && timeline == 2 && lsn == 350, "an empty pipe");
	end = pipe[1];
	ok(decide_start(&server, &end, &timeline, &lsn) == START_AT && timeline == 1 && lsn == 200, "the rest of the old timeline comes first");
	end.timeline = 2;
	ok(decide_start(&server, &end, &timeline, &lsn) == START_AT && timeline == 2 && lsn == 200, "the pipe is on our timeline");
	end.kind = WIRE_CLAIM;
	ok(decide_start(&server, &end, &timeline, &lsn) == START_ENTER, "or perhaps not yet");
	end = pipe[3];
	end.timeline = 2;
	end.length = 900;
	ok(decide_start(&server, &end, &timeline, &lsn) == START_BEHIND, "the pipe is ahead of us");
	end.timeline = 3;
	ok(decide_start(&server, &end, &timeline, &lsn) == START_OLD_TIMELINE, "on a newer timeline");
	server.nforks = 0;
	end.timeline = 1;
	ok(decide_start(&server, &end, &timeline, &lsn) == START_FOREIGN_TIMELINE, "on one that is not ours");

	ok(!decide_outclaimed(6, false, &pipe[2]) && decide_outclaimed(6, true, &pipe[2]) &&
	   decide_outclaimed(5, false, &pipe[2]) && !decide_outclaimed(7, true, &pipe[2]), "whose claim ends whom");
	ok(decide_slot(1000, 100) == 900 && decide_slot(50, 100) == 0, "the slot keeps a segment");
}

static void
test_claim(void)
{
	WireHeader	last = {.system_id = 1};
	WireClaim	theirs = {.timeline = 1,.identity = {1},.host = "a",.data_directory = "/d"};
	WireClaim	ours = theirs;

	ok(decide_claim(NULL, NULL, 1, &ours, false) == CLAIM_FREE, "a free pipe");
	ok(decide_claim(&last, &theirs, 1, &ours, false) == CLAIM_OURS, "our own");
	ok(decide_claim(&last, &theirs, 2, &ours, false) == CLAIM_FOREIGN_SYSTEM, "another system");
	ours.identity[0] = 2;
	ok(decide_claim(&last, &theirs, 1, &ours, false) == CLAIM_COPY, "another identity");
	ok(decide_claim(&last, &theirs, 1, &ours, true) == CLAIM_TAKE_OVER, "another identity, by order");
	ours.timeline = 2;
	ok(decide_claim(&last, &theirs, 1, &ours, false) == CLAIM_FAILOVER, "on a newer timeline");
	theirs.timeline = 3;
	ok(decide_claim(&last, &theirs, 1, &ours, true) == CLAIM_STALE, "on an older timeline, even by order");
	ours = theirs;
	strcpy(ours.host, "b");
	ok(decide_claim(&last, &theirs, 1, &ours, false) == CLAIM_COPY, "a file system copy on another host");
}

static void
test_point(void)
{
	WireManifestEntry entries[3] = {{-1, 1, 10}, {0, 1, 10}, {2, 1, 10}};
	PointNeeds	point = {.id = 7,.nsegments = 3,.entries = entries};
	SegmentKnown known[4] = {
		{-1, true, {.staged_point = 7}}, {0, true, {.staged_point = 8}}, {1, true, {.staged_point = 0}}, {2, true, {.staged_point = 7}}
	};
	int32		blocker = -9;

	ok(decide_point(&point, known, 4, &blocker) == POINT_RELEASABLE, "all have staged it; others do not matter");
	known[3].status.staged_point = 6;
	ok(decide_point(&point, known, 4, &blocker) == POINT_WAITS && blocker == 2, "one has not");
	known[1].heard = false;
	ok(decide_point(&point, known, 4, &blocker) == POINT_WAITS && blocker == 0, "nothing was heard of one");
	ok(decide_point(&point, known, 1, &blocker) == POINT_WAITS && blocker == 0, "one is not known");
	known[3].status.passed_point = 7;
	ok(decide_point(&point, known, 4, &blocker) == POINT_UNUSABLE && blocker == 2, "it lies before the base backup of one");
	ok(decide_point(&point, NULL, 0, &blocker) == POINT_WAITS && blocker == -1, "nothing is known");

	/* a later point is void, but all stand at this one */
	for (int i = 0; i < 4; i++)
	{
		known[i].heard = true;
		known[i].status.staged_point = known[i].status.released_point = 7;
	}
	known[3].status.passed_point = 8;
	ok(decide_point(&point, known, 4, &blocker) == POINT_RELEASABLE, "all stand at it");
	known[3].status.released_point = 6;
	ok(decide_point(&point, known, 4, &blocker) == POINT_RELEASABLE, "or have it staged");

	{
		KnownPoint	points[3] = {{{6, 3, entries}, "a", 0}, {{7, 3, entries}, "b", 1}, {{9, 3, entries}, "c", 2}};
		PointHeld	held;

		known[3].status.released_point = 6;
		known[3].status.passed_point = 0;
		ok(decide_newest(points, 3, 5, known, 4, &held) == &points[1] && held.point == &points[2] &&
		   held.verdict == POINT_WAITS && held.blocker == -1, "the newest that may be released, and why no newer one");
		ok(decide_newest(points, 3, 7, known, 4, &held) == NULL, "none behind the released one");
		known[1].status.staged_point = known[1].status.released_point = 6;
		ok(decide_newest(points, 3, 5, known, 4, &held) == &points[0], "the one before");

		ok(!decide_others_promoted(&point, known, 4, -1), "nobody is promoted");
		known[1].status.promoted_point = 7;
		ok(!decide_others_promoted(&point, known, 4, -1), "one is");
		known[3].status.promoted_point = 7;
		ok(decide_others_promoted(&point, known, 4, -1), "all but the coordinator are");
	}
}

static void
test_offline(void)
{
	static const uint64 a[] = {4, 5, 6, 7};
	static const uint64 b[] = {5, 6};
	static const uint64 c[] = {4, 5, 7};
	SegmentStaged segments[3] = {{-1, 0, a, 4}, {0, 0, b, 2}, {1, 0, c, 3}};
	uint64		point = 0;
	int32		blocker = -9;

	ok(decide_offline(segments, 3, 0, &point, &blocker) == OFFLINE_AT && point == 5, "the newest point that all have");
	ok(decide_offline(segments, 3, 6, &point, &blocker) == OFFLINE_LACKS && blocker == 1, "a point that one lacks");
	ok(decide_offline(segments, 3, 5, &point, &blocker) == OFFLINE_AT && point == 5, "a named point");
	segments[1].promotion = 6;
	ok(decide_offline(segments, 3, 0, &point, &blocker) == OFFLINE_LACKS && blocker == 1, "one has begun to go where another cannot follow");
	segments[1].promotion = 5;
	segments[1].npoints = 0;
	ok(decide_offline(segments, 3, 0, &point, &blocker) == OFFLINE_AT && point == 5, "one has begun: the others follow");
	ok(decide_offline(segments, 3, 4, &point, &blocker) == OFFLINE_UNDER_WAY && blocker == 0, "and go nowhere else");
	segments[2].promotion = 4;
	ok(decide_offline(segments, 3, 0, &point, &blocker) == OFFLINE_UNDER_WAY, "two that go to different points");
	segments[1].promotion = segments[2].promotion = 0;
	ok(decide_offline(segments, 3, 0, &point, &blocker) == OFFLINE_NONE, "one that has none");
}

static void
test_in_doubt(void)
{
	/* microseconds */
	const int64 second = 1000000;
	GidKnown	known[3] = {{.prepared = true,.prepared_at = 1000 * second}, {0}, {0}};
	bool		counts[3];

	ok(decide_in_doubt(known, 1, 0, counts) == DOUBT_UNKNOWN, "there is no other segment");
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_UNKNOWN, "no other knows it");
	known[1].prepared = true;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_UNKNOWN, "prepared on another");

	known[2].outcome = GID_COMMITTED;
	known[2].outcomes = 1;
	known[2].ended_at = 1001 * second;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_COMMIT && !counts[0] && !counts[1] && counts[2],
	   "committed on another");
	ok(decide_in_doubt(known, 3, 1, counts) == DOUBT_COMMIT, "and so for the other prepared one");
	known[2].outcome = GID_ROLLED_BACK;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_ROLLBACK, "rolled back on another");
	known[1].prepared = false;
	known[1].outcome = GID_COMMITTED;
	known[1].outcomes = 1;
	known[1].ended_at = 1000 * second;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_CONTRADICTION && counts[1] && counts[2], "both");

	/* what is our own outcome can only be of an earlier one */
	known[0].outcome = GID_ROLLED_BACK;
	known[0].outcomes = 1;
	known[2].outcome = GID_NO_OUTCOME;
	known[2].outcomes = 0;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_COMMIT && !counts[0], "our own outcome does not count");
	known[1].ended_at -= 1;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_UNKNOWN && !counts[1], "nor does an older one of a gid that is used again");
	known[0].outcome = GID_NO_OUTCOME;
	known[0].outcomes = 0;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_COMMIT, "a gid that is used once, and clocks that differ");
	known[1].outcomes = 2;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_UNKNOWN, "used twice there");
	known[1].outcomes = 1;
	known[1].ended_at = 900 * second;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_UNKNOWN, "an outcome of long ago");
	known[1].ended_at = 1001 * second;
	known[1].prepared = true;
	ok(decide_in_doubt(known, 3, 0, counts) == DOUBT_UNKNOWN, "prepared again where it was committed");
}

/* How many points are made while Kafka is away for so many seconds */
static int
points_made(int64 interval, int64 outage)
{
	const int64 second = 1000000;
	int			n = 1;
	int64		age = 0;

	while ((age += decide_point_interval(interval, age)) < outage * second)
		n++;
	return n;
}

static void
test_point_interval(void)
{
	ok(decide_point_interval(1000, 0) == 1000, "nothing waits for Kafka");
	ok(decide_point_interval(1000, 64000) == 1000, "the interval holds at first");
	ok(decide_point_interval(1000, 640000) == 10000, "later a 64th of the outage");
	ok(points_made(1000000, 60) == 60, "a minute has all of its points");
	ok(points_made(1000000, 3600) > 300 && points_made(1000000, 3600) < 330, "an hour has a few hundred");
	ok(points_made(1000000, 86400) > 500 && points_made(1000000, 86400) < 600, "a day has less than 600");
	ok(points_made(10000, 7 * 86400) < 1024, "a week at a hundred a second has less than the history holds");
	ok(points_made(INT64_C(3600000000), 86400) == 24, "an interval of an hour stays one for days");
}

int
main(void)
{
	test_offline();
	test_wal();
	test_history();
	test_staged();
	test_pipe();
	test_claim();
	test_point();
	test_in_doubt();
	test_point_interval();
	return done_testing();
}
