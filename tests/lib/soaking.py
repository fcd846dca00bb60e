#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Random migrations there and back, with random faults, for hours.

    soaking.py [--hours H] [--seed S] [--report]

Runs the soaks of the emulated guests and of the nested bed side by side, and
reports on all that was ever written down. Each can be run alone:
tests/host/faults/soak.py, tests/host/nested/soak.py.

A trip is one guest; each of its migrations is a line of JSON in soak/ in the
cache. A later run goes on behind the last trip. What is not good has left its
logs in build/run.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import time
import traceback

import paths
import tapwriter
import vm

BEDS = {'emulated': 'faults', 'nested': 'nested'}
# What came of a migration, or of an attempt at one.
GOOD, LOST, FAILED, NO_RESULT = 'good', 'lost', 'failed', 'no result'
# A guest that crawls is refused in these words. Nothing is wrong with that, and
# nothing is shown.
CRAWLS = re.compile('did not (acknowledge|give a sign of life)')


class NoResult(Exception):
    """Nothing was shown; str() says why."""


class Lost(Exception):
    """Memory, or packets, are not what they should be; str() says what."""


class Witness:
    """Remembers what did not hold. Stands where tests have their Tap."""

    def __init__(self):
        self.failed = 0
        self.label = ''
        self.broken = []

    def ok(self, holds, fact, detail=''):
        if not holds:
            self.failed += 1
            self.broken.append(f'{fact}: {detail}')
        return bool(holds)

    def equal(self, got, wanted, fact):
        return self.ok(got == wanted, fact, f'got {got!r}, wanted {wanted!r}')

    def note(self, _text):
        pass

    progress = note

    def taken(self):
        broken, self.broken = self.broken, []
        return broken


def verdict(broken, error):
    """(what came of it, why) from facts that did not hold and an exception."""
    if isinstance(error, Lost):
        return LOST, [str(error)] + broken
    if broken and all(CRAWLS.search(fact) for fact in broken) or \
            (error and CRAWLS.search(str(error))):
        return NO_RESULT, broken or [str(error)]
    if broken:
        return FAILED, broken + ([repr(error)] if error else [])
    if isinstance(error, (NoResult, tapwriter.Skip, vm.Timeout)):
        return NO_RESULT, [str(error)]
    if error:
        return FAILED, [f'{type(error).__name__}: {error}']
    return GOOD, []


def versions():
    """Of the checkout, and of the emulator."""
    def say(*command):
        return subprocess.run(command, stdout=subprocess.PIPE,
                              check=False).stdout.decode().strip()

    with open(paths.qemu(), 'rb') as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return {'tree': say('git', '-C', paths.ROOT, 'describe', '--always',
                        '--dirty'),
            'qemu': say(paths.qemu(), '--version').split('\n')[0].split()[-1] +
            '-' + digest[:12]}


class Book:
    """One line of JSON for each migration, in the cache: it outlives runs.

    bed: one of BEDS. seed: of all random choices. deadline: when the last trip
    is to begin. is_kept: is anything to be written down?
    """

    def __init__(self, bed, args):
        self.bed = bed
        self.path = os.path.join(paths.CACHE, 'soak', f'{bed}.jsonl')
        self.seed = args.seed
        self.deadline = time.monotonic() + args.hours * 3600
        self.is_kept = args.trip is None
        self.versions = None
        # How many there were before this run, which does not answer for them.
        self.before = 0 if args.report else len(self.entries())

    def late(self):
        return time.monotonic() > self.deadline

    def entries(self):
        try:
            with open(self.path, encoding='utf-8') as file:
                return [json.loads(line) for line in file]
        except FileNotFoundError:
            return []

    def next_trip(self):
        return 1 + max((one['trip'] for one in self.entries()
                        if one['seed'] == self.seed), default=-1)

    def attempt(self, trip, act, **entry):
        """Do something, write down what came of it, and return that.

        act: called with the entry, to which it may add. trip: has number, hop,
        tap, and found: what oracle.check() returned. entry: with fault or way,
        what is tried.
        """
        began = time.monotonic()
        del trip.found[:]
        entry = {'seed': self.seed, 'trip': trip.number, 'leg': trip.hop,
                 'bed': self.bed, 'fault': None, 'way': None, **entry}
        error = None
        try:
            act(entry)
        except Exception as caught:  # pylint: disable=broad-except
            error = caught
            if not isinstance(error, (NoResult, Lost)):
                traceback.print_exc()
        entry['outcome'], entry['why'] = verdict(trip.tap.taken(), error)
        entry['pages'] = entry.get('pages') or total(
            result.kinds for result in trip.found)
        entry['seconds'] = round(time.monotonic() - began, 1)
        self.write(entry)
        return entry['outcome']

    def write(self, entry):
        self.versions = self.versions or versions()
        entry = {'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
                 **entry, **self.versions}
        if self.is_kept:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with open(self.path, 'a', encoding='utf-8') as file:
                file.write(json.dumps(entry) + '\n')
        lost, exposed = lost_of(entry)
        print(f'{self.bed} {entry["trip"]}.{entry["leg"]} '
              f'{entry["fault"] or ""} {entry["way"] or ""}: '
              f'{entry["outcome"]}, {lost} lost of {exposed} exposed, '
              f'{entry["seconds"]} s {reason(entry)}',
              flush=True)

    def report(self):
        """Of all trips ever written down; returns whether this run is good."""
        known = self.entries()
        controls = [{'control': 'no tracking', **one} for one in known
                    if one['way'] == 'control']
        rest = [one for one in known if one['way'] != 'control']
        moved = [one for one in rest
                 if one['outcome'] == GOOD and one.get('moved')]
        stayed = [one for one in rest if one['outcome'] == GOOD and
                  one['fault'] and not one.get('moved')]
        good = moved + stayed
        print(f'{self.bed}: {len(good)} migrations: {len(moved)} moved the '
              f'guest, {len(stayed)} had a fault, and it stayed')
        print('  ' + describe(rest))
        for kind in sorted({one['control'] for one in controls}):
            some = [one for one in controls if one['control'] == kind]
            print(f'  {len(some)} controls, {kind}: ' + describe(some))
        for outcome in LOST, FAILED, NO_RESULT:
            some = [one for one in known if one['outcome'] == outcome]
            print(f'  {outcome}: {len(some)}')
            for one in some:
                print(f'    seed {one["seed"]} trip {one["trip"]}.{one["leg"]} '
                      f'{one["fault"] or one["way"]}: '
                      f'{reason(one)}')
        print(f'  log: {self.path}', flush=True)
        outcomes = {one['outcome'] for one in known[self.before:]}
        return GOOD in outcomes and not outcomes & {LOST, FAILED}


def total(results):
    """Of counts for each kind of page."""
    sums = {}
    for kinds in results:
        for kind, counts in kinds.items():
            into = sums.setdefault(kind, dict.fromkeys(counts, 0))
            for name, number in counts.items():
                into[name] += number
    return sums


def reason(entry):
    """Why it is not good, on one line."""
    return '; '.join(entry['why']).replace('\n', '; ')[:300]


def bad(counts):
    """Pages of a kind that are not what was written to them."""
    return counts['lost'] + counts.get('stale', 0)


def lost_of(entry):
    """(lost or stale, exposed) of all kinds of page."""
    kinds = entry['pages'].values()
    return (sum(bad(kind) for kind in kinds),
            sum(kind['exposed'] for kind in kinds))


def describe(entries):
    """How many pages were lost, in words."""
    sums = total(entry['pages'] for entry in entries)
    lost, exposed = lost_of({'pages': sums})
    share = f' ({100 * lost / exposed:.1f} %)' if exposed else ''
    return f'{lost} lost of {exposed} pages exposed{share}: ' + ', '.join(
        f'{kind} {bad(counts)} of {counts["exposed"]}'
        for kind, counts in sums.items())


def keep(directory, result, trip, **more):
    """Write down all that an oracle has found, for whoever looks for why.

    more: texts, by the names of their files
    """
    os.makedirs(directory, exist_ok=True)
    more['verdicts'] = '\n'.join(
        result.lines[:5] + [one.line() for one in result.bad])
    more['pages'] = '\n'.join(f'{page.kind} {page.gpa:#x} {page.iova:#x}'
                              for page in trip.pages)
    for name, text in more.items():
        with open(os.path.join(directory, name), 'w',
                  encoding='utf-8') as file:
            file.write(text + '\n')


def let_pass(seconds, tell):
    """Go on at a random moment, or as soon as tell() returns something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not tell():
        select.select([], [], [], 0.01)


# --- Programs ---------------------------------------------------------------

def parse(description, one_trip=True):
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--hours', type=float, default=1,
                        help='no trip begins later [%(default)s]')
    parser.add_argument('--seed', type=int, default=1,
                        help='of all random choices [%(default)s]')
    parser.add_argument('--report', action='store_true',
                        help='run nothing, only report')
    if one_trip:
        parser.add_argument('--trip', type=int,
                            help='repeat only this one, and log nothing')
    return parser.parse_args()


def run(bed, description, run_trip):
    """The program of one bed: run_trip(book, number) again and again.

    It returns what came of the trip's last migration.
    """
    args = parse(description)
    book = Book(bed, args)
    # All that a trip has started ends with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.report:
        return 0 if book.report() else 1
    if args.trip is not None:
        return 0 if run_trip(book, args.trip) == GOOD else 1
    outcome = None
    while not book.late() and outcome != LOST:
        outcome = run_trip(book, book.next_trip())
    return 0 if book.report() else 1


def main():
    args = parse(__doc__, False)
    args.trip = None
    books = [Book(bed, args) for bed in BEDS]
    if args.report:
        return 0 if all([book.report() for book in books]) else 1
    return 0 if soak(books, ['--hours', str(args.hours),
                             '--seed', str(args.seed)]) else 1


def soak(books, words):
    """Run all beds at once; a loss in one ends the others."""
    with contextlib.ExitStack() as stack:
        left = {stack.enter_context(subprocess.Popen(
            [os.path.join(paths.ROOT, 'tests', 'host', BEDS[book.bed],
                          'soak.py'), *words])).pid for book in books}
        good = True
        while left:
            pid, status = os.wait()
            left.discard(pid)
            good = good and not status
            if status and not books[0].late():
                for other in left:
                    os.kill(other, signal.SIGTERM)
    return good


if __name__ == '__main__':
    paths.run(main)
