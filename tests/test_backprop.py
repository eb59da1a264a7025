"The exported forward and backward passes: right on every shape, and lean on all 50 000 images."
import subprocess, sys

import pytest, torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from backprop13.backprop import (Lin, Linear, Model, Module, Mse, Relu, add_grad, forward_and_backward, lin, mse, relu,
                                 zero_grads)
from backprop13.checks import autograd_grads, check_grads

shapes = [(7, 5, 3), (1, 5, 3), (7, 1, 3), (7, 5, 1), (1, 1, 1), (64, 784, 50)]      # (n, m, nh)
dtypes = [torch.float32, torch.float64]


def data(n, m, nh, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    def r(*shape): return torch.randn(*shape, generator=g, dtype=dtype)
    return dict(x=r(n, m), targ=r(n, 1), w1=r(m, nh)/m**.5, b1=r(nh), w2=r(nh, 1)/nh**.5, b2=r(1))


def trusted(d):
    want = autograd_grads(lambda x, targ, w1, b1, w2, b2: F.mse_loss((x @ w1 + b1).relu() @ w2 + b2, targ), **d)
    del want['targ']
    return want


def grads(d): return {k: v.g for k, v in d.items() if k != 'targ'}


def by_functions(x, targ, w1, b1, w2, b2): return forward_and_backward(x, targ, w1, b1, w2, b2)


def by_modules(x, targ, w1, b1, w2, b2):
    model = Model(w1, b1, w2, b2)
    loss = model(x, targ)
    model.backward()
    return loss


@pytest.mark.parametrize('dtype', dtypes)
@pytest.mark.parametrize('shape', shapes)
@pytest.mark.parametrize('rung', [by_functions, by_modules])
def test_gradients_equal_autograd(rung, shape, dtype):
    d = data(*shape, dtype)
    loss = rung(**d)
    check_grads(grads(d), trusted(d))
    want = F.mse_loss((d['x'] @ d['w1'] + d['b1']).relu() @ d['w2'] + d['b2'], d['targ'])
    torch.testing.assert_close(loss, want)


@pytest.mark.parametrize('dtype', dtypes)
@pytest.mark.parametrize('shape', shapes)
def test_linear_equals_autograd(shape, dtype):
    n, m, nh = shape
    layer = Linear(m, nh, torch.Generator().manual_seed(0)).to(dtype)
    assert (layer.w.shape, layer.b.shape) == ((m, nh), (nh,)) and len(list(layer.parameters())) == 2
    x = data(*shape, dtype)['x']
    layer(x).square().sum().backward()
    want = autograd_grads(lambda w, b: (x @ w + b).square().sum(), w=layer.w, b=layer.b)
    check_grads({'w': layer.w.grad, 'b': layer.b.grad}, want)


@pytest.mark.parametrize('dtype', dtypes)
@pytest.mark.parametrize('rung', [by_functions, by_modules])
def test_on_the_hinge_the_slope_is_0(rung, dtype):
    d = data(7, 5, 3, dtype)
    d['x'][0], d['b1'][:] = 0, 0
    rung(**d)
    check_grads(grads(d), trusted(d))


def test_several_outputs():
    "The loss is the mean over all entries, not over rows."
    d = data(7, 5, 3, torch.float64)
    g = torch.Generator().manual_seed(9)
    d |= {k: torch.randn(*s, generator=g, dtype=torch.float64) for k, s in dict(w2=(3, 4), b2=(4,), targ=(7, 4)).items()}
    for rung in (by_functions, by_modules):
        zero_grads(*d.values())
        rung(**d)
        check_grads(grads(d), trusted(d))


def test_gradients_add_up_until_zeroed():
    d = data(7, 5, 3, torch.float64)
    model, want = Model(d['w1'], d['b1'], d['w2'], d['b2']), trusted(d)
    for times in (1, 2, 3):
        model(d['x'], d['targ'])
        model.backward()
        check_grads(grads(d), {k: times*v for k, v in want.items()})
    model.backward()                                 # again, without a new forward pass
    check_grads(grads(d), {k: 4*v for k, v in want.items()})
    zero_grads(*d.values())
    assert all(t.g is None for t in d.values())
    model(d['x'], d['targ'])
    model.backward()
    check_grads(grads(d), want)
    torch.testing.assert_close(model.preds, model.predict(d['x']))


def test_the_loss_alone_adds_up_too():
    x, targ = torch.ones(3, 1), torch.zeros(3, 1)
    loss = Mse()
    loss(x, targ)
    loss.backward(); loss.backward()
    check_grads({'x': x.g}, {'x': 2*2*x/3})


def test_a_weight_used_twice():
    g = torch.Generator().manual_seed(0)
    x, targ, w = (torch.randn(6, n, generator=g, dtype=torch.float64) for n in (6, 6, 6))
    b = torch.zeros(6, dtype=torch.float64)
    steps = Lin(w, b), Relu(), Lin(w, b)
    loss, out = Mse(), x
    for step in steps: out = step(out)
    loss(out, targ)
    for step in (loss, *reversed(steps)): step.backward()
    want = autograd_grads(lambda x, w, b: F.mse_loss((x @ w + b).relu() @ w + b, targ), x=x, w=w, b=b)
    check_grads({'x': x.g, 'w': w.g, 'b': b.g}, want)


def test_a_gradient_given_to_two_tensors_is_not_shared():
    a, b, g = torch.zeros(2), torch.zeros(2), torch.ones(2)
    add_grad(a, g); add_grad(b, g); add_grad(a, g)
    assert a.g.tolist() == [2, 2] and b.g.tolist() == [1, 1] and g.tolist() == [1, 1]


def test_our_backward_leaves_no_graph_behind():
    d = data(7, 5, 3, torch.float64)
    weights = [d[k].requires_grad_() for k in ('w1', 'b1', 'w2', 'b2')]
    model = Model(*weights)
    model(d['x'], d['targ'])
    model.backward()
    assert not any(w.g.requires_grad for w in weights)


def test_linear_starts_as_it_says():
    a, b = (Linear(400, 300, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a.w, b.w) and not a.b.any() and a.w.std().item() == pytest.approx(1/20, rel=.02)


def test_misuse_is_explained():
    class Half(Module): pass
    for call, message in [(lambda: Half()(1), 'Half must define forward'), (lambda: Half().bwd(1), 'Half must define bwd'),
                          (lambda: Relu().backward(), 'Relu: call it on its inputs before backward()'),
                          (lambda: add_grad(torch.zeros(2), torch.zeros(3)), 'they must be equal')]:
        with pytest.raises((NotImplementedError, RuntimeError, ValueError)) as e: call()
        assert message in str(e.value)
    act = Relu()
    act(torch.ones(2))
    with pytest.raises(RuntimeError, match='Relu: no gradient has reached its output'): act.backward()


# Mistakes that the comparison must find: each replaces one piece of the backward pass.
class NoTranspose(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); inp.g = out.g @ self.w
class NoSum(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.b.g = out.g
class Mean(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.b.g = out.g.mean(0)
class WrongSign(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.w.g = -self.w.g
class WrongDtype(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.w.g = self.w.g.float()
class WrongGate(Relu):
    def bwd(self, out, inp): inp.g = out.g*(inp < 0)
class NoGate(Relu):
    def bwd(self, out, inp): inp.g = out.g
class NoMean(Mse):
    def bwd(self, out, inp, targ): inp.g = 2*(inp - targ)
class NoTwo(Mse):
    def bwd(self, out, inp, targ): inp.g = (inp - targ)/len(inp)

mutants = [(0, NoSum), (0, Mean), (0, WrongSign), (0, WrongDtype), (2, NoTranspose), (2, NoSum), (2, WrongSign),
           (1, WrongGate), (1, NoGate), ('loss', NoMean), ('loss', NoTwo)]

@pytest.mark.parametrize('place,mutant', mutants)
def test_mutants_are_found(place, mutant):
    d = data(7, 5, 3, torch.float64)
    model = Model(d['w1'], d['b1'], d['w2'], d['b2'])
    if place == 'loss': model.loss = mutant()
    elif place == 1: model.layers[1] = mutant()
    else: model.layers[place] = mutant(model.layers[place].w, model.layers[place].b)
    model(d['x'], d['targ'])
    with pytest.raises((AssertionError, RuntimeError)):      # RuntimeError: a missing transpose that doesn't even fit
        model.backward()
        check_grads(grads(d), trusted(d))


class Largest(TorchDispatchMode):
    "Remembers the size of the largest tensor that an operation returns."
    numel = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor): self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize('rung', [by_functions, by_modules])
def test_no_outer_products(rung):
    n, m, nh = 64, 784, 50
    with Largest() as largest: rung(**data(n, m, nh, torch.float32))
    assert largest.numel <= n*m


def test_no_outer_products_finds_one():
    d = data(64, 784, 50, torch.float32)
    out = lin(d['x'], d['w1'], d['b1'])
    with Largest() as largest: (d['x'].unsqueeze(-1)*out.unsqueeze(1)).sum(0)
    assert largest.numel == 64*784*50


peak = '''
import resource, sys, torch
from backprop13.backprop import forward_and_backward
x, targ = torch.rand(50000, 784), torch.rand(50000, 1)
weights = torch.randn(784, 50), torch.zeros(50), torch.randn(50, 1), torch.zeros(1)
forward_and_backward(x[:64], targ[:64], *weights)                    # what the first call loads is not its memory
size = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == 'darwin' else 1024)
before = size()
EXTRA
forward_and_backward(x, targ, *weights)
print((size() - before)/1e6)
'''

def peak_mb(extra=''):
    out = subprocess.run([sys.executable, '-c', peak.replace('EXTRA', extra)], capture_output=True, text=True, check=True)
    return float(out.stdout)


def test_memory_of_all_images():
    used = peak_mb()
    print(f'{used:.0f} MB above the data')
    assert 100 < used < 500          # the gradient of the images alone takes 157 MB: less would mean that nothing was measured
    assert peak_mb('big = torch.ones(2*10**8)') > 500


def test_bad_shapes_are_refused():
    x, w, b = torch.zeros(4, 3), torch.zeros(3, 2), torch.zeros(2)
    for args, message in [((x, torch.zeros(4, 2), b), 'do not fit'), ((x, w, torch.zeros(3)), 'pass b of shape (2,)'),
                          ((x, torch.zeros(3), b), 'one row for each column'), ((torch.tensor(1.), w, b), 'do not fit')]:
        with pytest.raises(ValueError) as e: lin(*args)
        assert 'lin: ' in str(e.value) and message in str(e.value)
    for a, t in [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (1, 1)), ((4, 1), ()), ((4, 1), (3, 1))]:
        with pytest.raises(ValueError, match='mse: output') as e: mse(torch.zeros(a), torch.zeros(t))
        assert ('pass targ[:, None]' in str(e.value)) == (a == (4, 1) and t == (4,)), e.value
    with pytest.raises(ValueError, match='do not fit'): mse(torch.zeros(4, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match='empty batch'): mse(torch.zeros(0, 1), torch.zeros(0, 1))
    assert relu(torch.tensor([0.])).item() == 0
