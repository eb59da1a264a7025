"""The commands, run as a user runs them: in a process of their own, in a log or on a terminal.
What all of them refuse, too"""
import contextlib, fcntl, gzip, io, os, pty, re, signal, struct, subprocess, sys, termios, threading, time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np, pytest, torch
from PIL import Image
from conftest import a_full_disk, root
from helpers import config
from torch import nn

from backprop13 import data
from backprop13.practice import submissions
from backprop13.support import benchmarks, commands
from backprop13.backprop import Linear
from backprop13.fitting import evaluate, load_weights, set_seed
from backprop13.training import cross_entropy

NO_NETWORK = dict.fromkeys(('http_proxy', 'https_proxy'), 'http://127.0.0.1:9')  # nobody listens there


def command(name, *words):
    "The command line that the installed command's script stands for"
    return [sys.executable, '-c', f'from backprop13.support.commands import {name}; {name}()', *map(str, words)]


def environment(**env):
    e = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1', **env)
    e.pop('TQDM_DISABLE', None)
    return e


def start(folder, name, *words, **env):
    "A command whose output goes to a log"
    pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command(name, *words), cwd=folder, env=environment(**env), **pipes)


def shell(folder, name, *words, **env):
    "Exit code, stdout and stderr of a command"
    with start(folder, name, *words, **env) as p: out, err = p.communicate(timeout=100)
    return p.returncode, out, err


MAIN = dict(train=lambda words: commands.train(words), data=lambda words: commands.data(words),
            grade=submissions.grade, bench=benchmarks.main)


def here(name, *words, stdout=0):
    "The same in this process, where anything but a sentence is an exception"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out if stdout == 0 else stdout), contextlib.redirect_stderr(err):
        try: code = MAIN[name]([*map(str, words)])
        except SystemExit as e: code = e.code
    return code or 0, out.getvalue(), err.getvalue()


def is_sentence(err, name, *words):
    "One line, by the command, that says these words"
    assert err.startswith(f'backprop13-{name}: ') and err.count('\n') == 1 and err.endswith('\n'), err
    for word in words: assert word in err, (word, err)

def is_refused(result, name, *words):
    "Exit code 2, nothing printed, and a sentence"
    code, out, err = result
    assert (code, out) == (2, ''), result
    is_sentence(err, name, *words)


def table(out):
    "The rows of the final table: training loss, validation loss, accuracy in percent"
    lines = out.splitlines()
    lines = lines[lines.index('epoch  training loss  validation loss  accuracy  seconds') + 1:]
    rows = [o.replace('%', '').split() for o in lines[:lines.index('')]]
    assert [int(o[0]) for o in rows] == [*range(1, len(rows) + 1)]
    assert all(float(o[4]) > 0 for o in rows)
    return np.array([o[1:4] for o in rows], float)


def network(weights):
    model = nn.Sequential(Linear(784, 20), nn.ReLU(), Linear(20, 10))
    load_weights(model, weights)
    return model


@pytest.fixture(autouse=True)
def some_digits(request, monkeypatch):
    "Where it doesn't matter which digits, those made by code"
    if not request.node.get_closest_marker('data'): monkeypatch.setenv('BACKPROP13_DATA', 'synthetic')

@pytest.fixture
def at_hand(monkeypatch, digits): monkeypatch.setattr(commands, 'mnist', lambda *args, **kw: digits)

@pytest.fixture(scope='module')
def valid_dl(digits): return [(digits.x_valid, digits.y_valid)]

@pytest.fixture(scope='module')
def trained(tmp_path_factory, digits):
    "A run of two epochs in a log: its folder, what it printed, what it complained about"
    folder = tmp_path_factory.mktemp('run')
    code, *said = shell(folder, 'train', '--epochs', 2, '--hidden', 20, '--lr', .05, '--weights',
                        'w.safetensors')
    assert code == 0, said
    return folder, *said


# ---- a run

def test_a_log_has_lines_only(trained):
    _, out, err = trained
    assert err == '' and '\r' not in out and '\x1b' not in out and '|' not in out, err
    assert re.search(r'^epoch 2 of 2: training loss 0\.\d{3}, validation loss', out, re.M)


def test_what_it_trains_on_is_said(trained, digits):
    out = trained[1]
    source = re.search(r'^data:     (.+)$', out, re.M)[1]
    if digits.source == 'synthetic': assert source == 'digits made by code'
    else:
        assert source.startswith('MNIST in ')
        assert Path(source.removeprefix('MNIST in ')).samefile(data._source() or data.cache_folder()/'mnist')
    assert '50000 images to train on, 10000 to validate' in out
    assert '20 hidden units' in out and 'learning rate 0.05, seed 1, gradients by our layers' in out


def test_the_table_and_the_weights_agree(trained, valid_dl):
    folder, out, _ = trained
    rows, model = table(out), network(folder/'w.safetensors')
    loss, accuracy = evaluate(model, cross_entropy, valid_dl)
    assert rows.shape == (2, 3) and rows[1, 0] < rows[0, 0] < np.log(10) and rows[1, 2] > 80
    np.testing.assert_allclose(rows[1, 1:], [loss, 100*accuracy], atol=.0051)
    assert f'accuracy on the validation set: {rows[1, 2]:.2f}%\n' in out
    assert f'weights:  {folder}/w.safetensors\n' in out


def test_a_loop_in_python_gives_the_same(trained, digits):
    "What the command prints is what a few lines of Python compute, whose backward pass is PyTorch's"
    set_seed(1)
    model = nn.Sequential(Linear(784, 20), nn.ReLU(), Linear(20, 10))
    g = torch.Generator().manual_seed(torch.randint(2**62, ()).item())
    means = []
    for _ in range(2):
        torch.empty((), dtype=torch.int64).random_(generator=g)
        total = 0
        for batch in torch.randperm(50000, generator=g).split(64):
            loss = nn.functional.cross_entropy(model(digits.x_train[batch]), digits.y_train[batch])
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in model.parameters(): p -= .05*p.grad
            total += loss.item()*len(batch)
        means.append(total/50000)
    np.testing.assert_allclose(table(trained[1])[:, 0], means, atol=.002)


def test_the_worst_errors_are_drawn(trained, digits, valid_dl):
    folder, out, _ = trained
    assert f'picture:  {folder}/worst-errors.png\n' in out
    picture = np.array(Image.open(folder/'worst-errors.png').convert('L'))
    h, w = picture.shape
    assert Image.open(folder/'worst-errors.png').format == 'PNG' and 1000 < w < 1500 and 400 < h < 900
    for cell in (picture[i*h//3:(i + 1)*h//3, j*w//8:(j + 1)*w//8] for i in range(3) for j in range(8)):
        assert .02 < (cell < 128).mean() < .5                     # ink of a digit, on paper


def test_the_worst_errors_are_the_worst(trained, digits):
    model = network(trained[0]/'w.safetensors')
    worst, guess = commands.worst_errors(model, digits.x_valid, digits.y_valid, 10)
    with torch.no_grad(): out = model(digits.x_valid)
    losses = nn.functional.cross_entropy(out, digits.y_valid, reduction='none')
    wrong = [i for i in losses.argsort(descending=True).tolist() if out[i].argmax() != digits.y_valid[i]]
    assert worst.tolist() == wrong[:10] and guess.tolist() == out[worst].argmax(1).tolist()
    few = torch.tensor([*wrong[:3], *(out.argmax(1) == digits.y_valid).nonzero()[:5, 0].tolist()])
    worst, _ = commands.worst_errors(model, digits.x_valid[few], digits.y_valid[few])
    assert sorted(worst.tolist()) == [0, 1, 2]


def test_no_errors_no_picture(trained, digits, tmp_path, capsys):
    model = network(trained[0]/'w.safetensors')
    with torch.no_grad(): right = model(digits.x_valid).argmax(1) == digits.y_valid
    commands._draw_worst(tmp_path/'a.png', model,
                         digits._replace(x_valid=digits.x_valid[right], y_valid=digits.y_valid[right]))
    assert 'no picture' in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize('ending,magic', [('.jpg', b'\xff\xd8'), ('.PDF', b'%PDF'), ('.svg', b'<?xml')])
def test_other_kinds_of_pictures(trained, digits, tmp_path, ending, magic):
    path = commands._new_file('.jpg', '.pdf', '.svg')(str(tmp_path/f'a{ending}'))
    commands._draw_worst(path, network(trained[0]/'w.safetensors'), digits)
    assert path.read_bytes().startswith(magic)


def test_both_backward_passes_workers_and_seeds(trained):
    "Autograd gives what our layers give; so do two workers, to the digit; another seed doesn't"
    folder, out, _ = trained
    two = '--epochs', 2, '--hidden', 20, '--lr', .05, '--no-picture'        # small steps: roundings stay small
    before = sorted(p.name for p in folder.iterdir())
    runs = [shell(folder, 'train', *two, '--workers', 2),
            here('train', *two, '--backward', 'autograd'), here('train', *two, '--seed', 2)]
    assert [(code, err) for code, _, err in runs] == [(0, '')]*3
    workers, auto, other = (out for _, out, _ in runs)
    assert 'gradients by autograd' in auto and 'seed 2' in other
    np.testing.assert_allclose(table(auto)[:, :2], table(out)[:, :2], atol=.002)
    assert (table(workers) == table(out)).all()                   # which also is the run repeated
    assert abs(table(other) - table(out)).max() > .003
    assert sorted(p.name for p in folder.iterdir()) == before     # --no-picture, no weights: no files


def test_our_backward_pass_runs_without_autograd(at_hand, monkeypatch):
    seen = {}
    def fit(epochs, model, loss, opt, *_, **__): seen[torch.is_grad_enabled()] = type(model)
    monkeypatch.setattr(commands, 'fit', fit)
    for backward in 'ours', 'autograd': here('train', '--backward', backward, '--no-picture')
    from backprop13.fitting import Sequential
    assert seen == {False: Sequential, True: nn.Sequential} and torch.is_grad_enabled()


def test_the_options_arrive(at_hand, monkeypatch):
    "Those that change no result included: workers, and the device"
    seen = []
    monkeypatch.setattr(commands, 'fit', lambda *args, **kwargs: seen.append((args, kwargs)))
    here('train', *'--epochs 7 --hidden 9 --bs 32 --lr .25 --workers 2 --device cpu --no-picture'.split())
    (epochs, model, _, opt, train_dl, valid_dl), kwargs = seen[0]
    assert (epochs, opt.lr, train_dl.num_workers, valid_dl.num_workers) == (7, .25, 2, 2)
    assert train_dl.batch_sampler.bs == 32
    assert kwargs['device'] == torch.device('cpu') and [len(p) for p in model.parameters()] == [784, 9, 9, 10]


# ---- a terminal

def on_terminal(folder, *words):
    "Exit code and output of backprop13-train on a terminal"
    main, side = pty.openpty()
    # one of no size has no room for a bar
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack('4H', 24, 80, 0, 0))
    pipes = dict(stdin=side, stdout=side, stderr=side)
    with subprocess.Popen(command('train', *words), cwd=folder, env=environment(TERM='xterm'), **pipes) as p:
        os.close(side)
        got = []
        with contextlib.suppress(OSError):                        # the other end is closed
            while block := os.read(main, 4096): got.append(block)
    os.close(main)
    return p.returncode, b''.join(got).decode()


def test_a_terminal_has_a_bar(tmp_path):
    # longer than a bar waits
    code, said = on_terminal(tmp_path, '--epochs', 1, '--hidden', 20, '--bs', 4, '--lr', .01, '--no-picture')
    assert code == 0 and re.search(r'\repoch 1 of 1: +[1-9]\d*%\|', said), said
    assert len(table(said.replace('\r\n', '\n'))) == 1


# ---- stopped

def stopped(folder, *words, at):
    "A command that gets SIGINT when it has printed a line that starts so: exit code, stdout and stderr"
    with start(folder, 'train', *words) as p:
        out = ''
        while not out.endswith('\n') or not out.splitlines()[-1].startswith(at):
            line = p.stdout.readline()
            assert line, p.stderr.read()
            out += line
        time.sleep(.3)
        p.send_signal(signal.SIGINT)
        rest, err = p.communicate(timeout=60)
    return p.returncode, out + rest, err


def test_ctrl_c_keeps_what_was_learnt(tmp_path, valid_dl):
    code, out, err = stopped(tmp_path, '--epochs', 500, '--hidden', 20, '--weights', 'w.safetensors',
                             at='epoch 1 of')
    assert code == 130 and err == '' and 'Stopped by Ctrl-C in ' in out, out + err
    assert 1 <= len(table(out)) < 100 and 'w.safetensors (the last good ones)' in out and 'picture' not in out
    assert evaluate(network(tmp_path/'w.safetensors'), cross_entropy, valid_dl).accuracy > .8


def test_ctrl_c_in_the_first_epoch(tmp_path):
    code, out, err = stopped(tmp_path, '--hidden', 3000, '--workers', 2, at='training:')
    assert code == 130 and err == '' and 'No epoch was completed.' in out, out + err


def test_ctrl_c_before_the_training(monkeypatch):
    def mnist(source): raise KeyboardInterrupt
    monkeypatch.setattr(commands, 'mnist', mnist)
    assert here('train') == (130, '', 'backprop13-train: stopped by Ctrl-C\n')


@pytest.mark.parametrize('name,home', [('train', 'support.commands'), ('grade', 'practice.submissions'),
                                       ('bench', 'support.benchmarks')])
def test_ctrl_c_while_it_imports(tmp_path, name, home):
    def imports(code):
        (tmp_path/'torch.py').write_text(code)
        script = (f"import sys; sys.argv = ['/bin/backprop13-{name}']; sys.path.insert(0, {str(tmp_path)!r})\n"
                  f'import backprop13.{home}')
        r = subprocess.run([sys.executable, '-c', script], env=environment(), capture_output=True, text=True)
        return r.returncode, r.stdout, r.stderr
    assert imports('raise KeyboardInterrupt') == (130, '', f'backprop13-{name}: stopped by Ctrl-C\n')
    code, _, err = imports('1/0')                                   # another error keeps its traceback
    assert code == 1 and 'ZeroDivisionError' in err


def test_a_reader_that_leaves(tmp_path):
    "As in `backprop13-train | head -1`"
    with start(tmp_path, 'train', '--epochs', 2) as p:
        p.stdout.readline(); p.stdout.close()
        err = p.stderr.read()
    assert p.returncode == 141 and err == ''


def test_a_reader_that_leaves_loses_no_weights(at_hand, tmp_path, monkeypatch):
    "They are saved before the table is printed"
    def fit(*_, history, **__): raise BrokenPipeError
    monkeypatch.setattr(commands, 'fit', fit)
    def gone(history): raise BrokenPipeError
    monkeypatch.setattr(commands, '_print_table', gone)
    code, _, err = here('train', '--hidden', 20, '--no-picture', '--weights', tmp_path/'w.safetensors')
    assert code == 141 and network(tmp_path/'w.safetensors')
    assert err == f"backprop13-train: the weights are in {tmp_path/'w.safetensors'}\n"


# ---- what goes wrong

def test_a_loss_of_nan(tmp_path):
    code, out, err = here('train', '--lr', 1e30, '--hidden', 20, '--no-picture', '--weights',
                          tmp_path/'w.safetensors')
    assert code == 2
    is_sentence(err, 'train', 'the loss became', 'lower the learning rate')
    assert 'w.safetensors (the last good ones)' in out
    assert all(p.isfinite().all() for p in network(tmp_path/'w.safetensors').parameters())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a command is typed: it has what an option may name by mistake, nothing there changes, and nothing is
    trained, graded or measured. (A link to a device: a bug that replaces it does no harm.)"""
    for name in 'd.safetensors', 'd.json', 'd.csv', 'in', 'none', 'three': (tmp_path/name).mkdir()
    (tmp_path/'file').write_text('x')
    (tmp_path/'in'/'ann.py').write_text('def relu(x):\n    return x*(x > 0)\n')
    for o in 'safetensors', 'png', 'json', 'csv': (tmp_path/f'full.{o}').symlink_to('/dev/full')
    for o in 'safetensors', 'json': os.mkfifo(tmp_path/f'pipe.{o}')
    for o in [*commands.SHA256][:3]: (tmp_path/'three'/o).write_bytes(b'')
    monkeypatch.chdir(tmp_path)
    for where, o in (commands, 'fit'), (submissions, 'run_all'), (benchmarks, 'Apart'):
        monkeypatch.setattr(where, o, None)
    names = lambda: sorted(p.name for p in tmp_path.iterdir())
    before = names()
    yield tmp_path
    assert names() == before


def refused(name, *words, why=''):
    "The command says in a sentence, with exit code 2, why it doesn't begin"
    is_refused(here(name, *words), name, why)


NONE, MISSING, LONG = 'a file, and that is none', 'wanted a folder that is there', 'refuses (File name too long)'
def places(option, ending):
    "What can't be written"
    rows = [('full', NONE), ('nowhere/x', f'{MISSING}; make /'), ('file/x', MISSING),
            ('/proc/x', '/proc refuses'), ('n'*260, LONG)]
    return [(f'{option} {o}{ending}', why) for o, why in rows]
def numbers(option, *wrong): return [(f'{option} {n}', f"got '{n}'") for n in wrong]
DATA = [('--data nowhere', '/nowhere; set BACKPROP13_DATA'), ('--data file', '(it is a file); set')]
BAD = dict(
    train=[
        ('--bs 0', "--bs: got '0', wanted a whole number from 1"),
        ('--bs 50001', '--bs is 50001, wanted at most 50000'),
        ('--bs x', 'a whole number'), ('--hidden 0', 'from 1'),
        ('--hidden 10000000000', '--hidden is 10000000000'),
        (f'--hidden {10**19}', 'too many'), ('--epochs 0', 'from 1'), *numbers('--epochs', '1.5'),
        *numbers('--lr', '-1', 'nan', 'inf'), ('--seed -1', 'from 0 to 4294967295'),
        ('--seed 4294967296', 'from 0 to'),
        ('--workers -1', 'from 0'), ('--workers 101', 'from 0 to 100'), *numbers('--device', 'abacus', 'meta'),
        ('--backward both', 'ours or autograd'), (f'--bs {"9"*5000}', "got '999"), *DATA,
        ('--data=', 'or the word synthetic'), ('--data ~nobody/x', 'there is no folder'),
        *places('--weights', '.safetensors'), *places('--picture', '.png'),
        ('--weights d.safetensors', NONE), ('--weights pipe.safetensors', NONE),
        (f'--weights {"n"*300}.safetensors', LONG),
        *((f'--weights{o}', 'ends in .safetensors') for o in ('=', ' w.pt', ' /dev/full')),
        ('--picture p.doc', 'ends in .png'), ('--picture p', 'ends in .png'),
        ('--picture p.png --no-picture', 'not allowed with'), ('--epoch 3', 'unrecognized arguments: --epoch'),
        ('--bs', 'expected one argument'), ('words', 'unrecognized arguments: words')],
    data=[
        *DATA, ('--data=', 'or the word synthetic'), ('--nope', 'unrecognized arguments: --nope'),
        ('words', 'unrecognized'),
        ('--data', 'expected one argument'), ('--data no\nwhere', '/no where; set BACKPROP13_DATA')],
    grade=[
        ('', 'required: FOLDER'), ('nowhere', 'nowhere is no folder'), ('file', 'file is no folder'),
        ('none', 'none has no submission'), ('in in', 'unrecognized'), ('in --csv', 'expected one argument'),
        ('in --csv a.txt', 'ends in .csv'), ('in --csv d.csv', NONE), *places('in --csv', '.csv'),
        *(row for o in ('jobs', 'seconds', 'cell-seconds', 'memory')
          for row in numbers(f'in --{o}', '0', '-1', 'x', 'nan', '9'*20)),
        *((f'in {o}', why) for o, why in DATA)],
    bench=[
        *places('--out', '.json'), ('--out d.json', NONE), ('--out pipe.json', NONE),
        *((f'--out{o}', 'ends in .json') for o in ('=', ' .', ' /dev/full')),
        ('--out', 'expected one argument'),
        *numbers('--rounds', '0', '-1', '1.5', 'x', '9'*20), ('--device tpu', 'cpu or cuda'),
        ('words', 'unrecognized'), ('--only {}', 'unrecognized'), DATA[0]])

@pytest.mark.parametrize('name,line,why', [(name, *row) for name, rows in BAD.items() for row in rows],
                         ids=lambda o: repr(o[:40]))
def test_a_bad_input(folder, name, line, why):
    if '/proc' in line and not Path('/proc').is_dir(): pytest.skip('no /proc here')
    refused(name, *line.split(' ' if line else None), why=why)


COMMANDS = [('train', ''), ('data', ''), ('grade', 'in'), ('bench', '')]

@pytest.mark.parametrize('source,why', [
    ('nowhere', '/nowhere; set BACKPROP13_DATA'), ('file', '/file (it is a file); set'),
    ('three', '/three has no t10k-labels-idx1-ubyte (raw')])
@pytest.mark.parametrize('name,line', COMMANDS)
def test_a_bad_variable(folder, monkeypatch, name, line, source, why):
    "$BACKPROP13_DATA names no folder, or one with a file missing"
    monkeypatch.setenv('PWD', str(folder))                        # from which it counts
    monkeypatch.setenv('BACKPROP13_DATA', source)
    refused(name, *line.split(), why=why)


@pytest.mark.parametrize('name,line', [*COMMANDS, ('train', '--help'), ('bench', '--version')])
@pytest.mark.parametrize('kind,want,why', [
    ('closed', 2, 'stdout is closed'), ('full', 2, "stdout can't be written (No space left on device)"),
    ('left', 141, '')])
def test_stdout_that_takes_nothing(folder, monkeypatch, at_hand, digits, name, line, kind, want, why):
    "`>&-`, `> /dev/full` and `| head -0`, before the work"
    monkeypatch.setattr(benchmarks, '_settle_data', lambda asked: None)
    monkeypatch.setattr(commands, '_verified', lambda source: (folder, digits))
    a, b = os.pipe()
    os.close(a)
    where = dict(closed=lambda: None, full=lambda: open('/dev/full', 'w'),
                 left=lambda: open(b, 'w', closefd=False))[kind]()
    code, _, err = here(name, *line.split(), stdout=where)
    if where: where.close()                                       # as Python does at its end: says nothing more
    os.close(b)
    assert code == want and (why or err == ''), err
    if why: is_sentence(err, name, why)


def test_closed_stderr(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', None)
    with contextlib.redirect_stdout(out := io.StringIO()), pytest.raises(SystemExit) as e:
        commands.train(['--bs', '0'])
    assert e.value.code == 2 and out.getvalue() == '' and sys.stderr.writable()


@pytest.mark.parametrize('name,line,size,why', [
    ('train', '--no-picture --weights w.safetensors', 1000, 'refuses (File too large)'),
    ('train', '--no-picture --weights w.safetensors', 100_000,
     "w.safetensors can't be written (File too large); make room"),
    ('train', '--picture p.png', 1000, 'refuses (File too large)'),
    ('grade', 'in --csv r.csv', 1000, 'refuses (File too large)'),
    ('bench', '--out r.json', 1000, 'refuses (File too large)')])
def test_a_full_disk(folder, monkeypatch, at_hand, name, line, size, why):
    "Found out before the work; the weights by their own size"
    monkeypatch.setattr(commands, 'fit', lambda *args, **kw: pytest.fail('it began to train'))
    with a_full_disk(size): code, _, err = here(name, *line.split())
    assert code == 2
    is_sentence(err, name, why)


def test_a_disk_that_is_full_at_the_end(folder, monkeypatch, at_hand):
    "Weights, picture, results: each is named"
    def full(path, data): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(commands, 'fit', lambda *args, **kw: None)
    from backprop13 import fitting
    monkeypatch.setattr(fitting, '_save', full)
    monkeypatch.setattr(submissions, '_save', full)
    monkeypatch.setattr(submissions, 'run_all', lambda *args: ([], []))
    for name, file, *words in ('train', 'w.safetensors', '--no-picture', '--weights'), ('grade', 'r.csv',
        'in', '--csv'):
        code, out, err = here(name, *words, file)
        assert code == 2
        is_sentence(err, name, f"{file} can't be written (No space left on device); make room")


def test_a_bad_backend_of_matplotlib(tmp_path):
    "It's read at the import, which is before the training"
    code, out, err = shell(tmp_path, 'train', '--epochs', 1, '--data', 'synthetic', MPLBACKEND='nonsense')
    assert code == 2 and 'epoch 1' not in out
    is_sentence(err, 'train', "'nonsense' is not a valid value for backend); unset MPLBACKEND, or")


@pytest.mark.parametrize('kind,why', [
    ('>&-', 'stdout is closed'), ('>/dev/full', "stdout can't be written (No space left on device)")])
def test_a_worker_that_can_print_nothing(tmp_path, kind, why):
    "As the commands: one sentence, and nothing more at Python's end"
    env = environment(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
    p = subprocess.run(['sh', '-c', f'"$0" -m backprop13.parallel --cpu {kind}', sys.executable],
                       cwd=tmp_path, env=env, capture_output=True, text=True)
    assert p.returncode in (1, 2) and why in p.stderr and p.stderr.count('\n') == 1, p.stderr


@pytest.mark.parametrize('name,line', [
    ('train', '--sb 3'), ('train', '--bs 50001'), ('train', '--data nowhere'), ('data', '--data nowhere')])
def test_a_bad_input_in_a_process_of_its_own(tmp_path, name, line):
    is_refused(shell(tmp_path, name, *line.split()), name)


def test_a_folder_that_is_read_only(folder, monkeypatch):
    "Refused before the training, by the default picture too"
    def refuse(**_): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(commands.tempfile, 'NamedTemporaryFile', refuse)
    for line in [], ['--no-picture', '--weights', 'w.safetensors']:
        refused('train', *line, why='refuses (Permission denied)')


def test_other_faults(at_hand, monkeypatch):
    "A dead worker and too little memory are sentences; an error of the program itself is none, and keeps its traceback"
    def fails(e):
        def fit(*_, **__): raise e
        monkeypatch.setattr(commands, 'fit', fit)
        return here('train', '--no-picture')
    died = 'DataLoader worker (pid 7) is killed by signal: Killed. '
    full = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."
    for e, want in (f'{died}\n...', died), (full, 'the memory here is too small for that; ask for less'):
        code, out, err = fails(RuntimeError(e))
        assert code == 2 and err == f'backprop13-train: {want}\n' and 'No epoch' in out
    for e in RuntimeError('mat1 and mat2'), KeyError('x'):
        with pytest.raises(type(e)): fails(e)


def test_help_and_version(tmp_path):
    for name in MAIN:
        code, out, err = here(name, '--help')
        assert code == 0 and err == '' and f'usage: backprop13-{name}' in out
        assert here(name, '--version')[1] == f'backprop13-{name} {config(root)["version"]}\n'
    out = ' '.join(here('train', '--help')[1].split())
    for o in ('test set stays closed', 'rate; default: 0.5', 'images; default: 3', 'layer; default: 50',
              'batch; default: 64', 'default: cpu', 'default: worst-errors.png', 'autograd; default: ours'):
        assert o in out, o


# ---- the data

@pytest.fixture
def files(tmp_path, digits):
    "MNIST's files in a folder, gzipped, with a server; or a skip"
    source = Path(os.environ.get('BACKPROP13_DATA') or commands.cache_folder()/'mnist')
    if digits.source == 'synthetic': pytest.skip('MNIST is not here')
    folder = tmp_path/'served'
    folder.mkdir()
    for name in commands.SHA256:
        path = commands._find(source, name)
        data = path.read_bytes()
        (folder/f'{name}.gz').write_bytes(data if path.suffix == '.gz' else gzip.compress(data, 1))
    return folder


@pytest.fixture
def mirror(files):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args): super().__init__(*args, directory=str(files))
        def log_message(self, *_): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown(); server.server_close()


def sizes(out): return [int(o) for o in re.findall(r'(\d+) bytes, checksum right', out)]


def test_data_is_fetched_and_verified(tmp_path, mirror, monkeypatch):
    monkeypatch.delenv('BACKPROP13_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(commands, 'MIRRORS', (mirror,))
    code, out, err = here('data')
    assert code == 0, err
    assert f'MNIST in {tmp_path}/backprop13/mnist\n' in out and sizes(out) == [47040016, 60008, 7840016, 10008]
    assert out.endswith('50000 images to train on, 10000 to validate, 10000 to test\n')
    monkeypatch.setattr(commands, 'MIRRORS', ())
    assert here('data') == (0, out, '')                           # nothing left to fetch


def test_data_in_a_folder(files, tmp_path):
    code, out, err = shell(tmp_path, 'data', '--data', files)
    assert (code, err) == (0, '') and f'MNIST in {files}\n' in out
    assert sizes(out) == [(files/f'{name}.gz').stat().st_size for name in commands.SHA256]
    (files/'t10k-labels-idx1-ubyte.gz').write_bytes(b'\x00\x00\x08\x01\x00\x00\x27\x10' + bytes(10000))
    is_refused(here('data', '--data', files), 'data', 't10k-labels-idx1-ubyte.gz: wrong checksum')


def test_no_network(tmp_path):
    "Synthetic digits in place of MNIST are a failure, and none are made"
    result = shell(tmp_path, 'data', BACKPROP13_DATA='', XDG_CACHE_HOME=str(tmp_path), **NO_NETWORK)
    is_refused(result, 'data', 'no mirror sent train-images')
    assert not (tmp_path/'backprop13'/'synthetic-1').exists()


def test_synthetic_digits_on_demand():
    code, out, err = here('data', '--data', 'synthetic')
    assert (code, err) == (0, '') and 'Digits made by code in' in out
    assert sizes(out) == [47040016, 60008, 7840016, 10008]


def test_training_on_synthetic_digits_in_place_of_mnist_is_said(monkeypatch, tmp_path):
    "The data module's warning is a sentence on stderr"
    def download(mirrors, name, wanted): raise ConnectionError(f'no mirror sent {name}')
    monkeypatch.delenv('BACKPROP13_DATA', raising=False)
    monkeypatch.setattr(data, 'download', download)
    real = data.cache_folder()/'synthetic-1'
    if not real.exists(): here('data', '--data', 'synthetic')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    (tmp_path/'backprop13').mkdir()
    (tmp_path/'backprop13'/'synthetic-1').symlink_to(real)
    code, out, err = here('train', '--epochs', 1, '--hidden', 20, '--no-picture')
    assert code == 0 and 'data:     digits made by code\n' in out
    is_sentence(err, 'train', 'SYNTHETIC DIGITS, NOT MNIST: no mirror sent')
