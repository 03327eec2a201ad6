/*-------------------------------------------------------------------------
 *
 * test_twophase_log.c
 *	  The log of prepared transactions: what is written is read, and what is
 *	  damaged is not.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "twophase_log.h"

/* Entries from the beginning, up to the first that is not valid. */
static int
count_entries(const char *log, size_t len)
{
	TwophaseEntry entry;
	size_t		size;
	int			n = 0;

	for (size_t at = TWOPHASE_HEADER_SIZE;
		 at <= len && (size = twophase_decode(log + at, len - at, &entry)) > 0;
		 at += size)
		n++;
	return n;
}

static void
test_log(void)
{
	static const char *const gids[] = {"a", "it's \"quoted\" \\", NULL, "\303\244"};
	char		longest[TWOPHASE_GID_SIZE];
	char		log[TWOPHASE_HEADER_SIZE + 4 * TWOPHASE_ENTRY_MAX];
	size_t		ends[5] = {TWOPHASE_HEADER_SIZE};
	size_t		len = TWOPHASE_HEADER_SIZE;
	int			bad = 0;

	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	twophase_encode_header(log);
	for (int i = 0; i < 4; i++)
	{
		TwophaseEntry in = {.kind = TWOPHASE_PREPARED + i,.xid = 100 + i,.lsn = PG_UINT64_MAX - i,.time = -i};
		TwophaseEntry out;
		size_t		size;

		strcpy(in.gid, gids[i] ? gids[i] : longest);
		size = twophase_encode(&in, log + len);
		if (size > TWOPHASE_ENTRY_MAX || twophase_decode(log + len, size, &out) != size ||
			out.kind != in.kind || out.xid != in.xid || out.lsn != in.lsn || out.time != in.time ||
			strcmp(out.gid, in.gid) != 0)
			bad++;
		len += size;
		ends[i + 1] = len;
	}
	ok(bad == 0, "entries are decoded to what was encoded");
	ok(twophase_check_header(log, len), "the header is one");
	ok(!twophase_check_header(log, TWOPHASE_HEADER_SIZE - 1), "a truncated one is not");
	ok(count_entries(log, len) == 4, "all entries are read");

	for (size_t cut = TWOPHASE_HEADER_SIZE; cut < len; cut++)
	{
		int			whole = 0;
		char	   *copy = malloc(cut);	/* so that reading past it is seen */

		while (ends[whole + 1] <= cut)
			whole++;
		memcpy(copy, log, cut);
		bad += count_entries(copy, cut) != whole;
		free(copy);
	}
	ok(bad == 0, "a log that is torn anywhere is good up to its last whole entry");

	for (size_t bit = TWOPHASE_HEADER_SIZE * 8; bit < len * 8; bit++)
	{
		int			whole = 0;

		while (ends[whole + 1] <= bit / 8)
			whole++;
		log[bit / 8] ^= 1 << (bit % 8);
		bad += count_entries(log, len) != whole;
		log[bit / 8] ^= 1 << (bit % 8);
	}
	ok(bad == 0, "no entry with a flipped bit is accepted, and those before it are");
	log[0] ^= 1;
	ok(!twophase_check_header(log, len), "another magic number");
}

static void
test_nonsense(void)
{
	TwophaseEntry in = {.kind = TWOPHASE_COMMITTED,.gid = ""};
	TwophaseEntry out;
	char		buf[TWOPHASE_ENTRY_MAX];
	size_t		len = twophase_encode(&in, buf);
	unsigned	seed = 1;
	int			accepted = 0;

	ok(twophase_decode(buf, len, &out) == 0, "an entry without gid");
	in.kind = 0;
	strcpy(in.gid, "a");
	len = twophase_encode(&in, buf);
	ok(twophase_decode(buf, len, &out) == 0, "an entry of no kind");
	in.kind = TWOPHASE_PROMOTED + 1;
	len = twophase_encode(&in, buf);
	ok(twophase_decode(buf, len, &out) == 0, "an entry of an unknown kind");
	for (int i = 0; i < 100000; i++)
	{
		for (size_t b = 0; b < sizeof(buf); b++)
			buf[b] = (seed = seed * 1103515245 + 12345) >> 16;
		/* lengths that fit, so that the rest is looked at, too */
		buf[4] = 32 + (buf[7] & 0x7f);
		buf[5] = 0;
		accepted += twophase_decode(buf, sizeof(buf), &out) != 0;
	}
	ok(accepted == 0, "no random bytes are accepted");
}

int
main(void)
{
	test_log();
	test_nonsense();
	return done_testing();
}
