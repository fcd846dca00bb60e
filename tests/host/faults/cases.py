# SPDX-License-Identifier: GPL-2.0-only
"""Runs cases one after the other over one guest."""

import journey


def alone(trip, case):
    """For a case that does all itself."""
    case(trip)


def run(tap, directory, name, cases, run_case, only='', **options):
    """run_case(trip, case) for each of cases, over one journey.

    After one that failed the next begins a new journey, because nobody knows
    what the guest is like. only: name of the only case to run.
    options: of the journey.
    """
    left = [case for case in cases if only in ('', case.__name__)]
    while left:
        trip = journey.Journey(tap, directory, f'{name}{len(left)}', **options)
        with trip:
            tap.progress(f'{trip.name}: booted')
            failed = tap.failed
            while left and tap.failed == failed:
                case = left.pop(0)
                tap.label = f' ({case.__name__.replace("_", " ")})'
                tap.progress(case.__name__)
                tap.run(run_case, trip, case)
                tap.label = ''
            if tap.failed != failed:
                tap.note(trip.here.process.tail(8))
            elif trip.is_tracked:
                # The guest of a control has ended by then.
                trip.here.report_trouble(tap)
