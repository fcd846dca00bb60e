#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite guest: the module in a booted guest. Prints TAP.

    run.py [--kernel RELEASE] [PART...]

All parts on every kernel of kernels.txt, unless some are named.

api      every hooked function, driven by a pretend device (tests/guest/module)
bounce   the same with bounce buffers
remap    the same behind an IOMMU, which forgets late (lazy) or at once (strict)
behind   drivers that map behind the DMA API
load     loading and unloading
tracers  other tracers of the functions that are hooked
devices  which functions are tracked, and why not
drivers  real drivers and data, after which nothing is left pinned
restore  drivers whose function was replaced, with hosts of all moods
memory   memory that comes and goes while the guest runs
phases   what the host asks for while it migrates
initramfs  the module before the drivers, as a user has it
"""

import argparse
import concurrent.futures
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for room in ('lib', os.path.join('host', 'emulated')):
    sys.path.insert(0, os.path.join(HERE, '..', '..', room))

# pylint: disable=wrong-import-position
import guest   # noqa: E402
import images  # noqa: E402
import paths   # noqa: E402
import vm      # noqa: E402
from tapwriter import Tap  # noqa: E402

MODULE = 'guest/kernel/dma-track'
PRETEND = 'tests/guest/module'
FILES = '/sys/kernel/debug/dma_track'
TRACING = '/sys/kernel/tracing'
SPLAT = r'WARNING:|BUG:|Oops|Call Trace'

PARAMETERS = '/sys/module/dma_track_test/parameters'

NET = '0000:01:00.0'
OTHER = '0000:02:00.0'
HOST = ['-device', 'virtio-dma-track-pci,id=track,addr=6']
NIC = ['-netdev', 'user,id=n0', '-device',
       'e1000e,id=net0,bus=rp1,netdev=n0,x-untracked-dma=on']
# Its writes reach the dirty log, so that it is not assigned.
UNASSIGNED = ['-device', 'e1000e,id=net1,bus=rp2']
DISK = ['-blockdev', 'null-co,node-name=d0,size=67108864,read-zeroes=on',
        '-device',
        'nvme,id=disk0,bus=rp2,serial=1,drive=d0,x-untracked-dma=on']
VIRTIO = ['-device', 'virtio-net-pci,id=net2,bus=rp2,x-untracked-dma=on']
ROOM = '256M,slots=6,maxmem=2G'
VIRTIO_MEM = ['-object', 'memory-backend-ram,id=vm0,size=256M', '-device',
              'virtio-mem-pci,id=vmem0,memdev=vm0,requested-size=0,addr=b']
PMEM = ['-machine', 'nvdimm=on',
        '-object', 'memory-backend-ram,id=pm0,size=128M',
        '-device', 'nvdimm,memdev=pm0',
        '-object', 'memory-backend-ram,id=pm1,size=128M',
        '-device', 'virtio-pmem-pci,memdev=pm1,addr=c']
# What the pretend device pretends to be: it has memory that peers may use.
FUNCTION = ['-blockdev', 'null-co,node-name=d1,size=67108864',
            '-device', 'nvme,bus=rp2,serial=2,drive=d1,cmb_size_mb=2']
IOMMU = ['-device', 'intel-iommu']
# Sends back what it gets.
ECHO = 'user,guestfwd=tcp:10.0.2.100:7-cmd:cat,restrict=on'
REAL_NET = ['-netdev', ECHO + ',id=n0', '-netdev', ECHO + ',id=n1',
            '-device', 'igb,bus=rp1,netdev=n0,x-untracked-dma=on',
            '-device', 'e1000e,bus=rp2,netdev=n1,x-untracked-dma=on']
VF = '0000:01:10.0'
NVME, AHCI, XHCI = '0000:00:08.0', '0000:00:09.0', '0000:00:0a.0'
REAL_DISKS = [
    '-device', 'nvme,addr=8,serial=1,drive=disk0,x-untracked-dma=on',
    '-device', 'ich9-ahci,id=sata,addr=9,x-untracked-dma=on',
    '-device', 'ide-hd,bus=sata.0,drive=disk1',
    '-device', 'qemu-xhci,id=usb,addr=a,x-untracked-dma=on',
    '-device', 'usb-storage,bus=usb.0,drive=disk2']
# The usual firmware looks for a disk to boot from, and waits 32 s for the
# answer that AHCI does not give to its question for a CD.
QUICK = ['-bios', 'qboot.rom']
WAYS_BEHIND = {
    'device': 'a driver that attaches an IOMMU domain',
    'group': 'a driver that attaches a domain to the group',
    'pasid': 'a driver that attaches a domain to a part',
    'sva': "a driver that shares a process' addresses",
    'map': 'a driver that calls iommu_map',
    'map-atomic': 'a driver that calls iommu_map with interrupts off',
    'map-sg': 'a driver that calls iommu_map_sg',
}


# Its check of the timer fails on a machine that is busy. Grace periods, of
# which ftrace wants some for each hook that is taken off, are made short.
CMDLINE = ('no_timer_check rcupdate.rcu_expedited=1 cryptomgr.notests '
           'loglevel=4')


class Guest(guest.Guest):
    """A guest with dma_track.ko and the pretend device at hand."""

    UNDER_TEST = None

    def __init__(self, directory, name, devices=(), modules=(), extra='',
                 memory=None, spare=()):
        """spare: modules that are there, and not loaded at the boot."""
        self.extra = extra
        self.memory = memory
        self.loaded = modules
        super().__init__(directory, name, list(devices), [*modules, *spare],
                         programs=built(self.UNDER_TEST),
                         kernel=self.UNDER_TEST)

    def arguments(self):
        words = super().arguments()
        at = words.index('-append') + 1
        words[at] = words[at].removesuffix(','.join(self.modules))
        words[at] += ','.join(self.loaded)
        words[at] += f' {CMDLINE} {self.extra}'
        if self.memory:
            words[words.index('-m') + 1] = self.memory
        return words

    def load(self, deadline=60):
        self.agent.run('insmod /bin/dma_track.ko', deadline)

    def status(self):
        text = self.agent.run(f'cat {FILES}/status')
        return dict(line.split(': ', 1) for line in text.splitlines())

    def function(self, address=NET):
        """State, reason, generation, restored, milliseconds; or None."""
        for line in self.agent.run(f'cat {FILES}/functions').splitlines():
            words = line.split()
            if words[0] == address:
                return words[1:]
        return None

    def entries(self, address=NET):
        """How many functions there are of that address."""
        return self.agent.run(f'cat {FILES}/functions').count(address)

    def drive(self, action, address=NET, driver='e1000e'):
        """Bind or unbind a driver."""
        self.agent.run(f'echo {address} > '
                       f'/sys/bus/pci/drivers/{driver}/{action}')

    def leave_host(self):
        """Part with the host's device; returns its name."""
        return self.agent.run(
            'cd /sys/bus/virtio/drivers/dma_track && d=$(echo virtio*) && '
            'echo $d > unbind && echo $d').strip()

    def join_host(self, device):
        """Looks at all functions, as the host's notices do."""
        self.agent.run(f'echo {device} > '
                       '/sys/bus/virtio/drivers/dma_track/bind')

    def replaced(self, address=NET):
        """Pretend that the host has replaced a function; no notice yet."""
        self.agent.run(f'echo {address} > {PARAMETERS}/replace')

    def host_answers(self, error):
        """Pretend that UNFENCE is answered so."""
        self.agent.run(f'echo {error} > {PARAMETERS}/unfence')

    def offers(self, address, what):
        """What its driver offers for a restore: all, reset or none."""
        self.agent.run(f'echo {address} {what} > {PARAMETERS}/recovery')

    def wait_restored(self, result, address=NET, deadline=60):
        guest.wait_until(lambda: self.function(address)[3] == result,
                         f'a restore of {address} that is {result}', deadline)

    def succeeds(self, script):
        try:
            self.agent.run(script)
        except vm.CommandFailed:
            return False
        return True

    def splats(self):
        return self.agent.run(f'dmesg | grep -E "{SPLAT}" || true')


def trace(function):
    """A script that chooses what is hooked of that name on this kernel."""
    return (f'{{ echo {function}_phys > set_ftrace_filter || '
            f'echo {function}_page_attrs > set_ftrace_filter; }} 2> /dev/null')


def built(kernel):
    """Both modules, and a program: name -> path."""
    paths_of = images.modules(kernel, {'dma_track': MODULE,
                                       'dma_track_test': PRETEND,
                                       'dma_track_sleeper': PRETEND})
    programs = {name + '.ko': path for name, path in paths_of.items()}
    for name in ('fentry', 'nth'):
        programs[name] = images.program(name)
    return programs


def pretend(tap, directory, name, devices=(), extra=''):
    """Report what the pretend device reports; returns the log, all of it."""
    with Guest(directory, name, [*devices, *FUNCTION], extra=extra) as machine:
        machine.load()
        machine.agent.run('echo dma_track_pretend > '
                          f'/sys/bus/pci/devices/{OTHER}/driver_override')
        machine.agent.run('insmod /bin/dma_track_test.ko', 300)
        log = machine.agent.run('dmesg | sed -n "s/.*dma_track_test: //p"')
        planned = re.search(r'^1\.\.(\d+)$', log, re.M)
        seen = 0
        for line in log.splitlines():
            match = re.match(r'(not )?ok \d+ - (.*)', line)
            if match:
                seen += 1
                tap.ok(not match[1], f'{name}: {match[2]}')
            elif line.startswith('# line'):
                tap.note(line)
        tap.ok(planned and int(planned[1]) == seen,
               f'{name}: all tests of the pretend device ran', log)
        machine.agent.run('rmmod dma_track_test', 60)
        # A grace period for each hook takes its time: once is enough.
        if name == 'api':
            machine.agent.run('rmmod dma_track', 120)
        tap.equal(machine.splats(), '', f'{name}: the kernel did not complain')
        return log, machine.agent.run('dmesg')


def api(tap, directory):
    log, _ = pretend(tap, directory, 'api')
    tap.ok('# direct' in log, 'api: the device sees the pages themselves')


def bounce(tap, directory):
    log, _ = pretend(tap, directory, 'bounce', extra='swiotlb=force')
    tap.ok('# bounced' in log, 'bounce: the device sees bounce buffers')


def remap(tap, directory):
    for name, strict, policy in (('lazy', 0, 'lazy'), ('strict', 1, 'strict')):
        log, dmesg = pretend(
            tap, directory, name, IOMMU,
            f'intel_iommu=on iommu.passthrough=0 iommu.strict={strict}')
        tap.ok('# remapped' in log and
               re.search(f'invalidation policy: {policy} mode', dmesg),
               f'{name}: the device sees I/O addresses')


def behind(tap, directory):
    with Guest(directory, 'behind', IOMMU + HOST + NIC,
               ['dma_track', 'e1000e'],
               'intel_iommu=on iommu.passthrough=0') as machine:
        machine.agent.run('insmod /bin/dma_track_test.ko run=0')
        tap.equal(machine.function()[:2], ['tracked', '-'],
                  'behind an IOMMU a function is tracked')
        for way, what in WAYS_BEHIND.items():
            if way == 'pasid' and machine.kernel.release.startswith('6.1.'):
                tap.skip(f'{what} makes its function untracked',
                         'this kernel has no such function')
                continue
            machine.agent.run(f'echo {NET} {way} > {PARAMETERS}/behind')
            tap.equal(machine.function()[:2], ['untracked', 'behind-api'],
                      f'{what} makes its function untracked')
            machine.drive('unbind')
            machine.drive('bind')
            tap.equal(machine.function()[:2], ['tracked', '-'],
                      'until its driver is bound anew')
        tap.equal(machine.splats(), '', 'behind: the kernel did not complain')


def load(tap, directory):
    with Guest(directory, 'load', HOST) as machine:
        agent = machine.agent
        agent.run(f'mount -t tracefs t {TRACING}')
        agent.run('echo 0 > /proc/sys/kernel/ftrace_enabled')
        tap.ok(not machine.succeeds('insmod /bin/dma_track.ko'),
               'with ftrace disabled the module does not load')
        tap.ok('ftrace is disabled' in agent.run('dmesg'),
               'and says why')
        agent.run('echo 1 > /proc/sys/kernel/ftrace_enabled')
        machine.load()
        tap.equal(machine.status()['hooks_intact'], '1',
                  'with ftrace enabled it loads, hooks intact')
        tap.ok(not machine.succeeds(
            'echo 0 > /proc/sys/kernel/ftrace_enabled') and
            machine.status()['hooks_intact'] == '1',
            'ftrace cannot be disabled while it is loaded')

        for _ in range(2):
            agent.run('rmmod dma_track && insmod /bin/dma_track.ko', 120)
        tap.ok(host_relies(machine), 'the host relies on it')
        tap.equal(machine.status()['hooks_intact'], '1',
                  'unloaded it can be loaded again, and again')
        unload_under_sleeper(tap, machine)
        machine.succeeds('rmmod dma_track')
        tap.ok(not host_relies(machine), 'and not on one that is unloaded')
        tap.equal(machine.splats(), '', 'load: the kernel did not complain')


def host_relies(machine):
    return machine.qmp.command('query-dma-track')['provider']['ready']


def unload_under_sleeper(tap, machine):
    """A task sleeps in an original, and will come back to its hook."""
    agent = machine.agent
    fact = 'unloading waits for a task that is asleep in dma_alloc_coherent'
    if not machine.succeeds('insmod /bin/dma_track_sleeper.ko'):
        tap.skip(fact, 'this kernel has no dma_map_ops')
        return

    def wait_for(state):
        guest.wait_until(lambda: agent.run(
            'cat /sys/module/dma_track_sleeper/parameters/state').strip() ==
            state, f'the task to be {state}', 60)

    agent.run('echo 1 > /sys/module/dma_track_sleeper/parameters/sleep')
    wait_for('asleep')
    unloading = agent.start('rmmod dma_track')
    guest.wait_until(lambda: 'dma_' not in agent.run(
        f'cat {TRACING}/enabled_functions'), 'the hooks to go', 60)
    # Who waits for others only, and not for the task, waits once.
    agent.run('echo 5 > /sys/module/dma_track_sleeper/parameters/grace', 120)
    tap.equal((agent.run('grep -c "^dma_track " /proc/modules || true').strip(),
               unloading.status), ('1', None), fact)
    tap.ok(not host_relies(machine), 'of which it has told the host before')
    agent.run('echo 1 > /sys/module/dma_track_sleeper/parameters/wake')
    wait_for('back')
    tap.equal(unloading.wait(60), 0, 'and ends when that has come back')
    agent.run('rmmod dma_track_sleeper')


PAIRS = 200
# What is traced, on every kernel; the last of each is hooked on all.
TRACED = ('{dma_map}', '{dma_unmap}', 'dma_map_sg_attrs', 'dma_unmap_sg_attrs',
          'dma_alloc_attrs', 'dma_free_attrs')


def tracers(tap, directory):
    with Guest(directory, 'tracers') as machine:
        agent = machine.agent
        agent.run(f'mount -t tracefs t {TRACING}')
        old = machine.kernel.release.startswith(('6.1.', '6.12.'))
        names = [name.format(
            dma_map='dma_map_page_attrs' if old else 'dma_map_phys',
            dma_unmap='dma_unmap_page_attrs' if old else 'dma_unmap_phys')
            for name in TRACED]
        bpf_first(tap, machine, names)
        machine.load()
        bpf_second(tap, machine, names)
        agent.run('insmod /bin/dma_track_test.ko run=0')
        own_events(tap, machine)
        for name, on, off in ways_to_trace(machine, names):
            with_tracer(tap, machine, name, on, off)
        tap.equal(machine.splats(), '', 'tracers: the kernel did not complain')


EVENTS = f'{TRACING}/events/dma_track'


def traced(machine):
    """How often each event of ours is in the trace, by its first word."""
    log = machine.agent.run(f'cat {TRACING}/trace')
    found = {}
    for event in re.findall(r': (dma_track_\w+): ', log):
        found[event] = found.get(event, 0) + 1
    return found, log


def own_events(tap, machine):
    agent = machine.agent
    agent.run(f'echo > {TRACING}/trace; echo 1 > {EVENTS}/enable; '
              f'echo 10 > {PARAMETERS}/pairs; echo 0 > {EVENTS}/enable; '
              f'echo 10 > {PARAMETERS}/pairs')
    found, log = traced(machine)
    # A page, eight entries of a list, coherent memory.
    tap.equal(found, {'dma_track_pin': 100, 'dma_track_unpin': 100},
              'tracepoints: each frame that is pinned and unpinned, while on')
    pins = re.findall(r'dma_track_pin: (.*)', log)
    unpins = re.findall(r'dma_track_unpin: (.*)', log)
    tap.ok(sorted(pins) == sorted(unpins) and
           re.match(r'function=\S+ plane=(streaming|coherent) '
                    r'gfn=0x[0-9a-f]+ nr_frames=1$', pins[0]) and
           sum('plane=coherent' in pin for pin in pins) == 10 and
           machine.status()['hooks_intact'] == '1',
           'tracepoints: the same frames, hooks intact', str(pins[:10]))


def bpf_first(tap, machine, names):
    """Each of the functions in turn belongs to a BPF program."""
    agent = machine.agent
    before = agent.run(f'cat {TRACING}/enabled_functions')
    for name in names:
        program = agent.start(f'fentry {name}')
        program.line('attached')
        tap.ok(not machine.succeeds('insmod /bin/dma_track.ko') and
               f'{name} has another direct hook' in agent.run('dmesg -c'),
               f'with BPF fentry on {name} the module does not load: it says '
               'why')
        agent.run('kill $(pidof fentry)')
        program.wait()
    guest.wait_until(
        lambda: agent.run(f'cat {TRACING}/enabled_functions') == before,
        'the last hook to go', 30)
    tap.ok(True, 'and leaves no hook behind')


def bpf_second(tap, machine, names):
    refused = [name for name in names
               if not machine.succeeds(f'fentry {name}')]
    tap.equal((refused, machine.status()['hooks_intact']), (names, '1'),
              'BPF fentry on a hooked function is refused, the hook stays')


def ways_to_trace(machine, names):
    """Name, how to begin, how to end."""
    words = ' '.join(names)
    chosen = f'cd {TRACING} && echo {words} > set_ftrace_filter'
    for name in ('function', 'function_graph'):
        yield (name, f'{chosen} && echo {name} > current_tracer',
               f'cd {TRACING} && echo nop > current_tracer')
    kinds = [('kprobe', 'p', ''), ('kretprobe', 'r', '')]
    if not machine.kernel.release.startswith('6.1.'):
        kinds += [('fprobe', 'f', ''), ('fprobe at exit', 'f', '%return')]
    for name, kind, where in kinds:
        events = '; '.join(f'echo "{kind}:ours/t{number} {function}{where}" '
                           '>> dynamic_events'
                           for number, function in enumerate(names))
        yield (name,
               f'cd {TRACING} && {events} && echo 1 > events/ours/enable',
               f'cd {TRACING} && echo 0 > events/ours/enable && '
               'echo > dynamic_events')


def with_tracer(tap, machine, name, begin, end):
    agent = machine.agent
    agent.run(f'echo > {TRACING}/trace')
    agent.run(begin)
    before = machine.status()
    agent.run(f'echo {PAIRS} > {PARAMETERS}/pairs')
    after = machine.status()
    traced = int(agent.run(f'grep -v "^#" {TRACING}/trace | '
                           'grep -c dma_ || true'))
    agent.run(end)
    tap.ok(traced >= 6 * PAIRS, f'{name}: sees each call', str(traced))
    tap.equal([int(after[key]) - int(before[key])
               for key in ('maps', 'unmaps', 'unknown_unmaps')],
              [3 * PAIRS, 3 * PAIRS, 0], f'{name}: counts are exact')
    tap.equal((after['lost'], after['hooks_intact'],
               machine.status()['hooks_intact']), ('0', '0', '1'),
              f'{name}: is noticed, and that it has gone')


def devices(tap, directory):
    late(tap, directory)
    early(tap, directory)


def late(tap, directory):
    """The driver is there first."""
    with Guest(directory, 'late', HOST + NIC + UNASSIGNED,
               ['e1000e']) as machine:
        agent = machine.agent
        machine.load()
        tap.equal(machine.function()[:2], ['untracked', 'bound-before'],
                  'a function whose driver came first is untracked')
        agent.run(f'echo {NET} > {FILES}/track')
        tap.equal(machine.function()[:2], ['tracked', '-'],
                  'until its driver is bound anew on request')
        tap.ok(not machine.succeeds(f'echo {OTHER} > {FILES}/track') and
               machine.function(OTHER)[:2] == ['untracked', 'no-capability'],
               'a function that is not assigned cannot be tracked')
        machine.drive('unbind', OTHER)
        machine.drive('bind', OTHER)
        tap.equal((machine.function(OTHER)[:2], machine.entries(OTHER)),
                  (['untracked', 'no-capability'], 1),
                  'nor when its driver is bound anew')
        agent.run('ip link set eth1 up')
        tap.equal(machine.status()['pinned_coherent'], '0',
                  'and its mappings are not counted')
        tap.equal(machine.splats(), '', 'late: the kernel did not complain')


def early(tap, directory):
    """The module is there first."""
    with Guest(directory, 'early', HOST + NIC + VIRTIO,
               ['dma_track', 'e1000e']) as machine:
        agent = machine.agent
        status = machine.status()
        tap.equal(machine.function(OTHER)[:2], ['untracked', 'behind-api'],
                  'a virtio function may be given addresses behind the API')
        tap.equal((status['connected'], status['lost']), ('1', '0'),
                  'the host accepts all sections')
        tap.equal(machine.function()[:2], ['tracked', '-'],
                  'a function whose driver comes later is tracked')
        agent.run('ip link set eth0 up')
        tap.ok(int(machine.status()['pinned_streaming']) > 0 and
               int(machine.status()['pinned_coherent']) > 0,
               'receive buffers and rings of the driver are pinned',
               str(machine.status()))

        agent.run('ip link set eth0 down')
        machine.drive('unbind')
        tap.equal(machine.function()[:2], ['unbound', '-'],
                  'without a driver it is unbound')
        status = machine.status()
        tap.equal((status['pinned_streaming'], status['pinned_coherent'],
                   status['unknown_unmaps']), ('0', '0', '0'),
                  'and nothing of it is pinned')
        machine.drive('bind')
        tap.equal(machine.function()[:2], ['tracked', '-'],
                  'with a driver it is tracked again')
        failed_probe(tap, machine)
        removal(tap, machine)

        agent.run('rmmod dma_track', 120)
        agent.run('ip link set eth0 up && insmod /extra/dma_track.ko', 60)
        tap.equal(machine.function()[:2], ['untracked', 'bound-before'],
                  'unloaded and loaded under its driver it is untracked')
        tap.equal(machine.splats(), '', 'early: the kernel did not complain')


def failed_probe(tap, machine):
    """The driver's managed memory is freed after its probe has failed."""
    agent = machine.agent
    agent.run('insmod /bin/dma_track_test.ko run=0')
    machine.drive('unbind')
    override = f'/sys/bus/pci/devices/{NET}/driver_override'
    agent.run(f'echo dma_track_failing > {override}')
    tap.ok(not machine.succeeds(
        f'echo {NET} > /sys/bus/pci/drivers/dma_track_failing/bind') and
        'managed memory is pinned' in agent.run('dmesg'),
        'a driver whose probe fails is counted')
    status = machine.status()
    tap.equal((machine.function()[:2], status['pinned_coherent'],
               status['unknown_unmaps']), (['unbound', '-'], '0', '0'),
              'to the end; without a driver it is unbound')
    others_map(tap, machine, override)
    agent.run(f'echo > {override} && rmmod dma_track_test')
    machine.drive('bind')


def others_map(tap, machine, override):
    """A driver that lets others map, as vfio-pci does, and says so."""
    machine.agent.run(f'echo dma_track_lending > {override}')
    machine.drive('bind', driver='dma_track_lending')
    tap.equal(machine.function()[:2], ['untracked', 'behind-api'],
              'a driver that manages DMA itself makes its function untracked')
    machine.drive('unbind', driver='dma_track_lending')
    tap.equal(machine.function()[:2], ['unbound', '-'], 'until it is unbound')


def removal(tap, machine):
    """Removed and found again, while others look for it."""
    agent = machine.agent
    looking = agent.start(
        f'until [ -e /tmp/done ]; do echo {NET} > {FILES}/track; done '
        '2>/dev/null')
    agent.run(f"""
        for i in $(seq 10); do
            echo 1 > /sys/bus/pci/devices/{NET}/remove
            echo 1 > /sys/bus/pci/rescan
        done
        touch /tmp/done""", 180)
    looking.wait()
    tap.equal((machine.entries(), machine.function()[:2]),
              (1, ['tracked', '-']),
              'removed and found again 10 times it has one entry')
    tap.equal(machine.status()['unknown_unmaps'], '0',
              'and all its mappings were counted')


# Driver, function, what the driver offers, how it is restored then.
DISK_RESTORES = (('nvme', NVME, 'all', 'error recovery'),
                 ('nvme', NVME, 'reset', 'reset callbacks'),
                 ('nvme', NVME, 'none', 'rebinding'),
                 ('ahci', AHCI, 'all', 'rebinding'))


def drivers(tap, directory):
    networks(tap, directory)
    disks(tap, directory)


def networks(tap, directory):
    with Guest(directory, 'net', HOST + REAL_NET,
               ['dma_track', 'igb', 'igbvf', 'e1000e']) as machine:
        machine.agent.run('insmod /bin/dma_track_test.ko run=0')
        nothing_pinned(tap, machine, 'e1000e', OTHER, echo_and_restore)
        sriov(tap, machine)
        tap.equal(machine.splats(), '', 'net: the kernel did not complain')
        if not machine.kernel.release.startswith('6.1.'):
            stuck(tap, machine)


def disks(tap, directory):
    media = []
    for number in range(3):
        path = os.path.join(directory, f'disk{number}')
        with open(path, 'wb') as file:
            file.truncate(32 << 20)
        media += ['-blockdev', f'file,node-name=disk{number},filename={path}']
    with Guest(directory, 'disks', HOST + media + REAL_DISKS + QUICK,
               ['dma_track', 'nvme', 'ahci', 'sd_mod', 'xhci_pci',
                'usb_storage']) as machine:
        machine.agent.run('insmod /bin/dma_track_test.ko run=0')
        for driver, address in (('nvme', NVME), ('ahci', AHCI),
                                ('xhci_hcd', XHCI)):
            nothing_pinned(tap, machine, driver, address, write_and_read)
        for driver, address, offer, how in DISK_RESTORES:
            disk_restore(tap, machine, driver, address, offer, how)
        tap.equal(machine.splats(), '', 'disks: the kernel did not complain')


def bound(machine):
    """Tracked functions and their drivers."""
    lines = machine.agent.run(
        f"""cd /sys/bus/pci/devices; while read function state rest; do
            [ $state != tracked ] ||
                echo $function $(basename $(readlink $function/driver))
        done < {FILES}/functions""").splitlines()
    return [line.split() for line in lines]


def pinned(status):
    """What is left when no driver is."""
    return {name: status[name] for name in (
        'lost', 'pinned_streaming', 'pinned_coherent', 'unknown_unmaps',
        'undirtied', 'saturated')}


NOTHING = dict.fromkeys(('lost', 'pinned_streaming', 'pinned_coherent',
                         'unknown_unmaps', 'undirtied', 'saturated'), '0')


def nothing_pinned(tap, machine, driver, address, use):
    """With a driver alone: use it, and take it away."""
    for function, other in bound(machine):
        machine.drive('unbind', function, other)
    machine.drive('bind', address, driver)
    tap.equal(machine.function(address)[:2], ['tracked', '-'],
              f'{driver} is tracked')
    before = machine.status()
    use(tap, machine, driver, address)
    after = machine.status()
    tap.ok(int(after['maps']) > int(before['maps']) + 50 and
           int(after['pinned_coherent']) > 0,
           f'{driver}: its mappings are counted', f'{before} {after}')
    machine.drive('unbind', address, driver)
    status = machine.status()
    tap.equal((pinned(status), status['maps']), (NOTHING, status['unmaps']),
              f'{driver}: nothing is left pinned, every map was unmapped')


def echo(tap, machine, driver, address):
    """Data there and back, in frames of all sizes."""
    machine.agent.run(f"""
        d=$(ls /sys/bus/pci/devices/{address}/net)
        ip link set $d up && ip addr add 10.0.2.15/24 dev $d""")
    tap.ok(comes_back(machine),
           f'{driver}: 1 MiB comes back as it was sent')


def comes_back(machine):
    """Is 1 MiB echoed?"""
    wait_reachable(machine, '10.0.2.2')
    return machine.succeeds("""
        dd if=/dev/urandom of=/tmp/sent bs=64k count=16 2> /dev/null
        nc 10.0.2.100 7 < /tmp/sent > /tmp/echoed && cmp /tmp/sent /tmp/echoed
        """)


def replace(machine, address):
    """Have a driver restored; returns how that was done."""
    def restores():
        return re.findall(f'{address}.* restored for generation .* by (.*)',
                          machine.agent.run('dmesg'))

    before = len(restores())
    name = machine.leave_host()
    machine.replaced(address)
    machine.join_host(name)
    guest.wait_until(lambda: len(restores()) > before,
                     f'a restore of {address}', 60)
    return restores()[-1]


def echo_and_restore(tap, machine, driver, address):
    """Whatever its interface is about to do, and in each way to restore it."""
    echo(tap, machine, driver, address)
    for offer, how, states in ways_to_restore(machine, driver):
        machine.offers(address, offer)
        restore_network(tap, machine, driver, address, how, states)
        machine.offers(address, 'all')


def ways_to_restore(machine, driver):
    """[(what the driver is to offer, what comes of it, interfaces)]"""
    states = 'up', 'down', 'on its way up'
    ways = [('all', 'error recovery', states), ('none', 'rebinding', states)]
    # e1000e has no reset_prepare() and reset_done(), nor has igbvf of 6.1.
    if driver == 'igbvf' and not machine.kernel.release.startswith('6.1.'):
        # See stuck().
        ways.append(('reset', 'reset callbacks', ('up', 'on its way up')))
    return ways


# pylint: disable-next=too-many-arguments
def restore_network(tap, machine, driver, address, wanted, states):
    def interface():
        return machine.agent.run(
            f'ls /sys/bus/pci/devices/{address}/net || true').strip()

    for state in states:
        device = interface()
        machine.agent.run({
            'up': ':',
            'down': f'ip link set {device} down',
            'on its way up': f'ip link set {device} down; '
                             f'ip link set {device} up > /dev/null 2>&1 &',
        }[state])
        how = replace(machine, address)
        device = guest.wait_until(interface, f'an interface of {driver}')
        machine.agent.run(f'ip link set {device} up')
        if wanted == 'rebinding':
            # It has no memory of what its name had.
            machine.agent.run(f'ip addr add 10.0.2.15/24 dev {device}')
        tap.ok(how.startswith(wanted) and comes_back(machine),
               f'{driver} works after a restore by {wanted}, with its '
               f'interface {state}', how)


# pylint: disable-next=too-many-arguments
def disk_restore(tap, machine, driver, address, offer, how):
    """How depends on what the driver offers."""
    for function, other in bound(machine):
        machine.drive('unbind', function, other)
    machine.drive('bind', address, driver)
    write_and_read(tap, machine, driver, address)
    machine.offers(address, offer)
    found = replace(machine, address)
    machine.offers(address, 'all')
    tap.ok(found.startswith(how), f'{driver} is restored by {how}', found)
    write_and_read(tap, machine, driver, address)
    machine.drive('unbind', address, driver)


def write_and_read(tap, machine, driver, address):
    """Data to a disk and back, in requests of all sizes."""
    # Before there is one, the pattern stands for itself.
    find = f"""for d in /sys/block/*; do
        [ -e "$d/dev" ] || continue
        case "$(readlink -f "$d")" in *{address}*) echo "${{d##*/}}";; esac
        done"""
    disk = guest.wait_until(lambda: machine.agent.run(find).strip(),
                            f'a disk of {driver}', 60)
    guest.wait_until(lambda: machine.succeeds(f'[ -b /dev/{disk} ]'),
                     f'/dev/{disk}', 60)
    good = machine.succeeds(f"""
        dd if=/dev/urandom of=/tmp/sent bs=64k count=16 2> /dev/null
        for size in 4 12 64 1024; do
            dd if=/tmp/sent of=/dev/{disk} bs=${{size}}k oflag=direct \
                2> /dev/null || exit 1
            dd if=/dev/{disk} of=/tmp/read bs=${{size}}k iflag=direct \
                count=$((1024 / size)) 2> /dev/null || exit 1
            cmp -n $((1024 / size * size * 1024)) /tmp/sent /tmp/read ||
                exit 1
        done""")
    tap.ok(good, f'{driver}: 1 MiB is read as it was written')


def enable_vf(machine):
    """With its physical function, and without all others."""
    for function, driver in bound(machine):
        machine.drive('unbind', function, driver)
    machine.drive('bind', NET, 'igb')
    pf = f'/sys/bus/pci/devices/{NET}'
    machine.agent.run(
        f'ip link set $(ls {pf}/net) up; echo 1 > {pf}/sriov_numvfs')
    guest.wait_until(lambda: machine.succeeds(
        f'[ -d /sys/bus/pci/devices/{VF}/net ]'), 'the VF', 60)
    return pf


def sriov(tap, machine):
    """Both halves of a network card at once; the data goes by the VF."""
    agent = machine.agent
    pf = enable_vf(machine)
    tap.equal((machine.function()[:2], machine.function(VF)[:2]),
              (['tracked', '-'], ['tracked', '-']),
              'igb and igbvf are tracked')
    before = machine.status()
    echo_and_restore(tap, machine, 'igbvf', VF)
    after = machine.status()
    tap.ok(int(after['maps']) > int(before['maps']) + 50,
           'igbvf: its mappings are counted', f'{before} {after}')
    machine.drive('unbind', VF, 'igbvf')
    agent.run(f'echo 0 > {pf}/sriov_numvfs')
    tap.equal(machine.function(VF), None, 'a VF that is gone is forgotten')
    machine.drive('unbind', NET, 'igb')
    status = machine.status()
    tap.equal((pinned(status), status['maps']), (NOTHING, status['unmaps']),
              'igb and igbvf: nothing is left pinned, every map was unmapped')


def stuck(tap, machine):
    """igbvf's reset_prepare() waits for ever if its interface is down.

    So does "echo 1 > reset" in its folder, without us; which is no matter,
    because it recovers from errors, too. Here it is a driver that gets stuck,
    and its guest ends like that.
    """
    enable_vf(machine)
    machine.offers(VF, 'reset')
    machine.drive('bind', OTHER)
    for address, result in (VF, 'running'), (OTHER, 'ok'):
        name = machine.leave_host()
        machine.replaced(address)
        machine.join_host(name)
        machine.wait_restored(result, address)
    echo(tap, machine, 'beside a driver that is stuck e1000e', OTHER)
    tap.equal(machine.function(VF)[3], 'running', 'it is stuck still')


def restore(tap, directory):
    with Guest(directory, 'restore', HOST + NIC + DISK,
               ['dma_track', 'e1000e', 'nvme']) as machine:
        agent = machine.agent
        agent.run('insmod /bin/dma_track_test.ko run=0')
        kind_restore(tap, machine)
        silent_host(tap, machine)
        dead_disk(tap, machine)
        witness(tap, machine)
        tap.equal(machine.splats(), '', 'restore: the kernel did not complain')


def wait_reachable(machine, address='10.0.2.2'):
    """The link takes its time, and what is sent before is dropped."""
    guest.wait_until(lambda: machine.succeeds(f'ping -c 1 -W 1 {address}'),
                     'an answer to ping', 60)


def up(machine):
    machine.agent.run('ip link set eth0 up && '
                      '(ip addr add 10.0.2.15/24 dev eth0 || true)')
    wait_reachable(machine)


def kind_restore(tap, machine):
    up(machine)
    machine.agent.run(f'mount -t tracefs t {TRACING}; '
                      f'echo 1 > {EVENTS}/dma_track_restore/enable')
    name = machine.leave_host()
    machine.replaced()
    machine.join_host(name)
    machine.wait_restored('ok')
    wait_reachable(machine)
    tap.ok('restored for generation 0 by error recovery' in
           machine.agent.run('dmesg'),
           'a driver is restored with its addresses')
    _, log = traced(machine)
    tap.equal(re.findall(r'dma_track_restore: function=(\S+) generation=0 '
                         r'step=(\w+) rc=0', log),
              [(NET, step) for step in ('begins', 'stopped', 'unfenced',
                                        'ends')],
              'tracepoints: each step of a restore')


def host_knows(machine, name):
    """What became of a driver, as the host has been told."""
    return next(one['restored'] for one in machine.qmp.command(
        'query-dma-track')['functions'] if one.get('id') == name)


def silent_host(tap, machine):
    before = machine.function()[2]
    machine.host_answers(-110)
    name = machine.leave_host()
    machine.replaced()
    machine.join_host(name)
    machine.wait_restored('failed')
    tap.ok(machine.function()[0] == 'unbound' and
           machine.function()[2] != before,
           'with a host that does not answer it is not restored',
           str(machine.function()))
    guest.wait_until(lambda: host_knows(machine, 'net0') == 'failed',
                     'the host to know which driver was not restored', 60)
    tap.ok(machine.succeeds('dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16 '
                            'iflag=direct'),
           'the host knows by name which it is, and the guest goes on')
    machine.host_answers(0)
    machine.join_host(machine.leave_host())
    machine.wait_restored('ok')
    tap.equal(machine.function()[:3], ['tracked', '-', before],
              'but as soon as the host is heard of again')
    up(machine)
    tap.ok(True, 'and then it works')

    machine.host_answers(-16)
    name = machine.leave_host()
    machine.replaced()
    machine.join_host(name)
    machine.wait_restored('running')
    machine.host_answers(0)
    machine.wait_restored('ok')
    wait_reachable(machine)
    tap.ok(True, 'a host that is busy is asked again')


def witness(tap, machine):
    """A driver that tells what is asked of it."""
    agent = machine.agent
    override = f'/sys/bus/pci/devices/{NET}/driver_override'

    def testimony():
        """What it has told since it was asked last."""
        return agent.run(
            'dmesg -c | sed -n "s/.*# witness: //p"').splitlines()

    agent.run(f'echo dma_track_witness > {override}; dmesg -c > /dev/null')
    machine.drive('unbind')
    before = machine.function()[2]

    # Before the notice of the replacement, or a look for other reasons.
    machine.replaced()
    machine.drive('bind', driver='dma_track_witness')
    machine.join_host(machine.leave_host())
    guest.wait_until(lambda: machine.function()[2] == before,
                     'the restore to end', 60)
    tap.equal((machine.function()[3], testimony()), ('ok', ['probed']),
              'a driver bound to a function just replaced is left alone')

    name = machine.leave_host()
    machine.replaced()
    machine.join_host(name)
    machine.wait_restored('ok')
    guest.wait_until(lambda: machine.function()[2] == before,
                     'the restore to end', 60)
    tap.equal(testimony(), ['stopped', 'started'],
              'a driver that was there before is restored once')

    machine.host_answers(-5)
    name = machine.leave_host()
    machine.replaced()
    machine.join_host(name)
    machine.wait_restored('failed')
    machine.host_answers(0)
    tap.equal((machine.function()[0], testimony()),
              ('unbound', ['stopped',
                           'removed from a function that is gone']),
              'the driver of a function that stays fenced is let go of')
    machine.drive('bind', driver='dma_track_witness')
    machine.drive('unbind', driver='dma_track_witness')
    tap.equal(testimony(),
              ['probed', 'removed from a function that is there'],
              'and can be bound later')


def dead_disk(tap, machine):
    """Its driver waits at its removal for requests that are in flight."""
    agent = machine.agent
    reader = agent.start('while dd if=/dev/nvme0n1 of=/dev/null bs=64k '
                         'iflag=direct; do :; done 2>/dev/null')
    machine.host_answers(-5)
    name = machine.leave_host()
    machine.replaced(OTHER)
    machine.join_host(name)
    machine.wait_restored('failed', OTHER)
    reader.wait()
    tap.equal(machine.function(OTHER)[0], 'unbound',
              'the driver of a disk with requests in flight is let go of too')
    machine.host_answers(0)
    machine.drive('bind', OTHER, 'nvme')
    guest.wait_until(lambda: machine.succeeds('[ -b /dev/nvme0n1 ]'),
                     'the disk to be there again', 60)
    agent.run('dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16 iflag=direct')
    tap.equal(machine.function(OTHER)[:2], ['tracked', '-'],
              'and can be bound later')


def plug(machine, number, online=True):
    """128 MiB more; returns where the guest has it, online or not yet."""
    before = set(machine.agent.run('ls -d /sys/devices/system/memory/memory*')
                 .split())
    machine.qmp.command('object-add', **{
        'qom-type': 'memory-backend-ram', 'id': f'm{number}',
        'size': 128 << 20})
    machine.qmp.command('device_add', driver='pc-dimm', id=f'dimm{number}',
                        memdev=f'm{number}')
    new = guest.wait_until(
        lambda: set(machine.agent.run(
            'ls -d /sys/devices/system/memory/memory*').split()) - before,
        'new memory in the guest', 60)
    block, = new
    if online:
        guest.wait_until(lambda: machine.agent.run(
            f'cat {block}/state').strip() == 'online', f'{block} online', 60)
    return block


def sections(machine):
    """How many are published."""
    return machine.qmp.command('query-dma-track')['provider']['sections']


def memory(tap, directory):
    with Guest(directory, 'memory', HOST + NIC + VIRTIO_MEM + PMEM,
               ['dma_track', 'e1000e', 'virtio_mem'], memory=ROOM,
               spare=['nfit', 'nd_pmem', 'virtio_pmem']) as machine:
        # So that it can be taken away again.
        machine.agent.run('echo online_movable > '
                          '/sys/devices/system/memory/auto_online_blocks')
        machine.agent.run('insmod /bin/dma_track_test.ko run=0')
        before = sections(machine)
        plug(machine, 0)
        tap.equal(sections(machine), before + 1,
                  'a section is published before its memory comes online')
        name = machine.leave_host()
        plug(machine, 1)
        machine.join_host(name)
        tap.equal((sections(machine), machine.status()['lost']),
                  (before + 2, '0'),
                  'one that was added without a host, as soon as there is one')
        unplug(tap, machine, before)
        virtio_mem(tap, machine)
        silence(tap, machine)
        persistent(tap, machine)
        tap.equal((machine.status()['lost'], machine.splats()), ('0', ''),
                  'memory: nothing was lost, the kernel did not complain')
        unknown(tap, machine)


def take_away(machine, name):
    machine.qmp.command('device_del', id=name)
    machine.qmp.event('DEVICE_DELETED', 60,
                      lambda data: data.get('device') == name)


def unplug(tap, machine, before):
    qmp = machine.qmp
    take_away(machine, 'dimm0')
    tap.equal(sections(machine), before + 1,
              'a section whose memory is taken away is withdrawn')

    # Slow, so that it does not end by itself.
    qmp.command('migrate-set-parameters', **{'max-bandwidth': 65536})
    qmp.command('migrate', uri='exec:cat > /dev/null')
    qmp.event('MIGRATION', 60, lambda data: data.get('status') == 'active')
    block = machine.agent.run(
        'cd /sys/devices/system/memory && ls -d memory* | sort -V | '
        'tail -n 1').strip()
    state = f'/sys/devices/system/memory/{block}/state'
    machine.agent.run(f'echo offline > {state}')
    tap.equal(sections(machine), before + 1,
              'not while the host migrates the guest')
    machine.agent.run(f'echo online_movable > {state}')
    qmp.command('migrate_cancel')
    qmp.event('MIGRATION', 60, lambda data: data.get('status') == 'cancelled')
    guest.wait_until(lambda: machine.status()['phase'] == 'idle',
                     'the guest to stop logging', 30)
    take_away(machine, 'dimm1')
    tap.equal((sections(machine), machine.status()['lost']), (before, '0'),
              'but after it')


def virtio_mem(tap, machine):
    """Memory that comes and goes as the host wishes."""
    before = sections(machine)

    def resize(mib):
        """The guest has the memory before, or just after, it is online."""
        machine.qmp.command('qom-set', path='/machine/peripheral/vmem0',
                            property='requested-size', value=mib << 20)
        guest.wait_until(
            lambda: machine.qmp.command(
                'qom-get', path='/machine/peripheral/vmem0',
                property='size') == mib << 20, f'{mib} MiB', 60)
        guest.wait_until(
            lambda: machine.agent.run(
                'cat /proc/iomem | grep -c "System RAM (virtio_mem)" || true'
            ).strip() == str(int(mib > 0)) and 'offline' not in
            machine.agent.run('cat /sys/devices/system/memory/*/state'),
            f'{mib} MiB online', 60)

    resize(256)
    tap.equal(sections(machine), before + 2,
              'sections of virtio-mem are published')
    resize(0)
    guest.wait_until(lambda: sections(machine) == before,
                     'the sections to be withdrawn', 60)
    tap.ok(True, 'and withdrawn')
    resize(128)
    tap.equal(sections(machine), before + 1,
              'and published again, those whose memory is back')
    machine.join_host(machine.leave_host())
    tap.equal(sections(machine), before + 1, 'also to a host that is new')
    resize(0)
    guest.wait_until(lambda: sections(machine) == before,
                     'the sections to be withdrawn', 60)


def silence(tap, machine):
    """A host that does not answer, or refuses, gets no frames it lacks."""
    before = sections(machine)
    machine.agent.run(f'echo -110 > {PARAMETERS}/publish')
    block = plug(machine, 2, online=False)
    tap.ok(not machine.succeeds(f'echo online_movable > {block}/state') and
           machine.agent.run(f'cat {block}/state').strip() == 'offline' and
           sections(machine) == before,
           'memory that the host does not accept is not brought online')
    machine.agent.run(f'echo 0 > {PARAMETERS}/publish')
    machine.agent.run(f'echo online_movable > {block}/state')
    tap.equal(sections(machine), before + 1, 'until it does')


def map_frame(machine, disk):
    """Let the pretend device have a page of a pmem disk; what became of it."""
    machine.agent.run(
        f'cat /sys/block/{disk}/device/resource > {PARAMETERS}/frame')
    return machine.agent.run(
        'dmesg | sed -n "s/.*# frame: //p" | tail -n 1').strip()


def load_pmem(machine, drivers, disk):
    """The drivers of pmem, whose disks are numbered as they are found."""
    machine.agent.run(f'for m in {drivers}; do modprobe $m; done')
    guest.wait_until(lambda: machine.succeeds(f'[ -b /dev/{disk} ]'),
                     f'/dev/{disk}', 60)


def persistent(tap, machine):
    """Memory that is never brought online, but has pages."""
    qmp = machine.qmp
    before = sections(machine)
    load_pmem(machine, 'nd_pmem virtio_pmem', 'pmem0')
    tap.equal(sections(machine), before + 1,
              'a section of pmem is published when its driver comes')
    # Slow, so that it does not end by itself.
    qmp.command('migrate-set-parameters', **{'max-bandwidth': 65536})
    qmp.command('migrate', uri='exec:cat > /dev/null')
    qmp.event('MIGRATION', 60, lambda data: data.get('status') == 'active')
    tap.equal(map_frame(machine, 'pmem0'),
              'zone_device=1 mapped=1,1 unmapped=0,0 dirtied=1',
              'pmem is pinned while mapped, and dirtied')
    qmp.command('migrate_cancel')
    qmp.event('MIGRATION', 60, lambda data: data.get('status') == 'cancelled')
    guest.wait_until(lambda: machine.status()['phase'] == 'idle',
                     'the guest to stop logging', 30)


def unknown(tap, machine):
    """Memory of which the host heard nothing, or later."""
    agent = machine.agent
    before = sections(machine)
    # One of the other kind, which has pages only when it is told to.
    load_pmem(machine, 'nfit', 'pmem1')
    guest.wait_until(lambda: machine.succeeds(
        '[ -e /sys/bus/nd/devices/pfn1.0/namespace ]'), 'pfn1.0', 60)
    agent.run(f'''set -e; cd /sys/bus/nd/devices
        echo -5 > {PARAMETERS}/publish
        echo namespace1.0 > ../drivers/nd_pmem/unbind
        echo ram > pfn1.0/mode
        cat /proc/sys/kernel/random/uuid > pfn1.0/uuid
        echo namespace1.0 > pfn1.0/namespace
        echo pfn1.0 > ../drivers/nd_pmem/bind
        echo 0 > {PARAMETERS}/publish''')
    map_frame(machine, 'pmem1')
    tap.equal((sections(machine), machine.status()['lost']), (before, '1'),
              'pmem that the host did not accept is lost when it is mapped')
    try:
        machine.qmp.command('migrate', uri='exec:cat > /dev/null')
        said = 'nothing'
    except vm.QmpError as error:
        said = str(error)
    tap.ok('memory that lies in no published section' in said,
           'and the guest does not migrate', said)
    # Other memory comes and goes meanwhile.
    block = agent.run('ls -d /sys/devices/system/memory/memory* | sort -V | '
                      'tail -n 1').strip()
    toggling = agent.start(f'''until [ -e /tmp/loaded ]; do
        echo offline > {block}/state && echo online_movable > {block}/state ||
            exit 1
        done''')
    agent.run('rmmod dma_track_test && rmmod dma_track && '
              'insmod /bin/dma_track.ko && '
              'insmod /bin/dma_track_test.ko run=0; touch /tmp/loaded', 120)
    tap.equal(toggling.wait(), 0, 'memory comes while the module does')
    tap.equal((sections(machine), map_frame(machine, 'pmem1'),
               machine.status()['lost']),
              (before + 1, 'zone_device=1 mapped=1,1 unmapped=0,0 dirtied=0',
               '0'), 'when the module comes later it finds pmem itself')
    tap.equal(machine.splats(), '', 'pmem: the kernel did not complain')


def phases(tap, directory):
    with Guest(directory, 'phases', HOST + NIC,
               ['dma_track', 'e1000e']) as machine:
        agent, qmp = machine.agent, machine.qmp
        # Unmaps whatever the driver has mapped; a packet that is received may
        # leave its buffer's frame pinned for the other buffer in it.
        restart = 'ip link set eth0 down && ip link set eth0 up'
        agent.run('ip link set eth0 up')
        before = int(machine.status()['dirtied'])
        agent.run(restart)
        tap.equal(int(machine.status()['dirtied']), before,
                  'nothing is dirtied while no migration runs')

        agent.run(f'mount -t tracefs t {TRACING}; '
                  f'echo 1 > {EVENTS}/dma_track_phase/enable; '
                  f'echo 1 > {EVENTS}/dma_track_dirty/enable')
        # Slow, so that it does not end by itself.
        qmp.command('migrate-set-parameters', **{'max-bandwidth': 65536})
        qmp.command('migrate', uri='exec:cat > /dev/null')
        qmp.event('MIGRATION', 60,
                  lambda data: data.get('status') == 'active')
        tap.equal(machine.status()['phase'], 'logging',
                  'before RAM is sent the guest logs')
        agent.run(restart)
        tap.ok(int(machine.status()['dirtied']) > before,
               'unmapped frames are dirtied while it does')
        tap.ok(not machine.succeeds('rmmod dma_track'),
               'the module cannot be unloaded then')
        qmp.command('migrate_cancel')
        qmp.event('MIGRATION', 60,
                  lambda data: data.get('status') == 'cancelled')
        guest.wait_until(lambda: machine.status()['phase'] == 'idle',
                         'the guest to stop logging', 30)
        tap.ok(True, 'it stops logging when the migration is cancelled')
        after = int(machine.status()['dirtied'])
        agent.run(restart)
        tap.equal(int(machine.status()['dirtied']), after,
                  'and dirtying')
        found, log = traced(machine)
        phases_seen = re.findall(r'dma_track_phase: phase=(\w+)', log)
        tap.ok(found.get('dma_track_dirty') == after - before and
               phases_seen and phases_seen[0] == 'logging' and
               phases_seen[-1] == 'idle',
               'tracepoints: each phase and each dirtied frame',
               f'{found} {phases_seen} {after - before}')

        agent.run(f'cd {TRACING} && {trace("dma_unmap")} && '
                  'echo function > current_tracer')
        qmp.command('migrate', uri='exec:cat > /dev/null')
        qmp.event('MIGRATION', 60,
                  lambda data: data.get('status') in ('active', 'failed'))
        tap.equal(machine.status()['lost'], '3',
                  'a bypassed hook sets the lost word')
        qmp.command('migrate_cancel')
        machine.join_host(machine.leave_host())
        tap.equal(machine.status()['lost'], '3',
                  'for good: also when the host is met anew')
        tap.equal(machine.splats(), '', 'phases: the kernel did not complain')


MAKERS = ('initramfs-tools', 'dracut')
BOOT_DRIVERS = ['e1000e', 'nvme']
# What make_images() has begun.
making: dict = {}
WORKER = concurrent.futures.ThreadPoolExecutor(1)


def make_images(kernel):
    """Beside other parts, whose guests mostly wait."""
    # Whoever comes first builds it, alone.
    images.module(kernel, MODULE, 'dma_track')
    making['images'] = WORKER.submit(
        lambda: [images.debian_initrd(kernel, maker, BOOT_DRIVERS)
                 for maker in MAKERS])


class Booted(Guest):
    """A guest that runs from an initial RAM disk of Debian's."""

    def __init__(self, directory, maker):
        self.maker = maker
        super().__init__(directory, maker, HOST + NIC + DISK,
                         extra='root=/dev/none rd.shell=0')

    def arguments(self):
        words = super().arguments()
        words[words.index('-initrd') + 1] = images.debian_initrd(
            self.kernel, self.maker, BOOT_DRIVERS)
        return words


def initramfs(tap, directory):
    making.pop('images').result()
    for maker in MAKERS:
        with Booted(directory, maker) as machine:
            for driver, address in (('e1000e', NET), ('nvme', OTHER)):
                guest.wait_until(
                    lambda: machine.succeeds(
                        f'[ -e /sys/bus/pci/drivers/{driver}/{address} ]'),
                    f'{driver}', 60)
                tap.equal(machine.function(address)[:2], ['tracked', '-'],
                          f'{maker}: {driver} is tracked from the beginning')
            status = machine.status()
            tap.equal((status['connected'], status['lost'],
                       status['unknown_unmaps']), ('1', '0', '0'),
                      f'{maker}: the host was there before')
    if Guest.UNDER_TEST.pinned != paths.kernels()[0][0]:
        # The boot is another's only with our hook; late() is on each kernel.
        return
    with Booted(directory, 'none') as machine:
        machine.agent.run('modprobe dma_track')
        tap.equal(machine.function()[:2], ['untracked', 'bound-before'],
                  'without our hook the drivers are there first')


PARTS = {'api': api, 'bounce': bounce, 'remap': remap, 'behind': behind,
         'load': load, 'tracers': tracers, 'devices': devices,
         'drivers': drivers, 'restore': restore, 'memory': memory,
         'phases': phases, 'initramfs': initramfs}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kernel', help='only this one of kernels.txt')
    parser.add_argument('parts', nargs='*', metavar='PART')
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f'no such part: {" ".join(sorted(unknown))}')
    tap = Tap()
    directory = paths.scratch('guest')
    for pinned, _ in paths.kernels():
        if arguments.kernel not in (None, pinned):
            continue
        Guest.UNDER_TEST = paths.Kernel(pinned)
        tap.label = f', {Guest.UNDER_TEST.release}'
        parts = arguments.parts or PARTS
        if 'initramfs' in parts:
            make_images(Guest.UNDER_TEST)
        for name in parts:
            tap.progress(name + tap.label)
            tap.run(PARTS[name], tap, directory)
    return tap.done()


if __name__ == '__main__':
    paths.run(main)
