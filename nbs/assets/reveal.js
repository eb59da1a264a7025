// Predict, then reveal: after "**Predict:** ..." the next cell is folded, with the text and silent cells that follow it.
import {ask, mayGuess} from './guesses.js'
import {make} from './make.js'

const predicts = [...document.querySelectorAll('main p:has(> strong:first-child)')]
  .filter(p => /^Predict:/.test(p.textContent) && p.nextElementSibling?.matches('.cell'))
predicts.forEach(p => p.classList.add('predict'))
for (const asking of predicts) {
  const cell = asking.nextElementSibling
  const answer = make('details', {className: 'reveal'}, make('summary', {textContent: 'Show the answer'})), parts = mayGuess(cell)
  const question = parts && ask(parts, () => { answer.open = true }, () => { answer.open = false })
  if (question) answer.firstElementChild.onclick = question.seen
  cell.before(...question ? [question.form] : [], answer)
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
