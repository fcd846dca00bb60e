# SPDX-License-Identifier: GPL-2.0-only
"""The oracle itself: its device does as hardware does, its judge errs not.

No migration. Everything else that uses the oracle rests on these facts.
"""

import os
import re

import guest
import oracle
import paths

# Offset of COMMAND, and of Device Status in the device's PCIe capability.
CLEAR_MASTER = r'''
dev=$(ls -d /sys/bus/pci/drivers/dma_oracle/0000:*)
printf '\002\000' | dd of=$dev/config bs=1 seek=4 conv=notrunc 2>/dev/null
'''
IS_PENDING = r'''
dev=$(ls -d /sys/bus/pci/drivers/dma_oracle/0000:*)
sta=$(dd if=$dev/config bs=1 skip=138 count=1 2>/dev/null | od -An -tu1)
echo $((sta >> 5 & 1))
'''


HEADER = 'host/qemu-patch/files/include/hw/misc/dma_test_abi.h'
# Names of the judge's numbers, and of the header's.
NUMBERS = {name: 'LOG_' + name for name in (
    'STAMP', 'COUNTER', 'COMPLETION', 'MARKER', 'MASTER_OFF', 'MASTER_ON',
    'RESET', 'ENABLE', 'DISABLE', 'FAULT', 'NOTE')}
for note in ('NOTE_FRESH', 'NOTE_DEAF'):
    NUMBERS[note] = note


def everybody_reads_the_same(tap, _directory):
    """The judge agrees with the device and its driver about the log."""
    with open(os.path.join(paths.ROOT, HEADER), encoding='ascii') as file:
        numbers = dict(re.findall(r'#define DMA_TEST_(\w+)\s+(\w+)',
                                  file.read()))
    wrong = [name for name, other in NUMBERS.items()
             if getattr(oracle, name) != int(numbers[other], 0)]
    tap.equal(wrong, [], 'the judge has the numbers of the header')
    kinds = [int(numbers['KIND_' + kind.upper()], 0)
             for kind in oracle.KINDS]
    tap.equal(kinds, [1, 2, 3, 4], 'the kinds of page have their numbers')
    tap.equal(oracle.RECORD.size, int(numbers['LOG_RECORD_SIZE'], 0),
              'a record has the size that the header says')


def flipped(read, victim):
    """Memory in which one bit of one page is wrong."""
    def read_flipped(gpa):
        data = bytearray(read(gpa))
        if gpa == victim:
            data[1234] ^= 1
        return bytes(data)
    return read_flipped


def without_last(log, page):
    """A log that does not know the last write to a page."""
    last = max(record.seq for record in log.writes()
               if record.addr // oracle.PAGE == page.iova // oracle.PAGE)
    log.records = [record for record in log.records if record.seq != last]
    return log


def all_of(result, kind, pages):
    """Every page of the kind was judged, and exposed."""
    count = sum(page.kind == kind for page in pages)
    return count and result.kinds[kind]['pages'] == count == \
        result.kinds[kind]['exposed']


def stamps_are_in_memory(tap, machine):
    machine.order('prepare')
    machine.order('selftest')
    machine.mark(oracle.MARK_EXPOSED)
    machine.order('stamp', 120)
    pages = machine.pages()
    read = machine.memory()
    result = oracle.check(machine.log(), pages, read)
    tap.ok(result.ok, 'every byte is as the log says',
           '\n'.join(result.lines))
    for kind in ('unmapped', 'mapped'):
        tap.ok(all_of(result, kind, pages),
               f'all {kind} pages were judged', '\n'.join(result.lines))

    victim = next(page for page in pages if page.kind == 'mapped')
    result = oracle.check(machine.log(), pages, flipped(read, victim.gpa))
    tap.equal(result.kinds['mapped']['lost'], 1,
              'one wrong bit is one lost page')
    result = oracle.check(without_last(machine.log(), victim), pages, read)
    tap.ok(not result.ok, 'a write that the log does not know is seen')
    result = oracle.check(machine.log(), pages,
                          lambda gpa: bytes(oracle.PAGE))
    tap.equal(result.kinds['unmapped']['lost'],
              result.kinds['unmapped']['pages'],
              'memory that never got a write is all lost')


def loss_of_bus_master(tap, machine):
    """While a stream is going: what is issued lands, nothing else does."""
    machine.order('stream')
    guest.wait_until(lambda: machine.qmp.command(
        'qom-get', path='/machine/peripheral/oracle',
        property='issued') >= 32, '32 transfers on their way')
    tap.equal(machine.agent.run(IS_PENDING).strip(), '1',
              'transactions are pending while transfers are issued')
    machine.mark(oracle.MARK_EXPOSED)
    # Once round the completion ring, so that each of its pages is exposed.
    begin = int(machine.status()['completions'])
    guest.wait_until(
        lambda: int(machine.status()['completions']) > begin + 1100,
        'a round of completions')
    machine.agent.run(CLEAR_MASTER)
    guest.wait_until(lambda: machine.agent.run(IS_PENDING).strip() == '0',
                     'no pending transactions')
    pages = machine.pages()
    result = oracle.check(machine.log(), pages, machine.memory())
    inflight = result.kinds['inflight']
    tap.ok(inflight['pages'] >= 32,
           'at least 32 transfers landed after bus mastering was off',
           '\n'.join(result.lines))
    tap.ok(all_of(result, 'ring', pages), 'all ring pages were judged',
           '\n'.join(result.lines))
    tap.ok(result.ok, 'what landed is in memory, and nothing was issued later',
           '\n'.join(result.lines))
    off = machine.log().quiesce(machine.log().marker(1).seq)
    tap.ok(off.type == oracle.MASTER_OFF and off.seed > 0,
           'queued transfers died')
    late = [record for record in machine.log().writes()
            if record.time > off.time]
    tap.ok(all(record.type == oracle.STAMP for record in late),
           'no completion and no counter is written without bus mastering')
    # 50 ms, and as much again for each of many that wait for a slow machine.
    tap.ok(max(record.time for record in late) - off.time < 500e6,
           'the last one landed soon')


def reset(tap, machine):
    """A reset through the kernel: the driver comes back with fresh rings."""
    read = machine.memory()
    machine.agent.run(
        'cd /sys/bus/pci/drivers/dma_oracle/0000:* && echo 1 > reset')
    status = machine.status()
    tap.ok(status['restores'] == '1' and status['state'] == 'ready',
           'the driver is restored after a function level reset', status)
    after = machine.memory()
    frames = [page.gpa for page in machine.pages()]
    tap.ok(all(read(gpa) == after(gpa) for gpa in frames),
           'a restore leaves all frames as they are')
    machine.order('selftest')
    tap.ok(int(machine.status()['selftests']) >= 3, 'self-tests pass')


def run(tap, directory):
    tap.run(everybody_reads_the_same, tap, directory)
    log = os.path.relpath(os.path.join(directory, 'judge.dma'))
    devices = ['-device', f'dma-test,id=oracle,bus=rp1,log={log}']
    with guest.Guest(directory, 'judge', devices, ['dma_oracle']) as machine:
        for test in (stamps_are_in_memory, loss_of_bus_master, reset):
            tap.run(test, tap, machine)
        machine.report_trouble(tap)
