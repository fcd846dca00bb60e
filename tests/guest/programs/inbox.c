// SPDX-License-Identifier: GPL-2.0-only
/*
 * inbox PORT SIZE: leave datagrams unread until told to look at them
 *
 * What arrives stays where the network device wrote it, in the socket's queue,
 * and no CPU touches the payload. On SIGUSR1 everything is read and compared:
 * byte i of datagram n is (n * 251 + i * 7 + n / 256) % 256, but for the first
 * four, which are n, big endian. Prints "ready", then "received N wrong M".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int fail(const char *what)
{
	fprintf(stderr, "inbox: %s: %s\n", what, strerror(errno));
	return 1;
}

static int is_wrong(const unsigned char *data, ssize_t got, ssize_t size)
{
	uint32_t n;
	ssize_t i;

	if (got != size)
		return 1;
	memcpy(&n, data, sizeof(n));
	n = ntohl(n);
	for (i = sizeof(n); i < size; i++) {
		if (data[i] != (unsigned char)(n * 251 + i * 7 + n / 256))
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	unsigned char data[65536];
	unsigned int received = 0, wrong = 0;
	int fd, number, room = 8 << 20;
	sigset_t set;
	ssize_t size, got;

	if (argc != 3)
		return 2;
	any.sin_port = htons(atoi(argv[1]));
	size = atoi(argv[2]);
	if (size < 4 || size > (ssize_t)sizeof(data))
		return 2;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);

	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		return fail("socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		return fail("SO_RCVBUFFORCE");
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)))
		return fail("bind");

	printf("ready\n");
	fflush(stdout);
	sigwait(&set, &number);

	while ((got = recv(fd, data, sizeof(data), MSG_DONTWAIT)) >= 0) {
		received++;
		wrong += is_wrong(data, got, size);
	}
	printf("received %u wrong %u\n", received, wrong);
	return 0;
}
