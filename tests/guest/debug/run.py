#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite debug: the module on kernels that watch it. Prints TAP.

    run.py [--kernel NAME] [PART...]

The parts of suite guest (tests/guest/vm/run.py) that are named in KERNELS, in
guests whose kernels are built for the purpose; each fails if the kernel
complains of anything. And

leaks    nothing is left behind when the module is loaded and unloaded
faults   whichever allocation fails of those for loading, probing and adding
         memory, they fail as a whole, or work
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
    'debug-memory': ('api', 'bounce', 'load', 'devices', 'drivers', 'restore',
                     'phases', 'memory', 'leaks', 'faults'),
    'debug-races': ('races', 'api', 'devices', 'restore', 'phases'),
}
# The pretend device breaks the rules of the DMA API on purpose, and is told so.
PRETEND = ('api', 'bounce')
PRETEND_SPLAT = r'BUG:|Oops|WARNING: [^C]|WARNING: CPU.* at ([^k]|kernel/[^d])'
DEBUG = '/sys/kernel/debug'
LEAKS = f'{DEBUG}/kmemleak'


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f'got {got!r}, wanted {wanted!r}')


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


def find_leak_on_purpose(tap, machine):
    machine.agent.run(f'echo 1 > {suite.PARAMETERS}/leak; '
                      'rmmod dma_track_test', 120)
    tap.equal(find_leaks(machine).count('unreferenced object'), 1,
              'what a module leaked on purpose before it went is found')


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
        agent.run('insmod /bin/dma_track_test.ko run=0')
        find_leak_on_purpose(tap, machine)
        tap.equal(machine.splats(), '', 'leaks: the kernel did not complain')


# --- Faults -----------------------------------------------------------------

# Nobody here allocates so often.
MANY = 1000000


class Fault:
    """Something that is tried with one allocation after the other failing.

    what: words for the program nth
    state: a script that prints what there is to see
    undo: a script, for what has worked
    """

    def __init__(self, machine, what, state, undo):
        self.machine = machine
        self.what = what
        self.state = state
        self.undo = undo
        self.total = self.failed = self.survived = 0

    def look(self):
        return self.machine.agent.run(self.state)

    def once(self, number):
        """The error, or 0; what was left to count; what there is to see."""
        first, _, rest = self.machine.agent.run(
            f'nth {number} {self.what} || exit; {self.state}',
            240).partition('\n')
        error, left = first.split()
        return int(error), int(left), rest

    def run(self, is_done, choose=None):
        """Each of them in turn, or those that are chosen of their number.

        is_done: of what there is to see.
        """
        before = self.look()
        error, left, after = self.once(MANY)
        expect((error, is_done(after)), (0, True))
        self.machine.agent.run(self.undo, 240)
        expect(self.look(), before)
        self.total = MANY - left
        for number in choose(self.total) if choose else range(1, MANY):
            error, left, after = self.once(number)
            if error:
                self.failed += 1
                if after != before:
                    raise AssertionError(
                        f'without allocation {number}: error {error} leaves '
                        f'{after!r}, wanted {before!r}')
                continue
            if not is_done(after):
                raise AssertionError(
                    f'without allocation {number}: it works, but: {after!r}')
            self.machine.agent.run(self.undo, 240)
            expect(self.look(), before)
            if left:
                break
            self.survived += 1

    def figures(self):
        return (f'{self.total} allocations, {self.failed + self.survived} of '
                f'them failed: then it failed {self.failed} times, and worked '
                f'{self.survived} times')


def fail_below(machine, function=None):
    """Only allocations on behalf of that function fail, or all of the task."""
    first, end = 0, -1
    if function:
        # Names of a kind follow each other; a module's end with its name.
        addresses = machine.agent.run(
            'sort /proc/kallsyms | grep -i " t " | '
            f'grep -A 1 " {function}\\>" | cut -d " " -f 1').split()
        first, end = (int(address, 16) for address in addresses[:2])
    machine.agent.run(f"""
        for kind in failslab fail_page_alloc; do
            cd {DEBUG}/$kind
            echo 0 > verbose && echo N > ignore-gfp-wait
            echo 32 > stacktrace-depth
            echo {first:#x} > require-start
            echo {end & 0xffffffffffffffff:#x} > require-end
        done
        echo N > ignore-gfp-highmem && echo 0 > min-order""")


def own_splats(machine):
    """Without what the kernel says of its own files of an interrupt.

    When it could not make one, it complains that it cannot take it away.
    """
    return machine.agent.run(
        'dmesg | grep -E "WARNING:|BUG:|Oops" | '
        'grep -v "WARNING: .* remove_proc_entry" || true')


def faults(tap, directory):
    with suite.Guest(directory, 'faults', suite.HOST + suite.NIC,
                     ['e1000e'], memory=ROOM) as machine:
        machine.agent.run(f"""
            mount -t tracefs t {suite.TRACING}
            echo online_movable > \
                /sys/devices/system/memory/auto_online_blocks""")
        forget_leaks(machine)
        tap.progress('load_faults')
        tap.run(load_faults, tap, machine)
        machine.load()
        machine.agent.run('insmod /bin/dma_track_test.ko run=0')
        for test in (probe_faults, driver_faults, publish_faults,
                     online_faults):
            tap.progress(test.__name__)
            tap.run(test, tap, machine)
        tap.equal(find_leaks(machine), '', 'faults: nothing is leaked')
        # Or else it has given up, for want of memory of its own.
        find_leak_on_purpose(tap, machine)
        tap.equal(own_splats(machine), '',
                  'faults: the kernel did not complain')


def most_of_load(total):
    """All at the beginning and at the end, and some of each hook in between.

    Its steps are the same for each: a prime number meets them all.
    """
    return sorted({*range(1, min(total, 40)), *range(40, total, 23),
                   *range(max(1, total - 20), total + 1)})


def load_faults(tap, machine):
    """What dma_track_init() allocates, or has allocated."""
    fail_below(machine, 'do_one_initcall')
    fault = Fault(
        machine, 'load /bin/dma_track.ko',
        f"""cat {suite.TRACING}/enabled_functions
        ls /sys/kernel/debug/dma_track /sys/bus/virtio/drivers
        grep -o "^dma_track " /proc/modules
        cat {suite.FILES}/status; true""", 'rmmod dma_track')

    def is_done(text):
        # Without files in debugfs it works as well.
        return 'dma_track ' in text and 'lost: ' not in text or \
            'hooks_intact: 1' in text and 'lost: 0' in text

    fault.run(is_done, most_of_load)
    tap.ok(fault.failed > 20, 'a load that fails leaves nothing behind',
           fault.figures())
    tap.note(fault.figures())


def probe_faults(tap, machine):
    """The host's device."""
    fail_below(machine)
    name = machine.leave_host()
    fault = Fault(
        machine, f'write /sys/bus/virtio/drivers/dma_track/bind {name}',
        f'grep -E "connected|phase:|intact|lost" {suite.FILES}/status; '
        'ls /sys/bus/virtio/drivers/dma_track',
        f'echo {name} > /sys/bus/virtio/drivers/dma_track/unbind')

    def is_done(text):
        return 'connected: 1' in text and 'lost: 0' in text and \
            suite.sections(machine) > 0

    fault.run(is_done)
    tap.equal((fault.failed > 5, suite.sections(machine)), (True, 0),
              'a probe that fails leaves the host alone')
    tap.note(fault.figures())
    machine.join_host(name)


def driver_faults(tap, machine):
    """What our notifier allocates for a function that comes, with its driver.

    The rest of the kernel does not survive each of its own failures.
    """
    fail_below(machine, 'bus_notify[[:space:]]*.dma_track')
    machine.agent.run(f'echo 1 > /sys/bus/pci/devices/{suite.NET}/remove')
    states = set()
    fault = Fault(
        machine, 'write /sys/bus/pci/rescan 1',
        f'grep {suite.NET} {suite.FILES}/functions | cut -d " " -f 1-3; '
        f'grep -E "lost|pinned|unknown|undirtied|saturated" '
        f'{suite.FILES}/status',
        f'echo 1 > /sys/bus/pci/devices/{suite.NET}/remove')

    def is_done(text):
        states.add(' '.join(text.split()[1:3]))
        return 'lost: 0' in text

    fault.run(is_done)
    machine.agent.run('echo 1 > /sys/bus/pci/rescan')
    # What fails when it comes is tried again for its driver.
    tap.ok(fault.survived > 1 and
           states <= {'tracked -', 'untracked no-resources'},
           'a function that comes is tracked, or it is said why not',
           str(states))
    tap.note(f'{fault.figures()}; {states}')


def publish_faults(tap, machine):
    """What our notifier allocates, each time for memory that is new."""
    fail_below(machine, 'hotplug_notify')
    machine.agent.run(
        'echo offline > /sys/devices/system/memory/auto_online_blocks')
    number = left = 0
    failed = []
    while not left:
        before = suite.sections(machine)
        block = suite.plug(machine, number, online=False)
        number += 1
        error, left = map(int, machine.agent.run(
            f'nth {number} write {block}/state online_movable', 240).split())
        state = machine.agent.run(f'cat {block}/state').strip()
        expect((state, suite.sections(machine) - before,
                machine.status()['lost']),
               ('offline', 0, '0') if error else ('online', 1, '0'))
        if error:
            failed.append(number)
            machine.agent.run(f'echo online_movable > {block}/state')
            expect(suite.sections(machine), before + 1)
    tap.ok(len(failed) > 2,
           'memory that cannot be published stays offline, until it can',
           str(failed))
    tap.note(f'{number - 1} allocations: without {failed} it fails')


def online_faults(tap, machine):
    """All of what is allocated when memory is brought online."""
    fail_below(machine)
    block = machine.agent.run(
        'ls -d /sys/devices/system/memory/memory* | sort -V | tail -n 1'
        ).strip()
    machine.agent.run(f'echo offline > {block}/state')
    before = suite.sections(machine)
    fault = Fault(machine, f'write {block}/state online_movable',
                  f'cat {block}/state; grep lost {suite.FILES}/status',
                  f'echo offline > {block}/state')

    def is_done(text):
        return text.split() == ['online', 'lost:', '0'] and \
            suite.sections(machine) == before + 1

    fault.run(is_done)
    tap.equal((fault.failed > 2, suite.sections(machine)), (True, before),
              'nor is it published when something else fails')
    tap.note(fault.figures())


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


OWN = {'leaks': leaks, 'faults': faults, 'races': races}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kernel', choices=list(KERNELS))
    parser.add_argument('parts', nargs='*', metavar='PART')
    arguments = parser.parse_args()

    guest.RAM_MIB = RAM_MIB
    suite.ROOM = ROOM
    # nvme of 6.12 freezes its queues in one task and thaws them in another,
    # and does not tell lockdep, which then takes that for a lock left behind.
    suite.DISK_RESTORES = [restore for restore in suite.DISK_RESTORES
                           if restore[0] != 'nvme']
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
