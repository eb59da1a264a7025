// What the pages keep on this machine of what a reader does, all in one place. localStorage.backprop13 is JSON:
//   guessed: {page: {of: how many questions it has, tries: {question: 'first' | 'later' | 'wrong' | 'seen'}}}
//            right at the first try, at a later one, not yet, looked up
//   solved:  the names of exercises that `check` has passed
//   code:    {page: {name: text}}, what was written on a page in the place of its own code
//   place:   {page: [id, words]}, the heading that was read last, of chapters that the reader isn't through
// A page is its address from the site's root, without .html: 'backprop', 'practice/layers'. After each change `window` gets an event 'kept'.
const KEY = 'backprop13', root = new URL('..', import.meta.url).pathname
let unkept                                          // where localStorage is refused, for as long as the page stands
const plain = o => o && typeof o === 'object' && !Array.isArray(o) ? o : {}

export const pageOf = url => new URL(url, location).pathname.replace(root, '').replace(/\.html$/, '') || 'index'
// the reader's page, and whether it is a chapter: its row in the menu begins with a number
export const page = pageOf(location)
export const chapter = /^\s*\d/.test(document.querySelector('.menu a[aria-current], a.sidebar-link.active')?.textContent)

export const kept = () => {
  let found = unkept
  try { found = JSON.parse(localStorage.getItem(KEY)) ?? unkept } catch {}
  const all = plain(found)
  return {...all, guessed: plain(all.guessed), place: plain(all.place), code: plain(all.code), solved: Array.isArray(all.solved) ? all.solved : []}
}

export const keep = change => {
  unkept = kept()
  change(unkept)
  try { localStorage.setItem(KEY, JSON.stringify(unkept)) } catch {}
  dispatchEvent(new Event('kept'))
}

// What was written on this page in the place of `name`, or undefined; and to keep it, or with undefined to forget it
export const keptCode = name => { const text = plain(kept().code[page])[name]; return typeof text === 'string' ? text : undefined }
export const keepCode = (name, text) => keep(k => { k.code[page] = {...plain(k.code[page]), [name]: text} })

// What was guessed on a page: how many of its questions, how many of those right, and right at the first try
export const tally = page => {
  const {of = 0, tries} = plain(kept().guessed[page]), how = Object.values(plain(tries)), are = (...which) => how.filter(h => which.includes(h)).length
  return {of, tries: plain(tries), right: are('first', 'later'), first: are('first'), seen: are('seen')}
}
