"""Exercises written and checked on their page, in headless Chromium: the editor, what is loaded when, the controls,
what is kept. Most with a stand-in for Python, which answers as python.js does; what is judged by Python itself comes
last."""
import json

import pytest
from conftest import NOTHING_KEPT, SHIFT, axe, overflows, read, window
from backprop13.practice.exercises import EXERCISES, PAGES, solution, starter
from backprop13.practice.grading import judge

STAND_IN = """export const size = async () => globalThis.without ? null : {bytes: 8_900_000, parts: []}
const held = new Set()
const wait = ms => Promise.race([new Promise(ok => setTimeout(ok, ms)), new Promise((_, no) => held.add(no))])
export class Python {
  async start(onprogress) {
    if (this.there) return
    globalThis.starts = (globalThis.starts ?? 0) + 1
    if (globalThis.offline) throw new Error('Python can’t be loaded: the site answers 503.')
    for (let i = 1; i <= 5; i++) {
      onprogress?.({loaded: i, total: 5, what: 'a file'})
      await wait(20)
      while (globalThis.slow && i === 3) await wait(20)
    }
    this.there = true
  }
  async check(name, code) {
    await this.start()
    globalThis.judged = [...globalThis.judged ?? [], [name, code]]
    await wait(code.includes('while True') ? 1e6 : 60)
    const n = code.split('\\n').findIndex(o => o.includes('oops')) + 1
    const message = n ? `it raises NameError, in line ${n} of its cell` : 'it is 1 &lt; 2'
    if (code.includes('clamp')) return {ok: true, property: null, title: `<code>${name}</code> is right.`,
      lines: ['✓ x (2, 3)', '✓ x (5,)'], message: '', out: []}
    return {ok: false, property: 'value', title: `<code>${name}</code> is not right yet.`, message,
      lines: ['✓ x (2, 3)', `✗ <strong>value</strong>: ${message}.`, 'Look: at <code>x</code>.',
        'See it:', '<code>x = 1</code>', '<code>relu(x)</code>'], out: [{kind: 'text', data: 'as printed\\n'}]}
  }
  stop() {
    this.there = false
    for (const no of held) no(new Error('Python was stopped.'))
    held.clear()
  }
}"""


def anew(page, ready='.write > button'):
    page.reload()
    page.locator(ready).first.wait_for()

def stand_in(page, before='', ready='.write > button'):
    "The page anew, with the stand-in; `before` runs before its scripts, each time"
    page.route('**/assets/python/python.js', lambda r: r.fulfill(body=STAND_IN, content_type='text/javascript'))
    if before: page.add_init_script(before)
    anew(page, ready)


@pytest.fixture
def write(open_page):
    "A function that opens the page of three small functions, with a stand-in for Python"
    def opened(before='', ready='.write > button', **settings):
        page = open_page('practice/layers.html', **settings)
        page.evaluate('localStorage.clear()')                  # the page of the test before may have written late
        stand_in(page, before, ready)
        return page
    return opened


def begin(page, i=0):
    "Press the button; the exercise's editor"
    page.locator('.write > button').first.click()
    page.wait_for_function('n => document.querySelectorAll(".write.opened").length === n', arg=i + 1)
    return page.locator('.cm-content').nth(i)

def lines(page, i=0): return page.locator('.cm-editor').nth(i).locator('.cm-line').all_inner_texts()
def typed(page, *words):
    for word in words: page.keyboard.press(word[1:]) if word.startswith('!') else page.keyboard.type(word)
def says(page, i=0): return page.locator('.write .says').nth(i)
def judged(page): return page.evaluate('globalThis.judged ?? []')
def kept(page): return json.loads(page.evaluate('localStorage.backprop13 ?? "{}"'))
def await_verdict(page, text): says(page).get_by_text(text).first.wait_for()

RELU = ['def relu(', '    x:torch.Tensor, # any shape', ') -> torch.Tensor: # same shape, nothing below zero']


# ---- what is loaded, and when ----
def test_nothing_loads_before_the_press(open_page):
    page = open_page('practice/layers.html')
    stand_in(page)
    asked = []
    page.on('request', lambda r: asked.append(r.url.split('/')[-1]))
    anew(page)
    assert page.locator('.write > button').all_inner_texts() == ['Write it here (loads 9 MB, once)']*3
    assert not {'editor.js', 'codemirror.js'} & {*asked} and 'write.js' in asked
    assert not page.evaluate('globalThis.starts')
    page.evaluate('slow = true')
    begin(page)
    assert {'editor.js', 'codemirror.js'} < {*asked}
    bar = page.locator('.write progress')
    page.get_by_text('Loading Python: 5.3 of 8.9 MB').wait_for()
    assert bar.first.is_visible() and bar.first.evaluate('e => e.value') == .6
    page.evaluate('slow = false')
    page.get_by_text('Esc, then Tab leaves').wait_for()
    assert not bar.first.is_visible() and page.evaluate('starts') == 1
    assert page.locator('.write > button').all_inner_texts() == ['Write it here']*2
    begin(page, 1)
    assert page.evaluate('starts') == 1 and not page.locator('.write progress').nth(1).is_visible()


def test_without_python_or_scripts_the_page_is_as_it_was(write, open_page):
    without = write('globalThis.without = true', '.hints button')
    for page in without, open_page('practice/layers.html', java_script_enabled=False):
        page.wait_for_timeout(300)
        assert not page.locator('.write').count() and not page.get_by_role('button', name='Write').count()
        cells = [o.strip() for o in page.locator('.cell:visible code').all_inner_texts()]
        assert [f'check({o})' in cells for o in ('relu', 'lin', 'mse')] == [True]*3


def test_what_cannot_be_loaded_is_said_and_tried_again(open_page, browser, server):
    page = window(browser).new_page()                          # whose console may complain
    page.goto(server+'practice/layers.html')
    stand_in(page, 'globalThis.offline = true')
    page.route('**/codemirror.js', lambda r: r.abort())
    page.locator('.write > button').first.click()
    await_verdict(page, '✗ The editor could not be loaded')
    page.unroute('**/codemirror.js')
    anew(page)
    begin(page)
    await_verdict(page, '✗ Python can’t be loaded: the site answers 503. Press Check to try again.')
    page.evaluate('offline = false')
    page.get_by_role('button', name='Check').click()
    await_verdict(page, 'value')
    assert page.evaluate('starts') == 2
    page.context.close()


# ---- the editor ----
def test_typing(write):
    page = write()
    editor = begin(page)
    assert page.evaluate('document.activeElement.shadowRoot.activeElement.ariaLabel') == 'relu, in Python'
    typed(page, 'y = x')                                       # in the place of the dots
    assert lines(page) == [*RELU, '    y = x']
    typed(page, '!Enter', 'if y is None:', '!Enter', 'y = (0', '!Enter')
    assert lines(page)[4:6] == ['    if y is None:', '        y = (0'] and len(lines(page)[6]) >= 8   # in the bracket
    typed(page, *['!Control+z']*3)
    typed(page, '!Control+End', '!Enter', 'z', '!Tab')
    assert lines(page)[4:] == ['        z']
    page.wait_for_timeout(600)                                 # what is done at one go is undone at one go
    typed(page, '!Shift+Tab')
    assert lines(page)[4:] == ['    z']
    typed(page, '!Control+z')
    assert lines(page)[4:] == ['        z']
    typed(page, ' / 2')
    assert lines(page)[4] == '        z / 2' and not page.locator('#search-box[open]').count()
    about = editor.evaluate('e => e.getRootNode().getElementById(e.getAttribute("aria-describedby")).textContent')
    assert 'Escape, then Tab' in about
    typed(page, '!Escape', '!Tab')
    assert page.evaluate('document.activeElement.textContent') == 'Check'
    typed(page, '!Tab')
    assert page.evaluate('document.activeElement.textContent') == 'Reset'
    typed(page, '!Shift+Tab', '!Shift+Tab')
    assert page.evaluate('document.activeElement.shadowRoot?.activeElement.ariaLabel') == 'relu, in Python'


def test_code_keeps_its_colours(write):
    "Those that the page has for code, in both schemes"
    for scheme in 'light', 'dark':
        page = write(color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        colour = "e => getComputedStyle(e).color"
        want = [page.locator(f'main .{o}').first.evaluate(colour) for o in ('kw', 'co')]
        begin(page)
        assert [page.locator('.cm-line span', has_text=o).first.evaluate(colour) for o in ('def', '# any')] == want
        assert len({*want}) == 2


# ---- check, stop, reset ----
def test_a_wrong_answer_is_told_and_a_right_one_marked(write):
    page = write()
    begin(page)
    typed(page, 'y = 1', '!Enter', 'oops', '!Shift+Enter')
    await_verdict(page, 'in line 5 of its cell')
    assert page.locator('.cm-fault').all_inner_texts() == ['    oops'] and lines(page)[4:] == ['    oops']
    assert says(page).get_attribute('role') == 'status' and not says(page).get_by_text('x (2, 3)').is_visible()
    assert says(page).locator('pre').all_inner_texts() == ['x = 1\nrelu(x)', 'as printed']
    assert says(page).locator('.wrong strong').inner_text() == 'value'
    assert says(page).locator('summary').inner_text() == '1 trial holds'
    typed(page, '!Control+z')
    assert not page.locator('.cm-fault').count() and kept(page)['solved'] == []
    typed(page, '!Control+Enter')
    await_verdict(page, 'it is 1 < 2.')
    typed(page, '!Control+a', 'def relu(x): return x.clamp(0)')
    page.get_by_role('button', name='Check').click()
    await_verdict(page, 'is right.')
    assert says(page).inner_text().startswith('✓ relu is right.') and kept(page)['solved'] == ['relu']
    assert page.locator('h2#relu .solved').is_visible() and not page.locator('h2#lin .solved').is_visible()
    assert page.locator('.menu a[href$="layers.html"] .done').inner_text() == '1/3'
    assert [name for name, _ in judged(page)] == ['relu']*3 and judged(page)[2][1] == 'def relu(x): return x.clamp(0)'
    begin(page, 1)
    typed(page, 'y', '!Shift+Enter')
    says(page, 1).get_by_text('value').first.wait_for()
    assert judged(page)[3][0] == 'lin'


def test_an_endless_loop_is_stopped(write):
    page = write('globalThis.slow = true')
    begin(page)
    stop, check = page.get_by_role('button', name='Stop'), page.get_by_role('button', name='Check')
    assert not stop.count()
    typed(page, 'while True: pass', '!Shift+Enter')
    says(page).get_by_text('Loading Python, then checking').wait_for()
    page.evaluate('slow = false')
    page.wait_for_function('() => globalThis.judged')
    typed(page, '!Shift+Enter')                                # once is enough
    assert check.get_attribute('aria-disabled') == 'true' and says(page).inner_text() == 'Checking…'
    stop.press('Enter')
    await_verdict(page, 'Stopped after')
    assert not stop.count() and page.evaluate('document.activeElement.textContent') == 'Check'
    page.locator('.cm-content').click()
    typed(page, '!Control+z', '!Shift+Enter')
    await_verdict(page, 'value')
    assert page.evaluate('starts') == 2 and len(judged(page)) == 2


def test_reset_can_be_undone(write):
    page = write()
    begin(page)
    typed(page, 'return 1')
    mine = lines(page)
    page.get_by_role('button', name='Reset').click()
    assert lines(page) == [*RELU, '    ...'] and says(page).inner_text() == 'These are the first lines again.'
    page.get_by_role('button', name='Undo reset').click()
    assert lines(page) == mine
    page.get_by_role('button', name='Reset').click()
    page.locator('.cm-content').click()
    typed(page, '!Control+z')
    assert lines(page) == mine and page.get_by_role('button', name='Reset', exact=True).count() == 1


# ---- what is kept ----
def test_what_was_written_is_there_the_next_time(write, server):
    page = write()
    begin(page)
    typed(page, 'return x.clamp(0)')
    anew(page)                      # at once: it is kept when the page goes
    assert page.locator('.write > button').first.inner_text() == 'Open your version (loads 9 MB, once)'
    assert kept(page)['code'] == {'practice/layers': {'relu': '\n'.join([*RELU, '    return x.clamp(0)'])}}
    begin(page)
    assert lines(page)[3] == '    return x.clamp(0)'
    page.get_by_role('button', name='Reset').click()
    page.wait_for_timeout(500)
    assert kept(page)['code'] == {'practice/layers': {}}
    anew(page)
    assert page.locator('.write > button').first.inner_text() == 'Write it here (loads 9 MB, once)'


@pytest.mark.parametrize('before', [
    NOTHING_KEPT, "localStorage.backprop13 = '{\"code\": {\"practice/layers\": {\"relu\": 7}}}'",
    "localStorage.backprop13 = '{\"code\": [3]}'"])
def test_where_nothing_can_be_kept_it_works_all_the_same(write, before):
    page = write(before)
    begin(page)
    assert lines(page)[3] == '    ...'
    typed(page, 'return x.clamp(0)', '!Shift+Enter')
    await_verdict(page, 'is right.')
    assert page.locator('h2#relu .solved').is_visible()


# ---- for all readers ----
@pytest.mark.parametrize('scheme,width', [('light', 1440), ('dark', 1440), ('light', 390), ('dark', 390)])
def test_it_is_accessible_fits_and_nothing_moves(write, scheme, width):
    page = write(SHIFT, color_scheme=scheme, viewport={'width': width, 'height': 844}, has_touch=width == 390)
    page.evaluate('document.fonts.ready')
    page.wait_for_timeout(300)
    assert page.evaluate('shift') < .1
    def found(): return axe(page, '.write', '.cell:has(+ .write)', 'h2:has(.solved)') or overflows(page)
    assert not found()
    begin(page)
    typed(page, 'oops = "' + 'a long line '*9 + '"  # a comment')
    page.wait_for_timeout(200)
    typed(page, '!Shift+Enter')
    await_verdict(page, 'in line 4')
    says(page).locator('summary').click()
    size = page.locator('.cm-scroller').evaluate('e => parseFloat(getComputedStyle(e).fontSize)')
    assert not found() and (size >= 16 if width == 390 else 12 < size < 16)
    small = 'all => all.filter(e => e.getBoundingClientRect().height < 44).map(e => e.textContent)'
    assert page.locator('.write :is(button, summary)').filter(visible=True).evaluate_all(small) == []
    page.locator('.cm-content').click()
    typed(page, '!Control+a', 'def relu(x): return x.clamp(0)', '!Shift+Enter')
    await_verdict(page, 'is right.')
    assert not found()


# ---- with Python itself ----
@pytest.fixture
def in_python(open_page, docs):
    "A function that opens a page and begins its exercise `i`"
    if not json.loads(read(docs/'assets/python/parts.json'))['parts']:
        pytest.skip('the site was built without Python')
    def opened(address, i=0):
        page = open_page(address)
        page.locator('.write > button').nth(i).click()
        page.locator('.cm-content').wait_for()
        return page
    return opened


def check(page, code):
    "Write it, press Shift-Enter, and wait for the verdict"
    page.locator('.cm-content').click()
    typed(page, '!Control+a')
    page.keyboard.insert_text(code)
    typed(page, '!Shift+Enter')
    page.locator('.write .says > :is(.wrong, .right)').wait_for(timeout=60_000)
    return says(page).inner_text()

def in_jupyter(name, code):
    "The report there, of the same code"
    names = {}
    exec(PAGES[EXERCISES[name].page].imports + '\n' + code, names)
    return judge(EXERCISES[name], names[name])


def test_python_judges_in_the_page_as_in_jupyter(in_python):
    page = in_python('practice/layers.html')
    assert check(page, starter('relu')) == '✗ empty: its body is still to be written.'
    code = 'def relu(x):\n    x *= x > 0\n    return x'
    want = in_jupyter('relu', code)
    said = check(page, code)
    assert want.property == 'inputs unchanged' and said.startswith(f'✗ inputs unchanged: {want.message}.\n')
    assert 'See it:' in said
    check(page, 'def relu(x):\n    a = 1\n    return x +')
    assert page.locator('.cm-fault').inner_text() == '    return x +'
    page.locator('.cm-content').click()
    typed(page, '!Control+a')
    page.keyboard.insert_text('def relu(x):\n    while True: pass')
    page.get_by_role('button', name='Check').click()
    page.wait_for_timeout(300)
    page.get_by_role('button', name='Stop').click()
    await_verdict(page, 'Stopped after')
    assert check(page, solution('relu')).startswith('✓ relu is right.')
    assert page.locator('h2#relu .solved').is_visible()


def test_tests_are_graded_by_the_bugs_that_they_find(in_python):
    page, name = in_python('practice/tests.html'), 'test_lin_grad'
    code = starter(name).replace('...', 'inp, w, b = torch.randn(4, 3), torch.randn(3, 2), torch.randn(2)\n'
                                 '    out = inp @ w + b\n    out.g = torch.randn(4, 2)\n    lin_grad(inp, out, w, b)\n'
                                 '    assert w.g.shape == w.shape')
    want = in_jupyter(name, code)
    assert want.property == 'bugs killed' and f'✗ bugs killed: {want.message}.' in check(page, code)
    assert check(page, solution(name)).startswith(f'✓ {name} is right.')
