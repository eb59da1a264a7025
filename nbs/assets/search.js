// Which sections of the site that tools/site.py renders answer a question, best first. MiniSearch matches the words; site.js shows them.
import MiniSearch from './minisearch.js'

const small = new Set(`a about after all an and any are as at be by can do does for from get give go goes have how i if in into is it its me mean my now of on one or our out
  should so than that the their them then there these this to use was we what when where which who whose why will with would you your`.split(/\s+/))
// what word forms share, roughly: batches, overfitting, zeroed are batch, overfit, zero
const stem = word => {
  const w = word.toLowerCase()
  if (small.has(w)) return null
  if (w.length < 5) return w
  return w.replace(/(?<=ch|sh|ss|x)es$|(?<!s)s$/, '').replace(/(ing|ed)$/, '').replace(/(?<=..)([bdgmnprt])\1$/, '$1')
}
const stems = text => new Set((text.match(/[\p{L}\p{N}]+/gu) ?? []).map(stem).filter(Boolean))
// Of all words in the question and in a heading, or in one of its other names, the share that both have
const alike = (asked, {title, names}) => Math.max(...[title, ...names.split(',')].map(o => {
  const its = stems(o), both = [...its].filter(w => asked.has(w)).length
  return both / (asked.size + its.size - both) || 0
}))
const boost = {title: 10, names: 10, page: 2, text: 1, code: .3}
const kinds = {chapter: 1, page: .8, reference: .3, support: .25}

export function indexed(sections) {
  const index = new MiniSearch({idField: 'url', fields: Object.keys(boost), storeFields: ['url', 'page', 'title', 'names', 'text', 'kind'], processTerm: stem})
  index.addAll(sections)
  return index
}

// The sections that have all words of the question; where none has, those that have some of them or a word like them, and `like` is true
export function ranked(index, question) {
  const asked = stems(question)
  const how = {boost, prefix: (word, i, words) => i === words.length - 1 && word.length > 2}
  const all = index.search(question, {...how, combineWith: 'AND'}), like = !all.length
  const hits = like ? index.search(question, {...how, fuzzy: word => word.length > 4 && .25}) : all
  const worth = new Map(hits.map(o => [o, o.score * kinds[o.kind] * (1 + 3 * alike(asked, o))]))
  return {like, hits: hits.sort((a, b) => worth.get(b) - worth.get(a))}
}

// Some thirty words of a section's prose around the first that was found, as [text, whether it was found]
export function excerpt({text, terms}) {
  const found = new Set(terms), words = text.split(/([^\p{L}\p{N}]+)/u)
  const hit = words.map(w => found.has(stem(w)))
  const first = Math.max(0, hit.indexOf(true) - 16), last = first + 64
  return [...(first ? [['… ', false]] : []), ...words.slice(first, last).map((w, i) => [w, hit[first + i]]), ...(last < words.length ? [[' …', false]] : [])]
}
