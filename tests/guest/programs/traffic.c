// SPDX-License-Identifier: GPL-2.0-only
/*
 * Traffic whose loss or corruption shows
 *
 *	traffic serve PORT		peer: take TCP streams
 *	traffic stream IP PORT PACE_US	guest: a TCP stream both ways
 *	traffic echo PORT		guest: send every UDP datagram back
 *	traffic ping IP PORT PERIOD_US	peer: measure the longest outage
 *	traffic dirty KIB PERIOD_US	guest: a CPU that writes memory
 *	traffic netdev MAC		guest: wait for a network interface
 *
 * The stream's payload is checked word by word here, because a network device
 * that has checked a packet's checksum says nothing about what became of the
 * packet in memory. Outages are measured by the peer: the guest's own clock
 * stands still while it moves.
 *
 * Each prints lines that a test waits for, and a last line when it is told to
 * end by SIGTERM.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_WORDS	1024

/* One piece of the stream: 8 KiB, no word of which is predictable by chance. */
struct block {
	uint64_t seq;
	uint64_t words[BLOCK_WORDS - 1];
};

static volatile sig_atomic_t ended;

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static void sleep_us(long us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	nanosleep(&ts, NULL);
}

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void fill_block(struct block *block, uint64_t seq)
{
	block->seq = seq;
	for (int i = 0; i < BLOCK_WORDS - 1; i++)
		block->words[i] = mix(seq * BLOCK_WORDS + i);
}

/* Number of words that are not what fill_block() wrote. */
static int check_block(const struct block *block, uint64_t seq)
{
	int bad = block->seq != seq;

	for (int i = 0; i < BLOCK_WORDS - 1; i++)
		bad += block->words[i] != mix(seq * BLOCK_WORDS + i);
	return bad;
}

static struct sockaddr_in address(const char *ip, const char *port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };

	addr.sin_port = htons(atoi(port));
	if (ip && !inet_aton(ip, &addr.sin_addr)) {
		fprintf(stderr, "traffic: bad address %s\n", ip);
		exit(2);
	}
	return addr;
}

static int make_socket(int type)
{
	int one = 1, fd = socket(AF_INET, type, 0);

	if (fd < 0) {
		perror("traffic: socket");
		exit(1);
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return fd;
}

static void bind_socket(int fd, const char *port)
{
	struct sockaddr_in addr = address(NULL, port);

	if (bind(fd, (void *)&addr, sizeof(addr))) {
		perror("traffic: bind");
		exit(1);
	}
}

/*
 * Both ends of a stream do the same: send blocks at a pace, check those that
 * come in. Returns the number of bad words, or -1 if the connection broke.
 */
static long run_stream(int fd, long pace_us, const char *who)
{
	static struct block out, in;
	size_t sent = sizeof(out), got = 0;
	uint64_t out_seq = 0, in_seq = 0;
	double next = now(), report = now() + 1;
	long bad = 0;
	int one = 1, closing = 0;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (;;) {
		struct pollfd polled = { fd, POLLIN, 0 };
		double t = now();
		int timeout = 100;
		ssize_t n;

		/*
		 * Take all that the other end still sends: to close a socket
		 * with data unread resets the connection.
		 */
		if (ended && !closing) {
			shutdown(fd, SHUT_WR);
			closing = 1;
			sent = sizeof(out);
		}
		if (!closing && sent == sizeof(out) && t >= next) {
			fill_block(&out, out_seq++);
			sent = 0;
			next += pace_us * 1e-6;
			if (next < t)
				next = t;
		}
		if (sent < sizeof(out))
			polled.events |= POLLOUT;
		else if (!closing && next - t < 0.1)
			timeout = next > t ? (next - t) * 1000 + 1 : 0;
		if (poll(&polled, 1, timeout) < 0 && errno != EINTR)
			return -1;
		if (polled.revents & POLLOUT) {
			n = send(fd, (char *)&out + sent, sizeof(out) - sent,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN && errno != EINTR) {
				printf("%s broken: %s\n", who, strerror(errno));
				return -1;
			}
			if (n > 0)
				sent += n;
		}
		if (polled.revents & (POLLIN | POLLHUP | POLLERR)) {
			n = recv(fd, (char *)&in + got, sizeof(in) - got,
				 MSG_DONTWAIT);
			if (!n)
				break;
			if (n < 0 && errno != EAGAIN && errno != EINTR) {
				printf("%s broken: %s\n", who, strerror(errno));
				return -1;
			}
			if (n > 0)
				got += n;
			if (got == sizeof(in)) {
				bad += check_block(&in, in_seq++);
				got = 0;
			}
		}
		if (now() >= report) {
			printf("%s sent %llu received %llu bad %ld\n", who,
			       (unsigned long long)out_seq,
			       (unsigned long long)in_seq, bad);
			report = now() + 1;
		}
	}
	printf("%s end sent %llu received %llu bad %ld\n", who,
	       (unsigned long long)out_seq, (unsigned long long)in_seq, bad);
	return bad;
}

static int stream(const char *ip, const char *port, const char *pace)
{
	struct sockaddr_in addr = address(ip, port);
	int fd = make_socket(SOCK_STREAM);

	if (connect(fd, (void *)&addr, sizeof(addr))) {
		perror("traffic: connect");
		return 1;
	}
	printf("stream connected\n");
	return run_stream(fd, atol(pace), "stream") != 0;
}

static int serve(const char *port)
{
	int listener = make_socket(SOCK_STREAM);

	bind_socket(listener, port);
	listen(listener, 8);
	printf("serving\n");
	signal(SIGCHLD, SIG_IGN);
	while (!ended) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		if (!fork()) {
			/* The port is free when the server is gone. */
			close(listener);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(run_stream(fd, 10000, "peer") != 0);
		}
		close(fd);
	}
	return 0;
}

static int echo(const char *port)
{
	int fd = make_socket(SOCK_DGRAM);
	struct sockaddr_in from;
	char data[2048];

	bind_socket(fd, port);
	printf("echoing\n");
	while (!ended) {
		socklen_t length = sizeof(from);
		ssize_t n = recvfrom(fd, data, sizeof(data), 0, (void *)&from,
				     &length);

		if (n > 0)
			sendto(fd, data, n, 0, (void *)&from, length);
	}
	return 0;
}

/*
 * The outage is the longest time without a reply: from one reply to the next,
 * and to the end if none comes any more.
 */
static int ping(const char *ip, const char *port, const char *period)
{
	struct sockaddr_in addr = address(ip, port);
	int fd = make_socket(SOCK_DGRAM);
	double step = atol(period) * 1e-6, next = now(), start = next;
	double last = 0, longest = 0, longest_at = 0, t;
	uint64_t sent = 0, replies = 0, in_row = 0;

	connect(fd, (void *)&addr, sizeof(addr));
	while (!ended) {
		struct pollfd polled = { fd, POLLIN, 0 };
		uint64_t seq;

		t = now();
		if (t >= next) {
			send(fd, &sent, sizeof(sent), MSG_DONTWAIT);
			sent++;
			next += step;
			if (next < t)
				next = t + step;
		}
		t = next - now();
		if (poll(&polled, 1, t > 0 ? t * 1000 + 0.999 : 0) <= 0)
			continue;
		if (recv(fd, &seq, sizeof(seq), MSG_DONTWAIT) != sizeof(seq))
			continue;
		t = now();
		replies++;
		if (last && t - last > longest) {
			longest = t - last;
			longest_at = last;
		}
		if (last && t - last > 0.2) {
			printf("gap %.1f ms at %.3f\n", (t - last) * 1e3,
			       last - start);
			in_row = 0;
		}
		last = t;
		if (++in_row % 100 == 0)
			printf("steady %llu\n", (unsigned long long)in_row);
	}
	t = now();
	if (t - last > longest) {
		longest = t - last;
		longest_at = last;
	}
	printf("ping end sent %llu replies %llu longest %.1f ms at %.3f\n",
	       (unsigned long long)sent, (unsigned long long)replies,
	       longest * 1e3, longest_at - start);
	return 0;
}

static int dirty(const char *kib, const char *period)
{
	size_t size = atol(kib) << 10;
	volatile char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("traffic: mmap");
		return 1;
	}
	printf("dirtying\n");
	while (!ended) {
		for (size_t i = 0; i < size; i += 4096)
			memory[i]++;
		sleep_us(atol(period));
	}
	return 0;
}

static int netdev_with_mac(const char *mac, char *name, size_t size)
{
	char command[256];
	FILE *p;
	int found;

	snprintf(command, sizeof(command),
		 "grep -il '^%s$' /sys/class/net/*/address | cut -d/ -f5", mac);
	p = popen(command, "r");
	found = p && fgets(name, size, p);
	if (p)
		pclose(p);
	name[strcspn(name, "\n")] = 0;
	return found;
}

/* Listen first, look second: an interface that comes in between is seen. */
static int netdev(const char *mac)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
	char event[8192], name[64] = "";

	if (fd < 0 || bind(fd, (void *)&addr, sizeof(addr))) {
		perror("traffic: netlink");
		return 1;
	}
	while (!netdev_with_mac(mac, name, sizeof(name))) {
		do {
			ssize_t n = recv(fd, event, sizeof(event) - 1, 0);

			if (n < 0 && ended)
				return 1;
			event[n < 0 ? 0 : n] = 0;
		} while (strncmp(event, "add@", 4) || !strstr(event, "/net/"));
	}
	printf("%s\n", name);
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = end };
	const char *mode = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGTERM, &action, NULL);
	if (!strcmp(mode, "serve") && argc == 3)
		return serve(argv[2]);
	if (!strcmp(mode, "stream") && argc == 5)
		return stream(argv[2], argv[3], argv[4]);
	if (!strcmp(mode, "echo") && argc == 3)
		return echo(argv[2]);
	if (!strcmp(mode, "ping") && argc == 5)
		return ping(argv[2], argv[3], argv[4]);
	if (!strcmp(mode, "dirty") && argc == 4)
		return dirty(argv[2], argv[3]);
	if (!strcmp(mode, "netdev") && argc == 3)
		return netdev(argv[2]);
	fprintf(stderr, "usage: see the head of traffic.c\n");
	return 2;
}
