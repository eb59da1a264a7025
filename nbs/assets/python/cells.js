// A chapter's cells run in its page, once its reader has asked for that: each gets an editor, and what it prints stands below what is
// stored. Nothing of this file is loaded before. `cells.json` has the chapter in pieces, live cells and what they need of the others
// (tools/cells.py): {start, pieces: [{code, makes, needs, id, cell, stored}]}.
//
// The names in which cells run are always those of the notebook, run from the top as far as `done` says: a cell runs after what it needs,
// in the notebook's order. What was edited since, or stands above what ran, begins them anew.
import {keepCode, keptCode} from '../kept.js'
import {make} from '../make.js'
import {editor} from './editor.js'
import {Python, Stopped, size} from './python.js'

const python = new Python(), cells = new Map()      // number of a piece -> its cell
let pieces, start, done = null, stopping = false
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

async function fresh() {
  await python.reset()
  await python.run(start)
  done = []
}

// ---- one after the other ----
// Runs the pieces up to cell `i` that it needs, and it; returns whether all went well
async function run(i) {
  const todo = [...needs(i), i]
  const last = done?.at(-1)?.[0] ?? -1, ran = new Set(done?.map(([k]) => k))
  const as = done?.every(([k, code]) => code === text(k)) && !ran.has(i) && todo.every(k => ran.has(k) || k > last)
  cells.get(i).say('Running…')
  if (!as) await fresh()
  for (const k of todo.filter(k => !as || !ran.has(k))) {
    const code = text(k), told = await python.run(code)
    if (told.error) {
      done = null
      cells.get(k)?.tell(told)
      if (k !== i) cells.get(i).blame(k, told.error)
      return false
    }
    done.push([k, code])
    if (k === i || cells.get(k)?.told) cells.get(k).tell(told)
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
    cells.get(at)?.show([])
    cells.get(at)?.say(stopping || e instanceof Stopped ? 'Stopped. Which loop has no end?' : `✗ ${e.message}`)
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
    this.buttons = [button('Run', this.name, () => runAll([i])),
      button('Run to here', this.name, () => runAll([...cells.keys()].filter(k => k <= i)))]
    this.reset = button('Reset', this.name, () => { this.editor.reset(); this.editor.focus() })
    this.note = make('span', {className: 'note', role: 'status'})
    host.after(make('div', {className: 'write runs'}, make('div', {className: 'buttons'}, ...this.buttons, this.reset, this.note)))
    this.yours = make('div', {className: 'yours', hidden: true})
    room.append(this.yours)
    this.edited()
  }

  get code() { return this.editor.code }

  edited() {
    this.reset.hidden = this.code === this.piece.code
    this.note.textContent = this.reset.hidden ? '' : 'edited'
    for (const c of cells.values()) if (c.told && needs(c.i).includes(this.i)) c.say('not run since that edit')
    clearTimeout(this.due)
    this.due = setTimeout(() => this.keep(), 400)
  }

  keep() {
    const code = this.code === this.piece.code ? undefined : this.code
    if (keptCode(this.piece.id) !== code) keepCode(this.piece.id, code)
  }

  wait(on) { this.buttons.forEach(o => { o.ariaDisabled = on ? 'true' : null }) }
  say(words) { this.note.textContent = words }

  // what it printed, if that isn't what is stored, and its error
  tell({out, error}) {
    this.told = true
    this.editor.mark(error?.line ?? 0)
    const printed = cut(out.map(o => o.kind === 'text' ? o.data : `(${o.kind}: the notebook shows it)\n`).join(''))
    const same = !error && printed === this.piece.stored
    const parts = printed && !same ? [make('p', {textContent: 'Yours:'}), make('pre', {}, make('code', {textContent: printed}))] : []
    if (error) parts.push(make('p', {className: 'wrong', textContent: `✗ ${error.line ? `Line ${error.line}: ` : ''}${error.text}`}))
    this.show(parts)
    this.say(error ? '✗ an error, below' : same ? printed ? '✓ the same as stored' : '✓ ran' : printed ? 'ran: another output, below' : 'ran: it prints nothing')
  }

  show(parts) {
    this.yours.replaceChildren(...parts)
    this.yours.hidden = !parts.length
  }

  // what it needs, piece `k`, failed
  blame(k, {text: said}) {
    const there = cells.get(k)
    const go = there ? make('a', {href: '#', textContent: there.name, onclick: e => { e.preventDefault(); there.go() }}) : 'an earlier cell'
    this.show([make('p', {className: 'wrong'}, '✗ It needs ', go, `, which says: ${said}`)])
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
    this.far = make('progress', {ariaLabel: 'Loading Python', hidden: true})
    this.stop = make('button', {type: 'button', textContent: 'Stop', onclick: () => { stopping = true; python.stop() }})
    this.room = make('div', {className: 'write running', hidden: true}, this.far, this.words, this.stop)
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
  load(bytes, {loaded, total}) {
    this.far.hidden = false
    this.far.value = loaded/total
    this.words.textContent = `Loading Python: ${(bytes*this.far.value/1e6).toFixed(1)} of ${(bytes/1e6).toFixed(1)} MB`
  }
  loaded() {
    this.far.hidden = true
    this.words.textContent = 'Running…'
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
  await python.start(now => bar.load(all.bytes, now))
  bar.loaded()
}

// The page's control was pressed: `data` is the address of the chapter's pieces
export async function live(data) {
  const answer = await fetch(data)
  if (!answer.ok) throw new Error(`the site answers ${answer.status} for its cells.`);
  ({start, pieces} = await answer.json())
  bar = new Bar()
  const mine = pieces.flatMap((p, i) => p.id ? [[i, document.querySelector(`.cell[data-live="${p.id}"]`)]] : [])
  mine.forEach(([i, room], n) => cells.set(i, new Cell(i, room, n + 1, mine.length)))
  addEventListener('pagehide', () => cells.forEach(c => c.keep()))
  bar.show('Loading Python')
  try { await begin() } catch (e) { return bar.fail(e) }
  bar.hide()
}
