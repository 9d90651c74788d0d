// An honest wait: the place in the line, what is being done, how far it is, and a way to stop it. One card, brought up to
// date in place, so that nothing blinks and nobody loses the focus while a picture is drawn.

import { button, el } from "./dom.js";
import { t } from "./i18n.js";
import { cancel } from "./actions.js";
import { phaseText } from "./announcer.js";

const phase = el("p", { class: "wait-phase" });
const more = el("p", { class: "wait-more" });
const barFill = el("span", { class: "bar-fill" });
const bar = el("div", { class: "bar", role: "progressbar" }, barFill);
const stop = button("", { iconName: "close", kind: "warn", data: { key: "cancel" }, onclick: cancel });
const card = el("div", { class: "card wait" }, el("div", { class: "wait-words" }, phase, more, bar), stop);

export function waitCard({ job }) {
  if (!job) return null;
  const seconds = Math.round((job.estimateMs ?? 0) / 1000);
  phase.textContent = phaseText(job);
  more.textContent = t("about_s", { n: seconds });
  more.hidden = seconds < 2 || !["queued", "reading"].includes(job.phase);
  stop.querySelector(".button-text").textContent = t("cancel");
  bar.setAttribute("aria-label", phase.textContent);
  showProgress(job);
  return card;
}

/** A bar that knows how far it is, or one that only says that something goes on. */
function showProgress({ phase: now, step, steps }) {
  const known = now === "drawing";
  bar.classList.toggle("bar-unknown", !known);
  barFill.style.width = known ? `${(step / steps) * 100}%` : "";
  if (known) for (const [name, value] of [["valuenow", step], ["valuemin", 0], ["valuemax", steps]]) bar.setAttribute(`aria-${name}`, value);
  else for (const name of ["valuenow", "valuemin", "valuemax"]) bar.removeAttribute(`aria-${name}`);
}
