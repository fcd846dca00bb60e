# SPDX-License-Identifier: GPL-2.0-only
"""A destination that is not like the source, or gets another stream than it.

It refuses, in words, before the guest runs there; and the source goes on.
"""

import re
import struct

import cases
import survives

ORACLE = '0000:00:05.0:00.0/dma-test'
TRACKING = '0000:00:06.0/virtio-dma-track'


def said(there):
    """All that a destination has to say about its failure."""
    with open(there.process.log, encoding='utf-8', errors='replace') as file:
        return there.qmp.command('query-migrate').get('error-desc', '') + \
            '\n' + file.read()


def expect_refusal(trip, there, words):
    status = there.qmp.event(
        'MIGRATION', 60, lambda data: data['status'] in (
            'completed', 'failed'))['data']['status']
    text = said(there)
    trip.tap.equal(status, 'failed', 'the destination refuses')
    trip.tap.ok(re.search(words, text), f'it says "{words}"', text)
    trip.tap.ok(not there.qmp.command('query-status')['running'],
                'the guest has not run there')


def refused(trip, words, **changes):
    """By a destination that differs in so far from the source."""
    trip.work()
    with trip.destination(**changes) as there:
        trip.start(there, capabilities=('return-path',))
        trip.let_end()
        survives.expect(trip, trip.wait_status(), 'failed')
        expect_refusal(trip, there, words)


def with_less_memory(trip):
    refused(trip, 'Size mismatch: pc.ram', memory=('-m', '192'))


def without_the_tracking_device(trip):
    refused(trip, f"Unknown section or instance '{TRACKING}'", tracking=())


def without_a_function(trip):
    refused(trip, f"Unknown section or instance '{ORACLE}'", oracle=())


def with_another_function_in_its_place(trip):
    """Of the same type, so that only its registers can tell."""
    refused(trip, f"Unknown section or instance '{ORACLE}'",
            oracle=('-device', 'e1000e,bus=rp2,x-untracked-dma=on'))


def with_a_function_that_cannot_flush(trip):
    refused(trip, f"'{ORACLE}': .* pci config", oracle=(
        '-device', 'dma-test,id=oracle,bus=rp2,clock=virtual,log=LOG,'
                   'x-untracked-dma=on'))


# --- Streams ----------------------------------------------------------------

class SectionEditor:
    """Changes one device's section in a stream that passes by.

    change(section) gets all of it that comes before the subsections which all
    virtio devices have, and returns what is to be sent instead.
    """

    END = re.compile(rb'\x05.virtio/', re.DOTALL)

    def __init__(self, name, change):
        self.head = bytes([len(name)]) + name.encode()
        self.change = change
        self.kept = b''
        self.done = False

    def __call__(self, data):
        if self.done:
            return data
        self.kept += data
        at = self.kept.find(self.head)
        if at < 0:
            return self._pass(len(self.kept) - self._begun())
        end = self.END.search(self.kept, at)
        if not end:
            return self._pass(at)
        self.done = True
        return self.kept[:at] + self.change(self.kept[at:end.start()]) + \
            self.kept[end.start():]

    def _pass(self, size):
        out, self.kept = self.kept[:size], self.kept[size:]
        return out

    def _begun(self):
        """How much of the head is at the end of what was kept."""
        return next((size for size in range(len(self.head) - 1, 0, -1)
                     if self.kept.endswith(self.head[:size])), 0)


def poked(at, layout, value):
    """A change of one number, at an offset from the end if it is negative."""
    def change(section):
        data = bytearray(section)
        struct.pack_into(layout, data, at % len(data), value)
        return bytes(data)
    return change


def refused_stream(trip, words, change):
    """By a destination that is as it should be."""
    with survives.switching(trip) as (wire, there):
        editor = SectionEditor(TRACKING, change)
        wire.change_bytes(editor)
        survives.switch(trip)
        survives.expect(trip, trip.wait_status(), 'failed')
        trip.tap.ok(editor.done, 'the section was in the stream')
        expect_refusal(trip, there, words)


def an_older_version(trip):
    # Behind the name: instance, version.
    refused_stream(trip, 'too old', poked(len(TRACKING) + 1 + 4, '>I', 0))


def a_newer_version(trip):
    refused_stream(trip, "unsupported version 2 for '.*virtio-dma-track'",
                   poked(len(TRACKING) + 1 + 4, '>I', 2))


def sections_size(trip):
    """Bytes of the list with which the section ends."""
    return 4 + 20 * trip.tracking()['provider']['sections']


def an_unknown_phase(trip):
    # The status page's address, a flag, and seven numbers come before them.
    refused_stream(trip, 'phase 9 in the stream is not known',
                   poked(-sections_size(trip) - 8 - 1 - 7 * 4, '>I', 9))


def a_plane_where_none_can_be(trip):
    refused_stream(trip, 'section 0x.* has bad planes', poked(-8, '>Q', 0x123))


def sections_without_end(trip):
    refused_stream(trip, 'section 0x.* is out of order',
                   poked(-sections_size(trip), '>I', 0xffffffff))


def a_stream_that_ends(trip):
    with survives.switching(trip) as (wire, there):
        def cut(section):
            wire.cut_after(len(section))
            return section

        editor = SectionEditor(TRACKING, cut)
        wire.change_bytes(editor)
        survives.switch(trip)
        survives.expect(trip, trip.wait_status(), 'failed')
        trip.tap.ok(editor.done, 'the stream ended among the devices')
        expect_refusal(trip, there, 'load of migration failed|error')


def a_stream_of_rubbish(trip):
    """In the middle of memory."""
    with survives.precopying(trip) as (wire, there):
        wire.change_bytes(lambda data: b'\xff' * len(data))
        survives.expect(trip, trip.wait_status(), 'failed')
        expect_refusal(trip, there,
                       'load of migration failed: Invalid argument')


CASES = (
    with_less_memory,
    without_the_tracking_device,
    without_a_function,
    with_another_function_in_its_place,
    with_a_function_that_cannot_flush,
    an_older_version,
    a_newer_version,
    an_unknown_phase,
    a_plane_where_none_can_be,
    sections_without_end,
    a_stream_that_ends,
    a_stream_of_rubbish,
)


def run_case(trip, case):
    trip.prepare()
    case(trip)
    trip.expect_source_works()
    if case is CASES[-1]:
        trip.move()


def run(tap, directory, only):
    cases.run(tap, directory, 'other', CASES, run_case, only)
