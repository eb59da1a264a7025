// Which exercises are solved, as a code that goes between these pages and Jupyter, where `progress` gives and takes it: bp13-, a bit for
// each of the exercises in the order of their names as a hexadecimal number, and a sum over the names that are meant. No secret: it finds slips.
const sum = names => [...names.join(' ')].reduce((n, c) => (31*n + c.charCodeAt()) % 65521, 0).toString(16).padStart(4, '0')

export const written = (solved, all) => {
  const names = [...all].sort(), mine = names.filter(o => solved.includes(o))
  return `bp13-${mine.reduce((bits, o) => bits | 1n << BigInt(names.indexOf(o)), 0n).toString(16)}-${sum(mine)}`
}

// {names}, or {wrong: a sentence}
export const read = (text, all) => {
  const m = /bp13-([0-9a-f]+)-([0-9a-f]{4})(?![0-9a-f])/.exec(text.toLowerCase()), names = [...all].sort()
  const got = text.trim().length > 40 ? `${text.trim().slice(0, 40)}…` : text.trim()
  if (!m) return {wrong: `Got ${got ? `“${got}”` : 'nothing'}, wanted a code such as ${written(names.slice(0, 1), all)}; progress() in Jupyter prints yours.`}
  const bits = BigInt(`0x${m[1]}`), most = names.length, last = bits.toString(2).length
  if (last > most) return {wrong: `Got ${m[0]}, which speaks of exercise ${last}, wanted one of ${most} exercises; copy the code once more, whole, or reload this page.`}
  const mine = names.filter((_, i) => bits >> BigInt(i) & 1n)
  if (sum(mine) !== m[2]) return {wrong: `Got ${m[0]}, wanted a code whose end fits its middle; copy it once more, whole. If it stays so, Jupyter and this page have different exercises: update backprop13 there.`}
  return {names: mine}
}
