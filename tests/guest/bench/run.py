#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What the guest's part costs: writes build/bench/guest.json.

    run.py [--kernel RELEASE] [PART...]

pairs    instructions of a map and an unmap, in a guest of each kernel, and of a
         synchronisation
native   nanoseconds of the table on this machine, memory per GiB
packets  packets of igbvf per instruction, with the module and without

Floors are measured in the same run as what stands on them. All figures are
medians of at least five, the pair by two threads is the best of more than ten.
A figure that is above what it must be is told, and is no failure: this is no
test, and a busy machine is slower.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for room in ('lib', os.path.join('host', 'emulated')):
    sys.path.insert(0, os.path.join(HERE, '..', '..', room))

# pylint: disable=wrong-import-position
import guest   # noqa: E402
import images  # noqa: E402
import paths   # noqa: E402

OUT = os.path.join(paths.BUILD, 'bench')
UNIT = os.path.join(HERE, '..', 'unit')
MODULE = os.path.join(paths.ROOT, 'guest', 'kernel', 'dma-track')

# What is counted when. What a device was once told to do, it does to the end.
STEPS = [('insn', 'base'), ('sync', 'base'),
         ('insn', 'untracked'), ('sync', 'untracked'),
         ('insn', 'tracked'), ('insn', 'logging'),
         ('sync', 'unasked'), ('sync', 'tracked'), ('sync', 'logging')]
ROOMS = {'dma_track': 'guest/kernel/dma-track',
         'dma_bench': 'tests/guest/bench'}
# One instruction is one nanosecond of the guest's time.
ICOUNT = ['-icount', 'shift=0,sleep=off']

HOST = ['-device', 'virtio-dma-track-pci,addr=6']
IGB = ['-netdev', 'user,id=n0', '-device',
       'igb,bus=rp1,netdev=n0,x-untracked-dma=on']
ADDRESS = '10.9.0.10'
PACKETS = 2048
RUNS = 7


def say(text):
    print('bench-guest: ' + text, flush=True)


def judge(what, value, most):
    say(f'{what}: {value:.4g}, must be at most {most}'
        f'{"" if value <= most else ": MISSED"}')


# --- Instructions of a pair -------------------------------------------------

def pairs(kernel, directory):
    built = {name + '.ko': path
             for name, path in images.modules(kernel, ROOMS).items()}
    result = {}
    with guest.Guest(directory, 'pairs', ICOUNT, [], programs=built,
                     kernel=kernel) as machine:
        for what, state in STEPS:
            if (what, state) == ('insn', 'untracked'):
                machine.agent.run('insmod /bin/dma_track.ko', 120)
            result[f'{what}_{state}'] = instructions(machine, what, state)
    for state, most in (('untracked', 30), ('tracked', 110),
                        ('logging', 150)):
        judge(f'{kernel.release}: instructions added, {state}',
              result['insn_' + state] - result['insn_base'], most)
    return result


def instructions(machine, what, state):
    """The median, of a pair or a synchronisation."""
    syncs = int(what == 'sync')
    log = machine.agent.run(
        'dmesg -c > /dev/null; '
        f'insmod /bin/dma_bench.ko state={state} syncs={syncs} && '
        'rmmod dma_bench && dmesg | sed -n "s/.*dma_bench: //p"', 120)
    runs = [int(line.split()[1]) / 1000 for line in log.splitlines()
            if line.split()[0] == state]
    if len(runs) < 5:
        sys.exit(f'{machine.kernel.release} {state}: {log}')
    return round(statistics.median(runs), 2)


# --- Nanoseconds and bytes --------------------------------------------------

def native():
    program = os.path.join(OUT, 'native')
    subprocess.run(
        ['gcc', '-std=gnu11', '-O2', '-Wall', '-Wno-unused-parameter',
         '-pthread', '-fno-strict-aliasing', '-DSHIM_UNDISTURBED',
         '-I' + os.path.join(UNIT, 'include'), '-I' + MODULE, '-o', program,
         os.path.join(HERE, 'native.c'), os.path.join(MODULE, 'table.c')],
        check=True)
    printed = subprocess.run([program], check=True, stdout=subprocess.PIPE,
                             text=True).stdout
    found = {name: float(value) for name, value in
             (line.split('=') for line in printed.splitlines())}
    judge('a pair beside two locked operations',
          found['pair'] / found['floor_pair'], 1.35)
    judge('a pair by each of two threads beside that by one',
          found['pair_2t'] / found['pair'], 1.2)
    judge('dirtying beside a compare and exchange',
          found['dirty'] / found['dirty_floor'], 1.1)
    memory = {name: int(found[name])
              for name in ('published_per_gib', 'private_per_gib')}
    judge('bytes published per GiB', memory['published_per_gib'], 64 << 10)
    judge('bytes private per GiB', memory['private_per_gib'], 320 << 10)
    return {name + '_ns': found[name] for name in
            ('floor_pair', 'pair', 'pair_2t', 'dirty_floor', 'dirty')}, memory


# --- Packets ----------------------------------------------------------------

FIND = r'''
for dev in /sys/class/net/*; do
    driver=$(readlink $dev/device/driver)
    case ${driver##*/} in
    igb) ip link set ${dev##*/} up ;;
    igbvf) ip link set ${dev##*/} up; echo ${dev##*/} \
               $(cat $dev/carrier 2> /dev/null) ;;
    esac
done
'''


def ready_interfaces(machine):
    lines = [line.split() for line in machine.agent.run(FIND).splitlines()]
    names = [words[0] for words in lines if words[1:] == ['1']]
    return names if len(names) == 2 else None


def instructions_per_packet(directory, name, modules):
    """Medians, between two virtual functions of one guest."""
    with guest.Guest(directory, name, ICOUNT + HOST + IGB, modules,
                     programs={'packets': images.program('packets')}
                     ) as machine:
        machine.agent.run(
            'cd /sys/bus/pci/drivers/igb/0000:* && echo 2 > sriov_numvfs')
        sender, receiver = guest.wait_until(
            lambda: ready_interfaces(machine), 'two interfaces', 120)
        machine.agent.run(f'ip addr add {ADDRESS}/24 dev {receiver}')
        before = counted_maps(machine) if 'dma_track' in modules else 0
        printed = machine.agent.run(
            f'packets {sender} {receiver} {ADDRESS} {PACKETS} {RUNS}', 600)
        if 'dma_track' in modules and \
                counted_maps(machine) - before < RUNS * PACKETS:
            sys.exit('the virtual functions were not counted')
        runs = [int(words[3]) / int(words[1]) for words in
                (line.split() for line in printed.splitlines())]
        say(f'{name}: instructions per packet: '
            f'{" ".join(f"{run:.0f}" for run in runs)}')
        return statistics.median(runs)


def counted_maps(machine):
    return int(machine.agent.run(
        'sed -n "s/^maps: //p" /sys/kernel/debug/dma_track/status'))


def packets(directory):
    drivers = ['igbvf', 'igb']
    without = instructions_per_packet(directory, 'module-off', drivers)
    with_it = instructions_per_packet(directory, 'module-on',
                                      ['dma_track'] + drivers)
    ratio = without / with_it
    say(f'packets per instruction, module on beside off: {ratio:.4f}, '
        f'must be at least 0.98{"" if ratio >= 0.98 else ": MISSED"}')
    return round(ratio, 4)


PARTS = ('pairs', 'native', 'packets')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kernel', help='only this one of kernels.txt')
    parser.add_argument('parts', nargs='*', metavar='PART')
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f'no such part: {" ".join(sorted(unknown))}')
    parts = arguments.parts or PARTS

    os.makedirs(OUT, exist_ok=True)
    directory = paths.scratch('bench')
    result = {}
    if 'native' in parts:
        result['native'], result['memory'] = native()
    if 'pairs' in parts:
        result['kernels'] = {}
        for pinned, _ in paths.kernels():
            if arguments.kernel in (None, pinned):
                kernel = paths.Kernel(pinned)
                result['kernels'][kernel.release] = pairs(kernel, directory)
    if 'packets' in parts:
        result['packets_ratio'] = packets(directory)

    path = os.path.join(OUT, 'guest.json')
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(result, file, indent=2)
        file.write('\n')
    say(f'written to {os.path.relpath(path)}')


if __name__ == '__main__':
    paths.run(main)
