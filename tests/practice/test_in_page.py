"""Python in the page, in headless Chromium: cells and exercises in its worker, judged as natively; nothing is asked
of other hosts; what happens where Python is stopped, broken, or not there."""
import ast, hashlib, io, json, random, re, shutil, subprocess, sys, tempfile, zipfile
from dataclasses import replace
from pathlib import Path

import pytest, torch
from conftest import load_tool, read, root, served, visit

from backprop13.practice.exercises import EXERCISES, solution
from backprop13.practice.page import shown
from mistakes import BY_KIND, WRONG, home_of, text_of, verdict

inpage = load_tool('inpage')
MODULE = 'import("{}assets/python/python.js").then(m => {{ window.python = m; window.py = new m.Python() }})'
# what the names of mistakes.py's cells are
NAMES = '''import importlib, torch.nn.functional as F
from backprop13 import minibatch
globals().update({{**vars(importlib.import_module('{}')), 'F': F, 'minibatch': minibatch}})'''


@pytest.fixture(scope='module')
def built(docs):
    "The site's folder; skipped where it has no Python"
    told = json.loads((docs/'assets/python/parts.json').read_text())
    if not told['parts']: pytest.skip(told['why'])
    return docs


@pytest.fixture(scope='module')
def room(browser, built, server):
    "A page whose Python is started; every other host is out of reach, and isn't asked, and nothing is complained about"
    page, said, asked = visit(browser, f'{server}practice/layers.html')
    page.route(lambda url: not url.startswith(server), lambda route: route.abort())
    page.evaluate(MODULE.format(server))
    page.evaluate('py.start()')
    page.said, page.asked = said, asked
    page.elsewhere = lambda: [o for o in asked if not o.startswith((server, 'data:', 'blob:'))]
    yield page
    page.close()
    assert not said and not page.elsewhere()


def judged(page, rows, seconds=None):
    "What `check` says of each (exercise, code), each in a page's names of its own, which are those of mistakes.py"
    return page.evaluate('''async ([rows, seconds]) => {
        const said = []
        for (const [name, names, code] of rows) {
            await py.reset('here')
            await py.run(names, {home: 'here'})
            said.push(await py.check(name, code, {home: 'here', seconds}))
        }
        return said
    }''', [[[name, NAMES.format(home_of[name]), code] for name, code in rows], seconds])


def test_every_solution_is_right(room):
    said = judged(room, [(name, solution(name)) for name in EXERCISES])
    assert len(said) >= 29 and not [o['text'] for o in said if not o['ok'] or o['property'] is not None]


ROWS = [(name, row[1], row[2]) for name, rows in WRONG.items() for row in rows if row[2] != 'time']
ROWS += [(name, *row) for rows in BY_KIND.values() for name, row in rows.items()]
# refused as well, for another reason: (exercise, code) -> why
OTHERWISE = {('log_softmax', BY_KIND['ready-made']['log_softmax'][0]): 'it asks for what the page has not'}

def test_wrong_ones_get_the_same_verdict(room):
    "The property that test_exercises.py wants of `check`; and the differences are those that are listed, no more"
    assert len(ROWS) > 350
    texts = [(name, text_of(name, how)) for name, how, _ in ROWS]
    found = {}
    for (name, text), (_, how, properties), o in zip(texts, ROWS, judged(room, texts, 60)):
        want = properties if ',' not in properties else verdict(name, text).property
        if o['ok'] or o['property'] != want: found[name, str(how)] = o['property'], want, o['message']
    assert found.keys() == OTHERWISE.keys() and all(got for got, *_ in found.values()), found


# ---- cells ----
def test_a_cell_shows_what_it_printed_and_its_last_value(room):
    code = 'import torch\nprint("one")\nprint("two")\nx = torch.ones(2, 3)\nx'
    heard = room.evaluate('''async code => {
        const heard = [], told = await py.run(code, {onprint: s => heard.push(s)})
        return [told, heard.join('')]
    }''', code)
    parts = [dict(kind='text', data='one\ntwo\n'),
             dict(kind='text', data='tensor([[1., 1., 1.],\n        [1., 1., 1.]])\n')]
    assert heard == [dict(out=parts, error=None), 'one\ntwo\n']
    assert room.evaluate('py.run("x.shape;")')['out'] == []


def test_an_error_names_the_line_of_the_cell(room):
    def error(code): return room.evaluate('code => py.run(code)', code)['error']
    assert error('import torch\ntorch.ones(2) + torch.ones(3)')['line'] == 2
    assert error('a = 1\nb = (a') == dict(line=2, text="SyntaxError: '(' was never closed")
    assert error('def f():\n    return nothing') is None
    assert error('a = 1\nb = 2\nf()') == dict(line=3, text="NameError: name 'nothing' is not defined")
    assert 'torch.fft is not in the page: open the notebook' in error('torch.fft')['text']


def test_each_home_has_its_names_and_forgets_them(room):
    def shown(code, **where): return room.evaluate('([code, where]) => py.run(code, where)', [code, where])
    shown('mine = 1', home='a')
    assert shown('mine', home='a')['out'][0]['data'] == '1\n' and shown('mine', home='b')['error']
    room.evaluate('py.reset("a")')
    assert shown('mine', home='a')['error']


def test_a_cell_that_defines_nothing_or_fails_is_told(room):
    def told(code): return room.evaluate('code => py.check("lin", code, {home: "c"})', code)
    assert (o := told('x = 1'))['property'] == 'name' and 'defines no `lin`' in o['text'] and not o['ok']
    assert (o := told('def lin(x, w, b) return'))['property'] == 'exception' and 'in line 1' in o['message']
    o = told('print("<b>")\ndef lin(x, w, b):\n    return x @ (w < b)')
    assert o['out'] == [dict(kind='text', data='<b>\n')] and 'in line 3 of its cell: `return x @ (w < b)`' in o['text']
    assert any('<code>return x @ (w &lt; b)</code>' in line for line in o['lines'])
    o = told('def lin(x, w, b):\n    print(tuple(x.shape), "<b>")\n    return x @ w - b')      # printed where it fails
    assert o['lines'][-2:] == ['It prints:', '<code>(2, 3) &lt;b&gt;</code>']


# ---- stopped ----
def test_an_endless_loop_is_stopped_and_what_ran_runs_again(room):
    said = room.evaluate('''async () => {
        await py.run('import torch\\nkept = torch.tensor([41])', {home: 'd'})
        await py.run('kept += 1; 1/0', {home: 'd'})                // with an error: isn't run again
        const ends = [py.run('while True: pass', {home: 'd'}), py.run('kept = 0', {home: 'd'})]
        setTimeout(() => py.stop(), 300)
        return (await Promise.allSettled(ends)).map(o => o.reason?.name)
    }''')
    assert said == ['Stopped', 'Stopped']
    assert room.evaluate('py.run("kept", {home: "d"})')['out'][0]['data'] == 'tensor([41])\n'
    assert judged(room, [('relu', solution('relu'))])[0]['ok']


def test_one_that_is_stopped_while_it_starts_leaves_the_next_alone(room):
    said = room.evaluate('''async () => {
        const other = new python.Python(), ends = [other.run('41')]
        other.stop()
        ends.push(other.run('42'))
        const said = await Promise.allSettled(ends)
        other.stop()
        return said.map(o => o.reason?.name ?? o.value.out[0].data)
    }''')
    assert said == ['Stopped', '42\n']


def test_a_trial_that_takes_too_long_is_told_as_in_a_notebook(room, monkeypatch):
    name, how = next((name, row[1]) for name, rows in WRONG.items() for row in rows if row[2] == 'time')
    monkeypatch.setitem(EXERCISES, name, replace(EXERCISES[name], seconds=1))
    [said] = judged(room, [(name, text_of(name, how))], seconds=1)
    want = verdict(name, text_of(name, how), here=False)
    assert want.property == said['property'] == 'time'
    # a worker that is ended can't say where it was
    assert re.sub(r', in `\w+`, in line .*`(?=, for)', '', want.message) == said['message']
    assert said['held'] == len(want.held)
    ended = room.evaluate('py.check("relu", "def relu(x):\\n    import os\\n    os._exit(1)")')
    assert ended['property'] == 'exception' and 'it ends Python itself' in ended['message']
    assert judged(room, [('relu', solution('relu'))])[0]['ok']


# ---- nobody else is asked ----
def test_no_other_host_is_asked(room):
    "And a request of the worker's would be seen: it is, when a cell asks"
    assert any(o.endswith('.wasm') for o in room.asked) and not room.elsewhere()
    room.evaluate('py.run("import js; js.fetch(\'http://elsewhere.example/\')")')
    room.wait_for_timeout(200)
    assert room.elsewhere() == ['http://elsewhere.example/']
    room.asked.clear(), room.said.clear()


def test_a_page_whose_button_is_not_pressed_asks_for_none_of_it(pages, browser, server):
    "Neither Python nor its worker; pages of exercises ask for how much it would be"
    def python(those): return [o for o in those if 'python/pyodide' in o or 'worker.js' in o]
    for address, page in pages.items(): assert not python(page.loads), address
    for address in 'index.html', 'matmul.html', 'practice/layers.html':
        page, _, asked = visit(browser, server + address)
        assert asked and not python(asked)
        if address != 'practice/layers.html': assert not [o for o in asked if 'assets/python' in o]
        page.close()


# ---- what it reads to start ----
LOADED = """import sys
specs = {k: getattr(o, '__spec__', None) for k, o in sys.modules.items() if not k.startswith('backprop13')}
files = {k: o and o.origin or '' for k, o in specs.items()}
[k for k, f in files.items() if f.endswith('.py')], sum(f.endswith('.pyc') for f in files.values()), [
    k for k in ('numpy.random', 'backprop13.practice.exercises') if k in sys.modules]"""
NAMED = 'import numpy as np\nnp.fft, np.ma, np.polynomial, np.testing\nnp.linalg.svd(np.eye(2)).S'

def test_what_is_imported_is_compiled_and_no_more_than_a_cell_needs(room):
    "And of NumPy nothing was left out that one would call"
    before, judged, after, numpy = room.evaluate('''async ([code, solution, numpy]) => {
        const other = new python.Python()
        const said = [await other.run(code), await other.check('relu', solution)]
        said.push(await other.run(code), await other.run(numpy))
        other.stop()
        return said
    }''', [LOADED, solution('relu'), NAMED])
    as_text, n, more = ast.literal_eval(before['out'][0]['data'])
    assert as_text == [] and n > 200 and more == []
    as_text, *_, more = ast.literal_eval(after['out'][0]['data'])
    # three small ones are left as text
    assert judged['ok'] and all(o.startswith('importlib.') for o in as_text) and len(more) == 2
    assert numpy['out'] == [dict(kind='text', data='array([1., 1.])\n')]


# ---- without it, or broken ----
def starts(browser, folder):
    "What `size` and `start` give on a site of these assets: the number, and the sentence of the error"
    (folder/'page.html').write_text('<!DOCTYPE html><title>One</title><link rel="icon" href="data:,">')
    with served(folder) as site:
        page = browser.new_page()
        page.goto(f'{site}page.html')
        page.evaluate(MODULE.format(site))
        size = page.evaluate('python.size()')
        said = page.evaluate('py.start().then(() => "", e => e.message)')
        page.close()
        return size and size['bytes'], said


@pytest.fixture
def some(built, tmp_path):
    "A copy of the site's Python that may be spoilt"
    shutil.copytree(built/'assets/python', tmp_path/'assets/python')
    return tmp_path


def test_size_is_what_a_compressing_server_sends(room, built):
    said = room.evaluate('python.size()')
    files = {f.name: f.stat().st_size for f in (built/'assets/python/pyodide').iterdir() if f.suffix != '.txt'}
    assert {o['name']: o['raw'] for o in said['parts']} == files
    each = [o['bytes'] for o in said['parts']]
    assert max(each) < 3.5e6 and sum(each) == said['bytes'] < 9e6


@pytest.mark.parametrize('file', ['numpy.zip', 'backprop13.zip', 'pyodide.asm.wasm', 'pyodide.mjs'])
def test_a_part_that_is_broken_or_not_there_is_told_in_a_sentence(browser, some, file):
    [part] = (some/'assets/python/pyodide').glob(file)
    blob = part.read_bytes()
    # a zip with a byte more can still be read: its sum alone tells
    part.write_bytes(blob[:2000] + bytes(99) + blob[2099:] if file.endswith('.wasm') else blob + b' ')
    if file == 'pyodide.mjs': part.unlink()
    _, said = starts(browser, some)
    assert said.startswith("Python can't be loaded: ") and said.endswith('.') and '\n' not in said
    if part.suffix == '.zip': assert f"{part.name} can't be fetched, or is not what the site" in said


def test_a_site_without_python_says_so(browser, tmp_path):
    (folder := tmp_path/'assets/python').mkdir(parents=True)
    for name in 'python.js', 'worker.js': (folder/name).write_text(read(f'nbs/assets/python/{name}'))
    (folder/'parts.json').write_text('{"parts": null}')
    assert starts(browser, tmp_path) == (None, 'This site was built without Python.')


# ---- how a value is shown ----
def some_value(draw, depth=3):
    "Of several kinds; what takes several lines itself, in no more than one container"
    k = draw.randrange(9 if depth else 5)
    if k == 0: return draw.randrange(10**draw.randrange(1, 9))
    if k == 1: return 'word '*draw.randrange(1, 9)
    if k == 2: return draw.random()
    if k == 3: return torch.arange(draw.randrange(1, 30 if depth == 2 else 9))
    if k == 4: return torch.ones(2, draw.randrange(1, 6)) if depth == 2 and draw.random() < .5 else None
    items = [some_value(draw, depth - 1) for _ in range(draw.choice([0, 1, 2, 3, 8, 20]))]
    if k == 5: return items
    if k == 6: return tuple(items)
    if k == 7: return {f'key {i}'*draw.randrange(1, 4): v for i, v in enumerate(items)}
    return {draw.randrange(1000) for _ in items}


def test_a_value_is_shown_as_ipython_shows_it():
    pretty = pytest.importorskip('IPython.lib.pretty').pretty
    values = [some_value(random.Random(i)) for i in range(500)] + [[*range(1500)], [3]*1000, {'a', 3}]
    assert not [v for v in values if shown(v) != pretty(v)]


# ---- what the build puts there ----
NUMPY = 'numpy-2.0.2-cp312-cp312-pyodide_2024_0_wasm32.whl'

@pytest.fixture
def alone(monkeypatch, tmp_path):
    "No place has the wheel but those that a test fills: the folder that is named, and the cache"
    monkeypatch.setenv('BACKPROP13_PYODIDE', str(tmp_path/'named'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    for o in 'http_proxy', 'https_proxy', 'HTTPS_PROXY': monkeypatch.setenv(o, 'http://127.0.0.1:9')
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    for o in 'named', 'cache/backprop13/pyodide': (tmp_path/o).mkdir(parents=True)
    return tmp_path


def test_the_sum_decides_which_wheel_is_taken(alone):
    right = hashlib.sha256(b'right').hexdigest()
    got, said = inpage.wheel(NUMPY, right)
    assert got is None and len(said) == 4 and said[0].endswith('named: not there') and 'PyPI' in said[2]
    (alone/'named'/NUMPY).write_bytes(b'wrong')
    got, said = inpage.wheel(NUMPY, right)
    assert got is None and f'other bytes than Pyodide names (SHA-256 {right[:12]}…)' in said[0]
    (alone/'cache/backprop13/pyodide'/NUMPY).write_bytes(b'right')
    assert inpage.wheel(NUMPY, right)[0] == b'right'


def test_what_was_fetched_is_kept(alone, monkeypatch):
    monkeypatch.setattr(inpage, 'from_pypi', lambda file: b'right')
    right = hashlib.sha256(b'right').hexdigest()
    assert inpage.wheel(NUMPY, right)[0] == b'right'
    monkeypatch.setattr(inpage, 'from_pypi', lambda file: b'wrong')
    assert inpage.wheel(NUMPY, right)[0] == b'right'


def test_what_is_compiled_is_made_once_for_the_same_parts(alone, monkeypatch):
    ran, home = [], alone/'home'
    home.mkdir()
    (home/'python_stdlib.zip').write_bytes(b'library')
    def run(args, what, input):
        ran.append(input)
        for name in inpage.PACKED: Path(args[-1], name).write_bytes(Path(args[-1], 'numpy.whl').read_bytes())
    def runs(blob):
        assert inpage.pack(home, blob, 'node', run) == [blob, blob]
        return len(ran)
    assert [runs(b'a'), runs(b'a'), runs(b'b'), runs(b'a')] == [1, 1, 2, 2]
    (home/'python_stdlib.zip').write_bytes(b'another')
    assert runs(b'a') == 3
    monkeypatch.setattr(inpage, 'modules', lambda: ([], ['a_module']))
    assert runs(b'a') == 4 and 'a_module' in ran[-1]


def test_a_site_is_built_without_the_wheel_and_says_so_in_a_line(alone, clone, docs):
    for f in (clone/'nbs').rglob('*.ipynb'): f.unlink()
    (clone/'node_modules').symlink_to(root/'node_modules')
    code = 'import sys; sys.path.insert(0, "tools"); import site_; site_.get_parts()'.replace('site_', 'the_site')
    (clone/'tools/the_site.py').write_text((clone/'tools/site.py').read_text(encoding='utf-8'), encoding='utf-8')
    r = subprocess.run([sys.executable, '-c', code], cwd=clone, text=True, capture_output=True)
    [line] = r.stdout.splitlines()
    assert not r.returncode and line.startswith("site: the pages are without Python, for NumPy's wheel can't be had")
    assert 'BACKPROP13_PYODIDE' in line
    told = json.loads((clone/'nbs/assets/python/parts.json').read_text())
    assert told['parts'] is None and not (clone/'nbs/assets/python/pyodide').exists()
    assert (clone/'nbs/assets/katex').exists()


def test_the_library_is_packed_whole_and_always_the_same():
    blob = inpage.library()
    assert blob == inpage.library() and len(blob) < 150_000
    names = zipfile.ZipFile(io.BytesIO(blob)).namelist()
    assert names == [*dict.fromkeys(names)] and 'backprop13/practice/page.py' in names
    code = '''import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        there = {*sys.stdlib_module_names, 'numpy', 'backprop13'}
        if name.partition('.')[0] not in there: raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
import backprop13.support.twin as twin, importlib
twin.install()
for o in json.loads(sys.argv[2]): importlib.import_module(o)
print({m.__file__.startswith(sys.argv[1]) for k, m in sys.modules.items() if k.startswith('backprop13')})'''
    modules = [o.removesuffix('.py').removesuffix('/__init__').replace('/', '.') for o in names if o.endswith('.py')]
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(io.BytesIO(blob)).extractall(folder)
        r = subprocess.run([sys.executable, '-c', code, folder, json.dumps(modules)], cwd=folder, text=True,
                           capture_output=True)
    assert (r.returncode, r.stdout) == (0, '{True}\n'), r.stderr
