"What holds of the whole repository. A check returns what is wrong in a folder; its mutant spoils a copy."
import os, re, shutil, sys
from graphlib import CycleError, TopologicalSorter
from types import SimpleNamespace

import nbformat, pytest
from conftest import load_tool, read
from helpers import LAST, canonical, config, edit, lists, sh, sound
from nbformat.v4 import new_output
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


def upwards(folder):
    "A circle of the package's modules, and imports of practice by support; those in functions count"
    files = {f.relative_to(folder).as_posix(): f for f in (folder/'backprop13').rglob('*.py') if f.stem != '__init__'}
    uses = {name: {f"{o.replace('.', '/')}.py" for o in passed.imported(name, read(f))} & {*files} - {name}
            for name, f in files.items()}
    try: TopologicalSorter(uses).prepare()
    except CycleError as e: yield f"a circle: {', '.join(e.args[1])}"
    yield from (f'{a} imports {b}' for a in uses if '/support/' in a for b in uses[a] if '/practice/' in b)


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

@pytest.mark.parametrize('file,line', [
    ('matmul', 'def f():\n    from .backprop import lin'), ('support/checks', 'from . import graph'),
    ('support/home', 'from ..practice.shell import run')])
def test_a_circle_and_an_arrow_upwards_are_caught(clone, file, line):
    with (clone/f'backprop13/{file}.py').open('a') as f: f.write(line)
    assert len(list(upwards(clone))) == 1

def unlisted(folder):
    "Names that a module of the lesson exports and the reference doesn't have"
    said = read(folder/'nbs/reference.ipynb')
    for f in (folder/'backprop13').glob('[!_]*.py'):
        names = re.search(r'__all__ = \[(.*?)\]', read(f), re.S)[1]
        yield from (n for n in re.findall(r"'(\w+)'", names) if f'"### {n}\\n"' not in said)


def test_a_name_that_the_reference_lacks_is_caught(clone):
    edit(clone/'backprop13/matmul.py', "__all__ = [", "__all__ = ['new', ")
    assert list(unlisted(clone)) == ['new']

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


# what the last must find: test_authoring.py
CHECKS = wrong_way, upwards, orphans, unlisted, unpinned, needless, unfit, formless, check.unsound

@pytest.mark.parametrize('check', CHECKS, ids=lambda o: o.__name__)
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


def test_readme_is_what_the_home_page_makes(project):
    rc, said = sh(sys.executable, 'tools/readme.py', '--check', cwd=project)
    assert rc == 0, said
    links = re.findall(r'\]\((?![a-z]+:|#)([^)#]+)', read('README.md'))
    assert links and all((project/link).exists() for link in links), links
