#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run QEMU's own tests of what the series touches, on the patched emulator.

    run.py [--qemu BINARY] [PROGRAM[:PATH]...]

The programs are those of QEMU's tests/qtest, built here beside the emulator,
which must lie in its build tree. PATH limits a program to a part of its tests.
Each test that a program lists must give a result; QEMU's skips stay skips. A
program that dies goes on behind the test that it died in. On a slow machine
some of them fail by chance, so what failed is run once more, alone, and its
name says so.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', '..', 'lib'))

# pylint: disable=wrong-import-position
import paths                                            # noqa: E402
from tapwriter import Tap                               # noqa: E402

# Program: seconds that it may take on a slow machine.
PROGRAMS = {
    # Every way to migrate; none has a function that we care for.
    'migration-test': 5400,
    # Device models: e1000e, igb, virtio, nvme and PCI itself among them.
    'qos-test': 1800,
    # Every query-* and info command, ours too.
    'qmp-cmd-test': 900,
    'qmp-test': 300,
    'test-hmp': 900,
    # Properties, and plugging and unplugging of every device.
    'device-introspect-test': 1800,
    'qom-test': 1800,
    'device-plug-test': 600,
    'drive_del-test': 600,
    # PCI machines and IOMMUs.
    'q35-test': 300,
    'i440fx-test': 600,
    'ioh3420-test': 300,
    'intel-iommu-test': 300,
    'iommu-intel-test': 300,
    'amd-iommu-test': 300,
    'fuzz-e1000e-test': 300,
    'virtio-net-failover': 900,
}

# Tests that failed at first only.
REPEATED: list = []


class Ended(Exception):
    """A program did not end as it should; str() says how."""


class Program:
    """One of QEMU's test programs, and what it has said."""

    def __init__(self, tap, build, name, path):
        self.tap = tap
        self.name = name
        self.path = path
        self.build = build
        # Results that are not in ours yet: {test: what it said}.
        self.failed = {}
        self.seen = set()
        # What the program has said since the last result.
        self.said = []

    def start(self, *arguments):
        """Begin, as QEMU's own test runner does."""
        tests = os.path.join('tests', 'qtest')
        environment = dict(
            os.environ, QTEST_QEMU_BINARY='./qemu-system-x86_64',
            QTEST_QEMU_IMG='./qemu-img', PYTHON='/usr/bin/python3',
            G_TEST_SRCDIR=os.path.join(self.build, '..', 'src', tests),
            G_TEST_BUILDDIR=os.path.join(self.build, tests))
        return subprocess.Popen(
            [os.path.join(tests, self.name), *arguments], cwd=self.build,
            env=environment, text=True, errors='replace',
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True)

    def names(self):
        """Its tests, in the order in which they run."""
        with self.start('-l', *(['-p', self.path] if self.path else [])) as it:
            text = it.communicate(timeout=300)[0]
        return [line.strip() for line in text.split('\n')
                if line.startswith('/')]

    def line(self, text, label):
        """Take one line of the program's TAP; failures wait."""
        words = text.split(maxsplit=2)
        if words[:1] == ['ok'] and len(words) == 3:
            test, skipped, why = words[2].partition('# SKIP')
            test = test.strip()
            self.seen.add(test)
            if skipped:
                self.tap.skip(f'{self.name}: {test}', why.strip())
            else:
                self.tap.ok(True, f'{self.name}: {test}{label}')
        elif words[:2] == ['not', 'ok'] and '/' in text:
            # The number comes before it, and at times a reason behind.
            test = '/' + text.partition('/')[2].split()[0]
            self.seen.add(test)
            self.failed[test] = '\n'.join([*self.said, text])
        elif text.strip() and not text.startswith(('1..', 'TAP ')):
            self.said.append(text.lstrip('# '))
            return
        self.said = []

    def run_tests(self, tests, limit, label=''):
        """Run these, or raise Ended."""
        self.said = []
        late = []
        process = self.start('--tap', '-k', *(
            word for test in tests for word in ('-p', test)))

        def end():
            late.append(limit)
            os.killpg(process.pid, signal.SIGTERM)
        timer = threading.Timer(limit, end)
        timer.start()
        try:
            for text in process.stdout:
                self.line(text.rstrip('\n'), label)
            status = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        if late:
            raise Ended(f'ended after {limit:.0f} s')
        if status < 0 or status and not self.failed:
            raise Ended(f'status {status}')

    def run_through(self, tests, deadline):
        """Run all of them, once."""
        left = tests
        while left:
            how = 'was not run'
            try:
                self.run_tests(left, deadline - time.monotonic())
            except Ended as error:
                how = str(error)
            before, left = left, [one for one in left if one not in self.seen]
            if left:
                self.failed[left[0]] = '\n'.join([*self.said[-20:], how])
                self.seen.add(left.pop(0))
            elif how != 'was not run' and before:
                self.failed.setdefault(before[-1], how)
            if left and time.monotonic() > deadline:
                self.tap.ok(False, f'{self.name} runs to its end',
                            f'{how}, without {len(left)} tests')
                return

    def run(self, limit):
        """All of its tests; and once more those that failed."""
        self.tap.progress(self.name)
        tests = self.names()
        self.tap.ok(tests, f'{self.name} lists its tests', self.said)
        self.run_through(tests, time.monotonic() + limit)
        again, self.failed = self.failed, {}
        for test, words in again.items():
            self.tap.note(f'{test} failed, and is repeated:\n{words}')
            self.seen.discard(test)
            how = ''
            try:
                self.run_tests([test], limit, ', when repeated alone')
            except Ended as error:
                how = str(error)
            if test in self.failed or test not in self.seen:
                self.tap.ok(False, f'{self.name}: {test}, twice',
                            self.failed.pop(test, '\n'.join(
                                [*self.said[-20:], how])))
            else:
                REPEATED.append(f'{self.name}: {test}')


def link_firmware(build):
    """QEMU looks for it in its build tree, as if that were installed."""
    for place in paths.FIRMWARE:
        link = os.path.join(build, 'qemu-bundle', place.lstrip('/'))
        os.makedirs(os.path.dirname(link), exist_ok=True)
        if not os.path.lexists(link):
            os.symlink(place, link)


def make(build, names):
    """Build the programs, and the tools that they use."""
    targets = ['qemu-img'] + [f'tests/qtest/{name}' for name in names]
    environment = dict(
        os.environ, CCACHE_DIR=os.path.join(paths.CACHE, 'ccache'),
        PYTHONPATH=os.path.join(paths.CACHE,
                                'pydeps/usr/lib/python3/dist-packages'),
        PYTHONDONTWRITEBYTECODE='1')
    made = subprocess.run(['ninja', *targets], cwd=build, env=environment,
                          capture_output=True, text=True, check=False)
    if made.returncode:
        raise paths.Missing('the tests of QEMU cannot be built: '
                            + made.stdout[-2000:])


def main():
    """Run the programs named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--qemu', help='qemu-system-x86_64 in its build tree')
    parser.add_argument('programs', nargs='*', metavar='PROGRAM[:PATH]')
    arguments = parser.parse_args()
    wanted = [one.partition(':')[::2] for one in arguments.programs] or [
        (name, '') for name in PROGRAMS]
    unknown = [name for name, _ in wanted if name not in PROGRAMS]
    if unknown:
        parser.error('unknown: ' + ', '.join(unknown))

    tap = Tap()
    try:
        build = os.path.dirname(os.path.abspath(arguments.qemu
                                                or paths.qemu()))
        if not os.path.exists(os.path.join(build, 'build.ninja')):
            raise paths.Missing(f'{build} is not a build tree of QEMU')
        tap.progress('building')
        make(build, [name for name, _ in wanted])
        link_firmware(build)
    except paths.Missing as missing:
        print('Bail out! ' + str(missing).replace('\n', ' '))
        return 1
    for name, path in wanted:
        tap.run(Program(tap, build, name, path).run, PROGRAMS[name])
    tap.note(f'failed at first, but not when repeated: {len(REPEATED)}')
    for name in REPEATED:
        tap.note(f'  {name}')
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
