#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Every message of host and guest, as an operator sees it.

    messages.py           list what the code can say, with where it says it
    messages.py --check   compare that with Documentation/operating.rst
    messages.py --check --without LINE      as if the guide lacked that line

A value that is filled in stands as '…'. In the guide a message is a line that
begins with a bar, in double backquotes. Fails if one is missing on either side.
"""

import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
GUEST = 'guest/kernel/dma-track'
HOST = ('host/qemu-patch/files/hw/vfio', 'host/qemu-patch/files/hw/virtio',
        'host/qemu-patch/files/migration', 'host/qemu-patch/patches')
GUIDE = 'Documentation/operating.rst'

# What prints, or returns, a text for people: name, and how many arguments come
# before it.
CALLS = {'pr_err': 0, 'pr_warn': 0, 'pr_warn_ratelimited': 0, 'pr_info': 0,
         'dev_err': 1, 'dev_warn': 1, 'dev_info': 1,
         'pci_err': 1, 'pci_warn': 1, 'pci_info': 1,
         'error_setg': 1, 'error_setg_errno': 2, 'error_prepend': 1,
         'error_report': 0, 'warn_report': 0, 'virtio_error': 1,
         'g_strdup': 0, 'g_strdup_printf': 0}
# Functions of the host that return a part of a message.
PARTS = {'virtio_dma_track_reason', 'virtio_dma_track_lost',
         'dma_track_unsupported'}

STRING = r'"(?:[^"\\]|\\.)*"'


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def sources(*rooms):
    """Path and text; of a patch what it adds."""
    for room in rooms:
        for folder, _, names in sorted(os.walk(os.path.join(ROOT, room))):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if name.endswith('.c'):
                    yield os.path.relpath(path, ROOT), read(path)
                elif name.endswith('.patch'):
                    yield (os.path.relpath(path, ROOT),
                           '\n'.join(line[1:] if line[:1] == '+' else ''
                                     for line in read(path).split('\n')))


def arguments(text, start):
    """The arguments of a call, whose parenthesis opens before start."""
    found, depth, at, begin = [], 0, start, start
    while at < len(text):
        literal = re.compile(STRING).match(text, at)
        if literal:
            at = literal.end()
            continue
        if text[at] in '([{':
            depth += 1
        elif text[at] in ')]}':
            if not depth:
                return found + [text[begin:at]]
            depth -= 1
        elif text[at] == ',' and not depth:
            found.append(text[begin:at])
            begin = at + 1
        at += 1
    return found


def sentence(argument):
    """What a format says, or None if it is none."""
    parts = re.findall(STRING + r'|\w+', argument)
    if not parts or not parts[0].startswith('"'):
        return None
    # A macro in between, PRIu32 and the like, ends a conversion.
    text = ''.join(part[1:-1] if part.startswith('"') else 'd'
                   for part in parts if part.startswith(('"', 'PRI')))
    text = re.sub(r'%[-+ #0*]*[\d.*]*(?:ph|[hlzq]*[diouxXcsp])?', '…', text)
    text = text.replace('\\n', '').replace('\\"', '"').strip()
    return re.sub(r'\s+', ' ', text)


def messages():
    """Message: where the code says it."""
    found = {}
    for path, text in sources(GUEST, *HOST):
        for call in re.finditer(r'\b(' + '|'.join(CALLS) + r')\(', text):
            given = arguments(text, call.end())
            if len(given) <= CALLS[call[1]]:
                continue
            said = sentence(given[CALLS[call[1]]].strip())
            if said and ' ' in re.sub('[^a-z ]', '', said).strip():
                found.setdefault(said, path)
        for function in PARTS:
            body = re.search(r'\n(?:static )?[^\n;]*\b' + function
                             + r'\([^;{]*\)\n\{(.*?)\n\}', text, re.S)
            for said in re.findall(rf'return ((?:{STRING}\s*)+);',
                                   body[1] if body else ''):
                if ' ' in said:
                    found.setdefault(sentence(said), path)
    return found


def explained(without):
    """What the guide lists."""
    lines = read(os.path.join(ROOT, GUIDE)).split('\n')
    if without:
        del lines[without - 1]
    return [line[4:-2] for line in lines
            if line.startswith('| ``') and line.endswith('``')]


def main():
    if '--help' in sys.argv:
        print(__doc__.strip())
        return 0
    said = messages()
    if '--check' not in sys.argv:
        for text, path in said.items():
            print(f'{path}: {text}')
        return 0
    without = sys.argv[-2] == '--without' and int(sys.argv[-1])
    known = explained(without)
    faults = [f'not explained in {GUIDE}: {text} ({path})'
              for text, path in said.items() if text not in known]
    faults += [f'said by nobody: {text}' for text in known if text not in said]
    faults += [f'explained twice: {text}' for text in set(known)
               if known.count(text) > 1]
    print('\n'.join(sorted(faults)))
    return 1 if faults or len(said) < 50 else 0


if __name__ == '__main__':
    sys.exit(main())
