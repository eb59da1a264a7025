// Guess the shapes. On a chapter's page all cells that print nothing but shapes, outside the folded answers, ask for them, at the reader's
// wish. On a page of practice each question has its field.
import {ask, mayGuess, startAgain} from './guesses.js'
import {chapter, page, tally} from './kept.js'
import {make} from './make.js'

// ---- a chapter ----
const shapes = !chapter ? [] : [...document.querySelectorAll('main .cell:not(.reveal *)')].flatMap(cell => {
  const [output, more] = cell.querySelectorAll('.cell-output'), parts = more ? null : mayGuess(cell)
  return parts?.some(p => /shape|dtype/.test(p.answer.kind)) ? [{output, parts}] : []
})
const offer = () => {
  const button = make('button', {type: 'button', textContent: `Guess the shapes (${shapes.length})`}), count = make('span')
  const right = () => `${shapes.filter(s => s.question.right()).length} of ${shapes.length}`
  let on = false
  const draw = () => {
    button.ariaPressed = on
    count.textContent = on ? `${right()} right` : 'hides what the cells print behind a field for your guess'
    for (const {question, output, show, open} of shapes) {
      question.form.hidden = !on
      output.hidden = on && !open
      show.textContent = open ? 'Hide' : 'Show'
    }
    document.dispatchEvent(new Event('toggle'))                  // site.js looks again at what scrolls sideways
  }
  for (const shape of shapes) {
    shape.show = make('button', {type: 'button', onclick() {
      shape.open = !shape.open
      shape.question.seen()
      draw()
    }})
    shape.question = ask(shape.parts, () => {
      shape.open = true
      draw()
      return shape.question.right() ? ` ${right()} on this page.` : ''
    }, () => { shape.open = false })
    shape.question.form.querySelector('.buttons').append(shape.show)
    shape.output.before(shape.question.form)
  }
  const store = () => { try { localStorage.setItem('backprop13-guess', on ? 'on' : 'off') } catch {} }
  button.onclick = () => {
    on = !on
    store()
    draw()
  }
  try { on = localStorage.getItem('backprop13-guess') === 'on' } catch {}
  const here = new URL(location)
  if (here.searchParams.has('guess')) {                          // as if pressed, once
    on = true
    store()
    here.searchParams.delete('guess')
    history.replaceState(history.state, '', here)
  }
  draw()
  // where it is first of use: nothing above moves
  const first = shapes.map(s => s.output.closest('.cell')).find(cell => cell.checkVisibility())
  first?.before(make('p', {className: 'guesses'}, button, count))
}
if (shapes.length) offer()

// ---- a page of practice: its questions, and the score above them ----
const score = document.querySelector('.score')
if (score) {
  const slots = [...document.querySelectorAll('.slot')]
  const bar = make('progress', {ariaLabel: 'Answered', max: slots.length}), said = make('span', {tabIndex: -1})
  const forget = make('button', {type: 'button', textContent: 'Start again', onclick() {
    if (!confirm(`Forget your ${bar.value} answers on this page?`)) return
    startAgain()
    draw()
    said.focus()                                                 // the button is gone
  }})
  const draw = () => {
    const {right, first, seen} = tally(page)
    bar.value = right + seen
    said.textContent = `${first} of ${slots.length} right at first try` + (right > first ? `, ${right - first} later` : '') + (seen ? `, ${seen} looked up` : '')
    forget.hidden = !(right + seen)
  }
  for (const slot of slots) {
    const answer = slot.nextElementSibling, parts = mayGuess(answer)
    slot.previousElementSibling.classList.add('predict')
    const question = ask(parts, () => {
      answer.open = true
      draw()
      return ` ${said.textContent}.`
    }, () => { answer.open = false })
    answer.querySelector('summary').onclick = () => { question.seen(); draw() }
    slot.replaceWith(question.form)
  }
  score.append(bar, said, forget)
  draw()
}
