#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Streams of former versions: kept, and loaded by every later build.

    stream.py --make FILE [--qemu BINARY]

makes such a file, with this build: once, when a version is released. A file
that is there is never made anew, for then it would not be what a former version
has sent. tests/abi/streams/*.txt are loaded by suite abi. Each has, beside the
stream, the machine that it is of and what is known of it where it was made.

The machine has the device, with all that a guest shares through it, and each
emulated function whose state the series changes: flushed, with transfers that
have not begun. The one state that no file can have is that of an assigned
function: it takes one to load it.
"""

import argparse
import base64
import glob
import json
import lzma
import os
import shutil
import struct
import sys
import tempfile
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'lib'),
                os.path.join(HERE, '..', 'host', 'qtest')]

# pylint: disable=wrong-import-position
import guest as g             # noqa: E402
import paths                  # noqa: E402
import quiesce                # noqa: E402
from guest import Failed, wait_for     # noqa: E402

STREAMS = os.path.join(HERE, 'streams')

# What a file is made of. A machine type with a version, so that devices other
# than ours are what they were; no firmware, which differs between machines;
# two sections of memory, of which the second is small.
MACHINE = {'machine': 'pc-q35-11.1,acpi=off', 'memory': '160'}
SLOTS = {'track': 5, 'dev': quiesce.SLOT, 'net': 8, 'igb': 9}
BAR = 0xfeb00000
DEVICES = [
    '-device', f'virtio-dma-track-pci,id=track,addr={SLOTS["track"]}',
    *quiesce.dma_test(untracked=quiesce.UNTRACKED),
    '-device', f'e1000e,id=net,addr={SLOTS["net"]},mac=02:00:00:00:00:09,'
               'dma-quiesce=on,x-untracked-dma=on,romfile=',
    '-device', f'igb,id=igb,addr={SLOTS["igb"]},mac=02:00:00:00:00:0a,'
               'dma-quiesce=on,x-untracked-dma=on,romfile=']
# Of our series; by how the stream and its description name them.
OURS = ('virtio-dma-track', 'dma-test', 'e1000e', 'igb', 'igbvf')

# Runs of eight frames: in either section, in either plane.
STREAMING, COHERENT = (0x400000, 0x8800000), (0x600000,)
RUN = 8 * g.FRAME
COUNTERS = dict(zip(('maps', 'unmaps', 'dirtied', 'saturated',
                     'unknown-unmaps', 'undirtied'), range(11, 17)))


class Machines:
    """Emulators, a folder for them, and their end."""

    def __init__(self, binary):
        self.binary = os.path.abspath(binary or paths.qemu())
        self.folder = tempfile.mkdtemp(prefix='dma-track-stream-')
        self.running = []
        with open(self.path('bios'), 'wb') as file:
            file.write(bytes(1 << 16))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, name, arguments, **machine):
        qemu = g.Qemu(self.binary, self.folder, name,
                      [*arguments, '-bios', self.path('bios')], **machine)
        self.running.append(qemu)
        return qemu

    def clear(self):
        for qemu in self.running:
            qemu.stop()
        self.running = []


# --- To make one ----------------------------------------------------------

def plug_in(qemu):
    """The guest's side of the machine; returns the driver of our device."""
    dma_test = quiesce.DmaTest(qemu)
    dma_test.start()
    dma_test.queue(16, delay_ms=10)
    qemu.advance(1)
    igb = quiesce.Function(qemu, SLOTS['igb'] << 3)
    sriov = igb.find(0x10)
    for offset, value, width in ((0x24, quiesce.VF_BAR, 'l'),
                                 (0x30, quiesce.VF_MSIX_BAR, 'l'),
                                 (0x10, 1, 'w'), (0x08, 0x9, 'w')):
        igb.write(sriov + offset, value, width)
    driver = g.DmaTrack(qemu, SLOTS['track'], BAR)
    driver.become_ready()
    for index, function in enumerate(qemu.dma_track()['functions']):
        driver.say(index, function['sbdf'], g.TRACKED)
    for addr in STREAMING:
        driver.pin(addr, RUN)
    for addr in COHERENT:
        driver.pin(addr, RUN, coherent=True)
    qemu.write(g.STATUS_PAGE + 8, struct.pack('<6Q', *COUNTERS.values()))
    return driver


def play(qemu, driver, path):
    """Migrate to a file, the guest echoing what it has to.

    Returns the configuration space as the guest has seen it last, while it ran.
    """
    seen = []

    def over():
        driver.serve()
        if driver.seen[0] == g.LOGGING:
            seen[:] = [driver.seen]
        return qemu.status() in ('completed', 'failed')

    driver.give_up = lambda: qemu.status() in ('completed', 'failed')
    qemu.command('migrate', uri='file:' + path)
    wait_for('end of the migration', over)
    driver.give_up = lambda: False
    if qemu.status() != 'completed':
        raise Failed('it cannot be saved: ' + qemu.error())
    return seen[0]


def saved(machines):
    """Today's stream of the machine, and what is known of it."""
    qemu = machines.start('source', DEVICES, **MACHINE)
    driver = plug_in(qemu)
    path = machines.path('saved')
    config = play(qemu, driver, path)
    with open(path, 'rb') as file:
        data = file.read()
    known = {
        'arguments': DEVICES, 'machine': MACHINE, 'bar': BAR,
        'used': driver.used, 'config': config,
        'functions': [(one['id'] if 'id' in one else one['name'],
                       one['sbdf'], one['generation'])
                      for one in qemu.dma_track()['functions']],
        'sections': qemu.dma_track()['provider']['sections'],
        'counters': COUNTERS,
        'streaming': STREAMING, 'coherent': COHERENT,
        'registers': quiesce.registers(qemu)}
    return data, json.loads(json.dumps(known))


def keep(path, data, known):
    with open(path, 'w', encoding='ascii') as file:
        file.write('# SPDX-License-Identifier: GPL-2.0-only\n'
                   '# A stream of this machine, as an older build has sent it:'
                   ' see tests/abi/stream.py\n#\n')
        for line in json.dumps(known, indent=1).split('\n'):
            file.write(f'# {line}\n')
        file.write('\n')
        packed = base64.b64encode(lzma.compress(data, preset=9)).decode()
        file.write('\n'.join(textwrap.wrap(packed, 76)) + '\n')


def kept(path):
    """What keep() has written."""
    with open(path, encoding='ascii') as file:
        head, body = file.read().split('\n\n', 1)
    known = '\n'.join(line[2:] for line in head.split('\n')[3:])
    return lzma.decompress(base64.b64decode(body)), json.loads(known)


# --- To load one ----------------------------------------------------------

def load(machines, data, known):
    """Load it, and wait until it runs or is refused; returns the emulator."""
    path = machines.path('loaded')
    with open(path, 'wb') as file:
        file.write(data)
    qemu = machines.start('loaded', [*known['arguments'],
                                     '-incoming', 'defer'],
                          **known['machine'])
    qemu.command('migrate-incoming', uri='file:' + path)

    def done():
        try:
            return qemu.command('query-status')['running']
        except (Failed, OSError):
            # Its monitor has gone, and so will it.
            qemu.process.wait(g.DEADLINE)
            return True
    wait_for('end of loading', done)
    return qemu


def check_loaded(tap, name, machines, data, known):
    """It is loaded, and all that is known of it is there."""
    qemu = load(machines, data, known)
    if not tap.ok(qemu.process.poll() is None, f'{name}: is loaded',
                  qemu.output()):
        return
    info = qemu.dma_track()
    provider = info['provider']
    tap.equal((provider['ready'], provider['phase'], provider['sections']),
              (True, 'idle', known['sections']),
              f'{name}: the guest has a driver, the phase is IDLE, its '
              'sections are published')
    tap.equal({key: provider.get(key) for key in known['counters']},
              known['counters'], f'{name}: its status page is the one it had')
    tap.equal(([[one.get('id', one['name']), one['sbdf'], one['generation']]
                for one in info['functions']], info['migratable']),
              (known['functions'], True),
              f'{name}: its functions are there, of their generation, tracked')
    driver = g.DmaTrack(qemu, SLOTS['track'], known['bar'])
    driver.used = known['used']
    _, phase_seq, alive_seq, reset_seq = known['config']
    config = driver.read_config()
    tap.equal(config, (g.IDLE, phase_seq + 1, alive_seq, reset_seq + 1),
              f'{name}: of its sequence numbers those of phase and resets are '
              'new')
    driver.serve()
    tap.equal((driver.ack(config[1]), driver.publish((0, 0, g.FRAME))),
              (g.OK, g.E_EXISTS), f'{name}: its driver goes on with its queue')
    quiesce.finish_transfers(qemu)
    tap.equal((known['registers'], quiesce.registers(qemu)),
              ([4, 4, 0], (16, 16, 0)),
              f'{name}: a function that was flushed has finished what it had '
              'not begun')
    play(qemu, driver, machines.path('again'))
    last = qemu.dma_track()['last-migration']
    pinned = 8 * len(known['streaming'] + known['coherent'])
    tap.equal((last['pinned-frames'], last['coherent-frames']),
              (pinned, 8 * len(known['coherent'])),
              f'{name}: the next migration finds pinned what its planes say')


# --- What must be refused --------------------------------------------------

def section_at(data, name):
    """Where the identifier of the section of that device is."""
    mark = f'/{name}'.encode()
    places = [at for at in range(len(data)) if data.startswith(mark, at)
              and data[at + len(mark):at + len(mark) + 4] == bytes(4)]
    if len(places) != 1:
        raise Failed(f'{len(places)} sections named {name} in the stream')
    return places[0] + 1


def changes(data):
    """Fact, the stream with that change."""
    name = b'virtio-dma-track'
    at = section_at(data, name.decode())
    # The section's name is followed by its instance and its version.
    version = at + len(name) + 4
    sections = data.index(struct.pack('>IIQQ', 2, 0, g.PLANES,
                                      g.PLANES + g.FRAME))
    # Before the sections: the status page, a byte, seven words.
    phase = sections - 8 - 1 - 28

    def put(offset, value):
        return data[:offset] + value + data[offset + len(value):]

    yield 'a section of another name', put(at, b'virtio-dma-trace')
    yield 'a section of a later version', put(version, struct.pack('>I', 2))
    yield 'a phase that is none', put(phase, struct.pack('>I', 7))
    yield 'a field less', data[:phase + 4] + data[phase + 8:]
    yield 'a field more', data[:phase] + bytes(4) + data[phase:]
    yield 'its end missing', data[:sections + 4]


def check_refused(tap, name, machines, data, known):
    for fact, changed in changes(data):
        qemu = load(machines, changed, known)
        tap.ok(qemu.process.poll() == 1, f'{name}: with {fact} it is refused',
               qemu.output())
        machines.clear()


# --- What this build sends ---------------------------------------------------

def description(data):
    """Of our devices, what the stream says of itself at its end."""
    at = data.rindex(b'{"configuration"')
    whole, _ = json.JSONDecoder().raw_decode(data[at:].decode('latin-1'))
    found = {}
    for device in whole['devices']:
        name = device['name'].rsplit('/', 1)[-1]
        if name in OURS:
            found[name] = {key: value for key, value in device.items()
                           if key in ('version', 'fields', 'subsections')}
    return found


def check_description(tap, name, old, new):
    """A build that sends what an older one cannot read must say so first."""
    before, now = description(old), description(new)
    tap.equal(sorted(before), sorted(OURS),
              f'{name}: describes each of our devices')
    for device in before:
        tap.ok(before[device] == now.get(device),
               f'{name}: this build sends the same fields of {device}',
               '\n'.join(difference(before[device], now.get(device))))


def difference(before, now):
    lines = [json.dumps(one, indent=1, sort_keys=True).split('\n')
             for one in (before, now)]
    return [('-' if line in lines[0] else '+') + line
            for line in lines[0] + lines[1]
            if (line in lines[0]) != (line in lines[1])]


def run(tap, binary):
    files = sorted(glob.glob(os.path.join(STREAMS, '*.txt')))
    tap.ok(files, 'there are streams that were kept')
    with Machines(binary) as machines:
        today, _ = saved(machines)
        machines.clear()
        for path in files:
            name = os.path.basename(path)[:-len('.txt')]
            data, known = kept(path)
            tap.run(check_loaded, tap, name, machines, data, known)
            machines.clear()
            tap.run(check_refused, tap, name, machines, data, known)
            machines.clear()
            if path == files[-1]:
                tap.run(check_description, tap, name, data, today)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--make', metavar='FILE', required=True)
    parser.add_argument('--qemu', help='qemu-system-x86_64 with our series')
    arguments = parser.parse_args()
    if os.path.exists(arguments.make):
        parser.error(f'{arguments.make} is there: it stays as it is')
    with Machines(arguments.qemu) as machines:
        data, known = saved(machines)
    keep(arguments.make, data, known)
    print(f'{len(data)} bytes, {os.path.getsize(arguments.make)} in '
          f'{arguments.make}')
    return 0


if __name__ == '__main__':
    paths.run(main)
