"""Shards, workers, checkpoints and the program that torchrun starts. Three real workers, started once, do all that
needs several; two torchruns stand in for two machines. Bugs are planted as helpers.py says, among the three, too."""
import contextlib, hashlib, io, itertools, json, os, shutil, signal, socket, subprocess, sys, tempfile
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest, torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import a_full_disk
from helpers import Library, equal, f64, mutated, planted, rand, refused, rows_of, works

from backprop13 import parallel
from backprop13.support.cards import CARDS
from backprop13.data import MNIST

f32, WORLD = torch.float32, 3
if not dist.is_gloo_available(): pytest.skip('torch was built without gloo', allow_module_level=True)


# ---- inputs

def labels(n, c=10, seed=0): return torch.randint(0, c, (n,), generator=torch.Generator().manual_seed(seed))

def few(n=193):
    "MNIST's shape in small: n images to train on, the first pixel of each is its number"
    x = rand(n + 40, 6).float()
    x[:, 0] = torch.arange(len(x))/100
    y = labels(len(x))
    return MNIST(x[:n], y[:n], x[n:n + 20], y[n:n + 20], x[n + 20:], y[n + 20:], 'few')

def loss_of(ws, x, y):
    w1, b1, w2, b2 = ws
    return F.cross_entropy((x @ w1 + b1).relu() @ w2 + b2, y)

def one_process(weights, batches, lr):
    "Weights and losses after the same steps by autograd, in one process"
    ws, losses = [w.detach().clone().requires_grad_() for w in weights], []
    for x, y in batches:
        loss = loss_of(ws, x, y)
        losses.append(loss.item())
        with torch.no_grad():
            for w, g in zip(ws, torch.autograd.grad(loss, ws)): w -= lr*g
    return [w.detach() for w in ws], losses

def options(lib, *words, data='few'):
    args = works(lib.parallel._arguments, ['--hidden', '5', '--bs', '64', '--cpu', *map(str, words)])
    args.data = data                                                          # as `train` does
    return args

class Lines(io.StringIO):
    "Takes whole lines only, since several workers print to one place"
    def write(self, text):
        assert text.endswith('\n'), text
        return super().write(text)

def trained(lib, *words, data=None):
    "What `train` returns, and what it prints"
    out = Lines()
    with pytest.MonkeyPatch.context() as m, contextlib.redirect_stdout(out):
        m.setattr(lib.parallel, 'mnist', few if data is None else lambda: data)
        notes = works(lib.parallel.train, options(lib, *words), torch.device('cpu'))
    return notes, out.getvalue()


def alone_env(port=0):
    "What torchrun tells its only worker"
    return dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))


# ---- properties of one process

@contextlib.contextmanager
def a_checkpoint(lib, epoch=1):
    "A folder, the only file in it, and the settings with which that was written"
    with tempfile.TemporaryDirectory() as folder:
        path, args = Path(folder)/'run', options(lib)
        lib.parallel.save_checkpoint(path, small(lib), epoch, args)
        yield folder, path, args

def small(lib, seed=0): return lib.parallel.start_weights((6, 5, 10), seed)

def checkpoints_come_back(lib):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/'new'/'run'                                       # makes the folder
        args = options(lib, '--lr', .1, '--seed', 7, '--checkpoint', path)
        for epoch, dtype in (1, f32), (12, f64):
            weights = [t.to(dtype) for t in (rand(5, 6).t(), rand(5), rand(5, 20)[:, ::2], rand(10))]
            weights[2].requires_grad_()
            works(lib.parallel.save_checkpoint, path, weights, epoch, args)
            got, done = works(lib.parallel.load_checkpoint, str(path), args)
            assert done == epoch and isinstance(done, int) and os.listdir(path.parent) == ['run']
            equal(got, [w.detach() for w in weights])
        more = options(lib, '--lr', .1, '--seed', 7, '--epochs', 99, '--timeout', 5)
        # what doesn't change the steps may differ
        equal(works(lib.parallel.load_checkpoint, path, more)[0], got)

def other_settings_are_refused(lib):
    with a_checkpoint(lib) as (_, path, _):
        for name, was, now in ('hidden', 5, 6), ('bs', 64, 32), ('lr', .3, .30000001), ('seed', 0, 1):
            message = f'{path} was written with {name} {was}, this run has {now}; use the same, or name another file'
            refused(message, lib.parallel.load_checkpoint, path, options(lib, f'--{name}', now), error=ValueError)
        refused('with data few, this run has MNIST', lib.parallel.load_checkpoint,
                path, options(lib, data='MNIST'), error=ValueError)

def bad_checkpoints_are_refused(lib):
    from safetensors.torch import save
    with a_checkpoint(lib) as (folder, path, args):
        whole = path.read_bytes()
        def bad(message='is no checkpoint'):
            refused(f'{path} {message}', lib.parallel.load_checkpoint, path, args, error=ValueError)
        cut = [whole[:k] for k in (0, 1, 7, 8, 9, 100, len(whole)//2, len(whole) - 1)]
        for data in [*cut, b'no checkpoint at all', whole + b'x', b'\xff'*8 + whole[8:]]:
            path.write_bytes(data)
            bad()
        notes = {q: str(getattr(args, q)) for q in lib.parallel.SETTINGS}
        path.write_bytes(save({'weights.0': rand(2)}, {'epoch': '1', **notes}))
        bad()
        for epoch in None, '-5', 'abc', '', '1.5', '9'*5000:                  # None: another program's
            path.write_bytes(save({f'weights.{i}': rand(2) for i in range(4)},
                                  {'epoch': epoch, **notes} if epoch is not None else None))
            bad('is no checkpoint of this program')
        path.unlink()
        for none in path, folder: refused(f'{none} is no file; start without',
                                          lib.parallel.load_checkpoint, none, args, error=OSError)

def a_failed_write_leaves_the_old(lib):
    def fails(*args, **kw): raise OSError('No space left on device')
    with a_checkpoint(lib) as (folder, path, args), pytest.MonkeyPatch.context() as m:
        was = path.read_bytes()
        m.setattr('os.replace', fails)
        refused('No space', lib.parallel.save_checkpoint, path, small(lib, 1), 2, args, error=OSError)
        assert path.read_bytes() == was and os.listdir(folder) == ['run']

def bad_beginnings_are_refused(lib):
    "Before the first batch, and with the file as it was"
    start, begin = lib.parallel.start_weights, lib.parallel._begin
    with a_checkpoint(lib, 2) as (folder, path, _):
        os.mkfifo(f'{folder}/pipe')
        was, saved, at = path.read_bytes(), ('--checkpoint', path), ('--epochs', 9, '--resume', '--checkpoint')
        rows = [(ValueError, f'{path} is there already; go on with --resume, or name another file', saved),
                (ValueError, f'{path} is there already', (*saved, '--seed', 5)),
                (OSError, f'{folder} is a folder; name a file', (*at, folder)),
                *((OSError, why, (o, file)) for o in ('--out', '--checkpoint') for file, why in (
                    (folder, f'{folder} is a folder; name a file'), ('/proc/nope/x', "/proc/nope/x can't be written ("),
                    (f'{folder}/pipe', f'{folder}/pipe is no file; name a file'))),
                (OSError, "can't be written (File name too long)", ('--out', f'{folder}/{"n"*260}')),
                (OSError, f'{folder}/none is no file; start without --resume', (*at, f'{folder}/none')),
                *((ValueError, f'{path} has epoch 2 already; pass --epochs 3 or more',
                   (*saved, '--resume', '--epochs', k)) for k in (1, 2))]
        for error, message, words in rows:
            refused(message, begin, options(lib, *words), small(lib, 1), error=error)
            assert path.read_bytes() == was and sorted(os.listdir(folder)) == ['pipe', 'run']
        with a_full_disk(1000):
            refused(f"{path}2 can't be written (File too large)", begin,
                    options(lib, '--checkpoint', f'{path}2'), start((60, 5, 10), 1), error=OSError)
        assert sorted(os.listdir(folder)) == ['pipe', 'run']
        refused(f'{path} has [(6, 5), (5,), (5, 10), (10,)], wanted [(7, 5), ', begin,
                options(lib, *at, path), start((7, 5, 10), 0), error=ValueError)
        weights = small(lib, 1)
        assert works(begin, options(lib, *at, path), weights) == 2
        equal(weights, small(lib))
        # losses and times may be written anew
        assert works(begin, options(lib, '--out', path), weights) == 0

def huge(): return few()._replace(x_train=few().x_train*1e32)

def no_epoch_without_sense_is_kept(lib):
    "A loss of nan, or only weights that are infinite: refused, and the file is as it was"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/'run'
        trained(lib, '--epochs', 1, '--checkpoint', path)
        was = path.read_bytes()
        for words in (), ('--bs', 500, '--lr', 1e9):                          # the one batch has a finite loss
            part = ('--epochs', 2, '--resume', '--checkpoint', path) if not words else ('--checkpoint',
                f'{path}2')
            def train(): lib.parallel.train(options(lib, *words, *part), torch.device('cpu'))
            with pytest.MonkeyPatch.context() as m, contextlib.redirect_stdout(io.StringIO()):
                m.setattr(lib.parallel, 'mnist', huge)
                refused(f"epoch {1 if words else 2}: numbers that aren't finite (loss ", train, error=ValueError)
            assert path.read_bytes() == was and os.listdir(folder) == ['run']

def arguments_are_checked(lib):
    bad = [(f'--{name}', value) for name in ('epochs', 'hidden', 'bs')
           for value in ('0', '-1', '1.5', 'x', '9'*20)]
    bad += [(f'--{name}', value) for name in ('timeout', 'lr') for value in ('0', '-1', 'nan', 'inf', 'x')]
    bad += [('--seed', '1.5'), ('--seed', '-1'), ('--seed', '9'*20), ('--colour',), ('--resume',),
            ('--epoch', '3'), ('--out', '')]
    bad += [('--checkpoint', ''), ('--out', 'same', '--checkpoint', './same')]
    for words in bad:
        err = io.StringIO()
        with contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as m:
            m.setattr(os, 'environ', {**os.environ, **alone_env()})
            m.setattr(lib.parallel, 'train', None)
            m.setattr(dist, 'init_process_group', None)
            try: lib.parallel.main(words)
            except SystemExit as e: code = e.code
            # went on: the functions that it calls are gone
            except Exception as e: code = e
        line, *more = err.getvalue().splitlines() or ['']
        ok = code == 2 and line.startswith('backprop13.parallel: ') and words[0] in line and not more
        assert ok, (words, code, line, more)

def alone_it_says_how(lib):
    "Without torchrun: how to start it. With what it can't have said: what that is. Without stdout: that it's closed"
    how = 'torchrun --nproc-per-node 2 -m backprop13.parallel'
    rows = [(name, None, how)
            for name in alone_env()] + [('RANK', '1', 'RANK is 1, wanted less than WORLD_SIZE, 1')]
    rows += [(name, 'x', f"{name} is 'x', wanted a whole number") for name in alone_env()
             if name != 'MASTER_ADDR']
    for name, value, why in [*rows, ('RANK', '0', 'stdout is closed')]:
        err = io.StringIO()
        with pytest.MonkeyPatch.context() as m, contextlib.redirect_stderr(err):
            for k, v in alone_env().items(): m.setenv(k, v)
            m.setenv(name, value) if value else m.delenv(name)
            if why == 'stdout is closed': m.setattr(sys, 'stdout', None)
            m.setattr(dist, 'init_process_group', None)
            m.setattr(signal, 'signal', lambda *a: None)
            try: lib.parallel.main([])
            except SystemExit as e: code = e.code
            except Exception as e: code = repr(e)
        assert code == 2 and why in err.getvalue() and err.getvalue().count('\n') == 1, (name, code,
            err.getvalue())

def lost_is_told_from_other_errors(lib):
    lost, args = lib.parallel._lost, options(lib, '--timeout', 2.5)
    for text in 'Timed out waiting 2500ms for recv', 'wait timeout after 2500ms':
        assert lost(RuntimeError(text), args) == 'no answer for 2.5 s'
    for text in ('Connection closed by peer [::1]:80', 'Connection reset by peer',
                 'send: Broken pipe', 'SO_ERROR: Connection refused',
                 'failed to recv, got 0 bytes. Connection was likely closed.'):
        assert lost(dist.DistNetworkError(text), args) == 'its connection closed'
    for text in 'mat1 and mat2 shapes cannot be multiplied', 'CUDA out of memory', 'EADDRINUSE: address already in use':
        assert lost(dist.DistError(text), args) == ''

def main_ends_clearly(lib):
    "An error of ours is a sentence, a lost worker another with a way to go on; any other error is shown in full"
    class Gone(BaseException): pass
    def run(rank, does, *words, cpu=True, gpus=1, folder=None):
        "How it ended, what it printed, what it called, what was in the folder at its end"
        out, calls, left = Lines(), [], []
        def leaves(code):
            left.extend(os.listdir(folder) if folder else [])
            raise Gone(code)
        before = [(k, signal.getsignal(k)) for k in (signal.SIGTERM, signal.SIGINT)], torch.get_num_threads()
        fake = SimpleNamespace(init_process_group=lambda *a, **kw: calls.append((a, kw)),
                               destroy_process_group=lambda: calls.append('end'))
        with pytest.MonkeyPatch.context() as m, contextlib.redirect_stdout(out):
            for k, v in (alone_env() | dict(RANK=rank, WORLD_SIZE=2, LOCAL_RANK=rank)).items():
                m.setenv(k, str(v))
            m.setattr(lib.parallel, 'dist', fake)
            m.setattr(lib.parallel, 'train', does)
            m.setattr(os, '_exit', leaves)
            m.setattr(torch.cuda, 'is_available', lambda: True)               # --cpu leaves it alone
            m.setattr(torch.cuda, 'device_count', lambda: gpus)
            m.setattr(torch.cuda, 'set_device', calls.append)
            try: lib.parallel.main([*['--cpu']*cpu, '--timeout', '7', *map(str, words)])
            except BaseException as e: end = e
            else: end = None
            finally:
                for k, handler in before[0]: signal.signal(k, handler)
                torch.set_num_threads(before[1])
        return end, out.getvalue().splitlines(), calls, left
    def fails(e):
        def train(args, device): raise e
        return train
    for e in ValueError('no checkpoint'), FileNotFoundError('no data'), ConnectionError('no network'):
        end, *_ = run(1, fails(e))
        assert isinstance(end, SystemExit) and end.code == f'worker 1: {e}', end
    with tempfile.TemporaryDirectory() as folder:
        good, bad, none = (Path(folder)/name for name in ('good', 'bad', 'none'))
        lib.parallel.save_checkpoint(good, small(lib), 4, options(lib))
        bad.write_bytes(good.read_bytes()[:-1])
        for e, why in (RuntimeError('Timed out waiting'),
                       'lost another worker (no answer for 7 s)'), (KeyboardInterrupt(), 'told to end'):
            for words, how in (((), 'start again, and let --checkpoint FILE keep the last whole epoch'),
                               (('--checkpoint', good), f'start again with --resume, {good} has epoch 4'),
                               *((('--checkpoint', f), f'no whole epoch is in {f} here; start again')
                                 for f in (bad, none, folder))):
                end, out, *_ = run(1, fails(e), *words)
                assert isinstance(end, Gone) and end.args == (1,), end
                assert out[-1].startswith(f'worker 1: {why}') and out[-1].endswith(f'; {how}'), out
    end, *_ = run(0, fails(RuntimeError('shapes')))
    assert isinstance(end, RuntimeError) and str(end) == 'shapes'
    with tempfile.TemporaryDirectory() as folder:
        for rank in 1, 0:
            end, out, calls, _ = run(rank, lambda args, device: {'device': str(device)}, '--out',
                                     Path(folder)/'notes')
            assert end is None and out[0].startswith(f'worker {rank} of 2: process {os.getpid()}, cpu')
            assert calls == [(('gloo',), {'timeout': timedelta(seconds=7)}), 'end']
            assert len(os.listdir(folder)) == (rank == 0)
        assert json.loads((Path(folder)/'notes').read_text()) == {'device': 'cpu'}
    end, out, calls, _ = run(1, lambda args, device: {}, cpu=False, gpus=2)
    assert end is None and out[0].endswith('cuda:1') and calls[0] == 1 and calls[1][0] == ('nccl',)
    end, _, calls, _ = run(1, lambda args, device: {}, cpu=False, gpus=1)
    assert isinstance(end, SystemExit) and not calls
    assert end.code == 'worker 1: GPUs here: 1, workers: 2 or more; start 1, or pass --cpu'
    for number in signal.SIGTERM, signal.SIGINT:
        # while it saves: nothing is left behind
        with tempfile.TemporaryDirectory() as folder:
            def saves(args, device):
                with pytest.MonkeyPatch.context() as m:
                    m.setattr(os, 'replace', lambda *a: signal.raise_signal(number))
                    lib.parallel.save_checkpoint(args.checkpoint,
                                                 small(lib), 1, options(lib))
            end, out, _, left = run(0, saves, '--checkpoint', f'{folder}/run', folder=folder)
            assert isinstance(end, Gone) and out[-1].startswith('worker 0: told to end'), (end, out)
            assert left == [], left


# ---- properties of training, with one worker: this process

def spied(lib, *words, data=None):
    "Train; also the batches that the worker was given, for each epoch"
    seen, data = [], data or few()
    class Spy(lib.parallel.Ours):
        def step(self, x, y, n):
            assert len(x) == len(y) == n
            seen.append((x.clone(), y.clone()))
            return super().step(x, y, n)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(lib.parallel, 'Ours', Spy)
        notes, out = trained(lib, *words, data=data)
    per_epoch = -(-len(data.x_train)//options(lib, *words).bs)
    return notes, out, [seen[i:i + per_epoch] for i in range(0, len(seen), per_epoch)]

def orders(epochs):
    return [(torch.cat([x[:, 0] for x, _ in epoch])*100).round().int().tolist() for epoch in epochs]

def every_epoch_deals_all(lib):
    a = spied(lib, '--epochs', 3)[2]
    torch.manual_seed(5)
    b, other = spied(lib, '--epochs', 2)[2], spied(lib, '--epochs', 1, '--seed', 1)[2]
    for epoch in (*a, *other):
        assert [len(y) for _, y in epoch] == [64, 64, 64, 1] and sorted(*orders([epoch])) == list(range(193))
        for x, y in epoch: equal(y, few().y_train[orders([[(x, y)]])[0]])      # each image with its label
    assert orders(a)[:2] == orders(b)                                         # of the seed and the epoch alone
    assert len({tuple(o) for o in orders([*a, *other])}) == 4 and list(range(193)) not in orders(a)
    assert [[len(y) for _, y in e] for e in spied(lib, '--epochs', 2, '--bs', 500)[2]] == [[193], [193]]
    assert [len(y) for _, y in spied(lib, '--epochs', 1, '--bs', 1, data=few(3))[2][0]] == [1, 1, 1]

def training_is_autograds(lib):
    with tempfile.TemporaryDirectory() as folder:
        path, data = Path(folder)/'run', few()
        words = '--epochs', 3, '--lr', .2, '--seed', 4
        with pytest.MonkeyPatch.context() as m:
            # a clock that ticks when it is asked
            m.setattr(lib.parallel, 'time', SimpleNamespace(perf_counter=itertools.count(step=1.).__next__))
            notes, out, epochs = spied(lib, *words, '--checkpoint', path)
        first = small(lib, 4)
        want, losses = one_process(first, [b for e in epochs for b in e], .2)
        got, done = lib.parallel.load_checkpoint(path, options(lib, *words))
        assert done == 3 and notes['world'] == 1
        assert out.count('\n') == len(notes['seconds']) == len(notes['waiting']) == 3
        assert len({*notes['waiting']}) == len({*notes['seconds']}) == 1           # each epoch's own
        equal(got, want, 1e-5)
        equal(notes['losses'], losses, 1e-5)
        for i, line in enumerate(out.splitlines()):
            w1, b1, w2, b2 = one_process(first, [b for e in epochs[:i + 1] for b in e], .2)[0]
            right = (((data.x_valid @ w1 + b1).relu() @ w2 + b2).argmax(1)
                     == data.y_valid).double().mean().item()
            mean = sum(losses[4*i:4*i + 4])/4
            assert abs(notes['accuracy'][i] - right) < 1e-6 and 0 < notes['waiting'][i] < 1
            want = f'epoch {i + 1} of 3: loss {mean:.3f}, validation accuracy {right:.3f}, '
            assert line.startswith(want), (line, want)

def it_goes_on_where_it_was(lib):
    "Stopped after each epoch and resumed: the losses and weights of one that nobody stopped, to the last bit"
    with tempfile.TemporaryDirectory() as folder:
        one, parts = Path(folder)/'one', Path(folder)/'parts'
        whole = trained(lib, '--epochs', 3, '--checkpoint', one)[0]
        resumed = [trained(lib, '--epochs', k, '--checkpoint', parts, *['--resume']*(k > 1)) for k in (1, 2, 3)]
        assert sum((notes['losses'] for notes, _ in resumed), []) == whole['losses']
        assert [out.split(':')[0] for _, out in resumed] == [f'epoch {k} of {k}' for k in (1, 2, 3)]
        equal(*(lib.parallel.load_checkpoint(path, options(lib)) for path in (one, parts)))
        was = one.read_bytes()
        def finished(): trained(lib, '--epochs', 3, '--checkpoint', one, '--resume')
        refused('has epoch 3 already', finished, error=Exception)
        assert one.read_bytes() == was


# ---- properties of three workers; nothing is asserted before the last exchange, or the others
# would wait for it

def everywhere(t):
    "The tensor, of one shape for all, as each worker has it"
    out = [torch.empty_like(t, memory_format=torch.contiguous_format) for _ in range(WORLD)]
    dist.all_gather(out, t.contiguous())
    return out

def sums_are_everywhere(lib):
    rank, cases = dist.get_rank(), []
    for dtype in f32, f64:
        def tensors(rank):
            a, b, c, d = (rand(*shape, seed=10*rank + i).to(dtype)
                          for i, shape in enumerate([(3, 4), (7, 5), (2, 3, 4), (1001,)]))
            return [a, b, c, d], [a, b.t()[1:4, ::2], c.permute(2, 0, 1), d, d[:0], d.sum()]
        bases, mine = tensors(rank)
        works(lib.parallel.all_reduce, mine[:3])
        works(lib.parallel.all_reduce, mine[3:])
        cases.append((bases, mine, [tensors(k)[1] for k in range(WORLD)], tensors(rank)[0][1],
                      [everywhere(t) for t in mine]))
    for bases, mine, parts, b, copies in cases:
        for t, one, same in zip(mine, zip(*parts), copies):
            equal(t, sum(one), 1e-12 if t.dtype == f64 else 1e-6)
            for other in same: assert other.equal(t)                          # the same bits
        inside = torch.zeros_like(b).bool()
        inside.t()[1:4, ::2] = True
        assert bases[0] is mine[0] and bases[1].t()[1:4, ::2].equal(mine[1])
        assert bases[1][~inside].equal(b[~inside])

def steps_as_one(lib, kind, dtype, tolerance):
    weights = [rand(*shape, seed=s).to(dtype)/2 for s, shape in enumerate([(6, 5), (5,), (5, 10), (10,)])]
    batches = [(rand(n, 6, seed=n).to(dtype), labels(n, seed=n)) for n in (64, 17, 3, 2, 1, 1, 16)]
    want, losses = one_process(weights, batches, .3)
    worker, parts = works(getattr(lib.parallel, kind), [w.clone() for w in weights], .3), []
    for x, y in batches:
        mine = parallel.shard(len(x), dist.get_rank(), WORLD)
        parts.append(works(worker.step, x[mine], y[mine], len(x)))
    got = [w.detach().clone() for w in worker.weights]
    copies, parts = [everywhere(t) for t in got], everywhere(torch.tensor(parts, dtype=f64))
    equal(got, want, tolerance)
    equal(sum(parts), torch.tensor(losses, dtype=f64), tolerance)
    for t, same in zip(got, copies):
        for other in same: assert other.equal(t)

def ours_steps_as_one(lib): steps_as_one(lib, 'Ours', f64, 1e-9)

def ddp_steps_as_one(lib): steps_as_one(lib, 'Ddp', f32, 1e-5)

def training_is_one_workers(lib):
    "Against files that one worker wrote; the last of 4 batches has one image. Resumed: the same bits, but for DDP"
    rank, folder, runs = dist.get_rank(), Path(os.environ['ONE_WORKER']), []
    for ddp in [], ['--ddp']:
        # were the wrong one to write, it would show
        own, shared = folder/f'{lib.name}own{rank}{ddp}', folder/f'{lib.name}shared{ddp}'
        runs.append([trained(lib, *ddp, '--epochs', 2, '--checkpoint', own)])
        for words in ('--epochs', 1), ('--epochs', 2, '--resume'):
            runs[-1].append(trained(lib, *ddp, *words, '--checkpoint', shared))
            dist.barrier()                                                    # worker 0 has written it
        runs[-1].append([parallel.load_checkpoint(f, options(lib)) for f in (own, shared) if f.exists()])
    one, want = json.loads((folder/'one.json').read_text()), parallel.load_checkpoint(folder/'one',
        options(lib))[0]
    for (notes, out), _, (resumed, out2), files in runs:
        if rank: assert len(files) == 1 and out == out2 == ''
        else:
            assert [f[1] for f in files] == [2, 2] and notes['world'] == WORLD
            assert [line[:12] for line in (out + out2).splitlines()] == ['epoch 1 of 2', 'epoch 2 of 2',
                'epoch 2 of 2']
            equal(*files)
            equal(files[0][0], want, 1e-5)
            equal(notes['losses'], one['losses'], 1e-5)
            equal(resumed['losses'], notes['losses'][4:], 1e-6)
            assert notes['accuracy'] == one['accuracy']
            for o, (ws, _) in (notes, files[0]), (resumed, files[1]):
                # with DDP, the two may differ in rounding
                assert o['checksums'] == [hashlib.sha256(b''.join(p.numpy().tobytes()
                    for p in ws)).hexdigest()]*WORLD
            assert notes['checksums'] == resumed['checksums'] or not notes['waiting']
    if rank == 0:
        assert [len(run[0][0]['waiting']) for run in runs] == [2, 0]      # DDP waits while it computes

def agreed(lib, *words, data='few', weights=None):
    "What `_agree` returns, or says"
    weights = small(lib, 3) if weights is None else weights
    try: return lib.parallel._agree(options(lib, *words, data=data), weights)
    except (ValueError, OSError) as e: return str(e)

def workers_agree(lib):
    "One has another setting: all refuse. Only rank 0's checkpoint counts; if it is no good, all say why"
    rank, folder = dist.get_rank(), Path(os.environ['ONE_WORKER'])
    rows = [(f'{name} {now}', was, ('--' + name, now)) for name, was, now in
            (('hidden', 5, 6), ('bs', 64, 65), ('lr', .3, .31), ('seed', 0, 1), ('epochs', 3, 4))]
    rows += [('ddp True', False, ('--ddp',)),
             ('resume True', False, ('--resume', '--checkpoint', folder/'one'))]
    said = [agreed(lib, *(words if rank == 1 else ())) for _, _, words in rows]
    said.append(agreed(lib, data='few' if rank else 'MNIST'))
    own = folder/f'{lib.name}epoch{rank}'
    lib.parallel.save_checkpoint(own, small(lib, 7 + rank), 2 + rank, options(lib))
    weights = small(lib, 20 + rank)
    go_on = '--resume', '--epochs', 9, '--checkpoint'
    done = agreed(lib, *go_on, own, weights=weights)
    trouble = [agreed(lib, *go_on, folder/'none' if rank == 0 else own),
               agreed(lib, '--checkpoint', folder/'one')]
    fresh = small(lib, 30 + rank)
    none = agreed(lib, weights=fresh)
    for (now, was, _), line in zip(rows, said):
        assert line == f'worker 1 has {now}, worker 0 has {was}; start all with the same'
    assert said[-1] == 'worker 1 has data few, worker 0 has MNIST; start all with the same'
    assert done == 2 and none == 0
    equal(weights, parallel.start_weights((6, 5, 10), 7))
    equal(fresh, parallel.start_weights((6, 5, 10), 30))
    assert trouble == [f'{folder}/none is no file; start without --resume',
                       f"{folder/'one'} is there already; go on with --resume, or name another file"]

def all_stop_at_what_isnt_finite(lib):
    "One image of nan, of which one worker alone knows"
    data, rank = few(), dist.get_rank()
    if rank == 1: data.x_train[:] = float('nan')
    with pytest.MonkeyPatch.context() as m:
        m.setattr(lib.parallel, 'mnist', lambda: data)
        refused("epoch 1: numbers that aren't finite (loss nan)", lib.parallel.train,
                options(lib), torch.device('cpu'), error=ValueError)


# ---- seeded bugs, each with its definition in backprop13.parallel: of one process, and among the three

alone = {
    checkpoints_come_back: [
        ('missing term', 'save_checkpoint', '.contiguous()', ''),
        ('missing term', 'save_checkpoint', '.detach()', '.detach().float()'),
        ('wrong place', 'save_checkpoint', 'str(epoch)', 'str(epoch - 1)'),
        ('missing term', 'load_checkpoint', "int(notes['epoch'])", "notes['epoch']"),
        ('wrong place', '_read', 'range(4)', 'reversed(range(4))')],
    other_settings_are_refused: [
        *(('no check', 'SETTINGS', f"'{name}'", "'cpu'") for name in ('data', 'hidden', 'bs', 'lr', 'seed')),
        ('no check', 'load_checkpoint', 'for q in SETTINGS', 'for q in ()'),
        ('wrong place', 'load_checkpoint', '{q} {notes.get(q)}', '{q} {getattr(args, q)}')],
    bad_checkpoints_are_refused: [
        ('no check', '_read', 'except SafetensorError', 'except KeyError'),
        ('no check', '_read', 'f.metadata() or {}', "f.metadata() or {'epoch': '0'}"),
        ('no check', '_read', "not epoch.isdecimal() or len(epoch) > 9", 'not epoch'),
        ('no check', '_read', " or len(epoch) > 9", ''),
        ('no check', '_read', 'if not Path(path).is_file()', 'if False')],
    bad_beginnings_are_refused: [
        ('no check', '_begin', '(args.checkpoint, args.out)', '(args.checkpoint,)'),
        ('no check', '_begin', '(args.checkpoint, args.out)', '(args.out,)'),
        ('no check', '_try_out', 'if there and not is_file', 'if False'),
        ('no check', '_try_out', 'if there and not is_file', 'if path.is_dir()'),
        ('no check', '_try_out',
         'with tempfile.NamedTemporaryFile(**aside) as f: f.write(bytes(size))', 'pass'),
        ('no check', '_try_out', 'f.write(bytes(size))', 'pass'),
        ('no check', '_begin', 'if path and Path(path).exists()', 'if False'),
        ('no check', '_begin', 'if [p.shape for p in saved] != [p.shape for p in weights]', 'if False'),
        ('no check', '_begin', 'if done >= args.epochs', 'if False'),
        ('wrong place', '_begin', 'done >= args', 'done > args'),
        ('missing term', '_begin', 'p.copy_(new)', 'pass')],
    no_epoch_without_sense_is_kept: [
        ('no check', '_finite', 'if all(', 'if True or all('),
        ('no check', '_finite', '(losses, *weights))', '[losses])')],
    a_failed_write_leaves_the_old: [
        ('missing term', 'save_checkpoint', '_save(Path(path), ', 'Path.write_bytes(Path(path), ')],
    arguments_are_checked: [
        *(('no check', '_arguments', f'{name}={low}, ', '')
          for name, low in (('epochs', 1), ('hidden', 1), ('bs', 1), ('lr', '1e-9'), ('timeout', '1e-3'))),
        ('no check', '_arguments', ', seed=0', ''),
        ('no check', '_arguments', 'low <= getattr(args, name)', 'getattr(args, name)'),
        ('no check', '_arguments', 'not low <= getattr(args, name) <= 1e9', 'getattr(args, name) < low'),
        ('no check', '_arguments', '<= 1e9', "<= float('inf')"),
        ('no check', '_arguments', 'args.resume and not args.checkpoint', 'False'),
        ('no check', '_arguments', ', allow_abbrev=False', ''),
        ('no check', '_arguments', "'' in (args.out, args.checkpoint)", 'False'),
        ('no check', '_arguments',
         'os.path.realpath(args.out) == os.path.realpath(args.checkpoint)', 'args.out == args.checkpoint')],
    alone_it_says_how: [
        ('no check', 'main', '_check_world(os.environ)', 'pass'),
        ('no check', '_check_world',
         "{'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', ", "{'RANK', 'WORLD_SIZE', 'LOCAL_RANK', "),
        ('no check', '_check_world', "'LOCAL_RANK', 'MASTER_PORT'):", "'LOCAL_RANK'):"),
        ('no check', '_check_world', 'if not env[q].isdecimal()', 'if False'),
        ('no check', '_check_world', 'if rank >= world', 'if rank > world'),
        ('no check', '_check_world', 'if not sys.stdout', 'if False')],
    lost_is_told_from_other_errors: [
        ('no check', '_lost', "if 'imed out' in str(e) or 'imeout' in str(e)", 'if False'),
        ('no check', '_lost', "'imed out' in str(e) or ", ''),
        ('no check', '_lost', "'onnection was likely closed', ", ''),
        ('no check', '_lost', "'onnection reset', ", ''),
        ('no check', '_lost', 'if any(', 'if isinstance(e, dist.DistError) or any('),
        ('no check', '_lost', "if any(word in str(e) for word in words) else ''", '')],
    main_ends_clearly: [
        ('no check', 'main', '(ValueError, OSError)', 'ValueError'),
        ('no check', 'main', '(ValueError, OSError)', 'OSError'),
        ('no check', 'main', 'if not (why := _lost(e, args)): raise', 'why = str(e)'),
        ('missing term', 'main', "_leave(f'lost another worker ({why})', args)", 'raise'),
        ('missing term', 'main', ', timeout=timedelta(seconds=args.timeout)', ''),
        ('no check', 'main', "rank == '0' and args.out", 'args.out'),
        ('no check', 'main', 'and not args.cpu', ''),
        ('no check', 'main', 'except KeyboardInterrupt', 'except MemoryError'),
        ('wrong place', 'main', 'signal.default_int_handler)', "lambda *_: _leave('told to end', args))"),
        ('no check', '_gpu', 'if local >= count', 'if False'),
        ('wrong place', '_gpu', 'torch.cuda.set_device(local)', 'pass'),
        ('wrong place', '_leave', 'os._exit(1)', 'os._exit(0)'),
        ('no check', '_leave', 'except (OSError, ValueError): go_on =', 'except (OSError, ValueError):'),
        ('no check', '_leave', "{_read(args.checkpoint)[1]['epoch']}", 'the last'),
        ('wrong place', '_leave', 'if args.checkpoint:', 'if not args.checkpoint:'),
        ('wrong place', '_say', "sys.stdout.write(f'{line}\\n')", 'print(line)')],
    every_epoch_deals_all: [
        ('wrong seed', 'train', ', generator=gen', ''),
        ('wrong seed', 'train', '1000*args.seed + epoch', 'epoch'),
        ('wrong seed', 'train', '1000*args.seed + epoch', 'args.seed'),
        ('wrong place', 'train', 'torch.randperm(len(x), ', 'torch.randint(len(x), (len(x),), '),
        ('wrong place', 'train', 'y[mine]', 'y[:len(mine)]'),
        ('missing term', 'train', 'order.split(args.bs)',
         '[b for b in order.split(args.bs) if len(b) == args.bs]')],
    training_is_autograds: [
        ('wrong seed', 'train', '10), args.seed)', '10), 0)'),
        ('missing factor', 'train', 'args.lr)', 'args.lr/2)'),
        ('wrong place', 'train', 'worker.weights, epoch, args)', 'start_weights((6, 5, 10), 4), epoch, args)'),
        ('wrong place', 'train', 'worker.weights, epoch, args)', 'worker.weights, epoch - 1, args)'),
        ('wrong place', '_note', 'losses.mean()', 'losses[-1]'),
        ('missing term', '_note', 'torch.relu(data.x_valid @ w1 + b1)', '(data.x_valid @ w1 + b1)'),
        ('wrong place', '_note', 'accuracy(scores, data.y_valid)',
         'accuracy(scores, data.y_train[:len(scores)])'),
        ('missing term', '_note', "notes['losses'] += losses.tolist()", 'pass'),
        ('missing term', 'train', 'worker.waited = 0.', 'pass')],
    it_goes_on_where_it_was: [
        ('wrong place', 'train', 'range(done + 1,', 'range(done,'),
        ('wrong place', 'train', 'range(done + 1,', 'range(1,'),
        ('missing term', '_begin', 'saved, done = load_checkpoint(path, args)',
         'saved, done = weights, load_checkpoint(path, args)[1]')],
}

together = {
    sums_are_everywhere: [
        ('missing sum', 'all_reduce', 'dist.all_reduce(flat)', 'pass'),
        ('missing sum', 'all_reduce', 'dist.all_reduce(flat)', 'dist.all_reduce(flat, dist.ReduceOp.MAX)'),
        ('missing sum', 'all_reduce', 'dist.all_reduce(flat)', 'dist.reduce(flat, 0)'),
        ('missing factor', 'all_reduce', 't.copy_(total.view_as(t))',
         't.copy_(total.view_as(t)/dist.get_world_size())'),
        ('shared memory', 'all_reduce', 't.copy_(total.view_as(t))', 't.data = total.view_as(t)'),
        ('wrong place', 'all_reduce', 'flat.split([', 'flat.flip(0).split(['),
        ('missing term', 'all_reduce', 'for t in tensors])\n    dist',
         'for t in tensors]).float()\n    dist')],
    ours_steps_as_one: [
        ('sign', 'Ours', 'p -= ', 'p += '),
        ('missing factor', 'Ours', 'self.lr*p.g', 'p.g'),
        ('missing factor', 'Ours', 'self.lr*p.g', 'self.lr*p.g/dist.get_world_size()'),
        ('missing sum', 'Ours', 'for p in self.weights]', 'for p in self.weights[:2]]'),
        ('missing sum', 'Ours', 'all_reduce([p.g for p in self.weights])', 'pass'),
        ('missing factor', 'Ours', 'x, y, n).item()', 'x, y, max(len(x), 1)).item()')],
    ddp_steps_as_one: [
        ('missing factor', 'Ddp', 'loss*dist.get_world_size()', 'loss'),
        ('missing factor', 'Ddp', "reduction='sum')/n", "reduction='sum')/max(len(x), 1)"),
        ('missing factor', 'Ddp', "reduction='sum')/n", "reduction='mean')"),
        ('no zero_grad', 'Ddp', 'self.opt.zero_grad()', 'pass'),
        ('missing term', 'Ddp', 'p.copy_(new)', 'pass'),
        ('missing term', 'Ddp', 'self.opt.step()', 'pass'),
        ('missing term', 'Ddp', 'nn.ReLU()', 'nn.Identity()'),
        ('missing sum', 'Ddp', 'DistributedDataParallel(model)', 'model')],
    training_is_one_workers: [
        ('no check', 'train', 'if rank: continue', 'pass'),
        ('missing sum', 'train', 'dist.all_reduce(losses)', 'pass'),
        ('wrong place', 'train', 'shard(len(rows), rank, world)', 'shard(len(rows), 0, world)'),
        ('wrong place', 'train', 'shard(len(rows), rank, world)', 'slice(None)'),
        ('wrong place', 'train', 'y[mine], len(rows))', 'y[mine], max(len(mine), 1))'),
        ('wrong seed', 'train', '1000*args.seed + epoch', '1000*rank + epoch'),
        ('missing sum', '_checksum', 'for p in weights', 'for p in weights[:1]'),
        ('wrong place', 'train', 'Ddp if args.ddp else Ours', 'Ours')],
    workers_agree: [
        *(('no check', '_agree', f", '{name}'", '') for name in ('ddp', 'epochs', 'resume')),
        ('no check', '_agree', 'if other[q] != first[q]', 'if False'),
        ('no check', '_agree', 'if isinstance(done, Exception): raise done', 'pass'),
        ('wrong place', '_agree', 'said[0]', 'said[-1]'),
        ('missing sum', '_agree', 'dist.broadcast(p, 0)', 'pass'),
        ('wrong place', '_agree', 'dist.broadcast(p, 0)', 'dist.broadcast(p, 1)'),
        ('missing sum', '_from_all', 'return said', 'return said[:1]*len(said)')],
    all_stop_at_what_isnt_finite: [('no check', '_finite', 'if all(', 'if True or all(')],
}

TOGETHER, NAMES = rows_of(parallel=together)


# ---- one process

@pytest.fixture(scope='module', autouse=True)
def one_worker(tmp_path_factory):
    "This process as a world of one; a folder with what it trained"
    folder = tmp_path_factory.mktemp('one')
    dist.init_process_group('gloo', init_method=(folder/'meet').as_uri(), rank=0, world_size=1)
    with Library() as lib: notes, _ = trained(lib, '--epochs', 2, '--checkpoint', folder/'one')
    (folder/'one.json').write_text(json.dumps(notes))
    yield folder
    dist.destroy_process_group()

test_the_library_has_the_property, test_the_bug_is_found = planted(parallel=alone)

def test_every_exported_name_has_a_mutant():
    proved = {where.partition('.')[2] for _, _, where, *_ in rows_of(parallel=alone)[0] + TOGETHER}
    carded = {bug.where or card.f.__name__ for card in CARDS.values() for bug in card.bugs
              if card.f.__module__ == parallel.__name__}
    assert not set(parallel.__all__) - proved - carded


# ---- three workers, started once

def work(rank, folder):
    "One of three: what each property says of the library, and of the library with each bug, goes into a file"
    torch.set_num_threads(1)
    os.environ['ONE_WORKER'] = str(folder)
    meet = dict(init_method=(folder/'meet3').as_uri(), timeout=timedelta(seconds=60))
    dist.init_process_group('gloo', rank=rank, world_size=WORLD, **meet)
    found = []
    for prop, _, where, old, new in [*((prop, *[None]*4) for prop in together), *TOGETHER]:
        with Library(**{where.split('.')[0]: mutated(where, old, new)} if where else {}) as lib:
            try: prop(lib)
            except AssertionError as e: found.append(['found', str(e)])
            except BaseException as e: found.append(['crashed', repr(e)])
            else: found.append(['passed', ''])
        dist.barrier()
    (folder/f'{rank}.json').write_text(json.dumps(found))
    dist.destroy_process_group()

@pytest.fixture(scope='module')
def three(one_worker, shared):
    "For each property, then for each bug: what the three workers said"
    def make(folder):
        for name in 'one', 'one.json': shutil.copy(one_worker/name, folder)
        torch.multiprocessing.spawn(work, (folder,), WORLD)
    folder = shared('three', make)
    return list(zip(*(json.loads((folder/f'{rank}.json').read_text()) for rank in range(WORLD))))

@pytest.mark.parametrize('i', range(len(together)), ids=[p.__name__ for p in together])
def test_three_workers_have_the_property(three, i):
    assert [how for how, _ in three[i]] == ['passed']*WORLD, three[i]

@pytest.mark.parametrize('i,kind', list(enumerate(kind for _, kind, *_ in TOGETHER)), ids=NAMES)
def test_three_workers_find_the_bug(three, i, kind, record_property):
    record_property('mutant', kind)
    said = [how for how, _ in three[len(together) + i]]
    assert 'found' in said and 'crashed' not in said, three[len(together) + i]


# ---- the program

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def start(*words, **env):
    "A process with the synthetic digits"
    env = os.environ | dict(OMP_NUM_THREADS='1', BACKPROP13_DATA='synthetic', **env)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    return subprocess.Popen([sys.executable, '-m', *map(str, words)], **pipes)

def ended(p):
    try: out, err = p.communicate(timeout=120)
    finally: p.kill()
    return p.returncode, out, err

def two(*each):
    "Two processes that meet, each with words of its own"
    port = str(free_port())
    return [start('backprop13.parallel', '--cpu', '--bs', 5000, '--timeout', 60, *words,
                  **alone_env(port) | dict(RANK=str(rank), WORLD_SIZE='2'))
            for rank, words in enumerate(each)]

@contextlib.contextmanager
def epoch_2(ps):
    "When worker 0 has said its line; all are dead at the end"
    try:
        for line in ps[0].stdout:
            if line.startswith('epoch 2 '): break
        else: pytest.fail(f'ended before: {ps[0].stderr.read()}')
        yield
    finally:
        for p in ps: p.kill()
        for p in ps: p.communicate()

def test_nobody_else_comes(tmp_path):
    env = alone_env(free_port()) | dict(WORLD_SIZE='2')
    code, out, _ = ended(start('backprop13.parallel', '--cpu', '--timeout', 2, '--checkpoint',
                               tmp_path/'run', **env))
    assert code == 1 and os.listdir(tmp_path) == []
    assert out.endswith(f'worker 0: lost another worker (no answer for 2 s); no whole epoch is in {tmp_path}/run here; '
                        'start again\n')

def test_a_killed_peer_then_peers_that_differ(tmp_path):
    "The one that is left says how to go on. Then the other machine has another rate: both say so, and the file stays"
    path, other = tmp_path/'run', tmp_path/'other'
    words = '--hidden', 5, '--epochs', 10**6
    with epoch_2(ps := two((*words, '--checkpoint', path), (*words, '--checkpoint', other))):
        ps[1].kill()
        said, err = ps[0].communicate(timeout=30)
    last = said.splitlines()[-1]
    assert ps[0].returncode == 1 and last.startswith('worker 0: lost another worker (its '
                                                     'connection closed); start again with --resume')
    was = path.read_bytes()
    assert 'Traceback' not in err and last.endswith(f'{path} has epoch {saved(path)}')
    assert os.listdir(tmp_path) == ['run']
    for rank, p in enumerate(two((*words, '--resume', '--checkpoint', path),
                                 (*words, '--resume', '--checkpoint', other, '--lr', .01))):
        code, out, err = ended(p)
        assert code == 1 and 'epoch' not in out
        assert err == f'worker {rank}: worker 1 has lr 0.01, worker 0 has 0.3; start all with the same\n'
    assert path.read_bytes() == was and os.listdir(tmp_path) == ['run']

def saved(path):
    args = options(SimpleNamespace(parallel=parallel), '--bs', 5000, data='synthetic')
    return parallel.load_checkpoint(path, args)[1]

def test_two_machines(tmp_path):
    "Each torchrun is one; whose worker gets rank 0 they decide among themselves"
    join = ('--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id two '
            f'--rdzv-endpoint 127.0.0.1:{free_port()}').split()
    what = '-m backprop13.parallel --cpu --epochs 1 --bs 2000 --hidden 8'.split()
    outs = [tmp_path/'a.json', tmp_path/'b.json']
    ps = [start('torch.distributed.run', *join, *what, '--out', out) for out in outs]
    (code, a, err), (code2, b, err2) = ended(ps[0]), ended(ps[1])
    assert code == code2 == 0, err + err2
    if 'worker 1 of 2' in a: a, b, outs = b, a, outs[::-1]
    assert a.count('worker 0 of 2') == b.count('worker 1 of 2') == 1
    assert a.count('epoch 1 of 1: loss ') == 1 and 'epoch' not in b
    notes = json.loads(outs[0].read_text())
    assert notes['world'] == 2 and len(notes['losses']) == 25 and os.listdir(tmp_path) == [outs[0].name]

def test_told_to_end(tmp_path):
    path = tmp_path/'run'
    words = '--cpu', '--epochs', 10**6, '--bs', 5000, '--hidden', 5, '--checkpoint', path
    with epoch_2([p := start('backprop13.parallel', *words, **alone_env(free_port()))]):
        p.send_signal(signal.SIGTERM)                                         # SIGINT: main_ends_clearly
        said, err = p.communicate(timeout=30)
    last = said.splitlines()[-1]
    assert p.returncode == 1 and last.startswith('worker 0: told to end') and 'Traceback' not in err
    assert last.endswith(f'start again with --resume, {path} has epoch {saved(path)}') and saved(path) >= 2
