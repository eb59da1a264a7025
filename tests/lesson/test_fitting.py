"""`fit` and its neighbours: programs, signals, PyTorch's optimizers, a GPU, and what else their cards don't hold."""
import math, os, pickle, signal, struct, subprocess, sys, textwrap
from collections import namedtuple

import numpy as np
import pytest, torch
import torch.nn.functional as F
from torch import nn

from backprop13.backprop import Linear, Module
from backprop13.fitting import (SGD, BatchSampler, DataLoader, Dataset, Epoch, History, Sequential, by_hand,
                                evaluate, fit, load_weights, save_weights, to_device)
from backprop13.training import CrossEntropy, cross_entropy

f64, nan = torch.float64, float('nan')
M, NH, C, BS = 6, 5, 3, 8


def data(n, seed=0, dtype=f64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, M, generator=g, dtype=dtype)
    return Dataset(x, (x[:, :C] + torch.randn(n, C, generator=g, dtype=dtype)).argmax(1))


def net(seed=0, dtype=f64, *more):
    g = torch.Generator().manual_seed(seed)
    return nn.Sequential(Linear(M, NH, g), nn.ReLU(), Linear(NH, C, g), *more).to(dtype)


def loaders(train=data(36), valid=data(11, 1), bs=BS): return DataLoader(train, bs), DataLoader(valid, BS)


def losses_of(model, loss_func=F.cross_entropy, opt=None, epochs=2, dls=None, history=None, **kw):
    "The training losses of a run of `fit`"
    history = history or History()
    fit(epochs, model, loss_func, opt or SGD(model.parameters(), .5), *(dls or loaders()), history=history, **kw)
    return history.losses


def state(model): return {k: t.detach().clone() for k, t in model.state_dict().items()}

def same(model, want):
    got = model.state_dict()
    return got.keys() == want.keys() and all(got[k].equal(t) for k, t in want.items())


def test_numpys_whole_numbers_will_do():
    assert list(BatchSampler(range(5), np.int64(5))) == [list(range(5))]
    assert len(losses_of(net(), epochs=np.int64(2))) == 10


# ---- the ladder

@pytest.mark.parametrize('bs', [BS, 36, 1])
def test_fit_is_the_loop_bit_for_bit(bs):
    train, model = data(36, dtype=torch.float32), net(dtype=torch.float32)
    w1, b1, w2, b2 = ws = [p.detach().clone().requires_grad_() for p in model.parameters()]
    want = []
    for xb, yb in list(zip(train.x.split(bs), train.y.split(bs)))*3:
        loss = cross_entropy((xb @ w1 + b1).relu() @ w2 + b2, yb)
        with torch.no_grad():
            for w, g in zip(ws, torch.autograd.grad(loss, ws)): w -= .5*g
        want.append(loss.item())
    assert losses_of(model, cross_entropy, epochs=3, dls=loaders(train, train, bs)) == want
    assert all(map(torch.equal, model.parameters(), ws))


OPTIMIZERS = dict(ours=lambda p: SGD(p, .5),
                  momentum=lambda p: torch.optim.SGD(p, .1, momentum=.9, weight_decay=.01),
                  nesterov=lambda p: torch.optim.SGD(p, .1, momentum=.9, nesterov=True),
                  adam=lambda p: torch.optim.Adam(p, .01))

@pytest.mark.parametrize('name', OPTIMIZERS)
def test_by_hand_is_autograds_run(name):
    model = net()
    ours = by_hand(model)
    want = losses_of(model, cross_entropy, OPTIMIZERS[name](model.parameters()), 6)
    with torch.no_grad(): got = losses_of(ours, CrossEntropy(), OPTIMIZERS[name](ours.parameters()), 6)
    assert want[-1] < .9*want[0] and not any(t.requires_grad for t in ours.parameters())
    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)
    torch.testing.assert_close(ours.state_dict(), state(model), rtol=1e-9, atol=1e-12)


# ---- notebooks that others wrote

def python(program):
    "What a fresh Python says"
    r = subprocess.run([sys.executable, '-c', textwrap.dedent(program)], capture_output=True, text=True, timeout=100)
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

@pytest.mark.parametrize('module', ['training', 'fitting'])
def test_other_peoples_notebooks(module):
    lines = python(LESSON.replace('MODULE', module)).splitlines()
    assert [line.split()[0] for line in lines] == ['epoch', 'epoch', 'loss', 'epoch', 'accuracy'], lines


# ---- stopped, and refused

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


@pytest.mark.parametrize('make', [lambda: (net(0, f64, nn.BatchNorm1d(C)), F.cross_entropy),
                                  lambda: (by_hand(net()), CrossEntropy())])
@pytest.mark.parametrize('k,where', [(0, 'epoch 1 of 2, batch 0'), (36, 'the validation after epoch 1 of 2')])
def test_nan_in_the_first_batch_and_in_validation(make, k, where):
    "The weights go back, if need be to the start; the history has what was finite; and it can go on"
    (model, loss_func), (train, valid), history = make(), (data(36), data(11, 1)), History()
    start, ds = state(model), train if k < 36 else valid
    ds.x[0] = nan
    with pytest.raises(FloatingPointError, match=f'the loss became nan in {where}. Training stopped.*lower the'):
        losses_of(model, loss_func, dls=loaders(train, valid), history=history)
    assert len(history.losses) == (5 if k else 0) and history.epochs == [] and same(model, start) == (not k)
    losses_of(model, loss_func, history=history)
    assert all(t.isfinite().all() for t in model.state_dict().values()) and len(history.epochs) == 2


def test_what_evaluate_refuses():
    model, dl = net(), loaders()[1]
    with pytest.raises(ValueError, match='wanted a tensor of one number'):
        evaluate(model, nn.CrossEntropyLoss(reduction='none'), dl)
    model.forward = lambda x: None
    with pytest.raises(TypeError, match='the model gave NoneType, wanted a tensor'):
        evaluate(model, F.cross_entropy, dl)


# ---- devices

def test_named_tuples_to_a_device():
    Pair = namedtuple('Pair', 'x y')
    got = to_device(Pair(torch.ones(2), torch.ones(3)), 'meta')
    assert type(got) is Pair and got.y.device.type == 'meta'


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


# ---- the plot

def test_the_plots_mean_is_no_longer_than_an_epoch():
    plt = pytest.importorskip('matplotlib.pyplot')
    plt.switch_backend('agg')
    history = History()
    history.losses = [math.cos(i) + 2 for i in range(60)]
    history.epochs = [Epoch(1., 2., .5, 1., 30), Epoch(1., 3., .5, 1., 60)]
    ax = history.plot()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ['training, mean of 30', 'validation']
    assert ax.lines[0].get_ydata()[0] == pytest.approx(sum(history.losses[:30])/30)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_ylim()[0]) == ('step', 'loss', 0)
    plt.close('all')


# ---- weights in files

class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (str(self.path), 'w')


def test_files_that_are_no_weights(tmp_path, monkeypatch):
    "What they would run as pickles isn't run, and no pickle is asked"
    good, bad, harm, model = tmp_path/'good', tmp_path/'bad', tmp_path/'harm', net(1)
    save_weights(net(), good)
    whole, was, evil = good.read_bytes(), state(model), pickle.dumps(Evil(harm))
    torch.save({'0.w': Evil(harm)}, bad)
    for text in (bad.read_bytes(), b'x', evil, whole[:len(whole)//2], whole[:4], whole + b'x',
                 struct.pack('<Q', 1 << 60) + whole[8:]):
        bad.write_bytes(text)
        with pytest.raises(ValueError, match=rf'{bad} is no safetensors file \('): load_weights(model, bad)
    with pytest.raises(FileNotFoundError, match=str(tmp_path/'none')): load_weights(model, tmp_path/'none')
    assert same(model, was) and not harm.exists()
    pickle.loads(evil).close()
    assert harm.exists()                                               # it would have done harm
    def refuse(*args, **kw): raise AssertionError('pickle was asked')
    for name in ('pickle.load', 'pickle.loads', 'pickle.Unpickler', 'torch.load'): monkeypatch.setattr(name, refuse)
    load_weights(model, str(good))
    assert same(model, state(net()))


# ---- our layers, one after another

def test_a_layer_of_your_own_trains():
    class Sigmoid(Module):
        def forward(self, inp): return 1/(1 + (-inp).exp())
        def bwd(self, out, inp): inp.g = out.g*out*(1 - out)
    theirs = nn.Sequential(net()[0], nn.Sigmoid(), net()[2])
    a, _, b = by_hand(net()).layers
    torch.testing.assert_close(losses_of(Sequential(a, Sigmoid(), b), CrossEntropy()), losses_of(theirs),
                               rtol=1e-10, atol=0)


def test_by_hand_keeps_a_shared_layer_one():
    again = Linear(M, M).double()
    model = nn.Sequential(again, nn.ReLU(), again)
    assert len(by_hand(model).parameters()) == len([*model.parameters()])
