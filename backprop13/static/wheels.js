// Wheels: how much faster does the last wheel turn than the first? The chain rule as three wheels on two belts.
import {LAB, h, s, set, drawing, draggable, slider, fmt} from './kit.js'

// The slopes and the turns of three wheels with these circumferences when the first has turned `x` times
export const turn = ([X, U, Y], x) => {
  const dudx = X / U, dydu = U / Y
  return {dudx, dydu, dydx: dudx * dydu, u: dudx * x, y: dydu * dudx * x}
}

const WIDTH = 640, HEIGHT = 190, UNIT = 11, CENTERS = [100, 340, 545], NAMES = ['x', 'u', 'y'], KINDS = ['inputs', 'activations', 'loss']
const MIDDLE = HEIGHT / 2

// The two straight parts of a belt around circles of radius p at a and q at b, on one height
const belt = (a, p, b, q) => {
  const tilt = Math.acos((p - q) / (b - a)), at = (c, r, sign) => [c + r * Math.cos(tilt), MIDDLE + sign * r * Math.sin(tilt)]
  return [-1, 1].map(sign => `M${at(a, p, sign)}L${at(b, q, sign)}`).join('')
}

// From where to where x can be set: two turns, and on as far as it was turned
export const ends = x => [Math.min(0, Math.floor(x)), Math.max(2, Math.ceil(x))]

const render = ({model, el}) => {
  const {sizes, x: start} = model.get('data'), size = [...sizes]
  let x = start
  const belts = [0, 1].map(() => s('path', {fill: 'none', stroke: 'var(--soft)', 'stroke-width': 2}))
  const wheels = KINDS.map((kind, i) => {
    const rim = s('circle', {fill: 'currentColor', 'fill-opacity': .13, stroke: 'currentColor', 'stroke-width': 3})
    const spoke = s('line', {stroke: 'currentColor', 'stroke-width': 3})
    const dot = s('circle', {fill: 'currentColor', r: 7})
    const name = s('text', {'font-size': 24, 'font-style': 'italic', 'text-anchor': 'middle', x: CENTERS[i]}, NAMES[i])
    return {rim, spoke, dot, name, g: s('g', {class: kind}, rim, spoke, dot, name)}
  })
  const slopes = ['du/dx', 'dy/du', 'dy/dx'].map(() => h('td', {class: 'num'}))
  const how = ['du/dx', 'dy/du', 'dy/dx'].map(() => h('td', {class: 'num'}))
  const turns = KINDS.map(kind => h('td', {class: `num ${kind}`}))

  const write = (cell, text) => { if (cell.textContent !== text) cell.textContent = text }      // or it would be read aloud again
  const show = () => {
    const at = turn(size, x), angle = [x, at.u, at.y], r = size.map(c => c * UNIT)
    wheels.forEach(({rim, spoke, dot, name}, i) => {
      const a = angle[i] * 2 * Math.PI - Math.PI / 2, tip = [CENTERS[i] + r[i] * Math.cos(a), MIDDLE + r[i] * Math.sin(a)]
      set(rim, {cx: CENTERS[i], cy: MIDDLE, r: r[i]})
      set(spoke, {x1: CENTERS[i], y1: MIDDLE, x2: tip[0], y2: tip[1]})
      set(dot, {cx: tip[0], cy: tip[1]})
      set(name, {y: MIDDLE + r[i] + 26 > HEIGHT - 2 ? HEIGHT + 16 : MIDDLE + r[i] + 26})
      turns[i].textContent = fmt(angle[i])
    })
    belts.forEach((b, i) => set(b, {d: belt(CENTERS[i], r[i], CENTERS[i + 1], r[i + 1])}));
    [at.dudx, at.dydu, at.dydx].forEach((v, i) => write(slopes[i], fmt(v)));
    [`${size[0]} ÷ ${size[1]}`, `${size[1]} ÷ ${size[2]}`, `${fmt(at.dudx)} × ${fmt(at.dydu)}`].forEach((text, i) => write(how[i], text))
  }
  const turnTo = v => {
    x = v
    show()
    const [min, max] = ends(x)
    set(roll.input, {min, max})
    roll.show(x)
    wheels[0].g.tell()
  }
  const [min, max] = ends(x), roll = slider({label: 'turns of x', min, max, step: .01, value: x, kind: 'inputs', oninput: turnTo})
  const choose = KINDS.map((kind, i) => slider({
    label: `size of ${NAMES[i]}`, min: 1, max: 8, step: 1, value: size[i], kind, text: v => fmt(v, 0), oninput: v => { size[i] = v; show() }}))
  const pic = drawing(WIDTH, HEIGHT + 22, 'Three wheels in a row; a belt leads from x to u and from u to y', ...belts, ...wheels.map(w => w.g))
  show()
  draggable(wheels[0].g, {
    label: 'turn the wheel x', ends: () => ends(x), value: () => Math.round(1000 * x) / 1000, by: .01, to: turnTo,
    drag: (dx, dy, at) => {
      const angle = (px, py) => Math.atan2(py - MIDDLE, px - CENTERS[0]) / (2 * Math.PI)
      const by = angle(at.x, at.y) - angle(at.x - dx, at.y - dy)
      turnTo(x + by - Math.round(by))                                // the short way round
    }})
  const row = (label, ...cells) => h('tr', {}, h('th', {scope: 'row'}, label), ...cells)
  el.append(h('div', LAB,
    h('p', {class: 'ask'}, 'x turns u, and u turns y. How much faster than x does y turn?'),
    pic,
    h('div', {class: 'columns'},
      h('div', {}, roll, ...choose),
      h('div', {class: 'row'},
        h('table', {}, h('caption', {class: 'how'}, 'slopes, and their product'),
          row('du/dx', how[0], slopes[0]), row('dy/du', how[1], slopes[1]), set(row('dy/dx', how[2], slopes[2]), {'aria-live': 'polite', 'aria-atomic': 'true'})),
        h('table', {}, h('caption', {class: 'how'}, 'turns'), row('x', turns[0]), row('u', turns[1]), row('y', turns[2])))),
    h('p', {class: 'how'}, 'Drag the wheel x round, or focus it and press the arrow keys.')))
}
export default {render}
