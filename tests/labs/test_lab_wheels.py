"The lab Wheels: its slopes are SymPy's, its hands and keys work"
import random

import pytest, sympy as sp
from conftest import beside, cells, drag, in_node, press, slider


def test_arithmetic_is_sympy_s():
    draw = random.Random(1)
    cases = [[[draw.randint(1, 8) for _ in range(3)], draw.uniform(0, 2)] for _ in range(50)]
    x, u = sp.symbols('x u')
    for ((X, U, Y), at), got in zip(cases, in_node('wheels', 'turn', cases)):
        f, g = sp.Rational(X, U)*x, sp.Rational(U, Y)*u                    # u of x, y of u
        want = dict(dudx=f.diff(x), dydu=g.diff(u), dydx=g.subs(u, f).diff(x), u=f.subs(x, at),
                    y=g.subs(u, f).subs(x, at))
        assert got == pytest.approx({k: float(v) for k, v in want.items()}, rel=1e-9)


def test_it_answers_pointer_and_keys(open_lab):
    lab = open_lab('wheels')
    def shown(*heads): return [cells(lab, o).last.inner_text() for o in heads]
    assert shown('du/dx', 'dy/du', 'dy/dx') == ['2.00', '2.00', '4.00'] and shown('x', 'y') == ['0.25', '1.00']
    wheel = slider(lab, 'turn the wheel x')
    wheel.focus()
    press(lab, 'ArrowRight', times=5)
    assert shown('x', 'u', 'y') == ['0.30', '0.60', '1.20'] and wheel.get_attribute('aria-valuenow') == '0.3'
    # a quarter of a turn, clockwise
    drag(lab.page, *beside(wheel.locator('circle').first, (40, 0), (28, 28), (0, 40))[1:])
    x, y = map(float, shown('x', 'y'))
    assert x == pytest.approx(.55, abs=.011) and y == pytest.approx(4*.55, abs=.05)
    lab.get_by_label('size of y').focus()
    press(lab, 'ArrowRight')
    assert shown('dy/du', 'dy/dx') == ['1.00', '2.00']
