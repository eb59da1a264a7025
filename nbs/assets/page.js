// What a page does in both renderings, Quarto's and that of tools/site.py: labs come to life when they are scrolled to, answers stay
// folded until asked for or guessed, cells whose checks held are marked. Without scripts a lab shows its picture, and every answer.
import {answers, judge} from './predict.js'

const make = (tag, attrs, ...children) => {
  const el = Object.assign(document.createElement(tag), attrs)
  el.append(...children)
  return el
}

// ---- labs ----
const labs = new URL('labs/', import.meta.url)
const looks = () => looks.loaded ??= new Promise((ok, no) =>
  document.head.append(make('link', {rel: 'stylesheet', href: new URL('lab.css', labs), onload: ok, onerror: no})))
const mount = async el => {
  const inside = el.querySelector('script[type="application/json"]')
  const read = inside.dataset.src ? fetch(inside.dataset.src).then(r => r.ok ? r.json() : Promise.reject(new Error(`${r.url}: ${r.status}`))) : JSON.parse(inside.textContent)
  const [{default: lab}, data] = await Promise.all([import(new URL(`${el.dataset.lab}.js`, labs)), read, looks()])
  const room = make('div')
  // as much of anywidget's model as a lab without a kernel needs
  const model = {get: k => ({data})[k], set() {}, on() {}, off() {}, save_changes() {}}
  await lab.render({model, el: room})
  el.replaceChildren(room)
  el.dataset.live = true
}
const near = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting) continue
    near.unobserve(target)
    mount(target).catch(e => console.error(`The lab ${target.dataset.lab} could not start; its picture stays.`, e))
  }
}, {rootMargin: '600px'})
document.querySelectorAll('.lab').forEach(el => near.observe(el))
// a link to the pad takes the hand there
addEventListener('click', e => {
  if (!e.target.closest?.('a[href="#draw-a-digit"]')) return
  const pad = document.querySelector('.lab-pad')
  if (!pad) return
  e.preventDefault()
  pad.scrollIntoView({block: 'center'})
  pad.focus({preventScroll: true})
})

// ---- guesses: a form with a field for each answer of a cell; `solved` is called when all of them are right ----
const mayGuess = cell => {
  const output = cell.querySelector('.cell-output')
  return output && answers(output.textContent, cell.querySelector('code.sourceCode')?.textContent)
}
let asked = 0
const guessForm = (parts, solved) => {
  const status = make('p', {className: 'verdict', id: `verdict-${++asked}`, ariaLive: 'polite'})
  const fields = parts.map(({label, answer}, i) => {
    const input = make('input', {id: `guess-${asked}-${i}`, type: 'text', autocomplete: 'off', autocapitalize: 'off', spellcheck: false})
    const said = parts.length > 1 ? make('span', {className: 'said', id: `said-${asked}-${i}`}) : status
    input.setAttribute('aria-describedby', said.id)
    const name = parts.length > 1 ? make('code', {textContent: label}) : `Your guess (${answer.kind})`
    return {answer, input, said, label: make('label', {htmlFor: input.id}, name)}
  })
  const buttons = make('span', {className: 'buttons'}, make('button', {type: 'submit', textContent: 'Check'}))
  const form = make('form', {className: `guess ${parts.length > 1 ? 'several' : 'single'}`},
    ...fields.flatMap(f => f.said === status ? [f.label, f.input] : [f.label, f.input, f.said]), buttons, status)
  form.onsubmit = e => {
    e.preventDefault()
    const wrong = fields.filter(({input, answer, said}) => {
      const {right, say} = judge(input.value, answer)
      said.textContent = `${right ? '✓' : '✗'} ${say}`
      input.ariaInvalid = !right
      return !right
    })
    if (parts.length > 1) status.textContent = `${wrong.length ? '' : '✓ '}${parts.length - wrong.length} of ${parts.length} right.`
    if (wrong.length) wrong[0].input.focus()
    else status.textContent += solved() ?? ''
  }
  return form
}

// ---- predict, then reveal: after "**Predict:** ..." the next cell is folded, with the text and silent cells that follow it ----
const predicts = [...document.querySelectorAll('main p:has(> strong:first-child)')]
  .filter(p => /^Predict:/.test(p.textContent) && p.nextElementSibling?.matches('.cell'))
predicts.forEach(p => p.classList.add('predict'))
for (const ask of predicts) {
  const cell = ask.nextElementSibling
  const answer = make('details', {className: 'reveal'}, make('summary', {textContent: 'Show the answer'})), parts = mayGuess(cell)
  cell.before(...parts ? [guessForm(parts, () => { answer.open = true })] : [], answer)
  answer.append(cell)
  for (let next; (next = answer.nextElementSibling) && !next.matches('h1, h2, h3, h4, section, blockquote, p.predict, .cell:has(.cell-output)');)
    answer.append(next)
}
const opened = () => document.querySelector(':target')?.closest('details.reveal')?.setAttribute('open', '')
addEventListener('hashchange', opened)
opened()
// who prints reads the answers, then the page is as it was
const folded = []
addEventListener('beforeprint', () => document.querySelectorAll('main details:is(.reveal, :not([class])):not([open])').forEach(d => {
  d.open = true
  folded.push(d)
}))
addEventListener('afterprint', () => folded.splice(0).forEach(d => { d.open = false }))

// ---- guess the shapes: on a chapter's page all other cells that print nothing but shapes ask for them, at the reader's wish ----
const chapter = /^\s*\d/.test(document.querySelector('.menu a[aria-current], a.sidebar-link.active')?.textContent)
const shapes = !chapter ? [] : [...document.querySelectorAll('main .cell:not(.reveal *)')].flatMap(cell => {
  const [output, more] = cell.querySelectorAll('.cell-output'), parts = more ? null : mayGuess(cell)
  return parts?.some(p => /shape|dtype/.test(p.answer.kind)) ? [{output, parts}] : []
})
if (shapes.length) {
  const button = make('button', {type: 'button', textContent: `Guess the shapes (${shapes.length})`}), count = make('span')
  const right = () => `${shapes.filter(s => s.right).length} of ${shapes.length}`
  let on = false
  const draw = () => {
    button.ariaPressed = on
    count.textContent = on ? `${right()} right` : 'hides what the cells print behind a field for your guess'
    for (const {form, output, show, open} of shapes) {
      form.hidden = !on
      output.hidden = on && !open
      show.textContent = open ? 'Hide' : 'Show'
    }
    document.dispatchEvent(new Event('toggle'))                  // site.js looks again at what scrolls sideways
  }
  for (const shape of shapes) {
    shape.show = make('button', {type: 'button', onclick() {
      shape.open = !shape.open
      shape.seen = true
      draw()
    }})
    shape.form = guessForm(shape.parts, () => {
      shape.right ||= !shape.seen                                // what was looked up doesn't count
      shape.open = true
      draw()
      return shape.right ? ` ${right()} on this page.` : ''
    })
    shape.form.querySelector('.buttons').append(shape.show)
    shape.output.before(shape.form)
  }
  const keep = () => { try { localStorage.setItem('backprop13-guess', on ? 'on' : 'off') } catch {} }
  button.onclick = () => {
    on = !on
    keep()
    draw()
  }
  try { on = localStorage.getItem('backprop13-guess') === 'on' } catch {}
  const here = new URL(location)
  if (here.searchParams.has('guess')) {                          // as if pressed, once
    on = true
    keep()
    here.searchParams.delete('guess')
    history.replaceState(history.state, '', here)
  }
  draw()
  // where it is first of use: nothing above moves
  const first = shapes.map(s => s.output.closest('.cell')).find(cell => cell.checkVisibility())
  first?.before(make('p', {className: 'guesses'}, button, count))
}

// ---- checks: the tests run every cell, and one that fails stops them; inside a def none has run ----
for (const cell of document.querySelectorAll('.cell')) {
  const code = [...cell.querySelectorAll('code:not(.proof *)')].map(c => c.textContent).join('\n')
  const inside = /^\s*(def|class) /m.test(code) ? '' : '\\s*'
  if (!new RegExp(`^(${inside}|for .*: )(assert |(test|check)_\\w+\\(|check\\(\\w+, )`, 'm').test(code)) continue
  cell.classList.add('checked')
  cell.append(make('span', {className: 'held', textContent: '✓ holds', title: 'The tests run this cell, and stop if a check in it fails.'}))
}
