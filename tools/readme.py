"""README.md from the site's home page, nbs/index.ipynb, and nbs/install.ipynb: `python tools/readme.py` writes it,
`--check` only compares."""
import json, re, sys
from pathlib import Path
from posixpath import normpath

from settings import cell_options

ROOT = Path(__file__).resolve().parent.parent


def links(s):
    "Markdown whose links point into the repository"
    return re.sub(r'\]\((?![a-z]+:|#)([^)#]+)', lambda m: '](' + normpath('nbs/' + m[1]), s)


def block(s, lang=''): return f'```{lang}\n{s.rstrip()}\n```'


def output(o):
    "One stored output, as text"
    data = o.get('data', {})
    if 'text/markdown' in data: return links(''.join(data['text/markdown']))
    if 'text/html' in data: return ''                       # a lab stays on the site
    s = ''.join(o.get('text', data.get('text/plain', '')))
    return block(s) if s.strip() else ''


def cell(c):
    "One cell as Markdown; nothing for a hidden one"
    src = ''.join(c['source'])
    if src.startswith('<!-- not in README -->'): return ''
    if c['cell_type'] == 'markdown': return links(src)
    said, code = cell_options(src)
    if re.search(r'^#\|\s*hide$', src, re.M) or said.get('include') is False: return ''
    shown = [block(code, 'python')] if code and said.get('echo') is not False else []
    return '\n\n'.join(filter(None, shown + [output(o) for o in c['outputs']]))


def main():
    home, install = (json.loads((ROOT/f'nbs/{n}.ipynb').read_text(encoding='utf-8'))['cells']
                     for n in ('index', 'install'))
    made = '<!-- Made from nbs/index.ipynb and nbs/install.ipynb by make readme. Edit those. -->'
    parts = [made, *map(cell, home), *map(cell, install[1:])]
    text, file = '\n\n'.join(p.strip() for p in parts if p.strip()) + '\n', ROOT/'README.md'
    if sys.argv[1:] == ['--check']:
        if not file.exists() or file.read_text(encoding='utf-8') != text:
            sys.exit('README.md is not what nbs/index.ipynb and nbs/install.ipynb make; run: make readme')
    elif sys.argv[1:]: sys.exit(f'readme.py: got {" ".join(sys.argv[1:])}, knows only --check')
    else: file.write_text(text, encoding='utf-8')


if __name__ == '__main__': main()
