"""The comparison of gradients from outside: many functions, our layers, and what is shown. What it
must find stands in test_instruments."""
import ast, contextlib, io, runpy

import pytest, torch
import torch.nn.functional as F
from conftest import root
from helpers import rand

from backprop13.backprop import Lin, Model
from backprop13.support.checks import check_op, held_tensors, our_grads
from backprop13.training import CrossEntropy, cross_entropy


functions = dict(
    exp_sum_log=lambda x: x.exp().sum().log(), product=lambda x: x.prod(), square=lambda x: x.square().sum(),
    sine=lambda x: x.sin().mean(), softmax=lambda x: x.softmax(-1), log_softmax=lambda x: x.log_softmax(-1),
    tanh=lambda x: x.tanh(), turned=lambda x: x.t()@x,
    same=lambda x: x, view=lambda x: x.view(-1), scaled=lambda x: 1e6*x + 1)

@pytest.mark.parametrize('name', functions)
def test_differences_are_as_good_as_their_step_allows(name):
    for shape in (1, 1), (1, 3), (4, 1), (4, 3):
        [(what, error)] = check_op(functions[name], x=rand(*shape)).items()
        assert what == 'central differences, float64' and error < 1e-8, shape


@pytest.mark.parametrize('n,c', [(6, 4), (1, 4), (6, 1), (1, 1)])
def test_integer_labels_pass_through(n, c):
    logits, targ = rand(n, c), torch.arange(n) % c
    check_op(CrossEntropy(), F.cross_entropy, inp=logits, targ=targ)
    check_op(cross_entropy, F.cross_entropy, logits=logits, targ=targ)
    assert set(our_grads(CrossEntropy(), inp=logits, targ=targ)) == {'inp'}


def test_nothing_of_the_callers_changes():
    model, x, targ = Model(rand(3, 2), rand(2), rand(2, 1), rand(1)), rand(4, 3), rand(4, 1)
    model(x, targ)
    # with gradients from before, which don't count
    model.backward()
    tensors = {**held_tensors(model), 'x': x}
    before = {k: (t.clone(), t.g) for k, t in tensors.items() if hasattr(t, 'g')}
    for _ in range(2): check_op(model, constants=['targ'], x=x, targ=targ)
    assert all(torch.equal(tensors[k], t) and tensors[k].g is g for k, (t, g) in before.items())
    assert 'x' in before
    assert not any(t.requires_grad for t in tensors.values()) and not hasattr(targ, 'g')


class Tiny(Lin):
    "Its gradients have the wrong sign, and are smaller than any absolute tolerance"
    def forward(self, inp): return super().forward(inp)*1e-12
    def bwd(self, out, inp):
        super().bwd(out, inp)
        for t in (inp, self.w, self.b): t.g = -1e-12*t.g

def test_a_tiny_fault_is_found():
    with pytest.raises(AssertionError,
                       match='Tiny, gradient of inp: relative error 2.0e\\+00 against autograd'):
        check_op(Tiny(rand(3, 2), rand(2)), inp=rand(4, 3))


# ---- what is shown can be printed

SHOWN = """
import torch
from backprop13.support.checks import check_grads, printable, show_values
from backprop13.support.debugger import record, transcript
from backprop13.practice.exercises import EXERCISES, check, hint, progress
from backprop13.practice.grading import Fault, Report
from backprop13.practice.guessing import guess
from backprop13.practice.workbook import Download
from backprop13 import data
from backprop13.practice import exercises

def relu(x): raise ValueError('\u03bb \u2265 0')
def lin(x, w, b):
    \u03bb = x @ w + b
    return \u03bb.sum()
def right():
    def lin(x, w, b): return x @ w + b
    return lin
print(check(relu), check(lin), hint(lin), check(right()))
for text in [h for e in EXERCISES.values() for h in e.hints]: print(exercises.Note(text))
print(progress(), guess(torch.ones(2).shape, type('\u03bb', (), {})()), Download(b'1', '\u03bb.xlsx'))
print(Report('\u03bb', Fault('value', '\u2713')), printable('\\ud800'))
steps = record(lambda: lin(*torch.ones(3, 2, 2)), ['p "\u03bb"', 'w', 'c'], at=lin)
print(transcript(steps), steps[1].answer)
x = torch.ones(99)
try: check_grads(dict(x=x), dict(x=2*x))
except AssertionError as e: print(e, show_values(x))
try: data.check_sum(b'', 'x', 'word')
except ValueError as e: print(e)
print(data._why(ValueError('x'*500)))
"""

@pytest.mark.parametrize('coding', ['ascii', 'cp1252', 'cp437', 'latin-1', 'utf-8'])
def test_all_that_is_shown_can_be_printed(coding, tmp_path, monkeypatch):
    "On a terminal of any encoding, quotations of the user's own signs, too"
    (tmp_path/'shown.py').write_text(SHOWN, encoding='utf-8')
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
    terminal = io.TextIOWrapper(got := io.BytesIO(), coding, write_through=True)
    with contextlib.redirect_stdout(terminal): runpy.run_path(str(tmp_path/'shown.py'))
    out = got.getvalue().decode(coding)
    ok, no, dots, letter = ('\u2713', '\u2717', '\u2026', '\u03bb') if coding == 'utf-8' else ('+', '-',
        '...', r'\u03bb')
    if coding == 'cp1252': dots = '\u2026'
    for text in f'  {ok} x (2, 3)', f'  {no} exception: it raises ValueError: {letter}', f'1, 1, {dots}]', f'{letter}.xlsx', r'\ud800', f'> {dots}(2)lin()':
        assert text in out, (text, out)


def test_other_text_is_plain():
    "Where text isn't shown by `printable` or by a command's stdout, nor in a page or a file, it's ASCII"
    shown = 'card', 'checks', 'debugger', 'exercises', 'grading', 'trials', 'workbook', 'submissions'
    drawn = 'figures', 'graph', 'home', 'labs'                          # pictures and pages
    for path in {*(root/'backprop13').rglob('*.py')} - {root/'backprop13/support/cards.py'}:
        tree = ast.parse(path.read_text(encoding='utf-8'))
        docs = {id(o.value) for o in ast.walk(tree) if isinstance(o, ast.Expr)}
        odd = [o.value for o in ast.walk(tree) if isinstance(o, ast.Constant)
               and isinstance(o.value, str) and not o.value.isascii() and id(o) not in docs]
        assert not odd or path.stem in shown + drawn, (path.name, odd)
