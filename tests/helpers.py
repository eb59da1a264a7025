"What tests share: the library with one place changed, words for properties, commands and notebooks, files of digits."
import ast, hashlib, importlib, importlib.abc, importlib.util, itertools, os, re, subprocess, sys
from pathlib import Path

import numpy as np
import pytest, torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import backprop13
from backprop13.data import SHA256, to_idx
from backprop13.support.card import equal, f64, inf, nan, rand, refused, works     # as the cards have them
from conftest import load_tool, root

folder = Path(backprop13.__file__).parent
# 'checks': 'support.checks'
homes = {f.stem: '.'.join(f.relative_to(folder).with_suffix('').parts) for f in folder.rglob('*.py')}


# ---- the package with one place changed

def mutated(where, old, new):
    """The source of the module in `where`, such as 'backprop.Lin', with `old` replaced in that
    definition, where it stands once"""
    module, name = where.split('.', 1)
    text = Library.file(f'backprop13.{homes[module]}').read_text(encoding='utf-8')
    for o in ast.parse(text).body:
        names = [o.name] if hasattr(o, 'name') else [ast.unparse(t) for t in getattr(o, 'targets', [])]
        if name in names:
            lines = text.splitlines(keepends=True)
            part = ''.join(lines[o.lineno - 1:o.end_lineno])
            n = part.count(old)
            assert n == 1, f'stale row: {old!r} stands {n} times in {where}, wanted once'
            return ''.join(lines[:o.lineno - 1]) + part.replace(old, new) + ''.join(lines[o.end_lineno:])
    raise AssertionError(f'stale row: backprop13.{module} has no {name}')


class Modules:
    "The modules of a package as attributes, imported when they are asked for"
    def __init__(self, name): self.name = name
    def __getattr__(self, module): return importlib.import_module(f'{self.name}.{homes[module]}')


class Library(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "The package executed afresh, `sources` in place of some modules' own: `with Library() as lib: lib.backprop.lin`"
    number = itertools.count()
    def __init__(self, **sources): self.sources, self.name = sources, f'mutant{next(self.number)}'
    def __enter__(self):
        sys.meta_path.insert(0, self)
        return Modules(self.name)
    def __exit__(self, *error):
        sys.meta_path.remove(self)
        for k in [k for k in sys.modules if k.partition('.')[0] == self.name]: del sys.modules[k]
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition('.')[0] == self.name:
            return importlib.util.spec_from_loader(fullname, self,
                                                   is_package=self.file(fullname).name == '__init__.py')
    @staticmethod
    def file(fullname):
        path = folder.joinpath(*fullname.split('.')[1:])
        return path/'__init__.py' if path.is_dir() else path.with_suffix('.py')
    def exec_module(self, module):
        name = module.__name__
        text = self.sources.get(name.rpartition('.')[2]) or self.file(name).read_text(encoding='utf-8')
        exec(compile(text, f'{name}.py', 'exec'), vars(module))


def kill(prop, where, old, new):
    "What the property says of the library with `old` replaced by `new`; fails if it says nothing"
    source = mutated(where, old, new)
    with Library(**{where.split('.')[0]: source}) as lib:
        try: prop(lib)
        except AssertionError as e: return str(e)
        except Exception as e:
            pytest.fail(f'{prop.__name__} crashed on {new!r} for {old!r} in {where}, which is no kill: {e!r}')
    pytest.fail(f'{prop.__name__} did not see {new!r} for {old!r} in {where}')


def rows_of(**mutants):
    "Of module -> property -> rows (kind, definition, its text, what is planted): rows, and names for them"
    rows = [(prop, kind, f'{module}.{name}', old, new) for module, props in mutants.items()
            for prop, some in props.items() for kind, name, old, new in some]
    return rows, [f'{prop.__name__}-{where}-{kind}' for prop, kind, where, *_ in rows]

def planted(**mutants):
    "Two tests: the library has each property, and each property sees the bugs of its rows, as `rows_of` has them"
    rows, names = rows_of(**mutants)
    @pytest.mark.parametrize('prop', dict.fromkeys(prop for prop, *_ in rows), ids=lambda p: p.__name__)
    def holds(prop):
        with Library() as lib: prop(lib)
    @pytest.mark.parametrize('prop,kind,where,old,new', rows, ids=names)
    def is_found(prop, kind, where, old, new, record_property):
        record_property('mutant', kind)                # counted at the end of the run, by conftest.py
        kill(prop, where, old, new)
    return holds, is_found


# ---- commands, settings and notebooks of the house

bin = Path(sys.executable).parent


def sh(*args, cwd, **env):
    "Run a command without stdin in a clean environment: (exit status, what it said)"
    drop = 'BACKPROP13_DATA', 'BACKPROP13_SITE', 'PYTHONPATH', 'IN_TEST', 'CI'
    e = {k: v for k, v in os.environ.items() if k not in drop and not k.startswith('GIT_')}
    e |= {'PATH': f"{bin}{os.pathsep}{os.environ['PATH']}", **env}
    p = subprocess.run([str(o) for o in args], cwd=cwd, env=e, stdin=subprocess.DEVNULL,
                       capture_output=True, text=True)
    return p.returncode, p.stdout+p.stderr


def program(path, does):
    "A program of one line of shell, in place of a real one"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{does}\n')
    path.chmod(0o755)


def edit(path, old, new):
    "Replace `old` in the file `path`, where it must stand"
    text = path.read_text(encoding='utf-8')
    assert old in text, f'{old!r} is not in {path}'
    path.write_text(text.replace(old, new, 1), encoding='utf-8')


def config(folder): return load_tool('settings').ini(folder)


def lists(folder):
    "The lists of requirements in settings.ini, by their names"
    return [k for k in config(folder) if k.endswith('requirements')]


def canonical(name): return re.sub(r'[-_.]+', '-', name).lower()


LAST = '''#| hide
import nbdev
if nbdev.config.get_config().get('repo') == 'backprop13': nbdev.nbdev_export()   # in a clone'''

def sound():
    "A notebook in the house's form"
    return new_notebook(cells=[
        new_markdown_cell('# Title\n\n> A subtitle'), new_code_cell('#| default_exp tiny'),
        new_code_cell('print("loss", 0.1234)',
                      outputs=[new_output('stream', name='stdout', text='loss 0.1234\n')]),
        new_code_cell(LAST)])


# ---- small files of digits

IMAGES, LABELS, IMAGES_TEST, LABELS_TEST = SHA256
REFUSED = 'http://127.0.0.1:9/' # port 9 is 'discard'; nothing listens there
sha = lambda b: hashlib.sha256(b).hexdigest()


def make_files(n_images=6, n_labels=6) -> dict:
    "Four small files in MNIST's format"
    rng = np.random.RandomState(0)
    image = lambda n: to_idx(torch.from_numpy(rng.randint(0, 256, (n, 28, 28)).astype(np.uint8)))
    label = lambda n: to_idx(torch.from_numpy(rng.randint(0, 10, n).astype(np.uint8)))
    return dict(zip(SHA256, (image(n_images), label(n_labels), image(3), label(3))))

FILES = make_files()
SUMS = {name: sha(b) for name, b in FILES.items()}

def fill(folder, files=FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, b in files.items(): (folder/name).write_bytes(b)
    return folder

def contents(folder) -> dict: return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    "No test sees the user's data or cache, or talks to a mirror by mistake."
    monkeypatch.delenv('BACKPROP13_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'xdg'))


def run_two(code, *args):
    "The same program in two processes at once; what each printed"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ps = [subprocess.Popen([sys.executable, '-c', code, *args], cwd=root, **pipes) for _ in range(2)]
    outs, errs = zip(*(p.communicate(timeout=120) for p in ps))
    assert [p.returncode for p in ps] == [0, 0], errs
    assert not any('DataWarning' in e or 'SyntheticWarning' in e for e in errs), errs
    return list(outs)
