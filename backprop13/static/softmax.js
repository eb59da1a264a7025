// Softmax and cross-entropy: how do scores become a loss, and which way of computing it survives large ones?
import {LAB, unique, h, s, set, mark, draggable, slider, button, status, scale, clamp, fmt} from './kit.js'

// JavaScript computes in float64. Rounding after every operation gives what float32 gives, overflow included.
const rounding = bits => bits === 32 ? Math.fround : v => v
const total = (r, x) => x.reduce((a, b) => r(a + b), 0)
const columns = (r, target, exp, softmax, minuslog) => {
  const onehot = exp.map((_, i) => Number(i === target)), product = onehot.map((y, i) => r(y * minuslog[i]))
  return {exp, softmax, onehot, minuslog, product, sum: total(r, exp), all: total(r, softmax), loss: total(r, product)}
}

// The network's outputs: each score times `times`, plus `shift`
export const outputs = (scores, times, shift, bits) => {
  const r = rounding(bits)
  return scores.map(v => r(r(r(v) * times) + shift))
}
// The table as its formulas read: exp, over its sum, log, times the one-hot label
export const asItReads = (x, target, bits) => {
  const r = rounding(bits), exp = x.map(v => r(Math.exp(v))), sum = total(r, exp), softmax = exp.map(v => r(v / sum))
  return columns(r, target, exp, softmax, softmax.map(p => r(-Math.log(p))))
}
// The same with the largest output taken out first, and the log of a quotient as a difference
export const byLogSumExp = (x, target, bits) => {
  const r = rounding(bits), a = Math.max(...x), z = x.map(v => r(v - a)), exp = z.map(v => r(Math.exp(v)))
  const log = r(Math.log(total(r, exp))), logp = z.map(v => r(v - log))
  return columns(r, target, exp, logp.map(v => r(Math.exp(v))), logp.map(v => 0 - v))
}
// The loss by four ways: the sum of the products, and the three versions of log softmax, looked up at the target
export const ways = (x, target, bits) => {
  const r = rounding(bits), naive = asItReads(x, target, bits)
  const version2 = 0 - r(x[target] - r(Math.log(naive.sum)))
  return [naive.loss, naive.minuslog[target], version2, byLogSumExp(x, target, bits).minuslog[target]]
}

// A number to read in little room: four digits behind the point, or a power of ten; inf and nan as PyTorch prints them
export const short = v => {
  if (!Number.isFinite(v)) return Number.isNaN(v) ? 'nan' : v > 0 ? 'inf' : '−inf'
  const size = Math.abs(v)
  if (size >= 1e4 || size && size < 5e-5) return v.toExponential(1).replace('e+', 'e').replaceAll('-', '−')
  return fmt(v, size >= 100 ? 2 : size ? 4 : 0)
}

// What went wrong the first way, in a sentence; '' if nothing did
export const trouble = (x, names, target, bits) => {
  const {exp, sum, softmax, loss} = asItReads(x, target, bits), at = exp.findIndex(v => !Number.isFinite(v))
  const lost = softmax.findIndex(p => p === 0)
  if (at >= 0) return `exp(${fmt(x[at])}), of ${names[at]}, is more than the largest float${bits}: inf. inf / inf is nan.`
  if (!Number.isFinite(sum)) return `Each exp is finite, but their sum is more than the largest float${bits}: inf.`
  if (!sum) return `Every exp is too small for float${bits} and becomes 0. 0 / 0 is nan.`
  if (lost < 0) return ''
  return `The softmax of ${names[lost]} is rounded to 0; −log(0) is inf${Number.isNaN(loss) ? ', and 0 × inf is nan' : ''}.`
}

const END = 8, WIDTH = 200, HEIGHT = 34                                // scores that can be dragged to; a row's drawing

const render = ({model, el}) => {
  const data = model.get('data'), {names} = data
  const name = unique()        // radios belong together by name
  let scores = [...data.scores], target = data.target, times = 1, shift = 0, bits = 32, stable = false
  const across = scale([-END, END], [12, WIDTH - 12]), said = status()

  const bars = names.map((who, i) => {
    const bar = s('rect', {y: 9, height: HEIGHT - 18, fill: 'currentColor', 'fill-opacity': .3})
    const upright = (from, attrs) => s('line', {y1: from, y2: HEIGHT - from, 'vector-effect': 'non-scaling-stroke', ...attrs})
    const room = upright(0, {stroke: 'transparent', 'stroke-width': 44})                                // for fingers
    const grip = upright(3, {stroke: 'currentColor', 'stroke-width': 14}), handle = s('g', {}, room, grip)
    const number = h('span', {class: 'num out'}), part = h('span'), fill = h('i')
    const svg = s('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'group', 'aria-label': who},
      upright(0, {class: 'axis', x1: across(0), x2: across(0)}), bar, handle)
    const radio = h('input', {type: 'radio', name, checked: i === target, onchange: () => { target = i; show() }})
    const place = () => {
      const at = across(scores[i]), zero = across(0)
      set(bar, {x: Math.min(at, zero), width: Math.abs(at - zero)})
      for (const o of [grip, room]) set(o, {x1: at, x2: at})
    }
    const meter = h('span', {class: 'meter', 'aria-hidden': 'true'}, fill)
    const box = h('div', {class: 'bar activations'}, h('label', {}, radio, ` ${who}`), svg, number, meter, part)
    return {handle, place, number, part, fill, radio, box, svg}
  })
  const HEADS = ['logit', 'exp', 'softmax', 'one-hot', '−log', 'product']
  const heads = HEADS.map(t => h('th', {scope: 'col'}, t)), caption = h('p', {class: 'how'})
  const kinds = ['activations', 'activations', 'activations', 'inputs', 'loss', 'loss']
  const rows = [...names, 'sum'].map((who, i) => {
    const cells = kinds.map(kind => h('td', {class: `num ${kind}`})), title = h('th', {scope: 'row'}, who)
    return {cells, tr: h('tr', {class: i === names.length ? 'sum' : ''}, title, ...cells)}
  })
  const WAYS = [['products, added up', '−Σ y log(exp(x) / Σ exp(x))'], ['version 1, looked up', '−log(exp(x) / Σ exp(x))'],
                ['version 2, looked up', 'log Σ exp(x) − x'], ['LogSumExp, looked up', 'log Σ exp(x − a) − (x − a)']]
  const losses = WAYS.map(([who, formula]) => {
    const cell = h('td', {class: 'num loss'})
    return {cell, tr: h('tr', {}, h('th', {scope: 'row'}, who), h('td', {class: 'how formula'}, formula), cell)}
  })
  const write = (cell, kind, v) => {
    const bad = !Number.isFinite(v)
    cell.textContent = short(v)
    set(cell, {class: `num ${kind} ${bad ? 'bad' : ''}`})
  }

  const show = () => {
    const x = outputs(scores, times, shift, bits), t = (stable ? byLogSumExp : asItReads)(x, target, bits)
    const why = trouble(x, names, target, bits)
    bars.forEach(({place, number, part, fill}, i) => {
      place()
      number.textContent = fmt(x[i])
      write(part, 'part', t.softmax[i])
      fill.style.width = `${100 * (t.softmax[i] || 0)}%`
    })
    const shown = [x, t.exp, t.softmax, t.onehot, t.minuslog, t.product]
    rows.forEach(({cells, tr}, i) => {
      const sum = i === names.length
      mark(tr, 'target', i === target)
      const values = sum ? [null, t.sum, t.all, 1, null, t.loss] : shown.map(o => o[i])
      values.forEach((v, k) => {
        if (k === 0 || k === 3) cells[k].textContent = v == null ? '' : fmt(v, k ? 0 : 2)
        else if (v != null) write(cells[k], kinds[k], v)
      })
    })
    heads[1].textContent = stable ? 'exp(x − a)' : 'exp'
    caption.textContent = `Every step is rounded to float${bits}. ` +
      (stable ? `a = ${fmt(Math.max(...x))}, the largest output, is taken from each before exp.` : 'The formulas as they read.')
    ways(x, target, bits).forEach((v, i) => write(losses[i].cell, 'loss', v))
    const words = why || `${names[target]}: softmax ${short(t.softmax[target])}, loss ${short(t.loss)}.`
    said.textContent = why && stable ? `Without LogSumExp: ${why}` : words
    mark(said, 'bad', why)
    by100.setAttribute('aria-pressed', String(times === 100))
    looks.forEach((b, i) => b.setAttribute('aria-pressed', String(stable === Boolean(i))))
    formats.forEach((b, i) => b.setAttribute('aria-pressed', String(bits === [32, 64][i])))
  }
  const byTimes = slider({label: 'times', min: 1, max: 100, step: 1, value: 1, text: v => `× ${v}`,
                          oninput: v => { times = v; show() }})
  const byShift = slider({label: 'plus', min: -120, max: 120, step: 1, value: 0, text: v => `${v < 0 ? '−' : '+'} ${Math.abs(v)}`,
                          oninput: v => { shift = v; show() }})
  const by100 = button('scale by 100', () => { times = times === 100 ? 1 : 100; byTimes.show(times); show() })
  const looks = ['as it reads', 'LogSumExp'].map((t, i) => button(t, () => { stable = Boolean(i); show() }))
  const formats = [32, 64].map(n => button(`float${n}`, () => { bits = n; show() }))
  const again = button('start again', () => {
    scores = [...data.scores]; target = data.target; times = 1; shift = 0
    byTimes.show(1); byShift.show(0); bars[target].radio.checked = true
    bars.forEach(b => b.handle.tell())
    show()
  })
  show()
  bars.forEach(({handle}, i) => {
    const to = v => {
      scores[i] = Math.round(100 * clamp(v, -END, END)) / 100
      show()
    }
    draggable(handle, {label: `score of ${names[i]}`, ends: () => [-END, END], value: () => scores[i], by: .1, to,
                       drag: (dx, dy, at) => to(across.back(at.x))})
  })
  const group = (label, ...items) => h('div', {class: 'row pair', role: 'group', 'aria-label': label}, ...items)
  el.append(h('div', LAB, h('div', {class: 'softmax'},
    h('p', {class: 'ask'}, 'How do logits become a loss?'),
    h('div', {class: 'bar heads how'},
      h('span', {}, 'it is a'), h('span', {}, 'drag'), h('span', {class: 'out'}, 'logit'), h('span', {}, 'softmax')),
    h('div', {role: 'radiogroup', 'aria-label': 'what the picture shows'}, ...bars.map(b => b.box)),
    h('div', {class: 'columns'}, h('div', {}, byTimes, byShift),
      h('div', {class: 'row'}, by100, again, group('number format', ...formats))),
    said,
    group('how the table is computed', ...looks), caption,
    h('div', {class: 'scroll', tabindex: 0, role: 'group', 'aria-label': 'from outputs to the loss'},
      h('table', {class: 'steps'}, h('thead', {}, h('tr', {}, h('td'), ...heads)), h('tbody', {}, ...rows.map(o => o.tr)))),
    h('table', {class: 'ways'}, h('caption', {class: 'how'}, 'the loss, four ways'), ...losses.map(o => o.tr)))))
}
export default {render}
