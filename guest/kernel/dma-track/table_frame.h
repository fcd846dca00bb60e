/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table's common case, inline: one frame of the streaming plane
 *
 * Nearly all that drivers map lies in one frame, is not contended, and is
 * mapped less than a hundred times. What is not so is left to table.c: these
 * functions either do all of it, or change nothing and say so.
 *
 * Their instructions are counted (Documentation/performance.rst). Barriers keep
 * the compiler from holding a count in a register: a byte is compared and changed
 * in place.
 */
#ifndef DMA_TRACK_TABLE_FRAME_H
#define DMA_TRACK_TABLE_FRAME_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/irqflags.h>

#include "dirty.h"
#include "table.h"

/* May be another section, or none: look at its number. */
static __always_inline struct dma_track_section *
dma_track_index_slot(struct dma_track_table *table, u64 gfn)
{
	u64 nr = gfn >> DMA_TRACK_SECTION_FRAME_SHIFT;

	/* Pairs with the release in dma_track_table_add(). */
	return smp_load_acquire(&table->index[nr % DMA_TRACK_INDEX_SLOTS]);
}

/* A frame that can be mapped has a section whose number has 25 bits. */
static __always_inline bool
dma_track_section_has(const struct dma_track_section *section, u64 gfn)
{
	return section->nr == (u32)(gfn >> DMA_TRACK_SECTION_FRAME_SHIFT);
}

static __always_inline u64
dma_track_section_gfn(const struct dma_track_section *section)
{
	return (u64)section->nr << DMA_TRACK_SECTION_FRAME_SHIFT;
}

/* Holding the lock. Whether the host reads the plane, or there is no host. */
static __always_inline bool
dma_track_is_covered(struct dma_track_table *table,
		     struct dma_track_section *section)
{
	/* Bytes that others write without the lock. */
	if (likely(data_race(section->accepted)))
		return true;
	/* As above. */
	return !data_race(table->connected);
}

/*
 * A lock is 1 while it is free. Who takes it to 0 holds it; who takes it below
 * has done no harm, for it is released by setting it to 1.
 */
static __always_inline bool dma_track_try_lock(atomic_t *lock)
{
	return likely(atomic_dec_and_test(lock));
}

static __always_inline void dma_track_unlock(atomic_t *lock)
{
	atomic_set_release(lock, 1);
}

/*
 * Without what a hypervisor may put in between, and lockdep: nothing is taken
 * inside. Xen's paravirtual guests translate DMA addresses, and do not come
 * here. Asked once, before: no flags have to be kept, for which there would be
 * no register.
 */
#ifdef CONFIG_X86_64
#define dma_track_irqs_on()		(native_save_fl() & X86_EFLAGS_IF)
#define dma_track_irq_disable()		native_irq_disable()
#define dma_track_irq_enable()		native_irq_enable()
#else
#define dma_track_irqs_on()		(!raw_irqs_disabled())
#define dma_track_irq_disable()		raw_local_irq_disable()
#define dma_track_irq_enable()		raw_local_irq_enable()
#endif

/* With interrupts off. Returns false if nothing was done. */
static __always_inline bool
dma_track_section_pin(struct dma_track_table *table,
		      struct dma_track_section *section, unsigned long i)
{
	unsigned long word = i / DMA_TRACK_WORD_FRAMES;

	if (unlikely(!dma_track_try_lock(&section->lock[word])))
		return false;
	if (unlikely(!dma_track_is_covered(table, section)))
		goto out_unlock;

	/* Sticky, or about to be. */
	if (unlikely(section->counts[i] >= DMA_TRACK_MAX_COUNT))
		goto out_unlock;
	barrier();
	++section->counts[i];
	__set_bit_le(i, section->planes[DMA_TRACK_STREAMING]);
	dma_track_unlock(&section->lock[word]);
	return true;

out_unlock:
	dma_track_unlock(&section->lock[word]);
	return false;
}

/**
 * dma_track_table_pin_frame - dma_track_table_pin() of one streaming frame
 * @table: the table
 * @gfn: the frame
 *
 * Return: false if nothing was done, and dma_track_table_pin() is needed.
 */
static __always_inline bool
dma_track_table_pin_frame(struct dma_track_table *table, u64 gfn)
{
	struct dma_track_section *section = dma_track_index_slot(table, gfn);
	unsigned long i = gfn % DMA_TRACK_SECTION_FRAMES;
	bool done;

	if (unlikely(!dma_track_section_has(section, gfn)))
		return false;
	if (!dma_track_irqs_on())
		return dma_track_section_pin(table, section, i);

	dma_track_irq_disable();
	done = dma_track_section_pin(table, section, i);
	dma_track_irq_enable();
	return done;
}

/* With interrupts off. Returns false if nothing was done. */
static __always_inline bool
dma_track_section_unpin(struct dma_track_table *table,
			struct dma_track_section *section, unsigned long i)
{
	unsigned long word = i / DMA_TRACK_WORD_FRAMES;

	if (unlikely(!dma_track_try_lock(&section->lock[word])))
		return false;

	if (unlikely(--section->counts[i])) {
		barrier();
		if (likely((s8)section->counts[i] > 0))
			goto out_still_mapped;
		/* Sticky, or not known to be mapped. */
		++section->counts[i];
		goto out_unlock;
	}
	/* A byte, and who has read 0 may be told so in the next moment. */
	if (unlikely(data_race(table->logging))) {
		/* Put together again, so that it need not be kept. */
		u64 gfn = dma_track_section_gfn(section) + i;

		if (unlikely(!dma_track_try_dirty(gfn))) {
			++section->counts[i];
			goto out_unlock;
		}
		this_cpu_inc(table->stats->dirtied);
	}
	/* Cleared last: a host that sees the bit clear can see the dirtying. */
	barrier();
	__clear_bit_le(i, section->planes[DMA_TRACK_STREAMING]);
out_still_mapped:
	dma_track_unlock(&section->lock[word]);
	return true;

out_unlock:
	dma_track_unlock(&section->lock[word]);
	return false;
}

/**
 * dma_track_table_unpin_frame - dma_track_table_unpin() of one streaming frame
 * @table: the table
 * @gfn: the frame, which was pinned by a mapping
 *
 * Return: false if nothing was done, and dma_track_table_unpin() is needed.
 */
static __always_inline bool
dma_track_table_unpin_frame(struct dma_track_table *table, u64 gfn)
{
	struct dma_track_section *section = dma_track_index_slot(table, gfn);
	unsigned long i = gfn % DMA_TRACK_SECTION_FRAMES;
	bool done;

	if (unlikely(!dma_track_section_has(section, gfn)))
		return false;
	if (!dma_track_irqs_on())
		return dma_track_section_unpin(table, section, i);

	dma_track_irq_disable();
	done = dma_track_section_unpin(table, section, i);
	dma_track_irq_enable();
	return done;
}

#endif /* DMA_TRACK_TABLE_FRAME_H */
