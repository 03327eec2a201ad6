/*-------------------------------------------------------------------------
 *
 * wire.c
 *	  Encoding and decoding of messages.  See wire.h.
 *
 * Reading and writing go through a cursor that knows the end of its buffer
 * and remembers that it ran over, so that no field needs a check of its own:
 * a decoder reads all its fields and asks once, at the end, whether they
 * were all there and nothing was left.
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "port/pg_crc32c.h"

#include "wire.h"

#define AWAITED_BIT		0x80	/* beside the packing, which leaves it free */

typedef struct Reader
{
	const uint8 *at;
	const uint8 *end;
	bool		bad;
} Reader;

typedef struct Writer
{
	uint8	   *at;
	uint8	   *end;
	uint8	   *start;
} Writer;

static uint64
read_int(Reader *r, int bytes)
{
	uint64		value = 0;

	if (r->bad || r->end - r->at < bytes)
	{
		r->bad = true;
		return 0;
	}
	for (int i = bytes - 1; i >= 0; i--)
		value = (value << 8) | r->at[i];
	r->at += bytes;
	return value;
}

static void
read_bytes(Reader *r, void *out, size_t len)
{
	if (r->bad || (size_t) (r->end - r->at) < len)
	{
		r->bad = true;
		memset(out, 0, len);
		return;
	}
	memcpy(out, r->at, len);
	r->at += len;
}

/*
 * A text has a two byte length in front.  Control characters and bytes above
 * 127 are refused: these texts end up in views and logs of any encoding.
 */
static void
read_text(Reader *r, char *out, size_t size)
{
	size_t		len = read_int(r, 2);

	out[0] = '\0';
	if (r->bad || len >= size || (size_t) (r->end - r->at) < len)
	{
		r->bad = true;
		return;
	}
	for (size_t i = 0; i < len; i++)
	{
		if (r->at[i] < 0x20 || r->at[i] > 0x7e)
		{
			r->bad = true;
			out[0] = '\0';
			return;
		}
		out[i] = (char) r->at[i];
	}
	out[len] = '\0';
	r->at += len;
}

static bool
read_bool(Reader *r)
{
	uint64		value = read_int(r, 1);

	if (value > 1)
		r->bad = true;
	return value == 1;
}

static WireError
read_done(const Reader *r)
{
	return r->bad || r->at != r->end ? WIRE_BAD_BODY : WIRE_OK;
}

/* Callers size their buffers by the WIRE_*_MAX macros, so this cannot fail. */
static void
write_int(Writer *w, uint64 value, int bytes)
{
	Assert(w->end - w->at >= bytes);
	for (int i = 0; i < bytes; i++)
	{
		*w->at++ = (uint8) value;
		value >>= 8;
	}
}

static void
write_bytes(Writer *w, const void *data, size_t len)
{
	Assert((size_t) (w->end - w->at) >= len);
	memcpy(w->at, data, len);
	w->at += len;
}

/* What read_text would refuse is replaced, so that we never send it. */
static void
write_text(Writer *w, const char *text, size_t size)
{
	size_t		len = strnlen(text, size - 1);

	write_int(w, len, 2);
	Assert((size_t) (w->end - w->at) >= len);
	for (size_t i = 0; i < len; i++)
	{
		uint8		c = (uint8) text[i];

		*w->at++ = c < 0x20 || c > 0x7e ? '?' : c;
	}
}

const char *
wire_error_text(WireError error)
{
	switch (error)
	{
		case WIRE_OK:
			return "no error";
		case WIRE_NO_HEADER:
			return "it has no multisite header";
		case WIRE_SHORT:
			return "its header is truncated";
		case WIRE_BAD_MAGIC:
			return "its magic number is wrong";
		case WIRE_BAD_VERSION:
			return "its format version is not known to this server";
		case WIRE_BAD_KIND:
			return "its kind is unknown";
		case WIRE_BAD_LENGTH:
			return "its length is not the one in its header";
		case WIRE_BAD_CRC:
			return "its checksum is wrong";
		case WIRE_BAD_BODY:
			return "its content does not follow the format";
	}
	return "unknown error";
}

const char *
wire_kind_name(WireKind kind)
{
	switch (kind)
	{
		case WIRE_WAL:
			return "wal";
		case WIRE_CLAIM:
			return "claim";
		case WIRE_HISTORY:
			return "history";
		case WIRE_MANIFEST:
			return "manifest";
		case WIRE_STATUS:
			return "status";
		case WIRE_RELEASE:
			return "release";
	}
	return "unknown";
}

static pg_crc32c
message_crc(const uint8 *head, const void *body, size_t body_len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, head, WIRE_HEADER_SIZE - sizeof(uint32));
	if (body_len > 0)
		COMP_CRC32C(crc, body, body_len);
	FIN_CRC32C(crc);
	return crc;
}

void
wire_encode_header(WireHeader *header, const void *body, size_t body_len,
				   uint8 out[WIRE_HEADER_SIZE])
{
	Writer		w = {out, out + WIRE_HEADER_SIZE, out};

	Assert(body_len <= WIRE_MAX_BODY);
	Assert(header->packing == PACK_NONE || header->length <= WIRE_MAX_WAL);
	if (header->packing == PACK_NONE)
		header->length = (uint32) body_len;

	write_int(&w, WIRE_MAGIC, 4);
	write_int(&w, WIRE_VERSION, 1);
	write_int(&w, header->kind, 1);
	write_int(&w, header->pg_major, 1);
	write_int(&w, header->packing | (header->awaited ? AWAITED_BIT : 0), 1);
	write_int(&w, (uint32) header->segment, 4);
	write_int(&w, header->epoch, 4);
	write_int(&w, header->timeline, 4);
	write_int(&w, header->length, 4);
	write_int(&w, header->system_id, 8);
	write_int(&w, header->lsn, 8);
	write_int(&w, header->wal_segment_size, 4);
	write_int(&w, message_crc(out, body, body_len), 4);
	Assert(w.at == w.end);
}

WireError
wire_decode_header(const void *head, size_t head_len,
				   const void *body, size_t body_len, WireHeader *header)
{
	Reader		r = {head, (const uint8 *) head + head_len, false};
	uint32		magic;
	uint32		version;
	uint32		kind;

	memset(header, 0, sizeof(*header));
	if (head == NULL || head_len == 0)
		return WIRE_NO_HEADER;

	magic = read_int(&r, 4);
	version = read_int(&r, 1);
	if (r.bad)
		return WIRE_SHORT;
	if (magic != WIRE_MAGIC)
		return WIRE_BAD_MAGIC;
	if (version == 0 || version > WIRE_VERSION)
		return WIRE_BAD_VERSION;
	if (head_len != WIRE_HEADER_SIZE)
		return WIRE_SHORT;

	kind = read_int(&r, 1);
	/* in version 1 of the format that is 0: two bytes were its pg_major */
	header->pg_major = read_int(&r, 1);
	header->packing = read_int(&r, 1);
	header->awaited = (header->packing & AWAITED_BIT) != 0;
	header->packing &= ~AWAITED_BIT;
	header->segment = (int32) read_int(&r, 4);
	header->epoch = read_int(&r, 4);
	header->timeline = read_int(&r, 4);
	header->length = read_int(&r, 4);
	header->system_id = read_int(&r, 8);
	header->lsn = read_int(&r, 8);
	header->wal_segment_size = read_int(&r, 4);

	if (header->length > WIRE_MAX_WAL || body_len > WIRE_MAX_BODY ||
		(header->packing == PACK_NONE && header->length != body_len))
		return WIRE_BAD_LENGTH;
	if ((pg_crc32c) read_int(&r, 4) != message_crc(head, body, body_len))
		return WIRE_BAD_CRC;
	if (kind < WIRE_FIRST_KIND || kind > WIRE_LAST_KIND)
		return WIRE_BAD_KIND;
	header->kind = (WireKind) kind;

	/* WAL without bytes, or past the end of the address space, is no WAL */
	if (header->kind == WIRE_WAL &&
		(header->length == 0 || header->lsn == 0 || header->timeline == 0 ||
		 header->lsn + header->length < header->lsn))
		return WIRE_BAD_BODY;
	if (!pack_is_known(header->packing) ||
		((header->packing != PACK_NONE || header->awaited) && header->kind != WIRE_WAL))
		return WIRE_BAD_BODY;
	return WIRE_OK;
}

size_t
wire_encode_claim(const WireClaim *claim, void *buf, size_t size)
{
	Writer		w = {buf, (uint8 *) buf + size, buf};

	write_int(&w, claim->timeline, 4);
	write_bytes(&w, claim->identity, WIRE_IDENTITY_SIZE);
	write_text(&w, claim->host, WIRE_HOST_SIZE);
	write_text(&w, claim->data_directory, WIRE_PATH_SIZE);
	return w.at - w.start;
}

WireError
wire_decode_claim(const void *body, size_t len, WireClaim *claim)
{
	Reader		r = {body, (const uint8 *) body + len, false};

	memset(claim, 0, sizeof(*claim));
	claim->timeline = read_int(&r, 4);
	read_bytes(&r, claim->identity, WIRE_IDENTITY_SIZE);
	read_text(&r, claim->host, WIRE_HOST_SIZE);
	read_text(&r, claim->data_directory, WIRE_PATH_SIZE);
	return read_done(&r);
}

size_t
wire_encode_manifest(const WireManifest *manifest, const WireManifestEntry *entries,
					 void *buf, size_t size)
{
	Writer		w = {buf, (uint8 *) buf + size, buf};

	write_int(&w, manifest->id, 8);
	write_int(&w, (uint64) manifest->created_at, 8);
	write_int(&w, manifest->barrier_us, 4);
	write_int(&w, manifest->skew_us, 4);
	write_int(&w, manifest->nsegments, 4);
	write_text(&w, manifest->name, WIRE_NAME_SIZE);
	for (uint32 i = 0; i < manifest->nsegments; i++)
	{
		write_int(&w, (uint32) entries[i].segment, 4);
		write_int(&w, entries[i].timeline, 4);
		write_int(&w, entries[i].lsn, 8);
	}
	return w.at - w.start;
}

/*
 * Entries must be in strictly ascending order of their segment, which makes
 * a segment that is named twice impossible.
 */
WireError
wire_decode_manifest(const void *body, size_t len, WireManifest *manifest,
					 WireManifestEntry *entries, uint32 max_entries)
{
	Reader		r = {body, (const uint8 *) body + len, false};

	memset(manifest, 0, sizeof(*manifest));
	manifest->id = read_int(&r, 8);
	manifest->created_at = (int64) read_int(&r, 8);
	manifest->barrier_us = read_int(&r, 4);
	manifest->skew_us = read_int(&r, 4);
	manifest->nsegments = read_int(&r, 4);
	read_text(&r, manifest->name, WIRE_NAME_SIZE);
	if (r.bad || manifest->id == 0 || manifest->id > WIRE_MAX_POINT || manifest->name[0] == '\0' ||
		manifest->nsegments == 0 || manifest->nsegments > max_entries)
		return WIRE_BAD_BODY;

	for (uint32 i = 0; i < manifest->nsegments; i++)
	{
		entries[i].segment = (int32) read_int(&r, 4);
		entries[i].timeline = read_int(&r, 4);
		entries[i].lsn = read_int(&r, 8);
		if (r.bad || entries[i].timeline == 0 || entries[i].lsn == 0 ||
			(i > 0 && entries[i].segment <= entries[i - 1].segment))
			return WIRE_BAD_BODY;
	}
	return read_done(&r);
}

size_t
wire_encode_status(const WireStatus *status, void *buf, size_t size)
{
	Writer		w = {buf, (uint8 *) buf + size, buf};

	write_int(&w, status->state, 4);
	write_int(&w, status->timeline, 4);
	write_int(&w, status->base_lsn, 8);
	write_int(&w, status->staged_lsn, 8);
	write_int(&w, status->released_lsn, 8);
	write_int(&w, status->applied_lsn, 8);
	write_int(&w, status->passed_point, 8);
	write_int(&w, status->staged_point, 8);
	write_int(&w, status->released_point, 8);
	write_int(&w, status->applied_point, 8);
	write_int(&w, status->promoted_point, 8);
	write_int(&w, status->replay_rate, 8);
	write_int(&w, (uint64) status->sent_at, 8);
	write_text(&w, status->reason, WIRE_TEXT_SIZE);
	write_int(&w, status->withdraws, 1);
	write_int(&w, status->base_point, 8);
	return w.at - w.start;
}

WireError
wire_decode_status(const void *body, size_t len, WireStatus *status)
{
	Reader		r = {body, (const uint8 *) body + len, false};
	uint32		state;

	memset(status, 0, sizeof(*status));
	state = read_int(&r, 4);
	status->timeline = read_int(&r, 4);
	status->base_lsn = read_int(&r, 8);
	status->staged_lsn = read_int(&r, 8);
	status->released_lsn = read_int(&r, 8);
	status->applied_lsn = read_int(&r, 8);
	status->passed_point = read_int(&r, 8);
	status->staged_point = read_int(&r, 8);
	status->released_point = read_int(&r, 8);
	status->applied_point = read_int(&r, 8);
	status->promoted_point = read_int(&r, 8);
	status->replay_rate = read_int(&r, 8);
	status->sent_at = (int64) read_int(&r, 8);
	read_text(&r, status->reason, WIRE_TEXT_SIZE);
	if (r.at < r.end)
		status->withdraws = read_bool(&r);
	if (r.at < r.end)
		status->base_point = read_int(&r, 8);
	if (state > WIRE_LAST_SEGMENT_STATE)
		return WIRE_BAD_BODY;
	status->state = (WireSegmentState) state;
	return read_done(&r);
}

size_t
wire_encode_release(const WireRelease *release, void *buf, size_t size)
{
	Writer		w = {buf, (uint8 *) buf + size, buf};

	write_int(&w, release->decision, 8);
	write_int(&w, release->released_point, 8);
	write_int(&w, release->promote_point, 8);
	write_int(&w, release->points_offset, 8);
	write_int(&w, release->paused, 1);
	write_int(&w, release->segments_promoted, 1);
	write_text(&w, release->name, WIRE_NAME_SIZE);
	write_int(&w, (uint64) release->status_offset, 8);
	return w.at - w.start;
}

WireError
wire_decode_release(const void *body, size_t len, WireRelease *release)
{
	Reader		r = {body, (const uint8 *) body + len, false};

	memset(release, 0, sizeof(*release));
	release->decision = read_int(&r, 8);
	release->released_point = read_int(&r, 8);
	release->promote_point = read_int(&r, 8);
	release->points_offset = read_int(&r, 8);
	release->paused = read_bool(&r);
	release->segments_promoted = read_bool(&r);
	read_text(&r, release->name, WIRE_NAME_SIZE);
	if (r.at < r.end)
		release->status_offset = (int64) read_int(&r, 8);
	return read_done(&r);
}
