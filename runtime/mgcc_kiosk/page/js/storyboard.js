// The story so far as a strip of small pictures; a tap puts one on the stage.

import { el, fillWhenNew } from "./dom.js";
import { t } from "./i18n.js";
import { sentenceOf } from "./told.js";
import { shownTry } from "./story.js";
import { get, update, watch } from "./store.js";

export function startStoryboard(node) {
  watch(["turns", "selected", "job", "language"], (state) => {
    const { turns, selected, job } = state;
    node.hidden = !turns.length && job?.kind !== "turn";
    const caption = captionOf(state);
    const looks = [turns.map((turn) => shownTry(turn)?.address), selected, Boolean(job), caption, state.language];
    fillWhenNew(node, looks, () => [
      el("ol", { class: "strip" }, turns.map((turn, k) => el("li", {}, thumb(turn, k, state)))),
      el("p", { class: "caption" }, caption),
    ]);
    const list = node.querySelector(".strip");
    const current = list.children[selected];
    if (current) list.scrollLeft = current.offsetLeft - list.clientWidth / 2;
  });
}

/** The words of the picture on the stage, or of the one that is being drawn. */
function captionOf({ turns, selected, job }) {
  const turn = job?.kind === "turn" ? job : turns[selected];
  if (!turn) return "";
  const before = turn === job ? turns.at(-1) : turns[selected - 1];
  return sentenceOf(turn, before);
}

function thumb(turn, k, state) {
  const one = shownTry(turn);
  return el(
    "button",
    {
      type: "button", class: "thumb", data: { key: `turn-${k}` }, disabled: Boolean(state.job),
      aria: { label: `${t("page", { n: k + 1 })}: ${sentenceOf(turn, state.turns[k - 1])}`, current: k === state.selected ? "true" : "false" },
      onclick: () => choose(k),
    },
    one?.address ? el("img", { src: one.address, alt: "" }) : el("span", { class: "thumb-empty" }),
    el("span", { class: "thumb-number", aria: { hidden: true } }, String(k + 1)),
  );
}

function choose(k) {
  if (k !== get().selected) update({ selected: k, edit: null, moving: false, notice: null });
}
