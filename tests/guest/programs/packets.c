// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a packet costs, in instructions
 *
 *	packets FROM TO ADDRESS COUNT RUNS
 *
 * For a guest with one processor whose time advances by a nanosecond with each
 * instruction. Sends UDP datagrams as raw frames from the interface FROM to the
 * interface TO, whose address is ADDRESS, and receives them by a socket, a few
 * at a time. Prints a line per run: packets COUNT instructions N.
 *
 * Time in which nothing is to be done is not counted: a child that runs only
 * then, and always then, says how much of it there was.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT	7001
#define PAYLOAD	1400
#define BATCH	16

struct frame {
	struct ether_header eth;
	struct iphdr ip;
	struct udphdr udp;
	char payload[PAYLOAD];
} __attribute__((packed));

static void die(const char *what)
{
	fprintf(stderr, "packets: %s: %s\n", what, strerror(errno));
	exit(1);
}

static pid_t start_idler(void)
{
	struct sched_param param = { 0 };
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sched_setscheduler(0, SCHED_IDLE, &param))
		die("SCHED_IDLE");
	for (;;)
		;
}

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t))
		die("clock");
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void read_address(int fd, const char *interface, uint8_t *mac)
{
	struct ifreq ifr = { 0 };

	strncpy(ifr.ifr_name, interface, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &ifr))
		die(interface);
	memcpy(mac, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
}

static uint16_t checksum(const void *data, int words)
{
	const uint16_t *word = data;
	uint32_t sum = 0;

	while (words--)
		sum += *word++;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void fill_frame(struct frame *frame, const char *address)
{
	frame->eth.ether_type = htons(ETHERTYPE_IP);
	frame->ip.version = 4;
	frame->ip.ihl = sizeof(frame->ip) / 4;
	frame->ip.tot_len = htons(sizeof(*frame) - sizeof(frame->eth));
	frame->ip.ttl = 64;
	frame->ip.protocol = IPPROTO_UDP;
	frame->ip.daddr = inet_addr(address);
	/* A neighbour, who is nobody here. */
	frame->ip.saddr = frame->ip.daddr ^ htonl(0x7f);
	frame->ip.check = checksum(&frame->ip, sizeof(frame->ip) / 2);
	frame->udp.source = htons(PORT);
	frame->udp.dest = htons(PORT);
	frame->udp.len = htons(sizeof(frame->udp) + PAYLOAD);
}

/* Sends and receives @nr; a datagram that does not arrive ends the program. */
static void pass(int out, int in, const struct frame *frame, int nr)
{
	char buffer[PAYLOAD];
	int i;

	for (i = 0; i < nr; i++)
		if (send(out, frame, sizeof(*frame), 0) != sizeof(*frame))
			die("send");
	for (i = 0; i < nr; i++) {
		struct pollfd poll_in = { .fd = in, .events = POLLIN };

		if (recv(in, buffer, PAYLOAD, MSG_DONTWAIT) == PAYLOAD)
			continue;
		if (errno != EAGAIN || poll(&poll_in, 1, 20000) != 1 ||
		    recv(in, buffer, PAYLOAD, 0) != PAYLOAD)
			die("a datagram was lost");
	}
}

int main(int argc, char **argv)
{
	static struct frame frame;
	struct sockaddr_in bound = { .sin_family = AF_INET };
	struct sockaddr_ll link = { .sll_family = AF_PACKET };
	uint64_t start, idle;
	int in, out, count, runs, i;
	clockid_t idler;

	if (argc != 6)
		return 2;
	count = atoi(argv[4]);
	runs = atoi(argv[5]);

	in = socket(AF_INET, SOCK_DGRAM, 0);
	bound.sin_addr.s_addr = inet_addr(argv[3]);
	bound.sin_port = htons(PORT);
	if (in < 0 || bind(in, (struct sockaddr *)&bound, sizeof(bound)))
		die("socket");
	out = socket(AF_PACKET, SOCK_RAW, 0);
	link.sll_ifindex = if_nametoindex(argv[1]);
	if (out < 0 || bind(out, (struct sockaddr *)&link, sizeof(link)))
		die(argv[1]);
	read_address(out, argv[1], frame.eth.ether_shost);
	read_address(out, argv[2], frame.eth.ether_dhost);
	fill_frame(&frame, argv[3]);

	if (clock_getcpuclockid(start_idler(), &idler))
		die("the idler's clock");
	/* Each buffer of the rings once. */
	for (i = 0; i < 64; i++)
		pass(out, in, &frame, BATCH);
	while (runs--) {
		start = nanoseconds(CLOCK_MONOTONIC);
		idle = nanoseconds(idler);
		for (i = 0; i < count; i += BATCH)
			pass(out, in, &frame, BATCH);
		printf("packets %d instructions %llu\n", i,
		       (unsigned long long)
		       (nanoseconds(CLOCK_MONOTONIC) - start -
			(nanoseconds(idler) - idle)));
		fflush(stdout);
	}
	return 0;
}
