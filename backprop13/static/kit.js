// What the labs share: elements, number formats, sliders, handles to drag, scales. backprop13/labs.py puts it in front of each lab's
// own file, since a widget is one module.
const SVG = 'http://www.w3.org/2000/svg'

const put = (el, attrs, children) => {
  for (const [k, v] of Object.entries(attrs)) {
    if (k.startsWith('on')) el.addEventListener(k.slice(2), v)
    else if (v === false || v == null) el.removeAttribute(k)
    else el.setAttribute(k, v === true ? '' : v)
  }
  el.append(...children.flat().filter(c => c != null && c !== false))
  return el
}
// An HTML element: h('p', {class: 'x', onclick: f}, 'text', child); false and null leave an attribute out
export const h = (tag, attrs = {}, ...children) => put(document.createElement(tag), attrs, children)
// The same for SVG
export const s = (tag, attrs = {}, ...children) => put(document.createElementNS(SVG, tag), attrs, children)
// A drawing of its own coordinates, as wide as its room; `label` says what it shows
export const drawing = (width, height, label, ...children) =>
  s('svg', {viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': label}, ...children)
// Set an element's attributes
export const set = (el, attrs) => put(el, attrs, [])

// A number to read: `digits` behind the point, a true minus, blanks between thousands
export const fmt = (x, digits = 2) => {
  if (Number.isNaN(x)) return 'nan'
  if (!Number.isFinite(x)) return x > 0 ? '∞' : '−∞'
  const [whole, rest] = Math.abs(x).toFixed(digits).split('.')
  const sign = x < 0 && Number(Math.abs(x).toFixed(digits)) ? '−' : ''
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, '\u00a0') + (rest ? '.' + rest : '')
}
export const clamp = (x, low, high) => Math.min(high, Math.max(low, x))
// A function from data to drawing coordinates; .back leads the other way
export const scale = ([a, b], [p, q]) =>
  Object.assign(x => p + (x - a) / (b - a) * (q - p), {back: y => a + (y - p) / (q - p) * (b - a)})
// The `d` of an SVG path through points [[x, y], ...]
export const line = points => points.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(2)},${y.toFixed(2)}`).join('')

// A labelled slider; its element, with .show(value) to move it without calling oninput. `kind` colours it: weights, inputs, ...
export const slider = ({label, min, max, step, value, oninput, kind = '', text = v => fmt(v)}) => {
  const out = h('output'), input = h('input', {type: 'range', min, max, step, value})
  const tell = () => { out.textContent = text(Number(input.value)); input.setAttribute('aria-valuetext', out.textContent) }
  input.addEventListener('input', () => { tell(); oninput(Number(input.value)) })
  tell()
  return Object.assign(h('label', {class: `slider ${kind}`}, h('span', {}, label), input, out),
                       {show: v => { input.value = v; tell() }, input})
}
export const button = (label, onclick, attrs = {}) => h('button', {type: 'button', onclick, ...attrs}, label)

// Let an SVG element be dragged, and moved by the arrow keys (shift: ten times as far). `move(dx, dy, point)` gets distances in the
// drawing's coordinates, y downwards, and while dragged the pointer's place; `step` is a key's distance; `value()` is the number that it
// stands for and `text(value)` what a screen reader says. Call .tell() after changing the value from elsewhere.
export const draggable = (el, {label, min, max, value, text = v => fmt(v), move, step = 1}) => {
  set(el, {tabindex: 0, role: 'slider', 'aria-label': label, 'aria-valuemin': min, 'aria-valuemax': max,
           class: `${el.getAttribute('class') ?? ''} handle`})
  el.tell = () => set(el, {'aria-valuenow': value(), 'aria-valuetext': text(value())})
  const at = e => new DOMPoint(e.clientX, e.clientY).matrixTransform(el.ownerSVGElement.getScreenCTM().inverse())
  let last = null
  el.addEventListener('pointerdown', e => { last = at(e); el.setPointerCapture(e.pointerId); el.focus(); e.preventDefault() })
  el.addEventListener('pointermove', e => {
    if (!last) return
    const now = at(e), [dx, dy] = [now.x - last.x, now.y - last.y]
    last = now
    move(dx, dy, now)
    el.tell()
  })
  for (const end of ['pointerup', 'pointercancel']) el.addEventListener(end, () => { last = null })
  el.addEventListener('keydown', e => {
    const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key]
    if (!by) return
    const far = step * (e.shiftKey ? 10 : 1)
    e.preventDefault()
    move(by[0] * far, by[1] * far)
    el.tell()
  })
  el.tell()
  return el
}

// What every lab's outermost element has; a key pressed in a lab is not also JupyterLab's command
export const LAB = {class: 'lab-live', onkeydown: e => e.stopPropagation()}
// A name that no other element of the page has
export const unique = () => `lab-${Math.random().toString(36).slice(2)}`
// A line for what just happened, read aloud by screen readers
export const status = () => h('p', {class: 'status', role: 'status'})
// The bytes of a base64 text
export const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0))
