# SPDX-License-Identifier: GPL-2.0-only
"""A migration that comes to nothing leaves a source that works."""

import bed
import load
import scenario


def _start(test_bed, tap, **destination_options):
    source = test_bed.guest('a').launch()
    destination = test_bed.guest('b', incoming=True,
                                 **destination_options).launch()
    source.wait_booted()
    traffic = load.Traffic(test_bed, source).start()
    device = load.Oracle(test_bed, source).prepare()
    load.wait_tracked(source)
    return source, traffic, device, bed.Move(source, destination,
                                             tap.progress)


def _check_source(tap, source, traffic, device):
    checked = device.check(source)
    tap.ok(checked.ok, "the source's memory is what the device wrote",
           '\n'.join(checked.lines))
    network = traffic.finish(source)
    tap.ok(network['tcp_ok'], 'the TCP stream goes on', network['stream'])
    info = load.tracking(source)
    tap.equal(info['provider']['phase'], 'idle', 'the guest logs no more')
    tap.equal(source.trouble(), [], "no trouble in the guest's kernel log")


def cancelled_while_precopying(test_bed, tap):
    source, traffic, device, migration = _start(test_bed, tap)
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
    source, traffic, device, migration = _start(test_bed, tap,
                                                functions=('vf',))
    fail_after_the_quiesce(tap, source, device, migration)
    device.wait_restored(source)
    bed.wait_until(lambda: scenario.all_restored(source),
                   'all drivers restored')
    tap.ok(True, 'the drivers on the source were restored')
    _check_source(tap, source, traffic, device)


TESTS = (cancelled_while_precopying, destination_dies_after_the_quiesce)
