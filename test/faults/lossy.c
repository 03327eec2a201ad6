/*-------------------------------------------------------------------------
 *
 * lossy.c
 *	  A network link that loses and delays packets, for tests.
 *
 *	lossy SEED
 *		Runs in a network namespace of its own, in which ms0 and ms1 are the
 *		ends of a veth pair, and ms0 has an address and a static neighbour.
 *		Reads commands, a line each, and answers each by a line: how many
 *		packets it has passed on so far, and how many it has dropped.
 *
 *			PORT LOSS DELAY
 *				what happens to packets from and to that TCP port, in both
 *				directions: LOSS of them, 0 to 1, are lost, the others come DELAY
 *				milliseconds later.  1 is a router that silently drops all.
 *
 * What the kernel sends to the neighbour arrives at ms1, where we read it as
 * raw frames.  There is no neighbour: we exchange the packet's two addresses,
 * which leaves its checksums right, and send it back.  To the kernel it is
 * then a packet of the neighbour to ms0's own address, where the broker
 * listens; the answer goes the same way.  So a client that connects to the
 * neighbour's address talks to this host's own TCP port, over packets that
 * are lost for good: what is measured is the kernel's TCP under loss.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_RULES	16
#define MAX_FRAME	65536

typedef struct Rule
{
	int			port;
	double		loss;
	double		delay;			/* seconds */
} Rule;

typedef struct Frame
{
	struct Frame *next;
	double		due;
	size_t		len;
	unsigned char data[];
} Frame;

static Rule rules[MAX_RULES];
static int	nrules;
static Frame *first;			/* by due */
static uint64_t seed;
static long passed,
			dropped;

static void
die(const char *what)
{
	fprintf(stderr, "lossy: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* xorshift64* */
static double
chance(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return ((seed * UINT64_C(2685821657736338717)) >> 11) / 9007199254740992.0;
}

/* The kernel must fill in checksums, and send packets that a link could carry. */
static void
no_offload(int fd, const char *name)
{
	static const uint32_t features[] = {ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO, ETHTOOL_STXCSUM};

	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
	{
		struct ethtool_value value = {.cmd = features[i]};
		struct ifreq ifr;

		memset(&ifr, 0, sizeof(ifr));
		strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
		ifr.ifr_data = (char *) &value;
		if (ioctl(fd, SIOCETHTOOL, &ifr) != 0)
			die("could not switch offloading off");
	}
}

static void
get_mac(int fd, const char *name, unsigned char *mac)
{
	struct ifreq ifr;

	memset(&ifr, 0, sizeof(ifr));
	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &ifr) != 0)
		die(name);
	memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
}

static const Rule *
find_rule(const struct ip *ip, size_t len)
{
	static const Rule none;
	size_t		head = ip->ip_hl * 4;
	uint16_t	ports[2];

	if (ip->ip_p != IPPROTO_TCP || len < head + sizeof(ports))
		return &none;
	memcpy(ports, (const char *) ip + head, sizeof(ports));
	for (int i = 0; i < nrules; i++)
	{
		if (rules[i].port == ntohs(ports[0]) || rules[i].port == ntohs(ports[1]))
			return &rules[i];
	}
	return &none;
}

static void
enqueue(const unsigned char *data, size_t len, double due)
{
	Frame	   *frame = malloc(sizeof(Frame) + len);
	Frame	  **at = &first;

	if (frame == NULL)
		die("malloc");
	frame->due = due;
	frame->len = len;
	memcpy(frame->data, data, len);
	while (*at && (*at)->due <= due)
		at = &(*at)->next;
	frame->next = *at;
	*at = frame;
}

/* Turns a frame round, and decides what becomes of it. */
static void
take_frame(unsigned char *data, size_t len, const unsigned char *mac)
{
	struct ip  *ip = (struct ip *) (data + ETHER_HDR_LEN);
	struct in_addr address;
	const Rule *rule;

	if (len < ETHER_HDR_LEN + sizeof(struct ip) ||
		data[12] != ETHERTYPE_IP >> 8 || data[13] != (ETHERTYPE_IP & 0xFF))
		return;
	rule = find_rule(ip, len - ETHER_HDR_LEN);
	if (rule->loss > 0 && chance() < rule->loss)
	{
		dropped++;
		return;
	}
	passed++;
	memcpy(data + 6, data, 6);	/* from the neighbour */
	memcpy(data, mac, 6);
	address = ip->ip_src;
	ip->ip_src = ip->ip_dst;
	ip->ip_dst = address;
	enqueue(data, len, now() + rule->delay);
}

static void
obey(char *line)
{
	Rule		rule;
	int			i;

	if (sscanf(line, "%d %lf %lf", &rule.port, &rule.loss, &rule.delay) != 3)
		die(line);
	rule.delay /= 1000;
	for (i = 0; i < nrules && rules[i].port != rule.port; i++)
		;
	if (i == MAX_RULES)
		die("too many ports");
	rules[i] = rule;
	if (i == nrules)
		nrules++;
	printf("%ld %ld\n", passed, dropped);
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = if_nametoindex("ms1")
	};
	static unsigned char data[MAX_FRAME];
	unsigned char mac[6];
	int			size = 16 * 1024 * 1024;
	int			fd;

	if (argc != 2)
	{
		fprintf(stderr, "usage: lossy SEED\n");
		return 1;
	}
	seed = strtoull(argv[1], NULL, 10) * 2 + 1;
	fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof(address)) != 0)
		die("ms1");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	no_offload(fd, "ms0");
	no_offload(fd, "ms1");
	get_mac(fd, "ms0", mac);

	for (;;)
	{
		struct pollfd polled[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
		double		left = first ? first->due - now() : 3600;
		struct timespec timeout = {.tv_sec = left > 0 ? (time_t) left : 0};

		timeout.tv_nsec = left > 0 ? (left - timeout.tv_sec) * 1e9 : 0;
		if (ppoll(polled, 2, &timeout, NULL) < 0 && errno != EINTR)
			die("poll");
		if (polled[1].revents != 0)
		{
			char		line[128];

			/* the test has ended */
			if (fgets(line, sizeof(line), stdin) == NULL)
				return 0;
			obey(line);
		}
		while (polled[0].revents != 0)
		{
			struct sockaddr_ll from;
			socklen_t	from_len = sizeof(from);
			ssize_t		len = recvfrom(fd, data, sizeof(data), MSG_DONTWAIT,
									   (struct sockaddr *) &from, &from_len);

			if (len < 0)
				break;
			/* what we send ourselves is shown to us, too */
			if (from.sll_pkttype != PACKET_OUTGOING)
				take_frame(data, len, mac);
		}
		while (first && first->due <= now())
		{
			Frame	   *frame = first;

			if (send(fd, frame->data, frame->len, 0) < 0 && errno != ENOBUFS)
				die("send");
			first = frame->next;
			free(frame);
		}
	}
}
