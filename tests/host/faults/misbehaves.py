# SPDX-License-Identifier: GPL-2.0-only
"""Guests that are slow, or pin all they have, or nothing, or ever other frames.

Silent ones are in survives.py: their migrations come to nothing.
"""

import cases
import guest
import hidden
import move
import oracle
import survives

# Frames that a device may write all the time: 128 MiB of the guest's 256.
MANY = 32768
# Milliseconds, and bytes per second, with which so many can never be sent.
NO_DOWNTIME = 100
NARROW = 32 << 20


def the_guest_is_slow_to_acknowledge(trip):
    """Within the time it has."""
    def deafen(_there):
        survives.deafen(trip, 2)

    trip.move(before_start=deafen)


def the_guest_is_slow_to_give_a_sign_of_life(trip):
    trip.move(before_end=lambda trip: survives.deafen(trip, 2))


def planes_change_all_the_time(trip):
    """The vCPUs stop between any two of many maps and unmaps."""
    def before_end(trip):
        trip.here.order('unstream')
        trip.stamping = trip.here.agent.start(
            f'cd {guest.FILES} && while :; do echo stamp > control || '
            'exit; done')
        begin = int(trip.here.status()['stamps'])
        guest.wait_until(lambda: int(
            trip.here.status()['stamps']) > begin + 2000, 'many stamps', 60)

    result = trip.leg(before_end=before_end)
    whole = result and trip.expect_whole(result, 'no page is lost')
    trip.stamping.signal()
    trip.stamping.wait(60)
    if whole:
        trip.here.order('selftest')
        trip.expect_traffic()


def pin_many(trip):
    trip.here.agent.run(
        f'echo {MANY} > /sys/module/dma_oracle/parameters/mapped')
    trip.is_fresh = False
    trip.prepare()


def nearly_all_is_pinned(trip):
    """It is known to fit no downtime that is too small, so it goes on and on;
    and ends as soon as there is enough.
    """
    pin_many(trip)

    def before_end(trip):
        qmp = trip.here.qmp
        last = trip.tracking()['provider']
        qmp.command('migrate-set-parameters', **{
            'max-bandwidth': NARROW, 'downtime-limit': NO_DOWNTIME})
        trip.wait_pass(passes(trip) + 5)
        info = qmp.command('query-migrate')
        trip.tap.ok(info['status'] == 'active' and
                    info['expected-downtime'] > 10 * NO_DOWNTIME,
                    'no end in sight, and the expected downtime says why',
                    (info, last))

    trip.move(before_end=before_end)
    pinned = trip.last_info['pinned-frames']
    trip.tap.ok(pinned >= MANY, 'all of them were pinned', pinned)


def passes(trip):
    return trip.here.qmp.command('query-migrate')['ram']['dirty-sync-count']


CASES = (
    the_guest_is_slow_to_acknowledge,
    the_guest_is_slow_to_give_a_sign_of_life,
    planes_change_all_the_time,
    nearly_all_is_pinned,
)


def nothing_is_pinned(tap, directory):
    """The function has no driver: it is migrated as memory alone would be."""
    with move.Move(tap, directory, 'none', move.DEVICE + hidden.PROVIDER,
                   ['dma_track']) as pair:
        pair.wait_tracked()
        pair.start()
        pair.wait_sent_once()
        tap.equal(pair.complete(), 'completed', 'the guest moves')
        last = pair.source.qmp.command('query-dma-track')['last-migration']
        tap.equal(last['pinned-frames'], 0, 'nothing was pinned')
        here, there = pair.source.memory(), pair.destination.memory()
        tap.equal([hex(gpa) for gpa in range(0, guest.RAM_MIB << 20,
                                             oracle.PAGE)
                   if here(gpa) != there(gpa)], [],
                  'both sides have the same memory')
        pair.go_on()
        pair.destination.report_trouble(tap)


def run_case(trip, case):
    trip.prepare()
    case(trip)


def run(tap, directory, only):
    cases.run(tap, directory, 'odd', CASES, run_case, only)
    if only in ('', nothing_is_pinned.__name__):
        tap.progress(nothing_is_pinned.__name__)
        tap.run(nothing_is_pinned, tap, directory)
