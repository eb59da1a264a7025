// A chapter in pieces, live cells and what they need of the others, as cells.json has it (tools/cells.py):
// {start, pieces: [{code, makes, needs, id, cell, stored, whole}], digits}. A cell that is `whole` needs all images.
export const chapter = {start: '', pieces: [], digits: null}
export const cells = new Map()                      // number of a piece -> its cell in the page

export const text = i => cells.get(i)?.code ?? chapter.pieces[i].code
export const edited = i => text(i) !== chapter.pieces[i].code

// The pieces that piece `i` needs, in order. An edited cell may name more than the stored one: what it names is wanted,
// too, as it was made and changed before
export const needs = i => {
  const {pieces} = chapter, found = new Set(pieces[i].needs)
  const more = k => { if (!found.has(k)) [k, ...pieces[k].needs].forEach(o => found.add(o)) }
  for (const k of [i, ...found]) {
    if (!edited(k)) continue
    const words = new Set(text(k).match(/(?<![.\p{L}\p{N}_])[\p{L}_][\p{L}\p{N}_]*/gu))
    for (let j = 0; j < k; j++) if (pieces[j].makes.some(o => words.has(o))) more(j)
  }
  return [...found].sort((a, b) => a - b)
}

// What a cell that is `whole` needs isn't there yet
export const lacks = i => chapter.pieces[i].whole && !chapter.digits.there
