"The practice notebooks are what chapters and exercises generate, run, and tell no answer. Each check has its mutant."
import ast, io, json, re, subprocess, sys, tokenize
from types import SimpleNamespace

import pytest, torch
from conftest import load_tool

check, practice = load_tool('check'), load_tool('practice')
from backprop13.practice.exercises import EXERCISES, PAGES, solution, starter
from backprop13.practice.guessing import guess

SHAPES = practice.SHAPES
KEPT = json.loads((practice.ROOT/'backprop13/practice/answers.json').read_text(encoding='utf-8'))


def cells(text): return [(c['cell_type'], ''.join(c['source'])) for c in json.loads(text)['cells']]


def run(codes):
    "Run code cells one after another in a new namespace: what the last expression of each gives"
    names, res = {'__name__': '__main__'}, []
    for code in codes:
        if code.startswith('#| hide'): continue
        body = ast.parse(code).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), '<cell>', 'exec'), names)
        res.append((code, eval(compile(ast.Expression(last.value), '<cell>', 'eval'), names) if last else None))
    return res


def code_of(found): return [s for kind, s in found if kind == 'code']


@pytest.fixture(scope='module')
def texts(): return practice.notebooks()


pytestmark = pytest.mark.usefixtures('progress_elsewhere')


# ---- they are what is generated

def test_they_are_what_the_tool_writes(project, texts):
    stored = {f.stem: f.read_text(encoding='utf-8') for f in (project/'nbs/practice').glob('*')}
    assert stored == texts and KEPT.keys() == SHAPES.keys() and texts.keys() == PAGES.keys() | SHAPES.keys()
    assert practice.tasks() == {e.name: dict(task=e.task, hints=e.hints) for e in EXERCISES.values()}


def test_answers_are_kept_until_the_notebook_changes(monkeypatch):
    "Code is run for those that have changed, and gives the same"
    run, ran = practice.ran, []
    monkeypatch.setattr(practice, 'ran', lambda cells: ran.append(cells) or run(cells))
    assert practice.answers(KEPT) == KEPT and not ran
    changed = {**KEPT, 'shapes_matmul': {'of': 'another', 'answers': []}}
    del changed['shapes_fitting']
    assert practice.answers(changed) == KEPT and len(ran) == 2
    was, more = practice.shape_notebook, {'shapes_matmul': [('code', 'guess(len(a), ...)')]}
    monkeypatch.setattr(practice, 'shape_notebook', lambda name: was(name) + more.get(name, []))
    got = practice.answers(KEPT)['shapes_matmul']['answers']
    assert got == [*KEPT['shapes_matmul']['answers'], '5'] and len(ran) == 3


def replace(folder, nb, old, new):
    "Replace text of one cell of a notebook, where it must stand"
    path = folder/'nbs'/f'{nb}.ipynb'
    content = json.loads(path.read_text(encoding='utf-8'))
    found = [c for c in content['cells'] if old in ''.join(c['source'])]
    assert len(found) == 1, (nb, old)
    found[0]['source'] = ''.join(found[0]['source']).replace(old, new).splitlines(True)
    path.write_text(json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def test_what_changes_is_reported(clone):
    "A parameter of a chapter's function, a hint, a notebook edited by hand, one that no longer belongs; nothing else"
    old = '    x:torch.Tensor, # any shape\n) -> torch.Tensor: # same shape, nothing below zero'
    replace(clone, '03_backprop', old, old.replace('x:', 'z:'))
    replace(clone, '03_backprop', 'return x.masked_fill(x <= 0, 0)', 'return z.masked_fill(z <= 0, 0)')
    replace(clone, 'practice/07_loading', 'progress()', 'progress( )')
    replace(clone, 'support/exercises', 'It compares each number', 'Compare each number')
    (clone/'nbs/practice/09_gone.ipynb').write_text((clone/'nbs/practice/01_matmul.ipynb').read_text())
    said = check.stale(clone)
    want = ['backprop13/backprop.py', 'backprop13/practice/exercises.json',
            *(f'nbs/practice/{o}.ipynb' for o in ('02_layers', '07_loading', '09_gone'))]
    names = [o.split()[0] for o in said]
    assert [o for o in names if o in want or 'practice' in o] == want, said
    assert 'make practice' in said[names.index(want[-1])] and not (clone/want[-1]).exists()
    page = code_of(cells((clone/'nbs/practice/02_layers.ipynb').read_text()))
    assert 'def relu(\n    z:torch.Tensor' in '\n'.join(page)


# ---- tasks and hints: Markdown cells

def make(folder, *args):
    args = args or ['tools/practice.py']
    return subprocess.run([sys.executable, *args], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize('spoil', [lambda f: f.unlink(),
                                   lambda f: f.write_text('{"relu": {"task": "Old.", "hints": []}}')])
def test_the_texts_come_from_the_notebook_alone(clone, spoil):
    "Also where the library can't be imported without them"
    file = clone/'backprop13/practice/exercises.json'
    before = file.read_bytes()
    spoil(file)
    r = make(clone, '-c', 'import backprop13.practice.exercises')
    assert ("`matmul` has no task: write a Markdown cell '#### `matmul`' above it in nbs/support/exercises.ipynb, "
            'then make practice') in r.stderr
    assert (r := make(clone)).returncode == 0 and file.read_bytes() == before, r.stderr


HINT = '- Python calls `__len__` for `len(ds)`, and `__getitem__` for `ds[i]`.'

@pytest.mark.parametrize('old,new,said', [
    ('#### `lin`', 'About `lin`', "`lin` has no task: write a Markdown cell '#### `lin`'"),
    ('#### `lin`', '#### `line`', "`lin` has no task: write a Markdown cell '#### `lin`'"),
    ('### Training', '#### `tarin`\n\nA task.\n\n- A hint.', "`tarin` has a task and is no exercise"),
    ('#### `lin`', '#### `relu`', "needs one cell '#### `relu`'"),
    (HINT, '', "needs one cell '#### `Dataset`'"), (HINT, '- ', "needs one cell '#### `Dataset`'"),
    ('### Training', '#### `Loader`', "needs one cell '#### `Loader`'")])
def test_a_text_that_is_missing_or_wrong_is_named(clone, old, new, said):
    replace(clone, 'support/exercises', old, new)
    r = make(clone)
    assert r.returncode == 1 and said in r.stderr and 'Traceback' not in r.stderr, r.stderr


# ---- shape notebooks: from the marked cells of a chapter

def changed(monkeypatch, name, edit):
    "A shape notebook, if each cell (type, source, result) of its chapter were what `edit` makes of it"
    cells = [edit(*cell) for cell in practice.read(SHAPES[name])]
    assert cells != practice.read(SHAPES[name]), 'nothing was changed'
    with monkeypatch.context() as m:
        m.setattr(practice, 'read', lambda chapter: cells)
        return practice.shape_notebook(name)


def put(old, new): return lambda kind, source, result: (kind, source.replace(old, new), result)
def unmarked(head):
    cell = re.compile(rf'#\| shapes\n((#\|.*\n)*{re.escape(head)})')
    return lambda kind, source, result: (kind, cell.sub(r'\1', source), result)


@pytest.mark.parametrize('name,old,new', [
    ('shapes_backprop', '\nhidden.shape, out.shape', '\nout.shape, hidden.shape'),
    ('shapes_backprop', '\ncolumn.shape, first', '\nfirst'),
    ('shapes_fitting', 'xb, yb = train_ds[:5]', 'xb, yb = train_ds[:6]'),
    ('shapes_training', '### Two lists of indices', '### Lists of indices'),
    ('shapes_backprop', 'nh = 50\n', 'nh = 25*2\n'),
    ('shapes_matmul', 'check(by_rows, by_dots)', 'by_loops(a, b)')])
def test_a_changed_marked_cell_changes_the_notebook(monkeypatch, texts, name, old, new):
    assert practice.written(changed(monkeypatch, name, put(old, new))) != texts[name]


@pytest.mark.parametrize('name,old,new', [
    ('shapes_backprop', 'test_eq(res.shape, (10000, 1))', 'pass'),
    ('shapes_backprop', 'None inserts a unit axis', 'it is a column'),
    ('shapes_matmul', 'check(by_rows, by_dots)', 'check(by_rows, by_loops)'),
    ('shapes_training', 'lr = 0.3\n', 'lr = 0.2\n')])
def test_all_else_does_not(monkeypatch, texts, name, old, new):
    "Cells without the mark, and in those that have it comments and checks"
    assert practice.written(changed(monkeypatch, name, put(old, new))) == texts[name]


@pytest.mark.parametrize('name,head,lacks', [
    ('shapes_matmul', 'def by_loops', 'by_loops'), ('shapes_backprop', 'w1, b1 = torch.randn', 'w1'),
    ('shapes_backprop', '#| code-fold: true', 'generator'), ('shapes_training', 'sm = ', 'sm'),
    ('shapes_fitting', 'tiny = ', 'tiny'), ('shapes_fitting', 'def walk', 'walk'),
    ('shapes_fitting', 'train_ds, valid_ds', 'train_ds')])
def test_a_cell_that_is_needed_has_to_be_marked(monkeypatch, name, head, lacks):
    with pytest.raises(SystemExit) as e: changed(monkeypatch, name, unmarked(head))
    said = str(e.value)
    assert said.startswith(f'{SHAPES[name]}: a marked cell reads {lacks}, ')
    assert 'put `#| shapes` at the head of the cell that binds it' in said


def test_every_mark_counts(monkeypatch, texts):
    for name, chapter in SHAPES.items():
        marked = [source for _, source, _ in practice.read(chapter) if 'shapes' in practice.directives(source)]
        assert len(marked) > 10 and len(marked) == len(set(marked))
        for one in marked:
            try: found = changed(monkeypatch, name, put(one, one.replace('#| shapes\n', '')))
            except SystemExit: continue
            assert practice.written(found) != texts[name], one


# what a cell shows -> what is asked
@pytest.mark.parametrize('source,result,want', [
    ('x.shape', 'torch.Size([2, 3])', ['x.shape']),
    ('(i*o).shape, x[0].shape', '(torch.Size([2]), torch.Size([]))', ['(i*o).shape', 'x[0].shape']),
    ('x.shape', 'torch.Size([1000, 1000])', ['x.shape', 'x.nbytes']), ('x.dtype', 'torch.float32', ['x.dtype']),
    ('a + b', 'tensor([1., 2.])', ['(a + b).shape']),
    ('x[:3]', 'tensor([1, -2, 3])', ['x[:3].shape', 'x[:3].dtype']),
    ('f(x)', 'tensor([[1., ..., 2.]],\n       grad_fn=<AddBackward0>)', ['f(x).shape']),
    ('x, y', '(tensor(1.), tensor(2.))', ['x.shape']),
    ('nh = 50\nn, nh', '(7, 50)', ['n']), ('x.stride()', '(1, 0)', ['x.stride()']), ('len(x)', '5', ['len(x)']),
    ('list(x)', '[1, 2]', []), ('x', '0.5', []), ('x', 'True', []), ('x', "'3'", []),
    ('x', '<generator object>', []), ('x', '()', [])])
def test_what_is_asked(source, result, want):
    code, node = practice.parts(source, True)
    assert [practice.of(*q) for q in practice.questions(node, result, source)] == want


@pytest.mark.parametrize('code,reads,binds', [
    ('x = x + 1', 'x', 'x'), ('def f(a, b=c): return a + d', 'c d', 'f'),
    ('class A(B):\n    y = z\n    def g(self): return y + A.y', 'B z y A', 'A'),
    ('a = [d[i] for i in b if i]', 'b d', 'a'), ('a = {k: v for k, v in b}, {q for q in c}', 'b c', 'a'),
    ('f = lambda t: t.g + u', 'u', 'f'), ('for i in r: c[i] = 0', 'r i c', 'i'),
    ('import torch.utils.data, numpy as np', '', 'torch np'),
    ('def f():\n    def g(): return h\n    h = 1', '', 'f')])
def test_names(code, reads, binds):
    assert practice.names(code) == (set(reads.split()), set(binds.split()))


# ---- exercises

@pytest.mark.parametrize('page', PAGES)
def test_an_empty_body_is_said_to_be_empty(texts, page):
    reports = [v for code, v in run(code_of(cells(texts[page]))) if code.startswith('check(')]
    assert [r.name for r in reports] == [o for o, e in EXERCISES.items() if e.page == page]
    assert reports and {r.property for r in reports} == {'empty'}


def solved(found):
    "The code cells of a page with the folded solutions in the starters' place"
    text, res = '\n'.join(s for k, s in found if k == 'markdown'), []
    code = dict(re.findall(r'## (\w+)\n.*?```python\n(.*?)\n```', text, re.S))
    for kind, source in found:
        name = re.match(r'(?:def|class) (\w+)', source)
        res += [code[name[1]] if name else source]*(kind == 'code')
    assert len(code) == sum(o.startswith('check(') for o in res)
    return res


@pytest.mark.parametrize('page', PAGES)
def test_the_folded_solutions_pass(texts, page):
    reports = [v for code, v in run(solved(cells(texts[page]))) if code.startswith('check(')]
    assert reports and [r for r in reports if not r.passed] == []


def test_a_solution_that_lacks_an_import_is_caught(monkeypatch):
    monkeypatch.setattr(practice, 'missing', lambda *args: [])
    found = practice.exercise_notebook('02_layers', True)
    assert any(not v.passed for code, v in run(solved(found)) if code.startswith('check('))


def test_a_set_to_hand_out(tmp_path, project):
    def call(folder): return make(tmp_path, project/'tools/practice.py', '--without-solutions', folder)
    assert (r := call('out')).returncode == 0, r.stderr
    files = {f.stem: f.read_text(encoding='utf-8') for f in (tmp_path/'out').iterdir()}
    assert files.keys() == PAGES.keys() | SHAPES.keys()
    prose = [s for t in files.values() for k, s in cells(t) if k == 'markdown']
    assert given_away(files) == [] and not any('../' in s for s in prose)
    assert 'https://backprop13.github.io/backprop13/03_backprop.html' in files['02_layers']
    r = call(project/'nbs'/'practice'/'x')
    assert r.returncode and 'name a folder elsewhere' in r.stderr
    assert not (project/'nbs'/'practice'/'x').exists()


def given_away(files):
    "Exercises of which a line of the solution, one that the starter lacks, stands in their notebook"
    def lines(*texts): return {o.strip() for o in '\n'.join(texts).splitlines() if len(o.strip()) > 5}
    there = {page: lines(*(s for _, s in cells(text))) for page, text in files.items()}
    return [k for k, e in EXERCISES.items() if (lines(solution(k)) - lines(starter(k))) & there[e.page]]


def test_a_solution_in_the_clear_is_caught(texts): assert len(given_away(texts)) == len(EXERCISES)


# ---- shape questions

def asked_in(code): return m[1] if (m := re.fullmatch(r'guess\((.+), \.\.\.\)', code)) else None
def guesses(found): return [asked_in(o) for o in code_of(found) if asked_in(o)]


def values(found):
    "The answers, by running the code, (what is asked, its value), and all that the cells say that ask"
    res = run([o for code in code_of(found)
               for o in ([code, f'({asked_in(code)})'] if asked_in(code) else [code])])
    asks = [i for i, (code, _) in enumerate(res) if asked_in(code)]
    return [(asked_in(res[i][0]), res[i + 1][1]) for i in asks], {repr(res[i][1]) for i in asks}


def shown(chapter):
    "What a chapter shows: (code, shape or number), piece by piece, of tensors their shape, if they are stored in full"
    def tensor(data, **kw): return torch.tensor(data).shape
    for kind, source, result in practice.read(chapter):
        if kind != 'code' or result is None: continue
        known = dict(torch=torch, tensor=tensor, nan=float('nan'), inf=float('inf'))
        try: value = eval(re.sub('grad_fn=<.*?>', '', result), known)
        except (SyntaxError, NameError, TypeError, ValueError, RuntimeError): continue      # stored in part, say
        node = ast.parse(source).body[-1].value
        several = isinstance(node, ast.Tuple) and type(value) is tuple and len(node.elts) == len(value)
        for n, v in zip(node.elts, value) if several else [(node, value)]:
            code = ast.unparse(n)
            yield from ((c, v) for c in (code, f'{code}.shape', f'({code}).shape'))


def unlike(chapter, answers):
    "Answers that aren't what the chapter shows, in its order; the number of those that are"
    wrong, same, rest = [], 0, list(shown(chapter))
    for code, value in answers:
        plain = ast.unparse(ast.parse(code, mode='eval'))
        at = next((i for i, (c, _) in enumerate(rest) if c == plain), None)
        if code.endswith(('.dtype', '.nbytes')) or at is None: continue
        if rest[at][1] == value: same += 1
        else: wrong.append((code, value, rest[at][1]))
        rest = rest[at:]
    return wrong, same


@pytest.mark.data
@pytest.mark.parametrize('name', SHAPES)
def test_every_answer_is_what_the_chapter_shows(texts, name):
    found = cells(texts[name])
    asked, (answers, said) = guesses(found), values(found)
    assert [code for code, _ in answers] == asked and len(asked) > 10 and said == {repr(guess(1, ...))}
    assert [repr(v) for _, v in answers] == KEPT[name]['answers']                          # for the site
    wrong, same = unlike(SHAPES[name], answers)
    hidden = [o for o in asked if o.endswith(('.dtype', '.nbytes'))]
    assert any(o.endswith('.dtype') for o in asked)
    # the chapter doesn't show these, nor tensors that are stored in part
    assert wrong == [] and len(asked) - len(hidden) - same <= 3
    for _, value in answers:
        assert guess(value, value).right
        for other in (7,), 7, (3, 1, 4, 1, 5), torch.complex128, 'complex128', None:
            assert not guess(value, other).right
    assert spoilt(found, answers) == []


@pytest.mark.data
def test_a_wrong_answer_is_caught(texts):
    found = cells(texts['shapes_matmul'])
    other = [(k, s.replace('data.x_valid[:5]', 'data.x_valid[:6]')) for k, s in found]
    assert unlike('01_matmul', values(other)[0])[0]


def spoilt(found, answers):
    "Where answers stand in the clear: in the text, in comments"
    for kind, source in found:
        if kind == 'code' and not source.startswith('#| hide'):
            comments = [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline)
                        if t.type == tokenize.COMMENT]
            if comments: return [f'a comment: {comments}']
    text = '\n'.join(re.sub(r'\]\(.*?\)', ']', s) for k, s in found if k == 'markdown')
    said = re.sub(r'(?<=\d)[\u00a0 _,](?=000)', '', re.sub(r'`[^`\n]*`(?=\?)', '', text))
    def forms(v):
        if isinstance(v, tuple) and v: return str(tuple(v)), str(list(v)), ' × '.join(map(str, v))
        return [str(v)]*isinstance(v, (int, torch.dtype))
    wanted = {f for _, v in answers for f in forms(v) if len(f) > 2}
    return [f for f in wanted if re.search(rf'(?<![\w.]){re.escape(f)}(?!\w)', said)]


@pytest.mark.parametrize('what,mutant', [
    ('tokenize', SimpleNamespace(generate_tokens=lambda line: [], COMMENT=0)),                     # comments stay
    ('ASKED', {**practice.ASKED, 'shape': 'No (10000, 1): what shape has `{}`?'})])
def test_an_answer_in_the_clear_is_caught(monkeypatch, what, mutant):
    monkeypatch.setattr(practice, what, mutant)
    assert spoilt(practice.shape_notebook('shapes_backprop'), [('res.shape', torch.Size([10000, 1]))])


def test_nothing_is_stored(texts):
    for name, text in texts.items():
        for c in json.loads(text)['cells']:
            assert not c.get('outputs') and c.get('execution_count') is None, name


def aside(found):
    checks = r'\b(assert|test_\w+\(|check\w*\(|print\(|plt\.|display\(|labs\.)'
    return [o for o in code_of(found) if re.search(checks, o)]

def test_code_that_checks_or_draws_is_left_out(texts):
    assert aside([('code', 'print(x)')]) and not any(aside(cells(texts[name])) for name in SHAPES)
    kept = ['x = f(check)', '@wraps(x)', 'def f():', '    print(x)', 'x.zero_()']
    gone = ['assert x', "test_eq(x,", '        1)', 'for i in x: print(i)', 'try: x',
            'except E: print(1)', 'plt.plot(x)  # (2, 3)', 'use_style()']
    source = [kept[0], *gone[:4], *kept[1:4], *gone[4:], kept[4], 'x.shape   # (2, 3)']
    assert practice.parts('\n'.join(source), True)[0] == '\n'.join(kept)
