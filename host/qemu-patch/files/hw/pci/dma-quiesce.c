/*
 * PCI DMA quiesce capability of emulated functions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/range.h"
#include "hw/pci/dma-quiesce.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "hw/pci/pcie.h"
#include "system/runstate.h"
#include "trace.h"

static const char *pci_dma_quiesce_state_name(uint8_t state)
{
    static const char *const names[] = {
        [PCI_DMA_QUIESCE_STATE_RUNNING] = "running",
        [PCI_DMA_QUIESCE_STATE_FLUSHING] = "flushing",
        [PCI_DMA_QUIESCE_STATE_QUIESCED] = "quiesced",
        [PCI_DMA_QUIESCE_STATE_ERROR] = "error",
    };

    return names[state];
}

static void pci_dma_quiesce_set_state(PCIDMAQuiesce *q, uint8_t state)
{
    q->state = state;
    pci_set_word(q->pdev->config + q->offset + PCI_DMA_QUIESCE_STATUS, state);
    trace_pci_dma_quiesce(q->pdev->name, pci_dma_quiesce_state_name(state));
}

static void pci_dma_quiesce_flush(PCIDMAQuiesce *q)
{
    if (q->state != PCI_DMA_QUIESCE_STATE_RUNNING) {
        return;
    }
    pci_dma_quiesce_set_state(q, PCI_DMA_QUIESCE_STATE_FLUSHING);
    q->ops->flush(q->pdev);
}

static void pci_dma_quiesce_send_kept(PCIDMAQuiesce *q)
{
    PCIDevice *pdev = q->pdev;
    uint32_t msi = q->msi_kept;
    uint64_t msix = q->msix_kept;
    int i;

    q->msi_kept = 0;
    q->msix_kept = 0;
    /* The guest may have changed its mind on how many there are. */
    if (msi_enabled(pdev)) {
        for (i = 0; i < msi_nr_vectors_allocated(pdev); i++) {
            if (msi & BIT(i)) {
                msi_notify(pdev, i);
            }
        }
    }
    if (msix_enabled(pdev)) {
        for (i = 0; i < pdev->msix_entries_nr; i++) {
            if (msix & BIT_ULL(i)) {
                msix_notify(pdev, i);
            }
        }
    }
}

static void pci_dma_quiesce_resume(PCIDMAQuiesce *q)
{
    if (!pci_dma_quiesce_is_stopped(q->pdev)) {
        return;
    }
    q->held = false;
    pci_dma_quiesce_set_state(q, PCI_DMA_QUIESCE_STATE_RUNNING);
    pci_dma_quiesce_send_kept(q);
    q->ops->resume(q->pdev);
}

void pci_dma_quiesce_write_config(PCIDevice *pdev, uint32_t addr, uint32_t val,
                                  int len)
{
    PCIDMAQuiesce *q = pdev->dma_quiesce;
    uint32_t control;

    if (!q) {
        return;
    }
    control = q->offset + PCI_DMA_QUIESCE_CONTROL;
    if (!range_covers_byte(addr, len, control)) {
        return;
    }

    val >>= (control - addr) * 8;
    switch (addr + len - control == 1 ? val & 0xff : val & 0xffff) {
    case PCI_DMA_QUIESCE_CONTROL_FLUSH:
        pci_dma_quiesce_flush(q);
        break;
    case PCI_DMA_QUIESCE_CONTROL_RESUME:
        pci_dma_quiesce_resume(q);
        break;
    }
}

void pci_dma_quiesce_reset(PCIDevice *pdev)
{
    PCIDMAQuiesce *q = pdev->dma_quiesce;

    if (q) {
        q->held = false;
        q->msi_kept = 0;
        q->msix_kept = 0;
        pci_dma_quiesce_set_state(q, PCI_DMA_QUIESCE_STATE_RUNNING);
    }
}

void pci_dma_quiesce_flushed(PCIDevice *pdev)
{
    if (pci_dma_quiesce_is_flushing(pdev)) {
        pci_dma_quiesce_set_state(pdev->dma_quiesce,
                                  PCI_DMA_QUIESCE_STATE_QUIESCED);
    }
}

void pci_dma_quiesce_failed(PCIDevice *pdev)
{
    if (pci_dma_quiesce_is_flushing(pdev)) {
        pci_dma_quiesce_set_state(pdev->dma_quiesce,
                                  PCI_DMA_QUIESCE_STATE_ERROR);
    }
}

bool pci_dma_quiesce_keep_msi(PCIDevice *pdev, unsigned int vector)
{
    if (!pci_dma_quiesce_is_quiesced(pdev)) {
        return false;
    }
    pdev->dma_quiesce->msi_kept |= BIT(vector);
    return true;
}

bool pci_dma_quiesce_keep_msix(PCIDevice *pdev, unsigned int vector)
{
    if (!pci_dma_quiesce_is_quiesced(pdev)) {
        return false;
    }
    pdev->dma_quiesce->msix_kept |= BIT_ULL(vector);
    return true;
}

/* --- For migration ------------------------------------------------------ */

void pci_dma_quiesce_hold(PCIDevice *pdev)
{
    PCIDMAQuiesce *q = pdev->dma_quiesce;

    if (q->state == PCI_DMA_QUIESCE_STATE_RUNNING) {
        q->held = true;
        pci_dma_quiesce_flush(q);
    }
}

bool pci_dma_quiesce_check(PCIDevice *pdev, Error **errp)
{
    uint8_t state = pdev->dma_quiesce->state;

    if (state == PCI_DMA_QUIESCE_STATE_QUIESCED) {
        return true;
    }
    error_setg(errp, "the ring flush did not end: its state is '%s'",
               pci_dma_quiesce_state_name(state));
    return false;
}

void pci_dma_quiesce_release(PCIDevice *pdev)
{
    PCIDMAQuiesce *q = pdev->dma_quiesce;

    if (q && q->held && runstate_is_running()) {
        pci_dma_quiesce_resume(q);
    }
}

static void pci_dma_quiesce_vm_change(void *opaque, bool running,
                                      RunState state)
{
    PCIDMAQuiesce *q = opaque;

    if (running) {
        pci_dma_quiesce_release(q->pdev);
    }
}

/* A function without the state in the stream is RUNNING, as after a reset. */
bool pci_dma_quiesce_needed(void *opaque)
{
    PCIDevice *pdev = opaque;

    return pdev->dma_quiesce &&
           pdev->dma_quiesce->state != PCI_DMA_QUIESCE_STATE_RUNNING;
}

static int pci_dma_quiesce_post_load(void *opaque, int version_id)
{
    PCIDMAQuiesce *q = opaque;

    if (q->state > PCI_DMA_QUIESCE_STATE_ERROR) {
        error_report("%s: DMA quiesce state in the stream makes no sense",
                     q->pdev->name);
        return -EINVAL;
    }
    pci_dma_quiesce_set_state(q, q->state);
    return 0;
}

const VMStateDescription vmstate_pci_dma_quiesce = {
    .name = "pci-dma-quiesce",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = pci_dma_quiesce_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(state, PCIDMAQuiesce),
        VMSTATE_BOOL(held, PCIDMAQuiesce),
        VMSTATE_UINT32(msi_kept, PCIDMAQuiesce),
        VMSTATE_UINT64(msix_kept, PCIDMAQuiesce),
        VMSTATE_END_OF_LIST()
    }
};

/* --- Life --------------------------------------------------------------- */

static char *pci_dma_quiesce_get_state(Object *obj, Error **errp)
{
    PCIDMAQuiesce *q = PCI_DEVICE(obj)->dma_quiesce;

    return g_strdup(pci_dma_quiesce_state_name(q->state));
}

void pci_dma_quiesce_init(PCIDevice *pdev, uint16_t offset,
                          const PCIDMAQuiesceOps *ops)
{
    PCIDMAQuiesce *q = g_new0(PCIDMAQuiesce, 1);
    uint8_t *dvsec = pdev->config + offset;

    assert(pdev->msix_entries_nr <= 64);
    pcie_add_capability(pdev, PCI_EXT_CAP_ID_DVSEC, 1, offset,
                        PCI_DMA_QUIESCE_LENGTH);
    pci_set_long(dvsec + PCI_DVSEC_HEADER1,
                 PCI_DMA_QUIESCE_VENDOR | PCI_DMA_QUIESCE_REVISION << 16 |
                 (uint32_t)PCI_DMA_QUIESCE_LENGTH << 20);
    pci_set_word(dvsec + PCI_DVSEC_HEADER2, PCI_DMA_QUIESCE_DVSEC_ID);
    pci_set_word(dvsec + PCI_DMA_QUIESCE_CAP, PCI_DMA_QUIESCE_CAP_FLUSH);
    /* STATUS is the source's while a stream is loaded, and not the same. */
    memset(pdev->cmask + offset + PCI_DMA_QUIESCE_STATUS, 0,
           sizeof(uint16_t));

    q->pdev = pdev;
    q->ops = ops;
    q->offset = offset;
    q->vm_change = qdev_add_vm_change_state_handler(DEVICE(pdev),
                                                    pci_dma_quiesce_vm_change,
                                                    NULL, q);
    pdev->dma_quiesce = q;
    object_property_add_str(OBJECT(pdev), "dma-quiesce-state",
                            pci_dma_quiesce_get_state, NULL);
}

void pci_dma_quiesce_exit(PCIDevice *pdev)
{
    PCIDMAQuiesce *q = pdev->dma_quiesce;

    if (!q) {
        return;
    }
    object_property_del(OBJECT(pdev), "dma-quiesce-state");
    pdev->dma_quiesce = NULL;
    qemu_del_vm_change_state_handler(q->vm_change);
    g_free(q);
}
