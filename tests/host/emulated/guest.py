# SPDX-License-Identifier: GPL-2.0-only
"""A guest under TCG in a QEMU of this machine, with emulated PCI devices.

Quicker than the nested bed, and each device's DMA can be hidden from QEMU's
dirty log (x-untracked-dma). What only real assignment shows is not here: an
emulated device stops with its VM and carries its state over.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                '..', '..', 'lib'))

# pylint: disable=wrong-import-position
import bed     # noqa: E402
import images  # noqa: E402
import oracle  # noqa: E402
import paths   # noqa: E402
import vm      # noqa: E402

RAM_MIB = 256
FILES = '/sys/kernel/debug/dma_oracle/*'

# Patching code under multi-threaded TCG has crashed stock kernels: one thread.
ACCEL = 'tcg,thread=single,tb-size=256'
CMDLINE = ('console=ttyS0 mitigations=off no5lvl tsc=reliable lpj=4000000 '
           'nowatchdog panic=-1 random.trust_cpu=on')


wait_until = bed.wait_until


def initrd(kernel, modules, programs):
    """Like the guest of the nested bed: our modules, and Debian's drivers."""
    tree = images.basic_tree('l2-init')
    images.add_modules(tree, kernel, [name for name in modules
                                      if name not in images.EXTRA_MODULES],
                       images.PORT_MODULES)
    for name in modules:
        if name in images.EXTRA_MODULES:
            tree.copy(f'extra/{name}.ko', images.module(
                kernel, images.EXTRA_MODULES[name], name))
    for name, path in programs.items():
        tree.copy(f'bin/{name}', path, 0o755)
    return tree.cached('emulated')


class Guest:
    """One QEMU. Use it as a context."""

    def __init__(self, directory, name, devices, modules, incoming=False,
                 programs=None, kernel=None, fds=(), memory=None):
        """memory: the words for other memory than RAM_MIB of anonymous."""
        # Further ones for its kernel.
        self.words = ''
        self.kernel = kernel or paths.Kernel()
        self.directory = directory
        self.name = name
        self.devices = devices
        self.modules = modules
        self.incoming = incoming
        self.programs = programs or {}
        self.fds = fds
        self.memory_words = memory or ['-m', str(RAM_MIB)]
        self.process = None
        self.qmp = None
        self.agent = None

    def path(self, what):
        """Relative, because a socket's path must be short."""
        return os.path.relpath(os.path.join(self.directory,
                                            f'{self.name}.{what}'))

    def arguments(self):
        words = [paths.qemu(), '-name', self.name]
        for directory in paths.FIRMWARE:
            words += ['-L', directory]
        words += [
            '-M', 'q35', '-accel', ACCEL, '-cpu', 'max,-la57', '-smp', '1',
            *self.memory_words, '-nodefaults', '-display', 'none',
            '-no-reboot', '-kernel', self.kernel.image,
            '-initrd', initrd(self.kernel, self.modules, self.programs),
            '-append', f'{CMDLINE} {self.words} '
                       f'bed.modules={",".join(self.modules)}',
            '-serial', 'file:' + self.path('console'),
            '-qmp', f'unix:{self.path("qmp")},server=on,wait=off',
            '-chardev', f'socket,id=agent,server=on,wait=off,'
                        f'path={self.path("agent")}',
            '-device', 'virtio-serial-pci,addr=3',
            '-device', 'virtserialport,chardev=agent,name=l2.agent',
            '-device', 'pcie-root-port,id=rp1,chassis=1,addr=4',
            '-device', 'pcie-root-port,id=rp2,chassis=2,addr=5',
        ]
        words += self.devices
        if self.incoming:
            # It waits after the move, so that its memory can be looked at.
            words += ['-incoming', 'defer', '-S']
        return words

    def __enter__(self):
        self.process = vm.Process(self.name, self.arguments(), self.directory,
                                  self.fds)
        try:
            self.qmp = vm.Qmp(f'QEMU {self.name}', self.path('qmp'), 30)
            self.qmp.open(30)
            self.qmp.command('migrate-set-capabilities', capabilities=[
                {'capability': 'events', 'state': True}])
            self.agent = vm.Agent(f'guest {self.name}', self.path('agent'))
            if not self.incoming:
                self.agent.wait_ready(180)
        except BaseException:
            print(self.process.tail())
            self.process.stop()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if error:
            print(self.process.tail())
        for channel in (self.qmp, self.agent):
            if channel:
                channel.close()
        self.process.stop()

    def report_trouble(self, tap):
        """The guest's kernel has nothing to complain about."""
        tap.equal(bed.find_trouble(self.agent.run('dmesg')), [],
                  f'no complaint of the kernel in {self.name}')

    # --- The oracle in the guest -----------------------------------------

    def order(self, command, deadline=60):
        """Give the oracle's driver a command and wait for its end."""
        self.agent.run(f'cd {FILES} && echo {command} > control', deadline)

    def status(self):
        text = self.agent.run(f'cat {FILES}/status')
        return dict(line.split('=', 1) for line in text.splitlines())

    def pages(self):
        return oracle.parse_pages(self.agent.run(f'cat {FILES}/pages'))

    def mark(self, value):
        self.qmp.command('qom-set', path='/machine/peripheral/oracle',
                         property='marker', value=value)

    def log(self):
        return oracle.Log(self.path('dma'))

    def memory(self, frames=()):
        """A function that reads a page as QEMU sees it now.

        frames: guest physical addresses, some of which may lie in memory that
        was plugged
        """
        data = self.dump(0, RAM_MIB << 20)
        beyond = {}
        for first, size in runs(gpa for gpa in frames if gpa >= len(data)):
            part = self.dump(first, size)
            beyond.update((first + offset, part[offset:offset + oracle.PAGE])
                          for offset in range(0, size, oracle.PAGE))
        return lambda gpa: beyond.get(gpa) or data[gpa:gpa + oracle.PAGE]

    def dump(self, gpa, size):
        path = os.path.abspath(self.path('memory'))
        self.qmp.command('pmemsave', 120, val=gpa, size=size, filename=path)
        with open(path, 'rb') as file:
            data = file.read()
        os.unlink(path)
        return data


def runs(frames):
    """Frames that follow each other, as [(gpa, size)]."""
    found = []
    for gpa in sorted(frames):
        if found and sum(found[-1]) == gpa:
            found[-1][1] += oracle.PAGE
        else:
            found.append([gpa, oracle.PAGE])
    return found
