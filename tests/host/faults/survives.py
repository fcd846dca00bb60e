# SPDX-License-Identifier: GPL-2.0-only
"""A migration that comes to nothing, at any point, leaves a source that works.

Each case ends one migration in its own way. Then the guest must go on as if
there had been none, and the next migration must lose no page.
"""

import contextlib
import fcntl
import os
import subprocess

import cases
import guest
import oracle

vm = guest.vm

# Bytes of the final pass that arrive before the link is held or cut: it has
# at least the pages that are mapped, which are twice as many.
PART = 1 << 20
SLOWLY = 1 << 20


def state_of(trip):
    return trip.tracking()['provider']


def wait_acknowledged(trip, wanted):
    """Wait until the guest has been asked to log, and has answered or not."""
    guest.wait_until(
        lambda: state_of(trip)['phase'] == 'logging' and
        state_of(trip)['acknowledged'] == wanted,
        f'a guest that is asked to log, answered: {wanted}', 30, 0.02)


def deafen(trip, seconds):
    """The guest does nothing any more for so long; returns once it is so."""
    here = trip.here
    before = count_deaf(here)
    here.agent.run(f'echo {seconds * 1000} > '
                   '/sys/module/dma_oracle/parameters/deaf_ms')
    here.agent.start(f'cd {guest.FILES} && echo deaf > control')
    guest.wait_until(lambda: count_deaf(here) > before, 'a deaf guest', 30,
                     0.05)


def count_deaf(side):
    return sum(record.type == oracle.NOTE and record.seed == oracle.NOTE_DEAF
               for record in side.log().records)


def expect(trip, status, wanted, words=''):
    """How the migration ended, and what QEMU says about it."""
    trip.tap.equal(status, wanted, f'the migration is {wanted}')
    if words:
        trip.tap.ok(words in trip.words, f'the text says "{words}"',
                    trip.words)


def cancel(trip):
    trip.here.qmp.command('migrate_cancel')
    expect(trip, trip.wait_status(), 'cancelled')


# --- Set-up -----------------------------------------------------------------

def cancelled_before_the_guest_acknowledges(trip):
    with trip.destination() as there:
        deafen(trip, 6)
        trip.start(there)
        wait_acknowledged(trip, False)
        cancel(trip)


def the_guest_does_not_acknowledge(trip):
    with trip.destination() as there:
        deafen(trip, 6)
        trip.start(there)
        expect(trip, trip.wait_status(), 'failed',
               'the guest did not acknowledge')


def cancelled_after_the_guest_acknowledged(trip):
    with trip.destination() as there:
        trip.start(there, bandwidth=SLOWLY)
        wait_acknowledged(trip, True)
        trip.tap.equal(trip.here.qmp.command('query-migrate')['ram'][
            'dirty-sync-count'], 1, 'its memory is being sent once')
        cancel(trip)


# --- Precopy ----------------------------------------------------------------

@contextlib.contextmanager
def precopying(trip, capabilities=('return-path',), **changes):
    """(link, destination) of a migration that has sent all memory once."""
    with trip.linked(**changes) as (wire, there):
        trip.start(there, wire, capabilities=capabilities)
        trip.wait_sent_once()
        trip.work()
        yield wire, there


def cancelled_in_a_precopy_round(trip):
    with precopying(trip):
        cancel(trip)


def the_link_is_cut_in_a_precopy_round(trip):
    with precopying(trip) as (wire, _):
        wire.cut_after(PART)
        expect(trip, trip.wait_status(), 'failed')


def the_destination_is_killed_in_a_precopy_round(trip):
    with precopying(trip) as (_, there):
        there.process.process.kill()
        expect(trip, trip.wait_status(), 'failed')


# --- Switchover -------------------------------------------------------------

@contextlib.contextmanager
def switching(trip, capabilities=('return-path',), **changes):
    """Likewise, with the vCPUs stopped and the functions about to be."""
    with precopying(trip, (*capabilities, 'pause-before-switchover'),
                    **changes) as (wire, there):
        trip.let_end()
        if trip.wait_status('pre-switchover') != 'pre-switchover':
            raise vm.Gone(f'no switchover: {trip.words}')
        yield wire, there


def switch(trip):
    trip.here.qmp.command('migrate-continue', state='pre-switchover')


def the_guest_gives_no_sign_of_life(trip):
    with precopying(trip):
        deafen(trip, 6)
        expect(trip, trip.complete(), 'failed',
               'the guest did not give a sign of life')


def cancelled_when_the_vcpus_are_stopped(trip):
    with switching(trip):
        states = {trip.here.qmp.command(
            'qom-get', path=function['qom-path'],
            property='dma-quiesce-state')
            for function in trip.functions()}
        trip.tap.equal(states, {'quiesced'}, 'functions were quiet')
        cancel(trip)


def the_vm_is_continued_before_the_switchover(trip):
    with switching(trip):
        try:
            trip.here.qmp.command('cont')
            words = 'it was not refused'
        except vm.QmpError as error:
            words = str(error)
        trip.tap.ok('not finalized' in words,
                    'cont is refused while functions are quiet', words)
        cancel(trip)


def expect_part(trip, sent):
    """The final pass was not over yet."""
    last = trip.tracking().get('last-migration') or {}
    trip.tap.ok(last.get('final-pass-bytes', 0) > sent == PART,
                'a part of the final pass had arrived', (last, sent))


def the_link_is_cut_in_the_final_pass(trip):
    with switching(trip) as (wire, _):
        before = wire.passed
        wire.cut_after(PART)
        switch(trip)
        expect(trip, trip.wait_status(), 'failed')
        expect_part(trip, wire.passed - before)


def the_destination_is_killed_in_the_final_pass(trip):
    with switching(trip) as (wire, there):
        before = wire.passed
        wire.hold_after(PART)
        switch(trip)
        wire.wait_stopped()
        sent = wire.passed - before
        there.process.process.kill()
        wire.go_on()
        expect(trip, trip.wait_status(), 'failed')
        expect_part(trip, sent)


def the_destination_has_no_word_for_the_end(trip):
    """All is sent, the destination fails, and no return path tells of it.

    So the source believes that the guest has moved; people know better, and
    continue it where it is.
    """
    with switching(trip, capabilities=(), oracle=()) as (_, there):
        switch(trip)
        expect(trip, trip.wait_status(), 'completed')
        there.qmp.event('MIGRATION', 60,
                        lambda data: data['status'] == 'failed')
    trip.tap.equal(trip.here.qmp.command('query-status')['status'],
                   'postmigrate', 'the source believes that it has moved')


# --- The source's own troubles ----------------------------------------------

@contextlib.contextmanager
def small_file_system(size):
    """A directory with room for so many bytes.

    In a mount namespace of its own, so that nothing is mounted here.
    """
    with subprocess.Popen(
            ['unshare', '--mount', '--map-root-user', 'sh', '-c',
             f'mount -t tmpfs -o size={size} tmpfs /mnt && echo ready && '
             'exec cat'], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE) as keeper:
        try:
            if keeper.stdout.readline() != b'ready\n':
                raise vm.CommandFailed('no file system of its own: unshare')
            yield f'/proc/{keeper.pid}/root/mnt'
        finally:
            keeper.stdin.close()
            keeper.stdout.close()


def the_disk_is_full(trip):
    """Of a migration to a file."""
    with small_file_system(16 << 20) as directory:
        path = os.path.join(directory, 'stream')
        trip.start(uri=f'file:{path}')
        expect(trip, trip.wait_status(), 'failed')
        trip.tap.note(trip.words)
        trip.tap.ok(os.stat(path).st_size > 8 << 20,
                    'some of it had found room', os.stat(path))


def lock_image(path):
    """An open file whose locks nobody can have besides."""
    # pylint: disable-next=consider-using-with
    file = open(path, 'r+b')
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 200, 100, os.SEEK_SET)
    return file


def its_disk_is_taken_meanwhile(trip):
    """Failed activation: another has the disk when the source wants it back.

    The VM stays paused then. When the disk is free again, people continue it.
    """
    with switching(trip) as (wire, _):
        wire.hold_after(PART)
        switch(trip)
        wire.wait_stopped()
        with lock_image(trip.medium):
            wire.cut()
            expect(trip, trip.wait_status(), 'failed')
            try:
                trip.here.qmp.cont()
                words = 'it was not refused'
            except vm.QmpError as error:
                words = str(error)
            trip.tap.ok('lock' in words, 'the VM cannot go on without it',
                        words)
    trip.tap.equal(trip.here.qmp.command('query-status')['running'], False,
                   'the VM is paused')


# --- A VM that is paused ----------------------------------------------------

@contextlib.contextmanager
def paused_and_sent(trip):
    """A VM that was paused before its migration began, some of it sent."""
    trip.work()
    trip.here.qmp.command('stop')
    with trip.destination() as there:
        trip.start(there, bandwidth=SLOWLY)
        guest.wait_until(lambda: trip.here.qmp.command('query-migrate').get(
            'ram', {}).get('transferred', 0) > 0, 'memory that is sent')
        yield


def a_paused_vm_is_cancelled(trip):
    with paused_and_sent(trip):
        cancel(trip)
    trip.tap.equal(trip.here.qmp.command('query-status')['status'], 'paused',
                   'the VM is still paused')


def a_paused_vm_is_continued(trip):
    """Its guest was not asked to log, so the migration cannot go on."""
    with paused_and_sent(trip):
        trip.here.qmp.cont()
        expect(trip, trip.wait_status(), 'failed', 'began to run')


def stopped_and_continued_in_a_precopy_round(trip):
    """That does no harm; and then the link is cut."""
    with precopying(trip) as (wire, _):
        trip.here.qmp.command('stop')
        trip.here.qmp.cont()
        trip.wait_completions(100)
        wire.cut()
        expect(trip, trip.wait_status(), 'failed')


CASES = (
    cancelled_before_the_guest_acknowledges,
    the_guest_does_not_acknowledge,
    cancelled_after_the_guest_acknowledged,
    cancelled_in_a_precopy_round,
    the_link_is_cut_in_a_precopy_round,
    the_destination_is_killed_in_a_precopy_round,
    stopped_and_continued_in_a_precopy_round,
    the_guest_gives_no_sign_of_life,
    cancelled_when_the_vcpus_are_stopped,
    the_vm_is_continued_before_the_switchover,
    the_link_is_cut_in_the_final_pass,
    the_destination_is_killed_in_the_final_pass,
    the_destination_has_no_word_for_the_end,
    the_disk_is_full,
    its_disk_is_taken_meanwhile,
    a_paused_vm_is_cancelled,
    a_paused_vm_is_continued,
)


def run_case(trip, case):
    """The fault, what is left of it, and the next migration."""
    trip.prepare()
    case(trip)
    trip.expect_source_works()
    trip.move()


def untracked_pages_are_lost(trip):
    """The control: the second migration of a guest that nobody tracks."""
    trip.prepare()
    the_link_is_cut_in_a_precopy_round(trip)
    # The periodic writer would write what it wrote before.
    trip.is_fresh = False
    trip.expect_loss()


def run(tap, directory, only):
    cases.run(tap, directory, 'survives', CASES, run_case, only)
    cases.run(tap, directory, 'lost', [untracked_pages_are_lost],
              cases.alone, only, tracking=(), nic=())
