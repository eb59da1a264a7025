"Turn by turn, and each contender against the lesson's loop. No test asks how fast anything is."
import itertools, json, math, os, re, subprocess, sys
from importlib import util
from pathlib import Path
from statistics import median

import pytest, torch
from conftest import root
from torch import nn

from backprop13.support import benchmarks
from backprop13.backprop import Linear
from backprop13.support.benchmarks import (CONTENDERS, STEPS, THREADS, Problem, Ratio, compare, images,
                                           interleaved, lesson, line, load, machine,
                                   main, missing, plan, ratios)
from backprop13.support.checks import check_close

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
plain = [name for name in CONTENDERS if not any(word in name for word in ('compiled', 'JAX', 'recorded'))]


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
    assert Problem(small.x, small.y)[2:] == (50, 64, .3, 10)


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


@pytest.mark.parametrize('name', [o for o in CONTENDERS if 'yardstick' not in o and 'JAX' not in o])
@pytest.mark.parametrize('n', [39, 32, 5])
def test_each_trains_as_the_loop_does(name, n, uncompiled): trains_right(name, problem(n))


@pytest.mark.skipif(not util.find_spec('jax'), reason='JAX is not installed')
def test_jax_trains_as_the_loop_does():
    "In a process of its own: JAX starts threads, and other tests fork"
    code = f"import sys; sys.path[:0] = {[str(o) for o in Path(__file__).parents[:2]]!r}; "\
           "from test_benchmarks import problem, trains_right\n"
    code += "for n in 39, 32: trains_right('JAX, scan', problem(n))"
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert not r.returncode, r.stderr


def test_the_yardstick_has_no_weights(small):
    run = CONTENDERS['the yardstick'](small)
    assert run.weights is None and run.run() is None


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
        if 'JAX' in name: continue
        asked.clear()
        CONTENDERS[name](small).run()
        # once for each batch
        assert asked == [dict(dynamic=False)]*5*('compiled' in name), name


# ---- one comparison

def test_compare(small):
    found = compare(small, plain, 2)
    assert {name: len(ts) for name, ts in found['times'].items()} == dict.fromkeys(plain, 2)
    assert [*found['times']] == plain
    assert all(t > 0 for ts in found['times'].values() for t in ts) and found['missing'] == {}
    assert len(compare(small, ['the yardstick'])['times']['the yardstick']) == 7


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
    monkeypatch.setattr(benchmarks, 'interleaved', lambda *args: pytest.fail('it was measured'))
    with pytest.raises(AssertionError, match=f'^wrong, {what}: '):
        compare(small, ['the yardstick', 'our fast network', 'wrong'])


def test_the_check_leaves_what_is_measured_alone(small, monkeypatch):
    "It trains a contender of its own, on three batches and the short one"
    made = []
    def watched(p):
        one, runs = lesson(p), []
        made.append((len(p.x), runs))
        return one._replace(run=lambda: (runs.append(1), one.run()))
    monkeypatch.setitem(CONTENDERS, 'watched', watched)
    compare(small, ['watched'], 4)
    assert made == [(39, [1]*5), (3*8 + 7, [1])]


def test_missing(monkeypatch):
    there = dict(jax=True, programs=['g++', 'clang++'])
    monkeypatch.setattr(benchmarks.util, 'find_spec', lambda name: there[name] or None)
    monkeypatch.setattr(benchmarks.shutil, 'which', lambda name: name if name in there['programs'] else None)
    def all_missing(): return {name: why for name in CONTENDERS if (why := missing(name, 'cuda'))}
    assert all_missing() == {}
    for one in ['g++'], ['clang++']:
        there['programs'] = one
        assert all_missing() == {}
    there |= dict(jax=False, programs=['gcc'])
    compiler, no_jax = 'torch.compile needs a C++ compiler', 'JAX is not installed (backprop13[bench])'
    assert all_missing() == {'PyTorch, compiled': compiler, 'PyTorch, our step compiled': compiler,
                             'JAX, scan': no_jax}
    assert missing('our fast network, not recorded') == 'only a GPU records'
    assert missing('our fast network') == ''


def test_what_is_missing_is_left_out(small, monkeypatch):
    monkeypatch.setattr(benchmarks, 'missing',
                        lambda name, device: 'not today' if name not in ('the yardstick', 'NumPy') else '')
    found = compare(small, rounds=1)
    assert [*found['times']] == ['the yardstick', 'NumPy']
    assert found['missing'] == {name: 'not today' for name in CONTENDERS
                                if name not in ('the yardstick', 'NumPy')}


@gpu
def test_contenders_on_a_gpu(small, uncompiled):
    there = small._replace(x=small.x.cuda(), y=small.y.cuda())
    found = compare(there, [name for name in CONTENDERS if 'JAX' not in name], 2)
    assert all(t > 0 for ts in found['times'].values() for t in ts) and not found['missing']
    assert machine('cuda')['GPU'] == torch.cuda.get_device_name()


# ---- the program

def test_plan(monkeypatch):
    for cores, device, want in ((1, 'cpu', 8), (4, 'cpu', 11), (4, 'cuda', 9), (1, 'cuda', 9)):
        monkeypatch.setattr(os, 'cpu_count', lambda: cores)
        found = plan(device)
        assert len(found) == want == len({tuple(q.items()) for q in found})                 # none twice
        assert all({*q} == {'bs', 'nh', 'threads', 'device'} and q['device'] == device for q in found)
        assert dict(bs=64, nh=50, threads=1, device=device) in found
        # one thing changes at a time
        assert all((q['bs'] == 64) + (q['nh'] == 50) for q in found)
        assert {q['threads'] for q in found} == ({1, cores} if device == 'cpu' else {1})
        several = [q for q in found if q['threads'] > 1]
        # each has its like on one core
        assert all(q | {'threads': 1} in found for q in several)
        assert max(q['bs'] for q in found) == (16384 if device == 'cuda' else 4096)
    assert plan() == plan('cpu')


def test_images():
    sizes = [(bs, nh) for bs in (1, 16, 64, 256, 1000, 4096, 12500, 16384) for nh in (1, 50, 128, 2048, 10**6)]
    for bs, nh in sizes:
        if (bs, nh) == (64, 50): continue
        n = images(bs, nh)
        # whole batches, and enough for the check
        assert n % bs == 0 and 3*bs <= n <= 50000
        if n > 3*bs: assert n <= min(400*bs, 50000*50/nh)
    assert [images(bs, 50) for bs in (16, 64, 256, 4096)] == [6400, 50000, 49920, 49152]
    assert [images(64, nh) for nh in (128, 2048)] == [19520, 1216]


def test_the_machine():
    found = machine()
    assert found['cores'] == os.cpu_count() and found['torch'] in (torch.__version__,
        torch.__version__.split('+')[0]) and found['processor'] and 'GPU' not in found
    assert {*found} == {'processor', 'cores', 'system', 'Python', 'instructions', 'torch', 'numpy', 'jax'}
    assert (found['jax'] == 'not installed') == (not util.find_spec('jax'))


@pytest.mark.parametrize('bs,nh,want', [(8, 5, 4), (64, 50, 12)])
def test_measure(bs, nh, want, digits, monkeypatch):
    "What is compared, with how many threads, in how many rounds"
    data, asked = digits, []
    monkeypatch.setattr(benchmarks, 'mnist', lambda: data)
    monkeypatch.setattr(benchmarks, 'images', lambda *sizes: 10*sum(sizes))
    monkeypatch.setattr(benchmarks, 'compare',
                        lambda *args, **kw: asked.append((args, kw)) or dict(times={}, missing={}))
    monkeypatch.setattr(torch, 'set_num_threads', asked.append)
    n = 10*(bs + nh)
    assert benchmarks.measure(bs, nh, 3, 'cpu', 4) == dict(bs=bs, nh=nh, threads=3, device='cpu',
        images=n, data=data.source, times={}, missing={})
    (threads, ((p,), kw)) = asked
    assert threads == 3 and kw == dict(names=None, rounds=want) and p[2:] == (nh, bs, .3, 10)
    assert p.x.equal(data.x_train[:n]) and p.y.equal(data.y_train[:n])


# what the processes of the command do before they begin: few images, few contenders, and a note
# of what they have
SMALL = """
import os, torch
from backprop13.support import benchmarks as b
b.images = lambda bs, nh: 4*bs
for name in [*b.CONTENDERS]:
    if name not in ('the yardstick', 'our fast network', 'NumPy'): del b.CONTENDERS[name]
was = b.measure
def measure(**kw):
    held = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None
    had = [held, *(os.environ.get(name) for name in b.THREADS)]
    return was(**kw) | dict(had=had, threads_of_torch=torch.get_num_threads())
b.measure = measure
"""

@pytest.mark.data
def test_the_command(tmp_path, monkeypatch, capsys):
    tiny = [dict(bs=64, nh=50, threads=1, device='cpu'), dict(bs=8, nh=5, threads=2, device='cpu')]
    run, asked = subprocess.run, []
    def smaller(command, **kw):
        if command[:2] != [sys.executable, '-c']:
            return run(command, **kw)                  # platform asks uname
        asked.append(command)
        return run([*command[:2], SMALL + command[2], *command[3:]], timeout=120, **kw)
    monkeypatch.setattr(benchmarks.subprocess, 'run', smaller)
    monkeypatch.setattr(benchmarks, 'plan', lambda device: tiny if device == 'cpu' else [])
    out, data = tmp_path/'results.json', os.environ.get('BACKPROP13_DATA') or 'synthetic'
    assert main(['--out', str(out), '--rounds', '2', '--data', data]) is None
    found = load(out)
    assert found == load(str(out)) and [*found] == ['machine', 'results'] and found['machine'] == machine()
    assert [{k: r[k] for k in tiny[0]} for r in found['results']] == tiny and len(asked) == 2
    assert [r['images'] for r in found['results']] == [256, 32] and {r['data']
        for r in found['results']} <= {'MNIST', 'synthetic'}
    # the one of the chapter's picture has more
    for r, rounds in zip(found['results'], (6, 2)):
        assert {name: len(ts) for name, ts in r['times'].items()} == dict.fromkeys(['the yardstick',
            'our fast network', 'NumPy'], rounds)
        assert r['missing'] == {} and all(t > 0 for ts in r['times'].values() for t in ts)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None
        assert r['had'] == [cores and min(cores, r['threads']), *[str(r['threads'])]*len(THREADS)]
        assert r['threads_of_torch'] == r['threads']
    first, *said = capsys.readouterr().out.splitlines()
    assert first == '2 comparisons, each in a process of its own'
    assert said == [f'{i} of 2: {line(r)}' for i, r in enumerate(found['results'], 1)]
    assert re.fullmatch(r'2 of 2: batch 8, 5 hidden, threads 2: our fast network \d+\.\d\d, NumPy '
                        r'\d+\.\d\d', said[1])


def refused(capsys, *words):
    "What the command says, in one line, where it gives up"
    with pytest.raises(SystemExit) as e: main([*words])
    said = capsys.readouterr().err
    assert e.value.code == 2 and said.startswith('backprop13-bench: ') and said.count('\n') == 1, said
    return said


def test_a_process_that_fails_ends_the_command(tmp_path, monkeypatch, capfd):
    "With the code of the process, which has said why; or with a sentence, if it was killed"
    run, out = subprocess.run, tmp_path/'results.json'
    monkeypatch.setattr(benchmarks, 'plan', lambda device: [dict(bs=64, nh=50, threads=1, device='cpu')])
    monkeypatch.setattr(benchmarks, '_settle_data', lambda asked: None)
    monkeypatch.setenv('BACKPROP13_DATA', str(tmp_path/'nowhere'))
    assert '/nowhere; set BACKPROP13_DATA' in refused(capfd, '--out', str(out))
    killed = [sys.executable, '-c', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)']
    monkeypatch.setattr(benchmarks.subprocess, 'run',
                        lambda command, **kw: run(killed if command[0] == sys.executable else command, **kw))
    assert 'was ended by signal 9; is there memory enough?' in refused(capfd, '--out', str(out))
    assert not out.exists()


def test_no_digits_in_place_of_mnist(tmp_path, monkeypatch, capsys):
    "Without MNIST, nothing is measured; on digits made by code only if `--data synthetic` asks for them"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmarks, 'in_process', lambda *args: pytest.fail('it began to measure'))
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
    monkeypatch.setattr(benchmarks, 'in_process', lambda *args: pytest.fail('it began to measure'))
    said = refused(capsys, '--device', 'cuda')
    assert 'backprop13-bench: there is no GPU here that PyTorch can use; leave out --device cuda; see' in said
    assert not [*tmp_path.iterdir()]


def test_a_line():
    result = dict(bs=16, nh=50, threads=2,
                  times={'the yardstick': [1., 2., 4.], 'a': [2., 2., 2.], 'b': [3., 6., 12.]})
    assert line(result) == 'batch 16, 50 hidden, threads 2: a 1.00, b 3.00'


# ---- what is stored

def test_what_is_stored(monkeypatch):
    stored = load()
    known = stored['machine']
    monkeypatch.setattr(os, 'cpu_count', lambda: known['cores'])
    assert [{k: r[k] for k in ('bs', 'nh', 'threads', 'device')} for r in stored['results']] == plan()
    assert {*known} == {*machine()} and all(known.values())
    for r in stored['results']:
        assert {*r['times']} | {*r['missing']} == {*CONTENDERS} and not {*r['times']} & {*r['missing']}
        assert r['images'] == images(r['bs'], r['nh']) and r['data'] == 'MNIST'
        rounds = 3*7 if (r['bs'], r['nh']) == (64, 50) else 7
        assert all(len(ts) == rounds and all(t > 0 and math.isfinite(t) for t in ts)
                   for ts in r['times'].values())
        assert line(r)
    assert all(r['missing'] == dict.fromkeys(('the yardstick, not recorded',
                                              'our fast network, not recorded'), 'only a GPU records')
               # the chapter draws all others
               for r in stored['results'])


def test_it_is_a_file_of_the_package():
    "As the command writes it"
    path = benchmarks.resources.files('backprop13')/'static/benchmarks.json'
    text = path.read_text(encoding='utf-8')
    assert text == json.dumps(load(), indent=1) + '\n' and load() == json.loads(text)
    floors = [median(r['times']['the yardstick'])/r['images'] for r in load()['results']]
    # seconds, not milliseconds
    assert max(floors) < 1e-2


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
    found = compare(p, ['the yardstick', *(name for name in with_steps if name in STEPS)], rounds=1)
    assert [*found['times']] == ['the yardstick', *STEPS]
    benchmarks._with_steps(str(root/'nbs/07_speed.ipynb'))                    # its planted mistake is found
    with pytest.raises(AssertionError, match="against the lesson's loop"): compare(p, ['no step'])


def test_the_record_is_as_the_command_writes_it(with_steps, monkeypatch, tmp_path):
    stored = benchmarks.resources.files('backprop13')/'static/walk.json'
    record = load(stored)
    def in_process(combination, rounds):
        assert images(combination['bs'], combination['nh']) == record['images']
        return {**combination, **record, 'missing': {}, 'times': dict.fromkeys(with_steps, [1.]*3*rounds)}
    monkeypatch.setattr(benchmarks, 'in_process', in_process)
    monkeypatch.setattr(benchmarks, '_settle_data', lambda asked: None)
    benchmarks._walk('nbs/07_speed.ipynb', str(tmp_path/'walk.json'))
    made = load(tmp_path/'walk.json')
    assert [*made] == [*record] and [*made['times']] == [*record['times']] and made['machine'] == machine()
    assert {len(ts) for ts in [*made['times'].values(), *record['times'].values()]} == {15}
    assert stored.read_text(encoding='utf-8') == json.dumps(record, indent=1) + '\n'
