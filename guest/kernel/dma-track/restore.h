/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Restore: bring a driver back after its function was reset or replaced
 */
#ifndef DMA_TRACK_RESTORE_H
#define DMA_TRACK_RESTORE_H

#include <linux/types.h>

struct dma_track_function;

/* What the tracepoint dma_track_restore tells of. */
enum dma_track_restore_step {
	/* Its generation has changed. */
	DMA_TRACK_RESTORE_BEGINS,
	/* Its driver uses it no more. */
	DMA_TRACK_RESTORE_STOPPED,
	/* The host has answered to UNFENCE. */
	DMA_TRACK_RESTORE_UNFENCED,
	/* Its driver works again, or never will. */
	DMA_TRACK_RESTORE_ENDS,
};

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

/**
 * dma_track_restore_unfence - have the host lift the fence of a function
 * @fn: the function; its driver is stopped, and its device lock is held
 * @generation: filled in with the generation that it was lifted for, or read
 *	last
 *
 * May sleep, for minutes if the host does not answer. Return: 0, or an error as
 * of dma_track_host_unfence().
 */
int dma_track_restore_unfence(struct dma_track_function *fn, u32 *generation);

/**
 * dma_track_restore_is_to_be_repeated - is this a host that cannot now, and not
 *	one that will not?
 * @rc: what dma_track_restore_unfence() has returned
 */
bool dma_track_restore_is_to_be_repeated(int rc);

/* For tests: take @rc for the host's answer to UNFENCE, until called with 0. */
void dma_track_restore_pretend(int rc);

#endif /* DMA_TRACK_RESTORE_H */
