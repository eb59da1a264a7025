// What the labs share: elements, number formats, sliders, handles to drag, scales. backprop13/labs.py puts it in front of each lab's
// own file, since a widget is one module.
const SVG = 'http://www.w3.org/2000/svg'

// Every class of a lab begins with lab-, so that none meets a class of the page around it
const prefixed = names => String(names).split(' ').filter(Boolean).map(name => `lab-${name}`).join(' ')
const put = (el, attrs, children) => {
  for (const [k, v] of Object.entries(attrs)) {
    if (k.startsWith('on')) el.addEventListener(k.slice(2), v)
    else if (v === false || v == null) el.removeAttribute(k)
    else {
      const value = v === true ? '' : k === 'class' ? prefixed(v) : String(v)
      if (el.getAttribute(k) !== value) el.setAttribute(k, value)       // set anew, even the same is laid out and painted again
    }
  }
  el.append(...children.flat().filter(c => c != null && c !== false))
  return el
}
// An HTML element: h('p', {class: 'x', onclick: f}, 'text', child), of the class lab-x; false and null leave an attribute out
export const h = (tag, attrs = {}, ...children) => put(document.createElement(tag), attrs, children)
// The same for SVG
export const s = (tag, attrs = {}, ...children) => put(document.createElementNS(SVG, tag), attrs, children)
// A drawing of its own coordinates, as wide as its room; `label` says what it shows
export const drawing = (width, height, label, ...children) =>
  s('svg', {viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': label}, ...children)
// Set an element's attributes
export const set = (el, attrs) => put(el, attrs, [])
// Give an element a class more, or take it away
export const mark = (el, name, on) => el.classList.toggle(prefixed(name), Boolean(on))

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

// Let an SVG element be dragged, and moved by keys: arrows by `by`, with shift and by the page keys ten times as far, Home and End to the
// ends(). `value()` is the number that it stands for, `text(value)` what a screen reader says; `to(v)` sets it, within bounds. hold() is
// called when a pointer takes it; while it's dragged, drag(dx, dy, at) gets distances and the pointer's place in the drawing's coordinates,
// y downwards. `grips` are other elements by which the hand may take it. `sideways` leaves a finger's way up and down to the page, if the
// drawing has touch-action: pan-y. Call .tell() after changing the value from elsewhere.
export const draggable = (el, {label, ends, value, text = v => fmt(v), by, to, hold = () => {}, drag, grips = [], sideways = false}) => {
  set(el, {tabindex: 0, role: 'slider', 'aria-label': label})
  el.tell = () => {
    const [low, high] = ends()
    set(el, {'aria-valuemin': low, 'aria-valuemax': high, 'aria-valuenow': value(), 'aria-valuetext': text(value())})
  }
  const at = e => new DOMPoint(e.clientX, e.clientY).matrixTransform(el.ownerSVGElement.getScreenCTM().inverse())
  let last = null
  for (const part of [el, ...grips]) {
    mark(part, 'handle', true)
    // no scrolling: touch-action says so of no SVG shape
    if (!sideways) part.addEventListener('touchstart', e => e.preventDefault(), {passive: false})
    part.addEventListener('pointerdown', e => {
      if (!e.isPrimary || e.button) return
      last = at(e)
      part.setPointerCapture(e.pointerId)
      el.focus({preventScroll: true})
      e.preventDefault()
      hold()
    })
    part.addEventListener('pointermove', e => {
      if (!last || !e.isPrimary) return
      const now = at(e), [dx, dy] = [now.x - last.x, now.y - last.y]
      last = now
      drag(dx, dy, now)
      el.tell()
    })
    for (const end of ['pointerup', 'pointercancel']) part.addEventListener(end, e => { if (e.isPrimary) last = null })
  }
  el.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return
    const [low, high] = ends(), now = value(), far = e.shiftKey ? 10 * by : by
    const v = {ArrowLeft: now - far, ArrowDown: now - far, ArrowRight: now + far, ArrowUp: now + far,
               PageDown: now - 10 * by, PageUp: now + 10 * by, Home: low, End: high}[e.key]
    if (v == null) return
    e.preventDefault()
    to(v)
    el.tell()
  })
  el.tell()
  return el
}

// Calls place(width) with an element's width in whole pixels, now and whenever it has another, so that a drawing whose unit is a pixel
// keeps its text and its handles on a phone
export const fitted = (el, place) => {
  let room = 0
  const fit = width => { if (width && width !== room) place(room = width) }
  fit(el.clientWidth || 640)
  new ResizeObserver(([entry]) => fit(Math.round(entry.contentRect.width))).observe(el)
}

// What every lab's outermost element has; a key pressed in a lab is not also JupyterLab's command
export const LAB = {class: 'live', onkeydown: e => e.stopPropagation()}
// A name that no other element of the page has
export const unique = () => `lab-${Math.random().toString(36).slice(2)}`
// A line for what just happened, read aloud by screen readers
export const status = () => h('p', {class: 'status', role: 'status'})
// The bytes of a base64 text
export const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0))
