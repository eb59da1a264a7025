"The lab Hinges: its slopes are autograd's, its descent is torch.optim's, its hands and keys work"
import copy, random, re

import pytest, torch
from conftest import beside, button, cells, drag, in_node, lab_data, number, press, slider, stop_clock

from backprop13.backprop import mse, relu

draw = random.Random(1)


def case(k, n=20):
    "A state with `k` hinges, and points that it doesn't fit"
    hinges = [dict(a=draw.uniform(-2, 2), side=draw.choice((-1, 1)), at=draw.random()) for _ in range(k)]
    return [dict(base=draw.uniform(-.1, .3), hinges=hinges), [draw.random() for _ in range(n)],
            [draw.random()/3 for _ in range(n)]]


CASES = [case(k) for k in (0, 1, 2, 3, 5, 8) for _ in range(5)]
AT_A_BEND = [dict(base=.1, hinges=[dict(a=1., side=1, at=.5), dict(a=-1., side=-1, at=.5)]), [.25, .5, .75],
             [.3, .2, .1]]


def tensors(state):
    "What may change, as leaves: base, tilts, places; and the sides"
    def leaf(v): return torch.tensor(v, dtype=torch.float64, requires_grad=True)
    a, at, side = ([o[k] for o in state['hinges']] for k in ('a', 'at', 'side'))
    return [leaf(state['base']), leaf(a), leaf(at)], leaf(side).detach()


def loss(params, side, xs, ps):
    "The mean squared error of the sum, by the chapter's own functions"
    (base, a, at), x, p = params, *(torch.tensor(v, dtype=torch.float64)[:, None] for v in (xs, ps))
    return mse(base + relu(side*(x - at)) @ a[:, None], p)


def numbers(state):
    return [state['base'], *(o['a'] for o in state['hinges']), *(o['at'] for o in state['hinges'])]
def flat(ts): return torch.cat([t.detach().flatten() for t in ts]).tolist()


def test_error_and_slopes_are_the_chapter_s_and_autograd_s():
    cases = [*CASES, AT_A_BEND]
    for (state, xs, ps), error, got in zip(cases, *(in_node('hinges', f, cases) for f in ('rms', 'slopes'))):
        params, side = tensors(state)
        want = loss(params, side, xs, ps)
        assert error == pytest.approx(want.item()**.5, rel=1e-9)
        grads = torch.autograd.grad(want, params)
        assert numbers(got) == pytest.approx(flat(grads), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize('steps', (1, 60))
def test_descent_is_adam_with_a_step_that_shrinks(steps):
    total, args = 100, [[*c, steps, 100] for c in CASES[5:]]
    for (state, xs, ps, *_), got in zip(args, in_node('hinges', 'descend', args)):
        params, side = tensors(state)
        optim = torch.optim.Adam([dict(params=params[:2]), dict(params=params[2:], lr=.003)], lr=.03)
        plan = torch.optim.lr_scheduler.CosineAnnealingLR(optim, total)
        for _ in range(steps):
            optim.zero_grad()
            loss(params, side, xs, ps).backward()
            optim.step()
            plan.step()
            params[2].data.clamp_(0, 1)
        assert numbers(got['state']) == pytest.approx(flat(params), rel=1e-7, abs=1e-9)


def test_descent_comes_to_rest_lower_from_any_start():
    args = [[*c, 10000] for c in CASES]
    before, after = in_node('hinges', 'rms', CASES), in_node('hinges', 'descend', args)
    best = in_node('hinges', 'rms', [[r['best'], *c[1:]] for r, c in zip(after, CASES)])
    last = in_node('hinges', 'rms', [[r['state'], *c[1:]] for r, c in zip(after, CASES)])
    for (state, xs, ps), b, r, e, end in zip(CASES, before, after, best, last):
        assert e == r['error'] <= b and e < .9*b and end == pytest.approx(e, rel=1e-3)
        if not state['hinges']:
            assert e == pytest.approx(torch.tensor(ps).double().std(correction=0).item(), rel=1e-6)


def test_a_new_hinge_stands_in_the_widest_gap():
    cases = [[[]], [[0]], [[0, .5]], [[.9, .2]], [[0, .25, .5, .75]]]
    assert in_node('hinges', 'gap', cases) == pytest.approx([.5, .5, .25, .55, .125])


@pytest.fixture
def lab(open_lab): return open_lab('hinges', viewport=dict(width=1200, height=1000))

@pytest.fixture(scope='module')
def data(): return lab_data('03_backprop.ipynb', 'hinges')

def row(lab, name):
    "The number in the row whose name begins so"
    return cells(lab, re.compile(f'^{name}')).and_(lab.page.locator('.lab-num')).inner_text()
def tilt(lab, name): return number(row(lab, name).split(' ')[0])


def test_it_starts_at_the_chapter_s_line_and_answers_keys(lab, data):
    for name, (_, want) in zip(('1: best line', '2, fixed', '4, fixed', '8, fixed', '16, fixed'),
                               data['errors']):
        assert row(lab, name) == f'{100*want:.2f}'
    start = row(lab, 'yours, 1')
    assert start == row(lab, '1: best line')
    place = slider(lab, 'hinge 1: where it bends')
    place.focus()
    press(lab, 'ArrowRight', times=3)
    assert place.get_attribute('aria-valuenow') == '0.03' and 'x − 0.03' in row(lab, 'hinge 1')
    assert row(lab, 'yours') != start
    before = tilt(lab, 'hinge 1')
    slider(lab, 'hinge 1: its tilt').focus()
    press(lab, 'Shift+ArrowUp')
    assert tilt(lab, 'hinge 1') == pytest.approx(before + 20, abs=.11)
    before = number(row(lab, 'baseline'))
    slider(lab, 'baseline').focus()
    press(lab, 'ArrowDown')
    assert number(row(lab, 'baseline')) == pytest.approx(before - .5, abs=.06)
    button(lab, 'Turn hinge 1')
    assert 'relu(0.03 − x)' in row(lab, 'hinge 1')
    button(lab, 'Remove hinge 1')
    assert 'straight line' in lab.get_by_role('status').inner_text() and row(lab, 'yours, 0')
    button(lab, 'Start again')
    assert row(lab, 'yours, 1') == start


def test_it_answers_the_pointer(lab, data):
    button(lab, 'Add a hinge')
    before = row(lab, 'yours, 2')
    assert before != row(lab, '1: best line') and '−20.0 · relu(x − 0.50)' in row(lab, 'hinge 2')
    def pull(name, dx, dy): drag(lab.page, *beside(slider(lab, name).locator('circle, path').last, (dx, dy)))
    pull('hinge 2: its tilt', -10, 30)
    assert tilt(lab, 'hinge 2') < -40 and row(lab, 'yours') != before
    pull('hinge 2: where it bends', 50, 0)
    moved = number(re.search(r'x − (.*)\)', row(lab, 'hinge 2'))[1])
    assert .54 < moved < .62
    pull('hinge 2: its tilt', -120, 0)                                     # over to the other side
    assert f'relu({moved:.2f} − x)' in row(lab, 'hinge 2')
    pull('baseline', 0, -20)
    assert number(row(lab, 'baseline')) > 100*data['start']['base'] + 1
    slider(lab, 'hinge 1: its tilt').focus()                  # the buttons are for the one that was held last
    press(lab, 'Tab', 'Delete')
    assert 'Hinge 1 is gone' in lab.get_by_role('status').inner_text() and row(lab, 'yours, 1')
    assert f'relu({moved:.2f} − x)' in row(lab, 'hinge 1')
    button(lab, 'Remove hinge 1')
    assert not lab.get_by_role('button', name=re.compile('Turn|Remove')).count()


@pytest.mark.parametrize('motion', ('reduce', 'no-preference'))
def test_descent_finishes_and_the_error_falls(lab, data, motion):
    lab.page.emulate_media(reduced_motion=motion)
    def begin():
        for _ in range(3): button(lab, 'Add a hinge')
        start = row(lab, 'yours, 4')
        button(lab, 'Let gradient descent finish')
        return start
    if motion == 'no-preference': stop_clock(lab.page)
    wide = lab.get_by_role('button', name='Let gradient descent finish').bounding_box()['width']
    start = begin()
    if motion == 'no-preference':
        lab.page.clock.run_for(400)
        assert lab.get_by_role('button', name='Stop').bounding_box()['width'] == wide   # else others move under a hand
        button(lab, 'Stop')
        still = row(lab, 'yours')
        lab.page.clock.run_for(100)
        assert row(lab, 'yours') == still != start
        button(lab, 'Start again')
        begin()
        lab.page.clock.run_for(10_000)
    lab.locator('.lab-status', has_text='Off by').wait_for()
    state = copy.deepcopy(data['start'])
    for at in .5, .25, .75:                                               # each starts a little against its gradient
        state['hinges'].append(dict(a=0, side=1, at=at))
        [g] = in_node('hinges', 'slopes', [[state, data['x'], data['p']]])
        state['hinges'][-1]['a'] = -.2 if g['hinges'][-1]['a'] > 0 else .2
    [want] = in_node('hinges', 'descend', [[state, data['x'], data['p'], 10000]])
    assert row(lab, 'yours') == f"{100*want['error']:.2f}" and float(row(lab, 'yours')) < float(start)
