// The diagram of the labs Flow and Step: three pixels, two hidden units, the output and the loss, with values and gradients.
import {s, set, mark, drawing, fmt} from './kit.js'

// Weight 2j + k leads from pixel j to hidden unit k, weight 6 + k from there to the output
export const EIGHT = [0, 1, 2, 3, 4, 5, 6, 7], UNIT = ['first', 'second']
// The value in front of weight `e`, image by image
export const inFront = ({x, l2}, e) => x.map((row, i) => e < 6 ? row[e >> 1] : l2[i][e - 6])
// A number with as few digits as it has, at most so many behind the point
export const num = (x, most = 2) => fmt(x, [0, 1, 2, 3].find(d => d === most || Math.abs(x - Number(x.toFixed(d))) < 1e-9) ?? most)
// A node's text, if it is another: or it would be read aloud again
export const write = (node, text) => { if (node.textContent !== text) node.textContent = text }

// A word in a drawing
export const text = (kind, attrs, ...words) => s('text', {class: kind, 'text-anchor': 'middle', stroke: 'none', ...attrs}, ...words)

// The drawing `pic`, its `chips` (the weights), `edges` and `cells`, by the names of the tensors
export const diagram = () => {
  let G
  // cells, each with a value and its gradient, image by image; edges, and on them the weights
  const cell = kind => {
    const rect = s('rect', {rx: 4, class: 'cell'}), v = text('value'), g = text('gradients')
    return {rect, v, g, all: s('g', {class: kind}, rect, v, g)}
  }
  const cells = (kind, n = 2) => [cell, cell].slice(0, n).map(f => f(kind))
  const pixels = [0, 1, 2].map(() => cells('inputs')), hidden = UNIT.map(() => [cells('activations'), cells('activations')])
  const out = cells('activations'), target = cells('inputs'), loss = cells('loss', 1)
  const lists = [...pixels, ...hidden.flat(), out, target], gates = UNIT.map(() => [s('path'), s('path')])
  const tags = ['pixel 1', 'pixel 2', 'pixel 3', 'y', 'l1', 'relu', 'l2', 'out', 'loss'].map(o => text('tick', {}, o))
  const edges = [...EIGHT, 8, 9].map(() => ({                         // the ninth leads from out to the loss, the tenth from y
    thick: s('line', {class: 'thick'}), thin: s('line'), hit: s('line', {class: 'hit'}), dot: s('circle', {fill: 'currentColor'})}))
  const chips = EIGHT.map(() => {
    const v = text('weights', {y: -2, 'font-weight': 600}), g = text('gradients', {y: 14})
    const touch = s('rect', {x: -24, y: -23, width: 48, height: 46, fill: 'transparent', stroke: 'none'})
    const face = s('rect', {class: 'face', x: -23, y: -19, width: 46, height: 38, rx: 6, stroke: 'var(--rule)'})
    return {v, g, el: s('g', {class: 'chip'}, touch, face, v, g)}
  })
  const pic = drawing(600, 346, 'Three pixels, two hidden units, the output and the loss', edges.flatMap(o => [o.thick, o.thin]),
    edges.slice(0, 8).map(o => o.hit), edges.map(o => o.dot), [...lists, loss].flat().map(c => c.all), gates.flat(), tags,
    chips.map(c => c.el))
  // Where all stands; a unit is a pixel. at(a, c) is `a` along the flow and `c` across it: to the right, on a phone downwards
  const place = width => {
    const lean = width < 540, at = (a, c) => lean ? [width / 2 + c, a] : [a, 184 + c]
    const [P, d, pixel, unit, o, end, long, rim, side] = lean ? [(width - 52) / 2, (width - 52) / 5.35, 46, 218, 374, 446, 36, 22, 26]
      : [134, 48, 32, .46 * width, .77 * width, width - 32, 52, 26, 22]
    const share = 1 - 2 * d / P, H = d / 2 / share, deep = long + (lean ? 8 : 10), mid = deep - long / 2, ps = [-P, 0, P], us = [-H, H]
    const ends = e => e < 6 ? [at(pixel + rim, ps[e >> 1]), at(unit - deep, us[e & 1])]
      : e < 8 ? [at(unit + deep, us[e - 6]), at(o - long / 2, 0)]
      : e < 9 ? [at(o + long / 2, 0), at(end - rim, 0)] : [at(end, 96 - side), at(end, side)]
    G = {lean, unit: (k, stage, off) => at(unit + stage * mid, us[k] + off), out: off => at(o, off), loss: at(end, 0),
         boxes: [...ps.map(c => at(pixel, c)), at(end, 96)], ends: edges.map((_, e) => ends(e))}
    set(pic, {viewBox: `0 0 ${width} ${lean ? 472 : 346}`})
    const above = [0, -28], aside = [-42, 5], names = [
      ...G.boxes.map((p, i) => [p, lean || i < 3 ? above : aside]), ...[-1, 0, 1].map(i => [at(unit + i * mid, 0), [0, 5]]),
      [at(o, 0), lean ? [-72, 5] : [0, -42]], [G.loss, lean ? [-48, 5] : above]]
    names.forEach(([[x, y], [dx, dy]], i) => set(tags[i], {x: x + dx, y: y + dy}))
    edges.forEach(({hit, thin}, e) => {
      const [[x1, y1], [x2, y2]] = G.ends[e], f = e < 6 ? share : .5
      for (const o of [hit, thin]) set(o, {x1, y1, x2, y2})
      if (e < 8) set(chips[e].el, {transform: `translate(${x1 + f * (x2 - x1)},${y1 + f * (y2 - y1)})`})
    })
  }
  const fill = (c, [x, y], value, g, width = 52, height = 36) => {
    set(c.rect, {x: x - width / 2, y: y - height / 2, width, height})
    set(c.v, {x, y: y + (g == null ? 5 : -1)})
    set(c.g, {x, y: y + 14})
    write(c.v, value)
    write(c.g, g ?? '')
  }
  const showCells = (pass, got) => {
    const {x, y, l1, l2} = pass, n = x.length, get = (part, ...at) => got(part) < 1 ? '' : num(at.reduce((v, i) => v[i], pass[part]))
    for (const list of [...lists, ...gates]) set(list[1].all ?? list[1], {display: n < 2 && 'none'})
    for (let i = 0; i < n; i++) {
      const off = i - (n - 1) / 2, shift = off * (G.lean ? 52 : 36);
      [...x[i], y[i]].forEach((v, j) => {
        const c = [...pixels, target][j][i], [px, py] = G.boxes[j]
        if (G.lean) fill(c, [px + off * 52 / n, py], num(v), null, 52 / n, 44)
        else fill(c, [px, py + off * 44 / n], num(v), null, 52, 44 / n)
        if (j < 3) set(c.rect, {style: `fill-opacity: ${.03 + .4 * v}`})                    // its ink
      })
      UNIT.forEach((_, k) => {
        const open = l1[i][k] > 0, [before, after] = hidden[k], spot = stage => G.unit(k, stage, shift)
        fill(before[i], spot(-1), get('l1', i, k), get('l1G', i, k))
        fill(after[i], spot(1), get('l2', i, k), get('l2G', i, k))
        mark(after[i].all, 'shut', got('l2') === 1 && !open)
        set(gates[k][i], {transform: `translate(${spot(0)}) rotate(${G.lean ? 90 : 0})`, d: open ? 'M-8,0H7M1,-6L8,0L1,6' : 'M0,-16V16',
                          class: open ? 'gate activations' : 'gate closed bad', visibility: got('l2') < 1 && 'hidden'})
      })
      fill(out[i], G.out(shift), get('out', i), get('outG', i))
    }
    fill(loss[0], G.loss, get('loss'), got('lossG') ? '1' : '', 52, 44)
  }
  const showEdges = (pass, got, {chosen, front, behind}) => {
    edges.forEach(({thick, thin, dot}, k) => {
      const [[x1, y1], [x2, y2]] = G.ends[k]
      const [there, mine, home] = k < 6 ? ['l1', 'w1G', 'inpG'] : k < 8 ? ['out', 'w2G', 'l2G'] : ['loss', 'outG', 'outG']
      const g = Math.abs(k < 8 ? pass.g[k] : k < 9 ? pass.outG.reduce((sum, v) => sum + Math.abs(v), 0) : 0)
      const value = k < 8 ? Math.max(...inFront(pass, k).map(v => Math.abs(v * pass.w[k]))) : 1
      const come = got(there), gone = got(mine), back = got(home), f = back ? 1 - back : come
      set(thick, {x1: x2 + gone * (x1 - x2), y1: y2 + gone * (y1 - y2), x2, y2, 'stroke-width': Math.min(26, 2.4 * g),
                  visibility: !(gone && g) && 'hidden'})
      set(thin, {class: `thin ${come === 1 ? 'reached' : ''} ${chosen.includes(k) ? 'chosen' : ''}`, 'stroke-dasharray': !value && '3 5'})
      set(dot, {cx: x1 + f * (x2 - x1), cy: y1 + f * (y2 - y1), r: 3 + 2 * Math.sqrt(Math.min(9, back ? g : value)),
                class: back ? 'gradients' : 'activations', visibility: !(f > 0 && f < 1 && (!back || k < 9)) && 'hidden'})
    })
    chips.forEach(({el, v, g}, k) => {
      write(v, num(pass.w[k]))
      write(g, got(k < 6 ? 'w1G' : 'w2G') === 1 ? num(pass.g[k]) : '')
      mark(el, 'chosen', chosen.includes(k))
    })
    for (const c of [...lists, loss].flat()) {
      mark(c.all, 'front', front.flat().includes(c))
      mark(c.all, 'behind', behind.flat().includes(c))
    }
  }
  place(600)
  let room = 0
  return {
    pic, chips, edges, cells: {inp: pixels, l1: hidden.map(o => o[0]), l2: hidden.map(o => o[1]), out: [out], loss: [loss]},
    // Draw a pass {x, y, w, l1, l2, out, loss, outG, l2G, l1G, g}; got(part) from 0 to 1: how far this part of it has come;
    // `chosen` weights, and the cells in front of and behind something, are marked
    show: (pass, got, {chosen = [], front = [], behind = []}) => {
      showCells(pass, got)
      showEdges(pass, got, {chosen, front, behind})
    },
    // As wide as `el`, also later; `redraw` then
    follow: (el, redraw) => {
      const fit = width => { if (width && width !== room) { place(room = width); redraw() } }
      new ResizeObserver(([entry]) => fit(Math.round(entry.contentRect.width))).observe(el)
      fit(el.clientWidth)
    },
  }
}
