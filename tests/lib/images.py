# SPDX-License-Identifier: GPL-2.0-only
"""Initial RAM file systems for both levels of guests, and what goes into them.

Whatever is built here is kept in the cache under a hash of everything that it
was made of, so nothing is built twice and nothing stale is used.
"""

import fcntl
import hashlib
import lzma
import os
import shutil
import stat
import subprocess
import tempfile
import time

import paths

IMAGES = os.path.join(paths.CACHE, 'images')
KBUILD = os.path.join(paths.ROOT, 'tests', 'lib', 'kbuild.sh')
PROGRAMS = os.path.join(paths.ROOT, 'tests', 'guest', 'programs')

# Modules of Debian's kernel that the machine's guest (L1) works with.
L1_MODULES = ('igb', 'vfio-pci', 'vfio_iommu_type1', 'kvm-amd')
# ... and with iommufd: what a device that VFIO can migrate is made with.
MDEV_MODULES = ('mdev',)
# ... and the guest that moves (L2).
L2_MODULES = ('igbvf', 'nvme')
# How a guest reaches its agent, where that is not built in.
PORT_MODULES = ('virtio_pci', 'virtio_console')
# Where guest code may look for headers: the contract, and the registers of the
# test device, which its emulation describes.
HEADERS = ('include/uapi', 'host/qemu-patch/files/include/hw/misc')


def _digest(*parts):
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode()
        digest.update(len(part).to_bytes(8, 'little'))
        digest.update(part)
    return digest.hexdigest()[:20]


def _read(path):
    try:
        with open(path, 'rb') as file:
            return file.read()
    except FileNotFoundError:
        raise paths.Missing(f'no file {path}; run tests/lib/setup.sh all'
                            ) from None


def _run(arguments, **options):
    """Run a build step quietly; if it fails, its output is the error."""
    try:
        done = subprocess.run(arguments, stdout=subprocess.PIPE, check=False,
                              stderr=subprocess.STDOUT, **options)
    except FileNotFoundError:
        raise paths.Missing(f'no program {arguments[0]}; run '
                            'tests/lib/setup.sh packages') from None
    if done.returncode:
        raise paths.Missing(f'{" ".join(arguments[:6])} failed:\n' +
                            done.stdout.decode(errors='replace')[-3000:])


def cached(name, build):
    """The file IMAGES/name; build(path) makes it if it is not there."""
    path = os.path.join(IMAGES, name)
    if os.path.exists(path):
        os.utime(path)
        return path
    os.makedirs(IMAGES, exist_ok=True)
    # Suites that run at the same time want the same images.
    with open(path + '.lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            with tempfile.TemporaryDirectory(dir=IMAGES) as work:
                partial = os.path.join(work, 'new')
                build(partial)
                os.rename(partial, path)
    return path


# --- Things that are compiled ---------------------------------------------

def program(name):
    """A static program of tests/guest/programs."""
    source = os.path.join(PROGRAMS, name + '.c')

    def build(path):
        _run(['gcc', '-O2', '-Wall', '-Wextra', '-static', '-o', path,
              source])

    return cached(f'{name}-{_digest(_read(source))}', build)


def _tree(*directories):
    """All source files below directories of the checkout: [(path, data)]."""
    found = []
    for directory in directories:
        top = os.path.join(paths.ROOT, directory)
        for base, dirs, names in os.walk(top):
            dirs[:] = sorted(d for d in dirs if not d.startswith('.'))
            for name in sorted(names):
                if name.endswith(('.c', '.h')) or name in (
                        'Kbuild', 'Makefile'):
                    if not name.endswith('.mod.c'):
                        path = os.path.join(base, name)
                        found.append((os.path.relpath(path, paths.ROOT),
                                      _read(path)))
    return found


def modules(kernel, rooms):
    """Build kernel modules, each of which may use those before it.

    rooms: {name: directory}. Returns {name: path of the module}, stripped of
    what only a debugger reads.
    """
    files = _tree(*HEADERS, *rooms.values())
    key = _digest(kernel.release, *(part for file in files for part in file))

    def build(path):
        with tempfile.TemporaryDirectory() as work:
            for relative, data in files:
                target = os.path.join(work, relative)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, 'wb') as file:
                    file.write(data)
            os.mkdir(path)
            for name, directory in rooms.items():
                _run([KBUILD, kernel.pinned, work, directory, '-j2'])
                built = os.path.join(path, name + '.ko')
                shutil.copy(os.path.join(work, directory, name + '.ko'), built)
                _run(['strip', '--strip-debug', built])

    directory = cached(f'{"-".join(rooms)}-{key}', build)
    return {name: os.path.join(directory, name + '.ko') for name in rooms}


def module(kernel, directory, name):
    """Build one kernel module; return its path."""
    return modules(kernel, {name: directory})[name]


# --- cpio -------------------------------------------------------------------

class Tree:
    """The contents of an archive: path -> (mode, data)."""

    def __init__(self):
        self.entries = {}

    def directory(self, path):
        path = path.strip('/')
        if not path or path in self.entries:
            return
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFDIR | 0o755, b'')

    def file(self, path, data, mode=0o644):
        path = path.strip('/')
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFREG | mode, data)

    def copy(self, path, source, mode=0o644):
        self.file(path, _read(source), mode)

    def link(self, path, target):
        path = path.strip('/')
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def with_libraries(self, path, source):
        """A program of this machine and the shared objects it needs."""
        self.copy(path, source, 0o755)
        listing = subprocess.run(['ldd', source], stdout=subprocess.PIPE,
                                 check=True).stdout.decode()
        for word in listing.split():
            if word.startswith('/'):
                self.copy(word, word, 0o755)

    def digest(self):
        return _digest(*(part for path in sorted(self.entries)
                         for part in (path, str(self.entries[path][0]),
                                      self.entries[path][1])))

    def write(self, path):
        """As a "newc" archive, which is what the kernel unpacks."""
        with open(path, 'wb') as out:
            for number, name in enumerate(sorted(self.entries), 1):
                mode, data = self.entries[name]
                self._entry(out, number, name, mode, data)
            self._entry(out, 0, 'TRAILER!!!', 0, b'')
            # Archives that follow must begin at a multiple of 4; 512 is
            # what cpio pads to.
            out.write(bytes(-out.tell() % 512))

    @staticmethod
    def _entry(out, number, name, mode, data):
        encoded = name.encode() + b'\0'
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
                  len(encoded), 0)
        head = b'070701' + b''.join(b'%08x' % field for field in fields)
        out.write(head + encoded + bytes(-(len(head) + len(encoded)) % 4))
        out.write(data + bytes(-len(data) % 4))

    def cached(self, name):
        return cached(f'{name}-{self.digest()}.cpio', self.write)


# --- Kernel modules in an image --------------------------------------------

def _dependencies(kernel):
    """modules.dep: module name -> (path, paths that it needs)."""
    listing = os.path.join(kernel.modules, 'modules.dep')
    if not os.path.exists(listing):
        _run(['/sbin/depmod', '-b', kernel.root, kernel.release])
    found = {}
    for line in _read(listing).decode().splitlines():
        path, needs = line.split(':')
        name = os.path.basename(path).split('.ko')[0].replace('-', '_')
        found[name] = (path, needs.split())
    return found


def add_modules(tree, kernel, names, optional=()):
    """Put modules and all that they need where modprobe looks.

    optional: what other kernels have built in.
    """
    known = _dependencies(kernel)
    by_path = {path: needs for path, needs in known.values()}
    wanted = []

    def want(path):
        for need in by_path[path]:
            want(need)
        if path not in wanted:
            wanted.append(path)

    for name in names:
        if name.replace('-', '_') not in known:
            raise paths.Missing(f'kernel {kernel.release} has no {name}')
        want(known[name.replace('-', '_')][0])
    for name in optional:
        if name in known:
            want(known[name][0])

    base = f'lib/modules/{kernel.release}'
    listing = ''
    for path in wanted:
        data = _read(os.path.join(kernel.modules, path))
        if path.endswith('.xz'):
            data = lzma.decompress(data)
        tree.file(f'{base}/{_plain(path)}', data)
        listing += _plain(path) + ':' + ''.join(
            ' ' + _plain(need) for need in by_path[path]) + '\n'
    tree.file(f'{base}/modules.dep', listing.encode())


def _plain(path):
    return path.split('.ko')[0] + '.ko'


def use_iommufd(tree, kernel):
    """Replace VFIO's modules in a tree by those that know iommufd.

    What setup.sh iommufd has built; everything that needs vfio needs iommufd.
    The sample of a device that they can migrate is new as well.
    """
    directory = os.path.join(paths.CACHE, 'kernels', kernel.pinned, 'vfio')
    if not os.path.isdir(directory):
        raise paths.Missing(f'no iommufd for {kernel.pinned}; run '
                            'tests/lib/setup.sh iommufd')
    base = f'lib/modules/{kernel.release}'
    left = set(os.listdir(directory))
    for path in list(tree.entries):
        name = os.path.basename(path)
        if path.startswith(base) and name in left:
            tree.copy(path, os.path.join(directory, name))
            left.remove(name)
    if left != {'iommufd.ko', 'mtty.ko'}:
        raise paths.Missing(f'kernel {kernel.release} has other modules than '
                            f'iommufd was built for: {sorted(left)}')
    for name in left:
        tree.copy(f'{base}/{name}', os.path.join(directory, name))
    listing = tree.entries[f'{base}/modules.dep'][1].decode().splitlines()
    needs = [line.split(':')[0] for line in listing
             if '/vfio.ko:' in line or '/mdev.ko:' in line]
    listing += ['iommufd.ko:', 'mtty.ko: ' + ' '.join(needs)]
    tree.file(f'{base}/modules.dep', ''.join(
        line + (' iommufd.ko' if '/vfio.ko' in line else '') + '\n'
        for line in listing).encode())


# --- The images ---------------------------------------------------------------

def basic_tree(init):
    """What every image has; init names a script of tests/guest/programs."""
    tree = Tree()
    for path in ('dev', 'proc', 'sys', 'run', 'tmp', 'sbin', 'var/run'):
        tree.directory(path)
    tree.copy('bin/busybox', '/bin/busybox', 0o755)
    tree.link('bin/sh', 'busybox')
    tree.copy('bin/agent', program('agent'), 0o755)
    tree.copy('bin/traffic', program('traffic'), 0o755)
    tree.copy('init', os.path.join(PROGRAMS, init), 0o755)
    return tree


BOOT = os.path.join(paths.ROOT, 'tests', 'guest', 'boot')
HOOKS = os.path.join(paths.ROOT, 'guest', 'kernel', 'dma-track', 'initramfs')


def debian_initrd(kernel, maker, drivers):
    """As a user of the module has it; see tests/guest/boot/initramfs.sh."""
    ours = module(kernel, EXTRA_MODULES['dma_track'], 'dma_track')
    files = [ours, program('agent')]
    for top in (BOOT, HOOKS):
        for base, dirs, names in os.walk(top):
            dirs.sort()
            files += [os.path.join(base, name) for name in sorted(names)]

    def build(path):
        with open(path, 'wb') as file:
            done = subprocess.run(
                [os.path.join(BOOT, 'initramfs.sh'), kernel.pinned, ours,
                 program('agent'), maker, *drivers],
                stdout=file, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise paths.Missing(done.stderr.decode(errors='replace')[-2000:])

    key = _digest(kernel.release, maker, *drivers,
                  *(part for path in files
                    for part in (os.path.basename(path), _read(path))))
    return cached(f'{maker}-{key}.img', build)


# Our module, and those that only the tests need: name -> where it is built.
EXTRA_MODULES = {
    'dma_track': 'guest/kernel/dma-track',
    'dma_oracle': 'tests/guest/oracle',
    'dma_edu': 'tests/guest/edu',
}


def l2_initrd(kernel):
    """What the guest that moves runs from."""
    tree = basic_tree('l2-init')
    add_modules(tree, kernel, L2_MODULES, PORT_MODULES)
    for name, directory in EXTRA_MODULES.items():
        if os.path.exists(os.path.join(paths.ROOT, directory, 'Kbuild')):
            tree.copy(f'extra/{name}.ko', module(kernel, directory, name))
    return tree.cached('l2')


def firmware(name):
    for directory in paths.FIRMWARE:
        path = os.path.join(directory, name)
        if os.path.exists(path):
            return path
    raise paths.Missing(f'no {name} in {", ".join(paths.FIRMWARE)}; '
                        'run tests/lib/setup.sh packages')


def l1_initrd(kernel, l2_kernel, qemu, iommufd=False):
    """What the machine's guest runs from: QEMU and the other guest in it.

    iommufd: with VFIO's modules as Debian would build them with iommufd
    """
    base = basic_tree('l1-init')
    add_modules(base, kernel, L1_MODULES + (MDEV_MODULES if iommufd else ()),
                PORT_MODULES)
    if iommufd:
        use_iommufd(base, kernel)
    # Not "ip": busybox prefers its own to what is in the PATH.
    # Called with its path: busybox's shell prefers busybox's own.
    base.with_libraries('sbin/ip', shutil.which('ip') or '/sbin/ip')

    emulator = Tree()
    emulator.with_libraries('bin/qemu-system-x86_64', qemu)
    for name in ('bios-256k.bin', 'linuxboot_dma.bin', 'kvmvapic.bin'):
        emulator.copy(f'firmware/{name}', firmware(name))

    guest = Tree()
    guest.copy('l2/vmlinuz', l2_kernel.image)
    guest.copy('l2/initrd', l2_initrd(l2_kernel))

    parts = [tree.cached(name) for tree, name in
             ((base, 'l1-base'), (emulator, 'l1-qemu'), (guest, 'l1-l2'))]

    def build(path):
        with open(path, 'wb') as out:
            for part in parts:
                with open(part, 'rb') as file:
                    shutil.copyfileobj(file, out, 1 << 20)

    names = [os.path.basename(part) for part in parts]
    return cached(f'l1-{_digest(*names)}.cpio', build)


def prune(keep_days=3):
    """Delete images that were not used for a while: they pile up."""
    if not os.path.isdir(IMAGES):
        return
    for name in os.listdir(IMAGES):
        path = os.path.join(IMAGES, name)
        try:
            if time.time() - os.stat(path).st_mtime < keep_days * 86400:
                continue
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            # Another suite has just done with it.
            pass
