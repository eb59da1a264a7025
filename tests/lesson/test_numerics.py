"""Numbers at their edges: what each function and layer of the lesson gives is what PyTorch gives, in value, gradient,
shape and dtype; or it refuses, by a ValueError or TypeError that the contract below names. Hypothesis makes the cases:
shapes (none, empty, up to three axes, some that don't fit), float16 to float64, tensors turned, strided, shifted and
expanded in memory, values up to ±10000, down to 1e-30, infinite and nan. Ordinary numbers in ordinary shapes, and most
bugs, are the cards' matter.

A case is a program: what runs is what a failure prints, to be pasted into Python. CI draws the same cases every time;
HYPOTHESIS_PROFILE=long python -m pytest tests/lesson/test_numerics.py draws others, 50 times as many. `-rP` shows how
many cases each contract has tried."""
import contextlib, functools, io, math, os, re, subprocess, sys
from collections import Counter
from types import SimpleNamespace

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
        program = f'{case.inputs}{case.ours}\n{case.theirs}\nprint(got); print(want)\n'
        raise Failed(f'{case.name}: {what}. To paste:\n\n{HEAD}{program}')
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

def contract(name, strategy, ours, theirs, refuses=(), scale=None, changes=()):
    "`ours` sets `got` and `theirs` sets `want`, from what the strategy's tensors are called"
    def case(made):
        dtype, inputs = made
        text = ''.join(f'{k} = {v}\n' for k, v in inputs.items())
        return SimpleNamespace(name=name, ours=ours, theirs=theirs, inputs=text, refuses=refuses, scale=scale,
                               changes=changes, dtype=dtype)
    CONTRACTS[name], CASES[name] = strategy.map(case), case

def stated(name, of=torch.float32, **inputs):
    "A case that nothing draws: lists and fractions are tensors, of labels whole ones; text is code"
    def code(k, v):
        if not isinstance(v, (list, float)): return v
        return f'torch.tensor({v}, dtype={torch.int64 if k == "y" else of})'
    return CASES[name]((of, {k: code(k, v) for k, v in inputs.items()}))

def both(f, *names):
    "A program for value and gradients by autograd of the function call `f`"
    wrt = ', '.join(names)
    leaves = ''.join(f'{k} = {k}.detach().requires_grad_()\n' for k in names)
    return f'{leaves}out = {f}\nRESULT = out, *torch.autograd.grad(out, ({wrt},), g)'

def ours(f, *names): return both(f, *names).replace('RESULT', 'got')
def theirs(f, *names): return both(f, *names).replace('RESULT', 'want')

def layer(make, call, *got):
    "A program for value and gradients by our own backward pass"
    grads = ', '.join(f'{k}.g' for k in got)
    return f'layer = {make}\nout = layer({call})\nout.g = g\nlayer.backward()\ngot = out, {grads}'

def size(t): return t.detach().double().abs().nan_to_num(0, 0, 0)


# ---- matmul

FIT = 'do not fit|wanted two axes|wanted the same'

def outcome(a, b): return (a[0], b[1]) if len(a) == len(b) == 2 else ()

def product_scale(s):
    a, b, g = map(size, (s['a'], s['b'], s['g']))
    return a @ b, g @ b.t(), a.t() @ g

@st.composite
def a_product(draw):
    dtype, (n, m, k) = draw(dtypes), draw(st.tuples(sizes, sizes, sizes))
    a, b = draw(odd((n, m), any_shape())), draw(odd((m, k), any_shape()))
    return dtype, dict(a=draw(tensors(a, dtype, draw(anything))),
                       b=draw(tensors(b, draw(odd(dtype, dtypes)), draw(anything))),
                       g=draw(tensors(outcome(a, b), dtype, draw(anything))))

contract('matmul', a_product(), ours('matmul(a, b)', 'a', 'b'), theirs('torch.mm(a, b)', 'a', 'b'),
         ['^matmul: .*' + f'({FIT})'], product_scale)

shapes = st.lists(st.sampled_from([0, 1, 1, 2, 3]), max_size=4).map(tuple)

contract('broadcast_shape', st.fixed_dictionaries(dict(p=shapes, q=shapes)).map(lambda o: (torch.float64, o)),
         'got = broadcast_shape(p, q)', 'want = tuple(torch.broadcast_shapes(p, q))',
         ['^broadcast_shape: .*do not broadcast.*make the two equal'])


# ---- backprop

OUT_G = '^add_grad: a gradient of shape .*, for a tensor of shape .*; they must be equal'

@st.composite
def element_wise(draw):
    dtype, shape = draw(dtypes), draw(any_shape())
    return dtype, dict(x=draw(tensors(shape, dtype, draw(anything))),
                       g=draw(tensors(shape, dtype, draw(anything))))

@st.composite
def odd_g(draw, of):
    "Now and then a gradient of another shape or dtype"
    dtype, made = draw(of)
    if draw(st.integers(0, 8)) == 0: made['g'] = draw(tensors(draw(any_shape()), draw(dtypes), ordinary))
    return dtype, made

contract('relu', element_wise(), ours('relu(x)', 'x'), theirs('F.relu(x)', 'x'))
contract('Relu', odd_g(element_wise()), layer('Relu()', 'x', 'x'), theirs('F.relu(x)', 'x'), [OUT_G])

LIN = (r'^lin, a = x and b = w: matmul: .*' + f'({FIT})', '^lin: w is .*wanted the same; pass b.to',
       r'^lin: w .* gives \d+ outputs but b is .*; pass b of shape')

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

LINEAR = theirs('x @ w + b', 'x', 'w', 'b')
contract('lin', a_layer(), ours('lin(x, w, b)', 'x', 'w', 'b'), LINEAR, LIN, lin_scale)
contract('Lin', odd_g(a_layer()), layer('Lin(w, b)', 'x', 'x', 'w', 'b'), LINEAR, [*LIN, OUT_G], lin_scale)
contract('lin_grad', a_layer(),
         'out = lin(x, w, b)\nout.g = g\nlin_grad(x, out, w, b)\ngot = out, x.g, w.g, b.g', LINEAR,
         [*LIN, f'^matmul: .*({FIT})', '^lin_grad: .* but its gradient is .*; pass the inp, w and b that gave out'],
         lin_scale)
# in float16 PyTorch adds b before it rounds
contract('Linear', a_layer(False).filter(lambda made: made[0] != torch.float16),
         'layer = Linear(x.shape[1], len(b), torch.Generator().manual_seed(0)).to(x.dtype)\n'
         'layer.w.data, layer.b.data = w, b\n' + ours('layer(x)', 'x'),
         theirs('F.linear(x, w.t(), b)', 'x'), scale=lambda s: lin_scale(s)[:2])

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

contract('mse', a_pair(), ours('mse(x, t)', 'x'), theirs('F.mse_loss(x, t)', 'x'), MSE, mse_scale)
contract('Mse', odd_g(a_pair()), layer('Mse()', 'x, t', 'x'), theirs('F.mse_loss(x, t)', 'x'), [*MSE, OUT_G], mse_scale)

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
def a_network(draw):
    dtype, (n, m, nh, c), values = draw(dtypes), draw(st.tuples(sizes, sizes, sizes, sizes)), draw(anything)
    shapes = dict(x=(n, m), t=(n, c), w1=(m, nh), b1=(nh,), w2=(nh, c), b2=(c,))
    return dtype, {k: draw(tensors(draw(odd(v, any_shape(), 30)), draw(odd(dtype, dtypes, 60)),
                                   values)) for k, v in shapes.items()}

GRADS = 'got = out, x.g, w1.g, b1.g, w2.g, b2.g'
contract('forward_and_backward', a_network(), f'out = forward_and_backward(x, t, w1, b1, w2, b2)\n{GRADS}', NETWORK,
         [*LIN, *MSE], network_scale)
contract('Model', a_network(), f'model = Model(w1, b1, w2, b2)\nout = model(x, t)\nmodel.backward()\n{GRADS}', NETWORK,
         [*LIN, *MSE], network_scale)

@st.composite
def added(draw):
    dtype, shape = draw(dtypes), draw(any_shape())
    return dtype, dict(t=draw(tensors(shape, dtype, ordinary)),
                       g=draw(tensors(draw(odd(shape, any_shape())), draw(odd(dtype, dtypes)), draw(anything))))

contract('add_grad', added(), 'add_grad(t, g); add_grad(t, g); got = t.g\nzero_grads(t); got = got, t.g',
         't = t.detach().requires_grad_()\nfor _ in range(2): t.backward(g)\nwant = t.grad, None', [OUT_G])


# ---- training

SCORES = '^scores have shape .*, wanted entries on the last axis'

def row_scale(s):
    x, g = size(s['x']), size(s['g'])
    if s['out'].ndim == x.ndim: return 1., g.sum(-1, keepdim=True)
    # PyTorch's slope is exp(x - out), out rounded
    return 1 + x.max(-1).values, (g*(1 + x.max(-1).values))[..., None]

@st.composite
def scores(draw, of_rows=False):
    dtype, shape = draw(dtypes), draw(any_shape())
    out = shape[:-1] if of_rows else shape
    return dtype, dict(x=draw(tensors(shape, dtype, draw(anything))), g=draw(tensors(out, dtype, extreme)))

for f, torchs in ('logsumexp', 'torch.logsumexp'), ('log_softmax', 'F.log_softmax'), ('softmax', 'F.softmax'):
    contract(f, scores(f == 'logsumexp'), ours(f'{f}(x)', 'x'), theirs(f'{torchs}(x, -1)', 'x'), [SCORES], row_scale)
contract('largest', scores(), 'got = largest(x)', 'want = x.amax(-1, keepdim=True)', [SCORES])

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
        low, high = draw(st.sampled_from([(-100, -100), (-1, 1), (0, c), (10**10, 10**10)]))
        dtype = torch.int64
    if draw(st.integers(0, 15)) == 0: dtype = draw(st.sampled_from([torch.float32, torch.bool]))
    return draw(tensors(draw(odd((n,), any_shape(), 15)), dtype, st.integers(low, high)))

@st.composite
def examples(draw):
    dtype, (n, c) = draw(dtypes), draw(st.tuples(sizes, sizes))
    made = dict(x=draw(tensors(draw(odd((n, c), any_shape(), 15)), dtype, draw(anything))),
                y=draw(labels(n, c)))
    return dtype, made | dict(g=draw(tensors((), dtype, ordinary)))

def loss_scale(s):
    g = size(s['g'])
    return 1 + size(s['x'][s['x'].isfinite()]).sum()/max(1, len(s['x'])), g/max(1, len(s['x']))

CROSS = theirs('F.cross_entropy(x, y.long())', 'x')
contract('nll', examples(), ours('nll(x, y)', 'x'), theirs('F.nll_loss(x, y.long())', 'x'),
         LABELS + ('^nll: log_probs are .*, wanted floating point; pass',), loss_scale)
contract('cross_entropy', examples(), ours('cross_entropy(x, y)', 'x'), CROSS, LABELS, loss_scale)
contract('CrossEntropy', examples(), layer('CrossEntropy()', 'x, y', 'x'), CROSS, [*LABELS, OUT_G], loss_scale)
contract('accuracy', examples(), 'got = accuracy(x, y)',
         'right = sum(int(i == j) for i, j in zip(x.max(1).indices.tolist(), y.tolist()))\n'
         'want = torch.tensor(right/len(y))',
         [r'^accuracy: got scores .* and labels .*; wanted \(n, c\) and \(n,\)',
          '^accuracy: labels are .*, wanted integers; pass yb.long'])

# ---- fitting and speed

@st.composite
def a_step(draw):
    dtype, shape = draw(dtypes), draw(any_shape())
    p = draw(tensors(shape, dtype, ordinary, ('plain', 'turned', 'strided', 'shifted')))
    return dtype, dict(p=p, g=draw(tensors(shape, dtype, draw(anything))),
                       lr=draw(st.sampled_from([0., .1, .5, 1., 1e-8])))

STEPS = 'p.grad = g\nopt = SGD([p], lr)\nfor _ in range(2): opt.step()\n'
contract('SGD', a_step(), STEPS + 'got = p', STEPS.replace('SGD', 'torch.optim.SGD') + 'want = p',
         scale=lambda s: 2*s['lr']*size(s['g']) + size(s['p']), changes='p')

@st.composite
def classes(draw):
    n, c, dtype = draw(st.sampled_from([0, 1, 3])), draw(st.sampled_from([1, 3, 5])), draw(dtypes)
    # no single number, which F.one_hot takes
    return dtype, dict(y=draw(labels(n, c).filter(lambda code: '.reshape(' in code)), c=c, dtype=dtype)

contract('one_hot', classes(), 'got = one_hot(y, c, dtype)', 'want = F.one_hot(y.long(), c).t().to(dtype)', LABELS)

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

FAST = 'FastNetwork([(w1, b1), (w2, b2)])'
contract('loss_and_gradients', fast(), f'loss, grads = loss_and_gradients({FAST}, x, y, chunk)\ngot = loss, *grads',
         PLAIN, scale=fast_scale)
contract('FastNetwork', fast(), f'got = {FAST}.forward(x)', 'want = ((x @ w1 + b1).relu() @ w2 + b2).t()')
contract('NetworkLoss', fast(), 'weights = [t.detach().requires_grad_() for t in (w1, b1, w2, b2)]\n'
         'out = NetworkLoss.apply(x, y, *weights)\ngot = out, *torch.autograd.grad(out, weights)', PLAIN,
         scale=fast_scale)


# ---- all of them

@pytest.mark.parametrize('name', CONTRACTS)
def test_as_pytorch(name, record_property):
    n = 0
    @PROFILE
    @given(CONTRACTS[name])
    def one(case):
        nonlocal n
        n += 1
        hold(case)
    one()
    record_property('cases', n)
    print(f'{n} cases of {name}; '
          + ', '.join(f'{tried[k]} {k} so far' for k in ('refused', 'nearer to the truth than PyTorch')))
    assert n >= min(200, PROFILE.max_examples), f'only {n} cases: does the strategy run out?'


@pytest.mark.parametrize('f', ['relu(x)', 'matmul(x, x)', 'lin(x, x, x[0])'])
def test_whole_numbers_stay_whole(f):
    x = torch.tensor([[1, -2], [0, 3]])
    got, want = (run(f'got = {f}', dict(head()) | dict(x=t))['got'] for t in (x, x.double()))
    assert got.dtype == torch.int64 and torch.equal(got.double(), want)


def test_whole_numbers_are_no_log_probabilities():
    with pytest.raises(TypeError, match='wanted floating point; pass'):
        run('nll(x, y)', dict(head()) | dict(x=torch.ones(2, 2).int(), y=torch.tensor([0, 1])))


# ---- every contract can fail: bugs that no card sees, or one at least, and the contract that must see each

inf, nan = math.inf, math.nan
DOUBLE, NO_ROWS = 'torch.ones(1, 1, dtype=torch.float64)', 'torch.ones(0, 1, dtype=torch.float32)'
ONES = dict(x=[[1.]], w=[[1.]], b=[1.], g=[[1.]])
NET = dict(x=[[1.]], t=[[0.]], w1=[[1.]], b1=[0.], w2=[[1.]], b2=[0.])
TWO = dict(x=[[1.]], w1=[[1.]], b1=[0.], w2=[[1., 0.]], b2=[0., 0.], y=[0], chunk=1)

# and a case that shows it, whatever Hypothesis would draw
BUGS = [
    ('matmul', 'matmul.matmul', 'return a @ b', 'return a.nan_to_num() @ b', dict(a=[[nan]], b=[[1.]], g=[[1.]])),
    ('broadcast_shape', 'matmul.broadcast_shape', 'q if p == 1 else p', 'max(p, q)', dict(p=(0,), q=(1,))),
    ('relu', 'backprop.relu', 'x.masked_fill(x <= 0, 0)', 'x*(x > 0)', dict(x=[-inf], g=[1.])),
    ('Relu', 'backprop.Relu', 'out.g.masked_fill(inp <= 0, 0)', 'out.g*(inp > 0)', dict(x=[-1.], g=[inf])),
    ('Relu', 'backprop.Relu', 'inp <= 0', '~(inp > 0)', dict(x=[nan], g=[1.])),
    ('lin', 'backprop.lin', 'return out + b', 'return out + b.float()', dict(**ONES, of=torch.float16)),
    ('Lin', 'backprop.Lin', 'out.g.sum(0)', 'out.g.mean(0)*len(inp)', ONES | dict(x=NO_ROWS, g=NO_ROWS)),
    ('Lin', 'backprop.Lin', 'out.g @ self.w.t()', 'out.g.nan_to_num() @ self.w.t()', ONES | dict(g=[[nan]])),
    ('lin_grad', 'backprop.lin_grad', 'out.g.sum(0)', 'out.g.double().sum(0)', ONES),
    ('Linear', 'backprop.Linear', 'lin(x, self.w, self.b)', 'lin(x, self.w, 2*self.b)', ONES),
    ('mse', 'backprop.mse', '.square().mean()', '.square().nanmean()', dict(x=[nan, 1.], t=[1., 2.], g=1.)),
    ('Mse', 'backprop.Mse', '*out.g', '*out.g.abs()', dict(x=[0.], t=[1.], g=-1.)),
    ('forward_and_backward', 'backprop.forward_and_backward', 'l2.g.masked_fill(l1 <= 0, 0)', 'l2.g*(l1 > 0)',
     NET | dict(w1=[[-1.]], b2=[inf])),
    ('Model', 'backprop.backward', 'layer.bwd(t, *args)', 't.g = t.g.nan_to_num(); layer.bwd(t, *args)',
     NET | dict(b2=[nan])),
    ('add_grad', 'backprop.add_grad', 't.g + g', 'g', dict(t=[1.], g=[1.])),
    ('logsumexp', 'minibatch.logsumexp', 'largest(x).nan_to_num()', 'largest(x).masked_fill(largest(x).isinf(), 0)',
     dict(x=[inf, 1e4], g=1.)),
    ('log_softmax', 'minibatch.log_softmax', 'x = x - largest(x)', '', dict(x=[1e4, 1e4], g=[1., 0.])),
    ('softmax', 'minibatch.softmax', 'log_softmax(x).exp()', 'x.exp()/x.exp().sum(-1, keepdim=True)',
     dict(x=[1e4, 0.], g=[1., 0.])),
    ('largest', 'minibatch.largest', 'x.max(-1', 'x.nan_to_num().max(-1', dict(x=[nan, 0.])),
    ('nll', 'minibatch.nll', '.mean()', '.nanmean()', dict(x=[[nan], [0.]], y=[0, 0], g=1.)),
    ('cross_entropy', 'minibatch.cross_entropy', 'return nll(log_softmax(logits)',
     'return nll(log_softmax(logits.clamp(-50, 50))', dict(x=[[0., 1e4]], y=[0], g=1.)),
    ('CrossEntropy', 'minibatch.CrossEntropy', 'softmax(inp)', 'softmax(inp).nan_to_num()',
     dict(x=[[nan, 0.]], y=[0], g=1.)),
    ('accuracy', 'minibatch.accuracy', 'out.argmax(dim=1)', 'out.nan_to_num().argmax(dim=1)',
     dict(x=[[nan, 1.]], y=[0])),
    ('SGD', 'fitting.SGD', 'p -= self.lr*p.grad', 'p -= self.lr*p.grad.nan_to_num()', dict(p=[1.], g=[nan], lr='.5')),
    ('one_hot', 'speed.one_hot', 'dtype=dtype', 'dtype=torch.float32',
     dict(y=[0], c=1, dtype=torch.float64, of=torch.float64)),
    ('loss_and_gradients', 'speed.loss_and_gradients', '1/len(x)', '1/len(xb)',
     TWO | dict(x=[[1.], [1.]], y=[0, 1])),
    ('FastNetwork', 'speed.FastNetwork', '.relu_()', '.abs_()', TWO | dict(w1=[[-1.]])),
    ('NetworkLoss', 'speed.NetworkLoss', 'g *= inputs[i] > 0', 'g *= inputs[i] >= 0', TWO | dict(x=[[0.]]))]

def test_every_contract_has_its_bugs(): assert {name for name, *_ in BUGS} == set(CONTRACTS)

@pytest.mark.parametrize('name,where,old,new,inputs', BUGS)
def test_a_bug_is_seen(name, where, old, new, inputs, record_property):
    hold(case := stated(name, **inputs))
    with Library(**{where.split('.')[0]: mutated(where, old, new)}) as lib, pytest.raises(Failed,
        match='To paste'):
        hold(case, names_of(lib))
    record_property('mutant', 'numbers at their edges')


def test_what_a_failure_prints_runs():
    "Pasted into another Python, it prints the numbers that the failure names, in tensors that lie in memory as its own"
    for way in ('.reshape(2, 2).permute(1, 0)', '.reshape(2, 2)[..., ::2]', '.reshape(4, 1)[1:]',
                '[:2].reshape(1, 2).expand(3, 2)'):
        code = f'torch.tensor([1., -inf, 1e-30, nan]){way}'
        case = stated('softmax', x=code, g=f'torch.ones({code}.shape)')
        hold(case)
        case.theirs = case.theirs.replace('F.softmax(x, -1)', 'F.softmax(x, -1) + 1')
        with pytest.raises(Failed) as e: hold(case)
        message, out = str(e.value).partition('To paste:\n\n')[2], io.StringIO()
        with contextlib.redirect_stdout(out): space = run(message, {})
        assert len(out.getvalue().splitlines()) >= 2
        a, b = eval(code, dict(head())), space['x']
        assert (a.stride(), a.storage_offset(), a.shape, a.dtype) == (b.stride(), b.storage_offset(), b.shape, b.dtype)
    r = subprocess.run([sys.executable, '-c', message], capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.startswith('(tensor('), r.stderr
