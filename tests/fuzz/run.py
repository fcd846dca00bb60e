#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite fuzz: virtio-dma-track against any guest, any stream. Prints TAP.

    run.py [--seconds N] [--keep]

Builds device.c, which holds the device's own source, with AddressSanitizer,
UndefinedBehaviorSanitizer and libFuzzer; tells it the stories of corpus.txt,
and stories of a guest that does as it should; then lets it make up its own.
`make fuzz` does so for ten minutes. --keep writes what was found worth keeping
back to corpus.txt.

Last, checks are taken out of the device one by one: that has to be found.
"""

import argparse
import os
import re
import shutil
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))

# pylint: disable=wrong-import-position
import paths               # noqa: E402
from tapwriter import Tap  # noqa: E402

CORPUS = os.path.join(HERE, 'corpus.txt')
FILES = os.path.join(paths.ROOT, 'host', 'qemu-patch', 'files')
DEVICE, SECTIONS = (os.path.join('hw', 'virtio', f'virtio-dma-track{name}.c')
                    for name in ('', '-sections'))
TREE = os.path.join(paths.CACHE, 'qemu', 'src')
BUILD = os.path.join(paths.CACHE, 'qemu', 'build')
LONGEST = 4096
# Longer ones are not worth their place in the repository.
KEPT = 240

# The file, what is taken out of it, and by which fault that is found.
MUTANTS = (
    (DEVICE, ' || index >= VIRTIO_DMA_TRACK_MAX_FUNCTIONS', '',
     'out of bounds'),
    (SECTIONS, '        if (page < m->nr_pages) {', '        if (true) {',
     'AddressSanitizer'),
    (SECTIONS, 'UINT64_MAX << (first % 64)', 'UINT64_MAX << (64 - first % 64)',
     'runtime error: shift exponent'),
    (DEVICE, 'if (size - head_size < payload_size) {', 'if (0) {',
     'Assertion'),
    (DEVICE, 'if (generation != fn->generation) {\n        '
     'virtio_dma_track_respond', 'if (0) {\n        virtio_dma_track_respond',
     'Assertion'),
)


def build(program, files=FILES):
    """Compile device.c with the device in that folder."""
    glib = subprocess.run(['pkg-config', '--cflags', '--libs', 'glib-2.0'],
                          capture_output=True, text=True, check=True)
    command = ['clang', '-g', '-O1', '-fsanitize=fuzzer,address,undefined',
               '-fno-sanitize-recover=undefined', '-w', '-std=gnu11',
               '-D_GNU_SOURCE', '-D_FILE_OFFSET_BITS=64',
               '-fno-strict-aliasing', '-fwrapv', '-DCONFIG_SOFTMMU',
               '-DCOMPILING_SYSTEM_VS_USER',
               '-iquote', files, '-iquote', os.path.join(files, 'include'),
               '-Ilibsystem.a.p', '-I.', '-Iqapi', '-Itrace',
               '-isystem', os.path.join(TREE, 'linux-headers')]
    for folder in ('', 'include', 'host/include/x86_64',
                   'host/include/generic', 'hw/virtio'):
        command += ['-iquote', os.path.join(TREE, folder)]
    command += [os.path.join(HERE, 'device.c'), '-o', program]
    made = subprocess.run(command + glib.stdout.split(), cwd=BUILD,
                          capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(made.stderr[-3000:])


def request(kind, payload, entries=1, reserved=0, room=8):
    """A step: a request in two parts."""
    data = struct.pack('<HHI', kind, reserved, entries) + payload
    return struct.pack('<BHBH', 0, len(data), room, 8) + data


def good_stories():
    """What a good guest does, and what may happen to it."""
    setup = request(1, struct.pack('<Q', 0x1000))
    publish = request(2, struct.pack('<IIQQ', 0, 0, 0x2000, 0x3000)
                      + struct.pack('<IIQQ', 1, 0, 0x8000000, 0x8001000)
                      + struct.pack('<IIQQ', 0x20, 0, 0x100004000,
                                    0x100005000), 3)
    withdraw = request(3, struct.pack('<IIII', 0, 0, 1, 0), 2)
    entries = b'\6\0\x10' + struct.pack('<I', 0x1040) + struct.pack(
        '<IHHIHH', 8, 2, 0, 9, 3, 1)
    planes = b'\6\0\xff' + struct.pack('<I', 0x2000) + b'\xff' * 255 + \
        b'\6\0\xff' + struct.pack('<I', 0x3000) + b'\xa5' * 255
    function = request(4, struct.pack('<II', 1, 0))
    ack = request(5, struct.pack('<II', 1, 0))
    alive = request(6, struct.pack('<II', 0, 0))
    unfence = request(7, struct.pack('<II', 9, 0))
    restored = request(8, struct.pack('<IIII', 9, 0, 0, 0))
    begin = setup + publish + entries + planes + function
    look, pinned, run, log = b'\x0a', b'\x09', b'\7', b'\x08'
    stream = b'\x0d' + struct.pack('<IIIIIII', 0, 1, 1, 0, 0, 0, 0) + b'\1' \
        + struct.pack('<QI', 0x1000, 2) \
        + struct.pack('<IQQ', 0, 0x2000, 0x3000) \
        + struct.pack('<IQQ', 0x20, 0x100004000, 0x100005000)
    yield begin + look + pinned + withdraw + look
    yield begin + log + ack + pinned + alive + run + pinned + run + log + look
    yield begin + unfence + look + b'\x0e\0\0' + restored + look
    yield begin + unfence + b'\x0e\1' + unfence + b'\x0e\0\1' + b'\x0f\1'
    yield begin + unfence + b'\x0b' + b'\x0e\0\0' + begin + look
    yield begin + b'\x0c\1\1' + pinned + look + b'\x0c\2\2\x0f' + pinned
    yield stream + run + run + look + pinned + unfence + alive
    # Frames of the second word, in memory that loses its last pages.
    yield begin + b'\6\1\x08' + struct.pack('<I', 8) + b'\xff' * 8 + pinned \
        + b'\x0c\1\2\x0f' + pinned + look
    yield begin + request(4, struct.pack('<II', 0x10000, 0))
    yield request(2, b'') + request(99, b'') + request(5, b'', 0)


def fuzz(program, folder, *options):
    """Run it; return its exit status and what it prints."""
    result = subprocess.run(
        [program, f'-max_len={LONGEST}', '-timeout=20', '-print_final_stats=1',
         f'-artifact_prefix={os.path.dirname(program)}/', *options, *folder],
        capture_output=True, text=True, errors='replace', check=False)
    return result.returncode, result.stderr


def unpack(folder):
    """corpus.txt and the good stories, a file each; returns how many."""
    os.makedirs(folder)
    with open(CORPUS, encoding='ascii') as file:
        stories = [bytes.fromhex(line) for line in file
                   if not line.startswith('#')]
    stories += list(good_stories())
    for number, story in enumerate(stories):
        with open(os.path.join(folder, f'{number:04}'), 'wb') as file:
            file.write(story)
    return len(stories)


def keep(program, work, corpus):
    """The fewest stories that reach what all of them reach, back to text."""
    merged = os.path.join(work, 'merged')
    os.makedirs(merged)
    fuzz(program, [merged, corpus], '-merge=1')
    stories = []
    for name in os.listdir(merged):
        with open(os.path.join(merged, name), 'rb') as file:
            story = file.read().hex()
        if len(story) <= 2 * KEPT:
            stories.append(story)
    with open(CORPUS, encoding='ascii') as file:
        head = [line for line in file if line.startswith('#')]
    with open(CORPUS, 'w', encoding='ascii') as file:
        file.writelines(head)
        file.writelines(story + '\n' for story in
                        sorted(stories, key=lambda one: (len(one), one)))


def mutant(tap, work, corpus, change):
    """A device without one of its checks: that is found."""
    source, old, new, words = change
    files = os.path.join(work, 'mutant')
    shutil.copytree(FILES, files)
    path = os.path.join(files, source)
    with open(path, encoding='utf-8') as file:
        text = file.read()
    program = os.path.join(work, 'mutant-device')
    found, output = 0, f'{text.count(old)} times in the source: {old}'
    if text.count(old) == 1:
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text.replace(old, new))
        build(program, files)
        found, output = fuzz(program, [corpus], '-max_total_time=60',
                             '-seed=1')
    tap.ok(found and re.search(words, output),
           'found when it is taken out: ' + ' '.join(old.split()),
           output[-2000:])
    shutil.rmtree(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--seconds', type=int, default=30)
    parser.add_argument('--keep', action='store_true')
    arguments = parser.parse_args()
    if not os.path.exists(os.path.join(BUILD, 'config-host.h')):
        raise paths.Missing(f'no QEMU in {BUILD}; run tests/lib/setup.sh qemu')
    tap = Tap()
    work = paths.scratch('fuzz')
    program, corpus = os.path.join(work, 'device'), os.path.join(work, 'corpus')
    build(program)
    number = unpack(corpus)
    status, output = fuzz(program, [corpus], '-runs=0')
    tap.ok(not status, f'{number} stories told', output[-4000:])
    status, output = fuzz(program, [corpus],
                          f'-max_total_time={arguments.seconds}')
    runs = re.search(r'number_of_executed_units: (\d+)', output)
    covered = re.findall(r'cov: (\d+)', output)
    tap.ok(not status and runs,
           f'{arguments.seconds} s of stories made up: nothing found',
           output[-4000:])
    tap.note(f'{runs and runs[1]} stories, {covered and covered[-1]} edges')
    if arguments.keep:
        keep(program, work, corpus)
    for change in MUTANTS:
        tap.run(mutant, tap, work, corpus, change)
    return tap.done()


if __name__ == '__main__':
    paths.run(main)
