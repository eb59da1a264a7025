"Where Jupyter's Markdown and the site's differ: what the build renders alike, and what it refuses"
import pytest
from conftest import load_tool, root as ROOT

dialect, site = load_tool('dialect'), load_tool('site')
PANDOC, FORMAT = site.pandoc_path(), load_tool('settings').site(ROOT)['format']['html']['from']


def told(texts, format=FORMAT):
    return {k: (there, here) for k, there, here in dialect.differences(texts, PANDOC, format)}


ALIKE = [
    'A line:\n- a list\n- of two', 'A line:\n1. one\n2. two', 'A line\n## Heading',
    'A line\n> quoted', 'A line:\n```python\nx = 1\n```\nand on', r'the word \alphaZq',
    'H~x~ and a^2^ and ~~gone~~', '@torch.no_grad says', '| no\n| line block', 'A note^[here]',
    'see [Heading]\n\n## Heading', '#5 bolt',
    '- a\n  - b\n    - c', '1. a\n  - b', 'under\n---',
    'https://example.org and <https://example.org>', '- [ ] todo', 'a<br>b <b>c</b>',
    '- and -- and "so" it\'s ...',
    '$$x\n+ y$$ and `$a$` and $|x|$', 'a \\$5 note', r'$\text{costs \$5}$',
    r'$$\text{sums over $\delta$}$$', 'snake_case __init__ *a*b',
    '| a | b |\n|:--|--:|\n| $|x|$ | 2 |', '```\n| a | b |\nx | y\n--|--\n```',
    '<details><summary>s</summary>\n\nshut\n\n</details>', '`call --epochs 3`', '<!-- said -->\n\nso',
    '<!-- <details> -->\n\nso', '<b title="a > b <i>">bold</b>', '<span class="math">x</span>']

def test_what_both_read_alike_passes(): assert told(ALIKE) == {}


REFUSED = {    # text -> a word of what Jupyter shows, a word of what the site would
    'A line\n| a | b |\n|:--|:--|\n| 1 | 2 |': ('A line', '|:--|'),
    'A line\na | b\n--|--\n1 | 2': ('A line', '--|--'), 'born in\n1986. A year': ('1986', ''),
    r'\begin{align} x \end{align}': ('FORMULA1', 'begin'), 'costs $5 or $10': ('FORMULA1', '$5'),
    '$ x $': ('FORMULA1', '$ x $'), '- a\n* b': ('</ul>', '<li>'),
    '[red]{.red}': ('{.red}', '<span>'), '## Head {#own}': ('{#own}', ''),
    '::: {.note}\nx\n:::': ('<p>', '<div>'), '<div>\n**bold**\n</div>': ('**bold**', '<p>'),
    '![alt](a.png)': ('<p>', '<figure>'), '1) one': ('<ol>', '<p>'), '`x`{=html}': ('<code>', 'x'),
    'call it with --epochs 3': ('--epochs', '–epochs'),
    'Term\n: no definition': ('Term : no', 'Term'), '<details>\n\nopen': ('<details>', 'end of the page')}

def test_what_would_look_otherwise_is_refused():
    found = told(list(REFUSED))
    assert set(found) == set(range(len(REFUSED)))
    for (text, (there, here)), (got, other) in zip(REFUSED.items(), found.values()):
        assert there in got and here in other, (text, got, other)

@pytest.mark.parametrize('text', ['```\nopen', '~~~\nopen', '<!-- open'])
def test_what_stays_open_is_told_at_its_own_text(text):
    assert set(told(['One', text, 'Three'])) == {1}


@pytest.mark.parametrize('kind,k',
                         [('lists_without_preceding_blankline', 0), ('-raw_tex', 5),
                          ('-blank_before_header', 2), ('-blank_before_blockquote', 3),
                                    ('-subscript', 6), ('-line_blocks', 8), ('-inline_notes', 9),
                                    ('-implicit_header_references', 10)])
def test_each_part_of_the_line_in_quarto_yml_does_something(kind, k):
    without = FORMAT.replace(kind if kind[0] == '-' else f'+{kind}', '')
    assert without != FORMAT and k in told(ALIKE, without)


def test_the_build_says_in_which_cell(clone, monkeypatch):
    import nbformat
    book = clone/'nbs/teaching.ipynb'
    nb = nbformat.read(book, 4)
    nb.cells[1].source += '\n\nA line\n| a | b |\n|--|--|\n| 1 | 2 |'
    nb.cells += [nbformat.v4.new_code_cell('x',
                                           outputs=[nbformat.v4.new_output('display_data',
                                           {'text/markdown': ['Costs $5 or ', '$10']})])]
    nbformat.write(nb, book)
    for f in (clone/'nbs').rglob('*.ipynb'):
        if f != book: f.unlink()
    monkeypatch.setattr(site, 'ROOT', clone)
    monkeypatch.setattr(site, 'NBS', clone/'nbs')
    one, two = site.read_alike(PANDOC)
    assert one.startswith("nbs/teaching.ipynb, cell 2: Jupyter shows 'A line', the site would "
                          "show 'A line | a | b |") and 'an empty line before' in one
    assert two.startswith(f"nbs/teaching.ipynb, cell {len(nb.cells)}: Jupyter shows 'Costs FORMULA1")
