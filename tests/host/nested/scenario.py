# SPDX-License-Identifier: GPL-2.0-only
"""Whole moves of a loaded guest, for the tests and for the demo."""

import time

import bed
import load
import oracle
import vm

PROVIDER = 'virtio-dma-track-pci'
# Bytes per second: fast enough for the bed, and the same for every move.
BANDWIDTH = 100 << 20
# What move() hands on to move_pair().
MOVE_OPTIONS = ('whole', 'mark_stop', 'bandwidth', 'network', 'before_stop',
                'never_stops', 'counter_us')


def start_pair(test_bed, progress, destination_options=(), **options):
    """A booted guest in slot a, a QEMU that waits for it in slot b.

    destination_options: where the second differs from the first
    """
    source = test_bed.guest('a', **options).launch()
    progress('source: QEMU runs, the guest boots')
    destination = test_bed.guest('b', incoming=True, **{
        **options, **dict(destination_options)}).launch()
    source.wait_booted()
    progress('source: booted; the destination waits')
    return source, destination


def move(test_bed, progress, provider=PROVIDER, tracked_by=None,
         destination_options=(), **how):
    """Move a guest under load from slot a to slot b; return the findings.

    how: of move_pair(), the rest are options of both guests
    """
    ours = {key: how.pop(key) for key in MOVE_OPTIONS if key in how}
    source, destination = start_pair(
        test_bed, progress, destination_options, provider=provider,
        tracked_by=tracked_by, **how)
    result = move_pair(test_bed, progress, source, destination, **ours)
    source.stop()
    destination.stop()
    return result


class Journey:
    """One guest that moves back and forth between the slots.

    A guest takes longer to boot than to move. When a move was not completed,
    the next begins with another guest.
    """

    def __init__(self, test_bed, progress):
        self.bed = test_bed
        self.progress = progress
        self.guest = None

    def move(self, here, there, **ours):
        """Move; return the findings of move_pair().

        here, there: options of the guest before and after. A guest that is
        there already was started with the 'there' of the move before.
        """
        if self.guest:
            source, self.guest = self.guest, None
            slot = next(slot for slot in bed.SLOTS if slot != source.slot)
            destination = self.bed.guest(slot, incoming=True, **there).launch()
            self.progress(f'on from slot {source.slot}')
            # Its driver begins anew, so that it has fresh frames.
            source.run('''
                dmesg -c > /dev/null
                cd /sys/bus/pci/drivers/dma_oracle
                for address in *:*; do
                    echo $address > unbind
                    echo $address > bind
                done''')
        else:
            self.bed.stop_guests()
            source, destination = start_pair(self.bed, self.progress, there,
                                             **here)
        result = move_pair(self.bed, self.progress, source, destination,
                           **ours)
        if result['status'] == 'completed':
            source.stop()
            self.bed.guests.remove(source)
            self.guest = destination
        return result


def move_pair(test_bed, progress, source, destination, whole=True,
              mark_stop=False, bandwidth=BANDWIDTH, network=True,
              before_stop=None, never_stops=False, counter_us=1000):
    """Move a guest under load to a QEMU that waits; return the findings.

    whole: its memory is expected to be whole, so wait for the traffic
    network: it has the virtual function, and traffic over it
    before_stop: called with the source's slot when nothing but the completion
    is to come
    counter_us: how often the device stores its counter
    never_stops: the device is left running, and all that it wrote is wanted
    mark_stop: nobody stops the device, so that all that it wrote is wanted; in
    flight is what it had begun when the vCPUs stopped
    """
    tracked = source.options.get('tracked_by') != 'external'
    traffic = None
    if network:
        traffic = load.Traffic(test_bed, source).start()
        progress('source: TCP and UDP traffic runs')
    device = load.Oracle(test_bed, source).prepare(counter_us)
    if tracked:
        load.wait_tracked(source)
    before = time.monotonic()
    migration = bed.Move(source, destination, progress)
    migration.start(bandwidth=bandwidth)
    migration.wait_pass(2)
    migration.linger()
    progress('all memory was sent once; the device writes the frames again')
    device.work()
    if before_stop:
        before_stop(source.slot)
    if mark_stop:
        found = _complete_with_marker(migration)
    else:
        progress('frames are written; the migration may complete')
        found = migration.complete()
    info = migration.info
    if found != 'completed':
        return {'status': found, 'error': info.get('error-desc', '')}
    progress(f'{found}: {info["total-time"]} ms, downtime '
             f'{info["downtime"]} ms')
    migration.follow_guest()
    device.wait_restored(destination)
    restored = bed.wait_until(
        lambda: all_restored(destination), 'all drivers restored')
    progress('destination: drivers work again')
    for line in destination.run(
            "dmesg | grep 'dma_track.*restore' | tail -n 4").splitlines():
        progress('   ' + line)
    statistics = load.tracking(source)
    heard = {}
    if traffic and whole:
        heard = traffic.finish(destination)
        progress(f'traffic: outage {heard["udp_outage_ms"]:.0f} ms, '
                 f'{heard["stream"]}')
    elif traffic:
        traffic.abandon()
    stop = oracle.MASK if never_stops else None
    if mark_stop:
        stop = oracle.marker_time(device.log(), oracle.MARK_STOPPED)
    checked = device.check(destination, stop, unstopped=mark_stop)
    progress('oracle: ' + describe(checked.short()))
    trouble = test_bed.trouble() + destination.trouble()
    result = {
        'status': found,
        'total_ms': info['total-time'],
        'downtime_ms': info['downtime'],
        'oracle': checked.short(),
        'oracle_ok': checked.ok,
        'oracle_lines': list(checked.lines),
        'ram_bytes_sent': info['ram']['transferred'],
        'devices_restored': len(restored),
        'trouble': trouble,
        'seconds': round(time.monotonic() - before, 1),
        'steps': {one.get('id', one['name']): one['last-quiesce']
                  for one in statistics['functions']},
        'faults': checked.faults,
        'counters': checked.counters,
        'counters_lost': checked.counters_lost,
        **heard,
    }
    result.update(last_migration(statistics))
    return result


def last_migration(info):
    """The statistics that query-dma-track keeps, by the report's names."""
    last = info.get('last-migration') or {}
    return {'pinned_frames': last.get('pinned-frames', 0),
            'coherent_frames': last.get('coherent-frames', 0),
            'deferred_frames': last.get('deferred-frames', 0),
            'final_pass_bytes': last.get('final-pass-bytes', 0)}


def all_restored(guest):
    """The functions that a guest tracks, once every driver was restored."""
    functions = [one for one in load.tracking(guest)['functions']
                 if one['tracked-by'] != 'device']
    failed = [one for one in functions if one['restored'] == 'failed']
    if failed:
        raise vm.Gone(f'a driver could not be restored: {failed}')
    if functions and all(one['restored'] in ('ok', 'no-driver')
                         and not one['fenced'] for one in functions):
        return functions
    return None


def _complete_with_marker(migration):
    """Write the marker as soon as QEMU says that the vCPUs are stopped."""
    source = migration.source
    migration.allow()
    source.qmp.event('STOP', migration.DEADLINE)
    source.bed.set_marker(source.slot, oracle.MARK_STOPPED)
    return migration.finish()


def describe(oracle):
    return ', '.join(
        f'{kind} {one["lost"]} lost of {one["exposed"]} exposed'
        for kind, one in oracle.items())
