/*
 * PCI DMA quiesce capability of emulated functions
 *
 * A device model offers with it what hardware would: to finish what it has
 * begun, to begin nothing new, and to go on later as if nothing had been. See
 * standard-headers/linux/pci_dma_quiesce.h for the registers and their rules.
 *
 * Two use it: whoever writes the function's configuration space, which is
 * another host when the function is assigned in a guest; and migration, for a
 * function with x-untracked-dma.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_PCI_DMA_QUIESCE_H
#define HW_PCI_DMA_QUIESCE_H

#include "hw/pci/pci_device.h"
#include "migration/vmstate.h"
#include "standard-headers/linux/pci_dma_quiesce.h"

/* Both are called with the BQL held. */
typedef struct PCIDMAQuiesceOps {
    /*
     * Begin to flush, and call pci_dma_quiesce_flushed() or _failed() when that
     * has ended: from here, or later. While the VM is stopped it must end here,
     * because nothing lets time go by then.
     */
    void (*flush)(PCIDevice *pdev);
    /* Go on, with what was asked for and what came in the meantime. */
    void (*resume)(PCIDevice *pdev);
} PCIDMAQuiesceOps;

/* One function's state. Protected by the BQL. */
typedef struct PCIDMAQuiesce {
    PCIDevice *pdev;
    const PCIDMAQuiesceOps *ops;
    /* Of the capability in configuration space. */
    uint16_t offset;
    /* PCI_DMA_QUIESCE_STATE_*; STATUS always shows the same. */
    uint8_t state;
    /* It was migration that wrote FLUSH. */
    bool held;
    /* Messages that wait for RESUME: one bit per vector. */
    uint32_t msi_kept;
    uint64_t msix_kept;
    VMChangeStateEntry *vm_change;
} PCIDMAQuiesce;

/**
 * pci_dma_quiesce_init: give the function the capability
 *
 * @offset is in extended configuration space, behind all other capabilities.
 * The function has at most 64 MSI-X vectors, and they are initialized before.
 * To be undone by pci_dma_quiesce_exit(). All other functions of this file but
 * _needed, _hold and _check can be called for a device without it, and do
 * nothing then.
 */
void pci_dma_quiesce_init(PCIDevice *pdev, uint16_t offset,
                          const PCIDMAQuiesceOps *ops);
void pci_dma_quiesce_exit(PCIDevice *pdev);

/* For the device's config_write, after pci_default_write_config(). */
void pci_dma_quiesce_write_config(PCIDevice *pdev, uint32_t addr, uint32_t val,
                                  int len);

/*
 * For the device's reset: back to RUNNING. The device forgets by itself what it
 * was to go on with.
 */
void pci_dma_quiesce_reset(PCIDevice *pdev);

/*
 * From FLUSH to RESUME: the device starts nothing. Also what the device asks
 * in its post_load; the state is loaded by then.
 */
static inline bool pci_dma_quiesce_is_stopped(const PCIDevice *pdev)
{
    const PCIDMAQuiesce *q = pdev->dma_quiesce;

    return q && (q->state == PCI_DMA_QUIESCE_STATE_FLUSHING ||
                 q->state == PCI_DMA_QUIESCE_STATE_QUIESCED);
}

/* FLUSH was seen, and the device has not said that it is flushed. */
static inline bool pci_dma_quiesce_is_flushing(const PCIDevice *pdev)
{
    const PCIDMAQuiesce *q = pdev->dma_quiesce;

    return q && q->state == PCI_DMA_QUIESCE_STATE_FLUSHING;
}

/* From then to RESUME: what would go to memory, interrupts included, waits. */
static inline bool pci_dma_quiesce_is_quiesced(const PCIDevice *pdev)
{
    const PCIDMAQuiesce *q = pdev->dma_quiesce;

    return q && q->state == PCI_DMA_QUIESCE_STATE_QUIESCED;
}

/* The device says how its flush ended. */
void pci_dma_quiesce_flushed(PCIDevice *pdev);
void pci_dma_quiesce_failed(PCIDevice *pdev);

/*
 * For msi_notify() and msix_notify(): true if the message must wait, and is
 * sent after RESUME. The pin is the device's own business.
 */
bool pci_dma_quiesce_keep_msi(PCIDevice *pdev, unsigned int vector);
bool pci_dma_quiesce_keep_msix(PCIDevice *pdev, unsigned int vector);

/* --- For migration ------------------------------------------------------ */

/*
 * FLUSH of a function of a stopped VM, which pci_dma_quiesce_release() takes
 * back: a function that its guest has flushed stays so. Idempotent.
 */
void pci_dma_quiesce_hold(PCIDevice *pdev);

/* Is it QUIESCED, whoever wanted that? */
bool pci_dma_quiesce_check(PCIDevice *pdev, Error **errp);

/*
 * RESUME after pci_dma_quiesce_hold(). It takes effect when the VM runs, here
 * or where it was moved to, and is called by itself then: a device that went on
 * in a stopped VM would send what another host may send again. Idempotent.
 */
void pci_dma_quiesce_release(PCIDevice *pdev);

/*
 * For a subsection of the device's vmstate, named "DEVICE/dma-quiesce", whose
 * only field is VMSTATE_PCI_DMA_QUIESCE(). The PCIDevice must be the first
 * member of the device's state.
 */
bool pci_dma_quiesce_needed(void *opaque);
extern const VMStateDescription vmstate_pci_dma_quiesce;
#define VMSTATE_PCI_DMA_QUIESCE() \
    VMSTATE_STRUCT_POINTER(dma_quiesce, PCIDevice, vmstate_pci_dma_quiesce, \
                           PCIDMAQuiesce)

#endif
