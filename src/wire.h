/*-------------------------------------------------------------------------
 *
 * wire.h
 *	  The messages that travel through Kafka.
 *
 * Every message has a fixed header of WIRE_HEADER_SIZE bytes, which travels
 * as the Kafka record header WIRE_RECORD_HEADER, and a body, which is the
 * Kafka record's value.  Keeping them apart lets the publisher hand libpq's
 * buffer to librdkafka without copying it.  All integers are little endian.
 *
 * This module is pure: no server state, no allocation, no ereport, so that
 * it can be unit tested and fuzzed.  A decoder trusts nothing; it either
 * fills its whole result or says what is wrong.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_WIRE_H
#define MULTISITE_WIRE_H

#include "pack.h"

#define WIRE_RECORD_HEADER	"multisite"
#define WIRE_MAGIC			0x5253544DU /* "MTSR" */
#define WIRE_VERSION		2			/* 1 had no packing */
#define WIRE_HEADER_SIZE	48

/* Longest name of a point, with its terminator; MAXFNAMELEN in xlog_internal.h */
#define WIRE_NAME_SIZE		64
#define WIRE_HOST_SIZE		128
#define WIRE_PATH_SIZE		1024
#define WIRE_TEXT_SIZE		512
#define WIRE_IDENTITY_SIZE	16

/* No cluster has more segments than this; it bounds what a decoder accepts. */
#define WIRE_MAX_SEGMENTS	4096

/* Points are counted from 1; nobody gets there, and nobody overflows. */
#define WIRE_MAX_POINT		(UINT64CONST(1) << 62)

/* Largest body we ever send: brokers take batches of 1 MB, as they come. */
#define WIRE_MAX_BODY		(1024 * 1024)

/* Most WAL that a body stands for. */
#define WIRE_MAX_WAL		PACK_MAX

typedef enum WireKind
{
	WIRE_WAL = 1,				/* pipe: raw WAL that begins at lsn */
	WIRE_CLAIM,					/* pipe: a publisher's first message */
	WIRE_HISTORY,				/* pipe: a timeline history file */
	WIRE_MANIFEST,				/* points: a consistency point */
	WIRE_STATUS,				/* status: what a remote segment has */
	WIRE_RELEASE				/* release: the orchestrator's decision */
} WireKind;

#define WIRE_FIRST_KIND	WIRE_WAL
#define WIRE_LAST_KIND	WIRE_RELEASE

typedef struct WireHeader
{
	WireKind	kind;
	int32		segment;		/* segment that the message is about */
	uint32		epoch;			/* claim under which it was written */
	uint32		timeline;
	uint32		length;			/* of the body, in bytes; of the WAL that it is
								 * when unpacked, if it is packed */
	uint64		system_id;		/* of the segment that wrote it */
	uint64		lsn;			/* WAL: first byte.  CLAIM, HISTORY: where the
								 * pipe goes on. */
	uint8		pg_major;		/* version of the server that wrote it */
	uint8		packing;		/* of the body, see pack.h; WAL only */
	bool		awaited;		/* WAL: commits wait until remote sites have it */
	uint32		wal_segment_size;
} WireHeader;

/* Who publishes. */
typedef struct WireClaim
{
	uint32		timeline;		/* that the server is on; the header's is where
								 * its WAL goes on */
	uint8		identity[WIRE_IDENTITY_SIZE];	/* random, kept in a file */
	char		host[WIRE_HOST_SIZE];
	char		data_directory[WIRE_PATH_SIZE];
} WireClaim;

typedef struct WireManifestEntry
{
	int32		segment;
	uint32		timeline;
	uint64		lsn;			/* end of the restore point's record */
} WireManifestEntry;

typedef struct WireManifest
{
	uint64		id;
	int64		created_at;		/* TimestampTz: just before the barrier rose */
	uint32		barrier_us;		/* how long commits waited, microseconds */
	uint32		skew_us;		/* first to last restore point, microseconds */
	uint32		nsegments;
	char		name[WIRE_NAME_SIZE];
} WireManifest;

typedef enum WireSegmentState
{
	WIRE_SEGMENT_STARTING = 0,
	WIRE_SEGMENT_FOLLOWING,
	WIRE_SEGMENT_FAILED,
	WIRE_SEGMENT_PROMOTING,
	WIRE_SEGMENT_PROMOTED
} WireSegmentState;

#define WIRE_LAST_SEGMENT_STATE WIRE_SEGMENT_PROMOTED

/* Its reason begins so for a moment after it has failed. */
#define HAD_FAILED			"had failed: "

typedef struct WireStatus
{
	WireSegmentState state;
	uint32		timeline;
	uint64		base_lsn;		/* end of the base backup's WAL */
	uint64		staged_lsn;
	uint64		released_lsn;
	uint64		applied_lsn;
	uint64		passed_point;	/* the newest before base_lsn, or lost in a failover */
	uint64		staged_point;	/* newest point staged and verified, or 0 */
	uint64		released_point;
	uint64		applied_point;
	uint64		promoted_point; /* set once it accepts writes */
	uint64		replay_rate;	/* bytes a second, measured */
	int64		sent_at;		/* TimestampTz of the remote's clock */
	char		reason[WIRE_TEXT_SIZE];
	/* what follows is missing in messages of before 2026-11-26 */
	bool		withdraws;		/* it must not go behind staged_point any more */
	/* and this in those of before 2026-11-27 */
	uint64		base_point;		/* points up to this id lie before base_lsn */
} WireStatus;

/*
 * The newest release message is the orchestrator's whole state, so a new
 * orchestrator, and a receiver that was away, need just that one.
 */
typedef struct WireRelease
{
	uint64		decision;		/* counts this topic's messages */
	uint64		released_point; /* newest point released, or 0 */
	uint64		promote_point;	/* point of the promotion, or 0 */
	uint64		points_offset;	/* where in points released_point stands */
	bool		paused;
	bool		segments_promoted;	/* the coordinator may follow */
	char		name[WIRE_NAME_SIZE];	/* of the newest of both points */
	/* what follows is missing in messages of before 2026-11-26 */
	int64		status_offset;	/* what stands in status before it was known */
} WireRelease;

typedef enum WireError
{
	WIRE_OK = 0,
	WIRE_NO_HEADER,
	WIRE_SHORT,
	WIRE_BAD_MAGIC,
	WIRE_BAD_VERSION,
	WIRE_BAD_KIND,
	WIRE_BAD_LENGTH,
	WIRE_BAD_CRC,
	WIRE_BAD_BODY
} WireError;

extern const char *wire_error_text(WireError error);
extern const char *wire_kind_name(WireKind kind);

/*
 * header->length is set from the body unless that is packed; the CRC covers
 * header and body, as it is sent.
 */
extern void wire_encode_header(WireHeader *header, const void *body, size_t body_len,
							   uint8 out[WIRE_HEADER_SIZE]);
extern WireError wire_decode_header(const void *head, size_t head_len,
									const void *body, size_t body_len,
									WireHeader *header);

/* Encoders return the body's length; size is that of the buffer. */
#define WIRE_CLAIM_MAX		(4 + WIRE_IDENTITY_SIZE + 4 + WIRE_HOST_SIZE + WIRE_PATH_SIZE)
#define WIRE_STATUS_MAX		(8 + 11 * 8 + 8 + 2 + WIRE_TEXT_SIZE + 1 + 8)
#define WIRE_RELEASE_MAX	(5 * 8 + 2 + 2 + WIRE_NAME_SIZE)
#define WIRE_MANIFEST_MAX(n) (8 + 8 + 12 + 2 + WIRE_NAME_SIZE + (size_t) (n) * 16)

extern size_t wire_encode_claim(const WireClaim *claim, void *buf, size_t size);
extern WireError wire_decode_claim(const void *body, size_t len, WireClaim *claim);
extern size_t wire_encode_manifest(const WireManifest *manifest,
								   const WireManifestEntry *entries,
								   void *buf, size_t size);
extern WireError wire_decode_manifest(const void *body, size_t len,
									  WireManifest *manifest,
									  WireManifestEntry *entries, uint32 max_entries);
extern size_t wire_encode_status(const WireStatus *status, void *buf, size_t size);
extern WireError wire_decode_status(const void *body, size_t len, WireStatus *status);
extern size_t wire_encode_release(const WireRelease *release, void *buf, size_t size);
extern WireError wire_decode_release(const void *body, size_t len, WireRelease *release);

#endif							/* MULTISITE_WIRE_H */
