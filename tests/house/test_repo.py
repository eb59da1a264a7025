"What holds of the whole repository. A check returns what is wrong in a folder; its mutant spoils a copy."
import json, os, re, shutil, subprocess, sys
from types import SimpleNamespace

import nbformat, pytest
from conftest import load_tool, read
from helpers import LAST, bin, canonical, config, edit, lists, program, sh, sound
from nbformat.v4 import new_code_cell, new_output
from packaging.requirements import Requirement

notebooks, check, passed = map(load_tool, ('notebooks', 'check', 'passed'))


# ---- the order of the modules

def modules(folder):
    "name -> (its notebook, the number of its chapter or None for a support module), from each `#| default_exp`"
    res = {}
    for f in notebooks.notebooks(folder/'nbs'):
        for c in nbformat.read(f, 4).cells:
            m = re.search(r'^#\|\s*default_exp\s+([\w.]+)', c.source, re.M) if c.cell_type == 'code' else None
            if m:
                number = re.match(r'(\d+)_', f.name)
                res[m[1]] = f, int(number[1]) if number and f.parent.name == 'nbs' else None
    return res


def wrong_way(folder):
    "Imports of a chapter's module that aren't of a lower-numbered chapter"
    chapters = {name: k for name, (_, k) in modules(folder).items() if k is not None}
    for name, k in chapters.items():
        file = f'backprop13/{name}.py'
        names = passed.imported(file, read(folder/file))
        found = {o.split('.')[1] for o in names if o.startswith('backprop13.')}
        yield from (f'{name} (chapter {k}) imports {o}' for o in found if chapters.get(o, k) >= k)


def orphans(folder):
    "Modules without their notebook"
    mods = modules(folder)
    for f in sorted((folder/'backprop13').rglob('*.py')):
        if f.stem in ('__init__', '_modidx'): continue
        m = re.search(r'File to edit: (\S+?)\.?$', read(f), re.M)
        name = '.'.join(f.relative_to(folder/'backprop13').with_suffix('').parts)
        if name not in mods or not m or (f.parent/m[1]).resolve() != mods[name][0].resolve(): yield name


@pytest.mark.parametrize('line', [
    'from backprop13.training import nll', 'from .support.checks import near',
    'import backprop13.support.checks', 'def f():\n    from .fitting import fit', 'from . import training',
    'def __getattr__(name):\n    from . import speed', 'from .support.card import card'])
def test_an_import_the_wrong_way_is_caught(clone, line):
    with (clone/'backprop13'/'backprop.py').open('a') as f: f.write(line)
    assert len(list(wrong_way(clone))) == 1

def test_a_module_without_a_notebook_is_caught(clone):
    shutil.copy(clone/'backprop13'/'backprop.py', clone/'backprop13'/'old.py')
    assert list(orphans(clone)) == ['old']


# ---- what the project needs

def unpinned(folder):
    "Requirements of settings.ini that constraints.txt doesn't pin to a version that satisfies them"
    pins = [Requirement(o) for o in read(folder/'constraints.txt').splitlines() if o and o[0] != '#']
    for key in lists(folder):
        for req in map(Requirement, config(folder)[key].split()):
            mine = [p for p in pins if canonical(p.name) == canonical(req.name)]
            versions = [next(iter(p.specifier)) for p in mine]
            fit = [v.operator == '==' and req.specifier.contains(v.version) for v in versions]
            if not mine or not all(fit): yield str(req)


@pytest.mark.parametrize('old,new', [('sympy==', 'sumpy=='), ('fastcore==1', 'fastcore==2'),
                                     ('torch==', 'torch>=')])
def test_a_missing_or_wrong_pin_is_caught(clone, old, new):
    edit(clone/'constraints.txt', f'\n{old}', f'\n{new}')
    assert len(list(unpinned(clone))) == 1


def test_setup_takes_every_value_from_settings(clone):
    cfg = config(clone)
    edit(clone/'settings.ini', 'version = ' + cfg['version'], 'version = 9.8.7')
    edit(clone/'settings.ini', '    tqdm', '    tqdm-mutant')
    edit(clone/'settings.ini', 'backprop13-data=', 'backprop13-mutant=')
    rc, out = sh(sys.executable, 'setup.py', '--version', cwd=clone)
    assert rc == 0 and out.split()[-1] == '9.8.7', out
    rc, out = sh(sys.executable, 'setup.py', '-q', 'egg_info', cwd=clone)
    assert rc == 0, out
    requires, commands = ((clone/f'backprop13.egg-info/{o}.txt').read_text()
                          for o in ('requires', 'entry_points'))
    assert all(o in requires for o in ('tqdm-mutant', '[dev]', '[labs]', '[bench]'))
    assert all(o in commands for o in ('backprop13-mutant', 'backprop13-train', 'backprop13._modidx:d'))


def needless(folder, python=sys.executable):
    "Packages that backprop13.backprop loads beyond Python's, torch's and numpy's own"
    code = '''import sys, torch
had = set(sys.modules)
import backprop13.backprop
print(*{o.split(".")[0] for o in set(sys.modules)-had})'''
    rc, out = sh(python, '-c', code, cwd=folder)
    assert rc == 0, out
    return set(out.split()) - set(sys.stdlib_module_names) - {'backprop13', 'torch', 'numpy'}


def test_a_costly_import_is_caught(clone):
    with (clone/'backprop13'/'backprop.py').open('a') as f: f.write('\nimport matplotlib\n')
    assert 'matplotlib' in needless(clone)


def missing(module, names):
    "Those of `names` that the module doesn't have, or doesn't export"
    return [o for o in names.split() if not hasattr(module, o) or o not in getattr(module, '__all__', [])]


def test_the_names_that_others_rely_on():
    from backprop13 import backprop, data, fitting, training
    assert missing(data, 'mnist') == []
    later = 'accuracy report Dataset fit get_dls'
    for module, names in ((backprop, 'lin relu mse lin_grad forward_and_backward Module Relu Lin Mse Model Linear'),
                          (training, f'log_softmax logsumexp nll cross_entropy {later}'), (fitting, later)):
        assert missing(module, names) == []
    assert missing(SimpleNamespace(lin=1, relu=2, __all__=['lin']), 'lin relu mse') == ['relu', 'mse']


# ---- what is committed

foreign = re.compile(r'\.(woff2?|ttf|otf|eot|gz|zip|tar|npz|npy|pkl|pt|pth|safetensors|whl)$|-ubyte$'
                     r'|\.min\.|katex|vendor|node_modules')

def unfit(folder):
    "Files that don't belong in the repository"
    for f in check.tree(folder):
        name, kb = f.relative_to(folder).as_posix(), f.stat().st_size/1e3
        if kb > (3000 if f.suffix == '.ipynb' else 1000): yield f'{name}: {kb:.0f} kB'
        if foreign.search(name): yield f'{name}: a font, data, an archive or somebody else’s script'
        elif f.suffix in ('.js', '.mjs', '.css'):
            text = read(f)
            if '/*!' in text or '@license' in text: yield f'{name}: somebody else’s licence'
            if max(map(len, text.splitlines()), default=0) > 300: yield f'{name}: minified'


@pytest.mark.parametrize('name,text', [
    ('nbs/a.woff2', ''), ('train-images-idx3-ubyte', ''), ('nbs/assets/d3.min.js', ''),
    ('nbs/assets/x.js', '/*! Somebody */'),
    ('nbs/assets/y.js', 'x;'*200), ('big.md', 'x\n'*600_000), ('nbs/big.ipynb', 'x\n'*1_600_000)])
def test_an_unfit_file_is_caught(clone, name, text):
    (clone/name).parent.mkdir(exist_ok=True)
    (clone/name).write_text(text)
    assert len(list(unfit(clone))) == 1


def test_the_site_has_one_configuration(project):
    link = project/'nbs'/'_quarto.yml'
    # a text, where git has no links
    assert (os.readlink(link) if link.is_symlink() else link.read_text()) == '../_quarto.yml'


# ---- the form of a notebook

def form(path):
    "What in a notebook isn't in the house's form"
    nb = nbformat.read(path, 4)
    first = nb.cells[0]
    if first.cell_type != 'markdown' or not re.fullmatch(r'# [^\n]+\n\s*> [^\n]+\s*', first.source):
        yield 'the first cell has a title and a subtitle, and only these'
    for i, c in enumerate(nb.cells):
        if c.metadata: yield f'cell {i+1}: metadata'
        most = 30 if c.source.startswith('#| exports support.cards') else 25
        if c.cell_type == 'code' and len(c.source.splitlines()) > most:
            yield f'cell {i+1}: more than {most} lines'
    yield from (f'cell {i+1}: {o}' for i, o in notebooks.stored_problems(nb))
    exports = any(re.search(r'^#\|\s*default_exp', c.source, re.M) for c in nb.cells)
    if exports and nb.cells[-1].source != LAST: yield 'the last cell exports'


def formless(folder):
    return [f'{f.relative_to(folder)}: {o}' for f in notebooks.notebooks(folder/'nbs') for o in form(f)]


@pytest.mark.parametrize('check', [wrong_way, orphans, unpinned, needless, unfit, formless], ids=lambda o: o.__name__)
def test_nothing_is_wrong(project, check): assert list(check(project)) == []


def set_first(nb): nb.cells[0].source += '\n\nMore.'
def set_meta(nb): nb.cells[2].metadata['tags'] = ['x']
def set_long(nb): nb.cells[2].source += '\n'*25 + 'x'
def set_stderr(nb): nb.cells[2].outputs += [new_output('stream', name='stderr', text='Warning: old\n')]
def set_error(nb): nb.cells[2].outputs += [new_output('error', ename='ValueError', evalue='bad', traceback=[])]
def set_last(nb): nb.cells.pop()
def set_widget(nb):
    widget = {notebooks.WIDGET: {'model_id': 'x'}, 'text/html': 'a lab'}
    nb.cells[2].outputs += [new_output('display_data', widget)]

@pytest.mark.parametrize('mutate', [set_first, set_meta, set_long, set_stderr, set_error, set_last, set_widget])
def test_a_fault_of_form_is_caught(tmp_path, mutate):
    nb, path = sound(), tmp_path/'a.ipynb'
    nbformat.write(nb, path)
    assert list(form(path)) == []
    mutate(nb)
    nbformat.write(nb, path)
    assert len(list(form(path))) == 1


INSTALL = '''#| hide
try: import backprop13
except ModuleNotFoundError:   # in Colab, or beside a notebook that was downloaded
    %pip install -q "backprop13[notebook] @ git+{git_url}"'''


def test_a_chapter_that_was_downloaded_installs_what_it_needs(project):
    want = INSTALL.format(git_url=config(project)['git_url'])
    for f in project.glob('nbs/[0-9]*.ipynb'):
        assert [c.source for c in nbformat.read(f, 4).cells].count(want) == 1, f.name


SESSION = '''import json, sys
from IPython.core.interactiveshell import InteractiveShell
sys.meta_path[:] = [o for o in sys.meta_path if '__editable__' not in repr(o)]     # the checkout isn't installed
shell, bought = InteractiveShell.instance(), []
def pip(line): bought.append(line); sys.path.append(sys.argv[1])
shell.register_magic_function(pip)
for cell in json.load(sys.stdin): shell.run_cell(cell).raise_error()
print('bought', len(bought))'''


@pytest.mark.parametrize('settings', [
    '', 'repo = theirs\nlib_name = theirs\nlib_path = theirs\nnbs_path = .\n', 'a = %(b)s\n'])
def test_a_downloaded_notebook_runs_twice(project, tmp_path, settings):
    "What installs it and its last cell, without a clone: in an empty folder, another nbdev project, other settings"
    pip, folder, ends = tmp_path/'pip', tmp_path/'downloads', set()
    shutil.copytree(project/'backprop13', pip/'backprop13')
    folder.mkdir()
    if settings: (folder/'settings.ini').write_text(f'[DEFAULT]\n{settings}')
    for f in notebooks.notebooks(project/'nbs'):
        code = [c.source for c in nbformat.read(f, 4).cells if c.cell_type == 'code']
        ends.add((*(o for o in code if '%pip' in o), *(o for o in code if 'nbdev_export(' in o)))
    for cells in ends - {()}:
        for path, n in ('', '%pip' in cells[0]), (pip, 0):
            env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | {'PYTHONPATH': str(path)}
            p = subprocess.run([sys.executable, '-c', SESSION, pip], cwd=folder, env=env, input=json.dumps(cells),
                               capture_output=True, text=True)
            assert not p.returncode and f'bought {n:d}' in p.stdout, f'{cells}: {p.stdout + p.stderr}'
    assert [o.name for o in folder.iterdir()] == ['settings.ini']*bool(settings)


# ---- nbdev, packaging, set-up

def test_what_is_not_as_generated_is_caught(clone):
    "The check of step 1 of make test, on a copy with one fault of each sort"
    chapter = clone/'nbs'/'03_backprop.ipynb'
    nb = json.loads(chapter.read_text())
    nb['cells'][0]['metadata'] = {'tags': ['x']}
    chapter.write_text(json.dumps(nb))
    edit(clone/'nbs'/'01_matmul.ipynb', '"#| exports\\n",', '"#| exports\\n", "#| code-fold: true\\n",')
    with (clone/'backprop13'/'training.py').open('a') as f: f.write('# by hand\n')
    (clone/'backprop13'/'gone.py').write_text('# of a deleted notebook\n')
    with (clone/'README.md').open('a') as f: f.write('By hand.\n')
    said = check.stale(clone)
    # the first again: its JSON is not as Jupyter writes it
    assert [o.split()[0] for o in said] == [
        'nbs/01_matmul.ipynb', 'nbs/03_backprop.ipynb', 'backprop13/gone.py', 'backprop13/matmul.py',
        'backprop13/training.py', 'nbs/01_matmul.ipynb', 'README.md'], said


@pytest.fixture
def small(clone):
    "A copy with one small notebook in place of the chapters"
    for f in [*(clone/'nbs').rglob('*.ipynb'), *(clone/'backprop13').rglob('*.py')]: f.unlink()
    nb = sound()
    cells = '#| exports\ndef two():\n    "The number 2"\n    return 2', 'assert two() == 2'
    nb.cells[-1:-1] = [new_code_cell(o) for o in cells]
    nbformat.write(nb, clone/'nbs'/'00_tiny.ipynb')
    return clone


@pytest.mark.parametrize('folder,quarto', [('.', False), ('nbs', True)])
def test_nbdev_works_as_its_users_expect(small, tmp_path, folder, quarto):
    "From the root and from nbs/, without and with Quarto; README.md is left alone"
    readme, path = (small/'README.md').read_bytes(), os.environ['PATH']
    if quarto:
        program(tmp_path/'bin'/'quarto', 'echo quarto was called; exit 1')
        path = f"{tmp_path/'bin'}{os.pathsep}{path}"
    rc, said = sh(bin/'nbdev_prepare', cwd=small/folder, PATH=path)
    assert rc == 0 and 'Success' in said and 'quarto was called' not in said, said
    assert (small/'README.md').read_bytes() == readme
    assert 'def two' in (small/'backprop13'/'tiny.py').read_text()
    assert '0.1.0' in (small/'backprop13'/'__init__.py').read_text()
    before = check.contents(small)
    for o in 'nbdev_clean', 'nbdev_export':
        rc, said = sh(bin/o, cwd=small/folder)
        assert rc == 0, said
    assert check.contents(small) == before


def test_the_last_cell_exports_in_a_clone(small):
    rc, said = sh(sys.executable, '-c', LAST, cwd=small/'nbs')
    assert rc == 0 and 'def two' in (small/'backprop13'/'tiny.py').read_text(), said


def test_nbdev_test_fails_where_a_check_fails(small):
    edit(small/'nbs'/'00_tiny.ipynb', 'two() == 2', 'two() == 3')
    rc, said = sh(bin/'nbdev_test', cwd=small)
    assert rc == 1 and '00_tiny' in said, said


@pytest.mark.parametrize('command', ['nbdev_test', 'python tools/notebooks.py check nbs/00_tiny.ipynb'])
def test_a_relative_folder_of_data_means_the_same_in_notebooks(small, command):
    "It counts from where the command was typed, though both run a notebook in its own folder."
    shutil.copytree(check.root/'backprop13', small/'backprop13', dirs_exist_ok=True)
    asks = f"from backprop13.data import _source; assert str(_source()) == '{small}/mine'"
    edit(small/'nbs'/'00_tiny.ipynb', 'assert two() == 2', asks)
    rc, said = sh('sh', '-c', f'BACKPROP13_DATA=mine; export BACKPROP13_DATA; {command}', cwd=small)
    assert rc == 0, said


def test_an_old_python_is_told_so(clone, tmp_path):
    program(old := tmp_path/'oldpython', '[ "$1" = -V ] && echo Python 3.8.1\nexit 1')
    rc, said = sh('make', 'setup', f'PYTHON={old}', cwd=clone)
    assert rc != 0 and f'needs Python 3.10 or newer, and {old} is Python 3.8.1' in said, said
    assert not (clone/'.venv').exists()
    rc, said = sh('make', 'setup', 'PYTHON=nopython', cwd=clone)
    assert rc != 0 and 'there is no nopython here' in said, said


def test_readme_is_what_the_home_page_makes(project):
    rc, said = sh(sys.executable, 'tools/readme.py', '--check', cwd=project)
    assert rc == 0, said
    links = re.findall(r'\]\((?![a-z]+:|#)([^)#]+)', read('README.md'))
    assert links and all((project/link).exists() for link in links), links
