/*-------------------------------------------------------------------------
 *
 * logfilter.c
 *	  Keeps the server's log quiet where our way of working would fill it.
 *
 * Three kinds of messages are held back, and nothing else:
 *
 *	- the startup process of a remote segment reports that it waits for WAL
 *	  every few seconds and at every point;
 *	- it reports an invalid record where the released WAL ends, which is how
 *	  it notices that end.  At any other place that message stays: there it
 *	  means corruption;
 *	- a reload logs the new value of a setting, or the wrong one, and
 *	  multisite.kafka_options and multisite.local_conninfo may hold a password:
 *	  the value is taken out.
 *
 * The first two also tell the receiver, by its latch, that recovery has come
 * to the end of what was released, which nothing else does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/elog.h"

#include "compat.h"
#include "logfilter.h"
#include "settings.h"
#include "shared_state.h"

static emit_log_hook_type prev_emit_log_hook = NULL;

static bool
begins_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

/* Does the message name the LSN at which the released WAL ends? */
static bool
is_about_released_end(const char *message)
{
	XLogRecPtr	ends[2];

	ends[0] = pg_atomic_read_u64(&multisite_shared->released_lsn);
	ends[1] = pg_atomic_read_u64(&multisite_shared->released_before);
	for (size_t i = 0; i < lengthof(ends); i++)
	{
		char		text[32];

		snprintf(text, sizeof(text), " %X/%X:", LSN_FORMAT_ARGS(ends[i]));
		if (ends[i] != 0 && strstr(message, text) != NULL)
			return true;
	}
	return false;
}

/* "invalid record length at %X/%X: ...", which comes translated already */
static bool
is_end_of_wal(const ErrorData *edata)
{
	return strcmp(edata->message_id, "%s") == 0 && is_about_released_end(edata->message);
}

/* The receiver learns that recovery waits; a latch may be set without a lock */
static void
wake_receiver(void)
{
	Latch	   *latch = multisite_shared->workers[WORKER_RECEIVER].latch;

	/* one that has failed is to wait for its time */
	if (latch && multisite_shared->workers[WORKER_RECEIVER].state != WORKER_FAILED)
		SetLatch(latch);
}

static void
hide_value(ErrorData *edata, const char *name)
{
	if (strstr(edata->message, name) == NULL)
		return;
	if (begins_with(edata->message_id, "parameter \"%s\" changed to"))
		edata->message = psprintf("parameter \"%s\" changed", name);
	if (begins_with(edata->message_id, "invalid value for parameter \"%s\":"))
	{
		edata->message = psprintf("invalid value for parameter \"%s\"", name);
		edata->hide_stmt = true;
	}
}

static void
filter_log(ErrorData *edata)
{
	/* messages are known by what they were before their translation */
	if (edata->message && edata->message_id && multisite_shared)
	{
		if (AM_STARTUP_PROCESS() && edata->elevel == LOG && multisite_source_site[0])
		{
			if (begins_with(edata->message_id, "waiting for WAL to become available at") ||
				is_end_of_wal(edata))
			{
				edata->output_to_server = false;
				wake_receiver();
			}
		}
		else
		{
			hide_value(edata, "multisite.kafka_options");
			hide_value(edata, "multisite.local_conninfo");
		}
	}
	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

void
logfilter_install(void)
{
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = filter_log;
}
