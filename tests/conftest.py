"Fixtures that several test files share"
import importlib.util, sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent


tools = {}

def load_tool(name):
    "The program tools/`name`.py as a module (its folder stays off the path: site.py would stand in for Python's own)"
    if name not in tools:
        spec = importlib.util.spec_from_file_location(name, root/'tools'/f'{name}.py')
        tools[name] = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(name, tools[name])                # for tools that import one another; Python's own site stays
        spec.loader.exec_module(tools[name])
    return tools[name]


@pytest.fixture(scope='session')
def project():
    "The root of the checkout"
    return root


@pytest.fixture
def clone(tmp_path):
    "A copy of the project's files that a test may spoil"
    load_tool('notebooks')
    load_tool('check').copy(root, tmp_path/'clone')
    return tmp_path/'clone'


def pytest_terminal_summary(terminalreporter):
    "The count of the mutants that the run killed, in all and by kind"
    killed, seen = {}, {}
    for outcome in 'passed', 'failed':
        for report in terminalreporter.stats.get(outcome, []):
            for kind in (v for k, v in report.user_properties if k == 'mutant'):
                seen[kind] = seen.get(kind, 0) + 1
                killed[kind] = killed.get(kind, 0) + (outcome == 'passed')
    if seen:
        terminalreporter.section(f'mutants: {sum(killed.values())} of {sum(seen.values())} killed')
        for kind in sorted(seen, key=lambda k: (-seen[k], k)):
            terminalreporter.line(f'{killed[kind]:3} of {seen[kind]:3}  {kind}')
