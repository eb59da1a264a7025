// Broadcast: what shape do two shapes make? The rule from right to left, a column an axis, and the memory that the result takes.
import {LAB, h, s, set, mark, button, status} from './kit.js'

const AXES = 8, FLOAT32 = 4n                                          // axes that fit on a page; bytes of a number
const group = n => String(n).replace(/\B(?=(\d{3})+$)/g, '\u00a0')
// A shape as Python writes it: (), (3,), (3, 4)
export const python = shape => `(${shape.join(', ')}${shape.length === 1 ? ',' : ''})`

// A shape as typed, "10000, 1", "(10000, 1)", "[10000, 1]": {shape}, or {error}: what is wrong with it, in a sentence
export const parse = text => {
  const bad = error => ({error}), say = t => `“${t.length > 20 ? t.slice(0, 20) + '…' : t}”`
  const t = text.trim().replace(/^torch\.Size\((.*)\)$/s, '$1').trim()
  const inside = t.match(/^\(([^()[\]]*)\)$|^\[([^()[\]]*)\]$/)
  if (!t) return bad('Type a shape, such as (10000, 1). A single number has the shape ().')
  if (!inside && /[()[\]]/.test(t)) return bad(`The brackets of ${say(t)} do not fit; write (10000, 1) or 10000, 1.`)
  const body = (inside ? inside[1] ?? inside[2] : t).trim()
  if (!body) return {shape: []}
  const sizes = body.replace(/,$/, '').split(',').map(o => o.trim())
  for (const o of sizes) {
    if (!o) return bad('A comma has no size before it.')
    if (/^\d[\d\s]*\s\d/.test(o))
      return bad(`${say(o)} has a blank in it; write ${o.replace(/\s/g, '')}, or a comma between sizes.`)
    if (/^[-−]\s*\d+$/.test(o)) return bad(`${say(o)} is negative; a size is 0 or more.`)
    if (/^\d*\.\d*$/.test(o)) return bad(`${say(o)} is not whole; a size counts numbers along an axis.`)
    if (!/^\d+(_\d+)*$/.test(o))
      return bad(`${say(o)} is not a size; write whole numbers with commas between them, such as (10000, 1).`)
    if (Number(o.replaceAll('_', '')) > Number.MAX_SAFE_INTEGER) return bad(`${say(o)} is more than this lab can count.`)
  }
  if (sizes.length > AXES) return bad(`${sizes.length} axes are more than are drawn here; ${AXES} fit.`)
  return {shape: sizes.map(o => Number(o.replaceAll('_', '')))}
}

// The rule, axis by axis from the right: {columns, shape, error}. A column holds both sizes (null where an axis is missing),
// whether each is repeated, and the size that comes out; after a clash nothing is read. `error` is the library's own sentence.
export const broadcast = (a, b) => {
  const columns = []
  let error = null
  for (let axis = 1; axis <= Math.max(a.length, b.length); axis++) {
    const [p, q] = [a, b].map(t => t.length < axis ? null : t[t.length - axis]), [m, n] = [p ?? 1, q ?? 1]
    const read = !error, fits = m === n || m === 1 || n === 1
    columns.push({axis, a: p, b: q, read, out: read && fits ? (m === 1 ? n : m) : null,
                  repeated: [m, n].map((o, i) => read && fits && o === 1 && [n, m][i] !== 1)})
    if (read && !fits) error = `broadcast_shape: ${python(a)} and ${python(b)} do not broadcast: ` +
      `axis -${axis} is ${m} and ${n}; make the two equal, or one of them 1 (t[:, None] adds a unit axis at the end of a vector)`
  }
  return {columns, error, shape: error ? null : columns.map(c => c.out).reverse()}
}

// What a shape holds: {numbers, bytes} in float32, exact, as text
export const holds = shape => {
  const numbers = shape.reduce((k, n) => k * BigInt(n), 1n)
  return {numbers: String(numbers), bytes: String(numbers * FLOAT32)}
}

// Bytes to read: three digits and a unit, "400 MB"
export const memory = bytes => {
  const n = Number(bytes), units = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB']
  if (BigInt(bytes) >= 2n ** 63n) return 'more than PyTorch can count'
  let at = 0
  while (at < 6 && Number((n / 1000 ** at).toPrecision(3)) >= 1000) at++
  return `${Number((n / 1000 ** at).toPrecision(3))}\u00a0${units[at]}`
}

// What the rule does at one axis, in words
export const words = ({a, b, out, read, repeated}) => {
  if (!read) return 'never checked'
  const [p, q] = [a ?? 1, b ?? 1].map(group)
  if (out == null) return `${p} and ${q} differ, and neither is 1: the two do not fit`
  const pair = a == null || b == null ? `${group(a ?? b)} against nothing, so a 1 is inserted` : `${p} and ${q}`
  if (!repeated.includes(true)) return `${pair}: equal`
  return `${pair}: the 1 is repeated ${out ? `${group(out)} times` : '0 times, so nothing is left'}`
}

// ---- a picture of the last two axes: what is stored, and what is only repeated ----
const CELL = 15, MOST = 6
const cells = n => Math.min(n, MOST)
const grid = (name, kind) => {
  const box = s('svg', {'aria-hidden': 'true', viewBox: `0 0 ${MOST * CELL} ${MOST * CELL}`})
  const show = ([rows, cols], again) => {
    const many = [rows, cols].map(cells), squares = []
    for (let i = 0; i < many[0]; i++) for (let j = 0; j < many[1]; j++) {
      const mine = (!again[0] || !i) && (!again[1] || !j)
      squares.push(s('rect', {x: j * CELL + 1, y: i * CELL + 1, width: CELL - 2, height: CELL - 2, rx: 2, fill: 'currentColor',
                              'fill-opacity': mine ? .85 : .08, stroke: 'currentColor', 'stroke-opacity': mine ? 1 : .45,
                              'stroke-dasharray': mine ? false : '2 2'}))
    }
    box.replaceChildren(...squares)
  }
  return Object.assign(h('figure', {class: kind}, h('figcaption', {class: 'num'}, name), box), {show})
}

const render = ({model, el}) => {
  const {pairs} = model.get('data'), KINDS = ['activations', 'inputs'], NAMES = ['a', 'b']
  const rule = h('table', {class: 'rule'}), steps = h('ol', {class: 'steps'}), said = status()
  const sums = [...NAMES, 'result'].map((name, i) => {
    const row = [0, 1, 2].map(() => h('td', {class: `num ${[...KINDS, 'loss'][i]}`}))
    return {row, tr: h('tr', {}, h('th', {scope: 'row'}, name), ...row)}
  })
  const grids = [grid('a', 'activations'), grid('b', 'inputs'), grid('result', 'loss')]
  const drawn = h('p', {class: 'how'})
  const fields = NAMES.map((name, i) => {
    const input = h('input', {type: 'text', class: KINDS[i], spellcheck: 'false', autocomplete: 'off', autocapitalize: 'off',
                              'aria-label': `shape of ${name}`, oninput: () => show()})
    const add = button('[..., None]', () => { input.value = python([...parse(input.value).shape, 1]); show() },
                       {'aria-label': `${name}[..., None]: a unit axis at the end`, title: 'a unit axis at the end',
                        class: 'num'})
    const title = h('span', {class: `num ${KINDS[i]}`, 'aria-hidden': 'true'}, name)
    return {input, add, box: h('div', {class: 'field'}, title, input, add)}
  })
  const presets = pairs.map(pair => button(pair.map(python).join(' and '), () => {
    pair.forEach((shape, i) => { fields[i].input.value = python(shape) })
    show()
  }, {class: 'num'}))

  const draw = (columns, shapes) => {
    const looks = (size, c, i) => `num ${KINDS[i]} ${size == null ? 'inserted' : ''} ${c.read ? '' : 'unread'}`
    const cell = (size, c, i) => h('td', {class: looks(size, c, i)},
      size == null ? '[1]' : group(size), c.repeated[i] ? h('small', {}, `× ${group(c.out)}`) : '')
    const row = (name, kind, make) => h('tr', {class: kind}, h('th', {scope: 'row'}, name), ...[...columns].reverse().map(make))
    rule.replaceChildren(
      row('axis', 'how', c => h('th', {scope: 'col'}, -c.axis)),
      row('a', 'activations', c => cell(c.a, c, 0)), row('b', 'inputs', c => cell(c.b, c, 1)),
      row('rule', 'how', c => h('td', {}, !c.read ? '' : c.out == null ? h('b', {class: 'bad'}, '✗ clash') :
        c.repeated.includes(true) ? 'repeat' : 'equal')),
      row('result', 'loss', c => h('td', {class: 'num'}, c.out == null ? '–' : group(c.out))))
    if (!columns.length) rule.append(h('tr', {}, h('td', {class: 'how'}, 'no axes: two single numbers')))
    const clash = c => c.read && c.out == null
    steps.replaceChildren(...columns.map(c => h('li', {class: clash(c) ? 'bad' : ''}, `Axis ${-c.axis}: ${words(c)}.`)))
    const two = [...columns.slice(0, 2).map(c => c.out)].concat([1, 1]).slice(0, 2).reverse()
    const again = i => [1, 0].map(k => columns[k]?.repeated[i] ?? false)
    const pic = shapes.length === 3 && !two.includes(0)
    grids.forEach(g => { g.style.display = pic ? '' : 'none' })
    if (pic) grids.forEach((g, i) => g.show(two, i < 2 ? again(i) : [false, false]))
    const cut = two.some(n => n > MOST), rest = columns.slice(2).map(c => c.out).reverse()
    drawn.textContent = !pic ? '' : 'Full squares are stored, dashed ones the same numbers again.' +
      (cut ? ` At most ${MOST} squares are drawn along an axis.` : '') +
      (rest.length ? ` Only the last two axes are drawn; there are ${group(holds(rest).numbers)} such tables.` : '')
  }
  const show = () => {
    const typed = fields.map(f => parse(f.input.value)), wrong = typed.findIndex(t => t.error)
    fields.forEach(({input, add}, i) => {
      set(input, {'aria-invalid': String(Boolean(typed[i].error))})
      add.disabled = Boolean(typed[i].error) || typed[i].shape.length >= AXES
    })
    mark(live, 'stale', wrong >= 0)
    const now = pair => wrong < 0 && pair.every((shape, k) => python(shape) === python(typed[k].shape))
    presets.forEach((b, i) => set(b, {'aria-pressed': String(now(pairs[i]))}))
    mark(said, 'bad', wrong >= 0)
    if (wrong >= 0) { said.textContent = `${NAMES[wrong]}: ${typed[wrong].error}`; return }
    const [a, b] = typed.map(t => t.shape), {columns, shape, error} = broadcast(a, b), shapes = [a, b, ...shape ? [shape] : []]
    const all = shapes.map(holds)
    draw(columns, shapes)
    sums.forEach(({row}, i) => {
      const texts = all[i] ? [python(shapes[i]), group(all[i].numbers), memory(all[i].bytes)] : ['none', '–', '–']
      row.forEach((td, k) => { td.textContent = texts[k] })
    })
    mark(said, 'bad', error)
    const both = [0, 1].every(i => columns.some(c => c.repeated[i]))
    said.textContent = error ? `ValueError: ${error}` : `${python(a)} and ${python(b)} make ${python(shape)}: ` +
      `${group(all[2].numbers)} number${all[2].numbers === '1' ? '' : 's'}, ${memory(all[2].bytes)} in float32.` +
      (both ? ' Both are repeated.' : '')
  }
  const head = ['shape', 'numbers', 'in float32'].map(t => h('th', {scope: 'col'}, t))
  const live = h('div', {class: 'out'}, said,
    h('p', {class: 'how'}, '← Axes are read, and numbered, from the end. [1] is inserted; × says how often a 1 is repeated.'),
    h('div', {class: 'sides'},
      h('div', {},
        h('div', {class: 'scroll', tabindex: 0, role: 'group', 'aria-label': 'the rule, a column for each axis'}, rule), steps),
      h('div', {}, h('div', {class: 'grids'}, ...grids), drawn,
        h('div', {class: 'scroll', tabindex: 0, role: 'group', 'aria-label': 'what each shape holds'},
          h('table', {class: 'sums'}, h('thead', {}, h('tr', {}, h('td'), ...head)), h('tbody', {}, ...sums.map(o => o.tr)))))))
  const first = pairs.find(pair => broadcast(...pair).shape)
  fields.forEach((f, i) => { f.input.value = python(first[i]) })
  el.append(h('div', LAB, h('div', {class: 'broadcast'},
    h('p', {class: 'ask'}, 'What shape do two shapes make?'),
    h('div', {class: 'columns'}, ...fields.map(f => f.box)),
    h('div', {class: 'row presets', role: 'group', 'aria-label': 'pairs to try'}, ...presets),
    live)))
  show()
}
export default {render}
