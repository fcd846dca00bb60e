// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs shell commands for the test that started this guest
 *
 *	agent PORT
 *
 * PORT is the name of a virtio-serial port. Frames go both ways over it, each
 * a struct header and its payload. Several commands can run at once. The agent
 * keeps no state outside memory, so it goes on after a migration without
 * noticing: the numbers in the frames let the other side join what came out of
 * the source to what comes out of the destination.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC		0x544d4144	/* "DAMT" */
#define PAYLOAD_MAX	65000
/* One frame should fit into one buffer of the port, to arrive in one piece. */
#define OUTPUT_MAX	8192
#define COMMANDS_MAX	32

enum frame_type {
	/* To the agent: run the payload with sh; the id names the command. */
	FRAME_RUN = 1,
	/* To the agent: payload is a signal number for the command. */
	FRAME_SIGNAL = 2,
	/* From the agent, once, when it listens. */
	FRAME_READY = 0x80,
	/* From the agent: standard output and standard error of a command. */
	FRAME_OUTPUT = 0x81,
	FRAME_ERROR = 0x82,
	/* From the agent, last of a command: payload is its status, 4 bytes. */
	FRAME_EXIT = 0x83,
};

struct header {
	uint32_t magic;
	/* Counts the frames of one direction, from 0. */
	uint32_t seq;
	uint32_t id;
	uint16_t type;
	uint16_t length;
};

/* A command that runs. Free if pid is 0. */
struct command {
	pid_t pid;
	uint32_t id;
	/* Standard output and standard error; -1 after their end. */
	int fd[2];
};

static struct command commands[COMMANDS_MAX];
static int port = -1;
static uint32_t next_seq;
static int child_pipe[2];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void write_all(const void *data, size_t length)
{
	const char *p = data;

	while (length) {
		ssize_t n = write(port, p, length);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN) {
				struct pollfd wait = { port, POLLOUT, 0 };

				poll(&wait, 1, -1);
				continue;
			}
			die("agent: write");
		}
		p += n;
		length -= n;
	}
}

static void send_frame(uint32_t id, enum frame_type type, const void *payload,
		       size_t length)
{
	static char frame[sizeof(struct header) + PAYLOAD_MAX];
	struct header header = {
		.magic = MAGIC,
		.seq = next_seq++,
		.id = id,
		.type = type,
		.length = length,
	};

	memcpy(frame, &header, sizeof(header));
	memcpy(frame + sizeof(header), payload, length);
	write_all(frame, sizeof(header) + length);
}

static struct command *find_command(uint32_t id)
{
	for (int i = 0; i < COMMANDS_MAX; i++)
		if (commands[i].pid && commands[i].id == id)
			return &commands[i];
	return NULL;
}

static void run_command(uint32_t id, char *script)
{
	struct command *c = NULL;
	int out[2], err[2];

	for (int i = 0; i < COMMANDS_MAX && !c; i++)
		if (!commands[i].pid)
			c = &commands[i];
	if (!c || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) {
		uint32_t status = 255;

		send_frame(id, FRAME_EXIT, &status, sizeof(status));
		return;
	}
	c->pid = fork();
	if (c->pid < 0)
		die("agent: fork");
	if (!c->pid) {
		int null = open("/dev/null", O_RDONLY);

		setsid();
		dup2(null, 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		signal(SIGCHLD, SIG_DFL);
		signal(SIGPIPE, SIG_DFL);
		execl("/bin/sh", "sh", "-c", script, NULL);
		_exit(127);
	}
	close(out[1]);
	close(err[1]);
	c->id = id;
	c->fd[0] = out[0];
	c->fd[1] = err[0];
}

static void forward_output(struct command *c, int which)
{
	char data[OUTPUT_MAX];
	ssize_t n = read(c->fd[which], data, sizeof(data));

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0) {
		close(c->fd[which]);
		c->fd[which] = -1;
		return;
	}
	send_frame(c->id, which ? FRAME_ERROR : FRAME_OUTPUT, data, n);
}

/*
 * A command is over when its shell is: what it left in the background may keep
 * the pipes open for ever, and its output is not waited for.
 */
static void reap_command(struct command *c)
{
	uint32_t status;
	int wstatus;

	if (waitpid(c->pid, &wstatus, WNOHANG) != c->pid)
		return;
	for (int which = 0; which < 2; which++) {
		while (c->fd[which] >= 0) {
			struct pollfd more = { c->fd[which], POLLIN, 0 };

			if (poll(&more, 1, 0) <= 0)
				break;
			forward_output(c, which);
		}
		if (c->fd[which] >= 0)
			close(c->fd[which]);
	}
	status = WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) :
				      128 + WTERMSIG(wstatus);
	c->pid = 0;
	send_frame(c->id, FRAME_EXIT, &status, sizeof(status));
}

static void handle_frame(const struct header *header, char *payload)
{
	struct command *c;

	payload[header->length] = 0;
	switch (header->type) {
	case FRAME_RUN:
		run_command(header->id, payload);
		break;
	case FRAME_SIGNAL:
		c = find_command(header->id);
		if (c)
			kill(-c->pid, atoi(payload));
		break;
	}
}

static void read_port(void)
{
	static char buffer[2 * (sizeof(struct header) + PAYLOAD_MAX)];
	static size_t used;
	struct header header;
	ssize_t n;

	n = read(port, buffer + used, sizeof(buffer) - used - 1);
	if (n <= 0)
		return;
	used += n;
	while (used >= sizeof(header)) {
		char keep;
		size_t whole;

		memcpy(&header, buffer, sizeof(header));
		if (header.magic != MAGIC || header.length > PAYLOAD_MAX) {
			/* Left over from another conversation. */
			memmove(buffer, buffer + 1, --used);
			continue;
		}
		whole = sizeof(header) + header.length;
		if (used < whole)
			return;
		keep = buffer[whole];
		handle_frame(&header, buffer + sizeof(header));
		buffer[whole] = keep;
		memmove(buffer, buffer + whole, used - whole);
		used -= whole;
	}
}

static void child_ended(int signal)
{
	int saved = errno;

	(void)signal;
	if (write(child_pipe[1], "", 1) < 0)
		errno = saved;
	errno = saved;
}

/* The port appears some time after the driver was probed. */
static int open_port(const char *name)
{
	for (int tries = 0; tries < 3000; tries++) {
		struct dirent *entry;
		DIR *dir = opendir("/sys/class/virtio-ports");

		while (dir && (entry = readdir(dir))) {
			char path[512], found[128] = "";
			FILE *file;

			snprintf(path, sizeof(path),
				 "/sys/class/virtio-ports/%s/name",
				 entry->d_name);
			file = fopen(path, "r");
			if (!file)
				continue;
			if (fscanf(file, "%127s", found) != 1)
				found[0] = 0;
			fclose(file);
			if (strcmp(found, name))
				continue;
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			closedir(dir);
			return open(path, O_RDWR | O_CLOEXEC);
		}
		if (dir)
			closedir(dir);
		usleep(10000);
	}
	errno = ENOENT;
	return -1;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = child_ended,
				    .sa_flags = SA_RESTART };

	if (argc != 2) {
		fprintf(stderr, "usage: agent PORT\n");
		return 2;
	}
	port = open_port(argv[1]);
	if (port < 0)
		die(argv[1]);
	if (pipe2(child_pipe, O_CLOEXEC | O_NONBLOCK))
		die("agent: pipe");
	sigaction(SIGCHLD, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	send_frame(0, FRAME_READY, NULL, 0);

	for (;;) {
		struct pollfd polled[2 + 2 * COMMANDS_MAX];
		char drain[64];

		polled[0] = (struct pollfd){ port, POLLIN, 0 };
		polled[1] = (struct pollfd){ child_pipe[0], POLLIN, 0 };
		for (int i = 0; i < 2 * COMMANDS_MAX; i++) {
			struct command *c = &commands[i / 2];
			int fd = c->pid ? c->fd[i % 2] : -1;

			polled[2 + i] = (struct pollfd){ fd, POLLIN, 0 };
		}
		if (poll(polled, 2 + 2 * COMMANDS_MAX, -1) < 0)
			continue;
		for (int i = 0; i < 2 * COMMANDS_MAX; i++)
			if (polled[2 + i].revents)
				forward_output(&commands[i / 2], i % 2);
		if (polled[1].revents) {
			while (read(child_pipe[0], drain, sizeof(drain)) > 0)
				;
			for (int i = 0; i < COMMANDS_MAX; i++)
				if (commands[i].pid)
					reap_command(&commands[i]);
		}
		if (polled[0].revents & POLLIN)
			read_port();
		else if (polled[0].revents)
			usleep(10000);	/* POLLHUP: nobody there for now */
	}
}
