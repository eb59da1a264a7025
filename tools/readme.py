"""README.md from nbs/index.ipynb, the site's home page: `python tools/readme.py` writes it, `--check` only compares."""
import json, re, sys
from pathlib import Path
from posixpath import normpath

from settings import cell_options

ROOT = Path(__file__).resolve().parent.parent


def block(s, lang=''): return f'```{lang}\n{s.rstrip()}\n```'


def output(o):
    "One stored output, as text"
    data = o.get('data', {})
    if 'text/html' in data: return ''                       # a lab stays on the site
    if 'text/markdown' in data: return ''.join(data['text/markdown'])
    s = ''.join(o.get('text', data.get('text/plain', '')))
    return block(s) if s.strip() else ''


def cell(c):
    "One cell as Markdown, its links pointing into the repository; nothing for a hidden one"
    src = ''.join(c['source'])
    if c['cell_type'] == 'markdown':
        return re.sub(r'\]\((?![a-z]+:|#)([^)#]+)', lambda m: '](' + normpath('nbs/' + m[1]), src)
    said, code = cell_options(src)
    if re.search(r'^#\|\s*hide$', src, re.M) or said.get('include') is False: return ''
    shown = [block(code, 'python')] if code and said.get('echo') is not False else []
    return '\n\n'.join(filter(None, shown + [output(o) for o in c['outputs']]))


def main():
    cells = json.loads((ROOT/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']
    parts = ['<!-- Made from nbs/index.ipynb by make readme. Edit that. -->', *map(cell, cells)]
    text, file = '\n\n'.join(p.strip() for p in parts if p.strip()) + '\n', ROOT/'README.md'
    if sys.argv[1:] == ['--check']:
        if not file.exists() or file.read_text(encoding='utf-8') != text:
            sys.exit('README.md is not what nbs/index.ipynb makes; run: make readme')
    elif sys.argv[1:]: sys.exit(f'readme.py: got {" ".join(sys.argv[1:])}, knows only --check')
    else: file.write_text(text, encoding='utf-8')


if __name__ == '__main__': main()
