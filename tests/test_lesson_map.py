"The lesson map: a row for every item, and links that lead to a heading and to a cell that checks something."
import functools, json, re
from pathlib import Path

import pytest

nbs = Path(__file__).parent.parent/'nbs'
items = [f'{letter}{i}' for letter, count in dict(A=6, B=9, C=10, D=7, E=12, F=15, G=3, H=3).items() for i in range(1, count + 1)]
row = re.compile(r'^\| ([A-H]\d+) \| (.+) \| \[(.+)\]\((\S+\.ipynb)#(\S+)\) \| \[check\]\((\S+\.ipynb)#(\S+)\) \|$', re.M)
a_check = re.compile(r'\btest_\w+\(|\bassert\b|\bcheck_\w+\(')


@functools.cache
def cells(name): return [(c['cell_type'], ''.join(c['source'])) for c in json.loads((nbs/name).read_text(encoding='utf-8'))['cells']]


def anchor(heading):
    "The anchor that pandoc gives a heading."
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', heading.lower()).strip()))


def problems(rows, read=cells):
    "What is wrong with the rows of the map, in sentences."
    res = [f'{i} has {n} rows, wanted one' for i in items if (n := sum(r[0] == i for r in rows)) != 1]
    res += [f'{r[0]} is not an item' for r in rows if r[0] not in items]
    for id_, _, heading, nb, slug, proof_nb, proof in rows:
        headings = [h for kind, s in read(nb) if kind == 'markdown' for h in re.findall(r'^#+ (.+)$', s, re.M)]
        if heading not in headings or slug != anchor(heading): res.append(f'{id_}: no heading "{heading}" at {nb}#{slug}')
        found = [i for i, (kind, s) in enumerate(read(proof_nb)) if kind == 'markdown' and f'<a id="{proof}"></a>' in s]
        if proof != f'proves-{id_}' or len(found) != 1: res.append(f'{id_}: {len(found)} anchors {proof} in {proof_nb}, wanted one'); continue
        after = [s for kind, s in read(proof_nb)[found[0]+1:] if kind == 'code'][:2]
        if not any(a_check.search(s) for s in after): res.append(f'{id_}: neither of the two cells after {proof} checks anything')
    return res


def rows(): return row.findall('\n'.join(s for _, s in cells('lesson_map.ipynb')))

def test_map(): assert problems(rows()) == []

@pytest.mark.parametrize('what,change', [
    ('has 0 rows', lambda rs: rs[1:]), ('has 2 rows', lambda rs: rs + rs[:1]),
    ('no heading', lambda rs: [(*rs[0][:2], 'No such heading', *rs[0][3:])] + rs[1:]),
    ('no heading', lambda rs: [(*rs[0][:4], 'no-such-anchor', *rs[0][5:])] + rs[1:]),
    ('0 anchors', lambda rs: [(*rs[0][:6], 'proves-nothing')] + rs[1:]),
    ('not an item', lambda rs: rs + [('G4', *rs[0][1:])])])
def test_mutants(what, change): assert any(what in p for p in problems(change(rows())))

def test_a_proof_must_check():
    def read(name): return [(kind, s if kind == 'markdown' else 'x = 1') for kind, s in cells(name)]
    assert sum('checks anything' in p for p in problems(rows(), read)) == len(rows())
