/*
 * Virtio DMA tracking device, PCI bindings
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "hw/virtio/virtio-dma-track.h"
#include "hw/virtio/virtio-pci.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qom/object.h"

#define TYPE_VIRTIO_DMA_TRACK_PCI "virtio-dma-track-pci-base"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIODMATrackPCI, VIRTIO_DMA_TRACK_PCI)

struct VirtIODMATrackPCI {
    VirtIOPCIProxy parent_obj;
    VirtIODMATrack vdev;
};

static void virtio_dma_track_pci_realize(VirtIOPCIProxy *vpci_dev,
                                         Error **errp)
{
    VirtIODMATrackPCI *dev = VIRTIO_DMA_TRACK_PCI(vpci_dev);
    DeviceState *vdev = DEVICE(&dev->vdev);

    /* One for the configuration space, one for the request queue. */
    vpci_dev->nvectors = 2;
    virtio_pci_force_virtio_1(vpci_dev);
    qdev_realize(vdev, BUS(&vpci_dev->bus), errp);
}

static void virtio_dma_track_pci_class_init(ObjectClass *klass,
                                            const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioPCIClass *k = VIRTIO_PCI_CLASS(klass);
    PCIDeviceClass *pcidev_k = PCI_DEVICE_CLASS(klass);

    k->realize = virtio_dma_track_pci_realize;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    pcidev_k->revision = VIRTIO_PCI_ABI_VERSION;
    pcidev_k->class_id = PCI_CLASS_OTHERS;
}

static void virtio_dma_track_pci_instance_init(Object *obj)
{
    VirtIODMATrackPCI *dev = VIRTIO_DMA_TRACK_PCI(obj);

    virtio_instance_init_common(obj, &dev->vdev, sizeof(dev->vdev),
                                TYPE_VIRTIO_DMA_TRACK);
}

static const VirtioPCIDeviceTypeInfo virtio_dma_track_pci_info = {
    .base_name     = TYPE_VIRTIO_DMA_TRACK_PCI,
    .generic_name  = "virtio-dma-track-pci",
    .instance_size = sizeof(VirtIODMATrackPCI),
    .instance_init = virtio_dma_track_pci_instance_init,
    .class_init    = virtio_dma_track_pci_class_init,
};

static void virtio_dma_track_pci_register(void)
{
    virtio_pci_types_register(&virtio_dma_track_pci_info);
}

type_init(virtio_dma_track_pci_register)
