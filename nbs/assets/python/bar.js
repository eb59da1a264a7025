// The page's bar: what is loading, what runs, and Stop
import {make} from '../make.js'

const IMAGES = 50_000
const grouped = n => String(n).replace(/\B(?=(\d{3})+$)/g, '\u00a0')
const mega = bytes => (bytes/1e6).toFixed(1)

export class Bar {
  constructor(onstop) {
    this.words = make('span', {role: 'status'})
    this.far = make('progress', {hidden: true})
    this.count = make('span', {className: 'note', ariaHidden: 'true'})
    const stop = make('button', {type: 'button', textContent: 'Stop', onclick: onstop})
    this.room = make('div', {className: 'write running', hidden: true}, this.far, this.words, this.count, stop)
    document.body.append(this.room)
  }

  show(words) {
    clearTimeout(this.due)
    this.failed = false
    this.say(words)
    this.due = setTimeout(() => { this.room.hidden = false }, 300)     // what is quicker needs no bar
  }

  hide() {
    clearTimeout(this.due)
    if (!this.failed) this.room.hidden = true
  }

  // of `what`, a share of so many bytes is there
  load(what, bytes, {loaded, total}) {
    this.go(loaded/total, `Loading ${what}`, `${mega(bytes*loaded/total)} of ${mega(bytes)} MB`)
  }

  // a loop has taken `n` training images; screen readers are told of each epoch
  read = n => {
    const epoch = Math.ceil(n/IMAGES), now = n - IMAGES*(epoch - 1)
    this.go(now/IMAGES, `Epoch ${epoch}`, `${grouped(now)} images`)
  }

  go(share, words, count) {
    this.far.hidden = false
    this.far.value = share
    this.far.ariaLabel = words
    if (this.words.textContent !== words) this.words.textContent = words
    this.count.textContent = count
  }

  // words alone
  say(words) {
    this.far.hidden = true
    this.words.textContent = words
    this.count.textContent = ''
  }

  fail(e) {
    this.say(`✗ ${e.message}`)
    this.failed = true
    this.room.hidden = false
  }
}
