/*
 * PCI functions that the kernel cannot migrate and whose DMA the guest tracks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VFIO_VFIO_DMA_TRACK_H
#define HW_VFIO_VFIO_DMA_TRACK_H

#include "pci.h"

/**
 * vfio_dma_track_realize: decide how @vdev migrates and prepare for it
 *
 * Resolves the property dma-tracked-by. Leaves a function that migrates by
 * itself, or not at all, to vfio_migration_realize(). Any other is registered
 * with DMA tracking, carries the capability of pci_dma_quiesce.h where there is
 * room, and has VFIODevice.guest_tracked set. The last step of realize; undone
 * by vfio_dma_track_exit() and vfio_migration_exit(). With the BQL held.
 */
bool vfio_dma_track_realize(VFIOPCIDevice *vdev, Error **errp);

/**
 * vfio_dma_track_exit: undo vfio_dma_track_realize()
 *
 * Waits for a reset that is running. No-op for a function that the guest does
 * not track. With the BQL held.
 */
void vfio_dma_track_exit(VFIOPCIDevice *vdev);

/**
 * vfio_dma_track_device_reset: the machine or the function's bus was reset
 *
 * With the machine, what the guest had begun with the function is gone: lifts
 * the fence. While the function is stopped for a migration, that waits for the
 * end of it. A bus is reset by the guest itself: the fence stays. To be called
 * when the reset of the hardware is done. With the BQL held.
 */
void vfio_dma_track_device_reset(VFIOPCIDevice *vdev);

/**
 * vfio_dma_track_is_absent: the function does not come back from a reset
 *
 * The kernel lets nobody read or write its config space before it gives up,
 * which takes a minute; who tries waits for that. Reads are all ones meanwhile,
 * and writes go nowhere. With the BQL held.
 */
bool vfio_dma_track_is_absent(VFIOPCIDevice *vdev);

/**
 * vfio_dma_track_filter_write: what of a config write may reach the hardware
 * @addr: first byte written
 * @val: what is written, in host byte order
 * @len: number of bytes, 1 to 4
 *
 * While the host holds the function, bus master stays off and INTx stays
 * disabled in hardware, whatever the guest writes. With the BQL held.
 */
uint32_t vfio_dma_track_filter_write(VFIOPCIDevice *vdev, uint32_t addr,
                                     uint32_t val, int len);

/**
 * vfio_dma_track_config_written: the guest wrote to config space
 *
 * A change of the power state or a reset that the guest asked for can restore
 * old register values: see that a held function is still held. With the BQL
 * held.
 *
 * There is no moment in which a function level reset lets a held function
 * master the bus: the kernel saves COMMAND first, with bus master off as we
 * have left it, a function comes out of reset with bus master off, and off is
 * what is restored. The generation does not change either.
 */
void vfio_dma_track_config_written(VFIOPCIDevice *vdev);

#endif
