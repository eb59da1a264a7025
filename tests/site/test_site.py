"The program that builds the website, and what a reader can do with its pages; test_pages.py looks at every page"
import base64, json, re, signal, subprocess, sys, time

import nbformat, pytest, yaml
from conftest import Reader, load_tool, read, root as ROOT, visit
from nbformat.v4 import new_markdown_cell, new_notebook


# ---- the program ----
def test_cell_options_are_read_as_quarto_reads_them():
    f = load_tool('site').cell_options
    told = {'echo': False, 'fig-alt': 'a: b'}
    assert f('#| echo: false\n#| fig-alt: "a: b"\nx\n#| not: this') == (told, 'x\n#| not: this')
    assert f('#| exports\n#| output: asis\nx') == ({'output': 'asis'}, 'x')
    assert f('#| fig-alt:\n#|   - one\n#|   - two\nx') == ({'fig-alt': ['one', 'two']}, 'x')
    assert f('x = 1') == ({}, 'x = 1')


def test_a_fence_is_longer_than_any_in_its_text():
    out = load_tool('site').fence('a\n`````\nb', '.python')
    assert out.startswith('`````` {.python}\n') and out.endswith('\n``````')


def test_a_page_of_the_sidebar_without_notebook_is_an_error():
    site = load_tool('site')
    with pytest.raises(site.SiteError, match='nbs/99_none.ipynb'):
        list(site.sidebar([{'text': 'x', 'href': '99_none.ipynb'}]))


def page(monkeypatch, folder):
    "A page that holds nothing yet"
    site = load_tool('site')
    monkeypatch.setattr(site.Page, 'folder', folder)
    p = site.Page.__new__(site.Page)
    p.nb, p.out, p.files, p.n = 'a.ipynb', 'a.html', 'a_files', 0
    return site, p


def test_what_a_lab_keeps_is_data(monkeypatch, tmp_path):
    "Else it could be run, from the file that the build writes: the policy takes that for the site's own"
    site, p = page(monkeypatch, tmp_path)
    made = p.lab('<div class="lab" data-lab="x"><script type="application/json">{"a": 1}</script></div>')
    assert 'data-src="a_files/lab-1.json"' in made and (tmp_path/'a_files/lab-1.json').read_text() == '{"a": 1}'
    with pytest.raises(site.SiteError, match="nbs/a.ipynb has a lab whose data isn't JSON"):
        p.lab('<script type="application/json">window.ran = 1</script>')
    assert not (tmp_path/'a_files/lab-2.json').exists()


@pytest.mark.parametrize('inside,why', [
    ('<script>1</script>', '<script>'), ('<g onclick="1"/>', 'the attribute onclick'),
    ('<a href="https://example.org"/>', 'a reference'), ('<a href="javascript:1"/>', 'a reference'),
    ('<image xmlns:x="http://www.w3.org/1999/xlink" x:href="//example.org/a"/>', 'a reference'),
    ('<style>@import "https://example.org"</style>', 'a style'), ('<foreignObject/>', '<foreignObject>'),
    ('<style>@\\69mport "https://example.org"</style>', 'a style'),
    ('<?xml-stylesheet href="#a"?>', 'an instruction'),
    ('<style>g {cursor: image-set("https://example.org" 1x)}</style>', 'a style'),
    ('<g style="fill: u\\72l(//a)"/>', 'a style'),
    ('<a href="#"><set attributeName="href" to="javascript:1"/></a>', '<set>'),
    ('<meta xmlns="http://www.w3.org/1999/xhtml" http-equiv="refresh"/>', '<meta>'),
    ('<g style="fill: url(https://example.org/a)"/>', 'a reference'), ('<g>', 'not XML')])
def test_an_svg_that_does_more_than_show_is_refused(monkeypatch, tmp_path, inside, why):
    site, p = page(monkeypatch, tmp_path)
    def svg(inside): return f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>'
    def draw(inside): return p.image('image/svg+xml', svg(inside), {}, {}, 'alt', 'draw()')
    assert 'figure-1.svg' in draw('<defs><g id="a"/></defs><use href="#a"/><g style="clip-path: url(#a)"/>'
                                  '<image href="data:image/png;base64,AA=="/><metadata><o '
                                  'xmlns="http://purl.org/dc/"/></metadata>')
    with pytest.raises(site.SiteError, match=why): draw(inside)
    assert [f.name for f in tmp_path.rglob('*.svg')] == ['figure-1.svg']
    def lab(inside):
        return p.lab(f'<img src="data:image/svg+xml;base64,{base64.b64encode(svg(inside).encode()).decode()}">')
    assert re.search(r'src="a_files/lab-\d.svg" loading="lazy"', lab('<g/>'))
    with pytest.raises(site.SiteError, match=f'a lab whose picture is an SVG with.*{why}'): lab(inside)
    assert len([*tmp_path.rglob('*.svg')]) == 2


@pytest.mark.parametrize('meta', ['<meta http-equiv="refresh" content="0;url=https://example.org">',
                                  '<META\nHTTP-EQUIV=refresh>'])
def test_a_page_that_would_lead_away_is_refused(monkeypatch, tmp_path, meta):
    site, p = page(monkeypatch, tmp_path)
    p.front = {'title': 'A'}
    for p.md in '`<meta http-equiv>`', meta:
        try: p.render(site.pandoc_path(), [], lambda p: '')
        except site.SiteError as e:
            assert p.md == meta and 'nbs/a.ipynb shows HTML with <meta http-equiv>' in str(e)
        else: assert p.md != meta


HTML = """<A HREF='reference.ipynb#lin'>1</A> <a title="a > b" href="reference.ipynb">2</a>
<a
href=none.ipynb>3</a> <a data-x="<a href='none.ipynb'>" href="#here">4</a> <!-- <a href="none.ipynb">no</a> -->

<h2 title="a > b" id=here>A <b>heading</b></h2>

<table><tr><td>`x`<table><tr><td>inner</td></tr></table></td></tr></table>

<p>\n</p><p> </p><p class="kept"></p><span id="here"></span><span id="own"></span>"""

def test_html_is_read_as_a_browser_reads_it(monkeypatch, tmp_path):
    "However it is written: patterns miss most of these"
    site, p = page(monkeypatch, tmp_path)
    p.front, p.md, p.code = {'title': 'A'}, f'```{{=html}}\n{HTML}\n```', ([], '')
    reference = site.Page.__new__(site.Page)
    reference.nb, reference.out = 'reference.ipynb', 'reference.html'
    reference.heads, reference.ids = [('lin', 'lin')], {'lin'}
    monkeypatch.setattr(site.Page, 'pages', {o.nb: o for o in (p, reference)})
    p.render(site.pandoc_path(), [], lambda p: '')
    problems = []
    p.links(problems)
    p.tidy()
    links = [o.attrs['href'] for o in p.tree.css('article > a')]
    assert links == ['reference.html#lin', 'reference.html', 'none.ipynb', '#here']
    assert problems == ['nbs/a.ipynb links to none.ipynb, and there is no notebook nbs/none.ipynb']
    assert p.heads == [('here', 'A heading')] and {'here', 'own'} <= p.ids
    assert len(p.tree.css('article span')) == 1    # the heading has that address
    assert len(p.tree.css('.scroll-box')) == 2
    assert p.tree.css_first('article > .scroll-box > table .scroll-box > table')
    assert [o.attrs['class'] for o in p.tree.css('article p') if not o.text().strip()] == ['kept']


# ---- in a browser ----
OPEN = "document.querySelectorAll('details').forEach(d => { d.open = true })"

SPOILT = {'script-src-elem': '<script>ran = 1</script>',
          'script-src-attr': '<details open ontoggle="ran = 1"></details>',
          'script-src': '<script src="spoilt.js"></script>',
          'style-src-elem': '<style>main { display: none }</style>',
          'img-src': '<img src="https://example.org/a.png" alt="">',
          'base-uri': '<base href="https://example.org">'}

def test_the_policy_refuses_what_is_not_the_sites(browser, server):
    page, said, asked = visit(browser, server+'teaching.html')
    script = 'try { ran = eval("1") } catch {}'
    page.route('**/spoilt.js', lambda r: r.fulfill(body=script, content_type='text/javascript'))
    page.route('**/spoilt.html', lambda r: r.fulfill(body=spoilt, content_type='text/html'))
    sound = page.request.get(server+'teaching.html').text()
    for directive, fault in SPOILT.items():
        spoilt = sound.replace('</article>', fault+'</article>')
        assert not said, (directive, said)
        with page.expect_console_message(lambda m: m.text.startswith(f'refused by {directive}: ')):
            page.goto(server+'spoilt.html', wait_until='networkidle')
        assert said and not page.evaluate('window.ran') and page.locator('main').is_visible(), directive
        said.clear()
        if 'ran = ' in fault or '.js' in fault:
            spoilt = re.sub('<meta http-equiv[^>]*>', '', spoilt)
            page.goto(server+'spoilt.html', wait_until='networkidle')
            page.wait_for_function('() => window.ran')
    page.close()


def test_what_a_page_gives_up_is_told_unless_it_is_left(browser, server):
    page, said, _ = visit(browser, server+'teaching.html')
    page.route('**/late.json', lambda r: None)                       # never answered
    page.evaluate("() => { fetch('late.json').catch(() => {}) }")
    page.goto(server+'index.html')
    assert not said
    with page.expect_event('requestfailed'):
        page.evaluate("""async () => { const c = new AbortController(), f = fetch('late.json', c).catch(() => {})
            setTimeout(() => c.abort(), 200)
            await f }""")
    assert said == [f'failed: net::ERR_ABORTED, {server}late.json']
    page.close()


def test_downloads_are_allowed(open_page):
    page = open_page('minibatch_training.html')
    page.evaluate(OPEN)
    for link, name in (('.actions a[download]', '04_minibatch_training.ipynb'),
                       ('main a[href^="data:"]', 'xlsx')):
        with page.expect_download() as file: page.locator(link).first.click()
        assert file.value.suggested_filename.endswith(name) and file.value.path().stat().st_size > 3000


def test_dark_can_be_switched_and_is_remembered(open_page, server):
    page = open_page('', color_scheme='light')
    paper = lambda: page.evaluate('getComputedStyle(document.body).backgroundColor')
    light = paper()
    button = page.locator('#theme-toggle')
    button.click()
    dark = paper()
    assert dark != light and button.inner_text() == 'Light'
    page.goto(server+'reference.html')
    assert paper() == dark and button.inner_text() == 'Light'
    button.click()
    page.reload()
    assert paper() == light


RANK = """async ([root, file, questions]) => {
    const {indexed, ranked} = await import(root+file), index = indexed(await (await fetch(root+'search.json')).json())
    const first = ({hits, like}) => like ? null : hits[0].url
    return Object.fromEntries(questions.map(q => [q, first(ranked(index, q))])) }"""

# page -> {question: heading}, the first those that readers of this field ask again and again
ASKED = {
    'backprop': {
        'why is w.g that expression': 'why-is-w.g-that-expression',
        'where does .g come from': 'where-does-.g-come-from',
        'does breakpoint work in jupyter': 'does-breakpoint-work-in-jupyter',
        'initialization': 'weights-and-biases-to-start-from',
        'nn.Module': 'the-same-with-nn.module', 'computation graph': 'the-graph-of-a-run',
        'debugger': 'looking-inside-with-the-debugger'},
    'derivatives': {
        'why the transpose': 'why-the-transpose',
        'I have forgotten my calculus': 'i-have-forgotten-my-calculus-what-do-i-need',
        'which layout has a jacobian': 'which-layout-has-a-jacobian-numerator-or-denominator',
        'why matrices when the derivation has scalars': 'why-matrices-where-the-derivation-has-scalars',
        'why transpose': 'why-the-transpose',
        'Jacobian': 'which-layout-has-a-jacobian-numerator-or-denominator',
        'relu': 'relu-and-its-hinge', 'chain rule': 'the-chain-rule',
        'mean squared error': 'mean-squared-error', 'gradient descent': 'why-against-the-gradient',
        'what is a gradient': 'partial-derivatives',
        'why sum over batches': 'why-the-sum-over-the-batch'},
    'autograd': {
        'why topological order': 'why-topological-order-why-not-recurse',
        'calling backward twice': 'what-happens-on-calling-backward-twice',
        'what if a value or a weight is used twice': 'what-if-a-value-or-a-weight-is-used-twice',
        'topological order': 'why-topological-order-why-not-recurse'},
    'data': {
        'where do I get MNIST': 'where-do-i-get-mnist-now',
        'which versions': 'which-versions-does-it-run-on',
        'does it run in colab': 'does-it-run-in-colab',
        'what is a tensor': 'a-picture-is-a-table-of-numbers'},
    'practice': {'where are the solutions': 'how-it-goes'},
    'minibatch_training': {
        'why does my gradient vanish': 'why-does-my-gradient-vanish-or-explode-and-why-1m',
        'vanishing gradient': 'why-does-my-gradient-vanish-or-explode-and-why-1m',
        'learning rate': 'the-learning-rate-too-small-right-too-large',
        'softmax overflow': 'logsumexp', 'zero_grad': 'what-breaks-without-no_grad-without-zeroing',
        'dead relu': 'dead-relus', 'zero grad': 'what-breaks-without-no_grad-without-zeroing',
        'epoch': 'the-training-loop', 'batch': 'the-training-loop',
        'cross entropy': 'cross-entropy-worked-out', 'softmax': 'softmax', 'logsumexp': 'logsumexp',
        'log_softmax': 'log-softmax', 'confusion matrix': 'which-digits-does-it-get-wrong'},
    'matmul': {'broadcast': 'the-broadcasting-rule', 'einsum': 'einsum-name-the-axes'},
    'fitting': {
        'overfitting': 'see-it-overfit', 'SGD': 'an-optimizer', 'dataloader': 'a-data-loader',
        'shuffling': 'and-shuffled', 'checkpoint': 'keep-the-weights'},
    'support/notations': {'memory for time': 'remembering-more-memory-for-time'},
    'speed': {'gpu': 'on-a-gpu'},
    'reference': {'lin_grad': 'lin_grad'},
    'install': {'Licence': 'licence'},
    'labs': {'labs': ''},
    'lesson_map': {'lesson map': ''}}
QUESTIONS = {q: f'{page}.html' + f'#{head}'*bool(head) for page, rows in ASKED.items() for q, head in rows.items()}

# what the order needs: without it, other sections come first
SPOILT_SEARCH = [('title: 10, names: 10', 'title: 1, names: 10'), ('names: 10', 'names: .1'),
                 ('page: .8, reference: .3, support: .25', 'page: 1, reference: 1, support: 1'),
                 ('1 + 3 * alike', '1 + 0 * alike'), ('(ing|ed)$', '$^'), ("now of on one or", 'or')]

@pytest.fixture(scope='module')
def found(browser, server, docs):
    "The first hit of each question, for the search and for spoilt ones"
    page, said, _ = visit(browser, server+'index.html')
    source, texts, first = read(docs/'assets/search.js'), [], {}
    page.route('**/search-*.js', lambda r: r.fulfill(body=texts[-1], content_type='text/javascript'))
    for i, (old, new) in enumerate([('', ''), *SPOILT_SEARCH]):
        assert not old or source.count(old) == 1, old
        texts.append(source.replace(old, new, 1))
        first[old] = page.evaluate(RANK, [server, f'assets/search-{i}.js',
                                          [*QUESTIONS, 'qwertz', 'sofmax', 'gradient qwertz']])
    assert not said, said
    page.close()
    return first

@pytest.mark.parametrize('question', QUESTIONS)
def test_the_first_hit_answers(found, question): assert found[''][question] == QUESTIONS[question]

@pytest.mark.parametrize('old,new', SPOILT_SEARCH)
def test_a_worse_order_is_caught(found, old, new):
    assert [q for q, url in QUESTIONS.items() if found[old][q] != url]

def test_what_is_not_there_is_not_found(found):
    assert {found[''][q] for q in ('qwertz', 'sofmax', 'gradient qwertz')} == {None}


def sections(docs): return json.loads(read(docs/'search.json'))

def test_other_names_are_of_headings_that_there_are(docs):
    names = yaml.safe_load(read('tools/names.yml'))
    assert not names.keys() - {o['url'] for o in sections(docs)}


def test_excerpts_are_prose(docs):
    "No code, no source of a formula, no cell's output"
    bad = re.compile(r'import torch|\\frac|tensor\(\[|tensor\(\d|>>>|\$\$')
    assert not [o['url'] for o in sections(docs) if o['kind'] == 'chapter' and bad.search(o['text'])]
    assert [o for o in sections(docs) if 'unsqueeze' in o['code']] and bad.search('x = tensor([1])')


def search(page, question):
    "What the search says to a question that is typed"
    if not page.locator('#search-box').is_visible(): page.keyboard.press('/')
    page.fill('#search-input', question)
    page.wait_for_function("q => document.querySelector('#search-said').textContent.includes(`for ${q}`)",
                           arg=question)
    return page.inner_text('#search-said')


def test_search_leads_to_the_heading_by_pointer_and_keys(open_page, server):
    page = open_page('support/graph.html')
    search(page, 'logsumexp')
    page.locator('#search a').first.click()
    page.wait_for_url('**/minibatch_training.html#logsumexp')
    page.goto(server+'index.html')
    search(page, 'broadcast')
    at = lambda: page.evaluate("[...document.querySelectorAll('#search a')].indexOf(document.activeElement)")
    moved = []
    for key in 'ArrowDown', 'ArrowDown', 'ArrowUp', 'ArrowUp':
        page.keyboard.press(key)
        moved.append(at())
    assert moved == [0, 1, 0, -1] and page.evaluate("document.activeElement.id") == 'search-input'
    page.fill('#search-input', 'why the transpose')      # Enter waits for no result
    page.keyboard.press('Enter')
    page.wait_for_url('**/derivatives.html#why-the-transpose')
    search(page, 'einsum')
    page.keyboard.press('Escape')
    assert not page.locator('#search-box').is_visible()


def test_the_number_of_results_is_announced(open_page):
    page = open_page('index.html')
    status = page.locator('#search-box').get_by_role('status', include_hidden=True)
    status.evaluate('e => { e.first = true }')      # it was there before, or nobody hears of it
    assert re.fullmatch(r'[1-9]\d* results for broadcast', search(page, 'broadcast'))
    assert search(page, 'einsum').endswith('for einsum') and page.locator('#search mark').count()
    assert search(page, 'sofmax') == 'Nothing found for sofmax. The nearest:'
    assert 'Softmax' in page.inner_text('#search')
    assert 'Try a word' in search(page, 'qwertzuiop') and not page.locator('#search a').count()
    assert status.evaluate('e => e.first && e.matches("dialog[open] *")')


@pytest.mark.parametrize('missing', [None, 'search.js', 'minisearch.js', 'search.json'])
def test_a_search_that_cannot_work_says_what_to_do(browser, server, docs, missing):
    page, _, _ = visit(browser, server+'index.html')
    if missing: page.route(f'**/{missing}', lambda r: r.fulfill(status=404, body=''))
    else: page.goto((docs/'index.html').as_uri())    # opened from the disk
    page.locator('#search-open').click()
    page.wait_for_function("() => document.querySelector('#search-said').textContent")
    status = page.locator('#search-box').get_by_role('status')
    text = status.inner_text()
    assert 'could not be loaded' in text if missing else 'make serve' in text and 'python -m http.server' in text
    assert status.bounding_box()['height'] > 15
    page.close()


# ---- code ----
def test_code_fits_a_phone_and_is_copied_as_it_is(open_page):
    page = open_page('backprop.html', viewport={'width': 390, 'height': 844})
    page.evaluate(OPEN)
    pre = page.locator('main pre')
    assert not pre.evaluate_all('all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length')
    lines = page.locator('pre.sourceCode code > span')
    assert lines.evaluate_all('all => all.filter(e => e.getClientRects()[0]?.height > 24).length') > 20
    for cell in page.locator('main pre.sourceCode').all()[:40]:
        picked = cell.evaluate("e => { getSelection().selectAllChildren(e); return getSelection().toString() }")
        assert picked.strip('\n') == cell.text_content().strip('\n')
    # what goes on below begins further in than its line does
    begins = page.locator('pre.sourceCode code > span[style]').evaluate_all("""all => all.map(e => {
        const range = document.createRange()
        range.selectNodeContents(e)
        const boxes = [...range.getClientRects()].filter(o => o.width > 1), top = Math.min(...boxes.map(o => o.top))
        const below = boxes.filter(o => o.top > top + 8).map(o => o.left - e.getBoundingClientRect().left)
        const word = [...e.textContent].findIndex(c => c != ' ')
        return [parseInt(e.style.getPropertyValue('--by')), word, below.length ? Math.min(...below) : null] })""")
    assert len([o for o in begins if o[2]]) > 9 and all(by == word for by, word, _ in begins)
    assert all(left is None or left > by*6 + 10 for by, _, left in begins), begins


def test_code_has_a_button_that_copies(open_page):
    page = open_page('backprop.html', viewport={'width': 1440, 'height': 900},
                          permissions=['clipboard-read', 'clipboard-write'])
    block = page.locator('main div.sourceCode', has_text='def forward_and_backward(').first
    block.hover()
    block.get_by_role('button', name='Copy').click()
    page.wait_for_function("() => document.querySelector('.copy:focus')?.textContent === 'Copied'")
    assert page.evaluate('navigator.clipboard.readText()') == block.locator('code').text_content()


def test_each_heading_has_its_address(open_page):
    page = open_page('matmul.html', viewport={'width': 1440, 'height': 900})
    heads = page.locator('article :is(h2, h3, h4)[id]')
    assert heads.count() == heads.locator('a.here').count() > 9
    link = page.locator('#broadcasting a.here')
    opacity = lambda: float(link.evaluate('e => getComputedStyle(e).opacity'))
    before = opacity()
    page.locator('#broadcasting').hover()
    assert (before, opacity()) == (0, 1)
    link.click()
    assert page.url.endswith('#broadcasting')


def test_an_answer_is_folded_until_asked_for(open_page):
    page = open_page('matmul.html')
    answers = page.locator('details.reveal')
    assert 0 < page.locator('main p', has_text='Predict:').count() == answers.count()
    first = answers.first
    assert not first.locator('.cell-output').is_visible()
    assert first.evaluate("d => d.previousElementSibling.matches('p.predict, form.guess') && "
                          "d.children[1].matches('.cell')")
    first.locator('summary').focus()
    page.keyboard.press('Enter')
    assert first.locator('.cell-output').is_visible() and '14' in first.inner_text()
    assert not answers.locator('h1, h2, h3, h4').count()


ANSWERS = """() => { const size = o => o.width*o.height
    const seen = o => o.checkVisibility({visibilityProperty: true}) && size(o.getBoundingClientRect()) > 0
    return [...document.querySelectorAll('main p:has(> strong:first-child)')]
        .filter(p => p.textContent.includes('Predict:'))
        .map(p => [p.textContent, [...p.nextElementSibling.querySelectorAll('.cell-output')].map(seen)]) }"""

def test_without_scripts_every_answer_is_readable(open_page):
    for name in ('data', 'matmul', 'derivatives', 'backprop', 'minibatch_training'):
        page = open_page(name+'.html', java_script_enabled=False)
        assert 'reveal' not in str(Reader(page.request.get(page.url).text()).tags), name
        asked = page.evaluate(ANSWERS)
        assert asked and all(shown and all(shown) for _, shown in asked), (name, asked)
        for hide in 'display: none', 'visibility: hidden', 'overflow: hidden; height: 0':
            page.locator('main .cell-output').evaluate_all(
                '(os, hide) => os.forEach(o => { o.style.cssText = hide + "; padding: 0; border: 0" })', hide)
            assert not any(any(shown) for _, shown in page.evaluate(ANSWERS)), (name, hide)


def test_checks_that_held_are_marked(open_page):
    page = open_page('backprop.html')
    held = page.locator('.cell.checked')
    assert held.count() > 5 and held.locator('.held').count() == held.count()
    for cell in held.all(): assert re.search(r'assert |test_\w+\(|check', cell.text_content())
    assert not page.locator('.cell:not(.checked)', has_text=re.compile(r'^assert ')).count()
    assert not page.locator('.checked', has_text='def mse(').count()     # a definition checks nothing yet


def test_progress_is_what_was_read_and_is_kept(browser, server):
    # a window of its own: its clock is the test's
    page, said, _ = visit(browser, server+'matmul.html', viewport={'width': 1440, 'height': 801})
    page.clock.install()
    page.reload()
    page.clock.pause_at(page.evaluate('Date.now()') + 1000)
    mine = page.locator('.menu a[aria-current] .read')
    part = lambda: int(mine.inner_text().removesuffix(' %'))
    def look(seconds): page.clock.run_for(1000*seconds)
    look(2)
    assert not mine.count()                                                # a look at the page reads nothing of it
    page.locator('.toc a').last.click()                                    # past everything
    page.wait_for_function('() => scrollY > 5000')
    look(6)
    page.wait_for_function("() => document.querySelector('.toc a[aria-current]')?.hash == location.hash")
    end = part()
    assert 0 < end < 20
    height = page.evaluate('document.documentElement.scrollHeight')
    def leaf(top, seconds):
        for at in range(top, height//2 - 800, 600):
            page.evaluate(f'scrollTo({{top: {at}, behavior: "instant"}})')
            look(seconds)
    leaf(1200, 1)                                                          # leafed through
    assert part() == end
    leaf(0, 5)
    here = page.locator('.toc [aria-current=location]')
    assert here.count() == 1 and here.evaluate("""a => document.getElementById(decodeURIComponent(a.hash.slice(1)))
        .getBoundingClientRect().top < innerHeight/3""")
    read = part()
    assert 40 < read < 70
    page.goto(server+'data.html')
    assert page.locator('.menu a[href$="matmul.html"] .read').inner_text() == f'{read} %'
    page.evaluate("localStorage.setItem('backprop13-read', JSON.stringify({'/data.html': 1}))")   # as it was once
    page.reload()
    look(6)
    assert part() < 20 and not said
    page.close()


def test_after_a_jump_keys_scroll_the_text(open_page):
    page = open_page('backprop.html', viewport={'width': 1280, 'height': 600})
    page.locator('.toc a', has_text='Why the transpose?').click()
    page.wait_for_function("() => scrollY > 1000")
    page.wait_for_timeout(300)
    at = page.evaluate('scrollY')
    page.keyboard.press('PageDown')
    page.wait_for_function(f"() => scrollY > {at} + 300")


def test_the_menu_opens_on_a_phone(open_page):
    page = open_page('', viewport={'width': 360, 'height': 700})
    menu, button = page.locator('#site-menu'), page.locator('#menu-toggle')
    assert not menu.is_visible() and button.get_attribute('aria-expanded') == 'false'
    button.click()
    assert menu.is_visible() and button.get_attribute('aria-expanded') == 'true'
    page.keyboard.press('Escape')
    assert not menu.is_visible() and button.get_attribute('aria-expanded') == 'false'
    page.evaluate("scrollTo({top: 2000, behavior: 'instant'})")
    button.click()
    assert 0 < menu.locator('a').first.bounding_box()['y'] < 300


# ---- serve ----
@pytest.mark.usefixtures('docs')
def test_serve_says_where_and_stops_quietly():
    import urllib.request
    p = subprocess.Popen([sys.executable, ROOT/'tools/site.py', 'serve', '--port', '8963'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = p.stdout.readline()
        url = re.search(r'http://127\.0\.0\.1:\d+/', line)[0]
        assert urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url).status == 200
    finally: p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=10)
    assert p.returncode == 0 and not err, err


@pytest.mark.parametrize('path,want', [('%00', 404), ('a'*5000, 404), ('index.html/', 404), ('none.html', 404),
                                       ('', 200), ('index.html?a/', 200), ('%ff', 404)])
@pytest.mark.parametrize('gzip', ['gzip', ''])
def test_every_name_gets_an_answer(tmp_path, path, want, gzip):
    "The same, compressed or not"
    import functools, http.client, http.server, threading
    (tmp_path/'index.html').write_text('<p>here</p>')
    handler = functools.partial(load_tool('live').Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        c = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=10)
        c.request('GET', f'/{path}', headers={'Accept-Encoding': gzip})
        assert c.getresponse().status == want
        server.shutdown()


# ---- serve, while one writes ----
def test_who_waits_hears_of_its_own_page_and_of_all():
    before, news = time.time_ns(), load_tool('live').News()
    sent = time.time_ns()
    assert news.wait('a.html', before, 0) and not news.wait('a.html', sent, 0)
    news.tell('b.html')
    assert news.wait('b.html', sent, 0) and not news.wait('a.html', sent, 0)
    news.tell('')
    assert news.wait('a.html', sent, 0) and not news.wait('a.html', time.time_ns(), 0)


def book(file, *texts):
    nbformat.write(new_notebook(cells=[new_markdown_cell(o) for o in ('# Note\n> of one page', *texts)]), file)

@pytest.fixture
def small(docs, clone):
    "A project of three small pages; `docs` has fetched what their site needs from npm"
    for f in (clone/'nbs').rglob('*.ipynb'): f.unlink()
    names = 'index', 'reference', 'note'
    for o in names: book(clone/f'nbs/{o}.ipynb', 'One')
    flow = yaml.safe_load((clone/'_quarto.yml').read_text())
    flow['website']['sidebar']['contents'] = [{'text': o, 'href': f'{o}.ipynb'} for o in names]
    (clone/'_quarto.yml').write_text(yaml.safe_dump(flow))
    (clone/'node_modules').symlink_to(ROOT/'node_modules')
    return clone


def test_what_is_saved_is_seen(small, browser, tmp_path):
    "A notebook or an asset, in the browser that shows the page; a broken notebook is told and breaks nothing"
    said, note = tmp_path/'said', small/'nbs/note.ipynb'
    with said.open('w') as out:
        p = subprocess.Popen([sys.executable, small/'tools/site.py',
                              *'serve --build --no-quarto --port 8974'.split()],
                             stdout=out, stderr=out)
    def until(f):
        end = time.time()+90
        while not (found := f()):
            assert p.poll() is None and time.time() < end, said.read_text()
            time.sleep(.05)
        return found
    def heard(pattern): return until(lambda: re.search(pattern, said.read_text()))[0]
    page, other, refused = browser.new_page(), browser.new_page(), []
    page.on('console', lambda m: m.type == 'error' and refused.append(m.text))
    def wait(what, arg=None): page.wait_for_function(what, arg=arg, timeout=60_000)
    def seen(text): wait('text => document.querySelector("article")?.innerText.includes(text)', text)
    try:
        until((small/'_proc/site').exists)
        book(note, 'One', 'Late')    # when the build has read it already
        page.goto((site := heard(r'http://127\.0\.0\.1:\d+/'))+'note.html')
        seen('Late')
        other.goto(site)
        other.evaluate('kept = 1')
        book(note, 'One', 'Two')
        seen('Two')
        heard('nbs/note.ipynb is on its page')
        note.write_text(note.read_text()[:200])
        heard("nbs/note.ipynb can't be shown, its page stays as it was: .")
        page.reload()
        seen('Two')
        assert other.evaluate('kept') == 1
        with (small/'nbs/assets/site.css').open('a') as f: f.write('main { outline: 3px dashed }')
        wait('() => [...document.querySelectorAll("main")].some(o => getComputedStyle(o).outlineStyle === "dashed")')
        other.wait_for_function('() => !window.kept')
        with (small/'backprop13/static/lab.css').open('a') as f: f.write('/* new */')
        until(lambda: '/* new' in (small/'_docs/assets/labs/lab.css').read_text())
        book(note, 'One', 'See [that](none.ipynb)', 'Three')
        seen('Three')
        heard('nbs/note.ipynb links to none.ipynb, and there is no notebook')
        (small/'_quarto.yml').touch()
        heard('_quarto.yml has changed: to see that, stop this')
        assert '_live.js' in page.content() and '_live' not in (small/'_docs/note.html').read_text()
        assert not refused
    finally:
        for o in page, other: o.close()
        p.send_signal(signal.SIGINT)
        p.wait(20)
    assert p.returncode == 0 and 'Traceback' not in said.read_text(), said.read_text()
