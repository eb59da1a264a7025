"""The lab Order: its numbers are autograd's, whatever the order; pointer, keys and fingers choose; too early is
refused, and says what is missing"""
import random, re

import pytest, torch
from conftest import button, in_node, lab_data, press

from backprop13.autograd import Tensor, grad


def example(w, x):
    "The lab's graph, in forward order"
    h = w*x; a = h*h; b = h + a
    return dict(w=w, x=x, h=h, a=a, b=b, y=w*b)


@pytest.fixture(scope='module')
def nodes(): return lab_data('06_autograd.ipynb', 'order')['nodes']


def drawn(seed):
    "A random graph of sums and products: values in use anywhere, many times, and as the lab has it"
    rand = random.Random(seed)
    made = [Tensor(float(rand.randint(-3, 3))) for _ in range(2)]
    for _ in range(rand.randint(1, 7)):
        a, b = rand.choice(made), rand.choice(made[-3:])
        made.append(a*b if rand.random() < .5 else a + b)
    at = {t: i for i, t in enumerate(made)}
    return made, [dict(name=f'v{i}', g=g.item(),
                       made_of=[[at[p], rule(Tensor(1.)).item()] for p, rule in t.made_of])
                  for i, (t, g) in enumerate(zip(made, grad(made[-1], made)))]


def by_steps(nodes, order):
    "What each node has, if they go on in that order: chapter 6's step, with +="
    g = [0.]*(len(nodes) - 1) + [1.]
    for i in order:
        for part, slope in nodes[i]['made_of']: g[part] += slope*g[i]
    return g


def test_a_run_of_our_engine_and_pytorch_give_its_numbers(nodes):
    t = {k: torch.tensor(v, requires_grad=True) for k, v in dict(w=2., x=3.).items()}
    made = example(**t)
    want = torch.autograd.grad(made['y'], list(made.values()))
    assert [n['name'] for n in nodes] == list(made) and [n['g'] for n in nodes] == [o.item() for o in want]
    assert all(n['text'].endswith(f'= {made[n["name"]].item():g}') for n in nodes)
    assert by_steps(nodes, [5, 4, 3, 2]) == [n['g'] for n in nodes]


def test_shares_are_those_of_steps_in_any_order():
    rand, cases = random.Random(1), []
    for seed in range(60):
        made, graph = drawn(seed)
        order = rand.sample(range(len(made)), rand.randint(0, len(made)))
        cases += [[graph, order], [graph, list(range(len(made)))[::-1]]]
    for (graph, order), got in zip(cases, in_node('order', 'passed', cases)):
        totals = [sum(o['share'] or 0 for o in shares) for shares in got]
        assert totals == pytest.approx(by_steps(graph, order), rel=1e-6)
        for i, shares in enumerate(got):
            # missing is what comes from those that haven't gone on
            users = {j for j, n in enumerate(graph) if i in [part for part, _ in n['made_of']]}
            assert {o['from'] for o in shares if o['share'] is None} == users - {*order}
        if len(order) == len(graph) and order[0] == len(graph) - 1:
            assert totals == pytest.approx([n['g'] for n in graph], rel=1e-6)


def test_what_it_says(nodes):
    w, x, h, a, b, y = range(6)
    cases = ([], y), ([], h), ([y, b], h), ([y], a), ([y, b, a], w), ([y, b, a], h), ([y, b, a, h], w), ([y], y)
    assert in_node('order', 'say', [[nodes, *o] for o in cases]) == [
        'y goes on with 1: 42 to w and 2 to b.',
        'Too early. h has 0 of 26: 3 shares from b and a are missing. w would get 0 × 3 = 0 from it; 78 is right.',
        'Too early. h has 2 of 26: 2 shares from a are missing. w would get 2 × 3 = 6 from it; 78 is right.',
        'Too early. a has 0 of 2: a share from b is missing. h would get 0 × 6 = 0 from it; 12 is right.',
        'Too early. w has 42 of 120: a share from h is missing.',
        'h goes on with 26: 78 to w and 52 to x.',
        'w was made of nothing: its gradient, 120, stays here.',
        'y has gone on already.']


def node(lab, name): return lab.get_by_role('button', name=re.compile(f'^{name} = '))

def has(lab, name): return node(lab, name).locator('text').last.text_content()

@pytest.mark.parametrize('how', ['click', 'tap', 'Enter', 'Space'])
def test_it_is_played_to_its_end(open_lab, how):
    lab = open_lab('order', viewport={'width': 390, 'height': 844}, has_touch=True)
    def choose(name):
        if how in ('click', 'tap'): return getattr(node(lab, name), how)()
        node(lab, name).focus()
        press(lab, how)
    said = lab.get_by_role('status')
    for name in 'yb': choose(name)
    assert has(lab, 'h') == 'g = 2 + ? + ?' and 'b goes on with 2' in said.inner_text()
    choose('h')
    assert 'Too early. h has 2 of 26' in said.inner_text()
    assert 'lab-early' in node(lab, 'h').get_attribute('class')
    assert lab.locator('path.lab-early').count() == 2 and 'In order: y, b' in lab.inner_text()
    for name in 'ah': choose(name)
    assert has(lab, 'h') == 'g = 2 + 12 + 12 = 26' and has(lab, 'w') == 'g = 42 + 78 = 120'
    assert has(lab, 'x') == 'g = 52'
    assert 'w has 120 and x has 52, as the library says' in said.inner_text()
    assert not lab.locator('.lab-early').count()
    button(lab, 'Start again')
    assert has(lab, 'w') == 'g = ? + ?' and said.inner_text() == ''


def test_a_node_is_large_enough_for_a_finger_and_tab_reaches_it(open_lab):
    lab = open_lab('order', viewport={'width': 360, 'height': 800}, has_touch=True)
    for name in 'wxhaby':
        box = node(lab, name).locator('rect').bounding_box()
        assert min(box['width'], box['height']) >= 44, (name, box)
    node(lab, 'w').focus()
    for name in 'xhaby':
        press(lab, 'Tab')
        assert node(lab, name).evaluate('e => e === document.activeElement')
