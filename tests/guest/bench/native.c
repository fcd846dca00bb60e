// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the table costs on this processor, beside what it cannot cost less than
 *
 * Built from the module's own table.c and table_frame.h. Everything is measured
 * RUNS times in turns, so that a machine that is slower for a while is so for
 * all. Prints name=nanoseconds, the medians; and of the ratio with two threads,
 * which a neighbour on the machine spoils easily, the best of as many.
 *
 *	floor_pair	two locked operations on a line of one's own
 *	pair		pin and unpin of a frame, the host not logging
 *	pair_2t		the same, by each of two threads in a section of its own
 *	dirty_floor	a compare and exchange of a value with itself
 *	dirty		what an unpin costs more while the host logs
 *
 * and bytes for a GiB of memory, besides what finds the first section of each
 * 512 GiB (32 KiB):
 *
 *	published_per_gib, private_per_gib
 *
 * Frames change with each step, as buffers of a ring do: 256 of them, a page
 * apart.
 */
#include <stdio.h>
#include <time.h>

#include <linux/types.h>

#include "dirty.h"
#include "table.h"
#include "table_frame.h"

#define RUNS		11
#define NR_STEPS	500000
#define NR_BUFFERS	256
#define FIRST_SECTION	2
#define FRAME_BYTES	4096
/* A GiB. */
#define NR_SECTIONS	8

int shim_fail_in;
size_t shim_allocated;

static struct dma_track_table table;
static __le32 lost;
static u8 *memory;

/* As the module does it: dirty.h has it inline for the kernel only. */
bool dma_track_dirty_frame(u64 gfn)
{
	u64 *word = (u64 *)(memory + gfn % NR_BUFFERS * FRAME_BYTES);

	__asm__ __volatile__("movq (%0), %%rax\n"
			     "lock cmpxchgq %%rax, (%0)"
			     : : "r" (word) : "rax", "cc", "memory");
	return true;
}

/* Of this thread: what others do with the processor does not count. */
static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

struct lane {
	u64 first;
	double ns;
};

static void *pairs(void *arg)
{
	struct lane *lane = arg;
	double start = now();
	u32 i;

	for (i = 0; i < NR_STEPS; i++) {
		u64 gfn = lane->first + i % NR_BUFFERS;

		if (!dma_track_table_pin_frame(&table, gfn))
			dma_track_table_pin(&table, DMA_TRACK_STREAMING, gfn,
					    1);
		if (!dma_track_table_unpin_frame(&table, gfn))
			dma_track_table_unpin(&table, DMA_TRACK_STREAMING, gfn,
					      1);
	}
	lane->ns = (now() - start) / NR_STEPS;
	return NULL;
}

static double floor_pair(void)
{
	static int line[32] __attribute__((aligned(128)));
	double start = now();
	u32 i;

	for (i = 0; i < NR_STEPS; i++) {
		__asm__ __volatile__("lock incl %0" : "+m" (line[0]));
		__asm__ __volatile__("lock decl %0" : "+m" (line[0]));
	}
	return (now() - start) / NR_STEPS;
}

static double dirty_floor(void)
{
	double start = now();
	u32 i;

	for (i = 0; i < NR_STEPS; i++) {
		u64 *word = (u64 *)(memory + i % NR_BUFFERS * FRAME_BYTES);
		u64 value = READ_ONCE(*word);

		__asm__ __volatile__("lock cmpxchgq %0, %1"
				     : "+a" (value), "+m" (*word) : : "cc");
	}
	return (now() - start) / NR_STEPS;
}

static double dirty(void)
{
	double start = now();
	u32 i;

	for (i = 0; i < NR_STEPS; i++)
		dma_track_try_dirty(i % NR_BUFFERS);
	return (now() - start) / NR_STEPS;
}

static double one_thread(void)
{
	struct lane lane = {
		.first = FIRST_SECTION * DMA_TRACK_SECTION_FRAMES,
	};

	pairs(&lane);
	return lane.ns;
}

/* The slower of the two. */
static double two_threads(void)
{
	struct lane lanes[2];
	pthread_t threads[2];
	int i;

	for (i = 0; i < 2; i++) {
		lanes[i].first = (u64)(FIRST_SECTION + i) *
				 DMA_TRACK_SECTION_FRAMES;
		if (pthread_create(&threads[i], NULL, pairs, &lanes[i]))
			abort();
	}
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	return lanes[0].ns > lanes[1].ns ? lanes[0].ns : lanes[1].ns;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	static const struct {
		const char *name;
		double (*measure)(void);
		bool best;
	} what[] = {
		{ "floor_pair", floor_pair, false },
		{ "pair", one_thread, false },
		{ "pair_2t", two_threads, true },
		{ "dirty_floor", dirty_floor, false },
		{ "dirty", dirty, false },
	};
	enum { NR = sizeof(what) / sizeof(what[0]) };
	size_t before, published;
	double ns[NR][RUNS];
	unsigned int i, run;

	if (posix_memalign((void **)&memory, FRAME_BYTES,
			   NR_BUFFERS * FRAME_BYTES))
		return 1;
	memset(memory, 1, NR_BUFFERS * FRAME_BYTES);
	if (dma_track_table_init(&table, &lost))
		return 1;
	before = shim_allocated;
	for (i = 0; i < NR_SECTIONS; i++)
		if (dma_track_table_add(&table, FIRST_SECTION + i))
			return 1;
	/* Pages, of which the host reads one per plane and section. */
	published = NR_SECTIONS * DMA_TRACK_NR_PLANES * DMA_TRACK_PLANE_SIZE;
	printf("published_per_gib=%zu\nprivate_per_gib=%zu\n", published,
	       shim_allocated - before - published -
	       DMA_TRACK_LEAF_SECTIONS * sizeof(void *));

	for (run = 0; run < RUNS; run++)
		for (i = 0; i < NR; i++)
			ns[i][run] = what[i].measure();
	for (i = 0; i < NR; i++) {
		qsort(ns[i], RUNS, sizeof(double), compare);
		printf("%s=%.3f\n", what[i].name,
		       ns[i][what[i].best ? 0 : RUNS / 2]);
	}
	if (dma_track_table_nr_pinned(&table, DMA_TRACK_STREAMING))
		return 1;
	return 0;
}
