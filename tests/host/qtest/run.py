#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Test virtio-dma-track and migration's use of it against a guest that we play.

    run.py [--qemu BINARY] [TEST...]

There is no guest: the vCPU executes nothing, and the test writes memory and
registers in its place. So it can say what no good guest says. Writes TAP.
"""

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from random import Random

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', '..', 'lib')]

# pylint: disable=wrong-import-position
import guest as g                                       # noqa: E402
from guest import DmaTrack, Edu, Failed, Qemu, QmpError, wait_for  # noqa: E402
from moves import (                                     # noqa: E402
    BULK, BULK_SIZE, EDU, EDU_BAR, EDU_SBDF, EDU_SLOT, MIB, TRACK_BAR,
    TRACK_SLOT, WHO, fast, finish, over, power_off, slow, track,
    wait_for_passes, wait_for_transfer)
import eligibility                                      # noqa: E402
import paths                                            # noqa: E402
import quiesce                                          # noqa: E402
import vetoes                                           # noqa: E402
from tapwriter import Tap                               # noqa: E402

# Guest memory of the migration tests. What lies low is sent first.
PAYLOAD = 0x200000
TARGET = 0x400000               # runs of eight pages from here on
RUN = 8 * g.FRAME
OLD, NEW = b'\x11' * g.FRAME, b'\x5a' * g.FRAME


class Bench:
    """What all tests use: the emulator to test, a folder, and the results."""

    def __init__(self, binary, tap=None):
        self.binary = binary
        self.folder = tempfile.mkdtemp(prefix='dma-track-qtest-')
        self.tap = tap or Tap()
        self.running = []

    def qemu(self, name, *args, **machine):
        """Start an emulator; cleared away after the test."""
        qemu = Qemu(self.binary, self.folder, name, list(args), **machine)
        self.running.append(qemu)
        return qemu

    def driver(self, qemu):
        """A driver of its virtio-dma-track."""
        return DmaTrack(qemu, TRACK_SLOT, TRACK_BAR)

    def guest(self, options='', **machine):
        """A source with edu and the device, and a driver that tracks it."""
        qemu = self.qemu('source', *EDU, *track(options), **machine)
        edu = Edu(qemu, EDU_SLOT, EDU_BAR)
        driver = self.driver(qemu)
        driver.become_ready()
        driver.say(0, EDU_SBDF, g.TRACKED)
        return qemu, edu, driver

    def destination(self, args=(), **machine):
        """A destination for guest(), and where it listens."""
        path = os.path.join(self.folder, 'migration')
        if os.path.exists(path):
            os.unlink(path)
        qemu = self.qemu('destination', *EDU, *(args or track()),
                         '-incoming', 'unix:' + path, **machine)
        return qemu, 'unix:' + path

    def clear(self):
        """End what the last test has left."""
        for qemu in self.running:
            qemu.stop()
        self.running = []

    def close(self):
        """Leave nothing behind."""
        self.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, test):
        """One test, and its clearing up."""
        self.tap.progress(test.__name__)
        try:
            self.tap.run(test, self)
        finally:
            self.clear()

    # --- Shorthands

    def refused(self, fact, text, function, *args, **arguments):
        """The monitor refuses, with @text in its words."""
        try:
            function(*args, **arguments)
        except QmpError as error:
            self.tap.ok(text in str(error), fact, 'got: %s' % error)
        else:
            self.tap.ok(False, fact, 'it was accepted')


# --- The device -----------------------------------------------------------

def test_second_device_is_refused(bench):
    command = [bench.binary, '-machine', 'q35', '-accel', 'qtest',
               '-nodefaults', '-display', 'none', '-monitor', 'none']
    for place in paths.FIRMWARE:
        command += ['-L', place]
    result = subprocess.run(
        command + ['-device', 'virtio-dma-track-pci',
                   '-device', 'virtio-dma-track-pci'],
        capture_output=True, text=True, timeout=g.DEADLINE, check=False)
    bench.tap.ok(result.returncode != 0
                 and 'there can be only one' in result.stderr,
                 'a second virtio-dma-track is refused', result.stderr)


def test_properties(bench):
    for options, text in (
            (',ack-timeout-ms=0', 'ack-timeout-ms must not be 0'),
            (',x-dma-quiesce-suppress=nothing',
             "x-dma-quiesce-suppress: 'nothing' is not one of flush, "
             'busmaster, pending, iommu, reset, all')):
        try:
            bench.qemu('bad', *track(options))
        except Failed as error:
            bench.tap.ok(text in str(error),
                         'bad property is refused: ' + options[1:], error)
        else:
            bench.tap.ok(False, 'bad property is refused: ' + options[1:])
    qemu = bench.qemu('plain', *track(',sync-dirty=off,x-dma-quiesce-suppress='
                                      'pending,,reset'))
    driver = bench.driver(qemu)
    driver.start()
    bench.tap.equal(driver.features & 1, 0,
                    'sync-dirty=off does not offer F_SYNC_DIRTY')


def test_features_and_config(bench):
    qemu = bench.qemu('plain', *EDU, *track())
    driver = bench.driver(qemu)
    bench.tap.equal(qemu.config_read(TRACK_SLOT << 3, 0, 'l'), 0x107c1af4,
                    'the PCI ID is that of a modern device with ID 60')
    driver.start()
    bench.tap.equal(driver.features & 1, 1, 'F_SYNC_DIRTY is offered')
    bench.tap.equal(driver.read_config()[0], g.IDLE, 'the phase is IDLE')
    bench.tap.equal(driver.read_functions(), [(EDU_SBDF, 0)],
                    'the configuration space names edu')
    qemu.poke(driver.config, 1, 'l')
    bench.tap.equal(driver.read_config()[0], g.IDLE,
                    'the configuration space is read only')
    bench.tap.ok(qemu.command('x-query-virtio'),
                 'x-query-virtio knows the device')


def test_setup(bench):
    qemu = bench.qemu('plain', *track())
    driver = bench.driver(qemu)
    driver.start()
    plane = g.PLANES
    equal = bench.tap.equal
    equal(driver.publish((0, plane, plane + g.FRAME)), g.E_STATE,
          'PUBLISH before SETUP: E_STATE')
    equal(driver.withdraw(0), g.E_STATE, 'WITHDRAW before SETUP: E_STATE')
    equal(driver.ack(0), g.E_STATE, 'ACK before SETUP: E_STATE')
    equal(driver.alive(0, 0), g.E_STATE, 'ALIVE before SETUP: E_STATE')
    equal(driver.unfence(0, 0), g.E_STATE, 'UNFENCE before SETUP: E_STATE')
    equal(driver.setup(g.STATUS_PAGE + 8), g.E_FIELD,
          'SETUP with a misaligned page: E_FIELD')
    equal(driver.setup(TRACK_BAR), g.E_NOT_RAM,
          'SETUP with a page of registers: E_NOT_RAM')
    equal(driver.setup(0xfffff000), g.E_NOT_RAM,
          'SETUP with a page of ROM: E_NOT_RAM')
    equal(driver.setup(256 * MIB), g.E_NOT_RAM,
          'SETUP with the page after RAM: E_NOT_RAM')
    equal(driver.setup(0xfffffffffffff000), g.E_NOT_RAM,
          'SETUP with the last page there is: E_NOT_RAM')
    equal(driver.setup(256 * MIB - g.FRAME), g.OK,
          'SETUP with the last page of RAM: OK')
    equal(driver.setup(), g.E_STATE, 'SETUP again: E_STATE')
    equal(driver.publish((0, 256 * MIB - g.FRAME, plane)), g.E_EXISTS,
          'PUBLISH with the status page as a plane: E_EXISTS')
    driver.start()
    equal(driver.setup(), g.OK, 'SETUP after a reset: OK')


def test_publish(bench):
    _, _, driver = bench.guest()
    equal = bench.tap.equal
    driver.start()
    driver.setup()
    a, b, c, d = (g.PLANES + i * g.FRAME for i in range(4))
    equal(driver.publish((0, a, b), reserved=1), g.E_FIELD,
          'PUBLISH with a reserved field: E_FIELD')
    equal(driver.publish((0, a + 1, b)), g.E_FIELD,
          'PUBLISH with a misaligned streaming plane: E_FIELD')
    equal(driver.publish((0, a, b + 8)), g.E_FIELD,
          'PUBLISH with a misaligned coherent plane: E_FIELD')
    equal(driver.publish((0, a, a)), g.E_EXISTS,
          'PUBLISH with one page for both planes: E_EXISTS')
    equal(driver.publish((5, a, b)), g.E_EMPTY,
          'PUBLISH of a section without RAM: E_EMPTY')
    equal(driver.publish((0xffffffff, a, b)), g.E_EMPTY,
          'PUBLISH of the last section there is: E_EMPTY')
    equal(driver.publish((0, a, EDU_BAR)), g.E_NOT_RAM,
          'PUBLISH with a plane of registers: E_NOT_RAM')
    equal(driver.publish((0, 0xfffff000, b)), g.E_NOT_RAM,
          'PUBLISH with a plane of ROM: E_NOT_RAM')
    equal(driver.publish((0, a, b), (1, c, a)), g.E_EXISTS,
          'PUBLISH with a page used twice in it: E_EXISTS')
    equal(driver.publish((0, a, b), (1, c, EDU_BAR)), g.E_NOT_RAM,
          'PUBLISH whose second entry is bad: its code')
    equal(driver.withdraw(0), g.E_NO_SECTION,
          'nothing of a refused PUBLISH is left')
    equal(driver.publish((0, a, b)), g.OK, 'PUBLISH: OK')
    equal(driver.publish((0, c, d)), g.E_EXISTS,
          'PUBLISH of a section again: E_EXISTS')
    equal(driver.publish((1, b, c)), g.E_EXISTS,
          'PUBLISH with a plane in use: E_EXISTS')
    equal(driver.publish((1, c, d)), g.OK, 'PUBLISH of another section: OK')
    equal(driver.qemu.dma_track()['provider']['sections'], 2,
          'query-dma-track counts the sections')


def test_withdraw(bench):
    _, _, driver = bench.guest()
    equal = bench.tap.equal
    equal(driver.withdraw(7), g.E_NO_SECTION,
          'WITHDRAW of what is not published: E_NO_SECTION')
    equal(driver.withdraw(0, 0), g.E_NO_SECTION,
          'WITHDRAW of one section twice: E_NO_SECTION')
    equal(driver.withdraw(0, 7), g.E_NO_SECTION,
          'WITHDRAW whose second entry is bad: E_NO_SECTION')
    equal(driver.withdraw(0, reserved=1), g.E_FIELD,
          'WITHDRAW with a reserved field: E_FIELD')
    equal(driver.withdraw(1, 0), g.OK,
          'nothing of a refused WITHDRAW is done; WITHDRAW: OK')
    equal(driver.publish((1, g.PLANES, g.PLANES + g.FRAME)), g.OK,
          'the pages of withdrawn planes can be used again')


def test_malformed_requests(bench):
    _, _, driver = bench.guest()
    equal = bench.tap.equal
    payload = bytes(128 * 24)
    equal(driver.request(0, payload), g.E_TYPE, 'type 0: E_TYPE')
    equal(driver.request(9, payload), g.E_TYPE, 'type 9: E_TYPE')
    equal(driver.request(0xffff, payload), g.E_TYPE, 'type 65535: E_TYPE')
    equal(driver.request(g.ACK, payload, reserved=1), g.E_FIELD,
          'reserved field of a request: E_FIELD')
    for kind in (g.SETUP, g.FUNCTION, g.ACK, g.ALIVE, g.UNFENCE, g.RESTORED):
        equal((driver.request(kind, payload, 0),
               driver.request(kind, payload, 2)), (g.E_FIELD, g.E_FIELD),
              'type %d with 0 or 2 entries: E_FIELD' % kind)
    for kind in (g.PUBLISH, g.WITHDRAW):
        equal((driver.request(kind, payload, 0),
               driver.request(kind, payload, 129),
               driver.request(kind, payload, 0xffffffff)),
              (g.E_FIELD,) * 3,
              'type %d with 0, 129 or 2^32 - 1 entries: E_FIELD' % kind)
    equal(driver.function(64), g.E_FIELD, 'FUNCTION 64: E_FIELD')
    equal(driver.function(0xffffffff), g.E_FIELD,
          'FUNCTION 2^32 - 1: E_FIELD')
    equal(driver.function(0, reserved=1), g.E_FIELD,
          'FUNCTION with a reserved field: E_FIELD')
    equal(driver.ack(0, reserved=1), g.E_FIELD,
          'ACK with a reserved field: E_FIELD')
    head = struct.pack('<HHI', g.PUBLISH, 0, 128)
    for fact, request, writable in (
            ('no readable part', b'', 8),
            ('seven readable bytes', head[:7], 8),
            ('a payload one byte short', head + bytes(128 * 24 - 1), 8),
            ('no writable part', head + payload, 0),
            ('seven writable bytes', head + payload, 7)):
        driver.become_ready()
        driver.send(request, writable)
        driver.answer()
        bench.tap.ok(driver.broken(),
                     'a request with %s breaks the device' % fact)
    driver.become_ready()
    bench.tap.ok(not driver.broken(), 'a reset mends it')


def test_functions_and_echoes(bench):
    qemu, _, driver = bench.guest()
    equal = bench.tap.equal
    equal(driver.function(0), g.OK, 'FUNCTION of edu: OK')
    equal(driver.function(5), g.OK, 'FUNCTION of an entry not in use: OK')
    driver.say(1, 0x77, g.TRACKED)
    equal(driver.function(1), g.E_NO_FUNCTION,
          'FUNCTION of what is not there: E_NO_FUNCTION')
    equal(driver.ack(driver.read_config()[1]), g.OK, 'ACK: OK')
    equal(driver.ack(driver.read_config()[1] + 1), g.E_STALE,
          'ACK of another phase: E_STALE')
    _, _, alive, reset = driver.read_config()
    equal(driver.alive(alive, reset), g.OK, 'ALIVE: OK')
    equal(driver.alive(alive + 1, reset), g.E_STALE,
          'ALIVE with another alive_seq: E_STALE')
    equal(driver.alive(alive, reset - 1 & 0xffffffff), g.E_STALE,
          'ALIVE with another reset_seq: E_STALE')
    equal(driver.unfence(0x77, 0), g.E_NO_FUNCTION,
          'UNFENCE of what is not there: E_NO_FUNCTION')
    equal(driver.unfence(EDU_SBDF, 1), g.E_STALE,
          'UNFENCE for another generation: E_STALE')
    equal(driver.unfence(EDU_SBDF, 0), g.OK, 'UNFENCE: OK')
    equal(driver.restored(EDU_SBDF, 0, 3), g.E_FIELD,
          'RESTORED with an unknown result: E_FIELD')
    equal(driver.restored(EDU_SBDF, 0, 0, reserved=1), g.E_FIELD,
          'RESTORED with a reserved field: E_FIELD')
    equal(driver.restored(0x77, 0, 0), g.E_NO_FUNCTION,
          'RESTORED of what is not there: E_NO_FUNCTION')
    equal(driver.restored(EDU_SBDF, 1, 0), g.E_STALE,
          'RESTORED for another generation: E_STALE')
    for result, word in enumerate(('ok', 'failed', 'no-driver')):
        status = driver.restored(EDU_SBDF, 0, result)
        equal((status, qemu.dma_track()['functions'][0]['restored']),
              (g.OK, word), 'RESTORED: %s' % word)


def test_driver_that_is_not_restored(bench):
    """The operator is told once, by name, however often the guest says it."""
    qemu, _, driver = bench.guest()
    for result in (1, 0, 1):
        bench.tap.equal(driver.restored(EDU_SBDF, 0, result), g.OK,
                        'RESTORED: OK')
    words = WHO + ': the guest could not restore its driver; see the ' \
        "guest's kernel log"
    bench.tap.equal(qemu.output().count(words), 1,
                    'QEMU warns of a driver that is not restored, once')
    bench.tap.equal(qemu.dma_track()['functions'][0]['restored'], 'failed',
                    'query-dma-track tells the last word')
    bench.tap.ok('driver restored: failed' in qemu.command(
        'human-monitor-command', command_line='info dma-track'),
        'so does info dma-track')


def test_full_queue(bench):
    """As many as the queue holds, made available before one kick."""
    qemu, _, driver = bench.guest()
    seq = driver.read_config()[1]
    for number in range(g.QUEUE_SIZE):
        driver.queue(struct.pack('<HHIII', g.ACK, 0, 1, seq, 0),
                     number=number)
    qemu.poke(driver.doorbell, 0, 'w')
    wait_for('answers', lambda: driver.answered(g.QUEUE_SIZE))
    bench.tap.ok(not driver.broken(), 'a full queue is worked off')


def test_hostile_requests(bench):
    """Any bytes whatever: the device answers or breaks, and can be reset."""
    qemu, _, driver = bench.guest()
    random = Random(2)
    answers = set()
    for _ in range(1500):
        kind = random.choice([*range(1, 9)] * 4 + [random.getrandbits(16)])
        number = random.choice([0, 1, 1, 1, 2, 128, 129,
                                random.getrandbits(32)])
        words = [random.choice([0, 0, 1, EDU_SBDF, g.PLANES >> 12,
                                random.getrandbits(16) << 12,
                                random.getrandbits(32)])
                 for _ in range(random.choice([0, 1, 2, 4, 8, 6 * 128]))]
        driver.send(struct.pack('<HHI', kind, random.choice([0, 0, 0, 1]),
                                number)
                    + b''.join(struct.pack('<I', word) for word in words))
        answers.add(driver.answer())
        qemu.write(g.STATUS_PAGE + 8 * random.randrange(512),
                   struct.pack('<Q', random.getrandbits(64)))
        qemu.dma_track()
        if driver.broken() or random.randrange(50) == 0:
            driver.start()
            driver.setup()
    bench.tap.ok(qemu.process.poll() is None,
                 'the emulator outlives 1500 requests of any kind')
    bench.tap.ok(answers >= {g.OK, g.E_TYPE, g.E_FIELD, g.E_STATE,
                             g.E_NO_SECTION, g.E_NO_FUNCTION, g.E_STALE,
                             None},
                 'they reach most answers', answers)
    driver.become_ready()
    bench.tap.ok(qemu.dma_track()['provider']['ready'],
                 'and the device works again')


def test_malformed_chains(bench):
    """Descriptors that no driver makes break the device, and nothing else."""
    qemu, _, driver = bench.guest()
    out, answer = g.BUFFERS, g.BUFFERS + 4 * g.FRAME
    end = 256 * MIB
    last = 0xffffffffffffffff
    next_, write, indirect = g.DESC_NEXT, g.DESC_WRITE, g.DESC_INDIRECT
    request = struct.pack('<HHIII', g.ACK, 0, 1, 0, 0)
    for fact, chain, where in (
            ('a loop', ((out, 16, next_, 0),), {}),
            ('a next that is outside the table',
             ((out, 16, next_, g.QUEUE_SIZE),), {}),
            ('a head that is outside the table', (),
             {'head': g.QUEUE_SIZE}),
            ('a readable part after the writable one',
             ((answer, 8, write | next_, 1), (out, 16, 0, 0)), {}),
            ('no bytes', ((out, 0, next_, 1), (answer, 0, write, 0)), {}),
            ('a request of 4 GiB less one byte',
             ((out, 0xffffffff, next_, 1), (answer, 8, write, 0)), {}),
            ('room for half an answer, in two parts',
             ((out, 16, next_, 1), (answer, 2, write | next_, 2),
              (answer + 2, 2, write, 0)), {}),
            ('an indirect table of a size that is none',
             ((out, 17, indirect, 0),), {}),
            ('an indirect table behind the end of memory',
             ((end, 32, indirect, 0),), {})):
        driver.become_ready()
        qemu.write(out, request)
        driver.send_chain(*chain, **where)
        wait_for('the device breaks at ' + fact,
                 lambda: driver.broken() or driver.answered())
        bench.tap.ok(driver.broken() and qemu.process.poll() is None,
                     'a chain with %s breaks the device' % fact)
    for fact, chain in (
            ('a request behind the end of memory',
             ((end, 16, next_, 1), (answer, 8, write, 0))),
            ('a request that wraps around',
             ((last - 7, 16, next_, 1), (answer, 8, write, 0))),
            ('a request in registers',
             ((TRACK_BAR, 16, next_, 1), (answer, 8, write, 0))),
            ('room for the answer behind the end of memory',
             ((out, 16, next_, 1), (end, 8, write, 0))),
            ('room for the answer in ROM',
             ((out, 16, next_, 1), (0xfffff000, 8, write, 0)))):
        driver.become_ready()
        driver.send_chain(*chain)
        wait_for('end of ' + fact,
                 lambda: driver.broken() or driver.answered())
        bench.tap.ok(qemu.process.poll() is None,
                     'a chain with %s does no harm' % fact)
    driver.become_ready()
    many = 5 * g.QUEUE_SIZE
    qemu.write(out, request)
    driver.send_chain((out, 16, next_, 1), (answer, 8, write, 0), ahead=many)
    wait_for('end of %d requests' % many,
             lambda: driver.broken() or driver.answered(many))
    bench.tap.ok(qemu.process.poll() is None,
                 'more requests than the queue holds do no harm')
    driver.become_ready()
    seq = driver.read_config()[1]
    request = struct.pack('<HHIII', g.ACK, 0, 1, seq, 0)
    qemu.write(out, request)
    driver.send_chain(*((out + i, 1, next_, i + 1)
                        for i in range(len(request))),
                      *((answer + i, 1, write | (next_ if i < 7 else 0),
                         len(request) + i + 1) for i in range(8)))
    bench.tap.equal(driver.answer(), g.OK,
                    'a chain of 24 parts of one byte is a request')


def test_absurd_planes(bench):
    """Pages that are RAM but not to be had, and those that are none."""
    _, _, driver = bench.guest()
    driver.start()
    driver.setup()
    plane = g.PLANES
    for fact, page in (('the last page there is', 0xfffffffffffff000),
                       ('the page after RAM', 256 * MIB),
                       ('the shadow of the BIOS', 0xf0000),
                       ('an interrupt controller', 0xfee00000),
                       ('a page 2^52 high', 1 << 52)):
        bench.tap.equal((driver.publish((0, page, plane)),
                         driver.publish((0, plane, page))),
                        (g.E_NOT_RAM,) * 2,
                        'PUBLISH with %s: E_NOT_RAM' % fact)
    for section in (2, 30, 1 << 25, 0x80000000):
        bench.tap.equal(driver.publish((section, plane, plane + g.FRAME)),
                        g.E_EMPTY,
                        'PUBLISH of section %#x: E_EMPTY' % section)
    bench.tap.equal(driver.withdraw(0xffffffff), g.E_NO_SECTION,
                    'WITHDRAW of the last section there is: E_NO_SECTION')
    bench.tap.equal(driver.publish((0, g.RING, g.BUFFERS)), g.OK,
                    'PUBLISH of the ring itself: the guest\'s own matter')
    bench.tap.ok(not driver.broken() and driver.withdraw(0) == g.OK,
                 'and the device works on')


def test_hot_added_memory(bench):
    qemu, _, driver = bench.guest(memory='256,slots=1,maxmem=1G')
    section = (4 << 30) >> g.SECTION_SHIFT
    planes = (0x300000, 0x301000)
    bench.tap.equal(driver.publish((section, *planes)), g.E_EMPTY,
                    'PUBLISH before memory is added there: E_EMPTY')
    qemu.command('object-add', qom_type='memory-backend-ram', id='more',
                 size=128 * MIB)
    qemu.command('device_add', driver='pc-dimm', id='dimm', memdev='more')
    bench.tap.equal(driver.publish((section, *planes)), g.OK,
                    'PUBLISH after memory was added there: OK')
    bench.tap.equal(driver.publish((1 + section, 4 << 30, 0x302000)),
                    g.E_EMPTY, 'but not of the section after it')


# --- The veto ---------------------------------------------------------------

def test_refusals(bench):
    qemu = bench.qemu('source', *EDU, *track())
    edu = Edu(qemu, EDU_SLOT, EDU_BAR)
    driver = bench.driver(qemu)
    path = 'unix:' + os.path.join(bench.folder, 'nobody')

    def refused(fact, text):
        bench.refused(fact, text, qemu.command, 'migrate', uri=path)
        info = qemu.dma_track()
        bench.tap.ok(not info['migratable']
                     and any(text in reason for reason in info['reasons']),
                     'query-dma-track says so too', info)

    refused('refused: the guest has no driver',
            WHO + ': untracked: the guest has no driver')
    driver.become_ready()
    refused('refused: the guest does not know the function',
            WHO + ': untracked: the guest does not know it')
    for reason, text in ((g.BOUND_BEFORE, 'bound before tracking began'),
                         (g.NO_CAPABILITY,
                          'it has no capability and the host has not named '
                          'it; plug it into a PCI Express port'),
                         (g.BEHIND_API, 'behind the DMA API'),
                         (g.NO_RESOURCES, 'no resources'),
                         (99, 'no known reason')):
        driver.say(0, EDU_SBDF, g.UNTRACKED, reason)
        refused('refused: untracked, reason %d' % reason,
                WHO + ': untracked: ')
        bench.tap.ok(text in qemu.dma_track()['functions'][0]['reason'],
                     'with the reason: ' + text)
    driver.say(0, EDU_SBDF, 77)
    refused('refused: unknown state', 'unknown state 77')
    driver.say(0, EDU_SBDF, g.UNBOUND)
    refused('refused: no driver bound, but bus master on', 'master the bus')
    edu.set_master(False)
    bench.tap.ok(qemu.dma_track()['migratable'],
                 'not refused: no driver bound, and bus master off')
    edu.set_master(True)
    driver.say(0, EDU_SBDF, g.TRACKED)
    bench.tap.ok(qemu.dma_track()['migratable'], 'not refused: tracked')
    for lost, text in ((1, 'no published section'), (2, 'could not be found'),
                       (3, 'disabled or bypassed'), (9, 'unknown reason')):
        driver.lose(lost)
        refused('refused: lost word %d' % lost, text)
    driver.lose(0)
    for name, state in (('postcopy-ram', 'postcopy'),
                        ('background-snapshot', 'a background snapshot')):
        try:
            qemu.command('migrate-set-capabilities', capabilities=[
                {'capability': name, 'state': True}])
        except QmpError as error:
            bench.tap.skip('refused: ' + state, error)
            continue
        bench.refused('refused: ' + state, WHO + ': %s is not' % state,
                      qemu.command, 'migrate', uri=path)
        qemu.command('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': False}])


def run_job(qemu, name, **arguments):
    """Run a command that is a job; return why it failed, or an empty string."""
    qemu.command(name, job_id='job', **arguments)

    def concluded():
        return [job for job in qemu.command('query-jobs')
                if job['status'] == 'concluded']
    job = wait_for('end of ' + name, concluded)[0]
    qemu.command('job-dismiss', id='job')
    return job.get('error', '')


def test_snapshot_is_refused(bench):
    qemu = bench.qemu('source', *EDU, *track())
    driver = bench.driver(qemu)
    driver.become_ready()
    driver.say(0, EDU_SBDF, g.TRACKED)
    path = os.path.join(bench.folder, 'disk')
    for arguments in ({'driver': 'file', 'filename': path, 'size': 0},
                      {'driver': 'qcow2', 'file': 'file', 'size': MIB}):
        error = run_job(qemu, 'blockdev-create', options=arguments)
        if error:
            raise Failed('no disk for a snapshot: ' + error)
        if arguments['driver'] == 'file':
            qemu.command('blockdev-add', driver='file', node_name='file',
                         filename=path)
    qemu.command('blockdev-add', driver='qcow2', node_name='disk', file='file')
    error = run_job(qemu, 'snapshot-save', tag='t', vmstate='disk',
                    devices=['disk'])
    bench.tap.ok(WHO + ': a VM snapshot is not supported' in error,
                 'refused: a snapshot', error)


# --- A migration ------------------------------------------------------------

def test_no_acknowledgement(bench):
    qemu, _, driver = bench.guest(',ack-timeout-ms=300')
    _, uri = bench.destination()
    before = driver.read_config()
    qemu.command('migrate', uri=uri)
    wait_for('phase LOGGING', lambda: driver.read_config()[0] == g.LOGGING)
    bench.tap.ok(driver.read_config()[1] != before[1],
                 'phase_seq changes with the phase')
    bench.tap.equal(finish(qemu), 'failed',
                    'without an acknowledgement the migration fails')
    bench.tap.ok('track: the guest did not acknowledge' in qemu.error()
                 and 'within 300 ms (ack-timeout-ms)' in qemu.error(),
                 'with a text that names the device and the property',
                 qemu.error())
    bench.tap.ok(qemu.command('query-status')['running'], 'the guest runs on')
    config = driver.read_config()
    bench.tap.equal((config[0], config[1]), (g.IDLE, before[1] + 2),
                    'the phase is IDLE again, and new')
    bench.tap.equal(driver.ack(before[1] + 1), g.E_STALE,
                    'a late acknowledgement is stale')


def test_stale_acknowledgement_does_not_count(bench):
    qemu, _, driver = bench.guest(',ack-timeout-ms=300')
    _, uri = bench.destination()
    old = driver.read_config()[1]
    qemu.command('migrate', uri=uri)
    wait_for('phase LOGGING', lambda: driver.read_config()[0] == g.LOGGING)
    driver.ack(old)
    bench.tap.equal(finish(qemu), 'failed',
                    'the acknowledgement of an older phase does not count')


def test_no_sign_of_life(bench):
    qemu, _, driver = bench.guest(',ack-timeout-ms=300')
    _, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    bench.tap.equal(finish(qemu, driver, alive=False), 'failed',
                    'without a sign of life the migration fails')
    bench.tap.ok('give a sign of life' in qemu.error(), 'and says so',
                 qemu.error())
    bench.tap.ok(qemu.command('query-status')['running'], 'the guest runs on')


def test_completes_and_moves(bench):
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    wait_for('phase LOGGING', lambda: driver.read_config()[0] == g.LOGGING)
    bench.tap.equal(driver.withdraw(0), g.E_BUSY,
                    'WITHDRAW while a migration runs: E_BUSY')
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'a guest that answers is migrated')
    source = driver.seen
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    there = bench.driver(dst)
    there.adopt(driver)
    config = there.read_config()
    bench.tap.equal(config[0], g.IDLE, 'there the phase is IDLE')
    bench.tap.ok(config[1] != source[1], 'and its sequence number is new')
    bench.tap.ok(config[3] != source[3], 'and reset_seq is new')
    info = dst.dma_track()
    bench.tap.equal((info['provider']['ready'], info['provider']['sections'],
                     info['migratable']), (True, 2, True),
                    'what the guest has published is known there')
    bench.tap.equal(there.publish((0, 0x300000, 0x301000)), g.E_EXISTS,
                    'a published section is published there')
    bench.tap.equal(there.ack(config[1]), g.OK,
                    'the driver goes on with the same queue')
    bench.tap.equal(there.withdraw(0, 1), g.OK, 'and can withdraw there')


def test_moves_twice(bench):
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    finish(qemu, driver)
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    there = bench.driver(dst)
    there.adopt(driver)
    path = os.path.join(bench.folder, 'second')
    last = bench.qemu('last', *EDU, *track(), '-incoming', 'unix:' + path)
    dst.command('migrate', uri='unix:' + path)
    bench.tap.equal(finish(dst, there), 'completed', 'a guest moves twice')
    wait_for('last destination runs',
             lambda: last.command('query-status')['running'])
    bench.tap.equal(last.dma_track()['provider']['sections'], 2,
                    'and what it has published with it')


def stored_after_first_send(qemu, edu, driver, uri):
    """Begin to migrate; return when all of low memory was sent."""
    qemu.write(PAYLOAD, NEW)
    for i in range(4):
        qemu.write(TARGET + i * RUN, OLD * 8)
    edu.load(PAYLOAD, g.FRAME)
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, driver, 60 * MIB)


def arrived(dst, addr):
    """The page there: new, old, or something else."""
    return {NEW: 'new', OLD: 'old'}.get(dst.read(addr, g.FRAME), 'neither')


def test_pinned_pages_arrive(bench):
    qemu, edu, driver = bench.guest()
    dst, uri = bench.destination()
    ring = TARGET + 3 * RUN
    driver.pin(ring, RUN, coherent=True)
    stored_after_first_send(qemu, edu, driver, uri)

    mapped, unmapped, undirtied = (TARGET + i * RUN for i in range(3))
    for addr in (mapped, unmapped, undirtied):
        driver.pin(addr, RUN)
        edu.store(addr, g.FRAME)
    edu.store(ring, g.FRAME)
    driver.unpin(unmapped, RUN)
    driver.forget(undirtied, RUN)
    fast(qemu)
    bench.tap.equal(finish(qemu, driver), 'completed', 'the migration ends')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    bench.tap.equal(arrived(dst, mapped), 'new',
                    'a page pinned to the end arrives')
    bench.tap.equal(arrived(dst, ring), 'new',
                    'a page in the coherent plane arrives')
    bench.tap.equal(arrived(dst, unmapped), 'new',
                    'a page unpinned during precopy arrives')
    bench.tap.equal(arrived(dst, undirtied), 'old',
                    'control: unpinned without dirtying, it is lost')
    last = qemu.dma_track()['last-migration']
    bench.tap.equal((last['pinned-frames'], last['coherent-frames']), (16, 8),
                    'query-dma-track counts what was pinned at the end')
    bench.tap.ok(last['final-pass-bytes'] >= 16 * g.FRAME
                 and last['deferred-frames'] >= 8,
                 'and what was deferred and sent at the end', last)


def test_pinned_pages_arrive_by_other_ways(bench):
    for name in ('multifd', 'xbzrle', 'return-path', 'auto-converge'):
        capability = [{'capability': name, 'state': True}]
        qemu, edu, driver = bench.guest()
        path = os.path.join(bench.folder, name)
        dst = bench.qemu('destination', *EDU, *track(), '-incoming', 'defer')
        for side in (qemu, dst):
            side.command('migrate-set-capabilities', capabilities=capability)
        dst.command('migrate-incoming', uri='unix:' + path)
        stored_after_first_send(qemu, edu, driver, 'unix:' + path)
        driver.pin(TARGET, 2 * RUN)
        edu.store(TARGET, g.FRAME)
        edu.store(TARGET + RUN, g.FRAME)
        driver.unpin(TARGET + RUN, RUN)
        fast(qemu)
        finish(qemu, driver)
        wait_for('destination runs',
                 lambda: dst.command('query-status')['running'])
        bench.tap.equal((arrived(dst, TARGET), arrived(dst, TARGET + RUN)),
                        ('new', 'new'), 'pages arrive with ' + name)
        bench.clear()


def test_control_pages_are_lost(bench):
    """Without the device nobody knows of the write: the page must be lost."""
    qemu = bench.qemu('source', *EDU)
    edu = Edu(qemu, EDU_SLOT, EDU_BAR)
    dst, uri = bench.destination(args=('-nodefaults',))
    stored_after_first_send(qemu, edu, None, uri)
    edu.store(TARGET, g.FRAME)
    fast(qemu)
    bench.tap.equal(finish(qemu), 'completed', 'control: the migration ends')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    bench.tap.equal((arrived(qemu, TARGET), arrived(dst, TARGET)),
                    ('new', 'old'),
                    'control: without virtio-dma-track the page is lost')


def test_pinned_pages_are_not_sent_early(bench):
    """Sticky deferral: dirty and pinned at a sync, unpinned after it."""
    qemu, edu, driver = bench.guest()
    dst, uri = bench.destination()
    driver.pin(TARGET, RUN)
    stored_after_first_send(qemu, edu, driver, uri)
    edu.store(TARGET, g.FRAME)
    # Its dirty bit was dropped long ago, if deferral were not sticky.
    driver.forget(TARGET, RUN)
    fast(qemu)
    finish(qemu, driver)
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    bench.tap.equal(arrived(dst, TARGET), 'new',
                    'a page that was deferred is sent when it is unpinned')


def test_pinned_pages_count_as_downtime(bench):
    """More pinned than fits the downtime: not over until they are fewer."""
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    qemu.fill(BULK, BULK_SIZE, 0x77)
    driver.pin(BULK, 128 * MIB)
    qemu.command('migrate-set-parameters', max_bandwidth=200 * MIB,
                 downtime_limit=50)
    qemu.command('migrate', uri=uri)
    wait_for_passes(qemu, driver, 20)
    bench.tap.ok(True, 'no switchover while too much is pinned')
    driver.unpin(BULK, 128 * MIB)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'it completes when that is unpinned')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


def test_many_pinned_pages_complete(bench):
    """Little else to send must not look like little bandwidth."""
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    qemu.fill(BULK, BULK_SIZE, 0x77)
    driver.pin(BULK, 64 * MIB)
    qemu.command('migrate-set-parameters', max_bandwidth=200 * MIB,
                 downtime_limit=50)
    qemu.command('migrate', uri=uri)
    # Long enough for the bandwidth to be measured with nothing left to send.
    wait_for_passes(qemu, driver, 60)
    qemu.command('migrate-set-parameters', downtime_limit=5000)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'a migration with 64 MiB pinned completes')
    bench.tap.equal(qemu.dma_track()['last-migration']['pinned-frames'],
                    64 * MIB // g.FRAME, 'all of them in the last pass')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


def test_guest_breaks_its_promise(bench):
    """What the guest does in the middle of a migration fails it, cleanly."""
    def lose(driver):
        driver.lose(1)

    def untrack(driver):
        driver.say(0, EDU_SBDF, g.UNTRACKED, g.BEHIND_API)
        driver.function(0)
        driver.say(0, EDU_SBDF, g.TRACKED)

    def restart(driver):
        driver.reset()

    def malform(driver):
        driver.send(b'short')
        driver.answer()

    for fact, act, text in (
            ('the lost word', lose, 'the guest has lost track'),
            ('becoming untracked for a while', untrack,
             WHO + ' became untracked during migration: its driver maps'),
            ('a reset of the device', restart,
             'track: the guest has reset the device during migration'),
            ('a malformed request', malform,
             'track: the guest broke the protocol during migration')):
        qemu, _, driver = bench.guest()
        _, uri = bench.destination()
        slow(qemu)
        qemu.command('migrate', uri=uri)
        wait_for_transfer(qemu, driver, 10 * MIB)
        act(driver)
        fast(qemu)
        alone = act in (restart, malform)
        bench.tap.equal(finish(qemu, None if alone else driver), 'failed',
                        fact + ' fails the migration')
        bench.tap.ok(text in qemu.error(), 'and the text says so',
                     qemu.error())
        bench.tap.ok(qemu.command('query-status')['running'],
                     'the guest runs on')
        bench.clear()


def test_untracked_without_a_request(bench):
    """The status page alone tells, at any look during the migration."""
    for look in ('a sync of the dirty log', 'query-dma-track'):
        qemu, _, driver = bench.guest()
        _, uri = bench.destination()
        if look == 'query-dma-track':
            slow(qemu)
            qemu.command('migrate', uri=uri)
            wait_for_transfer(qemu, driver, 10 * MIB)
        else:
            # More than fits the downtime: sync follows sync.
            driver.pin(BULK, 128 * MIB)
            qemu.fill(BULK, BULK_SIZE, 0x77)
            qemu.command('migrate-set-parameters', max_bandwidth=200 * MIB,
                         downtime_limit=50)
            qemu.command('migrate', uri=uri)
            wait_for_passes(qemu, driver, 10)
        driver.say(0, EDU_SBDF, g.UNTRACKED, g.BEHIND_API)
        if look == 'query-dma-track':
            qemu.dma_track()
            driver.say(0, EDU_SBDF, g.TRACKED)
            fast(qemu)
        bench.tap.equal(finish(qemu, driver), 'failed',
                        'becoming untracked fails the migration at ' + look)
        bench.tap.ok(WHO + ' became untracked during migration: its driver'
                     in qemu.error(), 'and the text says so', qemu.error())
        bench.tap.ok(qemu.command('query-status')['running'],
                     'the guest runs on')
        bench.clear()


def wait_for_time(qemu, driver, milliseconds, work):
    """Play the guest, and let it work, until the migration is so old."""
    def step():
        driver.serve()
        work()
        if over(qemu):
            raise Failed('the migration is over: %s %s'
                         % (over(qemu), qemu.error()))
        return (qemu.command('query-migrate').get('total-time', 0)
                > milliseconds)
    wait_for('%d ms of migration' % milliseconds, step)


def test_pinned_pages_do_not_throttle(bench):
    """Auto-converge slows down a guest that is ahead of the channel only."""
    qemu, _, driver = bench.guest()
    _, uri = bench.destination()
    qemu.fill(BULK, BULK_SIZE, 0x77)
    driver.pin(BULK, 128 * MIB)

    def use_rings():
        qemu.fill(BULK, 2 * MIB, 0x33)

    def use_rings_and_more():
        use_rings()
        qemu.fill(TARGET, 64 * g.FRAME, 0x44)

    def throttled():
        return qemu.command('query-migrate').get('cpu-throttle-percentage')

    qemu.command('migrate-set-capabilities', capabilities=[
        {'capability': 'auto-converge', 'state': True}])
    qemu.command('migrate-set-parameters', max_bandwidth=400 * MIB,
                 downtime_limit=50)
    qemu.command('migrate', uri=uri)
    # Rates are taken once in a second; throttling needs two bad ones.
    wait_for_time(qemu, driver, 4000, use_rings)
    rate = qemu.command('query-migrate')['ram']['dirty-pages-rate']
    bench.tap.ok(rate < 2 * MIB // g.FRAME,
                 'they do not count as dirtied again and again', rate)
    wait_for_time(qemu, driver, 9000, use_rings_and_more)
    bench.tap.equal(throttled(), None,
                    'pages written while they are pinned do not throttle')
    driver.forget(BULK, 128 * MIB)
    qemu.command('migrate-set-parameters', max_bandwidth=64 * MIB)

    def be_ahead():
        driver.serve()
        qemu.fill(BULK + 160 * MIB, 32 * MIB, 0x55)
        return throttled()
    bench.tap.ok(wait_for('throttling', be_ahead),
                 'control: a guest that is ahead of the channel is throttled')
    qemu.command('migrate_cancel')
    finish(qemu)


def test_queue_reset(bench):
    """The guest takes the queue away and brings it back, in every phase."""
    def idle(qemu, driver, _):
        return qemu, driver

    def asked(qemu, driver, uri):
        qemu.command('migrate', uri=uri)
        wait_for('phase LOGGING', lambda: driver.read_config()[0] == g.LOGGING)

    def logging(qemu, driver, uri):
        slow(qemu)
        qemu.command('migrate', uri=uri)
        wait_for_transfer(qemu, driver, 10 * MIB)
        fast(qemu)

    def echo(qemu, driver, uri):
        alive = driver.read_config()[2]
        qemu.command('migrate', uri=uri)

        def wanted():
            driver.serve(alive=False)
            return driver.read_config()[2] != alive
        wait_for('the question for a sign of life', wanted)

    for reach in (idle, asked, logging, echo):
        qemu, _, driver = bench.guest()
        driver.become_ready(features=g.VERSION_1 | g.RING_RESET)
        driver.say(0, EDU_SBDF, g.TRACKED)
        dst, uri = bench.destination()
        reach(qemu, driver, uri)
        driver.reset_queue()
        qemu.poke(driver.doorbell, 0, 'w')
        driver.enable_queue()
        driver.seen = None
        if reach is idle:
            qemu.command('migrate', uri=uri)
        bench.tap.equal(finish(qemu, driver), 'completed',
                        'a reset of the queue (%s) does no harm'
                        % reach.__name__)
        wait_for('destination runs',
                 lambda: dst.command('query-status')['running'])
        bench.clear()

    qemu, _, driver = bench.guest(',ack-timeout-ms=300')
    driver.become_ready(features=g.VERSION_1 | g.RING_RESET)
    driver.say(0, EDU_SBDF, g.TRACKED)
    _, uri = bench.destination()
    logging(qemu, driver, uri)
    driver.reset_queue()
    bench.tap.equal(finish(qemu), 'failed',
                    'a queue that stays away fails the migration')
    bench.tap.ok('give a sign of life' in qemu.error(),
                 'for want of a sign of life', qemu.error())


def test_device_reset(bench):
    """The guest resets the device while it is waited for."""
    for phase in ('acknowledgement', 'sign of life'):
        qemu, _, driver = bench.guest(',ack-timeout-ms=60000')
        _, uri = bench.destination()
        alive = driver.read_config()[2]
        qemu.command('migrate', uri=uri)
        if phase == 'acknowledgement':
            wait_for('phase LOGGING',
                     lambda: driver.read_config()[0] == g.LOGGING)
        else:
            def wanted():
                driver.serve(alive=False)
                return driver.read_config()[2] != alive
            wait_for('the question for a sign of life', wanted)
        driver.become_ready()
        driver.say(0, EDU_SBDF, g.TRACKED)
        driver.seen = None
        bench.tap.equal(finish(qemu, driver), 'failed',
                        'a reset instead of the %s fails the migration'
                        % phase)
        bench.tap.ok('reset the device during migration' in qemu.error(),
                     'at once, and the text says so', qemu.error())
        bench.clear()


def test_next_migration_after_a_failed_one(bench):
    qemu, _, driver = bench.guest(',ack-timeout-ms=300')
    _, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    finish(qemu)
    bench.running.pop().stop()
    dst, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'a migration that failed does not spoil the next')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


def test_cancel(bench):
    qemu, _, driver = bench.guest(',ack-timeout-ms=60000')
    _, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    wait_for('phase LOGGING', lambda: driver.read_config()[0] == g.LOGGING)
    qemu.command('migrate_cancel')
    bench.tap.equal(finish(qemu), 'cancelled',
                    'a migration is cancelled while the guest is waited for')
    bench.tap.equal(driver.read_config()[0], g.IDLE, 'the phase is IDLE again')


def test_interrupt_is_repeated(bench):
    """An interrupt can be lost in a move: it comes again until echoed."""
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    driver.serve()
    driver.config_interrupt()
    qemu.command('migrate', uri=uri)
    for i in range(3):
        wait_for('interrupt %d' % i, driver.config_interrupt)
    bench.tap.ok(True, 'the interrupt is repeated without an echo')
    finish(qemu, driver)
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    there = bench.driver(dst)
    there.adopt(driver)
    for i in range(3):
        wait_for('interrupt %d there' % i, there.config_interrupt)
    bench.tap.ok(True, 'and raised and repeated where the guest arrives')
    there.serve()
    there.config_interrupt()
    try:
        # The longest pause between two is one second.
        wait_for('an interrupt', there.config_interrupt, 1.5)
    except Failed:
        bench.tap.ok(True, 'not after the echo')
    else:
        bench.tap.ok(False, 'not after the echo')


def test_pause_before_switchover(bench):
    def start(uri):
        qemu.command('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])
        qemu.command('migrate', uri=uri)

        def paused():
            driver.serve()
            return qemu.status() == 'pre-switchover'
        driver.give_up = paused_at_last
        wait_for('pre-switchover', paused)

    def paused_at_last():
        return qemu.status() == 'pre-switchover'

    qemu, _, driver = bench.guest()
    _, uri = bench.destination()
    start(uri)
    qemu.command('migrate_cancel')
    bench.tap.equal(finish(qemu), 'cancelled', 'cancelled before switchover')
    bench.tap.ok(qemu.command('query-status')['running'], 'the guest runs on')
    bench.tap.equal(driver.read_config()[0], g.IDLE, 'the phase is IDLE again')
    if driver.outstanding:
        driver.give_up = lambda: False
        driver.answer()
    bench.running.pop().stop()
    dst, uri = bench.destination()
    start(uri)
    qemu.command('migrate-continue', state='pre-switchover')
    bench.tap.equal(finish(qemu), 'completed', 'and completed the next time')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


def test_guest_unplugs_function(bench):
    """A guest can power off a slot, whatever the monitor allows."""
    qemu, _, driver = bench.guest(machine='pc')
    _, uri = bench.destination(machine='pc')
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, driver, 10 * MIB)
    power_off(qemu, EDU_SLOT)
    fast(qemu)
    bench.tap.equal(finish(qemu, driver), 'failed',
                    'a guest that unplugs a function fails its migration')
    bench.tap.ok(WHO + ' was unplugged during migration' in qemu.error(),
                 'and the text says so', qemu.error())
    bench.tap.ok(qemu.command('query-status')['running'], 'the guest runs on')


def test_guest_unplugs_device(bench):
    for when in ('while it logs', 'while it is waited for'):
        qemu, _, driver = bench.guest(machine='pc')
        _, uri = bench.destination(machine='pc')
        slow(qemu)
        qemu.command('migrate', uri=uri)
        if when == 'while it logs':
            wait_for_transfer(qemu, driver, 10 * MIB)
        else:
            wait_for('phase LOGGING',
                     lambda: driver.read_config()[0] == g.LOGGING)
        power_off(qemu, TRACK_SLOT)
        fast(qemu)
        bench.tap.equal(finish(qemu), 'failed',
                        'a guest that unplugs the device %s fails its '
                        'migration' % when)
        bench.tap.ok('unplugged during migration' in qemu.error(),
                     'and the text says so', qemu.error())
        bench.tap.ok('provider' not in qemu.dma_track(), 'the device is gone')
        bench.clear()


def test_guest_unplugs_device_again_and_again(bench):
    """The wait for the guest must outlive the device: at any moment of it."""
    ends = []
    for _ in range(30):
        qemu = bench.qemu('source', *EDU, *track(), machine='pc')
        driver = bench.driver(qemu)
        driver.become_ready()
        driver.say(0, EDU_SBDF, g.TRACKED)
        qemu.command('migrate', uri='exec:cat > /dev/null')
        wait_for('phase LOGGING',
                 lambda: driver.read_config()[0] == g.LOGGING)
        power_off(qemu, TRACK_SLOT)
        ends.append((finish(qemu), 'unplugged during' in qemu.error()))
        bench.clear()
    bench.tap.equal(ends, [('failed', True)] * 30,
                    'a device unplugged while it is waited for, 30 times')


def test_system_reset(bench):
    qemu, _, driver = bench.guest()
    _, uri = bench.destination()
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, driver, 10 * MIB)
    qemu.command('system_reset')
    bench.tap.equal(finish(qemu), 'failed',
                    'a guest that reboots fails its migration')
    bench.tap.ok('reset the device during migration' in qemu.error(),
                 'and the text says so', qemu.error())


def test_paused(bench):
    """A guest that is paused cannot answer, and need not."""
    qemu, edu, driver = bench.guest()
    dst, uri = bench.destination()
    driver.pin(TARGET, RUN)
    qemu.write(TARGET, OLD * 8)
    qemu.write(PAYLOAD, NEW)
    edu.load(PAYLOAD, g.FRAME)
    edu.store(TARGET, g.FRAME)
    qemu.command('stop')
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, None, 20 * MIB)
    bench.tap.equal(driver.read_config()[0], g.IDLE,
                    'a paused guest is not asked to log')
    fast(qemu)
    bench.tap.equal(finish(qemu), 'completed', 'a paused guest is migrated')
    bench.tap.equal(qemu.dma_track()['last-migration']['pinned-frames'], 8,
                    'with what is pinned in the last pass')
    bench.tap.equal(arrived(dst, TARGET), 'new',
                    'and what its device has written')


def test_paused_and_continued(bench):
    qemu, _, driver = bench.guest()
    _, uri = bench.destination()
    qemu.command('stop')
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, None, 10 * MIB)
    qemu.command('cont')
    bench.tap.equal(finish(qemu, driver), 'failed',
                    'a paused guest that goes on fails its migration')
    bench.tap.ok('the VM began to run' in qemu.error(), 'and is told why',
                 qemu.error())


def test_stopped_and_continued_while_logging(bench):
    qemu, _, driver = bench.guest()
    _, uri = bench.destination()
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, driver, 10 * MIB)
    qemu.command('stop')
    qemu.command('cont')
    fast(qemu)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'a guest that logs may be stopped and go on')


def test_stopped_while_asked(bench):
    """No vCPU can answer: nothing is sent that could change later."""
    qemu, edu, driver = bench.guest(',ack-timeout-ms=60000')
    dst, uri = bench.destination()
    qemu.write(TARGET, OLD)
    qemu.write(PAYLOAD, NEW)
    edu.load(PAYLOAD, g.FRAME)
    qemu.command('migrate', uri=uri)
    wait_for('phase LOGGING', lambda: driver.read_config()[0] == g.LOGGING)
    edu.store(TARGET, g.FRAME)
    qemu.command('stop')
    bench.tap.equal(finish(qemu), 'completed',
                    'a guest stopped while it is waited for is migrated')
    bench.tap.equal(arrived(dst, TARGET), 'new',
                    'with what its device has written')


def test_stopped_while_logging(bench):
    """Stopped by the user, a guest cannot tell that its planes still hold."""
    qemu, edu, driver = bench.guest()
    dst, uri = bench.destination()
    stored_after_first_send(qemu, edu, driver, uri)
    # As a kernel would that has taken the place of one that crashed.
    edu.store(TARGET, g.FRAME)
    qemu.command('stop')
    fast(qemu)
    bench.tap.equal(finish(qemu), 'completed',
                    'a guest that was stopped while it logged is migrated')
    bench.tap.equal(arrived(dst, TARGET), 'new',
                    'with what its device wrote where the planes are silent')


def test_stopped_while_asked_for_a_sign_of_life(bench):
    qemu, edu, driver = bench.guest(',ack-timeout-ms=60000')
    dst, uri = bench.destination()
    stored_after_first_send(qemu, edu, driver, uri)
    alive = driver.read_config()[2]
    fast(qemu)

    def wanted():
        driver.serve(alive=False)
        return driver.read_config()[2] != alive
    wait_for('the question for a sign of life', wanted)
    edu.store(TARGET, g.FRAME)
    qemu.command('stop')
    bench.tap.equal(finish(qemu), 'completed',
                    'a guest stopped at the last question is migrated')
    bench.tap.equal(arrived(dst, TARGET), 'new',
                    'with what its device wrote where the planes are silent')


def test_crashed_guest(bench):
    """A kernel after a crash answers nothing: an error, and no hang."""
    qemu, _, driver = bench.guest(',ack-timeout-ms=300')
    _, uri = bench.destination()
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, driver, 10 * MIB)
    fast(qemu)
    bench.tap.equal(finish(qemu), 'failed',
                    'a guest that crashes while it logs fails its migration')
    bench.tap.ok('track: the guest did not give a sign of life within 300 ms'
                 in qemu.error(), 'and the text says so', qemu.error())
    bench.tap.ok(qemu.command('query-status')['running'], 'the guest runs on')


def test_cpr_reboot(bench):
    """The function goes on in another QEMU: nobody is asked, nobody waits."""
    qemu, _, driver = bench.guest(',ack-timeout-ms=60000')
    before = driver.read_config()
    driver.say(0, EDU_SBDF, g.UNTRACKED, g.BOUND_BEFORE)
    path = os.path.join(bench.folder, 'cpr')
    qemu.command('migrate-set-parameters', mode='cpr-reboot')
    qemu.command('migrate', uri='file:' + path)
    bench.tap.equal(finish(qemu), 'completed',
                    'cpr-reboot completes with an untracked function')
    bench.tap.equal(driver.read_config(), before, 'the guest was not asked')
    there = bench.qemu('updated', *EDU, *track(), '-incoming', 'defer')
    there.command('migrate-set-parameters', mode='cpr-reboot')
    there.command('migrate-incoming', uri='file:' + path)
    wait_for('the guest is there',
             lambda: there.command('query-status')['status'] != 'inmigrate')
    if not there.command('query-status')['running']:
        there.command('cont')
    updated = bench.driver(there)
    updated.adopt(driver)
    bench.tap.equal(there.dma_track()['provider']['sections'], 2,
                    'what the guest has published is known there')
    bench.tap.equal(updated.unfence(EDU_SBDF, 0), g.OK,
                    'and its requests are answered there')


# --- The stream -------------------------------------------------------------

def saved_guest(bench):
    """A file with a guest in it, and where its sections begin."""
    qemu, _, driver = bench.guest()
    path = os.path.join(bench.folder, 'saved')
    qemu.command('migrate', uri='file:' + path)
    if finish(qemu, driver) != 'completed':
        raise Failed('the guest cannot be saved: ' + qemu.error())
    bench.clear()
    with open(path, 'rb') as file:
        data = file.read()
    mark = struct.pack('>IIQQ', 2, 0, g.PLANES, g.PLANES + g.FRAME)
    if data.count(mark) != 1:
        raise Failed('the sections are not found in the stream')
    return data, data.index(mark)


def load(bench, data):
    """Load such a file; return the emulator once that is over."""
    path = os.path.join(bench.folder, 'changed')
    with open(path, 'wb') as file:
        file.write(data)
    qemu = bench.qemu('loaded', *EDU, *track(), '-incoming', 'defer')
    qemu.command('migrate-incoming', uri='file:' + path)

    def done():
        try:
            return qemu.command('query-status')['running']
        except Failed:
            return qemu.process.poll() is not None
        except OSError:
            return True
    wait_for('end of loading', done)
    return qemu


def test_hostile_stream(bench):
    data, at = saved_guest(bench)
    qemu = load(bench, data)
    bench.tap.equal(qemu.dma_track()['provider']['sections'], 2,
                    'the stream as it was is loaded')
    bench.clear()

    plane = g.PLANES
    phase_at = at - 8 - 1 - 28
    no_status = 'the status page in the stream is misaligned, missing, or ' \
                'also a plane'
    for fact, offset, change, text in (
            ('a section twice', 24, struct.pack('>I', 0), 'out of order'),
            ('a section without RAM', 24, struct.pack('>I', 4000),
             'contains no RAM'),
            ('2^32 - 1 sections', 0, struct.pack('>I', 0xffffffff),
             'virtio-dma-track'),
            ('a plane twice', 28, struct.pack('>Q', plane), 'bad planes'),
            ('a misaligned plane', 28, struct.pack('>Q', plane + 1),
             'bad planes'),
            ('the status page as a plane', -8, struct.pack('>Q', plane),
             no_status),
            ('a misaligned status page', -8,
             struct.pack('>Q', g.STATUS_PAGE + 8), no_status),
            ('sections but no status page', -9, b'\0', no_status),
            ('the last section there is', 24, struct.pack('>I', 0xffffffff),
             'contains no RAM'),
            ('planes in the wrong order of sections', 4,
             struct.pack('>I', 1), 'out of order'),
            ('one section too few', 0, struct.pack('>I', 1),
             'virtio-dma-track'),
            ('an unknown phase', phase_at - at, struct.pack('>I', 7),
             'phase 7')):
        changed = bytearray(data)
        changed[at + offset:at + offset + len(change)] = change
        qemu = load(bench, bytes(changed))
        qemu.process.wait(g.DEADLINE)
        bench.tap.ok(qemu.process.returncode == 1 and text in qemu.output(),
                     'a stream with %s is refused' % fact,
                     '%s: %s' % (qemu.process.returncode, qemu.output()))
        bench.clear()

    changed = bytearray(data)
    changed[at + 28:at + 36] = struct.pack('>Q', TRACK_BAR + 0x10000)
    qemu = load(bench, bytes(changed))
    info = qemu.dma_track()
    bench.tap.ok(not info['migratable']
                 and 'not writable RAM' in ' '.join(info['reasons']),
                 'a plane that is not RAM there vetoes the next migration',
                 info)
    bench.clear()

    changed = bytearray(data)
    changed[at - 8:at] = struct.pack('>Q', 0xfffffffffffff000)
    qemu = load(bench, bytes(changed))
    info = qemu.dma_track()
    bench.tap.ok(not info['migratable']
                 and 'not writable RAM' in ' '.join(info['reasons']),
                 'so does a status page that is not RAM there', info)
    bench.clear()

    changed = bytearray(data)
    changed[at - 8 - 1 - 24:at - 9] = b'\xff' * 24
    qemu = load(bench, bytes(changed))
    driver = bench.driver(qemu)
    driver.become_ready()
    bench.tap.equal(driver.ack(driver.read_config()[1]), g.OK,
                    'sequence numbers of any value are loaded')


# --- What the protocol says besides ------------------------------------------

def test_driver_without_sync_dirty(bench):
    qemu = bench.qemu('plain', *EDU, *track())
    driver = bench.driver(qemu)
    driver.accept = 0
    driver.become_ready()
    qemu.poke(driver.common + 0x08, 0, 'l')
    bench.tap.equal(qemu.peek(driver.common + 0x0c, 'l'), 0,
                    'a driver accepts no feature of the device')
    bench.tap.equal((driver.ack(driver.read_config()[1]),
                     qemu.dma_track()['provider']['ready']), (g.OK, True),
                    'and the device works')


def test_bytes_behind_a_payload(bench):
    """They may mean something one day."""
    _, _, driver = bench.guest()
    seq = struct.pack('<II', driver.read_config()[1], 0)
    for more in (1, 8, 200):
        bench.tap.equal(driver.request(g.ACK, seq + b'\xff' * more), g.OK,
                        '%d bytes behind a payload are ignored' % more)


def test_requests_of_a_stopped_guest(bench):
    """Nothing is written to memory that the last pass may have sent."""
    qemu, _, driver = bench.guest()
    qemu.command('stop')
    driver.send(struct.pack('<HHIII', g.ACK, 0, 1, driver.read_config()[1], 0))
    # The main loop works all along: it answers this.
    for _ in range(50):
        qemu.dma_track()
    bench.tap.ok(not driver.answered(),
                 'a request is not answered while the vCPUs are stopped')
    qemu.command('cont')
    bench.tap.equal(driver.answer(), g.OK, 'but when they run')


def test_reset_forgets(bench):
    qemu, _, driver = bench.guest()
    bench.tap.equal(qemu.dma_track()['provider']['sections'], 2,
                    'sections are published')
    driver.reset()
    info = qemu.dma_track()['provider']
    bench.tap.equal((info['ready'], info['sections']), (False, 0),
                    'a reset makes the device forget them')
    driver.start()
    driver.setup()
    bench.tap.equal(driver.withdraw(0), g.E_NO_SECTION,
                    'they are not published when it is set up again')
    bench.tap.equal(driver.publish((0, g.PLANES, g.PLANES + g.FRAME)), g.OK,
                    'and their pages can be used again')


def test_shared_pages_are_only_read(bench):
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    driver.pin(TARGET, RUN)
    driver.pin(TARGET + RUN, RUN, coherent=True)
    qemu.write(g.STATUS_PAGE + 1024, b'\x5a' * 1024)

    def shared():
        return (qemu.read(g.STATUS_PAGE, g.FRAME),
                qemu.read(g.PLANES, 4 * g.FRAME))
    before = shared()
    qemu.command('migrate', uri=uri)
    bench.tap.equal(finish(qemu, driver), 'completed', 'a guest moves')
    bench.tap.ok(shared() == before,
                 'nothing was written to its planes and status page')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


def test_more_functions_than_the_list_holds(bench):
    args = []
    for i in range(34):
        args += ['-device', 'edu,id=e%d,addr=%x.%d,multifunction=on,'
                 'x-untracked-dma=on' % (i, 8 + i // 8, i % 8)]
    qemu = bench.qemu('many', *args, *track())
    driver = bench.driver(qemu)
    driver.become_ready()
    functions = driver.read_functions()
    bench.tap.equal([sbdf for sbdf, _ in functions],
                    [(8 << 3) + i for i in range(32)],
                    'of 34 functions 32 are listed')
    for index, (sbdf, _) in enumerate(functions):
        driver.say(index, sbdf, g.TRACKED)
    info = qemu.dma_track()
    bench.tap.equal([one['id'] for one in info['functions']
                     if not one['tracked']], ['e32', 'e33'],
                    'the others are untracked')


def test_untracked_before_the_first_byte(bench):
    """The first look comes before RAM: also at what nobody told of."""
    qemu, _, driver = bench.guest(',ack-timeout-ms=60000')
    _, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    wait_for('phase LOGGING', lambda: driver.read_config()[0] == g.LOGGING)
    bench.tap.ok(not qemu.command('query-migrate').get('ram', {})
                 .get('normal', 0),
                 'no RAM is sent before the acknowledgement')
    driver.say(0, EDU_SBDF, g.UNTRACKED, g.BEHIND_API)
    driver.ack(driver.read_config()[1])
    bench.tap.equal(finish(qemu), 'failed',
                    'a function that is untracked at the first look fails '
                    'the migration')
    ram = qemu.command('query-migrate').get('ram', {})
    bench.tap.equal((ram.get('normal', 0), 'became untracked' in qemu.error()),
                    (0, True), 'before a page was sent')


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')] + (
             quiesce.TESTS + eligibility.TESTS + vetoes.TESTS)


def main():
    """Run the tests named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--qemu', help='qemu-system-x86_64 with our series')
    parser.add_argument('tests', nargs='*', metavar='TEST')
    arguments = parser.parse_args()
    names = {'test_' + name.removeprefix('test_') for name in arguments.tests}

    try:
        bench = Bench(os.path.abspath(arguments.qemu or paths.qemu()))
    except paths.Missing as missing:
        print('Bail out! ' + str(missing))
        return 1
    try:
        for test in TESTS:
            if not names or test.__name__ in names:
                bench.run(test)
    finally:
        bench.close()
    return bench.tap.done()


if __name__ == '__main__':
    sys.exit(main())
