"""What passed on this machine and hasn't changed since, so that `make test` again needn't try it. CI tries all.

A test file or a notebook depends on itself, on what it imports, on the versions and data, and on what READS
says that it reads besides, by kind or name; a test file without a row depends on all. tests/conftest.py sees
which files a test opens, and fails it if READS has too little: all but what other processes open; a test's copy
of the project has only these files, so that there they find no others."""
import ast, hashlib, json, re, sys
from functools import cache
from pathlib import PurePosixPath

ALWAYS = r'constraints\.txt|settings\.ini|setup\.py|pyproject\.toml|tests/conftest\.py'
BOOK = r'nbs/.*\.ipynb'
KINDS = {'package': r'backprop13/.*', 'site': r'tools/.*|nbs/assets/.*|(nbs/)?_quarto\.yml',
         'pages': BOOK, 'prose': BOOK}                  # pages are notebooks without their prose: `bones`
KINDS['rest'] = f"(?!({'|'.join(KINDS.values())})$).*"
KINDS['tools'] = r'tools/.*|(nbs/)?_quarto\.yml'
KINDS['shown'] = r'backprop13/(static/.*|\w+/\w+\.json|_modidx\.py|support/pages\.py)'     # of it, on pages
PRACTICE = r'nbs/(practice/.*|reference)\.ipynb'
READS = {
    r'test_(autograd|cards|commands|compiled|data|data_faults|debugger|derivatives|exercises|fitting|graph|loader|'
    r'matmul|parallel|repeatable|speed|submissions)': '',
    r'test_backprop': 'pages',
    r'test_claims': r'prose tools/(notebooks|settings)\.py',
    r'test_lesson_map': 'shown tools prose',
    r'test_(checks|instruments|ledger|numerics)': 'package',
    r'test_benchmarks': 'package pages',
    r'test_twin': r'package nbs/support/twin\.ipynb',
    r'test_(book|dialect|pages)': 'shown site prose',
    r'test_(cells|site)': 'package site prose',
    r'test_quarto': r'package site prose \.github/.*',
    r'test_(lab_\w+|labs|on_page|predict|workbook)': 'shown site pages',
    r'test_practice': rf'package tools pages rest nbs/support/exercises\.ipynb {PRACTICE}',
    r'test_(offline|writing)': 'package site pages',
    r'test_(authoring|notebooks|passed|setup)': 'package tools pages rest',
    r'test_(in_page|package)': 'package site pages rest',
    r'nbs/reference|nbs/support/ledger': 'package',
    r'nbs/(practice|support/pages)': f'package {PRACTICE}',
    r'nbs/.*': 'notebooks'}
KINDS['notebooks'] = r'backprop13/static/.*|tools/notebooks\.py'    # what each may read, and what runs it


@cache
def code(text):
    "What a notebook runs and shows; its other cells don't matter to that"
    cells = json.loads(text)['cells']
    return json.dumps([(c['source'], c['outputs']) for c in cells if c['cell_type'] == 'code']).encode()


@cache
def bones(text):
    "Its code and outputs, its headings, and the cells that ask"
    prose = [''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'markdown']
    kept = [[s] if '**Predict:**' in s else re.findall('^#.*', s, re.M) for s in prose]
    return code(text) + json.dumps(kept).encode()


def reads(name):
    "What READS says of a test file or notebook, kinds and names of files; all, where it has no row"
    path = PurePosixPath(name)
    stem = str(path.with_suffix('')) if path.suffix == '.ipynb' else path.stem
    return next((v.split() for k, v in READS.items() if re.fullmatch(k, stem)), ['package', 'site', 'prose', 'rest'])


@cache
def imported(name, text):
    "The dotted names that a Python file or a notebook imports: modules, or names in modules"
    if name.endswith('.ipynb'):
        cells = [''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'code']
        text = '\n'.join(o for o in cells if not o.startswith('%%'))
        text = re.sub(r'^(\s*)[%!].*', r'\1pass', text, flags=re.M)
    home, res = name.split('/')[:-1], set()
    for o in ast.walk(ast.parse(text)):
        if isinstance(o, ast.Import): res |= {a.name for a in o.names}
        if isinstance(o, ast.ImportFrom):
            base = '.'.join([*home[:len(home)-o.level+1]*(o.level > 0), *filter(None, [o.module])])
            res |= {base} | {f'{base}.{a.name}' for a in o.names}
    return res


def modules(files, name):
    "The project's Python files that `name` imports, and those import: from the root, beside it, or from tests"
    found, todo = set(), [name]
    while todo:
        now = todo.pop()
        for dotted in imported(now, files[now]):
            parts = dotted.split('.')
            for root in {'', 'tests/', now[:now.rfind('/')+1]}:
                paths = [root + '/'.join(parts[:k]) for k in range(1, len(parts)+1)]
                new = {p for o in paths for p in (f'{o}.py', f'{o}/__init__.py') if p in files} - found
                found |= new
                todo += new
    return found


def needs(files, name):
    "The names of the files that the notebook or test file `name` depends on"
    pattern, python = '|'.join([ALWAYS, *(KINDS.get(o, o) for o in reads(name))]), modules(files, name)
    if 'site' in reads(name) and 'tools/site.py' in files: python |= modules(files, 'tools/site.py')
    beside = {f'{o[:-3]}.json' for o in python} & {*files}               # what a module reads has its name
    return {name} | python | beside | {f for f in files if re.fullmatch(pattern, f)}


class Passed:
    """What passed, kept in `file`; where that is None, nothing is known and nothing kept. `files` maps names to
    contents, `data` says which images there are."""
    def __init__(self, files, data, file):
        self.files, self.data, self.file = files, data, file
        self.known = json.loads(file.read_text()) if file and file.exists() else {}

    def fingerprint(self, name):
        "A number for all that `name` depends on; of notebooks, what of them matters to it"
        h = hashlib.sha256(f'{sys.version} {self.data}'.encode())
        whole = '|'.join(KINDS['prose'] if o == 'prose' else o for o in reads(name) if o == 'prose' or o not in KINDS)
        for f in sorted(needs(self.files, name)):
            text = self.files[f]
            if f.endswith('.ipynb'):
                text = code(text) if f == name else text if re.fullmatch(whole, f) else bones(text)
            h.update(f.encode() + hashlib.sha256(text).digest())
        return h.hexdigest()

    def without(self, step, names):
        "Those of the files `names` that must be tried in this step"
        def passed(o): return self.file and self.known.get(f'{step} {o}') == self.fingerprint(o)
        return [o for o in names if not passed(o)]

    def add(self, step, names):
        if not self.file: return
        self.known |= {f'{step} {o}': self.fingerprint(o) for o in names}
        self.file.write_text(json.dumps(self.known, indent=1))
