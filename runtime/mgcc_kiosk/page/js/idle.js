// Nobody there: first the page asks, with a countdown; then it wipes everything for the next visitor.

import { button, el } from "./dom.js";
import { announce } from "./announcer.js";
import { startOver } from "./actions.js";
import { config } from "./config.js";
import { closeAll, open } from "./dialogs.js";
import { setLanguage, t } from "./i18n.js";
import { get, update } from "./store.js";
import { turnAllOff } from "./switches.js";
import { api } from "./api.js";

const SIGNS = ["pointerdown", "pointermove", "wheel", "touchstart"];
const TICK_MS = 250;
let since = performance.now();
let asking = null;

/** There is somebody: the wait begins anew. */
function stirred() {
  since = performance.now();
}

/** And they said so: the question goes. A finger says so by lifting, or it would also press what lies beneath. */
function answered() {
  stirred();
  asking?.close();
}

export function startIdle() {
  for (const sign of SIGNS) addEventListener(sign, stirred, { capture: true, passive: true });
  addEventListener("keydown", ({ key }) => (key === "Tab" || key === "Enter" || key === " " ? stirred() : answered()), { capture: true });
  setInterval(tick, TICK_MS);
}

function tick() {
  const state = get();
  if (state.view === "attract" || state.job) {
    since = performance.now();
    return;
  }
  const idleS = (performance.now() - since) / 1000;
  if (idleS >= config.idle + config.warn || (idleS >= config.idle && nothingThere(state))) leave();
  else if (idleS >= config.idle) asking ? count(idleS) : askWhether();
}

const nothingThere = ({ turns, draft }) => !turns.length && !draft.clauses.length && !draft.typed;

function askWhether() {
  closeAll();
  const seconds = el("span", { class: "countdown-number" }, String(config.warn));
  const text = el("p", {}, t("stillThereText", { n: config.warn }));
  const wipeNow = button(t("wipeNow"), { kind: "plain", onclick: leave });
  asking = el(
    "dialog",
    { class: "dialog still-there", role: "alertdialog", aria: { label: t("stillThere") }, onclick: answered },
    el("div", { class: "countdown", aria: { hidden: true } }, seconds),
    el("h2", {}, t("stillThere")),
    text,
    el("div", { class: "dialog-buttons" }, wipeNow, button(t("here"), { iconName: "done", kind: "main" })),
  );
  asking.style.setProperty("--warn", `${config.warn}s`);
  open(asking, () => {
    asking = null;
  });
  announce(`${t("stillThere")} ${text.textContent}`);
}

function count(idleS) {
  const left = Math.max(0, Math.ceil(config.idle + config.warn - idleS));
  asking.querySelector(".countdown-number").textContent = String(left);
}

/** Wipe everything. A page that has run for long is loaded anew then, as long as there is a server to load it from. */
export async function leave() {
  asking?.close();
  closeAll();
  turnAllOff();
  setLanguage(config.lang);
  await startOver(config.attract === "on" ? "attract" : "story");
  update({ language: config.lang });
  since = performance.now();
  if (performance.now() < config.fresh * 60_000) return;
  if (await api.ready().then(() => true, () => false)) location.reload();
}
