// What is on this device is there without a network: offline.js answers from it. It comes after the first page, which is
// therefore kept from here, with all that it asked for; and on request, every page.
import {make} from './make.js'
const root = new URL('..', import.meta.url), kept = () => caches.open('backprop13')

const keep = async (url, cache = 'default') => {
  const answer = await fetch(url, {cache})
  if (answer.status !== 200) throw new Error(`${answer.url}: ${answer.status}`)
  await (await kept()).put(url, answer)
}

navigator.serviceWorker.register(new URL('offline.js', root)).then(async ({active}) => {
  if (active) return                              // it was here before this page, and keeps what passes through it
  const urls = [location.href.replace(/#.*/, ''), ...performance.getEntriesByType('resource').map(o => o.name)]
  // `force-cache`: what the browser has just got isn't asked for again
  for (const url of new Set(urls)) if (url.startsWith(root.href)) await keep(url, 'force-cache').catch(() => {})
  document.documentElement.dataset.kept = 'page'
})

// ---- on the page about installing: a button that keeps all ----
const head = document.getElementById('without-a-network')
const ask = async () => {
  const {bytes, files} = await (await fetch(new URL('assets/files.json', root))).json()
  const bar = make('progress', {max: files.length, value: 0, hidden: true, ariaLabel: 'Kept'}), said = make('span', {role: 'status'})
  const button = make('button', {type: 'button', textContent: `Keep all pages (${Math.ceil(bytes/1e6)} MB)`, async onclick() {
    button.hidden = !(bar.hidden = false)
    said.textContent = ''
    try {
      const have = await kept()
      for (const [i, file] of files.entries()) {
        const url = new URL(file, root).href
        if (!await have.match(url)) await keep(url)
        bar.value = i + 1
      }
      said.textContent = 'All pages are on this device.'
    } catch (e) {
      button.hidden = false
      said.textContent = `Not all could be kept (${e.message}). Press once more to go on.`
    }
    bar.hidden = true
  }})
  head.nextElementSibling.after(make('p', {className: 'score'}, button, bar, said))
}
if (head) ask().catch(e => console.error('What the site holds is not known, so it can’t be kept.', e))
