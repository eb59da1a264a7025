"The losses against PyTorch's, and their errors. The mistakes that a check must find are in test_mutants.py."
import pytest, torch
import torch.nn.functional as F

from backprop13.backprop import Model
from backprop13.checks import autograd_grads, check_grads
from backprop13.training import CrossEntropy, accuracy, cross_entropy, largest, log_softmax, logsumexp, nll, report, softmax

inf = float('inf')
g = torch.Generator().manual_seed(0)
cases = [torch.randn(5, 5, generator=g, dtype=torch.float64), torch.randn(1, 3, generator=g), torch.randn(4, 1, generator=g),
         torch.tensor([[1e4, -1e4, 0.]]), torch.tensor([[-1e4, -1e4]]), torch.tensor([[800., 0., -800.]], dtype=torch.float64), torch.tensor([[0., -inf, 3.]])]


def test_log_softmax():
    for x in cases: torch.testing.assert_close(log_softmax(x), F.log_softmax(x, -1))


def test_softmax():
    for x in cases:
        torch.testing.assert_close(softmax(x), F.softmax(x, -1))
        torch.testing.assert_close(softmax(x).sum(-1), torch.ones_like(x[..., 0]))


def test_logsumexp():
    for x in [*cases, torch.tensor([-inf, -inf]), torch.tensor([inf, 0.]), torch.zeros(2, 3, 4), torch.tensor([[float('nan'), 0.]])]:
        torch.testing.assert_close(logsumexp(x), torch.logsumexp(x, -1), equal_nan=True)


@pytest.mark.parametrize('f', [logsumexp, log_softmax, softmax])
def test_bad_scores(f):
    for x in (torch.tensor([[1, 2]]), torch.tensor([[1, 2]], dtype=torch.uint8), torch.tensor([True, False])):
        with pytest.raises(TypeError, match='wanted floating point; pass x.float'): f(x)
    for x in (torch.zeros(3, 0), torch.tensor(1.)):
        with pytest.raises(ValueError, match='wanted entries on the last axis'): f(x)


def test_the_largest_is_a_constant():
    x = torch.randn(3, 4, requires_grad=True)
    assert not largest(x).requires_grad and logsumexp(x).requires_grad


def test_cross_entropy():
    for x in cases[:3]:
        targ = torch.arange(len(x)) % x.shape[1]
        torch.testing.assert_close(cross_entropy(x, targ), F.cross_entropy(x, targ))


def test_gradient():
    x, targ = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 0])
    loss = CrossEntropy()
    loss(x, targ)
    loss.backward()
    check_grads({'x': x.g}, autograd_grads(lambda x: F.cross_entropy(x, targ), x=x))


def test_the_model_trains_with_it():
    "`Model` takes another loss; labels may be bytes; its gradients add up."
    g = torch.Generator().manual_seed(0)
    x, w1, w2 = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((6, 4), (4, 3), (3, 5)))
    b1, b2, targ = torch.zeros(3).double(), torch.zeros(5).double(), torch.tensor([0, 4, 2, 2, 1, 3], dtype=torch.uint8)
    model = Model(w1, b1, w2, b2, loss=CrossEntropy())
    loss = model(x, targ)
    model.backward()
    def f(x, w1, b1, w2, b2): return F.cross_entropy((x @ w1 + b1).relu() @ w2 + b2, targ.long())
    want = autograd_grads(f, x=x, w1=w1, b1=b1, w2=w2, b2=b2)
    got = dict(x=x, w1=w1, b1=b1, w2=w2, b2=b2)
    check_grads({k: t.g for k, t in got.items()}, want)
    torch.testing.assert_close(loss, f(**got))
    model.loss.backward()
    want = autograd_grads(lambda preds: F.cross_entropy(preds, targ.long()), preds=model.preds)      # what was passed on starts anew
    check_grads({'preds': model.preds.g}, want)


@pytest.mark.parametrize('f', [cross_entropy, nll])
@pytest.mark.parametrize('x,targ,error,message', [
    (torch.zeros(3, 4), torch.zeros(3), TypeError, 'pass targ.long()'),
    (torch.zeros(3, 4), torch.tensor([True, False, True]), TypeError, 'pass targ.long()'),
    (torch.zeros(3, 4), torch.tensor([0, 1, 4]), ValueError, 'labels go from 0 to 4, but 4 columns allow 0 to 3'),
    (torch.zeros(3, 4), torch.tensor([0, 1, -1]), ValueError, 'labels go from -1 to 1'),
    (torch.zeros(0, 4), torch.zeros(0).long(), ValueError, 'empty batch'),
    (torch.zeros(3, 4), torch.tensor([0, 1]), ValueError, 'scores (3, 4) and labels (2,)'),
    (torch.zeros(4), torch.tensor(1), ValueError, 'wanted (n, c) and (n,)'),
    (torch.zeros(3, 4, 2), torch.tensor([0, 1, 2]), ValueError, 'wanted (n, c) and (n,)')])
def test_bad_labels(f, x, targ, error, message):
    with pytest.raises(error) as e: f(x, targ)
    assert message in str(e.value)


def test_accuracy(capsys):
    out, yb = torch.tensor([[0., 1.], [1., 0.], [5., 6.]]), torch.tensor([1, 1, 1])
    assert accuracy(out, yb).item() == pytest.approx(2/3)
    report(torch.tensor(.5), out, yb)
    assert capsys.readouterr().out == 'loss 0.50, accuracy 0.67\n'
    for bad_out, bad_y in [(out, yb[:, None]), (out, yb[:2]), (out[:, 0], yb), (out[:0], yb[:0]), (out, torch.tensor(1))]:
        with pytest.raises(ValueError, match='accuracy: got scores'): accuracy(bad_out, bad_y)
    with pytest.raises(TypeError, match='accuracy: labels are torch.float32'): accuracy(out, yb.float())
