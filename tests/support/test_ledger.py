"The ledger: every derivative agrees four ways, every operation has a row, and a mistake in either is found."
from types import SimpleNamespace

import pytest, sympy as sp, torch
import torch.nn.functional as F

from backprop13 import derivatives as d
from backprop13.support import ledger
from backprop13.backprop import Lin, Module, Relu, add_grad, lin
from backprop13.support.checks import DIFFERENCE_TOLERANCE
from backprop13.support.ledger import ENTRIES, WAYS, Entry, by, compare, shapes, without_row, worst_of


@pytest.mark.parametrize('name', ENTRIES)
def test_four_ways_agree(name):
    for row in compare(name).values():
        assert row['formula'] < 1e-9 and row['autograd'] < 1e-9 and row['differences'] < DIFFERENCE_TOLERANCE


def test_shapes_reach_the_edges():
    sizes = [tuple(q.values()) for q in shapes()]
    assert len(sizes) == 40 and sizes[0] == (1, 1, 1, 1) and len(set(sizes)) > 35
    for axis in range(4): assert any(q[axis] == 1 and min(q[:axis] + q[axis+1:]) > 1 for q in sizes)


def test_every_operation_has_a_row():
    assert without_row() == [] and ENTRIES.keys() == d.OPERATIONS.keys()
    assert all(entry.ours for entry in ENTRIES.values())
    assert {name for name, m in ledger.modules().items() if ledger.is_chapter(m)} >= {'matmul', 'backprop', 'minibatch'}
    for op in d.OPERATIONS.values(): assert set(op.given) <= {d.t, d.y}              # all else has a gradient


def test_a_layer_under_a_known_name_or_not_exported_is_found():
    hidden = SimpleNamespace(__all__=['Lin', 'largest'], Lin=Square, largest=cube, _Tanh=Square)
    assert without_row(dict(fit=hidden)) == ['fit.Lin', 'fit.largest', 'fit._Tanh']


class Square(Module):
    "A layer that no entry knows"
    def forward(self, inp): return inp.square()
    def bwd(self, out, inp): add_grad(inp, 2*inp*out.g)
def cube(x): return x**3
class report(Square): "It has a bwd, and a name that is excused"

@pytest.mark.parametrize('name,o', [('cube', cube), ('Square', Square), ('report', report)])
def test_an_operation_without_a_row_is_found(name, o):
    if hasattr(o, 'bwd'): assert without_row(dict(data=SimpleNamespace(__all__=[name],
            **{name: o}))) == [f'data.{name}']
    assert without_row(dict(fit=SimpleNamespace(__all__=[name], **{name: o}))) == [f'fit.{name}']


# Mistakes in a backward pass: (operation, how it is called, the class, the letter whose gradient is wrong)
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

@pytest.mark.parametrize('name,wrong,letter',
                         [('lin', NoTranspose, 'x'), ('lin', OtherSign, 'w'), ('lin', Mean, 'b'),
                          ('relu', NoGate, 'x')])
def test_a_wrong_backward_pass_is_found(name, wrong, letter):
    worst = compare(name, ENTRIES[name]._replace(ours={'wrong': by(wrong)}))
    for (_, q), row in worst.items():
        for way in WAYS: assert (row[way] > .1) == (q == letter), (q, way)


class NoSum(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.b.g = out.g
class Single(Lin):
    def bwd(self, out, inp): super().bwd(out, inp); self.w.g = self.w.g.float()

def test_nan_is_no_agreement():
    class Nan(Lin):
        def bwd(self, out, inp): super().bwd(out, inp); inp.g = inp.g*float('nan')
    worst = compare('lin', ENTRIES['lin']._replace(ours={'wrong': by(Nan)}))
    assert all(worst['wrong', 'x'][way] == float('inf') and worst['wrong', 'w'][way] < 1e-7 for way in WAYS)


@pytest.mark.parametrize('wrong,message', [(NoSum, 'got shape'), (Single, 'got dtype')])
def test_a_shape_or_dtype_is_never_forgiven(wrong, message):
    with pytest.raises(AssertionError, match=message): compare('lin',
            ENTRIES['lin']._replace(ours={'wrong': by(wrong)}))


@pytest.mark.parametrize('way,change', [('autograd', dict(torch=lambda x, w, b: F.linear(2*x, w.t(), b))),
                                        ('differences', dict(forward=lambda x, w, b: lin(2*x, w, b)))])
def test_each_way_is_compared(way, change):
    worst = compare('lin', ENTRIES['lin']._replace(**change))
    assert {q: worst_of(worst, d.w)[q] > .1 for q in WAYS} == {q: q == way for q in WAYS}


def test_a_wrong_formula_is_found():
    op = d.OPERATIONS['lin']
    wrong = compare('lin', op=op._replace(out=d.b[d.k] + sp.Sum(2*d.x[d.i, d.j]*d.w[d.j, d.k], (d.j, 1, d.m))))
    assert worst_of(wrong, d.w)['formula'] > .1 > 1e-9 > worst_of(wrong, d.b)['formula']


def test_a_zero_gradient_must_be_zero():
    entry = Entry(lambda x: 0*x, lambda x: 0*x, dict(nearly=lambda g, x: [torch.full_like(x, 1e-9)]))
    assert compare('relu', entry, d.OPERATIONS['relu']._replace(out=sp.Integer(0)))['nearly',
        'x']['formula'] == float('inf')


def test_too_few_gradients_are_an_error():
    with pytest.raises(AssertionError, match='1 gradients for'): compare('lin',
            ENTRIES['lin']._replace(ours={'one': lambda g, x, w, b: [x]}))
