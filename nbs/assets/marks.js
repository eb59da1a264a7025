// What was solved and guessed, beside its page in the menu: ✓ for all of it, or 3/5.
import {kept, pageOf, tally} from './kept.js'
import {make} from './make.js'

const told = document.querySelector('.told')        // pages of practice say which exercises each of them has
export const exercises = told ? JSON.parse(told.dataset.exercises) : {}
const links = [...document.querySelectorAll('.menu a[href], a.sidebar-link[href]')].map(a => [a, pageOf(a.href)])

// below how much of a chapter was read (site.js), in the same row
const room = a => {
  const read = a.querySelector('.read') ?? make('span', {className: 'read'}), done = make('span', {className: 'done'})
  a.append(make('span', {className: 'marks'}, read, done))
  return done
}
const mark = () => {
  const {solved} = kept()
  for (const [a, page] of links) {
    const {of: asked, right} = tally(page), mine = exercises[page]
    const [done, of, what] = mine ? [mine.filter(o => solved.includes(o)).length, mine.length, 'exercises solved']
      : page === 'practice' ? [solved.length, 0, 'exercises solved'] : [right, asked, 'guesses right']
    const said = a.querySelector('.done') ?? (done ? room(a) : null)
    if (!said) continue
    said.textContent = !done ? '' : !of ? `${done} ✓` : done === of ? '✓' : `${done}/${of}`
    said.title = of ? `${done} of ${of} ${what}` : `${done} ${what}`
  }
}
mark()
addEventListener('kept', mark)
addEventListener('storage', mark)                   // another window
