// Small helpers to build elements: no markup is ever made of a visitor's text.

/** An element: properties that start with "on" are listeners, "data" and "aria" are groups, the rest attributes. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "aria") for (const [key, v] of Object.entries(value)) node.setAttribute(`aria-${key}`, String(v));
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** A line icon of icons.svg; decoration alone, so the button beside it has the words. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** An image that says nothing by itself. */
export function image(src, className = "") {
  return el("img", { src, class: className, alt: "", draggable: "false" });
}

/** A button with an icon and words. `short` shows the icon alone and keeps the words for those who listen. */
export function button(text, { iconName, kind = "", short = false, ...props } = {}) {
  const words = el("span", { class: short ? "hidden" : "button-text" }, text);
  return el("button", { type: "button", class: `button ${kind}`.trim(), ...props }, iconName ? icon(iconName) : null, words);
}

/** Put `children` into `node` in place of what it has; whoever had the focus by its data-key keeps it. */
export function fill(node, ...children) {
  const wanted = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  if (wanted.length === node.childNodes.length && wanted.every((child, i) => child === node.childNodes[i])) return;
  const key = node.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  node.replaceChildren(...wanted);
  if (key) node.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

/** `fill` with what `make()` gives, unless `signature` is the same as the last time: nothing then moves or blinks. */
export function fillWhenNew(node, signature, make) {
  const text = JSON.stringify(signature);
  if (node.signature === text) return;
  node.signature = text;
  fill(node, make());
}
