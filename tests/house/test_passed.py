"What `make test` leaves out when it runs again: a change must reach all that it could break"
import json, re, subprocess, sys

import pytest
from conftest import load_tool
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

passed = load_tool('passed')


def book(*cells, text='# T'):
    cells = [new_markdown_cell(text),
             *(new_code_cell(c, outputs=[new_output('stream', text='1')]) for c in cells)]
    return json.dumps(new_notebook(cells=cells)).encode()

FILES = {
    **dict.fromkeys([
        'constraints.txt', 'tools/notebooks.py', 'README.md', 'nbs/assets/site.css', 'tests/conftest.py',
        'backprop13/static/kit.js', 'backprop13/__init__.py', 'backprop13/matmul.py', 'backprop13/data.py',
        'backprop13/support/__init__.py', 'backprop13/support/more.py', 'backprop13/support/more.json',
        'backprop13/support/looks.py', 'tests/test_checks.py', 'tests/test_lab_a.py', 'tests/house/test_setup.py',
        'tests/test_new.py', 'tests/test_practice.py'], b''),
    'tools/site.py': b'from backprop13.support.looks import card',
    'backprop13/backprop.py': b'from .matmul import matmul',
    'backprop13/more.py': b'from backprop13 import data',
    'backprop13/speed.py': b'def f():\n    from .backprop import lin',
    'backprop13/support/graph.py': b'from ..speed import f\nfrom . import more',
    'nbs/01_matmul.ipynb': book('%matplotlib inline\nfrom backprop13.data import mnist'),
    'nbs/03_backprop.ipynb': book('import torch'), 'nbs/reference.ipynb': book('1'),
    'nbs/practice.ipynb': book('1'), 'nbs/practice/01_matmul.ipynb': book('1'),
    'nbs/07_speed.ipynb': book('%%bash\nnot Python', 'import backprop13.speed as s'),
    'tests/test_data.py': b'from backprop13.data import mnist',
    'tests/test_pages.py': b'from test_data import x',
    'tests/test_graph.py': b'from backprop13.support import graph',
    'tests/helpers.py': b'import backprop13.more',
    'tests/lesson/test_fitting.py': b'import helpers'}
BOOKS = {o for o in FILES if o.endswith('.ipynb')}
TESTS = {o for o in FILES if '/test_' in o}
ALL = BOOKS | TESTS
NEW, PAGES, LAB, SETUP, PRACTICE = ({f'tests/{o}.py'} for o in (
    'test_new', 'test_pages', 'test_lab_a', 'house/test_setup', 'test_practice'))
PROSE = NEW | PAGES                                                             # no row, or one that says so
TOOLS = NEW | SETUP | PRACTICE
SITE = PROSE | LAB                                                              # who builds it
# who reads the whole of backprop13/
EACH = TOOLS | {'tests/test_checks.py', 'nbs/reference.ipynb', 'nbs/practice.ipynb'}
SPEED = {'tests/test_graph.py', 'nbs/07_speed.ipynb'}
DATA, FITTING = {'tests/test_data.py', 'nbs/01_matmul.ipynb'}, {'tests/lesson/test_fitting.py'}

def tried(tmp_path, changes, data='MNIST'):
    "What is tried again after `changes`, once all has passed"
    file = tmp_path/'passed.json'
    first = passed.Passed(FILES, 'MNIST', file)
    assert first.without(2, [*ALL]) == [*ALL]
    first.add(2, ALL)
    return {*passed.Passed(FILES | changes, data, file).without(2, [*ALL])}


THREE = 'nbs/03_backprop.ipynb'

@pytest.mark.parametrize('changes,want', [
    ({}, set()),
    ({'constraints.txt': b'numpy'}, ALL), ({'tests/conftest.py': b'1'}, ALL),
    ({'backprop13/__init__.py': b'1'}, EACH | SITE | SPEED | DATA | FITTING),
    ({'tools/site.py': b'1'}, SITE | TOOLS), ({'nbs/assets/site.css': b'1'}, SITE),
    ({'tools/notebooks.py': b'1'}, SITE | TOOLS | BOOKS - {'nbs/reference.ipynb', 'nbs/practice.ipynb'}),
    ({'backprop13/static/kit.js': b'1'}, EACH | SITE | BOOKS), ({'README.md': b'1'}, TOOLS),
    ({'backprop13/data.py': b'1'}, EACH | DATA | FITTING | PAGES),
    ({'backprop13/more.py': b'from backprop13 import data, x'}, EACH | FITTING),
    ({'tests/helpers.py': b'import backprop13.more, os'}, TOOLS | FITTING),
    ({'backprop13/matmul.py': b'1'}, EACH | SPEED), ({'backprop13/speed.py': b'1'}, EACH | SPEED),
    ({'backprop13/support/looks.py': b'1'}, EACH | SITE),
    ({'backprop13/support/more.py': b'1'}, EACH | SPEED - BOOKS),
    ({'backprop13/support/more.json': b'1'}, EACH | SITE | SPEED - BOOKS),
    ({THREE: book('import torch', text='# T\nAnother sentence')}, PROSE),
    ({'nbs/practice/01_matmul.ipynb': book('1', text='# T\nAnother sentence')},
     PROSE | PRACTICE | {'nbs/practice.ipynb'}),
    ({THREE: book('import torch', text='# Another heading')}, SITE | TOOLS),
    ({THREE: book('import torch', text='# T\n**Predict:** more?')}, SITE | TOOLS),
    ({THREE: book('import torch as t')}, SITE | TOOLS | {THREE}),
    ({THREE: FILES[THREE].replace(b'"1"', b'"2"')}, SITE | TOOLS | {THREE}),
    ({'tests/test_data.py': b'import backprop13.data'}, TOOLS | PAGES | {'tests/test_data.py'})],
    ids=lambda o: ' '.join(o) if isinstance(o, dict) else '')
def test_a_change_reaches_what_it_could_break(tmp_path, changes, want):
    assert tried(tmp_path, changes) == want


def test_other_digits_are_tried(tmp_path): assert tried(tmp_path, {}, 'synthetic') == ALL


def test_each_step_has_a_memory_of_its_own(tmp_path):
    one = passed.Passed(FILES, 'MNIST', tmp_path/'passed.json')
    one.add(2, BOOKS)
    assert one.without(3, [*BOOKS]) == [*BOOKS] and one.without(2, [*BOOKS]) == []


def test_without_a_file_all_is_tried():
    "As in CI"
    one = passed.Passed(FILES, 'MNIST', None)
    one.add(2, BOOKS)
    assert one.without(2, [*BOOKS]) == [*BOOKS]


def test_each_row_says_something_of_a_file(project):
    files = [f.relative_to(project).as_posix() for f in load_tool('check').tree(project)]
    stems = [o.removesuffix('.ipynb') if 'nbs/' in o else o.split('/')[-1].removesuffix('.py') for o in files]
    for row, said in passed.READS.items():
        assert any(re.fullmatch(row, o) for o in stems), row
        assert all(o in passed.KINDS or any(re.fullmatch(o, f) for f in files) for o in said.split()), row
    named = [o for row in passed.READS for o in re.findall(r'\w+(?=[|)])', row) if row.startswith('test_(')]
    assert [o for o in named if f'test_{o}' not in stems and o != 'w'] == []


@pytest.mark.parametrize('test,more', [
    ("def test(): open('README.md').close()", 'README.md'),
    ("def test(clone): assert not (clone/'CHANGELOG.md').exists() and (clone/'settings.ini').exists()", None),
    ("def test(): Path('tools/site.py').read_text()", 'tools/site.py'),
    ("def test(docs): pass", 'tools/site.py'),
    ("def test(): __import__('backprop13.support.graph')", 'backprop13/support/graph.py'),
    ("def test(project): pass", 'README.md'),
    ("def test(): import backprop13.support.graph", None), ("def test(): open('README.md', 'a').close()", None),
    ("x = Path('tools/site.py').read_text()\ndef test(): open('constraints.txt').close()", None)])
def test_a_test_that_reads_more_than_its_row_says_is_told(clone, test, more):
    file = clone/'tests/lesson/test_matmul.py'
    file.write_text(f'from pathlib import Path\n{test}\n')
    if 'docs' in test: (clone/'tools/site.py').write_text('')                # it needs not build
    r = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', file], cwd=clone,
                       capture_output=True, text=True)
    told = re.search(f'tests/lesson/test_matmul.py reads .*{more}.*: say so in READS of tools/passed.py',
                     r.stdout)
    assert bool(r.returncode) == bool(told) == bool(more), r.stdout
