"The lab Step through backprop: it moves and answers as the real pdb does, and shows the numbers that Python recorded"
import bdb, itertools, json, random, re

import pytest, torch
import torch.nn.functional as F
from conftest import cells, drag, in_node, lab_data, number, overflows, press, slider, stop_clock

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
def test_it_moves_as_pdb_does(run, moves, k):
    draw, last = random.Random(k), len(run['steps']) - 1
    def place(i): return run['frames'][run['steps'][i]['frame']]['function'], run['steps'][i]['line']
    calls = in_node('step', 'calls', [[run, i] for i in range(last + 1)])
    for weights in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] + [(3, 3, 1)]*6:
        path = walk(moves, k, last, draw, weights)
        steps = held(program_of(run), [o for c, _ in path for o in (c, 'w')] + ['q'], STOPS[k])
        assert (steps[0].function, steps[0].line) == place(1)
        for (command, i), move, asked in zip(path, steps[1::2], steps[2::2]):
            if i == last and command == 'c': break                                # pdb has left the program
            assert (command, move.function, move.line) == (move.command, *place(i))
            there = re.findall(r'…\((\d+)\)(\w+)\(\)', asked.answer)[1:]         # without the caller of the program
            assert [(name, int(line)) for line, name in there] == [place(j) for j in calls[i]]
        if weights == (0, 1, 0): assert [i for _, i in path] == list(range(2, last + 1))


LINES = dict(
    lin=['out = matmul(x, w)', 'return out + b'], relu=['return x.masked_fill(x <= 0, 0)'],
    mse=['return (output - targ).square().mean()'],
    lin_grad=['inp.g = matmul(out.g, w.t())', 'w.g = matmul(inp.t(), out.g)', 'b.g = out.g.sum(0)'])
WALK = [('l1 = lin(inp, w1, b1)', 'lin'), ('l2 = relu(l1)', 'relu'), ('out = lin(l2, w2, b2)', 'lin'),
        ('loss = mse(out, targ)', 'mse'), ('out.g = 2/out.numel()*(out - targ)', ''),
        ('lin_grad(l2, out, w2, b2)', 'lin_grad'), ('l1.g = l2.g.masked_fill(l1 <= 0, 0)', ''),
        ('lin_grad(inp, l1, w1, b1)', 'lin_grad'), ('return loss', '')]

def taught(run):
    yes = in_node('step', 'teaches', [[run, i] for i in range(len(run['steps']))])
    return [i for i, o in enumerate(yes) if o]

def text(run, i):
    name = run['frames'][run['steps'][i]['frame']]['function']
    return bare(run['sources'][name][run['steps'][i]['line'] - 1])

def bare(line): return re.sub(r'\s+#.*$', '', line.strip()).removeprefix('try: ')


def test_only_lines_that_compute_something_are_stops(run):
    want = [o for line, inner in WALK for o in (line, *LINES.get(inner, []))]
    assert [text(run, i) for i in taught(run)] == want
    code = in_node('step', 'excerpt', [[run, name] for name in run['sources']])
    assert [rows[0][1] for rows in code[:3]] == [
        'def forward_and_backward(inp, targ, w1, b1, w2, b2):', 'def lin(x, w, b):', 'def relu(x):']
    for name, rows in zip(run['sources'], code):
        assert [bare(o) for _, o in rows[1:]] == LINES.get(name, [o for o, _ in WALK])
        assert all(run['sources'][name][k - 1] == o for k, o in rows[1:])


@pytest.mark.parametrize('key', 'snc')
def test_a_key_goes_on_to_the_next_of_them(run, key):
    at, path, stops = taught(run)[0], [], taught(run)
    while at != stops[-1]:
        [at] = in_node('step', 'lesson', [[run, ['lin_grad'], at, key]])
        path.append(text(run, at))
    assert path == dict(
        s=[text(run, i) for i in stops[1:]],
        n=[o for line, inner in WALK for o in (line, *LINES['lin_grad']*(inner == 'lin_grad'))][1:],
        c=[LINES['lin_grad'][0]]*2 + ['return loss'])[key]
    assert in_node('step', 'lesson', [[run, [], at, key]]) == [at]          # at the last one it stays


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
        got = torch.tensor([[number(s) for s in row] for row in rows], dtype=torch.float64)
        torch.testing.assert_close(got, table, rtol=0, atol=1e-6)


def test_each_stop_in_words(run):
    stops = taught(run)
    said = dict(zip(stops, in_node('step', 'say', [[run, i] for i in stops])))
    def at(line): return [said[i] for i in stops if text(run, i) == line]
    n, m, nh = *run['values'][run['steps'][0]['names']['inp'][1]]['shape'], len(numbers(run, 'b1'))
    assert at('w.g = matmul(inp.t(), out.g)') == [
        f'inp.g = out.g @ w.t(): ({n}, 1) @ (1, {nh}) gives ({n}, {nh}).',
        f'inp.g = out.g @ w.t(): ({n}, {nh}) @ ({nh}, {m}) gives ({n}, {m}).']
    assert at('inp.g = matmul(out.g, w.t())')[0] == \
        f'At the first line of lin_grad: inp is l2 ({n}, {nh}), out ({n}, 1), w is w2 ({nh}, 1) and b is b2 (1,).'
    assert at('lin_grad(l2, out, w2, b2)') == [
        f'out.g = 2/out.numel()*(out - targ): out ({n}, 1) and targ ({n}, 1) give out.g ({n}, 1).']
    # the checks between are left out
    assert at('return out + b')[0] == f'out = x @ w: ({n}, {m}) @ ({m}, {nh}) gives ({n}, {nh}).'
    assert at('return loss') == [f'lin_grad(inp, l1, w1, b1) sets inp.g ({n}, {m}), w1.g ({m}, {nh}) and b1.g ({nh},).']
    for text_of in said.values(): assert text_of[-1] == '.' and not re.search('undefined|null|NaN', text_of)


def test_a_name_is_that_of_the_same_tensor_not_of_an_equal_one():
    def inner(a): return a
    def outer(x, y): return inner(y)
    run = debugger.watch(lambda: outer(torch.ones(2), torch.ones(2)), [outer, inner])
    cases = [[run, i, 'a'] for i, s in enumerate(run['steps']) if 'a' in s['names']]
    assert in_node('step', 'alias', cases) == ['y']*3


# ---- the tensors and the diagram

@pytest.fixture(scope='module')
def small():
    "A recording on Flow's network, and its run there"
    data = labs.flow().data
    given = data['x'][:1], data['y'][:1], data['w1'], data['w2']
    x, y, w1, w2 = (torch.tensor(o, dtype=torch.float) for o in given)
    args = [x, y[:, None], w1, torch.zeros(2), w2[:, None], torch.zeros(1)]
    run = debugger.watch(lambda: forward_and_backward(*args), FUNCTIONS)
    roots = {str(o): [k, ''] for k, (o, *_) in run['steps'][-1]['names'].items()}
    return run, roots, labs.flow_run(*given)


def test_the_tensors_come_in_the_order_of_the_passes(run, small):
    small, roots, _ = small
    assert in_node('step', 'order', [[small, roots]]) == ['inp w1 b1 l1 l2 w2 b2 out targ loss'.split()]
    stops = taught(small)
    states = in_node('step', 'state', [[small, roots, i] for i in stops])
    came = [k for a, b in zip([{}] + states, states) for k in b if k not in a]
    assert came == 'inp targ w1 b1 w2 b2 l1 l2 out loss out.g l2.g w2.g b2.g l1.g inp.g w1.g b1.g'.split()
    # a value is there as soon as the line that made it has run, in whichever function
    first = {k: next(text(small, i) for i, s in zip(stops, states) if k in s) for k in came[6:]}
    line, (_, w, b) = [o for o, _ in WALK], LINES['lin_grad']
    assert first == dict(zip(came[6:], [*line[1:6], w, b, *line[6:8], w, b, line[8]]))


def test_the_diagram_s_numbers_are_those_of_flow_s_run(small):
    run, roots, flow = small
    [now] = in_node('step', 'state', [[run, roots, len(run['steps']) - 1]])
    [got] = in_node('step', 'drawn', [[run, now]])
    want = {k: flow[k] for k in ('x', 'l1', 'l2', 'out', 'loss')} | {f'{k}G': flow[k].g for k in ('l1', 'l2', 'out')}
    want |= dict(y=flow['targ'], w=torch.cat([flow['w1'].flatten(), flow['w2'].flatten()]),
                 g=torch.cat([flow['w1'].g.flatten(), flow['w2'].g.flatten()]))
    assert set(got) == set(want)
    for k, v in want.items(): torch.testing.assert_close(torch.tensor(got[k]).double().view(v.shape), v)
    [theirs] = in_node('flow', 'run', [[got['x'], got['y'], got['w']]])
    assert got.keys() <= theirs.keys()                       # the same drawing takes both
    others = [{k: v for k, v in now.items() if k != 'w1'}, now | {'w1': now['w2']}]
    assert in_node('step', 'drawn', [[run, o] for o in others]) == [None, None]


# ---- on the page

def cell(lab, name): return lab.locator(f'td[data-name="{name}"]')

def table(lab, name):
    "The numbers shown beside a name; none if they aren't there yet"
    return torch.tensor([[number(c) for c in row.split()] for row in cell(lab, name).inner_text().splitlines()])

def same(lab, name, want):
    want = want.view(-1, want.shape[-1] if want.ndim else 1)
    torch.testing.assert_close(table(lab, name), want, rtol=0, atol=1e-4)

def fresh(lab): return lab.locator('td.lab-set').evaluate_all('cells => cells.map(c => c.dataset.name)')


@pytest.fixture
def lab(open_lab): return open_lab('step', viewport={'width': 1000, 'height': 900}, reduced_motion='reduce')

def where(lab):
    "The calls that led here, each with its line"
    name = "e => `${e.parentNode.getAttribute('aria-label')} ${e.querySelector('.lab-no').textContent}`"
    return ' > '.join(lab.locator('.lab-calling, .lab-here').evaluate_all(f'all => all.map({name})'))
def line(lab): return lab.locator('.lab-line.lab-here').inner_text()
def said(lab): return lab.locator('.lab-status').inner_text()


def test_the_keys(lab, run, grads):
    def answer(question):
        lab.page.keyboard.type(question)
        press(lab, 'Enter')
        return said(lab)
    def here(name): return cells(lab, name).first.inner_text()
    n, m, nh = *numbers(run, 'inp').shape, len(numbers(run, 'b1'))
    lab.locator('.lab-code').click()
    press(lab, 'c', 'b')                                                           # undoes the whole of c
    assert where(lab) == 'forward_and_backward 10' and cell(lab, 'l1').inner_text() == '' and here('l2') == ''
    press(lab, 'c')
    assert where(lab) == 'forward_and_backward 16 > lin_grad 8' and 'inp.g = matmul(out.g, w.t())' in line(lab)
    assert [here(k) for k in ('inp', 'l2', 'w2', 'w1', 'out')] == ['', 'inp', 'w', '', 'out']
    press(lab, 'n')
    same(lab, 'l2.g', grads['l2'])
    same(lab, 'out.g', grads['out'])
    assert fresh(lab) == ['l2.g']
    press(lab, 'c')                                                                # the second visit
    assert where(lab) == 'forward_and_backward 18 > lin_grad 8' and set(fresh(lab)) == {'w2.g', 'b2.g', 'l1.g'}
    press(lab, 'n', times=2)
    press(lab, 'p')
    last = next(s for s in reversed(run['steps']) if 'w' in s['names'])['names']
    assert answer('w.g') == run['values'][last['w'][2]]['text']
    sizes = torch.Size([n, m]), torch.Size([n, nh]), torch.Size([nh])
    assert answer('p inp.shape, out.shape, b.shape') == f'{sizes}'
    assert answer('p loss').startswith('The recording knows inp, out, w, b in lin_grad')
    press(lab, 'Escape', 'n')
    for k in grads: same(lab, f'{k}.g', grads[k])
    for k in ('l1', 'out', 'loss'): same(lab, k, numbers(run, k))
    assert where(lab) == 'forward_and_backward 19' and fresh(lab) == ['b1.g']
    press(lab, 'ArrowLeft')
    assert cell(lab, 'b1.g').inner_text() == '' and fresh(lab) == ['w1.g']
    press(lab, 'ArrowRight')
    end = lab.inner_text()
    lab.page.evaluate('document.activeElement.blur()')
    press(lab, *'bnsc')                                                     # without the focus they do nothing
    assert lab.inner_text() == end


def test_the_buttons_and_the_strip(lab, run):
    def go(*names):
        for name in names: lab.get_by_role('button', name=name).click()
    stops = len(taught(run))
    n, m = numbers(run, 'inp').shape
    go('step into')
    assert where(lab) == 'forward_and_backward 10 > lin 7'
    assert f'At the first line of lin: x is inp ({n}, {m})' in said(lab)
    go('next line')
    same(lab, 'here', numbers(run, 'inp') @ numbers(run, 'w1'))                    # x @ w has no name outside
    go('back', 'back')
    assert where(lab) == 'forward_and_backward 10'
    go('next line')
    same(lab, 'l1', numbers(run, 'l1'))
    strip = slider(lab, 'step')
    box = strip.bounding_box()
    drag(lab.page, *((box['x'] + box['width']*o, box['y'] + box['height']/2) for o in (.2, 1)))
    def at(): return strip.get_attribute('aria-valuetext')
    assert where(lab) == 'forward_and_backward 19' and at() == f'{stops} of {stops}, backward'
    press(lab, 'ArrowLeft', times=2)
    assert at() == f'{stops - 2} of {stops}, backward' and where(lab) == 'forward_and_backward 18 > lin_grad 9'
    # the strip and the code know the same keys
    for focus in strip, lab.locator('.lab-code'):
        focus.focus()
        press(lab, 'End')
        end = at()
        press(lab, 'PageDown')
        assert 1 < int(at().split()[0]) < stops
        press(lab, 'PageUp')
        assert at() == end == f'{stops} of {stops}, backward'
        press(lab, 'Home')
        assert at() == f'1 of {stops}, forward' and where(lab) == 'forward_and_backward 10'


READ = """all => all.filter(g => getComputedStyle(g).display !== 'none')
    .map(g => [...g.querySelectorAll('text')].map(t => t.textContent))"""

def test_the_line_the_tensors_and_the_picture_move_together(lab, run, data, small):
    flow, stops = small[2], taught(run)
    for k in ('inp', 'targ', 'w1', 'w2'):                                       # the network that Flow shows
        torch.testing.assert_close(numbers(run, k).double().flatten(), flow[dict(inp='x').get(k, k)].flatten())
    states = in_node('step', 'state', [[run, data['roots'], i] for i in stops])
    lab.locator('.lab-code').focus()
    for i, was, now in zip(stops, [states[0]] + states, states):
        def both(name, *at):
            value, g = flow[name][at], f'{name}.g' in now
            return [value.item() if name in now else None, flow[name].g[at].item() if g else None]
        pairs = lab.locator('g:has(> .lab-cell)').evaluate_all(READ)
        assert [[number(s) if s else None for s in pair] for pair in pairs] == [
            *([v, None] for v in flow['x'][0].tolist()), *(both(k, 0, j) for j in (0, 1) for k in ('l1', 'l2')),
            both('out', 0, 0), [2, None], [flow['loss'].item() if 'loss' in now else None, None]], text(run, i)
        chips = lab.locator('.lab-chip text.lab-gradients').all_text_contents()
        want = [(k, v) for k in ('w1', 'w2') for v in flow[k].g.flatten().tolist()]
        assert chips == [f'{v:g}' if f'{k}.g' in now else '' for k, v in want]
        new = [k for k in now if k not in was]
        assert set(fresh(lab)) - {'here'} == set(new)
        size = {'l1': 2, 'l2': 2, 'out': 1, 'loss': 1, 'w1.g': 6, 'w2.g': 2}
        for part, mine in ((' .lab-front', [*size][:4]), (' .lab-behind', ['l1.g', 'l2.g', 'out.g']),
                           ('.lab-chip.lab-chosen', ['w1.g', 'w2.g'])):
            want = sum(size.get(k) or size[k[:-2]] for k in new if k in mine)
            assert lab.locator(part).filter(visible=True).count() == want, part
        press(lab, 's')


def test_what_is_new_moves(open_lab):
    lab = open_lab('step', viewport={'width': 1440, 'height': 900})
    stop_clock(lab.page)
    lab.locator('.lab-code').focus()
    press(lab, 'n')
    def dots():
        return lab.evaluate("""e => [...e.querySelectorAll('svg > circle')]
            .filter(c => getComputedStyle(c).visibility !== 'hidden').length""")
    lab.page.clock.run_for(350)
    assert dots() == 6 and lab.locator('.lab-front').count() == 4
    assert cell(lab, 'l1').inner_text() == ' 1.5 −0.5'
    lab.page.clock.run_for(700)
    assert dots() == 0


FITS = """e => [...e.querySelectorAll('.lab-line *, .lab-line, td, th, button, .lab-said p')]
    .filter(o => o.getClientRects().length && getComputedStyle(o).display !== 'inline')
    .every(o => o.scrollWidth <= o.clientWidth + 1)
    && [...e.querySelectorAll('.lab-line span')]
    .every(o => o.getBoundingClientRect().right <= o.closest('.lab-lines').getBoundingClientRect().right)"""
PLACES = """e => [...e.querySelectorAll('.lab-code, .lab-keys, .lab-said, .lab-prompt, tr, td:not(:nth-child(2)), svg')]
    .map(o => o.getBoundingClientRect()).map(r => [r.x, r.y + scrollY, r.width, r.height].map(Math.round))"""

@pytest.mark.parametrize('width,height,screens', [(1440, 900, 1), (768, 900, 1), (390, 844, 2), (360, 740, 2.2)])
def test_all_stays_in_its_place_and_nothing_is_clipped(open_lab, width, height, screens):
    lab = open_lab('step', viewport={'width': width, 'height': height}, reduced_motion='reduce')
    lab.locator('.lab-code').focus()
    places = lab.evaluate(PLACES)
    assert lab.bounding_box()['height'] <= screens*height
    for _ in range(21):
        assert lab.evaluate(FITS) and not overflows(lab.page) and lab.evaluate(PLACES) == places, where(lab)
        press(lab, 's')


def test_notes_that_belong_to_no_line_are_refused(run, data):
    kinds = {k: kind for k, kind in data['roots'].values()}
    with pytest.raises(ValueError, match="no line 'w.g = 0'"): labs.step(run, kinds, {'w.g = 0': 'No.'})
