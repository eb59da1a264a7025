"What tests share: the library with one place changed, and a few words for properties."
import ast, importlib, importlib.abc, importlib.util, itertools, sys
from pathlib import Path

import pytest, torch

import backprop13
from backprop13.support.card import f64, inf, nan, rand, works                     # as the cards have them

folder = Path(backprop13.__file__).parent


# ---- the package with one place changed

def mutated(where, old, new):
    "The source of the module in `where`, such as 'backprop.Lin', with `old` replaced in that definition, where it stands once"
    module, name = where.split('.', 1)
    text = (folder/f'{module}.py').read_text(encoding='utf-8')
    for o in ast.parse(text).body:
        names = [o.name] if hasattr(o, 'name') else [ast.unparse(t) for t in getattr(o, 'targets', [])]
        if name in names:
            lines = text.splitlines(keepends=True)
            part = ''.join(lines[o.lineno - 1:o.end_lineno])
            assert part.count(old) == 1, f'stale row: {old!r} stands {part.count(old)} times in {where}, wanted once'
            return ''.join(lines[:o.lineno - 1]) + part.replace(old, new) + ''.join(lines[o.end_lineno:])
    raise AssertionError(f'stale row: backprop13.{module} has no {name}')


class Modules:
    "The modules of a package as attributes, imported when they are asked for"
    def __init__(self, name): self.name = name
    def __getattr__(self, module): return importlib.import_module(f'{self.name}.{module}')


class Library(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "The package executed afresh, with `sources` in place of some modules' own: `with Library() as lib: lib.backprop.lin`"
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
            return importlib.util.spec_from_loader(fullname, self, is_package=self.file(fullname).name == '__init__.py')
    def file(self, fullname):
        path = folder.joinpath(*fullname.split('.')[1:])
        return path/'__init__.py' if path.is_dir() else path.with_suffix('.py')
    def exec_module(self, module):
        text = self.sources.get(module.__name__.partition('.')[2]) or self.file(module.__name__).read_text(encoding='utf-8')
        exec(compile(text, f'{module.__name__}.py', 'exec'), vars(module))


def kill(prop, where, old, new):
    "What the property says of the library with `old` replaced by `new`; fails if it says nothing"
    source = mutated(where, old, new)
    with Library(**{where.split('.')[0]: source}) as lib:
        try: prop(lib)
        except AssertionError as e: return str(e)
        except Exception as e: pytest.fail(f'{prop.__name__} crashed on {new!r} for {old!r} in {where}, which is no kill: {e!r}')
    pytest.fail(f'{prop.__name__} did not see {new!r} for {old!r} in {where}')


# ---- words for properties

def refuses(error, message, f, *args, **kw):
    "`f(*args)` must raise `error`, and say `message`"
    try: f(*args, **kw)
    except Exception as e: assert isinstance(e, error) and message in str(e), f'{e!r}, wanted {error.__name__}: {message}'
    else: raise AssertionError(f'{f.__name__} took {[a.shape if isinstance(a, torch.Tensor) else a for a in args]}')

def equal(got, want): torch.testing.assert_close(got, want, equal_nan=True)
def near(got, want, tolerance=1e-10): torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
