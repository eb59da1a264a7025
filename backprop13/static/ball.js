// Ball: how long should a step be? A ball goes down a loss of one weight or two, as far at each step as the learning rate says.
import {LAB, h, s, set, mark, drawing, draggable, slider, button, status, unique, fmt, clamp, scale, line} from './kit.js'

// ---- the loss is curve × (w − low)², added up over the weights
export const loss = (bowl, w) => bowl.reduce((sum, {curve, low}, i) => sum + curve * (w[i] - low) ** 2, 0)
export const grad = (bowl, w) => bowl.map(({curve, low}, i) => 2 * curve * (w[i] - low))
export const step = (bowl, w, rate) => grad(bowl, w).map((g, i) => w[i] - rate * g)
// What a step does with the distance to the lowest place: it multiplies it by 1 − 2 × curve × rate
export const kept = (curve, rate) => Number((1 - 2 * curve * rate).toFixed(9))
export const KINDS = ['too small', 'right', 'too large', 'diverges']
export const kind = (curve, rate) => {
  const k = kept(curve, rate)
  return KINDS[k < -1 ? 3 : k < 0 ? 2 : k ** 10 <= .1 ? 1 : 0]                      // ten steps leave a tenth, or less
}

// ---- in words
const num = (x, most = 2) => Math.abs(x) >= 1e6 && Number.isFinite(x) ? x.toExponential(1).replace('-', '−').replace('e+', 'e')
  : fmt(x, [0, 1, 2, 3, 4].find(d => d === most || Math.abs(x - Number(x.toFixed(d))) < 1e-9))
const little = x => x < 5e-5 ? 'almost nothing' : num(Number(x.toPrecision(2)), 4)
const sign = x => x < 0 ? `(${num(x)})` : num(x)
export const say = (bowl, rate) => bowl.map(({name, curve}) => {
  const k = kept(curve, rate), left = num(Math.abs(k))
  return `${name}: ${kind(curve, rate)}. ` + (k === 0 ? 'One step leads to the lowest place.'
    : k > 0 ? `A step leaves ${left} of the distance, ten steps ${little(k ** 10)}.`
    : `Each step lands on the other side, ${k === -1 ? 'as far away' : k < -1 ? `${left} times as far away` : `at ${left} of the distance`}.`)
}).join(' ')

const [W, H, EDGE, FLOOR, PACE] = [420, 262, 10, 222, 650], TOP = 18
const render = ({model, el}) => {
  const data = model.get('data'), calm = matchMedia('(prefers-reduced-motion: reduce)'), id = unique()
  let bowl = data.one, rate = data.rate, path, playing = null
  const text = (kind, attrs, ...words) => s('text', {class: kind, stroke: 'none', ...attrs}, ...words)
  // ---- the picture
  const ground = s('g'), track = s('path', {class: 'track'}), marks = s('g', {class: 'weights'})
  const ahead = s('path', {class: 'ahead'}), slope = s('path', {class: 'slope'}), far = s('path', {class: 'slope far'})
  const ghost = s('circle', {r: 9, class: 'ghost'}), face = s('circle', {r: 9, class: 'face'})
  const ball = s('g', {class: 'ball'}, s('circle', {r: 32, fill: 'transparent', stroke: 'none'}), face)
  const pic = drawing(W, H, 'A ball on the loss, its steps so far, and where the next one leads',
    s('clipPath', {id}, s('rect', {x: 0, y: 0, width: W, height: FLOOR})), ground,
    s('g', {'clip-path': `url(#${id})`}, track, marks, ahead, slope, ghost), far, ball)
  const two = () => bowl.length > 1, X = v => x(v), Y = v => y(v)
  let x, y, reach
  const at = w => two() ? [X(w[0]), Y(w[1])] : [X(w[0]), Y(loss(bowl, w))]
  const within = ([a, b]) => [clamp(a, EDGE, W - EDGE), clamp(b, 8, FLOOR - 2)]
  const draw = () => {                                                               // what stands still
    const [{low, name}] = bowl, half = two() ? 6.6 : 4.2
    reach = [low - half, low + half]
    x = scale(reach, [EDGE, W - EDGE])
    const deep = (FLOOR - 10) / (W - 2 * EDGE) * half                                // as many pixels to a unit of w₂ as of w₁
    y = two() ? scale([bowl[1].low - deep, bowl[1].low + deep], [FLOOR, 10]) : scale([0, TOP], [FLOOR, 10])
    const ticks = [...Array(20).keys()].map(i => i - 9).filter(v => v > reach[0] && v < reach[1] && (v - low) % 2 === 0)
    const tick = v => text('tick', {x: X(v), y: FLOOR + 17, 'text-anchor': 'middle'}, num(v))
    const ring = v => s('ellipse', {cx: X(low), cy: Y(bowl[1].low), rx: Math.sqrt(v / bowl[0].curve) * (X(1) - X(0)),
                                    ry: Math.sqrt(v / bowl[1].curve) * (X(1) - X(0)), class: 'ring'})
    const bowlLine = () => line([...Array(85).keys()].map(i => at([reach[0] + i / 84 * 2 * half])))
    ground.replaceChildren(s('line', {class: 'axis', x1: EDGE, x2: W - EDGE, y1: FLOOR, y2: FLOOR}), ...ticks.map(tick),
      text('weights', {x: W - EDGE, y: FLOOR + 34, 'text-anchor': 'end'}, name),
      ...two() ? [s('g', {class: 'loss', 'clip-path': `url(#${id})`}, [.1, .4, .9, 1.6, 2.6, 4, 6.3, 9.4].map(ring)),
        text('weights', {x: EDGE, y: 22}, bowl[1].name), text('lowest', {x: X(low), y: Y(bowl[1].low) + 5, 'text-anchor': 'middle'}, '+'),
        text('tick', {x: EDGE, y: FLOOR + 34}, 'a line joins places of equal loss')]
        : [s('path', {class: 'curve loss', 'stroke-width': 2.5, d: bowlLine()}), text('loss', {x: EDGE + 26, y: 22}, 'loss')])
  }
  // ---- numbers
  const rule = h('p', {class: 'num rule'}), sums = h('div', {class: 'sums'}), words = status(), count = h('p', {class: 'how'})
  const part = (kind, ...words) => h('span', {class: kind}, ...words)
  rule.append(part('weights', 'w'), ' ← ', part('weights', 'w'), ' − η · ', part('gradients', 'g'))
  const bands = h('div', {class: 'bands'})
  const band = ({name, curve}) => {
    const all = KINDS.map(k => [k, data.rates.filter(r => kind(curve, r) === k).length]).filter(([, n]) => n)
    return h('div', {class: 'band'}, two() && part('weights who', name),
      all.map(([k, n]) => h('span', {class: `zone ${k === kind(curve, rate) ? 'here' : ''} z${KINDS.indexOf(k)}`, style: `flex-grow: ${n}`}, k)))
  }
  const show = hop => {
    const w = path.at(-1), g = grad(bowl, w), next = step(bowl, w, rate), [a, b] = [at(w), at(next)], here = within(a)
    const off = here.some((v, i) => Math.abs(v - a[i]) > 2)
    mark(ball, 'hop', hop && !calm.matches)
    mark(ball, 'out', off)
    ball.style.transform = `translate(${here[0]}px,${here[1]}px)`
    const seen = path.slice(-60).map(at).map(([p, q]) => [clamp(p, -1e5, 1e5), clamp(q, -1e5, 1e5)]), [p, q] = [b[0], b[1]].map(v => clamp(v, -1e5, 1e5))
    set(track, {d: line(seen)})
    marks.replaceChildren(...seen.slice(0, -1).map(([cx, cy]) => s('circle', {cx, cy, r: 4, fill: 'currentColor'})))
    set(ahead, {d: line([seen.at(-1), [p, q]])})
    set(ghost, {cx: p, cy: q})
    const lean = (Y(1) - Y(0)) / (X(1) - X(0)) * g[0], run = 66 / Math.hypot(1, lean)        // the tangent, as long on every slope
    set(slope, {d: off ? '' : line(two() ? [a, [p, q]] : [[a[0] - run, a[1] - run * lean], [a[0] + run, a[1] + run * lean]])})
    set(far, {d: two() ? '' : line([[here[0], FLOOR], [within(b)[0], FLOOR]])})
    sums.replaceChildren(...bowl.map(({name}, i) => h('p', {class: 'num'}, part('weights', name), ' ← ', part('weights', num(w[i])),
      ` − ${num(rate)} · `, part('gradients', sign(g[i])), ' = ', part('weights', num(next[i])))))
    const done = path.length - 1
    count.textContent = `${done} step${done === 1 ? '' : 's'} · loss ${num(loss(bowl, w), 3)}${off ? ' · off the picture' : ''}`
    if (words.textContent !== say(bowl, rate)) words.textContent = say(bowl, rate)
    going.textContent = playing ? 'Pause' : calm.matches ? 'Ten steps' : 'Play'
    ball.tell?.()
  }
  const zones = () => bands.replaceChildren(...bowl.map(band))
  // ---- steps
  const stop = () => { clearInterval(playing); playing = null }
  const go = () => {
    const next = step(bowl, path.at(-1), rate)
    if (next.every(Number.isFinite)) path.push(next)
    show(true)
  }
  const play = () => {
    if (playing) { stop(); return show() }
    if (calm.matches) { for (let i = 0; i < 10; i++) go(); return }
    let left = 9
    playing = setInterval(() => { if (!--left || !pic.isConnected) stop(); go() }, PACE)
    go()
  }
  const going = button('Play', play, {class: 'play'})
  const again = () => { stop(); path = [bowl.map(o => o.start)]; show() }
  const place = w => { stop(); path = [w]; show() }
  const rates = slider({label: 'learning rate η', min: 0, max: data.rates.length - 1, step: 1, value: data.rates.indexOf(rate),
    text: i => num(data.rates[i]), oninput: i => { rate = data.rates[i]; zones(); show() }})
  const choose = [['one weight', data.one], ['two weights', data.two]].map(([name, list]) => ({list, el: button(name, () => change(list))}))
  const change = list => {
    bowl = list
    for (const o of choose) set(o.el, {'aria-pressed': String(o.list === bowl)})
    mark(words, 'long', two())
    draw()
    zones()
    again()
  }
  ball.addEventListener('keydown', e => {                                            // up and down move the second weight
    const by = {ArrowUp: .1, ArrowDown: -.1}[e.key]
    if (!by || !two()) return
    e.preventDefault()
    e.stopImmediatePropagation()
    const [a, b] = path.at(-1)
    place([a, clamp(b + by, y.back(FLOOR), y.back(10))])
  })
  change(data.one)
  draggable(ball, {label: 'the ball', ends: () => reach, value: () => path.at(-1)[0], by: .1,
    text: () => bowl.map(({name}, i) => `${name} ${num(path.at(-1)[i])}`).join(', '),
    to: v => place([clamp(Math.round(1e6 * v) / 1e6, ...reach), ...path.at(-1).slice(1)]),
    drag: (dx, dy, p) => {
      const [a, b] = within([p.x, p.y]), round = v => Math.round(20 * v) / 20
      place(two() ? [round(x.back(a)), round(y.back(b))] : [round(x.back(a))])
    }})
  el.append(h('div', LAB, h('div', {class: 'ball-lab'},
    h('div', {class: 'row top'}, h('p', {class: 'ask'}, 'How long should a step be?'),
      h('div', {class: 'row pair', role: 'group', 'aria-label': 'how many weights'}, choose.map(c => c.el))),
    h('div', {class: 'columns'}, pic, h('div', {class: 'side'}, rates, bands,
      h('div', {class: 'row keys'}, button('Step', () => { stop(); go() }), going, button('Start again', again)), rule, sums, count)), words,
    h('p', {class: 'how'}, 'Drag the ball, or focus it and press the arrow keys. Purple: the slope g, and the step η · g.'))))
  show()
}
export default {render}
