// A server with a key lets in the screens that staff have let in: by a link with a pass, or by the key typed here.

import { api } from "./api.js";
import { button, el, fill } from "./dom.js";
import { t } from "./i18n.js";

export const LOCKED = "invalid_api_key";
const PASS = /^#pass=([\w-]+)$/;

/** Show the server the pass of the page's address, if it has one, and take it out of the address. */
export async function showPass() {
  const [, pass] = PASS.exec(location.hash) ?? [];
  if (!pass) return;
  await api.letIn(pass).catch((error) => {
    if (error.code !== LOCKED) throw error; // there is no server yet; where the pass is wrong, staff are asked
  });
  history.replaceState(null, "", location.pathname + location.search);
}

/** Ask for the key until it is right. What was typed is kept nowhere. */
export function untilLetIn() {
  return new Promise((resolve) => {
    const field = el("input", { type: "password", class: "field", id: "staff-key", autocomplete: "off", data: { key: "staffKey" } });
    const said = el("p", { class: "locked-said", role: "alert" });
    const knock = async (event) => {
      event.preventDefault();
      const given = field.value;
      field.value = "";
      try {
        await api.letIn(given);
      } catch (error) {
        said.textContent = t(error.code === LOCKED ? "keyWrong" : "offline");
        return;
      }
      dialog.remove();
      resolve();
    };
    const form = el(
      "form",
      { onsubmit: knock },
      el("label", { for: "staff-key" }, t("keyLabel")),
      field,
      said,
      el("div", { class: "dialog-buttons" }, button(t("letIn"), { kind: "main", type: "submit", data: { key: "letIn" } })),
    );
    const dialog = el("dialog", { class: "dialog locked", aria: { label: t("locked") }, oncancel: (event) => event.preventDefault() });
    fill(dialog, el("h2", {}, t("locked")), el("p", {}, t("lockedText")), form);
    document.body.append(dialog);
    dialog.showModal();
  });
}
