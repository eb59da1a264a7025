"""What the project's settings say, each file read by its format's parser: settings.ini, _quarto.yml, and the
options of a cell. `python tools/settings.py` prints the oldest versions that settings.ini allows to who uses the
library; it runs before anything is installed."""
import re
from configparser import ConfigParser, Error
from pathlib import Path


class SettingsError(Exception):
    "A file that can't be read; its text is the whole message"


def ini(folder):
    "The values of settings.ini"
    c = ConfigParser(delimiters=['='], interpolation=None)
    try: c.read_string((folder/'settings.ini').read_text(encoding='utf-8'))
    except Error as e: raise SettingsError(f"settings.ini can't be read: {' '.join(str(e).split())}")
    return c['DEFAULT']


def oldest(folder):
    "What the library and its extras require, each at its lowest version; of programs the newest will do"
    c = ini(folder)
    lists = 'requirements', *(f'{o}_requirements' for o in ('figures', 'labs', 'workbook', 'grade', 'fast'))
    return dict.fromkeys(o.replace('>=', '==') for k in lists for o in c[k].split())


def site(folder):
    "What _quarto.yml says"
    import yaml
    try: res = yaml.safe_load((folder/'_quarto.yml').read_text(encoding='utf-8'))
    except yaml.YAMLError as e: raise SettingsError(f"_quarto.yml is not YAML: {' '.join(str(e).split())}")
    try: res['website']['sidebar']['contents'][0], res['format']['html']['from']
    except (TypeError, KeyError, IndexError):
        raise SettingsError('_quarto.yml lacks website: sidebar: contents, or format: html: from; restore it from git')
    return res


def rows(contents):
    "The pages of the sidebar in their order, as (title, notebook); a section may be a page, too"
    for o in contents:
        title = o.get('text', o.get('section')) if isinstance(o, dict) else None
        if title and isinstance(o.get('href'), str): yield str(title), o['href']
        elif not title or 'contents' not in o:
            raise SettingsError(f'_quarto.yml: a row of the sidebar has text and href; got {o!r}')
        yield from rows(o.get('contents', []))


def cell_options(src):
    "A code cell's `#| key: value` lines as a dict, and its code"
    import yaml
    lines = src.splitlines()
    n = next((i for i, l in enumerate(lines) if not l.startswith('#|')), len(lines))
    head = '\n'.join(l[2:].removeprefix(' ') for l in lines[:n] if re.match(r'#\|\s*[\w-]+:|#\|\s{2,}|#\|\s*-\s', l))
    return yaml.safe_load(head) or {}, '\n'.join(lines[n:]).strip('\n')


if __name__ == '__main__': print(*oldest(Path(__file__).resolve().parent.parent), sep='\n')
