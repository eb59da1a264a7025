"`backprop13.data`: what it reads, what it refuses, and that nothing is lost or half-written on the way"
import contextlib, gzip, json, os, random, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pathlib import Path
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backprop13 import data
from backprop13.data import (DataWarning, SHA256, SHA256_SYNTHETIC, SyntheticWarning, cached_files,
                             download, mnist, mnist_files,
                             read_folder, read_idx, synthetic_digits, synthetic_files, to_idx)
from conftest import root as ROOT
from helpers import FILES, IMAGES, IMAGES_TEST, LABELS, LABELS_TEST, REFUSED, SUMS, contents, fill, make_files, own_cache, run_two, sha

@pytest.fixture(scope='session')
def made(): return synthetic_files()

@pytest.fixture
def synthetic_cache(made, tmp_path):
    "A cache that has the synthetic files already"
    cache = tmp_path/'cache'
    fill(cache/'synthetic-1', made)
    return cache

@pytest.fixture
def serve():
    "serve(files, how) starts a local mirror and gives its address and the list of its requests."
    servers = []
    def start(files=FILES, how='whole'):
        seen = []
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.strip('/').removesuffix('.gz')
                seen.append(name)
                if how == 'error' or how == 'error once' and len(seen) == 1 or name not in files: return self.send_error(500)
                body = gzip.compress(files[name])
                if how == 'endless': body *= 10_000
                self.send_response(200)
                if how != 'endless': self.send_header('Content-Length', len(body))
                self.end_headers()
                if how == 'slow': time.sleep(.2)
                with contextlib.suppress(ConnectionError): self.wfile.write(body[:len(body)//2]
                        if how == 'broken' else body)
            def log_message(self, *_): pass
        server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f'http://127.0.0.1:{server.server_port}/', seen
    yield start
    for server in servers: server.shutdown(); server.server_close()


# --- IDX files ---
def test_idx_round_trip():
    for shape in ((5,), (2, 3, 4), (0,), (0, 28, 28)):
        t = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        got = read_idx(to_idx(t))
        assert got.dtype == torch.uint8 and got.shape == t.shape and torch.equal(got, t)

def test_only_bytes_are_written():
    for dtype in (torch.int64, torch.float32, torch.int8):
        with pytest.raises(TypeError, match=f'to_idx: got {dtype}, wanted torch.uint8'): to_idx(torch.zeros(2, dtype=dtype))

@pytest.mark.parametrize('change, message', [
    (lambda b: b[:-1],
     'images: truncated: got 4703 bytes after the header, wanted 4704 for shape (6, 28, 28)'),
    (lambda b: b[:10],             'images: truncated: got 10 bytes, its header alone has 16; fetch'),
    (lambda b: b[:2],              'images: truncated: got 2 bytes, wanted at least 4; fetch'),
    (lambda b: b'',                'images: truncated: got 0 bytes'),
    (lambda b: b + b'?',           'images: trailing bytes: got 4705 bytes after the header, wanted 4704'),
    (lambda b: b'PK\3\4' + b[4:],
     'images: wrong magic number: got 504b0304, wanted 00000803 (images); is this the right file?'),
    (lambda b: FILES[LABELS],      'images: wrong magic number: got 00000801, wanted 00000803 (images)'),
    (lambda b: b[:4] + b'\xff'*12 + b[16:],
     f'images: truncated: got 4704 bytes after the header, wanted {(2**32 - 1)**3} for'),
])
def test_bad_idx(change, message):
    with pytest.raises(ValueError) as e: read_idx(change(FILES[IMAGES]), 'images', 3)
    assert message in str(e.value) and '\n' not in str(e.value)

def test_idx_path_raw_and_gz(tmp_path):
    (tmp_path/'raw').write_bytes(FILES[IMAGES]); (tmp_path/'zipped').write_bytes(gzip.compress(FILES[IMAGES]))
    assert torch.equal(read_idx(tmp_path/'raw'), read_idx(tmp_path/'zipped'))
    (tmp_path/'cut').write_bytes(gzip.compress(FILES[IMAGES])[:-20])
    with pytest.raises(ValueError, match='cut: damaged gzip file .*; fetch it again'): read_idx(tmp_path/'cut')

def test_zip_bomb(tmp_path):
    (tmp_path/'bomb.gz').write_bytes(gzip.compress(bytes(data.LIMIT + 1), 1))
    with pytest.raises(ValueError, match='bomb.gz: larger than 50000000 bytes'): read_idx(tmp_path/'bomb.gz')


# --- A folder of the user's: always an error, never something else instead ---
def test_folder(tmp_path, monkeypatch, recwarn):
    fill(tmp_path/'d'); monkeypatch.setenv('BACKPROP13_DATA', str(tmp_path/'d'))
    d = mnist(sums=SUMS)
    assert d.source == 'MNIST' and d.x_train.shape == (6, 784)
    assert d.x_train.dtype == torch.float32 and d.y_train.dtype == torch.int64
    assert torch.equal(d.x_train, read_idx(FILES[IMAGES]).reshape(6, 784).float()/255)
    assert torch.equal(d.y_test, read_idx(FILES[LABELS_TEST]).long())
    for name, b in FILES.items(): (tmp_path/'d'/name).unlink(); (tmp_path/'d'/f'{name}.gz').write_bytes(gzip.compress(b))
    assert torch.equal(mnist(sums=SUMS).x_train, d.x_train)
    assert not (tmp_path/'xdg').exists() and not len(recwarn) # a folder needs no cache

def test_folder_without_files(tmp_path, monkeypatch):
    monkeypatch.setenv('BACKPROP13_DATA', str(tmp_path/'nothing'))
    with pytest.raises(FileNotFoundError,
                       match='there is no folder .*/nothing; set BACKPROP13_DATA to the folder that has them'): mnist()
    (tmp_path/'nothing').mkdir()
    with pytest.raises(FileNotFoundError) as e: mnist()
    assert all(name in str(e.value) for name in SHA256) and 'set BACKPROP13_DATA to the folder that has them' in str(e.value)
    fill(tmp_path/'some', {name: FILES[name] for name in (IMAGES, LABELS, LABELS_TEST)})
    with pytest.raises(FileNotFoundError) as e: mnist(str(tmp_path/'some'))
    assert f'has no {IMAGES_TEST} (raw or .gz); put the files there' in str(e.value)

@pytest.mark.parametrize('files, message', [
    ({IMAGES: FILES[IMAGES][:-5]}, 'truncated'),
    ({IMAGES: FILES[LABELS]},      'wrong magic number: got 00000801, wanted 00000803 (images)'),
    (make_files(6, 5),             'train: got 6 images and 5 labels, wanted as many of each; fetch both files again'),
    ({LABELS_TEST: to_idx(torch.tensor([1, 2, 3], dtype=torch.uint8))}, f'{LABELS_TEST}: wrong checksum: SHA-256 is '),
])
def test_folder_with_bad_files(tmp_path, files, message):
    with pytest.raises(ValueError) as e: read_folder(fill(tmp_path/'d', FILES | files), SUMS)
    assert message in str(e.value)
    with pytest.raises(ValueError): mnist(str(tmp_path/'d'), sums=SUMS) # no silent fallback


# --- The download ---
def test_download(serve, tmp_path, recwarn):
    url, seen = serve()
    d = mnist(mirrors=[url], sums=SUMS) # into $XDG_CACHE_HOME
    assert d.source == 'MNIST' and torch.equal(d.x_train, mnist(str(fill(tmp_path/'d')), sums=SUMS).x_train)
    assert contents(tmp_path/'xdg'/'backprop13'/'mnist') == FILES
    mnist(mirrors=[url], sums=SUMS)
    assert seen == list(FILES) # the second time nothing was asked
    assert not len(recwarn)

@pytest.mark.parametrize('terminal', [True, False])
def test_progress_bar(serve, tmp_path, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal)
    mnist(mirrors=[serve()[0]], sums=SUMS, cache_dir=tmp_path)
    err = capsys.readouterr().err
    assert f'{IMAGES}.gz: 100%' in err if terminal else err == ''

@pytest.mark.parametrize('how, why', [('broken', 'broke off after'), ('error', 'Internal Server Error')])
def test_next_mirror(serve, tmp_path, how, why, synthetic_cache):
    bad, good = serve(how=how), serve()
    with pytest.raises(ConnectionError, match=f'no mirror sent {IMAGES} .*{why}'): download([bad[0]], IMAGES, SUMS[IMAGES])
    assert bad[1] == [IMAGES]*2 # a second chance, and no third
    with pytest.warns(SyntheticWarning, match=why): mnist(mirrors=[bad[0]], sums=SUMS, cache_dir=synthetic_cache)
    assert not (synthetic_cache/'mnist').exists() # nothing half-written
    assert mnist_files(mirrors=[bad[0], good[0]], sums=SUMS, cache_dir=tmp_path) == (FILES, 'MNIST')
    assert contents(tmp_path/'mnist') == FILES

def test_second_chance(serve):
    url, seen = serve(how='error once')
    assert download([url], IMAGES, SUMS[IMAGES]) == FILES[IMAGES] and seen == [IMAGES]*2

def test_goes_on_where_it_stopped(serve, tmp_path, synthetic_cache):
    half = serve({name: FILES[name] for name in (IMAGES, LABELS)})[0]
    with pytest.warns(SyntheticWarning): mnist(mirrors=[half], sums=SUMS, cache_dir=synthetic_cache)
    url, seen = serve()
    assert mnist_files(mirrors=[url], sums=SUMS, cache_dir=synthetic_cache) == (FILES, 'MNIST')
    assert seen == [IMAGES_TEST, LABELS_TEST]

def test_wrong_checksum_leaves_the_cache_alone(serve, tmp_path, synthetic_cache):
    folder = fill(synthetic_cache/'mnist')
    (folder/LABELS).unlink()
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    url, seen = serve({name: b[:-1] + b'?' for name, b in FILES.items()}) # every file is a wrong one
    with pytest.warns(SyntheticWarning, match='wrong checksum'): mnist(mirrors=[url], sums=SUMS,
            cache_dir=synthetic_cache)
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()} == before
    assert set(seen) == {LABELS}

def test_too_much(serve, monkeypatch):
    monkeypatch.setattr(data, 'LIMIT', 100_000)
    url, _ = serve(how='endless')
    with pytest.raises(ConnectionError, match='sent more than 100000 bytes'): download([url], IMAGES, SUMS[IMAGES])

def test_no_network(synthetic_cache):
    start = time.monotonic()
    with pytest.warns(SyntheticWarning) as w: d = mnist(mirrors=[REFUSED, REFUSED + 'b/'], cache_dir=synthetic_cache)
    assert time.monotonic() - start < 5 and d.source == 'synthetic'
    message = str(w[0].message)
    assert message.startswith('SYNTHETIC DIGITS, NOT MNIST: no mirror sent train-images')
    assert 'set BACKPROP13_DATA to it' in message
    assert w[0].filename == __file__ # shown at the caller's line
    assert not (synthetic_cache/'mnist').exists()

def test_warning_is_seen(synthetic_cache):
    "With Python's own filters, in a program of its own"
    code = f'from backprop13.data import mnist; mnist(mirrors=[{REFUSED!r}], cache_dir={str(synthetic_cache)!r})'
    out = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'SyntheticWarning: SYNTHETIC DIGITS, NOT MNIST' in out.stderr

def test_mirror_that_says_nothing(monkeypatch):
    "A host that takes the connection and stays silent costs one short wait, for all four files."
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        mirrors = [f'http://127.0.0.1:{s.getsockname()[1]}/']
        monkeypatch.setattr(data, '_get', partial(data._get, first=.3))
        start = time.monotonic()
        with pytest.raises(ConnectionError, match='no answer in 0.3 seconds'): download(mirrors, IMAGES, SUMS[IMAGES])
        assert time.monotonic() - start < 2 and mirrors == []

def test_mirrors():
    assert len(data.MIRRORS) >= 2 and all(url.startswith('https://') and url.endswith('/') for url in data.MIRRORS)


# --- The cache ---
@pytest.mark.parametrize('damage',
                         [lambda b: b[:100], lambda b: b[:-1] + b'?', lambda b: b'', lambda b: b'\x1f\x8b' + b])
def test_damaged_cache(serve, tmp_path, damage):
    folder = fill(tmp_path/'mnist')
    (folder/IMAGES).write_bytes(damage(FILES[IMAGES]))
    url, seen = serve()
    with pytest.warns(DataWarning, match=f'{IMAGES}.*not used'):
        assert mnist_files(mirrors=[url], sums=SUMS, cache_dir=tmp_path) == (FILES, 'MNIST')
    assert seen == [IMAGES] and contents(folder) == FILES

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

def test_stopped_while_writing(tmp_path, monkeypatch):
    path = fill(tmp_path)/IMAGES
    def stop(*_): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', stop)
        with pytest.raises(KeyboardInterrupt): data._save(path, b'new')
    assert contents(tmp_path) == FILES # the old file, and nothing beside it

def test_stopped_just_after_writing(tmp_path, monkeypatch):
    path, replace = fill(tmp_path)/IMAGES, os.replace
    def late(*args): replace(*args); raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(os, 'replace', late)
        with pytest.raises(KeyboardInterrupt): data._save(path, b'new')
    assert contents(tmp_path) == FILES | {IMAGES: b'new'}

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

def test_only_what_is_right_is_kept(tmp_path):
    with pytest.warns(DataWarning, match='wrong checksum: .*; it is used, and not kept in'):
        assert cached_files(tmp_path/'c', {'a': sha(b'right')}, lambda name, wanted: b'wrong') == {'a': b'wrong'}
    assert not (tmp_path/'c').exists()

def unwritable(tmp_path, kind):
    if kind == 'below a file': (tmp_path/'file').write_text(''); return tmp_path/'file'/'cache'
    (tmp_path/'cache').mkdir(); (tmp_path/'cache').chmod(0o500)
    if os.access(tmp_path/'cache', os.W_OK): pytest.skip('root may write anywhere')
    return tmp_path/'cache'

@pytest.mark.parametrize('kind', ['below a file', 'read-only'])
def test_unwritable_cache(serve, tmp_path, kind):
    cache = unwritable(tmp_path, kind)
    with pytest.warns(DataWarning) as w:
        assert mnist_files(mirrors=[serve()[0]], sums=SUMS, cache_dir=cache) == (FILES, 'MNIST')
    assert len(w) == 1 and f"{cache/'mnist'} can't be written (" in str(w[0].message)
    assert 'set XDG_CACHE_HOME to a folder that can' in str(w[0].message)

def test_unwritable_while_writing(tmp_path, monkeypatch):
    "As a full disk does it (test_data_faults.py has a real one)"
    def full(*_, **__): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', full)
    with pytest.warns(DataWarning, match=r"can't be written \(No space left on device\)"):
        assert cached_files(tmp_path, SUMS, lambda name, _: FILES[name]) == FILES

def test_cache_folder(tmp_path, monkeypatch):
    assert data.cache_folder() == tmp_path/'xdg'/'backprop13'
    monkeypatch.delenv('XDG_CACHE_HOME'); monkeypatch.setenv('HOME', str(tmp_path))
    assert data.cache_folder() == tmp_path/'.cache'/'backprop13'
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
    assert data.cache_folder() == tmp_path/'.cache'/'backprop13'

def test_two_processes_download(serve, tmp_path):
    url, seen = serve(how='slow')
    code = '''import sys, json; from backprop13.data import mnist_files
files, source = mnist_files(mirrors=[sys.argv[1]], sums=json.loads(sys.argv[2]), cache_dir=sys.argv[3])
print(source, sum(map(len, files.values())))'''
    assert run_two(code, url, json.dumps(SUMS), str(tmp_path)) == [f'MNIST {sum(map(len, FILES.values()))}\n']*2
    assert contents(tmp_path/'mnist') == FILES

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
    for x, y, n in ((d.x_train, d.y_train, 50_000), (d.x_valid, d.y_valid, 10_000), (d.x_test, d.y_test, 10_000)):
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
    states = lambda: (random.getstate(), [str(s) for s in np.random.get_state()[1]], torch.get_rng_state().tolist())
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
    "A linear model doesn't solve the digits, those made by code least of all; the lesson's network does, from every seed."
    d, (low, high, net) = digits, {'synthetic': (.75, .88, .945), 'MNIST': (.90, .93, .955)}[digits.source]
    with torch.random.fork_rng():
        def linear(): torch.manual_seed(0); return nn.Linear(784, 10)
        def network(seed): torch.manual_seed(seed); return nn.Sequential(nn.Linear(784, 50),
                nn.ReLU(), nn.Linear(50, 10))
        lin, nets = train(linear(), d, 6, .1), [train(network(seed), d, 3, .5) for seed in range(3)]
    assert low < lin < high, lin
    assert min(nets) > net, nets


# --- The digits at hand ---
def test_the_digits(digits):
    assert [len(t) for t in digits[:6]] == [50_000]*2 + [10_000]*4
    first, paper = {'MNIST': ([7, 2, 1], .8086), 'synthetic': ([9, 6, 4], .8163)}[digits.source]
    assert digits.y_train[:3].tolist() == [5, 0, 4] and digits.y_test[:3].tolist() == first
    assert (digits.x_train == 0).float().mean().item() == pytest.approx(paper, abs=.0005)


def test_import_is_cheap():
    code = '''import torch, numpy, sys; before = set(sys.modules); import backprop13.data; print(*set(sys.modules) - before)'''
    new = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                         check=True).stdout.split()
    assert not {m.partition('.')[0] for m in new} & {'tqdm', 'matplotlib', 'fastcore', 'requests', 'pandas'}, new
    assert len(new) < 20, new
