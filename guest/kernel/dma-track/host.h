/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The conversation with the host
 *
 * Functions that ask the host something may sleep. They return -ENODEV if there
 * is no host, or if it goes away while they wait; -ETIMEDOUT if it does not
 * answer; otherwise what its answer means:
 *
 *	0		VIRTIO_DMA_TRACK_OK
 *	-EOPNOTSUPP	VIRTIO_DMA_TRACK_E_TYPE
 *	-EINVAL		VIRTIO_DMA_TRACK_E_FIELD
 *	-EPERM		VIRTIO_DMA_TRACK_E_STATE
 *	-EFAULT		VIRTIO_DMA_TRACK_E_NOT_RAM
 *	-EEXIST		VIRTIO_DMA_TRACK_E_EXISTS
 *	-ENOENT		VIRTIO_DMA_TRACK_E_NO_SECTION
 *	-ENODATA	VIRTIO_DMA_TRACK_E_EMPTY
 *	-ENXIO		VIRTIO_DMA_TRACK_E_NO_FUNCTION
 *	-ESTALE		VIRTIO_DMA_TRACK_E_STALE
 *	-EBUSY		VIRTIO_DMA_TRACK_E_BUSY
 *	-EIO		VIRTIO_DMA_TRACK_E_RESET
 *	-EPROTO		anything else
 */
#ifndef DMA_TRACK_HOST_H
#define DMA_TRACK_HOST_H

#include <linux/types.h>
#include <linux/virtio_dma_track.h>

/**
 * dma_track_host_start - look for the host's device, now and later
 * @status: the status page
 *
 * The table's planes are published. May sleep. Return: 0, also if there is no
 * such device, or a negative errno.
 */
int dma_track_host_start(struct virtio_dma_track_status *status);

/* Part with the host, which is told by a reset of its device. May sleep. */
void dma_track_host_stop(void);

/**
 * dma_track_host_publish - publish sections whose memory comes
 * @first: number of the first one
 * @last: number of the last one
 *
 * Together with others that the host has not accepted yet. May be called before
 * dma_track_host_start(). Return: 0, also without a host: they are published when
 * there is one.
 */
int dma_track_host_publish(u32 first, u32 last);

/**
 * dma_track_host_withdraw - take back sections whose memory went offline
 * @first: number of the first one
 * @last: number of the last one
 *
 * Those in which something is pinned stay published, and so do all while the
 * host migrates us: their planes stay valid. May sleep.
 */
void dma_track_host_withdraw(u32 first, u32 last);

/* For tests: take @rc for the host's answer to PUBLISH, until called with 0. */
void dma_track_host_pretend(int rc);

/**
 * dma_track_host_report_function - an entry of the status page has changed
 * @index: which
 *
 * Does not wait.
 */
void dma_track_host_report_function(unsigned int index);

/**
 * dma_track_host_flush_reports - wait until the host was told what was reported
 *
 * May sleep as long as the host takes to answer. Not for whoever holds a lock
 * that the conversation with the host needs.
 */
void dma_track_host_flush_reports(void);

/**
 * dma_track_host_find_function - is a function named in the configuration
 *	space?
 * @sbdf: the function
 * @generation: its generation, filled in if so
 */
bool dma_track_host_find_function(u32 sbdf, u32 *generation);

/**
 * dma_track_host_read_functions - the functions in the configuration space
 * @functions: room for VIRTIO_DMA_TRACK_MAX_CONFIG_FUNCTIONS, filled in
 *
 * Return: how many there are.
 */
unsigned int
dma_track_host_read_functions(struct virtio_dma_track_config_function *functions);

/**
 * dma_track_host_unfence - reset a function and let it master the bus
 * @sbdf: the function. Its driver is stopped.
 * @generation: its generation
 */
int dma_track_host_unfence(u32 sbdf, u32 generation);

/**
 * dma_track_host_restored - tell how a restore ended
 * @sbdf: the function
 * @generation: the generation that it was restored for
 * @result: VIRTIO_DMA_TRACK_RESTORED_*
 */
int dma_track_host_restored(u32 sbdf, u32 generation, u32 result);

/**
 * struct dma_track_host_state - for people
 * @connected: there is a host, and it reads the planes
 * @sync_dirty: it wants frames dirtied at syncs
 * @phase: VIRTIO_DMA_TRACK_PHASE_* in force
 * @phase_seq: acknowledged last
 */
struct dma_track_host_state {
	bool connected;
	bool sync_dirty;
	u32 phase;
	u32 phase_seq;
};

/* A snapshot. Any context. */
void dma_track_host_read_state(struct dma_track_host_state *state);

#endif /* DMA_TRACK_HOST_H */
