/*-------------------------------------------------------------------------
 *
 * walcheck.c
 *	  Reads WAL to see that it is a valid chain of records.
 *
 * The server's own XLogReader does the work: it checks each record's CRC, its
 * back link, and the headers of the pages.  We only tell it how far there is
 * WAL, so that an incomplete record at the end is told from a broken one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"

#include "compat.h"
#include "walcheck.h"

/* Read at once: the reader asks for each page, and a call for each costs more. */
#define WINDOW_BYTES	(16 * XLOG_BLCKSZ)

struct WalCheck
{
	XLogReaderState *reader;
	char	   *window;			/* WAL that was read ... */
	XLogRecPtr	window_start;	/* ... from here ... */
	XLogRecPtr	window_end;		/* ... to here */
	XLogRecPtr	valid_end;		/* end of the last record read */
	XLogRecPtr	available;
	bool		out_of_wal;		/* the last failure was for want of bytes */
	bool		at_record;		/* the reader stands at valid_end */
	WalRead		read;
	RestorePointSeen seen;
	XactSeen	xact_seen;
	void	   *arg;
};

/* XLogReaderRoutine.page_read; see access/xlogreader.h for the contract */
static int
walcheck_page_read(WAL_PAGE_READ_PARAMETERS)
{
	WalCheck   *check = reader->private_data;
	int			len;

	if (page + reqLen > check->available)
	{
		check->out_of_wal = true;
		return -1;
	}
	len = Min(XLOG_BLCKSZ, check->available - page);
	if (page < check->window_start || page + len > check->window_end)
	{
		XLogRecPtr	segment_end = page - XLogSegmentOffset(page, wal_segment_size) + wal_segment_size;

		check->window_start = page;
		check->window_end = Min(Min(page + WINDOW_BYTES, check->available), segment_end);
		if (!check->read(check->arg, page, check->window, check->window_end - page))
		{
			check->window_end = page;
			check->out_of_wal = true;
			return -1;
		}
	}
	memcpy(buf, check->window + (page - check->window_start), len);
	return len;
}

WalCheck *
walcheck_begin(XLogRecPtr start, WalRead read, RestorePointSeen seen, XactSeen xact_seen,
			   void *arg)
{
	WalCheck   *check = palloc0(sizeof(WalCheck));

	check->window = palloc(WINDOW_BYTES);
	check->valid_end = start;
	check->read = read;
	check->seen = seen;
	check->xact_seen = xact_seen;
	check->arg = arg;
	check->reader = XLogReaderAllocate_compat(walcheck_page_read, check);
	if (check->reader == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while allocating a WAL reading processor.")));
	return check;
}

void
walcheck_end(WalCheck *check)
{
	XLogReaderFree(check->reader);
	pfree(check->window);
	pfree(check);
}

/* A record that would begin at a page's start begins behind its header. */
static XLogRecPtr
record_start(XLogRecPtr lsn)
{
	if (lsn % wal_segment_size == 0)
		return lsn + SizeOfXLogLongPHD;
	if (lsn % XLOG_BLCKSZ == 0)
		return lsn + SizeOfXLogShortPHD;
	return lsn;
}

XLogRecPtr
walcheck_advance(WalCheck *check, XLogRecPtr available, char **problem)
{
	*problem = NULL;
	check->available = available;
	while (check->valid_end < available)
	{
		XLogRecord *record;
		XLogRecPtr	start = check->at_record ? InvalidXLogRecPtr : record_start(check->valid_end);
		char	   *errormsg;

		CHECK_FOR_INTERRUPTS();
		check->at_record = true;
		check->out_of_wal = false;
		record = XLogReadRecord_compat(check->reader, start, &errormsg);
		if (record == NULL)
		{
			check->at_record = false;
			if (!check->out_of_wal)
				*problem = pstrdup(errormsg ? errormsg : "unknown error");
			break;
		}
		check->valid_end = check->reader->EndRecPtr;

		if (check->seen && XLogRecGetRmid(check->reader) == RM_XLOG_ID &&
			(XLogRecGetInfo(check->reader) & ~XLR_INFO_MASK) == XLOG_RESTORE_POINT &&
			XLogRecGetDataLen(check->reader) >= sizeof(xl_restore_point))
		{
			xl_restore_point point;

			memcpy(&point, XLogRecGetData(check->reader), sizeof(point));
			point.rp_name[MAXFNAMELEN - 1] = '\0';
			check->seen(check->arg, point.rp_name, point.rp_time, check->valid_end);
		}
		if (check->xact_seen && XLogRecGetRmid(check->reader) == RM_XACT_ID)
			check->xact_seen(check->arg, check->reader);
	}
	return check->valid_end;
}
