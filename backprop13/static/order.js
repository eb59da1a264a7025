// Order: which node goes on next in a backward pass? One that goes on before all of its shares have arrived passes on the wrong number.
import {LAB, h, s, set, mark, drawing, button, status, fmt} from './kit.js'

const num = x => fmt(x, Number.isInteger(x) ? 0 : 2)

// For each node the shares of its gradient, one for each of its uses, when the nodes in `order` have gone on, each with what it had by then:
// {from, slope, share}, with null for a share that hasn't arrived. The last node is where the gradient of 1 starts.
export const passed = (nodes, order) => {
  const got = nodes.map((_, i) => nodes.flatMap(({made_of}, from) =>
    made_of.filter(([part]) => part === i).map(([, slope]) => ({from, slope, share: null}))).reverse())
  got.at(-1).push({from: null, share: 1})
  for (const i of order) {
    const g = total(got[i])
    for (const use of got.flat()) if (use.from === i) use.share = g * use.slope
  }
  return got
}
export const total = shares => shares.reduce((sum, {share}) => sum + share, 0)
export const missing = shares => shares.filter(({share}) => share === null)

const list = names => names.length > 1 ? `${names.slice(0, -1).join(', ')} and ${names.at(-1)}` : names[0]
// What is to be said when node `i` is chosen after those in `order`
export const say = (nodes, order, i) => {
  const {name, made_of, g} = nodes[i], shares = passed(nodes, order)[i], late = missing(shares)
  if (order.includes(i)) return `${name} has gone on already.`
  if (late.length) {
    const from = list([...new Set(late.map(o => nodes[o.from].name))]), now = total(shares), [part, slope] = made_of[0] ?? []
    return `Too early. ${name} has ${num(now)} of ${num(g)}: ${late.length > 1 ? `${late.length} shares` : 'a share'} from ${from} `
      + (late.length > 1 ? 'are missing.' : 'is missing.')
      + (made_of.length ? ` ${nodes[part].name} would get ${num(now)} × ${num(slope)} = ${num(now * slope)} from it; ${num(g * slope)} is right.` : '')
  }
  if (!made_of.length) return `${name} was made of nothing: its gradient, ${num(g)}, stays here.`
  return `${name} goes on with ${num(g)}: ${list(made_of.map(([p, slope]) => `${num(g * slope)} to ${nodes[p].name}`))}.`
}

const WIDTH = 320, [BOX, TALL] = [128, 52]
const render = ({model, el}) => {
  const {nodes} = model.get('data'), inner = nodes.flatMap((n, i) => n.made_of.length ? [i] : [])
  let order = [], early = null
  const words = status(), so = h('p', {class: 'how'})
  const lines = nodes.flatMap(({made_of, x, y}, from) => made_of.map(([part, slope], k) => {
    const same = made_of.filter(([p]) => p === part), bend = same.length > 1 ? 52 * (k % 2 - .5) : 0
    const p = nodes[part], length = Math.hypot(x - p.x, y - p.y), mid = [(x + p.x) / 2 + bend * (y - p.y) / length, (y + p.y) / 2 - bend * (x - p.x) / length]
    const path = s('path', {class: 'edge', d: `M${x},${y}Q${2 * mid[0] - (x + p.x) / 2},${2 * mid[1] - (y + p.y) / 2} ${p.x},${p.y}`})
    const text = s('text', {class: 'edge', x: mid[0], y: mid[1] + 5})
    return {from, part, slope, path, text}
  }))
  const boxes = nodes.map(({name, text, kind, x, y}, i) => {
    const g = s('text', {class: 'g', x, y: y + 17})
    const box = s('g', {role: 'button', tabindex: 0, class: `node ${kind}`, onclick: () => choose(i), onkeydown: e => {
      if (![' ', 'Enter'].includes(e.key)) return
      e.preventDefault()
      choose(i)
    }}, s('rect', {x: x - BOX / 2, y: y - TALL / 2, width: BOX, height: TALL, rx: 8}), s('text', {x, y: y - 5}, text), g)
    return {box, g}
  })
  const show = () => {
    const got = passed(nodes, order)
    boxes.forEach(({box, g}, i) => {
      const parts = got[i].map(({share}) => share === null ? '?' : num(share)), sum = parts.join(' + ')
      g.textContent = `g = ${sum}${missing(got[i]).length || parts.length < 2 ? '' : ` = ${num(total(got[i]))}`}`
      mark(box, 'gone', order.includes(i))
      mark(box, 'early', early === i)
      set(box, {'aria-label': `${nodes[i].text}, ${g.textContent.replaceAll('?', 'missing')}${order.includes(i) ? ', has gone on' : ''}`})
    })
    for (const {from, part, slope, path, text} of lines) {
      const gone = order.includes(from)
      text.textContent = `${gone ? `${num(total(got[from]))} ` : ''}× ${num(slope)}`
      for (const o of [path, text]) mark(o, 'gone', gone)
      mark(path, 'early', early === part && !gone)
    }
    so.textContent = order.length ? `In order: ${order.map(i => nodes[i].name).join(', ')}` : 'Begin at the end.'
  }
  const choose = i => {
    words.textContent = say(nodes, order, i)
    early = !order.includes(i) && missing(passed(nodes, order)[i]).length ? i : null
    if (early === null && inner.includes(i) && !order.includes(i)) order.push(i)
    if (order.length === inner.length && early === null)
      words.textContent += ` All have gone on: ${list(nodes.filter(n => !n.made_of.length).map(n => `${n.name} has ${num(n.g)}`))}, as the library says.`
    show()
  }
  const again = () => { order = []; early = null; words.textContent = ''; show() }
  const height = Math.max(...nodes.map(n => n.y)) + TALL / 2 + 2
  el.append(h('div', LAB,
    h('p', {class: 'ask'}, 'Who may go on next? Go backward through the graph, a node at a time.'),
    h('div', {class: 'order columns'},
      drawing(WIDTH, height, 'A graph: values are made from the top down, gradients go up', ...lines.map(o => o.path), ...boxes.map(o => o.box), ...lines.map(o => o.text)),
      h('div', {}, so, words, button('Start again', again))),
    h('p', {class: 'how'}, (matchMedia('(pointer: coarse)').matches ? 'Tap a node.' : 'Click a node, or press Tab and Enter.') +
      ' On each line stands its derivative, in each node the shares of its gradient.')))
  show()
}
export default {render}
