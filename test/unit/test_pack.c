/*-------------------------------------------------------------------------
 *
 * test_pack.c
 *	  WAL is unpacked to what was packed; what is damaged is refused, or is as
 *	  long as it should be.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "pack.h"

#define BYTES (300 * 1024 + 7)	/* no multiple of anything */

static uint8 raw[BYTES];
static uint8 packed[BYTES];
static uint8 out[BYTES + 1];

/* A page of an index on consecutive numbers, again and again. */
static void
fill_index(void)
{
	for (uint32 i = 0; i < BYTES / 16; i++)
	{
		uint32		tuple[4] = {i / 100, (i % 100 + 1) | 16 << 16, i, 0};

		memcpy(raw + i * 16, tuple, sizeof(tuple));
	}
}

static void
fill_words(void)
{
	static const char *const words[] = {"commit", "insert", "heap", "page", "lock "};
	size_t		at = 0;
	uint32		seed = 1;

	while (at < BYTES)
	{
		const char *word = words[(seed = seed * 1103515245 + 12345) >> 16 & 3];
		size_t		len = Min(strlen(word), BYTES - at);

		memcpy(raw + at, word, len);
		at += len;
	}
}

static void
fill_noise(void)
{
	uint32		seed = 7;

	for (size_t i = 0; i < BYTES; i++)
		raw[i] = (seed = seed * 1103515245 + 12345) >> 23;
}

static size_t
there_and_back(int method, size_t len, uint8 *packing)
{
	size_t		n = pack_wal(method, raw, len, packed, len, packing);

	if (n == 0)
	{
		ok(*packing == PACK_NONE, "what does not get smaller is not packed");
		return len;
	}
	ok(n < len && pack_is_known(*packing), "what is packed is smaller");
	out[len] = 'x';
	ok(unpack_wal(*packing, packed, n, out, len) && memcmp(raw, out, len) == 0, "and is unpacked to the same");
	ok(out[len] == 'x', "and no further");
	ok(!unpack_wal(*packing, packed, n, out, len - 1), "it is longer than said");
	ok(!unpack_wal(*packing, packed, n, out, len + 1), "it is shorter than said");
	ok(!unpack_wal(*packing, packed, n - 1, out, len), "it is truncated");
	return n;
}

static void
test_methods(void)
{
	static const int methods[] = {PACK_LZ4, PACK_ZSTD};
	uint8		packing;
	size_t		n;

	for (size_t i = 0; i < lengthof(methods); i++)
	{
		fill_index();
		n = there_and_back(methods[i], BYTES, &packing);
		ok(packing == (methods[i] | PACK_DELTA) && n < BYTES / 10, "an index: as differences, to a tenth");
		fill_words();
		n = there_and_back(methods[i], BYTES, &packing);
		ok(packing == methods[i] && n < BYTES / 2, "words: as they are");
		for (size_t len = 1; len < 600; len += 37)
			there_and_back(methods[i], len, &packing);
		fill_index();
		n = there_and_back(methods[i], BYTES, &packing);
		ok(pack_wal(methods[i], raw, BYTES, out, n - 1, &packing) == 0 && packing == PACK_NONE, "not into less room");
		fill_noise();
		ok(there_and_back(methods[i], BYTES, &packing) == BYTES, "noise: not at all");
	}
	ok(pack_wal(PACK_NONE, raw, BYTES, packed, BYTES, &packing) == 0 && packing == PACK_NONE, "nothing when it is off");
}

static void
test_damage(void)
{
	uint8		packing;
	size_t		n;
	uint32		seed = 3;

	ok(!pack_is_known(3) && !pack_is_known(PACK_DELTA) && !pack_is_known(0x21), "packings that there are not");
	ok(!unpack_wal(3, raw, 10, out, 10), "nor are they unpacked");
	ok(!unpack_wal(PACK_LZ4, raw, 10, out, (size_t) PACK_MAX + 1), "more than any message has");
	fill_index();
	n = pack_wal(PACK_LZ4, raw, BYTES, packed, BYTES, &packing);
	out[BYTES] = 'x';
	for (int i = 0; i < 2000; i++)
	{
		uint8	   *byte = &packed[(seed = seed * 1103515245 + 12345) % n];
		uint8		before = *byte;

		*byte ^= 1 << (i % 8);
		(void) unpack_wal(packing, packed, n, out, BYTES);
		*byte = before;
	}
	ok(out[BYTES] == 'x', "damaged bytes are not written behind the end");
}

int
main(void)
{
	test_methods();
	test_damage();
	return done_testing();
}
