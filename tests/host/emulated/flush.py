# SPDX-License-Identifier: GPL-2.0-only
"""Functions that move by ring flush, with their state and without a reset.

A generator sends numbered packets to a guest, which sends each one back. It is
credit-limited: so many packets may be on their way. The wire goes on while the
VM is stopped, as a real one does, and is plugged over to the destination when
the guest has moved; a packet stays on it until a device takes it. So one is
lost if a device took it and the guest never saw it, and comes twice if two
devices handled it: no other part can do either.
"""

import os
import select
import socket
import struct
import threading
import time

import guest
import images
import mail
import oracle

PORT = 7000
WINDOW = 48
# Besides those, sent while the guest runs nowhere. All that can be on their way
# find room in the guest's rings and in its socket.
MORE = 16

DEVICES = {
    'igbvf': 'igb,bus=rp1,netdev=net0,mac=52:54:00:cc:00:02,'
             'x-untracked-dma=on',
    'e1000e': 'e1000e,bus=rp1,netdev=net0,mac=52:54:00:cc:00:01,'
              'x-untracked-dma=on',
}
ON = ',dma-quiesce=on'
# Memory that is not the machine's, and comes before it.
FIRST_MEMORY = ('-object', 'memory-backend-ram,id=first,size=16M')
# Of the function on its bus: igb's first virtual function.
DEVFN = {'igbvf': 0x80, 'e1000e': 0}
MODULES = {'igbvf': ['dma_track', 'igbvf', 'igb'],
           'e1000e': ['dma_track', 'e1000e']}
PEER = '52:54:00:dd:00:01'
SETUP = f'''
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
arp -s 10.9.0.1 {PEER}
'''


def header(mac, size):
    """Of an Ethernet frame with a datagram without a checksum."""
    ip = struct.pack('>BBHHHBBH', 0x45, 0, 28 + size, 0, 0, 64, 17, 0) + \
        bytes([10, 9, 0, 1, 10, 9, 0, 10])
    ip = ip[:10] + struct.pack('>H', mail.checksum(ip)) + ip[12:]
    return bytes.fromhex((mac + PEER).replace(':', '')) + b'\x08\0' + ip + \
        struct.pack('>HHHH', PORT, PORT, 8 + size, 0)


class Generator(threading.Thread):
    """Sends packets and takes their echoes, until it is told to stop.

    total: of all packets; rate: of packets per second, so that they last for
    all rounds. What it shows is written by its thread only.
    """

    WORDS = 100
    HEADER = 42

    def __init__(self, total, rate, rounds):
        super().__init__(daemon=True)
        self.mine, self.theirs = socket.socketpair(socket.AF_UNIX,
                                                   socket.SOCK_SEQPACKET)
        self.mine.setblocking(False)
        self.total = total
        self.period = 1 / rate
        # Written by others. Packets are kept back for send_more().
        self.kept_back = MORE * rounds
        self.window = WINDOW
        self.head = None
        self.ended = False
        # How often each number came back, and how many did.
        self.echoes = bytearray(total)
        self.sent = 0
        self.done = 0
        self.twice = 0
        self.wrong = 0
        self.last = 0

    def payload(self, number):
        return struct.pack('>I', number) * self.WORDS

    def begin(self, mac):
        self.head = header(mac, 4 * self.WORDS)
        self.start()

    def run(self):
        due = time.monotonic()
        while not self.ended:
            may = self.sent < self.total - self.kept_back and \
                self.sent - self.done < self.window and \
                (self.window > WINDOW or time.monotonic() >= due)
            readable, _, _ = select.select([self.mine], [], [],
                                           0 if may else self.period / 2)
            if readable:
                self.take(self.mine.recv(4096))
            if may:
                try:
                    self.mine.send(self.head + self.payload(self.sent))
                    self.sent += 1
                    due = max(due + self.period, time.monotonic() - 0.1)
                except BlockingIOError:
                    pass

    def take(self, data):
        """A packet from the guest; it may have others to send."""
        if data[12:14] != b'\x08\0' or data[23] != 17 or \
                data[36:38] != struct.pack('>H', PORT):
            return
        payload = data[self.HEADER:self.HEADER + 4 * self.WORDS]
        number = struct.unpack_from('>I', payload)[0]
        if number >= self.sent or payload != self.payload(number):
            self.wrong += 1
            return
        self.last = time.monotonic()
        self.echoes[number] = min(self.echoes[number] + 1, 255)
        if self.echoes[number] == 1:
            self.done += 1
        else:
            self.twice += 1

    def wire_is_empty(self):
        """Has a device taken all that was sent?"""
        try:
            return not self.theirs.recv(1, socket.MSG_PEEK |
                                        socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True

    def wait_done(self, number, deadline=300):
        guest.wait_until(lambda: self.done >= number,
                         f'{number} echoes', deadline, 0.05)

    def send_more(self):
        """Some packets beyond the window, now."""
        in_flight = self.sent - self.done
        wanted = self.sent + MORE
        self.window = max(in_flight, WINDOW) + MORE
        self.kept_back -= MORE
        guest.wait_until(lambda: self.sent >= wanted, 'packets on the wire',
                         30, 0.01)
        self.window = WINDOW
        return in_flight

    def lost(self):
        """Wait until nothing comes any more; how many never came back."""
        guest.wait_until(
            lambda: self.done == self.total or
            time.monotonic() - self.last > 10, 'silence', 900, 0.1)
        return self.echoes[:self.sent].count(0)

    def stop(self):
        self.ended = True
        if self.head:
            self.join()
        self.mine.close()
        self.theirs.close()


class Chain:
    """A guest that goes from QEMU to QEMU. Use it as a context."""

    def __init__(self, tap, directory, name, driver, options, generator,
                 words=()):
        """words: more of them for QEMU."""
        self.tap = tap
        self.directory = directory
        self.driver = driver
        self.words = words
        self.name = name
        self.options = options
        self.count = 0
        self.here = None
        # The function that the generator speaks to.
        self.path = None
        self.generator = generator
        # What was on its way at each stop.
        self.in_flight = []
        # Frames that differed after a move, of all moves that were looked at.
        self.lost_frames = None

    def guest(self, incoming):
        self.count += 1
        fd = self.generator.theirs.fileno()
        return guest.Guest(
            self.directory, f'{self.name}-{self.count}',
            ['-device', f'dma-test-wire,id=wire,netdev-id=net0,fd={fd},'
                        f'plugged={"off" if incoming else "on"}',
             '-device', DEVICES[self.driver] + self.options, *mail.PROVIDER,
             *self.words],
            MODULES[self.driver], incoming,
            {'traffic': images.program('traffic')}, fds=(fd,))

    def __enter__(self):
        self.here = self.guest(False)
        self.here.__enter__()
        try:
            if self.driver == 'igbvf':
                self.here.agent.run(mail.ENABLE_VF)
            _, mac = mail.interface(self.here, self.driver)
            self.here.agent.run(SETUP)
            echo = self.here.agent.start(f'exec traffic echo {PORT}')
            echo.line('echoing')
            guest.wait_until(lambda: self.here.qmp.command(
                'query-dma-track')['migratable'], 'a guest that may move')
            self.path = next(
                function['qom-path'] for function in self.here.qmp.command(
                    'query-dma-track')['functions']
                if function['sbdf'] & 0xff == DEVFN[self.driver])
            self.generator.begin(mac)
        except BaseException:
            self.here.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error):
        self.generator.stop()
        self.here.__exit__(*error)

    def state(self):
        return self.here.qmp.command('qom-get', path=self.path,
                                     property='dma-quiesce-state')

    def migrate(self, uri):
        self.here.qmp.command('migrate-set-parameters', **{
            'max-bandwidth': 1 << 33, 'downtime-limit': 3000})
        self.here.qmp.command('migrate', uri=uri)

    def wait_status(self, wanted):
        """Wait for a migration's state, which must not be another's end."""
        status = self.here.qmp.event(
            'MIGRATION', 240, lambda data: data['status'] in (
                wanted, 'completed', 'failed', 'cancelled'))['data']['status']
        if status != wanted:
            info = self.here.qmp.command('query-migrate')
            raise guest.vm.Timeout(f'{status}, not {wanted}: ' +
                                   info.get('error-desc', ''))

    def takes_packets(self):
        """Send some: does the function of the stopped VM take them?"""
        self.in_flight.append(self.generator.send_more())
        for _ in range(5):
            # A round of the main loop, in which it would.
            self.here.qmp.command('query-status')
        try:
            guest.wait_until(self.generator.wire_is_empty, 'an empty wire',
                             0.2, 0.01)
            return True
        except guest.vm.Timeout:
            return False

    def compare_memory(self, there):
        """Frames of two stopped VMs that are not the same: all were sent."""
        here, there = self.here.memory(), there.memory()
        return [hex(gpa) for gpa in range(0, guest.RAM_MIB << 20, oracle.PAGE)
                if here(gpa) != there(gpa)]

    @staticmethod
    def plug(machine, plugged):
        machine.qmp.command('qom-set', path='/machine/peripheral/wire',
                            property='plugged', value=plugged)

    def move(self):
        """To a new QEMU. Did the source take packets after that?"""
        there = self.guest(True)
        there.__enter__()
        try:
            path = 'unix:' + os.path.relpath(os.path.join(
                self.directory, f'{self.name}.move'))
            there.qmp.command('migrate-incoming', uri=path)
            self.here.agent.expect_successor(there.agent)
            self.migrate(path)
            self.wait_status('completed')
            # Its own next migration has events of the same name.
            there.qmp.event('MIGRATION', 60,
                            lambda data: data['status'] == 'completed')
            took = self.takes_packets()
            if self.lost_frames is not None:
                self.lost_frames += self.compare_memory(there)
            self.plug(self.here, False)
            self.plug(there, True)
            there.qmp.cont()
            self.here.agent.moved_to(there.agent)
        except BaseException:
            there.__exit__(None, None, None)
            raise
        self.here.__exit__(None, None, None)
        self.here = there
        return took

    def stay(self, paused):
        """A migration that is given up when all is stopped, and the guest goes
        on. Did the function take packets while the VM was stopped?
        """
        qmp = self.here.qmp
        if paused:
            qmp.command('stop')
        qmp.command('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])
        self.migrate('exec:cat >/dev/null')
        self.wait_status('pre-switchover')
        states = [self.state()] if self.options else []
        took = self.takes_packets()
        qmp.command('migrate_cancel')
        self.wait_status('cancelled')
        if paused:
            states += [self.state()] if self.options else []
            qmp.cont()
        guest.wait_until(lambda: qmp.command('query-status')['running'],
                         'a VM that runs', 30)
        if states and (set(states), self.state()) != ({'quiesced'}, 'running'):
            raise guest.vm.Timeout(f'states {states}, then {self.state()}')
        return took

    def report(self):
        """(lost, twice, wrong) of all packets."""
        made = self.generator
        lost = made.lost()
        self.tap.note(f'{self.name}: {made.sent} packets, {lost} lost, '
                      f'{made.twice} twice, {made.wrong} wrong; on their way '
                      f'at each stop: {self.in_flight}')
        self.here.report_trouble(self.tap)
        return lost, made.twice, made.wrong


def run_rounds(chain, rounds, act):
    """Spread rounds over the packets; in how many were packets taken?"""
    total = chain.generator.total
    took = 0
    for number in range(1, rounds + 1):
        chain.generator.wait_done(number * total // (rounds + 1))
        took += act(number)
    return took


def moves(tap, directory, driver, rounds, total, rate):
    """Stop, flush, move, resume."""
    with Chain(tap, directory, f'flush-{driver}', driver, ON,
               Generator(total, rate, rounds)) as chain:
        took = run_rounds(chain, rounds, lambda _: chain.move())
        tap.equal((took, chain.report()), (0, (0, 0, 0)),
                  f'{driver}: {total} packets, {rounds} moves: none is lost, '
                  'none comes twice')
        tap.ok(any(chain.in_flight),
               f'{driver}: packets were on their way', chain.in_flight)


def memory_is_the_same(tap, directory, driver):
    """Whatever writes it, the guest or its devices, nothing of it is lost.

    A guest whose packets are lost would not tell where. Its memory is not the
    first that QEMU has: what tells TCG to watch it again must find it all the
    same.
    """
    with Chain(tap, directory, f'same-{driver}', driver, ON,
               Generator(3000, 300, 3), FIRST_MEMORY) as chain:
        chain.lost_frames = []
        run_rounds(chain, 3, lambda _: chain.move())
        tap.equal(chain.lost_frames, [],
                  f'{driver}: both sides of a move have the same memory')


def moves_without_flush(tap, directory, driver):
    """The control: a function that goes on when its guest has moved."""
    with Chain(tap, directory, f'noflush-{driver}', driver, '',
               Generator(1000, 300, 1)) as chain:
        took = run_rounds(chain, 1, lambda _: chain.move())
        lost, _, _ = chain.report()
        tap.ok(took == 1 and lost >= MORE,
               f'{driver}: without the flush packets are lost', (took, lost))


def stays(tap, directory, driver, rounds, total, rate):
    """Stop, flush, and resume on the source."""
    with Chain(tap, directory, f'stay-{driver}', driver, ON,
               Generator(total, rate, rounds)) as chain:
        took = run_rounds(chain, rounds,
                          lambda number: chain.stay(number % 2 == 0))
        tap.equal((took, chain.report()), (0, (0, 0, 0)),
                  f'{driver}: {total} packets, {rounds} migrations given up: '
                  'none is lost, none comes twice, none is taken meanwhile')


def stays_without_flush(tap, directory, driver):
    """The control: it is the flush that keeps the function from taking any."""
    with Chain(tap, directory, f'nostay-{driver}', driver, '',
               Generator(1000, 300, 1)) as chain:
        tap.equal(run_rounds(chain, 1, lambda _: chain.stay(False)), 1,
                  f'{driver}: without the flush the function of a stopped VM '
                  'takes packets')


def run(tap, directory):
    tap.run(memory_is_the_same, tap, directory, 'igbvf')
    tap.run(moves_without_flush, tap, directory, 'igbvf')
    tap.run(moves, tap, directory, 'igbvf', 3, 6000, 300)
    tap.run(stays_without_flush, tap, directory, 'igbvf')
    tap.run(stays, tap, directory, 'igbvf', 4, 4000, 300)
    tap.run(moves, tap, directory, 'e1000e', 2, 4000, 300)


def run_full(tap, directory):
    """What the product promises, in full."""
    for driver in DEVICES:
        tap.run(moves_without_flush, tap, directory, driver)
        tap.run(moves, tap, directory, driver, 20, 100000, 1000)
        tap.run(stays_without_flush, tap, directory, driver)
        tap.run(stays, tap, directory, driver, 20, 100000, 1000)
