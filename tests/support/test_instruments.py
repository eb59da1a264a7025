"""Derivatives and the ledger, with seeded bugs and the property that must kill each. (Chapters' definitions and checks
have cards.) A bug is a change to one place of the source, made in memory; the package is executed anew with it, and the
property must raise AssertionError. A crash of another kind is no kill."""
import itertools, sys
from types import SimpleNamespace

import pytest, torch

from backprop13 import backprop
from backprop13.support.checks import autograd_grads, check_grads, check_op
from backprop13.support.ledger import ENTRIES
from helpers import Library, f64, inf, kill, mutated, nan, planted, rand, refused

# ---- the properties, each a function of the library

def fails(message, f, *args, **kw): return refused(message, f, *args, error=AssertionError, **kw)

# these take long
in_torch = {name: entry.torch for name, entry in ENTRIES.items() if name not in ('network', 'classifier')}

def formulas_are_right(lib):
    """The gradient that the chain rule finds for each operation, entry by entry, against autograd;
    and its matrix form"""
    D = lib.derivatives
    refused('r and s ask for an entry', D.slope,
            D.OPERATIONS['relu']._replace(out=D.x[D.i, D.r]), D.x, error=ValueError)
    short = D.sp.Sum(D.sp.KroneckerDelta(D.j, D.r)*D.x[D.i, D.j], (D.j, 1, D.k))
    assert D.pick(short) == short
    refused('count from 1', D.evaluate, D.x[0, 1], x=[[1., 2.]], error=IndexError)
    assert D.OPERATIONS.keys() == ENTRIES.keys()
    for (name, f), sizes in itertools.product(in_torch.items(), ((3, 3, 3, 3), (2, 1, 3, 4))):
        op, at = D.OPERATIONS[name], dict(zip((D.n, D.m, D.nh, D.c), sizes))
        tensors = {str(q): torch.arange(at[D.n]) % at[D.c] if q == D.y
                   else rand(*(at[o] for o in shape), seed=i)
                   for i, (q, shape) in enumerate((op.args | op.given).items())}
        g = rand(*(at[last] for *_, last in op.axes), seed=9) if op.axes else None
        want = autograd_grads(lambda **t: f(*t.values()), g, **tensors)
        values = {k: t.numpy() + (k == 'y') for k, t in tensors.items()} | {str(q): size for q,
            size in at.items()}
        if op.axes: values['g'] = g.numpy()
        for arg in op.args:
            formula, got = D.gradient(op, arg), torch.zeros_like(want[str(arg)])
            for i in itertools.product(*map(range, got.shape)):
                got[i] = D.evaluate(formula, **values, **dict(zip('rs', (q + 1 for q in i))))
            check_grads({'arg': got}, {'arg': want[str(arg)]}, op=name)
    for name in in_torch:
        op = D.OPERATIONS[name]
        for arg in op.args: assert D.matrix_form_agrees(op, arg), (name, arg)

def the_formulas_slope_at_0_is_0(lib):
    D = lib.derivatives
    slope = D.rect(D.x[D.i, D.j]).diff(D.x[D.i, D.j])
    for value in (-1., 0., 1.):
        assert D.evaluate(slope, x=[[value]], i=1, j=1) == float(D.gate(int(value))) == (value > 0)

def formulas_are_told_apart(lib):
    D = lib.derivatives
    x, g, n, r, s = D.x, D.g, D.n, D.r, D.s
    i, j, k, y, p, delta = D.i, D.j, D.k, D.y, D.p, D.sp.KroneckerDelta
    def column(a, b): return D.sp.Sum(g[i, a]*x[i, b], (i, 1, n))
    for a, b in ((x[i, j], x[j, i]), (x[r, s], -x[r, s]), (x[r, s]/n, x[r, s]), (x[r, s], x[r, s] + 1e-6),
                 (D.pick(D.chain(D.OPERATIONS['lin'], D.slope(D.OPERATIONS['lin'], D.b))), g[r, s]),
                 (column(s, r), g[r, s]*x[r, r]), (column(s, r), column(r, s)), (p[i, k], D.sp.exp(x[i, k])),
                 (delta(s, y[r]), delta(r, y[s])), (D.gate(x[i, j]), D.sp.Integer(1)), (x[r, s]/4, x[r, s]/n),
                 (x[r, s]/n, x[r, s]/D.nh), (2*x[r, s], n*x[r, s]), (x[i, j]/3, x[i, j]/D.m),
                 (x[i, j]/D.c, x[i, j]/D.m), (1e-13*x[r, s], -1e-13*x[r, s])):
        assert D.same(a, a) and D.same(b, b) and not D.same(a, b) and not D.same(b, a), (a, b)
        fails('is not the same as', D.derivation, 'y', a, (b, 'why'))
    op, mse = D.OPERATIONS['lin'], D.OPERATIONS['mse']
    for arg in op.forms: assert not D.matrix_form_agrees(op._replace(forms={arg: -op.forms[arg]}), arg)
    for form in (mse.forms[x]*n/2, mse.forms[x]*n/4):
        assert not D.matrix_form_agrees(mse._replace(forms={x: form}), x)
    a, w, h = (D.matrix(o, 3, 3) for o in 'xwg')
    for wrong in ({x: h*w, D.w: a*h, D.b: D.matrix('g', n, D.nh)},          # a transpose or a sum is missing
                  {x: op.forms[x][:1, :]}):                                 # one row of them
        for arg in wrong: assert not D.matrix_form_agrees(op._replace(forms=wrong), arg)
    refused('no value for x', D.evaluate, x[1, 1], error=ValueError)

def the_ledger_sees(lib):
    "Each way is compared, whatever is wrong is seen in it, and nothing that should have a row goes without"
    L, B, D = lib.ledger, lib.backprop, lib.derivatives
    class Nan(B.Lin):
        def bwd(self, out, inp): super().bwd(out, inp); inp.g = inp.g*nan
    class Once(B.Lin):
        def bwd(self, out, inp):
            super().bwd(out, inp)
            if len(inp) > 1: self.w.g = -self.w.g             # right for a batch of one
    class Wipes(B.Lin):
        def bwd(self, out, inp): super().bwd(out, inp); out.g.zero_()
    lin, right = L.ENTRIES['lin'], dict(Lin=L.by(B.Lin))
    def worst(arg=D.w, **change): return L.worst_of(L.compare('lin',
            lin._replace(**{'ours': right, **change}), count=8), arg)
    assert max(worst().values()) < 1e-7
    assert min(worst(D.x, ours=dict(wrong=L.by(Nan))).values()) == inf
    assert min(worst(ours=dict(wrong=L.by(Once))).values()) > .1
    assert worst(ours=dict(wrong=L.by(Once), **right))['formula'] > .1
    seen = {q: e > .1 for q, e in worst(torch=lambda x, w, b: 2*x @ w + b).items()}
    assert seen == dict(formula=False, autograd=True, differences=False), seen
    seen = {q: e > .1 for q, e in worst(forward=lambda x, w, b: 2*x @ w + b).items()}
    assert seen == dict(formula=False, autograd=False, differences=True), seen
    def wipes(g, x, w, b):
        grads = [g @ w.t(), x.t() @ g, g.sum(0)]
        g.zero_()
        return grads
    assert max(worst(ours=dict(wipes=wipes, **right)).values()) < 1e-7       # the next one isn't to blame
    fails('changed the gradient at its output', worst, ours=dict(wrong=L.by(Wipes)))
    fails('1 gradients for', worst, ours=dict(one=lambda g, x, w, b: [g @ w.t()]))
    for b, why in (lambda g: g, 'got shape'), (lambda g: g.sum(0).float(), 'got dtype'):     # never forgiven
        fails(why, worst, ours=dict(wrong=lambda g, x, w, _: [g @ w.t(), x.t() @ g, b(g)]))
    out = D.b[D.k] + D.sp.Sum(2*D.x[D.i, D.j]*D.w[D.j, D.k], (D.j, 1, D.m))
    wrong = L.compare('lin', op=D.OPERATIONS['lin']._replace(out=out), count=8)
    assert L.worst_of(wrong, D.w)['formula'] > .1 > 1e-9 > L.worst_of(wrong, D.b)['formula']
    assert L.disagreement(torch.full((2,), 1e-9, dtype=f64), torch.zeros(2, dtype=f64), 'x') == inf
    sizes = [tuple(q.values()) for q in L.shapes()]
    assert len(sizes) == 40 and (1, 1, 1, 1) in sizes
    assert all(any(q[i] == 1 and q.count(1) == 1 for q in sizes[:5]) for i in range(4))
    new = SimpleNamespace(__all__=['Lin', 'cube'], Lin=Nan, cube=abs, _Once=Once)
    assert L.without_row(dict(data=new)) == ['data.Lin', 'data._Once']
    assert L.without_row(dict(fit=new)) == ['fit.Lin', 'fit.cube', 'fit._Once']
    class report(B.Module):                                                  # a name that is excused if it is no layer
        def bwd(self, out, inp): pass
    for module in 'data', 'fit':
        assert L.without_row({module: SimpleNamespace(__all__=['report'], report=report)}) == [f'{module}.report']

# ---- the bugs

DERIVATIVES = {
    formulas_are_right: [
        ('sign', "OPERATIONS['nll']", '-sp.Sum', 'sp.Sum'),
        ('sign', "OPERATIONS['cross_entropy']", '_p - _Y', '_p + _Y'),
        ('sign', "OPERATIONS['mse']", "x[i, k] - t[i, k]", "x[i, k] + t[i, k]"),
        ('missing 1/n', "OPERATIONS['mse']", '(i, 1, n))/(n*c)', '(i, 1, n))/n'),
        ('missing 1/n', "OPERATIONS['cross_entropy']", '(_p - _Y)/n', '_p - _Y'),
        ('missing 1/n', "OPERATIONS['nll']", '(i, 1, n))/n', '(i, 1, n))'),
        ('missing factor', "OPERATIONS['mse']", '{x: 2/(n*c)*', '{x: 1/(n*c)*'),
        ('missing factor', 'chain', 'g[at]*slopes', 'slopes'),
        ('missing term', "OPERATIONS['softmax']", '_g - _q', '_g'),
        ('missing term', "OPERATIONS['log_softmax']", 'x[i, k] - sp.log(_exp_sum)', 'x[i, k]'),
        ('wrong axis', "OPERATIONS['lin']", 'b[k] +', 'b[i] +'),
        ('wrong axis', "_exp_sum", 'x[i, j]', 'x[j, i]'),
        ('wrong axis', 'slope', 'arg[(r, s)', 'arg[(s, r)'),
        ('no check', 'slope', 'if op.out.has(r, s)', 'if False'),
        ('loose check', 'picked', ' and limit[1] == 1 and limit[2] in (n, m, nh, c)', ''),
        ('missing sum(0)', 'chain', '*reversed(op.axes)', '*((q, a, a) for q, a, _ in op.axes)'),
        ('gate on the wrong side', 'rect', 'return gate(self.args[0])',
         'return gate(-self.args[0])'),
        ('wrong place', 'From1', 'int(q) - 1', 'int(q)'),
        ('no check', 'From1', 'if min(at) < 0', 'if False')],
    the_formulas_slope_at_0_is_0: [
        ('gate on the wrong side', 'gate', 'z > 0', 'z >= 0'),
        ('gate on the wrong side', 'compiled', 'float(z > 0)', 'float(z >= 0)')],
    formulas_are_told_apart: [
        ('loose check', 'agree', 'rel_tol=1e-9', 'rel_tol=1e-3'),
        ('loose check', 'agree', 'abs_tol=1e-15', 'abs_tol=1e-9'),
        ('loose check', 'agree', 'product((1, 2), repeat', 'product((1,), repeat'),
        ('loose check', 'same', 'for sizes in SIZES', 'for sizes in SIZES[:1]'),
        ('loose check', 'SIZES', '{n: 2, m: 3, nh: 4, c: 5}, {n: 4, m: 2, nh: 5, c: 3}',
         '{n: 2, m: 3, nh: 2, c: 3}, {n: 3, m: 2, nh: 3, c: 2}'),
        ('no check', 'derivation', 'if not same(a, b)', 'if False'),
        ('loose check', 'matrix_form_agrees', 'if not agree(', 'if False and agree('),
        ('no check', 'matrix_form_agrees', 'if form.shape != (1,)*(2 - len(shape)) + shape',
         'if False'),
        ('loose check', 'matrix_form_agrees', 'for sizes in SIZES:', 'for sizes in SIZES[:1]:'),
        ('no check', 'evaluate', 'if missing', 'if False')],
}

LEDGER = {
    the_ledger_sees: [
        ('loose check', 'disagreement', "float('inf') if error != error else error", 'error'),
        ('loose check', 'disagreement', '<= 1e-12 and got.norm()', '<= 1e-12 or got.norm()'),
        ('loose check', 'compare', 'max(row[way], ', 'min(row[way], '),
        ('loose check', 'compare', 'disagreement(a, b,', 'disagreement(b, b,'),
        ('loose check', 'compare', 'through(entry.torch)', 'through(entry.forward)'),
        ('loose check', 'compare', 'measured(entry.forward)', 'measured(entry.torch)'),
        ('no check', 'compare', 'assert len(got) >= len(op.args)', 'assert True'),
        ('shared memory', 'compare', 'None if out_g is None else out_g.clone()', 'out_g'),
        ('no check', 'by', 'assert kept', 'assert True'),
        ('missing term', 'shapes', '*edges, ', ''),
        ('missing term', 'shapes', 'dict.fromkeys(names, 1)', 'dict.fromkeys(names, 2)'),
        ('missing term', 'without_row', ', *layers]', ']'),
        ('missing term', 'without_row', 'module.__all__ if is_chapter(module) else []', '[]'),
        ('no check', 'without_row', 'rows.get(name) is not o', 'name not in rows'),
        ('no check', 'without_row', ' and not has_bwd(o)', ''),
        ('wrong axis', 'worst_of', 'max(errors[way]', 'min(errors[way]')],
}

test_the_library_has_the_property, test_the_bug_is_found = planted(derivatives=DERIVATIVES, ledger=LEDGER)


def test_a_survivor_a_crash_and_a_stale_row_are_found():
    def lin_is_right(lib):
        x, w, b = rand(5, 4), rand(4, 3, seed=1), rand(3, seed=2)
        check_op(lib.backprop.lin, lambda x, w, b: x @ w + b, x=x, w=w, b=b)
    row = 'backprop.lin', 'return out + b'
    assert 'lin, value: relative error' in kill(lin_is_right, *row, 'return out - b')
    with pytest.raises(pytest.fail.Exception, match='lin_is_right did not see'):
        kill(lin_is_right, *row, 'return b + out')
    with pytest.raises(pytest.fail.Exception, match='which is no kill: NameError'):
        kill(lin_is_right, *row, 'return out + c')
    for where, old in [('backprop.lin', 'out * b'), ('backprop.lin', 'b'), ('backprop.line', 'out')]:
        with pytest.raises(AssertionError, match='stale row'): mutated(where, old, '')
    with Library(backprop=mutated(*row, 'return out - b')) as lib:
        # every module sees the changed one
        assert lib.minibatch.Module is lib.backprop.Module is not backprop.Module
    assert not [k for k in sys.modules if k.startswith('mutant')]
