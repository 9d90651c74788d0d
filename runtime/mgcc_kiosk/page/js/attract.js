// What the page shows while nobody is there: small stories that tell themselves, word by word and box by box. It asks
// nothing of the server, and stands still where motion is unwanted.

import { button, el, fill, icon, image } from "./dom.js";
import { languageButtons } from "./head.js";
import { capital, t, wordsOf } from "./i18n.js";
import { noun, textOf } from "./sentence.js";
import { get, update, watch } from "./store.js";

const SCENE_MS = 9000;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export function startAttract(node) {
  let scene = 0;
  let timer = 0;
  let before = null;
  node.addEventListener("click", (event) => {
    if (!event.target.closest(".languages")) begin();
  });
  addEventListener("keydown", ({ key }) => {
    if (get().view === "attract" && document.activeElement === document.body && (key === "Enter" || key === " ")) begin();
  });
  watch(["view", "language", "world"], (state) => {
    clearInterval(timer);
    const shown = state.view === "attract" && state.world !== null;
    node.hidden = !shown;
    document.getElementById("app").inert = shown;
    if (!shown) fill(node);
    // whoever began by a key goes on by keys
    if (before === "attract" && state.view === "story") document.querySelector(".words button")?.focus({ preventScroll: true });
    before = state.view;
    if (!shown) return;
    draw(node, state.world.attract[scene]);
    timer = setInterval(() => {
      scene = (scene + 1) % state.world.attract.length;
      fill(node.querySelector(".attract-stage"), sceneOf(state.world.attract[scene]));
    }, still.matches ? SCENE_MS * 2 : SCENE_MS);
  });
}

const begin = () => update({ view: "story" });

function draw(node, scene) {
  fill(
    node,
    el("div", { class: "attract-title" }, el("p", { class: "attract-name" }, t("title")), el("p", { class: "attract-line" }, t("attractLine"))),
    el("div", { class: "attract-stage", aria: { hidden: true } }, sceneOf(scene)),
    el("div", { class: "attract-foot" }, button(t("touch"), { iconName: "touch", kind: "main start", data: { key: "start" } }), languageButtons(), el("p", { class: "attract-credit" }, t("credit"))),
  );
}

/** A picture that composes itself: its words, then its boxes, then its things. */
function sceneOf({ place, thing, relation, anchors, boxes }) {
  const { things } = get().world;
  const words = wordsOf();
  const clauses = [
    { kind: "setting", place, travel: false },
    { kind: "thing", label: thing, known: false, action: "appear", where: { relation, anchors } },
  ];
  const chips = [
    image(`places/${place}.webp`, "attract-chip-place"),
    image(`art/${things[thing]}.svg`),
    icon(`rel-${relation.replaceAll(" ", "-")}`),
    ...anchors.map((label) => image(`art/${things[label]}.svg`)),
  ];
  const placedThings = Object.entries(boxes).map(([label, box], k) => {
    const node = el("div", { class: "attract-box" }, el("span", { class: "box-label" }, noun(label, "word", words)), image(`art/${things[label]}.svg`, "attract-art"));
    const [x1, y1, x2, y2] = box;
    node.style.cssText = `left:${x1}%;top:${y1}%;width:${x2 - x1}%;height:${y2 - y1}%;--k:${k}`;
    return node;
  });
  const strip = el("div", { class: "attract-chips" }, chips.map((chip, k) => withDelay(el("span", { class: "attract-chip" }, chip), k)));
  const text = el("p", { class: "attract-text" }, capital(textOf(clauses, [], words)));
  return [strip, text, el("div", { class: "attract-picture" }, image(`places/${place}.webp`, "attract-place"), placedThings)];
}

function withDelay(node, k) {
  node.style.setProperty("--k", String(k));
  return node;
}
