# SPDX-License-Identifier: GPL-2.0-only
"""A destination that is told lies by the stream."""

import os
import struct

import guest as g
from guest import Failed, wait_for
from moves import EDU, TRACK_BAR, finish, track


def saved_guest(bench):
    """A file with a guest in it, and where its sections begin."""
    qemu, _, driver = bench.guest()
    path = os.path.join(bench.folder, 'saved')
    qemu.command('migrate', uri='file:' + path)
    if finish(qemu, driver) != 'completed':
        raise Failed('the guest cannot be saved: ' + qemu.error())
    bench.clear()
    with open(path, 'rb') as file:
        data = file.read()
    mark = struct.pack('>IIQQ', 2, 0, g.PLANES, g.PLANES + g.FRAME)
    if data.count(mark) != 1:
        raise Failed('the sections are not found in the stream')
    return data, data.index(mark)


def load(bench, data):
    """Load such a file; return the emulator once that is over."""
    path = os.path.join(bench.folder, 'changed')
    with open(path, 'wb') as file:
        file.write(data)
    qemu = bench.qemu('loaded', *EDU, *track(), '-incoming', 'defer')
    qemu.command('migrate-incoming', uri='file:' + path)

    def done():
        try:
            return qemu.command('query-status')['running']
        except Failed:
            return qemu.process.poll() is not None
        except OSError:
            return True
    wait_for('end of loading', done)
    return qemu


def test_hostile_stream(bench):
    data, at = saved_guest(bench)
    qemu = load(bench, data)
    bench.tap.equal(qemu.dma_track()['provider']['sections'], 2,
                    'the stream as it was is loaded')
    bench.clear()

    plane = g.PLANES
    phase_at = at - 8 - 1 - 28
    no_status = 'the status page in the stream is misaligned, missing, or ' \
                'also a plane'
    for fact, offset, change, text in (
            ('a section twice', 24, struct.pack('>I', 0), 'out of order'),
            ('a section without RAM', 24, struct.pack('>I', 4000),
             'contains no RAM'),
            ('2^32 - 1 sections', 0, struct.pack('>I', 0xffffffff),
             'virtio-dma-track'),
            ('a plane twice', 28, struct.pack('>Q', plane), 'bad planes'),
            ('a misaligned plane', 28, struct.pack('>Q', plane + 1),
             'bad planes'),
            ('the status page as a plane', -8, struct.pack('>Q', plane),
             no_status),
            ('a misaligned status page', -8,
             struct.pack('>Q', g.STATUS_PAGE + 8), no_status),
            ('sections but no status page', -9, b'\0', no_status),
            ('the last section there is', 24, struct.pack('>I', 0xffffffff),
             'contains no RAM'),
            ('planes in the wrong order of sections', 4,
             struct.pack('>I', 1), 'out of order'),
            ('one section too few', 0, struct.pack('>I', 1),
             'virtio-dma-track'),
            ('an unknown phase', phase_at - at, struct.pack('>I', 7),
             'phase 7')):
        changed = bytearray(data)
        changed[at + offset:at + offset + len(change)] = change
        qemu = load(bench, bytes(changed))
        qemu.process.wait(g.DEADLINE)
        bench.tap.ok(qemu.process.returncode == 1 and text in qemu.output(),
                     'a stream with %s is refused' % fact,
                     '%s: %s' % (qemu.process.returncode, qemu.output()))
        bench.clear()

    changed = bytearray(data)
    changed[at + 28:at + 36] = struct.pack('>Q', TRACK_BAR + 0x10000)
    qemu = load(bench, bytes(changed))
    info = qemu.dma_track()
    bench.tap.ok(not info['migratable']
                 and 'not writable RAM' in ' '.join(info['reasons']),
                 'a plane that is not RAM there vetoes the next migration',
                 info)
    bench.clear()

    changed = bytearray(data)
    changed[at - 8:at] = struct.pack('>Q', 0xfffffffffffff000)
    qemu = load(bench, bytes(changed))
    info = qemu.dma_track()
    bench.tap.ok(not info['migratable']
                 and 'not writable RAM' in ' '.join(info['reasons']),
                 'so does a status page that is not RAM there', info)
    bench.clear()

    changed = bytearray(data)
    changed[at - 8 - 1 - 24:at - 9] = b'\xff' * 24
    qemu = load(bench, bytes(changed))
    driver = bench.driver(qemu)
    driver.become_ready()
    bench.tap.equal(driver.ack(driver.read_config()[1]), g.OK,
                    'sequence numbers of any value are loaded')


TESTS = [value for name, value in list(globals().items())
         if name.startswith('test_')]
