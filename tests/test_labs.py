"What holds for every lab; a lab's own tests stand in test_lab_*.py"
import json, re

import pytest
from conftest import root as ROOT, visit

from backprop13 import labs
from backprop13.figures import COLORS

NAMES = labs.lab_names()


@pytest.fixture(scope='session')
def places(pages):
    "The chapter in which each lab stands: {name: page}"
    chapters = {f.stem.split('_', 1)[1]+'.html' for f in (ROOT/'nbs').glob('[0-9]*.ipynb')}
    return {attrs['data-lab']: page for page in chapters for _, attrs in pages[page].tags if 'data-lab' in attrs}


def test_every_lab_stands_in_a_chapter(places):
    assert set(places) == set(NAMES)


def test_one_palette():
    light = lambda css: dict(re.findall(r'--(\w+): light-dark\((#\w+)', css))
    dark = lambda css: dict(re.findall(r'--(\w+): light-dark\(#\w+, (#\w+)\)', css))
    site, lab = ((ROOT/p).read_text(encoding='utf-8') for p in ('nbs/assets/site.css', 'backprop13/static/lab.css'))
    for shade in light, dark:
        both = set(shade(site)) & set(shade(lab))
        assert both >= set(COLORS) and all(shade(site)[k] == shade(lab)[k] for k in both), shade
    assert {k: v.lower() for k, v in light(lab).items() if k in COLORS} == {k: v.lower() for k, v in COLORS.items()}


@pytest.mark.parametrize('name', NAMES)
def test_a_lab_loads_when_scrolled_to_and_says_nothing(browser, server, places, name):
    page, said, asked = visit(browser, server+places[name])
    lab = page.locator(f'.lab[data-lab={name}]').first
    mine = lambda: [u for u in asked if u.endswith(f'/{name}.js')]
    far = lab.evaluate('e => e.getBoundingClientRect().top > innerHeight + 600')
    assert far and not mine()
    lab.scroll_into_view_if_needed()
    page.wait_for_selector(f'.lab[data-lab={name}][data-live]')
    assert len(mine()) == 1 and not said and all(u.startswith((server, 'data:')) for u in asked), (said, asked)
    page.close()


@pytest.mark.parametrize('name', NAMES)
def test_without_scripts_a_lab_shows_its_picture_and_a_sentence(browser, server, places, name):
    page, said, _ = visit(browser, server+places[name], java_script_enabled=False, viewport={'width': 768, 'height': 900}, color_scheme='dark')
    lab = page.locator(f'.lab[data-lab={name}]').first
    img = lab.locator('img')
    img.scroll_into_view_if_needed()
    assert img.bounding_box()['height'] > 60 and len(img.get_attribute('alt')) > 30
    assert img.evaluate('''i => { const r = i.getBoundingClientRect()
        return document.elementFromPoint(r.x + r.width/2, r.y + r.height/2) === i }''')           # nothing lies over it
    sentence = lab.locator('figcaption').inner_text()
    assert lab.locator('figcaption').is_visible() and len(sentence) > 40 and sentence.endswith('.') and not said
    page.close()


def test_data_that_is_not_plain_is_refused_in_a_sentence():
    for bad in (float('nan'), object(), float('inf')):
        with pytest.raises(ValueError, match='Lab wheels: its data must be plain numbers'):
            labs.Lab('wheels', {'x': bad}, labs.plt.figure(), 'a', 'b')
    with pytest.raises(ValueError, match="no lab 'hinge'; there are"): labs.lab_module('hinge')


def test_a_lab_s_data_cannot_end_its_script():
    text = '</script><b><!--<script>'
    page = labs.Lab('wheels', {'x': text}, labs.plt.figure(), 'a "b"', '<i>').page
    assert page.count('</script>') == 1 and '<!--' not in page and 'alt="a &quot;b&quot;"' in page and '&lt;i&gt;' in page
    data = re.search(r'<script type="application/json">(.*)</script>', page)[1]
    assert json.loads(data) == {'x': text}
    for sizes in ((4, 2), (4, 0, 1), (4, 2.5, 1)):
        with pytest.raises(ValueError, match='wanted three whole numbers from 1 to 8'): labs.wheels(sizes)
