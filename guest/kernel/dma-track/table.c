// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table: which frames are pinned
 *
 * A bit must be set before a device learns the address, and must not be seen
 * clear while any mapping is left, wherever the vCPUs are stopped. So bit and
 * count change together inside one exclusion, the lock of the word: there is
 * no interleaving, and no point to stop at, with a clear bit over a live
 * mapping. The host needs no lock, for it only reads the bits.
 */
#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/irqflags.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/processor.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "dirty.h"
#include "table.h"
#include "table_frame.h"

static struct dma_track_section **find_leaf(struct dma_track_table *table,
					    u64 nr)
{
	/* Pairs with the release in dma_track_table_add(). */
	return smp_load_acquire(&table->leaves[nr >> DMA_TRACK_LEAF_SHIFT]);
}

static struct dma_track_section *find_section(struct dma_track_table *table,
					      u64 nr)
{
	struct dma_track_section **leaf;

	if (unlikely(nr >= DMA_TRACK_MAX_SECTIONS))
		return NULL;

	leaf = find_leaf(table, nr);
	if (unlikely(!leaf))
		return NULL;

	/* Pairs with the release in dma_track_table_add(). */
	return smp_load_acquire(&leaf[nr & (DMA_TRACK_LEAF_SECTIONS - 1)]);
}

/*
 * The word's bits that belong to frames gfn .. end - 1, where gfn is in the
 * word.
 */
static u64 frames_in_word(u64 gfn, u64 end)
{
	unsigned int first = gfn % DMA_TRACK_WORD_FRAMES;
	u64 nr = min(end - gfn, (u64)DMA_TRACK_WORD_FRAMES - first);

	return (~0ULL >> (DMA_TRACK_WORD_FRAMES - nr)) << first;
}

static u64 next_word(u64 gfn)
{
	return (gfn | (DMA_TRACK_WORD_FRAMES - 1)) + 1;
}

static unsigned int word_of(u64 gfn)
{
	return (gfn % DMA_TRACK_SECTION_FRAMES) / DMA_TRACK_WORD_FRAMES;
}

/* With interrupts off: a handler may map or unmap as well. */
static void lock_word(struct dma_track_section *section, unsigned int word)
{
	atomic_t *lock = &section->lock[word];

	while (!dma_track_try_lock(lock))
		while (atomic_read(lock) <= 0)
			cpu_relax();
}

static void unlock_word(struct dma_track_section *section, unsigned int word)
{
	dma_track_unlock(&section->lock[word]);
}

/* Adds mapping counts. Returns how many frames became sticky by it. */
static unsigned int count_up(u8 *counts, u64 frames)
{
	unsigned int saturated = 0;

	for (; frames; frames &= frames - 1) {
		u8 *count = &counts[__ffs64(frames)];

		if (unlikely(*count == DMA_TRACK_STICKY))
			continue;
		if (unlikely(*count == DMA_TRACK_MAX_COUNT)) {
			*count = DMA_TRACK_STICKY;
			saturated++;
		} else {
			++*count;
		}
	}
	return saturated;
}

/* Returns whether the host reads the plane, or there is no host. */
static bool pin_word(struct dma_track_table *table,
		     struct dma_track_section *section,
		     enum dma_track_plane plane, unsigned int word, u64 frames)
{
	__le64 *bits = &section->planes[plane][word];
	unsigned int saturated;
	unsigned long flags;
	bool covered;
	u64 old;

	raw_local_irq_save(flags);
	lock_word(section, word);
	old = le64_to_cpu(READ_ONCE(*bits));
	if (plane == DMA_TRACK_STREAMING) {
		u8 *counts = &section->counts[word * DMA_TRACK_WORD_FRAMES];

		saturated = count_up(counts, frames);
	} else {
		/*
		 * Allocations are whole frames with one owner. A second one
		 * means that a free was missed; without a count it could not be
		 * told when the last one ends.
		 */
		u64 again = old & frames & ~section->sticky[word];

		section->sticky[word] |= again;
		saturated = hweight64(again);
	}
	WRITE_ONCE(*bits, cpu_to_le64(old | frames));

	/* In the lock, for dma_track_table_connect(). */
	covered = dma_track_is_covered(table, section);
	unlock_word(section, word);
	raw_local_irq_restore(flags);

	if (unlikely(saturated))
		this_cpu_add(table->stats->saturated, saturated);
	return covered;
}

bool dma_track_table_pin(struct dma_track_table *table,
			 enum dma_track_plane plane, u64 gfn, u64 nr_frames)
{
	u64 end = gfn + nr_frames;
	bool covered = true;

	for (; gfn < end; gfn = next_word(gfn)) {
		struct dma_track_section *section;

		section = find_section(table,
				       gfn >> DMA_TRACK_SECTION_FRAME_SHIFT);
		if (unlikely(!section)) {
			covered = false;
			continue;
		}
		if (unlikely(!pin_word(table, section, plane, word_of(gfn),
				       frames_in_word(gfn, end))))
			covered = false;
	}
	return covered;
}

/**
 * struct unpin - one word's part of an unpin
 * @section: where
 * @word: which word of the plane
 * @frames: bits of the frames whose mapping ends
 * @logging: the gate, as read in the lock
 * @stats: what happened, added to the table's after the lock
 */
struct unpin {
	struct dma_track_section *section;
	unsigned int word;
	u64 frames;
	bool logging;
	struct dma_track_table_stats stats;
};

/* Returns false if the frame must stay pinned for ever. */
static bool hand_over(struct unpin *u, unsigned int bit)
{
	u64 gfn;

	if (!u->logging)
		return true;

	gfn = ((u64)u->section->nr << DMA_TRACK_SECTION_FRAME_SHIFT) +
	      u->word * DMA_TRACK_WORD_FRAMES + bit;
	if (unlikely(!dma_track_dirty_frame(gfn))) {
		u->stats.undirtied++;
		return false;
	}
	u->stats.dirtied++;
	return true;
}

/* Returns the plane's bits of the word as they are to be. */
static u64 unpin_streaming(struct unpin *u, u64 bits)
{
	u8 *counts = &u->section->counts[u->word * DMA_TRACK_WORD_FRAMES];
	u64 frames;

	for (frames = u->frames; frames; frames &= frames - 1) {
		unsigned int bit = __ffs64(frames);
		u8 *count = &counts[bit];

		/* Frames that stay pinned need no dirtying. */
		if (*count == DMA_TRACK_STICKY)
			continue;
		if (*count > 1) {
			--*count;
			continue;
		}

		if (unlikely(!*count))
			u->stats.unknown_unmaps++;

		if (likely(hand_over(u, bit))) {
			*count = 0;
			bits &= ~BIT_ULL(bit);
		} else {
			*count = DMA_TRACK_STICKY;
			bits |= BIT_ULL(bit);
		}
	}
	return bits;
}

static u64 unpin_coherent(struct unpin *u, u64 bits)
{
	u64 *sticky = &u->section->sticky[u->word];
	u64 frames;

	for (frames = u->frames & ~*sticky; frames; frames &= frames - 1) {
		unsigned int bit = __ffs64(frames);

		if (unlikely(!(bits & BIT_ULL(bit))))
			u->stats.unknown_unmaps++;

		if (likely(hand_over(u, bit))) {
			bits &= ~BIT_ULL(bit);
		} else {
			*sticky |= BIT_ULL(bit);
			bits |= BIT_ULL(bit);
		}
	}
	return bits;
}

static void add_stats(struct dma_track_table *table,
		      const struct dma_track_table_stats *stats)
{
	if (stats->dirtied)
		this_cpu_add(table->stats->dirtied, stats->dirtied);
	if (unlikely(stats->unknown_unmaps))
		this_cpu_add(table->stats->unknown_unmaps,
			     stats->unknown_unmaps);
	if (unlikely(stats->undirtied))
		this_cpu_add(table->stats->undirtied, stats->undirtied);
}

static void unpin_word(struct dma_track_table *table, struct unpin *u,
		       enum dma_track_plane plane)
{
	__le64 *bits = &u->section->planes[plane][u->word];
	unsigned long flags;
	u64 new;

	raw_local_irq_save(flags);
	lock_word(u->section, u->word);
	u->logging = READ_ONCE(table->logging);
	new = le64_to_cpu(READ_ONCE(*bits));
	if (plane == DMA_TRACK_STREAMING)
		new = unpin_streaming(u, new);
	else
		new = unpin_coherent(u, new);
	/* Cleared last: a host that sees the bit clear can see the dirtying. */
	smp_store_release(bits, cpu_to_le64(new));
	unlock_word(u->section, u->word);
	raw_local_irq_restore(flags);

	add_stats(table, &u->stats);
}

void dma_track_table_unpin(struct dma_track_table *table,
			   enum dma_track_plane plane, u64 gfn, u64 nr_frames)
{
	u64 end = gfn + nr_frames;

	for (; gfn < end; gfn = next_word(gfn)) {
		struct unpin u = {
			.word = word_of(gfn),
			.frames = frames_in_word(gfn, end),
		};

		u.section = find_section(table,
					 gfn >> DMA_TRACK_SECTION_FRAME_SHIFT);
		/* Without a section it was given up when it was pinned. */
		if (likely(u.section))
			unpin_word(table, &u, plane);
	}
}

void dma_track_table_sync(struct dma_track_table *table, u64 gfn,
			  u64 nr_frames)
{
	u64 dirtied = 0;

	/*
	 * No lock: the frames stay pinned, so nothing depends on when the gate
	 * is read, nor on success.
	 */
	if (!READ_ONCE(table->logging))
		return;

	for (; nr_frames; nr_frames--, gfn++)
		dirtied += dma_track_dirty_frame(gfn);
	this_cpu_add(table->stats->dirtied, dirtied);
}

void dma_track_table_give_up(struct dma_track_table *table, u32 reason)
{
	cmpxchg(table->lost, 0, cpu_to_le32(reason));
}

void dma_track_table_set_logging(struct dma_track_table *table, bool logging)
{
	WRITE_ONCE(table->logging, logging);
	/* Before the host is told, which is its cue to send RAM. */
	smp_mb();
}

static bool section_is_empty(struct dma_track_section *section)
{
	unsigned int word;

	for (word = 0; word < DMA_TRACK_PLANE_WORDS; word++) {
		unsigned long flags;
		bool empty;

		/*
		 * With the lock: a pin that we do not see here takes it after
		 * us and sees that there is a host.
		 */
		raw_local_irq_save(flags);
		lock_word(section, word);
		empty = !section->planes[DMA_TRACK_STREAMING][word] &&
			!section->planes[DMA_TRACK_COHERENT][word];
		unlock_word(section, word);
		raw_local_irq_restore(flags);
		if (!empty)
			return false;
	}
	return true;
}

bool dma_track_table_connect(struct dma_track_table *table)
{
	struct dma_track_section *section;
	bool covered = true;
	u32 nr = 0;

	WRITE_ONCE(table->connected, true);

	while ((section = dma_track_table_next(table, nr))) {
		if (!section->accepted && !section_is_empty(section))
			covered = false;
		nr = section->nr + 1;
	}
	return covered;
}

void dma_track_table_disconnect(struct dma_track_table *table)
{
	struct dma_track_section *section;
	u32 nr = 0;

	WRITE_ONCE(table->connected, false);
	dma_track_table_set_logging(table, false);

	while ((section = dma_track_table_next(table, nr))) {
		WRITE_ONCE(section->accepted, false);
		nr = section->nr + 1;
	}
}

struct dma_track_section *
dma_track_table_next(struct dma_track_table *table, u32 nr)
{
	for (; nr < DMA_TRACK_MAX_SECTIONS; nr++) {
		struct dma_track_section *section;

		if (!find_leaf(table, nr)) {
			nr |= DMA_TRACK_LEAF_SECTIONS - 1;
			continue;
		}
		section = find_section(table, nr);
		if (section)
			return section;
	}
	return NULL;
}

static void section_free(struct dma_track_section *section)
{
	int i;

	for (i = 0; i < DMA_TRACK_NR_PLANES; i++)
		free_page((unsigned long)section->planes[i]);

	if (is_vmalloc_addr(section))
		vfree(section);
	else
		free_pages_exact(section, sizeof(*section));
}

static struct dma_track_section *section_alloc(u32 nr)
{
	struct dma_track_section *section;
	int i;

	BUILD_BUG_ON(PAGE_SIZE != DMA_TRACK_PLANE_SIZE);

	/*
	 * Counts are touched with every mapping. The direct map has large
	 * pages, vmalloc costs a TLB entry per page; and an allocation of a
	 * power of two would take 64 KiB.
	 */
	section = alloc_pages_exact(sizeof(*section), GFP_KERNEL | __GFP_ZERO |
				    __GFP_NOWARN | __GFP_NORETRY);
	if (!section)
		section = vzalloc(sizeof(*section));
	if (!section)
		return NULL;

	section->nr = nr;
	for (i = 0; i < DMA_TRACK_PLANE_WORDS; i++)
		atomic_set(&section->lock[i], 1);

	for (i = 0; i < DMA_TRACK_NR_PLANES; i++) {
		section->planes[i] = (__le64 *)get_zeroed_page(GFP_KERNEL);
		if (!section->planes[i])
			goto out_free;
	}
	return section;

out_free:
	section_free(section);
	return NULL;
}

/* Of sections 512 GiB apart the first is found quickly. */
static void index_section(struct dma_track_table *table,
			  struct dma_track_section *section)
{
	struct dma_track_section **slot =
		&table->index[section->nr % DMA_TRACK_INDEX_SLOTS];

	if (*slot != table->nowhere)
		return;
	/* Pairs with dma_track_index_slot(). */
	smp_store_release(slot, section);
}

int dma_track_table_add(struct dma_track_table *table, u32 nr)
{
	struct dma_track_section **leaf, *section;
	int rc = -ENOMEM;

	if (nr >= DMA_TRACK_MAX_SECTIONS)
		return -ERANGE;

	mutex_lock(&table->mutex);
	leaf = table->leaves[nr >> DMA_TRACK_LEAF_SHIFT];
	if (!leaf) {
		leaf = kvcalloc(DMA_TRACK_LEAF_SECTIONS, sizeof(*leaf),
				GFP_KERNEL);
		if (!leaf)
			goto out;
		/* Pairs with find_section(). */
		smp_store_release(&table->leaves[nr >> DMA_TRACK_LEAF_SHIFT],
				  leaf);
	}

	leaf += nr & (DMA_TRACK_LEAF_SECTIONS - 1);
	if (!*leaf) {
		section = section_alloc(nr);
		if (!section)
			goto out;
		/* Pairs with find_section(). */
		smp_store_release(leaf, section);
		index_section(table, section);
	}
	rc = 0;
out:
	mutex_unlock(&table->mutex);
	return rc;
}

bool dma_track_table_read_frame(struct dma_track_table *table, u64 gfn,
				struct dma_track_frame *frame)
{
	unsigned int word = word_of(gfn), bit = gfn % DMA_TRACK_WORD_FRAMES;
	struct dma_track_section *section;
	unsigned long flags;
	u64 bits;

	section = find_section(table, gfn >> DMA_TRACK_SECTION_FRAME_SHIFT);
	if (!section)
		return false;

	raw_local_irq_save(flags);
	lock_word(section, word);
	bits = le64_to_cpu(section->planes[DMA_TRACK_STREAMING][word]);
	frame->streaming = bits & BIT_ULL(bit);
	bits = le64_to_cpu(section->planes[DMA_TRACK_COHERENT][word]);
	frame->coherent = bits & BIT_ULL(bit);
	frame->count = section->counts[gfn % DMA_TRACK_SECTION_FRAMES];
	unlock_word(section, word);
	raw_local_irq_restore(flags);
	return true;
}

u64 dma_track_table_nr_pinned(struct dma_track_table *table,
			      enum dma_track_plane plane)
{
	struct dma_track_section *section;
	u64 sum = 0;
	u32 nr = 0;
	int i;

	while ((section = dma_track_table_next(table, nr))) {
		const __le64 *bits = section->planes[plane];

		for (i = 0; i < DMA_TRACK_PLANE_WORDS; i++) {
			/* Changed under a lock that is too dear here. */
			sum += hweight64(le64_to_cpu(data_race(bits[i])));
		}
		nr = section->nr + 1;
	}
	return sum;
}

void dma_track_table_read_stats(struct dma_track_table *table,
				struct dma_track_table_stats *sum)
{
	int cpu;

	*sum = (struct dma_track_table_stats) {};
	for_each_possible_cpu(cpu) {
		struct dma_track_table_stats *stats;

		stats = per_cpu_ptr(table->stats, cpu);
		sum->dirtied += READ_ONCE(stats->dirtied);
		sum->saturated += READ_ONCE(stats->saturated);
		sum->unknown_unmaps += READ_ONCE(stats->unknown_unmaps);
		sum->undirtied += READ_ONCE(stats->undirtied);
	}
}

int dma_track_table_init(struct dma_track_table *table, __le32 *lost)
{
	int i;

	memset(table, 0, sizeof(*table));
	table->lost = lost;
	mutex_init(&table->mutex);

	table->leaves = kvcalloc(DMA_TRACK_NR_LEAVES, sizeof(*table->leaves),
				 GFP_KERNEL);
	if (!table->leaves)
		return -ENOMEM;

	table->stats = alloc_percpu(struct dma_track_table_stats);
	if (!table->stats)
		goto out_free_leaves;

	/* Nobody looks behind the number, which matches none. */
	table->nowhere = kvcalloc(1, sizeof(table->nowhere->nr), GFP_KERNEL);
	if (!table->nowhere)
		goto out_free_stats;
	table->nowhere->nr = U32_MAX;
	for (i = 0; i < DMA_TRACK_INDEX_SLOTS; i++)
		table->index[i] = table->nowhere;
	return 0;

out_free_stats:
	free_percpu(table->stats);
out_free_leaves:
	kvfree(table->leaves);
	return -ENOMEM;
}

void dma_track_table_destroy(struct dma_track_table *table)
{
	struct dma_track_section *section;
	u32 nr = 0;
	int i;

	while ((section = dma_track_table_next(table, nr))) {
		nr = section->nr + 1;
		section_free(section);
	}

	for (i = 0; i < DMA_TRACK_NR_LEAVES; i++)
		kvfree(table->leaves[i]);

	kvfree(table->nowhere);
	free_percpu(table->stats);
	kvfree(table->leaves);
}
