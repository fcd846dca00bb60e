/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a kernel must have for the module to be built for it
 *
 * Included by the compiler before everything else, or it would complain of a
 * header that is missing there first, and nobody would be told why.
 */
#ifndef DMA_TRACK_REQUIRES_H
#define DMA_TRACK_REQUIRES_H

#include <linux/version.h>

#ifndef CONFIG_X86_64
#error "dma_track knows how to hook functions on x86-64 only"
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "dma_track supports Linux 6.1 and newer"
#endif
#ifndef CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS
#error "dma_track needs CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"
#endif
#if !IS_ENABLED(CONFIG_PCI) || !IS_ENABLED(CONFIG_VIRTIO)
#error "dma_track needs CONFIG_PCI and CONFIG_VIRTIO"
#endif
#ifndef CONFIG_IOMMU_DMA
#error "dma_track needs CONFIG_IOMMU_DMA"
#endif
#ifndef CONFIG_NEED_DMA_MAP_STATE
#error "without CONFIG_NEED_DMA_MAP_STATE drivers unmap without an address"
#endif
#ifdef CONFIG_DMA_DECLARE_COHERENT
#error "dma_alloc_*() may return a device's own memory, taken for RAM"
#endif

#endif /* DMA_TRACK_REQUIRES_H */
