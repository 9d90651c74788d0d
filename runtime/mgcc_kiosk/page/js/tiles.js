// What the words to tap are made of.

import { el } from "./dom.js";
import { hyphenated } from "./i18n.js";

const LONG = 11; // letters that still fit a tile

/** A tile to tap: a picture and its word. */
export function tile(key, art, text, { kind, ...props }) {
  return el("button", { type: "button", class: `tile tile-${kind}`, data: { key: `tile-${key}` }, ...props }, art, el("span", { class: text.length > LONG ? "tile-word tile-word-long" : "tile-word" }, hyphenated(text)));
}

/** A line above tiles. */
export const line = (text) => el("h2", { class: "panel-line" }, text);
