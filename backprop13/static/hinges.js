// Hinges: which rectified lines make this curve? A baseline and up to eight a * relu(side * (x - at)), by hand or by descent.
import {LAB, unique, h, s, set, mark, drawing, draggable, button, fmt, clamp, scale, line, fitted, status} from './kit.js'

const relu = z => Math.max(0, z)

// A state is {base, hinges: [{a, side, at}]}: side 1 opens to the right, -1 to the left. Its sum at x
export const total = ({base, hinges}, x) => hinges.reduce((y, {a, side, at}) => y + a * relu(side * (x - at)), base)

// The root mean square of what is missing at the points, the chapter's error
export const rms = (state, xs, ps) => Math.sqrt(xs.reduce((sum, x, j) => sum + (total(state, x) - ps[j]) ** 2, 0) / xs.length)

// The slopes of the mean squared error, one for each number that may change; of relu at 0, zero
export const slopes = (state, xs, ps) => {
  const out = {base: 0, hinges: state.hinges.map(() => ({a: 0, at: 0}))}
  xs.forEach((x, j) => {
    const d = 2 * (total(state, x) - ps[j]) / xs.length
    out.base += d
    state.hinges.forEach(({a, side, at}, i) => {
      const z = side * (x - at)
      if (z <= 0) return
      out.hinges[i].a += d * z
      out.hinges[i].at -= d * a * side
    })
  })
  return out
}

// Gradient descent, a step at a time. Every number moves against its own slope, by a distance that depends on how steady the
// slope is and not on how steep (Adam), for places and tilts have slopes of very different size. Places move ten times slower
// than tilts, else hinges run after one another and end in one place. Over `steps` the distance shrinks to nothing, so that it
// comes to rest from any start.
export const STEPS = 10000
export const descent = (state, xs, ps, steps = STEPS, rate = .03) => {
  const flat = ({base, hinges}) => [base, ...hinges.flatMap(({a, at}) => [a, at])]
  const sides = state.hinges.map(o => o.side)
  const whole = v => ({base: v[0], hinges: sides.map((side, i) => ({a: v[1 + 2 * i], side, at: v[2 + 2 * i]}))})
  const run = {state, best: state, error: rms(state, xs, ps), step: 0}
  const mean = flat(state).map(() => 0), square = [...mean]
  run.next = () => {
    const lr = rate * (1 + Math.cos(Math.PI * run.step / steps)) / 2, g = flat(slopes(run.state, xs, ps)), t = ++run.step
    run.state = whole(flat(run.state).map((w, i) => {
      mean[i] = .9 * mean[i] + .1 * g[i]
      square[i] = .999 * square[i] + .001 * g[i] * g[i]
      const by = lr * mean[i] / (1 - .9 ** t) / (Math.sqrt(square[i] / (1 - .999 ** t)) + 1e-8), place = i && i % 2 === 0
      return place ? clamp(w - by / 10, 0, 1) : w - by                           // hinges stay where the ink is
    }))
    const error = rms(run.state, xs, ps)
    if (error < run.error) Object.assign(run, {best: run.state, error})
    return t < steps
  }
  return run
}
// The state after so many steps, and the best on the way
export const descend = (state, xs, ps, count, steps = STEPS) => {
  const run = descent(state, xs, ps, steps)
  for (let i = 0; i < count; i++) run.next()
  return {state: run.state, best: run.best, error: run.error}
}

// Where a new hinge goes: the middle of the widest gap between those that are there and the ends
export const gap = places => {
  const at = [0, ...places, 1].sort((a, b) => a - b)
  const i = at.slice(1).reduce((best, v, j) => v - at[j] > at[best + 1] - at[best] + 1e-9 ? j : best, 0)
  return (at[i] + at[i + 1]) / 2
}

const MOST = 8, STEEP = 4, NEW = .2, HIT = 22, LINE = {fill: 'none', stroke: 'currentColor'}
const UNSEEN = {fill: 'none', stroke: 'transparent'}                              // for fingers
const percent = (v, digits = 1) => fmt(100 * v, digits)
const signed = (v, digits = 1) => (v < 0 ? '' : '+') + percent(v, digits)
const inside = ({side, at}) => side > 0 ? `x − ${fmt(at)}` : `${fmt(at)} − x`
const copy = ({base, hinges}) => ({base, hinges: hinges.map(o => ({...o}))})
const round = v => Math.round(v * 1e4) / 1e4

const render = ({model, el}) => {
  const {x: xs, p: ps, errors, chance, start} = model.get('data')
  const top = 1.15 * Math.max(...ps), low = -.12 * top
  let state = copy(start), run = null, knobs = [], chosen = 0, X, Y, Z, reach
  const uid = unique()

  // ---- the drawing: the curve above, below it the pieces that it is the sum of, on the same scale ----
  const dots = xs.map(() => s('circle', {r: 3.5, fill: 'currentColor'}))
  const curve = s('path', {class: 'curve', 'stroke-width': 4}), misses = s('path', {...LINE, 'stroke-width': 1})
  const boxes = [0, 1].map(() => s('rect')), axes = s('g'), pieces = s('g', {class: 'weights'}), drops = s('g')
  const flat = s('line', {stroke: 'currentColor', 'stroke-dasharray': '5 4', opacity: .7}), under = s('line', {...UNSEEN, 'stroke-width': 20})
  const hold = s('g', {class: 'weights'}, s('circle', {r: HIT, fill: 'transparent', stroke: 'none'}),
                 s('path', {d: 'M-10,0L0,-11L10,0L0,11Z', fill: 'currentColor'}))
  const pic = drawing(640, 440, 'Above, the measured points and the sum; below, the hinges that are added up',
    s('defs', {}, boxes.map((b, i) => s('clipPath', {id: `hinges${uid}${i}`}, b))), axes,
    s('g', {'clip-path': `url(#hinges${uid}0)`}, s('g', {class: 'loss', opacity: .55}, misses), s('g', {class: 'weights'}, flat),
      s('g', {class: 'inputs'}, dots), s('g', {class: 'activations'}, curve), under), drops,
    s('g', {'clip-path': `url(#hinges${uid}1)`}, pieces))

  // ---- the numbers ----
  const terms = h('tbody'), said = status(), count = h('span', {class: 'how num'})
  const share = e => `${Math.min(100, 100 * e / (1.6 * errors[0][1]))}%`
  const bar = (label, error, mine = false) => {
    const name = h('th', {scope: 'row'}, label), bar = h('i', {style: `width:${share(error)}`})
    const number = h('td', {class: 'num'}, percent(error, 2))
    return {tr: h('tr', {class: mine ? 'mine' : ''}, name, h('td', {class: 'size'}, bar), number), name, bar, number}
  }
  const mine = bar('yours', 0, true)
  const others = [...errors.map(([k, e]) => bar(k === 1 ? '1: best line' : `${k}, fixed`, e)), bar('chance', chance)]

  const piece = ({a, side, at}, half = false) => {
    const [shut, open] = side > 0 ? [half ? at : 0, 1] : [half ? at : 1, 0]
    return line([[X(shut), Z(0)], [X(at), Z(0)], [X(open), Z(a * Math.abs(open - at))]])
  }
  const arm = ({a, side, at}) => {
    const angle = Math.atan2(Z(0) - Z(a), X(1) - X(0))
    return [X(at) + side * reach * Math.cos(angle), Z(0) - reach * Math.sin(angle)]
  }
  const show = () => {
    const edges = [0, 1, ...state.hinges.map(o => o.at)].sort((a, b) => a - b), error = rms(state, xs, ps)
    set(curve, {d: line(edges.map(v => [X(v), Y(total(state, v))]))})
    set(misses, {d: xs.map((x, j) => `M${X(x).toFixed(2)},${Y(ps[j]).toFixed(2)}V${Y(total(state, x)).toFixed(2)}`).join('')})
    for (const o of [flat, under]) set(o, {x1: X(0), x2: X(1), y1: Y(state.base), y2: Y(state.base)})
    set(hold, {transform: `translate(${X(1) + 14},${Y(clamp(state.base, low, top))})`})
    hold.tell()
    state.hinges.forEach((o, i) => {
      const k = knobs[i], [ax, ay] = arm(o), y = total(state, o.at), up = Y(clamp(y, low, top))
      set(k.path, {d: piece(o)})
      set(k.open, {d: piece(o, true)})
      set(k.stick, {x1: X(o.at), y1: Z(0), x2: ax, y2: ay})
      set(k.end, {transform: `translate(${ax},${ay})`})
      set(k.foot, {transform: `translate(${X(o.at)},${Z(0)})`})
      set(k.drop, {x1: X(o.at), x2: X(o.at), y1: Z(0), y2: up})
      set(k.bend, {transform: `translate(${X(o.at)},${up})`, visibility: y < low || y > top ? 'hidden' : null})
      k.term.textContent = `${signed(o.a)} · relu(${inside(o)})`
      k.knob.tell()
      k.tip.tell()
    })
    knobs.forEach((k, i) => { for (const part of [k.arm, k.row]) mark(part, 'chosen', i === chosen) })
    turning.textContent = `Turn hinge ${chosen + 1}`
    removing.textContent = `Remove hinge ${chosen + 1}`
    for (const b of [turning, removing]) b.hidden = !state.hinges.length
    mine.name.textContent = `yours, ${state.hinges.length}`
    set(mine.bar, {style: `width:${share(error)}`})
    mine.number.textContent = percent(error, 2)
    baseTerm.textContent = percent(state.base)
    adding.disabled = state.hinges.length >= MOST
    set(going, {'aria-pressed': String(!!run)})
    going.textContent = run ? 'Stop' : 'Let gradient descent finish'
    count.textContent = run ? `step ${fmt(run.step, 0)} of ${fmt(STEPS, 0)}` : ''
  }
  const say = text => { said.textContent = text }
  const changed = () => {                                                       // a hand on it ends the descent
    if (run) stop()
    else if (said.textContent) say('')
    show()
  }
  const baseTerm = h('td', {class: 'num weights'})

  // ---- hinges come and go ----
  const knobFor = i => {
    const o = () => state.hinges[i], name = `hinge ${i + 1}`
    const ring = {stroke: 'currentColor', 'stroke-width': 2, fill: 'var(--paper)'}
    const hit = r => s('circle', {...UNSEEN, r, fill: 'transparent', stroke: 'none'})
    const no = s('text', {class: 'no', y: 4.5, 'text-anchor': 'middle', stroke: 'none'}, i + 1)
    const end = s('g', {}, hit(HIT), s('circle', {r: 7, ...ring}))
    const foot = s('g', {}, hit(HIT), s('circle', {class: 'foot', r: 11, fill: 'currentColor'}), no)
    const bend = s('g', {}, hit(16), s('circle', {r: 5, ...ring, stroke: 'var(--activations)'}))
    const stick = s('line', {...LINE, 'stroke-width': 3}), open = s('path', {...UNSEEN, 'stroke-width': 24})
    const k = {
      path: s('path', {...LINE, 'stroke-width': 1.5, opacity: .6}), open, drop: s('line', {stroke: 'var(--soft)', 'stroke-dasharray': '2 4'}),
      stick, end, foot, bend, tip: s('g', {}, stick, end), knob: s('g', {}, bend, foot), term: h('td', {class: 'num weights'})}
    k.row = h('tr', {}, h('th', {scope: 'row'}, h('span', {}, 'hinge '), i + 1), k.term)
    k.arm = s('g', {class: 'weights', onfocusin: () => { chosen = i; show() }, onkeydown: e => { if (e.key === 'Delete') remove() }}, k.tip, k.knob)
    let free = 0       // where the pointer would have it, beyond the ends too
    const bendAt = v => {
      o().at = round(clamp(v, 0, 1))
      changed()
    }
    const tilt = v => {
      o().a = round(clamp(v, -STEEP, STEEP))
      changed()
    }
    draggable(k.knob, {label: `${name}: where it bends`, ends: () => [0, 1], value: () => round(o().at), text: v => `ink ${fmt(v)}`,
      by: .01, to: bendAt, hold: () => { free = o().at }, drag: dx => bendAt(free += dx / (X(1) - X(0)))})
    draggable(k.tip, {label: `${name}: its tilt`, ends: () => [-100 * STEEP, 100 * STEEP],
      value: () => Math.round(1000 * o().a) / 10, text: v => `${fmt(v, 1)} points a unit of ink`, by: 2, to: v => tilt(v / 100), grips: [k.open],
      drag: (dx, dy, at) => {
        const across = at.x - X(o().at), steep = (Z(0) - at.y) / (Z(0) - Z(1)) * (X(1) - X(0))
        if (Math.abs(across) > 12) o().side = Math.sign(across)                  // the arm swung over to the other side
        tilt(steep / Math.max(1, o().side * across))
      }})
    return k
  }
  // As many knobs as hinges: those there stay, so that the focus does
  const fitKnobs = () => {
    while (knobs.length > state.hinges.length) {
      const {path, open, drop, arm, row} = knobs.pop()
      for (const part of [path, open, drop, arm, row]) part.remove()
    }
    while (knobs.length < state.hinges.length) {
      const k = knobFor(knobs.length)
      knobs.push(k)
      pieces.append(k.path, k.open)
      drops.append(k.drop)
      pic.append(k.arm)
      terms.append(k.row)
    }
  }
  const add = () => {
    if (run) stop()
    const o = {a: 0, side: 1, at: round(gap(state.hinges.map(o => o.at)))}
    chosen = state.hinges.push(o) - 1
    o.a = slopes(state, xs, ps).hinges[chosen].a > 0 ? -NEW : NEW
    fitKnobs()
    show()
    say(`Hinge ${chosen + 1} bends the sum ${o.a > 0 ? 'up' : 'down'} at ${fmt(o.at)}, against its gradient. Tilt it, move it.`)
  }
  const turn = () => {
    const o = state.hinges[chosen]
    o.side *= -1
    changed()
    say(`Hinge ${chosen + 1} opens to the ${o.side > 0 ? 'right' : 'left'} now: ${knobs[chosen].term.textContent}.`)
  }
  const remove = () => {
    if (run) stop()
    const gone = chosen
    state.hinges.splice(gone, 1)
    chosen = Math.max(0, Math.min(gone, state.hinges.length - 1))
    fitKnobs()
    show()
    adding.focus()
    say(state.hinges.length ? `Hinge ${gone + 1} is gone; those after it are counted anew.`
      : 'No hinge, no bend: the sum is the baseline, a straight line.')
  }

  // ---- gradient descent ----
  const idle = () => state.hinges.flatMap((o, i) => xs.some(x => o.side * (x - o.at) > 0) ? [] : [i + 1])
  const stop = () => { run = null; say('Stopped. The hinges stay where they were.') }
  const ended = from => {
    const {best, error, step} = run, dead = idle()
    state = copy(best)
    run = null
    show()
    const beaten = errors.findLast(([k, e]) => k >= state.hinges.length && e > error)
    say(`Off by ${percent(from, 2)} before, by ${percent(error, 2)} after ${fmt(step, 0)} steps` +
      (beaten?.[0] > 1 ? `: closer than ${beaten[0]} fixed hinges. ` : '. ') +
      (dead.length ? `No point is on the open side of hinge ${dead.join(', ')}: no slope, so descent can't move it.`
        : error < from - 5e-5 ? 'From another start it may end elsewhere: move a hinge and try again.'
        : 'Nothing nearby is better.'))
  }
  const go = () => {
    if (run) { stop(); return show() }
    const mineNow = run = descent(state, xs, ps), from = run.error
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) {
      while (run.next());
      return ended(from)
    }
    say('Descending.')
    let frame = 0
    const tick = () => {
      if (run !== mineNow || !pic.isConnected) return
      let more = true
      for (let i = 0; i < 1 + .35 * frame && more; i++) more = run.next()        // slowly at first, where most of it happens
      frame++
      state = copy(run.state)
      if (!more) return ended(from)
      show()
      requestAnimationFrame(tick)
    }
    show()
    requestAnimationFrame(tick)
  }
  const adding = button('Add a hinge', add), turning = button('', turn), removing = button('', remove)
  const going = button('Let gradient descent finish', go)
  const again = button('Start again', () => {
    run = null
    state = copy(start)
    chosen = 0
    fitKnobs()
    show()
    say('The best straight line again.')
  })

  // ---- one drawing unit is one pixel ----
  const place = width => {
    const small = width < 480, high = small ? 190 : 210, below = 150, left = 34, right = width - 30
    X = scale([0, 1], [left, right])
    Y = scale([low, top], [high, 22])
    const middle = high + 24 + below / 2
    Z = v => middle + Y(v) - Y(0)
    reach = small ? 44 : 58
    const [end, text] = [high + 24 + below, (x, y, t, at = 'start') => s('text', {class: 'tick', x, y, 'text-anchor': at}, t)]
    const ticks = [0, .1, .2, .3, .4, .6, .8, 1].filter(v => v < top)
    set(pic, {viewBox: `0 0 ${width} ${end + 36}`})
    set(boxes[0], {x: left - 6, y: 18, width: right - left + 12, height: high - 16})
    set(boxes[1], {x: left - 6, y: high + 24, width: right - left + 12, height: below})
    const name = (x, kind, t) => s('text', {class: kind, x, y: 12, 'font-size': 13, 'text-anchor': 'end'}, t)
    axes.replaceChildren(text(0, 12, 'P(it is a 3), in %'), text(right, high + 20, 'what is added to the baseline', 'end'),
      name(right - 48, 'inputs', '● measured'), name(right, 'activations', '━ sum'),
      ...ticks.map(v => s('line', {class: 'axis', x1: left, x2: right, y1: Y(v), y2: Y(v), opacity: v ? .25 : 1})),
      ...ticks.map(v => text(left - 8, Y(v) + 4.5, percent(v, 0), 'end')),
      s('line', {class: 'axis', x1: left, x2: right, y1: Z(0), y2: Z(0)}),
      ...[0, .5, 1].map(v => text(X(v), end + 16, fmt(v, v % 1 ? 1 : 0), 'middle')),
      text(X(.5), end + 33, 'ink of the pixel', 'middle'))
    dots.forEach((dot, j) => set(dot, {cx: X(xs[j]), cy: Y(ps[j])}))
    show()
  }
  let loose = 0
  const lift = v => {
    state.base = round(clamp(v, low, top))
    changed()
  }
  X = Y = Z = v => v                                                             // until the room is known
  draggable(hold, {label: 'baseline', ends: () => [Math.round(100 * low), Math.round(100 * top)],
    value: () => Math.round(1000 * state.base) / 10, text: v => `${fmt(v, 1)} %`, by: .5, to: v => lift(v / 100),
    grips: [under], hold: () => { loose = state.base }, drag: (dx, dy) => lift(loose += Y.back(dy) - Y.back(0))})
  pic.append(hold)
  fitKnobs()
  const lab = h('div', LAB, h('div', {class: 'hinges'},
    h('p', {class: 'ask'}, 'Which rectified lines make this curve?'),
    pic,
    h('div', {class: 'row'}, adding, turning, removing, going, again, count),
    said,
    h('div', {class: 'columns'},
      h('table', {class: 'bars'}, h('caption', {class: 'how'}, 'off by, in percentage points (root mean square)'),
        h('tbody', {}, [mine, ...others].map(b => b.tr))),
      h('table', {}, h('caption', {class: 'how'}, 'the sum, in %'),
        h('tbody', {}, h('tr', {}, h('th', {scope: 'row'}, 'baseline'), baseTerm)), terms)),
    h('p', {class: 'how'}, 'Drag a numbered hinge left or right, its line to tilt it, the diamond to lift the baseline; or focus them and ' +
      'press arrow keys. “Fixed”: as above, at equal distances. “Chance”: how far counts scatter anyway.')))
  el.append(lab)
  fitted(lab.firstChild, place)
}
export default {render}
