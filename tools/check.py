"""Everything that CI proves, in order, up to the first failure (`make test`). The working tree is
only read: what would change
files is tried in a temporary copy."""
import ast, json, os, re, shutil, subprocess, sys, tempfile, time
from pathlib import Path
from posixpath import normpath
from xml.etree import ElementTree

from notebooks import data_source, notebooks, root
from passed import Passed
from settings import SettingsError, ini, rows as sidebar, site

bin = Path(sys.executable).parent


def tree(folder):
    """The project's files under `folder`: what git tracks or would add, or, without git, all but
    hidden and generated folders"""
    git = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=folder,
                         capture_output=True, text=True) \
        if (folder/'.git').exists() and shutil.which('git') else None
    if git and git.returncode == 0: files = {folder/o for o in git.stdout.split('\0') if o}
    else:
        skip = {'__pycache__', 'node_modules', 'build', 'dist', '_docs', '_book', '_proc', '.git', '.venv',
                '.venv-ci', '.pytest_cache',
                '.ipynb_checkpoints'}
        def generated(f):
            parts = f.relative_to(folder).parts
            made = parts[:2] == ('nbs', 'assets') and parts[2:] and (
                parts[2] in ('katex', 'fonts', 'labs', 'codemirror') or parts[2:4] in (('python', 'pyodide'),
                                                                                       ('python', 'parts.json')))
            return made or any(p in skip or p.endswith('.egg-info') for p in parts)
        files = {f for f in folder.rglob('*') if not generated(f)}
    return sorted(f for f in files if f.is_file() or f.is_symlink())


def copy(src, dst, names=None):
    "Copy the project's files from `src` to `dst`, links as links; of these `names`, if there are any"
    for f in tree(src):
        if names is not None and f.relative_to(src).as_posix() not in names: continue
        new = dst/f.relative_to(src)
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(f, new, follow_symlinks=False)


def contents(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in tree(folder) if f.exists()}


def run(*args, **kw):
    "Run a command without stdin: did it succeed?"
    return subprocess.run(args, stdin=subprocess.DEVNULL, **kw).returncode == 0


def quietly(*args, cwd):
    "Run a command and show what it says only if it fails"
    p = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, cwd=cwd)
    if p.returncode: sys.exit(f'{p.stdout}\n{Path(args[-1]).name} failed.')


# ---- what no tool can work with: told here, before one stumbles over it

MARK = re.compile(r'^`?[<>]{7} |^`={7}`$', re.M)          # lines that mark a merge conflict, in a text or in a cell
RESOLVE = 'MAINTAINING.md says how, under "Resolve a merge conflict"'


def flawed(name, text):
    "What keeps the notebook `name` from being read, and its cells as pairs (type, source)"
    try: nb = json.loads(text)
    except ValueError as e: return [f'{name} is not JSON, {e}: mend it in a text editor, or git restore it.'], []
    cells = nb.get('cells') if isinstance(nb, dict) and nb.get('nbformat') == 4 else None
    if not isinstance(cells, list): return [f'{name} is not a notebook of format 4: save it anew in make lab.'], []
    cells = [(c['cell_type'], ''.join(c['source'])) for c in cells]
    if marked := [i for i, (_, s) in enumerate(cells, 1) if MARK.search(s)]:
        return [f'{name} has a merge conflict in its cells {marked[0]} to {marked[-1]}; {RESOLVE}.'], []
    res = []
    if not cells or not re.match(r'# \S', cells[0][1]):
        res.append(f'{name} has no title: begin it with a cell "# Title" and "> subtitle".')
    for i, (kind, source) in enumerate(cells, 1):
        if kind != 'code' or source.startswith('%%') or re.search(r'^#\|\s*eval:\s*false', source, re.M): continue
        code = re.sub(r'^(\s*)[%!].*', r'\1pass', source, flags=re.M)      # what only IPython knows
        try: compile(code, '<cell>', 'exec', ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError as e:
            res.append(f'{name}, cell {i}, is not Python: line {e.lineno}, {e.msg}: {(e.text or "").strip()}')
    return res, cells


def unsound(folder):
    """What the project's tools can't work with, or would pass over in silence, in `folder`:
    sentences that say how to mend it"""
    res, books, exporters, numbers = [], {}, {}, {}
    files = {f.relative_to(folder).as_posix(): f for f in tree(folder)}
    for name, f in files.items():
        text = f.read_bytes().decode('utf-8', 'replace')
        if MARK.search(text): res.append(f'{name} has a merge conflict; {RESOLVE}.')
        elif f.suffix == '.ipynb' and name.startswith('nbs/'):
            found, books[name] = flawed(name, text)
            res += found
    if res: return res
    for name, cells in books.items():
        if name.startswith('nbs/practice/'): continue
        code = '\n'.join(s for kind, s in cells if kind == 'code')
        module = re.search(r'^#\|\s*default_exp\s+([\w.]+)', code, re.M)
        if module: exporters.setdefault(module[1], []).append(name)
        elif re.search(r'^#\|\s*exports?\s*$', code, re.M):
            res.append(f'{name} exports code without saying where: give it a cell "#| default_exp name".')
        number = re.match(r'nbs/(\d+)_\w+\.ipynb$', name)
        if number: numbers.setdefault(int(number[1]), []).append(name)
        elif module and not name.startswith('nbs/support/'):
            res.append(f'{name} exports a module and is no chapter: '
                       'name it nbs/NN_name.ipynb, or move it to nbs/support.')
    for module, names in exporters.items():
        if len(names) > 1:
            res.append(f'{" and ".join(names)} export to one module, {module}: '
                       'name another in the #| default_exp of one.')
    for number, names in numbers.items():
        if len(names) > 1: res.append(f'{" and ".join(names)} have one number, {number}: give one another.')
    return res + dangling(folder, files, books, exporters)


def dangling(folder, files, books, modules):
    "Notebooks and modules that something names and that aren't there, and pages that the sidebar doesn't name"
    try: config, rows = ini(folder), [nb for *_, nb in sidebar(site(folder)['website']['sidebar']['contents'])]
    except SettingsError as e: return [f'{e}.']
    def there(o): return any(q == o or q.startswith(f'{o}.') for q in modules)          # a module, or a folder of some
    res = [f"_quarto.yml has a row for nbs/{o}, which doesn't exist: name another, or take it out."
           for o in rows if f'nbs/{o}' not in books]
    for name, cells in books.items():
        if name.startswith('nbs/practice/'): continue             # made anew from what is named here
        for i, (kind, source) in enumerate(cells, 1):
            links = re.findall(r'\]\((?![a-z]+:)([^)#\s]+\.ipynb)', source) if kind == 'markdown' else []
            for o in dict.fromkeys(links):
                if normpath(f'{name}/../{o}') not in files:
                    res.append(f"{name}, cell {i}, links to {o}, which doesn't exist: mend the link.")
            if kind == 'code': res += [f'{name}, cell {i}, imports backprop13.{o}, which no notebook exports.'
                                       for o in imported(source) if not there(o)]
    res += [f'{o} has no row in _quarto.yml: add one where it belongs.' for o in books
            if o.removeprefix('nbs/') not in rows
            and not o.startswith('nbs/support/')]                 # the reference leads to those
    for name, f in files.items():
        if name.endswith('.md') and name != 'README.md':
            res += [f"{name} names {o}, which doesn't exist: name another." for o in
                                         dict.fromkeys(re.findall(r'nbs/[a-z\d_/]+\.ipynb',
                                         f.read_text(encoding='utf-8'))) if o not in files]
        if name.endswith('.py') and not name.startswith('backprop13/'):
            res += [f'{name} imports backprop13.{o}, which no notebook exports.'
                    for o in imported(f.read_text(encoding='utf-8')) if not there(o)]
    scripts = re.findall(r'=backprop13\.([\w.]+):', config.get('console_scripts', ''))
    res += [f'settings.ini has a command of backprop13.{o}, which no notebook exports: take it out of console_scripts.'
            for o in scripts if o not in modules]
    procs = re.findall(r'backprop13\.([\w.]+):', config.get('procs', ''))
    return res + [f'settings.ini names backprop13.{o} in procs, which no notebook exports: take it out.'
                  for o in dict.fromkeys(procs) if o not in modules]


def imported(code):
    "The modules of backprop13 that lines of `code` import"
    names = re.findall(r'^ *(?:from|import) backprop13\.([a-z][\w.]*)', code, re.M)
    for o in re.findall(r'^ *from backprop13 import ([\w, ]+)', code, re.M):
        names += [n.split()[0] for n in o.split(',') if n.strip()]
    return dict.fromkeys(o for o in names if not o.startswith('_'))


# ---- what isn't as generated

def stale(copied):
    """What differs from what the notebooks generate, in `copied`, a copy of the project that is
    changed: a list of sentences"""
    def changes(why, mend):
        nonlocal before
        after = contents(copied)
        names = sorted(o for o in before | after if before.get(o) != after.get(o))
        before = after
        return [f'{o} {why}: {mend}.' for o in names]
    before = contents(copied)
    quietly(bin/'nbdev_clean', cwd=copied)
    res = changes('is not clean', 'run nbdev_clean')
    for f in (copied/'backprop13').rglob('*.py'): f.unlink()
    quietly(bin/'nbdev_export', cwd=copied)
    res += changes("isn't what the notebooks export", 'run nbdev_export, and git rm a module that no notebook has')
    quietly(bin/'nbdev_update', cwd=copied)
    res += changes("isn't what nbdev_update makes of the exported modules",
                   'write no "#| key: value" in an exported cell, which gets into the module; '
                   '"#| fold what it is" folds its code')
    quietly(sys.executable, 'tools/readme.py', cwd=copied)
    res += changes("isn't what the notebooks generate", 'run make readme')
    quietly(sys.executable, 'tools/practice.py', cwd=copied)
    return res + changes("isn't what chapters and exercises generate", 'run make practice')


STEPS = ['Notebooks are clean; library, README and practice notebooks are what they generate',
         'Notebooks run on synthetic digits, their checks hold', 'Tests, as on a machine without MNIST',
         'Notebooks run on the real data, their checks hold, what they print is what is stored',
         'Tests that read digits, on the real data']
UNPROVED = """Passed, but for what needs MNIST, of which only synthetic digits are at hand. Not proved:
  that notebooks' checks hold on the real data, and that what they print there is what is stored;
  the tests that read digits, on the real data.
Let BACKPROP13_DATA name a folder with the four MNIST files to prove them, too."""


def main():
    again = Path(sys.prefix) if os.environ.get('CI', 'false') == 'false' else None
    env = {**os.environ, 'CI': 'true', 'OMP_NUM_THREADS': '1'}                # several at a time: some wait
    # where tests/site/test_pages.py notes which pages were whole
    if again: env['BACKPROP13_PAGES'] = str(again/'pages.json')
    without = {**env, 'BACKPROP13_DATA': 'synthetic'}                      # and nothing tries to download again

    def step(n, func, names=None):
        start, what = time.time(), STEPS[n-1]
        todo = names and passed.without(n, names)
        left = f'; {len(names)-len(todo)} of {len(names)} files passed before, and nothing that they use has changed' \
            if names and len(todo) < len(names) else ''
        print(f'[{n}/5] {what}{left} ...', flush=True)
        good = True if todo == [] else func() if names is None else func(todo)
        if not good: sys.exit(f'[{n}/5] failed after {time.time()-start:.1f} s: {what}.')
        if names: passed.add(n, todo)
        print(f'[{n}/5] done in {time.time()-start:.1f} s', flush=True)

    def fresh():
        with tempfile.TemporaryDirectory() as tmp:
            copy(root, Path(tmp))
            problems = unsound(Path(tmp)) or stale(Path(tmp))
        print(*problems, sep='\n', end='\n' if problems else '')
        return not problems

    def synthetic(books):
        chosen = [] if len(books) == len(all_books) else ['--file_re',
            f"^({'|'.join(re.escape(o.split('/')[-1]) for o in books)})$"]
        return run(bin/'nbdev_test', *chosen, cwd=root, env=without)

    def tests(n, files, env, *chosen):
        with tempfile.TemporaryDirectory() as tmp:
            report = Path(tmp)/'report.xml'
            good = run(sys.executable, '-m', 'pytest', '-ra', '-n', '4', '--dist', 'worksteal',
                       '--timeout', '900',                        # one that hangs says where
                       f'--junitxml={report}', *chosen, *files,
                       cwd=root, env=env)
            cases = ElementTree.parse(report).iter('testcase') if report.exists() else []
            bad = {o.get('classname', '').split('.')[-1] for o in cases
                   if o.find('failure') is not None or o.find('error') is not None}
        if bad: passed.add(n, [o for o in files if Path(o).stem not in bad])
        return good

    step(1, fresh)
    real, files = data_source() == 'MNIST', contents(root)
    passed = Passed(files, real, again and again/'passed.json')
    all_books = [o.relative_to(root).as_posix() for o in notebooks(root/'nbs')]
    shown = [o for o in all_books if not o.startswith('nbs/practice/')]
    all_tests = [o for o in files if re.fullmatch(r'tests/(\w+/)?test_\w+\.py', o)]
    all_tests.sort(key=lambda o: not o.endswith('/test_pages.py'))                               # the longest first
    # tests/conftest.py says how
    reading = [o for o in all_tests if re.search(rb'\bdigits\b|\bmark\.data\b', files[o])]
    step(2, synthetic, all_books)
    step(3, lambda o: tests(3, o, without), all_tests)
    if not real: return print(UNPROVED)
    step(4, lambda books: run(sys.executable, 'tools/notebooks.py', 'check', *books, cwd=root, env=env), shown)
    step(5, lambda o: tests(5, o, env, '-m', 'data'), reading)


if __name__ == '__main__': main()
