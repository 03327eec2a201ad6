/*-------------------------------------------------------------------------
 *
 * kafka.h
 *	  What the workers need of Kafka.  kafka.c alone calls librdkafka.
 *
 * A handle belongs to one process.  librdkafka's threads never run code of
 * ours: deliveries, messages, errors and logs are taken from queues by the
 * worker's own loop, which waits for kafka_socket() to become readable.
 * Functions that wait for a broker answer interrupts within a second and
 * raise ERROR; all others never throw, unless noted.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_KAFKA_H
#define MULTISITE_KAFKA_H

#include "wire.h"

typedef struct KafkaHandle KafkaHandle;

/* A message taken from a topic; valid until the handle's next is taken. */
typedef struct KafkaMessage
{
	int			topic;			/* index into kafka_assign()'s arrays */
	int64		offset;
	int64		timestamp;		/* of the producer, ms since 1970, or -1 */
	const void *head;			/* multisite's record header, or NULL */
	size_t		head_len;
	const void *body;
	size_t		body_len;
} KafkaMessage;

typedef enum TopicUse
{
	TOPIC_PIPE,					/* WAL, points, release: deletes, by us only */
	TOPIC_STATUS				/* compacted */
} TopicUse;

/* Called by kafka_serve() once per produced message, in order. */
typedef void (*KafkaDelivered) (void *arg, uint64 tag, int64 offset);

/*
 * problem gets what is wrong, without any value in it.  Used by the check
 * hook of multisite.kafka_options.
 */
extern bool kafka_check_options(const char *options, char *problem, size_t size);

/* A value that changes when the settings behind a handle do; palloc'd. */
extern char *kafka_settings_fingerprint(void);
extern bool kafka_settings_changed(const char *fingerprint);

/* memory is the most that may wait in the producer's queue, in bytes */
extern KafkaHandle *kafka_open_producer(size_t memory, KafkaDelivered delivered, void *arg);

typedef enum ConsumerUse
{
	CONSUMER_FOLLOWS,			/* waits for new messages */
	CONSUMER_LOOKS_UP			/* kafka_read_at(): answers at once */
} ConsumerUse;

/*
 * Kafka answers what came by one connection in its order, and a fetch at the
 * end of a topic waits for half a second.  So a consumer that follows asks its
 * questions by the connections of a producer, which has to stay open for as
 * long; NULL: by its own.
 */
extern KafkaHandle *kafka_open_consumer(ConsumerUse use, KafkaHandle *producer);
extern void kafka_close(KafkaHandle *kafka);

extern pgsocket kafka_socket(KafkaHandle *kafka);

/*
 * Takes deliveries, errors and logs; call it whenever kafka_socket() is
 * readable.  Raises ERROR when the handle cannot work any more.
 */
extern void kafka_serve(KafkaHandle *kafka);

/* What is wrong with the brokers at the moment, or NULL. */
extern const char *kafka_trouble(KafkaHandle *kafka);

/*
 * Hands a message over.  The body is copied if free_body is NULL; otherwise
 * it must stay as it is until free_body(free_arg) is called, from
 * kafka_serve() or kafka_close().  Returns false, having taken nothing, when
 * the queue is full.
 */
extern bool kafka_produce(KafkaHandle *kafka, const char *topic, WireHeader *header,
						  const char *key, const void *body, size_t body_len,
						  void (*free_body) (void *), void *free_arg, uint64 tag);

/* The error for a message that it has not taken, and that cannot wait. */
extern void kafka_not_taken(KafkaHandle *kafka);

/* Would kafka_produce() take a message of so many bytes now? */
extern bool kafka_has_room(const KafkaHandle *kafka, size_t bytes);

/* What is handed over and not yet delivered: bytes, and messages. */
extern size_t kafka_in_flight(KafkaHandle *kafka);
extern int	kafka_under_way(KafkaHandle *kafka);

/*
 * More messages than that should not be under way.  librdkafka sends nothing
 * more to a partition while five messages (messages, not requests) of an
 * idempotent producer are, and if it has one left then, its thread does not
 * sleep until Kafka has answered.
 */
#define KAFKA_MAX_UNDER_WAY	5

/* Waits until all that was produced is acknowledged. */
extern void kafka_flush(KafkaHandle *kafka, long timeout_ms);

/* Creates the topic if it is missing, and checks what it is. */
extern void kafka_ensure_topic(KafkaHandle *kafka, const char *topic, TopicUse use);
extern bool kafka_topic_exists(KafkaHandle *kafka, const char *topic);

/*
 * Topics whose names begin and end so; palloc'd names.  Returns -1, after a
 * second at most, if Kafka does not answer.
 */
extern int	kafka_list_topics(KafkaHandle *kafka, const char *prefix, const char *suffix,
							  char ***names);

/*
 * Deletes the messages before an offset.  False, with Kafka's reason in
 * problem, if that did not work.
 */
extern bool kafka_delete_before(KafkaHandle *kafka, const char *topic, int64 offset,
								char *problem, size_t size);

/* The first offset there is, and the one that the next message will get. */
extern void kafka_watermarks(KafkaHandle *kafka, const char *topic, int64 *low, int64 *high);

/*
 * Reads from these topics, from these offsets on, instead of what was read
 * before.  An offset that no longer exists makes kafka_poll() raise an ERROR.
 */
#define KAFKA_BEGINNING		(-2)	/* RD_KAFKA_OFFSET_BEGINNING */
extern void kafka_assign(KafkaHandle *kafka, int ntopics, const char *const *topics,
						 const int64 *offsets);

/*
 * Reads nothing more, so that Kafka is not asked again for each few bytes, and
 * goes on with what comes next.  Both may be called again.
 */
extern void kafka_hold(KafkaHandle *kafka);
extern void kafka_go_on(KafkaHandle *kafka);

/* Next message, if there is one.  Never waits. */
extern bool kafka_poll(KafkaHandle *kafka, KafkaMessage *message);

/* The offset behind the last message taken from a topic, as kafka_assign() numbers them. */
extern int64 kafka_next_offset(const KafkaHandle *kafka, int topic);

/*
 * Waits for the message at the given offset, which must exist; the second one
 * for the message right behind the one that was read last.
 */
extern void kafka_read_at(KafkaHandle *kafka, const char *topic, int64 offset,
						  KafkaMessage *message);
extern void kafka_read_next(KafkaHandle *kafka, int64 offset, KafkaMessage *message);

#endif							/* MULTISITE_KAFKA_H */
