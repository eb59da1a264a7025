// A reader's guess beside what a cell printed: what a text says, which outputs can be guessed, and what is wrong with a guess.
// No sentence on a wrong guess holds the answer. page.js puts the fields on the page.
const SAME = {float: 'float32', double: 'float64', half: 'float16', long: 'int64', int: 'int32', short: 'int16'}   // PyTorch's second names
const COUNT = ['no', 'one', 'two', 'three', 'four', 'five', 'six'], ORDER = ['first', 'second', 'third', 'fourth', 'fifth', 'sixth']
const count = n => COUNT[n] ?? String(n), order = i => ORDER[i] ?? `${i + 1}th`
const many = (n, what) => `${count(n)} ${n === 1 ? what : what === 'axis' ? 'axes' : `${what}s`}`

// One answer: a dtype, a shape (written as torch.Size), a number or numbers. Separators of thousands are dropped: _ and no-break or thin
// spaces, and before 000, which no axis is, also a comma or a space.
export const parse = text => {
  const s = text.trim().replaceAll('−', '-')
    .replace(/(?<=\d)(_|[\u00a0\u2009\u202f](?=\d{3}(?!\d))|[ ,](?=000(?!\d)))(?=\d)/g, '')
  const dtype = /^(?:torch\.)?(b?float\d*|u?int\d*|complex\d+|bool|double|half|long|short)$/i.exec(s)?.[1].toLowerCase()
  if (dtype) return {kind: 'dtype', name: SAME[dtype] ?? dtype}
  const listed = s.replace(/^(torch\.)?size\s*(?=[([])/i, '')
  let bare = listed
  while (/^(\(.*\)|\[.*\])$/s.test(bare)) bare = bare.slice(1, -1).trim()
  const inside = bare.replace(/\s*,$/, ''), parts = bare || bare === listed ? inside.split(/\s*[,;x×*]\s*/i) : []
  if (!parts.every(p => /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(p))) return null
  const kind = listed !== s ? 'shape' : inside !== listed || parts.length !== 1 ? 'numbers' : 'number'
  return {kind, values: parts.map(Number), whole: parts.every(p => /^[+-]?\d+$/.test(p))}
}

// `text` cut at the characters in `marks`, outside brackets and strings; without its comments
const cut = (text, marks) => {
  const parts = ['']
  let depth = 0
  for (const [t] of text.matchAll(/("""|''')[^]*?\1|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*|[^]/g)) {
    if (t[0] === '#') continue
    depth += '([{'.includes(t) - ')]}'.includes(t)
    if (!depth && marks.includes(t)) parts.push('')
    else parts[parts.length - 1] += t
  }
  return parts.filter(p => p.trim())
}

// What a cell printed as a list of {label, answer}, each label its piece of the source; null if it can't be guessed. Of a tuple with
// shapes, what is no answer (a tensor, say) is left out; a list of more than four numbers nobody guesses.
export const answers = (output, source = '') => {
  const line = cut(source, '\n').at(-1) ?? '', last = /^\s/.test(line) ? '' : cut(line, ';').at(-1)?.trim() ?? ''
  const said = cut(last.replace(/^print\((.*)\)$/s, '$1'), ',').map(p => p.trim().replace(/\s+/g, ' '))
  const read = part => parse(part)?.kind === 'dtype' && !part.startsWith('torch.') ? null : parse(part)
  const text = output.trim(), whole = read(text)
  const parts = /^\(.*\)$/s.test(text) ? cut(text.slice(1, -1), ',').map(p => p.trim()) : []
  const each = parts.map(read), named = said.length === parts.length
  if (each.length > 1 && (each.some(a => /shape|dtype/.test(a?.kind)) || whole && named))
    return each.map((answer, i) => ({label: named ? said[i] : `Part ${i + 1}`, answer})).filter(p => p.answer)
  return whole && (whole.kind === 'shape' || !(whole.values?.length > 4)) ? [{label: said.join(', '), answer: whole}] : null
}

// ---- the verdict ----
const sorted = values => [...values].sort((a, b) => a - b)
const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i])
const such = (wanted, ...examples) => `such as ${examples.find(e => JSON.stringify(parse(e).values ?? parse(e).name) !== wanted)}.`
const places = wrong => wrong.map(order).join(', ').replace(/, ([^,]*)$/, ' and $1')

const onShape = (got, want) => {
  const long = values => values.filter(n => n !== 1), more = got.length - want.length, n = Math.abs(more)
  if (more && same(long(got), long(want)))
    return n === 1 ? `An axis of length one is ${more > 0 ? 'too many' : 'missing'}.` : `Axes of length one are ${more > 0 ? 'too many' : 'missing'}.`
  if (more) return `You typed ${many(got.length, 'axis')}; this shape has ${more > 0 ? 'fewer' : 'more'}.`
  if (same(sorted(got), sorted(want))) return 'The right numbers, in the wrong order.'
  const wrong = [...got.keys()].filter(i => got[i] !== want[i]), right = got.length - wrong.length
  if (!right) return `The number of axes is right, ${got.length === 1 ? 'the length is not' : 'but none of the lengths'}.`
  return `${count(right).replace(/^./, c => c.toUpperCase())} of ${many(got.length, 'axis')} ${right === 1 ? 'is' : 'are'} right; look at the ${places(wrong)}.`
}

const onNumber = (got, want, whole) => {
  const times = got*want > 0 ? Math.max(got / want, want / got) : 0, factor = {2: 'two', 4: 'four', 8: 'eight'}[times]
  const tens = Math.log10(times)
  if (got === -want) return 'the sign is wrong.'
  if (factor) return `off by a factor of ${factor}. If you count bytes: how many has one number?`
  if (tens > .5 && Math.abs(tens - Math.round(tens)) < 1e-9) return 'the digits are right, the zeros are not.'
  if (whole && Math.abs(got - want) === 1) return 'off by one.'
  return got > want ? 'too large.' : 'too small.'
}

const onNumbers = (got, want, whole) => {
  if (got.length !== want.length)
    return want.length === 1 ? 'One number is wanted.' : `You typed ${many(got.length, 'number')}; there are ${got.length > want.length ? 'fewer' : 'more'}.`
  const wrong = [...got.keys()].filter(i => whole ? got[i] !== want[i] : !(Math.abs(got[i] - want[i]) <= .01*Math.abs(want[i])))
  if (!wrong.length) return ''
  if (got.length > 1 && same(sorted(got), sorted(want))) return 'The right numbers, in the wrong order.'
  if (wrong.length > 1) return `Look at the ${places(wrong)} numbers.`
  const say = onNumber(got[wrong[0]], want[wrong[0]], whole)
  return got.length > 1 ? `The ${order(wrong[0])} number: ${say}` : say[0].toUpperCase() + say.slice(1)
}

// Is what was typed the answer, and what is to be said of it? Numbers that aren't whole are right to one in a hundred.
export const judge = (typed, answer) => {
  const guess = parse(typed), {kind, values: want, name, whole} = answer, wanted = JSON.stringify(want ?? name)
  const verdict = wrong => ({right: !wrong, say: wrong || 'Right.'})
  if (kind === 'dtype') {
    if (guess?.kind !== 'dtype') return verdict(`Type a dtype ${such(wanted, 'torch.float64', 'torch.int8')}`)
    const family = s => /^[a-z]+/.exec(s)[0], alike = family(guess.name) === family(name)
    return verdict(guess.name === name ? '' : alike ? 'The kind of number is right, its number of bits is not.' : 'This is another kind of number.')
  }
  const got = guess?.values
  if (kind === 'shape') {
    if (!got || !guess.whole || got.some(n => n < 0)) return verdict(`Type a shape ${such(wanted, '(50, 10)', '(3, 4)')}`)
    return verdict(same(got, want) ? '' : onShape(got, want))
  }
  if (!got) return verdict(want.length === 1 ? `Type a number ${such(wanted, '12', '30')}` : `Type numbers ${such(wanted, '(3, 4)', '(5, 6)')}`)
  return verdict(onNumbers(got, want, whole))
}
