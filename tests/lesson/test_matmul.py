"""What the matrix product and the broadcasting rule say of shapes that do not fit, and that their mends work. That they
are right: their cards, and test_numerics."""
import pytest, torch

from backprop13.matmul import broadcast_shape, matmul

t = torch.ones
REFUSED = [     # what is passed, the error, its message behind 'matmul: '
    (t(3, 4), t(5, 4), ValueError, 'a (3, 4) and b (5, 4) do not fit: 4 columns, 5 rows; matmul(a, b.t()) would fit'),
    (t(3, 4), t(3, 5), ValueError, 'a (3, 4) and b (3, 5) do not fit: 4 columns, 3 rows; matmul(a.t(), b) would fit'),
    (t(3, 4), t(5, 3), ValueError, 'a (3, 4) and b (5, 3) do not fit: 4 columns, 5 rows; matmul(b, a) would fit'),
    (t(3, 4), t(3, 4), ValueError,
     'a (3, 4) and b (3, 4) do not fit: 4 columns, 3 rows; matmul(a, b.t()) or matmul(a.t(), b) would fit'),
    (t(3, 4), t(5, 6), ValueError, 'a (3, 4) and b (5, 6) do not fit: 4 columns, 5 rows; pass b with 4 rows'),
    (t(3, 4), t(1, 4), ValueError, 'a (3, 4) and b (1, 4) do not fit: 4 columns, 1 rows; matmul(a, b.t()) would fit'),
    (t(4), t(4, 2), ValueError, 'a is (4,), wanted two axes; a[None, :] is a row'),
    (t(3, 4), t(4), ValueError, 'b is (4,), wanted two axes; b[:, None] is a column'),
    (t(()), t(4, 2), ValueError, 'a is (), wanted two axes; a number multiplies with *'),
    (t(3, 4), t(1, 4, 2), ValueError, 'b is (1, 4, 2), wanted two axes; torch.matmul takes stacks of matrices'),
    (t(3, 4), t(4, 2).double(), TypeError,
     'a is torch.float32 and b torch.float64, wanted the same; pass a.to(torch.float64)'),
    (t(3, 4), t(4, 2).long(), TypeError,
     'a is torch.float32 and b torch.int64, wanted the same; pass b.to(torch.float32)')]


@pytest.mark.parametrize('a,b,error,message', REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_a_refusal_names_a_mend_that_works(a, b, error, message):
    with pytest.raises(error) as e: matmul(a, b)
    assert str(e.value) == f'matmul: {message}'
    if 'would fit' in message:
        for mend in message.split('; ')[1].removesuffix(' would fit').split(' or '):
            assert eval(mend, dict(matmul=matmul, a=a, b=b)).ndim == 2


def test_broadcast_shape():
    with pytest.raises(ValueError) as e: broadcast_shape((7, 2, 5), (3, 1))
    assert str(e.value) == ('broadcast_shape: (7, 2, 5) and (3, 1) do not broadcast: axis -2 is 2 and 3; make the two '
                            'equal, or one of them 1 (t[:, None] adds a unit axis at the end of a vector)')
