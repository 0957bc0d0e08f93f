// Elements and texts. Invariant: what came from the node becomes a text node or an attribute's value, never markup.

/** An element: `h("p", {class: "hint", onclick: f}, "text", child)`. null and false children are left out. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Set a text only if it differs, so that a screen reader is not told the same again. */
export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const few = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en-GB", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (n) => (n === null || n === undefined ? "–" : whole.format(n));
export const rate = (n) => (n === null || n === undefined ? "–" : n < 10 ? few.format(n) : whole.format(n));
export const brief = (n) => short.format(n);

export function duration(seconds) {
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 90) return `${few.format(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${few.format(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}
