# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's own edu: no reset, no capability, no handlers, 28 bits of DMA."""

import struct

import bed
import load
import scenario

DEBUGFS = '/sys/kernel/debug/dma_edu'
SEED = 4711
# See edu_word() in tests/guest/edu/dma_edu.c.
FILLED = b''.join(
    struct.pack('<Q', (SEED + i + 1) * 0x9e3779b97f4a7c15 % (1 << 64))
    for i in range(512))


def _move(test_bed, progress, tracked_by=None):
    """Move a guest with edu; returns {kind: [(source's, destination's)]}."""
    source, destination = scenario.start_pair(
        test_bed, progress, tracked_by=tracked_by, functions=('vf', 'edu'),
        modules='dma_track,igbvf,dma_edu')
    source.run(f'echo fill {SEED} > {DEBUGFS}/control')
    source.run(f'echo prepare 25 > {DEBUGFS}/control')
    if tracked_by != 'external':
        load.wait_tracked(source)
    # Not by the agent's own copy of it: that would be memory of the CPU.
    dirty = source.agent.start('exec traffic dirty 256 20000')
    dirty.line('dirtying')
    migration = bed.Move(source, destination, progress)
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    source.run(f'echo write 16 > {DEBUGFS}/control')
    source.run(f'echo keep 8 > {DEBUGFS}/control')
    source.run(f'echo start > {DEBUGFS}/control')
    status = migration.complete()
    if status != 'completed':
        raise AssertionError(f'{status}: {migration.info}')
    migration.follow_guest()
    bed.wait_until(lambda: scenario.all_restored(destination),
                   'all drivers restored')
    pages = [line.split() for line in
             destination.run(f'cat {DEBUGFS}/pages').splitlines()]
    frames = [int(gpa, 16) for _, gpa in pages]
    left, right = source.read_frames(frames), destination.read_frames(frames)
    found = {}
    for (kind, _), gpa in zip(pages, frames):
        found.setdefault(kind, []).append((left[gpa], right[gpa]))
    # The restored driver works: it does what it did on the source.
    probes = destination.run(f'cat {DEBUGFS}/probes').strip()
    for command in (f'fill {SEED}', 'prepare 1', 'write 1'):
        destination.run(f'echo {command} > {DEBUGFS}/control')
    source.stop()
    destination.stop()
    return found, probes


def edu_loses_nothing(test_bed, tap):
    found, probes = _move(test_bed, tap.progress)
    tap.equal([len(found[kind]) for kind in ('done', 'kept', 'flying')],
              [16, 8, 1], 'edu wrote frames of all kinds')
    for kind in ('done', 'kept'):
        lost = sum(right != FILLED for _, right in found[kind])
        tap.equal(lost, 0, f'tracked, no {kind} frame of edu is lost')
    left, right = found['flying'][0]
    tap.ok(left == right and right in (FILLED, bytes(4096)),
           'the frame in flight is whole: there before the stop, or never')
    tap.equal(probes, '2', 'its driver was probed again, once')


def untracked_edu_loses_frames(test_bed, tap):
    found, _ = _move(test_bed, tap.progress, 'external')
    for kind in ('done', 'kept'):
        lost = sum(right != FILLED for _, right in found[kind])
        tap.ok(lost >= 0.9 * len(found[kind]),
               f'untracked, {kind} frames of edu are lost',
               f'{lost} of {len(found[kind])}')


TESTS = (edu_loses_nothing, untracked_edu_loses_frames)
