"The lab Wheels: its slopes are SymPy's, its hands and keys work"
import random

import pytest, sympy as sp
from conftest import in_node, visit


def test_arithmetic_is_sympy_s(tmp_path):
    draw = random.Random(1)
    cases = [[[draw.randint(1, 8) for _ in range(3)], draw.uniform(0, 2)] for _ in range(50)]
    x, u = sp.symbols('x u')
    for ((X, U, Y), at), got in zip(cases, in_node('wheels', 'turn', cases, tmp_path)):
        f, g = sp.Rational(X, U)*x, sp.Rational(U, Y)*u                    # u of x, y of u
        want = dict(dudx=f.diff(x), dydu=g.diff(u), dydx=g.subs(u, f).diff(x), u=f.subs(x, at),
                    y=g.subs(u, f).subs(x, at))
        assert got == pytest.approx({k: float(v) for k, v in want.items()}, rel=1e-9)


def test_it_answers_pointer_and_keys(browser, server):
    page, said, _ = visit(browser, server+'derivatives.html')
    lab = page.locator('.lab[data-lab=wheels]')
    lab.scroll_into_view_if_needed()
    cell = lambda head: lab.locator('tr', has=page.get_by_role('rowheader', name=head, exact=True)).locator('td').last.inner_text()
    assert (cell('du/dx'), cell('dy/du'), cell('dy/dx')) == ('2.00', '2.00', '4.00')
    wheel = lab.get_by_role('slider', name='turn the wheel x')
    wheel.focus()
    assert (cell('x'), cell('y')) == ('0.25', '1.00')
    for _ in range(5): page.keyboard.press('ArrowRight')
    assert (cell('x'), cell('u'), cell('y')) == ('0.30', '0.60', '1.20') and wheel.get_attribute('aria-valuenow') == '0.3'
    box = wheel.locator('circle').first.bounding_box()
    mid = box['x']+box['width']/2, box['y']+box['height']/2
    page.mouse.move(mid[0]+40, mid[1])
    page.mouse.down()
    page.mouse.move(mid[0]+28, mid[1]+28, steps=4)
    page.mouse.move(mid[0], mid[1]+40, steps=4)                             # a quarter of a turn, clockwise
    page.mouse.up()
    assert float(cell('x')) == pytest.approx(.55, abs=.011) and float(cell('y')) == pytest.approx(4*.55, abs=.05)
    lab.get_by_label('size of y').focus()
    page.keyboard.press('ArrowRight')
    assert (cell('dy/du'), cell('dy/dx')) == ('1.00', '2.00') and not said
    page.close()
