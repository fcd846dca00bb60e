# SPDX-License-Identifier: GPL-2.0-only
"""Functions that cannot be what the command line says, and say so."""

import load
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


TESTS = (what_a_function_cannot_do_is_refused,)
