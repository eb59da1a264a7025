"""The data loader: equal to PyTorch's for every kind of item, the same with workers, and nothing left behind. Workers
that fail are PyTorch's matter; how it draws and batches stands on its cards."""
import collections, contextlib, itertools, os, random, re, subprocess, sys, time
from multiprocessing import active_children, get_all_start_methods
from pathlib import Path

import numpy as np, pytest, torch
from torch.utils import data as pytorch

from backprop13 import fitting
from backprop13.fitting import BatchSampler, DataLoader, Dataset, Sampler, make_batch

forks = pytest.mark.skipif('fork' not in get_all_start_methods(), reason='this system cannot fork')
pytestmark = pytest.mark.filterwarnings('ignore:This DataLoader will create')          # more workers than cores


def gone(seconds=30):
    "Wait until no worker is left; those that are after that time"
    end = time.monotonic() + seconds
    while (left := active_children()) and time.monotonic() < end: time.sleep(.05)
    return left


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    assert not gone()


# ---- equal, bit by bit

def same(a, b, strict=True):
    "Are both of one type, with the same bits? Not strict: a tuple may stand for a list, which PyTorch's collate makes"
    if not strict and {type(a), type(b)} == {tuple, list}: a, b = list(a), list(b)
    if type(a) is not type(b): return False
    if isinstance(a, torch.Tensor):
        return (a.dtype, a.shape, a.requires_grad) == (b.dtype, b.shape, b.requires_grad) and torch.equal(a, b)
    if isinstance(a, np.ndarray): return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict): return list(a) == list(b) and all(same(a[k], b[k], strict) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b, [strict]*len(a)))
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
    'arrays': Dataset(np.arange(69, dtype=np.float32).reshape(23, 3), list(range(23))),
    'strings': [f'item {k}' for k in range(23)],
    'dicts': [{'x': torch.full((2, 2), k), 'more': {'y': k/2},
               'z': (k, f'{k}', np.full(3, k), np.float32(k))} for k in range(23)],
    'named tuples': [Point(k, torch.tensor(k/2)) for k in range(23)],
}


def test_a_sampler_once_made_has_a_generator_of_its_own():
    sampler = Sampler(pairs(100), shuffle=True)
    torch.manual_seed(1)
    one = list(sampler)
    torch.manual_seed(1)
    assert list(sampler) != one


@pytest.mark.parametrize('kind', items)
def test_equal_to_pytorch(kind):
    ds = items[kind]
    def check(*args, **kwargs):
        ours, theirs = (L(ds, *args, **kwargs, generator=g()) for L in (DataLoader, pytorch.DataLoader))
        assert same(list(ours), list(theirs), strict=False) and len(ours) == len(theirs)
    for bs in 1, 2, 7, 22, 23:
        for shuffle in False, True:
            for drop_last in False, True: check(bs, shuffle, drop_last=drop_last)
    check(4, collate_fn=lambda batch: (len(batch), repr(batch[0])))
    check(4, sampler=[3, 1, 4, 1, 5, 9, 2, 6], drop_last=True)
    check(batch_sampler=BatchSampler(range(23), 9, drop_last=True))


def test_the_short_cut_gives_what_collate_gives():
    "A plain dataset is looked up once for a batch; as one whose items are collated"
    for x in (torch.rand(30, 2, 3), torch.rand(30, 0), torch.rand(30, 4).bool(), torch.rand(4, 30).T,
              torch.rand(1, 2).expand(30, 2)):
        plain = make_batch(Dataset(x, x), None, [3, 1, 29], 0)
        assert same(plain, make_batch(Usual(x, x), None, [3, 1, 29], 0), strict=False)
        plain[0].zero_()
        # a copy: to change a batch doesn't change the data
        assert not x.numel() or x[3].any() or x[1].any()


# ---- random numbers

def states(): return random.getstate(), np.random.get_state(), torch.get_rng_state()

def equal_states(a, b):
    return a[0] == b[0] and all(map(np.array_equal, a[1], b[1])) and torch.equal(a[2], b[2])

def draw(): return random.random(), np.random.rand(), torch.rand(()).item()

@forks
@pytest.mark.parametrize('workers', [0, 2])
def test_the_consumers_random_numbers_stay(workers):
    "All but NumPy's spare normal number, where one is left"
    random.seed(5); np.random.seed(6); torch.manual_seed(7)
    dl = Forked(Noisy(*pairs()[:]), 8, shuffle=True, num_workers=workers)
    before = states()
    for _ in dl: assert equal_states(states(), before)
    assert equal_states(states(), before)


# ---- workers

def Forked(*args, **kwargs): return DataLoader(*args, **kwargs, multiprocessing_context='fork')


@forks
@pytest.mark.parametrize('kind', ['plain', 'random'])
def test_any_number_of_workers_gives_the_same(kind):
    ds = (Noisy if kind == 'random' else Dataset)(*pairs(67)[:])
    for options in {}, {'drop_last': True}, {'shuffle': True}:
        def loader(k): return Forked(ds, 8, generator=g(), num_workers=k, **options)
        alone = [list(dl) for dl in [loader(0)] for epoch in range(2)]
        assert same(*alone) == (kind == 'plain' and 'shuffle' not in options)
        for k in 1, 2, 5:
            dl = loader(k)
            for epoch in range(2):
                got = []
                for batch in dl: got.append(batch); draw()           # the consumer draws too, as dropout does
                assert same(got, alone[epoch]), (k, epoch, options)
    if kind == 'random':                                             # no noise comes twice
        noise = torch.cat([torch.cat(list(b[2:4])) for epoch in alone for b in epoch])
        assert len(noise.unique()) == len(noise) == 2*2*67


@forks
def test_all_kinds_of_items_pass_through_workers():
    for kind, ds in items.items():
        alone, two = (list(Forked(ds, 5, shuffle=True, generator=g(), num_workers=k)) for k in (0, 2))
        assert same(alone, two), kind


@forks
def test_options_with_workers():
    for options in (dict(sampler=[5, 5, 2, 0, 63]), dict(collate_fn=lambda b: [y.item() for _, y in b]),
                    *(dict(batch_sampler=o) for o in ([[1], [2, 3], [0, 0, 0]], BatchSampler(range(9), 4))),
                    dict(timeout=0, batch_size=32)):
        alone, two = (list(Forked(pairs(), num_workers=k, **options)) for k in (0, 2))
        assert same(alone, two) and len(two) == len(Forked(pairs(), num_workers=2, **options))


@forks
def test_a_batch_is_one_look_up_in_another_process():
    "And its order is drawn in this one"
    drawn = []
    class Drawn(Sampler):
        def __iter__(self): drawn.append(os.getpid()); return super().__iter__()
    got = list(Forked(pairs(), 8, sampler=Drawn(pairs(), True),
                      collate_fn=lambda batch: (os.getpid(), len(batch)), num_workers=2))
    assert drawn == [os.getpid()] and len(dict(got)) == 2 and os.getpid() not in dict(got)
    assert {n for _, n in got} == {8}


@forks
@pytest.mark.parametrize('workers', [0, 2])
def test_an_endless_batch_sampler_is_taken_lazily(workers):
    taken = []
    def endless():
        for k in itertools.count(): taken.append(k); yield [0, k % 64]
    dl = Forked(pairs(), batch_sampler=endless(), num_workers=workers)
    assert [yb.tolist() for _, yb in itertools.islice(dl, 5)] == [[0, k] for k in range(5)]
    assert len(taken) < 20


class Goes(Dataset):
    "Calls `wrong` at item 20"
    wrong = staticmethod(lambda: None)
    def __getitem__(self, i):
        if i == 20: self.wrong()
        return super().__getitem__(i)


def raises(): raise ValueError('item 20 is no picture')

@forks
@pytest.mark.parametrize('wrong, seconds, error, says', [
    (raises, 60, ValueError, 'item 20 is no picture'),
    (lambda: next(iter([])), 60, RuntimeError, 'generator raised StopIteration'),
    # a tensor that it sent may not be read yet
    (lambda: os._exit(3), 20, (RuntimeError, OSError, EOFError), None),
    (lambda: time.sleep(1000), 1, RuntimeError, 'DataLoader timed out after 1 seconds')])
def test_a_worker_that_goes_wrong_is_an_error(wrong, seconds, error, says):
    "In PyTorch's words; and then it works again"
    ds, got = Goes(*pairs()[:]), []
    ds.wrong, dl, good = wrong, Forked(ds, 8, num_workers=1, timeout=seconds), list(Forked(pairs(), 8))
    with pytest.raises(error, match=says):
        for batch in dl: got.append(batch)
    assert not gone(), 'the error holds the workers'
    assert same(got, good[:len(got)], strict=False) and len(got) <= 2
    ds.wrong, dl.timeout = lambda: None, 60
    assert same(list(dl), good, strict=False)


@forks
def test_half_way_leaves_no_process():
    for how in range(4):
        it = iter(Forked(pairs(), 4, num_workers=2))
        if how: next(it)
        if how == 1: it.close()
        with contextlib.suppress(KeyboardInterrupt):
            if how == 2: it.throw(KeyboardInterrupt)
        del it
        assert not gone(), how


INTERRUPTED = '''
import os, signal, time, torch
from multiprocessing import active_children, process
from unittest import mock
from backprop13.fitting import DataLoader, Dataset
me, ds = os.getpid(), Dataset(torch.rand(64, 3), torch.arange(64))
dl = DataLoader(ds, 4, num_workers=2, multiprocessing_context='fork')
sent, join = [], process.BaseProcess.join
def ctrl_c(*args, **kw):
    if os.getpid() == me and not sent: sent.append(True); signal.raise_signal(signal.SIGINT)
def heard(f):
    sent.clear()
    try: f(); time.sleep(60)
    except KeyboardInterrupt: print('heard', end=' ')
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, active_children())
def half_way(): next(iter(dl))
with mock.patch.object(process.BaseProcess, 'join', lambda *args, **kw: (ctrl_c(), join(*args, **kw))): heard(half_way)
os.register_at_fork(before=ctrl_c)
heard(lambda: list(dl))
'''

@forks
def test_ctrl_c_is_heard_while_workers_start_and_end():
    "In what Python runs before it forks, and in `__del__`, what is raised is thrown away"
    r = subprocess.run([sys.executable, '-c', INTERRUPTED], capture_output=True, text=True)
    assert r.stdout.splitlines() == ['heard True []']*2, r


MODULE = '''
import random, numpy as np, torch
from backprop13.fitting import DataLoader, Dataset
class Noisy(Dataset):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + torch.randn(x.shape), y, torch.tensor([random.random(), np.random.normal()])
def loader(**kw):
    ds = Noisy(torch.arange(192.).reshape(64, 3), torch.arange(64))
    return DataLoader(ds, 12, True, generator=torch.Generator().manual_seed(13), **kw)
if __name__ == '__main__':
    for method in METHODS:
        for a, b in zip(loader(), loader(num_workers=2, multiprocessing_context=method), strict=True):
            assert all(map(torch.equal, a, b))
    print('the same')
'''

def test_new_processes_give_the_same(tmp_path):
    methods = {*get_all_start_methods()} - {'fork'}
    (tmp_path/'own.py').write_text(MODULE.replace('METHODS', repr([*methods])), encoding='utf-8')
    env = {**os.environ, 'PYTHONPATH': str(Path(fitting.__file__).parent.parent)}
    r = subprocess.run([sys.executable, 'own.py'], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (r.returncode, r.stdout) == (0, 'the same\n'), r.stderr


# ---- bad input

class NoLength:
    def __getitem__(self, i): return i

class Stream(pytorch.IterableDataset):
    def __iter__(self): return iter(range(3))


@pytest.mark.parametrize('call, error, says', [                      # what the cards don't hold
    (lambda: DataLoader(NoLength()), TypeError,
     'NoLength has no length, or no items by number; pass one with __len__ and __getitem__'),
    (lambda: DataLoader(Stream()), TypeError, 'DataLoader: Stream has no length, or no items by number'),
    (lambda: DataLoader(pairs(), timeout=1e12), ValueError,
     'DataLoader: timeout is 1000000000000.0, wanted seconds, 0 to a million')])
def test_refused(call, error, says):
    with pytest.raises(error, match=re.escape(says)): call()


@forks
def test_an_empty_sampler_or_dataset_without_length():
    assert list(DataLoader(pairs(), batch_sampler=[])) == []              # not the same as none
    for k in 0, 2:
        got = Forked(NoLength(), batch_sampler=[[3, 1], [2]], num_workers=k)
        assert [b.tolist() for b in got] == [[3, 1], [2]]
