# SPDX-License-Identifier: GPL-2.0-only
"""What cannot be moved safely is refused, in words that say what and why."""

import bed
import load
import scenario
import vm


def try_to_move(test_bed, progress, **options):
    """What QEMU says when a guest with these options is to move."""
    source, destination = scenario.start_pair(test_bed, progress, **options)
    return source, ask(source, destination, progress)


def ask(source, destination, progress):
    """QEMU's refusal, or None if it does not refuse."""
    migration = bed.Move(source, destination, progress)
    try:
        migration.start()
        if migration.finish() == 'completed':
            return None
        return migration.info.get('error-desc', '')
    except vm.QmpError as refusal:
        return str(refusal)


def without_the_device_qemu_refuses_as_it_always_did(test_bed, tap):
    _, words = try_to_move(test_bed, tap.progress, provider=None)
    tap.ok(words and 'not supported in kernel' in words,
           'without virtio-dma-track QEMU refuses in its stock words', words)
    address = test_bed.function('oracle', 'a')
    tap.ok(words and 'there is no virtio-dma-track device, and ' + address +
           ': VFIO migration init failed: ' in words,
           'and in ours, by name', words)
    tap.note(words)


def a_driver_that_came_first_is_named(test_bed, tap):
    source, words = try_to_move(test_bed, tap.progress,
                                modules='igbvf,dma_track,dma_oracle')
    tap.ok(words and 'bound' in words.lower(),
           'a function whose driver was bound before is refused and named',
           words)
    tap.note(words)
    info = load.tracking(source)
    tap.ok(not info['migratable'],
           'query-dma-track says so beforehand', str(info))
    # That is what an operator would do about it.
    address = source.run('basename $(readlink -f /sys/bus/pci/drivers/igbvf/'
                         '0000:*)').strip()
    source.run(f'echo {address} > $(find /sys /sys/kernel/debug/dma_track '
               '-name track -path "*dma_track*" | head -n 1)')
    load.wait_tracked(source)
    tap.ok(True, 'probed again on request it is tracked')


def functions_of_every_kind_are_told_of(test_bed, tap):
    """Also those that are none of the guest's business. It need not boot."""
    oracle = test_bed.function('oracle', 'a')
    source = test_bed.guest(
        'a', functions=('vf',), function_options=',enable-migration=off',
        extra=f'-device vfio-pci,host={oracle},id=oracle0,bus=rp2,'
              'dma-tracked-by=external').launch()
    info = load.tracking(source)
    told = {one['id']: one for one in info['functions']}
    tap.equal({name: one['tracked-by'] for name, one in told.items()},
              {'vf0': 'nobody', 'oracle0': 'external'},
              'query-dma-track tells of functions that the guest does not '
              'track')
    tap.ok('Migration is disabled for VFIO device'
           in told.get('vf0', {}).get('reason', ''),
           'and why nobody does', str(info))
    tap.equal([told['vf0']['reason']], info['reasons'],
              'that is the reason why it cannot move')
    tap.ok('Migration is disabled' in source.qmp.command(
        'human-monitor-command', **{'command-line': 'info dma-track'}),
        'info dma-track tells it too')
    tap.equal(info['totals']['nobody'], 1, 'one function is nobody\'s')


TESTS = (functions_of_every_kind_are_told_of,
         without_the_device_qemu_refuses_as_it_always_did,
         a_driver_that_came_first_is_named)
