"The program that builds the website, and what a reader can do with its pages; tests/test_pages.py looks at every page"
import re, subprocess, sys

import pytest
from conftest import Reader, load_tool, root as ROOT, visit


# ---- the program ----
def test_cell_options_are_read_as_quarto_reads_them():
    f = load_tool('site').cell_options
    assert f('#| echo: false\n#| fig-alt: "a: b"\nx\n#| not: this') == ({'echo': False, 'fig-alt': 'a: b'}, 'x\n#| not: this')
    assert f('#| exports\n#| output: asis\nx') == ({'output': 'asis'}, 'x')
    assert f('#| fig-alt:\n#|   - one\n#|   - two\nx') == ({'fig-alt': ['one', 'two']}, 'x')
    assert f('x = 1') == ({}, 'x = 1')


def test_a_fence_is_longer_than_any_in_its_text():
    out = load_tool('site').fence('a\n`````\nb', '.python')
    assert out.startswith('`````` {.python}\n') and out.endswith('\n``````')


def test_a_page_of_the_sidebar_without_notebook_is_an_error():
    site = load_tool('site')
    with pytest.raises(site.SiteError, match='nbs/99_none.ipynb'): list(site.sidebar([{'text': 'x', 'href': '99_none.ipynb'}]))


def page(monkeypatch, folder):
    "A page that holds nothing yet"
    site = load_tool('site')
    monkeypatch.setattr(site, 'NEW', folder)
    p = site.Page.__new__(site.Page)
    p.nb, p.out, p.files, p.n = 'a.ipynb', 'a.html', 'a_files', 0
    return site, p


def test_what_a_lab_keeps_is_data(monkeypatch, tmp_path):
    "Else it could be run, from the file that the build writes: the policy takes that for the site's own"
    site, p = page(monkeypatch, tmp_path)
    made = p.lab('<div class="lab" data-lab="x"><script type="application/json">{"a": 1}</script></div>')
    assert 'data-src="a_files/lab-1.json"' in made and (tmp_path/'a_files/lab-1.json').read_text() == '{"a": 1}'
    with pytest.raises(site.SiteError, match="nbs/a.ipynb has a lab whose data isn't JSON"): p.lab('<script type="application/json">window.ran = 1</script>')
    assert not (tmp_path/'a_files/lab-2.json').exists()


@pytest.mark.parametrize('inside,why', [
    ('<script>1</script>', '<script>'), ('<g onclick="1"/>', 'the attribute onclick'), ('<a href="https://example.org"/>', 'a reference'), ('<a href="javascript:1"/>', 'a reference'),
    ('<image xmlns:x="http://www.w3.org/1999/xlink" x:href="//example.org/a"/>', 'a reference'), ('<style>@import "https://example.org"</style>', 'a reference'),
    ('<g style="fill: url(https://example.org/a)"/>', 'a reference'), ('<foreignObject/>', '<foreignObject>'), ('<g>', 'not XML')])
def test_an_svg_that_does_more_than_show_is_refused(monkeypatch, tmp_path, inside, why):
    site, p = page(monkeypatch, tmp_path)
    def draw(inside): return p.image('image/svg+xml', f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>', {}, {}, 'alt', 'draw()')
    assert 'figure-1.svg' in draw('<defs><g id="a"/></defs><use href="#a"/><g style="clip-path: url(#a)"/><image href="data:image/png;base64,AA=="/>')
    with pytest.raises(site.SiteError, match=why): draw(inside)
    assert [f.name for f in tmp_path.rglob('*.svg')] == ['figure-1.svg']


@pytest.mark.parametrize('meta', ['<meta http-equiv="refresh" content="0;url=https://example.org">', '<META\nHTTP-EQUIV=refresh>'])
def test_a_page_that_would_lead_away_is_refused(monkeypatch, tmp_path, meta):
    site, p = page(monkeypatch, tmp_path)
    p.front = {'title': 'A'}
    for p.md in '`<meta http-equiv>`', meta:
        try: p.render(site.pandoc_path(), [], lambda p: '')
        except site.SiteError as e: assert p.md == meta and 'nbs/a.ipynb shows HTML with <meta http-equiv>' in str(e)
        else: assert p.md != meta


# ---- in a browser ----
SPOILT = {'script-src-elem': '<script>ran = 1</script>', 'script-src-attr': '<details open ontoggle="ran = 1"></details>',
          'script-src': '<script src="spoilt.js"></script>', 'style-src-elem': '<style>main { display: none }</style>',
          'img-src': '<img src="https://example.org/a.png" alt="">', 'base-uri': '<base href="https://example.org">'}

def test_the_policy_refuses_what_is_not_the_sites(browser, server):
    page, said, asked = visit(browser, server+'teaching.html')
    page.route('**/spoilt.js', lambda r: r.fulfill(body='try { ran = eval("1") } catch {}', content_type='text/javascript'))
    page.route('**/spoilt.html', lambda r: r.fulfill(body=spoilt, content_type='text/html'))
    sound = page.request.get(server+'teaching.html').text()
    for directive, fault in SPOILT.items():
        spoilt = sound.replace('</article>', fault+'</article>')
        assert not said, (directive, said)
        with page.expect_console_message(lambda m: m.text.startswith(f'refused by {directive}: ')): page.goto(server+'spoilt.html', wait_until='networkidle')
        assert said and not page.evaluate('window.ran') and page.locator('main').is_visible(), directive
        said.clear()
        if 'ran = ' in fault or '.js' in fault:
            spoilt = re.sub('<meta http-equiv[^>]*>', '', spoilt)
            page.goto(server+'spoilt.html', wait_until='networkidle')
            page.wait_for_function('() => window.ran')
    page.close()


def test_downloads_are_allowed(browser, server):
    page, said, _ = visit(browser, server+'minibatch_training.html')
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    for link, name in (('.actions a[download]', '04_minibatch_training.ipynb'), ('main a[href^="data:"]', 'xlsx')):
        with page.expect_download() as file: page.locator(link).first.click()
        assert file.value.suggested_filename.endswith(name) and file.value.path().stat().st_size > 3000
    assert not said
    page.close()


def test_dark_can_be_switched_and_is_remembered(browser, server):
    page, said, _ = visit(browser, server, color_scheme='light')
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
    assert paper() == light and not said
    page.close()


@pytest.mark.parametrize('word', ['log_softmax', 'logsumexp', 'lin_grad', 'Licence'])
def test_search_finds_names(browser, server, word):
    page, said, asked = visit(browser, server+'index.html')
    if word == 'Licence': page.evaluate('delete window.Worker')          # the search then runs in the page
    page.keyboard.press('/')
    page.fill('#search input', word)
    page.wait_for_selector('#search .pagefind-ui__result a')
    page.wait_for_function("w => [...document.querySelectorAll('#search a')].some(a => a.textContent.includes(w))", arg=word)
    hit = page.locator('#search a', has_text=re.compile(rf'^{word}$')).first
    hit.click()
    page.wait_for_load_state('networkidle')
    assert page.evaluate('!!document.getElementById(decodeURIComponent(location.hash.slice(1)))')
    assert not said and all(u.startswith(server) for u in asked), (said, asked)
    page.close()


@pytest.mark.parametrize('question,heading', [
    ('why the transpose', 'derivatives.html#why-the-transpose'), ('cross-entropy', 'derivatives.html#cross-entropy'),
    ('logsumexp', 'derivatives.html#logsumexp'), ('chain rule', 'derivatives.html#the-chain-rule'),
    ('mean squared error', 'derivatives.html#mean-squared-error'), ('softmax', 'derivatives.html#softmax'), ('sum over the batch', 'derivatives.html#why-the-sum-over-the-batch'),
    ('where does .g come from', 'backprop.html#where-does-.g-come-from'), ('start from the end', 'derivatives.html#why-start-from-the-end'),
    ('numerator or denominator layout', 'derivatives.html#numerator-or-denominator-layout'),
    ('calling backward twice', 'backprop.html#what-happens-on-calling-backward-twice'),
    ('why x.g too wasted work', 'backprop.html#why-x.g-too-and-when-is-it-wasted-work')])
def test_search_answers_a_question(browser, server, question, heading):
    "The heading that answers is among the results"
    page, said, _ = visit(browser, server+'index.html')
    page.keyboard.press('/')
    page.fill('#search input', question)
    page.wait_for_function("w => [...document.querySelectorAll('#search a')].some(a => decodeURIComponent(a.href).endsWith(w))", arg=heading)
    name, anchor = heading.split('#')
    assert f'id="{anchor}"' in page.request.get(server+name).text() and not said
    page.close()


def test_an_answer_is_folded_until_asked_for(browser, server):
    page, said, _ = visit(browser, server+'matmul.html')
    asked = page.locator('main p', has_text='Predict:')
    answers = page.locator('details.reveal')
    assert 0 < asked.count() == answers.count()
    first = answers.first
    assert not first.locator('.cell-output').is_visible()
    assert first.evaluate("d => d.previousElementSibling.matches('p.predict') && d.children[1].matches('.cell')")
    first.locator('summary').focus()
    page.keyboard.press('Enter')
    assert first.locator('.cell-output').is_visible() and 'must match' in first.inner_text()
    heads = page.evaluate("[...document.querySelectorAll('details.reveal')].filter(d => d.querySelector('h1, h2, h3, h4')).length")
    assert heads == 0 and not said
    page.evaluate("document.querySelectorAll('details.reveal').forEach(d => { d.open = false }); dispatchEvent(new Event('beforeprint'))")
    assert answers.last.locator('.cell-output').first.is_visible()
    page.close()


ANSWERS = """() => { const seen = o => o.checkVisibility({visibilityProperty: true}) && o.getBoundingClientRect().width*o.getBoundingClientRect().height > 0
    return [...document.querySelectorAll('main p:has(> strong:first-child)')].filter(p => p.textContent.includes('Predict:'))
        .map(p => [p.textContent, [...p.nextElementSibling.querySelectorAll('.cell-output')].map(seen)]) }"""

def test_without_scripts_every_answer_is_readable(browser, server):
    for name in ('data', 'matmul', 'derivatives', 'backprop', 'minibatch_training'):
        page, _, _ = visit(browser, server+name+'.html', java_script_enabled=False)
        assert 'reveal' not in str(Reader(page.request.get(page.url).text()).tags), name         # folded by a script, or not at all
        asked = page.evaluate(ANSWERS)
        assert asked and all(shown and all(shown) for _, shown in asked), (name, asked)
        for hide in 'display: none', 'visibility: hidden', 'overflow: hidden; height: 0':       # the mutants
            page.locator('main .cell-output').evaluate_all('(os, hide) => os.forEach(o => { o.style.cssText = hide + "; padding: 0; border: 0" })', hide)
            assert not any(any(shown) for _, shown in page.evaluate(ANSWERS)), (name, hide)
        page.close()


def test_checks_that_held_are_marked(browser, server):
    page, _, _ = visit(browser, server+'matmul.html')
    held = page.locator('.cell.checked')
    assert held.count() > 5 and held.locator('.held').count() == held.count()
    for cell in held.all(): assert re.search(r'assert |test_\w+\(|check', cell.text_content())
    assert not page.locator('.cell:not(.checked)', has_text=re.compile(r'^assert ')).count()
    assert not page.locator('.checked', has_text='def broadcast_shape(').count()         # a function's definition checks nothing yet
    page.close()


def test_progress_is_kept(browser, server):
    page, said, _ = visit(browser, server+'matmul.html', viewport={'width': 1440, 'height': 800})
    mine = page.locator('.menu a[aria-current] .read')
    assert not mine.count()
    page.evaluate('scrollTo({top: (document.documentElement.scrollHeight - innerHeight)/2, behavior: "instant"})')
    page.wait_for_function("() => document.querySelector('.menu a[aria-current] .read')?.textContent == '50 %'")
    here = page.locator('.toc [aria-current=location]')
    assert here.count() == 1 and page.evaluate("a => document.getElementById(decodeURIComponent(a.hash.slice(1))).getBoundingClientRect().top < innerHeight/3",
                                               here.element_handle())
    page.goto(server+'data.html')
    assert page.locator('.menu a[href$="matmul.html"] .read').inner_text() == '50 %' and not said
    page.close()


def test_the_menu_opens_on_a_phone(browser, server):
    page, said, _ = visit(browser, server, viewport={'width': 360, 'height': 700})
    menu, button = page.locator('#site-menu'), page.locator('#menu-toggle')
    assert not menu.is_visible() and button.get_attribute('aria-expanded') == 'false'
    button.click()
    assert menu.is_visible() and button.get_attribute('aria-expanded') == 'true'
    page.keyboard.press('Escape')
    assert not menu.is_visible() and button.get_attribute('aria-expanded') == 'false'
    page.evaluate("scrollTo({top: 2000, behavior: 'instant'})")
    button.click()
    assert 0 < menu.locator('a').first.bounding_box()['y'] < 300
    assert not said
    page.close()


# ---- serve ----
@pytest.mark.usefixtures('docs')
def test_serve_says_where_and_stops_quietly():
    import signal, urllib.request
    p = subprocess.Popen([sys.executable, ROOT/'tools/site.py', 'serve', '--port', '8963'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = p.stdout.readline()
        url = re.search(r'http://127\.0\.0\.1:\d+/', line)[0]
        assert urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url).status == 200
    finally: p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=10)
    assert p.returncode == 0 and not err, err


@pytest.mark.parametrize('path,want', [('%00', 404), ('a'*5000, 404), ('index.html/', 404), ('none.html', 404), ('', 200), ('index.html?a/', 200), ('%ff', 404)])
@pytest.mark.parametrize('gzip', ['gzip', ''])
def test_every_name_gets_an_answer(tmp_path, path, want, gzip):
    "The same, compressed or not"
    import functools, http.client, http.server, threading
    (tmp_path/'index.html').write_text('<p>here</p>')
    handler = functools.partial(load_tool('site').Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        c = http.client.HTTPConnection('127.0.0.1', server.server_port, timeout=10)
        c.request('GET', f'/{path}', headers={'Accept-Encoding': gzip})
        assert c.getresponse().status == want
        server.shutdown()
