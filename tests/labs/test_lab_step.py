"""The lab Step through backprop: it moves and answers as the real pdb does, and shows the numbers
that Python recorded"""
import bdb, itertools, json, random, re

import pytest, torch
import torch.nn.functional as F
from conftest import button, drag, in_node, lab_data, number, press, slider

from backprop13.support import debugger, labs
from backprop13.backprop import forward_and_backward, lin, lin_grad, mse, relu

FUNCTIONS = [forward_and_backward, lin, relu, mse, lin_grad]
STOPS = [[], ['lin_grad'], ['lin', 'relu', 'mse', 'lin_grad']]


@pytest.fixture(scope='module')
def data(): return lab_data('03_backprop.ipynb', 'step')


@pytest.fixture(scope='module')
def run(data): return data['run']


def numbers(run, name, at=-1, g=False):
    "A recorded tensor, or its gradient"
    value = run['values'][run['steps'][at]['names'][name][2 if g else 1]]
    return torch.tensor(value['numbers']).view(value['shape'])


def network(run): return {k: numbers(run, k) for k in ('inp', 'targ', 'w1', 'b1', 'w2', 'b2')}


def program_of(run):
    def program(): return forward_and_backward(**network(run))
    return program


@pytest.fixture(scope='module')
def grads(run):
    "What autograd says, for leaves and for values on the way"
    t = {k: v.requires_grad_(k != 'targ') for k, v in network(run).items()}
    t['l1'] = t['inp'] @ t['w1'] + t['b1']
    t['l2'] = F.relu(t['l1'])
    t['out'] = t['l2'] @ t['w2'] + t['b2']
    for k in ('l1', 'l2', 'out'): t[k].retain_grad()
    F.mse_loss(t['out'], t['targ']).backward()
    return {k: v.grad for k, v in t.items() if v.grad is not None}


# ---- the recording

def test_the_recorded_gradients_are_autograd_s(run, grads):
    have = {k for k, (*_, g) in run['steps'][-1]['names'].items() if g >= 0}
    assert have == set(grads) and len(grads) == 8
    for k, want in grads.items(): torch.testing.assert_close(numbers(run, k, g=True), want)


def test_a_fresh_recording_is_the_same(run, data):
    fresh = debugger.watch(program_of(run), FUNCTIONS)
    for part in ('sources', 'frames'): assert fresh[part] == run[part]
    known = lambda r: [{k: v for k, v in s.items() if k not in ('names', 'result')} for s in r['steps']]
    assert known(fresh) == known(run)
    for i, step in enumerate(run['steps']):
        for name, (_, _, g) in step['names'].items():
            torch.testing.assert_close(numbers(fresh, name, i), numbers(run, name, i))
            if g >= 0: torch.testing.assert_close(numbers(fresh, name, i, True), numbers(run, name, i, True))
    assert len(json.dumps(data, separators=(',', ':'))) < 60_000
    first = next(i for i, s in enumerate(run['steps']) if 'out.g' in s.get('set', []))
    assert data['back'] == first - 1


# ---- moving and asking, against the real pdb

@pytest.fixture(scope='module')
def moves(run):
    "(stops' number, command, from) -> to, as the lab's module says"
    table = {}
    for (command, name), (k, stops) in itertools.product(dict(s='step', n='next', c='goOn').items(),
                                                         enumerate(STOPS)):
        to = in_node('step', name, [[run, stops, i] for i in range(len(run['steps']))])
        table |= {(k, command, i): j for i, j in enumerate(to)}
    return table


def held(program, commands, stops):
    "A session of the real pdb, with steps only into what the lab knows"
    d = debugger.Stopping(program, commands)
    d.skip = {'bdb', 'torch', 'torch.*', 'backprop13.matmul'}
    for f in FUNCTIONS:
        if f is not forward_and_backward and f.__name__ not in stops: continue
        d.stop_at(f)
        # pdb takes the line of the first look for a function's first line, and doesn't look while
        # it steps into one
        lines = [line for *_, line in f.__code__.co_lines() if line and line > f.__code__.co_firstlineno]
        bdb.Breakpoint.bpbynumber[-1].func_first_executable_line = min(lines)
    debugger.session(d, program)
    return d.steps


def walk(moves, k, last, draw, weights):
    "Commands until the end, and where the lab stands after each"
    at, path = 1, []
    while at < last:
        command = draw.choices('nsc', weights)[0]
        at = moves[k, command, at]
        path.append((command, at))
    return path


@pytest.mark.parametrize('k', range(len(STOPS)))
def test_it_moves_and_says_as_pdb_does(run, moves, k):
    draw, last = random.Random(k), len(run['steps']) - 1
    halted = in_node('step', 'halted', [[run, i] for i in range(last + 1)])
    where = in_node('step', 'where', [[run, i] for i in range(last + 1)])
    for weights in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] + [(3, 3, 1)]*6:
        path = walk(moves, k, last, draw, weights)
        steps = held(program_of(run), [o for c, _ in path for o in (c, 'w')] + ['q'], STOPS[k])
        assert steps[0].answer == halted[1]
        said = {i: answer for i,
                answer in zip([i for _, i in path for _ in 'mw'], [s.answer for s in steps[1:]])}
        assert set(said) >= {i for _, i in path if i < last}
        for (command, i), move, asked in zip(path, steps[1::2], steps[2::2]):
            if i == last and command == 'c': break                                # pdb has left the program
            assert (command, move.answer) == (move.command, halted[i]) and (move.function, move.line) == (
                run['frames'][run['steps'][i]['frame']]['function'], run['steps'][i]['line'])
            # without the caller of the program
            assert asked.answer.split('\n', 2)[2] == where[i]
        if weights == (0, 1, 0): assert [i for _, i in path] == list(range(2, last + 1))


def test_it_answers_as_pdb_does(run):
    draw, cases, commands = random.Random(1), [], []
    for i in range(1, len(run['steps'])):
        names = list(run['steps'][i]['names'])
        ends = ['', '.g', '.shape', '.g.shape']
        questions = [draw.choice(names)+draw.choice(ends) for _ in range(3)] + list(run['steps'][i]['plain'])
        for q in questions + [', '.join(questions[:2])]:
            cases.append([run, i, q])
            commands.append('p ' + q)
        commands.append('s')
    commands[-1] = 'q'
    answers = [s.answer for s in held(program_of(run), commands, []) if s.command[:1] == 'p']
    want = [re.sub(r"\. Did you mean: '\w+'\?", '', a) for a in answers]        # Python 3.13 guesses
    assert len(want) == len(cases) > 200 and any(a.startswith('***') for a in want)
    assert in_node('step', 'ask', cases) == want


def test_what_it_cannot_answer_it_says(run):
    at = next(i for i, s in enumerate(run['steps']) if 'inp.g' in s.get('set', []))
    wrong = ['', 'foo', 'w.x', 'w + 1', '__import__("os")', 'w.g.sum()', 'constructor', 'toString', 'w, foo']
    says = 'The recording knows inp, out, w, b in lin_grad, and each tensor\'s .shape, .g and .g.shape.'
    assert in_node('step', 'ask', [[run, at, q] for q in wrong]) == [says]*len(wrong)


# ---- numbers and words

def shown(x, d): return re.sub(r'^-(?=[0.]*$)', '', f'{x:.{d}f}').replace('-', '−')

def test_the_numbers_shown_are_the_recorded_ones(run):
    for value, rows in zip(run['values'], in_node('step', 'cells', [[v] for v in run['values']])):
        t = torch.tensor(value['numbers'], dtype=torch.float64).view(value['shape'])
        table = t if t.ndim == 2 else t.view(1, -1)
        d = next((d for d in range(4) if torch.allclose(t.round(decimals=d), t, rtol=0, atol=1e-6)), 4)
        assert rows == [[shown(x, d) for x in row] for row in table.tolist()]
        assert all(abs(number(s) - x) < 1e-6
                   for row, xs in zip(rows, table.tolist()) for s, x in zip(row, xs))


def test_each_stop_in_words(run):
    said = in_node('step', 'say', [[run, i] for i in range(len(run['steps']))])
    visits = [i for i, s in enumerate(run['steps']) if 'inp.g' in s.get('set', []) and s['line'] == 9]
    n, m, nh = *run['values'][run['steps'][0]['names']['inp'][1]]['shape'], len(numbers(run, 'b1'))
    assert [said[i] for i in visits] == [f'inp.g = out.g @ w.t(): ({n}, 1) @ (1, {nh}) gives ({n}, {nh}).',
                                         f'inp.g = out.g @ w.t(): ({n}, {nh}) @ ({nh}, {m}) gives ({n}, {m}).']
    assert said[visits[0] - 1] == f'At the first line of lin_grad: inp is l2 ({n}, {nh}), out ({n}, 1), w is w2 ({nh}, 1) and b is b2 (1,).'
    assert f'lin_grad is called: inp ({n}, {m}), out is l1 ({n}, {nh}), w is w1 ({m}, {nh}) and b is b1 ({nh},).' in said
    assert f'out.g = 2/out.numel()*(out - targ): out ({n}, 1) and targ ({n}, 1) give out.g ({n}, 1).' in said
    assert f'lin returns a tensor of shape ({n}, {nh}).' in said
    assert 'if b.dtype != w.dtype: no. Nothing is set.' in said
    for i, step in enumerate(run['steps']):
        assert said[i][-1] == '.' and 'undefined' not in said[i] and 'null' not in said[i]
        for k in step.get('set', []): assert re.search(rf'\b{re.escape(k)}\b', said[i]), (k, said[i])


def test_a_name_is_that_of_the_same_tensor_not_of_an_equal_one():
    def inner(a): return a
    def outer(x, y): return inner(y)
    run = debugger.watch(lambda: outer(torch.ones(2), torch.ones(2)), [outer, inner])
    assert in_node('step', 'alias',
                   [[run, i, 'a'] for i, s in enumerate(run['steps']) if 'a' in s['names']]) == ['y']*3


# ---- on the page

def table(lab, name):
    "The numbers shown beside a name"
    rows = lab.locator(f'.lab-block[data-name="{name}"] tr')
    return torch.tensor([[number(c) for c in r.locator('td').all_inner_texts()] for r in rows.all()])

def same(lab, name, want):
    want = want.view(-1, want.shape[-1] if want.ndim else 1)
    torch.testing.assert_close(table(lab, name), want, rtol=0, atol=1e-6)


@pytest.fixture
def lab(open_lab): return open_lab('step', viewport={'width': 1000, 'height': 900})

def where(lab): return lab.locator('.lab-stack').inner_text().replace('\n', ' ')
def line(lab): return lab.locator('.lab-line.lab-here').inner_text()
def said(lab): return lab.locator('.lab-status').inner_text()


def test_the_keys(lab, run, grads):
    def answer(question):
        lab.page.keyboard.type(question)
        press(lab, 'Enter')
        return said(lab)
    lab.locator('.lab-code').click()
    before = lab.locator('.lab-log').inner_text()
    press(lab, 'c', 'b')                                                           # undoes the whole of c
    assert where(lab) == 'forward_and_backward, line 10'
    press(lab, 'c')
    assert 'forward_and_backward, line 16' in where(lab) and 'lin_grad, line 8' in where(lab)
    assert 'inp.g = matmul(out.g, w.t())' in line(lab)
    press(lab, 'n')
    same(lab, 'inp.g', grads['l2'])
    same(lab, 'out.g', grads['out'])
    new = lab.locator('.lab-block.lab-set')
    assert new.get_attribute('data-name') == 'inp.g' and 'just set' in new.inner_text()
    press(lab, 'w')
    assert 'forward_and_backward > lin_grad' in said(lab) and before in lab.locator('.lab-log').inner_text()
    press(lab, 'c')                                                                # the second visit
    assert 'forward_and_backward, line 18' in where(lab)
    press(lab, 'n', times=3)
    for name, outer in dict(inp='inp', out='l1', w='w1', b='b1').items(): same(lab, f'{name}.g', grads[outer])
    press(lab, 'p')
    assert answer('w.g') == run['values'][run['steps'][47]['names']['w'][2]]['text']
    assert answer('p inp.shape, out.shape, b.g').startswith('(torch.Size([4, 3]), torch.Size([4, 2]), tensor([')
    press(lab, 'Escape', 'ArrowLeft')
    assert lab.locator('.lab-block[data-name="b.g"]').count() == 0
    press(lab, 'c')
    for k in grads: same(lab, f'{k}.g', grads[k])
    same(lab, 'loss', numbers(run, 'loss'))
    assert where(lab) == 'forward_and_backward, line 19'
    end = lab.inner_text()
    lab.page.evaluate('document.activeElement.blur()')
    # without the focus they do nothing
    press(lab, *'bnsc')
    assert lab.inner_text() == end


def test_the_buttons_and_the_strip(lab, run):
    def go(*names):
        for name in names: lab.get_by_role('button', name=name).click()
    go('step into')
    assert 'lin, line 1' in where(lab) and 'lin is called: x is inp (4, 3)' in said(lab)
    go('next line', 'next line')
    same(lab, 'out', numbers(run, 'inp') @ numbers(run, 'w1'))
    go('back', 'back', 'back')
    assert where(lab) == 'forward_and_backward, line 10'
    lab.get_by_label('relu', exact=True).check()
    go('continue')
    assert 'relu, line 5' in where(lab)
    same(lab, 'x', numbers(run, 'l1'))
    go('next line')
    same(lab, 'what it returns', numbers(run, 'l2'))
    strip = slider(lab, 'step')
    box = strip.bounding_box()
    drag(lab.page, *((box['x'] + box['width']*o, box['y'] + box['height']/2) for o in (.2, 1)))
    def at(): return strip.get_attribute('aria-valuetext')
    assert where(lab) == 'forward_and_backward, line 19' and at() == '58 of 58, backward'
    press(lab, 'ArrowLeft', times=2)
    assert at() == '56 of 58, backward' and 'lin_grad, line 11' in where(lab)
    press(lab, 'ArrowLeft', times=55)
    assert at() == '1 of 58, forward' and 'forward_and_backward is called' in lab.inner_text()


def test_every_stop_fits_a_phone(lab):
    lab.page.set_viewport_size({'width': 360, 'height': 740})
    lab.locator('.lab-code').focus()
    fits = """e => document.documentElement.scrollWidth <= innerWidth &&
        [...e.querySelectorAll('.lab-block, .lab-keys, .lab-status, .lab-slider')]
            .every(b => b.getBoundingClientRect().right <= innerWidth)"""
    for _ in range(60):
        press(lab, 's')
        assert lab.evaluate(fits), where(lab)


def test_notes_that_belong_to_no_line_are_refused(run, data):
    kinds = {k: kind for k, kind in data['roots'].values()}
    with pytest.raises(ValueError, match="no line 'w.g = 0'"): labs.step(run, kinds, {'w.g = 0': 'No.'})
