"The ledger: every derivative agrees four ways, and every operation has a row. What it must see: test_instruments."
import pytest

from backprop13.support import derivatives as d
from backprop13.support import ledger
from backprop13.support.checks import DIFFERENCE_TOLERANCE
from backprop13.support.ledger import ENTRIES, compare, without_row


@pytest.mark.parametrize('name', ENTRIES)
def test_four_ways_agree(name):
    for row in compare(name).values():
        assert row['formula'] < 1e-9 and row['autograd'] < 1e-9 and row['differences'] < DIFFERENCE_TOLERANCE


def test_every_operation_has_a_row():
    assert without_row() == [] and ENTRIES.keys() == d.OPERATIONS.keys()
    assert all(entry.ours for entry in ENTRIES.values())
    assert {name for name, m in ledger.modules().items() if ledger.is_chapter(m)} >= {'matmul', 'backprop',
        'minibatch'}
    for op in d.OPERATIONS.values(): assert set(op.given) <= {d.t, d.y}              # all else has a gradient
