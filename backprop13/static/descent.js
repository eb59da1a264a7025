// Descent: what does training change, step by step? A recorded run to scrub through: every snapshot is a whole network, and reads
// digits in the page. Where the data has no curve of losses it is cut down to the pad, the ten bars and the slider (labs.digit); where it
// has one network only, which a reader has just trained, the slider goes, too; `ask` says whose it is, and `drawn` keeps what was drawn
// for the next one (assets/python/cell.js).
import {LAB, unique, h, s, set, drawing, slider, button, fmt, clamp, scale, line, status, bytes} from './kit.js'

// ---- the network ----
// Two whole numbers of 4 bits in each byte, the first in its lower half
export const halves = b => {
  const out = new Int8Array(2 * b.length)
  for (let i = 0; i < b.length; i++) { out[2 * i] = b[i] << 28 >> 28; out[2 * i + 1] = b[i] << 24 >> 28 }
  return out
}
// A snapshot's tensors as numbers: each is [whole numbers in base64, their scale, how many bits each has], or, of 32 bits, float32
export const unpack = net => net.map(([text, size, bits = 8]) => {
  const out = Float64Array.from(bits === 4 ? halves(bytes(text)) : new {8: Int8Array, 32: Float32Array}[bits](bytes(text).buffer))
  for (let i = 0; i < out.length; i++) out[i] *= size
  return out
})
// x @ w + b for one x of m numbers; w is (m, n), row by row
export const lin = (x, w, b) => {
  const n = b.length, out = Float64Array.from(b)
  for (let i = 0; i < x.length; i++) if (x[i]) for (let j = 0; j < n; j++) out[j] += x[i] * w[i * n + j]
  return out
}
export const relu = x => x.map(v => Math.max(v, 0))
export const softmax = x => {
  const top = Math.max(...x), e = x.map(v => Math.exp(v - top)), sum = e.reduce((a, b) => a + b)
  return e.map(v => v / sum)
}
export const argmax = x => x.indexOf(Math.max(...x))
// The probabilities of the ten digits for an image of 784 bytes
export const read = ([w1, b1, w2, b2], image) => softmax(lin(relu(lin(Float64Array.from(image, v => v / 255), w1, b1)), w2, b2))
// The same from a snapshot and an image as they are stored
export const readStored = (net, text) => read(unpack(net), bytes(text))

// ---- a drawing, made ready as MNIST's digits were ----
const SIDE = 28, BOX = 20
// Where the n parts of `length` pixels begin and end, as [pixel, share of it in the part] lists; all shares of a part add up to 1
const parts = (length, n) => Array.from({length: n}, (_, k) => {
  const from = k * length / n, to = (k + 1) * length / n, list = []
  for (let i = Math.floor(from); i < to; i++) {
    const share = Math.min(i + 1, to) - Math.max(i, from)
    if (share > 1e-9) list.push([i, share * n / length])
  }
  return list
})
// From a square drawing, bytes row by row, to 784 bytes: its ink scaled to a box of 20 × 20 by averaging areas, the proportions
// kept, and moved so that the centre of its mass is at row 14 and column 14 of 28 × 28, counted from 0, to half a pixel. Null
// where there is no ink.
export const normalize = pad => {
  const side = Math.sqrt(pad.length), rows = [], cols = []
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) if (pad[y * side + x]) { rows.push(y); cols.push(x) }
  if (!rows.length) return null
  const span = list => list.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [side, 0])
  const [[top, bottom], [left, right]] = [span(rows), span(cols)], sizes = [bottom - top + 1, right - left + 1]
  const [high, wide] = sizes.map(v => Math.max(1, Math.round(v * BOX / Math.max(...sizes))))
  const down = parts(sizes[0], high), along = parts(sizes[1], wide)
  const box = down.map(ys => along.map(xs => {
    let sum = 0
    for (const [y, p] of ys) for (const [x, q] of xs) sum += p * q * pad[(top + y) * side + left + x]
    return Math.round(sum)
  }))
  let mass = 0, my = 0, mx = 0
  box.forEach((r, y) => r.forEach((v, x) => { mass += v; my += y * v; mx += x * v }))
  if (!mass) return null
  const at = (moment, n) => clamp(Math.round(SIDE / 2 - moment / mass), 0, SIDE - n)
  const y0 = at(my, high), x0 = at(mx, wide), out = new Uint8Array(SIDE * SIDE)
  box.forEach((r, y) => out.set(r, (y0 + y) * SIDE + x0))
  return out
}
// Draw with a round pen from a to b, points [x, y]; the ink is full inside and fades at the edge; pad changes in place
export const stroke = (pad, [ax, ay], [bx, by], radius) => {
  const side = Math.sqrt(pad.length), edge = 1.5, reach = radius + edge, long = (bx - ax) ** 2 + (by - ay) ** 2
  const low = v => clamp(Math.floor(v - reach), 0, side), high = v => clamp(Math.ceil(v + reach), 0, side)
  for (let y = low(Math.min(ay, by)); y < high(Math.max(ay, by)); y++) {
    for (let x = low(Math.min(ax, bx)); x < high(Math.max(ax, bx)); x++) {
      const px = x + .5 - ax, py = y + .5 - ay, t = long ? clamp((px * (bx - ax) + py * (by - ay)) / long, 0, 1) : 0
      const far = Math.hypot(px - t * (bx - ax), py - t * (by - ay)), ink = clamp((radius - far) / edge + .5, 0, 1)
      pad[y * side + x] = Math.max(pad[y * side + x], Math.round(255 * ink))
    }
  }
  return pad
}
// The size that 99 in 100 of the values don't exceed: beyond it a colour is full
export const limit = values => Float64Array.from(values, Math.abs).sort()[Math.floor(.99 * (values.length - 1))] || 1

// ---- the page ----
const FINE = 4, PAD = SIDE * FINE, PEN = 5.5                   // the pad is finer than an image: scaling smooths its strokes
const percent = (p, digits = 1) => `${fmt(100 * p, digits)}\u00a0%`
const a = digit => `${digit === 8 ? 'an' : 'a'} ${digit}`
const picture = (side, attrs = {}) => h('canvas', {width: side, height: side, ...attrs})
const how = text => h('p', {class: 'how'}, text)
// Paint value(i), from -1 to 1: below zero in the first colour, above in the second, stronger for larger; zero leaves the paper
const paint = (canvas, value, below, above) => {
  const {width, height} = canvas, ctx = canvas.getContext('2d'), image = ctx.createImageData(width, height), {data} = image
  for (let i = 0; i < width * height; i++) {
    const v = value(i), [red, green, blue] = v < 0 ? below : above, k = 4 * i
    data[k] = red; data[k + 1] = green; data[k + 2] = blue; data[k + 3] = Math.round(255 * Math.min(1, Math.abs(v)))
  }
  ctx.putImageData(image, 0, 0)
}

const WIDTH = 360, HEIGHT = 142, LEFT = 44, TOP = 24, BOTTOM = HEIGHT - 20
// Curves over the steps on a logarithmic axis, and a mark that .show(i) moves to the snapshot i, whose value stands above
const chart = ({label, steps, curve, dots, ends, ticks, text, said, kind}) => {
  const log = k => Math.log10(1 + k), x = scale([0, log(steps.at(-1))], [LEFT, WIDTH - 12]), y = scale(ends, [BOTTOM, TOP])
  const at = ([k, v]) => [x(log(k)), y(v)]
  const mark = s('line', {y1: TOP, y2: BOTTOM, stroke: 'var(--ink)', 'stroke-width': 1.5, 'stroke-dasharray': '4 3'})
  const dot = s('circle', {r: 6, fill: 'var(--paper)', stroke: 'currentColor', 'stroke-width': 3})
  const places = dots.map((v, i) => at([steps[i], v])), value = s('tspan', {'font-weight': 700})
  const marks = places.map(([cx, cy]) => s('circle', {cx, cy, r: 3.5, fill: 'currentColor'}))
  const tick = (px, py, anchor, words) => s('text', {class: 'tick', x: px, y: py, 'text-anchor': anchor}, words)
  const pic = drawing(WIDTH, HEIGHT, label,
    s('text', {x: 0, y: 13}, `${label}: `, value),
    s('path', {class: 'axis', d: `M${LEFT},${TOP}V${BOTTOM}H${WIDTH - 12}`}),
    ...ticks.map(v => tick(LEFT - 6, y(v) + 4, 'end', text(v))),
    ...[0, 10, 100, 1000].filter(k => k <= steps.at(-1)).map(k => tick(x(log(k)), BOTTOM + 16, 'middle', k ? fmt(k, 0) : 'step 0')),
    s('g', {class: kind}, curve && s('path', {class: 'curve', 'stroke-opacity': .5, 'stroke-width': 1.5, d: line(curve.map(at))}),
      s('path', {class: 'curve', 'stroke-width': 2.5, d: line(places)}), ...marks, mark, dot))
  return Object.assign(pic, {show: i => {
    const [px, py] = places[i]
    set(mark, {x1: px, x2: px})
    set(dot, {cx: px, cy: py})
    value.textContent = said(dots[i])
  }})
}

// What only the whole lab has: the run's curves, the first layer, the digits to choose, and what the network of each step reads
const history = ({steps, nets, curve, valid, digits, goTo, putDigit, color, paintInk}) => {
  const last = steps.length - 1, units = nets[0][1].length
  const change = nets.map(([w]) => w.map((v, i) => v - nets[0][0][i]))
  const shades = {weights: nets.map(([w]) => w), change}, sizes = {weights: limit(nets[last][0]), change: limit(change[last])}
  let what = 'weights', shown = last

  const top = Math.ceil(Math.max(...curve.map(p => p[1]), ...valid.map(v => v[0])))
  const charts = [
    chart({label: 'Validation loss (thin: minibatch)', kind: 'loss', steps, curve, dots: valid.map(v => v[0]),
           ends: [0, top], ticks: Array.from({length: top + 1}, (_, i) => i), text: v => fmt(v, 0), said: v => fmt(v)}),
    chart({label: 'Validation accuracy', kind: 'activations', steps, dots: valid.map(v => v[1]), ends: [0, 1],
           ticks: [0, .5, 1], text: v => percent(v, 0), said: v => percent(v, 2)})]

  const pictures = Array.from({length: units}, () => picture(SIDE)), ends = [-1, 1].map(() => h('span', {class: 'num'}))
  const grid = h('div', {class: 'units', role: 'img'}, ...pictures)
  const choices = {weights: 'the weights', change: 'what training has changed'}
  const buttons = Object.entries(choices).map(([name, text]) => button(text, () => { what = name; showUnits() }))
  const showUnits = () => {
    const [below, above, w, size] = [color('inputs'), color('weights'), shades[what][shown], sizes[what]]
    pictures.forEach((canvas, j) => paint(canvas, i => w[i * units + j] / size, below, above))
    ends.forEach((end, i) => { end.textContent = fmt(i ? size : -size) })
    Object.keys(choices).forEach((name, i) => set(buttons[i], {'aria-pressed': String(name === what)}))
    const largest = fmt(w.reduce((a, v) => Math.max(a, Math.abs(v)), 0), 3)
    set(grid, {'aria-label': `Of the first layer at step ${steps[shown]}, ${choices[what]}: an image for each of ${units} units. ` +
      `The largest number is ${largest}.`})
  }

  // digits, each a button that puts it on the pad
  const tiles = digits.map(({label}, k) => {
    const canvas = picture(SIDE, {role: 'img', 'aria-label': a(label)}), words = h('span', {class: 'num'})
    return {canvas, words, el: h('button', {type: 'button', class: 'tile', onclick: () => putDigit(k)}, canvas, words)}
  })
  const stages = steps.map((step, i) => {
    const guess = h('b', {class: 'num'}), sure = h('span', {})
    return {guess, sure, el: button('', () => goTo(i))}
  })
  stages.forEach(({guess, sure, el}, i) => el.append(h('small', {}, fmt(steps[i], 0)), ' ', guess, ' ', sure))

  const show = now => {
    shown = now
    charts.forEach(c => c.show(now))
    showUnits()
    tiles.forEach(({words}, k) => {
      const p = digits[k].beliefs[now], guess = argmax(p), right = guess === digits[k].label
      words.replaceChildren(`${right ? '✓' : '✗'} ${guess} `, h('span', {}, percent(p[guess], 0)))
      set(words, {class: right ? 'num' : 'num bad'})
    })
  }
  const showBeliefs = (beliefs, now) => stages.forEach(({guess, sure, el}, i) => {
    guess.textContent = beliefs ? argmax(beliefs[i]) : '–'
    sure.textContent = beliefs ? percent(Math.max(...beliefs[i]), 0) : '–'
    set(el, {'aria-pressed': String(i === now)})
  })
  const pick = k => tiles.forEach((t, i) => set(t.el, {'aria-pressed': String(i === k)}))
  const recolor = () => {
    showUnits()
    tiles.forEach(({canvas}, k) => paintInk(canvas, digits[k].image))
  }
  const parts = {
    stages: h('div', {class: 'stages'}, ...stages.map(t => t.el)),
    layer: h('div', {class: 'layer'}, how('The first layer, an image for each unit: ink on orange raises its sum, on blue lowers it.'), grid,
             h('div', {class: 'row'}, ...buttons, h('span', {class: 'legend'}, ends[0], h('span', {class: 'ramp'}), ends[1]))),
    tiles: h('div', {}, how('Images that it was not trained on, the guess, and how sure it is. Choose one to put it on the pad.'),
             h('div', {class: 'tiles'}, ...tiles.map(t => t.el))),
    charts: h('div', {class: 'charts'}, ...charts)}
  return {show, showBeliefs, pick, recolor, parts}
}

const render = ({model, el}) => {
  const {steps, nets: stored, curve, valid, digits: kept, ask = 'Draw a digit. What does the network read?', drawn = {}} = model.get('data')
  const last = steps.length - 1
  const nets = stored.map(unpack)
  const digits = kept.map(([text, label]) => {
    const image = bytes(text)
    return {image, label, beliefs: curve && nets.map(net => read(net, image))}
  })
  const pad = drawn.pad ?? new Uint8ClampedArray(PAD * PAD), says = status()
  let now = last, timer = null, own = true, chosen = 2, pen = [PAD / 2, PAD / 2], down = false, image = null, beliefs = null

  // the pad, and what each network reads there
  const keys = unique(), board = picture(PAD, {class: 'pad', tabindex: 0, role: 'application', 'aria-describedby': keys,
    'aria-label': 'Drawing pad: arrow keys move the pen, space puts it down and lifts it'})
  const cursor = h('span', {class: 'cursor', 'aria-hidden': 'true'}), seen = picture(SIDE, {class: 'seen', role: 'img'})
  const bars = Array.from({length: 10}, (_, d) => {
    const bar = h('span', {}), num = h('td', {class: 'num'})
    return {bar, num, el: h('tr', {}, h('th', {scope: 'row'}, d), h('td', {class: 'amount activations'}, bar), num)}
  })
  const verdict = h('p', {class: 'verdict'})

  // colours as red, green and blue; black until the lab is in the page
  const probe = Object.fromEntries(['inputs', 'weights', 'ink'].map(name => [name, h('span', {class: name, hidden: true})]))
  const color = name => (getComputedStyle(probe[name]).color.match(/[\d.]+/g) ?? [0, 0, 0]).slice(0, 3).map(Number)
  const colors = () => ['inputs', 'weights', 'ink'].map(color).join()
  const paintInk = (canvas, values) => { const c = color('ink'); paint(canvas, i => values ? values[i] / 255 : 0, c, c) }

  const when = () => !last ? 'It' : now ? `After ${fmt(steps[now], 0)} steps it` : 'Untrained, it'
  const showBeliefs = () => {
    const p = beliefs?.[now]
    bars.forEach(({bar, num, el}, d) => {
      bar.style.width = p ? `${100 * p[d]}%` : 0
      num.textContent = p ? percent(p[d]) : '–'
      set(el, {class: p && argmax(p) === d ? 'guess' : null})
    })
    verdict.textContent = p ? `${when()} reads ${a(argmax(p))}.` : '\u00a0'
    more?.showBeliefs(beliefs, now)
  }
  const showPad = () => {
    image = normalize(pad)
    beliefs = image && nets.map(net => read(net, image))
    paintInk(board, pad)
    paintInk(seen, image)
    set(seen, {'aria-label': image ? 'The drawing as the network gets it, 28 by 28 pixels' : 'Nothing is drawn yet'})
    showBeliefs()
  }
  const goTo = i => {
    now = i
    scrub.show(i)
    more?.show(i)
    showBeliefs()
    if (last) says.textContent = `${when()} reads ${percent(valid[i][1])} of images that it never saw.`
  }
  const stop = () => { clearInterval(timer); timer = null; play.textContent = 'Play' }
  const scrub = slider({label: curve ? 'step' : 'steps of training', min: 0, max: last, step: 1, value: last,
                        text: i => fmt(steps[i], 0), oninput: i => { stop(); goTo(i) }})
  const play = button('Play', () => {
    if (timer) return stop()
    if (now === last) goTo(0)
    play.textContent = 'Pause'
    timer = setInterval(() => {
      if (el.isConnected) goTo(now + 1)
      if (now === last || !el.isConnected) stop()
    }, 800)
  })

  // drawing: the first stroke takes a stored digit off the pad
  const tell = () => {
    const p = beliefs?.[now]
    says.textContent = p ? `The drawing reads as ${argmax(p)}, ${percent(p[argmax(p)])}.` : 'Draw in the frame, with a finger or the mouse.'
  }
  const clear = () => { pad.fill(0); own = true; drawn.pad = null; more?.pick(null) }
  const putDigit = k => {
    clear()
    for (let y = 0; y < PAD; y++) for (let x = 0; x < PAD; x++) {
      pad[y * PAD + x] = digits[k].image[Math.floor(y / FINE) * SIDE + Math.floor(x / FINE)]
    }
    own = false
    chosen = k
    more?.pick(k)
    showPad()
    tell()
  }
  const draw = to => { if (!own) clear(); stroke(pad, pen, to, PEN); pen = to; drawn.pad = pad; showPad() }
  const place = () => {
    pen.forEach((v, i) => { cursor.style[['left', 'top'][i]] = `${100 * v / PAD}%` })
    set(cursor, {'data-down': String(down)})
  }
  const at = e => {
    const r = board.getBoundingClientRect()
    return [(e.clientX - r.x) / r.width, (e.clientY - r.y) / r.height].map(v => clamp(v * PAD, 0, PAD))
  }
  let held = false
  board.addEventListener('pointerdown', e => {
    if (!e.isPrimary || e.button) return
    held = true
    board.setPointerCapture(e.pointerId)
    board.focus({preventScroll: true})
    e.preventDefault()
    pen = at(e)
    draw(pen)
  })
  board.addEventListener('pointermove', e => { if (held && e.isPrimary) draw(at(e)) })
  for (const end of ['pointerup', 'pointercancel']) board.addEventListener(end, e => { if (held && e.isPrimary) { tell(); held = false; place() } })
  board.addEventListener('keydown', e => {
    const far = 10 * FINE, by = {ArrowLeft: [-FINE, 0], ArrowRight: [FINE, 0], ArrowUp: [0, -FINE], ArrowDown: [0, FINE],
                                 PageUp: [0, -far], PageDown: [0, far], Home: [-PAD, 0], End: [PAD, 0]}[e.key]
    if (!by && e.key !== ' ' || e.ctrlKey || e.metaKey || e.altKey) return
    e.preventDefault()
    if (!by) down = !down
    const to = by ? pen.map((v, i) => clamp(v + by[i], 0, PAD)) : pen
    if (down) { draw(to); tell() }
    pen = to
    place()
    if (!by) says.textContent = `Pen ${down ? 'down' : 'up'}. ${says.textContent}`
  })
  board.addEventListener('blur', () => { down = false; place() })

  const more = curve && history({steps, nets, curve, valid, digits, color, paintInk, putDigit, goTo: i => { stop(); goTo(i) }})
  const wipe = button('Clear', () => { clear(); showPad(); tell() }, {class: 'wipe'})
  const paper = h('div', {class: 'paper'}, board, cursor)
  const table = h('table', {class: 'bars'}, h('caption', {class: 'how'}, 'probability of each digit'), ...bars.map(b => b.el))
  const hint = how([!more && 'It knows nothing but digits: it reads a scribble as one, too. ', h('span', {class: 'keys', id: keys},
    'By keyboard: arrows, Home, End and the page keys move the pen, space puts it down or lifts it.')])
  el.append(h('div', LAB, h('div', {class: more ? 'descent' : 'descent digit'}, ...more ? [
    h('p', {class: 'ask'}, 'What does training change, step by step?'),
    h('div', {class: 'run'}, play, scrub), more.parts.stages, says,
    h('div', {class: 'desk'},
      h('div', {class: 'draw'}, how('Draw a digit:'), paper, h('div', {class: 'row'}, wipe, h('span', {class: 'how'}, 'it gets'), seen)),
      h('div', {}, table, verdict), more.parts.layer),
    more.parts.tiles, more.parts.charts, hint] : [
    h('p', {class: 'ask'}, ask),
    h('div', {class: 'desk'}, paper, table),
    h('div', {class: 'row'}, wipe, button('Another digit', () => putDigit((chosen + 1) % digits.length)), verdict),
    last > 0 && [scrub, h('div', {class: 'row ends'}, ...steps.map((k, i) => h('span', {}, !i ? 'untrained' : i === last ? 'trained' : fmt(k, 0))))],
    says, hint].flat(), ...Object.values(probe))))

  // the pictures' colours follow the page's switch and the system's, and are known once the lab is in the page
  let painted = ''
  const recolor = () => {
    if (painted === colors()) return
    painted = colors()
    more?.recolor()
    paintInk(board, pad)
    paintInk(seen, image)
  }
  const again = new MutationObserver(recolor), there = new ResizeObserver(recolor)
  const dark = matchMedia('(prefers-color-scheme: dark)')
  for (const e of [document.documentElement, document.body]) again.observe(e, {attributes: true})
  there.observe(board)
  dark.addEventListener('change', recolor)
  if (drawn.pad) showPad()
  else putDigit(chosen)
  place()
  goTo(now)
  says.textContent = more ? 'Press Play, or pull the step to the left.' : last ? 'Pull the slider to the left, and see how it began.' : ''
  if (drawn.pad) tell()
  return () => { stop(); again.disconnect(); there.disconnect(); dark.removeEventListener('change', recolor) }
}
export default {render}
