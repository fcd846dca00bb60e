#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite model: the models of Documentation/model, exhaustively. Prints TAP.

    run.py [MODEL...]

Each model keeps its properties in all its states, and reaches each of its own
statements, but those that say why not. Each mutant of mutants.csv fails the
property that it names, all others left out. Each step of a model is a function
of the code in steps.csv, and that function exists.
"""

import csv
import os
import re
import resource
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'lib'))

# pylint: disable=wrong-import-position
import paths               # noqa: E402
from tapwriter import Tap  # noqa: E402

MODELS = os.path.join(paths.ROOT, 'Documentation', 'model')

# What the suite as a whole may take, on one processor.
SECONDS = 300
MEMORY_MIB = 4096
DEPTH = 1000000

ASSERTION = re.compile(r'assert\(!(\w+)\)')
CLAIM = re.compile(r'^ltl (\w+)', re.M)
# Processes that help to observe, and stand for nothing in the code.
OBSERVERS = {'monitor': 'says what must hold when nothing can happen any more',
             'time': 'passes'}


def table(name):
    with open(os.path.join(MODELS, name), encoding='utf-8') as file:
        return list(csv.DictReader(file))


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def run(command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True,
                          timeout=2 * SECONDS, check=False)


class Failed(Exception):
    """Spin or the compiler refuse a model."""


class Verifier:
    """One model, or a mutant of it, made into a program that searches it."""

    def __init__(self, folder, model, mutant=0, only=None):
        self.folder = os.path.join(folder, f'{model}-{mutant}-{only}')
        os.makedirs(self.folder)
        text = read(os.path.join(MODELS, model + '.pml'))
        if only:
            text = ASSERTION.sub(
                lambda found: found[0] if found[1] == only else 'true', text)
        self.lines = text.splitlines()
        with open(os.path.join(self.folder, 'model.pml'), 'w',
                  encoding='utf-8') as file:
            file.write(text)
        made = run(['spin', f'-DMUTANT={mutant}', '-a', 'model.pml'],
                   self.folder)
        if made.returncode or 'rror:' in made.stdout + made.stderr:
            raise Failed(made.stdout + made.stderr)

    def _search(self, compiler, searcher):
        made = run(['gcc', '-O2', '-w', '-DCOLLAPSE',
                    f'-DMEMLIM={MEMORY_MIB}', *compiler, '-o', 'pan', 'pan.c'],
                   self.folder)
        if made.returncode:
            raise Failed(made.stderr)
        result = run(['./pan', f'-m{DEPTH}', '-w24', *searcher], self.folder)
        found = re.search(r'errors: (\d+)', result.stdout)
        if not found:
            raise Failed(result.stdout + result.stderr)
        # Else what was searched was not all.
        for limit in ('max search depth too small', 'Search not completed',
                      'out of memory'):
            if limit in result.stdout and not int(found[1]):
                raise Failed(result.stdout)
        return result.stdout

    def assertions(self):
        """Search all states for a broken assertion."""
        return self._search(['-DSAFETY', '-DNOCLAIM'], ['-E'])

    def claim(self):
        """Search all fair executions for one that breaks the ltl claim."""
        return self._search(['-DNFAIR=4'], ['-a', '-f'])

    def unreached(self, output):
        """Statements that no execution reaches and nobody explains."""
        found = []
        for line, what in re.findall(r'model\.pml:(\d+), state \d+, "(.*)"',
                                     output):
            # The end of a process that has none.
            if what == '-end-' or '/* unreached: ' in \
                    self.lines[int(line) - 1]:
                continue
            found.append(f'line {line}: {what}')
        return found


def errors(output):
    return int(re.search(r'errors: (\d+)', output)[1])


def states(output):
    return re.search(r'(\d+) states, stored', output)[1]


def holds(tap, folder, model):
    """The model as it is."""
    text = read(os.path.join(MODELS, model + '.pml'))
    properties = sorted(set(ASSERTION.findall(text)))
    verifier = Verifier(folder, model)
    output = verifier.assertions()
    tap.ok(not errors(output),
           f'{model}: in all states holds: not {", not ".join(properties)}',
           output)
    tap.note(f'{model}: {states(output)} states')
    unreached = verifier.unreached(output)
    tap.ok('unreached in proctype' in output and not unreached,
           f'{model}: all that it says is reached, or explained',
           '\n'.join(unreached))
    for claim in CLAIM.findall(text):
        output = verifier.claim()
        tap.ok(not errors(output), f'{model}: always {claim}', output)
        tap.note(f'{model}: {states(output)} states with {claim}')


def fails(tap, folder, entry):
    """One mutant."""
    model, mutant, broken = entry['model'], entry['mutant'], entry['property']
    text = read(os.path.join(MODELS, model + '.pml'))
    if broken in CLAIM.findall(text):
        output = Verifier(folder, model, mutant, 'none').claim()
        words = 'acceptance cycle'
    else:
        output = Verifier(folder, model, mutant, broken).assertions()
        words = f'assertion violated  !({broken})'
    tap.ok(errors(output) and words in output,
           f'{model} mutant {mutant} fails {broken}: {entry["rule"]}', output)


def mutants_of(text):
    return {int(number) for number in re.findall(r'MUTANT [!=]= (\d+)', text)
            if int(number)}


def defined(function, place):
    """Is the function in that file, or in one of that folder?"""
    path = os.path.join(paths.ROOT, place)
    files = [path]
    if os.path.isdir(path):
        files = [os.path.join(path, name) for name in os.listdir(path)]
    pattern = re.compile(rf'^\+?[a-z][^=;]*\b{function}\(|^\+?{function}\(',
                         re.M)
    return any(pattern.search(read(name)) for name in files)


def steps(tap, models):
    """The models say what the code does."""
    listed = table('steps.csv')
    missing = [f'{entry["function"]} in {entry["file"]}' for entry in listed
               if not defined(entry['function'], entry['file'])]
    tap.equal(missing, [], 'each function of steps.csv is in the code')
    tap.ok(not defined('no_such_function', 'host/qemu-patch/patches'),
           'and one that is not there is missed')
    for model in models:
        text = read(os.path.join(MODELS, model + '.pml'))
        told = {entry['step'] for entry in listed if entry['model'] == model}
        here = set(re.findall(r'^(?:inline|proctype) (\w+)', text, re.M))
        tap.equal(sorted(told - here), [],
                  f'{model}: each step of steps.csv is in the model')
        # What a device does by itself is in no code of ours.
        rest = here - told - set(OBSERVERS)
        excused = set(re.findall(r'^ \* Not in the code: (.*?)\.$', text,
                                 re.M | re.S))
        excused = {word for line in excused
                   for word in re.split(r'[\s,*]+', line)}
        tap.equal(sorted(rest - excused), [],
                  f'{model}: each step is in the code, or not meant to be')


def main():
    if '--help' in sys.argv:
        print(__doc__.strip())
        return 0
    every = sorted(name[:-4] for name in os.listdir(MODELS)
                   if name.endswith('.pml'))
    models = sys.argv[1:] or every
    folder = paths.scratch('model')
    tap = Tap()
    listed = [entry for entry in table('mutants.csv')
              if entry['model'] in models]
    steps(tap, models)
    for model in models:
        tap.progress(model)
        tap.equal(mutants_of(read(os.path.join(MODELS, model + '.pml'))),
                  {int(entry['mutant']) for entry in listed
                   if entry['model'] == model},
                  f'{model}: its mutants are those of mutants.csv')
        tap.run(holds, tap, folder, model)
        for entry in listed:
            if entry['model'] == model:
                tap.run(fails, tap, folder, entry)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    tap.note(f'{seconds:.0f} s of one processor, '
             f'{used.ru_maxrss // 1024} MiB at most')
    tap.ok(seconds < SECONDS and used.ru_maxrss < MEMORY_MIB * 1024,
           f'within {SECONDS} s of one processor and {MEMORY_MIB} MiB')
    return tap.done()


if __name__ == '__main__':
    sys.exit(main())
