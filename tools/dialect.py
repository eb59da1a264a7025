"""Jupyter reads a notebook's Markdown as CommonMark with tables, and takes formulas out first; pandoc reads its own
dialect, which the line `from` of _quarto.yml brings near to that. `differences` finds where a text would still look
otherwise on the site than in Jupyter."""
import re, subprocess
from collections import Counter
from html.parser import HTMLParser

JUPYTER = 'commonmark+pipe_tables+strikeout+task_lists+autolink_bare_uris'
BLOCK = r'(?!\n[ \t]*\n)'
CODE = (r'(?m:^ {0,3}(?P<fence>`{3,}|~{3,})[\s\S]*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z))'
        rf'|(?P<ticks>`+)(?:{BLOCK}[\s\S])*?[^`](?P=ticks)(?!`)')
MATH = (rf'(?P<tex>\$\$(?:{BLOCK}(?:\\.|(?!\$\$)[^\\]))+\$\$|\$(?:{BLOCK}(?:\\[^\n]|[^\\$]))+\$'
        r'|\\begin\{(?P<env>[a-z]*\*?)\}[\s\S]*?\\end\{(?P=env)\})')
TABLE = (r'(?<=\S)(?P<table>\n)'                                               # straight after a line of text
         r'(?=[^\n]*\|[^\n]*\n *\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?(?:\n|\Z))')
VOID = {'area', 'br', 'col', 'hr', 'img', 'input', 'source', 'wbr'}


def numbered(text):
    "Markdown with a word in the place of each formula, and these; an empty line parts text from a table"
    found = []
    def f(m):
        if not m['tex']: return '\n\n' if m['table'] else m[0]
        found.append(' '.join(m['tex'].strip('$').split()))
        return f'FORMULA{len(found)}'
    return re.sub(rf'{CODE}|\\\$|{MATH}|{TABLE}', f, text, flags=re.S), found


class Shown(HTMLParser):
    """HTML as lines, a tag or a text each, without what may differ: ids, comments, spaces, classes of quotes. Its
    formulas come after them, and a word in the place of each."""
    def __init__(self, page):
        super().__init__()
        self.lines, self.words, self.tex, self.math = [], '', [], False
        self.open, self.option = Counter(), None
        self.feed(page)
        self.close()
        self.tag()
        self.lines += [' '.join(o.split()) for o in self.tex] + ['']

    def tag(self, tag=''):
        "A tag ends a text"
        if re.match(r'</?col', tag): tag = ''
        self.lines += filter(None, [' '.join(self.words.split()), tag])
        self.words = ''

    def handle_starttag(self, tag, attrs):
        self.open[tag] += tag not in VOID
        self.math = tag == 'span' and (dict(attrs).get('class') or '').startswith('math ')
        if self.math:
            self.tex.append('')
            self.words += f'FORMULA{len(self.tex)}'
        else:
            kept = (f' {k}="{v}"' for k, v in attrs if k not in ('id', 'class') and (k, v) != ('type', '1'))
            self.tag(f'<{tag}{"".join(kept)}>')

    def handle_startendtag(self, tag, attrs): self.handle_starttag(tag, attrs)       # in HTML the slash says nothing

    def handle_endtag(self, tag):
        self.open[tag] -= tag not in VOID
        if self.math: self.math = False
        else: self.tag(f'</{tag}>')

    def handle_data(self, text):
        if self.math: self.tex[-1] += text
        else: self.words += text
        if not self.math and not self.open['code'] and not self.open['pre']:
            self.option = self.option or next((o for o in text.split() if re.match(r'--\w', o)), None)


def read(texts, pandoc, format):
    "The HTML of each of `texts`, which pandoc reads as one; None for one that swallowed the next, or was itself"
    marks = [f'TEXT{k}ENDS' for k in range(len(texts))]
    how = '-t html5 --katex --wrap=none --columns=9999 --no-highlight'.split()
    text = '\n\n'.join(o for pair in zip(texts, marks) for o in pair)
    said = subprocess.run([pandoc, '-f', format, *how], check=True, input=text, capture_output=True, text=True,
                          encoding='utf-8').stdout
    parts = re.split(r'<p>TEXT(\d+)ENDS</p>', said)
    found = dict(zip(map(int, parts[1::2]), parts[::2]))
    return [found.get(k) if not k or k-1 in found else None for k in range(len(texts))]


def differences(texts, pandoc, format):
    "For each text that the site would show otherwise: its number, what Jupyter shows, and the site"
    jupyter = [numbered(s) for s in texts]
    pages = read([s for s, _ in jupyter], pandoc, JUPYTER), read(texts, pandoc, format+'-smart')
    for k, ((_, tex), there, here) in enumerate(zip(jupyter, *pages)):
        if there is None or here is None:
            yield k, 'its end', 'none: code or a comment stays open'
            return
        there, here = Shown(there), Shown(here)
        there.lines[-1:] = [*tex, '']
        option, open_ = there.option, [o for o, n in here.open.items() if n]
        other = next(((a, b) for a, b in zip(there.lines, here.lines) if a != b), None)
        if other: yield k, *other
        elif option: yield k, option, option.replace('--', '–')      # between words it's the dash that was meant
        elif open_: yield k, f'<{open_[0]}> to the end of its cell', 'it to the end of the page'
