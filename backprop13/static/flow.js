// Flow: what does each weight do to the loss? A small network, forward and backward: values run to the loss, gradients come back.
import {LAB, h, s, set, drawing, draggable, slider, status, button, clamp, scale, line} from './kit.js'
import {EIGHT, UNIT, inFront, num, write, text, diagram} from './diagram.js'

// ---- the passes of lin, relu, lin, mse
export const run = (x, y, w) => {
  const n = x.length, units = [0, 1]
  const l1 = x.map(row => units.map(k => row.reduce((sum, v, j) => sum + v * w[2 * j + k], 0)))
  const l2 = l1.map(row => row.map(v => Math.max(0, v)))
  const out = l2.map(([a, b]) => a * w[6] + b * w[7]), off = out.map((v, i) => v - y[i])
  const outG = off.map(v => 2 * v / n), l2G = outG.map(g => units.map(k => g * w[6 + k]))
  const l1G = l2G.map((row, i) => row.map((g, k) => l1[i][k] > 0 ? g : 0))
  const pass = {x, y, w, l1, l2, out, loss: off.reduce((sum, v) => sum + v * v, 0) / n, outG, l2G, l1G}
  return {...pass, g: w.map((_, e) => terms(pass, e).reduce((sum, [a, b]) => sum + a * b, 0))}
}
// The value where weight `e` starts and the gradient where it ends, image by image
export const terms = (pass, e) => inFront(pass, e).map((v, i) => [v, e < 6 ? pass.l1G[i][e & 1] : pass.outG[i]])
// The same with the gradient taken apart, image by image: the factors from the weight on to the loss, as numbers; the last is out.g
export const chain = (pass, e) => inFront(pass, e).map((v, i) =>
  e < 6 ? [v, pass.l1[i][e & 1] > 0 ? 1 : 0, pass.w[6 + (e & 1)], pass.outG[i]] : [v, pass.outG[i]])
const lossAt = ({x, y, w}, e, by) => run(x, y, w.map((v, i) => i === e ? v + by : v)).loss
// From which nudge to which, within ±1, nudge × gradient is within a tenth of what the loss changes by
export const reach = (pass, e) => [-1, 1].map(sign => {
  const fits = by => {
    const change = lossAt(pass, e, by) - pass.loss
    return Math.abs(change - by * pass.g[e]) <= Math.abs(change) / 10 + 1e-9
  }
  let k = 0
  while (k < 100 && fits(sign * (k + 1) / 100)) k++
  return sign * k / 100 || 0
})

// ---- in words
const LAST = 8, BACK = 5, PACE = 1800          // steps of both passes, the first of the backward pass, and milliseconds for each
const STEPS = ['pixels', ...['l1', 'relu', 'out', 'loss'].map(o => `forward: ${o}`),
               ...['out.g', 'w2.g', 'relu', 'w1.g'].map(o => `backward: ${o}`)]
// At which step each part of the two passes is there
const STAGE = {l1: 1, l2: 2, out: 3, loss: 4, lossG: BACK, outG: BACK, l2G: 6, w2G: 6, l1G: 7, inpG: LAST, w1G: LAST}
const NAMES = EIGHT.map(e => e < 6 ? `from pixel ${(e >> 1) + 1} to the ${UNIT[e & 1]} unit` : `from the ${UNIT[e - 6]} unit to out`)
const sign = x => x < 0 ? `(${num(x)})` : num(x)
const and = list => list.length > 1 ? `${list.slice(0, -1).join(', ')} and ${list.at(-1)}` : list[0]
const sum = pairs => pairs.map(([a, b]) => `${sign(a)} × ${sign(b)}`).join(' + ')
// The factors of `chain` as [text, kind]: their names, and image by image their numbers
export const links = (pass, e) => {
  const kinds = e < 6 ? ['inputs', 'activations', 'weights', 'gradients'] : ['activations', 'gradients'], over = pass.x.length > 1 ? `/${pass.x.length}` : ''
  const names = [...e < 6 ? ['pixel', 'relu (open 1, shut 0)', 'w2'] : ['l2'], `2(out − y)${over}`]
  const numbers = chain(pass, e).map((list, i) =>
    [...list.slice(0, -1).map(v => sign(v)), `2(${num(pass.out[i])} − ${sign(pass.y[i])})${over}`])
  return [names, ...numbers].map(list => list.map((text, k) => [text, kinds[k]]))
}
// Which way the weight `e` is to go
export const way = (pass, e) => Math.abs(pass.g[e]) < .005 ? 'Zero: a small nudge hardly changes the loss.'
  : pass.g[e] > 0 ? 'Positive: lowering this weight lowers the loss.' : 'Negative: raising this weight lowers the loss.'
const product = (pass, e) => `${sum(terms(pass, e))} = ${num(pass.g[e])}`
// What step `k` of the passes has done, and what weight `e` has to do with it
export const say = (pass, k, e) => {
  const {x, y, w, l1, l2, out, loss, outG, l2G, l1G} = pass, n = x.length, each = f => x.map((_, i) => f(i)).join('; ')
  const per = rows => UNIT.map((name, k) => `${and(rows.map(row => num(row[k])))} in the ${name} unit`).join(', ')
  const off = i => `(${num(out[i])} − ${sign(y[i])})`, squares = x.map((_, i) => `${off(i)}²`).join(' + '), over = n > 1 ? ` / ${n}` : ''
  const mean = n > 1 ? ', since the loss is the mean' : ''
  const shut = x.flatMap((_, i) => [0, 1].filter(k => l1[i][k] <= 0).map(k => `the ${UNIT[k]} unit${n > 1 ? ` for image ${i + 1}` : ''}`))
  const u = e < 6 ? e & 1 : e - 6, into = i => sum(x[i].map((v, j) => [v, w[2 * j + u]]))
  return [
    () => `Each pixel has a value, each edge a weight. The answer should be y = ${and(y.map(v => num(v)))}.`,
    () => `Forward: value × weight, added up. l1 of the ${UNIT[u]} unit: ${each(i => `${into(i)} = ${num(l1[i][u])}`)}.`,
    () => `relu lets through what is above zero. ${shut.length ? `It is shut in ${and(shut)}.` : 'Both units are open.'}`,
    () => `out = ${each(i => `${sum(l2[i].map((v, k) => [v, w[6 + k]]))} = ${num(out[i])}`)}.`,
    () => `loss = (out − y)²${n > 1 ? ', the mean over the images' : ''}: ${n > 1 ? `(${squares})` : squares}${over} = ${num(loss)}.`,
    () => `Backward: out.g = 2(out − y)${over}${mean}: ${each(i => `2 × ${off(i)}${over} = ${num(outG[i])}`)}.`,
    () => `w2.g = l2 × out.g: ${product(pass, 6)}; ${product(pass, 7)}. And l2.g = w2 × out.g: ${per(l2G)}.`,
    () => `An open relu lets the gradient through, a shut one stops it. l1.g: ${per(l1G)}.`,
    () => 'Both passes are done. Each weight has its gradient, value where its edge starts × gradient where it ends: ' +
      `${NAMES[e]}, ${e < 6 ? 'pixel × l1.g' : 'l2 × out.g'} = ${product(pass, e)}.`][k]()
}
// How far nudge × gradient can be trusted: `reach`, the weight and the pass where the nudge began, the pass now, the nudge
export const judge = ([low, high], from, was, pass, by) => {
  const open = ({l1}) => l1.flat().filter(v => v > 0).length, more = open(pass) - open(was)
  const beyond = by < low - 1e-9 || by > high + 1e-9 ? '; this nudge is beyond' : ''
  const a = num(from + low), b = num(from + high)
  return (low === -1 && high === 1 ? 'They agree as far as the plot goes'
    : low === high ? 'They differ at once: a loss at its lowest has derivative 0'
    : (low === -1 ? `They agree to within a tenth of the change from the plot’s edge to a weight of ${b}`
      : high === 1 ? `They agree to within a tenth of the change from a weight of ${a} to the plot’s edge`
      : `They agree to within a tenth of the change for weights from ${a} to ${b}`) + beyond) +
    (more ? `. A relu has ${more > 0 ? 'opened' : 'shut'}.` : '.')
}

const render = ({model, el}) => {
  const data = model.get('data'), start = [...data.w1.flat(), ...data.w2], calm = matchMedia('(prefers-reduced-motion: reduce)')
  const touch = matchMedia('(pointer: coarse)').matches
  let w = [...start], images = [0], t = LAST, playing = null, over = null, pass, hold
  const compute = () => { pass = run(images.map(i => data.x[i]), images.map(i => data.y[i]), w) }
  const net = diagram(), {chips, edges, cells} = net

  // ---- what the gradient foretells of a nudge, and what is measured
  const title = h('p', {class: 'how'}), eq = h('p', {class: 'eq'}), toward = h('p'), [edge, then] = [0, 1].map(() => h('div'))
  const fill = (el, ...parts) => { if (el.textContent !== parts.map(o => o.textContent ?? o).join('')) el.replaceChildren(...parts) }
  const factors = list => list.flatMap(([words, kind], k) => [k ? ' × ' : '', h('span', {class: kind}, words)])
  const rows = [['gradients', 'nudge × w.g before'], ['loss', 'loss now − before']].map(([kind, name]) => {
    const how = h('td', {class: 'num'}), v = h('td', {class: 'num'})
    return {how, v, tr: h('tr', {class: kind}, h('th', {scope: 'row'}, name), how, v)}
  })
  const X = scale([-1, 1], [40, 232]), wide = {x1: X(-1), x2: X(1)}, verdict = status()
  const paths = [3, 2].map(o => s('path', {class: 'curve', 'stroke-width': o}))
  const names = ['loss', 'nudge × w.g'].map(o => s('text', {x: 238, 'font-size': 13}, o)), far = s('circle', {r: 4, fill: 'currentColor'})
  const gap = s('line', {class: 'gap'}), near = s('line', {class: 'near', y1: 154, y2: 154})
  const flat = s('line', {class: 'axis', 'stroke-dasharray': '2 4', ...wide}), level = text('tick', {x: 34, 'text-anchor': 'end'})
  const ticks = [-1, 0, 1].map(v => text('tick', {x: X(v), y: 174}))
  const ways = x => s('path', {class: 'ways', d: `M${-x},-5L${-x - 5},0L${-x},5M${x},-5L${x + 5},0L${x},5`})           // sideways
  const now = s('g', {class: 'weights'}, s('circle', {r: 24, fill: 'transparent', stroke: 'none'}),
    s('circle', {r: 7, fill: 'currentColor', stroke: 'var(--paper)'}), ways(12))
  const told = s('g', {class: 'gradients'}, near, s('text', {x: 238, y: 158, 'font-size': 13}, 'agree'), paths[1], names[1], far)
  const plot = drawing(320, 180, 'The loss at other values of this weight, and its tangent', flat,
    s('line', {class: 'axis', ...wide, y1: 154, y2: 154}), ticks, level, s('g', {class: 'loss'}, paths[0], names[0]),
    told, gap, now)
  // Take hold of weight `e`: nudges count from here
  const take = e => {
    const was = pass, g = was.g[e], bys = [...Array(81).keys()].map(i => i / 40 - 1), curve = bys.map(by => lossAt(was, e, by))
    const all = [...curve, was.loss - g, was.loss + g], low = Math.min(...all), high = Math.max(...all)
    const Y = scale(high - low < .01 ? [low - 1, low + 1] : [low, high], [134, 12])
    hold = {e, from: w[e], was, g, Y, reach: reach(was, e)}
    set(paths[0], {d: line(bys.map((by, i) => [X(by), Y(curve[i])]))})
    set(paths[1], {d: line([-1, 1].map(by => [X(by), Y(was.loss + by * g)]))})
    const [a, b] = [Y(curve.at(-1)), Y(was.loss + g)], push = Math.max(0, 15 - Math.abs(a - b)) / (a < b ? -2 : 2);
    [a + push, b - push].forEach((y, i) => set(names[i], {y: y + 4}))
    set(near, {x1: X(hold.reach[0]), x2: X(hold.reach[1])})
    set(flat, {y1: Y(was.loss), y2: Y(was.loss)})
    set(level, {y: Y(was.loss) + 4})
    write(level, num(was.loss))
    ticks.forEach((o, i) => write(o, num(w[e] + i - 1)))
  }
  const due = e => e < 6 ? STAGE.w1G : STAGE.w2G, ready = e => t >= due(e)          // the step of its gradient
  const compare = e => {
    const {from, was, g, Y} = hold, by = w[hold.e] - from, foretold = was.loss + by * g, known = ready(hold.e)
    const [names, ...images] = links(pass, e)
    fill(title, `w.g now, ${NAMES[e]}: `, ...factors(names))
    fill(eq, ...ready(e) ? [...images.flatMap((list, i) => [i ? ' + ' : '', ...factors(list)]), ' = ', h('span', {class: 'gradients'}, num(pass.g[e]))] : ['?'])
    write(toward, ready(e) ? way(pass, e) : `It comes with the step “${STEPS[due(e)]}”.`)
    write(edge, `In hand: ${NAMES[hold.e]}`)
    write(then, known ? `w.g: ${num(g)} before the nudge, ${num(pass.g[hold.e])} now` : 'w.g: ?')
    write(rows[0].how, `${sign(by)} × ${known ? sign(g) : '?'}`)
    write(rows[1].how, `${num(pass.loss, 4)} − ${num(was.loss, 4)}`)
    rows.forEach(({v}, i) => write(v, i ? num(pass.loss - was.loss, 4) : known ? num(by * g, 4) : '?'))
    write(verdict, known ? judge(hold.reach, from, was, pass, by) : '')
    for (const o of [told, gap]) set(o, {visibility: !known && 'hidden'})
    set(gap, {x1: X(by), x2: X(by), y1: Y(foretold), y2: Y(pass.loss)})
    set(far, {cx: X(by), cy: Y(foretold)})
    set(now, {transform: `translate(${X(by)},${Y(pass.loss)})`})
  }

  // ---- the two passes, played or step by step
  const words = status(), goTo = k => { playing = null; t = k; show() }
  const strip = slider({label: 'step', min: 0, max: LAST, step: 1, value: LAST, oninput: k => goTo(k), text: k => STEPS[k]})
  const show = () => {
    const e = over ?? hold.e, k = Math.ceil(t)
    net.show(pass, part => clamp(t - STAGE[part] + 1, 0, 1), {chosen: [e], ...ready(e) && {    // what its gradient is made of
      front: [e < 6 ? cells.inp[e >> 1] : cells.l2[e - 6]], behind: [e < 6 ? cells.l1[e & 1] : cells.out[0]]}})
    compare(e)
    write(words, say(pass, k, hold.e))
    write(going, playing ? 'Pause' : 'Play')
    set(back, {disabled: k === 0})
    set(next, {disabled: k === LAST})
    if (Number(strip.input.value) !== k) strip.show(k)
    for (const o of [...chips.map(c => c.el), now]) o.tell?.()
  }
  const play = () => {
    if (playing) return goTo(Math.ceil(t))
    const mine = playing = {}, from = t < LAST ? t : 0
    let began = null
    const tick = now => {
      if (playing !== mine || !net.pic.isConnected) return
      const gone = from + (now - (began ??= now)) / PACE
      // half of each step is for reading; where motion is unwanted, all of it
      t = Math.min(LAST, Math.floor(gone) + (calm.matches ? 0 : Math.min(1, gone % 1 * 2)))
      if (gone >= LAST) playing = null
      else requestAnimationFrame(tick)
      show()
    }
    requestAnimationFrame(tick)
  }
  const going = button('Play', play, {class: 'play'}), back = button('Back', () => goTo(Math.ceil(t) - 1))
  const next = button('Next', () => goTo(Math.ceil(t) + 1))
  const again = button('Start again', () => { [w, images, t, hold] = [[...start], [0], LAST, null]; anew() })
  const choose = [['image 1', [0]], ['image 2', [1]], ['both', [0, 1]]].map(([name, list]) =>
    ({list, el: button(name, () => { images = list; anew() })}))
  const anew = () => {                                                       // a nudge goes on, and counts from where it did
    const {e, from} = hold ?? {e: 0, from: w[0]}, at = w[e]
    for (const {list, el} of choose) set(el, {'aria-pressed': String(list.join() === images.join())})
    w[e] = from
    compute()
    take(e)
    w[e] = at
    compute()
    goTo(Math.ceil(t))
  }

  // ---- a weight in hand, at its edge or in the plot
  const handle = (el, e, label, rate) => {
    const ends = () => [-1, 1].map(o => Math.round(1e4 * ((e() === hold.e ? hold.from : w[e()]) + o)) / 1e4)
    let free = 0, first = 0                                     // where the pointer would have it, and where it took it
    const begin = () => {
      if (e() !== hold.e) take(e())
      free = first = w[e()]
      show()
    }
    const to = v => {
      if (e() !== hold.e) take(e())
      w[hold.e] = Math.round(100 * clamp(v, ...ends())) / 100
      compute()
      goTo(Math.max(Math.ceil(t), due(hold.e)))
    }
    draggable(el, {label, ends, value: () => w[e()], by: .01, to,
                   text: v => num(v) + (ready(e()) ? `, its derivative ${num(pass.g[e()])}` : ''),
                   drag: dx => to(free = clamp(free + rate * dx, ...ends())), sideways: true})
    el.addEventListener('pointerdown', begin)
    el.addEventListener('pointercancel', () => { if (w[e()] !== first) to(first) })          // the page scrolls
    el.addEventListener('focus', () => { if (e() !== hold.e) begin() })
    el.addEventListener('keydown', o => { if (['Enter', ' '].includes(o.key)) { o.preventDefault(); play() } })
  }
  anew()
  handle(now, () => hold.e, 'the weight in the plot', 1 / (X(1) - X(0)))
  chips.forEach(({el}, e) => {
    el.append(ways(26))
    handle(el, () => e, `weight ${NAMES[e]}`, 1 / 200)
    edges[e].hit.addEventListener('click', () => el.focus({preventScroll: true}))
    for (const o of [el, edges[e].hit]) {
      o.addEventListener('pointerenter', () => { over = e; show() })
      o.addEventListener('pointerleave', () => { over = null; show() })
    }
  })
  const lab = h('div', LAB, h('div', {class: 'flow'},
    h('div', {class: 'row top'}, h('p', {class: 'ask'}, 'What does each weight do to the loss?'),
      h('div', {class: 'row pair', role: 'group', 'aria-label': 'which images'}, choose.map(c => c.el))),
    net.pic, h('div', {class: 'row steps'}, going, back, next, again, strip), words,
    h('div', {class: 'chain'}, title, eq), h('div', {class: 'columns'},
      h('div', {}, toward, h('table', {}, h('caption', {class: 'how'}, edge, then),
        h('tbody', {}, rows.map(o => o.tr))), verdict), plot),
    h('p', {class: 'how'}, (touch ? 'Tap an edge. Drag a weight sideways. '
      : 'Point at an edge. Drag a weight sideways, or focus it and press the arrow keys (page keys: ten times as far), Enter to play. ') +
      'Purple is a gradient, its edge as thick as it is large. Biases are 0 and not drawn. In a pair image 1 comes first.')))
  el.append(lab)
  net.follow(lab.firstChild, show)
}
export default {render}
