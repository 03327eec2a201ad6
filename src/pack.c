/*-------------------------------------------------------------------------
 *
 * pack.c
 *	  How WAL is made smaller on its way through Kafka.  See pack.h.
 *
 * LZ4 finds bytes that come again, and an index that is built from consecutive
 * numbers has none.  It becomes what LZ4 is best at when each byte is replaced
 * by its difference to the one in the same place of the tuple before; other WAL
 * gets worse by that.  So a sample of a message is tried both ways.
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <lz4.h>
#include <zstd.h>

#include "pack.h"

#define SAMPLE_BYTES	(16 * 1024)
#define LEAST_TRIED		(4 * SAMPLE_BYTES)	/* shorter messages are not tried */
#define ZSTD_LEVEL		1		/* 3, zstd's own choice, gains nothing on WAL */

static uint8 *scratch;			/* of PACK_MAX, once it is needed */

static void
to_differences(const uint8 *in, uint8 *out, size_t len)
{
	size_t		i = Min(len, PACK_STRIDE);

	memcpy(out, in, i);
	/* in parts of constant length, which compilers make vectors of */
	for (; i + PACK_STRIDE <= len; i += PACK_STRIDE)
	{
		for (int j = 0; j < PACK_STRIDE; j++)
			out[i + j] = in[i + j] - in[i + j - PACK_STRIDE];
	}
	for (; i < len; i++)
		out[i] = in[i] - in[i - PACK_STRIDE];
}

static void
from_differences(uint8 *bytes, size_t len)
{
	uint8		before[PACK_STRIDE] = {0};
	size_t		i = 0;

	for (; i + PACK_STRIDE <= len; i += PACK_STRIDE)
	{
		for (int j = 0; j < PACK_STRIDE; j++)
			before[j] += bytes[i + j];
		memcpy(bytes + i, before, PACK_STRIDE);
	}
	for (int j = 0; i < len; i++, j++)
		bytes[i] += before[j];
}

/* Would differences get clearly smaller? */
static bool
differences_help(const uint8 *raw, size_t len)
{
	const uint8 *sample = raw + (len - SAMPLE_BYTES) / 2;
	uint8		differences[SAMPLE_BYTES];
	int			as_is;
	int			as_differences;

	if (len < LEAST_TRIED)
		return false;
	if (scratch == NULL && (scratch = malloc(PACK_MAX)) == NULL)
		return false;
	to_differences(sample, differences, SAMPLE_BYTES);
	as_is = LZ4_compress_default((const char *) sample, (char *) scratch, SAMPLE_BYTES, PACK_MAX);
	as_differences = LZ4_compress_default((const char *) differences, (char *) scratch, SAMPLE_BYTES, PACK_MAX);
	return as_differences < as_is - as_is / 8;
}

size_t
pack_wal(int method, const void *raw, size_t len, void *out, size_t room, uint8 *packing)
{
	size_t		packed;

	*packing = PACK_NONE;
	if (method == PACK_NONE || len < 2 || len > PACK_MAX)
		return 0;
	*packing = method;
	if (differences_help(raw, len))
	{
		to_differences(raw, scratch, len);
		raw = scratch;
		*packing |= PACK_DELTA;
	}
	room = Min(room, len - 1);	/* else it is no gain */
	if (method == PACK_LZ4)
		packed = LZ4_compress_default(raw, out, len, room);
	else
	{
		packed = ZSTD_compress(out, room, raw, len, ZSTD_LEVEL);
		if (ZSTD_isError(packed))
			packed = 0;
	}
	if (packed == 0)
		*packing = PACK_NONE;
	return packed;
}

bool
pack_is_known(uint8 packing)
{
	int			method = packing & PACK_METHOD;

	if (packing == PACK_NONE)
		return true;
	return (packing & ~(PACK_METHOD | PACK_DELTA)) == 0 &&
		(method == PACK_LZ4 || method == PACK_ZSTD);
}

bool
unpack_wal(uint8 packing, const void *body, size_t body_len, void *out, size_t len)
{
	if (len > PACK_MAX || body_len > PACK_MAX || !pack_is_known(packing))
		return false;
	switch (packing & PACK_METHOD)
	{
		case PACK_LZ4:
			if (LZ4_decompress_safe(body, out, body_len, len) != (int) len)
				return false;
			break;
		case PACK_ZSTD:
			if (ZSTD_decompress(out, len, body, body_len) != len)
				return false;
			break;
		default:
			if (body_len != len)
				return false;
			memcpy(out, body, len);
			break;
	}
	if (packing & PACK_DELTA)
		from_differences(out, len);
	return true;
}
