// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table, stopped at every instruction
 *
 * A child pins and unpins, in one thread or two, and is stepped through by its
 * parent, one instruction at a time. After each, the parent reads the planes in
 * the child's memory and judges them by what the child has announced: a frame
 * whose address is with a device has its bit (P1); and a frame without a bit
 * whose content the host does not have, with no dirtying to tell it, is lost
 * (P2). The parent is also the device, which writes whatever it has the address
 * of, at every instruction; and the host, which opens the gate at any of them
 * and then looks at the dirty log at each.
 *
 * Two threads: one is stopped at each instruction of its operation in turn; the
 * other is run from there until it is done or waits for the lock; then the
 * first is stepped through to its end, and the second. Or both take turns.
 *
 * Usage: stop_test [--mutant]. Prints TAP; or, for a mutant of the table, which
 * rule is broken first and where, and ends with 0 if one is.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/types.h>

#include "dirty.h"
#include "table.h"
#include "table_frame.h"

int shim_fail_in;
size_t shim_allocated;

/* --- What both processes know ------------------------------------------ */

/* Frames around the border of two sections, hence in two words. */
#define FIRST_SECTION	3
#define BORDER_GFN	((u64)(FIRST_SECTION + 1) * DMA_TRACK_SECTION_FRAMES)
#define NR_FRAMES	8
#define FIRST_GFN	(BORDER_GFN - NR_FRAMES / 2)
#define NR_THREADS	2

enum action { NOTHING, PIN, UNPIN };

struct op {
	enum action action;
	enum dma_track_plane plane;
	unsigned int first, nr;
	/* As hooks do it for one frame of a plain device. */
	bool short_way;
};

/*
 * What the child says, and is told. Each field changes by one instruction. The
 * parent reads all of it after each step.
 */
struct announced {
	/* Live mappings of a frame: up when a device may have the address. */
	volatile u8 given[DMA_TRACK_NR_PLANES][NR_FRAMES];
	/* The dirty log. */
	volatile u8 dirty[NR_FRAMES];
	/* Whether a thread is to trap when it has obeyed, or has to wait. */
	volatile u8 trap;
	/* How often one had to wait. */
	volatile u32 relaxed;
	/* Orders of each thread, given and done. */
	volatile u32 ordered[NR_THREADS];
	volatile u32 done[NR_THREADS];
	struct op op[NR_THREADS];
	volatile pid_t tid[NR_THREADS];
};

static struct announced said;
static struct dma_track_table table;
static __le32 lost;
/* Cannot be dirtied. */
static volatile u64 bad_gfn;

/* --- The child --------------------------------------------------------- */

bool dma_track_dirty_frame(u64 gfn)
{
	if (gfn == bad_gfn)
		return false;
	said.dirty[gfn - FIRST_GFN] = 1;
	return true;
}

void shim_relax(void)
{
	said.relaxed++;
	if (said.trap)
		__asm__ __volatile__("int3");
}

static void give(const struct op *op)
{
	unsigned int f;

	for (f = op->first; f < op->first + op->nr; f++)
		__asm__ __volatile__("lock incb %0"
				     : "+m" (said.given[op->plane][f]));
}

static void take_back(const struct op *op)
{
	unsigned int f;

	for (f = op->first; f < op->first + op->nr; f++)
		__asm__ __volatile__("lock decb %0"
				     : "+m" (said.given[op->plane][f]));
}

static void pin(const struct op *op)
{
	if (op->short_way &&
	    dma_track_table_pin_frame(&table, FIRST_GFN + op->first))
		return;
	dma_track_table_pin(&table, op->plane, FIRST_GFN + op->first, op->nr);
}

static void unpin(const struct op *op)
{
	if (op->short_way &&
	    dma_track_table_unpin_frame(&table, FIRST_GFN + op->first))
		return;
	dma_track_table_unpin(&table, op->plane, FIRST_GFN + op->first, op->nr);
}

/* As the hooks: the address is given when the map returns. */
static void obey(const struct op *op)
{
	switch (op->action) {
	case NOTHING:
		break;
	case PIN:
#ifdef GIVEN_FIRST
		give(op);
		pin(op);
#else
		pin(op);
		give(op);
#endif
		break;
	case UNPIN:
		take_back(op);
		unpin(op);
		break;
	}
}

static void *serve(void *arg)
{
	uintptr_t thread = (uintptr_t)arg;

	said.tid[thread] = syscall(SYS_gettid);
	for (;;) {
		while (said.ordered[thread] == said.done[thread])
			;
		obey(&said.op[thread]);
		said.done[thread]++;
		if (said.trap)
			__asm__ __volatile__("int3");
	}
	return NULL;
}

static void child(void)
{
	pthread_t other;

	if (pthread_create(&other, NULL, serve, (void *)1))
		_exit(1);
	serve(NULL);
}

/* --- The parent's hold on it ------------------------------------------- */

static pid_t pid;
static u64 nr_steps;

static void die(const char *what)
{
	perror(what);
	if (pid > 0)
		kill(pid, SIGKILL);
	exit(2);
}

static void move(void *addr, size_t size, bool out)
{
	struct iovec iov = { .iov_base = addr, .iov_len = size };
	ssize_t done = out ? process_vm_writev(pid, &iov, 1, &iov, 1, 0) :
			     process_vm_readv(pid, &iov, 1, &iov, 1, 0);

	if (done != (ssize_t)size)
		die("the child's memory");
}

#define FETCH(x)	move((void *)&(x), sizeof(x), false)
#define STORE(x)	move((void *)&(x), sizeof(x), true)

static void resume(int thread, int how)
{
	int status;

	if (ptrace(how, said.tid[thread], 0, 0) ||
	    waitpid(said.tid[thread], &status, __WALL) != said.tid[thread])
		die("a step");
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
		printf("# the child ended or got a signal: %#x\n", status);
		exit(2);
	}
}

static void step(int thread)
{
	nr_steps++;
	resume(thread, PTRACE_SINGLESTEP);
}

static void take_hold(int thread)
{
	int status;

	if (ptrace(PTRACE_SEIZE, said.tid[thread], 0, PTRACE_O_EXITKILL) ||
	    ptrace(PTRACE_INTERRUPT, said.tid[thread], 0, 0) ||
	    waitpid(said.tid[thread], &status, __WALL) != said.tid[thread])
		die("ptrace");
}

static void start_child(void)
{
	int i;

	if (dma_track_table_init(&table, &lost) ||
	    dma_track_table_add(&table, FIRST_SECTION) ||
	    dma_track_table_add(&table, FIRST_SECTION + 1))
		exit(2);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		child();
	for (i = 0; i < NR_THREADS; i++)
		while (!said.tid[i]) {
			sched_yield();
			FETCH(said);
		}
	for (i = 0; i < NR_THREADS; i++)
		take_hold(i);
}

/* --- The judge --------------------------------------------------------- */

/* Numbers for the contents: memory's, and what the host has of it. */
static u32 memory[NR_FRAMES], copy[NR_FRAMES];
static bool deferred[NR_FRAMES];
static bool logging;
static const char *broken;
static bool is_mutant;
static char where[200];

static __le64 words[DMA_TRACK_NR_PLANES][2];

static void fetch_words(void)
{
	struct iovec local = { words, sizeof(words) }, remote[4];
	int plane, i;

	for (plane = 0; plane < DMA_TRACK_NR_PLANES; plane++)
		for (i = 0; i < 2; i++) {
			struct dma_track_section *s;
			int word = i ? 0 : DMA_TRACK_PLANE_WORDS - 1;

			s = table.index[FIRST_SECTION + i];
			remote[2 * plane + i] = (struct iovec) {
				&s->planes[plane][word], sizeof(__le64)
			};
		}
	if (process_vm_readv(pid, &local, 1, remote, 4, 0) != sizeof(words))
		die("the planes");
}

static bool bit(int plane, int frame)
{
	u64 gfn = FIRST_GFN + frame;

	return words[plane][gfn >= BORDER_GFN] >> gfn % 64 & 1;
}

static bool is_pinned(int frame)
{
	return bit(DMA_TRACK_STREAMING, frame) ||
	       bit(DMA_TRACK_COHERENT, frame);
}

static bool is_given(int frame)
{
	return said.given[DMA_TRACK_STREAMING][frame] ||
	       said.given[DMA_TRACK_COHERENT][frame];
}

static void judge(void)
{
	int plane, f;

	for (f = 0; f < NR_FRAMES; f++) {
		for (plane = 0; plane < DMA_TRACK_NR_PLANES; plane++)
			if (said.given[plane][f] && !bit(plane, f))
				broken = "P1";
		/* What would be missing if this were the final pass. */
		if (!broken && logging && !is_pinned(f) && !said.dirty[f] &&
		    !deferred[f] && memory[f] != copy[f])
			broken = "P2";
	}
}

/* One pass of the host, which sends at once what it may. */
static void send_dirty(void)
{
	bool changed = false;
	int f;

	for (f = 0; f < NR_FRAMES; f++) {
		bool dirty = said.dirty[f] || deferred[f];

		changed |= said.dirty[f];
		said.dirty[f] = 0;
		deferred[f] = dirty && is_pinned(f);
		if (dirty && !is_pinned(f))
			copy[f] = memory[f];
	}
	if (changed)
		STORE(said.dirty);
}

static void devices_write(void)
{
	int f;

	for (f = 0; f < NR_FRAMES; f++)
		memory[f] += is_given(f);
}

/* The child stands still. Returns whether all is well. */
static bool look(void)
{
	FETCH(said);
	fetch_words();
	judge();
	if (logging)
		send_dirty();
	devices_write();
	return !broken;
}

/* The gate is open, the guest has acknowledged it, and all RAM is sent. */
static void open_gate(void)
{
	table.logging = true;
	STORE(table.logging);
	memset((void *)said.dirty, 0, sizeof(said.dirty));
	STORE(said.dirty);
	memset(deferred, 0, sizeof(deferred));
	memcpy(copy, memory, sizeof(copy));
	logging = true;
}

static void close_gate(void)
{
	table.logging = false;
	STORE(table.logging);
	logging = false;
}

/* --- Orders ------------------------------------------------------------ */

static void order(int thread, const struct op *op)
{
	said.op[thread] = *op;
	STORE(said.op[thread]);
	said.ordered[thread]++;
	STORE(said.ordered[thread]);
}

static bool is_done(int thread)
{
	return said.ordered[thread] == said.done[thread];
}

static void set_trap(bool on)
{
	said.trap = on;
	STORE(said.trap);
}

/* Steps with a look after each, until it is done. */
static bool finish(int thread)
{
	while (!is_done(thread)) {
		step(thread);
		if (!look())
			return false;
	}
	return true;
}

/* Not step by step, with a look at the end of each. */
static bool do_all(const struct op *ops)
{
	set_trap(true);
	for (; ops->action; ops++) {
		order(0, ops);
		/* The trap may still be that of what was stepped through. */
		do {
			resume(0, PTRACE_CONT);
			if (!look())
				return false;
		} while (!is_done(0));
	}
	set_trap(false);
	return true;
}

/* --- Scenarios --------------------------------------------------------- */

#define MAX_OPS	4

/**
 * struct scenario - operations, and what was mapped before
 * @name: for people
 * @before: done first, by thread 0
 * @op: stepped through by thread 0
 * @other: by thread 1 from each instruction of @op on, or nothing
 * @after: takes back what is left, so that it can begin anew
 * @bad: the frame that cannot be dirtied, or none if 0
 * @is_long: open the gate at every ninth instruction only
 */
struct scenario {
	const char *name;
	struct op before[MAX_OPS];
	struct op op;
	struct op other;
	struct op after[MAX_OPS];
	unsigned int bad;
	bool is_long;
};

#define P(first, nr)	{ PIN, DMA_TRACK_STREAMING, first, nr, false }
#define U(first, nr)	{ UNPIN, DMA_TRACK_STREAMING, first, nr, false }
#define PC(first, nr)	{ PIN, DMA_TRACK_COHERENT, first, nr, false }
#define UC(first, nr)	{ UNPIN, DMA_TRACK_COHERENT, first, nr, false }
#define PS(first)	{ PIN, DMA_TRACK_STREAMING, first, 1, true }
#define US(first)	{ UNPIN, DMA_TRACK_STREAMING, first, 1, true }

static const struct scenario alone[] = {
	{ "a short pin", {}, PS(1), {}, { US(1) } },
	{ "a short unpin", { PS(1) }, US(1), {}, {} },
	{ "a short unpin of one of two", { PS(1), P(0, 3) }, US(1), {},
	  { U(0, 3) } },
	{ "a pin", {}, P(1, 1), {}, { U(1, 1) } },
	{ "an unpin", { P(1, 1) }, U(1, 1), {}, {} },
	{ "an unpin of one of two", { P(1, 1), P(1, 1) }, U(1, 1), {},
	  { U(1, 1) }, .is_long = true },
	{ "a pin across sections", {}, P(3, 3), {}, { U(3, 3) } },
	{ "an unpin across sections", { P(3, 2), P(4, 1) }, U(3, 2), {},
	  { U(4, 1) }, .is_long = true },
	{ "an allocation", {}, PC(3, 2), {}, { UC(3, 2) } },
	{ "a free", { PC(3, 2) }, UC(3, 2), {}, {}, .is_long = true },
	{ "a free of what is mapped", { PC(1, 2), P(2, 1) }, UC(1, 2), {},
	  { U(2, 1) }, .is_long = true },
	{ "a free of one frame", { PC(3, 1) }, UC(3, 1), {}, {} },
};

static const struct scenario together[] = {
	{ "a short unpin against a short pin of the frame", { PS(1) }, US(1),
	  PS(1), { US(1) } },
	{ "a short unpin against a short pin of its neighbour", { PS(1) },
	  US(1), PS(2), { US(2) } },
	{ "a short pin against a short pin of the frame", {}, PS(1), PS(1),
	  { US(1), US(1) } },
	{ "two short unpins of a frame", { PS(1), PS(1) }, US(1), US(1), {} },
	{ "a short unpin against a pin of the frame", { PS(1) }, US(1), P(1, 1),
	  { U(1, 1) } },
	{ "an unpin against a short pin of the frame", { P(1, 1) }, U(1, 1),
	  PS(1), { US(1) } },
	{ "a pin against a short pin of its neighbour", {}, P(1, 1), PS(2),
	  { U(1, 1), US(2) } },
	{ "an unpin against a pin of the frame", { P(1, 1) }, U(1, 1), P(1, 1),
	  { U(1, 1) } },
	{ "two unpins of a frame", { P(1, 1), P(1, 1) }, U(1, 1), U(1, 1), {} },
	{ "an allocation against a free of its neighbour", { PC(1, 1) },
	  PC(2, 1), UC(1, 1), { UC(2, 1) } },
	{ "a free against a pin of the frame", { PC(1, 1) }, UC(1, 1), P(1, 1),
	  { U(1, 1) } },
};

/*
 * For ever pinned is what cannot be dirtied. Last, for such a frame is of no use
 * afterwards.
 */
static const struct scenario at_last[] = {
	{ "an unpin of what cannot be dirtied", { P(1, 2) }, U(1, 2), {}, {},
	  .bad = 2 },
	{ "a short unpin of what cannot be dirtied", { PS(3) }, US(3), {}, {},
	  .bad = 3 },
	{ "a free of what cannot be dirtied", { PC(4, 2) }, UC(4, 2), {}, {},
	  .bad = 5 },
};

static bool give_verdict(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

static bool give_verdict(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(where, sizeof(where), format, args);
	va_end(args);
	return false;
}

static bool begin(const struct scenario *s, bool host)
{
	close_gate();
	bad_gfn = s->bad ? FIRST_GFN + s->bad : 0;
	STORE(bad_gfn);
	if (!do_all(s->before))
		return give_verdict("%s: before", s->name);
	if (host)
		open_gate();
	return true;
}

static bool end(const struct scenario *s)
{
	if (!do_all(s->after))
		return give_verdict("%s: after", s->name);
	return true;
}

/* Gate opened before instruction @open, counted from 1; 0: never. */
static bool run_alone(const struct scenario *s, unsigned int open,
		      unsigned int *nr)
{
	unsigned int i;

	if (!begin(s, false))
		return false;
	order(0, &s->op);
	for (i = 1; !is_done(0); i++) {
		if (i == open)
			open_gate();
		step(0);
		if (!look())
			return give_verdict("%s, instruction %u, gate opened before %u",
					    s->name, i, open);
	}
	*nr = i - 1;
	return end(s);
}

static bool run_all_alone(const struct scenario *s)
{
	/* What a mutant does wrong it does often. */
	unsigned int stride = s->is_long || is_mutant ? 9 : 1;
	unsigned int open, nr = 1, last = 1;

	for (open = s->bad ? 1 : 0; open <= last; open += stride) {
		if (!run_alone(s, open, &nr))
			return false;
		/* A pin ends nothing: it does not matter when. */
		if (s->op.action == UNPIN && !s->bad)
			last = nr;
	}
	if (!is_mutant)
		printf("# %s: %u instructions\n", s->name, nr);
	return true;
}

/**
 * struct way - how the two threads get along
 * @by_turns: a step each, instead of the second as far as it gets
 * @host: logs
 * @stride: between the instructions from which on the second runs
 */
struct way {
	bool by_turns;
	bool host;
	unsigned int stride;
};

static const struct way ways[] = {
	{ false, true, 1 },
	{ false, false, 3 },
	{ true, true, 7 },
};

/* Returns false also when @after is beyond the operation's end: *ended. */
static bool run_together(const struct scenario *s, unsigned int after,
			 const struct way *way, bool *ended, u64 *waits)
{
	u32 i, relaxed;

	if (!begin(s, way->host))
		return false;
	order(0, &s->op);
	for (i = 0; i < after && !is_done(0); i++) {
		step(0);
		if (!look())
			goto out_broken;
	}
	*ended = is_done(0);

	order(1, &s->other);
	relaxed = said.relaxed;
	if (way->by_turns) {
		/* Either may have to wait for the other. */
		for (i = 1; !is_done(0) || !is_done(1); i = !i) {
			if (is_done(i))
				continue;
			step(i);
			if (!look())
				goto out_broken;
		}
	} else {
		set_trap(true);
		while (!is_done(1) && said.relaxed == relaxed) {
			resume(1, PTRACE_CONT);
			if (!look())
				goto out_broken;
		}
		set_trap(false);
		if (!finish(0) || !finish(1))
			goto out_broken;
	}
	*waits += said.relaxed != relaxed;
	return end(s);

out_broken:
	return give_verdict("%s, the other from instruction %u on, %s", s->name,
			    after, way->host ? "host logs" : "no host");
}

static bool run_all_together(const struct scenario *s)
{
	u64 waits = 0;
	unsigned int i;

	for (i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		unsigned int after;
		bool ended = false;

		for (after = 0; !ended; after += ways[i].stride)
			if (!run_together(s, after, &ways[i], &ended, &waits))
				return false;
	}
	if (!is_mutant)
		printf("# %s: waited for the lock %llu times\n", s->name, waits);
	if (!waits) {
		broken = "the test: nobody waited for the lock";
		return give_verdict("%s", s->name);
	}
	return true;
}

/* --- Verdicts ---------------------------------------------------------- */

static int nr_tests;

static void report(bool good, const char *what, const char *name)
{
	if (is_mutant && !good) {
		printf("%s: %s\n", broken, where);
		exit(strncmp(broken, "P", 1) ? 2 : 0);
	}
	if (is_mutant)
		return;
	printf("%sok %d - %s: %s\n", good ? "" : "not ", ++nr_tests, what,
	       name);
	if (good)
		return;
	printf("# %s is broken: %s\n", broken, where);
	printf("Bail out! the table's state is not known any more\n");
	exit(1);
}

#define FOR_EACH(s, list) \
	for (s = list; s < list + sizeof(list) / sizeof(list[0]); s++)

int main(int argc, char **argv)
{
	const struct scenario *s;
	cpu_set_t one;

	is_mutant = argc > 1 && !strcmp(argv[1], "--mutant");
	/*
	 * A step takes two switches: quicker on one processor; and where others
	 * want that too, both would queue for each, half a million times.
	 */
	if (setpriority(PRIO_PROCESS, 0, -15) && !is_mutant)
		printf("# at ordinary priority\n");
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	start_child();

	FOR_EACH(s, alone)
		report(run_all_alone(s), "stopped at every instruction",
		       s->name);
	FOR_EACH(s, together)
		report(run_all_together(s), "two threads, stopped anywhere",
		       s->name);
	FOR_EACH(s, at_last)
		report(run_all_alone(s), "stopped at every instruction",
		       s->name);
	kill(pid, SIGKILL);
	if (is_mutant) {
		printf("not caught\n");
		return 1;
	}
	printf("# %llu steps\n1..%d\n", nr_steps, nr_tests);
	return 0;
}
