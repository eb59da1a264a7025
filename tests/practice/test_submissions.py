"""The teacher's command, run as a teacher runs it: a folder with good, wrong, broken and hostile submissions, graded
in one go. What the hostile ones do, they do in the processes that the command makes for them."""
import csv, hashlib, json, os, re, signal, socket, subprocess, sys, time, uuid
from contextlib import nullcontext
from pathlib import Path

import nbformat, pytest, torch
from conftest import root
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

from backprop13.practice import submissions
from backprop13.practice.exercises import EXERCISES, PAGES, starter
from backprop13.practice.submissions import Limits, Row, by_exercise, by_student, collect, run_all, to_csv

pytestmark = pytest.mark.skipif(sys.platform != 'linux',
                                reason='processes are looked up in /proc, and only Linux limits their memory')
CELL_SECONDS = 4

IMPORTS = 'import torch\nfrom backprop13.practice.exercises import check, hint, progress'
LIN = 'def lin(x, w, b):\n    return x @ w + b'
RELU = 'def relu(x):\n    return x*(x > 0)'
MSE = 'def mse(output, targ):\n    return (output - targ).pow(2).mean()'
GOOD = [LIN, RELU, MSE]
NAMES = 'lin', 'relu', 'mse'

def notebook(*cells, title='# Practice'):
    code = [dict(cell_type='code', source=o.splitlines(True), metadata={}, outputs=[], execution_count=None)
            for o in cells]
    return json.dumps(dict(cells=[dict(cell_type='markdown', source=[title], metadata={}), *code], metadata={},
                           nbformat=4, nbformat_minor=4))

def between(*deeds):
    "A notebook that does these after it defines lin, before relu and mse"
    return notebook(IMPORTS, LIN, *deeds, RELU, MSE)

HOSTILE = dict(
    loops='while True: pass',
    allocates='x = []\nwhile True: x.append(torch.empty(100_000_000))',
    exits='import sys\nsys.exit(3)',
    exits_at_once='import os\nos._exit(7)',
    kills_itself='import os, signal\nos.kill(os.getpid(), signal.SIGKILL)',
    kills_its_parent='import os, signal\nos.kill(os.getppid(), signal.SIGKILL)',
    stops_its_parent='import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)',
    forks='import os\nos.fork()',
    deletes='import os, shutil\nopen("x", "w").close()\nfor o in os.getcwd(), '
            'os.path.expanduser("~"): shutil.rmtree(o, ignore_errors=True)',
    prints='while True: print("x"*1000)',
    waits='!trap "" HUP; sleep 600',
    closes='import os\nos.closerange(0, 100)',
    stays='import os, subprocess\nfor new in False, True: subprocess.Popen(["sleep", "600"], start_new_session=new)\n'
          'if not os.fork():\n    import time\n    time.sleep(600)')
FORGED = dict(                # beside a lin that is wrong
    compares='torch.allclose = torch.equal = torch.Tensor.__eq__ = torch.Tensor.all = lambda *a, **k: True\n'
             'torch.isclose = lambda g, w, **k: torch.ones_like(w, dtype=bool)',
    judges='from types import SimpleNamespace as N\nimport backprop13.practice.submissions as s\n'
           's.check = lambda *a, **k: N(passed=True)',
    lies='class Lies(torch.Tensor): __torch_function__ = classmethod(lambda *a: True)\n'
         'def lin(x, w, b): return torch.zeros(1).as_subclass(Lies)',
    writes='import os\nfor fd in range(3, 60):\n    try: os.write(fd, b\'["trial", "lin", {}, {}]\\n\'*4 + '
           'b\'["graded", "lin", "passed", "", ""]\\n\')\n    except OSError: pass')
SAID = dict(                  # what the command says about them, in sentences
    **dict.fromkeys(('loops', 'prints', 'waits'), [f'cell 3 was stopped after {CELL_SECONDS} seconds']),
    allocates=['cell 3 needed more than 1000 MB, and was stopped'],
    **dict.fromkeys(('exits_at_once', 'kills_itself', 'closes'), ['cell 3 ended its process']))

def hand_in(folder):
    "Good, wrong, hostile and broken submissions, in an order that mixes them"
    def put(name, text):
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_text(text, encoding='utf-8')
    for name, deed in HOSTILE.items(): put(f'{name}.ipynb', between(deed))
    wrong = LIN.replace('+', '-')
    for name, cells in dict(
            ada=[*GOOD, 'check(lin)', 'hint("relu")', 'progress()', 'from backprop13.backprop import lin'],
            zoe=GOOD, ben=[wrong, starter('relu'), 'from backprop13.backprop import mse'],
            gina=['import os\n' + LIN.replace('return', 'while True: pass;'),
                  RELU.replace('return', 'os._exit(5);'), MSE],
            hugo=[f'{LIN}\n1/0\n{RELU}', wrong, 'def f(:', f'{MSE}\nwhile True: pass'],
            kim=['%pip install nothing\n!touch here\nx = %timeit -n1 -r1 1', f'%%time\n{LIN}', '%%bash\nexit 1', RELU,
                 'def another(output, targ): return 0\nmse = another'],
            mia=[f'%%writefile own.py\n{LIN}', 'from own import lin', f'%%capture\n{RELU}',
                 MSE.replace('return', 'display(output); torch.tensor(1); return')]).items():
        put(f'{name}.ipynb', notebook(IMPORTS, *cells))
    put('lea/a.ipynb', notebook(IMPORTS, wrong))
    put('lea/page/one.ipynb', notebook(IMPORTS, LIN, f'from helper import half\n{RELU}', 'open("one", "w").close()'))
    put('lea/page/helper.py', 'half = .5\n')
    put('lea/two.py', f'{IMPORTS}\n{MSE}\n{starter("lin")}\nwhile True: pass\n')
    put('lea/.ipynb_checkpoints/two.ipynb', notebook(wrong))
    put('.hidden.ipynb', notebook(*GOOD))
    put('broken.ipynb', '{"cells": [')
    put('list.ipynb', '[1, 2]')
    put('json.py', notebook(LIN))
    put('lea.ipynb', notebook(''))
    put('deep.ipynb', '['*200_000)
    (folder/'old.py').write_bytes(f'# coding: latin-1\n# caf\xe9\n{IMPORTS}\n{LIN}\n'.encode('latin-1'))
    put('coding.py', '# coding: nonsense\n' + LIN)
    put('letter.pdf', '%PDF')
    (folder/'nobody').mkdir()
    os.mkfifo(folder/'nobody'/'pipe.ipynb')           # to read it would wait for ever
    put('=cmd.ipynb', notebook('def lin(x, w, b): raise ValueError("\\x1b[31m\\n")'))

def sums(folder):
    return {str(p.relative_to(folder)): p.is_file() and hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob('*')}

def start(folder, mark, *words, stdin=subprocess.DEVNULL, **more):
    "The command, in a process of its own; whatever comes of it has `mark` in its environment, and `more`"
    for o in 'home', 'tmp': (folder/o).mkdir(exist_ok=True)
    env = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1', MARK=mark,
               HOME=str(folder/'home'), TMPDIR=str(folder/'tmp'),
               MPLCONFIGDIR=str(folder/'matplotlib'), BACKPROP13_DATA='synthetic', **more)
    for o in 'XDG_CACHE_HOME', 'XDG_DATA_HOME', 'TQDM_DISABLE': env.pop(o, None)
    code = 'from backprop13.practice.submissions import grade; grade()'
    return subprocess.Popen([sys.executable, '-c', code, *map(str, words)], cwd=folder, env=env, text=True,
                            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def left(mark, seconds=10):
    "The processes with that mark which don't end within that time"
    until = time.monotonic() + seconds
    while True:
        found = []
        for p in Path('/proc').glob('[0-9]*'):
            try:
                if mark.encode() in (p/'environ').read_bytes():
                    found.append((p/'cmdline').read_bytes().decode()[:100])
            except OSError: pass
        if not found or time.monotonic() > until: return found
        time.sleep(.1)

@pytest.fixture(scope='module')
def graded(tmp_path_factory):
    "One run of the command over all of them"
    folder, mark = tmp_path_factory.mktemp('grade'), uuid.uuid4().hex
    hand_in(folder/'handed in')
    for o in 'home', 'home as it was':
        (folder/o).mkdir()
        (folder/o/'letter').write_text('mine')
    before = sums(folder/'handed in')
    words = '--cell-seconds', CELL_SECONDS, '--seconds', 60, '--memory', 1000, '--jobs', 4, '--csv', 'results.csv'
    keyboard = os.pipe()                              # nobody types
    with start(folder, mark, 'handed in', *words, stdin=keyboard[0]) as p: out, err = p.communicate(timeout=200)
    for fd in keyboard: os.close(fd)
    assert (p.returncode, err) == (0, ''), err
    with open(folder/'results.csv', encoding='utf-8-sig', newline='') as f: rows = list(csv.DictReader(f))
    found = {(r['student'], r['exercise']): r for r in rows}
    assert len(found) == len(rows) and rows[0].keys() == set(Row._fields)
    first, _, out = out.partition('\n\n')
    assert first.startswith('to grade: ')
    return dict(folder=folder, mark=mark, before=before, out=out, rows=found)

def results(graded, student): return {name: graded['rows'][student, name]['result'] for name in NAMES}

def said(graded, student):
    return [o.partition(': ')[2] for o in graded['out'].splitlines() if re.match(rf'{student}[:,]', o)]

# ---- what each comes to

@pytest.mark.parametrize('student', HOSTILE)
def test_a_hostile_one_is_graded_around_what_it_does(graded, student):
    assert results(graded, student) == dict.fromkeys(NAMES, 'passed')
    heard = [o.split(' (')[0] for o in said(graded, student)]       # without exit codes, which a neighbour may take
    assert heard == SAID.get(student, [])

@pytest.mark.parametrize('student', ['ada', 'zoe', 'mia'])
def test_a_good_one_between_them_passes(graded, student):
    assert results(graded, student) == dict.fromkeys(NAMES, 'passed') and said(graded, student) == []

def test_a_wrong_one_is_wrong(graded):
    assert results(graded, 'ben') == dict(lin='failed', relu='empty', mse='missing')     # an import is no solution
    row = graded['rows']['ben', 'lin']
    assert row['property'] == 'value' and 'wanted' in row['message']

def test_what_happens_inside_a_solution(graded):
    found = results(graded, 'gina')
    assert found.pop('lin') in ('stopped', 'failed')    # by the command, or by check's own limit
    assert found == dict(relu='ended', mse='passed')
    assert graded['rows']['gina', 'lin']['property'] == 'time'
    assert graded['rows']['gina', 'relu']['message'].removesuffix(' (exit code 5)') == 'relu ended its process'

def test_the_cells_of_one_that_raises(graded):
    "What was defined before the error counts, what would have come after it doesn't, and later cells are run"
    rows = graded['rows']
    assert results(graded, 'hugo') == dict(lin='failed', relu='failed', mse='passed')
    assert rows['hugo', 'lin']['property'] == 'value'                                   # the last definition
    assert rows['hugo', 'relu']['property'] == 'exception'
    assert rows['hugo', 'relu']['message'] == 'cell 2 raises ZeroDivisionError: division by zero'
    assert said(graded, 'hugo') == [f'cell 5 was stopped after {CELL_SECONDS} seconds']

def test_magics_and_timed_cells_run(graded):
    assert results(graded, 'kim') == dict(lin='passed', relu='passed', mse='failed')
    assert said(graded, 'kim') == []
    assert graded['rows']['kim', 'mse']['property'] == 'signature'

def test_a_folder_is_one_student(graded):
    assert results(graded, 'lea') == dict.fromkeys(NAMES, 'passed')         # the last lin that isn't empty
    assert said(graded, 'lea') == [f'cell 1 was stopped after {CELL_SECONDS} seconds']
    assert results(graded, 'old')['lin'] == 'passed'                        # in the encoding that it names
    for o in 'lea is a file and a folder: graded as one student', 'letter.pdf is no .ipynb, .py or folder: passed over':
        assert f'\n{o}\n' in graded['out']
    assert not any(s in ('letter', 'page', 'one', 'two', 'helper', '.hidden') for s, _ in graded['rows'])

@pytest.mark.parametrize('student,why', [
    ('broken', "broken.ipynb can't be read as a notebook: Expecting"),
    ('list', "list.ipynb can't be read as a notebook: it has no cells"),
    ('deep', "deep.ipynb can't be read as a notebook: maximum recursion"),
    ('coding', "coding.py can't be read as a notebook: unknown encoding: nonsense"),
    ('json', "json.py can't be read as a notebook: it holds JSON"),
    ('nobody', 'nobody has no .ipynb and no .py file')])
def test_what_cannot_be_read_is_told_and_in_the_table(graded, student, why):
    assert results(graded, student) == dict.fromkeys(NAMES, 'missing')
    assert [o for o in graded['out'].splitlines() if o.startswith(why)]
    assert re.search(rf'^{student} .* -$', graded['out'], re.M)

# ---- what it leaves

def test_the_originals_are_as_they_were(graded): assert sums(graded['folder']/'handed in') == graded['before']

def test_no_process_and_no_file_is_left(graded):
    assert left(graded['mark']) == []
    assert list((graded['folder']/'tmp').iterdir()) == []
    assert sums(graded['folder']/'home') == sums(graded['folder']/'home as it was')
    assert {p.name for p in graded['folder'].iterdir()} <= {
        'handed in', 'home', 'home as it was', 'tmp', 'matplotlib', 'results.csv'}

def test_the_table(graded):
    out, students = graded['out'], len({s for s, _ in graded['rows']})
    lines = out.split('\n\n')[0].splitlines()
    pages = [p.partition('_')[0] for p in PAGES if any(e.page == p for e in EXERCISES.values())]
    assert lines[0].split() == ['student', *pages, 'all']
    assert len([o for o in lines[1:] if not o.startswith(('pages:', '0'))]) == students and 'ada' in out
    row = next(o for o in lines if o.startswith('ben ')).split()
    page = sum(e.page == EXERCISES['lin'].page for e in EXERCISES.values())
    assert row.count('-') == len(row) - 3 and f'0/{page}' in row and row[-1] == f'0/{len(EXERCISES)}'
    assert '\x1b' not in out

def test_the_lesson_to_give_next(graded):
    rows, out = graded['rows'].values(), graded['out']
    line = next(o for o in out.splitlines() if o.startswith('mse '))
    n = {k: sum(r['exercise'] == 'mse' and r['result'] == k for r in rows)
         for k in ('passed', 'failed', 'empty', 'missing')}
    assert line.split() == ['mse', *map(str, n.values()), 'signature', '1']
    assert re.search(r'^lin .* value 2, time 1, exception 1$|^lin .* value 2, exception 1, time 1$', out, re.M)
    assert f'handed in by nobody: {len(EXERCISES) - 3} more' in out

def test_the_file_for_spreadsheets(graded):
    data = (graded['folder']/'results.csv').read_bytes()
    assert data.startswith(b'\xef\xbb\xbfstudent,exercise,result,property,message\r\n') and b'\x1b' not in data
    assert graded['rows']["'=cmd", 'lin']['property'] == 'exception'
    assert graded['out'].rstrip().endswith('results: results.csv')

# ---- right work never fails: what Jupyter runs, the command runs

THINGS = {                                              # -> cells, and what is true after them
    'display in a function': ['def show(x):\n    display(x)\n    return x', 'show(2) == 2'],
    'display, imported': ['from IPython.display import HTML, clear_output, display as show\nclear_output()\n'
                          'show(HTML("<b>1</b>"))\nok = 3', 'ok == 3'],
    '_, __, ___': ['1', '2', '3', 'a = _, __, ___', 'a == (3, 2, 1)'],
    'a numbered result': ['"eight"', 'n = len(In) - 2', 'eval(f"_{n}") == Out[n] == eval(In[n]) == "eight"'],
    'a semicolon': ['"nine";', '"nine" not in Out.values()'],
    'await': ['import asyncio\nx = await asyncio.sleep(0, 10)', 'x == 10'],
    'async for': ['async def numbers():\n    yield 11', 'async for x in numbers(): pass', 'x == 11'],
    'async with': ['import contextlib\n@contextlib.asynccontextmanager\nasync def twelve(): yield 12',
                   'async with twelve() as x: pass', 'x == 12'],
    'a task': ['import asyncio\ntask = asyncio.create_task(asyncio.sleep(0, 13))', 'x = await task', 'x == 13'],
    'the loop': ['import asyncio\nloop = asyncio.get_running_loop()', 'loop is asyncio.get_running_loop()'],
    'a thread': ['import asyncio\nx = await asyncio.to_thread(lambda: 14)', 'x == 14'],
    'a process': ['import multiprocessing\ndef f(i): return 2*i',
                  'with multiprocessing.get_context("fork").Pool(1) as pool: x = pool.map(f, [1, 2])',
                  'x == [2, 4]'],
    'workers': ['import torch\nx = [int(o) for o in torch.utils.data.DataLoader([1, 2], num_workers=1)]',
                'x == [1, 2]'],
    'get_ipython, imported': ['import IPython\nx = IPython.get_ipython()', 'x is get_ipython()'],
    'a hook': ['ran = []\nget_ipython().events.register("post_execute", lambda: ran.append(1))', '1',
               'len(ran) == 2'],
    'run_line_magic': ['import os\nx = get_ipython().run_line_magic("pwd", "")', 'x == os.getcwd()'],
    'plt.show': ['import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()', 'plt.get_fignums() == []'],
    'a figure': ['import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1])',
                 'plt.get_fignums() == []'],
    '%matplotlib': ['%matplotlib agg\n%matplotlib inline\nok = 16', 'ok == 16'],
    '%load_ext': ["%config InlineBackend.figure_format = 'retina'\n%load_ext autoreload\n%autoreload 2\nok = 18",
                  'ok == 18'],
    '%timeit': ['x = %timeit -o -n 2 -r 2 1', 'x.best >= 0'],
    '%%time': ['%%time\nx = 20', 'x == 20'],
    '%%timeit': ['y = []', '%%timeit -n 1 -r 1\ny.append(1)', 'y == [1]'],
    '%%capture': ['%%capture said\nprint("x")\nx = 21', 'x == 21 and said.stdout == "x\\n"'],
    '%prun': ['%prun -q x = 22', 'x == 22'],
    '%cd': ['%mkdir there\n%cd there', 'x = %pwd', '%cd ..', 'x.endswith("there")'],
    '%env': ['%env COLOUR=red\nx = %env COLOUR', 'x == "red"'],
    '%who': ['a = 23\n%whos\nx = %who_ls', '"a" in x'],
    '%history': ['%history -n 1-2\n%precision 3\n%xmode Minimal\n%autosave 60\nok = 24', 'ok == 24'],
    '%run': ['%%writefile other.py\nname = __name__', '%run other.py', 'name == "__main__"'],
    '%run of a notebook': ['%%writefile other.ipynb\n'
                           + notebook('number = 25').replace('"source": ["# Practice"]', '"source": []'),
                           '%run other.ipynb', 'number == 25'],
    '%%writefile': ['%%writefile half.py\nhalf = .5', 'from half import half', 'half == .5'],
    '%%html': ['%%html\n<b>1</b>', '%%javascript\n1', '%%latex\n$x$', '%%markdown\n*x*', 'True'],
    '%%bash': ['%%bash --out said\necho 26', 'said == "26\\n"'],
    '%%script': ['%%script false --no-raise-error\n1', '%%python3\nopen("made", "w").write("x")',
                 'open("made").read() == "x"'],
    'a magic of its own': ['from IPython.core.magic import register_line_magic\n@register_line_magic\n'
                           'def twice(line): return 2*line', 'x = %twice ab', 'x == "abab"'],
    'automagic': ['pwd', 'mkdir here', 'cd here', 'cd ..', '__import__("os").path.isdir("here")'],
    'alias': ['%alias greet echo %s\n%greet you\nok = 27', 'ok == 27'],
    '!': ['!echo 28 > made28\nok = 28', 'open("made28").read() == "28\\n"'],
    '! with variables': ['name = "made29"', '!echo {6 + 7} $name > {name}',
                         'open("made29").read() == "13 made29\\n"'],
    'x = !': ['x = !echo one; echo two', 'x == ["one", "two"] and x.n == "one\\ntwo"'],
    '! in a loop': ['for i in range(2):\n    !echo {i} >> made30', 'open("made30").read() == "0\\n1\\n"'],
    'an exit code': ['!exit 3', '_exit_code == 3'],
    '?': ['import argparse', 'argparse??\n?len\nlen?\n?str.s*\nhelp(len)\nok = 31', 'ok == 31'],
    'no __file__': ['try: __file__\nexcept NameError: x = 32', 'x == 32'],
    '__main__': ['import sys\nif __name__ == "__main__": x = 33', 'x == sys.modules["__main__"].x == 33'],
    'pickle': ['import pickle\nclass P: pass\nx = pickle.loads(pickle.dumps(P()))', 'type(x) is P'],
    'getsource': ['import inspect\ndef f(): return 34', 'inspect.getsource(f) == "def f(): return 34\\n"'],
    '__future__': ['from __future__ import annotations', 'def f(x: Nobody): return x', 'f(35) == 35'],
    'cells with nothing': ['# nothing', '', '   \n', 'True'],
    'pasted code': ['    x = 1\n    y = 2', '>>> z = 3\n>>> if z:\n...     z = 4', '(x, y, z) == (1, 2, 4)'],
    'ends of lines': ['if True:\r\n    x = 36\r\n', 'x == 36'],
    'an underscore': ['_, x = 1, 37', 'x == 37'],
    'text': ['import logging, sys, warnings\nfor o in sys.stdout, sys.stderr: print("✓", file=o)\n'
             'logging.warning("✓")\nwarnings.warn("✓")\nok = 38', 'ok == 38'],
    'an error': ['1/0', 'def f(:', 'class Bad:\n    def __repr__(self): raise ValueError\nBad()', 'True'],
    'bars': ['from tqdm.auto import tqdm\nfrom tqdm.notebook import tqdm as other\nx = list(tqdm(other(range(3))))',
             'x == [0, 1, 2]'],
    'a widget': ['import ipywidgets\nx = []\ndef show(i): x.append(i)\nipywidgets.interact(show, i=3)',
                 'x == [3]'],
    'a lab': ['from backprop13.support.labs import wheels\nwheels()', 'True']}

ANSWERED = {                                            # what Jupyter would wait for, end at, or not have
    'input': ['name = input("your name? ")\nok = 1', 'name == "" and ok == 1'],
    'getpass': ['import getpass, warnings\nx = getpass.getpass()', 'x == ""'],
    'exit': ['exit', 'quit()', 'exit()\nok = 2', 'ok == 2'],
    'sys.exit': ['import sys\nsys.exit()', 'True'],
    'a debugger': ['def f():\n    breakpoint()\n    return 3\nok = f()', '%debug',
                   'import pdb\npdb.set_trace()', 'ok == 3'],
    'a magic that is not there': ['%tensorflow_version 2.x\n%load_ext nobody_has_this\nok = 4', 'ok == 4'],
    'an editor': ['%matplotlib widget\n%matplotlib qt\n%gui qt\nok = 5', 'ok == 5'],
    '%pip': ['%pip install nothing\n%conda install nothing\nok = 6', 'pip install nothing',
             'ok == 6 and "_exit_code" not in globals()'],
    'a package': [f"""import zipfile
with zipfile.ZipFile('x-1-py3-none-any.whl', 'w') as z:
    z.writestr('x.py', '')
    z.writestr('x-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: x\\nVersion: 1\\n')
    z.writestr('x-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    z.writestr('x-1.dist-info/RECORD', '')
""", '!{sys.executable} -m pip install --target there x-1-py3-none-any.whl',
                  '_exit_code == 0 and not __import__("os").path.exists("there/x.py")']}

def told(things, folder):
    "A notebook that does these things, and writes a file for each: True if it did what it should"
    write = 'with open(r"{}/{}", "w") as told: told.write(repr(bool({})))'
    rows = enumerate(things.values())
    return notebook(*(o for i, (*before, true) in rows for o in (*before, write.format(folder, i, true))))

def read(things, folder):
    files = [folder/str(i) for i in range(len(things))]
    return {k: f.read_text() if f.exists() else 'not done' for k, f in zip(things, files)}

@pytest.fixture(scope='module')
def done(shared):
    "What became of the things in the command, whose locale and terminal know little, and in Jupyter"
    def make(folder):
        for o in 'in', 'command', 'answered', 'jupyter', 'there': (folder/o).mkdir()
        (folder/'in'/'a.ipynb').write_text(told(THINGS, folder/'command'), encoding='utf-8')
        (folder/'in'/'b.ipynb').write_text(told(ANSWERED, folder/'answered'), encoding='utf-8')
        plain = dict(TERM='dumb', LC_ALL='C', PYTHONCOERCECLOCALE='0', PYTHONUTF8='0')
        with start(folder, uuid.uuid4().hex, 'in', '--jobs', 2, **plain) as p:
            book = nbformat.reads(told(THINGS, folder/'jupyter'), 4)
            # no kernelspec of the user's
            kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
            where = dict(metadata=dict(path=str(folder/'there')))
            client = NotebookClient(book, kernel, timeout=120, allow_errors=True, resources=where)
            client.execute(env={k: v for k, v in os.environ.items() if k != 'MPLBACKEND'})
            said = p.communicate(timeout=300)
        for things, where in (THINGS, 'command'), (ANSWERED, 'answered'), (THINGS, 'jupyter'):
            (folder/f'{where}.json').write_text(json.dumps(read(things, folder/where)))
        (folder/'said.json').write_text(json.dumps([p.returncode, *said]))
    folder = shared('things', make)
    return {f.stem: json.loads(f.read_text()) for f in folder.glob('*.json')}

@pytest.mark.parametrize('name', THINGS)
def test_what_jupyter_runs_is_run(done, name):
    assert (done['command'][name], done['jupyter'][name]) == ('True', 'True')

@pytest.mark.parametrize('name', ANSWERED)
def test_what_would_wait_or_end_goes_on(done, name): assert done['answered'][name] == 'True'

def test_nothing_was_stopped_meanwhile(done):
    code, out, err = done['said']
    assert (code, err) == (0, '') and 'stopped' not in out and 'ended its process' not in out

# ---- the parts

@pytest.mark.parametrize('text', ['=1+1', '+1', '-1', '@SUM(A1)', ' =1', '\t=1', '\n=1'])
def test_no_cell_of_the_file_is_a_formula_and_a_message_keeps_its_lines(text):
    said = 'one, "two"\nthree'
    text = to_csv([Row(text, 'lin', 'failed', 'value', said)]).decode('utf-8-sig')
    row = list(csv.reader(text.splitlines(True)))[1]
    assert row[0][0] in "'\ufffd" and row[-1] == said

def test_fifty_students_fit_a_terminal():
    kinds = [('passed', ''), ('failed', 'no ready-made function'), ('failed', 'inputs unchanged'), ('stopped', 'time'),
             ('failed', 'right one accepted'), ('ended', 'process ended'), ('empty', 'empty'), ('missing', '')]
    rows = [Row(f'a \x1b[2J\r long name, number {i} of them', name, *kinds[(i + j) % len(kinds)], 'm')
            for i in range(50) for j, name in enumerate(EXERCISES)]
    one, two = by_student(rows), by_exercise(rows)
    assert '\x1b' not in one          # names can't move the cursor
    assert max(map(len, (one + '\n' + two).splitlines())) <= 100 and len(one.splitlines()) in (52, 53)
    assert len(two.splitlines()) == 1 + len(EXERCISES)

def test_tensors_are_told_however_they_lie():
    for t in (torch.ones(1, 2)[:, 0], torch.arange(6.).reshape(2, 3).t(), torch.ones(3).expand(2, 3),
              torch.tensor(2.), torch.ones(2, 0), torch.tensor([True])):
        assert torch.equal(submissions._read(json.loads(json.dumps(submissions._plain(t)))), t), t.stride()

def test_a_babbling_process_is_not_believed():
    file = submissions.File('a', Path('a.ipynb'), None, ['1', '2'])
    heard = submissions._Heard(file, {})
    heard.hear(b'["cell", 5, 0]\n["check", "none"]\n["graded", "lin", "failed"]\n["graded", "lin", 1, 2, 3]\n'
               + b'['*100_000 + b'\n{}\n3\n\xff\n')
    assert heard.at is None and heard.graded == {} and not heard.said
    heard.hear(b'["cell", 1, 0]\n["graded", "lin", "fai')
    heard.hear(b'led", "", ""]\n')
    assert heard.at == ('cell', 1) and heard.graded == {'lin': ('failed', '', '')}

@pytest.mark.parametrize('failures', [0, 2, 10**9])
def test_a_server_that_somebody_ended_is_replaced(failures, monkeypatch):
    monkeypatch.setattr(submissions, '_AGAIN', 1)
    class Process:
        def start(self):
            self.n = getattr(self, 'n', 0) + 1
            if self.n <= failures: raise EOFError if self.n == 1 else ConnectionRefusedError
    with pytest.raises(OSError, match='no process could be started') if failures > 99 else nullcontext():
        submissions._start(Process())

def test_a_file_for_which_no_process_starts_is_told_and_the_others_go_on():
    def never(k):
        return k
        yield
    assert list(submissions._all(map(never, 'abc'), 2)) == [(0, 'a'), (1, 'b'), (2, 'c')]

@pytest.mark.parametrize('said', [b'["memory"]\n', b'["done"]\n'])
def test_what_was_said_in_time_counts_when_it_is_read_late(said, monkeypatch):
    "A new server takes seconds to start, and the command listens to nobody meanwhile"
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        heard = submissions._Heard(submissions.File('a', Path('a.ipynb'), None, ['1']), {})
        task = submissions._watched(here, heard, 1, 100)
        next(task)
        there.sendall(b'["cell", 0, 0]\n')
        next(task)
        there.sendall(said)
        now = time.monotonic()
        monkeypatch.setattr(submissions.time, 'monotonic', lambda: now + 5)
        with pytest.raises(StopIteration) as e: next(task)
        assert e.value.value[0] == json.loads(said)[0]

def limits(cell, total): return Limits(cell, total, 10**9, 'synthetic')

def at_home(tmp_path, monkeypatch, text, limits):
    "Grade one notebook from this process"
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'a.ipynb').write_text(text, encoding='utf-8')
    students, files, notes = collect(tmp_path/'in')
    rows, said = run_all(files, students, limits)
    return {r.exercise: r for r in rows if r.result != 'missing'}, notes + said

@pytest.mark.parametrize('deed', FORGED.values(), ids=FORGED)
def test_a_forged_result_does_not_pass(deed, tmp_path, monkeypatch):
    text = notebook(IMPORTS, LIN.replace('+', '-'), deed)
    assert at_home(tmp_path, monkeypatch, text, limits(20, 60))[0]['lin'].result == 'failed'

def test_the_time_for_a_notebook_is_limited(tmp_path, monkeypatch):
    text = notebook(IMPORTS, *['import time\nfor _ in range(100): time.sleep(.5)']*9, LIN)
    began = time.monotonic()
    rows, notes = at_home(tmp_path, monkeypatch, text, limits(1, 3))
    assert time.monotonic() - began < 60                            # it would take 450
    assert notes[-1] == 'a: all of it was stopped after 3 seconds' and 2 <= len(notes) <= 4
    assert rows['lin'][2:] == ('stopped', 'time', 'not graded: all of it was stopped after 3 seconds')

def test_the_number_of_starts_is_limited(tmp_path, monkeypatch):
    text = notebook(IMPORTS, HOSTILE['kills_itself'], *['import os\nos._exit(0)']*(submissions._STARTS + 2),
                    LIN)
    rows, notes = at_home(tmp_path, monkeypatch, text, limits(10, 60))
    assert len(notes) == submissions._STARTS + 1 and f'{submissions._STARTS} starts' in notes[-1]
    assert notes[:2] == ['a: cell 2 ended its process (signal 9)', 'a: cell 3 ended its process (exit code 0)']
    assert set(rows) == {'lin'} and rows['lin'].result == 'ended'

def test_a_large_file_is_refused_and_a_large_notebook_too(tmp_path, monkeypatch):
    deed = 'try:\n    with open("x", "wb") as f: f.write(bytes(200_000_000))\nexcept OSError: pass\nelse: 1/0\n'
    rows, notes = at_home(tmp_path, monkeypatch, notebook(deed + LIN), limits(10, 60))
    assert rows['lin'].result == 'passed' and notes == []
    monkeypatch.setattr(submissions, '_LARGEST', 10)
    assert 'wanted at most 10' in collect(tmp_path/'in')[2][0]

def test_another_way_of_making_processes_will_do(tmp_path, monkeypatch):
    "Windows has no fork server, and no module `resource`"
    monkeypatch.setattr(submissions, 'get_all_start_methods', lambda: ['spawn'])
    rows, notes = at_home(tmp_path, monkeypatch, between('import os\nos._exit(7)'), limits(20, 60))
    assert {k: r.result for k, r in rows.items()} == dict.fromkeys(NAMES, 'passed')
    assert notes == ['a: cell 3 ended its process (exit code 7)']

# ---- stopped, and refused

@pytest.mark.parametrize('sign,code', [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
                         ids=['int', 'term', 'kill'])
def test_stopped(tmp_path, sign, code):
    "It ends its processes, and keeps what is graded. (A short name: a socket's path has 107 letters.)"
    (tmp_path/'in').mkdir()
    stays = HOSTILE['stays'] + '\nopen("../here", "w").close()\nwhile True: pass'
    for o in 'abc': (tmp_path/'in'/f'{o}.ipynb').write_text(between(*[stays]*(o != 'c')))
    mark = uuid.uuid4().hex
    with start(tmp_path, mark, 'in', '--jobs', 3, '--cell-seconds', 100, '--csv', 'r.csv') as p:
        until = time.monotonic() + 60
        while len([*tmp_path.glob('tmp/*/here'), *tmp_path.glob('r.csv')]) < 3 and time.monotonic() < until:
            time.sleep(.05)
        assert len(left(mark, 0)) > 4
        p.send_signal(sign)
        out, err = p.communicate(timeout=30)
    kept = (tmp_path/'r.csv').read_text(encoding='utf-8-sig')
    assert kept.count('passed') == 3 and '\na,' not in kept and kept.count('\nc,') == len(EXERCISES)
    assert p.returncode == code and out == 'to grade: 3 files of 3 students\n\n' + 'not graded: a, b\n'*(code > 0)
    assert err == ('backprop13-grade: stopped by Ctrl-C\n' if code == 130 else '')
    assert left(mark) == []
    if code > 0: assert list((tmp_path/'tmp').iterdir()) == []

def test_a_second_run_goes_on(tmp_path, capsys):
    "Who has a row for each exercise is not graded again; the rows that are there stay, of one who is gone, too"
    for o in 'a', 'b', '=c': (tmp_path/f'{o}.ipynb').write_text(notebook(LIN))
    there = [Row(o, name, 'kept', '', 'by hand') for o in ('=c', 'a', 'gone') for name in EXERCISES]
    (tmp_path/'r.csv').write_bytes(to_csv(there + [Row('b', 'lin', 'failed', '', 'half a student')]))
    submissions.grade([str(tmp_path), '--csv', str(tmp_path/'r.csv'), '--resume', '--data', 'synthetic'])
    with open(tmp_path/'r.csv', encoding='utf-8-sig', newline='') as f:
        rows = [*map(Row._make, csv.reader(f))][1:]
    there = [r._replace(student=r.student.replace('=', "'=")) for r in there]
    assert [r for r in rows if r.student != 'b'] == there
    assert [r.result for r in rows if r.student == 'b' and r.exercise == 'lin'] == ['passed']
    assert len(rows) == 4*len(EXERCISES)
    assert capsys.readouterr().out.startswith('to grade: 1 files of 1 students')

@pytest.mark.parametrize('words,why', [
    (['nowhere'], 'nowhere is no folder; name one that is there'),
    (['empty'], 'empty has no submission: no .ipynb, no .py, no folder'),
    ([], 'the following arguments are required: FOLDER'),
    (['in', '--jobs', '0'], "--jobs: got '0'"),
    (['in', '--memory', '5'], "--memory: got '5', wanted a whole number from 100 to 1000000"),
    (['in', '--csv', 'a.txt'], "--csv: got 'a.txt'"), (['in', '--csv', 'no/a.csv'], "--csv: got 'no/a.csv'"),
    (['in', '--resume'], '--resume goes on with a file of results; name it, by --csv'),
    (['in', '--resume', '--csv', 'b.csv'], 'holds no results; name a file that this command wrote'),
    (['in', '--data', 'nowhere'], '/nowhere; set BACKPROP13_DATA to the folder'),
    (['in', 'in'], 'unrecognized arguments: in'),
    ([''], 'wanted a folder of submissions')])
def test_what_is_refused_is_a_sentence(tmp_path, monkeypatch, capsys, words, why):
    for o in 'empty', 'in': (tmp_path/o).mkdir()
    for o in 'a.ipynb', 'in/a.ipynb', 'empty/letter.pdf': (tmp_path/o).write_text(notebook(LIN))
    (tmp_path/'b.csv').write_text('a,b')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: submissions.grade(words)
    out, err = capsys.readouterr()
    assert e.value.code == 2 and out == '' and err.startswith('backprop13-grade: ')
    assert err.count('\n') == 1 and why in err
