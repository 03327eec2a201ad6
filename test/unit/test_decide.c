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
}

int
main(void)
{
	test_wal();
	test_history();
	test_claim();
	test_point();
	return done_testing();
}
