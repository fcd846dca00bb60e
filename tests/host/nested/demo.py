#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Move a guest that owns an SR-IOV function, and prove that nothing was lost.

    demo.py [--runs N]

Tells the story step by step, ends with a table and build/demo/report.json.
Exit status 0 only if everything held.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', '..', 'lib')]

# pylint: disable=wrong-import-position
import bed  # noqa: E402
import load  # noqa: E402
import moves  # noqa: E402
import paths  # noqa: E402
import refusal  # noqa: E402
import replug  # noqa: E402
import scenario  # noqa: E402
import vm  # noqa: E402

REPORT = os.path.join(paths.BUILD, 'demo', 'report.json')
START = time.monotonic()
# Fields of a run that the report sums up; the others are medians.
COUNTED = ('oracle', 'devices_restored')


def tell(text):
    """One line of the story."""
    print(f'[{time.monotonic() - START:6.1f} s] {text}', flush=True)


def chapter(number, text):
    print(f'\n[{time.monotonic() - START:6.1f} s] === {number}. {text}',
          flush=True)


class Story:
    """What happened so far, and what did not hold."""

    def __init__(self, test_bed):
        self.bed = test_bed
        self.runs = []
        self.stock_refused = False
        self.broken = []

    def expect(self, holds, fact):
        """Say whether a fact holds; remember it if it does not."""
        if not holds:
            self.broken.append(fact)
        tell(f'   {"yes" if holds else "NO "}  {fact}')

    # --- The steps ---------------------------------------------------------

    def stock(self):
        chapter(1, 'stock: the same guest, the same QEMU, '
                   'no virtio-dma-track')
        _, words = refusal.try_to_move(self.bed, tell, provider=None)
        tell(f'   QEMU: {words}')
        self.stock_refused = bool(words) and 'not supported in kernel' in words
        self.expect(self.stock_refused, 'the migration is refused')
        self.bed.stop_guests()

    def control(self, run):
        chapter(2, 'control: the toolstack promises that somebody else '
                   'tracks (dma-tracked-by=external). Nobody does')
        result = self.one_move(tracked_by='external', whole=False)
        run['control'] = result
        if result['status'] != 'completed':
            return
        for kind in load.KINDS:
            one = result['oracle'][kind]
            self.expect(
                one['exposed'] and one['lost'] >= 0.9 * one['exposed'],
                f'{kind}: {one["lost"]} of {one["exposed"]} exposed pages '
                'are lost (>= 90 %)')

    def tracked(self, run):
        chapter(3, 'the real thing: the guest tracks its DMA')
        result = self.one_move()
        run['tracked'] = result
        if result['status'] != 'completed':
            return
        self.expect(moves.enough(result), 'pages enough of each kind: ' +
                    ', '.join(f'{kind} {one["pages"]}' for kind, one in
                              result['oracle'].items()))
        for kind in load.KINDS:
            one = result['oracle'][kind]
            self.expect(one['exposed'] and not one['lost'],
                        f'{kind}: {one["lost"]} of {one["exposed"]} exposed '
                        'pages are lost')
        self.expect(result['oracle_ok'], 'every byte is what the device wrote')
        self.expect(result['tcp_ok'], 'the TCP stream went on, every word of '
                                      'it right')
        self.expect(result['same_address'], 'sockets, IP and MAC survive')
        self.expect(result['devices_restored'] == 2, 'both drivers restored')

    def peer(self, run):
        chapter(4, 'peer: the same guest by device_del, migrate, device_add')
        result = self.attempt(replug.replug)
        run['unplug_replug'] = result
        self.expect(result['status'] == 'completed',
                    f'it gets there, too {result.get("error", "")}')

    def attempt(self, step, **options):
        """A step that fails is a finding; the story goes on."""
        try:
            return step(self.bed, tell, **options)
        except (vm.Timeout, vm.CommandFailed, vm.QmpError, vm.Gone) as error:
            if not self.bed.process.alive():
                raise
            self.bed.keep = True
            print(self.bed.describe_guests())
            return {'status': 'error', 'error': str(error)}
        finally:
            self.bed.stop_guests()

    def one_move(self, **options):
        result = self.attempt(scenario.move, **options)
        self.expect(result['status'] == 'completed',
                    f'the migration completes {result.get("error", "")}')
        if result['status'] == 'completed':
            self.expect(not result['trouble'],
                        f'kernel logs are clean {result["trouble"][:3] or ""}')
        return result

    # --- The report --------------------------------------------------------

    def compare(self):
        """Outages, once all runs are in."""
        ours = self.values('tracked', 'udp_outage_ms')
        theirs = self.values('unplug_replug', 'udp_outage_ms')
        if not ours or not theirs:
            self.expect(False, 'outages were measured')
            return
        limit = statistics.median(theirs)
        self.expect(statistics.median(ours) <= limit / 3,
                    f'median UDP outage {statistics.median(ours):.0f} ms is '
                    f'at most a third of {limit:.0f} ms')
        self.expect(max(ours) <= limit,
                    f'no run was worse than that: {max(ours):.0f} ms')

    def values(self, what, field):
        return [run[what][field] for run in self.runs
                if field in run.get(what, {})]

    def summary(self, what):
        """Sums of what is counted, medians of what is measured."""
        runs = [run[what] for run in self.runs if what in run]
        done = [run for run in runs if run['status'] == 'completed']
        if not done:
            return {'status': runs[0]['status'] if runs else 'not run'}
        result = {'status': 'completed' if len(done) == len(runs)
                  else 'failed'}
        for field, value in done[0].items():
            if field == 'oracle':
                result[field] = {
                    kind: {name: sum(run[field][kind][name] for run in done)
                           for name in value[kind]} for kind in value}
            elif isinstance(value, bool):
                result[field] = all(run[field] for run in done)
            elif field in COUNTED:
                result[field] = sum(run[field] for run in done)
            elif isinstance(value, (int, float)):
                result[field] = statistics.median(
                    run[field] for run in done)
        return result

    def report(self, versions):
        tracked = self.summary('tracked')
        baseline = self.summary('unplug_replug')
        control = self.summary('control')
        return {
            **versions,
            'backend': 'type1',
            'stock_refused': self.stock_refused,
            'runs': self.runs,
            'tracked': keep(tracked, (
                'status', 'total_ms', 'downtime_ms', 'oracle',
                'pinned_frames', 'coherent_frames', 'deferred_frames',
                'final_pass_bytes', 'ram_bytes_sent', 'udp_outage_ms',
                'tcp_ok', 'devices_restored')),
            'control': keep(control, ('status', 'oracle')),
            'unplug_replug': keep(baseline, (
                'status', 'downtime_ms', 'udp_outage_ms')),
        }


def keep(result, fields):
    return {field: result[field] for field in fields if field in result}


def write_report(report):
    os.makedirs(os.path.dirname(REPORT), exist_ok=True)
    with open(REPORT + '.new', 'w', encoding='utf-8') as file:
        json.dump(report, file, indent=1)
        file.write('\n')
    os.replace(REPORT + '.new', REPORT)


def print_table(report):
    print()
    print(f'{"":24}{"tracked":>12}{"control":>12}{"replug":>12}')
    columns = [report[name] for name in
               ('tracked', 'control', 'unplug_replug')]

    def row(name, values):
        print(f'{name:24}' + ''.join(
            f'{"-" if value is None else value:>12}' for value in values))

    row('status', [one.get('status') for one in columns])
    for kind in load.KINDS:
        cells = [one.get('oracle', {}).get(kind) for one in columns]
        row(f'{kind}: lost/exposed', [
            f'{cell["lost"]}/{cell["exposed"]}' if cell else None
            for cell in cells])
    for field in ('total_ms', 'downtime_ms', 'udp_outage_ms'):
        row(field, [None if one.get(field) is None else round(one[field])
                    for one in columns])
    print()


def versions_of(test_bed):
    first = subprocess.run([test_bed.qemu, '--version'], check=True,
                           stdout=subprocess.PIPE).stdout.decode()
    release = test_bed.l1.run('uname -r').strip()
    return {'qemu': first.split('version ')[1].split()[0],
            'kernel_l1': release, 'kernel_l2': test_bed.kernel.release}


def play(test_bed, number):
    """All steps; returns the story."""
    story = Story(test_bed)
    versions = versions_of(test_bed)
    try:
        story.stock()
        for i in range(number):
            if number > 1:
                print(f'\n--- run {i + 1} of {number}', flush=True)
            run = {}
            story.runs.append(run)
            story.control(run)
            story.tracked(run)
            story.peer(run)
            write_report(story.report(versions))
        story.compare()
        story.expect(not test_bed.trouble(), 'the log of L1 is clean')
    except (vm.Timeout, vm.Gone, vm.CommandFailed, vm.QmpError) as error:
        story.expect(False, f'the story goes on: {error}')
        test_bed.keep = True
        print(test_bed.describe_guests())
    report = story.report(versions)
    write_report(report)
    print_table(report)
    return story


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--runs', type=int,
                        default=int(os.environ.get('RUNS') or 1))
    arguments = parser.parse_args()
    try:
        with bed.Bed(tell) as test_bed:
            story = play(test_bed, max(arguments.runs, 1))
    except (paths.Missing, vm.Timeout, vm.Gone, OSError) as error:
        paths.explain(error)
    for fact in story.broken:
        print(f'did not hold: {fact}')
    print(f'{"PROVEN" if not story.broken else "NOT PROVEN"} in '
          f'{time.monotonic() - START:.0f} s; '
          f'report: {os.path.relpath(REPORT)}')
    return 1 if story.broken else 0


if __name__ == '__main__':
    sys.exit(main())
