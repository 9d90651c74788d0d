// The page's own keyboard: the desktop's would lie beneath a browser that fills the screen. It types English letters,
// as the model reads, and what a visitor's language has besides. A key acts on release, where the finger still is.

import { el, fill, icon } from "./dom.js";
import { t } from "./i18n.js";

const ROWS = ["qwertyuiop", "asdfghjkl'", "zxcvbnm,.?"];

/** Keys that write into a text field; focus stays in the field, so that a real keyboard goes on working. */
export function keyboard(area) {
  let capitals = area.value === "";
  const board = el("div", { class: "keyboard", role: "group", aria: { label: t("keyboard") } });
  const write = (text) => {
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
    changed();
  };
  const erase = () => {
    const [start, end] = [area.selectionStart, area.selectionEnd];
    area.setRangeText("", start === end ? Math.max(0, start - 1) : start, end, "end");
    changed();
  };
  const changed = () => {
    area.dispatchEvent(new Event("input"));
    const before = area.value.slice(0, area.selectionStart).trimEnd();
    setCapitals(before === "" || /[.?!]$/.test(before));
  };
  const setCapitals = (on) => {
    if (on === capitals) return;
    capitals = on;
    draw();
  };
  const key = (label, act, props = {}, shown = label) =>
    el("button", { type: "button", class: "key", tabindex: "-1", aria: { label }, onpointerdown: keepFocus, onclick: act, data: { key: `key-${label}` }, ...props }, shown);
  const draw = () => {
    const rows = ROWS.map((row, i) => {
      const keys = [...row].map((letter) => (capitals ? letter.toUpperCase() : letter)).map((letter) => key(letter, () => write(letter)));
      if (i === 1) keys.push(key(t("delete"), erase, { class: "key key-wide" }, icon("erase")));
      if (i === 2) keys.unshift(key(t("shift"), () => setCapitals(!capitals), { class: "key key-wide", aria: { label: t("shift"), pressed: capitals } }, icon("shift")));
      return el("div", { class: "key-row" }, keys);
    });
    rows.push(el("div", { class: "key-row" }, key(t("space"), () => write(" "), { class: "key key-space" })));
    fill(board, rows);
  };
  draw();
  return board;
}

const keepFocus = (event) => event.preventDefault();
