// Boxes that a visitor moves: a copy of the picture's, in state.edit, until they are drawn or put back.

import { get, update } from "./store.js";
import { sameBoxes } from "./boxes.js";
import { shownTry } from "./story.js";

/** The boxes on the stage and the size of their picture: those being moved, or of the job, or of the picture. */
export function onStage(state = get()) {
  const { info, edit, job, turns, selected } = state;
  const one = shownTry(turns[selected]);
  const px = info?.image_px ?? 1;
  const size = one ? { width: one.width, height: one.height } : { width: px, height: px };
  const told = job ? (job.boxes ?? []) : (one?.boxes ?? []);
  return { size, told, boxes: edit?.boxes ?? told };
}

/** Pick a box, so that the buttons move it; null for none. */
export function pick(id) {
  const { edit } = get();
  if (edit?.picked === id) return;
  update({ edit: { boxes: onStage().boxes, changed: false, ...edit, picked: id }, moving: true });
}

/** Put changed boxes in place of those of the same ids. */
export function change(...changed) {
  const { told, boxes } = onStage();
  const now = boxes.map((box) => changed.find(({ id }) => id === box.id) ?? box);
  keep(now, told, changed.at(-1).id);
}

export function takeAway(id) {
  const { told, boxes } = onStage();
  keep(boxes.filter((box) => box.id !== id), told, null);
}

function keep(boxes, told, picked) {
  update({ edit: { boxes, picked, changed: !sameBoxes(boxes, told) }, moving: true, notice: null });
}

/** Everything back to where the picture has it. */
export function putBack() {
  update({ edit: null });
}

export function setMoving(moving) {
  update({ moving, edit: moving ? get().edit : null });
}
