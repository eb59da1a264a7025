// What a page does in both renderings, Quarto's and that of tools/site.py: labs come to life when they are scrolled to, answers stay
// folded until asked for or guessed (reveal.js, shapes.js), cells whose checks held are marked. What a reader did is kept (kept.js) and
// marked in the menu, and the place found again. Without scripts a lab shows its picture, and every answer.
import {kept, page} from './kept.js'
import {make} from './make.js'
import './reveal.js'
import './shapes.js'
import './marks.js'
import './place.js'
if (document.querySelector('.told')) import('./practice.js')
const live = document.querySelector('.actions [data-cells]')
const how = make('small', {hidden: !Object.keys(kept().code[page] ?? {}).length, textContent: 'With your edits.'})
live?.after(how)
// what a reader comes for says where it stands that it can be run
const whole = live && document.querySelector('.cell[data-whole]')
let asked = false
const press = () => { asked = true; live.click() }
const here = whole && make('p', {className: 'live'}, make('button', {type: 'button', onclick: press},
  ...[...live.children].map(o => o.cloneNode(true))), ' and train here. Then it reads what you draw.')
whole?.append(here)
live?.addEventListener('click', async () => {
  if (live.ariaDisabled) return
  live.ariaDisabled = 'true'
  try {
    await (await import('./python/cells.js')).live(live.dataset.cells)
    live.textContent = 'This page’s code runs below'
    here?.remove()
    if (asked) whole.scrollIntoView({block: 'center'})
    how.hidden = false
    how.textContent = 'Cells with a Run button can be edited; the others need Jupyter.'
  } catch (e) {
    live.ariaDisabled = null
    live.textContent = 'It could not be loaded: try again'
    console.info(e)
  }
})

// ---- labs ----
const labs = new URL('labs/', import.meta.url)
const looks = () => looks.loaded ??= new Promise((ok, no) =>
  document.head.append(make('link', {rel: 'stylesheet', href: new URL('lab.css', labs), onload: ok, onerror: no})))
const stored = el => {
  const inside = el.querySelector('script[type="application/json"]')
  return inside.dataset.src ? fetch(inside.dataset.src).then(r => r.ok ? r.json() : Promise.reject(new Error(`${r.url}: ${r.status}`))) : JSON.parse(inside.textContent)
}
export const mount = async (el, given) => {
  const [{default: lab}, data] = await Promise.all([import(new URL(`${el.dataset.lab}.js`, labs)), given ?? stored(el), looks()])
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
// a link to the pad takes the hand there, and clears it
addEventListener('click', e => {
  if (!e.target.closest?.('a[href="#draw-a-digit"]')) return
  const pad = document.querySelector('.lab-pad')
  if (!pad) return
  e.preventDefault()
  pad.scrollIntoView({block: 'center'})
  pad.focus({preventScroll: true})
  document.querySelector('.lab-wipe')?.click()
})

// ---- checks: the tests run every cell, and one that fails stops them; inside a def none has run ----
for (const cell of document.querySelectorAll('.cell')) {
  const code = [...cell.querySelectorAll('code:not(.proof *)')].map(c => c.textContent).join('\n')
  const inside = /^\s*(def|class) /m.test(code) ? '' : '\\s*'
  if (!new RegExp(`^(${inside}|for .*: )(assert |(test|check)_\\w+\\(|check\\(\\w+, )`, 'm').test(code)) continue
  cell.classList.add('checked')
  cell.append(make('span', {className: 'held', textContent: '✓ holds', title: 'The tests run this cell, and stop if a check in it fails.'}))
}
