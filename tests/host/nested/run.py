#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run the nested tests over one test bed; prints TAP.

    run.py [-l] [--quiesce | --host SERIES] [FILE[.TEST] ...]

Without arguments all of them; -l lists them. With --quiesce those that need
functions with ring flush, and iommufd. With --host those for a host with an old
kernel: that of SERIES, such as 6.1, in kernels.txt. See ../../lib/bed.py.
"""

import argparse
import importlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', '..', 'lib')]

# pylint: disable=wrong-import-position
import bed  # noqa: E402
import paths  # noqa: E402
import tapwriter  # noqa: E402
import vm  # noqa: E402

FILES = ('refusal', 'capability', 'moves', 'stock_edu', 'fence', 'survival',
         'replug', 'switchover', 'destination')
QUIESCE_FILES = ('quiesce', 'peers', 'interrupts', 'disk', 'native', 'paused')
HOST_FILES = ('old_host',)


def all_tests(files):
    """[(name, function)] in the order in which they run."""
    return [(f'{file}.{test.__name__}', test) for file in files
            for test in importlib.import_module(file).TESTS]


def chosen(files, names):
    return [(name, test) for name, test in all_tests(files)
            if not names or name in names or name.split('.')[0] in names]


def make_bed(progress, arguments):
    """The test bed that these tests need."""
    if arguments.quiesce:
        return bed.Bed(progress, iommufd=True, flush=True, disk=True,
                       peer=True, native=True)
    if arguments.host:
        return bed.Bed(progress, l1_kernel=paths.kernel_of(arguments.host),
                       flush=True)
    return bed.Bed(progress)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('-l', '--list', action='store_true')
    parser.add_argument('--quiesce', action='store_true')
    parser.add_argument('--host', metavar='SERIES')
    parser.add_argument('--qemu', help='the emulator with our series')
    parser.add_argument('tests', nargs='*')
    arguments = parser.parse_args()
    files = FILES
    if arguments.quiesce:
        files = QUIESCE_FILES
    elif arguments.host:
        files = HOST_FILES
    tests = chosen(files, arguments.tests)
    if arguments.list:
        print('\n'.join(name for name, _ in tests))
        return 0
    if not tests:
        parser.error(f'no such test: {" ".join(arguments.tests)}')
    if arguments.qemu:
        os.environ['DMA_TRACK_QEMU'] = os.path.abspath(arguments.qemu)
    tap = tapwriter.Tap()
    try:
        with make_bed(tap.progress, arguments) as test_bed:
            for name, test in tests:
                tap.progress(name)
                failed = tap.failed
                tap.run(test, test_bed, tap)
                if tap.failed != failed:
                    test_bed.keep = True
                    tap.note(test_bed.describe_guests())
                test_bed.stop_guests()
            tap.equal(test_bed.trouble(), [], 'no trouble in the log of L1')
    except (paths.Missing, vm.Timeout, vm.Gone, OSError) as error:
        print(f'Bail out! {error}')
        return 1
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
