/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What an operator can see, and what tests can
 */
#ifndef DMA_TRACK_INSPECT_H
#define DMA_TRACK_INSPECT_H

#include <linux/types.h>

#include "table.h"

struct device;
struct virtio_dma_track_status;

/**
 * dma_track_inspect_start - show files in debugfs' folder dma_track
 * @table: the table
 * @status: the status page
 *
 * May sleep. Does not fail: nothing depends on the files.
 */
void dma_track_inspect_start(struct dma_track_table *table,
			     struct virtio_dma_track_status *status);

/* Take the files away. May sleep. */
void dma_track_inspect_stop(void);

/*
 * For tests/guest/module, in the symbol namespace DMA_TRACK_TEST: a pretend
 * device is no PCI function, a plane is nowhere to be seen from outside, and
 * without a host nobody opens the gate.
 */

/**
 * struct dma_track_test_counts - all counters
 * @table: the table's
 * @maps: calls that handed memory to a counted device to write
 * @unmaps: calls that took it back
 * @lost: the lost word, VIRTIO_DMA_TRACK_LOST_*
 */
struct dma_track_test_counts {
	struct dma_track_table_stats table;
	u64 maps;
	u64 unmaps;
	u32 lost;
};

/* Count a device's mappings. May sleep. Return: 0 or -ENOMEM. */
int dma_track_test_add_device(struct device *dev);
/* Do not count them any more. May sleep. */
void dma_track_test_remove_device(struct device *dev);
/* See dma_track_table_read_frame(). */
bool dma_track_test_read_frame(u64 gfn, struct dma_track_frame *frame);
void dma_track_test_read_counts(struct dma_track_test_counts *counts);
/* Open or close the gate, for syncs too. Return: 0; -EBUSY with a host. */
int dma_track_test_set_logging(bool logging);
/* See dma_track_hooks_intact(). */
bool dma_track_test_hooks_intact(void);

struct pci_dev;

/*
 * Forget that a function was restored, as if the host had replaced it and the
 * notice of it were still to come. May sleep. Return: 0, or -ENODEV if it is not
 * assigned.
 */
int dma_track_test_replace(struct pci_dev *pdev);
/* Take @rc for the host's answer to UNFENCE, until called with 0. */
void dma_track_test_pretend_unfence(int rc);
/* Take @rc for its answer when memory is added, until called with 0. */
void dma_track_test_pretend_publish(int rc);

#endif /* DMA_TRACK_INSPECT_H */
