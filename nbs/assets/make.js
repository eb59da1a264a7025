// An element with its properties and what is in it
export const make = (tag, attrs, ...children) => {
  const el = Object.assign(document.createElement(tag), attrs)
  el.append(...children)
  return el
}
