/*
 * DMA tracking by the guest: who tracks which assigned PCI function, and what
 * migration asks of it
 *
 * Three parties meet here and know nothing else of each other:
 *
 *  - functions (vfio-pci, emulated PCI devices with x-untracked-dma) write
 *    guest memory unseen by QEMU; each registers a DMATrackFunction;
 *  - the provider (virtio-dma-track) knows from the guest which frames they may
 *    write;
 *  - migration asks, in the order of the functions below.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QEMU_MIGRATION_DMA_TRACK_H
#define QEMU_MIGRATION_DMA_TRACK_H

#include "hw/pci/pci_device.h"
#include "qemu/queue.h"
#include "qom/object.h"
#include "qapi/qapi-types-dma-track.h"
#include "system/ramblock.h"

/* --- Functions -------------------------------------------------------- */

typedef struct DMATrackFunction DMATrackFunction;

/*
 * Called with the outcome of DMATrackFunctionOps.unfence, from the main loop
 * with the BQL held. @err is NULL on success and stays the caller's.
 */
typedef void DMATrackUnfenceDone(void *opaque, Error *err);

/*
 * All are called with the BQL held. A NULL member means that there is nothing
 * to do: an emulated device has no reset and no fence, because it stops with
 * the VM and carries its own state.
 */
typedef struct DMATrackFunctionOps {
    /*
     * Begin to stop: the function is told to initiate nothing new. Not
     * destructive for other functions. Idempotent.
     */
    bool (*stop)(DMATrackFunction *fn, Error **errp);
    /*
     * Wait, for a bounded time, until nothing of what the function began is in
     * flight. Called after @stop of every function. Falls back to methods that
     * are not destructive for other functions, and to no other: they may have
     * writes to this one in flight. Whether it helped is for @quiesce to see.
     * Idempotent.
     */
    void (*drain)(DMATrackFunction *fn);
    /*
     * See to it, in a bounded time, that the function initiates nothing and
     * that nothing of what it began is in flight. Called after @drain of every
     * function; falls back to harder methods. Each method that was tried is
     * told by dma_track_function_record(). Idempotent.
     */
    bool (*quiesce)(DMATrackFunction *fn, Error **errp);
    /*
     * Start the reset of the quiesced function, so that nothing it began takes
     * effect later; it may go on in the background. It must have ended before
     * the function's state is saved and before @resume returns. Does nothing
     * if the function has finished, by itself, all it had begun.
     */
    bool (*reset)(DMATrackFunction *fn, Error **errp);
    /*
     * The migration came to nothing after @stop: make the function usable
     * again. One that was only asked to stop, and has kept its state, goes on.
     * Any other is fenced and gets a new generation, by
     * dma_track_function_replaced(). Idempotent; may run with stopped vCPUs.
     */
    void (*resume)(DMATrackFunction *fn);
    /* The methods that @quiesce would try, in order, for query-dma-track. */
    DMAQuiesceList *(*methods)(DMATrackFunction *fn);
    /*
     * The guest has stopped the function's driver: reset the function and lift
     * the fence. Calls @done exactly once, later or at once.
     */
    void (*unfence)(DMATrackFunction *fn, DMATrackUnfenceDone *done,
                    void *opaque);
    /*
     * Wait for the end of what @unfence has begun, and call its @done. No-op
     * if there is nothing. VM stopped.
     */
    void (*end_unfence)(DMATrackFunction *fn);
    /*
     * True if the function cannot master the bus now, as its driver in the
     * guest has left it. Makes a function without a driver harmless.
     */
    bool (*is_idle)(DMATrackFunction *fn);
    /*
     * Of a bystander only, see dma_track_bystander_register(): can it migrate
     * by itself now? If not, @errp says why, and names it.
     */
    bool (*check)(DMATrackFunction *fn, Error **errp);
} DMATrackFunctionOps;

/* One PCI function whose DMA QEMU cannot see. Protected by the BQL. */
struct DMATrackFunction {
    /* Set by the owner before registering, then constant. */
    PCIDevice *pdev;
    const DMATrackFunctionOps *ops;
    /* For messages: the host's address, or the device's id. */
    const char *name;
    /* Who shall track it. Never AUTO; DEVICE only of a bystander. */
    DMATrackedBy tracked_by;
    /* The guest finds the capability of pci_dma_quiesce.h on it. */
    bool has_capability;
    /*
     * Why it could not migrate without tracking: shown when there is no
     * provider. Owned by the function's owner. May be NULL.
     */
    const Error *untracked_error;

    /* Written by dma_track_function_replaced() and the owner's vmstate. */
    uint32_t generation;
    /* Physical bus master and interrupts are off. Written by the owner. */
    bool fenced;
    /*
     * @stop was called in this migration, and @resume was not. Written by
     * migration/dma-track.c only.
     */
    bool stopped;
    /* What the guest says of its driver since @generation last changed. */
    DMATrackRestored restored;
    /*
     * DMAQuiesceStepInfo, in reverse order: how it was made quiet when that was
     * last tried. Written by dma_track_function_record().
     */
    DMAQuiesceStepInfoList *steps;
    /*
     * Who tracked it when that was last looked at, and since when, in seconds
     * since the Epoch. Written by migration/dma-track.c only.
     */
    DMATracker tracker;
    int64_t since;

    QTAILQ_ENTRY(DMATrackFunction) next;
};

/**
 * dma_track_function_register: make @fn known to migration and the provider
 *
 * With the BQL held. @fn must live until dma_track_function_unregister(). If
 * the guest unplugs a registered function while a migration runs, the
 * migration fails with that reason.
 */
void dma_track_function_register(DMATrackFunction *fn);
void dma_track_function_unregister(DMATrackFunction *fn);

/**
 * dma_track_bystander_register: an assigned function that is only told of
 *
 * It migrates by itself or blocks migration, as DMATrackFunctionOps.check says;
 * without that it counts as one that migrates. Nothing is asked of it, and no
 * other function here deals with it. With the BQL held. @fn must live until
 * dma_track_bystander_unregister().
 */
void dma_track_bystander_register(DMATrackFunction *fn);
void dma_track_bystander_unregister(DMATrackFunction *fn);

/*
 * An emulated PCI device whose writes to RAM migration does not see, by its
 * property x-untracked-dma. Its property x-dma-tracked-by is what
 * dma-tracked-by is to an assigned one: the guest tracks it, if nothing else is
 * said, and it is a bystander if "device" is. Returns false, and says why, if
 * that names nobody.
 *
 * One that offers a ring flush (hw/pci/dma-quiesce.h) is flushed at the end of
 * a migration; any other has no ops, and no capability. To be undone before
 * @pdev goes; a device that was not registered is left alone. With the BQL
 * held.
 */
bool dma_track_register_emulated(PCIDevice *pdev, Error **errp);
void dma_track_unregister_emulated(PCIDevice *pdev);

/**
 * dma_track_function_replaced: the function was reset or replaced
 *
 * Increases the generation and tells the guest, now or when vCPUs run. The
 * caller has fenced the function before. With the BQL held.
 */
void dma_track_function_replaced(DMATrackFunction *fn);

/**
 * dma_track_function_record: a step of making @fn quiet is over
 * @duration_us: how long it took, in microseconds
 * @err: why it did not work, or NULL; stays the caller's
 *
 * For query-dma-track. What was recorded for an earlier migration is forgotten
 * when @fn is stopped anew. With the BQL held.
 */
void dma_track_function_record(DMATrackFunction *fn, DMAQuiesce method,
                               int64_t duration_us, const Error *err);

/* The function's address as the guest sees it now: bus numbers can change. */
uint32_t dma_track_function_sbdf(const DMATrackFunction *fn);

/*
 * For messages: its name on the host and its address in the guest. To be freed
 * with g_free(). With the BQL held.
 */
char *dma_track_function_label(const DMATrackFunction *fn);

/* The registered function with that address, or NULL. With the BQL held. */
DMATrackFunction *dma_track_function_find(uint32_t sbdf);

/* It cannot write memory now: fenced, or DMATrackFunctionOps.is_idle. BQL. */
bool dma_track_function_is_idle(DMATrackFunction *fn);

DMATrackFunction *dma_track_function_first(void);
DMATrackFunction *dma_track_function_next(DMATrackFunction *fn);
#define DMA_TRACK_FOREACH_FUNCTION(fn) \
    for ((fn) = dma_track_function_first(); (fn); \
         (fn) = dma_track_function_next(fn))

/*
 * Testing aid, property x-dma-quiesce-suppress of virtio-dma-track-pci: the
 * steps that are left out, so that a test can show what they are for.
 */
typedef enum DMATrackStep {
    DMA_TRACK_STEP_BUSMASTER = 1 << 0,
    DMA_TRACK_STEP_PENDING   = 1 << 1,
    DMA_TRACK_STEP_RESET     = 1 << 2,
    DMA_TRACK_STEP_FLUSH     = 1 << 3,
    DMA_TRACK_STEP_IOMMU     = 1 << 4,
    DMA_TRACK_STEP_ALL       = (1 << 5) - 1,
} DMATrackStep;
bool dma_track_step_suppressed(DMATrackStep step);

/* --- Provider --------------------------------------------------------- */

#define TYPE_DMA_TRACK_PROVIDER "dma-track-provider"
typedef struct DMATrackProvider DMATrackProvider;
typedef struct DMATrackProviderClass DMATrackProviderClass;
DECLARE_CLASS_CHECKERS(DMATrackProviderClass, DMA_TRACK_PROVIDER,
                       TYPE_DMA_TRACK_PROVIDER)
#define DMA_TRACK_PROVIDER(obj) \
    INTERFACE_CHECK(DMATrackProvider, (obj), TYPE_DMA_TRACK_PROVIDER)

struct DMATrackProviderClass {
    InterfaceClass parent_class;

    /*
     * Is @fn tracked by the guest now? If not, @errp says why; in the middle of
     * a migration that fails it by dma_track_fail(), whatever the guest says
     * later. BQL held.
     */
    bool (*check_function)(DMATrackProvider *p, DMATrackFunction *fn,
                           Error **errp);
    /* Has the guest kept its promise so far (lost word)? BQL held. */
    bool (*check)(DMATrackProvider *p, Error **errp);
    /*
     * Ask the guest to log and wait for its acknowledgement, at most
     * ack-timeout-ms. BQL not held.
     */
    bool (*start)(DMATrackProvider *p, Error **errp);
    /*
     * Has the guest acknowledged that it logs? Asked when vCPUs begin to run
     * in the middle of a migration. BQL held.
     */
    bool (*is_logging)(DMATrackProvider *p);
    /* Back to idle. Does not wait. Idempotent. BQL held. */
    void (*stop)(DMATrackProvider *p);
    /* Ask for a sign of life and wait for it, bounded. BQL not held. */
    bool (*echo)(DMATrackProvider *p, Error **errp);
    /*
     * Set in @bmap, which has one bit per target page of @rb, the pages that
     * are pinned. Counts them, per plane, into @streaming and @coherent. RCU
     * read lock and bitmap_mutex held; BQL held only in the last pass.
     */
    void (*merge_pinned)(DMATrackProvider *p, RAMBlock *rb,
                         unsigned long *bmap, uint64_t *streaming,
                         uint64_t *coherent);
    /*
     * vCPUs are stopped and the last dirty log sync is to come: write to guest
     * memory now what else might be written later. BQL held.
     */
    void (*settle)(DMATrackProvider *p);
    /*
     * Frames that are pinned now: the number of those in either plane is
     * returned, and that of each plane stored. BQL held.
     */
    uint64_t (*count_pinned)(DMATrackProvider *p, uint64_t *streaming,
                             uint64_t *coherent);
    /* Property max-pinned: bytes, 0 for no limit. */
    uint64_t (*max_pinned)(DMATrackProvider *p);
    /* The generation of @fn has changed; tell the guest. BQL held. */
    void (*function_replaced)(DMATrackProvider *p, DMATrackFunction *fn);
    /* For query-dma-track. BQL held. */
    DMATrackProviderInfo *(*query)(DMATrackProvider *p);
    /* Testing aid, see dma_track_step_suppressed(). */
    uint32_t (*suppressed_steps)(DMATrackProvider *p);
};

/* Only one provider can be registered; a second is refused. BQL held. */
bool dma_track_provider_register(DMATrackProvider *p, Error **errp);
void dma_track_provider_unregister(DMATrackProvider *p);

/**
 * dma_track_fail: the guest broke its promise while a migration may run
 *
 * Remembers @err, which it takes, as the reason and makes a running migration
 * fail with it at the next point where that is possible; without a running
 * migration does nothing but to free @err. With the BQL held.
 */
void dma_track_fail(Error *err);

/**
 * dma_track_changed: the guest has said something of a function or of itself
 *
 * So it may be that it can be migrated now, or not any more. The event for that
 * is sent from the main loop. With the BQL held.
 */
void dma_track_changed(void);

/*
 * For the waits of a provider: the migration was cancelled or has failed, so
 * there is nothing left to wait for. Any context.
 */
bool dma_track_given_up(void);

/* --- Migration, in the order of one migration --------------------------- */

/*
 * P4, on demand: every registered function is tracked, external, or idle with
 * the provider able to name it; else @errp names each function and the reason.
 * Also refuses what cannot work with such functions at all: snapshots,
 * postcopy, COLO, confidential guests; and more pinned memory than max-pinned.
 * Always true for CPR, which moves no memory. BQL held.
 *
 * An emulated function is there to test with, and without a provider it is let
 * through, so that a test can show what is lost then.
 */
bool dma_track_save_prepare(Error **errp);

/*
 * On either side, when the URI is known and before anything is connected: RDMA
 * registers memory and sends it past what defers pages, so it is refused with
 * functions whose DMA QEMU cannot see. BQL held.
 */
bool dma_track_check_rdma(Error **errp);

/*
 * Before the first byte of RAM: if any function is tracked by the guest, get
 * the guest to log. BQL not held; may wait. The guest of a VM that is not
 * running is not asked: it can end no mapping. Should the VM begin to run
 * before the last pass, the migration fails.
 */
bool dma_track_start(Error **errp);

/* What dma_track_fail() has remembered: false and @errp if so. Any context. */
bool dma_track_check_failed(Error **errp);

/*
 * See, while the guest runs, whether all functions are tracked still: what one
 * writes that is not, for a while, nobody knows. With every sync of the dirty
 * log; the guest's requests tell of what comes and goes in between. Likewise
 * whether the guest has lost track, or its planes. BQL held.
 */
void dma_track_look(void);

/* Are there pinned pages to defer in this migration? Any context. */
bool dma_track_active(void);

/*
 * At the end of each round: fail a migration of a running VM in which more is
 * pinned than the provider's max-pinned. BQL not held.
 */
void dma_track_end_round(void);

/* See DMATrackProviderClass.merge_pinned. */
void dma_track_merge_pinned(RAMBlock *rb, unsigned long *bmap,
                            uint64_t *streaming, uint64_t *coherent);

/*
 * Just before vCPUs stop. BQL not held; may wait. A guest that has logged and
 * that somebody else has stopped cannot answer: all its memory counts as
 * pinned then.
 */
bool dma_track_echo(Error **errp);

/*
 * Hook Q: vCPUs are stopped. Stop and quiesce every function, check the veto
 * and the lost word again, start the resets. BQL held. For CPR it only waits
 * for the end of what UNFENCE has begun. After failure the caller fails the
 * migration, and dma_track_resume() runs.
 */
bool dma_track_quiesce(Error **errp);

/*
 * Undo dma_track_quiesce(): on failure, on cancel, and when a VM whose
 * functions are stopped starts to run. Idempotent. BQL held.
 */
void dma_track_resume(void);

/* The migration is over, however it ended: back to idle. BQL held. */
void dma_track_end(void);

/*
 * For query-dma-track: target pages that were pinned, of those the coherent
 * ones, and pages that were deferred, when the last pass began; and the bytes
 * of all pages that it has to send.
 */
void dma_track_account_final(uint64_t pinned, uint64_t coherent,
                             uint64_t deferred, uint64_t bytes);

#endif
