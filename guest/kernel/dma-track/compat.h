/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between kernel releases. The only place that asks for a version,
 * but for requires.h, which asks whether it is old enough to be refused.
 *
 * Written for 6.1, 6.12 and 7.2; see kernels.txt in tests/guest. The self-test
 * at load finds out whether a release in between is like one of them.
 */
#ifndef DMA_TRACK_COMPAT_H
#define DMA_TRACK_COMPAT_H

#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/ftrace.h>
#include <linux/iommu.h>
#include <linux/objtool.h>
#include <linux/scatterlist.h>
#include <linux/version.h>

/*
 * struct page became a physical address in the functions below. The old ones
 * are jumps to them, and are traced no more.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
#define DMA_TRACK_MAP_PHYS
#endif

/* Drivers may lay out a range of I/O addresses piece by piece. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#define DMA_TRACK_IOVA
#endif

/* There was a function of its own for callers that must not sleep. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define DMA_TRACK_IOMMU_MAP_ATOMIC
#endif

/* A part of what a device does may have an address space of its own. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
#define DMA_TRACK_ATTACH_PASID
#endif

/*
 * Where nothing has to be synchronised, drivers leave out syncs since 6.10. Since
 * 6.16 they leave out unmaps as well, by which a frame would stay pinned.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#define DMA_TRACK_UNMAPS_ARE_SKIPPED	true
#else
#define DMA_TRACK_UNMAPS_ARE_SKIPPED	false
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define DMA_TRACK_SYNCS_ARE_SKIPPED	true
#else
#define DMA_TRACK_SYNCS_ARE_SKIPPED	false
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#include <linux/iommu-dma.h>
#else
/* The functions themselves, not inline wrappers around them. */
#define __dma_sync_single_for_cpu	dma_sync_single_for_cpu
#define __dma_sync_sg_for_cpu		dma_sync_sg_for_cpu

static inline void dma_reset_need_sync(struct device *dev)
{
}

static inline bool dma_dev_need_sync(const struct device *dev)
{
	return true;
}

static inline bool use_dma_iommu(struct device *dev)
{
	struct iommu_domain *domain;

	/* Rare, and the domain is not found for nothing. */
	if (!get_dma_ops(dev))
		return false;
	domain = iommu_get_domain_for_dev(dev);
	return domain && iommu_is_dma_domain(domain);
}
#endif

/*
 * Parameters of the IOMMU's functions, and the same as arguments: whether mapping
 * may sleep became one, and a pointer that nobody used went away.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#define DMA_TRACK_IOMMU_MAP_PARAMS					\
	(struct iommu_domain *domain, unsigned long iova,		\
	 phys_addr_t phys, size_t size, int prot, gfp_t gfp)
#define DMA_TRACK_IOMMU_MAP_ARGS	(domain, iova, phys, size, prot, gfp)
#define DMA_TRACK_IOMMU_MAP_SG_PARAMS					\
	(struct iommu_domain *domain, unsigned long iova,		\
	 struct scatterlist *sg, unsigned int nents, int prot, gfp_t gfp)
#define DMA_TRACK_IOMMU_MAP_SG_ARGS	(domain, iova, sg, nents, prot, gfp)
#else
#define DMA_TRACK_IOMMU_MAP_PARAMS					\
	(struct iommu_domain *domain, unsigned long iova,		\
	 phys_addr_t phys, size_t size, int prot)
#define DMA_TRACK_IOMMU_MAP_ARGS	(domain, iova, phys, size, prot)
#define DMA_TRACK_IOMMU_MAP_SG_PARAMS					\
	(struct iommu_domain *domain, unsigned long iova,		\
	 struct scatterlist *sg, unsigned int nents, int prot)
#define DMA_TRACK_IOMMU_MAP_SG_ARGS	(domain, iova, sg, nents, prot)
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#define DMA_TRACK_SVA_PARAMS	(struct device *dev, struct mm_struct *mm)
#define DMA_TRACK_SVA_ARGS	(dev, mm)
#else
#define DMA_TRACK_SVA_PARAMS						\
	(struct device *dev, struct mm_struct *mm, void *drvdata)
#define DMA_TRACK_SVA_ARGS	(dev, mm, drvdata)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define sg_dma_is_bus_address(sg)	sg_is_dma_bus_address(sg)
#endif

/* A second way to say that one has the answer already. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
#define dma_track_get_pagemap(pfn)	get_dev_pagemap(pfn)
#else
#define dma_track_get_pagemap(pfn)	get_dev_pagemap(pfn, NULL)
#endif

/* Namespaces of symbols became strings. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define DMA_TRACK_TEST_NS	"DMA_TRACK_TEST"
#else
#define DMA_TRACK_TEST_NS	DMA_TRACK_TEST
#endif

/* For a register whose value plus @offset is where the caller's frame is. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define DMA_TRACK_UNWIND(type, offset) \
	UNWIND_HINT(ORC_REG_SP, offset, type, 0)
#else
#define DMA_TRACK_UNWIND(type, offset) \
	UNWIND_HINT(type, ORC_REG_SP, offset, 0)
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
static inline int dma_track_register_direct(struct ftrace_ops *ops, void *enter)
{
	return register_ftrace_direct_multi(ops, (unsigned long)enter);
}

static inline void dma_track_unregister_direct(struct ftrace_ops *ops,
					       void *enter)
{
	unregister_ftrace_direct_multi(ops, (unsigned long)enter);
	ftrace_free_filter(ops);
}
#else
static inline int dma_track_register_direct(struct ftrace_ops *ops, void *enter)
{
	return register_ftrace_direct(ops, (unsigned long)enter);
}

static inline void dma_track_unregister_direct(struct ftrace_ops *ops,
					       void *enter)
{
	unregister_ftrace_direct(ops, (unsigned long)enter, true);
}
#endif

#endif /* DMA_TRACK_COMPAT_H */
