/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The filter: whose mappings are counted
 */
#ifndef DMA_TRACK_FILTER_H
#define DMA_TRACK_FILTER_H

#include <linux/compiler.h>
#include <linux/device.h>
#include <linux/pci.h>
#include <linux/types.h>

/*
 * A slot holds NULL if no counted device has its number, the device if there is
 * one only and that is plain, and DMA_TRACK_FILTER_ASK otherwise. PCI devices
 * are a page apart, others less; so a slot stands for a KiB of addresses.
 */
#define DMA_TRACK_FILTER_SLOTS	1024
#define DMA_TRACK_FILTER_ASK	((struct device *)1)

/* Of filter.c. */
extern struct device *dma_track_filter_slots[DMA_TRACK_FILTER_SLOTS];

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
 * dma_track_filter_set_plain - say how a device's DMA addresses are translated
 * @dev: a device of the filter
 * @plain: they are physical addresses, until this is called again. Not so
 *	unless said.
 *
 * Does nothing if @dev is not in the filter. May sleep.
 */
void dma_track_filter_set_plain(struct device *dev, bool plain);

/**
 * dma_track_filter_begin_tracing - send all mappings the long way
 *
 * The short way of plain devices has no tracepoints: they would cost each
 * mapping an instruction also while they are off. May sleep. Return: 0.
 */
int dma_track_filter_begin_tracing(void);
/* Undoes one dma_track_filter_begin_tracing(). */
void dma_track_filter_end_tracing(void);

/* Where there is an answer for a device. Any context. */
static __always_inline struct device **dma_track_filter_slot(struct device *dev)
{
	unsigned long nr = (unsigned long)dev >> 10;

	return &dma_track_filter_slots[nr % DMA_TRACK_FILTER_SLOTS];
}

/**
 * dma_track_filter_lacks - are mappings of a device certainly not counted?
 * @dev: any device
 * @found: what its slot holds
 *
 * A device below a PCI device may count as that one, whatever the slot holds.
 */
static __always_inline bool
dma_track_filter_lacks(struct device *dev, struct device *found)
{
	return likely(!found) && likely(dev_is_pci(dev));
}

/* Looks for the device, and those above it. Any context. */
bool dma_track_filter_ask(struct device *dev);

/**
 * dma_track_filter_has - are the mappings of this device counted?
 * @dev: any device
 *
 * Runs in every call of the DMA API, in any context.
 */
static __always_inline bool dma_track_filter_has(struct device *dev)
{
	struct device *found = READ_ONCE(*dma_track_filter_slot(dev));

	if (dma_track_filter_lacks(dev, found))
		return false;
	return found == dev || dma_track_filter_ask(dev);
}

#endif /* DMA_TRACK_FILTER_H */
