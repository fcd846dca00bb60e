# SPDX-License-Identifier: GPL-2.0-only
"""A device that the kernel migrates, beside one that the guest tracks.

The kernel's own sample of one, a serial card of two ports. When it reaches
STOP_COPY it has its last state, and nobody may write to it any more: tracked
functions are quiet before. With type 1 it shares its mappings with them, which
are not taken away then.
"""

import bed
import load
import oracle
import quiesce
import scenario
import vm

# In this order: what is told first that a migration has failed, is the last.
KINDS = (bed.NATIVE, 'oracle')
# How often the device stores its counter, in microseconds.
COUNTER_US = 100
# How often it writes, or QEMU is asked, in a moment.
GOES_ON = 100
SHARED = 'shares its IOMMU mappings with a device that migrates by itself'
SCRATCH = 7


class Card:
    """The serial card in a guest: the scratch register of its first port."""

    def __init__(self, guest):
        self.guest = guest
        self.port = SCRATCH + int(guest.run('''
            cd /sys/bus/pci/devices
            for device in *; do
                [ $(cat $device/vendor) = 0x4348 ] || continue
                [ $(cat $device/enable) != 0 ] || echo 1 > $device/enable
                head -n 1 $device/resource
            done''').split()[0], 0)

    def write(self, value):
        self.guest.run(f"printf '\\{value:03o}' | dd of=/dev/port bs=1 "
                       f'seek={self.port} conv=notrunc 2> /dev/null')

    def read(self):
        return self.guest.run(
            f'dd if=/dev/port bs=1 skip={self.port} count=1 2> /dev/null | '
            'hexdump -v -e \'1/1 "%d"\'').strip()


def _options(**more):
    return {'functions': KINDS, 'modules': 'dma_track,dma_oracle',
            'options_of': {bed.NATIVE: 'migration-events=on'}, **more}


def _check_told(tap, guest):
    told = {one['id']: (one['tracked-by'], one['tracked'])
            for one in load.wait_tracked(guest)['functions']}
    tap.equal(told, {'oracle0': ('guest', True), 'native0': ('device', True)},
              'query-dma-track tells who tracks which')


def _states(guest):
    """Those that the kernel was told to put the card into, in order."""
    with guest.qmp.change:
        return [event['data']['device-state'] for event in guest.qmp.events
                if event['event'] == 'VFIO_MIGRATION']


def _start(test_bed, tap, suppress=''):
    """A guest whose migration has not much left to do, and its device."""
    source, destination = scenario.start_pair(
        test_bed, tap.progress, destination_options={'extra': ''},
        **_options(provider=scenario.PROVIDER + suppress,
                   function_options='dma-quiesce=flush',
                   extra='-D /run/a/trace -trace dma_track_function_* '
                         '-trace vfio_migration_set_device_state'))
    card = Card(source)
    card.write(0x5a)
    device = load.Oracle(test_bed, source).prepare(COUNTER_US)
    load.wait_tracked(source)
    for guest in (source, destination):
        guest.qmp.command('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])
    migration = bed.Move(source, destination, tap.progress)
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    device.work()
    return migration, device


def _stop(migration):
    """It waits, with all stopped, for what is done before the switchover."""
    migration.allow()
    migration.wait_switchover()


def _mark(device):
    device.bed.set_marker(device.slot, oracle.MARK_STOPPED)


def _written_since(device):
    """How much it has written since it was marked."""
    log = device.log()
    after = log.marker(oracle.MARK_STOPPED).seq
    return len([one for one in log.writes() if one.seq > after])


def _trace(guest, *words):
    """The numbers of the lines of QEMU's trace that have all these words."""
    lines = guest.bed.l1.run(f'cat /run/{guest.slot}/trace').splitlines()
    return [number for number, line in enumerate(lines)
            if all(word in line for word in words)]


def _check_order(test_bed, tap, source, when):
    tap.equal(_states(source)[-1:], ['stop-copy'], f'{when}: the card is')
    quiet = _trace(source, 'dma_track_function_record',
                   test_bed.function('oracle', 'a'), ': ok')
    stopped = _trace(source, 'set_device_state', bed.NATIVE_IDS['a'],
                     'STOP_COPY')
    tap.ok(len(quiet) == len(stopped) == 1 and quiet < stopped,
           f'{when}: before that the tracked function was quiet',
           f'lines {quiet} and {stopped} of the trace')


def _check_quiet(tap, guest, device, when):
    """Nothing is written while QEMU is asked again and again."""
    for _ in range(GOES_ON):
        guest.qmp.command('query-status')
    tap.equal(_written_since(device), 0, f'{when}: nothing is written')


def all_are_quiet_before_it_stops(test_bed, tap):
    migration, device = _start(test_bed, tap)
    source, destination = migration.source, migration.destination
    when = 'before the switchover'
    _stop(migration)
    _mark(device)
    _check_order(test_bed, tap, source, when)
    _check_quiet(tap, source, device, when)
    migration.go_on()
    tap.equal(migration.finish(), 'completed', 'the migration completes')
    migration.follow_guest()
    device.wait_restored(destination)
    bed.wait_until(lambda: scenario.all_restored(destination),
                   'the driver is restored')
    tap.equal(_written_since(device), 0, 'and nothing was written later')
    checked = device.check(destination)
    tap.ok(checked.ok and checked.kinds['inflight']['exposed'],
           'every byte in memory is what the device wrote',
           '\n'.join(checked.lines))
    tap.equal(Card(destination).read(), str(0x5a),
              "the card's register has moved with it")
    _check_told(tap, destination)
    tap.equal(test_bed.trouble() + destination.trouble(), [],
              'no trouble in either kernel log')


def a_pause_stops_it_too(test_bed, tap):
    migration, device = _start(test_bed, tap)
    source, destination = migration.source, migration.destination
    when = 'paused in the middle'
    migration.pause()
    _mark(device)
    _check_order(test_bed, tap, source, when)
    _check_quiet(tap, source, device, when)
    _stop(migration)
    migration.go_on()
    tap.equal(migration.finish(), 'completed', f'{when}: it completes')
    migration.follow_guest()
    device.wait_restored(destination)
    checked = device.check(destination)
    tap.ok(checked.ok, f'{when}: every byte is what the device wrote',
           '\n'.join(checked.lines))
    tap.equal(Card(destination).read(), str(0x5a),
              f"{when}: the card's register has moved")


def without_a_flush_it_writes_on(test_bed, tap):
    migration, device = _start(test_bed, tap,
                               ',x-dma-quiesce-suppress=flush')
    _stop(migration)
    tap.equal(_states(migration.source)[-1:], ['stop-copy'],
              'without a flush: the card is')
    _mark(device)
    bed.wait_until(lambda: _written_since(device) >= GOES_ON,
                   'the device writes on')
    tap.ok(True, 'without a flush: the device writes on')


def _cancel(guest):
    guest.qmp.command('migrate_cancel')
    guest.qmp.event('MIGRATION', 60,
                    lambda data: data['status'] == 'cancelled')


def _check_continued(tap, source, device):
    """A guest that is paused while it migrates, and continued."""
    with source.qmp.change:
        source.qmp.events.clear()
    source.qmp.command('migrate-set-parameters', **{
        'max-bandwidth': 1 << 20, 'downtime-limit': 0})
    source.qmp.command('migrate', uri='exec:cat > /dev/null')
    source.qmp.event('MIGRATION', 60,
                     lambda data: data['status'] == 'active')
    source.qmp.command('stop')
    _mark(device)
    _check_quiet(tap, source, device, 'paused again')
    source.qmp.command('cont')
    bed.wait_until(lambda: _written_since(device) >= GOES_ON,
                   'the device goes on again')
    tap.equal(_states(source)[-1:], ['running'], 'continued: the card is')
    _cancel(source)


def given_up_it_runs_before_the_others(test_bed, tap):
    migration, device = _start(test_bed, tap)
    source = migration.source
    _stop(migration)
    _mark(device)
    _cancel(source)
    bed.wait_until(lambda: _written_since(device) >= GOES_ON,
                   'the device goes on')
    stopped = _trace(source, 'set_device_state', bed.NATIVE_IDS['a'],
                     'STOP_COPY')[-1]
    runs = [line for line in _trace(source, 'set_device_state',
                                    bed.NATIVE_IDS['a'], 'RUNNING')
            if line > stopped]
    resumed = _trace(source, 'dma_track_function_resume',
                     test_bed.function('oracle', 'a'))
    tap.ok(runs and len(resumed) == 1 and runs[0] < resumed[0],
           'given up: the card runs before the other goes on',
           f'lines {runs} and {resumed} of the trace')
    _check_continued(tap, source, device)
    tap.equal(device.status()['resets'], '0',
              'given up: the driver of the other noticed nothing')
    device.control('unstream')
    checked = device.check(source)
    tap.ok(checked.ok, "given up: the source's memory is what it wrote",
           '\n'.join(checked.lines))
    card = Card(source)
    tap.equal(card.read(), str(0x5a), 'given up: the card has its register')
    tap.equal(test_bed.trouble() + source.trouble(), [],
              'given up: no trouble in either kernel log')


def _check_still_works(test_bed, tap, guest):
    """Card, device and driver of a guest that has stayed."""
    bed.wait_until(lambda: scenario.all_restored(guest),
                   'the driver is restored')
    device = load.Oracle(test_bed, guest)
    device.directory = guest.run(
        'echo /sys/kernel/debug/dma_oracle/*:*').strip()
    status = device.status()
    tap.ok(int(status['selftests']) >= 2 and status['selftest_errors'] == '0',
           'given up: the device reaches memory again', str(status))
    tap.equal(_states(guest)[-1:], ['running'], 'given up: the card runs')
    card = Card(guest)
    card.write(0xa5)
    tap.equal(card.read(), str(0xa5), 'given up: the card answers')


def type1_leaves_the_mappings(test_bed, tap):
    """Taken away are those of neither; one boot, two moves."""
    fault = 'pending'
    failing, working = quiesce.BROKEN[fault]
    tap.equal(working, 'iommu', 'without a card the IOMMU would be next')

    def break_it(slot):
        test_bed.break_oracle(slot, fault)

    def mend_it():
        for slot in bed.SLOTS:
            test_bed.break_oracle(slot, 'none')

    journey = scenario.Journey(test_bed, tap.progress)
    iommu = _options(function_options='dma-quiesce=iommu')
    try:
        # The kernel waits for what is pending before it resets, for 1.5 s.
        result = journey.move(
            _options(function_options='dma-quiesce-timeout-ms=4000'), iommu,
            network=False, before_stop=break_it)
    finally:
        mend_it()
    tap.equal(result['status'], 'completed', 'it moves')
    if result['status'] != 'completed':
        tap.note(result['error'])
        return
    left = quiesce.check_steps(
        tap, test_bed.function('oracle', 'a'), fault,
        result['steps']['oracle0'], failing + (('iommu', SHARED),))
    tap.ok(left and left[0]['method'] == 'reset' and 'error' not in left[0],
           f'{fault}: a reset works then', str(left))
    tap.ok(result['oracle_ok'], f'{fault}: every byte is what the device wrote',
           '\n'.join(result['oracle_lines'][-10:]))
    tap.equal(result['trouble'], [], 'no trouble in either kernel log')

    guest = journey.guest
    result = journey.move(iommu, iommu, network=False)
    said = result.get('error', '')
    tap.ok(result['status'] == 'failed' and SHARED in said and
           test_bed.function('oracle', 'b') in said,
           'where nothing else is allowed, the migration fails, and says why',
           str(result))
    guest.qmp.event('RESUME')
    _check_still_works(test_bed, tap, guest)
    tap.equal(test_bed.trouble() + guest.trouble(), [],
              'given up: no trouble in either kernel log')


def iommufd_detaches_the_other_alone(test_bed, tap):
    journey = scenario.Journey(test_bed, tap.progress)
    options = _options(backend='iommufd',
                       function_options='dma-quiesce=iommu')
    result = journey.move(options, options, network=False)
    tap.equal(result['status'], 'completed', 'it moves with iommufd')
    if result['status'] != 'completed':
        tap.note(result['error'])
        return
    steps = result['steps']['oracle0']
    tap.ok(steps and steps[0]['method'] == 'iommu' and 'error' not in steps[0],
           'the function lost its access to memory', str(steps))
    tap.ok(result['oracle_ok'], 'iommufd: every byte is what the device wrote',
           '\n'.join(result['oracle_lines'][-10:]))
    test_bed.clear_trouble()


def what_a_card_cannot_do_is_refused(test_bed, tap):
    """None of these guests has to boot."""
    for who in 'guest', 'external':
        guest = test_bed.guest('a', functions=(bed.NATIVE,), tracked_by=who)
        words = f'dma-tracked-by={who} is not supported for mediated devices'
        try:
            guest.launch()
            said = 'it was not refused'
        except vm.Gone as refusal:
            said = str(refusal)
        tap.ok(words in said, f'a card tracked by {who} is refused', said)
    guest = test_bed.guest('a', functions=(bed.NATIVE,)).launch()
    info = load.tracking(guest)
    tap.equal((info['migratable'], [one['tracked-by']
                                    for one in info['functions']]),
              (True, ['device']), 'by itself it can be migrated')
    guest.qmp.command('migrate-set-capabilities', capabilities=[
        {'capability': 'postcopy-ram', 'state': True}])
    words = ': VFIO migration is not supported with postcopy migration'
    info = load.tracking(guest)
    tap.ok(not info['migratable'] and words in ' '.join(info['reasons']),
           'query-dma-track tells that postcopy is not for it', str(info))
    try:
        guest.qmp.command('migrate', uri='exec:cat > /dev/null')
        said = 'it was not refused'
    except vm.QmpError as refusal:
        said = str(refusal)
    tap.ok(words in said, 'and postcopy is refused', said)


TESTS = (all_are_quiet_before_it_stops, a_pause_stops_it_too,
         without_a_flush_it_writes_on, given_up_it_runs_before_the_others,
         type1_leaves_the_mappings, iommufd_detaches_the_other_alone,
         what_a_card_cannot_do_is_refused)
