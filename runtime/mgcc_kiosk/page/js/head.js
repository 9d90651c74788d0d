// The top line: whose page it is, the language, what makes it easier to use, and a way to start over.

import { button, el, fill, image } from "./dom.js";
import { config } from "./config.js";
import { language, languages, setLanguage, t } from "./i18n.js";
import { ask } from "./dialogs.js";
import { startOver } from "./actions.js";
import { get, update, watch } from "./store.js";
import { switches, isOn, turn } from "./switches.js";

export function startHead(node) {
  watch(["switched"], () => {
    for (const name of switches) showSwitch(node.querySelector(`[data-key="switch-${name}"]`), name);
  });
  watch(["language", "info"], () => {
    fill(
      node,
      el("p", { class: "brand" }, image("art/fox.svg", "brand-art"), el("span", { class: "brand-name" }, t("title"))),
      el("div", { class: "head-tools" }, languageButtons(), switchMenu(), startOverButton()),
    );
  });
}

export function languageButtons() {
  const buttons = languages().map(([code, name]) =>
    el(
      "button",
      {
        type: "button", class: "button plain", lang: code, data: { key: `lang-${code}` },
        aria: { pressed: code === language() }, onclick: () => chooseLanguage(code),
      },
      name,
    ),
  );
  return el("div", { class: "languages", role: "group", aria: { label: t("language") } }, buttons);
}

function chooseLanguage(code) {
  setLanguage(code);
  update({ language: code });
}

function switchMenu() {
  const rows = switches.map((name) =>
    el(
      "button",
      {
        type: "button", class: "button switch", role: "switch", data: { key: `switch-${name}` },
        onclick: () => turn(name, !isOn(name)),
      },
      el("span", {}, t(name)),
      el("span", { class: "switch-state", aria: { hidden: true } }),
    ),
  );
  rows.forEach((row, k) => showSwitch(row, switches[k]));
  const about = el("p", { class: "about" }, t("aboutText"), el("br"), t("credit"));
  const staff = get().info?.staff ? el("a", { class: "about staff-link", href: `staff.html?lang=${language()}`, data: { key: "staff" } }, t("forStaff")) : null;
  const panel = el("div", { class: "menu", id: "ease-menu", popover: "auto" }, rows, about, staff);
  const opener = button(t("settings"), { iconName: "ease", kind: "plain", short: true, data: { key: "ease" }, popovertarget: "ease-menu" });
  return el("div", { class: "menu-holder" }, opener, panel);
}

function showSwitch(row, name) {
  if (!row) return; // before the first language
  row.setAttribute("aria-checked", String(isOn(name)));
  row.querySelector(".switch-state").textContent = isOn(name) ? t("on") : t("off");
}

function startOverButton() {
  const onclick = async () => {
    const sure = await ask({ title: t("startOverAsk"), text: t("startOverText"), yes: t("yesWipe"), no: t("no") });
    if (sure) await startOver(config.attract === "on" ? "attract" : "story");
  };
  return button(t("startOver"), { iconName: "restart", kind: "plain", short: true, data: { key: "restart" }, onclick });
}
