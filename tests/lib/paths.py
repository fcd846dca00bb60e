# SPDX-License-Identifier: GPL-2.0-only
"""Where things are: the checkout, the cache, what setup.sh has put into it."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
CACHE = os.environ.get('DMA_TRACK_CACHE') or os.path.expanduser(
    '~/.cache/dma-track')
BUILD = os.path.join(ROOT, 'build')

# Searched in this order by QEMU, for its own blobs as packaged by Debian.
FIRMWARE = ('/usr/share/seabios', '/usr/share/qemu', '/usr/lib/ipxe/qemu')

# This machine, always under TCG unless the user knows better: that /dev/kvm
# opens does not mean that it can nest, or that it works at all.
ACCEL = os.environ.get('DMA_TRACK_ACCEL', 'tcg')


class Missing(Exception):
    """Something that set-up should have made is not there; str() says what."""


def qemu():
    """The emulator with our series."""
    path = os.environ.get('DMA_TRACK_QEMU') or os.path.join(
        CACHE, 'qemu', 'build', 'qemu-system-x86_64')
    if not os.access(path, os.X_OK):
        raise Missing(f'no QEMU at {path}; run tests/lib/setup.sh qemu')
    return path


def kernels():
    """Kernel directories of kernels.txt, in its order: [(pinned, root)].

    DMA_TRACK_KERNELS names another list.
    """
    listed = []
    with open(os.environ.get('DMA_TRACK_KERNELS') or
              os.path.join(ROOT, 'tests', 'guest', 'kernels.txt'),
              encoding='utf-8') as file:
        for line in file:
            words = line.split('#')[0].split()
            if words:
                listed.append(words[0])
    return [(name, os.path.join(CACHE, 'kernels', name, 'root'))
            for name in listed]


def debug_kernels():
    """Those that tests/lib/setup.sh debug builds: [(name, root)]."""
    return [(name, os.path.join(CACHE, 'kernels', name, 'root'))
            for name in ('debug-memory', 'debug-races')]


class Kernel:
    """An unpacked Debian kernel: image, modules, headers to build against."""

    def __init__(self, pinned=None):
        found = [(name, root) for name, root in kernels()
                 if pinned in (None, name)] or [
                     (name, root) for name, root in debug_kernels()
                     if pinned == name]
        if not found:
            raise Missing(f'kernel {pinned} is not in kernels.txt')
        name, self.root = found[0]
        self.pinned = name
        modules = os.path.join(self.root, 'lib', 'modules')
        if not os.path.isdir(modules):
            raise Missing(f'kernel {name} is not unpacked in {self.root}; '
                          'run tests/lib/setup.sh kernel')
        # The mirror may have had a newer one than the one that was pinned.
        self.release = sorted(os.listdir(modules))[-1]
        self.modules = os.path.join(modules, self.release)
        self.image = os.path.join(self.root, 'boot',
                                  'vmlinuz-' + self.release)
        if not os.path.exists(self.image):
            # Where newer packages have it.
            self.image = os.path.join(self.modules, 'vmlinuz')


def kernel_of(series):
    """The kernel of kernels.txt whose release begins so, such as 6.1."""
    for name, _ in kernels():
        if name.startswith(series + '.'):
            return Kernel(name)
    raise Missing(f'no kernel {series} in kernels.txt')


def scratch(name):
    """A fresh directory for what one run leaves behind, such as logs."""
    base = os.path.join(BUILD, 'run')
    os.makedirs(base, exist_ok=True)
    path = os.path.join(base, f'{name}-{os.getpid()}')
    os.makedirs(path, exist_ok=True)
    return path


def explain(error):
    """End the program with one line that says what is wrong."""
    print(f'{os.path.basename(sys.argv[0])}: {error}', file=sys.stderr)
    sys.exit(1)


def run(main):
    """Run a program and end with its status, or say what is missing."""
    try:
        sys.exit(main())
    except Missing as error:
        explain(error)
