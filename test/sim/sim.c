/*-------------------------------------------------------------------------
 *
 * sim.c
 *	  A deterministic simulator of a cluster, Kafka, and two remote sites.
 *
 * The decisions come from src/decide.c and the messages from src/wire.c, the
 * very files that the servers run.  What is around them is a model, written
 * here: the workers' loops, in the order in which receiver.c, orchestrator.c,
 * publisher.c and points.c do things; their state files, of which a crash
 * keeps what was fsynced; Kafka's topics; and the servers' WAL.
 *
 * WAL is a chain of records of 8 bytes.  Each says on which lineage it was
 * written: a lineage is the WAL that one server wrote, forked from another's
 * at some LSN, on a new timeline (a failover) or on the same one (a copy).  So
 * a byte of another lineage is seen wherever it turns up.
 *
 * One generator of random numbers drives all of it, so a seed is a run.  A run
 * has two parts: a number of steps with faults, then as many without as it
 * takes every site to reach the last point.  A check that fails ends the
 * program, and tells the seed.
 *
 * README.md says what is checked, and what is not modelled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <setjmp.h>
#include <time.h>
#include <unistd.h>

#include "decide.h"

#define MAX_SEGMENTS	4
#define NSITES			2
#define WAL_SIZE		(16 * 1024)
#define FIRST_LSN		64
#define RECORD			8
#define SEGMENT_SIZE	64		/* what headers say; the slot's margin */
#define MAX_LINEAGES	12
#define MAX_SERVERS		12
#define MAX_POINTS		256
#define MAX_CONNS		1024
#define COORDINATOR		0		/* as an index; its id is -1 */

static const int32 segment_ids[MAX_SEGMENTS] = {-1, 0, 2, 5};

/* Errors that end an attempt, or stop a pipe; a PipeVerdict counts, too. */
enum
{
	ERR_NONE = 0,
	ERR_HISTORY = 100,			/* a timeline that does not follow */
	ERR_TWO_VERSIONS,
	ERR_INVALID_WAL,
	ERR_POINT_NOT_THERE,
	ERR_LOST,					/* what is to be read next is gone */
	ERR_FLUSH,
	ERR_SWITCHES,
	ERR_HELD,				/* no error: the message waits */
	ERR_CLAIM = 200,			/* + ClaimVerdict */
	ERR_START = 300,			/* + StartVerdict */
	ERR_REMOVED = 400,			/* the server does not have the WAL any more */
	ERR_OUTCLAIMED,
	ERR_OVERTAKEN				/* somebody else has decided */
};

/* ------------------------------------------------------------------------
 * Random numbers, events, failures
 * ------------------------------------------------------------------------
 */

static uint64 seed;
static uint64 random_state;
static uint64 steps;			/* of this run */
static uint64 all_steps;
static bool verbose;
static jmp_buf attempt_end;		/* 1: crashed; 2: ended by error */
static int	attempt_error;

/* what this run's seed chose */
static int	nsegments;
static int	crash_rate;			/* of 1000 durable steps */
static bool calm;				/* faults have stopped */
static bool with_loss;			/* retention, unclean leader election */
static bool with_foreign;		/* somebody else writes to the topics */
static bool with_copies;

/* coverage, over all runs */
enum
{
	SAW_CRASH, SAW_RELEASE, SAW_APPLIED, SAW_FAILOVER, SAW_COPY, SAW_SWITCH, SAW_VOID, SAW_PASSED,
	SAW_OVERLAP, SAW_DUPLICATE, SAW_STALE, SAW_PROMOTED, SAW_REBUILD, SAW_LOSS, SAW_PIPE_ERROR, SAW_REFUSED_CLAIM,
	SAW_ZOMBIE, SAW_TORN, SAW_INTENT, SAW_TAKE_OVER, SAW_REFUSED_PROMOTION, SAW_WITHDRAWAL, NSAW
};
static const char *const saw_names[NSAW] = {
	"crashes", "releases", "applied points", "failovers", "copies", "timeline switches", "void points", "passed points",
	"overlaps", "duplicates", "stale messages", "promoted sites", "rebuilt segments", "losses", "stopped pipes", "refused claims",
	"late messages of the dead", "points torn by a fork", "releases finished after a crash", "pipes taken over", "refused promotions",
	"withdrawn points"
};
static uint64 saw[NSAW];

static uint64
random_next(void)
{
	uint64		z = (random_state += UINT64CONST(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64CONST(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64CONST(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static uint32
below(uint32 n)
{
	return n == 0 ? 0 : random_next() % n;
}

static bool
chance(uint32 of_1000)
{
	return below(1000) < of_1000;
}

static void
event(const char *fmt,...)
{
	va_list		args;

	if (!verbose)
		return;
	va_start(args, fmt);
	printf("%6llu ", (unsigned long long) steps);
	vprintf(fmt, args);
	putchar('\n');
	va_end(args);
}

static void show_all(void);

static void
violated(const char *fmt,...)
{
	va_list		args;

	if (verbose)
		show_all();
	va_start(args, fmt);
	printf("VIOLATED seed %llu step %llu after %llu: ", (unsigned long long) seed,
		   (unsigned long long) steps, (unsigned long long) (all_steps + steps));
	vprintf(fmt, args);
	putchar('\n');
	va_end(args);
	exit(1);
}

static void
attempt_fails(int error)
{
	attempt_error = error;
	longjmp(attempt_end, 2);
}

/* Stands before and behind whatever is made durable: a crash may come here. */
static void
durable(void)
{
	if (!calm && chance(crash_rate))
		longjmp(attempt_end, 1);
}

/* Memory of one run. */
static char *arena;
static size_t arena_used;
static size_t arena_size;

static void *
run_alloc(size_t size)
{
	void	   *result;

	size = (size + 15) & ~(size_t) 15;
	if (arena_used + size > arena_size)
	{
		fprintf(stderr, "the arena is full: seed %llu\n", (unsigned long long) seed);
		exit(2);
	}
	result = arena + arena_used;
	arena_used += size;
	return result;
}

/* ------------------------------------------------------------------------
 * WAL
 * ------------------------------------------------------------------------
 */

typedef struct Lineage
{
	uint32		timeline;
	uint64		end;			/* all of it is flushed */
	int			nforks;			/* its timeline's history */
	TimelineFork forks[16];
	uint8		wal[WAL_SIZE];
} Lineage;

typedef struct Segment
{
	int			nlineages;
	Lineage		lineages[MAX_LINEAGES];
	int			current;		/* server that is the segment's primary */
	bool		lost;			/* its pipe has lost messages */
	bool		claim_lost;		/* and a claim */
	bool		foreign;		/* or has got some of somebody else */
} Segment;

static Segment segments[MAX_SEGMENTS];

static void
make_record(uint8 *record, int lineage, uint64 lsn, uint32 point)
{
	uint64		mix = (lsn * 31 + lineage) * UINT64CONST(0x9E3779B97F4A7C15) + point;

	mix ^= mix >> 29;
	record[0] = lineage;
	record[1] = point;
	record[2] = point >> 8;
	for (int i = 3; i < RECORD; i++)
		record[i] = mix >> (8 * (i - 3));
}

/* As XLogReader would: is this a record, and of which restore point? */
static bool
valid_record(const uint8 *record, uint64 lsn, uint32 *point)
{
	uint8		expected[RECORD];

	*point = record[1] | record[2] << 8;
	make_record(expected, record[0], lsn, *point);
	return memcmp(record, expected, RECORD) == 0;
}

static uint64
write_record(Segment *segment, int lineage, uint32 point)
{
	Lineage    *l = &segment->lineages[lineage];

	if (l->end + RECORD > WAL_SIZE)
		return 0;
	make_record(l->wal + l->end, lineage, l->end, point);
	l->end += RECORD;
	return l->end;
}

/* A new lineage that has parent's WAL before fork. */
static int
fork_lineage(Segment *segment, int parent, uint64 fork, bool new_timeline)
{
	Lineage    *l = &segment->lineages[segment->nlineages];
	const Lineage *p = &segment->lineages[parent];

	memcpy(l->wal, p->wal, fork);
	memset(l->wal + fork, 0, WAL_SIZE - fork);
	l->end = fork;
	l->timeline = p->timeline;
	l->nforks = p->nforks;
	memcpy(l->forks, p->forks, sizeof(p->forks));
	if (new_timeline)
	{
		l->forks[l->nforks].timeline = l->timeline;
		l->forks[l->nforks++].end_lsn = fork;
		for (int i = 0; i < segment->nlineages; i++)
			l->timeline = Max(l->timeline, segment->lineages[i].timeline);
		l->timeline++;
	}
	return segment->nlineages++;
}

static size_t
history_text(const Lineage *l, char *text, size_t size)
{
	size_t		len = 0;

	for (int i = 0; i < l->nforks; i++)
		len += snprintf(text + len, size - len, "%u\t%X/%X\tno recovery target specified\n",
						l->forks[i].timeline, (uint32) (l->forks[i].end_lsn >> 32),
						(uint32) l->forks[i].end_lsn);
	return len;
}

/* Where a lineage's WAL leaves a timeline; its end on its own. */
static uint64
timeline_end(const Lineage *l, uint32 timeline)
{
	return timeline == l->timeline ? l->end : decide_fork_of(l->forks, l->nforks, timeline);
}

/* ------------------------------------------------------------------------
 * Points, as they really are
 * ------------------------------------------------------------------------
 */

typedef struct Truth
{
	uint64		id;
	bool		published;
	uint64		lsn[MAX_SEGMENTS];
	int			lineage[MAX_SEGMENTS];
} Truth;

static Truth truths[MAX_POINTS];
static uint32 ntruths;			/* a point's name is "p" and its place here */

static uint32
named(const char *name)
{
	uint32		n = atoi(name + 1);

	if (name[0] != 'p' || n == 0 || n > ntruths)
		violated("a point of the name \"%s\" was never made", name);
	return n;
}

/* ------------------------------------------------------------------------
 * Kafka
 * ------------------------------------------------------------------------
 */

typedef struct Message
{
	int			key;			/* of a compacted topic; else -1 */
	uint64		tag;
	bool		gone;			/* compacted away */
	uint8		head[WIRE_HEADER_SIZE];
	uint32		len;
	uint8		body[FLEXIBLE_ARRAY_MEMBER];
} Message;

#define TOPIC_SIZE 8192

typedef struct Topic
{
	Message    *messages[TOPIC_SIZE];
	int64		low;
	int64		high;			/* readers see what lies before */
	int64		end;			/* the rest is not replicated yet */
} Topic;

static Topic pipes[MAX_SEGMENTS];
static Topic points_topic;
static Topic status_topics[NSITES];
static Topic release_topics[NSITES];

/*
 * A producer.  What it sends arrives in order, some time; it dies with its
 * worker, but what is under way may arrive nevertheless.
 */
typedef struct Conn
{
	bool		used;
	bool		dead;
	bool		broken;			/* its topic has lost messages under it */
	int			first;			/* queue[first..n) has not arrived */
	int			n;
	int			acked;			/* queue[..acked) is acknowledged */
	struct
	{
		Topic	   *topic;
		Message    *message;
		int64		offset;
	}			queue[64];
} Conn;

static Conn conns[MAX_CONNS];

static Conn *
conn_open(void)
{
	for (int i = 0; i < MAX_CONNS; i++)
	{
		if (conns[i].used)
			continue;
		memset(&conns[i], 0, offsetof(Conn, queue));
		conns[i].used = true;
		return &conns[i];
	}
	fprintf(stderr, "too many producers\n");
	exit(2);
}

/* Closed or killed: some of what is under way is lost. */
static void
conn_close(Conn **conn)
{
	Conn	   *c = *conn;

	*conn = NULL;
	if (c == NULL)
		return;
	c->dead = true;
	c->n -= chance(500) ? c->n - c->first : (int) below(c->n - c->first + 1);
	if (c->first == c->n)
		c->used = false;
	else
		saw[SAW_ZOMBIE]++;
}

static bool
conn_send(Conn *c, Topic *topic, WireHeader *header, int key, const void *body, size_t len, uint64 tag)
{
	Message    *m;

	/* what is acknowledged is forgotten */
	if (c->n == lengthof(c->queue) && c->acked > 0)
	{
		memmove(c->queue, c->queue + c->acked, (c->n - c->acked) * sizeof(c->queue[0]));
		c->first -= c->acked;
		c->n -= c->acked;
		c->acked = 0;
	}
	if (c->n == lengthof(c->queue))
		return false;
	m = run_alloc(offsetof(Message, body) + len);
	m->key = key;
	m->tag = tag;
	m->gone = false;
	m->len = len;
	memcpy(m->body, body, len);
	wire_encode_header(header, body, len, m->head);
	c->queue[c->n].topic = topic;
	c->queue[c->n++].message = m;
	return true;
}

static int64
topic_append(Topic *topic, Message *m)
{
	if (topic->end == TOPIC_SIZE)
	{
		fprintf(stderr, "a topic is full: seed %llu\n", (unsigned long long) seed);
		exit(2);
	}
	topic->messages[topic->end] = m;
	return topic->end++;
}

/* The next message of a producer arrives. */
static void
conn_arrives(Conn *c)
{
	if (!c->used || c->first == c->n)
		return;
	c->queue[c->first].offset = topic_append(c->queue[c->first].topic, c->queue[c->first].message);
	if (!calm && chance(5))		/* a retry that was not needed */
		topic_append(c->queue[c->first].topic, c->queue[c->first].message);
	c->first++;
	if (c->dead && c->first == c->n)
		c->used = false;
}

static void
topic_replicates(Topic *topic)
{
	topic->high = calm ? topic->end : topic->high + below(topic->end - topic->high + 1);
}

/*
 * Is the next message acknowledged?  A message that an unclean election took
 * away before that never will be; its producer's attempt ends.
 */
static bool
conn_acked(Conn *c, uint64 *tag, int64 *offset)
{
	if (c->acked == c->first || c->queue[c->acked].offset >= c->queue[c->acked].topic->high)
		return false;
	*tag = c->queue[c->acked].message->tag;
	*offset = c->queue[c->acked].offset;
	c->acked++;
	return true;
}

static bool
conn_idle(const Conn *c)
{
	return c->acked == c->n;
}

/* Reads at or behind *offset; *offset gets where it was. */
static const Message *
topic_read(const Topic *topic, int64 *offset)
{
	while (*offset < topic->high && topic->messages[*offset]->gone)
		(*offset)++;
	return *offset < topic->high ? topic->messages[*offset] : NULL;
}

static WireHeader
decode(const Message *m)
{
	WireHeader	header;
	WireError	error = wire_decode_header(m->head, WIRE_HEADER_SIZE, m->body, m->len, &header);

	if (error != WIRE_OK)
		violated("a message does not decode: %s", wire_error_text(error));
	return header;
}

/* A PipeReader */
static WireHeader
read_pipe(void *arg, int64 offset)
{
	return decode(((Topic *) arg)->messages[offset]);
}

static WireHeader
new_header(WireKind kind, int segment, uint32 timeline, uint32 epoch, uint64 lsn)
{
	WireHeader	header = {
		.kind = kind,
		.segment = segment_ids[segment],
		.epoch = epoch,
		.timeline = timeline,
		.system_id = 1000 + segment,
		.lsn = lsn,
		.pg_major = 15,
		.wal_segment_size = SEGMENT_SIZE
	};

	return header;
}

/* ------------------------------------------------------------------------
 * The source: servers and their publishers
 * ------------------------------------------------------------------------
 */

typedef enum PublisherPhase
{
	PUBLISHER_DOWN,
	PUBLISHER_CLAIMS,			/* waits until its claim is acknowledged */
	PUBLISHER_STREAMS
} PublisherPhase;

typedef struct Server
{
	int			segment;
	int			lineage;
	bool		up;
	bool		publish;
	bool		wrote;			/* in the calm part */
	bool		retired;		/* a copy has replaced it for good */
	uint8		identity;
	bool		take_over;		/* TAKE_OVER_FILE */
	uint64		slot;			/* what it keeps, 0: no slot yet */

	PublisherPhase phase;
	int			error;			/* of the last attempt */
	Conn	   *conn;
	uint32		timeline;
	uint32		epoch;
	uint64		sent;
	uint64		acked;
	int64		last_offset;
	int64		foreign_from;
	int64		foreign_to;
	uint64		start;
	bool		enter;
} Server;

static Server servers[MAX_SERVERS];
static int	nservers;

static Server *
add_server(int segment, int lineage, uint8 identity)
{
	Server	   *server = &servers[nservers++];

	memset(server, 0, sizeof(*server));
	server->segment = segment;
	server->lineage = lineage;
	server->identity = identity;
	server->up = server->publish = true;
	return server;
}

static Lineage *
lineage_of(const Server *server)
{
	return &segments[server->segment].lineages[server->lineage];
}

static WireClaim
claim_of(const Server *server)
{
	WireClaim	claim;

	memset(&claim, 0, sizeof(claim));
	claim.timeline = lineage_of(server)->timeline;
	claim.identity[0] = server->identity;
	snprintf(claim.host, WIRE_HOST_SIZE, "host%d", (int) (server - servers));
	strcpy(claim.data_directory, "/data");
	return claim;
}

static void
send_history(Server *server, uint64 lsn)
{
	const Lineage *l = lineage_of(server);
	Lineage		at = *l;
	char		text[1024];
	size_t		len;
	WireHeader	header;

	/* the history of the timeline that begins, not of the newest */
	while (at.nforks > 0 && at.timeline != server->timeline)
		at.timeline = at.forks[--at.nforks].timeline;
	len = history_text(&at, text, sizeof(text));
	header = new_header(WIRE_HISTORY, server->segment, server->timeline, server->epoch, lsn);
	if (!conn_send(server->conn, &pipes[server->segment], &header, -1, text, len, lsn))
		attempt_fails(ERR_FLUSH);
}

/* read_pipe_end(), choose_start() and send_claim() of publisher.c */
static void
publisher_begins(Server *server)
{
	Topic	   *pipe = &pipes[server->segment];
	const Lineage *l = lineage_of(server);
	WireHeader	end = {0};
	ServerPosition position = {.timeline = l->timeline,.flush_lsn = l->end,.forks = l->forks,.nforks = l->nforks};
	StartVerdict verdict;
	WireClaim	ours = claim_of(server);
	char		body[WIRE_CLAIM_MAX];
	size_t		len;
	WireHeader	header;

	server->epoch = 0;
	server->last_offset = pipe->high - 1;
	server->foreign_to = 0;
	if (pipe->low < pipe->high)
	{
		WireClaim	claim;
		WireHeader	claim_header;
		ClaimVerdict claimed;
		int64		at;

		for (int64 i = Max(pipe->low, pipe->high - 256); i < pipe->high; i++)
		{
			header = decode(pipe->messages[i]);
			decide_pipe_end(&end, &server->epoch, &header);
		}
		at = decide_find_claim(pipe->low, pipe->high, 256, read_pipe, pipe, server->epoch);
		if (at >= 0)
			claim_header = decode(pipe->messages[at]);
		if (at < 0 || wire_decode_claim(pipe->messages[at]->body, pipe->messages[at]->len, &claim) != WIRE_OK)
		{
			claim_header = end;
			memset(&claim, 0, sizeof(claim));
			claim.timeline = end.timeline;
		}
		claimed = decide_claim(&claim_header, &claim, 1000 + server->segment, &ours, server->take_over);
		if (claimed == CLAIM_FOREIGN_SYSTEM || claimed == CLAIM_STALE || claimed == CLAIM_COPY)
		{
			saw[SAW_REFUSED_CLAIM]++;
			attempt_fails(ERR_CLAIM + claimed);
		}
		if (claimed == CLAIM_TAKE_OVER)
			saw[SAW_TAKE_OVER]++;
	}

	if (server->slot == 0)
		server->slot = FIRST_LSN;
	position.slot_lsn = server->slot;
	verdict = decide_start(&position, pipe->low < pipe->high ? &end : NULL, &server->timeline, &server->start);
	if (verdict != START_AT && verdict != START_ENTER)
		attempt_fails(ERR_START + verdict);
	if (server->start < server->slot)
		attempt_fails(ERR_REMOVED);
	server->enter = verdict == START_ENTER;

	server->conn = conn_open();
	server->epoch++;
	header = new_header(WIRE_CLAIM, server->segment, server->timeline, server->epoch, server->start);
	len = wire_encode_claim(&ours, body, sizeof(body));
	conn_send(server->conn, pipe, &header, -1, body, len, server->start);
	server->sent = server->acked = server->start;
	server->phase = PUBLISHER_CLAIMS;
	event("publisher of %d (server %d, lineage %d) claims %u at %llu on timeline %u", segment_ids[server->segment],
		  (int) (server - servers), server->lineage, server->epoch, (unsigned long long) server->start, server->timeline);
}

/* pipe_delivered(), check_foreign_writer() and advance_slot() */
static void
publisher_hears(Server *server)
{
	Topic	   *pipe = &pipes[server->segment];
	uint64		tag;
	int64		offset;
	uint64		keep;

	if (server->conn->broken)
		attempt_fails(ERR_FLUSH);
	while (conn_acked(server->conn, &tag, &offset))
	{
		server->acked = Max(server->acked, tag);
		if (offset > server->last_offset + 1)
		{
			if (server->foreign_to == 0)
				server->foreign_from = server->last_offset + 1;
			server->foreign_to = offset;
		}
		server->last_offset = offset;
	}
	for (int64 i = Max(server->foreign_from, pipe->low); i < server->foreign_to; i++)
	{
		WireHeader	other = decode(pipe->messages[i]);

		if (decide_outclaimed(server->epoch, server->phase == PUBLISHER_CLAIMS, &other))
			attempt_fails(ERR_OUTCLAIMED);
	}
	server->foreign_to = 0;

	keep = decide_slot(server->acked, SEGMENT_SIZE);
	if (keep <= server->slot)
		return;
	server->slot = keep;

	/* invariant 4, by what the pipe really has, unless it was claimed empty */
	if (keep <= server->start)
		return;
	for (int64 i = pipe->high - 1; i >= pipe->low; i--)
	{
		WireHeader	header = decode(pipe->messages[i]);

		if (header.epoch <= server->epoch &&
			header.lsn + (header.kind == WIRE_WAL ? header.length : 0) >= keep)
			return;
	}
	if (!segments[server->segment].lost)
		violated("invariant 4: the slot of segment %d is at %llu, which Kafka has not acknowledged",
				 segment_ids[server->segment], (unsigned long long) keep);
}

static void
publisher_streams(Server *server)
{
	const Lineage *l = lineage_of(server);
	uint64		end = timeline_end(l, server->timeline);
	uint32		len;
	WireHeader	header;

	if (server->sent == end)
	{
		uint32		next = l->timeline;

		if (server->timeline == l->timeline)
			return;
		for (int i = l->nforks - 1; l->forks[i].timeline > server->timeline; i--)
			next = l->forks[i].timeline;
		server->timeline = next;
		send_history(server, end);
		return;
	}
	len = calm ? 128 : 4 * (1 + below(24));
	len = Min(len, end - server->sent);
	header = new_header(WIRE_WAL, server->segment, server->timeline, server->epoch, server->sent);
	if (conn_send(server->conn, &pipes[server->segment], &header, -1, l->wal + server->sent, len, server->sent + len))
		server->sent += len;
}

static void
publisher_step(Server *server)
{
	if (!server->up || !server->publish)
		return;
	switch (server->phase)
	{
		case PUBLISHER_DOWN:
			publisher_begins(server);
			server->error = ERR_NONE;
			break;
		case PUBLISHER_CLAIMS:
			if (!calm && chance(10))
				attempt_fails(ERR_FLUSH);
			publisher_hears(server);
			if (!conn_idle(server->conn))
				break;
			server->take_over = false;
			if (server->enter)
				send_history(server, server->start);
			server->phase = PUBLISHER_STREAMS;
			break;
		case PUBLISHER_STREAMS:
			publisher_hears(server);
			publisher_streams(server);
			break;
	}
}

static void
publisher_ends(Server *server)
{
	conn_close(&server->conn);
	server->phase = PUBLISHER_DOWN;
}

/* ------------------------------------------------------------------------
 * The source: the points worker
 * ------------------------------------------------------------------------
 */

static struct
{
	int			server;			/* the coordinator that it runs on */
	bool		begun;
	uint64		last_id;
	int64		last_offset;
	uint64		newest;			/* of the history file on that server */
	Conn	   *conn;
	int			making;			/* segments that have their record, + 1; 0: none */
	Truth		truth;
	uint32		name;
	uint64		made;			/* last point published by this attempt */
	bool		wanted;
} points;

static void
points_ends(void)
{
	conn_close(&points.conn);
	points.begun = false;
	points.making = 0;
}

static void
points_step(void)
{
	uint64		tag;
	int64		offset;

	/* on the coordinator's current primary; a new one has no history */
	if (points.server != segments[COORDINATOR].current)
	{
		points_ends();
		points.server = segments[COORDINATOR].current;
		points.newest = 0;
	}
	if (!servers[points.server].up)
		return;
	if (!points.begun)
	{
		points.last_id = points.newest;
		points.last_offset = points_topic.high - 1;
		for (int64 i = Max(points_topic.low, points_topic.high - 64); i < points_topic.high; i++)
		{
			WireManifest manifest;
			WireManifestEntry entries[MAX_SEGMENTS];
			const Message *m = points_topic.messages[i];

			if (wire_decode_manifest(m->body, m->len, &manifest, entries, MAX_SEGMENTS) != WIRE_OK)
				violated("a manifest does not decode");
			points.last_id = Max(points.last_id, manifest.id);
		}
		points.conn = conn_open();
		points.begun = true;
		return;
	}
	if (points.conn->broken)
		attempt_fails(ERR_FLUSH);
	while (conn_acked(points.conn, &tag, &offset))
	{
		if (offset != points.last_offset + 1)
			attempt_fails(ERR_OVERTAKEN);
		points.last_offset = offset;
		points.made = tag;
	}
	if (points.making == 0)
	{
		if (!points.wanted || ntruths + 1 >= MAX_POINTS)
			return;
		points.wanted = false;
		points.name = ++ntruths;
		memset(&points.truth, 0, sizeof(Truth));
		points.truth.id = points.last_id + 1;
		points.making = 1;
		return;
	}
	if (points.making <= nsegments)
	{
		int			s = points.making - 1;
		Server	   *server = &servers[segments[s].current];

		if (!server->up)
		{
			points.making = 0;	/* the point fails */
			return;
		}
		points.truth.lineage[s] = server->lineage;
		points.truth.lsn[s] = write_record(&segments[s], server->lineage, points.name);
		points.making = points.truth.lsn[s] == 0 ? 0 : points.making + 1;
		return;
	}
	points.making = 0;
	points.last_id = points.truth.id;
	durable();
	points.newest = points.truth.id;
	truths[points.name] = points.truth;
	durable();
	{
		WireManifest manifest;
		WireManifestEntry entries[MAX_SEGMENTS];
		char		body[WIRE_MANIFEST_MAX(MAX_SEGMENTS)];
		WireHeader	header;
		size_t		len;

		memset(&manifest, 0, sizeof(manifest));
		manifest.id = points.truth.id;
		manifest.nsegments = nsegments;
		snprintf(manifest.name, WIRE_NAME_SIZE, "p%u", points.name);
		for (int s = 0; s < nsegments; s++)
		{
			entries[s].segment = segment_ids[s];
			entries[s].lsn = points.truth.lsn[s];
			entries[s].timeline = segments[s].lineages[points.truth.lineage[s]].timeline;
		}
		header = new_header(WIRE_MANIFEST, COORDINATOR, entries[0].timeline, 0, entries[0].lsn);
		len = wire_encode_manifest(&manifest, entries, body, sizeof(body));
		if (conn_send(points.conn, &points_topic, &header, -1, body, len, points.name))
			truths[points.name].published = true;
		event("point %llu \"%s\" made", (unsigned long long) manifest.id, manifest.name);
	}
}

/* ------------------------------------------------------------------------
 * A remote segment: its server, and its receiver
 * ------------------------------------------------------------------------
 */

#define MAX_SWITCHES 8

/* StagingState of staging.h, as far as it matters here. */
typedef struct State
{
	bool		known;
	uint32		base_timeline;
	uint64		base_lsn;
	int64		pipe_offset;
	int64		points_offset;
	int64		release_offset;
	int64		release_base;
	uint32		epoch;
	uint32		timeline;
	uint64		staged_lsn;
	uint32		next_timeline;
	uint64		switch_lsn;
	int			nswitches;
	TimelineSwitch switches[MAX_SWITCHES];
	uint32		released_timeline;
	uint64		released_lsn;
	uint64		released_point;
	uint32		intent_timeline;
	uint64		intent_lsn;
	uint64		intent_point;
	uint64		passed_point;
	uint64		promote_point;
	bool		promoted;
} State;

/* A point in the history file; each write of it is atomic and durable. */
typedef struct Record
{
	uint64		id;
	uint32		name;
	uint32		timeline;
	uint64		lsn;
	bool		passed;
} Record;

typedef enum ReceiverPhase
{
	RECEIVER_DOWN,
	RECEIVER_LOOPS,
	RECEIVER_TELLS,				/* that it is promoted */
	RECEIVER_FINISHED
} ReceiverPhase;

typedef struct Remote
{
	int			site;
	int			segment;

	/* the server: what is on its disk */
	uint64		base_lsn;
	uint8		wal[WAL_SIZE];
	uint64		wal_end;		/* recovery finds records up to here */
	uint64		replayed;
	bool		promote_signal;
	bool		promoted;
	int			built;			/* how often it was built anew */

	/* the receiver's files */
	State		disk;
	uint8		staged_disk[WAL_SIZE];
	Record		history[MAX_POINTS];
	uint64		history_newest;

	/* the receiver's memory */
	ReceiverPhase phase;
	int			error;			/* of the last attempt */
	int			pipe_error;		/* why the pipe is not read */
	State		state;
	uint8		staged[WAL_SIZE];
	uint64		unsynced;		/* bytes from here on are not durable */
	bool		dirty;
	Conn	   *conn;
	int64		next_points;
	int64		next_release;
	WireRelease decision;
	uint64		valid_end;
	uint64		staged_point;
	uint64		applied_point;
	WireStatus	reported;
	bool		requested;
	bool		withdraws;
	bool		leave_given;
	uint64		withdrawal;
	int64		withdrawn_at;
	uint64		withdrawn_behind;
} Remote;

static Remote remotes[NSITES][MAX_SEGMENTS];

static void
save(Remote *r)
{
	durable();
	if (r->unsynced < WAL_SIZE)
		memcpy(r->staged_disk + r->unsynced, r->staged + r->unsynced, WAL_SIZE - r->unsynced);
	r->unsynced = WAL_SIZE;
	r->disk = r->state;
	durable();
}

static void
put_history(Remote *r, const Record *record)
{
	durable();
	r->history[record->id] = *record;
	r->history_newest = Max(r->history_newest, record->id);
	durable();
}

/* Server: a base backup of the segment's primary takes its place. */
static void
build(Remote *r)
{
	const Server *source = &servers[segments[r->segment].current];
	const Lineage *l = lineage_of(source);
	int			built = r->built + 1;
	int			site = r->site;
	int			segment = r->segment;

	conn_close(&r->conn);
	memset(r, 0, sizeof(*r));
	r->site = site;
	r->segment = segment;
	r->built = built;
	r->base_lsn = r->wal_end = r->replayed = l->end;
	memcpy(r->wal, l->wal, l->end);
	r->disk.base_timeline = l->timeline;
	r->disk.base_lsn = l->end;
	r->unsynced = WAL_SIZE;
	event("site %d segment %d built at %llu on timeline %u (lineage %d)", site, segment_ids[segment],
		  (unsigned long long) l->end, l->timeline, source->lineage);
}

/* A receiver's status is never overtaken by an older one: README.md. */
static void
receiver_ends(Remote *r)
{
	if (r->conn)
	{
		for (int n = below(r->conn->n - r->conn->first + 1); n > 0; n--)
			conn_arrives(r->conn);
		r->conn->n = r->conn->first;
	}
	conn_close(&r->conn);
	r->phase = RECEIVER_DOWN;
}

static void
find_pipe_offset(Remote *r)
{
	Topic	   *pipe = &pipes[r->segment];
	State	   *state = &r->state;

	state->pipe_offset = decide_find_start(pipe->low, pipe->high, 256, read_pipe, pipe, 1000 + r->segment,
										   state->base_timeline, state->base_lsn, &state->epoch);
	state->next_timeline = 0;
	state->switch_lsn = 0;
}

/* create_staging() */
static void
create_staging(Remote *r)
{
	State	   *state = &r->state;

	state->known = true;
	state->timeline = state->released_timeline = state->base_timeline;
	state->staged_lsn = state->released_lsn = state->base_lsn;
	find_pipe_offset(r);
	state->points_offset = points_topic.low;
	state->release_offset = state->release_base = release_topics[r->site].high;
	save(r);
}

static PipePosition
pipe_position(const Remote *r)
{
	PipePosition position = {
		.system_id = 1000 + r->segment,
		.segment = segment_ids[r->segment],
		.pg_major = 15,
		.wal_segment_size = SEGMENT_SIZE,
		.epoch = r->state.epoch,
		.timeline = r->state.timeline,
		.lsn = r->state.staged_lsn,
		.released_lsn = r->state.released_lsn,
		.next_timeline = r->state.next_timeline,
		.switch_lsn = r->state.switch_lsn
	};

	return position;
}

static const uint8 *
byte_at(const Remote *r, uint64 lsn)
{
	return lsn < r->state.released_lsn ? &r->wal[lsn] : &r->staged[lsn];
}

static uint32
timeline_at(const Remote *r, uint64 lsn)
{
	return decide_timeline_at(r->state.released_timeline, r->state.switches, r->state.nswitches, lsn);
}

static void
begin_check(Remote *r)
{
	r->valid_end = r->state.released_lsn;
	r->staged_point = r->state.released_point;
}

/* staging_finish_intent() */
static void
finish_intent(Remote *r)
{
	State	   *state = &r->state;
	int			kept = 0;

	if (state->intent_point == 0)
		return;
	durable();
	if (state->intent_lsn > state->staged_lsn)
		violated("site %d segment %d releases up to %llu, but has staged %llu", r->site, segment_ids[r->segment],
				 (unsigned long long) state->intent_lsn, (unsigned long long) state->staged_lsn);
	if (state->intent_lsn > state->released_lsn)
	{
		/* what recovery can read grows in one step, whatever is interrupted */
		memcpy(r->wal + state->released_lsn, r->staged_disk + state->released_lsn,
			   state->intent_lsn - state->released_lsn);
		r->wal_end = state->intent_lsn;
	}
	durable();
	state->released_timeline = state->intent_timeline;
	state->released_lsn = state->intent_lsn;
	state->released_point = state->intent_point;
	state->intent_timeline = 0;
	state->intent_lsn = state->intent_point = 0;
	for (int i = 0; i < state->nswitches; i++)
	{
		if (state->switches[i].begin >= state->released_lsn)
			state->switches[kept++] = state->switches[i];
	}
	state->nswitches = kept;
	save(r);
	saw[SAW_RELEASE]++;
}

/* compare_staged() */
static int
compare_staged(const Remote *r, const WireHeader *header, const uint8 *body, uint32 len)
{
	uint64		from = Max(header->lsn, r->state.released_lsn);
	uint64		to = Min(header->lsn + len, r->state.staged_lsn);

	if (header->timeline == r->state.timeline && from < to &&
		memcmp(r->staged + from, body + (from - header->lsn), to - from) != 0)
		return ERR_TWO_VERSIONS;
	return ERR_NONE;
}

/* newest_point_before() */
static uint64
newest_point_before(const Remote *r, uint64 lsn, bool *lost)
{
	uint64		newest = r->state.released_point;

	*lost = false;
	for (uint64 id = newest + 1; id <= r->history_newest; id++)
	{
		const Record *point = &r->history[id];

		if (point->id == 0 || point->passed || point->lsn > r->state.staged_lsn)
			continue;
		if (point->lsn > lsn)
			*lost = true;
		else if (!*lost)
			newest = id;
	}
	return Min(newest, r->staged_point);
}

/* may_leave_timeline() */
static bool
may_leave_timeline(Remote *r)
{
	bool		lost;

	(void) newest_point_before(r, r->state.switch_lsn, &lost);
	if (!lost || r->leave_given)
	{
		r->withdraws = r->leave_given = false;
		return true;
	}
	r->withdraws = true;
	r->withdrawal++;
	r->withdrawn_at = -1;
	r->withdrawn_behind = r->decision.decision;
	return false;
}

static int
take_wal(Remote *r, const WireHeader *header, const uint8 *body)
{
	State	   *state = &r->state;
	PipePosition position = pipe_position(r);
	uint32		skip;
	PipeVerdict verdict = decide_wal(&position, header, &skip);
	uint32		len = header->length - skip;
	int			error;

	switch (verdict)
	{
		case PIPE_SWITCH:
			if (!may_leave_timeline(r))
			{
				saw[SAW_WITHDRAWAL]++;
				return ERR_HELD;
			}
			if (state->nswitches == MAX_SWITCHES)
				return ERR_SWITCHES;
			state->switches[state->nswitches].timeline = state->next_timeline;
			state->switches[state->nswitches++].begin = state->switch_lsn;
			state->timeline = state->next_timeline;
			state->staged_lsn = state->switch_lsn;
			state->next_timeline = 0;
			state->switch_lsn = 0;
			r->unsynced = Min(r->unsynced, state->staged_lsn);
			save(r);
			saw[SAW_SWITCH]++;
			begin_check(r);
			/* FALLTHROUGH */
		case PIPE_TAKE:
			if (skip > header->length)
				violated("invariant 3: site %d segment %d skips WAL: it has %llu, and takes what begins at %llu", r->site,
						 segment_ids[r->segment], (unsigned long long) state->staged_lsn, (unsigned long long) header->lsn);
			if (skip > 0)
			{
				saw[SAW_OVERLAP]++;
				error = compare_staged(r, header, body, skip);
				if (error)
					return error;
			}
			if (state->staged_lsn + len > WAL_SIZE)
				violated("site %d segment %d stages more than there is", r->site, segment_ids[r->segment]);
			memcpy(r->staged + state->staged_lsn, body + skip, len);
			r->unsynced = Min(r->unsynced, state->staged_lsn);
			state->staged_lsn += len;
			return ERR_NONE;
		case PIPE_DUPLICATE:
			saw[SAW_DUPLICATE]++;
			return compare_staged(r, header, body, header->length);
		case PIPE_STALE_CLAIM:
			return ERR_NONE;
		default:
			return verdict;
	}
}

/* take_from_pipe(); returns what stops the pipe */
static int
take_from_pipe(Remote *r, const Message *m)
{
	State	   *state = &r->state;
	WireHeader	header = decode(m);
	PipePosition position = pipe_position(r);
	PipeVerdict verdict = decide_origin(&position, &header);
	int			error = ERR_NONE;

	if (verdict == PIPE_STALE_CLAIM)
		saw[SAW_STALE]++;
	else if (verdict != PIPE_TAKE)
		return verdict;
	else
	{
		state->epoch = Max(state->epoch, header.epoch);
		if (header.kind == WIRE_HISTORY)
		{
			uint64		fork;

			position = pipe_position(r);
			switch (decide_history(&position, &header, (const char *) m->body, m->len, &fork))
			{
				case HISTORY_KNOWN:
					break;
				case HISTORY_FOLLOWS:
					state->next_timeline = header.timeline;
					state->switch_lsn = fork;
					break;
				case HISTORY_FOREIGN:
					error = ERR_HISTORY;
					break;
			}
		}
		else if (header.kind == WIRE_WAL)
			error = take_wal(r, &header, m->body);
	}
	if (error == ERR_HELD)
		return ERR_NONE;
	if (error == ERR_NONE)
		state->pipe_offset++;
	return error;
}

static void
take_manifest(Remote *r, const Message *m)
{
	WireManifest manifest;
	WireManifestEntry entries[MAX_SEGMENTS];
	Record		record;

	if (wire_decode_manifest(m->body, m->len, &manifest, entries, MAX_SEGMENTS) != WIRE_OK)
		violated("a manifest does not decode");
	r->state.points_offset = r->next_points;
	if (r->history[manifest.id].id != 0 || manifest.id <= r->state.released_point)
		return;
	for (uint32 i = 0; i < manifest.nsegments; i++)
	{
		if (entries[i].segment != segment_ids[r->segment])
			continue;
		record.id = manifest.id;
		record.name = named(manifest.name);
		record.lsn = entries[i].lsn;
		record.timeline = entries[i].timeline;
		record.passed = record.lsn < r->state.base_lsn;
		put_history(r, &record);
		if (record.passed)
		{
			saw[SAW_PASSED]++;
			r->state.passed_point = Max(r->state.passed_point, record.id);
		}
	}
}

static void
take_decision(Remote *r, const Message *m)
{
	WireRelease release;

	if (wire_decode_release(m->body, m->len, &release) != WIRE_OK)
		violated("a decision does not decode");
	if (decide_newer(&r->decision, &release))
	{
		r->state.release_offset = r->next_release - 1;
		r->decision = release;
	}
}

/* take_messages(): some of what there is, of any topic in any order */
static void
receiver_takes(Remote *r)
{
	int			n = calm ? 200 : below(12);

	for (int i = 0; i < n; i++)
	{
		const Message *m;
		int			from = below(3);

		if (from == 0 && (m = topic_read(&points_topic, &r->next_points)) != NULL)
		{
			r->next_points++;
			take_manifest(r, m);
		}
		else if (from == 1 && (m = topic_read(&release_topics[r->site], &r->next_release)) != NULL)
		{
			r->next_release++;
			take_decision(r, m);
		}
		else if (from == 2 && r->pipe_error == ERR_NONE && (!r->withdraws || r->leave_given))
		{
			Topic	   *pipe = &pipes[r->segment];

			if (r->state.pipe_offset < pipe->low || r->state.pipe_offset > pipe->end)
				attempt_fails(ERR_LOST);
			if (r->state.pipe_offset >= pipe->high)
				continue;
			r->pipe_error = take_from_pipe(r, pipe->messages[r->state.pipe_offset]);
			if (r->pipe_error)
			{
				saw[SAW_PIPE_ERROR]++;
				event("site %d segment %d: pipe stopped, error %d", r->site, segment_ids[r->segment], r->pipe_error);
			}
		}
		else
			continue;
		r->dirty = true;
	}
}

/* check_points() */
static void
check_points(Remote *r)
{
	State	   *state = &r->state;
	uint32		restore_point;

	while (r->valid_end + RECORD <= state->staged_lsn)
	{
		uint8		record[RECORD];

		for (int i = 0; i < RECORD; i++)
			record[i] = *byte_at(r, r->valid_end + i);
		if (!valid_record(record, r->valid_end, &restore_point))
			attempt_fails(ERR_INVALID_WAL);
		r->valid_end += RECORD;
	}
	for (uint64 id = r->staged_point + 1; id <= r->history_newest; id++)
	{
		Record		point = r->history[id];
		StagedVerdict verdict;

		if (point.id == 0)
			continue;
		if (point.passed)
		{
			state->passed_point = Max(state->passed_point, id);
			continue;
		}
		verdict = decide_staged(point.timeline, point.lsn, timeline_at(r, point.lsn),
								state->released_lsn, r->valid_end);
		if (verdict == STAGED_BEFORE)
			continue;
		if (verdict == STAGED_VOID)
		{
			event("site %d segment %d: point %llu is void", r->site, segment_ids[r->segment], (unsigned long long) id);
			saw[SAW_VOID]++;
			point.passed = true;
			put_history(r, &point);
			state->passed_point = Max(state->passed_point, id);
			save(r);
			continue;
		}
		if (verdict == STAGED_WAITS)
			break;
		if (verdict == STAGED_HERE)
		{
			const uint8 *record = byte_at(r, point.lsn - RECORD);

			if ((record[1] | record[2] << 8) != (int) point.name)
				attempt_fails(ERR_POINT_NOT_THERE);
		}
		r->staged_point = id;
	}
}

/* release_decided() */
static void
release_decided(Remote *r)
{
	uint64		target = r->decision.released_point;
	State	   *state = &r->state;

	if (!decide_release(&r->decision, state->released_point, r->staged_point) ||
		r->history[target].id == 0 || r->history[target].passed)
		return;
	state->intent_timeline = timeline_at(r, r->history[target].lsn);
	state->intent_lsn = r->history[target].lsn;
	state->intent_point = target;
	event("site %d segment %d releases %llu", r->site, segment_ids[r->segment], (unsigned long long) target);
	save(r);
	finish_intent(r);
}

static void
send_status(Remote *r, WireSegmentState segment_state)
{
	State	   *state = &r->state;
	WireHeader	header = new_header(WIRE_STATUS, r->segment, state->timeline, 0, 0);
	char		body[WIRE_STATUS_MAX];
	size_t		len;
	WireStatus	status;
	bool		lost;

	memset(&status, 0, sizeof(status));
	status.state = segment_state;
	status.timeline = state->timeline;
	status.base_lsn = state->base_lsn;
	status.staged_lsn = state->staged_lsn;
	status.released_lsn = state->released_lsn;
	status.passed_point = state->passed_point;
	status.staged_point = r->staged_point;
	status.released_point = state->released_point;
	status.applied_point = r->applied_point;
	status.promoted_point = state->promoted ? state->promote_point : 0;
	status.withdraws = r->withdraws && !r->leave_given;
	if (state->next_timeline != 0)
		status.staged_point = newest_point_before(r, state->switch_lsn, &lost);
	if (memcmp(&status, &r->reported, sizeof(status)) == 0)
		return;
	len = wire_encode_status(&status, body, sizeof(body));
	if (conn_send(r->conn, &status_topics[r->site], &header, r->segment, body, len, status.withdraws ? r->withdrawal : 0))
		r->reported = status;
}

/* finish_promotion(), as far as the flush */
static void
finish_promotion(Remote *r)
{
	State	   *state = &r->state;

	r->applied_point = r->staged_point = state->released_point;
	if (state->promote_point == 0)
	{
		state->promote_point = state->released_point;
		save(r);
	}
	state->promoted = true;
	send_status(r, WIRE_SEGMENT_PROMOTED);
	r->phase = RECEIVER_TELLS;
}

/* receiver_attempt() and the beginning of follow() */
static void
receiver_begins(Remote *r)
{
	r->state = r->disk;
	memcpy(r->staged, r->staged_disk, WAL_SIZE);
	r->unsynced = WAL_SIZE;
	r->dirty = false;
	r->pipe_error = ERR_NONE;
	memset(&r->decision, 0, sizeof(r->decision));
	memset(&r->reported, 0, sizeof(r->reported));
	r->applied_point = 0;
	r->withdraws = r->leave_given = false;

	if (r->promoted)
	{
		if (!r->state.known || r->state.promote_point == 0 || r->state.promoted)
		{
			r->phase = RECEIVER_FINISHED;
			return;
		}
		r->conn = conn_open();
		finish_promotion(r);
		return;
	}
	r->conn = conn_open();
	if (r->error != ERR_NONE)
	{
		r->staged_point = r->state.released_point;
		send_status(r, WIRE_SEGMENT_FAILED);
	}
	if (!r->state.known)
		create_staging(r);
	else if (r->state.timeline == r->state.base_timeline && r->state.staged_lsn == r->state.base_lsn)
		find_pipe_offset(r);
	if (r->state.points_offset < points_topic.low || r->state.points_offset > points_topic.high)
		attempt_fails(ERR_LOST);
	if (r->state.pipe_offset < pipes[r->segment].low || r->state.pipe_offset > pipes[r->segment].high)
		r->pipe_error = ERR_LOST;	/* open_pipe() */
	r->next_points = r->state.points_offset;
	r->next_release = r->state.release_offset;
	if (r->state.intent_point != 0)
		saw[SAW_INTENT]++;
	finish_intent(r);
	begin_check(r);
	r->phase = RECEIVER_LOOPS;
}

static void
receiver_step(Remote *r)
{
	uint64		tag;
	int64		offset;

	switch (r->phase)
	{
		case RECEIVER_DOWN:
			receiver_begins(r);
			return;
		case RECEIVER_TELLS:
			if (r->conn->broken || (!calm && chance(10)))
				attempt_fails(ERR_FLUSH);
			while (conn_acked(r->conn, &tag, &offset))
				;
			if (conn_idle(r->conn))
			{
				save(r);
				r->phase = RECEIVER_FINISHED;
			}
			return;
		case RECEIVER_FINISHED:
			return;
		case RECEIVER_LOOPS:
			break;
	}
	if (r->conn->broken)
		attempt_fails(ERR_FLUSH);
	while (conn_acked(r->conn, &tag, &offset))
	{
		if (r->withdraws && tag == r->withdrawal && r->withdrawn_at < 0)
			r->withdrawn_at = offset;
	}
	receiver_takes(r);
	if (r->unsynced < WAL_SIZE || r->dirty)
	{
		save(r);
		r->dirty = false;
	}
	check_points(r);
	/* look_for_leave() */
	if (r->withdraws && decide_leave(&r->decision, r->withdrawn_behind, r->withdrawn_at))
		r->leave_given = true;
	if (r->promoted)
	{
		finish_promotion(r);
		return;
	}
	release_decided(r);
	if (r->replayed >= r->state.released_lsn && r->state.released_point != r->applied_point)
	{
		r->applied_point = r->state.released_point;
		saw[SAW_APPLIED]++;
	}

	/* promote_decided() */
	switch (decide_promotion_step(&r->decision, r->segment == COORDINATOR,
								  r->state.released_point, r->applied_point))
	{
		case PROMOTION_NONE:
			break;
		case PROMOTION_NOW:
			r->promote_signal = true;
			/* FALLTHROUGH */
		default:
			if (r->state.promote_point == 0)
			{
				r->state.promote_point = r->decision.promote_point;
				save(r);
			}
	}
	send_status(r, r->decision.promote_point ? WIRE_SEGMENT_PROMOTING :
				r->pipe_error ? WIRE_SEGMENT_FAILED : WIRE_SEGMENT_FOLLOWING);
	r->error = ERR_NONE;
	if (r->pipe_error && chance(calm ? 300 : 50))
	{
		r->error = r->pipe_error;
		receiver_ends(r);
	}
}

/* The server: recovery replays what it can read, and ends when told so. */
static void
recovery_step(Remote *r)
{
	if (r->promoted)
		return;
	if (r->replayed < r->wal_end)
		r->replayed += calm || chance(200) ? r->wal_end - r->replayed : RECORD;
	else if (r->promote_signal)
	{
		event("site %d segment %d promoted at %llu", r->site, segment_ids[r->segment], (unsigned long long) r->wal_end);
		r->promoted = true;
	}
}

/* ------------------------------------------------------------------------
 * A remote site: its orchestrator
 * ------------------------------------------------------------------------
 */

typedef enum OrchestratorPhase
{
	ORCHESTRATOR_DOWN,
	ORCHESTRATOR_LOOPS,
	ORCHESTRATOR_DECIDES		/* waits until its decision is acknowledged */
} OrchestratorPhase;

typedef struct Site
{
	int			number;
	OrchestratorPhase phase;
	int			error;
	Conn	   *conn;
	WireRelease decision;
	WireRelease next;			/* ORCHESTRATOR_DECIDES */
	int64		last_offset;	/* of the release topic, as we know it */
	KnownPoint	points[MAX_POINTS];
	int			npoints;
	SegmentKnown known[MAX_SEGMENTS];
	int			nknown;
	int64		next_points;
	int64		next_status;
	int64		status_end;		/* when this attempt began */
	int64		withdrawn_at;

	/* of its operator */
	bool		wants_promotion;
	bool		wants_pause;
	bool		refused;		/* the last request */

	/* what really happened */
	uint64		decided_promotion;	/* point of it */
	uint32		decided_name;
	bool		torn;			/* a segment lost the point it was to be promoted at */
} Site;

static Site sites[NSITES];

static void
orchestrator_ends(Site *site)
{
	conn_close(&site->conn);
	site->phase = ORCHESTRATOR_DOWN;
}

/* Has the orchestrator heard of this segment since it was built (again)? */
static bool
heard_of(const Site *site, const Remote *r)
{
	for (int k = 0; k < site->nknown; k++)
	{
		if (site->known[k].segment == segment_ids[r->segment])
			return site->known[k].status.base_lsn == r->base_lsn;
	}
	return true;
}

/*
 * Invariant 2: what is decided is on all disks.  A segment that had reported
 * the point may have lost it since for two reasons, neither of which is the
 * orchestrator's: it was built anew, or its source left the timeline.
 */
static void
check_decision(Site *site, const KnownPoint *point)
{
	const Truth *truth = &truths[named(point->name)];

	for (int s = 0; s < nsegments; s++)
	{
		const Remote *r = &remotes[site->number][s];
		const Lineage *l = &segments[s].lineages[truth->lineage[s]];
		uint64		have = r->disk.released_lsn;

		if (r->base_lsn > truth->lsn[s])
		{
			if (heard_of(site, r))
				violated("invariant 2: site %d decides point %llu, which lies before the base backup of segment %d",
						 site->number, (unsigned long long) truth->id, segment_ids[s]);

			/* nothing was heard yet of the new one */
			site->torn = true;
			continue;
		}
		if (have >= truth->lsn[s] || r->promoted)
			continue;
		if (r->disk.staged_lsn >= truth->lsn[s] &&
			memcmp(r->staged_disk + have, l->wal + have, truth->lsn[s] - have) == 0)
			continue;
		if (r->history[truth->id].passed || r->disk.timeline > l->timeline)
		{
			if (heard_of(site, r))
				violated("invariant 2: site %d decides point %llu, which segment %d has given up",
						 site->number, (unsigned long long) truth->id, segment_ids[s]);
			saw[SAW_TORN]++;
			site->torn = true;
			continue;
		}
		if (!heard_of(site, r))
		{
			site->torn = true;
			continue;
		}
		violated("invariant 2: site %d decides point %llu, of which segment %d has staged %llu of %llu",
				 site->number, (unsigned long long) truth->id, segment_ids[s],
				 (unsigned long long) r->disk.staged_lsn, (unsigned long long) truth->lsn[s]);
	}
}

static KnownPoint *
find_point(Site *site, uint64 id)
{
	for (int i = 0; i < site->npoints; i++)
	{
		if (site->points[i].needs.id == id)
			return &site->points[i];
	}
	return NULL;
}

/* decide() */
static void
decide(Site *site, WireRelease next)
{
	WireHeader	header = new_header(WIRE_RELEASE, COORDINATOR, 0, 0, 0);
	char		body[WIRE_RELEASE_MAX];
	size_t		len;

	next.decision = site->decision.decision + 1;
	next.status_offset = site->next_status;
	len = wire_encode_release(&next, body, sizeof(body));
	conn_send(site->conn, &release_topics[site->number], &header, -1, body, len, next.decision);
	site->next = next;
	site->phase = ORCHESTRATOR_DECIDES;
	event("site %d decides %llu: release %llu, promote %llu%s", site->number, (unsigned long long) next.decision,
		  (unsigned long long) next.released_point, (unsigned long long) next.promote_point,
		  next.segments_promoted ? ", coordinator, too" : "");
}

static void
forget_points(Site *site)
{
	int			kept = 0;

	for (int i = 0; i < site->npoints; i++)
	{
		if (site->points[i].needs.id >= site->decision.released_point)
			site->points[kept++] = site->points[i];
	}
	site->npoints = kept;
}

/* read_last_decision() and open_topics() */
static void
orchestrator_begins(Site *site)
{
	Topic	   *topic = &release_topics[site->number];
	const State *coordinator = &remotes[site->number][COORDINATOR].disk;

	memset(&site->decision, 0, sizeof(site->decision));
	if (topic->low < topic->high)
	{
		int64		found = -1;

		if (!coordinator->known)
			return;				/* waits for this server's receiver */
		for (int64 i = Max(topic->low, topic->high - 64); i < topic->high; i++)
		{
			WireRelease release;

			if (wire_decode_release(topic->messages[i]->body, topic->messages[i]->len, &release) != WIRE_OK)
				violated("a decision does not decode");
			if (found < 0 || decide_newer(&site->decision, &release))
			{
				site->decision = release;
				found = i;
			}
		}
		if (found < coordinator->release_base)
		{
			WireRelease fresh = {.decision = site->decision.decision};

			site->decision = fresh;
		}
	}
	site->last_offset = topic->high - 1;
	site->conn = conn_open();
	site->npoints = site->nknown = 0;
	site->next_points = site->decision.released_point ?
		Max(points_topic.low, (int64) site->decision.points_offset) : points_topic.low;
	site->next_status = status_topics[site->number].low;
	site->status_end = status_topics[site->number].high;
	site->withdrawn_at = -1;
	site->phase = ORCHESTRATOR_LOOPS;
}

static void
orchestrator_takes(Site *site)
{
	int			n = calm ? 200 : below(12);

	/* our own decisions are acknowledged before we come here */
	if (release_topics[site->number].high > site->last_offset + 1)
		attempt_fails(ERR_OVERTAKEN);
	for (int i = 0; i < n; i++)
	{
		const Message *m;

		if (below(2) == 0)
		{
			WireManifest manifest;
			WireManifestEntry *entries;
			KnownPoint *point;

			m = topic_read(&points_topic, &site->next_points);
			if (m == NULL)
				continue;
			site->next_points++;
			entries = run_alloc(sizeof(WireManifestEntry) * MAX_SEGMENTS);
			if (wire_decode_manifest(m->body, m->len, &manifest, entries, MAX_SEGMENTS) != WIRE_OK)
				violated("a manifest does not decode");
			if (manifest.id < site->decision.released_point ||
				(site->npoints > 0 && manifest.id <= site->points[site->npoints - 1].needs.id))
				continue;
			point = &site->points[site->npoints++];
			point->needs.id = manifest.id;
			point->needs.nsegments = manifest.nsegments;
			point->needs.entries = entries;
			point->offset = site->next_points - 1;
			strcpy(point->name, manifest.name);
		}
		else
		{
			WireStatus	status;
			WireHeader	header;
			int			at = 0;

			m = topic_read(&status_topics[site->number], &site->next_status);
			if (m == NULL)
				continue;
			site->next_status++;
			header = decode(m);
			if (wire_decode_status(m->body, m->len, &status) != WIRE_OK)
				violated("a status does not decode");
			while (at < site->nknown && site->known[at].segment < header.segment)
				at++;
			if (at == site->nknown || site->known[at].segment != header.segment)
			{
				memmove(&site->known[at + 1], &site->known[at], (site->nknown - at) * sizeof(SegmentKnown));
				site->nknown++;
			}
			site->known[at].segment = header.segment;
			site->known[at].heard = true;
			site->known[at].status = status;
			if (status.withdraws)
				site->withdrawn_at = site->next_status - 1;
		}
	}
}

/* decide_promotion() of orchestrator.c */
static void
promotion_requested(Site *site)
{
	PointHeld	held;
	const KnownPoint *point;
	WireRelease next = site->decision;
	int32		blocker;

	site->refused = false;
	if (site->decision.promote_point != 0)
	{
		decide(site, site->decision);
		return;
	}
	point = decide_newest(site->points, site->npoints, site->decision.released_point,
						  site->known, site->nknown, &held);
	if (point == NULL)
		point = find_point(site, site->decision.released_point);
	if (point == NULL ||
		decide_point(&point->needs, site->known, site->nknown, &blocker) != POINT_RELEASABLE)
	{
		site->refused = true;
		saw[SAW_REFUSED_PROMOTION]++;
		return;
	}
	next.released_point = next.promote_point = point->needs.id;
	next.points_offset = point->offset;
	next.paused = false;
	strcpy(next.name, point->name);
	check_decision(site, point);
	decide(site, next);
}

static void
orchestrator_step(Site *site)
{
	uint64		tag;
	int64		offset;
	PointHeld	held;
	const KnownPoint *point;
	WireRelease next;

	if (remotes[site->number][COORDINATOR].promoted)
	{
		if (site->phase != ORCHESTRATOR_DOWN)
			orchestrator_ends(site);
		return;
	}
	switch (site->phase)
	{
		case ORCHESTRATOR_DOWN:
			orchestrator_begins(site);
			return;
		case ORCHESTRATOR_DECIDES:
			if (!calm && chance(10))
				attempt_fails(ERR_FLUSH);
			if (site->conn->broken)
				attempt_fails(ERR_FLUSH);
			if (!conn_acked(site->conn, &tag, &offset))
				return;
			if (offset != site->last_offset + 1)
				attempt_fails(ERR_OVERTAKEN);
			site->decision = site->next;
			site->last_offset = offset;
			forget_points(site);
			site->phase = ORCHESTRATOR_LOOPS;
			return;
		case ORCHESTRATOR_LOOPS:
			break;
	}
	orchestrator_takes(site);
	/* all_read() */
	if (site->next_status < site->status_end)
		return;
	next = site->decision;
	if (decide_answer(&site->decision, site->withdrawn_at, site->next_status))
		decide(site, next);
	else if (site->wants_promotion)
	{
		site->wants_promotion = false;
		promotion_requested(site);
	}
	else if (site->decision.promote_point != 0)
	{
		point = find_point(site, site->decision.promote_point);
		if (point != NULL && !site->decision.segments_promoted &&
			decide_others_promoted(&point->needs, site->known, site->nknown, segment_ids[COORDINATOR]))
		{
			next.segments_promoted = true;
			decide(site, next);
		}
	}
	else if (site->wants_pause != site->decision.paused)
	{
		next.paused = site->wants_pause;
		decide(site, next);
	}
	else
	{
		point = decide_newest(site->points, site->npoints, site->decision.released_point,
							  site->known, site->nknown, &held);
		if (point == NULL || site->decision.paused)
			return;
		check_decision(site, point);
		next.released_point = point->needs.id;
		next.points_offset = point->offset;
		strcpy(next.name, point->name);
		decide(site, next);
	}
}

/* ------------------------------------------------------------------------
 * What must always hold
 * ------------------------------------------------------------------------
 */

/* Beside each remote segment: what was seen of it before. */
typedef struct Seen
{
	int			built;
	uint64		wal_end;
	uint64		staged_lsn;
	uint32		timeline;
	uint64		released_point;
	bool		promoted;
} Seen;

static Seen seen[NSITES][MAX_SEGMENTS];
static uint32 released_name[NSITES][MAX_POINTS];
static uint32 promoted_name[NSITES];

/* Is it all of one lineage, from the beginning to lsn? */
static bool
one_lineage(const Segment *segment, const uint8 *wal, uint64 from, uint64 lsn)
{
	for (int i = 0; i < segment->nlineages; i++)
	{
		if (segment->lineages[i].end >= lsn &&
			memcmp(segment->lineages[i].wal + from, wal + from, lsn - from) == 0)
			return true;
	}
	return false;
}

/*
 * Is there a decision that holds (see decide_newer()) to release a point, or
 * to promote the site at it?  0 stands for any point.
 */
static bool
was_decided(int site, uint64 point, bool promotion)
{
	const Topic *topic = &release_topics[site];
	WireRelease newest = {0};

	for (int64 i = topic->low; i < topic->end; i++)
	{
		WireRelease release;
		uint64		decided;

		if (wire_decode_release(topic->messages[i]->body, topic->messages[i]->len, &release) != WIRE_OK ||
			(i > topic->low && release.decision <= newest.decision))
			continue;
		newest = release;
		decided = promotion ? release.promote_point : release.released_point;
		if (point != 0 ? decided == point : decided != 0)
			return true;
	}
	return false;
}

static void
check_remote(const Remote *r)
{
	Seen	   *before = &seen[r->site][r->segment];
	const Segment *segment = &segments[r->segment];
	int32		id = segment_ids[r->segment];

	if (before->built != r->built)
	{
		memset(before, 0, sizeof(*before));
		before->built = r->built;
		before->wal_end = r->base_lsn;
	}

	/* invariants 1 and 3: recovery finds one point's WAL, all of it, and no more */
	if (r->wal_end != before->wal_end)
	{
		uint64		point = r->disk.intent_point ? r->disk.intent_point : r->disk.released_point;
		uint32		name = r->history[point].name;
		const Truth *truth = &truths[name];

		if (r->wal_end < before->wal_end)
			violated("invariant 1: site %d segment %d has taken released WAL back", r->site, id);
		if (point == 0 || r->wal_end != truth->lsn[r->segment])
			violated("invariant 1: site %d segment %d can recover to %llu, which is no point", r->site, id,
					 (unsigned long long) r->wal_end);
		if (memcmp(r->wal + FIRST_LSN, segment->lineages[truth->lineage[r->segment]].wal + FIRST_LSN,
				   r->wal_end - FIRST_LSN) != 0)
			violated("invariant 3: site %d segment %d has WAL that is not the point's", r->site, id);
		if (!was_decided(r->site, point, false))
			violated("invariant 2: site %d segment %d has released point %llu by itself", r->site, id,
					 (unsigned long long) point);
		if (released_name[r->site][point] != 0 && released_name[r->site][point] != name)
			violated("invariant 5: site %d has released two points of number %llu", r->site,
					 (unsigned long long) point);
		released_name[r->site][point] = name;
		before->wal_end = r->wal_end;
	}
	if (r->disk.released_point < before->released_point)
		violated("invariant 7: site %d segment %d has forgotten a release", r->site, id);
	before->released_point = r->disk.released_point;

	/* invariant 3: what is staged goes on from it, on one lineage */
	if (r->disk.staged_lsn != before->staged_lsn || r->disk.timeline != before->timeline)
	{
		if (r->disk.staged_lsn > r->disk.released_lsn)
		{
			uint8		all[WAL_SIZE];

			memcpy(all, r->wal, r->disk.released_lsn);
			memcpy(all + r->disk.released_lsn, r->staged_disk + r->disk.released_lsn,
				   r->disk.staged_lsn - r->disk.released_lsn);
			if (!one_lineage(segment, all, FIRST_LSN, r->disk.staged_lsn))
				violated("invariant 3: site %d segment %d has staged WAL up to %llu that is of no lineage", r->site, id,
						 (unsigned long long) r->disk.staged_lsn);
		}
		before->staged_lsn = r->disk.staged_lsn;
		before->timeline = r->disk.timeline;
	}

	/* all promoted segments of a site are at the same point, which was decided */
	if (r->promoted && !before->promoted)
	{
		uint64		point = r->disk.intent_point ? r->disk.intent_point : r->disk.released_point;
		uint32		name = r->history[point].name;

		if (promoted_name[r->site] != 0 && promoted_name[r->site] != name)
			violated("site %d: segment %d is promoted at another point than the others", r->site, id);
		promoted_name[r->site] = name;
		if (r->wal_end != truths[name].lsn[r->segment] || !was_decided(r->site, point, true))
			violated("site %d: segment %d is promoted at %llu, where nobody decided it", r->site, id,
					 (unsigned long long) r->wal_end);
		for (int s = 0; s < nsegments && r->segment == COORDINATOR; s++)
		{
			if (!remotes[r->site][s].promoted)
				violated("site %d: the coordinator is promoted before segment %d", r->site, segment_ids[s]);
		}
		if (r->segment == COORDINATOR)
			saw[SAW_PROMOTED]++;
		before->promoted = true;
	}
}

static void
check_all(void)
{
	for (int site = 0; site < NSITES; site++)
	{
		for (int s = 0; s < nsegments; s++)
			check_remote(&remotes[site][s]);
	}
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

typedef enum Actor
{
	ACTOR_PUBLISHER,
	ACTOR_POINTS,
	ACTOR_RECEIVER,
	ACTOR_ORCHESTRATOR
} Actor;

static void
actor_ends(Actor actor, int a, int b, int error)
{
	switch (actor)
	{
		case ACTOR_PUBLISHER:
			servers[a].error = error;
			publisher_ends(&servers[a]);
			break;
		case ACTOR_POINTS:
			points_ends();
			break;
		case ACTOR_RECEIVER:
			remotes[a][b].error = error;
			receiver_ends(&remotes[a][b]);
			break;
		case ACTOR_ORCHESTRATOR:
			sites[a].error = error;
			orchestrator_ends(&sites[a]);
			break;
	}
}

/* One round of a worker's loop.  It may end by an error, or by a crash. */
static void
actor_step(Actor actor, int a, int b)
{
	switch (setjmp(attempt_end))
	{
		case 0:
			switch (actor)
			{
				case ACTOR_PUBLISHER:
					publisher_step(&servers[a]);
					break;
				case ACTOR_POINTS:
					points_step();
					break;
				case ACTOR_RECEIVER:
					receiver_step(&remotes[a][b]);
					break;
				case ACTOR_ORCHESTRATOR:
					orchestrator_step(&sites[a]);
					break;
			}
			break;
		case 1:
			saw[SAW_CRASH]++;
			actor_ends(actor, a, b, ERR_NONE);
			break;
		case 2:
			event("worker %d of %d/%d ends by error %d", actor, a, b, attempt_error);
			actor_ends(actor, a, b, attempt_error);
			break;
	}
}

static void
write_some(int segment)
{
	Server	   *server = &servers[segments[segment].current];

	/* a former primary may not know yet that it is none */
	if (!calm && chance(300))
	{
		Server	   *other = &servers[below(nservers)];

		if (other->segment == segment)
			server = other;
	}
	for (int n = 1 + below(4); n > 0 && server->up; n--)
		write_record(&segments[segment], server->lineage, 0);
}

static void
fail_over(int s)
{
	Segment    *segment = &segments[s];
	Server	   *old = &servers[segment->current];
	const Lineage *l = lineage_of(old);
	uint64		lag = chance(500) ? 0 : RECORD * below(20);
	uint64		fork = l->end;
	Server	   *server;

	if (segment->nlineages == MAX_LINEAGES || nservers == MAX_SERVERS)
		return;

	/* never to before the timeline's own beginning, which is a record long */
	fork = Max(fork > lag ? fork - lag : 0, (l->nforks ? l->forks[l->nforks - 1].end_lsn : FIRST_LSN) + RECORD);
	if (fork > l->end)
		return;
	server = add_server(s, fork_lineage(segment, old->lineage, fork, true), nservers + 1);
	segment->current = server - servers;
	write_record(segment, server->lineage, 0);
	old->up = chance(300);
	saw[SAW_FAILOVER]++;
	event("segment %d fails over at %llu to timeline %u (lineage %d)%s", segment_ids[s], (unsigned long long) fork,
		  lineage_of(server)->timeline, server->lineage, old->up ? "; the old primary is still there" : "");
}

/* A copy of a server with the same configuration starts, too, or instead. */
static void
copy_server(int s)
{
	Segment    *segment = &segments[s];
	Server	   *old = &servers[segment->current];
	Server	   *server;
	bool		replaces = chance(300);

	if (segment->nlineages == MAX_LINEAGES || nservers == MAX_SERVERS)
		return;

	/* the first one to claim a timeline has it: of the copies, that must not be the wrong one */
	if (!replaces && (old->phase != PUBLISHER_STREAMS || old->timeline != lineage_of(old)->timeline))
		return;
	server = add_server(s, fork_lineage(segment, old->lineage, lineage_of(old)->end, false),
						chance(500) ? old->identity : nservers + 1);
	saw[SAW_COPY]++;
	if (replaces)
	{
		old->up = false;
		old->take_over = false;
		old->retired = true;
		publisher_ends(old);
		server->take_over = true;
		segment->current = server - servers;
	}
	write_record(segment, server->lineage, 0);
	event("segment %d is copied (lineage %d)%s", segment_ids[s], server->lineage, replaces ? ", which replaces it" : "");
}

/* Kafka loses messages of a pipe: the oldest, or the newest. */
static void
lose(int s)
{
	Topic	   *pipe = &pipes[s];

	if (chance(500))
	{
		/* not all of it: claims would begin at 1 again */
		pipe->low += below(pipe->high - pipe->low);
		event("pipe %d has lost what lies before %lld", segment_ids[s], (long long) pipe->low);
	}
	else
	{
		/* at most one claim, once: README.md, "What it does not model" */
		for (int n = below(12); n > 0 && pipe->high > pipe->low + 1; n--)
		{
			if (decode(pipe->messages[pipe->high - 1]).kind == WIRE_CLAIM)
			{
				if (segments[s].claim_lost)
					break;
				segments[s].claim_lost = true;
			}
			pipe->high--;
		}
		pipe->end = pipe->high;
		for (int i = 0; i < nservers; i++)
		{
			/* an idempotent producer is told that its sequence does not go on */
			if (servers[i].segment == s && servers[i].conn)
				servers[i].conn->broken = true;
		}
		event("pipe %d has lost what lies behind %lld", segment_ids[s], (long long) pipe->end);
	}
	segments[s].lost = true;
	saw[SAW_LOSS]++;
}

/* Another cluster's server writes to our pipe, by a wrong setting. */
static void
foreign_message(int s)
{
	Message    *m = run_alloc(offsetof(Message, body) + RECORD);
	const State *state = &remotes[below(NSITES)][s].state;
	WireHeader	header = new_header(WIRE_WAL, s, state->timeline, state->epoch, state->staged_lsn);

	if (!state->known)
		return;
	header.system_id = 77;
	m->key = -1;
	m->len = RECORD;
	m->gone = false;
	memset(m->body, 7, RECORD);
	wire_encode_header(&header, m->body, RECORD, m->head);
	topic_append(&pipes[s], m);
	segments[s].foreign = true;
}

static void
compact(Topic *topic)
{
	int64		at = topic->low + below(topic->high - topic->low);

	for (int64 i = at + 1; i < topic->high; i++)
	{
		if (topic->messages[i]->key == topic->messages[at]->key)
			topic->messages[at]->gone = true;
	}
}

static bool
promotion_decided(int site)
{
	return was_decided(site, 0, true);
}

static void
rebuild(int site, int s)
{
	Remote	   *r = &remotes[site][s];

	if (r->promoted || promotion_decided(site) || sites[site].next.promote_point != 0)
		return;
	build(r);
	saw[SAW_REBUILD]++;
}

static Topic *
any_topic(void)
{
	switch (below(6))
	{
		case 0:
			return &points_topic;
		case 1:
			return &status_topics[below(NSITES)];
		case 2:
			return &release_topics[below(NSITES)];
		default:
			return &pipes[below(nsegments)];
	}
}

/* Something that may go wrong, or that somebody may do. */
static void
fault(void)
{
	int			s = below(nsegments);
	int			site = below(NSITES);

	switch (below(16))
	{
		case 0:
			fail_over(s);
			break;
		case 1:
			if (with_copies)
				copy_server(s);
			break;
		case 2:
			if (with_loss)
				lose(s);
			break;
		case 3:
			if (with_foreign)
				foreign_message(s);
			break;
		case 4:
			if (chance(300))
			{
				rebuild(site, s);
				sites[site].wants_promotion = chance(200);
			}
			break;
		case 5:
			if (chance(150))
				sites[site].wants_promotion = true;
			break;
		case 6:
			sites[site].wants_pause = !sites[site].wants_pause;
			break;
		case 7:
			compact(&status_topics[site]);
			break;
		case 8:
		case 9:
			{
				Server	   *server = &servers[below(nservers)];

				server->up = !server->up && !server->retired;
				break;
			}
		case 10:
			actor_ends(ACTOR_PUBLISHER, below(nservers), 0, ERR_NONE);
			break;
		case 11:
			actor_ends(ACTOR_ORCHESTRATOR, site, 0, ERR_NONE);
			break;
		case 12:
			actor_ends(ACTOR_POINTS, 0, 0, ERR_NONE);
			break;
		default:
			actor_ends(ACTOR_RECEIVER, site, s, ERR_NONE);
			break;
	}
	for (int i = 0; i < nservers; i++)
	{
		if (!servers[i].up)
			publisher_ends(&servers[i]);
	}
}

static void
random_step(int fault_rate)
{
	uint32		what = below(100);
	int			site = below(NSITES);
	int			s = below(nsegments);

	if (chance(fault_rate))
		fault();
	else if (what < 6)
		write_some(s);
	else if (what < 8)
		points.wanted = true;
	else if (what < 30)
		conn_arrives(&conns[below(20)]);
	else if (what < 40)
		topic_replicates(any_topic());
	else if (what < 60)
		actor_step(ACTOR_PUBLISHER, chance(700) ? segments[s].current : (int) below(nservers), 0);
	else if (what < 66)
		actor_step(ACTOR_POINTS, 0, 0);
	else if (what < 72)
		recovery_step(&remotes[site][s]);
	else if (what < 80)
		actor_step(ACTOR_ORCHESTRATOR, site, 0);
	else
		actor_step(ACTOR_RECEIVER, site, s);
	steps++;
	check_all();
}

/* Everybody works, and nothing goes wrong. */
static void
calm_round(void)
{
	for (int i = 0; i < MAX_CONNS; i++)
	{
		while (conns[i].used && conns[i].first < conns[i].n)
			conn_arrives(&conns[i]);
	}
	for (int s = 0; s < nsegments; s++)
		topic_replicates(&pipes[s]);
	topic_replicates(&points_topic);
	for (int i = 0; i < nservers; i++, steps++)
		actor_step(ACTOR_PUBLISHER, i, 0);
	actor_step(ACTOR_POINTS, 0, 0);
	steps++;
	for (int site = 0; site < NSITES && remotes[site][0].built; site++)
	{
		topic_replicates(&status_topics[site]);
		topic_replicates(&release_topics[site]);
		actor_step(ACTOR_ORCHESTRATOR, site, 0);
		for (int s = 0; s < nsegments; s++, steps++)
		{
			actor_step(ACTOR_RECEIVER, site, s);
			recovery_step(&remotes[site][s]);
		}
		steps++;
	}
	check_all();
}

/* Where all of it stands, for who looks for the cause of a failure. */
static void
show_all(void)
{
	for (int s = 0; s < nsegments; s++)
	{
		for (int site = 0; site < NSITES; site++)
		{
			const Remote *r = &remotes[site][s];

			printf("site %d segment %d: phase %d, error %d, pipe error %d, offset %lld, claim %u, timeline %u, staged %llu, "
				   "valid %llu, released %llu, points staged %llu passed %llu released %llu applied %llu promote %llu%s\n",
				   site, segment_ids[s], r->phase, r->error, r->pipe_error, (long long) r->state.pipe_offset,
				   r->state.epoch, r->state.timeline, (unsigned long long) r->state.staged_lsn,
				   (unsigned long long) r->valid_end, (unsigned long long) r->state.released_lsn,
				   (unsigned long long) r->staged_point, (unsigned long long) r->state.passed_point,
				   (unsigned long long) r->state.released_point, (unsigned long long) r->applied_point,
				   (unsigned long long) r->state.promote_point, r->promoted ? ", promoted" : "");
		}
		for (int64 i = pipes[s].low; i < pipes[s].end; i++)
		{
			WireHeader	h;

			if (wire_decode_header(pipes[s].messages[i]->head, WIRE_HEADER_SIZE, pipes[s].messages[i]->body,
								   pipes[s].messages[i]->len, &h) == WIRE_OK)
				printf("pipe %d offset %lld: %s, claim %u, timeline %u, %llu to %llu\n", segment_ids[s], (long long) i,
					   wire_kind_name(h.kind), h.epoch, h.timeline, (unsigned long long) h.lsn,
					   (unsigned long long) (h.lsn + (h.kind == WIRE_WAL ? h.length : 0)));
		}
	}
}

/* ------------------------------------------------------------------------
 * What must hold in the end
 * ------------------------------------------------------------------------
 */

static bool
has_late_claim(Topic *pipe)
{
	uint32		epoch = 0;

	for (int64 i = pipe->low; i < pipe->high; i++)
	{
		WireHeader	header = read_pipe(pipe, i);

		if (header.kind == WIRE_CLAIM && header.epoch < epoch)
			return true;
		epoch = Max(epoch, header.epoch);
	}
	return false;
}

/* May a segment of a site be stuck? */
static bool
justified(const Remote *r, int error)
{
	const Segment *segment = &segments[r->segment];
	const Lineage *l = lineage_of(&servers[segment->current]);

	if (segment->lost || segment->foreign)
		return true;

	/* a claim that came late looks like one of a topic that was made anew */
	if (error == PIPE_MADE_ANEW)
		return has_late_claim(&pipes[r->segment]);

	/* what is released here never happened at the source */
	if (error == PIPE_RELEASED_PAST_FORK || error == PIPE_UNKNOWN_TIMELINE || error == ERR_HISTORY)
		return r->disk.released_lsn > l->end ||
			memcmp(r->wal + FIRST_LSN, l->wal + FIRST_LSN, r->disk.released_lsn - FIRST_LSN) != 0;
	return false;
}

static int
error_of(const Remote *r)
{
	return r->pipe_error ? r->pipe_error : r->error;
}

/* Returns true if the site can be expected to reach the last point. */
static bool
check_errors(int site)
{
	bool		works = true;

	for (int s = 0; s < nsegments; s++)
	{
		const Remote *r = &remotes[site][s];
		int			error = error_of(r);

		if (r->promoted)
			continue;
		if (error != ERR_NONE && !justified(r, error))
			violated("liveness: site %d segment %d is stuck by error %d, which is not justified (staged %llu on timeline %u)",
					 site, segment_ids[s], error, (unsigned long long) r->disk.staged_lsn, r->disk.timeline);
		works &= error == ERR_NONE;
	}
	return works;
}

/* Returns true if all of it is published. */
static bool
check_source(void)
{
	bool		works = true;

	for (int s = 0; s < nsegments; s++)
	{
		Server	   *server = &servers[segments[s].current];

		/* the operator's answer, if the pipe does not tell any more who claimed it */
		if (server->error == ERR_CLAIM + CLAIM_COPY && segments[s].lost)
			server->take_over = true;
		if (server->error != ERR_NONE && !segments[s].lost && !segments[s].foreign)
			violated("liveness: the publisher of segment %d is stuck by error %d", segment_ids[s], server->error);
		works &= server->error == ERR_NONE;
	}
	for (int i = 0; i < nservers; i++)
	{
		const Server *server = &servers[i];

		if (server->phase == PUBLISHER_STREAMS && i != segments[server->segment].current &&
			servers[segments[server->segment].current].phase == PUBLISHER_STREAMS &&
			server->sent == lineage_of(server)->end && server->wrote)
			violated("two servers publish as segment %d: %d goes on", segment_ids[server->segment], i);
	}
	return works;
}

/* A site whose segments all stand at its released point can be promoted at it. */
static void
check_promotable(Site *site)
{
	const KnownPoint *point = find_point(site, site->decision.released_point);
	int32		blocker;

	if (point == NULL || site->phase != ORCHESTRATOR_LOOPS)
		return;
	for (int s = 0; s < nsegments; s++)
	{
		if (remotes[site->number][s].disk.released_point != site->decision.released_point ||
			error_of(&remotes[site->number][s]) != ERR_NONE)
			return;
	}
	if (decide_point(&point->needs, site->known, site->nknown, &blocker) != POINT_RELEASABLE)
		violated("liveness: all of site %d stands at point %llu, but cannot be promoted there, because of segment %d",
				 site->number, (unsigned long long) site->decision.released_point, blocker);
}

static void
check_promoted(int site)
{
	for (int s = 0; s < nsegments; s++)
	{
		if (remotes[site][s].promoted)
			continue;
		if (sites[site].torn)
			return;
		violated("liveness: site %d is to be promoted, but segment %d is not", site, segment_ids[s]);
	}
}

static void
calm_down(void)
{
	uint32		last;
	bool		promote[NSITES];

	calm = true;
	for (int s = 0; s < nsegments; s++)
		servers[segments[s].current].up = true;
	for (int site = 0; site < NSITES; site++)
		sites[site].wants_pause = false;
	for (int i = 0; i < 30; i++)
		calm_round();

	/* whoever publishes without a right to will notice by what it sends now */
	for (int i = 0; i < nservers; i++)
	{
		servers[i].wrote = servers[i].up &&
			write_record(&segments[servers[i].segment], servers[i].lineage, 0) != 0;
	}
	for (int i = 0; i < 30; i++)
		calm_round();
	check_source();
	for (int site = 0; site < NSITES; site++)
	{
		if (!promotion_decided(site))
			check_promotable(&sites[site]);
	}

	/* the last point */
	last = ntruths;
	for (int i = 0; i < 60 && points.made <= last; i++)
	{
		for (int s = 0; s < nsegments; s++)
			write_some(s);
		points.wanted = points.making == 0;
		for (int k = 0; k < MAX_SEGMENTS + 4; k++)
			calm_round();
	}
	points.wanted = false;
	for (int i = 0; i < 60; i++)
		calm_round();
	if (points.made <= last || !check_source())
		return;					/* the source cannot make, or publish, one */

	/* a gap shows when something follows it */
	for (int i = 0; i < 16; i++)
	{
		for (int s = 0; s < nsegments; s++)
			write_some(s);
		calm_round();
		calm_round();
	}
	for (int site = 0; site < NSITES; site++)
	{
		if (promotion_decided(site))
			check_promoted(site);
		else if (check_errors(site))
		{
			for (int s = 0; s < nsegments; s++)
			{
				const Remote *r = &remotes[site][s];

				if (r->wal_end != truths[points.made].lsn[s] || r->replayed != r->wal_end)
					violated("liveness: site %d segment %d is at %llu, and the last point at %llu", site, segment_ids[s],
							 (unsigned long long) r->wal_end, (unsigned long long) truths[points.made].lsn[s]);
			}
		}
		promote[site] = !promotion_decided(site) && check_errors(site) && chance(300);
		if (promote[site])
			sites[site].wants_promotion = true;
	}
	for (int i = 0; i < 60; i++)
		calm_round();
	for (int site = 0; site < NSITES; site++)
	{
		if (promote[site])
			check_promoted(site);
	}
}

/* ------------------------------------------------------------------------
 * Runs
 * ------------------------------------------------------------------------
 */

static void
run(uint64 the_seed, int nsteps)
{
	int			fault_rate;

	seed = random_state = the_seed;
	steps = 0;
	arena_used = 0;
	calm = false;
	nservers = 0;
	ntruths = 0;
	memset(segments, 0, sizeof(segments));
	memset(truths, 0, sizeof(truths));
	for (int i = 0; i < MAX_CONNS; i++)
		conns[i].used = false;
	for (int s = 0; s < MAX_SEGMENTS; s++)
		pipes[s].low = pipes[s].high = pipes[s].end = 0;
	points_topic.low = points_topic.high = points_topic.end = 0;
	memset(&points, 0, sizeof(points));
	memset(remotes, 0, sizeof(remotes));
	memset(sites, 0, sizeof(sites));
	memset(seen, 0, sizeof(seen));
	memset(released_name, 0, sizeof(released_name));
	memset(promoted_name, 0, sizeof(promoted_name));

	nsegments = 1 + below(MAX_SEGMENTS);
	crash_rate = below(3) * 15;
	fault_rate = below(4) * 8;
	with_loss = chance(250);
	with_foreign = chance(100);
	with_copies = !with_loss && chance(500);	/* a lost claim protects from nobody */
	for (int s = 0; s < nsegments; s++)
	{
		segments[s].nlineages = 1;
		segments[s].lineages[0].timeline = 1;
		segments[s].lineages[0].end = FIRST_LSN;
		segments[s].current = nservers;
		add_server(s, 0, nservers + 1);
		write_some(s);
	}
	points.server = segments[COORDINATOR].current;

	/* base backups are taken while the publishers run */
	calm = true;
	for (int i = 0; i < 4; i++)
		calm_round();
	calm = false;
	for (int site = 0; site < NSITES; site++)
	{
		status_topics[site].low = status_topics[site].high = status_topics[site].end = 0;
		release_topics[site].low = release_topics[site].high = release_topics[site].end = 0;
		sites[site].number = site;
		for (int s = 0; s < nsegments; s++)
		{
			if (chance(500))
				write_some(s);
			remotes[site][s].site = site;
			remotes[site][s].segment = s;
			build(&remotes[site][s]);
		}
	}
	for (int i = 0; i < nsteps; i++)
		random_step(fault_rate);
	calm_down();
	all_steps += steps;
}

/* The seeds of a file: a number at the start of a line, then a comment. */
static int
run_file(const char *path, int nsteps)
{
	FILE	   *file = fopen(path, "r");
	char		line[256];
	int			n = 0;

	if (file == NULL)
	{
		perror(path);
		exit(2);
	}
	while (fgets(line, sizeof(line), file))
	{
		if (line[0] < '0' || line[0] > '9')
			continue;
		run(strtoull(line, NULL, 10), nsteps);
		n++;
	}
	fclose(file);
	return n;
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	uint64		first = 1;
	long		runs = 100;
	int			nsteps = 2000;
	double		seconds = 0;
	double		began = now();
	bool		quiet = false;
	const char *file = NULL;
	int			opt;

	arena_size = 64 * 1024 * 1024;
	arena = malloc(arena_size);
	while ((opt = getopt(argc, argv, "f:n:qr:s:S:t:v")) != -1)
	{
		switch (opt)
		{
			case 'f':
				file = optarg;
				break;
			case 'n':
				runs = atol(optarg);
				break;
			case 'q':
				quiet = true;
				break;
			case 'r':
				first = strtoull(optarg, NULL, 10);
				break;
			case 's':
				first = strtoull(optarg, NULL, 10);
				runs = 1;
				break;
			case 'S':
				nsteps = atoi(optarg);
				break;
			case 't':
				seconds = atof(optarg);
				break;
			case 'v':
				verbose = true;
				setvbuf(stdout, NULL, _IOLBF, 0);
				break;
			default:
				fprintf(stderr, "usage: sim [-v] [-q] [-s seed | -f file of seeds | -r first seed] [-n runs | -t seconds] [-S steps a run]\n");
				return 2;
		}
	}
	if (file)
		runs = run_file(file, nsteps);
	else if (seconds > 0)
	{
		for (runs = 0; now() - began < seconds; runs++)
			run(first + runs, nsteps);
	}
	else
	{
		for (long i = 0; i < runs; i++)
			run(first + i, nsteps);
	}
	printf("%ld runs, %llu steps, %.1f s: %.1f million steps a minute\n", runs, (unsigned long long) all_steps,
		   now() - began, all_steps / 1e6 / (now() - began) * 60);
	for (int i = 0; i < NSAW && !quiet; i++)
		printf("%12llu %s\n", (unsigned long long) saw[i], saw_names[i]);
	return 0;
}
