"""Checks, derivatives and the ledger, with seeded bugs and the property that must kill each. (Chapters' definitions
have cards.) A bug is a change to one place of the source, made in memory; the package is executed anew with it, and the
property must raise AssertionError. A crash of another kind is no kill."""
import contextlib, io, itertools, sys
from types import SimpleNamespace

import pytest, torch
import torch.nn.functional as F

from backprop13 import backprop, minibatch
from backprop13.support import checks
from backprop13.support.checks import autograd_grads, check_grads, check_op
from backprop13.support.ledger import ENTRIES
from helpers import Library, f64, inf, kill, mutated, nan, planted, rand, refuses, rows_of

# ---- inputs

def layer_data(n, m, nh): return rand(n, m, seed=1), rand(m, nh, seed=2), rand(nh, seed=3)

# ---- the properties, each a function of the library

def fails(message, f, *args, **kw):
    "`f` must raise an `AssertionError` that says `message`"
    try: f(*args, **kw)
    except Exception as e:
        assert isinstance(e, AssertionError) and message in str(e), f'{e!r}\nwanted: {message}'
    else: raise AssertionError(f'{f.__name__} let pass what it must find: {message}')

def errors_are_relative(lib):
    off = lib.checks.relative_error
    for scale in (1e-300, 1e-5, 1., 1e300):
        want = rand(3, 3)*scale
        for change, error in [(1, 0.), (-1, 2.), (3, 2.), (1 + 1e-6, 1e-6)]:
            assert abs(off(want*change, want) - error) < 1e-9, (scale, change)
        assert off(want*0, want) == 1 and off(want, want*0) == inf
    assert off(want*0, want*0) == 0
    assert abs(off(torch.tensor([3., 4.2]), torch.tensor([3., 4.])) - .04) < 1e-6        # in the 2-norm
    refuses(ValueError, 'no entries', off, want[:0], want[:0])
    refuses(TypeError, 'wanted floating point', off, torch.ones(3).int(), torch.ones(3).int())

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
    for f in lambda x: x.prod(), lambda x: x.sin().mean(), torch.tanh, lambda x: x.t() @ x, lambda x: 1e6*x + 1:
        for shape in (1, 1), (1, 3), (4, 1), (4, 3): assert max(lib.checks.check_op(f, x=rand(*shape)).values()) < 1e-8
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
    model, targ = backprop.Model(w, b, rand(3, 1), rand(1)), rand(4, 1)
    model(x, targ)
    model.backward()                                                 # gradients from before don't count, and stay
    tensors = lib.checks.all_tensors(model, dict(x=x, targ=targ))
    before = {k: (t, t.clone(), t.g) for k, t in tensors.items() if k != 'targ'}
    check(model, constants=['targ'], x=x, targ=targ)
    assert all(t.equal(was) and t.g is g for t, was, g in before.values()) and not hasattr(targ, 'g')

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
    i, j, k, y, p, delta = D.i, D.j, D.k, D.y, D.p, D.sp.KroneckerDelta
    def column(a, b): return D.sp.Sum(g[i, a]*x[i, b], (i, 1, n))
    for a, b in ((x[i, j], x[j, i]), (x[r, s], -x[r, s]), (x[r, s]/n, x[r, s]), (x[r, s], x[r, s] + 1e-6),
                 (D.pick(D.chain(D.OPERATIONS['lin'], D.slope(D.OPERATIONS['lin'], D.b))), g[r, s]),
                 (column(s, r), g[r, s]*x[r, r]), (column(s, r), column(r, s)), (p[i, k], D.sp.exp(x[i, k])),
                 (delta(s, y[r]), delta(r, y[s])), (D.gate(x[i, j]), D.sp.Integer(1)), (x[r, s]/4, x[r, s]/n),
                 (x[r, s]/n, x[r, s]/D.nh), (2*x[r, s], n*x[r, s]), (x[i, j]/3, x[i, j]/D.m),
                 (x[i, j]/D.c, x[i, j]/D.m), (1e-13*x[r, s], -1e-13*x[r, s])):
        assert D.same(a, a) and D.same(b, b) and not D.same(a, b) and not D.same(b, a), (a, b)
        fails('is not the same as', D.derivation, 'y', a, (b, 'why'))
    op, mse = D.OPERATIONS['lin'], D.OPERATIONS['mse']
    for arg in op.forms: assert not D.matrix_form_agrees(op._replace(forms={arg: -op.forms[arg]}), arg)
    for form in (mse.forms[x]*n/2, mse.forms[x]*n/4):
        assert not D.matrix_form_agrees(mse._replace(forms={x: form}), x)
    a, w, h = (D.matrix(o, 3, 3) for o in 'xwg')
    for wrong in ({x: h*w, D.w: a*h, D.b: D.matrix('g', n, D.nh)},          # a transpose or a sum is missing
                  {x: op.forms[x][:1, :]}):                                 # one row of them
        for arg in wrong: assert not D.matrix_form_agrees(op._replace(forms=wrong), arg)
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
    for b, why in (lambda g: g, 'got shape'), (lambda g: g.sum(0).float(), 'got dtype'):     # never forgiven
        fails(why, worst, ours=dict(wrong=lambda g, x, w, _: [g @ w.t(), x.t() @ g, b(g)]))
    out = D.b[D.k] + D.sp.Sum(2*D.x[D.i, D.j]*D.w[D.j, D.k], (D.j, 1, D.m))
    wrong = L.compare('lin', op=D.OPERATIONS['lin']._replace(out=out), count=8)
    assert L.worst_of(wrong, D.w)['formula'] > .1 > 1e-9 > L.worst_of(wrong, D.b)['formula']
    assert L.disagreement(torch.full((2,), 1e-9, dtype=f64), torch.zeros(2, dtype=f64), 'x') == inf
    sizes = [tuple(q.values()) for q in L.shapes()]
    assert len(sizes) == 40 and (1, 1, 1, 1) in sizes
    assert all(any(q[i] == 1 and q.count(1) == 1 for q in sizes[:5]) for i in range(4))
    new = SimpleNamespace(__all__=['Lin', 'cube'], Lin=Nan, cube=abs, _Once=Once)
    assert L.without_row(dict(data=new)) == ['data.Lin', 'data._Once']
    assert L.without_row(dict(fit=new)) == ['fit.Lin', 'fit.cube', 'fit._Once']
    class report(B.Module):                                                  # a name that is excused if it is no layer
        def bwd(self, out, inp): pass
    for module in 'data', 'fit':
        assert L.without_row({module: SimpleNamespace(__all__=['report'], report=report)}) == [f'{module}.report']

# ---- the bugs

DERIVATIVES = {
    formulas_are_right: [
        ('sign', "OPERATIONS['nll']", '-sp.Sum', 'sp.Sum'),
        ('sign', "OPERATIONS['cross_entropy']", '_p - _Y', '_p + _Y'),
        ('sign', "OPERATIONS['mse']", "x[i, k] - t[i, k]", "x[i, k] + t[i, k]"),
        ('missing 1/n', "OPERATIONS['mse']", '(i, 1, n))/(n*c)', '(i, 1, n))/n'),
        ('missing 1/n', "OPERATIONS['cross_entropy']", '(_p - _Y)/n', '_p - _Y'),
        ('missing 1/n', "OPERATIONS['nll']", '(i, 1, n))/n', '(i, 1, n))'),
        ('missing factor', "OPERATIONS['mse']", '{x: 2/(n*c)*', '{x: 1/(n*c)*'),
        ('missing factor', 'chain', 'g[at]*slopes', 'slopes'),
        ('missing term', "OPERATIONS['softmax']", '_g - _q', '_g'),
        ('missing term', "OPERATIONS['log_softmax']", 'x[i, k] - sp.log(_exp_sum)', 'x[i, k]'),
        ('wrong axis', "OPERATIONS['lin']", 'b[k] +', 'b[i] +'),
        ('wrong axis', "_exp_sum", 'x[i, j]', 'x[j, i]'),
        ('wrong axis', 'slope', 'arg[(r, s)', 'arg[(s, r)'),
        ('no check', 'slope', 'if op.out.has(r, s)', 'if False'),
        ('loose check', 'picked', ' and limit[1] == 1 and limit[2] in (n, m, nh, c)', ''),
        ('missing sum(0)', 'chain', '*reversed(op.axes)', '*((q, a, a) for q, a, _ in op.axes)'),
        ('gate on the wrong side', 'rect', 'return gate(self.args[0])',
         'return gate(-self.args[0])'),
        ('wrong place', 'From1', 'int(q) - 1', 'int(q)'),
        ('no check', 'From1', 'if min(at) < 0', 'if False')],
    the_formulas_slope_at_0_is_0: [
        ('gate on the wrong side', 'gate', 'z > 0', 'z >= 0'),
        ('gate on the wrong side', 'compiled', 'float(z > 0)', 'float(z >= 0)')],
    formulas_are_told_apart: [
        ('loose check', 'agree', 'rel_tol=1e-9', 'rel_tol=1e-3'),
        ('loose check', 'agree', 'abs_tol=1e-15', 'abs_tol=1e-9'),
        ('loose check', 'agree', 'product((1, 2), repeat', 'product((1,), repeat'),
        ('loose check', 'same', 'for sizes in SIZES', 'for sizes in SIZES[:1]'),
        ('loose check', 'SIZES', '{n: 2, m: 3, nh: 4, c: 5}, {n: 4, m: 2, nh: 5, c: 3}',
         '{n: 2, m: 3, nh: 2, c: 3}, {n: 3, m: 2, nh: 3, c: 2}'),
        ('no check', 'derivation', 'if not same(a, b)', 'if False'),
        ('loose check', 'matrix_form_agrees', 'if not agree(', 'if False and agree('),
        ('no check', 'matrix_form_agrees', 'if form.shape != (1,)*(2 - len(shape)) + shape',
         'if False'),
        ('loose check', 'matrix_form_agrees', 'for sizes in SIZES:', 'for sizes in SIZES[:1]:'),
        ('no check', 'evaluate', 'if missing', 'if False')],
}

LEDGER = {
    the_ledger_sees: [
        ('loose check', 'disagreement', "float('inf') if error != error else error", 'error'),
        ('loose check', 'disagreement', '<= 1e-12 and got.norm()', '<= 1e-12 or got.norm()'),
        ('loose check', 'compare', 'max(row[way], ', 'min(row[way], '),
        ('loose check', 'compare', 'disagreement(a, b,', 'disagreement(b, b,'),
        ('loose check', 'compare', 'through(entry.torch)', 'through(entry.forward)'),
        ('loose check', 'compare', 'measured(entry.forward)', 'measured(entry.torch)'),
        ('no check', 'compare', 'assert len(got) >= len(op.args)', 'assert True'),
        ('shared memory', 'compare', 'None if out_g is None else out_g.clone()', 'out_g'),
        ('no check', 'by', 'assert kept', 'assert True'),
        ('missing term', 'shapes', '*edges, ', ''),
        ('missing term', 'shapes', 'dict.fromkeys(names, 1)', 'dict.fromkeys(names, 2)'),
        ('missing term', 'without_row', ', *layers]', ']'),
        ('missing term', 'without_row', 'module.__all__ if is_chapter(module) else []', '[]'),
        ('no check', 'without_row', 'rows.get(name) is not o', 'name not in rows'),
        ('no check', 'without_row', ' and not has_bwd(o)', ''),
        ('wrong axis', 'worst_of', 'max(errors[way]', 'min(errors[way]')],
}

CHECKS = {
    errors_are_relative: [
        ('loose check', 'relative_error',
         '((a/largest - b/largest).norm()/(b/largest).norm())', '(a - b).norm()'),
        ('loose check', 'relative_error', '(b/largest).norm())', '(a/largest).norm())'),
        ('loose check', 'relative_error', '/(b/largest).norm()',
         '/((a/largest).norm() + (b/largest).norm())'),
        ('sign', 'relative_error', '(a/largest - b/largest)', '(a.abs()/largest - b.abs()/largest)'),
        ('overflow', 'relative_error', 'largest = b.abs().max()', 'largest = b.abs().max().clamp(1, 1)'),
        ('loose check', 'relative_error', "0. if torch.equal(a, b) else float('inf')", '0.'),
        ('no check', 'relative_error', 'if not want.numel()', 'if False'),
        ('no check', 'relative_error', 'if not want.is_floating_point()', 'if False')],
    shapes_and_dtypes_count: [
        ('no check', 'relative_error', 'if tuple(got.shape) != tuple(want.shape)', 'if False'),
        ('keepdim dropped', 'relative_error', 'tuple(got.shape) != tuple(want.shape)',
         'got.numel() != want.numel()'),
        ('no check', 'relative_error', 'if got.dtype != want.dtype', 'if False')],
    nan_never_passes: [
        ('loose check', 'check_close', 'not error <= limit', 'error > limit'),
        ('loose check', 'relative_error', 'a, b = got.double(), want.double()',
         'a, b = got.double().nan_to_num(), want.double().nan_to_num()'),
        ('wrong place', 'check_close', ".nan_to_num(float('inf'))", '.nan_to_num(0)')],
    every_gradient_counts: [
        ('loose check', 'check_grads', 'return max(', 'return min('),
        ('loose check', 'check_grads', 'for k in want)', 'for k in list(want)[:1])'),
        ('loose check', 'check_grads', 'for k in want)', 'for k in list(want)[1:] or want)'),
        ('no check', 'check_grads', 'got.keys() != want.keys()', 'not got.keys() <= want.keys()'),
        ('no check', 'check_grads', 'got.keys() != want.keys()', 'not got.keys() >= want.keys()'),
        ('no check', 'check_grads', 'if not want:', 'if False:'),
        ('no check', 'check_close', 'if limit is None', 'if False'),
        ('loose check', 'TOLERANCE', '1e-9', '1e-6'),
        ('loose check', 'TOLERANCE', '1e-4', '1e-2'),
        ('loose check', 'check_close', 'TOLERANCE.get(want.dtype) if tolerance is None else tolerance',
         'tolerance or TOLERANCE[want.dtype]')],
    a_message_says_what_and_where: [
        ('wrong place', 'check_close', '.argmax()', '.argmin()'),
        ('sign', 'check_close', 'got {got[at]:.4g}, wanted {want[at]:.4g}',
         'got {want[at]:.4g}, wanted {got[at]:.4g}'),
        ('wrong place', 'show_values', '[:n]', '[-n:]'),
        ('wrong place', 'op_name', "getattr(op, '__name__', type(op).__name__)", "type(op).__name__")],
    signs_have_stand_ins: [('wrong call', 'printable', 'coding, _PLAIN', "coding, 'replace'"),
                           ('wrong call', 'printable', "getattr(sys.stdout, 'encoding', None)", 'None')],
    differences_are_central: [
        ('one-sided', 'difference_grads', 'at(x - step), at(x)', 'at(x), at(x)'),
        ('one-sided', 'difference_grads', 'at(x + step), at(x - step)', 'at(x), at(x - step)'),
        ('wrong step', 'STEP', '(1/3)', '(1/2)'),
        ('wrong step', 'STEP', '(1/3)', '(1/5)'),
        ('sign', 'difference_grads', 'high - low', 'low - high'),
        ('missing factor', 'difference_grads', '/(right - left)', '/step'),
        ('missing factor', 'difference_grads', '/(right - left)', '/(2*step)'),
        ('missing factor', 'difference_grads', '*start).sum()', ').sum()'),
        ('missing sum', 'difference_grads', '((high - low)*start).sum()',
         '((high - low)*start).view(-1)[0]'),
        ('= for +=', 'difference_grads', 'at(x - step), at(x)', 'at(x - step), at(x - step)'),
        ('shared memory', 'difference_grads', 'out().clone()', 'out()'),
        ('wrong dtype', 'difference_grads', 'copies(all_tensors(f, tensors), torch.float64)',
         'copies(all_tensors(f, tensors))'),
        ('missing transpose', 'difference_grads', 'grad(t).view(t.shape)',
         'grad(t).view(t.t().shape if t.ndim == 2 else t.shape)'),
        ('loose check', 'DIFFERENCE_TOLERANCE', '1e-7', '1e-3'),
        ('no check', 'start_gradient', 'if out_g is None and not out.ndim', 'if out_g is None')],
    autograd_is_asked_right: [
        ('missing factor', 'autograd_grads', ', start, materialize',
         ', torch.ones_like(out), materialize'),
        ('no check', 'autograd_grads', 'if not out.requires_grad', 'if False'),
        ('no check', 'start_gradient',
         '(out_g.shape, out_g.dtype) != (out.shape, out.dtype)', 'out_g.dtype != out.dtype'),
        ('no check', 'start_gradient',
         '(out_g.shape, out_g.dtype) != (out.shape, out.dtype)', 'out_g.shape != out.shape'),
        ('no check', 'start_gradient', 'if not is_float(out)', 'if False')],
    held_tensors_are_found: [
        ('missing term', 'is_float', ' and t.is_floating_point()', ''),
        ('missing term', 'held_tensors', 'isinstance(o, (list, tuple))', 'isinstance(o, list)'),
        ('missing term', 'held_tensors', 'isinstance(o, dict)', 'False'),
        ('missing term', 'held_tensors', 'if id(o) in seen: return',
         'if id(o) in seen and not is_float(o): return'),
        ('wrong place', 'held_tensors', 'path = path[:-1]', 'pass'),
        ('shared memory', 'with_tensors', 'tensors.get(k, t.detach())', 't.detach()'),
        ('shared memory', 'with_tensors', 'copy.deepcopy', '(lambda o, memo: o)'),
        ('missing term', 'all_tensors', 'if id(mine[k]) in kept', ''),
        ('no check', 'all_tensors', 'if both := inputs.keys() & held.keys()', 'if both := ()')],
    calls_go_by_name: [
        ('wrong axis', 'call_op', 'return op(*bound.args, **bound.kwargs)',
         'return op(*inputs.values())'),
        ('wrong axis', 'call_op', "getattr(op, 'forward', op)", 'op'),
        ('no check', 'call_op', "{e}; got {list(inputs)}'", "'")],
    good_layers_pass: [
        ('missing term', 'check_op', '(torch.float64, torch.float32)', '(torch.float64,)'),
        ('missing term', 'trusted_grads', "want['the reference'] = autograd", "autograd"),
        ('missing term', 'trusted_grads', "want['central differences'] = ", ''),
        ('missing term', 'check_dtype', "errors['value'] = ", ''),
        ('missing factor', 'our_grads', 'out.g = start', 'out.g = 2*start'),
        ('wrong dtype', 'check_dtype', 'copies(all_tensors(op, inputs), dtype)',
         'copies(all_tensors(op, inputs))'),
        ('missing term', 'random_like', 'torch.Generator().manual_seed(SEED)',
         'torch.default_generator'),
        ('loose check', 'random_like', 'manual_seed(SEED)', 'manual_seed(0)'),
        ('loose check', 'SEED', 'SEED = ', 'SEED = 1 or '),
        ('missing factor', 'random_like', 'torch.randn(out.shape, generator=g, dtype=torch.float64)',
         'torch.ones(out.shape)'),
        ('shared memory', 'our_grads', 'mine = copies(tensors)', 'mine = dict(tensors)')],
    bad_layers_do_not: [
        ('loose check', 'check_dtype',
         "our_grads(op, out_g, **inputs) if hasattr(op, 'backward') else want.pop('autograd')",
         "want['autograd']"),
        ('loose check', 'check_dtype', 'check_grads(got, grads, limit, name, source)',
         'check_grads(grads, grads, limit, name, source)'),
        ('loose check', 'check_dtype', 'check_close(out, value,', 'check_close(value, value,'),
        ('loose check', 'check_dtype', 'for source, grads in want.items():\n        limit',
         'for source, grads in list(want.items())[:1]:\n        limit'),
        ('loose check', 'check_dtype', 'DIFFERENCE_TOLERANCE if', '1. if'),
        ('loose check', 'check_op', '(torch.float64, torch.float32)', '(torch.float64,)'),
        ('loose check', 'check_op', '(torch.float64, torch.float32)', '(torch.float32, torch.float64)'),
        ('no check', 'check_dtype', 'if unknown := set(constants) - tensors.keys()', 'if unknown := ()'),
        ('shared memory', 'copies', 'copy=True', 'copy=False'),
        ('no check', 'our_grads',
         "check_unchanged(op, {**mine, 'out.g': getattr(out, 'g', start)}",
         "check_unchanged(op, {**tensors, 'out.g': start}"),
        ('no check', 'our_grads', "'out.g': getattr(out, 'g', start)", "'out.g': start"),
        ('missing term', 'copies', 'if isinstance(t, torch.Tensor) else t', 'if is_float(t) else t'),
        ('loose check', 'check_op', "if hasattr(op, 'backward'): check_adds(op, out_g, inputs)", 'pass'),
        ('loose check', 'check_adds', 'pass_on(other)\n', 'pass\n'),
        ('= for +=', 'check_adds', 'check_grads(pass_on(now), twice', 'check_grads(twice, twice'),
        ('= for +=', 'check_adds', '2*g for', 'g for'),
        ('no check', 'output_of', 'check_unchanged(op, mine, inputs)', 'pass'),
        ('no check', 'check_unchanged',
         'not torch.allclose(now[k], t, 0, 0, equal_nan=True)', 'now[k].shape != t.shape'),
        ('missing term', 'our_grads', "if hasattr(twin, 'backward'): twin.backward()", 'pass')],
}



test_the_library_has_the_property, test_the_bug_is_found = planted(derivatives=DERIVATIVES, ledger=LEDGER,
                                                                   checks=CHECKS)


def unproved(exported):
    "What is exported, and has no row"
    return sorted(set(exported) - {where for _, _, where, *_ in rows_of(checks=CHECKS)[0]})

def test_every_export_has_a_mutant():
    def home(k): return getattr(getattr(checks, k), '__module__', checks.__name__)
    own = [f'checks.{k}' for k in checks.__all__ if home(k) == checks.__name__]
    assert unproved(own) == [] and len(own) > 9 and unproved([*own, 'checks.slopes']) == ['checks.slopes']


def test_a_survivor_a_crash_and_a_stale_row_are_found():
    def lin_is_right(lib):
        x, w, b = layer_data(5, 4, 3)
        check_op(lib.backprop.lin, lambda x, w, b: x @ w + b, x=x, w=w, b=b)
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
