"The twin against PyTorch: the same expressions on the same random tensors, and what planted bugs change."
import copy, functools, inspect, json, math, operator, os, random, re, subprocess, sys, types, warnings
from pathlib import Path

import numpy as np, pytest, torch

from backprop13 import autograd
from backprop13.support import twin as module

twin = module.as_torch()
ROOT = Path(__file__).parents[2]
SOURCE = Path(module.__file__).read_text(encoding='utf-8')
SHAPES = [(), (1,), (3,), (2, 3), (3, 1), (1, 3), (3, 3), (3, 2), (2, 1, 3), (2, 3, 3), (0,), (0, 3),
          (4, 2, 3)]
DTYPES = ['float32', 'float32', 'float64', 'int64', 'bool']
KINDS = RuntimeError, IndexError, TypeError, ValueError, AssertionError
VALUES = [0., 1., -1., .5, 2., -3., 7.25]


@pytest.fixture(autouse=True)
def quiet():
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def texts(table): return [e.strip() for e in table.split(';')]

def space(lib, **more):
    "The names that expressions and scripts may use"
    return dict(torch=lib, nn=lib.nn, F=lib.nn.functional, np=np, copy=copy, **more)

def kind(error):
    "How an error counts: by its kind; what the page lacks by its words"
    if isinstance(error, AttributeError): return str(error)
    return next(o.__name__ for o in KINDS if isinstance(error, o))

def plain(o, lib):
    "Without the library: a tensor as its dtype, whether autograd knows it, and its numbers"
    if isinstance(o, lib.Tensor): return str(o.dtype), o.requires_grad, np.array(o.detach().numpy())
    if isinstance(o, (list, tuple)): return [plain(p, lib) for p in o]
    return np.array(o) if isinstance(o, float) else str(o)

def same(p, q, tolerance=2e-5):
    if isinstance(p, np.ndarray) and isinstance(q, np.ndarray):
        return p.shape == q.shape and np.allclose(p, q, tolerance, tolerance, equal_nan=True)
    if isinstance(p, (list, tuple)): return type(p) == type(q) and len(p) == len(q) and all(map(same, p, q))
    return p == q


# ---- expressions of tensors a, b (as drawn), x and f (a's copies), c (of a's shape, bool), i (two indices),
# w (a leaf) and a dimension d
FAMILIES = {
    'arithmetic': '''
        a + b; a - b; a*b; a/b; a//b; a % b; a + 2; a - 2.5; 2*a; 1.5*a; a/2; 2/a; 2 - a; a + True;
        a**2; a**3; a**0; a**b; -a; ~a; +a; a & b; a | b; a ^ b; a == b; a != b; a < b; a <= b;
        a > b; a >= b; a > 1; a == 1.5; a.add(b); a.add(b, alpha=2); a.sub(b); a.mul(b); a.div(b);
        torch.maximum(a, b); torch.minimum(a, b); a//2; a % 3; a*c;
        torch.promote_types(a.dtype, b.dtype); torch.result_type(a, b); (a*a).sum()*b; a + a.sum();
        a*a.sum(); a*2.5 + b*True; (a*0)**(b*0)''',
    'functions': '''
        a.exp(); a.log(); a.abs(); abs(a); a.sign(); a.sqrt(); a.sin(); a.cos(); a.tanh();
        a.sigmoid(); a.square(); a.round(); a.relu(); a.neg(); a.log2(); torch.exp(a);
        torch.where(c, a, b); torch.where(c, a, 0.); torch.where(a > 0, 1, a); a.where(c, b);
        a.masked_fill(c, 2); a.masked_fill(c, -1.5); a.clamp(-1, 1); a.clamp(min=0);
        a.clamp(max=.5); a.isnan(); (a - a.detach()).clamp(0, 1); (a/0).isfinite(); (a*a).exp()''',
    'products': '''
        a @ b; a @ a; a.t() @ b; a @ a.t(); a.matmul(b); a.double() @ b; a @ b.t();
        torch.einsum('ij,jk->ik', a, b); torch.einsum('ij,ij->', a, a);
        torch.einsum('bij,kj->bik', a, b); torch.einsum('i,j->ij', a, b); torch.einsum('ij->j', a);
        f.reshape(2, -1) @ torch.ones(4, 3, 2).double();
        torch.ones(4, 2, 3).double() @ f.reshape(3, -1)''',
    'shapes': '''
        a.reshape(-1); a.reshape(3, -1); a.reshape(3, 2); a.view(-1); a.view(2, -1); a.t().view(-1);
        a.t().reshape(-1); a.flatten(); a.flatten(1); a.unsqueeze(d); a.squeeze(); a.squeeze(d);
        a.t(); a.T.clone(); a.mT; a.transpose(0, 1); a.transpose(0, d); a.permute(1, 0);
        a.permute(2, 0, 1); a.expand(3, 3); a.expand(2, 3, 3); a.expand(-1, 3); a.flip(0);
        a.flip(d); torch.stack([a, a*2]); torch.stack([a, b], 1);
        torch.stack([a.t(), a.t()], -1)[..., 0].t().view(-1);
        torch.cat([a.t(), a.t()]).view(-1);
        torch.cat([a, b]); torch.cat([a, b], d); torch.cat([a, a], d); a.view_as(b);
        a.sum_to_size(1, 3); torch.broadcast_shapes(a.shape, b.shape); a.shape; a.size(d);
        a.shape[:1]; a.numel(); len(a); a.dim(); a.t().is_contiguous(); a.contiguous().stride();
        a.t().stride(); a.expand(3, 3).stride(); a.t().contiguous(); copy.deepcopy(x.t()).view(-1);
        copy.deepcopy(x.expand(2, *x.shape)).view(-1); copy.deepcopy(x[..., :1]).view(-1)''',
    'sums': '''
        a.sum(); a.sum(d); a.sum(d, keepdim=True); a.sum((0, 1)); a.sum(-1); a.mean(); a.mean(d);
        a.mean(0, keepdim=True); a.norm(); a.all(); a.any(); a.all(d); a.any(0, keepdim=True);
        a.max(); a.min(); a.max(d); a.min(d); a.max(d).values; a.max(-1, keepdim=True)[1];
        a.max(-1, keepdim=True).values; a.amax(d); a.amin(); a.amax((0, 1)); a.argmax();
        a.argmax(d); a.argmin(d); a.argmax(-1, keepdim=True); a.sort(stable=True);
        a.sort(dim=d, stable=True); a.sort(dim=d, descending=True, stable=True);
        a.argsort(stable=True); a.logsumexp(d); a.logsumexp(-1, keepdim=True); a.log_softmax(-1);
        a.softmax(d); a.log_softmax(d); a.sum(dtype=torch.float64)''',
    'indices': '''
        a[0]; a[-1]; a[d]; a[:, 0]; a[0, 1]; a[1:]; a[:-1]; a[::2]; a[:, 1:]; a[None]; a[:, None];
        a[..., None]; a[..., 0]; a[...]; a[:]; a[()]; a[1, ..., 0]; a[[0, 1]]; a[i]; a[i, i];
        a[:, i]; a[i, 0]; a[0, i]; a[0, :, i]; a[i, :, 0]; a[i[:, None], i]; a[c]; a[a > 0];
        a[i, None]; a[::-1]; a[5]; a[:, 5]; a[a]; a[torch.tensor(1)]; a[:, [2, 0]]; a[1:, i];
        list(a); a.tolist(); a.item(); bool(a); int(a); float(a); 2 in a; [*a.shape];
        f'{a.sum():.2f}'; range(5)[a]; a[range(2)]; a[:, range(1)]; a[range(2), i]; a[(0, 1),];
        a[[]]; a[np.array([0, 1])]; a.diag()''',
    'in place': '''
        put(x, 0, 5); put(x, (slice(None), 1), 2.5); put(x, c, 0); put(x, i, 7); put(x, (i, i), 1);
        put(x, slice(1), b); put(x, slice(None), x + 1); then(put(x[0], 0, 9), x);
        then(put(x.t(), 0, 4), x); then(put(x.view(-1), 1, 3), x); x.add_(b); x.sub_(2); x.mul_(b);
        x.mul_(2.5); x.div_(2); x.zero_(); then(x[0].zero_(), x); x.fill_(3); x.copy_(b);
        x.clamp_(0); x.relu_(); x.exp_(); x.neg_(); x.tanh_(); x.sigmoid_(); x.sqrt_(); x.log_();
        x.abs_(); x.square_(); x.masked_fill_(c, 1); then(x.t().mul_(2), x); x.expand(3, 3).add_(1);
        x.fill_diagonal_(1); then(x.reshape(-1).add_(1), x); then(x[1:].add_(1), x);
        then(x[i].add_(1), x); x.index_add(0, i % len(x), x[i]); iadd(x, b);
        then(x.flatten().mul_(0), x); then(x.detach().add_(1), x); then(x.clone().add_(1), x);
        then(x.squeeze().add_(1), x); w.add_(1); held(lambda: w.add_(1)); put(w, 0, 1);
        w[0].mul_(2)''',
    'making': '''
        torch.tensor([1, 2]); torch.tensor([1., 2]); torch.tensor([True, False]); torch.tensor(3.5);
        torch.tensor([[1, 2.5]]); torch.tensor(a.tolist()); torch.tensor([]); torch.zeros(2, 3);
        torch.zeros((2, 3)); torch.ones(3, dtype=torch.int64); torch.ones_like(a);
        torch.zeros_like(a, dtype=torch.float64); torch.full((2, 2), 7); torch.full((2,), 1.5);
        torch.full((2,), True); torch.eye(3); torch.eye(2, 3); torch.arange(5);
        torch.arange(1, 7, 2); torch.arange(0, 1, .25); torch.arange(5.); torch.arange(3, 0, -1);
        torch.linspace(0, 1, 7); torch.arange(5, 0); torch.linspace(-1, 2, 4, dtype=torch.float64);
        a.new_zeros(2, 2); a.new_ones(2); a.to(b.dtype); a.to(b); a.float(); a.double(); a.long();
        a.bool(); torch.as_tensor([1, 2]); torch.as_tensor(a); torch.from_numpy(a.detach().numpy());
        a.numpy(); torch.tensor(a.detach().numpy()); torch.tensor(np.float64(2));
        a.requires_grad_(); torch.tensor([a.sum(), a.sum()]); torch.tensor(2, dtype=torch.float64);
        torch.tensor([[1], [2, 3]]); torch.tensor('x'); torch.equal(a, b); torch.allclose(a, b);
        torch.allclose(a, a); a.isclose(b); a.isclose(a + 1e-6); torch.finfo(torch.float32).eps;
        torch.testing.assert_close(a, a); torch.testing.assert_close(a, b);
        torch.testing.assert_close(a, a*(1 + 1e-5)); torch.testing.assert_close(a, a + 3e-6);
        a.requires_grad; a.is_leaf; (a*2).is_leaf; a.grad_fn is None''',
    'layers': '''
        F.relu(f); F.mse_loss(f, f*2); F.mse_loss(f, b.double()); F.cross_entropy(f, i[:len(f)]);
        F.nll_loss(f, i[:len(f)]); F.log_softmax(f, -1); F.linear(f, b); F.linear(f, f);
        F.softmax(f, 0); torch.sigmoid(f); F.one_hot(i); F.one_hot(i, 3); F.one_hot(f);
        torch.max(0, f); torch.exp(2.); nn.ReLU()(f); nn.Sequential(nn.ReLU(), nn.Tanh())(f);
        nn.Parameter(f.detach()); nn.Sequential(nn.Linear(3, 2), nn.ReLU());
        [k for k, _ in nn.Sequential(nn.Linear(3, 2), nn.ReLU()).named_parameters()];
        [k for k in nn.Linear(3, 2)._parameters]; [*nn.Sequential(nn.ReLU(), nn.Linear(3, 2))._modules];
        nn.ModuleList([nn.ReLU()]).append(nn.Linear(3, 2)); len(nn.ModuleList([nn.ReLU(), nn.Tanh()]));
        nn.ModuleList([nn.ReLU(), nn.Tanh()])[-1](f); [m(f) for m in nn.ModuleList([nn.ReLU(), nn.Tanh()])];
        len([*nn.Sequential(*[nn.Linear(3, 2)]*2).parameters()])''',
}


def drawn(lib, rng):
    "What an expression is of, the same for both libraries"
    draw = np.random.RandomState(rng.randrange(2**31))
    def tensor(shape, dtype):
        few = dtype == 'float32' and draw.rand() < .3
        array = draw.choice(VALUES, shape) if few else draw.randn(*shape)*2
        return lib.tensor(np.asarray(array).tolist(), dtype=getattr(lib, dtype)).reshape(shape)
    shape, other = rng.choice(SHAPES), rng.choice(SHAPES)
    other = shape if rng.random() < .5 else other
    a, b = tensor(shape, rng.choice(DTYPES)), tensor(other, rng.choice(DTYPES))
    recorded = rng.random() < .6
    for t in a, b: t.requires_grad_(recorded and t.is_floating_point())
    x, f = a.detach().clone(), a.detach().double().requires_grad_()
    c = tensor(shape, 'bool')
    i = lib.tensor([rng.randrange(-1, 3) for _ in range(2)], dtype=lib.int64)
    d, w = rng.choice([0, 0, -1, 1, 1, 2]), lib.ones(3, requires_grad=True)
    return dict(a=a, b=b, c=c, x=x, f=f, i=i, d=d, w=w)

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


def outcome(lib, expression, seed):
    "What the expression gives, its gradients, and x after it; or the kind of error"
    more = dict(put=put, iadd=iadd, then=lambda _, x: x, held=held(lib))
    names = space(lib, **drawn(lib, random.Random(seed)), **more)
    try: out = eval(expression, names)
    except (*KINDS, AttributeError) as e: return 'error', kind(e)
    grads, leaves = [], [names[k] for k in 'abf' if names[k].requires_grad and names[k].is_leaf]
    if isinstance(out, lib.Tensor) and out.requires_grad and out.grad_fn and leaves:
        weights = lib.arange(1, out.numel() + 1).to(out.dtype).reshape(out.shape)
        try: (out*weights).sum().backward()
        except RuntimeError as e: return 'error', 'backward ' + type(e).__name__
        grads = [leaf.grad for leaf in leaves]
    return plain(out, lib), [plain(g, lib) for g in grads], plain(names['x'], lib)


# The differences that the notebook's table lists: which expressions may differ, and how
def says_so(got, want): return got[0] == 'error' and 'is not in the page' in got[1]
def refuses(got, want): return got == ('error', 'RuntimeError')
ALLOWED = [
    ('einsum of several dtypes, or of truth values', r'torch.einsum', refuses),
    ('softmax of whole numbers', r'softmax', refuses),
    ('losses of other shapes', r'F.(nll_loss|cross_entropy)', says_so)]

def row_of(expression, got, want):
    for row, pattern, how in ALLOWED:
        if re.search(pattern, expression) and how(got, want): return row


# ---- printing
PRINT = [
    dict(precision=4, threshold=1000, edgeitems=3, linewidth=80, sci_mode=None),
    dict(precision=2, linewidth=125, sci_mode=False), dict(edgeitems=2, threshold=20), dict(sci_mode=True)]


def printed(lib, n):
    rng, draw = random.Random(n), np.random.RandomState(n)
    shape = rng.choice([*SHAPES, (7,), (40,), (1001,), (30, 40), (3, 1000), (2, 2, 300)])
    dtype = rng.choice(DTYPES)
    array = draw.randn(*shape)*10.**draw.randint(-6, 9, shape if rng.random() < .3 else ())
    if rng.random() < .3: array = np.round(array)
    if dtype.startswith('float'):
        for value in math.inf, -math.inf, math.nan, 0.:
            if rng.random() < .2: array = np.where(draw.rand(*shape) < .2, value, array)
    if dtype == 'bool': array = array > 0
    if dtype == 'int64': array = np.clip(np.nan_to_num(array), -1e15, 1e15)
    t = lib.tensor(np.asarray(array).tolist(), dtype=getattr(lib, dtype)).reshape(shape)
    if t.is_floating_point() and rng.random() < .4: t.requires_grad_()
    how = rng.randrange(4)
    lib.set_printoptions(**PRINT[rng.randrange(4)])
    if how == 0 and t.requires_grad: t = t.exp() if rng.random() < .5 else t.reshape(-1)
    try: return f'{t}' if how == 1 and t.ndim else repr(t)
    finally: lib.set_printoptions(**PRINT[0])


NAMED = '''
    x + 1; 1 - x; x*x; x/2; x**2; -x; x@x.t(); x.exp(); x.log(); x.tanh(); x.sigmoid(); x.relu();
    x.sum(); x.sum(0); x.mean(); x.mean(1); x.max(); x.max(0)[0]; x.amax(0); x.t(); x.T;
    x.reshape(-1); x.view(6); x[0]; x[1:]; x[:, 0]; x[[0, 1]]; x[None]; x[..., None]; x[:];
    x.unsqueeze(0); x[:1].squeeze(); x.expand(4, 2, 3); x.double(); x.clone(); x.where(x > 0, x);
    x.masked_fill(x > 0, 0); x.abs(); x.sqrt(); x.log_softmax(1); x.softmax(1); x.logsumexp(1);
    torch.stack([x, x]); torch.cat([x, x]); x.permute(1, 0); x.transpose(0, 1); x.clamp(0, 1);
    F.mse_loss(x, x*2); F.cross_entropy(x, torch.tensor([0, 1])); F.linear(x, x); x.flip(0)'''


def named(lib, expression):
    "How the result is printed, with the name of its operation"
    x = lib.tensor([[1., 2., 3.], [4., 5., 6.]], requires_grad=True)
    return repr(eval(expression, space(lib, x=x)))


# ---- random numbers
DRAWS = ['rand', 'rand', 'randn', 'randn', 'randint', 'randperm', 'uniform_', 'normal_', 'seed', 'Linear',
         'state']


def stream(lib, n):
    "Draws, one after another, from one generator or the global one"
    rng, out = random.Random(n), []
    gen = lib.Generator().manual_seed(n*7919) if n % 2 else None
    lib.manual_seed(rng.choice([n, n + 2**33, 0]))
    for _ in range(6):
        shape = rng.choice(SHAPES + [(15,), (16,), (17,), (40,), (100,)])
        what, dtype = rng.choice(DRAWS), getattr(lib, rng.choice(['float32', 'float64']))
        if what in ('rand', 'randn'): t = getattr(lib, what)(shape, generator=gen, dtype=dtype)
        elif what == 'randint':
            t = lib.randint(rng.choice([-5, 0, 3]), rng.choice([4, 10, 1000, 2**31]), shape, generator=gen)
        elif what == 'randperm': t = lib.randperm(rng.choice([0, 1, 2, 10, 300]), generator=gen)
        elif what == 'seed': t = lib.manual_seed(rng.randrange(99)) and lib.rand(2)
        elif what == 'Linear': t = lib.nn.Linear(5, 4).weight.detach()
        elif what == 'state':
            state = lib.get_rng_state()
            first = lib.randn(3)
            lib.set_rng_state(state)
            t = lib.cat([first, lib.randn(3)])
        else: t = getattr(lib.zeros(shape, dtype=dtype), what)(-1, 2, generator=gen)
        out.append((what, plain(t, lib)))
    return out

def drawn_alike(got, want):
    "`rand`, `randint`, `randperm` to the bit, normal numbers to rounding"
    def alike(p, q):
        (what, (dtype, _, a)), (_, (other, _, b)) = p, q
        if dtype != other or a.shape != b.shape: return False
        exact = what in ('rand', 'randint', 'randperm', 'seed')
        return np.array_equal(a, b) if exact else np.allclose(a, b, 1e-4, 1e-6)
    return all(map(alike, got, want))


# ---- the graph: short scripts that end with `out`
SCRIPTS = '''
x = T([1., 2.]); y = (x*x).sum(); y.backward(); y.backward()
---
x = T([1., 2.]); y = (x*x).sum(); y.backward(retain_graph=True); y.backward(); out = x.grad
---
x = T([1., 2.]); y = (x*3).sum(); y.backward(); y.backward(); out = x.grad
---
x = T([1., 2.]); (x*x).sum().backward(); g = x.grad; (x*x).sum().backward(); out = g is x.grad, g
---
x = T([1., 2.]); y = (x**3).sum(); g, = torch.autograd.grad(y, x, create_graph=True)
out = torch.autograd.grad(g.sum(), x)
---
x = T([1., 2.]); y = x.tanh().exp().sum(); g, = torch.autograd.grad(y, x, create_graph=True)
out = torch.autograd.grad((g*g).sum(), x)
---
x, w = T([[1., 2.], [3., 1.]]), T([[1., -1.], [.5, 2.]])
g, = torch.autograd.grad((x @ w).relu().square().sum(), w, create_graph=True)
g.square().sum().backward(); out = x.grad, w.grad
---
x = T([[1., 2.], [3., 1.]]); g, = torch.autograd.grad(x.log_softmax(1)[0, 1], x, create_graph=True)
(g*g).sum().backward(); out = x.grad
---
x, w = T([1., 2.]), T([3.]); out = torch.autograd.grad(x.sum(), w)
---
x, w = T([1., 2.]), T([3.]); out = torch.autograd.grad(x.sum(), [x, w], allow_unused=True)
---
x, w = T([1., 2.]), T([3.])
out = torch.autograd.grad([x.sum(), (x*x).sum()], [x, w], materialize_grads=True)
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
x = T([1., 2.]); d = x.detach(); d[0] = 7
out = x.tolist(), d.requires_grad, d.data_ptr() == x.data_ptr()
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
x, c = T([1., 2., 3.]), torch.zeros(3); c[0] = x[1]*x[2]; c[1:] = x[:2]*2; (c*c).sum().backward()
out = c, x.grad
---
x = T([1., 2., 3.]); h = x*1; h[1] = 0; (h*h + h).sum().backward(); out = x.grad
---
x, c = T([1., 2., 3.]), torch.zeros(3); c[torch.tensor([2, 0])] = x[:2]; (c*c).sum().backward()
out = c, x.grad
---
x, c = T([1., 2., 3.]), torch.zeros(2, 3); c.copy_(x); (c*c).sum().backward(); out = c, x.grad
---
x = T([1., 2.]); x[0] = 3
---
x = T([[1., 2.]]); x[0].mul_(2)
---
x = T([1., 2.]); x.g = torch.ones(2); y = copy.deepcopy(x); y.g[0] = 5
out = x.g, y.g, y.requires_grad, y.is_leaf
---
x = T([1., 2.]); copy.deepcopy(x*2)
---
x = torch.arange(6.).reshape(2, 3); y = x.t(); y[0, 1] = 9; z = x.view(3, 2); z[0] = -1
out = x, y, y.stride()
---
x = torch.arange(6.).reshape(2, 3); y = x[1:]; z = x[[0]]; y += 10; z += 100; out = x, z
---
x = T([1., 2.]); out = x.numpy()
---
a = np.zeros(3); t = torch.from_numpy(a); t[0] = 1; a[1] = 2; out = t, a.tolist()
---
x = T([1., 2.]); y = (x*2).sum()
out = y.grad_fn.name(), [f and f.name() for f, _ in y.grad_fn.next_functions], x.grad_fn
---
x = T([3.]); y = x
for _ in range(3000): y = y*1.001
y.backward(); out = x.grad
---
torch.manual_seed(0); m = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
x = torch.arange(12.).reshape(4, 3).double()/10
opt = torch.optim.SGD(m.parameters(), lr=.1, momentum=.9); out = []
for _ in range(5):
    loss = F.cross_entropy(m(x), torch.tensor([0, 1, 0, 1])); loss.backward(); opt.step()
    opt.zero_grad(); out.append(loss.item())
out += [*m.parameters()] + [m.state_dict()['0.bias'], repr(m)]
---
torch.optim.SGD([], lr=.1)
---
class Net(nn.Module):
    def __init__(self): self.layer = nn.ReLU()
Net()
---
class Net(nn.Module):
    def __init__(self): self.w = nn.Parameter(torch.ones(2))
Net()
---
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.n, self.t, self.w = 3, torch.ones(2), nn.Parameter(torch.ones(2))
        self.layers = nn.ModuleList([nn.Linear(3, 2), nn.ReLU()])
net = Net(); out = [*net._parameters], [*net._modules], [k for k, _ in net.named_parameters()], repr(net)
---
m = nn.Linear(2, 1); n = nn.Linear(2, 1); n.load_state_dict(m.state_dict())
out = torch.equal(m.weight, n.weight), m.weight is n.weight, m.training, m.eval().training
---
out = (torch.nn.functional is F, torch.float is torch.float32, {torch.float32: 1}[torch.float32],
       torch.ones(2).dtype == torch.float64)
'''


def end(lib, script):
    "What the script leaves in `out`, or the kind of error"
    names = space(lib, T=lambda o: lib.tensor(o, requires_grad=True))
    try: exec(script, names)
    except (*KINDS, AttributeError) as e: return 'error', kind(e)
    return plain(names.get('out'), lib)


MESSAGES = '''
    torch.ones(2, 3) + torch.ones(4); torch.ones(2, 3) @ torch.ones(2, 3); torch.ones(3)[5];
    torch.ones(2, 3)[0, -4]; torch.ones(3)[0, 0]; torch.ones(3).item(); torch.ones(2, 3).view(4);
    torch.ones(2, 3).t().view(6); torch.ones(2, 2, 2).t(); bool(torch.ones(2));
    len(torch.tensor(1.)); torch.ones(2).sum(3); torch.ones(2, requires_grad=True).numpy();
    torch.ones(2, requires_grad=True).backward(); torch.ones(2).sum().backward();
    torch.tensor([1]).requires_grad_(); torch.arange(2).add_(.5); torch.arange(3).mean();
    torch.ones(3).reshape(2, 2); torch.tensor(1.) @ torch.ones(1); iter(torch.tensor(1.));
    torch.ones(2, 3).mT.view(-1)'''


def said(lib, expression):
    "The first line of the error"
    try: eval(expression, space(lib))
    except KINDS as error: return str(error).splitlines()[0]


# ---- the comparisons: what is done, the cases in their order, and when two outcomes are the same
COMPARED = {
    **{name: (outcome, [(e, f'0 {k} {n}') for n in range(25) for k, e in enumerate(texts(table))], same)
       for name, table in FAMILIES.items()},
    'print': (printed, [(n,) for n in range(2000)], operator.eq),
    'names': (named, [(e,) for e in texts(NAMED)], operator.eq),
    'stream': (stream, [(n,) for n in range(400)], drawn_alike),
    'graph': (end, [(e,) for e in SCRIPTS.split('---')], same),
    'messages': (said, [(e,) for e in texts(MESSAGES)], operator.eq)}


@functools.cache
def theirs(f, *case): return f(torch, *case)

def differences(lib, name):
    "The cases that end otherwise than with PyTorch, one by one, with both ends and the row that allows it"
    f, cases, alike = COMPARED[name]
    for case in cases:
        got, want = f(lib, *case), theirs(f, *case)
        if alike(got, want): continue
        yield case, got, want, row_of(case[0], got, want) if name in FAMILIES else None


@pytest.mark.parametrize('name', COMPARED)
def test_as_pytorch(name): assert not [o for o in differences(twin, name) if not o[-1]]


@pytest.mark.parametrize('row,family', [*zip((row for row, *_ in ALLOWED), ('products', 'sums', 'layers'))])
def test_each_allowed_difference_is_there(row, family):
    "And is in the notebook's table"
    assert any(found == row for *_, found in differences(twin, family))
    assert f'| {row} |' in (ROOT/'nbs/support/twin.ipynb').read_text(encoding='utf-8')


# ---- planted bugs: each changes one text of the module, and is seen by what it stands under
BUGS = {
    'arithmetic': [
        ('key=lambda d: (d.kind, d.itemsize)', 'key=lambda d: (d.itemsize, d.kind)'),
        ('found is None or d.kind > found.kind', 'True'),
        ('classes[0 if o.array.ndim else 1]', 'classes[0]'),
        ('n != like.shape[i - extra])', 'n > like.shape[i - extra] + 9)'),
        ('return g.to(like.dtype)', 'return g'),
        ('lambda g: g, lambda g: -g)\ndef _mul', 'lambda g: g, lambda g: g)\ndef _mul'),
        ('lambda g: g/b, lambda g: -g*a/(b*b)', 'lambda g: g/b, lambda g: g*a/(b*b)'),
        ('operator.truediv, a, b, lambda g: g/b, lambda g: -g*a/(b*b), floating=True',
         'operator.truediv, a, b, lambda g: g/b, lambda g: -g*a/(b*b)'),
        ('.masked_fill(b == 0, 0)', ''),
        ('g*more + g*same/2', 'g*more + g*same'),
        ("_refuse_bool('-', a, b)", 'pass')],
    'functions': [
        ('g*(1 - a.tanh()**2)', 'g*(1 - a.tanh())'),
        ('g/(2*a.sqrt())', 'g/a.sqrt()'),
        ('lambda g: g*(a > 0), floating=False', 'lambda g: g*(a >= 0), floating=False'),
        ('_sum_to(_kept(g, ~cond), b)', '_sum_to(_kept(g, cond), b)'),
        ('(a >= low) & (a <= high)', '(a > low) & (a < high)')],
    'products': [
        ('_sum_to(g @ b.transpose(-1, -2), a)', 'g @ b.transpose(-1, -2)'),
        ('_sum_to(a.transpose(-1, -2) @ g, b)', '_sum_to(a.transpose(-1, -2) @ g, b)*2')],
    'shapes': [
        ('key=dims.__getitem__', 'key=lambda i: i'),
        ('if self.numel() and not np.may_share_memory(out.array, self.array):', 'if False:'),
        ('if self.shape[i] == 1)', 'if self.shape[i] <= 1)'),
        ('if n == -1 and i >= extra', 'if n == -1'),
        ('lambda g: g.flip(axes)', 'lambda g: g')],
    'sums': [
        ('_spread(g, kept, a)/n', '_spread(g, kept, a)'),
        ('top/top.sum(_axes(dim, a.ndim), keepdims=True)', 'top'),
        ('g - a.softmax(dim)*g.sum(dim, keepdim=True)', 'g - a.softmax(dim)*g')],
    'names': [
        ("'Sum' if dim is None", "'Sum' if dim is not None"),
        ('name[-1].isdigit()', "name[-1] == '0'")],
    'indices': [
        ('np.add.at(array, index, g.array)', 'array[index] = g.array'),
        ('else: picks.append(pick)', 'picks.append(pick)'),
        ('(i.step or 1) < 0', 'False')],
    'messages': [
        ('_check_index(i, dim, a.shape[dim])', 'pass')],
    'graph': [
        ('if picks is None: array[basic] = 0', 'if picks is None: pass'),
        ('a.storage.writes += 1', 'pass'),
        ('_origin(a).made_of == ()', 'a.made_of == ()'),
        ('old = result(a.array.copy() if watched else a.array)', 'old = result(a.array)'),
        ('and not keep: node.read = None', 'and False: node.read = None'),
        ('else: node.grad += g ', 'else: node.grad = node.grad + g '),
        ('return type(self)()', 'return self'),
        ('waits[part] = waits.get(part, 0) + 1', 'waits[part] = 1'),
        ("k == 'grad' or k not in vars(out)", "k == 'grad'"),
        ('moves[p]*momentum + move', 'moves[p] + move'),
        ("if kind and 'training' not in vars(self):", 'if False:'),
        ("'parameters' if isinstance(value, Parameter) else None", 'None'),
        ('vars(self).items() if isinstance(p, Parameter)', 'vars(self).items() if isinstance(p, Tensor)')],
    'in place': [
        ('if out.dtype.kind > a.dtype.kind:', 'if False:')],
    'making': [
        ('not isinstance(data, (Tensor, np.ndarray, np.generic))', 'True'),
        ('d(max(steps - 1, 1))', 'd(max(steps, 1))')],
    'stream': [
        ('2**-24', '2**-23'),
        ('high << np.uint64(32) | low', 'low << np.uint64(32) | high'),
        ('if n < 16:', 'if n < 17:'),
        ('self.seed, self.kept = int(seed), None',
         'self.seed = int(seed); self.kept = getattr(self, "kept", None)'),
        ("vars(self).pop('bits', None)", 'pass'),
        ('if whole < n:', 'if False:'),
        ('j = i + r % (n - i)', 'j = r % n'),
        ('raw[::2] << np.uint64(32) | raw[1::2]', 'raw[1::2] << np.uint64(32) | raw[::2]'),
        ('k = 1/math.sqrt(in_features)', 'k = 1/in_features')],
    'print': [
        ('sizes.max()/sizes.min() > 1000', 'sizes.max()/sizes.min() > 5000'),
        ('sizes.min() < 1e-4', 'sizes.min() < 1e-5'),
        ("'.'*math.isfinite(v)", "'.'"),
        ('_ends(array) if short else array', 'array'),
        ('- indent)//(width + 2)', '- indent)//(width + 1)'),
        ("'\\n'*(array.ndim - 1)", "'\\n'"),
        ('if last + len(note) + 2 > _PRINT', 'if last + len(note) > _PRINT')],
    'layers': [
        ('if logs.ndim != 2', 'if logs.ndim < 2'),
        ('setattr(self, str(len(self)), module)', 'setattr(self, f"{len(self)}.", module)'),
        ('if p not in seen: yield', 'if True: yield')],
}


@pytest.mark.parametrize('name,old,new', [(name, *bug) for name, bugs in BUGS.items() for bug in bugs])
def test_planted_bugs_are_seen(name, old, new, record_property):
    record_property('mutant', 'of the twin')
    assert SOURCE.count(old) == 1, f'{SOURCE.count(old)} times in the module: {old}'
    mutant = types.ModuleType('mutant')
    exec(compile(SOURCE.replace(old, new), 'mutant.py', 'exec'), vars(mutant))
    assert any(not o[-1] for o in differences(mutant.as_torch(), name))


# ---- the reader's engine, and the exercises ----
def test_the_engine_is_the_readers():
    "What the chapter builds stands here to the letter, where arrays don't matter"
    assert inspect.getsource(module.backward_order) == inspect.getsource(autograd.backward_order)


def test_lacks_by_name():
    for f, name in [
            (lambda: twin.fft, 'torch.fft'), (lambda: twin.nn.Conv2d, 'torch.nn.Conv2d'),
            (lambda: twin.ones(2).cholesky(), 'Tensor.cholesky'),
            (lambda: twin.utils.data.DataLoader([]), 'DataLoader')]:
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
WRONG = [
    ('relu', 'def relu(x): return torch.relu(x)'), ('relu', 'def relu(x): return x*(x > 1)'),
    ('matmul', 'def matmul(a, b): return a @ b'),
    ('matmul', 'def matmul(a, b): return torch.einsum("ij,jk->ik", a, b)'),
    ('relu_grad', 'def relu_grad(inp, out): inp.g = out.g*(inp >= 0)'),
    ('mse', 'def mse(output, targ): return (output - targ).square().sum()')]


def test_exercises_run_on_the_twin():
    "The solutions are judged right by their checks, without PyTorch, and some wrong ones are not"
    command = [sys.executable, '-c', ALONE, module.__file__, json.dumps(WRONG)]
    got = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=300,
                         env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert got.returncode == 0, got.stderr[-2000:]
    new, right, wrong = json.loads(got.stdout.splitlines()[-1])
    assert not new, 'it imports only NumPy and the standard library'
    assert len(right) >= 29 and not any(right.values()), right
    assert all(wrong.values()), wrong
    assert wrong[WRONG[0][1]] == wrong[WRONG[2][1]] == 'no ready-made function'
