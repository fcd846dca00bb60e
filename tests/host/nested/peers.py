# SPDX-License-Identifier: GPL-2.0-only
"""What one function writes into another's BAR lands, or was never begun.

Two test devices of one guest, with type 1. Half of what each has to do goes to
a register of the other, which logs what it gets: so the log of one says what
was delivered, that of the other what has arrived, and what did not is a fault.
Nothing that is on its way when the guest stops may meet a function that is
being reset, or mappings that are gone.
"""

import bed
import load
import oracle
import scenario
import survival

KINDS = ('oracle', bed.PEER)
# What a run has to contain to prove anything.
DELIVERED = 100
IN_FLIGHT = 8


class Mail:
    """What one of the two devices of a slot wrote to the other from now on."""

    def __init__(self, test_bed, slot, kinds, address):
        self.path, self.other_path = (test_bed.oracle_log(slot, kind)
                                      for kind in kinds)
        self.address = address
        self.begin = oracle.Log(self.path).records[-1].seq
        self.other_begin = oracle.Log(self.other_path).records[-1].seq
        self.name = f'{kinds[0]} to {kinds[1]}'

    def _records(self):
        return [record for record in oracle.Log(self.path).records
                if record.seq > self.begin and record.addr == self.address]

    def delivered(self):
        """The values that the sender has written, in order."""
        return [oracle.stamp_word(record.seed, 0) & 0xffffffff
                for record in self._records() if record.type == oracle.STAMP]

    def arrived(self):
        """The values that the receiver was given, in order."""
        return [record.seed for record in oracle.Log(self.other_path).records
                if record.seq > self.other_begin and
                record.type == oracle.NOTE and
                record.seed != oracle.NOTE_FRESH]

    def lost(self):
        """How many could not be delivered."""
        return sum(record.type == oracle.FAULT for record in self._records())

    def in_flight(self):
        """How many were on their way when the sender was told to stop."""
        log = oracle.Log(self.path)
        stop = log.quiesce(log.marker(oracle.MARK_EXPOSED).seq)
        return stop and sum(record.issued <= stop.time < record.time
                            for record in self._records())

    def check(self, tap, when):
        """All that was delivered has arrived, and nothing was lost."""
        delivered, arrived, lost = self.delivered(), self.arrived(), \
            self.lost()
        tap.ok(delivered == arrived and not lost,
               f'{when}, {self.name}: all has arrived, and nothing faults',
               f'{len(delivered)} delivered, {len(arrived)} arrived, '
               f'{lost} faults')
        return len(delivered)


class Pair:
    """The two devices of a guest, and what they write to each other."""

    def __init__(self, test_bed, guest, directories=None):
        self.bed = test_bed
        self.guest = guest
        self.devices = [load.Oracle(test_bed, guest, kind) for kind in KINDS]
        for device, directory in zip(self.devices, directories or ()):
            device.directory = directory
        self.mails = []

    def prepare(self):
        for device in self.devices:
            device.prepare()
        return self

    def look(self):
        """From here on the mail counts."""
        self.mails = [
            Mail(self.bed, self.guest.slot, kinds,
                 int(device.status()['mailbox'], 0))
            for device, kinds in zip(self.devices, (KINDS, KINDS[::-1]))]

    def work(self):
        for device in self.devices:
            device.work()
        self._wait_mail()

    def _wait_mail(self):
        bed.wait_until(lambda: all(len(mail.arrived()) >= DELIVERED or
                                   mail.lost() for mail in self.mails),
                       'they write to each other')

    def control(self, command):
        for device in self.devices:
            device.control(command)

    def restores(self):
        return [int(device.status()['restores']) for device in self.devices]

    def wait_restored(self, before):
        bed.wait_until(
            lambda: all(now > then for now, then in
                        zip(self.restores(), before)) and
            scenario.all_restored(self.guest), 'both drivers are restored')

    def on(self, guest):
        """The same devices, where the guest has moved."""
        return Pair(self.bed, guest,
                    [device.directory for device in self.devices])

    def check_memory(self, tap, guest, when):
        for device in self.devices:
            checked = device.check(guest)
            tap.ok(checked.ok and checked.kinds['inflight']['exposed'],
                   f'{when}, {device.kind}: every byte in memory is what it '
                   'wrote', '\n'.join(checked.lines))

    def check(self, tap, when, in_flight=True):
        for mail in self.mails:
            tap.ok(mail.check(tap, when) >= DELIVERED,
                   f'{when}, {mail.name}: there was enough of it')
            if in_flight:
                found = mail.in_flight()
                tap.ok(found >= IN_FLIGHT, f'{when}, {mail.name}: some was on '
                       'its way at the stop', str(found))

    def write_again(self, tap, when):
        """Both write to each other as before."""
        self.look()
        self.control('stream')
        self._wait_mail()
        self.control('unstream')
        self.check(tap, when, in_flight=False)
        for device in self.devices:
            tap.equal(device.status()['error'], 'none',
                      f'{when}, {device.kind}: its driver is content')


def _start(test_bed, tap, methods, suppress='', **options):
    """Two guests, of which the second waits; and how each device is stopped."""
    options.update(
        functions=KINDS, modules='dma_track,dma_oracle',
        provider=scenario.PROVIDER + suppress,
        options_of={kind: f'dma-quiesce={method}'
                    for kind, method in zip(KINDS, methods)})
    source, destination = scenario.start_pair(test_bed, tap.progress,
                                              **options)
    pair = Pair(test_bed, source).prepare()
    pair.control('mail')
    load.wait_tracked(source)
    pair.look()
    return source, destination, pair, options


def _move(tap, source, destination, pair):
    migration = bed.Move(source, destination, tap.progress)
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    pair.work()
    before = pair.restores()
    status = migration.complete()
    tap.equal(status, 'completed', 'the guest moves')
    if status != 'completed':
        tap.note(migration.info.get('error-desc', ''))
        return None
    migration.follow_guest()
    there = pair.on(destination)
    there.wait_restored(before)
    return there


def _check_trouble(test_bed, tap, *guests):
    found = test_bed.trouble()
    for guest in guests:
        found += guest.trouble()
    tap.equal(found, [], 'no trouble in any kernel log')


def _give_up_and_move(test_bed, tap, methods, is_gentle):
    name = ', '.join(methods)
    source, destination, pair, options = _start(
        test_bed, tap, methods, destination_options={'functions': KINDS[:1]})
    before = pair.restores()
    survival.fail_after_the_quiesce(
        tap, source, pair, bed.Move(source, destination, tap.progress))
    if is_gentle:
        pair.control('unstream')
        tap.equal(pair.restores(), before,
                  f'{name}, given up: no driver noticed anything')
    else:
        pair.wait_restored(before)
    pair.check(tap, f'{name}, given up')
    pair.write_again(tap, f'{name}, on the source again')

    destination.stop()
    options.pop('destination_options')
    destination = test_bed.guest('b', incoming=True, **options).launch()
    pair.look()
    there = _move(tap, source, destination, pair)
    if there:
        pair.check(tap, f'{name}, moved')
        pair.check_memory(tap, destination, f'{name}, moved')
        there.write_again(tap, f'{name}, on the destination')
        _check_trouble(test_bed, tap, destination)


def what_is_flushed_lands(test_bed, tap):
    _give_up_and_move(test_bed, tap, ('flush', 'flush'), True)


# The first is told to reset while the second still has writes to it in flight.
HARD = ('reset', 'iommu')


def nothing_is_torn_down_before_all_has_landed(test_bed, tap):
    _give_up_and_move(test_bed, tap, HARD, False)


def without_waiting_it_is_lost(test_bed, tap):
    source, destination, pair, _ = _start(
        test_bed, tap, HARD, ',x-dma-quiesce-suppress=pending')
    if _move(tap, source, destination, pair):
        lost = [mail.lost() for mail in pair.mails]
        tap.ok(any(lost), 'what is not waited for is lost', str(lost))
    test_bed.clear_trouble()


TESTS = (what_is_flushed_lands, nothing_is_torn_down_before_all_has_landed,
         without_waiting_it_is_lost)
