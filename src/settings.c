/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The multisite.* settings, and the names that follow from them.
 *
 * What says who this server is (cluster, site, segment) is fixed at server
 * start, since it is part of the names of its topics.  The rest can be
 * reloaded: a worker compares what it runs with after each reload and begins
 * anew if that changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "libpq-fe.h"
#include "utils/guc.h"

#include "compat.h"
#include "kafka.h"
#include "pack.h"
#include "settings.h"

char	   *multisite_cluster_name;
char	   *multisite_site_name;
int			multisite_segment_id;
char	   *multisite_database;
char	   *multisite_source_site;
char	   *multisite_brokers;
char	   *multisite_kafka_options;
char	   *multisite_local_conninfo;
int			multisite_compression;
bool		multisite_prune;
int			multisite_prune_margin;
bool		multisite_publish;
int			multisite_consistency_point_interval;
int			multisite_barrier_timeout;
int			multisite_publisher_memory;
int			multisite_replication_factor;
int			multisite_durability;

static const struct config_enum_entry durability_options[] = {
	{"kafka", DURABILITY_KAFKA, false},
	{"remote", DURABILITY_REMOTE, false},
	{NULL, 0, false}
};

static const struct config_enum_entry compression_options[] = {
	{"none", PACK_NONE, false},
	{"lz4", PACK_LZ4, false},
	{"zstd", PACK_ZSTD, false},
	{NULL, 0, false}
};

#define MAX_NAME_PART 63

bool
settings_valid_name(const char *value)
{
	size_t		len = strlen(value);

	if (len == 0 || len > MAX_NAME_PART)
		return false;
	return strspn(value, "abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == len;
}

static bool
check_name_part(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] == '\0' || settings_valid_name(*newval))
		return true;
	GUC_check_errdetail("\"%s\" becomes part of the names of Kafka topics: it may have letters, digits, \"_\" and \"-\" only, at most %d of them.",
						*newval, MAX_NAME_PART);
	return false;
}

static bool
check_site_name(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] == '\0')
	{
		GUC_check_errdetail("A site must have a name.");
		return false;
	}
	return check_name_part(newval, extra, source);
}

#define HOST_CHARS "abcdefghijklmnopqrstuvwxyz" \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

/*
 * What is wrong with one entry of the list of brokers, which is host[:port],
 * an IPv6 address in brackets; NULL if nothing is.  librdkafka takes a
 * protocol:// before it, too.
 */
static const char *
broker_problem(const char *broker)
{
	const char *protocol_end = strstr(broker, "://");
	const char *host = protocol_end ? protocol_end + 3 : broker;
	const char *port;

	if (broker[0] == '\0')
		return "is empty";
	if (strpbrk(broker, " \t\r\n"))
		return "has a blank";
	if (host[0] == '[')
	{
		size_t		len = strspn(host + 1, HOST_CHARS ":%");

		if (len == 0 || host[1 + len] != ']')
			return "has no valid IPv6 address in its brackets";
		port = host + 1 + len + 1;
	}
	else
	{
		port = host + strspn(host, HOST_CHARS);
		if (port == host)
			return "has no valid host";
	}
	if (*port == '\0')
		return NULL;
	if (*port != ':')
		return "has no valid host";
	port++;
	if (port[0] == '\0' || strlen(port) > 5 || strspn(port, "0123456789") != strlen(port) ||
		atoi(port) < 1 || atoi(port) > 65535)
		return "has no valid port";
	return NULL;
}

static bool
check_brokers(char **newval, void **extra, GucSource source)
{
	char	   *list;
	char	   *broker;
	const char *problem = NULL;

	if ((*newval)[0] == '\0')
		return true;
	list = pstrdup(*newval);
	broker = list;
	while (broker && problem == NULL)
	{
		char	   *comma = strchr(broker, ',');

		if (comma)
			*comma++ = '\0';
		problem = broker_problem(broker);
		if (problem)
			GUC_check_errdetail("The entry \"%s\" %s; the form is host:port,host:port, without blanks.",
								broker, problem);
		broker = comma;
	}
	pfree(list);
	return problem == NULL;
}

static bool
check_database(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] != '\0')
		return true;
	GUC_check_errdetail("The registry of segments must be in some database.");
	return false;
}

static bool
check_kafka_options(char **newval, void **extra, GucSource source)
{
	char		problem[256];

	if (kafka_check_options(*newval, problem, sizeof(problem)))
		return true;
	GUC_check_errdetail("%s", problem);
	GUC_check_errhint("The form is name=value;name=value with names from librdkafka's CONFIGURATION.md; a semicolon within a value is written \\;.");
	return false;
}

/* libpq's own text, here or when it connects, would repeat parts of a password. */
static bool
check_local_conninfo(char **newval, void **extra, GucSource source)
{
	PQconninfoOption *options = PQconninfoParse(*newval, NULL);

	if (options == NULL)
	{
		GUC_check_errdetail("It is not a valid connection string of libpq.");
		return false;
	}
	PQconninfoFree(options);
	return true;
}

/*
 * Values are hidden from everyone: whoever may see them can read
 * postgresql.conf, and a view ends up in places that its reader forgets.
 */
static const char *
show_kafka_options(void)
{
	return multisite_kafka_options[0] == '\0' ? "" : "(hidden)";
}

static const char *
show_local_conninfo(void)
{
	return multisite_local_conninfo[0] == '\0' ? "" : "(hidden)";
}

/* pg_settings would show the reset value as it is, so they are not in it */
#define SECRET_FLAGS (GUC_SUPERUSER_ONLY | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE)

static void
define_string(const char *name, const char *text, char **variable,
			  const char *value, GucContext context, int flags,
			  GucStringCheckHook check, GucShowHook show)
{
	DefineCustomStringVariable(name, text, NULL, variable, value, context,
							   flags, check, NULL, show);
}

static void
define_int(const char *name, const char *text, int *variable, int value,
		   int min, int max, GucContext context, int flags)
{
	DefineCustomIntVariable(name, text, NULL, variable, value, min, max,
							context, flags, NULL, NULL, NULL);
}

void
settings_define(void)
{
	define_int("multisite.barrier_timeout",
			   "Longest time that commits wait for a consistency point.",
			   &multisite_barrier_timeout, 5000, 10, INT_MAX,
			   PGC_SIGHUP, GUC_UNIT_MS);
	define_string("multisite.brokers",
				  "Kafka brokers to begin with, as host:port,host:port.",
				  &multisite_brokers, "", PGC_SIGHUP, 0, check_brokers, NULL);
	define_string("multisite.cluster_name",
				  "Name of the replicated cluster, the same at all its sites; empty turns the extension off.",
				  &multisite_cluster_name, "", PGC_POSTMASTER, 0,
				  check_name_part, NULL);
	DefineCustomEnumVariable("multisite.compression",
							 "How WAL is compressed on its way.",
							 NULL, &multisite_compression, PACK_LZ4,
							 compression_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_int("multisite.consistency_point_interval",
			   "Time between automatic consistency points; 0 turns them off.",
			   &multisite_consistency_point_interval, 0, 0, INT_MAX,
			   PGC_SIGHUP, GUC_UNIT_MS);
	define_string("multisite.database",
				  "Database of the coordinator that has the registry of segments.",
				  &multisite_database, "postgres", PGC_POSTMASTER, 0,
				  check_database, NULL);
	DefineCustomEnumVariable("multisite.durability",
							 "What a synchronous commit waits for: Kafka, or the remote sites' disks.",
							 NULL, &multisite_durability, DURABILITY_KAFKA,
							 durability_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_string("multisite.kafka_options",
				  "More librdkafka settings, as name=value;name=value (TLS, SASL).",
				  &multisite_kafka_options, "", PGC_SIGHUP, SECRET_FLAGS,
				  check_kafka_options, show_kafka_options);
	define_string("multisite.local_conninfo",
				  "How the publisher reaches its own server; empty means its first Unix socket.",
				  &multisite_local_conninfo, "", PGC_SIGHUP, SECRET_FLAGS,
				  check_local_conninfo, show_local_conninfo);
	DefineCustomBoolVariable("multisite.prune",
							 "Delete WAL from Kafka once all remote sites have applied it.",
							 NULL, &multisite_prune, false, PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	define_int("multisite.prune_margin",
			   "WAL that multisite.prune leaves in Kafka although all remote sites have applied it.",
			   &multisite_prune_margin, 1024, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB);
	DefineCustomBoolVariable("multisite.publish",
							 "Publish this server's WAL to Kafka.",
							 NULL, &multisite_publish, false, PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	define_int("multisite.publisher_memory",
			   "Most WAL that a publisher holds while Kafka has not acknowledged it.",
			   &multisite_publisher_memory, 64 * 1024, 4 * 1024, 2 * 1024 * 1024 - 1,
			   PGC_SIGHUP, GUC_UNIT_KB);
	define_int("multisite.replication_factor",
			   "Copies that Kafka keeps of each topic that the extension creates.",
			   &multisite_replication_factor, 3, 1, 32767, PGC_SIGHUP, 0);
	define_int("multisite.segment_id",
			   "Which segment of its cluster this server is; the coordinator is -1.",
			   &multisite_segment_id, content_id_compat(), COORDINATOR_ID,
			   INT_MAX, ON_GREENPLUM ? PGC_INTERNAL : PGC_POSTMASTER, 0);
	define_string("multisite.site_name",
				  "Name of the site that this server stands at.",
				  &multisite_site_name, "main", PGC_POSTMASTER, 0,
				  check_site_name, NULL);
	define_string("multisite.source_site",
				  "Name of the site that this server follows while it is a standby.",
				  &multisite_source_site, "", PGC_SIGHUP, 0, check_name_part, NULL);

	MarkGUCPrefixReserved_compat("multisite");
}

void
settings_check_source_site(void)
{
	if (strcmp(multisite_source_site, multisite_site_name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a site cannot follow itself"),
				 errdetail("multisite.site_name and multisite.source_site are both \"%s\".",
						   multisite_site_name),
				 errhint("Give this site a name of its own by multisite.site_name, and restart.")));
}

char *
topic_wal(const char *site, int segment)
{
	return psprintf("%s.%s.wal.%d", multisite_cluster_name, site, segment);
}

char *
topic_points(const char *site)
{
	return psprintf("%s.%s.points", multisite_cluster_name, site);
}

char *
topic_status(const char *site, const char *remote)
{
	return psprintf("%s.%s.%s.status", multisite_cluster_name, site, remote);
}

char *
topic_release(const char *site, const char *remote)
{
	return psprintf("%s.%s.%s.release", multisite_cluster_name, site, remote);
}
