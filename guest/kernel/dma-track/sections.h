/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sections: where there is RAM
 */
#ifndef DMA_TRACK_SECTIONS_H
#define DMA_TRACK_SECTIONS_H

struct dma_track_table;

/**
 * dma_track_sections_start - give the table a section for all RAM
 * @table: the table
 *
 * From now on memory is brought online only when the host, if there is one, has
 * accepted its sections. May sleep. Return: 0 or a negative errno.
 */
int dma_track_sections_start(struct dma_track_table *table);

/* Stop following memory hotplug. May sleep. */
void dma_track_sections_stop(void);

#endif /* DMA_TRACK_SECTIONS_H */
