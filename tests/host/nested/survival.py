# SPDX-License-Identifier: GPL-2.0-only
"""A migration that comes to nothing leaves a source that works."""

import bed
import load
import scenario


def start(test_bed, tap, source_options=(), **destination_options):
    source = test_bed.guest('a', **dict(source_options)).launch()
    destination = test_bed.guest('b', incoming=True,
                                 **destination_options).launch()
    source.wait_booted()
    traffic = load.Traffic(test_bed, source).start()
    device = load.Oracle(test_bed, source).prepare()
    load.wait_tracked(source)
    return source, traffic, device, bed.Move(source, destination,
                                             tap.progress)


def check_memory(tap, source, device):
    checked = device.check(source)
    tap.ok(checked.ok, "the source's memory is what the device wrote",
           '\n'.join(checked.lines))


def _check_source(tap, source, traffic, device):
    check_memory(tap, source, device)
    network = traffic.finish(source)
    tap.ok(network['tcp_ok'], 'the TCP stream goes on', network['stream'])
    info = load.tracking(source)
    tap.equal(info['provider']['phase'], 'idle', 'the guest logs no more')
    tap.equal(source.trouble(), [], "no trouble in the guest's kernel log")


def cancelled_while_precopying(test_bed, tap):
    source, traffic, device, migration = start(test_bed, tap)
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    device.work()
    device.control('unstream')
    source.qmp.command('migrate_cancel')
    tap.equal(migration.finish(), 'cancelled', 'the migration is cancelled')
    _check_source(tap, source, traffic, device)


def fail_after_the_quiesce(tap, source, device, migration):
    """Let a migration run to an end that its destination cannot accept."""
    source.qmp.command('migrate-set-capabilities', capabilities=[
        {'capability': 'return-path', 'state': True}])
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    device.work()
    status = migration.complete()
    tap.equal(status, 'failed', 'the migration fails')
    tap.note(migration.info.get('error-desc', ''))
    source.qmp.event('RESUME')


def destination_dies_after_the_quiesce(test_bed, tap):
    # It lacks a function, and finds out when the stream mentions that.
    source, traffic, device, migration = start(test_bed, tap,
                                               functions=('vf',))
    fail_after_the_quiesce(tap, source, device, migration)
    wait_restored(tap, source, device)
    _check_source(tap, source, traffic, device)


def destination_dies_after_each_method(test_bed, tap):
    """Of those that leave a function which must be reset; see quiesce.py."""
    for method in 'busmaster', 'reset':
        tap.label = f' ({method})'
        source, traffic, device, migration = start(
            test_bed, tap, {'function_options': f'dma-quiesce={method}'},
            functions=('vf',))
        fail_after_the_quiesce(tap, source, device, migration)
        steps = [one['last-quiesce']
                 for one in load.tracking(source)['functions']]
        tap.ok(len(steps) == 2 and all(
            one[0]['method'] == method and 'error' not in one[0]
            for one in steps), 'the functions had been made quiet', steps)
        wait_restored(tap, source, device)
        _check_source(tap, source, traffic, device)
        tap.label = ''
        test_bed.stop_guests()


def wait_restored(tap, source, device):
    device.wait_restored(source)
    bed.wait_until(lambda: scenario.all_restored(source),
                   'all drivers restored')
    tap.ok(True, 'the drivers on the source were restored')


def move_after_all(test_bed, tap, source, traffic, device):
    """Once more, with fresh frames; and now it succeeds."""
    restores = int(device.status()['restores'])
    if device.status()['state'] == 'streaming':
        device.control('unstream')
    device.control('release')
    device.control('prepare')
    destination = test_bed.guest('b', incoming=True).launch()
    load.wait_tracked(source)
    migration = bed.Move(source, destination, tap.progress)
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    device.work()
    tap.equal(migration.complete(), 'completed', 'the next migration succeeds')
    tap.note(migration.info.get('error-desc', ''))
    migration.follow_guest()
    device.wait_restored(destination, times=restores + 1)
    bed.wait_until(lambda: scenario.all_restored(destination),
                   'all drivers restored')
    checked = device.check(destination)
    tap.ok(checked.ok, 'it loses no page', '\n'.join(checked.lines))
    network = traffic.finish(destination)
    tap.ok(network['tcp_ok'], 'the TCP stream goes on', network['stream'])
    tap.equal(destination.trouble(), [],
              "no trouble in the guest's kernel log")


def _stop_before_the_switchover(source, device, migration):
    source.qmp.command('migrate-set-capabilities', capabilities=[
        {'capability': 'pause-before-switchover', 'state': True}])
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    device.work()
    migration.allow()
    source.qmp.event('MIGRATION', migration.DEADLINE,
                     lambda data: data['status'] == 'pre-switchover')


def _go_back_to_usual(source):
    source.qmp.command('migrate-set-capabilities', capabilities=[
        {'capability': 'pause-before-switchover', 'state': False}])


def cancelled_when_the_vcpus_are_stopped(test_bed, tap):
    """The functions cannot master the bus any more then."""
    source, traffic, device, migration = start(test_bed, tap)
    _stop_before_the_switchover(source, device, migration)
    source.qmp.command('migrate_cancel')
    tap.equal(migration.finish(), 'cancelled', 'the migration is cancelled')
    _go_back_to_usual(source)
    wait_restored(tap, source, device)
    check_memory(tap, source, device)
    migration.destination.stop()
    move_after_all(test_bed, tap, source, traffic, device)


def destination_is_killed_at_the_switchover(test_bed, tap):
    source, traffic, device, migration = start(test_bed, tap)
    _stop_before_the_switchover(source, device, migration)
    migration.destination.command.signal(9)
    migration.destination.command.wait()
    source.qmp.command('migrate-continue', state='pre-switchover')
    tap.equal(migration.finish(), 'failed', 'the migration fails')
    _go_back_to_usual(source)
    wait_restored(tap, source, device)
    check_memory(tap, source, device)
    move_after_all(test_bed, tap, source, traffic, device)


TESTS = (cancelled_while_precopying, destination_dies_after_the_quiesce)
