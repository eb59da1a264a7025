// A service worker: what was opened once can be opened again without a network. With one, everything is asked for anew, so nothing
// is out of date. tools/site.py puts it beside index.html, since it may only answer for what lies below itself.
addEventListener('install', () => skipWaiting())
addEventListener('activate', e => e.waitUntil(clients.claim()))
addEventListener('fetch', e => {
  const {method, url, headers} = e.request
  const ours = method === 'GET' && new URL(url).origin === location.origin
  if (ours && headers.get('accept') !== 'text/event-stream') e.respondWith(answer(e))
})

async function answer(e) {
  try {
    const got = await fetch(e.request)
    if (got.status === 200) e.waitUntil(keep(e.request, got.clone()))
    return got
  } catch (lost) {
    const at = new URL(e.request.url).pathname
    for (const name of [at, at.endsWith('/') ? at + 'index.html' : at.replace(/\/index\.html$/, '/')]) {
      const kept = await caches.match(name, {ignoreSearch: true, ignoreVary: true})
      if (kept) return kept
    }
    if (e.request.mode !== 'navigate') throw lost
    return new Response('This page can’t be reached, and it wasn’t opened on this device before. Go back, or try again with a network.',
      {status: 503, headers: {'Content-Type': 'text/plain; charset=utf-8'}})
  }
}

async function keep(request, answer) {
  try { await (await caches.open('backprop13')).put(request, answer) } catch {}    // the disk is full, so it isn't kept
}
