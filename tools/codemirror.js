// What nbs/assets/python/editor.js uses of CodeMirror: tools/parts.py makes one file of it
export {EditorState, StateEffect, StateField} from '@codemirror/state'
export {Decoration, EditorView, keymap, lineNumbers, ViewPlugin} from '@codemirror/view'
export {defaultKeymap, history, historyKeymap, indentWithTab, isolateHistory} from '@codemirror/commands'
export {bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting} from '@codemirror/language'
export {pythonLanguage} from '@codemirror/lang-python'
export {tags} from '@lezer/highlight'
