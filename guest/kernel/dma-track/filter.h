/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The filter: whose mappings are counted
 */
#ifndef DMA_TRACK_FILTER_H
#define DMA_TRACK_FILTER_H

#include <linux/types.h>

struct device;

/**
 * dma_track_filter_add - count the mappings of a device from now on
 * @dev: the device. It has no mappings now: an unmap of one that was not
 *	counted would end another one's pin.
 *
 * Devices below @dev count as @dev, unless there is a PCI device in between.
 * May sleep. Return: 0, also if it is counted already, or -ENOMEM.
 */
int dma_track_filter_add(struct device *dev);

/**
 * dma_track_filter_remove - do not count the mappings of a device any more
 * @dev: the device, which is going away. What is left mapped stays pinned.
 *
 * Does nothing if @dev is not in the filter. May sleep.
 */
void dma_track_filter_remove(struct device *dev);

/**
 * dma_track_filter_has - are the mappings of this device counted?
 * @dev: any device
 *
 * Runs in every call of the DMA API, in any context.
 */
bool dma_track_filter_has(struct device *dev);

#endif /* DMA_TRACK_FILTER_H */
