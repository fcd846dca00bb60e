// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table in userspace, against a reference model
 *
 * Single calls first: each plane, word and section boundaries, saturation,
 * unknown unmaps, frames that cannot be dirtied, the lost word. Then threads
 * that pin and unpin the same frames at random while an observer checks that no
 * frame with a live mapping is ever seen clear (P1); and whole migrations of
 * memory that "devices" write, stopped at any instruction, in which no write
 * may be missing on the other side (P2, P3).
 *
 * Usage: table_test [SECONDS per random test]. Prints TAP.
 */
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <linux/types.h>

#include "dirty.h"
#include "table.h"
#include "table_frame.h"

int shim_fail_in;
size_t shim_allocated;

/* --- TAP ---------------------------------------------------------------- */

static int nr_tests, nr_failed;
/*
 * Take one frame the short way if that can be, as the hooks do. Also in the
 * name of a test.
 */
static bool short_way;

static void result(bool ok, const char *what)
{
	printf("%sok %d - %s%s\n", ok ? "" : "not ", ++nr_tests, what,
	       short_way ? ", the short way" : "");
	fflush(stdout);
	nr_failed += !ok;
}

static bool expect(bool ok, int line, const char *what)
{
	if (!ok)
		printf("# line %d: not true: %s\n", line, what);
	return ok;
}

#define EXPECT(x) (good &= expect(x, __LINE__, #x))

/* --- Guest memory --------------------------------------------------------- */

/* Two sections side by side, so that a mapping can cross their border. */
#define FIRST_SECTION	3
#define NR_SECTIONS	2
#define FIRST_GFN	((u64)FIRST_SECTION * DMA_TRACK_SECTION_FRAMES)
#define BORDER_GFN	(FIRST_GFN + DMA_TRACK_SECTION_FRAMES)
/* The random tests use few frames around the border, so that they collide. */
#define NR_FRAMES	192
#define RANDOM_GFN	(BORDER_GFN - NR_FRAMES / 2)

static struct dma_track_table table;
static __le32 lost;

/* The host's dirty log, and how often each frame was dirtied. */
static bool dirty_log[NR_FRAMES];
static u64 nr_dirtied;
/* A frame that faults when it is written, or none. */
static u64 bad_gfn = ~0ULL;

/* Makes it likely that a thread is stopped here. */
static void linger(void)
{
	int i;

	for (i = 0; i < 100; i++)
		__asm__ __volatile__("");
}

bool dma_track_dirty_frame(u64 gfn)
{
	if (gfn == READ_ONCE(bad_gfn))
		return false;

	linger();

	__atomic_fetch_add(&nr_dirtied, 1, __ATOMIC_RELAXED);
	if (gfn >= RANDOM_GFN && gfn < RANDOM_GFN + NR_FRAMES)
		__atomic_store_n(&dirty_log[gfn - RANDOM_GFN], true,
				 __ATOMIC_SEQ_CST);
	return true;
}

static void set_up(void)
{
	int i;

	lost = 0;
	nr_dirtied = 0;
	bad_gfn = ~0ULL;
	if (dma_track_table_init(&table, &lost))
		abort();
	for (i = 0; i < NR_SECTIONS; i++)
		if (dma_track_table_add(&table, FIRST_SECTION + i))
			abort();
}

static void tear_down(void)
{
	dma_track_table_destroy(&table);
}

static struct dma_track_frame frame(u64 gfn)
{
	struct dma_track_frame f = {};

	if (!dma_track_table_read_frame(&table, gfn, &f))
		abort();
	return f;
}

static struct dma_track_table_stats stats(void)
{
	struct dma_track_table_stats s;

	dma_track_table_read_stats(&table, &s);
	return s;
}

/* What a host reads, without the help of the table. */
static bool plane_bit(enum dma_track_plane plane, u64 gfn)
{
	struct dma_track_section *s;
	u64 n = gfn % DMA_TRACK_SECTION_FRAMES;

	s = dma_track_table_next(&table, gfn / DMA_TRACK_SECTION_FRAMES);
	/* What was dirtied before the bit was cleared is seen after it. */
	return smp_load_acquire(&s->planes[plane][n / 64]) >> n % 64 & 1;
}

static void accept_all(void)
{
	struct dma_track_section *s;
	u32 nr = 0;

	while ((s = dma_track_table_next(&table, nr))) {
		s->accepted = true;
		nr = s->nr + 1;
	}
}

static bool pin(enum dma_track_plane plane, u64 gfn, u64 nr)
{
	if (short_way && plane == DMA_TRACK_STREAMING && nr == 1 &&
	    dma_track_table_pin_frame(&table, gfn))
		return true;
	return dma_track_table_pin(&table, plane, gfn, nr);
}

static void unpin(enum dma_track_plane plane, u64 gfn, u64 nr)
{
	if (short_way && plane == DMA_TRACK_STREAMING && nr == 1 &&
	    dma_track_table_unpin_frame(&table, gfn))
		return;
	dma_track_table_unpin(&table, plane, gfn, nr);
}

/* --- Single calls --------------------------------------------------------- */

static void test_private_memory(void)
{
	result(sizeof(struct dma_track_section) <= 40 * 1024,
	       "a section takes at most 40 KiB of private memory");
}

static void test_counts(void)
{
	bool good = true;
	u64 gfn = FIRST_GFN + 100;

	set_up();
	EXPECT(pin(DMA_TRACK_STREAMING, gfn, 1));
	EXPECT(pin(DMA_TRACK_STREAMING, gfn, 1));
	EXPECT(frame(gfn).count == 2 && frame(gfn).streaming);
	EXPECT(plane_bit(DMA_TRACK_STREAMING, gfn));
	EXPECT(!frame(gfn - 1).streaming && !frame(gfn + 1).streaming);
	EXPECT(!frame(gfn).coherent);

	unpin(DMA_TRACK_STREAMING, gfn, 1);
	EXPECT(frame(gfn).count == 1 && frame(gfn).streaming);
	unpin(DMA_TRACK_STREAMING, gfn, 1);
	EXPECT(frame(gfn).count == 0 && !frame(gfn).streaming);
	EXPECT(!plane_bit(DMA_TRACK_STREAMING, gfn));
	EXPECT(nr_dirtied == 0);
	tear_down();
	result(good, "a frame is pinned until its last mapping ends");
}

static void test_planes_are_separate(void)
{
	bool good = true;
	u64 gfn = FIRST_GFN + 63;

	set_up();
	pin(DMA_TRACK_STREAMING, gfn, 2);
	pin(DMA_TRACK_COHERENT, gfn, 2);
	unpin(DMA_TRACK_STREAMING, gfn, 2);
	EXPECT(!frame(gfn).streaming && frame(gfn).coherent);
	EXPECT(!frame(gfn + 1).streaming && frame(gfn + 1).coherent);
	unpin(DMA_TRACK_COHERENT, gfn, 2);
	EXPECT(!frame(gfn).coherent && !frame(gfn + 1).coherent);
	EXPECT(stats().unknown_unmaps == 0);
	tear_down();
	result(good, "streaming and coherent memory do not disturb each other");
}

/* Every start in two words around the sections' border, every length. */
static void test_borders(void)
{
	bool good = true;
	u64 first, nr, gfn;
	int plane;

	set_up();
	for (plane = 0; plane < DMA_TRACK_NR_PLANES; plane++)
		for (first = BORDER_GFN - 65; first < BORDER_GFN + 65; first++)
			for (nr = 1; nr < 135; nr += 1 + nr / 9) {
				pin(plane, first, nr);
				for (gfn = first - 2; gfn < first + nr + 2; gfn++)
					if (plane_bit(plane, gfn) !=
					    (gfn >= first && gfn < first + nr))
						EXPECT(!"bit as expected");
				EXPECT(dma_track_table_nr_pinned(&table, plane)
				       == nr);
				unpin(plane, first, nr);
				EXPECT(!dma_track_table_nr_pinned(&table,
								  plane));
			}
	/* A mapping larger than a section. */
	pin(DMA_TRACK_STREAMING, FIRST_GFN, 2 * DMA_TRACK_SECTION_FRAMES);
	EXPECT(dma_track_table_nr_pinned(&table, DMA_TRACK_STREAMING) ==
	       2 * DMA_TRACK_SECTION_FRAMES);
	tear_down();
	result(good, "exactly the frames of a range are pinned, across borders");
}

static void test_saturation(void)
{
	bool good = true;
	u64 gfn = BORDER_GFN - 1;
	int i;

	set_up();
	for (i = 0; i < DMA_TRACK_MAX_COUNT; i++)
		pin(DMA_TRACK_STREAMING, gfn, 1);
	EXPECT(frame(gfn).count == DMA_TRACK_MAX_COUNT);
	EXPECT(stats().saturated == 0);
	for (i = 0; i < 46; i++)
		pin(DMA_TRACK_STREAMING, gfn, 1);
	EXPECT(frame(gfn).count == DMA_TRACK_STICKY && stats().saturated == 1);
	for (i = 0; i < 300; i++)
		unpin(DMA_TRACK_STREAMING, gfn, 1);
	EXPECT(frame(gfn).streaming && frame(gfn).count == DMA_TRACK_STICKY);

	/* The neighbours count on. */
	pin(DMA_TRACK_STREAMING, gfn - 1, 3);
	unpin(DMA_TRACK_STREAMING, gfn - 1, 3);
	EXPECT(!frame(gfn - 1).streaming && !frame(gfn + 1).streaming);

	/* Without counts, a coherent frame pinned twice is pinned for ever. */
	pin(DMA_TRACK_COHERENT, gfn, 2);
	pin(DMA_TRACK_COHERENT, gfn + 1, 1);
	unpin(DMA_TRACK_COHERENT, gfn, 2);
	unpin(DMA_TRACK_COHERENT, gfn, 2);
	EXPECT(!frame(gfn).coherent && frame(gfn + 1).coherent);
	EXPECT(stats().saturated == 2);
	tear_down();
	result(good, "a count that overflows pins its frame for ever");
}

static void test_gate(void)
{
	bool good = true;
	u64 gfn = FIRST_GFN + 7;

	set_up();
	pin(DMA_TRACK_STREAMING, gfn, 2);
	pin(DMA_TRACK_STREAMING, gfn, 1);
	pin(DMA_TRACK_COHERENT, gfn, 1);
	dma_track_table_sync(&table, gfn, 2);
	EXPECT(nr_dirtied == 0);

	dma_track_table_set_logging(&table, true);
	dma_track_table_sync(&table, gfn, 2);
	EXPECT(nr_dirtied == 2 && frame(gfn).count == 2);
	unpin(DMA_TRACK_STREAMING, gfn, 2);
	EXPECT(nr_dirtied == 3 && stats().dirtied == 3);
	unpin(DMA_TRACK_STREAMING, gfn, 1);
	EXPECT(nr_dirtied == 4 && !frame(gfn).streaming);
	unpin(DMA_TRACK_COHERENT, gfn, 1);
	EXPECT(nr_dirtied == 5);

	dma_track_table_set_logging(&table, false);
	pin(DMA_TRACK_STREAMING, gfn, 1);
	unpin(DMA_TRACK_STREAMING, gfn, 1);
	EXPECT(nr_dirtied == 5);
	tear_down();
	result(good, "frames are dirtied while the host logs, and only then");
}

static void test_unknown_unmap(void)
{
	bool good = true;
	u64 gfn = FIRST_GFN + 64;

	set_up();
	pin(DMA_TRACK_STREAMING, gfn, 1);
	unpin(DMA_TRACK_STREAMING, gfn - 1, 3);
	EXPECT(stats().unknown_unmaps == 2 && !frame(gfn).streaming);
	EXPECT(frame(gfn - 1).count == 0 && frame(gfn + 1).count == 0);
	EXPECT(nr_dirtied == 0);

	dma_track_table_set_logging(&table, true);
	pin(DMA_TRACK_COHERENT, gfn + 2, 1);
	unpin(DMA_TRACK_STREAMING, gfn + 2, 1);
	unpin(DMA_TRACK_COHERENT, gfn + 3, 1);
	EXPECT(stats().unknown_unmaps == 4 && nr_dirtied == 2);
	EXPECT(frame(gfn + 2).coherent);
	tear_down();
	result(good, "an unmap of an unknown frame dirties and clears nothing");
}

static void test_undirtiable(void)
{
	bool good = true;
	u64 gfn = FIRST_GFN + 1000;
	int plane;

	for (plane = 0; plane < DMA_TRACK_NR_PLANES; plane++) {
		set_up();
		bad_gfn = gfn;
		pin(plane, gfn - 1, 3);
		dma_track_table_set_logging(&table, true);
		unpin(plane, gfn - 1, 3);
		EXPECT(stats().undirtied == 1 && nr_dirtied == 2);
		EXPECT(!plane_bit(plane, gfn - 1));
		EXPECT(plane_bit(plane, gfn));
		EXPECT(!plane_bit(plane, gfn + 1));

		/* For ever, also when it could be dirtied again. */
		bad_gfn = ~0ULL;
		pin(plane, gfn, 1);
		unpin(plane, gfn, 1);
		EXPECT(plane_bit(plane, gfn));

		/* So does one that nobody knew to be mapped. */
		bad_gfn = gfn + 9;
		unpin(plane, gfn + 9, 1);
		EXPECT(plane_bit(plane, gfn + 9));
		tear_down();
	}
	result(good, "a frame that cannot be dirtied stays pinned for ever");
}

static void test_no_section(void)
{
	u64 end = FIRST_GFN + NR_SECTIONS * DMA_TRACK_SECTION_FRAMES;
	struct dma_track_frame f;
	bool good = true;

	set_up();
	EXPECT(!pin(DMA_TRACK_STREAMING, end - 1, 2));
	EXPECT(plane_bit(DMA_TRACK_STREAMING, end - 1));
	EXPECT(!pin(DMA_TRACK_COHERENT, 0, 1));
	EXPECT(!pin(DMA_TRACK_COHERENT, ~0ULL >> 12, 1));
	unpin(DMA_TRACK_STREAMING, end - 1, 2);
	EXPECT(!plane_bit(DMA_TRACK_STREAMING, end - 1));
	unpin(DMA_TRACK_COHERENT, 0, 1);
	EXPECT(!dma_track_table_read_frame(&table, end, &f));
	EXPECT(dma_track_table_add(&table, FIRST_SECTION) == 0);
	EXPECT(dma_track_table_add(&table, DMA_TRACK_MAX_SECTIONS) == -ERANGE);
	tear_down();
	result(good, "a frame in no section is reported, its neighbours pinned");
}

static void test_connect(void)
{
	bool good = true;

	set_up();
	/* Without a host nobody reads planes, and they wait for one. */
	EXPECT(pin(DMA_TRACK_STREAMING, BORDER_GFN, 1));
	accept_all();
	EXPECT(dma_track_table_connect(&table));
	EXPECT(pin(DMA_TRACK_STREAMING, FIRST_GFN, 1));
	unpin(DMA_TRACK_STREAMING, FIRST_GFN, 1);

	dma_track_table_set_logging(&table, true);
	dma_track_table_disconnect(&table);
	EXPECT(!table.logging);
	EXPECT(pin(DMA_TRACK_STREAMING, FIRST_GFN, 1));
	unpin(DMA_TRACK_STREAMING, FIRST_GFN, 1);

	/* A host that takes only the first section, which is empty. */
	dma_track_table_next(&table, 0)->accepted = true;
	EXPECT(!dma_track_table_connect(&table));
	EXPECT(!pin(DMA_TRACK_COHERENT, BORDER_GFN, 1));

	EXPECT(lost == 0);
	dma_track_table_give_up(&table, 3);
	dma_track_table_give_up(&table, 1);
	EXPECT(lost == 3);
	tear_down();

	/* One that refuses an empty section loses nothing yet. */
	set_up();
	EXPECT(dma_track_table_connect(&table));
	tear_down();
	result(good, "what the host does not read is lost, once there is a host");
}

static void test_no_memory(void)
{
	bool good = true;
	int n, rc;

	for (n = 1; n < 9; n++) {
		lost = 0;
		if (dma_track_table_init(&table, &lost))
			abort();
		shim_fail_in = n;
		rc = dma_track_table_add(&table, 5);
		/* The second allocation of a section has a fallback. */
		EXPECT(!rc == !!dma_track_table_next(&table, 0));
		EXPECT(!rc || rc == -ENOMEM);
		if (!rc)
			EXPECT(n == 2 || n > 4);
		shim_fail_in = 0;
		EXPECT(!dma_track_table_add(&table, 5));
		tear_down();
	}
	shim_fail_in = 1;
	EXPECT(dma_track_table_init(&table, &lost) == -ENOMEM);
	shim_fail_in = 0;
	result(good, "any failing allocation leaves the table in order");
}

/* Two that share a slot of the index: the second is found as well. */
static void test_sections_apart(void)
{
	u64 far = (u64)(FIRST_SECTION + DMA_TRACK_INDEX_SLOTS) *
		  DMA_TRACK_SECTION_FRAMES;
	bool good = true;

	set_up();
	EXPECT(!pin(DMA_TRACK_STREAMING, far, 1));
	EXPECT(!plane_bit(DMA_TRACK_STREAMING, FIRST_GFN));
	EXPECT(!dma_track_table_add(&table,
				    FIRST_SECTION + DMA_TRACK_INDEX_SLOTS));
	EXPECT(pin(DMA_TRACK_STREAMING, far, 1));
	EXPECT(!plane_bit(DMA_TRACK_STREAMING, FIRST_GFN));
	EXPECT(plane_bit(DMA_TRACK_STREAMING, far));
	unpin(DMA_TRACK_STREAMING, far, 1);
	EXPECT(!plane_bit(DMA_TRACK_STREAMING, far));
	EXPECT(stats().unknown_unmaps == 0);
	tear_down();
	result(good, "sections 512 GiB apart are not mistaken for each other");
}

/* --- Many threads --------------------------------------------------------- */

#define NR_WORKERS	4
#define MAX_HELD	24

static int seconds = 5;
static bool stop_workers;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static u32 next_random(u32 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

struct held {
	enum dma_track_plane plane;
	u32 first, nr;
};

/*
 * Mappings of each frame, as the threads know them: raised after the pin has
 * returned, lowered before the unpin is called. Bits 0-31 count, bits 32-63
 * say how often the count has fallen to zero, so that an observer can tell
 * whether a frame was held all the time between two looks.
 */
static u64 model[DMA_TRACK_NR_PLANES][NR_FRAMES];

static void model_raise(const struct held *h)
{
	u32 i;

	for (i = h->first; i < h->first + h->nr; i++)
		__atomic_fetch_add(&model[h->plane][i], 1, __ATOMIC_SEQ_CST);
}

static void model_lower(const struct held *h)
{
	u64 old, new;
	u32 i;

	for (i = h->first; i < h->first + h->nr; i++) {
		old = __atomic_load_n(&model[h->plane][i], __ATOMIC_SEQ_CST);
		do {
			new = old - 1;
			if (!(u32)new)
				new += 1ULL << 32;
		} while (!__atomic_compare_exchange_n(&model[h->plane][i], &old,
						      new, false,
						      __ATOMIC_SEQ_CST,
						      __ATOMIC_SEQ_CST));
	}
}

/* Coherent memory has one owner: each thread allocates from its own frames. */
static struct held new_mapping(u32 *random, u32 worker)
{
	struct held h;

	if (next_random(random) % 4) {
		h.plane = DMA_TRACK_STREAMING;
		h.nr = 1 + next_random(random) % (next_random(random) % 8 ?
						  3 : 100);
		h.first = next_random(random) % (NR_FRAMES - h.nr + 1);
	} else {
		/* Places 2, 3 and 4 frames long, so that none overlap. */
		u32 place = next_random(random) % (NR_FRAMES / NR_WORKERS / 4);

		h.plane = DMA_TRACK_COHERENT;
		h.nr = 2 + place % 3;
		h.first = worker * (NR_FRAMES / NR_WORKERS) + place * 4;
	}
	return h;
}

static bool is_held(const struct held *held, int nr, const struct held *h)
{
	while (nr--)
		if (held[nr].plane == h->plane && held[nr].first == h->first)
			return true;
	return false;
}

static void *observed_worker(void *arg)
{
	u32 worker = (uintptr_t)arg, random = 2463534242u + worker * 77777;
	struct held held[MAX_HELD], h;
	int nr = 0, i;

	while (!READ_ONCE(stop_workers) || nr) {
		if (!READ_ONCE(stop_workers) && nr < MAX_HELD &&
		    next_random(&random) % 2) {
			h = new_mapping(&random, worker);
			if (h.plane == DMA_TRACK_COHERENT &&
			    is_held(held, nr, &h))
				continue;
			pin(h.plane, RANDOM_GFN + h.first, h.nr);
			model_raise(&h);
			held[nr++] = h;
		} else if (nr) {
			i = next_random(&random) % nr;
			h = held[i];
			held[i] = held[--nr];
			model_lower(&h);
			unpin(h.plane, RANDOM_GFN + h.first, h.nr);
		}
	}
	return NULL;
}

static void test_observed(void)
{
	u64 nr_looks = 0, nr_held = 0, nr_clear = 0;
	double end = now() + seconds;
	pthread_t workers[NR_WORKERS];
	bool good = true;
	uintptr_t i;

	set_up();
	memset(model, 0, sizeof(model));
	stop_workers = false;
	for (i = 0; i < NR_WORKERS; i++)
		pthread_create(&workers[i], NULL, observed_worker, (void *)i);

	for (i = 0; now() < end; i = (i + 1) % NR_FRAMES) {
		int plane = nr_looks++ % DMA_TRACK_NR_PLANES;
		u64 *m = &model[plane][i];
		u64 before = __atomic_load_n(m, __ATOMIC_SEQ_CST);
		bool bit = plane_bit(plane, RANDOM_GFN + i);
		u64 after = __atomic_load_n(m, __ATOMIC_SEQ_CST);

		dma_track_table_set_logging(&table, nr_looks & 0x10000);
		if (!(u32)before || !(u32)after || before >> 32 != after >> 32)
			continue;
		nr_held++;
		nr_clear += !bit;
	}
	WRITE_ONCE(stop_workers, true);
	for (i = 0; i < NR_WORKERS; i++)
		pthread_join(workers[i], NULL);

	printf("# %llu looks, %llu at held frames, %llu of these clear\n",
	       nr_looks, nr_held, nr_clear);
	EXPECT(nr_held > 1000);
	EXPECT(nr_clear == 0);
	EXPECT(stats().unknown_unmaps == 0 && stats().saturated == 0);
	for (i = 0; i < NR_FRAMES; i++)
		EXPECT(!frame(RANDOM_GFN + i).streaming &&
		       !frame(RANDOM_GFN + i).coherent &&
		       !frame(RANDOM_GFN + i).count);
	tear_down();
	result(good, "no held frame is ever seen clear, and all end clear");
}

/* --- Whole migrations ------------------------------------------------------ */

/*
 * Memory is one number per frame. A worker maps frames, lets its "device"
 * increase their numbers while they are mapped, and unmaps them. Device writes
 * are in no dirty log. The host copies, and in the end everything is stopped:
 * in the plain build by a signal, hence between any two instructions; under the
 * sanitizers, which delay signals, at whatever point they deliver it.
 */
static u64 memory[NR_FRAMES];
static u64 copy[NR_FRAMES];
static sem_t stopped;
static bool let_go;
static u64 nr_device_writes;

static void stop_here(int signal)
{
	int saved = errno;

	sem_post(&stopped);
	while (!__atomic_load_n(&let_go, __ATOMIC_ACQUIRE))
		usleep(20);
	sem_post(&stopped);
	errno = saved;
}

static void *device_worker(void *arg)
{
	u32 worker = (uintptr_t)arg, random = 88172645u + worker * 99991;
	struct held held[MAX_HELD], h;
	int nr = 0, i;
	u32 f;

	while (!READ_ONCE(stop_workers) || nr) {
		switch (READ_ONCE(stop_workers) ? 2 :
			next_random(&random) % 3) {
		case 0:
			if (nr == MAX_HELD)
				break;
			h = new_mapping(&random, worker);
			if (h.plane == DMA_TRACK_COHERENT &&
			    is_held(held, nr, &h))
				break;
			pin(h.plane, RANDOM_GFN + h.first, h.nr);
			held[nr++] = h;
			break;
		case 1:
			if (!nr)
				break;
			h = held[next_random(&random) % nr];
			f = h.first + next_random(&random) % h.nr;
			__atomic_fetch_add(&memory[f], 1, __ATOMIC_SEQ_CST);
			__atomic_fetch_add(&nr_device_writes, 1,
					   __ATOMIC_RELAXED);
			break;
		case 2:
			/* Devices are given few buffers for long. */
			if (!nr || (nr < 3 && !READ_ONCE(stop_workers) &&
				    next_random(&random) % 8))
				break;
			i = next_random(&random) % nr;
			h = held[i];
			held[i] = held[--nr];
			/* The last write comes just before the unmap. */
			f = h.first + next_random(&random) % h.nr;
			__atomic_fetch_add(&memory[f], 1, __ATOMIC_SEQ_CST);
			unpin(h.plane, RANDOM_GFN + h.first, h.nr);
			break;
		}
	}
	return NULL;
}

static bool is_pinned(int f)
{
	return plane_bit(DMA_TRACK_STREAMING, RANDOM_GFN + f) ||
	       plane_bit(DMA_TRACK_COHERENT, RANDOM_GFN + f);
}

static void copy_frame(int f)
{
	copy[f] = __atomic_load_n(&memory[f], __ATOMIC_SEQ_CST);
}

/* The host: sticky deferral, as design.md and QEMU's part have it. */
static void migration_sync(bool *bmap, bool *deferred)
{
	int f;

	for (f = 0; f < NR_FRAMES; f++) {
		bool dirty, pinned;

		dirty = __atomic_exchange_n(&dirty_log[f], false,
					    __ATOMIC_SEQ_CST);
		dirty |= bmap[f] | deferred[f];
		pinned = is_pinned(f);
		bmap[f] = dirty && !pinned;
		deferred[f] = dirty && pinned;
	}
}

/* Lets devices write meanwhile: what is sent before must be sent again. */
static void wait_for_writes(u64 nr)
{
	u64 end = __atomic_load_n(&nr_device_writes, __ATOMIC_RELAXED) + nr;

	while (__atomic_load_n(&nr_device_writes, __ATOMIC_RELAXED) < end)
		usleep(20);
}

static int migrate_and_compare(pthread_t *workers, u32 *random, bool logging)
{
	bool bmap[NR_FRAMES], deferred[NR_FRAMES] = {};
	int rounds = 1 + next_random(random) % 4;
	int i, f, missing = 0;

	memset(dirty_log, 0, sizeof(dirty_log));
	memset(bmap, true, sizeof(bmap));
	memset(copy, 0, sizeof(copy));
	if (logging)
		dma_track_table_set_logging(&table, true);

	while (rounds--) {
		migration_sync(bmap, deferred);
		for (f = 0; f < NR_FRAMES; f++) {
			if (bmap[f])
				copy_frame(f);
			bmap[f] = false;
		}
		wait_for_writes(next_random(random) % 300);
	}

	__atomic_store_n(&let_go, false, __ATOMIC_RELEASE);
	for (i = 0; i < NR_WORKERS; i++)
		pthread_kill(workers[i], SIGUSR1);
	for (i = 0; i < NR_WORKERS; i++)
		while (sem_wait(&stopped))
			;

	migration_sync(bmap, deferred);
	for (f = 0; f < NR_FRAMES; f++) {
		if (bmap[f] || deferred[f] || is_pinned(f))
			copy_frame(f);
		missing += copy[f] != memory[f];
	}

	dma_track_table_set_logging(&table, false);
	__atomic_store_n(&let_go, true, __ATOMIC_RELEASE);
	for (i = 0; i < NR_WORKERS; i++)
		while (sem_wait(&stopped))
			;
	return missing;
}

static u64 run_migrations(bool logging, u64 *nr_migrations)
{
	double end = now() + seconds;
	pthread_t workers[NR_WORKERS];
	u32 random = time(NULL) | 1;
	u64 missing = 0;
	uintptr_t i;

	set_up();
	memset(memory, 0, sizeof(memory));
	stop_workers = false;
	*nr_migrations = 0;
	for (i = 0; i < NR_WORKERS; i++)
		pthread_create(&workers[i], NULL, device_worker, (void *)i);
	while (now() < end) {
		missing += migrate_and_compare(workers, &random, logging);
		++*nr_migrations;
	}
	WRITE_ONCE(stop_workers, true);
	for (i = 0; i < NR_WORKERS; i++)
		pthread_join(workers[i], NULL);
	tear_down();
	return missing;
}

static void test_migrations(void)
{
	struct sigaction action = { .sa_handler = stop_here };
	u64 nr, missing;
	bool good = true;

	sigaction(SIGUSR1, &action, NULL);
	sem_init(&stopped, 0, 0);

	missing = run_migrations(true, &nr);
	printf("# %llu migrations, %llu device writes, %llu frames lost\n", nr,
	       nr_device_writes, missing);
	EXPECT(nr > 10);
	EXPECT(missing == 0);
	result(good, "no device write is lost in a migration stopped anywhere");

	good = true;
	missing = run_migrations(false, &nr);
	printf("# control: %llu migrations, %llu frames lost\n", nr, missing);
	EXPECT(missing > 0);
	result(good, "control: without dirtying, device writes are lost");
}

int main(int argc, char **argv)
{
	if (argc > 1)
		seconds = atoi(argv[1]);

	test_private_memory();
	test_no_memory();
	do {
		test_counts();
		test_planes_are_separate();
		test_borders();
		test_saturation();
		test_gate();
		test_unknown_unmap();
		test_undirtiable();
		test_no_section();
		test_connect();
		test_sections_apart();
		test_observed();
		short_way = !short_way;
	} while (short_way);
	short_way = true;
	test_migrations();
	printf("1..%d\n", nr_tests);
	return nr_failed != 0;
}
