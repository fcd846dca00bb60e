/*
 * A wire to a network device that does not stop with the VM
 *
 *     -device dma-test-wire,netdev-id=net0,fd=N -device igb,netdev=net0,...
 *
 * QEMU's network backends deliver nothing while the VM is stopped. Hardware
 * knows nothing of that: its wire goes on, and packets are written to memory
 * until somebody stops the function. So does this one.
 *
 * The other end is a socket that keeps packets apart (SOCK_SEQPACKET). A packet
 * stays in it until the device has room for it, so that none is lost on the
 * way. Two QEMUs may have the same socket, as long as only one of them takes
 * packets: the property "plugged" can be set at any time, as a switch learns at
 * some time that the guest has moved.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/sockets.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "hw/core/qdev-properties.h"
#include "net/net.h"
#include "qom/object.h"

#define TYPE_DMA_TEST_WIRE "dma-test-wire"
OBJECT_DECLARE_SIMPLE_TYPE(DMATestWire, DMA_TEST_WIRE)

/* A device does not say when it has room again: look that often. */
#define DMA_TEST_WIRE_RETRY_MS 1
/* Packets per callback, so that the wire cannot occupy the main loop. */
#define DMA_TEST_WIRE_BURST 64

typedef struct DMATestWireClient {
    NetClientState nc;
    DMATestWire *wire;
} DMATestWireClient;

struct DMATestWire {
    DeviceState parent_obj;

    /* Properties. */
    char *netdev_id;
    char *fd_name;

    DMATestWireClient *client;
    int fd;
    bool plugged;
    /* Pending while the device has no room. */
    QEMUTimer *retry;

    uint8_t packet[NET_BUFSIZE];
    /* Of one that the device has refused though it had room; else 0. */
    ssize_t size;

    uint64_t delivered;
    /* Sent by the device while the socket had no room. */
    uint64_t dropped;
};

/* Returns false if there is nothing to do before the device has room. */
static bool dma_test_wire_deliver(DMATestWire *w)
{
    NetClientState *peer = w->client->nc.peer;

    if (!w->plugged || !peer || !qemu_can_receive_packet(peer)) {
        return false;
    }
    if (!w->size) {
        w->size = recv(w->fd, w->packet, sizeof(w->packet), 0);
        if (w->size <= 0) {
            /* No packet, or no other end any more. */
            bool again = w->size < 0;

            w->size = 0;
            return again;
        }
    }
    if (!qemu_receive_packet(peer, w->packet, w->size)) {
        return false;
    }
    w->size = 0;
    w->delivered++;
    return true;
}

static void dma_test_wire_readable(void *opaque);

static void dma_test_wire_listen(DMATestWire *w, bool listen)
{
    qemu_set_fd_handler(w->fd, listen ? dma_test_wire_readable : NULL, NULL, w);
}

static void dma_test_wire_readable(void *opaque)
{
    DMATestWire *w = opaque;
    uint64_t begin;
    int i;

    for (i = 0; i < DMA_TEST_WIRE_BURST; i++) {
        begin = w->delivered;
        if (!dma_test_wire_deliver(w)) {
            dma_test_wire_listen(w, false);
            timer_mod(w->retry, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                DMA_TEST_WIRE_RETRY_MS);
            return;
        }
        if (w->delivered == begin) {
            break;
        }
    }
    dma_test_wire_listen(w, true);
}

/* What the device sends. The other end reads all the time. */
static ssize_t dma_test_wire_receive(NetClientState *nc, const uint8_t *buf,
                                     size_t size)
{
    DMATestWireClient *client = DO_UPCAST(DMATestWireClient, nc, nc);

    if (RETRY_ON_EINTR(send(client->wire->fd, buf, size, 0)) < 0) {
        client->wire->dropped++;
    }
    return size;
}

static NetClientInfo dma_test_wire_client_info = {
    .type = NET_CLIENT_DRIVER_DGRAM,
    .size = sizeof(DMATestWireClient),
    .receive = dma_test_wire_receive,
};

static void dma_test_wire_realize(DeviceState *dev, Error **errp)
{
    DMATestWire *w = DMA_TEST_WIRE(dev);
    NetClientState *nc;

    if (!w->netdev_id || qemu_strtoi(w->fd_name, NULL, 10, &w->fd)) {
        error_setg(errp, "properties 'netdev-id' and 'fd' (a number) are "
                   "needed");
        return;
    }
    if (!qemu_set_blocking(w->fd, false, errp)) {
        return;
    }
    nc = qemu_new_net_client(&dma_test_wire_client_info, NULL,
                             TYPE_DMA_TEST_WIRE, w->netdev_id);
    nc->is_netdev = true;
    w->client = DO_UPCAST(DMATestWireClient, nc, nc);
    w->client->wire = w;
    w->retry = timer_new_ms(QEMU_CLOCK_REALTIME, dma_test_wire_readable, w);
    dma_test_wire_listen(w, true);
}

static bool dma_test_wire_get_plugged(Object *obj, Error **errp)
{
    return DMA_TEST_WIRE(obj)->plugged;
}

static void dma_test_wire_set_plugged(Object *obj, bool plugged, Error **errp)
{
    DMA_TEST_WIRE(obj)->plugged = plugged;
}

static void dma_test_wire_instance_init(Object *obj)
{
    DMATestWire *w = DMA_TEST_WIRE(obj);

    w->plugged = true;
    object_property_add_bool(obj, "plugged", dma_test_wire_get_plugged,
                             dma_test_wire_set_plugged);
    object_property_add_uint64_ptr(obj, "delivered", &w->delivered,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "dropped", &w->dropped,
                                   OBJ_PROP_FLAG_READ);
}

static const Property dma_test_wire_properties[] = {
    DEFINE_PROP_STRING("netdev-id", DMATestWire, netdev_id),
    DEFINE_PROP_STRING("fd", DMATestWire, fd_name),
};

static void dma_test_wire_class_init(ObjectClass *klass, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    dc->desc = "Wire that does not stop with the VM";
    dc->realize = dma_test_wire_realize;
    /* The network device would have to go first. */
    dc->hotpluggable = false;
    device_class_set_props(dc, dma_test_wire_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo dma_test_wire_info = {
    .name = TYPE_DMA_TEST_WIRE,
    .parent = TYPE_DEVICE,
    .instance_size = sizeof(DMATestWire),
    .instance_init = dma_test_wire_instance_init,
    .class_init = dma_test_wire_class_init,
};

static void dma_test_wire_register_types(void)
{
    type_register_static(&dma_test_wire_info);
}

type_init(dma_test_wire_register_types)
