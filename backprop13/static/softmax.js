// Softmax and cross-entropy: how do scores become a loss, and which way of computing it survives large ones?
import {LAB, unique, h, s, set, mark, draggable, slider, button, status, clamp, fmt} from './kit.js'

// JavaScript computes in float64. Rounding after every operation gives what float32 gives, overflow included.
const r = Math.fround
const total = x => x.reduce((a, b) => r(a + b), 0)
const columns = (target, exp, softmax, minuslog) => {
  const onehot = exp.map((_, i) => Number(i === target)), product = onehot.map((y, i) => r(y * minuslog[i]))
  return {exp, softmax, onehot, minuslog, product, sum: total(exp), all: total(softmax), loss: total(product)}
}

// The network's outputs: each score times `times`, plus `shift`
export const outputs = (scores, times, shift) => scores.map(v => r(r(r(v) * times) + shift))
// The table as its formulas read: exp, over its sum, log, times the one-hot label
export const asItReads = (x, target) => {
  const exp = x.map(v => r(Math.exp(v))), sum = total(exp), softmax = exp.map(v => r(v / sum))
  return columns(target, exp, softmax, softmax.map(p => r(-Math.log(p))))
}
// The same with the largest output taken out first, and the log of a quotient as a difference
export const byLogSumExp = (x, target) => {
  const a = Math.max(...x), z = x.map(v => r(v - a)), exp = z.map(v => r(Math.exp(v)))
  const log = r(Math.log(total(exp))), logp = z.map(v => r(v - log))
  return columns(target, exp, logp.map(v => r(Math.exp(v))), logp.map(v => 0 - v))
}

// A number to read in little room: four digits behind the point, or a power of ten; inf and nan as PyTorch prints them
export const short = v => {
  if (!Number.isFinite(v)) return Number.isNaN(v) ? 'nan' : v > 0 ? 'inf' : '−inf'
  const size = Math.abs(v)
  if (size >= 1e4 || size && size < 5e-5) return v.toExponential(1).replace('e+', 'e').replaceAll('-', '−')
  return fmt(v, size >= 100 ? 2 : size ? 4 : 0)
}

// What went wrong as the formulas read, in a sentence; '' if nothing did
export const trouble = (x, names, target) => {
  const {exp, sum, softmax, loss} = asItReads(x, target), at = exp.findIndex(v => !Number.isFinite(v))
  const lost = softmax.findIndex(p => p === 0)
  if (at >= 0) return `exp(${fmt(x[at])}), of ${names[at]}, is more than the largest float32: inf. inf / inf is nan.`
  if (!Number.isFinite(sum)) return 'Each exp is finite, but their sum is more than the largest float32: inf.'
  if (!sum) return 'Every exp is too small for float32 and becomes 0. 0 / 0 is nan.'
  if (lost < 0) return ''
  return `The softmax of ${names[lost]} is rounded to 0; −log(0) is inf${Number.isNaN(loss) ? ', and 0 × inf is nan' : ''}.`
}

const END = 8, HEADS = ['logit', 'exp', 'softmax', 'one-hot', '−log', 'product']
const KINDS = ['activations', 'activations', 'activations', 'inputs', 'loss', 'loss']
const across = v => 50 + 46 * v / END                                   // a score's place, in percent of its row

const render = ({model, el}) => {
  const data = model.get('data'), {names} = data
  const name = unique()        // radios belong together by name
  let scores = [...data.scores], target = data.target, times = 1, shift = 0, stable = false

  // A row: the class, its score to drag, and the numbers that it becomes
  const rows = names.map((who, i) => {
    const radio = h('input', {type: 'radio', name, checked: i === target, onchange: () => { target = i; show() }})
    const bar = s('rect', {y: 13, height: 18, fill: 'currentColor', 'fill-opacity': .3})
    const handle = s('g', {}, s('rect', {x: -22, width: 44, height: 44, fill: 'transparent', stroke: 'none'}),
                     s('rect', {x: -7, y: 7, width: 14, height: 30, fill: 'currentColor'}))
    const axis = s('line', {class: 'axis', x1: '50%', x2: '50%', y1: 0, y2: '100%'})
    const svg = s('svg', {role: 'group', 'aria-label': who}, axis, bar, handle), cells = KINDS.map(kind => h('td', {class: `num ${kind}`}))
    const tr = h('tr', {}, h('th', {scope: 'row'}, h('label', {}, radio, who)), h('td', {class: 'drag activations'}, svg), cells)
    return {radio, bar, handle, svg, cells, tr}
  })
  const sums = KINDS.map(kind => h('td', {class: `num ${kind}`})), said = status()
  const heads = HEADS.map(t => h('th', {scope: 'col'}, t))
  const write = (cell, v) => {
    cell.textContent = short(v)
    mark(cell, 'bad', !Number.isFinite(v))
  }

  const show = () => {
    const x = outputs(scores, times, shift), t = (stable ? byLogSumExp : asItReads)(x, target), why = trouble(x, names, target)
    rows.forEach(({bar, handle, cells, tr}, i) => {
      const at = across(scores[i])
      set(bar, {x: `${Math.min(at, 50)}%`, width: `${Math.abs(at - 50)}%`})
      handle.style.transform = `translateX(${at}%)`
      mark(tr, 'target', i === target);
      [null, t.exp[i], t.softmax[i], null, t.minuslog[i], t.product[i]].forEach((v, k) => { if (v != null) write(cells[k], v) })
      cells[0].textContent = fmt(x[i])
      cells[2].style.setProperty('--part', `${100 * (t.softmax[i] || 0)}%`)
      cells[3].textContent = t.onehot[i]
    });
    [null, t.sum, t.all, null, null, t.loss].forEach((v, k) => { if (v != null) write(sums[k], v) })
    sums[3].textContent = 1
    heads[1].textContent = stable ? 'exp(x − a)' : 'exp'
    const so = why && stable ? `Without LogSumExp: ${why}` : why || `${names[target]}: softmax ${short(t.softmax[target])}, loss ${short(t.loss)}.`
    said.textContent = stable ? `a = ${fmt(Math.max(...x))}, the largest logit, is taken from each before exp. ${so}` : so
    mark(said, 'bad', why && !stable)
    set(way, {'aria-pressed': String(stable)})
  }
  const byTimes = slider({label: 'times', min: 1, max: 100, step: 1, value: 1, text: v => `× ${v}`,
                          oninput: v => { times = v; show() }})
  const byShift = slider({label: 'plus', min: -120, max: 120, step: 1, value: 0, text: v => `${v < 0 ? '−' : '+'} ${Math.abs(v)}`,
                          oninput: v => { shift = v; show() }})
  const way = button('LogSumExp', () => { stable = !stable; show() })
  const again = button('Start again', () => {
    [scores, target, times, shift] = [[...data.scores], data.target, 1, 0]
    byTimes.show(1)
    byShift.show(0)
    rows[target].radio.checked = true
    rows.forEach(o => o.handle.tell())
    show()
  })
  show()
  rows.forEach(({handle, bar, svg}, i) => {
    let free = 0                                                        // where the pointer would have it, beyond the ends too
    const to = v => {
      scores[i] = Math.round(100 * clamp(v, -END, END)) / 100
      show()
    }
    draggable(handle, {label: `score of ${names[i]}`, ends: () => [-END, END], value: () => scores[i], by: .1, to, grips: [bar],
      hold: () => { free = scores[i] }, drag: dx => to(free += dx / svg.getBoundingClientRect().width * 100 * END / 46)})
  })
  el.append(h('div', LAB, h('div', {class: 'softmax'},
    h('p', {class: 'ask'}, 'How do logits become a loss?'),
    h('table', {},
      h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, 'it is a'), h('th', {scope: 'col', class: 'drag'}, 'drag'), heads)),
      h('tbody', {}, rows.map(o => o.tr), h('tr', {class: 'sum'}, h('th', {scope: 'row'}, 'sum'), h('td', {class: 'drag'}), sums))),
    said,
    h('div', {class: 'columns'}, byTimes, byShift),
    h('div', {class: 'row'}, way, again),
    h('p', {class: 'how'}, 'Drag a bar, or focus it and press arrow keys. Every step is rounded to float32.'))))
}
export default {render}
