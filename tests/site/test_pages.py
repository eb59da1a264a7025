"Every page of the website without Quarto: built once, read as files, then read in headless Chromium"
import gzip, json, os, re
from hashlib import sha256
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urldefrag, urlparse

import pytest, yaml
from conftest import CHAPTERS, SHIFT, Reader, axe, load_tool, overflows, read, root as ROOT, visit


@pytest.fixture(scope='session')
def order():
    "The pages' addresses in the order of _quarto.yml"
    site = load_tool('site')
    rows = site.sidebar(yaml.safe_load(read('_quarto.yml'))['website']['sidebar']['contents'])
    return [join(dirname(nb), re.sub(r'^\d+[a-zA-Z0-9]*_', '', Path(nb).stem.lower())+'.html') for _, nb in rows]


# ---- the files ----
def test_every_notebook_has_its_page(pages, order):
    assert set(order) <= set(pages)
    made = [f.relative_to(ROOT/'nbs') for f in (ROOT/'nbs').rglob('*.ipynb')]
    made = [f.as_posix() for f in made if not any(p[0] in '._' for p in f.parts)]
    assert len(pages) == len(made), (sorted(pages), sorted(made))


def test_links_and_anchors_resolve_and_nothing_is_loaded_from_elsewhere(pages, docs):
    bad = []
    for name, page in pages.items():
        bad += [(name, src, 'elsewhere') for src in page.loads if re.match(r'[a-z]+:|//', src)]
        for href in page.links+page.loads:
            if re.match(r'[a-z]+:|//', href): continue
            path, frag = urldefrag(unquote(href))
            to = normpath(join(dirname(name), path)) if path else name
            if not (docs/to).is_file(): bad.append((name, href, 'no such file'))
            elif frag and to in pages and frag not in pages[to].ids: bad.append((name, href, 'no such heading'))
    assert not bad, bad
    for css in docs.glob('assets/**/*.css'):
        assert not re.search(r'url\(["\']?(https?:)?//|@import', read(css)), css


def policy(page):
    "The page's content-security policy, {directive: its words}; it stands before whatever it must rule"
    rules = 'Content-Security-Policy'
    head = [a for t, a in page.tags if t in ('script', 'link', 'style') or a.get('http-equiv') == rules]
    return {k: words for k, *words in map(str.split, filter(None, head[0].get('content', '').split(';')))}

def inline(page):
    "What in the page only 'unsafe-inline' would allow: scripts and styles without a file, event handlers"
    return [(t, a) for t, a in page.tags if t == 'style' or any(k.startswith('on') for k in a)
            or a.get('href', '').startswith('javascript:')
            or t == 'script' and 'src' not in a and a.get('type') != 'application/json']

def test_every_page_runs_and_loads_only_files_of_the_site(pages):
    more = {'style-src-attr': {"'unsafe-inline'"}, 'img-src': {'data:'}}
    for name, page in pages.items():
        rules = policy(page)
        assert all(rules.get(k) == ["'none'"] for k in ('default-src', 'base-uri', 'form-action')), name
        allowed = {k: {"'self'", "'none'"} | more.get(k, set()) for k in rules}
        assert all(set(words) <= allowed[k] for k, words in rules.items()), (name, rules)
        assert not inline(page), (name, inline(page))
    late = '<script src="a.js"></script><meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
    assert not policy(Reader(late))
    assert len(inline(Reader('<style></style><script>1</script><p onclick="1"><a href="javascript:1">a</a>'))) == 4


def test_no_link_to_what_is_not_yet_public(pages):
    config = load_tool('site').config()
    if config['public']: pytest.skip('_quarto.yml has repo-actions: the repository is public')
    assert not [h for p in pages.values() for h in p.links if h.startswith((config['git'], config['base']))]


def left_over(page): return re.findall(r'.{0,20}(?:\]\(|\*\*|^:::).{0,20}', page.prose)

def test_no_markdown_is_left_in_the_prose(pages):
    assert not {name: left_over(page) for name, page in pages.items() if left_over(page)}
    spoilt = Reader('<p>the [<code>lin</code>](#lin) layer <code>2**3</code></p>')
    assert left_over(spoilt) == ['the [ ](#lin) layer  ']


def test_ids_are_unique_and_pictures_have_a_text_and_a_size(pages):
    for name, page in pages.items():
        twice = {i for i in page.ids if page.ids.count(i) > 1}
        assert not twice, (name, twice)
        for img in page.images:
            assert img.get('alt', '').strip(), (name, img)
            assert img.get('src', '').endswith('.svg') or (img.get('width') and img.get('height')), (name, img)


def test_previous_and_next_follow_the_sidebar(pages, order):
    for i, name in enumerate(order):
        rel = {k: normpath(join(dirname(name), v)) for k, v in pages[name].rel.items()}
        want = {k: order[j] for k, j in (('prev', i-1), ('next', i+1)) if 0 <= j < len(order)}
        assert rel == want, name


def test_each_page_has_one_title_landmarks_and_a_mark_in_the_menu(pages, order):
    for name in order:
        tags = pages[name].tags
        assert [t for t, _ in tags].count('h1') == 1, name
        assert {'header', 'main', 'nav', 'footer'} <= {t for t, _ in tags}, name
        assert [a['href'] for t, a in tags if a.get('aria-current') == 'page'] == [Path(name).name], name


def test_the_menu_is_short_and_folds_what_few_look_for(pages, docs):
    "The chapters and a few rows; practice, and the page about the library, show theirs on their own pages"
    shown = {}
    for name in 'matmul.html', 'practice.html', 'practice/matmul.html', 'install.html', 'support/graph.html':
        menu = re.search(r'<nav class="menu".*?</nav>', read(docs/name), re.S)[0]
        folded = re.sub(r'<details><summary>.*?</details>', '<a>', menu, flags=re.S)
        shown[name] = len(re.findall(r'<a\b', folded)), 'layers.html"' in menu, 'ledger.html"' in menu
    assert shown['matmul.html'][0] <= 16 and shown['matmul.html'][1:] == (False, False), shown
    assert shown['practice.html'][1:] == shown['practice/matmul.html'][1:] == (True, False), shown
    assert shown['install.html'][1:] == shown['support/graph.html'][1:] == (False, True), shown


def test_a_link_to_a_page_shows_what_it_is(pages, docs):
    "Elsewhere, a title, a sentence, and a picture of our own, at addresses that are whole"
    base = load_tool('site').config()['base']
    for name, page in pages.items():
        said = {a.get('property', a.get('name')): a.get('content') for t, a in page.tags if t == 'meta'}
        assert said['og:title'] and said['og:url'] == base + name and said['og:image'] == f'{base}assets/card.png'
        assert said['twitter:card'] == 'summary_large_image'
        assert said.get('og:description') == said.get('description'), name
    assert 'learns to read' in {a.get('name'): a.get('content') for _, a in pages['index.html'].tags}['description']
    blob = (docs/'assets/card.png').read_bytes()
    assert (blob[16:24], len(blob) < 300_000) == ((1200).to_bytes(4, 'big') + (630).to_bytes(4, 'big'), True)


def test_home_s_first_view_is_light(browser, server, docs):
    "Compressed as a host would, before anything is scrolled; nothing of formulas or of the search"
    page, _, asked = visit(browser, server+'index.html', viewport={'width': 1440, 'height': 900})
    page.wait_for_selector('[data-lab=descent][data-live]')
    files = {docs/urlparse(o).path.strip('/') for o in asked}
    assert not [f for f in files if 'katex' in f.as_posix() or 'search' in f.name]
    blobs = [f.read_bytes() for f in files if f.suffix]
    assert 150_000 < sum(min(len(o), len(gzip.compress(o))) for o in blobs) < 300_000
    page.close()


def test_the_page_of_labs_leads_to_each(pages, docs):
    from backprop13.support.labs import lab_names
    to = [href.partition('#')[0] for href in pages['labs.html'].links if '#' in href and href[0] != '#']
    there = [re.findall('data-lab="(\\w+)"', read(docs/o)) for o in dict.fromkeys(to)]
    assert sorted(sum(there, [])) == sorted(lab_names()) and len(to) == len(lab_names())


def test_chapters_are_there_as_markdown(docs, pages, order):
    "With each heading, links that lead to this site's pages, and labs as what they show; llms.txt names them"
    listed = re.findall(r'\]\(([^)]+)\)', read(docs/'llms.txt'))
    assert all((docs/o).is_file() for o in listed)
    names = [f.stem.split('_', 1)[1] for f in CHAPTERS]
    assert [o for o in listed if o.endswith('.md')] == [f'{o}.md' for o in names]
    for page, f in zip(names, CHAPTERS):
        said = read(docs/f'{page}.md')
        heads = [l for c in json.loads(read(f))['cells'] if c['cell_type'] == 'markdown'
                 for l in ''.join(c['source']).splitlines() if re.match('##+ ', l)]
        assert [h for h in heads if '`' not in h and h not in said] == [], page    # back-ticks may be links
        assert '```python' in said, page
        assert not re.search(r'<script|\]\([\w/.]+\.ipynb|^(<a id|<span id|<!--|```.*=html)', said, re.M), page
        labs = read(docs/f'{page}.html').count(' data-lab=')
        assert len(re.findall('^Lab, before it is moved: .{30}', said, re.M)) == labs, page


def test_what_a_reader_can_do_with_a_notebook(docs, pages, monkeypatch):
    site = load_tool('site')
    page = site.Page.__new__(site.Page)
    page.nb = '03_backprop.ipynb'
    monkeypatch.setattr(site, 'config', lambda config=site.config(): {**config, 'public': False})
    assert page.actions().count('<a') == 1 and (docs/'03_backprop.ipynb').stat().st_size > 100_000
    public = {**site.config(), 'public': True}
    monkeypatch.setattr(site, 'config', lambda: public)
    git, repo, file = public['git'], 'backprop13/backprop13', 'blob/main/nbs/03_backprop.ipynb'
    assert git == f'https://github.com/{repo}' and Reader(page.actions()).links == [
        page.nb, f'https://colab.research.google.com/github/{repo}/{file}', f'{git}/{file}',
        f'{git}/issues/new?title=nbs%2F03_backprop.ipynb%3A+']


def test_code_leads_to_what_its_names_mean_there(docs, pages):
    "In the reference; words in strings and comments lead nowhere"
    html = read(docs/'minibatch_training.html')
    used = {n: href for href, n in re.findall(r'<a class="ref" href="([^"]+)">(\w+)</a>', html)}
    assert used['cross_entropy'] == 'reference.html#cross_entropy' and {'log_softmax', 'accuracy'} <= used.keys()
    assert not re.findall(r'<span class="(?:st|co)">[^<]*<a', html)
    ids = [i for i in pages['reference.html'].ids
           if re.fullmatch(r'backprop13\.[\w.]+|(softmax|evaluate|fit|watch|record)(-\d)?', i)]
    module = {i: max((m for m in ids[:ids.index(i)] if '.' in m), key=ids.index).split('.')[-1]
              for i in ids if '.' not in i}
    def homes(page, name, tag):
        link = rf'<a{tag} href="(?:../)?reference.html#([^"]+)">(?:<code>)?{name}(?:\(\))?<'
        return {module[i] for i in re.findall(link, read(docs/f'{page}.html'))}
    code, prose = ' class="ref"', ''
    assert homes('minibatch_training', 'softmax', code) == homes('speed', 'softmax', code) == {'minibatch'}
    assert homes('support/labs', 'softmax', code) == {'labs'}
    assert homes('support/derivatives', 'evaluate', code) == {'derivatives'}
    assert homes('fitting', 'evaluate', code) == {'fitting'}
    assert homes('fitting', 'fit', code) == homes('fitting', 'fit', prose) == {'fitting'}
    assert homes('backprop', 'fit', code) == homes('backprop', 'fit', prose) == set()
    assert homes('backprop', 'watch', code) == homes('backprop', 'record', code) == {'debugger'}
    assert homes('support/notations', 'watch', code) == set()                      # that page's own


@pytest.mark.parametrize('code, means, inner', [
    ('from backprop13.fitting import fit as f', {'f': ('fitting', 'fit')}, set()),
    ('from torch import softmax', {'softmax': None}, set()),
    ('import torch.nn.functional as F, os.path', {'F': None, 'os': None}, set()),
    ('def fit(lin): relu = lin', {'fit': None}, {'lin', 'relu'}),
    ('mse = lambda out: out', {'mse': None}, {'out'}),
    ('fit(x); [relu for relu in y]', {}, {'relu'}), ('for lin in x: pass', {'lin': None}, set()),
    ('%time fit(1)\nfit = 2', {'fit': None}, set()), ('def (', {}, set())])
def test_what_a_cell_gives_a_meaning(code, means, inner):
    assert load_tool('site').bound(code, '') == (means, inner)


def test_what_a_cell_exports_is_the_library_s():
    assert load_tool('site').bound('def lin(x): pass', 'backprop')[0] == {'lin': ('backprop', 'lin')}


def test_folds_in_a_row_with_one_summary_are_one():
    def fold(summary, code, *outputs):
        head = f'#| code-fold: true\n#| code-summary: "{summary}"\n'
        return dict(cell_type='code', source=head + code, outputs=[*outputs])
    address, words = (dict(cell_type='markdown', source=s)
                      for s in ('```{=html}\n<span id="a"></span>\n```\n', 'Words'))
    cells = [fold('A', 'x'), address, fold('A', 'y'), fold('A', 'z', 1), fold('A', 'after what is printed'),
             words, fold('A', 'after words'), fold('B', 'another')]
    assert load_tool('site').together(cells) == [address, fold('A', 'x\n\ny\n\nz', 1), *cells[4:]]


def test_the_library_of_chapter_3_has_one_fold(docs):
    folds = re.findall(r'<summary>Code: the library.s Module.*?</details>', read(docs/'backprop.html'), re.S)
    code = re.sub(r'<[^>]*>', '', ''.join(folds))
    assert len(folds) == 1 and all(o in code for o in ('def add_grad', 'class Module', 'class Relu', 'class Model'))


# ---- in a browser ----
def wake(page):
    "Bring every lab of the page to life, and open every answer"
    for lab in page.locator('.lab').all(): lab.scroll_into_view_if_needed()
    page.wait_for_function("() => [...document.querySelectorAll('.lab')].every(e => e.dataset.live)")
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")


def faults(page):
    """What axe finds. It is slow on large pages: formulas, and code whose words all look like some before it, are
    asked only whether keys can scroll them, and taken out of the page."""
    page.evaluate("""() => { const seen = new Set()
        for (const p of document.querySelectorAll('pre')) {
          const looks = [p, ...p.querySelectorAll('span')].map(e => { const s = getComputedStyle(e)
            return [s.color, s.backgroundColor, s.opacity, s.fontSize, p.closest('div')?.className].join() })
          p.classList.toggle('seen', looks.every(o => seen.has(o)))
          for (const o of looks) seen.add(o) } }""")
    def run(**options): return axe(page, context={'exclude': [['.katex']]}, **options)
    scrolled = run(runOnly={'type': 'rule', 'values': ['scrollable-region-focusable']})
    page.evaluate("document.querySelectorAll('.katex, pre.seen').forEach(e => e.remove())")
    return scrolled + run()


@pytest.mark.parametrize('scheme,width,narrower', [('light', 1440, (1024, 768)), ('dark', 360, ())])
def test_every_page_in_a_browser(browser, server, docs, pages, scheme, width, narrower):
    """Whole, quiet, within its width and its weight; awake, with every answer open, without a serious fault in axe's
    eyes. `make test` again names a file in BACKPROP13_PAGES, and a page that was looked at, with the same files
    beside it, isn't again."""
    some = 'practice/layers.html', 'practice/shapes_fitting.html'    # the others are generated in the same manner
    note = os.environ.get('BACKPROP13_PAGES') and Path(f"{os.environ['BACKPROP13_PAGES']}-{scheme}")
    known, seen = json.loads(note.read_text()) if note and note.exists() else {}, {}
    shared = [f for f in sorted(docs.rglob('*')) if f.is_file()
              and f.suffix in ('.js', '.css', '.mjs', '.woff2')]
    base = sha256(b''.join(f.read_bytes() for f in (Path(__file__), *shared))).hexdigest()
    for name in [n for n in pages if not n.startswith('practice/') or n in some]:
        own = docs/name, *sorted((docs/name.replace('.html', '_files')).glob('*'))
        seen[name] = sha256(b''.join(f.read_bytes() for f in own)).hexdigest() + base
        if known.get(name) == seen[name]: continue
        page, said, asked = visit(browser, server+name, viewport={'width': width, 'height': 800},
                                  color_scheme=scheme)
        weight = page.evaluate("performance.getEntries().reduce((sum, e) => sum + (e.transferSize ?? 0), 0)")
        assert 30_000 < weight < 1_000_000, (name, weight)
        wake(page)
        page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        page.evaluate("Promise.all([...document.images].map(i => i.decode().catch(() => {})))")
        r = page.evaluate("""() => ({
            broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src),
            maths: [...document.querySelectorAll('.math:not(:has(.katex)), .math:has(.katex-error)')]
                .map(e => e.textContent),
            fonts: [...document.fonts].filter(f => f.status == 'error').map(f => f.family),
            theme: document.documentElement.dataset.theme})""")
        assert r == dict(broken=[], maths=[], fonts=[], theme=scheme) and not overflows(page), (name, r)
        for w in narrower:
            page.set_viewport_size({'width': w, 'height': 800})
            page.wait_for_timeout(60)
            assert not overflows(page), (name, w)
        page.set_viewport_size({'width': width, 'height': 800})
        bad = [o for o in faults(page) if o[1] in ('serious', 'critical')]
        elsewhere = [u for u in asked if not u.startswith((server, 'data:'))]
        assert not bad and not said and not elsewhere, (name, bad, said, elsewhere)
        page.close()
    if note: note.write_text(json.dumps(seen))


def test_nothing_moves_under_a_reader_s_eyes_on_a_phone(browser, server):
    "Each chapter while it loads, and while its labs come to life: a cumulative layout shift below 0.1 is called good"
    context = browser.new_context(viewport={'width': 390, 'height': 844}, has_touch=True)
    context.add_init_script(SHIFT)
    found = {}
    for name in ['index', *(f.stem.split('_', 1)[1] for f in CHAPTERS)]:
        page = context.new_page()
        page.goto(f'{server}{name}.html', wait_until='load')
        page.evaluate('document.fonts.ready')
        page.wait_for_timeout(300)
        for lab in page.locator('.lab').all():
            # it wakes before it is seen
            lab.evaluate("e => scrollTo({top: e.offsetTop - 1300, behavior: 'instant'})")
            page.wait_for_function('e => e.dataset.live', arg=lab.element_handle())
            lab.evaluate("e => e.scrollIntoView({behavior: 'instant'})")
            page.wait_for_timeout(100)
        found[name] = page.evaluate('shift')
        # it can fail: the contents opened and closed
        if name == 'matmul':
            for opened in 'true', 'false':
                page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
                page.evaluate(f"document.querySelector('.toc').open = {opened}")
                page.wait_for_timeout(150)
            assert page.evaluate('shift') > found[name] + .1
        page.close()
    context.close()
    assert len(found) > 8 and max(found.values()) < .1, found


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_the_open_search_has_no_fault(open_page, scheme):
    page = open_page('matmul.html', viewport={'width': 390, 'height': 800},
                       color_scheme=scheme)
    page.keyboard.press('/')
    page.fill('#search-input', 'learning rate')
    page.wait_for_selector('#search mark')
    assert not faults(page)
    page.locator('#search mark').first.evaluate("e => { e.style.color = '#d9c27a' }")
    assert 'color-contrast' in [rule for rule, *_ in faults(page)]


def test_accessibility_can_fail(open_page):
    page = open_page('matmul.html', viewport={'width': 360, 'height': 800},
                       color_scheme='light')
    assert not faults(page)
    page.reload()
    page.evaluate("""() => { document.querySelector('#theme-toggle').textContent = ''
        const seen = [...document.querySelectorAll('pre.cell-code code span span')].filter(e => e.checkVisibility())
        const word = seen.findLast(e => /\\w{3}/.test(e.textContent))
        word.style.color = '#ccc'
        word.id = 'pale'
        for (const e of document.querySelectorAll('pre')) {
            e.style.whiteSpace = 'pre'
            e.removeAttribute('tabindex')
            e.querySelectorAll('[tabindex], a').forEach(o => o.replaceWith(...o.childNodes)) } }""")
    found = {rule: str(parts) for rule, _, parts in faults(page)}
    assert {'color-contrast', 'button-name', 'scrollable-region-focusable'} <= found.keys()
    assert 'pale' in found['color-contrast']
