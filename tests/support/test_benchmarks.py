"Turn by turn, and each contender against the lesson's loop. No test asks how fast anything is."
import ctypes, itertools, json, math, os, re, subprocess, sys
from importlib import util
from pathlib import Path
from statistics import median

import pytest, torch
from conftest import root
from safetensors.torch import load_file
from torch import nn

from backprop13.support import benchmarks
from backprop13.backprop import Linear
from backprop13.support.benchmarks import (CONTENDERS, HOLDS, LIMITS, PRODUCTS, SLOW, STEPS, THREADS, Apart, Problem,
                                           Ratio, compare, images, interleaved, lesson, library, line, load, machine,
                                           main, missing, plan, ratios, who)
from backprop13.support.checks import check_close

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
plain = ["PyTorch's products", 'our fast network', "the lesson's loop", 'PyTorch', 'PyTorch, fused', 'NumPy']
calls_c = pytest.mark.skipif(bool(missing('C')), reason=missing('C'))


def problem(n):
    "n random images of 6 pixels in batches of 8"
    gen = torch.Generator().manual_seed(1)
    return Problem(torch.rand(n, 6, generator=gen), torch.randint(0, 3, (n,), generator=gen), nh=5, bs=8,
                   lr=.5, c=3)

@pytest.fixture
def small(): return problem(39)                                           # a batch of 7 is last


@pytest.fixture
def uncompiled(monkeypatch):
    "What is compiled runs as it is written: its arithmetic is ours, the compiler isn't"
    monkeypatch.setattr(torch, 'compile', lambda f=None, **kw: f or (lambda f: f))


# ---- turn by turn

def test_each_runs_once_in_a_round(monkeypatch):
    ran, clock = [], itertools.count(step=2.)
    monkeypatch.setattr(benchmarks.time, 'perf_counter', clock.__next__)
    times = interleaved({name: lambda name=name: ran.append(name) for name in 'abcd'}, 50)
    turns = [ran[i:i + 4] for i in range(0, len(ran), 4)]
    # one isn't counted
    assert len(turns) == 51 and all(sorted(turn) == [*'abcd'] for turn in turns)
    assert times == {name: [2.]*50 for name in 'abcd'}
    # of 24 orders
    assert len({*map(tuple, turns)}) > 15 and {turn[0] for turn in turns} == {*'abcd'}
    again, ran[:] = [*ran], []
    interleaved({name: lambda name=name: ran.append(name) for name in 'abcd'}, 50)
    assert ran == again


def test_its_own_time_goes_to_each(monkeypatch):
    now, calls = [0.], []
    monkeypatch.setattr(benchmarks.time, 'perf_counter', lambda: now[0])
    def takes(seconds):
        def run():
            now[0] += 100 if len(calls) < 2 else seconds                              # the first calls are slow
            calls.append(seconds)
        return run
    assert interleaved({'a': takes(1.), 'b': takes(3.)}, 3) == {'a': [1.]*3, 'b': [3.]*3}
    assert {k: len(ts) for k, ts in interleaved(dict(a=takes(1))).items()} == {'a': 7}


def test_ratios():
    times = dict(a=[1., 2., 4., 1., 10.], b=[2., 2., 2., 3., 50.])
    got = ratios(times, 'a')                                                           # b/a: 2, 1, 0.5, 3, 5
    assert got == {'a': (1, 1, 1), 'b': (2, 1, 3)} and all(type(r) is Ratio for r in got.values())
    assert ratios(times, 'b')['a'] == (.5, pytest.approx(1/3), 1)
    assert (got['b'].middle, got['b'].low, got['b'].high) == (2, 1, 3)
    assert str(got['b']) == '2.00 (1.00 to 3.00)'
    assert ratios(dict(a=[2.], b=[3.]), 'a')['b'] == (1.5, 1.5, 1.5)                   # one round has no spread
    assert ratios(dict(a=[1., 1.], b=[1., 2.]), 'a')['b'] == (1.5, 1.25, 1.75)
    with pytest.raises(ValueError, match="^ratios: no 'c' among a, b$"): ratios(times, 'c')


# ---- the contenders

def test_a_problem(small):
    a, b = small.model(), small._replace(y=small.y).model()
    assert [type(layer) for layer in a] == [Linear, nn.ReLU, Linear]
    assert [tuple(p.shape) for p in a.parameters()] == [(6, 5), (5,), (5, 3), (3,)]
    assert all(p.equal(q) and p is not q for p, q in zip(a.parameters(), b.parameters()))
    batches = [*small.batches()]
    assert [len(x) for x, _ in batches] == [8]*4 + [7]
    assert torch.cat([x for x, _ in batches]).equal(small.x)
    assert torch.cat([y for _, y in batches]).equal(small.y)
    assert Problem(small.x, small.y)[2:] == (50, 64, .03, 10)


def by_autograd(p, epochs):
    "The weights after so many epochs, by PyTorch's own functions, in float64"
    weights = [q.detach().double().requires_grad_() for q in p.model().parameters()]
    for _ in range(epochs):
        for xb, yb in zip(p.x.double().split(p.bs), p.y.split(p.bs)):
            w1, b1, w2, b2 = weights
            grads = torch.autograd.grad(nn.functional.cross_entropy((xb @ w1 + b1).relu() @ w2 + b2, yb),
                                        weights)
            weights = [(q - p.lr*g).detach().requires_grad_() for q, g in zip(weights, grads)]
    return [q.detach().float() for q in weights]


def trains_right(name, p):
    contender, before = CONTENDERS[name](p), [t.clone() for t in (p.x, p.y)]
    for a, b in zip(contender.weights(), p.model().parameters()):
        check_close(a.detach(), b.detach(), f'{name}, before', 1e-6)
    for epochs in 1, 2:
        contender.run()
        for q, a, b in zip(('w1', 'b1', 'w2', 'b2'), contender.weights(), by_autograd(p, epochs), strict=True):
            check_close(a.detach(), b, f'{name}, {q}, epoch {epochs}', 1e-5)
    assert all(map(torch.equal, before, (p.x, p.y)))


def absent(name):
    "Why it can't be tried here; what PyTorch compiles can, uncompiled"
    return '' if library(name) == 'PyTorch' and 'compiled' in name or name.endswith('not recorded') else missing(name)


@pytest.mark.parametrize('name', [o for o in CONTENDERS if 'products' not in o and library(o) not in ('JAX', 'MLX')])
@pytest.mark.parametrize('n', [39, 32, 5])
def test_each_trains_as_the_loop_does(name, n, uncompiled):
    if why := absent(name): pytest.skip(why)
    if library(name) == 'Numba': pytest.importorskip('backprop13.support.compiled')
    trains_right(name, problem(n))


@pytest.mark.parametrize('name', [o for o in CONTENDERS if library(o) in ('JAX', 'MLX')])
def test_those_with_threads_train_as_the_loop_does(name):
    "In a process of their own: they start threads, and other tests fork"
    if why := missing(name): pytest.skip(why)
    code = f"import sys; sys.path[:0] = {[str(o) for o in Path(__file__).parents[:2]]!r}\n"
    code += 'from test_benchmarks import problem, trains_right\n'
    code += f"for n in 39, 32: trains_right({name!r}, problem(n))"
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert not r.returncode, r.stderr


@pytest.mark.parametrize('name', PRODUCTS)
def test_products_have_no_weights(name, small):
    if why := missing(name): pytest.skip(why)
    run = CONTENDERS[name](small)
    assert run.weights is None and run.run() is None


@calls_c
@pytest.mark.parametrize('package', ['numpy', 'scipy'])
@pytest.mark.parametrize('bit', range(5))
@pytest.mark.parametrize('columns', [False, True])
def test_a_product_of_epoch_c_is_the_product(package, bit, columns):
    "Each alone, an image in a row or in a column, for a whole batch and for the short one at the end"
    blas, kind = benchmarks._openblas(package)
    n, bs, m, h, c = 7, 4, 6, 5, 3
    gen = torch.Generator().manual_seed(0)
    x, *room = (torch.rand(shape, generator=gen) for shape in ((n, m), (m, h), (h, c), (bs, h), (bs, h), (bs, c)))
    got = [q.clone() for q in room]
    benchmarks._c(kind).products(blas, columns << bit, 1 << bit, *benchmarks._words(x, n, bs, m, h, c, *got))
    def at(q, k, width): return q.view(-1)[:k*width].view(width, k).t() if columns else q[:k]    # of k images
    def weights(q): return q.reshape(-1).view(q.shape[::-1]).t() if columns else q
    w1, w2, l2, g1, g = want = [q.clone() for q in room]
    for xb in x.split(bs):
        k = len(xb)
        into, value = [(at(l2, k, h), xb @ weights(w1)), (at(g, k, c), at(l2, k, h) @ weights(w2)),
                       (at(g1, k, h), at(g, k, c) @ weights(w2).t()), (weights(w2), at(l2, k, h).t() @ at(g, k, c)),
                       (weights(w1), xb.t() @ at(g1, k, h))][bit]
        into.copy_(value)
    for q, a, b, old in zip(('w1', 'w2', 'l2', 'g1', 'g'), got, want, room): check_close(a, b, q, 1e-6)
    changed = [not a.equal(b) for a, b in zip(got, room)]
    assert changed == [k == [2, 4, 3, 1, 0][bit] for k in range(5)]


@calls_c
def test_products_choose_a_layout_for_each(small, monkeypatch):
    "Whichever took less, and then all five in one call"
    asked, now = [], [0.]
    class Lib:
        def products(self, blas, columns, only, x, n, *rest):
            asked.append((columns, only, n.value))
            now[0] += 1 + ((only in (2, 16)) == (columns == 0)) if only < 31 else 0
    monkeypatch.setattr(benchmarks, '_c', lambda kind: Lib())
    monkeypatch.setattr(benchmarks.time, 'perf_counter', lambda: now[0])
    run = benchmarks.products_of(small, 'numpy')
    assert {q[:2] for q in asked} == {(columns, 1 << i) for i in range(5) for columns in (0, 1 << i)}
    asked.clear()
    run.run()
    assert asked == [(2 + 16, 31, 39)]


def test_library():
    found = {name: library(name) for name in CONTENDERS}
    assert {name for name, lib in found.items() if lib == 'NumPy'} == {'NumPy', "NumPy's products"}
    assert found['C'] == 'C' and found["SciPy's products"] == 'SciPy' and found['our compiled epoch'] == 'Numba'
    assert {name for name, lib in found.items() if lib == 'JAX'} == {'JAX, scan', 'JAX, scan, donated'}
    torch_s = 'PyTorch', 'our f', 'our l', 'the'
    assert all(lib == 'PyTorch' for name, lib in found.items() if name.startswith(torch_s))
    assert [library(name) for name in LIMITS] == ['C', 'PyTorch', 'PyTorch', 'PyTorch', 'NumPy']


@pytest.mark.parametrize('name', LIMITS)
def test_limits_run_and_say_what_they_did(name, small, monkeypatch):
    if why := missing(name): pytest.skip(why)
    one = LIMITS[name](small)
    one.run()
    assert one.weights is None and one.amount % {'reading': small.x.nbytes, 'triad': 3*small.x.nbytes,
        'C, multiply-adds': 20*torch.get_num_threads()*3*10**7}.get(name, 2*2048**3) == 0
    found = compare(small, [name], 2)
    assert found['amount'] == {name: one.amount}
    assert benchmarks.speeds(found | dict(times={name: [4., 2.]})) == {name: one.amount/2}


@calls_c
def test_multiply_adds_are_counted_and_done():
    "Ten chains of four, eight or sixteen numbers, each q = q*0.999 + 0.001, from 0"
    end = ctypes.c_float(0)
    n = benchmarks._c().multiply_adds(ctypes.c_int64(1000), ctypes.byref(end))
    lanes = n/(1000*10*2)
    assert lanes in (4, 8, 16) and end.value == pytest.approx(10*lanes*(1 - .999**1000), rel=1e-3)
    assert (torch.tensor(1e-39)*1).item() > 0                  # denormal, in this process as before


def test_compiled_ones_are_compiled(small, monkeypatch):
    asked = []
    def compiler(f=None, **kw):
        if f is None: return lambda f: compiler(f, **kw)
        def run(*args):
            asked.append(kw)
            return f(*args)
        return run
    monkeypatch.setattr(torch, 'compile', compiler)
    for name in CONTENDERS:
        if library(name) != 'PyTorch' or name == 'PyTorch, recorded': continue
        asked.clear()
        CONTENDERS[name](small).run()
        how = {} if 'our step' in name else dict(mode=(name.split(', ') + ['default'])[2] if 'compiled' in name else '')
        # once for each batch
        assert asked == [dict(dynamic=False) | how]*5*('compiled' in name), name


# ---- one comparison

def test_compare(small):
    found = compare(small, plain, 2)
    assert {name: len(ts) for name, ts in found['times'].items()} == dict.fromkeys(plain, 2)
    assert [*found['times']] == plain
    assert all(t > 0 for ts in found['times'].values() for t in ts)
    assert {kind: q for kind, q in found.items() if kind != 'times'} == dict(missing={}, wrong={}, amount={})
    assert len(compare(small, ["PyTorch's products"])['times']["PyTorch's products"]) == 7


@pytest.mark.parametrize('wrong,what', [
    (lambda p: lesson(p._replace(lr=1.01*p.lr)), 'w1'),
    (lambda p: lesson(p._replace(bs=p.bs + 1)), 'w1'),
    # forgets the short batch
    (lambda p: lesson(p._replace(x=p.x[:len(p.x)//p.bs*p.bs], y=p.y[:len(p.x)//p.bs*p.bs])), 'w1'),
    (lambda p: lesson(p)._replace(run=lambda: None), 'w1'),
    (lambda p: (one := lesson(p))._replace(weights=lambda: [*one.weights()[:3], one.weights()[3] + .01]), 'b2'),
    (lambda p: (one := lesson(p))._replace(weights=lambda: [q.t() for q in one.weights()]), 'w1')])
def test_a_wrong_contender_is_refused(wrong, what, small, monkeypatch):
    monkeypatch.setitem(CONTENDERS, 'wrong', wrong)
    found = compare(small, ["PyTorch's products", 'our fast network', 'wrong'], 1)
    assert [*found['times']] == ["PyTorch's products", 'our fast network'] and [*found['wrong']] == ['wrong']
    assert found['wrong']['wrong'].startswith(f'wrong, {what}: ') and found['missing'] == {}
    assert 'wrong ends elsewhere' in line(found | dict(bs=8, nh=5, threads=1))


def test_one_that_breaks_is_named(small, monkeypatch):
    monkeypatch.setitem(CONTENDERS, 'broken', lambda p: 1/0)
    found = compare(small, ['our fast network', 'broken'], 1)
    assert found['missing'] == {'broken': 'ZeroDivisionError: division by zero'}
    assert [*found['times']] == ['our fast network']


def test_what_is_checked_is_what_is_measured(small, monkeypatch):
    "Its first epoch; then a round that isn't counted and four, an epoch before each timed one"
    made = []
    def watched(p):
        one, runs = lesson(p), []
        made.append((len(p.x), runs))
        return one._replace(run=lambda: (runs.append(1), one.run()))
    monkeypatch.setitem(CONTENDERS, 'watched', watched)
    compare(small, ['watched'], 4)
    assert made == [(39, [1]*11)]


def test_missing(monkeypatch):
    there = dict(programs=['g++', 'clang++', 'cc', 'clang'],
                 packages={*'torch numba jax mlx numpy scipy threadpoolctl'.split()})
    monkeypatch.setattr(benchmarks.util, 'find_spec', lambda name: name in there['packages'] or None)
    monkeypatch.setattr(benchmarks.shutil, 'which', lambda name: name if name in there['programs'] else None)
    def all_missing(device='cpu'): return {name: why for name in CONTENDERS if (why := missing(name, device))}
    recorded = {name: 'only a GPU records' for name in CONTENDERS if 'recorded' in name}
    assert all_missing() == recorded and len(recorded) == 3
    for one in ['g++', 'cc'], ['clang++', 'gcc'], ['g++', 'clang']:
        there['programs'] = one
        assert all_missing() == recorded
    for package, names in dict(jax=['JAX, scan', 'JAX, scan, donated'], mlx=['MLX'], numba=['our compiled epoch'],
                               scipy=["SciPy's products"],
                               threadpoolctl=["NumPy's products", "SciPy's products", 'C']).items():
        there['packages'].remove(package)
        assert all_missing() == {**recorded, **dict.fromkeys(names, f'{package} is not installed (backprop13[bench])')}
        there['packages'].add(package)
    there['programs'] = []
    assert all_missing() == {**recorded, **{name: 'torch.compile needs a C++ compiler' for name in CONTENDERS
        if name.startswith('PyTorch') and 'compiled' in name}, **dict.fromkeys(("NumPy's products", "SciPy's products",
        'C'), 'there is no C compiler')}
    there['programs'] = ['g++', 'cc']
    assert all_missing('cuda') == dict.fromkeys(("NumPy's products", "SciPy's products", 'our compiled epoch', 'NumPy',
                                                 'C', 'MLX'), 'it computes on the CPU')


def test_what_is_missing_is_left_out(small, monkeypatch):
    two = "PyTorch's products", 'NumPy'
    monkeypatch.setattr(benchmarks, 'missing', lambda name, device: 'not today' if name not in two else '')
    found = compare(small, rounds=1)
    assert [*found['times']] == [*two]
    assert found['missing'] == {name: 'not today' for name in CONTENDERS if name not in two}


@gpu
def test_contenders_on_a_gpu(small, uncompiled):
    there = small._replace(x=small.x.cuda(), y=small.y.cuda())
    found = compare(there, [name for name in CONTENDERS if library(name) == 'PyTorch'], 2)
    assert all(t > 0 for ts in found['times'].values() for t in ts) and not found['missing'] and not found['wrong']
    assert machine('cuda')['GPU'] == torch.cuda.get_device_name()


# ---- the program

def test_plan(monkeypatch):
    for cores, device, want in ((1, 'cpu', 20), (4, 'cpu', 40), (4, 'cuda', 9), (1, 'cuda', 9)):
        monkeypatch.setattr(os, 'cpu_count', lambda: cores)
        found = plan(device)
        assert len(found) == want == len({tuple(q.items()) for q in found})                 # none twice
        assert all({*q} == {'bs', 'nh', 'threads', 'device'} and q['device'] == device for q in found)
        assert dict(bs=64, nh=50, threads=1, device=device) in found
        assert {q['threads'] for q in found} == ({1, cores} if device == 'cpu' else {1})
        # each has its like on one core
        assert all(q | {'threads': 1} in found for q in found)
        assert max(q['bs'] for q in found) == (16384 if device == 'cuda' else 4096)
    assert plan() == plan('cpu')


def test_who_takes_part():
    assert who(64, 50, 1, 'cpu') == who(16, 50, 1, 'cuda') == [*CONTENDERS]
    for cell in (64, 50, 2), (16, 50, 1), (64, 128, 1):
        assert who(*cell, 'cpu') == [name for name in CONTENDERS if name not in SLOW]
    assert {*SLOW} < {*CONTENDERS} and not {*SLOW} & {*PRODUCTS[:2], 'our fast network', 'NumPy', 'PyTorch'}


def test_images():
    sizes = [(bs, nh) for bs in (1, 16, 64, 256, 1000, 4096, 12500, 16384) for nh in (1, 50, 128, 2048, 10**5)]
    for bs, nh in sizes:
        if (bs, nh) == (64, 50): continue
        n = images(bs, nh)
        # whole batches, and no more work than a moment's
        assert n % bs == 0 and bs <= n <= 50000
        if n > bs: assert n*benchmarks.operations(nh) <= 2.4e9
    assert [images(bs, 50) for bs in (16, 64, 256, 4096)] == [15008, 50000, 14848, 12288]
    assert [images(64, nh) for nh in (128, 2048)] == [5824, 320]


def test_the_machine():
    found = machine()
    assert found['cores'] == os.cpu_count() and found['torch'] in (torch.__version__,
        torch.__version__.split('+')[0]) and found['processor'] and 'GPU' not in found
    assert {*found} == {'processor', 'cores', 'system', 'Python', 'instructions', 'torch', 'numpy', 'scipy', 'numba',
                       'jax', 'mlx'}
    assert (found['jax'] == 'not installed') == (not util.find_spec('jax'))


def test_measure(digits, monkeypatch):
    "Each library's process is told the size and where the loop ends, and is asked for its own contenders only"
    asked, slept = [], []
    class Process:
        def __init__(self, threads, device): self.about = threads, device
        def ask(self, what, *args):
            lib = next(k for k, v in apart.all.items() if v is self)
            if what == 'begin':
                shapes = {k: tuple(q.shape) for k, q in load_file(args[5]).items()}
                asked.append((what, lib, *args[:5], shapes, args[6]))
            else: asked.append((what, lib, *args))
            return {'begin': f'kernels of {lib}', 'make': {}, 'run': 2.}[what]
        def end(self): asked.append('end')
    monkeypatch.setattr(benchmarks, 'Process', Process)
    monkeypatch.setattr(benchmarks, 'mnist', lambda: digits)
    monkeypatch.setattr(benchmarks, 'images', lambda *sizes: 10*sum(sizes))
    monkeypatch.setattr(benchmarks, 'missing', lambda name, device='cpu': 'not today' if 'JAX' in name else '')
    monkeypatch.setattr(benchmarks.time, 'sleep', slept.append)
    names = ['NumPy', 'our fast network', 'JAX, scan', "the lesson's loop"]
    for threads in 1, 2:
        with Apart(threads) as apart: found = apart.measure(8, 5, names, 2)
        m = digits.x_train.shape[1]
        want = dict(w1=(m, 5), b1=(5,), w2=(5, 10), b2=(10,))
        begun = [('begin', lib, 8, 5, 130, threads, 'cpu', want, '') for lib in ('NumPy', 'PyTorch')]
        three = ('NumPy', 'NumPy'), ('PyTorch', 'our fast network'), ('PyTorch', "the lesson's loop")
        assert asked[:2] == begun and asked[2:5] == [('make', *o) for o in three]
        assert sorted(asked[5:-2]) == sorted(('run', *o) for o in 3*three) and asked[-2:] == ['end']*2
        assert apart.all['NumPy'].about == (threads, 'cpu')
        assert found == dict(bs=8, nh=5, threads=threads, device='cpu', images=130, data=digits.source,
            NumPy='kernels of NumPy', times={name: [2., 2.] for name in names if 'JAX' not in name},
            missing={'JAX, scan': 'not today'}, wrong={}, amount={})
        # another one's threads may still be awake
        assert slept == [.05]*9*(threads - 1)
        asked.clear()


# what the processes of the command do before they begin: a note of what they have
SMALL = """
import os, torch
from backprop13.support import benchmarks as b
def had():
    held = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None
    print('this is no answer')
    return [held, torch.get_num_threads(), *(os.environ.get(name) for name in (*b.THREADS, *b.HOLDS))]
b.kernels = had
"""

@pytest.mark.data
def test_the_command(tmp_path, monkeypatch, capsys):
    tiny = [dict(bs=64, nh=50, threads=1, device='cpu'), dict(bs=8, nh=5, threads=2, device='cpu')]
    popen, asked = subprocess.Popen, []
    def smaller(command, **kw):
        if command[:2] != [sys.executable, '-c']: return popen(command, **kw)      # platform asks uname
        asked.append(command)
        return popen([*command[:2], SMALL + command[2]], **kw)
    for name in HOLDS: monkeypatch.setenv(name, 'Haswell')
    monkeypatch.setattr(benchmarks.subprocess, 'Popen', smaller)
    monkeypatch.setattr(benchmarks, 'plan', lambda device: tiny if device == 'cpu' else [])
    monkeypatch.setattr(benchmarks, 'images', lambda bs, nh: 4*bs)
    monkeypatch.setattr(benchmarks, 'LIMITS', {'reading': LIMITS['reading']})
    three = ["PyTorch's products", 'our fast network', 'NumPy']
    monkeypatch.setattr(benchmarks, 'who', lambda **cell: three)
    out, data = tmp_path/'results.json', os.environ.get('BACKPROP13_DATA') or 'synthetic'
    assert main(['--out', str(out), '--rounds', '2', '--data', data]) is None
    found = load(out)
    assert found == load(str(out)) and [*found] == ['machine', 'limits', 'results'] and found['machine'] == machine()
    assert [{k: r[k] for k in tiny[0]} for r in found['results']] == tiny and len(asked) == 4
    assert [r['threads'] for r in found['limits']] == [1, 2]
    assert all([*r['amount']] == ['reading'] for r in found['limits'])
    assert [r['images'] for r in found['results']] == [256, 32] and {r['data']
        for r in found['results']} <= {'MNIST', 'synthetic'}
    for r in found['results']:
        assert {name: len(ts) for name, ts in r['times'].items()} == dict.fromkeys(three, 2)
        assert r['missing'] == r['wrong'] == {} and all(t > 0 for ts in r['times'].values() for t in ts)
        cores, k = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None, r['threads']
        assert r['NumPy'] == [cores and min(cores, k), k, *[str(k)]*len(THREADS), *[None]*len(HOLDS)]
    first, *said = capsys.readouterr().out.splitlines()
    assert first == '2 comparisons, each library in a process of its own'
    assert [said[1], said[3]] == [f'{i} of 2: {line(r)}' for i, r in enumerate(found['results'], 1)]
    assert re.fullmatch(r'threads 1: reading \d+\.\d G/s', said[0])
    assert re.fullmatch(r'2 of 2: batch 8, 5 hidden, threads 2: our fast network \d+\.\d\d, NumPy '
                        r'\d+\.\d\d', said[3])


def refused(capsys, *words):
    "What the command says, in one line, where it gives up"
    with pytest.raises(SystemExit) as e: main([*words])
    said = capsys.readouterr().err
    assert e.value.code == 2 and said.startswith('backprop13-bench: ') and said.count('\n') == 1, said
    return said


def test_a_process_that_fails_ends_the_command(tmp_path, monkeypatch, capfd):
    "With the code of the process, which has said why; or with a sentence, if it was killed"
    popen, out = subprocess.Popen, tmp_path/'results.json'
    monkeypatch.setattr(benchmarks, 'plan', lambda device: [dict(bs=64, nh=50, threads=1, device='cpu')])
    monkeypatch.setattr(benchmarks, '_settle_data', lambda asked: None)
    monkeypatch.setattr(benchmarks, '_problem', lambda *sizes: problem(8))
    monkeypatch.setenv('BACKPROP13_DATA', str(tmp_path/'nowhere'))
    assert '/nowhere; set BACKPROP13_DATA' in refused(capfd, '--out', str(out))
    killed = [sys.executable, '-c', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)']
    monkeypatch.setattr(benchmarks.subprocess, 'Popen',
                        lambda command, **kw: popen(killed if command[0] == sys.executable else command, **kw))
    assert 'was ended by signal 9; is there memory enough?' in refused(capfd, '--out', str(out))
    assert not out.exists()


def test_no_digits_in_place_of_mnist(tmp_path, monkeypatch, capsys):
    "Without MNIST, nothing is measured; on digits made by code only if `--data synthetic` asks for them"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmarks, 'Process', lambda *args: pytest.fail('it began to measure'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    for proxy in 'http_proxy', 'https_proxy': monkeypatch.setenv(proxy, 'http://127.0.0.1:9')
    for source, why in ('', 'no mirror sent train-images'), ('synthetic',
        'BACKPROP13_DATA is synthetic, wanted MNIST'):
        monkeypatch.setenv('BACKPROP13_DATA', source)
        assert why in refused(capsys)
    asked = []
    monkeypatch.setattr(benchmarks, '_verified', asked.append)
    benchmarks._settle_data('synthetic')
    assert asked == ['synthetic'] and os.environ['BACKPROP13_DATA'] == 'synthetic'
    assert not [*tmp_path.rglob('*.json')]


def test_a_gpu_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(benchmarks, 'Process', lambda *args: pytest.fail('it began to measure'))
    said = refused(capsys, '--device', 'cuda')
    assert 'backprop13-bench: there is no GPU here that PyTorch can use; leave out --device cuda; see' in said
    assert not [*tmp_path.iterdir()]


def test_a_line():
    result = dict(bs=16, nh=50, threads=2, wrong={},
                  times={"PyTorch's products": [1., 2., 4.], 'a': [2., 2., 2.], 'b': [3., 6., 12.]})
    assert line(result) == 'batch 16, 50 hidden, threads 2: a 1.00, b 3.00'


# ---- what is stored

def test_what_is_stored(monkeypatch):
    stored = load()
    known = stored['machine']
    monkeypatch.setattr(os, 'cpu_count', lambda: known['cores'])
    cells = [{k: r[k] for k in ('bs', 'nh', 'threads', 'device')} for r in stored['results']]
    assert cells == plan() and {*known} == {*machine()} and all(known.values())
    for cell, r in zip(cells, stored['results']):
        assert [name for name in who(**cell) if name not in r['missing']] == [*r['times']] and r['wrong'] == {}
        assert r['images'] == images(r['bs'], r['nh']) and r['data'] == 'MNIST'
        assert all(len(ts) == 5 and all(t > 0 and math.isfinite(t) for t in ts) for ts in r['times'].values())
        # the chapter shows all others
        assert r['missing'] == {name: 'only a GPU records' for name in who(**cell) if 'recorded' in name} and line(r)
    assert [r['threads'] for r in stored['limits']] == sorted({1, known['cores']})
    for r in stored['limits']: assert [*r['times']] == [*r['amount']] == [*LIMITS] and r['missing'] == {}


def test_it_is_a_file_of_the_package():
    "As the command writes it"
    path = benchmarks.resources.files('backprop13')/'static/benchmarks.json'
    text = path.read_text(encoding='utf-8')
    assert text == json.dumps(load(), indent=1) + '\n' and load() == json.loads(text)
    each = [median(r['times']["PyTorch's products"])/r['images'] for r in load()['results']]
    # seconds, not milliseconds
    assert max(each) < 1e-2


# ---- chapter 7's record

@pytest.fixture
def with_steps(monkeypatch):
    "What the record compares; its steps are contenders until the test ends"
    monkeypatch.setattr(benchmarks, 'CONTENDERS', {**CONTENDERS})
    return benchmarks._with_steps(str(root/'nbs/07_speed.ipynb'))


def test_the_steps_train_as_the_lesson(with_steps, monkeypatch):
    monkeypatch.setattr(benchmarks, 'STEPS', {**benchmarks.STEPS, 'no step': 'forgets_the_mean'})
    gen = torch.Generator().manual_seed(1)
    p = Problem(torch.rand(200, 6, generator=gen), torch.randint(0, 10, (200,), generator=gen), nh=5)
    found = compare(p, ["PyTorch's products", *(name for name in with_steps if name in STEPS)], rounds=1)
    assert [*found['times']] == ["PyTorch's products", *STEPS]
    benchmarks._with_steps(str(root/'nbs/07_speed.ipynb'))                    # its planted mistake is found
    assert "against the lesson's loop" in compare(p, ['no step'])['wrong']['no step']


def test_the_record_is_as_the_command_writes_it(with_steps, monkeypatch, tmp_path):
    stored = benchmarks.resources.files('backprop13')/'static/walk.json'
    record = load(stored)
    def measure(self, bs, nh, names, rounds, notebook):
        assert (self.threads, bs, nh, notebook) == (1, 64, 50, str(root/'nbs/07_speed.ipynb'))
        assert images(bs, nh) == record['images']
        return {**record, 'missing': {}, 'wrong': wrong, 'times': dict.fromkeys(names, [1.]*rounds)}
    monkeypatch.setattr(Apart, 'measure', measure)
    monkeypatch.setattr(benchmarks, '_settle_data', lambda asked: None)
    wrong = {'fused': 'fused, w1: relative error'}
    with pytest.raises(ValueError, match='^fused, w1'):
        benchmarks._walk(str(root/'nbs/07_speed.ipynb'), str(tmp_path/'walk.json'))
    wrong = {}
    benchmarks._walk(str(root/'nbs/07_speed.ipynb'), str(tmp_path/'walk.json'))
    made = load(tmp_path/'walk.json')
    assert [*made] == [*record] and [*made['times']] == [*record['times']] and made['machine'] == machine()
    assert {len(ts) for ts in [*made['times'].values(), *record['times'].values()]} == {15}
    assert stored.read_text(encoding='utf-8') == json.dumps(record, indent=1) + '\n'
