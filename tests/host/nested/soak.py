#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Random migrations of nested guests, with random faults, for hours.

As ../faults/soak.py, with real vfio-pci. A trip is one guest that goes from
slot to slot and back, with TCP and UDP traffic all the way; half of its
migrations come to nothing in a random way first. Half of the guests are on each
back end of VFIO, and half have functions with ring flush. After every other one
comes a control in the same bed, one of two: nobody tracks, or nobody makes the
functions quiet.
--help lists the options.
"""

import contextlib
import os
import random
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', '..', 'lib')]

# pylint: disable=wrong-import-position
import bed  # noqa: E402
import load  # noqa: E402
import moves  # noqa: E402
import paths  # noqa: E402
import scenario  # noqa: E402
import soaking  # noqa: E402
import vm  # noqa: E402

LEGS = 12
# Every so many trips a control comes behind it.
CONTROLS = 2
# Of the guests: two crawl where L1 has one, on a machine that does much else.
PROCESSORS = (1, 1, 2)
# Of VFIO, on the host.
BACKENDS = ('type1', 'iommufd')
# When a fault comes: what to wait for, and for how many seconds it may then be
# put off.
MOMENTS = {'setup': 1.5, 'precopy': 1, 'end': 1, 'switchover': 0.5,
           'final': 0.3}
PAUSE = 'pause-before-switchover'


class Traffic(load.Traffic):
    """So little of it that L1 has time for the migrations."""

    STREAM_PERIOD_US = 200000
    PING_PERIOD_US = 20000


class Guest:
    """One that goes there and back, with an oracle and traffic in it."""

    def __init__(self, test_bed, number, rng, **options):
        self.bed = test_bed
        self.number = number
        self.hop = 0
        self.random = rng
        self.options = options
        self.tap = soaking.Witness()
        self.found = []
        self.here = None
        self.traffic = None
        self.device = None
        # How often the test device's driver was brought back.
        self.restores = 0
        # Of this migration: [step, seconds it took].
        self.steps = []
        self.last = 0

    def step(self, name):
        """That is done; how long it took goes into the log."""
        now = time.monotonic()
        self.steps.append([name, round(now - self.last, 1)])
        self.last = now

    def begin_steps(self, entry):
        self.steps = entry['steps'] = []
        self.last = time.monotonic()

    @property
    def pages(self):
        return self.device.pages

    def boot(self, entry):
        entry.update(self.options, flush=self.bed.flush)
        self.here = self.bed.guest('a', **self.options).launch().wait_booted()
        self.traffic = Traffic(self.bed, self.here).start()
        self.device = load.Oracle(self.bed, self.here).prepare()
        load.wait_tracked(self.here)

    def freshen(self):
        """Frames that nobody has written yet, on the device that is here."""
        old, self.device = self.device, load.Oracle(self.bed, self.here)
        self.device.directory = old.directory
        if self.device.status()['state'] == 'streaming':
            self.device.control('unstream')
        self.device.control('release')
        self.device.control('prepare')
        self.device.control('selftest')
        self.step('fresh frames')

    # --- A migration, step by step ------------------------------------------

    def begin(self, pause, **changes):
        """A migration that has begun, to the other slot."""
        slot = next(slot for slot in bed.SLOTS if slot != self.here.slot)
        there = self.bed.guest(slot, incoming=True, **{
            **self.options, **changes}).launch()
        load.wait_tracked(self.here)
        self.here.qmp.command('migrate-set-capabilities', capabilities=[
            {'capability': 'return-path', 'state': True},
            {'capability': PAUSE, 'state': pause}])
        migration = bed.Move(self.here, there)
        self.step('destination')
        migration.start(bandwidth=scenario.BANDWIDTH)
        return migration

    def work(self, migration):
        """The device writes all frames, each of which was sent before."""
        migration.wait_pass(2)
        migration.linger()
        self.step('sent once')
        self.device.work()
        self.step('written')

    def arrive(self, migration, entry):
        """The guest is over there: all must be, too."""
        self.step('completed')
        there = migration.destination
        entry['moved'] = True
        entry['total_ms'] = migration.info['total-time']
        entry['downtime_ms'] = migration.info['downtime']
        entry.update(scenario.last_migration(load.tracking(self.here)))
        migration.follow_guest()
        self.wait_restored(there)
        self.check(there)
        self.discard(self.here)
        self.here = there
        self.check_life()

    def wait_restored(self, guest):
        self.restores += 1
        self.device.wait_restored(guest, times=self.restores)
        bed.wait_until(lambda: scenario.all_restored(guest),
                       'all drivers restored')
        self.step('restored')

    def discard(self, guest):
        guest.stop()
        self.bed.guests.remove(guest)

    # --- What must hold -----------------------------------------------------

    def check(self, guest):
        result = self.device.check(guest)
        self.found.append(result)
        self.step('compared')
        if not result.ok:
            soaking.keep(self.bed.directory, result, self,
                         tracking=str(load.tracking(guest)),
                         guests=self.bed.describe_guests())
            raise soaking.Lost('\n'.join(result.lines))
        if not all(result.kinds[kind]['exposed'] >= 64
                   for kind in ('unmapped', 'mapped', 'ring')):
            raise soaking.NoResult(f'too few pages: {result.lines}')

    def check_life(self):
        """Traffic goes on, and no kernel complains."""
        self.traffic.wait_stream()
        self.tap.equal(self.here.trouble(), [],
                       "no trouble in the guest's kernel log")
        self.tap.equal(self.bed.trouble(), [], 'no trouble in the log of L1')
        self.step('alive')

    def generations(self):
        return [one['generation']
                for one in load.tracking(self.here)['functions']]

    def check_source(self, had_reset):
        """It goes on as if there had been no migration."""
        bed.wait_until(
            lambda: self.here.qmp.command('query-status')['running'],
            'a source that goes on')
        if had_reset():
            self.wait_restored(self.here)
        elif self.device.status()['state'] != 'streaming':
            self.device.work()
        if self.device.status()['state'] == 'streaming':
            self.device.control('unstream')
        bed.wait_until(lambda: load.tracking(self.here)['provider'][
            'phase'] == 'idle', 'the end of logging')
        self.check(self.here)
        self.check_life()

    # --- Migrations ---------------------------------------------------------

    def move(self, entry):
        self.begin_steps(entry)
        self.freshen()
        migration = self.begin(False)
        self.work(migration)
        soaking.let_pass(self.random.random(), lambda: False)
        status = migration.complete()
        if self.tap.equal(status, 'completed', 'the guest moves '
                          f'({migration.info.get("error-desc", "")})'):
            self.arrive(migration, entry)

    def fail(self, fault, moment, entry):
        """A fault at a random time behind a moment."""
        self.begin_steps(entry)
        self.freshen()
        before = self.generations()
        migration = self.begin(moment in ('switchover', 'final'))
        if moment != 'setup':
            self.work(migration)
            if moment != 'precopy':
                migration.allow()
            if moment in ('switchover', 'final'):
                migration.wait_switchover()
            if moment == 'final':
                migration.go_on()
        soaking.let_pass(self.random.random() * MOMENTS[moment],
                         lambda: False)
        fault(self, migration)
        if moment == 'switchover' and fault is not cancelled:
            # It waits there, and would not notice.
            migration.go_on()
        self.end(migration, entry, fault is killed, before)

    def end(self, migration, entry, is_killed, before):
        """However it ends."""
        status = migration.finish()
        entry['status'] = status
        entry['words'] = migration.info.get('error-desc', '')
        if status == 'completed':
            if is_killed:
                raise soaking.NoResult('it had moved, and was killed then')
            self.arrive(migration, entry)
            return
        self.discard(migration.destination)
        self.check_source(lambda: self.generations() != before)

    def to_a_place_without_a_function(self, entry):
        self.begin_steps(entry)
        self.freshen()
        before = self.generations()
        migration = self.begin(False, functions=('vf',))
        self.work(migration)
        migration.allow()
        self.end(migration, entry, False, before)


# --- Faults -----------------------------------------------------------------

def cancelled(guest, _migration):
    guest.here.qmp.command('migrate_cancel')


def killed(_guest, migration):
    migration.destination.command.signal(9)
    migration.destination.command.wait()


def cut(guest, migration):
    """The link, by either end of it."""
    side = guest.random.choice((guest.here, migration.destination))
    try:
        side.qmp.command('yank', instances=[{'type': 'migration'}])
    except vm.QmpError as error:
        # There is none any more, or not yet.
        print(f'yank: {error}', flush=True)


FAULTS = (cancelled, killed, cut)


def random_fault(rng):
    """(its name, what does it)"""
    if rng.random() < 0.1:
        return 'without_a_function', Guest.to_a_place_without_a_function
    fault, moment = rng.choice(FAULTS), rng.choice(list(MOMENTS))
    return f'{fault.__name__} at {moment}', \
        lambda guest, entry: guest.fail(fault, moment, entry)


# --- Trips ------------------------------------------------------------------

def run_legs(book, guest):
    """Until something is not good; what that is."""
    for guest.hop in range(1, LEGS + 1):
        if guest.random.random() < 0.5:
            name, act = random_fault(guest.random)
            outcome = book.attempt(guest, lambda entry, act=act: act(
                guest, entry), fault=name)
            if outcome != soaking.GOOD:
                return outcome
        outcome = book.attempt(guest, guest.move, way='plainly')
        if outcome != soaking.GOOD or book.late():
            return outcome
    return soaking.GOOD


def end_traffic(guest, entry):
    """Of the whole trip."""
    try:
        entry['traffic'] = heard = guest.traffic.finish(guest.here)
    except vm.Timeout:
        # Whether it is slow or dead is to be seen in its last words.
        entry['ping'] = guest.traffic.ping.text()[-500:]
        entry['stream'] = guest.traffic.stream.text()[-500:]
        raise
    guest.tap.ok(heard['tcp_ok'], 'the TCP stream goes on, all of it right',
                 heard)
    guest.tap.ok(heard['same_address'], 'the addresses are the same', heard)


def run_control(guest, entry):
    """What is lost if nobody tracks, or nobody makes the functions quiet."""
    kinds = load.KINDS
    options = {'tracked_by': 'external'}
    if guest.number // CONTROLS % 2:
        entry['control'] = 'no quiesce'
        kinds = ('inflight',)
        options = {'mark_stop': True, 'provider': scenario.PROVIDER +
                   ',x-dma-quiesce-suppress=all'}
    found = scenario.move(guest.bed, bed.silent, whole=False, **options,
                          **guest.options)
    entry['pages'] = found.get('oracle')
    guest.tap.equal(found['status'], 'completed', 'the control moves')
    guest.tap.ok(moves.enough(found), 'pages enough of each kind', found)
    for kind in kinds:
        one = found['oracle'][kind]
        guest.tap.ok(one['lost'] >= 0.9 * one['exposed'] > 0,
                     f'{kind} pages are lost in the control', one)


def run_guest(book, guest):
    """Its whole life."""
    outcome = book.attempt(guest, guest.boot, way='boot')
    if outcome == soaking.GOOD:
        outcome = run_legs(book, guest)
    if outcome == soaking.GOOD:
        outcome = book.attempt(guest, lambda entry: end_traffic(guest, entry),
                               way='traffic')
    return outcome


def run_trip(book, number):
    """One guest's; what came of its last migration."""
    rng = random.Random(f'{book.seed} {number}')
    smp, backend = rng.choice(PROCESSORS), rng.choice(BACKENDS)
    test_bed = bed.Bed(iommufd=backend == 'iommufd',
                       flush=rng.random() < 0.5)
    guest = Guest(test_bed, number, rng, smp=smp, backend=backend)
    with contextlib.ExitStack() as stack:
        outcome = book.attempt(guest, lambda _: stack.enter_context(test_bed),
                               way='bed')
        if outcome != soaking.GOOD:
            return outcome
        outcome = run_guest(book, guest)
        if outcome == soaking.GOOD and number % CONTROLS == 0:
            test_bed.stop_guests()
            guest.hop += 1
            outcome = book.attempt(guest, lambda entry: run_control(
                guest, entry), way='control')
        if outcome != soaking.GOOD:
            test_bed.keep = True
            print(test_bed.describe_guests(), flush=True)
        test_bed.stop_guests()
    return outcome


def main():
    return soaking.run('nested', __doc__, run_trip)


if __name__ == '__main__':
    paths.run(main)
