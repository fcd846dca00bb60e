# SPDX-License-Identifier: GPL-2.0-only
"""A QEMU process, and two conversations: with QEMU (QMP) and with an agent.

Everything that waits has a deadline in seconds; DMA_TRACK_PATIENCE multiplies
all of them, for slow machines.
"""

import ctypes
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

PATIENCE = float(os.environ.get('DMA_TRACK_PATIENCE', '1'))


class Timeout(Exception):
    """What was waited for did not happen in time."""


class Gone(Exception):
    """The other side of a channel went away."""


class QmpError(Exception):
    """QEMU refused a command; str() is its text."""


class CommandFailed(Exception):
    """A command in a guest ended with a status other than 0."""


def _die_with_parent():
    """A QEMU does not outlive the test that was killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.setpgrp()


class Channel:
    """Bytes from a socket, collected by a thread; subclasses understand them.

    self.change is notified whenever something new was understood.
    """

    def __init__(self, name, path, deadline=10):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX)
        self.change = threading.Condition()
        self.gone = False
        end = time.monotonic() + deadline * PATIENCE
        while True:
            try:
                self.socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end:
                    raise Timeout(f'{name}: nobody listens') from None
                select.select([], [], [], 0.02)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except OSError:
                data = b''
            with self.change:
                if data:
                    self.received(data)
                else:
                    self.gone = True
                self.change.notify_all()
            if not data:
                return

    def received(self, data):
        """Called with self.change held."""
        raise NotImplementedError

    def wait(self, condition, deadline, what):
        """Wait until condition() returns something true; return that."""
        end = time.monotonic() + deadline * PATIENCE
        with self.change:
            while True:
                result = condition()
                if result:
                    return result
                if self.gone:
                    raise Gone(f'{self.name} went away while waiting for '
                               f'{what}')
                left = end - time.monotonic()
                if left <= 0:
                    raise Timeout(f'{self.name}: no {what} within '
                                  f'{deadline * PATIENCE:.0f} s')
                self.change.wait(left)

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Gone(f'{self.name}: {error}') from None

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


class Qmp(Channel):
    """The QEMU Machine Protocol. Events are kept until somebody takes them."""

    def __init__(self, name, path, deadline=10):
        self.buffer = b''
        self.greetings = 0
        self.replies = {}
        self.events = []
        self.next_id = 0
        super().__init__(name, path, deadline)

    def received(self, data):
        self.buffer += data
        while b'\n' in self.buffer:
            line, self.buffer = self.buffer.split(b'\n', 1)
            # A QEMU that was killed may have left half a line.
            line = line[max(line.rfind(b'{"QMP"'), 0):].strip()
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if 'QMP' in message:
                self.greetings += 1
                self.events.clear()
            elif 'event' in message:
                message['seen'] = time.monotonic()
                self.events.append(message)
            elif 'id' in message:
                self.replies[message['id']] = message

    def open(self, deadline=60):
        """Wait for QEMU's greeting and end the negotiation."""
        self.wait_greeting(deadline)
        self.command('qmp_capabilities')

    def wait_greeting(self, deadline=60):
        """A QEMU that greets may still refuse its command line."""
        self.wait(lambda: self.greetings, deadline, 'greeting of QEMU')
        self.greetings = 0

    def start(self, command, **arguments):
        """Send a command and return what finish() wants."""
        with self.change:
            self.next_id += 1
            ident = self.next_id
        message = {'execute': command, 'id': ident}
        if arguments:
            message['arguments'] = arguments
        self.send(json.dumps(message).encode() + b'\n')
        return ident, command

    def finish(self, started, deadline=60):
        ident, command = started
        reply = self.wait(lambda: self.replies.pop(ident, None), deadline,
                          f'answer to {command}')
        if 'error' in reply:
            raise QmpError(reply['error']['desc'])
        return reply['return']

    def command(self, command, deadline=60, **arguments):
        return self.finish(self.start(command, **arguments), deadline)

    def cont(self, deadline=60):
        """Let the VM run; raises QmpError if QEMU will not.

        A migration reports its end a moment before it lets go of the VM, and
        until then QEMU refuses: wait for that.
        """
        end = time.monotonic() + deadline * PATIENCE
        while self.command('query-status')['status'] == 'finish-migrate':
            if time.monotonic() > end:
                raise Timeout(f'{self.name}: the migration has ended, but '
                              'does not let go of the VM')
            select.select([], [], [], 0.02)
        self.command('cont')

    def event(self, name, deadline=60, match=None):
        """Take the first event of that name that was not taken yet."""
        def find():
            for event in self.events:
                if event['event'] == name and (
                        not match or match(event.get('data', {}))):
                    self.events.remove(event)
                    return event
            return None
        return self.wait(find, deadline, f'event {name}')


class Command:
    """A command that runs in a guest."""

    def __init__(self, agent, ident, script):
        self.agent = agent
        self.ident = ident
        self.script = script
        self.output = b''
        self.error = b''
        self.status = None
        self._taken = 0

    def _short(self):
        return self.script.strip().splitlines()[0][:60]

    def wait(self, deadline=60):
        """Wait for the end; return the status."""
        self.agent.wait(lambda: self.status is not None, deadline,
                        f'end of `{self._short()}`')
        return self.status

    def line(self, pattern, deadline=60):
        """Take output up to the first line that has pattern; its match."""
        compiled = re.compile(pattern)

        def find():
            while True:
                end = self.output.find(b'\n', self._taken)
                if end < 0:
                    if self.status is not None:
                        raise CommandFailed(
                            f'`{self._short()}` ended with {self.status} '
                            f'without a line like {pattern}: '
                            f'{(self.error or self.output)[-300:]!r}')
                    return None
                text = self.output[self._taken:end].decode(errors='replace')
                self._taken = end + 1
                match = compiled.search(text)
                if match:
                    return match
        return self.agent.wait(find, deadline,
                               f'line /{pattern}/ of `{self._short()}`')

    def skip(self):
        """line() is to look only at what comes from now on."""
        with self.agent.change:
            self._taken = self.output.rfind(b'\n') + 1

    def text(self):
        return self.output.decode(errors='replace')

    def signal(self, number=signal.SIGTERM):
        self.agent.send_frame(self.ident, Agent.SIGNAL,
                              str(int(number)).encode())


class Agent(Channel):
    """Runs commands in a guest; see tests/guest/programs/agent.c.

    moved_to() joins the stream of a guest that has migrated.
    """

    HEADER = struct.Struct('<IIIHH')
    MAGIC = 0x544d4144
    RUN, SIGNAL, READY, OUTPUT, ERROR, EXIT = 1, 2, 0x80, 0x81, 0x82, 0x83

    def __init__(self, name, path, deadline=10):
        self.buffer = b''
        self.expected = None
        self.ready = False
        self.commands = {}
        self.next_id = 0
        # A guest is moving here; frames are numbered on from the source's.
        self.is_successor = False
        super().__init__(name, path, deadline)

    def reset(self):
        """Forget the past: another guest is about to use the port."""
        with self.change:
            self.buffer = b''
            self.expected = None
            self.ready = False
            self.commands = {}
            self.is_successor = False

    def received(self, data):
        self.buffer += data
        self.parse()

    def parse(self):
        """Understand whole frames; called with self.change held."""
        while len(self.buffer) >= self.HEADER.size:
            magic, seq, ident, kind, length = self.HEADER.unpack_from(
                self.buffer)
            if magic != self.MAGIC or (self.expected is None and seq):
                if self.expected is None and not self.is_successor:
                    # Rubbish of an earlier user of the port.
                    cut = self.buffer.find(b'DAMT', 1)
                    self.buffer = self.buffer[cut:] if cut > 0 else b''
                    continue
                return
            if self.expected is not None and seq != self.expected and seq:
                return
            whole = self.HEADER.size + length
            if len(self.buffer) < whole:
                return
            payload = self.buffer[self.HEADER.size:whole]
            self.buffer = self.buffer[whole:]
            self.expected = seq + 1
            self.frame(ident, kind, payload)

    def frame(self, ident, kind, payload):
        if kind == self.READY:
            self.ready = True
            return
        command = self.commands.get(ident)
        if not command:
            return
        if kind == self.OUTPUT:
            command.output += payload
        elif kind == self.ERROR:
            command.error += payload
        elif kind == self.EXIT:
            command.status = struct.unpack('<I', payload)[0]

    def expect_successor(self, other):
        """The guest is about to move to the port of @other."""
        with other.change:
            other.buffer = b''
            other.expected = None
            other.ready = False
            other.commands = {}
            other.is_successor = True

    def moved_to(self, other, deadline=30):
        """The guest has moved: @other continues all commands.

        What the source still had to say arrives on its own port; the frames'
        numbers tell when nothing is missing, a frame may be cut in two.
        """
        def joined():
            with other.change:
                if not other.buffer:
                    return False
                for head in (b'', self.buffer):
                    data = head + other.buffer
                    if len(data) < self.HEADER.size:
                        continue
                    magic, seq, _, _, length = self.HEADER.unpack_from(data)
                    if magic == self.MAGIC and seq == self.expected and \
                            len(data) >= self.HEADER.size + length:
                        other.take_over(self, data)
                        return True
            return False

        # Make the guest say something, or there may be nothing to join.
        other.next_id = self.next_id + 1
        other.send_frame(other.next_id, self.RUN, b':')
        end = time.monotonic() + deadline * PATIENCE
        while True:
            with self.change:
                if joined():
                    return
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout(f'{other.name}: the guest that moved is mute')
            with other.change:
                other.change.wait(min(left, 0.1))

    def take_over(self, old, data):
        """Both locks held."""
        self.is_successor = False
        self.buffer = data
        self.expected = old.expected
        self.ready = True
        self.commands = old.commands
        for command in self.commands.values():
            command.agent = self
        old.buffer = b''
        old.commands = {}
        self.parse()
        self.change.notify_all()

    def wait_ready(self, deadline=120):
        self.wait(lambda: self.ready, deadline, 'agent in the guest')

    def send_frame(self, ident, kind, payload):
        self.send(self.HEADER.pack(self.MAGIC, 0, ident, kind, len(payload))
                  + payload)

    def start(self, script):
        """Begin to run a shell script; returns a Command."""
        data = script.encode()
        if len(data) > 60000:
            raise ValueError('script too long for one frame')
        with self.change:
            self.next_id += 1
            command = Command(self, self.next_id, script)
            self.commands[command.ident] = command
        self.send_frame(command.ident, self.RUN, data)
        return command

    def run(self, script, deadline=60):
        """Run a shell script to its end; return its output as text."""
        return self.run_bytes(script, deadline).decode(errors='replace')

    def run_bytes(self, script, deadline=60):
        command = self.start(script)
        status = command.wait(deadline)
        self.commands.pop(command.ident, None)
        if status:
            said = (command.error + command.output)[-600:]
            raise CommandFailed(
                f'{self.name}: `{script.strip()[:200]}` ended with {status}: '
                f'{said.decode(errors="replace")}')
        return command.output


class Process:
    """A QEMU on this machine. Its console and messages go to files.

    fds: open files that it inherits.
    """

    def __init__(self, name, arguments, directory, fds=()):
        self.name = name
        self.console = os.path.join(directory, name + '.console')
        self.log = os.path.join(directory, name + '.log')
        with open(self.log, 'wb') as log:
            # pylint: disable=consider-using-with,subprocess-popen-preexec-fn
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=_die_with_parent, pass_fds=fds)

    def alive(self):
        return self.process.poll() is None

    def tail(self, lines=25):
        """The end of console and messages, for a failure report."""
        text = ''
        for path in (self.log, self.console):
            try:
                with open(path, encoding='utf-8', errors='replace') as file:
                    last = file.read().splitlines()[-lines:]
            except OSError:
                continue
            text += f'--- {os.path.basename(path)}\n' + '\n'.join(last) + '\n'
        return text

    def stop(self):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
