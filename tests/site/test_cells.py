"Cells that run in their page: what each needs, which marks are refused, what they print in Chromium, and the page around them."
import functools, http.server, json, re, threading

import pytest
from conftest import CHAPTERS, axe, load_tool, overflows, read, root, visit

tool = load_tool('cells')


# ---- what a cell needs ----
def cell(source, *outputs, id='', **more): return dict(cell_type='code', source=source, outputs=[*outputs], id=id or f'{abs(hash(source)):x}', metadata={}, **more)
def text(s): return dict(output_type='execute_result', data={'text/plain': s})
def said(s): return dict(output_type='stream', name='stdout', text=s)
def notebook(folder, name, *cells):
    "A notebook of these cells, the last of them live"
    *before, (last, *outputs) = [(o, ) if isinstance(o, str) else o for o in cells]
    made = [cell(o[0]) for o in before] + [cell(f'#| live\n{last}', *outputs)]
    (folder/name).write_text(json.dumps(dict(cells=made)), encoding='utf-8')
    return folder/name

# the last cell is live; those that it needs come after `<-`
NEEDS = '''
x = 1 | y = 2 | x <- x = 1
x = 1 | x = 2 | x <- x = 2
x = 1 | x += 1 | x <- x = 1 | x += 1
x = [1] | x[0] = 2 | x <- x = [1] | x[0] = 2
x = [1] | x.append(2) | x <- x = [1] | x.append(2)
x = [1] | y = x.pop() | x <- x = [1] | y = x.pop()
x = [1] | del x[0] | x <- x = [1] | del x[0]
x = [1] | change(x) | x <- x = [1] | change(x)
x = [1] | print(x) | y = len(x) | x <- x = [1]
o = O() | o.g, z = 1, 2 | o <- o = O() | o.g, z = (1, 2)
f = 3 | f = lambda a: a + z | z = 4 | f(1) <- f = lambda a: a + z | z = 4
z = 3 | f = lambda: z | f() <- z = 3 | f = lambda: z
x = 1 | x = 3; x <-
x = 1 | [x for x in range(3)] <-
x = 1 | [x for y in range(3)] <- x = 1
x = 1 | (lambda x: x)(2) <-
x = 1 | f = lambda: x; x = 2; f() <-
import numpy, math as m | m.pi <- import math as m
import math | use(math.pi) | math <- import math
import math | math.seed(1) | math <- import math | math.seed(1)
gen = 1 | a = draw(3, generator=gen) | b = draw(3, generator=gen) <- gen = 1 | a = draw(3, generator=gen)
a = 1 | b = a | c = b | c <- a = 1 | b = a | c = b
a = 1 | a + b if 0 else a <- a = 1
'''.strip().splitlines()
MORE = [(['x = 1', 'for x in (2, 3): pass', 'x'], ['for x in (2, 3):\n    pass']),
        (['x = 1', 'if 1: x = 2', 'x'], ['x = 1', 'if 1:\n    x = 2']),
        (['try: x = 1\nexcept E: pass', 'x'], ['try:\n    x = 1\nexcept E:\n    pass']),
        (['e = 1', 'try: e\nexcept E as e: print(e)'], ['e = 1']),
        (['x = 1', 'for x in (2, 3): print(x)'], []),
        (['def g(): return 1', 'def f(): return g()', 'def g(): return 2', 'f()'],
         ['def g():\n    return 1', 'def f():\n    return g()', 'def g():\n    return 2']),
        (['def f(a=z): return a', 'f()'], ['def f(a=z):\n    return a']), (['z = 1', 'def f(a=z): return a'], ['z = 1']),
        (['class A: pass', 'class B(A): x = 1', 'B'], ['class A:\n    pass', 'class B(A):\n    x = 1']),
        (['def f(): return 1', 'use(f)', 'f'], ['def f():\n    return 1']),
        (['@wrap\ndef f(): return 1', 'f'], ['@wrap\ndef f():\n    return 1'])]
CASES = [([*map(str.strip, a.split('|'))], [o for o in map(str.strip, b.split('|')) if o])
         for a, _, b in (o.partition('<-') for o in NEEDS)] + MORE

def wrong(t, folder):
    "The cases in which the program `t` finds other needs"
    for cells, want in CASES:
        all_ = list(t.pieces(t.read(notebook(folder, 'a.ipynb', *cells))))
        if [all_[k].code for k in t.needs(all_, len(all_) - 1)] != want: yield cells

def test_needs(tmp_path): assert not [*wrong(tool, tmp_path)]

def mutant(old, new):
    source = read('tools/cells.py')
    assert source.count(old) == 1, old
    module = type(tool)('mutant')
    module.__file__ = tool.__file__
    exec(compile(source.replace(old, new), 'mutant', 'exec'), vars(module))
    return module

@pytest.mark.parametrize('old,new', [
    ('for k in reversed(range(at))', 'for k in range(at)'), ('if name in all_[k].changes or', 'if'),
    ('(name in all_[k].gives or', '(False or'), ("(n, i) for n in p.late]", "(n, k) for n in p.late]"),
    ('p.reads | p.late - p.binds]', 'p.reads]'), ('all_[i].late - all_[i].binds]', 'all_[i].late]'),
    ('name in all_[bound].solid', 'False'), ("if k.arg == 'generator'", "if False"),
    ('CHANGES.fullmatch(f.attr)', 'False'), ("QUIET.fullmatch(", "re.fullmatch('x', "),
    ('isinstance(s, ast.AugAssign) and', 'False and'), ('self.read(o.iter, inner); self.bind(o.target, inner)', 'self.read(o.iter, inner)'),
    ('isinstance(node, FUNCTIONS) and o is node.body', 'False'), ('bound |= set.intersection(*ways)', 'bound |= set.union(*ways)'),
    ('self.read(s.iter, bound); self.bind(s.target, bound)', 'self.read(s.iter, bound)')])
def test_a_planted_mistake_is_noticed(tmp_path, old, new):
    assert [*wrong(mutant(old, new), tmp_path)]


# ---- which marks are refused ----
IMPORT = 'from backprop13.data import mnist', 'data = mnist()'
REFUSED = {
    'other.ipynb': (('1 + 1', text('3')), "prints '2', stored is '3'"),
    'more.ipynb': (('print(1)', ), "prints '1', stored is ''"),
    'raises.ipynb': (('z', ), "says \"NameError: name 'z' is not defined\""),
    'lacks.ipynb': ('import matplotlib.pyplot as plt', ('plt', ), "in what it needs, 'import matplotlib.pyplot as plt'"),
    'real.ipynb': ('import torch', ('torch.fft', ), 'torch.fft is not in the page'),
    'processes.ipynb': (('import multiprocessing', ), 'multiprocessing'),
}
@pytest.mark.data
def test_what_the_page_would_not_print_is_refused(tmp_path, digits):
    "By a sentence that names the cell; so are numbers of all images, of which the page has a few"
    wanted = dict(REFUSED)
    if digits.source == 'MNIST':
        for i, whole in enumerate(['data.x_train.mean()', 'data.x_train[:50].sum()', 'data.x_valid[5]', 'data.x_train[-1]', 'data.y_train.sum()',
                                   'data.x_train @ data.x_train', 'for x in data.x_train: pass', 'data.x_train[::2]', 'data.y_train == 3']):
            wanted[f'{i}.ipynb'] = *IMPORT, (whole, ), 'has only the first 5 images'
    paths = [notebook(tmp_path, name, *cells) for name, (*cells, _) in wanted.items()]
    got = tool.refusals([*paths, notebook(tmp_path, 'fine.ipynb', 'x = 1', ('print(2)\n(x, x)', said('2\n'), text('(1, 1)')))])
    assert len(got) == len(wanted)
    for sentence, (name, (*cells, why)) in zip(got, wanted.items()):
        assert sentence.startswith(f"nbs/{name}, cell {len(cells)}, can't be live: the page ") and why in sentence


@pytest.mark.parametrize('head,output,why', [
    ('', dict(output_type='display_data', data={'image/png': 'x'}), 'it shows image/png'),
    ('', dict(output_type='execute_result', data={'text/html': 'x', 'text/plain': 'x'}), 'it shows text/html'),
    ('#| output-varies\n', text('1'), 'its output varies')])
def test_what_is_no_text_or_varies_is_refused(tmp_path, head, output, why):
    with pytest.raises(tool.CellError, match=f"nbs/a.ipynb, cell 1, can't be live: {why}"):
        tool.live(notebook(tmp_path, 'a.ipynb', (head + 'x', output)))


@pytest.mark.data
def test_facts_of_all_images_and_the_first_few_are_true(tmp_path, digits):
    if digits.source != 'MNIST': assert tool.images() is None and not [r for r in tool.ready(tool.live(CHAPTERS[1])) if r.get('images') and 'id' in r]
    else:
        said = 'data.x_train.shape, len(data.y_valid), data.y_train.max(), data.x_valid[4].sum(), data.y_valid[:5], data.x_train[0:2].shape'
        want = repr(eval(said, dict(data=digits)))
        [told] = tool.got([tool.ready(tool.live(notebook(tmp_path, 'a.ipynb', *IMPORT, (said, ))))])
        assert ''.join(tool.plain(told[0]).split()) == ''.join(want.split())


def live_chapters(): return [p for p in CHAPTERS if tool.cells_of(tool.live(p))]

@pytest.mark.data
def test_live_cells_print_what_is_stored_where_only_numpy_is_installed(digits):
    "Each with what it needs, and nothing else"
    assert not tool.refusals(live_chapters())
    assert len(live_chapters()) == 6 and sum(len(tool.cells_of(tool.live(p))) for p in CHAPTERS) > 90


# ---- in Chromium ----
@pytest.fixture(scope='module')
def parts():
    "The address of the site's assets, Python among them, and that of an empty page with the site's policy"
    site = load_tool('site')
    if not (site.NBS/'assets/python/parts.json').exists(): site.get_parts()
    policy = ' '.join(re.search(r'Content-Security-Policy" content="([^"]*)"', read('tools/template.html'))[1].split())
    class Handler(load_tool('live').Handler):
        def do_GET(self):
            if self.path != '/': return super().do_GET()
            self.send_response(200)
            for k, v in {'Content-Type': 'text/html', 'Content-Security-Policy': policy}.items(): self.send_header(k, v)
            self.end_headers()
            self.wfile.write(b'<!doctype html><link rel="icon" href="data:,">')
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=str(root/'nbs/assets')))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}/'
    s.shutdown()
    s.server_close()

RUN = """async books => {
  const {Python} = await import('/python/python.js'), python = new Python(), told = []
  for (const codes of books) {
    await python.reset()
    told.push([])
    for (const code of codes) told.at(-1).push(await python.run(code))
  }
  python.stop()
  return told
}"""

def print_what_is_stored(browser, parts, paths):
    "Run the chapters' pieces in their order, with no host but this machine; no cell may differ, not in the last digit"
    books = [tool.ready(tool.live(p)) for p in paths]
    page, complained, asked = visit(browser, parts)
    told = page.evaluate(RUN, [[tool.START, *(r['code'] for r in rows)] for rows in books])
    page.close()
    assert not complained and all(u.startswith((parts, 'blob:')) for u in asked)
    bad = [f"{p.name}, {r['code']}: {t['error'] or tool.plain(t)!r}, stored is {r['stored']!r}"
           for p, rows, (_, *all_) in zip(paths, books, told) for r, t in zip(rows, all_)
           if 'id' in r and (t['error'] or tool.plain(t) != r['stored'])]
    assert not bad, '\n'.join(bad)

def test_live_cells_print_what_is_stored_in_chromium(browser, parts): print_what_is_stored(browser, parts, live_chapters())
@pytest.mark.data
def test_live_cells_that_need_images_do_too(browser, parts, digits): print_what_is_stored(browser, parts, CHAPTERS[1:2])


# ---- the page around them ----
def press(page):
    "The page's control; waits for Python"
    page.get_by_role('button', name='code').first.click()
    page.wait_for_function("() => document.querySelector('.actions [data-cells]').textContent.includes('below')")
    page.evaluate("document.querySelectorAll('main details').forEach(o => { o.open = true })")

def of(page, name): return page.locator('.cell[data-live]', has=page.get_by_role('button', name=f'Run: {name}', exact=True))
def put(page, name, code):
    of(page, name).locator('.cm-content').click()
    page.keyboard.press('Control+a')
    page.keyboard.insert_text(code)
def code_of(page, name): return '\n'.join(of(page, name).locator('.cm-line').all_inner_texts()).replace('\u200b', '')
def run(page, name, says):
    of(page, name).get_by_role('button', name=f'Run: {name}', exact=True).click()
    of(page, name).locator('.note', has_text=says).wait_for()
def yours(page, name): return of(page, name).locator('.yours').inner_text() if of(page, name).locator('.yours').is_visible() else ''

HEIGHT = 'document.documentElement.scrollHeight'

def test_nothing_loads_before_the_press_and_the_control_costs_no_height(open_page):
    for width in 1440, 390:
        page, asked = open_page('backprop.html', viewport={'width': width, 'height': 844}), []
        page.on('request', lambda r: asked.append(r.url))
        page.reload(wait_until='networkidle')
        assert not [u for u in asked if '/python/' in u or 'cells.json' in u]
        control = page.get_by_role('button', name='MB')
        assert re.search(r'Run (this page’s|its) code \((loads )?\d+ MB', control.inner_text())
        before = page.evaluate(HEIGHT)
        control.evaluate('e => e.parentElement.remove()')
        assert page.evaluate(HEIGHT) == before


def test_a_reader_breaks_lin_grad_sees_which_check_falls_and_mends_it(open_page):
    page = open_page('backprop.html', viewport={'width': 1440, 'height': 900})
    press(page)
    run(page, 'check_everywhere', '✓ ran')
    whole = code_of(page, 'lin_grad')
    put(page, 'lin_grad', whole.replace('matmul(inp.t(), out.g)', '-matmul(inp.t(), out.g)'))
    assert of(page, 'check_everywhere').locator('.note').inner_text() == 'not run since that edit'
    run(page, 'check_everywhere', 'an error')
    assert re.match(r'✗ Line 15: AssertionError: w1: relative error', yours(page, 'check_everywhere'))
    assert 'check_rung' in of(page, 'check_everywhere').locator('.cm-fault').inner_text()
    put(page, 'lin_grad', whole.replace('w.g = matmul', 'w.g = oops; matmul'))
    run(page, 'check_everywhere', 'an error')
    assert "NameError: name 'oops'" in yours(page, 'check_everywhere')
    put(page, 'lin_grad', 'def lin_grad(:')
    run(page, 'check_everywhere', 'not run')
    assert yours(page, 'check_everywhere').startswith('✗ It needs lin_grad, which says: SyntaxError')
    assert yours(page, 'lin_grad').startswith('✗ Line 1: SyntaxError')
    put(page, 'lin_grad', whole)
    run(page, 'check_everywhere', '✓ ran')
    assert not page.locator('.yours:visible').count()
    put(page, 'lin_grad', 'def lin_grad(:')
    page.wait_for_timeout(600)                                 # until it is kept
    page.reload(wait_until='networkidle')                      # edits are kept
    press(page)
    assert code_of(page, 'lin_grad') == 'def lin_grad(:'
    of(page, 'lin_grad').get_by_role('button', name='Reset').click()
    assert code_of(page, 'lin_grad') == whole and not of(page, 'lin_grad').get_by_role('button', name='Reset').is_visible()


def test_cells_run_in_the_notebooks_order_whatever_the_readers(open_page):
    page = open_page('backprop.html', viewport={'width': 390, 'height': 844}, color_scheme='dark')
    press(page)
    first, fifth = 'cell 1 of 18', 'cell 5 of 18'
    run(page, fifth, '✓ the same as stored')
    run(page, first, '✓ the same as stored')
    stored = of(page, first).locator('.cell-output').inner_text()
    put(page, first, 'print(3)\nw')                            # which the fifth defines, further down
    run(page, first, 'an error')
    assert re.sub(r'\s+', ' ', yours(page, first)) == "Yours: 3 ✗ Line 2: NameError: name 'w' is not defined"
    assert of(page, first).locator('.cell-output').inner_text() == stored
    of(page, first).get_by_role('button', name='Reset').click()
    put(page, 'Greeter', 'print(lin_grad.__name__, x)')        # it didn't need these as it was
    run(page, 'Greeter', 'another output')
    assert 'lin_grad tensor([[1., 2., 0.],' in yours(page, 'Greeter')
    assert not axe(page, '.actions', '.runs', '.yours') and not overflows(page)
    put(page, first, 'while True: pass')
    page.keyboard.press('Shift+Enter')
    page.get_by_role('button', name='Stop', exact=True).click()
    of(page, first).locator('.note', has_text='Stopped').wait_for()
    of(page, first).get_by_role('button', name='Reset').click()
    of(page, 'lin').get_by_role('button', name='Run to here').click()
    of(page, 'lin').locator('.note', has_text='✓ ran').wait_for()
    assert [of(page, o).locator('.note').inner_text() for o in (first, 'relu', 'mse')] == ['✓ the same as stored', '✓ ran', '']


def test_without_python_no_cell_is_live(tmp_path, monkeypatch):
    site = load_tool('site')
    monkeypatch.setattr(site.Page, 'python', 0)
    monkeypatch.setattr(site.Page, 'folder', tmp_path)
    monkeypatch.chdir(root)
    monkeypatch.setenv('BACKPROP13_SITE', 'pandoc')
    page = site.prepared('02_derivatives.ipynb', tmp_path/'proc')
    assert 'data-live' not in page.md and 'data-cells' not in page.actions() and not [*tmp_path.rglob('cells.json')]
