"The lab Hinges: its slopes are autograd's, its descent is torch.optim's, its hands and keys work"
import json, random, re

import pytest, torch
from conftest import in_node, lab_data, visit

from backprop13.backprop import mse, relu

draw = random.Random(1)


def case(k, n=20):
    "A state with `k` hinges, and points that it doesn't fit"
    hinges = [dict(a=draw.uniform(-2, 2), side=draw.choice((-1, 1)), at=draw.random()) for _ in range(k)]
    return [dict(base=draw.uniform(-.1, .3), hinges=hinges), [draw.random() for _ in range(n)],
            [draw.random()/3 for _ in range(n)]]


CASES = [case(k) for k in (0, 1, 2, 3, 5, 8) for _ in range(5)]


def tensors(state):
    "What may change, as leaves: base, tilts, places; and the sides"
    leaf = lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True)
    return [leaf(state['base']), leaf([o['a'] for o in state['hinges']]), leaf([o['at'] for o in state['hinges']])], \
        torch.tensor([o['side'] for o in state['hinges']], dtype=torch.float64)


def loss(params, side, xs, ps):
    "The mean squared error of the sum, by the chapter's own functions"
    (base, a, at), x, p = params, *(torch.tensor(v, dtype=torch.float64)[:, None] for v in (xs, ps))
    return mse(base + relu(side*(x - at)) @ a[:, None], p)


def numbers(state): return [state['base'], *(o['a'] for o in state['hinges']), *(o['at'] for o in state['hinges'])]
def flat(ts): return torch.cat([t.detach().flatten() for t in ts]).tolist()


def test_error_and_slopes_are_the_chapter_s_and_autograd_s(tmp_path):
    for (state, xs, ps), error, got in zip(CASES, in_node('hinges', 'rms', CASES, tmp_path),
                                           in_node('hinges', 'slopes', CASES, tmp_path)):
        params, side = tensors(state)
        want = loss(params, side, xs, ps)
        assert error == pytest.approx(want.item()**.5, rel=1e-9)
        grads = torch.autograd.grad(want, params)
        assert numbers(got) == pytest.approx(flat(grads), rel=1e-9, abs=1e-12)


def test_slopes_at_the_hinge_itself_are_relu_s(tmp_path):
    state, xs, ps = dict(base=.1, hinges=[dict(a=1., side=1, at=.5), dict(a=-1., side=-1, at=.5)]), [.25, .5, .75], [.3, .2, .1]
    params, side = tensors(state)
    grads = torch.autograd.grad(loss(params, side, xs, ps), params)
    assert numbers(in_node('hinges', 'slopes', [[state, xs, ps]], tmp_path)[0]) == pytest.approx(flat(grads), rel=1e-9)


def test_slopes_are_differences_of_the_error(tmp_path):
    step, moved, want = 1e-6, [], []
    for state, xs, ps in CASES:
        for i, key in [(None, 'base'), *((i, key) for i in range(len(state['hinges'])) for key in ('a', 'at'))]:
            for by in (step, -step):
                there = json.loads(json.dumps(state))
                (there if i is None else there['hinges'][i])[key] += by
                moved.append([there, xs, ps])
            want.append((CASES.index([state, xs, ps]), i, key))
    errors, got = in_node('hinges', 'rms', moved, tmp_path), in_node('hinges', 'slopes', CASES, tmp_path)
    for (c, i, key), up, down in zip(want, errors[::2], errors[1::2]):
        slope = (got[c] if i is None else got[c]['hinges'][i])[key]
        assert slope == pytest.approx((up**2 - down**2)/(2*step), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize('steps', (1, 60))
def test_descent_is_adam_with_a_step_that_shrinks(tmp_path, steps):
    total, args = 100, [[*c, steps, 100] for c in CASES[5:]]
    for (state, xs, ps, *_), got in zip(args, in_node('hinges', 'descend', args, tmp_path)):
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


def test_descent_comes_to_rest_lower_from_any_start(tmp_path):
    args = [[*c, 10000] for c in CASES]
    before, after = in_node('hinges', 'rms', CASES, tmp_path), in_node('hinges', 'descend', args, tmp_path)
    best = in_node('hinges', 'rms', [[r['best'], *c[1:]] for r, c in zip(after, CASES)], tmp_path)
    last = in_node('hinges', 'rms', [[r['state'], *c[1:]] for r, c in zip(after, CASES)], tmp_path)
    for (state, xs, ps), b, r, e, end in zip(CASES, before, after, best, last):
        assert e == r['error'] <= b and e < .9*b and end == pytest.approx(e, rel=1e-3)
        if not state['hinges']: assert e == pytest.approx(torch.tensor(ps).double().std(correction=0).item(), rel=1e-6)


def test_a_new_hinge_stands_in_the_widest_gap(tmp_path):
    cases = [[[]], [[0]], [[0, .5]], [[.9, .2]], [[0, .25, .5, .75]]]
    assert in_node('hinges', 'gap', cases, tmp_path) == pytest.approx([.5, .5, .25, .55, .125])


@pytest.fixture
def lab(browser, server):
    "The lab in its chapter, with a reader for the numbers in it"
    page, said, _ = visit(browser, server+'backprop.html', viewport=dict(width=1200, height=1000))
    lab = page.locator('.lab[data-lab=hinges]')
    lab.scroll_into_view_if_needed()
    page.wait_for_selector('.lab[data-lab=hinges][data-live]')
    row = lambda name: lab.locator('tr', has=page.get_by_role('rowheader', name=re.compile(f'^{name}'))).locator('td.lab-num').inner_text()
    yield page, lab, row
    assert not said
    page.close()


@pytest.fixture(scope='module')
def data(): return lab_data('03_backprop.ipynb', 'hinges')


def test_it_starts_at_the_chapter_s_line_and_answers_keys(lab, data):
    page, lab, row = lab
    for name, want in zip(('1: best line', '2, fixed', '4, fixed', '8, fixed', '16, fixed'),
                          (v for _, v in data['errors'])):
        assert row(name) == f'{100*want:.2f}'
    assert row('yours, 1') == row('1: best line')
    start = row('yours')
    place = lab.get_by_role('slider', name='hinge 1: where it bends')
    place.focus()
    for _ in range(3): page.keyboard.press('ArrowRight')
    assert place.get_attribute('aria-valuenow') == '0.03' and 'x − 0.03' in row('hinge 1') and row('yours') != start
    tilt, before = lab.get_by_role('slider', name='hinge 1: its tilt'), float(row('hinge 1').split(' ')[0])
    tilt.focus()
    page.keyboard.press('Shift+ArrowUp')
    assert float(row('hinge 1').split(' ')[0]) == pytest.approx(before + 20, abs=.11)
    lab.get_by_role('slider', name='baseline').focus()
    base = float(row('baseline'))
    page.keyboard.press('ArrowDown')
    assert float(row('baseline')) == pytest.approx(base - .5, abs=.06)
    lab.get_by_role('button', name='turn hinge 1').click()
    assert 'relu(0.03 − x)' in row('hinge 1')
    lab.get_by_role('button', name='remove hinge 1').click()
    assert 'straight line' in lab.get_by_role('status').inner_text() and row('yours, 0')
    lab.get_by_role('button', name='Start again').click()
    assert row('yours, 1') == start


def test_it_answers_the_pointer(lab, data):
    page, lab, row = lab
    lab.get_by_role('button', name='Add a hinge').click()
    flat_error = row('yours, 2')
    assert flat_error == row('1: best line') and '+0.0 · relu(x − 0.50)' in row('hinge 2')
    def drag(name, dx, dy):
        box = lab.get_by_role('slider', name=name).locator('circle, path').last.bounding_box()
        x, y = box['x']+box['width']/2, box['y']+box['height']/2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x+dx, y+dy, steps=4)
        page.mouse.up()
    drag('hinge 2: its tilt', -10, 30)
    assert float(row('hinge 2').split(' ')[0].replace('−', '-')) < -20 and row('yours') != flat_error
    drag('hinge 2: where it bends', 50, 0)
    moved = float(re.search(r'x − (.*)\)', row('hinge 2'))[1])
    assert .54 < moved < .62
    drag('hinge 2: its tilt', -120, 0)                                     # over to the other side
    assert f'relu({moved:.2f} − x)' in row('hinge 2')
    drag('baseline', 0, -20)
    assert float(row('baseline')) > 100*data['start']['base'] + 1


@pytest.mark.parametrize('motion', ('reduce', 'no-preference'))
def test_descent_finishes_and_the_error_falls(lab, data, tmp_path, motion):
    page, lab, row = lab
    page.emulate_media(reduced_motion=motion)
    for _ in range(3): lab.get_by_role('button', name='Add a hinge').click()
    start = row('yours, 4')
    lab.get_by_role('button', name='Let gradient descent finish').click()
    if motion == 'no-preference':
        page.wait_for_timeout(400)
        lab.get_by_role('button', name='Stop').click()
        still = row('yours')
        page.wait_for_timeout(100)
        assert row('yours') == still != start
        lab.get_by_role('button', name='Start again').click()
        for _ in range(3): lab.get_by_role('button', name='Add a hinge').click()
        lab.get_by_role('button', name='Let gradient descent finish').click()
    page.locator('.lab[data-lab=hinges] .lab-status', has_text='Off by').wait_for(timeout=60000)
    state = dict(base=data['start']['base'],
                 hinges=data['start']['hinges'] + [dict(a=0, side=1, at=v) for v in (.5, .25, .75)])
    want = in_node('hinges', 'descend', [[state, data['x'], data['p'], 10000]], tmp_path)[0]['error']
    assert row('yours') == f'{100*want:.2f}' and float(row('yours')) < float(start)
