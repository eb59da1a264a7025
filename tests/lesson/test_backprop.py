"What no card can hold of forward and backward passes: copies, memory, whole programs of layers and containers."
import ast, copy, gc, pickle, random, subprocess, sys, weakref
from pathlib import Path

import pytest, torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import backprop13.fitting
from backprop13 import backprop
from backprop13.backprop import Lin, Model, backward, forward_and_backward, lin, zero_grads
from backprop13.support.cards import network_of
from backprop13.support.checks import check_grads
from helpers import kill, rand, works

def test_no_batch_outlives_the_next():
    "While the layers live, nothing waits for the garbage collector."
    (model, x, targ, *_), alive = network_of(backprop), []
    gc.disable()
    try:
        for _ in range(3):
            inp = x.clone()
            loss = model(inp, targ)
            model.backward()
            outs = inp, loss, *(q.out for q in model.layers)
            alive.append([weakref.ref(t) for t in outs])
            del inp, loss, outs
        assert not any(o() is not None for o in sum(alive[:2], []))
    finally: gc.enable()


def test_a_used_model_can_be_saved_and_copied_with_its_outputs():
    model, x, targ, d, want = network_of(backprop)
    model(x, targ)
    again = pickle.loads(pickle.dumps(model))
    again.backward()
    check_grads({'w1': again.layers[0].w.g}, {'w1': want['w1']})
    assert not hasattr(d['w1'], 'g')
    x, w = rand(6, 6), rand(6, 6, seed=1)
    layer = Lin(w, torch.zeros(6).double())
    again, first, last = copy.deepcopy((layer, layer(x), layer(x + 1)))
    for out in first, last: backward(out, torch.ones_like(out))
    check_grads({'w': again.w.g}, {'w': (2*x + 1).t() @ torch.ones_like(x)})
    assert not hasattr(w, 'g')                              # what is copied together belongs together


# ---- containers, and what is used or walked back twice

def run_program(lib, seed):
    """A random program of layers, containers and losses, run and walked back twice, from some losses: pairs of
    our gradients and autograd's; of both runs together, or, if the weights move in between, of each"""
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    def r(*shape): return torch.randn(*shape, generator=g, dtype=torch.float64)
    def odd(*shape):
        "Numbers that lie in memory as they come, transposed, apart, or that are one row seen as many"
        apart = r(*(2*n for n in shape))[tuple(slice(None, None, 2) for _ in shape)]
        one_row = r(*(1 for _ in shape[1:]), shape[-1]).expand(shape)
        return [r(*shape), r(*shape[::-1]).t(), apart, one_row][rng.randrange(4 if shape[0] == 4 else 3)]
    given = dict(x=odd(4, 3), y=odd(4, 3), w=odd(3, 3), b=r(3), v=odd(3, 3), c=odd(3))
    theirs, total, found = {k: t.clone().requires_grad_() for k, t in given.items()}, 0, []
    def compare():
        got = {k: sum((q for q in (getattr(t, 'g', None), t.grad) if q is not None), torch.zeros_like(t))
               for k, t in given.items()}
        want = got.values()
        if torch.is_tensor(total): want = torch.autograd.grad(total, [*theirs.values()], materialize_grads=True)
        found.append((got, dict(zip(theirs, want))))
    B, values, refs = lib.backprop, [], []
    def linear(w, b): return B.Lin(given[w], given[b]), lambda x: x @ theirs[w] + theirs[b]
    layers = [linear('w', 'b'), linear('v', 'c'), linear('w', 'b'), (B.Relu(), torch.relu)]
    losses = [B.Mse(), B.Mse()]
    def chain(parts):
        def f(x):
            for _, part in parts: x = part(x)
            return x
        return f
    def some(): return rng.choices(layers, k=rng.randint(1, 5))
    def sequential(parts): return lib.fitting.Sequential(*(q for q, _ in parts)), chain(parts)
    for _ in range(3): layers.append(sequential(some()))     # of those before it, too

    # (what, its reference, value in, value out, targets, weight)
    steps, n = [], 2
    for kind in rng.choices(['layer', 'loss', 'model'], [4, 2, 1], k=6) + ['loss']:
        i, targ, weight = rng.randrange(n), r(4, 3), rng.choice([1., .5, -2.])
        if kind == 'loss': steps.append((rng.choice(losses), None, i, None, targ, weight))
        elif kind == 'layer': steps.append((*rng.choice(layers), i, n, None, None))
        else:
            model, parts = B.Model(*(given[k] for k in 'wbvc'), loss=rng.choice(losses)), some()
            model.layers = [q for q, _ in parts]
            steps.append((model, chain(parts), i, n, targ, weight))
        n += kind != 'loss'

    moves = rng.random() < .5
    for k in range(2):
        if k and moves:
            # a step of the weights, else without zeroing between
            compare()
            for what in [q for q, *_ in layers + steps] + losses: what.zero_grad()
            zero_grads(given['x'], given['y'])
            assert all(getattr(t, 'g', None) is t.grad is None for t in given.values()), 'zero_grad left a gradient'
            with torch.no_grad():
                for params, grads in zip((given, theirs), found[0]):
                    for q in 'wbvc': params[q] -= .1*grads[q].clamp(-1, 1)
            total = 0
        values[:], refs[:], outs = [given['x'], given['y']], [theirs['x'], theirs['y']], []
        for what, ref, i, o, targ, weight in steps:
            outs.append(out := what(values[i]) if targ is None else what(values[i], targ))
            if o: values.append(what.preds if targ is not None else out); refs.append(ref(refs[i]))
        ends = [k for k, (*_, targ, _) in enumerate(steps) if targ is not None]
        for k in rng.choices(ends, k=4):
            _, _, i, o, targ, weight = steps[k]
            B.backward(outs[k], torch.tensor(weight, dtype=torch.float64) if weight != 1 else None)
            total = total + weight*F.mse_loss(refs[o or i], targ)
    compare()
    return found


def containers_are_right(lib, seeds=range(40)):
    for seed in seeds:
        for got, want in works(run_program, lib, seed): check_grads(got, want, op=f'program {seed}')


def test_random_programs(): containers_are_right(backprop13, range(300))

@pytest.mark.parametrize('where,old,new', [
    ('backprop.backward', 'for t in (out, *order): t.g = None', 'pass'),
    ('backprop.Module', 'out.maker = self, args', 'self.was = out.maker = self, getattr(self, "was", (0, args))[1]')])
def test_random_programs_find_the_bug(where, old, new, record_property):
    "One that the cards see, too"
    record_property('mutant', 'in random programs')
    kill(containers_are_right, where, old, new)


def deaf(code):
    "Classes whose `bwd` doesn't look at the gradient that reaches its output, nor hands the output on"
    tree = ast.parse('\n'.join(line for line in code.splitlines() if not line.lstrip().startswith(('%', '!'))))
    for c in (o for o in ast.walk(tree) if isinstance(o, ast.ClassDef)):
        for f in (o for o in c.body if isinstance(o, ast.FunctionDef) and o.name == 'bwd'):
            def is_out(o): return isinstance(o, ast.Name) and o.id == 'out'
            parts = [*ast.walk(f)]
            if not any(isinstance(o, ast.Attribute) and o.attr == 'g' and is_out(o.value)
                       or isinstance(o, ast.Call) and any(map(is_out, o.args))
                       or isinstance(o, ast.Raise) for o in parts): yield c.name


def test_every_bwd_takes_the_gradient_from_behind():
    "ShortMse alone starts the chain: a PlainModule gives a loss no gradient"
    import nbformat
    nbs = Path(__file__).parents[2]/'nbs'
    found = {name for path in nbs.rglob('*.ipynb') if path.parent.name != 'practice'
             for c in nbformat.read(path, 4).cells   # stubs, copies
             if c.cell_type == 'code' and ' bwd(' in c.source for name in deaf(c.source)}
    assert found == {'ShortMse'}
    assert [*deaf('class A:\n    def bwd(self, out, x): add_grad(x, out*(1 - out))')] == ['A']


class Largest(TorchDispatchMode):
    "Remembers the size of the largest tensor that an operation returns."
    numel = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor): self.numel = max(self.numel, result.numel())
        return result


def by_modules(x, targ, *weights):
    model = Model(*weights)
    model(x, targ)
    model.backward()

def with_outer_products(x, targ, w1, b1, *_): (x.unsqueeze(-1)*lin(x, w1, b1).unsqueeze(1)).sum(0)

@pytest.mark.parametrize('rung,most', [(forward_and_backward, 64*784), (by_modules, 64*784),
                                       (with_outer_products, 64*784*50)])
def test_no_outer_products(rung, most):
    with Largest() as largest: rung(*(rand(*s) for s in ((64, 784), (64, 1), (784, 50), (50,), (50, 1), (1,))))
    assert largest.numel == most


peak = '''
import resource, sys, torch
from backprop13.backprop import forward_and_backward
x, targ = torch.rand(50000, 784), torch.rand(50000, 1)
weights = torch.randn(784, 50), torch.zeros(50), torch.randn(50, 1), torch.zeros(1)
forward_and_backward(x[:64], targ[:64], *weights)                    # what the first call loads is not its memory
def size():
    if sys.platform == 'darwin': return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # ru_maxrss begins with the parent's
    return 1024*int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
before = size()
EXTRA
forward_and_backward(x, targ, *weights)
print((size() - before)/1e6)
'''

def peak_mb(extra=''):
    out = subprocess.run([sys.executable, '-c', peak.replace('EXTRA', extra)], capture_output=True,
                         text=True, check=True)
    return float(out.stdout)


def test_memory_of_all_images():
    used = peak_mb()
    print(f'{used:.0f} MB above the data')
    # the gradient of the images alone takes 157 MB: less would mean that nothing was measured
    assert 100 < used < 500
    assert peak_mb('big = torch.ones(2*10**8)') > 500
