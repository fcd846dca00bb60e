/*
 * PCI functions that the kernel cannot migrate and whose DMA the guest tracks
 *
 * The pages that such a function writes are known to the guest (see
 * migration/dma-track.h). What is left for the host is the function itself:
 * stop it for good at the end of a migration, carry the guest's view of its
 * config space to a fresh function, and keep that one fenced until the guest's
 * driver is ready for it.
 *
 * Two bits of COMMAND are all that a fence needs. With bus master off in
 * hardware the function can neither write memory nor send an MSI; with INTx
 * disabled it cannot raise a pin. The guest goes on reading and writing its own
 * COMMAND, which lives in pdev->config and is what migrates.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/vfio.h>
#include <sys/ioctl.h>

#include "hw/core/resettable.h"
#include "hw/core/sysbus.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci.h"
#include "hw/pci/pcie.h"
#include "migration/blocker.h"
#include "migration/client-options.h"
#include "migration/dma-track.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/range.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "standard-headers/linux/pci_dma_quiesce.h"
#include "standard-headers/linux/pci_regs.h"
#include "system/address-spaces.h"
#include "system/runstate.h"
#include "trace.h"
#include "vfio-dma-track-internal.h"
#include "vfio-dma-track.h"
#include "vfio-migration-internal.h"

/* The capability goes here, above everything that real functions use. */
#define DVSEC_OFFSET            (PCIE_CONFIG_SPACE_SIZE - 0x20)

/* VFIO_DEVICE_RESET says EAGAIN while another of its users holds the lock. */
#define RESET_ATTEMPTS          100
#define RESET_RETRY_US          (10 * 1000)

#define RESET_POLL_US           200
/*
 * Before a reset the kernel waits for pending transactions for up to 1.5 s; the
 * reset itself takes 0.1 s, and some functions need longer to come back.
 */
#define RESET_US                (5 * 1000 * 1000)

/* Longest chain of capabilities in 256 bytes, as in the kernel. */
#define MAX_STD_CAPS            48

static VFIODMATrack *vfio_dma_track_from_fn(DMATrackFunction *fn)
{
    return container_of(fn, VFIODMATrack, fn);
}

/* --- Registers --------------------------------------------------------- */

bool vfio_dma_track_is_absent(VFIOPCIDevice *vdev)
{
    VFIODMATrack *t = vdev->dma_track;

    return t && t->resetting && !qatomic_load_acquire(&t->reset_over) &&
           g_get_monotonic_time() > t->reset_begun_at + RESET_US;
}

/* Returns false, and says why, for a function that does not come back. */
static bool vfio_dma_track_check_present(VFIODMATrack *t, Error **errp)
{
    if (vfio_dma_track_is_absent(t->vdev)) {
        error_setg(errp, "%s: the device does not answer",
                   t->vdev->vbasedev.name);
        return false;
    }
    return true;
}

bool vfio_dma_track_read_word(VFIODMATrack *t, uint32_t addr,
                              uint16_t *val, Error **errp)
{
    VFIODevice *vbasedev = &t->vdev->vbasedev;
    uint16_t val_le;
    int ret;

    if (!vfio_dma_track_check_present(t, errp)) {
        return false;
    }
    ret = vbasedev->io_ops->region_read(vbasedev, VFIO_PCI_CONFIG_REGION_INDEX,
                                        addr, sizeof(val_le), &val_le);
    if (ret != sizeof(val_le)) {
        error_setg(errp, "%s: failed to read config space at 0x%x: %s",
                   vbasedev->name, addr, strreaderror(ret));
        return false;
    }
    *val = le16_to_cpu(val_le);
    return true;
}

bool vfio_dma_track_write_word(VFIODMATrack *t, uint32_t addr,
                               uint16_t val, Error **errp)
{
    VFIODevice *vbasedev = &t->vdev->vbasedev;
    uint16_t val_le = cpu_to_le16(val);
    int ret;

    if (!vfio_dma_track_check_present(t, errp)) {
        return false;
    }
    ret = vbasedev->io_ops->region_write(vbasedev,
                                         VFIO_PCI_CONFIG_REGION_INDEX,
                                         addr, sizeof(val_le), &val_le, false);
    if (ret != sizeof(val_le)) {
        error_setg(errp, "%s: failed to write config space at 0x%x: %s",
                   vbasedev->name, addr, strwriteerror(ret));
        return false;
    }
    return true;
}

bool vfio_dma_track_read_command(VFIODMATrack *t, uint16_t *command,
                                 Error **errp)
{
    if (!vfio_dma_track_read_word(t, PCI_COMMAND, command, errp)) {
        return false;
    }
    if (*command == 0xffff) {
        error_setg(errp, "%s: the device does not answer",
                   t->vdev->vbasedev.name);
        return false;
    }
    return true;
}

uint16_t vfio_dma_track_guest_command(VFIODMATrack *t)
{
    return pci_get_word(t->fn.pdev->config + PCI_COMMAND);
}

bool vfio_dma_track_check_bus_master(VFIODMATrack *t, const char *step,
                                     Error **errp)
{
    uint16_t command;

    if (!vfio_dma_track_read_command(t, &command, errp)) {
        return false;
    }
    if (command & PCI_COMMAND_MASTER) {
        error_setg(errp, "%s: bus master is on %s (command 0x%04x)",
                   t->vdev->vbasedev.name, step, command);
        return false;
    }
    return true;
}

/*
 * The offset of the hardware's own PCI Express capability: QEMU hides it from
 * a guest that has the function on a conventional bus.
 */
static uint8_t vfio_dma_track_find_express(VFIODMATrack *t)
{
    uint16_t val;
    uint8_t pos;
    int i;

    if (!vfio_dma_track_read_word(t, PCI_STATUS, &val, NULL) ||
        !(val & PCI_STATUS_CAP_LIST) ||
        !vfio_dma_track_read_word(t, PCI_CAPABILITY_LIST, &val, NULL)) {
        return 0;
    }

    pos = val & 0xfc;
    for (i = 0; i < MAX_STD_CAPS && pos >= PCI_STD_HEADER_SIZEOF; i++) {
        if (!vfio_dma_track_read_word(t, pos, &val, NULL)) {
            return 0;
        }
        if ((val & 0xff) == PCI_CAP_ID_EXP) {
            return pos;
        }
        pos = (val >> 8) & 0xfc;
    }
    return 0;
}

/* --- The capability that the guest sees -------------------------------- */

void vfio_dma_track_update_dvsec(VFIODMATrack *t)
{
    uint8_t *dvsec = t->fn.pdev->config + t->dvsec;

    if (!t->dvsec) {
        return;
    }
    pci_set_word(dvsec + PCI_DMA_QUIESCE_STATUS,
                 t->held || t->quiesce.quiet ? PCI_DMA_QUIESCE_STATE_QUIESCED
                                             : PCI_DMA_QUIESCE_STATE_RUNNING);
    pci_set_long(dvsec + PCI_DMA_QUIESCE_GENERATION, t->fn.generation);
}

/*
 * Where the capability can go, or 0. It must be the same place on another
 * host with the same kind of function, so it is not searched for: either the
 * end of extended config space is free, or there are no extended capabilities.
 */
static uint16_t vfio_dma_track_dvsec_offset(VFIOPCIDevice *vdev)
{
    PCIDevice *pdev = PCI_DEVICE(vdev);

    if (!pci_is_express(pdev) || !pci_bus_is_express(pci_get_bus(pdev)) ||
        vdev->config_size < PCIE_CONFIG_SPACE_SIZE) {
        return 0;
    }

    /* The chain begins here, or nowhere. */
    if (!pci_get_long(pdev->config + PCI_CONFIG_SPACE_SIZE)) {
        return PCI_CONFIG_SPACE_SIZE;
    }

    if (!buffer_is_zero(pdev->config + DVSEC_OFFSET,
                        PCIE_CONFIG_SPACE_SIZE - DVSEC_OFFSET) ||
        !buffer_is_zero(vdev->emulated_config_bits + DVSEC_OFFSET,
                        PCIE_CONFIG_SPACE_SIZE - DVSEC_OFFSET)) {
        return 0;
    }
    return DVSEC_OFFSET;
}

/* The guest sees QEMU's registers at @offset, whatever is there. */
static void vfio_dma_track_emulate_dvsec(VFIODMATrack *t, uint16_t offset)
{
    VFIOPCIDevice *vdev = t->vdev;
    PCIDevice *pdev = t->fn.pdev;

    memset(vdev->emulated_config_bits + offset, 0xff, PCI_DMA_QUIESCE_LENGTH);
    memset(pdev->wmask + offset, 0, PCI_DMA_QUIESCE_LENGTH);
    pci_set_word(pdev->config + offset + PCI_DMA_QUIESCE_CONTROL, 0);
    /* These differ between source and destination. */
    memset(pdev->cmask + offset + PCI_DMA_QUIESCE_CONTROL, 0,
           PCI_DMA_QUIESCE_LENGTH - PCI_DMA_QUIESCE_CONTROL);

    t->dvsec = offset;
    t->fn.has_capability = true;
    vfio_dma_track_update_dvsec(t);
}

static void vfio_dma_track_add_dvsec(VFIODMATrack *t)
{
    VFIOPCIDevice *vdev = t->vdev;
    PCIDevice *pdev = t->fn.pdev;
    uint16_t offset = vfio_dma_quiesce_find(t);
    uint8_t *dvsec;

    /*
     * The hardware's own: the guest sees it if it sees extended config space.
     * A capability in the middle of the chain keeps its place.
     */
    if (offset && pcie_find_capability(pdev, PCI_EXT_CAP_ID_DVSEC)) {
        vfio_dma_track_emulate_dvsec(t, offset);
        return;
    }

    offset = vfio_dma_track_dvsec_offset(vdev);
    if (!offset ||
        !pcie_insert_capability(pdev, PCI_EXT_CAP_ID_DVSEC, 1, offset,
                                PCI_DMA_QUIESCE_LENGTH)) {
        return;
    }

    /* FLUSH is not offered: the hardware knows nothing of it. */
    dvsec = pdev->config + offset;
    memset(dvsec + PCI_DVSEC_HEADER1, 0,
           PCI_DMA_QUIESCE_LENGTH - PCI_DVSEC_HEADER1);
    pci_set_long(dvsec + PCI_DVSEC_HEADER1,
                 PCI_DMA_QUIESCE_VENDOR | PCI_DMA_QUIESCE_REVISION << 16 |
                 (uint32_t)PCI_DMA_QUIESCE_LENGTH << 20);
    pci_set_word(dvsec + PCI_DVSEC_HEADER2, PCI_DMA_QUIESCE_DVSEC_ID);
    vfio_dma_track_emulate_dvsec(t, offset);
}

/* --- Hold and lift ----------------------------------------------------- */

static void vfio_dma_track_emulate_command(VFIODMATrack *t, bool emulate)
{
    uint8_t *bits = t->vdev->emulated_config_bits + PCI_COMMAND;

    if (emulate) {
        pci_word_test_and_set_mask(bits, PCI_COMMAND_MASTER |
                                         PCI_COMMAND_INTX_DISABLE);
    } else {
        pci_word_test_and_clear_mask(bits, PCI_COMMAND_MASTER |
                                           PCI_COMMAND_INTX_DISABLE);
    }
}

bool vfio_dma_track_hold(VFIODMATrack *t, Error **errp)
{
    VFIOPCIDevice *vdev = t->vdev;
    PCIDevice *pdev = t->fn.pdev;
    uint16_t command;

    t->held = true;
    vfio_dma_track_emulate_command(t, true);
    vfio_dma_track_update_dvsec(t);

    /*
     * Out of a sleep state first: waking up later could restore the COMMAND
     * that was saved when the guest put the function to sleep. After a load
     * only QEMU's copy says that the function sleeps, which hides its BARs.
     */
    if (pdev->pm_cap) {
        uint32_t addr = pdev->pm_cap + PCI_PM_CTRL;
        uint16_t pmcsr = vfio_pci_read_config(pdev, addr, 2);

        if (pmcsr != 0xffff &&
            ((pmcsr | pci_get_word(pdev->config + addr)) &
             PCI_PM_CTRL_STATE_MASK)) {
            vfio_pci_write_config(pdev, addr, pmcsr & ~PCI_PM_CTRL_STATE_MASK,
                                  2);
        }
    }

    if (!vfio_dma_track_read_command(t, &command, errp) ||
        !vfio_dma_track_write_word(t, PCI_COMMAND,
                                   (command & ~PCI_COMMAND_MASTER) |
                                   PCI_COMMAND_INTX_DISABLE, errp)) {
        return false;
    }

    /* Nobody is going to answer an interrupt that was raised already. */
    if (vdev->intx.pending) {
        vdev->vbasedev.ops->vfio_eoi(&vdev->vbasedev);
    }

    trace_vfio_dma_track_hold(vdev->vbasedev.name, command,
                              vfio_dma_track_guest_command(t));
    return vfio_dma_track_check_bus_master(t, "after it was cleared", errp);
}

/* Keep the function held until UNFENCE or a reset of the machine. */
bool vfio_dma_track_fence(VFIODMATrack *t, Error **errp)
{
    t->fn.fenced = true;
    return vfio_dma_track_hold(t, errp);
}

/* Give the hardware what the guest wants it to have. Idempotent. */
static bool vfio_dma_track_lift(VFIODMATrack *t, Error **errp)
{
    uint16_t command = vfio_dma_track_guest_command(t);

    /* Taken away for a migration, if the function could not be resumed then. */
    if (!vfio_dma_quiesce_unblock(t, errp) ||
        !vfio_dma_track_write_word(t, PCI_COMMAND, command, errp)) {
        return false;
    }

    t->held = false;
    t->fn.fenced = false;
    vfio_dma_track_emulate_command(t, false);
    vfio_dma_track_update_dvsec(t);
    trace_vfio_dma_track_lift(t->vdev->vbasedev.name, command);
    return true;
}

uint32_t vfio_dma_track_filter_write(VFIOPCIDevice *vdev, uint32_t addr,
                                     uint32_t val, int len)
{
    VFIODMATrack *t = vdev->dma_track;
    uint32_t dvsec;
    int i;

    if (!t) {
        return val;
    }

    /*
     * Flushing is the host's business, and zero asks for nothing. Where the
     * hardware has no such capability, it must not keep what the guest writes.
     */
    dvsec = t->quiesce.flush ?: t->dvsec;
    if (dvsec && ranges_overlap(addr, len, dvsec, PCI_DMA_QUIESCE_LENGTH)) {
        for (i = 0; i < len; i++) {
            if (range_covers_byte(dvsec, PCI_DMA_QUIESCE_LENGTH, addr + i)) {
                val &= ~((uint32_t)0xff << (i * 8));
            }
        }
        return val;
    }

    if (!t->held || !ranges_overlap(addr, len, PCI_COMMAND, 2)) {
        return val;
    }

    for (i = 0; i < len; i++) {
        if (addr + i == PCI_COMMAND) {
            val &= ~((uint32_t)PCI_COMMAND_MASTER << (i * 8));
        } else if (addr + i == PCI_COMMAND + 1) {
            val |= (uint32_t)(PCI_COMMAND_INTX_DISABLE >> 8) << (i * 8);
        }
    }
    return val;
}

void vfio_dma_track_config_written(VFIOPCIDevice *vdev)
{
    VFIODMATrack *t = vdev->dma_track;
    uint16_t command;

    if (!t || !t->held ||
        !vfio_dma_track_read_word(t, PCI_COMMAND, &command, NULL) ||
        !(command & PCI_COMMAND_MASTER)) {
        return;
    }
    vfio_dma_track_write_word(t, PCI_COMMAND,
                              (command & ~PCI_COMMAND_MASTER) |
                              PCI_COMMAND_INTX_DISABLE, NULL);
}

/* --- Reset in the background ------------------------------------------- */

bool vfio_dma_track_has_reset(VFIODMATrack *t)
{
    return t->vdev->vbasedev.reset_works;
}

static void *vfio_dma_track_reset_thread(void *opaque)
{
    VFIODMATrack *t = opaque;
    int64_t begin = g_get_monotonic_time();
    int i, ret = -EAGAIN;

    for (i = 0; i < RESET_ATTEMPTS && ret == -EAGAIN; i++) {
        if (i) {
            g_usleep(RESET_RETRY_US);
        }
        ret = ioctl(t->vdev->vbasedev.fd, VFIO_DEVICE_RESET) ? -errno : 0;
    }

    t->reset_ret = ret;
    t->reset_us = g_get_monotonic_time() - begin;
    trace_vfio_dma_track_reset_end(t->vdev->vbasedev.name, ret);
    qatomic_store_release(&t->reset_over, true);
    qemu_bh_schedule(t->reset_bh);
    return NULL;
}

void vfio_dma_track_begin_reset(VFIODMATrack *t)
{
    uint16_t command;

    assert(!t->resetting);

    trace_vfio_dma_track_reset_begin(t->vdev->vbasedev.name);
    t->reset_unrecorded = t->stopped;
    /*
     * For one that is not there the kernel would wait for a minute, and so
     * would everybody who touches it meanwhile.
     */
    if (!vfio_dma_track_read_command(t, &command, NULL)) {
        t->reset_ret = -ENODEV;
        t->reset_us = 0;
        qemu_bh_schedule(t->reset_bh);
        return;
    }

    t->resetting = true;
    t->reset_begun_at = g_get_monotonic_time();
    t->reset_over = false;
    qemu_thread_create(&t->reset_thread, "vfio-reset",
                       vfio_dma_track_reset_thread, t, QEMU_THREAD_JOINABLE);
}

static void vfio_dma_track_join(VFIODMATrack *t)
{
    if (t->resetting) {
        qemu_thread_join(&t->reset_thread);
        /* It would take the next reset for this one, and wait for it. */
        qemu_bh_cancel(t->reset_bh);
        t->resetting = false;
    }
    if (t->reset_unrecorded) {
        Error *err = NULL;

        t->reset_unrecorded = false;
        vfio_dma_track_check_reset(t, &err);
        dma_track_function_record(&t->fn, DMA_QUIESCE_RESET, t->reset_us, err);
        error_free(err);
    }
}

bool vfio_dma_track_wait_reset(VFIODMATrack *t, int64_t limit, Error **errp)
{
    while (t->resetting && !qatomic_load_acquire(&t->reset_over)) {
        if (g_get_monotonic_time() > limit) {
            error_setg(errp, "%s: reset not finished in time",
                       t->vdev->vbasedev.name);
            return false;
        }
        g_usleep(RESET_POLL_US);
    }
    vfio_dma_track_join(t);
    return true;
}

bool vfio_dma_track_wait_reset_now(VFIODMATrack *t, Error **errp)
{
    return vfio_dma_track_wait_reset(t, g_get_monotonic_time() + RESET_US,
                                     errp);
}

bool vfio_dma_track_check_reset(VFIODMATrack *t, Error **errp)
{
    if (t->reset_ret) {
        error_setg_errno(errp, -t->reset_ret, "%s: reset failed",
                         t->vdev->vbasedev.name);
        return false;
    }
    return true;
}

/*
 * Join the reset that was begun for UNFENCE, lift the fence and tell. No-op
 * if there is none.
 */
static void vfio_dma_track_end_unfence(VFIODMATrack *t)
{
    DMATrackUnfenceDone *done = t->unfence_done;
    Error *err = NULL;
    bool ok;

    if (!done) {
        return;
    }

    vfio_dma_track_join(t);
    ok = vfio_dma_track_check_reset(t, &err) && vfio_dma_track_lift(t, &err);
    trace_vfio_dma_track_unfence(t->vdev->vbasedev.name, t->fn.generation,
                                 ok ? "ok" : error_get_pretty(err));

    t->unfence_done = NULL;
    done(t->unfence_opaque, err);
    error_free(err);
}

static void vfio_dma_track_reset_bh(void *opaque)
{
    vfio_dma_track_end_unfence(opaque);
}

/* --- Operations, see DMATrackFunctionOps ------------------------------- */

static bool vfio_dma_track_stop(DMATrackFunction *fn, Error **errp)
{
    VFIODMATrack *t = vfio_dma_track_from_fn(fn);

    if (!t->stopped) {
        if (!vfio_dma_track_wait_reset_now(t, errp)) {
            return false;
        }
        vfio_dma_track_end_unfence(t);
        t->stopped = true;
        t->reset_done = false;
        t->machine_reset = false;
    }

    trace_vfio_dma_track_stop(fn->name, vfio_dma_track_guest_command(t));
    vfio_dma_quiesce_begin(t);
    return true;
}

static void vfio_dma_track_drain(DMATrackFunction *fn)
{
    VFIODMATrack *t = vfio_dma_track_from_fn(fn);

    if (t->stopped) {
        vfio_dma_quiesce_drain(t);
    }
}

static bool vfio_dma_track_quiesce(DMATrackFunction *fn, Error **errp)
{
    return vfio_dma_quiesce_finish(vfio_dma_track_from_fn(fn), errp);
}

static DMAQuiesceList *vfio_dma_track_methods(DMATrackFunction *fn)
{
    return vfio_dma_quiesce_methods(vfio_dma_track_from_fn(fn));
}

static bool vfio_dma_track_reset(DMATrackFunction *fn, Error **errp)
{
    VFIODMATrack *t = vfio_dma_track_from_fn(fn);

    /* What was flushed has nothing left that could take effect later. */
    if (!vfio_dma_track_has_reset(t) || vfio_dma_quiesce_is_gentle(t) ||
        dma_track_step_suppressed(DMA_TRACK_STEP_RESET)) {
        return true;
    }
    if (!vfio_dma_track_wait_reset_now(t, errp)) {
        return false;
    }
    if (t->reset_done && !t->reset_ret) {
        return true;
    }
    t->reset_done = true;
    vfio_dma_track_begin_reset(t);
    return true;
}

static void vfio_dma_track_resume(DMATrackFunction *fn)
{
    VFIODMATrack *t = vfio_dma_track_from_fn(fn);
    Error *err = NULL;
    bool ok;

    if (!t->stopped) {
        return;
    }

    if (vfio_dma_quiesce_is_gentle(t) && !t->reset_done && !t->machine_reset) {
        ok = vfio_dma_quiesce_resume(t, &err);
        if (ok) {
            t->stopped = false;
            vfio_dma_quiesce_forget(t);
            vfio_dma_track_update_dvsec(t);
            trace_vfio_dma_track_resume(fn->name, fn->generation);
            return;
        }
        warn_report_err(err);
        err = NULL;
    }

    /*
     * Writes that were dropped while bus master was off are gone, so the rings
     * are out of step with memory: only a reset and a fresh start of the
     * driver help.
     */
    ok = vfio_dma_track_wait_reset_now(t, &err);
    if (!vfio_dma_track_fence(t, ok ? &err : NULL)) {
        ok = false;
    }
    if (t->reset_done && t->reset_ret) {
        t->reset_done = false;
    }
    if (ok && !t->reset_done && vfio_dma_track_has_reset(t)) {
        vfio_dma_track_begin_reset(t);
        ok = vfio_dma_track_wait_reset_now(t, &err) &&
             vfio_dma_track_check_reset(t, &err);
    }
    /* Not before it is quiet: it may have begun what the guest has given up. */
    ok = ok && vfio_dma_quiesce_unblock(t, &err);
    if (ok && (!t->vdev->dma_fence || t->machine_reset)) {
        ok = vfio_dma_track_lift(t, &err);
    }
    if (!ok) {
        /* It stays fenced. UNFENCE tries again. */
        warn_report_err(err);
    }

    t->stopped = false;
    t->reset_done = false;
    vfio_dma_quiesce_forget(t);
    dma_track_function_replaced(fn);
    vfio_dma_track_update_dvsec(t);
    trace_vfio_dma_track_resume(fn->name, fn->generation);
}

static void vfio_dma_track_unfence(DMATrackFunction *fn,
                                   DMATrackUnfenceDone *done, void *opaque)
{
    VFIODMATrack *t = vfio_dma_track_from_fn(fn);
    Error *err = NULL;

    if (t->stopped || t->unfence_done) {
        error_setg(&err, "%s: the function is %s", fn->name,
                   t->stopped ? "stopped for a migration"
                              : "being reset already");
        done(opaque, err);
        error_free(err);
        return;
    }

    /*
     * The guest can ask at any time, and a reset keeps others from the
     * function's config space: one for each fence, not one for each request.
     */
    if (!t->fn.fenced) {
        done(opaque, NULL);
        return;
    }

    /* One that was begun for the migration, and takes long. */
    if (!vfio_dma_track_wait_reset(t, 0, &err)) {
        done(opaque, err);
        error_free(err);
        return;
    }

    if (vfio_dma_track_has_reset(t)) {
        t->unfence_done = done;
        t->unfence_opaque = opaque;
        vfio_dma_track_begin_reset(t);
        return;
    }

    vfio_dma_track_lift(t, &err);
    done(opaque, err);
    error_free(err);
}

/* See DMATrackFunctionOps.end_unfence. */
static void vfio_dma_track_finish_unfence(DMATrackFunction *fn)
{
    vfio_dma_track_end_unfence(vfio_dma_track_from_fn(fn));
}

static bool vfio_dma_track_is_idle(DMATrackFunction *fn)
{
    VFIODMATrack *t = vfio_dma_track_from_fn(fn);

    return !(vfio_dma_track_guest_command(t) & PCI_COMMAND_MASTER);
}

static const DMATrackFunctionOps vfio_dma_track_ops = {
    .stop = vfio_dma_track_stop,
    .drain = vfio_dma_track_drain,
    .quiesce = vfio_dma_track_quiesce,
    .reset = vfio_dma_track_reset,
    .resume = vfio_dma_track_resume,
    .unfence = vfio_dma_track_unfence,
    .methods = vfio_dma_track_methods,
    .end_unfence = vfio_dma_track_finish_unfence,
    .is_idle = vfio_dma_track_is_idle,
};

void vfio_dma_track_device_reset(VFIOPCIDevice *vdev)
{
    VFIODMATrack *t = vdev->dma_track;
    Error *err = NULL;

    if (!t) {
        return;
    }

    vfio_dma_track_end_unfence(t);

    /*
     * A guest can reset a bus at any time, by a bridge's control register.
     * That is no UNFENCE: the driver may not be stopped, and the reset may not
     * have worked. The fence stays.
     */
    if (!resettable_is_in_reset(OBJECT(sysbus_get_default()))) {
        if (t->held && !vfio_dma_track_hold(t, &err)) {
            warn_report_err(err);
        }
        return;
    }

    t->machine_reset = true;
    /* A flush that was begun was begun by a function that is no more. */
    if (vfio_dma_quiesce_is_gentle(t)) {
        vfio_dma_quiesce_forget(t);
    }
    if (!t->stopped && t->held && !vfio_dma_track_lift(t, &err)) {
        warn_report_err(err);
    }
}

/* --- Realize and exit -------------------------------------------------- */

static void vfio_dma_track_vm_change(void *opaque, bool running, RunState state)
{
    VFIODMATrack *t = opaque;

    if (!running || !t->replaced) {
        return;
    }
    t->replaced = false;
    dma_track_function_replaced(&t->fn);
    vfio_dma_track_update_dvsec(t);
}

/*
 * Who tracks the function? DEVICE also if nobody can: vfio_migration_realize()
 * then finds the words to say so. @why tells why the function cannot migrate
 * by itself.
 */
static DMATrackedBy vfio_dma_track_resolve(VFIOPCIDevice *vdev, Error **why)
{
    VFIODevice *vbasedev = &vdev->vbasedev;
    DMATrackedBy by = vdev->dma_tracked_by;

    if (vbasedev->enable_migration == ON_OFF_AUTO_OFF) {
        return DMA_TRACKED_BY_DEVICE;
    }

    switch (by) {
    case DMA_TRACKED_BY_AUTO:
        /* enable-migration=on has always meant migration by the kernel. */
        if (vbasedev->mdev || vbasedev->enable_migration == ON_OFF_AUTO_ON ||
            vfio_migration_supported(vbasedev, why)) {
            return DMA_TRACKED_BY_DEVICE;
        }
        error_prepend(why, "%s: VFIO migration init failed: ", vbasedev->name);
        return DMA_TRACKED_BY_GUEST;
    case DMA_TRACKED_BY_GUEST:
        if (vfio_migration_supported(vbasedev, why)) {
            error_setg(why, "%s: migration is left to the guest by "
                       "dma-tracked-by=guest", vbasedev->name);
        } else {
            error_prepend(why, "%s: VFIO migration init failed: ",
                          vbasedev->name);
        }
        return by;
    default:
        return by;
    }
}

static bool vfio_dma_track_block(VFIOPCIDevice *vdev, Error **errp)
{
    VFIODevice *vbasedev = &vdev->vbasedev;

    error_setg(&vbasedev->migration_blocker,
               "%s: DMA tracking by the guest is not supported with vIOMMU "
               "enabled", vbasedev->name);
    return !migrate_add_blocker_normal(&vbasedev->migration_blocker, errp);
}

/* DMATrackFunctionOps.check of a function that the kernel migrates. */
static bool vfio_dma_track_check_device(DMATrackFunction *fn, Error **errp)
{
    VFIODevice *vbasedev = &VFIO_PCI_DEVICE(fn->pdev)->vbasedev;

    if (vbasedev->migration_blocker) {
        error_propagate(errp, error_copy(vbasedev->migration_blocker));
        return false;
    }
    /* As its handlers will say when a migration is asked for. */
    if (migrate_postcopy_ram() || migrate_background_snapshot()) {
        error_setg(errp, "%s: VFIO migration is not supported with %s",
                   vbasedev->name,
                   migrate_postcopy_ram() ? "postcopy migration"
                                          : "background snapshot");
        return false;
    }
    return true;
}

static const DMATrackFunctionOps vfio_dma_track_bystander_ops = {
    .check = vfio_dma_track_check_device,
};

/* The guest does not track it: query-dma-track tells of it all the same. */
static void vfio_dma_track_add_bystander(VFIOPCIDevice *vdev)
{
    DMATrackFunction *fn = g_new0(DMATrackFunction, 1);

    fn->pdev = PCI_DEVICE(vdev);
    fn->ops = &vfio_dma_track_bystander_ops;
    fn->name = vdev->vbasedev.name;
    fn->tracked_by = DMA_TRACKED_BY_DEVICE;
    vdev->bystander = fn;
    dma_track_bystander_register(fn);
}

static void vfio_dma_track_remove_bystander(VFIOPCIDevice *vdev)
{
    if (vdev->bystander) {
        dma_track_bystander_unregister(vdev->bystander);
        g_free(vdev->bystander);
        vdev->bystander = NULL;
    }
}

bool vfio_dma_track_realize(VFIOPCIDevice *vdev, Error **errp)
{
    VFIODevice *vbasedev = &vdev->vbasedev;
    Error *why = NULL;
    DMATrackedBy by = vfio_dma_track_resolve(vdev, &why);
    VFIODMATrack *t;

    if (by == DMA_TRACKED_BY_DEVICE) {
        error_free(why);
        if (!vfio_migration_realize(vbasedev, errp)) {
            return false;
        }
        vfio_dma_track_add_bystander(vdev);
        return true;
    }

    if (vbasedev->mdev) {
        error_free(why);
        error_setg(errp, "dma-tracked-by=%s is not supported for mediated "
                   "devices", DMATrackedBy_str(by));
        return false;
    }

    /* The guest's addresses are not the function's then. */
    if (vbasedev->bcontainer->space->as != &address_space_memory) {
        error_free(why);
        if (!vfio_dma_track_block(vdev, errp)) {
            return false;
        }
        vfio_dma_track_add_bystander(vdev);
        return true;
    }

    t = g_new0(VFIODMATrack, 1);
    t->vdev = vdev;
    t->untracked_error = why;
    t->fn.pdev = PCI_DEVICE(vdev);
    t->fn.ops = &vfio_dma_track_ops;
    t->fn.name = vbasedev->name;
    t->fn.tracked_by = by;
    t->fn.untracked_error = why;
    t->express = vfio_dma_track_find_express(t);
    t->reset_bh = aio_bh_new_guarded(qemu_get_aio_context(),
                                     vfio_dma_track_reset_bh, t,
                                     &DEVICE(vdev)->mem_reentrancy_guard);
    vfio_dma_track_add_dvsec(t);
    if (!vfio_dma_quiesce_realize(t, errp)) {
        error_free(why);
        qemu_bh_delete(t->reset_bh);
        g_free(t);
        return false;
    }

    t->vm_state = qdev_add_vm_change_state_handler(DEVICE(vdev),
                                                   vfio_dma_track_vm_change,
                                                   NULL, t);
    vfio_dma_track_register_state(t);

    vbasedev->guest_tracked = true;
    vdev->dma_track = t;
    dma_track_function_register(&t->fn);

    trace_vfio_dma_track_realize(vbasedev->name, DMATrackedBy_str(by),
                                 t->dvsec, t->express,
                                 vfio_dma_track_has_reset(t));
    return true;
}

void vfio_dma_track_exit(VFIOPCIDevice *vdev)
{
    VFIODMATrack *t = vdev->dma_track;

    vfio_dma_track_remove_bystander(vdev);
    if (!t) {
        return;
    }

    vfio_dma_track_end_unfence(t);
    vfio_dma_track_join(t);
    dma_track_function_unregister(&t->fn);
    vdev->dma_track = NULL;
    vdev->vbasedev.guest_tracked = false;

    vfio_dma_track_unregister_state(t);
    qemu_del_vm_change_state_handler(t->vm_state);
    qemu_bh_delete(t->reset_bh);
    error_free(t->untracked_error);
    g_free(t);
}
