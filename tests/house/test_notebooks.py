"Stored outputs: tools/notebooks.py stores what a notebook prints, and finds what it doesn't print any more"
import base64, io, re, subprocess, sys

import matplotlib, nbformat, numpy as np, pytest
from conftest import load_tool, root
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from helpers import LAST, sh, sound

notebooks = load_tool('notebooks')


@pytest.fixture(scope='module')
def executed(tmp_path_factory):
    "A small notebook, run and stored by tools/notebooks.py"
    path = tmp_path_factory.mktemp('nb')/'tiny.ipynb'
    cells = ['import backprop13; print("loss", 0.12345, "of", 60000)\nprint("acc [ 0.5000, -1.25e-03]")', '1/3',
             'import matplotlib.pyplot as plt\nax = plt.figure(figsize=(2, 1)).subplots()\nax.plot([1, 2])\n'
             'ax.set(xlabel="step", ylabel="loss", title="best 0.5000");',
             '#| output-varies\nimport time; time.time()', '#| eval: false\n1/0', LAST]
    nbformat.write(new_notebook(cells=[new_markdown_cell('# Tiny\n\n> Three outputs'),
                                       *map(new_code_cell, cells)]), path)
    assert notebooks.work('run', [path]) == []
    return path


def test_run_stores_clean_outputs_from_this_checkout(executed):
    nb = nbformat.read(executed, 4)
    assert [len(c.get('outputs', [])) for c in nb.cells] == [0, 1, 1, 1, 1, 0, 0]
    assert nb.cells[2].outputs[0].data['text/plain'] == '0.3333333333333333'
    assert nb.cells[2].execution_count is None
    assert not any(c.metadata for c in nb.cells)


def test_a_repeated_run_agrees(executed): assert notebooks.work('check', [executed]) == []


def out(nb, i): return nb.cells[i].outputs[0]
def says(old, new):
    def change(nb): out(nb, 1).text = out(nb, 1).text.replace(old, new)
    return change
near_number, far_number = says('0.12345', '0.12349'), says('0.12345', '0.13')
def other_time(nb): out(nb, 4).data['text/plain'] = 'at noon'
def split_stream(nb):
    nb.cells[1].outputs = [new_output('stream', name='stdout', text=o)
                           for o in out(nb, 1).text.splitlines(True)]

def restored(nb, replace=None):
    "Store the picture anew, with other words; without `replace` as a picture without words"
    im, file = Image.open(io.BytesIO(base64.b64decode(out(nb, 3).data['image/png']))), io.BytesIO()
    info = PngInfo()
    if replace: info.add_text('Description', im.text['Description'].replace(*replace))
    im.save(file, 'PNG', pnginfo=info)
    out(nb, 3).data['image/png'] = base64.b64encode(file.getvalue()).decode()
def no_words(nb): restored(nb)

@pytest.mark.parametrize('change', [
    near_number, says('[ 0.5000', '[0.501'), other_time, split_stream,
    lambda nb: restored(nb, ('0.5000', '0.503')), no_words])
def test_what_may_differ_passes(executed, change):
    stored = nbformat.read(executed, 4)
    change(stored)
    assert list(notebooks.compare(stored, nbformat.read(executed, 4))) == []


def far_result(nb): out(nb, 2).data['text/plain'] = '0.34'
def no_output(nb): nb.cells[2].outputs = []
def extra_output(nb): nb.cells[2].outputs *= 2
def other_kind(nb): out(nb, 4).data['text/html'] = '<b>1</b>'
def no_picture(nb): nb.cells[3].outputs = []
def stored_stderr(nb): nb.cells[2].outputs += [new_output('stream', name='stderr', text='UserWarning: old\n')]
def stored_error(nb):
    nb.cells[5].outputs = [new_output('error', ename='ZeroDivisionError', evalue='', traceback=[])]
def other_picture(nb):
    wider = io.BytesIO()
    Image.new('L', (50, 20)).save(wider, 'PNG')
    out(nb, 3).data['image/png'] = base64.b64encode(wider.getvalue()).decode()

@pytest.mark.parametrize('mutate', [
    far_number, says('-1.25e-03', '1.25e-03'), says('60000', '60001'), says('loss', 'Loss'),
    says('03]\n', '03]\ndone\n'), far_result, no_output, extra_output, other_kind, no_picture, other_picture,
    stored_stderr, stored_error,
    lambda nb: restored(nb, ('0.5000', '0.52')), lambda nb: restored(nb, ('step\nloss', 'loss\nstep'))])
def test_a_stale_output_is_caught(executed, mutate):
    stored = nbformat.read(executed, 4)
    mutate(stored)
    assert list(notebooks.compare(stored, nbformat.read(executed, 4)))


def plot(seed=0, values=1., up=0., colors=('#0072B2', '#B35900'), lines=2, labels=('step', 'loss'),
         legend=('wide', 'deep'), panels=2, wider=1., heatmap=0, look={}):
    "Two noisy curves beside two drawings of 28 by 28, as a picture in base64; what is given is spoilt"
    with matplotlib.rc_context({'font.size': 10, 'lines.linewidth': 1.5, **look}):
        fig = Figure((6, 2.4), layout='constrained')
        axs, x = fig.subplots(1, 1+panels, squeeze=False)[0], np.arange(60)
        noise = np.random.default_rng(seed).normal(size=(2, 60))
        for k in range(lines):
            y = (2-.5*k)*np.exp(-x/20)+.3+.08*noise[k]
            # one curve moves up, one down
            axs[0].plot(x, y*values**(1-2*k)+up, color=colors[k], label=legend[k])
        axs[0].set(xlabel=labels[0], ylabel=labels[1], xlim=(-3, 62*wider), ylim=(0, 2.5))
        axs[0].legend()
        r, c = np.mgrid[:28, :28]-13.5
        shapes = [(abs(np.hypot(r, c)-8) < 2), (abs(c) < 2)*(abs(r) < 10)]
        for k, ax in enumerate(axs[1:]):
            ax.imshow(shapes[(k+heatmap) % 2]*values, cmap='gray_r', vmax=1)
            ax.axis('off')
        file = io.BytesIO()
        fig.savefig(file, dpi=200)
    return base64.b64encode(file.getvalue()).decode()

@pytest.fixture(scope='module')
def sound_plot(): return plot()

@pytest.mark.parametrize('change', [
    dict(values=1.01), dict(values=.99), dict(look={'text.hinting': 'none'}), dict(look={'text.antialiased': False}),
    dict(look={'font.size': 10.1})], ids=str)
def test_a_picture_that_looks_the_same_passes(sound_plot, change):
    new = plot(**change)
    assert new != sound_plot and notebooks.differences('image/png', sound_plot, new) == []

@pytest.mark.parametrize('change', [
    dict(seed=1), dict(up=.125), dict(values=1.1), dict(lines=1), dict(labels=('', 'loss')), dict(panels=1),
    dict(colors=('#007A5A', '#B35900')), dict(colors=('#B35900', '#0072B2')), dict(wider=1.1), dict(heatmap=1)],
    ids=str)
def test_a_picture_that_looks_different_is_caught(sound_plot, change):
    [(_, said)] = notebooks.differences('image/png', sound_plot, plot(**change))
    assert re.search(r'another one: see \d+% from the left, \d+% from the top', said), said


def test_the_still_picture_of_a_lab_is_looked_at(sound_plot):
    for kind, *pictures in ('png', sound_plot, plot(lines=1)), ('svg+xml', 'PHN2Zy8+', 'PGcvPg=='):
        old, new = (f'<img alt="A lab" src="data:image/{kind};base64,{o}">' for o in pictures)
        assert not notebooks.differences('text/html', old, old)
        assert len(notebooks.differences('text/html', new, old)) == 1


def test_svg_is_compared_as_text():
    svg = '<svg><path d="M10.0,20.0L3.5h-7z" stroke="#0072B2"/><text x="3.0">W1 = 2</text></svg>'
    def same(old, new): return not notebooks.differences('image/svg+xml', svg, svg.replace(old, new))
    assert same('M10.0,', 'M10.05,') and same('L3.5h', 'L3.501h')
    assert not any(same(*o) for o in [('M10.0', 'M10.5'), ('L3.5h', 'L3.6h'),
                                      ('#0072B2', '#B35900'), ('W1', 'W2'), ('h-7', 'v-7'),
                                      ('<text x="3.0">W1 = 2</text>', '')])


def test_the_message_says_where_and_what(executed, tmp_path):
    stored, path = nbformat.read(executed, 4), tmp_path/'old.ipynb'
    far_number(stored)
    nbformat.write(stored, path)
    before = path.read_bytes()
    rc, said = sh(sys.executable, 'tools/notebooks.py', 'check', path, cwd=root)
    assert rc == 1 and f'{path}, cell 2: stored: loss 0.13 of 60000\n  got:    loss 0.12345 of 60000' in said, said
    assert path.read_bytes() == before


def test_a_failing_notebook_keeps_its_stored_outputs(tmp_path):
    nb, path = sound(), tmp_path/'a.ipynb'
    nb.cells[2].source = 'print(1); raise ValueError("bad digit")'
    nbformat.write(nb, path)
    before = path.read_bytes()
    problems = notebooks.work('run', [path])
    assert len(problems) == 1 and 'bad digit' in problems[0] and path.read_bytes() == before


@pytest.fixture
def kept(executed, tmp_path):
    "The small notebook, committed in a repository of its own"
    path = tmp_path/'tiny.ipynb'
    path.write_bytes(executed.read_bytes())
    for args in ['init', '-q'], ['add', '.']: subprocess.run(['git', *args], cwd=tmp_path, check=True)
    commit(path)
    return path


def test_a_repeated_run_changes_nothing(kept):
    before = kept.read_bytes()
    assert notebooks.work('run', [kept]) == [] and kept.read_bytes() == before
    assert notebooks.work('run', [kept], anew=True) == []
    assert kept.read_bytes() != before         # another time of day


def commit(path): subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qam', 'tiny'],
                                 cwd=path.parent, check=True)


@pytest.mark.parametrize('early', [False, True], ids=['run, then committed', 'committed, then run'])
def test_a_run_stores_what_changed(kept, early):
    nb, old = (nbformat.read(kept, 4) for _ in range(2))
    far_number(nb)
    # what varies isn't kept where any code has changed
    nb.cells.insert(1, new_code_cell('1+1'))
    nbformat.write(nb, kept)
    if early: commit(kept)
    assert notebooks.work('run', [kept]) == []
    got = nbformat.read(kept, 4)
    assert 'loss 0.12345' in out(got, 2).text and out(got, 3) == out(old, 2)
    assert out(got, 1).data['text/plain'] == '2'
    assert out(got, 5).data['text/plain'] != out(old, 4).data['text/plain'] and out(got, 4) == out(old, 3)
    commit(kept)
    assert notebooks.work('run', [kept]) == [] and nbformat.read(kept, 4) == got


def test_jupyter_saves_what_is_stored(kept):
    before, nb = kept.read_bytes(), nbformat.read(kept, 4)
    near_number(nb)
    other_time(nb)
    split_stream(nb)
    no_words(nb)
    nb.metadata.widgets = {'state': {}}
    for i, c in enumerate(nb.cells[1:]): c.execution_count, c.metadata = i, {'trusted': True}
    out(nb, 2).data[notebooks.WIDGET] = {'model_id': '1'}
    notebooks.saved(nb, kept)
    assert nbformat.writes(nb).encode() + b'\n' == before
    far_number(nb)
    nb.cells[3].outputs = []
    notebooks.saved(nb, kept)
    assert 'loss 0.13' in out(nb, 1).text and not nb.cells[3].outputs


def test_outputs_are_not_stored_from_synthetic_digits():
    rc, said = sh(sys.executable, 'tools/notebooks.py', 'run', cwd=root, BACKPROP13_DATA='synthetic')
    assert rc == 1 and 'real MNIST' in said, said
