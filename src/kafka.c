/*-------------------------------------------------------------------------
 *
 * kafka.c
 *	  The only file that calls librdkafka.
 *
 * librdkafka has threads of its own.  None of them runs a function of ours or
 * of the server: every callback is turned into an event on a queue, which the
 * worker's loop empties (rd_kafka_queue_poll with a timeout of 0), and a byte
 * written to a pipe wakes that loop when a queue that was empty no longer is.
 * Signals are blocked while a handle is made, so its threads never take one.
 *
 * A handle and what it holds live outside of memory contexts, in malloc'd
 * memory, because librdkafka's threads use it; whoever opened it must call
 * kafka_close(), which frees undelivered bodies too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "kafka.h"
#include "settings.h"
#include "shared_state.h"

/* before 1.6.1 the error came as what it was */
#if RD_KAFKA_VERSION < 0x010601ff
#define RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET RD_KAFKA_RESP_ERR__NO_OFFSET
#endif

#define TROUBLE_SIZE		256
#define WAKE_BYTES			(8 * 1024 * 1024)	/* a quarter of a consumer's queue */
#define CALL_TIMEOUT_MS		1000	/* between two looks at interrupts */
#define ANSWER_TIMEOUT_MS	15000	/* then a broker is called away */
#define STALL_CHECK_MS		30000
#define STALL_MS			120000	/* longer than any fetch takes */
#define STALL_ANSWER_MS		300		/* callers have others to answer meanwhile */

/* One message that is on its way. */
typedef struct Outgoing
{
	void		(*free_body) (void *);
	void	   *free_arg;
	uint64		tag;
	size_t		bytes;
} Outgoing;

/* A topic that is read. */
typedef struct Assigned
{
	char	   *name;
	int64		next;			/* the offset that comes next */
	int64		seen;			/* what that was at the last look for a stall */
	TimestampTz lagging_since;	/* since then Kafka has been found to have more; or 0 */
} Assigned;

struct KafkaHandle
{
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;	/* deliveries or messages, errors, statistics */
	rd_kafka_t *asks;			/* asks its questions; rk, or a producer's */
	int			wake[2];		/* librdkafka writes [1], we wait for [0] */

	KafkaDelivered delivered;
	void	   *delivered_arg;
	size_t		in_flight;		/* bytes */
	int			under_way;		/* messages */
	size_t		max_in_flight;

	rd_kafka_event_t *taken;	/* holds the message that kafka_poll() returned */
	Assigned   *topics;			/* of kafka_assign() */
	int			ntopics;
	bool		held;			/* see kafka_hold() */
	size_t		taken_bytes;	/* since its thread was woken, see wake_fetcher() */
	TimestampTz looked_at;

	char		trouble[TROUBLE_SIZE];
	char		failed[TROUBLE_SIZE];	/* it cannot go on after this */
	rd_kafka_resp_err_t failed_code;
	char		failed_topic[TROUBLE_SIZE];	/* of a delivery that failed */
};

/* What we set ourselves; nobody may change it through kafka_options. */
static const char *const reserved_options[] = {
	"acks", "allow.auto.create.topics", "auto.offset.reset",
	"bootstrap.servers", "compression.codec", "compression.type",
	"delivery.timeout.ms", "enable.auto.commit", "enable.auto.offset.store",
	"enable.gapless.guarantee", "enable.idempotence", "enable.partition.eof", "group.id", "isolation.level",
	"log.queue", "message.timeout.ms", "metadata.broker.list",
	"partitioner", "plugin.library.paths", "queue.buffering.max.kbytes",
	"queue.buffering.max.messages", "request.required.acks",
	"statistics.interval.ms", "transactional.id"
};

/* ------------------------------------------------------------------------
 * Options
 * ------------------------------------------------------------------------
 */

/*
 * Sets the options of a name=value;name=value list.  "\;" stands for a ';' in
 * a value.  conf may be NULL to check the form only.
 */
static bool
set_options(rd_kafka_conf_t *conf, const char *options, char *problem, size_t size)
{
	const char *p = options;
	char		last[128] = "";

	while (*p)
	{
		char		name[128];
		char		entry[160];
		char		value[1024];
		size_t		n = 0;
		size_t		name_len;
		char		errstr[8];

		p += strspn(p, " \t\n;");
		if (*p == '\0')
			break;
		name_len = strcspn(p, "=; \t\n");
		if (name_len == 0 || name_len >= sizeof(name))
		{
			snprintf(problem, size, "It has an entry without a valid name.");
			return false;
		}
		memcpy(name, p, name_len);
		name[name_len] = '\0';
		/* behind a password with a ';' that is not escaped, it may be the rest of that */
		if (last[0])
			snprintf(entry, sizeof(entry), "behind \"%s\"", last);
		else
			snprintf(entry, sizeof(entry), "\"%s\"", name);
		p += name_len;
		p += strspn(p, " \t");
		if (*p != '=')
		{
			snprintf(problem, size, "The entry %s has no value.", entry);
			return false;
		}
		p++;
		p += strspn(p, " \t");
		while (*p && *p != ';')
		{
			if (p[0] == '\\' && p[1] == ';')
				p++;
			if (n >= sizeof(value) - 1)
			{
				snprintf(problem, size, "The value of the entry %s is too long.", entry);
				return false;
			}
			value[n++] = *p++;
		}
		while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t' || value[n - 1] == '\n'))
			n--;
		value[n] = '\0';

		for (size_t i = 0; i < lengthof(reserved_options); i++)
		{
			if (strcmp(name, reserved_options[i]) == 0)
			{
				snprintf(problem, size, "\"%s\" is set by multisite_repl itself.", name);
				return false;
			}
		}

		/* librdkafka's own text would repeat the value, which may be secret */
		switch (rd_kafka_conf_set(conf, name, value, errstr, sizeof(errstr)))
		{
			case RD_KAFKA_CONF_OK:
				break;
			case RD_KAFKA_CONF_UNKNOWN:
				snprintf(problem, size, "librdkafka does not know the entry %s.", entry);
				return false;
			default:
				snprintf(problem, size, "librdkafka does not accept the value of \"%s\".", name);
				return false;
		}
		explicit_bzero(value, sizeof(value));
		strlcpy(last, name, sizeof(last));
	}
	return true;
}

bool
kafka_check_options(const char *options, char *problem, size_t size)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool		ok = set_options(conf, options, problem, size);

	rd_kafka_conf_destroy(conf);
	return ok;
}

char *
kafka_settings_fingerprint(void)
{
	return psprintf("%s\n%s\n%s\n%s\n%d\n%d", multisite_brokers,
					multisite_source_site, multisite_local_conninfo,
					multisite_kafka_options,
					multisite_publisher_memory, multisite_replication_factor);
}

bool
kafka_settings_changed(const char *fingerprint)
{
	char	   *now = kafka_settings_fingerprint();
	bool		changed = strcmp(fingerprint, now) != 0;

	/* an attempt may see any number of reloads */
	pfree(now);
	return changed;
}

/* ------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------
 */

static void
conf_set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		errstr[256];

	if (rd_kafka_conf_set(conf, name, value, errstr, sizeof(errstr)) != RD_KAFKA_CONF_OK)
	{
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not set the Kafka option \"%s\": %s", name, errstr)));
	}
}

static rd_kafka_conf_t *
common_conf(const char *role)
{
	rd_kafka_conf_t *conf;
	char	   *client_id = psprintf("multisite-%s-%s-%d-%s", multisite_cluster_name,
									 multisite_site_name, multisite_segment_id, role);
	char		problem[256];

	if (multisite_brokers[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no Kafka brokers are configured"),
				 errhint("Set multisite.brokers.")));

	conf = rd_kafka_conf_new();
	conf_set(conf, "bootstrap.servers", multisite_brokers);
	conf_set(conf, "client.id", client_id);
	conf_set(conf, "log.queue", "true");
	conf_set(conf, "socket.keepalive.enable", "true");
	conf_set(conf, "socket.nagle.disable", "true");
	/* kafka_ensure_topic() makes them, as they have to be */
	conf_set(conf, "allow.auto.create.topics", "false");
	/* come back quickly: a site that was cut off catches up from then on */
	conf_set(conf, "reconnect.backoff.ms", "100");
	conf_set(conf, "reconnect.backoff.max.ms", "2000");
	/* tells us that a broker is reachable again when nothing else does */
	conf_set(conf, "statistics.interval.ms", "2000");
	if (!set_options(conf, multisite_kafka_options, problem, sizeof(problem)))
	{
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"multisite.kafka_options\""),
				 errdetail("%s", problem)));
	}
	return conf;
}

static KafkaHandle *
open_handle(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
	KafkaHandle *kafka = calloc(1, sizeof(KafkaHandle));
	char		errstr[256];
	sigset_t	all,
				before;
	rd_kafka_queue_t *log_queue;

	if (kafka == NULL || pipe(kafka->wake) != 0)
	{
		free(kafka);
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not create a Kafka client: %m")));
	}
	for (int i = 0; i < 2; i++)
	{
		(void) fcntl(kafka->wake[i], F_SETFL, O_NONBLOCK);
		(void) fcntl(kafka->wake[i], F_SETFD, FD_CLOEXEC);
	}

	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_FETCH |
							 RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG |
							 RD_KAFKA_EVENT_STATS);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	kafka->rk = rd_kafka_new(type, conf, errstr, sizeof(errstr));
	pthread_sigmask(SIG_SETMASK, &before, NULL);

	if (kafka->rk == NULL)
	{
		rd_kafka_conf_destroy(conf);
		close(kafka->wake[0]);
		close(kafka->wake[1]);
		free(kafka);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not create a Kafka client: %s", errstr)));
	}

	kafka->asks = kafka->rk;
	if (type == RD_KAFKA_CONSUMER)
	{
		(void) rd_kafka_poll_set_consumer(kafka->rk);
		kafka->queue = rd_kafka_queue_get_consumer(kafka->rk);
	}
	else
		kafka->queue = rd_kafka_queue_get_main(kafka->rk);

	log_queue = rd_kafka_queue_get_main(kafka->rk);
	(void) rd_kafka_set_log_queue(kafka->rk, type == RD_KAFKA_CONSUMER ? kafka->queue : log_queue);
	rd_kafka_queue_destroy(log_queue);
	rd_kafka_queue_io_event_enable(kafka->queue, kafka->wake[1], "k", 1);
	return kafka;
}

KafkaHandle *
kafka_open_producer(size_t memory, KafkaDelivered delivered, void *arg)
{
	rd_kafka_conf_t *conf = common_conf("producer");
	char		number[32];
	KafkaHandle *kafka;

	conf_set(conf, "enable.idempotence", "true");
	/* when a batch is refused, what was sent behind it must not get there */
	conf_set(conf, "enable.gapless.guarantee", "true");
	conf_set(conf, "acks", "all");
	/* 0: never give a message up, the WAL waits on the source for as long */
	conf_set(conf, "message.timeout.ms", "0");
	/* WAL is packed already, see pack.h; all else is small */
	conf_set(conf, "compression.type", "none");
	/* we gather ourselves */
	conf_set(conf, "linger.ms", "0");
	conf_set(conf, "queue.buffering.max.messages", "1000000");
	/* our own limit comes first; this one is so that it cannot be the one */
	snprintf(number, sizeof(number), "%zu", Max(memory / 1024 + 4096, 8192));
	conf_set(conf, "queue.buffering.max.kbytes", number);

	kafka = open_handle(RD_KAFKA_PRODUCER, conf);
	kafka->max_in_flight = memory;
	kafka->delivered = delivered;
	kafka->delivered_arg = arg;
	return kafka;
}

KafkaHandle *
kafka_open_consumer(ConsumerUse use, KafkaHandle *producer)
{
	rd_kafka_conf_t *conf = common_conf("consumer");
	KafkaHandle *kafka;

	/* we keep our offsets ourselves; a group id is needed but never used */
	conf_set(conf, "group.id", "multisite");
	conf_set(conf, "enable.auto.commit", "false");
	conf_set(conf, "enable.auto.offset.store", "false");
	conf_set(conf, "auto.offset.reset", "error");
	conf_set(conf, "queued.max.messages.kbytes", "32768");
	/* who looks up a message gets one batch of messages at a time, whatever its size */
	if (use == CONSUMER_LOOKS_UP)
		conf_set(conf, "fetch.message.max.bytes", "1");
	/* a fetch that waits at the end of a topic delays the one after a jump */
	conf_set(conf, "fetch.wait.max.ms", use == CONSUMER_LOOKS_UP ? "5" : "500");
	conf_set(conf, "fetch.error.backoff.ms", "100");
	/* librdkafka 2.2 and later; see wake_fetcher() for older ones */
	(void) rd_kafka_conf_set(conf, "fetch.queue.backoff.ms", "2", NULL, 0);
	kafka = open_handle(RD_KAFKA_CONSUMER, conf);
	if (producer)
		kafka->asks = producer->rk;
	return kafka;
}

static void
free_outgoing(Outgoing *out)
{
	if (out->free_body)
		out->free_body(out->free_arg);
	free(out);
}

void
kafka_close(KafkaHandle *kafka)
{
	if (kafka == NULL)
		return;

	if (kafka->in_flight > 0)
	{
		/* give the bodies back; the pipe's end says what to send again */
		(void) rd_kafka_purge(kafka->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		for (int i = 0; i < 100 && kafka->in_flight > 0; i++)
		{
			rd_kafka_event_t *event = rd_kafka_queue_poll(kafka->queue, 50);

			if (event == NULL)
				continue;
			if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
			{
				const rd_kafka_message_t *m;

				while ((m = rd_kafka_event_message_next(event)) != NULL)
				{
					Outgoing   *out = m->_private;

					kafka->in_flight -= out->bytes;
					free_outgoing(out);
				}
			}
			rd_kafka_event_destroy(event);
		}
	}
	if (kafka->taken)
		rd_kafka_event_destroy(kafka->taken);
	rd_kafka_queue_io_event_enable(kafka->queue, -1, NULL, 0);
	rd_kafka_queue_destroy(kafka->queue);
	rd_kafka_destroy_flags(kafka->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	close(kafka->wake[0]);
	close(kafka->wake[1]);
	for (int i = 0; i < kafka->ntopics; i++)
		free(kafka->topics[i].name);
	free(kafka->topics);
	free(kafka);
}

pgsocket
kafka_socket(KafkaHandle *kafka)
{
	return kafka->wake[0];
}

const char *
kafka_trouble(KafkaHandle *kafka)
{
	return kafka->trouble[0] ? kafka->trouble : NULL;
}

/* ------------------------------------------------------------------------
 * Events
 * ------------------------------------------------------------------------
 */

/* The first failure is kept; topic is that of a delivery, or "". */
static void
note_failed(KafkaHandle *kafka, rd_kafka_resp_err_t code, const char *why, const char *topic)
{
	if (kafka->failed_code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	kafka->failed_code = code;
	strlcpy(kafka->failed, why, TROUBLE_SIZE);
	strlcpy(kafka->failed_topic, topic, TROUBLE_SIZE);
}

static void
note_error(KafkaHandle *kafka, rd_kafka_resp_err_t code, const char *text)
{
	strlcpy(kafka->trouble, text ? text : rd_kafka_err2str(code), TROUBLE_SIZE);

	switch (code)
	{
		case RD_KAFKA_RESP_ERR__FATAL:
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
			note_failed(kafka, code, kafka->trouble, "");
			break;
		default:
			break;
	}
}

/* An event that is neither a message nor a delivery. */
static void
other_event(KafkaHandle *kafka, rd_kafka_event_t *event)
{
	switch (rd_kafka_event_type(event))
	{
		case RD_KAFKA_EVENT_ERROR:
			{
				rd_kafka_resp_err_t code = rd_kafka_event_error(event);
				char		fatal[TROUBLE_SIZE];

				if (code == RD_KAFKA_RESP_ERR__PARTITION_EOF)
					break;
				if (code == RD_KAFKA_RESP_ERR__FATAL)
				{
					/* the refused batch's own deliveries tell why */
					if (rd_kafka_fatal_error(kafka->rk, fatal, sizeof(fatal)) != RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE)
						note_error(kafka, code, fatal);
				}
				else
					note_error(kafka, code, rd_kafka_event_error_string(event));
				break;
			}

		case RD_KAFKA_EVENT_LOG:
			{
				const char *facility,
						   *text;
				int			level;

				if (rd_kafka_event_log(event, &facility, &text, &level) == 0)
					elog(DEBUG1, "librdkafka: %s: %s", facility, text);
				break;
			}

		case RD_KAFKA_EVENT_STATS:
			/* any broker that is up ends the trouble */
			if (kafka->trouble[0] && strstr(rd_kafka_event_stats(event), "\"state\":\"UP\""))
				kafka->trouble[0] = '\0';
			break;

		default:
			break;
	}
}

static void
raise_failed(KafkaHandle *kafka)
{
	const char *hint = NULL;

	switch (kafka->failed_code)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return;
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("Kafka no longer has messages that this server has not read"),
					 errdetail("Kafka said: %s.", kafka->failed),
					 errhint("The topic was truncated or made anew. Take a new base backup for this segment.")));
			break;
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			hint = "Check multisite.kafka_options and the rights of this client in Kafka.";
			break;
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("Kafka topic \"%s\" does not take messages as large as ours", kafka->failed_topic),
					 errdetail("Its max.message.bytes, or message.max.bytes of the brokers, is too small."),
					 errhint("Set max.message.bytes of the topic to 1048588 or more; it then goes on by itself, and nothing is lost.")));
			break;
		default:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("Kafka refused to go on: %s", kafka->failed),
			 hint ? errhint("%s", hint) : 0));
}

/* The pipe must be empty before the queue is, or a wake-up could be lost. */
static void
drain_wake(KafkaHandle *kafka)
{
	char		buf[64];

	while (read(kafka->wake[0], buf, sizeof(buf)) == sizeof(buf))
		;
}

static void
delivery_event(KafkaHandle *kafka, rd_kafka_event_t *event)
{
	const rd_kafka_message_t *m;

	while ((m = rd_kafka_event_message_next(event)) != NULL)
	{
		Outgoing   *out = m->_private;

		kafka->in_flight -= out->bytes;
		kafka->under_way--;
		if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			/* one lost delivery is the end: what comes after it is no pipe */
			note_failed(kafka, m->err, rd_kafka_err2str(m->err), rd_kafka_topic_name(m->rkt));
		}
		else if (m->offset < 0)
		{
			/*
			 * The answer was lost, but not that for a later message; where
			 * ours are is read anew.
			 */
			note_failed(kafka, RD_KAFKA_RESP_ERR__INCONSISTENT,
						"a message was acknowledged without its offset", rd_kafka_topic_name(m->rkt));
		}
		else if (kafka->failed_code == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			kafka->trouble[0] = '\0';
			if (kafka->delivered)
				kafka->delivered(kafka->delivered_arg, out->tag, m->offset);
		}
		free_outgoing(out);
	}
}

void
kafka_serve(KafkaHandle *kafka)
{
	rd_kafka_event_t *event;

	drain_wake(kafka);
	if (rd_kafka_type(kafka->rk) == RD_KAFKA_PRODUCER)
	{
		while ((event = rd_kafka_queue_poll(kafka->queue, 0)) != NULL)
		{
			if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
				delivery_event(kafka, event);
			else
				other_event(kafka, event);
			rd_kafka_event_destroy(event);
		}
	}
	raise_failed(kafka);
}

/* ------------------------------------------------------------------------
 * Producing
 * ------------------------------------------------------------------------
 */

bool
kafka_has_room(const KafkaHandle *kafka, size_t bytes)
{
	/* one message always passes, however small the limit */
	return kafka->in_flight == 0 || kafka->in_flight + bytes <= kafka->max_in_flight;
}

bool
kafka_produce(KafkaHandle *kafka, const char *topic, WireHeader *header,
			  const char *key, const void *body, size_t body_len,
			  void (*free_body) (void *), void *free_arg, uint64 tag)
{
	uint8		head[WIRE_HEADER_SIZE];
	Outgoing   *out;
	rd_kafka_resp_err_t err;
	int			flags = free_body == NULL ? RD_KAFKA_MSG_F_COPY : 0;

	if (!kafka_has_room(kafka, body_len))
		return false;

	out = malloc(sizeof(Outgoing));
	if (out == NULL)
		return false;
	out->free_body = free_body;
	out->free_arg = free_arg;
	out->tag = tag;
	out->bytes = body_len + sizeof(Outgoing);

	wire_encode_header(header, body, body_len, head);
	err = rd_kafka_producev(kafka->rk,
							RD_KAFKA_V_TOPIC(topic),
							RD_KAFKA_V_PARTITION(0),
							RD_KAFKA_V_MSGFLAGS(flags),
							RD_KAFKA_V_HEADER(WIRE_RECORD_HEADER, head, sizeof(head)),
							RD_KAFKA_V_KEY(key, key ? strlen(key) : 0),
							RD_KAFKA_V_VALUE(unconstify(void *, body), body_len),
							RD_KAFKA_V_OPAQUE(out),
							RD_KAFKA_V_END);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		free(out);
		if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			note_error(kafka, err, NULL);
		return false;
	}
	kafka->in_flight += out->bytes;
	kafka->under_way++;
	return true;
}

void
kafka_not_taken(KafkaHandle *kafka)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("could not send to Kafka: %s", kafka_trouble(kafka) ? kafka_trouble(kafka) : "queue full")));
}

size_t
kafka_in_flight(KafkaHandle *kafka)
{
	return kafka->in_flight;
}

int
kafka_under_way(KafkaHandle *kafka)
{
	return kafka->under_way;
}

/* Waits for the queue, and for interrupts, at most until the given time. */
static void
wait_for_queue(KafkaHandle *kafka, TimestampTz until)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	(void) WaitLatchOrSocket(MyLatch,
							 WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 kafka->wake[0], Min(ms, CALL_TIMEOUT_MS),
							 wait_event_compat(WAIT_FOR_KAFKA));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
no_answer(KafkaHandle *kafka, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("Kafka does not answer"),
			 errdetail("%s: %s", what,
					   sentence(kafka->trouble[0] ? kafka->trouble : "no answer in time")),
			 errhint("Check that the brokers of multisite.brokers are up and can be reached from this host.")));
}

void
kafka_flush(KafkaHandle *kafka, long timeout_ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	for (;;)
	{
		kafka_serve(kafka);
		if (kafka->in_flight == 0)
			return;
		if (GetCurrentTimestamp() >= until)
			no_answer(kafka, "A message was not acknowledged");
		wait_for_queue(kafka, until);
	}
}

/* ------------------------------------------------------------------------
 * Topics
 * ------------------------------------------------------------------------
 */

/*
 * All topics' metadata.  Asking for all of them, unlike asking for one, never
 * makes a broker create a topic.
 */
static const rd_kafka_metadata_t *
fetch_metadata(KafkaHandle *kafka)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ANSWER_TIMEOUT_MS);
	const rd_kafka_metadata_t *metadata;
	rd_kafka_resp_err_t err;

	do
	{
		CHECK_FOR_INTERRUPTS();
		err = rd_kafka_metadata(kafka->asks, 1, NULL, &metadata, CALL_TIMEOUT_MS);
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			kafka->trouble[0] = '\0';
			return metadata;
		}
		kafka_serve(kafka);
	} while (GetCurrentTimestamp() < until);

	if (!kafka->trouble[0])
		strlcpy(kafka->trouble, rd_kafka_err2str(err), TROUBLE_SIZE);
	no_answer(kafka, "Could not ask for the topics");
	return NULL;
}

/* Number of partitions, or -1 when there is no such topic. */
static int
topic_partitions(KafkaHandle *kafka, const char *topic)
{
	const rd_kafka_metadata_t *metadata = fetch_metadata(kafka);
	int			partitions = -1;

	for (int i = 0; i < metadata->topic_cnt; i++)
	{
		if (strcmp(metadata->topics[i].topic, topic) == 0 &&
			metadata->topics[i].err == RD_KAFKA_RESP_ERR_NO_ERROR)
			partitions = metadata->topics[i].partition_cnt;
	}
	rd_kafka_metadata_destroy(metadata);
	return partitions;
}

bool
kafka_topic_exists(KafkaHandle *kafka, const char *topic)
{
	return topic_partitions(kafka, topic) > 0;
}

int
kafka_list_topics(KafkaHandle *kafka, const char *prefix, const char *suffix, char ***names)
{
	const rd_kafka_metadata_t *metadata;
	int			n = 0;

	if (rd_kafka_metadata(kafka->asks, 1, NULL, &metadata, CALL_TIMEOUT_MS) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return -1;
	*names = palloc(sizeof(char *) * Max(metadata->topic_cnt, 1));
	for (int i = 0; i < metadata->topic_cnt; i++)
	{
		const char *name = metadata->topics[i].topic;
		size_t		len = strlen(name);

		if (len > strlen(prefix) + strlen(suffix) &&
			strncmp(name, prefix, strlen(prefix)) == 0 &&
			strcmp(name + len - strlen(suffix), suffix) == 0)
			(*names)[n++] = pstrdup(name);
	}
	rd_kafka_metadata_destroy(metadata);
	return n;
}

/* Waits for the answer of an Admin API call; the caller destroys the event. */
static rd_kafka_event_t *
admin_answer(rd_kafka_queue_t *queue)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ANSWER_TIMEOUT_MS);

	for (;;)
	{
		rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 100);

		if (event != NULL)
			return event;
		if (GetCurrentTimestamp() >= until || INTERRUPTS_PENDING_CONDITION())
			return NULL;
	}
}

static void
set_topic_config(rd_kafka_NewTopic_t *new_topic, TopicUse use)
{
	(void) rd_kafka_NewTopic_set_config(new_topic, "cleanup.policy",
										use == TOPIC_STATUS ? "compact" : "delete");
	if (use == TOPIC_PIPE)
	{
		/* what a remote site has not read yet must not go */
		(void) rd_kafka_NewTopic_set_config(new_topic, "retention.ms", "-1");
		(void) rd_kafka_NewTopic_set_config(new_topic, "retention.bytes", "-1");
	}
	(void) rd_kafka_NewTopic_set_config(new_topic, "unclean.leader.election.enable", "false");
	(void) rd_kafka_NewTopic_set_config(new_topic, "min.insync.replicas",
										multisite_replication_factor >= 3 ? "2" : "1");
}

static void
create_topic(KafkaHandle *kafka, const char *topic, TopicUse use)
{
	char		errstr[256] = "";
	rd_kafka_NewTopic_t *new_topic;
	rd_kafka_queue_t *queue;
	rd_kafka_event_t *event;
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
	TimestampTz until;

	new_topic = rd_kafka_NewTopic_new(topic, 1, multisite_replication_factor,
									  errstr, sizeof(errstr));
	if (new_topic == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("could not create the Kafka topic \"%s\": %s", topic, errstr)));
	set_topic_config(new_topic, use);

	queue = rd_kafka_queue_new(kafka->rk);
	rd_kafka_CreateTopics(kafka->rk, &new_topic, 1, NULL, queue);
	event = admin_answer(queue);
	if (event != NULL)
	{
		const rd_kafka_CreateTopics_result_t *result = rd_kafka_event_CreateTopics_result(event);

		err = rd_kafka_event_error(event);
		if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
			strlcpy(errstr, rd_kafka_event_error_string(event), sizeof(errstr));
		else if (result != NULL)
		{
			size_t		n;
			const rd_kafka_topic_result_t **results = rd_kafka_CreateTopics_result_topics(result, &n);

			if (n == 1)
			{
				err = rd_kafka_topic_result_error(results[0]);
				if (rd_kafka_topic_result_error_string(results[0]))
					strlcpy(errstr, rd_kafka_topic_result_error_string(results[0]), sizeof(errstr));
			}
		}
		rd_kafka_event_destroy(event);
	}
	rd_kafka_queue_destroy(queue);
	rd_kafka_NewTopic_destroy(new_topic);
	CHECK_FOR_INTERRUPTS();

	/* another worker may have been faster */
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR && err != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not create the Kafka topic \"%s\"", topic),
				 errdetail("Kafka said: %s.", errstr[0] ? errstr : rd_kafka_err2str(err)),
				 err == RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR ?
				 errhint("multisite.replication_factor is %d, and Kafka may have fewer brokers.",
						 multisite_replication_factor) : 0));
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		ereport(LOG,
				(errmsg("created Kafka topic \"%s\"", topic),
				 errdetail("One partition, replication factor %d.", multisite_replication_factor)));

	/* until every broker knows it, a producer would be told that it is not there */
	until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ANSWER_TIMEOUT_MS);
	while (!kafka_topic_exists(kafka, topic))
	{
		if (GetCurrentTimestamp() >= until)
			no_answer(kafka, "A topic that was just created did not appear");
		wait_for_queue(kafka, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 50));
	}
}

bool
kafka_delete_before(KafkaHandle *kafka, const char *topic, int64 offset,
					char *problem, size_t size)
{
	rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
	rd_kafka_DeleteRecords_t *records;
	rd_kafka_queue_t *queue = rd_kafka_queue_new(kafka->rk);
	rd_kafka_event_t *event;
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;

	rd_kafka_topic_partition_list_add(offsets, topic, 0)->offset = offset;
	records = rd_kafka_DeleteRecords_new(offsets);
	rd_kafka_topic_partition_list_destroy(offsets);
	rd_kafka_DeleteRecords(kafka->rk, &records, 1, NULL, queue);
	event = admin_answer(queue);
	if (event != NULL)
	{
		const rd_kafka_DeleteRecords_result_t *result = rd_kafka_event_DeleteRecords_result(event);

		err = rd_kafka_event_error(event);
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR && result != NULL)
			err = rd_kafka_DeleteRecords_result_offsets(result)->elems[0].err;
		rd_kafka_event_destroy(event);
	}
	rd_kafka_DeleteRecords_destroy(records);
	rd_kafka_queue_destroy(queue);
	CHECK_FOR_INTERRUPTS();
	strlcpy(problem, rd_kafka_err2str(err), size);
	return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* Copies a topic's setting into value; empty when Kafka would not say. */
static void
describe_topic(KafkaHandle *kafka, const char *topic, int nnames,
			   const char *const *names, char (*values)[64])
{
	rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(kafka->rk);
	rd_kafka_event_t *event;

	for (int i = 0; i < nnames; i++)
		values[i][0] = '\0';

	rd_kafka_DescribeConfigs(kafka->rk, &resource, 1, NULL, queue);
	event = admin_answer(queue);
	if (event != NULL)
	{
		const rd_kafka_DescribeConfigs_result_t *result = rd_kafka_event_DescribeConfigs_result(event);
		size_t		n = 0;
		const rd_kafka_ConfigResource_t **resources = result ?
			rd_kafka_DescribeConfigs_result_resources(result, &n) : NULL;

		if (n == 1)
		{
			size_t		nentries;
			const rd_kafka_ConfigEntry_t **entries =
				rd_kafka_ConfigResource_configs(resources[0], &nentries);

			for (size_t e = 0; e < nentries; e++)
			{
				for (int i = 0; i < nnames; i++)
				{
					const char *value = rd_kafka_ConfigEntry_value(entries[e]);

					if (value && strcmp(rd_kafka_ConfigEntry_name(entries[e]), names[i]) == 0)
						strlcpy(values[i], value, 64);
				}
			}
		}
		rd_kafka_event_destroy(event);
	}
	rd_kafka_queue_destroy(queue);
	rd_kafka_ConfigResource_destroy(resource);
	CHECK_FOR_INTERRUPTS();
}

void
kafka_ensure_topic(KafkaHandle *kafka, const char *topic, TopicUse use)
{
	static const char *const names[] = {"cleanup.policy", "retention.ms", "retention.bytes"};
	char		values[lengthof(names)][64];
	const char *policy = use == TOPIC_STATUS ? "compact" : "delete";
	int			partitions = topic_partitions(kafka, topic);

	if (partitions < 0)
	{
		create_topic(kafka, topic, use);
		return;
	}
	if (partitions != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("Kafka topic \"%s\" has %d partitions", topic, partitions),
				 errdetail("Order holds within one partition only, and it must have exactly one."),
				 errhint("Delete the topic, and let the extension create it.")));

	describe_topic(kafka, topic, lengthof(names), names, values);
	if (values[0][0] && strcmp(values[0], policy) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("Kafka topic \"%s\" has the cleanup policy \"%s\"", topic, values[0]),
				 errdetail("It must be \"%s\".", policy),
				 errhint("Set cleanup.policy=%s on the topic.", policy)));
	if (use == TOPIC_PIPE &&
		((values[1][0] && strcmp(values[1], "-1") != 0) ||
		 (values[2][0] && strcmp(values[2], "-1") != 0)))
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("Kafka may delete messages of topic \"%s\" before every remote site has read them", topic),
				 errdetail("retention.ms is %s, retention.bytes is %s.", values[1], values[2]),
				 errhint("Set both to -1, or to more than the longest time a remote site may be away.")));
}

/* ------------------------------------------------------------------------
 * Consuming
 * ------------------------------------------------------------------------
 */

/*
 * Asks for one of a topic's ends, by RD_KAFKA_OFFSET_BEGINNING or _END.
 * rd_kafka_query_watermark_offsets() would ask for both, but it heeds its
 * timeout only until it has asked: when a broker falls silent then, it was seen
 * to wait for minutes.
 */
static rd_kafka_resp_err_t
ask_for_end(rd_kafka_t *asks, const char *topic, int64 which, int64 *offset, int timeout_ms)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_t *partition = rd_kafka_topic_partition_list_add(list, topic, 0);
	rd_kafka_resp_err_t err;

	partition->offset = which;
	err = rd_kafka_offsets_for_times(asks, list, timeout_ms);
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		err = partition->err;
	/* not answered, if it says nothing else */
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR && partition->offset < 0)
		err = RD_KAFKA_RESP_ERR__TIMED_OUT;
	*offset = partition->offset;
	rd_kafka_topic_partition_list_destroy(list);
	return err;
}

/*
 * A question goes to whom the client knows as the leader.  It hears of a new
 * one by itself only where it reads or writes the topic, and asks for all
 * others by producers; so whoever was not answered asks for the leaders.
 */
static void
renew_leaders(KafkaHandle *kafka, int timeout_ms)
{
	const rd_kafka_metadata_t *metadata;

	if (rd_kafka_metadata(kafka->asks, 1, NULL, &metadata, timeout_ms) == RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_metadata_destroy(metadata);
}

void
kafka_watermarks(KafkaHandle *kafka, const char *topic, int64 *low, int64 *high)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ANSWER_TIMEOUT_MS);
	rd_kafka_resp_err_t err;

	do
	{
		CHECK_FOR_INTERRUPTS();
		err = ask_for_end(kafka->asks, topic, RD_KAFKA_OFFSET_BEGINNING, low, CALL_TIMEOUT_MS);
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
			err = ask_for_end(kafka->asks, topic, RD_KAFKA_OFFSET_END, high, CALL_TIMEOUT_MS);
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			kafka->trouble[0] = '\0';
			return;
		}
		/* it may be so new that not every broker knows it, or get another leader */
		wait_for_queue(kafka, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 100));
		renew_leaders(kafka, CALL_TIMEOUT_MS);
		kafka_serve(kafka);
	} while (GetCurrentTimestamp() < until);

	if (!kafka->trouble[0])
		strlcpy(kafka->trouble, rd_kafka_err2str(err), TROUBLE_SIZE);
	no_answer(kafka, "Could not ask for a topic's end");
}

static rd_kafka_topic_partition_list_t *
assigned_partitions(KafkaHandle *kafka)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(kafka->ntopics);

	for (int i = 0; i < kafka->ntopics; i++)
		rd_kafka_topic_partition_list_add(list, kafka->topics[i].name, 0)->offset = kafka->topics[i].next;
	return list;
}

void
kafka_assign(KafkaHandle *kafka, int ntopics, const char *const *topics, const int64 *offsets)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(ntopics);
	rd_kafka_resp_err_t err;

	if (kafka->held)
	{
		rd_kafka_topic_partition_list_t *held = assigned_partitions(kafka);

		(void) rd_kafka_resume_partitions(kafka->rk, held);
		rd_kafka_topic_partition_list_destroy(held);
		kafka->held = false;
	}
	for (int i = 0; i < kafka->ntopics; i++)
		free(kafka->topics[i].name);
	kafka->topics = realloc(kafka->topics, sizeof(Assigned) * Max(ntopics, 1));
	kafka->ntopics = ntopics;
	for (int i = 0; i < ntopics; i++)
	{
		memset(&kafka->topics[i], 0, sizeof(Assigned));
		kafka->topics[i].name = strdup(topics[i]);
		kafka->topics[i].next = offsets[i];
		kafka->topics[i].seen = offsets[i];
		rd_kafka_topic_partition_list_add(list, topics[i], 0)->offset = offsets[i];
	}
	err = rd_kafka_assign(kafka->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not begin to read from Kafka: %s", rd_kafka_err2str(err))));
}

void
kafka_hold(KafkaHandle *kafka)
{
	rd_kafka_topic_partition_list_t *list;

	if (kafka->held || kafka->ntopics == 0)
		return;
	kafka->held = true;
	list = assigned_partitions(kafka);
	(void) rd_kafka_pause_partitions(kafka->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
}

void
kafka_go_on(KafkaHandle *kafka)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_error_t *error;
	rd_kafka_resp_err_t err;

	if (!kafka->held)
		return;
	kafka->held = false;
	list = assigned_partitions(kafka);
	err = rd_kafka_resume_partitions(kafka->rk, list);
	for (int i = 0; i < list->cnt && err == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
		err = list->elems[i].err;
	/* that alone wakes no thread, and what had come unread is gone */
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		error = rd_kafka_seek_partitions(kafka->rk, list, CALL_TIMEOUT_MS);
		err = rd_kafka_error_code(error);
		rd_kafka_error_destroy(error);
		for (int i = 0; i < list->cnt && err == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
			err = list->elems[i].err;
	}
	rd_kafka_topic_partition_list_destroy(list);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not go on to read from Kafka: %s", rd_kafka_err2str(err))));
}

static void
give_back_taken(KafkaHandle *kafka)
{
	if (kafka->taken)
		rd_kafka_event_destroy(kafka->taken);
	kafka->taken = NULL;
}

/*
 * All that has come is taken.  Kafka may have more of a topic, and librdkafka
 * say nothing and not fetch it: seen once with 2.14, after a broker was killed
 * on a machine that was much too busy.  Nobody would notice that no decision
 * comes any more.  An ERROR begins anew, with another client.
 */
static void
look_for_stall(KafkaHandle *kafka)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(kafka->looked_at, now, STALL_CHECK_MS))
		return;
	kafka->looked_at = now;
	for (int i = 0; i < kafka->ntopics; i++)
	{
		Assigned   *topic = &kafka->topics[i];
		int64		low = 0;
		int64		high;

		/* something has come; or Kafka is away, which is told elsewhere */
		if (topic->next != topic->seen || kafka->trouble[0])
		{
			topic->seen = topic->next;
			topic->lagging_since = 0;
			continue;
		}
		if (ask_for_end(kafka->asks, topic->name, RD_KAFKA_OFFSET_END, &high,
						STALL_ANSWER_MS) != RD_KAFKA_RESP_ERR_NO_ERROR ||
			(topic->next < 0 &&
			 ask_for_end(kafka->asks, topic->name, RD_KAFKA_OFFSET_BEGINNING, &low,
						 STALL_ANSWER_MS) != RD_KAFKA_RESP_ERR_NO_ERROR))
		{
			topic->lagging_since = 0;
			renew_leaders(kafka, STALL_ANSWER_MS);
			return;
		}
		if (high <= (topic->next < 0 ? low : topic->next))
			topic->lagging_since = 0;
		else if (topic->lagging_since == 0)
			topic->lagging_since = now;
		else if (TimestampDifferenceExceeds(topic->lagging_since, now, STALL_MS))
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("nothing comes of Kafka topic \"%s\", although it has more", topic->name),
					 errdetail("It ends at offset %lld; what came last was before %lld.",
							   (long long) high, (long long) topic->next)));
	}
}

/*
 * When its queue is full librdkafka before 2.2 does not look again for a
 * second, unless its thread has anything else to do: a question, for example,
 * whose answer nobody waits for.  Later versions have an option for that.
 */
static void
wake_fetcher(KafkaHandle *kafka)
{
	int64		ignored;

	kafka->taken_bytes = 0;
	if (rd_kafka_version() < 0x020200ff)
		(void) ask_for_end(kafka->rk, kafka->topics[0].name, RD_KAFKA_OFFSET_END, &ignored, 1);
}

bool
kafka_poll(KafkaHandle *kafka, KafkaMessage *message)
{
	rd_kafka_event_t *event;

	give_back_taken(kafka);
	if (kafka->taken_bytes >= WAKE_BYTES && kafka->ntopics > 0)
		wake_fetcher(kafka);
	while ((event = rd_kafka_queue_poll(kafka->queue, 0)) != NULL)
	{
		const rd_kafka_message_t *m = NULL;

		if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_FETCH)
			m = rd_kafka_event_message_next(event);
		else
			other_event(kafka, event);

		if (m != NULL && m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			note_error(kafka, m->err, rd_kafka_message_errstr(m));
			m = NULL;
		}
		if (m != NULL)
		{
			rd_kafka_headers_t *headers;
			const char *topic = rd_kafka_topic_name(m->rkt);
			rd_kafka_timestamp_type_t type;

			memset(message, 0, sizeof(*message));
			message->topic = -1;
			for (int i = 0; i < kafka->ntopics; i++)
			{
				if (strcmp(kafka->topics[i].name, topic) == 0)
					message->topic = i;
			}
			if (message->topic >= 0)
			{
				kafka->topics[message->topic].next = m->offset + 1;
				kafka->trouble[0] = '\0';
				message->offset = m->offset;
				message->timestamp = rd_kafka_message_timestamp(m, &type);
				message->body = m->payload;
				message->body_len = m->len;
				kafka->taken_bytes += m->len;
				if (rd_kafka_message_headers(m, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
					(void) rd_kafka_header_get_last(headers, WIRE_RECORD_HEADER,
													&message->head, &message->head_len);
				kafka->taken = event;
				return true;
			}
		}
		rd_kafka_event_destroy(event);
		raise_failed(kafka);
	}
	look_for_stall(kafka);
	return false;
}

int64
kafka_next_offset(const KafkaHandle *kafka, int topic)
{
	return kafka->topics[topic].next;
}

void
kafka_read_at(KafkaHandle *kafka, const char *topic, int64 offset, KafkaMessage *message)
{
	kafka_assign(kafka, 1, &topic, &offset);
	kafka_read_next(kafka, offset, message);
}

void
kafka_read_next(KafkaHandle *kafka, int64 offset, KafkaMessage *message)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ANSWER_TIMEOUT_MS);

	for (;;)
	{
		kafka_serve(kafka);
		while (kafka_poll(kafka, message))
		{
			/* a message of an earlier assignment may still be in the queue */
			if (message->offset == offset)
				return;
		}
		if (GetCurrentTimestamp() >= until)
			no_answer(kafka, "Could not read a message that must be there");
		wait_for_queue(kafka, until);
	}
}
