/*-------------------------------------------------------------------------
 *
 * fuzz_wire.c
 *	  Any bytes as a message of Kafka: the decoders must refuse or accept
 *	  them, and what they accept must be encoded to the same again.
 *
 * The first 48 bytes are the header, the rest is the body.  A fuzzer does not
 * find a checksum, so the message is also tried with a right one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "decide.h"
#include "fuzz.h"
#include "pack.h"

#define MAX_ENTRIES 64

static void
check_terminated(const char *text, size_t size)
{
	must(memchr(text, '\0', size) != NULL, "a text that does not end");
	for (; *text; text++)
		must(*text >= 0x20 && *text <= 0x7e, "a text that is not printable");
}

/* Another version may have more behind what we know, so only that much is compared. */
static void
check_same(const void *body, size_t len, const void *again, size_t again_len)
{
	must(again_len <= len && memcmp(body, again, again_len) == 0, "a body that is encoded to something else");
}

/* The length of an encoded body, whose last field an older one may lack. */
static size_t
without(size_t encoded, size_t len, size_t field)
{
	return len + field == encoded ? len : encoded;
}

static void
decode_body(WireKind kind, const uint8 *body, size_t len)
{
	char		again[65536];

	switch (kind)
	{
		case WIRE_CLAIM:
			{
				WireClaim	claim;

				if (wire_decode_claim(body, len, &claim) != WIRE_OK)
					return;
				check_terminated(claim.host, WIRE_HOST_SIZE);
				check_terminated(claim.data_directory, WIRE_PATH_SIZE);
				check_same(body, len, again, wire_encode_claim(&claim, again, sizeof(again)));
				break;
			}
		case WIRE_MANIFEST:
			{
				WireManifest manifest;
				WireManifestEntry entries[MAX_ENTRIES];

				if (wire_decode_manifest(body, len, &manifest, entries, MAX_ENTRIES) != WIRE_OK)
					return;
				must(manifest.nsegments <= MAX_ENTRIES, "more entries than there is room for");
				check_terminated(manifest.name, WIRE_NAME_SIZE);
				check_same(body, len, again, wire_encode_manifest(&manifest, entries, again, sizeof(again)));
				break;
			}
		case WIRE_STATUS:
			{
				WireStatus	status;
				size_t		encoded;

				if (wire_decode_status(body, len, &status) != WIRE_OK)
					return;
				must(status.state <= WIRE_LAST_SEGMENT_STATE, "an unknown state");
				check_terminated(status.reason, WIRE_TEXT_SIZE);
				encoded = without(wire_encode_status(&status, again, sizeof(again)), len, status.base_point ? 0 : 8);
				check_same(body, len, again,
						   without(encoded, len, status.base_point || status.withdraws ? 0 : 9));
				break;
			}
		case WIRE_RELEASE:
			{
				WireRelease release;

				if (wire_decode_release(body, len, &release) != WIRE_OK)
					return;
				check_terminated(release.name, WIRE_NAME_SIZE);
				check_same(body, len, again,
						   without(wire_encode_release(&release, again, sizeof(again)), len, release.status_offset ? 0 : 8));
				break;
			}
		case WIRE_HISTORY:
			{
				TimelineFork forks[8];
				int			n = decide_parse_history((const char *) body, len, forks, lengthof(forks));

				must(n <= (int) lengthof(forks), "more timelines than there is room for");
				for (int i = 1; i < n; i++)
					must(forks[i].timeline > forks[i - 1].timeline, "timelines out of order");
				break;
			}
		default:
			break;
	}
}

static void
decode(const uint8 *head, const uint8 *body, size_t len)
{
	WireHeader	header;

	if (wire_decode_header(head, WIRE_HEADER_SIZE, body, len, &header) != WIRE_OK)
		return;
	if (header.packing != PACK_NONE)
	{
		/* exactly as long as it is, so that a byte behind it is noticed */
		char	   *wal = malloc(Max(header.length, 1));

		must(header.length <= WIRE_MAX_WAL, "more WAL than a message may have");
		(void) unpack_wal(header.packing, body, len, wal, header.length);
		free(wal);
		return;
	}
	must(header.length == len, "a length that is not the body's");
	decode_body(header.kind, body, len);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	WireHeader	header;
	uint8		head[WIRE_HEADER_SIZE];
	uint8	   *body;
	size_t		len;

	if (size < WIRE_HEADER_SIZE)
	{
		must(wire_decode_header(data, size, NULL, 0, &header) != WIRE_OK, "a short header is accepted");
		return 0;
	}
	/* exactly as long as it is, so that a read behind it is noticed */
	len = size - WIRE_HEADER_SIZE;
	body = malloc(Max(len, 1));
	memcpy(body, data + WIRE_HEADER_SIZE, len);
	decode(data, body, len);

	/* what each body may be in ours; any WAL of a length that the data choose */
	memset(&header, 0, sizeof(header));
	header.kind = data[5];
	if (header.kind == WIRE_WAL)
	{
		header.timeline = header.lsn = 1;
		header.packing = data[7];
		header.length = data[20] << 4;
	}
	wire_encode_header(&header, body, len, head);
	decode(head, body, len);
	free(body);
	return 0;
}
