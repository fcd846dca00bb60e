#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Does a test demand each text with which the host refuses something?

    asserted.py [--list] [--without FILE]

A string of a test stands for the message with which it has most in common, if
it is hardly more than a piece of that, or has all of a piece. Prints the
messages for which none stands, and fails if those are not the ones known below.
--list tells which string it is; --without does as if that test were not there.
"""

import argparse
import ast
import difflib
import os
import re
import sys

import messages

ROOMS = ('tests/host', 'tests/conformance')
# They name pieces of the source, not what it says.
NOT_TESTS = ('mutants.py',)
# Shorter pieces can stand in any string by chance.
SHORTEST = 14
# How much of a string must be the message's.
MOST = 0.7

# The host's kernel or hardware would have to fail in a way in which no device
# of ours does.
BROKEN = 'hardware or a kernel that fails'
# Two threads would have to meet between two lines.
RACE = 'a race that no test can win for sure'
# The stream of an assigned function, which only the nested bed has.
STREAM = 'a stream of an assigned function that somebody has changed'
ONLY_NATIVE = 'hardware that the kernel can migrate'
# No test of ours can bring about these, or asks for them.
KNOWN = {
    '…: failed to read config space at 0x…: …': BROKEN,
    '…: failed to write config space at 0x…: …': BROKEN,
    '…: bus master is on … (command 0x…)': BROKEN,
    '…: reset not finished in time': BROKEN,
    '…: reset failed': BROKEN,
    '…: failed to save config space:': BROKEN,
    '…: failed to load config space': BROKEN,
    '…: failed to unmap all memory': BROKEN,
    'failed to query migration flags': BROKEN,
    'VFIO_MIGRATION_STOP_COPY is not supported': ONLY_NATIVE,
    '…: migration is left to the guest by dma-tracked-by=guest': ONLY_NATIVE,
    '… shares its IOMMU group with … other devices':
        'two functions in a group, where the bed has one',
    'the IOMMU back end cannot do that': 'a back end of other machines',
    '…: the function was not quiesced': 'an error of ours',
    'the VM runs, so its functions cannot be quiesced': 'an error of ours',
    'there is no virtio-dma-track device': 'an error of ours',
    '…: unknown kind of state 0x…': STREAM,
    '…: state does not end where it should': STREAM,
    '…: display state for a device without a display': STREAM,
    '…: the function is …': RACE,
    'the guest has given up …': RACE,
    '…: the guest has no driver for it': RACE,
    'the VM was stopped and continued before the guest could log what its '
    'devices write': RACE,
}


def strings(path):
    """All strings of a program; what is filled in stands as '…'."""
    for node in ast.walk(ast.parse(messages.read(path))):
        if isinstance(node, ast.JoinedStr):
            yield ''.join(str(part.value) if isinstance(part, ast.Constant)
                          else '…' for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def pieces(text):
    """What stands between values, or what a regular expression leaves open."""
    text = text.replace('\\', '')
    for piece in re.split(r'…|\.[*+]|%[-#\d]*[a-z]', text):
        piece = re.sub(r'\s+', ' ', piece).strip(' :;,"\'')
        if len(piece) >= 10 and ' ' in piece:
            yield piece


def demanded(without):
    """Pieces of strings of all tests: {piece: file}."""
    found = {}
    for room in ROOMS:
        for folder, _, names in os.walk(os.path.join(messages.ROOT, room)):
            for name in sorted(set(names) - set(NOT_TESTS) - {without}):
                if name.endswith('.py'):
                    for string in strings(os.path.join(folder, name)):
                        for piece in pieces(string):
                            found.setdefault(piece, name)
    return found


def alike(piece, text):
    """How much they have in common, 0 if that is not enough."""
    match = difflib.SequenceMatcher(None, piece, text, False)\
        .find_longest_match(0, len(piece), 0, len(text))
    same = piece[match.a:match.a + match.size]
    if ' ' in same.strip() and (
            match.size >= max(SHORTEST, MOST * len(piece)) or
            any(own in same for own in pieces(text))):
        return match.size
    return 0


def stands_for(piece, said):
    """The message for which a piece stands, or None."""
    best = max((alike(piece, text), -len(text), text) for text in said)
    return best[2] if best[0] else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--without', metavar='FILE')
    options = parser.parse_args()
    said = [text for text, path in messages.messages().items()
            if path.startswith('host/')]
    seen = {}
    for piece, name in demanded(options.without).items():
        seen.setdefault(stands_for(piece, said), []).append((name, piece))
    faults = [f'no test demands: {text}' for text in said
              if text not in seen and text not in KNOWN]
    faults += [f'said by nobody: {text}' for text in KNOWN if text not in said]
    if options.list:
        for text in said:
            print(f'{text}\n    {seen.get(text) or KNOWN.get(text)}')
    print('\n'.join(faults))
    return 1 if faults or len(said) < 50 else 0


if __name__ == '__main__':
    sys.exit(main())
