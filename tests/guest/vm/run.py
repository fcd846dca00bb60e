#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite guest: the module in a booted guest. Prints TAP.

    run.py [PART...]

api      every hooked function, driven by a pretend device (tests/guest/module)
bounce   the same with bounce buffers
load     loading, unloading, and other tracers
devices  which functions are tracked, and why not
phases   what the host asks for while it migrates
"""

import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for room in ('lib', os.path.join('host', 'emulated')):
    sys.path.insert(0, os.path.join(HERE, '..', '..', room))

# pylint: disable=wrong-import-position
import guest   # noqa: E402
import images  # noqa: E402
import paths   # noqa: E402
import vm      # noqa: E402
from tapwriter import Tap  # noqa: E402

MODULE = 'guest/kernel/dma-track'
PRETEND = 'tests/guest/module'
FILES = '/sys/kernel/debug/dma_track'
TRACING = '/sys/kernel/tracing'
SPLAT = r'WARNING:|BUG:|Oops|Call Trace'

NET = '0000:01:00.0'
HOST = ['-device', 'virtio-dma-track-pci,id=track,addr=6']
NIC = ['-netdev', 'user,id=n0', '-device',
       'e1000e,id=net0,bus=rp1,netdev=n0,x-untracked-dma=on']


class Guest(guest.Guest):
    """A guest with dma_track.ko and the pretend device at hand."""

    def __init__(self, directory, name, devices=(), modules=(), extra=''):
        kernel = paths.Kernel()
        self.extra = extra
        super().__init__(directory, name, list(devices), list(modules),
                         programs=built(kernel))

    def arguments(self):
        words = super().arguments()
        words[words.index('-append') + 1] += ' ' + self.extra
        return words

    def load(self, deadline=60):
        self.agent.run('insmod /bin/dma_track.ko', deadline)

    def status(self):
        text = self.agent.run(f'cat {FILES}/status')
        return dict(line.split(': ', 1) for line in text.splitlines())

    def function(self, address=NET):
        """State, reason, generation, restored, milliseconds; or None."""
        for line in self.agent.run(f'cat {FILES}/functions').splitlines():
            words = line.split()
            if words[0] == address:
                return words[1:]
        return None

    def succeeds(self, script):
        try:
            self.agent.run(script)
        except vm.CommandFailed:
            return False
        return True

    def splats(self):
        return self.agent.run(f'dmesg | grep -E "{SPLAT}" || true')


def built(kernel):
    """Both modules: name -> path."""
    paths_of = images.modules(kernel, {'dma_track': MODULE,
                                       'dma_track_test': PRETEND})
    return {name + '.ko': path for name, path in paths_of.items()}


def pretend(tap, directory, name, extra):
    """Report what the pretend device reports."""
    with Guest(directory, name, extra=extra) as machine:
        machine.load()
        machine.agent.run('insmod /bin/dma_track_test.ko', 300)
        log = machine.agent.run('dmesg | sed -n "s/.*dma_track_test: //p"')
        planned = re.search(r'^1\.\.(\d+)$', log, re.M)
        seen = 0
        for line in log.splitlines():
            match = re.match(r'(not )?ok \d+ - (.*)', line)
            if match:
                seen += 1
                tap.ok(not match[1], f'{name}: {match[2]}')
            elif line.startswith('# line'):
                tap.note(line)
        tap.ok(planned and int(planned[1]) == seen,
               f'{name}: all tests of the pretend device ran', log)
        machine.agent.run('rmmod dma_track_test && rmmod dma_track', 120)
        tap.equal(machine.splats(), '', f'{name}: the kernel did not complain')


def api(tap, directory):
    pretend(tap, directory, 'api', '')


def bounce(tap, directory):
    pretend(tap, directory, 'bounce', 'swiotlb=force')


def load(tap, directory):
    with Guest(directory, 'load') as machine:
        agent = machine.agent
        agent.run(f'mount -t tracefs t {TRACING}')
        agent.run('echo 0 > /proc/sys/kernel/ftrace_enabled')
        tap.ok(not machine.succeeds('insmod /bin/dma_track.ko'),
               'with ftrace disabled the module does not load')
        tap.ok('ftrace is disabled' in agent.run('dmesg'),
               'and says why')
        agent.run('echo 1 > /proc/sys/kernel/ftrace_enabled')
        machine.load()
        tap.equal(machine.status()['hooks_intact'], '1',
                  'with ftrace enabled it loads, hooks intact')
        tap.ok(not machine.succeeds(
            'echo 0 > /proc/sys/kernel/ftrace_enabled') and
            machine.status()['hooks_intact'] == '1',
            'ftrace cannot be disabled while it is loaded')

        agent.run(f'cd {TRACING} && '
                  'echo dma_map_page_attrs > set_ftrace_filter && '
                  'echo function > current_tracer')
        tap.equal(machine.status()['hooks_intact'], '0',
                  'a second tracer on a hooked function is noticed')
        agent.run(f'echo nop > {TRACING}/current_tracer')
        tap.equal(machine.status()['hooks_intact'], '1',
                  'and that it has gone')

        for _ in range(5):
            agent.run('rmmod dma_track && insmod /bin/dma_track.ko', 120)
        agent.run('rmmod dma_track', 60)
        tap.ok(True, 'loaded and unloaded five times')
        tap.equal(machine.splats(), '', 'load: the kernel did not complain')


def devices(tap, directory):
    late(tap, directory)
    early(tap, directory)


def late(tap, directory):
    """The driver is there first."""
    with Guest(directory, 'late', HOST + NIC, ['e1000e']) as machine:
        agent = machine.agent
        machine.load()
        tap.equal(machine.function()[:2], ['untracked', 'bound-before'],
                  'a function whose driver came first is untracked')
        agent.run(f'echo {NET} > {FILES}/track')
        tap.equal(machine.function()[:2], ['tracked', '-'],
                  'until its driver is bound anew on request')
        tap.ok(not machine.succeeds(f'echo 0000:00:00.0 > {FILES}/track') and
               machine.function('0000:00:00.0')[:2] ==
               ['untracked', 'no-capability'],
               'a function that is not assigned cannot be tracked')
        tap.equal(machine.splats(), '', 'late: the kernel did not complain')


def early(tap, directory):
    """The module is there first."""
    with Guest(directory, 'early', HOST + NIC,
               ['dma_track', 'e1000e']) as machine:
        agent = machine.agent
        status = machine.status()
        tap.equal((status['connected'], status['lost']), ('1', '0'),
                  'the host accepts all sections')
        tap.equal(machine.function()[:2], ['tracked', '-'],
                  'a function whose driver comes later is tracked')
        agent.run('ip link set eth0 up')
        tap.ok(int(machine.status()['pinned_streaming']) > 0 and
               int(machine.status()['pinned_coherent']) > 0,
               'receive buffers and rings of the driver are pinned',
               str(machine.status()))

        agent.run('ip link set eth0 down && '
                  f'echo {NET} > /sys/bus/pci/drivers/e1000e/unbind')
        tap.equal(machine.function()[:2], ['unbound', '-'],
                  'without a driver it is unbound')
        status = machine.status()
        tap.equal((status['pinned_streaming'], status['pinned_coherent'],
                   status['unknown_unmaps']), ('0', '0', '0'),
                  'and nothing of it is pinned')
        agent.run(f'echo {NET} > /sys/bus/pci/drivers/e1000e/bind')
        tap.equal(machine.function()[:2], ['tracked', '-'],
                  'with a driver it is tracked again')

        agent.run('rmmod dma_track', 120)
        agent.run('ip link set eth0 up && insmod /extra/dma_track.ko', 60)
        tap.equal(machine.function()[:2], ['untracked', 'bound-before'],
                  'unloaded and loaded under its driver it is untracked')
        tap.equal(machine.splats(), '', 'early: the kernel did not complain')


def phases(tap, directory):
    with Guest(directory, 'phases', HOST + NIC,
               ['dma_track', 'e1000e']) as machine:
        agent, qmp = machine.agent, machine.qmp
        agent.run('ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0')
        before = int(machine.status()['dirtied'])
        agent.run('ping -c 3 10.0.2.2')
        tap.equal(int(machine.status()['dirtied']), before,
                  'nothing is dirtied while no migration runs')

        # Slow, so that it does not end by itself.
        qmp.command('migrate-set-parameters', **{'max-bandwidth': 65536})
        qmp.command('migrate', uri='exec:cat > /dev/null')
        qmp.event('MIGRATION', 60,
                  lambda data: data.get('status') == 'active')
        tap.equal(machine.status()['phase'], 'logging',
                  'before RAM is sent the guest logs')
        agent.run('ping -c 5 10.0.2.2')
        tap.ok(int(machine.status()['dirtied']) > before,
               'unmapped frames are dirtied while it does')
        tap.ok(not machine.succeeds('rmmod dma_track'),
               'the module cannot be unloaded then')
        qmp.command('migrate_cancel')
        qmp.event('MIGRATION', 60,
                  lambda data: data.get('status') == 'cancelled')
        guest.wait_until(lambda: machine.status()['phase'] == 'idle',
                         'the guest to stop logging', 30)
        tap.ok(True, 'it stops logging when the migration is cancelled')
        after = int(machine.status()['dirtied'])
        agent.run('ping -c 3 10.0.2.2')
        tap.equal(int(machine.status()['dirtied']), after,
                  'and dirtying')

        agent.run(f'mount -t tracefs t {TRACING}; cd {TRACING} && '
                  'echo dma_unmap_page_attrs > set_ftrace_filter && '
                  'echo function > current_tracer')
        qmp.command('migrate', uri='exec:cat > /dev/null')
        qmp.event('MIGRATION', 60,
                  lambda data: data.get('status') in ('active', 'failed'))
        tap.equal(machine.status()['lost'], '3',
                  'a bypassed hook sets the lost word')
        qmp.command('migrate_cancel')
        tap.equal(machine.splats(), '', 'phases: the kernel did not complain')


PARTS = {'api': api, 'bounce': bounce, 'load': load, 'devices': devices,
         'phases': phases}


def main():
    tap = Tap()
    directory = paths.scratch('guest')
    for name in sys.argv[1:] or PARTS:
        tap.progress(name)
        tap.run(PARTS[name], tap, directory)
    return tap.done()


if __name__ == '__main__':
    try:
        sys.exit(main())
    except paths.Missing as error:
        paths.explain(error)
