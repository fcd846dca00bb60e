# SPDX-License-Identifier: GPL-2.0-only
"""Who tracks what, whether migrate would be accepted, and if not every reason.

What query-dma-track says is compared with what migrate does, and the event
DMA_TRACK_CHANGED with both.
"""

import time

import guest as g
from guest import Edu, Failed, QmpError, wait_for
from moves import (BULK, BULK_SIZE, EDU, EDU_BAR, EDU_SBDF, EDU_SLOT, MIB,
                   finish, slow, track, wait_for_passes, wait_for_transfer)

# Functions that others track than the guest.
PROMISED = ['-device', 'edu,id=promised,addr=6,x-untracked-dma=on,'
            'x-dma-tracked-by=external']
NATIVE = ['-device', 'edu,id=native,addr=7,x-untracked-dma=on,'
          'x-dma-tracked-by=device']
# A device that QEMU cannot migrate, by its own words.
UNMIGRATABLE = ['-device', 'rocker,name=sw0']


def set_capability(qemu, name, state):
    qemu.command('migrate-set-capabilities', capabilities=[
        {'capability': name, 'state': state}])


def refusal(qemu, uri='file:/dev/null'):
    """In what words migrate refuses; an empty string if it accepts."""
    try:
        qemu.command('migrate', uri=uri)
    except QmpError as error:
        return str(error)
    return ''


def function(qemu, name):
    """What query-dma-track says of one function."""
    return next(one for one in qemu.dma_track()['functions']
                if one['name'] == name)


def is_now(moment):
    """Is that the present, in seconds since the Epoch?"""
    return abs(moment - time.time()) < 5


# --- Who tracks what --------------------------------------------------------

def test_who_tracks_each_function(bench):
    equal = bench.tap.equal
    qemu = bench.qemu('source', *EDU, *PROMISED, *NATIVE, *track())
    Edu(qemu, EDU_SLOT, EDU_BAR)
    driver = bench.driver(qemu)
    driver.become_ready()

    def tracked_by():
        return [(one['name'], one['tracked-by'])
                for one in qemu.dma_track()['functions']]

    def totals():
        all_of_them = qemu.dma_track()['totals']
        return [all_of_them[who]
                for who in ('guest', 'device', 'external', 'nobody')]

    equal(tracked_by(), [('edu', 'nobody'), ('promised', 'external'),
                         ('native', 'device')],
          'query-dma-track tells who tracks each function, if anybody does')
    equal(totals(), [0, 1, 1, 1], 'and how many each tracks')
    equal([one['policy'] for one in qemu.dma_track()['functions']],
          ['guest', 'external', 'device'], 'and who shall track it')
    equal((function(qemu, 'edu')['tracked'],
           'does not know it' in function(qemu, 'edu')['reason']),
          (False, True), 'and for what reason nobody does')
    bench.tap.ok(all(is_now(one['since'])
                     for one in qemu.dma_track()['functions']),
                 'and since when', qemu.dma_track()['functions'])

    before = function(qemu, 'edu')['since']
    promised = function(qemu, 'promised')['since']
    wait_for('the next second', lambda: time.time() >= before + 1)
    driver.say(0, EDU_SBDF, g.TRACKED)
    edu = function(qemu, 'edu')
    equal((edu['tracked-by'], edu['tracked'], 'reason' in edu, totals()),
          ('guest', True, False, [1, 1, 1, 0]), 'the guest tracks it now')
    bench.tap.ok(before < edu['since'] and is_now(edu['since']),
                 'since now', edu)
    equal(function(qemu, 'promised')['since'], promised,
          'and nothing has changed for the other one')
    wait_for('the next second', lambda: time.time() >= edu['since'] + 1)
    equal(function(qemu, 'edu')['since'], edu['since'],
          'nor with another look')
    driver.say(0, EDU_SBDF, g.UNTRACKED, g.BOUND_BEFORE)
    edu = function(qemu, 'edu')
    equal((edu['tracked-by'], is_now(edu['since'])), ('nobody', True),
          'nobody does any more')
    bench.tap.ok('bound before' in edu['reason']
                 and "file 'track'" in edu['reason'],
                 'the reason says what to do', edu)

    text = qemu.command('human-monitor-command',
                        command_line='info dma-track')
    day = time.strftime('%Y-%m-%d', time.gmtime())
    for words in ('edu: 00:04.0, tracked by nobody since ' + day[:8],
                  'not ready: untracked: its driver was bound before',
                  'promised: 00:06.0, tracked by external since ',
                  'native: 00:07.0, tracked by device since ',
                  'functions tracked by: guest 0, device 1, external 1, '
                  'nobody 1', 'migratable: no'):
        bench.tap.ok(words in text, 'info dma-track: ' + words.replace(
            day[:8], '…'), text)


def test_external_is_warned_about(bench):
    warning = ('promised: tracked by somebody else (dma-tracked-by=external): '
               'if nobody does, a migration loses what it writes')
    qemu = bench.qemu('source', *EDU, *PROMISED, *track())
    qemu.dma_track()
    bench.tap.equal(qemu.output().count(warning), 1,
                    'a function that somebody else tracks is warned about '
                    'once')
    bench.clear()
    qemu = bench.qemu('source', *EDU, *NATIVE, *track())
    bench.tap.ok('somebody else' not in qemu.output(), 'others are not',
                 qemu.output())
    bench.clear()
    try:
        bench.qemu('bad', '-device',
                   'edu,x-untracked-dma=on,x-dma-tracked-by=me')
    except Failed as error:
        bench.tap.ok('invalid parameter value: me' in str(error),
                     'an x-dma-tracked-by that is none is refused', error)
    else:
        bench.tap.ok(False, 'an x-dma-tracked-by that is none is refused')


def test_unplugged_functions_are_not_told_of(bench):
    qemu = bench.qemu('source', *EDU, *NATIVE, *track(), machine='pc')
    for name in ('edu', 'native'):
        slot = {'edu': EDU_SLOT, 'native': 7}[name]
        qemu.out(0xae10, 0, 'l')
        qemu.out(0xae08, 1 << slot, 'l')
        wait_for(name + ' is unplugged', lambda name=name: name not in [
            one['name'] for one in qemu.dma_track()['functions']])
    bench.tap.equal(qemu.dma_track()['functions'], [],
                    'a function that is unplugged is not told of any more')


# --- Would migrate be accepted? ---------------------------------------------

def test_every_reason_is_told(bench):
    """Each alone and all together: query says it and migrate refuses."""
    equal = bench.tap.equal
    qemu = bench.qemu('source', *EDU, *PROMISED, *track(',max-pinned=8M'))
    Edu(qemu, EDU_SLOT, EDU_BAR)
    driver = bench.driver(qemu)
    driver.become_ready()
    driver.say(0, EDU_SBDF, g.TRACKED)
    equal(qemu.dma_track()['reasons'], [], 'nothing is in the way')

    def untrack(wanted):
        driver.say(0, EDU_SBDF, g.UNTRACKED if wanted else g.TRACKED,
                   g.NO_RESOURCES if wanted else 0)

    def lose(wanted):
        driver.lose(3 if wanted else 0)

    def pin(wanted):
        (driver.pin if wanted else driver.forget)(BULK, 16 * MIB)

    def background(wanted):
        set_capability(qemu, 'background-snapshot', wanted)

    def conflict(wanted):
        set_capability(qemu, 'mapped-ram', wanted)
        qemu.command('migrate-set-parameters',
                     tls_creds='none' if wanted else '')

    ways = [(untrack, 'edu (guest 00:04.0): untracked: the guest had no '
                      'resources to track it; bind its driver again'),
            (lose, 'track: the guest has lost track: a hook was found '
                   'disabled or bypassed; reload dma_track there'),
            (pin, 'hold more memory pinned than max-pinned allows, which is '
                  '8388608 bytes'),
            (conflict, 'Cannot use TLS with mapped-ram')]
    try:
        background(True)
        background(False)
    except QmpError as error:
        bench.tap.skip('a background snapshot', error)
    else:
        ways.append((background, 'edu (guest 00:04.0): a background snapshot '
                     'is not supported'))
    for way, words in ways:
        way(True)
        info = qemu.dma_track()
        equal((info['migratable'],
               [words in reason for reason in info['reasons']]),
              (False, [True]), 'the reason: ' + words)
        said = refusal(qemu)
        bench.tap.ok(words in said, 'in which words migrate refuses too', said)
        way(False)
        equal(qemu.dma_track()['reasons'], [], 'which is no more')

    for way, words in ways:
        if way != background:
            way(True)
    reasons = qemu.dma_track()['reasons']
    equal([words for way, words in ways if way != background
           and not any(words in reason for reason in reasons)], [],
          'all are told at once')
    equal(len(reasons), len([way for way, _ in ways if way != background]),
          'and each once')
    said = refusal(qemu)
    bench.tap.ok('TLS' in said, 'of them migrate tells the first', said)
    conflict(False)
    said = refusal(qemu)
    bench.tap.ok(all(words in said for way, words in ways
                     if way in (untrack, lose, pin)),
                 'or all that concern functions', said)


def test_blockers_of_others_are_told(bench):
    qemu = bench.qemu('source', *EDU, *UNMIGRATABLE, *track())
    driver = bench.driver(qemu)
    driver.become_ready()
    driver.say(0, EDU_SBDF, g.TRACKED)
    info = qemu.dma_track()
    bench.tap.ok(not info['migratable']
                 and any('non-migratable device' in reason
                         and 'rocker' in reason for reason in info['reasons']),
                 'a device that QEMU cannot migrate is a reason', info)
    said = refusal(qemu)
    bench.tap.ok('rocker' in said, 'as it is for migrate', said)


def test_state_of_the_vm_is_told(bench):
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    bench.tap.ok('Guest is waiting for an incoming migration'
                 in dst.dma_track()['reasons'],
                 'a guest that has not arrived cannot be migrated',
                 dst.dma_track())
    qemu.command('migrate', uri=uri)
    wait_for('phase LOGGING', lambda: driver.read_config()[0] == g.LOGGING)
    bench.tap.equal(qemu.dma_track()['reasons'],
                    ["There's a migration process in progress"],
                    'nor one that is being migrated')
    bench.tap.ok('in progress' in refusal(qemu), 'as migrate says')
    bench.tap.ok(qemu.dma_track()['pinned-floor']['expected-downtime'] >= 0,
                 'its expected downtime is told beside what is pinned')
    bench.tap.equal(finish(qemu, driver), 'completed', 'it arrives')
    bench.tap.equal(qemu.dma_track()['reasons'],
                    ["Can't migrate the vm that was paused due to previous "
                     'migration'], 'what was migrated cannot be again')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    bench.tap.equal(dst.dma_track()['reasons'], [],
                    'but where it has arrived it can')


def test_pinned_floor(bench):
    equal = bench.tap.equal
    qemu, _, driver = bench.guest()
    equal(qemu.dma_track()['totals']['pinned-frames'], 0, 'nothing is pinned')
    driver.pin(BULK, 32 * MIB)
    driver.pin(BULK + 16 * MIB, 32 * MIB, coherent=True)
    frames = {key: value * 4 // 1024
              for key, value in qemu.dma_track()['totals'].items()
              if key.endswith('-frames')}
    equal(frames, {'pinned-frames': 48, 'streaming-frames': 32,
                   'coherent-frames': 32},
          'what is pinned is counted, in MiB, in each plane and in either')
    qemu.command('migrate-set-parameters', max_bandwidth=24 * MIB,
                 downtime_limit=1500)
    equal(qemu.dma_track()['pinned-floor'],
          {'bytes': 48 * MIB, 'bandwidth': 24 * MIB, 'downtime': 2000,
           'downtime-limit': 1500},
          'at max-bandwidth that takes so long')
    qemu.command('migrate-set-parameters', avail_switchover_bandwidth=48 * MIB)
    equal(qemu.dma_track()['pinned-floor'],
          {'bytes': 48 * MIB, 'bandwidth': 48 * MIB, 'downtime': 1000,
           'downtime-limit': 1500},
          'at avail-switchover-bandwidth so long')
    text = qemu.command('human-monitor-command',
                        command_line='info dma-track')
    for words in ('pinned now: 12288 frames, 8192 of them streaming, 8192 '
                  'coherent, 50331648 bytes',
                  'at least 1000 ms of downtime at 50331648 bytes/s; the '
                  'limit is 1500 ms'):
        bench.tap.ok(words in text, 'info dma-track: ' + words, text)
    qemu.command('migrate-set-parameters', avail_switchover_bandwidth=0,
                 max_bandwidth=0)
    equal(qemu.dma_track()['pinned-floor'],
          {'bytes': 48 * MIB, 'downtime-limit': 1500},
          'and if no bandwidth is known, nobody knows')


# --- The event --------------------------------------------------------------

def changes(qemu):
    """What the events have said so far, and forget them."""
    qemu.command('query-name')
    found = [(event['data']['migratable'], event['data']['reasons'])
             for event in qemu.events if event['event'] == 'DMA_TRACK_CHANGED']
    qemu.events = []
    return found


def next_change(qemu):
    """Wait for an event; events keep to the virtual clock here."""
    found = []

    def look():
        qemu.advance(1000)
        found.extend(changes(qemu))
        return found
    wait_for('DMA_TRACK_CHANGED', look)
    return found[-1]


def test_event(bench):
    equal = bench.tap.equal
    qemu = bench.qemu('without', *EDU)
    equal(next_change(qemu), (True, []),
          'after the start an event says whether the guest can be migrated')
    bench.clear()

    qemu = bench.qemu('source', *EDU, *track())
    edu = Edu(qemu, EDU_SLOT, EDU_BAR)
    driver = bench.driver(qemu)
    driver.become_ready()
    driver.say(0, EDU_SBDF, g.TRACKED)
    driver.function(0)
    wait_for('the event', lambda: next_change(qemu) == (True, []))
    bench.tap.ok(True, 'one says that it can when it does')
    driver.lose(1)
    migratable, reasons = next_change(qemu)
    bench.tap.ok(not migratable and 'lost track' in reasons[0],
                 'one comes for the lost word, of which no request tells',
                 reasons)
    driver.lose(0)
    equal(next_change(qemu), (True, []), 'and one when that is over')
    qemu.command('migrate-set-parameters', tls_creds='none')
    set_capability(qemu, 'mapped-ram', True)
    equal(next_change(qemu), (False, ['Cannot use TLS with mapped-ram']),
          'one comes for what has to do with no function')
    set_capability(qemu, 'mapped-ram', False)
    equal(next_change(qemu), (True, []), 'and one when that is over')
    driver.say(0, EDU_SBDF, g.UNBOUND)
    migratable, reasons = next_change(qemu)
    bench.tap.ok(not migratable and 'master the bus' in reasons[0],
                 'one comes for a function that no driver holds', reasons)
    edu.set_master(False)
    equal(next_change(qemu), (True, []), 'unless it is idle')
    driver.reset()
    migratable, reasons = next_change(qemu)
    bench.tap.ok(not migratable and
                 'no driver for track; load dma_track' in reasons[0],
                 'one comes when the guest gives up the device', reasons)


def test_event_comes_on_change_only(bench):
    qemu, _, driver = bench.guest()
    wait_for('the event', lambda: next_change(qemu) == (True, []))
    until = time.monotonic() + 2.5      # two looks
    found = []

    def look():
        driver.function(0)
        qemu.advance(1000)
        found.extend(changes(qemu))
        return time.monotonic() > until
    wait_for('two looks', look)
    bench.tap.equal(found, [], 'without a change there is no event')


def test_event_does_not_flood(bench):
    """The guest can change its mind as often as it likes."""
    qemu, _, driver = bench.guest()
    wait_for('the event', lambda: next_change(qemu) == (True, []))
    qemu.advance(5000)
    changes(qemu)
    for _ in range(100):
        for state in (g.UNTRACKED, g.TRACKED):
            driver.say(0, EDU_SBDF, state, g.NO_RESOURCES)
            driver.function(0)
            # The main loop has been round.
            qemu.dma_track()
    driver.say(0, EDU_SBDF, g.UNTRACKED, g.BEHIND_API)
    driver.function(0)
    found = changes(qemu)
    bench.tap.ok(len(found) <= 1, 'of 200 changes in no time at most one is '
                 'told at once', found)
    migratable, reasons = next_change(qemu)
    bench.tap.ok(not migratable and 'behind the DMA API' in reasons[0],
                 'and the last one later', reasons)


def test_no_event_while_a_migration_runs(bench):
    qemu, _, driver = bench.guest()
    wait_for('the event', lambda: next_change(qemu) == (True, []))
    slow(qemu)
    qemu.command('migrate', uri='exec:cat > /dev/null')
    wait_for_transfer(qemu, driver, 10 * MIB)
    until = time.monotonic() + 1.5      # one look
    found = []

    def look():
        driver.serve()
        qemu.advance(1000)
        found.extend(changes(qemu))
        return time.monotonic() > until
    wait_for('a look', look)
    bench.tap.equal((found, qemu.status()), ([], 'active'),
                    'while a migration runs there is no event')
    qemu.command('migrate_cancel')
    finish(qemu, driver)
    driver.lose(2)
    bench.tap.equal(next_change(qemu)[0], False, 'but after it')


# --- max-pinned -------------------------------------------------------------

def test_too_much_is_pinned_at_the_start(bench):
    qemu, _, driver = bench.guest(',max-pinned=32M')
    bench.tap.equal(qemu.dma_track()['provider']['max-pinned'], 32 * MIB,
                    'query-dma-track tells max-pinned')
    driver.pin(BULK, 32 * MIB)
    bench.tap.equal(qemu.dma_track()['reasons'], [],
                    'as much as it allows may be pinned')
    driver.pin(BULK + 64 * MIB, 8 * g.FRAME)
    said = refusal(qemu)
    bench.tap.ok("the guest's devices hold more memory pinned than max-pinned "
                 'allows, which is 33554432 bytes' in said,
                 'with more a migration is refused', said)
    bench.tap.ok(not qemu.dma_track()['migratable'],
                 'and query-dma-track says so')
    qemu.command('stop')
    bench.tap.equal(qemu.dma_track()['reasons'], [],
                    'of a paused guest anything may be: there is no downtime')


def test_too_much_is_pinned_later(bench):
    """With and without a guest that also writes elsewhere."""
    for fact, work in (('idle', False), ('busy', True)):
        qemu, _, driver = bench.guest(',max-pinned=32M')
        _, uri = bench.destination()
        qemu.fill(BULK, BULK_SIZE, 0x77)
        qemu.command('migrate-set-parameters', max_bandwidth=200 * MIB,
                     downtime_limit=10)
        qemu.command('migrate', uri=uri)
        wait_for_transfer(qemu, driver, 10 * MIB)
        driver.pin(BULK, 128 * MIB)

        def play():
            driver.serve()
            if work:
                qemu.fill(BULK + 192 * MIB, MIB, 0x44)
            return qemu.status() in ('failed', 'completed')
        driver.give_up = play
        driver.give_up = lambda: qemu.status() in ('failed', 'completed')
        wait_for('the end', play)
        driver.give_up = lambda: False
        bench.tap.equal(qemu.status(), 'failed',
                        'with too much pinned the migration of an %s guest '
                        'fails' % fact)
        bench.tap.ok('more memory pinned than max-pinned' in qemu.error(),
                     'and is told why', qemu.error())
        bench.tap.ok(qemu.command('query-status')['running'],
                     'the guest runs on')
        driver.unpin(BULK, 128 * MIB)
        bench.running.pop().stop()
        dst, uri = bench.destination()
        qemu.command('migrate-set-parameters', max_bandwidth=1 << 33,
                     downtime_limit=300)
        qemu.command('migrate', uri=uri)
        bench.tap.equal(finish(qemu, driver), 'completed',
                        'the next one completes when less is')
        wait_for('destination runs', lambda dst=dst: dst.command(
            'query-status')['running'])
        bench.clear()


def test_everything_is_pinned(bench):
    """Without a limit it is sent at the end, when the downtime allows it."""
    qemu, _, driver = bench.guest()
    dst, uri = bench.destination()
    qemu.fill(BULK, BULK_SIZE, 0x77)
    driver.pin(0, 256 * MIB)
    driver.pin(0, 256 * MIB, coherent=True)
    qemu.command('migrate-set-parameters', max_bandwidth=1 << 33,
                 downtime_limit=1)
    qemu.command('migrate', uri=uri)
    wait_for_passes(qemu, driver, 20)
    qemu.command('migrate-set-parameters', downtime_limit=60000)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'a guest with everything pinned is migrated')
    bench.tap.equal(qemu.dma_track()['last-migration']['pinned-frames'],
                    256 * MIB // g.FRAME, 'all of it in the last pass')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])
    bench.tap.equal(dst.read(BULK, 8), b'\x77' * 8, 'and arrives')


def test_nothing_is_pinned(bench):
    qemu, _, driver = bench.guest(',max-pinned=1')
    dst, uri = bench.destination()
    qemu.command('migrate', uri=uri)
    bench.tap.equal(finish(qemu, driver), 'completed',
                    'a guest with nothing pinned is migrated')
    bench.tap.equal(qemu.dma_track()['last-migration']['pinned-frames'], 0,
                    'with nothing in the last pass that was')
    wait_for('destination runs',
             lambda: dst.command('query-status')['running'])


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')]
