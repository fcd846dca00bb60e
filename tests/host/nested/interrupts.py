# SPDX-License-Identifier: GPL-2.0-only
"""A request gets its answer once, and the interrupt that tells of it.

The driver of the test device has 32 requests waiting at any time and looks for
answers only when there was an interrupt: if one is lost, all wait for ever. All
of them are in the device when the guest stops, so that each answer that a flush
still brings has its interrupt pending then.
"""

import bed
import load
import oracle
import scenario
import survival
import vm

# What a run has to contain to prove anything.
WAITING = 16
ANSWERED = 100
# Of what depends on the moment of the stop.
TRIES = 12


class Requests:
    """The driver's requests, and what became of them."""

    def __init__(self, test_bed, guest):
        self.bed = test_bed
        self.guest = guest
        self.device = load.Oracle(test_bed, guest).prepare()

    def work(self):
        self.bed.set_marker(self.guest.slot, oracle.MARK_EXPOSED)
        self.device.control('ask')
        bed.wait_until(
            lambda: int(self.status()['answered']) >= ANSWERED and
            self.bed.issued(self.guest.slot) >= WAITING, 'requests are made')

    def status(self, guest=None):
        return self.device.status(guest)

    def restores(self, guest=None):
        return int(self.status(guest)['restores'])

    def answered_by_flush(self):
        """How many answers came after the stop."""
        log = self.device.log()
        flush = log.quiesce(log.marker(oracle.MARK_EXPOSED).seq)
        end = log.first((oracle.QUIESCED,), flush.seq)
        return sum(flush.seq < record.seq < end.seq
                   for record in log.records
                   if record.type == oracle.COMPLETION)

    def wait_restored(self, guest, before):
        bed.wait_until(lambda: self.restores(guest) > before and
                       scenario.all_restored(guest),
                       'the driver is restored')

    def moved(self, guest):
        self.guest = self.device.guest = guest

    def finish(self):
        """No more requests. Was each that was made answered in time?"""
        try:
            self.device.control('unask')
            return True
        except vm.CommandFailed:
            return False

    def check(self, tap, when):
        finished = self.finish()
        found = self.status()
        tap.ok(finished and found['asked'] == found['answered'] and
               found['unexpected'] == found['silent'] == '0',
               f'{when}: each request was answered, once', str(found))
        tap.equal(found['error'], 'none', f'{when}: its driver is content')
        tap.note(f'{when}: {found["answered"]} answers, '
                 f'{found["repeated"]} requests repeated')
        return found


def _start(test_bed, tap, method):
    options = {'functions': ('oracle',), 'modules': 'dma_track,dma_oracle',
               'function_options': f'dma-quiesce={method}'}
    source = test_bed.guest('a', **options).launch()
    source.wait_booted()
    requests = Requests(test_bed, source)
    load.wait_tracked(source)
    return source, requests, options


def _give_up(test_bed, tap, source, device, options):
    """A migration whose destination lacks the function; the source goes on."""
    destination = test_bed.guest('b', incoming=True, **{
        **options, 'functions': ()}).launch()
    survival.fail_after_the_quiesce(
        tap, source, device, bed.Move(source, destination, tap.progress))
    destination.stop()


def _move(test_bed, tap, source, requests, options):
    destination = test_bed.guest('b', incoming=True, **options).launch()
    before = requests.restores()
    migration = bed.Move(source, destination, tap.progress)
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    status = migration.complete()
    if status != 'completed':
        raise AssertionError(f'{status}: {migration.info}')
    migration.follow_guest()
    requests.wait_restored(destination, before)
    requests.moved(destination)
    return destination


def _without_interrupts(test_bed, tap, source, requests, options):
    """The control; returns the status of a driver that waits, or the last.

    An interrupt from before the stop that is handled after it makes the driver
    look: that run tells nothing.
    """
    test_bed.break_oracle('a', 'flush-silent')
    try:
        for _ in range(TRIES):
            _give_up(test_bed, tap, source, requests, options)
            if not requests.finish():
                break
    finally:
        test_bed.break_oracle('a', 'none')
    return requests.status()


def what_a_flush_answers_is_told(test_bed, tap):
    source, requests, options = _start(test_bed, tap, 'flush')
    # Not if the guest stops when all was answered, and nothing new asked.
    for _ in range(TRIES):
        _give_up(test_bed, tap, source, requests, options)
        found = requests.check(tap, 'flush, given up')
        if requests.answered_by_flush() >= WAITING:
            break
    tap.ok(requests.answered_by_flush() >= WAITING,
           'flush, given up: answers came after the stop')
    tap.equal((found['resets'], found['repeated']), ('0', '0'),
              'flush, given up: nothing was asked for again')

    found = _without_interrupts(test_bed, tap, source, requests, options)
    tap.ok(int(found['silent']) >= WAITING,
           'without these interrupts, the driver waits for ever', str(found))

    requests.work()
    destination = _move(test_bed, tap, source, requests, options)
    tap.ok(requests.answered_by_flush() > 0,
           'flush, moved: answers came after the stop')
    requests.check(tap, 'flush, moved')
    tap.equal(destination.trouble(), [], "no trouble in the guest's kernel log")


def what_a_reset_has_ended_is_asked_again(test_bed, tap):
    source, requests, options = _start(test_bed, tap, 'busmaster')
    _give_up(test_bed, tap, source, requests, options)
    requests.wait_restored(source, 0)
    found = requests.check(tap, 'busmaster, given up')
    tap.ok(int(found['repeated']) >= WAITING,
           'busmaster, given up: requests were waiting at the stop')

    requests.device.control('mask')
    before = requests.status()
    destination = _move(test_bed, tap, source, requests, options)
    found = requests.status()
    tap.equal((before['kept'], found['kept']), ('0', '1'),
              'an interrupt that was pending at the stop comes when its vector '
              'is unmasked on the destination')
    tap.equal(found['error'], 'none', 'and the driver is content')
    tap.equal(destination.trouble(), [], "no trouble in the guest's kernel log")


TESTS = (what_a_flush_answers_is_told, what_a_reset_has_ended_is_asked_again)
