"""`check` on the solutions and on the known mistakes of mistakes.py; the engine's limits; the progress file."""
import ast, contextlib, dataclasses, functools, inspect, json, re, signal, subprocess, sys, threading, time
from types import SimpleNamespace

import pytest, torch
import torch.nn.functional as F
from torch import nn

from backprop13 import backprop, fitting, minibatch
from backprop13.practice import exercises, grading, solutions, trials
from backprop13.practice.exercises import EXERCISES, check, hint, progress, progress_file, solution, starter
from backprop13.practice.grading import Caught, Fault, TimeUp, broken, diagnose, no_calls, run, time_limit
from backprop13.support.checks import difference_grads

from mistakes import (BY_CARD, BY_KIND, CLASSES, LEFT_OUT, NETWORK, OF_CARD, STEPS, TESTS, WRONG, before, bodies, cell,
                      text_of, verdict)

nan, inf = float('nan'), float('inf')
LIMIT = .2


@pytest.fixture(autouse=True)
def home(progress_elsewhere): return progress_elsewhere


KINDS = {name: [row[0] for row in rows] for name, rows in WRONG.items()}
ROWS = [pytest.param(name, *row[1:], *['']*(5 - len(row)), id=f'{name}: {row[0]}')
        for name, rows in WRONG.items() for row in rows]
each = pytest.mark.parametrize('name', EXERCISES)

def altered(monkeypatch, name, **fields):
    "The exercise with other fields"
    monkeypatch.setitem(EXERCISES, name, dataclasses.replace(EXERCISES[name], **fields))

@pytest.fixture(autouse=True)
def patient(monkeypatch):
    "A busy machine may take longer; tests of the limit set their own"
    for name in EXERCISES: altered(monkeypatch, name, seconds=60)

@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try: yield
    finally: torch.set_default_dtype(torch.float32)


def lines_of(name):
    "The statements of the solution's bodies that are long enough to tell something, without blanks"
    found = set()
    for o in ast.walk(ast.parse(solution(name))):
        statement = isinstance(o, (ast.Assign, ast.AugAssign, ast.Return, ast.Expr))
        if statement and not isinstance(getattr(o, 'value', None), (ast.Constant, ast.Name)):
            found.add(''.join(ast.unparse(o).split()))
    return {line for line in found if len(line) > 12}

def given_away(name, said, written=''):
    "The statements of the solution that stand in what is said, and not in what the learner wrote"
    said, written = ''.join(said.split()), ''.join(written.split())
    return [line for line in lines_of(name) if line in said and line not in written]


@pytest.mark.parametrize('name, how, property, piece, advice', ROWS)
def test_wrong_one_is_told_its_property(name, how, property, piece, advice, monkeypatch):
    text = text_of(name, how)
    altered(monkeypatch, name, seconds=LIMIT if property == 'time' else 10)
    report = verdict(name, text)
    assert (report.passed, report.property) == (False, property), report
    assert piece in report.message and advice in grading.look(report.fault), report
    assert not given_away(name, repr(report), text), report
    assert 'Look: ' in repr(report) and 'Look: ' in report._repr_markdown_()


MORE = {f'{kind}: {name}': (name, *row) for kind, rows in BY_KIND.items() for name, row in rows.items()}
MORE |= {f'{name}, {bug.kind}: {bug.new or bug.old}': (name, bug[1:3], OF_CARD[bug.kind]) for name, bug in BY_CARD}

@pytest.mark.parametrize('name, how, properties', MORE.values(), ids=MORE)
def test_kind_of_mistake_and_bug_of_its_card_are_told_their_property(name, how, properties):
    text = text_of(name, how)
    report = verdict(name, text)
    assert not report.passed and report.property in properties.split(', ') and report.message, report
    assert not given_away(name, repr(report), text), report

def test_each_kind_has_all_exercises_or_says_why_not():
    assert {kind for kind, rows in BY_KIND.items() if set(rows) < set(EXERCISES)} == set(LEFT_OUT)

@pytest.mark.parametrize('name', EXERCISES)
def test_luck_and_a_changed_world_are_seen(name, monkeypatch):
    "Wrong once in a while; and autograd, the default dtype or the global seed left otherwise (a test may seed)"
    monkeypatch.setattr(trials, 'time', SimpleNamespace(monotonic=int))     # a busy machine would try less often
    luck = f'if len(calls) % {13 if name in TESTS else 29} == 0: raise ValueError("luck")'
    report = verdict(name, before(name, 'calls.append(1)', luck), calls=[])
    assert not report.passed and 'luck' in report.message, report
    for line, says in (('torch.set_grad_enabled(False)', 'autograd'),
                       ('torch.set_default_dtype(torch.float64)', 'default dtype'),
                       ('torch.manual_seed(3)', 'the global seed')):
        report = verdict(name, before(name, line))
        if name in TESTS and 'seed' in says: assert report.passed, report
        else: assert not report.passed, report

@pytest.mark.parametrize('name', ['relu', 'Scale'])
def test_call_that_hears_no_signal_is_ended(name, monkeypatch):
    altered(monkeypatch, name, seconds=LIMIT)
    report = verdict(name, before(name, 'sum(range(10**12))'), here=False)
    assert report.property == 'time' and 'was stopped, for' in report.message, report

def test_report_shows_the_smallest_inputs_that_fail():
    report, there = (verdict('lin', 'def lin(x, w, b): return x @ w - b', here) for here in (True, False))
    assert repr(report) == repr(there) and all(torch.equal(t, there.inputs[k]) for k, t in report.inputs.items())
    assert report.inputs.keys() == {'x', 'w', 'b'} and all(t.numel() == 1 for t in report.inputs.values())
    *made, call = report.lines
    names = dict(torch=torch, lin=lambda x, w, b: x @ w - b)
    exec('\n'.join(made), names)
    assert torch.equal(names['b'], report.inputs['b'])
    assert eval(call, names) != report.inputs['x'] @ report.inputs['w'] + report.inputs['b']
    assert all(f'`{o}`' in repr(report) for o in report.lines) and 'See it:' in report._repr_markdown_()

def test_each_exercise_has_eight_kinds_of_its_own():
    assert list(WRONG) == list(EXERCISES), 'rows that one has and the other has not, or in another order'
    for name, kinds in KINDS.items(): assert len(set(kinds)) == len(kinds) >= 8, name
    for name, rows in WRONG.items():
        assert len({row[2] for row in rows}) >= (2 if name in TESTS else 4), f'{name}: too few properties'


# ---- what is asked of every exercise ----
@each
def test_solution_passes(name, home):
    report = verdict(name, solution(name), here=False)
    assert report.passed and report.property == report.message == '' and not report.notes, report
    assert len(report.held) == len(list(EXERCISES[name].trials()))
    assert 'is right' in repr(report) and not list(home.iterdir())

@each
def test_starter_is_empty(name):
    for text in starter(name), bodies(name, 'pass'), bodies(name, 'return'):
        assert verdict(name, text).property == 'empty'

@each
def test_signature(name):
    wanted = EXERCISES[name].solution
    def told(text): return (r := verdict(name, text)).property, r.message
    if name not in CLASSES:
        nine = ', '.join('abcdefghi')
        for text in f'def {name}(): return 1', f'def {name}({nine}): return 1', f'class {name}: pass':
            assert told(text)[0] == 'signature', text
        names = list(inspect.signature(wanted).parameters)
        if names[1:]: assert told(f'def {name}({", ".join(names[::-1])}): return 1')[0] == 'signature'
        return
    for text in f'def {name}(*args): return 1', f'class {name}: pass': assert told(text)[0] == 'signature', text
    for k in grading._methods(wanted):
        more = f'def {k}(self, one, two, three, four, five'
        for text, says in ((text_of(name, (f'def {k}(', f'def {k}2(')), k),
                           (re.sub(rf'def {k}\(self', more, solution(name)), 'three')):
            property, message = told(text)
            assert property == 'signature' and says in message

@each
def test_endless_loop_is_stopped(name, monkeypatch):
    for limit in LIMIT, 5:                       # a busy machine may not come to the loop within the first
        altered(monkeypatch, name, seconds=limit)
        start = time.monotonic()
        report = verdict(name, 'def endless():\n    while True: pass\n' + bodies(name, 'return endless()'))
        assert report.property == 'time' and f'{limit:g} seconds' in report.message, report
        if '`while True: pass`' in report.message: break
    assert '`while True: pass`' in report.message and time.monotonic() - start < grading.SECONDS, report

@pytest.mark.parametrize('name', ['relu', 'lin_grad', 'test_mse'])
def test_endless_loop_that_catches_everything(name, monkeypatch):
    "Stopped, and told, though it goes on rightly after that"
    altered(monkeypatch, name, seconds=LIMIT)
    text = before(name, 'try:', '    while True: pass', 'except: pass')
    assert verdict(name, text).property == 'time'

@each
def test_exception_shows_the_learners_line(name):
    for line, says in (('raise ValueError("mine")', 'ValueError: mine'), ('sys.exit("bye")', 'SystemExit: bye'),
                       ('next(iter(()))', 'StopIteration')):
        report = verdict(name, bodies(name, line), sys=sys)
        assert report.property == 'exception' and says in report.message, report
        assert f'{line}`' in report.message and re.search(r'line \d+', report.message), report

@each
def test_prints_and_plots(name, capfd):
    plt = pytest.importorskip('matplotlib.pyplot')
    mine = plt.figure()
    try:
        text = before(name, 'print("noise"*9)', 'print("noise", file=sys.stderr)', 'plt.figure(); plt.show()')
        report = verdict(name, text, plt=plt, sys=sys)
        assert report.passed, report
        assert re.search(r'prints \d+ characters.*draws \d+ figure', repr(report), re.S)
        assert plt.get_fignums() == [mine.number] and capfd.readouterr() == ('', '')
    finally: plt.close(mine)

@each
def test_librarys_own(name):
    "A function or class that hands all calls on to the solution"
    wanted = EXERCISES[name].solution
    text = f'def {name}(*args): return theirs(*args)'
    if name in CLASSES:
        text = f'class {name}({", ".join(b.__name__ for b in wanted.__bases__)}):\n'
        for k in grading._methods(wanted):
            text += f'    def {k}(self, *args, **kw): return theirs.{k}(self, *args, **kw)\n'
    report = verdict(name, text, theirs=wanted)
    assert report.property == 'no ready-made function' and name in report.message, report
    assert check(wanted, record=False).property == 'no ready-made function'

@pytest.mark.parametrize('name', [name for name, e in EXERCISES.items() if not e.autograd])
def test_autograd_is_refused(name):
    line = 'torch.ones(1, requires_grad=True).sum().backward()'
    report = verdict(name, before(name, line))
    assert report.property == 'no autograd' and 'backward' in report.message
    assert verdict(name, before(name, f'try: {line}', 'except: pass')).property == 'no autograd'

def test_autograd_is_forbidden_for_gradients_alone():
    assert [name for name, e in EXERCISES.items() if not e.autograd] == \
        [name for name, e in EXERCISES.items() if e.page in ('03_gradients', '04_modules')]
    assert verdict('train', before('train', 'torch.ones(1, requires_grad=True).sum().backward()')).passed

@pytest.mark.parametrize('name', ['lin', 'Sigmoid', 'logsumexp', 'train', 'Loader', 'test_lin_grad'])
def test_verdict_is_the_same_twice(name):
    "With random numbers, and with warnings too"
    for text in (solution(name), *(text_of(name, row[1]) for row in WRONG[name][:4]),
                 before(name, 'import warnings; warnings.warn("careful")'),
                 bodies(name, 'return torch.rand(2, 4)')):
        f = cell(name, text)
        assert repr(check(f, record=False)) == repr(check(f, record=False)), text

@each
def test_hints_and_task(name):
    e = EXERCISES[name]
    assert e.hints and e.task.endswith('.') and 2 <= len(re.findall(r'[.?](?= |$)', e.task)) <= 4
    assert 5 <= e.minutes <= 30
    assert not given_away(name, ' '.join([*e.hints, e.task]), 'lin_grad(inp, out, w, b)' if name in TESTS else '')

@each
def test_wanted_does_not_come_from_the_solution(name, monkeypatch):
    "With a solution that is spoilt, a right one still passes, and a wrong one still fails"
    text = solution(name)
    wrong = next(row for row in WRONG[name] if row[2] not in ('time', 'no ready-made function', 'signature'))
    texts, spoilt = [text, text_of(name, wrong[1])], cell(name, text)
    if name in CLASSES:
        for k in grading._methods(spoilt): setattr(spoilt, k, lambda *args: 13)
    else: spoilt.__code__ = (lambda *args: 13).__code__
    altered(monkeypatch, name, solution=spoilt)
    right, bad = (cell(name, o) for o in texts)
    monkeypatch.setattr(grading, 'check_signature', lambda *args: None)      # the spoilt one has another
    assert check(right, record=False).passed and check(bad, record=False).property == wrong[2]

@each
def test_trials_are_made_anew(name):
    "What a learner's code changes reaches no other trial and no other check"
    def plain(v): return v.state_dict() if isinstance(v, nn.Module) else 'a function' if callable(v) else v
    def state(trials): return repr([(t.property, t.what, {k: plain(v) for k, v in t.inputs.items()}) for t in trials])
    was = state(EXERCISES[name].trials())
    for row in WRONG[name]:
        if row[2] in ('inputs unchanged', 'value'): verdict(name, text_of(name, row[1]))
    assert state(EXERCISES[name].trials()) == was

@pytest.mark.parametrize('name', [name for name in EXERCISES if name not in TESTS])
def test_passes_whatever_is_set(name):
    "Under no_grad, with another default dtype; and neither is changed"
    with torch.no_grad():
        if name != 'train': assert verdict(name, solution(name)).passed        # whose loop needs autograd
        assert not torch.is_grad_enabled()
    with default_dtype(torch.float64): assert verdict(name, solution(name)).passed

def test_default_dtype_reaches_no_trial():
    "Of two that are alike but for it, neither passes; and it is as it was"
    with default_dtype(torch.float64):
        report = verdict('relu', bodies('relu', 'return (x + x.abs())/2'))
        assert report.property == 'stability' and torch.get_default_dtype() == torch.float64, report
    verdict('relu', bodies('relu', 'torch.set_default_dtype(torch.float64); return x'))
    assert torch.get_default_dtype() == torch.float32


# ---- right ones in other styles ----
RIGHT = [
    ('matmul', 'three loops', '''c = torch.zeros(len(a), b.shape[1], dtype=a.dtype)
    for i in range(len(a)):
        for j in range(b.shape[1]):
            for k in range(len(b)): c[i, j] += a[i, k]*b[k, j]
    return c'''),
    ('matmul', 'broadcasting', 'return (a[:, :, None]*b).sum(1)'),
    ('matmul', 'outer products', 'return sum(torch.outer(a[:, k], b[k]) for k in range(len(b)))'),
    ('matmul', 'lists', 'return torch.tensor([[sum(p*q for p, q in zip(r, c)) for c in '
     'b.t().tolist()] for r in a.tolist()], dtype=a.dtype)'),
    ('relu', 'where', 'return torch.where(x > 0, x, 0)'),
    ('relu', 'a product', 'return x*(x > 0)'),
    ('relu', 'a clone', 'y = x.clone(); y[y < 0] = 0; return y'),
    ('relu', 'recursion', 'return torch.stack([relu(v) for v in x]) if x.ndim else x if x > 0 else 0*x'),
    ('relu', 'prints by NumPy',
     'import numpy as np\ndef relu(x):\n    print(np.round(x.numpy(), 2))\n    return x.clamp(0)'),
    ('relu', 'a cache', 'import functools\n@functools.lru_cache\ndef relu(x): return x*(x > 0)'),
    ('relu', 'a bound method', 'class Own:\n    def relu(self, x): return x*(x > 0)\nrelu = Own().relu'),
    ('relu', 'an object', 'class Own:\n    def __call__(self, x): return x*(x > 0)\nrelu = Own()'),
    ('relu', 'a partial',
     'import functools\ndef above(low, x): return x*(x > low)\nrelu = functools.partial(above, 0)'),
    ('mse', 'a lambda', 'import torch\nmse = lambda output, targ: ((output - targ)**2).mean()'),
    ('lin', 'any names', 'def lin(inputs:torch.Tensor, weights, bias=None, *rest, **more) -> '
     'torch.Tensor: return inputs.mm(weights).add(bias)'),
    ('lin', 'a decorator',
     '@torch.no_grad()\n@torch.enable_grad()\ndef lin(x, w, b): return torch.einsum("ij,jk->ik", x, w) + b'),
    ('lin', 'any arguments', 'def lin(*args): return args[0] @ args[1] + args[2]'),
    ('mse', 'a loop', 'return sum((p - q)**2 for p, q in zip(output.flatten(), '
     'targ.flatten()))/output.numel()'),
    ('mse', 'a norm', 'return (output - targ).norm()**2/output.numel()'),
    ('mse_grad', 'in place on a tensor of its own',
     'd = inp - targ; d *= 2; d /= d.numel(); inp.g = d; return f"{inp.g}"'),
    ('relu_grad', 'a copy', 'inp.g = out.g.clone(); inp.g[inp <= 0] = 0'),
    ('relu_grad', 'by the output', 'inp.g = out.g*(out > 0)'),
    ('lin_grad', 'einsum',
     'inp.g = torch.einsum("ij,kj->ik", out.g, w); w.g = torch.einsum("bi,bj->ij", inp, out.g); '
     'b.g = torch.einsum("ij->j", out.g)'),
    ('lin_grad', 'an outer product for each row',
     'inp.g = out.g @ w.T; w.g = (inp[:, :, None]*out.g[:, None]).sum(0); b.g = sum(out.g)'),
    ('forward_and_backward', 'helpers of its own', STEPS + NETWORK),
    ('Lin', 'other names and more of them', '''class Lin(Module):
    def __init__(self, weights, biases, name='lin'):
        super().__init__()
        self.weights, self.biases, self.name, self.calls = weights, biases, name, 0
    def forward(self, x):
        self.calls += 1
        return x @ self.weights + self.biases
    def bwd(self, out, *args):
        x = args[0]
        add_grad(x, out.g @ self.weights.t())
        for t, g in (self.weights, x.t() @ out.g), (self.biases, out.g.sum(0)): add_grad(t, g)'''),
    ('Sigmoid', 'lambdas', 'class Sigmoid(Module):\n    forward = lambda self, x: (1 + (-x).exp())**-1\n'
     '    bwd = lambda self, out, x: add_grad(x, out.g*(out - out**2))'),
    ('Scale', 'einsum', ('(out.g*inp).sum(0)', 'torch.einsum("ij,ij->j", out.g, inp)')),
    ('Chain', 'a Module',
     'class Chain(Module):\n    def __init__(self, layers, loss): self.parts = [*layers, loss]\n'
     '    def forward(self, x, targ):\n        for o in self.parts[:-1]: x = o(x)\n        return '
     'self.parts[-1](x, targ)\n'
     '    def backward(self): [o.backward() for o in self.parts[::-1]]'),
    ('logsumexp', 'amax',
     'm = x.amax(-1, keepdim=True); return ((x - m).exp().sum(-1, keepdim=True).log() + m).squeeze(-1)'),
    ('logsumexp', 'a sorted row',
     'm = x.sort(-1).values[..., -1:]; return torch.log(torch.sum(torch.exp(x - m), dim=-1)) + m[..., 0]'),
    ('log_softmax', 'a helper of its own', '''def logsumexp(x):
    m = x.max(-1).values
    return m + (x - m[..., None]).exp().sum(-1).log()
def log_softmax(x):
    x = x - x.amax(-1, keepdim=True)
    return x - logsumexp(x).unsqueeze(-1)'''),
    ('log_softmax', 'in one step',
     'y = x - x.max(-1, keepdim=True)[0]; return y - y.exp().sum(-1, keepdim=True).log()'),
    ('nll', 'gather', 'return -log_probs.gather(1, targ[:, None]).mean()'),
    ('mse_grad', 'other names', 'def mse_grad(x, y, scale=2.): x.g = scale*(x - y)/x.numel()'),
    ('nll', 'a loop', 'return -sum(row[t] for row, t in zip(log_probs, targ))/len(targ)'),
    ('cross_entropy', 'in one step', 'm = logits.max(1, keepdim=True).values; s = logits - m\n'
     '    return (s.exp().sum(1).log() - s[torch.arange(len(targ)), targ]).mean()'),
    ('train', 'split and zip', '''losses = []
    for _ in range(epochs):
        for xb, yb in zip(x.split(bs), y.split(bs)):
            loss = F.cross_entropy(model(xb), yb)
            model.zero_grad(); loss.backward(); losses += [float(loss)]
            for p in model.parameters(): p.data.sub_(p.grad, alpha=lr)
    return losses'''),
    ('train', 'NumPy for the losses', ('loss.item()', 'loss.detach().numpy().item()')),
    ('train', 'autograd.grad', ('loss.backward()',
                                'for p, g in zip(model.parameters(), torch.autograd.grad(loss, '
                                'list(model.parameters()))): p.grad = g')),
    ('SGD', 'zeros', 'class SGD:\n    def __init__(self, params, lr=.1): self.ps, self.lr = '
     '[*params], lr\n    def step(self):\n'
     '        for p in filter(lambda p: p.grad is not None, self.ps): p.data -= p.grad*self.lr\n  '
     '  def zero_grad(self):\n'
     '        for p in self.ps:\n            if p.grad is not None: p.grad.zero_()'),
    ('Momentum', 'a dict', '''class Momentum:
    def __init__(self, params, lr, momentum=.9): self.ps, self.lr, self.m, self.moves = list(params), lr, momentum, {}
    def step(self):
        with torch.no_grad():
            for p in self.ps:
                if p.grad is None: continue
                self.moves[p] = self.m*self.moves.get(p, 0) + p.grad
                p.sub_(self.lr*self.moves[p])
    def zero_grad(self):
        for p in self.ps: p.grad = None'''),
    ('Dataset', 'a dataclass',
     'import dataclasses\n@dataclasses.dataclass\nclass Dataset:\n    x: torch.Tensor\n    y: torch.Tensor\n'
     '    def __len__(self): return len(self.y)\n    def __getitem__(self, key): return '
     'tuple(t[key] for t in (self.x, self.y))'),
    ('Loader', 'other names', [('shuffle:bool=False', 'mix=False'),
                               ('generator:torch.Generator=None', 'gen=None, *more'),
     ('self.shuffle, self.generator = shuffle, generator', 'self.shuffle, self.generator = mix, gen')]),
    ('Loader', 'split', ('for i in range(0, n, self.bs):\n            yield self.ds[order[i:i+self.bs]]',
                         'yield from map(self.ds.__getitem__, order.split(self.bs))')),
    ('Loader', 'stacked items', ('yield self.ds[order[i:i+self.bs]]',
                                 'yield tuple(map(torch.stack, zip(*[self.ds[int(j)] for j in '
                                 'order[i:i+self.bs]])))')),
    ('test_lin_grad', 'autograd by itself', '''for n, m, k in (3, 3, 3), (5, 2, 4):
        x, w, b = [torch.randn(*s, requires_grad=True) for s in ((n, m), (m, k), (k,))]
        y = x @ w + b
        g = torch.randn(n, k); y.g = g.clone()
        y.backward(g)
        for _ in range(2):
            lin_grad(x, y, w, b)
            for t in (x, w, b): torch.testing.assert_close(t.g, t.grad)
            assert (y.g == g).all()'''),
    ('test_log_softmax', 'probabilities add up', '''far = torch.tensor([[0., 1.], [-500., -501.]])
    for x in torch.randn(3, 3), 300*torch.randn(4, 2), far:
        was = x.clone()
        y = log_softmax(x)
        if not torch.allclose(y.exp().sum(-1), torch.ones(len(x))): raise ValueError("not 1")
        assert torch.allclose(y - y[:, :1], was - was[:, :1], atol=1e-3), f"{y}"
        assert x.equal(was)'''),
]

@pytest.mark.parametrize('name, how', [pytest.param(name, how, id=f'{name}: {style}') for name, style, how in RIGHT])
def test_right_one_in_another_style(name, how):
    report = verdict(name, text_of(name, how))
    assert report.passed, report


# ---- gradients that are wanted ----
def network(inp, targ, w1, b1, w2, b2, **_):
    return ((((inp @ w1 + b1).clamp(min=0) @ w2 + b2) - targ)**2).mean()

NUMBERS = {
    'mse_grad': lambda inp, targ: ((inp - targ)**2).mean(),
    'relu_grad': lambda inp, out: (inp.clamp(min=0)*out.g.double()).sum(),
    'lin_grad': lambda inp, out, w, b: ((inp @ w + b)*out.g.double()).sum(),
    'forward_and_backward': network,
    'Lin': lambda inp, g, w, b, times=1, **_: times*((inp @ w + b)*g).sum(),
    'Sigmoid': lambda inp, g, times=1, **_: times*(g/(1 + (-inp).exp())).sum(),
    'Scale': lambda inp, g, w, times=1, **_: times*(inp*w*g).sum(),
    'Chain': lambda x, layers, **kw: network(x, **kw) if layers == 3
    else ((x @ kw['w1'] + kw['b1'] - kw['targ'])**2).mean()}

@pytest.mark.parametrize('name', NUMBERS)
def test_wanted_gradients_agree_with_differences(name):
    seen = 0
    for trial in EXERCISES[name].trials():
        want = EXERCISES[name].want(**trial.inputs)
        want = {k[:-2]: g for k, g in want.items() if k.endswith('.g') and k != 'out.g'}
        kink = name == 'relu_grad' and (trial.inputs['inp'] == 0).any() or 'exactly 0' in trial.what
        if kink or trial.property == 'stability': continue
        def exact(v): return v.double() if isinstance(v, torch.Tensor) and not hasattr(v, 'g') else v
        def f(**tensors): return NUMBERS[name](**{k: exact(v) for k, v in trial.inputs.items()} | tensors)
        got = difference_grads(f, **{k: trial.inputs[k] for k in want})
        for k, g in want.items():
            assert g.shape == trial.inputs[k].shape and g.dtype == trial.inputs[k].dtype
            torch.testing.assert_close(got[k], g.double(), rtol=1e-4, atol=1e-6)
            seen += 1
    assert seen >= 3
    assert set(NUMBERS) == {name for name, e in EXERCISES.items() if not e.autograd}


# ---- the broken versions ----
BUGS = {'test_lin_grad': (backprop.lin_grad, exercises.LIN_GRAD_BUGS),
        'test_mse': (backprop.Mse, exercises.MSE_BUGS),
        'test_log_softmax': (minibatch.log_softmax, exercises.LOG_SOFTMAX_BUGS),
        'test_train': (solutions.train, exercises.TRAIN_BUGS),
        'test_engine': (solutions.Engine, exercises.ENGINE_BUGS)}
each_bug = pytest.mark.parametrize('test, right, bug', [
    pytest.param(test, right, bug, id=f'{right.__name__}: {bug.about}')
    for test, (right, bugs) in BUGS.items() for bug in bugs])

@each_bug
def test_bug_is_killed_alone(test, right, bug):
    assert grading.source(right).count(bug.old) == 1
    mine = cell(test, solution(test))
    with fitting.seeded(13):
        mine(right)
        mine(broken(right, bug.old, bug.old))                 # nothing changed: accepted
        with pytest.raises(Exception) as e: mine(broken(right, bug.old, bug.new))
    assert isinstance(e.value, (AssertionError, RuntimeError, ValueError))

@each_bug
def test_bug_alone_in_the_list_decides(test, right, bug, monkeypatch):
    "The count is of bugs that were really tried: a test that asserts nothing misses this one"
    def trials(): return [grading.Trial(dict(right=right, bugs=[bug]), 'bugs killed', '1 bug')]
    altered(monkeypatch, test, trials=trials)
    assert verdict(test, solution(test)).passed
    report = verdict(test, bodies(test, 'str(0)'))
    assert report.property == 'bugs killed'
    assert f'0 of 1 bugs; one that it does not find: {bug.about}' in report.message
    assert not given_away(test, report.message)

def test_bugs_differ():
    assert list(BUGS) == TESTS
    for right, bugs in BUGS.values():
        assert 5 <= len(bugs) <= 10 and len({b.about for b in bugs}) == len(bugs)
        assert len({grading.source(right).replace(b.old, b.new) for b in bugs}) == len(bugs)

def test_time_limit_is_not_spent_on_imports():
    "What PyTorch imports on first use, seconds long and broken for good if stopped, is there before a test runs"
    code = """import sys, torch, backprop13.practice.exercises as e
late = 'torch._dynamo' not in sys.modules
next(e.EXERCISES['test_train'].trials())
was = len(sys.modules)
torch.optim.SGD([torch.ones(1)], 1.); torch.testing.assert_close(torch.ones(2), torch.ones(2))
print(late, len(sys.modules) - was)"""
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == 'True 0\n'

def test_broken_says_when_the_chapter_was_changed():
    with pytest.raises(ValueError, match='stands 0 times in its source, wanted once'):
        broken(backprop.relu, 'nowhere', '')
    with pytest.raises(ValueError, match='stands [2-9] times'): broken(backprop.lin_grad, 'out.g', '')


# ---- whatever is passed ----
class Callable:
    __name__ = 'lin'
    def __call__(self, x, w, b): return x @ w + b

class Named:
    def __init__(self, name): self.__name__ = name
    def __repr__(self): raise ValueError('no repr')

class Refuses:
    def __getattr__(self, name): raise RuntimeError('no attributes')

class Unspeakable(Exception):
    def __str__(self): raise ValueError('no words')

def raises_unspeakable(x, w, b): raise Unspeakable
raises_unspeakable.__name__ = 'lin'

ANYTHING = [3, 2.5, None, True, '', 'lin', 'nothing', b'lin', [], {}, object(), torch.ones(2), torch, nn.ReLU(),
            nn.Linear, int, type, len, print, Exception, (lambda x, w, b: x), torch.matmul, torch.relu,
            torch.logsumexp, F.relu,
            F.mse_loss, [].append, Callable(), Callable, functools.partial(backprop.lin),
            functools.update_wrapper(functools.partial(backprop.lin), backprop.lin),
            functools.lru_cache(backprop.lin), torch.no_grad()(backprop.lin), Named('lin'), Named(3), Named([]),
            Named('lin'*99), Refuses(), raises_unspeakable, EXERCISES, EXERCISES['lin'], check]

@pytest.mark.parametrize('o', [pytest.param(o, id=f'{i} {type(o).__name__}') for i, o in enumerate(ANYTHING)])
def test_check_never_raises(o):
    report = check(o, record=False)
    assert isinstance(report, grading.Report) and isinstance(repr(report) + report._repr_markdown_(), str)
    if not isinstance(o, (Callable, functools._lru_cache_wrapper, functools.partial)):
        assert not report.passed and report.property and report.message

@pytest.mark.parametrize('result', [
    'torch.empty(2, 4, device="meta")', '(x @ w + b).to_sparse()', 'torch.zeros(2, 4, dtype=torch.complex64)',
    'torch.tensor(3)', 'torch.zeros(0)', 'x @ w + b*float("nan")', 'x @ w + b*float("inf")', '(x @ w + b).half()',
    'nn.Parameter(x @ w)', 'lin', 'torch', '[x @ w + b]', '(x @ w + b,)', '"x"', '{}', 'iter(x)', '(o for o in x)',
    'torch.quantize_per_tensor(x @ w + b, .1, 0, torch.qint8)', '(x @ w + b).to(torch.bool)'])
def test_check_never_raises_at_a_result(result):
    report = verdict('lin', bodies('lin', f'return {result}'), nn=nn)
    assert not report.passed and report.property in ('type', 'shape', 'dtype', 'value'), report

@pytest.mark.parametrize('line', [
    'x.resize_(9, 9)', 'x.data = x.data.int()', 'del w', 'torch.set_grad_enabled(False)', 'lin.__name__ = 3', 'f()',
    'raise KeyError', 'raise BaseException("all")', 'raise GeneratorExit', 'return lin(x, w, b)', 'assert 0',
    'raise TimeoutError', 'yield', 'torch.zeros(10**13)', 'exec("1 +")', 'raise x', 'import nowhere'])
def test_check_never_raises_at_a_line(line):
    with torch.set_grad_enabled(True): report = verdict('lin', bodies('lin', line + '; return x'))
    assert not report.passed and report.property, report
    assert verdict('lin', solution('lin')).passed                    # nothing is left behind

def test_report_shows_the_line_as_it_stands():
    report = verdict('mse', bodies('mse', 'return ((output - targ)**2).mean(0) @ "**"'))
    for shown in repr(report), report._repr_markdown_():
        assert '`return ((output - targ)**2).mean(0) @ "**"`' in shown, shown

def test_not_implemented_by_torch_is_no_empty_body():
    report = verdict('lin', bodies('lin', 'return (x > 0) @ (w > 0)'))
    assert report.property == 'exception' and 'not implemented' in report.message, report
    report = verdict('Sigmoid', 'class Sigmoid(Module):\n    def forward(self, inp): return 1/(1 + (-inp).exp())')
    assert report.property != 'empty' or 'bwd' in report.message, report


# ---- the engine: time ----
def spin(seconds=5):
    stop = time.monotonic() + seconds
    while time.monotonic() < stop: pass

@contextlib.contextmanager
def alarm(handler):
    was = signal.signal(signal.SIGALRM, handler)
    try: yield
    finally: signal.signal(signal.SIGALRM, was)

@pytest.mark.parametrize('job, raises', [
    (spin, TimeUp), (lambda: time.sleep(5), TimeUp), (lambda: None, None), (lambda: 1/0, ZeroDivisionError)])
def test_time_limit_restores_the_alarm(job, raises):
    def mine(*_): pass
    with alarm(mine):
        with pytest.raises(raises) if raises else contextlib.nullcontext():
            with time_limit(.1): job()
        assert signal.getsignal(signal.SIGALRM) is mine and signal.getitimer(signal.ITIMER_REAL) == (0, 0)

def test_time_limit_strikes_again():
    "Code that catches it, and goes on, is stopped once more"
    def stubborn():
        try: spin()
        except BaseException: spin()
    start = time.monotonic()
    with pytest.raises(TimeUp), time_limit(.1): stubborn()
    assert .1 <= time.monotonic() - start < 3

def in_thread(f):
    found = []
    def go():
        try: found.append(f())
        except BaseException as e: found.append(e)
    t = threading.Thread(target=go)
    t.start()
    t.join(10)
    assert not t.is_alive(), 'it still runs'
    return found[0]

def test_time_limit_in_a_thread(monkeypatch):
    def limited():
        with time_limit(.1): spin()
    start = time.monotonic()
    assert isinstance(in_thread(limited), TimeUp) and time.monotonic() - start < 2
    altered(monkeypatch, 'relu', seconds=LIMIT)
    report = in_thread(lambda: verdict('relu', bodies('relu', 'while True: pass')))
    assert report.property == 'time' and 'while True: pass' in report.message
    altered(monkeypatch, 'relu', seconds=10)
    assert in_thread(lambda: verdict('relu', solution('relu'))).passed
    def quick():
        with time_limit(.05): pass
        spin(.2)                                 # what is over isn't stopped any more
        return 'done'
    assert in_thread(quick) == 'done'

def test_time_limit_without_signals(monkeypatch):
    monkeypatch.delattr(signal, 'setitimer')
    with pytest.raises(TimeUp), time_limit(.1): spin()
    spin(.2)


# ---- the engine: watching ----
def test_what_is_watched_is_given_back():
    def mine(*_): pass
    for text, property in ((solution('lin'), ''), (bodies('lin', 'raise ValueError'), 'exception'),
                           (bodies('lin', 'return F.linear(x, w.t(), b)'), 'no ready-made function'),
                           ('def lin(*args): return theirs(*args)', 'no ready-made function')):
        sys.setprofile(mine)
        try: report, left = verdict('lin', text, theirs=EXERCISES['lin'].solution), sys.getprofile()
        finally: sys.setprofile(None)
        assert report.property == property and left is mine
    assert F.linear(torch.ones(1, 2), torch.ones(3, 2)).shape == (1, 3)       # nothing is forbidden any more
    out = sys.stdout, sys.stderr
    torch.manual_seed(5); a = torch.rand(1); torch.manual_seed(5)
    verdict('lin', bodies('lin', 'return torch.rand(2, 4)'))
    assert torch.rand(1) == a and (sys.stdout, sys.stderr) == out

def test_no_calls_sees_methods_and_decorated_functions():
    class Thing:
        @torch.no_grad()
        def go(self): return 1
    def told(*fault): raise Fault(*fault)
    with no_calls(grading.codes_of(Thing), told):
        with pytest.raises(Fault, match='Thing'): Thing().go()
    assert Thing().go() == 1

def test_what_is_printed_is_capped():
    out = Caught()
    run(spin, lambda: [print('x'*999) for _ in range(999)], out)
    assert out.total == 999*1000 and len(out.getvalue()) == 10_000
    report = verdict('relu', before('relu', 'for i in range(10**4): print("noise"*99)'))
    assert report.passed and 'characters' in repr(report) and 'noise' not in repr(report)

def test_keyboard_stops_everything():
    def stopped(): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): run(stopped, stopped)


# ---- the engine: what differs ----
def t(*values, dtype=torch.float32): return torch.tensor(values, dtype=dtype)

@pytest.mark.parametrize('g, w, why', [
    (t(-1., 2.), t(1., -2.), 'every sign is the opposite'),
    (t(2., -4.), t(1., -2.), 'every number is 2 times too large'),
    (t(-2., 4.), t(1., -2.), 'every number is -2 times what it should be'),
    (t(.5, 1.), t(1., 2.), 'every number is 2 times too small'),
    (t(1.3, 2.6), t(1., 2.), 'every number is 1.3 times what it should be'),
    (t(0., 0.), t(1., 2.), 'all of it is zero'),
    (t(3., 4.), t(1., 2.), 'every number is +2 off'),
    (t(nan, 2.), t(1., 2.), '1 of 2 numbers are nan'), (t(1., 5.), t(1., 2.), '1 of 2 numbers are right'),
    (t([1., 3.], [2., 4.]), t([1., 2.], [3., 4.]), 'it is transposed'),
    (t([1., 4.], [3., 6.], [7., 5.]), t([0., 1.], [2., 3.], [6., 2.]), 'every row is off by the same numbers'),
    (t([1., 2., 3.], [7., 8., 9.]), t([0., 1., 2.], [4., 5., 6.]), 'every column is off by the same numbers'),
    (t(5., 6.), t(1., 9.), ''), (torch.zeros(0), torch.zeros(0), ''),
    (t(1, 2, dtype=torch.int64), t(2, 1, dtype=torch.int64), '')])
def test_diagnosis(g, w, why): assert diagnose(g, w).startswith(why) and bool(diagnose(g, w)) == bool(why)

def test_numbers_that_differ_are_shown_so():
    "In float64 an error of float32 is seen, and the two numbers of the message differ"
    report = verdict('lin', bodies('lin', 'return (x.float() @ w.float() + b.float()).to(x.dtype)'))
    got, want = re.search(r' is ([-\d.]+)(?: at \[.*?\])?, wanted ([-\d.]+\d)', report.message).groups()
    assert report.property == 'dtype' and got != want, report.message

def test_nothing_close_to_the_wanted_passes_for_it():
    w = torch.tensor([1., 1e-3])
    assert grading.agree(w*(1 + 1e-5), w) and not grading.agree(w*(1 + 1e-3), w)
    assert grading.agree(t(inf, -inf, nan), t(inf, -inf, 1.)) is False
    assert grading.agree(t(inf, -inf), t(inf, -inf))
    body = 'm = x.max(-1).values\n    if x.max() > 80: return m\n    return (x - m[..., None]).exp().sum(-1).log() + m'
    big = verdict('logsumexp', bodies('logsumexp', body))
    assert big.property == 'stability', big


# ---- progress ----
def rows(): return json.loads(progress_file().read_text(encoding='utf-8'))

def right(name='relu'): return cell(name, solution(name))
def wrong(name='relu'): return cell(name, text_of(name, WRONG[name][0][1]))

def test_progress_is_counted(home, monkeypatch):
    assert progress_file() == home/'backprop13'/'progress.json' and not progress_file().exists()
    check(wrong()); check(wrong(), record=False)
    check(cell('relu', starter('relu')))         # an empty one is no try
    assert rows() == {'relu': {'tries': 1, 'hints': 0, 'solved': None, 'held': 0}}
    report = check(right())
    assert rows()['relu']['tries'] == 2 and f'1 of {len(EXERCISES)} exercises solved.' in repr(report)
    day = rows()['relu']['solved']
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', day)
    class Later(exercises.date):
        @classmethod
        def today(cls): return cls(2099, 1, 1)
    monkeypatch.setattr(exercises, 'date', Later)
    check(right()); check(wrong()); check(right('mse'))
    assert rows()['relu'] == {'tries': 4, 'hints': 0, 'solved': day, 'held': 0}
    assert rows()['mse']['solved'] == '2099-01-01'
    table = repr(progress())
    assert '| ✓ | `relu` | 4 |' in table and '|  | `lin` |  |' in table and f'2 of {len(EXERCISES)}' in table
    assert all(f'`{name}`' in table for name in EXERCISES)

def test_record_false_writes_nothing(home):
    for f in right(), wrong(), 3: check(f, record=False)
    check('nothing'), progress()
    assert not list(home.iterdir())

def test_hints_come_one_at_a_time():
    hints = EXERCISES['matmul'].hints
    assert len(hints) == 3
    for i, text in enumerate([*hints, hints[-1]]):
        note = repr(hint('matmul' if i % 2 else right('matmul')))
        assert text in note and not any(other in note for other in hints if other != text)
        assert ('the same call again' in note) == (text != hints[-1])
        assert rows()['matmul']['hints'] == min(i + 1, 3)
    assert rows()['matmul']['tries'] == 0
    assert 'is nearest' in repr(hint('matmull')) or 'matmul' in repr(hint('matmull'))

@pytest.mark.parametrize('left', [
    '{"relu": 3', '', '[1, 2]', '"text"', 'null', '\xff\xfe', '{"relu": 5}', '{"relu": {"tries": "3", "hints": 0}}',
    '{"relu": {"tries": 1, "hints": null}}', '{"relu": []}'])
def test_strange_file(left):
    "What isn't ours is moved aside, never lost; nothing raises"
    progress_file().parent.mkdir()
    progress_file().write_bytes(left.encode('latin-1'))
    assert f'0 of {len(EXERCISES)}' in repr(progress())
    assert EXERCISES['relu'].hints[0] in repr(hint('relu'))
    assert check(right()).passed and rows()['relu']['tries'] == 1 and rows()['relu']['solved']
    try: kept = isinstance(json.loads(left), dict)
    except ValueError: kept = False
    if not kept: assert progress_file().with_suffix('.unreadable').read_bytes() == left.encode('latin-1')

def test_rows_of_others_are_kept():
    progress_file().parent.mkdir()
    progress_file().write_text('{"gone": {"tries": 7, "hints": 1, "solved": "2020-01-01"}}')
    check(right())
    assert rows()['gone'] == {'tries': 7, 'hints': 1, 'solved': '2020-01-01'}
    assert f'1 of {len(EXERCISES)}' in repr(progress())

def test_folder_that_cannot_be_written(home, monkeypatch):
    (home/'file').write_text('')
    monkeypatch.setenv('XDG_DATA_HOME', str(home/'file'))
    report = check(right())
    assert report.passed and sum(str(progress_file()) in note for note in report.notes) == 1
    assert "isn't kept" in repr(report)
    hints = [repr(hint('matmul')) for _ in range(2)]
    assert EXERCISES['matmul'].hints[0] in hints[0]
    assert EXERCISES['matmul'].hints[1] in hints[1]                  # the next one comes all the same
    assert (home/'file').read_text() == ''

def test_home_that_is_no_path(monkeypatch):
    for home in '', 'relative':
        monkeypatch.setenv('XDG_DATA_HOME', home)
        assert progress_file().is_absolute() and progress_file().parts[-4:-2] == ('.local', 'share')
