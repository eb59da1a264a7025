"""Cells that run in the page: those that begin with `#| live`. Which earlier cells one needs is read from the names
that cells bind and read; each is then run with what it needs, in a process of its own, where NumPy's twin stands for
torch and nothing is installed but NumPy: a mark is refused where the page could not print what is stored.

The page has the first images. A cell that begins with `#| live whole` needs all of them, which the page loads when it
is asked to; where MNIST isn't at hand when the site is built, that cell isn't live.

    python tools/cells.py [NB ...]

says of each notebook how many cells are live, and which other shown ones could be, or why not."""
import ast, base64, functools, io, json, os, re, subprocess, symtable, sys, tempfile, warnings, zipfile, zlib
from collections import Counter
from pathlib import Path

from inpage import library

ROOT = Path(__file__).resolve().parent.parent
FEW = 5                                   # images of a set are in the page
# what is called for its effect, but changes nothing that a later cell reads
QUIET = re.compile(r'print|display|card|test_\w+|check\w*|assert\w*')
CHANGES = re.compile(r'\w+_|append|extend|insert|update|add|remove|pop|clear|sort|setdefault|backward|step|zero_grad|'
                     r'zero_grads|manual_seed')
LOOPS = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda


class CellError(Exception):
    "A cell that can't be live; its text is the whole message"


class Piece:
    """A live cell, or a statement: names that it binds (`solid` ones to functions, classes and modules), reads at once,
    reads when it is called, changes, gives to what is called for its effect, and passes to other functions"""
    def __init__(self, code, cell=None):
        self.code, self.cell = code, cell
        self.binds, self.solid, self.reads, self.late = set(), set(), set(), set()
        self.changes, self.gives, self.passes = set(), set(), set()
        self.block(ast.parse(code).body, self.binds)
        self.called(symtable.symtable(code, 'cell', 'exec'))

    def block(self, statements, bound):
        "Note what these read of what isn't `bound` yet; what they bind, is"
        for s in statements:
            if isinstance(s, (ast.For, ast.AsyncFor)):
                self.read(s.iter, bound); self.bind(s.target, bound)
                self.block(s.body + s.orelse, bound)
            elif isinstance(s, (ast.If, ast.While)):
                self.read(s.test, bound)
                ways = [set(bound), set(bound)]
                for way, body in zip(ways, (s.body, s.orelse)): self.block(body, way)
                self.maybe(ways, bound)
            elif isinstance(s, ast.Try):
                ways = [set(bound) for _ in range(1 + len(s.handlers))]
                self.block(s.body + s.orelse, ways[0])
                for way, o in zip(ways[1:], s.handlers): self.block(o.body, way | {o.name} - {None})
                self.maybe(ways, bound)
                self.block(s.finalbody, bound)
            elif isinstance(s, (ast.With, ast.AsyncWith)):
                for o in s.items:
                    self.read(o.context_expr, bound)
                    if o.optional_vars: self.bind(o.optional_vars, bound)
                self.block(s.body, bound)
            elif isinstance(s, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                for o in s.decorator_list: self.read(o, bound)
                if isinstance(s, ast.ClassDef):
                    for o in (*s.bases, *s.keywords): self.read(o, bound)
                    self.block(s.body, set(bound))
                else: self.read(s.args, bound)
                self.firm({s.name}, bound)
            elif isinstance(s, (ast.Import, ast.ImportFrom)):
                self.firm({(o.asname or o.name).split('.')[0] for o in s.names}, bound)
            else: self.statement(s, bound)

    def firm(self, names, bound):
        bound |= names
        if bound is self.binds: self.solid |= names

    def maybe(self, ways, bound):
        "What all ways bind is bound; what some do may be, as if it were changed"
        if bound is self.binds: self.changes |= set.union(*ways) - set.intersection(*ways)
        bound |= set.intersection(*ways)

    def statement(self, s, bound):
        self.read(s, bound)
        if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name): self.note(self.reads, s.target.id, bound)
        if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call): # its value is of no use, so it has an effect
            call = s.value
            if not QUIET.fullmatch(getattr(call.func, 'attr', getattr(call.func, 'id', ''))):
                if isinstance(call.func, ast.Attribute): self.changes |= base(call.func)
                for o in (*call.args, *(k.value for k in call.keywords)): self.gives |= base(o)
        for o in ast.walk(s):
            if isinstance(o, (ast.Attribute, ast.Subscript)) and isinstance(o.ctx, (ast.Store, ast.Del)):
                self.changes |= base(o)
        targets = s.targets if isinstance(s, ast.Assign) else [s.target] if hasattr(s, 'target') else []
        for o in targets: self.bind(o, bound)

    def bind(self, target, bound):
        bound |= {o.id for o in ast.walk(target) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)}
        for o in ast.walk(target):
            if isinstance(o, (ast.Attribute, ast.Subscript)) and isinstance(o.ctx, ast.Store): self.changes |= base(o)

    def note(self, names, name, bound):
        if name not in bound: names.add(name)

    def read(self, node, bound):
        "Note what an expression reads at once; the bodies of its functions are read when they are called"
        if isinstance(node, LOOPS):
            inner = set(bound)
            for o in node.generators:
                self.read(o.iter, inner); self.bind(o.target, inner)
                for test in o.ifs: self.read(test, inner)
            for o in ('key', 'value', 'elt'):
                if hasattr(node, o): self.read(getattr(node, o), inner)
            return
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Load, ast.Del)):
            self.note(self.reads, node.id, bound)
        if isinstance(node, ast.NamedExpr): bound.add(node.target.id)
        if isinstance(node, ast.Call):
            f = node.func
            if isinstance(f, ast.Attribute) and CHANGES.fullmatch(f.attr): self.changes |= base(f)
            for o in (*node.args, *(k.value for k in node.keywords)): self.passes |= base(o)
            for k in node.keywords: self.changes |= base(k.value) if k.arg == 'generator' else set()
        for o in ast.iter_child_nodes(node):
            if isinstance(node, FUNCTIONS) and o is node.body: continue
            self.read(o, bound)

    def called(self, table):
        "Note the page's names within functions"
        for t in table.get_children():
            if t.get_type() == 'function':
                self.late |= {o.get_name() for o in t.get_symbols() if o.is_global() and o.is_referenced()}
            self.called(t)


def base(node):
    "The name that an expression such as `w.g[0]` belongs to"
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)): node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def bare(source): return re.sub(r'\A(#\|.*\n?|\s*\n)+', '', source).rstrip()
def words(source): return re.findall(r'^#\|\s*(.*)', source, re.M)

def pieces(cells):
    "The code cells as pieces: a live one is whole, the others come as statements, for the page lacks what some need"
    for cell in cells:
        code = bare(cell['source'])
        if 'default_exp' in cell['source'] or re.search(r'^\s*[%!]', code, re.M) or not code: continue
        if cell['live']: yield Piece(code, cell)
        else:
            for s in ast.parse(code).body:
                if not isinstance(s, (ast.Import, ast.ImportFrom)): yield Piece(ast.unparse(s))
                else:
                    for o in s.names:
                        one = ast.Import([o]) if isinstance(s, ast.Import) else ast.ImportFrom(s.module, [o], s.level)
                        yield Piece(ast.unparse(one))


def needs(all_, i):
    """The pieces before piece `i` that it needs, in their order. A name means what bound it last, and what has
    changed it since; where it stands in a function, also what it means at the call, which is here. A function that is
    given a name for its effect may change what that means; one that returns something may if it is live."""
    found, todo = set(), [(name, i) for name in all_[i].reads | all_[i].late - all_[i].binds]
    seen = set()
    while todo:
        name, at = todo.pop()
        if (name, at) in seen: continue
        seen.add((name, at))
        bound = next((k for k in reversed(range(at)) if name in all_[k].binds), -1)
        solid = bound < 0 or name in all_[bound].solid        # Python's own, or hardly changed by who is given it
        changed = [k for k in range(bound + 1, at) if name in all_[k].changes or not solid
                   and (name in all_[k].gives or all_[k].cell and name in all_[k].passes)]
        for k in [bound]*(bound >= 0) + changed:
            if k in found: continue
            found.add(k)
            p = all_[k]
            todo += [(n, k) for n in p.reads | p.late - p.binds] + [(n, i) for n in p.late]
    return sorted(found)


def read(path):
    "The code cells of a notebook: source, outputs, is it live, is it shown?"
    nb = json.loads(Path(path).read_text(encoding='utf-8'))
    res = []
    for n, c in enumerate(nb['cells']):
        if c['cell_type'] != 'code': continue
        source = ''.join(c['source'])
        said = words(source)
        res.append(dict(n=n, id=c.get('id'), source=source, outputs=c['outputs'],
                        live=bool({'live', 'live whole'} & set(said)), whole='live whole' in said,
                        hidden=bool({'hide', 'export', 'echo: false', 'exports support.cards'} & set(said))))
    return res


def printed(cell):
    "What a cell has stored, as text; `CellError` if that is more than text, or may be another the next time"
    res = ''
    if 'output-varies' in words(cell['source']): raise CellError('its output varies')
    for o in cell['outputs']:
        if o['output_type'] == 'stream': res += ''.join(o['text'])
        else:
            if more := sorted({*o.get('data', {})} - {'text/plain'}): raise CellError(f'it shows {more[0]}')
            res += ''.join(o['data']['text/plain']) + '\n'
    return res.rstrip('\n')


# `mnist` in the page: all images, once they were loaded, and `seen` is told how many a loop has taken. Before that,
# what is known of all images is true of all; nothing else can be had of those that aren't there
DIGITS = 'digits.z'
MNIST = """
import base64, functools, pathlib, types, zlib, backprop13, numpy, torch
from backprop13.practice.page import seen
class First:
    def __init__(self, kept, of, largest): self.kept, self.of, self.largest = kept, of, largest
    shape = property(lambda self: torch.Size((self.of, *self.kept.shape[1:])))
    def __len__(self): return self.of
    def max(self): return torch.tensor(self.largest)
    def __getitem__(self, i):
        last = i.stop if isinstance(i, slice) else i
        there = len(self.kept) + isinstance(i, slice)
        return self.kept[i] if isinstance(last, int) and 0 <= last < there else self.lacks()
    def __getattr__(self, name): self.lacks()
    def lacks(self, *other):
        raise LookupError('the page has only the first FEW images, [:FEW]; for the others open the notebook')
    __iter__ = __add__ = __mul__ = __matmul__ = __eq__ = lacks
class Counted(torch.Tensor):
    def __getitem__(self, i):
        part = super().__getitem__(i)
        if part.ndim == 2: seen(len(part))
        return part
@functools.cache
def mnist():
    file = pathlib.Path(backprop13.__path__[0]).parent/'DIGITS'
    all_ = file.exists()
    raw = zlib.decompress(file.read_bytes() if all_ else base64.b64decode(IMAGES))
    raw, res = numpy.frombuffer(raw, numpy.uint8).reshape(-1, 785), types.SimpleNamespace()
    cut = 50000 if all_ else FEW
    for rows, name, of in (raw[:cut], 'train', 50000), (raw[cut:], 'valid', 10000):
        x, y = rows[:, 1:].astype('float32'), torch.from_numpy(rows[:, 0].astype('int64'))
        x /= 255
        x = torch.from_numpy(x)
        if all_ and name == 'train': x.__class__ = Counted
        if not all_: x, y = First(x, of, 1.), First(y, of, 9)
        setattr(res, f'x_{name}', x); setattr(res, f'y_{name}', y)
    return res
""".strip()

def images():
    "The first images of both sets, and their digits, as `MNIST` reads them; None where MNIST isn't at hand"
    packed = images_of(os.environ.get('BACKPROP13_DATA'), FEW)
    return packed and base64.b64encode(packed).decode()

def digits():
    "The same of all images, as bytes"
    return images_of(os.environ.get('BACKPROP13_DATA'), None)

@functools.cache
def images_of(source, few):
    import torch
    from backprop13.data import SyntheticWarning, mnist
    if source == 'synthetic': return
    with warnings.catch_warnings():
        warnings.simplefilter('error', SyntheticWarning)
        try: data = mnist(source)
        except (OSError, ValueError, SyntheticWarning): return
    sets = (data.x_train, data.y_train), (data.x_valid, data.y_valid)
    for (x, y), of in zip(sets, (50000, 10000)): # what `MNIST` says of all
        assert (x.shape, y.shape, x.max().item(), y.max().item()) == ((of, 784), (of,), 1, 9)
    rows = [torch.cat([y[:few, None], (x[:few]*255).round()], 1).byte().numpy().tobytes() for x, y in sets]
    return zlib.compress(b''.join(rows), 6)

FROM_DATA = 'from backprop13.data import mnist'
START = """import torch
torch.set_default_dtype(torch.float32)
torch.manual_seed(67280421310721)
torch.set_printoptions(precision=4, threshold=1000, edgeitems=3, linewidth=80, sci_mode=None)"""


def live(path, cells=None):
    """What the page gets of a notebook, a list of pieces in their order: {code, needs, makes}, `needs` being numbers of
    pieces, and of a live cell {id, cell, stored, images}, too: its number, what it has stored, if it needs images; and
    {whole: true} if it needs all of them"""
    all_ = list(pieces(cells or read(path)))
    before, todo = {}, [i for i, p in enumerate(all_) if p.cell]
    for i in todo: # also what a piece needs by itself, for an edited cell may name it
        before[i] = needs(all_, i)
        todo += [k for k in before[i] if k not in todo]
    place, res = {i: k for k, i in enumerate(sorted(before))}, []
    for i in place:
        p = all_[i]
        row = dict(code=p.code, makes=sorted(p.binds | p.changes), needs=[place[k] for k in before[i]])
        if p.cell:
            try: stored = printed(p.cell)
            except CellError as e: raise CellError(f"{name(path, p.cell['n'] + 1)} can't be live: {e}")
            row |= dict(id=p.cell['id'], cell=p.cell['n'] + 1, stored=stored,
                        images=any(all_[k].code == FROM_DATA for k in before[i]))
            if p.cell['whole']: row['whole'] = True
        res.append(row)
    return res

def data_of(path):
    "What the page gets: how it starts, and the pieces"
    return dict(start=START, pieces=ready(live(path)))

def is_whole(row): return row.get('whole', False)

def name(path, cell): return f'nbs/{Path(path).name}, cell {cell},'

def ready(rows):
    "The pieces as the page gets them: with the images; where there are none, cells that need some aren't live"
    raw = images() if any(r['code'] == FROM_DATA for r in rows) else None
    code = MNIST.replace('IMAGES', repr(raw)).replace('FEW', str(FEW)).replace('DIGITS', DIGITS)
    return [{k: v for k, v in r.items() if raw or not r.get('images') or k not in ('id', 'cell', 'stored', 'whole')}
            | ({'code': code} if r['code'] == FROM_DATA else {}) for r in rows]


# ---- what the page would print: run in a process in which nothing is installed but NumPy ----
ALONE = '''
import importlib.abc, importlib.util, json, pathlib, sys, time
class Page(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        there = top in sys.stdlib_module_names and top not in ('sqlite3', 'ssl', 'multiprocessing', 'lzma')
        if not there and top not in ('numpy', 'backprop13'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
root = sys.argv[1]
spec = importlib.util.spec_from_file_location('twin', root + '/backprop13/support/twin.py')
twin = sys.modules['twin'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(twin)
twin.install()
sys.path.insert(0, root)
sys.meta_path.insert(0, Page())
from backprop13.practice import page
start, books, digits = json.load(sys.stdin)
def run(before, code, whole):
    page.reset('page')
    there, aside = pathlib.Path(root, digits), pathlib.Path(root, 'aside')     # all images, if the page is to have them
    if whole and aside.exists(): aside.rename(there)
    if not whole and there.exists(): there.rename(aside)
    for code in (start, *before, code):
        began, told = time.perf_counter(), json.loads(page.run('page', code, '<cell>', lambda text: None))
        if told['error']: return told | {'code': code}
    return told | {'seconds': time.perf_counter() - began}
json.dump([[run(*row) for row in rows] for rows in books], sys.stdout)
'''

def cells_of(rows): return [r for r in rows if 'id' in r]

def got(books):
    "What the page would print for each live cell of some notebooks' pieces"
    sent = [[([rows[k]['code'] for k in r['needs']], r['code'], is_whole(r)) for r in cells_of(rows)] for rows in books]
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(io.BytesIO(library())).extractall(folder)
        if any(is_whole(r) for rows in books for r in rows): Path(folder, 'aside').write_bytes(digits())
        done = subprocess.run([sys.executable, '-c', ALONE, folder], text=True, encoding='utf-8', capture_output=True,
                              input=json.dumps([START, sent, DIGITS]), cwd=folder,
                              env={**os.environ, 'OPENBLAS_NUM_THREADS': '1'})    # threads help no small product
    if done.returncode: raise CellError(f'The live cells could not be run: {done.stderr[-2000:]}')
    return json.loads(done.stdout)

def plain(told):
    "What `Python.run` tells, as text; what is no text shows as its kind"
    return ''.join(o['data'] if o['kind'] == 'text' else f"<{o['kind']}>" for o in told['out']).rstrip('\n')

def nearly(a, b):
    "Do two texts differ by one in the last digits of numbers, and no more? After many steps BLAS's sums do by so much"
    a, b = (re.split(r'(\d+\.\d+)', o) for o in (a, b))
    def close(x, y): return len(x) == len(y) and abs(int(x.replace('.', '')) - int(y.replace('.', ''))) <= 1
    return a[::2] == b[::2] and all(map(close, a[1::2], b[1::2]))

def refusal(path, row, told):
    "What keeps a cell from being live, as a sentence; '' if the page prints what is stored"
    who = f"{name(path, row['cell'])} can't be live: the page "
    if told['error']:
        where = '' if told['code'] == row['code'] else f" in what it needs, {told['code'].splitlines()[0]!r}"
        return f"{who}says {told['error']['text']!r}{where}"
    if row['stored'] != plain(told) and not (is_whole(row) and nearly(row['stored'], plain(told))):
        return f"{who}prints {plain(told)!r}, stored is {row['stored']!r}"
    return ''

def refusals(paths):
    "Sentences about the live cells of these notebooks whose output the page could not reproduce"
    books = [ready(live(p)) for p in paths]
    return [said for p, rows, told in zip(paths, books, got(books))
            for row, one in zip(cells_of(rows), told) if (said := refusal(p, row, one))]


def others(path):
    "Why the shown cells of a notebook that aren't live could not be, as sentences; '' where one could"
    cells, said, tried = read(path), [], []
    for c in (c for c in cells if not c['live'] and not c['hidden'] and bare(c['source'])):
        try: rows = ready(live(path, [{**o, 'live': o is c} for o in cells]))
        except (CellError, SyntaxError) as e: said.append(str(e).split(': ')[-1])
        else:
            if cells_of(rows): tried.append(rows)
            else: said.append('it needs images, and MNIST is not at hand')
    told = zip(tried, got(tried))
    return said + [refusal(path, row, one).split(' the page ')[-1] for rows, [one] in told for row in cells_of(rows)]


if __name__ == '__main__':
    for path in sys.argv[1:] or sorted((ROOT/'nbs').glob('[0-9]*.ipynb')):
        bad = refusals([path])
        print(f'{path}: {len(cells_of(live(path))) - len(bad)} cells are live', *bad, sep='\n')
        for why, n in Counter(others(path)).most_common(): print(f'  {n} more: {why[:90] or "could be"}')
