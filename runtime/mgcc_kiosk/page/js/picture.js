// The stage: the picture of the chosen turn, its boxes, what is being drawn, and what can be done with it.

import { button, el, fill, fillWhenNew, image } from "./dom.js";
import { hyphenated, t } from "./i18n.js";
import { boxLayer } from "./box_layer.js";
import { boxTools, boxToolsFor } from "./box_tools.js";
import { anotherTry, redraw, undo } from "./actions.js";
import { openBook } from "./book.js";
import { openCompare } from "./compare.js";
import { setMoving } from "./editing.js";
import { thingsOf } from "./announcer.js";
import { waitCard } from "./wait_card.js";
import { noticeAbout, noticeCard } from "./notice_card.js";
import { shownTry } from "./story.js";
import { watch } from "./store.js";

export function startPicture(node) {
  const canvas = el("div", { class: "canvas" });
  const below = el("div", { class: "below" });
  const tools = el("div", { class: "tools", role: "group" });
  node.append(el("div", { class: "frame" }, canvas, boxLayer()), below, tools);
  watch(["turns", "selected", "job", "language", "world"], (state) => drawCanvas(canvas, state));
  const said = el("div", { class: "said" });
  watch(["job", "notice", "turns", "selected", "moving", "heard", "language", "world", "info"], (state) => {
    const about = noticeAbout(state);
    fillWhenNew(said, [about, state.language], () => about && noticeCard(about, state));
    fill(below, about && said, state.moving ? waitCard(state) : null);
  });
  watch(["turns", "selected", "job", "edit", "moving", "canUndo", "language"], (state) => {
    tools.setAttribute("aria-label", t("yourPicture"));
    if (state.job && !state.moving) fillWhenNew(tools, "wait", () => waitCard(state));
    else if (state.moving) fillWhenNew(tools, boxToolsFor(state), () => boxTools(state));
    else fillWhenNew(tools, pictureToolsFor(state), () => pictureTools(state));
    if (state.job) waitCard(state);
  });
}

function drawCanvas(canvas, { job, turns, selected }) {
  const one = shownTry(turns[selected]);
  const src = job?.preview ?? one?.address;
  canvas.classList.toggle("canvas-busy", Boolean(job && !job.preview));
  if (!src) return fill(canvas, job ? blankPicture() : one ? lost() : invitation());
  const shown = canvas.querySelector("img.drawn");
  const alt = job?.preview ? t("picture") : `${t("yourPicture")}. ${thingsOf(one)}`;
  if (shown) {
    if (shown.getAttribute("src") !== src) shown.setAttribute("src", src);
    shown.alt = alt;
  } else fill(canvas, el("img", { class: "drawn", src, alt, draggable: "false" }));
}

const blankPicture = () => el("div", { class: "blank" });

function lost() {
  return el("div", { class: "invitation" }, el("p", {}, t("noPicture")), button(t("drawAgain"), { iconName: "brush", kind: "main", onclick: () => redraw() }));
}

function invitation() {
  const cast = ["panda", "rocket", "fox"].map((name) => image(`art/${name}.svg`, "invitation-art"));
  return el("div", { class: "invitation" }, el("div", { class: "invitation-cast" }, cast), el("p", { class: "invitation-line" }, t("first")), el("p", {}, t("firstHint")));
}

/** What the tools look like depends on this alone: a button must not be replaced under a finger for less. */
function pictureToolsFor({ turns, selected, job, canUndo, language }) {
  const turn = turns[selected];
  const able = Boolean(turn && !job);
  return { language, none: !turns.length, able, undo: canUndo && !job, compare: able && turn.tries.length > 1, move: able && Boolean(shownTry(turn)?.boxes?.length) };
}

function pictureTools(state) {
  const can = pictureToolsFor(state);
  if (can.none) return [];
  const tool = (key, iconName, onclick, disabled) => button(hyphenated(t(key)), { iconName, kind: "tool", onclick, disabled, data: { key } });
  return [
    tool("moveThings", "hand", () => setMoving(true), !can.move),
    tool("anotherTry", "dice", anotherTry, !can.able),
    tool("compare", "compare", openCompare, !can.compare),
    tool("undo", "undo", undo, !can.undo),
    tool("book", "book", openBook, false),
  ];
}
