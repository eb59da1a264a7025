"The lab Wheels: its slopes are SymPy's, its hands and keys work"
import random

import pytest, sympy as sp
from conftest import beside, button, cells, drag, in_node, number, press, slider


def test_arithmetic_is_sympy_s():
    draw = random.Random(1)
    cases = [[[draw.randint(1, 8) for _ in range(3)], draw.uniform(0, 2)] for _ in range(50)]
    x, u = sp.symbols('x u')
    for ((X, U, Y), at), got in zip(cases, in_node('wheels', 'turn', cases)):
        f, g = sp.Rational(X, U)*x, sp.Rational(U, Y)*u                    # u of x, y of u
        y = g.subs(u, f)
        want = dict(dudx=f.diff(x), dydu=g.diff(u), dydx=y.diff(x), u=f.subs(x, at), y=y.subs(x, at))
        assert got == pytest.approx({k: float(v) for k, v in want.items()}, rel=1e-9)


def turns(lab): return [number(o) for o in lab.locator('svg text:not([font-style])').all_text_contents()]

def test_wheels_fill_their_box_and_stay_in_it():
    cases = [[4, 2, 1], 334, 167], [[8, 8, 8], 334, 167], [[8, 1, 1], 795, 250], [[1, 1, 1], 795, 250]
    for (sizes, width, height), unit in zip(cases, in_node('wheels', 'fit', cases)):
        room = width - 2*unit*sum(sizes), height - 2*unit*max(sizes)
        assert room[0] == pytest.approx(74) or room[1] == pytest.approx(18)
        assert room[0] > 73.9 and room[1] > 17.9


def moves(lab):
    "Does it turn, within half a second?"
    before = turns(lab)
    lab.page.wait_for_timeout(500)
    return turns(lab) != before

@pytest.mark.parametrize('stop', ['Stop', 'pointer', 'key'])
def test_it_turns_by_itself_until_touched(open_lab, stop):
    lab = open_lab('wheels')
    assert moves(lab)
    x, u, y = turns(lab)
    assert u == pytest.approx(2*x, abs=.02) and y == pytest.approx(4*x, abs=.03)
    lab.get_by_label('size of y').press('ArrowRight')                  # what a size does is seen while it turns
    assert moves(lab)
    if stop == 'Stop': button(lab, 'Stop')
    if stop == 'pointer': lab.page.mouse.click(*beside(lab.locator('svg'))[0])
    if stop == 'key': slider(lab, 'turn the wheel x').press('Home')
    assert not moves(lab)
    button(lab, 'Turn')
    assert moves(lab)
    lab.page.evaluate('scrollTo(0, 0)')                                # unseen it rests
    lab.page.wait_for_timeout(200)
    assert not moves(lab)


def test_it_rests_under_reduced_motion(open_lab):
    lab = open_lab('wheels', reduced_motion='reduce')
    assert not moves(lab) and turns(lab)[0] == .25
    button(lab, 'Turn')
    assert moves(lab)


def test_it_answers_pointer_and_keys(open_lab):
    lab = open_lab('wheels', reduced_motion='reduce')
    def shown(*heads): return [cells(lab, o).last.inner_text() for o in heads]
    assert shown('du/dx', 'dy/du', 'dy/dx') == ['2.00', '2.00', '4.00'] and turns(lab) == [.25, .5, 1]
    wheel = slider(lab, 'turn the wheel x')
    wheel.focus()
    press(lab, 'ArrowRight', times=5)
    assert turns(lab) == [.3, .6, 1.2] and wheel.get_attribute('aria-valuenow') == '0.3'
    # a quarter of a turn, clockwise
    drag(lab.page, *beside(wheel.locator('circle').first, (60, 0), (42, 42), (0, 60))[1:])
    x, _, y = turns(lab)
    assert x == pytest.approx(.55, abs=.011) and y == pytest.approx(4*.55, abs=.05)
    lab.get_by_label('size of y').focus()
    press(lab, 'ArrowRight')
    assert shown('dy/du', 'dy/dx') == ['1.00', '2.00']
