#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run test suites and count what they report.

    suites.py [--full] [SUITE[,SUITE...]]

Each suite is a program that writes TAP on standard output. Its output goes to
build/results/SUITE.tap and, shortened, to the terminal. Some run at a time, the
longest first. The whole ends with a line 'N passed, N failed, N skipped'; the
exit status is 0 only if nothing failed and something ran. A suite that ends
with an error, without a plan, or with fewer tests than planned counts as one
more failure, whatever it printed.
"""

import argparse
import concurrent.futures
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import tap.parser

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'build' / 'results'

# A suite of guests under TCG keeps less than one processor busy: it waits for
# what guests do in their time. Two on two processors used 72 % of them. Each
# has at most two gibibytes or three.
AT_ONCE = min(len(os.sched_getaffinity(0)) + 1, 4)
# Processes of suites that run.
RUNNING: set = set()
# Name: (command, set-up steps that it needs, seconds allowed).
SUITES = {
    'lint': (['tests/lint/run.sh'], ['packages', 'backports', 'kernel',
                                     'qemu', 'lint'], 600),
    'abi': (['tests/abi/run.py'], ['packages', 'backports', 'qemu'], 300),
    'docs': (['tests/docs/run.sh'], ['packages', 'docs'], 300),
    'setup': (['tests/lib/setup_test.sh'],
              ['packages', 'backports', 'kernel'], 600),
    'model': (['tests/model/run.py'], ['packages', 'model'], 1200),
    'unit': (['tests/guest/unit/run.sh'], ['packages'], 900),
    'build': (['tests/guest/build.sh'], ['packages', 'kernel', 'lint', 'boot'],
              1300),
    'guest': (['tests/guest/vm/run.py'], ['all', 'boot'], 2400),
    'qtest': (['tests/host/qtest/run.py'], ['packages', 'backports', 'qemu'],
              1200),
    'fuzz': (['tests/fuzz/run.py'], ['packages', 'backports', 'qemu', 'fuzz'],
             1200),
    'conformance': (['tests/conformance/run.py'], ['all'], 1200),
    'emulated': (['tests/host/emulated/run.py'], ['all'], 1500),
    'faults': (['tests/host/faults/run.py'], ['all'], 2400),
    'nested': (['tests/host/nested/run.py', 'refusal', 'capability', 'moves',
                'stock_edu', 'fence', 'survival', 'replug'], ['all'], 3000),
    'quiesce': (['tests/host/nested/run.py', '--quiesce', 'quiesce', 'peers',
                 'interrupts', 'disk', 'native.all_are_quiet_before_it_stops',
                 'native.without_a_flush_it_writes_on',
                 'native.type1_leaves_the_mappings'], ['all', 'iommufd'],
                3600),
}
# Too long for every change; `make test-full` adds them.
FULL_ONLY = {
    'mutants': (['tests/conformance/mutants.py'], ['all'], 5400),
    'ways': (['tests/host/faults/run.py', 'ways'], ['all'], 2400),
    'destination': (['tests/host/faults/run.py', 'destination'], ['all'],
                    2400),
    'flush': (['tests/host/emulated/run.py', 'flush-full'], ['all'], 5400),
    'switchover': (['tests/host/nested/run.py', 'switchover', 'destination'],
                   ['all'], 2400),
    'paused': (['tests/host/nested/run.py', '--quiesce', 'paused'],
               ['all', 'iommufd'], 1800),
    'old-host': (['tests/host/nested/run.py', '--host', '6.1'], ['all'], 1800),
    'native': (['tests/host/nested/run.py', '--quiesce', 'native'],
               ['all', 'iommufd'], 1800),
    'debug': (['tests/guest/debug/run.py'], ['all', 'debug'], 7200),
    'qemu-own': (['tests/host/qemu-own/run.py'],
                 ['packages', 'backports', 'qemu'], 10800),
}


class Count:
    """What one suite, or all of them, reported."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        return (f'{self.passed} passed, {self.failed} failed, '
                f'{self.skipped} skipped')


class Watcher:
    """Reads the TAP of one suite, line by line."""

    def __init__(self):
        self.parser = tap.parser.Parser()
        self.count = Count()
        self.seen = 0
        self.planned = None
        self.bailed = None

    def line(self, text):
        """Count one line; return True if a person wants to see it."""
        parsed = self.parser.parse_line(text)
        if parsed.category == 'test':
            self.seen += 1
            if parsed.skip:
                self.count.skipped += 1
            elif parsed.ok:
                self.count.passed += 1
            else:
                self.count.failed += 1
            return True
        if parsed.category == 'plan':
            self.planned = parsed.expected_tests
            if parsed.skip:
                self.count.skipped += 1
            return bool(parsed.skip)
        if parsed.category == 'bail':
            self.bailed = parsed.reason
            return True
        return parsed.category == 'diagnostic'

    def complaint(self, status, late):
        """Why the suite as a whole failed, or None."""
        if late:
            return f'took longer than {late} s and was ended'
        if self.bailed is not None:
            return f'bailed out: {self.bailed}'
        if self.planned is None:
            return 'no plan: it ended before it was done'
        if self.planned != self.seen:
            return f'{self.planned} tests planned, {self.seen} seen'
        if status != 0 and not self.count.failed:
            return f'exit status {status}, though no test failed'
        return None


def run_suite(name):
    """Run one suite and return its Count."""
    command, _, limit = SUITES[name]
    watcher = Watcher()
    started = time.monotonic()
    print(f'== {name}', flush=True)
    # pylint: disable-next=consider-using-with
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
        text=True, errors='replace', start_new_session=True)
    RUNNING.add(process)
    late = []

    def end():
        late.append(limit)
        os.killpg(process.pid, signal.SIGTERM)

    timer = threading.Timer(limit, end)
    timer.start()
    with open(RESULTS / f'{name}.tap', 'w', encoding='utf-8') as record:
        for text in process.stdout:
            record.write(text)
            record.flush()
            if watcher.line(text.rstrip('\n')):
                print(f'{name:>8}: {text}', end='', flush=True)
        status = process.wait()
        timer.cancel()
        RUNNING.discard(process)
        complaint = watcher.complaint(status, late and late[0])
        if complaint:
            record.write(f'# suite {name}: {complaint}\n')
            print(f'{name:>8}: not ok: {complaint}', flush=True)
            watcher.count.failed += 1
    print(f'== {name}: {watcher.count} '
          f'({time.monotonic() - started:.0f} s)', flush=True)
    return watcher.count


def run_suites(names):
    """Run suites, AT_ONCE of them at a time; return the sum."""
    total = Count()
    order = sorted(names, key=lambda name: -SUITES[name][2])
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for count in pool.map(run_suite, order):
                total.add(count)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                os.killpg(process.pid, signal.SIGTERM)
            raise
    return total


def set_up(names):
    """Run every set-up step that one of the suites needs, once."""
    steps = []
    for name in names:
        steps += [s for s in SUITES[name][1] if s not in steps]
    if 'all' in steps:
        steps = ['all'] + [s for s in steps if s not in (
            'all', 'packages', 'backports', 'kernel', 'qemu')]
    return subprocess.call(['tests/lib/setup.sh', *steps], cwd=ROOT) == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('suites', nargs='?', default='',
                        help='comma-separated names; all by default')
    parser.add_argument('--full', action='store_true',
                        help='also the suites that are too long for CI')
    args = parser.parse_args()
    if args.full:
        SUITES.update(FULL_ONLY)
    names = [n for n in args.suites.split(',') if n] or list(SUITES)
    unknown = [n for n in names if n not in SUITES]
    if unknown:
        print(f'unknown suite {", ".join(unknown)}; there are: '
              f'{", ".join(SUITES)}', file=sys.stderr)
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if set_up(names):
        total = run_suites(names)
    else:
        print('set-up failed, see above: no suite was run')
        total = Count()
        total.failed += 1
    print(total, flush=True)
    return 1 if total.failed or not total.passed else 0


if __name__ == '__main__':
    sys.exit(main())
