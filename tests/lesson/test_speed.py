"""The fast network, its training, the loss as one operation: what their cards don't hold. How fast they are is no
test's matter; what they keep in memory is."""
import subprocess, sys
from pathlib import Path

import pytest, torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from backprop13.backprop import Linear
from backprop13.support.cards import (asked_for, fast_case, fast_loss, fast_net, fast_want, fast_weights, flat,
                                      numbered)
from backprop13.support.checks import check_close, check_grads
from backprop13.speed import (FastNetwork, NetworkLoss, loss_and_gradients, one_epoch, recorded, train_fast,
                              yardstick)

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')

def seeded(seed): return torch.Generator().manual_seed(seed)

def model_of(*sizes): return fast_net(None, *sizes)

def weights_of(model): return [t.detach().clone() for t in model.parameters()]

def same(a, b): return len(a) == len(b) and all(map(torch.equal, a, b))

def agree(got, want, tolerance=1e-9): check_grads(numbered(got), numbered(want), tolerance)


# ---- the fast network

def test_scores_far_apart():
    layers, x, y, _ = fast_case((4, 3), 6)
    layers = [(1000*w, b) for w, b in layers]
    want, want_grads = fast_want(layers, x, y)
    weights = [t.clone().requires_grad_() for t in flat(layers)]
    one = NetworkLoss.apply(x, y, *weights)
    for loss, grads in (loss_and_gradients(FastNetwork(layers), x, y),
                        (one.detach(), torch.autograd.grad(one, weights))):
        check_close(loss, want, 'loss', 1e-9)
        agree(grads, want_grads)


def test_a_single_class_is_no_question():
    layers, x, y, _ = fast_case((3, 2, 1), 4)
    loss, grads = loss_and_gradients(FastNetwork(layers), x, y, 3)
    assert abs(loss) < 1e-12 and all(g.abs().max() < 1e-12 for g in grads)


def test_inputs_stay_as_they_are():
    layers, x, y, targ = fast_case((5, 4, 3), 7)
    mine = [*flat(layers), x, y, targ, order := torch.randperm(7, generator=seeded(1))]
    before = [t.clone() for t in mine]
    net, model = FastNetwork(layers), model_of(5, 4, 3)
    loss_and_gradients(net, x, y, 3)
    assert same(fast_weights(net), flat(layers))
    for run in one_epoch(net, x, targ, 3, .3), one_epoch(net, x, targ, 3, .3, order), yardstick(x, 4, 3, 3):
        run()
    train_fast(model, x, y, bs=3, generator=seeded(2))
    NetworkLoss.apply(x, y, *(t.clone().requires_grad_() for t in flat(layers))).backward()
    assert same(mine, before) and not same(fast_weights(net), flat(layers))


def test_a_batch_between_forward_and_backward():
    "Of another network, a wider one, another size: what was computed is still there"
    layers, x, y, targ = fast_case((5, 4, 4, 3), 9)
    alone = FastNetwork(layers)
    alone.step(x[:6], targ[:, :6], .5)
    net = FastNetwork(layers)
    scores = net.forward(x[:6])
    kept = scores.clone()
    for other in FastNetwork(layers), FastNetwork(fast_case((5, 9, 3), 1)[0]):
        other.step(x[:6] + 1, targ[:, :6], .3)
    net.forward(x[6:])
    assert scores.equal(kept)
    net.backward(x[:6], targ[:, :6], net.params, -.5/6)
    assert same(flat(net.params), flat(alone.params))


def test_the_fast_network_does_the_yardsticks_products():
    "The same sizes, as products that add to what is there"
    class Fused(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            at = {'aten::mm': 0, 'aten::addmm': 1, 'aten::addmm_': 1}.get(func._schema.name)
            if at is not None: products.append((*args[at].shape, args[at + 1].shape[1]))
            return func(*args, **(kwargs or {}))
    products, (layers, x, y, targ) = [], fast_case((7, 5, 3), 20)
    run = one_epoch(FastNetwork(layers), x, targ, 8, .3)
    with Fused(): run()
    assert sorted(products) == sorted(asked_for(yardstick(x, 5, 3, 8))[0])


# ---- training

def test_epochs_share_a_generator():
    "As many calls of one epoch with one generator train as one call with so many epochs; nothing else is drawn"
    _, x, y, _ = fast_case((6, 5, 3), 50)
    (a, b, c), gens, state = (model_of(6, 5, 3) for _ in range(3)), [seeded(5),
        seeded(5)], torch.get_rng_state()
    params = [*a.parameters()]
    train_fast(a, x, y, 3, 8, .3, gens[0])
    for _ in range(3):
        train_fast(b, x, y, 1, 8, .3, gens[1])
        train_fast(c, x, y, 1, 8, .3, seeded(5))
    assert same(weights_of(a), weights_of(b)) and not same(weights_of(a), weights_of(c))
    assert gens[0].get_state().equal(gens[1].get_state()) and torch.get_rng_state().equal(state)
    assert all(p is q and p.requires_grad and p.is_leaf for p, q in zip(a.parameters(), params, strict=True))


def refused_whole(model, error, message, x, y, **kw):
    "`train_fast` refuses, and model and generator are as they were"
    before, gen = weights_of(model), seeded(1)
    with pytest.raises(error, match=message): train_fast(model, x, y, generator=gen, **kw)
    assert same(weights_of(model), before)
    return gen.get_state().equal(seeded(1).get_state())


def test_a_refusal_changes_nothing():
    _, x, y, _ = fast_case((6, 5, 3), 50)
    for error, message, bad in [(ValueError, 'x is', dict(x=x[:, :5])), (ValueError, 'bs is 0', dict(bs=0)),
                                (ValueError, 'labels go from 1 to 3', dict(y=y + 1)),
                                (TypeError, 'wanted integers', dict(y=y.double()))]:
        assert refused_whole(model_of(6, 5, 3), error, message, **dict(x=x, y=y) | bad)


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=gpu)])
def test_weights_that_overflow_at_once(device):
    _, x, y, _ = fast_case((6, 5, 3), 50)
    x = torch.where(x > 1, 1e300, x)
    refused_whole(model_of(6, 5, 3).to(device), FloatingPointError, 'in epoch 1 weights', x.to(device),
                  y.to(device),
                  epochs=3, lr=1e10)


def test_it_learns_as_the_plain_loop_does(digits):
    """One epoch in float32 from each of three seeds: the share of right answers differs by less
    than half a per cent"""
    def right(weights):
        w1, b1, w2, b2 = weights
        return 100*(((digits.x_valid @ w1 + b1).relu() @ w2 + b2).argmax(1)
                    == digits.y_valid).double().mean().item()
    for seed in range(3):
        gen = seeded(seed)
        model = nn.Sequential(Linear(784, 50, gen), nn.ReLU(), Linear(50, 10, gen))
        weights = weights_of(model)
        for part in torch.randperm(len(digits.x_train), generator=seeded(seed)).split(64):
            grads = fast_want([weights], digits.x_train[part], digits.y_train[part])[1]
            for t, g in zip(weights, grads): t -= .3*g
        train_fast(model, digits.x_train, digits.y_train, generator=seeded(seed))
        got, want = right(weights_of(model)), right(weights)
        assert abs(got - want) < .5 and min(got, want) > 85, (seed, got, want)


# ---- memory

PEAK = """
import sys, torch
from backprop13.speed import FastNetwork, loss_and_gradients
torch.set_num_threads(1)
def peak(): return next(1024*int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))
gen = torch.Generator().manual_seed(0)
x, y = torch.rand(50000, 784, generator=gen), torch.randint(0, 10, (50000,), generator=gen)
def weights(n, m): return torch.randn(n, m, generator=gen), torch.zeros(m)
net = FastNetwork([weights(784, 50), weights(50, 10)])
loss_and_gradients(net, x[:100], y[:100])                    # libraries set themselves up
open('/proc/self/clear_refs', 'w').write('5')                # the peak is now what is in use
before = peak()
loss_and_gradients(net, x, y, **eval(sys.argv[1]))
print(peak() - before)
"""

def test_memory_for_all_images_at_once():
    """The default needs little more room than what one has to keep in one piece, 4 bytes for each hidden unit and score
    of each image; one piece of all images keeps their slopes, too, and needs more: so the measurement sees it."""
    try: Path('/proc/self/clear_refs').write_text('5')
    except OSError: pytest.skip('no peak of memory that one can set back, as Linux has it in /proc')
    def grown(kw):
        r = subprocess.run([sys.executable, '-c', PEAK, kw], capture_output=True, text=True, timeout=120)
        assert not r.returncode, r.stderr
        return int(r.stdout)
    must_be_kept = 4*50000*(50 + 10)
    assert grown('{}') <= 1.3*must_be_kept < grown('dict(chunk=50000)')


# ---- the loss as one operation

def test_torchs_own_judge():
    "And going back twice gives the same bits"
    layers, x, y, _ = fast_case((5, 4, 4, 3), 6)
    inputs = [t.clone().requires_grad_() for t in (x, *flat(layers))]
    def loss(x, *params): return NetworkLoss.apply(x, y, *params)
    assert torch.autograd.gradcheck(loss, inputs)
    out = loss(*inputs)
    first, second = (torch.autograd.grad(out, inputs, retain_graph=True) for _ in range(2))
    assert same(first, second)


def test_it_goes_into_a_larger_graph():
    "The first layer's inputs come from another operation, and its weights are frozen"
    layers, x, y, _ = fast_case((4, 5, 3), 6)
    def grads(loss):
        u, last = (t.clone().requires_grad_() for t in (x.cos(), layers[1][0]))
        (3*loss((u*x).sin(), *layers[0], last, layers[1][1])).backward()
        return u.grad, last.grad
    agree(grads(lambda inp, *ws: NetworkLoss.apply(inp, y, *ws)),
          grads(lambda inp, *ws: fast_loss(inp, y, *ws)))
    assert layers[0][0].grad is None


# ---- the GPU

@gpu
@pytest.mark.parametrize('shuffled', [False, True])
@pytest.mark.parametrize('sizes,bs', [((6, 5, 3), 8), ((6, 5, 4, 3), 50), ((6, 3), 1000)])
def test_training_on_a_gpu(sizes, bs, shuffled):
    _, x, y, _ = fast_case(sizes, 50)
    here, there = model_of(*sizes), model_of(*sizes).cuda()
    for model, device in (here, 'cpu'), (there, 'cuda'):
        train_fast(model, x.to(device), y.to(device), 3, bs, .2, seeded(2) if shuffled else None)
    assert {t.device.type for t in there.parameters()} == {'cuda'}
    agree([t.cpu() for t in weights_of(there)], weights_of(here))


@gpu
def test_gradients_on_a_gpu():
    layers, x, y, _ = fast_case((7, 5, 4, 3), 50)
    net = FastNetwork([(w.cuda(), b.cuda()) for w, b in layers])
    loss, grads = loss_and_gradients(net, x.cuda(), y.cuda(), 16)
    want, want_grads = fast_want(layers, x, y)
    check_close(loss.cpu(), want, 'loss', 1e-9)
    agree([g.cpu() for g in grads], want_grads)


@gpu
def test_recorded():
    "Nothing moves while it records; each call then does what `run` does"
    a, k = torch.arange(4., device='cuda'), torch.ones((), device='cuda')
    def run():
        for _ in range(3): a.mul_(2).add_(k)
    replay = recorded(run, [a])
    torch.cuda.synchronize()
    assert a.tolist() == [0, 1, 2, 3]
    want = a.cpu()
    for step in 1., 5.:
        k.fill_(step)                                                    # read anew
        for _ in range(3): want = 2*want + step
        replay()
        assert a.cpu().equal(want)


@gpu
def test_what_is_recorded_is_kept():
    "A graph knows addresses: memory that it reads isn't given to others"
    out = torch.zeros(1000, device='cuda')
    def make():
        ones = torch.ones(1000, device='cuda')
        return recorded(lambda: out.copy_(ones), [out])
    replay = make()
    others = [torch.full((1000,), 7., device='cuda') for _ in range(100)]
    replay()
    assert (out == 1).all() and all((t == 7).all() for t in others)
