"Guesses on the website: what a typed text means and what is said of it, in Node; the fields on the page, in Chromium"
import re

import pytest
from conftest import NOTHING_KEPT, axe, node, overflows, read

def told(*calls): return node(read('nbs/assets/predict.js'), *calls)

def shape(*axes): return {'kind': 'shape', 'values': list(axes), 'whole': True}
def number(n): return {'kind': 'number', 'values': [n], 'whole': isinstance(n, int)}
def numbers(*ns): return {'kind': 'numbers', 'values': list(ns), 'whole': all(isinstance(n, int) for n in ns)}
def dtype(name): return {'kind': 'dtype', 'name': name}


# ---- what a text means ----
def test_many_spellings_of_one_answer():
    alike = [
        (shape(50000, 50), '(50000, 50)|50000, 50|[50000,50]|torch.Size([50000, 50])|Size([50000, 50])|50000 x 50|'
                           'torch.Size((50000,50))|50000x50|50 000 × 50|50\u00a0000\u00a0×\u00a050|50\u2009000, 50|'
                           '50\u202f000 x 50|50_000, 50|50,000, 50|(50000; 50)| ( 50000 , 50 , ) |((50000, 50))'),
        (shape(), '()|[]|torch.Size([])|( )'), (shape(1), '(1,)|1,|1|[1]|(1)|torch.Size([1])'),
        (dtype('float32'), 'float32|torch.float32|torch.float| Float32 '),
        (number(10_000_000), '10_000_000|10\u00a0000\u00a0000|10 000 000|10,000,000')]
    cases = [(t, answer) for answer, texts in alike for t in texts.split('|')]
    cases += [('−3', number(-3)), ('-2.6', number(-2.6)), ('6', number(6.0)), ('6.00', number(6)),
              ('(1, 0)', numbers(1, 0)), ('[1, 0]', numbers(1, 0)),
              ('torch.long', dtype('int64')), ('2.28', number(2.2796)), ('0', number(0))]
    for (typed, answer), got in zip(cases, told(*(('judge', t, a) for t, a in cases))):
        assert got == {'right': True, 'say': 'Right.'}, (typed, answer, got)


def test_what_cannot_be_read():
    texts = ['', ' ', '(,)', ',', '5 10', '50 784', '(50', '50)', '(2)(3)', 'a, b', '5,,3', '5x',
             'tensor(29.1131)', 'torch.Size([1]), torch.Size([1])',
             "'a'", 'None', '1.2.3', '--1', '7 = 7', '(1, (2, 3))']
    assert told(*(('parse', t) for t in texts)) == [None]*len(texts)
    assert told(('parse', 'torch.Size([5, 10])'), ('parse', '206'), ('parse', '(6.0, 2)')) == [
        shape(5, 10), number(206), {'kind': 'numbers', 'values': [6, 2], 'whole': False}]


def test_which_outputs_can_be_guessed():
    one = "one = model(x_valid[:1])    # (1, 1), it's small\none[:, 0].shape, one.squeeze(1).shape, one.squeeze().shape"
    cases = [
        ('(torch.Size([1]), torch.Size([1]), torch.Size([]))', one,
         [('one[:, 0].shape', shape(1)), ('one.squeeze(1).shape', shape(1)), ('one.squeeze().shape', shape())]),
        ('torch.Size([5, 784])\n', '(a - a.mean(1)[:, None]).shape',
         [('(a - a.mean(1)[:, None]).shape', shape(5, 784))]),
        ('206', '"""a\nb, c"""; 7*28 + 10', [('7*28 + 10', number(206))]),
        ('(torch.Size([784, 10]), (1, 0))', 'wide.shape, wide.stride()',
         [('wide.shape', shape(784, 10)), ('wide.stride()', numbers(1, 0))]),
        # two pieces, three parts
        ('(tensor(29.1131),\n torch.Size([784, 50]),\n torch.Size([50]))',
         'loss, f("a, (b", g[0, 1]).shape,  # , loss\n', None),
        ('(torch.Size([784, 50]),\n tensor(29.1131))', 'f("a, (b",\n  g[0, 1]).shape, loss',
         [('f("a, (b", g[0, 1]).shape', shape(784, 50))]),
        ('(6.0, 2.0)', 'f([2, 0, 3]), f([2, -3])',
         [('f([2, 0, 3])', {**number(6), 'whole': False}), ('f([2, -3])', {**number(2), 'whole': False})]),
        ('(6.0, 2.0)', 'both', [('both', {**numbers(6, 2), 'whole': False})]),
        ('torch.float32', 'x = 1\nx.dtype', [('x.dtype', dtype('float32'))]),
        ('(5, 10)', 'print(tuple(x.shape))', [('tuple(x.shape)', numbers(5, 10))]),
        ('7', 'for i in x:\n    print(i)', [('', number(7))]),
        ('torch.Size([2, 2, 2, 2, 2])', 'x.shape', [('x.shape', shape(2, 2, 2, 2, 2))])]
    for (output, source, wanted), got in zip(cases, told(*(('answers', o, s) for o, s, _ in cases))):
        if wanted is None: assert [p['label'] for p in got] == ['Part 2', 'Part 3'], got
        else: assert got == [{'label': label, 'answer': answer} for label, answer in wanted], output
    never = ['tensor(2.2796, grad_fn=<NegBackward0>)', '(tensor(1), tensor(2))',
             '[4.0, -2.6, 5.32, -4.18, 7.22, -6.46]', '28 bytes:\n000 001', 'int', "('a', 3)",
             'The size of tensor a (784) must match', 'torch.Size([5, 784, 10]) 1.57 GB', '',
             'nan', '[torch.Size([1])]']
    assert told(*(('answers', o, 'x') for o in never)) == [None]*len(never)


# ---- what is said of a wrong guess ----
WRONG = [
    # typed, the answer, what the sentence must hold
    ('', shape(5, 10), 'Type a shape such as (50, 10)'), ('five', shape(50, 10), 'such as (3, 4)'),
    ('-5, 10', shape(5, 10), 'Type a shape'), ('5.5, 10', shape(5, 10), 'Type a shape'),
    ('float32', shape(5), 'Type a shape'), ('5 10', shape(5, 10), 'Type a shape'),
    ('torch.float32', number(3), 'Type a number such as'), ('?', number(12), 'such as 30'),
    ('?', numbers(3, 4), 'such as (5, 6)'),
    ('(5, 10)', dtype('float32'), 'Type a dtype such as torch.float64'),
    ('?', dtype('float64'), 'such as torch.int8'),
    ('(10000,)', shape(10000, 10000), 'You typed one axis; this shape has more'),
    ('5, 6, 7', shape(5, 6), 'three axes; this shape has fewer'), ('(5,)', shape(), 'fewer'),
    ('()', shape(5), 'no axes'),
    ('(50, 50000)', shape(50000, 50), 'wrong order'), ('(1, 50)', shape(50, 1), 'wrong order'),
    ('3, 1, 2', shape(1, 2, 3), 'wrong order'),
    ('(10000, 1)', shape(10000), 'length one is too many'),
    ('(50000, 50)', shape(50000, 50, 1), 'length one is missing'), ('(1,)', shape(), 'length one is too many'),
    ('()', shape(1), 'length one is missing'), ('(1, 5, 1)', shape(5), 'length one are too many'),
    ('7', shape(1, 7, 1), 'length one are missing'),
    ('(10000, 1)', shape(10000, 10000), 'One of two axes is right; look at the second'),
    ('(2, 7, 8)', shape(2, 3, 4), 'One of three axes is right; look at the second and third'),
    ('(9, 3, 4)', shape(2, 3, 4), 'Two of three axes are right; look at the first'),
    ('(7, 8)', shape(2, 3), 'none of the lengths'), ('(7,)', shape(3), 'the length is not'),
    ('824', number(206), 'factor of four'), ('412', number(206), 'factor of two'),
    ('25.75', number(206), 'factor of eight'), ('20600', number(206), 'zeros'),
    ('207', number(206), 'off by one'),
    ('-206', number(206), 'sign'), ('300', number(206), 'Too large'),
    ('100', number(206), 'Too small'), ('-300', number(-206), 'Too small'),
    ('206, 1', number(206), 'One number'), ('3', number(0), 'Too large'),
    ('2.4', number(2.2796), 'Too large'), ('(0, 1)', numbers(1, 0), 'wrong order'),
    ('(1, 5)', numbers(1, 3), 'second number: too large'),
    ('(7, 5)', numbers(1, 3), 'first and second'), ('7', numbers(1, 3), 'there are more'),
    ('float64', dtype('float32'), 'number of bits'), ('int64', dtype('float32'), 'another kind'),
    ('bool', dtype('int64'), 'another kind'), ('bfloat16', dtype('float16'), 'another kind'),
    ('uint8', dtype('int8'), 'another kind')]

def test_what_is_wrong_is_said():
    for (typed, answer, part), got in zip(WRONG, told(*(('judge', t, a) for t, a, _ in WRONG))):
        assert got['right'] is False and part.lower() in got['say'].lower(), (typed, answer, got)


def test_no_sentence_holds_the_answer():
    "Only an example holds figures, and it is not the answer; whatever is typed and whatever is the answer"
    some = [shape(), shape(1), shape(50, 10), shape(3, 4), shape(10, 50), shape(50, 10, 1),
            shape(2, 3, 4), shape(1, 2), number(0), number(1), number(12), number(30), number(206),
            number(-4), number(2.5),
            numbers(1, 0), numbers(3, 4), numbers(5, 6), numbers(1, 2, 3), dtype('float64'),
            dtype('int8'), dtype('float32'), dtype('bool')]
    texts = ['', '?', '()', '1', '2', '4', '12', '48', '30', '(50, 10)', '(10, 50)', '(1, 50, 10)',
             '3, 4', '(4, 3, 2)', '0, 1', '5, 6', '2.5', 'float64', 'int8', 'bool', '1, 2, 3, 4, 5, 6, 7, 8']
    calls = [('judge', t, a) for t in texts for a in some]+[('judge', t, a) for t, a, _ in WRONG]
    wrong = [(t, a, got['say']) for (_, t, a), got in zip(calls, told(*calls)) if not got['right']]
    assert len(wrong) > 300
    examples = []
    for typed, answer, say in wrong:
        said, _, example = say.removeprefix('You typed 8').partition('such as ')
        assert not re.search(r'\d', said), (typed, answer, say)
        if example: examples.append(('judge', example.removesuffix('.'), answer))
    parsed = told(*(('parse', e) for _, e, _ in examples))
    assert len(examples) > 20 and all(parsed)
    assert not [c for c, got in zip(examples, told(*examples)) if got['right']]


# ---- the fields on the page ----
@pytest.fixture
def backprop(open_page):
    "Opens chapter 3, if no other page is named"
    return lambda address='backprop.html', **settings: open_page(address, reduced_motion='reduce', **settings)


def asked(page, words):
    "The fields and the folded answer of the question that holds `words`"
    question = page.locator('p.predict', has_text=words)
    return (question.locator('xpath=following-sibling::*[1][self::form]'),
            question.locator('xpath=following-sibling::details[1]'))


def test_a_guess_is_typed_and_judged(backprop):
    page = backprop()
    form, answer = asked(page, 'what is the shape of')
    field, verdict = form.get_by_label('Your guess (shape)'), form.locator('[aria-live=polite]')
    assert not answer.locator('.cell-output').is_visible() and verdict.inner_text() == ''
    assert form.get_by_role('button').inner_text() == 'Check'
    field.fill('(10000, 1)')
    field.press('Enter')
    assert verdict.inner_text() == '✗ One of two axes is right; look at the second.'
    assert field.get_attribute('aria-invalid') == 'true'
    assert page.evaluate('document.activeElement.id') == field.get_attribute('id')
    assert not answer.locator('.cell-output').is_visible()
    field.fill('nothing')
    form.get_by_role('button').click()
    assert verdict.inner_text() == '✗ Type a shape such as (50, 10).'
    assert page.locator(f"#{field.get_attribute('aria-describedby')}").inner_text() == verdict.inner_text()
    field.fill('10 000 × 10 000')
    field.press('Enter')
    assert verdict.inner_text() == '✓ Right.' and field.get_attribute('aria-invalid') == 'false'
    assert answer.locator('.cell-output').is_visible() and 'torch.Size([10000, 10000])' in answer.inner_text()


def test_each_part_has_its_field(backprop):
    page = backprop()
    form, answer = asked(page, 'the last layer gets')
    fields = [form.get_by_label(name, exact=True)
              for name in ('i.shape', 'o.shape', '(i*o).shape')]
    for field, text in zip(fields, ('(50000, 50, 1)', '(50000, 1, 1, 1)', '(1, 50000, 50, 1)')): field.fill(text)
    fields[0].press('Enter')
    assert form.locator('.said').all_inner_texts() == ['✓ Right.',
        '✗ An axis of length one is too many.', '✗ An axis of length one is too many.']
    assert form.locator('.verdict').inner_text() == '1 of 3 right.'
    assert not answer.locator('.cell-output').is_visible()
    # the first that is wrong
    assert page.evaluate('document.activeElement.id') == fields[1].get_attribute('id')
    fields[1].fill('[50000, 1, 1]')
    fields[2].fill('50 000 x 50 x 1')
    page.keyboard.press('Enter')
    assert form.locator('.verdict').inner_text() == '✓ 3 of 3 right.'
    assert answer.locator('.cell-output').is_visible()


def test_a_question_for_words_has_no_field(backprop):
    page = backprop('matmul.html')
    for words in ('What is a[0]*b', 'does a - a.mean(1) work'):
        form, answer = asked(page, words)
        assert answer.count() == 1 and not form.count()
    for address, words in (('data.html', 'row 7 and column 10'), ('fitting.html', 'How many parameters'),
                           ('matmul.html', 'in place of the question mark')):
        assert asked(backprop(address), words)[0].count() == 1, words


def hidden(page):
    return page.evaluate("[...document.querySelectorAll('.cell > .cell-output')].filter(o => "
                         "o.hidden).map(o => o.textContent.trim())")

def test_the_shapes_of_a_page_are_guessed_at_will(backprop):
    page = backprop(viewport={'width': 360, 'height': 800})
    button = page.get_by_role('button', name=re.compile(r'Guess the shapes \(\d+\)'))
    n = int(re.search(r'\d+', button.inner_text())[0])
    assert button.get_attribute('aria-pressed') == 'false' and not hidden(page)
    assert not page.locator('.cell > form.guess:visible').count()
    button.press('Enter')
    gone, counter = hidden(page), page.locator('.guesses span')
    assert not page.locator('.reveal form').count() and button.get_attribute('aria-pressed') == 'true'
    assert len(gone) == n > 6 and counter.inner_text() == f'0 of {n} right'
    assert all(re.search(r'torch\.(Size|\w+\d)', text) for text in gone)
    other = page.evaluate("[...document.querySelectorAll('main .cell:not(.reveal *) > "
                          ".cell-output:not([hidden])')].map(o => o.textContent.trim())")
    # none is left over
    assert not [text for text in other if re.fullmatch(r'torch\.Size\(\[[\d, ]*\]\)', text)]
    form = page.locator('.cell', has_text='hidden.shape, out.shape').locator('form.guess').first
    output = form.locator('xpath=following-sibling::*[1]')
    assert form.evaluate("f => f.previousElementSibling.matches('.sourceCode, :has(.sourceCode)')")
    assert not output.is_visible()
    form.get_by_label('hidden.shape').fill('50 000 x 50')
    form.get_by_label('out.shape').fill('(50000, 10)')
    page.keyboard.press('Enter')
    assert form.locator('.verdict').inner_text() == f'✓ 2 of 2 right. 1 of {n} on this page.'
    assert counter.inner_text() == f'1 of {n} right'
    assert output.is_visible() and output.inner_text().startswith('(torch.Size') and len(hidden(page)) == n-1
    button.click()
    assert button.get_attribute('aria-pressed') == 'false' and not hidden(page)
    assert not page.locator('.cell > form.guess:visible').count()
    button.click()
    assert counter.inner_text() == f'1 of {n} right' and output.is_visible() and len(hidden(page)) == n-1


def test_giving_up_shows_and_does_not_count(backprop):
    page = backprop('minibatch_training.html?guess')
    n, form = len(hidden(page)), page.locator('.cell > form.guess').first
    output, show = form.locator('xpath=following-sibling::*[1]'), form.get_by_role('button').nth(1)
    assert show.inner_text() == 'Show' and not output.is_visible()
    show.click()
    assert show.inner_text() == 'Hide' and output.is_visible()
    button = page.locator('.guesses button')
    button.click()
    button.click()
    assert show.inner_text() == 'Hide' and output.is_visible()
    show.click()
    assert show.inner_text() == 'Show' and not output.is_visible()
    form.locator('input').fill(output.text_content())
    page.keyboard.press('Enter')
    assert form.locator('.verdict').inner_text() == '✓ Right.' and output.is_visible()
    assert show.inner_text() == 'Hide'
    assert page.locator('.guesses span').inner_text() == f'0 of {n} right'


def test_the_wish_to_guess_is_kept_for_all_pages(backprop, server):
    page = backprop()
    page.locator('.guesses button').click()
    for name in ('matmul', 'backprop'):
        page.goto(f'{server}{name}.html')
        assert page.locator('.guesses button').get_attribute('aria-pressed') == 'true' and hidden(page), name
    page.locator('.guesses button').click()
    page.goto(server+'matmul.html')
    assert page.locator('.guesses button').get_attribute('aria-pressed') == 'false' and not hidden(page)
    # a link can wish it, too, and once
    page.goto(server+'backprop.html?guess#the-forward-pass')
    assert page.locator('.guesses button').get_attribute('aria-pressed') == 'true' and hidden(page)
    assert page.url == server+'backprop.html#the-forward-pass'
    page.goto(server+'matmul.html')
    assert hidden(page)
    page.go_back()
    page.wait_for_selector('.guesses')
    page.locator('.guesses button').click()
    page.reload()
    assert not hidden(page)


def test_only_chapters_offer_it(backprop):
    for address in ('index.html?guess', 'support/debugger.html?guess', 'data.html?guess'):
        page = backprop(address)
        assert not page.locator('.guesses').count() and not hidden(page), address


def test_it_works_where_nothing_can_be_kept(open_page, server):
    page = open_page('backprop.html')
    page.add_init_script(NOTHING_KEPT)
    page.goto(server+'backprop.html?guess')
    page.wait_for_selector('.guesses')
    assert hidden(page)


def test_paper_shows_answers_and_no_field(backprop):
    page = backprop('backprop.html?guess')
    gone = page.locator('main .cell > .cell-output[hidden]')
    forms = page.locator('form.guess')
    assert gone.count() and not gone.first.is_visible() and forms.first.is_visible()
    page.emulate_media(media='print')
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(o.is_visible() for o in gone.all()) and not any(f.is_visible()
        for f in [*forms.all(), page.locator('.guesses')])
    assert all(o.is_visible() for o in page.locator('details.reveal .cell-output').all())


def test_without_scripts_nothing_is_asked(open_page):
    page = open_page('backprop.html?guess', java_script_enabled=False)
    outputs = page.locator('main .cell > .cell-output')
    assert not page.locator('form.guess, .guesses').count() and outputs.count() > 20
    assert all(o.is_visible() for o in outputs.all())


@pytest.mark.parametrize('scheme,width', [('light', 1440), ('dark', 1440), ('light', 360), ('dark', 360)])
def test_fields_are_accessible(backprop, scheme, width):
    page = backprop('backprop.html?guess', color_scheme=scheme, viewport={'width': width, 'height': 800})
    page.evaluate("""for (const [i, form] of document.querySelectorAll('form.guess').entries()) {
        form.querySelectorAll('input').forEach(f => { f.value = '(50, 10, 1)' })
        if (i % 3) form.requestSubmit()                                    // some wrong, some untouched, all looked up
        form.querySelector('[type=button]')?.click() }""")
    assert page.locator('form.guess button', has_text='Hide').count() > 2
    assert page.locator('form.guess [aria-invalid=true]').count() > 2
    assert axe(page, 'form.guess', '.guesses', '.cell:has(> form.guess)') == [] and not overflows(page)
    hands = page.locator('form.guess :is(input, button), .guesses button').filter(visible=True)
    assert hands.evaluate_all('all => Math.min(...all.map(e => e.getBoundingClientRect().height))') >= 44
