/** Nodes made by DOM calls: no text is ever parsed as HTML. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element.
 *
 * An attribute that is a function listens (`onclick`). `true` sets an empty attribute; `false`,
 * `null` and `undefined` set none. Children are nodes, texts, numbers, or arrays of them; `null`,
 * `undefined` and `false` are left out.
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element, made as `element` makes one of HTML. */
export function svgElement(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Replace the children of a node. */
export function replace(node, ...children) {
  node.replaceChildren(...flat(children));
}

/** Set a node's text if it differs: a text that stays is neither selected away nor announced. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name.replace(/^on/, ""), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...flat(children));
  return node;
}

function flat(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}
