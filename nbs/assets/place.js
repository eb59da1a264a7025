// A reading place that is found again: who comes back to a chapter is offered to go on at the heading that was read last. The offer
// stands in a corner, moves nothing, and goes when it is taken, refused, or not heeded. An address with a # has its own place.
import {chapter, kept, keep, page} from './kept.js'
import {make} from './make.js'

const heads = !chapter ? [] : [...document.querySelectorAll('main :is(h2, h3)')].filter(h => h.id || h.closest('section[id]'))
const idOf = h => h.id || h.closest('section[id]').id
const words = h => [...h.childNodes].filter(o => !o.matches?.('.here, .anchorjs-link')).map(o => o.textContent).join('').trim()

let offer = null
const note = () => {
  const all = document.documentElement, through = scrollY + 2*innerHeight > all.scrollHeight
  const at = through || scrollY < innerHeight ? null : heads.findLast(h => h.getBoundingClientRect().top < innerHeight / 2)
  const before = kept().place[page]?.[0]
  if (before === (at ? idOf(at) : undefined)) return
  keep(k => { if (at) k.place[page] = [idOf(at), words(at)]; else delete k.place[page] })
}
const away = () => {
  offer?.remove()
  offer = null
}
const [id, said] = [kept().place[page] ?? []].flat()
if (heads.length && !location.hash && scrollY < 10 && document.getElementById(id)) {
  const close = make('button', {type: 'button', textContent: '×', ariaLabel: 'No, from the top', onclick: away})
  const go = make('a', {href: `#${id}`, textContent: said, onclick: away})
  offer = make('aside', {className: 'go-on', ariaLabel: 'Your place'}, make('span', {}, 'Go on where you were: ', go), close)
  offer.addEventListener('keydown', e => { if (e.key === 'Escape') away() })
  document.querySelector('main').prepend(offer)
}
let due
if (heads.length) addEventListener('scroll', () => {
  if (offer && scrollY > innerHeight) away()                      // read on from here
  clearTimeout(due)
  if (!offer) due = setTimeout(note, 300)
}, {passive: true})
