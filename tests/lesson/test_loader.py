"The data loader and its workers: equal to PyTorch's, whatever their number; what goes wrong in them; what is left behind"
import collections, contextlib, gc, math, os, pickle, random, re, signal, subprocess, sys, threading, time
from multiprocessing import active_children, get_all_start_methods
from pathlib import Path

import numpy as np, pytest, torch
from torch.utils import data as pytorch

from backprop13 import fitting
from backprop13.fitting import BatchSampler, DataLoader, Dataset, Sampler, get_dls, make_batch, seeded

proc = Path('/proc')
linux = pytest.mark.skipif(not (proc/'self/stat').exists(), reason='reads processes and descriptors in /proc')
forks = pytest.mark.skipif('fork' not in get_all_start_methods(), reason='this system cannot fork')


# ---- no test waits for ever, and none leaves a process behind

def processes():
    "Process id -> (parent, session, state, command) of all processes"
    res = {}
    for f in proc.glob('[0-9]*'):
        with contextlib.suppress(OSError):
            state, parent, _, session = (f/'stat').read_text().rpartition(')')[2].split()[:4]
            res[int(f.name)] = int(parent), int(session), state, (f/'cmdline').read_bytes().replace(b'\0', b' ').decode()
    return res


def children():
    "This process's, also those that ended but weren't waited for"
    return {pid for pid, (parent, *_) in processes().items() if parent == os.getpid()}


def gone(what, seconds=5):
    "Wait until `what()` is empty; what it still holds after that time"
    end = time.monotonic() + seconds
    while (left := what()) and time.monotonic() < end: time.sleep(.05)
    return left


@pytest.fixture(autouse=True)
def guard():
    "A test may take 40 seconds, and must leave no process behind"
    def stop(*_): raise TimeoutError('the test took 40 seconds')
    if hasattr(signal, 'SIGALRM'):
        was = signal.signal(signal.SIGALRM, stop)
        signal.alarm(40)
    before = children()
    yield
    if hasattr(signal, 'SIGALRM'):
        signal.alarm(0)
        signal.signal(signal.SIGALRM, was)
    left = gone(lambda: children() - before, 2), active_children()
    for p in left[1]: p.kill()                                       # the run goes on, and ends
    assert left == (set(), [])


# ---- equal, bit by bit

def same(a, b, strict=True):
    "Are both of one type, with the same bits? Not strict: a tuple may stand for a list, as PyTorch's collate makes lists"
    if not strict and {type(a), type(b)} == {tuple, list}: a, b = list(a), list(b)
    if type(a) is not type(b): return False
    if isinstance(a, torch.Tensor):
        return (a.dtype, a.shape, a.requires_grad) == (b.dtype, b.shape, b.requires_grad) and torch.equal(a, b)
    if isinstance(a, np.ndarray): return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict): return list(a) == list(b) and all(same(a[k], b[k], strict) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(same(p, q, strict) for p, q in zip(a, b))
    return a == b


def g(seed=13): return torch.Generator().manual_seed(seed)


def pairs(n=64, width=3):
    "A dataset whose items tell their numbers"
    return Dataset(torch.arange(n*width, dtype=torch.float32).reshape(n, width), torch.arange(n))


class Usual(Dataset):
    "Items by `__getitem__` of its own, so one at a time"
    def __getitem__(self, i): return super().__getitem__(i)


class Noisy(Usual):
    "Each item draws from PyTorch, Python and NumPy"
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + torch.randn(x.shape), y, random.random(), np.random.normal(), np.random.rand(2)


Point = collections.namedtuple('Point', 'x y')
items = {
    'plain': pairs(23), 'usual': Usual(*pairs(23)[:]), 'TensorDataset': pytorch.TensorDataset(*pairs(23)[:]),
    'Subset': pytorch.Subset(pairs(40), range(5, 28)),
    'pair of lists': Dataset([[k, k + .5] for k in range(23)], list(range(23))),
    'arrays': Dataset(np.arange(69, dtype=np.float32).reshape(23, 3), np.arange(23)),
    'targets in a list': Dataset(torch.rand(23, 2), list(range(23))),
    'integers': list(range(23)), 'floats': [k/7 for k in range(23)],
    'strings': [f'item {k}' for k in range(23)], 'bytes': [b'%d' % k for k in range(23)],
    'dicts': [{'x': torch.full((2, 2), k), 'name': f'{k}', 'more': {'y': k/2}} for k in range(23)],
    'tuples': [(k, f'{k}', np.full(3, k), torch.tensor([k]), np.float32(k)) for k in range(23)],
    'named tuples': [Point(k, torch.tensor(k/2)) for k in range(23)],
    'images': Dataset(torch.rand(23, 1, 4, 4), torch.arange(23) % 10),
}


@pytest.mark.parametrize('drop_last', [False, True])
def test_batch_sampler_is_pytorchs(drop_last):
    for n in [*range(1, 26), 100, 1000]:
        for bs in {*range(1, min(n, 30) + 1), max(n//2, 1), max(n - 1, 1), n}:
            ours, theirs = BatchSampler(range(n), bs, drop_last), pytorch.BatchSampler(range(n), bs, drop_last)
            for epoch in range(2): assert list(ours) == list(theirs)
            assert len(ours) == len(theirs) == len(list(ours))
    assert list(BatchSampler([5, 3, 1], np.int64(2))) == [[5, 3], [1]]


def test_sampler():
    ds = pairs(100)
    assert list(Sampler(ds)) == list(range(100)) and len(Sampler(ds)) == len(Sampler(ds, True)) == 100
    ours = Sampler(ds, shuffle=True, generator=g())
    first, second = list(ours), list(ours)
    assert first == list(pytorch.RandomSampler(ds, generator=g())) and sorted(second) == list(range(100)) and first != second
    def made(seed):
        torch.manual_seed(seed)
        return list(Sampler(ds, shuffle=True))
    assert made(1) == made(1) != made(2)                             # the global seed decides on it
    sampler = Sampler(ds, shuffle=True)
    torch.manual_seed(1)
    one = list(sampler)
    torch.manual_seed(1)
    assert list(sampler) != one                                      # once it is made, it has a generator of its own


@pytest.mark.parametrize('kind', items)
def test_equal_to_pytorch(kind):
    ds = items[kind]
    def check(*args, **kwargs):
        ours, theirs = (L(ds, *args, **kwargs, generator=g()) for L in (DataLoader, pytorch.DataLoader))
        assert same(list(ours), list(theirs), strict=False) and len(ours) == len(theirs)
    for bs in 1, 2, 7, 22, 23:
        for shuffle in False, True:
            for drop_last in False, True: check(bs, shuffle, drop_last=drop_last)
    check()
    check(4, collate_fn=lambda batch: (len(batch), repr(batch[0])))
    check(4, sampler=[3, 1, 4, 1, 5, 9, 2, 6], drop_last=True)
    check(5, sampler=range(22, 2, -3))
    check(batch_sampler=[[1, 2], [0], [22, 21, 20]])
    check(batch_sampler=BatchSampler(range(23), 9, drop_last=True))


def test_the_short_cut_gives_what_collate_gives():
    "A plain dataset is looked up once for a batch; as one whose items are collated"
    for x in (torch.rand(30, 2, 3), torch.arange(30), torch.rand(30, 0), torch.rand(30, 4).bool(),
              torch.rand(4, 30).T, torch.rand(1, 2).expand(30, 2)):
        plain = make_batch(Dataset(x, x), None, [3, 1, 29], 0)
        assert same(plain, make_batch(Usual(x, x), None, [3, 1, 29], 0), strict=False)
        plain[0].zero_()
        assert not x.numel() or x[3].any() or x[1].any()             # a copy: to change a batch doesn't change the data
    calls = []
    class Counts(Dataset):
        def __getitem__(self, i): calls.append(i); return super().__getitem__(i)
    list(DataLoader(Counts(*pairs(10)[:]), 5))
    assert calls == list(range(10))                                  # one with items of its own is asked for each
    assert len(make_batch(pairs(), lambda batch: batch, [0, 1], 0)) == 2


def test_dataset():
    x, y = torch.rand(5, 2), torch.arange(5)
    ds = Dataset(x, y)
    assert len(ds) == 5 and same(ds[3], (x[3], y[3])) and same(ds[1:4], (x[1:4], y[1:4])) and same(ds[[0, 4]], (x[[0, 4]], y[[0, 4]]))
    with pytest.raises(ValueError, match='Dataset: got 5 inputs and 4 targets; pass as many of each'): Dataset(x, y[:4])
    with pytest.raises(IndexError): ds[5]


# ---- random numbers

def states(): return random.getstate(), np.random.get_state(), torch.get_rng_state()

def equal_states(a, b): return a[0] == b[0] and all(np.array_equal(p, q)
        for p, q in zip(a[1], b[1])) and torch.equal(a[2], b[2])

def draw(): return random.random(), np.random.rand(), torch.rand(()).item(), np.random.randint(10**9), torch.randn(3).tolist()

def start():
    random.seed(5); np.random.seed(6); torch.manual_seed(7)


def test_seeded():
    start()
    expected = [draw() for _ in range(3)]
    start()
    got = [draw()]
    with seeded(2**63 - 1): a = draw()
    got.append(draw())
    with contextlib.suppress(ZeroDivisionError), seeded(2**63 - 1):
        b = draw()
        1/0
    got.append(draw())
    with seeded(1): c = draw()
    assert got == expected and a == b and all(p != q for p, q in zip(a, c))
    with seeded(2**32 + 1): assert random.random() != c[0]
    with seeded(0), seeded(1): assert draw() == c


def test_seeded_within_seeded():
    with seeded(3): expected = [draw() for _ in range(2)]
    with seeded(3):
        got = [draw()]
        with seeded(4): draw()
        got.append(draw())
    assert got == expected


@forks
@pytest.mark.parametrize('workers', [0, 2])
def test_the_consumers_random_numbers_stay(workers):
    "All but NumPy's spare normal number, where one is left"
    dl = DataLoader(Noisy(*pairs()[:]), 8, shuffle=True, num_workers=workers, multiprocessing_context='fork')
    start()
    before = states()
    for _ in dl: assert equal_states(states(), before)
    assert equal_states(states(), before)


def Forked(*args, **kwargs): return DataLoader(*args, **kwargs, multiprocessing_context='fork')


@forks
@pytest.mark.parametrize('kind', ['plain', 'random'])
def test_any_number_of_workers_gives_the_same(kind):
    ds = (Noisy if kind == 'random' else Dataset)(*pairs(67)[:])
    for options in {}, {'drop_last': True}, {'shuffle': True}:
        def loader(k): return Forked(ds, 8, generator=g(), num_workers=k, **options)
        alone = [list(dl) for dl in [loader(0)] for epoch in range(2)]
        assert same(*alone) == (kind == 'plain' and 'shuffle' not in options)
        for k in 1, 2, 5, 20:
            dl = loader(k)
            for epoch in range(2):
                got = []
                for batch in dl: got.append(batch); draw()           # the consumer draws too, as dropout does
                assert same(got, alone[epoch]), (k, epoch, options)
    if kind == 'random':                                             # no noise comes twice
        noise = torch.cat([torch.cat(list(b[2:4])) for epoch in alone for b in epoch])
        assert len(noise.unique()) == len(noise) == 2*2*67


@forks
@pytest.mark.parametrize('kind', items)
def test_all_kinds_of_items_pass_through_workers(kind):
    alone, two = (list(Forked(items[kind], 5, shuffle=True, generator=g(), num_workers=k)) for k in (0, 2))
    assert same(alone, two)


@forks
def test_options_with_workers():
    for options in {'sampler': [5, 5, 2, 0, 63]}, {'batch_sampler': [[1], [2, 3], [0, 0, 0]]}, {'collate_fn': lambda b: [y.item() for _, y in b]}, \
                   {'batch_sampler': [[3, 2]]}, {'batch_sampler': BatchSampler(range(9), 4)}:
        alone, two = (list(Forked(pairs(), num_workers=k, **options)) for k in (0, 2))
        assert same(alone, two) and len(two) == len(Forked(pairs(), num_workers=2, **options))


@forks
def test_workers_are_other_processes_in_turn():
    it = iter(Forked(Usual(range(4), range(4)), 2, num_workers=20, collate_fn=lambda b: sleep() if b[0][0] else b))
    next(it)
    assert len(active_children()) <= 2                               # no more than there are batches
    it.close()
    pids = [pid for pid, in Forked(Usual(range(6), range(6)), num_workers=3, collate_fn=lambda b: [os.getpid()])]
    assert len(set(pids)) == 3 and os.getpid() not in pids and pids[:3] == pids[3:]


# ---- what a batch may hold

ends = [torch.rand(3).bfloat16(), torch.rand(2, 3).half(), torch.rand(4) > .5, torch.zeros(0),
        torch.zeros(3, 0, 2), torch.tensor(3), torch.tensor(math.pi).double(),
        torch.rand(2, dtype=torch.complex64).conj(), torch.arange(5).to(torch.uint8),
        torch.rand(5, 4).T, torch.rand(3, 1).expand(3, 5), torch.rand(9)[::2],
        torch.rand(3, requires_grad=True),
        Point(torch.rand(2), {'a': [torch.rand(1), {'b': ('text', None, 2.5)}]}),
        {'z': 1, 'a': torch.rand(2)}, [], (), None, np.arange(3.),
        torch.rand(3).to_sparse().to_dense(), b'bytes', {1, 2}, torch.rand(3).to(torch.float64)]


@forks
def test_anything_passes_through_a_worker():
    got = list(Forked(list(range(len(ends))), collate_fn=lambda b: ends[b[0]], num_workers=2))
    for a, b in zip(got, ends, strict=True): assert same(a, b), b
    for t in got:
        if isinstance(t, torch.Tensor):
            assert t.is_leaf and t.requires_grad == (t is got[12])
            t.detach().zero_()
            if t.dtype != torch.bfloat16: assert t.detach().numpy().flags.writeable
    layer, = Forked([0], collate_fn=lambda b: torch.nn.Linear(2, 3), num_workers=1)
    assert isinstance(layer.weight, torch.nn.Parameter) and layer.weight.requires_grad
    coo, = Forked([0], collate_fn=lambda b: torch.eye(3).to_sparse(), num_workers=1)
    assert coo.layout == torch.sparse_coo and torch.equal(coo.to_dense(), torch.eye(3))


@pytest.mark.filterwarnings('ignore:ComplexHalf support')
@forks
def test_the_rare_types_pass_through_a_worker():
    rare = [torch.zeros(4).to(torch.float8_e4m3fn), torch.ones(2, dtype=torch.complex64).to(torch.complex32)]
    got = list(Forked([0, 1], collate_fn=lambda b: rare[b[0]], num_workers=1))
    assert [t.dtype for t in got] == [t.dtype for t in rare]


def test_a_view_is_sent_without_the_rest():
    big = torch.zeros(1000, 1000)
    for t in big[:2], big[:, :2], big[3:5, 7:9], big.bool()[:2], big.half()[:2], big.T[:2]:
        assert len(fitting._packed(t)) < t.numel()*t.element_size() + 1000
        assert same(pickle.loads(fitting._packed(t)), t)
    shared = [big[0], big[0]]
    assert len(fitting._packed([shared[0]]*5)) < 2*4000              # one object is written once


@forks
def test_large_batches_come_through():
    "Larger than any pipe's buffer, and more of them than workers; the worker waits, and is not waited for"
    ds = Dataset(torch.arange(200_000).repeat(40, 1).T.contiguous(), torch.arange(200_000))      # 64 MB
    dl = Forked(ds, 50_000, shuffle=True, generator=g(), num_workers=3)
    for epoch in range(2):
        seen = [yb for xb, yb in dl if torch.equal(xb, yb[:, None].expand(-1, 40))]
        assert len(seen) == 4 and torch.equal(torch.cat(seen).sort()[0], ds.y)
    begun = time.monotonic()
    for xb, yb in dl: break                                          # workers blocked in sending are stopped
    assert time.monotonic() - begun < 10


@forks
def test_a_worker_runs_ahead_but_not_far(tmp_path):
    "The pipe's buffer is all that it may fill"
    log = tmp_path/'log'
    class Logs(Usual):
        def __getitem__(self, i):
            with log.open('a') as f: f.write('x')
            return torch.zeros(300_000), i
    it = iter(Forked(Logs(range(50), range(50)), 1, num_workers=2))
    next(it)
    time.sleep(.5)
    assert 1 < len(log.read_text()) < 8
    it.close()


# ---- workers that raise, die or hang

class Secret(Exception):
    "Can't be pickled"
    def __init__(self): super().__init__('no key'); self.lock = threading.Lock()

class Mute(Exception):
    def __repr__(self): raise ValueError('no words')
    __str__ = __repr__


def sleep(): time.sleep(1000)

def deaf():
    for s in signal.SIGTERM, signal.SIGINT: signal.signal(s, signal.SIG_IGN)
    while True: time.sleep(1000)

def no_file(): open('/no/such/file')

def raise_(e): raise e

faults = {
    'error': (lambda: raise_(ValueError('item 20 is no picture')),
              r"could not make batch 2: ValueError\('item 20 is no picture'\)\n\nIn the worker:\nTraceback"),
    'no file': (no_file, r"could not make batch 2: FileNotFoundError\(2, 'No such file or directory'\)"),
    'broken pipe': (lambda: raise_(BrokenPipeError('mine')), r"could not make batch 2: BrokenPipeError\('mine'\)"),
    'end of file': (lambda: raise_(EOFError('mine')), r"could not make batch 2: EOFError\('mine'\)"),
    'unpicklable error': (lambda: raise_(Secret()), r"could not make batch 2: Secret\('no key'\)"),
    'end of iteration': (lambda: raise_(StopIteration()), 'could not make batch 2: StopIteration'),
    'recursion': (lambda: (f := lambda: f())(), 'could not make batch 2: RecursionError'),
    'error without words': (lambda: raise_(Mute()), 'died before batch 2 came: exit code 1'),
    'SystemExit': (lambda: sys.exit(4), 'died before batch 2 came: exit code 4'),
    'exit': (lambda: os._exit(3), 'died before batch 2 came: exit code 3$'),
    'exit without error': (lambda: os._exit(0), 'died before batch 2 came: exit code 0$'),
    'interrupt': (lambda: raise_(KeyboardInterrupt()), 'died before batch 2 came: exit code 1'),
    'killed': (lambda: os.kill(os.getpid(), signal.SIGKILL),
               'died before batch 2 came: killed by SIGKILL, as the system does when memory runs out$'),
    'terminated': (lambda: os.kill(os.getpid(), signal.SIGTERM), 'died before batch 2 came: killed by SIGTERM$'),
    'hangs': (sleep, r'sent no batch 2 within 1 seconds, so it was stopped; pass a larger timeout, or num_workers=0 to see where it hangs$'),
    'hangs, and ignores signals': (deaf, 'sent no batch 2 within 1 seconds'),
}


class Goes(Dataset):
    "Calls `wrong` at item 20"
    wrong = staticmethod(lambda: None)
    def __getitem__(self, i):
        if i == 20: self.wrong()
        return super().__getitem__(i)


@forks
@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize('fault', faults)
def test_a_worker_that_goes_wrong(fault, workers, capfd):
    wrong, says = faults[fault]
    ds = Goes(*pairs()[:])
    dl, good = Forked(ds, 8, num_workers=workers, timeout=1), list(Forked(pairs(), 8))
    ds.wrong, got, begun = wrong, [], time.monotonic()
    with pytest.raises(RuntimeError, match=f'^DataLoader: worker {2 % workers} {says}'):
        for batch in dl: got.append(batch)
    assert time.monotonic() - begun < 4 and not active_children()
    assert same(got, good[:2], strict=False)                         # all that came before was handed out
    ds.wrong = lambda: None
    assert same(list(dl), good, strict=False)                        # and it works again


@forks
@pytest.mark.parametrize('collate_fn, says', [
    (lambda b: 1/0, r"could not make batch 0: ZeroDivisionError\('division by zero'\)"),
    (lambda b: threading.Lock(), "could not send batch 0: TypeError.*; let collate_fn return only what pickle can write\n"),
    (lambda b: lambda: 1, "could not send batch 0: .*; let collate_fn return only what pickle can write\n")])
def test_a_collate_fn_that_goes_wrong(collate_fn, says):
    with pytest.raises(RuntimeError, match=f'^DataLoader: worker 0 {says}'): list(Forked(pairs(), 8, collate_fn=collate_fn, num_workers=2))
    with pytest.raises(RuntimeError,
                       match="worker 0 could not make batch 0: RuntimeError.*stack expects each tensor to be equal size"):
        list(Forked([torch.zeros(1), torch.zeros(2)], 2, num_workers=2))


@forks
def test_killed_half_way_through_a_batch():
    "The first half of the batch is in the pipe already"
    class Large(Usual):
        def __getitem__(self, i):
            if i: threading.Timer(.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return torch.zeros(3_000_000), i
    it = iter(Forked(Large(range(3), range(3)), num_workers=1))
    next(it)
    time.sleep(.8)
    with pytest.raises(RuntimeError, match='worker 0 died before batch 1 came: killed by SIGKILL'): next(it)


@forks
def test_batches_of_a_worker_that_ended_are_not_lost():
    "All that it sent is read, though it is long gone"
    it = iter(Forked(pairs(), 16, num_workers=1))
    got = [next(it)]
    gone(active_children)
    time.sleep(.1)
    assert same(got + list(it), list(Forked(pairs(), 16)))


@forks
def test_the_timeout_is_for_each_batch():
    class Slow(Usual):
        def __getitem__(self, i): time.sleep(.2); return i
    dl = Forked(Slow(range(5), range(5)), num_workers=1, timeout=.7)
    assert [b.item() for b in dl] == list(range(5))                  # a second in all
    dl.timeout = .1
    with pytest.raises(RuntimeError, match='sent no batch 0 within 0.1 seconds'): list(dl)
    dl.timeout = 0                                                   # waits for ever
    assert len(list(dl)) == 5


@forks
def test_a_batch_that_cannot_be_read_is_not_called_a_death():
    with pytest.raises(Exception) as e: list(Forked(pairs(), 8, collate_fn=lambda b: Unreadable(), num_workers=1))
    assert 'died' not in str(e.value) and 'no way back' in str(e.value)

class Unreadable:
    "Can be pickled, but not read again"
    def __reduce__(self): return no_way_back, ()

def no_way_back(): raise FileNotFoundError('no way back')


# ---- the consumer breaks off

def broken_off(dl):
    for k, _ in enumerate(dl):
        if k == 1: break

def failed(dl):
    with pytest.raises(ZeroDivisionError):
        for _ in dl: 1/0

def dropped(dl):
    it = iter(dl)
    next(it)
    assert active_children()                                         # at least the deaf one is there meanwhile
    del it

def closed(dl):
    it = iter(dl)
    next(it)
    it.close()
    assert not active_children() and not list(it)

def never_begun(dl): iter(dl)

def thrown(dl):
    it = iter(dl)
    next(it)
    with pytest.raises(KeyboardInterrupt): it.throw(KeyboardInterrupt)

def in_zip(dl):
    for _ in zip(dl, range(2)): pass

def islice(dl): next(iter(dl))


@forks
@pytest.mark.parametrize('how', [broken_off, failed, dropped, closed, never_begun, thrown, in_zip, islice])
def test_half_way(how):
    ds = Goes(*pairs()[:])
    ds.wrong = deaf                                                  # one worker hangs by then
    before = children()
    how(Forked(ds, 4, num_workers=2))
    assert not active_children() and children() == before            # at once


@forks
@linux
def test_fifty_opened_and_abandoned():
    def descriptors(): return sorted(os.listdir('/proc/self/fd'))
    dl = Forked(pairs(), 4, num_workers=2)
    next(iter(dl))
    gc.collect()                                                     # what earlier tests left
    before, kids = descriptors(), children()
    for k in range(50):
        dl = Forked(pairs(), 4, num_workers=2)
        if k % 2: next(iter(dl))
        else:
            for _ in dl: break
    assert descriptors() == before and children() == kids and not active_children()
    ds = Goes(*pairs()[:])
    ds.wrong = sleep
    its = [iter(Forked(ds, 4, num_workers=2)) for _ in range(10)]
    for it in its: next(it)
    assert len(children() - kids) >= 10                              # those that hang, at least
    del it, its
    assert descriptors() == before and children() == kids


@forks
@linux
def test_a_worker_that_failed_leaves_no_descriptor():
    ds = Goes(*pairs()[:])
    ds.wrong = lambda: os._exit(3)
    gc.collect()
    for k in range(6):
        with contextlib.suppress(RuntimeError): list(Forked(ds, 8, num_workers=2))
        if not k: before = sorted(os.listdir('/proc/self/fd'))
    assert sorted(os.listdir('/proc/self/fd')) == before


@forks
def test_two_loaders_at_once():
    a, b = (Forked(Noisy(*pairs()[:]), 8, shuffle=True, generator=g(k), num_workers=2) for k in (1, 2))
    expected = [list(Forked(Noisy(*pairs()[:]), 8, shuffle=True, generator=g(k))) for k in (1, 2)]
    got = list(zip(a, b))
    assert same([p for p, _ in got], expected[0]) and same([q for _, q in got], expected[1])
    inner = [[yb.tolist() for _, yb in Forked(pairs(8), 4, num_workers=2)] for _ in Forked(pairs(8), 4, num_workers=2)]
    assert inner == [[[0, 1, 2, 3], [4, 5, 6, 7]]]*2
    one = Forked(pairs(), 8, num_workers=2)
    assert all(same(p, q) for p, q in zip(one, one))                 # one loader, looped over twice at a time


@forks
def test_a_loader_in_a_thread():
    expected, got = list(Forked(pairs(), 8)), {}
    def loop(k):
        try: got[k] = list(Forked(pairs(), 8, num_workers=2)), None
        except BaseException as e: got[k] = [], e
    threads = [threading.Thread(target=loop, args=(k,)) for k in range(4)]
    for t in threads: t.start()
    for t in threads: t.join(30)
    assert all(same(got[k][0], expected) for k in range(4)), got


# ---- in programs of their own

def session(pid):
    "Its living processes"
    return [(p, *rest) for p, (_, s, *rest) in processes().items() if s == pid and 'Z' not in rest]


def run(folder, text, *, seconds=30, args=None, signal_at=None, left=5):
    """Run the program in a session of its own: (exit code, stdout, stderr). With `signal_at`, send SIGINT to all of the session's processes
    when it prints that word. It must end in `seconds`, and its processes all be gone `left` seconds later."""
    (folder/'program.py').write_text(text, encoding='utf-8')
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(folder), str(Path(fitting.__file__).parent.parent)]),
           'OMP_NUM_THREADS': '1', 'PYTHONUNBUFFERED': '1'}
    with (folder/'err').open('w+') as err:
        p = subprocess.Popen([sys.executable, *(args or ['program.py'])], cwd=folder, env=env,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err,
                             text=True, start_new_session=True)
        try:
            out = ''
            if signal_at:
                while signal_at not in out:
                    line = p.stdout.readline()
                    assert line, f'it ended without {signal_at!r}: {(folder/"err").read_text()}'
                    out += line
                time.sleep(.3)
                os.killpg(p.pid, signal.SIGINT)
            try: out += p.communicate(timeout=seconds)[0]
            except subprocess.TimeoutExpired: raise AssertionError(f'not over after {seconds} seconds: {session(p.pid)}\n{(folder/"err").read_text()}') from None
            assert not gone(lambda: session(p.pid), left)
        finally:
            with contextlib.suppress(ProcessLookupError): os.killpg(p.pid, signal.SIGKILL)
            p.wait()
            p.stdout.close()
    return p.returncode, out, (folder/'err').read_text(encoding='utf-8')


MODULE = '''
from multiprocessing import active_children
import os, random, signal, sys, time
import numpy as np, torch
from backprop13.fitting import DataLoader, Dataset

class Noisy(Dataset):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + torch.randn(x.shape), y, random.random(), np.random.normal()

class Hangs(Dataset):
    def __getitem__(self, i):
        while i > 3: time.sleep(1000)
        return super().__getitem__(i)

def pairs(kind=Dataset, n=64, width=3): return kind(torch.arange(1.*n*width).reshape(n, width), torch.arange(n))

def descriptors(): return len(os.listdir('/proc/self/fd'))
'''


@pytest.fixture
def module(tmp_path):
    "A folder with a module of datasets, which new processes can import"
    (tmp_path/'own.py').write_text(MODULE, encoding='utf-8')
    return tmp_path


def methods(*names): return pytest.mark.parametrize('method', [m for m in names if m in get_all_start_methods()])


UNSENT = (r'DataLoader: the dataset, collate_fn or sampler cannot be sent to a worker \(.*\); a new process finds no lambda, '
          r'and nothing defined in a function or a notebook: define it in a module, or take num_workers=0\n')


@linux
@methods('spawn', 'forkserver')
def test_new_processes_give_the_same(module, method):
    "Also a job that is larger than a pipe: a list of 200 000 numbers"
    code, out, err = run(module, f'''
from own import *
def loader(k, **options):
    return DataLoader(pairs(Noisy), 12, shuffle=True, generator=torch.Generator().manual_seed(13), num_workers=k, multiprocessing_context={method!r}, **options)
def same(a, b): return len(a) == len(b) and all(torch.equal(torch.as_tensor(u), torch.as_tensor(v)) for p, q in zip(a, b) for u, v in zip(p, q))
if __name__ == '__main__':
    alone = [list(dl) for dl in [loader(0)] for epoch in range(2)]
    dl = loader(2 if {method!r} == 'spawn' else 1)
    for epoch in range(2): assert same(list(dl), alone[epoch])
    large = DataLoader(pairs(n=200_000), 100_000, num_workers=1, multiprocessing_context={method!r})
    assert torch.equal(torch.cat([y for x, y in large]), torch.arange(200_000))
    assert not active_children()
    try: list(loader(1, collate_fn=lambda batch: batch))
    except TypeError as e: print(e)
''')
    assert (code, err) == (0, '')
    assert re.fullmatch(UNSENT, out), out


@linux
def test_a_program_without_its_main_guard(module):
    "The worker ends before it has read its job, which is larger than a pipe"
    code, out, err = run(module, '''
from own import *
print('begun')
list(DataLoader(Dataset(list(range(500_000)), list(range(500_000))), 8000, num_workers=1, multiprocessing_context='spawn', timeout=20))
''')
    assert code == 1 and out == 'begun\n'*2                          # the program's own, and its worker's
    assert re.search(r"^RuntimeError: DataLoader: worker 0 died before batch 0 came: exit code 1; .* must do so under if __name__ == '__main__':$", err, re.M), err


@linux
@methods('spawn', 'forkserver')
def test_what_a_new_process_cannot_find(module, method):
    "As in a notebook, whose __main__ is no file: one sentence, whatever it is and whichever end finds out"
    code, out, err = run(module, '', args=['-c', f'''
from own import *
class Mine(Dataset): pass
class Number(int): pass
def collate(batch): return batch
def local():
    class Local(Dataset): pass
    return Local
for ds, options in ((pairs(Mine), {{}}), (pairs(local()), {{}}), (pairs(), dict(collate_fn=collate)), (pairs(), dict(collate_fn=lambda batch: batch)),
                    (pairs(), dict(batch_sampler=[[Number(1)]]))):
    try: list(DataLoader(ds, num_workers=1, multiprocessing_context={method!r}, timeout=20, **options))
    except TypeError as e: print(e)
'''])
    lines = out.splitlines(True)
    assert (code, len(lines)) == (0, 5) and all(re.fullmatch(UNSENT, line) for line in lines), (out, err)


@linux
def test_threads_start_their_workers_one_at_a_time(module):
    "Two forks at once give each worker the other's pipe; some libraries refuse the second"
    code, out, err = run(module, '''
from own import *
import threading
inside, most = [], []
def before(): inside.append(1); most.append(len(inside)); time.sleep(.1)
os.register_at_fork(before=before, after_in_parent=inside.pop)
def loop(): list(DataLoader(pairs(), 8, num_workers=2, multiprocessing_context='fork'))
threads = [threading.Thread(target=loop) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(max(most), len(most))
''')
    assert (code, out) == (0, '1 8\n'), (out, err)


@linux
def test_spawned_and_abandoned_leaves_no_descriptor(module):
    code, out, err = run(module, '''
from own import *
if __name__ == '__main__':
    ds, counts = pairs(), []
    for k in range(3):
        for _ in DataLoader(ds, 8, num_workers=1, multiprocessing_context='spawn'): break
        counts.append(descriptors())
    print(counts[-1] - counts[0], ds.x.is_shared())
''')
    assert (code, err, out) == (0, '', '0 False\n')


@linux
def test_a_job_that_cannot_be_sent_leaves_no_process(module):
    code, out, err = run(module, '''
from own import *
if __name__ == '__main__':
    try: list(DataLoader(pairs(), 8, num_workers=1, multiprocessing_context='spawn', collate_fn=lambda b: b))
    except TypeError: pass
    time.sleep(.5)
    children = [open(f'/proc/{p}/stat').read().rpartition(')')[2].split()[:2] for p in os.listdir('/proc') if p.isdigit()]
    print([state for state, parent in children if int(parent) == os.getpid()])
''')
    assert (code, err, out) == (0, '', '[]\n')


LEAVES = '''
from own import *
BEFORE
if __name__ == '__main__':
    it = iter(DataLoader(pairs(KIND, WIDE), 1, num_workers=WORKERS, multiprocessing_context='METHOD'))
    next(it)
    AFTER
'''

def leaves(method='fork', kind='Hangs', wide='', before='', after=''):
    return LEAVES.replace('METHOD', method).replace('WORKERS', '2' if method == 'fork' else '1').replace('KIND', kind).replace('WIDE', wide).replace('BEFORE', before).replace('AFTER', after)


@linux
@methods('fork')
def test_the_interpreter_exits_with_a_loader_open(module, method):
    assert run(module, leaves(method), seconds=12, left=1) == (0, '', '')


@linux
@pytest.mark.parametrize('after', ['raise SystemExit(7)', '1/0'])
def test_the_program_ends_otherwise_with_a_loader_open(module, after):
    code, out, err = run(module, leaves(after=after), seconds=12, left=1)
    assert code == (7 if 'Exit' in after else 1) and err.count('Traceback') == ('1/0' in after)


@linux
def test_the_interpreter_exits_though_its_program_handles_sigterm(module):
    "As programs do that want to save their weights first; the workers must not inherit that"
    assert run(module, leaves(before='signal.signal(signal.SIGTERM, lambda *_: None)'), seconds=12,
               left=1) == (0, '', '')


@linux
@pytest.mark.parametrize('method, kind', [('fork', 'Hangs'), ('fork', 'Dataset'), ('spawn', 'Hangs')])
def test_the_consumer_is_killed(module, method, kind):
    "Its workers end by themselves, whether they hang or wait to send a large batch"
    assert run(module, leaves(method, kind, 'width=100_000' if kind == 'Dataset' else '',
                              after='time.sleep(.5); os.kill(os.getpid(), signal.SIGKILL)'))[0] == -9


@linux
@methods('fork')
def test_ctrl_c(module, method):
    "It goes to the workers too, which leave it to the one who loops"
    code, out, err = run(module, leaves(method, after='print("ready"); list(it)'), signal_at='ready', seconds=10)
    assert code == -signal.SIGINT and err.count('Traceback') == 1 and err.rstrip().endswith('KeyboardInterrupt') and 'Process-' not in err, err


@linux
@methods('fork', 'spawn')
def test_ctrl_c_that_is_caught(module, method):
    code, out, err = run(module, leaves(method, 'Dataset', 'n=2000', after='''print('ready')
    try:
        for _ in it: time.sleep(.01)
    except KeyboardInterrupt: print('caught')
    print(sum(1 for _ in DataLoader(pairs(), 8, num_workers=2, multiprocessing_context='fork')))'''), signal_at='ready', seconds=10)
    assert (code, out, err) == (0, 'ready\ncaught\n8\n', '')


@linux
def test_ctrl_c_while_workers_start(module):
    "A new process takes a second to import PyTorch; Ctrl-C is not for it then, either"
    (module/'slow.py').write_text('import multiprocessing, time\nif multiprocessing.parent_process(): time.sleep(2)\nfrom own import *', encoding='utf-8')
    code, out, err = run(module, '''
from slow import *
import threading
def press():
    while not active_children(): time.sleep(.01)
    time.sleep(1)
    for p in active_children(): os.kill(p.pid, signal.SIGINT)
if __name__ == '__main__':
    threading.Thread(target=press).start()
    print(len(list(DataLoader(pairs(), 8, num_workers=1, multiprocessing_context='spawn'))))
''')
    assert (code, out, err) == (0, '8\n', '')


# ---- bad input

class NoLength:
    def __getitem__(self, i): return i

class Stream(pytorch.IterableDataset):
    def __iter__(self): return iter(range(3))


ds = pairs()
refused = [
    (lambda: DataLoader(pairs(0)), ValueError, 'Sampler: the dataset is empty; pass at least one item'),
    (lambda: DataLoader([], 4), ValueError, 'Sampler: the dataset is empty; pass at least one item'),
    *((lambda bs=bs: DataLoader(ds, bs), ValueError,
       f'BatchSampler: the batch size is {bs!r}, wanted a whole number from 1 to 64, the number of items')
      for bs in (0, -1, 65, 4., 4.5, True, False, None, '4', math.nan)),
    (lambda: BatchSampler(range(3), 4), ValueError,
     'BatchSampler: the batch size is 4, wanted a whole number from 1 to 3, the number of items'),
    (lambda: DataLoader(ds, 4, sampler=[1, 2]), ValueError,
     'BatchSampler: the batch size is 4, wanted a whole number from 1 to 2'),
    (lambda: DataLoader(NoLength()), TypeError,
     'DataLoader: NoLength has no length, or no items by number; pass one with __len__ and __getitem__'),
    (lambda: DataLoader(Stream()), TypeError, 'DataLoader: Stream has no length, or no items by number'),
    (lambda: DataLoader({1, 2}), TypeError, 'DataLoader: set has no length, or no items by number'),
    (lambda: DataLoader(None), TypeError, 'DataLoader: NoneType has no length, or no items by number'),
    (lambda: DataLoader(ds, 4, True, sampler=range(9)), ValueError, 'DataLoader: got shuffle and a sampler; pass one'),
    *((lambda o=o: DataLoader(ds, batch_sampler=[[0]], **o), ValueError,
       'DataLoader: got a batch_sampler, which says all that batch_size, shuffle, sampler and drop_last would')
      for o in ({'batch_size': 2}, {'shuffle': True}, {'sampler': [0]}, {'drop_last': True})),
    *((lambda k=k: DataLoader(ds, num_workers=k), ValueError, f'DataLoader: num_workers is {k!r}, wanted 0, 1, 2, ...') for k in (-1, 1.5, None, '2')),
    *((lambda s=s: DataLoader(ds, timeout=s), ValueError, f'DataLoader: timeout is {s!r}, wanted seconds, 0 to a million') for s in (-1, -.5, math.nan)),
    (lambda: DataLoader(ds, 4, False, None), TypeError, 'positional'),
    (lambda: DataLoader(ds, batchsize=4), TypeError, 'batchsize'),
    (lambda: get_dls(ds, ds, 65), ValueError, 'BatchSampler: the batch size is 65, wanted a whole number from 1 to 64'),
    (lambda: get_dls(ds, ds, 0), ValueError, 'BatchSampler: the batch size is 0'),
    (lambda: get_dls(ds, pairs(0), 4), ValueError, 'Sampler: the dataset is empty'),
    (lambda: get_dls(pairs(0), ds, 4), ValueError, 'Sampler: the dataset is empty'),
    (lambda: get_dls(ds, ds, 4, shuffle=True), TypeError, "multiple values for keyword argument 'shuffle'"),
    (lambda: get_dls(ds, ds, 4, wokers=2), TypeError, 'wokers'),
]


@pytest.mark.parametrize('call, error, says', refused)
def test_refused(call, error, says):
    with pytest.raises(error, match=re.escape(says)): call()


@pytest.mark.parametrize('timeout', [math.inf, 1e12])
@forks
def test_a_very_long_timeout(timeout):
    "Refused with a sentence, or taken"
    try: dl = Forked(ds, 8, num_workers=1, timeout=timeout)
    except ValueError as e: assert 'DataLoader: timeout is' in str(e)
    else: assert len(list(dl)) == 8


def test_no_batches_are_no_batches():
    "An empty batch_sampler or sampler is not the same as none"
    assert list(DataLoader(ds, batch_sampler=[])) == []
    with pytest.raises(ValueError): DataLoader(ds, sampler=[])


def test_a_tensor_as_sampler():
    assert [yb.tolist() for _, yb in DataLoader(ds, 2, sampler=torch.tensor([5, 3, 1]))] == [[5, 3], [1]]


@forks
def test_a_dataset_without_length_with_batches_given():
    for k in 0, 2: assert [b.tolist()
                           for b in Forked(NoLength(), batch_sampler=[[3, 1], [2]], num_workers=k)] == [[3, 1], [2]]


@forks
def test_a_number_out_of_range():
    for dataset in ds, Usual(*ds[:]):
        with pytest.raises(IndexError, match='index 64 is out of bounds for dimension 0 with size 64'): list(DataLoader(dataset, batch_sampler=[[0], [64]]))
        with pytest.raises(RuntimeError,
                           match=r"worker 1 could not make batch 1: IndexError\('index 64 is out of bounds for dimension 0 with size 64'\)"):
            list(Forked(dataset, batch_sampler=[[0], [64]], num_workers=2))


# ---- get_dls

def test_get_dls():
    train, valid = pairs(100), pairs(50)
    for bs in 1, 8, 20, 25, 40, 100:
        a, b = get_dls(train, valid, bs, generator=g())
        assert type(a) is type(b) is DataLoader and a.dataset is train and b.dataset is valid
        assert same(list(a), list(pytorch.DataLoader(train, bs, shuffle=True, generator=g())), strict=False)
        assert same(list(b), list(pytorch.DataLoader(valid, min(2*bs, 50))), strict=False)
        assert len(a) == -(-100//bs) and len(b) == -(-50//min(2*bs, 50))
    torch.manual_seed(3)
    first, _ = get_dls(train, valid, 100)
    torch.manual_seed(3)
    again, _ = get_dls(train, valid, 100)
    (_, y1), (_, y2), (_, y3) = *first, *again, *first
    assert torch.equal(y1, y2) and not torch.equal(y1, y3) and not torch.equal(y1, train.y)


@forks
def test_get_dls_passes_its_options_on():
    train, valid = Noisy(*pairs(100)[:]), pairs(50)
    alone, two = (get_dls(train, valid, 8, num_workers=k, generator=g(),
                          multiprocessing_context='fork', timeout=20) for k in (0, 2))
    for a, b in zip(alone, two): assert same(list(a), list(b)) and b.num_workers == 2 and b.timeout == 20
    a, b = get_dls(train, valid, 8, collate_fn=len, drop_last=True)
    assert set(a) == {8} and list(b) == [16]*3 and len(a) == 12


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.parametrize('options',
                         [{'pin_memory': True}, {'worker_init_fn': None},
                          {'num_workers': 1, 'persistent_workers': True}, {'num_workers': 1, 'prefetch_factor': 2}])
def test_get_dls_falls_back_to_pytorchs(options):
    a, b = get_dls(pairs(100), pairs(50), 40, generator=g(), **options)
    assert type(a) is type(b) is pytorch.DataLoader and a.batch_size == 40 and b.batch_size == 50
    assert sorted(torch.cat([y for _, y in a]).tolist()) == list(range(100))
    assert [y.tolist() for _, y in b] == [list(range(50))]
    if 'persistent_workers' in options: del a, b
