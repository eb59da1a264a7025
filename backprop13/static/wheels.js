// Wheels: how much faster does the last wheel turn than the first? The chain rule as three wheels on two belts.
import {LAB, h, s, set, drawing, draggable, slider, button, fitted, clamp, fmt} from './kit.js'

// The slopes and the turns of three wheels with these circumferences when the first has turned `x` times
export const turn = ([X, U, Y], x) => {
  const dudx = X / U, dydu = U / Y
  return {dudx, dydu, dydx: dudx * dydu, u: dudx * x, y: dydu * dudx * x}
}

// The largest wheels of these sizes that stand side by side in so much room: pixels for a radius of 1
const EDGE = 9, GAP = 28, SUM = (a, b) => a + b
export const fit = (sizes, width, height) =>
  Math.min((height / 2 - EDGE) / Math.max(...sizes), (width / 2 - EDGE - GAP) / sizes.reduce(SUM))

// The two straight parts of a belt around circles at a and b with radii p and q; the upper one runs to b, the lower one back
const belt = (a, p, b, q, middle) => {
  const tilt = Math.acos((p - q) / (b - a)), at = (c, r, side) => `${c + r * Math.cos(tilt)},${middle + side * r * Math.sin(tilt)}`
  return `M${at(a, p, -1)}L${at(b, q, -1)}M${at(b, q, 1)}L${at(a, p, 1)}`
}

// From where to where x can be set: two turns, and on as far as it was turned
export const ends = x => [Math.min(0, Math.floor(x)), Math.max(2, Math.ceil(x))]

const NAMES = ['x', 'u', 'y'], KINDS = ['inputs', 'activations', 'loss'], SECONDS = 8          // for a turn of x

const render = ({model, el}) => {
  const {sizes, x: start} = model.get('data'), size = [...sizes]
  let x = start, width, height, at = [0, 0, 0]
  const belts = [0, 1].map(() => s('path', {fill: 'none', stroke: 'var(--soft)', 'stroke-width': 2.5, 'stroke-dasharray': '9 4'}))
  const wheels = KINDS.map((kind, i) => {
    const rim = s('circle', {fill: 'currentColor', 'fill-opacity': .13, stroke: 'currentColor', 'stroke-width': 3})
    const spoke = s('line', {stroke: 'currentColor', 'stroke-width': 3}), dot = s('circle', {fill: 'currentColor', r: 7})
    const name = s('text', {'font-size': 20, 'font-style': 'italic', 'text-anchor': 'middle'}, NAMES[i])
    const turns = s('text', {'font-size': 17, 'text-anchor': 'middle'})
    return {rim, spoke, dot, name, turns, wheel: s('g', {class: kind}, rim, spoke, dot), words: s('g', {class: kind}, name, turns)}
  })
  const finger = s('circle', {fill: 'transparent'})                               // holds x, however small
  wheels[0].wheel.prepend(finger)
  const cell = () => h('td', {class: 'num'}), slopes = NAMES.map(cell), how = NAMES.map(cell)
  const pic = drawing(640, 300, 'Three wheels in a row; a belt leads from x to u and from u to y',
                      belts, wheels.map(w => w.wheel), wheels.map(w => w.words))

  const write = (cell, text) => { if (cell.textContent !== text) cell.textContent = text }      // or it would be read aloud again
  const show = () => {
    const {dudx, dydu, dydx, u, y} = turn(size, x), turns = [x, u, y], middle = height / 2
    const unit = Math.min(fit(sizes, width, height), fit(size, width, height)), r = size.map(c => c * unit)
    const gap = (width - 2 * EDGE - 2 * r.reduce(SUM)) / 2
    at = r.map((o, i) => EDGE + o + i * gap + 2 * r.slice(0, i).reduce(SUM, 0))
    wheels.forEach(({rim, spoke, dot, name, turns: count}, i) => {
      const a = turns[i] * 2 * Math.PI, tip = [at[i] + r[i] * Math.sin(a), middle - r[i] * Math.cos(a)]
      set(rim, {cx: at[i], cy: middle, r: r[i]})
      set(spoke, {x1: at[i], y1: middle, x2: tip[0], y2: tip[1]})
      set(dot, {cx: tip[0], cy: tip[1]})
      set(name, {x: at[i], y: height + 16})
      set(count, {x: at[i], y: height + 38})
      count.textContent = fmt(turns[i])
    })
    set(finger, {cx: at[0], cy: middle, r: Math.max(24, r[0] + EDGE)})
    belts.forEach((b, i) => set(b, {d: belt(at[i], r[i], at[i + 1], r[i + 1], middle), 'stroke-dashoffset': -2 * Math.PI * r[0] * x % 13}));
    [dudx, dydu, dydx].forEach((v, i) => write(slopes[i], fmt(v)));
    [`${size[0]} ÷ ${size[1]}`, `${size[1]} ÷ ${size[2]}`, `${fmt(dudx)} × ${fmt(dydu)}`].forEach((text, i) => write(how[i], text))
  }
  const turnTo = v => {
    x = v
    show()
    wheels[0].wheel.tell()
  }

  // ---- it turns by itself while it is seen, until the picture is touched ----
  let turning = !matchMedia('(prefers-reduced-motion: reduce)').matches, seen = false, frame, before
  const tick = now => {
    turnTo(x + (now - before) / 1000 / SECONDS)
    before = now
    frame = requestAnimationFrame(tick)
  }
  const run = on => {
    turning = on
    going.textContent = on ? 'Stop' : 'Turn'
    cancelAnimationFrame(frame)
    before = performance.now()
    if (turning && seen) frame = requestAnimationFrame(tick)
  }
  const going = button('', () => run(!turning)), stop = () => { if (turning) run(false) }
  for (const touch of ['pointerdown', 'focusin']) pic.addEventListener(touch, stop)

  draggable(wheels[0].wheel, {
    label: 'turn the wheel x', ends: () => ends(x), value: () => Math.round(1000 * x) / 1000, by: .01, to: turnTo,
    drag: (dx, dy, now) => {
      const angle = (px, py) => Math.atan2(py - height / 2, px - at[0]) / (2 * Math.PI)
      const by = angle(now.x, now.y) - angle(now.x - dx, now.y - dy)
      turnTo(x + by - Math.round(by))                                // the short way round
    }})
  const choose = KINDS.map((kind, i) => slider({
    label: `size of ${NAMES[i]}`, min: 1, max: 8, step: 1, value: size[i], kind, text: v => fmt(v, 0), oninput: v => { size[i] = v; show() }}))
  const row = (label, ...cells) => h('tr', {}, h('th', {scope: 'row'}, label), ...cells)
  const lab = h('div', {class: 'wheels'},
    h('div', {class: 'row'}, h('p', {class: 'ask'}, 'x turns u, and u turns y. How much faster than x does y turn?'), going),
    pic,
    h('div', {class: 'columns'},
      h('div', {}, choose),
      h('table', {}, h('caption', {class: 'how'}, 'slopes, and their product'),
        row('du/dx', how[0], slopes[0]), row('dy/du', how[1], slopes[1]), set(row('dy/dx', how[2], slopes[2]), {'aria-live': 'polite', 'aria-atomic': 'true'}))),
    h('p', {class: 'how'}, 'Below each wheel stand its turns. Drag x round, or focus it and press the arrow keys.'))
  el.append(h('div', LAB, lab))
  fitted(lab, room => {
    [width, height] = [room, clamp(Math.round(.5 * room), 150, 250)]
    set(pic, {viewBox: `0 0 ${width} ${height + 44}`})
    show()
  })
  run(turning)
  new IntersectionObserver(entries => { seen = entries.at(-1).isIntersecting; run(turning) }).observe(pic)
}
export default {render}
