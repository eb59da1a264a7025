// A cell of a chapter that its reader edits and runs: the editor, its buttons, and, below what is stored, what it
// printed
import {keepCode, keptCode} from '../kept.js'
import {make} from '../make.js'
import {mount} from '../page.js'
import {cells, chapter, edited, lacks, needs, text} from './chapter.js'
import {editor} from './editor.js'

const button = (textContent, label, onclick) =>
  make('button', {type: 'button', textContent, ariaLabel: `${textContent}: ${label}`, onclick})
const cut = s => s.replace(/\n+$/, '')
const wrong = (...parts) => make('p', {className: 'wrong'}, '✗ ', ...parts)

export class Cell {
  // piece `i`, in the element `room`, the `n`th of `of` cells; runAll(numbers) runs cells one after the other
  constructor(i, room, n, of, runAll) {
    this.i = i
    this.piece = chapter.pieces[i]
    this.drawn = {}                                  // what stands on its pad, which the next network reads, too
    this.name = [...this.piece.code.matchAll(/^(?:def|class) (\w+)/gm)].at(-1)?.[1] ?? `cell ${n} of ${of}`
    const block = room.querySelector('.sourceCode'), host = make('div')
    block.after(host)
    block.hidden = true
    const {id, code} = this.piece, run = () => runAll([i])
    this.editor = editor(host, {code: keptCode(id) ?? code, starter: code, label: `${this.name}, in Python`,
                                onrun: run, onedit: () => this.edited()})
    // on all images only who presses their own button
    const upTo = () => runAll([...cells.keys()].filter(k => k === i || k < i && !lacks(k)))
    this.buttons = [button('Run', this.name, run), button('Run to here', this.name, upTo)]
    this.buttons[0].title = 'Runs this cell, and before it what it needs'
    this.buttons[1].title = 'Runs all cells that have a button, from the top to this one'
    this.label()
    this.reset = button('Reset', this.name, () => this.again())
    this.note = make('span', {className: 'note', role: 'status'})
    const row = make('div', {className: 'buttons'}, ...this.buttons, this.reset, this.note)
    host.after(make('div', {className: 'write runs'}, row))
    this.yours = make('div', {className: 'yours', hidden: true})
    room.append(this.yours)
    this.room = room
    let proof = room.nextElementSibling              // what the tests hold of it
    while (proof?.localName === 'span') proof = proof.nextElementSibling
    const was = make('span', {textContent: ' · not of your edit', hidden: true})
    this.proof = proof?.querySelector('.proof > summary')?.appendChild(was)
  }

  get code() { return this.editor.code }

  // back to the stored code, whose output is stored, too
  again() {
    this.editor.reset()
    this.told = false
    this.show([])
    this.say('')
    this.editor.focus()
  }

  label() {
    if (!this.piece.whole) return
    const [one, more] = this.buttons
    const loads = lacks(this.i) ? ` (loads ${Math.round(chapter.digits.bytes/1e6)} MB, once)` : ''
    one.textContent = `Run on all 50\u00a0000 images${loads}`
    one.ariaLabel = `${one.textContent}: ${this.name}`
    more.hidden = true
  }

  edited() {
    this.reset.hidden = !edited(this.i)
    this.note.textContent = this.reset.hidden ? '' : 'edited'
    for (const c of cells.values()) {
      if (c.told && needs(c.i).includes(this.i)) c.say(`not run since ${this.name} was edited`)
      c.prove()
    }
    clearTimeout(this.due)
    this.due = setTimeout(() => this.keep(), 400)
  }

  // what the tests hold is of the stored code, and of what that needs
  prove() {
    const same = ![this.i, ...needs(this.i)].some(edited)
    this.room.classList.toggle('unproved', !same)
    if (this.proof) this.proof.hidden = same
  }

  keep() {
    const code = edited(this.i) ? this.code : undefined
    if (keptCode(this.piece.id) !== code) keepCode(this.piece.id, code)
  }

  wait(on) { this.buttons.forEach(o => { o.ariaDisabled = on ? 'true' : null }) }
  say(words) { this.note.textContent = words }

  // what it has printed so far, where it takes long
  hear(words) {
    this.heard = (this.heard ?? '') + words
    this.soon ??= setTimeout(() => {
      this.soon = null
      this.show(this.printed(cut(this.heard)))
    }, 300)
  }
  printed(words) {
    return [make('p', {textContent: 'Yours:'}), make('pre', {tabIndex: 0}, make('code', {textContent: words}))]
  }

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
    if (error) parts.push(wrong(error.line ? `Line ${error.line}: ` : '', error.text, ...this.inside(error)))
    this.show(parts)
    this.say(error ? '✗ an error, below'
      : !same ? !printed ? 'ran: it prints nothing' : this.piece.stored ? 'ran: another output, below' : 'ran: output below'
      : printed ? '✓ the same output' : edited(this.i) ? 'ran' : '✓ ran')
  }

  // in a long output the reader's place stays, or its end
  show(parts) {
    const box = () => this.yours.querySelector('pre'), {scrollTop = 0, clientHeight, scrollHeight} = box() ?? {}
    const end = scrollTop > 0 && scrollTop + clientHeight > scrollHeight - 4
    this.yours.replaceChildren(...parts)
    this.yours.hidden = !parts.length
    if (scrollTop && box()) box().scrollTop = end ? box().scrollHeight : scrollTop
  }

  // The pad of the labs, which reads with the network that it has trained
  async draw({accuracy, why, nets, digits}) {
    const right = accuracy === null ? '' : `It reads ${(100*accuracy).toFixed(1)}\u00a0% of the validation images correctly.`
    this.yours.hidden = false                 // also where it printed nothing
    if (why) {
      this.yours.append(make('p', {textContent: `${right} The pad can’t read with this network: ${why}.`}))
      return
    }
    const ask = `Draw a digit for the network that you have just trained. ${right}`
    const lab = make('div', {className: 'lab'})
    lab.dataset.lab = 'descent'
    this.yours.append(lab)
    await mount(lab, {steps: [0], nets, digits, ask, drawn: this.drawn})
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
    this.show([wrong('It needs ', cells.get(k)?.link() ?? 'an earlier cell', `, which says: ${said}`)])
    this.say('✗ not run')
  }

  go() {
    for (let o = this.yours; (o = o.parentElement?.closest('details'));) o.open = true
    this.editor.focus()
  }
}
