"The website without Quarto: built once, read as files, then read in headless Chromium."
import functools, http.server, re, shutil, subprocess, sys, threading
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urldefrag

import pytest, yaml
from conftest import load_tool, root as ROOT

FLAGS = ('--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
         '--disable-component-update --disable-sync').split()


class Reader(HTMLParser):
    "What a page holds: ids, links, pictures, stylesheets and scripts, the current and neighbouring pages, and its words"
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.images, self.rel, self.tags = [], [], [], [], {}, []
        self.prose, self.code = '', 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.tags.append((tag, a))
        if 'id' in a: self.ids.append(a['id'])
        if tag == 'a' and 'href' in a: self.links.append(a['href'])
        if tag == 'a' and a.get('rel') in ('prev', 'next'): self.rel[a['rel']] = a['href']
        if tag == 'img': self.images.append(a)
        if tag in ('script', 'img', 'iframe', 'source') and 'src' in a: self.loads.append(a['src'])
        if tag == 'link': self.loads.append(a['href'])
        self.code += tag in ('code', 'script', 'style')

    def handle_endtag(self, tag): self.code -= tag in ('code', 'script', 'style')
    def handle_data(self, text): self.prose += text if not self.code else ' '


@pytest.fixture(scope='session')
def docs():
    "The built site's folder"
    r = subprocess.run([sys.executable, ROOT/'tools/site.py', 'build', '--no-quarto'], capture_output=True, text=True, cwd='/')
    if r.returncode: pytest.fail(f'tools/site.py build: {r.stderr}', pytrace=False)
    return ROOT/'_docs'


@pytest.fixture(scope='session')
def pages(docs):
    "Every page by its address, read"
    return {f.relative_to(docs).as_posix(): Reader(f.read_text(encoding='utf-8')) for f in sorted(docs.rglob('*.html'))}


@pytest.fixture(scope='session')
def order():
    "The pages' addresses in the order of _quarto.yml"
    site = load_tool('site')
    rows = site.sidebar(yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents'])
    return [join(dirname(nb), re.sub(r'^\d+[a-zA-Z0-9]*_', '', Path(nb).stem.lower())+'.html') for _, _, nb in rows]


@pytest.fixture(scope='session')
def server(docs):
    "The site's address on a free port of this machine"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(docs)))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}/'
    s.shutdown()
    s.server_close()


@pytest.fixture(scope='module')
def browser():
    "Headless Chromium; gone with this file, since its event loop stands in the way of others"
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)
    if not exe: pytest.skip('no Chromium on the PATH; on Debian: apt-get install chromium')
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=FLAGS)
        yield b
        b.close()


# ---- the files ----
def test_every_notebook_has_its_page(pages, order):
    assert set(order) <= set(pages)
    made = [f.relative_to(ROOT/'nbs') for f in (ROOT/'nbs').rglob('*.ipynb')]
    made = [f.as_posix() for f in made if not any(p[0] in '._' for p in f.parts)]
    assert len(pages) == len(made), (sorted(pages), sorted(made))


def test_links_and_anchors_resolve(pages, docs):
    bad = []
    for name, page in pages.items():
        for href in page.links+page.loads:
            if re.match(r'[a-z]+:|//', href): continue
            path, frag = urldefrag(unquote(href))
            to = normpath(join(dirname(name), path)) if path else name
            if not (docs/to).is_file(): bad.append((name, href, 'no such file'))
            elif frag and to in pages and frag not in pages[to].ids: bad.append((name, href, 'no such heading'))
    assert not bad, bad


def test_nothing_is_loaded_from_elsewhere(pages, docs):
    for name, page in pages.items():
        for src in page.loads: assert not re.match(r'[a-z]+:|//', src), (name, src)
    for css in docs.glob('assets/**/*.css'):
        assert not re.search(r'url\(["\']?(https?:)?//|@import', css.read_text(encoding='utf-8')), css


def test_no_link_to_what_is_not_yet_public(pages):
    config = load_tool('site').config()
    assert not [(n, h) for n, p in pages.items() for h in p.links if h.startswith((config['git'], config['base']))]


def left_over(page): return re.findall(r'.{0,20}(?:\]\(|\*\*|^:::).{0,20}', page.prose)

def test_no_markdown_is_left_in_the_prose(pages):
    assert not {name: left_over(page) for name, page in pages.items() if left_over(page)}
    assert left_over(Reader('<p>the [<code>lin</code>](#lin) layer <code>2**3</code></p>')) == ['the [ ](#lin) layer  ']


def test_ids_are_unique(pages):
    for name, page in pages.items():
        twice = {i for i in page.ids if page.ids.count(i) > 1}
        assert not twice, (name, twice)


def test_pictures_have_a_text_and_a_size(pages):
    for name, page in pages.items():
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


def test_the_reference_holds_every_exported_name(pages, docs):
    html = (docs/'reference.html').read_text(encoding='utf-8')
    for f in (ROOT/'backprop13').glob('[!_]*.py'):
        names = re.search(r'__all__ = \[(.*?)\]', f.read_text(encoding='utf-8'), re.S)[1]
        for n in re.findall(r"'(\w+)'", names): assert re.search(rf'<h3 id="[^"]+">{n}</h3>', html), (f.name, n)


# ---- the module itself ----
def test_cell_options_are_read_as_quarto_reads_them():
    f = load_tool('site').cell_options
    assert f('#| echo: false\n#| fig-alt: "a: b"\nx\n#| not: this') == ({'echo': False, 'fig-alt': 'a: b'}, 'x\n#| not: this')
    assert f('#| exports\n#| output: asis\nx') == ({'output': 'asis'}, 'x')
    assert f('#| fig-alt:\n#|   - one\n#|   - two\nx') == ({'fig-alt': ['one', 'two']}, 'x')
    assert f('x = 1') == ({}, 'x = 1')


def test_a_fence_is_longer_than_any_in_its_text():
    out = load_tool('site').fence('a\n`````\nb', '.python')
    assert out.startswith('`````` {.python}\n') and out.endswith('\n``````')


def test_a_page_of_the_sidebar_without_notebook_is_an_error():
    site = load_tool('site')
    with pytest.raises(site.SiteError, match='nbs/99_none.ipynb'): list(site.sidebar([{'text': 'x', 'href': '99_none.ipynb'}]))


# ---- in a browser ----
def visit(browser, url, **context):
    "Open a page; returns it with all that it complained about and every address that it asked for"
    ctx = browser.new_context(**context)
    page, said, asked = ctx.new_page(), [], []
    page.on('console', lambda m: m.type in ('error', 'warning') and said.append(f'{m.type}: {m.text}'))
    page.on('pageerror', lambda e: said.append(f'uncaught: {e}'))
    page.on('response', lambda r: r.status >= 400 and said.append(f'{r.status}: {r.url}'))
    page.on('requestfailed', lambda r: said.append(f'failed: {r.url}'))
    page.on('request', lambda r: asked.append(r.url))
    assert page.goto(url).status == 200
    page.wait_for_load_state('networkidle')
    return page, said, asked


@pytest.mark.parametrize('scheme,width', [('light', 1440), ('dark', 360)])
def test_every_page_in_a_browser(browser, server, pages, scheme, width):
    for name in pages:
        page, said, asked = visit(browser, server+name, viewport={'width': width, 'height': 800}, color_scheme=scheme)
        page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        page.evaluate("Promise.all([...document.images].map(i => i.decode().catch(() => {})))")
        r = page.evaluate("""() => ({
            broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src),
            maths: [...document.querySelectorAll('.math:not(:has(.katex)), .math:has(.katex-error)')].map(e => e.textContent),
            fonts: [...document.fonts].filter(f => f.status == 'error').map(f => f.family),
            wide: [document.documentElement.scrollWidth, innerWidth], theme: document.documentElement.dataset.theme})""")
        assert not r['broken'] and not r['maths'] and not r['fonts'], (name, r)
        assert r['wide'][0] <= r['wide'][1], (name, r['wide'])
        assert r['theme'] == scheme
        assert not said, (name, said)
        assert all(u.startswith((server, 'data:')) for u in asked), (name, [u for u in asked if not u.startswith(server)])
        page.context.close()


def test_dark_can_be_switched_and_is_remembered(browser, server):
    page, said, _ = visit(browser, server, color_scheme='light')
    paper = lambda: page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert paper() == 'rgb(255, 255, 255)'
    button = page.locator('#theme-toggle')
    button.click()
    dark = paper()
    assert dark != 'rgb(255, 255, 255)' and button.get_attribute('aria-pressed') == 'true'
    page.goto(server+'reference.html')
    assert paper() == dark and button.get_attribute('aria-pressed') == 'true'
    button.click()
    page.reload()
    assert paper() == 'rgb(255, 255, 255)' and not said
    page.context.close()


@pytest.mark.parametrize('word', ['log_softmax', 'lin_grad', 'Licence'])
def test_search_finds_names(browser, server, word):
    page, said, asked = visit(browser, server+'index.html')
    page.keyboard.press('/')
    page.fill('#search input', word)
    page.wait_for_selector('#search .pagefind-ui__result a')
    page.wait_for_function("w => [...document.querySelectorAll('#search a')].some(a => a.textContent.includes(w))", arg=word)
    hit = page.locator('#search a', has_text=re.compile(rf'^{word}$')).first
    hit.click()
    page.wait_for_load_state('networkidle')
    assert page.evaluate('!!document.getElementById(decodeURIComponent(location.hash.slice(1)))')
    assert not said and all(u.startswith(server) for u in asked), (said, asked)
    page.context.close()


@pytest.mark.parametrize('question,heading', [
    ('why the transpose', 'derivatives.html#why-the-transpose'), ('sum over the batch', 'derivatives.html#why-the-sum-over-the-batch'),
    ('where does .g come from', 'backprop.html#where-does-.g-come-from'), ('start from the end', 'derivatives.html#why-start-from-the-end'),
    ('numerator or denominator layout', 'derivatives.html#numerator-or-denominator-layout'),
    ('calling backward twice', 'backprop.html#what-happens-on-calling-backward-twice'),
    ('why x.g too wasted work', 'backprop.html#why-x.g-too-and-when-is-it-wasted-work')])
def test_search_answers_a_question(browser, server, question, heading):
    "The heading that answers is among the results"
    page, said, _ = visit(browser, server+'index.html')
    page.keyboard.press('/')
    page.fill('#search input', question)
    page.wait_for_function("w => [...document.querySelectorAll('#search a')].some(a => decodeURIComponent(a.href).endsWith(w))", arg=heading)
    name, anchor = heading.split('#')
    assert f'id="{anchor}"' in page.request.get(server+name).text() and not said
    page.context.close()


def test_the_menu_opens_on_a_phone(browser, server):
    page, said, _ = visit(browser, server, viewport={'width': 360, 'height': 700})
    menu, button = page.locator('#site-menu'), page.locator('#menu-toggle')
    assert not menu.is_visible() and button.get_attribute('aria-expanded') == 'false'
    button.click()
    assert menu.is_visible() and button.get_attribute('aria-expanded') == 'true' and not said
    page.context.close()


# ---- serve, README ----
def test_serve_says_where_and_stops_quietly(docs):
    import signal, urllib.request
    p = subprocess.Popen([sys.executable, ROOT/'tools/site.py', 'serve', '--port', '8963'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = p.stdout.readline()
        url = re.search(r'http://127\.0\.0\.1:\d+/', line)[0]
        assert urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url).status == 200
    finally: p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=10)
    assert p.returncode == 0 and not err, err


def test_readme_is_what_the_home_page_makes():
    r = subprocess.run([sys.executable, ROOT/'tools/readme.py', '--check'], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    links = re.findall(r'\]\((?![a-z]+:|#)([^)#]+)', (ROOT/'README.md').read_text(encoding='utf-8'))
    assert links and all((ROOT/link).exists() for link in links), links
