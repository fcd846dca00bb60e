#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Break one of the table's rules on purpose.

    mutate.py --list            names, and the rule that each breaks
    mutate.py MUTANT SOURCE TARGET

Copies the table's files from SOURCE to TARGET and changes one of them. Each
change replaces a text that must be there exactly once: a mutant that no longer
applies is an error, not a mutant that was caught.
"""

import pathlib
import shutil
import sys

FILES = ('table.c', 'table.h', 'table_frame.h', 'dirty.h')

SHORT_CLEAR = (
    '	__clear_bit_le(i, section->planes[DMA_TRACK_STREAMING]);\n'
    'out_still_mapped:\n'
    '	dma_track_unlock(&section->lock[word]);\n')
LONG_CLEAR = (
    '	smp_store_release(bits, cpu_to_le64(new));\n'
    '	unlock_word(u->section, u->word);\n')
LONG_SET = (
    '	WRITE_ONCE(*bits, cpu_to_le64(old | frames));\n'
    '\n'
    '	/* In the lock, for dma_track_table_connect(). */\n'
    '	covered = dma_track_is_covered(table, section);\n'
    '	unlock_word(section, word);\n')

# Name: (rule that it breaks, file, what is there, what is put in its place).
MUTANTS = {
    'short-clear-before-dirty': (
        'P2',
        'table_frame.h',
        '	if (unlikely(data_race(table->logging))) {\n',
        '	__clear_bit_le(i, section->planes[DMA_TRACK_STREAMING]);\n'
        '	if (unlikely(data_race(table->logging))) {\n'),
    'short-clear-outside-the-exclusion': (
        'P1',
        'table_frame.h', SHORT_CLEAR,
        '	dma_track_unlock(&section->lock[word]);\n'
        '	__clear_bit_le(i, section->planes[DMA_TRACK_STREAMING]);\n'
        'out_still_mapped:\n'
        '	dma_track_unlock(&section->lock[word]);\n'),
    'short-no-dirtying': (
        'P2',
        'table_frame.h',
        '	if (unlikely(data_race(table->logging))) {\n',
        '	if (0) {\n'),
    'short-clear-with-the-first-unmap': (
        'P1',
        'table_frame.h',
        '			goto out_still_mapped;\n',
        '		{\n'
        '			__clear_bit_le(i, section->planes[0]);\n'
        '			goto out_still_mapped;\n'
        '		}\n'),
    'short-set-with-the-second-map': (
        'P1',
        'table_frame.h',
        '	__set_bit_le(i, section->planes[DMA_TRACK_STREAMING]);\n',
        '	if (section->counts[i] > 1)\n'
        '		__set_bit_le(i, section->planes[DMA_TRACK_STREAMING]);\n'),
    'clear-before-dirty': (
        'P2',
        'table.c',
        '		if (likely(hand_over(u, bit))) {\n'
        '			*count = 0;\n',
        '		u->section->planes[0][u->word] &=\n'
        '			~cpu_to_le64(BIT_ULL(bit));\n'
        '		if (likely(hand_over(u, bit))) {\n'
        '			*count = 0;\n'),
    'clear-outside-the-exclusion': (
        'P1',
        'table.c', LONG_CLEAR,
        '	unlock_word(u->section, u->word);\n'
        '	smp_store_release(bits, cpu_to_le64(new));\n'),
    'set-outside-the-exclusion': (
        'P1',
        'table.c', LONG_SET,
        '	covered = dma_track_is_covered(table, section);\n'
        '	unlock_word(section, word);\n'
        '	WRITE_ONCE(*bits, cpu_to_le64(old | frames));\n'),
    'no-dirtying': (
        'P2',
        'table.c', '	if (!u->logging)\n', '	if (1)\n'),
    'gate-read-by-the-unpin-before': (
        'P2',
        'table.c', '	u->logging = READ_ONCE(table->logging);\n',
        '	static bool before;\n\n'
        '	u->logging = before;\n'
        '	before = READ_ONCE(table->logging);\n'),
    'clear-what-cannot-be-dirtied': (
        'P2',
        'table.c',
        '		u->stats.undirtied++;\n'
        '		return false;\n',
        '		u->stats.undirtied++;\n'
        '		return true;\n'),
}


def main():
    if '--help' in sys.argv:
        print(__doc__.strip())
        return
    if sys.argv[1:] == ['--list']:
        for name, (rule, *_) in MUTANTS.items():
            print(name, rule)
        return
    name, source, target = sys.argv[1:]
    _, file, old, new = MUTANTS[name]
    source, target = pathlib.Path(source), pathlib.Path(target)
    target.mkdir(parents=True, exist_ok=True)
    for each in FILES:
        shutil.copy(source / each, target)
    text = (source / file).read_text(encoding='utf-8')
    if text.count(old) != 1:
        sys.exit(f'mutant {name}: {file} has its text {text.count(old)} times')
    (target / file).write_text(text.replace(old, new), encoding='utf-8')


if __name__ == '__main__':
    main()
