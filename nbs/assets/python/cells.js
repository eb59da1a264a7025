// A chapter's cells run in its page, once its reader has asked for that: each gets an editor, and what it prints stands
// below what is stored. Nothing of this file is loaded before. A cell that is `whole` needs all images: they are loaded
// when it is run, and after it a pad reads with the network that it has trained.
//
// The names in which cells run are always those of the notebook, run from the top as far as `done` says: a cell runs
// after what it needs, in the notebook's order. What was edited since, or stands above what ran, begins them anew.
import {Bar} from './bar.js'
import {Cell} from './cell.js'
import {cells, chapter, lacks, needs, text} from './chapter.js'
import {measure} from './editor.js'
import {Python, Stopped, size} from './python.js'

const python = new Python()
let bar, parts, done = null, stopping = false, busy = false      // done: [number, code] of what ran since the top

async function begin() {
  parts ??= await size()
  await python.start(now => {
    if (now.loaded < now.total) bar.load('Python', parts.bytes, now)
    else bar.say('Starting Python…')
  })
  bar.say('Running…')
}

// Gives all images to Python as a file, from which `mnist` reads; names that were made of the first few are made anew
async function load() {
  const {digits} = chapter
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
  bar.say('Running…')
}

async function fresh() {
  await python.reset()
  await python.run(chapter.start)
  done = []
}

// Runs the pieces up to cell `i` that it needs, and it; returns whether all went well. What only an edit names may fail:
// the cell runs all the same, and says so if it needed that
async function run(i) {
  const todo = [...needs(i), i], lacking = todo.find(lacks)
  if (lacking < i) {
    cells.get(i).blame(lacking, {text: 'run it first, for it loads all images'})
    return false
  }
  if (lacking === i) await load()
  const last = done?.at(-1)?.[0] ?? -1, ran = new Set(done?.map(([k]) => k))
  const as = done?.every(([k, code]) => code === text(k)) && !ran.has(i) && todo.every(k => ran.has(k) || k > last)
  cells.get(i).say('Running…')
  if (!as) await fresh()
  let sound = true
  for (const k of todo.filter(k => !as || !ran.has(k))) {
    const code = text(k), cell = k === i || cells.get(k)?.told ? cells.get(k) : null
    const name = cells.has(k) ? `cell ${k}` : undefined
    const told = await python.run(code, {name, onread: bar.read, onprint: words => cell?.hear(words)})
    if (told.error) {
      sound = false
      cells.get(k)?.tell(told)
      if (k !== i && !chapter.pieces[i].needs.includes(k)) continue
      done = null
      if (k !== i) cells.get(i).blame(k, told.error)
      return false
    }
    done.push([k, code])
    cell?.tell(told)
    if (chapter.pieces[k].whole) await cell?.draw(await python.trained())
  }
  if (!sound) done = null
  return true
}

// Cells by their numbers, one after the other
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
    const ended = chapter.pieces[at]?.whole ? 'Stopped.' : 'Stopped. Which loop has no end?'
    cells.get(at)?.end(stopping || e instanceof Stopped ? ended : `✗ ${e.message}`)
    if (at === undefined) bar.fail(e)
  }
  cells.forEach(c => c.wait(false))
  busy = false
  bar.hide()
}

function stop() {
  stopping = true
  python.stop()
  chapter.digits?.asked?.abort()
}

// The page's control was pressed: `address` is that of the chapter's cells.json
export async function live(address) {
  const answer = await fetch(address)
  if (!answer.ok) throw new Error(`the site answers ${answer.status} for its cells.`)
  const {pieces, digits} = Object.assign(chapter, await answer.json())
  if (digits) digits.url = new URL(digits.file, answer.url)
  bar = new Bar(stop)
  const mine = pieces.flatMap((p, i) => p.id ? [[i, document.querySelector(`.cell[data-live="${p.id}"]`)]] : [])
  mine.forEach(([i, room], n) => cells.set(i, new Cell(i, room, n + 1, mine.length, runAll)))
  measure([...cells.values()].map(c => c.editor))
  cells.forEach(c => c.edited())
  addEventListener('pagehide', () => cells.forEach(c => c.keep()))
  bar.show('Loading Python')
  try { await begin() } catch (e) { return bar.fail(e) }
  bar.hide()
}
