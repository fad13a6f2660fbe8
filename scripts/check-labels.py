#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every ordered memory access carries a label, and every label has its partner.

    check-labels.py [FILE...]        default: every .c, .h and .cu in git outside tests/

An acquire, release, acq_rel or seq_cst access, or a fence, needs a label in a comment on its own
lines or in the comment right above. Two forms:

    /* S1: pairs with S4 in wshm_engine_peek() */    a label per side; S4 must name S1 in turn
    /* J1 */                                         one label for both sides: it stands at two
                                                     accesses or more, and the file's head explains
                                                     it in a line that begins with it

shm/order.h, which defines the primitives of the shared regions, is exempt.
"""
import collections
import re
import subprocess
import sys

ACCESS = re.compile(
    r'\bmemory_order_(?:acquire|release|acq_rel|seq_cst)\b|\b__ATOMIC_(?:ACQUIRE|RELEASE|ACQ_REL|SEQ_CST)\b'
    r'|\batomic_thread_fence\b|\b__sync_synchronize\b|\b__threadfence_system\b'
    r'|\bord_(?:load_acquire|load_seq|store_release|store_seq|add_seq)\s*\(')
LABEL = re.compile(r'\b[A-Z]{1,2}[0-9]{1,2}\b')
PAIRED = re.compile(r'\b([A-Z]{1,2}[0-9]{1,2}): pairs with ((?:(?!\*/).)*)', re.S)
COMMENT = re.compile(r'/\*.*?\*/', re.S)
STRING = re.compile(r'"(?:\\.|[^"\\\n])*"')


def blank(match):
    return re.sub(r'[^\n]', ' ', match.group())


class Source:
    def __init__(self, path):
        self.path = path
        text = STRING.sub(blank, open(path, encoding='utf-8').read())
        self.head = text[:text.find('#')] if '#' in text else text
        self.comments = [(text.count('\n', 0, m.start()), text.count('\n', 0, m.end()), m.group())
                         for m in COMMENT.finditer(text)]
        self.code = COMMENT.sub(blank, text).split('\n')

    def statement(self, line):
        """First and last line of the statement around a line of code."""
        first = last = line
        while first and self.code[first - 1].strip() and \
                not re.search(r'[;{}:]\s*$', self.code[first - 1]) and \
                not self.code[first - 1].lstrip().startswith('#'):
            first -= 1
        while last + 1 < len(self.code) and not re.search(r'[;{}]\s*$', self.code[last]):
            last += 1
        return first, last

    def labels_at(self, line):
        """Labels in comments that touch the statement or end on the line above it."""
        first, last = self.statement(line)
        found = set()
        for start, end, text in self.comments:
            if end >= first - 1 and start <= last:
                found |= set(LABEL.findall(text))
        return found


def main():
    paths = sys.argv[1:] or subprocess.run(
        ['git', 'ls-files', '*.c', '*.h', '*.cu'], capture_output=True, text=True, check=True).stdout.split()
    sources = [Source(p) for p in paths if not p.startswith('tests/') and p != 'shm/order.h']
    errors = []

    pairs = collections.defaultdict(set)   # label -> labels that it names
    for s in sources:
        for start, _, text in s.comments:
            for m in PAIRED.finditer(text):
                # Up to the sentence's end: what follows may speak of other labels.
                clause = re.split(r'[.;:] |[.;:]\n|\n\s*\*\s*\n', m.group(2))[0]
                named = set(LABEL.findall(clause))
                if not named:
                    errors.append(f'{s.path}:{start + 1}: {m.group(1)} names no partner')
                pairs[m.group(1)] |= named

    for s in sources:
        uses = collections.Counter()
        lines = {}
        for n, code in enumerate(s.code):
            if not ACCESS.search(code):
                continue
            labels = s.labels_at(n)
            if not labels:
                errors.append(f'{s.path}:{n + 1}: ordered access without a label')
            for label in labels:
                uses[label] += 1
                lines.setdefault(label, n + 1)
        for label, count in uses.items():
            if label in pairs:
                continue
            explained = re.search(rf'^ \*\s+{label}\b', s.head, re.M)
            if not explained or count < 2:
                errors.append(f'{s.path}:{lines[label]}: label {label} has no partner')

    for label, named in pairs.items():
        for other in named:
            if label not in pairs.get(other, ()):
                errors.append(f'label {label} names {other}, which does not name {label}')

    for e in sorted(set(errors)):
        print('check-labels:', e, file=sys.stderr)
    return 1 if errors else 0


if __name__ == '__main__':
    sys.exit(main())
