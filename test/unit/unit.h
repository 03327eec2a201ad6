/*-------------------------------------------------------------------------
 *
 * unit.h
 *	  The little that unit tests need: each check prints a TAP line.
 *
 *-------------------------------------------------------------------------
 */
#ifndef UNIT_H
#define UNIT_H

#include "postgres_fe.h"

static int	unit_n = 0;
static int	unit_failed = 0;

static void
ok(bool condition, const char *what)
{
	printf("%s %d - %s\n", condition ? "ok" : "not ok", ++unit_n, what);
	if (!condition)
		unit_failed++;
}

static int
done_testing(void)
{
	printf("1..%d\n", unit_n);
	return unit_failed > 0;
}

#endif
