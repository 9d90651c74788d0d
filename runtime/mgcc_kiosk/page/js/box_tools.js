// Buttons that move the picked box, for whoever cannot or will not drag.

import { button, el } from "./dom.js";
import { redraw } from "./actions.js";
import { grow, nudge, picked } from "./box_steps.js";
import { putBack, setMoving, takeAway } from "./editing.js";
import { capital, t } from "./i18n.js";
import { noun } from "./sentence.js";
import { get } from "./store.js";

const STEP = 1 / 16; // of the picture's side
const FACTOR = 1.15;

/** What the tools look like depends on this alone: a button must not be replaced under a finger for less. */
export function boxToolsFor({ edit, job, language }) {
  return { language, label: picked()?.label, id: edit?.picked, changed: Boolean(edit?.changed), busy: Boolean(job) };
}

export function boxTools({ edit, job }) {
  const box = picked();
  const tool = (key, iconName, act) =>
    button(t(key), { iconName, kind: "tool", short: true, title: t(key), disabled: !box, data: { key: `box-${key}` }, onclick: () => act(picked()) });
  const line = box ? t("selected", { x: capital(noun(box.label, "the")) }) : t("pick");
  return [
    el(
      "div",
      { class: "tools-row" },
      tool("left", "left", (b) => nudge(b, -1, 0, false, STEP)),
      tool("up", "up", (b) => nudge(b, 0, -1, false, STEP)),
      tool("down", "down", (b) => nudge(b, 0, 1, false, STEP)),
      tool("right", "right", (b) => nudge(b, 1, 0, false, STEP)),
      tool("smaller", "smaller", (b) => grow(b, 1 / FACTOR)),
      tool("bigger", "bigger", (b) => grow(b, FACTOR)),
      tool("takeAway", "bin", (b) => takeAway(b.id)),
    ),
    el("div", { class: "tools-row" }, el("p", { class: "tools-line" }, line), edit?.changed ? changedButtons(job) : doneButton()),
  ];
}

function changedButtons(job) {
  const again = () => redraw({ boxes: get().edit.boxes.length ? get().edit.boxes : "none" });
  return [
    button(t("putBack"), { iconName: "undo", kind: "plain", data: { key: "put-back" }, onclick: putBack }),
    button(t("drawAgain"), { iconName: "brush", kind: "main", disabled: Boolean(job), data: { key: "redraw" }, onclick: again }),
  ];
}

const doneButton = () => button(t("doneMoving"), { iconName: "done", kind: "plain", data: { key: "done" }, onclick: () => setMoving(false) });
