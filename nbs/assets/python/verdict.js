// What a check says, as elements: what is wrong first, how to see it, what was printed; what holds is folded
import {make} from '../make.js'

const row = (innerHTML, className = '') => make('p', {innerHTML, className})       // of Python's own: no more than code and bold
const block = text => make('pre', {}, make('code', {textContent: text}))

export const verdict = ({ok, property, title, message, lines, out = []}) => {
  const holds = lines.filter(o => o.startsWith('✓'))
  // where nothing is written yet, what to look at is for Jupyter: to run two cells
  const rows = lines.filter(o => !o.startsWith('✓') && !(property === 'empty' && o.startsWith('Look:'))).map(o => row(o))
  const parts = []
  for (const p of rows) {
    const code = p.childNodes.length === 1 && p.firstChild.localName === 'code' && p.textContent     // a line of a block
    if (!code) parts.push(p)
    else if (parts.at(-1)?.localName === 'pre') parts.at(-1).firstChild.append('\n', code)
    else parts.push(block(code))
    if (p.textContent.startsWith('✗')) p.className = 'wrong'
  }
  const notebook = document.querySelector('.actions a[download]')?.cloneNode(true)
  if (message.includes('is not in the page') && notebook) parts.push(make('p', {}, notebook, ': Jupyter has all of PyTorch.'))
  const printed = out.filter(o => o.kind === 'text').map(o => o.data).join('')
  if (printed.trim()) parts.push(row('Your code prints:'), block(printed.trimEnd()))
  if (holds.length) parts.push(make('details', {}, make('summary', {textContent: `${holds.length} trial${holds.length > 1 ? 's hold' : ' holds'}`}), ...holds.map(o => row(o))))
  return ok ? [row(`✓ ${title}`, 'right'), ...parts] : parts
}

// the line of the reader's code that it names, or 0
export const lineOf = ({message}) => Number(/, in line (\d+) of its cell/.exec(message)?.[1] ?? 0)
