"Every lab under a finger: real touch events, long drags, held where the eye would; the keys that every slider knows"
import math

import pytest
from conftest import LABS, MIDDLE, button, cells, number, slider, value


@pytest.fixture
def phone(open_lab):
    "A function that opens a lab on a phone"
    def show(name):
        lab = open_lab(name, viewport={'width': 390, 'height': 844}, has_touch=True)
        return lab.page, lab
    return show


def center(part):
    "Where a part is on the screen, brought to its middle first"
    part.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
    part.page.wait_for_timeout(50)
    return part.evaluate(MIDDLE)


def swipe(page, points):
    "A finger down at the first point, along the others, and up: how far the page has scrolled, the events it gave"
    page.evaluate("""() => { window.seen = {pointermove: 0, pointercancel: 0}; window.top0 = scrollY
        window.watched ??= Object.keys(seen).map(k => addEventListener(k, () => { seen[k]++ }, true)) }""")
    touch = page.context.new_cdp_session(page)
    for kind, at in [('touchStart', points[:1]), *(('touchMove', [p]) for p in points[1:]), ('touchEnd', [])]:
        touch.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': [{'x': x, 'y': y} for x, y in at]})
        page.wait_for_timeout(8)
    page.wait_for_timeout(100)
    touch.detach()
    return page.evaluate('[Math.abs(scrollY - top0), seen.pointermove, seen.pointercancel]')


def holds(page, points):
    "A swipe that moves what it holds, and not the page"
    scrolled, moves, cancelled = swipe(page, points)
    assert (scrolled, cancelled) == (0, 0) and moves >= len(points) - 1


def straight(a, by, n=24): return [(a[0] + by[0]*i/n, a[1] + by[1]*i/n) for i in range(n + 1)]
def around(c, a, turns, n=24):
    "From a round the centre c"
    r, start = math.dist(a, c), math.atan2(a[1] - c[1], a[0] - c[0])
    return [(c[0] + r*math.cos(start + 2*math.pi*i/n), c[1] + r*math.sin(start + 2*math.pi*i/n))
            for i in range(round(n*turns) + 1)]


def test_a_finger_beside_a_handle_scrolls(phone):
    page, lab = phone('wheels')
    scrolled, moves, cancelled = swipe(page, straight(center(lab.locator('.lab-ask')), (0, -200)))
    assert scrolled > 100 and cancelled and moves < 20             # these are the events of a real finger


# the middle of the first part of a handle that a finger meets there
HELD = """e => [...e.querySelectorAll('*')].map(o => o.getBoundingClientRect())
    .map(r => [r.x + r.width/2, r.y + r.height/2]).find(p => e.contains(document.elementFromPoint(...p)))"""

@pytest.mark.parametrize('name', LABS)
def test_a_drag_moves_what_it_holds_and_scrolls_elsewhere(phone, name):
    page, lab = phone(name)
    for handle in lab.locator('[role=slider].lab-handle:visible').all()[:6]:
        center(handle)
        before, moved = value(handle), []
        # Flow's weights go sideways, and leave up and down to the page
        for by in ((90, 0), (-70, 20)) if name == 'flow' else ((0, 90), (70, 70)):
            holds(page, straight(handle.evaluate(HELD), by))
            moved.append(value(handle))
        assert set(moved) != {before}, handle.get_attribute('aria-label')
    assert swipe(page, straight(center(lab.locator('.lab-ask')), (0, -200)))[0] > 100
    if name in ('wheels', 'hinges', 'flow', 'order'):                   # in the picture, beside what can be held
        svg = lab.locator('svg').first
        center(svg)
        free = svg.evaluate("""e => { const r = e.getBoundingClientRect()
            for (let j = .9; j > .1; j -= .1) for (let i = .1; i < .95; i += .05) {
                const p = [r.x + i*r.width, r.y + j*r.height]
                if (!document.elementFromPoint(...p)?.closest('.lab-handle, .lab-node')) return p } }""")
        assert swipe(page, straight(free, (0, -160)))[0] > 60


@pytest.mark.parametrize('hold', ['circle:nth-of-type(3)', 'line', 'circle'])
def test_the_wheel_turns_on_and_on(phone, hold):
    page, lab = phone('wheels')
    wheel, x = lab.locator('.lab-handle'), slider(lab, 'turn the wheel x')
    button(lab, 'Stop')
    part = wheel.locator(hold).first
    at, middle = center(part), wheel.locator('circle').first.evaluate(MIDDLE)
    if hold == 'circle': at = [middle[0] - 22, middle[1] - 9]                  # the disc itself
    first = value(x)
    for turns in (3, -5):
        before = value(x)
        path = around(middle, at, abs(turns))
        holds(page, path if turns > 0 else path[::-1])
        assert value(x) == pytest.approx(before + turns, abs=.02)
        assert value(x, 'min') <= before + turns <= value(x, 'max')
    assert number(lab.locator('svg text').last.text_content()) == pytest.approx(4*(first - 2), abs=.1)


# the hinge is at 0.5, its tilt −20; far: what the drag is worth
@pytest.mark.parametrize('name,hold,by,far', [
    ('hinge 2: where it bends', 'text', (80, 120), .3),
    ('hinge 2: where it bends', 'circle >> nth=3', (-80, -120), -.3),
    ('hinge 2: where it bends', 'circle >> nth=1', (60, 150), .22),              # the ring on the curve
    ('hinge 2: its tilt', 'circle >> nth=1', (10, -60), 30),
    ('hinge 2: its tilt', 'line', (20, 100), -100),
    ('baseline', 'path', (0, -60), 8)])
def test_hinges_follow_a_finger(phone, name, hold, by, far):
    page, lab = phone('hinges')
    lab.get_by_role('button', name='Add a hinge').tap()
    handle = slider(lab, name)
    before = value(handle)
    holds(page, straight(center(handle.locator(hold)), by))
    gone = value(handle) - before
    assert gone == pytest.approx(far, abs=.08) if abs(far) < 1 else gone*far > far*far/4, gone


def test_a_hinge_s_line_and_the_baseline_are_held_anywhere(phone):
    page, lab = phone('hinges')
    for kind, name in ('path', 'hinge 1: its tilt'), ('line', 'baseline'):
        part = lab.locator(f'{kind}.lab-handle')
        before = value(slider(lab, name))
        holds(page, straight(center(part), (5, -40)))
        assert value(slider(lab, name)) > before + 4


def test_softmax_follows_a_finger(phone):
    page, lab = phone('softmax')
    for who, by in ('dog', (-70, 150)), ('plane', (60, -200)), ('building', (80, 90)):
        handle = slider(lab, f'score of {who}')
        before = value(handle)
        holds(page, straight(center(handle.locator('rect').last), by))
        assert abs(value(handle) - before) > 4


@pytest.mark.parametrize('name,hold,by,far', [
    ('weight from pixel 2 to the second unit', '.lab-face', (100, 0), .5),
    ('weight from pixel 3 to the first unit', 'text >> nth=0', (-80, 20), -.4),
    ('weight from the first unit to out', '.lab-face', (100, -60), .5),
    ('the weight in the plot', 'circle >> nth=0', (48, 30), .48)])
def test_flow_s_weights_follow_a_finger(phone, name, hold, by, far):
    page, lab = phone('flow')
    handle = slider(lab, name)
    before = value(handle)
    holds(page, straight(center(handle.locator(hold)), by))
    assert value(handle) - before == pytest.approx(far, abs=.03)
    nudge = cells(lab, 'nudge × w.g before').first.inner_text().split(' × ')[0]
    assert number(nudge.strip('()')) == pytest.approx(far, abs=.03)


@pytest.mark.parametrize('name', ['weight from pixel 2 to the second unit', 'the weight in the plot'])
def test_a_swipe_up_that_begins_on_a_weight_scrolls_and_leaves_it(phone, name):
    page, lab = phone('flow')
    handle = slider(lab, name)
    before = value(handle)
    scrolled, _, cancelled = swipe(page, straight(center(handle), (12, -160)))
    assert scrolled > 60 and cancelled and value(handle) == before


def test_ball_and_its_rate_follow_a_finger(phone):
    page, lab = phone('ball')
    ball = slider(lab, 'the ball')
    at, width = center(ball), lab.locator('svg').first.bounding_box()['width']
    holds(page, straight(at, (-width/2, 90)))
    assert value(ball) == pytest.approx(4 - 4.41, abs=.1)       # 420 of 400 are 8.4 wide
    rate = lab.get_by_label('learning rate η')
    x, y = center(rate)
    half = rate.bounding_box()['width']/2
    assert swipe(page, straight((x - half + 40, y), (2*half - 42, 3)))[0] == 0 and rate.input_value() == '19'
    lab.get_by_role('button', name='two weights').tap()
    holds(page, straight(center(ball), (-60, 40)))
    a, b = [float(o.split(' ')[1]) for o in ball.get_attribute('aria-valuetext').split(', ')]
    assert a < 5 and b < 3.5


def test_descent_is_drawn_in_and_scrubbed_by_a_finger(phone):
    page, lab = phone('descent')
    pad = lab.locator('canvas.lab-pad')
    x, y = center(pad)
    ink = lambda: pad.evaluate("c => c.getContext('2d').getImageData(0, 0, c.width, "
                               "c.height).data.filter((v, i) => i % 4 == 3 && v).length")
    holds(page, straight((x, y - 70), (4, 140)))
    assert 500 < ink() < 3000
    scrub = slider(lab, 'step')
    x, y = center(scrub)
    half = scrub.bounding_box()['width']/2
    assert swipe(page, straight((x + half - 8, y), (10 - 2*half, 3)))[0] == 0 and scrub.input_value() == '0'


def test_step_and_broadcast_answer_a_finger(phone):
    page, lab = phone('step')
    strip = slider(lab, 'step')
    x, y = center(strip)
    assert swipe(page, straight((x - 60, y), (60, 4)))[0] == 0 and 8 <= int(strip.input_value()) <= 12
    before = int(strip.input_value())
    lab.get_by_role('button', name='next line').tap()
    assert int(strip.input_value()) > before
    page, lab = phone('broadcast')
    lab.get_by_role('button', name='(10000, 1) and (10000,)', exact=True).tap()
    assert '400' in lab.get_by_role('status').inner_text()


# ---- keys ----
@pytest.mark.parametrize('name,step', [('wheels', .01), ('flow', .01), ('hinges', None), ('softmax', .1), ('ball', .1)])
def test_every_handle_knows_the_keys_of_a_slider(phone, name, step):
    page, lab = phone(name)
    handles = lab.locator('[role=slider]').all()
    assert handles
    for handle in handles:
        handle.scroll_into_view_if_needed()
        handle.focus()
        top = page.evaluate('scrollY')
        press = lambda key: (page.keyboard.press(key), value(handle))[1]
        assert press('Home') == pytest.approx(value(handle, 'min'), abs=.5)
        assert press('End') == pytest.approx(value(handle, 'max'), abs=.5)
        end = value(handle)
        small, large = end - press('ArrowDown'), value(handle) - press('PageDown')
        assert small > 0 and large == pytest.approx(10*small) and (step is None or small == pytest.approx(step))
        assert press('PageUp') == pytest.approx(end - small)
        assert press('Shift+ArrowLeft') == pytest.approx(end - 11*small)
        page.wait_for_timeout(60)
        assert page.evaluate('scrollY') == top
