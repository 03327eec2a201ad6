/*-------------------------------------------------------------------------
 *
 * messages.h
 *	  Messages as they come out of Kafka: decoded, or refused by name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_MESSAGES_H
#define MULTISITE_MESSAGES_H

#include "kafka.h"
#include "wire.h"

extern WireError message_decode(const KafkaMessage *message, WireHeader *header);

/* ERROR that names topic and offset, unless error is WIRE_OK. */
extern void message_check(WireError error, const char *topic, const KafkaMessage *message);

/* The bytes of a WAL message, of header->length; the next call overwrites them. */
extern const char *message_wal(const char *topic, const KafkaMessage *message,
							   const WireHeader *header);

/*
 * A manifest, which must be one.  The entries are in a buffer that the next
 * call overwrites.
 */
extern const WireManifestEntry *message_manifest(const char *topic, const KafkaMessage *message,
												 WireManifest *manifest);

/*
 * A status, if it is one: what else somebody writes to a status topic is
 * nobody's trouble, since the next good message replaces it.
 */
extern bool message_status(const KafkaMessage *message, WireHeader *header, WireStatus *status);

#endif							/* MULTISITE_MESSAGES_H */
