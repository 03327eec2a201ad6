/*-------------------------------------------------------------------------
 *
 * pipe.c
 *	  Looks into a topic, and writes damaged messages to it, for tests.
 *
 *	pipe BROKERS TOPIC list
 *		a line for each message: offset, kind, claim's number, LSN, length
 *	pipe BROKERS TOPIC copy OFFSET [same | cut | flip | headless | HEX]
 *		appends a copy of a message: as it is, without its last byte, with a
 *		byte changed, without our header, or as if it were of another place:
 *		its LSN is that number more
 *	pipe BROKERS TOPIC describe
 *		the nodes of its partition: leader (-1: none), replicas, those in sync
 *	pipe BROKERS TOPIC points OFFSET COUNT
 *		appends that many points like that of a message, each with an id one
 *		more than the one before
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <librdkafka/rdkafka.h>

#include "wire.h"

#define TIMEOUT_MS 30000
#define USAGE "pipe BROKERS TOPIC list | copy OFFSET HOW | describe | points OFFSET COUNT"

static const char *brokers;
static const char *topic;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "pipe: %s: %s\n", what, why);
	exit(1);
}

static rd_kafka_t *
open_client(rd_kafka_type_t type)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		errstr[256];
	rd_kafka_t *rk;

	rd_kafka_conf_set(conf, "bootstrap.servers", brokers, NULL, 0);
	if (type == RD_KAFKA_CONSUMER)
	{
		rd_kafka_conf_set(conf, "group.id", "pipe", NULL, 0);
		rd_kafka_conf_set(conf, "enable.auto.commit", "false", NULL, 0);
	}
	rk = rd_kafka_new(type, conf, errstr, sizeof(errstr));
	if (rk == NULL)
		die("no client", errstr);
	return rk;
}

/* Calls back with each message from an offset on, until it returns false. */
static void
read_from(int64 offset, bool (*take) (const rd_kafka_message_t *m, void *arg), void *arg)
{
	rd_kafka_t *rk = open_client(RD_KAFKA_CONSUMER);
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	int64		low,
				high;
	bool		more = true;

	if (rd_kafka_query_watermark_offsets(rk, topic, 0, &low, &high, TIMEOUT_MS) != 0)
		die(topic, "cannot be asked for its end");
	offset = Max(offset, low);
	rd_kafka_topic_partition_list_add(list, topic, 0)->offset = offset;
	rd_kafka_assign(rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	while (more && offset < high)
	{
		rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, TIMEOUT_MS);

		if (m == NULL)
			die(topic, "no message");
		if (m->err == 0)
		{
			more = take(m, arg);
			offset = m->offset + 1;
		}
		rd_kafka_message_destroy(m);
	}
	rd_kafka_destroy(rk);
}

static WireError
decode(const rd_kafka_message_t *m, WireHeader *header)
{
	rd_kafka_headers_t *headers;
	const void *head = NULL;
	size_t		len = 0;

	if (rd_kafka_message_headers(m, &headers) == 0)
		(void) rd_kafka_header_get_last(headers, WIRE_RECORD_HEADER, &head, &len);
	return wire_decode_header(head, len, m->payload, m->len, header);
}

static bool
show(const rd_kafka_message_t *m, void *arg)
{
	WireHeader	header;
	WireError	error = decode(m, &header);

	if (error != WIRE_OK)
		printf("%lld invalid\n", (long long) m->offset);
	else
		printf("%lld %s %u %llX %u\n", (long long) m->offset, wire_kind_name(header.kind),
			   header.epoch, (unsigned long long) header.lsn, header.length);
	return true;
}

/* Waits until all is written. */
static void
finish(rd_kafka_t *rk)
{
	if (rd_kafka_flush(rk, TIMEOUT_MS) != 0)
		die(topic, "cannot be written");
	rd_kafka_destroy(rk);
}

static bool
copy(const rd_kafka_message_t *m, void *arg)
{
	const char *how = arg;
	rd_kafka_t *rk = open_client(RD_KAFKA_PRODUCER);
	WireHeader	header;
	uint8		head[WIRE_HEADER_SIZE];
	char	   *body = malloc(m->len + 1);
	size_t		len = m->len;
	rd_kafka_headers_t *headers = rd_kafka_headers_new(1);

	if (decode(m, &header) != WIRE_OK)
		die(topic, "that message is invalid");
	memcpy(body, m->payload, len);
	if (strspn(how, "0123456789ABCDEF") == strlen(how))
		header.lsn += strtoull(how, NULL, 16);
	wire_encode_header(&header, body, len, head);
	if (strcmp(how, "cut") == 0)
		len--;
	else if (strcmp(how, "flip") == 0)
		body[len / 2] ^= 1;
	if (strcmp(how, "headless") != 0)
		rd_kafka_header_add(headers, WIRE_RECORD_HEADER, -1, head, sizeof(head));
	if (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
						  RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_VALUE(body, len),
						  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END) != 0)
		die(topic, "cannot be written");
	finish(rk);
	free(body);
	return false;
}

static void
describe(void)
{
	rd_kafka_t *rk = open_client(RD_KAFKA_PRODUCER);
	const rd_kafka_metadata_t *metadata;
	const rd_kafka_metadata_partition_t *p;
	rd_kafka_topic_t *t = rd_kafka_topic_new(rk, topic, NULL);

	if (rd_kafka_metadata(rk, 0, t, &metadata, TIMEOUT_MS) != 0)
		die(topic, "cannot be asked for its nodes");
	if (metadata->topic_cnt != 1 || metadata->topics[0].partition_cnt != 1)
		die(topic, "is not there");
	p = &metadata->topics[0].partitions[0];
	printf("%d ", p->leader);
	for (int i = 0; i < p->replica_cnt; i++)
		printf("%s%d", i ? "," : "", p->replicas[i]);
	printf(" ");
	for (int i = 0; i < p->isr_cnt; i++)
		printf("%s%d", i ? "," : "", p->isrs[i]);
	printf("\n");
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(t);
	rd_kafka_destroy(rk);
}

static bool
add_points(const rd_kafka_message_t *m, void *arg)
{
	static WireManifestEntry entries[WIRE_MAX_SEGMENTS];
	static char body[WIRE_MANIFEST_MAX(WIRE_MAX_SEGMENTS)];
	int			count = atoi(arg);
	rd_kafka_t *rk = open_client(RD_KAFKA_PRODUCER);
	WireHeader	header;
	WireManifest manifest;

	if (decode(m, &header) != WIRE_OK ||
		wire_decode_manifest(m->payload, m->len, &manifest, entries, WIRE_MAX_SEGMENTS) != WIRE_OK)
		die(topic, "that message is no point");
	for (int i = 0; i < count; i++)
	{
		uint8		head[WIRE_HEADER_SIZE];
		size_t		len;

		manifest.id++;
		snprintf(manifest.name, sizeof(manifest.name), "added %llu", (unsigned long long) manifest.id);
		len = wire_encode_manifest(&manifest, entries, body, sizeof(body));
		wire_encode_header(&header, body, len, head);
		while (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
								 RD_KAFKA_V_HEADER(WIRE_RECORD_HEADER, head, sizeof(head)),
								 RD_KAFKA_V_VALUE(body, len),
								 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
			rd_kafka_poll(rk, 100);
	}
	finish(rk);
	return false;
}

int
main(int argc, char **argv)
{
	if (argc < 4)
		die("usage", USAGE);
	brokers = argv[1];
	topic = argv[2];
	if (strcmp(argv[3], "list") == 0)
		read_from(0, show, NULL);
	else if (strcmp(argv[3], "copy") == 0 && argc == 6)
		read_from(strtoll(argv[4], NULL, 10), copy, argv[5]);
	else if (strcmp(argv[3], "describe") == 0)
		describe();
	else if (strcmp(argv[3], "points") == 0 && argc == 6)
		read_from(strtoll(argv[4], NULL, 10), add_points, argv[5]);
	else
		die("usage", USAGE);
	return 0;
}
