"""Execute notebooks and store their outputs (`run`), or compare what they print now with what is stored (`check`).

    python tools/notebooks.py run [--all] [NB ...]
    python tools/notebooks.py check [NB ...]

`run` keeps a stored output that `check` would pass, so that a diff shows what has changed; `--all`
stores every output anew. JupyterLab,
started by `make lab`, saves in the same way (`tools/jupyter_server_config.py`). What `check`
demands, cell by cell: the same outputs in the same order. Text is equal to the letter, but for numbers with decimals
or an exponent and the blanks around them: those agree to 1 % (training results move a little with
the number of threads and the
processor) or, without an exponent, to 1e-6. Integers are text. SVG is compared as text. Other
pictures, a lab's still one too, have
the stored size to 5 % and look alike: each square of 24 pixels stands in the other picture as
well, at most 1.6 % of the width and
height and 16 pixels away, and conversely. That is judged at half the size, a little blurred: light
may differ by 0.115 of the way from
black to white, colour by a third of that. So another build of matplotlib passes, and values that
move by 1 %; a line that is missing,
5 % off or of another colour, other limits, panels or images fail, and a hair-line may change
unseen. `run` keeps the words of
matplotlib's pictures (titles, labels, legends; not ticks) in the files; where both have theirs,
they are compared as text. A cell that
starts with `#| output-varies` shows a measurement: only the kinds of its outputs count; `run`
keeps it as long as the notebook's code,
but for `#|` lines and imports, is what it was when git got that output. A stored warning (stderr)
or error is a failure. As in nbdev_test, cells with `#| eval: false` aren't run."""
import asyncio, base64, io, math, os, re, subprocess, sys
from argparse import ArgumentParser
from itertools import zip_longest
from pathlib import Path

import nbformat, numpy as np
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbdev.clean import clean_nb
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageFilter

root = Path(__file__).resolve().parent.parent
rtol, atol, size_tol = 1e-2, 1e-6, .05
# of pictures at half their size; 0.105 was measured where 1 % moved, 0.128 where 5 % did
tile, away, far, unlike = 12, .016, 8, .115
WIDGET = 'application/vnd.jupyter.widget-view+json'     # names a widget of the kernel that ran, so it isn't stored
number = re.compile(r' *(?<![\w.])([-+]?(?:\d*\.\d+(?:e[-+]?\d+)?|\d+\.?e[-+]?\d+))(?!\w|\.\d) *', re.I)

WORDS = """def _words():                        # run in the kernel before the notebook
    from IPython.core import pylabtools
    draw = pylabtools.print_figure
    def print_figure(fig, *args, **kwargs):
        from matplotlib.text import Text
        sides = [a for ax in fig.axes for a in (ax.xaxis, ax.yaxis)]
        ticks = {t for a in sides for t in a.findobj(Text)} - {a.label for a in sides}
        said = [t.get_text() for t in fig.findobj(Text) if t not in ticks and t.get_visible()]
        return draw(fig, *args, **kwargs, metadata={'Description': '\\n'.join(filter(None, said))})
    pylabtools.print_figure = print_figure
_words(); del _words"""


def notebooks(folder):
    "The notebooks under `folder`, in order, as nbdev finds them"
    files = sorted(Path(folder).rglob('*.ipynb'))
    return [f for f in files if not any(p.startswith(('_', '.')) for p in f.relative_to(folder).parts)]


def directives(cell):
    "The words after `#|` at the head of a code cell, a set"
    lines = re.match(r'(?:\s*#\|.*\n?)*', cell.source)[0].splitlines()
    return {re.sub(r'\s+', '', o.split('#|', 1)[1]) for o in lines if '#|' in o}


async def execute(path, timeout=600):
    "The notebook at `path`, executed from the top by this Python in the notebook's folder, clean"
    nb = nbformat.read(path, 4)
    stored = [c.source for c in nb.cells]
    for c in nb.cells:
        if c.cell_type == 'code' and 'eval:false' in directives(c): c.source = ''
    km = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))  # no kernelspec of the user's
    client = NotebookClient(nb, km=km, timeout=timeout, record_timing=False,
                            store_widget_state=False, coalesce_streams=True,
                            # a kernel that is asked to end may call that an error
                            extra_arguments=['--IPKernelApp.log_level=50', f'--IPKernelApp.exec_lines={[WORDS]}'],
                            resources={'metadata': {'path': str(Path(path).parent)}})
    path_var = os.pathsep.join([str(root), *filter(None, [os.environ.get('PYTHONPATH')])])
    # nbdev_export() does nothing; no bars in outputs
    env = {'PYTHONPATH': path_var, 'IN_TEST': '1', 'TQDM_DISABLE': '1'}
    # not by itself, since the manager is ours
    await client.async_execute(cleanup_kc=True, env={**os.environ, **env})
    for c, source in zip(nb.cells, stored): c.source = source
    clean(nb)
    return nb


def clean(nb):
    """Take out of `nb` what doesn't belong into a stored notebook: metadata, counts, and widgets,
    which need the kernel that made them"""
    clean_nb(nb)
    nb.metadata.pop('widgets', None)
    for c in nb.cells:
        for o in c.get('outputs', []): o.get('data', {}).pop(WIDGET, None)


def outputs(cell):
    "The outputs of `cell`, with pieces of one stream put together"
    res = []
    for o in cell.outputs:
        if o.output_type == 'stream' and res and res[-1].get('name') == o.name: res[-1].text += o.text
        else: res.append(nbformat.from_dict(o))
    return res


def kind(o):
    "What an output is, without its content"
    return o.name if o.output_type == 'stream' else f"{o.output_type} of {', '.join(sorted(o.get('data', {})))}"


def same_text(a, b):
    "Do the lines `a` and `b` agree, numbers within the tolerance?"
    a_nums, b_nums = number.findall(a), number.findall(b)
    if number.sub('\0', a).rstrip() != number.sub('\0', b).rstrip(): return False
    def close(x, y): return math.isclose(float(x), float(y), rel_tol=rtol, abs_tol=0 if 'e' in (x+y).lower() else atol)
    return all(map(close, a_nums, b_nums))


def picture(im):
    """A picture as (height, width, 3), at half its size and blurred: light, and the two differences
    of colour at 3.5 times their range; paper is 0"""
    im = im.convert('RGBA')
    im = Image.alpha_composite(Image.new('RGBA', im.size, 'white'),
                               im).convert('RGB').reduce(2).filter(ImageFilter.GaussianBlur(1.5))
    return (np.asarray(im.convert('YCbCr'), np.float32)-np.float32([255, 128, 128]))*np.float32([1, 3.5, 3.5])/255


def lost(a, b):
    "The tile of picture `a` that is least to be found in `b` near its place: (how unlike, from the left, from the top)"
    h, w = (-(-n//tile)*tile for n in a.shape[:2])
    dy, dx = (min(far, max(2, round(away*n))) for n in a.shape[:2])
    def framed(x, dy, dx):
        res, x = np.zeros((h+2*dy, w+2*dx, 3), np.float32), x[:h+dy, :w+dx]
        res[dy:dy+x.shape[0], dx:dx+x.shape[1]] = x
        return res
    # of light or of a difference of colour, whichever is larger
    def rms(d): return np.sqrt((d**2).mean((-2, -1))).max(-1)
    a, b, worst = framed(a, 0, 0), framed(b, dy, dx), (0, 0, 0)
    for y, x in ((y, x) for y in range(0, h, tile) for x in range(0, w, tile)):
        one = a[y:y+tile, x:x+tile].transpose(2, 0, 1)
        near = sliding_window_view(b[y:y+tile+2*dy, x:x+tile+2*dx], (tile, tile), axis=(0, 1))
        if rms(near[dy, dx]-one) > unlike: worst = max(worst, (float(rms(near-one).min()), x/w, y/h))
    return worst


def look(a, b):
    "Pairs (stored, got) if the pictures `a` and `b`, in base64, don't look alike"
    if a == b: return []
    ims = [Image.open(io.BytesIO(base64.b64decode(o))) for o in (a, b)]
    # none where it isn't matplotlib's, or was stored before `run` kept them
    words = [getattr(o, 'text', {}).get('Description') for o in ims]
    if None not in words and (bad := unequal(*words)): return [tuple(f'a picture that says {o}' for o in bad[0])]
    if not all(math.isclose(x, y, rel_tol=size_tol) for x, y in zip(*(o.size for o in ims))):
        return [tuple(f'a picture of {o.size}' for o in ims)]
    a, b = map(picture, ims)
    d, x, y = max(lost(a, b), lost(b, a))
    where = f'{x:.0%} from the left, {y:.0%} from the top'
    return [('a picture', f'another one: see {where} (unlike by {d:.2f}; {unlike} passes)')] if d > unlike else []


def unequal(a, b):
    "Pairs of lines of the texts `a` and `b` that don't agree"
    return [o for o in zip_longest(a.splitlines(), b.splitlines(), fillvalue='nothing') if not same_text(*o)]


def differences(mime, a, b):
    "Pairs (stored, got) where the contents `a` and `b` of one output differ"
    if not isinstance(a, str): return []
    if mime in ('image/png', 'image/jpeg'): return look(a, b)
    stills = zip(*(re.findall(r'data:image/(?:png|jpeg);base64,([\w+/=]+)', o) for o in (a, b)))
    a, b = (re.sub(r'data:(?!image/svg)[\w/+-]+;base64,[\w+/=]+', 'data:', o) for o in (a, b))
    # M3.5h7
    if mime == 'image/svg+xml': a, b = (re.sub(r'(?<=[a-zA-Z])(?=[-.\d])|(?<=\d)(?=[a-zA-Z])', ' ', o) for o in (a, b))
    return unequal(a, b) + [d for x, y in stills for d in look(x, y)]


def stored_problems(nb):
    "What may not stand in a stored notebook: pairs (cell number, problem)"
    for i, c in enumerate(nb.cells):
        for o in c.get('outputs', []):
            if WIDGET in o.get('data', {}): yield i, "a widget's view is stored, which means nothing without its kernel"
            if o.output_type == 'error': yield i, f'an error is stored: {o.ename}: {o.evalue}'
            if o.output_type == 'stream' and o.name == 'stderr':
                yield i, f'a warning is stored (stderr): {o.text.strip()[-200:]}'


def differs(s, g):
    "What makes the outputs of the cell `g` others than those stored in the cell `s`; nothing if they agree"
    so, go = outputs(s), outputs(g)
    sk, gk = [kind(o) for o in so], [kind(o) for o in go]
    if sk != gk: return f"stored: {'; '.join(sk) or 'no output'}\n  got:    {'; '.join(gk) or 'no output'}"
    if 'output-varies' in directives(s): return ''
    for a, b in zip(so, go):
        if a.output_type == 'stream': pairs = [('text/plain', a.text, b.text)]
        else: pairs = [(m, a.data[m], b.data[m]) for m in a.get('data', {})]
        for m, x, y in pairs:
            for bad in differences(m, x, y): return f'stored: {bad[0]}\n  got:    {bad[1]}'
    return ''


def compare(stored, got):
    "Where the outputs of the notebook `got` differ from those of `stored`: pairs (cell number, problem)"
    yield from stored_problems(stored)
    for i, (s, g) in enumerate(zip(stored.cells, got.cells)):
        if s.cell_type == 'code' and 'eval:false' not in directives(s) and (bad := differs(s, g)): yield i, bad


def code(nb):
    "What the cells do: without `#|` lines and imports, which change no measurement"
    return [re.sub(r'^(#\||from |import ).*\n?', '', c.source, flags=re.M) for c in nb.cells if c.cell_type == 'code']


def measured(nb): return [(c.source, c.outputs) for c in nb.cells if c.cell_type == 'code'
                          and 'output-varies' in directives(c)]


def code_then(path):
    """The code that the notebook at `path` had when its measurements were committed, as far as git
    knows: its oldest commit with these outputs"""
    def git(*args): return subprocess.run(['git', *args], cwd=path.parent, capture_output=True,
                                          text=True, encoding='utf-8').stdout
    then = None
    for commit in git('log', '-n', '40', '--first-parent', '--format=%H', '--', path.name).split():
        nb = nbformat.reads(git('show', f'{commit}:./{path.name}') or '{"nbformat": 4, "cells": []}', 4)
        if then and [o for _, o in measured(nb)] != [o for _, o in measured(then)]: break
        then = nb
    return then and code(then)


def keep(nb, stored, path):
    """Give cells of `nb` the outputs that the same cells have in `stored`, where they agree; what
    varies only if no code has changed since"""
    old, unchanged = {}, code(nb) == code_then(path)
    for c in stored.cells: old.setdefault((c.cell_type, c.source), []).append(c)
    for c in nb.cells:
        same = old.get((c.cell_type, c.source))
        if c.cell_type != 'code' or not same: continue
        s = same.pop(0)
        if (unchanged or 'output-varies' not in directives(c)) and not differs(s, c): c.outputs = s.outputs


def saved(nb, path):
    "Make `nb`, which Jupyter is about to save at `path`, as `run` would store it"
    clean(nb)
    if path.exists(): keep(nb, nbformat.read(path, 4), path)


def named(path, i, problem): return f'{path}, cell {i+1}: {problem}'


async def one(path, command, gate, anew):
    "Run or check one notebook: a list of problems"
    async with gate:
        stored = nbformat.read(path, 4)
        try: got = await execute(path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as e: return [f'{path}: {e}']
    if command == 'check': return [named(path, *o) for o in compare(stored, got)]
    bad = [named(path, i, f'{o}; nothing was written') for i, o in stored_problems(got)]
    if not bad:
        if not anew: keep(got, stored, path)
        new = path.with_suffix('.new')
        nbformat.write(got, new)                        # lines in lists, as Jupyter saves them: small diffs
        new.replace(path)
    return bad


def work(command, paths, anew=False):
    """Run the notebooks at `paths` one by one, since what measures time is stored, or check one per
    core at a time, the largest first: a list of problems"""
    paths = sorted(paths, key=lambda p: -p.stat().st_size)
    async def go():
        gate = asyncio.Semaphore(1 if command == 'run' else os.cpu_count() or 1)
        return sum(await asyncio.gather(*(one(p, command, gate, anew) for p in paths)), [])
    return asyncio.run(go())


def data_source():
    "'MNIST' or 'synthetic': what `backprop13.data` finds on this machine (it may download)"
    code = ('import sys\nfrom backprop13.data import mnist\ntry: print(mnist().source)\n'
            'except (OSError, ValueError) as e: sys.exit(str(e))')
    res = subprocess.run([sys.executable, '-c', code], cwd=root, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, text=True)
    if res.returncode: sys.exit('The data could not be loaded, for the reason above.')
    return res.stdout.split()[-1]


if __name__ == '__main__':
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('command', choices=['run', 'check'])
    parser.add_argument('--all', action='store_true', help='store outputs anew that have not changed, and measurements')
    parser.add_argument('notebooks', nargs='*', type=Path, help='notebooks; all of nbs/ but practice/ if none is named')
    args = parser.parse_args()
    for o in args.notebooks:
        if not o.is_file(): sys.exit(f'There is no notebook {o}: name one as in nbs/03_backprop.ipynb.')
    if args.command == 'run' and data_source() != 'MNIST':
        sys.exit('Outputs are stored from the real MNIST, and there are only synthetic digits here: '
                 'let BACKPROP13_DATA name a folder with its four files.')
    # those are generated, without outputs
    chosen = args.notebooks or [o for o in notebooks(root/'nbs') if o.parent.name != 'practice']
    problems = work(args.command, chosen, args.all)
    if problems:
        end = f'To mend: {len(problems)}. Where only outputs differ, `make outputs` stores them anew.'
        sys.exit('\n'.join([*problems, end]))
    print('Stored.' if args.command == 'run' else 'Stored outputs are fresh.')
