#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite debug: the module on kernels that watch it. Prints TAP.

    run.py [--kernel NAME] [PART...]

The parts of suite guest (tests/guest/vm/run.py) that are named in KERNELS, in
guests whose kernels are built for the purpose; each fails if the kernel
complains of anything. And

leaks    nothing is left behind when the module is loaded and unloaded
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
PATIENCE = 4
KERNELS = {
    'debug-memory': ('api', 'leaks'),
}
# The pretend device breaks the rules of the DMA API on purpose, and is told so.
PRETEND = ('api', 'bounce')
PRETEND_SPLAT = r'BUG:|Oops|WARNING: [^C]|WARNING: CPU.* at ([^k]|kernel/[^d])'
LEAKS = '/sys/kernel/debug/kmemleak'


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


OWN = {'leaks': leaks}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kernel', choices=list(KERNELS))
    parser.add_argument('parts', nargs='*', metavar='PART')
    arguments = parser.parse_args()

    guest.RAM_MIB = RAM_MIB
    vm.PATIENCE *= PATIENCE
    tap = Tap()
    splat = suite.SPLAT
    directory = paths.scratch('debug')
    for name, parts in KERNELS.items():
        if arguments.kernel not in (None, name):
            continue
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
