"""Seeded bugs, and the property that must kill each. A bug is a change to one place of the library's source, made in memory; the
whole package is then executed anew under another name, and the property, a function of the package, must raise AssertionError.
A crash of another kind is no kill: it would tell nothing of the check. Every run ends with the count of the killed."""
import ast, contextlib, copy, gc, importlib, importlib.abc, importlib.util, io, itertools, math, os, random, sys, tempfile, weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest, torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import backprop13
from backprop13 import backprop, training
from backprop13.checks import autograd_grads, check_close, check_grads, check_op, our_grads
from backprop13.ledger import ENTRIES
from test_backprop import a_dead_layer_is_no_other, containers_are_right, walks_add_up

folder = Path(backprop13.__file__).parent
modules = 'matmul', 'backprop', 'training', 'checks', 'fitting', 'speed'
inf, nan, f64 = float('inf'), float('nan'), torch.float64


# ---- the package with one place changed

def mutated(where, old, new):
    "The source of the module in `where`, such as 'backprop.Lin', with `old` replaced in that definition, where it stands once"
    module, name = where.split('.', 1)
    text = (folder/f'{module}.py').read_text(encoding='utf-8')
    for o in ast.parse(text).body:
        names = [o.name] if hasattr(o, 'name') else [ast.unparse(t) for t in getattr(o, 'targets', [])]
        if name in names:
            lines = text.splitlines(keepends=True)
            part = ''.join(lines[o.lineno - 1:o.end_lineno])
            assert part.count(old) == 1, f'stale row: {old!r} stands {part.count(old)} times in {where}, wanted once'
            return ''.join(lines[:o.lineno - 1]) + part.replace(old, new) + ''.join(lines[o.end_lineno:])
    raise AssertionError(f'stale row: backprop13.{module} has no {name}')


class Modules:
    "The modules of a package as attributes, imported when they are asked for"
    def __init__(self, name): self.name = name
    def __getattr__(self, module): return importlib.import_module(f'{self.name}.{module}')


class Library(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "The package executed afresh, with `sources` in place of some modules' own: `with Library() as lib: lib.backprop.lin`"
    number = itertools.count()
    def __init__(self, **sources): self.sources, self.name = sources, f'mutant{next(self.number)}'
    def __enter__(self):
        sys.meta_path.insert(0, self)
        return Modules(self.name)
    def __exit__(self, *error):
        sys.meta_path.remove(self)
        for k in [k for k in sys.modules if k.partition('.')[0] == self.name]: del sys.modules[k]
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition('.')[0] == self.name:
            return importlib.util.spec_from_loader(fullname, self, is_package=fullname == self.name)
    def exec_module(self, module):
        name = module.__name__.partition('.')[2] or '__init__'
        text = self.sources.get(name) or (folder/f'{name}.py').read_text(encoding='utf-8')
        exec(compile(text, f'{module.__name__}.py', 'exec'), vars(module))


def kill(prop, where, old, new):
    "What the property says of the library with `old` replaced by `new`; fails if it says nothing"
    source = mutated(where, old, new)
    with Library(**{where.split('.')[0]: source}) as lib:
        try: prop(lib)
        except AssertionError as e: return str(e)
        except Exception as e: pytest.fail(f'{prop.__name__} crashed on {new!r} for {old!r} in {where}, which is no kill: {e!r}')
    pytest.fail(f'{prop.__name__} did not see {new!r} for {old!r} in {where}')


# ---- inputs

def rand(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=f64)

_random = random.Random(13)
shapes = [(3, 3, 3), (1, 1, 1), (1, 4, 3), (5, 1, 3), (5, 4, 1), *(tuple(_random.choices(range(1, 7), k=3)) for _ in range(3))]

def layer_data(n, m, nh): return rand(n, m, seed=1), rand(m, nh, seed=2), rand(nh, seed=3)

def network(n, m, nh, c=1):
    sizes = dict(x=(n, m), targ=(n, c), w1=(m, nh), b1=(nh,), w2=(nh, c), b2=(c,))
    return {k: rand(*size, seed=i) for i, (k, size) in enumerate(sizes.items())}

def network_loss(x, targ, w1, b1, w2, b2): return F.mse_loss((x @ w1 + b1).relu() @ w2 + b2, targ)

def network_grads(d):
    want = autograd_grads(network_loss, **d)
    del want['targ']
    return want

def scores(n, c): return rand(n, c, seed=7), (torch.arange(n) + 1) % c

def refuses(error, message, f, *args, **kw):
    "`f(*args)` must raise `error`, and say `message`"
    try: f(*args, **kw)
    except Exception as e: assert isinstance(e, error) and message in str(e), f'{e!r}, wanted {error.__name__}: {message}'
    else: raise AssertionError(f'{f.__name__} took {[a.shape if isinstance(a, torch.Tensor) else a for a in args]}')

def g_of(**tensors): return {k: getattr(t, 'g', None) for k, t in tensors.items()}

def equal(got, want): torch.testing.assert_close(got, want, equal_nan=True)


# ---- the properties, each a function of the library

def multiplies(lib):
    for n, m, k in shapes: check_op(lib.matmul.matmul, torch.matmul, a=rand(n, m), b=rand(m, k, seed=1))

def matmul_refuses(lib):
    a, mm = rand(4, 3), lib.matmul.matmul
    refuses(ValueError, '3 columns, 4 rows', mm, a, rand(4, 2))
    refuses(ValueError, 'a is (3,), wanted two axes', mm, a[0], rand(3, 2))
    refuses(ValueError, 'b is (3,), wanted two axes', mm, a, rand(3))
    refuses(ValueError, 'b is (4, 3, 2), wanted two axes', mm, a, rand(4, 3, 2))
    refuses(TypeError, 'pass b.to(torch.float64)', mm, a, rand(3, 2).float())

def broadcasts(lib):
    for ndims in itertools.product(range(4), repeat=2):
        for a, b in itertools.product(*(itertools.product((1, 2, 3), repeat=k) for k in ndims)):
            try: want = tuple(torch.broadcast_shapes(a, b))
            except RuntimeError: refuses(ValueError, 'do not broadcast', lib.matmul.broadcast_shape, a, b)
            else:
                got = lib.matmul.broadcast_shape(a, b)
                assert got == want, (a, b, got)

def lin_is_right(lib):
    for s in shapes:
        x, w, b = layer_data(*s)
        check_op(lib.backprop.lin, lambda x, w, b: x @ w + b, x=x, w=w, b=b)

def lin_refuses(lib):
    x, w, b = layer_data(3, 3, 3)
    for bad in (b[:1], b[None], b[:, None], b.sum()): refuses(ValueError, 'pass b of shape (3,)', lib.backprop.lin, x, w, bad)
    refuses(TypeError, 'pass b.to(torch.float64)', lib.backprop.lin, x, w, b.float())

def relu_is_right(lib):
    for n, m, _ in shapes: check_op(lib.backprop.relu, F.relu, x=rand(n, m))

def the_slope_at_0_is_0(lib):
    x, one = torch.tensor([[-1., 0., 1.]], dtype=f64), torch.ones(1, 3, dtype=f64)
    want = {'x': (x > 0).double()}
    check_grads(autograd_grads(lib.backprop.relu, one, x=x), want)
    check_grads({'x': our_grads(lib.backprop.Relu(), one, inp=x)['inp']}, want)
    d = network(3, 3, 3)
    d['x'][0], d['b1'][:] = 0, 0                             # the first example meets every hinge
    check_grads(network_ours(lib.backprop.forward_and_backward, d), network_grads(d))

def mse_is_right(lib):
    for n, c, _ in shapes: check_op(lib.backprop.mse, F.mse_loss, output=rand(n, c), targ=rand(n, c, seed=1))

def mse_refuses(lib):
    for a, b in [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (1, 1)), ((4, 1), ()), ((4, 1), (3, 1))]:
        refuses(ValueError, 'mse: output', lib.backprop.mse, torch.zeros(a), torch.zeros(b))
    refuses(ValueError, 'empty batch', lib.backprop.mse, torch.zeros(0, 1), torch.zeros(0, 1))
    refuses(ValueError, 'pass targ[:, None]', lib.backprop.mse, torch.zeros(4, 1), torch.zeros(4))
    refuses(TypeError, 'pass targ.to(torch.float32)', lib.backprop.mse, torch.zeros(4, 1), torch.zeros(4, 1).double())

def lin_grad_is_right(lib):
    for s in shapes:
        x, w, b = layer_data(*s)
        out = x @ w + b
        out.g = rand(*out.shape, seed=4)
        lib.backprop.lin_grad(x, out, w, b)
        check_grads(g_of(x=x, w=w, b=b), autograd_grads(lambda x, w, b: x @ w + b, out.g, x=x, w=w, b=b), op='lin_grad')

def lin_grad_refuses(lib):
    x, w, b = layer_data(4, 3, 2)
    for bad in (rand(4, 1), rand(4), rand(3, 2), rand(1, 2), rand(2)):
        out = rand(4, 2)
        out.g = bad
        refuses(ValueError, 'matmul: ', lib.backprop.lin_grad, x, out, w, b)
    out.g = rand(4, 2)
    refuses(ValueError, 'lin_grad: inp is (4, 3) but its gradient is (4, 5); pass', lib.backprop.lin_grad, x, out, rand(5, 2), b)
    for bad in (rand(3), rand(1, 2), rand(1)):
        refuses(ValueError, 'lin_grad: b is', lib.backprop.lin_grad, x, out, w, bad)

def network_ours(forward_and_backward, d):
    return our_grads(lambda x, targ, w1, b1, w2, b2: forward_and_backward(x, targ, w1, b1, w2, b2), **d)

def forward_and_backward_is_right(lib):
    for d in [network(3, 3, 3, 3), *(network(*s) for s in shapes)]:
        loss = lib.backprop.forward_and_backward(*d.values())
        check_close(loss, network_loss(**d), 'loss')
        check_grads(network_ours(lib.backprop.forward_and_backward, d), network_grads(d), op='forward_and_backward')

def relu_layer_is_right(lib):
    for n, m, _ in shapes: check_op(lib.backprop.Relu(), F.relu, inp=rand(n, m))

def lin_layer_is_right(lib):
    for s in shapes:
        x, w, b = layer_data(*s)
        check_op(lib.backprop.Lin(w, b), lambda inp, w, b: inp @ w + b, inp=x)

def mse_layer_is_right(lib):
    for n, c, _ in shapes: check_op(lib.backprop.Mse(), F.mse_loss, ['targ'], inp=rand(n, c), targ=rand(n, c, seed=1))

def model_is_right(lib):
    for d in [network(3, 3, 3, 3), *(network(*s) for s in shapes)]:
        x, targ, *weights = d.values()
        errors = check_op(lib.backprop.Model(*weights), network_loss, ['targ'], x=x, targ=targ)
        assert len(errors) == 7

def model_takes_a_loss(lib):
    class Sum(lib.backprop.Module):
        def forward(self, inp, targ): return (inp*targ).sum()
        def bwd(self, out, inp, targ): lib.backprop.add_grad(inp, targ.clone())
    x, targ, *weights = network(3, 3, 3, 3).values()
    model = lib.backprop.Model(*weights, loss=Sum())
    check_op(model, lambda x, targ, w1, b1, w2, b2: (((x @ w1 + b1).relu() @ w2 + b2)*targ).sum(), ['targ'], x=x, targ=targ)
    model(x, targ)
    equal(model.preds, model.predict(x))

def backward_adds_up(lib):
    "Once, again without a forward pass, and again with one"
    d = network(3, 4, 5)
    x, targ, *weights = d.values()
    model, want = lib.backprop.Model(*weights), network_grads(d)
    for times in (1, 2, 3):
        if times != 2: model(x, targ)
        model.backward()
        check_grads(g_of(**{k: d[k] for k in want}), {k: times*g for k, g in want.items()})
    out, loss = rand(3, 2), lib.backprop.Mse()
    loss(out, targ := rand(3, 2, seed=1))
    loss.backward(); loss.backward()
    check_grads(g_of(out=out), {'out': 2*2*(out - targ)/6})

def zeroing_forgets(lib):
    d = network(3, 4, 5)
    x, targ, *weights = d.values()
    model, want = lib.backprop.Model(*weights), network_grads(d)
    for zero in (model.zero_grad, lambda: lib.backprop.zero_grads(*d.values())) * 2:
        model(x, targ)
        model.backward()
        check_grads(g_of(**{k: d[k] for k in want}), want)
        zero()
        assert all(d[k].g is None for k in want)

def a_weight_used_twice(lib):
    x, w, b = layer_data(4, 3, 3)
    steps = lib.backprop.Lin(w, b), lib.backprop.Relu(), lib.backprop.Lin(w, b)
    out = x
    for step in steps: out = step(out)
    out.g = g = rand(4, 3, seed=5)
    for step in reversed(steps): step.backward()
    check_grads(g_of(x=x, w=w, b=b), autograd_grads(lambda x, w, b: (x @ w + b).relu() @ w + b, g, x=x, w=w, b=b))

def a_layer_used_twice(lib):
    x, w, b = layer_data(4, 3, 3)
    layer = lib.backprop.Lin(w, b)
    first = layer(x)
    second = layer(first)
    second.g = g = rand(4, 3, seed=5)
    layer.backward(second)
    layer.backward(first)
    check_grads(g_of(x=x, w=w, b=b), autograd_grads(lambda x, w, b: (x @ w + b) @ w + b, g, x=x, w=w, b=b))
    refuses(ValueError, 'was not made by this layer', layer.backward, rand(4, 3))
    other = lib.backprop.Lin(w, b)
    other(x)
    refuses(ValueError, 'was not made by this layer', other.backward, first)

def an_output_may_be_its_input(lib):
    class Same(lib.backprop.Module):
        def forward(self, x): return x
        def bwd(self, out, x): lib.backprop.add_grad(x, out.g)
    x, layer = rand(2), Same()
    layer(x).g = torch.ones(2, dtype=f64)
    layer.backward()
    assert x.g.tolist() == [1, 1]

def memory_is_given_back(lib):
    "At once, and not when the garbage collector comes: layers and outputs make no circle"
    x, w, b = layer_data(3, 3, 3)
    gc.disable()
    try:
        layer = lib.backprop.Lin(w, b)
        out = weakref.ref(layer(x))
        del layer
        assert out() is None
    finally: gc.enable()

def random_programs(lib): containers_are_right(lib, range(25))

def copies_go_back(lib):
    "A copy of a used model can walk back through the call that was copied, and through no call of the original"
    d = network(3, 4, 5)
    x, targ, *weights = d.values()
    model = lib.backprop.Model(*weights)
    model(x, targ)
    again = copy.deepcopy(model)
    try: again.backward()
    except ValueError as e: raise AssertionError(e)
    check_grads({'w1': again.layers[0].w.g}, {'w1': network_grads(d)['w1']})
    refuses(ValueError, 'was not made by this layer', again.layers[0].backward, model.outs[0])

def a_value_that_fans_out(lib):
    "One input to three layers: its gradient is the sum of theirs"
    x, w, b = layer_data(4, 3, 3)
    layers = lib.backprop.Lin(w, b), lib.backprop.Relu(), lib.backprop.Mse()
    targ, gs = rand(4, 3, seed=6), (rand(4, 3, seed=7), rand(4, 3, seed=8), None)
    def f(x, w, b): return ((x @ w + b)*gs[0]).sum() + (x.relu()*gs[1]).sum() + F.mse_loss(x, targ)
    for order in itertools.permutations(zip(layers, gs)):
        x.g = w.g = b.g = None
        for layer, g in order:
            out = layer(x, targ) if g is None else layer(x)
            out.g = g
            layer.backward()
        check_grads(g_of(x=x, w=w, b=b), autograd_grads(f, x=x, w=w, b=b))

def gradients_are_not_shared(lib):
    a, b, g = torch.zeros(2), torch.zeros(2), torch.ones(2)
    for t in (a, b, a): lib.backprop.add_grad(t, g)
    assert (a.g.tolist(), b.g.tolist(), g.tolist()) == ([2, 2], [1, 1], [1, 1])

def add_grad_refuses(lib):
    for shape in ((1,), (3, 1), (1, 3), ()):
        refuses(ValueError, 'they must be equal', lib.backprop.add_grad, torch.zeros(3), torch.zeros(shape))
    refuses(ValueError, 'torch.float64, for a tensor of', lib.backprop.add_grad, torch.zeros(3), torch.zeros(3).double())

def losses_can_be_weighed(lib):
    x, labels = scores(4, 3)
    for loss, targ in ((lib.backprop.Mse(), x + 1), (lib.training.CrossEntropy(), labels)):
        once = our_grads(loss, inp=x, targ=targ)['inp']
        half = our_grads(loss, torch.tensor(.5, dtype=f64), inp=x, targ=targ)['inp']
        check_grads({'inp': half}, {'inp': once/2})

def a_second_loss_counts(lib):
    "What another loss adds to a model's predictions before its own way back is kept"
    d = network(4, 3, 2)
    weights, other = [d[k] for k in ('w1', 'b1', 'w2', 'b2')], d['targ'] + 1
    model, second = lib.backprop.Model(*weights), lib.backprop.Mse()
    model(d['x'], d['targ'])
    second(model.preds, other)
    second.backward(); model.backward()
    want = network_grads(d), network_grads({**d, 'targ': other})
    check_grads({k: d[k].g for k in want[0]}, {k: want[0][k] + want[1][k] for k in want[0]})

def misuse_is_explained(lib):
    B = lib.backprop
    refuses(RuntimeError, 'Relu: call it on its inputs before backward()', B.Relu().backward)
    refuses(NotImplementedError, 'Module must define forward', B.Module(), 1)
    refuses(NotImplementedError, 'Module must define bwd', B.Module().bwd, 1)
    layer = B.Relu()
    layer(torch.ones(2))
    refuses(RuntimeError, 'Relu: no gradient has reached its output', layer.backward)

def no_graph_is_left(lib):
    x, w, b = layer_data(4, 3, 2)
    layer = lib.backprop.Lin(w.requires_grad_(), b.requires_grad_())
    layer(x).g = rand(4, 2)
    layer.backward()
    assert not w.g.requires_grad and not x.g.requires_grad

def linear_starts_as_it_says(lib):
    def new(seed): return lib.backprop.Linear(900, 100, torch.Generator().manual_seed(seed))
    a, b, other = new(1), new(1), new(2)
    assert torch.equal(a.w, b.w) and not torch.equal(a.w, other.w)
    assert (a.w.shape, a.b.shape, a.b.abs().max().item()) == ((900, 100), (100,), 0) and abs(a.w.std().item()*30 - 1) < .02
    assert len(list(a.parameters())) == 2
    check_op(lib.backprop.Linear(3, 2), lambda x, w, b: x @ w + b, x=rand(4, 3))

big = [torch.tensor([[1e4, -1e4, 0.]]), torch.tensor([[-1e4, -1e4]]), torch.tensor([[800., 0., -800.]], dtype=f64)]
odd = [torch.tensor([[0., -inf, 3.]]), torch.tensor([[nan, 0.]]), torch.zeros(2, 3, 4)]

def logsumexp_is_right(lib):
    for n, c, _ in shapes: check_op(lib.training.logsumexp, lambda x: x.logsumexp(-1), x=rand(n, c))

def logsumexp_is_stable(lib):
    for x in [*big, *odd, torch.tensor([-inf, -inf]), torch.tensor([inf, 0.])]:
        equal(lib.training.logsumexp(x), torch.logsumexp(x, -1))

def the_largest_is_a_constant(lib):
    for n, c, _ in shapes:
        x = rand(n, c).requires_grad_()
        a = lib.training.largest(x)
        equal(a, x.detach().max(-1, keepdim=True).values)
        assert not a.requires_grad and (a.shape == (n, 1))
    assert lib.training.largest(torch.tensor([[inf, 1.], [-inf, -inf]])).tolist() == [[inf], [-inf]]

def log_softmax_is_right(lib):
    for n, c, _ in shapes: check_op(lib.training.log_softmax, lambda x: x.log_softmax(-1), x=rand(n, c))

def log_softmax_is_stable(lib):
    for x in [*big, *odd]: equal(lib.training.log_softmax(x), F.log_softmax(x, -1))

def softmax_is_right(lib):
    for n, c, _ in shapes: check_op(lib.training.softmax, lambda x: x.softmax(-1), x=rand(n, c))
    for x in [*big, *odd]: equal(lib.training.softmax(x), x.softmax(-1))

def scores_are_refused(lib):
    for f in (lib.training.logsumexp, lib.training.log_softmax, lib.training.softmax):
        refuses(TypeError, 'pass x.float()', f, torch.tensor([[1, 2]]))
        for shape in ((3, 0), ()): refuses(ValueError, 'wanted entries on the last axis', f, torch.zeros(shape))

def nll_is_right(lib):
    for n, c, _ in shapes:
        x, targ = scores(n, c)
        check_op(lib.training.nll, F.nll_loss, log_probs=x.log_softmax(-1), targ=targ)

def cross_entropy_is_right(lib):
    for n, c, _ in shapes:
        x, targ = scores(n, c)
        check_op(lib.training.cross_entropy, F.cross_entropy, logits=x, targ=targ)

def cross_entropy_layer_is_right(lib):
    for n, c, _ in shapes:
        x, targ = scores(n, c)
        for labels in (targ, targ.byte()):
            check_op(lib.training.CrossEntropy(), lambda x, t: F.cross_entropy(x, t.long()), inp=x, targ=labels)

def cross_entropy_adds_up(lib):
    x, targ = scores(4, 3)
    loss = lib.training.CrossEntropy()
    loss(x, targ)
    loss.backward(); loss.backward()
    check_grads(g_of(x=x), autograd_grads(lambda x: 2*F.cross_entropy(x, targ), x=x))

def labels_are_refused(lib):
    T, x, t = lib.training, torch.zeros(3, 4), lambda *v: torch.tensor(v)
    cases = [(x, t(0., 1., 2.), TypeError, 'pass targ.long()'), (x, t(True, False, True), TypeError, 'pass targ.long()'),
             (x, t(0, 1, 4), ValueError, 'labels go from 0 to 4'), (x, t(0, 1, -1), ValueError, 'labels go from -1 to 1'),
             (x[:0], t().long(), ValueError, 'empty batch'), (x, t(0, 1), ValueError, 'wanted (n, c) and (n,)'),
             (x, t(0, 1, 2)[:, None], ValueError, 'wanted (n, c) and (n,)'), (x[0], t(1), ValueError, 'wanted (n, c) and (n,)'),
             (torch.zeros(3, 4, 2), t(0, 1, 2), ValueError, 'wanted (n, c) and (n,)')]
    for scores, targ, error, message in cases:
        for f in (T.check_labels, T.nll, T.cross_entropy): refuses(error, message, f, scores, targ)

def accuracy_is_right(lib):
    for n, c, _ in shapes:
        x, targ = scores(n, c)
        want = sum(row.index(max(row)) == t for row, t in zip(x.tolist(), targ.tolist()))/n
        equal(lib.training.accuracy(x, targ), torch.tensor(want))

def accuracy_refuses(lib):
    x, y = torch.eye(3), torch.tensor([0, 1, 2])
    for out, yb in [(x, y[:, None]), (x, y[None]), (x, y[:2]), (x[:, 0], y), (x[:0], y[:0]), (x, torch.tensor(1))]:
        refuses(ValueError, 'accuracy: got scores', lib.training.accuracy, out, yb)
    refuses(TypeError, 'pass yb.long()', lib.training.accuracy, x, y.float())

def report_says_both(lib):
    preds, yb, out = torch.eye(4).roll(1, 1), torch.tensor([1, 2, 3, 3]), io.StringIO()
    with contextlib.redirect_stdout(out): lib.training.report(torch.tensor(.25), preds, yb)
    assert out.getvalue() == 'loss 0.25, accuracy 0.75\n', out.getvalue()

def fails(message, f, *args, **kw):
    "`f` must raise an `AssertionError` that says `message`"
    try: f(*args, **kw)
    except Exception as e: assert isinstance(e, AssertionError) and message in str(e), f'{e!r}\nwanted: {message}'
    else: raise AssertionError(f'{f.__name__} let pass what it must find: {message}')

def errors_are_relative(lib):
    for scale in (1e-200, 1e-5, 1., 1e200):
        want = rand(3, 3)*scale
        for change, error in [(1, 0.), (-1, 2.), (3, 2.), (1 + 1e-6, 1e-6)]:
            assert abs(lib.checks.relative_error(want*change, want) - error) < 1e-9, (scale, change)
        assert lib.checks.relative_error(want*0, want) == 1 and lib.checks.relative_error(want, want*0) == inf
    assert lib.checks.relative_error(want*0, want*0) == 0
    refuses(ValueError, 'no entries', lib.checks.relative_error, want[:0], want[:0])
    refuses(TypeError, 'wanted floating point', lib.checks.relative_error, torch.ones(3).int(), torch.ones(3).int())

def shapes_and_dtypes_count(lib):
    check = lib.checks.check_grads
    for a, b in itertools.permutations([(3,), (3, 1), (1, 3), (1,), ()], 2):
        fails(f'w: got shape {a}, wanted {b}', check, {'w': torch.ones(a)}, {'w': torch.ones(b)}, 1e9)
    for a, b in itertools.permutations([torch.float16, torch.float32, f64], 2):
        fails(f'w: got dtype {a}, wanted {b}', check, {'w': torch.ones(3, dtype=a)}, {'w': torch.ones(3, dtype=b)}, 1e9)

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
          lib.checks.check_grads, {'w': got}, {'w': want}, op=lib.checks.op_name(lib.backprop.Lin(got, want)), against='autograd')
    assert lib.checks.op_name(relu_like) == 'relu_like'

def signs_have_stand_ins(lib):
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), 'ascii')):
        assert lib.checks.printable('\u2713 \u22121\u2026 \u03bb') == r'+ -1... \u03bb'

def relu_like(x): return x*(x >= 0)                 # its slope at 0 is 1
def exp_sum_log(x): return x.exp().sum().log()

def differences_are_central(lib):
    diff, x, g = lib.checks.difference_grads, rand(4, 3), rand(4, 3, seed=1)
    check_grads(diff(exp_sum_log, x=x), {'x': x.view(-1).softmax(0).view(4, 3)}, 1e-9)            # one-sided: 1e-8 at best
    check_grads(diff(torch.exp, g, x=x), {'x': x.exp()*g}, 1e-9)
    check_grads(diff(exp_sum_log, x=x.float()), {'x': x.float().double().view(-1).softmax(0).view(4, 3)}, 1e-9)
    check_grads(diff(torch.exp, g.float(), x=x.float()), {'x': x.float().double().exp()*g.float()}, 1e-9)
    for f in (lambda x: x, lambda x: x.view(4, 3), lambda x: 1e6*x/1e6): check_grads(diff(f, g, x=x), {'x': g}, 1e-9)
    check_grads(diff(lambda x, k: x*k, x.t(), x=x.t(), k=torch.tensor(2)), {'x': 2*x.t()}, 1e-9)
    far = rand(3) + 1e6                                               # x + h is rounded, too
    check_grads(diff(lambda x: x, far, x=far), {'x': far}, 1e-12)
    w, b = rand(3, 3), rand(3)
    check_grads(diff(backprop.Lin(w, b), g, inp=x), {'inp': g @ w.t(), 'w': x.t() @ g, 'b': g.sum(0)}, 1e-9)
    refuses(ValueError, 'pass out_g', lambda: diff(torch.exp, x=x))
    assert 1e-8 <= lib.checks.DIFFERENCE_TOLERANCE <= 1e-6

def autograd_is_asked_right(lib):
    auto, x, g = lib.checks.autograd_grads, rand(4, 3), rand(4, 3, seed=1)
    check_grads(auto(torch.exp, g, x=x), {'x': x.exp()*g})
    check_grads(auto(exp_sum_log, x=x), {'x': x.view(-1).softmax(0).view(4, 3)})
    check_grads(auto(lambda x, y: (x*2).sum(), x=x, y=g), {'x': x*0 + 2, 'y': g*0})
    check_grads(auto(lambda x, k: x[k].sum(), x=x, k=torch.tensor(1)), {'x': torch.eye(4, dtype=f64)[1][:, None].expand(4, 3)})
    assert not x.requires_grad
    refuses(ValueError, 'no way from', lambda: auto(lambda x: x.detach().sum(), x=x))
    refuses(ValueError, 'pass out_g', lambda: auto(torch.exp, x=x))
    refuses(ValueError, 'they must be equal', lambda: auto(torch.exp, g[:1], x=x))
    refuses(ValueError, 'they must be equal', lambda: auto(torch.exp, g.float(), x=x))
    refuses(ValueError, 'wanted a floating-point tensor', lambda: auto(torch.argmax, x=x))

class Twice(backprop.Module):
    "Layers one after the other, perhaps of the same weights"
    def __init__(self, *layers): self.layers = [layers[0], ({'last': layers[1]},)]
    def forward(self, inp): return self.layers[1][0]['last'](self.layers[0](inp))
    def bwd(self, out, inp):
        self.layers[1][0]['last'].backward()
        self.layers[0].backward()

def held_tensors_are_found(lib):
    C, (x, w, b) = lib.checks, layer_data(4, 3, 3)
    two = Twice(backprop.Lin(w, b), backprop.Lin(w, rand(3)))
    two.calls = torch.tensor(0)                                              # an integer, which has no gradient
    names = ['layers.0.w', 'layers.0.b', 'layers.1.0.last.b']               # w is one tensor, in two places
    for _ in range(2):
        assert list(C.all_tensors(two, {'inp': x})) == ['inp', *names]
        two(x)                                                               # what a call remembers are no weights
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
    every = {f'{what}, {dtype}' for what in ('value', 'autograd', 'the reference') for dtype in ('float32', 'float64')}
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
    assert not any(torch.equal(g, rand(4, 3, seed=i)) for i in range(100))   # numbers of its own, not the inputs' again
    ours = lib.checks.our_grads(backprop.Lin(w, b), one.double(), inp=x)
    check_grads(ours, {'inp': one.double() @ w.t(), 'w': x.t() @ one.double(), 'b': b*0 + 4})
    assert not any(hasattr(t, 'g') or t.requires_grad for t in (x, w, b))

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
    judge(faulty(w=lambda g: -g), 'Faulty, gradient of w: relative error 2.0e+00 against autograd, wanted at most 1e-09')
    judge(faulty(w=lambda g: g*(1 + 1e-8)), 'Faulty, gradient of w: relative error 1.0e-08 against autograd')
    judge(faulty(w=lambda g: g.float()), 'Faulty, gradient of w: got dtype torch.float32, wanted torch.float64')
    judge(faulty(b=lambda g: g[None]), 'Faulty, gradient of b: got shape (1, 3), wanted (3,)')
    judge(faulty(b=lambda g: None), "got gradients of ['inp', 'w'], wanted ['b', 'inp', 'w']")
    judge(faulty(inp=lambda g: g*nan), 'Faulty, gradient of inp: relative error nan')
    judge(faulty(w=lambda g: g + 1e-3 if g.dtype == torch.float32 else g), 'against autograd, wanted at most 1e-04')
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
    class Relabels(training.CrossEntropy):
        def bwd(self, out, inp, targ): super().bwd(out, inp, targ); targ.zero_()
    fails('Relabels: changed targ from', check, Relabels(), inp=x, targ=labels)
    assert labels.any()                                              # the caller's own are as they were
    class Blind(backprop.Lin):                                       # autograd and bwd agree, and both are wrong
        def forward(self, inp): return inp.detach()*inp + 0*super().forward(inp)
        def bwd(self, out, inp): backprop.add_grad(inp, out.g*inp); self.w.g, self.b.g = self.w*0, self.b*0
    judge(Blind, 'gradient of inp: relative error 5.0e-01 against central differences, wanted at most 1e-07')
    judge(backprop.Lin, 'Lin, value: relative error 1.0e+00 against the reference', lambda x, w, b: (x @ w + b)/2)
    judge(backprop.Lin, 'Lin, gradient of inp: relative error 1.0e+00 against the reference',
          lambda x, w, b: (y := x @ w + b)/2 + y.detach()/2)
    fails("got gradients of ['inp'], wanted ['inp', 'targ']", check, backprop.Mse(), inp=x, targ=x + 1)
    fails("got gradients of ['b', 'inp', 'w'], wanted ['inp', 'w']", check, backprop.Lin(w, b), constants=['b'], inp=x)
    refuses(ValueError, "no tensor is called ['y']", lambda: check(backprop.Lin(w, b), constants=['y'], inp=x))
    refuses(ValueError, 'no gradients to compare', lambda: check(relu_like, constants=['x'], x=x))
    fails('changed x from', check, lambda x: x.add_(1), x=x)
    refuses(ValueError, 'wanted a floating-point tensor', lambda: check(lambda x: x.argmax(), x=x))


in_torch = {name: entry.torch for name, entry in ENTRIES.items() if name not in ('network', 'classifier')}     # these take long

def formulas_are_right(lib):
    "The gradient that the chain rule finds for each operation, entry by entry, against autograd; and its matrix form"
    D = lib.derivatives
    refuses(ValueError, 'r and s ask for an entry', D.slope, D.OPERATIONS['relu']._replace(out=D.x[D.i, D.r]), D.x)
    short = D.sp.Sum(D.sp.KroneckerDelta(D.j, D.r)*D.x[D.i, D.j], (D.j, 1, D.k))
    assert D.pick(short) == short
    refuses(IndexError, 'count from 1', D.evaluate, D.x[0, 1], x=[[1., 2.]])
    assert D.OPERATIONS.keys() == ENTRIES.keys()
    for (name, f), sizes in itertools.product(in_torch.items(), ((3, 3, 3, 3), (2, 1, 3, 4))):
        op, at = D.OPERATIONS[name], dict(zip((D.n, D.m, D.nh, D.c), sizes))
        tensors = {str(q): torch.arange(at[D.n]) % at[D.c] if q == D.y else rand(*(at[o] for o in shape), seed=i)
                   for i, (q, shape) in enumerate((op.args | op.given).items())}
        g = rand(*(at[last] for *_, last in op.axes), seed=9) if op.axes else None
        want = autograd_grads(lambda **t: f(*t.values()), g, **tensors)
        values = {k: t.numpy() + (k == 'y') for k, t in tensors.items()} | {str(q): size for q, size in at.items()}
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
    for a, b in ((x[r, s], x[s, r]), (x[r, s], -x[r, s]), (x[r, s]/n, x[r, s]), (x[r, s], x[r, s] + 1e-6),
                 (D.pick(D.chain(D.OPERATIONS['lin'], D.slope(D.OPERATIONS['lin'], D.b))), g[r, s])):
        assert D.same(a, a) and not D.same(a, b)
        fails('is not the same as', D.derivation, 'y', a, (b, 'why'))
    for a, b in ((x[r, s]/n, x[r, s]/D.nh), (2*x[r, s], n*x[r, s]), (x[r, s]/4, x[r, s]/n), (1e-12*x[r, s], -1e-12*x[r, s])):
        assert not D.same(a, b), (a, b)
    op, mse = D.OPERATIONS['lin'], D.OPERATIONS['mse']
    for arg in op.forms: assert not D.matrix_form_agrees(op._replace(forms={arg: -op.forms[arg]}), arg)
    for form in (mse.forms[x]*n/2, mse.forms[x]*n/4): assert not D.matrix_form_agrees(mse._replace(forms={x: form}), x)
    assert not D.matrix_form_agrees(op._replace(forms={x: op.forms[x][:1, :]}), x)                  # one row of them
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
    def worst(arg=D.w, **change): return L.worst_of(L.compare('lin', lin._replace(**{'ours': right, **change}), count=8), arg)
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
    assert L.disagreement(torch.full((2,), 1e-9, dtype=f64), torch.zeros(2, dtype=f64), 'x') == inf
    sizes = [tuple(q.values()) for q in L.shapes()]
    assert (1, 1, 1, 1) in sizes and all(any(q[i] == 1 and q.count(1) == 1 for q in sizes[:5]) for i in range(4))
    new = SimpleNamespace(__all__=['Lin', 'cube'], Lin=Nan, cube=abs, _Once=Once)
    assert L.without_row(dict(data=new)) == ['data.Lin', 'data._Once']
    assert L.without_row(dict(fit=new)) == ['fit.Lin', 'fit.cube', 'fit._Once']


# ---- fit, its loaders and its files

def works(f, *args, **kw):
    "What `f(*args)` gives; it must not raise, not even by Ctrl-C"
    try: return f(*args, **kw)
    except BaseException as e: raise AssertionError(f'{getattr(f, "__name__", f)} raised {e!r}') from e

def fit_net(lib, dropout=False):
    g = torch.Generator().manual_seed(0)
    layers = [lib.backprop.Linear(4, 5, g), nn.ReLU(), lib.backprop.Linear(5, 3, g)]
    with torch.no_grad(): layers[0].b.add_(.1)
    return nn.Sequential(*layers, *([nn.BatchNorm1d(3), nn.Dropout(.5)] if dropout else [])).double()

def fit_data(lib, n=20, seed=0): return lib.fitting.Dataset(rand(n, 4, seed=seed), (torch.arange(n) + seed) % 3)

def fit_batches(lib, bad=None):
    "Three batches of 8, 8 and 4, and two of 4 and 1 to validate on; the input number `bad` is nan"
    ds, valid = fit_data(lib), fit_data(lib, 5, 1)
    if bad is not None: ds.x[bad] = nan
    return [ds[i:i + 8] for i in (0, 8, 16)], [valid[:4], valid[4:]]

def fit_loop(model, batches, lr=.5):
    "The plain loop over these batches; gives the losses"
    losses = []
    for xb, yb in batches:
        model.zero_grad()
        loss = F.cross_entropy(model(xb), yb)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters(): p -= lr*p.grad
        losses.append(loss.item())
    return losses

def run_fit(lib, model, loss_func=F.cross_entropy, epochs=1, loaders=None, opt=None, **kw):
    "What `fit` returns, its history, what it printed"
    out, history = io.StringIO(), lib.fitting.History()
    opt = opt or lib.fitting.SGD(model.parameters(), .5)
    with contextlib.redirect_stdout(out):
        score = lib.fitting.fit(epochs, model, loss_func, opt, *(loaders or fit_batches(lib)), **{'history': history, **kw})
    return score, history, out.getvalue()

def states(model): return {k: t.detach().clone() for k, t in model.state_dict().items()}

def near(got, want, tolerance=1e-10): torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)

def sgd_is_torchs(lib):
    models = [fit_net(lib), fit_net(lib)]
    for m in models: m.idle = nn.Parameter(torch.ones(2, dtype=f64))
    opts = works(lib.fitting.SGD, models[0].parameters(), .3), torch.optim.SGD(models[1].parameters(), .3)
    for xb, yb in fit_batches(lib)[0]*3:
        for model, opt in zip(models, opts):
            F.cross_entropy(model(xb), yb).backward()
            works(opt.step)
            opt.zero_grad()
            assert all(p.grad is None for p in model.parameters())
    near([*models[0].state_dict().values()], [*models[1].state_dict().values()], 1e-12)

def sgd_refuses(lib):
    refuses(ValueError, 'got no parameters', lib.fitting.SGD, iter([]), .1)
    for lr in (-1, nan): refuses(ValueError, f'learning rate is {lr}, wanted', lib.fitting.SGD, [torch.ones(1)], lr)
    works(lib.fitting.SGD, [torch.ones(1)], 0)

def items_are_pairs(lib):
    ds = lib.fitting.Dataset(torch.arange(8).view(4, 2), torch.arange(4)*10)
    assert len(ds) == 4 and [t.tolist() for t in ds[2]] == [[4, 5], 20] and [t.tolist() for t in ds[[3, 0]]] == [[[6, 7], [0, 1]], [30, 0]]
    for x, y in (([1, 2], [1]), ([1], [1, 2])): refuses(ValueError, f'got {len(x)} inputs and {len(y)} targets', lib.fitting.Dataset, x, y)

def orders_are_right(lib):
    Sampler = lib.fitting.Sampler
    s = Sampler(range(30))
    assert [*s] == [*s] == [*range(30)] and len(s) == 30
    state = torch.get_rng_state()
    s = Sampler(range(30), True, torch.Generator().manual_seed(1))
    a, b = [*s], [*s]
    assert state.equal(torch.get_rng_state()) and a != b and sorted(a) == sorted(b) == [*range(30)]
    assert a == [*Sampler(range(30), True, torch.Generator().manual_seed(1))] != [*Sampler(range(30), True, torch.Generator().manual_seed(2))]
    with torch.random.fork_rng(devices=[]):
        def seeded_by(seed):
            torch.manual_seed(seed)
            return [*Sampler(range(30), True)], [*Sampler(range(30), True)]
        (a, a2), (b, _), (c, _) = map(seeded_by, (3, 3, 4))
        assert a == b and len({*map(tuple, (a, a2, c))}) == 3
    refuses(ValueError, 'the dataset is empty', Sampler, [])

def batches_are_right(lib):
    BatchSampler = lib.fitting.BatchSampler
    for n, bs, drop in itertools.product((1, 4, 6), (1, 2, 4, 6), (False, True)):
        if bs > n: continue
        b, want = BatchSampler(range(n), bs, drop), [[*range(i, min(i + bs, n))] for i in range(0, n, bs) if not drop or i + bs <= n]
        assert [*b] == [*b] == want and len(b) == len(want), (n, bs, drop)
    for bs in (0, -1, 5, 1.5, '2', True, None): refuses(ValueError, f'batch size is {bs!r}, wanted', BatchSampler, range(4), bs)

def draw(): return random.random(), np.random.rand(), torch.rand(()).item()

@contextlib.contextmanager
def numbers_restored():
    "Leave all random numbers as they were, whatever a mutant does"
    was = random.getstate(), np.random.get_bit_generator(), torch.get_rng_state()
    numbers = np.random.get_state()
    try: yield
    finally:
        random.setstate(was[0]); np.random.set_bit_generator(was[1]); np.random.set_state(numbers); torch.set_rng_state(was[2])

def seeds_are_local(lib):
    with numbers_restored():
        def set_all(): random.seed(5); np.random.seed(5); torch.manual_seed(5)
        set_all()
        want = [draw() for _ in range(3)]
        set_all()
        got, inside = [draw()], []
        for seed in (1, 1, 2):
            with lib.fitting.seeded(seed): inside.append(draw())
        try:
            with lib.fitting.seeded(7): raise KeyError
        except KeyError: pass
        got += draw(), draw()
        assert got == want, (got, want)
        assert inside[0] == inside[1] and not {*inside[1]} & {*inside[2]}, inside

def a_seed_repeats(lib):
    with numbers_restored():
        def after(seed):
            lib.fitting.set_seed(seed)
            return draw()
        a, b, c = map(after, (1, 1, 2))
        assert a == b and not {*a} & {*c}, (a, b, c)

class Draws:
    def __len__(self): return 6
    def __getitem__(self, i): return torch.tensor([i, *draw()], dtype=f64), i

def batches_are_made_right(lib):
    L, ds = lib.fitting, fit_data(lib)
    class Centred(L.Dataset):
        def __getitem__(self, i): return self.x[i] - self.x[i].mean(), self.y[i]                  # item by item
    for kind, x in ((L.Dataset, ds.x), (Centred, ds.x - ds.x.mean(1, keepdim=True))):
        xb, yb = L.make_batch(kind(ds.x, ds.y), None, [3, 0, 7], 0)
        near(xb, x[[3, 0, 7]], 1e-12)
        assert yb.equal(ds.y[[3, 0, 7]]), kind
    got = L.make_batch(ds, lambda items: [int(y) for x, y in items], [4, 2], 0)
    assert got == [1, 2], got
    with numbers_restored():
        a, b, c = (works(L.make_batch, Draws(), None, [1, 2], seed)[0] for seed in (1, 1, 2))
        assert a.equal(b) and (a != c)[:, 1:].all() and a[:, 0].tolist() == [1, 2]

def the_loader_is_pytorchs(lib):
    L, ds, theirs = lib.fitting, fit_data(lib), torch.utils.data.DataLoader
    for kw in (dict(), dict(batch_size=8), dict(batch_size=8, drop_last=True), dict(sampler=range(3, 9), batch_size=4), dict(batch_sampler=[[1, 2], [3]]),
               dict(batch_size=6, collate_fn=lambda items: [torch.stack(t) for t in zip(*items[::-1])])):
        got, want = works(L.DataLoader, ds, **kw), theirs(ds, **kw)
        assert len(got) == len([*got]) == len(want), kw
        for a, b in zip(got, want): assert a[0].equal(b[0]) and a[1].equal(b[1]), kw

def each_epoch_draws_anew(lib):
    def loader(seed=2, **kw): return lib.fitting.DataLoader(Draws(), 2, generator=torch.Generator().manual_seed(seed), **kw)
    def epoch(dl): return torch.cat([xb for xb, _ in dl])
    with numbers_restored():
        dl = loader()
        a, b = epoch(dl), epoch(dl)
        assert a[:, 0].equal(b[:, 0]) and (a != b)[:, 1:].all() and len({*a[:, 1].tolist()}) == 6       # every batch, too
        again, other = loader(), loader(3)
        assert a.equal(epoch(again)) and b.equal(epoch(again)) and (a != epoch(other))[:, 1:].all()
        orders = {tuple(epoch(dl)[:, 0].tolist()) for dl in [loader(shuffle=True)] for _ in range(5)}
        assert len(orders) > 2
        made = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            made.append(epoch(lib.fitting.DataLoader(Draws(), 2)))
        assert made[0].equal(made[1]) and not made[0].equal(made[2])

def the_loader_refuses(lib):
    def bad(error, message, **kw): refuses(error, message, lib.fitting.DataLoader, **{'dataset': fit_data(lib), **kw})
    bad(ValueError, 'shuffle and a sampler', sampler=range(3), shuffle=True)
    for kw in (dict(batch_size=2), dict(shuffle=True), dict(sampler=range(3)), dict(drop_last=True)):
        bad(ValueError, 'got a batch_sampler', batch_sampler=[[1]], **kw)
    for n in (-1, 1.5): bad(ValueError, f'num_workers is {n!r}, wanted', num_workers=n)
    for seconds in (-1, nan): bad(ValueError, f'timeout is {seconds!r}, wanted', timeout=seconds)
    bad(TypeError, 'int has no length, or no items', dataset=3)
    bad(ValueError, 'the dataset is empty', dataset=[])
    refuses(ValueError, 'from 1 to 0', lambda: [*lib.fitting.DataLoader(fit_data(lib), sampler=[])])

def every_item_counts_once(lib):
    model, ds = fit_net(lib, dropout=True), fit_data(lib, 7)
    fit_loop(model, [ds[:]])
    preds = model.eval()(ds.x)
    want = F.cross_entropy(preds, ds.y).item(), (preds.argmax(1) == ds.y).double().mean().item()
    for bs in (7, 1, 3, 6):
        model.train()
        was, grads = states(model), []
        def loss_func(preds, yb):
            grads.append(preds.requires_grad)
            return F.cross_entropy(preds, yb)
        got = lib.fitting.evaluate(model, loss_func, [ds[i:i + bs] for i in range(0, 7, bs)])
        assert got._fields == ('loss', 'accuracy') and not any(grads) and not model.training and torch.is_grad_enabled()
        near([*got], [*want], 1e-6)
        equal(states(model), was)

def fit_is_the_loop(lib):
    model, want_model = fit_net(lib), fit_net(lib)
    batches, valid = fit_batches(lib)
    want = fit_loop(want_model, batches*2)
    score, history, said = works(run_fit, lib, model, epochs=2)
    near(history.losses, want, 1e-12)
    equal(states(model), states(want_model))
    assert type(score) is tuple and score == (history.epochs[-1].valid_loss, history.epochs[-1].accuracy)
    preds, yb = want_model(torch.cat([x for x, _ in valid])), torch.cat([y for _, y in valid])
    near([*score], [F.cross_entropy(preds, yb).item(), (preds.argmax(1) == yb).double().mean().item()], 1e-6)
    lines = [f'epoch {i} of 2: training loss {e.train_loss:.3f}, validation loss {e.valid_loss:.3f}, accuracy {e.accuracy:.3f}\n'
             for i, e in enumerate(history.epochs, 1)]
    assert said == ''.join(lines) and len(lines) == 2, said
    assert all(p.grad is None for p in model.parameters())

def the_history_is_right(lib):
    assert lib.fitting.Epoch._fields == ('train_loss', 'valid_loss', 'accuracy', 'seconds', 'steps')
    model, history = fit_net(lib), lib.fitting.History()
    for epochs in (2, 1): run_fit(lib, model, epochs=epochs, history=history)
    assert history is not lib.fitting.History() and lib.fitting.History().losses == []
    near(history.losses, fit_loop(fit_net(lib), fit_batches(lib)[0]*3), 1e-12)
    assert [e.steps for e in history.epochs] == [3, 6, 9] and all(0 < e.seconds < 60 for e in history.epochs)
    a = torch.tensor(history.losses, dtype=f64).view(3, 3)
    near([e.train_loss for e in history.epochs], (a @ torch.tensor([8., 8., 4.], dtype=f64)/20).tolist(), 1e-12)

def the_plot_is_right(lib):
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    def lines(ax): return {line.get_label().partition(',')[0]: [[float(v) for v in d] for d in line.get_data()] for line in ax.lines}
    try:
        history = lib.fitting.History()
        assert all(xy == [[], []] for xy in lines(works(history.plot)).values())
        for n in (1, 3, 70):
            history.losses = [2 + math.cos(i) for i in range(n)]
            history.epochs = [lib.fitting.Epoch(1., 3. + i, .5, 1., n + i) for i in range(2)]
            _, ax = plt.subplots()
            assert history.plot(ax) is ax
            k, got = min(n, 50), lines(ax)
            near(got['training'], [[float(i) for i in range(k, n + 1)], [sum(history.losses[i - k:i])/k for i in range(k, n + 1)]], 1e-5)
            near(got['validation'], [[float(n), n + 1.], [3., 4.]])
    finally: plt.close('all')

def modes_are_right(lib):
    told = []
    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = fit_net(lib)
        def train(self, mode=True):
            told.append(mode)
            return super().train(mode)
        def forward(self, x):
            told.append('t' if self.training else 'e')
            return self.net(x)
    run_fit(lib, model := Spy(), epochs=2)
    assert told[:14] == [True, 't', 't', 't', False, 'e', 'e']*2 and set(told[14:]) <= {False} and not model.training, told
    model = fit_net(lib)
    def loss_func(preds, yb): raise KeyError('a bug of yours')
    refuses(KeyError, 'a bug', run_fit, lib, model, loss_func)
    assert not model.training

def stops(k, f):
    "`f`, cut short by Ctrl-C in its call `k`, from 0"
    calls = itertools.count()
    def g(*args):
        if next(calls) == k: raise KeyboardInterrupt
        return f(*args)
    return g

def ctrl_c_leaves_whole_steps(lib):
    class Half(lib.fitting.SGD):
        left = 2
        def step(self):
            self.left -= 1
            if self.left >= 0: return super().step()
            with torch.no_grad(): self.params[0].zero_()
            raise KeyboardInterrupt
    for where in ('loss', 'slope', 'step'):
        model, want, loss_func = fit_net(lib), fit_net(lib), F.cross_entropy
        opt = (Half if where == 'step' else lib.fitting.SGD)(model.parameters(), .5)
        if where == 'loss': loss_func = stops(2, loss_func)
        if where == 'slope': model[0].w.register_hook(stops(2, lambda g: None))
        score, history, said = works(run_fit, lib, model, loss_func, 2, opt=opt)
        fit_loop(want, fit_batches(lib)[0][:2])
        equal(states(model), states(want))
        assert all(map(math.isnan, score)) and 'Stopped by Ctrl-C in epoch 1 of 2, batch 2' in said, said
        assert len(history.losses) == 2 and history.epochs == [] and not model.training
        assert all(p.grad is None for p in model.parameters()), where
    score, history, said = works(run_fit, lib, fit_net(lib), stops(6, F.cross_entropy), 2)
    assert score == history.epochs[0][1:3] and 'in epoch 2 of 2, batch 1' in said, said
    said = works(run_fit, lib, fit_net(lib), stops(4, F.cross_entropy), 2)[2]
    assert 'in the validation after epoch 1 of 2' in said, said

def a_loop_cut_short_closes_its_source(lib):
    closed = []
    class Source:
        def __init__(self, batches): self.it = iter(batches)
        def __iter__(self): return self
        def __next__(self): return next(self.it)
        def close(self): closed.append(self)
    train, valid = fit_batches(lib)
    works(run_fit, lib, fit_net(lib), stops(1, F.cross_entropy), loaders=(Source(train), Source(valid)))
    assert len(closed) == 1
    works(run_fit, lib, fit_net(lib), loaders=(Source(train), Source(valid)))
    assert len(closed) == 3

def nan_goes_back(lib):
    "The last weights and buffers that gave a finite loss in training, whatever else came"
    def watched(model, good, factor):
        def f(preds, yb):
            loss = F.cross_entropy(preds, yb)
            if model.training:
                if len(good) == 2: loss = loss*factor
                if loss.isfinite(): good.append(states(model))
            return loss
        return f
    for factor, bad in ((nan, None), (inf, None), (1, 17)):
        for dropout in (False, True):
            model, good = fit_net(lib, dropout), []
            refuses(FloatingPointError, 'in epoch 1 of 1, batch 2. ', run_fit, lib, model, watched(model, good, factor), loaders=fit_batches(lib, bad))
            assert len(good) == 2
            equal(states(model), good[-1])
    model, good, (train, valid) = fit_net(lib), [], fit_batches(lib)
    valid[1][0].fill_(nan)
    refuses(FloatingPointError, 'in the validation after epoch 1 of 2. ', run_fit, lib, model, watched(model, good, 1), 2, loaders=(train, valid))
    equal(states(model), good[-1])

def fit_refuses(lib):
    def bad(message, *args, error=ValueError, **kw): refuses(error, message, run_fit, lib, *args, **kw)
    train, valid = fit_batches(lib)
    for epochs in (0, -1, 1.5, '3'): bad(f'epochs is {epochs!r}, wanted', fit_net(lib), epochs=epochs)
    bad('(8,), wanted a tensor of one number', fit_net(lib), nn.CrossEntropyLoss(reduction='none'))
    bad('(1,), wanted a tensor of one number', fit_net(lib), lambda preds, yb: F.cross_entropy(preds, yb)[None])
    bad('float, wanted a tensor of one number', fit_net(lib), lambda preds, yb: 1.)
    for loaders, what in (((train[:1] + [(*train[1], 3)], valid), 'training batch 1'), ((train, [[valid[0][0]]]), 'validation batch 0'),
                          (([train[0][0][:2]], valid), 'training batch 0')):
        bad(f'{what} is a ', fit_net(lib), loaders=loaders)
    for loaders, what in ((([], valid), 'training'), ((train, []), 'validation')):
        bad(f'the {what} loader gave no batch', fit_net(lib), loaders=loaders)
    ours = lib.fitting.by_hand(fit_net(lib))
    bad('the model has a backward pass', ours, error=TypeError)
    bad('the loss has a backward pass', fit_net(lib), lib.training.CrossEntropy(), error=TypeError)
    for device in ('nonsense', 'cuda:99'): bad(f'there is no device {device!r} here', fit_net(lib), device=device)

def tensors_move(lib):
    x, to = torch.ones(2), lib.fitting.to_device
    for same in (x, [x], {'a': x}): assert works(to, same, None) is same
    got = works(to, {'a': (x, [x])}, 'meta')
    assert type(got['a']) is tuple and type(got['a'][1]) is list and {got['a'][0].device.type, got['a'][1][0].device.type} == {'meta'}

def fit_moves_all(lib):
    "The model and both parts of each batch; 'meta' stands in for a GPU"
    class Moves(nn.Linear):
        def to(self, device): seen.append(device)
        def forward(self, x):
            seen.append(x.device)
            return super().forward(torch.zeros(len(x), 4))
    def loss_func(preds, yb):
        seen.append(yb.device)
        return preds.mean()
    seen, (train, valid) = [], fit_batches(lib)
    with contextlib.suppress(Exception): run_fit(lib, Moves(4, 3), loss_func, loaders=(train[:1], valid[:1]), device='meta')
    assert seen == [torch.device('meta')]*5, seen

class Terminal(io.StringIO):
    def isatty(self): return True

def a_bar_is_for_terminals(lib):
    def shown(file, slow=True, off='', **kw):
        with contextlib.redirect_stderr(file), pytest.MonkeyPatch.context() as m:
            m.setenv('TQDM_DISABLE', off)
            if slow: m.setattr('tqdm.std.time', itertools.count(step=2).__next__)      # each look at the clock is 2 seconds later
            works(run_fit, lib, fit_net(lib), **kw)
        return file.getvalue()
    text = shown(Terminal())
    assert 'epoch 1 of 1' in text and '1/3' in text and '%' in text and '\n' not in text, text
    assert text.endswith('\r') and not text[:-1].rpartition('\r')[2].strip(), text                  # wiped
    assert shown(Terminal(), progress=False) == shown(io.StringIO()) == shown(Terminal(), off='1') == ''
    assert shown(Terminal(), slow=False) == ''                                          # too short a wait to show anything

def loaders_come_in_pairs(lib):
    L, train, valid = lib.fitting, fit_data(lib), fit_data(lib, 7, 1)
    a, b = works(L.get_dls, train, valid, 3)
    assert type(a) is type(b) is L.DataLoader and [len(y) for _, y in a] == [3]*6 + [2] and [len(y) for _, y in b] == [6, 1]
    assert torch.cat([x for x, _ in b]).equal(valid.x) and not torch.cat([x for x, _ in a]).equal(train.x)
    a, b = works(L.get_dls, train, valid, 5, pin_memory=False)
    assert type(a) is type(b) is torch.utils.data.DataLoader and len(b) == 1
    for dl in works(L.get_dls, train, valid, 5, collate_fn=len): assert next(iter(dl)) in (5, 7)
    refuses(TypeError, 'colour', L.get_dls, train, valid, 5, colour=1)

def weights_come_back(lib):
    save, load = lib.fitting.save_weights, lib.fitting.load_weights
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'w')
        def there_and_back(model, other):
            works(save, model, path)
            works(load, other, path)
            equal(states(other), states(model))
        model, other = fit_net(lib, dropout=True), fit_net(lib, dropout=True)
        fit_loop(model, fit_batches(lib)[0])
        there_and_back(model, other)
        tied = [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in 'ab']
        for m in tied: m[1].weight = m[0].weight
        there_and_back(*tied)
        turned = [nn.ParameterDict(dict(t=nn.Parameter(rand(3, 2, seed=seed).t()))) for seed in (0, 1)]
        there_and_back(*turned)
        ours = lib.fitting.by_hand(fit_net(lib))
        for t in ours.parameters(): t.zero_()
        there_and_back(fit_net(lib), ours)

def a_failed_write_leaves_the_old(lib):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as m:
        path = os.path.join(folder, 'w')
        lib.fitting.save_weights(fit_net(lib), path)
        was = open(path, 'rb').read()
        def fails(*args): raise OSError('no space')
        m.setattr(os, 'replace', fails)
        other = fit_net(lib, dropout=True)
        refuses(OSError, 'no space', lib.fitting.save_weights, other, path)
        assert open(path, 'rb').read() == was and os.listdir(folder) == ['w']

def bad_weights_are_refused(lib):
    with tempfile.TemporaryDirectory() as folder:
        good, bad = (os.path.join(folder, name) for name in ('good', 'bad'))
        lib.fitting.save_weights(fit_net(lib), good)
        whole = open(good, 'rb').read()
        for text in (b'', b'no weights at all', whole[:-1]):
            with open(bad, 'wb') as f: f.write(text)
            refuses(ValueError, 'is no safetensors file', lib.fitting.load_weights, fit_net(lib), bad)
        for other in (fit_net(lib, dropout=True), fit_net(lib).float(), fit_net(lib)[:1],
                      nn.Sequential(lib.backprop.Linear(4, 6), nn.ReLU(), lib.backprop.Linear(6, 3)).double()):
            was = states(other)
            refuses(ValueError, 'but the model has', lib.fitting.load_weights, other, good)
            equal(states(other), was)

def by_hand_is_the_same_network(lib):
    model = fit_net(lib)
    ours = works(lib.fitting.by_hand, model)
    x = rand(6, 4, seed=9)
    near(ours(x), model(x).detach(), 1e-12)
    for a, b in zip(ours.parameters(), model.parameters()): assert a.data_ptr() != b.data_ptr() and not a.requires_grad
    for layer in (nn.Sigmoid(), nn.Linear(2, 2)): refuses(TypeError, 'wanted Linear or nn.ReLU', lib.fitting.by_hand, nn.Sequential(layer))

def by_hand_fits_the_same(lib):
    model = fit_net(lib)
    ours = lib.fitting.by_hand(model)
    with torch.no_grad(): got = works(run_fit, lib, ours, lib.training.CrossEntropy(), 3)[1].losses
    near(got, fit_loop(model, fit_batches(lib)[0]*3))
    near([*ours.state_dict().values()], [p.detach() for p in model.parameters()])
    assert not ours.training

def blocks_of_layers(lib):
    "A block in a block, and one used twice; then a pass that was broken off leaves nothing behind."
    L = lib.backprop
    block = lib.fitting.Sequential(L.Lin(rand(4, 4), rand(4, seed=1)), L.Relu())
    model, x = lib.fitting.Sequential(block, block, L.Lin(rand(4, 2, seed=2), rand(2, seed=3))), rand(3, 4, seed=4)
    def f(w1, b1, w2, b2):
        h = F.relu(F.relu(x @ w1 + b1) @ w1 + b1)
        return (h @ w2 + b2).sum()
    def stops(*args): raise KeyboardInterrupt
    want = autograd_grads(f, **dict(zip(('w1', 'b1', 'w2', 'b2'), model.parameters())))
    for _ in range(2):
        out = model(x)
        out.g = torch.ones_like(out)
        model.backward()
        check_grads(dict(zip(want, (p.grad for p in model.parameters()))), want)
        model.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        act = block.layers[1]
        act.bwd = stops
        model(x).g = torch.ones_like(out)
        try: model.backward()
        except KeyboardInterrupt: del act.bwd
        for p in model.parameters(): p.grad = None                                # as an optimizer forgets

def our_layers_in_a_row(lib):
    L, again = lib.backprop, lib.backprop.Lin(rand(5, 5, seed=3), rand(5, seed=4))
    ours = lib.fitting.Sequential(L.Lin(rand(4, 5), rand(5)), again, L.Relu(), again, L.Lin(rand(5, 3, seed=5), rand(3, seed=6)))
    names = [f'{i}.{k}' for i in (0, 1, 3, 4) for k in 'wb']
    assert [*ours.state_dict()] == names and len(ours.parameters()) == 6 and ours.training
    held = dict(zip(names, (t.clone().requires_grad_() for t in ours.state_dict().values())))
    w = [held[k] for k in ('0.w', '0.b', '1.w', '1.b', '4.w', '4.b')]
    def scores_of(x): return ((((x @ w[0] + w[1]) @ w[2] + w[3]).relu()) @ w[2] + w[3]) @ w[4] + w[5]
    loss = lib.training.CrossEntropy()
    for xb, yb in fit_batches(lib)[0]:                    # they add up
        near(loss(ours(xb), yb), F.cross_entropy(scores_of(xb), yb).detach())
        loss.backward()
        works(ours.backward)
        F.cross_entropy(scores_of(xb), yb).backward()
        near([p.grad for p in ours.parameters()], [p.grad for p in w])
    assert [*lib.fitting.Sequential(*ours.layers).state_dict()] == names          # outputs are no weights
    params = ours.parameters()
    ours.to(torch.float32)
    assert all(p is q and p.dtype == torch.float32 for p, q in zip(ours.parameters(), params))
    ours.eval()
    assert not ours.training
    ours.train()
    assert ours.training

def training_has_them_too(lib):
    for name in ('Dataset', 'fit', 'get_dls'): assert works(getattr, lib.training, name) is getattr(lib.fitting, name)
    assert not hasattr(lib.training, 'SGD') and {'Dataset', 'fit', 'get_dls', 'accuracy', 'report'} <= {*lib.training.__all__}


# ---- the fast network

def fast_case(sizes, n, seed=0):
    "Pairs w, b of a network with these sizes of layers; images, labels, one-hot labels in columns"
    layers = [(rand(a, b, seed=seed + i), rand(b, seed=seed + 10 + i)) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))]
    y = (torch.arange(n)*2 + seed) % sizes[-1]
    return layers, rand(n, sizes[0], seed=seed + 20), y, F.one_hot(y, sizes[-1]).double().t()

def flat(layers): return [t for pair in layers for t in pair]

def fast_loss(x, y, *weights):
    for w, b in zip(weights[:-2:2], weights[1:-2:2]): x = (x @ w + b).relu()
    return F.cross_entropy(x @ weights[-2] + weights[-1], y)

def fast_want(layers, x, y):
    "The loss and its gradients by autograd"
    weights = [t.detach().clone().requires_grad_() for t in flat(layers)]
    loss = fast_loss(x, y, *weights)
    return loss.detach(), torch.autograd.grad(loss, weights)

def fast_weights(net): return [t for w, b in net.params for t in (w.t(), b)]

def fast_net(lib, *sizes):
    g = torch.Generator().manual_seed(0)
    layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.ReLU(), lib.backprop.Linear(a, b, g))]
    return nn.Sequential(*layers[1:]).double()

def numbered(tensors): return {str(i): t for i, t in enumerate(tensors)}

def operators(run):
    "The sizes r, q, s of the products (r, q) @ (q, s) that `run` asks for, and the names of all other operators but views"
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.mm.out: products.append((*args[0].shape, args[1].shape[1]))
            elif not func.is_view: others.append(str(func))
            return func(*args, **(kwargs or {}))
    products, others = [], []
    with Watch(): works(run)
    return products, others

def the_yardstick_is_five_products(lib):
    x = rand(20, 7)
    got = operators(lib.speed.yardstick(x, 5, 3, 8))
    assert got == ([q for k in (8, 8, 4) for q in ((5, 7, k), (3, 5, k), (5, 3, k), (3, k, 5), (5, k, 7))], []), got
    assert len(operators(lib.speed.yardstick(rand(130, 2), 5, 3))[0]) == 15
    assert x.equal(rand(20, 7))

def buffers_are_its_own(lib):
    for sizes in ((4, 3), (1, 1, 2), (1, 4, 3), (5, 1, 3), (3, 4, 5, 2)):
        layers = fast_case(sizes, 1)[0]
        net = works(lib.speed.Buffers, layers)
        near(fast_weights(net), flat(layers), 0)
        theirs = {t.data_ptr() for t in flat(layers)}
        assert all(t.is_contiguous() and t.data_ptr() not in theirs for t in flat(net.params))
        assert not any(t.requires_grad for t in flat(lib.speed.Buffers([[t.clone().requires_grad_() for t in pair] for pair in layers]).params))
        made = works(net.tensors, 6), works(net.tensors, 2)
        assert works(net.tensors, 6) is made[0] and sorted(net.made) == [2, 6]
        for k, (hidden, last, (back, g, ones)) in zip((6, 2), made):
            assert [tuple(t[-1].shape) for t in (*hidden, last)] == [(nh, k) for nh in sizes[1:]] and g.shape == (sizes[-1], k)
            assert ones.equal(torch.ones(k, dtype=f64)) and len(back) == len(layers) - 1
            assert len({t.data_ptr() for t in (*[q[-1] for q in (*hidden, last, *back)], g)}) == 2*len(layers)

def fast_gradients_are_autograds(lib):
    for sizes, n, chunk in (((4, 3), 5, 2), ((4, 5, 3), 7, 3), ((4, 5, 6, 3), 7, 7), ((3, 5, 4, 5, 2), 9, 4), ((5, 1, 3), 3, 100)):
        layers, x, y, _ = fast_case(sizes, n)
        net, want = lib.speed.FastNetwork(layers), fast_want(layers, x, y)
        loss, grads = works(lib.speed.loss_and_gradients, net, x, y.to(torch.uint8), chunk)
        near(loss, want[0])
        check_grads(numbered(grads), numbered(want[1]))
        near(fast_weights(net), flat(layers), 0)
        assert sorted(net.made) == sorted({min(n, chunk), n % chunk or chunk} - ({chunk} if chunk > n else set()))
        scores = works(net.forward, x)
        for w, b in layers[:-1]: x = (x @ w + b).relu()
        near(scores, (x @ layers[-1][0] + layers[-1][1]).t())
    net, x, y = lib.speed.FastNetwork(fast_case((2, 2), 1)[0]), rand(1500, 2), torch.arange(1500) % 2
    lib.speed.loss_and_gradients(net, x, y)
    assert sorted(net.made) == [476, 1024]
    for chunk in 0, 2.5, True: refuses(ValueError, f'chunk is {chunk}, wanted a whole number from 1', lib.speed.loss_and_gradients, net, x, y, chunk)
    refuses(ValueError, '1500 images and labels (7,); pass one', lib.speed.loss_and_gradients, net, x, y[:7], 7)
    refuses(ValueError, 'loss_and_gradients: x is (1500, 1), wanted (n, 2)', lib.speed.loss_and_gradients, net, x[:, :1], y)
    refuses(TypeError, 'x is torch.float32 and the weights torch.float64', lib.speed.loss_and_gradients, net, x.float(), y)
    works(lib.speed.loss_and_gradients, net, x.requires_grad_(), y)
    refuses(ValueError, 'labels go from 0 to 1, but 1 columns', lib.speed.loss_and_gradients, lib.speed.FastNetwork(fast_case((2, 1), 1)[0]), x, y)

def fast_steps_are_sgds(lib):
    for sizes in (4, 3), (4, 5, 3), (4, 5, 6, 3):
        layers, x, y, targ = fast_case(sizes, 9)
        net, weights = lib.speed.FastNetwork(layers), flat(layers)
        for k in (6, 3, 6, 9, 3):
            grads = fast_want([weights], x[:k], y[:k])[1]
            weights = [t - .4*g for t, g in zip(weights, grads)]
            works(net.step, x[:k], targ[:, :k], .4)
        near(fast_weights(net), weights, 1e-9)
        assert targ.equal(F.one_hot(y, sizes[-1]).double().t()) and x.equal(rand(9, 4, seed=20))

def fast_hinges_are_shut(lib):
    "At relu's 0 the slope is 0, for the network and for the one operation"
    layers = [(rand(3, 4)*0, rand(4)*0), (rand(4, 2), rand(2))]
    x, y = rand(2, 3, seed=5), torch.tensor([0, 1])
    for grads in (works(lib.speed.loss_and_gradients, lib.speed.FastNetwork(layers), x, y)[1], one_operation(lib, layers, x, y)[1]):
        assert [bool(g.any()) for g in grads] == [False, False, False, True], grads

def labels_stand_in_columns(lib):
    y, one_hot = torch.tensor([2, 0, 2]), lib.speed.one_hot
    for labels, dtype in ((y, torch.float32), (y.int(), f64), (y.to(torch.uint8), f64)):
        got = works(one_hot, labels, 4, dtype)
        assert got.dtype == dtype and got.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert works(one_hot, y, 3).dtype == torch.float32
    for bad in (y, -y): refuses(ValueError, 'but 2 columns allow 0 to 1', one_hot, bad, 2)
    refuses(TypeError, 'pass targ.long()', one_hot, y.float(), 3)
    refuses(ValueError, 'wanted (n, c) and (n,)', one_hot, y[0], 3)

def layers_are_found(lib):
    L, find = lib.backprop.Linear, lib.speed.layers_of
    for sizes in (4, 3), (4, 5, 3), (4, 5, 6, 3):
        model = fast_net(lib, *sizes)
        assert [*map(id, flat(works(find, model)))] == [*map(id, model.parameters())]
    again = L(4, 4)
    for layers, got in (([], 'no layers'), ([L(4, 4), L(4, 4)], 'Linear, Linear'), ([L(4, 4), nn.ReLU()], 'Linear, ReLU'), ([nn.Linear(4, 3)], 'Linear'),
                        ([L(4, 4), nn.Tanh(), L(4, 4)], 'Linear, Tanh, Linear'),
                        ([nn.ReLU(), L(4, 4)], 'ReLU, Linear'), ([type('Mine', (L,), {})(4, 4)], 'Mine')):
        refuses(TypeError, f'layers_of: got {got}; wanted', find, nn.Sequential(*layers))
    for model, got in (again, 'Linear'), (None, 'NoneType'): refuses(TypeError, f'layers_of: got {got}; wanted', find, model)
    tied, frozen = (nn.Sequential(L(4, 4), nn.ReLU(), L(4, 4)) for _ in range(2))
    tied[2].b = tied[0].b
    frozen[0].w.requires_grad_(False)
    for model in nn.Sequential(again, nn.ReLU(), again), tied, frozen: refuses(TypeError, 'shared or frozen', find, model)
    refuses(TypeError, 'gives 5 numbers and the next takes 4', find, nn.Sequential(L(4, 5), nn.ReLU(), L(4, 3)))

def epochs_go_through_all(lib):
    "In order or not, a short batch at the end; the order is read anew each time, and shuffles images with their labels"
    layers, x, y, targ = fast_case((4, 5, 3), 20)
    order, weights, same = torch.arange(20), flat(layers), flat(layers)
    shuffled, straight = (lib.speed.FastNetwork(layers) for _ in range(2))
    runs = works(lib.speed.one_epoch, shuffled, x, targ, 8, .4, order), works(lib.speed.one_epoch, straight, x, targ, 8, .4)
    for seed in 1, 2:
        order.copy_(torch.randperm(20, generator=torch.Generator().manual_seed(seed)))
        for images, now in (order, weights), (torch.arange(20), same):
            for part in images.split(8): now[:] = [t - .4*g for t, g in zip(now, fast_want([now], x[part], y[part])[1])]
        for run in runs: works(run)
        near(fast_weights(shuffled), weights, 1e-9)
        near(fast_weights(straight), same, 1e-9)
    for bad in targ[:, :7], targ[:1], torch.zeros(20): refuses(ValueError, f'targ is {tuple(bad.shape)}, wanted (3, 20)', lib.speed.one_epoch, straight, x, bad, 8, .4)
    works(lib.speed.one_epoch(straight, x.clone().requires_grad_(), targ, 8, .4))

def fast_training_is_the_loop(lib):
    n, sizes = 21, (4, 5, 3)
    x, y = fast_case(sizes, n)[1:3]
    for epochs, bs, seed in ((1, 8, None), (2, 8, None), (3, 8, 4), (2, 100, 4)):
        models, gens = [fast_net(lib, *sizes) for _ in range(2)], [None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2)]
        for _ in range(epochs):
            order = torch.arange(n) if seed is None else torch.randperm(n, generator=gens[0])
            fit_loop(models[0], [(x[part], y[part]) for part in order.split(bs)])
        works(lib.speed.train_fast, models[1], x, y, epochs, bs, .5, gens[1])
        near([t.detach() for t in models[1].parameters()], [t.detach() for t in models[0].parameters()], 1e-9)
    a, b = fast_net(lib, 2, 2), fast_net(lib, 2, 2)
    x, y = rand(130, 2), torch.arange(130) % 2
    fit_loop(a, zip(x.split(64), y.split(64)), .3)
    works(lib.speed.train_fast, b, x, y)
    near(states(b), states(a), 1e-9)

def overflow_leaves_the_last_whole_epoch(lib):
    x, y = fast_case((4, 5, 3), 20)[1:3]
    ends = []
    for epochs in range(1, 6):
        model, said = fast_net(lib, 4, 5, 3), ''
        try: lib.speed.train_fast(model, x, y, epochs, 20, 1e80)
        except FloatingPointError as e: said = str(e)
        ends.append((model, said))
    first = [bool(said) for _, said in ends].index(True) if ends[-1][1] else 0
    assert first >= 2, [said for _, said in ends]
    for model, said in ends[first:]:
        assert f'in epoch {first + 1} weights became' in said and 'lower lr, which is 1e+80' in said
        equal(states(model), states(ends[first - 1][0]))
    assert all(t.isfinite().all() for t in ends[-1][0].parameters())
    class Net: params = [(torch.ones(2, 2), torch.tensor([0., nan]))]                  # a bias alone, and -inf
    before = [(torch.zeros(2, 2), torch.zeros(2))]
    for bad in nan, inf, -inf:
        Net.params[0][1][1] = bad
        refuses(FloatingPointError, 'in here weights became', lib.speed._copy_finite, Net, before, 'here', 1)
    assert not any(t.any() for t in flat(before))

def fast_training_refuses(lib):
    model, (x, y) = fast_net(lib, 4, 5, 3), fast_case((4, 5, 3), 8)[1:3]
    def bad(error, message, **kw): refuses(error, 'train_fast: ' + message, lib.speed.train_fast, model, **dict(x=x, y=y) | kw)
    for odd in (x[0], x[:, :3], x.view(2, 4, 4)): bad(ValueError, f'x is {tuple(odd.shape)}, wanted (n, 4)', x=odd)
    for odd in (y[:7], y[:, None]): bad(ValueError, f'8 images and labels {tuple(odd.shape)}', y=odd)
    bad(TypeError, 'x is torch.float32 and the weights torch.float64; pass x.to(torch.float64)', x=x.float())
    bad(ValueError, "x is on meta and the weights on cpu; pass x.to('cpu')", x=x.to('meta'))
    bad(ValueError, "y is on meta and the weights on cpu; pass y.to('cpu')", y=y.to('meta'))
    for name in 'x', 'y': bad(TypeError, f'{name} is list; pass a tensor', **{name: [1, 2]})
    for k in (0, -1, 1.5, '3', True, None):
        for name in 'epochs', 'bs': refuses(ValueError, f'{name} is {k!r}, wanted a whole number from 1', lib.speed.train_fast, model, x, y, **{name: k})
    for lr in (-.1, nan, inf, 'a', None): bad(ValueError, f'the learning rate is {lr!r}, wanted a number from 0', lr=lr)
    bad(TypeError, 'generator is 3; pass torch.Generator().manual_seed(3)', generator=3)
    bad(ValueError, 'x has infinite numbers or nan before training', x=x/0)
    spoilt = fast_net(lib, 4, 5, 3)
    with torch.no_grad(): spoilt[2].b[1] = nan
    refuses(ValueError, 'train_fast: weight 3 has infinite numbers or nan', lib.speed.train_fast, spoilt, x, y)
    works(lib.speed.train_fast, model, x.clone().requires_grad_(), y, bs=np.int64(4))
    works(lib.speed.train_fast, model, x, y, lr=0)

def recorded_leaves_all_as_it_was(lib):
    """A stand-in for CUDA notes in which order its parts are asked: it shows that `run` runs once on a stream of its own, once while
    the graph records, and that what it changed is put back. What a real GPU makes of it, test_speed.py asks where there is one."""
    class Stream:
        def __init__(self, name='side'): self.name = name
        def wait_stream(self, other): notes.append((self.name, 'waits for', other.name))
    class Graph:
        def replay(self): notes.append('replay')
    @contextlib.contextmanager
    def inside(where):
        notes.append(where.name if isinstance(where, Stream) else 'recording')
        yield
        notes.append('end')
    def run():
        notes.append('run')
        a.add_(1), b.mul_(2)
    notes, (a, b), main = [], (torch.ones(2), torch.ones(3)), Stream('main')
    with pytest.MonkeyPatch.context() as m:
        for name, what in dict(Stream=Stream, current_stream=lambda: main, stream=inside, CUDAGraph=Graph, graph=inside).items():
            m.setattr(torch.cuda, name, what)
        again = works(lib.speed.recorded, run, [a, b])
    assert notes == [('side', 'waits for', 'main'), 'side', 'run', 'end', ('main', 'waits for', 'side'), 'recording', 'run', 'end'], notes
    assert a.equal(torch.ones(2)) and b.equal(torch.ones(3))
    works(again)
    assert notes[8:] == ['replay']
    held = weakref.ref(run)
    del run
    assert held(), 'the tensors whose addresses the graph has may be freed'

def one_operation(lib, layers, x, y, power=1):
    "The loss to a power; its slopes at the weights, and at the images if these ask for it"
    weights = [t.clone().requires_grad_() for t in flat(layers)]
    loss = works(lib.speed.NetworkLoss.apply, x, y, *weights)**power
    works(loss.backward)
    return loss.detach(), [t.grad for t in weights]

def one_operation_is_autograds(lib):
    for sizes in (4, 3), (4, 5, 3), (4, 5, 6, 3):
        layers, x, y, _ = fast_case(sizes, 7)
        mine, theirs, weights = x.clone().requires_grad_(), x.clone().requires_grad_(), [t.clone().requires_grad_() for t in flat(layers)]
        loss, grads = one_operation(lib, layers, mine, y.to(torch.uint8), 2)
        want = fast_loss(theirs, y, *weights)**2
        want.backward()
        near(loss, want.detach())
        check_grads(numbered([*grads, mine.grad]), numbered([t.grad for t in (*weights, theirs)]))
        assert mine.equal(x)
        check_grads(numbered(one_operation(lib, layers, x, y)[1]), numbered(fast_want(layers, x, y)[1]))

def one_operation_does_no_more(lib):
    "The slopes of the images are computed only if these ask for them, and slopes of slopes are refused"
    layers, x, y, _ = fast_case((4, 5, 3), 7)
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))
    for asks in False, True:
        seen, weights = [], [t.clone().requires_grad_() for t in flat(layers)]
        loss = lib.speed.NetworkLoss.apply(x.clone().requires_grad_(asks), y, *weights)
        with Watch(): works(loss.backward)
        assert seen.count(torch.ops.aten.mm.default) == 3 + asks
    for power in 1, 2:
        loss = lib.speed.NetworkLoss.apply(x, y, *weights)**power
        refuses(RuntimeError, 'no slopes of slopes', torch.autograd.grad, loss, weights, create_graph=True)
    refuses(ValueError, 'argument 2 is shorter', lib.speed.NetworkLoss.apply, x, y, *weights[:3])
    refuses(ValueError, 'labels go from -1', lib.speed.NetworkLoss.apply, x, y - 1, *weights)


# ---- the bugs: property -> rows of (kind, where, the right text, the wrong text)

mutants = {
    multiplies: [
        ('wrong axis', 'matmul.matmul', 'return a @ b', 'return b @ a'),
        ('missing transpose', 'matmul.matmul', 'return a @ b', 'return a @ b.t()'),
        ('missing transpose', 'matmul.matmul', 'return a @ b', 'return a.t() @ b'),
        ('sign', 'matmul.matmul', 'return a @ b', 'return -a @ b'),
        ('missing sum', 'matmul.matmul', 'return a @ b', 'return a*b')],
    matmul_refuses: [
        ('no check', 'matmul.matmul', 'if m != p', 'if False'),
        ('no check', 'matmul.matmul', 'if t.ndim != 2', 'if t.ndim > 2'),
        ('no check', 'matmul.matmul', 'if a.dtype != b.dtype', 'if False')],
    broadcasts: [
        ('wrong axis', 'matmul.broadcast_shape', 'zip_longest(reversed(a), reversed(b)', 'zip_longest(a, b'),
        ('wrong axis', 'matmul.broadcast_shape', '(q if p == 1 else p, *out)', '(*out, q if p == 1 else p)'),
        ('keepdim dropped', 'matmul.broadcast_shape', 'zip_longest(reversed(a), reversed(b), fillvalue=1)',
         'zip(reversed(a), reversed(b))'),
        ('gate on the wrong side', 'matmul.broadcast_shape', 'q if p == 1 else p', 'p if p == 1 else q'),
        ('no check', 'matmul.broadcast_shape', 'if p != q and 1 not in (p, q)', 'if False')],
    lin_is_right: [
        ('sign', 'backprop.lin', 'return out + b', 'return out - b'),
        ('wrong axis', 'backprop.lin', 'return out + b', 'return out + b[:, None]'),
        ('missing term', 'backprop.lin', 'return out + b', 'return out'),
        ('missing transpose', 'backprop.lin', 'matmul(x, w)', 'matmul(x, w.t())')],
    lin_refuses: [
        ('no check', 'backprop.lin', 'if b.shape != w.shape[1:]', 'if b.numel() > w.shape[1]'),
        ('no check', 'backprop.lin', 'if b.dtype != w.dtype', 'if False')],
    relu_is_right: [
        ('gate on the wrong side', 'backprop.relu', 'x <= 0', 'x >= 0'),
        ('gate on the wrong side', 'backprop.relu', 'x <= 0', 'x <= 1'),
        ('gate on the wrong side', 'backprop.relu', 'x.masked_fill(x <= 0, 0)', 'x'),
        ('sign', 'backprop.relu', 'return x.', 'return -x.')],
    the_slope_at_0_is_0: [
        ('gate on the wrong side', 'backprop.relu', 'x <= 0', 'x < 0'),
        ('gate on the wrong side', 'backprop.Relu', 'inp <= 0', 'inp < 0'),
        ('gate on the wrong side', 'backprop.forward_and_backward', 'l1 <= 0', 'l1 < 0')],
    mse_is_right: [
        ('missing 1/n', 'backprop.mse', '.mean()', '.sum()'),
        ('missing 1/n', 'backprop.mse', '.mean()', '.sum()/output.shape[1]'),
        ('wrong axis', 'backprop.mse', '.mean()', '.mean(0)'),
        ('sign', 'backprop.mse', 'output - targ)', 'output + targ)'),
        ('sign', 'backprop.mse', 'return (', 'return -('),
        ('missing factor', 'backprop.mse', '.square()', '.abs()')],
    mse_refuses: [
        ('no check', 'backprop.mse', 'if a != b', 'if len(a) != len(b)'),
        ('no check', 'backprop.mse', 'if a != b', 'if output.numel() != targ.numel()'),
        ('no check', 'backprop.mse', 'if not output.numel()', 'if False'),
        ('no check', 'backprop.mse', 'if output.dtype != targ.dtype', 'if False'),
        ('keepdim dropped', 'backprop.mse', 'a == (*b, 1)', 'a == b')],
    lin_grad_is_right: [
        ('missing transpose', 'backprop.lin_grad', 'w.t()', 'w'),
        ('missing transpose', 'backprop.lin_grad', 'inp.t()', 'inp'),
        ('missing transpose', 'backprop.lin_grad', 'matmul(inp.t(), out.g)', 'matmul(out.g.t(), inp)'),
        ('missing sum(0)', 'backprop.lin_grad', 'out.g.sum(0)', 'out.g[0]'),
        ('missing sum(0)', 'backprop.lin_grad', 'out.g.sum(0)', 'out.g.mean(0)'),
        ('wrong axis', 'backprop.lin_grad', 'out.g.sum(0)', 'out.g.sum(1)'),
        ('sign', 'backprop.lin_grad', 'inp.g = ', 'inp.g = -'),
        ('sign', 'backprop.lin_grad', 'w.g = ', 'w.g = -'),
        ('sign', 'backprop.lin_grad', 'b.g = ', 'b.g = -'),
        ('wrong dtype', 'backprop.lin_grad', 'out.g.sum(0)', 'out.g.sum(0).float()')],
    lin_grad_refuses: [
        ('no check', 'backprop.lin_grad', 'if t.g.shape != t.shape', 'if False'),
        ('no check', 'backprop.lin_grad', 'if t.g.shape != t.shape', 'if t.g.numel() > t.numel()'),
        ('no check', 'backprop.lin_grad', 'dict(inp=inp, w=w, b=b)', 'dict(w=w)'),
        ('no check', 'backprop.lin_grad', 'matmul(inp.t(), out.g)', 'inp.t() @ out.g')],
    forward_and_backward_is_right: [
        ('missing 1/n', 'backprop.forward_and_backward', '/out.numel()', ''),
        ('missing 1/n', 'backprop.forward_and_backward', 'out.numel()', 'len(out)'),
        ('missing factor', 'backprop.forward_and_backward', '2*(out', '(out'),
        ('sign', 'backprop.forward_and_backward', 'out - targ', 'targ - out'),
        ('gate on the wrong side', 'backprop.forward_and_backward', 'l1 <= 0', 'l1 >= 0'),
        ('gate on the wrong side', 'backprop.forward_and_backward', 'l2.g.masked_fill(l1 <= 0, 0)', 'l2.g'),
        ('gate on the wrong side', 'backprop.forward_and_backward', 'l1 <= 0', 'l2.g <= 0'),
        ('missing term', 'backprop.forward_and_backward', 'l1 = lin(inp, w1, b1)', 'l1 = lin(inp, w1, 0*b1)'),
        ('missing transpose', 'backprop.lin_grad', 'w.t()', 'w')],
    relu_layer_is_right: [
        ('gate on the wrong side', 'backprop.Relu', 'inp <= 0', 'inp >= 0'),
        ('gate on the wrong side', 'backprop.Relu', 'inp <= 0', 'out.g <= 0'),
        ('gate on the wrong side', 'backprop.Relu', 'out.g.masked_fill(inp <= 0, 0)', 'out.g'),
        ('missing factor', 'backprop.Relu', 'out.g.masked_fill(inp <= 0, 0)', '(inp > 0).to(inp)'),
        ('sign', 'backprop.Relu', 'inp, out.g.', 'inp, -out.g.')],
    lin_layer_is_right: [
        ('missing transpose', 'backprop.Lin', 'self.w.t()', 'self.w'),
        ('missing transpose', 'backprop.Lin', 'inp.t()', 'inp'),
        ('missing transpose', 'backprop.Lin', 'inp.t() @ out.g', 'out.g.t() @ inp'),
        ('missing sum(0)', 'backprop.Lin', 'out.g.sum(0)', 'out.g[0]'),
        ('missing sum(0)', 'backprop.Lin', 'add_grad(self.b, out.g.sum(0))', 'self.b.g = out.g'),
        ('missing sum(0)', 'backprop.Lin', 'out.g.sum(0)', 'out.g.mean(0)'),
        ('wrong axis', 'backprop.Lin', 'out.g.sum(0)', 'out.g.sum(1)'),
        ('keepdim dropped', 'backprop.Lin', 'add_grad(self.b, out.g.sum(0))', 'self.b.g = out.g.sum(0, keepdim=True)'),
        ('sign', 'backprop.Lin', 'inp.t() @ out.g', '-inp.t() @ out.g'),
        ('sign', 'backprop.Lin', 'out.g @', '-out.g @'),
        ('missing term', 'backprop.Lin', 'add_grad(self.b, out.g.sum(0))', 'pass'),
        ('missing term', 'backprop.Lin', 'return lin(inp, self.w, self.b)', 'return inp @ self.w')],
    mse_layer_is_right: [
        ('missing 1/n', 'backprop.Mse', '/inp.numel()', ''),
        ('missing 1/n', 'backprop.Mse', 'inp.numel()', 'len(inp)'),
        ('missing factor', 'backprop.Mse', '2*', ''),
        ('sign', 'backprop.Mse', 'inp - targ', 'targ - inp'),
        ('missing term', 'backprop.Mse', '(inp - targ)', 'inp')],
    model_is_right: [
        ('missing transpose', 'backprop.Lin', 'self.w.t()', 'self.w'),
        ('missing sum(0)', 'backprop.Lin', 'out.g.sum(0)', 'out.g[0]'),
        ('missing 1/n', 'backprop.Mse', 'inp.numel()', 'len(inp)'),
        ('gate on the wrong side', 'backprop.Relu', 'inp <= 0', 'inp >= 0'),
        ('sign', 'backprop.Mse', 'inp - targ', 'targ - inp'),
        ('= for +=', 'backprop.Model', 'for layer, out in', 'self.loss.backward()\n        for layer, out in'),
        ('missing term', 'backprop.Model', 'Lin(w1, b1), Relu(), Lin', 'Lin(w1, b1), Lin')],
    model_takes_a_loss: [
        ('missing term', 'backprop.Model', 'loss or Mse()', 'Mse()')],
    backward_adds_up: [
        ('= for +=', 'backprop.add_grad', 'g if old is None else old + g, None', 'g, None'),
        ('= for +=', 'backprop.Lin', 'add_grad(self.w, inp.t() @ out.g)', 'self.w.g = inp.t() @ out.g'),
        ('= for +=', 'backprop.Lin', 'add_grad(self.b, out.g.sum(0))', 'self.b.g = out.g.sum(0)'),
        ('= for +=', 'backprop.Lin', 'add_grad(inp, out.g @ self.w.t())', 'inp.g = out.g @ self.w.t()'),
        ('= for +=', 'backprop.Mse', 'add_grad(inp, 2*(inp - targ)/inp.numel()*out.g)', 'inp.g = 2*(inp - targ)/inp.numel()*out.g'),
        ('sign', 'backprop.add_grad', 'old + g', 'old - g'),
        ('not zeroed', 'backprop.Module', 'out.passed = out.g', 'pass')],
    walks_add_up: [
        ('not zeroed', 'backprop.Module', 'out.passed = out.g', 'pass'),
        ('not zeroed', 'backprop.add_grad', "if old is getattr(t, 'passed', None): old = None", ''),
        ('= for +=', 'backprop.add_grad', "if old is getattr(t, 'passed', None)", "if getattr(t, 'passed', None) is not None"),
        ('= for +=', 'backprop.add_grad', 't.g, t.passed = g if old is None else old + g, None', 't.g = g if old is None else old + g'),
        ('wrong call', 'backprop.Model', "getattr(self, 'out', None)", '')],
    random_programs: [
        ('not zeroed', 'backprop.Module', 'out.passed = out.g', 'pass'),
        ('not zeroed', 'backprop.add_grad', "if old is getattr(t, 'passed', None): old = None", ''),
        ('not zeroed', 'fitting.Sequential', 'zero_grads(*self.parameters())', 'pass'),
        ('wrong call', 'backprop.Model', "getattr(self, 'out', None)", ''),
        ('wrong call', 'backprop.call_of', 'calls[layer._stamp]', '[*calls.values()][-1]'),
        ('= for +=', 'fitting.Sequential', 'p.grad + g', 'g'),
        ('missing factor', 'backprop.Mse', '*out.g', '')],
    a_dead_layer_is_no_other: [
        ('wrong call', 'backprop.Module', "setdefault('_stamp', object())", "setdefault('_stamp', id(self))")],
    zeroing_forgets: [
        ('not zeroed', 'backprop.zero_grads', 't.g = None', 'pass'),
        ('not zeroed', 'backprop.Module', 'o.zero_grad()', 'pass'),
        ('not zeroed', 'backprop.Module', 'o.g = None', 'pass'),
        ('not zeroed', 'backprop.Module', '(list, tuple, dict)', '(tuple, dict)')],
    a_weight_used_twice: [
        ('= for +=', 'backprop.add_grad', 'g if old is None else old + g, None', 'g, None'),
        ('= for +=', 'backprop.Lin', 'add_grad(self.w, inp.t() @ out.g)', 'self.w.g = inp.t() @ out.g'),
        ('= for +=', 'backprop.Lin', 'add_grad(self.b, out.g.sum(0))', 'self.b.g = out.g.sum(0)')],
    a_layer_used_twice: [
        ('= for +=', 'backprop.Lin', 'add_grad(self.w, inp.t() @ out.g)', 'self.w.g = inp.t() @ out.g'),
        ('wrong call', 'backprop.call_of', '*calls[layer._stamp]', '*layer.args'),
        ('wrong call', 'backprop.call_of', 'if out is None: out = layer.out', 'out = layer.out'),
        ('no check', 'backprop.call_of', 'if layer._stamp not in calls', 'if not calls'),
        ('no check', 'backprop.call_of', 'if layer._stamp not in calls', 'if False')],
    an_output_may_be_its_input: [
        ('shared memory', 'backprop.Module', 'out = out.view_as(out)', 'pass')],
    memory_is_given_back: [
        ('shared memory', 'backprop.Module', "setdefault('_stamp', object())", "setdefault('_stamp', self)")],
    copies_go_back: [
        ('wrong call', 'backprop.Module', "setdefault('_stamp', object())", "setdefault('_stamp', id(self))")],
    a_value_that_fans_out: [
        ('= for +=', 'backprop.Lin', 'add_grad(inp, out.g @ self.w.t())', 'inp.g = out.g @ self.w.t()'),
        ('= for +=', 'backprop.Relu', 'add_grad(inp, out.g.masked_fill(inp <= 0, 0))', 'inp.g = out.g.masked_fill(inp <= 0, 0)'),
        ('= for +=', 'backprop.Mse', 'add_grad(inp, 2*(inp - targ)/inp.numel()*out.g)', 'inp.g = 2*(inp - targ)/inp.numel()*out.g')],
    gradients_are_not_shared: [
        ('= for +=', 'backprop.add_grad', 'old + g', 'old.add_(g)')],
    add_grad_refuses: [('no check', 'backprop.add_grad', '(t.shape, t.dtype) != (g.shape, g.dtype)', 't.numel() < g.numel()'),
                       ('wrong dtype', 'backprop.add_grad', '(t.shape, t.dtype) != (g.shape, g.dtype)', 't.shape != g.shape')],
    losses_can_be_weighed: [
        ('missing factor', 'backprop.Mse', '*out.g', ''),
        ('missing factor', 'training.CrossEntropy', '*out.g', ''),
        ('missing factor', 'backprop.call_of', "not out.ndim and getattr(out, 'g', None) is None", 'not out.ndim')],
    a_second_loss_counts: [
        ('= for +=', 'backprop.Model', 'for layer, out in', 'zero_grads(self.preds); self.loss.backward(self.out)\n        for layer, out in')],
    misuse_is_explained: [
        ('no check', 'backprop.call_of', "if not hasattr(layer, 'out')", 'if False'),
        ('no check', 'backprop.call_of', "if getattr(out, 'g', None) is None:", 'if False:'),
        ('no check', 'backprop.Module', "raise NotImplementedError(f'{type(self).__name__} must define forward",
         "return (f'{()}")],
    no_graph_is_left: [('graph kept', 'backprop.Module', 'with torch.no_grad(): self.bwd', 'self.bwd')],
    linear_starts_as_it_says: [
        ('missing factor', 'backprop.Linear', '/n_in**0.5', ''),
        ('wrong axis', 'backprop.Linear', 'n_in**0.5', 'n_out**0.5'),
        ('missing term', 'backprop.Linear', 'torch.zeros(n_out)', 'torch.ones(n_out)'),
        ('missing term', 'backprop.Linear', ', generator=generator', ''),
        ('missing term', 'backprop.Linear', 'torch.nn.Parameter(w)', 'w')],

    logsumexp_is_right: [
        ('wrong axis', 'training.logsumexp', 'sum(-1)', 'sum(0)'),
        ('sign', 'training.logsumexp', 'a[..., 0] + ', 'a[..., 0] - '),
        ('sign', 'training.logsumexp', 'x - a', 'a - x'),
        ('missing term', 'training.logsumexp', 'a[..., 0] + ', ''),
        ('keepdim dropped', 'training.logsumexp', 'a[..., 0] + ', 'a + '),
        ('missing factor', 'training.logsumexp', 'sum(-1)', 'mean(-1)')],
    logsumexp_is_stable: [
        ('overflow', 'training.logsumexp', 'a = largest(x).nan_to_num()', 'a = torch.zeros_like(x[..., :1])'),
        ('overflow', 'training.logsumexp', '.nan_to_num()', '')],
    the_largest_is_a_constant: [
        ('keepdim dropped', 'training.largest', 'x.max(-1, keepdim=True).values', 'x.max(-1).values'),
        ('wrong axis', 'training.largest', 'x.max(-1, keepdim=True)', 'x.max(0, keepdim=True)'),
        ('sign', 'training.largest', 'x.max(', 'x.min('),
        ('graph kept', 'training.largest', '.detach()', '')],
    log_softmax_is_right: [
        ('keepdim dropped', 'training.log_softmax', 'logsumexp(x)[..., None]', 'logsumexp(x)'),
        ('wrong axis', 'training.log_softmax', 'logsumexp(x)[..., None]', 'logsumexp(x.t())[None]'),
        ('sign', 'training.log_softmax', 'return x - logsumexp', 'return x + logsumexp'),
        ('missing term', 'training.log_softmax', 'x - logsumexp(x)[..., None]', 'x'),
        ('missing factor', 'training.log_softmax', 'x - logsumexp(x)[..., None]', '(x - logsumexp(x)[..., None])/2.302585'),
        ('missing factor', 'training.log_softmax', 'x - logsumexp(x)[..., None]', '(x - logsumexp(x)[..., None]).exp()')],
    log_softmax_is_stable: [
        ('overflow', 'training.log_softmax', 'x = x - largest(x)', ''),
        ('overflow', 'training.log_softmax', 'logsumexp(x)[..., None]', '(x + 1e3).exp().sum(-1, keepdim=True).log()')],
    softmax_is_right: [
        ('missing factor', 'training.softmax', 'log_softmax(x).exp()', 'x.exp()'),
        ('missing factor', 'training.softmax', 'log_softmax(x).exp()', 'log_softmax(x)'),
        ('sign', 'training.softmax', 'log_softmax(x)', 'log_softmax(-x)'),
        ('wrong axis', 'training.softmax', 'log_softmax(x)', 'log_softmax(x.t()).t()'),
        ('overflow', 'training.softmax', 'log_softmax(x).exp()', 'x.exp()/x.exp().sum(-1, keepdim=True)'),
        ('keepdim dropped', 'training.softmax', 'log_softmax(x).exp()', '(x - largest(x)).exp()/(x - largest(x)).exp().sum(-1)')],
    scores_are_refused: [
        ('no check', 'training.largest', 'if not x.is_floating_point()', 'if False'),
        ('no check', 'training.largest', 'if not x.ndim or not x.shape[-1]', 'if False')],
    nll_is_right: [
        ('sign', 'training.nll', 'return -', 'return '),
        ('missing 1/n', 'training.nll', '.mean()', '.sum()'),
        ('missing 1/n', 'training.nll', '.mean()', '.sum()/log_probs.numel()'),
        ('wrong axis', 'training.nll', 'torch.arange(len(targ), device=targ.device), targ.long()',
         'targ.long(), torch.arange(len(targ))'),
        ('wrong axis', 'training.nll', 'torch.arange(len(targ), device=targ.device), targ.long()', ':, targ.long()')],
    cross_entropy_is_right: [
        ('missing factor', 'training.cross_entropy', 'return nll(log_softmax(logits)', 'return nll(logits'),
        ('missing factor', 'training.cross_entropy', 'return nll(log_softmax(logits)', 'return nll(softmax(logits)'),
        ('missing factor', 'training.cross_entropy', 'return nll(log_softmax(logits)', 'return nll(log_softmax(softmax(logits))'),
        ('wrong axis', 'training.cross_entropy', 'return nll(log_softmax(logits)', 'return nll(log_softmax(logits.t()).t()'),
        ('missing 1/n', 'training.nll', '.mean()', '.sum()')],
    cross_entropy_layer_is_right: [
        ('sign', 'training.CrossEntropy', '-= 1', '+= 1'),
        ('sign', 'training.CrossEntropy', 'g/len', '-g/len'),
        ('missing 1/n', 'training.CrossEntropy', 'g/len(targ)', 'g'),
        ('missing 1/n', 'training.CrossEntropy', 'g/len(targ)', 'g/g.numel()'),
        ('missing term', 'training.CrossEntropy', '-= 1', '-= 0'),
        ('missing factor', 'training.CrossEntropy', 'softmax(inp)', 'log_softmax(inp)'),
        ('wrong axis', 'training.CrossEntropy', 'softmax(inp)', 'softmax(inp.t()).t()'),
        ('wrong axis', 'training.CrossEntropy', 'torch.arange(len(targ), device=targ.device), targ.long()', ':, targ.long()')],
    cross_entropy_adds_up: [
        ('= for +=', 'training.CrossEntropy', 'add_grad(inp, g/len(targ)*out.g)', 'inp.g = g/len(targ)*out.g')],
    labels_are_refused: [
        ('no check', 'training.check_labels', 'targ.shape != x.shape[:1]', 'len(targ) != len(x)'),
        ('no check', 'training.check_labels', 'targ.is_floating_point() or ', ''),
        ('no check', 'training.check_labels', ' or targ.dtype == torch.bool', ''),
        ('no check', 'training.check_labels', 'if not len(targ)', 'if False'),
        ('no check', 'training.check_labels', 'lo < 0 or ', ''),
        ('no check', 'training.check_labels', 'hi >= x.shape[1]', 'hi > x.shape[1]'),
        ('no check', 'training.nll', 'check_labels(log_probs, targ)', 'pass')],
    accuracy_is_right: [
        ('wrong axis', 'training.accuracy', 'dim=1', 'dim=0'),
        ('missing 1/n', 'training.accuracy', '.mean()', '.sum()'),
        ('sign', 'training.accuracy', '== yb', '!= yb'),
        ('sign', 'training.accuracy', 'out.argmax', '(-out).argmax')],
    accuracy_refuses: [
        ('no check', 'training.accuracy', 'yb.shape != out.shape[:1]', 'yb.numel() != len(out)'),
        ('no check', 'training.accuracy', ' or not out.numel()', ''),
        ('no check', 'training.accuracy', 'if yb.is_floating_point()', 'if False')],
    report_says_both: [
        ('missing 1/n', 'training.report', '{loss:.2f}', '{loss*len(yb):.2f}'),
        ('wrong axis', 'training.report', 'accuracy(preds, yb)', 'accuracy(preds.t(), yb)')],

    formulas_are_right: [
        ('sign', "derivatives.OPERATIONS['nll']", '-sp.Sum', 'sp.Sum'),
        ('sign', "derivatives.OPERATIONS['cross_entropy']", '_p - _Y', '_p + _Y'),
        ('sign', "derivatives.OPERATIONS['mse']", "x[i, k] - t[i, k]", "x[i, k] + t[i, k]"),
        ('missing 1/n', "derivatives.OPERATIONS['mse']", '(i, 1, n))/(n*c)', '(i, 1, n))/n'),
        ('missing 1/n', "derivatives.OPERATIONS['cross_entropy']", '(_p - _Y)/n', '_p - _Y'),
        ('missing 1/n', "derivatives.OPERATIONS['nll']", '(i, 1, n))/n', '(i, 1, n))'),
        ('missing factor', "derivatives.OPERATIONS['mse']", '{x: 2/(n*c)*', '{x: 1/(n*c)*'),
        ('missing factor', 'derivatives.chain', 'g[at]*slopes', 'slopes'),
        ('missing term', "derivatives.OPERATIONS['softmax']", '_g - _q', '_g'),
        ('missing term', "derivatives.OPERATIONS['log_softmax']", 'x[i, k] - sp.log(_exp_sum)', 'x[i, k]'),
        ('wrong axis', "derivatives.OPERATIONS['lin']", 'b[k] +', 'b[i] +'),
        ('wrong axis', "derivatives._exp_sum", 'x[i, j]', 'x[j, i]'),
        ('wrong axis', 'derivatives.slope', 'arg[(r, s)', 'arg[(s, r)'),
        ('no check', 'derivatives.slope', 'if op.out.has(r, s)', 'if False'),
        ('loose check', 'derivatives.picked', ' and limit[1] == 1 and limit[2] in (n, m, nh, c)', ''),
        ('missing sum(0)', 'derivatives.chain', '*reversed(op.axes)', '*((q, a, a) for q, a, _ in op.axes)'),
        ('gate on the wrong side', 'derivatives.rect', 'return gate(self.args[0])', 'return gate(-self.args[0])'),
        ('wrong place', 'derivatives.From1', 'int(q) - 1', 'int(q)'),
        ('no check', 'derivatives.From1', 'if min(at) < 0', 'if False')],
    the_formulas_slope_at_0_is_0: [
        ('gate on the wrong side', 'derivatives.gate', 'z > 0', 'z >= 0'),
        ('gate on the wrong side', 'derivatives.compiled', 'float(z > 0)', 'float(z >= 0)')],
    formulas_are_told_apart: [
        ('loose check', 'derivatives.agree', 'rel_tol=1e-9', 'rel_tol=1e-3'),
        ('loose check', 'derivatives.agree', 'abs_tol=1e-15', 'abs_tol=1e-9'),
        ('loose check', 'derivatives.agree', 'product((1, 2), repeat', 'product((1,), repeat'),
        ('loose check', 'derivatives.same', 'for sizes in SIZES', 'for sizes in SIZES[:1]'),
        ('loose check', 'derivatives.SIZES', '{n: 2, m: 3, nh: 4, c: 5}, {n: 4, m: 2, nh: 5, c: 3}',
         '{n: 2, m: 3, nh: 2, c: 3}, {n: 3, m: 2, nh: 3, c: 2}'),
        ('no check', 'derivatives.derivation', 'if not same(a, b)', 'if False'),
        ('loose check', 'derivatives.matrix_form_agrees', 'if not agree(', 'if False and agree('),
        ('no check', 'derivatives.matrix_form_agrees', 'if form.shape != (1,)*(2 - len(shape)) + shape', 'if False'),
        ('loose check', 'derivatives.matrix_form_agrees', 'for sizes in SIZES:', 'for sizes in SIZES[:1]:'),
        ('no check', 'derivatives.evaluate', 'if missing', 'if False')],
    the_ledger_sees: [
        ('loose check', 'ledger.disagreement', "float('inf') if error != error else error", 'error'),
        ('loose check', 'ledger.disagreement', '<= 1e-12 and got.norm()', '<= 1e-12 or got.norm()'),
        ('loose check', 'ledger.compare', 'max(row[way], ', 'min(row[way], '),
        ('loose check', 'ledger.compare', 'disagreement(a, b,', 'disagreement(b, b,'),
        ('loose check', 'ledger.compare', 'through(entry.torch)', 'through(entry.forward)'),
        ('loose check', 'ledger.compare', 'measured(entry.forward)', 'measured(entry.torch)'),
        ('no check', 'ledger.compare', 'assert len(got) >= len(op.args)', 'assert True'),
        ('shared memory', 'ledger.compare', 'None if out_g is None else out_g.clone()', 'out_g'),
        ('no check', 'ledger.by', 'assert kept', 'assert True'),
        ('missing term', 'ledger.shapes', '*edges, ', ''),
        ('missing term', 'ledger.shapes', 'dict.fromkeys(names, 1)', 'dict.fromkeys(names, 2)'),
        ('missing term', 'ledger.without_row', ', *layers]', ']'),
        ('missing term', 'ledger.without_row', 'module.__all__ if is_chapter(module) else []', '[]'),
        ('no check', 'ledger.without_row', 'rows.get(name) is not o', 'name not in rows'),
        ('no check', 'ledger.without_row', ' and not has_bwd(o)', ''),
        ('wrong axis', 'ledger.worst_of', 'max(errors[way]', 'min(errors[way]')],

    errors_are_relative: [
        ('loose check', 'checks.relative_error', '((a/largest - b/largest).norm()/(b/largest).norm())', '(a - b).norm()'),
        ('loose check', 'checks.relative_error', '(b/largest).norm())', '(a/largest).norm())'),
        ('loose check', 'checks.relative_error', '/(b/largest).norm()', '/((a/largest).norm() + (b/largest).norm())'),
        ('sign', 'checks.relative_error', '(a/largest - b/largest)', '(a.abs()/largest - b.abs()/largest)'),
        ('overflow', 'checks.relative_error', 'largest = b.abs().max()', 'largest = b.abs().max().clamp(1, 1)'),
        ('loose check', 'checks.relative_error', "0. if torch.equal(a, b) else float('inf')", '0.'),
        ('no check', 'checks.relative_error', 'if not want.numel()', 'if False'),
        ('no check', 'checks.relative_error', 'if not want.is_floating_point()', 'if False')],
    shapes_and_dtypes_count: [
        ('no check', 'checks.relative_error', 'if tuple(got.shape) != tuple(want.shape)', 'if False'),
        ('keepdim dropped', 'checks.relative_error', 'tuple(got.shape) != tuple(want.shape)', 'got.numel() != want.numel()'),
        ('no check', 'checks.relative_error', 'if got.dtype != want.dtype', 'if False')],
    nan_never_passes: [
        ('loose check', 'checks.check_close', 'not error <= limit', 'error > limit'),
        ('loose check', 'checks.relative_error', 'a, b = got.double(), want.double()',
         'a, b = got.double().nan_to_num(), want.double().nan_to_num()'),
        ('wrong place', 'checks.check_close', ".nan_to_num(float('inf'))", '.nan_to_num(0)')],
    every_gradient_counts: [
        ('loose check', 'checks.check_grads', 'return max(', 'return min('),
        ('loose check', 'checks.check_grads', 'for k in want)', 'for k in list(want)[:1])'),
        ('loose check', 'checks.check_grads', 'for k in want)', 'for k in list(want)[1:] or want)'),
        ('no check', 'checks.check_grads', 'got.keys() != want.keys()', 'not got.keys() <= want.keys()'),
        ('no check', 'checks.check_grads', 'got.keys() != want.keys()', 'not got.keys() >= want.keys()'),
        ('no check', 'checks.check_grads', 'if not want:', 'if False:'),
        ('no check', 'checks.check_close', 'if limit is None', 'if False'),
        ('loose check', 'checks.TOLERANCE', '1e-9', '1e-6'),
        ('loose check', 'checks.TOLERANCE', '1e-4', '1e-2'),
        ('loose check', 'checks.check_close', 'TOLERANCE.get(want.dtype) if tolerance is None else tolerance',
         'tolerance or TOLERANCE[want.dtype]')],
    a_message_says_what_and_where: [
        ('wrong place', 'checks.check_close', '.argmax()', '.argmin()'),
        ('sign', 'checks.check_close', 'got {got[at]:.4g}, wanted {want[at]:.4g}', 'got {want[at]:.4g}, wanted {got[at]:.4g}'),
        ('wrong place', 'checks.show_values', '[:n]', '[-n:]'),
        ('wrong place', 'checks.op_name', "getattr(op, '__name__', type(op).__name__)", "type(op).__name__")],
    signs_have_stand_ins: [('wrong call', 'checks.printable', 'coding, _PLAIN', "coding, 'replace'"),
                           ('wrong call', 'checks.printable', "getattr(sys.stdout, 'encoding', None)", 'None')],
    differences_are_central: [
        ('one-sided', 'checks.difference_grads', 'at(x - step), at(x)', 'at(x), at(x)'),
        ('one-sided', 'checks.difference_grads', 'at(x + step), at(x - step)', 'at(x), at(x - step)'),
        ('wrong step', 'checks.STEP', '(1/3)', '(1/2)'),
        ('wrong step', 'checks.STEP', '(1/3)', '(1/5)'),
        ('sign', 'checks.difference_grads', 'high - low', 'low - high'),
        ('missing factor', 'checks.difference_grads', '/(right - left)', '/step'),
        ('missing factor', 'checks.difference_grads', '/(right - left)', '/(2*step)'),
        ('missing factor', 'checks.difference_grads', '*start).sum()', ').sum()'),
        ('missing sum', 'checks.difference_grads', '((high - low)*start).sum()', '((high - low)*start).view(-1)[0]'),
        ('= for +=', 'checks.difference_grads', 'at(x - step), at(x)', 'at(x - step), at(x - step)'),
        ('shared memory', 'checks.difference_grads', 'out().clone()', 'out()'),
        ('wrong dtype', 'checks.difference_grads', 'copies(all_tensors(f, tensors), torch.float64)',
         'copies(all_tensors(f, tensors))'),
        ('missing transpose', 'checks.difference_grads', 'grad(t).view(t.shape)',
         'grad(t).view(t.t().shape if t.ndim == 2 else t.shape)'),
        ('loose check', 'checks.DIFFERENCE_TOLERANCE', '1e-7', '1e-3'),
        ('no check', 'checks.start_gradient', 'if out_g is None and not out.ndim', 'if out_g is None')],
    autograd_is_asked_right: [
        ('missing factor', 'checks.autograd_grads', ', start, materialize', ', torch.ones_like(out), materialize'),
        ('no check', 'checks.autograd_grads', 'if not out.requires_grad', 'if False'),
        ('no check', 'checks.start_gradient', '(out_g.shape, out_g.dtype) != (out.shape, out.dtype)', 'out_g.dtype != out.dtype'),
        ('no check', 'checks.start_gradient', '(out_g.shape, out_g.dtype) != (out.shape, out.dtype)', 'out_g.shape != out.shape'),
        ('no check', 'checks.start_gradient', 'if not is_float(out)', 'if False')],
    held_tensors_are_found: [
        ('missing term', 'checks.is_float', ' and t.is_floating_point()', ''),
        ('missing term', 'checks.held_tensors', 'isinstance(o, (list, tuple))', 'isinstance(o, list)'),
        ('missing term', 'checks.held_tensors', 'isinstance(o, dict)', 'False'),
        ('missing term', 'checks.held_tensors', 'if id(o) in seen: return', 'if id(o) in seen and not is_float(o): return'),
        ('wrong place', 'checks.held_tensors', 'path = path[:-1]', 'pass'),
        ('shared memory', 'checks.with_tensors', 'tensors.get(k, t.detach())', 't.detach()'),
        ('shared memory', 'checks.with_tensors', 'copy.deepcopy', '(lambda o, memo: o)'),
        ('missing term', 'checks.all_tensors', 'if id(mine[k]) in kept', ''),
        ('no check', 'checks.all_tensors', 'if both := inputs.keys() & held.keys()', 'if both := ()')],
    calls_go_by_name: [
        ('wrong axis', 'checks.call_op', 'return op(*bound.args, **bound.kwargs)', 'return op(*inputs.values())'),
        ('wrong axis', 'checks.call_op', "getattr(op, 'forward', op)", 'op'),
        ('no check', 'checks.call_op', "{e}; got {list(inputs)}'", "'")],
    good_layers_pass: [
        ('missing term', 'checks.check_op', '(torch.float64, torch.float32)', '(torch.float64,)'),
        ('missing term', 'checks.trusted_grads', "want['the reference'] = autograd", "autograd"),
        ('missing term', 'checks.trusted_grads', "want['central differences'] = ", ''),
        ('missing term', 'checks.check_dtype', "errors['value'] = ", ''),
        ('missing factor', 'checks.our_grads', 'out.g = start', 'out.g = 2*start'),
        ('wrong dtype', 'checks.check_dtype', 'copies(all_tensors(op, inputs), dtype)', 'copies(all_tensors(op, inputs))'),
        ('missing term', 'checks.random_like', 'torch.Generator().manual_seed(SEED)', 'torch.default_generator'),
        ('loose check', 'checks.random_like', 'manual_seed(SEED)', 'manual_seed(0)'),
        ('loose check', 'checks.SEED', 'SEED = ', 'SEED = 1 or '),
        ('missing factor', 'checks.random_like', 'torch.randn(out.shape, generator=g, dtype=torch.float64)',
         'torch.ones(out.shape)'),
        ('shared memory', 'checks.our_grads', 'mine = copies(tensors)', 'mine = dict(tensors)')],
    bad_layers_do_not: [
        ('loose check', 'checks.check_dtype',
         "our_grads(op, out_g, **inputs) if hasattr(op, 'backward') else want.pop('autograd')",
         "want['autograd']"),
        ('loose check', 'checks.check_dtype', 'check_grads(got, grads, limit, name, source)',
         'check_grads(grads, grads, limit, name, source)'),
        ('loose check', 'checks.check_dtype', 'check_close(out, value,', 'check_close(value, value,'),
        ('loose check', 'checks.check_dtype', 'for source, grads in want.items():\n        limit',
         'for source, grads in list(want.items())[:1]:\n        limit'),
        ('loose check', 'checks.check_dtype', 'DIFFERENCE_TOLERANCE if', '1. if'),
        ('loose check', 'checks.check_op', '(torch.float64, torch.float32)', '(torch.float64,)'),
        ('loose check', 'checks.check_op', '(torch.float64, torch.float32)', '(torch.float32, torch.float64)'),
        ('no check', 'checks.check_dtype', 'if unknown := set(constants) - tensors.keys()', 'if unknown := ()'),
        ('shared memory', 'checks.copies', 'copy=True', 'copy=False'),
        ('no check', 'checks.our_grads', "check_unchanged(op, {**mine, 'out.g': getattr(out, 'g', start)}", "check_unchanged(op, {**tensors, 'out.g': start}"),
        ('no check', 'checks.our_grads', "'out.g': getattr(out, 'g', start)", "'out.g': start"),
        ('missing term', 'checks.copies', 'if isinstance(t, torch.Tensor) else t', 'if is_float(t) else t'),
        ('loose check', 'checks.check_op', "if hasattr(op, 'backward'): check_adds(op, out_g, inputs)", 'pass'),
        ('loose check', 'checks.check_adds', 'pass_on(other)\n', 'pass\n'),
        ('= for +=', 'checks.check_adds', 'check_grads(pass_on(now), twice', 'check_grads(twice, twice'),
        ('= for +=', 'checks.check_adds', '2*g for', 'g for'),
        ('no check', 'checks.output_of', 'check_unchanged(op, mine, inputs)', 'pass'),
        ('no check', 'checks.check_unchanged', 'not torch.allclose(now[k], t, 0, 0, equal_nan=True)', 'now[k].shape != t.shape'),
        ('missing term', 'checks.our_grads', "if hasattr(twin, 'backward'): twin.backward()", 'pass')],
    sgd_is_torchs: [
        ('sign', 'fitting.SGD', 'p -= self', 'p += self'),
        ('missing factor', 'fitting.SGD', 'self.lr*p.grad', 'p.grad'),
        ('no zero_', 'fitting.SGD', 'p.grad = None', 'pass'),
        ('missing term', 'fitting.SGD', 'if p.grad is not None', 'if True'),
        ('missing term', 'fitting.SGD', 'list(params)', 'params')],
    sgd_refuses: [
        ('no check', 'fitting.SGD', 'if not self.params', 'if False'),
        ('no check', 'fitting.SGD', 'if not lr >= 0', 'if lr < 0'),
        ('no check', 'fitting.SGD', 'if not lr >= 0', 'if not lr > 0')],
    items_are_pairs: [
        ('no check', 'fitting.Dataset', 'len(x) != len(y)', 'len(x) < len(y)'),
        ('wrong place', 'fitting.Dataset', 'return self.x[i], self.y[i]', 'return self.y[i], self.x[i]'),
        ('wrong place', 'fitting.Dataset', 'return self.x[i], self.y[i]', 'return self.x[i], self.y[0]'),
        ('missing term', 'fitting.Dataset', 'return len(self.x)', 'return len(self.x) - 1')],
    orders_are_right: [
        ('missing term', 'fitting.Sampler', 'if not self.shuffle', 'if True'),
        ('missing term', 'fitting.Sampler', 'if not self.shuffle', 'if False'),
        ('wrong place', 'fitting.Sampler', ', generator=self.generator', ''),
        ('wrong place', 'fitting.Sampler', '=self.generator)', '=torch.Generator())'),
        ('wrong place', 'fitting.Sampler', 'or _own_generator()', 'or torch.Generator()'),
        ('missing term', 'fitting.Sampler', 'range(self.n)', 'range(self.n - 1)'),
        ('no check', 'fitting.Sampler', 'if not self.n:', 'if False:'),
        ('missing term', 'fitting._own_generator', 'torch.randint(2**62, ()).item()', '0')],
    batches_are_right: [
        ('missing term', 'fitting.BatchSampler', '-(-n//self.bs)', 'n//self.bs'),
        ('missing term', 'fitting.BatchSampler', 'if self.drop_last else', 'if False else'),
        ('missing term', 'fitting.BatchSampler', ' or not self.drop_last', ''),
        ('missing term', 'fitting.BatchSampler', 'len(batch) == self.bs or ', ''),
        ('missing term', 'fitting.BatchSampler', 'islice(it, self.bs)', 'islice(it, self.bs - 1)'),
        ('no check', 'fitting.BatchSampler', '1 <= bs <= len', '0 <= bs <= len'),
        ('no check', 'fitting.BatchSampler', '1 <= bs <= len(sampler)', '1 <= bs'),
        ('no check', 'fitting.BatchSampler', ' and not isinstance(bs, bool)', ''),
        ('no check', 'fitting.BatchSampler', "hasattr(bs, '__index__')", 'True')],
    seeds_are_local: [
        ('missing term', 'fitting.seeded', 'random.setstate(was[0])', 'pass'),
        ('missing term', 'fitting.seeded', 'np.random.set_bit_generator(was[1])', 'pass'),
        ('missing term', 'fitting.seeded', 'torch.set_rng_state(was[2])', 'pass'),
        ('missing term', 'fitting.seeded', ' random.seed(seed)', ' pass'),
        ('missing term', 'fitting.seeded', 'np.random.seed(seed % 2**32)', 'pass'),
        ('missing term', 'fitting.seeded', 'torch.default_generator.manual_seed(seed)', 'pass'),
        ('shared memory', 'fitting.seeded', 'np.random.set_bit_generator(numpy)', 'pass')],
    a_seed_repeats: [
        ('missing term', 'fitting.set_seed', ' random.seed(seed)', ' pass'),
        ('missing term', 'fitting.set_seed', 'np.random.seed(seed)', 'pass'),
        ('missing term', 'fitting.set_seed', 'torch.manual_seed(seed)', 'pass')],
    batches_are_made_right: [
        ('missing term', 'fitting.make_batch', 'collate_fn is None and as_usual', 'as_usual'),
        ('no check', 'fitting.make_batch', 'collate_fn is None and as_usual and', 'collate_fn is None and'),
        ('wrong place', 'fitting.make_batch', 'torch.tensor(batch)', 'torch.tensor(sorted(batch))'),
        ('wrong place', 'fitting.make_batch', 'for i in batch', 'for i in sorted(batch)'),
        ('missing term', 'fitting.make_batch', 'seeded(seed)', 'seeded(0)'),
        ('missing term', 'fitting.make_batch', 'with seeded(seed): ', '')],
    the_loader_is_pytorchs: [
        ('wrong place', 'fitting.DataLoader', 'return len(self.batch_sampler)', 'return len(self.dataset)'),
        ('wrong place', 'fitting.DataLoader', 'batch_size:int=1', 'batch_size:int=2'),
        ('missing term', 'fitting.DataLoader', 'batch_sampler, drop_last\n', 'batch_sampler, False\n'),
        ('missing term', 'fitting._loop', 'dl.collate_fn', 'None'),
        ('missing term', 'fitting._in_batches', 'if sampler is None: sampler', 'sampler')],
    each_epoch_draws_anew: [
        ('wrong place', 'fitting.DataLoader', 'generator or _own_generator()', '_own_generator()'),
        ('wrong place', 'fitting.DataLoader', 'generator or _own_generator()', 'generator or torch.Generator()'),
        ('missing term', 'fitting._loop', 'seed + i)', 'seed)'),
        ('missing term', 'fitting._loop', 'generator=dl.generator', ''),
        ('wrong place', 'fitting._in_batches', 'Sampler(dataset, shuffle, generator)', 'Sampler(dataset)')],
    the_loader_refuses: [
        ('no check', 'fitting.DataLoader', '_check_workers(num_workers, timeout)', 'pass'),
        ('no check', 'fitting._in_batches', 'if shuffle and sampler is not None', 'if False'),
        ('no check', 'fitting._in_batches', 'if batch_size != 1 or ', 'if '),
        ('no check', 'fitting._in_batches', 'if batch_size != 1 or shuffle or', 'if batch_size != 1 or'),
        ('no check', 'fitting._in_batches', 'or shuffle or sampler is not None or', 'or shuffle or'),
        ('no check', 'fitting._in_batches', 'is not None or drop_last', 'is not None'),
        ('no check', 'fitting._in_batches', 'or not sized', 'and sized'),
        ('missing term', 'fitting._in_batches', 'if sampler is None: sampler = ', 'sampler = sampler or '),
        ('no check', 'fitting._check_workers', 'not isinstance(num_workers, int) or ', ''),
        ('no check', 'fitting._check_workers', ' or num_workers < 0', ''),
        ('no check', 'fitting._check_workers', 'not 0 <= timeout <= 10**6', 'timeout < 0 or timeout > 10**6')],
    every_item_counts_once: [
        ('missing factor', 'fitting.evaluate', 'loss_func(preds, yb)).item()*k', 'loss_func(preds, yb)).item()'),
        ('missing factor', 'fitting.evaluate', 'accuracy(preds, yb).item()*k', 'accuracy(preds, yb).item()'),
        ('missing factor', 'fitting.evaluate', 'n += k', 'n += 1'),
        ('missing 1/n', 'fitting.evaluate', 'loss/n,', 'loss,'),
        ('missing 1/n', 'fitting.evaluate', 'right/n', 'right'),
        ('missing term', 'fitting.evaluate', 'model.eval()', 'pass'),
        ('missing term', 'fitting.evaluate', 'model.eval()', 'model.eval(); torch.set_grad_enabled(True)'),
        ('wrong place', 'fitting.Score', 'loss:float', 'error:float')],
    fit_is_the_loop: [
        ('missing term', 'fitting.fit', 'range(1, epochs + 1)', 'range(1, epochs)'),
        ('missing term', 'fitting.fit', 'range(1, epochs + 1)', 'range(epochs)'),
        ('wrong place', 'fitting.fit', 'tuple(run.score)', 'run.score'),
        ('wrong place', 'fitting.fit', 'tuple(run.score)', 'tuple(run.score)[::-1]'),
        ('missing term', 'fitting._Run', 'self.opt.step()', 'pass'),
        ('no zero_', 'fitting._Run', 'self.opt.zero_grad()\n        return', 'return'),
        ('shared memory', 'fitting._Weights', 'self.good, self.now): good.copy_(t)', 'self.good, self.now): t.copy_(good)'),
        ('missing term', 'fitting._epoch', 'run.score = score', 'pass')],
    the_history_is_right: [
        ('missing factor', 'fitting._epoch', 'losses[-1]*len(yb)', 'losses[-1]'),
        ('missing factor', 'fitting._epoch', 'n + len(yb)', 'n + 1'),
        ('wrong place', 'fitting._epoch', 'len(losses)', '(i + 1)'),
        ('missing term', 'fitting._epoch', 'time.monotonic() - begun', 'time.monotonic()'),
        ('missing term', 'fitting.fit', 'History() if history is None else history', 'History()'),
        ('wrong place', 'fitting.Epoch', 'steps:int', 'batches:int'),
        ('shared memory', 'fitting.History', 'def __init__(self): self.losses, self.epochs = [], []',
         'def __init__(self, losses=[], epochs=[]): self.losses, self.epochs = losses, epochs')],
    the_plot_is_right: [
        ('wrong place', 'fitting.History', 'unfold(0, k, 1)', 'unfold(0, k, k)'),
        ('wrong place', 'fitting.History', 'min([50, len', 'min([49, len'),
        ('wrong place', 'fitting.History', 'range(k, ', 'range(k - 1, -1 + '),
        ('wrong place', 'fitting.History', 'e.valid_loss', 'e.train_loss'),
        ('wrong place', 'fitting.History', 'ax or plt.', 'plt.')],
    modes_are_right: [
        ('missing term', 'fitting._epoch', 'run.model.train()', 'pass'),
        ('missing term', 'fitting.evaluate', 'model.eval()', 'pass'),
        ('missing term', 'fitting.fit', 'finally: model.eval()', 'finally: pass')],
    ctrl_c_leaves_whole_steps: [
        ('no check', 'fitting.fit', 'except KeyboardInterrupt', 'except ArithmeticError'),
        ('missing term', 'fitting._Run', 'if self.stepping:', 'if False:'),
        ('missing term', 'fitting._Run', 'if self.stepping:', 'if True:'),
        ('missing term', 'fitting._Run', 'self.stepping = True', 'pass'),
        ('missing term', 'fitting._Run', 'self.weights.keep()', 'pass'),
        ('no zero_', 'fitting._Run', 'self.opt.zero_grad()\n        print', 'print'),
        ('wrong place', 'fitting._epoch', 'batch {i}', 'batch {i + 1}'),
        ('missing term', 'fitting._epoch', "run.where = f'the validation", "_ = f'the validation"),
        ('missing term', 'fitting._Weights', 't.copy_(good)', 'pass'),
        ('missing term', 'fitting._Weights', 'good.copy_(t)', 'pass'),
        ('missing term', 'fitting._epoch', 'run.score = score', 'pass')],
    a_loop_cut_short_closes_its_source: [
        ('missing term', 'fitting._batches', "getattr(source, 'close', lambda: None)()", 'pass')],
    nan_goes_back: [
        ('missing term', 'fitting._finite', 'weights.restore()', 'pass'),
        ('no check', 'fitting._finite', 'math.isfinite(loss)', 'not math.isnan(loss)'),
        ('no check', 'fitting._finite', 'math.isfinite(loss)', 'True'),
        ('shared memory', 'fitting._Weights', 't.clone() for', 't for'),
        ('missing term', 'fitting._Weights', "*getattr(model, 'buffers', list)()", ''),
        ('missing term', 'fitting._Weights', 't.copy_(good)', 'pass'),
        ('missing term', 'fitting._Run', 'self.weights.keep()', 'pass'),
        ('wrong place', 'fitting._Run', 'self.stepping = False', 'self.weights.keep()'),
        ('no check', 'fitting._epoch', '_finite(score.loss, run.weights, run.where)', 'pass')],
    fit_refuses: [
        ('no check', 'fitting.fit', '_check_fit(epochs, model, loss_func)', 'pass'),
        ('no check', 'fitting._check_fit', 'epochs < 1', 'epochs < 0'),
        ('no check', 'fitting._check_fit', "not hasattr(epochs, '__index__') or", ''),
        ('no check', 'fitting._check_fit', 'isinstance(model, Module) != isinstance(loss_func, Module)', 'False'),
        ('no check', 'fitting._known', '(RuntimeError, AssertionError)', 'KeyError'),
        ('no check', 'fitting._number', 'loss.ndim == 0', 'True'),
        ('no check', 'fitting._number', 'loss.ndim == 0', 'loss.numel() == 1'),
        ('no check', 'fitting._number', 'if isinstance(loss, Tensor) and loss.ndim == 0', 'if not getattr(loss, "ndim", 0)'),
        ('no check', 'fitting._pairs', ' or len(batch) != 2', ''),
        ('no check', 'fitting._pairs', 'not isinstance(batch, (tuple, list)) or', ''),
        ('no check', 'fitting._pairs', 'if k < 0', 'if False'),
        ('wrong place', 'fitting.evaluate', "'validation'", "'training'")],
    tensors_move: [
        ('missing term', 'fitting.to_device', 'if device is None: return x', ''),
        ('missing term', 'fitting.to_device', 'isinstance(x, dict)', 'False'),
        ('missing term', 'fitting.to_device', '(list, tuple)', 'tuple'),
        ('wrong place', 'fitting.to_device', 'return x.to(device', 'return x; x.to(device')],
    fit_moves_all: [
        ('missing term', 'fitting.fit', 'model.to(_known(device))', '_known(device)'),
        ('missing term', 'fitting._epoch', 'to_device(xb, run.device)', 'xb'),
        ('missing term', 'fitting._epoch', 'to_device(yb, run.device)', 'yb'),
        ('missing term', 'fitting._epoch', 'valid_dl, run.device)', 'valid_dl)'),
        ('missing term', 'fitting.evaluate', 'to_device(xb, device)', 'xb'),
        ('missing term', 'fitting.evaluate', 'to_device(yb, device)', 'yb')],
    a_bar_is_for_terminals: [
        ('missing term', 'fitting._epoch', '_bar(name) if progress else None', 'None'),
        ('no check', 'fitting._epoch', '_bar(name) if progress else None', '_bar(name)'),
        ('wrong place', 'fitting._bar', 'leave=False', 'leave=True'),
        ('no check', 'fitting._bar', 'widget else None', 'widget else False'),
        ('missing term', 'fitting._bar', 'desc=name, ', ''),
        ('missing term', 'fitting._bar', 'delay=1, ', ''),
        ('no check', 'fitting._bar', "os.environ.get('TQDM_DISABLE')", 'False'),
        ('missing term', 'fitting._batches', 'total=_length(dl)', '')],
    loaders_come_in_pairs: [
        ('missing term', 'fitting.get_dls', 'shuffle=True, ', ''),
        ('missing factor', 'fitting.get_dls', 'min(2*bs', 'min(bs'),
        ('no check', 'fitting.get_dls', 'min(2*bs, len(valid_ds))', '2*bs'),
        ('wrong place', 'fitting.get_dls', 'Loader(valid_ds', 'Loader(train_ds'),
        ('no check', 'fitting.get_dls', 'if ours else', 'if True else'),
        ('wrong place', 'fitting.get_dls', 'if ours else', 'if False else'),
        ('missing term', 'fitting.get_dls', 'shuffle=True, **kwargs)', 'shuffle=True)')],
    weights_come_back: [
        ('missing term', 'fitting.save_weights', 'model.state_dict()', 'dict(model.named_parameters())'),
        ('shared memory', 'fitting.save_weights', '.clone()', ''),
        ('missing term', 'fitting.save_weights', '.contiguous()', ''),
        ('missing term', 'fitting.load_weights', 't.copy_(new[k])', 'pass'),
        ('wrong place', 'fitting.load_weights', 'now.items(): t', '[*now.items()][:1]: t')],
    a_failed_write_leaves_the_old: [
        ('missing term', 'fitting.save_weights', '_save(Path(path), save(state))', 'Path(path).write_bytes(save(state))')],
    bad_weights_are_refused: [
        ('no check', 'fitting.load_weights', 'except SafetensorError', 'except KeyError'),
        ('no check', 'fitting.load_weights', 'if theirs != ours', 'if theirs.keys() != ours.keys()'),
        ('no check', 'fitting.load_weights', 'if theirs != ours', 'if not ours.keys() <= theirs.keys()'),
        ('no check', 'fitting.load_weights', '*t.shape, t.dtype', '*t.shape,')],
    by_hand_is_the_same_network: [
        ('missing term', 'fitting.by_hand', 'for layer in model))', 'for layer in model if isinstance(layer, Linear)))'),
        ('missing term', 'fitting.by_hand', '(layer.w, layer.b)', '(layer.w, layer.b*0)'),
        ('shared memory', 'fitting.by_hand', '.detach().clone()', '.detach()'),
        ('missing term', 'fitting.by_hand', '.detach().clone()', '.clone()'),
        ('no check', 'fitting.by_hand', 'isinstance(layer, nn.ReLU)', 'not isinstance(layer, Linear)')],
    by_hand_fits_the_same: [
        ('missing term', 'fitting._Run', 'self.loss_func.backward();', ''),
        ('missing term', 'fitting._Run', 'if not isinstance(self.model, Module): loss', 'if True: loss'),
        ('missing term', 'fitting._Trained', 'return self.train(False)', 'return self'),
        ('missing factor', 'fitting.Sequential', '= g if p.grad is None', '= 2*g if p.grad is None')],
    blocks_of_layers: [
        ('not zeroed', 'fitting.Sequential', 'finally: zero_grads(*self.parameters())', 'except ZeroDivisionError: pass\n        else: zero_grads(*self.parameters())'),
        ('not zeroed', 'fitting.Sequential', 'zero_grads(*self.parameters())', 'pass'),
        ('missing term', 'fitting._Trained', 't.grad = None', 'pass')],
    our_layers_in_a_row: [
        ('= for +=', 'fitting.Sequential', 'p.grad + g', 'g'),
        ('wrong place', 'fitting._Trained', 'id(t): t for t in self.weights.values()', 'k: t for k, t in self.weights.items()'),
        ('wrong place', 'fitting.Sequential', "{i}.{k}", '{k}'),
        ('missing term', 'fitting._weights_of', " if k != 'out'", ''),
        ('missing term', 'fitting._Trained', 't.data = t.data', '_ = t.data'),
        ('wrong axis', 'fitting.Sequential', 'self.layers[::-1]', 'self.layers'),
        ('missing term', 'fitting._Trained', 'self.training = mode', 'pass')],
    training_has_them_too: [
        ('no check', 'training.__getattr__', 'if name not in _all_', 'if False'),
        ('missing term', 'training.__getattr__', "'.fitting'", "'.backprop'")],
    the_yardstick_is_five_products: [
        ('missing term', 'speed.yardstick', 'torch.mm(w1, xb.t(), out=l1)', 'pass'),
        ('missing term', 'speed.yardstick', 'torch.mm(w2, l2, out=out)', 'pass'),
        ('missing term', 'speed.yardstick', 'torch.mm(w2.t(), g, out=g1)', 'pass'),
        ('missing term', 'speed.yardstick', 'torch.mm(g, l2.t(), out=w2_g)', 'pass'),
        ('missing term', 'speed.yardstick', 'torch.mm(g1, xb, out=w1_g)', 'pass'),
        ('missing term', 'speed.yardstick', 'for xb in batches:', 'for xb in batches[:-1]:'),
        ('wrong place', 'speed.yardstick', 'out=l1)', 'out=l1).relu_()'),
        ('wrong place', 'speed.yardstick', 'torch.mm(w2, l2, out=out)', 'w2 @ l2'),
        ('wrong place', 'speed.yardstick', 'torch.mm(w2, l2, out=out)', 'torch.mm(w2[:, :1], l2[:1], out=out)'),
        ('wrong place', 'speed.yardstick', 'bs:int=64', 'bs:int=32')],
    buffers_are_its_own: [
        ('shared memory', 'speed.Buffers', '.clone(memory_format=torch.contiguous_format)', '.contiguous()'),
        ('shared memory', 'speed.Buffers', '.clone(memory_format=torch.contiguous_format)', ''),
        ('wrong place', 'speed.Buffers', 'memory_format=torch.contiguous_format', ''),
        ('shared memory', 'speed.Buffers', 'b.detach().clone()', 'b.detach()'),
        ('missing transpose', 'speed.Buffers', 'w.detach().t()', 'w.detach()'),
        ('missing term', 'speed.Buffers', 'w.detach().t()', 'w.t()'),
        ('missing term', 'speed.Buffers', 'b.detach().clone()', 'b.clone()'),
        ('no check', 'speed.Buffers', 'if k not in self.made', 'if not self.made'),
        ('no check', 'speed.Buffers', 'if k not in self.made', 'if True'),
        ('shared memory', 'speed.Buffers', '[torch.empty_like(out) for out in outs]', 'outs'),
        ('missing factor', 'speed.Buffers', 'new_ones(k)', 'new_zeros(k)'),
        ('wrong place', 'speed.Buffers', 'there[:-1], there[-1]', 'there[1:], there[0]')],
    fast_gradients_are_autograds: [
        ('wrong axis', 'speed.Buffers', 'back[::-1]', 'back'),
        ('missing transpose', 'speed.Buffers', '(w.t(), inp', '(w, inp'),
        ('missing transpose', 'speed.Buffers', 'inp.t(), g)', 'inp, g)'),
        ('missing term', 'speed.FastNetwork', 'out=out).relu_()', 'out=out)'),
        ('missing term', 'speed.FastNetwork', '= torch.addmm(b1, w1, x, out=out)', '= torch.mm(w1, x, out=out)'),
        ('missing term', 'speed.FastNetwork', 'torch.addmm(b, w, x, out=scores)', 'torch.mm(w, x, out=scores)'),
        ('wrong place', 'speed.FastNetwork', 'torch.addmm(b, w, x, out=scores)', 'torch.addmm(b, w, x, out=scores).relu_()'),
        ('wrong axis', 'speed.FastNetwork', 'torch.softmax(scores, 0,', 'torch.softmax(scores, 1,'),
        ('sign', 'speed.FastNetwork', '.sub_(targ)', '.add_(targ)'),
        ('missing term', 'speed.FastNetwork', '.sub_(targ)', ''),
        ('missing factor', 'speed.FastNetwork', 'w.addmm_(g, inp_t, alpha=alpha)', 'w.addmm_(g, inp_t)'),
        ('missing factor', 'speed.FastNetwork', 'b.addmv_(g, ones, alpha=alpha)\n            g', 'b.addmv_(g, ones)\n            g'),
        ('missing factor', 'speed.FastNetwork', 'w.addmm_(g, x, alpha=alpha)', 'w.addmm_(g, x)'),
        ('missing factor', 'speed.FastNetwork', '[0]\n        w.addmm_(g, x, alpha=alpha)\n        b.addmv_(g, ones, alpha=alpha)',
         '[0]\n        w.addmm_(g, x, alpha=alpha)\n        b.addmv_(g, ones)'),
        ('= for +=', 'speed.FastNetwork', 'w.addmm_(g, inp_t, alpha=alpha)', 'w.addmm_(g, inp_t, beta=0, alpha=alpha)'),
        ('= for +=', 'speed.FastNetwork', 'w.addmm_(g, x, alpha=alpha)', 'w.addmm_(g, x, beta=0, alpha=alpha)'),
        ('gate on the wrong side', 'speed.FastNetwork', 'inp_g.mul_(inp.sign_())', 'inp_g.mul_(1 - inp.sign_())'),
        ('missing factor', 'speed.FastNetwork', 'inp_g.mul_(inp.sign_())', 'inp_g'),
        ('wrong axis', 'speed.FastNetwork', 'into[::-1]', 'into'),
        ('missing 1/n', 'speed.loss_and_gradients', '.sum()/len(x)', '.sum()'),
        ('missing 1/n', 'speed.loss_and_gradients', 'into, 1/len(x)', 'into, 1'),
        ('missing 1/n', 'speed.loss_and_gradients', 'into, 1/len(x)', 'into, 1/len(xb)'),
        ('missing 1/n', 'speed.loss_and_gradients', '.sum()/len(x)', '.sum()/chunk'),
        ('= for +=', 'speed.loss_and_gradients', 'loss += ', 'loss = '),
        ('sign', 'speed.loss_and_gradients', '(0) - scores', '(0) + scores'),
        ('wrong axis', 'speed.loss_and_gradients', 'logsumexp(0)', 'logsumexp(1)'),
        ('missing sum', 'speed.loss_and_gradients', '[0]).sum()', '[0]).mean()'),
        ('no check', 'speed.loss_and_gradients', "_one_label_each('loss_and_gradients', x, y)", 'pass'),
        ('no check', 'speed.loss_and_gradients', "_fits('loss_and_gradients', x, net.params[0][0].shape[1], net.params[0][0].dtype)", 'pass'),
        ('no check', 'speed.loss_and_gradients', "_whole('loss_and_gradients: chunk', chunk)", 'chunk'),
        ('missing term', 'speed.loss_and_gradients', 'x.detach()', 'x'),
        ('missing transpose', 'speed.loss_and_gradients', '(w.t(), b)', '(w, b)'),
        ('shared memory', 'speed.loss_and_gradients', '[(torch.zeros_like(w), torch.zeros_like(b)) for w, b in net.params]', 'net.params'),
        ('wrong place', 'speed.loss_and_gradients', 'x.split(chunk)', 'x.split(len(x))'),
        ('wrong place', 'speed.loss_and_gradients', 'chunk:int=1024', 'chunk:int=50000'),
        ('missing term', 'speed.loss_and_gradients', 'yb.long()', 'yb'),
        ('no check', 'speed.loss_and_gradients', 'one_hot(y, c, x.dtype)',
         'F.one_hot(y.long(), max(int(y.max()) + 1, c)).t().to(x.dtype)')],
    fast_steps_are_sgds: [
        ('sign', 'speed.FastNetwork', '-lr/len(x)', 'lr/len(x)'),
        ('missing 1/n', 'speed.FastNetwork', '-lr/len(x)', '-lr'),
        ('missing factor', 'speed.FastNetwork', '-lr/len(x)', '-1/len(x)'),
        ('missing term', 'speed.FastNetwork', 'self.forward(x)\n', 'self.forward(x*0)\n'),
        ('wrong place', 'speed.FastNetwork', 'torch.mm(w_t, g, out=inp_g)                  # before w moves\n            w.addmm_(g, inp_t, alpha=alpha)',
         'w.addmm_(g, inp_t, alpha=alpha)\n            torch.mm(w_t, g, out=inp_g)'),
        ('wrong place', 'speed.FastNetwork', 'torch.mm(w_t, g, out=inp_g)  ', 'torch.mm(w_t, g, out=inp_g).mul_(inp.sign_())  '),
        ('shared memory', 'speed.FastNetwork', 'torch.softmax(scores, 0, out=g).sub_(targ)', 'g.copy_(targ.sub_(torch.softmax(scores, 0)).neg_())')],
    fast_hinges_are_shut: [
        ('gate on the wrong side', 'speed.FastNetwork', 'inp.sign_()', 'inp.ge(0)'),
        ('gate on the wrong side', 'speed.NetworkLoss', 'inputs[i] > 0', 'inputs[i] >= 0')],
    labels_stand_in_columns: [
        ('no check', 'speed.one_hot', 'check_labels(y.new_empty(1).expand(y.shape[:1].numel(), c), y)', 'pass'),
        ('no check', 'speed.one_hot', '.numel(), c)', '.numel(), c + 1)'),
        ('no check', 'speed.one_hot', 'y.shape[:1].numel()', 'len(y)'),
        ('wrong place', 'speed.one_hot', 'dtype=dtype', 'dtype=torch.float32'),
        ('wrong place', 'speed.one_hot', 'dtype:torch.dtype=torch.float32', 'dtype:torch.dtype=torch.float64'),
        ('missing term', 'speed.one_hot', 'y.long()', 'y'),
        ('wrong axis', 'speed.one_hot', 'torch.zeros(c, len(y), dtype=dtype, device=y.device).scatter_(0, y.long()[None], 1)',
         'torch.zeros(len(y), c, dtype=dtype, device=y.device).scatter_(1, y.long()[:, None], 1)'),
        ('missing factor', 'speed.one_hot', '[None], 1)', '[None], 2)')],
    layers_are_found: [
        ('no check', 'speed.layers_of', 'len(set(map(id, params))) < len(params) or ', ''),
        ('no check', 'speed.layers_of', ' or not all(p.requires_grad for p in params)', ''),
        ('no check', 'speed.layers_of', 'if a.w.shape[1] != len(b.w)', 'if False'),
        ('no check', 'speed.layers_of', ' or isinstance(model, Linear)', ''),
        ('no check', 'speed.layers_of', "if kinds != [Linear, *[nn.ReLU, Linear]*(len(kinds)//2)] or", 'if'),
        ('no check', 'speed.layers_of', '[Linear, *[nn.ReLU, Linear]*(len(kinds)//2)]', '([Linear, nn.ReLU]*len(kinds))[:len(kinds)]'),
        ('no check', 'speed.layers_of', '[type(q) for', '[next((k for k in (Linear, nn.ReLU) if isinstance(q, k)), type(q)) for'),
        ('missing term', 'speed.layers_of', " or 'no layers'", ''),
        ('wrong place', 'speed.layers_of', '[(layer.w, layer.b)', '[(layer.w.clone(), layer.b)'),
        ('missing term', 'speed.layers_of', '(layer.w, layer.b) for layer in layers]', '(layer.w, layer.b) for layer in layers[:2]]')],
    epochs_go_through_all: [
        ('no check', 'speed.one_epoch', '!= tuple(targ.shape)', '!= want'),
        ('missing term', 'speed.one_epoch', 'x.detach()', 'x'),
        ('missing term', 'speed.one_epoch', 'list(zip(x.split(bs), targ.split(bs, dim=1)))', 'list(zip(x.split(bs), targ.split(bs, dim=1)))[:-1]'),
        ('missing term', 'speed.one_epoch', 'list(zip(x.split(bs), targ.split(bs, dim=1)))', 'zip(x.split(bs), targ.split(bs, dim=1))'),
        ('shared memory', 'speed.one_epoch', 'order.split(bs)', 'order.clone().split(bs)'),
        ('missing term', 'speed.one_epoch', 'parts = order.split(bs)', 'parts = order.split(bs)[:-1]'),
        ('wrong place', 'speed.one_epoch', 'torch.index_select(x, 0, part, out=xb)', 'xb.copy_(x[:len(part)])'),
        ('wrong place', 'speed.one_epoch', 'torch.index_select(targ, 1, part, out=tb)', 'tb.copy_(targ[:, :len(part)])'),
        ('wrong place', 'speed.one_epoch', 'if order is None', 'if True'),
        ('missing term', 'speed.one_epoch', 'tb)\n            net.step(xb, tb, lr)', 'tb)\n        net.step(xb, tb, lr)')],
    fast_training_is_the_loop: [
        ('wrong place', 'speed.train_fast', 'generator=generator)', 'generator=None)'),
        ('missing term', 'speed.train_fast', 'order.copy_(', '('),
        ('missing term', 'speed.train_fast', 'None if generator is None else', 'None if True else'),
        ('missing term', 'speed.train_fast', 'epochs + 1', 'epochs'),
        ('wrong place', 'speed.train_fast', 'epochs:int=1', 'epochs:int=2'),
        ('wrong place', 'speed.train_fast', 'bs:int=64', 'bs:int=32'),
        ('missing factor', 'speed.train_fast', 'lr:float=0.3', 'lr:float=0.1'),
        ('wrong place', 'speed.train_fast', 'if order is not None: order', 'if order is not None and epoch == 1: order'),
        ('missing term', 'speed.train_fast', "_copy_finite(net, layers, f'epoch {epoch}', lr)", 'pass'),
        ('missing term', 'speed._copy_finite', 'b.copy_(new_b)', 'pass'),
        ('missing term', 'speed._copy_finite', 'w.copy_(new_w.t())', 'pass'),
        ('missing term', 'speed._copy_finite', 'with torch.no_grad():', 'if True:')],
    overflow_leaves_the_last_whole_epoch: [
        ('no check', 'speed._copy_finite', 'if not all(', 'if not any('),
        ('no check', 'speed._copy_finite', 't.isfinite()', '~t.isnan()'),
        ('no check', 'speed._copy_finite', 't.isfinite()', '~t.isinf()'),
        ('no check', 'speed._copy_finite', 'for t in pair)', 'for t in pair[:1])'),
        ('no check', 'speed._copy_finite', 'in net.params for t', 'in net.params[:0] for t'),
        ('wrong place', 'speed.train_fast', "f'epoch {epoch}'", "f'epoch {epochs}'"),
        ('wrong place', 'speed.train_fast', 'run()\n        _copy_finite', 'run()\n    _copy_finite')],
    fast_training_refuses: [
        ('no check', 'speed.train_fast', '_check_training(x, y, layers, lr, generator)', 'pass'),
        ('no check', 'speed._fits', 'x.ndim != 2 or ', ''),
        ('no check', 'speed._fits', ' or x.shape[1] != m', ''),
        ('no check', 'speed._one_label_each', 'y.shape != x.shape[:1]', 'len(y) != len(x)'),
        ('no check', 'speed._one_label_each', 'y.shape != x.shape[:1]', 'y.ndim != 1'),
        ('no check', 'speed._fits', 'if x.dtype != dtype', 'if False'),
        ('no check', 'speed._check_training', 'dict(x=x, y=y)', 'dict(x=x)'),
        ('no check', 'speed._check_training', 'dict(x=x, y=y)', 'dict(y=y)'),
        ('no check', 'speed._check_training', 'if not isinstance(t, Tensor)', 'if False'),
        ('no check', 'speed._check_training', 'dict(x=x, **', 'dict(**'),
        ('no check', 'speed._check_training', 'enumerate(sum(layers, ()))', 'enumerate(())'),
        ('no check', 'speed._check_training', 'if not isinstance(generator, (torch.Generator, type(None)))', 'if False'),
        ('no check', 'speed.train_fast', "_whole('train_fast: epochs', epochs)", 'epochs'),
        ('no check', 'speed.train_fast', "_whole('train_fast: bs', bs)", 'bs'),
        ('no check', 'speed._whole', "not hasattr(k, '__index__') or ", ''),
        ('no check', 'speed._whole', 'isinstance(k, bool) or ', ''),
        ('no check', 'speed._whole', 'k < 1', 'k < 0'),
        ('no check', 'speed._check_training', 'not isinstance(lr, (int, float)) or ', ''),
        ('no check', 'speed._check_training', "not 0 <= lr < float('inf')", "lr < 0 or lr == float('inf')"),
        ('no check', 'speed._check_training', "not 0 <= lr < float('inf')", "not 0 <= lr"),
        ('no check', 'speed._check_training', "not 0 <= lr", "not 0 < lr")],
    recorded_leaves_all_as_it_was: [
        ('missing term', 'speed.recorded', 'for t, old in zip(tensors, before): t.copy_(old)', 'pass'),
        ('shared memory', 'speed.recorded', 't.clone()', 't'),
        ('missing term', 'speed.recorded', 'with torch.cuda.stream(side): run()', 'pass'),
        ('missing term', 'speed.recorded', 'side.wait_stream(torch.cuda.current_stream())', 'pass'),
        ('missing term', 'speed.recorded', 'torch.cuda.current_stream().wait_stream(side)', 'pass'),
        ('wrong place', 'speed.recorded', 'with torch.cuda.graph(graph): run()', 'run()'),
        ('wrong place', 'speed.recorded', 'graph.replay()', 'run()'),
        ('shared memory', 'speed.recorded', 'def replay(run=run)', 'def replay()')],
    one_operation_is_autograds: [
        ('missing term', 'speed.NetworkLoss', 'if len(outs) > 1: outs[-1].relu_()', 'pass'),
        ('shared memory', 'speed.NetworkLoss', 'if len(outs) > 1: outs', 'outs'),
        ('wrong axis', 'speed.NetworkLoss', 'log_softmax(1)', 'log_softmax(0)'),
        ('missing 1/n', 'speed.NetworkLoss', 'slope/len(targ)', 'slope'),
        ('missing factor', 'speed.NetworkLoss', 'slope/len(targ)', '1/len(targ)'),
        ('sign', 'speed.NetworkLoss', '-torch.ones_like', 'torch.ones_like'),
        ('missing factor', 'speed.NetworkLoss', 'log_probs.exp()', 'log_probs.clone()'),
        ('missing factor', 'speed.NetworkLoss', 'if i: g *= inputs[i] > 0', 'pass'),
        ('wrong place', 'speed.NetworkLoss', 'if i: g *= inputs[i] > 0', 'g *= inputs[i] > 0'),
        ('wrong axis', 'speed.NetworkLoss', 'g.sum(0)', 'g.sum(0).flip(0)'),
        ('wrong axis', 'speed.NetworkLoss', 'reversed(range(len(weights)))', 'range(len(weights))'),
        ('missing transpose', 'speed.NetworkLoss', 'weights[i].t()', 'weights[i]'),
        ('missing term', 'speed.NetworkLoss', 'targ.long()', 'targ'),
        ('missing term', 'speed.NetworkLoss', 'return g if ctx.needs_input_grad[0] else None', 'return None'),
        ('missing sum', 'speed.NetworkLoss', 'F.nll_loss(log_probs, targ)', "F.nll_loss(log_probs, targ, reduction='sum')")],
    one_operation_does_no_more: [
        ('wrong place', 'speed.NetworkLoss', 'if i or ctx.needs_input_grad[0]', 'if True'),
        ('no check', 'speed.NetworkLoss', 'if torch.is_grad_enabled()', 'if False'),
        ('no check', 'speed.NetworkLoss', ', strict=True', ''),
        ('no check', 'speed.NetworkLoss', 'check_labels(outs[-1], targ)', 'pass')],
}

rows = [(prop, *row) for prop, some in mutants.items() for row in some]


# ---- the tests

@pytest.mark.parametrize('prop', mutants, ids=lambda p: p.__name__)
def test_the_library_has_the_property(prop):
    with Library() as lib: prop(lib)


@pytest.mark.parametrize('prop,kind,where,old,new', rows, ids=[f'{p.__name__}-{w}-{k}' for p, k, w, *_ in rows])
def test_the_bug_is_found(prop, kind, where, old, new, record_property):
    record_property('mutant', kind)                    # counted at the end of the run, by conftest.py
    kill(prop, where, old, new)


def unproved(exported, rows):
    "Exported names without a row"
    return sorted(set(exported) - {where for _, _, where, *_ in rows})


def own_names(module):
    "What the module exports, less what it passes on from another"
    return [name for name in module.__all__ if getattr(getattr(module, name), '__module__', module.__name__) == module.__name__]

exported = [f'{m}.{name}' for m in modules for name in own_names(importlib.import_module(f'backprop13.{m}'))]

def test_every_exported_operation_has_a_mutant(): assert unproved(exported, rows) == []

def test_an_operation_without_a_mutant_is_found():
    assert unproved([*exported, 'backprop.Sigmoid'], rows) == ['backprop.Sigmoid']
    assert unproved(exported, [r for r in rows if r[2] != 'backprop.lin_grad']) == ['backprop.lin_grad']


def test_a_survivor_a_crash_and_a_stale_row_are_found():
    row = 'backprop.lin', 'return out + b'
    assert 'lin, value: relative error' in kill(lin_is_right, *row, 'return out - b')
    with pytest.raises(pytest.fail.Exception, match='lin_is_right did not see'): kill(lin_is_right, *row, 'return b + out')
    with pytest.raises(pytest.fail.Exception, match='which is no kill: NameError'): kill(lin_is_right, *row, 'return out + c')
    for where, old in [('backprop.lin', 'out * b'), ('backprop.lin', 'b'), ('backprop.line', 'out')]:
        with pytest.raises(AssertionError, match='stale row'): mutated(where, old, '')
    with Library(backprop=mutated(*row, 'return out - b')) as lib:
        assert lib.training.Module is lib.backprop.Module is not backprop.Module       # every module sees the changed one
    assert not [k for k in sys.modules if k.startswith('mutant')]
