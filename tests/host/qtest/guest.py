# SPDX-License-Identifier: GPL-2.0-only
"""A QEMU without a guest, and the guest's side of the device, over qtest.

Qemu starts an emulator whose vCPU executes nothing and gives access to its
memory, ports and monitor. DmaTrack is a driver of virtio-dma-track that a test
plays: it says and breaks what the test wants.
"""

import json
import os
import select
import socket
import struct
import subprocess
import time

from paths import FIRMWARE

DEADLINE = 60           # seconds for anything that is waited for

FRAME = 4096
SECTION_SHIFT = 27

# Requests and answers of virtio_dma_track.h.
SETUP, PUBLISH, WITHDRAW, FUNCTION, ACK, ALIVE, UNFENCE, RESTORED = range(1, 9)
(OK, E_TYPE, E_FIELD, E_STATE, E_NOT_RAM, E_EXISTS, E_NO_SECTION, E_EMPTY,
 E_NO_FUNCTION, E_STALE, E_BUSY, E_RESET) = range(12)
IDLE, LOGGING = 0, 1
NONE, UNBOUND, TRACKED, UNTRACKED = range(4)
BOUND_BEFORE, NO_CAPABILITY, BEHIND_API, NO_RESOURCES = range(1, 5)

# Where the driver keeps its things in guest memory.
RING = 0x100000
STATUS_PAGE = 0x110000
PLANES = 0x120000       # two pages per section
BUFFERS = 0x180000
QUEUE_SIZE = 64

# Features, as bits of the upper word.
VERSION_1, RING_RESET = 1 << 0, 1 << 8

# Flags of a descriptor.
DESC_NEXT, DESC_WRITE, DESC_INDIRECT = 1, 2, 4


class Failed(Exception):
    """What a test expected did not come true."""


class QmpError(Failed):
    """The monitor refused a command."""


def wait_for(what, condition, deadline=DEADLINE):
    """Poll until condition() is true, and return what it returned."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Failed('timeout: ' + what)
        time.sleep(0.005)


class Qemu:
    """One emulator. Its vCPU never runs; the test is the guest."""

    def __init__(self, binary, folder, name, args, machine='q35',
                 memory='256', fds=()):
        self.name = name
        self.events = []
        self._input = b''
        self.log = open(os.path.join(folder, name + '.log'), 'w+b')
        qmp, qmp_fd = socket.socketpair()
        qtest, qtest_fd = socket.socketpair()
        command = [binary, '-machine', machine, '-m', memory,
                   '-accel', 'qtest', '-nodefaults', '-display', 'none',
                   '-chardev', 'socket,id=qmp,fd=%d' % qmp_fd.fileno(),
                   '-mon', 'chardev=qmp,mode=control',
                   '-chardev', 'socket,id=qtest,fd=%d' % qtest_fd.fileno(),
                   '-qtest', 'chardev:qtest', '-qtest-log', '/dev/null']
        for place in FIRMWARE:
            command += ['-L', place]
        self.process = subprocess.Popen(
            command + args, stdout=self.log, stderr=self.log,
            pass_fds=(qmp_fd.fileno(), qtest_fd.fileno(), *fds))
        qmp_fd.close()
        qtest_fd.close()
        self._qmp = qmp
        self._qtest = qtest
        qtest.settimeout(DEADLINE)
        self._qtest_file = qtest.makefile('r')
        try:
            self._read_message(DEADLINE)
            self.command('qmp_capabilities')
        except (Failed, OSError):
            self.stop()
            raise

    def output(self):
        """All that the emulator has printed."""
        self.log.flush()
        with open(self.log.name, 'r', errors='replace') as log:
            return log.read()

    def stop(self):
        """End the process, if it has not ended by itself."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._qmp.close()
        self._qtest.close()

    # --- Monitor

    def _read_message(self, deadline):
        end = time.monotonic() + deadline
        while b'\n' not in self._input:
            left = end - time.monotonic()
            if left <= 0:
                raise Failed('timeout: %s: no word from the monitor'
                             % self.name)
            if not select.select([self._qmp], [], [], left)[0]:
                continue
            try:
                data = self._qmp.recv(65536)
            except ConnectionResetError:
                data = b''
            if not data:
                raise Failed('%s ended: %s' % (self.name, self.output()))
            self._input += data
        line, self._input = self._input.split(b'\n', 1)
        return json.loads(line)

    def command(self, name, **arguments):
        """Execute a command and return what it returns."""
        message = {'execute': name,
                   'arguments': {key.replace('_', '-'): value
                                 for key, value in arguments.items()}}
        self._qmp.sendall(json.dumps(message).encode() + b'\n')
        while True:
            answer = self._read_message(DEADLINE)
            if 'event' in answer:
                self.events.append(answer)
            elif 'error' in answer:
                raise QmpError(answer['error']['desc'])
            else:
                return answer['return']

    def dma_track(self):
        """query-dma-track"""
        return self.command('query-dma-track')

    # --- Memory and ports

    def _qtest_command(self, line):
        self._qtest.sendall(line.encode() + b'\n')
        while True:
            answer = self._qtest_file.readline().strip()
            if answer.startswith('IRQ'):
                continue
            if not answer.startswith('OK'):
                raise Failed('%s: qtest "%s": %s' % (self.name, line, answer))
            return answer[3:]

    def write(self, addr, data):
        """Write bytes to guest memory, as a CPU would."""
        for i in range(0, len(data), FRAME):
            part = data[i:i + FRAME]
            self._qtest_command('write %#x %#x 0x%s'
                                % (addr + i, len(part), part.hex()))

    def fill(self, addr, size, byte):
        """memset"""
        self._qtest_command('memset %#x %#x %#x' % (addr, size, byte))

    def read(self, addr, size):
        """Read bytes of guest memory."""
        answer = self._qtest_command('read %#x %#x' % (addr, size))
        return bytes.fromhex(answer[2:])

    def poke(self, addr, value, width):
        """Write a register of width b, w, l or q."""
        self._qtest_command('write%s %#x %#x' % (width, addr, value))

    def peek(self, addr, width):
        """Read a register of width b, w, l or q."""
        return int(self._qtest_command('read%s %#x' % (width, addr)), 16)

    def advance(self, milliseconds):
        """Let that much virtual time go by."""
        self._qtest_command('clock_step %d' % (milliseconds * 1000000))

    def out(self, port, value, width):
        """Write an I/O port of width b, w or l."""
        self._qtest_command('out%s %#x %#x' % (width, port, value))

    def config_write(self, devfn, offset, value, width):
        """Write PCI configuration space of a device on bus 0."""
        self._qtest_command('outl 0xcf8 %#x' % (0x80000000 | devfn << 8
                                                | offset & ~3))
        self._qtest_command('out%s %#x %#x' % (width, 0xcfc + (offset & 3),
                                               value))

    def config_read(self, devfn, offset, width):
        """Read PCI configuration space of a device on bus 0."""
        self._qtest_command('outl 0xcf8 %#x' % (0x80000000 | devfn << 8
                                                | offset & ~3))
        return int(self._qtest_command('in%s %#x'
                                       % (width, 0xcfc + (offset & 3))), 16)

    # --- Migration

    def status(self):
        """The state of the outgoing or incoming migration."""
        return self.command('query-migrate').get('status', 'none')

    def error(self):
        """Why the migration failed."""
        return self.command('query-migrate').get('error-desc', '')


class Edu:
    """QEMU's edu device: copies between its buffer and guest memory."""

    BUFFER = 0x40000
    TO_GUEST = 2

    def __init__(self, qemu, slot, bar):
        self.qemu = qemu
        self.bar = bar
        self.sbdf = slot << 3
        qemu.config_write(self.sbdf, 0x10, bar, 'l')
        self.set_master(True)

    def set_master(self, enabled):
        """Enable or disable bus mastering."""
        self.qemu.config_write(self.sbdf, 0x04, 0x6 if enabled else 0x2, 'w')

    def _dma(self, source, target, size, direction):
        qemu = self.qemu
        for offset, value in ((0x80, source), (0x88, target), (0x90, size),
                              (0x98, 1 | direction)):
            qemu.poke(self.bar + offset, value, 'q')
        qemu.advance(200)
        if qemu.peek(self.bar + 0x98, 'q') & 1:
            raise Failed('edu does not finish its DMA')

    def load(self, source, size):
        """Guest memory to the device's buffer."""
        self._dma(source, self.BUFFER, size, 0)

    def store(self, target, size):
        """The device's buffer to guest memory."""
        self._dma(self.BUFFER, target, size, self.TO_GUEST)


class DmaTrack:
    """The guest's driver of virtio-dma-track, as far as the test wants it."""

    def __init__(self, qemu, slot, bar):
        self.qemu = qemu
        self.devfn = slot << 3
        self.bar = bar
        self.seen = None
        self.used = 0
        self.outstanding = False
        # Features of the device, bits 0 to 31, that the driver accepts.
        self.accept = 1
        # Says when an answer need not be waited for any more.
        self.give_up = lambda: False
        self._find_registers()

    def adopt(self, other):
        """Go on where another driver was: its guest has moved here."""
        self.used = other.used
        # With its vCPUs stopped a guest writes nothing; this one may have, when
        # its memory had been sent, and then the request is not here.
        if other.outstanding and self.asked() != self.used:
            self.answer()

    def asked(self):
        """How many requests the ring in this guest's memory has had."""
        return struct.unpack('<H', self.qemu.read(RING + FRAME + 2, 2))[0]

    def _find_registers(self):
        qemu = self.qemu
        bars = {}
        pointer = qemu.config_read(self.devfn, 0x34, 'b')
        while pointer:
            kind = qemu.config_read(self.devfn, pointer, 'b')
            if kind == 0x09:
                which = qemu.config_read(self.devfn, pointer + 3, 'b')
                index = qemu.config_read(self.devfn, pointer + 4, 'b')
                offset = qemu.config_read(self.devfn, pointer + 8, 'l')
                bars[which] = (index, offset)
            pointer = qemu.config_read(self.devfn, pointer + 1, 'b')
        self.bar_index = bars[1][0]
        self.common = self.bar + bars[1][1]
        self.notify = self.bar + bars[2][1]
        self.isr = self.bar + bars[3][1]
        self.config = self.bar + bars[4][1]
        # Of queue 0, whose notify offset is 0 in QEMU.
        self.doorbell = self.notify

    def map(self):
        """Give the registers their address."""
        qemu = self.qemu
        qemu.config_write(self.devfn, 0x10 + 4 * self.bar_index, self.bar, 'l')
        qemu.config_write(self.devfn, 0x14 + 4 * self.bar_index, 0, 'l')
        qemu.config_write(self.devfn, 0x04, 0x6, 'w')

    def status_register(self):
        """The device status field."""
        return self.qemu.peek(self.common + 0x14, 'b')

    def broken(self):
        """Has the device given up on us (DEVICE_NEEDS_RESET)?"""
        return bool(self.status_register() & 0x40)

    def reset(self):
        """Reset the device."""
        self.qemu.poke(self.common + 0x14, 0, 'b')
        wait_for('reset of the device', lambda: not self.status_register())

    def start(self, features=VERSION_1):
        """From reset to DRIVER_OK, with these features of bits 32 to 63."""
        qemu = self.qemu
        self.map()
        self.reset()
        qemu.poke(self.common + 0x14, 1 | 2, 'b')
        qemu.poke(self.common + 0x00, 0, 'l')
        self.features = qemu.peek(self.common + 0x04, 'l')
        qemu.poke(self.common + 0x08, 0, 'l')
        qemu.poke(self.common + 0x0c, self.features & self.accept, 'l')
        qemu.poke(self.common + 0x08, 1, 'l')
        qemu.poke(self.common + 0x0c, features, 'l')
        qemu.poke(self.common + 0x14, 1 | 2 | 8, 'b')
        if not self.status_register() & 8:
            raise Failed('the device refuses the features %#x' % features)
        self.enable_queue()
        qemu.poke(self.common + 0x14, 1 | 2 | 4 | 8, 'b')

    def enable_queue(self):
        """Set up the request queue, with nothing in it."""
        qemu = self.qemu
        self.used = 0
        self.outstanding = False
        qemu.fill(RING, 3 * FRAME, 0)
        qemu.poke(self.common + 0x16, 0, 'w')
        qemu.poke(self.common + 0x18, QUEUE_SIZE, 'w')
        for offset, addr in ((0x20, RING), (0x28, RING + FRAME),
                             (0x30, RING + 2 * FRAME)):
            qemu.poke(self.common + offset, addr, 'l')
            qemu.poke(self.common + offset + 4, 0, 'l')
        qemu.poke(self.common + 0x1c, 1, 'w')

    def reset_queue(self):
        """Take the queue out of service: needs RING_RESET."""
        qemu = self.qemu
        qemu.poke(self.common + 0x16, 0, 'w')
        qemu.poke(self.common + 0x3a, 1, 'w')
        wait_for('reset of the queue',
                 lambda: not qemu.peek(self.common + 0x1c, 'w'))

    def send(self, request, writable=8):
        """Make a request available: bytes, and room for the answer."""
        self.queue(request, writable)
        self.qemu.poke(self.doorbell, 0, 'w')

    def queue(self, request, writable=8, number=0):
        """Put a request into the ring, @number places ahead; do not kick."""
        qemu = self.qemu
        descriptors = []
        if request:
            qemu.write(BUFFERS, request)
            descriptors.append((BUFFERS, len(request), 0))
        if writable:
            qemu.fill(BUFFERS + 4 * FRAME, FRAME, 0xff)
            descriptors.append((BUFFERS + 4 * FRAME, writable, 2))
        for i, (addr, size, flags) in enumerate(descriptors):
            if i + 1 < len(descriptors):
                flags |= 1
            qemu.write(RING + 16 * i,
                       struct.pack('<QIHH', addr, size, flags, i + 1))
        self.outstanding = True
        index = (self.used + number) % QUEUE_SIZE
        qemu.write(RING + FRAME + 4 + 2 * index, struct.pack('<H', 0))
        qemu.write(RING + FRAME + 2,
                   struct.pack('<H', (self.used + number + 1) & 0xffff))

    def send_chain(self, *descriptors, head=0, ahead=1):
        """Kick with these (addr, size, flags, next) in the table, as is."""
        qemu = self.qemu
        for i, descriptor in enumerate(descriptors):
            qemu.write(RING + 16 * i, struct.pack('<QIHH', *descriptor))
        qemu.write(RING + FRAME + 4 + 2 * (self.used % QUEUE_SIZE),
                   struct.pack('<H', head))
        qemu.write(RING + FRAME + 2,
                   struct.pack('<H', (self.used + ahead) & 0xffff))
        self.outstanding = True
        qemu.poke(self.doorbell, 0, 'w')

    def answered(self, number=1):
        """Has the device used so many requests?"""
        used = struct.unpack('<H', self.qemu.read(RING + 2 * FRAME + 2, 2))[0]
        return used == (self.used + number) & 0xffff

    def answer(self):
        """Wait for the answer; None if none comes any more."""
        wait_for('answer to a request', lambda: self.answered()
                 or self.broken() or self.give_up())
        self.outstanding = not self.answered()
        if self.outstanding:
            return None
        self.used = (self.used + 1) & 0xffff
        status, reserved, reserved2 = struct.unpack(
            '<HHI', self.qemu.read(BUFFERS + 4 * FRAME, 8))
        if reserved or reserved2:
            raise Failed('reserved fields of an answer are not zero')
        return status

    def request(self, kind, payload, nr_entries=1, reserved=0):
        """Send a request and return its status code."""
        self.send(struct.pack('<HHI', kind, reserved, nr_entries) + payload)
        return self.answer()

    # --- Requests by name

    def setup(self, page=STATUS_PAGE):
        """Name the status page."""
        return self.request(SETUP, struct.pack('<Q', page))

    def publish(self, *entries, reserved=0):
        """Publish (section, streaming, coherent) of each entry."""
        payload = b''.join(struct.pack('<IIQQ', section, reserved, a, b)
                           for section, a, b in entries)
        return self.request(PUBLISH, payload, len(entries))

    def withdraw(self, *sections, reserved=0):
        """Withdraw sections."""
        payload = b''.join(struct.pack('<II', section, reserved)
                           for section in sections)
        return self.request(WITHDRAW, payload, len(sections))

    def function(self, index, reserved=0):
        """Say that an entry of the status page has changed."""
        return self.request(FUNCTION, struct.pack('<II', index, reserved))

    def ack(self, seq, reserved=0):
        """Acknowledge a phase."""
        return self.request(ACK, struct.pack('<II', seq, reserved))

    def alive(self, alive_seq, reset_seq):
        """Give a sign of life."""
        return self.request(ALIVE, struct.pack('<II', alive_seq, reset_seq))

    def unfence(self, sbdf, generation):
        """Ask for a function to be reset and let go."""
        return self.request(UNFENCE, struct.pack('<II', sbdf, generation))

    def restored(self, sbdf, generation, result, reserved=0):
        """Tell what became of a function's driver."""
        return self.request(RESTORED, struct.pack('<IIII', sbdf, generation,
                                                  result, reserved))

    # --- What is shared

    def read_config(self):
        """phase, phase_seq, alive_seq, reset_seq"""
        return tuple(self.qemu.peek(self.config + 4 * i, 'l')
                     for i in range(4))

    def config_interrupt(self):
        """Was there a configuration interrupt? Clears it."""
        return bool(self.qemu.peek(self.isr, 'b') & 2)

    def read_functions(self):
        """The functions that the configuration space names."""
        nr = self.qemu.peek(self.config + 16, 'l')
        return [(self.qemu.peek(self.config + 24 + 8 * i, 'l'),
                 self.qemu.peek(self.config + 28 + 8 * i, 'l'))
                for i in range(nr)]

    def say(self, index, sbdf, state, reason=0):
        """Write an entry of the status page."""
        self.qemu.write(STATUS_PAGE + 64 + 8 * index,
                        struct.pack('<IHH', sbdf, state, reason))

    def lose(self, reason):
        """Set the lost word."""
        self.qemu.write(STATUS_PAGE, struct.pack('<I', reason))

    def pin(self, addr, size, coherent=False):
        """Set the bits of frames in a plane of a section published by us."""
        self._write_bits(addr, size, coherent, 0xff)

    def unpin(self, addr, size, coherent=False):
        """Dirty frames, as a guest must that logs, then clear their bits."""
        for page in range(addr, addr + size, FRAME):
            self.qemu.write(page, self.qemu.read(page, 8))
        self.forget(addr, size, coherent)

    def forget(self, addr, size, coherent=False):
        """Clear bits without dirtying, as no good guest does."""
        self._write_bits(addr, size, coherent, 0)

    def _write_bits(self, addr, size, coherent, value):
        # Whole bytes of a plane: tests use runs of eight frames.
        if addr % (8 * FRAME) or size % (8 * FRAME):
            raise ValueError('not a run of eight frames')
        frame = addr // FRAME
        while size:
            section, bit = divmod(frame, 1 << SECTION_SHIFT - 12)
            run = min(size // FRAME, (1 << SECTION_SHIFT - 12) - bit)
            plane = PLANES + 2 * FRAME * section + FRAME * coherent
            self.qemu.fill(plane + bit // 8, run // 8, value)
            frame += run
            size -= run * FRAME

    def become_ready(self, sections=2, features=VERSION_1):
        """Do what a good driver does when it starts."""
        self.start(features)
        self.qemu.fill(STATUS_PAGE, FRAME, 0)
        self.qemu.fill(PLANES, 2 * FRAME * sections, 0)
        for status in (self.setup(), self.publish(
                *[(i, PLANES + 2 * FRAME * i, PLANES + 2 * FRAME * i + FRAME)
                  for i in range(sections)])):
            if status != OK:
                raise Failed('the device answers %s to a good driver' % status)

    def serve(self, ack=True, alive=True):
        """Echo what is new in the configuration space, if anything is."""
        now = self.read_config()
        old = self.seen or (None,) * 4
        if self.outstanding:
            return
        if ack and now[1] != old[1]:
            self.ack(now[1])
        if alive and not self.outstanding and now[2:] != old[2:]:
            self.alive(now[2], now[3])
        self.seen = now
