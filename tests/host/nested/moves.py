# SPDX-License-Identifier: GPL-2.0-only
"""Nothing that a device wrote is lost in a move, and what would be without."""

import load
import scenario

# What a run has to contain to prove anything: pages of each kind.
WANTED = {'unmapped': 1000, 'mapped': 500, 'ring': 64, 'inflight': 32}


def enough(result):
    """Were there as many pages of each kind as the proof wants?"""
    return all(result['oracle'][kind]['pages'] >= WANTED[kind]
               for kind in WANTED)


def _check_move(tap, result):
    tap.equal(result['status'], 'completed', 'the migration completes')
    if result['status'] != 'completed':
        tap.note(result.get('error', ''))
        return False
    tap.ok(enough(result), 'there were pages enough of each kind',
           str(result['oracle']))
    tap.equal(result['trouble'], [], 'no trouble in either kernel log')
    return True


def a_false_promise_loses_pages(test_bed, tap):
    result = scenario.move(test_bed, tap.progress, tracked_by='external',
                           whole=False)
    if not _check_move(tap, result):
        return
    for kind in load.KINDS:
        one = result['oracle'][kind]
        tap.ok(one['exposed'] and one['lost'] >= 0.9 * one['exposed'],
               f'untracked, {kind} pages are lost', str(one))


def tracked_nothing_is_lost(test_bed, tap):
    result = scenario.move(test_bed, tap.progress)
    if not _check_move(tap, result):
        return
    for kind in load.KINDS:
        one = result['oracle'][kind]
        tap.ok(one['exposed'] and not one['lost'],
               f'tracked, no {kind} page is lost', str(one))
    tap.ok(result['oracle_ok'], 'every byte is what the device wrote',
           '\n'.join(result['oracle_lines'][-10:]))
    tap.ok(result['tcp_ok'], 'the TCP stream goes on, all of it right',
           result['stream'])
    tap.ok(result['same_address'], 'IP and MAC addresses are the same')
    tap.note(f'outage {result["udp_outage_ms"]:.0f} ms, '
             f'downtime {result["downtime_ms"]} ms')


def without_quiesce_what_is_in_flight_is_lost(test_bed, tap):
    result = scenario.move(
        test_bed, tap.progress, mark_stop=True, whole=False,
        provider=scenario.PROVIDER + ',x-dma-quiesce-suppress=all')
    if not _check_move(tap, result):
        return
    one = result['oracle']['inflight']
    tap.ok(one['lost'] >= 1, 'without quiesce, pages in flight are lost',
           str(one))


TESTS = (a_false_promise_loses_pages, tracked_nothing_is_lost,
         without_quiesce_what_is_in_flight_is_lost)
