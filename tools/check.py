"""Everything that CI proves, in order, up to the first failure (`make test`). The working tree is only read: what would change
files is tried in a temporary copy."""
import os, shutil, subprocess, sys, tempfile, time
from pathlib import Path

from notebooks import data_source, root

bin = Path(sys.executable).parent


def tree(folder):
    "The project's files under `folder`: what git tracks or would add, or, without git, all but hidden and generated folders"
    git = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=folder, capture_output=True, text=True) \
        if (folder/'.git').exists() and shutil.which('git') else None
    if git and git.returncode == 0: files = {folder/o for o in git.stdout.split('\0') if o}
    else:
        skip = {'__pycache__', 'node_modules', 'build', 'dist', '_docs', '_proc', 'katex', 'fonts', 'labs',
                '.git', '.venv', '.venv-ci', '.pytest_cache', '.ipynb_checkpoints'}
        def generated(f): return any(p in skip or p.endswith('.egg-info') for p in f.relative_to(folder).parts)
        files = {f for f in folder.rglob('*') if not generated(f)}
    return sorted(f for f in files if f.is_file() or f.is_symlink())


def copy(src, dst):
    "Copy the project's files from `src` to `dst`, links as links"
    for f in tree(src):
        new = dst/f.relative_to(src)
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(f, new, follow_symlinks=False)


def contents(folder): return {str(f.relative_to(folder)): f.read_bytes() for f in tree(folder)}


def run(*args, **kw):
    "Run a command without stdin: did it succeed?"
    return subprocess.run(args, stdin=subprocess.DEVNULL, **kw).returncode == 0


def quietly(*args, cwd):
    "Run a command and show what it says only if it fails"
    p = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd)
    if p.returncode: sys.exit(f'{p.stdout}\n{Path(args[-1]).name} failed.')


def stale(copied):
    "What differs from what the notebooks generate, in `copied`, a copy of the project that is changed: a list of sentences"
    def changes(why, mend):
        nonlocal before
        after = contents(copied)
        names = sorted(o for o in before | after if before.get(o) != after.get(o))
        before = after
        return [f'{o} {why}: {mend}.' for o in names]
    before = contents(copied)
    quietly(bin/'nbdev_clean', cwd=copied)
    res = changes('is not clean', 'run nbdev_clean')
    for f in (copied/'backprop13').glob('*.py'): f.unlink()
    quietly(bin/'nbdev_export', cwd=copied)
    res += changes("isn't what the notebooks export", 'run nbdev_export, and remove modules that no notebook has')
    quietly(sys.executable, 'tools/readme.py', cwd=copied)
    res += changes("isn't what the notebooks generate", 'run make readme')
    quietly(sys.executable, 'tools/practice.py', cwd=copied)
    return res + changes("isn't what chapters and exercises generate", 'run make practice')


def main():
    env, n, total = {**os.environ, 'CI': 'true'}, 0, time.time()

    def step(what, func):
        nonlocal n
        n += 1
        start = time.time()
        print(f'[{n}/4] {what} ...', flush=True)
        if not func(): sys.exit(f'[{n}/4] failed after {time.time()-start:.1f} s: {what}.')
        print(f'[{n}/4] done in {time.time()-start:.1f} s', flush=True)

    def fresh():
        with tempfile.TemporaryDirectory() as tmp:
            copy(root, Path(tmp))
            problems = stale(Path(tmp))
        print(*problems, sep='\n', end='\n' if problems else '')
        return not problems

    def skip(what):
        nonlocal n
        n += 1
        print(f'[{n}/4] {what}: skipped, because only synthetic digits are at hand; '
              'let BACKPROP13_DATA name a folder with the four MNIST files.', flush=True)

    step('Notebooks are clean; library, README and practice notebooks are what they generate', fresh)
    real = data_source() == 'MNIST'
    synthetic = {**env, 'BACKPROP13_DATA': 'synthetic'}
    if not real: env = synthetic                 # so that nothing tries to download again
    step('Notebooks run on synthetic digits, their checks hold', lambda: run(bin/'nbdev_test', cwd=root, env=synthetic))
    what = 'Notebooks run on the real data, their checks hold, what they print is what is stored'
    step(what, lambda: run(sys.executable, 'tools/notebooks.py', 'check', cwd=root, env=env)) if real else skip(what)
    print(f'[4/4] Tests (so far {time.time()-total:.0f} s) ...', flush=True)
    sys.exit(0 if run(sys.executable, '-m', 'pytest', '-ra', 'tests', cwd=root, env=env) else 1)


if __name__ == '__main__': main()
