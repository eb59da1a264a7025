"""The notebooks in nbs/practice, from the exercises and the chapters: `python tools/practice.py`
writes them all, and removes what no
longer belongs there; before that, it collects the exercises' tasks and hints for the library.
`--without-solutions FOLDER` writes the same set to FOLDER, to hand out: without the solutions, and with links
to the website.

An exercise notebook has a task, an empty body and a check for each exercise of a page. A shape
notebook asks for shapes, dtypes, whole
numbers and bytes. It is made of the chapter's cells that have a line `#| shapes` at their head: of
their code, less comments and what
only checks, prints or draws, and of the results that they store, each a question. What the code
reads is bound by marked cells, or
imported, from the library or as the chapter does. What the questions' code gives is kept in
backprop13/practice/answers.json, for the site. Tests run each notebook and compare the answers
with what the chapter stores, and with what is kept."""
import ast, builtins, hashlib, io, json, math, os, re, symtable, sys, tokenize
from argparse import ArgumentParser
from functools import cache
from itertools import count
from pathlib import Path

from settings import ini

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {'shapes_matmul': '01_matmul', 'shapes_backprop': '03_backprop', 'shapes_training': '04_minibatch_training',
          'shapes_fitting': '05_fitting'}
# functions that only check, show or draw
ASIDE = r'test_|check|print$|display$|plt\.|labs\.|draw_|use_style$|torch\.set_'
ASKED = {'shape': 'What shape has `{}`?', 'dtype': 'Which dtype has `{}`?', '': 'What is `{}`?',
         'nbytes': 'How many bytes do the numbers of `{}` take?'}


# ---- notebooks

def read(chapter):
    "The cells of a chapter: (type, source, stored result or None)"
    file = ROOT/'nbs'/f'{chapter}.ipynb'
    if not file.is_file(): sys.exit(f'There is no nbs/{chapter}.ipynb, which SHAPES in tools/practice.py or PAGES in '
                                    'nbs/support/exercises.ipynb names: name another there.')
    cells = json.loads(file.read_text(encoding='utf-8'))['cells']
    def result(c): return next((''.join(o['data']['text/plain']) for o in c.get('outputs', [])
                                if 'execution_count' in o), None)
    return [(c['cell_type'], ''.join(c['source']), result(c)) for c in cells]


def written(cells):
    "A notebook without outputs as text, just as nbdev_clean leaves it; each cell is (type, source)"
    res, seen = [], {}
    for kind, source in cells:
        seen[kind, source] = again = seen.get((kind, source), 0) + 1
        id_ = hashlib.sha256(f'{kind} {again}\n{source}'.encode()).hexdigest()[:8]
        cell = dict(cell_type=kind, id=id_, metadata={}, source=source.splitlines(True))
        res.append(cell | (dict(execution_count=None, outputs=[]) if kind == 'code' else {}))
    metadata = dict(kernelspec=dict(display_name='python3', language='python', name='python3'))
    return json.dumps(dict(cells=res, metadata=metadata, nbformat=4, nbformat_minor=5),
                      sort_keys=True, indent=1, ensure_ascii=False) + '\n'


def directives(source): return set(re.findall(r'^#\|\s*(\S+)', source, re.M))
def title(chapter): return re.match('# (.+)', read(chapter)[0][1])[1]
def install(chapter):
    found = [s for _, s, _ in read(chapter) if s.startswith('#| hide') and '%pip install' in s]
    if found: return found[0]
    sys.exit(f'nbs/{chapter}.ipynb has no hidden cell with %pip install: copy that of another chapter.')
def minutes(n): return f'{n} minute' + 's'*(n != 1)
def anchor(heading): return re.sub(r'^[^a-z]+', '',
                                   re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', heading.lower()).strip()))
def link(chapter, heading=''):
    return f"[chapter {int(chapter[:2])}](../{chapter}.ipynb{heading and '#' + anchor(heading)})"


def site_links(source):
    "The same with links to the website in place of the chapters' files"
    c = ini(ROOT)
    site = c['doc_host'] + c['doc_baseurl']
    return re.sub(r'\]\(\.\./([\w/]+)\.ipynb', rf']({site}/\1.html', source)


# ---- names, and where they come from

def names(code):
    "The global names that `code` reads, and those that it binds, by Python's own symbol tables"
    top = symtable.symtable(code, 'code', 'exec')
    tables = [top]
    for t in tables: tables += t.get_children()
    reads = {s.get_name() for t in tables for s in t.get_symbols() if s.is_global() and s.is_referenced()}
    binds = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    own = {n.id for o in ast.walk(ast.parse(code)) if isinstance(o, ast.comprehension)
           for n in ast.walk(o.target) if hasattr(n, 'id')}
    # what a comprehension binds is its own; the tables of Python 3.12 don't say so
    return reads - own, binds - own


def offered(code, module):
    "name -> the line that imports it: what `code` imports, and what it binds, if it is the code of a library `module`"
    res = {}
    for o in ast.parse(code).body:
        if isinstance(o, (ast.Import, ast.ImportFrom)):
            head = ast.unparse(o).split('import ')[0].replace('from . ', 'from backprop13 ').replace('from .',
                'from backprop13.')
            for a in o.names: res.setdefault(a.asname or a.name.split('.')[0], f'{head}import {ast.unparse(a)}')
        elif module: res |= {name: f'from {module} import {name}' for name in names(ast.unparse(o))[1]}
    return res


def merged(lines):
    "Import lines, those from one module made one; other code stays as it is"
    res = {}
    for line in dict.fromkeys(lines):
        head, name = m.groups() if (m := re.fullmatch(r'(from \S+ import )(.+)', line)) else (line, '')
        res[head] = f'{res[head]}, {name}' if head in res else line
    return list(res.values())


# ---- exercises

def tasks():
    """name -> task and hints: the Markdown cells of nbs/support/exercises.ipynb with the name of a
    solution as heading, a paragraph, a list"""
    res = {}
    for kind, source, _ in read('support/exercises'):
        if kind != 'markdown' or not (m := re.match(r'#### `(\w+)` *(?:\n|$)', source)): continue
        task, *hints = (' '.join(o.split()) for o in source[m.end():].split('\n- '))
        if not (task and all(hints) and hints) or m[1] in res:
            sys.exit(f"nbs/support/exercises.ipynb needs one cell '{m[0].strip()}', with the task as a paragraph "
                     "and below it the hints, each on a line that begins with '- ': mend it.")
        res[m[1]] = dict(task=task, hints=hints)
    return res


def exercise_notebook(name, solutions):
    "The cells of a page of exercises"
    from backprop13.practice.exercises import EXERCISES, PAGES, solution, starter
    page, mine = PAGES[name], [e for e in EXERCISES.values() if e.page == name]
    known = {e.name for e in mine} | names(page.imports)[1]
    lines = [page.imports.strip(), *merged(o for e in mine for o in missing(e, starter(e.name), known))]
    imports = '\n'.join([*lines, 'from backprop13.practice.exercises import check, hint, progress'])
    known |= names(imports)[1]
    cells = [('markdown', f'# {page.title}\n\n> {page.subtitle}'),
             ('markdown', f'For after {link(page.chapter)}; {minutes(sum(e.minutes for e in mine))} in all. '
                          'Write the body of each function and run its cell, then the cell with `check`, which says '
                          'what is still wrong. For a hint, call `hint` on it in a new cell; each call gives the next '
                          'one.' +
                          ' The solution is folded below each, for afterwards.'*solutions),
             ('code', install(page.chapter)), ('code', imports)]
    for e in mine:
        score = f'The check refuses the {mistakes()[e.name]} wrong answers that it is tested with.'
        cells += [('markdown', f'## {e.name}\n\n{e.task.strip()}\n\n*{minutes(e.minutes)}. {score}*'),
                  ('code', starter(e.name).strip()),
                  ('code', f'check({e.name})')]
        if solutions:
            code = '\n'.join([*merged(missing(e, solution(e.name), known)), '', solution(e.name)]).strip()
            cells.append(('markdown', f'<details><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>'))
    return cells + [('markdown', '## How far are you?'), ('code', 'progress()')]


@cache
def mistakes():
    "name -> how many wrong solutions of it tests/practice/mistakes.py has"
    sys.path.insert(0, str(ROOT/'tests'/'practice'))
    from mistakes import BY_CARD, BY_KIND, WRONG
    names = [*(name for rows in BY_KIND.values() for name in rows), *(name for name, _ in BY_CARD)]
    return {name: len(rows) + names.count(name) for name, rows in WRONG.items()}


def missing(exercise, code, known):
    """What an exercise's code lacks beside the names `known`: lines that import it, and the source
    of a helper that is no exercise"""
    from backprop13.practice.exercises import EXERCISES
    module = exercise.solution.__module__
    text = (ROOT/f'{module.replace(".", "/")}.py').read_text(encoding='utf-8')
    offers = offered(text, module) | {o.name: ast.get_source_segment(text, o) for o in ast.parse(text).body
                                      if isinstance(o, ast.FunctionDef) and o.name not in EXERCISES}
    return [offers[o] for o in sorted(names(code)[0] - names(code)[1] - known - {*dir(builtins)})]


# ---- shapes: what a marked cell gives

def library(chapter):
    "name -> the line that imports it, for what a chapter imports or has in the library"
    code, res = [source for kind, source, _ in read(chapter) if kind == 'code' and 'hide' not in directives(source)], {}
    module = next(m[1] for o in code if (m := re.match(r'#\| default_exp ([\w.]+)', o)))
    for o in code: res |= offered(o, f'backprop13.{module}' if 'exports' in directives(o) else None)
    return res


def parts(source, shows):
    "The code of a cell that goes into the notebook, and the node of the expression at its end, if it `shows` something"
    lines, body = source.splitlines(), ast.parse(source).body
    for t in tokenize.generate_tokens(io.StringIO(source).readline):
        if t.type == tokenize.COMMENT: lines[t.start[0] - 1] = lines[t.start[0] - 1][:t.start[1]].rstrip() or None
    last = body[-1] if shows else None
    for o in body:
        if o is last or aside(o): lines[o.lineno - 1:o.end_lineno] = [None]*(o.end_lineno - o.lineno + 1)
    return re.sub('\n{3,}', '\n\n', '\n'.join(o for o in lines if o is not None)).strip('\n'), last and last.value


def aside(node):
    "Does the statement only check, print or draw?"
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AugAssign)): return False
    return isinstance(node, ast.Assert) or any(isinstance(o, ast.Call)
                                               and re.match(ASIDE, ast.unparse(o.func)) for o in ast.walk(node))


def questions(node, result, source):
    """What a cell's last expression, `node`, shows and can be guessed, as pairs such as ('x',
    'shape'): shapes and dtypes; whole numbers,
    unless the cell states them; of the first tensor the shape, and the dtype of whole numbers; of
    the largest shape, if large, the bytes"""
    try: value = ast.parse(re.sub(r'grad_fn=<\w+>', 'grad_fn=0', result), mode='eval').body
    except SyntaxError: return []
    res, tensor, sizes = [], False, [(0, '')]
    several = isinstance(node, ast.Tuple) and isinstance(value, ast.Tuple) and len(node.elts) == len(value.elts)
    for n, v in zip(node.elts, value.elts) if several else [(node, value)]:
        attribute = n.attr if isinstance(n, ast.Attribute) and n.attr in ASKED else ''
        x, text = ast.get_source_segment(source, n.value if attribute else n), ast.unparse(v)
        if attribute == 'shape': sizes.append((math.prod(ast.literal_eval(v.args[0])), x))
        if attribute: res.append((x, attribute))
        elif text.startswith('tensor(') and not tensor:
            whole = re.fullmatch(r'tensor\([-\d, \[\]]+\)', text)
            tensor, res = True, res + [(x, 'shape')] + [(x, 'dtype')]*bool(whole)
        elif re.fullmatch(r'-?\d+|\([-\d, ]+\)', text) and f'{x} = {text}\n' not in source: res.append((x, ''))
    return res + [(x, 'nbytes') for n, x in [max(sizes)] if n >= 10**6]


def of(x, attribute):
    "The code `x.attribute`, or `x` without one; with parentheses where they are needed, and only there"
    simple = isinstance(ast.parse(x).body[0].value, (ast.Name, ast.Attribute, ast.Subscript, ast.Call))
    return f'{x}.{attribute}' if attribute and simple else f'({x}).{attribute}' if attribute else x


# ---- shapes: the notebook

def shape_notebook(name):
    "The cells of a notebook that asks for the shapes of a chapter"
    chapter = SHAPES[name]
    imports, cells = steps(chapter)
    imports = [*sorted(imports, key=lambda o: (o.startswith('from'), 'backprop13' in o)),
               'from backprop13.practice.guessing import guess']
    return [('markdown', f'# Shapes: {title(chapter)[0].lower()}{title(chapter)[1:]}\n\n'
                         f'> The steps of chapter {int(chapter[:2])} without their outputs: say what comes'),
            ('markdown', f'For after {link(chapter)}. The code is the chapter’s, as much of it as the questions '
                         'need. Read it, put your guess in the place of the dots, then run the cell: a shape as a '
                         'tuple, a dtype by its name such as `torch.bool`, otherwise a whole number. You may '
                         'calculate: `3*4`.'),
            ('code', install(chapter)), ('code', '\n'.join(merged(imports))), *cells]


def steps(chapter):
    "The import lines that a chapter's marked cells need, and the cells: code, and questions about what it gives"
    offers, bound, asked, third = library(chapter), {'guess', *dir(builtins)}, set(), count()
    imports, cells, heading = [offers['torch']], [], title(chapter)
    def need(reads, source):
        for o in sorted(reads - bound):
            if o not in offers:
                sys.exit(f'{chapter}: a marked cell reads {o}, which no import and no marked cell above it binds; put '
                         f'`#| shapes` at the head of the cell that binds it. The cell that reads it:\n\n{source}')
            imports.append(offers[o])
    for kind, source, result in read(chapter):
        if kind == 'markdown': heading = ([heading] + re.findall(r'^##+ (.+)$', source, re.M))[-1]
        if kind == 'markdown' or 'shapes' not in directives(source): continue
        code, node = parts(source, result is not None)
        for o in ast.parse(code).body:
            reads, binds = names(ast.unparse(o))
            need(reads if isinstance(o, (ast.Assign, ast.AugAssign)) else reads - binds, source)
            bound |= binds
            # a new `x` is asked about anew
            asked = {(x, attribute) for x, attribute in asked if not names(x)[0] & binds}
        new = [q for q in questions(node, result, source) if q not in asked] if node else []
        named = [x for x, attribute in new if attribute == 'shape' and x.isidentifier()]
        if named and next(third) % 3 == 0: new.append((named[-1], 'dtype'))
        asked |= {*new}
        if heading: cells.append(('markdown', f'## {heading}\n\nIn {link(chapter, heading)}.'))
        if code: cells.append(('code', code))
        heading = ''
        for x, attribute in dict.fromkeys(new):
            need(names(x)[0], source)
            cells += [('markdown', ASKED[attribute].format(x)), ('code', f'guess({of(x, attribute)}, ...)')]
    return imports, cells


# ---- shapes: the answers, which the site asks for

def ran(cells):
    "What the code gives that a notebook asks about, in its order; on synthetic digits, which have MNIST's shapes"
    from backprop13.support.pages import ASK
    names, res = {}, []
    os.environ['BACKPROP13_DATA'] = 'synthetic'
    for kind, code in cells:
        if kind != 'code' or 'hide' in directives(code): continue
        if asked := re.fullmatch(ASK, code): res.append(repr(eval(asked[1], names)))
        else: exec(code, names)
    return res


def answers(known):
    "name -> a fingerprint of a shape notebook, and its answers: as they are `known`, unless the notebook has changed"
    res = {}
    for name in SHAPES:
        cells = shape_notebook(name)
        of = hashlib.sha256(repr(cells).encode()).hexdigest()[:8]
        if known.get(name, {}).get('of') == of: res[name] = known[name]
        else: res[name] = dict(of=of, answers=ran(cells))
    return res


# ---- writing

def notebooks(solutions=True):
    "name -> text, of every practice notebook"
    try: from backprop13.practice.exercises import EXERCISES, PAGES
    except (ImportError, AttributeError, LookupError) as e:
        sys.exit(f'{e}. Exercises are made of the library: mend nbs/support/exercises.ipynb or what it imports, '
                 'then nbdev_export.')
    if more := [o for o in tasks() if o not in EXERCISES]:
        sys.exit(f"`{more[0]}` has a task and is no exercise: write a cell with `add` below '#### `{more[0]}`' in "
                 'nbs/support/exercises.ipynb, or take it out, then nbdev_export.')
    res = {name: exercise_notebook(name, solutions) for name in PAGES} | {name: shape_notebook(name) for name in SHAPES}
    if not solutions: res = {name: [(kind, site_links(s)) for kind, s in cells] for name, cells in res.items()}
    return {name: written(cells) for name, cells in res.items()}


def main():
    parser = ArgumentParser(description=__doc__.split(':')[0] + '.')
    parser.add_argument('--without-solutions', metavar='FOLDER', type=Path, help='write a set to hand out to FOLDER')
    out = parser.parse_args().without_solutions
    if out and (ROOT/'nbs').resolve() in (out.resolve(), *out.resolve().parents):
        sys.exit(f'{out} lies in nbs, whose notebooks are the site: name a folder elsewhere')
    sys.path.insert(0, str(ROOT))
    def stored(file, data): file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    kept = ROOT/'backprop13/practice'
    if not out: stored(kept/'exercises.json', tasks())             # first, as the library reads it
    folder, texts = out or ROOT/'nbs/practice', notebooks(solutions=not out)
    folder.mkdir(parents=True, exist_ok=True)
    for f in [] if out else folder.glob('*.ipynb'):
        if f.stem not in texts: f.unlink()
    for name, text in texts.items(): (folder/f'{name}.ipynb').write_text(text, encoding='utf-8')
    if not out:
        file = kept/'answers.json'
        stored(file, answers(json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}))
    if out: print(f'{len(texts)} notebooks without solutions are in {out}.')


if __name__ == '__main__': main()
