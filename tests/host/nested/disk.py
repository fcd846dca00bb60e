# SPDX-License-Identifier: GPL-2.0-only
"""A write that a disk began before the stop lands before the move, or never.

Both slots have a controller for the same medium. The source's holds a write
up; the guest moves, and writes the block anew. Then the source's is let go.
"""

import bed
import load
import scenario

BLOCK = 4096
# Blocks of the medium: what uses up the allowance, and what matters.
FIRST, MATTERS = 100, 200


def _fill(letter):
    return (f"dd if=/dev/zero bs={BLOCK} count=1 2>/dev/null | "
            f"tr '\\0' {letter}")


def _write(letter, block):
    return (f'{_fill(letter)} > /run/{letter} && dd if=/run/{letter} '
            f'of=/dev/nvme0n1 bs={BLOCK} seek={block} oflag=direct '
            '2>/dev/null')


def _move(test_bed, progress, suppress=''):
    """Returns what the block holds when the guest and the source are done."""
    test_bed.hold_writes('a', False)
    source, destination = scenario.start_pair(
        test_bed, progress, functions=('disk',), modules='dma_track,nvme',
        provider=scenario.PROVIDER + suppress,
        function_options='dma-quiesce=busmaster')
    bed.wait_until(lambda: 'yes' in source.run(
        '[ -e /dev/nvme0n1 ] && echo yes || echo no'), 'the disk is there')
    load.wait_tracked(source)
    source.run(_write('a', MATTERS))
    test_bed.hold_writes('a')
    source.run(_write('x', FIRST))
    held = source.agent.start(_write('o', MATTERS) + '; echo written')
    bed.wait_until(lambda: source.run(
        "awk '{ print $2 }' /sys/block/nvme0n1/inflight").strip() == '1',
        'the old write is on its way')
    # Reads are not held up: behind it in the queue, and answered.
    source.run(f'dd if=/dev/nvme0n1 of=/dev/null bs={BLOCK} count=1 '
               'iflag=direct 2>/dev/null')
    migration = bed.Move(source, destination, progress)
    migration.start(bandwidth=scenario.BANDWIDTH, downtime_ms=5000)
    status = migration.finish()
    if status != 'completed':
        raise AssertionError(f'{status}: {migration.info}')
    migration.follow_guest()
    bed.wait_until(lambda: scenario.all_restored(destination),
                   'all drivers restored')
    # The driver has sent it again, as it does with what a reset has ended.
    held.line('written')
    destination.run(_write('n', MATTERS))
    test_bed.hold_writes('a', False)
    read = destination.run(
        f'dd if=/dev/nvme0n1 bs={BLOCK} skip={MATTERS} count=1 iflag=direct '
        '2>/dev/null | head -c 1')
    # The source's controller has nothing left to do once it is flushed.
    source.stop()
    test_bed.machine.command('human-monitor-command', **{
        'command-line': 'qemu-io disk-a flush'})
    with open(test_bed.medium(), 'rb') as file:
        file.seek(MATTERS * BLOCK)
        block = file.read(BLOCK)
    trouble = destination.trouble()
    destination.stop()
    return read, block, trouble


def an_old_write_never_lands_after_the_move(test_bed, tap):
    read, block, trouble = _move(test_bed, tap.progress)
    tap.equal(read, 'n', 'the guest reads what it wrote last')
    tap.equal(block, b'n' * BLOCK, 'and the medium has it, whatever the '
              'source had begun')
    tap.equal(trouble, [], "no trouble in the guest's kernel log")


def without_the_reset_it_does(test_bed, tap):
    _, block, _ = _move(test_bed, tap.progress,
                        ',x-dma-quiesce-suppress=reset')
    tap.equal(block, b'o' * BLOCK, 'without the reset, the old write is on '
              'the medium in the end')


TESTS = (an_old_write_never_lands_after_the_move, without_the_reset_it_does)
