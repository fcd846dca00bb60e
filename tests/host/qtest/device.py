# SPDX-License-Identifier: GPL-2.0-only
"""What virtio-dma-track answers a driver, whatever that says.

Requests, configuration, queues, and resets.
"""

import struct
import subprocess
from random import Random

import guest as g
from guest import Failed, wait_for
from moves import (
    EDU, EDU_BAR, EDU_SBDF, MIB, RUN, TARGET, TRACK_BAR, TRACK_SLOT, WHO,
    fast, finish, slow, track, wait_for_transfer)
import paths


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


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')]
