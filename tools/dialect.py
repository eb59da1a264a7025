"""Jupyter reads a notebook's Markdown as CommonMark with tables, and takes formulas out first; pandoc reads its own dialect, which the line
`from` of _quarto.yml brings near to that. `differences` finds where a text would still look otherwise on the site than in Jupyter."""
import html, re, subprocess

JUPYTER = 'commonmark+pipe_tables+strikeout+task_lists+autolink_bare_uris'
BLOCK = r'(?!\n[ \t]*\n)'
CODE = rf'(?m:^ {{0,3}}(?P<fence>`{{3,}}|~{{3,}})[\s\S]*?(?:^ {{0,3}}(?P=fence)[`~]*[ \t]*$|\Z))|(?P<ticks>`+)(?:{BLOCK}[\s\S])*?[^`](?P=ticks)(?!`)'
MATH = (rf'(?P<tex>\$\$(?:{BLOCK}(?:\\.|(?!\$\$)[^\\]))+\$\$|\$(?:{BLOCK}(?:\\[^\n]|[^\\$]))+\$'
        r'|\\begin\{(?P<env>[a-z]*\*?)\}[\s\S]*?\\end\{(?P=env)\})')
TABLE = r'(?<=\S)(?P<table>\n)(?=[^\n]*\|[^\n]*\n *\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?(?:\n|\Z))'      # straight after a line of text
VOID = {'area', 'br', 'col', 'hr', 'img', 'input', 'source', 'wbr'}


def numbered(pattern, text, tex):
    "`text` with a word in the place of each formula, and the formulas; an empty line parts text from a table"
    found = []
    def f(m):
        if not m['tex']: return '\n\n' if m.groupdict().get('table') else m[0]
        found.append(re.sub(r'\s+', ' ', tex(m['tex'])).strip())
        return f'FORMULA{len(found)}'
    return re.sub(pattern, f, text, flags=re.S), found


def plain(page):
    "HTML without what may differ: ids, comments, spaces, classes of quotes"
    page = re.sub(r' (?:id|class)="[^"]*"| type="1"|<!--.*?-->|</?(?:colgroup|col)\b[^>]*>', '', page, flags=re.S)
    return re.sub(r' *(<[^>]*>) *', r'\n\1\n', re.sub(r'\s+', ' ', page)).replace('\n\n', '\n').strip()


def read(texts, pandoc, format):
    "The HTML of each of `texts`, which pandoc reads as one; None for one that swallowed the next, or was swallowed"
    marks = [f'TEXT{k}ENDS' for k in range(len(texts))]
    said = subprocess.run([pandoc, '-f', format, *'-t html5 --katex --wrap=none --columns=9999 --no-highlight'.split()], check=True,
                          input='\n\n'.join(o for pair in zip(texts, marks) for o in pair), capture_output=True, text=True, encoding='utf-8').stdout
    parts = re.split(r'<p>TEXT(\d+)ENDS</p>', said)
    found = dict(zip(map(int, parts[1::2]), parts[::2]))
    return [found.get(k) if not k or k-1 in found else None for k in range(len(texts))]


def differences(texts, pandoc, format):
    "For each text that the site would show otherwise than Jupyter: its number, what Jupyter shows, and the site"
    jupyter = [numbered(rf'{CODE}|\\\$|{MATH}|{TABLE}', s, lambda s: s.strip('$')) for s in texts]
    pages = read([s for s, _ in jupyter], pandoc, JUPYTER), read(texts, pandoc, format+'-smart')
    for k, ((_, tex), there, here) in enumerate(zip(jupyter, *pages)):
        if there is None or here is None:
            yield k, 'its end', 'none: code or a comment stays open'
            return
        open_ = [o for o in set(re.findall(r'<(\w+)', here)) - VOID if len(re.findall(rf'<{o}\b', here)) != here.count(f'</{o}>')]
        here, own = numbered(r'<span class="math (?:inline|display)">(?P<tex>.*?)</span>', here, html.unescape)
        here, there = ([*plain(o).split('\n'), *t, ''] for o, t in ((here, own), (there, tex)))
        option = re.search(r'(?<!\S)--\w[\w-]*', re.sub(r'<(code|pre)\b.*?</\1>', '', '\n'.join(there), flags=re.S))
        if other := next(((a, b) for a, b in zip(there, here) if a != b), None): yield k, *other
        elif option: yield k, option[0], option[0].replace('--', '–')           # between words it's the dash that was meant
        elif open_: yield k, f'<{open_[0]}> to the end of its cell', 'it to the end of the page'
