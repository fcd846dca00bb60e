# SPDX-License-Identifier: GPL-2.0-only
"""The capability of pci_dma_quiesce.h, as a guest finds it."""

import base64
import struct

import bed
import load
import scenario

DVSEC = 0x23
VENDOR, IDENTIFIER, REVISION, LENGTH = 0x1b36, 0x4451, 1, 0x14
CONTROL, STATUS, GENERATION = 0x0c, 0x0e, 0x10
RUNNING, QUIESCED = 0, 2
FIND = ('cd /sys/bus/pci/devices; for d in *; do case '
        '$(readlink $d/driver) in */dma_oracle) echo $d;; esac; done')


class Capability:
    """Of the test device in one guest."""

    def __init__(self, guest, address=None):
        self.guest = guest
        self.address = address or guest.run(FIND).strip()
        self.file = f'/sys/bus/pci/devices/{self.address}/config'
        self.offset = self._find()

    def config(self):
        """The function's configuration space."""
        return base64.b64decode(self.guest.run(f'base64 < {self.file}'))

    def _find(self):
        config, at, chain = self.config(), 0x100, []
        while at:
            header, = struct.unpack_from('<I', config, at)
            vendor, = struct.unpack_from('<H', config, at + 4)
            if header & 0xffff == DVSEC and vendor == VENDOR:
                return at
            chain.append(f'{at:#x}: {header:#x} {vendor:#x}')
            at = header >> 20
        raise AssertionError(f'{self.address} has no such capability: {chain}')

    def registers(self):
        """Identification; CAP, CONTROL, STATUS, GENERATION."""
        config = self.config()
        vendor, revision, identifier = struct.unpack_from(
            '<HHH', config, self.offset + 4)
        return ((vendor, revision & 0xf, revision >> 4, identifier),
                struct.unpack_from('<HHHI', config, self.offset + 0xa))

    def write(self, register, data):
        """As a guest may that thinks nothing of it."""
        octal = ''.join(f'\\{byte:03o}' for byte in data)
        self.guest.run(f"printf '{octal}' | dd of={self.file} bs=1 "
                       f'seek={self.offset + register} conv=notrunc '
                       '2> /dev/null')


def _migrate(source, destination, progress):
    migration = bed.Move(source, destination, progress)
    migration.start(downtime_ms=2000)
    if migration.finish() != 'completed':
        raise AssertionError(f'not migrated: {migration.info}')
    migration.follow_guest()


def it_tells_of_a_move(test_bed, tap):
    source, destination = scenario.start_pair(
        test_bed, tap.progress, functions=('oracle',),
        modules='dma_track,dma_oracle')
    load.wait_tracked(source)
    capability = Capability(source)
    found, before = capability.registers()
    tap.equal(found, (VENDOR, REVISION, LENGTH, IDENTIFIER),
              'a function has the capability, by vendor, identifier, '
              'revision and length')
    tap.equal(before[1:3], (0, RUNNING), 'and is RUNNING')
    capability.write(CONTROL, b'\1\0')
    capability.write(STATUS, b'\2\0')
    capability.write(GENERATION, b'\xff\xff\xff\xff')
    tap.equal(capability.registers(), (found, before),
              'what the guest writes to the capability is ignored')
    # But by the hardware below, which keeps what is written there, and where
    # the next guest would find no room for a capability.
    capability.write(CONTROL, bytes(LENGTH - CONTROL))
    _migrate(source, destination, tap.progress)
    bed.wait_until(lambda: scenario.all_restored(destination),
                   'the driver restored')
    after = Capability(destination, capability.address).registers()[1]
    tap.equal(after[3], before[3] + 1, 'a move increases the generation')
    tap.equal(after[2], RUNNING, 'a function that is restored is RUNNING')


def it_is_quiesced_behind_a_fence(test_bed, tap):
    """Nobody in this guest asks for the fence to be lifted."""
    source, destination = scenario.start_pair(
        test_bed, tap.progress, functions=('oracle',), modules='dma_oracle',
        provider=None, tracked_by='external')
    capability = Capability(source)
    _migrate(source, destination, tap.progress)
    there = Capability(destination, capability.address)
    tap.equal(there.registers()[1][2], QUIESCED,
              'a function is QUIESCED while it is fenced')
    fenced = load.tracking(destination)['functions'][0]['fenced']
    tap.equal(fenced, True, 'as query-dma-track says')


TESTS = (it_is_quiesced_behind_a_fence, it_tells_of_a_move)
