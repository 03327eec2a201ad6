/*-------------------------------------------------------------------------
 *
 * test_wire.c
 *	  What is encoded is decoded to the same; what is damaged is refused.
 *
 *-------------------------------------------------------------------------
 */
#include "unit.h"

#include "pack.h"
#include "wire.h"

static void
test_header(void)
{
	char		body[1000];
	uint8		head[WIRE_HEADER_SIZE];
	uint8		damaged[WIRE_HEADER_SIZE];
	WireHeader	in = {.kind = WIRE_WAL,.segment = -1,.epoch = 7,.timeline = 3,
	.system_id = UINT64CONST(0x1122334455667788),.lsn = UINT64CONST(0xA00000028), .pg_major = 15,.awaited = true,.wal_segment_size = 1 << 24};
	WireHeader	out;
	int			accepted = 0;

	memset(body, 'w', sizeof(body));
	wire_encode_header(&in, body, sizeof(body), head);
	ok(wire_decode_header(head, sizeof(head), body, sizeof(body), &out) == WIRE_OK, "a header is decoded");
	ok(memcmp(&in, &out, sizeof(in)) == 0, "to what was encoded");
	ok(head[0] == 'M' && head[1] == 'T' && head[2] == 'S' && head[3] == 'R', "it is little endian");
	ok(wire_decode_header(NULL, 0, body, sizeof(body), &out) == WIRE_NO_HEADER, "no header");

	for (size_t len = 1; len < sizeof(head); len++)
		accepted += wire_decode_header(head, len, body, sizeof(body), &out) == WIRE_OK;
	ok(accepted == 0, "no truncated header is accepted");
	for (size_t len = 0; len < sizeof(body); len++)
		accepted += wire_decode_header(head, sizeof(head), body, len, &out) == WIRE_OK;
	ok(accepted == 0, "no truncated body is accepted");
	for (int bit = 0; bit < WIRE_HEADER_SIZE * 8; bit++)
	{
		memcpy(damaged, head, sizeof(head));
		damaged[bit / 8] ^= 1 << (bit % 8);
		accepted += wire_decode_header(damaged, sizeof(damaged), body, sizeof(body), &out) == WIRE_OK;
	}
	ok(accepted == 0, "no header with a flipped bit is accepted");
	for (size_t bit = 0; bit < sizeof(body) * 8; bit++)
	{
		body[bit / 8] ^= 1 << (bit % 8);
		accepted += wire_decode_header(head, sizeof(head), body, sizeof(body), &out) == WIRE_OK;
		body[bit / 8] ^= 1 << (bit % 8);
	}
	ok(accepted == 0, "no body with a flipped bit is accepted");

	in.packing = PACK_LZ4;
	in.length = 5000;
	wire_encode_header(&in, body, sizeof(body), head);
	ok(wire_decode_header(head, sizeof(head), body, sizeof(body), &out) == WIRE_OK && out.length == 5000 && out.packing == PACK_LZ4,
	   "a packed body stands for as much WAL as was said");
	in.length = WIRE_MAX_WAL;
	in.lsn = PG_UINT64_MAX - sizeof(body) - 10;
	wire_encode_header(&in, body, sizeof(body), head);
	ok(wire_decode_header(head, sizeof(head), body, sizeof(body), &out) == WIRE_BAD_BODY, "packed WAL past the end of the address space");
	in.lsn = UINT64CONST(0xA00000028);
	in.kind = WIRE_HISTORY;
	in.awaited = false;
	wire_encode_header(&in, body, sizeof(body), head);
	ok(wire_decode_header(head, sizeof(head), body, sizeof(body), &out) == WIRE_BAD_BODY, "only WAL is packed");
	in.kind = WIRE_WAL;
	in.packing = 77;
	wire_encode_header(&in, body, sizeof(body), head);
	ok(wire_decode_header(head, sizeof(head), body, sizeof(body), &out) == WIRE_BAD_BODY, "an unknown packing");
	in.packing = PACK_NONE;
	in.kind = WIRE_CLAIM;
	in.awaited = true;
	wire_encode_header(&in, body, sizeof(body), head);
	ok(wire_decode_header(head, sizeof(head), body, sizeof(body), &out) == WIRE_BAD_BODY, "only WAL is waited for");
	in.kind = WIRE_WAL;

	in.lsn = PG_UINT64_MAX - 10;
	wire_encode_header(&in, body, sizeof(body), head);
	ok(wire_decode_header(head, sizeof(head), body, sizeof(body), &out) == WIRE_BAD_BODY, "WAL past the end of the address space");
	in.lsn = 0x28;
	wire_encode_header(&in, body, 0, head);
	ok(wire_decode_header(head, sizeof(head), body, 0, &out) == WIRE_BAD_BODY, "WAL without bytes");
	in.kind = 99;
	wire_encode_header(&in, body, 1, head);
	ok(wire_decode_header(head, sizeof(head), body, 1, &out) == WIRE_BAD_KIND, "an unknown kind");
}

static void
test_bodies(void)
{
	/* static: what is compared as bytes must have no padding of chance */
	static WireClaim	claim = {.timeline = 2,.identity = {1, 2, 3},.host = "a.example",.data_directory = "/data"};
	WireClaim	claim2;
	static WireManifest manifest = {.id = 42,.created_at = 1234567,.barrier_us = 5,.skew_us = 6,.nsegments = 3,.name = "point"};
	WireManifest manifest2;
	WireManifestEntry entries[3] = {{-1, 1, 100}, {0, 1, 200}, {7, 2, 300}};
	WireManifestEntry entries2[3];
	static WireStatus	status = {.state = WIRE_SEGMENT_FOLLOWING,.staged_lsn = 9,.staged_point = 3,.sent_at = -5,.reason = "waits",.withdraws = true,.base_point = 2};
	WireStatus	status2;
	static WireRelease release = {.decision = 1,.released_point = 2,.promote_point = 3,.points_offset = 4,.paused = true,.name = "p",.status_offset = 5};
	WireRelease release2;
	char		buf[4096];
	size_t		len;
	int			accepted = 0;

	len = wire_encode_claim(&claim, buf, WIRE_CLAIM_MAX);
	ok(wire_decode_claim(buf, len, &claim2) == WIRE_OK && memcmp(&claim, &claim2, sizeof(claim)) == 0, "a claim");
	for (size_t i = 0; i < len; i++)
		accepted += wire_decode_claim(buf, i, &claim2) == WIRE_OK;

	len = wire_encode_status(&status, buf, WIRE_STATUS_MAX);
	ok(wire_decode_status(buf, len, &status2) == WIRE_OK && memcmp(&status, &status2, sizeof(status)) == 0, "a status");
	for (size_t i = 0; i < len; i++)
		accepted += wire_decode_status(buf, i, &status2) == WIRE_OK && i != len - 8 && i != len - 9;
	ok(wire_decode_status(buf, len - 8, &status2) == WIRE_OK && status2.withdraws && status2.base_point == 0, "a status of before");
	ok(wire_decode_status(buf, len - 9, &status2) == WIRE_OK && !status2.withdraws, "a status of long before");
	buf[0] = 77;
	ok(wire_decode_status(buf, len, &status2) == WIRE_BAD_BODY, "a status of an unknown state");

	len = wire_encode_release(&release, buf, WIRE_RELEASE_MAX);
	ok(wire_decode_release(buf, len, &release2) == WIRE_OK && memcmp(&release, &release2, sizeof(release)) == 0, "a release");
	for (size_t i = 0; i < len; i++)
		accepted += wire_decode_release(buf, i, &release2) == WIRE_OK && i != len - 8;
	ok(wire_decode_release(buf, len - 8, &release2) == WIRE_OK && release2.status_offset == 0, "a release of before");

	len = wire_encode_manifest(&manifest, entries, buf, WIRE_MANIFEST_MAX(3));
	ok(wire_decode_manifest(buf, len, &manifest2, entries2, 3) == WIRE_OK &&
	   memcmp(&manifest, &manifest2, sizeof(manifest)) == 0 && memcmp(entries, entries2, sizeof(entries)) == 0, "a manifest");
	for (size_t i = 0; i < len; i++)
		accepted += wire_decode_manifest(buf, i, &manifest2, entries2, 3) == WIRE_OK;
	ok(accepted == 0, "no truncated body is accepted");
	ok(wire_decode_manifest(buf, len, &manifest2, entries2, 2) == WIRE_BAD_BODY, "more segments than there is room for");
	ok(wire_decode_manifest(buf, len + 1, &manifest2, entries2, 3) == WIRE_BAD_BODY, "bytes behind the end");

	entries[2].segment = 0;
	len = wire_encode_manifest(&manifest, entries, buf, WIRE_MANIFEST_MAX(3));
	ok(wire_decode_manifest(buf, len, &manifest2, entries2, 3) == WIRE_BAD_BODY, "a segment named twice");
	manifest.id = UINT64_MAX;
	len = wire_encode_manifest(&manifest, entries, buf, WIRE_MANIFEST_MAX(3));
	ok(wire_decode_manifest(buf, len, &manifest2, entries2, 3) == WIRE_BAD_BODY, "a number that nobody can count on from");
	manifest.id = 42;
	manifest.nsegments = 0;
	len = wire_encode_manifest(&manifest, entries, buf, WIRE_MANIFEST_MAX(3));
	ok(wire_decode_manifest(buf, len, &manifest2, entries2, 3) == WIRE_BAD_BODY, "no segments");

	strcpy(status.reason, "line\nbreak \xff");
	len = wire_encode_status(&status, buf, WIRE_STATUS_MAX);
	ok(wire_decode_status(buf, len, &status2) == WIRE_OK && strcmp(status2.reason, "line?break ?") == 0, "what cannot be shown is replaced");
	buf[len - 10] = '\n';
	ok(wire_decode_status(buf, len, &status2) == WIRE_BAD_BODY, "and refused if somebody else sends it");
}

int
main(void)
{
	test_header();
	test_bodies();
	return done_testing();
}
