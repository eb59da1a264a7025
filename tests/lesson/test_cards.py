"Each definition is what its card says, each planted bug is caught, and what has no card fails by name."
import importlib, sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import backprop13
from backprop13.support import cards, checks               # the first fills CARDS
from backprop13.support.card import CARDS, properties, seen

# whose exported definitions have cards: each chapter's, but for what files, workers and other chapters say
NOT_ALL = {'data', 'parallel', 'training'}
CHAPTERS = {f.stem for f in Path(backprop13.__file__).parent.glob('[!_]*.py')}
MODULES = [*sorted(CHAPTERS - NOT_ALL), 'support.compiled']
BUGS = [(name, bug) for name, card in CARDS.items() for bug in card.bugs]


@pytest.mark.parametrize('name', CARDS)
def test_what_the_card_says_holds(name):
    card = CARDS[name]
    for prop in properties(card): prop(SimpleNamespace(**vars(sys.modules[card.f.__module__])))


@pytest.mark.parametrize('name,bug', BUGS, ids=[f'{name}-{bug.kind}' for name, bug in BUGS])
def test_the_bug_is_caught(name, bug, record_property):
    record_property('mutant', bug.kind)                    # counted at the end of the run, by conftest.py
    seen(CARDS[name], bug)


def without_a_card(modules, known):
    "What modules define and export, and has no card or one without a bug"
    for name, module in modules.items():
        for k in module.__all__:
            mine = getattr(getattr(module, k), '__module__', module.__name__) == module.__name__
            if mine and not (card := known.get(f'{name}.{k}')) or mine and not card.bugs: yield f'{name}.{k}'


def test_every_exported_definition_has_a_card():
    modules = {name: importlib.import_module(f'backprop13.{name}') for name in MODULES}
    assert list(without_a_card(modules, CARDS)) == []
    fewer = {k: v._replace(bugs=[]) if k == 'backprop.lin' else v for k,
             v in CARDS.items() if k != 'backprop.mse'}
    assert set(without_a_card(modules, fewer)) == {'backprop.lin', 'backprop.mse'}


def without_a_bug(module, known):
    "What a module exports, and no bug of its cards changes"
    home = module.__name__
    hit = {bug.where or card.f.__name__ for card in known if card.f.__module__ == home for bug in card.bugs}
    return {k for k in module.__all__ if getattr(getattr(module, k), '__module__', home) == home} - hit

def test_every_export_of_the_checks_has_a_bug():
    assert without_a_bug(checks, CARDS.values()) == set() and len(checks.__all__) > 9
    assert 'call_op' in without_a_bug(checks, [card for card in CARDS.values() if card.f is not checks.call_op])
