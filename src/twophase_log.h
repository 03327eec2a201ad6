/*-------------------------------------------------------------------------
 *
 * twophase_log.h
 *	  The entries of the log of prepared transactions: how they lie on disk.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MULTISITE_TWOPHASE_LOG_H
#define MULTISITE_TWOPHASE_LOG_H

#define TWOPHASE_GID_SIZE	200 /* as the server's GIDSIZE, with the zero */

typedef enum TwophaseKind
{
	TWOPHASE_PREPARED = 1,
	TWOPHASE_COMMITTED,
	TWOPHASE_ROLLED_BACK,
	TWOPHASE_PROMOTED			/* the last one: where the WAL from the source
								 * ended */
} TwophaseKind;

typedef struct TwophaseEntry
{
	TwophaseKind kind;
	uint32		xid;			/* promoted: how many segments the point has */
	uint64		lsn;			/* end of the record; 0 if it is older than the
								 * log */
	int64		time;			/* as in the record */
	char		gid[TWOPHASE_GID_SIZE]; /* promoted: the point's name */
} TwophaseEntry;

#define TWOPHASE_HEADER_SIZE	8
#define TWOPHASE_ENTRY_MAX		(32 + TWOPHASE_GID_SIZE)

/* A log begins with this. */
extern void twophase_encode_header(char *buf);
extern bool twophase_check_header(const char *buf, size_t len);

/* Returns the entry's size. */
extern size_t twophase_encode(const TwophaseEntry *entry, char *buf);

/*
 * Returns the size of the entry at buf; 0 if no whole and valid entry is
 * there.
 */
extern size_t twophase_decode(const char *buf, size_t len, TwophaseEntry *entry);

#endif							/* MULTISITE_TWOPHASE_LOG_H */
