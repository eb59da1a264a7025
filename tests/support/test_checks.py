"What is shown can be printed on any terminal. What comparisons must find stands on their cards."
import ast, contextlib, io, runpy

import pytest
from conftest import root

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
    plain = coding != 'utf-8'
    ok, no, letter = ('+', '-', r'\u03bb') if plain else ('\u2713', '\u2717', '\u03bb')
    dots = '...' if plain and coding != 'cp1252' else '\u2026'
    for text in (f'  {ok} x (2, 3)', f'  {no} exception: it raises ValueError: {letter}', f'1, 1, {dots}]',
                 f'{letter}.xlsx', r'\ud800', f'> {dots}(2)lin()'): assert text in out, (text, out)


def test_other_text_is_plain():
    "Where text isn't shown by `printable` or by a command's stdout, nor in a page or a file, it's ASCII"
    shown = 'card', 'checks', 'debugger', 'exercises', 'grading', 'page', 'trials', 'workbook', 'submissions'
    drawn = 'figures', 'graph', 'home', 'labs'                          # pictures and pages
    for path in {*(root/'backprop13').rglob('*.py')} - {root/'backprop13/support/cards.py'}:
        tree = ast.parse(path.read_text(encoding='utf-8'))
        docs = {id(o.value) for o in ast.walk(tree) if isinstance(o, ast.Expr)}
        odd = [o.value for o in ast.walk(tree) if isinstance(o, ast.Constant)
               and isinstance(o.value, str) and not o.value.isascii() and id(o) not in docs]
        assert not odd or path.stem in shown + drawn, (path.name, odd)
