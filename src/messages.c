/*-------------------------------------------------------------------------
 *
 * messages.c
 *	  Messages as they come out of Kafka: decoded, or refused by name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "messages.h"

WireError
message_decode(const KafkaMessage *message, WireHeader *header)
{
	return wire_decode_header(message->head, message->head_len,
							  message->body, message->body_len, header);
}

void
message_check(WireError error, const char *topic, const KafkaMessage *message)
{
	if (error == WIRE_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("invalid message in Kafka topic \"%s\"", topic),
			 errdetail("The message at offset %lld cannot be used: %s.",
					   (long long) message->offset, wire_error_text(error)),
			 errhint("Something else than multisite_repl may write to this topic. See \"corrupt message\" in docs/operations.md.")));
}

const char *
message_wal(const char *topic, const KafkaMessage *message, const WireHeader *header)
{
	static char *unpacked = NULL;

	if (header->packing == PACK_NONE)
		return message->body;
	if (unpacked == NULL)
		unpacked = MemoryContextAlloc(TopMemoryContext, WIRE_MAX_WAL);
	if (!unpack_wal(header->packing, message->body, message->body_len, unpacked, header->length))
		message_check(WIRE_BAD_BODY, topic, message);
	return unpacked;
}

const WireManifestEntry *
message_manifest(const char *topic, const KafkaMessage *message, WireManifest *manifest)
{
	static WireManifestEntry *entries = NULL;
	WireHeader	header;
	WireError	error = message_decode(message, &header);

	if (entries == NULL)
		entries = MemoryContextAlloc(TopMemoryContext, sizeof(WireManifestEntry) * WIRE_MAX_SEGMENTS);
	if (error == WIRE_OK && header.kind != WIRE_MANIFEST)
		error = WIRE_BAD_KIND;
	if (error == WIRE_OK)
		error = wire_decode_manifest(message->body, message->body_len, manifest,
									 entries, WIRE_MAX_SEGMENTS);
	message_check(error, topic, message);
	return entries;
}

bool
message_status(const KafkaMessage *message, WireHeader *header, WireStatus *status)
{
	return message_decode(message, header) == WIRE_OK &&
		header->kind == WIRE_STATUS &&
		wire_decode_status(message->body, message->body_len, status) == WIRE_OK;
}
