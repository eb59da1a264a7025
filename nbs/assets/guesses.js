// The questions of a page: a form with a field for each answer of a cell, a verdict for each guess, and what is kept of it.
import {keep, page, tally} from './kept.js'
import {make} from './make.js'
import {answers, judge, parse} from './predict.js'

const asked = []                                    // the page's questions, in their order

export const mayGuess = cell => {
  const output = cell.querySelector('.cell-output')
  return output && answers(output.textContent, cell.querySelector('code.sourceCode')?.textContent)
}

// `guessed(right)` is called at each guess that can be read; what it returns of a right one is said, too
const formOf = (parts, number, guessed) => {
  const status = make('p', {className: 'verdict', id: `verdict-${number}`, ariaLive: 'polite'})
  const fields = parts.map(({label, answer}, i) => {
    const input = make('input', {id: `guess-${number}-${i}`, type: 'text', autocomplete: 'off', autocapitalize: 'off', spellcheck: false})
    const said = parts.length > 1 ? make('span', {className: 'said', id: `said-${number}-${i}`}) : status
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
    const more = fields.every(f => parse(f.input.value)) && guessed(!wrong.length)
    if (parts.length > 1) status.textContent = `${wrong.length ? '' : '✓ '}${parts.length - wrong.length} of ${parts.length} right.`
    if (wrong.length) wrong[0].input.focus()
    else status.textContent += more || ''
  }
  form.onreset = () => fields.forEach(({input, said}) => {
    input.ariaInvalid = null
    said.textContent = status.textContent = ''
  })
  form.says = text => { status.textContent = text }
  return form
}

// A question: its form; `solved` shows the answer, and returns what is said with the verdict
export const ask = (parts, solved, forgotten) => {
  const label = parts.map(p => p.label).join(', '), before = asked.filter(q => q.label === label).length
  const question = {label, name: before ? `${label} (${before + 1})` : label}
  const note = next => {
    const was = question.was(), now = next(was)
    if (now === was) return
    const tries = {...tally(page).tries, [question.name]: now}
    keep(all => { all.guessed[page] = {of: asked.length, tries: Object.fromEntries(asked.filter(q => tries[q.name]).map(q => [q.name, tries[q.name]]))} })
  }
  question.was = () => tally(page).tries[question.name]
  question.right = () => ['first', 'later'].includes(question.was())
  question.seen = () => note(was => question.right() ? was : 'seen')                  // what was looked up doesn't count
  question.form = formOf(parts, asked.push(question), right => {
    note(was => right ? {wrong: 'later', undefined: 'first'}[was] ?? was : was ?? 'wrong')
    return right && solved()
  })
  question.again = () => { question.form.reset(); forgotten() }
  if (question.right()) question.form.says('✓ Guessed before.')
  return question
}

// As if nothing had been guessed on this page
export const startAgain = () => {
  keep(all => { delete all.guessed[page] })
  asked.forEach(q => q.again())
}
