"The ledger: every derivative agrees four ways, every operation has a row, and a mistake in either is found."
from types import SimpleNamespace

import pytest, sympy as sp

from backprop13.support import derivatives as d
from backprop13.support import ledger
from backprop13.backprop import Lin, Module, Relu, add_grad
from backprop13.support.checks import DIFFERENCE_TOLERANCE
from backprop13.support.ledger import ENTRIES, WAYS, by, compare, without_row, worst_of


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


def test_a_layer_whose_name_is_excused_needs_a_row():
    class report(Module):
        def bwd(self, out, inp): pass
    for module in 'data', 'fit':
        assert without_row({module: SimpleNamespace(__all__=['report'], report=report)}) == [f'{module}.report']


# Mistakes in a backward pass: (operation, the class, the letter whose gradient is wrong)
class NoTranspose(Lin):
    def bwd(self, out, inp):
        super().bwd(out, inp)
        if len(self.w) == len(self.b): inp.g = out.g @ self.w
class OtherSign(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.w.g = -self.w.g
class Mean(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.b.g = out.g.mean(0)
class NoGate(Relu):
    def bwd(self, out, inp): add_grad(inp, out.g)
class NoSum(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.b.g = out.g
class Single(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.w.g = self.w.g.float()

def compared(name, wrong): return compare(name, ENTRIES[name]._replace(ours={'wrong': by(wrong)}))

@pytest.mark.parametrize('name,wrong,letter', [
    ('lin', NoTranspose, 'x'), ('lin', OtherSign, 'w'), ('lin', Mean, 'b'), ('relu', NoGate, 'x')])
def test_a_wrong_backward_pass_is_found(name, wrong, letter):
    for (_, q), row in compared(name, wrong).items():
        for way in WAYS: assert (row[way] > .1) == (q == letter), (q, way)


@pytest.mark.parametrize('wrong,message', [(NoSum, 'got shape'), (Single, 'got dtype')])
def test_a_shape_or_dtype_is_never_forgiven(wrong, message):
    with pytest.raises(AssertionError, match=message): compared('lin', wrong)


def test_a_wrong_formula_is_found():
    op = d.OPERATIONS['lin']
    wrong = compare('lin', op=op._replace(out=d.b[d.k] + sp.Sum(2*d.x[d.i, d.j]*d.w[d.j, d.k], (d.j, 1, d.m))))
    assert worst_of(wrong, d.w)['formula'] > .1 > 1e-9 > worst_of(wrong, d.b)['formula']
