"The twin against PyTorch: the same expressions on the same random tensors, and what planted bugs change."
import inspect, json, os, random, re, subprocess, sys, types, warnings
from pathlib import Path

import numpy as np, pytest, torch

from backprop13 import autograd
from backprop13.support import twin as module

twin = module._torch()
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
        (a*a).sum()*b; a + a.sum(); a*a.sum(); a*2.5 + b*True''',
    'functions': '''a.exp(); a.log(); a.abs(); abs(a); a.sign(); a.sqrt(); a.sin(); a.cos(); a.tanh(); a.sigmoid(); a.square(); a.round(); a.relu(); a.neg();
        a.log2(); torch.exp(a); torch.where(c, a, b); torch.where(c, a, 0.); torch.where(a > 0, 1, a); a.where(c, b); a.masked_fill(c, 2);
        a.masked_fill(c, -1.5); a.clamp(-1, 1); a.clamp(min=0); a.clamp(max=.5); a.isnan(); (a/0).isfinite(); (a*a).exp()''',
    'products': '''a @ b; a @ a; a.t() @ b; a @ a.t(); a.matmul(b); a.double() @ b; a @ b.t(); torch.einsum('ij,jk->ik', a, b); torch.einsum('ij,ij->', a, a);
        torch.einsum('bij,kj->bik', a, b); torch.einsum('i,j->ij', a, b); torch.einsum('ij->j', a)''',
    'shapes': '''a.reshape(-1); a.reshape(3, -1); a.reshape(3, 2); a.view(-1); a.view(2, -1); a.t().view(-1); a.t().reshape(-1); a.flatten(); a.flatten(1); a.unsqueeze(d);
        a.squeeze(); a.squeeze(d); a.t(); a.T.clone(); a.mT; a.transpose(0, 1); a.transpose(0, d); a.permute(1, 0); a.permute(2, 0, 1); a.expand(3, 3); a.expand(2, 3, 3);
        a.expand(-1, 3); a.flip(0); a.flip(d); torch.stack([a, a*2]); torch.stack([a, b], 1); torch.cat([a, b]); torch.cat([a, b], d); torch.cat([a, a], d);
        a.view_as(b); a.sum_to_size(1, 3); torch.broadcast_shapes(a.shape, b.shape); a.shape; a.size(d); a.shape[:1]; a.numel(); len(a); a.dim(); a.t().is_contiguous();
        a.contiguous().stride(); a.t().stride(); a.expand(3, 3).stride(); a.t().contiguous()''',
    'sums': '''a.sum(); a.sum(d); a.sum(d, keepdim=True); a.sum((0, 1)); a.sum(-1); a.mean(); a.mean(d); a.mean(0, keepdim=True); a.norm(); a.all(); a.any(); a.all(d); a.any(0, keepdim=True);
        a.max(); a.min(); a.max(d); a.min(d); a.max(d).values; a.max(-1, keepdim=True)[1]; a.max(-1, keepdim=True).values; a.amax(d); a.amin(); a.amax((0, 1)); a.argmax(); a.argmax(d); a.argmin(d);
        a.argmax(-1, keepdim=True); a.logsumexp(d); a.logsumexp(-1, keepdim=True); a.log_softmax(-1); a.softmax(d); a.log_softmax(d); a.sum(dtype=torch.float64)''',
    'indices': '''a[0]; a[-1]; a[d]; a[:, 0]; a[0, 1]; a[1:]; a[:-1]; a[::2]; a[:, 1:]; a[None]; a[:, None]; a[..., None]; a[..., 0]; a[...]; a[:]; a[()]; a[1, ..., 0]; a[[0, 1]]; a[i]; a[i, i];
        a[:, i]; a[i, 0]; a[0, i]; a[0, :, i]; a[i, :, 0]; a[i[:, None], i]; a[c]; a[a > 0]; a[i, None]; a[::-1]; a[5]; a[:, 5]; a[a]; a[torch.tensor(1)]; a[:, [2, 0]]; a[1:, i];
        list(a); a.tolist(); a.item(); bool(a); int(a); float(a); 2 in a; [*a.shape]; f'{a.sum():.2f}'; range(5)[a]''',
    'in place': '''put(x, 0, 5); put(x, (slice(None), 1), 2.5); put(x, c, 0); put(x, i, 7); put(x, (i, i), 1); put(x, slice(1), b); put(x, slice(None), x + 1); then(put(x[0], 0, 9), x); then(put(x.t(), 0, 4), x);
        then(put(x.view(-1), 1, 3), x); x.add_(b); x.sub_(2); x.mul_(b); x.mul_(2.5); x.div_(2); x.zero_(); then(x[0].zero_(), x); x.fill_(3); x.copy_(b); x.clamp_(0); x.relu_(); x.exp_();
        x.masked_fill_(c, 1); then(x.t().mul_(2), x); x.expand(3, 3).add_(1); x.fill_diagonal_(1); then(x.reshape(-1).add_(1), x); then(x[1:].add_(1), x); then(x[i].add_(1), x);
        x.index_add(0, i % len(x), x[i]); iadd(x, b); then(x.flatten().mul_(0), x); then(x.detach().add_(1), x); then(x.clone().add_(1), x); then(x.squeeze().add_(1), x);
        w.add_(1); held(lambda: w.add_(1)); put(w, 0, 1); w[0].mul_(2)''',
    'making': '''torch.tensor([1, 2]); torch.tensor([1., 2]); torch.tensor([True, False]); torch.tensor(3.5); torch.tensor([[1, 2.5]]); torch.tensor(a.tolist()); torch.tensor([]); torch.zeros(2, 3);
        torch.zeros((2, 3)); torch.ones(3, dtype=torch.int64); torch.ones_like(a); torch.zeros_like(a, dtype=torch.float64); torch.full((2, 2), 7); torch.full((2,), 1.5); torch.full((2,), True);
        torch.eye(3); torch.eye(2, 3); torch.arange(5); torch.arange(1, 7, 2); torch.arange(0, 1, .25); torch.arange(5.); torch.arange(3, 0, -1); torch.linspace(0, 1, 7); torch.arange(5, 0);
        torch.linspace(-1, 2, 4, dtype=torch.float64); a.new_zeros(2, 2); a.new_ones(2); a.to(b.dtype); a.to(b); a.float(); a.double(); a.long(); a.bool(); torch.as_tensor([1, 2]); torch.as_tensor(a);
        torch.from_numpy(a.detach().numpy()); a.numpy(); a.requires_grad_(); torch.tensor([a.sum(), a.sum()]); torch.tensor(2, dtype=torch.float64); torch.tensor([[1], [2, 3]]); torch.tensor('x');
        torch.equal(a, b); torch.allclose(a, b); torch.allclose(a, a); a.isclose(b); a.isclose(a + 1e-6); torch.finfo(torch.float32).eps; torch.testing.assert_close(a, a);
        torch.testing.assert_close(a, b); torch.testing.assert_close(a, a*(1 + 1e-5)); torch.testing.assert_close(a, a + 3e-6); a.requires_grad; a.is_leaf; (a*2).is_leaf; a.grad_fn is None''',
    'layers': '''F.relu(f); F.mse_loss(f, f*2); F.mse_loss(f, b.double()); F.cross_entropy(f, i[:len(f)]); F.nll_loss(f, i[:len(f)]); F.log_softmax(f, -1); F.linear(f, b); F.linear(f, f); F.softmax(f, 0); torch.sigmoid(f);
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
    return dict(torch=lib, nn=lib.nn, F=lib.nn.functional, a=a, b=b, c=c, x=x, f=f, i=i, d=rng.choice([0, 0, -1, 1, 1, 2]),
                w=lib.ones(3, requires_grad=True), put=put, then=lambda _, x: x, held=held(lib), iadd=iadd)


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
