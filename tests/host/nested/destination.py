# SPDX-License-Identifier: GPL-2.0-only
"""Destinations that cannot have the guest say so, and the source goes on."""

import bed
import load
import survival
import vm


def refuse_to_start(test_bed, function):
    """What QEMU in slot b says when it does not start, or None."""
    guest = test_bed.guest('b', functions=(),
                           extra=f'-device vfio-pci,bus=rp1,host={function}')
    try:
        guest.launch()
    except vm.Gone as refusal:
        return str(refusal)
    guest.stop()
    return None


def what_a_function_cannot_do_is_refused(test_bed, tap):
    """When it is asked for, and not when a migration needs it."""
    for kind, how, words in (
            ('oracle', 'flush', 'the function has no ring-flush capability'),
            ('edu', 'reset', 'the function cannot be reset alone')):
        said = refuse_to_start(test_bed, test_bed.function(kind, 'b') +
                               f',dma-quiesce={how}')
        tap.ok(said and words in said, f'dma-quiesce={how} is refused for a '
               'function that cannot do that', said)
    # It need not boot.
    guest = test_bed.guest('b', functions=(), extra=(
        '-device intel-iommu,caching-mode=on,intremap=off,aw-bits=39 '
        '-device vfio-pci,id=oracle0,bus=rp2,host='
        + test_bed.function('oracle', 'b'))).launch()
    info = load.tracking(guest)
    tap.ok(not info['migratable'] and any(
        'DMA tracking by the guest is not supported with vIOMMU enabled' in
        reason for reason in info['reasons']),
        'a function behind an IOMMU of the guest is told of', str(info))
    guest.stop()


def wrong_functions_are_refused(test_bed, tap):
    source = test_bed.guest('a').launch().wait_booted()
    traffic = load.Traffic(test_bed, source).start()
    device = load.Oracle(test_bed, source).prepare()
    load.wait_tracked(source)
    words = refuse_to_start(test_bed, test_bed.function('vf', 'a'))
    tap.ok(words and 'busy' in words,
           'a function that another guest has is refused', words)
    tap.note(words)
    words = refuse_to_start(test_bed, '0000:01:1f.7')
    tap.ok(words and 'no such host device' in words,
           'a function that is not there is refused', words)
    destination = test_bed.guest(
        'b', incoming=True, functions=('vf',),
        extra=f'-device vfio-pci,host={test_bed.function("edu", "b")},'
              'id=other0,bus=rp2').launch()
    migration = bed.Move(source, destination, tap.progress)
    survival.fail_after_the_quiesce(tap, source, device, migration)
    destination.command.wait(60)
    words = destination.words()
    tap.ok("this function cannot take the place of the source's: device ID "
           'is 0x11e8 here and 0x444d there' in words,
           'one of another type is refused', words)
    tap.ok(all(event['event'] != 'RESUME' for event in
               destination.qmp.events), 'the guest has not run there')
    survival.wait_restored(tap, source, device)
    survival.check_memory(tap, source, device)
    survival.move_after_all(test_bed, tap, source, traffic, device)


TESTS = (what_a_function_cannot_do_is_refused, wrong_functions_are_refused)
