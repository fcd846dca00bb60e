# SPDX-License-Identifier: GPL-2.0-only
"""A migration that is asked for, given up, stopped, or left by its guest."""

import os

import guest as g
from guest import wait_for
from moves import (
    BULK, BULK_SIZE, EDU, EDU_SBDF, EDU_SLOT, MIB, NEW, OLD, PAYLOAD, RUN,
    TARGET, TRACK_SLOT, WHO, fast, finish, power_off, slow, track,
    wait_for_passes, wait_for_transfer)
from pinned import arrived, stored_after_first_send


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


def pause_before_switchover(qemu, driver, uri):
    """Migrate until vCPUs have stopped, for what is done before the end."""
    def paused():
        driver.serve()
        return paused_at_last()

    def paused_at_last():
        return qemu.status() == 'pre-switchover'

    qemu.command('migrate-set-capabilities', capabilities=[
        {'capability': 'pause-before-switchover', 'state': True}])
    qemu.command('migrate', uri=uri)
    driver.give_up = paused_at_last
    wait_for('pre-switchover', paused)


def test_pause_before_switchover(bench):
    qemu, _, driver = bench.guest()
    _, uri = bench.destination()
    pause_before_switchover(qemu, driver, uri)
    qemu.command('migrate_cancel')
    bench.tap.equal(finish(qemu), 'cancelled', 'cancelled before switchover')
    bench.tap.ok(qemu.command('query-status')['running'], 'the guest runs on')
    bench.tap.equal(driver.read_config()[0], g.IDLE, 'the phase is IDLE again')
    if driver.outstanding:
        driver.give_up = lambda: False
        driver.answer()
    bench.running.pop().stop()
    dst, uri = bench.destination()
    pause_before_switchover(qemu, driver, uri)
    qemu.command('migrate-continue', state='pre-switchover')
    bench.tap.equal(finish(qemu), 'completed', 'and completed the next time')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


def test_promise_broken_at_last(bench):
    """The guest runs on after it was looked at for the last time but one."""
    qemu, _, driver = bench.guest()
    _, uri = bench.destination()
    pause_before_switchover(qemu, driver, uri)
    driver.lose(1)
    qemu.command('migrate-continue', state='pre-switchover')
    bench.tap.equal(finish(qemu), 'failed',
                    'a lost word that only the last check sees fails it')
    bench.tap.ok('the guest has lost track' in qemu.error(),
                 'and the text says so', qemu.error())
    bench.tap.ok(qemu.command('query-status')['running'], 'the guest runs on')


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


def begin_paused(bench):
    """A migration that has begun while the guest was paused."""
    qemu, _, driver = bench.guest()
    _, uri = bench.destination()
    qemu.command('stop')
    slow(qemu)
    qemu.command('migrate', uri=uri)
    wait_for_transfer(qemu, None, 10 * MIB)
    return qemu, driver


def check_it_ran(bench, qemu, driver, fact):
    bench.tap.equal(finish(qemu, driver), 'failed', fact)
    bench.tap.ok('the VM began to run' in qemu.error(), 'and is told why',
                 qemu.error())


def test_paused_and_continued(bench):
    qemu, driver = begin_paused(bench)
    qemu.command('cont')
    check_it_ran(bench, qemu, driver,
                 'a paused guest that goes on fails its migration')


def test_paused_and_continued_for_a_moment(bench):
    """At the end it is stopped again, and nobody can be asked."""
    qemu, _ = begin_paused(bench)
    qemu.command('cont')
    qemu.command('stop')
    fast(qemu)
    check_it_ran(bench, qemu, None,
                 'a paused guest that went on for a moment likewise')


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
         if name.startswith('test_')]
