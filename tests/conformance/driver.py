# SPDX-License-Identifier: GPL-2.0-only
"""What the protocol wants of a driver, seen from the host.

The driver is the module in a booted guest; QEMU's trace of its requests is the
witness. What can be seen from inside the guest is in tests/guest/vm.
"""

import importlib.util
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name, *path):
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(HERE, '..', *path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Not by its name: there is more than one run.py.
vmtest = load('vmtest', 'guest', 'vm', 'run.py')

EVENTS = ('virtio_dma_track_setup', 'virtio_dma_track_publish',
          'virtio_dma_track_function', 'virtio_dma_track_ack',
          'virtio_dma_track_alive', 'virtio_dma_track_notify',
          'virtqueue_pop')
UNTRACKED = 3
TIMES = 20


class Guest(vmtest.Guest):
    """A guest whose requests are recorded."""

    def arguments(self):
        words = super().arguments()
        for event in EVENTS:
            words += ['-trace', event]
        return words + ['-D', self.path('trace')]

    def trace(self):
        with open(self.path('trace'), encoding='utf-8') as file:
            return file.read().split('\n')

    def requests(self):
        """Each event of the device: its name and the rest of the line."""
        return [found.groups() for found in
                (re.search(r'virtio_dma_track_(\w+) (.*)', line)
                 for line in self.trace()) if found]


def untracked_times(tap, machine):
    """A driver behind the API comes and goes: each time the host has to see it.

    It is not for this device, so that its probe fails at once, without waiting
    for anything, and nothing else runs on the one CPU of a kernel that is not
    preempted: the host is told in between only if the module sees to it.
    """
    def untracked():
        return [rest for name, rest in machine.requests()
                if name == 'function' and f' state {UNTRACKED} ' in rest]

    net = f'/sys/bus/pci/devices/{vmtest.NET}'
    machine.drive('unbind')
    machine.agent.run(f'echo virtio-pci > {net}/driver_override')
    before = len(untracked())
    machine.agent.run(f'for i in $(seq {TIMES}); do echo {vmtest.NET} > '
                      '/sys/bus/pci/drivers/virtio-pci/bind; done '
                      f'2> /dev/null; [ ! -e {net}/driver ]', 180)
    tap.equal(len(untracked()) - before, TIMES,
              'no untracked time ends before the host has looked')
    machine.agent.run(f'echo > {net}/driver_override')
    machine.drive('bind')


def first_requests(tap, machine):
    """What the device has taken from its queue, refused or not."""
    lines = machine.trace()
    setup = next(number for number, line in enumerate(lines)
                 if 'virtio_dma_track_setup' in line)
    # The device is at work when it says so: the queue used last is its own.
    queue = next(re.search(r'virtqueue_pop vq (\S+)', line)[1]
                 for line in lines[setup::-1] if 'virtqueue_pop' in line)
    before = [line for line in lines[:setup]
              if f'virtqueue_pop vq {queue} ' in line]
    names = [name for name, _ in machine.requests()]
    tap.equal((len(before), names[:2]), (1, ['setup', 'publish']),
              'SETUP is the first request, then sections are published')


def pinned_before_publishing(tap, machine):
    """Planes tell of mappings that are older than the connection."""
    agent, qmp = machine.agent, machine.qmp
    name = machine.leave_host()
    agent.run('ip link set eth0 up')
    status = machine.status()
    pinned = int(status['pinned_streaming']) + int(status['pinned_coherent'])
    machine.join_host(name)
    qmp.command('migrate-set-parameters', **{'max-bandwidth': 1 << 30,
                                             'downtime-limit': 5000})
    qmp.command('migrate', uri='exec:cat > /dev/null')
    end = qmp.event('MIGRATION', 120, lambda data: data.get('status') in
                    ('completed', 'failed'))
    last = qmp.command('query-dma-track').get('last-migration', {})
    tap.ok(end and pinned and last.get('pinned-frames', 0) >= 0.9 * pinned,
           'what was pinned before sections were published is pinned in them',
           f'{pinned}, {last}')


def echoes(tap, machine):
    """After a migration: each notice was answered by its own numbers."""
    acks = [re.findall(r'\d+', rest) for name, rest in machine.requests()
            if name == 'ack']
    alive = [re.findall(r'\d+', rest) for name, rest in machine.requests()
             if name == 'alive']
    tap.ok(acks and alive and acks[-1][0] == acks[-1][1]
           and alive[-1][0] == alive[-1][1] and alive[-1][2] == alive[-1][3],
           'the driver echoes the current sequence numbers',
           f'{acks[-1:]} {alive[-1:]}')


def run(tap, kernel):
    """All of it, in one guest."""
    vmtest.Guest.UNDER_TEST = kernel
    Guest.UNDER_TEST = kernel
    directory = vmtest.paths.scratch('conformance')
    with Guest(directory, 'driver',
               vmtest.HOST + vmtest.NIC, ['dma_track', 'e1000e'],
               extra='preempt=none') as machine:
        for test in (first_requests, untracked_times,
                     pinned_before_publishing, echoes):
            tap.run(test, tap, machine)
