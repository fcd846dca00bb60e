/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a frame is dirtied
 */
#ifndef DMA_TRACK_DIRTY_H
#define DMA_TRACK_DIRTY_H

#include <linux/types.h>

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

#endif /* DMA_TRACK_DIRTY_H */
