#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Test virtio-dma-track and migration's use of it against a guest that we play.

    run.py [--qemu BINARY] [TEST...]

There is no guest: the vCPU executes nothing, and the test writes memory and
registers in its place. So it can say what no good guest says. Writes TAP.
"""

import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', '..', 'lib')]

# pylint: disable=wrong-import-position
import device                 # noqa: E402
import eligibility            # noqa: E402
import hostile_stream         # noqa: E402
import paths                  # noqa: E402
import phases                 # noqa: E402
import pinned                 # noqa: E402
import quiesce                # noqa: E402
import vetoes                 # noqa: E402
from bench import Bench       # noqa: E402

TESTS = [test for module in (device, pinned, phases, hostile_stream, quiesce,
                             eligibility, vetoes) for test in module.TESTS]


def main():
    """Run the tests named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--qemu', help='qemu-system-x86_64 with our series')
    parser.add_argument('tests', nargs='*', metavar='TEST')
    arguments = parser.parse_args()
    names = {'test_' + name.removeprefix('test_') for name in arguments.tests}

    try:
        bench = Bench(os.path.abspath(arguments.qemu or paths.qemu()))
    except paths.Missing as missing:
        print('Bail out! ' + str(missing))
        return 1
    try:
        for test in TESTS:
            if not names or test.__name__ in names:
                bench.run(test)
    finally:
        bench.close()
    return bench.tap.done()


if __name__ == '__main__':
    sys.exit(main())
