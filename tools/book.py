"""The lesson as a book: `make book` writes _book/backprop13.epub, and backprop13.pdf where Typst is installed.

A chapter's Markdown, as tools/site.py has it, becomes pandoc's tree. Answers, and code that a page folds, move to the
end of the book, and each has a number, a link there and a link back; code that draws is left out. Of a lab stays its
picture, of a card its first line. pandoc writes the EPUB, its formulas as MathML, and what Typst sets as the PDF."""
import json, re
from pathlib import Path
from posixpath import dirname, join, normpath

from selectolax.lexbor import LexborHTMLParser

HERE = Path(__file__).resolve().parent
PREFACE = """# Before you start

Each chapter is a notebook whose code was run, and what stands below a cell is what it printed. Where the text asks
you to predict, write your answer down first. [Our answers](#answer) stand at the end of the book, and so does
[the code](#code) that you can read on without. A lab is a picture here; the site's labs move, and each page of the
site has its notebook."""
ENDS = {'Answer': 'Answers', 'Code': 'Code left out of the chapters'}
# what a class looks like in the PDF; tools/book.css says it for the EPUB
COLORS = {'inputs': '0072B2', 'weights': 'B35900', 'activations': '007A5A', 'gradients': 'A0307A', 'loss': '444444'}
TYPST = {k: {'text:fill': f'rgb("#{v}")'} for k, v in COLORS.items()} | {
    'aside': {'text:size': '0.85em', 'text:fill': 'luma(35%)'},
    'ask': {'fill': 'rgb("#f0f4fb")', 'inset': '8pt', 'width': '100%', 'breakable': 'false',
            'stroke': '(left: 2pt + rgb("#0072B2"))'}}
WIDE = 600    # pixels, from which on a picture is as wide as the page


def name(nb): return re.sub(r'(^|/)\d+[a-zA-Z0-9]*_', r'\1', nb.removesuffix('.ipynb'))
def node(kind, *parts): return {'t': kind, 'c': parts[0] if len(parts) == 1 else [*parts]}
def attr(i='', *classes, **more): return [i, [*classes], [[k, v] for k, v in more.items()]]
def words(s): return [o for w in s.split() for o in (node('Str', w), {'t': 'Space'})][:-1]
def link(s, to): return node('Link', attr(), words(s), [to, ''])
def aside(*inlines): return node('Para', [node('Span', attr('', 'aside'), [*inlines])])
def div(o, cls): return o['t'] == 'Div' and cls in o['c'][0][1]
def holds(o, text): return f'"{text}"' in json.dumps(o)


def change(o, f):
    "A tree with each element replaced by the list that `f` returns for it, from the leaves up; None keeps it"
    if isinstance(o, dict): return {k: change(v, f) for k, v in o.items()}
    if not isinstance(o, list): return o
    done = [change(e, f) for e in o]
    new = [f(e) if isinstance(e, dict) and 't' in e else None for e in done]
    return [e for old, n in zip(done, new) for e in ([old] if n is None else n)]


class Chapter:
    "A chapter of the book from its page: blocks, and those that go to the end"
    def __init__(self, title, page, heads, base, blocks):
        self.title, self.page, self.heads, self.base = title, page, heads, base
        self.id, self.ends = name(page.nb), {k: [] for k in ENDS}
        said = node('Para', [node('Emph', words(page.front.get('description', '')))])
        inner = self.questions(change(blocks, self.plain))
        self.blocks = [node('Header', 1, attr(self.id), words(title)), said, *inner]

    def plain(self, o):
        "An element as a book has it"
        if o['t'] in ('Header', 'Span', 'Div'):
            own = o['c'][o['t'] == 'Header']
            own[0] = own[0] and f'{self.id}-{own[0]}'
            if div(o, 'cell'): o['c'][1] = self.folded(o['c'][1])
            return [] if o['t'] == 'Div' and not o['c'][1] else None
        if o['t'] == 'Link': return self.linked(o)
        if o['t'] == 'Math': o['c'][1] = spaced(o['c'][1])
        if o['t'] == 'Para' and not o['c']: return []
        if o['t'].startswith('Raw') and o['c'][0] == 'html': return self.from_html(o['c'][1])

    def from_html(self, s):
        "What stands there for a piece of HTML: the start and end of a fold stay for `folded`"
        if s == '<br>': return [{'t': 'LineBreak'}]
        if re.match('<details class="code-fold"|</details>', s): return None
        tree = LexborHTMLParser(s, is_fragment=True)
        if s.startswith('<pre'): return [node('CodeBlock', attr('', 'output'), tree.text().rstrip())]
        if s.startswith('<details class="proof"'): return [aside(*words(tree.css_first('summary').text()))]
        if not (img := tree.css_first('img')): return []
        size = {'width': f"{img.attrs['width']}px"} if 'width' in img.attrs else {}
        picture = node('Image', attr(**size), words(img.attrs['alt']), [img.attrs['src'], ''])
        return [node('Para', [picture]), *(aside(*words(o.text())) for o in tree.css('figcaption'))]

    def linked(self, o):
        "A link within the book, or to the site where it is public; else only its words"
        url, _, frag = o['c'][2][0].partition('#')
        if re.match('[a-z]+:', url): return None
        nb = normpath(join(dirname(self.page.nb), url)) if url else self.page.nb
        if nb in self.heads:     # an address that no heading has is gone
            o['c'][2][0] = f'#{name(nb)}' + (f'-{frag}' if frag in self.heads[nb] else '')
        elif self.base and nb != 'reference.ipynb':
            o['c'][2][0] = f'{self.base}{name(nb)}.html' + (f'#{frag}' if frag else '')
        else: return o['c'][1]

    def folded(self, blocks):
        "A cell's blocks, without its folded code"
        k = next((k for k, o in enumerate(blocks) if o['t'] == 'RawBlock' and ' open>' not in o['c'][1]), None)
        if k is not None:
            said = re.sub('^Code(: )?', '', LexborHTMLParser(blocks[k]['c'][1]).css_first('summary').text())
            blocks[k:k+3] = [] if holds(blocks, 'Image') else self.moved('Code', words(said), [blocks[k+1]])
        return [o for o in blocks if o['t'] != 'RawBlock']

    def questions(self, blocks):
        "The blocks, without answers"
        def asks(o): return o['t'] == 'Para' and o['c'][0]['t'] == 'Strong' and holds(o['c'][0], 'Predict:')
        def ends(o): return o['t'] in ('Header', 'BlockQuote') or asks(o) or div(o, 'ask') or holds(o, 'cell-output')
        res = []
        while blocks:
            o, *blocks = blocks
            if div(o, 'ask'): question, answer = o['c'][1][0]['c'], o['c'][1][1:]
            elif asks(o) and blocks and div(blocks[0], 'cell'):
                n = next((k for k, b in enumerate(blocks) if k and ends(b)), len(blocks))
                question, answer, blocks = o['c'], self.questions(blocks[:n]), blocks[n:]
            else:
                res += o['c'][1] if div(o, 'cell') or div(o, 'cell-output') else [o]
                continue
            to = self.moved('Answer', question, answer)
            res.append(node('Div', attr('', 'ask'), [node('Para', question), *to]))
        return res

    def moved(self, end, said, blocks):
        "Put blocks at an end of the book; returns what leads there"
        n = f"{self.title.split(' · ')[0]}.{len(self.ends[end])+1}"
        there, back = f'{end.lower()}-{n}', f'{self.id}-{end.lower()}-{n}'
        head = node('Header', 3, attr(there), [link(n, f'#{back}'), {'t': 'Space'}, *said])
        self.ends[end].append([head, *blocks])
        more = [node('Str', ': '), *said] if said and end == 'Code' else []
        return [node('Div', attr(back), [aside(link(f'{end} {n}', f'#{there}'), *more)])]


def dressed(o):
    "An element with what Typst needs: the looks of its classes, pictures within the page"
    if o['t'] in ('Span', 'Div'):
        looks = [kv for c in o['c'][0][1] for kv in TYPST.get(c, {}).items()]
        o['c'][0][2] += [[f'typst:{k}', v] for k, v in looks]
    if o['t'] == 'Image':
        o['c'][0][2] = [[k, '100%' if float(v.removesuffix('px')) > WIDE else v] for k, v in o['c'][0][2]]


def spaced(tex):
    "A formula whose aligned equations stand apart, where several share a line; LaTeX does that by itself"
    if '{aligned}' not in tex: return tex
    return r'\\'.join(re.sub('(&[^&]*)&', r'\1& \\qquad ', row) for row in tex.split(r'\\'))


def readable(text):
    "A chapter's Markdown with its questions as pandoc's own, not as HTML, and without addresses that only links use"
    def ask(m): return f"\n:::: {{.ask}}\n{re.sub('</?code>', '`', re.sub('</?em>', '*', m[1]))}\n\n{m[2]}\n::::\n"
    text = re.sub(r'^<details><summary>(.*?)</summary>\n(.*?)^</details>$', ask, text, flags=re.M | re.S)
    return re.sub(r'<a id=".*?"></a>', '', text)


def written(rows, folder, out, run, pandoc, config):
    """Write the book of `rows`, (title, page), whose pictures lie in `folder`, into the folder `out`; returns the
    files. `run` runs a program, and says in one sentence what failed."""
    def tree(what, text):
        return json.loads(run([pandoc, '-f', config['from'], '-t', 'json', '--columns=9999'], what, input=text))
    base = config['base'] if config['public'] else ''
    trees = {p.nb: tree(f'nbs/{p.nb}: pandoc', readable(p.md))['blocks'] for _, p in rows}
    heads = {nb: {o['c'][1][0] for o in blocks if o['t'] == 'Header'} for nb, blocks in trees.items()}
    chapters = [Chapter(t, p, heads, base, trees[p.nb]) for t, p in rows]
    doc = tree('pandoc', PREFACE)
    doc['blocks'] += sum((o.blocks for o in chapters), [])
    for end, title in ENDS.items():
        doc['blocks'].append(node('Header', 1, attr(end.lower()), words(title)))
        for o in chapters:
            head = node('Header', 2, attr(f'{end.lower()}-of-{o.id}'), words(o.title))
            doc['blocks'] += [head, *sum(o.ends[end], [])] if o.ends[end] else []
    doc['meta'] = {k: node('MetaString', v) for k, v in {
        'title': config['site'], 'subtitle': config['said'], 'author': config['author'], 'lang': 'en',
        'identifier': config['base'], 'rights': f"© {config['copyright']} · Apache-2.0",
        'papersize': 'a4', 'fontsize': '10.5pt', 'page-numbering': '1'}.items()}
    doc['meta']['margin'] = node('MetaMap', dict.fromkeys('xy', node('MetaString', '2.3cm')))
    out.mkdir(exist_ok=True)
    def convert(tree, file, *how):
        how = [*how, '--standalone', '--toc', '--toc-depth=2', '--fail-if-warnings', f'--resource-path={folder}']
        run([pandoc, '-f', 'json', *how, '-o', file], 'pandoc', input=json.dumps(tree))
        return file
    epub, pdf = (out/f"{config['site']}.{o}" for o in ('epub', 'pdf'))
    convert(doc, epub, '-t', 'epub3', '--mathml', '--split-level=1', f"--css={HERE/'book.css'}")
    try: import matplotlib, typst
    except ImportError: return [epub]
    for f in folder.rglob('*.svg'):    # Typst has no sans-serif of its own
        f.write_text(re.sub('font-family="[^"]*"', 'font-family="DejaVu Sans"', f.read_text('utf-8')), 'utf-8')
    source = convert(change(doc, dressed), folder/'book.typ', '-t', 'typst', '--syntax-highlighting=idiomatic',
                     '-H', HERE/'book.typ')
    typst.compile(str(source), output=str(pdf), root=str(folder), ignore_system_fonts=True,
                  font_paths=[f'{matplotlib.get_data_path()}/fonts/ttf'])
    return [epub, pdf]
