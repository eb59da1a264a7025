"""The matrix product and the broadcasting rule: right on every shape, clear where shapes do not
fit; every check has its mutants."""
import random

import pytest, torch

from backprop13.support.checks import TOLERANCE, check_close
from backprop13.matmul import broadcast_shape, matmul

# (n, m, k)
edges = [(1, 1, 1), (1, 5, 3), (7, 1, 3), (7, 5, 1), (4, 4, 4), (0, 3, 2), (3, 0, 2), (3, 2, 0), (64, 784, 50)]
dtypes = [torch.float16, torch.float32, torch.float64, torch.int64]


def summed(a, b):
    "The product by its definition: every product of two numbers, in float64, then the sums"
    return (a.double()[:, :, None]*b.double()).sum(1).to(a.dtype)


def right_products(f):
    "`f` multiplies matrices of every shape and dtype, also turned and sliced ones, and leaves its inputs alone"
    g, r = torch.Generator().manual_seed(0), random.Random(0)
    for n, m, k in edges + [[r.randint(1, 12) for _ in range(3)] for _ in range(20)]:
        for dtype in dtypes:
            # exact in every dtype
            a, b = (torch.randint(-4, 5, s, generator=g).to(dtype) for s in ((n, m), (m, k)))
            for x, y in (a, b), (b.t(), a.t()), (a[:, ::2], b[::2]):
                before = x.clone(), y.clone()
                out = f(x, y)
                assert (out.shape, out.dtype) == ((len(x), y.shape[1]), dtype)
                assert torch.equal(out, summed(x, y)) and torch.equal(x, before[0])
                assert torch.equal(y, before[1])
        for dtype in TOLERANCE:
            a, b = (torch.randn(s, generator=g, dtype=dtype) for s in ((n, m), (m, k)))
            if n*k: check_close(f(a, b), summed(a, b), 'product')


def differentiable(f):
    "Autograd goes through `f`"
    a, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (4, 2)))
    assert torch.autograd.gradcheck(f, (a, b))


t = torch.ones
refused = [     # what is passed, the error, and its message: what was got, what was wanted, how to mend it
    (t(3, 4), t(5, 4), ValueError,
     'matmul: a (3, 4) and b (5, 4) do not fit: 4 columns, 5 rows; matmul(a, b.t()) would fit'),
    (t(3, 4), t(3, 5), ValueError,
     'matmul: a (3, 4) and b (3, 5) do not fit: 4 columns, 3 rows; matmul(a.t(), b) would fit'),
    (t(3, 4), t(5, 3), ValueError,
     'matmul: a (3, 4) and b (5, 3) do not fit: 4 columns, 5 rows; matmul(b, a) would fit'),
    (t(3, 4), t(3, 4), ValueError, 'matmul: a (3, 4) and b (3, 4) do not fit: 4 columns, 3 rows; '
                                   'matmul(a, b.t()) or matmul(a.t(), b) would fit'),
    (t(3, 4), t(5, 6), ValueError,
     'matmul: a (3, 4) and b (5, 6) do not fit: 4 columns, 5 rows; pass b with 4 rows'),
    (t(3, 4), t(1, 4), ValueError,
     'matmul: a (3, 4) and b (1, 4) do not fit: 4 columns, 1 rows; matmul(a, b.t()) would fit'),
    (t(4), t(4, 2), ValueError, 'matmul: a is (4,), wanted two axes; a[None, :] is a row'),
    (t(3, 4), t(4), ValueError, 'matmul: b is (4,), wanted two axes; b[:, None] is a column'),
    (t(()), t(4, 2), ValueError, 'matmul: a is (), wanted two axes; a number multiplies with *'),
    (t(3, 4), t(1, 4, 2), ValueError,
     'matmul: b is (1, 4, 2), wanted two axes; torch.matmul takes stacks of matrices'),
    (t(3, 4), t(4, 2).double(), TypeError,
     'matmul: a is torch.float32 and b torch.float64, wanted the same; pass a.to(torch.float64)'),
    (t(3, 4), t(4, 2).long(), TypeError,
     'matmul: a is torch.float32 and b torch.int64, wanted the same; pass b.to(torch.float32)')]


def clear_refusals(f):
    "`f` refuses what doesn't fit, and the mend that it names works"
    for a, b, error, message in refused:
        with pytest.raises(error) as e: f(a, b)
        assert str(e.value) == message
        if 'would fit' in message:
            for mend in message.split('; ')[1].removesuffix(' would fit').split(' or '):
                assert eval(mend, dict(matmul=f, a=a, b=b)).ndim == 2


def product_checks(f):
    for check in right_products, differentiable, clear_refusals: check(f)


def last_place(a, b): return matmul(a[:, :-1], b[:-1]) if a.shape[1:] == b.shape[:1] else matmul(a, b)
def swapped(a, b): return matmul(b.t(), a.t())
def in_float(a, b): return matmul(a.float(), b.float())
def whole(a, b): return matmul(a.round(), b.round()) if a.is_floating_point() else matmul(a, b)
def constant(a, b): return matmul(a, b).detach()

def test_matmul(): product_checks(matmul)

@pytest.mark.parametrize('check,mutant', [
    (right_products, last_place), (right_products, swapped), (right_products, in_float),
    (right_products, whole),
    (differentiable, constant), (clear_refusals, torch.matmul), (clear_refusals, in_float)])
def test_a_wrong_product_is_caught(check, mutant):
    with pytest.raises((AssertionError, RuntimeError, ValueError, pytest.fail.Exception)): check(mutant)


# ---- broadcasting

def test_broadcast_shape():
    assert broadcast_shape((10000, 1), (10000,)) == (10000, 10000)
    with pytest.raises(ValueError) as e: broadcast_shape((7, 2, 5), (3, 1))
    assert str(e.value) == ('broadcast_shape: (7, 2, 5) and (3, 1) do not broadcast: axis -2 is 2 and 3; '
                            'make the two equal, or one of them 1 (t[:, None] adds a unit axis at '
                            'the end of a vector)')
