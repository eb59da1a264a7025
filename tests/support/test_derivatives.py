"The algebra behind the ledger: its sums, its formulas' numbers. What they must tell apart: test_instruments."
import numpy as np, pytest, sympy as sp

from backprop13.support.derivatives import (OPERATIONS, c, chain, evaluate, g, gate, gradient, i, j, k, m, matrix,
                                            matrix_form_agrees, n, name_layers, name_softmax, nh, p, pick, r, rect, s,
                                            same, slope, t, tex, w, x, y)

delta = sp.KroneckerDelta


@pytest.mark.parametrize('before,after', [
    (sp.Sum(delta(j, r)*x[i, j], (j, 1, m)), x[i, r]),
    (sp.Sum(delta(r, j)*(x[i, j] + delta(j, s)), (j, 1, m)), x[i, r] + delta(r, s)),
    (sp.Sum(2*x[i, j], (j, 1, m)), 2*sp.Sum(x[i, j], (j, 1, m))),
    (sp.Sum(delta(k, s)*g[i, k]*x[i, r], (k, 1, nh), (i, 1, n)), sp.Sum(g[i, s]*x[i, r], (i, 1, n))),
    (sp.Sum(g[i]*sp.Sum(delta(i, r)*x[i, j], (j, 1, m)), (i, 1, n)), g[r]*sp.Sum(x[r, j], (j, 1, m))),
    (x[i, j] + delta(i, r), x[i, j] + delta(i, r))])
def test_pick_carries_out_what_a_delta_decides(before, after):
    assert sp.expand(pick(before) - after) == 0 and same(before, after)


@pytest.mark.parametrize('name,arg', [(name, arg) for name, op in OPERATIONS.items() for arg in op.args])
def test_gradients_are_the_chain_rule_and_have_no_sum_left_over_a_delta(name, arg):
    op = OPERATIONS[name]
    found = gradient(op, arg)
    assert same(found, chain(op, slope(op, arg)))
    for e in found.atoms(sp.Sum):
        assert not any(set(q.args) & set(e.variables) for q in e.function.atoms(delta))
    assert (name_layers(found) == found) == (name not in ('network', 'classifier'))
    if name != 'classifier':
        assert same(name_softmax(found), found)           # its scores are sums, which have no name


@pytest.mark.parametrize('name,arg', [(name, arg) for name, op in OPERATIONS.items() for arg in op.forms])
def test_matrix_forms_agree_and_a_wrong_one_is_refused(name, arg):
    op = OPERATIONS[name]
    assert matrix_form_agrees(op, arg)
    for wrong in (-op.forms[arg], 2*op.forms[arg]):
        assert not matrix_form_agrees(op._replace(forms={arg: wrong}), arg)


def test_evaluate_counts_from_1():
    a = np.array([[1., 2., 3.], [4., 5., 6.]])
    assert evaluate(x[2, 3], x=a) == 6 and evaluate(sp.Sum(x[1, j], (j, 1, m)), x=a, m=3) == 6
    assert evaluate(x[i, y[i]], x=a, y=np.array([3, 1]), i=2) == 4
    assert evaluate(rect(x[1, 1] - 2) + gate(x[1, 2]), x=a) == 1 and evaluate(gate(x[1, 1]), x=a*0) == 0
    with pytest.raises(ValueError, match='no value for i, x'): evaluate(x[i, 1])


def test_softmax_is_what_p_stands_for():
    assert same(p[i, k], sp.exp(x[i, k])/sp.Sum(sp.exp(x[i, j]), (j, 1, c)))
    assert name_softmax(gradient(OPERATIONS['cross_entropy'], x)) == (p[r, s] - delta(s, y[r]))/n


def test_tex_reads_as_the_lesson_writes():
    w1 = sp.IndexedBase('w1', real=True)
    assert tex(w1[j, k]) == 'w^{(1)}_{jk}' and tex(w1) == 'w^{(1)}'
    assert tex(t[i, 1] - x[i, 12]) == 't_{i1} - x_{i,12}'
    assert tex(p[r, s] - delta(s, y[r])) == r'p_{rs} - \delta_{s y_{r}}'
    assert tex(sp.Sum(x[i, j] + 1, (j, 1, m),
                      (i, 1, n))) == r'\sum_{i=1}^{n} \sum_{j=1}^{m} \left(x_{ij} + 1\right)'
    assert tex(matrix('x', n, m).T*matrix('g', n, nh)) == r'x^{\top} g' and tex(w) == 'w' 
