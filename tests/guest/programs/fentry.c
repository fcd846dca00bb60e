// SPDX-License-Identifier: GPL-2.0-only
/*
 * A BPF program at the entry of a kernel function
 *
 *	fentry FUNCTION
 *
 * Loads a program that does nothing, attaches it to the function, prints
 * "attached" and keeps it there until it is told to end by SIGTERM. If that is
 * refused it prints why and ends with status 1. Knows just enough of BTF to find
 * the number of a function, so that no library is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BTF_PATH	"/sys/kernel/btf/vmlinux"

static void fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static int bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static char *read_btf(void)
{
	size_t size = 0, room = 1 << 24;
	char *data = malloc(room);
	int fd = open(BTF_PATH, O_RDONLY);
	ssize_t got;

	if (fd < 0 || !data)
		fail(BTF_PATH);
	while ((got = read(fd, data + size, room - size)) > 0)
		size += got;
	if (got < 0 || size == room)
		fail(BTF_PATH);
	close(fd);
	return data;
}

/* Bytes that follow a type's description. */
static size_t extra(const struct btf_type *type)
{
	size_t nr = BTF_INFO_VLEN(type->info);

	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_ENUM:
		return nr * sizeof(struct btf_enum);
	case BTF_KIND_FUNC_PROTO:
		return nr * sizeof(struct btf_param);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
	case BTF_KIND_DATASEC:
	case BTF_KIND_ENUM64:
		return nr * 12;
	default:
		return 0;
	}
}

/* Types are numbered from 1, in the order in which they stand there. */
static uint32_t find_function(const char *name)
{
	char *data = read_btf();
	struct btf_header *header = (void *)data;
	char *types = data + header->hdr_len + header->type_off;
	char *strings = data + header->hdr_len + header->str_off;
	char *at = types;
	uint32_t id;

	for (id = 1; at < types + header->type_len; id++) {
		struct btf_type *type = (void *)at;

		if (BTF_INFO_KIND(type->info) == BTF_KIND_FUNC &&
		    !strcmp(strings + type->name_off, name))
			return id;
		at += sizeof(*type) + extra(type);
	}
	errno = ENOENT;
	fail(name);
	return 0;
}

int main(int argc, char **argv)
{
	struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr;
	int prog;

	if (argc != 2)
		return 2;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_TRACING;
	attr.expected_attach_type = BPF_TRACE_FENTRY;
	attr.attach_btf_id = find_function(argv[1]);
	attr.insns = (uintptr_t)insns;
	attr.insn_cnt = sizeof(insns) / sizeof(insns[0]);
	attr.license = (uintptr_t)"GPL";
	prog = bpf(BPF_PROG_LOAD, &attr);
	if (prog < 0)
		fail("loading");

	memset(&attr, 0, sizeof(attr));
	attr.raw_tracepoint.prog_fd = prog;
	if (bpf(BPF_RAW_TRACEPOINT_OPEN, &attr) < 0)
		fail("attaching");

	printf("attached\n");
	fflush(stdout);
	pause();
	return 0;
}
