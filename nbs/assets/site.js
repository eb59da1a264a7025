// Theme, page menu, progress and search of the site that tools/site.py renders. Quarto's rendering has its own.
(() => {
  const root = document.currentScript.dataset.root, html = document.documentElement
  const system = matchMedia('(prefers-color-scheme: dark)')
  const keep = {}                                   // where localStorage is refused, for as long as the page stands
  const kept = k => { try { return localStorage.getItem(`backprop13-${k}`) ?? keep[k] } catch { return keep[k] } }
  const store = (k, v) => { keep[k] = v; try { localStorage.setItem(`backprop13-${k}`, v) } catch {} }
  const dark = () => kept('theme') ? kept('theme') === 'dark' : system.matches
  const show = () => {
    html.dataset.theme = dark() ? 'dark' : 'light'
    const button = document.getElementById('theme-toggle')
    if (button) button.textContent = dark() ? 'Light' : 'Dark'      // what a click gives
  }
  const make = (tag, attrs, ...children) => {
    const el = Object.assign(document.createElement(tag), attrs)
    el.append(...children)
    return el
  }
  html.classList.add('js')
  show()                                            // before the first paint
  system.addEventListener('change', show)

  document.addEventListener('DOMContentLoaded', () => {
    show()
    const menu = document.getElementById('menu-toggle'), box = document.getElementById('search-box')
    document.getElementById('theme-toggle').onclick = () => {
      store('theme', dark() ? 'light' : 'dark')
      show()
    }
    const unfold = open => menu.setAttribute('aria-expanded', html.classList.toggle('menu-open', open))
    menu.onclick = () => unfold()
    document.addEventListener('keydown', e => { if (e.key === 'Escape' && html.classList.contains('menu-open')) { unfold(false); menu.focus() } })
    const toc = document.querySelector('.toc')
    if (toc) toc.open = matchMedia('(min-width: 1200px)').matches     // beside the text; where it stands above, it would move all of it
    document.querySelector('.menu [aria-current]')?.scrollIntoView({block: 'nearest'})
    for (const head of document.querySelectorAll('article :is(h2, h3, h4)[id]'))
      head.append(make('a', {className: 'here', href: `#${head.id}`, textContent: '#', ariaLabel: 'Link to this section'}))
    for (const code of document.querySelectorAll('article div.sourceCode')) {
      const copy = make('button', {type: 'button', className: 'copy', textContent: 'Copy', async onclick() {
        await navigator.clipboard.writeText(code.querySelector('code').textContent)
        copy.textContent = 'Copied'
        setTimeout(() => { copy.textContent = 'Copy' }, 1500)
      }})
      code.append(copy)
    }
    const reach = () => document.querySelectorAll('pre, .katex-display, .cell-output-display, .scroll-box').forEach(el => {
      if (el.scrollWidth > el.clientWidth) el.tabIndex = 0      // so that keys can scroll it
      else el.removeAttribute('tabindex')
    })
    reach()
    document.fonts.ready.then(reach)                  // widths are known when the fonts are
    addEventListener('resize', reach)
    document.addEventListener('toggle', reach, true)

    // Progress: a line in the bar, the section in the contents, and in the menu how much of each chapter was read, kept on this machine:
    // which of its hundred parts were read, as '0110…', since a link may lead past all the others
    const seenOf = (far, path) => far[path]?.length === 100 ? far[path] : '0'.repeat(100)
    const read = () => { try { return JSON.parse(kept('read')) ?? {} } catch { return {} } }
    const chapters = [...document.querySelectorAll('.menu a, .chapters a')].filter(a => /^\d/.test(a.textContent))
    const tell = () => {
      const far = read()
      for (const a of chapters) {
        const part = seenOf(far, new URL(a.href).pathname).replaceAll('0', '').length
        if (!part) continue
        const said = a.querySelector('.read') ?? a.appendChild(Object.assign(document.createElement('span'), {className: 'read'}))
        said.textContent = part > 97 ? 'read' : `${part} %`
      }
    }
    const entries = [...document.querySelectorAll('.toc a')].map(a => [a, document.getElementById(decodeURIComponent(a.hash.slice(1)))])
    // keys scroll what was pressed last: the text from here on, no longer the list
    toc?.addEventListener('click', e => {
      const head = entries.find(([a]) => a === e.target.closest('a'))?.[1]
      if (head) head.tabIndex = -1
      head?.focus({preventScroll: true})
    })
    let last = null
    const bar = document.querySelector('.bar'), mine = chapters.find(a => a.ariaCurrent)
    const scrolled = () => {
      const room = html.scrollHeight - innerHeight, at = room > 0 ? Math.min(1, scrollY / room) : 1
      bar.style.setProperty('--at', at)
      const current = at === 1 && room > 0 ? entries.at(-1)?.[0] : entries.findLast(([, head]) => head?.getBoundingClientRect().top < innerHeight / 3)?.[0]
      if (current !== last) {
        last?.removeAttribute('aria-current')
        current?.setAttribute('aria-current', 'location')
        if (toc) toc.scrollTop = current ? current.offsetTop - toc.clientHeight / 2 : 0
        last = current
      }
    }
    // it takes some seconds: each second on the page adds to the parts that are on the screen, and who leafs through, or only looks in, read nothing
    const ENOUGH = 5, secs = Array(100).fill(0), onScreen = i => Math.abs((i + .5) / 100 * html.scrollHeight - scrollY - innerHeight / 2) <= innerHeight / 2
    if (mine) setInterval(() => {
      if (document.hidden) return
      const far = read(), path = new URL(mine.href).pathname, before = seenOf(far, path)
      const now = before.replace(/0/g, (_, i) => Number(onScreen(i) && ++secs[i] >= ENOUGH))
      if (now === before) return
      store('read', JSON.stringify({...far, [path]: now}))
      tell()
    }, 1000)
    let due
    addEventListener('scroll', () => { due ??= requestAnimationFrame(() => { due = null; scrolled() }) }, {passive: true})
    scrolled()
    tell()

    const input = document.getElementById('search-input'), said = document.getElementById('search-said'), list = document.getElementById('search')
    let ready
    const found = async () => {
      ready ??= Promise.all([import(new URL(root + 'assets/search.js', location)),
        fetch(root + 'search.json').then(r => r.ok ? r.json() : Promise.reject(new Error(`${r.url}: ${r.status}`)))])
        .then(([search, sections]) => ({...search, index: search.indexed(sections)}))
      let search
      try { search = await ready } catch {
        ready = null
        said.textContent = location.protocol === 'file:'
          ? 'A browser doesn’t let a page that was opened as a file read the search’s index. Run make serve in the project, or python -m http.server in this folder, and open the address that it prints.'
          : 'The search could not be loaded. Is the server still there? Close this, and search again.'
        return
      }
      const question = input.value.trim(), {hits, like} = search.ranked(search.index, question)
      list.replaceChildren(...hits.slice(0, like ? 5 : 20).map(hit => make('li', {}, make('a', {href: root + hit.url},
        make('strong', {textContent: hit.title}), ...(hit.title === hit.page ? [] : [make('span', {className: 'on', textContent: hit.page})]),
        make('span', {className: 'excerpt'}, ...search.excerpt(hit).map(([text, mark]) => mark ? make('mark', {textContent: text}) : text))))))
      said.textContent = !question ? '' : !like ? `${hits.length} ${hits.length === 1 ? 'result' : 'results'} for ${question}`
        : `Nothing found for ${question}. ` + (hits.length ? 'The nearest:' : 'Try a word of the lesson, such as gradient; the lesson map and the reference list all there is.')
    }
    const open = () => {
      box.showModal()
      input.select()
      found()
    }
    let typed
    input.oninput = () => { clearTimeout(typed); typed = setTimeout(found, 120) }
    box.addEventListener('keydown', async e => {
      const links = [...list.querySelectorAll('a')], at = links.indexOf(document.activeElement)
      const to = {ArrowDown: links[at + 1], ArrowUp: links[at - 1] ?? input}[e.key]
      if (to) {
        e.preventDefault()
        to.focus()
      } else if (e.key === 'Escape') box.close()          // Chromium would empty the field first
      else if (e.key === 'Enter' && e.target === input) {
        clearTimeout(typed)
        await found()
        list.querySelector('a')?.click()
      }
    })
    document.getElementById('search-open').onclick = open
    document.getElementById('search-close').onclick = () => box.close()
    document.addEventListener('keydown', e => {
      if (e.key !== '/' || e.ctrlKey || e.metaKey || e.target.matches('input, textarea, select, [contenteditable]')) return
      e.preventDefault()
      open()
    })
    box.addEventListener('click', e => { if (e.target === box || e.target.closest('a')) box.close() })
  })
  // without a network, too
  addEventListener('load', () => {
    if (navigator.serviceWorker && location.protocol !== 'file:') import(new URL(root + 'assets/device.js', location))
  })
})()
