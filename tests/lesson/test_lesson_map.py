"The lesson map: a row for every item, and links that lead to a heading and to a cell that checks something."
import functools, json, re
from pathlib import Path

import pytest

nbs = Path(__file__).parents[2]/'nbs'
items = [f'{letter}{i}' for letter, count in dict(A=6, B=9, C=10, D=7, E=12, F=15, G=3, H=3).items()
         for i in range(1, count + 1)]
row = re.compile(r'^\| ([A-H]\d+) \| (.+) \| \[(.+)\]\((\S+\.ipynb)#(\S+)\) \| '
                 r'\[check\]\((\S+\.ipynb)#(\S+)\) \|$',
                 re.M)
a_check = re.compile(r'\btest_\w+\(|\bassert\b|\bcheck_\w+\(')


@functools.cache
def cells(name): return [(c['cell_type'], ''.join(c['source']))
                         for c in json.loads((nbs/name).read_text(encoding='utf-8'))['cells']]


def anchor(heading):
    "The anchor that pandoc gives a heading."
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', heading.lower()).strip()))


def problems(rows, read=cells):
    "What is wrong with the rows of the map, in sentences."
    res = [f'{i} has {n} rows, wanted one' for i in items if (n := sum(r[0] == i for r in rows)) != 1]
    res += [f'{r[0]} is not an item' for r in rows if r[0] not in items]
    for id_, _, heading, nb, slug, proof_nb, proof in rows:
        headings = [h for kind, s in read(nb) if kind == 'markdown' for h in re.findall(r'^#+ (.+)$', s, re.M)]
        if heading not in headings or slug != anchor(heading):
            res.append(f'{id_}: no heading "{heading}" at {nb}#{slug}')
        found = [i for i, (kind, s) in enumerate(read(proof_nb)) if kind == 'markdown'
                 and f'<a id="{proof}"></a>' in s]
        if proof != f'proves-{id_}' or len(found) != 1:
            res.append(f'{id_}: {len(found)} anchors {proof} in {proof_nb}, wanted one'); continue
        after = [s for kind, s in read(proof_nb)[found[0]+1:] if kind == 'code'][:2]
        if not any(a_check.search(s) for s in after):
            res.append(f'{id_}: neither of the two cells after {proof} checks anything')
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


# ---- tables written by hand: a row for each chapter, lab and practice page, and none that is gone

def rows_of(name, head): return re.findall(r'^\|.*',
                                           next(s for _, s in cells(name) if head in s).partition(head)[2],
                                           re.M)[1:]

def untrue(read=rows_of):
    """What the tables of the labs' and the teachers' page leave out, or have too much, in sentences"""
    from backprop13.practice.exercises import PAGES
    from conftest import load_tool
    def differ(where, got, want):
        if got != want:
            yield f'{where}: has {sorted(got - want)}, which is nowhere else, and lacks {sorted(want - got)}'
    files = sorted(f.name for f in nbs.glob('[0-9]*.ipynb'))
    labs = read('support/labs.ipynb', '| lab | its question')
    places = {(name, f'{int(o[:2])}') for o in files for kind, s in cells(o) if kind == 'code'
              for name in re.findall(r'^(?:labs\.)(\w+)\(', s, re.M)}
    yield from differ('nbs/support/labs.ipynb, labs',
                      {(o.split()[1].lower(), re.search(r'\[(\d)\]\(', o)[1]) for o in labs}, places)
    plan = ', '.join(o.split('|')[3].strip() for o in read('teaching.ipynb', '| session |'))
    want = {o.title.removeprefix('Practice: ') for o in PAGES.values()}
    want |= {f'shapes of chapter {int(o[:2])}' for o in load_tool('practice').SHAPES.values()}
    yield from differ('nbs/teaching.ipynb, sessions', {*plan.split(', ')}, want)


def test_tables(): assert list(untrue()) == []

@pytest.mark.parametrize('name,old,new,said', [
    ('support/labs.ipynb', '| Descent', '| Ascent', "'descent'"),
    ('support/labs.ipynb', '[2](../02', '[1](../02', "('wheels', '2')"),
    ('teaching.ipynb', 'shapes of chapter 5, ', '', "lacks ['shapes of chapter 5']"),
    ('teaching.ipynb', 'find the bugs', 'find the bug', "'find the bugs'")])
def test_a_stale_row_is_named(name, old, new, said):
    def read(n, head):
        found = rows_of(n, head)
        if n == name: assert sum(old in o for o in found) == 1
        return [o.replace(old, new) for o in found] if n == name else found
    (told,) = untrue(read)
    assert told.startswith(f'nbs/{name}') and said in told


# ---- the home page's list of chapters: their titles, and the minutes that each says of itself

WORDS = {'ten': 10, 'forty': 40, 'two hours': 120, 'an hour': 60}

def said(name):
    "A chapter's notebook, its title, and the minutes that its first cells give it"
    prose = [s for kind, s in cells(f'{name}.ipynb') if kind == 'markdown']
    m = re.search(r'(\d+|ten|forty)(?:<!--.*?-->)? minutes|(two hours|about an hour)', ' '.join(prose[1:9]))
    words = (m[1] or m[2]).removeprefix('about ')
    return name, prose[0].split('\n')[0].removeprefix('# '), WORDS.get(words) or int(words)

def test_the_home_page_has_every_chapter_as_it_says():
    from backprop13.support.home import CHAPTERS
    want = [said(f.stem) for f in sorted(nbs.glob('[0-9]*.ipynb'))]
    assert [o[:3] for o in CHAPTERS] == want
    assert len({minutes for *_, minutes in want}) > 5
