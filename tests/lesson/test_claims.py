"""Numbers in prose, and what holds each: the code of its section, from one `## ` heading to the next, states it or
prints it; outputs that vary print nothing. In front of the first heading, and in a last section that sums up, the whole
notebook's code counts. Whole numbers up to 12 aren't looked at, nor exercises' texts. What no computer can check is
named in the cell: `<!-- unchecked: 3.13, Python's version -->`. The mutants: each number, changed in its last digit."""
import io, re, tokenize

import pytest
from conftest import load_tool, root

notebooks = load_tool('notebooks')
SPACE = '[ \u00a0\u202f]'
WORDS = dict(zip('thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty '
                 'forty fifty sixty seventy eighty ninety'.split(),
                 map(str, [*range(13, 20), *range(20, 100, 10)])))
ONES = 'zero one two three four five six seven eight nine'.split()
UNITS = {'%': .01, 'per cent': .01, 'million': 1e6, 'thousand': 1e3, 'kB': 1e3, 'MB': 1e6,
         'GB': 1e9, 'ms': 1e-3, 'µs': 1e-6, 'Gbit/s': 1e9}
DIGITS = rf'\d{{1,3}}(?:{SPACE}\d{{3}})+(?!\d)|\d+(?:\.\d+)?(?:e-?\d+)?'
NUMBER = re.compile(rf'(?<![\w.^/#-])(?P<word>{"|".join(WORDS)})?'
                    rf'(?(word)(?:-(?P<one>{"|".join(ONES)}))?|(?P<digits>{DIGITS}))'
                    rf'(?:{SPACE}?(?P<unit>{"|".join(UNITS)}))?(?![\w/])', re.I)
# images, pixels, hidden units, a batch: the same in all chapters
LESSON = {70000, 50000, 10000, 784, 28, 50, 64}


def prose(text):
    "Markdown's words, without code blocks, tags, addresses, numbers of lists, chapters, workers"
    s = re.sub(r'^(`{3,}).*?^\1|<[^>]*>|https?://\S+|^\s*\d+\.\s', ' ', text, flags=re.S | re.M)
    s = re.sub(r'\]\([^)]*\)', ']', s)
    s = re.sub(r'\$+([^$]*)\$+',
               lambda m: re.sub(r'[{}]', '', m[1].replace(r'\,', '\u00a0').replace('{,}', '')), s)
    return re.sub(r'\b(chapters?|exercises?|worker|rank|Python) \d+(, \d+)*(( to | and )\d+)?', ' ', s,
                  flags=re.I)


def stated(src):
    "The numbers that code states, comments apart"
    try:
        return {abs(complex(t.string.replace('_', '')))
                for t in tokenize.generate_tokens(io.StringIO(src).readline)
                 if t.type == tokenize.NUMBER and t.string[:2].lower() not in ('0x', '0b', '0o')}
    except (tokenize.TokenError, IndentationError): return set()         # a magic command


def printed(cell):
    "The numbers in its outputs"
    texts = [o.get('text', '') + ''.join(o.get('data', {}).get(k, '') + '\n'
                                         for k in ('text/plain', 'text/markdown')) for o in cell.outputs]
    s = re.sub(rf'(?<=\d)(?:,|{SPACE})(?=\d{{3}}(?!\d))', '', '\n'.join(texts))
    return {float(o) for o in re.findall(r'(?<![\w.])(\d+\.?\d*(?:e[+-]?\d+)?)', s)}


def values(cells):
    "What code states or prints, but for cards that readers don't see"
    code = [c for c in cells if c.cell_type == 'code' and not c.source.startswith('#| exports support.cards\n#| hide')]
    return {v for c in code for v in stated(c.source)} | {v for c in code
        if 'output-varies' not in notebooks.directives(c) for v in printed(c)}


def is_held(digits, unit, vals):
    "Does one of the values, rounded as the number is, equal it?"
    text = re.sub(SPACE, '', digits)
    number, places = float(text), len(text.partition('e')[0].partition('.')[2])
    def near(want, unit): return any(abs(v - want) <= (.5*10**-places*unit if places or unit != 1
            else 0) + 1e-9*want for v in vals)
    return near(number, 1) or bool(unit) and near(number*UNITS[unit], UNITS[unit])


def scopes(cells):
    "For each section its pieces, cells with what they hold of it, and the cells whose code holds its numbers"
    pieces = [(c, s) for c in cells
              for s in (re.split('^(?=## )', c.source, flags=re.M) if c.cell_type == 'markdown'
                        else [c.source])]
    starts = [i for i, (c, s) in enumerate(pieces) if c.cell_type == 'markdown' and s.startswith('## ')]
    for a, b in zip([0, *starts], [*starts, len(pieces)]):
        everywhere = a == 0 or pieces[a][1].startswith(('## What was built', '## What you built'))
        yield pieces[a:b], cells if everywhere else [c for c, _ in pieces[a:b]]


def claims(cells):
    "For each number in prose: its cell, the words around it, its digits, its unit, the values that may hold it"
    for section, holders in scopes(cells):
        vals = values(holders)
        for c, text in section:
            if c.cell_type != 'markdown' or text.startswith(('## Exercises', '#### `')): continue
            asides, text = ' '.join(re.findall(r'<!-- unchecked: (.*?) -->', text, re.S)), prose(text)
            for m in NUMBER.finditer(text):
                digits = m['digits'] or str(int(WORDS[m['word'].lower()])
                                            + ONES.index((m['one'] or 'zero').lower()))
                number = float(re.sub(SPACE, '', digits))
                small = number <= 12 and number.is_integer() and not m['unit']
                if small or re.search(rf'(?<![\d.]){re.escape(digits)}(?![\d.])', asides): continue
                around = re.sub(r'\s+', ' ', text[max(0, m.start()-40):m.end()+20])
                yield c, around, digits, m['unit'] and min(UNITS, key=lambda u: u.lower() != m['unit'].lower()), vals


def bare(cells): return [(c, around, digits) for c, around, digits, unit, vals in claims(cells)
                         if not (float(re.sub(SPACE, '', digits)) in LESSON and not unit
                                 or is_held(digits, unit, vals))]


def changed(digits):
    "The number with its last digit that isn't 0 one higher, 9 one lower"
    i = max(i for i, o in enumerate(digits) if o.isdigit() and (o != '0' or not digits.strip('0. ')))
    return digits[:i] + ('8' if digits[i] == '9' else str(int(digits[i]) + 1)) + digits[i+1:]


def read(path): return notebooks.nbformat.read(path, 4).cells
# which only points
files = [o for o in notebooks.notebooks(root/'nbs') if o.parent.name != 'practice' and o.stem != 'lesson_map']


@pytest.mark.parametrize('path', files, ids=lambda o: o.stem)
def test_every_number_in_prose_is_held(path):
    cells = read(path)
    bad = [f'{path.name}, cell {cells.index(c) + 1}: "{around}": no code of the section states or prints {digits}; '
           f'assert it there, or say <!-- unchecked: {digits}, why -->' for c, around, digits in bare(cells)]
    if bad: pytest.fail('\n'.join(bad), pytrace=False)


def test_a_changed_number_is_found(record_property):
    """Of all numbers that hold, nearly each one fails when it is changed; the rest meets another
    number of its section"""
    held, found = 0, 0
    for path in files:
        for c, around, digits, unit, vals in claims(read(path)):
            other = changed(digits)
            held += 1
            found += not (float(re.sub(SPACE, '', other)) in LESSON and not unit or is_held(other, unit, vals))
    print(f'claims: {held}, found when changed: {found}')
    assert held > 200 and found > .9*held, (held, found)


def test_the_lessons_numbers(digits):
    shapes = [len(t) for t in (digits.x_train, digits.x_valid, digits.x_test)]
    of_data = {sum(shapes), *shapes, digits.x_train.shape[1], int(digits.x_train.shape[1]**.5)}
    chosen = values([c for c in read(root/'nbs/04_minibatch_training.ipynb') if ' bs' in c.source
                     or ' nh' in c.source])
    assert of_data <= LESSON and LESSON - of_data == {50, 64} and {50, 64} <= chosen


# ---- accuracies

def lucky(cells):
    "Sentences that state an accuracy without its interval; questions and what others say stand in marks"
    for c in cells:
        if c.cell_type != 'markdown': continue
        for s in re.split(r'(?<=[.:])\s', prose(c.source.partition('## Exercises')[0])):
            s = re.sub(rf'"[^"]*"|[^.]*\?|95{SPACE}%[* ]+interval', '', s)
            if re.search(rf'accura|right|mistake', s) and re.search(rf'\d{SPACE}?%', s) and '±' not in s:
                yield ' '.join(s.split())


@pytest.mark.parametrize('path', files, ids=lambda o: o.stem)
def test_accuracies_have_intervals(path): assert list(lucky(read(path))) == []


# ---- mutants of the check

def notebook(text, code='', output=''):
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
    outs = [new_output('stream', name='stdout', text=output)] if output else []
    return [new_markdown_cell('# T\n\n> S'), new_markdown_cell('## A'),
            new_code_cell(code, outputs=outs), new_markdown_cell(text),
            new_markdown_cell('## B'), new_code_cell('1000 + 13')]


@pytest.mark.parametrize('text,code,output', [
    ('It has 784 pixels.', '', ''), ('All 39 200 weights', 'assert n == 39200', ''),
    ('nearly 96.4 %', '', 'accuracy 96.39'),
    ('a third, 33 %', 'x = 0.331', ''), ('7.8 GB', 'assert 7.75e9 < k < 7.9e9', ''),
    ('in 7.8 GB', '', '7 840 000 000 bytes'),
    ('`(31, 17)`', 'test_eq(x.shape, (31, 17))', ''),
    ('up to 3.13 <!-- unchecked: 3.13, a version -->', '', ''), ('chapter 14', '', ''),
    ('sixteen', 'k = 16', ''), ('Twenty-five', 'k = 25', ''),
    ('$39{,}200$ and $13\\,000$', 'a, b = 39200, 13000', ''), ('only 12', '', ''),
    ('see [17](x#18)', 'x = 17', '')])
def test_what_is_held(text, code, output): assert not bare(notebook(text, code, output))


@pytest.mark.parametrize('text,code,output', [
    ('It has 785 pixels.', '', ''), ('All 39 200 weights', 'assert n == 39201', ''),
    ('nearly 96.4 %', '', 'accuracy 96.34'),
    ('All 39 200 weights', '# 39200', ''),
    ('96.4 %', '#| output-varies\nprint(x)', 'accuracy 96.4'), ('1000 of them', '', ''),
    ('up to 3.13', '', ''), ('up to 3.14 <!-- unchecked: 3.13, a version -->', '', ''),
    ('sixteen', 'k = 17', ''), ('twenty-five', 'k = 20 + 5', ''), ('only 12 %', '', ''),
    ('`(31, 17)`', 'test_eq(x.shape, (31, 18))', ''), ('$13\\,000$', '', '13'), ('0.5', 'x = 5', '')])
def test_what_is_bare(text, code, output): assert len(bare(notebook(text, code, output))) == 1


@pytest.mark.parametrize('text,n', [('It is right for 96.4 % of the images.', 1),
                                    ('The accuracy is 96.4 ± 0.3 %.', 0),
                                    ('You may read that it is "97 % right".', 0),
                                    ('Which accuracy stays below 90 %?', 0), ('3 % interest', 0)])
def test_a_lucky_accuracy(text, n): assert len(list(lucky(notebook(text)))) == n
