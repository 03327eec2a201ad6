/*-------------------------------------------------------------------------
 *
 * prune.c
 *	  Which messages of a pipe no remote site needs any more.
 *
 * The publisher notes a mark every so many bytes of WAL.  Nothing is known of
 * what was published before its present attempt; that goes as a whole with the
 * first mark.
 *
 *-------------------------------------------------------------------------
 */
#include "prune.h"

void
prune_forget(PruneMarks *marks, uint64 step)
{
	marks->n = 0;
	marks->step = step;
}

void
prune_note(PruneMarks *marks, uint64 lsn, int64 offset)
{
	if (marks->n > 0 && lsn < marks->marks[marks->n - 1].lsn + marks->step)
		return;
	if (marks->n == PRUNE_MARKS)
	{
		/* every second one will do, too */
		for (int i = 0; i < PRUNE_MARKS / 2; i++)
			marks->marks[i] = marks->marks[2 * i];
		marks->n = PRUNE_MARKS / 2;
		marks->step *= 2;
	}
	marks->marks[marks->n].lsn = lsn;
	marks->marks[marks->n].offset = offset;
	marks->n++;
}

int64
prune_before(PruneMarks *marks, uint64 applied, uint64 margin)
{
	int			gone = 0;
	int64		offset;

	while (gone < marks->n && marks->marks[gone].lsn <= applied &&
		   applied - marks->marks[gone].lsn >= margin)
		gone++;
	if (gone == 0)
		return -1;
	offset = marks->marks[gone - 1].offset;
	memmove(marks->marks, marks->marks + gone, sizeof(PruneMark) * (marks->n - gone));
	marks->n -= gone;
	return offset;
}
