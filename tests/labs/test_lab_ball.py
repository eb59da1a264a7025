"The lab Ball: its steps are gradient descent by autograd, its words say what happens, it answers pointer and keys"
import random, re

import pytest
from conftest import MIDDLE, button, drag, in_node, lab_data, number, press, slider, stop_clock, value

from backprop13.support import labs

draw = random.Random(1)
BOWLS = [*labs.BOWLS.values()] + [[dict(name='w', curve=draw.uniform(.1, 2), low=draw.uniform(-2, 2),
                                        start=draw.uniform(-4, 4)) for _ in range(n)] for n in (1, 2, 3)*3]
RATES = labs.RATES


def test_its_steps_are_autograd_s():
    cases = [(bowl, rate, labs.ball_run(bowl, rate, 8)) for bowl in BOWLS for rate in (.05, .3, 1.1)]
    for name, part in ('loss', 1), ('grad', 2):
        got = in_node('ball', name, [[bowl, w.tolist()] for bowl, _, run in cases for w in run[0]])
        want = [o for *_, run in cases for o in run[part].tolist()]
        for a, b in zip(got, want, strict=True): assert a == pytest.approx(b, rel=1e-9, abs=1e-9)
    got = in_node('ball', 'step', [[bowl, w.tolist(), rate] for bowl, rate, run in cases for w in run[0][:-1]])
    for a, b in zip(got, [w for *_, run in cases for w in run[0][1:].tolist()], strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9)


def after_one(curve, rate, steps):
    "The distances, from 1 on"
    return labs.ball_run([dict(curve=curve, low=0., start=1.)], rate, steps)[0][:, 0].tolist()

def happens(curve, rate):
    "What ten steps do, measured"
    w = after_one(curve, rate, 10)
    if abs(w[1]) > 1 + 1e-9: return 'diverges'
    if w[1] < -1e-9: return 'too large'
    return 'right' if w[-1] <= .1 else 'too small'

def test_each_rate_is_named_by_what_happens():
    cases = [[curve, rate] for curve in (1., .1) for rate in RATES]
    kinds = in_node('ball', 'kind', cases)
    assert kinds == [happens(*o) for o in cases]
    steep, flat = kinds[:len(RATES)], kinds[len(RATES):]
    assert {k: steep.count(k) for k in steep} == {k: 5 for k in ('too small', 'right', 'too large', 'diverges')}
    assert not [o for o in zip(steep, flat) if o == ('right', 'right')]              # no rate suits both
    want = [after_one(curve, rate, 1)[1] for curve, rate in cases]
    assert in_node('ball', 'kept', cases) == pytest.approx(want, abs=1e-9)


def test_what_it_says():
    one, two = labs.BOWLS['one'], labs.BOWLS['two']
    assert in_node('ball', 'say', [[one, r] for r in (.05, .3, .4, .5, .9, 1., 1.1)] + [[two, .5]]) == [
        'w: too small. A step leaves 0.9 of the distance, ten steps 0.35.',
        'w: right. A step leaves 0.4 of the distance, ten steps 0.0001.',
        'w: right. A step leaves 0.2 of the distance, ten steps almost nothing.',
        'w: right. One step leads to the lowest place.',
        'w: too large. Each step lands on the other side, at 0.8 of the distance.',
        'w: too large. Each step lands on the other side, as far away.',
        'w: diverges. Each step lands on the other side, 1.2 times as far away.',
        'w₁: too small. A step leaves 0.9 of the distance, ten steps 0.35. '
        'w₂: right. One step leads to the lowest place.']
    with pytest.raises(ValueError, match='got rate 0.04, wanted one of'): labs.ball(.04)


# ---- on the page

@pytest.fixture
def lab(open_lab): return open_lab('ball', viewport={'width': 1440, 'height': 900}, reduced_motion='reduce')

def rate(lab): return lab.get_by_label('learning rate η')
def choose(lab, value): rate(lab).fill(str(RATES.index(value)))
def ball(lab): return slider(lab, 'the ball')
def sums(lab):
    "For each weight the numbers of its update: weight, rate, gradient, next weight"
    return [[number(v.strip('()')) for v in re.split(' ← | − (?=[0-9.]+ ·)| · | = ', t)[1:]]
            for t in lab.locator('.lab-sums p').all_inner_texts()]
def marks(lab):
    at = "all => all.map(c => ['cx', 'cy'].map(k => Number(c.getAttribute(k))))"
    return lab.locator('.lab-weights > circle').evaluate_all(at)


@pytest.mark.parametrize('name,bowl', [('one weight', 'one'), ('two weights', 'two')])
@pytest.mark.parametrize('value', [.05, .3, .9, 1.1])
def test_its_numbers_are_python_s(lab, name, bowl, value):
    data = lab_data('04_minibatch_training.ipynb', 'ball')
    assert data[bowl] == labs.BOWLS[bowl] and tuple(data['rates']) == RATES
    button(lab, name)
    choose(lab, value)
    ws, losses, gs = labs.ball_run(data[bowl], value, 11)
    for k in range(4):
        for got, w, g, after in zip(sums(lab), ws[k], gs[k], ws[k + 1], strict=True):
            assert got == pytest.approx([w.item(), value, g.item(), after.item()], abs=.0051)
        steps, loss = re.match(r'(\d+) step.* loss (\S+)', lab.locator('.lab-side .lab-how').inner_text()).groups()
        assert steps == str(k) and number(loss) == pytest.approx(losses[k].item(), abs=6e-4)
        if k < 3: button(lab, 'Step')
    button(lab, 'Start again')
    button(lab, 'Ten steps')
    assert '10 steps' in lab.inner_text() and len(marks(lab)) == 10        # the path stays drawn
    assert sums(lab)[0][0] == pytest.approx(ws[10][0].item(), abs=.0051)
    here = lab.locator('.lab-zone.lab-here').all_inner_texts()
    assert here == [happens(o['curve'], value) for o in data[bowl]]


def test_the_picture_is_to_scale(lab):
    choose(lab, .9)
    button(lab, 'Ten steps')
    def points(path):
        at = [float(v) for v in re.findall(r'[-\d.]+', lab.locator(path).get_attribute('d'))]
        return [*zip(at[::2], at[1::2])]
    curve = points('path.lab-curve')
    w = lambda x: (x - curve[0][0])/(curve[-1][0] - curve[0][0])*8.4 - 3.2
    height = lambda y: (curve[42][1] - y)/(curve[42][1] - curve[0][1])*4.2**2
    for x, y in curve: assert height(y) == pytest.approx((w(x) - 1)**2, abs=.02)
    ws, losses, gs = labs.ball_run(labs.BOWLS['one'], .9, 9)
    for (x, y), v, l in zip(marks(lab), ws[:, 0], losses, strict=True):
        assert (w(x), height(y)) == pytest.approx((v.item(), l.item()), abs=.02)
    button(lab, 'Start again')
    (ax, ay), (bx, by) = points('path.lab-slope:not(.lab-far)')
    assert (height(by) - height(ay))/(w(bx) - w(ax)) == pytest.approx(6, abs=.02)               # the tangent at 4
    (ax, _), (bx, _) = points('path.lab-far')
    assert (w(ax), w(bx)) == pytest.approx((4, 4 - .9*6), abs=.02)                              # the step


def test_a_rate_changed_on_the_way_goes_on_from_there(lab):
    button(lab, 'Step')
    choose(lab, .5)
    button(lab, 'Step')
    assert sums(lab)[0][0] == 1 and len(marks(lab)) == 2
    choose(lab, 2.)
    assert sums(lab)[0] == [1, 2, 0, 1]
    rate(lab).focus()
    press(lab, 'Home')
    assert rate(lab).input_value() == '0' and sums(lab)[0][1] == .02
    press(lab, 'PageUp')
    assert float(rate(lab).input_value()) == 2
    press(lab, 'End')
    assert sums(lab)[0][1] == 2


def test_the_ball_is_dragged_and_moved_by_keys(lab):
    hold = ball(lab)
    hold.scroll_into_view_if_needed()
    (x, y), unit = hold.evaluate(MIDDLE), hold.evaluate('e => e.getScreenCTM().a')*400/8.4
    drag(lab.page, (x, y), (x - 2*unit, y + 40))
    assert value(hold) == pytest.approx(2, abs=.051)
    assert '0 steps' in lab.inner_text() and not marks(lab)
    assert sums(lab)[0][2] == pytest.approx(2*(sums(lab)[0][0] - 1))
    button(lab, 'two weights')
    hold.focus()
    press(lab, 'ArrowUp', 'ArrowUp', 'ArrowLeft')
    assert [o[0] for o in sums(lab)] == [5.9, 4.2]
    assert hold.get_attribute('aria-valuetext') == 'w₁ 5.9, w₂ 4.2'
    (x, y), unit = hold.evaluate(MIDDLE), hold.evaluate('e => e.getScreenCTM().a')*400/13.2
    drag(lab.page, (x, y), (x - 3*unit, y + 2*unit))
    assert [o[0] for o in sums(lab)] == pytest.approx([2.9, 2.2], abs=.06)


def test_what_leaves_the_picture_is_said(lab):
    choose(lab, 2.)
    button(lab, 'Step')
    assert 'off the picture' in lab.inner_text() and 'lab-out' in ball(lab).get_attribute('class')
    for _ in range(4): button(lab, 'Ten steps')
    assert 'e20' in lab.locator('.lab-sums').inner_text()
    for _ in range(70): button(lab, 'Ten steps')
    assert 'nan' not in lab.locator('svg').first.inner_html().lower()                # far beyond any number
    button(lab, 'Start again')
    assert 'off the picture' not in lab.inner_text()


def test_it_plays_ten_steps(open_lab):
    lab = open_lab('ball', viewport={'width': 1440, 'height': 900})
    page, play = lab.page, lab.get_by_role('button', name='Play', exact=True)
    stop_clock(page)
    play.click()
    assert '1 step ·' in lab.inner_text() and 'lab-hop' in ball(lab).get_attribute('class')
    page.clock.run_for(3*650)
    button(lab, 'Pause')
    page.clock.run_for(5*650)
    assert '4 steps' in lab.inner_text()
    play.click()
    page.clock.run_for(20*650)
    assert '14 steps' in lab.inner_text() and play.is_visible()


@pytest.mark.parametrize('width,height,screens', [(1440, 900, 1), (768, 900, 1), (390, 844, 2), (360, 740, 2)])
def test_it_fits(open_lab, width, height, screens):
    lab = open_lab('ball', viewport={'width': width, 'height': height}, has_touch=True)
    for name in 'two weights', 'one weight':
        lab.get_by_role('button', name=name).tap()
        tall = set()
        for i in range(len(RATES)):
            rate(lab).fill(str(i))
            tall.add(round(lab.bounding_box()['height']))
        assert len(tall) == 1 and tall.pop() <= screens*height
        words = lab.locator('.lab-zone, .lab-sums p')
        assert not words.evaluate_all('all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length')
