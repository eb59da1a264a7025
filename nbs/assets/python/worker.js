// The worker of python.js: Pyodide with NumPy, the twin of PyTorch, and backprop13.practice.page, which answers in JSON
const at = new URL('pyodide/', import.meta.url).href
const {fetch} = self
let page

// ---- how far it is: what is fetched is counted on its way ----
function count(total, say) {
  let loaded = 0
  self.fetch = async (...args) => {
    const answer = await fetch(...args), what = new URL(answer.url).pathname.split('/').at(-1)
    if (!answer.ok) throw new Error(`Python can't be loaded: the site answers ${answer.status} for ${what}.`)
    const counted = new TransformStream({transform(part, to) {
      say({what, total, loaded: Math.min(total, loaded += part.length)})
      to.enqueue(part)
    }})
    return new Response(answer.body.pipeThrough(counted), {headers: answer.headers})
  }
}

const does = {
  async start(_, say) {
    const {parts} = await (await fetch(new URL('parts.json', import.meta.url))).json()
    if (!parts) throw new Error('This site was built without Python.')
    count(parts.reduce((sum, o) => sum + o.raw, 0), data => say('progress', data))
    const ours = self.fetch(at + 'backprop13.zip').then(o => o.arrayBuffer())
    const {loadPyodide} = await import(at + 'pyodide.mjs'), wrong = []
    const python = await loadPyodide({indexURL: at, env: {HOME: '/home/reader'}})
    await python.loadPackage('numpy', {messageCallback() {}, errorCallback: said => wrong.push(said)})
    if (wrong.length) throw new Error(`Python can't be loaded: ${wrong.join(' ')}`)
    python.unpackArchive(await ours, 'zip', {extractDir: '/home/reader'})
    python.runPython('import sys; sys.path.insert(0, "/home/reader"); import backprop13.support.twin as t; t.install()')
    page = python.pyimport('backprop13.practice.page')
    self.fetch = fetch
  },
  run: ([home, code, name], say) => JSON.parse(page.run(home, code, name, text => say('print', text))),
  check: (args, say) => JSON.parse(page.check(...args, said => say('trial', JSON.parse(said)))),
  cut_short: args => JSON.parse(page.cut_short(...args)),
  reset: ([home]) => page.reset(home),
}

// One call after another. An error of the reader's code is an answer; what is thrown here ended Python itself.
let last = Promise.resolve()
onmessage = ({data: {id, what, args}}) => {
  const say = (kind, data) => postMessage({id, kind, data})
  last = last.then(async () => {
    try { say('value', await does[what](args, say)) }
    catch (e) { say(what === 'start' || e.name === 'PythonError' ? 'error' : 'ended', e.message) }
  })
}
