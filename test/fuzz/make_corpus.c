/*-------------------------------------------------------------------------
 *
 * make_corpus.c
 *	  Writes one valid input of each kind for the fuzzers to begin with.
 *
 *	make_corpus DIRECTORY
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "statefile.h"
#include "wire.h"

static const char *directory;

static void
put(const char *name, const void *head, size_t head_len, const void *body, size_t len)
{
	char		path[MAXPGPATH];
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "wb");
	if (file == NULL || fwrite(head, 1, head_len, file) != head_len ||
		fwrite(body, 1, len, file) != len || fclose(file) != 0)
	{
		perror(path);
		exit(1);
	}
}

static void
put_message(const char *name, WireKind kind, const void *body, size_t len)
{
	WireHeader	header = {.kind = kind,.segment = 3,.epoch = 2,.timeline = 4,
		.system_id = UINT64CONST(0x123456789abcdef0),.lsn = 0x3000028,
	.pg_major = 15,.wal_segment_size = 16 * 1024 * 1024};
	uint8		head[WIRE_HEADER_SIZE];

	wire_encode_header(&header, body, len, head);
	put(name, head, sizeof(head), body, len);
}

int
main(int argc, char **argv)
{
	char		body[4096];
	char		place[STATE_PLACE];
	WireClaim	claim = {.timeline = 4,.identity = {1, 2, 3},.host = "a.example",.data_directory = "/srv/pg"};
	WireManifestEntry entries[3] = {{-1, 4, 0x3000100}, {0, 1, 0x5000100}, {1, 2, 0x7000100}};
	WireManifest manifest = {.id = 42,.created_at = 1,.barrier_us = 300,.skew_us = 20,.nsegments = 3,.name = "point"};
	WireStatus	status = {.state = WIRE_SEGMENT_FOLLOWING,.timeline = 4,.staged_lsn = 0x3000100,.staged_point = 42,.reason = "waits"};
	WireRelease release = {.decision = 9,.released_point = 42,.points_offset = 41,.name = "point"};
	StagingState state = {.system_id = 1,.segment = 3,.wal_segment_size = 16 * 1024 * 1024,.cluster = "c",.source_site = "main",
		.timeline = 4,.nswitches = 1};
	static const char history[] = "1\t0/3000000\tno recovery target specified\n2\t1/A0\tno recovery target specified\n";

	if (argc != 2)
		return 2;
	directory = argv[1];
	put_message("wal", WIRE_WAL, "some bytes of WAL", 17);
	put_message("claim", WIRE_CLAIM, body, wire_encode_claim(&claim, body, sizeof(body)));
	put_message("history", WIRE_HISTORY, history, sizeof(history) - 1);
	put_message("manifest", WIRE_MANIFEST, body, wire_encode_manifest(&manifest, entries, body, sizeof(body)));
	put_message("status", WIRE_STATUS, body, wire_encode_status(&status, body, sizeof(body)));
	put_message("release", WIRE_RELEASE, body, wire_encode_release(&release, body, sizeof(body)));
	(void) statefile_write(place, &state, 8);
	put("state", NULL, 0, place, STATE_PLACE);
	put("state_bare", NULL, 0, &state, sizeof(state));
	return 0;
}
