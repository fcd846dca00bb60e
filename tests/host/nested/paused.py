# SPDX-License-Identifier: GPL-2.0-only
"""A guest that is paused, and functions in containers of their own.

A paused guest acknowledges nothing and maps nothing: its functions are made
quiet before the first byte is sent. With pause-before-switchover there is time
between the stop and the end: nothing may be written in it.
"""

import bed
import load
import oracle
import peers
import scenario

# Two containers: in one of them two functions, of which one loses its access.
CONTAINERS = {
    'functions': ('vf', *peers.KINDS),
    'modules': 'dma_track,igbvf,dma_oracle',
    'extra': '-object iommufd,id=iommufd0 -object iommufd,id=iommufd1',
    'options_of': {'vf': 'iommufd=iommufd0,dma-quiesce=busmaster',
                   'oracle': 'iommufd=iommufd0,dma-quiesce=iommu',
                   bed.PEER: 'iommufd=iommufd1,dma-quiesce=flush'}}
# One container, of all three.
ONE = {'functions': ('vf', *peers.KINDS),
       'modules': 'dma_track,igbvf,dma_oracle'}


def _start(test_bed, tap, **options):
    source, destination = scenario.start_pair(test_bed, tap.progress,
                                              **options)
    pair = peers.Pair(test_bed, source).prepare()
    load.wait_tracked(source)
    return source, destination, pair


def _check_moved(test_bed, tap, pair, destination, when):
    for device in pair.devices:
        device.wait_restored(destination)
    bed.wait_until(lambda: scenario.all_restored(destination),
                   'all drivers restored')
    pair.check_memory(tap, destination, when)
    tap.equal(test_bed.trouble() + destination.trouble(), [],
              f'{when}: no trouble in either kernel log')


def _containers(guest):
    """How many containers QEMU has: (of type 1, of iommufd)."""
    found = guest.bed.l1.run(rf'''
        for pid in $(pidof qemu-system-x86_64); do
            name=$(tr '\0' ' ' < /proc/$pid/cmdline | cut -d' ' -f3)
            [ "$name" != {guest.slot} ] || ls -l /proc/$pid/fd
        done''')
    return (found.count('-> /dev/vfio/vfio'), found.count('-> /dev/iommu'))


def paused_before_the_switchover(test_bed, tap):
    source, destination, pair = _start(test_bed, tap, **CONTAINERS)
    tap.equal(_containers(source), (0, 2), 'there are two containers')
    tap.ok('PCI BAR?' in source.words(), 'QEMU says that iommufd maps no BARs',
           source.words())
    for guest in (source, destination):
        guest.qmp.command('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])
    migration = bed.Move(source, destination, tap.progress)
    migration.start(bandwidth=scenario.BANDWIDTH)
    migration.wait_pass(2)
    migration.linger()
    pair.work()
    migration.allow()
    migration.wait_switchover()
    tap.equal(source.qmp.command('query-status')['status'], 'finish-migrate',
              'the guest is stopped, and the migration waits')
    for device in pair.devices:
        test_bed.set_marker('a', oracle.MARK_STOPPED, device.kind)
    migration.go_on()
    tap.equal(migration.finish(), 'completed', 'the migration completes')
    migration.follow_guest()
    for device in pair.devices:
        log = device.log()
        after = log.marker(oracle.MARK_STOPPED).seq
        tap.equal(len([one for one in log.writes() if one.seq > after]), 0,
                  f'{device.kind}: nothing was written while it waited')
    _check_moved(test_bed, tap, pair, destination, 'two containers')


def _move_paused(test_bed, tap, **options):
    source, destination, pair = _start(test_bed, tap, **ONE, **options)
    tap.equal(_containers(source), (1, 0), 'there is one container')
    pair.work()
    migration = bed.Move(source, destination, tap.progress)
    migration.pause()
    migration.start(bandwidth=scenario.BANDWIDTH, downtime_ms=2000)
    tap.equal(migration.finish(), 'completed', 'the migration completes')
    migration.follow_guest()
    return pair, destination


def paused_before_it_begins(test_bed, tap):
    pair, destination = _move_paused(test_bed, tap)
    _check_moved(test_bed, tap, pair, destination, 'paused')


def paused_and_not_made_quiet(test_bed, tap):
    pair, destination = _move_paused(
        test_bed, tap, provider=scenario.PROVIDER +
        ',x-dma-quiesce-suppress=all')
    lost = [device.check(destination, oracle.MASK).lost
            for device in pair.devices]
    tap.ok(any(lost), 'without the quiesce, what the devices went on to write '
           'is lost', str(lost))
    test_bed.clear_trouble()


TESTS = (paused_before_the_switchover, paused_before_it_begins,
         paused_and_not_made_quiet)
