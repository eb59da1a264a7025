// What a page does in both renderings, Quarto's and that of tools/site.py: labs come to life when they are scrolled to, answers stay
// folded until asked for, cells whose checks held are marked. Without scripts a lab shows its picture, and every answer.
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

// ---- predict, then reveal: after "**Predict:** ..." the next cell is folded, with the text and silent cells that follow it ----
for (const ask of document.querySelectorAll('main p:has(> strong:first-child)')) {
  const cell = ask.nextElementSibling
  if (!/^Predict:/.test(ask.textContent) || !cell?.matches('.cell')) continue
  ask.classList.add('predict')
  const answer = make('details', {className: 'reveal'}, make('summary', {textContent: 'Show the answer'}))
  cell.before(answer)
  answer.append(cell)
  for (let next; (next = answer.nextElementSibling) && !next.matches('h1, h2, h3, h4, section, blockquote, p.predict, .cell:has(.cell-output)');)
    answer.append(next)
}
const opened = () => document.querySelector(':target')?.closest('details.reveal')?.setAttribute('open', '')
addEventListener('hashchange', opened)
opened()
addEventListener('beforeprint', () => document.querySelectorAll('details.reveal').forEach(d => { d.open = true }))

// ---- checks: the tests run every cell, and one that fails stops them; inside a def none has run ----
for (const cell of document.querySelectorAll('.cell')) {
  const code = [...cell.querySelectorAll('code')].map(c => c.textContent).join('\n')
  const inside = /^\s*(def|class) /m.test(code) ? '' : '\\s*'
  if (!new RegExp(`^(${inside}|for .*: )(assert |(test|check)_\\w+\\(|check\\()`, 'm').test(code)) continue
  cell.classList.add('checked')
  cell.append(make('span', {className: 'held', textContent: '✓ holds', title: 'The tests run this cell, and stop if a check in it fails.'}))
}
