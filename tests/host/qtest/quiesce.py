# SPDX-License-Identifier: GPL-2.0-only
"""The ring-flush capability of pci_dma_quiesce.h, as device models offer it.

The test writes configuration space as the host of an assigned function does,
and plays the function's driver. Interrupts are messages to memory: a vector's
address is a frame of guest RAM, where the test sees whether it was sent.
"""

import os
import socket
import struct

from guest import DEADLINE, Failed, FRAME, wait_for
from moves import finish

SLOT = 7
DEVFN = SLOT << 3
ECAM = 0xb0000000
# Registers and MSI-X table of a device, and of virtual functions.
BAR, MSIX_BAR = 0xfe900000, 0xfe940000
VF_BAR, VF_MSIX_BAR = 0xfe400000, 0xfe500000

# Offsets in the capability, commands, states.
CAP, CONTROL, STATUS, GENERATION = 0x0a, 0x0c, 0x0e, 0x10
FLUSH, RESUME = 1, 2
RUNNING, FLUSHING, QUIESCED, ERROR = range(4)

# Guest memory.
RINGS, DATA, MESSAGES = 0x200000, 0x240000, 0x300000
MESSAGE = 0x4d534900


class Function:
    """A PCI function on bus 0, all of its configuration space."""

    def __init__(self, qemu, devfn):
        self.qemu = qemu
        self.base = ECAM | devfn << 12
        self.enable_ecam()
        self.cap = self.find(0x23)

    def enable_ecam(self):
        self.qemu.config_write(0, 0x60, ECAM | 1, 'l')

    def read(self, offset, width):
        return self.qemu.peek(self.base + offset, width)

    def write(self, offset, value, width):
        self.qemu.poke(self.base + offset, value, width)

    def find(self, kind):
        """An extended capability, or 0."""
        offset = 0x100
        while offset:
            head = self.read(offset, 'l')
            if head & 0xffff == kind:
                return offset
            offset = head >> 20
        return 0

    def find_standard(self, kind):
        offset = self.read(0x34, 'b')
        while offset and self.read(offset, 'b') != kind:
            offset = self.read(offset + 1, 'b')
        return offset

    def command(self, value, width='w'):
        self.write(self.cap + CONTROL, value, width)

    def state(self):
        return self.read(self.cap + STATUS, 'w')

    def master(self):
        self.write(0x04, 0x6, 'w')

    def reset(self):
        """A function level reset; of the machine if there is none."""
        express = self.find_standard(0x10)
        if self.read(express + 4, 'l') & 1 << 28:
            self.write(express + 8, 1 << 15, 'w')
            return
        self.qemu.command('system_reset')
        wait_for('reset of the machine', lambda: self.qemu.command(
            'query-status') and any(event['event'] == 'RESET'
                                    for event in self.qemu.events))
        self.qemu.events.clear()
        self.enable_ecam()

    def use_msix(self, table):
        """Let each vector write to a frame of memory."""
        cap = self.find_standard(0x11)
        size = (self.read(cap + 2, 'w') & 0x7ff) + 1
        self.write(cap + 2, 0x8000, 'w')
        for vector in range(size):
            at = table + 16 * vector
            self.qemu.poke(at, MESSAGES + FRAME * vector, 'l')
            self.qemu.poke(at + 4, 0, 'l')
            self.qemu.poke(at + 8, MESSAGE | vector, 'l')
            self.qemu.poke(at + 12, 0, 'l')

    def messages(self):
        """Which vectors were sent since this was asked last."""
        found = []
        for vector in range(8):
            at = MESSAGES + FRAME * vector
            if self.qemu.peek(at, 'l') == MESSAGE | vector:
                found.append(vector)
                self.qemu.poke(at, 0, 'l')
        return found


# --- dma-test ---------------------------------------------------------------

class DmaTest(Function):
    """Its driver; see hw/misc/dma_test_abi.h."""

    COMPLETION = 1024

    def __init__(self, qemu):
        super().__init__(qemu, DEVFN)
        self.tail = 0

    def start(self, width=4):
        self.write(0x10, BAR, 'l')
        self.write(0x18, MSIX_BAR, 'l')
        self.master()
        self.use_msix(MSIX_BAR)
        self.tail = 0
        for offset, value in ((0x10, RINGS), (0x18, 64), (0x24, 64),
                              (0x28, RINGS + FRAME), (0x30, 10),
                              (0x38, width), (0x08, 1)):
            self.set(offset, value)

    def set(self, offset, value):
        self.qemu.poke(BAR + offset, value, 'l')

    def get(self, offset):
        return self.qemu.peek(BAR + offset, 'l')

    def queue(self, number, delay_ms=0):
        """Have so many frames stamped, each with an interrupt."""
        for index in range(self.tail, self.tail + number):
            self.qemu.write(
                RINGS + 32 * (index % 64),
                struct.pack('<QIHHQII', DATA + FRAME * index, 64, 0x8001, 0,
                            index, delay_ms * 1000, index))
        self.tail += number
        self.set(0x1c, self.tail)

    def fetched(self):
        return self.get(0x20)

    def completions(self):
        """How many; they are in order and their frames are stamped."""
        count = 0
        while struct.unpack('<I', self.qemu.read(
                RINGS + FRAME + self.COMPLETION * (count % 64), 4))[0] == \
                count + 1:
            if not any(self.qemu.read(DATA + FRAME * count, 64)):
                raise Failed('completion %d without its data' % count)
            count += 1
        return count

    def periodic(self, interval_us):
        for offset, value in ((0x40, DATA), (0x50, 1), (0x48, interval_us)):
            self.set(offset, value)

    def count(self):
        return self.get(0x58)


def dma_test(options=',dma-quiesce=on', untracked=''):
    return ['-device', 'dma-test,id=dev,addr=%d,clock=virtual%s%s'
            % (SLOT, options, untracked)]


def start_dma_test(bench, options=',dma-quiesce=on', **arguments):
    qemu = bench.qemu('plain', *dma_test(options))
    device = DmaTest(qemu)
    device.start(**arguments)
    return qemu, device


def check_registers(bench, name, function):
    """What every function must answer. It is RUNNING, with nothing to do."""
    equal = bench.tap.equal
    cap = function.cap
    equal((function.read(cap + 4, 'l'), function.read(cap + 8, 'w')),
          (0x01411b36, 0x4451), name + ': vendor, revision, length and ID')
    equal(function.read(cap + CAP, 'w'), 1, name + ': FLUSH is offered')
    equal((function.read(cap + CONTROL, 'w'), function.state(),
           function.read(cap + GENERATION, 'l')), (0, RUNNING, 0),
          name + ': after a reset CONTROL is 0, STATUS RUNNING, GENERATION 0')
    for offset, width in ((CAP, 'w'), (STATUS, 'w'), (GENERATION, 'l')):
        before = function.read(cap + offset, width)
        function.write(cap + offset, 0xffff, width)
        equal(function.read(cap + offset, width), before,
              '%s: the register at %#x is read only' % (name, offset))
    for value in (0, 3, 4, 0x101, 0x8001, 0xffff):
        function.command(value)
        equal(function.state(), RUNNING,
              '%s: %#x is no command' % (name, value))
    function.write(cap + CONTROL + 1, FLUSH, 'b')
    equal(function.state(), RUNNING,
          name + ': nor is what is written to the upper byte')
    function.command(RESUME)
    equal(function.state(), RUNNING, name + ': RESUME in RUNNING is ignored')
    for width in 'bwl':
        function.command(FLUSH, width)
        equal((function.state(), function.read(cap + CONTROL, 'w')),
              (QUIESCED, 0), '%s: FLUSH, %s wide; CONTROL reads as zero'
              % (name, {'b': '8 bits', 'w': '16 bits', 'l': '32 bits'}[width]))
        function.command(FLUSH, width)
        equal(function.state(), QUIESCED,
              name + ': FLUSH in QUIESCED is ignored')
        function.command(RESUME, width)
        equal(function.state(), RUNNING, name + ': RESUME in QUIESCED')
    function.command(FLUSH)
    function.reset()
    equal((function.state(), function.read(cap + GENERATION, 'l')),
          (RUNNING, 0),
          name + ': a reset leads to RUNNING and leaves GENERATION 0')


def test_quiesce_registers_of_dma_test(bench):
    qemu, device = start_dma_test(bench)
    check_registers(bench, 'dma-test', device)
    bench.tap.equal(qemu.command('qom-get', path='/machine/peripheral/dev',
                                 property='dma-quiesce-state'), 'running',
                    'the monitor can ask for the state')
    bench.clear()
    qemu = bench.qemu('plain', *dma_test(''))
    bench.tap.equal(Function(qemu, DEVFN).cap, 0,
                    'dma-test: no capability unless wanted')
    try:
        bench.qemu('bad', *dma_test(',dma-quiesce=on,x-fault=maybe'))
    except Failed as error:
        bench.tap.ok('maybe' in str(error), 'bad x-fault is refused', error)
    else:
        bench.tap.ok(False, 'bad x-fault is refused')


def test_quiesce_finishes_what_is_issued(bench):
    qemu, device = start_dma_test(bench)
    equal = bench.tap.equal
    device.queue(16, delay_ms=10)
    qemu.advance(1)
    equal((device.fetched(), device.completions()), (4, 0),
          'four transfers are issued, twelve are queued')
    device.command(FLUSH)
    equal(device.state(), FLUSHING, 'FLUSH with transfers in flight')
    device.command(FLUSH)
    equal(device.state(), FLUSHING, 'FLUSH in FLUSHING is ignored')
    equal((device.completions(), device.messages()), (0, []),
          'nothing has landed yet')
    qemu.advance(20)
    equal((device.state(), device.completions(), device.fetched(),
           device.messages()), (QUIESCED, 4, 4, [0]),
          'QUIESCED: what was issued has landed, with its completions and '
          'interrupts; nothing more was fetched')
    qemu.advance(100)
    device.queue(4, delay_ms=10)
    device.set(0x60, 7)
    qemu.advance(100)
    equal((device.state(), device.completions(), device.fetched(),
           device.get(0x1c)), (QUIESCED, 4, 4, 20),
          'time and doorbells do not change that; the doorbell is taken')
    device.command(RESUME)
    equal(device.state(), RUNNING, 'RESUME')
    qemu.advance(1)
    equal(device.fetched(), 8, 'the next are fetched')
    device.command(FLUSH)
    device.command(RESUME)
    equal(device.state(), RUNNING, 'RESUME in FLUSHING')
    for _ in range(10):
        qemu.advance(12)
    equal((device.completions(), device.fetched(), device.messages()),
          (20, 20, [0]), 'and all are done, each once')


def test_quiesce_pauses_the_periodic_writer(bench):
    qemu, device = start_dma_test(bench)
    equal = bench.tap.equal
    device.periodic(1000)
    for _ in range(5):
        qemu.advance(1)
    count = device.count()
    equal(count, 5, 'a number every millisecond')
    device.command(FLUSH)
    equal(device.state(), QUIESCED, 'FLUSH')
    for _ in range(5):
        qemu.advance(1)
    equal(device.count(), count, 'no number while QUIESCED')
    device.command(RESUME)
    for _ in range(5):
        qemu.advance(1)
    equal(device.count(), count + 5, 'it goes on after RESUME')
    device.command(FLUSH)
    device.periodic(0)
    device.periodic(1000)
    qemu.advance(5)
    equal(device.count(), 0, 'one started while QUIESCED waits')
    device.command(RESUME)
    qemu.advance(1)
    equal(device.count(), 1, 'and runs after RESUME')


def test_quiesce_keeps_interrupts(bench):
    """A message masked in the function's table is a transaction, too."""
    qemu, device = start_dma_test(bench)
    equal = bench.tap.equal
    qemu.poke(MSIX_BAR + 12, 1, 'l')
    device.queue(1)
    qemu.advance(1)
    equal((device.completions(), device.messages()), (1, []),
          'a completion whose vector is masked')
    device.command(FLUSH)
    qemu.poke(MSIX_BAR + 12, 0, 'l')
    equal((device.state(), device.messages()), (QUIESCED, []),
          'unmasked while QUIESCED: no message')
    device.command(RESUME)
    equal(device.messages(), [0], 'it is sent after RESUME')
    device.command(RESUME)
    equal(device.messages(), [], 'once')


def test_quiesce_and_reset(bench):
    qemu, device = start_dma_test(bench)
    equal = bench.tap.equal
    device.queue(8, delay_ms=10)
    qemu.advance(1)
    device.command(FLUSH)
    equal(device.state(), FLUSHING, 'FLUSH with transfers in flight')
    device.reset()
    equal(device.state(), RUNNING, 'a reset in FLUSHING leads to RUNNING')
    device.start()
    device.queue(2)
    qemu.advance(1)
    equal(device.fetched(), 2, 'the function works after it')


def test_quiesce_that_fails(bench):
    equal = bench.tap.equal
    qemu, device = start_dma_test(bench, ',dma-quiesce=on,x-fault=flush-never')
    device.queue(8, delay_ms=10)
    qemu.advance(1)
    device.command(FLUSH)
    qemu.advance(1000)
    equal((device.state(), device.fetched()), (FLUSHING, 4),
          'x-fault=flush-never: FLUSHING for ever')
    device.command(RESUME)
    for _ in range(4):
        qemu.advance(12)
    equal((device.state(), device.completions()), (RUNNING, 8),
          'x-fault=flush-never: RESUME goes on')
    bench.clear()

    qemu, device = start_dma_test(bench, ',dma-quiesce=on,x-fault=flush-error')
    device.queue(8, delay_ms=10)
    qemu.advance(1)
    device.command(FLUSH)
    equal(device.state(), FLUSHING, 'x-fault=flush-error: FLUSHING first')
    qemu.advance(12)
    equal(device.state(), ERROR, 'x-fault=flush-error: then ERROR')
    device.command(FLUSH)
    equal(device.state(), ERROR, 'FLUSH in ERROR is ignored')
    device.command(RESUME)
    equal(device.state(), ERROR, 'RESUME in ERROR is ignored')
    for _ in range(4):
        qemu.advance(12)
    equal(device.completions(), 8, 'x-fault=flush-error: the function goes on')
    device.reset()
    equal(device.state(), RUNNING, 'a reset leads out of ERROR')


# --- Migration --------------------------------------------------------------

UNTRACKED = ',x-untracked-dma=on'


def begin_move(bench, source, *args):
    """Begin to migrate; returns the destination."""
    path = os.path.join(bench.folder, 'quiesce-migration')
    if os.path.exists(path):
        os.unlink(path)
    there = bench.qemu('destination', *args, '-incoming', 'unix:' + path)
    source.command('migrate', uri='unix:' + path)
    return there


def move(bench, source, *args):
    """Migrate; returns the destination, or None if the migration failed."""
    there = begin_move(bench, source, *args)
    wait_for('end of the migration',
             lambda: source.status() in ('completed', 'failed'))
    if source.status() == 'failed':
        return None
    wait_for('end of the load', lambda: there.status() == 'completed' or
             there.command('query-status')['status'] != 'inmigrate')
    return there


def state_of(qemu):
    return qemu.command('qom-get', path='/machine/peripheral/dev',
                        property='dma-quiesce-state')


def registers(qemu):
    """Transfers fetched, completed, and on their way."""
    return tuple(qemu.peek(BAR + offset, 'l') for offset in (0x20, 0x34, 0x3c))


def finish_transfers(qemu):
    for _ in range(8):
        qemu.advance(12)


def test_quiesce_by_migration(bench):
    """A function that QEMU flushes, with transfers issued and queued.

    Memory is not looked at: the dirty log knows nothing of what it writes.
    """
    equal = bench.tap.equal
    for is_paused in (False, True):
        name = 'a paused VM' if is_paused else 'a VM that runs'
        args = dma_test(untracked=UNTRACKED)
        source = bench.qemu('source', *args)
        device = DmaTest(source)
        device.start()
        device.queue(16, delay_ms=10)
        source.advance(1)
        equal(registers(source), (4, 0, 4), name + ': four of 16 are issued')
        if is_paused:
            source.command('stop')
        there = move(bench, source, *args)
        equal((state_of(source), registers(source)), ('quiesced', (4, 4, 0)),
              name + ': on the source they have landed, and no more')
        if is_paused:
            equal((state_of(there), registers(there)),
                  ('quiesced', (4, 4, 0)),
                  name + ': on the destination nothing has begun')
            there.command('cont')
        wait_for('the VM runs', lambda there=there: there.command(
            'query-status')['running'])
        finish_transfers(there)
        equal((state_of(there), registers(there)), ('running', (16, 16, 0)),
              name + ': on the destination the other twelve are done, once')
        bench.clear()


def test_quiesce_ends_when_the_vm_runs(bench):
    """A migration that is given up after the flush."""
    equal = bench.tap.equal
    source = bench.qemu('source', *dma_test(untracked=UNTRACKED))
    device = DmaTest(source)
    device.start()
    device.queue(16, delay_ms=10)
    source.advance(1)
    source.command('migrate-set-capabilities', capabilities=[
        {'capability': 'pause-before-switchover', 'state': True}])
    source.command('migrate', uri='exec:cat >/dev/null')
    wait_for('the switchover', lambda: source.status() == 'pre-switchover')
    equal((state_of(source), registers(source)), ('quiesced', (4, 4, 0)),
          'flushed at the switchover')
    source.command('migrate_cancel')
    wait_for('the VM runs',
             lambda: source.command('query-status')['running'])
    finish_transfers(source)
    equal((state_of(source), registers(source), device.completions()),
          ('running', (16, 16, 0), 16),
          'given up, it goes on when the VM runs')


def test_quiesce_of_a_guest_moves(bench):
    """Its own host has flushed it, and did not write RESUME."""
    equal = bench.tap.equal
    for untracked in ('', UNTRACKED):
        args = dma_test(untracked=untracked)
        source = bench.qemu('source', *args)
        device = DmaTest(source)
        device.start()
        device.command(FLUSH)
        device.queue(4)
        there = move(bench, source, *args)
        wait_for('the VM runs', lambda there=there: there.command(
            'query-status')['running'])
        moved = DmaTest(there)
        there.advance(10)
        equal((moved.state(), moved.fetched()), (QUIESCED, 0),
              'flushed by its host, it stays so%s'
              % (' (x-untracked-dma)' if untracked else ''))
        moved.command(RESUME)
        there.advance(10)
        equal((moved.state(), moved.fetched()), (RUNNING, 4),
              'and goes on after RESUME')
        bench.clear()


def test_quiesce_fails_a_migration(bench):
    equal = bench.tap.equal
    for how, state, after in (('never', 'flushing', 'running'),
                              ('error', 'error', 'error')):
        args = dma_test(',dma-quiesce=on,x-fault=flush-' + how, UNTRACKED)
        source = bench.qemu('source', *args)
        device = DmaTest(source)
        device.start()
        device.queue(16, delay_ms=10)
        source.advance(1)
        equal(move(bench, source, *args), None,
              'x-fault=flush-%s: the migration fails' % how)
        error = source.error()
        bench.tap.ok('dev' in error and state in error,
                     'x-fault=flush-%s: it is told why' % how, error)
        wait_for('the VM runs', lambda source=source: source.command(
            'query-status')['running'])
        finish_transfers(source)
        equal((state_of(source), registers(source), device.completions()),
              (after, (16, 16, 0), 16),
              'x-fault=flush-%s: the source goes on, all is done' % how)
        bench.clear()


def test_quiesce_needs_the_same_on_both_sides(bench):
    source = bench.qemu('source', *dma_test())
    there = begin_move(bench, source, *dma_test(''))
    wait_for('end of the destination',
             lambda: there.process.poll() is not None)
    bench.tap.ok('Bad config data' in there.output(),
                 'a destination without the capability is refused',
                 there.output())


# --- Network devices --------------------------------------------------------

class Wire:
    """The other end of a network device; see hw/misc/dma-test-wire.c."""

    def __init__(self):
        self.mine, self.theirs = socket.socketpair(socket.AF_UNIX,
                                                   socket.SOCK_SEQPACKET)
        self.mine.setblocking(False)
        self.fds = (self.theirs.fileno(),)

    def arguments(self):
        return ['-device', 'dma-test-wire,id=wire,netdev-id=net0,fd=%d'
                % self.fds]

    def send(self, target, number):
        self.mine.send(frame(target, number))

    def is_empty(self):
        """Has the device taken all?"""
        try:
            return not self.theirs.recv(1, socket.MSG_PEEK |
                                        socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True

    def sent(self):
        """The numbers of the packets that the device has sent."""
        found = []
        while True:
            try:
                found.append(number_in(self.mine.recv(4096)))
            except BlockingIOError:
                return found


def frame(target, number):
    """To the device with that number; of no protocol that it looks into."""
    return bytes((2, 0, 0, 0, 0, target)) + bytes((2, 0, 0, 0, 1, 0)) + \
        b'\x88\xb5' + struct.pack('<I', number) + bytes(82)


def number_in(data):
    return struct.unpack_from('<I', data, 14)[0]


class Rings:
    """A receive and a transmit ring of an Intel device, and their driver.

    With advanced descriptors as igb has them, or e1000e's legacy ones.
    """

    ENTRIES = 64

    def __init__(self, qemu, receive, transmit, memory, advanced):
        self.qemu = qemu
        self.receive, self.transmit = receive, transmit
        self.rx_ring, self.tx_ring = memory, memory + FRAME
        self.rx_data = memory + 2 * FRAME
        self.tx_data = self.rx_data + 2048 * self.ENTRIES
        self.advanced = advanced
        self.queued = 0
        qemu.fill(memory, 2 * FRAME, 0)
        for base, ring in ((receive, self.rx_ring), (transmit, self.tx_ring)):
            for offset, value in ((0, ring), (4, 0), (8, 16 * self.ENTRIES),
                                  (0x10, 0), (0x18, 0), (0x28, 1 << 25)):
                qemu.poke(base + offset, value, 'l')
        if advanced:
            # Buffers of 2 KiB, one for each packet.
            qemu.poke(receive + 0x0c, 2 | 1 << 25, 'l')

    def post(self):
        """Give the device all buffers but one: a full ring is an empty one."""
        for index in range(self.ENTRIES - 1):
            self.qemu.write(self.rx_ring + 16 * index,
                            struct.pack('<QQ', self.rx_data + 2048 * index, 0))
        self.qemu.poke(self.receive + 0x18, self.ENTRIES - 1, 'l')

    def received(self):
        """The numbers of the packets in the buffers."""
        found = []
        for index in range(self.ENTRIES):
            status = self.qemu.read(self.rx_ring + 16 * index +
                                    (8 if self.advanced else 12), 1)[0]
            if status & 1:
                found.append(number_in(self.qemu.read(
                    self.rx_data + 2048 * index, 18)))
        return found

    def send(self, number):
        """Queue a packet, and ring the doorbell."""
        data = frame(0xff, number)
        self.qemu.write(self.tx_data + 2048 * self.queued, data)
        if self.advanced:
            words = (0x2b300000 | len(data), len(data) << 14)
        else:
            words = (0x0b000000 | len(data), 0)
        self.qemu.write(self.tx_ring + 16 * self.queued, struct.pack(
            '<QII', self.tx_data + 2048 * self.queued, *words))
        self.queued += 1
        self.qemu.poke(self.transmit + 0x18, self.queued, 'l')

    def done(self):
        """How many of those queued were written back."""
        return sum(self.qemu.read(self.tx_ring + 16 * index + 12, 1)[0] & 1
                   for index in range(self.queued))


class E1000e(Function):
    """Its driver. Its vector 0 tells of packets received, 1 of those sent."""

    def __init__(self, qemu):
        super().__init__(qemu, DEVFN)

    def start(self):
        self.write(0x10, BAR, 'l')
        self.write(0x1c, MSIX_BAR, 'l')
        self.master()
        self.set(0x0000, 1 << 26 | 1 << 6)
        self.use_msix(MSIX_BAR)
        # Vectors, and causes that are cleared by their message but stay
        # enabled.
        self.set(0x0018, 1 << 27)
        self.set(0x00e4, 0x000a0908)
        self.set(0x00dc, 0x01f00000)
        rings = Rings(self.qemu, BAR + 0x2800, BAR + 0x3800, RINGS, False)
        # The transmitter; all packets, without checksum; all interrupts.
        self.set(0x0400, 2)
        self.set(0x0100, 2 | 3 << 3 | 1 << 26)
        self.set(0x00d0, 0xffffffff)
        rings.post()
        self.messages()
        return rings

    def set(self, offset, value):
        self.qemu.poke(BAR + offset, value, 'l')


class Igb(Function):
    """The driver of the physical function, which sets up all rings."""

    PF_POOL = 7

    def __init__(self, qemu):
        super().__init__(qemu, DEVFN)

    def start(self):
        """Two virtual functions, whose ring is that of their pool."""
        sriov = self.find(0x10)
        self.write(0x10, BAR, 'l')
        self.master()
        self.set(0x0000, 1 << 26 | 1 << 6)
        # Auto-negotiation, which takes its time.
        self.set(0x0020, 0x1200 | 1 << 21 | 1 << 26)
        self.qemu.advance(900)
        self.write(sriov + 0x24, VF_BAR, 'l')
        self.write(sriov + 0x30, VF_MSIX_BAR, 'l')
        self.write(sriov + 0x10, 2, 'w')
        self.write(sriov + 0x08, 0x9, 'w')
        # VMDq; pools that may receive and send, each with its address.
        self.set(0x5818, 3)
        for offset in (0x0c8c, 0x0c90):
            self.set(offset, 1 << self.PF_POOL | 3)
        for index, pool in enumerate((0, 1, self.PF_POOL)):
            self.set(0x5400 + 8 * index, 2)
            self.set(0x5404 + 8 * index,
                     1 << 31 | 1 << 18 + pool | pool << 8)
        # Messages of virtual functions, cleared when sent, throttled.
        self.set(0x1514, 0x10)
        self.set(0x152c, 1 << 22)
        self.set(0x1524, 1 << 22)
        self.set(0x1680 + 4 * 22, 0x7ffe)
        self.set(0x0400, 2)
        self.set(0x0100, 2)
        rings = Rings(self.qemu, BAR + 0xc000 + 0x40 * self.PF_POOL,
                      BAR + 0xe000 + 0x40 * self.PF_POOL,
                      RINGS + 0x100000, True)
        rings.post()
        return rings

    def set(self, offset, value):
        self.qemu.poke(BAR + offset, value, 'l')


class Igbvf(Function):
    """The driver of a virtual function. Its vector 0 tells of everything."""

    def __init__(self, qemu, index):
        super().__init__(qemu, DEVFN + 0x80 + 2 * index)
        self.index = index

    def start(self):
        base = VF_BAR + 0x4000 * self.index
        self.master()
        if not self.index:
            self.use_msix(VF_MSIX_BAR)
            self.qemu.poke(base + 0x1700, 0x8080, 'l')
        rings = Rings(self.qemu, base + 0x2800, base + 0x3800,
                      RINGS + 0x200000 + 0x100000 * self.index, True)
        rings.post()
        return rings


def start_network_device(bench, device, incoming='', **machine):
    """incoming: the file of a guest that is to be loaded"""
    wire = Wire()
    qemu = bench.qemu('plain', *wire.arguments(), '-device',
                      '%s,id=dev,netdev=net0,addr=%d,mac=02:00:00:00:00:09'
                      % (device, SLOT),
                      *(('-incoming', 'file:' + incoming) if incoming else ()),
                      fds=wire.fds, **machine)
    return wire, qemu


def delivered(qemu, number):
    """Wait until the device has taken so many packets off the wire."""
    wait_for('%d packets off the wire' % number, lambda: qemu.command(
        'qom-get', path='/machine/peripheral/wire',
        property='delivered') >= number)


def look_again(qemu):
    """Let the main loop do what there is to do."""
    for _ in range(3):
        qemu.command('query-status')


def check_network_function(bench, name, qemu, wire, function, start, keeps):
    """What e1000e and igbvf have in common. Packets go to address 0.

    start: sets the function up and returns its rings. keeps: the function, not
    the wire, keeps packets.
    """
    rings = start()
    equal = bench.tap.equal
    base = qemu.command('qom-get', path='/machine/peripheral/wire',
                        property='delivered')
    wire.send(0, 1)
    wait_for('a packet', lambda: rings.received() == [1])
    equal(function.messages(), [0], name + ': a packet and its interrupt')
    wire.send(0, 2)
    wait_for('a packet', lambda: rings.received() == [1, 2])
    equal(function.messages(), [], name + ': the next interrupt is throttled')
    function.command(FLUSH)
    equal((function.state(), function.messages()), (QUIESCED, [0]),
          name + ': QUIESCED, and the interrupt was sent before')

    rings.send(10)
    wire.send(0, 3)
    wire.send(0, 4)
    if keeps:
        delivered(qemu, base + 4)
    look_again(qemu)
    equal((rings.received(), rings.done(), wire.sent(), function.messages()),
          ([1, 2], 0, [], []),
          name + ': nothing is received, sent or written back while QUIESCED')
    equal(wire.is_empty(), keeps, '%s: the %s has what came'
          % (name, 'function' if keeps else 'wire'))
    qemu.advance(1000)
    equal((function.state(), rings.received(), function.messages()),
          (QUIESCED, [1, 2], []), name + ': nor does time change that')
    function.command(RESUME)
    wait_for('packets', lambda: len(rings.received()) >= 4)
    equal((function.state(), rings.received(), rings.done(), wire.sent()),
          (RUNNING, [1, 2, 3, 4], 1, [10]),
          name + ': RESUME: all come, and go, in order and once')
    equal(0 in function.messages(), True, name + ': with an interrupt')

    function.command(FLUSH)
    wire.send(0, 5)
    if keeps:
        delivered(qemu, base + 5)
        function.reset()
        rings = start()
        function.command(FLUSH)
        function.command(RESUME)
        wire.send(0, 6)
        wait_for('a packet', rings.received)
        equal(rings.received(), [6],
              name + ': a reset drops what the function has kept')


def test_quiesce_of_e1000e(bench):
    wire, qemu = start_network_device(bench, 'e1000e,dma-quiesce=on')
    function = E1000e(qemu)
    function.start()
    check_registers(bench, 'e1000e', function)
    check_network_function(bench, 'e1000e', qemu, wire, function,
                           function.start, False)
    bench.clear()
    _, qemu = start_network_device(bench, 'e1000e')
    bench.tap.equal(Function(qemu, DEVFN).cap, 0,
                    'e1000e: no capability unless wanted')


def test_quiesce_of_igbvf(bench):
    wire, qemu = start_network_device(bench, 'igb,dma-quiesce=on')
    physical = Igb(qemu)
    bench.tap.equal(physical.cap, 0, 'igb itself has no capability')
    pf_rings = physical.start()
    function, other = Igbvf(qemu, 0), Igbvf(qemu, 1)
    check_registers(bench, 'igbvf', function)
    # The reset took it out of the pools' lists.
    pf_rings = physical.start()
    function.start()
    other_rings = other.start()
    function.command(FLUSH)
    wire.send(1, 100)
    wire.send(physical.PF_POOL, 101)
    wait_for('packets', lambda: other_rings.received()
             and pf_rings.received())
    other_rings.send(102)
    pf_rings.send(103)
    bench.tap.equal((function.state(), other_rings.received(),
                     pf_rings.received(), wire.sent()),
                    (QUIESCED, [100], [101], [102, 103]),
                    'igbvf: the other functions of the device go on')
    bench.tap.equal(other.state(), RUNNING, 'igbvf: they are RUNNING')
    function.command(RESUME)

    def start():
        physical.start()
        return function.start()

    check_network_function(bench, 'igbvf', qemu, wire, function, start, True)
    bench.clear()
    _, qemu = start_network_device(bench, 'igb')
    Igb(qemu).start()
    bench.tap.equal(Igbvf(qemu, 0).cap, 0,
                    'igbvf: no capability unless wanted')


def test_packets_that_make_no_sense(bench):
    """A stream with more of them than a virtual function can hold back."""
    _, qemu = start_network_device(bench, 'igb,dma-quiesce=on')
    Igb(qemu).start()
    function = Igbvf(qemu, 0)
    function.start()
    # It is in the stream only then.
    function.command(FLUSH)
    path = os.path.join(bench.folder, 'packets')
    qemu.command('migrate', uri='file:' + path)
    bench.tap.equal(finish(qemu), 'completed', 'igbvf: the guest is saved')
    bench.clear()
    with open(path, 'rb') as file:
        data = file.read()
    # The list is empty: it, and the section, end behind the registers.
    name = b'igbvf/dma-quiesce'
    end = data.index(b'\0\x7e', data.index(name))
    packet = struct.pack('>BI', 1, 1 << 20) + bytes((1 << 20) + 2)
    for number in 1, 2:
        with open(path, 'wb') as file:
            file.write(data[:end] + number * packet + data[end:])
        there = start_network_device(bench, 'igb,dma-quiesce=on',
                                     incoming=path)[1]
        words = 'igbvf: packets in the stream make no sense'
        if number == 1:
            wait_for('the guest', lambda there=there: there.command(
                'query-status')['running'])
        else:
            there.process.wait(DEADLINE)
        bench.tap.equal(words in there.output(), number == 2,
                        'igbvf: %d MiB of packets that were held back are %s'
                        % (number, 'refused' if number == 2 else 'taken'))
        bench.clear()


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')]
