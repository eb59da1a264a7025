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
    const reach = () => document.querySelectorAll('pre, .katex-display, .cell-output-display, .scroll-box').forEach(el => {
      if (el.scrollWidth > el.clientWidth) el.tabIndex = 0      // so that keys can scroll it
      else el.removeAttribute('tabindex')
    })
    reach()
    document.fonts.ready.then(reach)                  // widths are known when the fonts are
    addEventListener('resize', reach)
    document.addEventListener('toggle', reach, true)

    // Progress: a line in the bar, the section in the contents, and in the menu how much of each chapter was read, kept on this machine:
    // which of its hundred parts have been on the screen, as '0110…', since a link may lead past all the others
    const seenOf = (far, path) => far[path]?.length === 100 ? far[path] : '0'.repeat(100)
    const read = () => { try { return JSON.parse(kept('read')) ?? {} } catch { return {} } }
    const chapters = [...document.querySelectorAll('.menu a')].filter(a => /^\d/.test(a.textContent))
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
    let last = null
    const bar = document.querySelector('.bar'), mine = chapters.find(a => a.ariaCurrent)
    const scrolled = () => {
      const room = html.scrollHeight - innerHeight, at = room > 0 ? Math.min(1, scrollY / room) : 1
      bar.style.setProperty('--at', at)
      const current = at === 1 && room > 0 ? entries.at(-1)?.[0] : entries.findLast(([, head]) => head?.getBoundingClientRect().top < innerHeight / 3)?.[0]
      if (current !== last) {
        last?.removeAttribute('aria-current')
        current?.setAttribute('aria-current', 'location')
        if (current) toc.scrollTop = current.offsetTop - toc.clientHeight / 2
        last = current
      }
      if (!mine) return
      const far = read(), path = new URL(mine.href).pathname, before = seenOf(far, path)
      const onScreen = i => Math.abs((i + .5) / 100 * html.scrollHeight - scrollY - innerHeight / 2) <= innerHeight / 2
      const now = before.replace(/0/g, (_, i) => Number(onScreen(i)))
      if (now === before) return
      store('read', JSON.stringify({...far, [path]: now}))
      tell()
    }
    let due
    addEventListener('scroll', () => { due ??= requestAnimationFrame(() => { due = null; scrolled() }) }, {passive: true})
    scrolled()
    tell()

    const load = (tag, attrs) => new Promise((ok, no) =>
      document.head.append(Object.assign(document.createElement(tag), attrs, {onload: ok, onerror: no})))
    // Of a page's sections Pagefind shows the three with most hits, so that a short one whose heading is the question would be
    // left out. We choose the three: words of the query in the heading count first, hits second.
    const best = result => {
      const small = /^(an?|the|of|is|are|and|or|why|what|how|to|in|on|it|do|does)$/
      const words = new Set((box.querySelector('input').value.toLowerCase().match(/\w+/g) ?? []).filter(w => !small.test(w)))
      const said = r => (r.title.toLowerCase().match(/\w+/g) ?? []).filter(w => words.has(w)).length
      const [top, rest] = [r => r.url === result.url, r => r.url !== result.url].map(f => result.sub_results.filter(f))
      rest.sort((a, b) => said(b) - said(a) || b.locations.length - a.locations.length)
      return {...result, sub_results: [...top, ...rest.slice(0, 3)]}
    }
    // What the search says is announced; Pagefind writes it into an element that comes and goes. What went wrong is shown, too.
    const said = document.getElementById('search-said'), search = document.getElementById('search')
    const says = () => {
      const text = search.querySelector('.pagefind-ui__message')?.textContent.trim() ?? ''
      if (said.className && said.textContent !== text) said.textContent = text
    }
    new MutationObserver(says).observe(search, {childList: true, characterData: true, subtree: true})
    const failed = () => {
      ready = null
      search.replaceChildren()
      said.className = ''
      said.textContent = location.protocol === 'file:'
        ? 'A browser doesn’t let a page that was opened as a file read the search’s index. Run make serve in the project, or python -m http.server in this folder, and open the address that it prints.'
        : 'The search could not be loaded. Is the server still there? Close this, and search again.'
    }
    let ready
    const open = async () => {
      box.showModal()
      ready ??= (async () => {
        said.className = 'spoken'
        const [pagefind] = await Promise.all([
          import(new URL(root + 'pagefind/pagefind.js', location)),
          load('link', {rel: 'stylesheet', href: root + 'pagefind/pagefind-ui.css'}),
          load('script', {src: root + 'pagefind/pagefind-ui.js'})])
        await pagefind.search(null)                     // its own page reads the index at the first word only, and then waits for ever
        new PagefindUI({element: '#search', bundlePath: new URL(root + 'pagefind/', location).pathname,
                        showSubResults: true, showImages: false, resetStyles: false, pageSize: 10, excerptLength: 24,
                        ranking: {termFrequency: 0},      // a word counts once: a short page that repeats it isn't the better answer
                        processResult: best})
      })()
      try { await ready } catch { return failed() }
      box.querySelector('input')?.focus()
    }
    document.getElementById('search-open').onclick = open
    document.getElementById('search-close').onclick = () => box.close()
    document.addEventListener('keydown', e => {
      if (e.key !== '/' || e.ctrlKey || e.metaKey || e.target.matches('input, textarea, select, [contenteditable]')) return
      e.preventDefault()
      open()
    })
    box.addEventListener('click', e => { if (e.target === box || e.target.closest('a')) box.close() })
  })
})()
