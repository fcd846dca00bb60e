#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite mutants: a test fails when the check that it names is disabled.

    mutants.py [--seed N] [--number N] [--all] [DT-DEV-N...]

Of the checks below, each of which stands for a requirement, twenty are chosen
by the seed. Each is disabled in a QEMU of its own; then at least one of the
tests that conformance runs for the requirement must fail. Prints TAP.
"""

import argparse
import os
import random
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'lib')]

# pylint: disable=wrong-import-position
import paths               # noqa: E402
import run as conformance  # noqa: E402
from tapwriter import Tap  # noqa: E402

DEVICE = 'hw/virtio/virtio-dma-track.c'
CORE = 'migration/dma-track.c'
RAM = 'migration/ram.c'

# Requirement, file of QEMU, what is there once, what is put in its place.
MUTANTS = (
    ('DT-DEV-2', CORE, 'if (dma_track.provider) {\n        error_setg',
     'if (0) {\n        error_setg'),
    ('DT-DEV-5', DEVICE, '    s->phase_seq++;\n    qemu_mutex_unlock',
     '    qemu_mutex_unlock'),
    ('DT-DEV-6', DEVICE, '    timer_mod(s->notify_timer,\n              qemu'
     '_clock_get_ms(QEMU_CLOCK_REALTIME) + s->notify_delay_ms);\n', ''),
    ('DT-DEV-7', DEVICE, 'if (!fn->has_capability && fn->pdev->enabled &&',
     'if (0 &&'),
    ('DT-DEV-9', DEVICE, 'return "the guest gives an unknown reason";',
     'return NULL;'),
    ('DT-DEV-10', DEVICE, 'error_setg(errp, "untracked: the guest does not '
     'know it; see its kernel "\n               "log");\n    return false;',
     'return true;'),
    ('DT-DEV-10', DEVICE, 'error_setg(errp, "untracked: the guest gives it '
     'the unknown state "', 'return true; error_setg(errp, "unknown state "'),
    ('DT-DEV-12', DEVICE, 'respond(s, elem, VIRTIO_DMA_TRACK_E_TYPE);',
     'respond(s, elem, VIRTIO_DMA_TRACK_OK);'),
    ('DT-DEV-13', DEVICE, 'if (head.reserved || !', 'if (!'),
    ('DT-DEV-13', DEVICE, 'return nr >= 1 && nr <= VIRTIO_DMA_TRACK_MAX_'
     'ENTRIES;', 'return nr <= VIRTIO_DMA_TRACK_MAX_ENTRIES;'),
    ('DT-DEV-14', DEVICE, 'if (size - head_size < payload_size) {', 'if (0) {'),
    ('DT-DEV-16', DEVICE, 'if (type != VIRTIO_DMA_TRACK_REQ_SETUP && '
     '!s->ready) {', 'if (0) {'),
    ('DT-DEV-17', DEVICE, 'if (!runstate_is_running() || vdev->broken) {',
     'if (vdev->broken) {'),
    ('DT-DEV-18', DEVICE, 'if (s->ready) {\n        return VIRTIO_DMA_TRACK_'
     'E_STATE;', 'if (0) {\n        return VIRTIO_DMA_TRACK_E_STATE;'),
    ('DT-DEV-18', DEVICE, 'if (!virtio_dma_track_page_aligned(page.gpa)) {',
     'if (0) {'),
    ('DT-DEV-19', DEVICE, 'virtio_dma_track_drop_unfences(s);\n    virtio_dma_'
     'track_forget_guest(s);\n\n    /* The next',
     'virtio_dma_track_drop_unfences(s);\n\n    /* The next'),
    ('DT-DEV-20', DEVICE, 'while (i-- > 0) {', 'while (0) {'),
    ('DT-DEV-21', DEVICE, 'if (virtio_dma_track_section(s, section) || '
     'streaming == coherent ||', 'if ('),
    ('DT-DEV-22', DEVICE, 'if (!virtio_dma_track_section_has_populated_ram(s, '
     'section)) {', 'if (0) {'),
    ('DT-DEV-23', DEVICE, 'if (payload->withdraw[j].section == payload->'
     'withdraw[i].section) {', 'if (0) {'),
    ('DT-DEV-24', DEVICE, 'if (dma_track_active()) {\n        return VIRTIO_'
     'DMA_TRACK_E_BUSY;', 'if (0) {\n        return VIRTIO_DMA_TRACK_E_BUSY;'),
    ('DT-DEV-25', DEVICE, 'if (payload->function.reserved || index >= VIRTIO_'
     'DMA_TRACK_MAX_FUNCTIONS) {',
     'index %= VIRTIO_DMA_TRACK_MAX_FUNCTIONS;\n'
     '    if (payload->function.reserved) {'),
    ('DT-DEV-26', DEVICE, '        virtio_dma_track_note_untracked(fn, guest.'
     'reason);\n    }\n    return VIRTIO_DMA_TRACK_OK;',
     '    }\n    return VIRTIO_DMA_TRACK_OK;'),
    ('DT-DEV-27', DEVICE, 'if (seq != s->phase_seq) {', 'if (0) {'),
    ('DT-DEV-28', DEVICE, 'if (alive_seq != s->alive_seq || reset_seq != '
     's->reset_seq) {', 'if (0) {'),
    ('DT-DEV-29', DEVICE, 'if (generation != fn->generation) {\n        virtio'
     '_dma_track_respond', 'if (0) {\n        virtio_dma_track_respond'),
    ('DT-DEV-31', DEVICE, 'if (generation != fn->generation) {\n        '
     'return', 'if (0) {\n        return'),
    ('DT-DEV-32', DEVICE, 'coh = le64_to_cpu(qatomic_read(&coherent[w]));',
     'coh = 0;'),
    ('DT-DEV-33', RAM, 'unsigned long dirty = rb->bmap[i] | '
     'rb->deferred_bmap[i];', 'unsigned long dirty = rb->bmap[i];'),
    ('DT-DEV-34', RAM, 'last_stage ? dirty | pinned[i]', 'last_stage ? dirty'),
    ('DT-DEV-36', DEVICE, 'if (left <= 0) {', 'if (0) {'),
    ('DT-DEV-37', CORE, 'ok = DMA_TRACK_PROVIDER_GET_CLASS(p)->echo(p, errp);',
     'ok = true;'),
    ('DT-DEV-38', CORE, 'if (dma_track.unheard) {', 'if (0) {'),
    ('DT-DEV-39', CORE, '    if (!DMA_TRACK_PROVIDER_GET_CLASS(p)->is_logging'
     '(p)) {\n        Error *err', '    if (0) {\n        Error *err'),
    ('DT-DEV-40', CORE, 'DMA_TRACK_PROVIDER_GET_CLASS(p)->stop(p);', ''),
    ('DT-DEV-41', CORE, 'error_setg(&err, "%s was unplugged during migration",'
     ' label);\n    dma_track_fail(err);', '(void)err;'),
    ('DT-DEV-42', CORE, 'reasons = dma_track_refusals();\n    if (!reasons) {',
     'if (1) {'),
    ('DT-DEV-43', CORE, 'if (!dma_track_check_veto(errp)) {', 'if (0) {'),
    ('DT-DEV-44', CORE, 'if (migrate_postcopy_ram()) {', 'if (0) {'),
    ('DT-DEV-45', DEVICE, 's->reset_seq++;\n    return true;',
     'return true;'),
    ('DT-DEV-46', DEVICE, 'if (section <= previous ||', 'if ('),
)


class Tree:
    """A QEMU of our own, built once; then a file at a time is changed."""

    def __init__(self, tap):
        cache = os.path.join(paths.CACHE, 'mutants')
        os.makedirs(cache, exist_ok=True)
        for name in ('pydeps', 'ccache', 'downloads'):
            link, shared = (os.path.join(cache, name),
                            os.path.join(paths.CACHE, name))
            if os.path.isdir(shared) and not os.path.lexists(link):
                os.symlink(shared, link)
        environment = dict(os.environ, DMA_TRACK_CACHE=cache)
        environment.pop('DMA_TRACK_QEMU', None)
        self.build = os.path.join(cache, 'qemu', 'build')
        self.source = os.path.join(cache, 'qemu', 'src')
        self.environment = dict(
            environment, CCACHE_DIR=os.path.join(cache, 'ccache'),
            PYTHONPATH=os.path.join(cache, 'pydeps/usr/lib/python3/'
                                           'dist-packages'))
        self.restore()
        tap.progress('QEMU')
        made = subprocess.run(
            [os.path.join(paths.ROOT, 'tests', 'lib', 'setup.sh'), 'backports',
             'qemu'], env=environment, capture_output=True, text=True,
            check=False)
        if made.returncode:
            raise paths.Missing(made.stdout + made.stderr)

    def restore(self):
        """Undo what is left of an interrupted run."""
        if os.path.isdir(os.path.join(self.source, '.git')):
            subprocess.run(['git', '-c', 'safe.directory=*', 'checkout', '-q',
                            '--', DEVICE, CORE, RAM], cwd=self.source,
                           check=True)

    def change(self, file, old, new):
        """Put new in the place of old, and build; return the emulator."""
        path = os.path.join(self.source, file)
        with open(path, encoding='utf-8') as source:
            text = source.read()
        if text.count(old) != 1:
            raise ValueError(f'{file} has {text.count(old)} times: {old}')
        with open(path, 'w', encoding='utf-8') as source:
            source.write(text.replace(old, new))
        made = subprocess.run(['ninja', '-j2', 'qemu-system-x86_64'],
                              cwd=self.build, env=self.environment,
                              capture_output=True, text=True, check=False)
        if made.returncode:
            raise ValueError(made.stdout[-3000:])
        return os.path.join(self.build, 'qemu-system-x86_64')


def kills(tap, tree, mutant, entries):
    """The tests of the requirement notice it."""
    number, file, old, new = mutant
    mine = [entry for entry in entries if entry['requirement'] == number
            and entry['suite'] == 'qtest']
    try:
        emulator = tree.change(file, old, new)
        found, _ = conformance.run_qtest({entry['test'] for entry in mine},
                                         emulator)
    finally:
        tree.restore()
    broken = [entry['test'] for entry in mine
              if not conformance.holds(entry, found)]
    what = ' '.join(old.split())
    tap.ok(broken, f'{number}: a test fails without: {what}',
           f'all hold: {[entry["test"] for entry in mine]}')
    if broken:
        tap.note(f'{number}: {", ".join(sorted(set(broken)))}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--number', type=int, default=20)
    parser.add_argument('--all', action='store_true')
    parser.add_argument('requirements', nargs='*')
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS
              if mutant[0] in arguments.requirements]
    if arguments.all:
        chosen = list(MUTANTS)
    elif not chosen:
        chosen = random.Random(arguments.seed).sample(MUTANTS,
                                                      arguments.number)
    tap = Tap()
    tap.note(f'seed {arguments.seed}, {len(chosen)} of {len(MUTANTS)}')
    entries = conformance.table()
    tree = Tree(tap)
    for mutant in chosen:
        tap.progress(mutant[0])
        tap.run(kills, tap, tree, mutant, entries)
    return tap.done()


if __name__ == '__main__':
    try:
        sys.exit(main())
    except paths.Missing as error:
        paths.explain(error)
