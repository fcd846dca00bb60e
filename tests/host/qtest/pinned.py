# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of the pages that a device may be writing."""

import os

import guest as g
from guest import Edu, Failed, wait_for
from moves import (
    BULK, BULK_SIZE, EDU, EDU_BAR, EDU_SLOT, MIB, NEW, OLD, PAYLOAD, RUN,
    TARGET, fast, finish, over, slow, track, wait_for_passes,
    wait_for_transfer)


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


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')]
