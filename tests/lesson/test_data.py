"`backprop13.data`: files, the user's folder, digits made by code. What may go wrong on the way: test_data_faults.py."
import gzip, os, random, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest, torch
import torch.nn.functional as F
from torch import nn

from backprop13 import data
from backprop13.data import (DataWarning, SHA256_SYNTHETIC, SyntheticWarning, mnist, mnist_files, read_idx,
                             synthetic_digits, synthetic_files, to_idx)
from conftest import root as ROOT
from helpers import (FILES, IMAGES, IMAGES_TEST, LABELS, LABELS_TEST, REFUSED, SUMS, contents, fill, own_cache,
                     run_two, sha)

@pytest.fixture(scope='session')
def made(): return synthetic_files()

@pytest.fixture
def synthetic_cache(made, tmp_path):
    "A cache that has the synthetic files already"
    cache = tmp_path/'cache'
    fill(cache/'synthetic-1', made)
    return cache

# --- IDX files ---
def test_idx_round_trip(tmp_path):
    for shape in ((5,), (2, 3, 4), (0,), (0, 28, 28)):
        t = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        (tmp_path/'raw').write_bytes(b := to_idx(t))
        (tmp_path/'zipped').write_bytes(gzip.compress(b))
        for src in b, tmp_path/'raw', tmp_path/'zipped':
            got = read_idx(src)
            assert got.dtype == torch.uint8 and got.equal(t)
    (tmp_path/'cut').write_bytes(gzip.compress(b)[:-5])
    with pytest.raises(ValueError, match='cut: damaged gzip file .*; fetch it again'): read_idx(tmp_path/'cut')

def test_only_bytes_are_written():
    for dtype in (torch.int64, torch.float32, torch.int8):
        with pytest.raises(TypeError, match=f'to_idx: got {dtype}, wanted torch.uint8'):
            to_idx(torch.zeros(2, dtype=dtype))

@pytest.mark.parametrize('change, message', [
    (lambda b: b[:-1], 'truncated: got 4703 bytes after the header, wanted 4704 for shape (6, 28, 28)'),
    (lambda b: b[:10], 'truncated: got 10 bytes, its header alone has 16; fetch'),
    (lambda b: b[:2], 'truncated: got 2 bytes, wanted at least 4; fetch'),
    (lambda b: b'', 'truncated: got 0 bytes'),
    (lambda b: b + b'?', 'trailing bytes: got 4705 bytes after the header, wanted 4704'),
    (lambda b: b'PK\3\4' + b[4:],
     'wrong magic number: got 504b0304, wanted 00000803 (images); is this the right file?'),
    (lambda b: FILES[LABELS], 'wrong magic number: got 00000801, wanted 00000803 (images)'),
    (lambda b: b[:4] + b'\xff'*12 + b[16:],
     f'truncated: got 4704 bytes after the header, wanted {(2**32 - 1)**3} for')])
def test_bad_idx(change, message):
    with pytest.raises(ValueError) as e: read_idx(change(FILES[IMAGES]), 'images', 3)
    assert str(e.value).startswith(f'images: {message}') and '\n' not in str(e.value)

# --- A folder of the user's: always an error, never something else instead ---
def test_folder(tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv('BACKPROP13_DATA', str(fill(tmp_path/'d')))
    d = mnist(sums=SUMS)
    assert d.source == 'MNIST' and d.x_train.dtype == torch.float32
    assert d.x_train.equal(read_idx(FILES[IMAGES]).reshape(6, 784).float()/255)
    assert d.y_test.equal(read_idx(FILES[LABELS_TEST]).long())
    assert not (tmp_path/'xdg').exists() and not len(recwarn) # a folder needs no cache

# --- Without a network ---
def test_no_network(synthetic_cache):
    with pytest.warns(SyntheticWarning, match='no mirror sent train-images') as w:
        assert mnist(mirrors=[REFUSED, REFUSED + 'b/'], cache_dir=synthetic_cache).source == 'synthetic'
    assert w[0].filename == __file__ # shown at the caller's line

def test_warning_is_seen(synthetic_cache):
    "With Python's own filters, in a program of its own"
    code = f'from backprop13.data import mnist; mnist(mirrors=[{REFUSED!r}], cache_dir={str(synthetic_cache)!r})'
    out = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'SyntheticWarning: SYNTHETIC DIGITS, NOT MNIST' in out.stderr

def test_mirrors():
    assert len(data.MIRRORS) >= 2 and all(url.startswith('https://') and url.endswith('/')
                                          for url in data.MIRRORS)


# --- The cache ---
def test_damaged_synthetic_cache(made, synthetic_cache):
    path = synthetic_cache/'synthetic-1'/IMAGES_TEST
    path.write_bytes(made[IMAGES_TEST][:-1])
    with pytest.warns(DataWarning, match=f'{IMAGES_TEST}: wrong checksum.*not used'):
        assert mnist_files('synthetic', cache_dir=synthetic_cache) == (made, 'synthetic')
    assert path.read_bytes() == made[IMAGES_TEST]

def test_a_file_has_the_usual_rights(tmp_path):
    was = os.umask(0o027)
    try: data._save(tmp_path/'a', b'new')
    finally: os.umask(was)
    assert (tmp_path/'a').stat().st_mode & 0o777 == 0o640

def test_what_is_there_stays_what_it_is(tmp_path):
    "A link leads to the new bytes, a mode stays, a pipe and a device are written into; what it can't replace is said"
    real, link, pipe = (tmp_path/name for name in ('real', 'link', 'pipe'))
    real.write_bytes(b'old')
    real.chmod(0o600)
    link.symlink_to('real')
    data._save(link, b'new')
    assert link.is_symlink() and real.read_bytes() == b'new' and real.stat().st_mode & 0o777 == 0o600
    (tmp_path/'dangling').symlink_to(tmp_path/'a'/'b')
    data._save(tmp_path/'dangling', b'new')
    assert (tmp_path/'a'/'b').read_bytes() == b'new' and (tmp_path/'dangling').is_symlink()
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        data._save(pipe, b'new')
        assert read.result() == b'new' and pipe.is_fifo()
    device = tmp_path/'null'
    try: os.mknod(device, 0o20666, os.makedev(1, 3))
    except PermissionError: device = tmp_path
    else: data._save(device, b'new'); assert device.is_char_device()
    with pytest.raises(IsADirectoryError): data._save(tmp_path, b'new')
    assert not [p for p in tmp_path.iterdir() if p.name[0] == '.']

def test_nobody_else_reads_while_it_is_written(tmp_path, monkeypatch):
    path, modes = tmp_path/'a', []
    path.write_bytes(b'old')
    path.chmod(0o600)
    def look(aside, path): modes.append((Path(aside).stat().st_mode & 0o777, Path(aside).read_bytes()))
    monkeypatch.setattr(os, 'replace', look)
    data._save(path, b'new')
    assert modes == [(0o600, b'new')]

@pytest.mark.parametrize('name', ['n'*255, 'ü'*127, '[*]?.x'])
def test_a_name_as_long_as_they_go(tmp_path, name):
    start = data._beside(name)
    kept, gone = [start + '0123456789abcdef', start + 'swp', start + 'of another one x', 'f'*16], start + 'f'*16
    for p in *kept, gone: (tmp_path/p).write_bytes(b'half')
    for p in *kept[1:], gone: os.utime(tmp_path/p, (1, 1))        # an hour ago and more; some are none of ours
    data._save(tmp_path/name, b'new')
    assert contents(tmp_path) == {name: b'new'} | dict.fromkeys(kept, b'half')

def test_cache_folder(tmp_path, monkeypatch):
    assert data.cache_folder() == tmp_path/'xdg'/'backprop13'
    monkeypatch.delenv('XDG_CACHE_HOME'); monkeypatch.setenv('HOME', str(tmp_path))
    assert data.cache_folder() == tmp_path/'.cache'/'backprop13'
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
    assert data.cache_folder() == tmp_path/'.cache'/'backprop13'

def test_two_processes_make_the_same_digits(made, tmp_path):
    "Each of three processes draws all 70 000: these two, and this one."
    code = '''import sys, hashlib; from backprop13.data import mnist_files
files, source = mnist_files('synthetic', cache_dir=sys.argv[1])
print(source, *(hashlib.sha256(b).hexdigest() for b in files.values()))'''
    assert run_two(code, str(tmp_path)) == [' '.join(['synthetic', *map(sha, made.values())]) + '\n']*2
    assert contents(tmp_path/'synthetic-1') == made


# --- Digits made by code ---
def test_synthetic_files(made):
    assert {name: sha(b) for name, b in made.items()} == SHA256_SYNTHETIC

def test_synthetic_shapes(synthetic_cache, recwarn):
    d = mnist('synthetic', cache_dir=synthetic_cache)
    assert not len(recwarn) and d.source == 'synthetic' # who asks for them needs no warning
    for x, y, n in ((d.x_train, d.y_train, 50_000), (d.x_valid, d.y_valid, 10_000),
                    (d.x_test, d.y_test, 10_000)):
        assert x.shape == (n, 784) and y.shape == (n,) and x.dtype == torch.float32 and y.dtype == torch.int64
        assert x.min() == 0 and x.max() == 1
        assert torch.bincount(y, minlength=10).min() > .08*n
    assert d.y_train[:3].tolist() == [5, 0, 4]

def test_validation_images_are_the_last_of_the_training_file(synthetic_cache, made):
    d, x, y = mnist('synthetic', cache_dir=synthetic_cache), read_idx(made[IMAGES]), read_idx(made[LABELS])
    for part, i in ((d.x_train, 0), (d.x_valid, 50_000)):
        assert torch.equal((part*255).round().byte(), x[i:i+len(part)].reshape(-1, 784))
    assert torch.equal(torch.cat([d.y_train, d.y_valid]), y.long()) and len(d.y_valid) == 10_000

def test_synthetic_leaves_random_numbers_alone():
    states = lambda: (random.getstate(), [str(s) for s in np.random.get_state()[1]],
                      torch.get_rng_state().tolist())
    before = states()
    x, y = synthetic_digits(12)
    assert states() == before and x.shape == (12, 28, 28) and x.dtype == y.dtype == torch.uint8
    assert not torch.equal(x, synthetic_digits(12, seed=14)[0])
    for n in (0, 1, 2): assert synthetic_digits(n)[1].tolist() == [5, 0, 4][:n]

@pytest.fixture
def one_thread():
    "These matrices are small: on a busy machine several threads would wait for each other."
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

def train(model, d, epochs, lr, bs=64) -> float:
    "Validation accuracy after plain SGD on the training images, in order"
    for _ in range(epochs):
        for i in range(0, len(d.x_train), bs):
            F.cross_entropy(model(d.x_train[i:i+bs]), d.y_train[i:i+bs]).backward()
            with torch.no_grad():
                for p in model.parameters(): p -= lr*p.grad
            model.zero_grad()
    with torch.no_grad(): return (model(d.x_valid).argmax(1) == d.y_valid).float().mean().item()

def test_network_beats_linear_model(digits, one_thread):
    "A linear model doesn't solve the digits, those made by code least; the lesson's network does, from every seed."
    d, (low, high, net) = digits, {'synthetic': (.75, .88, .945), 'MNIST': (.90, .93, .955)}[digits.source]
    with torch.random.fork_rng():
        def linear(): return nn.Linear(784, 10)
        def network(): return nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
        def seeded(seed, make): torch.manual_seed(seed); return make()
        lin = train(seeded(0, linear), d, 6, .1)
        nets = [train(seeded(seed, network), d, 3, .5) for seed in range(3)]
    assert low < lin < high, lin
    assert min(nets) > net, nets


# --- The digits at hand ---
def test_the_digits(digits):
    assert [len(t) for t in digits[:6]] == [50_000]*2 + [10_000]*4
    first, paper = {'MNIST': ([7, 2, 1], .8086), 'synthetic': ([9, 6, 4], .8163)}[digits.source]
    assert digits.y_train[:3].tolist() == [5, 0, 4] and digits.y_test[:3].tolist() == first
    assert (digits.x_train == 0).float().mean().item() == pytest.approx(paper, abs=.0005)


def test_import_is_cheap():
    code = 'import torch, numpy, sys; old = {*sys.modules}; import backprop13.data; print(*{*sys.modules} - old)'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    new = r.stdout.split()
    assert not {m.partition('.')[0] for m in new} & {'tqdm', 'matplotlib', 'fastcore', 'requests', 'pandas'}, new
    assert len(new) < 20, new
