/*
 * Virtio DMA tracking device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VIRTIO_DMA_TRACK_H
#define HW_VIRTIO_DMA_TRACK_H

#include "hw/virtio/virtio.h"
#include "migration/dma-track.h"
#include "qemu/thread.h"
#include "qom/object.h"
#include "standard-headers/linux/virtio_dma_track.h"
#include "system/memory.h"

#define TYPE_VIRTIO_DMA_TRACK "virtio-dma-track"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIODMATrack, VIRTIO_DMA_TRACK)

/* A page of guest RAM that the guest shares with us. */
typedef struct VirtIODMATrackPage {
    hwaddr gpa;
    /*
     * A reference is held, so that the page can be read whatever becomes of it.
     * NULL after loading, until virtio_dma_track_resolve().
     */
    MemoryRegion *mr;
    hwaddr offset;
} VirtIODMATrackPage;

/* 128 MiB of guest physical memory, and the planes that tell of it. */
typedef struct VirtIODMATrackSection {
    uint32_t section;
    VirtIODMATrackPage streaming;
    VirtIODMATrackPage coherent;
} VirtIODMATrackSection;

/* A range of guest physical memory that is RAM. */
typedef struct VirtIODMATrackRange {
    hwaddr gpa;
    hwaddr size;
    /* A reference is held. */
    MemoryRegion *mr;
    hwaddr offset;
} VirtIODMATrackRange;

/*
 * An UNFENCE request whose function is being reset. Freed when the reset has
 * ended, answered before that if somebody has to be answered earlier.
 */
typedef struct VirtIODMATrackUnfence {
    /* A reference is held. */
    VirtIODMATrack *s;
    DMATrackFunction *fn;
    /* NULL once it was answered or dropped. */
    VirtQueueElement *elem;
    QTAILQ_ENTRY(VirtIODMATrackUnfence) next;
} VirtIODMATrackUnfence;

/* Protected by the BQL, if nothing else is said. */
struct VirtIODMATrack {
    VirtIODevice parent_obj;

    VirtQueue *vq;
    /* Goes on where a kick's share of work has ended. */
    QEMUBH *bh;
    VMChangeStateEntry *vm_change;
    MemoryListener listener;

    /* Properties. */
    uint32_t ack_timeout_ms;
    bool sync_dirty;
    uint64_t max_pinned;
    char *suppress;
    /* DMATrackStep, from @suppress. */
    uint32_t suppressed_steps;

    /*
     * What the configuration space says, and what the guest has echoed of it.
     * The migration thread waits for echoes: they are written with @lock and
     * the BQL held, and read with either.
     */
    QemuMutex lock;
    QemuCond echoed;
    uint32_t phase;
    uint32_t phase_seq;
    uint32_t phase_seq_echoed;
    uint32_t alive_seq;
    uint32_t alive_seq_echoed;
    uint32_t reset_seq;
    uint32_t reset_seq_echoed;

    /* Repeats the configuration interrupt until all is echoed. */
    QEMUTimer *notify_timer;
    uint32_t notify_delay_ms;

    /* SETUP was made: @status is valid. */
    bool ready;
    VirtIODMATrackPage status;
    /* VirtIODMATrackSection by section number. */
    GTree *sections;
    /* The gpa of each page in use. */
    GHashTable *pages;
    /* Why what the guest shares is of no use any more, until it resets us. */
    char *broken;

    /* VirtIODMATrackRange, unordered. */
    GArray *ranges;

    QTAILQ_HEAD(, VirtIODMATrackUnfence) unfences;
};

#endif
