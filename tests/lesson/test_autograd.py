"""backprop13.autograd against PyTorch and SymPy on graphs that no card names: random ones, very
long ones, and how often each node is visited."""
import gc, weakref

import pytest, sympy as sp, torch
from hypothesis import Phase, assume, given, settings, strategies as st
import backprop13.autograd as autograd
from backprop13.autograd import Tensor, backward_order, grad, hvp, jvp, no_grad
from backprop13.backprop import lin, mse, relu

WITHIN = {torch.float64: 1e-12, torch.float32: 1e-5}


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# ---- random graphs

ONE = [lambda a: a.relu(), lambda a: (a*a + 1).log(), lambda a: (-a*a).exp(), lambda a: a/(a*a + 2),
       lambda a: a.mean(0, keepdim=True),
       lambda a: a.sum(1, keepdim=True)/3, lambda a: a.reshape(-1)[:3].reshape(1, 3), lambda a: a*.5 - 1,
       lambda a: a[[0, 0, -1]],
       lambda a: (a*a + 1)**-.5, lambda a: a.t().reshape(-1)[:1].reshape(1, 1)]
TWO = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a*b/2, lambda a, b: a/(b*b + 1), lambda a,
       b: (a*a).t() @ b/4]


def grown(leaves, steps):
    """A graph from steps: an operation, a value anywhere before, so that some are used often, and
    one of the last four; what doesn't fit is left out"""
    made = list(leaves)
    for k, a, b in steps:
        f, a, b = (ONE + TWO)[k], made[a % len(made)], made[-1 - b]
        try: made.append(f(a) if f in ONE else f(a, b))
        except (ValueError, RuntimeError, IndexError):
            continue          # shapes that don't fit, of both engines
    return made

STEP = st.tuples(st.integers(0, len(ONE + TWO) - 1), st.integers(0, 59), st.integers(0, 3))
# long ones as often as short ones
STEPS = st.integers(2, 56).flatmap(lambda n: st.lists(STEP, min_size=n, max_size=n))
GRAPHS = dict(steps=STEPS, ends=st.tuples(st.integers(0, 59), st.integers(0, 59)), seed=st.integers(0, 99),
              dtype=st.sampled_from(list(WITHIN)))

def is_pytorchs(steps, ends, seed, dtype):
    "Values, gradients and their sums over two calls, back from three of at most 60 values"
    values = [normal(*s, seed=9*seed + i, dtype=dtype) for i, s in enumerate(((3, 3), (1, 3), (3, 1), (1, 1)))]
    ours, theirs = [Tensor(v) for v in values], [v.clone().requires_grad_() for v in values]
    made, their = grown(ours, steps), grown(theirs, steps)
    assert len(made) == len(their) <= 60
    top = max(t.detach().abs().max() for t in their)
    assume(top < 100)                                                    # else rounding is all that is left
    picks = [e % len(made) for e in ends] + [-1]
    loss, want = (sum((ms[i]*ms[i]).mean() for i in picks) for ms in (made, their))
    def near(got, wanted, scale):
        torch.testing.assert_close(got, wanted, rtol=WITHIN[dtype], atol=WITHIN[dtype]*scale)
    for o, w in zip(made, their): near(o.data, w.detach(), max(1, top.item()))
    wanted = torch.autograd.grad(want, theirs, materialize_grads=True)
    scale = max(1, top.item())*max(1, *(w.abs().max().item() for w in wanted))
    for _ in range(2): loss.backward()                                   # leaves add up, the rest starts anew
    for a, w in zip(ours, wanted): near(a.g if a.g is not None else 0*a.data, 2*w, 2*scale)
    for g, w in zip(grad(loss, ours), wanted): near(g.data, w, scale)

# the same graphs in every run
SAME = dict(derandomize=True, deadline=None, database=None, report_multiple_bugs=False)

test_random_graphs_are_as_pytorchs = settings(max_examples=150, **SAME)(given(**GRAPHS)(is_pytorchs))


def test_random_graphs_are_told_from_wrong_ones(monkeypatch):
    "The mutant: an order by distance"
    def nearest_first(out):
        order = [out]
        for v in order: order += dict.fromkeys(a for a, _ in v.made_of if a not in order)
        return order
    monkeypatch.setattr(autograd, 'backward_order', nearest_first)
    with pytest.raises((AssertionError, KeyError)):
        settings(max_examples=30, phases=[Phase.generate], **SAME)(given(**GRAPHS)(is_pytorchs))()


# ---- second derivatives

def small(x, w): return ((x @ w).relu()**2).mean() + (x*x + 1).log().sum()*(w.exp()).sum()/9


def test_second_derivatives_are_those_of_torch_func():
    x, w, u, v = normal(3, 4), normal(4, 2, seed=1), normal(3, 4, seed=2), normal(4, 2, seed=3)
    torch.testing.assert_close(tuple(hvp(small, [x, w], [u, v])),
                               torch.func.jvp(torch.func.grad(small, (0, 1)), (x, w), (u, v))[1])
    full = torch.func.hessian(small, (0, 1))(x, w)
    for i in range(x.numel()):                                           # the Hessian, a column at a time
        one = torch.eye(x.numel(), dtype=x.dtype)[i].reshape(x.shape)
        col = hvp(small, [x, w], [one, torch.zeros_like(w)])
        for k in range(2): torch.testing.assert_close(col[k], full[k][0].flatten(-2)[..., i])
    torch.testing.assert_close(jvp(small, [x, w], [u, v]), torch.func.jvp(small, (x, w), (u, v)))


@pytest.mark.parametrize('f', [lambda x, y, exp, log: exp(x*y)/(x*x + y), lambda x, y, exp,
                               log: log(x*x + y)*x**3 - y/x,
                               lambda x, y, exp, log: exp(log(y)*x) + (x + y)**-2])
def test_derivatives_to_the_third_are_sympys(f):
    at = dict(x=.7, y=1.3)
    X, Y = sp.symbols('x y')
    x, y = (Tensor(torch.tensor(v, dtype=torch.float64)) for v in at.values())
    ours, theirs = f(x, y, Tensor.exp, Tensor.log), f(X, Y, sp.exp, sp.log)
    for wrt, symbol in ((x, X), (y, Y), (x, X)):
        ours, theirs = grad(ours, [wrt], create_graph=True)[0], sp.diff(theirs, symbol)
        assert abs(ours.item() - float(theirs.subs({X: at['x'], Y: at['y']}))) < 1e-11*max(1, abs(ours.item()))


# ---- size

def test_a_long_chain_needs_no_recursion():
    x = Tensor(torch.tensor(1.))
    y = x
    for i in range(100_000): y = y + 1.
    y.backward()
    assert x.g == 1
    seen = weakref.ref(y)
    del y
    assert seen() is None                                                # and goes at once, without recursion


@pytest.mark.parametrize('depth', (10, 20, 40))
def test_each_rule_is_used_once(depth):
    "2**depth paths, 2 arrows a value: counted, not timed"
    used = []
    def doubled(a): return autograd.result(a.data*2, *[(a, lambda g: (used.append(1), g)[1])]*2)
    x = Tensor(torch.tensor(1., dtype=torch.float64))
    y = x
    for i in range(depth): y = doubled(y)
    assert len(list(backward_order(y))) == depth + 1
    y.backward()
    assert len(used) == 2*depth and x.g == 2.**depth


def test_a_training_step_leaves_nothing():
    gc.collect(); gc.disable()
    try:
        x, targ = normal(8, 4), normal(8, 1)
        weights = [Tensor(normal(*s)) for s in ((4, 5), (5,), (5, 1), (1,))]
        def step():
            loss = mse(lin(relu(lin(x, *weights[:2])), *weights[2:]), targ)
            loss.backward(); grad(loss, weights, create_graph=True)
            for w in weights: w.g = None
        def alive(): return sum(type(o) is Tensor for o in gc.get_objects())
        step()
        before = alive()
        for i in range(5): step()
        assert alive() == before
    finally: gc.enable()


def test_five_seeds_train_as_pytorch_trains():
    def losses(seed, make, g):
        x, y = normal(40, 6, seed=99), torch.arange(40) % 3
        w1, b1, w2, b2 = ws = [make(normal(*s, seed=seed)/2) for s in ((6, 8), (8,), (8, 3), (3,))]
        for step in range(30):
            logits = lin(relu(lin(x, w1, b1)), w2, b2)
            loss = (logits.exp().sum(1).log() - logits[torch.arange(len(y)), y]).mean()
            loss.backward()
            for w in ws:
                w.data -= .3*getattr(w, g)
                setattr(w, g, None)
            yield loss.item()
    for seed in range(5):
        ours = torch.tensor([*losses(seed, Tensor, 'g')])
        torch.testing.assert_close(ours, torch.tensor([*losses(seed, torch.Tensor.requires_grad_, 'grad')]),
                                   rtol=1e-9, atol=0)
        assert ours[-1] < ours[0]


def test_torchs_own_autograd_stays_out():
    x = torch.ones(3, requires_grad=True)
    y = (Tensor(x)*x.detach()).sum()
    assert not y.data.requires_grad
    with no_grad(): assert torch.is_grad_enabled()
