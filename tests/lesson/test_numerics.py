"""Numbers at their edges: what each function and layer of the lesson gives is what PyTorch
gives, in value, gradient, shape and dtype;
or it refuses, by a ValueError or TypeError that the contract below names. Hypothesis makes the
cases: shapes (none, empty, up to three
axes, some that don't fit), float16 to float64, tensors turned, strided, shifted and expanded in
memory, and values up to ±10000, down to
1e-30, infinite and nan.

A case is a program: what runs is what a failure prints, to be pasted into Python. CI draws the
same cases every time;
HYPOTHESIS_PROFILE=long python -m pytest tests/lesson/test_numerics.py draws others, 50 times as
many. `-rP` shows how many cases each contract has tried."""
import contextlib, functools, io, math, os, re, subprocess, sys
from collections import Counter
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from helpers import Library, mutated

common = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
PROFILES = dict(ci=settings(derandomize=True, max_examples=200, print_blob=False, **common),
                long=settings(derandomize=False, max_examples=10_000, print_blob=True, **common))
PROFILE = PROFILES.get(os.environ.get('HYPOTHESIS_PROFILE'), PROFILES['ci'])

# PyTorch's mse_loss warns, ours refuses
pytestmark = pytest.mark.filterwarnings('ignore:Using a target size')

HEAD = '''import torch
import torch.nn.functional as F
from torch import inf, nan
from backprop13.matmul import *
from backprop13.backprop import *
from backprop13.training import *
from backprop13.fitting import SGD
from backprop13.speed import *
'''
MODULES = 'matmul', 'backprop', 'minibatch', 'fitting', 'speed'


# ---- running a case

class Failed(AssertionError): pass

tried = Counter()            # cases by contract, and what became of them

@functools.cache
def compiled(text): return compile(text, 'case', 'exec')

@functools.cache
def head(): return run(HEAD, {})

def run(text, space):
    exec(compiled(text), space)
    return space

def names_of(lib):
    "What `HEAD` imports, of a changed library"
    space = dict(head())
    for module in MODULES: space |= {k: v for k, v in vars(getattr(lib, module)).items() if k in space}
    return space

def close(got, want, scale=0.):
    "None, or what differs; `scale` is how large the numbers were that were added up"
    if type(got) is not torch.Tensor: return None if got == want else f'got {got!r}, wanted {want!r}'
    if got.shape != want.shape: return f'got shape {tuple(got.shape)}, wanted {tuple(want.shape)}'
    if got.dtype != want.dtype: return f'got {got.dtype}, wanted {want.dtype}'
    g, w = got.detach().double(), want.detach().double()
    if not got.is_floating_point():
        return None if torch.equal(g, w) else f'got {got.tolist()}, wanted {want.tolist()}'
    fi = torch.finfo(got.dtype)
    scale = torch.as_tensor(scale, dtype=torch.float64).nan_to_num(0, 0, 0)
    room = 8*fi.eps*(w.abs().nan_to_num(0, 0, 0) + scale) + 8*fi.smallest_normal*fi.eps
    right = (g == w) | (g.isnan() & w.isnan()) | ((g - w).abs() <= room)
    edge = fi.max*(1 - 8*fi.eps)                                         # one rounding from infinite
    right |= (g.clamp(-edge, edge) == w.clamp(-edge, edge)) & (g.isinf() | w.isinf())
    return None if right.all() else f'got {got.tolist()}, wanted {want.tolist()}'

def tensors_in(space): return {k: v for k, v in space.items() if type(v) is torch.Tensor}

def as_it_was(t, before):
    return t.shape == before.shape and bool(((t == before) | (t != t) & (before != before)).all())

def as_list(o): return list(o) if isinstance(o, (tuple, list)) else [o]

def in_float64(case):
    "What PyTorch says of the same numbers in float64, rounded to the case's dtype"
    wide = re.sub(r'(?<=dtype=)torch\.(b?float16|float32)\)', r'torch.\1).double()', case.inputs)
    space = run(case.theirs, run(wide, dict(head())))
    return [w.to(case.dtype) if type(w) is torch.Tensor and w.is_floating_point() else w
            for w in as_list(space['want'])]

def hold(case, names=None):
    "Fails unless ours does what PyTorch does, or refuses in the words that the contract foresees"
    tried[case.name] += 1
    space = run(case.inputs, dict(names or head()))
    before = {k: v.clone() for k, v in tensors_in(space).items()}
    def fail(what):
        raise Failed(f'{case.name}: {what}. To paste:\n\n{HEAD}{case.inputs}{case.ours}\n{case.theirs}\nprint(got); print(want)\n')
    refusal = None
    try: run(case.ours, space)
    except (ValueError, TypeError) as e: refusal = str(e)
    except Exception as e: fail(f'crashed by {e!r}')
    for k, t in before.items():
        if k not in case.changes and not as_it_was(space[k].detach(), t): fail(f'{k} was changed')
    if refusal:
        if not any(re.search(why, refusal) for why in case.refuses):
            fail(f'refused by {refusal!r}, which the contract does not name')
        tried['refused'] += 1
        return
    theirs = run(case.inputs, dict(head()))
    try: run(case.theirs, theirs)
    except Exception as e: fail(f'gave {space["got"]}, where PyTorch refuses: {e!r}')
    got, want = as_list(space['got']), as_list(theirs['want'])
    if len(got) != len(want): fail(f'got {len(got)} things, wanted {len(want)}')
    scales = as_list(case.scale(theirs)) if case.scale else [0.]*len(got)
    bad = [w for w in map(close, got, want, scales) if w]
    if bad and case.dtype != torch.float64 and not any(map(close, got, in_float64(case), scales)):
        tried['nearer to the truth than PyTorch'] += 1
        bad = []
    if bad: fail(f'{"; ".join(bad)} in {case.dtype}')


# ---- making a case

floats = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ordinary = st.one_of(st.sampled_from([0., -0., 1., -1., .5, -2., 3.]), st.floats(-4, 4, width=16))
extreme = st.one_of(ordinary, st.sampled_from([1e4, -1e4, 1e-30, -1e-30]))
broken = st.one_of(extreme, st.sampled_from([math.inf, -math.inf, math.nan]))
# sums of few products of these are exact in every dtype
exact = st.sampled_from([0., 1., -1., 2., -2., .5])
anything = st.sampled_from([ordinary, extreme, broken, broken])
sizes = st.sampled_from([1, 2, 3, 3, 4, 2, 1, 4, 5, 0])
dtypes = st.sampled_from(floats)

@st.composite
def tensors(draw, shape, dtype, values, layouts=('plain', 'turned', 'strided', 'shifted', 'expanded')):
    "The code of a tensor; a shape of no axes is a number"
    layout, stored, after = draw(st.sampled_from(layouts)) if shape else 'plain', list(shape), ''
    if layout == 'turned':
        stored, after = stored[::-1], f'.permute({", ".join(map(str, range(len(shape))[::-1]))})'
    if layout == 'strided': stored, after = [*stored[:-1], 2*stored[-1]], '[..., ::2]'
    if layout == 'shifted': stored, after = [stored[0] + 1, *stored[1:]], '[1:]'
    if layout == 'expanded':
        axis = draw(st.integers(0, len(shape) - 1))
        if shape[axis]: stored[axis], after = 1, f'.expand({", ".join(map(str, shape))})'
    n = math.prod(stored)
    numbers = draw(st.lists(values, min_size=n, max_size=n))
    if not shape: return f'torch.tensor({numbers[0]}, dtype={dtype})'
    return f'torch.tensor({numbers}, dtype={dtype}).reshape({", ".join(map(str, stored))}){after}'

def any_shape(least=0): return st.lists(sizes, min_size=least, max_size=3).map(tuple)

@st.composite
def odd(draw, right, shapes, often=8):
    "Mostly the shape or dtype that fits, now and then another"
    return draw(shapes) if draw(st.integers(0, often)) == 0 else right

CONTRACTS, CASES = {}, {}

def contract(ours, theirs, refuses=(), scale=None, changes=(), name=None):
    "`ours` sets `got` and `theirs` sets `want`, from what the decorated strategy's tensors are called"
    def add(f):
        def case(made):
            dtype, inputs = made
            text = ''.join(f'{k} = {v}\n' for k, v in inputs.items())
            return SimpleNamespace(name=name or f.__name__, ours=ours, theirs=theirs, inputs=text,
                                   refuses=refuses, scale=scale,
                                   changes=changes, dtype=dtype)
        CONTRACTS[name or f.__name__], CASES[name or f.__name__] = st.composite(f)().map(case), case
        return f
    return add

def stated(name, of=torch.float32, **inputs):
    """A case that nothing draws: lists and fractions are tensors, of labels whole ones; text is
    code, and all else what it is"""
    def code(k, v):
        return f'torch.tensor({v}, dtype={torch.int64 if k == "y" else of})' if isinstance(v,
            (list, float)) else v
    return CASES[name]((of, {k: code(k, v) for k, v in inputs.items()}))

def both(f, *names):
    "A program for value and gradients by autograd of the function call `f`"
    wrt = ', '.join(names)
    return ''.join(f'{k} = {k}.detach().requires_grad_()\n'
                   for k in names) + f'out = {f}\nRESULT = out, *torch.autograd.grad(out, ({wrt},), g)'

def ours(f, *names): return both(f, *names).replace('RESULT', 'got')
def theirs(f, *names): return both(f, *names).replace('RESULT', 'want')

def layer(make, call, *got):
    "A program for value and gradients by our own backward pass"
    return f'layer = {make}\nout = layer({call})\nout.g = g\nlayer.backward()\ngot = out, {", ".join(f"{k}.g" for k in got)}'

def size(t): return t.detach().double().abs().nan_to_num(0, 0, 0)


# ---- matmul

FIT = 'do not fit|wanted two axes|wanted the same'

def outcome(a, b): return (a[0], b[1]) if len(a) == len(b) == 2 else ()

def product_scale(s):
    a, b, g = map(size, (s['a'], s['b'], s['g']))
    return a @ b, g @ b.t(), a.t() @ g

@contract(ours('matmul(a, b)', 'a', 'b'), theirs('torch.mm(a, b)', 'a', 'b'),
          ['^matmul: .*' + f'({FIT})'], product_scale)
def matmul(draw):
    dtype, (n, m, k) = draw(dtypes), draw(st.tuples(sizes, sizes, sizes))
    a, b = draw(odd((n, m), any_shape())), draw(odd((m, k), any_shape()))
    return dtype, dict(a=draw(tensors(a, dtype, draw(anything))),
                       b=draw(tensors(b, draw(odd(dtype, dtypes)), draw(anything))),
                       g=draw(tensors(outcome(a, b), dtype, draw(anything))))

shapes = st.lists(st.sampled_from([0, 1, 1, 2, 3]), max_size=4).map(tuple)

@contract('got = broadcast_shape(p, q)', 'want = tuple(torch.broadcast_shapes(p, q))',
          ['^broadcast_shape: .*do not broadcast.*make the two equal'])
def broadcast_shape(draw): return torch.float64, dict(p=draw(shapes), q=draw(shapes))


# ---- backprop

OUT_G = '^add_grad: a gradient of shape .*, for a tensor of shape .*; they must be equal'

@st.composite
def element_wise(draw):
    dtype, shape = draw(dtypes), draw(any_shape())
    return dtype, dict(x=draw(tensors(shape, dtype, draw(anything))),
                       g=draw(tensors(shape, dtype, draw(anything))))

@contract(ours('relu(x)', 'x'), theirs('F.relu(x)', 'x'))
def relu(draw): return draw(element_wise())

@contract(layer('Relu()', 'x', 'x'), theirs('F.relu(x)', 'x'), [OUT_G])
def Relu(draw):
    dtype, made = draw(element_wise())
    if draw(st.integers(0, 8)) == 0: made['g'] = draw(tensors(draw(any_shape()), draw(dtypes), ordinary))
    return dtype, made

LIN = r'^lin, a = x and b = w: matmul: .*' + f'({FIT})', r'^lin: w .* gives \d+ outputs but b is .*; pass b of shape', '^lin: w is .*wanted the same; pass b.to'

def lin_scale(s):
    x, w, b, g = (size(s[k]) for k in 'xwbg')
    return x @ w + b, g @ w.t(), x.t() @ g, g.sum(0)

@st.composite
def a_layer(draw, wrong=True):
    dtype, (n, m, nh) = draw(dtypes), draw(st.tuples(sizes, sizes, sizes))
    def shape(*right): return draw(odd(right, any_shape())) if wrong else right
    shapes = dict(x=shape(n, m), w=shape(m, nh), b=shape(nh))
    made = {k: draw(tensors(v, draw(odd(dtype, dtypes, 20)) if wrong else dtype, draw(anything)))
            for k, v in shapes.items()}
    return dtype, made | dict(g=draw(tensors(outcome(shapes['x'], shapes['w']), dtype, draw(anything))))

@contract(ours('lin(x, w, b)', 'x', 'w', 'b'), theirs('x @ w + b', 'x', 'w', 'b'), LIN, lin_scale)
def lin(draw): return draw(a_layer())

@contract(layer('Lin(w, b)', 'x', 'x', 'w', 'b'), theirs('x @ w + b', 'x', 'w', 'b'), [*LIN, OUT_G], lin_scale)
def Lin(draw):
    dtype, made = draw(a_layer())
    if draw(st.integers(0, 8)) == 0: made['g'] = draw(tensors(draw(any_shape()), draw(dtypes), ordinary))
    return dtype, made

@contract('out = lin(x, w, b)\nout.g = g\nlin_grad(x, out, w, b)\ngot = out, x.g, w.g, b.g',
          theirs('x @ w + b', 'x', 'w', 'b'),
          [*LIN, f'^matmul: .*({FIT})',
           '^lin_grad: .* but its gradient is .*; pass the inp, w and b that gave out'], lin_scale)
def lin_grad(draw): return draw(a_layer())

@contract('layer = Linear(x.shape[1], len(b), '
          'torch.Generator().manual_seed(0)).to(x.dtype)\nlayer.w.data, layer.b.data = w, b\n'
          + ours('layer(x)', 'x'),
          theirs('F.linear(x, w.t(), b)', 'x'), scale=lambda s: lin_scale(s)[:2])
# there PyTorch adds b before it rounds
def Linear(draw): return draw(a_layer(False).filter(lambda made: made[0] != torch.float16))

MSE = ('^mse: output .* and targ .* (would broadcast to|do not fit).*; (pass|make)',
       '^mse: got an empty batch .*; pass at least one row',
       r'^mse: output is .* and targ .*, wanted the same; pass targ.to\(')

def mse_scale(s):
    x, t, g = size(s['x']), size(s['t']), size(s['g'])
    return (x + t).square().mean(), 2*(x + t)/x.numel()*g

@st.composite
def a_pair(draw):
    dtype, shape = draw(dtypes), draw(any_shape())
    values = draw(anything)
    return dtype, dict(x=draw(tensors(shape, dtype, values)),
                       t=draw(tensors(draw(odd(shape, any_shape())), draw(odd(dtype, dtypes)), values)),
                       g=draw(tensors((), dtype, ordinary)))

@contract(ours('mse(x, t)', 'x'), theirs('F.mse_loss(x, t)', 'x'), MSE, mse_scale)
def mse(draw): return draw(a_pair())

@contract(layer('Mse()', 'x, t', 'x'), theirs('F.mse_loss(x, t)', 'x'), [*MSE, OUT_G], mse_scale)
def Mse(draw):
    dtype, made = draw(a_pair())
    if draw(st.integers(0, 8)) == 0: made['g'] = draw(tensors(draw(any_shape()), draw(dtypes), ordinary))
    return dtype, made

NETWORK = '''x, w1, b1, w2, b2 = (t.detach().requires_grad_() for t in (x, w1, b1, w2, b2))
out = F.mse_loss((x @ w1 + b1).relu() @ w2 + b2, t)
want = out, *torch.autograd.grad(out, (x, w1, b1, w2, b2))'''

def network_scale(s):
    x, w1, b1, w2, b2, t = (size(s[k]) for k in ('x', 'w1', 'b1', 'w2', 'b2', 't'))
    l1 = x @ w1 + b1
    out = l1 @ w2 + b2
    g = 2*(out + t)/out.numel()
    g1 = g @ w2.t()
    return (out + t).square().mean(), g1 @ w1.t(), x.t() @ g1, g1.sum(0), l1.t() @ g, g.sum(0)

@st.composite
def a_network(draw, values=anything):
    dtype, (n, m, nh, c) = draw(dtypes), draw(st.tuples(sizes, sizes, sizes, sizes))
    values = draw(values) if values is anything else values
    shapes = dict(x=(n, m), t=(n, c), w1=(m, nh), b1=(nh,), w2=(nh, c), b2=(c,))
    return dtype, {k: draw(tensors(draw(odd(v, any_shape(), 30)), draw(odd(dtype, dtypes, 60)),
                                   values)) for k, v in shapes.items()}

@contract('out = forward_and_backward(x, t, w1, b1, w2, b2)\ngot = out, x.g, w1.g, b1.g, w2.g, b2.g', NETWORK,
          [*LIN, *MSE], network_scale)
def forward_and_backward(draw): return draw(a_network())

@contract('model = Model(w1, b1, w2, b2)\nout = model(x, t)\nmodel.backward()\ngot = out, x.g, '
          'w1.g, b1.g, w2.g, b2.g', NETWORK, [*LIN, *MSE], network_scale)
def Model(draw): return draw(a_network())

@contract('add_grad(t, g); add_grad(t, g); got = t.g\nzero_grads(t); got = got, t.g',
          't = t.detach().requires_grad_()\nfor _ in range(2): t.backward(g)\nwant = t.grad, None',
          ['^add_grad: a gradient of shape .*, for a tensor of shape .*; they must be equal'])
def add_grad(draw):
    dtype, shape = draw(dtypes), draw(any_shape())
    return dtype, dict(t=draw(tensors(shape, dtype, ordinary)),
                       g=draw(tensors(draw(odd(shape, any_shape())), draw(odd(dtype, dtypes)), draw(anything))))


# ---- training

SCORES = '^scores have shape .*, wanted entries on the last axis'

def row_scale(s):
    x, g = size(s['x']), size(s['g'])
    if s['out'].ndim == x.ndim: return 1., g.sum(-1, keepdim=True)
    # PyTorch's slope is exp(x - out), out rounded
    return 1 + x.max(-1).values, (g*(1 + x.max(-1).values))[..., None]

def scores(draw, of_rows):
    dtype, shape = draw(dtypes), draw(any_shape())
    out = shape[:-1] if of_rows else shape
    return dtype, dict(x=draw(tensors(shape, dtype, draw(anything))), g=draw(tensors(out, dtype, extreme)))

@contract(ours('logsumexp(x)', 'x'), theirs('torch.logsumexp(x, -1)', 'x'), [SCORES], row_scale)
def logsumexp(draw): return scores(draw, True)

@contract(ours('log_softmax(x)', 'x'), theirs('F.log_softmax(x, -1)', 'x'), [SCORES], row_scale)
def log_softmax(draw): return scores(draw, False)

@contract(ours('softmax(x)', 'x'), theirs('F.softmax(x, -1)', 'x'), [SCORES], row_scale)
def softmax(draw): return scores(draw, False)

@contract('got = largest(x)', 'want = x.amax(-1, keepdim=True)', [SCORES])
def largest(draw): return scores(draw, False)

LABELS = (r'^cross-entropy: got scores .* and labels .*; wanted \(n, c\) and \(n,\)',
          '^cross-entropy: labels are .*, wanted integers; pass targ.long',
          '^cross-entropy: got an empty batch; pass at least one row',
          '^cross-entropy: labels go from .* columns allow .*; number the classes from 0', SCORES)

@st.composite
def labels(draw, n, c):
    "Mostly n whole numbers below c; else others, or too few, or none"
    dtype = draw(st.sampled_from([torch.int64, torch.int64, torch.int32, torch.uint8]))
    low, high = 0, max(c, 1) - 1
    if draw(st.integers(0, 10)) == 0:
        dtype, low, high = torch.int64, *draw(st.sampled_from([(-100, -100), (-1, 1), (0, c),
            (10**10, 10**10)]))
    if draw(st.integers(0, 15)) == 0: dtype = draw(st.sampled_from([torch.float32, torch.bool]))
    return draw(tensors(draw(odd((n,), any_shape(), 15)), dtype, st.integers(low, high)))

@st.composite
def examples(draw, g=True):
    dtype, (n, c) = draw(dtypes), draw(st.tuples(sizes, sizes))
    made = dict(x=draw(tensors(draw(odd((n, c), any_shape(), 15)), dtype, draw(anything))),
                y=draw(labels(n, c)))
    return dtype, made | dict(g=draw(tensors((), dtype, ordinary)))

def loss_scale(s):
    g = size(s['g'])
    return 1 + size(s['x'][s['x'].isfinite()]).sum()/max(1, len(s['x'])), g/max(1, len(s['x']))

@contract(ours('nll(x, y)', 'x'), theirs('F.nll_loss(x, y.long())', 'x'),
          LABELS + ('^nll: log_probs are .*, wanted floating point; pass',), loss_scale)
def nll(draw): return draw(examples())

@contract(ours('cross_entropy(x, y)', 'x'), theirs('F.cross_entropy(x, y.long())', 'x'), LABELS, loss_scale)
def cross_entropy(draw): return draw(examples())

@contract(layer('CrossEntropy()', 'x, y', 'x'), theirs('F.cross_entropy(x, y.long())', 'x'),
          [*LABELS, OUT_G], loss_scale)
def CrossEntropy(draw): return draw(examples())

@contract('got = accuracy(x, y)',
          'want = torch.tensor(sum(int(i == j) for i, j in zip(x.max(1).indices.tolist(), y.tolist()))/len(y))',
          [r'^accuracy: got scores .* and labels .*; wanted \(n, c\) and \(n,\)',
           '^accuracy: labels are .*, wanted integers; pass yb.long'])
def accuracy(draw): return draw(examples())

# ---- fitting and speed

@contract('p.grad = g\nopt = SGD([p], lr)\nfor _ in range(2): opt.step()\ngot = p',
          'p.grad = g\nopt = torch.optim.SGD([p], lr)\nfor _ in range(2): opt.step()\nwant = p',
          scale=lambda s: 2*s['lr']*size(s['g']) + size(s['p']), changes='p')
def SGD(draw):
    dtype, shape = draw(dtypes), draw(any_shape())
    p = draw(tensors(shape, dtype, ordinary, ('plain', 'turned', 'strided', 'shifted')))
    return dtype, dict(p=p, g=draw(tensors(shape, dtype, draw(anything))),
                       lr=draw(st.sampled_from([0., .1, .5, 1., 1e-8])))

@contract('got = one_hot(y, c, dtype)', 'want = F.one_hot(y.long(), c).t().to(dtype)', LABELS)
def one_hot(draw):
    n, c, dtype = draw(st.sampled_from([0, 1, 3])), draw(st.sampled_from([1, 3, 5])), draw(dtypes)
    # no single number: FINDINGS
    return dtype, dict(y=draw(labels(n, c).filter(lambda code: '.reshape(' in code)), c=c, dtype=dtype)

PLAIN = '''w1, b1, w2, b2 = (t.detach().requires_grad_() for t in (w1, b1, w2, b2))
out = F.cross_entropy((x @ w1 + b1).relu() @ w2 + b2, y.long())
want = out, *torch.autograd.grad(out, (w1, b1, w2, b2))'''

def fast_scale(s):
    x, w1, b1, w2, b2 = (size(s[k]) for k in ('x', 'w1', 'b1', 'w2', 'b2'))
    l1 = x @ w1 + b1
    g = torch.ones(len(x), w2.shape[1], dtype=torch.float64)/len(x)
    g1 = g @ w2.t()
    return 1 + (l1 @ w2 + b2).max(), x.t() @ g1, g1.sum(0), l1.t() @ g, g.sum(0)

@st.composite
def fast(draw):
    dtype, (n, m, nh, c) = draw(dtypes), draw(st.tuples(*[st.sampled_from([1, 2, 3])]*4))
    shapes = dict(x=(n, m), w1=(m, nh), b1=(nh,), w2=(nh, c), b2=(c,))
    made = {k: draw(tensors(v, dtype, exact)) for k, v in shapes.items()}
    y = draw(tensors((n,), draw(st.sampled_from([torch.int64, torch.int32, torch.uint8])),
                     st.integers(0, c - 1)))
    return dtype, made | dict(y=y, chunk=draw(st.integers(1, 4)))

@contract('net = FastNetwork([(w1, b1), (w2, b2)])\nloss, grads = loss_and_gradients(net, x, y, '
          'chunk)\ngot = loss, *grads', PLAIN, scale=fast_scale)
def loss_and_gradients(draw): return draw(fast())

@contract('got = FastNetwork([(w1, b1), (w2, b2)]).forward(x)', 'want = ((x @ w1 + b1).relu() @ w2 + b2).t()')
def FastNetwork(draw): return draw(fast())

@contract('weights = [t.detach().requires_grad_() for t in (w1, b1, w2, b2)]\nout = '
          'NetworkLoss.apply(x, y, *weights)\ngot = out, *torch.autograd.grad(out, weights)',
          PLAIN, scale=fast_scale)
def NetworkLoss(draw): return draw(fast())


# ---- all of them

def count_cases(f, strategy, how=PROFILE):
    "Runs `f` on the cases of the strategy; how many there were"
    n = 0
    @how
    @given(strategy)
    def one(case):
        nonlocal n
        n += 1
        f(case)
    one()
    return n

def counted(n, name, record_property):
    "The count stands in the report of the test, and in what `-rP` shows"
    record_property('cases', n)
    print(f'{n} cases of {name}; '
          + ', '.join(f'{tried[k]} {k} so far' for k in ('refused', 'nearer to the truth than PyTorch')))
    assert n >= min(200, PROFILE.max_examples), f'only {n} cases: does the strategy run out?'


@pytest.mark.parametrize('name', CONTRACTS)
def test_as_pytorch(name, record_property): counted(count_cases(hold, CONTRACTS[name]), name, record_property)


@pytest.mark.parametrize('f', ['relu(x)', 'matmul(x, x)', 'lin(x, x, x[0])'])
def test_whole_numbers_stay_whole(f):
    x = torch.tensor([[1, -2], [0, 3]])
    got, want = (run(f'got = {f}', dict(head()) | dict(x=t))['got'] for t in (x, x.double()))
    assert got.dtype == torch.int64 and torch.equal(got.double(), want)


def test_whole_numbers_where_there_are_fractions():
    x, y = torch.tensor([[1, 2], [3, 4]]), torch.tensor([0, 1])
    for f in ('mse(x, x)', 'nll(x, y)', 'cross_entropy(x, y)', 'softmax(x)', 'logsumexp(x)',
              'mse(x.bool(), x.bool())'):
        with pytest.raises(TypeError, match='wanted floating point; pass'):
            run(f, dict(head()) | dict(x=x, y=y))


def test_the_report_says_what_it_was_given(capsys):
    cases = product([math.nan, math.inf, -math.inf, 1e-30, 12345.678], floats)
    for loss, dtype in cases:
        head()['report'](torch.tensor(loss, dtype=dtype),
                         torch.tensor([[1., 0.], [math.nan, 0.]], dtype=dtype), torch.tensor([0, 1]))
        assert capsys.readouterr().out == f'loss {torch.tensor(loss, dtype=dtype).item():.2f}, accuracy 0.50\n'


# ---- the comparisons themselves

@st.composite
def two_gradients(draw):
    shape, values = draw(any_shape()), draw(st.sampled_from([ordinary, broken,
        st.sampled_from([0., -0., 1e-300, 1e300, -1e300, 5e-324])]))
    dtype = draw(dtypes)
    got = draw(tensors(shape, dtype, values))
    same = draw(st.sampled_from(['', '*1.0625', '*1.25', ' + .01', None, None]))
    want = got + same if same is not None else draw(tensors(draw(odd(shape, any_shape())),
        draw(odd(dtype, dtypes)), values))
    return got, want

def judged_right(made, lib=None):
    """`check_close` takes what is near by numbers of 80 bits, and nothing that isn't a number; or
    says what it can't compare"""
    from backprop13.support import checks
    got, want = (eval(code, dict(head())) for code in made)
    check, text = (lib.checks if lib
                   else checks).check_close, f'check_close({made[0]}, {made[1]}, tolerance=.1)'
    def fail(what):
        raise Failed(f'{what}. To paste:\n\n{HEAD}from backprop13.support.checks import *\n{text}\n')
    tried['check_close'] += 1
    try: error = check(got, want, tolerance=.1)
    except AssertionError as e: error = str(e)
    except ValueError as e:
        if want.numel() or 'has no entries to compare' not in str(e): fail(f'refused by {e}')
        return
    except Exception as e: fail(f'crashed by {e!r}')
    if got.shape != want.shape or got.dtype != want.dtype:
        if isinstance(error, float) or 'shape' not in error and 'dtype' not in error:
            fail('took another shape or dtype')
        return
    a, b = (t.double().numpy().astype(np.longdouble) for t in (got, want))
    with np.errstate(all='ignore'):
        truth = np.sqrt(((a - b)**2).sum())/np.sqrt((b**2).sum()) if b.any() else (0. if not a.any()
            else np.inf)
    if abs(truth - .1) < 1e-6: return                                    # too near to call
    if (truth <= .1) != isinstance(error, float): fail(f'said {error}, the relative error is {truth}')
    if isinstance(error, float) and abs(error - truth) > 1e-9: fail(f'got {error}, wanted {truth}')

def test_check_close(record_property): counted(count_cases(judged_right, two_gradients()),
                                               'check_close', record_property)

@pytest.mark.parametrize('where,old,new,got,want', [
    ('relative_error', 'largest == 0', 'largest < 0', [0.], [0.]),
    ('relative_error', '.norm()/(b/largest).norm()', '.abs().max()', [1., 1.05], [1., 1.]),
    ('relative_error', 'a, b = got.double(), want.double()',
     'a, b = got.double().nan_to_num(), want.double().nan_to_num()', [math.nan], [0.]),
    ('check_close', 'not error <= limit', 'error > limit', [math.nan], [1.])])
def test_a_lenient_comparison_is_seen(where, old, new, got, want):
    judged_right(made := [f'torch.tensor({o})' for o in (got, want)])
    with Library(checks=mutated(f'checks.{where}', old, new)) as lib, pytest.raises(Failed,
            match='To paste'): judged_right(made, lib)


# ---- every contract can fail: bugs in the library, and the contract that must see each

inf, nan, DOUBLE, NO_ROWS = math.inf, math.nan, 'torch.ones(1, 1, dtype=torch.float64)', 'torch.ones(0, 1, dtype=torch.float32)'
ONES = dict(x=[[1.]], w=[[1.]], b=[1.], g=[[1.]])
NET = dict(x=[[1.]], t=[[0.]], w1=[[1.]], b1=[0.], w2=[[1.]], b2=[0.])
FAST = dict(x=[[1.]], w1=[[1.]], b1=[0.], w2=[[1., 0.]], b2=[0., 0.], y=[0], chunk=1)

# and a case that shows it, whatever Hypothesis would draw
BUGS = [
    ('matmul', 'matmul.matmul', 'return a @ b',
     'return (a.float() @ b.float()).to(a.dtype) if a.dtype == torch.float64 else a @ b',
     dict(a=[[.1]], b=[[1.]], g=[[1.]], of=torch.float64)),
    ('matmul', 'matmul.matmul', 'return a @ b', 'return a.nan_to_num() @ b',
     dict(a=[[nan]], b=[[1.]], g=[[1.]])),
    ('matmul', 'matmul.matmul', 'return a @ b', 'return a.reshape(a.shape[::-1]).t() @ b',
     dict(a=[[1., 2.], [3., 4.]], b=[[1.], [0.]], g=[[1.], [1.]])),
    ('matmul', 'matmul.matmul', 'if a.dtype != b.dtype', 'if False', dict(a=[[1.]], b=DOUBLE, g=[[1.]])),
    ('broadcast_shape', 'matmul.broadcast_shape', 'q if p == 1 else p', 'max(p, q)', dict(p=(0,), q=(1,))),
    ('relu', 'backprop.relu', 'x <= 0', 'x < 0', dict(x=[0.], g=[1.])),
    ('relu', 'backprop.relu', 'x.masked_fill(x <= 0, 0)', 'x*(x > 0)', dict(x=[-inf], g=[1.])),
    ('relu', 'backprop.relu', 'x.masked_fill(x <= 0, 0)', 'x.float().masked_fill(x <= 0, 0)',
     dict(x=[1.], g=[1.], of=torch.float64)),
    ('relu', 'backprop.relu', 'x.masked_fill(x <= 0, 0)', 'x.masked_fill_(x <= 0, 0)', dict(x=[-1.], g=[1.])),
    ('Relu', 'backprop.Relu', 'inp <= 0', 'inp < 0', dict(x=[0.], g=[1.])),
    ('Relu', 'backprop.Relu', 'out.g.masked_fill(inp <= 0, 0)', 'out.g*(inp > 0)', dict(x=[-1.], g=[inf])),
    ('Relu', 'backprop.Relu', 'inp <= 0', '~(inp > 0)', dict(x=[nan], g=[1.])),
    ('Relu', 'backprop.backward', 'add_grad(out, torch.ones_like(out) if g is None else g)',
     'out.g = torch.ones_like(out) if g is None else g', dict(x=[[1.]], g=1.)),
    ('Relu', 'backprop.add_grad', '(t.shape, t.dtype) != (g.shape, g.dtype)',
     't.shape != g.shape', dict(x=[[1.]], g=DOUBLE)),
    ('lin', 'backprop.lin', 'return out + b', 'return out + b.float()', dict(**ONES, of=torch.float16)),
    ('lin', 'backprop.lin', 'if b.shape != w.shape[1:]', 'if False', dict(**ONES | dict(b=[1., 2.]))),
    ('Lin', 'backprop.Lin', 'out.g.sum(0)', 'out.g.mean(0)*len(inp)',
     dict(**ONES | dict(x=NO_ROWS, g=NO_ROWS))),
    ('Lin', 'backprop.Lin', 'out.g @ self.w.t()', 'out.g.nan_to_num() @ self.w.t()',
     dict(**ONES | dict(g=[[nan]]))),
    ('Lin', 'backprop.backward', 'add_grad(out, torch.ones_like(out) if g is None else g)',
     'out.g = torch.ones_like(out) if g is None else g', dict(**ONES | dict(g=DOUBLE))),
    ('lin_grad', 'backprop.lin_grad', 'out.g.sum(0)', 'out.g.double().sum(0)', dict(**ONES)),
    ('Linear', 'backprop.Linear', 'lin(x, self.w, self.b)', 'lin(x, self.w, 2*self.b)', dict(**ONES)),
    ('mse', 'backprop.mse', '.square().mean()', '.square().nanmean()', dict(x=[nan, 1.], t=[1., 2.], g=1.)),
    ('mse', 'backprop.mse', 'if a != b', 'if False', dict(x=[1., 2.], t=[1., 2., 3.], g=1.)),
    ('Mse', 'backprop.Mse', '/inp.numel()', '/max(2, inp.numel())', dict(x=[1.], t=[0.], g=1.)),
    ('Mse', 'backprop.Mse', '*out.g', '*out.g.abs()', dict(x=[0.], t=[1.], g=-1.)),
    ('forward_and_backward', 'backprop.forward_and_backward', '/out.numel()', '/len(out)',
     dict(**NET | dict(t=[[0., 0.]], w2=[[1., 1.]], b2=[0., 0.]))),
    ('forward_and_backward', 'backprop.forward_and_backward', 'l2.g.masked_fill(l1 <= 0, 0)', 'l2.g*(l1 > 0)',
     dict(**NET | dict(w1=[[-1.]], b2=[inf]))),
    ('Model', 'backprop.backward', 'layer.bwd(t, *args)',
     't.g = t.g.nan_to_num(); layer.bwd(t, *args)', dict(**NET | dict(b2=[nan]))),
    ('add_grad', 'backprop.add_grad', 't.g + g', 'g', dict(t=[1.], g=[1.])),
    ('add_grad', 'backprop.add_grad', '(t.shape, t.dtype) != (g.shape, g.dtype)',
     't.shape != g.shape', dict(t=[[1.]], g=DOUBLE)),
    ('logsumexp', 'minibatch.logsumexp', '.nan_to_num()', '.clamp(-60, 60)', dict(x=[1e4], g=1.)),
    ('logsumexp', 'minibatch.logsumexp', 'largest(x).nan_to_num()',
     'largest(x).masked_fill(largest(x).isinf(), 0)', dict(x=[inf, 1e4], g=1.)),
    ('log_softmax', 'minibatch.log_softmax', 'x = x - largest(x)', '', dict(x=[1e4, 1e4], g=[1., 0.])),
    ('log_softmax', 'minibatch.log_softmax', 'x = x - largest(x)',
     'x = x - largest(x).nan_to_num()', dict(x=[inf, 0.], g=[1., 1.])),
    ('softmax', 'minibatch.softmax', 'log_softmax(x).exp()',
     'x.exp()/x.exp().sum(-1, keepdim=True)', dict(x=[1e4, 0.], g=[1., 0.])),
    ('softmax', 'minibatch.softmax', 'log_softmax(x).exp()', 'log_softmax(x.float()).exp()',
     dict(x=[1., 0.], g=[1., 0.], of=torch.float64)),
    ('softmax', 'minibatch.softmax', 'log_softmax(x).exp()', 'log_softmax(x).exp().nan_to_num()',
     dict(x=[nan, 0.], g=[1., 0.])),
    ('softmax', 'minibatch.largest', 'if not x.ndim or not x.shape[-1]', 'if False',
     dict(x='torch.ones(2, 0)', g='torch.ones(2, 0)')),
    ('largest', 'minibatch.largest', 'x.max(-1', 'x.nan_to_num().max(-1', dict(x=[nan, 0.])),
    ('nll', 'minibatch.nll', '.mean()', '.nanmean()', dict(x=[[nan], [0.]], y=[0, 0], g=1.)),
    ('nll', 'minibatch.check_labels', 'lo < 0 or ', '', dict(x=[[0., 1.]], y=[-1], g=1.)),
    ('nll', 'minibatch.check_labels', 'if not len(targ)', 'if False', dict(x=NO_ROWS, y=[], g=1.)),
    ('cross_entropy', 'minibatch.cross_entropy', 'return nll(log_softmax(logits)',
     'return nll(log_softmax(logits.clamp(-50, 50))',
     dict(x=[[0., 1e4]], y=[0], g=1.)),
    ('CrossEntropy', 'minibatch.CrossEntropy', 'g/len(targ)*out.g', 'g/len(targ)',
     dict(x=[[0., 1.]], y=[0], g=2.)),
    ('CrossEntropy', 'minibatch.CrossEntropy', 'softmax(inp)', 'softmax(inp).nan_to_num()',
     dict(x=[[nan, 0.]], y=[0], g=1.)),
    ('accuracy', 'minibatch.accuracy', 'out.argmax(dim=1)', 'out.nan_to_num().argmax(dim=1)',
     dict(x=[[nan, 1.]], y=[0])),
    ('accuracy', 'minibatch.accuracy', ' or not out.numel()', '', dict(x=NO_ROWS, y=[])),
    ('SGD', 'fitting.SGD', 'p -= self.lr*p.grad', 'p -= self.lr*p.grad.nan_to_num()',
     dict(p=[1.], g=[nan], lr='.5')),
    ('one_hot', 'speed.one_hot', 'dtype=dtype', 'dtype=torch.float32',
     dict(y=[0], c=1, dtype=torch.float64, of=torch.float64)),
    ('loss_and_gradients', 'speed.loss_and_gradients', '1/len(x)', '1/len(xb)',
     dict(**FAST | dict(x=[[1.], [1.]], y=[0, 1]))),
    ('FastNetwork', 'speed.FastNetwork', '.relu_()', '.abs_()', dict(**FAST | dict(w1=[[-1.]]))),
    ('NetworkLoss', 'speed.NetworkLoss', 'g *= inputs[i] > 0', 'g *= inputs[i] >= 0',
     dict(**FAST | dict(x=[[0.]])))]

def test_every_contract_has_its_bugs(): assert {name for name, *_ in BUGS} == set(CONTRACTS)

@pytest.mark.parametrize('name,where,old,new,inputs', BUGS)
def test_a_bug_is_seen(name, where, old, new, inputs, record_property):
    hold(case := stated(name, **inputs))
    with Library(**{where.split('.')[0]: mutated(where, old, new)}) as lib, pytest.raises(Failed,
        match='To paste'):
        hold(case, names_of(lib))
    record_property('mutant', 'numbers at their edges')


def test_what_a_failure_prints_runs():
    """Pasted into another Python, it prints the numbers that the failure names, in tensors that
    lie in memory as those of the case"""
    for way in '.reshape(2, 2).permute(1, 0)', '.reshape(2, 2)[..., ::2]', '.reshape(4, 1)[1:]', '[:2].reshape(1, 2).expand(3, 2)':
        code = f'torch.tensor([1., -inf, 1e-30, nan]){way}'
        case = stated('softmax', x=code, g=f'torch.ones({code}.shape)')
        hold(case)
        case.theirs = case.theirs.replace('F.softmax(x, -1)', 'F.softmax(x, -1) + 1')
        with pytest.raises(Failed) as e: hold(case)
        message, out = str(e.value).partition('To paste:\n\n')[2], io.StringIO()
        with contextlib.redirect_stdout(out): space = run(message, {})
        assert len(out.getvalue().splitlines()) >= 2
        x = eval(code, dict(head()))
        assert (x.stride(), x.storage_offset(), x.shape, x.dtype) == (space['x'].stride(),
            space['x'].storage_offset(), space['x'].shape, space['x'].dtype)
    r = subprocess.run([sys.executable, '-c', message], capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.startswith('(tensor('), r.stderr


# ---- what speed refuses

@pytest.mark.parametrize('what', [
    'loss_and_gradients(net, x, y[:1])',                  # one label for four images would broadcast
    'loss_and_gradients(net, x, y[:3])', 'loss_and_gradients(net, x, y, 0)',
    'NetworkLoss.apply(x, y - 101, *weights)', 'NetworkLoss.apply(x, y.float(), *weights)',
    'NetworkLoss.apply(x, y - 100, *weights)', 'NetworkLoss.apply(x[:0], y[:0], *weights)',
    'loss_and_gradients(net, x.double(), y)', 'loss_and_gradients(net, x[:, :2], y)', 'one_hot(y[0], 3)'])
def test_speed_refuses(what):
    weights = [torch.ones(3, 5), torch.ones(5), torch.ones(5, 2), torch.ones(2)]
    space = dict(head()) | dict(x=torch.ones(4, 3), y=torch.tensor([0, 1, 1, 0]), weights=weights)
    run('net = FastNetwork(list(zip(weights[::2], weights[1::2])))', space)
    with pytest.raises((ValueError, TypeError), match='cross-entropy: |wanted|pass'): run(what, space)
