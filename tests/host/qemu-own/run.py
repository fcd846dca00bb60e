#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run QEMU's own tests of what the series touches, on the patched emulator.

    run.py [--qemu BINARY] [PROGRAM[:PATH]...]

The programs are those of QEMU's tests/qtest, built here beside the emulator,
which must lie in its build tree. Each writes TAP; their results follow each
other in ours, with the program's name. PATH limits a program to a part of its
tests. A program that dies, or says less than it planned, is a failure of its
own. QEMU's skips stay skips.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading

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


class Program:
    """One of QEMU's test programs, and what it has said."""

    def __init__(self, tap, build, name, path):
        self.tap = tap
        self.name = name
        self.command = [os.path.join('tests', 'qtest', name), '--tap', '-k']
        self.command += ['-p', path] if path else []
        self.build = build
        self.planned = None
        self.seen = 0

    def environment(self):
        """As QEMU's own test runner has it."""
        return dict(os.environ, QTEST_QEMU_BINARY='./qemu-system-x86_64',
                    QTEST_QEMU_IMG='./qemu-img', PYTHON='/usr/bin/python3',
                    G_TEST_SRCDIR=os.path.join(self.build, '..', 'src',
                                               'tests', 'qtest'),
                    G_TEST_BUILDDIR=os.path.join(self.build, 'tests',
                                                 'qtest'))

    def line(self, text):
        """Take one line of the program's TAP into ours."""
        words = text.split(maxsplit=2)
        if text.startswith('1..'):
            self.planned = int(text[3:].split()[0])
        elif words[:1] == ['ok'] and len(words) == 3:
            self.seen += 1
            fact, skipped, why = words[2].partition('# SKIP')
            if skipped:
                self.tap.skip(f'{self.name}: {fact.strip()}', why.strip())
            else:
                self.tap.ok(True, f'{self.name}: {fact.strip()}')
        elif words[:2] == ['not', 'ok']:
            self.seen += 1
            self.tap.ok(False, f'{self.name}: {words[2]}')
        elif text.strip():
            self.tap.note(text.lstrip('# '))

    def run(self, limit):
        """Run it to its end, or for so many seconds."""
        self.tap.progress(self.name)
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(
            self.command, cwd=self.build, env=self.environment(), text=True,
            errors='replace', stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        late = []

        def end():
            late.append(limit)
            os.killpg(process.pid, signal.SIGTERM)
        timer = threading.Timer(limit, end)
        timer.start()
        try:
            for text in process.stdout:
                self.line(text.rstrip('\n'))
            status = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        self.tap.ok(
            not late and self.seen and self.planned == self.seen
            and not status, f'{self.name} ends well',
            f'status {status}, {self.seen} of {self.planned} tests'
            + (f', ended after {limit} s' if late else ''))


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
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
