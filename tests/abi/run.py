#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite abi: what guests and hosts of different versions rely on. Prints TAP.

    run.py [--qemu BINARY] [PART...]

layout    sizes, offsets and values of the contract, as compiled
stream    streams that were kept are loaded; see stream.py
features  each side works with one that knows fewer feature bits, or more
"""

import argparse
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'lib'),
                os.path.join(HERE, '..', 'host', 'qtest')]

# pylint: disable=wrong-import-position
import features            # noqa: E402
import paths               # noqa: E402
import stream              # noqa: E402
from tapwriter import Tap  # noqa: E402

HEADERS = ('virtio_dma_track', 'pci_dma_quiesce')
UAPI = os.path.join(paths.ROOT, 'include', 'uapi')
QEMU = os.path.join(paths.CACHE, 'qemu', 'src')


def compiles(compiler, language, standard, headers):
    """Does layout.c, with the headers there? Returns what is wrong."""
    done = subprocess.run(
        [compiler, '-x', language, f'-std={standard}', '-Wall', '-Wextra',
         '-Werror', '-Wpadded', '-fsyntax-only', '-I' + headers,
         os.path.join(HERE, 'layout.c')],
        capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ''


def layout(tap):
    tap.equal(compiles('gcc', 'c', 'c11', UAPI), '',
              'sizes, offsets and values, in C')
    tap.equal(compiles('g++', 'c++', 'c++17', UAPI), '',
              'sizes, offsets and values, in C++')

    missing = [name for name in named() if name not in frozen()]
    tap.equal(missing, [], 'each field and each value is among them')

    # A test that cannot fail proves nothing.
    moved = os.path.join(paths.scratch('abi'), 'linux')
    os.makedirs(moved, exist_ok=True)
    for name in HEADERS:
        with open(os.path.join(moved, name + '.h'), 'w',
                  encoding='utf-8') as file:
            file.write(header(name).replace('__le32 reset_seq;',
                                            '__le64 reset_seq;'))
    tap.ok('reset_seq' in compiles('gcc', 'c', 'c11', os.path.dirname(moved)),
           'a moved field is noticed')

    # The copy in QEMU's tree is made from ours; it may have been edited there.
    for name in HEADERS:
        copy = os.path.join(QEMU, 'include', 'standard-headers', 'linux',
                            name + '.h')
        if not os.path.exists(copy):
            raise paths.Missing(f'no {copy}; run tests/lib/setup.sh qemu')
        with open(copy, encoding='utf-8') as file:
            tap.equal(file.read(), imported(header(name)),
                      f"QEMU's imported copy of {name}.h has not drifted")


def named():
    """What the headers define: values, and struct.field."""
    for name in HEADERS:
        text = re.sub(r'/\*.*?\*/', '', header(name), flags=re.S)
        yield from re.findall(r'^#define\s+((?!_)\w+)[(\s]', text, re.M)
        for struct, body in re.findall(r'^struct (\w+) \{(.*?)^\};', text,
                                       re.M | re.S):
            # What is reserved is so many bytes, and the size has those.
            for field in re.findall(r'(\w+)(?:\[\w+\])?;', body):
                if not field.startswith('reserved'):
                    yield f'{struct}.{field}'


def frozen():
    """What layout.c says of them."""
    with open(os.path.join(HERE, 'layout.c'), encoding='utf-8') as file:
        text = file.read()
    return set(re.findall(r'VALUE\((\w+)', text)) | {
        f'{struct}.{field}' for struct, field in
        re.findall(r'FIELD\((\w+),\s*(\w+)', text)}


def header(name):
    with open(os.path.join(UAPI, 'linux', name + '.h'),
              encoding='utf-8') as file:
        return file.read()


def imported(text):
    """As qemu-tree.sh puts it into QEMU's tree."""
    text = re.sub(r'__le(\d+)', r'uint\1_t', text)
    return re.sub(r'<linux/([^>]*)>', r'"standard-headers/linux/\1"', text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--qemu', help='qemu-system-x86_64 with our series')
    parser.add_argument('parts', nargs='*', metavar='PART')
    arguments = parser.parse_args()
    parts = {'layout': layout,
             'stream': lambda tap: stream.run(tap, arguments.qemu),
             'features': lambda tap: features.run(tap, arguments.qemu)}
    unknown = set(arguments.parts) - set(parts)
    if unknown:
        parser.error(f'no such part: {" ".join(sorted(unknown))}')
    tap = Tap()
    for name in arguments.parts or parts:
        tap.progress(name)
        tap.run(parts[name], tap)
    return tap.done()


if __name__ == '__main__':
    paths.run(main)
