/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hooks: how the DMA API is tapped
 */
#ifndef DMA_TRACK_HOOKS_H
#define DMA_TRACK_HOOKS_H

#include <linux/types.h>

/**
 * dma_track_hooks_install - put hooks on the DMA API and test each
 *
 * What the devices of the filter map is kept in dma_track_table. May sleep.
 *
 * Return: 0; -EBUSY if ftrace is disabled or one of the functions belongs to
 * another tracer already; -EOPNOTSUPP if a function does not look as
 * expected; -EIO if a hook did not see exactly the one call of the self-test.
 * The function concerned is named in the log, and nothing is hooked.
 */
int dma_track_hooks_install(void);

/**
 * dma_track_hooks_remove - take the hooks away
 *
 * Waits until no CPU and no sleeping task is in a hook any more.
 */
void dma_track_hooks_remove(void);

/**
 * dma_track_hooks_intact - does every hooked function still call us directly?
 *
 * A second tracer on a function makes the call go through a list walker, which
 * may leave our hook out. Names the function in the log. Any context.
 */
bool dma_track_hooks_intact(void);

/**
 * dma_track_hooks_set_sync_dirty - whether dma_sync_*_for_cpu() dirties frames
 * @on: the host wants it
 *
 * While on, devices of the filter do not skip their syncs. Takes effect for a
 * device when it is bound to a driver.
 */
void dma_track_hooks_set_sync_dirty(bool on);

struct device;

/**
 * dma_track_hooks_learn_addresses - see how a device's DMA addresses translate
 * @dev: a device of the filter, not bound to a driver or just being bound: from
 *	then on it does not change
 *
 * Until this is called they are taken to need a translation. May sleep.
 */
void dma_track_hooks_learn_addresses(struct device *dev);

/**
 * dma_track_hooks_prepare_device - learn a device's addresses, and have its
 *	syncs called if wanted
 * @dev: a device that is being bound to a driver; its lock is held
 */
void dma_track_hooks_prepare_device(struct device *dev);

/**
 * dma_track_hooks_read_counts - calls that concerned devices of the filter
 * @maps: memory handed to a device to write
 * @unmaps: taken back
 */
void dma_track_hooks_read_counts(u64 *maps, u64 *unmaps);

#endif /* DMA_TRACK_HOOKS_H */
