#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Suite mutants: a test fails when the check that it names is disabled.

    mutants.py [--seed N] [--number N] [--all] [REQUIREMENT...]

Of the checks below, each of which stands for a requirement, twenty are chosen
by the seed. Each is disabled in a copy of its own, of QEMU or of the guest's
module; then at least one of the tests that are named for the requirement must
fail. Prints TAP.

What the table of the module promises (DT-DRV-18 to DT-DRV-22) has mutants in
suite unit, and the order of steps has some in suite model.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'lib')]

# pylint: disable=wrong-import-position
import paths               # noqa: E402
import run as conformance  # noqa: E402
from tapwriter import Tap  # noqa: E402

DEVICE = 'hw/virtio/virtio-dma-track.c'
SHARED = 'hw/virtio/virtio-dma-track-sections.c'
CORE = 'migration/dma-track.c'
VETO = 'migration/dma-track-veto.c'
RAM = 'migration/ram.c'
QUIESCE = 'hw/pci/dma-quiesce.c'
FLUSHED = 'hw/misc/dma-test.c'
MODULE = 'guest/kernel/dma-track/'
HOST, DEVICES, RESTORE, SECTIONS = (
    MODULE + name + '.c' for name in ('host', 'devices', 'restore',
                                      'sections'))

CLASS_INIT = ('static void virtio_dma_track_class_init(ObjectClass *klass, '
              'const void *data)\n{\n')
KEEP_MSIX = ('bool pci_dma_quiesce_keep_msix(PCIDevice *pdev, unsigned int '
             'vector)\n{\n    ')

SECONDS = 1200

# Requirement, file of QEMU or the module, what is there once, and what is put
# in its place.
MUTANTS = (
    ('DT-DEV-1', DEVICE, 'virtio_init(vdev, VIRTIO_ID_DMA_TRACK,',
     'virtio_init(vdev, VIRTIO_ID_DMA_TRACK - 1,'),
    ('DT-DEV-2', CORE, 'if (dma_track.provider) {\n        error_setg',
     'if (0) {\n        error_setg'),
    ('DT-DEV-3', DEVICE, 'if (s->ready) {\n        return VIRTIO_DMA_TRACK_'
     'E_STATE;', 'if (s->ready || !virtio_vdev_has_feature(VIRTIO_DEVICE(s), '
     'VIRTIO_DMA_TRACK_F_SYNC_DIRTY)) {\n        return VIRTIO_DMA_TRACK_'
     'E_STATE;'),
    ('DT-DEV-4', DEVICE, CLASS_INIT,
     'static void set_config(VirtIODevice *vdev, const uint8_t *data)\n{\n'
     '    VIRTIO_DMA_TRACK(vdev)->phase = 1;\n}\n' + CLASS_INIT +
     '    VIRTIO_DEVICE_CLASS(klass)->set_config = set_config;\n'),
    ('DT-DEV-5', DEVICE, '    s->phase_seq++;\n    qemu_mutex_unlock',
     '    qemu_mutex_unlock'),
    ('DT-DEV-6', DEVICE, '    timer_mod(s->notify_timer,\n              qemu'
     '_clock_get_ms(QEMU_CLOCK_REALTIME) + s->notify_delay_ms);\n', ''),
    ('DT-DEV-7', DEVICE, 'if (!fn->has_capability && fn->pdev->enabled &&',
     'if (0 &&'),
    ('DT-DEV-8', DEVICE, '    trace_virtio_dma_track_ack(seq, s->phase_seq);',
     '    *((uint32_t *)virtio_dma_track_page_host(&s->status) + 1) = seq;'),
    ('DT-DEV-9', DEVICE, 'return "the guest gives an unknown reason";',
     'return NULL;'),
    ('DT-DEV-10', DEVICE, 'error_setg(errp, "untracked: the guest does not '
     'know it; see its kernel "\n               "log");\n    return false;',
     'return true;'),
    ('DT-DEV-10', DEVICE, 'error_setg(errp, "untracked: the guest gives it '
     'the unknown state "', 'return true; error_setg(errp, "unknown state "'),
    ('DT-DEV-11', DEVICE, '.status = cpu_to_le16(status),',
     '.status = cpu_to_le16(status), .reserved2 = 1,'),
    ('DT-DEV-12', DEVICE, 'respond(s, elem, VIRTIO_DMA_TRACK_E_TYPE);',
     'respond(s, elem, VIRTIO_DMA_TRACK_OK);'),
    ('DT-DEV-13', DEVICE, 'if (head.reserved || !', 'if (!'),
    ('DT-DEV-13', DEVICE, 'return nr >= 1 && nr <= VIRTIO_DMA_TRACK_MAX_'
     'ENTRIES;', 'return nr <= VIRTIO_DMA_TRACK_MAX_ENTRIES;'),
    ('DT-DEV-14', DEVICE, 'if (size - head_size < payload_size) {', 'if (0) {'),
    ('DT-DEV-15', DEVICE, 'if (size - head_size < payload_size) {',
     'if (size - head_size != payload_size) {'),
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
    ('DT-DEV-32', SHARED, 'coh = le64_to_cpu(qatomic_read(&coherent[w]));',
     'coh = 0;'),
    ('DT-DEV-33', RAM, 'unsigned long dirty = rb->bmap[i] | '
     'rb->deferred_bmap[i];', 'unsigned long dirty = rb->bmap[i];'),
    ('DT-DEV-34', RAM, 'last_stage ? dirty | pinned[i]', 'last_stage ? dirty'),
    ('DT-DEV-35', SHARED, 'if (!virtio_dma_track_is_ram(mrs.mr) || mrs.'
     'readonly', 'if (mrs.readonly'),
    ('DT-DEV-36', DEVICE, 'if (left <= 0) {', 'if (0) {'),
    ('DT-DEV-37', CORE, 'ok = DMA_TRACK_PROVIDER_GET_CLASS(p)->echo(p, errp);',
     'ok = true;'),
    ('DT-DEV-38', CORE, 'if (dma_track.unheard) {', 'if (0) {'),
    ('DT-DEV-39', CORE, '    if (!DMA_TRACK_PROVIDER_GET_CLASS(p)->is_logging'
     '(p)) {\n        Error *err', '    if (0) {\n        Error *err'),
    ('DT-DEV-40', CORE, 'DMA_TRACK_PROVIDER_GET_CLASS(p)->stop(p);', ''),
    ('DT-DEV-41', CORE, 'error_setg(&err, "%s was unplugged during migration",'
     ' label);\n    dma_track_fail(err);', '(void)err;'),
    ('DT-DEV-42', CORE, 'return dma_track_check_refusals(errp);',
     'return true;'),
    ('DT-DEV-43', CORE, 'if (!dma_track_check_veto(errp)) {', 'if (0) {'),
    ('DT-DEV-44', VETO, 'if (migrate_postcopy_ram()) {', 'if (0) {'),
    ('DT-DEV-45', DEVICE, 's->reset_seq++;\n    return true;',
     'return true;'),
    ('DT-DEV-46', SHARED, 'if (section <= previous ||', 'if ('),
    ('DQ-DEV-5', QUIESCE, '== 1 ? val & 0xff : val & 0xffff', '? val & 0xff : '
     '0'),
    ('DQ-DEV-6', FLUSHED, 's->sq_head != s->sq_tail &&\n           '
     '!pci_dma_quiesce_is_stopped(PCI_DEVICE(s));', 's->sq_head != '
     's->sq_tail;'),
    ('DQ-DEV-7', QUIESCE, KEEP_MSIX + 'if (!pci_dma_quiesce_is_quiesced(pdev)'
     ') {', KEEP_MSIX + 'if (true) {'),
    ('DQ-DEV-11', QUIESCE, '        q->msix_kept = 0;\n        '
     'pci_dma_quiesce_set_state(q, PCI_DMA_QUIESCE_STATE_RUNNING);',
     '        q->msix_kept = 0;'),
    ('DQ-DEV-12', QUIESCE, 'if (state == PCI_DMA_QUIESCE_STATE_QUIESCED) {\n'
     '        return true;', 'if (true) {\n        return true;'),
    ('DT-DRV-4', HOST, 'if (logging && !dma_track_hooks_intact())', 'if (0)'),
    ('DT-DRV-7', DEVICES, '\t\tdma_track_host_flush_reports();', '\t\t;'),
    ('DT-DRV-8', DEVICES, '\tif (maps_behind_api(dev))\n', '\tif (0)\n'),
    ('DT-DRV-11', HOST, '\trc = set_up(host);\n', '\tpublish_and_connect('
     'host);\n\trc = set_up(host);\n'),
    ('DT-DRV-12', SECTIONS, '\tint rc = add_sections(start, last) ?:\n\t\t dma_'
     'track_host_publish(start / SECTION_SIZE,\n\t\t\t\t\tlast / SECTION_'
     'SIZE);', '\tint rc = add_sections(start, last);'),
    ('DT-DRV-15', HOST, 'request->req.alive.alive_seq = config->alive_seq;',
     'request->req.alive.alive_seq = 0;'),
    ('DT-DRV-16', RESTORE, 'if (!rc && !start_driver(', 'if (!start_driver('),
    ('DT-DRV-19', HOST, 'dma_track_table_set_logging(table, logging);',
     'dma_track_table_set_logging(table, false);'),
    ('DT-DRV-24', HOST, 'if (logging && !hold_module(host))', 'if (0)'),
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
                            '--', '.'], cwd=self.source, check=True)

    def change(self, file, old, new):
        """Put new in the place of old, and build; return the emulator."""
        replace(os.path.join(self.source, file), old, new)
        made = subprocess.run(['ninja', '-j2', 'qemu-system-x86_64'],
                              cwd=self.build, env=self.environment,
                              capture_output=True, text=True, check=False)
        if made.returncode:
            raise ValueError(made.stdout[-3000:])
        return os.path.join(self.build, 'qemu-system-x86_64')


class Checkout:
    """A copy of ours, in which a file of the module is changed."""

    def __init__(self):
        self.folder = paths.scratch('mutants')
        self.files = subprocess.run(
            ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
            cwd=paths.ROOT, capture_output=True, text=True,
            check=True).stdout.split('\n')
        self.environment = dict(os.environ, DMA_TRACK_QEMU=paths.qemu())

    def restore(self):
        for name in filter(None, self.files):
            source = os.path.join(paths.ROOT, name)
            target = os.path.join(self.folder, name)
            if os.path.isfile(source):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy(source, target)

    def change(self, file, old, new):
        self.restore()
        replace(os.path.join(self.folder, file), old, new)

    def run(self, program, *arguments):
        """A program of it; what it says: [(ok, fact)]."""
        output = subprocess.run(
            [os.path.join(self.folder, program), *arguments],
            env=self.environment, capture_output=True, text=True,
            timeout=SECONDS, check=False).stdout
        return [(not found[1], found[2]) for found in re.finditer(
            r'^(not )?ok \d+ - (.*)', output, re.M)]


def place(path, old):
    """The text of a file that has old once."""
    with open(path, encoding='utf-8') as source:
        text = source.read()
    if text.count(old) != 1:
        raise ValueError(f'{path} has {text.count(old)} times: {old}')
    return text


def out_of_place():
    """Mutants that would change nothing, or not only one thing, and why."""
    complaints = []
    for number, file, old, _ in MUTANTS:
        root = paths.ROOT if file.startswith(MODULE) else os.path.join(
            paths.CACHE, 'qemu', 'src')
        try:
            place(os.path.join(root, file), old)
        except (OSError, ValueError) as error:
            complaints.append(f'{number}: {error}')
    return complaints


def replace(path, old, new):
    text = place(path, old)
    with open(path, 'w', encoding='utf-8') as source:
        source.write(text.replace(old, new))


def broken_by_device(tree, mutant, entries):
    """Tests of the requirement that do not hold with the changed QEMU."""
    number, file, old, new = mutant
    mine = [entry for entry in entries if entry['requirement'] == number
            and entry['suite'] in ('qtest', 'flush')]
    try:
        emulator = tree.change(file, old, new)
        found, _ = conformance.run_qtest({entry['test'] for entry in mine},
                                         emulator)
    finally:
        tree.restore()
    return mine, [entry['test'] for entry in mine
                  if not conformance.holds(entry, found)]


def broken_by_driver(checkout, mutant, entries):
    """The same with the changed module."""
    number, file, old, new = mutant
    mine = [entry for entry in entries if entry['requirement'] == number
            and entry['suite'] in ('guest', 'driver')]
    checkout.change(file, old, new)
    said = []
    for part in sorted({entry['test'] for entry in mine
                        if entry['suite'] == 'guest'}):
        said += checkout.run('tests/guest/vm/run.py', '--kernel',
                             conformance.kernel().pinned, part)
    if any(entry['suite'] == 'driver' for entry in mine):
        said += checkout.run('tests/conformance/run.py', 'driver')
    # A guest that did not get that far proves nothing.
    if all(ok for ok, _ in said):
        return mine, []
    return mine, [entry['fact'] for entry in mine if not any(
        ok and entry['fact'] in fact for ok, fact in said)]


def kills(tap, trees, mutant, entries):
    """A test of the requirement notices it."""
    number, file, old, _ = mutant
    if file.startswith(MODULE):
        mine, broken = broken_by_driver(trees['driver'], mutant, entries)
    else:
        mine, broken = broken_by_device(trees['device'], mutant, entries)
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
    trees = {}
    for mutant in chosen:
        kind = 'driver' if mutant[1].startswith(MODULE) else 'device'
        if kind not in trees:
            trees[kind] = Tree(tap) if kind == 'device' else Checkout()
        tap.progress(mutant[0])
        tap.run(kills, tap, trees, mutant, entries)
    return tap.done()


if __name__ == '__main__':
    paths.run(main)
