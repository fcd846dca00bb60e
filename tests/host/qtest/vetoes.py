# SPDX-License-Identifier: GPL-2.0-only
"""What goes wrong while a migration runs, and what is refused altogether.

After each failure the guest runs on, and a second migration succeeds.
"""

import os
import struct
from random import Random

import guest as g
from guest import DmaTrack, Edu, Failed, QmpError, wait_for
from moves import (BULK, EDU, EDU_BAR, EDU_SBDF, EDU_SLOT, MIB, TRACK_SLOT,
                   WHO, fast, finish, over, power_off, slow, track,
                   wait_for_transfer)


def begin(bench, *args, **machine):
    """A guest in the middle of its first pass, and its driver."""
    qemu = bench.qemu('source', *EDU, *track(',ack-timeout-ms=2000'), *args,
                      **machine)
    edu = Edu(qemu, EDU_SLOT, EDU_BAR)
    driver = bench.driver(qemu)
    driver.become_ready()
    driver.say(0, EDU_SBDF, g.TRACKED)
    _, uri = bench.destination(**machine)
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, driver, 10 * MIB)
    return qemu, edu, driver


def fails(bench, qemu, driver, fact, *texts):
    """The migration fails, with these words, and the guest runs on."""
    fast(qemu)
    bench.tap.equal(finish(qemu, driver), 'failed',
                    fact + ' fails the migration')
    error = qemu.error()
    bench.tap.ok(all(text in error for text in texts),
                 'in words that tell where and what to do', error)
    bench.tap.ok(qemu.command('query-status')['running'], 'the guest runs on')
    # What a request was waiting for is over.
    if driver and driver.outstanding and not driver.broken():
        driver.answer()


def succeeds(bench, qemu, driver, args=(), **machine):
    """Another migration of the guest succeeds, and its page arrives."""
    bench.running.pop().stop()
    if args:
        path = os.path.join(bench.folder, 'again')
        if os.path.exists(path):
            os.unlink(path)
        dst = bench.qemu('again', *args, '-incoming', 'unix:' + path,
                         **machine)
        uri = 'unix:' + path
    else:
        dst, uri = bench.destination(**machine)
    qemu.write(0x400000, b'second')
    driver.seen = None
    qemu.command('migrate', uri=uri)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'and a second migration completes')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    bench.tap.equal(dst.read(0x400000, 6), b'second', 'with its memory')
    return dst


def again(driver):
    """The guest's driver starts anew, and so does that of edu."""
    driver.become_ready()
    driver.say(0, EDU_SBDF, g.TRACKED)


# --- While a migration runs -------------------------------------------------

def test_lost_word_and_again(bench):
    qemu, _, driver = begin(bench)
    driver.lose(2)
    fails(bench, qemu, driver, 'the lost word',
          'track: the guest has lost track: the frame behind',
          'reload dma_track there')
    bench.refused('the next one is refused for it', 'lost track',
                  qemu.command, 'migrate', uri='exec:cat >/dev/null')
    driver.reset()
    again(driver)
    succeeds(bench, qemu, driver)


def test_rebound_driver_and_again(bench):
    """Another driver holds the function for a while: vfio-pci, say."""
    qemu, _, driver = begin(bench)
    for state, reason in ((g.UNBOUND, 0), (g.UNTRACKED, g.BEHIND_API),
                          (g.UNBOUND, 0), (g.TRACKED, 0)):
        driver.say(0, EDU_SBDF, state, reason)
        driver.function(0)
    fails(bench, qemu, driver, 'a driver bound for a while',
          WHO + ' became untracked during migration: its driver maps memory '
          'behind the DMA API', 'unbind that driver')
    succeeds(bench, qemu, driver)


def test_rebound_tracked_driver_does_no_harm(bench):
    """Unbound and bound again, tracked all along: nothing is unknown."""
    qemu, edu, driver = begin(bench)
    edu.set_master(False)
    driver.say(0, EDU_SBDF, g.UNBOUND)
    driver.function(0)
    edu.set_master(True)
    driver.say(0, EDU_SBDF, g.TRACKED)
    driver.function(0)
    fast(qemu)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'a driver that is bound again and tracked does no harm')


def test_unloaded_module_and_again(bench):
    qemu, _, driver = begin(bench)
    driver.reset()
    fails(bench, qemu, None, 'an unloaded module',
          'track: the guest has reset the device during migration')
    bench.refused('the next one is refused for it',
                  WHO + ': untracked: the guest has no driver for track; '
                  'load dma_track in the guest',
                  qemu.command, 'migrate', uri='exec:cat >/dev/null')
    again(driver)
    succeeds(bench, qemu, driver)


def test_kexec_and_again(bench):
    """A kernel takes another's place, and tells nothing of the old one."""
    qemu, _, driver = begin(bench)
    again(driver)
    fails(bench, qemu, driver, 'another kernel',
          'track: the guest has reset the device during migration')
    succeeds(bench, qemu, driver)


def test_reboot_and_again(bench):
    qemu, _, driver = begin(bench)
    qemu.command('system_reset')
    fails(bench, qemu, None, 'a reboot',
          'track: the guest has reset the device during migration')
    Edu(qemu, EDU_SLOT, EDU_BAR)
    again(driver)
    succeeds(bench, qemu, driver)


def test_broken_device_and_again(bench):
    qemu, _, driver = begin(bench)
    driver.send(b'short')
    driver.answer()
    fails(bench, qemu, None, 'a request that is none',
          'track: the guest broke the protocol during migration')
    bench.tap.ok('virtio-dma-track: a request is too short or has no room for '
                 'the answer' in qemu.output(), 'QEMU says what it was',
                 qemu.output())
    again(driver)
    succeeds(bench, qemu, driver)


def test_crash_and_again(bench):
    qemu, _, driver = begin(bench)
    fails(bench, qemu, None, 'a guest that says nothing any more',
          'track: the guest did not give a sign of life within 2000 ms '
          '(ack-timeout-ms)')
    driver.reset()
    again(driver)
    succeeds(bench, qemu, driver)


def suspend(qemu):
    """What the guest of a q35 machine does to sleep: state S3."""
    bridge, base = 0x1f << 3, 0x600
    qemu.config_write(bridge, 0x40, base | 1, 'l')
    qemu.config_write(bridge, 0x44, 0x80, 'b')
    qemu.out(base + 4, 1 << 13 | 1 << 10, 'w')
    wait_for('a guest that sleeps', lambda: qemu.command('query-status')[
        'status'] == 'suspended')


def wake(qemu):
    qemu.command('system_wakeup')
    wait_for('a guest that is awake',
             lambda: qemu.command('query-status')['running'])


def test_suspended_guest_is_refused(bench):
    qemu, _, driver = bench.guest()
    suspend(qemu)
    words = WHO + ': the guest is suspended: it wakes up without logging ' \
        'what its devices write'
    bench.refused('a guest that sleeps is refused', words, qemu.command,
                  'migrate', uri='exec:cat >/dev/null')
    bench.tap.ok(words in qemu.dma_track()['reasons'],
                 'query-dma-track says so too', qemu.dma_track())
    wake(qemu)
    Edu(qemu, EDU_SLOT, EDU_BAR)
    again(driver)
    bench.destination()
    succeeds(bench, qemu, driver)


def test_suspended_while_logging_and_again(bench):
    qemu, _, driver = begin(bench)
    suspend(qemu)
    fast(qemu)
    bench.tap.equal(finish(qemu, driver), 'failed',
                    'a guest that falls asleep fails the migration')
    bench.tap.ok('the guest is suspended and cannot give a sign of life'
                 in qemu.error(), 'and the text says so', qemu.error())
    # Its devices were reset.
    wake(qemu)
    Edu(qemu, EDU_SLOT, EDU_BAR)
    again(driver)
    succeeds(bench, qemu, driver)


def test_unplugged_function_and_again(bench):
    qemu, _, driver = begin(bench, machine='pc')
    power_off(qemu, EDU_SLOT)
    fails(bench, qemu, driver, 'a function that the guest unplugs',
          WHO + ' was unplugged during migration')
    succeeds(bench, qemu, driver, args=track(), machine='pc')


def test_nothing_is_plugged_while_a_migration_runs(bench):
    qemu, _, driver = begin(bench, machine='pc')
    bench.refused('a device cannot be plugged while a migration runs',
                  'not allowed while migrating', qemu.command, 'device_add',
                  driver='edu', id='late', addr='8', x_untracked_dma=True)
    bench.refused('nor can one be unplugged', 'not allowed while migrating',
                  qemu.command, 'device_del', id='edu')
    fast(qemu)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'the migration goes on')


def test_function_plugged_between_migrations(bench):
    """One that was not there the first time has to be tracked the next."""
    qemu, _, driver = begin(bench, machine='pc')
    driver.lose(1)
    fails(bench, qemu, driver, 'the lost word', 'lost track')
    driver.lose(0)
    qemu.command('device_add', driver='edu', id='late', addr='8',
                 x_untracked_dma=True)
    bench.refused('a function that was plugged since is in the way',
                  'late (guest 00:08.0): untracked: the guest does not know '
                  'it; see its kernel log',
                  qemu.command, 'migrate', uri='exec:cat >/dev/null')
    driver.say(1, 8 << 3, g.TRACKED)
    succeeds(bench, qemu, driver, machine='pc', args=(
        *EDU, *track(), '-device', 'edu,id=late,addr=8,x-untracked-dma=on'))


def test_only_migratable(bench):
    """No blockers come or go at run time, so the option changes nothing."""
    qemu = bench.qemu('source', '-only-migratable', *EDU, *track())
    Edu(qemu, EDU_SLOT, EDU_BAR)
    driver = bench.driver(qemu)
    bench.refused('with -only-migratable an untracked function starts, and '
                  'is refused', WHO + ': untracked: the guest has no driver',
                  qemu.command, 'migrate', uri='exec:cat >/dev/null')
    again(driver)
    _, uri = bench.destination()
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, driver, 10 * MIB)
    driver.say(0, EDU_SBDF, g.UNTRACKED, g.NO_RESOURCES)
    driver.function(0)
    driver.say(0, EDU_SBDF, g.TRACKED)
    fails(bench, qemu, driver, 'becoming untracked for a while',
          WHO + ' became untracked during migration', 'bind its driver again')
    succeeds(bench, qemu, driver)


# --- Guests that misbehave --------------------------------------------------

def test_slow_guest(bench):
    """Every answer takes most of the time there is for it."""
    qemu, _, driver = bench.guest(',ack-timeout-ms=3000')
    dst, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    asked = {}

    def late():
        now = driver.read_config()
        if over(qemu):
            return True
        time_of = qemu.command('query-migrate').get('total-time', 0)
        for i, echo in ((1, lambda: driver.ack(now[1])),
                        (2, lambda: driver.alive(now[2], now[3]))):
            first = asked.setdefault((i, now[i]), time_of)
            if time_of - first > 2000 and (i, now[i], 'done') not in asked:
                asked[(i, now[i], 'done')] = True
                echo()
        return False
    driver.give_up = lambda: over(qemu)
    wait_for('the end', late)
    bench.tap.equal(qemu.status(), 'completed',
                    'a guest that answers late, but in time, is migrated')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


def test_flood_of_requests(bench):
    """A guest that never stops asking does not keep the host from its work."""
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    sent = [0]

    def flood():
        if over(qemu):
            return True
        now = driver.read_config()
        # The last two are right; those before them are of every kind.
        requests = [struct.pack('<HHIII', kind, 0, 1, 1, 0)
                    for kind in (g.FUNCTION, g.UNFENCE, g.WITHDRAW) * 20]
        requests += [struct.pack('<HHIII', g.ACK, 0, 1, now[1], 0),
                     struct.pack('<HHIII', g.ALIVE, 0, 1, now[2], now[3])]
        for number, request in enumerate(requests):
            slot = (driver.used + number) % g.QUEUE_SIZE
            qemu.write(g.BUFFERS + 32 * slot, request)
            qemu.write(g.RING + 16 * 2 * (slot % 32), struct.pack(
                '<QIHHQIHH', g.BUFFERS + 32 * slot, len(request), g.DESC_NEXT,
                2 * (slot % 32) + 1, g.BUFFERS + 4 * g.FRAME, 8,
                g.DESC_WRITE, 0))
            qemu.write(g.RING + g.FRAME + 4 + 2 * slot,
                       struct.pack('<H', 2 * (slot % 32)))
            qemu.write(g.RING + g.FRAME + 2, struct.pack(
                '<H', (driver.used + number + 1) & 0xffff))
            if number % 30 == 29 or number + 1 == len(requests):
                qemu.poke(driver.doorbell, 0, 'w')
                wait_for('answers', lambda number=number: driver.answered(
                    number + 1) or over(qemu) or driver.broken())
        if not over(qemu):
            driver.used = (driver.used + len(requests)) & 0xffff
        sent[0] += len(requests)
        return False
    wait_for('the end', flood)
    bench.tap.ok(qemu.status() == 'completed' and sent[0] >= 60,
                 'a guest that floods its queue is migrated',
                 '%s after %d: %s' % (qemu.status(), sent[0], qemu.error()))
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


def test_planes_change_all_the_time(bench):
    """Whatever they say when they are read, the guest hurts itself only."""
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    random = Random(5)
    qemu.fill(BULK, 64 * MIB, 0x66)
    qemu.command('migrate-set-parameters', max_bandwidth=100 * MIB,
                 downtime_limit=5000)
    qemu.command('migrate', uri=uri)

    def flip():
        driver.serve()
        for _ in range(16):
            qemu.write(g.PLANES + 8 * random.randrange(1024),
                       struct.pack('<Q', random.getrandbits(64)))
        return over(qemu)
    driver.give_up = lambda: over(qemu)
    wait_for('the end', flip)
    bench.tap.equal(qemu.status(), 'completed',
                    'a guest whose planes change all the time is migrated')
    bench.tap.ok(qemu.dma_track()['last-migration']['pinned-frames'] > 0,
                 'with what they said in the end')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


# --- Refused altogether -----------------------------------------------------

def test_colo_is_refused(bench):
    qemu, _, _ = bench.guest()
    qemu.command('migrate-set-capabilities', capabilities=[
        {'capability': name, 'state': True}
        for name in ('return-path', 'x-colo')])
    words = WHO + ': COLO is not supported with functions'
    bench.refused('refused: COLO', words, qemu.command, 'migrate',
                  uri='exec:cat >/dev/null')
    bench.tap.ok(words in ' '.join(qemu.dma_track()['reasons']),
                 'query-dma-track says so too', qemu.dma_track())


def test_rdma_is_refused(bench):
    """Before anything is connected, on both sides."""
    words = WHO + ': RDMA is not supported with functions'
    qemu, _, _ = bench.guest()
    dst = bench.qemu('destination', *EDU, *track(), '-incoming', 'defer')
    for side, command in ((qemu, 'migrate'), (dst, 'migrate-incoming')):
        bench.refused('refused: RDMA by ' + command, words, side.command,
                      command, uri='rdma:127.0.0.1:1')
    bench.clear()
    plain = bench.qemu('plain', *track())
    try:
        plain.command('migrate', uri='rdma:127.0.0.1:1')
    except QmpError as error:
        bench.tap.ok('functions' not in str(error),
                     'without a function it is not, for that reason', error)


def test_confidential_guest_is_refused(bench):
    """There is no such hardware here: an object of that kind stands in."""
    qemu, _, _ = bench.guest()
    bench.tap.equal(qemu.dma_track()['reasons'], [], 'a guest may migrate')
    try:
        qemu.command('object-add', qom_type='sev-guest', id='sev',
                     cbitpos=47, reduced_phys_bits=1)
        qemu.command('qom-set', path='/machine',
                     property='confidential-guest-support',
                     value='/objects/sev')
    except QmpError as error:
        bench.tap.skip('refused: a confidential guest', error)
        return
    words = WHO + ': a confidential guest is not supported with functions'
    bench.refused('refused: a confidential guest', words, qemu.command,
                  'migrate', uri='exec:cat >/dev/null')
    bench.tap.ok(words in ' '.join(qemu.dma_track()['reasons']),
                 'query-dma-track says so too', qemu.dma_track())


def test_function_behind_an_iommu_is_refused(bench):
    words = ': it is behind an IOMMU of the guest, which is not supported'
    for name, device in (('intel-iommu', 'intel-iommu'),
                         ('amd-iommu', 'amd-iommu'),
                         ('virtio-iommu', 'virtio-iommu-pci,addr=9')):
        qemu = bench.qemu('source', '-device', device, *EDU, *track())
        driver = bench.driver(qemu)
        again(driver)
        said = ''
        try:
            qemu.command('migrate', uri='exec:cat >/dev/null')
        except QmpError as error:
            said = str(error)
        info = qemu.dma_track()
        # QEMU's own words about amd-iommu come first.
        bench.tap.ok(WHO + words in said or name == 'amd-iommu' and said,
                     'refused: a function behind ' + name, said)
        bench.tap.ok(any(WHO + words in reason for reason in info['reasons']),
                     'query-dma-track says so too', info)
        bench.clear()


# --- Memory that is not there -------------------------------------------------

PLUG, UNPLUG = 0, 1
BASE = 4 << 30


def change(bench, qemu, kind):
    """Be virtio-mem's driver for long enough to plug or unplug 128 MiB."""
    driver = DmaTrack(qemu, 8, 0xfe700000)
    driver.accept = 3
    driver.start()
    driver.send(struct.pack('<HHHHQHHHH', kind, 0, 0, 0, BASE, 64, 0, 0, 0),
                16)
    wait_for('an answer about memory', driver.answered)
    bench.tap.equal(qemu.read(g.BUFFERS + 4 * g.FRAME, 2), bytes(2),
                    'memory is ' + ('unplugged' if kind else 'plugged'))
    driver.reset()


def pluggable(bench):
    """A guest with memory at BASE that its driver can plug."""
    qemu = bench.qemu(
        'source', *EDU, *track(), '-object',
        'memory-backend-ram,id=more,size=256M', '-device',
        'virtio-mem-pci,id=mem,addr=8,memdev=more,memaddr=%#x,block-size=2M,'
        'requested-size=128M' % BASE, memory='256,maxmem=2G')
    return qemu, bench.driver(qemu)


def test_unplugged_memory(bench):
    """virtio-mem: reading what is unplugged would bring it into being."""
    qemu, driver = pluggable(bench)
    driver.become_ready()
    section = BASE >> g.SECTION_SHIFT
    planes = 0x300000, 0x301000, 0x302000
    equal = bench.tap.equal
    equal(driver.publish((section, *planes[:2])), g.E_EMPTY,
          'PUBLISH of a section that is unplugged: E_EMPTY')
    driver.withdraw(1)
    equal((driver.publish((1, BASE, planes[0])),
           driver.publish((1, planes[0], BASE + g.FRAME))), (g.E_NOT_RAM,) * 2,
          'PUBLISH with a plane that is unplugged: E_NOT_RAM')
    driver.reset()
    change(bench, qemu, PLUG)
    driver.become_ready()
    equal(driver.publish((section, *planes[:2])), g.OK,
          'PUBLISH of a section that is plugged: OK')
    equal(driver.publish((section + 1, planes[2], 0x303000)), g.E_EMPTY,
          'PUBLISH of the next one, which is not: E_EMPTY')
    driver.withdraw(1)
    equal(driver.publish((1, BASE, BASE + g.FRAME)), g.OK,
          'PUBLISH with planes that are plugged: OK')


def test_planes_that_are_unplugged(bench):
    """What they say can be seen by nobody: so they say nothing."""
    qemu, driver = pluggable(bench)
    change(bench, qemu, PLUG)
    driver.become_ready()
    driver.withdraw(1)
    bench.tap.equal(driver.publish((1, BASE, BASE + g.FRAME)), g.OK,
                    'planes lie in plugged memory')
    driver.say(0, EDU_SBDF, g.TRACKED)
    driver.function(0)
    bench.tap.equal(qemu.dma_track()['reasons'], [], 'the guest may migrate')
    change(bench, qemu, UNPLUG)
    # Its driver has no ring any more; nor does a paused guest need one.
    qemu.command('stop')
    try:
        qemu.command('migrate', uri='exec:cat >/dev/null')
        finish(qemu)
        words = qemu.error()
    except QmpError as error:
        words = str(error)
    bench.tap.ok('a plane of section 0x1 is not RAM any more' in words,
                 'planes that are unplugged fail the migration', words)


def test_status_page_that_is_unplugged(bench):
    qemu, driver = pluggable(bench)
    change(bench, qemu, PLUG)
    driver.start()
    bench.tap.equal((driver.setup(BASE), driver.publish(
        *((i, g.PLANES + 2 * i * g.FRAME, g.PLANES + (2 * i + 1) * g.FRAME)
          for i in range(2)))), (g.OK, g.OK),
        'the status page lies in plugged memory')
    change(bench, qemu, UNPLUG)
    words = ' '.join(qemu.dma_track()['reasons'])
    bench.tap.ok(WHO + ": untracked: the guest's status page is not RAM; "
                 'reload dma_track there' in words,
                 'functions are untracked without a status page', words)
    bench.tap.ok("track: the guest's status page is not RAM" in words,
                 'nor does anybody know what was lost', words)
    bench.refused('so the migration is refused', 'status page is not RAM',
                  qemu.command, 'migrate', uri='exec:cat >/dev/null')


# --- The destination --------------------------------------------------------

def refuses(bench, fact, words, *args, **machine):
    """A destination of that kind refuses, and the source goes on.

    It does not go on without a return path: then it is done when all is sent.
    """
    qemu, edu, driver = bench.guest()
    path = os.path.join(bench.folder, 'other')
    if os.path.exists(path):
        os.unlink(path)
    dst = bench.qemu('other', *args, '-incoming', 'defer', **machine)
    for side in (qemu, dst):
        side.command('migrate-set-capabilities', capabilities=[
            {'capability': 'return-path', 'state': True}])
    dst.command('migrate-incoming', uri='unix:' + path)
    qemu.command('migrate', uri='unix:' + path)
    finish(qemu, driver)
    wait_for('end of the destination', lambda: dst.process.poll() is not None)
    bench.tap.ok(dst.process.returncode == 1 and words in dst.output(),
                 'refused there: ' + fact, dst.output())
    wait_for('the source runs',
             lambda: qemu.command('query-status')['running'])
    bench.tap.equal(qemu.status(), 'failed', 'the source goes on')
    driver.seen = None
    if driver.outstanding:
        driver.answer()
    edu.set_master(True)
    qemu.command('migrate-set-capabilities', capabilities=[
        {'capability': 'return-path', 'state': False}])
    succeeds(bench, qemu, driver)
    bench.clear()


def test_other_destinations(bench):
    refuses(bench, 'no virtio-dma-track device', "virtio-dma-track", *EDU)
    refuses(bench, 'a device of another type in its place',
            "virtio-dma-track", *EDU, '-device',
            'virtio-rng-pci,id=track,addr=%d' % TRACK_SLOT)
    refuses(bench, 'less memory', 'Size mismatch', *EDU, *track(),
            memory='128')
    refuses(bench, 'a device with another place', 'virtio-dma-track', *EDU,
            '-device', 'virtio-dma-track-pci,id=track,addr=9')


def test_stream_of_another_version(bench):
    """Of the device, in a file: there is no older or newer one yet."""
    qemu, _, driver = bench.guest()
    path = os.path.join(bench.folder, 'saved')
    qemu.command('migrate', uri='file:' + path)
    if finish(qemu, driver) != 'completed':
        raise Failed('the guest cannot be saved: ' + qemu.error())
    bench.clear()
    with open(path, 'rb') as file:
        data = file.read()
    # The section's name, and behind it an instance and a version.
    name = b'/virtio-dma-track' + bytes(7) + b'\1'
    if data.count(name) != 1:
        raise Failed('the device is not found in the stream')
    version = data.index(name) + len(name) - 1
    for fact, number, words in (('an older', 0, 'too old'),
                                ('a newer', 2, 'unsupported version 2')):
        with open(path, 'wb') as file:
            file.write(data[:version] + bytes([number]) + data[version + 1:])
        dst = bench.qemu('there', *EDU, *track(), '-incoming', 'defer')
        dst.command('migrate-incoming', uri='file:' + path)
        dst.process.wait(g.DEADLINE)
        bench.tap.ok(dst.process.returncode == 1 and words in dst.output()
                     and 'virtio-dma-track' in dst.output(),
                     'refused there: a stream of %s version' % fact,
                     dst.output())
        bench.clear()


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


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')]
