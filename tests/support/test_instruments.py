"""The instruments: checks, derivatives and the ledger, with seeded bugs and the property that
must kill each. (What the lesson's own
definitions must hold stands on their cards.) A bug is a change to one place of the library's
source, made in memory; the whole package is
then executed anew under another name, and the property must raise AssertionError. A crash of
another kind is no kill."""
import contextlib, importlib, io, itertools, random, sys
from types import SimpleNamespace

import pytest, torch
import torch.nn.functional as F

from backprop13 import backprop, minibatch
from backprop13.support.checks import autograd_grads, check_grads, check_op
from backprop13.support.ledger import ENTRIES
from helpers import Library, f64, inf, kill, mutated, nan, rand, refuses

modules = 'checks',                                 # the chapters' definitions have cards


# ---- inputs

_random = random.Random(13)
shapes = [(3, 3, 3), (1, 1, 1), (1, 4, 3), (5, 1, 3), (5, 4, 1),
          *(tuple(_random.choices(range(1, 7), k=3)) for _ in range(3))]

def layer_data(n, m, nh): return rand(n, m, seed=1), rand(m, nh, seed=2), rand(nh, seed=3)

def network(n, m, nh, c=1):
    sizes = dict(x=(n, m), targ=(n, c), w1=(m, nh), b1=(nh,), w2=(nh, c), b2=(c,))
    return {k: rand(*size, seed=i) for i, (k, size) in enumerate(sizes.items())}

# ---- the properties, each a function of the library

def lin_is_right(lib):
    for s in shapes:
        x, w, b = layer_data(*s)
        check_op(lib.backprop.lin, lambda x, w, b: x @ w + b, x=x, w=w, b=b)

big = [torch.tensor([[1e4, -1e4, 0.]]), torch.tensor([[-1e4, -1e4]]),
       torch.tensor([[800., 0., -800.]], dtype=f64)]
odd = [torch.tensor([[0., -inf, 3.]]), torch.tensor([[nan, 0.]]), torch.zeros(2, 3, 4)]

def fails(message, f, *args, **kw):
    "`f` must raise an `AssertionError` that says `message`"
    try: f(*args, **kw)
    except Exception as e:
        assert isinstance(e, AssertionError) and message in str(e), f'{e!r}\nwanted: {message}'
    else: raise AssertionError(f'{f.__name__} let pass what it must find: {message}')

def errors_are_relative(lib):
    for scale in (1e-300, 1e-5, 1., 1e300):
        want = rand(3, 3)*scale
        for change, error in [(1, 0.), (-1, 2.), (3, 2.), (1 + 1e-6, 1e-6)]:
            assert abs(lib.checks.relative_error(want*change, want) - error) < 1e-9, (scale, change)
        assert lib.checks.relative_error(want*0, want) == 1 and lib.checks.relative_error(want, want*0) == inf
    assert lib.checks.relative_error(want*0, want*0) == 0
    refuses(ValueError, 'no entries', lib.checks.relative_error, want[:0], want[:0])
    refuses(TypeError, 'wanted floating point', lib.checks.relative_error, torch.ones(3).int(),
            torch.ones(3).int())

def shapes_and_dtypes_count(lib):
    check = lib.checks.check_grads
    some = (3,), (3, 1), (1, 3), (2, 3), (1,), (1, 1), ()
    for a in some: assert check({'w': torch.ones(a)}, {'w': torch.ones(a)}, 0) == 0
    for a, b in itertools.permutations(some, 2):
        fails(f'w: got shape {a}, wanted {b}', check, {'w': torch.ones(a)}, {'w': torch.ones(b)}, 1e9)
    for a, b in itertools.permutations([torch.float16, torch.bfloat16, torch.float32, f64], 2):
        fails(f'w: got dtype {a}, wanted {b}', check, {'w': torch.ones(3, dtype=a)},
              {'w': torch.ones(3, dtype=b)}, 1e9)

def nan_never_passes(lib):
    for bad in (nan, inf, -inf):
        for a, b in itertools.product([torch.ones(2), torch.tensor([1., bad])], repeat=2):
            if not (a.isfinite().all() and b.isfinite().all()):
                fails('differ most at [1]', lib.checks.check_grads, {'w': a}, {'w': b}, 1e9)

def every_gradient_counts(lib):
    check, one = lib.checks.check_grads, torch.ones(3, dtype=f64)
    for got in ({}, {'a': one}, {'a': one, 'b': None}, {'a': one, 'b': one, 'c': one}):
        fails('Lin: got gradients of', check, got, {'a': one, 'b': one}, op='Lin')
    refuses(ValueError, 'no gradients to compare', check, {}, {})
    for name in 'ab':
        off = {'a': one, 'b': one, name: one*(1 + 1e-10)}
        assert 0.9e-10 < check(off, {'a': one, 'b': one}) < 1.1e-10
        fails(f'{name}: relative error', check, {**off, name: -one}, {'a': one, 'b': one})
    fails('at most 1e-09', check, {'a': one*(1 + 1e-8)}, {'a': one})
    fails('at most 1e-04', check, {'a': one.float()*1.001}, {'a': one.float()})
    fails('at most 0e+00', check, {'a': one*(1 + 1e-15)}, {'a': one}, 0)
    check({'a': one*(1 + 1e-8)}, {'a': one}, 1e-7)
    refuses(ValueError, 'no tolerance is set', check, {'a': one.half()}, {'a': one.half()})

def a_message_says_what_and_where(lib):
    want = torch.arange(1., 9.).view(2, 4)
    got = want.clone()
    got[1, 2] = -7
    fails('Lin, gradient of w: relative error 9.8e-01 against autograd, wanted at most 1e-04\n'
          'got (2, 4) [1, 2, 3, 4, 5, 6, …], wanted (2, 4) [1, 2, 3, 4, 5, 6, …]\n'
          'they differ most at [1, 2]: got -7, wanted 7',
          lib.checks.check_grads, {'w': got}, {'w': want},
          op=lib.checks.op_name(lib.backprop.Lin(got, want)), against='autograd')
    assert lib.checks.op_name(relu_like) == 'relu_like'

def signs_have_stand_ins(lib):
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), 'ascii')):
        assert lib.checks.printable('\u2713 \u22121\u2026 \u03bb') == r'+ -1... \u03bb'

def relu_like(x): return x*(x >= 0)                 # its slope at 0 is 1
def exp_sum_log(x): return x.exp().sum().log()

def differences_are_central(lib):
    diff, x, g = lib.checks.difference_grads, rand(4, 3), rand(4, 3, seed=1)
    # one-sided: 1e-8 at best
    check_grads(diff(exp_sum_log, x=x), {'x': x.view(-1).softmax(0).view(4, 3)}, 1e-9)
    check_grads(diff(torch.exp, g, x=x), {'x': x.exp()*g}, 1e-9)
    check_grads(diff(exp_sum_log, x=x.float()), {'x': x.float().double().view(-1).softmax(0).view(4, 3)}, 1e-9)
    check_grads(diff(torch.exp, g.float(), x=x.float()), {'x': x.float().double().exp()*g.float()}, 1e-9)
    for f in (lambda x: x, lambda x: x.view(4, 3), lambda x: 1e6*x/1e6):
        check_grads(diff(f, g, x=x), {'x': g}, 1e-9)
    check_grads(diff(lambda x, k: x*k, x.t(), x=x.t(), k=torch.tensor(2)), {'x': 2*x.t()}, 1e-9)
    far = rand(3) + 1e6                                               # x + h is rounded, too
    check_grads(diff(lambda x: x, far, x=far), {'x': far}, 1e-12)
    w, b = rand(3, 3), rand(3)
    check_grads(diff(backprop.Lin(w, b), g, inp=x), {'inp': g @ w.t(), 'w': x.t() @ g, 'b': g.sum(0)}, 1e-9)
    check_grads(diff(lambda x, y: x.sum(), x=x, y=g), {'x': x*0 + 1, 'y': g*0}, 1e-9)
    refuses(ValueError, 'pass out_g', lambda: diff(torch.exp, x=x))
    refuses(ValueError, 'they must be equal', lambda: diff(torch.exp, g[0], x=x))
    assert 1e-8 <= lib.checks.DIFFERENCE_TOLERANCE <= 1e-6

def autograd_is_asked_right(lib):
    auto, x, g = lib.checks.autograd_grads, rand(4, 3), rand(4, 3, seed=1)
    check_grads(auto(torch.exp, g, x=x), {'x': x.exp()*g})
    check_grads(auto(exp_sum_log, x=x), {'x': x.view(-1).softmax(0).view(4, 3)})
    check_grads(auto(lambda x, y: (x*2).sum(), x=x, y=g), {'x': x*0 + 2, 'y': g*0})
    check_grads(auto(lambda x, k: x[k].sum(), x=x, k=torch.tensor(1)),
                {'x': torch.eye(4, dtype=f64)[1][:, None].expand(4, 3)})
    assert not x.requires_grad
    for f in (lambda x: x.detach().sum(), lambda x: torch.ones(())):
        refuses(ValueError, 'no way from', lambda: auto(f, x=x))
    refuses(ValueError, 'pass out_g', lambda: auto(torch.exp, x=x))
    refuses(ValueError, 'they must be equal', lambda: auto(torch.exp, g[:1], x=x))
    refuses(ValueError, 'out_g', lambda: lib.checks.our_grads(backprop.Relu(), g[:1], inp=x))
    refuses(ValueError, 'they must be equal', lambda: auto(torch.exp, g.float(), x=x))
    refuses(ValueError, 'wanted a floating-point tensor', lambda: auto(torch.argmax, x=x))

class Twice(backprop.Module):
    "Layers one after the other, perhaps of the same weights"
    def __init__(self, *layers): self.layers = [layers[0], ({'last': layers[1]},)]
    def forward(self, inp): return self.layers[1][0]['last'](self.layers[0](inp))

def held_tensors_are_found(lib):
    C, (x, w, b) = lib.checks, layer_data(4, 3, 3)
    two = Twice(backprop.Lin(w, b), backprop.Lin(w, rand(3)))
    two.calls = torch.tensor(0)                                              # an integer, which has no gradient
    names = ['layers.0.w', 'layers.0.b', 'layers.1.0.last.b']               # w is one tensor, in two places
    for _ in range(2):
        assert list(C.all_tensors(two, {'inp': x})) == ['inp', *names]
        # what a call remembers are no weights
        two(x)
    assert list(C.held_tensors(backprop.Linear(3, 2))) == ['w', 'b'] and C.held_tensors(relu_like) == {}
    twin = C.with_tensors(two, {'layers.0.w': (new := rand(3, 3, seed=9))})
    assert twin.layers[0].w is new and twin.layers[1][0]['last'].w is new and two.layers[0].w is w
    class Both(backprop.Lin):
        def forward(self, w): return super().forward(w)
    refuses(ValueError, "both called ['w']", C.all_tensors, Both(w, b), {'w': x})

def calls_go_by_name(lib):
    call, x, y = lib.checks.call_op, rand(3), rand(3, seed=1)
    for f in (lambda a, b: a - b, lambda b, a: a - b, lambda b, *, a: a - b):
        assert torch.equal(call(f, {'a': x, 'b': y}), x - y)
    for f in (torch.sub, lambda *ab: ab[0] - ab[1]): assert torch.equal(call(f, {'a': x, 'b': y}), x - y)
    assert torch.equal(call(backprop.Mse(), {'targ': y, 'inp': x}), F.mse_loss(x, y))
    refuses(TypeError, "missing a required argument: 'inp'; got ['x']", call, backprop.Relu(), {'x': x})

def good_layers_pass(lib):
    check, (x, w, b) = lib.checks.check_op, layer_data(4, 3, 3)
    every = {f'{what}, {dtype}' for what in ('value', 'autograd', 'the reference')
             for dtype in ('float32', 'float64')}
    every |= {'central differences, float64'}
    two = Twice(backprop.Lin(w, b), backprop.Lin(w, rand(3)))
    errors = check(two, lambda inp, w, b, b2: (inp @ w + b) @ w + b2, inp=x)
    assert errors.keys() == every and max(v for k, v in errors.items() if '64' in k) < 1e-8, errors
    seen = set()
    check(lambda x: seen.add(x.dtype) or 2*x, lambda x: x + x, x=x)
    assert seen == {torch.float32, f64}
    check(backprop.Mse(), F.mse_loss, ['targ'], inp=x, targ=x + 1)
    check(backprop.Linear(3, 2), lambda x, w, b: x @ w + b, x=x)
    assert check(relu_like, F.relu, x=x.float()).keys() == every - {'autograd, float32', 'autograd, float64'}
    assert check(relu_like, x=x).keys() == {'central differences, float64'}
    one = torch.ones(4, 3)
    assert check(exp_sum_log, x=x, out_g=torch.tensor(2.))['central differences, float64'] < 1e-9
    g = lib.checks.random_like(x)
    assert torch.equal(g, lib.checks.random_like(x)) and g.std() > .5
    # numbers of its own, not the inputs' again
    assert not any(torch.equal(g, rand(4, 3, seed=i)) for i in range(100))
    ours = lib.checks.our_grads(backprop.Lin(w, b), one.double(), inp=x)
    check_grads(ours, {'inp': one.double() @ w.t(), 'w': x.t() @ one.double(), 'b': b*0 + 4})
    assert not any(hasattr(t, 'g') or t.requires_grad for t in (x, w, b))

def faulty(**changes):
    "Lin with a fault: what to do to its gradients, by name, after a right backward pass"
    class Faulty(backprop.Lin):
        def bwd(self, out, inp):
            super().bwd(out, inp)
            for k, change in changes.items():
                t = inp if k == 'inp' else getattr(self, k)
                t.g = change(t.g)
    return Faulty

def bad_layers_do_not(lib):
    check, (x, w, b) = lib.checks.check_op, layer_data(4, 3, 3)
    def judge(layer, message, reference=None): fails(message, check, layer(w, b), reference, inp=x)
    judge(faulty(w=lambda g: -g),
          'Faulty, gradient of w: relative error 2.0e+00 against autograd, wanted at most 1e-09')
    judge(faulty(w=lambda g: g*(1 + 1e-8)), 'Faulty, gradient of w: relative error 1.0e-08 against autograd')
    judge(faulty(w=lambda g: g.float()), 'Faulty, gradient of w: got dtype torch.float32, wanted torch.float64')
    judge(faulty(b=lambda g: g[None]), 'Faulty, gradient of b: got shape (1, 3), wanted (3,)')
    judge(faulty(b=lambda g: None), "got gradients of ['inp', 'w'], wanted ['b', 'inp', 'w']")
    judge(faulty(inp=lambda g: g*nan), 'Faulty, gradient of inp: relative error nan')
    judge(faulty(w=lambda g: g + 1e-3 if g.dtype == torch.float32 else g),
          'against autograd, wanted at most 1e-04')
    class Spoils(backprop.Lin):
        def bwd(self, out, inp): super().bwd(out, inp); self.w *= 2
    judge(Spoils, 'Spoils: changed w from')
    class Wipes(backprop.Lin):
        def bwd(self, out, inp): super().bwd(out, inp); out.g.zero_()
    judge(Wipes, 'Wipes: changed out.g from')
    class Assigns(backprop.Lin):
        def bwd(self, out, inp): inp.g, self.w.g, self.b.g = out.g @ self.w.t(), inp.t() @ out.g, out.g.sum(0)
    judge(Assigns, 'against twice its own, since it must add')
    class First(backprop.Lin):
        def bwd(self, out, inp):
            self.first = getattr(self, 'first', inp)
            super().bwd(out, inp); backprop.add_grad(self.w, (self.first - inp).t() @ out.g)
    judge(First, 'against its gradients without other calls')
    labels = torch.tensor([0, 2, 1, 0])
    class Relabels(minibatch.CrossEntropy):
        def bwd(self, out, inp, targ): super().bwd(out, inp, targ); targ.zero_()
    fails('Relabels: changed targ from', check, Relabels(), inp=x, targ=labels)
    assert labels.any()                                              # the caller's own are as they were
    class Blind(backprop.Lin):
        # autograd and bwd agree, and both are wrong
        def forward(self, inp): return inp.detach()*inp + 0*super().forward(inp)
        def bwd(self, out, inp): backprop.add_grad(inp, out.g*inp); self.w.g, self.b.g = self.w*0, self.b*0
    judge(Blind, 'gradient of inp: relative error 5.0e-01 against central differences, wanted at most 1e-07')
    fails('against central differences', check, lambda x: x*x.detach(), x=x)
    judge(backprop.Lin, 'Lin, value: relative error 1.0e+00 against the reference', lambda x, w,
          b: (x @ w + b)/2)
    judge(backprop.Lin, 'Lin, gradient of inp: relative error 1.0e+00 against the reference',
          lambda x, w, b: (y := x @ w + b)/2 + y.detach()/2)
    fails("got gradients of ['inp'], wanted ['inp', 'targ']", check, backprop.Mse(), inp=x, targ=x + 1)
    fails("got gradients of ['b', 'inp', 'w'], wanted ['inp', 'w']", check, backprop.Lin(w, b),
          constants=['b'], inp=x)
    refuses(ValueError, "no tensor is called ['y']", lambda: check(backprop.Lin(w, b), constants=['y'], inp=x))
    refuses(ValueError, 'no gradients to compare', lambda: check(relu_like, constants=['x'], x=x))
    fails('changed x from', check, lambda x: x.add_(1), x=x)
    refuses(ValueError, 'wanted a floating-point tensor', lambda: check(lambda x: x.argmax(), x=x))


# these take long
in_torch = {name: entry.torch for name, entry in ENTRIES.items() if name not in ('network', 'classifier')}

def formulas_are_right(lib):
    """The gradient that the chain rule finds for each operation, entry by entry, against autograd;
    and its matrix form"""
    D = lib.derivatives
    refuses(ValueError, 'r and s ask for an entry', D.slope,
            D.OPERATIONS['relu']._replace(out=D.x[D.i, D.r]), D.x)
    short = D.sp.Sum(D.sp.KroneckerDelta(D.j, D.r)*D.x[D.i, D.j], (D.j, 1, D.k))
    assert D.pick(short) == short
    refuses(IndexError, 'count from 1', D.evaluate, D.x[0, 1], x=[[1., 2.]])
    assert D.OPERATIONS.keys() == ENTRIES.keys()
    for (name, f), sizes in itertools.product(in_torch.items(), ((3, 3, 3, 3), (2, 1, 3, 4))):
        op, at = D.OPERATIONS[name], dict(zip((D.n, D.m, D.nh, D.c), sizes))
        tensors = {str(q): torch.arange(at[D.n]) % at[D.c] if q == D.y
                   else rand(*(at[o] for o in shape), seed=i)
                   for i, (q, shape) in enumerate((op.args | op.given).items())}
        g = rand(*(at[last] for *_, last in op.axes), seed=9) if op.axes else None
        want = autograd_grads(lambda **t: f(*t.values()), g, **tensors)
        values = {k: t.numpy() + (k == 'y') for k, t in tensors.items()} | {str(q): size for q,
            size in at.items()}
        if op.axes: values['g'] = g.numpy()
        for arg in op.args:
            formula, got = D.gradient(op, arg), torch.zeros_like(want[str(arg)])
            for i in itertools.product(*map(range, got.shape)):
                got[i] = D.evaluate(formula, **values, **dict(zip('rs', (q + 1 for q in i))))
            check_grads({'arg': got}, {'arg': want[str(arg)]}, op=name)
    for name in in_torch:
        op = D.OPERATIONS[name]
        for arg in op.args: assert D.matrix_form_agrees(op, arg), (name, arg)

def the_formulas_slope_at_0_is_0(lib):
    D = lib.derivatives
    slope = D.rect(D.x[D.i, D.j]).diff(D.x[D.i, D.j])
    for value in (-1., 0., 1.):
        assert D.evaluate(slope, x=[[value]], i=1, j=1) == float(D.gate(int(value))) == (value > 0)

def formulas_are_told_apart(lib):
    D = lib.derivatives
    x, g, n, r, s = D.x, D.g, D.n, D.r, D.s
    for a, b in ((x[r, s], x[s, r]), (x[r, s], -x[r, s]), (x[r, s]/n, x[r, s]), (x[r, s], x[r, s] + 1e-6),
                 (D.pick(D.chain(D.OPERATIONS['lin'], D.slope(D.OPERATIONS['lin'], D.b))), g[r, s])):
        assert D.same(a, a) and not D.same(a, b)
        fails('is not the same as', D.derivation, 'y', a, (b, 'why'))
    for a, b in ((x[r, s]/n, x[r, s]/D.nh), (2*x[r, s], n*x[r, s]), (x[r, s]/4, x[r, s]/n),
                 (1e-12*x[r, s], -1e-12*x[r, s])):
        assert not D.same(a, b), (a, b)
    op, mse = D.OPERATIONS['lin'], D.OPERATIONS['mse']
    for arg in op.forms: assert not D.matrix_form_agrees(op._replace(forms={arg: -op.forms[arg]}), arg)
    for form in (mse.forms[x]*n/2, mse.forms[x]*n/4):
        assert not D.matrix_form_agrees(mse._replace(forms={x: form}), x)
    # one row of them
    assert not D.matrix_form_agrees(op._replace(forms={x: op.forms[x][:1, :]}), x)
    refuses(ValueError, 'no value for x', D.evaluate, x[1, 1])

def the_ledger_sees(lib):
    "Each way is compared, whatever is wrong is seen in it, and nothing that should have a row goes without"
    L, B, D = lib.ledger, lib.backprop, lib.derivatives
    class Nan(B.Lin):
        def bwd(self, out, inp): super().bwd(out, inp); inp.g = inp.g*nan
    class Once(B.Lin):
        def bwd(self, out, inp):
            super().bwd(out, inp)
            if len(inp) > 1: self.w.g = -self.w.g             # right for a batch of one
    class Wipes(B.Lin):
        def bwd(self, out, inp): super().bwd(out, inp); out.g.zero_()
    lin, right = L.ENTRIES['lin'], dict(Lin=L.by(B.Lin))
    def worst(arg=D.w, **change): return L.worst_of(L.compare('lin',
            lin._replace(**{'ours': right, **change}), count=8), arg)
    assert max(worst().values()) < 1e-7
    assert min(worst(D.x, ours=dict(wrong=L.by(Nan))).values()) == inf
    assert min(worst(ours=dict(wrong=L.by(Once))).values()) > .1
    assert worst(ours=dict(wrong=L.by(Once), **right))['formula'] > .1
    seen = {q: e > .1 for q, e in worst(torch=lambda x, w, b: 2*x @ w + b).items()}
    assert seen == dict(formula=False, autograd=True, differences=False), seen
    seen = {q: e > .1 for q, e in worst(forward=lambda x, w, b: 2*x @ w + b).items()}
    assert seen == dict(formula=False, autograd=False, differences=True), seen
    def wipes(g, x, w, b):
        grads = [g @ w.t(), x.t() @ g, g.sum(0)]
        g.zero_()
        return grads
    assert max(worst(ours=dict(wipes=wipes, **right)).values()) < 1e-7       # the next one isn't to blame
    fails('changed the gradient at its output', worst, ours=dict(wrong=L.by(Wipes)))
    fails('1 gradients for', worst, ours=dict(one=lambda g, x, w, b: [g @ w.t()]))
    assert L.disagreement(torch.full((2,), 1e-9, dtype=f64), torch.zeros(2, dtype=f64), 'x') == inf
    sizes = [tuple(q.values()) for q in L.shapes()]
    assert len(sizes) == 40 and (1, 1, 1, 1) in sizes
    assert all(any(q[i] == 1 and q.count(1) == 1 for q in sizes[:5]) for i in range(4))
    new = SimpleNamespace(__all__=['Lin', 'cube'], Lin=Nan, cube=abs, _Once=Once)
    assert L.without_row(dict(data=new)) == ['data.Lin', 'data._Once']
    assert L.without_row(dict(fit=new)) == ['fit.Lin', 'fit.cube', 'fit._Once']



# ---- the bugs: property -> rows of (kind, where, the right text, the wrong text)

mutants = {


    formulas_are_right: [
        ('sign', "derivatives.OPERATIONS['nll']", '-sp.Sum', 'sp.Sum'),
        ('sign', "derivatives.OPERATIONS['cross_entropy']", '_p - _Y', '_p + _Y'),
        ('sign', "derivatives.OPERATIONS['mse']", "x[i, k] - t[i, k]", "x[i, k] + t[i, k]"),
        ('missing 1/n', "derivatives.OPERATIONS['mse']", '(i, 1, n))/(n*c)', '(i, 1, n))/n'),
        ('missing 1/n', "derivatives.OPERATIONS['cross_entropy']", '(_p - _Y)/n', '_p - _Y'),
        ('missing 1/n', "derivatives.OPERATIONS['nll']", '(i, 1, n))/n', '(i, 1, n))'),
        ('missing factor', "derivatives.OPERATIONS['mse']", '{x: 2/(n*c)*', '{x: 1/(n*c)*'),
        ('missing factor', 'derivatives.chain', 'g[at]*slopes', 'slopes'),
        ('missing term', "derivatives.OPERATIONS['softmax']", '_g - _q', '_g'),
        ('missing term', "derivatives.OPERATIONS['log_softmax']", 'x[i, k] - sp.log(_exp_sum)', 'x[i, k]'),
        ('wrong axis', "derivatives.OPERATIONS['lin']", 'b[k] +', 'b[i] +'),
        ('wrong axis', "derivatives._exp_sum", 'x[i, j]', 'x[j, i]'),
        ('wrong axis', 'derivatives.slope', 'arg[(r, s)', 'arg[(s, r)'),
        ('no check', 'derivatives.slope', 'if op.out.has(r, s)', 'if False'),
        ('loose check', 'derivatives.picked', ' and limit[1] == 1 and limit[2] in (n, m, nh, c)', ''),
        ('missing sum(0)', 'derivatives.chain', '*reversed(op.axes)', '*((q, a, a) for q, a, _ in op.axes)'),
        ('gate on the wrong side', 'derivatives.rect', 'return gate(self.args[0])',
         'return gate(-self.args[0])'),
        ('wrong place', 'derivatives.From1', 'int(q) - 1', 'int(q)'),
        ('no check', 'derivatives.From1', 'if min(at) < 0', 'if False')],
    the_formulas_slope_at_0_is_0: [
        ('gate on the wrong side', 'derivatives.gate', 'z > 0', 'z >= 0'),
        ('gate on the wrong side', 'derivatives.compiled', 'float(z > 0)', 'float(z >= 0)')],
    formulas_are_told_apart: [
        ('loose check', 'derivatives.agree', 'rel_tol=1e-9', 'rel_tol=1e-3'),
        ('loose check', 'derivatives.agree', 'abs_tol=1e-15', 'abs_tol=1e-9'),
        ('loose check', 'derivatives.agree', 'product((1, 2), repeat', 'product((1,), repeat'),
        ('loose check', 'derivatives.same', 'for sizes in SIZES', 'for sizes in SIZES[:1]'),
        ('loose check', 'derivatives.SIZES', '{n: 2, m: 3, nh: 4, c: 5}, {n: 4, m: 2, nh: 5, c: 3}',
         '{n: 2, m: 3, nh: 2, c: 3}, {n: 3, m: 2, nh: 3, c: 2}'),
        ('no check', 'derivatives.derivation', 'if not same(a, b)', 'if False'),
        ('loose check', 'derivatives.matrix_form_agrees', 'if not agree(', 'if False and agree('),
        ('no check', 'derivatives.matrix_form_agrees', 'if form.shape != (1,)*(2 - len(shape)) + shape',
         'if False'),
        ('loose check', 'derivatives.matrix_form_agrees', 'for sizes in SIZES:', 'for sizes in SIZES[:1]:'),
        ('no check', 'derivatives.evaluate', 'if missing', 'if False')],
    the_ledger_sees: [
        ('loose check', 'ledger.disagreement', "float('inf') if error != error else error", 'error'),
        ('loose check', 'ledger.disagreement', '<= 1e-12 and got.norm()', '<= 1e-12 or got.norm()'),
        ('loose check', 'ledger.compare', 'max(row[way], ', 'min(row[way], '),
        ('loose check', 'ledger.compare', 'disagreement(a, b,', 'disagreement(b, b,'),
        ('loose check', 'ledger.compare', 'through(entry.torch)', 'through(entry.forward)'),
        ('loose check', 'ledger.compare', 'measured(entry.forward)', 'measured(entry.torch)'),
        ('no check', 'ledger.compare', 'assert len(got) >= len(op.args)', 'assert True'),
        ('shared memory', 'ledger.compare', 'None if out_g is None else out_g.clone()', 'out_g'),
        ('no check', 'ledger.by', 'assert kept', 'assert True'),
        ('missing term', 'ledger.shapes', '*edges, ', ''),
        ('missing term', 'ledger.shapes', 'dict.fromkeys(names, 1)', 'dict.fromkeys(names, 2)'),
        ('missing term', 'ledger.without_row', ', *layers]', ']'),
        ('missing term', 'ledger.without_row', 'module.__all__ if is_chapter(module) else []', '[]'),
        ('no check', 'ledger.without_row', 'rows.get(name) is not o', 'name not in rows'),
        ('no check', 'ledger.without_row', ' and not has_bwd(o)', ''),
        ('wrong axis', 'ledger.worst_of', 'max(errors[way]', 'min(errors[way]')],

    errors_are_relative: [
        ('loose check', 'checks.relative_error',
         '((a/largest - b/largest).norm()/(b/largest).norm())', '(a - b).norm()'),
        ('loose check', 'checks.relative_error', '(b/largest).norm())', '(a/largest).norm())'),
        ('loose check', 'checks.relative_error', '/(b/largest).norm()',
         '/((a/largest).norm() + (b/largest).norm())'),
        ('sign', 'checks.relative_error', '(a/largest - b/largest)', '(a.abs()/largest - b.abs()/largest)'),
        ('overflow', 'checks.relative_error', 'largest = b.abs().max()', 'largest = b.abs().max().clamp(1, 1)'),
        ('loose check', 'checks.relative_error', "0. if torch.equal(a, b) else float('inf')", '0.'),
        ('no check', 'checks.relative_error', 'if not want.numel()', 'if False'),
        ('no check', 'checks.relative_error', 'if not want.is_floating_point()', 'if False')],
    shapes_and_dtypes_count: [
        ('no check', 'checks.relative_error', 'if tuple(got.shape) != tuple(want.shape)', 'if False'),
        ('keepdim dropped', 'checks.relative_error', 'tuple(got.shape) != tuple(want.shape)',
         'got.numel() != want.numel()'),
        ('no check', 'checks.relative_error', 'if got.dtype != want.dtype', 'if False')],
    nan_never_passes: [
        ('loose check', 'checks.check_close', 'not error <= limit', 'error > limit'),
        ('loose check', 'checks.relative_error', 'a, b = got.double(), want.double()',
         'a, b = got.double().nan_to_num(), want.double().nan_to_num()'),
        ('wrong place', 'checks.check_close', ".nan_to_num(float('inf'))", '.nan_to_num(0)')],
    every_gradient_counts: [
        ('loose check', 'checks.check_grads', 'return max(', 'return min('),
        ('loose check', 'checks.check_grads', 'for k in want)', 'for k in list(want)[:1])'),
        ('loose check', 'checks.check_grads', 'for k in want)', 'for k in list(want)[1:] or want)'),
        ('no check', 'checks.check_grads', 'got.keys() != want.keys()', 'not got.keys() <= want.keys()'),
        ('no check', 'checks.check_grads', 'got.keys() != want.keys()', 'not got.keys() >= want.keys()'),
        ('no check', 'checks.check_grads', 'if not want:', 'if False:'),
        ('no check', 'checks.check_close', 'if limit is None', 'if False'),
        ('loose check', 'checks.TOLERANCE', '1e-9', '1e-6'),
        ('loose check', 'checks.TOLERANCE', '1e-4', '1e-2'),
        ('loose check', 'checks.check_close', 'TOLERANCE.get(want.dtype) if tolerance is None else tolerance',
         'tolerance or TOLERANCE[want.dtype]')],
    a_message_says_what_and_where: [
        ('wrong place', 'checks.check_close', '.argmax()', '.argmin()'),
        ('sign', 'checks.check_close', 'got {got[at]:.4g}, wanted {want[at]:.4g}',
         'got {want[at]:.4g}, wanted {got[at]:.4g}'),
        ('wrong place', 'checks.show_values', '[:n]', '[-n:]'),
        ('wrong place', 'checks.op_name', "getattr(op, '__name__', type(op).__name__)", "type(op).__name__")],
    signs_have_stand_ins: [('wrong call', 'checks.printable', 'coding, _PLAIN', "coding, 'replace'"),
                           ('wrong call', 'checks.printable', "getattr(sys.stdout, 'encoding', None)", 'None')],
    differences_are_central: [
        ('one-sided', 'checks.difference_grads', 'at(x - step), at(x)', 'at(x), at(x)'),
        ('one-sided', 'checks.difference_grads', 'at(x + step), at(x - step)', 'at(x), at(x - step)'),
        ('wrong step', 'checks.STEP', '(1/3)', '(1/2)'),
        ('wrong step', 'checks.STEP', '(1/3)', '(1/5)'),
        ('sign', 'checks.difference_grads', 'high - low', 'low - high'),
        ('missing factor', 'checks.difference_grads', '/(right - left)', '/step'),
        ('missing factor', 'checks.difference_grads', '/(right - left)', '/(2*step)'),
        ('missing factor', 'checks.difference_grads', '*start).sum()', ').sum()'),
        ('missing sum', 'checks.difference_grads', '((high - low)*start).sum()',
         '((high - low)*start).view(-1)[0]'),
        ('= for +=', 'checks.difference_grads', 'at(x - step), at(x)', 'at(x - step), at(x - step)'),
        ('shared memory', 'checks.difference_grads', 'out().clone()', 'out()'),
        ('wrong dtype', 'checks.difference_grads', 'copies(all_tensors(f, tensors), torch.float64)',
         'copies(all_tensors(f, tensors))'),
        ('missing transpose', 'checks.difference_grads', 'grad(t).view(t.shape)',
         'grad(t).view(t.t().shape if t.ndim == 2 else t.shape)'),
        ('loose check', 'checks.DIFFERENCE_TOLERANCE', '1e-7', '1e-3'),
        ('no check', 'checks.start_gradient', 'if out_g is None and not out.ndim', 'if out_g is None')],
    autograd_is_asked_right: [
        ('missing factor', 'checks.autograd_grads', ', start, materialize',
         ', torch.ones_like(out), materialize'),
        ('no check', 'checks.autograd_grads', 'if not out.requires_grad', 'if False'),
        ('no check', 'checks.start_gradient',
         '(out_g.shape, out_g.dtype) != (out.shape, out.dtype)', 'out_g.dtype != out.dtype'),
        ('no check', 'checks.start_gradient',
         '(out_g.shape, out_g.dtype) != (out.shape, out.dtype)', 'out_g.shape != out.shape'),
        ('no check', 'checks.start_gradient', 'if not is_float(out)', 'if False')],
    held_tensors_are_found: [
        ('missing term', 'checks.is_float', ' and t.is_floating_point()', ''),
        ('missing term', 'checks.held_tensors', 'isinstance(o, (list, tuple))', 'isinstance(o, list)'),
        ('missing term', 'checks.held_tensors', 'isinstance(o, dict)', 'False'),
        ('missing term', 'checks.held_tensors', 'if id(o) in seen: return',
         'if id(o) in seen and not is_float(o): return'),
        ('wrong place', 'checks.held_tensors', 'path = path[:-1]', 'pass'),
        ('shared memory', 'checks.with_tensors', 'tensors.get(k, t.detach())', 't.detach()'),
        ('shared memory', 'checks.with_tensors', 'copy.deepcopy', '(lambda o, memo: o)'),
        ('missing term', 'checks.all_tensors', 'if id(mine[k]) in kept', ''),
        ('no check', 'checks.all_tensors', 'if both := inputs.keys() & held.keys()', 'if both := ()')],
    calls_go_by_name: [
        ('wrong axis', 'checks.call_op', 'return op(*bound.args, **bound.kwargs)',
         'return op(*inputs.values())'),
        ('wrong axis', 'checks.call_op', "getattr(op, 'forward', op)", 'op'),
        ('no check', 'checks.call_op', "{e}; got {list(inputs)}'", "'")],
    good_layers_pass: [
        ('missing term', 'checks.check_op', '(torch.float64, torch.float32)', '(torch.float64,)'),
        ('missing term', 'checks.trusted_grads', "want['the reference'] = autograd", "autograd"),
        ('missing term', 'checks.trusted_grads', "want['central differences'] = ", ''),
        ('missing term', 'checks.check_dtype', "errors['value'] = ", ''),
        ('missing factor', 'checks.our_grads', 'out.g = start', 'out.g = 2*start'),
        ('wrong dtype', 'checks.check_dtype', 'copies(all_tensors(op, inputs), dtype)',
         'copies(all_tensors(op, inputs))'),
        ('missing term', 'checks.random_like', 'torch.Generator().manual_seed(SEED)',
         'torch.default_generator'),
        ('loose check', 'checks.random_like', 'manual_seed(SEED)', 'manual_seed(0)'),
        ('loose check', 'checks.SEED', 'SEED = ', 'SEED = 1 or '),
        ('missing factor', 'checks.random_like', 'torch.randn(out.shape, generator=g, dtype=torch.float64)',
         'torch.ones(out.shape)'),
        ('shared memory', 'checks.our_grads', 'mine = copies(tensors)', 'mine = dict(tensors)')],
    bad_layers_do_not: [
        ('loose check', 'checks.check_dtype',
         "our_grads(op, out_g, **inputs) if hasattr(op, 'backward') else want.pop('autograd')",
         "want['autograd']"),
        ('loose check', 'checks.check_dtype', 'check_grads(got, grads, limit, name, source)',
         'check_grads(grads, grads, limit, name, source)'),
        ('loose check', 'checks.check_dtype', 'check_close(out, value,', 'check_close(value, value,'),
        ('loose check', 'checks.check_dtype', 'for source, grads in want.items():\n        limit',
         'for source, grads in list(want.items())[:1]:\n        limit'),
        ('loose check', 'checks.check_dtype', 'DIFFERENCE_TOLERANCE if', '1. if'),
        ('loose check', 'checks.check_op', '(torch.float64, torch.float32)', '(torch.float64,)'),
        ('loose check', 'checks.check_op', '(torch.float64, torch.float32)', '(torch.float32, torch.float64)'),
        ('no check', 'checks.check_dtype', 'if unknown := set(constants) - tensors.keys()', 'if unknown := ()'),
        ('shared memory', 'checks.copies', 'copy=True', 'copy=False'),
        ('no check', 'checks.our_grads',
         "check_unchanged(op, {**mine, 'out.g': getattr(out, 'g', start)}",
         "check_unchanged(op, {**tensors, 'out.g': start}"),
        ('no check', 'checks.our_grads', "'out.g': getattr(out, 'g', start)", "'out.g': start"),
        ('missing term', 'checks.copies', 'if isinstance(t, torch.Tensor) else t', 'if is_float(t) else t'),
        ('loose check', 'checks.check_op', "if hasattr(op, 'backward'): check_adds(op, out_g, inputs)", 'pass'),
        ('loose check', 'checks.check_adds', 'pass_on(other)\n', 'pass\n'),
        ('= for +=', 'checks.check_adds', 'check_grads(pass_on(now), twice', 'check_grads(twice, twice'),
        ('= for +=', 'checks.check_adds', '2*g for', 'g for'),
        ('no check', 'checks.output_of', 'check_unchanged(op, mine, inputs)', 'pass'),
        ('no check', 'checks.check_unchanged',
         'not torch.allclose(now[k], t, 0, 0, equal_nan=True)', 'now[k].shape != t.shape'),
        ('missing term', 'checks.our_grads', "if hasattr(twin, 'backward'): twin.backward()", 'pass')],
}

rows = [(prop, *row) for prop, some in mutants.items() for row in some]


# ---- the tests

@pytest.mark.parametrize('prop', mutants, ids=lambda p: p.__name__)
def test_the_library_has_the_property(prop):
    with Library() as lib: prop(lib)


@pytest.mark.parametrize('prop,kind,where,old,new', rows, ids=[f'{p.__name__}-{w}-{k}' for p, k, w, *_ in rows])
def test_the_bug_is_found(prop, kind, where, old, new, record_property):
    record_property('mutant', kind)                    # counted at the end of the run, by conftest.py
    kill(prop, where, old, new)


def unproved(exported, rows):
    "Exported names without a row"
    return sorted(set(exported) - {where for _, _, where, *_ in rows})


def own_names(module):
    "What the module exports, less what it passes on from another"
    return [name for name in module.__all__
            if getattr(getattr(module, name), '__module__', module.__name__) == module.__name__]

exported = [f'{m}.{name}' for m in modules for name in own_names(importlib.import_module(f'backprop13.{m}'))]

def test_every_exported_operation_has_a_mutant(): assert unproved(exported, rows) == []

def test_an_operation_without_a_mutant_is_found():
    assert unproved([*exported, 'backprop.Sigmoid'], rows) == ['backprop.Sigmoid']


def test_a_survivor_a_crash_and_a_stale_row_are_found():
    row = 'backprop.lin', 'return out + b'
    assert 'lin, value: relative error' in kill(lin_is_right, *row, 'return out - b')
    with pytest.raises(pytest.fail.Exception, match='lin_is_right did not see'):
        kill(lin_is_right, *row, 'return b + out')
    with pytest.raises(pytest.fail.Exception, match='which is no kill: NameError'):
        kill(lin_is_right, *row, 'return out + c')
    for where, old in [('backprop.lin', 'out * b'), ('backprop.lin', 'b'), ('backprop.line', 'out')]:
        with pytest.raises(AssertionError, match='stale row'): mutated(where, old, '')
    with Library(backprop=mutated(*row, 'return out - b')) as lib:
        # every module sees the changed one
        assert lib.minibatch.Module is lib.backprop.Module is not backprop.Module
    assert not [k for k in sys.modules if k.startswith('mutant')]
