/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The devices: which PCI functions are assigned, which of them are tracked, and
 * why not
 */
#ifndef DMA_TRACK_DEVICES_H
#define DMA_TRACK_DEVICES_H

#include <linux/kref.h>
#include <linux/list.h>
#include <linux/pci.h>
#include <linux/types.h>
#include <linux/virtio_dma_track.h>
#include <linux/workqueue.h>

/* What became of the last restore. */
enum dma_track_restored {
	/* The function was never reset under its driver. */
	DMA_TRACK_RESTORED_NEVER,
	/* Its driver is being stopped or started. */
	DMA_TRACK_RESTORED_RUNNING,
	/* Its driver works again. */
	DMA_TRACK_RESTORED_OK,
	/* Its driver could not be started. */
	DMA_TRACK_RESTORED_FAILED,
	/* It had no driver; only the fence was lifted. */
	DMA_TRACK_RESTORED_NO_DRIVER,
};

/**
 * struct dma_track_function - an assigned PCI function
 * @node: in the list of functions; changed under the list's mutex, read under
 *	it or RCU
 * @kref: one for the list, one for a restore that is queued or runs
 * @pdev: the function; referenced
 * @sbdf: its name in the contract
 * @dvsec: offset of its capability; 0 if the host names it instead. Written
 *	under the function's device lock, when it is found to be assigned
 * @index: its entry in the status page; -1 if there was none left, or it is
 *	forgotten. Written under the list's mutex and the entries' lock
 * @forgotten: it is in the list no more, and nothing may be said of it; under
 *	the list's mutex
 * @state: VIRTIO_DMA_TRACK_FUNCTION_*; written under the entries' lock, and the
 *	function's device lock unless it becomes UNTRACKED
 * @reason: VIRTIO_DMA_TRACK_REASON_*; likewise
 * @behind_api: its driver was seen to map behind the DMA API; under the
 *	entries' lock
 * @counted: its mappings are counted; written under the function's device lock
 * @generation: restored for, or read first; written under the device lock, and
 *	at the end of a restore
 * @lifted: we have lifted its fence; likewise
 * @lifted_for: for this generation; likewise
 * @detached: its driver was taken away by a restore that is to be tried again;
 *	likewise
 * @work: restore.c's
 * @restored: how the last restore ended; restore.c's
 * @restore_ms: how long it took; restore.c's
 */
struct dma_track_function {
	struct list_head node;
	struct kref kref;
	struct pci_dev *pdev;
	u32 sbdf;
	u16 dvsec;
	int index;
	bool forgotten;
	u16 state;
	u16 reason;
	bool behind_api;
	bool counted;
	u32 generation;
	bool lifted;
	u32 lifted_for;
	bool detached;
	struct work_struct work;
	enum dma_track_restored restored;
	unsigned int restore_ms;
};

/**
 * dma_track_devices_start - find assigned functions, now and later
 * @status: where to say what became of them
 *
 * May sleep. Return: 0 or a negative errno.
 */
int dma_track_devices_start(struct virtio_dma_track_status *status);

/*
 * Forget all functions. Their mappings are not counted any more, so there must
 * be no host. May sleep; waits for restores.
 */
void dma_track_devices_stop(void);

/**
 * dma_track_devices_look - restore functions whose generation has changed, and
 *	find those that the host names
 *
 * May sleep, but waits for no driver: both go on by themselves.
 */
void dma_track_devices_look(void);

/**
 * dma_track_devices_discover - find functions that the host names
 *
 * May sleep, and waits for drivers that are just being bound.
 */
void dma_track_devices_discover(void);

/* Report all functions to the host. May sleep. */
void dma_track_devices_report(void);

/**
 * dma_track_devices_behind_api - functions are given memory behind the DMA API
 * @concerns: is it this function? Called under RCU.
 * @what: passed on to @concerns
 *
 * They are untracked when this returns, until their driver is bound anew. Any
 * context.
 */
void dma_track_devices_behind_api(bool (*concerns)(struct device *dev,
						   const void *what),
				  const void *what);

/**
 * dma_track_devices_track - bind a function's driver anew, so that all its
 *	mappings are counted
 * @sbdf: the function
 *
 * May sleep. Return: 0 if the function is tracked, or is unbound, afterwards;
 * -ENODEV if there is no such PCI function; -EOPNOTSUPP if it is not assigned,
 * as far as the guest can tell; -EBUSY if its driver maps behind the DMA API.
 */
int dma_track_devices_track(u32 sbdf);

/*
 * For tests: forget that a function was restored, as if its generation had
 * changed. May sleep. Return: 0, or -ENODEV if it is not known.
 */
int dma_track_devices_replaced(struct pci_dev *pdev);

/**
 * dma_track_devices_for_each - call something for each function
 * @call: may not sleep for long; the list's mutex is held
 * @arg: passed on
 */
void dma_track_devices_for_each(void (*call)(struct dma_track_function *fn,
					     void *arg), void *arg);

/**
 * dma_track_function_read_generation - the function's generation now
 * @fn: the function
 * @generation: filled in
 *
 * May sleep. Return: false if the function or the host is gone.
 */
bool dma_track_function_read_generation(struct dma_track_function *fn,
					u32 *generation);

/* Drop a reference. May sleep. */
void dma_track_function_put(struct dma_track_function *fn);

#endif /* DMA_TRACK_DEVICES_H */
