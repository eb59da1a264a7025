"The exported forward and backward passes: right on every shape, and lean on all 50 000 images."
import subprocess, sys

import pytest, torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from backprop13.backprop import Lin, Linear, Model, Mse, Relu, forward_and_backward, lin, lin_grad, mse, relu
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
                          ((x, torch.zeros(3), b), 'do not fit')]:
        with pytest.raises(ValueError) as e: lin(*args)
        assert 'lin: ' in str(e.value) and message in str(e.value)
    for a, t in [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (1, 1)), ((4, 1), ()), ((4, 1), (3, 1))]:
        with pytest.raises(ValueError, match='mse: output'): mse(torch.zeros(a), torch.zeros(t))
    assert relu(torch.tensor([0.])).item() == 0
