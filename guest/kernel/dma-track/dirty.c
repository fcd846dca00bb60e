// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirtying a frame: an atomic write that changes nothing
 *
 * A lock-prefixed compare and exchange of a value with itself sets the dirty
 * bit of the host's page table, or faults in the host's write protection, as
 * any write does.
 */
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <asm/asm.h>
#include <asm/page.h>

#include "dirty.h"
#include "trace.h"

/*
 * The frame may have been taken out of the direct map, be mapped read only
 * there or be poisoned. Then the access faults, and the fixup reports it.
 */
static notrace bool dirty_word(u64 *p)
{
	bool done = false;

	asm volatile("1:	movq	%[word], %%rax\n"
		     "2:	lock cmpxchgq %%rax, %[word]\n"
		     "	movb	$1, %[done]\n"
		     "3:\n"
		     _ASM_EXTABLE(1b, 3b)
		     _ASM_EXTABLE(2b, 3b)
		     : [word] "+m" (*p), [done] "+q" (done)
		     :
		     : "rax", "cc", "memory");
	return done;
}

/* Out of the way of those who do not trace. */
static noinline notrace bool trace_dirtied(u64 gfn, bool done)
{
	trace_dma_track_dirty(gfn, done);
	return done;
}

notrace bool dma_track_dirty_frame(u64 gfn)
{
	bool done;

	/*
	 * A peer's BAR is no guest RAM, and a read or write there may have an
	 * effect. Nothing else without a struct page gets into the DMA API.
	 */
	if (!pfn_valid(gfn) || is_pci_p2pdma_page(pfn_to_page(gfn)))
		return true;

	done = dirty_word(__va(PFN_PHYS(gfn)));
	if (trace_dma_track_dirty_enabled())
		return trace_dirtied(gfn, done);
	return done;
}
