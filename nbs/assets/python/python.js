// Python in the page, in a worker: nothing is fetched before `start`, and no other host is asked.
//
//   size()                     {bytes, parts: [{name, bytes}]}: what the first start transfers, where the server compresses
//                              as GitHub Pages does; null if the site was built without Python
//   new Python()               one worker, which answers one call after another
//     .start(onprogress)       resolves when Python is ready; onprogress({loaded, total, what}) in bytes. The other calls start it, too
//     .run(code, {home, name, onprint, onread})    runs a cell in the names of `home`, 'page' by default: {out, error}.
//                              out: [{kind: 'text' | 'html' | 'svg' | 'png' | 'markdown', data}], what was printed and shown, in order;
//                              error: null, or {line, text}, the line of this cell (null: none of it);
//                              onprint(text) is told of what is printed at once, onread(n) how many training images it has taken
//     .check(exercise, code, {home, name, seconds, ontrial})    runs the cell, then judges what it calls `exercise`:
//                              {ok, property, text, title, lines, message, look, held, out}: property is null if ok, text is what
//                              Jupyter shows, lines are its rows as HTML (code and bold, no style), held counts trials that hold.
//                              A trial that takes longer than `seconds` (the exercise's, 10) ends the worker; ontrial(about) tells of each
//     .trained(home)           of the network called `model` there: {accuracy, why, nets, digits}, for a pad to read with; see
//                              backprop13.practice.page
//     .put(name, bytes)        gives Python a file; workers that follow have it, too
//     .reset(home)             forgets the names of `home`
//     .stop()                  ends the worker at once: what was pending rejects with Stopped. The next call starts a new one, in
//                              which the cells that ran without error run again, home by home
const here = name => new URL(name, import.meta.url).href

export async function size() {
  const {parts} = await (await fetch(here('parts.json'))).json()
  return parts && {parts, bytes: parts.reduce((sum, o) => sum + o.bytes, 0)}
}

export class Stopped extends Error {
  constructor() { super('Python was stopped.') }
  name = 'Stopped'
}
class Ended extends Error {}                     // the worker is gone, by itself or since a trial took too long

export class Python {
  #worker = null
  #ready = null
  #calls = new Map()                             // number -> what waits for it
  #n = 0
  #ran = new Map()                               // home -> the cells that ran without error: [code, name]
  #files = new Map()

  start(onprogress) {
    const ready = this.#ready ??= this.#begin(onprogress).catch(e => {
      if (this.#ready === ready) this.#end(e)    // or it was stopped, and the next may have begun
      throw e
    })
    return ready
  }

  async #begin(onprogress) {
    this.#worker = new Worker(here('worker.js'), {type: 'module'})
    this.#worker.onmessage = ({data}) => this.#hear(data)
    this.#worker.onerror = e => this.#end(new Error(`Python can't start: ${e.message ?? 'its script was not found'}.`))
    await this.#ask('start', [], {progress: onprogress})
    for (const file of this.#files) await this.#ask('put', file)
    for (const [home, cells] of this.#ran) for (const cell of cells) await this.#ask('run', [home, ...cell])
  }

  #ask(what, args, on = {}) {
    const id = ++this.#n
    return new Promise((resolve, reject) => {
      this.#calls.set(id, {resolve, reject, on})
      this.#worker.postMessage({id, what, args})
    })
  }

  #hear({id, kind, data}) {
    const call = this.#calls.get(id)
    if (!call) return
    if (kind === 'ended') return this.#end(new Ended(data))
    if (kind !== 'value' && kind !== 'error') return call.on[kind]?.(data)
    this.#calls.delete(id)
    if (kind === 'value') call.resolve(data)
    else call.reject(new Error(data))
  }

  #end(why) {
    this.#worker?.terminate()
    this.#worker = this.#ready = null
    for (const {reject} of this.#calls.values()) reject(why)
    this.#calls.clear()
  }

  #keep(home, ...cell) { this.#ran.set(home, [...this.#ran.get(home) ?? [], cell]) }

  stop() { this.#end(new Stopped()) }

  async reset(home = 'page') {
    this.#ran.delete(home)
    if (this.#ready) await this.#ready.then(() => this.#ask('reset', [home]))
  }

  async put(...file) {
    await this.start()
    await this.#ask('put', file)
    this.#files.set(...file)
  }

  async trained(home = 'page') {
    await this.start()
    return this.#ask('trained', [home])
  }

  async run(code, {home = 'page', name = '<cell>', onprint, onread} = {}) {
    await this.start()
    const told = await this.#ask('run', [home, code, name], {print: onprint, read: onread})
    if (!told.error) this.#keep(home, code, name)
    return told
  }

  async check(exercise, code, {home = 'page', name = '<cell>', seconds, ontrial} = {}) {
    await this.start()
    const tried = []
    let clock
    const trial = said => {
      clearTimeout(clock)
      clock = setTimeout(() => this.#end(new Ended('time')), 1000*(seconds ?? said.seconds))
      if (!said.about) return                    // the cell itself
      tried.push(said.about)
      ontrial?.(said.about)
    }
    let kind
    try {
      const told = await this.#ask('check', [exercise, home, code, name], {trial})
      if (told.defined) this.#keep(home, code, name)
      return told
    } catch (e) {
      if (!(e instanceof Ended)) throw e
      kind = e.message
    } finally { clearTimeout(clock) }
    await this.start()
    return this.#ask('cut_short', [exercise, kind, tried, seconds ?? null])
  }
}
