// The worker of python.js: Pyodide with NumPy, the twin of PyTorch, and backprop13.practice.page, which answers in JSON
const at = new URL('pyodide/', import.meta.url).href
const {fetch} = self
let page, python, memory

// ---- what is fetched is counted on its way; the first thing that goes wrong is told, for Pyodide tells but some of it
function watch(parts, say) {
  const {instantiateStreaming} = WebAssembly, early = {}
  // scripts are imported, and not fetched here
  const total = parts.reduce((sum, o) => sum + (/js$/.test(o.name) ? 0 : o.raw), 0)
  let loaded = 0, fail
  const broken = new Promise((_, reject) => { fail = why => reject(new Error(why)) })
  self.fetch = async (url, options) => {
    const what = String(url).split('/').at(-1)
    const answer = await (early[what] ?? fetch(url, options)).catch(e => {
      fail(`${what} can't be fetched, or is not what the site was built with`)
      throw e
    })
    if (!answer.ok) fail(`the site has no ${what} (${answer.status})`)
    // the answer itself stays whole: of it browsers keep what they compiled, and the next start is sooner
    else answer.clone().body.pipeTo(new WritableStream({write(part) {
      say({what, total, loaded: Math.min(total, loaded += part.length)})
    }})).catch(() => {})
    return answer
  }
  WebAssembly.instantiateStreaming = (code, imports) => {
    memory ??= imports.env.memory                // Python's, for the product
    return instantiateStreaming(code, imports).catch(e => {
      fail(e.message)
      throw e
    })
  }
  for (const {name, integrity} of parts) if (integrity) (early[name] = fetch(at + name, {integrity})).catch(() => {})
  return {broken, done() { Object.assign(self, {fetch}), Object.assign(WebAssembly, {instantiateStreaming}) }}
}

const HOME = '/home/reader'
async function load(parts) {
  const zips = ['numpy.zip', 'backprop13.zip'].map(name => self.fetch(at + name).then(o => o.arrayBuffer()))
  const fast = parts.some(o => o.name === 'product.wasm') && self.fetch(at + 'product.wasm').then(o => o.arrayBuffer())
  const {loadPyodide} = await import(at + 'pyodide.mjs')
  python = await loadPyodide({indexURL: at, env: {HOME}})
  for (const zip of zips) python.unpackArchive(await zip, 'zip', {extractDir: HOME})
  // a faster product of matrices, in Python's memory; without it NumPy multiplies
  let product
  try { if (fast) ({instance: {exports: {product}}} = await WebAssembly.instantiate(await fast, {env: {memory}})) }
  catch (e) { console.info(`NumPy multiplies: ${e.message}`) }
  python.runPython('import sys; sys.path.insert(0, "/home/reader")')
  python.pyimport('backprop13.support.twin').install(product)
  return python.pyimport('backprop13.practice.page')
}

const does = {
  async start(_, say) {
    const {parts} = await (await fetch(new URL('parts.json', import.meta.url))).json()
    if (!parts) throw new Error('This site was built without Python.')
    const {broken, done} = watch(parts, data => say('progress', data))
    try { page = await Promise.race([broken, load(parts)]) }
    catch (e) { throw new Error(`Python can't be loaded: ${e.message.trim().split('\n').at(-1).replace(/\.$/, '')}.`) }
    done()
  },
  run: ([home, code, name], say) => JSON.parse(page.run(home, code, name, text => say('print', text), n => say('read', n))),
  trained: args => JSON.parse(page.trained(...args)),
  put: ([name, bytes]) => python.FS.writeFile(`${HOME}/${name}`, bytes),
  check: (args, say) => JSON.parse(page.check(...args, said => say('trial', JSON.parse(said)))),
  cut_short: args => JSON.parse(page.cut_short(...args)),
  reset: ([home]) => page.reset(home),
}

// One call after another. An error of the reader's code is an answer; what is thrown here, but by the start, ended Python.
let last = Promise.resolve()
onmessage = ({data: {id, what, args}}) => {
  const say = (kind, data) => postMessage({id, kind, data})
  last = last.then(async () => {
    try { say('value', await does[what](args, say)) }
    catch (e) { say(what === 'start' ? 'error' : 'ended', e.message) }
  })
}
