/*-------------------------------------------------------------------------
 *
 * remote_sites.c
 *	  Which remote sites follow this one.
 *
 * No list of them is kept: a site is there from when it has made the topic in
 * which its segments report, until that is deleted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "remote_sites.h"
#include "settings.h"

#define LIST_MS		5000		/* between two looks for new sites */
#define SUFFIX		".status"

static char *
topic_prefix(void)
{
	return psprintf("%s.%s.", multisite_cluster_name, multisite_site_name);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static void
free_names(char **names, int n)
{
	for (int i = 0; i < n; i++)
		pfree(names[i]);
	if (names)
		pfree(names);
}

/* Whoever set this site's own name as its source has made such a topic. */
static int
leave_out_own(char **names, int n)
{
	char	   *own = topic_status(multisite_site_name, multisite_site_name);
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		if (strcmp(names[i], own) == 0)
			pfree(names[i]);
		else
			names[kept++] = names[i];
	}
	pfree(own);
	return kept;
}

bool
remote_sites_follow(RemoteSites *sites, KafkaHandle *consumer)
{
	TimestampTz now = GetCurrentTimestamp();
	char	   *prefix;
	char	  **names = NULL;
	int64	   *offsets;
	int			n;
	bool		same;

	if (!TimestampDifferenceExceeds(sites->listed_at, now, LIST_MS))
		return false;
	sites->listed_at = now;
	prefix = topic_prefix();
	n = kafka_list_topics(consumer, prefix, SUFFIX, &names);
	pfree(prefix);
	if (n < 0)
		return false;
	n = leave_out_own(names, n);
	qsort(names, n, sizeof(char *), compare_names);
	same = n == sites->n;
	for (int i = 0; i < n && same; i++)
		same = strcmp(names[i], sites->topics[i]) == 0;
	if (same)
	{
		free_names(names, n);
		return false;
	}

	offsets = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
		offsets[i] = KAFKA_BEGINNING;
	kafka_assign(consumer, n, (const char *const *) names, offsets);
	pfree(offsets);
	free_names(sites->topics, sites->n);
	sites->topics = names;
	sites->n = n;
	return true;
}

char *
remote_sites_name(const RemoteSites *sites, int number)
{
	char	   *prefix = topic_prefix();
	const char *name = sites->topics[number] + strlen(prefix);

	pfree(prefix);
	return pnstrdup(name, strlen(name) - strlen(SUFFIX));
}
