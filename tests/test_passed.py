"What `make test` leaves out when it runs again: a change must reach all that it could break"
import json, re

import pytest
from conftest import load_tool
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

passed = load_tool('passed')


def book(*cells, text='# T'):
    cells = [new_markdown_cell(text), *(new_code_cell(c, outputs=[new_output('stream', text='1')]) for c in cells)]
    return json.dumps(new_notebook(cells=cells)).encode()

FILES = {'constraints.txt': b'torch', 'tools/site.py': b'', 'README.md': b'', 'nbs/assets/site.css': b'', 'tests/conftest.py': b'',
         'backprop13/static/kit.js': b'', 'backprop13/matmul.py': b'', 'backprop13/backprop.py': b'from .matmul import matmul',
         'backprop13/speed.py': b'    from .backprop import lin', 'backprop13/data.py': b'',
         'nbs/01_matmul.ipynb': book('from backprop13.data import mnist'), 'nbs/03_backprop.ipynb': book('from backprop13 import matmul as m'),
         'nbs/06_speed.ipynb': book('import backprop13.speed'), 'nbs/teaching.ipynb': book('1'), 'nbs/reference.ipynb': book("glob('nbs/')\nimport backprop13.data"),
         'tests/test_data.py': b'from backprop13.data import mnist', 'tests/test_speed.py': b'from backprop13 import data, speed',
         'tests/test_more.py': b'from test_speed import x', 'tests/test_all.py': b'from importlib import import_module\nfrom backprop13.data import x',
         'tests/test_lab.py': b"import backprop13.data\nvisit(server+'backprop.html')",
         'tests/test_pages.py': b'import backprop13.data\ndef test(docs): pass', 'tests/test_package.py': b'import backprop13.data\ndef part(project): pass',
         'tests/test_claims.py': b"import backprop13.data\n(ROOT/'nbs').glob('*')", 'tests/test_clone.py': b'import backprop13.data\ndef f(x): return x.clone()'}
BOOKS = [o for o in FILES if o.endswith('.ipynb')]
TESTS = [o for o in FILES if re.match('tests/test_', o)]
ALL = {*BOOKS, *TESTS}
PROSE = {'tests/test_pages.py', 'tests/test_claims.py'}
WHOLE = PROSE | {'tests/test_package.py'}

def tried(tmp_path, changes, data='MNIST'):
    "What is tried again after `changes`, once all has passed"
    file = tmp_path/'passed.json'
    first = passed.Passed(FILES, 'MNIST', file)
    assert first.without(2, [*ALL]) == [*ALL]
    first.add(2, ALL)
    return {*passed.Passed(FILES | changes, data, file).without(2, [*ALL])}


@pytest.mark.parametrize('changes,want', [
    ({}, set()),
    ({'constraints.txt': b'numpy'}, ALL), ({'tools/site.py': b'1'}, ALL), ({'nbs/assets/site.css': b'1'}, ALL), ({'tests/conftest.py': b'1'}, ALL),
    ({'backprop13/static/kit.js': b'1'}, ALL),
    ({'README.md': b'1'}, WHOLE),
    ({'backprop13/data.py': b'1'}, ALL - {'nbs/03_backprop.ipynb', 'nbs/06_speed.ipynb'}),
    ({'backprop13/speed.py': b'from .backprop import relu'}, WHOLE | {'nbs/06_speed.ipynb', 'nbs/teaching.ipynb', 'tests/test_speed.py', 'tests/test_more.py', 'tests/test_all.py'}),
    ({'backprop13/matmul.py': b'1'}, WHOLE | {'nbs/03_backprop.ipynb', 'nbs/06_speed.ipynb', 'nbs/teaching.ipynb', 'tests/test_speed.py', 'tests/test_more.py', 'tests/test_all.py'}),
    ({'nbs/03_backprop.ipynb': book('from backprop13 import matmul as m', text='# T\nAnother sentence')}, PROSE | {'nbs/reference.ipynb'}),
    ({'nbs/03_backprop.ipynb': book('from backprop13 import matmul as m', text='# Another heading')}, WHOLE | {'tests/test_lab.py', 'nbs/reference.ipynb'}),
    ({'nbs/03_backprop.ipynb': book('from backprop13 import matmul as m', text='# T\n**Predict:** more?')}, WHOLE | {'tests/test_lab.py', 'nbs/reference.ipynb'}),
    ({'nbs/03_backprop.ipynb': book('from backprop13 import matmul')}, WHOLE | {'tests/test_lab.py', 'nbs/reference.ipynb', 'nbs/03_backprop.ipynb'}),
    ({'nbs/03_backprop.ipynb': FILES['nbs/03_backprop.ipynb'].replace(b'"1"', b'"2"')}, WHOLE | {'tests/test_lab.py', 'nbs/reference.ipynb', 'nbs/03_backprop.ipynb'}),
    ({'tests/test_speed.py': b'from backprop13 import data, speed, x'}, WHOLE | {'tests/test_speed.py', 'tests/test_more.py'}),
    ({'nbs/new.ipynb': book('1')}, WHOLE | {'nbs/reference.ipynb'})], ids=lambda o: ' '.join(o) if isinstance(o, dict) else '')
def test_a_change_reaches_what_it_could_break(tmp_path, changes, want): assert tried(tmp_path, changes) == want


def test_other_digits_are_tried(tmp_path): assert tried(tmp_path, {}, 'synthetic') == ALL


def test_each_step_has_a_memory_of_its_own(tmp_path):
    one = passed.Passed(FILES, 'MNIST', tmp_path/'passed.json')
    one.add(2, BOOKS)
    assert one.without(3, BOOKS) == BOOKS and one.without(2, BOOKS) == []


def test_without_a_file_all_is_tried():
    "As in CI"
    one = passed.Passed(FILES, 'MNIST', None)
    one.add(2, BOOKS)
    assert one.without(2, BOOKS) == BOOKS


def test_the_projects_own_files_are_understood(project):
    "No file has a need that isn't there, and what reads all of the notebooks is known to"
    files = load_tool('check').contents(project)
    for name in files:
        if re.match(r'tests/test_\w+\.py|nbs/.*\.ipynb', name): assert name in passed.needs(files, name) <= {*files}
    whole = {o for o in files if re.match(r'tests/test_', o) and passed.needs(files, o) == {*files}}
    assert {f'tests/test_{o}.py' for o in ('pages', 'claims', 'repo', 'package', 'practice', 'lesson_map', 'labs', 'authoring', 'passed')} <= whole
    assert 'tests/test_mutants.py' not in whole and 'nbs/03_backprop.ipynb' not in passed.needs(files, 'tests/test_data.py')
