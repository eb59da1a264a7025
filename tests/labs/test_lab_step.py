"The lab Step through backprop: it moves and answers as the real pdb does, and shows the numbers that Python recorded"
import bdb, json, random, re

import pytest, torch
import torch.nn.functional as F
from conftest import in_node, lab_data, visit

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
def moves(run, tmp_path_factory):
    "(stops' number, command, from) -> to, as the lab's module says"
    folder, n, table = tmp_path_factory.mktemp('moves'), len(run['steps']), {}
    for command, name in dict(s='step', n='next', c='goOn').items():
        for k, stops in enumerate(STOPS):
            for i, j in enumerate(in_node('step', name, [[run, stops, i] for i in range(n)],
                                          folder)): table[k, command, i] = j
    return table


def held(program, commands, stops):
    "A session of the real pdb, with steps only into what the lab knows"
    d = debugger.Stopping(program, commands)
    d.skip = {'bdb', 'torch', 'torch.*', 'backprop13.matmul'}
    for f in FUNCTIONS:
        if f is not forward_and_backward and f.__name__ not in stops: continue
        d.stop_at(f)
        # pdb takes the line of the first look for a function's first line, and doesn't look while it steps into one
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
def test_it_moves_and_says_as_pdb_does(run, moves, k, tmp_path):
    draw, last = random.Random(k), len(run['steps']) - 1
    halted = in_node('step', 'halted', [[run, i] for i in range(last + 1)], tmp_path)
    where = in_node('step', 'where', [[run, i] for i in range(last + 1)], tmp_path)
    for weights in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] + [(3, 3, 1)]*6:
        path = walk(moves, k, last, draw, weights)
        steps = held(program_of(run), [o for c, _ in path for o in (c, 'w')] + ['q'], STOPS[k])
        assert steps[0].answer == halted[1]
        said = {i: answer for i, answer in zip([i for _, i in path for _ in 'mw'], [s.answer for s in steps[1:]])}
        assert set(said) >= {i for _, i in path if i < last}
        for (command, i), move, asked in zip(path, steps[1::2], steps[2::2]):
            if i == last and command == 'c': break                                # pdb has left the program
            assert (command, move.answer) == (move.command, halted[i]) and (move.function, move.line) == (
                run['frames'][run['steps'][i]['frame']]['function'], run['steps'][i]['line'])
            assert asked.answer.split('\n', 2)[2] == where[i]                     # without the caller of the program
        if weights == (0, 1, 0): assert [i for _, i in path] == list(range(2, last + 1))


def test_it_answers_as_pdb_does(run, tmp_path):
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
    assert in_node('step', 'ask', cases, tmp_path) == want


def test_what_it_cannot_answer_it_says(run, tmp_path):
    at = next(i for i, s in enumerate(run['steps']) if 'inp.g' in s.get('set', []))
    wrong = ['', 'foo', 'w.x', 'w + 1', '__import__("os")', 'w.g.sum()', 'constructor', 'toString', 'w, foo']
    says = 'The recording knows inp, out, w, b in lin_grad, and each tensor\'s .shape, .g and .g.shape.'
    assert in_node('step', 'ask', [[run, at, q] for q in wrong], tmp_path) == [says]*len(wrong)


# ---- numbers and words

def shown(x, d): return re.sub(r'^-(?=[0.]*$)', '', f'{x:.{d}f}').replace('-', '−')

def test_the_numbers_shown_are_the_recorded_ones(run, tmp_path):
    for value, rows in zip(run['values'], in_node('step', 'cells', [[v] for v in run['values']], tmp_path)):
        t = torch.tensor(value['numbers'], dtype=torch.float64).view(value['shape'])
        table = t if t.ndim == 2 else t.view(1, -1)
        d = next((d for d in range(4) if torch.allclose(t.round(decimals=d), t, rtol=0, atol=1e-6)), 4)
        assert rows == [[shown(x, d) for x in row] for row in table.tolist()]
        assert all(abs(float(s.replace('−', '-')) - x) < 1e-6
                   for row, xs in zip(rows, table.tolist()) for s, x in zip(row, xs))


def test_each_stop_in_words(run, tmp_path):
    said = in_node('step', 'say', [[run, i] for i in range(len(run['steps']))], tmp_path)
    visits = [i for i, s in enumerate(run['steps']) if 'inp.g' in s.get('set', []) and s['line'] == 9]
    n, m, nh = *run['values'][run['steps'][0]['names']['inp'][1]]['shape'], len(numbers(run, 'b1'))
    assert [said[i] for i in visits] == [f'inp.g = out.g @ w.t(): ({n}, 1) @ (1, {nh}) gives ({n}, {nh}).',
                                         f'inp.g = out.g @ w.t(): ({n}, {nh}) @ ({nh}, {m}) gives ({n}, {m}).']
    assert said[visits[0] - 1] == f'At the first line of lin_grad: inp is l2 ({n}, {nh}), out ({n}, 1), w is w2 ({nh}, 1) and b is b2 (1,).'
    assert f'lin_grad is called: inp ({n}, {m}), out is l1 ({n}, {nh}), w is w1 ({m}, {nh}) and b is b1 ({nh},).' in said
    assert f'out.g = 2/out.numel()*(out - targ): out ({n}, 1) and targ ({n}, 1) give out.g ({n}, 1).' in said
    assert f'lin returns a tensor of shape ({n}, {nh}).' in said and 'if b.dtype != w.dtype: no. Nothing is set.' in said
    for i, step in enumerate(run['steps']):
        assert said[i][-1] == '.' and 'undefined' not in said[i] and 'null' not in said[i]
        for k in step.get('set', []): assert re.search(rf'\b{re.escape(k)}\b', said[i]), (k, said[i])


def test_a_name_is_that_of_the_same_tensor_not_of_an_equal_one(tmp_path):
    def inner(a): return a
    def outer(x, y): return inner(y)
    run = debugger.watch(lambda: outer(torch.ones(2), torch.ones(2)), [outer, inner])
    assert in_node('step', 'alias',
                   [[run, i, 'a'] for i, s in enumerate(run['steps']) if 'a' in s['names']], tmp_path) == ['y']*3


# ---- on the page

def table(lab, name):
    "The numbers shown beside a name"
    rows = lab.locator(f'.lab-block[data-name="{name}"] tr')
    return torch.tensor([[float(c.replace('−', '-')) for c in rows.nth(r).locator('td').all_inner_texts()]
                         for r in range(rows.count())])

def same(lab, name, want): torch.testing.assert_close(table(lab, name),
        want.view(-1, want.shape[-1] if want.ndim else 1), rtol=0, atol=1e-6)


@pytest.fixture
def page(browser, server):
    page, said, _ = visit(browser, server+'backprop.html', viewport={'width': 1000, 'height': 900})
    lab = page.locator('.lab[data-lab=step]')
    lab.scroll_into_view_if_needed()
    page.wait_for_selector('.lab[data-lab=step][data-live]')
    yield page, lab
    assert not said
    page.close()


def here(lab): return lab.locator('.lab-stack').inner_text().replace('\n', ' '), lab.locator('.lab-line.lab-here').inner_text()


def test_the_keys(page, run, grads):
    page, lab = page
    lab.locator('.lab-code').click()
    before = lab.locator('.lab-log').inner_text()
    page.keyboard.press('c')
    page.keyboard.press('b')                                                       # undoes the whole of c
    assert here(lab)[0] == 'forward_and_backward, line 10'
    page.keyboard.press('c')
    where, line = here(lab)
    assert 'forward_and_backward, line 16' in where and 'lin_grad, line 8' in where and 'inp.g = matmul(out.g, w.t())' in line
    page.keyboard.press('n')
    same(lab, 'inp.g', grads['l2'])
    same(lab, 'out.g', grads['out'])
    assert lab.locator('.lab-block.lab-set').get_attribute('data-name') == 'inp.g' and 'just set' in lab.locator('.lab-block.lab-set').inner_text()
    page.keyboard.press('w')
    assert 'forward_and_backward > lin_grad' in lab.locator('.lab-status').inner_text() and before in lab.locator('.lab-log').inner_text()
    page.keyboard.press('c')                                                       # the second visit
    assert 'forward_and_backward, line 18' in here(lab)[0]
    for _ in range(3): page.keyboard.press('n')
    for name, outer in dict(inp='inp', out='l1', w='w1', b='b1').items(): same(lab, f'{name}.g', grads[outer])
    page.keyboard.press('p')
    page.keyboard.type('w.g')
    page.keyboard.press('Enter')
    assert lab.locator('.lab-status').inner_text() == run['values'][run['steps'][47]['names']['w'][2]]['text']
    page.keyboard.type('p inp.shape, out.shape, b.g')
    page.keyboard.press('Enter')
    assert lab.locator('.lab-status').inner_text().startswith('(torch.Size([4, 3]), torch.Size([4, 2]), tensor([')
    page.keyboard.press('Escape')
    page.keyboard.press('ArrowLeft')
    assert lab.locator('.lab-block[data-name="b.g"]').count() == 0
    page.keyboard.press('c')
    for k in grads: same(lab, f'{k}.g', grads[k])
    same(lab, 'loss', numbers(run, 'loss'))
    assert here(lab)[0] == 'forward_and_backward, line 19'
    end = lab.inner_text()
    page.evaluate('document.activeElement.blur()')
    for k in 'bnsc': page.keyboard.press(k)                                        # without the focus they do nothing
    assert lab.inner_text() == end


def test_the_buttons_and_the_strip(page, run):
    page, lab = page
    press = lambda name: lab.get_by_role('button', name=name).click()
    press('step into')
    assert 'lin, line 1' in here(lab)[0] and 'lin is called: x is inp (4, 3)' in lab.locator('.lab-status').inner_text()
    press('next line')
    press('next line')
    same(lab, 'out', numbers(run, 'inp') @ numbers(run, 'w1'))
    press('back')
    press('back')
    press('back')
    assert here(lab)[0] == 'forward_and_backward, line 10'
    lab.get_by_label('relu', exact=True).check()
    press('continue')
    assert 'relu, line 5' in here(lab)[0]
    same(lab, 'x', numbers(run, 'l1'))
    press('next line')
    same(lab, 'what it returns', numbers(run, 'l2'))
    strip = lab.get_by_role('slider', name='step', exact=True)
    box = strip.bounding_box()
    page.mouse.move(box['x']+box['width']*.2, box['y']+box['height']/2)
    page.mouse.down()
    page.mouse.move(box['x']+box['width'], box['y']+box['height']/2, steps=9)
    page.mouse.up()
    assert here(lab)[0] == 'forward_and_backward, line 19' and strip.get_attribute('aria-valuetext') == '58 of 58, backward'
    page.keyboard.press('ArrowLeft')
    page.keyboard.press('ArrowLeft')
    assert strip.get_attribute('aria-valuetext') == '56 of 58, backward' and 'lin_grad, line 11' in here(lab)[0]
    for _ in range(55): page.keyboard.press('ArrowLeft')
    assert strip.get_attribute('aria-valuetext') == '1 of 58, forward' and 'forward_and_backward is called' in lab.inner_text()


def test_every_stop_fits_a_phone(page):
    page, lab = page
    page.set_viewport_size({'width': 360, 'height': 740})
    lab.locator('.lab-code').focus()
    for _ in range(60):
        page.keyboard.press('s')
        inside = lab.evaluate('e => [...e.querySelectorAll(".lab-block, .lab-keys, .lab-status, .lab-slider")].every(b => b.getBoundingClientRect().right <= innerWidth)')
        assert inside and page.evaluate('document.documentElement.scrollWidth <= innerWidth'), here(lab)


def test_notes_that_belong_to_no_line_are_refused(run, data):
    kinds = {k: kind for k, kind in data['roots'].values()}
    with pytest.raises(ValueError, match="no line 'w.g = 0'"): labs.step(run, kinds, {'w.g = 0': 'No.'})
