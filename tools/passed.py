"""What passed on this machine and hasn't changed since, so that `make test` again needn't try it. CI tries everything.

A notebook depends on its own code and stored outputs, on the modules of backprop13 that it imports, and on theirs; a test file on itself,
on the modules that it names, on the pages that it visits (their code, outputs, headings and questions), or on the whole tree if it asks for
that. Both depend on tools, settings, the labs' files, versions and data. What names no module depends on all. It is a guess, and a mistake
in it shows in CI, which doesn't guess."""
import hashlib, json, re, sys

BASE = r'constraints\.txt|settings\.ini|setup\.py|tools/.*|backprop13/static/.*|nbs/assets/.*|tests/conftest\.py'
WHOLE = r'def \w+\([^)\n]*\b(?:docs|pages|clone|project)\b|/.nbs[\'"]'                 # what reads more than it names
NO_PROSE = r'tests/test_(labs|package)\.py'                                              # and of that, what prose doesn't matter to


def code(text):
    "What a notebook runs and shows; its other cells don't matter to that"
    return json.dumps([(c['source'], c['outputs']) for c in json.loads(text)['cells'] if c['cell_type'] == 'code']).encode()


def bones(text):
    "Its code and outputs, its headings, and the cells that ask"
    prose = [''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'markdown']
    return code(text) + json.dumps([o for s in prose for o in ([s] if '**Predict:**' in s else re.findall('^#.*', s, re.M))]).encode()


def imports(files, text):
    "The files of the modules of backprop13 that `text` names, and of those that these import; all of them if it names none"
    names = set(re.findall(r'backprop13[./](\w+)', text))
    for o in re.findall(r'from backprop13 import ([\w, ]+)', text): names |= set(re.findall(r'\w+', o))
    if not (names := {f'backprop13/{o}.py' for o in names} & set(files)) or 'import_module' in text:
        return {f for f in files if re.fullmatch(r'backprop13/\w+\.py', f)}
    while new := {f'backprop13/{o}.py' for f in names for o in re.findall(r'^ *from \.(\w+) import', files[f].decode(), re.M)} - names: names |= new
    return names


def needs(files, name):
    "The names of the files that the notebook or test file `name` depends on"
    text, book = files[name].decode(), name.endswith('.ipynb')
    used = {name} | imports(files, text) | {f for f in files if re.fullmatch(BASE, f)}
    if book: return used | ({f for f in files if f.startswith('nbs/')} if re.search(r'nbs/|\.ipynb', code(text).decode()) else set())
    if re.search(WHOLE, text): return set(files)
    for o in set(re.findall(r'^from (test_\w+) import', text, re.M)) - {name[6:-3]}: used |= {f'tests/{o}.py'} | imports(files, files[f'tests/{o}.py'].decode())
    pages = re.findall(r'(\w+)\.(?:html|ipynb)', text)
    return used | {f for f in files if f.endswith('.ipynb') and {o := f.split('/')[-1].removesuffix('.ipynb'), re.sub(r'^\d+_', '', o)} & set(pages)}


class Passed:
    "What passed, kept in `file`; where that is None, nothing is known and nothing kept. `files` maps names to contents, `data` says which images there are."
    def __init__(self, files, data, file):
        self.files, self.data, self.file = files, data, file
        self.known = json.loads(file.read_text()) if file and file.exists() else {}

    def fingerprint(self, name):
        "A number for all that `name` depends on; of notebooks, what of them matters to it"
        h, own = hashlib.sha256(f'{sys.version} {self.data}'.encode()), self.files[name].decode()
        part = bytes if name.endswith('.ipynb') or re.search(WHOLE, own) and not re.fullmatch(NO_PROSE, name) else bones
        for f in sorted(needs(self.files, name)):
            text = self.files[f]
            if f.endswith('.ipynb'): text = code(text) if f == name else part(text)
            h.update(f.encode() + hashlib.sha256(text).digest())
        return h.hexdigest()

    def without(self, step, names):
        "Those of the files `names` that must be tried in this step"
        return [o for o in names if not self.file or self.known.get(f'{step} {o}') != self.fingerprint(o)]

    def add(self, step, names):
        if not self.file: return
        self.known |= {f'{step} {o}': self.fingerprint(o) for o in names}
        self.file.write_text(json.dumps(self.known, indent=1))
