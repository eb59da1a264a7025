"""The lab Flow: its numbers are those of our own Modules and of autograd, nudges are measured, its
hands and keys work"""
import random, re

import pytest, torch
import torch.nn.functional as F
from conftest import MIDDLE, beside, button, cells, drag, in_node, lab_data, number, press, slider, stop_clock

from backprop13.support import labs

draw = random.Random(1)


def tensors(data, images=(0, 1)):
    "What the lab starts from, as `flow_run` takes it"
    return [[data[k][i] for i in images] for k in 'xy'] + [data['w1'], data['w2']]

def args(x, y, w1, w2): return [x, y, [v for row in w1 for v in row] + list(w2)]

def case(n):
    r = lambda *size: [r(*size[1:]) for _ in range(size[0])] if size else round(draw.uniform(-2, 2), 2)
    return r(n, 3), r(n), r(3, 2), r(2)

START = dict(x=[[1, .5, 0], [0, .5, 1]], y=[2, 1], w1=[[1, -1.5], [1, 2], [.5, 2]], w2=[2, -1])
# pixel 1 at 2.5 in the second unit: it stands at 0, which is shut
AT_0 = [[1, .5, 0]], [2], [[1, -1], [1, 2], [.5, 2]], [2, -1]
CASES = [tensors(START, i) for i in ((0,), (1,), (0, 1))] + [AT_0] + [case(n) for n in (1, 2, 3)
    for _ in range(8)]


def autograd(x, y, w1, w2):
    "The same network in PyTorch's own functions; its leaves, and what lies between"
    t = {k: torch.tensor(v, dtype=torch.float64, requires_grad=k in ('w1', 'w2')) for k,
         v in dict(x=x, y=y, w1=w1, w2=w2).items()}
    t['l1'] = t['x'] @ t['w1']
    t['l2'] = F.relu(t['l1'])
    t['out'] = t['l2'] @ t['w2']
    for k in ('l1', 'l2', 'out'): t[k].retain_grad()
    t['loss'] = F.mse_loss(t['out'], t['y'])
    t['loss'].backward()
    return t

def near(got, want):
    torch.testing.assert_close(torch.as_tensor(got, dtype=torch.float64).flatten(), want.detach().flatten(),
                               rtol=0, atol=1e-9)


# ---- arithmetic and words

def test_both_passes_are_our_modules_and_autograd_s():
    for given, got in zip(CASES, in_node('flow', 'run', [args(*o) for o in CASES])):
        theirs, ours = autograd(*given), labs.flow_run(*given)
        for k in ('l1', 'l2', 'out', 'loss'): near(got[k], theirs[k]); near(got[k], ours[k])
        for k in ('l1', 'l2', 'out'): near(got[k + 'G'], theirs[k].grad); near(got[k + 'G'], ours[k].g)
        near(got['g'], torch.cat([theirs[k].grad.flatten() for k in ('w1', 'w2')]))
        near(got['g'], torch.cat([ours[k].g.flatten() for k in ('w1', 'w2')]))


def runs(*cases): return in_node('flow', 'run', [args(*o) for o in cases])

def test_a_weight_s_gradient_is_what_stands_before_and_behind_it():
    for given, run, all_terms in zip(CASES, runs(*CASES), zip(*[iter(in_node('flow', 'terms',
            [[run, e] for run in runs(*CASES) for e in range(8)]))]*8)):
        t = autograd(*given)
        for e, pairs in enumerate(all_terms):
            front, behind = (t['x'][:, e//2], t['l1'].grad[:, e % 2]) if e < 6 else (t['l2'][:, e - 6],
                t['out'].grad)
            near(pairs, torch.stack([front, behind], 1))
            assert sum(a*b for a, b in pairs) == pytest.approx(run['g'][e], abs=1e-9)


def test_the_chain_leads_from_the_weight_to_the_loss():
    for given, run, chains in zip(CASES, runs(*CASES), zip(*[iter(in_node('flow', 'chain',
            [[run, e] for run in runs(*CASES) for e in range(8)]))]*8)):
        t = autograd(*given)
        for e, got in enumerate(chains):
            k, out = e % 2, t['out'].grad
            parts = [t['x'][:, e//2], (t['l1'][:, k] > 0).double(), t['w2'][k].expand(len(out)), out] if e < 6 \
                else [t['l2'][:, k], out]
            near(got, torch.stack(parts, 1))
            grads = t['w1' if e < 6 else 'w2'].grad.flatten()
            near(torch.tensor(got, dtype=torch.float64).prod(1).sum(), grads[e % 6])


def text_of(links): return [' × '.join(text for text, _ in o) for o in links]

def test_the_chain_in_words_and_numbers():
    one, both = runs(tensors(START, (0,)), tensors(START))
    links = lambda run, e: in_node('flow', 'links', [[run, e]])[0]
    words = 'pixel × relu (open 1, shut 0) × w2 × 2(out − y)'
    assert text_of(links(one, 0)) == [words, '1 × 1 × 2 × 2(3 − 2)']
    assert text_of(links(one, 3)) == [words, '0.5 × 0 × (−1) × 2(3 − 2)']
    assert text_of(links(both, 0))[1:] == ['1 × 1 × 2 × 2(3 − 2)/2', '0 × 1 × 2 × 2(−1 − 1)/2']
    assert text_of(links(both, 7)) == ['l2 × 2(out − y)/2', '0 × 2(3 − 2)/2', '3 × 2(−1 − 1)/2']
    assert [kind for _, kind in links(one, 0)[1]] == ['inputs', 'activations', 'weights', 'gradients']


def test_the_way_that_it_names_lowers_the_loss():
    smooth = [o for o in CASES if o != AT_0]                  # where relu has a corner, one way differs from the other
    all_runs, seen = runs(*smooth), set()
    told = iter(in_node('flow', 'way', [[run, e] for run in all_runs for e in range(8)]))
    for given, run in zip(smooth, all_runs):
        for e in range(8):
            words, lower, higher = next(told), *(loss_at(given, e, by) - run['loss'] for by in (-1e-5, 1e-5))
            seen.add(words)
            if words.startswith('Zero'): assert abs(lower) < 1e-7 > abs(higher)
            else: assert ('lowering' in words) == (lower < 0) and ('raising' in words) == (higher < 0)
    assert len(seen) == 3


def loss_at(given, e, by):
    x, y, w1, w2 = given
    flat = torch.tensor([v for row in w1 for v in row] + list(w2), dtype=torch.float64)
    flat[e] += by
    return labs.flow_run(x, y, flat[:6].view(3, 2).tolist(), flat[6:].tolist())['loss'].item()

def test_how_far_a_gradient_can_be_trusted_is_measured():
    chosen = CASES[:8]
    got = iter(in_node('flow', 'reach', [[run, e] for run in runs(*chosen) for e in range(8)]))
    for given, run in zip(chosen, runs(*chosen)):
        for e in range(8):
            def fits(by):
                change = loss_at(given, e, by) - run['loss']
                return abs(change - by*run['g'][e]) <= abs(change)/10 + 1e-9
            want = [next((k - 1 for k in range(1, 101) if not fits(sign*k/100)), 100)*sign/100
                    for sign in (-1, 1)]
            assert next(got) == pytest.approx(want), (given, e)
    # the first weight; one of a shut unit, which opens; one of a pixel without ink
    [run] = runs(tensors(START, (0,)))
    assert in_node('flow', 'reach', [[run, e] for e in (0, 1, 4)]) == [[-.09, .11], [-1, .5], [-1, 1]]


def test_what_it_says():
    one, two, both = runs(*(tensors(START, o) for o in ((0,), (1,), (0, 1))))
    say = lambda run, e=0: in_node('flow', 'say', [[run, k, e] for k in range(9)])
    assert [say(one)[k] for k in (1, 2, 4, 5, 7)] == [
        'Forward: value × weight, added up. l1 of the first unit: 1 × 1 + 0.5 × 1 + 0 × 0.5 = 1.5.',
        'relu lets through what is above zero. It is shut in the second unit.',
        'loss = (out − y)²: (3 − 2)² = 1.',
        'Backward: out.g = 2(out − y): 2 × (3 − 2) = 2.',
        'An open relu lets the gradient through, a shut one stops it. l1.g: 4 in the first unit, '
        '0 in the second unit.']
    assert say(*runs(AT_0))[2].endswith('It is shut in the second unit.')
    assert say(two)[2].endswith('Both units are open.') and say(two)[3] == 'out = 1 × 2 + 3 × (−1) = −1.'
    assert [say(both)[k] for k in (2, 4, 5, 6, 8)] == [
        'relu lets through what is above zero. It is shut in the second unit for image 1.',
        'loss = (out − y)², the mean over the images: ((3 − 2)² + (−1 − 1)²) / 2 = 2.5.',
        'Backward: out.g = 2(out − y) / 2, since the loss is the mean: '
        '2 × (3 − 2) / 2 = 1; 2 × (−1 − 1) / 2 = −2.',
        'w2.g = l2 × out.g: 1.5 × 1 + 1 × (−2) = −0.5; 0 × 1 + 3 × (−2) = −6. '
        'And l2.g = w2 × out.g: 2 and −4 in the first unit, −1 and 2 in the second unit.',
        'Both passes are done. Each weight has its gradient, value where its edge starts × gradient where it ends: '
        'from pixel 1 to the first unit, pixel × l1.g = 1 × 2 + 0 × (−4) = 2.']
    # the edge in hand
    assert [say(one, e)[1].split('l1 of ')[1] for e in (3, 7)] == [
        'the second unit: 1 × (−1.5) + 0.5 × 2 + 0 × 2 = −0.5.']*2
    assert [say(one, e)[8].split(': ', 1)[1] for e in (2, 6)] == [
        'from pixel 2 to the first unit, pixel × l1.g = 0.5 × 4 = 2.',
        'from the first unit to out, l2 × out.g = 1.5 × 2 = 3.']
    opened = runs(([[1, .5, 0]], [2], [[1, -.5], [1, 2], [.5, 2]], [2, -1]))[0]
    assert say(opened)[2].endswith('Both units are open.')
    judged = in_node('flow', 'judge',
                     [[[-1, .5], -1.5, one, opened, 1], [[-1, .5], -1.5, opened, one, -.5],
                      [[-.2, 1], 2, one, one, 0], [[-1, 1], 1, one, one, 0], [[0, 0], 1, one, one, .1],
                      [[-.09, .11], 1, one, one, -.09], [[-.09, .11], 1, one, one, .12]])
    assert judged == [
        'They agree to within a tenth of the change from the plot’s edge to a weight of −1; '
        'this nudge is beyond. A relu has opened.',
        'They agree to within a tenth of the change from the plot’s edge to a weight of −1. A relu has shut.',
        'They agree to within a tenth of the change from a weight of 1.8 to the plot’s edge.',
        'They agree as far as the plot goes.', 'They differ at once: a loss at its lowest has derivative 0.',
        'They agree to within a tenth of the change for weights from 0.91 to 1.11.',
        'They agree to within a tenth of the change for weights from 0.91 to 1.11; this nudge is beyond.']
    assert in_node('flow', 'num', [[1.5], [-.125, 3], [2], [-1e-12], [1/3], [.0404, 4]]) == ['1.5',
        '−0.125', '2', '0', '0.33', '0.0404']


def test_the_still_picture_shows_the_same_run():
    run = labs.flow_run(*tensors(START, (0,)))
    texts = re.findall(r'<text [^>]*fill="(#\w+)">([^<]*)<', labs.still_flow(run))
    def shown(*kinds): return sorted(number(s) for c, s in texts if c in kinds)
    gradients = [run[k].g.flatten() for k in ('w1', 'w2', 'l1', 'l2', 'out', 'loss')]
    assert shown(labs.COLORS['gradients']) == sorted(torch.cat([o.view(-1) for o in gradients]).tolist())
    assert shown(labs.COLORS['weights']) == sorted(torch.cat([run['w1'].flatten(),
        run['w2'].flatten()]).tolist())
    values = [run[k].flatten() for k in ('x', 'targ', 'l1', 'l2', 'out', 'loss')]
    assert shown('#1d2126') == sorted(torch.cat([o.view(-1) for o in values]).tolist())
    # one relu is shut: the second's
    assert re.findall(r'd="M(\d+) 218h32" stroke="#b3261e"', labs.still_flow(run)) == ['278']
    assert 'relu is shut in the second unit' in labs.flow().page


# ---- on the page

@pytest.fixture
def lab(open_lab): return open_lab('flow', viewport={'width': 1440, 'height': 900})

READ = """lab => [...lab.querySelectorAll('g:has(> .lab-cell)')].filter(g => getComputedStyle(g).display !== 'none')
    .map(g => [...g.querySelectorAll('text')].map(t => t.textContent))"""

def shown(lab):
    "Every value and gradient on the diagram, in its order: pixels, units with l1 and l2, out, y, loss"
    return [[number(s) if s else None for s in pair] for pair in lab.evaluate(READ)]

def wanted(images, w1=START['w1'], w2=START['w2']):
    x, y, _, _ = tensors(START, images)
    run = labs.flow_run(x, y, w1, w2)
    each = lambda t, *at: [[t[(i, *at)].item(), t.g[(i, *at)].item()] for i in range(len(x))]
    return ([[x[i][j], None] for j in range(3) for i in range(len(x))]
            + [o for k in (0, 1) for l in ('l1', 'l2') for o in each(run[l], k)] + each(run['out'], 0)
            + [[v, None] for v in y] + [[run['loss'].item(), 1.]]), run

NAMES = [f'weight from pixel {j} to the {k} unit' for j in (1, 2, 3) for k in ('first', 'second')] + \
    [f'weight from the {k} unit to out' for k in ('first', 'second')]

def chips(lab):
    return [number(t) for name in NAMES for t in slider(lab, name).locator('text').all_text_contents()]

def thick(lab):
    return [float(v) for v in lab.locator('.lab-thick').evaluate_all(
        "ls => ls.map(l => getComputedStyle(l).visibility === 'hidden' ? 0 : l.getAttribute('stroke-width'))")]


@pytest.mark.parametrize('name,images', [('image 1', (0,)), ('image 2', (1,)), ('both', (0, 1))])
def test_the_diagram_shows_a_run_of_our_modules(lab, name, images):
    assert lab_data('03_backprop.ipynb', 'flow') == START == lab_data('index.ipynb', 'flow')
    button(lab, name)
    want, run = wanted(images)
    for got, w in zip(shown(lab), want, strict=True): assert got == pytest.approx(w)
    pairs = [(w.item(), g.item()) for k in ('w1', 'w2') for w, g in zip(run[k].flatten(), run[k].g.flatten())]
    assert chips(lab) == pytest.approx([v for pair in pairs for v in pair])
    assert thick(lab)[:8] == pytest.approx([min(26, 2.4*abs(g)) for _, g in pairs])
    shut = (run['l1'] <= 0).sum().item()
    seen = """ls => ls.map(e => getComputedStyle(e))
        .filter(s => s.display !== 'none' && s.visibility !== 'hidden').length"""
    assert lab.locator('.lab-closed').evaluate_all(seen) == lab.locator('.lab-shut').evaluate_all(seen) == shut
    for i, name in enumerate(NAMES):
        slider(lab, name).hover()
        left, right = lab.locator('.lab-eq').inner_text().split(' = ')
        assert left == ' + '.join(text_of(in_node('flow', 'links', [[*runs(tensors(START, images)), i]])[0])[1:])
        assert number(right) == pytest.approx(pairs[i][1])
        g = pairs[i][1]
        assert lab.get_by_text('Positive: ' if g > 0 else 'Negative: ' if g else 'Zero: ').is_visible()
        for end in '.lab-front', '.lab-behind': assert lab.locator(end).filter(visible=True).count() == len(images)


def numbers_of(lab, head): return [number(s) for s in cells(lab, head).last.all_inner_texts()]

def compared(lab, e, by):
    "The lab's two numbers for a nudge are Python's"
    before, run = loss_at(tensors(START, (0,)), e, 0), wanted((0,))[1]
    g = torch.cat([run['w1'].g.flatten(), run['w2'].g.flatten()])[e].item()
    assert numbers_of(lab, 'nudge × w.g before') == pytest.approx([by*g], abs=6e-5)
    assert numbers_of(lab, 'loss now − before') == pytest.approx([loss_at(tensors(START, (0,)), e, by)
        - before], abs=6e-5)


def test_a_drag_is_compared_with_its_gradient_and_moves_nothing_else(lab):
    def places():
        return lab.locator('.lab-cell, .lab-face').evaluate_all('rs => rs.map(r => { const b = '
            'r.getBoundingClientRect(); return [b.x, b.y] })')
    before = places()
    chip = slider(lab, NAMES[1])
    drag(lab.page, *beside(chip.locator('.lab-face'), (140, 0)))
    assert chip.get_attribute('aria-valuenow') == '-0.8'
    assert '; derivative' not in chip.get_attribute('aria-valuetext')
    compared(lab, 1, .7)
    said = lab.inner_text()
    assert 'from the plot’s edge to a weight of −1; this nudge is beyond. A relu has opened.' in said
    g = wanted((0,), w1=[[1, -.8], [1, 2], [.5, 2]])[1]['w1'].g[0, 1].item()
    assert f'w.g: 0 before the nudge, {g:.3g} now'.replace('-', '−') in said
    status = lab.locator('.lab-flow > .lab-status').inner_text()
    assert 'from pixel 1 to the second unit, pixel × l1.g = 1 × ' in status
    want, _ = wanted((0,), w1=[[1, -.8], [1, 2], [.5, 2]])
    for got, w in zip(shown(lab), want, strict=True): assert got == pytest.approx(w, abs=6e-3)
    assert places() == before
    # on from there, in the plot, by a tenth
    dot = slider(lab, 'the weight in the plot')
    x, y = dot.evaluate(MIDDLE)
    width = lab.locator('.lab-near').evaluate("l => l.ownerSVGElement.getScreenCTM().a")*96
    drag(lab.page, (x, y), (x + width/10, y))
    assert float(chip.get_attribute('aria-valuenow')) == pytest.approx(-.7, abs=.011)
    # it still counts from where the nudge began, also for other images
    def nudge(): return number(cells(lab, 'nudge × w.g before').first.inner_text().split(' × ')[0])
    assert nudge() == pytest.approx(.8, abs=.011)
    button(lab, 'both')
    assert nudge() == pytest.approx(.8, abs=.011) and dot.get_attribute('aria-valuemin') == '-2.5'
    slider(lab, 'step').focus()
    press(lab, 'Home')
    button(lab, 'Start again')
    want, _ = wanted((0,))
    for got, w in zip(shown(lab), want, strict=True): assert got == pytest.approx(w)
    # an edge is taken hold of by a click, too
    page, hit = lab.page, lab.locator('.lab-hit').nth(7)
    page.mouse.click(*hit.evaluate("l => { const p = l.getPointAtLength(l.getTotalLength()*.9), m "
                                   "= l.getScreenCTM(); return [p.x*m.a + m.e, p.y*m.d + m.f] }"))
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == NAMES[7]


def test_the_plot_is_to_scale(lab):
    slider(lab, NAMES[0]).focus()
    press(lab, *['PageUp']*3)
    lines, dot, gap, near = lab.evaluate("""e => {
        const numbers = (o, k) => o.getAttribute(k).match(/[-\\d.]+/g).map(Number)
        return [[...e.querySelectorAll('.lab-curve')].map(p => numbers(p, 'd')),
            numbers(e.querySelector('.lab-flow .lab-columns .lab-handle'), 'transform'),
            ...['.lab-gap', '.lab-near'].map(k => e.querySelector(k))
                .map(o => ['x1', 'y1', 'x2', 'y2'].flatMap(a => numbers(o, a)))]
        }""")
    loss, tangent = ([*zip(o[::2], o[1::2])] for o in lines)
    x = lambda at: (at - loss[0][0])/(loss[-1][0] - loss[0][0])*2 - 1                       # -1 to 1: the nudge
    # from 1 at -1 to 9 at 1
    y = lambda at: (at - loss[0][1])/(loss[-1][1] - loss[0][1])*8 + 1
    for a, b in loss: assert y(b) == pytest.approx(loss_at(tensors(START, (0,)), 0, x(a)), abs=.1)
    for a, b in tangent: assert y(b) == pytest.approx(1 + 4*x(a), abs=.1)
    want = loss_at(tensors(START, (0,)), 0, .3)
    assert (x(dot[0]), y(dot[1])) == pytest.approx((.3, want), abs=.01)
    assert (x(gap[0]), y(gap[1]), x(gap[2]), y(gap[3])) == pytest.approx((.3, 2.2, .3, want), abs=.01)
    assert (x(near[0]), x(near[2])) == pytest.approx((-.09, .11), abs=.001)


def test_the_keys(lab):
    chip = slider(lab, NAMES[0])
    chip.focus()
    for keys, by in (['ArrowUp'], .01), (['ArrowRight']*4, .05), (['PageUp'], .15), (['Home'],
        -1), (['End'], 1), (['Shift+ArrowLeft'], .9):
        press(lab, *keys)
        assert float(chip.get_attribute('aria-valuenow')) == pytest.approx(1 + by)
        compared(lab, 0, by)
    step = slider(lab, 'step')
    step.focus()
    press(lab, 'Home')
    assert step.get_attribute('aria-valuetext') == 'pixels' and shown(lab)[3:8] == [[None, None]]*5
    press(lab, 'ArrowRight', 'ArrowRight')
    assert step.get_attribute('aria-valuetext') == 'forward: relu'
    assert 'relu lets through' in lab.locator('.lab-flow > .lab-status').inner_text()
    press(lab, 'End')
    assert step.get_attribute('aria-valuetext') == 'backward: w1.g'


@pytest.mark.parametrize('key', [None, 'Enter', ' '])
def test_it_plays_in_order(lab, key):
    page, play = lab.page, lab.get_by_role('button', name='Play', exact=True)
    stop_clock(page)
    if key: slider(lab, NAMES[3]).focus()
    if key: press(lab, key)
    else: play.click()
    def known():
        return [[v is not None for v in pair] for pair in shown(lab)[3:]]       # the units, out, y, loss
    def dots(): return lab.locator('.lab-flow > svg > circle').filter(visible=True).count()
    page.clock.run_for(500)
    assert not any(v for v, _ in known()[:5])
    assert dots() == 6                            # on their way to the units
    page.clock.run_for(4*1800)
    assert all(v for v, _ in known()) and [g for _, g in known()] == [False]*6 + [True] and dots() == 1
    assert thick(lab)[:8] == [0]*8 and thick(lab)[8] > 0                                 # back from the loss
    page.clock.run_for(1800)
    assert thick(lab)[6] > 0 and thick(lab)[:6] == [0]*6 and 'w2.g = l2 × out.g' in lab.inner_text()
    button(lab, 'Pause')
    page.clock.run_for(5*1800)
    assert slider(lab, 'step').get_attribute('aria-valuetext') == 'backward: w2.g' and dots() == 0
    play.click()
    page.clock.run_for(3*1800)
    for got, want in zip(shown(lab), wanted((0,))[0], strict=True): assert got == pytest.approx(want)
    assert play.is_visible() and thick(lab)[0] > 0


def test_while_it_rests_nothing_is_drawn_anew(lab):
    page = lab.page
    stop_clock(page)
    button(lab, 'Play')
    lab.evaluate("""e => { window.anew = 0; new MutationObserver(list => { anew += list.length })
        .observe(e, {attributes: true, childList: true, characterData: true, subtree: true}) }""")
    def during(ms):
        page.evaluate('anew = 0')
        page.clock.run_for(ms)
        return page.evaluate('anew')
    assert during(600) > 100                                 # it moves for half of a step
    page.clock.run_for(400)
    assert during(600) == 0                                  # and is read for the other half


STEPS = ['pixels', *(f'forward: {o}' for o in ('l1', 'relu', 'out', 'loss')),
         *(f'backward: {o}' for o in ('out.g', 'w2.g', 'relu', 'w1.g'))]

def step_of(lab): return slider(lab, 'step').get_attribute('aria-valuetext')

def test_it_goes_step_by_step_both_ways(lab):
    back, on = (lab.get_by_role('button', name=o, exact=True) for o in ('Back', 'Next'))
    assert on.is_disabled()
    told = [step_of(lab)]
    for go in [back]*8 + [on]*8:
        go.click()
        told.append(step_of(lab))
    assert told == STEPS[::-1] + STEPS[1:] and on.is_disabled() and back.is_enabled()


def test_where_motion_is_unwanted_it_plays_without(open_lab):
    lab = open_lab('flow', viewport={'width': 390, 'height': 844}, reduced_motion='reduce')
    page, told = lab.page, []
    stop_clock(page)
    button(lab, 'Play')
    for _ in range(9):
        page.clock.run_for(900)
        told.append(step_of(lab))
        assert lab.locator('.lab-flow > svg > circle').filter(visible=True).count() == 0
        page.clock.run_for(900)
    assert told == STEPS and lab.get_by_role('button', name='Play', exact=True).is_visible()


@pytest.mark.parametrize('e,step', [(0, 8), (6, 6)])
def test_a_gradient_is_shown_from_its_step_on_and_its_edge_always(lab, e, step):
    chip = slider(lab, NAMES[e])
    chip.focus()
    lab.page.mouse.move(1, 1)
    for k in range(8, -1, -1):
        there = k >= step
        assert (lab.locator('.lab-eq').inner_text() != '?') == there
        assert ('derivative' in chip.get_attribute('aria-valuetext')) == there
        assert (cells(lab, 'nudge × w.g before').last.inner_text() != '?') == there
        assert lab.get_by_text('agree', exact=True).is_visible() == there
        assert ('w.g: ?' in lab.inner_text()) != there
        assert bool(lab.locator('.lab-columns .lab-status').inner_text()) == there
        chosen = lab.locator('.lab-thin').evaluate_all("ls => ls.map(l => l.classList.contains('lab-chosen'))")
        assert chosen == [i == e for i in range(10)], k
        if k: button(lab, 'Back')
    # a nudge goes to the step that it needs, and no further
    chip.focus()
    press(lab, 'ArrowRight')
    assert step_of(lab) == STEPS[step]


@pytest.mark.parametrize('width,height,screens', [(1440, 900, 1), (768, 900, 1), (390, 844, 2), (360, 740, 2)])
def test_it_fits(open_lab, width, height, screens):
    lab = open_lab('flow', viewport={'width': width, 'height': height})
    def tall(): return lab.evaluate('e => e.getBoundingClientRect().height')
    heights = []
    for name in 'image 1', 'image 2', 'both':
        button(lab, name)
        slider(lab, 'step').focus()
        press(lab, 'Home')
        for _ in range(9):
            heights.append(tall())
            press(lab, 'ArrowRight')
    assert max(heights) - min(heights) < 1 and max(heights) <= screens*height
    small = """e => [...e.querySelectorAll('svg text')].filter(t => t.textContent && t.getBoundingClientRect().width)
        .map(t => parseFloat(getComputedStyle(t).fontSize)*t.getScreenCTM().a).sort((a, b) => a - b)[0]"""
    assert lab.evaluate(small) >= 11
    inside = """e => { const room = e.querySelector('.lab-live').getBoundingClientRect()
        return [...e.querySelectorAll('svg text, svg rect')].map(t => t.getBoundingClientRect())
            .every(r => r.left >= room.left && r.right <= room.right) }"""
    assert lab.evaluate(inside)
    # every text in a box stands within it
    wide = """e => { const width = o => o.getBoundingClientRect().width
        return [...e.querySelectorAll('.lab-cell, .lab-face')].filter(width).filter(r =>
            [...r.parentNode.querySelectorAll('text')].some(t => width(t) > width(r))).length }"""
    assert lab.evaluate(wide) == 0
    clash = """e => {
        const all = [...e.querySelectorAll('.lab-cell, .lab-face')].map(r => r.getBoundingClientRect())
            .filter(r => r.width)
        return all.filter((a, i) => all.slice(i + 1).some(b =>
            Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 &&
            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)).length }"""
    assert lab.evaluate(clash) == 0                          # no box lies on another


@pytest.mark.parametrize('height', [740, 844])
def test_a_phone_shows_a_weight_and_its_curve_at_once(open_lab, height):
    lab = open_lab('flow', viewport={'width': 390, 'height': height})
    tops = [o.bounding_box()['y'] for o in lab.locator('.lab-chip').all()]
    box = lab.locator('.lab-columns > svg').bounding_box()
    bar = lab.page.locator('.bar').bounding_box()['height']
    assert 0 < box['y'] + box['height'] - min(tops) <= height - bar
