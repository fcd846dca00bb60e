/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sections: where there is RAM
 */
#ifndef DMA_TRACK_SECTIONS_H
#define DMA_TRACK_SECTIONS_H

struct dev_pagemap;
struct dma_track_table;

/**
 * dma_track_sections_start - give the table a section for all RAM
 * @table: the table
 *
 * From now on memory is brought online only when the host, if there is one, has
 * accepted its sections. May sleep. Return: 0 or a negative errno.
 */
int dma_track_sections_start(struct dma_track_table *table);

/**
 * dma_track_sections_memremap - memremap_pages() is about to be called
 * @pgmap: its argument
 *
 * Gives the table sections for it, if it is RAM of the guest, and publishes
 * them. May sleep. Does not fail: see the head of sections.c.
 */
void dma_track_sections_memremap(const struct dev_pagemap *pgmap);

/**
 * dma_track_sections_add_mapped - sections for what memremap_pages() did before
 *
 * Called when it is hooked. May sleep. Return: 0 or a negative errno.
 */
int dma_track_sections_add_mapped(void);

/* Stop following memory hotplug. May sleep. */
void dma_track_sections_stop(void);

#endif /* DMA_TRACK_SECTIONS_H */
