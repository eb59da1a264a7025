"A recorded session with pdb: the same wherever it is held, and what Jupyter does by hand."
import bdb, inspect, itertools, linecache, re, sys

import pytest, torch
from jupyter_client.manager import start_new_kernel

from backprop13 import backprop
from backprop13.support import debugger
from backprop13.backprop import forward_and_backward, lin, lin_grad, mse, relu
from backprop13.support.debugger import Step, record, transcript, watch

n, m, nh = 7, 5, 3
SHAPES = 'p inp.shape, out.g.shape, w.shape'
COMMANDS = ['p inp.shape', 'out.g.shape', SHAPES, 'p out.g[:3].squeeze()', 'n', 'p inp.g.shape',
            'w', 'u', 'p loss.shape', 'd',
            'c', SHAPES, 'w', 'n', 'p inp.g.shape', 'c']


def data():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=g) for shape in [(n, m), (n, 1), (m, nh), (nh,), (nh, 1), (1,)]]


def held(f=forward_and_backward, at=lin_grad): return record(lambda: f(*data()), COMMANDS, at=at)


# ---- the session of chapter 3

def faults(steps):
    "What is wrong with a session: the shapes and lines at both visits, and at the end"
    size = lambda *shapes: str(tuple(map(torch.Size, shapes)))
    bad = []
    visits = [s for s in steps if s.command == SHAPES]
    for s, want in itertools.zip_longest(visits, [((n, nh), (n, 1), (nh, 1)), ((n, m), (n, nh), (m, nh))]):
        if s is None or want is None or s.answer != size(*want): bad.append(('answer', s, want))
        elif tuple(s.shapes[k] for k in ('inp', 'out.g', 'w')) != want: bad.append(('shapes', s, want))
    if [s.line for s in steps if s.command in ('', 'n', 'c')] != [8, 9, 8, 9, 0]: bad.append('lines')
    if steps[-1] != Step('c', '', '', 0, '', {}): bad.append('end')
    return bad


def test_the_session_of_the_chapter():
    steps = held()
    assert faults(steps) == [] and [s.command for s in steps] == ['', *COMMANDS]
    assert steps[0].function == 'lin_grad' and steps[0].source.startswith('inp.g = matmul(out.g, w.t())')
    assert 'inp.g' not in steps[0].shapes and steps[5].shapes['inp.g'] == (n, nh)
    up = next(s for s in steps if s.command == 'u')
    assert up.function == 'forward_and_backward' and up.shapes['l1'] == (n, nh) and up.shapes['loss'] == ()
    where = [s.answer for s in steps if s.command == 'w']
    assert 'lin_grad(l2, out, w2, b2)' in where[0] and 'lin_grad(inp, l1, w1, b1)' in where[1]
    for w in where: assert re.findall(r'^. …\(\d+\)(\w+)', w, re.M) == ['forward_and_backward', 'lin_grad']


def test_replayed_it_is_the_same(): assert held() == held()


def test_it_is_the_same_in_another_file():
    "As in a notebook: the same code in a file of another name, at other lines"
    name = '/tmp/ipykernel_1/23.py'
    source = '\n'*40 + inspect.getsource(lin_grad) + '\n'*9 + inspect.getsource(forward_and_backward)
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    there = dict(vars(backprop))
    try:
        exec(compile(source, name, 'exec'), there)
        assert held(there['forward_and_backward'], there['lin_grad']) == held()
    finally: del linecache.cache[name]


def test_it_leaves_the_gradients_as_they_were():
    plain, watched = data(), data()
    forward_and_backward(*plain)
    record(lambda: forward_and_backward(*watched), COMMANDS, at=lin_grad)
    for i in (0, 2, 3, 4, 5): assert torch.equal(plain[i].g, watched[i].g)


mutants = {
    'a transpose forgotten': lambda s: [o._replace(answer=o.answer.replace(f'[{nh}, 1]', f'[1, {nh}]'))
                                        for o in s],
    'another number of images': lambda s: [o._replace(answer=o.answer.replace(f'[{n}, ', f'[{n+1}, '))
                                           for o in s],
    'a recorded shape': lambda s: [o._replace(shapes={**o.shapes, 'w': (1, nh)}) for o in s],
    'the visits exchanged': lambda s: s[:1] + s[12:-1] + s[1:12] + s[-1:],
    'one visit': lambda s: s[:12] + s[-1:],
    'a line': lambda s: [o._replace(line=o.line and o.line + 1) for o in s],
    'no end': lambda s: s[:-1],
}

@pytest.mark.parametrize('mutant', mutants)
def test_a_wrong_session_is_found(mutant): assert faults(mutants[mutant](held()))


def test_the_session_of_a_wrong_lin_grad_is_found():
    def wrong(inp, targ, w1, b1, w2, b2): forward_and_backward(inp[1:], targ[1:], w1, b1, w2, b2)
    assert faults(held(wrong))


# ---- every step of a run; tests/labs/test_lab_step.py walks along it with pdb

WATCHED = [forward_and_backward, lin, relu, mse, lin_grad]


def places(run): return [(run['frames'][s['frame']]['function'], s['line']) for s in run['steps']]

def recording(): return watch(lambda: forward_and_backward(*data()), WATCHED)

def test_a_recording_holds_the_very_numbers():
    tensors, run = data(), recording()
    forward_and_backward(*tensors)
    names = run['steps'][-1]['names']
    for name, t in zip(('inp', 'targ', 'w1', 'b1', 'w2', 'b2'), tensors):
        for which, want in (1, t), (2, getattr(t, 'g', None)):
            if want is None: assert names[name][which] == -1; continue
            value = run['values'][names[name][which]]
            assert torch.equal(torch.tensor(value['numbers']).view(value['shape']), want)
            assert value['text'] == repr(want)
    assert len(run['steps'][0]['names']) == 6 and len(names) == 10
    objects = [o for o, _, _ in names.values()]
    assert len(set(objects)) == 10                                   # ten tensors, each one object
    inside = next(s for s, (f, line) in zip(run['steps'], places(run)) if f == 'lin_grad')
    assert [inside['names'][k][0] for k in ('inp', 'out', 'w', 'b')] == [names[k][0]
        for k in ('l2', 'out', 'w2', 'b2')]


def test_what_a_line_sets_is_noted():
    def f(x):
        y = x + 1
        z = y
        y.add_(1)
        x.g = y
        x.g = None
        y = 3
        return z
    run = watch(lambda: f(torch.zeros(2)), [f])
    assert [s['set'] for s in run['steps'] if 'set' in s] == [['y'], ['z'], ['y', 'z'], ['x.g'], ['x.g'],
        ['y'], []]
    assert [s['reads'] for s in run['steps'] if 'reads' in s][:3] == [{'x': [2]}, {'y': [2]}, {'y': [2]}]
    out = run['steps'][-1]['result']['what it returns']
    assert run['values'][out[1]]['numbers'] == [2., 2.] and out[0] == run['steps'][-1]['names']['z'][0]


def test_calls_within_calls():
    def down(n): return down(n - 1) if n else 0         # 3.12 comes back to an `and`
    run = watch(lambda: down(2), [down])
    assert [f['caller'] for f in run['frames']] == [-1, 1, 3]
    assert [s['frame'] for s in run['steps']] == [0, 0, 1, 1, 2, 2, 2, 1, 0]


def test_a_recording_puts_back_the_watcher():
    def trace(*_): return None
    old = sys.gettrace()
    sys.settrace(trace)
    try:
        watch(lambda: relu(torch.ones(2)), [relu])
        with pytest.raises(ValueError): watch(lambda: relu(None), [relu])
        assert sys.gettrace() is trace
    finally: sys.settrace(old)


@pytest.mark.parametrize('f,functions,kind,says', [
    (lambda: relu(torch.ones(65)), [relu], ValueError,
     'x has 65 numbers, more than 64; watch a smaller network'),
    (lambda: relu(None), [relu], ValueError, 'the program stopped with AttributeError'),
    (lambda: 1, [relu], ValueError, 'calls none of the functions'),
    (lambda: 1, [torch.relu], TypeError, 'wanted functions written in Python')])
def test_what_cannot_be_recorded_is_said(f, functions, kind, says):
    with pytest.raises(kind, match=re.escape(says)) as e: watch(f, functions)
    assert str(e.value).startswith('watch: ') and '\n' not in str(e.value)


# ---- names, addresses, text

class Thing: pass

def nameless(x):
    y = Thing()
    return y

def test_no_place_of_this_machine():
    steps = record(lambda: nameless(Thing()),
                   ['p x', 'w', 'n', 'n', 'w', 'p __file__', 'b nameless', 'u', 'c'], at=nameless)
    said = transcript(steps, longest=99)
    for o in ('/', '\\', 'test_debugger.py', 'ipykernel', 'bdb'): assert o not in said, o
    assert not re.search('x[0-9a-f]{6}', said) and 'object at 0x…' in said and '--Return--' in said
    assert steps[0].answer == '> …(2)nameless()\n-> y = Thing()'
    assert bdb.Breakpoint.bpbynumber[-1] is None and not bdb.Breakpoint.bplist

def test_what_is_no_address_stays():
    def f(): return
    steps = record(f, ["p '0x12', 'x0123456789', 'box1234567'", 'q'], at=f)
    assert steps[1].answer == "('0x12', 'x0123456789', 'box1234567')"

def test_a_long_answer_is_cut():
    steps = [Step('', 'a', 'f', 1, '', {}), Step('h', '1\n2\n3\n4', 'f', 1, '', {}),
             Step('c', '', '', 0, '', {})]
    assert transcript(steps, longest=2) == 'a\n(Pdb) h\n1\n2\n… (2 more lines)\n(Pdb) c'
    assert transcript(steps, longest=4) == 'a\n(Pdb) h\n1\n2\n3\n4\n(Pdb) c'


def test_only_arrays_have_shapes():
    a = torch.ones(2, 3)
    a.g = 'anything'
    b = torch.ones(4)
    b.g = torch.ones(4)
    class Square:
        def shape(self): return (1, 1)
    assert debugger.shapes_of(dict(a=a, b=b, c=Square(), d=1, e=Square)) == {'a': (2, 3), 'b': (4,),
        'b.g': (4,)}


# ---- stops

def test_breakpoint_stops_each_time_and_can_go_up():
    def inner(x):
        y = 2*x
        breakpoint()
        return y
    def outer():
        a = 1
        return inner(inner(a))
    values = []
    steps = record(lambda: values.append(outer()), ['p y', 'u', 'p a', 'd', 'n', 'c', 'p y', '!y = 10', 'c'])
    assert [s.answer for s in steps if s.command[:1] == 'p'] == ['2', '1', '4']
    assert [s.function for s in steps] == ['inner', 'inner', 'outer', 'outer', 'inner', 'inner',
                                           'inner', 'inner', 'inner', '']
    assert values == [10]                                       # the variable itself was set, not a copy


def test_all_is_put_back():
    def f(): return 1
    def trace(*_): return None
    hook, old = sys.breakpointhook, sys.gettrace()
    sys.settrace(trace)
    try:
        for commands in (['c'], ['q'], []):
            try: record(f, commands, at=f)
            except ValueError: assert not commands
            assert sys.gettrace() is trace and sys.breakpointhook is hook
    finally: sys.settrace(old)
    assert not bdb.Breakpoint.bplist


# ---- errors

def fails(x): raise KeyError('no such key')
def swallows(x):
    try:
        return 1/x
    except Exception: return 0

@pytest.mark.parametrize('f,commands,at,kind,says', [
    (lambda: nameless(1), ['p x'], nameless, ValueError,
     'ended at nameless, line 2; end them with c (go on) or q (quit)'),
    (lambda: nameless(1), [], nameless, ValueError, 'ended at nameless, line 2'),
    (lambda: swallows(1), ['n'], swallows, ValueError, 'ended at swallows, line 3'),
    (lambda: nameless(1), ['c', 'p x', 'c'], nameless, ValueError, "ended before ['p x', 'c']; leave them out"),
    (lambda: nameless(1), ['c'], fails, ValueError, 'never came to fails'),
    (lambda: nameless(1), ['c'], None, ValueError, 'never came to a breakpoint()'),
    (lambda: fails(1), ['c'], fails, ValueError, "the program stopped with KeyError: 'no such key'"),
    (lambda: nameless(1), ['c'], 'nameless', TypeError,
     "at is 'nameless', wanted a function written in Python"),
    (lambda: nameless(1), ['c'], len, TypeError, 'at is <built-in function len>, wanted'),
    (None, ['c'], nameless, TypeError, 'f is None, wanted a function'),
    (lambda: nameless(1), 'c', nameless, TypeError, "commands is 'c', wanted a list of strings"),
    (lambda: nameless(1), [1], nameless, TypeError, 'commands is [1], wanted a list of strings'),
    (lambda: 1, ['c'], eval(compile('lambda: 1', '<nowhere>', 'eval')), ValueError,
     'no source of <lambda>; define it in a cell or a file')])
def test_what_does_not_fit_is_said(f, commands, at, kind, says):
    trace, hook = sys.gettrace(), sys.breakpointhook
    with pytest.raises(kind, match=re.escape(says)) as e: record(f, commands, at=at)
    assert str(e.value).startswith('record: ') and '\n' not in str(e.value)
    assert (sys.gettrace(), sys.breakpointhook) == (trace, hook) and not bdb.Breakpoint.bplist


# ---- by hand, in Jupyter: what the table of chapter 3 says

@pytest.fixture(scope='module')
def jupyter():
    "A function that runs a cell, types answers, and returns (the prompts, all that was said)"
    manager, client = start_new_kernel(kernel_name='python3')
    def run(code, *answers):
        left, prompts, said = list(answers), [], []
        def type_in(message):
            prompts.append(message['content']['prompt'])
            client.input(left.pop(0) if left else 'q')
        def hear(message):
            c = message['content']
            said.append(c.get('text') or c.get('data', {}).get('text/plain') or c.get('evalue') or '')
        client.execute_interactive(code, allow_stdin=True, stdin_hook=type_in, output_hook=hear, timeout=60)
        return prompts, re.sub(r'\x1b\[[\d;]*m', '', ''.join(said))
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)

IPDB = 'ipdb> '

def test_set_trace_stops_in_jupyter(jupyter):
    jupyter('import os, pdb, sys\ndef f(a):\n    pdb.set_trace()\n    return 2*a')
    prompts, said = jupyter('f(21)', 'p a', 'c')
    line = 3 if sys.version_info >= (3, 13) else 4              # pdb stops at the call itself since 3.13
    assert prompts == [IPDB]*2 and f'----> {line}' in said and said.rstrip().endswith('42')

def test_breakpoint_in_jupyter(jupyter):
    jupyter('import os, sys\ndef g(a):\n    breakpoint()\n    return 2*a')
    hook = jupyter('sys.breakpointhook.__module__')[1]
    stops = not hook.startswith("'debugpy")
    assert len(jupyter('g(21)', 'c')[0]) == stops
    assert len(jupyter('os.environ["PYTHONBREAKPOINT"] = "pdb.set_trace"\ng(21)', 'c')[0]) == stops
    jupyter('del os.environ["PYTHONBREAKPOINT"]\nsys.breakpointhook = sys.__breakpointhook__')
    assert jupyter('g(21)', 'p a', 'c')[0] == [IPDB]*2
    assert jupyter('os.environ["PYTHONBREAKPOINT"] = "0"\ng(21)', 'c')[0] == []

def test_debug_after_an_error_in_jupyter(jupyter):
    jupyter('def bad(a):\n    c = a - 3\n    return 1/c')
    assert 'division by zero' in jupyter('bad(3)')[1]
    prompts, said = jupyter('%debug', 'p a + c', 'u', 'q')
    assert prompts == [IPDB]*3 and '----> 3     return 1/c' in said and '3\n' in said
    assert '----> 1 bad(3)' in said
    jupyter('%pdb on')
    assert jupyter('bad(3)', 'p c', 'q')[0] == [IPDB]*2

def test_record_in_jupyter_is_as_here(jupyter):
    code = 'def small(x):\n    y = x\n    return y\n'
    here = {}
    exec(compile(code, '/small.py', 'exec'), here)
    linecache.cache['/small.py'] = len(code), None, code.splitlines(True), '/small.py'
    try: want = transcript(record(lambda: here['small'](1), ['p x', 'n', 'u', 'c'], at=here['small']))
    finally: del linecache.cache['/small.py']
    jupyter(code)
    said = jupyter("from backprop13.support.debugger import record, transcript\n"
                   "print(transcript(record(lambda: small(1), ['p x', 'n', 'u', 'c'], at=small)))")[1]
    # the line that calls it differs
    top = lambda text: re.sub(r'(> …\(1\)<lambda>\(\)\n->).*', r'\1', text)
    assert top(said).strip() == top(want).strip()
