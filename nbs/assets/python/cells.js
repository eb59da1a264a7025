// A chapter's cells run in its page, once its reader has asked for that: each gets an editor, and what it prints stands below what is
// stored. Nothing of this file is loaded before. `cells.json` has the chapter in pieces, live cells and what they need of the others
// (tools/cells.py): {start, pieces: [{code, makes, needs, id, cell, stored, whole}], digits}. A cell that is `whole` needs all images: they are
// loaded when it is run, and after it a pad reads with the network that it has trained.
//
// The names in which cells run are always those of the notebook, run from the top as far as `done` says: a cell runs after what it needs,
// in the notebook's order. What was edited since, or stands above what ran, begins them anew.
import {keepCode, keptCode} from '../kept.js'
import {make} from '../make.js'
import {mount} from '../page.js'
import {editor, measure} from './editor.js'
import {Python, Stopped, size} from './python.js'

const IMAGES = 50_000
const python = new Python(), cells = new Map()      // number of a piece -> its cell
let pieces, start, digits, done = null, stopping = false
const text = i => cells.get(i)?.code ?? pieces[i].code
const button = (textContent, label, onclick) => make('button', {type: 'button', textContent, ariaLabel: `${textContent}: ${label}`, onclick})
const cut = s => s.replace(/\n+$/, '')

// ---- what a cell needs ----
// An edited cell may name more than the stored one: what it names is needed, too, as it was made and changed before
const needs = i => {
  const found = new Set(pieces[i].needs)
  const more = k => { if (!found.has(k)) [k, ...pieces[k].needs].forEach(o => found.add(o)) }
  for (const k of [i, ...found]) {
    if (text(k) === pieces[k].code) continue
    const words = new Set(text(k).match(/[\p{L}_][\p{L}\p{N}_]*/gu))
    for (let j = 0; j < k; j++) if (pieces[j].makes.some(o => words.has(o))) more(j)
  }
  return [...found].sort((a, b) => a - b)
}

// ---- all images ----
// Gives them to Python as a file, from which `mnist` reads; names that were made of the first few are made anew
async function load() {
  digits.asked = new AbortController()
  const answer = await fetch(digits.url, {integrity: digits.integrity, signal: digits.asked.signal})
  if (!answer.ok) throw new Error(`the site answers ${answer.status} for the digits.`)
  const blob = new Uint8Array(digits.bytes)
  let at = 0
  for (const reader = answer.body.getReader(); ;) {
    const {done, value} = await reader.read()
    if (done) break
    blob.set(value, at)
    bar.load('the digits', digits.bytes, {loaded: at += value.length, total: digits.bytes})
  }
  await python.put(digits.file, blob)
  digits.there = true
  done = null
  cells.forEach(c => c.label())
  bar.loaded()
}

async function fresh() {
  await python.reset()
  await python.run(start)
  done = []
}

// ---- one after the other ----
// Runs the pieces up to cell `i` that it needs, and it; returns whether all went well
async function run(i) {
  const todo = [...needs(i), i]
  const whole = digits?.there ? undefined : todo.find(k => pieces[k].whole)
  if (whole < i) {
    cells.get(i).blame(whole, {text: 'run it first, for it loads all images'})
    return false
  }
  if (whole === i) await load()
  const last = done?.at(-1)?.[0] ?? -1, ran = new Set(done?.map(([k]) => k))
  const as = done?.every(([k, code]) => code === text(k)) && !ran.has(i) && todo.every(k => ran.has(k) || k > last)
  cells.get(i).say('Running…')
  if (!as) await fresh()
  for (const k of todo.filter(k => !as || !ran.has(k))) {
    const code = text(k), cell = k === i || cells.get(k)?.told ? cells.get(k) : null
    const name = cells.has(k) ? `cell ${k}` : undefined
    const told = await python.run(code, {name, onread: bar.read, onprint: words => cell?.hear(words)})
    if (told.error) {
      done = null
      cells.get(k)?.tell(told)
      if (k !== i) cells.get(i).blame(k, told.error)
      return false
    }
    done.push([k, code])
    cell?.tell(told)
    if (pieces[k].whole) await cell?.draw(await python.trained())
  }
  return true
}

let busy = false
async function runAll(numbers) {
  if (busy) return
  busy = true
  stopping = false
  cells.forEach(c => c.wait(true))
  bar.show('Running…')
  let at
  try {
    await begin()
    for (at of numbers) if (!await run(at)) break
  } catch (e) {
    done = null
    const ended = pieces[at]?.whole ? 'Stopped.' : 'Stopped. Which loop has no end?'
    cells.get(at)?.end(stopping || e instanceof Stopped ? ended : `✗ ${e.message}`)
    if (at === undefined) bar.fail(e)
  }
  cells.forEach(c => c.wait(false))
  busy = false
  bar.hide()
}

// ---- a cell ----
class Cell {
  constructor(i, room, n, of) {
    this.i = i
    this.piece = pieces[i]
    this.name = [...this.piece.code.matchAll(/^(?:def|class) (\w+)/gm)].at(-1)?.[1] ?? `cell ${n} of ${of}`
    const block = room.querySelector('.sourceCode'), host = make('div')
    block.after(host)
    block.hidden = true
    this.editor = editor(host, {code: keptCode(this.piece.id) ?? this.piece.code, starter: this.piece.code, label: `${this.name}, in Python`,
      onrun: () => runAll([i]), onedit: () => this.edited()})
    // on all images only who presses their own button
    const upTo = () => [...cells.keys()].filter(k => k === i || k < i && (!pieces[k].whole || digits.there))
    this.buttons = [button('Run', this.name, () => runAll([i])), button('Run to here', this.name, () => runAll(upTo()))]
    this.label()
    this.reset = button('Reset', this.name, () => { this.editor.reset(); this.editor.focus() })
    this.note = make('span', {className: 'note', role: 'status'})
    host.after(make('div', {className: 'write runs'}, make('div', {className: 'buttons'}, ...this.buttons, this.reset, this.note)))
    this.yours = make('div', {className: 'yours', hidden: true})
    room.append(this.yours)
    this.room = room
    let proof = room.nextElementSibling              // what the tests hold of it
    while (proof?.localName === 'span') proof = proof.nextElementSibling
    this.proof = proof?.querySelector('.proof > summary')?.appendChild(make('span', {textContent: ' · before your edit', hidden: true}))
    this.edited()
  }

  get code() { return this.editor.code }

  label() {
    if (!this.piece.whole) return
    const [one, more] = this.buttons
    one.textContent = `Run on all 50\u00a0000 images${digits.there ? '' : ` (loads ${Math.round(digits.bytes/1e6)} MB, once)`}`
    one.ariaLabel = `${one.textContent}: ${this.name}`
    more.hidden = true
  }

  edited() {
    this.reset.hidden = this.code === this.piece.code
    this.note.textContent = this.reset.hidden ? '' : 'edited'
    for (const c of cells.values()) {
      if (c.told && needs(c.i).includes(this.i)) c.say('not run since that edit')
      c.prove()
    }
    clearTimeout(this.due)
    this.due = setTimeout(() => this.keep(), 400)
  }

  // what the tests hold is of the stored code, and of what that needs
  prove() {
    const same = [this.i, ...needs(this.i)].every(k => text(k) === pieces[k].code)
    this.room.classList.toggle('unproved', !same)
    if (this.proof) this.proof.hidden = same
  }

  keep() {
    const code = this.code === this.piece.code ? undefined : this.code
    if (keptCode(this.piece.id) !== code) keepCode(this.piece.id, code)
  }

  wait(on) { this.buttons.forEach(o => { o.ariaDisabled = on ? 'true' : null }) }
  say(words) { this.note.textContent = words }

  // what it has printed so far, where it takes long
  hear(words) {
    this.heard = (this.heard ?? '') + words
    this.soon ??= setTimeout(() => { this.soon = null; this.show(this.printed(cut(this.heard))) }, 300)
  }
  printed(words) { return [make('p', {textContent: 'Yours:'}), make('pre', {tabIndex: 0}, make('code', {textContent: words}))] }

  // it didn't come to its end
  end(words) {
    const heard = this.quiet()
    this.show(heard ? this.printed(cut(heard)) : [])
    this.say(words)
  }
  quiet() {
    const {heard} = this
    clearTimeout(this.soon)
    this.heard = this.soon = null
    return heard
  }

  // what it printed, if that isn't what is stored, and its error
  tell({out, error}) {
    this.quiet()
    this.told = true
    this.editor.mark(error?.line ?? 0)
    const printed = cut(out.map(o => o.kind === 'text' ? o.data : `(${o.kind}: the notebook shows it)\n`).join(''))
    const same = !error && printed === this.piece.stored
    const parts = printed && (!same || this.piece.whole) ? this.printed(printed) : []
    if (error) parts.push(make('p', {className: 'wrong'}, `✗ ${error.line ? `Line ${error.line}: ` : ''}${error.text}`, ...this.inside(error)))
    this.show(parts)
    this.say(error ? '✗ an error, below' : same ? printed ? '✓ the same as stored' : this.reset.hidden ? '✓ ran' : 'ran' : printed ? 'ran: another output, below' : 'ran: it prints nothing')
  }

  show(parts) {
    this.yours.replaceChildren(...parts)
    this.yours.hidden = !parts.length
  }

  // The pad of the labs, which reads with the network that it has trained
  async draw({accuracy, why, nets, digits}) {
    const reads = accuracy === null ? '' : ` It reads ${(100*accuracy).toFixed(1)}\u00a0% of the validation images rightly.`
    this.yours.hidden = false                 // also where it printed nothing
    if (why) return this.yours.append(make('p', {textContent: `${reads} The pad can’t read with this network: ${why}.`}))
    const ask = `Draw a digit for the network that you have just trained.${reads}`, lab = make('div', {className: 'lab'})
    lab.dataset.lab = 'descent'
    this.yours.append(lab)
    await mount(lab, {steps: [0], nets, digits, ask})
  }

  // where in another cell it was
  inside({inside: at}) {
    const there = at && cells.get(Number(at.name.slice('cell '.length)))
    return there ? ['\nin ', there.link(at.line), `, line ${at.line}`] : []
  }

  link(line = 0) {
    const onclick = e => {
      e.preventDefault()
      this.go()
      this.editor.mark(line, 'center')
    }
    return make('a', {href: '#', textContent: this.name, onclick})
  }

  // what it needs, piece `k`, failed
  blame(k, {text: said}) {
    this.show([make('p', {className: 'wrong'}, '✗ It needs ', cells.get(k)?.link() ?? 'an earlier cell', `, which says: ${said}`)])
    this.say('✗ not run')
  }

  go() {
    for (let o = this.yours; (o = o.parentElement?.closest('details'));) o.open = true
    this.editor.focus()
  }
}

// ---- the page: what is loading, what runs, and Stop ----
class Bar {
  constructor() {
    this.words = make('span', {role: 'status'})
    this.far = make('progress', {hidden: true})
    this.count = make('span', {className: 'note', ariaHidden: 'true'})
    this.stop = make('button', {type: 'button', textContent: 'Stop', onclick: () => { stopping = true; python.stop(); digits?.asked?.abort() }})
    this.room = make('div', {className: 'write running', hidden: true}, this.far, this.words, this.count, this.stop)
    document.body.append(this.room)
  }
  show(words) {
    clearTimeout(this.due)
    this.words.textContent = words
    this.due = setTimeout(() => { this.room.hidden = false }, 300)     // what is quicker needs no bar
  }
  hide() {
    clearTimeout(this.due)
    if (!this.failed) this.room.hidden = true
  }
  // of `what`, a share of so many bytes is there
  load(what, bytes, {loaded, total}) { this.go(loaded/total, `Loading ${what}`, `${(bytes*loaded/total/1e6).toFixed(1)} of ${(bytes/1e6).toFixed(1)} MB`) }
  // a loop has taken `n` training images; screen readers are told of each epoch
  read = n => {
    const epoch = Math.ceil(n/IMAGES), now = n - IMAGES*(epoch - 1)
    this.go(now/IMAGES, `Epoch ${epoch}`, `${String(now).replace(/\B(?=(\d{3})+$)/g, '\u00a0')} images`)
  }
  go(share, words, count) {
    this.far.hidden = false
    this.far.value = share
    this.far.ariaLabel = words
    if (this.words.textContent !== words) this.words.textContent = words
    this.count.textContent = count
  }
  loaded() {
    this.far.hidden = true
    this.words.textContent = 'Running…'
    this.count.textContent = ''
  }
  fail(e) {
    this.failed = true
    this.words.textContent = `✗ ${e.message}`
    this.room.hidden = false
  }
}
let bar

let all
async function begin() {
  bar.failed = false
  all ??= await size()
  await python.start(now => bar.load('Python', all.bytes, now))
  bar.loaded()
}

// The page's control was pressed: `data` is the address of the chapter's pieces
export async function live(data) {
  const answer = await fetch(data)
  if (!answer.ok) throw new Error(`the site answers ${answer.status} for its cells.`);
  ({start, pieces, digits} = await answer.json())
  if (digits) digits.url = new URL(digits.file, answer.url)
  bar = new Bar()
  const mine = pieces.flatMap((p, i) => p.id ? [[i, document.querySelector(`.cell[data-live="${p.id}"]`)]] : [])
  mine.forEach(([i, room], n) => cells.set(i, new Cell(i, room, n + 1, mine.length)))
  measure([...cells.values()].map(c => c.editor))
  cells.forEach(c => c.prove())
  addEventListener('pagehide', () => cells.forEach(c => c.keep()))
  bar.show('Loading Python')
  try { await begin() } catch (e) { return bar.fail(e) }
  bar.hide()
}
