# SPDX-License-Identifier: GPL-2.0-only
"""What keeps a guest busy while it moves, and tells what was lost."""

import re

import bed
import oracle
import vm

KINDS = oracle.KINDS


class Traffic:
    """TCP both ways, a UDP echo that the peer times, a CPU that writes memory.

    The peer lives in a network namespace of L1, behind the physical function.
    """

    # A block of 8 KiB each way per period: busy, not saturated.
    STREAM_PERIOD_US = 40000
    PING_PERIOD_US = 10000

    def __init__(self, test_bed, guest):
        self.bed = test_bed
        self.guest = guest
        self.name = None
        self.commands = []
        self.server = self.stream = self.ping = None

    def start(self):
        self.name = self.guest.set_up_network()
        self.server = self.bed.in_peer('traffic serve 5001')
        self.server.line('serving')
        dirty = self.guest.agent.start('exec traffic dirty 256 20000')
        dirty.line('dirtying')
        echo = self.guest.agent.start('exec traffic echo 5003')
        echo.line('echoing')
        self.ping = self.bed.in_peer(
            f'traffic ping {bed.GUEST_IP} 5003 {self.PING_PERIOD_US}')
        self.ping.line('steady')
        self.stream = self.guest.agent.start(
            f'exec traffic stream {bed.PEER_IP} 5001 {self.STREAM_PERIOD_US}')
        self.wait_stream()
        self.commands = [dirty, echo]
        return self

    def wait_stream(self):
        """Wait until the guest has taken another block off the stream."""
        first = self.stream.line(r'received (\d+)')
        while True:
            later = self.stream.line(r'received (\d+)')
            if int(later[1]) > int(first[1]):
                return

    def wait_ping(self):
        """Wait for 100 replies in a row that came after this was called."""
        self.ping.skip()
        for _ in range(2):
            self.ping.line(r'steady \d+')

    def finish(self, guest):
        """End all; guest is where it runs by now. Returns the findings."""
        self.wait_ping()
        self.wait_stream()
        address = guest.run(f'ip addr show {self.name}')
        self.stream.signal()
        stream_status = self.stream.wait()
        served = self.server.line(r'peer end .* bad (\d+)')
        self.ping.signal()
        self.ping.wait()
        for command in self.commands:
            command.signal()
        self.server.signal()
        longest = re.search(r'longest ([\d.]+) ms', self.ping.text())
        ended = re.search(r'stream end .* bad (\d+)', self.stream.text())
        return {
            'udp_outage_ms': float(longest[1]),
            'tcp_ok': bool(stream_status == 0 and ended and
                           ended[1] == '0' and served[1] == '0'),
            'same_address': bed.GUEST_IP in address and
            bed.GUEST_MAC in address,
            'stream': ended[0] if ended else self.stream.text()[-200:],
        }

    def abandon(self):
        """End all at once: whether anything survived is not asked."""
        for command in (self.stream, self.ping, self.server, *self.commands):
            command.signal(9)


class Oracle:
    """The DMA test device at work in the guest.

    kind: bed.PEER for the second one
    """

    def __init__(self, test_bed, guest, kind='oracle'):
        self.bed = test_bed
        self.guest = guest
        self.kind = kind
        self.slot = guest.slot
        self.directory = None
        self.pages = None

    def control(self, command, deadline=60):
        self.guest.run(f'echo {command} > {self.directory}/control', deadline)

    def status(self, guest=None):
        text = (guest or self.guest).run(f'cat {self.directory}/status')
        return dict(line.split('=', 1) for line in text.splitlines()
                    if '=' in line)

    def prepare(self, counter_us=1000):
        """Allocate the frames; before migrate.

        counter_us: how often the device stores its counter while it works
        """
        self.guest.run(f'echo {counter_us} > '
                       '/sys/module/dma_oracle/parameters/periodic_us')
        found = self.guest.run(
            'echo /sys/kernel/debug/dma_oracle/*:*').split()
        # In the order of their ports.
        self.directory = found[-1 if self.kind == bed.PEER else 0]
        self.control('prepare')
        self.control('selftest')
        return self

    def work(self):
        """Write all frames again; after each was sent once."""
        self.bed.set_marker(self.slot, oracle.MARK_EXPOSED, self.kind)
        self.control('stamp', 120)
        # Not earlier: half of the frames were only mapped by that.
        self.pages = oracle.parse_pages(
            self.guest.run(f'cat {self.directory}/pages'))
        self.control('stream')
        # What is to be in flight at the stop, not only in the queue.
        bed.wait_until(lambda: self.bed.issued(self.slot, self.kind) >= 32,
                       'the stream of transfers runs', every=0.02)

    def log(self):
        return oracle.Log(self.bed.oracle_log(self.slot, self.kind))

    def wait_restored(self, guest, deadline=60, times=1):
        """Wait until the driver was brought back in guest so many times."""
        return bed.wait_until(
            lambda: (lambda s: s if int(s.get('restores', '0')) >= times
                     else None)(self.status(guest)),
            'the driver of the test device is brought back', deadline)

    def check(self, guest, stop=None, unstopped=False):
        """Compare guest's memory with the log of the source's device.

        stop, unstopped: see oracle.check()
        """
        frames = guest.read_frames([page.gpa for page in self.pages])
        return oracle.check(self.log(), self.pages, frames.__getitem__,
                            stop=stop, resumed=guest is self.guest,
                            unstopped=unstopped)


def tracking(guest):
    """What QEMU says about tracking."""
    return guest.qmp.command('query-dma-track')


def wait_tracked(guest, deadline=60):
    """Wait until QEMU would let the guest move."""
    def movable():
        info = tracking(guest)
        return info if info['migratable'] else None

    try:
        return bed.wait_until(movable, 'the guest may move', deadline, 0.3)
    except vm.Timeout:
        raise vm.Timeout(f'not migratable: {tracking(guest)}') from None
