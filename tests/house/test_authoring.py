"""What an author does to the repository: each fault gets a sentence that says what to do, and two branches that edit
one notebook merge. Git is real, and so is the driver that `make` sets; notebooks are few and small."""
import json, os, shutil, sys, warnings
from pathlib import Path

import helpers, nbformat, pytest
from conftest import load_tool, read
from helpers import LAST, bin, edit, program

check = load_tool('check')


# ---- faults, and what is said of them

def load(path): return json.loads(read(path))
def save(path, nb):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def cell(kind, source):
    res = dict(cell_type=kind, id=f'{abs(hash(source)):08x}'[:8], metadata={}, source=source.splitlines(True))
    return res | dict(execution_count=None, outputs=[]) if kind == 'code' else res


def chapter(*code, module='tiny', cells=None):
    "A notebook in the house's form, or with these cells"
    code = [cell('code', o) for o in (f'#| default_exp {module}', *code, LAST)]
    kernel = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
    cells = [cell('markdown', '# Tiny\n\n> A small chapter'), *code] if cells is None else cells
    return dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)


def changed(path, old, new):
    "Replace text of the first cell of the notebook `path` in which it stands"
    nb = load(path)
    found = next(c for c in nb['cells'] if old in ''.join(c['source']))
    found['source'] = ''.join(found['source']).replace(old, new).splitlines(True)
    save(path, nb)


def added(folder, name, **kw):
    "A notebook with its row in the sidebar"
    save(folder/'nbs'/name, chapter(*kw.pop('code', ()), **kw))
    edit(folder/'_quarto.yml', '          - text: 0 · ',
         f'          - text: New\n            href: {name}\n          - text: 0 · ')

def not_json(f): (f/CHAPTER).write_text(read(f/CHAPTER)[:-50], encoding='utf-8')
def empty(f): (f/'nbs/09_new.ipynb').write_text('')
def old_format(f): save(f/'nbs/09_new.ipynb', dict(worksheets=[], metadata={}, nbformat=3, nbformat_minor=0))
def no_cells(f): added(f, '09_tiny.ipynb', cells=[])
def no_title(f): nb = load(f/CHAPTER); nb['cells'].pop(0); save(f/CHAPTER, nb)
def not_python(f): changed(f/CHAPTER, 'return x.masked_fill(x <= 0, 0)', 'return x.masked_fill(x <= 0, 0')
def no_number(f): added(f, 'tiny.ipynb')
def in_a_folder(f): added(f, 'more/tiny.ipynb')
def same_number(f): added(f, '03_tiny.ipynb')
def same_module(f): added(f, '09_tiny.ipynb', module='backprop')
def no_module(f): added(f, '09_tiny.ipynb', cells=[cell('markdown', '# T'), cell('code', '#| exports\nx = 1')])
def no_row(f): save(f/'nbs/09_tiny.ipynb', chapter())
def dead_link(f): changed(f/'nbs/lesson_map.ipynb', '05_fitting.ipynb#', '05_gone.ipynb#')
def renamed(f): (f/'nbs/00_data.ipynb').rename(f/'nbs/00_digits.ipynb')
def deleted(f): (f/'nbs/08_parallel.ipynb').unlink()
def command_gone(f): edit(f/'settings.ini', '=backprop13.support.commands:data', '=backprop13.gone:data')
def quoted(f): edit(f/'_quarto.yml', 'href: 08_parallel.ipynb', "href: '07_gone.ipynb'   # soon")
def not_yaml(f): edit(f/'_quarto.yml', 'website:', 'website: ]')
def no_text(f): edit(f/'_quarto.yml', '- text: Home\n        href', '- href')
def not_ini(f): edit(f/'settings.ini', '', 'lib_name = x\n')
def proc_gone(f): edit(f/'settings.ini', 'backprop13.support.pages:fold_', 'backprop13.gone:fold_')
def in_the_manual(f): edit(f/'CONTRIBUTING.md', CHAPTER, 'nbs/03_gone.ipynb')
def mark_in_text(f): edit(f/'nbs/01_matmul.ipynb', '  {', MARKS.format('  {', '  {'))
def mark_in_cell(f): changed(f/'nbs/01_matmul.ipynb', '# Matrix', '`=======`\n# Matrix')
def mark_in_readme(f): edit(f/'README.md', '', MARKS.format('Mine.', 'Theirs.'))

MARKS = f'{"<"*7} HEAD\n{{}}\n{"="*7}\n{{}}\n{">"*7} theirs\n'
CHAPTER = 'nbs/03_backprop.ipynb'
HOW = 'MAINTAINING.md says how, under "Resolve a merge conflict"'
FAULTS = [
    (not_json, [f'{CHAPTER} is not JSON, Unterminated string', 'git restore it']),
    (empty, ['nbs/09_new.ipynb is not JSON', 'git restore it']),
    (old_format, ['nbs/09_new.ipynb is not a notebook of format 4: save it anew in make lab']),
    (no_cells, ['nbs/09_tiny.ipynb has no title']),
    (no_title, [f'{CHAPTER} has no title: begin it with a cell "# Title"']),
    (not_python, [f'{CHAPTER}, cell ', "is not Python: line 7, '(' was never closed: return x.masked_fill"]),
    (no_number, ['nbs/tiny.ipynb exports a module and is no chapter: name it nbs/NN_name.ipynb, or move it']),
    (in_a_folder, ['nbs/more/tiny.ipynb exports a module and is no chapter']),
    (same_number, ['nbs/03_backprop.ipynb and nbs/03_tiny.ipynb have one number, 3: give one another']),
    (same_module, ['nbs/03_backprop.ipynb and nbs/09_tiny.ipynb export to one module, backprop: name another']),
    (no_module, ['nbs/09_tiny.ipynb exports code without saying where: give it a cell "#| default_exp']),
    (no_row, ['nbs/09_tiny.ipynb has no row in _quarto.yml: add one']),
    (dead_link, ["nbs/lesson_map.ipynb, cell ", "links to 05_gone.ipynb, which doesn't exist: mend the link"]),
    (renamed, ["_quarto.yml has a row for nbs/00_data.ipynb, which doesn't exist: name another",
               *(f'nbs/{o}.ipynb, cell ' for o in ('index', 'teaching', 'support/files')),
               'nbs/00_digits.ipynb has no row']),
    (deleted, ['_quarto.yml has a row for nbs/08_parallel.ipynb', 'nbs/07_speed.ipynb, cell ',
               'tests/lesson/test_parallel.py imports backprop13.parallel, which no notebook exports',
               'tests/lesson/test_repeatable.py imports backprop13.parallel']),
    (command_gone, ['settings.ini has a command of backprop13.gone, which no notebook exports: '
                    'take it out of console_scripts']),
    (quoted, ["_quarto.yml has a row for nbs/07_gone.ipynb, which doesn't exist",
              'nbs/08_parallel.ipynb has no row']),
    (not_yaml, ['_quarto.yml is not YAML: ']),
    (no_text, ["_quarto.yml: a row of the sidebar has text and href; got {'href': 'index.ipynb'}"]),
    (not_ini, ["settings.ini can't be read: File contains no section headers"]),
    (proc_gone, ['settings.ini names backprop13.gone in procs, which no notebook exports: take it out']),
    (in_the_manual, ["CONTRIBUTING.md names nbs/03_gone.ipynb, which doesn't exist"]),
    (mark_in_text, [f'nbs/01_matmul.ipynb has a merge conflict; {HOW}']),
    (mark_in_readme, [f'README.md has a merge conflict; {HOW}']),
    (mark_in_cell, [f'nbs/01_matmul.ipynb has a merge conflict in its cells 1 to 1; {HOW}'])]


@pytest.mark.parametrize('spoil,want', FAULTS, ids=lambda o: getattr(o, '__name__', ''))
def test_a_fault_is_told_with_what_to_do(clone, spoil, want):
    spoil(clone)
    said = check.unsound(clone)
    assert all(any(w in o for o in said) for w in want), said
    about = {o.split()[0].rstrip(',') for o in said}
    assert len(said) <= 8 and all(any(a in w for w in want) or a.startswith('nbs/') for a in about), said


def test_yaml_and_ini_may_be_written_as_they_allow(clone):
    "Quotes, a comment, flow style; what a pattern took for another name"
    edit(clone/'_quarto.yml', 'href: 08_parallel.ipynb', "href: '08_parallel.ipynb'   # the last")
    edit(clone/'_quarto.yml', '- text: Home\n        href: index.ipynb', '- {text: "Home", href: "index.ipynb"}')
    edit(clone/'settings.ini', 'console_scripts =', '# was: old=backprop13.gone:f\nconsole_scripts =')
    assert check.unsound(clone) == []


def test_what_ipython_knows_is_no_fault(clone):
    code = '%time x = 1', 'if True:\n    !ls', '%%bash\nfor', '#| eval: false\n1 +', 'await f()'
    added(clone, '09_tiny.ipynb', code=code)
    assert check.unsound(clone) == []


def test_make_test_ends_with_the_sentence(clone):
    mark_in_text(clone)
    rc, said = helpers.sh(sys.executable, 'tools/check.py', cwd=clone)
    assert rc == 1 and HOW in said and 'Traceback' not in said and '[1/5] failed' in said, said


def test_what_practice_lacks_is_told(monkeypatch):
    practice = load_tool('practice')
    def told(text): return pytest.raises(SystemExit, match=text)
    with told('There is no nbs/99_gone.ipynb, which SHAPES in tools/practice.py or PAGES'):
        practice.read('99_gone')
    # importing it fails, as without a function that it takes
    monkeypatch.setitem(sys.modules, 'backprop13.practice.exercises', None)
    with told('mend nbs/support/exercises.ipynb or what it imports, then nbdev_export'): practice.notebooks()
    monkeypatch.setattr(practice, 'read', lambda chapter: [])
    with told('nbs/03_backprop.ipynb has no hidden cell with %pip install: copy'):
        practice.install('03_backprop')


# ---- make sets git's merge of notebooks

WHO = {f'GIT_{o}_{k}': v for o in ('AUTHOR', 'COMMITTER') for k, v in dict(NAME='A', EMAIL='a@b').items()}

def sh(*args, cwd, ok=True, **env):
    "Run a command, without the environment's programs on the PATH and without settings of the user's: what it said"
    path = os.pathsep.join(o for o in os.environ['PATH'].split(os.pathsep)
                           if not (Path(o)/'nbdev_merge').exists())
    env = WHO | dict(GIT_CONFIG_GLOBAL='/dev/null', GIT_CONFIG_NOSYSTEM='1', PATH=path) | env
    rc, said = helpers.sh(*args, cwd=cwd, **env)
    if ok is not None: assert (rc == 0) == ok, said
    return said


def git(folder, *args, **kw): return sh('git', *args, cwd=folder, **kw)


def fill(folder):
    "The files that setting up reads, an environment that is up to date, and one small notebook"
    for o in 'tools/venv.sh settings.ini setup.py constraints.txt .gitattributes .gitignore Makefile'.split():
        (folder/o).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(check.root/o, folder/o)
    code = [f'def f{i}(x):\n    "Function {i}"\n    return x + {i}' for i in range(4)]
    nb = chapter(*code, 'f1(2)')
    shown = dict(output_type='execute_result', execution_count=None, metadata={}, data={'text/plain': ['3']})
    nb['cells'][-2]['outputs'] = [shown]
    save(folder/'nbs/00_tiny.ipynb', nb)
    return environment(folder)


def environment(folder):
    "A stand-in for an up-to-date .venv, which has the real nbdev_fix"
    for name, does in dict(python='exit 0', npm='exit 0', nbdev_fix=f'exec "{bin}/nbdev_fix" "$@"').items():
        program(folder/'.venv/bin'/name, does)
    (folder/'.venv/made-at').write_text(f'{folder.resolve()}/.venv')
    state = ''.join((folder/o).read_text() for o in ('settings.ini', 'setup.py', 'constraints.txt'))
    (folder/'.venv/installed-dev').write_text(f'{folder.resolve()}\n{state}')
    return folder


@pytest.fixture
def repo(tmp_path):
    "A git repository in which `make` hasn't run yet; the folder's name is none that a shell likes"
    folder = fill(tmp_path/"it's 100%O mine")
    git(folder, 'init', '-q', '-b', 'main')
    git(folder, 'add', '.')
    git(folder, 'commit', '-qm', 'first')
    return folder


def setup(folder, **env): return sh('sh', 'tools/venv.sh', 'python3', '.venv', 'dev', cwd=folder, **env)
def driver(folder): return git(folder, 'config', 'merge.nbdev-merge.driver', ok=None).strip()


def test_make_sets_the_driver_and_leaves_all_else(repo):
    hook = repo/'.git/hooks/post-merge'
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\necho mine\n')
    assert setup(repo) == '' and 'nbdev_fix' in driver(repo)
    once = (repo/'.git/config').read_text()
    assert setup(repo) == '' and (repo/'.git/config').read_text() == once
    assert git(repo, 'status', '--short') == '' and 'mine' in hook.read_text()


def test_the_hooks_of_nbdev_do_not_get_in_its_way(repo):
    setup(repo)
    (repo/'.gitconfig').write_text('[merge "nbdev-merge"]\n\tdriver = nbdev_merge %O %A %B %P\n')
    git(repo, 'config', '--local', 'include.path', '../.gitconfig')
    assert driver(repo).startswith('nbdev_merge')
    setup(repo)
    assert 'nbdev_fix' in driver(repo) and git(repo, 'status', '--short') == ''


def test_where_it_has_nothing_to_set(repo, tmp_path):
    "In CI, in an archive without git and without a git program, and inside somebody's repository"
    assert setup(repo, CI='true') == '' and driver(repo) == ''
    archive = fill(tmp_path/'outer'/'inner')
    git(archive.parent, 'init', '-q')
    assert setup(archive) == '' and driver(archive.parent) == ''
    few = tmp_path/'few'
    few.mkdir()
    for o in 'sh', 'dirname', 'cat', 'cmp': (few/o).symlink_to(shutil.which(o))
    assert setup(repo, PATH=str(few)) == '' and driver(repo) == ''


def test_a_git_that_cannot_be_written_is_only_noted(repo):
    (repo/'.git/config.lock').write_text('')            # stands for read-only, which root isn't stopped by
    assert setup(repo).startswith("Note: git's settings can't be written") and driver(repo) == ''


def test_worktrees_and_submodules_have_it_too(repo, tmp_path):
    git(repo, 'worktree', 'add', '-q', tmp_path/'tree')
    assert setup(environment(tmp_path/'tree')) == '' and str(tmp_path/'tree') in driver(tmp_path/'tree')
    outer = tmp_path/'outer'
    git(tmp_path, 'init', '-q', outer)
    git(outer, '-c', 'protocol.file.allow=always', 'submodule', '--quiet', 'add', repo, 'inner')
    assert setup(environment(outer/'inner')) == '' and 'nbdev_fix' in driver(outer/'inner')
    assert driver(outer) == ''


# ---- two branches that edit one notebook

NB = 'nbs/00_tiny.ipynb'

def source(old, new): return lambda f: changed(f/NB, old, new)
def output(text):
    def g(folder):
        nb = load(folder/NB)
        nb['cells'][-2]['outputs'][0]['data']['text/plain'] = [text]
        save(folder/NB, nb)
    return g


def branches(folder, mine, theirs):
    "Commit what `theirs` changes on a branch and what `mine` changes on main"
    for name, edit in ('theirs', theirs), ('main', mine):
        git(folder, 'checkout', '-q', *['-b'][:name != 'main'], name)
        edit(folder)
        git(folder, 'add', '-A')
        git(folder, 'commit', '-qm', name)


def merge(folder, ok): return git(folder, 'merge', '-q', '--no-edit', 'theirs', ok=ok)
def sources(folder): return [''.join(c['source']) for c in load(folder/NB)['cells']]
ours, others = source('x + 1', 'x + 10'), source('x + 1', 'x + 11')


def test_different_cells_merge_and_of_different_outputs_ours_stay(repo):
    def both(*edits): return lambda f: [o(f) for o in edits]
    setup(repo)
    branches(repo, both(ours, output('4')), both(source('x + 3', 'x + 30'), output('5')))
    merge(repo, True)
    assert 'x + 10' in sources(repo)[3] and 'x + 30' in sources(repo)[5]
    assert load(repo/NB)['cells'][-2]['outputs'][0]['data']['text/plain'] == ['4']
    assert git(repo, 'status', '--short') == ''


def resolved(folder):
    "Keep our version of the cell in conflict, as one would in Jupyter"
    nb = load(folder/NB)
    i = next(i for i, c in enumerate(nb['cells']) if ''.join(c['source']).startswith('`<'))
    del nb['cells'][i+2:i+5], nb['cells'][i]
    save(folder/NB, nb)


@pytest.mark.parametrize('style', ['merge', 'zdiff3'])
@pytest.mark.parametrize('how', ['merge', 'rebase'])
def test_one_cell_on_both_branches_is_a_conflict_between_cells(repo, style, how):
    setup(repo)
    git(repo, 'config', 'merge.conflictStyle', style)
    branches(repo, ours, others)
    git(repo, how, 'theirs', ok=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                 # of ids, which Jupyter gives
        nb = nbformat.read(repo/NB, 4)
        nbformat.validate(nb)
    found = [c.source for c in nb.cells]
    i = found.index('`<<<<<<< HEAD`')
    assert found[i+2] == '`=======`' and found[i+4].startswith('`>>>>>>> ')
    assert {found[i+1][-6:], found[i+3][-6:]} == {'x + 10', 'x + 11'}
    assert len(found) == 12 and any(HOW in o for o in check.flawed(NB, (repo/NB).read_text())[0])
    resolved(repo)
    assert check.flawed(NB, (repo/NB).read_text())[0] == []
    git(repo, 'add', NB)
    if how == 'merge': git(repo, 'commit', '-qm', 'resolved')
    assert not git(repo, 'status', '--short')


def test_both_branches_add_one_notebook(repo):
    setup(repo)
    def adds(code): return lambda f: save(f/'nbs/01_new.ipynb', chapter(code))
    branches(repo, adds('a = 1'), adds('b = 2'))
    merge(repo, False)
    found = [''.join(c['source']) for c in load(repo/'nbs/01_new.ipynb')['cells']]
    assert found[2:7] == ['`<<<<<<< HEAD`', 'a = 1', '`=======`', 'b = 2', '`>>>>>>> theirs`']


@pytest.mark.parametrize('state', ['make never ran', 'the environment is gone'])
def test_without_the_driver_the_marks_stand_in_the_text_and_are_told(repo, state):
    "And they become cells once `make` has run"
    if state == 'the environment is gone':
        setup(repo)
        (repo/'.venv/bin/nbdev_fix').rename(repo/'.venv/bin/gone')
    branches(repo, ours, others)
    merge(repo, False)
    text = (repo/NB).read_text()
    assert '\n<<<<<<< ' in text and 'x + 10' in text and 'x + 11' in text
    (repo/'_quarto.yml').write_text('')
    assert check.unsound(repo) == [f'{NB} has a merge conflict; {HOW}.']
    if state == 'the environment is gone': (repo/'.venv/bin/gone').rename(repo/'.venv/bin/nbdev_fix')
    setup(repo)
    git(repo, 'checkout', '-m', NB)
    assert '`<<<<<<< HEAD`' in sources(repo)


def test_a_driver_by_its_bare_name_would_lose_theirs(repo):
    "The mutant: what nbdev_install_hooks sets, where the environment isn't on the PATH"
    git(repo, 'config', 'merge.nbdev-merge.driver', 'nbdev_merge %O %A %B %P')
    branches(repo, ours, others)
    merge(repo, False)
    text = (repo/NB).read_text()
    assert 'x + 11' not in text and not check.MARK.search(text)


def test_line_ends_of_another_system_are_not_committed(repo):
    path = repo/NB
    path.write_bytes(path.read_bytes().replace(b'\n', b'\r\n'))
    git(repo, 'add', NB)
    assert git(repo, 'status', '--short') == '' and b'\r' not in git(repo, 'show', f':{NB}').encode()
