// Pages of practice: hints come one at a time; what was solved is marked, and told to and by Jupyter, by a code.
import {written, read} from './codes.js'
import {kept, keep, page} from './kept.js'
import {make} from './make.js'
import {exercises} from './marks.js'

for (const box of document.querySelectorAll('.hints')) {
  const hints = [...box.children], next = make('button', {type: 'button'})
  const draw = () => {
    const left = hints.filter(o => !o.classList.contains('shown')).length
    next.textContent = `Next hint (${left} left)`
    next.hidden = !left
  }
  next.onclick = () => {
    const hint = hints.find(o => !o.classList.contains('shown'))
    hint.classList.add('shown')
    hint.open = true
    draw()
    if (next.hidden) hint.firstElementChild.focus()
  }
  const room = make('div', {ariaLive: 'polite'}, ...hints)
  box.append(room, next)
  draw()
}

if (exercises[page]) import('./python/write.js')

// ---- what was solved ----
const told = document.querySelector('.told:not([hidden])'), all = Object.values(exercises).flat()
const marks = (exercises[page] ?? []).map(name => {
  const id = CSS.escape(name.toLowerCase()), mark = make('span', {className: 'solved', textContent: '✓ solved'})
  document.querySelector(`h2#${id}, #${id} > h2`)?.append(' ', mark)
  return [mark, name]
})
const count = make('p'), form = make('form', {className: 'tell'}), said = make('p', {className: 'verdict', role: 'status'})
const field = make('input', {id: 'code', type: 'text', autocomplete: 'off', autocapitalize: 'off', spellcheck: false})
field.setAttribute('aria-describedby', 'code-says')
said.id = 'code-says'
form.append(make('label', {htmlFor: 'code'}, 'Solved in Jupyter? The code that ', make('code', {textContent: 'progress()'}), ' prints there:'),
  field, make('button', {type: 'submit', textContent: 'Mark'}), said)
form.onsubmit = e => {
  e.preventDefault()
  const {names, wrong} = read(field.value, all)
  field.ariaInvalid = !!wrong
  said.textContent = wrong ? `✗ ${wrong}` : names.length ? `✓ Marked: ${names.join(', ')}.` : 'None is solved there yet.'
  if (wrong) field.focus()
  else keep(k => { k.solved = [...new Set([...k.solved, ...names])] })
}
const call = make('code'), copy = make('button', {type: 'button', textContent: 'Copy', async onclick() {
  await navigator.clipboard.writeText(call.textContent)
  said.textContent = 'Copied.'
}})
const forget = make('button', {type: 'button', textContent: 'Forget them', onclick() {
  if (!confirm('Forget here which exercises are solved?')) return
  keep(k => { k.solved = [] })
  field.focus()
}})
const back = make('p', {}, 'The other way, in Jupyter: ', call)
const draw = () => {
  const solved = kept().solved.filter(o => all.includes(o))
  count.textContent = `${solved.length} of ${all.length} exercises are marked as solved, in this browser.`
  call.textContent = `progress('${written(solved, all)}')`
  for (const el of [back, copy, forget]) el.hidden = !solved.length
  for (const [mark, name] of marks) mark.hidden = !solved.includes(name)
}
told?.append(count, form, back, make('span', {className: 'buttons'}, copy, forget))
addEventListener('kept', draw)
addEventListener('storage', draw)
draw()
