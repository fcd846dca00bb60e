#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite emulated: guests under TCG with emulated devices. Prints TAP.

    run.py [PART...]

judge       the test device and its judge, on which the others rest
hidden      what a device writes unseen is lost, or not
mail        packets that a stock network driver has received
flush       functions that move by ring flush
flush-full  the same for long; only if it is named
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                '..', '..', 'lib'))

# pylint: disable=wrong-import-position
import paths   # noqa: E402
import flush   # noqa: E402
import hidden  # noqa: E402
import judge   # noqa: E402
import mail    # noqa: E402
from tapwriter import Tap  # noqa: E402

# The judge first: the others rest on it.
PARTS = {'judge': judge.run, 'hidden': hidden.run, 'mail': mail.run,
         'flush': flush.run}
# Too long for every change.
FULL_PARTS = {'flush-full': flush.run_full}


def main():
    if '--help' in sys.argv:
        print(__doc__.strip())
        return 0
    tap = Tap()
    directory = paths.scratch('emulated')
    for name in sys.argv[1:] or PARTS:
        tap.progress(name)
        tap.run({**PARTS, **FULL_PARTS}[name], tap, directory)
    return tap.done()


if __name__ == '__main__':
    paths.run(main)
