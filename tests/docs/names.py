#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What the documentation names is there.

In double backquotes: a function(), a path of the checkout, a make target, an
option of a device. And what is shown as shell is shell. Prints what is not.

    names.py [PAGE...]
"""

import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')


def read(path):
    with open(path, encoding='utf-8', errors='replace') as file:
        return file.read()


def tracked():
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split('\n') if name]


FILES = tracked()
CODE = '\n'.join(read(os.path.join(ROOT, name)) for name in FILES
                 if name.startswith(('guest/', 'host/', 'include/'))
                 and os.path.isfile(os.path.join(ROOT, name)))
SUITES = read(os.path.join(ROOT, 'tests', 'lib', 'suites.py'))
TOP = {name.split('/')[0] for name in FILES if '/' in name}


def faults_of(name):
    """Why what is named is not there, or None."""
    if re.fullmatch(r'\w+\(\)', name):
        # Functions of others, which ours call, are in our code as well.
        return not re.search(rf'\b{name[:-2]}\b', CODE) and 'no such function'
    if name.split('/')[0] in TOP and '/' in name and ' ' not in name:
        path = name.rstrip('/')
        return not any(file == path or file.startswith(path + '/')
                       for file in FILES) and 'no such file'
    found = re.match(r'make (?:-C (\S+) )?([\w-]+)(?: SUITE=([\w,]+))?',
                     name)
    if found:
        makefile = read(os.path.join(ROOT, found[1] or '', 'Makefile'))
        if not re.search(rf'^{found[2]}:', makefile, re.M):
            return 'no such target'
        return not all(f"'{suite}': (" in SUITES or suite in ('a', 'b')
                       for suite in (found[3] or '').split(',') if suite) \
            and 'no such suite'
    found = re.fullmatch(r'((?:x-)?[a-z]+(?:-[a-z]+)+)=\w*', name)
    if found:
        return f'"{found[1]}"' not in CODE and 'no such option'
    return None


def shell_faults(text):
    for block in re.findall(
            r'\.\. code-block:: sh\n\n((?:[ ]+\S.*\n|\n)+)', text):
        checked = subprocess.run(['bash', '-n'], input=block, text=True,
                                 capture_output=True, check=False)
        if checked.returncode:
            yield checked.stderr.strip()


def main():
    if '--help' in sys.argv:
        print(__doc__.strip())
        return 0
    pages = sys.argv[1:] or [name for name in FILES
                             if name.startswith('Documentation/')
                             and name.endswith('.rst')]
    faults, seen = [], 0
    for page in pages:
        text = read(os.path.join(ROOT, page))
        for name in re.findall(r'``([^`]+)``', text):
            name = ' '.join(name.split())
            why = faults_of(name)
            seen += why is not None
            if why:
                faults.append(f'{page}: {name}: {why}')
        faults += [f'{page}: {fault}' for fault in shell_faults(text)]
    print('\n'.join(faults))
    return 1 if faults or not seen else 0


if __name__ == '__main__':
    sys.exit(main())
