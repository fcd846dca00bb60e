# SPDX-License-Identifier: GPL-2.0-only
"""A host whose kernel hides a function's ring-flush capability.

Linux 6.1 leaves it out of the chain of capabilities. The function counts as one
without then, the guest finds the emulated one, and it moves all the same.
"""

import capability
import moves
import vm

# What is left, in the order in which it is tried.
METHODS = ['busmaster', 'iommu', 'reset']


def ring_flush_is_not_there(test_bed, tap):
    hidden = test_bed.l1.run('uname -r')
    source = test_bed.guest('a').launch()
    functions = source.qmp.command('query-dma-track')['functions']
    tap.equal({one['id']: one['quiesce'] for one in functions},
              {'vf0': METHODS, 'oracle0': METHODS},
              f'{hidden.strip()}: no function has ring flush')
    source.wait_booted()
    found, registers = capability.Capability(source).registers()
    tap.equal((found, registers[0]),
              ((capability.VENDOR, capability.REVISION, capability.LENGTH,
                capability.IDENTIFIER), 0),
              'the guest finds a capability, without flush')
    source.stop()
    try:
        test_bed.guest('a', function_options='dma-quiesce=flush').launch()
        said = ''
    except vm.Gone as error:
        said = str(error)
    tap.ok('dma-quiesce=flush: the function has no ring-flush capability'
           in said, 'who insists on it is told', said)


def it_moves(test_bed, tap):
    moves.tracked_nothing_is_lost(test_bed, tap)


TESTS = (ring_flush_is_not_there, it_moves)
