# SPDX-License-Identifier: GPL-2.0-only
"""Sphinx: what the headers of include/uapi say, and numbered requirements.

What a field means is said once, in the header. A page says where it wants it:

    .. struct:: virtio_dma_track_status     fields: offset, type, meaning
    .. values:: VIRTIO_DMA_TRACK_E_         constants of that prefix
    .. header:: virtio_dma_track.h          the comment at its beginning

A requirement has a number, which stays its own for ever:

    .. req:: DT-DEV-1

       The device MUST ...

The role :req:`DT-DEV-1` refers to it. The functions that read headers and
requirements need no Sphinx: tests/conformance uses them.
"""

import os
import re

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..')
HEADERS = os.path.join(ROOT, 'include', 'uapi', 'linux')
SIZES = {'__le16': 2, '__le32': 4, '__le64': 8}


def read_header(name):
    with open(os.path.join(HEADERS, name), encoding='utf-8') as file:
        return file.read()


def headers():
    return {name: read_header(name) for name in sorted(os.listdir(HEADERS))}


def _plain(comment):
    """The lines of a C comment, without its frame."""
    lines = comment.strip().removeprefix('/*').removesuffix('*/').split('\n')
    return [re.sub(r'^\s*\*?[ \t]?', '', line).rstrip() for line in lines]


def _paragraphs(lines):
    text = '\n'.join(lines).strip('\n')
    return [' '.join(part.split()) for part in re.split(r'\n\s*\n', text)
            if part.strip()]


# --- Headers -----------------------------------------------------------------

def introduction(name):
    """Paragraphs of the comment at the beginning of a header."""
    text = read_header(name)
    start = text.index('/*', text.index('*/'))
    return _paragraphs(_plain(text[start:text.index('*/', start) + 2]))


def find_struct(name):
    """The kernel-doc comment and the body of a struct."""
    for text in headers().values():
        found = re.search(r'/\*\*\n \* struct ' + name + r' - ((?:(?!\*/).)*)'
                          r'\*/\s*struct ' + name + r' \{(.*?)\n\};', text,
                          re.S)
        if found:
            return found[1], found[2]
    raise KeyError(name)


def describe(name):
    """What it is, what its fields mean, and paragraphs that follow."""
    lines = _plain('/*' + find_struct(name)[0])
    summary, fields, rest = [], {}, []
    into = summary
    for number, line in enumerate(lines):
        found = re.match(r'@(\w+): ?(.*)', line)
        if found:
            into = fields[found[1]] = [found[2]]
        elif not line.strip() and (into is not summary or number):
            into = rest
            rest.append('')
        else:
            into.append(line.strip())
    return (' '.join(summary).strip(),
            {field: ' '.join(words).strip()
             for field, words in fields.items()},
            _paragraphs(rest))


def _constant(word):
    for text in headers().values():
        found = re.search(r'^#define ' + word + r'\s+(\d+)', text, re.M)
        if found:
            return int(found[1])
    return int(word)


def layout(name):
    """Offset, type, field, bytes; and the bytes of the whole."""
    body = re.sub(r'/\*.*?\*/', '', find_struct(name)[1], flags=re.S)
    body, at, rows = re.sub(r'\s+', ' ', body), 0, []
    union = re.search(r'union \{(.*?)\};', body)
    if union:
        body = body.replace(union[0], ' UNION;')
    for part in (item.strip() for item in body.split(';')):
        if not part:
            continue
        if part == 'UNION':
            for member in (item.strip() for item in union[1].split(';')):
                if member:
                    kind, field, _, _ = _member(member)
                    rows.append((at, kind, field))
            break
        kind, field, size, number = _member(part)
        rows.append((at, kind if number == 1 else f'{kind}[{number}]', field))
        at += size * number
    return rows, None if union else at


def _member(text):
    found = re.fullmatch(r'(struct )?(\w+) (\w+)(?:\[(\w+)\])?', text)
    number = _constant(found[4]) if found[4] else 1
    size = layout(found[2])[1] if found[1] else SIZES[found[2]]
    return (found[1] or '') + found[2], found[3], size, number


def constants(prefix):
    """Name, value, meaning of each constant with that prefix, in order."""
    rows, comment = [], []
    for text in headers().values():
        for line in re.sub(r'\\\n\s*', '', text).split('\n'):
            if line.startswith(('/*', ' *')):
                comment = comment + [line] if line.startswith(' *') else [line]
                continue
            found = re.match(r'#define (\w+)\s+(\w+)\s*(/\*.*\*/)?$', line)
            if found and found[1].startswith(prefix):
                meaning = [found[3]] if found[3] else comment
                # What follows a blank line is for who reads the header.
                words = (_paragraphs(_plain('\n'.join(meaning))) or [''])[0]
                rows.append((found[1], found[2], words))
            comment = []
    if not rows:
        raise KeyError(prefix)
    return rows


# --- Requirements ------------------------------------------------------------

def requirements(page='protocol.rst'):
    """Number: sentence, in the order of the page."""
    with open(os.path.join(ROOT, 'Documentation', page),
              encoding='utf-8') as file:
        text = file.read()
    return {found[1]: ' '.join(found[2].split()) for found in re.finditer(
        r'^\.\. req:: (\S+)\n\n((?:   .*\n|\n)+)', text, re.M)}


# --- Sphinx ------------------------------------------------------------------

def setup(app):
    """Called by Sphinx. What needs it is not needed by anybody else."""
    # pylint: disable=import-outside-toplevel
    from docutils import nodes
    from docutils.statemachine import StringList
    from sphinx.util.docutils import SphinxDirective, SphinxRole
    from sphinx.util.nodes import make_refnode

    def literal_names(text):
        """Names of the contract are set as code."""
        text = re.sub(r'@(\w+)', r'``\1``', text)
        return re.sub(r'(?<![\w`])((?:VIRTIO_DMA_TRACK|PCI_DMA_QUIESCE)_[A-Z_]+'
                      r'\*?(?:\(\))?|virtio_dma_track_[a-z_.]+[a-z]|'
                      r'\w+\.h\b|\w+\(\)|dma_\w+\*(?:\(\))?)(?![\w`])',
                      r'``\1``', text).replace('**', '\\*\\*')

    class FromHeader(SphinxDirective):
        """Writes reStructuredText, and has it read."""

        has_content = True
        required_arguments = 1

        def lines(self):
            raise NotImplementedError

        def run(self):
            for name in os.listdir(HEADERS):
                self.env.note_dependency(os.path.join(HEADERS, name))
            node = nodes.container()
            self.state.nested_parse(StringList(self.lines(), 'header'), 0,
                                    node)
            return node.children

        @staticmethod
        def table(head, rows, widths):
            lines = ['.. list-table::', '   :header-rows: 1',
                     '   :widths: ' + ' '.join(map(str, widths)), '']
            for row in [head, *rows]:
                for number, cell in enumerate(row):
                    lines.append(('   * - ' if number == 0 else '     - ')
                                 + str(cell))
            return lines + ['']

    class Struct(FromHeader):
        def lines(self):
            name = self.arguments[0]
            summary, fields, rest = describe(name)
            rows, size = layout(name)
            bytes_ = f', {size} bytes' if size else ''
            head = [f'``struct {name}``{bytes_}: {literal_names(summary)}', '']
            table = self.table(
                ('offset', 'field', 'type', 'meaning'),
                [(at, f'``{field}``', f'``{kind}``',
                  literal_names(fields[field])) for at, kind, field in rows],
                (8, 17, 25, 50))
            tail = []
            for paragraph in rest:
                tail += [literal_names(paragraph), '']
            return head + table + tail

    class Values(FromHeader):
        def lines(self):
            return self.table(
                ('value', 'name', 'meaning'),
                [(value, f'``{name}``', literal_names(meaning))
                 for name, value, meaning in constants(self.arguments[0])],
                (8, 42, 50))

    class Header(FromHeader):
        def lines(self):
            lines = []
            for paragraph in introduction(self.arguments[0])[1:]:
                lines += [literal_names(paragraph), '']
            return lines

    class Requirement(SphinxDirective):
        has_content = True
        required_arguments = 1

        def run(self):
            number = self.arguments[0]
            known = getattr(self.env, 'requirements', {})
            if known.get(number, self.env.docname) != self.env.docname:
                raise self.error(f'{number} is in two pages')
            known[number] = self.env.docname
            self.env.requirements = known
            item = nodes.definition_list_item()
            term = nodes.term('', '', nodes.strong('', number),
                              ids=[number.lower()])
            definition = nodes.definition()
            self.state.nested_parse(self.content, self.content_offset,
                                    definition)
            item += [term, definition]
            return [nodes.definition_list('', item)]

    class Refer(SphinxRole):
        def run(self):
            return [nodes.inline('', self.text,
                                 requirement=self.text)], []

    def resolve_refs(app, doctree, docname):
        known = getattr(app.env, 'requirements', {})
        for node in list(doctree.findall(nodes.inline)):
            number = node.get('requirement')
            if not number:
                continue
            if number not in known:
                raise ValueError(f'{docname}: no requirement {number}')
            node.replace_self(make_refnode(
                app.builder, docname, known[number], number.lower(),
                nodes.Text(number)))

    app.add_directive('struct', Struct)
    app.add_directive('values', Values)
    app.add_directive('header', Header)
    app.add_directive('req', Requirement)
    app.add_role('req', Refer())
    app.connect('doctree-resolved', resolve_refs)
    return {'parallel_read_safe': False}
