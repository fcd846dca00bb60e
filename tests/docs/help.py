#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Every command of the checkout answers --help, and does nothing else then.

    help.py [COMMAND...]

A command is a script that can be executed, but for those that only a machine
runs. Prints those that do not answer, or not with what they are for.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')

# Nobody runs them but a kernel, an initial RAM disk, or the machine for CI.
NO_COMMANDS = re.compile(
    r'^\.ci/|^guest/kernel/dma-track/initramfs/(?!install)|'
    r'^tests/guest/(programs|boot/initramfs-)')
# Whoever says none of these would do its work instead.
ANSWERS = re.compile(r'argparse|--help')
SECONDS = 60


def commands():
    listed = subprocess.run(
        ['git', 'ls-files', '-s', '--cached', '--others',
         '--exclude-standard'], cwd=ROOT, capture_output=True, text=True,
        check=True).stdout
    for line in listed.split('\n'):
        name = line.split('\t')[-1]
        path = os.path.join(ROOT, name)
        if os.path.isfile(path) and os.access(path, os.X_OK) and \
                not NO_COMMANDS.search(name):
            yield name


def read(path):
    with open(path, encoding='utf-8', errors='replace') as file:
        return file.read()


def fault(name):
    """What is wrong with its answer, or None."""
    path = os.path.join(ROOT, name)
    if not ANSWERS.search(read(path)):
        return 'does not know --help'
    try:
        done = subprocess.run([path, '--help'], capture_output=True, text=True,
                              timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f'is not done with --help after {SECONDS} s'
    words = len(done.stdout.split())
    if done.returncode or words < 5:
        return (f'ends --help with {done.returncode}, {words} words: '
                f'{done.stderr[-200:]}')
    return None


def main():
    if '--help' in sys.argv:
        print(__doc__.strip())
        return 0
    names = sys.argv[1:] or sorted(commands())
    faults = [(name, why) for name in names for why in [fault(name)] if why]
    for name, why in faults:
        print(f'{name}: {why}')
    return 1 if faults or not names else 0


if __name__ == '__main__':
    sys.exit(main())
