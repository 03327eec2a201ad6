/*-------------------------------------------------------------------------
 *
 * test_prune.c
 *	  Unit tests of src/prune.c.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "prune.h"

static PruneMarks marks;

int
main(void)
{
	prune_forget(&marks, 100);
	ok(prune_before(&marks, 1000000, 0) == -1, "nothing is known, nothing is deleted");
	prune_note(&marks, 1000, 10);
	prune_note(&marks, 1050, 11);
	prune_note(&marks, 1100, 12);
	prune_note(&marks, 1300, 15);
	ok(marks.n == 3, "marks are a step apart");
	ok(prune_before(&marks, 0, 0) == -1, "a site that has said nothing keeps all");
	ok(prune_before(&marks, 999, 0) == -1, "one that is just before the first mark, too");
	ok(prune_before(&marks, 1000, 1) == -1, "and the margin");
	ok(prune_before(&marks, 1299, 0) == 12, "up to the last mark that is applied");
	ok(prune_before(&marks, 1299, 0) == -1, "which goes once");
	ok(prune_before(&marks, 1400, 101) == -1, "one byte less than the margin stays");
	ok(prune_before(&marks, 1400, 100) == 15, "the message of the mark itself is not deleted");
	ok(prune_before(&marks, PG_UINT64_MAX, 0) == -1, "and it was the last");

	prune_forget(&marks, 1);
	for (int i = 0; i < 10 * PRUNE_MARKS; i++)
		prune_note(&marks, i + 1, i);
	ok(marks.n <= PRUNE_MARKS && marks.marks[0].lsn == 1, "many marks become fewer, and the oldest stays");
	for (int i = 1; i < marks.n; i++)
	{
		if (marks.marks[i].lsn <= marks.marks[i - 1].lsn || marks.marks[i].offset != (int64) marks.marks[i].lsn - 1)
			ok(false, "in order");
	}
	ok(prune_before(&marks, 5000, 0) < 5000, "no more than what is applied");
	return done_testing();
}
