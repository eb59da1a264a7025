"The comparison of gradients: what passes, what must not, and what a failure says."
import ast, contextlib, io, runpy

import pytest, torch
import torch.nn.functional as F
from conftest import root

from backprop13.backprop import Lin, Linear, Model, Module, Mse, Relu, add_grad, forward_and_backward, relu
from backprop13.support.checks import (DIFFERENCE_TOLERANCE, STEP, all_tensors, autograd_grads,
                                       check_grads, check_op, difference_grads,
                               held_tensors, our_grads, relative_error)
from backprop13.training import CrossEntropy, cross_entropy

f64 = torch.float64
shapes = [(1,), (3,), (3, 1), (1, 3), (2, 3), (1, 1), ()]


def rand(*shape, dtype=f64, seed=0): return torch.randn(*shape,
        generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- the comparison

@pytest.mark.parametrize('a', shapes)
@pytest.mark.parametrize('b', shapes)
def test_only_equal_shapes_are_compared(a, b):
    got, want = torch.ones(a), torch.ones(b)
    if a == b: assert check_grads({'x': got}, {'x': want}) == 0
    else:
        with pytest.raises(AssertionError, match=r'x: got shape \(') as e: check_grads({'x': got}, {'x': want}, tolerance=1e9)
        assert f'got shape {a}, wanted {b}' in str(e.value)


dtypes = [torch.float16, torch.bfloat16, torch.float32, f64]

@pytest.mark.parametrize('a', dtypes)
@pytest.mark.parametrize('b', dtypes)
def test_only_equal_dtypes_are_compared(a, b):
    got, want = torch.ones(3, dtype=a), torch.ones(3, dtype=b)
    if a == b: assert check_grads({'x': got}, {'x': want}, tolerance=0) == 0
    else:
        with pytest.raises(AssertionError, match=f'x: got dtype {a}, wanted {b}'):
            check_grads({'x': got}, {'x': want}, tolerance=1e9)


@pytest.mark.parametrize('scale', [1e-300, 1e-30, 1., 1e30, 1e300])
def test_the_error_is_relative(scale):
    want = rand(4, 3)*scale
    for change, error in [(1, 0), (-1, 2), (2, 1), (1 + 1e-7, 1e-7), (0, 1)]:
        assert relative_error(want*change, want) == pytest.approx(error, rel=1e-6)
    with pytest.raises(AssertionError, match='relative error 2.0e\\+00'): check_grads({'x': -want}, {'x': want})
    with pytest.raises(AssertionError): check_grads({'x': want*0}, {'x': want})
    with pytest.raises(AssertionError): check_grads({'x': want}, {'x': want*0})


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('where', ['got', 'want', 'both'])
def test_what_is_not_finite_never_passes(bad, where):
    a, b = torch.ones(3), torch.ones(3)
    if where != 'want': a[1] = bad
    if where != 'got': b[1] = bad
    with pytest.raises(AssertionError, match=r'they differ most at \[1\]'): check_grads({'x': a}, {'x': b}, tolerance=1e9)


def test_every_name_must_be_there():
    one = torch.ones(2)
    for got in ({}, {'x': one}, {'x': one, 'y': None}, {'x': one, 'y': one, 'z': one}):
        with pytest.raises(AssertionError, match='Lin: got gradients of'): check_grads(got, {'x': one, 'y': one}, op='Lin')


def test_a_message_has_what_one_needs():
    want = torch.arange(1., 9.).view(2, 4)
    got = want.clone()
    got[1, 2] = -7
    with pytest.raises(AssertionError) as e: check_grads({'w': got}, {'w': want}, op='Lin', against='autograd')
    assert str(e.value) == ('Lin, gradient of w: relative error 9.8e-01 against autograd, wanted at most 1e-04\n'
                            'got (2, 4) [1, 2, 3, 4, 5, 6, …], wanted (2, 4) [1, 2, 3, 4, 5, 6, …]\n'
                            'they differ most at [1, 2]: got -7, wanted 7')


# ---- gradients from autograd and from values

functions = dict(
    exp_sum_log=lambda x: x.exp().sum().log(), product=lambda x: x.prod(), square=lambda x: x.square().sum(),
    sine=lambda x: x.sin().mean(), softmax=lambda x: x.softmax(-1), log_softmax=lambda x: x.log_softmax(-1),
    tanh=lambda x: x.tanh(), turned=lambda x: x.t()@x,
    same=lambda x: x, view=lambda x: x.view(-1), scaled=lambda x: 1e6*x + 1)

@pytest.mark.parametrize('shape', [(1, 1), (1, 3), (4, 1), (4, 3)])
@pytest.mark.parametrize('name', functions)
def test_differences_are_as_good_as_their_step_allows(name, shape):
    errors = check_op(functions[name], x=rand(*shape))
    assert set(errors) == {'central differences, float64'} and errors['central differences, float64'] < 1e-8


def test_a_one_sided_difference_is_not():
    "What the bound in use finds, at the step in use and at the best step of such a difference."
    f, x = functions['exp_sum_log'], rand(5)
    def one_sided(h): return {'x': torch.stack([(f(x + h*e) - f(x))/h for e in torch.eye(5, dtype=f64)])}
    want = autograd_grads(f, x=x)
    assert check_grads(difference_grads(f, x=x), want, 1e-9) < 1e-9
    with pytest.raises(AssertionError): check_grads(one_sided(STEP), want, DIFFERENCE_TOLERANCE)
    with pytest.raises(AssertionError): check_grads(one_sided(torch.finfo(f64).eps**.5), want, 1e-9)


def test_differences_are_always_float64():
    got = difference_grads(lambda x: x.square().sum(), x=rand(3, dtype=torch.float32))
    assert got['x'].dtype == f64 and relative_error(got['x'], 2*rand(3, dtype=torch.float32).double()) < 1e-9


def test_out_g_is_the_gradient_that_reaches_the_output():
    x, g = rand(4, 3), rand(4, 3, seed=1)
    for grads in (autograd_grads, difference_grads):
        check_grads(grads(lambda x: x**3, g, x=x), {'x': 3*x**2*g}, 1e-8)
        for bad in (g[:, :1], g[0], g.view(-1), None):
            with pytest.raises(ValueError, match='out_g'): grads(lambda x: x**3, bad, x=x)
    with pytest.raises(ValueError, match='out_g is .*float32'): autograd_grads(lambda x: x**3, g.float(), x=x)
    with pytest.raises(ValueError, match='out_g'): our_grads(Relu(), g[0], inp=x)


def test_what_the_result_does_not_need_has_gradient_zero():
    x, y = rand(3), rand(2)
    for grads in (autograd_grads, difference_grads):
        assert grads(lambda x, y: x.sum(), x=x, y=y)['y'].tolist() == [0, 0]
    for f in (lambda x: x.detach().sum(), lambda x: torch.ones(())):
        with pytest.raises(ValueError, match='autograd finds no way'): autograd_grads(f, x=x)


def test_a_function_that_autograd_does_not_follow_is_found():
    for f in (lambda x: x*x.detach(), lambda x: x + x.detach().exp()):
        with pytest.raises(AssertionError, match='against central differences'): check_op(f, x=rand(4))


# ---- our layers

class Pair(Module):
    "Two linear layers with relu between, perhaps of the same weights"
    def __init__(self, *layers): self.layers = [layers[0], (Relu(), {'last': layers[1]})]
    def steps(self): return self.layers[0], self.layers[1][0], self.layers[1][1]['last']
    def forward(self, inp):
        for o in self.steps(): inp = o(inp)
        return inp
    def bwd(self, out, inp):
        for o in reversed(self.steps()): o.backward()


def test_tensors_in_nested_modules_are_found():
    pair = Pair(Lin(rand(3, 4), rand(4)), Lin(rand(4, 2), rand(2)))
    names = ['layers.0.w', 'layers.0.b', 'layers.1.1.last.w', 'layers.1.1.last.b']
    assert list(held_tensors(pair)) == names
    errors = check_op(pair, lambda inp, w, b, w2, b2: (inp @ w + b).relu() @ w2 + b2, inp=rand(5, 3))
    assert max(v for k, v in errors.items() if 'differences' not in k and '64' in k) < 1e-12 and len(errors) == 7
    assert list(all_tensors(pair, {'inp': rand(5, 3)})) == ['inp', *names]            # after a call, too


class Assigns(Lin):
    def bwd(self, out, inp):
        self.w.g = self.b.g = None
        super().bwd(out, inp)

def shared(layer):
    w, b = rand(3, 3), rand(3)
    return Pair(layer(w, b), layer(w, b))

def test_shared_weights_stay_shared():
    errors = check_op(shared(Lin), lambda inp, w, b: (inp @ w + b).relu() @ w + b, inp=rand(5, 3))
    assert errors['the reference, float64'] < 1e-12
    with pytest.raises(AssertionError, match='Pair, gradient of layers.0.w: relative error'):
        check_op(shared(Assigns), inp=rand(5, 3))


@pytest.mark.parametrize('n,c', [(6, 4), (1, 4), (6, 1), (1, 1)])
def test_integer_labels_pass_through(n, c):
    targ = torch.arange(n) % c
    for op in (CrossEntropy(), cross_entropy):
        names = dict(zip(('inp', 'targ') if isinstance(op, Module) else ('logits', 'targ'), (rand(n, c), targ)))
        check_op(op, F.cross_entropy, **names)
    assert set(our_grads(CrossEntropy(), inp=rand(n, c), targ=targ)) == ({'inp'})


@pytest.mark.parametrize('n,m,nh', [(5, 4, 3), (1, 4, 3), (5, 1, 3), (5, 4, 1), (1, 1, 1)])
def test_layers_and_models(n, m, nh):
    check_op(Lin(rand(m, nh), rand(nh)), lambda inp, w, b: inp @ w + b, inp=rand(n, m))
    check_op(Linear(m, nh), lambda x, w, b: x @ w + b, x=rand(n, m))
    check_op(Relu(), F.relu, inp=rand(n, m))
    check_op(relu, F.relu, x=rand(n, m))
    check_op(Mse(), F.mse_loss, ['targ'], inp=rand(n, m), targ=rand(n, m, seed=1))
    d = dict(x=rand(n, m), targ=rand(n, 1, seed=1))
    model = Model(rand(m, nh), rand(nh), rand(nh, 1), rand(1))
    errors = check_op(model, lambda x, targ, w1, b1, w2, b2: F.mse_loss((x @ w1 + b1).relu() @ w2
        + b2, targ), ['targ'], **d)
    both = {f'{what}, {dtype}' for what in ('value', 'autograd', 'the reference') for dtype in ('float32', 'float64')}
    assert set(errors) == both | {'central differences, float64'}


def test_a_function_that_sets_g_itself():
    d = dict(inp=rand(5, 4), w1=rand(4, 3), b1=rand(3), w2=rand(3, 1), b2=rand(1))
    targ = rand(5, 1, seed=1)
    got = our_grads(forward_and_backward, targ=targ, **d)
    check_grads(got, autograd_grads(lambda inp, w1, b1, w2, b2: F.mse_loss((inp @ w1 + b1).relu() @ w2 + b2, targ),
                                    **d))
    check_op(forward_and_backward, targ=targ, **d)                  # its value, as a function


def test_nothing_of_the_callers_changes():
    model, x, targ = Model(rand(3, 2), rand(2), rand(2, 1), rand(1)), rand(4, 3), rand(4, 1)
    model(x, targ)
    model.backward()                                               # with gradients from before, which don't count
    tensors = {**held_tensors(model), 'x': x}
    before = {k: (t.clone(), t.g) for k, t in tensors.items() if hasattr(t, 'g')}
    for _ in range(2): check_op(model, constants=['targ'], x=x, targ=targ)
    assert all(torch.equal(tensors[k], t) and tensors[k].g is g for k, (t, g) in before.items()) and 'x' in before
    assert not any(t.requires_grad for t in tensors.values()) and not hasattr(targ, 'g')


# ---- what a layer can do wrong

class Leaves(Lin):
    def bwd(self, out, inp): add_grad(inp, out.g @ self.w.t())
class Flat(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.b.g = self.b.g[None]
class Float(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.w.g = self.w.g.float()
class NaN(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.w.g = self.w.g*float('nan')
class Tiny(Lin):
    def forward(self, inp): return super().forward(inp)*1e-12
    def bwd(self, out, inp):
        super().bwd(out, inp)
        for t in (inp, self.w, self.b): t.g = -1e-12*t.g
class Spoils(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.w *= 2
class ForwardToo(Lin):
    def forward(self, inp): return 2*super().forward(inp)
    def bwd(self, out, inp):
        super().bwd(out, inp)
        for t in (inp, self.w, self.b): t.g = 2*t.g

@pytest.mark.parametrize('layer,message', [
    (Leaves, "Leaves: got gradients of ['inp'], wanted ['b', 'inp', 'w']"),
    (Flat, 'Flat, gradient of b: got shape (1, 2), wanted (2,)'),
    (Float, 'Float, gradient of w: got dtype torch.float32'), (NaN, 'NaN, gradient of w: relative error nan'),
    (Tiny, 'Tiny, gradient of inp: relative error 2.0e+00 against autograd'), (Spoils, 'Spoils: changed w from'),
    (ForwardToo, 'ForwardToo, value: relative error 1.0e+00 against the reference')])
def test_faults_are_found(layer, message):
    def reference(inp, w, b): return inp @ w + b if layer is ForwardToo else layer(w, b)(inp)
    with pytest.raises(AssertionError) as e: check_op(layer(rand(3, 2), rand(2)), reference, inp=rand(4, 3))
    assert message in str(e.value)


def test_constants_are_named_and_get_nothing():
    x, y = rand(4, 1), rand(4, 1, seed=1)
    with pytest.raises(AssertionError, match=r"Mse: got gradients of \['inp'\], wanted \['inp', 'targ'\]"):
        check_op(Mse(), inp=x, targ=y)
    with pytest.raises(AssertionError, match=r"Lin: got gradients of \['b', 'inp', 'w'\], wanted \['inp', 'w'\]"):
        check_op(Lin(rand(1, 2), rand(2)), constants=['b'], inp=x)              # a constant that gets a gradient
    with pytest.raises(ValueError, match='no gradients to compare'): check_op(relu, constants=['x'], x=x)
    with pytest.raises(ValueError, match=r"no tensor is called \['tagr'\]; it has \['inp', 'targ'\]"):
        check_op(Mse(), constants=['tagr'], inp=x, targ=y)
    with pytest.raises(TypeError, match=r'Mse\(inp, targ\): missing a required argument'): check_op(Mse(), inp=x)


# ---- what is shown can be printed

SHOWN = """
import torch
from backprop13.support.checks import check_grads, printable, show_values
from backprop13.support.debugger import record, transcript
from backprop13.practice.exercises import EXERCISES, check, hint, progress
from backprop13.practice.grading import Fault, Report
from backprop13.practice.guessing import guess
from backprop13.practice.workbook import Download
from backprop13 import data
from backprop13.practice import exercises

def relu(x): raise ValueError('\u03bb \u2265 0')
def lin(x, w, b):
    \u03bb = x @ w + b
    return \u03bb.sum()
def right():
    def lin(x, w, b): return x @ w + b
    return lin
print(check(relu), check(lin), hint(lin), check(right()))
for text in [h for e in EXERCISES.values() for h in e.hints]: print(exercises.Note(text))
print(progress(), guess(torch.ones(2).shape, type('\u03bb', (), {})()), Download(b'1', '\u03bb.xlsx'))
print(Report('\u03bb', Fault('value', '\u2713')), printable('\\ud800'))
steps = record(lambda: lin(*torch.ones(3, 2, 2)), ['p "\u03bb"', 'w', 'c'], at=lin)
print(transcript(steps), steps[1].answer)
x = torch.ones(99)
try: check_grads(dict(x=x), dict(x=2*x))
except AssertionError as e: print(e, show_values(x))
try: data.check_sum(b'', 'x', 'word')
except ValueError as e: print(e)
print(data._why(ValueError('x'*500)))
"""

@pytest.mark.parametrize('coding', ['ascii', 'cp1252', 'cp437', 'latin-1', 'utf-8'])
def test_all_that_is_shown_can_be_printed(coding, tmp_path, monkeypatch):
    "On a terminal of any encoding, quotations of the user's own signs, too"
    (tmp_path/'shown.py').write_text(SHOWN, encoding='utf-8')
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
    terminal = io.TextIOWrapper(got := io.BytesIO(), coding, write_through=True)
    with contextlib.redirect_stdout(terminal): runpy.run_path(str(tmp_path/'shown.py'))
    out = got.getvalue().decode(coding)
    ok, no, dots, letter = ('\u2713', '\u2717', '\u2026', '\u03bb') if coding == 'utf-8' else ('+', '-', '...', r'\u03bb')
    if coding == 'cp1252': dots = '\u2026'
    for text in f'  {ok} x (2, 3)', f'  {no} exception: it raises ValueError: {letter}', f'1, 1, {dots}]', f'{letter}.xlsx', r'\ud800', f'> {dots}(2)lin()':
        assert text in out, (text, out)


def test_other_text_is_plain():
    "Where text isn't shown by `printable` or by a command's stdout, nor in a page or a file, it's ASCII"
    shown = 'card', 'checks', 'debugger', 'exercises', 'grading', 'workbook', 'submissions'
    drawn = 'figures', 'graph', 'labs'                            # pictures and pages
    for path in {*(root/'backprop13').rglob('*.py')} - {root/'backprop13/support/cards.py'}:
        tree = ast.parse(path.read_text(encoding='utf-8'))
        docs = {id(o.value) for o in ast.walk(tree) if isinstance(o, ast.Expr)}
        odd = [o.value for o in ast.walk(tree) if isinstance(o, ast.Constant)
               and isinstance(o.value, str) and not o.value.isascii() and id(o) not in docs]
        assert not odd or path.stem in shown + drawn, (path.name, odd)
