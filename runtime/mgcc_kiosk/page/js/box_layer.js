// Boxes over the picture, moved by finger: each finger holds a box of its own, so two move two at once. Two fingers on
// one box change its size, as does its corner. Keys do the same. Nothing is changed before a finger is lifted.

import { el, fillWhenNew, image } from "./dom.js";
import { capital, t, wordsOf } from "./i18n.js";
import { cellOf, movedBy, sameBoxes, scaledBy, sizedTo } from "./boxes.js";
import { onKey } from "./box_steps.js";
import { change, onStage, pick } from "./editing.js";
import { noun } from "./sentence.js";
import { watch } from "./store.js";

const fingers = new Map(); // pointer id -> {id, corner, x, y}: which box it holds, and where it was put down
const drafts = new Map(); // box id -> {from, now}: while it is being moved

export function boxLayer() {
  const layer = el("div", { class: "box-layer", role: "group" });
  let shown = null;
  const draw = (state) => {
    const { size, boxes } = onStage(state);
    if (fingers.size && shown?.length === boxes.length) return; // never take a box out of a visitor's hands
    letGo();
    shown = boxes;
    layer.setAttribute("aria-label", t("moveThings"));
    layer.classList.toggle("box-layer-open", state.moving || Boolean(state.job?.boxes));
    const signature = [boxes, size, state.edit?.picked, state.language, Boolean(state.world)];
    fillWhenNew(layer, signature, () => boxes.map((box) => boxOf(box, size, state)));
    if (state.edit?.picked && state.edit.picked !== layer.dataset.picked) focusPicked(layer, state.edit.picked);
    layer.dataset.picked = state.edit?.picked ?? "";
  };
  watch(["turns", "selected", "edit", "moving", "job", "info", "world", "language"], draw);
  for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
    layer.addEventListener(name, (event) => HANDLERS[name](event, layer));
  }
  // a drag is ours alone: else the browser takes it for a fling, and the next tap for its end
  const ours = (event) => event.target.closest(".box") && event.preventDefault();
  for (const name of ["touchstart", "touchmove"]) layer.addEventListener(name, ours, { passive: false });
  layer.addEventListener("click", (event) => {
    const node = event.target.closest(".box"); // by Enter, Space, or a screen reader
    if (node) pick(node.dataset.id);
  });
  layer.addEventListener("keydown", onKey);
  return layer;
}

function focusPicked(layer, id) {
  const node = layer.querySelector(`.box[data-id="${CSS.escape(id)}"]`);
  if (node && layer.contains(document.activeElement)) node.focus();
}

function boxOf(box, size, state) {
  const art = state.world?.things[box.label];
  const where = wordsOf().cells[cellOf(box, size)];
  const picked = state.edit?.picked === box.id;
  const node = el(
    "div",
    { class: picked ? "box box-picked" : "box", data: { id: box.id } },
    el("button", {
      type: "button", class: "box-grip", data: { key: `box-${box.id}` }, title: t("boxHelp"),
      aria: { label: t("boxAt", { x: capital(noun(box.label)), where }), pressed: picked },
    }, el("span", { class: "box-label" }, art ? image(`art/${art}.svg`) : null, noun(box.label))),
    el("span", { class: "box-corner", aria: { hidden: true } }),
  );
  place(node, box, size);
  return node;
}

function place(node, { xyxy: [x1, y1, x2, y2] }, { width, height }) {
  node.style.left = `${(x1 / width) * 100}%`;
  node.style.top = `${(y1 / height) * 100}%`;
  node.style.width = `${((x2 - x1) / width) * 100}%`;
  node.style.height = `${((y2 - y1) / height) * 100}%`;
}

const HANDLERS = {
  pointerdown(event, layer) {
    const node = event.target.closest(".box");
    if (!node || event.button > 0) return;
    const id = node.dataset.id;
    layer.setPointerCapture(event.pointerId);
    const corner = Boolean(event.target.closest(".box-corner"));
    rebase(id);
    const [x, y] = [event.clientX, event.clientY];
    fingers.set(event.pointerId, { id, corner, x, y, atX: x, atY: y });
    node.classList.add("box-held");
  },
  pointermove(event, layer) {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    finger.atX = event.clientX;
    finger.atY = event.clientY;
    const { size } = onStage();
    const draft = drafts.get(finger.id);
    draft.now = held(draft.from, finger, layer.getBoundingClientRect(), size);
    place(layer.querySelector(`.box[data-id="${CSS.escape(finger.id)}"]`), draft.now, size);
  },
  pointerup(event, layer) {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    fingers.delete(event.pointerId);
    rebase(finger.id);
    if (fingers.size) return;
    const { boxes } = onStage();
    const isMoved = (now) => !sameBoxes([now], boxes.filter(({ id }) => id === now.id));
    const moved = [...drafts.values()].map(({ now }) => now).filter(isMoved);
    letGo();
    for (const node of layer.querySelectorAll(".box-held")) node.classList.remove("box-held");
    if (moved.length) change(...moved);
    else pick(finger.id);
    layer.querySelector(`.box[data-id="${CSS.escape(finger.id)}"] .box-grip`)?.focus({ preventScroll: true });
  },
  pointercancel(event, layer) {
    if (!fingers.delete(event.pointerId)) return;
    letGo();
    const { size, boxes } = onStage();
    for (const box of boxes) place(layer.querySelector(`.box[data-id="${CSS.escape(box.id)}"]`), box, size);
  },
};

/** Where a box is, held by one finger or two. */
function held(from, finger, rect, size) {
  const both = [...fingers.values()].filter(({ id }) => id === finger.id);
  const [perX, perY] = [size.width / rect.width, size.height / rect.height];
  if (both.length > 1) {
    const [a, b] = both;
    const before = Math.hypot(a.x - b.x, a.y - b.y) || 1;
    return scaledBy(from, Math.hypot(a.atX - b.atX, a.atY - b.atY) / before, size);
  }
  const [dx, dy] = [(finger.atX - finger.x) * perX, (finger.atY - finger.y) * perY];
  return finger.corner ? sizedTo(from, from.xyxy[2] + dx, from.xyxy[3] + dy, size) : movedBy(from, dx, dy, size);
}

/** A finger comes to a box or leaves it: its other fingers go on from where the box is now. */
function rebase(id) {
  const box = drafts.get(id)?.now ?? onStage().boxes.find((one) => one.id === id);
  drafts.set(id, { from: box, now: box });
  for (const finger of fingers.values()) if (finger.id === id) [finger.x, finger.y] = [finger.atX, finger.atY];
}

function letGo() {
  fingers.clear();
  drafts.clear();
}
