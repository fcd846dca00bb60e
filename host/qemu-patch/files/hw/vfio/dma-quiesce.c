/*
 * PCI functions whose DMA the guest tracks: the ways to make one quiet
 *
 * Ring flush is the gentle one: the function itself stops fetching, finishes
 * what it had begun, and can go on from there. All others tear something down,
 * so that the function has to be reset afterwards, and its driver to begin
 * anew. With each of these, bus master is off, too: it is needed for the fence
 * that follows, and it is the only one that keeps the function from sending
 * interrupts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "hw/vfio/vfio-container.h"
#include "migration/dma-track.h"
#include "qapi/error.h"
#include "qemu/timer.h"
#include "standard-headers/linux/pci_dma_quiesce.h"
#include "standard-headers/linux/pci_regs.h"
#include "trace.h"
#include "vfio-dma-track-internal.h"

#define POLL_US                 200

/* Longest chain of extended capabilities, as in the kernel. */
#define MAX_EXT_CAPS \
    ((PCIE_CONFIG_SPACE_SIZE - PCI_CONFIG_SPACE_SIZE) / 8)

static int64_t vfio_dma_quiesce_limit(VFIODMATrack *t)
{
    return t->quiesce.begun_at + t->vdev->quiesce_timeout_ms * 1000LL;
}

static DMAQuiesce vfio_dma_quiesce_method(VFIODMATrack *t)
{
    VFIODMAQuiesce *q = &t->quiesce;

    return q->methods[MIN(q->method, q->nr_methods - 1)];
}

/* --- Ring flush -------------------------------------------------------- */

static bool vfio_dma_quiesce_read_long(VFIODMATrack *t, uint32_t addr,
                                       uint32_t *val)
{
    uint16_t low, high;

    if (!vfio_dma_track_read_word(t, addr, &low, NULL) ||
        !vfio_dma_track_read_word(t, addr + 2, &high, NULL)) {
        return false;
    }
    *val = low | (uint32_t)high << 16;
    return true;
}

/* Is the extended capability at @pos ours? */
static bool vfio_dma_quiesce_is_dvsec(VFIODMATrack *t, uint32_t header,
                                      uint16_t pos)
{
    uint32_t dvsec;
    uint16_t id;

    return PCI_EXT_CAP_ID(header) == PCI_EXT_CAP_ID_DVSEC &&
           pos + PCI_DMA_QUIESCE_LENGTH <= PCIE_CONFIG_SPACE_SIZE &&
           vfio_dma_quiesce_read_long(t, pos + PCI_DVSEC_HEADER1, &dvsec) &&
           PCI_DVSEC_HEADER1_VID(dvsec) == PCI_DMA_QUIESCE_VENDOR &&
           PCI_DVSEC_HEADER1_LEN(dvsec) >= PCI_DMA_QUIESCE_LENGTH &&
           vfio_dma_track_read_word(t, pos + PCI_DVSEC_HEADER2, &id, NULL) &&
           id == PCI_DMA_QUIESCE_DVSEC_ID;
}

uint16_t vfio_dma_quiesce_find(VFIODMATrack *t)
{
    uint16_t pos = PCI_CONFIG_SPACE_SIZE;
    uint32_t header;
    int i;

    if (t->vdev->config_size < PCIE_CONFIG_SPACE_SIZE) {
        return 0;
    }
    for (i = 0; i < MAX_EXT_CAPS && pos >= PCI_CONFIG_SPACE_SIZE; i++) {
        if (!vfio_dma_quiesce_read_long(t, pos, &header)) {
            return 0;
        }
        if (vfio_dma_quiesce_is_dvsec(t, header, pos)) {
            return pos;
        }
        pos = PCI_EXT_CAP_NEXT(header);
    }
    return 0;
}

static bool vfio_dma_quiesce_read_state(VFIODMATrack *t, uint16_t *state,
                                        Error **errp)
{
    uint16_t status;

    if (!vfio_dma_track_read_word(t, t->quiesce.flush + PCI_DMA_QUIESCE_STATUS,
                                  &status, errp)) {
        return false;
    }
    if (status == 0xffff) {
        error_setg(errp, "%s: the device does not answer", t->fn.name);
        return false;
    }
    *state = status & PCI_DMA_QUIESCE_STATUS_STATE;
    return true;
}

static bool vfio_dma_quiesce_control(VFIODMATrack *t, uint16_t val,
                                     Error **errp)
{
    return vfio_dma_track_write_word(t,
                                     t->quiesce.flush + PCI_DMA_QUIESCE_CONTROL,
                                     val, errp);
}

/*
 * Wait until the function is in state @wanted. @name is how messages call what
 * it was asked for.
 */
static bool vfio_dma_quiesce_wait(VFIODMATrack *t, uint16_t wanted,
                                  const char *name, int64_t limit, Error **errp)
{
    uint16_t state;

    for (;;) {
        bool late = g_get_monotonic_time() > limit;

        if (!vfio_dma_quiesce_read_state(t, &state, errp)) {
            return false;
        }
        if (state == wanted) {
            return true;
        }
        if (state == PCI_DMA_QUIESCE_STATE_ERROR) {
            error_setg(errp, "%s: %s: the device reports an error",
                       t->fn.name, name);
            return false;
        }
        if (late) {
            error_setg(errp, "%s: %s: not finished after %" PRIu32
                       " ms (state %d)", t->fn.name, name,
                       t->vdev->quiesce_timeout_ms, state);
            return false;
        }
        g_usleep(POLL_US);
    }
}

static bool vfio_dma_quiesce_wait_pending(VFIODMATrack *t, Error **errp)
{
    int64_t limit = vfio_dma_quiesce_limit(t);
    uint16_t status;

    if (!t->express || dma_track_step_suppressed(DMA_TRACK_STEP_PENDING)) {
        return true;
    }
    for (;;) {
        bool late = g_get_monotonic_time() > limit;

        if (!vfio_dma_track_read_word(t, t->express + PCI_EXP_DEVSTA, &status,
                                      errp)) {
            return false;
        }
        if (!(status & PCI_EXP_DEVSTA_TRPND)) {
            return true;
        }
        if (late) {
            error_setg(errp, "%s: transactions still pending %" PRIu32
                       " ms after bus master was cleared", t->fn.name,
                       t->vdev->quiesce_timeout_ms);
            return false;
        }
        g_usleep(POLL_US);
    }
}

static bool vfio_dma_quiesce_finish_flush(VFIODMATrack *t, Error **errp)
{
    return dma_track_step_suppressed(DMA_TRACK_STEP_FLUSH) ||
           vfio_dma_quiesce_wait(t, PCI_DMA_QUIESCE_STATE_QUIESCED,
                                 "ring flush", vfio_dma_quiesce_limit(t), errp);
}

/* --- Bus master -------------------------------------------------------- */

static bool vfio_dma_quiesce_finish_busmaster(VFIODMATrack *t, Error **errp)
{
    return vfio_dma_quiesce_wait_pending(t, errp) &&
           (dma_track_step_suppressed(DMA_TRACK_STEP_BUSMASTER) ||
            vfio_dma_track_check_bus_master(t, "after the function was "
                                            "quiesced", errp));
}

/* --- IOMMU ------------------------------------------------------------- */

static bool vfio_dma_quiesce_finish_iommu(VFIODMATrack *t, Error **errp)
{
    VFIODevice *vbasedev = &t->vdev->vbasedev;
    VFIOIOMMUClass *vioc = VFIO_IOMMU_GET_CLASS(vbasedev->bcontainer);

    if (vbasedev->dma_blocked ||
        dma_track_step_suppressed(DMA_TRACK_STEP_IOMMU)) {
        return true;
    }
    return vioc->block_dma(vbasedev, errp);
}

bool vfio_dma_quiesce_unblock(VFIODMATrack *t, Error **errp)
{
    VFIODevice *vbasedev = &t->vdev->vbasedev;

    return !vbasedev->dma_blocked ||
           VFIO_IOMMU_GET_CLASS(vbasedev->bcontainer)->unblock_dma(vbasedev,
                                                                   errp);
}

/* --- Reset ------------------------------------------------------------- */

static bool vfio_dma_quiesce_finish_reset(VFIODMATrack *t, Error **errp)
{
    /* Not from when it was told to stop: the others were waited for. */
    int64_t limit = g_get_monotonic_time() +
                    t->vdev->quiesce_timeout_ms * 1000LL;

    if (dma_track_step_suppressed(DMA_TRACK_STEP_RESET)) {
        return true;
    }
    if (!t->reset_done) {
        /* One that was begun earlier says nothing. */
        if (!vfio_dma_track_wait_reset(t, limit, errp)) {
            return false;
        }
        t->reset_done = true;
        vfio_dma_track_begin_reset(t);
        /* It is recorded as this step. */
        t->reset_unrecorded = false;
    }
    return vfio_dma_track_wait_reset(t, limit, errp) &&
           vfio_dma_track_check_reset(t, errp) &&
           (dma_track_step_suppressed(DMA_TRACK_STEP_BUSMASTER) ||
            vfio_dma_track_check_bus_master(t, "after the function was reset",
                                            errp));
}

/* --- All of them ------------------------------------------------------- */

static bool vfio_dma_quiesce_begin_method(VFIODMATrack *t, Error **errp)
{
    VFIODMAQuiesce *q = &t->quiesce;
    DMAQuiesce method = vfio_dma_quiesce_method(t);
    bool ok;

    if (!q->begun) {
        q->begun_at = g_get_monotonic_time();
    }
    q->begun = true;
    if (method == DMA_QUIESCE_FLUSH) {
        return dma_track_step_suppressed(DMA_TRACK_STEP_FLUSH) ||
               vfio_dma_quiesce_control(t, PCI_DMA_QUIESCE_CONTROL_FLUSH,
                                        errp);
    }
    if (dma_track_step_suppressed(DMA_TRACK_STEP_BUSMASTER)) {
        return true;
    }
    /* The other methods work also on a function that does not answer. */
    ok = vfio_dma_track_hold(t, method == DMA_QUIESCE_BUSMASTER ? errp : NULL);
    return ok || method != DMA_QUIESCE_BUSMASTER;
}

static bool vfio_dma_quiesce_finish_method(VFIODMATrack *t, Error **errp)
{
    switch (vfio_dma_quiesce_method(t)) {
    case DMA_QUIESCE_FLUSH:
        return vfio_dma_quiesce_finish_flush(t, errp);
    case DMA_QUIESCE_BUSMASTER:
        return vfio_dma_quiesce_finish_busmaster(t, errp);
    case DMA_QUIESCE_IOMMU:
        return vfio_dma_quiesce_finish_iommu(t, errp);
    case DMA_QUIESCE_RESET:
        return vfio_dma_quiesce_finish_reset(t, errp);
    default:
        g_assert_not_reached();
    }
}

/* The method in use has ended: with @err, which stays the caller's, or NULL. */
static void vfio_dma_quiesce_record(VFIODMATrack *t, const Error *err)
{
    int64_t us = g_get_monotonic_time() - t->quiesce.begun_at;

    dma_track_function_record(&t->fn, vfio_dma_quiesce_method(t), us, err);
}

void vfio_dma_quiesce_begin(VFIODMATrack *t)
{
    VFIODMAQuiesce *q = &t->quiesce;

    if (q->begun && vfio_dma_quiesce_method(t) == DMA_QUIESCE_FLUSH) {
        return;
    }
    /*
     * What fails here is tried again, and recorded, when it is to be ended: the
     * other functions are to stop, too.
     */
    if (!vfio_dma_quiesce_begin_method(t, NULL)) {
        q->begun = false;
    }
}

/* Try what is left of the first @nr_methods. True if one has worked. */
static bool vfio_dma_quiesce_try(VFIODMATrack *t, int nr_methods)
{
    VFIODMAQuiesce *q = &t->quiesce;

    for (; q->method < nr_methods; q->method++, q->begun = false) {
        Error *err = NULL;

        if ((q->begun || vfio_dma_quiesce_begin_method(t, &err)) &&
            vfio_dma_quiesce_finish_method(t, &err)) {
            if (!q->quiet) {
                vfio_dma_quiesce_record(t, NULL);
            }
            q->quiet = true;
            vfio_dma_track_update_dvsec(t);
            return true;
        }

        q->quiet = false;
        vfio_dma_quiesce_record(t, err);
        error_free(err);
    }
    return false;
}

/* How many of the methods, which come first, leave all others undisturbed. */
static int vfio_dma_quiesce_nr_mild(VFIODMAQuiesce *q)
{
    int nr = 0;

    while (nr < q->nr_methods && q->methods[nr] < DMA_QUIESCE_IOMMU) {
        nr++;
    }
    return nr;
}

void vfio_dma_quiesce_drain(VFIODMATrack *t)
{
    VFIODMAQuiesce *q = &t->quiesce;

    if (q->drained) {
        return;
    }
    q->drained = true;

    if (!vfio_dma_quiesce_try(t, vfio_dma_quiesce_nr_mild(q)) && q->begun &&
        vfio_dma_track_check_bus_master(t, "after it was cleared", NULL)) {
        vfio_dma_quiesce_wait_pending(t, NULL);
    }
}

bool vfio_dma_quiesce_finish(VFIODMATrack *t, Error **errp)
{
    g_autoptr(GString) reasons = NULL;
    DMAQuiesceStepInfoList *step;

    if (vfio_dma_quiesce_try(t, t->quiesce.nr_methods)) {
        return true;
    }

    reasons = g_string_new(NULL);
    for (step = t->fn.steps; step; step = step->next) {
        if (step->value->error) {
            g_string_prepend(reasons, reasons->len ? "; " : "");
            g_string_prepend(reasons, step->value->error);
        }
    }
    error_setg(errp, "%s", reasons->str);
    return false;
}

bool vfio_dma_quiesce_is_gentle(VFIODMATrack *t)
{
    return t->quiesce.begun && t->quiesce.method < t->quiesce.nr_methods &&
           vfio_dma_quiesce_method(t) == DMA_QUIESCE_FLUSH;
}

bool vfio_dma_quiesce_check_flushed(VFIODMATrack *t, Error **errp)
{
    return !vfio_dma_quiesce_is_gentle(t) ||
           dma_track_step_suppressed(DMA_TRACK_STEP_FLUSH) ||
           vfio_dma_quiesce_wait(t, PCI_DMA_QUIESCE_STATE_QUIESCED,
                                 "ring flush", 0, errp);
}

bool vfio_dma_quiesce_resume(VFIODMATrack *t, Error **errp)
{
    int64_t limit = g_get_monotonic_time() +
                    t->vdev->quiesce_timeout_ms * 1000LL;

    if (!vfio_dma_quiesce_unblock(t, errp)) {
        return false;
    }
    return dma_track_step_suppressed(DMA_TRACK_STEP_FLUSH) ||
           (vfio_dma_quiesce_control(t, PCI_DMA_QUIESCE_CONTROL_RESUME, errp) &&
            vfio_dma_quiesce_wait(t, PCI_DMA_QUIESCE_STATE_RUNNING,
                                  "resume after ring flush", limit, errp));
}

void vfio_dma_quiesce_forget(VFIODMATrack *t)
{
    t->quiesce.method = 0;
    t->quiesce.begun = false;
    t->quiesce.drained = false;
    t->quiesce.quiet = false;
}

DMAQuiesceList *vfio_dma_quiesce_methods(VFIODMATrack *t)
{
    DMAQuiesceList *list = NULL, **tail = &list;
    int i;

    for (i = 0; i < t->quiesce.nr_methods; i++) {
        QAPI_LIST_APPEND(tail, t->quiesce.methods[i]);
    }
    return list;
}

/* Is there such a method for the function? @errp says why not. */
static bool vfio_dma_quiesce_has_method(VFIODMATrack *t, DMAQuiesce method,
                                        Error **errp)
{
    VFIODevice *vbasedev = &t->vdev->vbasedev;

    switch (method) {
    case DMA_QUIESCE_FLUSH:
        if (!t->quiesce.flush) {
            error_setg(errp, "the function has no ring-flush capability");
            return false;
        }
        return true;
    case DMA_QUIESCE_IOMMU:
        if (!VFIO_IOMMU_GET_CLASS(vbasedev->bcontainer)->block_dma) {
            error_setg(errp, "the IOMMU back end cannot do that");
            return false;
        }
        return true;
    case DMA_QUIESCE_RESET:
        if (!vfio_dma_track_has_reset(t)) {
            error_setg(errp, "the function cannot be reset alone");
            return false;
        }
        return true;
    default:
        return true;
    }
}

bool vfio_dma_quiesce_realize(VFIODMATrack *t, Error **errp)
{
    VFIODMAQuiesce *q = &t->quiesce;
    DMAQuiesce wanted = t->vdev->dma_quiesce;
    uint16_t pos = vfio_dma_quiesce_find(t);
    DMAQuiesce method;
    uint16_t cap;

    if (pos &&
        vfio_dma_track_read_word(t, pos + PCI_DMA_QUIESCE_CAP, &cap, NULL) &&
        (cap & PCI_DMA_QUIESCE_CAP_FLUSH)) {
        q->flush = pos;
    }

    if (wanted != DMA_QUIESCE_AUTO) {
        if (!vfio_dma_quiesce_has_method(t, wanted, errp)) {
            error_prepend(errp, "dma-quiesce=%s: ", DMAQuiesce_str(wanted));
            return false;
        }
        q->methods[q->nr_methods++] = wanted;
        return true;
    }

    /* The enumeration is in the order in which they are tried. */
    for (method = DMA_QUIESCE_AUTO + 1; method < DMA_QUIESCE__MAX; method++) {
        if (vfio_dma_quiesce_has_method(t, method, NULL)) {
            q->methods[q->nr_methods++] = method;
        }
    }
    return true;
}
