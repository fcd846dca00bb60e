# SPDX-License-Identifier: GPL-2.0-only
"""Print the Test Anything Protocol, and say at the end whether all held."""

import sys
import time
import traceback


class Skip(Exception):
    """Raised by a test that cannot run here; str() says why."""


class Tap:
    """One program's worth of results."""

    def __init__(self):
        self.number = 0
        self.failed = 0
        # Ends the name of each result: under which conditions.
        self.label = ''
        self.start = time.monotonic()
        print('TAP version 13', flush=True)

    def ok(self, holds, fact, detail=''):
        """Report that @fact holds, or not; return it."""
        self.number += 1
        if not holds:
            self.failed += 1
        print(f"{'ok' if holds else 'not ok'} {self.number} - {fact}"
              f"{self.label}")
        if detail and not holds:
            self.note(detail)
        sys.stdout.flush()
        return bool(holds)

    def equal(self, got, wanted, fact):
        return self.ok(got == wanted, fact, f'got {got!r}, wanted {wanted!r}')

    def skip(self, fact, why):
        self.number += 1
        print(f'ok {self.number} - {fact}{self.label} # SKIP {why}',
              flush=True)

    def note(self, text):
        for line in str(text).splitlines():
            print('# ' + line)
        sys.stdout.flush()

    def progress(self, text):
        self.note(f'[{time.monotonic() - self.start:6.1f} s] {text}')

    def run(self, test, *args):
        """Call a test; what it raises is a failure of it, not of all."""
        try:
            test(*args)
        except Skip as why:
            self.skip(test.__name__, why)
        except Exception as error:  # pylint: disable=broad-except
            self.ok(False, test.__name__.replace('_', ' '),
                    f'{type(error).__name__}: {error}')
            self.note(traceback.format_exc())

    def done(self):
        """Print the plan; return the program's exit status."""
        print(f'1..{self.number}', flush=True)
        return 1 if self.failed or not self.number else 0
