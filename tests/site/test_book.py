"""The lesson on paper: the EPUB holds all that the chapters' pages show, the PDF is set where Typst is installed, and
a page of the site is printed."""
import json, re, subprocess, sys, zipfile
from collections import Counter
from posixpath import dirname, join, normpath
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from conftest import CHAPTERS, load_tool, read, root
from selectolax.lexbor import LexborHTMLParser

book = load_tool('book')
X = '{http://www.w3.org/1999/xhtml}'


@pytest.fixture(scope='session')
def made(shared):
    "The folder with the book"
    def write(folder):
        r = subprocess.run([sys.executable, root/'tools/site.py', 'book', '--out', folder],
                           capture_output=True, text=True)
        if r.returncode: pytest.fail(f'tools/site.py book: {r.stderr}', pytrace=False)
    return shared('book', write)


@pytest.fixture(scope='session')
def epub(made):
    "name -> what the EPUB holds"
    with zipfile.ZipFile(made/'backprop13.epub') as z:
        assert z.testzip() is None
        first = z.infolist()[0]
        assert (first.filename, first.compress_type) == ('mimetype', zipfile.ZIP_STORED)
        assert z.read(first) == b'application/epub+zip'
        return {o: z.read(o) for o in z.namelist()}


@pytest.fixture(scope='session')
def texts(epub):
    "name -> each of its pages, read as XML"
    return {n: ElementTree.fromstring(o) for n, o in epub.items() if n.endswith('.xhtml')}


@pytest.fixture(scope='session')
def chapters(docs):
    "name -> each chapter's page of the site, as its HTML stands there"
    return {f.stem: LexborHTMLParser(read(docs/f'{book.name(f.stem)}.html')) for f in CHAPTERS}


def faults(texts, names):
    "What a reading system would stumble over: scripts, links and pictures that lead nowhere, addresses given twice"
    ids = {(f, o.get('id')) for f, t in texts.items() for o in t.iter() if 'id' in o.attrib}
    for f, t in texts.items():
        yield from (f'{f}: <{tag}>' for tag in ('script', 'details', 'iframe') for _ in t.iter(X + tag))
        own = Counter(o.get('id') for o in t.iter() if 'id' in o.attrib)
        yield from (f'{f}: #{i} twice' for i, k in own.items() if k > 1)
        for a in t.iter(X + 'a'):
            url, _, frag = a.get('href', '').partition('#')
            if re.match('https?:', url): continue
            there = normpath(join(dirname(f), url)) if url else f
            if there not in names or frag and (there, frag) not in ids: yield f'{f}: {a.get("href")}'
        for img in t.iter(X + 'img'):
            if normpath(join(dirname(f), img.get('src'))) not in names: yield f'{f}: {img.get("src")}'
            if not img.get('alt'): yield f'{f}: {img.get("src")} says nothing'


def test_all_links_and_pictures_lead_somewhere(epub, texts): assert list(faults(texts, epub.keys())) == []

@pytest.mark.parametrize('body', [
    '<a href="#x"/>', '<a href="03_backprop.ipynb"/>', '<script/>', '<img src="a.png" alt="b"/>',
    '<img src="t" alt=""/>', '<p id="a"/><p id="a"/>'])
def test_a_page_that_would_not_read_is_caught(body):
    page = ElementTree.fromstring(f'<html xmlns="{X[1:-1]}">{body}</html>')
    assert len(list(faults({'t': page}, {'t'}))) == 1


def lost(chapters, texts):
    "What a chapter's page shows and the book doesn't: formulas, pictures, code and what it prints, questions"
    def words(s): return ' '.join(s.split())
    everything = [o for t in texts.values() for o in t.iter()]
    formulas = Counter(words(o.text.replace(r'\qquad', '')) for o in everything if o.tag.endswith('}annotation'))
    alts = {words(o.get('alt')) for o in everything if o.tag == f'{X}img'}
    code = {words(''.join(o.itertext())) for o in everything if o.tag == f'{X}pre'}
    prose = words(' '.join(''.join(o.itertext()) for o in everything if o.tag in (f'{X}p', f'{X}h3')))
    for name, page in chapters.items():
        shown = Counter(words(o.text().replace(r'\qquad', '')) for o in page.css('article annotation'))
        yield from (f'{name}: {tex}' for tex in shown - formulas)
        pictures = {words(o.attrs['alt']) for o in page.css('article img')}
        yield from (f'{name}: the picture {o}' for o in pictures - alts)
        for cell in page.css('.cell'):
            draws = cell.css_first('img') and cell.css_first('details.code-fold')
            for pre in cell.css('pre'):
                drawn = draws and 'python' in pre.attrs.get('class', '')
                if not drawn and words(pre.text()) not in code: yield f'{name}: {pre.text()}'
        asked = [o for o in page.css('article p') if o.text().startswith('Predict:')]
        asked += page.css('article details:not([class]) > summary')
        yield from (f'{name}: {o.text()}' for o in asked if not o.css_first('.katex') and words(o.text()) not in prose)


def test_nothing_that_a_page_shows_is_lost(chapters, texts): assert list(lost(chapters, texts)) == []

@pytest.mark.parametrize('tag', ['annotation', 'img', 'pre', 'h3'])
def test_what_is_lost_is_caught(chapters, texts, tag):
    def without(t):
        t = ElementTree.fromstring(ElementTree.tostring(t))
        for parent in list(t.iter()):
            for o in [o for o in parent if o.tag.endswith(f'}}{tag}')]: parent.remove(o)
        if tag == 'h3':
            for o in t.iter(f'{X}div'):
                if o.get('class') == 'ask': o.clear()
        return t
    assert list(lost(chapters, {n: without(t) for n, t in texts.items()}))


def test_no_formula_stands_as_tex(texts):
    for f, t in texts.items():
        for o in list(t.iter()):
            for e in [e for e in o if e.tag.split('}')[1] in ('pre', 'code', 'annotation', 'title')]: e.clear()
        assert not re.search(r'\\[a-z]|\$\S', ''.join(t.find(f'{X}body').itertext())), f


def test_each_question_has_its_answer_and_a_link_back(texts):
    "There are as many as the notebooks ask"
    cells = [c for f in CHAPTERS for c in json.loads(read(f))['cells'] if c['cell_type'] == 'markdown']
    said = '\n'.join(''.join(c['source']) for c in cells)
    asked = len(re.findall(r'^\*\*Predict:\*\*|^<details><summary>', said, re.M))
    links = {o.get('href').split('#')[1]: ''.join(o.itertext()) for t in texts.values() for o in t.iter(f'{X}a')
             if '#' in o.get('href', '')}
    there = {k: v for k, v in links.items() if re.fullmatch(r'answer-\d\.\d+', k)}
    back = {k: v for k, v in links.items() if re.fullmatch(r'\w+-answer-\d\.\d+', k)}
    assert asked == len(there) == len(back)
    assert sorted(there.values()) == sorted(f'Answer {o}' for o in back.values())


def test_the_pdf_is_set(made):
    pytest.importorskip('typst', reason='Typst is not installed; make book installs it')
    blob = (made/'backprop13.pdf').read_bytes()
    assert blob.startswith(b'%PDF-1.') and blob.rstrip().endswith(b'%%EOF') and len(blob) > 1_000_000


# ---- what becomes of a page's blocks

def chapter(text, nb='03_backprop.ipynb', base=''):
    "A chapter of which the page's Markdown is `text`"
    site = load_tool('site')
    how = [site.pandoc_path(), '-f', site.config()['from'], '-t', 'json']
    blocks = json.loads(site.run(how, 'pandoc', input=book.readable(text)))['blocks']
    heads = {nb: {'here'}, '02_derivatives.ipynb': {'chain'}}
    page = SimpleNamespace(nb=nb, front={})
    return book.Chapter('3 · Backpropagation', page, heads, base, blocks)

def cell(code, *outputs, fold=''):
    site = load_tool('site')
    code = site.fence(code, '.python .cell-code')
    top = site.raw(f'<details class="code-fold"><summary>{fold}</summary>')
    if fold: code = f"{top}\n\n{code}\n\n{site.raw('</details>')}"
    return site.div('.cell', '\n\n'.join([code, *(site.div('.cell-output', o) for o in outputs)]))

def flat(o):
    "The words and code of a tree, in their order"
    if isinstance(o, list): return ' '.join(filter(None, map(flat, o)))
    if not isinstance(o, dict): return ''
    if o['t'] in ('Code', 'CodeBlock', 'Math'): return o['c'][1]
    return o['c'] if o['t'] == 'Str' else flat(o.get('c', ''))


ASK = '**Predict:** what is it?\n'

def test_an_answer_takes_with_it_what_the_page_folds():
    parts = 'Before.', ASK, cell('1 + 1', '2'), 'Because.', cell('quiet = 1'), cell('3', '4'), 'After.'
    o = chapter('\n\n'.join(parts))
    assert flat(o.blocks[2:]) == 'Before. Predict: what is it? Answer 3.1 3 4 After.'
    assert flat(o.ends['Answer']) == '3.1 Predict: what is it? 1 + 1 2 Because. quiet = 1'

@pytest.mark.parametrize('stop', [
    '## Next', '> **Trap.** No.', ASK, '<details><summary>Why?</summary>\n\nSo.\n\n</details>'])
def test_an_answer_ends_where_the_page_ends_it(stop):
    o = chapter(f"{ASK}{cell('1')}\n\nBecause.\n\n{stop}\n\n{cell('2')}")
    assert flat(o.ends['Answer'][0]) == '3.1 Predict: what is it? 1 Because.'

def test_folded_code_goes_to_the_end_unless_it_draws():
    picture = load_tool('site').raw('<figure><img src="a.png" alt="A line" width="300"></figure>')
    o = chapter('\n\n'.join([cell('x = 1', 'said', fold='Code: the &lt;settings&gt;'),
                             cell('plot()', picture, fold='Code'), cell('y = 2', fold='Code')]))
    assert flat(o.blocks[2:]) == 'Code 3.1 :  the <settings> said A line Code 3.2'
    assert flat(o.ends['Code']) == '3.1 the <settings> x = 1 3.2 y = 2'

def test_of_a_card_stays_its_first_line_and_of_a_lab_its_picture():
    raw = load_tool('site').raw
    card = raw('<details class="proof"><summary>✓ relu holds</summary><ul><li>more</li></ul></details>')
    lab = raw('<div class="lab"><figure><img src="lab.svg" alt="A lab"><figcaption>At rest</figcaption></figure>'
              '<script type="application/json" data-src="lab.json"></script></div>')
    assert flat(chapter(cell('pass', card, lab)).blocks[2:]) == 'pass ✓ relu holds A lab At rest'

@pytest.mark.parametrize('base,to,want', [
    ('', '02_derivatives.ipynb#chain', '#derivatives-chain'), ('', '02_derivatives.ipynb#gone', '#derivatives'),
    ('', '#here', '#backprop-here'), ('', 'support/checks.ipynb', None),
    ('', 'https://example.org', 'https://example.org'),
    ('https://a.b/', 'support/00_cards.ipynb#x', 'https://a.b/support/cards.html#x'),
    ('https://a.b/', 'reference.ipynb#relu', None)])
def test_links(base, to, want):
    [o] = [o for o in chapter(f'See [this]({to}).', base=base).blocks[2]['c'] if o['t'] == 'Link'] or [None]
    assert (o and o['c'][2][0]) == want

def test_two_aligned_equations_of_one_line_stand_apart():
    f = book.spaced
    assert f(r'\begin{aligned} a &= b & c &= d \\ e &= f & g &= h \end{aligned}').count(r'& \qquad ') == 2
    assert f(r'\begin{aligned} a &= b \\ c &= d \end{aligned}').count('qquad') == f('a & b & c').count('qquad') == 0


# ---- a page, printed; 610 pixels are narrower than A4 or Letter leave, and no phone

PRINTED = """() => { const all = s => [...document.querySelectorAll(s)], seen = o => o.checkVisibility()
    const wide = o => o.getBoundingClientRect().right > innerWidth + 1 || o.scrollWidth > o.clientWidth + 1
    return {tools: all('.bar, .menu, .toc, .turn, .actions, .guess, .guesses, .held, .here, .copy').filter(seen).length,
            folded: all('article details:not(.code-fold, .proof, .toc) > :not(summary)').filter(o => !seen(o)).length,
            code: all('details.code-fold').filter(seen).length,
            questions: all('main details:not([class]) > summary').filter(seen).length,
            cut: all('main :is(pre, img, table, .katex-display, .cell-output-display)').filter(o => seen(o) && wide(o))
                .map(o => (o.textContent || o.src).slice(-99)),
            dark: getComputedStyle(document.body).color} }"""

@pytest.mark.parametrize('name', ['matmul', 'derivatives', 'backprop', 'minibatch_training', 'fitting', 'speed'])
def test_a_printed_page_is_whole(open_page, name):
    "Answers are read, code wraps, nothing is cut off, and no tools are there; in the dark, too"
    page = open_page(f'{name}.html', viewport={'width': 610, 'height': 950}, color_scheme='dark')
    assert page.evaluate(PRINTED)['tools'] and page.evaluate(PRINTED)['folded']
    page.emulate_media(media='print')
    said = page.evaluate(PRINTED)
    assert said.pop('questions') >= 3
    assert said == {'tools': 0, 'folded': 0, 'code': 0, 'cut': [], 'dark': 'rgb(29, 33, 38)'}


def test_who_prints_finds_the_answers_folded_afterwards(open_page):
    page = open_page('matmul.html')
    def count(): return page.locator('main details[open]').count()
    was = count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert count() >= was + 8
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert count() == was
