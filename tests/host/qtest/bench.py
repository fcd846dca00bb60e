# SPDX-License-Identifier: GPL-2.0-only
"""What all tests use: the emulator to test, a folder, and the results."""

import os
import shutil
import tempfile

import guest as g
from guest import DmaTrack, Edu, Qemu, QmpError
from moves import EDU, EDU_BAR, EDU_SBDF, EDU_SLOT, TRACK_BAR, TRACK_SLOT, track
from tapwriter import Tap


class Bench:
    """Of one run, or of one part of it."""

    def __init__(self, binary, tap=None):
        self.binary = binary
        self.folder = tempfile.mkdtemp(prefix='dma-track-qtest-')
        self.tap = tap or Tap()
        self.running = []

    def qemu(self, name, *args, **machine):
        """Start an emulator; cleared away after the test."""
        qemu = Qemu(self.binary, self.folder, name, list(args), **machine)
        self.running.append(qemu)
        return qemu

    def driver(self, qemu):
        """A driver of its virtio-dma-track."""
        return DmaTrack(qemu, TRACK_SLOT, TRACK_BAR)

    def guest(self, options='', **machine):
        """A source with edu and the device, and a driver that tracks it."""
        qemu = self.qemu('source', *EDU, *track(options), **machine)
        edu = Edu(qemu, EDU_SLOT, EDU_BAR)
        driver = self.driver(qemu)
        driver.become_ready()
        driver.say(0, EDU_SBDF, g.TRACKED)
        return qemu, edu, driver

    def destination(self, args=(), **machine):
        """A destination for guest(), and where it listens."""
        path = os.path.join(self.folder, 'migration')
        if os.path.exists(path):
            os.unlink(path)
        qemu = self.qemu('destination', *EDU, *(args or track()),
                         '-incoming', 'unix:' + path, **machine)
        return qemu, 'unix:' + path

    def clear(self):
        """End what the last test has left."""
        for qemu in self.running:
            qemu.stop()
        self.running = []

    def close(self):
        """Leave nothing behind."""
        self.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, test):
        """One test, and its clearing up."""
        self.tap.progress(test.__name__)
        try:
            self.tap.run(test, self)
        finally:
            self.clear()

    # --- Shorthands

    def refused(self, fact, text, function, *args, **arguments):
        """The monitor refuses, with @text in its words."""
        try:
            function(*args, **arguments)
        except QmpError as error:
            self.tap.ok(text in str(error), fact, 'got: %s' % error)
        else:
            self.tap.ok(False, fact, 'it was accepted')
