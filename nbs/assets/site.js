// Theme, page menu and search of the site that tools/site.py renders. Quarto's rendering has its own.
(() => {
  const root = document.currentScript.dataset.root, html = document.documentElement
  const system = matchMedia('(prefers-color-scheme: dark)')
  const kept = () => { try { return localStorage.getItem('theme') } catch { return null } }
  const dark = () => kept() ? kept() === 'dark' : system.matches
  const show = () => {
    html.dataset.theme = dark() ? 'dark' : 'light'
    document.getElementById('theme-toggle')?.setAttribute('aria-pressed', dark())
  }
  html.classList.add('js')
  show()                                            // before the first paint
  system.addEventListener('change', show)

  document.addEventListener('DOMContentLoaded', () => {
    show()
    const menu = document.getElementById('menu-toggle'), box = document.getElementById('search-box')
    document.getElementById('theme-toggle').onclick = () => {
      try { localStorage.setItem('theme', dark() ? 'light' : 'dark') } catch {}
      show()
    }
    menu.onclick = () => menu.setAttribute('aria-expanded', html.classList.toggle('menu-open'))
    if (matchMedia('(max-width: 1199px)').matches) document.querySelector('.toc')?.removeAttribute('open')
    document.querySelector('.menu [aria-current]')?.scrollIntoView({block: 'nearest'})
    document.querySelectorAll('pre, .katex-display, .cell-output-display, .table-box').forEach(el => {
      if (el.scrollWidth > el.clientWidth) el.tabIndex = 0      // so that keys can scroll it
    })

    const load = (tag, attrs) => new Promise((ok, no) =>
      document.head.append(Object.assign(document.createElement(tag), attrs, {onload: ok, onerror: no})))
    // Of a page's sections Pagefind shows the three with most hits, so that a short one whose heading is the question would be
    // left out. We choose the three: words of the query in the heading count first, hits second.
    const best = result => {
      const words = new Set(box.querySelector('input').value.toLowerCase().match(/\w+/g))
      const said = r => (r.title.toLowerCase().match(/\w+/g) ?? []).filter(w => words.has(w)).length
      const [top, rest] = [r => r.url === result.url, r => r.url !== result.url].map(f => result.sub_results.filter(f))
      rest.sort((a, b) => said(b) - said(a) || b.locations.length - a.locations.length)
      return {...result, sub_results: [...top, ...rest.slice(0, 3)]}
    }
    let ready
    const open = async () => {
      box.showModal()
      ready ??= (async () => {
        await Promise.all([
          load('link', {rel: 'stylesheet', href: root + 'pagefind/pagefind-ui.css'}),
          load('script', {src: root + 'pagefind/pagefind-ui.js'})])
        new PagefindUI({element: '#search', bundlePath: new URL(root + 'pagefind/', location).pathname,
                        showSubResults: true, showImages: false, resetStyles: false, pageSize: 8,
                        processResult: best})
      })()
      await ready
      box.querySelector('input')?.focus()
    }
    document.getElementById('search-open').onclick = open
    document.addEventListener('keydown', e => {
      if (e.key !== '/' || e.ctrlKey || e.metaKey || e.target.matches('input, textarea, select, [contenteditable]')) return
      e.preventDefault()
      open()
    })
    box.addEventListener('click', e => { if (e.target === box || e.target.closest('a')) box.close() })
  })
})()
