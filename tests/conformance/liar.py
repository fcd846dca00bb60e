# SPDX-License-Identifier: GPL-2.0-only
"""A real guest whose driver lies to the device in every field.

The driver is tests/guest/liar: bytes go from here into the guest's own ring.
Whatever it says, the answer is the one that the protocol names, or the device
wants to be reset; the emulator lives on, and so does the guest; a migration is
refused, fails, or sends all that the lies call pinned. At the end the honest
driver takes the device over and works.
"""

import re
import struct

import driver
import images
import vm

vmtest = driver.vmtest
# The constants of the contract; guests are called guest elsewhere, too.
q = driver.load('qtest_guest', 'host', 'qtest', 'guest.py')

MODULE = 'tests/guest/liar'
FILES = '/sys/kernel/debug/dma_track_liar'
DRIVERS = '/sys/bus/virtio/drivers'
TRACK = ['-device',
         'virtio-dma-track-pci,id=track,addr=6,ack-timeout-ms=10000']
RAM = 256 << 20
MAX, BIG = 0xffffffff, 0x80000000
BROKEN, SILENT = 'broken', 'silent'
# Of the pages that the module has: the status page, planes of two sections.
STATUS, PLANES = 0, (1, 2, 3, 4)
# A shell's arguments are not longer than that.
AT_ONCE = 50000


def request(kind, payload=b'', entries=1, reserved=0):
    return struct.pack('<HHI', kind, reserved, entries) + payload


def words(*values):
    return struct.pack(f'<{len(values)}I', *(value & MAX for value in values))


class Guest(vmtest.Guest):
    """One in which not dma_track but the liar is at hand."""

    def __init__(self, directory):
        super().__init__(directory, 'liar', TRACK + vmtest.NIC, ['e1000e'])
        self.programs['dma_track_liar.ko'] = images.module(
            self.kernel, MODULE, 'dma_track_liar')
        self.pages = []
        self.device = None

    def begin(self):
        self.agent.run('insmod /bin/dma_track_liar.ko')
        self.device = self.agent.run(
            f'cd {DRIVERS}/dma_track_liar && echo virtio*').strip()
        self.pages = [int(line, 16) for line in self.agent.run(
            f'cat {FILES}/pages').split()]

    def reset(self):
        self.agent.run(f'cd {DRIVERS}/dma_track_liar && '
                       f'echo {self.device} > unbind && '
                       f'echo {self.device} > bind')

    def tell(self, lines):
        """Each line a file and what is written there; the answers."""
        scripts = ['']
        for file, text in lines:
            script = f'echo {text} > {file}; cat answer\n'
            if len(scripts[-1]) + len(script) > AT_ONCE:
                scripts.append('')
            scripts[-1] += script
        answers = []
        for script in scripts:
            answers += self.agent.run(f'cd {FILES}\n{script}', 300).split('\n')
        return [status(answer) for answer in answers if answer]

    def ask(self, data, parts=1, room=8):
        return self.tell([('request', f'{parts} {room} {data.hex()}')])[0]

    def poke(self, page, offset, data):
        for start in range(0, len(data), 1024):
            part = data[start:start + 1024]
            self.agent.run(f'echo {page} {offset + start} {part.hex()} > '
                           f'{FILES}/poke')

    def say(self, state, reason=0, sbdf=None, index=0, lost=0):
        """In the status page: of the network card, if of no other."""
        self.poke(STATUS, 0, words(lost))
        self.poke(STATUS, 64 + 8 * index,
                  struct.pack('<IHH', self.net() if sbdf is None else sbdf,
                              state, reason))

    def net(self):
        return self.info()['functions'][0]['sbdf']

    def now(self):
        """phase, phase_seq, alive_seq, reset_seq, nr_functions"""
        return [int(word) for word in
                self.agent.run(f'cat {FILES}/now').split()]

    def info(self):
        return self.qmp.command('query-dma-track')

    def set_up(self):
        """From a reset on, what a good driver does first."""
        self.reset()
        self.say(q.TRACKED)
        page = self.pages
        answers = (
            self.ask(request(q.SETUP, struct.pack('<Q', page[STATUS]))),
            self.ask(request(q.PUBLISH, b''.join(
                struct.pack('<IIQQ', section, 0, page[PLANES[2 * section]],
                            page[PLANES[2 * section + 1]])
                for section in range(2)), 2)))
        if answers != (q.OK, q.OK):
            raise vm.CommandFailed(f'a good beginning is answered {answers}')


def status(answer):
    """Of an answer's bytes; reserved fields are zero."""
    if answer in (BROKEN, SILENT):
        return answer
    if not re.fullmatch(r'[0-9a-f]{16}', answer) or answer[4:] != 12 * '0':
        return answer
    return struct.unpack('<H', bytes.fromhex(answer[:4]))[0]


# --- Requests ---------------------------------------------------------------

def bad_pages(page):
    """Addresses of what cannot be shared, and the answer to them."""
    for address in (page + 1, page + 8, page + 0x800, 1, (1 << 64) - 1):
        yield address, q.E_FIELD
    for address in (RAM, 0xfffff000, 0xfee00000, 0xf0000, 1 << 52,
                    1 << 63, (1 << 64) - q.FRAME):
        yield address, q.E_NOT_RAM


def lies_before_setup(page):
    payload = bytes(24)
    for kind in range(q.PUBLISH, q.RESTORED + 1):
        yield f'type {kind}', request(kind, payload), q.E_STATE
    for address, answer in bad_pages(page[STATUS]):
        yield (f'status {address:#x}',
               request(q.SETUP, struct.pack('<Q', address)), answer)


def lies_in_heads(page):
    setup = struct.pack('<Q', page[STATUS])
    for kind in (0, q.RESTORED + 1, 0x100, 0x8001, 0xffff):
        yield f'type {kind}', request(kind, setup), q.E_TYPE
    for kind in range(q.SETUP, q.RESTORED + 1):
        for reserved in (1, 0x8000, 0xffff):
            yield (f'type {kind}, reserved {reserved:#x}',
                   request(kind, bytes(24), reserved=reserved), q.E_FIELD)
        most = 128 if kind in (q.PUBLISH, q.WITHDRAW) else 1
        for entries in (0, most + 1, BIG, MAX):
            yield (f'type {kind}, {entries} entries',
                   request(kind, bytes(24), entries), q.E_FIELD)
    yield 'a second SETUP', request(q.SETUP, setup), q.E_STATE


def lies_of_sections(page):
    def publish(section, streaming, coherent, reserved=0):
        return request(q.PUBLISH, struct.pack(
            '<IIQQ', section, reserved, streaming, coherent))

    free = page[5:]
    for section in (2, 3, 1 << 13, 1 << 25, BIG, MAX):
        yield (f'section {section:#x}', publish(section, *free[:2]), q.E_EMPTY)
    for section in range(2):
        yield (f'section {section} again', publish(section, *free[:2]),
               q.E_EXISTS)
    for reserved in (1, BIG, MAX):
        yield (f'PUBLISH, reserved {reserved:#x}',
               publish(1, *free[:2], reserved), q.E_FIELD)
        yield (f'WITHDRAW, reserved {reserved:#x}',
               request(q.WITHDRAW, words(0, reserved)), q.E_FIELD)
    for section in (2, 1 << 25, BIG, MAX):
        yield (f'WITHDRAW {section:#x}', request(q.WITHDRAW, words(section, 0)),
               q.E_NO_SECTION)
    yield ('WITHDRAW, twice in one', request(q.WITHDRAW, words(1, 0, 1, 0), 2),
           q.E_NO_SECTION)
    # Then one of the sections is free, so that planes decide.
    yield 'WITHDRAW', request(q.WITHDRAW, words(1, 0)), q.OK
    for address, answer in bad_pages(free[0]):
        yield (f'streaming {address:#x}', publish(1, address, free[1]), answer)
        yield (f'coherent {address:#x}', publish(1, free[1], address), answer)
    yield 'one page for both', publish(1, free[0], free[0]), q.E_EXISTS
    for used in (STATUS, *PLANES[:2]):
        yield (f'page {used} for two', publish(1, page[used], free[0]),
               q.E_EXISTS)
    yield ('128 times the same',
           request(q.PUBLISH, 128 * struct.pack('<IIQQ', 1, 0, *free[:2]), 128),
           q.E_EXISTS)
    yield ('WITHDRAW of what was not published',
           request(q.WITHDRAW, words(1, 0)), q.E_NO_SECTION)
    yield 'PUBLISH', publish(1, *free[:2]), q.OK


def lies_of_functions(net, generation):
    for index in (64, 65, 1 << 16, BIG, MAX):
        yield (f'entry {index:#x}', request(q.FUNCTION, words(index, 0)),
               q.E_FIELD)
    yield ('FUNCTION, reserved', request(q.FUNCTION, words(0, MAX)),
           q.E_FIELD)
    yield 'an entry of no function', request(q.FUNCTION, words(9, 0)), \
        q.E_NO_FUNCTION
    for sbdf in (net + 1, net ^ BIG, 0, MAX):
        yield (f'UNFENCE {sbdf:#x}',
               request(q.UNFENCE, words(sbdf, generation)), q.E_NO_FUNCTION)
        yield (f'RESTORED {sbdf:#x}',
               request(q.RESTORED, words(sbdf, generation, 0, 0)),
               q.E_NO_FUNCTION)
    for wrong in (generation + 1, generation - 1, generation ^ BIG):
        yield (f'UNFENCE, generation {wrong & MAX:#x}',
               request(q.UNFENCE, words(net, wrong)), q.E_STALE)
        yield (f'RESTORED, generation {wrong & MAX:#x}',
               request(q.RESTORED, words(net, wrong, 0, 0)), q.E_STALE)
    for result in (3, BIG, MAX):
        yield (f'RESTORED, result {result:#x}',
               request(q.RESTORED, words(net, generation, result, 0)),
               q.E_FIELD)
    yield ('RESTORED, reserved',
           request(q.RESTORED, words(net, generation, 0, 1)), q.E_FIELD)


def lies_of_numbers(now):
    _, phase, alive, reset, _ = now
    for wrong in (phase + 1, phase - 1, phase ^ BIG):
        yield (f'phase_seq {wrong & MAX:#x}',
               request(q.ACK, words(wrong, 0)), q.E_STALE)
    yield 'ACK, reserved', request(q.ACK, words(phase, MAX)), q.E_FIELD
    for wrong in (1, -1, BIG):
        yield (f'alive_seq {wrong:+}',
               request(q.ALIVE, words(alive + wrong, reset)), q.E_STALE)
        yield (f'reset_seq {wrong:+}',
               request(q.ALIVE, words(alive, reset + wrong)), q.E_STALE)
    yield 'the right ones', request(q.ALIVE, words(alive, reset)), q.OK


def told(tap, machine, what, lies, parts):
    answers = machine.tell([
        ('request', f'{parts} 8 {data.hex()}') for _, data, _ in lies])
    wrong = [f'{name}: {answer}, not {wanted}' for
             (name, _, wanted), answer in zip(lies, answers)
             if answer != wanted]
    tap.ok(not wrong and len(answers) == len(lies),
           f'{what}: {len(lies)} lies, in {parts} part(s), are answered as '
           'the protocol says', '\n'.join(wrong) or len(answers))


def fields(tap, machine):
    """All of them, each in one part, and again in many."""
    for parts in (1, 16):
        machine.reset()
        told(tap, machine, 'before SETUP',
             list(lies_before_setup(machine.pages)), parts)
        machine.set_up()
        machine.say(q.TRACKED, sbdf=0x77, index=9)
        generation = machine.info()['functions'][0]['generation']
        for what, lies in (
                ('heads', lies_in_heads(machine.pages)),
                ('sections', lies_of_sections(machine.pages)),
                ('sequence numbers', lies_of_numbers(machine.now())),
                ('functions', lies_of_functions(machine.net(), generation))):
            told(tap, machine, what, list(lies), parts)
    tap.equal(machine.ask(request(q.UNFENCE, words(machine.net(), generation))),
              q.OK, 'and the truth is believed')


def lengths(tap, machine):
    """What is too short, or has no room for the answer."""
    sizes = {q.SETUP: 8, q.PUBLISH: 24, q.WITHDRAW: 8, q.FUNCTION: 8, q.ACK: 8,
             q.ALIVE: 8, q.UNFENCE: 8, q.RESTORED: 16}
    cases = [(f'type {kind}, a byte too short',
              request(kind, bytes(size - 1)), 8)
             for kind, size in sizes.items()]
    cases += [('a head that is cut', request(q.ACK)[:7], 8),
              ('127 of 128 entries', request(q.PUBLISH, bytes(127 * 24), 128),
               8),
              ('no room', request(q.ACK, words(0, 0)), 0),
              ('room for half an answer', request(q.ACK, words(0, 0)), 7)]
    wrong = []
    for name, data, room in cases:
        machine.set_up()
        answer = machine.ask(data, room=room)
        if answer != BROKEN:
            wrong.append(f'{name}: {answer}')
    tap.equal(wrong, [], f'{len(cases)} requests that are too short break the '
              'device, and a reset mends it')
    machine.set_up()
    seq = machine.now()[1]
    tap.equal([machine.ask(request(q.ACK, words(seq, 0)) + bytes([255]) * more)
               for more in (1, 4000)], [q.OK, q.OK],
              'bytes behind a payload are ignored')


def chains(tap, machine):
    """Descriptors that no ring has."""
    page, answer = machine.pages[6], machine.pages[7]
    next_, write, indirect = 1, 2, 4
    machine.poke(6, 0, request(q.ACK, words(0, 0)))
    whole = (page, 16, next_, 1), (answer, 8, write, 0)
    cases = (
        ('a loop', 0, 1, [(page, 16, next_, 0)]),
        ('a next outside the table', 0, 1, [(page, 16, next_, 64)]),
        ('a head outside the table', 64, 1, []),
        ('the answer first', 0, 1, [(answer, 8, write | next_, 1),
                                    (page, 16, 0, 0)]),
        ('no bytes', 0, 1, [(page, 0, next_, 1), (answer, 0, write, 0)]),
        ('4 GiB', 0, 1, [(page, MAX, next_, 1), (answer, 8, write, 0)]),
        ('an indirect table of 17 bytes', 0, 1, [(page, 17, indirect, 0)]),
        ('an indirect table that is indirect', 0, 1,
         [(page, 32, indirect | next_, 1), (page, 32, indirect, 0)]),
        ('memory that is not there', 0, 1,
         [(RAM, 16, next_, 1), (answer, 8, write, 0)]),
        ('the end of all addresses', 0, 1,
         [((1 << 64) - 8, 16, next_, 1), (answer, 8, write, 0)]),
        ('registers', 0, 1,
         [(0xfee00000, 16, next_, 1), (answer, 8, write, 0)]),
        ('room in ROM', 0, 1, [(page, 16, next_, 1),
                               (0xfffff000, 8, write, 0)]),
        ('the ring itself as room', 0, 1,
         [(page, 16, next_, 1), (machine.pages[STATUS], 8, write, 0)]),
        ('300 requests at once', 0, 300, whole),
        ('65535 requests at once', 0, 65535, whole))
    dead = []
    for name, head, ahead, descriptors in cases:
        machine.set_up()
        text = ' '.join(f'{addr:x} {size:x} {flags:x} {follow:x}' for
                        addr, size, flags, follow in descriptors)
        machine.tell([('chain', f'{head} {ahead} {text}')])
        if not machine.qmp.command('query-status')['running']:
            dead.append(name)
    tap.equal(dead, [], f'{len(cases)} rings that are none do no harm')
    machine.set_up()
    tap.ok(True, 'and a reset mends each')


def pages(tap, machine):
    """The status page and the configuration space, field by field."""
    machine.set_up()
    machine.tell([('config', f'{offset} {value:x}')
                  for offset in range(0, 280, 4) for value in (1, MAX)])
    tap.equal(machine.now()[0], 0, 'what it writes to the configuration space '
              'has no effect')
    wrong = []
    for index in (0, 63):
        for state in (*range(4), 4, 0x8000, 0xffff):
            for reason in (0, 1, 5, 0xffff):
                machine.say(state, reason, index=index)
                machine.tell([('request', '1 8 ' + request(
                    q.FUNCTION, words(index, 0)).hex())])
                info = machine.info()
                if (state == q.TRACKED) != info['migratable']:
                    wrong.append((index, state, reason, info['reasons']))
        machine.say(q.NONE, index=index)
    tap.equal(wrong, [], 'of states only TRACKED lets the function migrate')
    for lost in (1, 2, 3, 4, 0x100, BIG, MAX):
        machine.say(q.TRACKED, lost=lost)
        if machine.info()['migratable']:
            wrong.append(lost)
    tap.equal(wrong, [], 'any lost word but zero refuses')
    machine.poke(STATUS, 0, bytes([255]) * q.FRAME)
    refused(tap, machine, 'a status page of ones')
    machine.set_up()
    machine.poke(STATUS, 0, bytes(q.FRAME))
    refused(tap, machine, 'a status page of zeroes')


def refused(tap, machine, what):
    try:
        machine.qmp.command('migrate', uri='exec:cat > /dev/null')
        text = 'it was accepted'
    except vm.QmpError as error:
        text = str(error)
    tap.ok('): untracked: ' in text or 'lost track' in text,
           f'{what}: a migration is refused', text)


# --- Migrations --------------------------------------------------------------

def over(machine):
    state = machine.qmp.command('query-migrate').get('status')
    return state if state in ('completed', 'failed', 'cancelled') else None


def migrate(machine, act, bandwidth=1 << 30):
    """Migrate to nowhere, and act until that is over; the end and why."""
    machine.set_up()
    machine.qmp.command('migrate-set-parameters', **{
        'max-bandwidth': bandwidth, 'downtime-limit': 20000})
    machine.qmp.command('migrate', uri='exec:cat > /dev/null')
    vmtest.guest.wait_until(lambda: over(machine) or machine.now()[0],
                            'phase LOGGING', 30)
    act()
    vmtest.guest.wait_until(lambda: over(machine), 'end of the migration',
                            120)
    return over(machine), machine.qmp.command('query-migrate').get(
        'error-desc', '')


# In the guest, because nobody there answers once its vCPUs have stopped.
SERVE = """
le() {
    printf %02x%02x%02x%02x $(($1 & 255)) $(($1 >> 8 & 255)) \\
        $(($1 >> 16 & 255)) $(($1 >> 24 & 255))
}
cd """ + FILES + """
until [ -e /tmp/over ]; do
    set -- $(cat now)
    echo "1 8 0500000001000000$(le $2)00000000" > request
    [ -e /tmp/dumb ] || echo "1 8 0600000001000000$(le $3)$(le $4)" > request
done
rm /tmp/over"""


def serve(machine, alive=True):
    """As a good driver does, until it is over."""
    machine.agent.run('rm -f /tmp/dumb' if alive else 'touch /tmp/dumb')
    answering = machine.agent.start(SERVE)
    vmtest.guest.wait_until(lambda: over(machine), 'end of the migration',
                            120)
    machine.qmp.cont()
    machine.agent.run('touch /tmp/over')
    answering.wait()


def migrations(tap, machine):
    def stale():
        _, phase, alive, reset, _ = machine.now()
        machine.tell([('request', '1 8 ' + data.hex()) for data in (
            request(q.ACK, words(phase - 1, 0)),
            request(q.ACK, words(phase + 1, 0)),
            request(q.ALIVE, words(alive + 1, reset)))])

    def acknowledged(then):
        def act():
            machine.ask(request(q.ACK, words(machine.now()[1], 0)))
            then()
        return act

    def lose():
        machine.say(q.TRACKED, lost=77)
        serve(machine)

    def untrack():
        machine.say(q.UNTRACKED, 0xffff)
        machine.ask(request(q.FUNCTION, words(0, 0)))
        machine.say(q.TRACKED)
        serve(machine)

    for what, act, text in (
            ('says nothing', lambda: None, 'did not acknowledge'),
            ('acknowledges other phases', stale, 'did not acknowledge'),
            ('gives no sign of life',
             acknowledged(lambda: serve(machine, False)), 'sign of life'),
            ('breaks the protocol',
             acknowledged(lambda: machine.ask(b'short')),
             'broke the protocol'),
            ('resets the device', acknowledged(machine.reset), 'reset'),
            ('loses track', acknowledged(lose), 'lost track'),
            ('takes a function out and in again', acknowledged(untrack),
             'became untracked')):
        slow = 1 << 30 if act is stale or 'nothing' in what else 8 << 20
        end, why = migrate(machine, act, slow)
        tap.ok(end == 'failed' and text in why and
               machine.qmp.command('query-status')['running'],
               f'a guest that {what}: the migration fails, the guest runs',
               f'{end} {why}')
        machine.qmp.command('query-dma-track')

    def all_pinned():
        for plane in PLANES:
            machine.poke(plane, 0, bytes([255]) * q.FRAME)
        answers = machine.tell([
            ('request', '1 8 ' + request(q.WITHDRAW, words(0, 0)).hex())])
        tap.equal(answers, [q.E_BUSY], 'it cannot withdraw what it has said')
        serve(machine)

    end, why = migrate(machine, acknowledged(all_pinned), 64 << 20)
    last = machine.info()['last-migration']
    # All RAM but what lies in the hole below 1 MiB.
    tap.ok(end == 'completed' and last['pinned-frames'] > 0.99 * RAM / q.FRAME,
           'a guest that says all is pinned: all is sent in the last pass',
           f'{end} {why} {last}')
    tap.ok(machine.now(), 'and it runs on')
    for plane in PLANES:
        machine.poke(plane, 0, bytes(q.FRAME))


def honest(tap, machine):
    """The driver of the product, after all that."""
    agent, qmp = machine.agent, machine.qmp
    agent.run('rmmod dma_track_liar')
    agent.run('insmod /bin/dma_track.ko', 60)
    agent.run(f'echo {vmtest.NET} > {vmtest.FILES}/track')
    tap.equal((machine.status()['connected'], machine.function()[:2]),
              ('1', ['tracked', '-']),
              'the honest driver finds the device as if nothing had been')
    qmp.command('migrate', uri='exec:cat > /dev/null')
    vmtest.guest.wait_until(lambda: over(machine), 'end of the migration',
                            120)
    tap.equal(over(machine), 'completed', 'and its guest migrates')


def run(tap, kernel):
    """All of it, in one guest."""
    vmtest.Guest.UNDER_TEST = kernel
    with Guest(vmtest.paths.scratch('liar')) as machine:
        machine.begin()
        for test in (fields, lengths, chains, pages, migrations, honest):
            tap.progress(test.__name__)
            tap.run(test, tap, machine)
        tap.ok(machine.process.alive(), 'the emulator lives')
        machine.qmp.cont()
        tap.equal(machine.splats(), '', 'the kernel did not complain')
