// Step through backprop: what does each line compute? It replays a run that Python recorded (debugger.watch): the numbers, shapes
// and pdb's answers are all Python's, and nothing is computed here.
import {LAB, h, set, mark, slider, button, status, fmt, clamp} from './kit.js'

// ---- moving, as pdb does; `run` is the recording, `i` the stop, `stops` the functions at whose first line n and c halt
const fn = (run, i) => run.frames[run.steps[i].frame].function
const source = (run, i) => run.sources[fn(run, i)][run.steps[i].line - 1].trim()
const halts = (run, stops, i) => run.steps[i].event === 'line' && run.steps[i - 1]?.event === 'call' && stops.includes(fn(run, i))
const search = (run, i, wanted) => {
  const end = run.steps.length - 1
  for (let j = i + 1; j < end; j++) if (wanted(j)) return j
  return end
}
// s: one stop further, into a function if one is called
export const step = (run, stops, i) => Math.min(i + 1, run.steps.length - 1)
// n: to the next line of this call, or up to the caller from its end
export const next = (run, stops, i) => run.steps[i].event === 'return' ? step(run, stops, i)
  : search(run, i, j => run.steps[j].frame === run.steps[i].frame || halts(run, stops, j))
// c: on to the next function that has a stop, or to the end
export const goOn = (run, stops, i) => search(run, i, j => halts(run, stops, j))
// The stops at which the calls stand that led to `i`, the outermost first
export const calls = (run, i) => i < 0 ? [] : [...calls(run, run.frames[run.steps[i].frame].caller), i]

// ---- pdb's words
const place = (run, i) => {
  const {line, event, text} = run.steps[i]
  return `…(${line})${fn(run, i)}()${event === 'return' ? '->' + text : ''}\n-> ${source(run, i)}`
}
const EVENT = {call: '--Call--\n', return: '--Return--\n', line: ''}
export const halted = (run, i) => `${EVENT[run.steps[i].event]}> ${place(run, i)}`
export const where = (run, i) => calls(run, i).map(j => (j === i ? '> ' : '  ') + place(run, j)).join('\n')

// What `p` says of NAME, NAME.shape, NAME.g or NAME.g.shape, or of several with commas between; else what can be asked
const one = (run, i, text) => {
  const {names, plain} = run.steps[i], [, name, g, shape] = /^(\w+)(\.g)?(\.shape)?$/.exec(text) ?? []
  if (Object.hasOwn(plain, name) && !g && !shape) return plain[name]
  if (!Object.hasOwn(names, name)) return null
  const value = run.values[names[name][g ? 2 : 1]]
  if (!value) return "*** AttributeError: 'Tensor' object has no attribute 'g'"
  return shape ? `torch.Size([${value.shape.join(', ')}])` : value.text
}
export const ask = (run, i, text) => {
  const answers = text.split(',').map(part => one(run, i, part.trim())), {names, plain} = run.steps[i]
  if (answers.includes(null)) {
    const known = [...Object.keys(names), ...Object.keys(plain)].join(', ')
    return `The recording knows ${known} in ${fn(run, i)}, and each tensor's .shape, .g and .g.shape.`
  }
  return answers.find(a => a.startsWith('***')) ?? (answers.length > 1 ? `(${answers.join(', ')})` : answers[0])
}

// ---- in words
export const tuple = shape => shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`
const and = list => list.length > 1 ? `${list.slice(0, -1).join(', ')} and ${list.at(-1)}` : list.join('')
const short = text => text.replace(/ {3,}#/g, '  #')              // comments stand far to the right
export const bare = text => text.replace(/\s+#.*$/, '').replace(/^try: /, '')
// A name as it is called, with its shape: `l1 (4, 2)`, `l1.g (4, 2)`; of other things the value
const named = (run, i, text) => {
  const {names, plain} = run.steps[i], [name, g] = text.split('.')
  return name in names ? `${text} ${tuple(run.values[names[name][g ? 2 : 1]].shape)}` : `${text} ${plain[text]}`
}
// What the caller calls the tensor `name`; '' if it doesn't
export const alias = (run, i, name) => {
  const {caller} = run.frames[run.steps[i].frame], object = run.steps[i].names[name][0]
  const there = caller < 0 ? {} : run.steps[caller].names
  return Object.keys(there).find(k => there[k][0] === object) ?? ''
}
const given = (run, i) => and(Object.keys(run.steps[i].names).map(name => {
  const outer = alias(run, i, name)
  return (outer && outer !== name ? `${name} is ${outer}, ` : `${name} `) + tuple(run.values[run.steps[i].names[name][1]].shape)
}).map(text => text.replace(/, (\(.*)$/, ' $1')))
// [object, value, gradient] of the tensor that a call returns
const output = (run, i) => Object.values(run.steps[i].result ?? {})[0]
const returned = (run, i) => {
  const {text, frame} = run.steps[i], mine = run.steps.slice(0, i + 1).filter(s => s.frame === frame)
  const grads = [...new Set(mine.flatMap(s => s.set ?? []).filter(k => k.endsWith('.g')))].map(k => named(run, i, k))
  const shape = output(run, i) && run.values[output(run, i)[1]].shape
  const what = !shape ? text : `${shape.length ? 'a tensor of' : 'one number,'} shape ${tuple(shape)}`
  return `${fn(run, i)} returns ${what}.` + (grads.length ? ` Set on the way: ${and(grads)}.` : '')
}
// What the line has done that ran before the stop `i`, or what the call begins with
export const say = (run, i) => {
  const {event, ran, set} = run.steps[i]
  if (event === 'call') return `${fn(run, i)} is called: ${given(run, i)}.`
  if (event === 'return') return returned(run, i)
  if (ran === undefined) return `At the first line of ${fn(run, i)}: ${given(run, i)}.`
  const line = bare(source(run, ran)), reads = run.steps[ran].reads, sets = and(set.map(k => named(run, i, k)))
  const depth = j => run.sources[fn(run, j)][run.steps[j].line - 1].search(/\S/)
  if (line.startsWith('if ') && depth(i) <= depth(ran)) return `${line} no. Nothing is set.`
  if (!set.length) return `${line} sets nothing.`
  if (!/^[\w., ]+ = /.test(line) || !Object.keys(reads).length) return `${line} sets ${sets}.`
  const [, a, b] = /matmul\(([^,]+), (.+)\)$/.exec(line) ?? []
  if (a in reads && b in reads) {
    const out = sets.slice(sets.indexOf(' ') + 1)
    return `${line.replace(/matmul\(.+\)$/, `${a} @ ${b}`)}: ${tuple(reads[a])} @ ${tuple(reads[b])} gives ${out}.`
  }
  const from = Object.entries(reads).map(([k, shape]) => `${k} ${tuple(shape)}`)
  return `${line}: ${and(from)} ${from.length > 1 ? 'give' : 'gives'} ${sets}.`
}

// ---- numbers: as many digits behind the point as the tensor needs, at most four
export const digits = numbers => [0, 1, 2, 3].find(d => numbers.every(x => Math.abs(x - Number(x.toFixed(d))) < 1e-6)) ?? 4
export const cells = ({shape, numbers}) => {
  const d = digits(numbers), width = shape.at(-1) ?? 1, text = numbers.map(x => fmt(x, d))
  return Array.from({length: numbers.length / width}, (_, r) => text.slice(r * width, (r + 1) * width))
}

const render = ({model, el}) => {
  const data = model.get('data'), {run, roots, notes, back} = data, last = run.steps.length - 1
  const stops = [...data.stops], trail = []
  let at = 1, again = 'n', shown = ''
  const phase = i => i < back ? 'forward' : 'backward'

  // the source, with the debugger's arrow
  const stack = h('ol', {class: 'stack', 'aria-label': 'where: the calls that led here'})
  const code = h('div', {class: 'code', tabindex: 0, role: 'group'})
  const showCode = () => {
    if (shown !== fn(run, at)) {
      shown = fn(run, at)
      code.setAttribute('aria-label', `source of ${shown}; keys: n, s, c, w, p, b`)
      code.replaceChildren(h('div', {class: 'lines'}, ...run.sources[shown].map((text, k) => h('div', {class: 'line'},
        h('span', {class: 'arrow', 'aria-hidden': 'true'}), h('span', {class: 'no'}, String(k + 1)), short(text) || ' '))))
    }
    [...code.firstChild.children].forEach((line, k) => {
      const here = k + 1 === run.steps[at].line
      mark(line, 'here', here)
      set(line, {'aria-current': here && 'step'})
      line.firstChild.textContent = here ? '->' : ''
      if (here) code.scrollTop = line.offsetTop - code.clientHeight / 2 + line.clientHeight
    })
    stack.replaceChildren(...calls(run, at).map((j, k, all) => h('li', {'aria-current': k === all.length - 1 && 'true'},
      `${fn(run, j)}, line ${run.steps[j].line}`)))
  }

  // the tensors that have a name here
  const tensors = h('div', {class: 'tensors', role: 'group', 'aria-label': 'the tensors in scope'})
  const numbers = (value, label) => h('table', {'aria-label': label},
    ...cells(value).map(row => h('tr', {}, ...row.map(x => h('td', {class: 'num'}, x)))))
  const block = (name, value, kind, about, tag) => h('div', {class: `block ${kind}${tag ? ' set' : ''}`, 'data-name': name},
    h('div', {class: 'head'},
      h('b', {}, name), h('span', {class: 'num'}, ` ${tuple(value.shape)} `), h('span', {class: 'tag'}, tag)),
    h('div', {class: 'about'}, about), numbers(value, `${name}, ${tuple(value.shape)}`))
  const card = (name, [object, value, g], tag, tagOfG) => {
    const [root, kind] = roots[object] ?? ['', 'activations'], about = ['', name, kind].includes(root) ? kind : `${kind}, ${root}`
    return h('div', {class: 'card'}, block(name, run.values[value], kind, about, tag),
      g < 0 ? '' : block(`${name}.g`, run.values[g], 'gradients', 'gradient', tagOfG))
  }
  const showTensors = () => {
    const {names, set: fresh = []} = run.steps[at], out = output(run, at), tag = name => fresh.includes(name) ? 'just set' : ''
    const cards = Object.entries(names).map(([name, three]) => card(name, three, tag(name), tag(`${name}.g`)))
    tensors.replaceChildren(...cards, ...out ? [card('what it returns', [out[0], out[1], -1], 'returned')] : [])
  }

  // the line of words, the strip, the record of commands
  const words = status(), tell = (text, answer = false) => {
    words.textContent = text
    mark(words, 'answer', answer)
  }
  const why = h('p', {class: 'why'})
  const strip = slider({label: 'step', min: 0, max: last, step: 1, value: at, oninput: i => { go(i) },
                        text: i => `${i + 1} of ${last + 1}, ${phase(i)}`})
  const band = h('div', {class: 'band', 'aria-hidden': 'true', style: `grid-template-columns: ${back}fr ${last + 1 - back}fr`},
    h('span', {}, 'forward'), h('span', {}, 'backward'))
  const log = h('pre', {class: 'log', tabindex: 0, 'aria-label': 'what was typed and answered'})
  const write = (command, answer) => {
    log.append(`${command && `(Pdb) ${command}\n`}${short(answer)}\n`)
    while (log.childNodes.length > 60) log.firstChild.remove()
    log.scrollTop = log.scrollHeight
  }
  const show = () => {
    showCode()
    showTensors()
    const {ran} = run.steps[at]
    tell(say(run, at))
    why.textContent = (run.steps[at].event === 'line' && ran !== undefined && notes[bare(source(run, ran))]) || ''
    strip.show(at)
    band.childNodes.forEach((o, k) => mark(o, 'here', (at >= back) === (k === 1)))
    for (const b of [keys.n, keys.s, keys.c]) b.setAttribute('aria-disabled', String(at === last))
    keys.b.setAttribute('aria-disabled', String(at === 0))
  }
  const go = i => {
    if (i === at) return
    trail.push(at)
    at = clamp(i, 0, last)
    show()
  }

  // commands: each a key, a button and a word at the prompt
  const move = to => key => () => {
    if (at === last) return write(key, 'The program has ended; b leads back.')
    const i = to(run, stops, at)
    write(key, halted(run, i))
    go(i)
  }
  const commands = {
    n: move(next)('n'), s: move(step)('s'), c: move(goOn)('c'),
    w: () => { write('w', where(run, at)); tell(`You are in ${calls(run, at).map(j => fn(run, j)).join(' > ')}.`) },
    b: () => { at = trail.pop() ?? Math.max(0, at - 1); show() },
    p: () => prompt.focus(),
  }
  const LABEL = {b: 'back', n: 'next line', s: 'step into', c: 'continue', w: 'where', p: 'print'}
  const keys = Object.fromEntries(Object.entries(LABEL).map(([key, label]) =>
    [key, button(h('span', {}, h('kbd', {}, key), ` ${label}`), commands[key], {'aria-keyshortcuts': key})]))
  const prompt = h('input', {type: 'text', 'aria-label': 'a command, as p w.g', placeholder: 'p w.g', spellcheck: 'false',
                             autocomplete: 'off', autocapitalize: 'off'})
  const type = text => {
    const command = text.trim() || again, [, asked] = /^(?:p\s+|p$)?(.*)$/.exec(command)
    again = command
    if (Object.hasOwn(commands, command) && command !== 'p') return commands[command]()
    const answer = ask(run, at, asked)
    write(command, answer)
    tell(answer, true)
  }
  const line = h('form', {class: 'prompt', onsubmit: e => { e.preventDefault(); type(prompt.value); prompt.value = '' }},
    h('span', {class: 'num'}, '(Pdb)'), prompt, button('Enter', null, {type: 'submit'}))
  const choose = Object.keys(run.sources).slice(1).map(name => h('label', {}, h('input', {
    type: 'checkbox', checked: stops.includes(name), onchange: e => {
      if (e.target.checked) stops.push(name)
      else stops.splice(stops.indexOf(name), 1)
    }}), ` ${name}`))
  const lab = h('div', {class: 'step', onkeydown: e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return
    if (e.key === 'Escape' && e.target === prompt) return code.focus()
    if (e.target === prompt) return
    const key = {ArrowLeft: 'b', ArrowRight: 'n'}[e.key] ?? e.key
    if (!Object.hasOwn(commands, key) || (e.key.startsWith('Arrow') && e.target.matches('input'))) return
    e.preventDefault()
    e.stopPropagation()
    commands[key]()
  }},
    strip, band,
    h('div', {class: 'step-grid'},
      h('div', {class: 'program'}, stack, code, h('div', {class: 'row keys'}, ...Object.values(keys))),
      h('div', {class: 'said'}, words, why), tensors,
      h('div', {class: 'typed'}, log, line, h('fieldset', {class: 'row'}, h('legend', {}, 'stops: n and c halt in'), ...choose))))
  el.append(h('div', LAB,
    h('p', {class: 'ask'}, 'What does each line compute, and what does it leave behind?'), lab,
    h('p', {class: 'how'},
      'Keys act while the focus is in here: click the code, or press Tab. ← goes back, Esc leaves the field.')))
  write('', halted(run, at))
  show()
  requestAnimationFrame(showCode)                          // it can scroll only once it stands on the page
}
export default {render}
