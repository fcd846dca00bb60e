# SPDX-License-Identifier: GPL-2.0-only
"""A fresh function cannot write memory before its driver was restored."""

import bed
import load
import oracle
import scenario

# Where an engine without base addresses writes; the kernel keeps off it.
LOW = range(0, 0x10000, 4096)


def _poke(test_bed, progress, fence, command='poke arm'):
    """Move a guest whose driver enables the engine, too early, with base 0.

    Returns the writes of the destination's device to low memory, and the low
    frames that differ.
    """
    source, destination = scenario.start_pair(
        test_bed, progress, functions=('oracle',),
        modules='dma_track,dma_oracle',
        function_options='' if fence else 'x-dma-fence=off')
    device = load.Oracle(test_bed, source).prepare()
    device.control(command)
    load.wait_tracked(source)
    before = source.read_frames(LOW)
    migration = bed.Move(source, destination, progress)
    migration.start(downtime_ms=2000)
    status = migration.finish()
    if status != 'completed':
        raise AssertionError(f'{status}: {migration.info}')
    migration.follow_guest()
    said = device.wait_restored(destination)
    if said.get('poked', '0') == '0' or said.get('error') != 'none':
        raise AssertionError(f'the driver did not do it: {said}')
    after = destination.read_frames(LOW)
    log = oracle.Log(test_bed.oracle_log('b'))
    writes = [record for record in log.writes() if record.addr < LOW.stop]
    source.stop()
    destination.stop()
    return writes, [gpa for gpa in LOW if before[gpa] != after[gpa]]


def a_queue_enabled_too_early_corrupts_nothing(test_bed, tap):
    writes, changed = _poke(test_bed, tap.progress, True)
    tap.equal(len(writes), 0, 'behind the fence the device writes nothing')
    tap.equal(changed, [], 'and the memory it aimed at is as before')


def without_the_fence_it_does(test_bed, tap):
    writes, changed = _poke(test_bed, tap.progress, False)
    tap.ok(writes, 'without the fence the device writes to address 0')
    tap.ok(changed, 'and the memory there is corrupt')


def a_guest_that_resets_the_bus_is_still_fenced(test_bed, tap):
    writes, changed = _poke(test_bed, tap.progress, True, 'poke arm reset')
    tap.equal(len(writes), 0, 'a bus reset by the guest lifts no fence')
    tap.equal(changed, [], 'and the memory it aimed at is as before')


TESTS = (a_queue_enabled_too_early_corrupts_nothing,
         a_guest_that_resets_the_bus_is_still_fenced,
         without_the_fence_it_does)
