/*-------------------------------------------------------------------------
 *
 * pack.h
 *	  How WAL is made smaller on its way through Kafka.
 *
 * We compress ourselves, not librdkafka: a broker then takes a message as the
 * bytes that it is, where it would unpack a batch that Kafka knows to be
 * compressed, to look at it; and WAL can be transformed first.
 *
 * This module is pure: no server state, no ereport.  What is unpacked may be
 * anything, and never gets longer than the caller says.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_PACK_H
#define MULTISITE_PACK_H

/* What a WAL message's body is; stands in its header. */
#define PACK_NONE		0
#define PACK_LZ4		1
#define PACK_ZSTD		2
#define PACK_METHOD		0x0F	/* bits of the above */
#define PACK_DELTA		0x10	/* each byte less the one PACK_STRIDE before it */

/*
 * The stride of PACK_DELTA: the length of the commonest index tuples (a heap
 * pointer and an integer of four or eight bytes), and a multiple of a line
 * pointer's.  A built index has them in order, so that most of a page's bytes
 * differ from those one tuple before by 0 or 1.
 */
#define PACK_STRIDE		16

/* No more WAL than that is packed into a message. */
#define PACK_MAX		(4 * 1024 * 1024)

/*
 * Packs len bytes into out.  Returns the length there, and in *packing what
 * was done; or 0 if they do not get smaller, or there is no room for them.
 */
extern size_t pack_wal(int method, const void *raw, size_t len,
					   void *out, size_t room, uint8 *packing);

/* Is this the packing of any message? */
extern bool pack_is_known(uint8 packing);

/* False if the body is not exactly len bytes, packed so. */
extern bool unpack_wal(uint8 packing, const void *body, size_t body_len,
					   void *out, size_t len);

#endif							/* MULTISITE_PACK_H */
