// Exercises written and checked on their page. Where the cell with `check` stands, which is for Jupyter, there is a button; once it is
// pressed, the first lines become an editor, and Python loads. Where the site has no Python, the page stays as it is.
import {keep, keepCode, keptCode} from '../kept.js'
import {make} from '../make.js'
import {Python, size} from './python.js'
import {lineOf, verdict} from './verdict.js'

const KEYS = 'Shift-Enter checks. Esc, then Tab leaves the editor.'
const all = await size(), python = all && new Python()
const button = (textContent, onclick) => make('button', {type: 'button', textContent, onclick})
const mb = n => (n/1e6).toFixed(1)
const opened = new Set(), offers = []
let started = null                                  // a promise, once Python was asked for

const start = () => started ??= python.start(tell).then(() => tell(null), e => {
  started = null
  tell(null)
  throw e
})
let far = {loaded: 0, total: 1}                     // null once Python is there
const tell = now => {
  far = now
  opened.forEach(o => o.loading())
}

class Exercise {
  constructor(name, first, cell) {
    this.name = name
    this.block = first.querySelector('.sourceCode')
    this.starter = this.block.querySelector('code').textContent
    this.open = button('', () => this.begin())
    this.says = make('div', {className: 'says', role: 'status'})
    this.room = make('div', {className: 'write'}, this.open, this.says)
    cell.before(this.room)
    cell.hidden = true
    offers.push(this)
    this.relabel()
  }

  relabel() {
    const what = keptCode(this.name) === undefined ? 'Write it here' : 'Open your version'
    this.open.textContent = opened.size ? what : `${what} (loads ${Math.ceil(all.bytes/1e6)} MB, once)`
  }

  async begin() {
    if (this.open.ariaDisabled) return
    this.open.ariaDisabled = 'true'
    let editor
    try { ({editor} = await import('./editor.js')) } catch {
      this.open.ariaDisabled = null
      return this.say('✗ The editor could not be loaded. Is the network there? Press the button again.')
    }
    const host = make('div')
    this.block.after(host)
    this.block.hidden = true
    this.editor = editor(host, {code: keptCode(this.name) ?? this.starter, starter: this.starter, label: `${this.name}, in Python`,
      onrun: () => this.run(), onedit: () => this.edited()})
    this.check = button('Check', () => this.run())
    this.reset = button('Reset', () => this.back())
    this.stop = make('button', {type: 'button', textContent: 'Stop', hidden: true, onclick: () => { this.stopped = true; python.stop() }})
    this.bar = make('progress', {ariaLabel: 'Loading Python'})
    this.note = make('span', {className: 'note'})
    this.open.replaceWith(make('div', {className: 'buttons'}, this.check, this.reset, this.stop, this.bar, this.note))
    this.room.classList.add('opened')
    opened.add(this)
    offers.forEach(o => o.relabel())
    this.loading()
    this.select()
    start().catch(e => this.failed(e))
  }

  // the hand goes to the body that is to be written
  select() {
    const body = /^ *\.\.\.$/m.exec(this.editor.code)
    if (body) this.editor.select(body.index + body[0].indexOf('.'), body.index + body[0].length)
    this.editor.focus()
  }

  loading() {
    this.bar.hidden = !far
    if (!far) return this.noting()
    const share = this.bar.value = far.loaded/far.total, starts = share === 1
    this.note.replaceChildren(make('span', {textContent: starts ? 'Starting Python…' : 'Loading Python: '}),
                              starts ? '' : `${mb(all.bytes*share)} of ${mb(all.bytes)} MB`)
  }

  noting(text = KEYS) {
    this.note.classList.toggle('keys', text === KEYS)
    this.note.textContent = text
  }

  say(...parts) { this.says.replaceChildren(...parts) }
  failed(e) { this.say(`✗ ${e.message} Press Check to try again.`) }

  edited() {
    clearTimeout(this.due)
    this.due = setTimeout(() => this.keep(), 400)
    if (this.before === undefined || this.resetting) return
    this.before = undefined
    this.reset.textContent = 'Reset'
  }

  keep() {
    if (!this.due) return                           // nothing new: another window may have
    clearTimeout(this.due)
    this.due = 0
    keepCode(this.name, this.editor.code === this.starter ? undefined : this.editor.code)
  }

  // back to the first lines, and back again
  back() {
    const {before} = this
    this.resetting = true
    this.before = before === undefined ? this.editor.code : undefined
    if (before === undefined) this.editor.reset()
    else this.editor.code = before
    this.resetting = false
    this.reset.textContent = before === undefined ? 'Undo reset' : 'Reset'
    this.say(before === undefined ? 'These are the first lines again.' : 'Your version is back.')
  }

  async run() {
    if (this.busy) return
    this.busy = true
    this.stopped = false
    this.keep()
    this.editor.mark(0)
    this.check.ariaDisabled = 'true'
    this.stop.hidden = false
    this.says.style.minHeight = `${this.says.offsetHeight}px`        // what is below stays where it is
    if (far) this.say('Loading Python, then checking…')
    const {code} = this.editor, since = Date.now(), seconds = () => Math.round((Date.now() - since)/1000)
    const clock = setInterval(() => far || this.noting(`${seconds()} s`), 1000)
    try {
      await start()
      this.say('Checking…')
      const told = await python.check(this.name, code)
      this.say(...verdict(told))
      if (this.editor.code === code) this.editor.mark(lineOf(told))
      if (told.ok) keep(k => { k.solved = [...new Set([...k.solved, this.name])] })
    } catch (e) {
      if (this.stopped) this.say(`Stopped after ${seconds()} s.`)
      else this.failed(e)
    }
    clearInterval(clock)
    this.says.style.minHeight = ''
    if (document.activeElement === this.stop) this.check.focus()
    this.stop.hidden = true
    this.check.ariaDisabled = null
    if (!far) this.noting()
    this.busy = false
  }
}

if (all) {
  for (const hints of document.querySelectorAll('.hints')) {
    const cell = hints.previousElementSibling, name = /^check\((\w+)\)$/.exec(cell?.querySelector('code')?.textContent.trim())?.[1]
    if (name) new Exercise(name, cell.previousElementSibling, cell)
  }
  addEventListener('pagehide', () => opened.forEach(o => o.keep()))
}
