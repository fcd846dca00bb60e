# SPDX-License-Identifier: GPL-2.0-only
"""Guests and hosts that know fewer feature bits than the other, or more.

A guest of an older version accepts none of the device's bits, one of a later
version would accept all, also those that there are not yet. A host of an older
version offers none. Each guest is put before each host, and moves from each
host to each: with its pages, or it is refused with a text that says why. That
is so when a bit is in force that the other host lacks; so it is seen as well
that nothing is in force that one side does not know. The same with a real
driver is in suite conformance.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'host', 'qtest'))

# pylint: disable=wrong-import-position
import guest as g           # noqa: E402
import moves                # noqa: E402
import paths                # noqa: E402
import pinned               # noqa: E402
from bench import Bench     # noqa: E402
from guest import wait_for  # noqa: E402

# What a host offers, by the property that withdraws it: all bits there are.
HOSTS = {'old': (',sync-dirty=off', 0), 'new': (',sync-dirty=on', 1)}
# Bits that the device may have one day.
LATER = 0x00fffffe
GUESTS = {'old': 0, 'new': 1, 'later': 1 | LATER}
# Of the device, below those of the ring and the transport.
DEVICE_BITS = 0x00ffffff


class Driver(g.DmaTrack):
    """Accepts what it would like, whether or not it is offered."""

    def start(self, features=g.VERSION_1):
        super().start(features)
        # Once more from the beginning, and then without asking first.
        qemu = self.qemu
        self.reset()
        qemu.poke(self.common + 0x14, 1 | 2, 'b')
        for select, bits in ((0, self.accept), (1, features)):
            qemu.poke(self.common + 0x08, select, 'l')
            qemu.poke(self.common + 0x0c, bits, 'l')
        qemu.poke(self.common + 0x14, 1 | 2 | 8, 'b')
        self.enable_queue()
        qemu.poke(self.common + 0x14, 1 | 2 | 4 | 8, 'b')


def begin(bench, host, guest):
    """A guest of that version before a host of that version."""
    options, _ = HOSTS[host]
    qemu = bench.qemu('source', *moves.EDU, *moves.track(options))
    edu = g.Edu(qemu, moves.EDU_SLOT, moves.EDU_BAR)
    driver = Driver(qemu, moves.TRACK_SLOT, moves.TRACK_BAR)
    driver.accept = GUESTS[guest]
    driver.become_ready()
    driver.say(0, moves.EDU_SBDF, g.TRACKED)
    return qemu, edu, driver


def move(bench, edu, driver, options):
    """Migrate a page that is pinned; returns how that ended, and where."""
    qemu = driver.qemu
    dst, uri = bench.destination(moves.track(options))
    qemu.write(moves.TARGET, moves.OLD)
    qemu.write(moves.PAYLOAD, moves.NEW)
    edu.load(moves.PAYLOAD, g.FRAME)
    driver.pin(moves.TARGET, moves.RUN)
    edu.store(moves.TARGET, g.FRAME)
    qemu.command('migrate', uri=uri)
    return moves.finish(qemu, driver), dst


def matrix(bench):
    tap = bench.tap
    for host, (_, offered) in HOSTS.items():
        for guest, wanted in GUESTS.items():
            name = f'{guest} guest, {host} host'
            qemu, _, driver = begin(bench, host, guest)
            tap.equal(driver.features & DEVICE_BITS, offered,
                      f'{name}: the host offers {offered:#x}')
            tap.equal((driver.broken(), qemu.dma_track()['migratable']),
                      (False, True), f'{name}: they work together')
            for there, (options, provided) in HOSTS.items():
                check_move(bench, f'{name}, to a {there} host', (host, guest),
                           options, not offered & wanted & ~provided)
            bench.clear()


def check_move(bench, name, versions, options, fits):
    tap = bench.tap
    bench.clear()
    qemu, edu, driver = begin(bench, *versions)
    end, dst = move(bench, edu, driver, options)
    if fits:
        tap.equal(end, 'completed', f'{name}: it moves')
        wait_for('destination runs',
                 lambda: dst.command('query-status')['running'])
        tap.equal(pinned.arrived(dst, moves.TARGET), 'new',
                  f'{name}: with the page that its device wrote')
        there = bench.driver(dst)
        there.adopt(driver)
        tap.equal(there.ack(there.read_config()[1]), g.OK,
                  f'{name}: its driver goes on there')
        return
    # The destination reads it after the source has sent it all.
    dst.process.wait(g.DEADLINE)
    tap.ok(dst.process.returncode == 1 and 'nsupported' in dst.output() and
           'virtio-dma-track' in dst.output(),
           f'{name}: it is refused there', f'{end} {dst.output()}')


def run(tap, binary):
    bench = Bench(os.path.abspath(binary or paths.qemu()), tap)
    try:
        bench.tap.run(matrix, bench)
    finally:
        bench.close()
