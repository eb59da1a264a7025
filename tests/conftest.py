"Fixtures that several test files share"
import contextlib, functools, http.server, importlib, importlib.util, json, math, os, re, shutil, signal
import subprocess, sys, tempfile, threading, time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from filelock import FileLock

root = Path(__file__).resolve().parent.parent
# processes that a shell starts with & ignore Ctrl-C, as would those that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)
CHAPTERS = sorted((root/'nbs').glob('[0-9]*.ipynb'))

def read(file): return (root/file).read_text(encoding='utf-8')

tools = {}

def load_tool(name):
    """The program tools/`name`.py as a module (its folder stays off the path: site.py would stand
    in for Python's own)"""
    if name not in tools:
        file = root/'tools'/f'{name}.py'
        for o in re.findall(r'^from (\w+) import', read(file), re.M):
            if (root/'tools'/f'{o}.py').exists(): load_tool(o)
        spec = importlib.util.spec_from_file_location(name, file)
        tools[name] = importlib.util.module_from_spec(spec)
        # for tools that import one another; Python's own site stays
        sys.modules.setdefault(name, tools[name])
        spec.loader.exec_module(tools[name])
    return tools[name]


# ---- what a test reads, tools/passed.py must know, or `make test` again leaves it out wrongly ----
opened = set()

def note(event, args):
    if event != 'open' or not isinstance(args[0], (str, Path)) or (args[1] or 'r')[0] != 'r': return
    callers, frame = [], sys._getframe(1)
    while frame and len(callers) < 5: callers, frame = [*callers, frame.f_globals.get('__name__')], frame.f_back
    if 'hypothesis.internal.constants_ast' not in callers:         # which looks for numbers in all modules
        opened.add(str(args[0]))

sys.addaudithook(note)
GIVES = {'docs': 'tools/site.py', 'project': 'README.md'}        # what is mostly read by other processes


def named(file): return os.path.relpath(file, root).replace(os.sep, '/')

@functools.cache
def tree(): return load_tool('check').contents(root)

@functools.cache
def undeclared(name): return tree().keys() - load_tool('passed').needs(tree(), name)

@pytest.fixture(autouse=True)
def reads_what_it_says(request):
    "A test opens no file of the project that tools/passed.py doesn't know of; other processes aren't seen"
    yield
    files = [named(os.path.abspath(o)) for o in opened]
    files = {re.sub(r'__pycache__/(\w+)\..*', r'\1.py', o) for o in files}
    files |= {v for k, v in GIVES.items() if k in request.fixturenames}
    name = named(request.path)
    if more := files & (undeclared(name) if name in tree() else set()):
        pytest.fail(f'{name} reads {", ".join(sorted(more)[:9])}: say so in READS of tools/passed.py',
                    pytrace=False)


# ---- two worlds: with MNIST and without. `make test` runs all tests without, and once more, on the real digits,
# those that read any: they have the mark `data`, or ask for `digits`. The others get none, so none is left out.
DATA = os.environ.get('BACKPROP13_DATA')
wheels = root.parent/'shared/data/pyodide'           # copies of the project that a test makes stand elsewhere
if wheels.is_dir(): os.environ.setdefault('BACKPROP13_PYODIDE', str(wheels))

def pytest_configure(config):
    config.addinivalue_line('markers', 'data: reads digits, so it must hold with MNIST and without')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for o in items:
        if 'digits' in getattr(o, 'fixturenames', ()): o.add_marker('data')


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    tree()                                                         # what it opens is no test's
    opened.clear()
    if not item.get_closest_marker('data'):
        os.environ['BACKPROP13_DATA'] = 'a-test-that-reads-digits-has-the-mark-data'
    elif DATA is None: os.environ.pop('BACKPROP13_DATA', None)
    else: os.environ['BACKPROP13_DATA'] = DATA


@pytest.fixture(scope='session')
def digits():
    "MNIST, or the synthetic digits where that isn't at hand"
    from backprop13.data import mnist
    return mnist(DATA)


@pytest.fixture(scope='session')
def project():
    "The root of the checkout"
    return root


def copied(folder, file):
    "A copy of the project that the test file may spoil: of what it reads, as tools/passed.py knows"
    load_tool('check').copy(root, folder, load_tool('passed').needs(tree(), named(file)))
    return folder

@pytest.fixture
def clone(tmp_path, request): return copied(tmp_path/'clone', request.path)


@contextlib.contextmanager
def a_full_disk(size):
    "No file gets longer than that"
    import resource
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, was[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, was)


@pytest.fixture(scope='session')
def shared(tmp_path_factory):
    """A function that gives the folder `name`, which `make(folder)` fills; of pytest-xdist's
    workers the first one that asks makes it for all"""
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: base = base.parent
    def get(name, make):
        failed = base/f'{name}.failed'                           # not tried again, which may take minutes each
        with FileLock(base/f'{name}.lock'):
            if failed.exists(): pytest.fail(failed.read_text(encoding='utf-8'), pytrace=False)
            if not (base/name).exists():
                try: make(new := Path(tempfile.mkdtemp(dir=base)))
                except pytest.fail.Exception as e:
                    failed.write_text(str(e), encoding='utf-8')
                    raise
                new.rename(base/name)
        return base/name
    return get


# ---- JavaScript's arithmetic, in Node ----
NODE = """const {readFileSync} = await import('node:fs')
const {code, calls} = JSON.parse(readFileSync(0), (k, v) => v?.number ? Number(v.number) : v)
const module = await import(`data:text/javascript;base64,${Buffer.from(code).toString('base64')}`)
process.stdout.write(JSON.stringify(calls.map(([name, ...args]) => module[name](...args)),
  (k, v) => typeof v === 'number' && !Number.isFinite(v) ? {number: String(v)} : v?.buffer ? Array.from(v) : v))"""


def node(code, *calls):
    "What the JavaScript module `code` returns for each call (name, argument, ...); infinities and nan pass both ways"
    def there(o):
        if isinstance(o, float) and not math.isfinite(o): return {'number': str(o).replace('inf', 'Infinity')}
        if isinstance(o, dict): return {k: there(v) for k, v in o.items()}
        return [there(v) for v in o] if isinstance(o, (list, tuple)) else o
    def back(o): return float(o['number'].replace('Infinity', 'inf')) if set(o) == {'number'} else o
    r = subprocess.run([load_tool('site').program('node'), '--input-type=module', '-e', NODE], capture_output=True,
                       text=True, encoding='utf-8', input=json.dumps(dict(code=code, calls=there(calls))))
    assert not r.returncode, r.stderr
    return json.loads(r.stdout, object_hook=back)


def in_node(lab, name, cases):
    "What the function `name` of the lab's module returns for each list of arguments in `cases`"
    # not an import statement: on what this file imports every test depends that imports from it (tools/passed.py)
    labs = importlib.import_module('backprop13.support.labs')
    return node(labs.lab_module(lab), *([name, *args] for args in cases))


def lab_data(notebook, lab):
    "What the stored output of `lab` in nbs/`notebook` gives the lab"
    cells = json.loads(read(f'nbs/{notebook}'))['cells']
    shown = [''.join(o['data'].get('text/html', '')) for c in cells for o in c.get('outputs', [])
             if 'data' in o]
    [page] = [o for o in shown if f'data-lab="{lab}"' in o]
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.S)[1])


# ---- the site, and a browser to read it in ----
FLAGS = ('--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
         '--disable-component-update --disable-sync').split()


class Reader(HTMLParser):
    "What a page holds: ids, links, pictures, stylesheets and scripts, the current and neighbouring pages, its words"
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.images, self.rel, self.tags = [], [], [], [], {}, []
        self.prose, self.code, self.proof = '', 0, False
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
        if tag == 'details':
            self.proof = a.get('class') == 'proof'         # what bugs and misfits say is no prose

    def handle_endtag(self, tag):
        self.code -= tag in ('code', 'script', 'style')
        self.proof &= tag != 'details'

    def handle_data(self, text): self.prose += ' ' if self.code or self.proof else text


@pytest.fixture(scope='session')
def docs(shared):
    "The built site's folder"
    env = {k: v for k, v in {**os.environ, 'BACKPROP13_DATA': DATA}.items() if v is not None}     # whichever test asks
    def build(folder):
        r = subprocess.run([sys.executable, root/'tools/site.py', 'build', '--no-quarto'],
                           capture_output=True, text=True, cwd='/', env=env)
        if r.returncode: pytest.fail(f'tools/site.py build: {r.stderr}', pytrace=False)
    shared('site', build)
    return root/'_docs'


@pytest.fixture(scope='session')
def pages(docs):
    "Every page by its address, read"
    return {f.relative_to(docs).as_posix(): Reader(read(f)) for f in sorted(docs.rglob('*.html'))}


@contextlib.contextmanager
def served(folder):
    "The address of a folder on a free port of this machine"
    handler = functools.partial(load_tool('live').Handler, directory=str(folder))
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}/'
    s.shutdown()
    s.server_close()


@pytest.fixture(scope='session')
def server(docs):
    "The site's address on a free port of this machine"
    with served(docs) as address: yield address


@pytest.fixture(scope='module')
def browser():
    "Headless Chromium; gone with this file, since its event loop stands in the way of others"
    sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
    exe = next(filter(None, map(shutil.which, names)), None)
    if not exe: pytest.skip('no Chromium on the PATH; on Debian: apt-get install chromium')
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=FLAGS)
        yield b
        windows.clear()
        b.close()


# (browser, settings) -> context; they stay open, with an empty page: a new one takes longer than most pages
windows = {}

def window(browser, **settings):
    "A window with a script that says what the policy refused: a page's own may swallow that error"
    res = browser.new_context(**settings)
    res.set_default_timeout(120_000)               # on a busy machine Python takes long to load
    # what a service worker asks for, a page's routes don't see
    if settings.get('service_workers') != 'allow': res.add_init_script('delete Navigator.prototype.serviceWorker')
    res.add_init_script("addEventListener('securitypolicyviolation', e => console.error(`refused "
                        "by ${e.effectiveDirective}: ${e.blockedURI}`))")
    res.new_page()
    return res


def visit(browser, url, **settings):
    """Open a page as a new reader does, nothing kept or cached: the page, all that it complained about, every address
    that it asked for. What a page still waits for when it is left may be given up, and nothing else."""
    key = browser, json.dumps(settings, sort_keys=True)
    if key not in windows: windows[key] = window(browser, **settings)
    page, said, asked, waiting, left, leaving = windows[key].new_page(), [], [], set(), set(), []
    devtools = page.context.new_cdp_session(page)
    devtools.send('Network.clearBrowserCache')
    devtools.send('Storage.clearDataForOrigin',
                  {'origin': '{0.scheme}://{0.netloc}'.format(urlsplit(url)), 'storageTypes': 'all'})
    devtools.detach()
    page.on('console', lambda m: m.type in ('error', 'warning') and said.append(f'{m.type}: {m.text}'))
    page.on('pageerror', lambda e: said.append(f'uncaught: {e}'))
    page.on('response', lambda r: r.status >= 400 and said.append(f'{r.status}: {r.url}'))
    def ask(r):
        leaves = r.is_navigation_request() and r.frame == page.main_frame
        if leaves: leaving.append(r)
        if leaving: left.update([r], waiting if leaves else ())
        asked.append(r.url)
        waiting.add(r)
    def fail(r):
        if r.failure != 'net::ERR_ABORTED' or r not in left: said.append(f'failed: {r.failure}, {r.url}')
    page.on('request', ask)
    page.on('requestfailed', fail)
    page.on('framenavigated', lambda f: f == page.main_frame and leaving.clear())
    for end in 'requestfinished', 'requestfailed': page.on(end, lambda r: waiting.discard(r))
    assert page.goto(url).status == 200
    quiet, end = 0, time.monotonic() + 120
    while quiet < 2:
        # Playwright's networkidle waits for half a second
        page.wait_for_timeout(60)
        quiet = 0 if waiting else quiet + 1
        assert time.monotonic() < end, [r.url for r in waiting]
    return page, said, asked


def stop_clock(page):
    "Time stands still on a page, and in its whole window, which no other test gets: it would wait there for ever"
    for key in [k for k, w in windows.items() if w is page.context]: del windows[key]
    page.clock.install()
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)


@pytest.fixture
def open_page(browser, server):
    "A function that opens a page of the site; in the end it must have complained of nothing and asked no other host"
    opened = []
    def show(address, **settings):
        opened.append(visit(browser, server+address, **settings))
        return opened[-1][0]
    yield show
    for page, said, asked in opened:
        elsewhere = [u for u in asked if not u.startswith((server, 'data:', 'blob:'))]
        assert not said and not elsewhere, (said, elsewhere)
        page.close()


def overflows(page): return page.evaluate('document.documentElement.scrollWidth > innerWidth')

def axe(page, *parts, context=None, **options):
    "What axe finds in these parts of a page, as (rule, impact, elements)"
    run = pytest.importorskip('axe_playwright_python.sync_playwright').Axe().run
    found = run(page, context or {'include': [[o] for o in parts]}, {'resultTypes': ['violations'], **options})
    return [(o['id'], o['impact'], [n['html'][:200] for n in o['nodes'][:5]]) for o in found.response['violations']]

# before a page's own scripts: `shift` counts what moves under a reader's eyes; nothing can be kept
SHIFT = """window.shift = 0
    new PerformanceObserver(l => { for (const e of l.getEntries()) if (!e.hadRecentInput) shift += e.value })
        .observe({type: 'layout-shift', buffered: true});"""
NOTHING_KEPT = """Object.defineProperty(window, 'localStorage',
    {get() { throw new DOMException('no', 'SecurityError') }})"""


@pytest.fixture
def progress_elsewhere(monkeypatch, tmp_path_factory):
    "Progress of exercises goes to a folder of the test's own, and none is known from a test before"
    exercises = importlib.import_module('backprop13.practice.exercises')                   # as above
    folder = tmp_path_factory.mktemp('progress')
    monkeypatch.setenv('XDG_DATA_HOME', str(folder))
    monkeypatch.setattr(exercises, '_unsaved', {})
    return folder


# ---- a lab in its page, and what a reader does there ----
# lab -> its chapter
LABS = {name: f.stem.split('_', 1)[1] for f in CHAPTERS for cell in json.loads(read(f))['cells']
        if cell['cell_type'] == 'code' for name in re.findall(r'^labs\.(\w+)\(', ''.join(cell['source']), re.M)}


# other labs of the page come to life, too, and move it: five frames in one place
STILL = """async e => { await document.fonts.ready
    for (let y, n = 0; n < 5; n = y === (y = e.getBoundingClientRect().y) ? n + 1 : 0)
        await new Promise(requestAnimationFrame) }"""

@pytest.fixture
def open_lab(browser, server):
    "A function that opens the page of a lab and gives the lab, alive; what the page complains about fails the test"
    opened = []
    def show(name, **settings):
        page, said, _ = visit(browser, f'{server}{LABS[name]}.html', **settings)
        opened.append((page, said))
        lab = page.locator(f'.lab[data-lab={name}]').first
        lab.scroll_into_view_if_needed()
        page.wait_for_selector(f'.lab[data-lab={name}][data-live]')
        lab.evaluate(STILL)
        return lab
    yield show
    for page, said in opened:
        said = [o for o in said if 'willReadFrequently' not in o]      # of the tests' own reading
        assert not said, said
        page.close()


def button(lab, name): lab.get_by_role('button', name=name, exact=True).click()
def value(part, of='now'): return float(part.get_attribute(f'aria-value{of}'))
def slider(lab, name): return lab.get_by_role('slider', name=name, exact=True)
def press(lab, *keys, times=1):
    for key in keys*times: lab.page.keyboard.press(key)
def cells(lab, head):
    return lab.locator('tr', has=lab.page.get_by_role('rowheader', name=head, exact=True)).locator('td')
def number(text): return float(text.replace('−', '-').replace('\u00a0', ''))

MIDDLE = 'e => { const r = e.getBoundingClientRect(); return [r.x + r.width/2, r.y + r.height/2] }'

def drag(page, *points):
    "The mouse down at the first point, along the others, and up"
    page.mouse.move(*points[0])
    page.mouse.down()
    for p in points[1:]: page.mouse.move(*p, steps=5)
    page.mouse.up()

def beside(part, *by):
    "Points on the screen: the middle of a part, and what is that far from it"
    x, y = part.evaluate(MIDDLE)
    return [(x + dx, y + dy) for dx, dy in ((0, 0), *by)]


def pytest_terminal_summary(terminalreporter):
    "The count of the mutants that the run killed, in all and by kind"
    killed, seen = {}, {}
    for outcome in 'passed', 'failed':
        for report in terminalreporter.stats.get(outcome, []):
            for kind in (v for k, v in report.user_properties if k == 'mutant'):
                seen[kind] = seen.get(kind, 0) + 1
                killed[kind] = killed.get(kind, 0) + (outcome == 'passed')
    if seen:
        terminalreporter.section(f'mutants: {sum(killed.values())} of {sum(seen.values())} killed')
        for kind in sorted(seen, key=lambda k: (-seen[k], k)):
            terminalreporter.line(f'{killed[kind]:3} of {seen[kind]:3}  {kind}')
