# SPDX-License-Identifier: GPL-2.0-only
"""What an emulated device wrote unseen by the dirty log: lost, or not."""

import move
import vm

PROVIDER = ['-device', 'virtio-dma-track-pci,addr=6']


def expect_loss(tap, result):
    """At least nine of ten exposed pages of each kind."""
    for kind in ('unmapped', 'mapped', 'ring'):
        n = result.kinds[kind]
        tap.ok(n['exposed'] >= 64 and n['lost'] >= 0.9 * n['exposed'],
               f'{kind} pages are lost if nobody tracks them', n)


def untracked_pages_are_lost(tap, directory):
    """The control: the same guest and load, but nobody to tell of its DMA."""
    status, result = move.run_oracle(
        tap, directory, 'control', move.DEVICE,
        ['dma_track', 'dma_oracle'])
    tap.equal(status, 'completed', 'the control migrates')
    expect_loss(tap, result)


def untracked_function_is_refused(tap, directory):
    """Nobody tracks it, and it is known: no migration, and a reason."""
    with move.Move(tap, directory, 'refused',
                   move.DEVICE + PROVIDER, ['dma_oracle']) as pair:
        try:
            pair.start()
            words = 'it was not refused'
        except vm.QmpError as error:
            words = str(error)
        tap.ok('oracle' in words, 'a function that nobody tracks is named',
               words)


def tracked_pages_survive(tap, directory):
    status, result = move.run_oracle(
        tap, directory, 'tracked',
        move.DEVICE + PROVIDER, ['dma_track', 'dma_oracle'])
    if not tap.equal(status, 'completed', 'a tracked guest migrates'):
        return
    for kind in ('unmapped', 'mapped', 'ring'):
        n = result.kinds[kind]
        tap.ok(n['exposed'] >= 64 and not n['lost'] and not n['stale'],
               f'no {kind} page is lost', '\n'.join(result.lines))


def run(tap, directory):
    for test in (untracked_pages_are_lost, tracked_pages_survive,
                 untracked_function_is_refused):
        tap.run(test, tap, directory)
