# SPDX-License-Identifier: GPL-2.0-only
"""Drivers that know fewer feature bits than the host, or more; real ones.

The module is built three times: as one would be that knows no feature bit, as
it is, and as a later one that knows bits which no device has yet. Each is
loaded before a host of today, and before one that offers no bit, and its guest
migrates. What a guest meets after a move is in suite abi.
"""

import os
import re
import shutil
import subprocess

import driver
import images
import paths

vmtest = driver.vmtest

SOURCE = 'guest/kernel/dma-track/host.c'
LINE = ('static const unsigned int host_features[] = '
        '{ VIRTIO_DMA_TRACK_F_SYNC_DIRTY };')
# A driver that does not know a bit does not ask for it, either: virtio forbids.
QUESTION = re.compile(r'virtio_has_feature\((?:host->)?vdev,\s*'
                      r'VIRTIO_DMA_TRACK_F_SYNC_DIRTY\)')
# What the driver knows: bit 0 is SYNC_DIRTY.
MODULES = {'old': (), 'new': (0,), 'later': (0, 1, 2, 23)}
HOSTS = {'old': ('off', ()), 'new': ('on', (0,))}


def build(kernel, bits, directory):
    """The module, knowing those bits; returns its path."""
    for room in (vmtest.MODULE, 'include'):
        shutil.copytree(os.path.join(paths.ROOT, room),
                        os.path.join(directory, room),
                        ignore=shutil.ignore_patterns('*.ko', '*.o', '.*'))
    path = os.path.join(directory, SOURCE)
    with open(path, encoding='utf-8') as file:
        text = file.read()
    if text.count(LINE) != 1 or len(QUESTION.findall(text)) != 2:
        raise paths.Missing(f'{SOURCE} is not as it was: see {__file__}')
    known = ', '.join(str(bit) for bit in bits)
    text = text.replace(LINE, f'{LINE.split("{")[0]}{{ {known} }};')
    if 0 not in bits:
        text = QUESTION.sub('false', text)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
    done = subprocess.run(
        [images.KBUILD, kernel.pinned, directory, vmtest.MODULE, '-j2'],
        capture_output=True, text=True, check=False)
    if done.returncode:
        raise paths.Missing(done.stdout[-2000:] + done.stderr[-2000:])
    module = os.path.join(directory, vmtest.MODULE, 'dma_track.ko')
    subprocess.run(['strip', '--strip-debug', module], check=True)
    return module


class Guest(vmtest.Guest):
    """One with all three at hand, and none loaded."""

    def __init__(self, directory, host, modules):
        super().__init__(directory, f'{host}-host', [
            '-device', 'virtio-dma-track-pci,id=track,addr=6,sync-dirty='
            + HOSTS[host][0], *vmtest.NIC], ['e1000e'])
        self.programs.update({f'{name}.ko': path
                              for name, path in modules.items()})

    def features(self):
        """Of the device's bits those that are in force."""
        text = self.agent.run('cat /sys/bus/virtio/drivers/dma_track/'
                              'virtio*/features')
        return [bit for bit in range(24) if text[bit] == '1']


def migrates(machine):
    """To nowhere; it goes on here."""
    qmp = machine.qmp
    qmp.command('migrate', uri='exec:cat > /dev/null')
    end = vmtest.guest.wait_until(
        lambda: next((state for state in [qmp.command(
            'query-migrate').get('status')] if state in
            ('completed', 'failed')), None), 'end of the migration', 120)
    qmp.cont()
    return end


def meet(tap, machine, host, module):
    name = f'{module} driver, {host} host'
    both = [bit for bit in MODULES[module] if bit in HOSTS[host][1]]
    machine.agent.run(f'insmod /bin/{module}.ko', 60)
    machine.agent.run(f'echo {vmtest.NET} > {vmtest.FILES}/track')
    status = machine.status()
    tap.equal((machine.features(), status['sync_dirty'], status['connected']),
              (both, '1' if both else '0', '1'),
              f'{name}: in force is what both know, and they work together')
    tap.equal((machine.function()[:2], migrates(machine)),
              (['tracked', '-'], 'completed'),
              f'{name}: a function is tracked, the guest migrates')
    machine.agent.run('rmmod dma_track', 120)


def run(tap, kernel):
    vmtest.Guest.UNDER_TEST = kernel
    directory = paths.scratch('versions')
    modules = {name: build(kernel, bits, os.path.join(directory, name))
               for name, bits in MODULES.items()}
    for host in HOSTS:
        with Guest(directory, host, modules) as machine:
            for module in MODULES:
                tap.run(meet, tap, machine, host, module)
            tap.equal(machine.splats(), '',
                      f'{host} host: the kernel did not complain')
