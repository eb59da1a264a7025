"""What nbdev hands to Quarto, and what it says where Quarto can't do its work. In Quarto's place a program runs that
keeps what it got."""
import re
from pathlib import Path

import nbformat, pytest, yaml
from conftest import copied, load_tool, read, root as ROOT
from helpers import bin, program, sh

settings = load_tool('settings')
PARTS = 'katex', 'fonts', 'labs', 'codemirror'


def nbdev(command, folder, programs):
    "Run nbdev's `command` in a copy of the project, with only `programs` before the system's own: what it said"
    return sh(bin/command, cwd=folder, PATH=f'{programs}:/usr/bin:/bin', PYTHONPATH=str(folder))


@pytest.fixture(scope='session')
def handed(shared):
    "The folder that Quarto gets from nbdev_docs, in a clone that git made without links"
    def make(folder):
        clone = copied(folder/'clone', __file__)
        (clone/'nbs/_quarto.yml').unlink()
        (clone/'nbs/_quarto.yml').write_text('../_quarto.yml')
        for o in PARTS: (clone/'nbs/assets'/o).mkdir(exist_ok=True)
        program(folder/'programs'/'quarto', 'cp -r . ../handed && mkdir _docs')
        rc, said = nbdev('nbdev_docs', clone, folder/'programs')
        assert rc == 0 and (clone/'_docs').is_dir(), said
    return shared('quarto', make)/'clone/handed'


@pytest.fixture(scope='session')
def books(handed):
    "The notebooks that Quarto gets, by name"
    return {f.relative_to(handed).as_posix(): nbformat.read(f, 4) for f in sorted(handed.rglob('*.ipynb'))}


def prose(nb): return '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown')
def outputs(nb): return [o.data for c in nb.cells for o in c.get('outputs', []) if 'data' in o]


def test_quarto_gets_every_page_and_the_configuration(handed, books):
    assert set(books) == {f.relative_to(ROOT/'nbs').as_posix() for f in (ROOT/'nbs').rglob('[!.]*.ipynb')}
    assert settings.site(handed) == settings.site(ROOT)
    html = settings.site(ROOT)['format']['html']
    assert html['respect-user-color-scheme'] is True
    assert html['html-math-method'] == {'method': 'katex', 'url': 'assets/katex/'}


def test_html_reaches_quarto_as_markdown(books):
    "Else Quarto adds a script from another host to the page, which swallows KaTeX"
    for name, nb in books.items(): assert not [o for o in outputs(nb) if 'text/html' in o], name
    labs = [o for o in outputs(books['02_derivatives.ipynb']) if 'data-lab=' in o.get('text/markdown', '')]
    assert labs and all(re.fullmatch(r'(`{3,})\{=html\}\n.*\n\1\n', o['text/markdown'], re.S) for o in labs)


def test_the_notebook_can_be_downloaded(handed, books):
    for name, nb in books.items():
        first = next(c.source for c in nb.cells if c.cell_type == 'markdown')
        [(href, file)] = re.findall(r'<a href="([^"]+)" download="([^"]+)">Download the notebook</a>', first)
        got = (handed/name).parent.joinpath(href).resolve().read_bytes()
        assert file == Path(name).name and got == (ROOT/'nbs'/name).read_bytes(), name


def test_only_practice_stays_out_of_quartos_search(books):
    front = {name: yaml.safe_load(nb.cells[0].source.strip().strip('-')) for name, nb in books.items()}
    assert {n for n, o in front.items() if o.get('search') is False} == {n for n in books if n[:9] == 'practice/'}
    assert all(o['title'] and o['output-file'] for o in front.values())


def test_names_in_back_ticks_lead_to_the_reference(books, pages):
    "The site without Quarto has the same headings, and pandoc gives them the same addresses"
    said = {name: '\n'.join([prose(nb), *(o.get('text/markdown', '') for o in outputs(nb))])
            for name, nb in books.items()}
    links = {name: re.findall(r'\]\((?:\.\./)*reference\.ipynb#([^)]+)\)', s) for name, s in said.items()}
    assert sum(map(len, links.values())) > 200
    assert not [n for n, s in said.items() if 'backprop13.github.io' in s]
    assert not {i for found in links.values() for i in found} - {*pages['reference.html'].ids}


def promised():
    "Where backprop13._modidx says that names are documented: pairs (page, address)"
    from backprop13._modidx import d
    return {tuple(place.split('#')) for names in d['syms'].values() for place, _ in names.values()}


def test_where_other_projects_are_led_is_a_definition(books, pages):
    assert not {(page, i) for page, i in promised() if i not in pages[page].ids}
    for name, nb in books.items():
        page = re.sub(r'(^|/)\d+_', r'\1', name).replace('.ipynb', '.html')
        given = re.findall(r'<span id="([^"]+)"></span>', prose(nb))
        assert len(given) == len(set(given)) and set(given) == {i for p, i in promised() if p == page}, name
    before = books['03_backprop.ipynb'].cells
    at = next(i for i, c in enumerate(before) if '<span id="lin_grad">' in c.source)
    assert 'def lin_grad(' in before[at+1].source + before[at+2].source



# ---- Bootstrap, which stands under Quarto's pages

# its classes, or their first words
BOOTSTRAP = set("""accordion active alert badge bi blockquote border breadcrumb btn card carousel clearfix col collapse
    collapsed collapsing container disabled dropdown dropend dropstart dropup fade figure hiding hstack initialism
    invisible lead mark modal nav navbar offcanvas pagination placeholder popover progress ratio rounded row shadow
    show showing small table toast tooltip visible vr vstack""".split())

def classes(css):
    return set(re.findall(r'\.([a-zA-Z][\w-]*)', re.sub(r'/\*.*?\*/|\{[^{}]*\}', ' ', css, flags=re.S)))
def taken(css): return {o for o in classes(css) if o.split('-')[0] in BOOTSTRAP}

def test_no_class_of_ours_is_bootstraps():
    for f in 'backprop13/static/lab.css', 'nbs/assets/site.css':
        assert not taken(read(f)), f
    spoilt = '.a .card { x: 1.row } /* .col */ @media (x) { .row:hover, .nav-x { y: 2 } }'
    assert taken(spoilt) == {'card', 'row', 'nav-x'}


def test_what_bootstrap_says_of_elements_is_undone_in_labs():
    "Of captions, legends and tables, which labs have; inline code and links have the colours of both schemes"
    rules = read('nbs/assets/quarto.scss').partition('/*-- scss:rules --*/')[2]
    lab = re.search(r'\.lab \{(.*?\} *\n.*?)\} *\}', rules, re.S)[1]
    selectors = re.sub(r'\{[^{}]*\}', ' ', read('backprop13/static/lab.css'))
    used = set(re.findall(r'(?<![\w.-])(caption|legend|table)\b', selectors))
    assert used and all(re.search(rf'\b{o}\b[^{{}}]*\{{', lab) for o in used)
    assert re.search(r'a:not\(\.btn\) \{ color: var\(--link\)', rules)
    assert re.search(r'code:not\(\.sourceCode\) \{ color: inherit; background-color: var\(--box\)', rules)


# ---- where Quarto can't do its work

@pytest.mark.parametrize('command', ['nbdev_docs', 'nbdev_preview'])
@pytest.mark.parametrize('quarto,without,want', [
    (False, 'katex', 'Quarto is not on the PATH. make serve builds the site without it.'),
    (True, 'katex', 'nbs/assets has no katex yet: run make site once.')])
def test_what_to_do_is_told_in_a_sentence(clone, tmp_path, command, quarto, without, want):
    for f in (clone/'nbs').rglob('*.ipynb'):
        if f.name not in ('teaching.ipynb', 'reference.ipynb'): f.unlink()
    for o in PARTS:
        if o != without: (clone/'nbs/assets'/o).mkdir(exist_ok=True)
    # by which nbdev would install Quarto
    for o in 'sudo', 'pip', 'curl': program(tmp_path/'programs'/o, 'exit 1')
    if quarto: program(tmp_path/'programs'/'quarto', 'exit 0')
    rc, said = nbdev(command, clone, tmp_path/'programs')
    assert rc == 1 and said.strip().splitlines()[-1] == want and 'Traceback' not in said, said


# ---- what is published

def unproved(flow, tests):
    """Why the workflow `flow` might publish another site than the one that the workflow `tests`
    reads in a browser"""
    on = flow[True]                                              # YAML reads the key `on` as true
    if set(on) != {'workflow_run'} or on['workflow_run'] != {'workflows': [tests['name']],
            'types': ['completed'], 'branches': ['main']}: yield 'when'
    build, steps = flow['jobs']['build'], flow['jobs']['build']['steps']
    if not {"github.event.workflow_run.conclusion == 'success'",
            "github.event.workflow_run.event == 'push'"} <= set(build.get('if', '').split(' && ')):
        yield 'if'
    checkout = next(o for o in steps if o.get('uses', '').startswith('actions/checkout@'))
    if checkout['with'].get('ref') != '${{ github.event.workflow_run.head_sha }}': yield 'another commit'
    if [o['run'] for o in steps if 'run' in o] != ['make site'] or 'quarto' in str(flow).lower():
        yield 'another site'
    if steps[-1].get('with') != {'path': '_docs'} or flow['jobs']['deploy'].get('needs') != 'build':
        yield 'another folder'


def flow(name, old='', new=''):
    text = read(f'.github/workflows/{name}')
    assert old in text
    return yaml.safe_load(text.replace(old, new))


def test_the_site_that_the_tests_read_is_published():
    assert not list(unproved(flow('deploy.yml'), flow('test.yml')))

@pytest.mark.parametrize('old,new', [
    ('workflow_run: {', 'push: {branches: [main]}\n  workflow_run: {'), ('[test]', '[weekly]'),
    ("conclusion == 'success'", "conclusion != 'x'"), (" && github.event.workflow_run.event == 'push'", ''),
    ('head_sha', 'head_branch'),
    ('      - run: make site',
     '      - uses: quarto-dev/quarto-actions/setup@8a96df13519ee81fd526f2dfca5962811136661b\n    '
     '  - run: make site'), ('make site', 'nbdev_docs')])
def test_another_site_is_caught(old, new): assert list(unproved(flow('deploy.yml', old, new), flow('test.yml')))
