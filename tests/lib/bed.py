# SPDX-License-Identifier: GPL-2.0-only
"""The nested test bed: real VFIO without hardware.

    this machine
    └─ L1   stock kernel, emulated VT-d, igb with two virtual functions, two DMA
       │    test devices, two edu; QEMU and KVM (AMD's, through TCG)
       ├─ L2 in slot a   first VF, first test device, first edu, by vfio-pci
       └─ L2 in slot b   second of each

A guest is started in one slot and migrates to the other. The slots' QMP and
the agents in the guests are reached over virtio-serial ports of L1, which the
QEMUs in L1 open as their character devices.
"""

import os
import re
import select
import shutil
import subprocess
import time

import images
import paths
import vm

PEER_IP = '10.9.0.1'
GUEST_IP = '10.9.0.10'
# Of both virtual functions: igbvf takes the PF's word for it when it resets.
GUEST_MAC = '52:54:00:bb:00:01'
RAM_MIB = 256

SLOTS = ('a', 'b')
# name -> vendor:device as L1 sees them, in the order of the slots
KINDS = {'vf': None, 'oracle': '1234:444d', 'edu': '1234:11e8',
         'disk': '1b36:0010'}
# The second test device of each slot, where the bed has one.
PEER = 'peer'
# The serial card of each slot that the kernel can migrate: a mediated device.
NATIVE = 'native'
NATIVE_IDS = {'a': '6d747479-0000-4000-8000-00000000000a',
              'b': '6d747479-0000-4000-8000-00000000000b'}
# Of the disk that both slots have, on one medium.
MEDIUM_MIB = 16

TROUBLE = re.compile(
    r'WARNING: |BUG: |Oops: |KASAN|KCSAN|UBSAN|general protection fault|'
    r'possible (circular|recursive|irq) lock|unable to handle|'
    r'Kernel panic|DMAR:.*([Ff]ault|\[DMA)|blocked for more than')

L1_CMDLINE = ('console=ttyS0 intel_iommu=on mitigations=off no5lvl nowatchdog '
              'panic=-1 random.trust_cpu=on')
# Without a last bus the kernel looks for functions on each of 256, a quarter of
# the time that it takes to boot.
L2_CMDLINE = ('console=ttyS0 loglevel=4 mitigations=off no5lvl tsc=reliable '
              'lpj=4000000 nowatchdog panic=-1 random.trust_cpu=on '
              'cryptomgr.notests pci=lastbus=0')
# Under TCG one guest in thirty stands still, spinning for a lock that nobody
# holds, always beside the timer's interrupt. Not seen in 23 boots without the
# last two of these, nor in 23 without virtual GIF: an omen, no proof.
L2_CPU = 'host,kvm-pv-unhalt=off,kvm-pv-eoi=off,tsc-deadline=off'
# What the guest loads, in this order.
L2_MODULES = 'dma_track,igbvf,dma_oracle'


def silent(_text):
    """A progress function for those who want none."""


class Guest:
    """One QEMU in L1 with the guest in it, in slot a or b."""

    def __init__(self, bed, slot, **options):
        self.bed = bed
        self.slot = slot
        self.qmp = bed.qmp[slot]
        self.agent = bed.agents[slot]
        self.options = options
        self.command = None

    def arguments(self, incoming=False, provider='virtio-dma-track-pci',
                  tracked_by=None, functions=('vf', 'oracle'),
                  function_options='', modules=L2_MODULES, smp=2, extra='',
                  backend='type1', options_of=()):
        """The command line; the options are what the tests vary.

        provider: the tracking device with its properties, None for none
        tracked_by: dma-tracked-by of all assigned functions
        function_options: further properties of all assigned functions
        options_of: {kind: still further properties of that one}
        backend: of VFIO: type1, or iommufd where the bed has it
        """
        slot = self.slot
        words = [
            f'-name {slot} -L /firmware -accel kvm',
            '-M q35,kernel-irqchip=on,sata=off,smbus=off,vmport=off,hpet=off',
            f'-cpu {L2_CPU} -smp {smp} -m {RAM_MIB}',
            '-nodefaults -display none',
            '-no-reboot -kernel /l2/vmlinuz -initrd /l2/initrd',
            f'-append "{L2_CMDLINE} bed.modules={modules}"',
            f'-serial file:/run/{slot}/console',
            f'-chardev pipe,id=qmp,path=$(cat /run/port.{slot}.qmp)',
            '-object monitor-qmp,id=monitor,chardev=qmp',
            f'-chardev pipe,id=agent,path=$(cat /run/port.{slot}.agent)',
            '-device virtio-serial-pci,addr=3',
            '-device virtserialport,chardev=agent,name=l2.agent',
            '-device pcie-root-port,id=rp1,chassis=1,addr=4',
            '-device pcie-root-port,id=rp2,chassis=2,addr=5',
            '-device pcie-root-port,id=rp3,chassis=3,addr=8',
            '-device pcie-root-port,id=rp4,chassis=4,addr=9',
        ]
        if provider:
            words.append(f'-device {provider},addr=6')
        if backend == 'iommufd':
            words.append('-object iommufd,id=iommufd0')
            function_options += ',iommufd=iommufd0'
        for kind in functions:
            words.append('-device ' + self.function(
                kind, tracked_by, ','.join((
                    function_options, dict(options_of).get(kind, '')))))
        if incoming:
            words.append('-incoming defer')
        words.append(extra)
        return ' '.join(words)

    def function(self, kind, tracked_by=None, options=''):
        """An assigned function, as QEMU's command line wants it."""
        where = {'vf': 'bus=rp1', 'oracle': 'bus=rp2', 'edu': 'addr=7',
                 'disk': 'bus=rp3', PEER: 'bus=rp4', NATIVE: 'addr=a'}[kind]
        if kind == NATIVE:
            device = f'sysfsdev=/sys/bus/mdev/devices/{NATIVE_IDS[self.slot]}'
        else:
            device = f'host={self.bed.function(kind, self.slot)}'
        text = f'vfio-pci,{device},id={kind}0,{where}'
        if tracked_by:
            text += f',dma-tracked-by={tracked_by}'
        return text + (',' + options.strip(',') if options else '')

    def launch(self):
        """Start QEMU and speak with it; the guest boots meanwhile."""
        self.agent.reset()
        with self.qmp.change:
            self.qmp.events.clear()
            self.qmp.greetings = 0
        arguments = self.arguments(**self.options)
        if NATIVE in self.options.get('functions', ()):
            self.bed.make_card(self.slot)
        self.command = self.bed.l1.start(
            f'mkdir -p /run/{self.slot}; : > /run/{self.slot}/console; '
            f'exec qemu-system-x86_64 {arguments}')
        self.check_alive_while(self.qmp.wait_greeting, 60)
        started = self.qmp.start('qmp_capabilities')
        self.check_alive_while(lambda left: self.qmp.finish(started, left), 60)
        self.qmp.command('migrate-set-capabilities', capabilities=[
            {'capability': 'events', 'state': True}])
        return self

    def check_alive_while(self, wait, deadline):
        """wait(seconds) in short turns, to notice it when QEMU ends."""
        end = time.monotonic() + deadline * vm.PATIENCE
        while True:
            try:
                return wait(2 / vm.PATIENCE)
            except vm.Timeout as error:
                if self.command.status is not None:
                    raise vm.Gone(f'QEMU in slot {self.slot} ended with '
                                  f'{self.command.status}: '
                                  f'{self.words()}') from None
                if time.monotonic() > end:
                    raise vm.Timeout(str(error).replace(
                        'within 2 s', f'within {deadline * vm.PATIENCE:.0f} s'
                    )) from None

    def words(self):
        """What QEMU wrote to its standard error."""
        return (self.command.error + self.command.output).decode(
            errors='replace').strip()

    def wait_booted(self, deadline=75, tries=3):
        """Wait for the agent in the guest.

        About every thirtieth guest of two processors stands still under TCG
        while its kernel starts the second one: before any of our code is
        loaded. It gets another try, and the log a line.
        """
        while True:
            try:
                self.check_alive_while(self.agent.wait_ready, deadline)
                return self
            except (vm.Timeout, vm.Gone) as error:
                said = self.console()
                tries -= 1
                if 'bed:' in said or not tries:
                    raise type(error)(f'{error}\n{said}') from None
            self.bed.progress(f'slot {self.slot}: the kernel did not come up, '
                              'once more')
            self.stop()
            self.launch()

    def console(self, lines=30):
        return self.bed.l1.run(f'tail -n {lines} /run/{self.slot}/console')

    def run(self, script, deadline=60):
        """Run a shell script in the guest."""
        return self.agent.run(script, deadline)

    def stop(self, deadline=30):
        """End QEMU."""
        if not self.command or self.command.status is not None:
            return
        try:
            self.qmp.start('quit')
            self.command.wait(deadline)
        except (vm.Timeout, vm.Gone):
            self.command.signal(9)
            self.command.wait(deadline)

    def trouble(self, allowed=None):
        """Lines of the guest's kernel log that should not be there."""
        return find_trouble(self.run('dmesg'), allowed)

    # --- Assigned functions and the network, in the guest ----------------

    def set_up_network(self, deadline=60):
        """Give the virtual function its address; return its name."""
        return self.run(
            f'name=$(traffic netdev {GUEST_MAC}) && '
            f'ip addr add {GUEST_IP}/24 dev $name && '
            'ip link set $name up && echo $name', deadline).strip()

    def read_frames(self, frames, deadline=120):
        """Guest frames by QEMU's own view of guest memory: {gpa: bytes}."""
        runs = []
        for gpa in sorted(frames):
            if runs and runs[-1][0] + runs[-1][1] == gpa:
                runs[-1][1] += 4096
            else:
                runs.append([gpa, 4096])
        where = f'/run/{self.slot}/frames'
        self.bed.l1.run(f'rm -rf {where}; mkdir -p {where}')
        started = [self.qmp.start('pmemsave', val=gpa, size=size,
                                  filename=f'{where}/{gpa:012x}')
                   for gpa, size in runs]
        for command in started:
            self.qmp.finish(command, deadline)
        # The names sort as the addresses do.
        data = self.bed.l1.run_bytes(f'cat {where}/*', deadline)
        self.bed.l1.run(f'rm -rf {where}')
        found, offset = {}, 0
        for gpa, size in runs:
            for frame in range(gpa, gpa + size, 4096):
                found[frame] = data[offset:offset + 4096]
                offset += 4096
        if offset != len(data):
            raise ValueError(f'{len(data)} bytes of frames, wanted {offset}')
        return found


def find_trouble(dmesg, allowed=None):
    return [line for line in dmesg.splitlines() if TROUBLE.search(line)
            and not (allowed and re.search(allowed, line))]


class Bed:
    """L1 with everything that the slots need. Use it as a context."""

    def __init__(self, progress=silent, qemu=None, kernel=None,
                 l1_kernel=None, iommufd=False, flush=False, disk=False,
                 peer=False, native=False):
        """What the tests of this bed need beyond the usual.

        l1_kernel: of L1, if it is not the guests'
        iommufd: VFIO's modules with iommufd in L1, and /dev/iommu
        flush: functions that have the ring-flush capability in hardware
        disk: an NVMe controller for each slot, both with the same medium
        peer: a second DMA test device for each slot
        native: what a device is made with that the kernel can migrate; needs
        iommufd
        """
        self.progress = progress
        self.iommufd = iommufd
        self.flush = flush
        self.disk = disk
        self.peer = peer
        self.native = native
        self.qemu = qemu or paths.qemu()
        # The one under test, if it is not the one that emulates the bed.
        self.inner_qemu = os.environ.get('DMA_TRACK_INNER_QEMU') or self.qemu
        self.kernel = kernel or paths.Kernel()
        self.l1_kernel = l1_kernel or self.kernel
        self.directory = paths.scratch('bed')
        self.process = None
        self.machine = None
        self.l1 = None
        self.qmp = {}
        self.agents = {}
        self.functions = {}
        self.guests = []
        # Commands in the peer's namespace.
        self.peers = []
        # Leave logs behind. What fails sets it.
        self.keep = bool(os.environ.get('DMA_TRACK_KEEP'))

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if error:
            self.keep = True
            if self.process:
                print(self.process.tail(12))
        self.stop()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- L1 -------------------------------------------------------------------

    def oracle_log(self, slot, kind='oracle'):
        """The log of a slot's test device, on this machine."""
        return os.path.join(self.directory, f'{kind}-{slot}.log')

    def socket(self, name):
        # Relative: the checkout may be deeper than a socket's path can be.
        return os.path.relpath(os.path.join(self.directory, name))

    def arguments(self, initrd):
        ports = ['l1.agent'] + [f'{slot}.{what}' for slot in SLOTS
                                for what in ('qmp', 'agent')]
        words = [self.qemu, '-name', 'l1']
        for directory in paths.FIRMWARE:
            words += ['-L', directory]
        accel = paths.ACCEL
        if accel == 'tcg':
            accel = 'tcg,thread=multi,tb-size=512'
        words += [
            '-M', 'q35,kernel-irqchip=split', '-accel', accel,
            '-cpu', 'max,-la57' if paths.ACCEL == 'tcg' else 'host',
            # One, because TCG's processors see each other's changes of code
            # late: about every eighth guest did not boot, or L1 stood still.
            '-smp', '1', '-m', '4G', '-nodefaults', '-display', 'none',
            '-no-reboot',
            '-device', 'intel-iommu,intremap=on,caching-mode=on,'
                       'device-iotlb=on',
            '-kernel', self.l1_kernel.image, '-initrd', initrd,
            '-append', L1_CMDLINE,
            '-serial', 'file:' + os.path.join(self.directory, 'l1.console'),
            '-qmp', f'unix:{self.socket("l1.qmp")},server=on,wait=off',
            '-device', 'virtio-serial-pci,max_ports=16,addr=3',
        ]
        for port in ports:
            words += ['-chardev', f'socket,id={port},server=on,wait=off,'
                                  f'path={self.socket(port)}',
                      '-device', f'virtserialport,chardev={port},name={port}']
        # A hub with nobody else on it: traffic stays inside the PF's switch.
        words += [
            '-device', 'pcie-root-port,id=rp1,chassis=1,addr=4',
            '-netdev', 'hubport,id=net0,hubid=0',
            '-device', 'igb,bus=rp1,netdev=net0,mac=52:54:00:aa:00:01' +
            (',dma-quiesce=on' if self.flush else '')]
        for number, slot in enumerate(SLOTS):
            words += [
                '-device', f'pcie-root-port,id=rp-{slot},chassis={number + 2},'
                           f'addr={number + 5}',
                '-device', f'edu,id=edu-{slot},addr={number + 8}']
            if self.has_oracle():
                words += self.oracle_arguments('oracle', slot, f'rp-{slot}')
            if self.peer:
                words += [
                    '-device', f'pcie-root-port,id=rq-{slot},'
                               f'chassis={number + 8},addr={number + 14}']
                words += self.oracle_arguments(PEER, slot, f'rq-{slot}')
            if self.disk:
                words += self.disk_arguments(number, slot)
        return words

    def oracle_arguments(self, kind, slot, bus):
        return ['-device', f'dma-test,id={kind}-{slot},bus={bus},'
                           f'log={self.oracle_log(slot, kind)}' +
                (',dma-quiesce=on' if self.flush else '')]

    def medium(self):
        """The file of the disk, on this machine."""
        return os.path.join(self.directory, 'medium')

    def disk_arguments(self, number, slot):
        """A controller whose writes can be held up: see hold_writes()."""
        return [
            '-object', f'throttle-group,id=hold-{slot}',
            '-blockdev', f'file,node-name=medium-{slot},locking=off,'
                         f'filename={self.medium()}',
            '-blockdev', f'raw,node-name=raw-{slot},file=medium-{slot}',
            '-blockdev', f'throttle,node-name=disk-{slot},file=raw-{slot},'
                         f'throttle-group=hold-{slot}',
            '-device', f'pcie-root-port,id=rd-{slot},chassis={number + 6},'
                       f'addr={number + 12}',
            '-device', f'nvme,id=nvme-{slot},bus=rd-{slot},'
                       f'serial={slot},drive=disk-{slot}']

    def hold_writes(self, slot, hold=True):
        """Let writes that reach a slot's disk wait, after the next one."""
        self.machine.command(
            'qom-set', path=f'/objects/hold-{slot}', property='limits',
            value={'bps-write': 1 if hold else 0})

    def has_oracle(self):
        text = subprocess.run(
            [self.qemu, '-device', 'help'], check=True,
            stdout=subprocess.PIPE).stdout.decode()
        return '"dma-test"' in text

    def start(self):
        begin = time.monotonic()
        self.progress('images')
        images.prune()
        if self.disk:
            with open(self.medium(), 'wb') as file:
                file.truncate(MEDIUM_MIB << 20)
        initrd = images.l1_initrd(self.l1_kernel, self.kernel,
                                  self.inner_qemu, self.iommufd)
        self.progress(f'booting L1 ({paths.ACCEL})')
        self.process = vm.Process('l1', self.arguments(initrd),
                                  self.directory)
        self.machine = vm.Qmp('QEMU of L1', self.socket('l1.qmp'), 20)
        self.machine.open(20)
        # Before the guest opens them: a port without a listener is hung up.
        self.l1 = vm.Agent('L1', self.socket('l1.agent'))
        for slot in SLOTS:
            self.qmp[slot] = vm.Qmp(f'QEMU of slot {slot}',
                                    self.socket(f'{slot}.qmp'))
            self.agents[slot] = vm.Agent(f'guest in slot {slot}',
                                         self.socket(f'{slot}.agent'))
        self.wait_l1(180)
        self.progress('L1 is up; functions to vfio-pci')
        self.set_up_l1()
        self.progress(f'L1 is ready after {time.monotonic() - begin:.1f} s')

    def wait_l1(self, deadline):
        end = time.monotonic() + deadline * vm.PATIENCE
        while True:
            try:
                return self.l1.wait_ready(2 / vm.PATIENCE)
            except (vm.Timeout, vm.Gone):
                if not self.process.alive():
                    raise vm.Gone('QEMU of L1 ended:\n' +
                                  self.process.tail()) from None
                if time.monotonic() > end:
                    raise vm.Timeout('L1 does not come up:\n' +
                                     self.process.tail()) from None

    def set_up_l1(self):
        """Create the virtual functions, give everything to vfio-pci."""
        text = self.l1.run(rf'''
            set -e
            for port in /sys/class/virtio-ports/*; do
                echo /dev/${{port##*/}} > /run/port.$(cat $port/name)
            done
            modprobe kvm_amd vgif=0
            modprobe vfio-pci
            modprobe vfio_iommu_type1
            modprobe igb
            for pf in /sys/bus/pci/drivers/igb/0000:*; do :; done
            name=$(ls $pf/net)
            /sbin/ip netns add peer
            /sbin/ip link set $name netns peer
            /sbin/ip -n peer link set lo up
            /sbin/ip -n peer link set $name up
            /sbin/ip -n peer addr add {PEER_IP}/24 dev $name
            echo 0 > $pf/sriov_drivers_autoprobe
            echo 2 > $pf/sriov_numvfs
            /sbin/ip -n peer link set $name vf 0 mac {GUEST_MAC}
            /sbin/ip -n peer link set $name vf 1 mac {GUEST_MAC}
            bind() {{
                echo vfio-pci > $1/driver_override
                echo ${{1##*/}} > /sys/bus/pci/drivers_probe
            }}
            for i in 0 1; do
                vf=$(readlink -f $pf/virtfn$i)
                bind $vf
                echo "vf ${{vf##*/}}"
            done
            for dev in /sys/bus/pci/devices/*; do
                case $(cat $dev/vendor):$(cat $dev/device) in
                0x1234:0x444d) bind $dev; echo "oracle ${{dev##*/}}" ;;
                0x1234:0x11e8) bind $dev; echo "edu ${{dev##*/}}" ;;
                0x1b36:0x0010) bind $dev; echo "disk ${{dev##*/}}" ;;
                esac
            done''', 90)
        if self.native:
            self.l1.run('modprobe mtty')
        found = {}
        for line in text.split('\n'):
            if line.strip():
                kind, address = line.split()
                found.setdefault(kind, []).append(address)
        for kind, addresses in found.items():
            addresses.sort()
            # By the order of their ports: the second ones come last.
            for name, some in ((kind, addresses[:2]), (PEER, addresses[2:])):
                for slot, address in zip(SLOTS, some):
                    self.functions[name, slot] = address

    def make_card(self, slot):
        """A new serial card for a slot.

        One that is given back in the middle of a migration stays in its state.
        """
        card = NATIVE_IDS[slot]
        self.l1.run(f'''
            cd /sys/class/mtty/mtty/mdev_supported_types/mtty-2
            [ ! -e devices/{card} ] || echo 1 > devices/{card}/remove
            echo {card} > create''')

    def function(self, kind, slot):
        """The address in L1 of a slot's function of that kind."""
        return self.functions[kind, slot]

    def issued(self, slot, kind='oracle'):
        """How many transfers of a slot's test device are in flight."""
        return self.machine.command('qom-get', property='issued',
                                    path=f'/machine/peripheral/{kind}-{slot}')

    def break_oracle(self, slot, fault):
        """Give a slot's test device a fault, or take it away: 'none'."""
        self.machine.command('qom-set', property='x-fault', value=fault,
                             path=f'/machine/peripheral/oracle-{slot}')

    def set_marker(self, slot, value, kind='oracle'):
        """Write a marker into the log of a slot's test device."""
        self.machine.command('qom-set', property='marker', value=value,
                             path=f'/machine/peripheral/{kind}-{slot}')

    def trouble(self, allowed=None):
        """Lines of L1's kernel log that should not be there."""
        return find_trouble(self.l1.run('dmesg'), allowed)

    def clear_trouble(self):
        """A test that provoked faults on purpose forgets them here."""
        self.l1.run('dmesg -c > /dev/null')

    def in_peer(self, script):
        """Begin to run something in the peer's network namespace."""
        command = self.l1.start(f'exec /sbin/ip netns exec peer {script}')
        self.peers.append(command)
        return command

    def guest(self, slot, **options):
        """A guest in a slot, not started. See Guest.arguments()."""
        guest = Guest(self, slot, **options)
        self.guests.append(guest)
        return guest

    def describe_l1(self):
        """What L1's kernel says of the guests' threads and of KVM's exits.

        A processor of a guest that makes no progress runs, exits for one reason
        again and again, or sleeps: the counters tell which.
        """
        try:
            return self.l1.run(r'''
                stats() {
                    for file in /sys/kernel/debug/kvm/*-*/*; do
                        [ -f $file ] && echo "${file##*kvm/} $(cat $file)"
                    done
                }
                stats > /run/before
                for task in /proc/$(pidof -s qemu-system-x86_64)/task/* \
                            $(ls -d /proc/[0-9]*/task/* | grep -v agent); do
                    case $(cat $task/comm 2>/dev/null) in
                    CPU*|qemu*) echo "${task##*/} $(cat $task/comm)" \
                        "$(cut -d' ' -f3,14,15 $task/stat)" \
                        "$(cat $task/wchan)" ;;
                    esac
                done | sort -u
                stats | diff /run/before - | grep '^[<>]' | head -n 80''', 30)
        except (vm.Gone, vm.Timeout, vm.CommandFailed) as error:
            return str(error)

    def describe_guests(self):
        """What is left to see of guests after a failure."""
        text = '--- L1\n' + self.describe_l1() + '\n'
        for guest in self.guests:
            try:
                text += f'--- slot {guest.slot}: {guest.words()}\n'
                text += guest.console(40)
                # Where the processors are, if it is stuck.
                registers = guest.qmp.command('human-monitor-command', 10, **{
                    'command-line': 'info registers -a'})
                text += ''.join(line + '\n' for line in registers.split('\n')
                                if line.startswith(('CPU', 'R', 'E')))
            except (vm.Gone, vm.Timeout, vm.CommandFailed,
                    vm.QmpError) as error:
                text += str(error) + '\n'
        return text

    def stop_guests(self):
        for guest in self.guests:
            try:
                guest.stop()
            except (vm.Gone, vm.Timeout):
                pass
        self.guests = []
        for command in self.peers:
            if command.status is None:
                command.signal(9)
                command.wait()
        self.peers = []

    def stop(self):
        for channel in (self.l1, self.machine, *self.qmp.values(),
                        *self.agents.values()):
            if channel:
                channel.close()
        if self.process:
            self.process.stop()


class Move:
    """One migration from a guest to a waiting one, driven by events."""

    # Enough for any move of the bed once it is allowed to complete.
    DEADLINE = 180

    def __init__(self, source, destination, progress=silent):
        self.source = source
        self.destination = destination
        self.progress = progress
        self.bandwidth = None
        self.is_paused = False
        self.info = {}

    def start(self, bandwidth=200 << 20, downtime_ms=0, **parameters):
        """Start and stay in precopy for as long as the downtime is 0.

        Raises vm.QmpError if QEMU refuses.
        """
        self.bandwidth = bandwidth
        socket = 'unix:/run/migration'
        arguments = {'max-bandwidth': bandwidth,
                     'downtime-limit': downtime_ms, **parameters}
        self.source.qmp.command('migrate-set-parameters', **arguments)
        self.source.bed.l1.run('rm -f /run/migration')
        self.destination.qmp.command('migrate-incoming', uri=socket)
        self.source.agent.expect_successor(self.destination.agent)
        # It tells also how it came here itself, if it was moved before.
        with self.source.qmp.change:
            self.source.qmp.events.clear()
        self.source.qmp.command('migrate', uri=socket)

    def wait_pass(self, number, deadline=120):
        """Wait until everything was sent number - 1 times."""
        def match(data):
            return data['pass'] >= number

        self._wait('MIGRATION_PASS', match, deadline)

    def linger(self, bandwidth=4 << 20):
        """Go on in precopy, but leave the processors to the guest."""
        self.source.qmp.command('migrate-set-parameters',
                                **{'max-bandwidth': bandwidth})

    def allow(self, downtime_ms=2000):
        """From now on it may complete."""
        self.source.qmp.command('migrate-set-parameters', **{
            'max-bandwidth': self.bandwidth, 'downtime-limit': downtime_ms})

    def complete(self, downtime_ms=2000):
        """Let it end; return its status."""
        self.allow(downtime_ms)
        return self.finish()

    def finish(self):
        """Wait for its end, whatever that is; return its status."""
        event = self._wait('MIGRATION', lambda data: data['status'] in (
            'completed', 'failed', 'cancelled'), self.DEADLINE)
        status = event['data']['status']
        self.info = self.source.qmp.command('query-migrate')
        if status == 'completed':
            if self.is_paused:
                # It stays as the source was, whatever it was told before.
                self.destination.qmp.event(
                    'MIGRATION', self.DEADLINE,
                    lambda data: data['status'] == 'completed')
                self.destination.qmp.cont()
            self.destination.qmp.event('RESUME', self.DEADLINE)
        return status

    def pause(self):
        """Stop the source's vCPUs before it starts."""
        self.source.qmp.command('stop')
        self.is_paused = True

    def wait_switchover(self):
        """With pause-before-switchover: wait until it has stopped there."""
        self._wait('MIGRATION', lambda data: data['status'] ==
                   'pre-switchover', self.DEADLINE)

    def go_on(self):
        """And let it go on."""
        self.source.qmp.command('migrate-continue', state='pre-switchover')

    def _wait(self, name, match, deadline):
        end = time.monotonic() + deadline * vm.PATIENCE
        told = time.monotonic()
        while True:
            try:
                return self.source.qmp.event(name, 2 / vm.PATIENCE, match)
            except vm.Timeout:
                failed = [event for event in self.source.qmp.events
                          if event['event'] == 'MIGRATION' and
                          event['data']['status'] in ('failed', 'cancelled')]
                if failed and name != 'MIGRATION':
                    info = self.source.qmp.command('query-migrate')
                    raise vm.Gone('migration failed: ' + info.get(
                        'error-desc', '')) from None
                if time.monotonic() > end:
                    raise vm.Timeout(
                        f'no {name}: ' + str(self.source.qmp.command(
                            'query-migrate'))) from None
            if time.monotonic() - told > 3:
                told = time.monotonic()
                self.progress(self.describe())

    def describe(self):
        info = self.source.qmp.command('query-migrate')
        ram = info.get('ram', {})
        return (f'migrating: {info.get("status")}, pass '
                f'{ram.get("dirty-sync-count")}, '
                f'{ram.get("transferred", 0) >> 20} MiB sent, '
                f'{ram.get("remaining", 0) >> 20} MiB left')

    def follow_guest(self):
        """The destination's agent goes on with the source's commands."""
        self.source.agent.moved_to(self.destination.agent)


def wait_until(condition, what, deadline=60, every=0.1):
    """Ask again and again: for what reports no event of its own."""
    end = time.monotonic() + deadline * vm.PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise vm.Timeout(f'not within {deadline * vm.PATIENCE:.0f} s: '
                             f'{what}')
        select.select([], [], [], every)
