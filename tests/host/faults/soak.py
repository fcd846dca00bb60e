#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Random migrations of emulated guests, with random faults, for hours.

A trip is one guest and its migrations from QEMU to QEMU, each in a random way;
half of them after one that came to nothing in a random way, and with a source
that was looked at then. After every few trips a control: nobody tracks, and
pages must be lost. What is written down: see ../../lib/soaking.py.
--help lists the options.
"""

import contextlib
import os
import random
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'emulated'),
                os.path.join(HERE, '..', '..', 'lib')]

# pylint: disable=wrong-import-position
import destination  # noqa: E402
import journey  # noqa: E402
import paths  # noqa: E402
import soaking  # noqa: E402
import survives  # noqa: E402
import ways  # noqa: E402

LEGS = 20
# Every so many trips is a control.
CONTROLS = 5
# Frames that stay mapped.
MAPPED = (64, 128, 256, 512, 1024)
# Bytes that the first pass sends, and those behind it, about.
FIRST_PASS = 48 << 20
FINAL_PASS = 6 << 20
RETURN_PATH = ('return-path',)


class Guest(journey.Journey):
    """One that goes on and on, and does not hide what it has lost."""

    def __init__(self, directory, number, rng, **options):
        super().__init__(soaking.Witness(), directory, f'trip{number}',
                         **options)
        self.number = number
        self.hop = 0
        self.random = rng
        # Of the oracle, since the book was opened last.
        self.found = []

    def compare(self, side):
        result = super().compare(side)
        self.found.append(result)
        if self.is_tracked and not result.ok:
            soaking.keep(self.directory, result, self,
                         tracking=str(self.tracking()), migration=str(
                             self.here.qmp.command('query-migrate')))
            for machine in {self.here, side}:
                machine.qmp.command(
                    'pmemsave', 120, val=0, size=ways.RAM,
                    filename=os.path.abspath(machine.path('kept')))
            raise soaking.Lost('\n'.join(result.lines))
        return result

    def expect_whole(self, result, fact):
        """Too little to lose shows nothing, but is no loss."""
        if not journey.enough(result):
            raise soaking.NoResult(f'too few pages: {result.lines}')
        return super().expect_whole(result, fact)

    def expect_traffic(self):
        if self.parts['nic']:
            self.packets.goes_on()
            found = self.packets.settle()
            if found != (0, 0, 0):
                raise soaking.Lost('packets lost, twice, wrong: %d, %d, %d' %
                                   found)

    def start(self, *args, **options):
        # QEMU compares new capabilities with the parameters of before.
        self.here.qmp.command('migrate-set-parameters', **journey.PARAMETERS)
        super().start(*args, **options)

    def prepare(self):
        """Have so many frames as it comes."""
        # Of former frames; work() asks for those of now.
        self.pages = []
        if not self.is_fresh:
            self.here.agent.run(
                f'echo {self.random.choice(MAPPED)} > '
                '/sys/module/dma_oracle/parameters/mapped')
        super().prepare()


# --- Faults at random moments -----------------------------------------------

def ends(trip):
    """Has the migration ended? Its event is left for others."""
    qmp = trip.here.qmp
    with qmp.change:
        return any(event['event'] == 'MIGRATION' and
                   event['data']['status'] in journey.ENDS
                   for event in qmp.events)


def at_random(trip, act):
    """act(wire, there, at, is_early) in the first pass, or near the end.

    at: a number below 1, of how late in it.
    """
    is_early = trip.random.random() < 0.4
    at = trip.random.random()
    with trip.linked() as (wire, there):
        trip.start(there, wire, capabilities=RETURN_PATH)
        if not is_early:
            trip.wait_sent_once()
            trip.work()
            trip.let_end()
        act(wire, there, at, is_early)
        status = trip.wait_status(deadline=240)
        if status == 'completed':
            if not there.process.alive():
                raise soaking.NoResult('it had moved, and was killed then')
            trip.expect_arrived(trip.arrive(there), 'no page is lost')


def cut_at_random(trip):
    def act(wire, _there, at, is_early):
        wire.cut_after(int(at * (FIRST_PASS if is_early else FINAL_PASS)))
        if is_early:
            wire.wait_stopped()

    at_random(trip, act)


def cancelled_at_random(trip):
    def act(_wire, _there, at, is_early):
        soaking.let_pass(at * (2 if is_early else 0.5), lambda: ends(trip))
        trip.here.qmp.command('migrate_cancel')

    at_random(trip, act)


def killed_at_random(trip):
    def act(_wire, there, at, is_early):
        soaking.let_pass(at * (2 if is_early else 0.5), lambda: ends(trip))
        if not ends(trip):
            there.process.process.kill()

    at_random(trip, act)


def random_fault(rng):
    """More often than not at a random moment."""
    if rng.random() < 0.6:
        return rng.choice((cut_at_random, cancelled_at_random,
                           killed_at_random))
    return rng.choice(survives.CASES + destination.CASES)


# --- Trips ------------------------------------------------------------------

def plainly(trip):
    trip.move(before_end=dwell)


def dwell(trip):
    """For a random time after all was written."""
    trip.wait_completions(trip.random.randrange(400))


WAYS = (ways.by_several_channels, ways.by_compressed_channels,
        ways.by_differences, ways.encrypted, ways.by_a_file,
        ways.by_a_file_with_places, ways.to_memory_in_a_file,
        ways.with_memory_that_is_shared) + 8 * (plainly,)


def run_fault(trip, fault, entry):
    before = trip.here
    trip.words = ''
    trip.prepare()
    fault(trip)
    entry['moved'] = trip.here is not before
    if not entry['moved']:
        entry['words'] = trip.words
        trip.expect_source_works()


def run_way(trip, way, entry):
    trip.prepare()
    before = trip.here
    way(trip)
    entry['moved'] = trip.tap.ok(trip.here is not before, 'the guest moves')
    last = trip.last_info or {}
    entry['pinned'] = last.get('pinned-frames')
    entry['final_pass_bytes'] = last.get('final-pass-bytes')


def run_control(trip, entry):
    trip.expect_loss()
    entry['moved'] = True


def run_legs(book, trip):
    """Until something is not good; what that is."""
    rng = trip.random
    for trip.hop in range(LEGS):
        if rng.random() < 0.5:
            fault = random_fault(rng)
            outcome = book.attempt(
                trip, lambda entry, fault=fault: run_fault(trip, fault, entry),
                fault=fault.__name__)
            if outcome != soaking.GOOD:
                return outcome
        way = rng.choice(WAYS)
        outcome = book.attempt(
            trip, lambda entry, way=way: run_way(trip, way, entry),
            way=way.__name__)
        if outcome != soaking.GOOD or book.late():
            return outcome
    return book.attempt(trip, lambda _: trip.here.report_trouble(trip.tap),
                        way='kernel log')


def run_trip(book, number):
    """One guest's; what came of its last migration."""
    rng = random.Random(f'{book.seed} {number}')
    directory = paths.scratch(f'soak-{book.seed}-{number}')
    is_control = number % CONTROLS == CONTROLS - 1
    options = {'tracking': (), 'nic': ()} if is_control else \
        {'nic': ()} if rng.random() < 0.3 else {}
    trip = Guest(directory, number, rng, **options)
    with contextlib.ExitStack() as stack:
        outcome = book.attempt(
            trip, lambda _: stack.enter_context(trip), way='boot')
        if outcome == soaking.GOOD:
            outcome = book.attempt(
                trip, lambda entry: run_control(trip, entry),
                way='control') if is_control else run_legs(book, trip)
    if outcome == soaking.GOOD:
        shutil.rmtree(directory)
    return outcome


def main():
    return soaking.run('emulated', __doc__, run_trip)


if __name__ == '__main__':
    paths.run(main)
