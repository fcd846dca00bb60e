# SPDX-License-Identifier: GPL-2.0-only
"""A guest that goes from QEMU to QEMU, with an oracle and traffic in it.

Two functions whose writes QEMU does not see: the test device that keeps a log,
and a virtual function over which numbered packets go to the guest and back.
Each leg ends on another QEMU, or comes to nothing and the guest stays. After
either, memory is compared with the log, and no packet may be lost or come
twice.
"""

import contextlib
import os
import signal

import flush
import guest
import hidden
import images
import link
import mail
import move
import oracle

vm = guest.vm

CAPABILITIES = ('return-path', 'pause-before-switchover', 'multifd', 'xbzrle',
                'auto-converge', 'mapped-ram', 'x-ignore-shared')
# Of a migration that says nothing of them.
PARAMETERS = {'tls-creds': '', 'multifd-compression': 'none',
              'multifd-channels': 2}
# Bytes per second while a migration is not to end yet.
BANDWIDTH = 100 << 20
ENDS = ('completed', 'failed', 'cancelled')
PARTS = {
    'nic': ('-device', flush.DEVICES['igbvf'] + flush.ON),
    'oracle': ('-device', 'dma-test,id=oracle,bus=rp2,clock=virtual,log=LOG,'
                          'x-untracked-dma=on,dma-quiesce=on'),
    'tracking': ('-device', 'virtio-dma-track-pci,id=tracker,addr=6,'
                            'ack-timeout-ms=3000'),
    'disk': ('-blockdev', 'file,node-name=medium,filename=MEDIUM',
             '-device', 'virtio-blk-pci,drive=medium,addr=7'),
}


class Packets(flush.Generator):
    """Goes on for as long as the journey does."""

    def __init__(self):
        super().__init__(1 << 20, 80, 0)
        self.known = (0, 0, 0)

    def goes_on(self):
        """See echoes of packets that are sent from now on."""
        self.wait_done(self.sent + flush.WINDOW, 90)

    def settle(self):
        """Let all come back; how many were lost, twice, wrong since."""
        self.kept_back = self.total
        with contextlib.suppress(vm.Timeout):
            guest.wait_until(lambda: self.done == self.sent, 'all echoes', 20,
                             0.05)
        now = self.sent - self.done, self.twice, self.wrong
        found = tuple(new - old for new, old in zip(now, self.known))
        self.known = now
        self.kept_back = 0
        return found


class Journey:
    """Use it as a context: the guest has booted then, and traffic runs."""

    # pylint: disable-next=too-many-arguments
    def __init__(self, tap, directory, name, memory=None, modules=(),
                 words='', **parts):
        """memory: words for the guest's; modules: more of them.

        words: for its kernel.
        parts: other words for a part of PARTS, or none.
        """
        self.tap = tap
        self.directory = directory
        self.name = name
        self.memory = memory
        self.kernel_words = words
        self.parts = {**PARTS, **parts}
        self.is_tracked = bool(self.parts['tracking'])
        self.modules = ['dma_track'] + (
            ['igbvf', 'igb'] if self.parts['nic'] else []) + [
                'dma_oracle', *modules]
        # Both ends have it, as hosts with shared storage do.
        self.medium = os.path.join(directory, f'{name}.medium')
        with open(self.medium, 'wb') as file:
            file.truncate(1 << 20)
        self.packets = Packets()
        self.count = 0
        self.here = None
        self.noise = None
        # Why the last migration failed, as the source says.
        self.words = ''
        # The file of memory that both sides can have, if there is one.
        self.shared = None
        # What the last comparison has found.
        self.result = None
        # What QEMU says about the final pass of the last that succeeded.
        self.last_info = None
        # Of the oracle, as of the last work().
        self.pages = []
        # The log of this QEMU tells all that was written to these pages.
        self.is_fresh = False

    def machine(self, incoming, memory=None, **changes):
        """A QEMU that has not been started."""
        self.count += 1
        fd = self.packets.theirs.fileno()
        name = f'{self.name}-{self.count}'
        log = os.path.relpath(os.path.join(self.directory, f'{name}.dma'))
        parts = {**self.parts, **changes}
        words = [word.replace('LOG', log).replace('MEDIUM', self.medium)
                 for part in parts.values() for word in part]
        if 'netdev=net0' in ' '.join(words):
            words = ['-device', f'dma-test-wire,id=wire,netdev-id=net0,fd={fd},'
                     f'plugged={"off" if incoming else "on"}'] + words
        machine = guest.Guest(
            self.directory, name, words, self.modules, incoming,
            {'traffic': images.program('traffic')}, fds=(fd,),
            memory=memory or self.memory)
        machine.words = self.kernel_words
        return machine

    def __enter__(self):
        self.here = self.machine(False)
        self.here.__enter__()
        try:
            if self.parts['nic']:
                self.start_traffic()
            if self.is_tracked:
                guest.wait_until(lambda: self.tracking()['migratable'],
                                 'a guest that may move')
        except BaseException as error:
            self.here.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, *error):
        self.packets.stop()
        self.here.__exit__(*error)

    def start_traffic(self):
        self.here.agent.run(mail.ENABLE_VF)
        _, mac = mail.interface(self.here, 'igbvf')
        self.here.agent.run(flush.SETUP)
        echo = self.here.agent.start(f'exec traffic echo {flush.PORT}')
        echo.line('echoing')
        self.packets.begin(mac)

    def tracking(self):
        return self.here.qmp.command('query-dma-track')

    def functions(self):
        """The oracle's and the virtual one, of all that there could be."""
        found = [one for one in self.tracking()['functions']
                 if one.get('id') == 'oracle' or (
                     one['name'] == 'igbvf' and
                     one['sbdf'] & 0xff == flush.DEVFN['igbvf'])]
        if len(found) != 1 + bool(self.parts['nic']):
            raise vm.Gone(f'functions are missing: {found}')
        return found

    # --- A leg, step by step ------------------------------------------------

    @contextlib.contextmanager
    def destination(self, **changes):
        """A QEMU that waits for the guest; ended if the guest does not stay.

        changes: where it differs from the others.
        """
        there = self.machine(True, **changes)
        with contextlib.ExitStack() as stack:
            stack.enter_context(there)
            yield there
            if there is self.here:
                stack.pop_all()

    @contextlib.contextmanager
    def linked(self, **changes):
        """(link, destination)."""
        with self.destination(**changes) as there:
            with link.Link(self.directory, there.name,
                           there.path('in')) as wire:
                yield wire, there

    def prepare(self):
        """Have frames for the device to write."""
        state = self.here.status()['state']
        if state == 'streaming':
            self.here.order('unstream')
        if not self.is_fresh:
            if state != 'idle':
                self.here.order('release')
            self.here.order('prepare')
            self.is_fresh = True

    def start(self, there=None, wire=None, uri=None, capabilities=(),
              parameters=None, bandwidth=BANDWIDTH):
        """Begin, and stay in precopy because no downtime is allowed.

        Raises vm.QmpError if QEMU refuses.
        """
        self.make_noise()
        sides = [self.here] + ([there] if there else [])
        for side in sides:
            side.qmp.command('migrate-set-capabilities', capabilities=[
                {'capability': one, 'state': one in capabilities}
                for one in CAPABILITIES])
            side.qmp.command('migrate-set-parameters',
                             **{**PARAMETERS, **(parameters or {})})
        if there:
            if not uri:
                uri = 'unix:' + there.path('in')
                receive(there, uri)
            self.here.agent.expect_successor(there.agent)
        forget(self.here, 'MIGRATION', 'MIGRATION_PASS', 'STOP', 'RESUME')
        if not self.is_tracked:
            # What the noise in its guest needs.
            bandwidth = move.BANDWIDTH
        self.here.qmp.command('migrate-set-parameters', **{
            'max-bandwidth': bandwidth, 'downtime-limit': 0})
        self.here.qmp.command('migrate', uri=wire.uri if wire else uri)

    def make_noise(self):
        """A CPU that writes memory, so that there is always some to send."""
        self.quiet()
        self.noise = self.here.agent.start(
            'exec traffic dirty 1024 20000' if self.is_tracked else move.NOISE)

    def quiet(self):
        if self.noise:
            self.noise.signal(signal.SIGTERM)
            self.noise = None

    def wait_status(self, *wanted, deadline=120):
        """Wait until the migration is in one of these states, or ends."""
        found = self.here.qmp.event(
            'MIGRATION', deadline,
            lambda data: data['status'] in wanted + ENDS)['data']['status']
        if found in ENDS:
            self.words = self.here.qmp.command('query-migrate').get(
                'error-desc', '')
        return found

    def wait_sent_once(self):
        self.wait_pass(2)

    def wait_pass(self, number):
        self.here.qmp.event('MIGRATION_PASS', 180,
                            lambda data: data['pass'] >= number)

    def wait_sent_again(self):
        """Wait until all that is dirty now was sent."""
        self.wait_pass(self.here.qmp.command('query-migrate')['ram'][
            'dirty-sync-count'] + 2)

    def work(self):
        """The device writes all frames, each of which was sent before."""
        here = self.here
        here.mark(oracle.MARK_EXPOSED)
        here.order('stamp', 240)
        self.pages = here.pages()
        here.order('stream')
        self.wait_completions(1100)

    def wait_completions(self, number):
        begin = int(self.here.status()['completions'])
        guest.wait_until(lambda: int(
            self.here.status()['completions']) > begin + number,
            f'{number} completions', 120, 0.2)

    def let_end(self):
        """Grant the downtime."""
        self.here.qmp.command('migrate-set-parameters', **{
            'max-bandwidth': 1 << 33, 'downtime-limit': 5000})

    def complete(self):
        self.let_end()
        return self.wait_status(deadline=240)

    def arrive(self, there):
        """The guest is over there, and goes on when its memory was read."""
        there.qmp.event('MIGRATION', 60,
                        lambda data: data['status'] == 'completed')
        self.last_info = self.tracking().get('last-migration')
        result = self.compare(there)
        if not self.is_tracked:
            return result
        if self.parts['nic']:
            flush.Chain.plug(self.here, False)
            flush.Chain.plug(there, True)
        there.qmp.cont()
        self.here.agent.moved_to(there.agent)
        self.here.__exit__(None, None, None)
        self.here = there
        self.is_fresh = False
        self.quiet()
        return result

    def compare(self, side):
        """Memory of a VM that is stopped, with the log of the source."""
        self.result = oracle.check(
            self.here.log(), self.pages,
            side.memory(page.gpa for page in self.pages),
            resumed=side is self.here)
        return self.result

    # --- What must hold -----------------------------------------------------

    def expect_whole(self, result, fact):
        return self.tap.ok(
            result.ok and enough(result), fact, '\n'.join(result.lines))

    def expect_traffic(self):
        """Of all packets up to now."""
        if self.parts['nic']:
            self.packets.goes_on()
            self.tap.equal(self.packets.settle(), (0, 0, 0),
                           'no packet is lost, or comes twice, or wrong')

    def expect_arrived(self, result, fact):
        """All is there, and works."""
        if self.expect_whole(result, fact):
            self.here.order('unstream')
            self.here.order('selftest')
            self.expect_traffic()

    def expect_source_works(self):
        """A migration came to nothing: the guest goes on as if none were."""
        here = self.here
        if not here.qmp.command('query-status')['running']:
            here.qmp.cont()
        self.quiet()
        if here.status()['state'] != 'streaming':
            self.work()
        guest.wait_until(lambda: self.tracking()['provider']['phase'] == 'idle',
                         'the end of logging')
        self.wait_completions(300)
        here.order('unstream')
        self.expect_traffic()
        here.qmp.command('stop')
        self.expect_whole(self.compare(here),
                          "the source's memory is what its device wrote")
        here.qmp.cont()
        here.order('selftest')

    # pylint: disable-next=too-many-arguments
    def leg(self, capabilities=('return-path',), before_start=None,
            before_work=None, before_end=None, uri=None, parameters=None,
            **changes):
        """A migration that must succeed; what it did to memory, or None.

        before_start: called with the destination
        before_work: called with the journey when all memory was sent once
        before_end: called with it when all but the end is done
        uri: of a stream that is read when it is whole
        """
        self.prepare()
        with self.destination(**changes) as there:
            if before_start:
                before_start(there)
            self.start(there, uri=uri, capabilities=capabilities,
                       parameters=parameters)
            self.wait_sent_once()
            if before_work:
                before_work(self)
            self.work()
            if before_end:
                before_end(self)
            status = self.complete()
            if uri and status == 'completed':
                receive(there, uri)
            self.tap.ok(status == 'completed', 'the guest moves',
                        f'{status}: {self.words}')
            return self.arrive(there) if status == 'completed' else None

    def move(self, fact='it then moves, and no page is lost', **options):
        """A leg after which all must be there."""
        result = self.leg(**options)
        if result:
            self.expect_arrived(result, fact)

    def expect_loss(self, **options):
        """The control: a leg of a guest that nobody tracks."""
        result = self.leg(**options)
        if result:
            hidden.expect_loss(self.tap, result)


def receive(there, uri):
    there.qmp.command('migrate-incoming', uri=uri,
                      **{'exit-on-error': False})


def enough(result):
    """Was there something to lose of each kind?"""
    return all(result.kinds[kind]['exposed'] >= 64
               for kind in ('unmapped', 'mapped', 'ring'))


def forget(side, *names):
    """Drop events that nobody took, of earlier migrations."""
    with side.qmp.change:
        side.qmp.events = [event for event in side.qmp.events
                           if event['event'] not in names]
