"What nbdev, packaging and set-up do, in copies; what a notebook does that was downloaded"
import json, os, re, shutil, subprocess, sys

import nbformat, pytest
from conftest import load_tool
from helpers import LAST, bin, config, edit, program, sh, sound
from nbformat.v4 import new_code_cell

check, notebooks = load_tool('check'), load_tool('notebooks')


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


# ---- nbdev and make

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
