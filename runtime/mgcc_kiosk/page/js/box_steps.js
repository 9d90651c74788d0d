// Boxes moved without dragging: arrow keys and buttons, a step at a time, each told to those who listen.

import { announce } from "./announcer.js";
import { cellOf, movedBy, scaledBy, sizedTo } from "./boxes.js";
import { change, onStage, takeAway } from "./editing.js";
import { capital, t, wordsOf } from "./i18n.js";
import { noun } from "./sentence.js";
import { get } from "./store.js";

const KEY_STEP = 1 / 32; // of the picture's side
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function onKey(event) {
  const id = event.target.closest(".box")?.dataset.id;
  const box = onStage().boxes.find((one) => one.id === id);
  if (!box) return;
  if (event.key === "Delete" || event.key === "Backspace") takeAway(id);
  else if (ARROWS[event.key]) nudge(box, ...ARROWS[event.key], event.shiftKey, KEY_STEP);
  else return;
  event.preventDefault();
}

/** Move a box by a step, or change its size by one, and say where it is. */
export function nudge(box, x, y, resize, step) {
  const { size } = onStage();
  const [dx, dy] = [x * step * size.width, y * step * size.height];
  const [, , right, bottom] = box.xyxy;
  const now = resize ? sizedTo(box, right + dx, bottom + dy, size) : movedBy(box, dx, dy, size);
  change(now);
  tell(now, resize, size);
}

/** Make a box larger or smaller about its centre, and say how large it is. */
export function grow(box, factor) {
  const { size } = onStage();
  const now = scaledBy(box, factor, size);
  change(now);
  tell(now, true, size);
}

function tell(box, resized, size) {
  const x = capital(noun(box.label, "the"));
  const percent = Math.round(((box.xyxy[2] - box.xyxy[0]) / size.width) * 100);
  announce(resized ? t("sized", { x, percent }) : t("moved", { x, where: wordsOf().cells[cellOf(box, size)] }));
}

/** The picked box, or undefined. */
export const picked = () => onStage().boxes.find(({ id }) => id === get().edit?.picked);
