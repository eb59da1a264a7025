"The site without a network: what was opened on a device, and all of it once that was asked for, in headless Chromium"
import contextlib, json, re, shutil
from types import SimpleNamespace

import pytest
from conftest import axe, overflows, served, visit

TIME = 60_000


@pytest.fixture
def a_server(docs, tmp_path):
    """A function that serves the site from a folder below the root, as GitHub Pages does, at an address of its own;
    `.stop()` takes the network away"""
    shutil.copytree(docs, tmp_path/'site/backprop13')
    with contextlib.ExitStack() as network:
        root = network.enter_context(served(tmp_path/'site')) + 'backprop13/'
        yield SimpleNamespace(folder=tmp_path/'site/backprop13', root=root, stop=network.close)


def opened(browser, here, address, **settings):
    "A page, once it is on the device"
    page, said, asked = visit(browser, here.root + address, service_workers='allow', **settings)
    page.locator('html[data-kept]').wait_for(state='attached', timeout=TIME)
    assert not said, said
    return page, said


def lab(page):
    "The page's first lab comes to life"
    page.locator('.lab').first.scroll_into_view_if_needed()
    page.locator('.lab[data-live]').first.wait_for(timeout=TIME)


def test_what_was_opened_opens_without_a_network(browser, a_server):
    page, said = opened(browser, a_server, '')
    for place in page.locator('.lab').all():          # each fetches its numbers when it comes near
        place.scroll_into_view_if_needed()
        place.and_(page.locator('[data-live]')).wait_for(timeout=TIME)
    page.goto(a_server.root + 'matmul.html')
    lab(page)
    a_server.stop()
    said.clear()
    page.goto(a_server.root + 'matmul.html')
    lab(page)
    for address in '', 'index.html', 'index.html?from=here':
        page.goto(a_server.root + address)
        assert page.locator('h1').inner_text() and page.evaluate('getComputedStyle(document.body).fontFamily').strip()
        page.locator('.lab-pad').wait_for(timeout=TIME)
    assert not said, said
    for address in 'backprop.html', 'nowhere.html':
        assert page.goto(a_server.root + address).status == 503
        assert 'wasn’t opened on this device before' in page.inner_text('body')
    page.go_back()


def test_with_a_network_nothing_is_out_of_date(browser, a_server):
    page, said = opened(browser, a_server, 'labs.html')
    for n in range(2):
        f = a_server.folder/'labs.html'
        f.write_text(re.sub('<h1>.*?</h1>', f'<h1>Changed {n}</h1>', f.read_text(encoding='utf-8')), encoding='utf-8')
        page.reload()
        assert page.inner_text('h1') == f'Changed {n}'
    a_server.stop()
    page.reload()
    assert page.inner_text('h1') == 'Changed 1'


def test_all_pages_are_kept_on_request(browser, a_server):
    page, said = opened(browser, a_server, 'install.html', viewport={'width': 390, 'height': 844})
    button = page.get_by_role('button', name='Keep all pages')
    listed = json.loads((a_server.folder/'assets/files.json').read_text(encoding='utf-8'))
    assert f'({-(-listed["bytes"]//1_000_000)} MB)' in button.inner_text() and not overflows(page) and not axe(page, 'main')
    lost = a_server.folder/'autograd.html'
    lost.rename(lost.with_suffix('.gone'))
    button.click()
    page.get_by_text('Not all could be kept').wait_for(timeout=TIME)
    assert 'autograd.html: 404' in page.locator('.score').inner_text()
    lost.with_suffix('.gone').rename(lost)
    button.click()
    page.get_by_text('All pages are on this device.').wait_for(timeout=TIME)
    a_server.stop()
    for address in 'autograd.html', 'practice/gradients.html', 'support/more_speed.html':
        assert page.goto(a_server.root + address).status == 200
    page.goto(a_server.root + 'autograd.html')
    lab(page)
    page.keyboard.press('/')
    page.fill('#search-input', 'topological order')
    page.locator('#search a').first.wait_for(timeout=TIME)
