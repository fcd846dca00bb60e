/*
 * PCI functions that the kernel cannot migrate and whose DMA the guest tracks:
 * what the files that deal with them share
 *
 * dma-track.c has the function's life: fence and reset. dma-quiesce.c knows the
 * ways to make it quiet; dma-track-state.c what of it is in the stream.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VFIO_VFIO_DMA_TRACK_INTERNAL_H
#define HW_VFIO_VFIO_DMA_TRACK_INTERNAL_H

#include "migration/dma-track.h"
#include "pci.h"
#include "qemu/thread.h"

/* How one function is made quiet. Protected by the BQL. */
typedef struct VFIODMAQuiesce {
    /* What is tried, in this order. Constant. */
    DMAQuiesce methods[DMA_QUIESCE__MAX];
    int nr_methods;
    /*
     * Where the hardware has a capability of its own that offers FLUSH, or 0.
     * Constant.
     */
    uint16_t flush;

    /* Index of the method in use; @nr_methods: none has worked. */
    int method;
    /* The method in use was begun. */
    bool begun;
    /* When, by g_get_monotonic_time(). */
    int64_t begun_at;
    /* What it had begun was waited for, for as long as that makes sense. */
    bool drained;
    /* The method in use was seen to work. */
    bool quiet;
} VFIODMAQuiesce;

/* One function. Protected by the BQL. */
struct VFIODMATrack {
    DMATrackFunction fn;
    VFIOPCIDevice *vdev;
    VMChangeStateEntry *vm_state;
    Error *untracked_error;

    /* Where the guest finds the capability, or 0. Constant. */
    uint16_t dvsec;
    /* Where the hardware has its PCI Express capability, or 0. Constant. */
    uint8_t express;

    VFIODMAQuiesce quiesce;

    /*
     * Bus master and INTx are kept from the hardware, and the guest reads its
     * own bits. Set while stopped, unless by a flush, and while fenced;
     * fn.fenced is for the latter alone, because a stop must not make a
     * function look harmless to the checks that follow it.
     */
    bool held;
    /* fn->ops->stop was called, and fn->ops->resume was not. */
    bool stopped;
    /* The function was reset since @stopped was set. */
    bool reset_done;
    /*
     * The machine was reset since @stopped was set: the guest that knew the
     * function is gone, and nobody would ask to lift a fence.
     */
    bool machine_reset;
    /* Loaded from a stream: the guest is to be told before it runs. */
    bool replaced;

    /* The reset in the background. Joined by vfio_dma_track_join(). */
    QemuThread reset_thread;
    bool resetting;
    /* When it was begun, by g_get_monotonic_time(). */
    int64_t reset_begun_at;
    /* The thread has done its work. Atomic. */
    bool reset_over;
    /* Written by the thread before @reset_over. 0 or -errno. */
    int reset_ret;
    /* Also: how long the reset took, in microseconds. */
    int64_t reset_us;
    /* That is still to be recorded for query-dma-track. */
    bool reset_unrecorded;
    /* Scheduled by the thread when it ends. */
    QEMUBH *reset_bh;

    /* The reset was for UNFENCE, and this is whom to tell. Else NULL. */
    DMATrackUnfenceDone *unfence_done;
    void *unfence_opaque;
};

/* --- dma-track.c ------------------------------------------------------- */

/* A word of the hardware's config space, whatever QEMU shows to the guest. */
bool vfio_dma_track_read_word(VFIODMATrack *t, uint32_t addr, uint16_t *val,
                              Error **errp);
bool vfio_dma_track_write_word(VFIODMATrack *t, uint32_t addr, uint16_t val,
                               Error **errp);

/* COMMAND as the hardware has it. All ones, nobody answered, is an error. */
bool vfio_dma_track_read_command(VFIODMATrack *t, uint16_t *command,
                                 Error **errp);
/* COMMAND as the guest sees it. */
uint16_t vfio_dma_track_guest_command(VFIODMATrack *t);

/*
 * Take bus master and INTx from the hardware and see that it has let go. The
 * function stays held if that fails. Idempotent.
 */
bool vfio_dma_track_hold(VFIODMATrack *t, Error **errp);

/* Hold it until the guest has its driver stopped. It counts as harmless. */
bool vfio_dma_track_fence(VFIODMATrack *t, Error **errp);

/* Does the hardware say that bus master is off? @step is for the message. */
bool vfio_dma_track_check_bus_master(VFIODMATrack *t, const char *step,
                                     Error **errp);

/* Show the guest the capability's registers as they are now. */
void vfio_dma_track_update_dvsec(VFIODMATrack *t);

bool vfio_dma_track_has_reset(VFIODMATrack *t);
/* Reset the function in the background. No reset may be under way. */
void vfio_dma_track_begin_reset(VFIODMATrack *t);
/*
 * Wait for the reset, if one is running, until @limit, which is in the time of
 * g_get_monotonic_time(). False if it goes on: for a function that does not come
 * back, the kernel waits for a minute. Then it must be waited for again before
 * the next one.
 */
bool vfio_dma_track_wait_reset(VFIODMATrack *t, int64_t limit, Error **errp);
/* The same with a limit that is right for any function that is there. */
bool vfio_dma_track_wait_reset_now(VFIODMATrack *t, Error **errp);
/* Was the last reset successful? */
bool vfio_dma_track_check_reset(VFIODMATrack *t, Error **errp);

/* --- dma-track-state.c ------------------------------------------------- */

/* Section "vfio-dma-track" of the stream. */
void vfio_dma_track_register_state(VFIODMATrack *t);
void vfio_dma_track_unregister_state(VFIODMATrack *t);

/* --- dma-quiesce.c ----------------------------------------------------- */

/*
 * Look for what the function has, and decide what will be tried, by the
 * property dma-quiesce. To be called with @dvsec and @express known.
 */
bool vfio_dma_quiesce_realize(VFIODMATrack *t, Error **errp);

/*
 * Where the hardware has its own capability of pci_dma_quiesce.h, or 0. If
 * the host's kernel hides it, as that of 6.1 does, there is none.
 */
uint16_t vfio_dma_quiesce_find(VFIODMATrack *t);

/* See DMATrackFunctionOps.stop, .drain, .quiesce and .methods. */
void vfio_dma_quiesce_begin(VFIODMATrack *t);
void vfio_dma_quiesce_drain(VFIODMATrack *t);
bool vfio_dma_quiesce_finish(VFIODMATrack *t, Error **errp);
DMAQuiesceList *vfio_dma_quiesce_methods(VFIODMATrack *t);

/*
 * The function was, or is being, made quiet by a flush alone: it has finished
 * what it had begun, and knows how to go on.
 */
bool vfio_dma_quiesce_is_gentle(VFIODMATrack *t);

/*
 * Is a function that was flushed still quiet? True for any other. @errp says
 * why not.
 */
bool vfio_dma_quiesce_check_flushed(VFIODMATrack *t, Error **errp);

/*
 * Let a function that is_gentle() go on where it was. False if it does not,
 * and needs a reset.
 */
bool vfio_dma_quiesce_resume(VFIODMATrack *t, Error **errp);

/* Give its access to memory back to the function, if it was taken away. */
bool vfio_dma_quiesce_unblock(VFIODMATrack *t, Error **errp);

/* The function was reset, or goes on: nothing is under way any more. */
void vfio_dma_quiesce_forget(VFIODMATrack *t);

#endif
