// An editor for Python in a page: CodeMirror in our colours, in a shadow root, since the page's policy refuses the style element that it
// would put into the page. This module loads it, so import it when somebody wants to write, not before.
//   editor(element, {code, starter, label, onrun, onedit}) -> {element, view, code, focus(), select(from, to), reset(), mark(line)}
// `code` is what it opens with, `starter` what reset() goes back to (`code`, unless given); `label` is for screen readers; `onrun` is
// called on Shift-Enter and Ctrl-Enter, `onedit` after every change. `code` can be read and set, which can be undone as what is typed;
// mark(line) marks a line until the next change, and shows it (mark(line, 'center') in the middle); mark(0) none.
import {bracketMatching, Decoration, defaultKeymap, EditorState, EditorView, HighlightStyle, history, historyKeymap, indentOnInput, indentUnit,
  indentWithTab, isolateHistory, keymap, lineNumbers, pythonLanguage, StateEffect, StateField, syntaxHighlighting, tags, ViewPlugin} from '../codemirror/codemirror.js'
import {make} from '../make.js'

// the colours of site.css, which a shadow root inherits
const colours = HighlightStyle.define([
  {tag: [tags.keyword, tags.operatorKeyword, tags.controlKeyword, tags.definitionKeyword, tags.moduleKeyword], color: 'var(--kw)'},
  {tag: tags.string, color: 'var(--str)'}, {tag: tags.number, color: 'var(--num)'}, {tag: tags.comment, color: 'var(--com)'},
])
const looks = EditorView.theme({
  '&': {color: 'var(--ink)', background: 'var(--box)', borderRadius: '0 4px 4px 0'},
  '&.cm-focused': {outline: '2px solid var(--link)', outlineOffset: '-2px'},
  '.cm-scroller': {font: '.84rem/1.52 var(--mono)', fontVariantLigatures: 'none'},
  '.cm-content': {padding: '.7rem 0', caretColor: 'var(--ink)'},
  // a line that is too wide goes on below, further in than it began
  '.cm-line': {padding: '0 .9rem 0 calc(.6rem + (var(--by, 0) + 2)*1ch)', textIndent: 'calc((var(--by, 0) + 2)*-1ch)'},
  '.cm-gutters': {color: 'var(--soft)', background: 'none', border: 0},
  '.cm-lineNumbers .cm-gutterElement': {minWidth: '1.6rem', padding: '0 0 0 .5rem'},
  '.cm-fault': {background: 'color-mix(in srgb, var(--gradients) 8%, transparent)', boxShadow: 'inset 3px 0 var(--gradients)'},
  '&.cm-focused .cm-matchingBracket': {background: 'none', outline: '1px solid var(--soft)'},
  '&.cm-focused .cm-nonmatchingBracket': {background: 'none', outline: '1px dashed var(--gradients)'},
  // below 16 pixels, a phone would enlarge the page
  '@media (max-width: 599px), (pointer: coarse)': {'.cm-scroller': {fontSize: '16px'}, '.cm-lineNumbers .cm-gutterElement': {minWidth: '1rem', paddingLeft: '.3rem'}},
})

const set = StateEffect.define(), fault = Decoration.line({class: 'cm-fault'})
const marked = StateField.define({
  create: () => Decoration.none,
  update(was, tr) {
    for (const e of tr.effects) if (e.is(set)) return e.value
    return tr.docChanged ? Decoration.none : was
  },
  provide: f => EditorView.decorations.from(f),
})

// What doesn't fit goes on below, set in as its line, but by no more than leaves room on a phone
const indents = view => Decoration.set(view.visibleRanges.flatMap(({from, to}) => {
  const found = []
  for (let at = from; at <= to;) {
    const {from: start, to: end, text} = view.state.doc.lineAt(at)
    found.push(Decoration.line({attributes: {style: `--by: ${/^ {0,8}/.exec(text)[0].length}`}}).range(start))
    at = end + 1
  }
  return found
}))
const indented = ViewPlugin.define(view => ({
  lines: indents(view),
  update(u) { if (u.docChanged || u.viewportChanged) this.lines = indents(u.view) },
}), {decorations: o => o.lines})

const HELP = 'Tab indents. To leave the editor with the keyboard, press Escape, then Tab.'

export const editor = (element, {code, starter = code, label, onrun = () => {}, onedit = () => {}}) => {
  element.classList.add('sourceCode')               // which has the colours of code
  const root = element.attachShadow({mode: 'open'}), help = make('div', {id: 'help', hidden: true, textContent: HELP})
  const run = () => { onrun(); return true }
  const view = new EditorView({root, parent: root, state: EditorState.create({doc: code, extensions: [
    keymap.of([{key: 'Shift-Enter', run}, {key: 'Mod-Enter', run}, {key: 'Ctrl-Enter', run}, indentWithTab, ...historyKeymap, ...defaultKeymap]),
    history(), lineNumbers(), bracketMatching(), indentOnInput(), indentUnit.of('    '), EditorState.tabSize.of(4), EditorView.lineWrapping,
    pythonLanguage, syntaxHighlighting(colours), looks, marked, indented,
    EditorView.contentAttributes.of({'aria-label': label, 'aria-describedby': 'help'}),
    EditorView.updateListener.of(u => { if (u.docChanged) onedit(u) }),
  ]})})
  root.append(help)
  // what is typed is nobody else's: outside of a shadow root, no listener sees that it was typed into a field
  element.addEventListener('keydown', e => e.stopPropagation())
  const put = text => view.dispatch({changes: {from: 0, to: view.state.doc.length, insert: text}, selection: {anchor: 0}, annotations: isolateHistory.of('full')})
  return {
    element, view,
    get code() { return view.state.doc.toString() },
    set code(text) { put(text) },
    focus() { view.focus() },
    select(from, to) { view.dispatch({selection: {anchor: from, head: to}}) },
    reset() { put(starter) },
    mark(line, y = 'nearest') {
      const {doc} = view.state, there = line >= 1 && line <= doc.lines
      view.dispatch({effects: [set.of(there ? Decoration.set(fault.range(doc.line(line).from)) : Decoration.none),
        ...there ? [EditorView.scrollIntoView(doc.line(line).from, {y})] : []]})
    },
  }
}

// Until it was seen in the window, CodeMirror draws but some lines and guesses the height of others, and of line numbers: the page would move
// as one reads on to an editor, under a hand that is about to press. So those of a whole page are measured at once, out of sight, in the
// width that they'll have; a tall one by its middle, since it draws half a thousand pixels beyond the window.
export function measure(editors) {
  const width = o => o.clientWidth || width(o.parentElement), box = make('div')
  const places = editors.map(({element: o}) => [o, o.parentNode, o.nextSibling, `grid-area: 1/1; width: ${width(o)}px`])
  box.style.cssText = 'position: fixed; inset: 0; display: grid; grid: 100% / 100%; align-items: center; contain: strict; visibility: hidden'
  document.body.append(box)
  for (const [o,,, style] of places) {
    o.style.cssText = style
    box.append(o)
  }
  for (const {view} of editors) view.coordsAtPos(0)
  for (const [o, parent, next] of places) {
    o.style.cssText = ''
    parent.insertBefore(o, next)
  }
  box.remove()
}
