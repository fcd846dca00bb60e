/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which functions are hooked on this kernel, and a number for each
 */
#ifndef DMA_TRACK_HOOK_LIST_H
#define DMA_TRACK_HOOK_LIST_H

#include "compat.h"

#ifdef DMA_TRACK_MAP_PHYS
#define FOR_EACH_PAGE_HOOK(DO)						\
	DO(dma_map_phys)						\
	DO(dma_unmap_phys)
#else
#define FOR_EACH_PAGE_HOOK(DO)						\
	DO(dma_map_page_attrs)						\
	DO(dma_unmap_page_attrs)
#endif
#ifdef DMA_TRACK_IOVA
#define FOR_EACH_IOVA_HOOK(DO)						\
	DO(dma_iova_link)						\
	DO(dma_iova_unlink)						\
	DO(dma_iova_destroy)
#else
#define FOR_EACH_IOVA_HOOK(DO)
#endif
#ifdef DMA_TRACK_IOMMU_MAP_ATOMIC
#define FOR_EACH_ATOMIC_HOOK(DO)					\
	DO(iommu_map_atomic)
#else
#define FOR_EACH_ATOMIC_HOOK(DO)
#endif
#ifdef DMA_TRACK_ATTACH_PASID
#define FOR_EACH_PASID_HOOK(DO)						\
	DO(iommu_attach_device_pasid)
#else
#define FOR_EACH_PASID_HOOK(DO)
#endif
#ifdef CONFIG_IOMMU_SVA
#define FOR_EACH_SVA_HOOK(DO)						\
	DO(iommu_sva_bind_device)
#else
#define FOR_EACH_SVA_HOOK(DO)
#endif
/* By which memory is given to a device behind the DMA API. */
#define FOR_EACH_BEHIND_HOOK(DO)					\
	DO(iommu_attach_device)						\
	DO(iommu_attach_group)						\
	FOR_EACH_PASID_HOOK(DO)						\
	FOR_EACH_SVA_HOOK(DO)						\
	FOR_EACH_ATOMIC_HOOK(DO)					\
	DO(iommu_map)							\
	DO(iommu_map_sg)
/* By which memory comes that is never brought online. */
#ifdef CONFIG_ZONE_DEVICE
#define FOR_EACH_MEMORY_HOOK(DO)					\
	DO(memremap_pages)
#else
#define FOR_EACH_MEMORY_HOOK(DO)
#endif
/*
 * In the order in which they are put on. Each that is taken off again costs a
 * grace period: first are those that others may hold.
 */
#define FOR_EACH_HOOK(DO)						\
	FOR_EACH_PAGE_HOOK(DO)						\
	DO(dma_map_sg_attrs)						\
	DO(dma_map_sgtable)						\
	DO(dma_unmap_sg_attrs)						\
	DO(dma_alloc_attrs)						\
	DO(dma_free_attrs)						\
	DO(dma_alloc_pages)						\
	DO(dma_free_pages)						\
	DO(dma_alloc_noncontiguous)					\
	DO(dma_free_noncontiguous)					\
	DO(__dma_sync_single_for_cpu)					\
	DO(__dma_sync_sg_for_cpu)					\
	DO(dma_set_mask)						\
	FOR_EACH_IOVA_HOOK(DO)						\
	FOR_EACH_BEHIND_HOOK(DO)					\
	FOR_EACH_MEMORY_HOOK(DO)

#define NUMBER(fn) HOOK_##fn,
enum hook_nr {
	FOR_EACH_HOOK(NUMBER)
	NR_HOOKS,
};

#undef NUMBER

#endif /* DMA_TRACK_HOOK_LIST_H */
