/** Builds an element. Text goes in as text, never as markup: what a model writes cannot become a script. */
export function element(tag, { text, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(name, value);
  }
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

/** Sets the text of `node` if it is another one: an untouched node keeps its selection and repaints nothing. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
