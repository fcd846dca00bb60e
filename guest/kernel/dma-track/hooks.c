// SPDX-License-Identifier: GPL-2.0-only
/*
 * The hooks: how the DMA API is tapped
 *
 * ftrace calls a small trampoline at the entry of each hooked function, in
 * place of the function's first instruction. The trampoline throws away the
 * return address into the function and jumps to a C function with the same
 * prototype, so that this one runs instead of the hooked one and returns to its
 * caller. The original is called past its entry, where ftrace does not see it,
 * by a static call: a direct call, which needs no landing pad there.
 *
 * Memory is pinned after the original has mapped it, before the caller learns
 * the address; and unpinned before the original unmaps it, while the address
 * can still be translated. What is pinned is what the device was given, the DMA
 * address, and not the caller's page: with bounce buffers they differ.
 */
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/ftrace.h>
#include <linux/iommu.h>
#include <linux/memremap.h>
#include <linux/pci.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/scatterlist.h>
#include <linux/static_call.h>
#include <linux/virtio_dma_track.h>
#include <asm/ibt.h>
#include <asm/orc_types.h>

#include "compat.h"
#include "devices.h"
#include "filter.h"
#include "hook_list.h"
#include "hooks.h"
#include "sections.h"
#include "selftest.h"
#include "table.h"
#include "table_frame.h"
#include "trace.h"

/* The functions themselves until they are hooked, then past their entries. */
#define ORIGINAL(fn) DEFINE_STATIC_CALL(original_##fn, fn);
FOR_EACH_HOOK(ORIGINAL)

struct hook_counts {
	u64 maps;
	u64 unmaps;
};

static DEFINE_PER_CPU(struct hook_counts, hook_counts);

static struct dma_track_table *const table = &dma_track_table;
static bool sync_dirty;

/*
 * Tasks that may sleep inside a hook, in the original. ftrace waits for tasks
 * that were preempted in a hook, but not for these.
 */
static atomic_t nr_sleepers = ATOMIC_INIT(0);

/* --- From a DMA address to frames ------------------------------------- */

enum frame_op {
	PIN_STREAMING,
	PIN_COHERENT,
	UNPIN_STREAMING,
	UNPIN_COHERENT,
	SYNC,
};

/* Frames that the table could not pin. A peer's BAR needs no pin. */
static notrace void frames_not_covered(u64 gfn, u64 nr)
{
	for (; nr; nr--, gfn++) {
		if (pfn_valid(gfn) && is_pci_p2pdma_page(pfn_to_page(gfn)))
			continue;
		dma_track_table_give_up(table,
					VIRTIO_DMA_TRACK_LOST_NO_SECTION);
		return;
	}
}

static __always_inline void frames_do(enum frame_op op, u64 gfn, u64 nr)
{
	bool covered = true;

	switch (op) {
	case PIN_STREAMING:
		covered = dma_track_table_pin(table, DMA_TRACK_STREAMING, gfn,
					      nr);
		break;
	case PIN_COHERENT:
		covered = dma_track_table_pin(table, DMA_TRACK_COHERENT, gfn,
					      nr);
		break;
	case UNPIN_STREAMING:
		dma_track_table_unpin(table, DMA_TRACK_STREAMING, gfn, nr);
		break;
	case UNPIN_COHERENT:
		dma_track_table_unpin(table, DMA_TRACK_COHERENT, gfn, nr);
		break;
	case SYNC:
		dma_track_table_sync(table, gfn, nr);
		break;
	}
	if (unlikely(!covered))
		frames_not_covered(gfn, nr);
}

/* Frames that a range of addresses touches. */
static __always_inline u64 nr_frames(u64 addr, size_t size)
{
	return (offset_in_page(addr) + size + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

static notrace u32 sbdf_of(struct device *dev)
{
	struct pci_dev *pdev;

	while (dev && !dev_is_pci(dev))
		dev = dev->parent;
	if (!dev)
		return ~0;
	pdev = to_pci_dev(dev);
	return VIRTIO_DMA_TRACK_SBDF((u32)pci_domain_nr(pdev->bus),
				     (u32)pdev->bus->number,
				     (u32)pdev->devfn);
}

static __always_inline bool is_traced(enum frame_op op)
{
	switch (op) {
	case PIN_STREAMING:
	case PIN_COHERENT:
		return trace_dma_track_pin_enabled();
	case UNPIN_STREAMING:
	case UNPIN_COHERENT:
		return trace_dma_track_unpin_enabled();
	case SYNC:
		break;
	}
	return false;
}

static notrace void trace_frames(struct device *dev, enum frame_op op, u64 gfn,
				 u64 nr)
{
	u32 sbdf = sbdf_of(dev);

	switch (op) {
	case PIN_STREAMING:
		trace_dma_track_pin(sbdf, DMA_TRACK_STREAMING, gfn, nr);
		break;
	case PIN_COHERENT:
		trace_dma_track_pin(sbdf, DMA_TRACK_COHERENT, gfn, nr);
		break;
	case UNPIN_STREAMING:
		trace_dma_track_unpin(sbdf, DMA_TRACK_STREAMING, gfn, nr);
		break;
	case UNPIN_COHERENT:
		trace_dma_track_unpin(sbdf, DMA_TRACK_COHERENT, gfn, nr);
		break;
	case SYNC:
		break;
	}
}

/* Translates by itself: inside range_do() the frames would cost registers. */
static noinline notrace void trace_range(struct device *dev, enum frame_op op,
					 dma_addr_t addr, size_t size)
{
	phys_addr_t phys = dma_to_phys(dev, addr);

	trace_frames(dev, op, PHYS_PFN(phys), nr_frames(phys, size));
}

/* Behind an IOMMU, neighbours may be anywhere: translate frame by frame. */
static notrace void iommu_range_do(struct device *dev, enum frame_op op,
				   dma_addr_t addr, size_t size)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(dev);
	u64 nr = nr_frames(addr, size);

	for (addr &= PAGE_MASK; nr; nr--, addr += PAGE_SIZE) {
		phys_addr_t phys;

		phys = domain ? iommu_iova_to_phys(domain, addr) : 0;
		if (unlikely(!phys)) {
			dma_track_table_give_up(table,
						VIRTIO_DMA_TRACK_LOST_NO_FRAME);
			continue;
		}
		if (is_traced(op))
			trace_frames(dev, op, PHYS_PFN(phys), 1);
		frames_do(op, PHYS_PFN(phys), 1);
	}
}

static __always_inline void range_do(struct device *dev, enum frame_op op,
				     dma_addr_t addr, size_t size)
{
	phys_addr_t phys;

	if (unlikely(!size))
		return;

	if (unlikely(use_dma_iommu(dev))) {
		iommu_range_do(dev, op, addr, size);
		return;
	}

	/* dma_map_ops translate as they like. */
	if (is_traced(op) && !get_dma_ops(dev))
		trace_range(dev, op, addr, size);
	phys = get_dma_ops(dev) ? (phys_addr_t)-1 : dma_to_phys(dev, addr);
	if (unlikely(phys == (phys_addr_t)-1)) {
		dma_track_table_give_up(table, VIRTIO_DMA_TRACK_LOST_NO_FRAME);
		return;
	}
	frames_do(op, PHYS_PFN(phys), nr_frames(phys, size));
}

/*
 * The list's entries that stand for memory the device was given. The rest was
 * merged into them or belongs to peers. The same on map and on unmap, whatever
 * number of entries was mapped.
 */
static __always_inline void sg_do(struct device *dev, enum frame_op op,
				  struct scatterlist *sgl, int nents)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		if (sg_dma_is_bus_address(sg) ||
		    sg_dma_address(sg) == DMA_MAPPING_ERROR)
			continue;
		range_do(dev, op, sg_dma_address(sg), sg_dma_len(sg));
	}
}

/* --- The hooks ---------------------------------------------------------- */

/* Only memory that the device may write matters. */
static __always_inline bool device_writes(enum dma_data_direction dir)
{
	return dir == DMA_FROM_DEVICE || dir == DMA_BIDIRECTIONAL;
}

static __always_inline bool counts_map(struct device *dev)
{
	if (likely(!dma_track_filter_has(dev)))
		return false;
	this_cpu_inc(hook_counts.maps);
	return true;
}

static __always_inline bool counts_unmap(struct device *dev)
{
	if (likely(!dma_track_filter_has(dev)))
		return false;
	this_cpu_inc(hook_counts.unmaps);
	return true;
}

static __always_inline bool counts_sync(struct device *dev)
{
	return READ_ONCE(table->logging) && READ_ONCE(sync_dirty) &&
	       dma_track_filter_has(dev);
}

/*
 * Mapping one piece of memory is what drivers do most, and mostly it is a frame
 * or less. Each of these hooks has three ways: nothing but a jump to the original
 * for devices that are not counted; a short one for a plain device and one
 * frame; and all the rest. They are functions of their own, and each ends in a
 * jump to the next, so that the shorter does not pay for the longer: with three
 * in one, the compiler saves registers at the head for the longest.
 */
static __always_inline bool is_one_frame(u64 addr, size_t size)
{
	return likely(!((addr ^ (addr + size - 1)) >> PAGE_SHIFT));
}

/* Returns the address, so that a caller ends in a jump here. */
static noinline notrace dma_addr_t pin_plain(dma_addr_t addr, size_t size)
{
	if (likely(size))
		frames_do(PIN_STREAMING, PHYS_PFN(addr), nr_frames(addr, size));
	return addr;
}

#ifdef DMA_TRACK_MAP_PHYS
/* A peer's BAR is no memory of ours. */
static __always_inline bool is_memory(unsigned long attrs)
{
	return !(attrs & DMA_ATTR_MMIO);
}

static noinline notrace dma_addr_t
map_phys_of_any(struct device *dev, phys_addr_t phys, size_t size,
		enum dma_data_direction dir, unsigned long attrs)
{
	dma_addr_t addr;

	addr = static_call(original_dma_map_phys)(dev, phys, size, dir, attrs);
	dma_track_selftest_note(dev, HOOK_dma_map_phys);
	if (device_writes(dir) && is_memory(attrs) &&
	    addr != DMA_MAPPING_ERROR && counts_map(dev))
		range_do(dev, PIN_STREAMING, addr, size);
	return addr;
}

static __always_inline dma_addr_t
map_phys_of_plain(struct device *dev, phys_addr_t phys, size_t size,
		  enum dma_data_direction dir, unsigned long attrs)
{
	dma_addr_t addr;

	if (!device_writes(dir) || unlikely(!is_memory(attrs)))
		return static_call(original_dma_map_phys)(dev, phys, size, dir,
							  attrs);

	addr = static_call(original_dma_map_phys)(dev, phys, size, dir, attrs);
	if (unlikely(addr == DMA_MAPPING_ERROR))
		return addr;

	this_cpu_inc(hook_counts.maps);
	if (is_one_frame(addr, size) &&
	    likely(dma_track_table_pin_frame(table, PHYS_PFN(addr))))
		return addr;
	return pin_plain(addr, size);
}

static __used __noendbr notrace dma_addr_t
hooked_dma_map_phys(struct device *dev, phys_addr_t phys, size_t size,
		    enum dma_data_direction dir, unsigned long attrs)
{
	struct device *found = READ_ONCE(*dma_track_filter_slot(dev));

	if (dma_track_filter_lacks(dev, found))
		return static_call(original_dma_map_phys)(dev, phys, size, dir,
							  attrs);
	if (likely(found == dev))
		return map_phys_of_plain(dev, phys, size, dir, attrs);
	return map_phys_of_any(dev, phys, size, dir, attrs);
}

static noinline notrace void
unmap_phys_of_any(struct device *dev, dma_addr_t addr, size_t size,
		  enum dma_data_direction dir, unsigned long attrs)
{
	dma_track_selftest_note(dev, HOOK_dma_unmap_phys);
	if (device_writes(dir) && is_memory(attrs) && counts_unmap(dev))
		range_do(dev, UNPIN_STREAMING, addr, size);
	static_call(original_dma_unmap_phys)(dev, addr, size, dir, attrs);
}

static __always_inline void
unmap_phys_of_plain(struct device *dev, dma_addr_t addr, size_t size,
		    enum dma_data_direction dir, unsigned long attrs)
{
	if (device_writes(dir) && likely(is_memory(attrs))) {
		if (unlikely(!is_one_frame(addr, size)) ||
		    unlikely(!dma_track_table_unpin_frame(table,
							  PHYS_PFN(addr)))) {
			unmap_phys_of_any(dev, addr, size, dir, attrs);
			return;
		}
		this_cpu_inc(hook_counts.unmaps);
	}
	static_call(original_dma_unmap_phys)(dev, addr, size, dir, attrs);
}

static __used __noendbr notrace void
hooked_dma_unmap_phys(struct device *dev, dma_addr_t addr, size_t size,
		      enum dma_data_direction dir, unsigned long attrs)
{
	struct device *found = READ_ONCE(*dma_track_filter_slot(dev));

	if (dma_track_filter_lacks(dev, found))
		static_call(original_dma_unmap_phys)(dev, addr, size, dir,
						     attrs);
	else if (likely(found == dev))
		unmap_phys_of_plain(dev, addr, size, dir, attrs);
	else
		unmap_phys_of_any(dev, addr, size, dir, attrs);
}
#else
static noinline notrace dma_addr_t
map_page_of_any(struct device *dev, struct page *page, size_t offset,
		size_t size, enum dma_data_direction dir, unsigned long attrs)
{
	dma_addr_t addr;

	addr = static_call(original_dma_map_page_attrs)(dev, page, offset, size,
							dir, attrs);
	dma_track_selftest_note(dev, HOOK_dma_map_page_attrs);
	if (device_writes(dir) && addr != DMA_MAPPING_ERROR && counts_map(dev))
		range_do(dev, PIN_STREAMING, addr, size);
	return addr;
}

static __always_inline dma_addr_t
map_page_of_plain(struct device *dev, struct page *page, size_t offset,
		  size_t size, enum dma_data_direction dir, unsigned long attrs)
{
	dma_addr_t addr;

	if (!device_writes(dir))
		return static_call(original_dma_map_page_attrs)(dev, page,
								offset, size,
								dir, attrs);

	addr = static_call(original_dma_map_page_attrs)(dev, page, offset, size,
							dir, attrs);
	if (unlikely(addr == DMA_MAPPING_ERROR))
		return addr;

	this_cpu_inc(hook_counts.maps);
	if (is_one_frame(addr, size) &&
	    likely(dma_track_table_pin_frame(table, PHYS_PFN(addr))))
		return addr;
	return pin_plain(addr, size);
}

static __used __noendbr notrace dma_addr_t
hooked_dma_map_page_attrs(struct device *dev, struct page *page, size_t offset,
			  size_t size, enum dma_data_direction dir,
			  unsigned long attrs)
{
	struct device *found = READ_ONCE(*dma_track_filter_slot(dev));

	if (dma_track_filter_lacks(dev, found))
		return static_call(original_dma_map_page_attrs)(dev, page,
								offset, size,
								dir, attrs);
	if (likely(found == dev))
		return map_page_of_plain(dev, page, offset, size, dir, attrs);
	return map_page_of_any(dev, page, offset, size, dir, attrs);
}

static noinline notrace void
unmap_page_of_any(struct device *dev, dma_addr_t addr, size_t size,
		  enum dma_data_direction dir, unsigned long attrs)
{
	dma_track_selftest_note(dev, HOOK_dma_unmap_page_attrs);
	if (device_writes(dir) && counts_unmap(dev))
		range_do(dev, UNPIN_STREAMING, addr, size);
	static_call(original_dma_unmap_page_attrs)(dev, addr, size, dir, attrs);
}

static __always_inline void
unmap_page_of_plain(struct device *dev, dma_addr_t addr, size_t size,
		    enum dma_data_direction dir, unsigned long attrs)
{
	if (device_writes(dir)) {
		if (unlikely(!is_one_frame(addr, size)) ||
		    unlikely(!dma_track_table_unpin_frame(table,
							  PHYS_PFN(addr)))) {
			unmap_page_of_any(dev, addr, size, dir, attrs);
			return;
		}
		this_cpu_inc(hook_counts.unmaps);
	}
	static_call(original_dma_unmap_page_attrs)(dev, addr, size, dir, attrs);
}

static __used __noendbr notrace void
hooked_dma_unmap_page_attrs(struct device *dev, dma_addr_t addr, size_t size,
			    enum dma_data_direction dir, unsigned long attrs)
{
	struct device *found = READ_ONCE(*dma_track_filter_slot(dev));

	if (dma_track_filter_lacks(dev, found))
		static_call(original_dma_unmap_page_attrs)(dev, addr, size, dir,
							   attrs);
	else if (likely(found == dev))
		unmap_page_of_plain(dev, addr, size, dir, attrs);
	else
		unmap_page_of_any(dev, addr, size, dir, attrs);
}
#endif

#ifdef DMA_TRACK_IOVA
/* Pieces of a range of I/O addresses, which only an IOMMU makes possible. */
static __used __noendbr notrace int
hooked_dma_iova_link(struct device *dev, struct dma_iova_state *state,
		     phys_addr_t phys, size_t offset, size_t size,
		     enum dma_data_direction dir, unsigned long attrs)
{
	int rc = static_call(original_dma_iova_link)(dev, state, phys, offset,
						     size, dir, attrs);

	dma_track_selftest_note(dev, HOOK_dma_iova_link);
	if (device_writes(dir) && is_memory(attrs) && !rc && counts_map(dev))
		range_do(dev, PIN_STREAMING, state->addr + offset, size);
	return rc;
}

static __used __noendbr notrace void
hooked_dma_iova_unlink(struct device *dev, struct dma_iova_state *state,
		       size_t offset, size_t size, enum dma_data_direction dir,
		       unsigned long attrs)
{
	dma_track_selftest_note(dev, HOOK_dma_iova_unlink);
	if (device_writes(dir) && is_memory(attrs) && counts_unmap(dev))
		range_do(dev, UNPIN_STREAMING, state->addr + offset, size);
	static_call(original_dma_iova_unlink)(dev, state, offset, size, dir,
					      attrs);
}

/* Unlinks what is linked by itself. */
static __used __noendbr notrace void
hooked_dma_iova_destroy(struct device *dev, struct dma_iova_state *state,
			size_t mapped_len, enum dma_data_direction dir,
			unsigned long attrs)
{
	dma_track_selftest_note(dev, HOOK_dma_iova_destroy);
	if (mapped_len && device_writes(dir) && is_memory(attrs) &&
	    counts_unmap(dev))
		range_do(dev, UNPIN_STREAMING, state->addr, mapped_len);
	static_call(original_dma_iova_destroy)(dev, state, mapped_len, dir,
					       attrs);
}
#endif

static __used __noendbr notrace unsigned int
hooked_dma_map_sg_attrs(struct device *dev, struct scatterlist *sg, int nents,
			enum dma_data_direction dir, unsigned long attrs)
{
	unsigned int mapped;

	mapped = static_call(original_dma_map_sg_attrs)(dev, sg, nents, dir,
							attrs);
	dma_track_selftest_note(dev, HOOK_dma_map_sg_attrs);
	if (device_writes(dir) && mapped && counts_map(dev))
		sg_do(dev, PIN_STREAMING, sg, nents);
	return mapped;
}

static __used __noendbr notrace int
hooked_dma_map_sgtable(struct device *dev, struct sg_table *sgt,
		       enum dma_data_direction dir, unsigned long attrs)
{
	int rc = static_call(original_dma_map_sgtable)(dev, sgt, dir, attrs);

	dma_track_selftest_note(dev, HOOK_dma_map_sgtable);
	if (device_writes(dir) && !rc && counts_map(dev))
		sg_do(dev, PIN_STREAMING, sgt->sgl, sgt->orig_nents);
	return rc;
}

static __used __noendbr notrace void
hooked_dma_unmap_sg_attrs(struct device *dev, struct scatterlist *sg, int nents,
			  enum dma_data_direction dir, unsigned long attrs)
{
	dma_track_selftest_note(dev, HOOK_dma_unmap_sg_attrs);
	if (device_writes(dir) && counts_unmap(dev))
		sg_do(dev, UNPIN_STREAMING, sg, nents);
	static_call(original_dma_unmap_sg_attrs)(dev, sg, nents, dir, attrs);
}

/*
 * After the original, which copies from a bounce buffer: either order is right
 * for the bounce buffer, and the CPU's copy is in the dirty log anyway.
 */
static __used __noendbr notrace void
hooked___dma_sync_single_for_cpu(struct device *dev, dma_addr_t addr,
				 size_t size, enum dma_data_direction dir)
{
	static_call(original___dma_sync_single_for_cpu)(dev, addr, size, dir);
	dma_track_selftest_note(dev, HOOK___dma_sync_single_for_cpu);
	if (device_writes(dir) && counts_sync(dev))
		range_do(dev, SYNC, addr, size);
}

static __used __noendbr notrace void
hooked___dma_sync_sg_for_cpu(struct device *dev, struct scatterlist *sg,
			     int nelems, enum dma_data_direction dir)
{
	static_call(original___dma_sync_sg_for_cpu)(dev, sg, nelems, dir);
	dma_track_selftest_note(dev, HOOK___dma_sync_sg_for_cpu);
	if (device_writes(dir) && counts_sync(dev))
		sg_do(dev, SYNC, sg, nelems);
}

/* Whole pages are allocated, and a device may write past the size asked for. */
static __used __noendbr notrace void *
hooked_dma_alloc_attrs(struct device *dev, size_t size, dma_addr_t *dma_handle,
		       gfp_t flag, unsigned long attrs)
{
	void *cpu_addr;

	atomic_inc(&nr_sleepers);
	cpu_addr = static_call(original_dma_alloc_attrs)(dev, size, dma_handle,
							 flag, attrs);
	dma_track_selftest_note(dev, HOOK_dma_alloc_attrs);
	if (cpu_addr && counts_map(dev))
		range_do(dev, PIN_COHERENT, *dma_handle, PAGE_ALIGN(size));
	atomic_dec(&nr_sleepers);
	return cpu_addr;
}

static __used __noendbr notrace void
hooked_dma_free_attrs(struct device *dev, size_t size, void *cpu_addr,
		      dma_addr_t dma_handle, unsigned long attrs)
{
	atomic_inc(&nr_sleepers);
	dma_track_selftest_note(dev, HOOK_dma_free_attrs);
	/* Nothing is freed if there is no address. */
	if (cpu_addr && counts_unmap(dev))
		range_do(dev, UNPIN_COHERENT, dma_handle, PAGE_ALIGN(size));
	static_call(original_dma_free_attrs)(dev, size, cpu_addr, dma_handle,
					     attrs);
	atomic_dec(&nr_sleepers);
}

static __used __noendbr notrace struct page *
hooked_dma_alloc_pages(struct device *dev, size_t size, dma_addr_t *dma_handle,
		       enum dma_data_direction dir, gfp_t gfp)
{
	struct page *page;

	atomic_inc(&nr_sleepers);
	page = static_call(original_dma_alloc_pages)(dev, size, dma_handle, dir,
						     gfp);
	dma_track_selftest_note(dev, HOOK_dma_alloc_pages);
	if (device_writes(dir) && page && counts_map(dev))
		range_do(dev, PIN_COHERENT, *dma_handle, PAGE_ALIGN(size));
	atomic_dec(&nr_sleepers);
	return page;
}

static __used __noendbr notrace void
hooked_dma_free_pages(struct device *dev, size_t size, struct page *page,
		      dma_addr_t dma_handle, enum dma_data_direction dir)
{
	atomic_inc(&nr_sleepers);
	dma_track_selftest_note(dev, HOOK_dma_free_pages);
	if (device_writes(dir) && counts_unmap(dev))
		range_do(dev, UNPIN_COHERENT, dma_handle, PAGE_ALIGN(size));
	static_call(original_dma_free_pages)(dev, size, page, dma_handle, dir);
	atomic_dec(&nr_sleepers);
}

/* One range of DMA addresses, whatever is behind it. */
static __used __noendbr notrace struct sg_table *
hooked_dma_alloc_noncontiguous(struct device *dev, size_t size,
			       enum dma_data_direction dir, gfp_t gfp,
			       unsigned long attrs)
{
	struct sg_table *sgt;

	atomic_inc(&nr_sleepers);
	sgt = static_call(original_dma_alloc_noncontiguous)(dev, size, dir, gfp,
							    attrs);
	dma_track_selftest_note(dev, HOOK_dma_alloc_noncontiguous);
	if (device_writes(dir) && sgt && counts_map(dev))
		range_do(dev, PIN_COHERENT, sg_dma_address(sgt->sgl),
			 PAGE_ALIGN(size));
	atomic_dec(&nr_sleepers);
	return sgt;
}

static __used __noendbr notrace void
hooked_dma_free_noncontiguous(struct device *dev, size_t size,
			      struct sg_table *sgt, enum dma_data_direction dir)
{
	atomic_inc(&nr_sleepers);
	dma_track_selftest_note(dev, HOOK_dma_free_noncontiguous);
	if (device_writes(dir) && counts_unmap(dev))
		range_do(dev, UNPIN_COHERENT, sg_dma_address(sgt->sgl),
			 PAGE_ALIGN(size));
	static_call(original_dma_free_noncontiguous)(dev, size, sgt, dir);
	atomic_dec(&nr_sleepers);
}

static bool wants_syncs(void)
{
	return DMA_TRACK_UNMAPS_ARE_SKIPPED || READ_ONCE(sync_dirty);
}

/* Decides anew whether the device's syncs are skipped. */
static __used __noendbr notrace int
hooked_dma_set_mask(struct device *dev, u64 mask)
{
	int rc = static_call(original_dma_set_mask)(dev, mask);

	dma_track_selftest_note(dev, HOOK_dma_set_mask);
	if (wants_syncs() && dma_track_filter_has(dev))
		dma_reset_need_sync(dev);
	return rc;
}

/* --- Hooks on what maps behind the API -------------------------------------- */

/*
 * The function is untracked before the original is called, also if that fails:
 * until then the host may rely on it. All of them need an IOMMU in the guest.
 */

static bool is_above(struct device *dev, const void *user)
{
	const struct device *below = user;

	while (below && !dev_is_pci(below))
		below = below->parent;
	return below == dev;
}

static bool is_in_group(struct device *dev, const void *group)
{
	return dev->iommu_group == group;
}

static bool is_in_domain(struct device *dev, const void *domain)
{
	return iommu_get_domain_for_dev(dev) == domain;
}

static __used notrace int
hooked_iommu_attach_device(struct iommu_domain *domain, struct device *dev)
{
	int rc;

	atomic_inc(&nr_sleepers);
	dma_track_devices_behind_api(is_above, dev);
	rc = static_call(original_iommu_attach_device)(domain, dev);
	atomic_dec(&nr_sleepers);
	return rc;
}

static __used notrace int
hooked_iommu_attach_group(struct iommu_domain *domain,
			  struct iommu_group *group)
{
	int rc;

	atomic_inc(&nr_sleepers);
	dma_track_devices_behind_api(is_in_group, group);
	rc = static_call(original_iommu_attach_group)(domain, group);
	atomic_dec(&nr_sleepers);
	return rc;
}

#ifdef DMA_TRACK_ATTACH_PASID
static __used notrace int
hooked_iommu_attach_device_pasid(struct iommu_domain *domain,
				 struct device *dev, ioasid_t pasid,
				 struct iommu_attach_handle *handle)
{
	int rc;

	atomic_inc(&nr_sleepers);
	dma_track_devices_behind_api(is_above, dev);
	rc = static_call(original_iommu_attach_device_pasid)(domain, dev, pasid,
							     handle);
	atomic_dec(&nr_sleepers);
	return rc;
}
#endif

#ifdef CONFIG_IOMMU_SVA
static __used notrace struct iommu_sva *
hooked_iommu_sva_bind_device DMA_TRACK_SVA_PARAMS
{
	struct iommu_sva *handle;

	atomic_inc(&nr_sleepers);
	dma_track_devices_behind_api(is_above, dev);
	handle = static_call(original_iommu_sva_bind_device) DMA_TRACK_SVA_ARGS;
	atomic_dec(&nr_sleepers);
	return handle;
}
#endif

/*
 * The DMA API itself maps so, and is part of the kernel's image; drivers that
 * do are modules.
 */
static __always_inline void note_iommu_map(struct iommu_domain *domain,
					   void *caller)
{
	unsigned long addr = (unsigned long)caller;

	if (unlikely(addr >= MODULES_VADDR && addr < MODULES_END))
		dma_track_devices_behind_api(is_in_domain, domain);
}

static __used notrace int
hooked_iommu_map DMA_TRACK_IOMMU_MAP_PARAMS
{
	int rc;

	atomic_inc(&nr_sleepers);
	note_iommu_map(domain, __builtin_return_address(0));
	rc = static_call(original_iommu_map) DMA_TRACK_IOMMU_MAP_ARGS;
	atomic_dec(&nr_sleepers);
	return rc;
}

#ifdef DMA_TRACK_IOMMU_MAP_ATOMIC
static __used notrace int
hooked_iommu_map_atomic(struct iommu_domain *domain, unsigned long iova,
			phys_addr_t phys, size_t size, int prot)
{
	note_iommu_map(domain, __builtin_return_address(0));
	return static_call(original_iommu_map_atomic)(domain, iova, phys, size,
						      prot);
}
#endif

static __used notrace ssize_t
hooked_iommu_map_sg DMA_TRACK_IOMMU_MAP_SG_PARAMS
{
	ssize_t mapped;

	atomic_inc(&nr_sleepers);
	note_iommu_map(domain, __builtin_return_address(0));
	mapped = static_call(original_iommu_map_sg) DMA_TRACK_IOMMU_MAP_SG_ARGS;
	atomic_dec(&nr_sleepers);
	return mapped;
}

/* --- A hook on what brings memory ------------------------------------------- */

#ifdef CONFIG_ZONE_DEVICE
/* Before the original: when it returns, the memory may be given to devices. */
static __used notrace void *hooked_memremap_pages(struct dev_pagemap *pgmap,
						  int nid)
{
	void *addr;

	atomic_inc(&nr_sleepers);
	dma_track_sections_memremap(pgmap);
	addr = static_call(original_memremap_pages)(pgmap, nid);
	atomic_dec(&nr_sleepers);
	return addr;
}
#endif

/* --- Putting them on ------------------------------------------------------ */

struct hook {
	const char *name;
	void *function;
	void *enter;
	/* Makes the original be called at this address. */
	void (*set_original)(unsigned long addr);
	/* Where ftrace has its call. */
	unsigned long site;
	struct ftrace_ops ops;
};

/*
 * The trampoline is aligned, because newer kernels read a flag in the address'
 * lowest bit. The eight bytes are ftrace's return address, of which the
 * unwinder is told.
 */
#define UNWIND_TWO_ADDRESSES \
	DMA_TRACK_UNWIND(UNWIND_HINT_TYPE_CALL, 16)
#define UNWIND_AS_CALLED \
	DMA_TRACK_UNWIND(UNWIND_HINT_TYPE_FUNC, 8)

#define DEFINE_HOOK(fn)							\
asm(".pushsection .text, \"ax\", @progbits\n"			\
	"	.balign	16\n"							\
	"	.type	enter_" #fn ", @function\n"				\
	"enter_" #fn ":\n"							\
	UNWIND_TWO_ADDRESSES						\
	"	" ANNOTATE_NOENDBR						\
	"	addq	$8, %rsp\n"						\
	UNWIND_AS_CALLED							\
	"	jmp	hooked_" #fn "\n"					\
	"	.size	enter_" #fn ", . - enter_" #fn "\n"			\
	".popsection\n");							\
									\
extern typeof(fn) enter_##fn;						\
									\
static void set_original_##fn(unsigned long addr)			\
{									\
	static_call_update(original_##fn, (typeof(fn) *)addr);		\
}

FOR_EACH_HOOK(DEFINE_HOOK)

#define HOOK(fn)							\
	[HOOK_##fn] = {							\
		.name = __stringify(fn),				\
		.function = fn,						\
		.enter = (void *)enter_##fn,				\
		.set_original = set_original_##fn,			\
	},

static struct hook hooks[NR_HOOKS] = {
	FOR_EACH_HOOK(HOOK)
};

/* ftrace's call, or the nop that holds its place. */
#define SITE_SIZE	5
#define SITE_CALL	0xe8

/*
 * Registering direct calls while ftrace is disabled succeeds and does nothing,
 * and disabling it later turns them off silently. Both are refused while a
 * PERMANENT tracer of the plain kind exists. It traces a function of our own
 * that nobody calls: on a hooked function it would be in the way.
 */
static noinline void traced_by_sentinel(void)
{
	barrier();
}

static notrace void sentinel_called(unsigned long ip, unsigned long parent_ip,
				    struct ftrace_ops *ops,
				    struct ftrace_regs *fregs)
{
}

static struct ftrace_ops sentinel;

static int sentinel_install(void)
{
	int rc;

	/* Used once before, they may point to freed filters. */
	memset(&sentinel, 0, sizeof(sentinel));
	sentinel.func = sentinel_called;
	sentinel.flags = FTRACE_OPS_FL_PERMANENT;

	rc = ftrace_set_filter_ip(&sentinel, (unsigned long)traced_by_sentinel,
				  0, 0);
	if (rc) {
		pr_err("own function cannot be traced: %d\n", rc);
		return rc;
	}

	rc = register_ftrace_function(&sentinel);
	if (rc) {
		if (rc == -EBUSY)
			pr_err("ftrace is disabled: set kernel.ftrace_enabled to 1\n");
		else
			pr_err("ftrace refuses: %d\n", rc);
		ftrace_free_filter(&sentinel);
	}
	return rc;
}

static void sentinel_remove(void)
{
	unregister_ftrace_function(&sentinel);
	ftrace_free_filter(&sentinel);
}

/* At the function's entry, or behind the landing pad of indirect branches. */
static int hook_find_site(struct hook *hook)
{
	static const u8 nop5[SITE_SIZE] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };
	u8 *code = hook->function;
	int i;

	for (i = 0; i < 2; i++, code += sizeof(u32)) {
		if (!memcmp(code, nop5, sizeof(nop5)) || *code == SITE_CALL) {
			hook->site = (unsigned long)code;
			return 0;
		}
	}
	pr_err("%s does not begin as expected: %*ph\n", hook->name, 12,
	       hook->function);
	return -EOPNOTSUPP;
}

static bool hook_is_intact(const struct hook *hook)
{
	const u8 *code = (const u8 *)hook->site;
	s32 offset;

	memcpy(&offset, code + 1, sizeof(offset));
	return *code == SITE_CALL &&
	       hook->site + SITE_SIZE + offset == (unsigned long)hook->enter;
}

static int hook_install(struct hook *hook)
{
	int rc;

	rc = hook_find_site(hook);
	if (rc)
		return rc;

	memset(&hook->ops, 0, sizeof(hook->ops));
	rc = ftrace_set_filter_ip(&hook->ops, (unsigned long)hook->function, 0,
				  0);
	if (rc) {
		pr_err("%s cannot be traced: %d\n", hook->name, rc);
		return rc;
	}

	hook->set_original(hook->site + SITE_SIZE);
	rc = dma_track_register_direct(&hook->ops, hook->enter);
	if (rc) {
		if (rc == -EBUSY)
			pr_err("%s has another direct hook, e.g. BPF fentry or a live patch\n",
			       hook->name);
		else
			pr_err("%s cannot be hooked: %d\n", hook->name, rc);
		ftrace_free_filter(&hook->ops);
		return rc;
	}
	/* Not before: registering overwrites flags. */
	hook->ops.flags |= FTRACE_OPS_FL_PERMANENT;
	return 0;
}

static void hook_remove(struct hook *hook)
{
	dma_track_unregister_direct(&hook->ops, hook->enter);
}

/* --- What others see ------------------------------------------------------ */

bool dma_track_hooks_intact(void)
{
	int i;

	for (i = 0; i < NR_HOOKS; i++)
		if (!hook_is_intact(&hooks[i])) {
			pr_warn_ratelimited("%s is traced by somebody else: mappings may be missed\n",
					    hooks[i].name);
			return false;
		}
	return true;
}

void dma_track_hooks_set_sync_dirty(bool on)
{
	WRITE_ONCE(sync_dirty, on);
}

/* An IOMMU, an offset or a bit for encryption: then it differs. */
void dma_track_hooks_learn_addresses(struct device *dev)
{
	dma_track_filter_set_plain(dev, !use_dma_iommu(dev) &&
				   !get_dma_ops(dev) && !dev->dma_range_map &&
				   !phys_to_dma(dev, 0));
}

void dma_track_hooks_prepare_device(struct device *dev)
{
	dma_track_hooks_learn_addresses(dev);
	if (wants_syncs())
		dma_reset_need_sync(dev);
}

void dma_track_hooks_read_counts(u64 *maps, u64 *unmaps)
{
	int cpu;

	*maps = 0;
	*unmaps = 0;
	for_each_possible_cpu(cpu) {
		*maps += READ_ONCE(per_cpu(hook_counts.maps, cpu));
		*unmaps += READ_ONCE(per_cpu(hook_counts.unmaps, cpu));
	}
}

static void remove_first(int nr)
{
	while (nr--)
		hook_remove(&hooks[nr]);
	sentinel_remove();

	/*
	 * No task enters a hook any more. Those that were preempted in one have
	 * left; those that sleep in an original come back to us, and are gone
	 * when they have passed a quiescent state after that.
	 */
	while (atomic_read(&nr_sleepers))
		msleep(20);
	synchronize_rcu_tasks();
}

int dma_track_hooks_install(void)
{
	int i, rc;

	rc = sentinel_install();
	if (rc)
		return rc;

	for (i = 0; i < NR_HOOKS; i++) {
		rc = hook_install(&hooks[i]);
		if (rc)
			goto out_remove;
	}

	rc = dma_track_selftest();
	if (!rc && !dma_track_hooks_intact())
		rc = -EIO;
	if (rc)
		goto out_remove;
	return 0;

out_remove:
	remove_first(i);
	return rc;
}

void dma_track_hooks_remove(void)
{
	remove_first(NR_HOOKS);
}
