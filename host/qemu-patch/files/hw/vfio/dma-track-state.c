/*
 * What a function tracked by the guest sends along: the guest's view of its
 * config space, and enough to tell a function that cannot take its place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "hw/pci/pci.h"
#include "migration/dma-track.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "trace.h"
#include "vfio-dma-track-internal.h"

#define SECTION_NAME "vfio-dma-track"

/* What follows in the section "vfio-dma-track". */
enum {
    /* CPR: the same function goes on in a new QEMU. */
    STATE_SAME_FUNCTION = 1,
    /* Another function takes its place. */
    STATE_NEW_FUNCTION  = 2,
};

#define STATE_END               0x646d612d74726163ULL

/*
 * What must be the same for one function to take another's place. Sent ahead
 * of the config space, so that the wrong function is refused in plain words.
 */
typedef struct VFIODMATrackIdentity {
    const char *what;
    uint64_t value;
} VFIODMATrackIdentity;

#define NR_IDENTITY (8 + PCI_NUM_REGIONS)

static void vfio_dma_track_identity(VFIODMATrack *t,
                                    VFIODMATrackIdentity id[NR_IDENTITY])
{
    PCIDevice *pdev = t->fn.pdev;
    VFIOPCIDevice *vdev = t->vdev;
    int n = 0, i;

    id[n++] = (VFIODMATrackIdentity) {
        "vendor ID", vfio_pci_read_config(pdev, PCI_VENDOR_ID, 2),
    };
    id[n++] = (VFIODMATrackIdentity) {
        "device ID", vfio_pci_read_config(pdev, PCI_DEVICE_ID, 2),
    };
    id[n++] = (VFIODMATrackIdentity) {
        "subsystem vendor ID",
        vfio_pci_read_config(pdev, PCI_SUBSYSTEM_VENDOR_ID, 2),
    };
    id[n++] = (VFIODMATrackIdentity) {
        "subsystem ID", vfio_pci_read_config(pdev, PCI_SUBSYSTEM_ID, 2),
    };
    id[n++] = (VFIODMATrackIdentity) {
        "class and revision",
        vfio_pci_read_config(pdev, PCI_CLASS_REVISION, 4),
    };
    id[n++] = (VFIODMATrackIdentity) {
        "size of config space", pci_config_size(pdev),
    };
    id[n++] = (VFIODMATrackIdentity) {
        "number of MSI-X vectors", vdev->msix ? vdev->msix->entries : 0,
    };
    id[n++] = (VFIODMATrackIdentity) {
        "place of the DMA quiesce capability", t->dvsec,
    };
    for (i = 0; i < PCI_NUM_REGIONS; i++) {
        static const char *const bar[PCI_NUM_REGIONS] = {
            "size of BAR 0", "size of BAR 1", "size of BAR 2",
            "size of BAR 3", "size of BAR 4", "size of BAR 5",
            "size of the ROM BAR",
        };

        id[n++] = (VFIODMATrackIdentity) { bar[i], pdev->io_regions[i].size };
    }
    assert(n == NR_IDENTITY);
}

static bool vfio_dma_track_check_saveable(VFIODMATrack *t, Error **errp)
{
    if (!t->stopped) {
        error_setg(errp, "%s: the function was not quiesced", t->fn.name);
        return false;
    }
    if (!vfio_dma_track_wait_reset_now(t, errp) ||
        (t->reset_done && !vfio_dma_track_check_reset(t, errp))) {
        return false;
    }
    if (vfio_dma_quiesce_is_gentle(t)) {
        return vfio_dma_quiesce_check_flushed(t, errp);
    }
    return dma_track_step_suppressed(DMA_TRACK_STEP_BUSMASTER) ||
           vfio_dma_track_check_bus_master(t, "when its state was saved", errp);
}

static void vfio_dma_track_save_state(QEMUFile *f, void *opaque)
{
    VFIODMATrack *t = opaque;
    VFIODevice *vbasedev = &t->vdev->vbasedev;
    VFIODMATrackIdentity id[NR_IDENTITY];
    Error *err = NULL;
    int i, ret;

    if (migrate_mode() != MIG_MODE_NORMAL) {
        qemu_put_be32(f, STATE_SAME_FUNCTION);
        qemu_put_be32(f, t->fn.generation);
        qemu_put_be32(f, t->held);
        qemu_put_be64(f, STATE_END);
        return;
    }

    if (!vfio_dma_track_check_saveable(t, &err)) {
        qemu_file_set_error_obj(f, -EIO, err);
        return;
    }

    qemu_put_be32(f, STATE_NEW_FUNCTION);
    qemu_put_be32(f, t->fn.generation);
    vfio_dma_track_identity(t, id);
    for (i = 0; i < NR_IDENTITY; i++) {
        qemu_put_be64(f, id[i].value);
    }

    ret = vbasedev->ops->vfio_save_config(vbasedev, f, &err);
    if (ret) {
        error_prepend(&err, "%s: failed to save config space: ", t->fn.name);
        qemu_file_set_error_obj(f, ret, err);
        return;
    }
    qemu_put_be64(f, STATE_END);
    trace_vfio_dma_track_save(t->fn.name, t->fn.generation,
                              vfio_dma_track_guest_command(t));
}

/*
 * Registers that the guest reads from the hardware need not be equal: link
 * status, error status and serial numbers differ between equal functions. The
 * interrupt pin must be: QEMU indexes with its copy of it.
 */
static void vfio_dma_track_prepare_compare(VFIODMATrack *t)
{
    PCIDevice *pdev = t->fn.pdev;
    int i;

    pdev->cmask[PCI_INTERRUPT_PIN] = 0xff;
    for (i = PCI_STD_HEADER_SIZEOF;
         i < MIN(pci_config_size(pdev), t->vdev->config_size); i++) {
        pdev->cmask[i] &= t->vdev->emulated_config_bits[i];
    }
}

static int vfio_dma_track_load_new_function(VFIODMATrack *t, QEMUFile *f)
{
    VFIODevice *vbasedev = &t->vdev->vbasedev;
    VFIODMATrackIdentity id[NR_IDENTITY];
    Error *err = NULL;
    uint16_t command;
    int i, ret;

    vfio_dma_track_identity(t, id);
    for (i = 0; i < NR_IDENTITY; i++) {
        uint64_t value = qemu_get_be64(f);

        ret = qemu_file_get_error(f);
        if (ret) {
            return ret;
        }
        if (value != id[i].value) {
            error_report("%s: this function cannot take the place of the "
                         "source's: %s is 0x%" PRIx64 " here and 0x%" PRIx64
                         " there", t->fn.name, id[i].what, id[i].value, value);
            return -EINVAL;
        }
    }

    /* From here on the guest's COMMAND stays with QEMU. */
    if (t->vdev->dma_fence && !vfio_dma_track_fence(t, &err)) {
        error_report_err(err);
        return -EIO;
    }

    /*
     * Loading maps the BARs for the other functions' use, which fails while
     * the hardware does not decode them. The guest's own COMMAND comes last.
     */
    if (!vfio_dma_track_read_command(t, &command, &err) ||
        !vfio_dma_track_write_word(t, PCI_COMMAND,
                                   command | PCI_COMMAND_MEMORY, &err)) {
        error_report_err(err);
        return -EIO;
    }

    vfio_dma_track_prepare_compare(t);
    ret = vbasedev->ops->vfio_load_config(vbasedev, f);
    if (ret) {
        error_report("%s: failed to load config space", t->fn.name);
        return ret;
    }

    /* A pin that was asserted on the source has nobody here to release it. */
    if (t->fn.pdev->config[PCI_INTERRUPT_PIN]) {
        pci_irq_deassert(t->fn.pdev);
    }
    /* Also brings the function out of the guest's sleep state. */
    if (t->held && !vfio_dma_track_hold(t, &err)) {
        error_report_err(err);
        return -EIO;
    }
    t->replaced = true;
    return 0;
}

static int vfio_dma_track_load_state(QEMUFile *f, void *opaque, int version_id)
{
    VFIODMATrack *t = opaque;
    uint32_t kind = qemu_get_be32(f);
    uint32_t generation = qemu_get_be32(f);
    Error *err = NULL;
    int ret = qemu_file_get_error(f);

    if (ret) {
        return ret;
    }

    switch (kind) {
    case STATE_SAME_FUNCTION:
        if (qemu_get_be32(f) && !vfio_dma_track_fence(t, &err)) {
            error_report_err(err);
            return -EIO;
        }
        break;
    case STATE_NEW_FUNCTION:
        ret = vfio_dma_track_load_new_function(t, f);
        if (ret) {
            return ret;
        }
        break;
    default:
        error_report("%s: unknown kind of state 0x%x", t->fn.name, kind);
        return -EINVAL;
    }

    /*
     * dma_track_function_replaced() adds one when the guest is to run: the
     * provider may not be loaded yet.
     */
    t->fn.generation = generation;
    vfio_dma_track_update_dvsec(t);
    trace_vfio_dma_track_load(t->fn.name, generation,
                              vfio_dma_track_guest_command(t), t->fn.fenced);

    if (qemu_get_be64(f) != STATE_END) {
        error_report("%s: state does not end where it should", t->fn.name);
        return -EINVAL;
    }
    return qemu_file_get_error(f);
}

static const SaveVMHandlers savevm_vfio_dma_track_handlers = {
    .save_state = vfio_dma_track_save_state,
    .load_state = vfio_dma_track_load_state,
};

void vfio_dma_track_register_state(VFIODMATrack *t)
{
    g_autofree char *oid = vmstate_if_get_id(VMSTATE_IF(t->vdev));
    g_autofree char *path = NULL;
    char id[256] = "";

    path = oid ? g_strdup_printf("%s/" SECTION_NAME, oid)
               : g_strdup(SECTION_NAME);
    strpadcpy(id, sizeof(id), path, '\0');
    register_savevm_live(id, VMSTATE_INSTANCE_ID_ANY, 1,
                         &savevm_vfio_dma_track_handlers, t);
}

void vfio_dma_track_unregister_state(VFIODMATrack *t)
{
    unregister_savevm(VMSTATE_IF(t->vdev), SECTION_NAME, t);
}
