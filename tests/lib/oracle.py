# SPDX-License-Identifier: GPL-2.0-only
"""The judge of the oracle: is every byte that a device wrote still there?

Reads the log of the DMA test device (tests/guest/oracle/README.md) and compares
memory with it. Works offline: a log, a list of pages, and a function that reads
a page.
"""

import bisect
import collections
import struct
import sys

PAGE = 4096
MASK = (1 << 64) - 1

# Kinds of page, in the order in which they are reported.
KINDS = ('unmapped', 'mapped', 'ring', 'inflight')

# Record types, as in dma_test_abi.h.
STAMP, COUNTER, COMPLETION = 1, 2, 3
MARKER, MASTER_OFF, MASTER_ON, RESET = 0x100, 0x101, 0x102, 0x103
ENABLE, DISABLE, FAULT, NOTE = 0x104, 0x105, 0x106, 0x107
FLUSH, QUIESCED, RESUME = 0x108, 0x109, 0x10a
WRITES = (STAMP, COUNTER, COMPLETION)

# Values of markers.
MARK_EXPOSED = 1
MARK_STOPPED = 2
# Value of the driver's note that its frames are fresh and zero.
NOTE_FRESH = 1
# ... and that the guest's processor hears nothing for a while.
NOTE_DEAF = 2

HEADER = struct.Struct('<8sIIQQ32x')
RECORD = struct.Struct('<QQQQQIHHIIQ')

Record = collections.namedtuple(
    'Record', 'seq time issued addr seed length type kind cookie status '
    'reserved')
Page = collections.namedtuple('Page', 'kind gpa iova')


class BadLog(Exception):
    """The log is not what the device writes."""


def stamp_word(seed, i):
    """Word i of a stamp: splitmix64."""
    z = (seed + (i + 1) * 0x9e3779b97f4a7c15) & MASK
    z = ((z ^ (z >> 30)) * 0xbf58476d1ce4e5b9) & MASK
    z = ((z ^ (z >> 27)) * 0x94d049bb133111eb) & MASK
    return z ^ (z >> 31)


def stamp(seed, length):
    """The first length bytes of a stamp."""
    words = [stamp_word(seed, i) for i in range((length + 7) // 8)]
    return struct.pack(f'<{len(words)}Q', *words)[:length]


def content(record):
    """What a record says was written."""
    if record.type == STAMP:
        return stamp(record.seed, record.length)
    if record.type == COUNTER:
        return struct.pack('<Q', record.seed)
    if record.type == COMPLETION:
        head = struct.pack('<IIQ', record.seed, record.status, record.cookie)
        return head + stamp(record.seed, record.length)[16:]
    raise ValueError(f'record of type {record.type:#x} writes nothing')


class Log:
    """A device's log. A record that is not whole yet is left for later."""

    def __init__(self, path):
        self.path = path
        self.records = []
        with open(path, 'rb') as file:
            data = file.read()
        self._parse(data)

    def _parse(self, data):
        if len(data) < HEADER.size:
            raise BadLog(f'{self.path}: no header')
        magic, version, size, self.monotonic, self.wall = \
            HEADER.unpack_from(data)
        if magic != b'DMATLOG1' or version != 1 or size != RECORD.size:
            raise BadLog(f'{self.path}: not a log of version 1')

        whole = (len(data) - HEADER.size) // RECORD.size * RECORD.size
        self.records = [Record._make(fields) for fields in RECORD.iter_unpack(
            memoryview(data)[HEADER.size:HEADER.size + whole])]
        for number, record in enumerate(self.records, 1):
            if record.seq != number:
                raise BadLog(f'{self.path}: record {number} has sequence '
                             f'number {record.seq}')

    def writes(self):
        return [record for record in self.records if record.type in WRITES]

    def marker(self, value):
        """The last marker with that value, or None."""
        for record in reversed(self.records):
            if record.type == MARKER and record.seed == value:
                return record
        return None

    def fresh(self, before):
        """Sequence number of the last note of fresh frames, or 0."""
        for record in reversed(self.records):
            if record.seq < before and record.type == NOTE and \
                    record.seed == NOTE_FRESH:
                return record.seq
        return 0

    def first(self, types, after=0):
        """The first record of one of these types with seq > after, or None."""
        for record in self.records:
            if record.seq > after and record.type in types:
                return record
        return None

    def quiesce(self, after=0):
        """What first told the device to stop, after that record, or None."""
        return self.first((MASTER_OFF, RESET, FLUSH), after)

    def faults(self):
        return [record for record in self.records if record.type == FAULT]


def marker_time(log, value):
    """When the last marker with that value was written, in ns."""
    marker = log.marker(value)
    if marker is None:
        raise BadLog(f'{log.path}: no marker {value}')
    return marker.time


def parse_pages(text):
    """The driver's file `pages`."""
    pages = []
    for line in text.splitlines():
        kind, gpa, iova = line.split()
        if kind not in KINDS:
            raise ValueError(f'page of unknown kind: {line}')
        pages.append(Page(kind, int(gpa, 0), int(iova, 0)))
    return pages


class _Writes:
    """Which records wrote to which page, oldest first."""

    def __init__(self, records):
        self.by_page = collections.defaultdict(list)
        for record in records:
            last = record.addr + record.length - 1
            for page in range(record.addr // PAGE, last // PAGE + 1):
                self.by_page[page].append(record)

    def of(self, iova):
        return self.by_page.get(iova // PAGE, [])


def _replay(records, iova, start=bytes(PAGE)):
    """What a page that began as @start holds after those writes."""
    last_of = {(record.addr, record.length): record for record in records}
    page = bytearray(start)
    for record in sorted(last_of.values()):
        data = content(record)
        first = max(record.addr, iova)
        last = min(record.addr + record.length, iova + PAGE)
        page[first - iova:last - iova] = \
            data[first - record.addr:last - record.addr]
    return bytes(page)


class _Verdict:
    """One page, judged."""

    def __init__(self, page, exposed, wanted, got, later):
        self.page = page
        self.exposed = exposed
        self.good = wanted == got
        # It holds something that was written after the quiesce.
        self.newer = not self.good and any(
            _replay([record], page.iova, got) == got for record in later)
        self.where = next((i for i in range(0, PAGE, 8)
                           if wanted[i:i + 8] != got[i:i + 8]), None)
        self.wanted = wanted
        self.got = got

    def line(self):
        i = self.where
        return (f'{self.page.kind} page {self.page.gpa:#x}: from byte {i:#x} '
                f'{self.got[i:i + 8].hex()} instead of '
                f'{self.wanted[i:i + 8].hex()}'
                f'{", newer than the quiesce" if self.newer else ""}')


class Result:
    """What check() found.

    kinds: {kind: {'pages', 'exposed', 'lost', 'stale', 'newer'}}, counts.
    late: writes that were logged after the quiesce by transfers issued after
    it, which no quiesced device does.
    faults: accesses to memory that failed after the marker.
    counters: frames of the periodic writer that were written after the marker;
    counters_lost: those that do not end with the last number written.
    """

    def __init__(self):
        self.kinds = {kind: {'pages': 0, 'exposed': 0, 'lost': 0, 'stale': 0,
                             'newer': 0} for kind in KINDS}
        self.late = 0
        self.faults = 0
        self.counters = self.counters_lost = 0
        self.bad = []

    @property
    def lost(self):
        return sum(kind['lost'] for kind in self.kinds.values())

    @property
    def ok(self):
        return not self.bad and not self.late

    @property
    def lines(self):
        text = [f'{kind}: {n["pages"]} pages, {n["exposed"]} exposed, '
                f'{n["lost"]} lost, {n["stale"]} stale, {n["newer"]} newer'
                for kind, n in self.kinds.items()]
        if self.late:
            text.append(f'{self.late} writes issued after the quiesce')
        return text + [verdict.line() for verdict in self.bad[:8]]

    def short(self):
        """For a report: {kind: {'pages', 'exposed', 'lost'}}."""
        return {kind: {key: n[key] for key in ('pages', 'exposed', 'lost')}
                for kind, n in self.kinds.items()}

    def add(self, verdict):
        n = self.kinds[verdict.page.kind]
        n['pages'] += 1
        n['exposed'] += verdict.exposed
        if not verdict.good:
            n['lost' if verdict.exposed else 'stale'] += 1
            n['newer'] += verdict.newer
            self.bad.append(verdict)


def check(log, pages, read, stop=None, exposed_after=MARK_EXPOSED,
          resumed=False, unstopped=False):
    """Compare memory with the log; returns a Result.

    log: the source's device. pages: of the driver. read(gpa): the 4096 bytes
    that the destination has there. stop: when the source was quiesced, ns; if
    None, when its device was first told to stop after the marker.
    exposed_after: the marker from which on writes are exposed, None if all are.
    unstopped: nobody told the device to stop, so that all it wrote must be
    there; stop only tells what was in flight then.
    resumed: the source went on after all; what its device wrote once it went
    on, or mastered the bus again, must be there, too.

    What must be there is what was issued before the quiesce, even if it landed
    later, and nothing else. A device that is flushed may also finish what it
    has begun, until it says that it has. A page of kind inflight counts only if
    a transfer to it was issued before and landed after the quiesce.
    """
    begin = 0
    if exposed_after is not None:
        marker = log.marker(exposed_after)
        if marker is None:
            raise BadLog(f'{log.path}: no marker {exposed_after}')
        begin = marker.seq
    quiesce = log.quiesce(begin)
    if stop is None:
        stop = quiesce.time if quiesce else MASK
    settled = stop
    if quiesce and quiesce.type == FLUSH:
        # Or it was made to by other means.
        end = log.first((QUIESCED, MASTER_OFF, RESET), quiesce.seq)
        settled = end.time if end else stop
    again = MASK
    if resumed:
        mastering = log.first((MASTER_ON, RESUME),
                              quiesce.seq if quiesce else begin)
        again = mastering.time if mastering else MASK

    def is_late(record):
        return not unstopped and settled < record.issued < again

    result = Result()
    fresh = log.fresh(begin or MASK)
    writes = [record for record in log.writes() if record.seq > fresh]
    wanted = _Writes(record for record in writes if not is_late(record))
    later = _Writes(record for record in writes if is_late(record))
    result.late = sum(is_late(record) for record in writes)
    result.faults = sum(record.seq > begin for record in log.faults())

    for page in pages:
        records = wanted.of(page.iova) if page.iova else []
        exposed = any(record.seq > begin for record in records)
        if any(record.type == COUNTER and record.seq > begin
               for record in records):
            last = records[-1]
            result.counters += 1
            result.counters_lost += content(last) != read(page.gpa)[
                last.addr - page.iova:][:last.length]
        if page.kind == 'inflight':
            if not any(record.issued <= stop < record.time
                       for record in records):
                continue
        result.add(_Verdict(page, exposed, _replay(records, page.iova),
                            read(page.gpa), later.of(page.iova)))
    return result


def timeline(log, begin=0):
    """What happened, without the writes: for people."""
    names = {MARKER: 'marker', MASTER_OFF: 'master off', MASTER_ON:
             'master on', RESET: 'reset', ENABLE: 'enable', DISABLE: 'disable',
             FAULT: 'FAULT', NOTE: 'note', FLUSH: 'flush',
             QUIESCED: 'quiesced', RESUME: 'resume'}
    writes = [record.seq for record in log.writes()]
    lines = []
    last = 0
    for record in log.records:
        if record.type not in names:
            continue
        count = bisect.bisect(writes, record.seq) - bisect.bisect(writes, last)
        if count:
            lines.append(f'{count} writes')
        last = record.seq
        if record.seq > begin:
            lines.append(
                f'{(record.time - log.monotonic) / 1e9:.6f} s '
                f'{names[record.type]} {record.seed} addr {record.addr:#x} '
                f'status {record.status}')
    rest = len(writes) - bisect.bisect(writes, last)
    return lines + ([f'{rest} writes'] if rest else [])


if __name__ == '__main__':
    print('\n'.join(timeline(Log(sys.argv[1]))))
