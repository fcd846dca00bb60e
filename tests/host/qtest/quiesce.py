# SPDX-License-Identifier: GPL-2.0-only
"""The ring-flush capability of pci_dma_quiesce.h, as device models offer it.

The test writes configuration space as the host of an assigned function does,
and plays the function's driver. Interrupts are messages to memory: a vector's
address is a frame of guest RAM, where the test sees whether it was sent.
"""

import os
import socket
import struct

from guest import Failed, FRAME, QmpError, wait_for

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
        qemu.config_write(0, 0x60, ECAM | 1, 'l')
        self.cap = self.find(0x23)

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
        """A function level reset."""
        self.write(self.find_standard(0x10) + 8, 1 << 15, 'w')

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
          (RUNNING, 0), name + ': a function level reset leads to RUNNING and '
          'leaves GENERATION 0')


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
        bench.qemu('bad', *dma_test(',dma-quiesce=on,x-flush=maybe'))
    except Failed as error:
        bench.tap.ok('x-flush' in str(error), 'bad x-flush is refused', error)
    else:
        bench.tap.ok(False, 'bad x-flush is refused')


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
    qemu, device = start_dma_test(bench, ',dma-quiesce=on,x-flush=never')
    device.queue(8, delay_ms=10)
    qemu.advance(1)
    device.command(FLUSH)
    qemu.advance(1000)
    equal((device.state(), device.fetched()), (FLUSHING, 4),
          'x-flush=never: FLUSHING for ever')
    device.command(RESUME)
    for _ in range(4):
        qemu.advance(12)
    equal((device.state(), device.completions()), (RUNNING, 8),
          'x-flush=never: RESUME goes on')
    bench.clear()

    qemu, device = start_dma_test(bench, ',dma-quiesce=on,x-flush=error')
    device.queue(8, delay_ms=10)
    qemu.advance(1)
    device.command(FLUSH)
    equal(device.state(), FLUSHING, 'x-flush=error: FLUSHING first')
    qemu.advance(12)
    equal(device.state(), ERROR, 'x-flush=error: then ERROR')
    device.command(FLUSH)
    equal(device.state(), ERROR, 'FLUSH in ERROR is ignored')
    device.command(RESUME)
    equal(device.state(), ERROR, 'RESUME in ERROR is ignored')
    for _ in range(4):
        qemu.advance(12)
    equal(device.completions(), 8, 'x-flush=error: the function goes on')
    device.reset()
    equal(device.state(), RUNNING, 'a reset leads out of ERROR')


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')]
