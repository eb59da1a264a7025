"What holds for every lab; a lab's own tests stand in test_lab_*.py"
import json, re

import pytest
from conftest import CHAPTERS, LABS, axe, button, overflows, press, read, root as ROOT, slider, visit

from backprop13.support import labs
from backprop13.support.figures import COLORS

NAMES = labs.lab_names()


def test_every_lab_stands_in_a_chapter(pages):
    chapters = [f.stem.split('_', 1)[1] for f in CHAPTERS]
    there = {a['data-lab']: o for o in chapters for _, a in pages[f'{o}.html'].tags if 'data-lab' in a}
    assert there == LABS and set(LABS) == set(NAMES)


# ---- by hand: what is to be held is large enough, and a lab fits the screen ----

def fullest(lab, name):
    "A pause at first, and after each step in which a reader makes the lab as long as it gets, or shows what it has"
    yield
    if name == 'ball':
        for o in 'two weights', 'Ten steps': yield button(lab, o)
    if name == 'flow':
        for o in 'both', 'Back', 'Start again': yield button(lab, o)
    if name == 'step':
        lab.locator('.lab-code').focus()
        for keys in 's', 'cn', 'nnn': yield press(lab, *keys)
    if name == 'broadcast':
        for b in lab.locator('.lab-presets button').all(): b.click()
        for who, shape in ('a', '1, 784, 1, 50000, 1, 784, 1, 50000'), ('b', '50000, 1, 784, 1, 50000, 1, 784, 1'):
            lab.get_by_label(f'shape of {who}').fill(shape)
    if name == 'hinges':
        for _ in range(7): button(lab, 'Add a hinge')
    if name == 'softmax':
        slider(lab, 'times').press('End')
        button(lab, 'LogSumExp')
    if name == 'order':
        nodes = lab.locator('.lab-node').all()
        for i in -1, 2: nodes[i].click()                        # too early
        yield
        for node in nodes[-2::-1]: node.click()
        nodes[0].click()
    yield


# each thing that takes the focus, with its label where that is pressed, too: its name, and its smaller side in pixels
SIZES = """lab => [...lab.querySelectorAll('button, input, select, a[href], [tabindex]')].map(e => {
    const boxes = [e, ...(['checkbox', 'radio'].includes(e.type) ? e.labels : [])].map(o => o.getBoundingClientRect())
    return [e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent || e.tagName,
            Math.max(...boxes.map(r => Math.min(r.width, r.height))), boxes[0].width] }).filter(o => o[2])"""


@pytest.mark.parametrize('width,height,screens', [(1440, 900, 1), (768, 900, 1.5), (390, 844, 2), (360, 740, 2.5)])
@pytest.mark.parametrize('name', NAMES)
def test_a_lab_fits_the_screen_and_the_hand(open_lab, name, width, height, screens):
    lab = open_lab(name, viewport={'width': width, 'height': height}, has_touch=width < 400, reduced_motion='reduce')
    for _ in fullest(lab, name):
        tall, small = lab.bounding_box()['height'], [o for o in lab.evaluate(SIZES) if o[1] < 43.9]
        assert tall <= screens*height and not small and not overflows(lab.page), (tall, small)


@pytest.mark.parametrize('scheme,width', [('light', 1440), ('dark', 390)])
@pytest.mark.parametrize('name', NAMES)
def test_axe_finds_no_fault_in_a_lab(open_lab, name, scheme, width):
    lab = open_lab(name, viewport={'width': width, 'height': 900}, color_scheme=scheme, reduced_motion='reduce')
    for _ in fullest(lab, name): assert axe(lab.page, f'.lab[data-lab={name}]') == []


STYLES = 'nbs/assets/site.css', 'backprop13/static/lab.css'

def test_one_palette():
    light = lambda css: dict(re.findall(r'--(\w+): light-dark\((#\w+)', css))
    dark = lambda css: dict(re.findall(r'--(\w+): light-dark\(#\w+, (#\w+)\)', css))
    site, lab = map(read, STYLES)
    for shade in light, dark:
        both = set(shade(site)) & set(shade(lab))
        assert both >= set(COLORS) and all(shade(site)[k] == shade(lab)[k] for k in both), shade
    assert {k: light(lab)[k].lower() for k in COLORS} == {k: v.lower() for k, v in COLORS.items()}


# Bootstrap's rules for elements, which Quarto's theme brings, made louder; a lab must look the same under them
LOUD = """legend { float: right; width: 100%; padding: 9px; margin: 0 0 30px; font-size: 40px; line-height: 3 }
    legend + * { clear: left } caption, table { caption-side: bottom } table { width: 100% }
    caption { padding: 30px 9px; text-align: right; font-size: 40px; color: red }
    p, pre, figure, ol, ul { margin: 0 0 30px } ol, ul { padding-left: 60px } label, output { display: inline-block }
    small, kbd, pre, code { font-size: 30px } kbd { padding: 9px; color: red; background: red }
    fieldset { padding: 9px; margin: 9px; border: 3px solid } figcaption { font-size: 40px; padding: 9px }
    th, td { padding: 20px; border: 3px solid; text-align: center } th { font-weight: 900; color: red }
    button, input { border-radius: 20px; margin: 9px; line-height: 3 } img, svg, canvas { vertical-align: middle }"""


@pytest.mark.parametrize('name', NAMES)
def test_the_page_s_styles_stay_out_of_a_lab(open_page, name):
    def classes(css):
        return set(re.findall(r'(?<![\w/])\.([a-z][\w-]*)', re.sub(r'/\*.*?\*/', '', css, flags=re.S)))
    site, own = (classes(read(o)) for o in STYLES)
    own -= {'vscode-light', 'vscode-dark'}                          # those of the editors around it
    assert site >= {'guess', 'plain-site'} and not {c for c in site if c.startswith('lab-')}
    assert all(c.startswith('lab-') for c in own) and len(own) > 60
    page = open_page(f'{LABS[name]}.html', viewport={'width': 1200, 'height': 900}, reduced_motion='reduce')
    page.evaluate("name => document.querySelectorAll(`.lab:not([data-lab=${name}])`).forEach(e => e.remove())", name)
    page.locator('.lab').first.scroll_into_view_if_needed()
    page.wait_for_selector('.lab[data-live]')
    page.wait_for_timeout(300)
    for b in page.locator('.lab button:enabled', has_not_text=re.compile('Play|Turn|descent')).all()[:4]: b.click()
    mine = set(page.locator('.lab *').evaluate_all('all => all.flatMap(e => [...e.classList])'))
    assert len(mine) > 5 and all(c.startswith('lab-') for c in mine), mine        # which no page's rules name
    def look(): return page.locator('.lab-live, .lab-live *').evaluate_all("""all => all.map(e => {
        const r = e.getBoundingClientRect(), o = e.closest('.lab-live').getBoundingClientRect(), s = getComputedStyle(e)
        return [`${e.tagName} ${e.getAttribute('class')}`, s.color, s.fontSize,
                ...[r.x - o.x, r.y - o.y, r.width, r.height].map(Math.round)] })""")
    before = look()
    page.evaluate('s => document.adoptedStyleSheets = [new CSSStyleSheet()].map(o => (o.replaceSync(s), o))', LOUD)
    # half a pixel may round either way
    def alike(a, b): return a[:3] == b[:3] and all(abs(x - y) <= 1 for x, y in zip(a[3:], b[3:]))
    assert not [o for o in zip(before, look(), strict=True) if not alike(*o)][:4]


@pytest.mark.parametrize('name', NAMES)
def test_a_lab_loads_when_scrolled_to_and_says_nothing(browser, server, name):
    page, said, asked = visit(browser, f'{server}{LABS[name]}.html', viewport={'width': 1440, 'height': 320})
    lab = page.locator(f'.lab[data-lab={name}]').first
    mine = lambda: [u for u in asked if u.endswith(f'/{name}.js')]
    far = lab.evaluate('e => e.getBoundingClientRect().top > innerHeight + 600')
    assert far and not mine()
    lab.scroll_into_view_if_needed()
    page.wait_for_selector(f'.lab[data-lab={name}][data-live]')
    assert len(mine()) == 1 and not said and all(u.startswith((server, 'data:')) for u in asked), (said, asked)
    page.close()


@pytest.mark.parametrize('name', NAMES)
def test_without_scripts_a_lab_shows_its_picture_and_a_sentence(open_page, name):
    page = open_page(f'{LABS[name]}.html', java_script_enabled=False, viewport={'width': 768, 'height': 900},
                     color_scheme='dark')
    lab = page.locator(f'.lab[data-lab={name}]').first
    img = lab.locator('img')
    img.scroll_into_view_if_needed()
    assert img.bounding_box()['height'] > 60 and len(img.get_attribute('alt')) > 30
    assert img.evaluate("""i => { const r = i.getBoundingClientRect()
        return document.elementFromPoint(r.x + r.width/2, r.y + r.height/2) === i }""")    # nothing lies over it
    sentence = lab.locator('figcaption').inner_text()
    assert lab.locator('figcaption').is_visible() and len(sentence) > 40 and sentence.endswith('.')


def test_data_that_is_not_plain_is_refused_in_a_sentence():
    for bad in (float('nan'), object(), float('inf')):
        with pytest.raises(ValueError, match='Lab wheels: its data must be plain numbers'):
            labs.Lab('wheels', {'x': bad}, labs.plt.figure(), 'a', 'b')
    with pytest.raises(ValueError, match="no lab 'hinge'; there are"): labs.lab_module('hinge')


def test_a_lab_s_data_cannot_end_its_script():
    text = '</script><b><!--<script>'
    page = labs.Lab('wheels', {'x': text}, labs.plt.figure(), 'a "b"', '<i>').page
    assert page.count('</script>') == 1 and '<!--' not in page and 'alt="a &quot;b&quot;"' in page
    assert '&lt;i&gt;' in page
    data = re.search(r'<script type="application/json">(.*)</script>', page)[1]
    assert json.loads(data) == {'x': text}
    for sizes in ((4, 2), (4, 0, 1), (4, 2.5, 1)):
        with pytest.raises(ValueError, match='wanted three whole numbers from 1 to 8'): labs.wheels(sizes)


def test_stored_data_keep_six_digits():
    seen = 0
    for file in (ROOT/'nbs').rglob('[!.]*.ipynb'):
        shown = [o for cell in json.loads(read(file))['cells'] for o in cell.get('outputs', [])]
        page = ''.join(s for o in shown for s in o.get('data', {}).get('text/html', ''))
        for data in re.findall(r'<script type="application/json">(.*?)</script>', page, re.S):
            assert labs._six(json.loads(data)) == json.loads(data), file
            seen += 1
    assert seen > len(NAMES)
