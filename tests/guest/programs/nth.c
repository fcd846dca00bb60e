// SPDX-License-Identifier: GPL-2.0-only
/*
 * nth N load MODULE.ko [PARAMETERS]: load a module
 * nth N write FILE TEXT: write to a file
 *
 * With the N-th thing that can be made to fail failing (CONFIG_FAULT_INJECTION),
 * counted in this task and in the one system call that matters; with 0, nothing
 * fails. Prints "ERROR LEFT": the system call's error number, or 0; and what was
 * left to count of N: 0 if something has failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fail(const char *what)
{
	fprintf(stderr, "nth: %s: %s\n", what, strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	int fd, nth, loads, error = 0;
	char left[16] = "";
	const char *rest;
	long rc;

	if (argc < 4)
		return 2;
	loads = !strcmp(argv[2], "load");
	rest = argc > 4 ? argv[4] : "";
	fd = open(argv[3], loads ? O_RDONLY : O_WRONLY);
	if (fd < 0)
		return fail(argv[3]);
	nth = open("/proc/self/fail-nth", O_RDWR);
	if (nth < 0)
		return fail("fail-nth");

	if (write(nth, argv[1], strlen(argv[1])) < 0)
		return fail("fail-nth");
	if (loads)
		rc = syscall(SYS_finit_module, fd, rest, 0);
	else
		rc = write(fd, rest, strlen(rest));
	if (rc < 0)
		error = errno;
	if (pread(nth, left, sizeof(left) - 1, 0) < 0 ||
	    pwrite(nth, "0", 1, 0) < 0)
		return fail("fail-nth");
	printf("%d %d\n", error, atoi(left));
	return 0;
}
