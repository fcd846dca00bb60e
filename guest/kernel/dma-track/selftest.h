/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The self-test of the hooks
 */
#ifndef DMA_TRACK_SELFTEST_H
#define DMA_TRACK_SELFTEST_H

#include <linux/compiler.h>

#include "hook_list.h"

struct device;

/* The device of the self-test while it runs, and the calls the hooks saw. */
extern struct device *dma_track_selftest_dev;
extern unsigned int dma_track_selftest_calls[NR_HOOKS];

/**
 * dma_track_selftest_note - a hook was called
 * @dev: for which device
 * @nr: which hook
 *
 * Only calls for the device of the self-test count. Any context.
 */
static __always_inline void dma_track_selftest_note(struct device *dev,
						    enum hook_nr nr)
{
	if (unlikely(dev == READ_ONCE(dma_track_selftest_dev)))
		dma_track_selftest_calls[nr]++;
}

/**
 * dma_track_selftest - see that each hook sees its function's calls
 *
 * All hooks are on. Each function that can be called without an IOMMU is called
 * once for a device made for it, and must be seen exactly once; what is mapped
 * must be pinned, in the right frame, until it is unmapped. May sleep.
 *
 * Return: 0; -ENOMEM; -EIO, with the function's name in the log
 */
int dma_track_selftest(void);

#endif /* DMA_TRACK_SELFTEST_H */
