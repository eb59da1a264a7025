// Step through backprop: what does each line compute? It replays a run that Python recorded (debugger.watch): the numbers, shapes
// and pdb's answers are all Python's, and nothing is computed here.
import {LAB, h, set, mark, slider, button, status, fmt, clamp} from './kit.js'
import {EIGHT, write, diagram} from './diagram.js'

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
// The stop at which the line that ran from `i` has left what it set
const after = (run, i) => run.steps.find(o => o.ran === i)
// A line teaches if it makes or returns a tensor, or a gradient; checks and the ends of calls don't
export const teaches = (run, i) => {
  const {event, reads} = run.steps[i], {set: made = [], names, result = {}} = after(run, i) ?? {}
  return event === 'line' && Object.keys(reads).length > 0 &&
    (made.some(k => Object.hasOwn(names, k.split('.')[0])) || Object.keys(result).length > 0)
}
// The move of a key, on past what teaches nothing; at most to the last line that teaches
const MOVES = {n: next, s: step, c: goOn}
export const lesson = (run, stops, i, key) => {
  const from = i
  do i = MOVES[key](run, stops, i)
  while (i < run.steps.length - 1 && !teaches(run, i))
  return teaches(run, i) ? i : Math.max(from, run.steps.findLastIndex((_, k) => teaches(run, k)))
}

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
  return (outer && outer !== name ? `${name} is ${outer} ` : `${name} `) + tuple(run.values[run.steps[i].names[name][1]].shape)
}))
// The line of this call that ran before the stop `i`, and teaches; -1 if there is none
export const before = (run, i) => {
  const k = run.steps[i].ran ?? -1
  return k < 0 || teaches(run, k) ? k : before(run, k)
}
// What that line has done, or what the call begins with
export const say = (run, i) => {
  const ran = before(run, i)
  if (ran < 0) return `At the first line of ${fn(run, i)}: ${given(run, i)}.`
  const {reads} = run.steps[ran], j = run.steps.indexOf(after(run, ran))
  const line = bare(source(run, ran)), sets = and(run.steps[j].set.map(k => named(run, j, k)))
  if (!/^[\w., ]+ = /.test(line)) return `${line} sets ${sets}.`
  const [, a, b] = /matmul\(([^,]+), (.+)\)$/.exec(line) ?? []
  if (a in reads && b in reads) {
    const out = sets.slice(sets.indexOf(' ') + 1)
    return `${line.replace(/matmul\(.+\)$/, `${a} @ ${b}`)}: ${tuple(reads[a])} @ ${tuple(reads[b])} gives ${out}.`
  }
  const from = Object.entries(reads).map(([k, shape]) => `${k} ${tuple(shape)}`)
  return `${line}: ${and(from)} ${from.length > 1 ? 'give' : 'gives'} ${sets}.`
}

// ---- the tensors of the first function, which `roots` names: {object: [name, kind]}
// What there is at the stop `i`: {l1: a value, 'l1.g': a value}, numbers of run.values
export const state = (run, roots, i) => {
  const now = {}
  for (const {names, result = {}} of run.steps.slice(0, i + 1)) {
    for (const [object, value, g] of [...Object.values(names), ...Object.values(result)]) {
      const [name] = roots[object] ?? []
      if (name) now[name] = value
      if (name && g >= 0) now[`${name}.g`] = g
    }
  }
  return now
}
// Their names, in the order in which its lines use them
export const order = (run, roots) => {
  const lines = run.steps.flatMap((o, i) => o.frame === 0 && teaches(run, i) ? [...Object.keys(o.reads), ...after(run, i).set ?? []] : [])
  const known = Object.values(roots).map(([name]) => name)
  return [...new Set([...lines.map(k => k.split('.')[0]), ...known])].filter(k => known.includes(k))
}
// The pass that the diagram draws, from what Python computed; null if this is another network
export const drawn = (run, now) => {
  const get = k => run.values[now[k]] ?? {shape: [], numbers: []}, rows = k => {
    const {shape: [n, m], numbers} = get(k)
    return Array.from({length: n}, (_, i) => numbers.slice(i * m, (i + 1) * m))
  }
  const [n] = get('inp').shape, shapes = ['inp', 'w1', 'w2', 'out'].map(k => get(k).shape.join())
  if (!(n <= 2) || shapes.join(' ') !== `${n},3 3,2 2,1 ${n},1`) return null
  const both = g => [...get(`w1${g}`).numbers, ...get(`w2${g}`).numbers]
  return {x: rows('inp'), y: get('targ').numbers, w: both(''), g: both('.g'), l1: rows('l1'), l2: rows('l2'), out: get('out').numbers,
          loss: get('loss').numbers[0], l1G: rows('l1.g'), l2G: rows('l2.g'), outG: get('out.g').numbers}
}

// ---- code: of a function its head, and the lines that teach: [[number, text], ...]
export const excerpt = (run, name) => {
  const all = run.sources[name], end = all.findIndex(o => o.startsWith(')'))
  const head = end < 0 ? all[0] : all[0] + all.slice(1, end).map(o => o.trim().split(':')[0]).join(', ') + '):'
  const lines = new Set(run.steps.flatMap((o, i) => fn(run, i) === name && teaches(run, i) ? [o.line] : []))
  return [[1, head], ...[...lines].sort((a, b) => a - b).map(k => [k, all[k - 1]])]
}

// ---- numbers: as many digits behind the point as the tensor needs, at most four
export const digits = numbers => [0, 1, 2, 3].find(d => numbers.every(x => Math.abs(x - Number(x.toFixed(d))) < 1e-6)) ?? 4
export const cells = ({shape, numbers}) => {
  const d = digits(numbers), width = shape.at(-1) ?? 1, text = numbers.map(x => fmt(x, d))
  return Array.from({length: numbers.length / width}, (_, r) => text.slice(r * width, (r + 1) * width))
}
// As a block of text, its columns under one another
const block = value => {
  const rows = cells(value), wide = Math.max(...rows.flat().map(o => o.length))
  return rows.map(row => row.map(o => o.padStart(wide)).join(' ')).join('\n')
}

const PACE = 700                                          // milliseconds that the diagram takes to move
const render = ({model, el}) => {
  const {run, roots, notes, back, stops} = model.get('data'), calm = matchMedia('(prefers-reduced-motion: reduce)')
  const lines = run.steps.flatMap((_, i) => teaches(run, i) ? [i] : []), last = lines.at(-1), trail = []
  const all = state(run, roots, run.steps.length - 1), pass = drawn(run, all)
  let at = lines[0], again = 'n', moving = null, seen

  // the code of the calls that led here, with the debugger's arrow
  const code = h('div', {class: 'code', tabindex: 0, role: 'group', 'aria-label': 'the code; keys: n, s, c, b, p'})
  const rows = Object.keys(run.sources).map(name => excerpt(run, name).length)
  set(code, {style: `--rows: ${rows[0] + Math.max(0, ...rows.slice(1)) + 1}`})
  const showCode = () => code.replaceChildren(...calls(run, at).map((j, depth, stack) => {
    const name = fn(run, j), part = excerpt(run, name)
    return h('div', {class: 'lines', role: 'group', 'aria-label': name}, part.map(([k, words], n) => {
      const [, body, comment = ''] = /^(.*?)(?:\s+(#.*))?$/.exec(words)
      const here = k === run.steps[j].line && n > 0, inner = depth === stack.length - 1
      const stop = n === 1 && stops.includes(name) && !here
      return h('div', {class: `line ${here ? inner ? 'here' : 'calling' : ''} ${n && k > part[n - 1][0] + 1 ? 'gap' : ''}`,
                       'aria-current': here && inner && 'step'},
        h('span', {class: `arrow ${stop ? 'bad' : ''}`, 'aria-label': stop && 'a stop', role: stop && 'img'},
          here ? inner ? '->' : '>' : stop ? '●' : ''),
        h('span', {class: 'no'}, String(k)), h('span', {class: 'body'}, body.replace(/^ {4}/, '  ')),
        h('span', {class: 'comment'}, comment))
    }))
  }))

  // the tensors, each in its place from the first stop on
  const cell = k => h('td', {class: 'num', 'data-name': k})
  const kept = order(run, roots).map(name => {
    const kind = Object.values(roots).find(o => o[0] === name)[1], here = h('td', {class: 'num'}), v = cell(name), g = cell(`${name}.g`)
    const {shape} = run.values[all[name]]
    return {name, here, v, g, size: cells(run.values[all[name]]).length,
            tr: h('tr', {class: kind}, h('th', {scope: 'row', class: 'num'}, name), here, h('td', {class: 'num'}, tuple(shape)), v, g)}
  })
  const local = {here: h('td', {class: 'num'}), shape: h('td', {class: 'num'}), v: cell('here')}
  const high = list => list.reduce((sum, o) => sum + o.size, 0)
  const half = kept.findIndex((_, k) => 2 * high(kept.slice(0, k + 1)) > high(kept))
  const heads = () => ['here', 'shape', 'value', '.g'].map(o => h('th', {scope: 'col'}, o))
  const table = rows => h('table', {}, h('thead', {}, h('tr', {}, h('td'), heads())), h('tbody', {}, rows))
  const tensors = h('div', {class: 'tensors', role: 'group', 'aria-label': 'the tensors'}, table(kept.slice(0, half).map(o => o.tr)),
    table([...kept.slice(half).map(o => o.tr), h('tr', {class: 'activations local'}, h('td'), local.here, local.shape, local.v, h('td'))]))
  const put = (td, value, final, fresh) => {
    write(td, block(run.values[value ?? final] ?? {shape: [1], numbers: [0]}))
    mark(td, 'unknown', value === undefined)
    mark(td, 'set', fresh)
  }
  const showTensors = (now, fresh) => {
    const {names} = run.steps[at], inside = run.steps[at].frame > 0, known = Object.entries(names)
    for (const {name, here, v, g} of kept) {
      write(here, inside ? known.filter(([, [o]]) => roots[o]?.[0] === name).map(([k]) => k).join(' ') : '')
      put(v, now[name], all[name], fresh.has(name))
      put(g, now[`${name}.g`], all[`${name}.g`], fresh.has(`${name}.g`))
    }
    const [name, [, value]] = known.find(([, [o]]) => !roots[o]) ?? ['', []]
    write(local.here, name)
    write(local.shape, name && tuple(run.values[value].shape))
    put(local.v, value, undefined, name)
  }

  // the diagram, on which moves what is new
  const net = pass && diagram()
  const draw = (now, fresh, f) => {
    const got = part => { const k = part.replace(/G$/, '.g'); return now[k] === undefined ? 0 : fresh.has(k) ? f : 1 }
    const news = g => Object.keys(net.cells).filter(k => k !== 'inp' && fresh.has(k + g)).map(k => net.cells[k].flat())
    net.show(pass, got, {front: news(''), behind: news('.g'), chosen: EIGHT.filter(k => fresh.has(k < 6 ? 'w1.g' : 'w2.g'))})
  }
  const showNet = (now, fresh) => {
    const mine = moving = {}, begin = performance.now()
    const tick = time => {
      if (moving !== mine) return
      const f = calm.matches ? 1 : clamp((time - begin) / PACE, 0, 1)
      draw(now, fresh, f)
      if (f < 1) requestAnimationFrame(tick)
    }
    tick(begin)
  }

  // the line of words, the strip
  const words = status(), why = h('p', {class: 'why'}), tell = (text, answer = false) => {
    words.textContent = text
    why.textContent = ''
    mark(words, 'answer', answer)
  }
  const strip = slider({label: 'step', min: 0, max: lines.length - 1, step: 1, value: 0, oninput: k => go(lines[k]),
                        text: k => `${k + 1} of ${lines.length}, ${lines[k] < back ? 'forward' : 'backward'}`})
  const show = () => {
    const k = lines.indexOf(at), was = trail.at(-1) < at ? trail.at(-1) : lines[k - 1] ?? at
    const now = state(run, roots, at), old = state(run, roots, was), fresh = new Set(Object.keys(now).filter(o => now[o] !== old[o]))
    showCode()
    showTensors(now, fresh)
    seen = [now, fresh]
    if (net) showNet(...seen)
    tell(say(run, at))
    why.textContent = notes[bare(source(run, Math.max(0, before(run, at))))] ?? ''
    strip.show(k)
    for (const b of [keys.n, keys.s, keys.c]) b.setAttribute('aria-disabled', String(at === last))
  }
  const go = i => {
    if (i === at) return
    trail.push(at)
    at = i
    show()
  }

  // commands: each a key, a button and a word at the prompt
  const move = key => () => go(lesson(run, stops, at, key)), by = n => () => go(lines[clamp(lines.indexOf(at) + n, 0, lines.length - 1)])
  const commands = {
    b: () => { at = trail.pop() ?? lines[Math.max(0, lines.indexOf(at) - 1)]; show() },
    n: move('n'), s: move('s'), c: move('c'), p: () => prompt.focus(),
    Home: () => go(lines[0]), End: () => go(last), PageUp: by(5), PageDown: by(-5),
  }
  const LABEL = {b: 'back', n: 'next line', s: 'step into', c: 'continue'}
  const keys = Object.fromEntries(Object.entries(LABEL).map(([key, label]) =>
    [key, button([h('kbd', {}, key), ` ${label}`], commands[key], {'aria-keyshortcuts': key})]))
  const prompt = h('input', {type: 'text', 'aria-label': 'a command, as p w.g', placeholder: 'p w.g', spellcheck: 'false',
                             autocomplete: 'off', autocapitalize: 'off'})
  const type = words => {
    const command = words.trim() || again, [, asked] = /^(?:p\s+|p$)?(.*)$/.exec(command)
    again = command
    if (Object.hasOwn(LABEL, command)) return commands[command]()
    tell(ask(run, at, asked), true)
  }
  const typed = h('form', {class: 'prompt', onsubmit: e => { e.preventDefault(); type(prompt.value); prompt.value = '' }},
    h('span', {class: 'num'}, '(Pdb)'), prompt, button('Enter', null, {type: 'submit'}))
  const lab = h('div', {class: 'step', onkeydown: e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return
    if (e.key === 'Escape' && e.target === prompt) return code.focus()
    if (e.target === prompt) return
    const key = {ArrowLeft: 'b', ArrowRight: 'n'}[e.key] ?? e.key
    if (!Object.hasOwn(commands, key) || (e.key.length > 1 && e.target.matches('input'))) return
    e.preventDefault()
    e.stopPropagation()
    commands[key]()
  }},
    h('div', {class: 'row top'}, h('p', {class: 'ask'}, 'What does each line compute, and what does it leave behind?'), strip),
    h('div', {class: `step-grid ${net ? '' : 'plain'}`}, code, h('div', {class: 'row keys'}, Object.values(keys)),
      net && h('div', {class: 'flow'}, net.pic), h('div', {class: 'said'}, words, why), typed, tensors))
  el.append(h('div', LAB, lab, h('p', {class: 'how'}, 'The line at -> runs next; a frame marks what has just been computed. ' +
    'n halts at ●, too. A dotted line: lines left out. Keys act while the focus is in here; Esc leaves the field.' +
    (net ? ' Biases are not drawn.' : ''))))
  show()
  if (net) net.follow(net.pic.parentNode, () => draw(...seen, 1))
}
export default {render}
