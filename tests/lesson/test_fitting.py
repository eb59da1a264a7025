"""The loop made short: optimizer, loaders in this process, `fit` and what it leaves when things
go wrong, weights in files, our own
backward pass. The data loader is tested in test_loader.py, and what must hold of each
definition, with the bugs that would break it, stands on its card."""
import itertools, math, os, pickle, select, signal, struct, subprocess, sys, textwrap
from collections import namedtuple

import numpy as np
import pytest, torch
import torch.nn.functional as F
from torch import nn

from backprop13.backprop import Lin, Linear, Module, Mse, Relu
from backprop13.support.checks import check_grads
from backprop13.fitting import (SGD, BatchSampler, DataLoader, Dataset, Epoch, History, Sequential, by_hand,
                                evaluate,
                                fit, get_dls, load_weights, save_weights, to_device)
from backprop13.training import CrossEntropy, accuracy, cross_entropy

f64, nan, inf = torch.float64, float('nan'), float('inf')
M, NH, C, BS = 6, 5, 3, 8


def data(n, seed=0, dtype=f64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, M, generator=g, dtype=dtype)
    return Dataset(x, (x[:, :C] + torch.randn(n, C, generator=g, dtype=dtype)).argmax(1))


def net(seed=0, dtype=f64):
    g = torch.Generator().manual_seed(seed)
    return nn.Sequential(Linear(M, NH, g), nn.ReLU(), Linear(NH, C, g)).to(dtype)


# 4 batches of 8 and one of 4; one of 8 and one of 3
train, valid = data(36), data(11, 1)

def dls(train=train, valid=valid): return DataLoader(train, BS), DataLoader(valid, BS)


def losses_of(model, loss_func=F.cross_entropy, opt=None, epochs=2, loaders=None, **kw):
    "The training losses of a run of `fit`"
    history = History()
    fit(epochs, model, loss_func, opt or SGD(model.parameters(), .5), *(loaders or dls()), history=history,
        **kw)
    return history.losses


def state(model): return {k: t.detach().clone() for k, t in model.state_dict().items()}

def same(model, want):
    got = model.state_dict()
    return got.keys() == want.keys() and all(got[k].equal(t) for k, t in want.items())


def loop(model, batches, lr=.5):
    "Chapter 4's loop over these batches"
    losses = []
    for xb, yb in batches:
        loss = cross_entropy(model(xb), yb)
        loss.backward()
        with torch.no_grad():
            for w in model.parameters():
                w -= lr*w.grad
                w.grad.zero_()
        losses.append(loss.item())
    return losses


def batches_of(ds, bs=BS): return [(ds.x[i:i + bs], ds.y[i:i + bs]) for i in range(0, len(ds), bs)]

def said(error, f, *args, **kw):
    "The message of the error that `f(*args)` raises"
    with pytest.raises(error) as e: f(*args, **kw)
    return str(e.value)


# ---- what the cards don't try

def test_numpys_whole_numbers_will_do():
    assert list(BatchSampler(range(5), np.int64(5))) == [list(range(5))]
    assert len(losses_of(net(), epochs=np.int64(2))) == 10


# ---- the ladder

@pytest.mark.parametrize('bs', [BS, 36, 1])
def test_fit_is_the_loop_bit_for_bit(bs):
    train, valid = data(36, dtype=torch.float32), data(11, 1, torch.float32)
    plain = net(dtype=torch.float32)
    w1, b1, w2, b2 = (p.detach().clone().requires_grad_() for p in plain.parameters())
    want, lr = [], .5
    for epoch in range(3):
        for i in range(0, len(train), bs):
            xb, yb = train.x[i:i + bs], train.y[i:i + bs]
            loss = cross_entropy((xb @ w1 + b1).relu() @ w2 + b2, yb)
            loss.backward()
            with torch.no_grad():
                for w in (w1, b1, w2, b2):
                    w -= lr*w.grad
                    w.grad.zero_()
            want.append(loss.item())
    model = net(dtype=torch.float32)
    got = losses_of(model, cross_entropy, SGD(model.parameters(), lr), 3,
                    (DataLoader(train, bs), DataLoader(valid, 4)))
    assert got == want and sum(want[-36//bs:]) < sum(want[:36//bs])
    assert all(p.equal(w) for p, w in zip(model.parameters(), (w1, b1, w2, b2), strict=True))


@pytest.fixture
def no_autograd(monkeypatch):
    def refuse(*args, **kw): raise AssertionError('autograd was called')
    def refuse_it():
        for name in ('torch.Tensor.backward', 'torch.autograd.backward', 'torch.autograd.grad'):
            monkeypatch.setattr(name, refuse)
    return refuse_it


optimizers = dict(ours=lambda p: SGD(p, .5),
                  momentum=lambda p: torch.optim.SGD(p, .1, momentum=.9, weight_decay=.01),
                  nesterov=lambda p: torch.optim.SGD(p, .1, momentum=.9, nesterov=True),
                  adam=lambda p: torch.optim.Adam(p, .01))

@pytest.mark.parametrize('name', optimizers)
def test_by_hand_is_autograds_run(name, no_autograd):
    model = net()
    ours = by_hand(model)
    want = losses_of(model, cross_entropy, optimizers[name](model.parameters()), 6)
    no_autograd()
    with torch.no_grad(): got = losses_of(ours, CrossEntropy(), optimizers[name](ours.parameters()), 6)
    assert len(want) == 30 and want[-1] < .9*want[0] and not any(t.requires_grad for t in ours.parameters())
    torch.testing.assert_close(torch.tensor(got, dtype=f64), torch.tensor(want, dtype=f64), rtol=1e-10, atol=0)
    for k, t in model.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[k], t, rtol=1e-9, atol=1e-12)


def test_fit_returns_and_prints(capsys):
    model, history = net(), History()
    score = fit(2, model, F.cross_entropy, SGD(model.parameters(), .5), *dls(), history=history)
    with torch.no_grad(): preds = model(valid.x)
    loss, right = score
    assert type(score) is tuple and type(loss) is type(right) is float
    assert score == pytest.approx((F.cross_entropy(preds, valid.y).item(), accuracy(preds, valid.y).item()),
                                  rel=1e-6)
    want = [f'epoch {i} of 2: training loss {e.train_loss:.3f}, validation loss {e.valid_loss:.3f}, accuracy {e.accuracy:.3f}'
            for i, e in enumerate(history.epochs, 1)]
    assert capsys.readouterr() == ('\n'.join(want) + '\n', '')


# ---- notebooks that others wrote

def python(program, *args, **kw):
    "What a fresh Python says"
    kw = {'capture_output': True, 'text': True, 'timeout': 100, **kw}
    r = subprocess.run([sys.executable, '-c', textwrap.dedent(program), *args], **kw)
    assert not r.returncode, r.stderr
    return r.stdout


LESSON = """
from backprop13.MODULE import *
import torch, torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import default_collate
import torch.utils.data as tud

assert all(callable(f) for f in (accuracy, report, Dataset, fit, get_dls))
device = torch.device('cpu')
torch.manual_seed(1)
x = torch.rand(120, 28*28)
x[torch.arange(120), torch.arange(120) % 10] += 20
y = torch.arange(120) % 10
images = x.view(-1, 1, 28, 28)
train_ds, valid_ds = Dataset(images[:100], y[:100]), Dataset(images[100:], y[100:])
assert len(train_ds) == 100 and train_ds[3][1] == 3

def conv(ni, nf, act=True):
    layer = nn.Conv2d(ni, nf, kernel_size=3, stride=2, padding=1)
    return nn.Sequential(layer, nn.ReLU()) if act else layer

def collate_device(b): return tuple(t.to(device) for t in default_collate(b))

def learner(): return nn.Sequential(conv(1, 4), conv(4, 4), nn.Flatten(), nn.Linear(4*7*7, 10)).to(device)

bs, model = 16, learner()
train_dl, valid_dl = get_dls(train_ds, valid_ds, bs, num_workers=0, collate_fn=collate_device)
xb, yb = next(iter(train_dl))
assert xb.shape == (16, 1, 28, 28) and len(train_dl) == 7 and len(valid_dl) == 1
opt = optim.SGD(model.parameters(), lr=.1)
loss, acc = fit(2, model, F.cross_entropy, opt, train_dl, valid_dl)
assert 0 <= acc <= 1 and isinstance(acc, float) and isinstance(loss, float)
preds = model(xb)
report(F.cross_entropy(preds, yb), preds, yb)

theirs = (tud.DataLoader(train_ds, batch_size=bs, shuffle=True, collate_fn=collate_device),
          tud.DataLoader(valid_ds, batch_size=bs*2, collate_fn=collate_device))
model = learner()
loss, acc = fit(1, model, F.cross_entropy, optim.SGD(model.parameters(), lr=.1), *theirs)
pinned, _ = get_dls(train_ds, valid_ds, bs, pin_memory=False, persistent_workers=False)        # PyTorch's options
assert len(next(iter(pinned))[0]) == bs
print('accuracy', accuracy(torch.eye(3), torch.arange(3)).item())
"""

@pytest.mark.parametrize('module', [
    'training', 'fitting'])
def test_other_peoples_notebooks(module):
    lines = python(LESSON.replace('MODULE', module)).splitlines()
    assert [line.split()[0] for line in lines] == ['epoch', 'epoch', 'loss', 'epoch', 'accuracy'], lines


def test_get_dls():
    train_dl, valid_dl = get_dls(train, valid, 4)
    assert type(train_dl) is type(valid_dl) is DataLoader
    assert [len(yb) for _, yb in train_dl] == [4]*9 and [len(yb) for _, yb in valid_dl] == [8, 3]
    assert torch.cat([xb for xb, _ in valid_dl]).equal(valid.x)
    assert not torch.cat([xb for xb, _ in train_dl]).equal(train.x)
    assert [len(yb) for _, yb in get_dls(train, valid, 10, drop_last=True)[1]] == [11]
    a, b = get_dls(train, valid, 4, pin_memory=False)
    assert type(a) is type(b) is torch.utils.data.DataLoader and a.batch_size == 4
    g = torch.Generator()
    assert get_dls(train, valid, 4, generator=g)[0].generator is g
    assert "unexpected keyword argument 'colour'" in said(TypeError, get_dls, train, valid, 4, colour=1)
    for bs in (0, 37):
        assert 'wanted a whole number from 1 to 36' in said(ValueError, get_dls, train, valid, bs)
    assert 'the dataset is empty' in said(ValueError, get_dls, train, Dataset([], []), 4)
    assert 'the dataset is empty' in said(ValueError, get_dls, Dataset([], []), valid, 4)


# ---- validation

def test_evaluate_only_looks():
    model = nn.Sequential(net(), nn.BatchNorm1d(C).double(), nn.Dropout(.5))
    fit(1, model, F.cross_entropy, SGD(model.parameters(), .1), *dls())
    was, graphs = state(model), []
    def loss_func(preds, yb):
        graphs.append(preds.requires_grad or torch.is_grad_enabled() or model.training or model[2].training)
        return F.cross_entropy(preds, yb)
    model.train()
    got = evaluate(model, loss_func, DataLoader(valid, 4))
    assert graphs == [False]*3 and not model.training and torch.is_grad_enabled()
    assert same(model, was) and all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(got.loss, F.cross_entropy(model(valid.x), valid.y).item())


class Spy(nn.Module):
    "Notes what it is told, and in which mode it predicts"
    def __init__(self, told):
        super().__init__()
        self.net, self.told = net(), told
    def train(self, mode=True):
        self.told.append('train' if mode else 'eval')
        return super().train(mode)
    def forward(self, x):
        self.told.append(self.training)
        return self.net(x)


def test_modes():
    told = []
    model = Spy(told)
    fit(2, model, F.cross_entropy, SGD(model.parameters(), .1), *dls())
    epoch = ['train', *[True]*5, 'eval', False, False]
    assert told[:18] == epoch*2 and set(told[18:]) <= {'eval'} and not model.training
    def loss_func(preds, yb): raise KeyError('a bug of yours')
    for bad in (loss_func, lambda preds, yb: preds.mean()*nan):
        with pytest.raises((KeyError, FloatingPointError)):
            fit(1, model, bad, SGD(model.parameters(), .1), *dls())
        assert not model.training
    ours = by_hand(net())
    assert ours.training
    losses_of(ours, CrossEntropy())
    assert not ours.training


# ---- Ctrl-C

def stop_at(k, f):
    "`f`, but the call number `k`, from 0, is cut short by Ctrl-C"
    calls = iter(range(k + 1))
    def g(*args):
        if next(calls, None) == k: raise KeyboardInterrupt
        return f(*args)
    return g


class Halting(SGD):
    "Stops half-way through step `k`, when some weights have moved"
    k = 2
    def step(self):
        params = self.params
        if self.k == 0: self.params = params[:2]
        super().step()
        self.params, self.k = params, self.k - 1
        if self.k == -1: raise KeyboardInterrupt


class Source:
    "A loader whose batch `k` doesn't come, once"
    def __init__(self, batches, k): self.batches, self.k, self.closed = batches, k, 0
    def __iter__(self):
        try:
            for i, b in enumerate(self.batches):
                if i == self.k:
                    self.k = None
                    raise KeyboardInterrupt
                yield b
        finally: self.closed += 1


class Stops(Relu):
    "Stops in its backward pass number `k`"
    def __init__(self, k): self.bwd = stop_at(k, super().bwd)


def interrupted(where, k=2):
    "A model, a loss and an optimizer, and loaders, of which one is cut short at training batch `k`"
    model, loss_func, (train_dl, valid_dl) = net(), F.cross_entropy, dls()
    opt = (Halting if where == 'step' else SGD)(model.parameters(), .5)
    if where == 'loader': train_dl = Source(list(train_dl), k)
    if where == 'model': model[1].forward = stop_at(k, model[1].forward)
    if where == 'loss': loss_func = stop_at(k, loss_func)
    if where == 'autograd':
        halt = stop_at(k, lambda g: None)
        model[0].w.register_hook(halt)
    if where == 'validation': valid_dl = Source(list(valid_dl), 1)
    return model, loss_func, opt, train_dl, valid_dl


@pytest.mark.parametrize('where,steps',
                         [*((w, 2) for w in ('loader', 'model', 'loss', 'autograd', 'step')),
                          ('validation', 5)])
def test_ctrl_c_leaves_whole_steps(where, steps, capsys):
    model, loss_func, opt, train_dl, valid_dl = interrupted(where)
    history = History()
    score = fit(2, model, loss_func, opt, train_dl, valid_dl, history=history)
    place = 'the validation after epoch 1 of 2' if where == 'validation' else 'epoch 1 of 2, batch'
    out = capsys.readouterr().out
    assert out.startswith(f'Stopped by Ctrl-C in {place}') and out.count('\n') == 1, out
    assert len(score) == 2 and all(map(math.isnan, score)) and history.epochs == []
    assert len(history.losses) == steps
    reference = net()
    want = loop(reference, batches_of(train)[:steps])
    torch.testing.assert_close(history.losses, want, rtol=1e-12, atol=0)
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-15)
        assert p.grad is None
    assert not model.training
    fit(1, model, loss_func, opt, train_dl, valid_dl, history=history)              # the same objects go on
    more = loop(reference, batches_of(train))
    torch.testing.assert_close(history.losses, want + more, rtol=1e-9, atol=0)
    assert len(history.epochs) == 1 and not model.training


def test_half_a_step_is_taken_back_exactly(capsys):
    model, *rest = interrupted('step')
    twin, *others = interrupted('loader')
    for parts in ((model, *rest), (twin, *others)): fit(1, *parts)
    assert same(model, state(twin)) and capsys.readouterr().out.count('Stopped by Ctrl-C') == 2


def test_ctrl_c_in_the_second_epoch_returns_the_first_score(capsys):
    model = net()
    history = History()
    score = fit(3, model, stop_at(9, F.cross_entropy), SGD(model.parameters(), .5), *dls(), history=history)
    assert score == (history.epochs[0].valid_loss, history.epochs[0].accuracy) and len(history.epochs) == 1
    assert 'Stopped by Ctrl-C in epoch 2 of 3, batch 2;' in capsys.readouterr().out


def test_ctrl_c_in_our_backward_pass(capsys):
    w = [t.detach().clone() for t in net().parameters()]
    model = Sequential(Lin(w[0], w[1]), Stops(2), Lin(w[2], w[3]))
    opt, history, reference = SGD(model.parameters(), .5), History(), net()
    for _ in range(2): fit(1, model, CrossEntropy(), opt, *dls(), history=history)
    assert 'Stopped by Ctrl-C in epoch 1 of 1, batch 2' in capsys.readouterr().out
    want = loop(reference, batches_of(train)[:2]) + loop(reference, batches_of(train))
    torch.testing.assert_close(history.losses, want, rtol=1e-9, atol=0)


def test_an_interrupted_loader_is_closed(capsys):
    for where in ('loss', 'step'):
        model, loss_func, opt, train_dl, valid_dl = interrupted(where)
        source = Source(list(train_dl), None)
        fit(1, model, loss_func, opt, source, valid_dl)
        assert source.closed == 1


def test_a_real_sigint():
    p = subprocess.Popen([sys.executable, '-c', textwrap.dedent("""
        import signal, time, torch
        import torch.nn.functional as F
        from backprop13.fitting import *
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ds = Dataset(torch.randn(64, 5), torch.arange(64) % 3)
        model = torch.nn.Linear(5, 3)
        class Slow(DataLoader):
            def __iter__(self):
                for i, b in enumerate(super().__iter__()):
                    if i == 3: print('going', flush=True)
                    time.sleep(.02)
                    yield b
        loss, acc = fit(1000, model, F.cross_entropy, SGD(model.parameters(), .1), Slow(ds, 4), DataLoader(ds, 64))
        fit(1, model, F.cross_entropy, SGD(model.parameters(), .1), DataLoader(ds, 4), DataLoader(ds, 64))
        print('usable', all(p.isfinite().all() and p.grad is None for p in model.parameters()))
        """)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline() == 'going\n', p.stderr.read()
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
    finally: p.kill()
    assert p.returncode == 0 and err == '', err
    lines = [line for line in out.splitlines() if line != 'going' and ' of 1000: ' not in line]
    assert lines[0].startswith('Stopped by Ctrl-C in ') and lines[1].startswith('epoch 1 of 1: ')
    assert lines[2:] == ['usable True']


# ---- losses that are no numbers

def normed(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(Linear(M, NH), nn.BatchNorm1d(NH), nn.ReLU(), Linear(NH, C)).double()


def watched(model, loss_func, good):
    "The loss; notes the weights, and the buffers, of each finite one in training"
    def f(preds, yb):
        loss = loss_func(preds, yb)
        if model.training and loss.isfinite(): good.append(state(model))
        return loss
    return f


def with_bad(ds, i, bad):
    x = ds.x.clone()
    x[i] = bad
    return Dataset(x, ds.y)


@pytest.mark.parametrize('make', [net, normed])
@pytest.mark.parametrize('bad', [nan, inf, -inf])
@pytest.mark.parametrize('k', [0, 1, 4])
def test_bad_data_is_named_and_forgotten(make, bad, k):
    model, good = make(), []
    start = state(model)
    opt, history = SGD(model.parameters(), .5), History()
    loaders = dls(with_bad(train, 8*k + 1, bad))
    text = said(FloatingPointError, fit, 2, model, watched(model, F.cross_entropy, good), opt,
                *loaders, history=history)
    assert f'the loss became nan in epoch 1 of 2, batch {k}. ' in text
    assert 'lower the learning rate, or look' in text
    assert len(good) == len(history.losses) == k and history.epochs == []
    assert same(model, good[-1] if good else start) and not model.training
    assert all(t.isfinite().all() for t in model.state_dict().values())
    fit(1, model, F.cross_entropy, opt, *dls())                                     # goes on
    assert all(t.isfinite().all() for t in model.state_dict().values())


@pytest.mark.parametrize('make,lr', [(net, 1e160), (net, 1e300), (net, inf), (normed, inf)])
def test_too_high_a_learning_rate(make, lr):
    model, good = make(), []
    text = said(FloatingPointError, losses_of, model, watched(model, F.cross_entropy, good),
                SGD(model.parameters(), lr), 5)
    assert ' in epoch 1 of 5, batch ' in text or ' in the validation after epoch 1 of 5' in text
    assert 1 <= len(good) <= 5 and same(model, good[-1]) and all(t.isfinite().all() for t in good[-1].values())


def test_a_step_to_infinity():
    "The loss is fine, and its step is not; also when it is the epoch's last"
    class Explodes(SGD):
        def step(self):
            super().step()
            with torch.no_grad(): self.params[0][0, 0] = inf if self.at == 0 else self.params[0][0, 0]
            self.at -= 1
    for at, where in [(1, 'epoch 1 of 2, batch 2. '), (4, 'the validation after epoch 1 of 2. '),
                      (7, 'epoch 2 of 2, batch 3. ')]:
        model, good = net(), []
        opt = Explodes(model.parameters(), .5)
        opt.at = at
        assert where in said(FloatingPointError, losses_of, model, watched(model, F.cross_entropy, good), opt)
        assert len(good) == at + 1 and same(model, good[-1])


def test_bad_validation_data():
    model, good, history = normed(), [], History()
    loaders = dls(valid=with_bad(valid, 9, nan))
    text = said(FloatingPointError, fit, 3, model, watched(model, F.cross_entropy, good),
                SGD(model.parameters(), .5), *loaders,
                history=history)
    assert 'the loss became nan in the validation after epoch 1 of 3. ' in text
    assert same(model, good[-1]) and len(history.losses) == 5 and history.epochs == []


def test_by_hand_goes_back_too():
    model, good, loss = by_hand(net()), [], CrossEntropy()
    class Watched(CrossEntropy):
        def forward(self, preds, yb):
            good.append(state(model))
            return super().forward(preds, yb)
    text = said(FloatingPointError, losses_of, model, Watched(), loaders=dls(with_bad(train, 20, nan)))
    assert 'batch 2. ' in text and same(model, good[1])
    losses_of(model, loss)                                                          # goes on
    assert all(t.isfinite().all() for t in model.parameters())


# ---- misuse

def attempt_any(model=None, loss_func=F.cross_entropy, train_dl=None, valid_dl=None, epochs=1,
                error=ValueError, **kw):
    "What `fit` says when it refuses these: one line"
    model = model or net()
    train_dl, valid_dl = dls()[0] if train_dl is None else train_dl, dls()[1] if valid_dl is None else valid_dl
    text = said(error, fit, epochs, model, loss_func, SGD(model.parameters(), .5), train_dl, valid_dl, **kw)
    assert '\n' not in text, text
    return text


def attempt(model=None, *args, **kw):
    "The same, where nothing may move"
    model = model or net()
    was = state(model)
    text = attempt_any(model, *args, **kw)
    assert same(model, was)
    return text


def test_a_loss_that_is_no_number():
    assert '(8,), wanted a tensor of one number; ' in attempt(loss_func=nn.CrossEntropyLoss(reduction='none'))
    assert '(1,), wanted a tensor of one number' in attempt(loss_func=lambda preds,
        yb: F.cross_entropy(preds, yb)[None])
    assert 'the loss is float' in attempt(loss_func=lambda preds, yb: F.cross_entropy(preds, yb).item())
    assert 'the loss is NoneType' in attempt(loss_func=lambda preds, yb: None)
    class Each(CrossEntropy):
        def forward(self, preds, yb): return F.cross_entropy(preds, yb, reduction='none')
    assert '(8,), wanted a tensor' in attempt(by_hand(net()), Each())
    with pytest.raises(ValueError, match=r'\(8,\), wanted a tensor'): evaluate(net(),
            nn.CrossEntropyLoss(reduction='none'), dls()[1])


def test_batches_that_are_no_pairs():
    for bad, kind in [(train.x, 'Tensor'), (train.x[:2], 'Tensor'),
                      ((train.x, train.y, 1), 'tuple'), ([train.x], 'list'), (dict(x=1, y=2), 'dict')]:
        for batches, k in (([bad], 0), ([*batches_of(train)[:3], bad], 3)):
            text = attempt_any(train_dl=batches)
            assert f'training batch {k} is a {kind}' in text and 'wanted a pair, xb and yb' in text
            text = attempt_any(valid_dl=batches)
            assert f'validation batch {k} is a {kind}' in text and 'wanted a pair, xb and yb' in text


def test_batches_without_a_length():
    for bad in (3, None): assert f'training batch 0 is a {type(bad).__name__}' in attempt_any(train_dl=[bad])


def test_loaders_without_batches():
    used = iter(dls()[0])
    list(used)
    for empty in (used, iter([]), (b for b in [])):
        assert 'the training loader gave no batch; is it' in attempt(train_dl=empty)
        assert 'the validation loader gave no batch' in attempt_any(valid_dl=empty)
    once = iter(list(dls()[0]))
    model = net()
    text = said(ValueError, fit, 2, model, F.cross_entropy, SGD(model.parameters(), .5), once, dls()[1])
    assert 'the training loader gave no batch' in text                              # used up by the first epoch


def test_epochs():
    for epochs in (0, -1, 1.5, '3', None):
        assert f'epochs is {epochs!r}, wanted a whole number from 1' in attempt(epochs=epochs)
    assert len(losses_of(net(), epochs=np.int64(2))) == 10


# ---- devices

def test_named_tuples_to_a_device():
    Pair = namedtuple('Pair', 'x y')
    got = to_device(Pair(torch.ones(2), torch.ones(3)), 'meta')
    assert type(got) is Pair and got.y.device.type == 'meta'


def test_the_device_argument():
    want = losses_of(net())
    for device in ('cpu', torch.device('cpu')): assert losses_of(net(), device=device) == want
    assert losses_of(by_hand(net()), CrossEntropy(), device='cpu') == losses_of(by_hand(net()), CrossEntropy())
    seen = []
    class Seen(nn.Linear):
        def to(self, device): seen.append(device)
        def forward(self, x):
            seen.append(x.device)
            return super().forward(torch.zeros(len(x), M))
    def loss_func(preds, yb):
        seen.append(yb.device)
        return preds.sum()
    model = Seen(M, C)
    with pytest.raises(Exception, match='[mM]eta'):
        # accuracy can't be told there
        fit(1, model, loss_func, SGD(model.parameters(), 1), [(train.x, train.y)], [(valid.x, valid.y)],
            device='meta')
    assert seen == [torch.device('meta')]*5                                         # both loaders' batches


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_the_same_on_a_gpu(tmp_path):
    model, ours = net(), by_hand(net())
    torch.testing.assert_close(losses_of(model, device='cuda'), losses_of(net()), rtol=1e-9, atol=0)
    torch.testing.assert_close(losses_of(ours, CrossEntropy(), device='cuda'), losses_of(net()), rtol=1e-9,
                               atol=0)
    assert {t.device.type for m in (model, ours) for t in m.state_dict().values()} == {'cuda'}
    save_weights(model, tmp_path/'w')
    load_weights(back := net(1), tmp_path/'w')
    assert same(back, {k: t.cpu() for k, t in model.state_dict().items()})


# ---- notes, and a bar

@pytest.fixture
def plt(monkeypatch):
    matplotlib = pytest.importorskip('matplotlib')
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    yield plt
    plt.close('all')


def test_plot(plt):
    def lines(ax): return {line.get_label().partition(',')[0]: [torch.tensor(list(d), dtype=f64)
            for d in line.get_data()] for line in ax.lines}
    history = History()
    assert all(len(d) == 0 for xy in lines(history.plot()).values() for d in xy)                  # nothing yet
    for n in (2, 3, 50, 120):
        history.losses = [math.cos(i) + 2 for i in range(n)]
        history.epochs = [Epoch(1., 2. + i, .5, 1., n//2*(i + 1)) for i in range(2)]
        _, ax = plt.subplots()
        assert history.plot(ax) is ax
        k, got = min(n//2, 50), lines(ax)                          # no longer than an epoch
        assert set(got) == {'training', 'validation'}
        want = [sum(history.losses[i - k:i])/k for i in range(k, n + 1)]
        torch.testing.assert_close(got['training'],
                                   [torch.arange(k, n + 1., dtype=f64),
                                    torch.tensor(want, dtype=f64)], rtol=1e-5, atol=0)
        torch.testing.assert_close(got['validation'],
                                   [torch.tensor([n//2, n//2*2.], dtype=f64),
                                    torch.tensor([2., 3.], dtype=f64)])
        assert [t.get_text() for t in ax.get_legend().get_texts()] == [f'training, mean of {k}', 'validation']
        assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_ylim()[0]) == ('step', 'loss', 0)
    # one new without an axes
    assert len(plt.get_fignums()) == 5


def test_no_bar_in_a_log(capfd):
    for kw in (dict(), dict(progress=True), dict(progress=False)): losses_of(net(), **kw)
    out, err = capfd.readouterr()
    assert err == '' and all(line.startswith('epoch ') for line in out.splitlines())
    assert out.count('\n') == 6 and '\r' not in out


def shown(text):
    "What stands on the terminal's last line when `text` was written"
    line = []
    for c in text.rpartition('\n')[2]:
        if c == '\r': at = 0
        else:
            line[at:at + 1] = [c]
            at += 1
    return ''.join(line)


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    fcntl, pty, termios = (pytest.importorskip(name, reason='no terminals like these here')
                           for name in ('fcntl', 'pty', 'termios'))
    def on_a_terminal(**kw):
        ours, theirs = pty.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
        with open(theirs, 'w', encoding='utf-8') as terminal:
            monkeypatch.setattr(sys, 'stderr', terminal)
            monkeypatch.setenv('TQDM_DISABLE', '')
            # the bar waits a second
            monkeypatch.setattr('tqdm.std.time', itertools.count(step=2).__next__)
            try: losses_of(net(), **kw)
            finally: monkeypatch.undo()
            terminal.flush()
            said = b''
            # in pieces, as they come
            while select.select([ours], [], [], .2)[0]: said += os.read(ours, 4096)
            os.close(ours)
        return said.decode()
    text = on_a_terminal()
    assert 'epoch 1 of 2' in text and 'epoch 2 of 2' in text and '1/5' in text and '%' in text
    assert shown('\r' + text).strip() == '' and '\n' not in text
    # of unknown length
    assert 'epoch 1 of 2: 1it' in on_a_terminal(loaders=(Source(list(dls()[0]), None), dls()[1]))
    assert on_a_terminal(progress=False) == ''
    assert capsys.readouterr().out.count('\n') == 6


# ---- the same numbers again

SEEDED = """
import random, numpy as np, torch
import torch.nn.functional as F
from torch import nn
from backprop13.fitting import *
class Shifted(Dataset):
    def __getitem__(self, i): return self.x[i] + random.random() + np.random.rand() + torch.rand(()), self.y[i]
def run(seed):
    set_seed(seed)
    ds, model, history = Shifted(torch.rand(40, 6), torch.arange(40) % 3), nn.Sequential(nn.Linear(6, 5), nn.Dropout(), nn.Linear(5, 3)), History()
    fit(2, model, F.cross_entropy, SGD(model.parameters(), .5), *get_dls(ds, ds, 8), history=history)
    print(*(x.hex() for x in history.losses), random.random(), np.random.rand(), torch.rand(()).item())
for seed in 1, 1, 2: run(seed)
"""

def test_set_seed_repeats_a_run():
    a, b = (python(SEEDED, env={**os.environ, 'PYTHONHASHSEED': seed}) for seed in '12')
    one, again, other = (line for line in a.splitlines() if not line.startswith('epoch'))
    assert a == b and one == again != other and not {*one.split()} & {*other.split()}


# ---- weights in files

def test_weights_there_and_back(tmp_path):
    model = normed()
    losses_of(model)
    save_weights(model, tmp_path/'a'/'w.safetensors')                               # makes the folder
    back = normed(1)
    load_weights(back, str(tmp_path/'a'/'w.safetensors'))
    assert same(back, state(model)) and back.state_dict()['1.num_batches_tracked'] == 10
    assert os.listdir(tmp_path/'a') == ['w.safetensors']
    assert all(p.requires_grad and p.grad is None for p in back.parameters())
    losses_of(back)


def test_weights_from_one_kind_into_the_other(tmp_path):
    model, file = net(), tmp_path/'w'
    ours = by_hand(net(1))
    save_weights(model, file)
    load_weights(ours, file)
    # the layers' own, too
    assert same(ours, state(model)) and ours(train.x).equal(model(train.x).detach())
    losses_of(ours, CrossEntropy())
    save_weights(ours, file)
    load_weights(model, file)
    assert same(model, state(ours)) and not same(model, state(net()))


def test_tied_and_turned_weights(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.t = nn.Parameter(torch.arange(6.).view(2, 3).t())
            self.register_buffer('every_other', torch.arange(8.)[::2])
    models = Tied(), Tied()
    assert not models[0].t.is_contiguous()
    with torch.no_grad(): models[1].t.zero_()
    save_weights(models[0], tmp_path/'w')
    load_weights(models[1], tmp_path/'w')
    assert same(models[1], state(models[0])) and models[1].b.weight is models[1].a.weight


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    model, file = net(), tmp_path/'w'
    save_weights(model, file)
    was = file.read_bytes()
    for name in ('os.replace', 'safetensors.torch.save'):
        with monkeypatch.context() as m:
            def fails(*args, **kw): raise OSError('No space left on device')
            m.setattr(name, fails)
            assert 'No space left' in said(OSError, save_weights, net(1), file)
    assert file.read_bytes() == was and os.listdir(tmp_path) == ['w']


class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (str(self.path), 'w')


def test_files_that_are_no_weights(tmp_path):
    file, good = tmp_path/'w', net()
    save_weights(good, file)
    whole = file.read_bytes()
    model, bad = net(1), tmp_path/'bad'
    was = state(model)
    evil = pickle.dumps(Evil(tmp_path/'harm'))
    for text in (b'', b'x', evil, whole[:-1], whole[:len(whole)//2], whole[:4], whole + b'x',
                 struct.pack('<Q', 1 << 60) + whole[8:]):
        bad.write_bytes(text)
        assert f'{bad} is no safetensors file (' in said(ValueError, load_weights, model, bad)
    torch.save({'0.w': Evil(tmp_path/'harm')}, bad)
    assert 'no safetensors file' in said(ValueError, load_weights, model, bad)
    assert not (tmp_path/'harm').exists()
    assert str(tmp_path/'none') in said(FileNotFoundError, load_weights, model, tmp_path/'none')
    assert same(model, was)
    pickle.loads(evil).close()
    assert (tmp_path/'harm').exists()                                               # it would have done harm


def test_loading_asks_no_pickle(tmp_path, monkeypatch):
    save_weights(net(), tmp_path/'w')
    def refuse(*args, **kw): raise AssertionError('pickle was asked')
    for name in ('pickle.load', 'pickle.loads', 'pickle.Unpickler', 'torch.load'):
        monkeypatch.setattr(name, refuse)
    load_weights(model := net(1), tmp_path/'w')
    assert same(model, state(net()))


def test_weights_of_another_model(tmp_path):
    save_weights(net(), tmp_path/'w')
    g = torch.Generator().manual_seed(0)
    for layers in ((Linear(M, NH + 1, g), nn.ReLU(), Linear(NH + 1, C, g)),
                   (Linear(M, NH, g), Linear(NH, C, g)), (Linear(M, NH, g),),
                   (*net(), Linear(C, C, g))):
        other = nn.Sequential(*layers).double()
        for other in (other, by_hand(other)):
            was = state(other)
            text = said(ValueError, load_weights, other, tmp_path/'w')
            assert str(tmp_path/'w') in text and "'0.w': (6, 5, torch.float64)" in text
            assert 'but the model has' in text
            assert same(other, was)


def test_weights_of_another_dtype(tmp_path):
    save_weights(net(), tmp_path/'w')
    model = net(1, torch.float32)
    was = state(model)
    assert 'float32' in said(ValueError, load_weights, model, tmp_path/'w') and same(model, was)


# ---- our layers, one after another

def lin_layer(n, m, seed):
    g = torch.Generator().manual_seed(seed)
    return Lin(torch.randn(n, m, generator=g, dtype=f64), torch.randn(m, generator=g, dtype=f64))


def twin(layer, made=None):
    "The same in PyTorch, by Linear; a layer used twice stays one"
    made = {} if made is None else made
    if id(layer) not in made:
        if isinstance(layer, Sequential): new = nn.Sequential(*(twin(q, made) for q in layer.layers))
        elif isinstance(layer, Relu): new = nn.ReLU()
        else:
            new = Linear(*layer.w.shape).double()
            with torch.no_grad(): new.w.copy_(layer.w), new.b.copy_(layer.b)
        made[id(layer)] = new
    return made[id(layer)]


def plain_net(): return Sequential(lin_layer(M, NH, 1), Relu(), lin_layer(NH, C, 2))

def shared_net():
    again = lin_layer(NH, NH, 2)
    return Sequential(lin_layer(M, NH, 1), again, Relu(), again, Relu(), lin_layer(NH, C, 3))

def nested_net():
    again = lin_layer(NH, NH, 2)
    return Sequential(lin_layer(M, NH, 1), Sequential(Relu(), again, Sequential(Relu(), again)),
                      lin_layer(NH, C, 3))

def block_twice():
    block = Sequential(lin_layer(M, M, 1), Relu())
    return Sequential(block, block, lin_layer(M, C, 3))

@pytest.mark.parametrize('make', [plain_net, shared_net, nested_net, block_twice])
def test_slopes_are_autograds(make):
    ours = make()
    theirs, loss = twin(ours), CrossEntropy()
    for xb, yb in batches_of(train)[:2]:
        # the second adds to the first
        got = loss(ours(xb), yb)
        loss.backward()
        ours.backward()
        want = F.cross_entropy(theirs(xb), yb)
        want.backward()
        torch.testing.assert_close(got, want.detach(), rtol=1e-12, atol=0)
        check_grads({str(i): p.grad for i, p in enumerate(ours.parameters())},
                    {str(i): p.grad for i, p in enumerate(theirs.parameters())}, 1e-10)


@pytest.mark.parametrize('make', [plain_net, shared_net, nested_net])
def test_names_and_parameters(make):
    ours = make()
    theirs = twin(ours)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    for (k, a), b in zip(ours.state_dict().items(), theirs.state_dict().values()): assert a.equal(b), k
    mine = ours.parameters()
    assert len(mine) == len({id(t) for t in mine}) == len([*theirs.parameters()])
    ours(train.x)
    # outputs are no weights
    assert [*Sequential(*ours.layers).state_dict()] == [*theirs.state_dict()]
    ours.to('cpu')
    assert all(a is b for a, b in zip(ours.parameters(), mine))


def test_it_moves_where_it_is():
    """To another dtype here, since there may be no other device: the tensors that the optimizer
    and the layers hold are the same ones."""
    ours = plain_net()
    params = ours.parameters()
    ours.to(torch.float32)
    assert all(a is b and a.dtype == torch.float32 for a, b in zip(ours.parameters(), params))
    assert ours.layers[0].w is params[0]


def test_a_layer_of_your_own_trains():
    class Sigmoid(Module):
        def forward(self, inp): return 1/(1 + (-inp).exp())
        def bwd(self, out, inp): inp.g = out.g*out*(1 - out)
    ours, theirs = plain_net(), twin(plain_net())
    ours, theirs = Sequential(ours.layers[0], Sigmoid(), ours.layers[2]), nn.Sequential(theirs[0],
        nn.Sigmoid(), theirs[2])
    torch.testing.assert_close(losses_of(ours, CrossEntropy()), losses_of(theirs), rtol=1e-10, atol=0)


def test_another_loss_trains():
    model, y = net(), train.x[:, :C]
    loaders = [(train.x, y)], [(valid.x, valid.y)]
    ours = by_hand(model)
    def squares(preds, yb): return F.mse_loss(preds, yb if yb.ndim == 2 else F.one_hot(yb, C).double())
    class Squares(Mse):
        def forward(self, preds, yb):
            return super().forward(preds, yb if yb.ndim == 2 else F.one_hot(yb, C).double())
    want = losses_of(model, squares, epochs=4, loaders=loaders)
    assert losses_of(ours, Squares(), epochs=4, loaders=loaders) == pytest.approx(want,
        rel=1e-10) and want[-1] < want[0]


def test_by_hand():
    model = net()
    ours = by_hand(model)
    assert [type(q) for q in ours.layers] == [Lin, Relu, Lin] and same(ours, state(model))
    assert not any(t.requires_grad for t in ours.parameters())
    losses_of(ours, CrossEntropy())
    assert same(model, state(net()))                                                # copies
    assert ours.parameters()[0].dtype == f64
    for layer in (nn.Sigmoid(), nn.Linear(2, 2), nn.Sequential(nn.ReLU())):
        assert f'got {type(layer).__name__}, wanted Linear or nn.ReLU' in said(TypeError, by_hand,
            nn.Sequential(layer))


def test_by_hand_keeps_a_shared_layer_one():
    again = Linear(M, M).double()
    model = nn.Sequential(again, nn.ReLU(), again)
    assert len(by_hand(model).parameters()) == len([*model.parameters()])
