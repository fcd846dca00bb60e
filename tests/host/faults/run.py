#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite faults: what can go wrong with a migration, with real guests.

    run.py [PART[.CASE] ...]

Prints TAP. Guests under TCG with emulated devices; see journey.py.
"""

import importlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'emulated'),
                os.path.join(HERE, '..', '..', 'lib')]

# pylint: disable=wrong-import-position
import paths  # noqa: E402
from tapwriter import Tap  # noqa: E402

PARTS = ('survives', 'misbehaves')
# Too long for every change: destination and ways, which are suites.


def main():
    if '--help' in sys.argv:
        print(__doc__.strip())
        return 0
    tap = Tap()
    directory = paths.scratch('faults')
    for name in sys.argv[1:] or PARTS:
        part, _, case = name.partition('.')
        tap.progress(part)
        tap.run(importlib.import_module(part).run, tap, directory, case)
    return tap.done()


if __name__ == '__main__':
    paths.run(main)
