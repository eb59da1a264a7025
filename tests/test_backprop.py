"The exported forward and backward passes: right on every shape, and lean on all 50 000 images."
import ast, copy, gc, pickle, random, subprocess, sys, weakref
from pathlib import Path

import pytest, torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import backprop13.fitting
from backprop13.backprop import (Lin, Linear, Model, Module, Mse, Relu, add_grad, forward_and_backward, lin, lin_grad, mse, relu,
                                 zero_grads)
from backprop13.training import CrossEntropy
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


inf, nan = float('inf'), float('nan')

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, *dtypes])
def test_relu(dtype):
    x = torch.tensor([-inf, -2, -0., 0, 3, inf, nan], dtype=dtype)
    torch.testing.assert_close(relu(x), torch.tensor([0, 0, 0, 0, 3, inf, nan], dtype=dtype), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(x[:1], torch.tensor([-inf], dtype=dtype))             # not in place


@pytest.mark.parametrize('dtype', dtypes)
def test_relu_has_one_slope_at_0(dtype):
    "By our bwd, by autograd through our relu, and by PyTorch's own."
    x = torch.tensor([-1, -0., 0, 1], dtype=dtype)
    act = Relu()
    act(x).g = torch.ones(4, dtype=dtype)
    act.backward()
    want = {'x': torch.tensor([0, 0, 0, 1], dtype=dtype)}
    for got in ({'x': x.g}, *(autograd_grads(lambda x: f(x).sum(), x=x) for f in (relu, F.relu))): check_grads(got, want)
    with pytest.raises(AssertionError): check_grads(autograd_grads(lambda x: x.clamp_min(0).sum(), x=x), want)


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


def square(seed=0, n=6):
    g = torch.Generator().manual_seed(seed)
    x, targ, w = (torch.randn(n, n, generator=g, dtype=torch.float64) for _ in range(3))
    return x, targ, w, torch.zeros(n, dtype=torch.float64)


def test_a_weight_used_twice():
    "By two layers, by one layer called twice, and by one layer that stands twice in a model."
    x, targ, w, b = square()
    want = autograd_grads(lambda x, w, b: F.mse_loss((x @ w + b).relu() @ w + b, targ), x=x, w=w, b=b)
    def check(): check_grads({'x': x.g, 'w': w.g, 'b': b.g}, want); zero_grads(x, w, b)
    steps = Lin(w, b), Relu(), Lin(w, b)
    loss, out = Mse(), x
    for step in steps: out = step(out)
    loss(out, targ)
    for step in (loss, *reversed(steps)): step.backward()
    check()
    layer, act, loss = Lin(w, b), Relu(), Mse()
    first = layer(x)
    second = layer(act(first))
    loss(second, targ)
    for step, out in (loss, None), (layer, second), (act, None), (layer, first): step.backward(out)
    check()
    model = Model(w, b, w, b)
    model.layers[2] = model.layers[0]
    for times in (1, 2):
        model(x, targ)
        model.backward()
        check_grads({'w': w.g}, {'w': times*want['w']})
    model.zero_grad()
    assert all(t.g is None for t in (x, w, b, targ, *model.outs, model.loss.out))
    model(x, targ)
    model.backward()
    check()


def test_a_value_used_twice():
    x, targ, w, b = square()
    v, c = square(1)[2:]
    stem, act, heads, losses = Lin(w, b), Relu(), (Lin(v, c), Lin(w, b)), (Mse(), Mse())
    h = act(stem(x))
    for head, loss in zip(heads, losses): loss(head(h), targ)
    for step in (*losses, *heads, act, stem): step.backward()
    def f(x, w, b, v, c, h=None):
        h = (x @ w + b).relu()
        return F.mse_loss(h @ v + c, targ) + F.mse_loss(h @ w + b, targ)
    got = dict(x=x, w=w, b=b, v=v, c=c)
    want = autograd_grads(f, **got)
    check_grads({k: t.g for k, t in got.items()}, want)
    with pytest.raises(AssertionError):                      # one head too few
        zero_grads(x, w, b, v, c, h, stem.out, *(head.out for head in heads))
        for step in (*losses, heads[0], act, stem): step.backward()
        check_grads({k: got[k].g for k in ('x', 'v', 'c')}, {k: want[k] for k in ('x', 'v', 'c')})


def test_zero_grad():
    d = data(7, 5, 3, torch.float64)
    layer = Lin(d['w1'], d['b1'])
    layer.zero_grad()                                        # before any call
    layer(d['x']).g = torch.ones(7, 3, dtype=torch.float64)
    layer.backward()
    assert all(t.g is not None for t in (d['x'], d['w1'], d['b1'], layer.out))
    layer.zero_grad()
    assert all(t.g is None for t in (d['x'], d['w1'], d['b1'], layer.out))
    model, want = Model(d['w1'], d['b1'], d['w2'], d['b2']), trusted(d)
    model.zero_grad()
    for _ in range(2):
        model(d['x'], d['targ'])
        model.backward()
        check_grads(grads(d), want)
        model.zero_grad()
        assert all(t.g is None for t in (*d.values(), *model.outs, model.loss.out))


def test_a_layer_may_return_its_input():
    class Same(Module):
        def forward(self, x): return x
        def bwd(self, out, x): add_grad(x, out.g)
    x, targ, w, b = square()
    steps = Lin(w, b), Same(), Same(), Mse()
    first = steps[0](x)
    out = steps[2](steps[1](first))
    assert out is not first and out.data_ptr() == first.data_ptr()
    steps[3](out, targ)
    steps[3].backward(); steps[2].backward(); steps[1].backward(); steps[0].backward(first)
    check_grads({'x': x.g, 'w': w.g}, autograd_grads(lambda x, w: F.mse_loss(x @ w + b, targ), x=x, w=w))


def test_a_layer_of_layers():
    "The tensor that a layer passes on belongs to both: it is the last output of the one, and the outer layer's call."
    class Two(Module):
        def __init__(self, w, b): self.layers = Lin(w, b), Relu()
        def forward(self, x): return self.layers[1](self.layers[0](x))
        def bwd(self, out, x):
            for layer in reversed(self.layers): layer.backward()
    x, targ, w, b = square()
    two, loss = Two(w, b), Mse()
    out = two(x)
    loss(out, targ)
    loss.backward(); two.backward()
    check_grads({'x': x.g, 'w': w.g}, autograd_grads(lambda x, w: F.mse_loss((x @ w + b).relu(), targ), x=x, w=w))
    two.zero_grad()
    assert all(t.g is None for t in (x, w, b, out, two.layers[0].out))
    for start in (two.layers[1], two):                       # from either, by the tensor
        two.zero_grad()
        loss.backward()
        start.backward(out)
        if start is not two: two.layers[0].backward()
        check_grads({'x': x.g, 'w': w.g}, autograd_grads(lambda x, w: F.mse_loss((x @ w + b).relu(), targ), x=x, w=w))
    model = Model(w, b, w, b)
    model.layers[:2] = [Two(w, b)]
    model.zero_grad(); zero_grads(x, targ)
    model(x, targ)
    model.backward()
    check_grads({'x': x.g, 'w': w.g}, autograd_grads(lambda x, w: F.mse_loss((x @ w + b).relu() @ w + b, targ), x=x, w=w))


def test_memory_is_given_back_at_once():
    "Layers, outputs and arguments make no circle, which would wait for the garbage collector; and no batch outlives the next."
    class Pair(Module):
        def forward(self, x): return x
    d, alive = data(7, 5, 3, torch.float64), []
    gc.disable()
    try:
        model, same = Model(d['w1'], d['b1'], d['w2'], d['b2']), Pair()
        for _ in range(3):
            x = d['x'].clone()
            loss = model(x, d['targ'])
            model.backward()
            outs = x, loss, same(loss), *model.outs
            alive.append([weakref.ref(t) for t in outs])
            del x, outs
        del loss
        same(d['x'])
        assert not any(o() is not None for o in sum(alive[:2], []))
        del model
        assert not any(o() is not None for o in sum(alive, []))
    finally: gc.enable()


def test_a_used_model_can_be_copied_and_saved():
    d = data(7, 5, 3, torch.float64)
    model = Model(d['w1'], d['b1'], d['w2'], d['b2'])
    model(d['x'], d['targ'])
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        again.backward()
        check_grads({'w1': again.layers[0].w.g}, {'w1': trusted(d)['w1']})
    assert not hasattr(d['w1'], 'g')
    x, targ, w, b = square()
    layer = Lin(w, b)
    outs = layer(x), layer(x + 1)
    again, first, last = copy.deepcopy((layer, *outs))
    first.g = last.g = torch.ones_like(last)
    again.backward(first); again.backward(last)              # copied together, they belong together
    check_grads({'w': again.w.g}, {'w': (2*x + 1).t() @ torch.ones_like(x)})
    for out in outs:                                         # the original's calls are not the copy's
        out.g = torch.ones_like(out)
        with pytest.raises(ValueError, match='Lin: the tensor .* was not made by this layer'): again.backward(out)


def a_dead_layer_is_no_other(lib):
    "A layer that is gone: a new one may get its `id`, but not its outputs"
    x, _, w, b = square()
    same_id = 0
    for _ in range(100):
        old = lib.backprop.Lin(w, b)
        was, out = id(old), old(x)
        out.g = torch.ones_like(out)
        del old
        new = lib.backprop.Lin(7*w, b)
        new(x)
        same_id += id(new) == was
        try: new.backward(out)
        except ValueError as e: assert 'was not made by this layer' in str(e)
        else: raise AssertionError('a layer took an output of one that is gone')
    assert same_id, 'no id came again, so nothing was tried'


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


def test_a_loss_can_be_weighed():
    a, t, y = torch.ones(4, 3).double(), torch.zeros(4, 3).double(), torch.tensor([0, 2, 1, 1])
    for loss, targ in ((Mse(), t), (CrossEntropy(), y)):
        zero_grads(a)
        loss(a, targ); loss.backward()
        once = a.g
        zero_grads(a)
        loss(a, targ).g = torch.tensor(.5).double()
        loss.backward()
        check_grads({'a': a.g}, {'a': once/2})


# ---- containers, and what is used or walked back twice

def run_program(lib, seed):
    "A random program of layers, containers and losses, walked back from some losses, then from some others: our gradients, autograd's"
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    def r(*shape): return torch.randn(*shape, generator=g, dtype=torch.float64)
    given = dict(x=r(4, 3), y=r(4, 3), w=r(3, 3), b=r(3), v=r(3, 3), c=r(3))
    theirs, total = {k: t.clone().requires_grad_() for k, t in given.items()}, 0
    B, values, refs = lib.backprop, [], []
    def linear(w, b): return B.Lin(given[w], given[b]), lambda x: x @ theirs[w] + theirs[b]
    layers, losses = [linear('w', 'b'), linear('v', 'c'), linear('w', 'b'), (B.Relu(), torch.relu)], [B.Mse(), B.Mse()]
    def chain(parts):
        def f(x):
            for _, part in parts: x = part(x)
            return x
        return f
    def some(): return rng.choices(layers, k=rng.randint(1, 3))
    def sequential(parts): return lib.fitting.Sequential(*(q for q, _ in parts)), chain(parts)
    for _ in range(3): layers.append(sequential(some()))     # of those before it, too

    steps, n = [], 2                                         # (what, its reference, value in, value out, targets, weight)
    for kind in rng.choices(['layer', 'loss', 'model'], [4, 2, 1], k=6) + ['loss']:
        i, targ, weight = rng.randrange(n), r(4, 3), rng.choice([1., .5, -2.])
        if kind == 'loss': steps.append((rng.choice(losses), None, i, None, targ, weight))
        elif kind == 'layer': steps.append((*rng.choice(layers), i, n, None, None))
        else:
            model, parts = B.Model(*(given[k] for k in 'wbvc'), loss=rng.choice(losses)), some()
            model.layers = [q for q, _ in parts]
            steps.append((model, chain(parts), i, n, targ, weight))
        n += kind != 'loss'

    for _ in range(2):                                       # without zeroing between
        values[:], refs[:], outs = [given['x'], given['y']], [theirs['x'], theirs['y']], []
        for what, ref, i, o, targ, weight in steps:
            outs.append(out := what(values[i]) if targ is None else what(values[i], targ))
            if weight not in (None, 1): out.g = torch.tensor(weight, dtype=torch.float64)
            if o: values.append(what.preds if targ is not None else out); refs.append(ref(refs[i]))
        for chosen in (rng.choices(range(7), k=3) for _ in range(3)):
            reached = set()
            for k, (what, ref, i, o, targ, weight) in reversed([*enumerate(steps)]):
                if not (o in reached or k in chosen and targ is not None): continue
                what.backward() if o and targ is not None else what.backward(outs[k])
                if targ is not None: total = total + weight*F.mse_loss(refs[o or i], targ)
                reached.add(i)
    got = {k: sum((q for q in (getattr(t, 'g', None), t.grad) if q is not None), torch.zeros_like(t)) for k, t in given.items()}
    want = torch.autograd.grad(total, list(theirs.values()), materialize_grads=True) if torch.is_tensor(total) else got.values()
    return got, dict(zip(theirs, want))


def works(f, *args):
    "What `f(*args)` gives; an error is a fault that was found"
    try: return f(*args)
    except (RuntimeError, ValueError) as e: raise AssertionError(f'{e!r}') from e


def containers_are_right(lib, seeds):
    for seed in seeds: check_grads(*works(run_program, lib, seed), op=f'program {seed}')


def walks_add_up(lib):
    "What was wrong once, in a layer and in each container: each walk back adds what autograd's would, and no more"
    B, S = lib.backprop, lib.fitting.Sequential
    def lin_layer(w, b): return B.Lin(w, b)
    def one(w, b): return S(B.Lin(w, b))
    def nested(w, b): return S(S(one(w, b)))
    def check(want, **got): check_grads({k: t.g for k, t in got.items()}, {k: want[k] for k in got}, 1e-9); zero_grads(*got.values())
    for make in lin_layer, one, nested:
        x, targ, w, b = square()
        want = {'x': 2*(x @ w + b - targ)/x.numel() @ w.t()}
        want |= {'twice': 2*want['x'], 'x of both': 2*want['x'] + 2*(2*(x @ w + b + targ)/x.numel() @ w.t())}
        model, first, second = make(w, b), B.Mse(), B.Mse()
        p = model(x)
        first(p, targ); second(p, -targ)
        for _ in range(2): first.backward(); model.backward()
        check({'x': want['twice']}, x=x)
        first.backward(); model.backward(); model.backward()
        check({'x': want['twice']}, x=x)
        for loss in (first, second)*2: loss.backward(); model.backward(p)
        check({'x': want['x of both']}, x=x)
        for _ in range(2): second.backward(); first.backward(); model.backward()
        check({'x': want['x of both']}, x=x)
        p.g = -targ                                          # by hand, in place of what was passed on
        first.backward(); model.backward()
        check({'x': want['x'] - targ @ w.t()}, x=x)

    x, targ, w, b = square()                                 # two losses on a Model's predictions, walked back twice
    model, second = B.Model(w, b, w, b), B.Mse()
    model(x, targ); second(model.preds, -targ)
    for _ in range(2): second.backward(); model.backward()
    def both(x, w):
        p = (x @ w + b).relu() @ w + b
        return 2*F.mse_loss(p, targ) + 2*F.mse_loss(p, -targ)
    check(autograd_grads(both, x=x, w=w), x=x, w=w)

    shared = B.Mse()                                         # two Models with one loss
    models = [B.Model(w, b, w, b, shared), B.Model(w, b, w, b, shared)]
    for model, t in zip(models, (targ, -targ)): model(x, t)
    for model in models*2: works(model.backward)
    check(autograd_grads(both, x=x, w=w), x=x, w=w)

    inside, after, model = B.Mse(), B.Mse(), S(B.Lin(w, b), B.Relu())       # a loss on what is inside a Sequential
    p = model(x)
    inside(model.layers[0].out, targ); after(p, targ)
    for _ in range(2): inside.backward(); after.backward(); model.backward()
    check(autograd_grads(lambda x: 2*F.mse_loss(x @ w + b, targ) + 2*F.mse_loss((x @ w + b).relu(), targ), x=x), x=x)

    class Same(B.Module):                                    # two layers that hand on the very same gradient
        def forward(self, x): return x
        def bwd(self, out, x): B.add_grad(x, out.g)
    layer, ends = B.Lin(w, b), (Same(), Same())
    h = layer(x)
    for end in ends: end(h).g = targ
    for some in ends[:1], ends, ends:
        for q in (*some, layer): q.backward()
    check({'x': 5*targ @ w.t()}, x=x)


@pytest.mark.parametrize('prop', [walks_add_up, lambda lib: containers_are_right(lib, range(60)), a_dead_layer_is_no_other],
                         ids=['walks', 'random programs', 'dead layers'])
def test_what_is_used_or_walked_back_twice(prop): prop(backprop13)


def deaf(code):
    "Classes whose `bwd` doesn't look at the gradient that reaches its output, nor hands the output on"
    tree = ast.parse('\n'.join(line for line in code.splitlines() if not line.lstrip().startswith(('%', '!'))))
    for c in (o for o in ast.walk(tree) if isinstance(o, ast.ClassDef)):
        for f in (o for o in c.body if isinstance(o, ast.FunctionDef) and o.name == 'bwd'):
            def is_out(o): return isinstance(o, ast.Name) and o.id == 'out'
            parts = [*ast.walk(f)]
            if not any(isinstance(o, ast.Attribute) and o.attr == 'g' and is_out(o.value) or isinstance(o, ast.Call) and any(map(is_out, o.args))
                       or isinstance(o, ast.Raise) for o in parts): yield c.name


def test_every_bwd_takes_the_gradient_from_behind():
    "ShortMse alone starts the chain: a PlainModule gives a loss no gradient"
    import nbformat
    nbs = Path(__file__).parents[1]/'nbs'
    found = {name for path in nbs.rglob('*.ipynb') if path.parent.name != 'practice' for c in nbformat.read(path, 4).cells   # stubs, copies
             if c.cell_type == 'code' and ' bwd(' in c.source for name in deaf(c.source)}
    assert found == {'ShortMse'}
    assert [*deaf('class A:\n    def bwd(self, out, x): add_grad(x, out*(1 - out))')] == ['A']


def test_a_second_loss_on_the_predictions_counts():
    d = data(5, 3, 4, torch.float64)
    model, second, other = Model(*(d[k] for k in ('w1', 'b1', 'w2', 'b2'))), Mse(), d['targ'] + 1
    model(d['x'], d['targ'])
    second(model.preds, other)
    second.backward(); model.backward()
    def both(x, targ, w1, b1, w2, b2):
        preds = (x @ w1 + b1).relu() @ w2 + b2
        return F.mse_loss(preds, targ) + F.mse_loss(preds, other)
    want = autograd_grads(both, **d)
    del want['targ']
    check_grads(grads(d), want)


def test_zero_grad_reaches_every_layer_it_holds():
    class Net(Module):
        def __init__(self): self.blocks = {'a': [Lin(torch.ones(3, 2), torch.ones(2))]}
        def forward(self, x): return self.blocks['a'][0](x)
        def bwd(self, out, x): self.blocks['a'][0].backward()
    net = Net()
    for _ in range(3):
        net(torch.ones(4, 3)).g = torch.ones(4, 2)
        net.backward()
        assert net.blocks['a'][0].b.g.tolist() == [4, 4]
        net.zero_grad()


def test_dtypes_that_differ_are_named():
    a, b = torch.ones(3, 1), torch.ones(3, 1).double()
    with pytest.raises(TypeError, match=r'mse: output is torch.float32 and targ torch.float64.*targ.to\(torch.float32\)'): mse(a, b)
    with pytest.raises(ValueError, match='torch.float64, for a tensor of shape'): add_grad(a, b)
    with pytest.raises(TypeError, match='lin, a = x and b = w: matmul: a is torch.float32'): lin(a, b.t(), b[:, 0])


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
    x, targ, w, b = square()
    one, other = Lin(w, b), Lin(w, b)
    out = one(x)
    for bad in (other(x), out.clone(), out.detach(), x, 3):
        with pytest.raises(ValueError, match=r'Lin: the tensor given to backward\(out\) was not made by this layer; pass'): one.backward(bad)
    with pytest.raises(RuntimeError, match='Lin: no gradient has reached'): one.backward(out)
    with pytest.raises(RuntimeError, match='Lin: call it on its inputs'): Lin(w, b).backward(out)
    model = Model(w, b, w, b)
    with pytest.raises(RuntimeError, match='Mse: call it on its inputs'): model.backward()
    model(x, targ)
    model.predict(x)                                         # the activations of another pass, without its loss
    with pytest.raises(RuntimeError, match='Lin: no gradient has reached'): model.backward()


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
def size():
    if sys.platform == 'darwin': return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024*int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])      # ru_maxrss begins with the parent's
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
    for args, message in [((x, torch.zeros(4, 2), b), 'matmul: a (4, 3) and b (4, 2) do not fit'),
                          ((x, w, torch.zeros(3)), 'lin: w (3, 2) gives 2 outputs but b is (3,); pass b of shape (2,)'),
                          ((x, torch.zeros(3), b), 'matmul: b is (3,), wanted two axes'), ((x[0], w, b), 'matmul: a is (3,), wanted two axes'),
                          ((x.double(), w, b), 'matmul: a is torch.float64'), ((x, w, b.double()), 'lin: w is torch.float32 and b torch.float64')]:
        with pytest.raises((ValueError, TypeError)) as e: lin(*args)
        assert message in str(e.value)
    out = torch.zeros(4, 2)
    out.g = torch.ones(4, 2)
    lin_grad(x, out, w, b)
    row = torch.zeros(2)
    row.g = torch.ones(2)
    assert (x.g.shape, w.g.shape, b.g.shape) == (x.shape, w.shape, b.shape)
    for args in [(x[0], row, w, b), (x[0], out, w, b), (x[:3], out, w, b), (x, out, w.t(), b), (x, out, torch.zeros(5, 2), b), (x, out, w, b[:1]), (x, row, w, b), (x, out, w, w)]:
        with pytest.raises(ValueError, match=r'matmul: . .*(do not fit|wanted two axes)|lin_grad: \w+ is .* but its gradient is'): lin_grad(*args)
    for a, t in [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (1, 1)), ((4, 1), ()), ((4, 1), (3, 1))]:
        with pytest.raises(ValueError, match='mse: output') as e: mse(torch.zeros(a), torch.zeros(t))
        assert ('pass targ[:, None]' in str(e.value)) == (a == (4, 1) and t == (4,)), e.value
    with pytest.raises(ValueError, match='do not fit'): mse(torch.zeros(4, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match='empty batch'): mse(torch.zeros(0, 1), torch.zeros(0, 1))
    assert relu(torch.tensor([0.])).item() == 0
