"The twin against PyTorch: the same expressions on the same random tensors, and what planted bugs change."
import copy, inspect, json, math, os, random, re, subprocess, sys, types, warnings
from pathlib import Path

import numpy as np, pytest, torch

from backprop13 import autograd
from backprop13.support import twin as module

twin = module.as_torch()
ROOT = Path(__file__).parents[2]
SHAPES = [(), (1,), (3,), (2, 3), (3, 1), (1, 3), (3, 3), (3, 2), (2, 1, 3), (2, 3, 3), (0,), (0, 3), (4, 2, 3)]
DTYPES = ['float32', 'float32', 'float64', 'int64', 'bool']
KINDS = RuntimeError, IndexError, TypeError, ValueError, AssertionError
VALUES = [0., 1., -1., .5, 2., -3., 7.25]

# each family: expressions of tensors a, b (as drawn), c (of a's shape, bool) and a dimension d
FAMILIES = {
    'arithmetic': '''a + b; a - b; a*b; a/b; a//b; a % b; a + 2; a - 2.5; 2*a; 1.5*a; a/2; 2/a; 2 - a; a + True; a**2; a**3; a**0; a**b; -a; ~a; +a;
        a & b; a | b; a ^ b; a == b; a != b; a < b; a <= b; a > b; a >= b; a > 1; a == 1.5; a.add(b); a.add(b, alpha=2); a.sub(b); a.mul(b); a.div(b);
        torch.maximum(a, b); torch.minimum(a, b); a//2; a % 3; a*c; torch.promote_types(a.dtype, b.dtype); torch.result_type(a, b);
        (a*a).sum()*b; a + a.sum(); a*a.sum(); a*2.5 + b*True; (a*0)**(b*0)''',
    'functions': '''a.exp(); a.log(); a.abs(); abs(a); a.sign(); a.sqrt(); a.sin(); a.cos(); a.tanh(); a.sigmoid(); a.square(); a.round(); a.relu(); a.neg();
        a.log2(); torch.exp(a); torch.where(c, a, b); torch.where(c, a, 0.); torch.where(a > 0, 1, a); a.where(c, b); a.masked_fill(c, 2);
        a.masked_fill(c, -1.5); a.clamp(-1, 1); a.clamp(min=0); a.clamp(max=.5); a.isnan(); (a - a.detach()).clamp(0, 1); (a/0).isfinite(); (a*a).exp()''',
    'products': '''a @ b; a @ a; a.t() @ b; a @ a.t(); a.matmul(b); a.double() @ b; a @ b.t(); torch.einsum('ij,jk->ik', a, b); torch.einsum('ij,ij->', a, a);
        torch.einsum('bij,kj->bik', a, b); torch.einsum('i,j->ij', a, b); torch.einsum('ij->j', a);
        f.reshape(2, -1) @ torch.ones(4, 3, 2).double(); torch.ones(4, 2, 3).double() @ f.reshape(3, -1)''',
    'shapes': '''a.reshape(-1); a.reshape(3, -1); a.reshape(3, 2); a.view(-1); a.view(2, -1); a.t().view(-1); a.t().reshape(-1); a.flatten(); a.flatten(1); a.unsqueeze(d);
        a.squeeze(); a.squeeze(d); a.t(); a.T.clone(); a.mT; a.transpose(0, 1); a.transpose(0, d); a.permute(1, 0); a.permute(2, 0, 1); a.expand(3, 3); a.expand(2, 3, 3);
        a.expand(-1, 3); a.flip(0); a.flip(d); torch.stack([a, a*2]); torch.stack([a, b], 1); torch.stack([a.t(), a.t()], -1)[..., 0].t().view(-1); torch.cat([a.t(), a.t()]).view(-1); torch.cat([a, b]); torch.cat([a, b], d); torch.cat([a, a], d);
        a.view_as(b); a.sum_to_size(1, 3); torch.broadcast_shapes(a.shape, b.shape); a.shape; a.size(d); a.shape[:1]; a.numel(); len(a); a.dim(); a.t().is_contiguous();
        a.contiguous().stride(); a.t().stride(); a.expand(3, 3).stride(); a.t().contiguous(); copy.deepcopy(x.t()).view(-1); copy.deepcopy(x.expand(2, *x.shape)).view(-1); copy.deepcopy(x[..., :1]).view(-1)''',
    'sums': '''a.sum(); a.sum(d); a.sum(d, keepdim=True); a.sum((0, 1)); a.sum(-1); a.mean(); a.mean(d); a.mean(0, keepdim=True); a.norm(); a.all(); a.any(); a.all(d); a.any(0, keepdim=True);
        a.max(); a.min(); a.max(d); a.min(d); a.max(d).values; a.max(-1, keepdim=True)[1]; a.max(-1, keepdim=True).values; a.amax(d); a.amin(); a.amax((0, 1)); a.argmax(); a.argmax(d); a.argmin(d);
        a.argmax(-1, keepdim=True); a.sort(stable=True); a.sort(dim=d, stable=True); a.sort(dim=d, descending=True, stable=True); a.argsort(stable=True); a.logsumexp(d); a.logsumexp(-1, keepdim=True); a.log_softmax(-1); a.softmax(d); a.log_softmax(d); a.sum(dtype=torch.float64)''',
    'indices': '''a[0]; a[-1]; a[d]; a[:, 0]; a[0, 1]; a[1:]; a[:-1]; a[::2]; a[:, 1:]; a[None]; a[:, None]; a[..., None]; a[..., 0]; a[...]; a[:]; a[()]; a[1, ..., 0]; a[[0, 1]]; a[i]; a[i, i];
        a[:, i]; a[i, 0]; a[0, i]; a[0, :, i]; a[i, :, 0]; a[i[:, None], i]; a[c]; a[a > 0]; a[i, None]; a[::-1]; a[5]; a[:, 5]; a[a]; a[torch.tensor(1)]; a[:, [2, 0]]; a[1:, i];
        list(a); a.tolist(); a.item(); bool(a); int(a); float(a); 2 in a; [*a.shape]; f'{a.sum():.2f}'; range(5)[a]; a[range(2)]; a[:, range(1)]; a[range(2), i]; a[(0, 1),]; a[[]]; a[np.array([0, 1])]; a.diag()''',
    'in place': '''put(x, 0, 5); put(x, (slice(None), 1), 2.5); put(x, c, 0); put(x, i, 7); put(x, (i, i), 1); put(x, slice(1), b); put(x, slice(None), x + 1); then(put(x[0], 0, 9), x); then(put(x.t(), 0, 4), x);
        then(put(x.view(-1), 1, 3), x); x.add_(b); x.sub_(2); x.mul_(b); x.mul_(2.5); x.div_(2); x.zero_(); then(x[0].zero_(), x); x.fill_(3); x.copy_(b); x.clamp_(0); x.relu_(); x.exp_(); x.neg_(); x.tanh_(); x.sigmoid_(); x.sqrt_(); x.log_(); x.abs_(); x.square_();
        x.masked_fill_(c, 1); then(x.t().mul_(2), x); x.expand(3, 3).add_(1); x.fill_diagonal_(1); then(x.reshape(-1).add_(1), x); then(x[1:].add_(1), x); then(x[i].add_(1), x);
        x.index_add(0, i % len(x), x[i]); iadd(x, b); then(x.flatten().mul_(0), x); then(x.detach().add_(1), x); then(x.clone().add_(1), x); then(x.squeeze().add_(1), x);
        w.add_(1); held(lambda: w.add_(1)); put(w, 0, 1); w[0].mul_(2)''',
    'making': '''torch.tensor([1, 2]); torch.tensor([1., 2]); torch.tensor([True, False]); torch.tensor(3.5); torch.tensor([[1, 2.5]]); torch.tensor(a.tolist()); torch.tensor([]); torch.zeros(2, 3);
        torch.zeros((2, 3)); torch.ones(3, dtype=torch.int64); torch.ones_like(a); torch.zeros_like(a, dtype=torch.float64); torch.full((2, 2), 7); torch.full((2,), 1.5); torch.full((2,), True);
        torch.eye(3); torch.eye(2, 3); torch.arange(5); torch.arange(1, 7, 2); torch.arange(0, 1, .25); torch.arange(5.); torch.arange(3, 0, -1); torch.linspace(0, 1, 7); torch.arange(5, 0);
        torch.linspace(-1, 2, 4, dtype=torch.float64); a.new_zeros(2, 2); a.new_ones(2); a.to(b.dtype); a.to(b); a.float(); a.double(); a.long(); a.bool(); torch.as_tensor([1, 2]); torch.as_tensor(a);
        torch.from_numpy(a.detach().numpy()); a.numpy(); torch.tensor(a.detach().numpy()); torch.tensor(np.float64(2)); a.requires_grad_(); torch.tensor([a.sum(), a.sum()]); torch.tensor(2, dtype=torch.float64); torch.tensor([[1], [2, 3]]); torch.tensor('x');
        torch.equal(a, b); torch.allclose(a, b); torch.allclose(a, a); a.isclose(b); a.isclose(a + 1e-6); torch.finfo(torch.float32).eps; torch.testing.assert_close(a, a);
        torch.testing.assert_close(a, b); torch.testing.assert_close(a, a*(1 + 1e-5)); torch.testing.assert_close(a, a + 3e-6); a.requires_grad; a.is_leaf; (a*2).is_leaf; a.grad_fn is None''',
    'layers': '''F.relu(f); F.mse_loss(f, f*2); F.mse_loss(f, b.double()); F.cross_entropy(f, i[:len(f)]); F.nll_loss(f, i[:len(f)]); F.log_softmax(f, -1); F.linear(f, b); F.linear(f, f); F.softmax(f, 0); torch.sigmoid(f); F.one_hot(i); F.one_hot(i, 3); F.one_hot(f); torch.max(0, f); torch.exp(2.);
        nn.ReLU()(f); nn.Sequential(nn.ReLU(), nn.Tanh())(f); nn.Parameter(f.detach()); nn.Sequential(nn.Linear(3, 2), nn.ReLU()); [k for k, _ in nn.Sequential(nn.Linear(3, 2), nn.ReLU()).named_parameters()]''',
}
FAMILIES = {name: [e.strip() for e in text.split(';')] for name, text in FAMILIES.items()}


def case(rng, lib):
    "The names that an expression may use, the same for both libraries"
    draw = np.random.RandomState(rng.randrange(2**31))
    def tensor(shape, dtype):
        array = draw.choice(VALUES, shape) if dtype == 'float32' and draw.rand() < .3 else draw.randn(*shape)*2
        return lib.tensor(np.asarray(array).tolist(), dtype=getattr(lib, dtype)).reshape(shape)
    shape, other = rng.choice(SHAPES), rng.choice(SHAPES)
    other = shape if rng.random() < .5 else other
    a, b = tensor(shape, rng.choice(DTYPES)), tensor(other, rng.choice(DTYPES))
    recorded = rng.random() < .6
    for t in (a, b): t.requires_grad_(recorded and t.is_floating_point())
    x, f = a.detach().clone(), a.detach().double().requires_grad_()
    c = tensor(shape, 'bool')
    i = lib.tensor([rng.randrange(-1, 3) for _ in range(2)], dtype=lib.int64)
    return dict(torch=lib, np=np, nn=lib.nn, F=lib.nn.functional, a=a, b=b, c=c, x=x, f=f, i=i, d=rng.choice([0, 0, -1, 1, 1, 2]),
                w=lib.ones(3, requires_grad=True), copy=copy, put=put, then=lambda _, x: x, held=held(lib), iadd=iadd)


def put(x, i, v):
    x[i] = v
    return x

def iadd(x, b):
    x += b
    return x

def held(lib):
    def run(f):
        with lib.no_grad(): return f()
    return run


def outcome(expression, rng, lib):
    "What the expression gives, and its gradients, or the kind of error"
    space = case(rng, lib)
    try: out = eval(expression, space)
    except KINDS as e: return 'error', next(kind.__name__ for kind in KINDS if isinstance(e, kind))
    except AttributeError as e: return 'error', str(e)
    grads = []
    leaves = [space[k] for k in 'abf' if space[k].requires_grad and space[k].is_leaf]
    if isinstance(out, lib.Tensor) and out.requires_grad and out.grad_fn and leaves:
        weights = lib.arange(1, out.numel() + 1).to(out.dtype).reshape(out.shape)
        try: (out*weights).sum().backward()
        except RuntimeError as e: return 'error', 'backward ' + type(e).__name__
        grads = [leaf.grad for leaf in leaves]
    return plain(out, lib), [plain(g, lib) for g in grads], plain(space['x'], lib)


def plain(o, lib):
    "Without the library: a tensor as its dtype, its numbers, and whether autograd knows it"
    if isinstance(o, lib.Tensor): return str(o.dtype), o.requires_grad, np.array(o.detach().numpy())
    if isinstance(o, (list, tuple)): return [plain(p, lib) for p in o]
    return str(o) if not isinstance(o, float) else np.array(o)


def same(p, q, tolerance=2e-5):
    if isinstance(p, np.ndarray) and isinstance(q, np.ndarray):
        return p.shape == q.shape and np.allclose(p, q, tolerance, tolerance, equal_nan=True)
    if isinstance(p, (list, tuple)): return type(p) == type(q) and len(p) == len(q) and all(map(same, p, q))
    return p == q


def differences(lib, family, times=25, seed=0):
    "Each expression of the family that gives something else, with one case"
    found = {}
    for k, expression in enumerate(FAMILIES[family]):
        for n in range(times):
            got, want = (outcome(expression, random.Random(f'{seed} {k} {n}'), o) for o in (lib, torch))
            if not same(got, want): found.setdefault(expression, []).append((n, got, want))
    return found


# The differences that the notebook's table lists: which expressions may differ, and how
def says_so(got, want): return got[0] == 'error' and 'is not in the page' in got[1]
def refuses(got, want): return got == ('error', 'RuntimeError')
ALLOWED = [
    ('einsum of several dtypes, or of truth values', r'torch.einsum', refuses),
    ('softmax of whole numbers', r'softmax', refuses),
    ('losses of other shapes', r'F.(nll_loss|cross_entropy)', says_so)]


def row_of(expression, got, want):
    return next((row for row, pattern, how in ALLOWED if re.search(pattern, expression) and how(got, want)), None)


@pytest.fixture(autouse=True)
def quiet():
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


SEEN = set()
@pytest.mark.parametrize('family', FAMILIES)
def test_as_pytorch(family):
    found = {e: [(row_of(e, got, want), n, got, want) for n, got, want in cases]
             for e, cases in differences(twin, family).items()}
    SEEN.update(row for cases in found.values() for row, *_ in cases)
    assert not {e: case for e, cases in found.items() for case in cases if case[0] is None}


def test_each_allowed_difference_is_there():
    "And is in the notebook's table"
    for family in 'products', 'sums', 'layers':
        for e, cases in differences(twin, family).items(): SEEN.update(row_of(e, *case[1:]) for case in cases)
    assert SEEN - {None} == {row for row, *_ in ALLOWED}
    text = (ROOT/'nbs/support/twin.ipynb').read_text(encoding='utf-8')
    for row, *_ in ALLOWED: assert f'| {row} |' in text


# ---- printing and random numbers ----
PRINT = [dict(precision=4, threshold=1000, edgeitems=3, linewidth=80, sci_mode=None),
         dict(precision=2, linewidth=125, sci_mode=False), dict(edgeitems=2, threshold=20), dict(sci_mode=True)]


def printed(lib, n):
    rng = random.Random(n)
    draw, shape = np.random.RandomState(n), rng.choice([*SHAPES, (7,), (40,), (1001,), (30, 40), (3, 1000), (2, 2, 300)])
    dtype = rng.choice(DTYPES)
    array = draw.randn(*shape)*10.**draw.randint(-6, 9, shape if rng.random() < .3 else ())
    if rng.random() < .3: array = np.round(array)
    if dtype.startswith('float'):
        for value in math.inf, -math.inf, math.nan, 0.:
            if rng.random() < .2: array = np.where(draw.rand(*shape) < .2, value, array)
    array = (array > 0) if dtype == 'bool' else np.clip(np.nan_to_num(array), -1e15, 1e15) if dtype == 'int64' else array
    t = lib.tensor(np.asarray(array).tolist(), dtype=getattr(lib, dtype)).reshape(shape)
    if t.is_floating_point() and rng.random() < .4: t.requires_grad_()
    how = rng.randrange(4)
    lib.set_printoptions(**PRINT[rng.randrange(4)])
    if how == 0 and t.requires_grad: t = t.exp() if rng.random() < .5 else t.reshape(-1)
    try: return f'{t}' if how == 1 and t.ndim else repr(t)
    finally: lib.set_printoptions(**PRINT[0])


def print_differences(lib, times=2000): return [n for n in range(times) if printed(lib, n) != printed(torch, n)]


def test_prints_as_pytorch(): assert not print_differences(twin)


NAMED = '''x + 1;1 - x;x*x;x/2;x**2;-x;x@x.t();x.exp();x.log();x.tanh();x.sigmoid();x.relu();x.sum();x.sum(0);x.mean();x.mean(1);x.max();x.max(0)[0]
    x.amax(0);x.t();x.T;x.reshape(-1);x.view(6);x[0];x[1:];x[:, 0];x[[0, 1]];x[None];x[..., None];x[:];x.unsqueeze(0);x[:1].squeeze();x.expand(4, 2, 3)
    x.double();x.clone();x.where(x > 0, x);x.masked_fill(x > 0, 0);x.abs();x.sqrt();x.log_softmax(1);x.softmax(1);x.logsumexp(1);torch.stack([x, x]);torch.cat([x, x])
    x.permute(1, 0);x.transpose(0, 1);x.clamp(0, 1);F.mse_loss(x, x*2);F.cross_entropy(x, torch.tensor([0, 1]));F.linear(x, x);x.flip(0)'''


def name_differences(lib):
    "Operations whose `grad_fn` is printed by another name"
    def name(e, lib):
        x = lib.tensor([[1., 2., 3.], [4., 5., 6.]], requires_grad=True)
        return repr(eval(e, dict(torch=lib, F=lib.nn.functional, x=x)))
    return [e for e in re.split(r'[;\n]\s*', NAMED) if name(e, lib) != name(e, torch)]


def test_names_operations_as_pytorch(): assert not name_differences(twin)


def stream(lib, n):
    "Draws, one after another, from one generator or the global one"
    rng, out = random.Random(n), []
    gen = lib.Generator().manual_seed(n*7919) if n % 2 else None
    lib.manual_seed(rng.choice([n, n + 2**33, 0]))
    for _ in range(6):
        shape = rng.choice(SHAPES + [(15,), (16,), (17,), (40,), (100,)])
        kind = rng.choice(['rand', 'rand', 'randn', 'randn', 'randint', 'randperm', 'uniform_', 'normal_', 'seed', 'Linear', 'state'])
        dtype = getattr(lib, rng.choice(['float32', 'float64']))
        if kind in ('rand', 'randn'): t = getattr(lib, kind)(shape, generator=gen, dtype=dtype)
        elif kind == 'randint': t = lib.randint(rng.choice([-5, 0, 3]), rng.choice([4, 10, 1000, 2**31]), shape, generator=gen)
        elif kind == 'randperm': t = lib.randperm(rng.choice([0, 1, 2, 10, 300]), generator=gen)
        elif kind == 'seed': t = lib.manual_seed(rng.randrange(99)) and lib.rand(2)
        elif kind == 'Linear': t = lib.nn.Linear(5, 4).weight.detach()
        elif kind == 'state':
            state = lib.get_rng_state()
            first = lib.randn(3)
            lib.set_rng_state(state)
            t = lib.cat([first, lib.randn(3)])
        else: t = getattr(lib.zeros(shape, dtype=dtype), kind)(-1, 2, generator=gen)
        out.append((kind, plain(t, lib)))
    return out


def stream_differences(lib, times=400):
    "Streams that aren't the same: `rand`, `randint`, `randperm` to the bit, normal numbers to rounding"
    def close(p, q):
        (kind, (dtype, _, a)), (_, (other, _, b)) = p, q
        exact = kind in ('rand', 'randint', 'randperm', 'seed')
        return dtype == other and a.shape == b.shape and (np.array_equal(a, b) if exact else np.allclose(a, b, 1e-4, 1e-6))
    return [n for n in range(times) if not all(map(close, stream(lib, n), stream(torch, n)))]


def test_draws_what_pytorch_draws(): assert not stream_differences(twin)


# ---- the graph: short scripts that end with `out` ----
SCRIPTS = '''
x = T([1., 2.]); y = (x*x).sum(); y.backward(); y.backward()
---
x = T([1., 2.]); y = (x*x).sum(); y.backward(retain_graph=True); y.backward(); out = x.grad
---
x = T([1., 2.]); y = (x*3).sum(); y.backward(); y.backward(); out = x.grad
---
x = T([1., 2.]); (x*x).sum().backward(); g = x.grad; (x*x).sum().backward(); out = g is x.grad, g
---
x = T([1., 2.]); y = (x**3).sum(); g, = torch.autograd.grad(y, x, create_graph=True); out = torch.autograd.grad(g.sum(), x)
---
x = T([1., 2.]); y = x.tanh().exp().sum(); g, = torch.autograd.grad(y, x, create_graph=True); out = torch.autograd.grad((g*g).sum(), x)
---
x, w = T([[1., 2.], [3., 1.]]), T([[1., -1.], [.5, 2.]]); g, = torch.autograd.grad((x @ w).relu().square().sum(), w, create_graph=True); g.square().sum().backward(); out = x.grad, w.grad
---
x = T([[1., 2.], [3., 1.]]); g, = torch.autograd.grad(x.log_softmax(1)[0, 1], x, create_graph=True); (g*g).sum().backward(); out = x.grad
---
x, w = T([1., 2.]), T([3.]); out = torch.autograd.grad(x.sum(), w)
---
x, w = T([1., 2.]), T([3.]); out = torch.autograd.grad(x.sum(), [x, w], allow_unused=True)
---
x, w = T([1., 2.]), T([3.]); out = torch.autograd.grad([x.sum(), (x*x).sum()], [x, w], materialize_grads=True)
---
x = T([1., 2.]); out = torch.autograd.grad(x*2, x, torch.tensor([1., 10.]))
---
x = T([1., 2.]); out = torch.autograd.grad(x*2, x, torch.tensor([1.]))
---
x = T([1., 2.]); (x*2).backward()
---
torch.ones(2).sum().backward()
---
x = T([1., 2.]); y = x*2
with torch.no_grad(): z = x*2; out = z.requires_grad, y.requires_grad, torch.is_grad_enabled()
---
@torch.no_grad()
def f(x):
    with torch.enable_grad(): y = x*2
    return (x*2).requires_grad, y.requires_grad, torch.is_grad_enabled()
out = f(T([1.])), f(T([2.])), torch.is_grad_enabled()
---
@torch.no_grad()
def f(n): return f(n - 1) if n else torch.is_grad_enabled()
out = f(2), torch.is_grad_enabled()
---
x = T([1., 2.]); y = x*2; y.requires_grad_(False)
---
torch.tensor([1, 2]).requires_grad_()
---
x = T([1., 2.]); d = x.detach(); d[0] = 7; out = x.tolist(), d.requires_grad, d.data_ptr() == x.data_ptr()
---
x = T([1., 2.]); h = x*2; y = (h*h).sum(); h += 1; y.backward()
---
x = T([1., 2.]); h = x*2; y = (h + h).sum(); h += 1; y.backward(); out = x.grad
---
x = T([1., 2.]); h = x*2; h += x; h *= x; h.sum().backward(); out = x.grad
---
x = T([1., 2.]); y = (x*x).sum(); x.data[0] = 5; y.backward(); out = x.grad
---
x = T([1., 2.]); y = (x*x).sum()
with torch.no_grad(): x -= 1
y.backward()
---
x, c = T([1., 2., 3.]), torch.zeros(3); c[0] = x[1]*x[2]; c[1:] = x[:2]*2; (c*c).sum().backward(); out = c, x.grad
---
x = T([1., 2., 3.]); h = x*1; h[1] = 0; (h*h + h).sum().backward(); out = x.grad
---
x, c = T([1., 2., 3.]), torch.zeros(3); c[torch.tensor([2, 0])] = x[:2]; (c*c).sum().backward(); out = c, x.grad
---
x, c = T([1., 2., 3.]), torch.zeros(2, 3); c.copy_(x); (c*c).sum().backward(); out = c, x.grad
---
x = T([1., 2.]); x[0] = 3
---
x = T([[1., 2.]]); x[0].mul_(2)
---
x = T([1., 2.]); x.g = torch.ones(2); y = copy.deepcopy(x); y.g[0] = 5; out = x.g, y.g, y.requires_grad, y.is_leaf
---
x = T([1., 2.]); copy.deepcopy(x*2)
---
x = torch.arange(6.).reshape(2, 3); y = x.t(); y[0, 1] = 9; z = x.view(3, 2); z[0] = -1; out = x, y, y.stride()
---
x = torch.arange(6.).reshape(2, 3); y = x[1:]; z = x[[0]]; y += 10; z += 100; out = x, z
---
x = T([1., 2.]); out = x.numpy()
---
a = np.zeros(3); t = torch.from_numpy(a); t[0] = 1; a[1] = 2; out = t, a.tolist()
---
x = T([1., 2.]); y = (x*2).sum(); out = y.grad_fn.name(), [f and f.name() for f, _ in y.grad_fn.next_functions], x.grad_fn
---
x = T([3.]); y = x
for _ in range(3000): y = y*1.001
y.backward(); out = x.grad
---
torch.manual_seed(0); m = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(); x = torch.arange(12.).reshape(4, 3).double()/10
opt = torch.optim.SGD(m.parameters(), lr=.1, momentum=.9); out = []
for _ in range(5):
    loss = F.cross_entropy(m(x), torch.tensor([0, 1, 0, 1])); loss.backward(); opt.step(); opt.zero_grad(); out.append(loss.item())
out += [*m.parameters()] + [m.state_dict()['0.bias'], repr(m)]
---
torch.optim.SGD([], lr=.1)
---
m = nn.Linear(2, 1); n = nn.Linear(2, 1); n.load_state_dict(m.state_dict()); out = torch.equal(m.weight, n.weight), m.weight is n.weight, m.training, m.eval().training
---
out = torch.nn.functional is F, torch.float is torch.float32, {torch.float32: 1}[torch.float32], torch.ones(2).dtype == torch.float64
'''


def script_differences(lib):
    "Scripts that end otherwise, each with both ends"
    def end(text, lib):
        def T(o): return lib.tensor(o, requires_grad=True)
        space = dict(torch=lib, nn=lib.nn, F=lib.nn.functional, np=np, copy=copy, T=T)
        try: exec(text, space)
        except KINDS as e: return 'error', next(kind.__name__ for kind in KINDS if isinstance(e, kind))
        except AttributeError as e: return 'error', str(e)
        return plain(space.get('out'), lib)
    ends = {text: [end(text, o) for o in (lib, torch)] for text in SCRIPTS.split('---')}
    return {text: both for text, both in ends.items() if not same(*both)}


def test_graph_as_pytorch(): assert not script_differences(twin)


MESSAGES = '''torch.ones(2, 3) + torch.ones(4)!torch.ones(2, 3) @ torch.ones(2, 3)!torch.ones(3)[5]!torch.ones(2, 3)[0, -4]!torch.ones(3)[0, 0]!torch.ones(3).item()
    torch.ones(2, 3).view(4)!torch.ones(2, 3).t().view(6)!torch.ones(2, 2, 2).t()!bool(torch.ones(2))!len(torch.tensor(1.))!torch.ones(2).sum(3)!torch.ones(2, requires_grad=True).numpy()
    torch.ones(2, requires_grad=True).backward()!torch.ones(2).sum().backward()!torch.tensor([1]).requires_grad_()
    torch.arange(2).add_(.5)!torch.arange(3).mean()!torch.ones(3).reshape(2, 2)!torch.tensor(1.) @ torch.ones(1)!iter(torch.tensor(1.))!torch.ones(2, 3).mT.view(-1)'''


def message_differences(lib):
    "Errors that say something else than PyTorch's, in the first line"
    def said(e, lib):
        try: eval(e, dict(torch=lib))
        except KINDS as error: return str(error).splitlines()[0]
    return [(e, said(e, lib), said(e, torch)) for e in re.split(r'!|\n\s*', MESSAGES) if said(e, lib) != said(e, torch)]


def test_says_what_pytorch_says(): assert not message_differences(twin)


# ---- planted bugs: each changes one text of the module, and is seen by what stands beside it ----
BUGS = [
    ('key=lambda d: (d.kind, d.itemsize)', 'key=lambda d: (d.itemsize, d.kind)', 'arithmetic'),
    ('found is None or d.kind > found.kind', 'True', 'arithmetic'),
    ('classes[0 if o.array.ndim else 1]', 'classes[0]', 'arithmetic'),
    ('n != like.shape[i - extra])', 'n > like.shape[i - extra] + 9)', 'arithmetic'),
    ('return g.to(like.dtype)', 'return g', 'arithmetic'),
    ('lambda g: g, lambda g: -g)\ndef _mul', 'lambda g: g, lambda g: g)\ndef _mul', 'arithmetic'),
    ('lambda g: g/b, lambda g: -g*a/(b*b)', 'lambda g: g/b, lambda g: g*a/(b*b)', 'arithmetic'),
    ('operator.truediv, a, b, lambda g: g/b, lambda g: -g*a/(b*b), floating=True', 'operator.truediv, a, b, lambda g: g/b, lambda g: -g*a/(b*b)', 'arithmetic'),
    ('.masked_fill(b == 0, 0)', '', 'arithmetic'),
    ('g*more + g*same/2', 'g*more + g*same', 'arithmetic'),
    ("_refuse_bool('-', a, b)", 'pass', 'arithmetic'),
    ('g*(1 - a.tanh()**2)', 'g*(1 - a.tanh())', 'functions'),
    ('g/(2*a.sqrt())', 'g/a.sqrt()', 'functions'),
    ('lambda g: g*(a > 0), floating=False', 'lambda g: g*(a >= 0), floating=False', 'functions'),
    ('_sum_to(_kept(g, ~cond), b)', '_sum_to(_kept(g, cond), b)', 'functions'),
    ('(a >= low) & (a <= high)', '(a > low) & (a < high)', 'functions'),
    ('_sum_to(g @ b.transpose(-1, -2), a)', 'g @ b.transpose(-1, -2)', 'products'),
    ('_sum_to(a.transpose(-1, -2) @ g, b)', '_sum_to(a.transpose(-1, -2) @ g, b)*2', 'products'),
    ('key=dims.__getitem__', 'key=lambda i: i', 'shapes'),
    ('if self.numel() and not np.may_share_memory(out.array, self.array):', 'if False:', 'shapes'),
    ('if self.shape[i] == 1)', 'if self.shape[i] <= 1)', 'shapes'),
    ('if n == -1 and i >= extra', 'if n == -1', 'shapes'),
    ('lambda g: g.flip(axes)', 'lambda g: g', 'shapes'),
    ('_spread(g, kept, a)/n', '_spread(g, kept, a)', 'sums'),
    ('top/top.sum(_axes(dim, a.ndim), keepdims=True)', 'top', 'sums'),
    ("'Sum' if dim is None", "'Sum' if dim is not None", 'names'),
    ('g - a.softmax(dim)*g.sum(dim, keepdim=True)', 'g - a.softmax(dim)*g', 'sums'),
    ('np.add.at(array, index, g.array)', 'array[index] = g.array', 'indices'),
    ('_check_index(i, dim, a.shape[dim])', 'pass', 'messages'),
    ('else: picks.append(pick)', 'picks.append(pick)', 'indices'),
    ("(i.step or 1) < 0", 'False', 'indices'),
    ('if picks is None: array[basic] = 0', 'if picks is None: pass', 'graph'),
    ('a.storage.writes += 1', 'pass', 'graph'),
    ('if out.dtype.kind > a.dtype.kind:', 'if False:', 'in place'),
    ('_origin(a).made_of == ()', 'a.made_of == ()', 'graph'),
    ('old = result(a.array.copy() if watched else a.array)', 'old = result(a.array)', 'graph'),
    ('and not keep: node.read = None', 'and False: node.read = None', 'graph'),
    ('else: node.grad += g ', 'else: node.grad = node.grad + g ', 'graph'),
    ('return type(self)()', 'return self', 'graph'),
    ('waits[part] = waits.get(part, 0) + 1', 'waits[part] = 1', 'graph'),
    ('k == \'grad\' or k not in vars(out)', "k == 'grad'", 'graph'),
    ('not isinstance(data, (Tensor, np.ndarray, np.generic))', 'True', 'making'),
    ('d(max(steps - 1, 1))', 'd(max(steps, 1))', 'making'),
    ('2**-24', '2**-23', 'stream'),
    ('high << np.uint64(32) | low', 'low << np.uint64(32) | high', 'stream'),
    ('if n < 16:', 'if n < 17:', 'stream'),
    ('self.seed, self.kept = int(seed), None', 'self.seed = int(seed); self.kept = getattr(self, "kept", None)', 'stream'),
    ('if whole < n:', 'if False:', 'stream'),
    ('j = i + r % (n - i)', 'j = r % n', 'stream'),
    ('raw[::2] << np.uint64(32) | raw[1::2]', 'raw[1::2] << np.uint64(32) | raw[::2]', 'stream'),
    ('sizes.max()/sizes.min() > 1000', 'sizes.max()/sizes.min() > 5000', 'print'),
    ('sizes.min() < 1e-4', 'sizes.min() < 1e-5', 'print'),
    ("'.'*math.isfinite(v)", "'.'", 'print'),
    ('_ends(array) if short else array', 'array', 'print'),
    ('- indent)//(width + 2)', '- indent)//(width + 1)', 'print'),
    ("'\\n'*(array.ndim - 1)", "'\\n'", 'print'),
    ("if last + len(note) + 2 > _PRINT", "if last + len(note) > _PRINT", 'print'),
    ("name[-1].isdigit()", "name[-1] == '0'", 'names'),
    ('moves[p]*momentum + move', 'moves[p] + move', 'graph'),
    ('if logs.ndim != 2', 'if logs.ndim < 2', 'layers'),
    ('k = 1/math.sqrt(in_features)', 'k = 1/in_features', 'stream')]
SOURCE = Path(module.__file__).read_text(encoding='utf-8')


def seen(lib, what):
    "Is there a difference that isn't allowed?"
    if what in FAMILIES:
        return any(row_of(e, *case[1:]) is None for e, cases in differences(lib, what, 12).items() for case in cases)
    return {'print': lambda: print_differences(lib, 600), 'names': lambda: name_differences(lib),
            'stream': lambda: stream_differences(lib, 60), 'messages': lambda: message_differences(lib), 'graph': lambda: script_differences(lib)}[what]()


@pytest.mark.parametrize('old,new,what', BUGS)
def test_planted_bugs_are_seen(old, new, what):
    assert SOURCE.count(old) == 1, f'{SOURCE.count(old)} times in the module: {old}'
    mutant = types.ModuleType('mutant')
    exec(compile(SOURCE.replace(old, new), 'mutant.py', 'exec'), vars(mutant))
    assert seen(mutant.as_torch(), what)


# ---- the reader's engine, and the exercises ----
def test_the_engine_is_the_readers():
    "What the chapter builds stands here to the letter, where arrays don't matter"
    assert inspect.getsource(module.backward_order) == inspect.getsource(autograd.backward_order)


def test_lacks_by_name():
    for f, name in [(lambda: twin.fft, 'torch.fft'), (lambda: twin.nn.Conv2d, 'torch.nn.Conv2d'),
                    (lambda: twin.ones(2).cholesky(), 'Tensor.cholesky'), (lambda: twin.utils.data.DataLoader([]), 'DataLoader')]:
        with pytest.raises(AttributeError, match=f'{name} is not in the page: open the notebook'): f()
    assert not hasattr(twin.ones(2), 'g') and not hasattr(twin, 'fft')


ALONE = """
import importlib.util, json, linecache, sys, warnings
warnings.simplefilter('ignore')
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'torch': raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
spec = importlib.util.spec_from_file_location('twin', sys.argv[1])
sys.modules['twin'] = twin = importlib.util.module_from_spec(spec)
before = {*sys.modules}
spec.loader.exec_module(twin)
new = {m.partition('.')[0] for m in {*sys.modules} - before} - {*sys.stdlib_module_names, 'numpy'}
new = {m for m in new if 'cython' not in m}            # NumPy's random numbers bring these
twin.install()
from backprop13.practice import exercises, grading

def judged(name, text):
    e = exercises.EXERCISES[name]
    names, file = {**vars(sys.modules[e.solution.__module__])}, f'<cell of {name}>'
    linecache.cache[file] = len(text), None, text.splitlines(True), file
    exec(exercises.PAGES[e.page].imports, names)
    exec(compile(text, file, 'exec'), names)
    fault = grading.judge(e, names[name]).fault
    return fault and fault.property

right = {name: judged(name, exercises.solution(name)) for name in exercises.EXERCISES}
wrong = {text: judged(name, text) for name, text in json.loads(sys.argv[2])}
print(json.dumps([sorted(new), right, wrong]))
"""
WRONG = [('relu', 'def relu(x): return torch.relu(x)'), ('relu', 'def relu(x): return x*(x > 1)'),
         ('matmul', 'def matmul(a, b): return a @ b'), ('matmul', 'def matmul(a, b): return torch.einsum("ij,jk->ik", a, b)'),
         ('relu_grad', 'def relu_grad(inp, out): inp.g = out.g*(inp >= 0)'), ('mse', 'def mse(output, targ): return (output - targ).square().sum()')]


def test_exercises_run_on_the_twin():
    "The solutions are judged right by their checks, without PyTorch, and some wrong ones are not"
    got = subprocess.run([sys.executable, '-c', ALONE, module.__file__, json.dumps(WRONG)], cwd=ROOT, text=True,
                         capture_output=True, timeout=300, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert got.returncode == 0, got.stderr[-2000:]
    new, right, wrong = json.loads(got.stdout.splitlines()[-1])
    assert not new, 'it imports only NumPy and the standard library'
    assert len(right) >= 29 and not any(right.values()), right
    assert all(wrong.values()), wrong
    assert wrong[WRONG[0][1]] == wrong[WRONG[2][1]] == 'no ready-made function'
