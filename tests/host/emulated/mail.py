# SPDX-License-Identifier: GPL-2.0-only
"""Packets that a stock network driver received and nobody has read yet.

The device wrote them after their pages were sent; the socket's queue holds on
to the pages and no CPU touches the payload, so nothing heals a loss. The driver
has unmapped the pages: what is shown is that frames are handed over.
"""

import os
import re
import signal
import socket
import struct

import guest
import images
import move

PROVIDER = ['-device', 'virtio-dma-track-pci,addr=6']
PORT = 7000
SIZE = 1400
# Fewer than the buffers a driver posts when it starts: all of these were
# posted, and sent, before.
COUNT = 100

E1000E = ['-device', 'e1000e,bus=rp1,netdev=net0,mac=52:54:00:cc:00:01,'
                     'x-untracked-dma=on']
IGB = ['-device', 'igb,bus=rp1,netdev=net0,mac=52:54:00:cc:00:02,'
                  'x-untracked-dma=on']

# Prints name and address of the driver's interface once it has a carrier.
INTERFACE = r'''
for dev in /sys/class/net/*; do
    driver=$(readlink $dev/device/driver)
    case ${driver##*/} in
    igb|%(driver)s) ip link set ${dev##*/} up ;;
    esac
    [ "${driver##*/}" = %(driver)s ] && name=${dev##*/}
done
[ "$name" ] && [ "$(cat /sys/class/net/$name/carrier)" = 1 ] || exit 0
ip addr add 10.9.0.10/24 dev $name 2>/dev/null
echo $name $(cat /sys/class/net/$name/address)
'''
ENABLE_VF = 'cd /sys/bus/pci/drivers/igb/0000:* && echo 1 > sriov_numvfs'


def checksum(data):
    """Of the Internet protocols."""
    if len(data) % 2:
        data += b'\0'
    total = sum(struct.unpack(f'>{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def payload(number):
    """As tests/guest/programs/inbox.c wants it."""
    return struct.pack('>I', number) + bytes(
        (number * 251 + i * 7 + number // 256) % 256 for i in range(4, SIZE))


def frame(mac, number):
    """An Ethernet frame with one datagram for the guest."""
    source, target = bytes([10, 9, 0, 1]), bytes([10, 9, 0, 10])
    length = 8 + SIZE
    pseudo = source + target + struct.pack('>BBH', 0, 17, length)
    udp = struct.pack('>HHHH', 9, PORT, length, 0) + payload(number)
    udp = udp[:6] + struct.pack('>H', checksum(pseudo + udp) or 0xffff) + \
        udp[8:]
    head = struct.pack('>BBHHHBBH', 0x45, 0, 20 + length, 0, 0, 64, 17, 0) + \
        source + target
    head = head[:10] + struct.pack('>H', checksum(head)) + head[12:]
    return bytes.fromhex(mac.replace(':', '')) + b'\x52\x54\0\xdd\0\1' + \
        b'\x08\0' + head + udp


class Post:
    """The other end of both sides' network."""

    def __init__(self, directory, name):
        self.paths = {}
        self.sockets = {}
        for side in ('source', 'destination'):
            path = os.path.relpath(os.path.join(directory, f'{name}-{side}'))
            self.paths[side] = path + '.net'
            self.sockets[side] = socket.socket(socket.AF_UNIX,
                                               socket.SOCK_DGRAM)
            self.sockets[side].bind(path + '.post')
            self.sockets[side].setblocking(False)

    def netdev(self, side):
        local = self.paths[side]
        return ['-netdev', 'dgram,id=net0,local.type=unix,remote.type=unix,'
                           f'local.path={local},'
                           f'remote.path={local[:-4]}.post']

    def deliver(self, side, mac, number):
        guest.wait_until(lambda: self._send(side, frame(mac, number)),
                         f'room for frame {number}', 60, 0.01)

    def _send(self, side, data):
        # What the guest has to say does not matter, but must not stay.
        try:
            while self.sockets[side].recv(4096):
                pass
        except BlockingIOError:
            pass
        try:
            return self.sockets[side].sendto(data, self.paths[side])
        except BlockingIOError:
            return 0


def interface(machine, driver):
    """(name, MAC) of the driver's interface, up and with a carrier."""
    return guest.wait_until(
        lambda: machine.agent.run(INTERFACE % {'driver': driver}).split(),
        f'a carrier for {driver}', 60, 0.3)


def received(machine, name):
    return int(machine.agent.run(
        f'cat /sys/class/net/{name}/statistics/rx_packets'))


def deliver(machine, post, side, name, mac):
    """Send COUNT datagrams and see them arrive."""
    begin = received(machine, name)
    for number in range(COUNT):
        post.deliver(side, mac, number)
    guest.wait_until(lambda: received(machine, name) >= begin + COUNT,
                     'all packets')


def open_inbox(machine):
    inbox = machine.agent.start(f'exec inbox {PORT} {SIZE}')
    inbox.line('^ready')
    return inbox


def read_inbox(inbox):
    """(received, wrong)."""
    inbox.signal(signal.SIGUSR1)
    return tuple(map(int, inbox.line(
        r'^received (\d+) wrong (\d+)').groups()))


def run_mail(tap, directory, name, driver, devices, modules):
    """One move with unread packets; (received, wrong), or None."""
    post = Post(directory, name)
    with move.Move(tap, directory, name, devices, modules,
                   netdevs=post.netdev,
                   programs={'inbox': images.program('inbox')}) as pair:
        source = pair.source
        if driver == 'igbvf':
            source.agent.run(ENABLE_VF)
        interface_name, mac = interface(source, driver)
        inbox = open_inbox(source)
        pair.wait_tracked()
        pair.start()
        pair.wait_sent_once()
        deliver(source, post, 'source', interface_name, mac)
        status = pair.complete()
        if status != 'completed':
            tap.note(pair.info.get('error-desc', ''))
            return None
        pair.go_on()
        result = read_inbox(inbox)
        tap.note(f'{name}: {result[0]} packets, {result[1]} wrong')
        second = open_inbox(pair.destination)
        deliver(pair.destination, post, 'destination', interface_name, mac)
        tap.equal(read_inbox(second), (COUNT, 0),
                  f'{driver} receives on after the move ({name})')
        pair.destination.report_trouble(tap)
        return result


def compare(tap, directory, driver, device, modules):
    control = run_mail(tap, directory, f'{driver}-control', driver, device,
                       modules)
    tap.ok(control and control[1] >= 0.9 * COUNT,
           f'unread packets of {driver} are lost if nobody tracks them',
           control)
    tracked = run_mail(tap, directory, f'{driver}-tracked', driver,
                       device + PROVIDER, modules)
    tap.equal(tracked, (COUNT, 0), f'unread packets of {driver} survive')


def packets_of_e1000e(tap, directory):
    compare(tap, directory, 'e1000e', E1000E, ['dma_track', 'e1000e'])


def packets_of_a_virtual_function(tap, directory):
    compare(tap, directory, 'igbvf', IGB, ['dma_track', 'igbvf', 'igb'])


def packet_is_what_inbox_wants(tap, _directory):
    """The two ends were written in two languages."""
    found = re.search(rb'\x1b\x58.{4}(\0\0\x02\x01.{4})',
                      frame('00:00:00:00:00:00', 513), re.DOTALL)
    wanted = bytes((513 * 251 + i * 7 + 2) % 256 for i in range(4, 8))
    tap.equal(found and found.group(1)[4:], wanted, 'payload as agreed')


def run(tap, directory):
    for test in (packet_is_what_inbox_wants, packets_of_e1000e,
                 packets_of_a_virtual_function):
        tap.run(test, tap, directory)
