# SPDX-License-Identifier: GPL-2.0-only
"""A migration between two emulators whose guest the test plays."""

import guest as g
from guest import Failed, wait_for

MIB = 1 << 20
EDU_SLOT, TRACK_SLOT = 4, 5
EDU_BAR, TRACK_BAR = 0xfea00000, 0xfeb00000
EDU_SBDF = EDU_SLOT << 3
# In messages.
WHO = 'edu (guest 00:04.0)'
EDU = ['-device', 'edu,id=edu,addr=%d,x-untracked-dma=on' % EDU_SLOT]

# Low memory is sent first; this comes after it, and lasts.
BULK, BULK_SIZE = 0x1000000, 0xe000000

# Guest memory of the migration tests. What lies low is sent first.
PAYLOAD = 0x200000
TARGET = 0x400000               # runs of eight pages from here on
RUN = 8 * g.FRAME
OLD, NEW = b'\x11' * g.FRAME, b'\x5a' * g.FRAME


def track(options=''):
    """Arguments for the device."""
    return ['-device', 'virtio-dma-track-pci,id=track,addr=%d%s'
            % (TRACK_SLOT, options)]


def over(qemu):
    """The migration's final state, or None."""
    status = qemu.status()
    return status if status in ('completed', 'failed', 'cancelled') else None


def finish(qemu, driver=None, **what):
    """Play the guest until the migration is over; return its final state."""
    end = []

    def step():
        end[:] = [over(qemu)] if over(qemu) else []
        if not end and driver:
            driver.serve(**what)
        return end

    if driver:
        driver.give_up = lambda: over(qemu)
    wait_for('end of the migration', step)
    if driver:
        driver.give_up = lambda: False
    return end[0]


def slow(qemu):
    """Make the first pass last: low memory is sent long before the end."""
    qemu.fill(BULK, BULK_SIZE, 0x77)
    qemu.command('migrate-set-parameters', max_bandwidth=40 * MIB,
                 downtime_limit=100)


def wait_for_transfer(qemu, driver, size):
    """Play the guest until so many bytes are sent."""
    def step():
        if over(qemu):
            raise Failed('the migration is over too early: %s %s'
                         % (over(qemu), qemu.error()))
        if driver:
            driver.serve()
        ram = qemu.command('query-migrate').get('ram', {})
        return ram.get('transferred', 0) > size
    wait_for('%d bytes sent' % size, step)


def fast(qemu):
    """Let the rest go at once."""
    qemu.command('migrate-set-parameters', max_bandwidth=1 << 33)


def wait_for_passes(qemu, driver, number):
    """Play the guest for so many passes of a migration that must not end."""
    def passes():
        driver.serve()
        if over(qemu):
            raise Failed('the migration is over: %s %s'
                         % (over(qemu), qemu.error()))
        ram = qemu.command('query-migrate').get('ram', {})
        return ram.get('dirty-sync-count', 0) > number
    wait_for('%d passes' % number, passes)


def power_off(qemu, slot):
    """What the guest of a 'pc' machine does to a slot of bus 0."""
    qemu.out(0xae10, 0, 'l')
    qemu.out(0xae08, 1 << slot, 'l')
