/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a frame is dirtied
 */
#ifndef DMA_TRACK_DIRTY_H
#define DMA_TRACK_DIRTY_H

#include <linux/types.h>

#ifdef __KERNEL__
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <asm/asm.h>
#include <asm/page.h>
#endif

/**
 * dma_track_dirty_frame - write a frame without changing it
 * @gfn: number of the 4 KiB frame
 *
 * The write is atomic, because a device may be writing neighbouring bytes, and
 * is complete when the function returns: a full memory barrier. Frames that
 * are not guest RAM but another device's memory are left alone.
 *
 * Any context. Return: false if the frame could not be written, so that the
 * host's dirty log knows nothing of it.
 */
bool dma_track_dirty_frame(u64 gfn);

/**
 * dma_track_try_dirty - dma_track_dirty_frame() inline, for most frames
 * @gfn: a frame that has a struct page
 *
 * Return: false if nothing was done, and dma_track_dirty_frame() is needed.
 */
#ifdef __KERNEL__
static __always_inline bool dma_track_try_dirty(u64 gfn)
{
	/* A peer's BAR, or a persistent memory. */
	if (unlikely(is_zone_device_page(pfn_to_page(gfn))))
		return false;

	asm goto("1:	movq	(%[word]), %%rax\n"
		 "2:	lock cmpxchgq %%rax, (%[word])\n"
		 _ASM_EXTABLE(1b, %l[fault])
		 _ASM_EXTABLE(2b, %l[fault])
		 : : [word] "r" (__va(PFN_PHYS(gfn)))
		 : "rax", "cc", "memory" : fault);
	return true;
fault:
	return false;
}
#else
static inline bool dma_track_try_dirty(u64 gfn)
{
	return dma_track_dirty_frame(gfn);
}
#endif

#endif /* DMA_TRACK_DIRTY_H */
