"""`backprop13.data` under fault: bits that flip, mirrors that lie or stall, disks that fill, programs that are stopped.
After each, nothing wrong is used, nothing good is lost, nothing is left lying about, and what is said is one sentence
that helps. Properties are functions of the library, as in helpers.py: each bug planted in it must be seen by one."""
import contextlib, gzip, io, itertools, json, os, resource, shutil, socket, ssl, struct, subprocess, sys, tempfile
import threading, time, tracemalloc, warnings, zlib
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
from conftest import a_full_disk
from hypothesis import example, given, settings, strategies as st

from backprop13 import data
from conftest import root as ROOT
from helpers import (FILES, IMAGES, IMAGES_TEST, LABELS, LABELS_TEST, REFUSED, SUMS, Library, contents, fill,
                     make_files, own_cache, planted, run_two, sha)

FEW = make_files(2, 2)                                 # in place of the 70 000 digits made by code
OLD = make_files(5, 5)                                 # well formed, and not what is wanted
ZIPPED = {name: gzip.compress(b, mtime=0) for name, b in FILES.items()}
# seconds that a mirror stalls; those for it are shortened to less
STALL = 2


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch): monkeypatch.setenv('no_proxy', '*')


# ---- a mirror that plays a part

class Mirror:
    """A server on this machine that does with each request what `play(talk, name)` says. `seen`:
    what was asked; `left`: did the other side leave?"""
    def __init__(self, play, tls=None):
        self.play, self.tls, self.seen, self.left = play, tls, [], []
    def __enter__(self):
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.url = f'http{"s" if self.tls else ""}://127.0.0.1:{self.socket.getsockname()[1]}/'
        threading.Thread(target=self.serve, daemon=True).start()
        return self
    def __exit__(self, *error):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
    def serve(self):
        with contextlib.suppress(OSError):
            while True: threading.Thread(target=self.answer, args=self.socket.accept()[:1], daemon=True).start()
    def answer(self, conn):
        with conn:
            try:
                conn.settimeout(10)
                if self.tls: conn = self.tls.wrap_socket(conn, server_side=True)
                request = b''
                while b'\r\n\r\n' not in request:
                    if not (got := conn.recv(4096)): return
                    request += got
                self.seen.append(name := request.split()[1].decode().strip('/').removesuffix('.gz'))
                self.play(Talk(self, conn), name)
                self.left.append(False)
            except OSError: self.left.append(True)
            finally:
                if self.tls: conn.close()

class Talk:
    "What a mirror can say"
    def __init__(self, mirror, conn): self.mirror, self.conn = mirror, conn
    def say(self, *parts): self.conn.sendall(b''.join(p if isinstance(p, bytes) else p.encode() for p in parts))
    def head(self, *lines, status='200 OK'): self.say('\r\n'.join([f'HTTP/1.1 {status}', *lines, '', '']))
    def whole(self, body, length=None):
        self.head(f'Content-Length: {len(body) if length is None else length}'); self.say(body)
    def stall(self): time.sleep(STALL)
    def drip(self, *parts, pause=.03):
        stop = time.monotonic() + STALL
        for part in itertools.cycle(parts):
            if time.monotonic() > stop: return
            self.say(part)
            time.sleep(pause)
    def redirect(self, url, status='302 Found'):
        self.head(f'Location: {url}', 'Content-Length: 0', status=status)

def good(talk, name): talk.whole(ZIPPED[name])

def sends(change, *length): return lambda talk, name: talk.whole(change(name), *length)
def says(*lines, status='200 OK', body=b''):
    return lambda talk, name: (talk.head(*lines, status=status), talk.say(body))
def alters(change): return lambda talk, name: talk.whole(change(ZIPPED[name]))
def goes(url): return lambda talk, name: talk.redirect(url.format(name=name, n=len(talk.mirror.seen)))
def chunk(b): return b'%x\r\n%s\r\n' % (len(b), b)
def half(b): return b[:len(b)//2]
def stalls(*first): return lambda talk, name: (talk.say(*first), talk.stall())
def drips(part, *head): return lambda talk, name: (talk.head(*head) if head else None, talk.drip(part))
def members(b): return b''.join(map(gzip.compress, (b[:9], b'', b[9:], b'')))
def flipped(b, i): return b[:i//8] + bytes([b[i//8] ^ 1 << i % 8]) + b[i//8 + 1:]

def stalls_midway(talk, name):
    talk.head(f'Content-Length: {len(ZIPPED[name])}')
    talk.say(half(ZIPPED[name]))
    talk.stall()

def hangs_up(talk, name): pass

def resets(talk, name):
    talk.head('Content-Length: 5000')
    talk.say(half(ZIPPED[name]))
    talk.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))

def endless(talk, name):
    talk.head()
    for _ in range(400): talk.say(bytes(1 << 16)); time.sleep(.004)

def late(talk, name):
    time.sleep(.2)
    b = ZIPPED[name]
    talk.head(f'Content-Length: {len(b)}')
    for i in range(0, len(b), len(b)//3 + 1): talk.say(b[i:i + len(b)//3 + 1]); time.sleep(.03)

def endless_headers(talk, name):
    talk.say('HTTP/1.1 200 OK\r\n')
    for _ in range(10**5): talk.say('A: b\r\n')

def redirects(talk, name): good(talk, name[2:]) if name.startswith('a/') else talk.redirect(f'/a/{name}.gz')

def in_chunks(talk, name):
    b = ZIPPED[name]
    talk.head('Transfer-Encoding: chunked')
    talk.say(chunk(half(b)), chunk(b[len(b)//2:]), chunk(b''))

def endless_trailers(talk, name):
    talk.head('Transfer-Encoding: chunked')
    talk.say(chunk(ZIPPED[name]), '0\r\n')
    talk.drip('a: b\r\n')

def bomb(size):
    "A gzip file that unpacks to `size` or a little more; it is made of one piece, again and again"
    z = zlib.compressobj(9, wbits=31)
    start = z.compress(bytes(1 << 20)) + z.flush(zlib.Z_FULL_FLUSH)
    piece = z.compress(bytes(1 << 20)) + z.flush(zlib.Z_FULL_FLUSH)
    return start + piece*(size >> 20)

STALLS = { # what a mirror does, what is said of it, and the shortened limit
    'is silent': (stalls(), 'no answer in 0.3 seconds', dict(first=.3)),
    'stops in a header': (stalls('HTTP/1.1 200 OK\r\nContent-'), 'no answer in', dict(first=.3)),
    'drips a header': (lambda talk, name: (talk.say('HTTP/1.1 200 OK\r\nA: '), talk.drip('a')), 'no answer in',
        dict(first=.3)),
    'says continue for ever': (drips('HTTP/1.1 100 Continue\r\n\r\n'), 'no answer in', dict(first=.3)),
    'stalls before the body': (lambda talk, name: (talk.head('Content-Length: 99'), talk.stall()),
        'nothing came for 0.3 seconds', dict(pause=.3)),
    'stalls in the body': (stalls_midway, 'nothing came for', dict(pause=.3)),
    'drips the body': (drips(b'\x1f\x8b', 'Content-Length: 5000'), 'not done in 0.6 seconds', dict(whole=.6)),
    'drips the length of a chunk': (drips('0', 'Transfer-Encoding: chunked'), 'nothing came for', dict(pause=.3)),
    'adds endless trailers': (endless_trailers, 'nothing came for', dict(pause=.3)),
}
ERRORS = {
    'hangs up': (hangs_up, 'closed connection without response'),
    'hangs up in a header': (lambda talk, name: talk.say('HTTP/1.1 20'), 'BadStatusLine HTTP/1.1 20'),
    'closes early': (lambda talk, name: talk.whole(half(ZIPPED[name]), len(ZIPPED[name])), 'broke off after'),
    'resets the connection': (resets, 'reset by peer'),
    'says no bytes come': (sends(ZIPPED.get, 0), 'wrong checksum'),
    'says too few bytes': (sends(ZIPPED.get, 30), 'damaged gzip file (it breaks off)'),
    'says too many bytes': (sends(ZIPPED.get, 10**6), 'of 1000000 bytes'),
    'says 10^5000 bytes': (sends(lambda name: half(ZIPPED[name]), '1' + '0'*5000),
        'damaged gzip file (it breaks off)'),
    'sends nothing': (says(status='204 No Content'), 'wrong checksum'),
    '404': (says(status='404 Not Found'), 'HTTP Error 404: Not Found'),
    '500': (says(status='500 Internal Server Error', body=b'<h1>Sorry</h1>'), 'HTTP Error 500'),
    '503 without a word': (says(status='503'), 'HTTP Error 503'),
    '503 with too many words': (says(status='503 ' + 'very '*9000 + 'busy'), 'HTTP Error 503: very very'),
    '503 that paints the terminal': (says(status='503 \x1b[2J\x07\x1b]0;title\x07'),
        'HTTP Error 503: ?[2J??]0;title?'),
    'status 999': (says(status='999 Hm'), 'HTTP Error 999'),
    'no HTTP at all': (lambda talk, name: talk.say(ZIPPED[name]), 'BadStatusLine'),
    'HTML': (sends(lambda name: b'<!DOCTYPE html><title>Log in</title>'), 'wrong checksum'),
    'a hundred headers': (says(*[f'A{i}: b' for i in range(200)]), 'got more than 100 headers'),
    'endless headers': (endless_headers, 'got more than 100 headers'),
    'a long header': (says('A: ' + 'b'*10**6), 'got more than 65536 bytes'),
    'more than the limit': (endless, 'sent more than 100000 bytes'),
    'a gzip bomb': (alters(lambda b: bomb(10**7)), 'larger than 100000 bytes'),
    'compressed twice': (alters(gzip.compress), 'wrong checksum'),
    'the file twice': (alters(lambda b: b*2), 'wrong checksum'),
    'rubbish behind the end': (alters(lambda b: b + b'!'), '1 bytes more after its end'),
    "yesterday's file": (sends(lambda name: gzip.compress(OLD[name])), 'wrong checksum'),
    'another file': (sends(lambda name: ZIPPED[LABELS if name == LABELS_TEST else LABELS_TEST]), 'wrong checksum'),
    'a changed bit': (alters(lambda b: flipped(b, 8*len(b) - 40)), 'damaged gzip file'),
    'chunks of rubbish': (says('Transfer-Encoding: chunked', body=b'zzz\r\n????'), 'IncompleteRead'),
    'a chunk of negative length': (says('Transfer-Encoding: chunked', body=b'-5\r\nabcdefgh\r\n'), ''),
    'a chunk that breaks off': (says('Transfer-Encoding: chunked', body=b'ffffffffffffffffff\r\nabc'),
        'IncompleteRead'),
    'redirects to itself': (goes('/{name}.gz'), 'an infinite loop. The last 30x error message was: Found'),
    'redirects on and on': (goes('/{name}{n}.gz'), 'infinite loop'),
    'redirects to a file': (goes('file:///etc/passwd'), "to url 'file:///etc/passwd' is not allowed"),
    'redirects to ftp': (goes('ftp://127.0.0.1:9/x.gz'), 'leads to ftp://127.0.0.1:9/x.gz, which is not https'),
    'redirects to data': (goes('data:,x'), "is not allowed"),
    'redirects to nowhere': (goes(REFUSED), 'Connection refused'),
    'redirects without an address': (says(status='302 Found'), 'HTTP Error 302'),
}
HARMLESS = {
    'late and in pieces': late,
    'length in words': sends(ZIPPED.get, 'many'),
    'negative length': sends(ZIPPED.get, -5),
    'no length': lambda talk, name: (talk.head(), talk.say(ZIPPED[name])),
    'chunked': in_chunks,
    'not compressed': sends(FILES.get),
    'several gzip files in one': sends(lambda name: members(FILES[name])),
    'zeros behind the end': alters(lambda b: b + bytes(512)),
    'redirects to a good place': redirects,
}


# ---- what must hold

def is_sentence(text, *words):
    "One line of moderate length, that any terminal can show, and that says these words"
    assert text.isprintable() and len(text) < 900, text
    for word in words: assert word in text, f'{word!r} is not in: {text}'

def ask(lib, cache, mirrors, limit=100_000):
    "(files, source, warnings) of `mnist_files`, in bounded time; any error of its own fails"
    d = lib.data
    d.LIMIT, d.synthetic_files, d.SHA256_SYNTHETIC = limit, lambda: FEW, {name: sha(b) for name,
        b in FEW.items()}
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        try: files, source = d.mnist_files(mirrors=mirrors, sums=SUMS, cache_dir=cache)
        except Exception as e: raise AssertionError(f'mnist_files raised {e!r}') from e
    assert time.monotonic() - start < 60
    assert (files, source) in ((FILES, 'MNIST'), (FEW, 'synthetic')), f'wrong bytes, called {source}'
    said = [w for w in said if w.category is not ResourceWarning]
    for w in said: assert issubclass(w.category, d.DataWarning), w
    assert any(w.category is d.SyntheticWarning for w in said) == (source == 'synthetic')
    stray = {p.name for p in cache.rglob('*') if not p.is_dir()} - {*SUMS, 'mnist'}
    assert not stray, f'left behind: {stray}'
    return source, [str(w.message) for w in said]

def hurry(lib, url, limits):
    "Shortened limits for one mirror"
    get = lib.data._get
    lib.data._get = lambda u: get(u, **limits) if u.startswith(url) else get(u)

def state(folder): return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}

@contextlib.contextmanager
def new_cache(files=(IMAGES, LABELS_TEST)):
    "A cache that has some of the files"
    with tempfile.TemporaryDirectory() as d:
        fill(Path(d)/'cache'/'mnist', {name: FILES[name] for name in files})
        yield Path(d)/'cache'

def endures(play, words, limits=None):
    "A mirror alone that plays so is reported, and harms nothing; with a good one beside it, all is well."
    def prop(lib):
        with new_cache() as cache, Mirror(play) as bad, Mirror(good) as other:
            before = state(cache/'mnist')
            if limits: hurry(lib, bad.url, limits)
            source, said = ask(lib, cache, [bad.url])
            assert source == 'synthetic' and len(said) == 1, said
            is_sentence(said[0], 'SYNTHETIC DIGITS, NOT MNIST: no mirror sent train-labels', words,
                        bad.url, 'connect to the network',
                        'set BACKPROP13_DATA to it', 'to "synthetic" to silence this')
            assert state(cache/'mnist') == before, 'good files were touched'
            if limits: assert bad.seen == [LABELS], f'a mirror that stalls was asked for {bad.seen}'
            assert ask(lib, cache, [bad.url, other.url]) == ('MNIST', [])
            assert other.seen == [LABELS, IMAGES_TEST]
            assert contents(cache/'mnist') == FILES and state(cache/'mnist').items() >= before.items()
    prop.__name__ = 'endures'
    return prop

def takes(play):
    "A mirror that plays so is odd, but what it sends is right."
    def prop(lib):
        with new_cache() as cache, Mirror(play) as odd:
            assert ask(lib, cache, [odd.url]) == ('MNIST', [])
            assert contents(cache/'mnist') == FILES
    prop.__name__ = 'takes'
    return prop

def endures_many(lib):
    for kind in ('closes early', 'says too few bytes', '503 with too many words',
                 '503 that paints the terminal', 'chunks of rubbish',
                 "yesterday's file", 'redirects to ftp', 'redirects to itself', 'rubbish behind the end'):
        endures(*ERRORS[kind])(lib)

def endures_silence(lib): endures(*STALLS['is silent'])(lib)
def endures_dripping(lib): endures(*STALLS['drips the body'])(lib)

def gives_a_second_chance(lib):
    "A mirror that broke off once is asked again, but not a third time, and one that can't be reached isn't."
    with new_cache() as cache, Mirror(hangs_up) as m:
        assert ask(lib, cache, [m.url])[0] == 'synthetic' and m.seen == [LABELS]*2
    with new_cache() as cache, Mirror(lambda talk, name: good(talk, name) if len(m.seen) > 1 else None) as m:
        assert ask(lib, cache, [REFUSED, m.url]) == ('MNIST', []) and m.seen == [LABELS, LABELS, IMAGES_TEST]

def stops_the_download(lib):
    "Whoever sends too much is cut off, not listened to in the background."
    with new_cache() as cache, Mirror(endless) as m:
        _, said = ask(lib, cache, [m.url])
        is_sentence(said[0], 'sent more than 100000 bytes')
        while len(m.left) < len(m.seen): time.sleep(.01)
        assert all(m.left), 'the mirror could send everything'


# ---- files

def refused(lib, f, *args, words=()):
    "Whether `f` raises `ValueError`, with a sentence; other errors fail"
    try: f(*args)
    except ValueError as e: is_sentence(str(e), 'a-name', 'fetch ', *words); return True
    except Exception as e: raise AssertionError(f'{e!r} for {args}') from e
    return False

def bombs_are_small(lib):
    "Memory stays within a few times the limit: of a zipped file, and of one that is large by itself."
    lib.data.LIMIT = 1 << 20
    b = bomb(100 << 20)
    with tempfile.TemporaryDirectory() as d:
        path = Path(d)/'a-name'
        with open(path, 'wb') as f: f.truncate(100 << 20)
        tracemalloc.start()
        try:
            assert refused(lib, lib.data.unzipped, b, 'a-name', words=['larger than 1048576 bytes'])
            assert refused(lib, lib.data.read_file, path)
            peak = tracemalloc.get_traced_memory()[1]
        finally: tracemalloc.stop()
    assert peak < 8 << 20, f'{peak} bytes'

def a_folder_is_checked(lib):
    """Of the user's folder nothing wrong is used: old files, changed ones, links in a circle, a
    pipe; the sentence says what to do."""
    def fails(spoil, *words):
        with tempfile.TemporaryDirectory() as d:
            path = fill(Path(d)/'digits')/LABELS
            spoil(path)
            try: lib.data.mnist_files(str(path.parent), sums=SUMS)
            except (OSError, ValueError) as e: is_sentence(str(e), *words)
            else: raise AssertionError(f'{path} was used')
    lacks = f'has no {LABELS} (raw or .gz)'
    fails(lambda p: p.write_bytes(OLD[LABELS]), 'as many of each; fetch both files again')
    fails(lambda p: fill(p.parent, OLD), 'wrong checksum', 'fetch the file again')
    fails(lambda p: p.write_bytes(flipped(FILES[LABELS], 8*9)), 'wrong checksum')
    fails(lambda p: p.with_name(IMAGES).write_bytes(FILES[LABELS]), 'wrong magic number: got 00000801, wanted 00000803')
    for other in (lambda p: p.symlink_to(p), lambda p: p.symlink_to('gone'), lambda p: p.mkdir(),
                  lambda p: os.mkfifo(p)):
        fails(lambda p: (p.unlink(), other(p)),
              f"{lacks}, but '{LABELS}', which is no file; put the files there")
    for other in (f'{LABELS}.zip', 'Train_Labels (1).gz', f'mine/{LABELS}', f'{LABELS}/{LABELS}',
                  'train-labels\x1b[2J'):
        def rename(p):
            b = p.read_bytes(); p.unlink(); (p.parent/other).parent.mkdir(exist_ok=True)
            (p.parent/other).write_bytes(b)
        fails(rename, f'{lacks}, but {other!r}; put the files there, unpacked and under these names')
    fails(lambda p: p.with_name(LABELS_TEST).rename(p.with_name('test-labels.npy')),
          f"{LABELS_TEST} (raw or .gz), but 'test-labels.npy'")
    fails(lambda p: [q.unlink() for q in p.parent.iterdir()], 'has no ', *SUMS)
    # nothing looks like it
    fails(lambda p: p.unlink(), f'{lacks}; put the files there, or set')
    fails(lambda p: p.with_name(f'{LABELS}.gz').write_bytes(p.read_bytes()[:-1]) and p.unlink(),
          f'{LABELS}.gz: truncated')
    fails(lambda p: shutil.rmtree(p.parent), 'there is no folder', '/digits; set BACKPROP13_DATA to the folder')
    fails(lambda p: (shutil.rmtree(p.parent), p.parent.write_text('')),
          '/digits (it is a file); set BACKPROP13_DATA to the folder')
    fails(lambda p: (shutil.rmtree(p.parent), p.parent.symlink_to(p.parent)),
          'set BACKPROP13_DATA to the folder')
    def gone(path): raise FileNotFoundError(2, 'No such file or directory', str(path))
    with mock.patch.object(lib.data, 'read_file', gone):
        fails(lambda p: None, "digits can't be read (", 'let BACKPROP13_DATA name a folder')

def any_name_will_do(lib):
    "As unpackers name the files, and as torchvision keeps them: the checksum decides."
    for place, dot, zipped in itertools.product(('', 'raw', 'MNIST/raw'), (False, True), (False, True)):
        with tempfile.TemporaryDirectory() as d:
            (folder := Path(d)/place).mkdir(parents=True, exist_ok=True)
            for name, b in FILES.items():
                name = name.replace('-idx', '.idx') if dot else name
                (folder/f'{name}{".gz"*zipped}').write_bytes(gzip.compress(b) if zipped else b)
            try: assert lib.data.mnist_files(d, sums=SUMS) == (FILES, 'MNIST')
            except OSError as e: raise AssertionError(e) from e

def a_relative_folder_counts_from_the_start(lib):
    "Not from where a notebook or a test runs; without a $PWD that is there, from the current folder."
    with tempfile.TemporaryDirectory() as d, tempfile.TemporaryDirectory() as other:
        fill(Path(d)/'mine')
        was = os.getcwd()
        try:
            for at, pwd, named, good in ((other, d, 'mine', True), (d, '', 'mine', True),
                                         (d, '/c/nowhere', 'mine', True),
                                         (d, other, 'mine', False), (other, other, '~/mine', True),
                                         (other, other, f'{d}/mine', True)):
                os.chdir(at)
                with mock.patch.dict(os.environ, BACKPROP13_DATA=named, PWD=pwd, HOME=d):
                    try: assert lib.data.mnist_files(sums=SUMS) == (FILES, 'MNIST') and good
                    except OSError as e: assert not good, e; is_sentence(str(e), f'{other}/mine',
                        'by its absolute path')
        finally: os.chdir(was)


# ---- the cache

def the_cache_is_checked(lib):
    "What is bad in the cache is reported, not used, and replaced: old files, halves, changed bits, too much"
    for change in (lambda b: OLD[LABELS], half, lambda b: flipped(b, 99), lambda b: b + b'!', lambda b: b'',
                   lambda b: bytes(200_000), lambda b: b'\x1f\x8b'):
        with new_cache(FILES) as cache, Mirror(good) as m:
            path, others = cache/'mnist'/LABELS, state(cache/'mnist')
            del others[LABELS]
            path.write_bytes(change(FILES[LABELS]))
            source, said = ask(lib, cache, [m.url])
            assert source == 'MNIST' and len(said) == 1
            is_sentence(said[0], str(path), '(not used)')
            assert state(cache/'mnist').items() >= others.items() and contents(cache/'mnist') == FILES
            assert m.seen == [LABELS]

def the_cache_may_change_midway(lib):
    "After the first file the cache is removed, or there is a file or a circle of links in its place."
    def swap(folder, put): shutil.rmtree(folder); put(folder)
    for put, kept in ((lambda p: None, set(FILES) - {IMAGES}), (lambda p: p.write_text(''), ()),
                      (lambda p: p.symlink_to(p), ())):
        def play(talk, name):
            if name == LABELS: swap(cache/'mnist', put)
            good(talk, name)
        with new_cache(()) as cache, Mirror(play) as m:
            source, said = ask(lib, cache, [m.url])
            assert source == 'MNIST' and len(said) == (not kept), said
            if not kept: is_sentence(said[0], f"{cache/'mnist'} can't be written (",
                                     'set XDG_CACHE_HOME to a folder that can')
            assert not kept or contents(cache/'mnist') == {name: FILES[name] for name in kept}

def the_cache_may_hold_anything(lib):
    "In place of a file: links, a folder, a pipe that nobody writes to"
    for put, warned in ((lambda p: p.symlink_to(p), 0), (lambda p: p.symlink_to('gone'), 0),
                        (lambda p: p.mkdir(), 1), (lambda p: os.mkfifo(p), 0)):
        with new_cache((IMAGES, IMAGES_TEST, LABELS_TEST)) as cache, Mirror(good) as m:
            path = cache/'mnist'/LABELS
            put(path)
            def free():                                # ends whoever waits for the pipe
                with contextlib.suppress(OSError): os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            timer = threading.Timer(2, free)
            timer.start()
            source, said = ask(lib, cache, [m.url])
            timer.cancel()
            assert source == 'MNIST' and len(said) == warned, said
            if warned: is_sentence(said[0], "can't be written (", 'set XDG_CACHE_HOME')
            else: assert path.read_bytes() == FILES[LABELS] and not path.is_symlink()

def a_disk_may_fill(lib):
    "The damaged file stays as it is, what fits is kept, nothing is left of the rest, and the data are right."
    with new_cache((LABELS_TEST,)) as cache, Mirror(good) as m:
        (cache/'mnist'/IMAGES).write_bytes(half(FILES[IMAGES]))
        with a_full_disk(2000): source, said = ask(lib, cache, [m.url])
        assert source == 'MNIST' and len(said) == 2, said
        is_sentence(said[1], "can't be written (File too large)", 'set XDG_CACHE_HOME to a folder that can')
        assert contents(cache/'mnist') == {LABELS_TEST: FILES[LABELS_TEST], LABELS: FILES[LABELS],
                                           IMAGES: half(FILES[IMAGES])}
        source, said = ask(lib, cache, [m.url])        # there is room again
        assert source == 'MNIST' and contents(cache/'mnist') == FILES

def only_what_is_right_is_kept(lib):
    with tempfile.TemporaryDirectory() as d, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        got = lib.data.cached_files(Path(d), {'word': sha(b'right')}, lambda name, wanted: b'wrong')
        assert got == {'word': b'wrong'}
        assert contents(Path(d)) == {}
        is_sentence(str(said[0].message), 'word: wrong checksum', f'it is used, and not kept in {d}')

def what_the_killed_left_is_removed(lib):
    "An hour later, and not before: another program may be at it."
    replace, left = os.replace, []
    def note(old, new): left.append((Path(old), Path(old).read_bytes())); replace(old, new)
    with new_cache(()) as cache, Mirror(good) as m:
        with mock.patch.object(os, 'replace', note): ask(lib, cache, [m.url])
        for (path, b), age in zip(left, (7200, 4000, 3000, 0)):
            path.write_bytes(half(b))
            os.utime(path, (time.time() - age,)*2)
        with contextlib.suppress(AssertionError): ask(lib, cache, [])              # two are left as yet
        assert set(contents(cache/'mnist')) == {*FILES, left[2][0].name, left[3][0].name}

def ctrl_c_leaves_nothing(lib):
    for kept in [LABELS], [IMAGES, LABELS]:
        replace = os.replace
        def stop(*args):
            if len(kept) > 1: replace(*args)
            raise KeyboardInterrupt
        with new_cache((LABELS,)) as cache, Mirror(good) as m:
            with mock.patch.object(os, 'replace', stop), contextlib.suppress(KeyboardInterrupt):
                ask(lib, cache, [m.url])
            assert contents(cache/'mnist') == {name: FILES[name] for name in kept}
            assert ask(lib, cache, [m.url]) == ('MNIST', [])

def logs_have_no_bar(lib):
    "A terminal has a bar; a log, or whoever sets TQDM_DISABLE, has none."
    def said(terminal):
        with Mirror(good) as m, contextlib.redirect_stderr(io.StringIO()) as err:
            err.isatty = lambda: terminal
            lib.data.download([m.url], IMAGES, SUMS[IMAGES])
        return err.getvalue()
    assert said(False) == ''
    assert f'{IMAGES}.gz: 100%' in said(True)
    with mock.patch.dict(os.environ, TQDM_DISABLE='1'): assert said(True) == ''


# ---- encryption

@cache
def certificate():
    "A certificate for this machine, and its key, in one file"
    if not shutil.which('openssl'): pytest.skip('no openssl on the PATH')
    path = Path(tempfile.mkdtemp())/'both.pem'
    r = subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
                        'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
                        '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1',
                        '-keyout', path, '-out', f'{path}.crt'],
                       capture_output=True, text=True)
    if r.returncode: pytest.skip(f'openssl made no certificate: {r.stderr}')
    path.write_bytes(path.read_bytes() + Path(f'{path}.crt').read_bytes())
    return path

def https_stays_https(lib):
    "A mirror with https is believed if its certificate is, and may not lead to http."
    path = certificate()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    def play(talk, name):
        if name.startswith('a/'): return good(talk, name[2:])
        talk.redirect(f'{plain.url}{name}.gz' if name == LABELS_TEST else f'/a/{name}.gz')
    with Mirror(good) as plain, Mirror(play, tls) as m, new_cache(()) as cache:
        source, said = ask(lib, cache, [m.url])
        assert source == 'synthetic' and m.seen == []
        is_sentence(said[0], 'CERTIFICATE_VERIFY_FAILED')
        with mock.patch.dict(os.environ, SSL_CERT_FILE=str(path)):
            source, said = ask(lib, cache, [m.url])
            assert source == 'synthetic' and plain.seen == []
            is_sentence(said[0], f'leads to {plain.url}{LABELS_TEST}.gz, which is not https')
            assert set(contents(cache/'mnist')) == set(FILES) - {LABELS_TEST} # the others came over https
            to_https = lambda talk, name: talk.redirect(f'{m.url}a/{name}.gz')
            with Mirror(to_https) as up: assert ask(lib, cache, [up.url]) == ('MNIST', [])


# ---- the table: properties, and the bugs that each must see

mutants = {
    endures_many: [
        ('no check', 'download',
         "check_sum(unzipped(_get(f'{url}{name}.gz'), name), wanted, name)", "unzipped(_get(f'{url}{name}.gz'), name)"),
        ('no check', '_get', 'if len(data) < (size or 0)', 'if False'),
        ('wrong order', 'download', '[*mirrors, *mirrors]', '2*mirrors[:1]'),
        ('missing case', 'download', '(OSError, ValueError, HTTPException)', '(OSError, ValueError)'),
        ('missing case', '_open', "('https', req.type)", "('https', 'http', 'ftp')"),
        ('bad words', '_why', "c if c.isprintable() else '?'", 'c'),
        ('bad words', '_why', "' '.join(why.split())", 'why'),
        ('bad words', '_why', "why if len(why) <= 200 else f'{why[:197]}...'", 'why')],
    endures_silence: [
        ('no limit', '_answer', 'timeout=seconds', ''),
        ('no limit', 'download', 'mirrors.remove(url)', 'pass')],
    endures_dripping: [
        ('no limit', '_get', '> stop', '> stop + 99')],
    gives_a_second_chance: [
        ('wrong order', 'download', '[*mirrors, *mirrors]', 'list(mirrors)')],
    stops_the_download: [
        ('no limit', '_get', 'if len(data) > LIMIT', 'if False'),
        ('left behind', '_get', 'stopped.set()', 'pass')],
    bombs_are_small: [
        ('no limit', '_inflated', 'f.decompress(block, LIMIT + 1 - len(res))', 'f.decompress(block)'),
        ('no limit', 'read_file', 'f.read(LIMIT + 1)', 'f.read()')],
    a_folder_is_checked: [
        ('bad words', '_similar', '"*odd', '"'),
        ('bad words', '_similar', ".lower()", ''),
        ('bad words', '_similar', "('t10k', 'test')", "('t10k',)"),
        ('bad words', '_similar', "('*', '*/*')", "('*',)"),
        ('bad words', '_similar', "kind in s and ", ''),
        ('bad words', '_similar', "!r}", '}'),
        ('bad words', '_lacking', 'if not folder.is_dir():', 'if False:'),
        ('bad words', 'read_folder', '_pair(files, part, paths)', '_pair(files, part)'),
        ('no check', 'read_folder', 'check_sum(data, sums[name], paths[name])', 'data'),
        ('no check', '_pair', 'if len(x) != len(y)', 'if False'),
        ('bad words', 'read_folder',
         '''raise OSError(f"{folder} can't be read ({e}); let BACKPROP13_DATA name a folder that can") from None''',
         'raise')],
    any_name_will_do: [
        ('missing case', '_find', "name.replace('-idx', '.idx')", 'name'),
        ('missing case', '_find', "('', 'raw', 'MNIST/raw')", "('', 'MNIST/raw')"),
        ('missing case', '_find', "('', 'raw', 'MNIST/raw')", "('', 'raw')")],
    a_relative_folder_counts_from_the_start: [
        ('missing case', '_source', "here if os.path.isdir(here) else ''", "''"),
        ('missing case', '_source', "here if os.path.isdir(here) else ''", 'here'),
        ('missing case', '_source', 'os.path.expanduser(source)', 'source')],
    the_cache_is_checked: [
        ('no check', '_from_cache', 'check_sum(read_file(path), wanted, path)', 'read_file(path)'),
        ('not kept', '_replace', 'os.replace(aside, path)', 'aside.unlink()'),
        ('half written', '_replace', 'path.with_name(_beside(path.name) + secrets.token_hex(8))', 'path'),
        ('no check', 'cached_files', 'if files[name] is not None: continue', 'if (folder/name).exists(): continue')],
    the_cache_may_change_midway: [
        ('missing case', '_replace', 'path.parent.mkdir(parents=True, exist_ok=True)', 'pass'),
        ('missing case', 'cached_files', 'except OSError as e', 'except PermissionError as e')],
    the_cache_may_hold_anything: [
        ('missing case', '_from_cache', 'if path.is_file() else None', '')],
    a_disk_may_fill: [
        ('left behind', '_replace', 'aside.unlink()', 'pass'),
        ('half written', '_replace', 'f.write(data)', 'path.write_bytes(data); aside.write_bytes(data)')],
    only_what_is_right_is_kept: [
        ('no check', 'cached_files', 'check_sum(files[name], wanted, name)', 'pass')],
    what_the_killed_left_is_removed: [
        ('left behind', 'cached_files', '_tidy(folder, name)', 'pass'),
        ('not kept', '_tidy', '> 3600', '> 0')],
    ctrl_c_leaves_nothing: [
        ('left behind', '_replace', 'except BaseException', 'except Exception')],
    logs_have_no_bar: [
        ('bad words', '_bar', 'else None', 'else False'),
        ('bad words', '_bar', "True if os.environ.get('TQDM_DISABLE') else", '')],
    https_stays_https: [
        ('missing case', '_open', "('https', req.type)", "('https', 'http')"),
        ('missing case', '_open', "('https', req.type)", '(req.type,)')],
}

test_the_library_has_the_property, test_the_bug_is_found = planted(data=mutants)


# ---- every mirror

@pytest.mark.parametrize('kind', STALLS)
def test_a_mirror_that_stalls(kind):
    with Library() as lib: endures(*STALLS[kind])(lib)

@pytest.mark.parametrize('kind', ERRORS)
def test_a_mirror_that_errs(kind):
    with Library() as lib: endures(*ERRORS[kind])(lib)

@pytest.mark.parametrize('kind', HARMLESS)
def test_a_mirror_that_is_odd(kind):
    with Library() as lib: takes(HARMLESS[kind])(lib)

def test_the_second_time_nothing_is_asked(tmp_path, recwarn):
    with Mirror(good) as m:
        for _ in range(2): assert data.mnist(mirrors=[m.url], sums=SUMS).source == 'MNIST'
    assert m.seen == list(FILES) and not len(recwarn)
    assert contents(tmp_path/'xdg'/'backprop13'/'mnist') == FILES

PARTS = (b'HTTP/1.1 200 OK\r\n', b'HTTP/1.1 302\r\nLocation: ', b'Content-Length: ',
         b'Transfer-Encoding: chunked\r\n', b'\r\n\r\n', b'1f\r\n', *ZIPPED.values())

@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(PARTS)), max_size=8).map(b''.join))
@example(b'HTTP/1.1 302\r\nLocation: http://[\r\n\r\n')
@example(b'HTTP/1.1 302\r\nLocation: http://\xff:99999/\r\n\r\n')
@example(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n')
@settings(derandomize=True, deadline=None, max_examples=150, database=None)
def test_a_mirror_of_rubbish(garbage_mirror, rubbish):
    "Whatever it sends: the right bytes or `ConnectionError`, with a sentence"
    garbage_mirror.play = lambda talk, name: talk.say(rubbish)
    try: assert data.download([garbage_mirror.url], LABELS, SUMS[LABELS]) == FILES[LABELS]
    except ConnectionError as e: is_sentence(str(e), 'no mirror sent train-labels', 'connect to the network')

@pytest.fixture(scope='module')
def garbage_mirror():
    with Mirror(good) as m: yield m

@given(st.binary(max_size=60), st.integers(0, 2**31), st.integers(0, 2**31))
@settings(derandomize=True, deadline=None, max_examples=300, database=None)
def test_a_file_of_rubbish(rubbish, i, j):
    "Rubbish, and two flipped bits at random: `ValueError` with a sentence, or the right bytes"
    for b in (b'\x1f\x8b' + rubbish, b'\x1f\x8b\x08' + rubbish, ZIPPED[IMAGES][:20] + rubbish):
        with contextlib.suppress(ValueError): data.read_idx(b, 'a-name')
    z, raw = (flipped(flipped(f[IMAGES], i % (8*len(f[IMAGES]))), j % (8*len(f[IMAGES])))
              for f in (ZIPPED, FILES))
    try: got = data.unzipped(z, 'a-name')
    except ValueError as e: is_sentence(str(e), 'a-name: damaged gzip file (', 'fetch it again')
    else: assert got in (FILES[IMAGES], z)
    if raw != FILES[IMAGES]:
        with pytest.raises(ValueError, match='wrong checksum'): data.check_sum(raw, SUMS[IMAGES], 'a-name')


# ---- with the system's own limits, users and signals

BOMBS = '''import json, resource, sys, time
from backprop13 import data
from test_data_faults import bomb
size = int(open('/proc/self/statm').read().split()[0])*resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (400 << 20),)*2)
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
import gzip
L = data.LIMIT
tries = {'bomb': bomb(10 << 30), 'empty members': (gzip.compress(b'')*(L//20 + 1))[:L],
         'long name': b'\\x1f\\x8b\\x08\\x08' + bytes(6) + b'a'*L, 'zeros': gzip.compress(b'x') + bytes(L),
         'rows': b'\\0\\0\\x08\\x03' + b'\\x7f\\xff\\xff\\xff'*3}
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for kind, b in tries.items():
    start, before = time.process_time(), peak()
    try: data.read_idx(b, kind)
    except ValueError as e: print(json.dumps([kind, str(e), time.process_time() - start, peak() - before]))
'''

def child(code, *args, **kwargs):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str,
        [ROOT, ROOT/'tests', Path(__file__).parent])), 'no_proxy': '*'}
    return subprocess.run([sys.executable, '-c', code, *map(str, args)], cwd=ROOT, env=env,
                          capture_output=True, text=True, timeout=240, **kwargs)

@pytest.mark.skipif(not Path('/proc/self/statm').exists(),
                    reason='needs /proc, to know how much memory the program has')
def test_bombs_in_little_memory():
    "With 400 MiB more than the library itself; in seconds, where Python's gzip module takes up to a minute"
    r = child(BOMBS)
    said = [json.loads(line) for line in r.stdout.splitlines()]
    assert [kind for kind, *_ in said] == ['bomb', 'empty members', 'long name', 'zeros', 'rows'], r.stderr
    for kind, words, seconds, kib in said:
        is_sentence(words, kind)
        assert seconds < 5 and kib < 300 << 10, (kind, seconds, kib)

CTRL_C = '''import json, os, random, shutil, signal, sys, tempfile, threading, time, warnings
from pathlib import Path
from backprop13 import data
from test_data_faults import *
sent = []                                              # no Event: an interrupt inside its lock would keep that
def interrupt():
    try: os.kill(os.getpid(), signal.SIGINT)
    finally: sent.append(True)
def wait():
    stop = time.monotonic() + 30
    while not sent and time.monotonic() < stop: time.sleep(.005)
    time.sleep(.02)
def when(f, before=True):
    def g(*args, **kwargs):
        if before: interrupt(); time.sleep(.05)
        res = f(*args, **kwargs)
        if not before: interrupt(); time.sleep(.05)
        return res
    return g
def attempt(play, cache, delay):
    sent.clear()
    with Mirror(play) as m:
        start = time.monotonic()
        try:
            if delay is not None: threading.Timer(delay, interrupt).start()
            data.mnist_files(mirrors=[m.url], sums=SUMS, cache_dir=cache)
            wait(); res = 'done'
        except KeyboardInterrupt: res = 'stopped'
        assert time.monotonic() - start < 30, 'slow to stop'
    wait()
    assert sent
    stray = {p.name for p in cache.rglob('*') if p.is_file() and FILES.get(p.name) != p.read_bytes()}
    assert not stray, stray
    with Mirror(good) as m: assert data.mnist_files(mirrors=[m.url], sums=SUMS, cache_dir=cache) == (FILES, 'MNIST')
    return res
def phase(play=good, delay=None, **hooks):
    with new_cache() as cache, mock.patch.multiple(data, **hooks) if hooks else contextlib.nullcontext():
        return attempt(play, cache, delay)
warnings.simplefilter('error')
def before_headers(talk, name): interrupt(); talk.stall()
def in_the_body(talk, name): talk.head('Content-Length: 5000'); talk.say(b'a'); interrupt(); talk.stall()
def once(f, before=True):
    todo = [when(f, before)]
    return lambda *args, **kwargs: (todo.pop() if todo else f)(*args, **kwargs)
res = {'before the headers': phase(before_headers), 'in the body': phase(in_the_body),
       'unpacking': phase(unzipped=once(data.unzipped)), 'checking': phase(check_sum=once(data.check_sum, False)),
       'saving': phase(_replace=once(data._replace)), 'saved': phase(_replace=once(data._replace, False)),
       'reading the cache': phase(read_file=once(data.read_file))}
for what in ('before renaming', True), ('after renaming', False):
    with mock.patch.object(os, 'replace', once(os.replace, what[1])): res[what[0]] = phase()
some = random.Random(13)
at_random = [phase(delay=some.random()*.05) for _ in range(40)]
print(json.dumps([res, at_random]))
'''

def test_ctrl_c_in_each_phase():
    "A real signal at nine places, and at forty moments: the program stops at once, the next finds only good files."
    r = child(CTRL_C)
    assert not r.returncode, r.stderr
    phases, at_random = json.loads(r.stdout)
    assert set(phases.values()) == {'stopped'} and len(phases) == 9, phases
    assert set(at_random) <= {'stopped', 'done'} and at_random.count('stopped') > 5, at_random

def test_two_processes_with_bad_mirrors(tmp_path):
    "One breaks off, one sends old files, the third is good; a file in the cache is damaged."
    code = '''import sys, json, warnings; from backprop13.data import mnist_files
warnings.simplefilter('ignore')
files, source = mnist_files(mirrors=sys.argv[3:], sums=json.loads(sys.argv[1]), cache_dir=sys.argv[2])
print(source, sum(map(len, files.values())))'''
    fill(tmp_path/'mnist', {IMAGES: OLD[IMAGES]})
    plays = ERRORS['closes early'][0], ERRORS["yesterday's file"][0], late
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(Mirror(play)).url for play in plays]
        assert run_two(code, json.dumps(SUMS), str(tmp_path),
                       *urls) == [f'MNIST {sum(map(len, FILES.values()))}\n']*2
    assert contents(tmp_path/'mnist') == FILES

@contextlib.contextmanager
def tiny_disk(folder, size):
    folder.mkdir()
    r = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'backprop13', folder],
                       capture_output=True, text=True) if shutil.which('mount') else None
    if not r or r.returncode:
        pytest.skip(f'no disk of {size} bytes can be had here: {r.stderr.strip() if r else "there is no mount"}')
    try: yield folder
    finally: subprocess.run(['umount', '-l', folder], check=True)

def test_a_disk_that_is_full(tmp_path):
    page = resource.getpagesize()
    with tiny_disk(tmp_path/'disk', 4*page) as cache, Mirror(good) as m, Library() as lib:
        (cache/'mine').write_bytes(bytes(2*page))
        with pytest.warns(lib.data.DataWarning) as said:
            assert lib.data.mnist_files(mirrors=[m.url], sums=SUMS, cache_dir=cache) == (FILES, 'MNIST')
        assert len(said) == 1
        is_sentence(str(said[0].message), "can't be written (No space left on device)",
                    'set XDG_CACHE_HOME to a folder that can')
        kept = contents(cache/'mnist')
        assert kept.items() < FILES.items() and kept and (cache/'mine').read_bytes() == bytes(2*page)

@contextlib.contextmanager
def nobody():
    "Root may read and write anything; for a moment be a user who may not."
    if os.geteuid(): yield; return
    try: os.seteuid(65534)
    except OSError as e: pytest.skip(f'root can be no other user here: {e}')
    try: yield
    finally: os.seteuid(0)

@pytest.fixture
def own_folder():
    "A folder in which that user may write"
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)

def test_a_cache_that_becomes_read_only(own_folder):
    "After its first file; then it is as unreadable, and the data come all the same."
    def play(talk, name):
        if name == LABELS: (own_folder/'mnist').chmod(mode)
        good(talk, name)
    with Library() as lib, Mirror(play) as m:
        lib.data.download([m.url], IMAGES, SUMS[IMAGES])              # imports what is imported late
        for mode in 0o500, 0:
            with nobody():
                if not os.access(own_folder, os.W_OK, effective_ids=True):
                    pytest.skip(f'{own_folder} is out of reach for other users')
                with pytest.warns(lib.data.DataWarning) as said:
                    assert lib.data.mnist_files(mirrors=[m.url], sums=SUMS, cache_dir=own_folder) == (FILES,
                        'MNIST')
                assert len(said) == 1
                is_sentence(str(said[0].message), "can't be written (Permission denied)",
                            'set XDG_CACHE_HOME to a folder that can')
                (own_folder/'mnist').chmod(0o700)
                assert contents(own_folder/'mnist') == {IMAGES: FILES[IMAGES]}

def test_a_folder_that_may_not_be_read(own_folder):
    fill(own_folder/'d')
    for path in own_folder/'d'/LABELS, own_folder/'d':
        path.chmod(0)
        with nobody():
            with pytest.raises(OSError) as e: data.mnist_files(str(own_folder/'d'), sums=SUMS)
        path.chmod(0o700)
        is_sentence(str(e.value), f"{own_folder/'d'} can't be read (", 'Permission denied',
                    'let BACKPROP13_DATA name a folder that can')
