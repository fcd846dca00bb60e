# SPDX-License-Identifier: GPL-2.0-only
"""One migration between two guests of this machine, with an oracle in it.

The oracle's device runs on the clock of its VM, so it stops with it and its
state migrates; what it wrote is hidden from the dirty log.
"""

import os

import guest
import oracle

# The guest dirties pages faster than they may be sent, or it would be moved at
# once. No pages of zeroes: they cost nothing.
BANDWIDTH = 40 << 20
NOISE = ('b=/bin/busybox; while :; do '
         'cat $b $b $b $b $b $b $b $b $b $b $b $b > /run/noise; done')
DEVICE = ['-device', 'dma-test,id=oracle,bus=rp1,clock=virtual,log=LOG,'
                     'x-untracked-dma=on']


class Move:
    """A source and a destination. Use it as a context."""

    def __init__(self, tap, directory, name, devices, modules, netdevs=None,
                 programs=None):
        """netdevs: called with 'source' or 'destination', further words."""
        self.tap = tap
        self.socket = 'unix:' + os.path.relpath(
            os.path.join(directory, f'{name}.move'))
        self.is_tracked = any('virtio-dma-track' in word for word in devices)
        self.sides = [
            guest.Guest(directory, f'{name}-{side}',
                        (netdevs(side) if netdevs else []) +
                        [word.replace('LOG', os.path.relpath(os.path.join(
                            directory, f'{name}-{side}.dma')))
                         for word in devices],
                        modules, incoming, programs)
            for side, incoming in (('source', False), ('destination', True))]
        self.source, self.destination = self.sides
        self.info = {}

    def __enter__(self):
        self.source.__enter__()
        try:
            self.destination.__enter__()
        except BaseException:
            self.source.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error):
        self.destination.__exit__(*error)
        self.source.__exit__(*error)

    def wait_tracked(self):
        """Wait until the guest has told which functions it tracks."""
        if self.is_tracked:
            guest.wait_until(lambda: self.source.qmp.command(
                'query-dma-track')['migratable'], 'a guest that may move')

    def start(self):
        """Begin, and stay in precopy because no downtime is allowed."""
        self.source.agent.start(NOISE)
        self.source.qmp.command('migrate-set-parameters', **{
            'max-bandwidth': BANDWIDTH, 'downtime-limit': 0})
        self.destination.qmp.command('migrate-incoming', uri=self.socket)
        self.source.agent.expect_successor(self.destination.agent)
        self.source.qmp.command('migrate', uri=self.socket)

    def wait_sent_once(self):
        self.source.qmp.event('MIGRATION_PASS', 180,
                              lambda data: data['pass'] >= 2)

    def complete(self):
        """Let it end; return its status."""
        self.source.qmp.command('migrate-set-parameters', **{
            'max-bandwidth': 1 << 33, 'downtime-limit': 3000})
        event = self.source.qmp.event(
            'MIGRATION', 240, lambda data: data['status'] in (
                'completed', 'failed', 'cancelled'))
        self.info = self.source.qmp.command('query-migrate')
        return event['data']['status']

    def go_on(self):
        """Let the guest run on the destination, and speak with it there."""
        self.destination.qmp.cont()
        self.source.agent.moved_to(self.destination.agent)


def work(move):
    """Have the oracle write to each of its pages after it was sent."""
    source = move.source
    source.order('prepare')
    source.order('stamp', 120)
    move.wait_tracked()
    move.start()
    move.wait_sent_once()
    source.mark(oracle.MARK_EXPOSED)
    source.order('stamp', 240)
    source.order('stream')
    begin = int(source.status()['completions'])
    guest.wait_until(
        lambda: int(source.status()['completions']) > begin + 1100,
        'a round of completions', 120)


def judge(move, pages):
    """Memory of the stopped destination, compared with the source's log.

    There is no quiesce: the device stops with its VM, so that everything it
    ever wrote counts, and what was in flight lands on the destination.
    """
    pages = [page._replace(kind='mapped') if page.kind == 'inflight' else page
             for page in pages]
    return oracle.check(move.source.log(), pages, move.destination.memory())


def run_oracle(tap, directory, name, devices, modules):
    """One move; returns (status, result). The result is None if it failed."""
    with Move(tap, directory, name, devices, modules) as move:
        work(move)
        pages = move.source.pages()
        status = move.complete()
        if status != 'completed':
            tap.note(move.info.get('error-desc', ''))
            return status, None
        result = judge(move, pages)
        tap.note('\n'.join(result.lines))
        if result.ok:
            # A driver that has lost its completion ring could not do this.
            move.go_on()
            move.destination.order('unstream')
            move.destination.order('selftest')
            move.destination.report_trouble(tap)
        return status, result
