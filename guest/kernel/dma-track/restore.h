/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Restore: bring a driver back after its function was reset or replaced
 */
#ifndef DMA_TRACK_RESTORE_H
#define DMA_TRACK_RESTORE_H

struct dma_track_function;

/* Before any function. May sleep. Return: 0 or -ENOMEM. */
int dma_track_restore_start(void);

/* After the last function was forgotten. Waits for restores that run. */
void dma_track_restore_stop(void);

/* Makes a new function ready for dma_track_restore_if_needed(). */
void dma_track_restore_init(struct dma_track_function *fn);

/**
 * dma_track_restore_if_needed - restore the function if its generation changed
 * @fn: the function; the caller holds a reference
 *
 * Reads the generation, which may sleep; the rest is done later.
 */
void dma_track_restore_if_needed(struct dma_track_function *fn);

#endif /* DMA_TRACK_RESTORE_H */
