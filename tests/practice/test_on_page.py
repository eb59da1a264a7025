"""Practice that answers on its page: questions, hints, codes, marks and the place that was read, in headless
Chromium; the codes in Python and Node, too."""
import json, random, re

import pytest
from conftest import NOTHING_KEPT, SHIFT, axe, node, overflows, read
from backprop13.practice import exercises
from backprop13.practice.exercises import EXERCISES, PAGES, progress

ALL = sorted(EXERCISES)
ANSWERS = json.loads(read('backprop13/practice/answers.json'))

pytestmark = pytest.mark.usefixtures('progress_elsewhere')


# ---- codes ----
def told(*calls): return node(read('nbs/assets/codes.js'), *calls)


def some_sets():
    draw = random.Random(0)
    some = [[o for o in ALL if draw.random() < p] for p in (.1, .3, .5, .9) for _ in range(9)]
    return [[], ALL, [ALL[0]], [ALL[-1]], *some]


def test_python_and_the_page_write_and_read_the_same_codes():
    codes = [exercises._code(o) for o in some_sets()]
    assert told(*(('written', o[::-1], [*EXERCISES]) for o in some_sets())) == codes and len({*codes}) > 30
    assert all(len(o) < 20 for o in codes)
    for said in '{}', ' {}\n', "progress('{}')", 'Code for the site: `{}`.':
        texts = [said.format(o) for o in codes]
        assert told(*(('read', o.upper(), [*EXERCISES]) for o in texts)) == [{'names': o} for o in some_sets()]
        assert [exercises._named(o) for o in texts] == some_sets()


def test_a_code_with_a_slip_is_refused_with_a_sentence():
    "A sign lost, doubled, changed or of two that changed places; and one of exercises that aren't here"
    code = exercises._code(['lin', 'relu', 'train'])
    bad = {code[:i] + o + code[i:] for i in range(5, len(code) + 1) for o in '0f'} - {code}
    bad |= {code[:i] + code[i+1:] for i in range(5, len(code))}
    bad |= {code[:i] + o + code[i+1:] for i in range(5, len(code)) for o in '0123456789abcdef'} - {code}
    bad |= {code[:i] + code[i+1] + code[i] + code[i+2:] for i in range(5, len(code) - 1)} - {code}
    bad |= {'', 'lin', 'bp13-', f'bp13-{1 << len(ALL):x}-0000', 'x'*999}
    bad = [o for o in bad if not re.fullmatch(code.replace('-', '-0*', 1), o)]         # zeros in front mean nothing
    assert len(bad) > 150
    for o, got in zip(bad, told(*(('read', o, ALL) for o in bad))):
        assert got.keys() == {'wrong'} and re.search('Got .*wanted ', got['wrong'], re.S), (o, got)
        assert len(got['wrong']) < 250, got
        with pytest.raises(ValueError, match='got .*wanted ') as e: exercises._named(o)
        assert len(str(e.value)) < 250
    [got] = told(('read', code, [o for o in ALL if o != 'train']))
    assert 'different exercises' in got.get('wrong', '') or 'speaks of exercise' in got.get('wrong', '')


def test_progress_gives_and_takes_codes():
    assert 'bp13-' not in repr(progress())
    text = repr(progress(exercises._code(['lin', 'relu'])))
    assert all(o in text for o in ('| ✓ | `lin` |  |', '| ✓ | `relu` |  |', exercises._code(['lin', 'relu'])))
    assert '| ✓ | `lin` |' in repr(progress(exercises._code(['mse'])))                 # takes nothing away
    assert exercises._code(['lin', 'mse', 'relu']) in repr(progress())
    before = repr(progress())
    with pytest.raises(ValueError, match='wanted'): progress('bp13-1-0000')
    assert repr(progress()) == before


# ---- pages ----
def kept(page): return json.loads(page.evaluate('localStorage.backprop13 ?? "{}"'))
def mark(page, address): return page.locator(f'.menu a[href$="{address}"] .done')
def marked(page, address): return mark(page, address).inner_text()
def score(page): return page.locator('.score span').inner_text()
def done(page): return page.evaluate("document.querySelector('progress').value")
def scroll(page, to, wait=500):
    page.evaluate(f"scrollTo({{top: {to}, behavior: 'instant'}})")
    page.wait_for_timeout(wait)

def guessed(page, i, text):
    form = page.locator('form.guess').nth(i)
    form.locator('input').fill(text)
    form.locator('input').press('Enter')
    return form.locator('.verdict').inner_text()


@pytest.mark.parametrize('name', ANSWERS)
def test_every_question_has_its_field_and_its_answer(open_page, name):
    book = json.loads(read(f'nbs/practice/{name}.ipynb'))
    asked = [m[1] for c in book['cells'] if (m := re.fullmatch(r'guess\((.+), \.\.\.\)', ''.join(c['source'])))]
    answers, page = ANSWERS[name]['answers'], open_page(f'practice/{name}.html')
    assert page.locator('form.guess').count() == len(asked) == len(answers) > 10
    reveal = page.locator('details.reveal')
    assert [o.strip() for o in reveal.locator('code.sourceCode').all_text_contents()] == asked
    assert 'dots' not in page.locator('main').inner_text() and not reveal.locator('.cell:visible').count()
    for i, answer in enumerate(answers):
        said = guessed(page, i, answer.removeprefix('torch.Size'))
        assert said == f'✓ Right. {i+1} of {len(answers)} right at first try.'
        assert reveal.nth(i).locator('.cell-output').is_visible()
    assert marked(page, f'{name}.html') == '✓' and done(page) == len(answers)


def test_the_score_counts_first_tries_and_is_kept(open_page, server):
    page = open_page('practice/shapes_matmul.html')
    assert score(page) == '0 of 12 right at first try'
    assert not page.get_by_role('button', name='Start again').is_visible()
    assert guessed(page, 0, '(784, 5)') == '✗ The right numbers, in the wrong order.'
    assert guessed(page, 0, '(5, 784)') == '✓ Right. 0 of 12 right at first try, 1 later.'
    assert guessed(page, 1, 'what?') == '✗ Type a shape such as (50, 10).'              # that was no try
    assert guessed(page, 1, '784 x 10') == '✓ Right. 1 of 12 right at first try, 1 later.'
    assert guessed(page, 1, '10, 784').startswith('✗') and score(page) == '1 of 12 right at first try, 1 later'
    page.locator('details.reveal summary').nth(2).press('Enter')
    assert page.locator('details.reveal .cell-output').nth(2).is_visible()
    assert guessed(page, 2, 'float32') == '✓ Right. 1 of 12 right at first try, 1 later, 1 looked up.'
    assert guessed(page, 3, '(3, 3)').startswith('✗') and done(page) == 3
    page.reload()
    assert score(page) == '1 of 12 right at first try, 1 later, 1 looked up'
    assert marked(page, 'shapes_matmul.html') == '2/12' and not page.locator('details.reveal[open]').count()
    assert page.locator('form.guess .verdict').all_inner_texts()[:4] == ['✓ Guessed before.']*2 + ['']*2
    # the wrong one is remembered
    assert guessed(page, 3, '(2, 2)') == '✓ Right. 1 of 12 right at first try, 2 later, 1 looked up.'
    page.evaluate("dispatchEvent(new Event('beforeprint'))")                  # paper opens all: nobody looked
    assert score(page).endswith('1 looked up') and len(kept(page)['guessed']['practice/shapes_matmul']['tries']) == 4
    page.goto(server+'practice.html')
    assert marked(page, 'shapes_matmul.html') == '3/12'
    assert mark(page, 'shapes_matmul.html').get_attribute('title') == '3 of 12 guesses right'


def test_starting_again_is_asked_for_twice(open_page):
    page = open_page('practice/shapes_matmul.html')
    guessed(page, 0, '(5, 784)'), guessed(page, 1, '(1, 1)')
    again, said = page.get_by_role('button', name='Start again'), []
    page.once('dialog', lambda d: (said.append(d.message), d.dismiss()))
    again.click()
    assert said == ['Forget your 1 answers on this page?'] and score(page).startswith('1 of 12')
    page.once('dialog', lambda d: d.accept())
    again.press('Enter')
    assert score(page) == '0 of 12 right at first try' and not again.is_visible() and not kept(page)['guessed']
    assert not ''.join(page.locator('form.guess .verdict').all_inner_texts())
    assert not page.locator('details.reveal[open], [aria-invalid]').count()
    assert page.locator('form.guess input').first.input_value() == marked(page, 'shapes_matmul.html') == ''
    assert page.evaluate('document.activeElement.parentElement.className') == 'score'
    assert guessed(page, 1, '(784, 10)') == '✓ Right. 1 of 12 right at first try.'


def test_guesses_in_a_chapter_are_kept_and_marked(open_page, server):
    page = open_page('backprop.html?guess')
    n = page.locator('form.guess').count()
    form = page.locator('.cell > form.guess.single').first
    output = form.locator('xpath=following-sibling::*[1]')
    question = page.locator('p.predict', has_text='what is the shape of').locator('xpath=following-sibling::form[1]')
    for where, text in (form, output.text_content()), (question, '(10000, 10000)'):
        where.locator('input').fill(text)
        where.locator('input').press('Enter')
    assert question.locator('.verdict').inner_text() == '✓ Right.' and marked(page, 'backprop.html') == f'2/{n}'
    page.goto(server+'backprop.html')
    assert page.locator('.guesses span').inner_text().startswith('1 of ') and marked(page, 'backprop.html') == f'2/{n}'
    assert form.locator('.verdict').inner_text() == '✓ Guessed before.' and not output.is_visible()


# ---- exercises: hints, solutions, what is solved ----
@pytest.mark.parametrize('name', PAGES)
def test_hints_come_one_at_a_time(open_page, name):
    page = open_page(f"practice/{name.split('_', 1)[1]}.html")
    mine = [e for e in EXERCISES.values() if e.page == name]
    boxes = page.locator('.hints')
    assert boxes.count() == len(mine) == page.locator('.hints + details > summary', has_text='Solution').count()
    for box, e in zip(boxes.all(), mine):
        shown, button = box.locator('details:visible'), box.get_by_role('button')
        assert shown.count() == 0
        for i in range(len(e.hints)):
            assert button.inner_text() == f'Next hint ({len(e.hints) - i} left)'
            button.press('Enter')
            hint, plain = shown.nth(i), re.sub(r'\$.*', '', e.hints[i]).replace('`', '')[:30]
            assert shown.count() == i + 1 and hint.locator('summary').inner_text() == f'Hint {i+1} of {len(e.hints)}'
            assert hint.evaluate('d => d.open') and plain.strip() in hint.inner_text().replace('\xa0', ' ')
        at = page.evaluate('document.activeElement.textContent').strip()
        assert not button.is_visible() and at.startswith(f'Hint {len(e.hints)}')
    solution = page.locator('.hints + details').first
    assert not solution.locator('pre').is_visible()
    solution.locator('summary').press('Enter')
    assert solution.locator('pre').is_visible()


def test_without_scripts_hints_solutions_and_answers_are_folds(open_page):
    for address, n in ('practice/layers.html', 7 + 3), ('practice/shapes_matmul.html', 12):
        page = open_page(address, java_script_enabled=False)
        folds = page.locator('details.hint, .hints + details, details.reveal')
        assert folds.count() == n and not page.locator('main button, main input').count()
        for fold in folds.all():
            inside = fold.locator(':scope > :not(summary)').first
            assert fold.locator('summary').is_visible() and not inside.is_visible()
            fold.locator('summary').click()
            assert inside.is_visible()


def test_what_jupyter_says_is_marked_and_the_page_says_it_back(open_page, server):
    page = open_page('practice/layers.html')
    field, said = page.get_by_label('The code that progress() prints there'), page.locator('#code-says')
    assert not page.locator('.solved:visible').count() and not page.get_by_text('The other way').is_visible()
    field.fill('bp13-1-0000')
    field.press('Enter')
    assert said.inner_text().startswith('✗ Got bp13-1-0000, wanted ')
    assert field.get_attribute('aria-invalid') == 'true'
    assert page.evaluate('document.activeElement.id') == 'code' and 'solved' not in kept(page)
    text = repr(progress(exercises._code(['relu', 'lin', 'matmul'])))                  # as Jupyter shows it
    field.fill(re.search('Code for the site: .*', text)[0])
    page.get_by_role('button', name='Mark').click()
    assert said.inner_text() == '✓ Marked: lin, matmul, relu.' and field.get_attribute('aria-invalid') == 'false'
    assert page.locator('.told').inner_text().startswith(f'3 of {len(ALL)} exercises are marked as solved')
    assert [page.locator(f'h2#{o} .solved').is_visible() for o in ('relu', 'lin', 'mse')] == [True, True, False]
    assert marked(page, 'layers.html') == '2/3' and mark(page, 'practice/matmul.html').count() == 0
    field.fill(exercises._code(['mse']))
    field.press('Enter')
    page.goto(server+'practice.html')
    def shown(title): return page.locator('.menu a', has_text=title).locator('.done').inner_text()
    assert [shown(o) for o in ('Practice', 'Three small functions', 'The matrix product')] == ['4 ✓', '✓', '✓']
    call = page.locator('.told p code').inner_text()
    exercises.progress_file().unlink()
    assert exercises._code(['relu', 'lin', 'mse', 'matmul']) in repr(eval(call))       # and Jupyter knows
    page.goto(server+'matmul.html')
    assert shown('Practice') == '4 ✓'
    page.goto(server+'practice.html')
    page.once('dialog', lambda d: d.accept())
    page.get_by_role('button', name='Forget them').click()
    assert kept(page)['solved'] == [] and page.locator('.told').inner_text().startswith('0 of')
    assert not page.locator('.done', has_text='✓').count()


def test_two_windows_see_the_same(open_page, server):
    page = open_page('practice/layers.html')
    other = page.context.new_page()
    other.goto(server+'practice/matmul.html')
    other.fill('#code', exercises._code(['relu']))
    other.press('#code', 'Enter')
    page.wait_for_selector('h2#relu .solved:visible')
    assert marked(page, 'layers.html') == '1/3'
    other.close()


@pytest.mark.parametrize('left', ['', '{', '[]', '3', 'null', '{"guessed": 3, "place": [1], "solved": {}}',
                                  '{"guessed": {"practice/shapes_matmul": 7}, "place": {"matmul": 7}, "solved": [3]}',
                                  '{"guessed": {"practice/shapes_matmul": null}}', None])
def test_strange_things_kept_do_no_harm(open_page, server, left):
    "None: where nothing can be kept"
    page = open_page('practice/shapes_matmul.html')
    page.add_init_script(NOTHING_KEPT if left is None else
                         f"sessionStorage.once ??= (localStorage.backprop13 = {json.dumps(left)}) + '.'")
    page.reload()
    assert guessed(page, 0, '(5, 784)') == '✓ Right. 1 of 12 right at first try.'
    assert marked(page, 'shapes_matmul.html') == '1/12'
    page.goto(server+'practice/layers.html')
    page.fill('#code', exercises._code(['relu']))
    page.press('#code', 'Enter')
    assert page.locator('h2#relu .solved').is_visible() and marked(page, 'layers.html') == '1/3'
    page.goto(server+'matmul.html')
    page.wait_for_selector('main .cell > .held')
    assert not page.locator('.go-on').count()


# ---- the place that was read ----
def read_to(page, head):
    page.evaluate(f"document.getElementById('{head}').scrollIntoView({{behavior: 'instant'}})")
    page.wait_for_function("([page, head]) => JSON.parse(localStorage.backprop13 ?? '{}').place?.[page]?.[0] === head",
                           arg=[page.url.split('/')[-1].split('.')[0], head])


def test_a_place_is_found_again(open_page, server):
    page = open_page('matmul.html')
    assert not page.locator('.go-on').count()
    read_to(page, 'one-row-times-one-column')
    assert kept(page)['place'] == {'matmul': ['one-row-times-one-column', 'One row times one column']}
    page.goto(server+'data.html')
    assert not page.locator('.go-on').count()                                           # another chapter
    page.goto(server+'matmul.html')
    offer = page.locator('.go-on')
    assert offer.evaluate('o => getComputedStyle(o).position') == 'fixed'                 # it moves nothing
    assert offer.inner_text().startswith('Go on where you were: One row times one column')
    scroll(page, 300)                                                      # a look at the top doesn't lose it
    assert kept(page)['place']['matmul'][0] == 'one-row-times-one-column'
    offer.get_by_role('link').press('Enter')
    page.wait_for_timeout(800)
    head = page.locator('#one-row-times-one-column')
    assert not offer.count() and abs(head.evaluate('e => e.getBoundingClientRect().top')) < 120
    page.goto(server+'data.html')
    page.goto(server+'matmul.html#three-loops')                                         # an address with its own place
    page.wait_for_timeout(200)
    assert not page.locator('.go-on').count()


def test_an_offer_is_refused_or_not_heeded(open_page, server):
    page = open_page('matmul.html')
    for leave in (lambda o: o.get_by_role('button').click(), lambda o: o.get_by_role('link').press('Escape'),
                  lambda o: scroll(page, '1.5*innerHeight', 0)):
        read_to(page, 'three-loops')
        page.goto(server+'data.html')
        page.goto(server+'matmul.html')
        leave(page.locator('.go-on'))
        page.wait_for_timeout(200)
        assert not page.locator('.go-on').count()
    for to in 'document.body.scrollHeight', '0':           # through, or at its beginning: nothing to go on with
        read_to(page, 'three-loops')
        scroll(page, to, 0)
        page.wait_for_function("() => Object.keys(JSON.parse(localStorage.backprop13).place).length === 0")


# ---- for all readers ----
KEPT = dict(place=dict(matmul=['three-loops', 'Three loops']), solved=['relu'], guessed={
    'matmul': dict(of=12, tries=dict(x='first')),
    'practice/shapes_matmul': dict(of=12, tries={'a.shape': 'first', 'b.shape': 'wrong'})})

@pytest.mark.parametrize('scheme,width', [('light', 1440), ('dark', 1440), ('light', 390), ('dark', 390)])
def test_practice_is_accessible_and_nothing_moves(browser, server, scheme, width):
    context = browser.new_context(viewport={'width': width, 'height': 844}, color_scheme=scheme)
    context.add_init_script(f'{SHIFT}; localStorage.backprop13 = JSON.stringify({json.dumps(KEPT)})')
    for name in 'practice/shapes_matmul', 'practice/layers', 'practice', 'matmul':
        page = context.new_page()
        page.goto(f'{server}{name}.html', wait_until='load')
        page.evaluate('document.fonts.ready')
        page.wait_for_timeout(300)
        assert page.evaluate('shift') < .1, name
        page.evaluate("""for (const [i, form] of document.querySelectorAll('form.guess').entries()) {
            form.querySelectorAll('input').forEach(f => { f.value = '(5, 784)' })
            if (i % 3) form.requestSubmit() }
          document.querySelectorAll('.hints button').forEach(b => b.click())
          document.querySelectorAll('form.tell').forEach(f => f.requestSubmit())""")
        parts = '.score .guess .hints .told .go-on .menu .actions h2:has(.solved)'.split()
        parts = [o for o in parts if page.locator(o).count()]
        assert len(parts) > 2 and axe(page, *parts) == [] and not overflows(page), name
        hands = page.locator(':is(.score, .guess, .hints, .told, .go-on) :is(button, input, summary), .go-on a, '
                             ':is(.hints, .guess) + details > summary, main:has(.told) .actions a').filter(visible=True)
        small = 'all => all.filter(e => e.getBoundingClientRect().height < 44).map(e => e.textContent)'
        assert hands.evaluate_all(small) == [], name                                     # a finger hits each
        page.close()
    context.close()
