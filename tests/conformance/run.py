#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite conformance: each requirement of the protocol has a test. Prints TAP.

    run.py [--list] [--qemu BINARY] [PART...]

tests.csv names tests for each requirement of Documentation/protocol.rst:

qtest    a test of tests/host/qtest, and what it says, or all that it says
driver   a test of driver.py here: the driver seen from the host
liar     a test of liar.py: the device in a real guest that lies
versions a test of versions.py: drivers and hosts of other versions
flush    a test of the ring flush, which suite qtest runs
guest    a part of tests/guest/vm, and a fact of it
unit     a function of tests/guest/unit
model    a model, and its mutant that breaks the rule
nested   a test of tests/host/nested, and a fact of it

The first four are run here, once, and what they say decides. Of the others it
is checked that they are there; they are run by the suites that have their
names, ring flush by qtest.
--list prints each requirement with its tests. The parts, of which all are run
unless some are named:

table     each requirement has a test, and each test is there
device    tests of the device
driver    tests of the driver, seen from the host
liar      a real guest whose driver lies
versions  drivers and hosts of other versions
"""

import argparse
import ast
import csv
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', 'lib'),
                os.path.join(HERE, '..', '..', 'Documentation')]

# pylint: disable=wrong-import-position
import contract            # noqa: E402
import paths               # noqa: E402
from tapwriter import Tap  # noqa: E402

QTEST = 'tests/host/qtest/run.py'
# Where its tests are.
QTESTS = tuple(f'tests/host/qtest/{name}.py' for name in (
    'device', 'pinned', 'phases', 'hostile_stream', 'eligibility', 'vetoes'))
SECONDS = 900


def read(path):
    with open(os.path.join(paths.ROOT, path), encoding='utf-8') as file:
        return file.read()


def table():
    with open(os.path.join(HERE, 'tests.csv'), encoding='utf-8') as file:
        return list(csv.DictReader(file))


# --- Is the test there? ------------------------------------------------------

def phrases(node):
    """All that a piece of Python can say; a value filled in is a NUL."""
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            yield ''.join(piece.value if isinstance(piece, ast.Constant)
                          else '\0' for piece in part.values)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def says(path, test, fact):
    """Has the file such a function, or such a class, and says it that?

    With a test's name of None: anywhere.
    """
    tree = ast.parse(read(path))
    within = [node for node in tree.body
              if getattr(node, 'name', None) == test] if test else [tree]
    return bool(within) and (not fact or any(
        fact in phrase for node in within for phrase in phrases(node)))


def exists(entry):
    suite, test, fact = entry['suite'], entry['test'], entry['fact']
    if suite == 'qtest':
        # What it says is checked when it is run.
        return any(says(path, 'test_' + test, '') for path in QTESTS)
    if suite == 'flush':
        return says('tests/host/qtest/quiesce.py', 'test_' + test, '')
    if suite in ('driver', 'liar', 'versions'):
        return says(f'tests/conformance/{suite}.py', test, fact)
    if suite == 'guest':
        path = 'tests/guest/vm/run.py'
        return says(path, test, '') and says(path, None, fact)
    if suite == 'unit':
        return re.search(rf'^static void {test}\(', read(
            'tests/guest/unit/table_test.c'), re.M) is not None
    if suite == 'model':
        return re.search(rf'^{test},{fact},', read(
            'Documentation/model/mutants.csv'), re.M) is not None
    if suite == 'nested':
        file, function = test.split('.')
        return says(f'tests/host/nested/{file}.py', function, fact)
    return False


def check_table(tap, requirements, entries):
    must = {number for number, text in requirements.items()
            if 'MUST' in text}
    named = {entry['requirement'] for entry in entries}
    tap.equal(sorted(must - named), [], 'each MUST has a test')
    tap.equal(sorted(named - set(requirements)), [],
              'each test is of a requirement')
    tap.equal([entry for entry in entries if not exists(entry)], [],
              'each test is there')
    tap.ok(not exists({'suite': 'guest', 'test': 'phases',
                       'fact': 'no such fact'}) and
           not exists({'suite': 'qtest', 'test': 'nothing', 'fact': ''}) and
           not exists({'suite': 'model', 'test': 'gate', 'fact': '99'}),
           'and one that is not there is missed')
    numbers = list(requirements)
    tap.ok(len(numbers) == len(set(numbers)) == len(re.findall(
        r'^\.\. req:: ', read('Documentation/protocol.rst'), re.M)),
        'each requirement has a number of its own')
    # It looks for tests in this file.
    # pylint: disable-next=import-outside-toplevel
    import mutants
    tap.equal(mutants.out_of_place(), [],
              'each check that a mutant leaves out is in the code, once')


# --- What do they say? -------------------------------------------------------

def run_qtest(tests, qemu):
    """Test: [(ok, what it says)]."""
    command = [os.path.join(paths.ROOT, QTEST)]
    command += ['--qemu', qemu] if qemu else []
    output = subprocess.run(command + sorted(tests), capture_output=True,
                            text=True, timeout=SECONDS, check=False).stdout
    found, test = {}, None
    for line in output.split('\n'):
        begins = re.match(r'# \[.*\] test_(\w+)$', line)
        result = re.match(r'(not )?ok \d+ - (.*)', line)
        if begins:
            test = begins[1]
        elif result:
            found.setdefault(test, []).append((not result[1], result[2]))
    return found, output


def said_of(entry, found):
    """What its test said that counts for it: [(ok, what it says)]."""
    return [one for one in found.get(entry['test'], [])
            if entry['fact'] in one[1] and '# SKIP' not in one[1]]


def holds(entry, found):
    said = said_of(entry, found)
    return bool(said) and all(ok for ok, _ in said)


def judge(tap, requirements, entries, found):
    """A line for each requirement and each test that was run for it."""
    for entry in entries:
        if entry['suite'] != 'qtest':
            continue
        number = entry['requirement']
        tap.ok(holds(entry, found),
               f'{number}: qtest {entry["test"]}: '
               f'{entry["fact"] or "all that it says"}',
               requirements[number] + '\n' + '\n'.join(
                   ('ok: ' if ok else 'not ok: ') + fact
                   for ok, fact in said_of(entry, found)))


def run_driver(tap, entries):
    # pylint: disable-next=import-outside-toplevel
    import driver
    numbers = sorted({entry['requirement'] for entry in entries
                      if entry['suite'] == 'driver'})
    tap.label = f' [{" ".join(numbers)}]'
    driver.run(tap, kernel())
    tap.label = ''


def run_device(tap, requirements, entries, qemu):
    tests = {entry['test'] for entry in entries if entry['suite'] == 'qtest'}
    found, output = run_qtest(tests, qemu)
    if not found:
        tap.note(output)
    judge(tap, requirements, entries, found)


def run_liar(tap):
    # pylint: disable-next=import-outside-toplevel
    import liar
    liar.run(tap, kernel())


def run_versions(tap):
    # pylint: disable-next=import-outside-toplevel
    import versions
    versions.run(tap, kernel())


def kernel():
    """Of the guests here."""
    return paths.Kernel(next(name for name, _ in paths.kernels()
                             if name.startswith('6.12')))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--list', action='store_true',
                        help='print each requirement with its tests')
    parser.add_argument('--qemu', help='qemu-system-x86_64 with our series')
    parser.add_argument('parts', nargs='*', metavar='PART')
    arguments = parser.parse_args()
    requirements, entries = contract.requirements(), table()
    if arguments.list:
        for number, text in requirements.items():
            print(f'{number}: {text}')
            for entry in entries:
                if entry['requirement'] == number:
                    print(f'    {entry["suite"]} {entry["test"]}: '
                          f'{entry["fact"] or "all"}')
        return 0
    parts = {
        'table': lambda: check_table(tap, requirements, entries),
        'device': lambda: run_device(tap, requirements, entries,
                                     arguments.qemu),
        'driver': lambda: run_driver(tap, entries),
        'liar': lambda: run_liar(tap),
        'versions': lambda: run_versions(tap)}
    unknown = set(arguments.parts) - set(parts)
    if unknown:
        parser.error(f'no such part: {" ".join(sorted(unknown))}')
    tap = Tap()
    for name in arguments.parts or parts:
        tap.progress(name)
        # What a part is called that fails as a whole.
        parts[name].__name__ = name
        tap.run(parts[name])
    return tap.done()


if __name__ == '__main__':
    paths.run(main)
