// Questions over the page. The browser's own dialog keeps the focus inside and the rest out of reach.

import { button, el } from "./dom.js";

/** Ask a yes-or-no question; the promise gives whether it was yes. `Escape` and a tap beside it are no. */
export function ask({ title, text, yes, no }) {
  return new Promise((resolve) => {
    let answer = false;
    const close = (value) => () => {
      answer = value;
      dialog.close();
    };
    const dialog = el(
      "dialog",
      { class: "dialog", aria: { label: title } },
      el("h2", {}, title),
      el("p", {}, text),
      el("div", { class: "dialog-buttons" }, button(no, { kind: "plain", onclick: close(false) }), button(yes, { kind: "warn", onclick: close(true) })),
    );
    open(dialog, () => resolve(answer));
  });
}

/** Show a dialog; it leaves the page again when it closes. */
export function open(dialog, onclose = () => {}) {
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    onclose();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Close whatever is open. */
export function closeAll() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  for (const menu of document.querySelectorAll("[popover]")) menu.hidePopover?.();
}
