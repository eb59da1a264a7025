// What was solved and guessed, beside its page in the menu: ✓ for all of it, or 3/5.
import {kept, pageOf, tally} from './kept.js'
import {make} from './make.js'

const told = document.querySelector('.told')        // pages of practice say which exercises each of them has
export const exercises = told ? JSON.parse(told.dataset.exercises) : {}
const links = [...document.querySelectorAll('.menu a[href], a.sidebar-link[href]')].map(a => [a, pageOf(a.href)])

const mark = () => {
  const {solved} = kept()
  for (const [a, page] of links) {
    const {of: asked, right} = tally(page), mine = exercises[page]
    const [done, of, what] = page === 'practice' ? [solved.length, 0, 'exercises solved'] : mine ? [mine.filter(o => solved.includes(o)).length, mine.length, 'exercises solved']
      : [right, asked, 'guesses right']
    const said = a.querySelector('.done') ?? (done ? a.appendChild(make('span', {className: 'done'})) : null)
    if (!said) continue
    said.textContent = !done ? '' : !of ? `${done} ✓` : done === of ? '✓' : `${done}/${of}`
    said.title = of ? `${done} of ${of} ${what}` : `${done} ${what}`
  }
}
mark()
addEventListener('kept', mark)
addEventListener('storage', mark)                   // another window
