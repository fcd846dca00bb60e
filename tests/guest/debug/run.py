#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite debug: the module on kernels that watch it. Prints TAP.

    run.py [--kernel NAME] [PART...]

The parts of suite guest (tests/guest/vm/run.py) that are named in KERNELS, in
guests whose kernels are built for the purpose; each fails if the kernel
complains of anything. And

leaks    nothing is left behind when the module is loaded and unloaded
races    no two processors use our data at once, unless that is meant
"""

import argparse
import importlib.util
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for room in ('lib', os.path.join('host', 'emulated')):
    sys.path.insert(0, os.path.join(HERE, '..', '..', room))

# pylint: disable=wrong-import-position
import guest   # noqa: E402
import paths   # noqa: E402
import vm      # noqa: E402
from tapwriter import Tap  # noqa: E402


def load_suite():
    """The suite guest, whose file has the name of ours."""
    spec = importlib.util.spec_from_file_location(
        'suite_guest', os.path.join(HERE, '..', 'vm', 'run.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


suite = load_suite()

# A kernel that watches all memory wants a lot of it, and is slow.
RAM_MIB = 1024
ROOM = f'{RAM_MIB}M,slots=16,maxmem=4G'
PATIENCE = 4
KERNELS = {
    'debug-memory': ('api', 'leaks'),
    'debug-races': ('races', 'api'),
}
# The pretend device breaks the rules of the DMA API on purpose, and is told so.
PRETEND = ('api', 'bounce')
PRETEND_SPLAT = r'BUG:|Oops|WARNING: [^C]|WARNING: CPU.* at ([^k]|kernel/[^d])'
DEBUG = '/sys/kernel/debug'
LEAKS = f'{DEBUG}/kmemleak'


# --- Leaks ------------------------------------------------------------------

# A module that has gone has no names any more.
OURS = re.compile(r'\[dma_track|^    0x[0-9a-f]{16}$', re.M)


def forget_leaks(machine):
    machine.agent.run(f'echo scan > {LEAKS}; echo clear > {LEAKS}', 240)


def find_leaks(machine):
    """What was lost since, by a module.

    Looks twice: what is on its way is no leak, but looks like one.
    """
    text = machine.agent.run(
        f'echo scan > {LEAKS}; echo scan > {LEAKS}; cat {LEAKS}', 240)
    found = re.split(r'^(?=unreferenced object)', text, flags=re.M)
    return ''.join(leak for leak in found if OURS.search(leak))


def leaks(tap, directory):
    with suite.Guest(directory, 'leaks', suite.HOST + suite.NIC,
                     ['e1000e']) as machine:
        agent = machine.agent
        forget_leaks(machine)
        for _ in range(3):
            machine.load()
            agent.run(f'echo {suite.NET} > {suite.FILES}/track')
            agent.run('rmmod dma_track', 120)
        tap.equal(find_leaks(machine), '',
                  'loaded and unloaded with a host it leaks nothing')
        machine.load()
        agent.run('insmod /bin/dma_track_test.ko run=0; '
                  f'echo 1 > {suite.PARAMETERS}/leak; '
                  'rmmod dma_track_test', 120)
        tap.equal(find_leaks(machine).count('unreferenced object'), 1,
                  'what a module leaked on purpose before it went is found')
        tap.equal(machine.splats(), '', 'leaks: the kernel did not complain')


# --- Races ------------------------------------------------------------------

KCSAN = f'{DEBUG}/kcsan'
# One access in so many is watched, and for how long.
SKIP = 4
WATCH_US = 200
# What is done meanwhile is done so often.
ROUNDS = 2
# What does for others what they could do themselves.
HELPERS = re.compile(r'(__|_)?(mem(set|cpy|move|cmp|chr_inv)|find_|bitmap_|'
                     r'list_|kref_|refcount_|str)')
FRAME = re.compile(r'^(?:\[ *[0-9.]+\])? +([\w.]+)\+0x\w+/0x\w+(?: \[(\w+)\])?')


def find_races(log, module):
    """Reports of KCSAN in which the module itself, or a helper, is one side."""
    found = []
    for report in log.split('=' * 66):
        if 'BUG: KCSAN' not in report:
            continue
        for side in re.split(r' by .* on cpu \d+:', report)[1:]:
            frames = [FRAME.match(line) for line in side.splitlines()[1:]]
            named = [frame for frame in frames
                     if frame and not HELPERS.match(frame[1])]
            if named and named[0][2] == module:
                found.append(report)
                break
    return found


class Raced(suite.Guest):
    """Two processors, which take turns: one sees what the other left.

    Whoever waits in KCSAN for a race lets the other one go on.
    """

    def arguments(self):
        words = super().arguments()
        words[words.index('-smp') + 1] = '2'
        words[words.index('-append') + 1] += ' log_buf_len=16M'
        return words

    def __enter__(self):
        super().__enter__()
        # Only modules are instrumented: they use little data, and seldom.
        self.agent.run(f'''
            cd /sys/module/kcsan/parameters
            echo {SKIP} > skip_watch && echo {WATCH_US} > udelay_task
            echo {WATCH_US} > udelay_interrupt
            echo on > {KCSAN}''')
        return self

    def splats(self):
        log = self.agent.run('dmesg', 240)
        complaints = [line for line in log.splitlines()
                      if re.search(r'WARNING:|BUG: [^K]|Oops', line)]
        return '\n'.join(complaints + find_races(log, 'dma_track'))


def races(tap, directory):
    with Raced(directory, 'races', suite.HOST + suite.NIC + suite.DISK,
               ['dma_track', 'e1000e', 'nvme'], memory=ROOM) as machine:
        agent = machine.agent
        agent.run('insmod /bin/dma_track_test.ko run=0; '
                  'echo online_movable > '
                  '/sys/devices/system/memory/auto_online_blocks')
        others = [agent.start(f'until [ -e /tmp/stop ]; do {script}; done')
                  for script in (
                      f'cat {suite.FILES}/status {suite.FILES}/functions '
                      '> /dev/null',
                      f'cat {suite.FILES}/functions > /dev/null',
                      'dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16 '
                      'iflag=direct 2> /dev/null',
                      f'echo 20 > {suite.PARAMETERS}/pairs')]
        block = suite.plug(machine, 0)
        for number in range(ROUNDS):
            tap.progress(f'round {number}')
            raced_phases(machine)
            raced_drivers(machine)
            raced_restore(machine)
            raced_memory(machine, block)
            raced_host(machine)
        agent.run('touch /tmp/stop')
        tap.equal([other.wait(120) for other in others], [0] * len(others),
                  'all work at once')
        tap.equal(machine.status()['lost'], '0', 'and nothing is lost')
        tap.equal(machine.splats(), '', 'and there is no race')
        tap.note(agent.run(f'head -n 4 {KCSAN}').replace('\n', ' '))
        agent.run(f'echo 2000 > {suite.PARAMETERS}/race', 600)
        tap.ok(find_races(agent.run('dmesg'), 'dma_track_test'),
               'but one that was made on purpose is found',
               agent.run(f'cat {KCSAN}'))


def raced_phases(machine):
    qmp = machine.qmp
    # Slow, so that it does not end by itself.
    qmp.command('migrate-set-parameters', **{'max-bandwidth': 65536})
    for _ in range(3):
        qmp.command('migrate', uri='exec:cat > /dev/null')
        qmp.event('MIGRATION', 60,
                  lambda data: data.get('status') == 'active')
        machine.agent.run(f'echo 20 > {suite.PARAMETERS}/pairs')
        qmp.command('migrate_cancel')
        qmp.event('MIGRATION', 60,
                  lambda data: data.get('status') == 'cancelled')
        guest.wait_until(lambda: machine.status()['phase'] == 'idle',
                         'the guest to stop logging', 30)


def raced_drivers(machine):
    for _ in range(3):
        machine.agent.run('ip link set eth0 up')
        machine.drive('unbind')
        machine.agent.run(f'echo {suite.NET} > {suite.FILES}/track')
        machine.agent.run(f"""
            echo 1 > /sys/bus/pci/devices/{suite.NET}/remove
            echo 1 > /sys/bus/pci/rescan""")


def raced_restore(machine):
    for address in (suite.NET, suite.OTHER):
        name = machine.leave_host()
        machine.replaced(address)
        machine.join_host(name)
        machine.wait_restored('ok', address)


def raced_memory(machine, block):
    for _ in range(3):
        machine.agent.run(f'echo offline > {block}/state; '
                          f'echo online_movable > {block}/state')


def raced_host(machine):
    for _ in range(3):
        machine.join_host(machine.leave_host())


OWN = {'leaks': leaks, 'races': races}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kernel', choices=list(KERNELS))
    parser.add_argument('parts', nargs='*', metavar='PART')
    arguments = parser.parse_args()

    guest.RAM_MIB = RAM_MIB
    suite.ROOM = ROOM
    vm.PATIENCE *= PATIENCE
    tap = Tap()
    splat, plain = suite.SPLAT, suite.Guest
    directory = paths.scratch('debug')
    for name, parts in KERNELS.items():
        if arguments.kernel not in (None, name):
            continue
        suite.Guest = Raced if name == 'debug-races' else plain
        suite.Guest.UNDER_TEST = paths.Kernel(name)
        tap.label = f', {name}'
        for part in arguments.parts or parts:
            tap.progress(part + tap.label)
            test = OWN.get(part) or suite.PARTS[part]
            suite.SPLAT = PRETEND_SPLAT if part in PRETEND else splat
            tap.run(test, tap, directory)
    return tap.done()


if __name__ == '__main__':
    paths.run(main)
