"The lab Softmax: its columns are PyTorch's in float32, overflow included; its handles, buttons and keys work"
import math, random

import pytest, torch, torch.nn.functional as F
from conftest import beside, button, cells, drag, in_node, number, press, slider, value

from backprop13.training import cross_entropy

NAMES = ['cat', 'dog', 'plane', 'fish', 'building']
# float32 against float32: sums may run in another order, exp and log may be off by one in the last place
CLOSE = dict(rtol=2e-6, atol=5e-7)


def naive(x, target):
    "The table, written as the chapter does"
    exp = x.exp()
    p = exp/exp.sum()
    y = F.one_hot(torch.tensor(target), len(x)).to(x.dtype)
    return dict(exp=exp, sum=exp.sum(), softmax=p, onehot=y, minuslog=-p.log(), product=y*-p.log(),
                loss=(y*-p.log()).sum())


def some_cases(n, seed=1):
    "Scores, a target, what they are multiplied with and what is added: plain ones, large ones, shifted ones"
    draw = random.Random(seed)
    for _ in range(n):
        scores = [round(draw.uniform(-8, 8), 2) for _ in NAMES]
        target, times = draw.randrange(5), draw.choice([1, 1, 1, 2, 10, 30, 100])
        yield scores, target, times, draw.choice([0, 0, 0, draw.randint(-120, 120)])


def same(got, want, where):
    got, want = (torch.as_tensor(o, dtype=torch.float32) for o in (got, want))
    torch.testing.assert_close(got, want, **CLOSE, equal_nan=True, msg=lambda m: f'{where}: {m}')


def test_columns_are_pytorch_s():
    cases = list(some_cases(400))
    made = in_node('softmax', 'outputs', [[s, times, shift] for s, _, times, shift in cases])
    for x, (scores, _, times, shift) in zip(made, cases):
        assert x == (torch.tensor(scores)*times + shift).tolist()
    args = [[x, target] for x, (_, target, _, _) in zip(made, cases)]
    seen = set()
    said = [in_node('softmax', f, args) for f in ('asItReads', 'byLogSumExp')]
    for (x, target), got, stable in zip(args, *said):
        t = torch.tensor(x, dtype=torch.float32)
        want = naive(t, target)
        # a softmax below the smallest normal number has few digits: leave those cases to the patterns below
        rough = bool((want['softmax'] < torch.finfo(t.dtype).tiny).logical_and(want['softmax'] > 0).any())
        for k, v in want.items():
            if not (rough and k in ('minuslog', 'product', 'loss')): same(got[k], v, (k, x, target))
            mine = torch.tensor(got[k], dtype=v.dtype)
            assert torch.equal(mine.isnan(), v.isnan()) and torch.equal(mine.isinf(), v.isinf()), (k, x)
        true = F.cross_entropy(t, torch.tensor(target))
        same(stable['loss'], true, ('loss', x, target))
        same(stable['loss'], cross_entropy(t[None], torch.tensor([target])), ('our loss', x, target))
        same(stable['minuslog'], -F.log_softmax(t, 0), x)
        same(stable['softmax'], F.softmax(t, 0), x)
        assert math.isfinite(stable['loss']) and all(map(math.isfinite, stable['product']))
        seen.add((math.isnan(got['loss']), math.isinf(got['sum']), got['sum'] == 0))
    no, yes = False, True
    assert {(no, no, no), (yes, yes, no), (yes, no, yes), (yes, no, no)} <= seen, seen


def test_it_overflows_where_float32_does():
    limit = math.log(torch.finfo(torch.float32).max)
    below, above = in_node('softmax', 'asItReads', [[[limit-.001, 0.], 0], [[limit+.001, 0.], 0]])
    assert math.isfinite(below['loss']) and above['exp'][0] == math.inf and math.isnan(above['loss'])


def test_the_sentence_names_what_went_wrong():
    cases = {'of dog, is more than': [-489., 260, 59, -207, -457],
             'their sum is more': [88.5, 88.5, 0., 0, 0], 'Every exp is too small': [-200.]*5,
             'softmax of cat is rounded to 0': [-489., 60, 59, 0, 0]}
    said = in_node('softmax', 'trouble', [[x, NAMES, 1] for x in [*cases.values(), [1., 2, 3, 4, 5]]])
    assert [part in text for part, text in zip(cases, said)] == [True]*4 and said[-1] == ''
    assert not any(naive(torch.tensor(x), 1)['loss'].isfinite() for x in cases.values())


SCORES = [-4.89, 2.6, .59, -2.07, -4.57]

def holds(lab):
    "The numbers shown are PyTorch's for the scores that the handles say"
    scores = [value(slider(lab, f'score of {who}')) for who in NAMES]
    t, target = torch.tensor(scores), [r.is_checked() for r in lab.get_by_role('radio').all()].index(True)
    want = naive(t, target) | dict(score=t)
    for i, who in enumerate(NAMES):
        assert row(lab, who) == pytest.approx(
            [want[k][i].item() for k in ('score', 'exp', 'softmax', 'onehot', 'minuslog', 'product')],
            abs=6e-5, rel=.001)
    assert row(lab, 'sum')[-1] == pytest.approx(F.cross_entropy(t, torch.tensor(target)).item(), abs=6e-5)
    return scores, target

def row(lab, who): return [number(v) for v in cells(lab, who).all_inner_texts() if v]


def test_it_answers_pointer_and_keys(open_lab):
    lab = open_lab('softmax')
    assert holds(lab) == (SCORES, 1)
    slider(lab, 'score of fish').focus()
    press(lab, *['ArrowRight']*3, 'Shift+ArrowRight')
    assert holds(lab)[0][3] == pytest.approx(-.77)
    drag(lab.page, *beside(slider(lab, 'score of dog'), (-40, 0)))
    assert holds(lab)[0][1] < 2.
    lab.get_by_role('radio', name='plane').check()
    assert holds(lab)[1] == 2
    button(lab, 'Start again')
    assert holds(lab) == (SCORES, 1)


def test_it_shows_what_overflows_and_what_helps(open_lab):
    lab = open_lab('softmax')
    def said(): return lab.locator('.lab-status').inner_text()
    slider(lab, 'times').press('End')
    big = 100*torch.tensor(SCORES)
    assert naive(big, 1)['loss'].isnan() and math.isnan(row(lab, 'sum')[-1])
    assert 'of dog, is more than' in said()
    button(lab, 'LogSumExp')
    assert F.cross_entropy(big, torch.tensor(1)) == 0
    assert row(lab, 'sum')[-1] == 0 and row(lab, 'plane') == [59, 0, 0, 0, 201, 0]
    assert 'nan' not in lab.locator('table').inner_text()
    assert 'a = 260.00' in said() and 'Without LogSumExp: exp(260.00), of dog' in said()
    button(lab, 'LogSumExp')                                            # the one switch, back
    assert math.isnan(row(lab, 'sum')[-1])
    lab.get_by_label('plus').focus()
    press(lab, 'Home')
    assert row(lab, 'dog')[0] == 140
