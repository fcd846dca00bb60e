# SPDX-License-Identifier: GPL-2.0-only
"""The link that a migration goes over, with a hand on it.

A QEMU connects to one socket, bytes are passed on to another. The hand can hold
them, cut the link, or change them.
"""

import os
import socket
import threading

import guest

CHUNK = 1 << 16


class Link:
    """Passes on what comes to self.uri. Use it as a context.

    A link that is held takes at most two chunks and what the kernel's buffers
    have room for; QEMU then waits in its write.
    """

    def __init__(self, directory, name, target):
        """target: the path of the socket at which the destination listens"""
        self.path = os.path.relpath(os.path.join(directory, f'{name}.link'))
        self.uri = 'unix:' + self.path
        self.target = target
        self.change = threading.Condition()
        # All below are protected by it. Bytes that went to the destination.
        self.passed = 0
        self.is_held = False
        self.is_cut = False
        # Called with each chunk for the destination; returns what to send.
        self.edit = None
        # Called once so many bytes were passed.
        self.limit = None
        self.at_limit = None
        self.sockets = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.cut()
        self.listener.close()
        os.unlink(self.path)

    def _accept(self):
        """Several channels of one migration come one after the other."""
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self.target)
            with self.change:
                self.sockets += [near, far]
            for work in ((self._forward, near, far), (self._back, far, near)):
                threading.Thread(target=self._pump, args=work,
                                 daemon=True).start()

    @staticmethod
    def _pump(direction, source, target):
        try:
            while direction(source, target):
                pass
        except OSError:
            pass
        for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
            try:
                end.shutdown(how)
            except OSError:
                pass

    def _forward(self, source, target):
        data = source.recv(CHUNK)
        if not data:
            return False
        with self.change:
            if self.edit:
                data = self.edit(data)
        while data:
            with self.change:
                self.change.wait_for(lambda: not self.is_held or self.is_cut)
                if self.is_cut:
                    return False
                room = len(data) if self.limit is None else \
                    self.limit - self.passed
            part, data = data[:room], data[room:]
            target.sendall(part)
            with self.change:
                self.passed += len(part)
                if self.limit is not None and self.passed >= self.limit:
                    self.limit = None
                    self.at_limit()
                self.change.notify_all()
        return True

    @staticmethod
    def _back(source, target):
        data = source.recv(CHUNK)
        target.sendall(data)
        return data

    def _cut(self):
        """With the lock held."""
        self.is_cut = True
        self.change.notify_all()
        for end in self.sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    # --- The hand ---------------------------------------------------------

    def cut(self):
        with self.change:
            self._cut()

    def cut_after(self, size):
        """Let so many more bytes pass."""
        self._stop_after(size, self._cut)

    def hold_after(self, size):
        self._stop_after(size, self._hold)

    def _stop_after(self, size, act):
        with self.change:
            self.at_limit = act
            self.limit = self.passed + size

    def _hold(self):
        """With the lock held."""
        self.is_held = True

    def go_on(self):
        with self.change:
            self.is_held = False
            self.change.notify_all()

    def change_bytes(self, edit):
        with self.change:
            self.edit = edit

    def wait_stopped(self, deadline=120):
        """Wait until it was held or cut."""
        with self.change:
            if not self.change.wait_for(lambda: self.is_held or self.is_cut,
                                        deadline * guest.vm.PATIENCE):
                raise guest.vm.Timeout(
                    f'the link goes on after {self.passed} bytes')
