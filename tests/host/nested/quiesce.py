# SPDX-License-Identifier: GPL-2.0-only
"""Each way to make a function quiet keeps every page, and what it is for.

Each method alone, with both back ends of VFIO, and what is lost when it is left
out. Bus master stays on where another method has to do without it. In the
controls nothing stops the device: what it goes on to write is lost.
"""

import bed
import load
import oracle
import scenario
import survival
import vm

BACKENDS = ('type1', 'iommufd')
# What a run has to contain to prove anything: pages of each kind.
WANTED = {'unmapped': 1000, 'mapped': 500, 'ring': 64}
# How often the device stores its counter, in microseconds.
COUNTER_US = 100
# Method: what is left out so that it stands alone, and so that it does nothing.
METHODS = {'flush': ('', 'flush'),
           'busmaster': ('reset', 'busmaster,pending,reset'),
           'iommu': ('busmaster,reset', 'busmaster,iommu,reset'),
           'reset': ('busmaster', 'busmaster,reset')}


def _options(method, backend, suppress):
    provider = scenario.PROVIDER
    if suppress:
        # A comma in a property is written twice.
        provider += ',x-dma-quiesce-suppress=' + suppress.replace(',', ',,')
    # With bus master on, the kernel waits in vain before it resets.
    return {'provider': provider, 'backend': backend,
            'function_options': f'dma-quiesce={method},'
                                'dma-quiesce-timeout-ms=5000',
            'functions': ('oracle',), 'modules': 'dma_track,dma_oracle'}


def _completed(tap, name, result):
    ok = result['status'] == 'completed'
    tap.ok(ok, f'{name}: it moves', result.get('error', ''))
    return ok


def _check_method(tap, test_bed, result, method, backend):
    name = f'{method}, {backend}'
    if not _completed(tap, name, result):
        return
    steps = result['steps']['oracle0']
    tap.ok(steps and steps[0]['method'] == method and 'error' not in steps[0],
           f'{name}: the function was made quiet that way', str(steps))
    tap.note(f'{name}: ' + ', '.join(
        f'{one["method"]} {one["duration-us"]} us' for one in steps))
    tap.ok(all(result['oracle'][kind]['exposed'] >= WANTED[kind]
               for kind in WANTED), f'{name}: there were pages enough',
           str(result['oracle']))
    tap.ok(result['oracle_ok'], f'{name}: every byte is what the device wrote',
           '\n'.join(result['oracle_lines'][-10:]))
    tap.ok(result['counters'] and not result['counters_lost'],
           f'{name}: each counter is the last that the device wrote',
           f'{result["counters_lost"]} of {result["counters"]} are not')
    # With access taken away, what was under way faults instead of landing; a
    # reset that begins while the device goes on has no moment that counts.
    landed = result['oracle']['inflight']['exposed']
    tap.ok(method == 'reset' or landed or
           (method == 'iommu' and result['faults']),
           f'{name}: transfers were in flight at the stop',
           f'{landed} pages, {result["faults"]} faults')
    trouble = [line for line in result['trouble']
               if method != 'iommu' or 'DMAR' not in line]
    tap.equal(trouble, [], f'{name}: no trouble in either kernel log')
    test_bed.clear_trouble()


def _check_control(tap, test_bed, result, method, backend):
    name = f'without {method}, {backend}'
    if _completed(tap, name, result):
        lost = sum(one['lost'] for one in result['oracle'].values())
        tap.ok(lost, f'{name}: what the device writes after the stop is lost')
    test_bed.clear_trouble()


def _each_method_alone(test_bed, tap, backend):
    """Eight moves of one guest: each method, and what goes on without it."""
    hops = [(method, suppress, is_control) for method, both in METHODS.items()
            for is_control, suppress in enumerate(both)]
    options = [_options(method, backend, suppress)
               for method, suppress, _ in hops]
    journey = scenario.Journey(test_bed, tap.progress)
    for number, (method, _, is_control) in enumerate(hops):
        tap.progress(f'{"without " if is_control else ""}{method}, {backend}')
        try:
            result = journey.move(options[number], options[
                (number + 1) % len(options)], network=False,
                counter_us=COUNTER_US,
                whole=not is_control, never_stops=bool(is_control))
        except (vm.Timeout, vm.Gone, vm.CommandFailed, vm.QmpError) as error:
            tap.ok(False, f'{method}, {backend}: it moves', str(error))
            tap.note(test_bed.describe_guests())
            continue
        check = _check_control if is_control else _check_method
        check(tap, test_bed, result, method, backend)


def each_method_alone_type1(test_bed, tap):
    _each_method_alone(test_bed, tap, 'type1')


def each_method_alone_iommufd(test_bed, tap):
    _each_method_alone(test_bed, tap, 'iommufd')


def _fail(test_bed, tap, backend, method):
    """A migration whose destination lacks a function; the source goes on.

    Returns it, the test device, and its functions as they were.
    """
    source, destination = scenario.start_pair(
        test_bed, tap.progress, backend=backend,
        function_options=f'dma-quiesce={method}',
        destination_options={'functions': ('vf',)})
    device = load.Oracle(test_bed, source).prepare()
    before = {one['id']: one
              for one in load.wait_tracked(source)['functions']}
    migration = bed.Move(source, destination, tap.progress)
    survival.fail_after_the_quiesce(tap, source, device, migration)
    return source, device, before


def a_flushed_device_goes_on_where_it_was(test_bed, tap):
    source, device, before = _fail(test_bed, tap, 'type1', 'flush')
    info = load.tracking(source)
    after = {one['id']: one for one in info['functions']}
    for name, one in after.items():
        tap.equal(one['generation'], before[name]['generation'],
                  f'{name} was not reset')
        tap.ok(not one['fenced'], f'{name} is not fenced')
    status = device.status(source)
    tap.equal(status['resets'], '0', 'its driver noticed nothing')
    log = device.log()
    resumed = log.first((oracle.RESUME,))
    tap.ok(resumed and resumed.seed,
           'transfers were queued when it went on', str(resumed))
    device.control('unstream')
    status = device.status(source)
    tap.equal(status['error'], 'none', 'the stream ran dry without an error')
    checked = device.check(source)
    tap.ok(checked.ok, "the source's memory is what the device wrote",
           '\n'.join(checked.lines))
    tap.equal(source.trouble(), [], "no trouble in the guest's kernel log")


def an_unmapped_device_comes_back(test_bed, tap):
    for backend in BACKENDS:
        source, device, before = _fail(test_bed, tap, backend, 'iommu')
        device.wait_restored(source)
        after = {one['id']: one for one in load.tracking(source)['functions']}
        tap.ok(all(after[name]['generation'] > before[name]['generation']
                   for name in after), f'{backend}: all functions were reset')
        checked = device.check(source)
        tap.ok(checked.ok, f"{backend}: the source's memory is what the "
               'device wrote', '\n'.join(checked.lines))
        status = device.status(source)
        tap.ok(int(status['selftests']) >= 2 and
               status['selftest_errors'] == '0',
               f'{backend}: the device reaches memory again', str(status))
        tap.equal(source.trouble(), [], f"{backend}: no trouble in the "
                  "guest's kernel log")
        source.stop()
        test_bed.clear_trouble()


# How the device is broken: the methods that fail, in which words; and the one
# that works then.
BROKEN = {
    'flush-never': ((('flush', 'ring flush: not finished after'),),
                    'busmaster'),
    'flush-error': ((('flush', 'ring flush: the device reports an error'),),
                    'busmaster'),
    'pending': ((('flush', 'ring flush: not finished after'),
                 ('busmaster', 'transactions still pending')), 'iommu'),
}


def check_steps(tap, address, fault, steps, failing):
    """The methods that fail do, in these words, and name the device."""
    for step, (method, words) in zip(steps, failing):
        said = step.get('error', '')
        tap.ok(step['method'] == method and address in said and words in said,
               f'{fault}: {method} fails, and says why', str(step))
    return steps[len(failing):]


def _check_fallback(tap, journey, fault):
    failing, working = BROKEN[fault]
    broken = []

    def break_it(slot):
        broken.append(slot)
        test_bed.break_oracle(slot, fault)

    test_bed = journey.bed
    options = {'functions': ('oracle',), 'modules': 'dma_track,dma_oracle'}
    try:
        result = journey.move(options, options, network=False,
                              before_stop=break_it)
    finally:
        for slot in broken:
            test_bed.break_oracle(slot, 'none')
    if not _completed(tap, fault, result):
        return
    left = check_steps(tap, test_bed.function('oracle', broken[0]), fault,
                       result['steps']['oracle0'], failing)
    tap.ok(left and left[0]['method'] == working and 'error' not in left[0],
           f'{fault}: {working} works then', str(left))
    tap.ok(result['oracle_ok'], f'{fault}: every byte is what the device wrote',
           '\n'.join(result['oracle_lines'][-10:]))
    test_bed.clear_trouble()


def a_method_that_fails_is_followed_by_the_next(test_bed, tap):
    journey = scenario.Journey(test_bed, tap.progress)
    for fault in BROKEN:
        _check_fallback(tap, journey, fault)


def a_device_that_vanished_fails_the_migration(test_bed, tap):
    source, destination = scenario.start_pair(test_bed, tap.progress)
    traffic = load.Traffic(test_bed, source).start()
    device = load.Oracle(test_bed, source).prepare()
    load.wait_tracked(source)
    migration = bed.Move(source, destination, tap.progress)
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    device.work()
    test_bed.break_oracle('a', 'gone')
    try:
        tap.equal(migration.complete(), 'failed', 'gone: the migration fails')
        said = migration.info.get('error-desc', '')
        tap.ok(test_bed.function('oracle', 'a') in said,
               'gone: the error names the device', said)
        source.qmp.event('RESUME')
        functions = {one['id']: one
                     for one in load.tracking(source)['functions']}
        left = check_steps(
            tap, test_bed.function('oracle', 'a'), 'gone',
            functions['oracle0']['last-quiesce'],
            (('flush', 'does not answer'), ('busmaster', 'does not answer')))
        tap.ok(left and left[0]['method'] == 'iommu' and
               'error' not in left[0],
               'gone: its access to memory is taken away', str(left))
        heard = traffic.finish(source)
        tap.ok(heard['tcp_ok'], "gone: the other function's TCP stream goes "
               'on', heard['stream'])
        tap.equal(functions['vf0']['generation'], 0,
                  'gone: the other function, flushed, was not reset')
    finally:
        test_bed.break_oracle('a', 'none')
    test_bed.clear_trouble()


TESTS = (
    each_method_alone_type1, each_method_alone_iommufd,
    a_flushed_device_goes_on_where_it_was, an_unmapped_device_comes_back,
    a_method_that_fails_is_followed_by_the_next,
    a_device_that_vanished_fails_the_migration)
