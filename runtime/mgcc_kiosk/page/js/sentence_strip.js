// The sentence in the making: its pictures as chips, its words beneath, and the button that has it drawn.

import { button, el, fillWhenNew, icon, image } from "./dom.js";
import { send } from "./actions.js";
import { config } from "./config.js";
import { draftText, removeClause, setTyped, takeBack } from "./draft.js";
import { language, t, wordsOf } from "./i18n.js";
import { keyboard } from "./keyboard.js";
import { anchorsOf, noun } from "./sentence.js";
import { get, watch } from "./store.js";

export function startSentence(node) {
  let mode = null;
  watch(["draft", "job", "language", "turns", "world", "info"], (state) => {
    const typing = state.draft.typed !== null;
    const now = `${typing} ${language()}`;
    if (typing && mode === now) return refreshDraw(node, state);
    mode = now;
    const looks = [now, typing ? null : state.draft, drawable(state), draftText(state), state.turns.length > 0, Boolean(state.world)];
    fillWhenNew(node, looks, () => (typing ? typingStrip(state) : tappedStrip(state)));
    if (typing) node.querySelector("textarea").focus();
  });
}

const drawable = (state) => !state.job && Boolean(draftText(state, wordsOf("en")));

function drawButton(state) {
  return button(t("draw"), { iconName: "brush", kind: "main draw", disabled: !drawable(state), data: { key: "draw" }, onclick: send });
}

const refreshDraw = (node, state) => (node.querySelector(".draw").disabled = !drawable(state));

function tappedStrip(state) {
  const { clauses } = state.draft;
  const text = draftText(state);
  const chips = clauses.length
    ? el("ul", { class: "clauses" }, clauses.map((clause, k) => clauseChips(clause, k, state)))
    : el("p", { class: "sentence-empty" }, state.turns.length ? t("next") : t("empty"));
  const tools = el(
    "div",
    { class: "sentence-tools" },
    button(t("back"), { iconName: "erase", kind: "plain", short: true, title: t("back"), disabled: !clauses.length, data: { key: "back" }, onclick: takeBack }),
    config.typing === "on" && state.info?.text_taken !== "none"
      ? button(t("type"), { iconName: "keyboard", kind: "plain", short: true, title: t("type"), data: { key: "type" }, onclick: () => setTyped(draftText(get(), wordsOf("en"))) })
      : null,
    drawButton(state),
  );
  return [el("div", { class: "sentence-words" }, chips, el("p", { class: "sentence-text", aria: { live: "polite" } }, text)), tools];
}

/** A clause as a row of chips; a tap on the row's cross takes it away. */
function clauseChips(clause, k, state) {
  const words = wordsOf();
  const chips = clause.kind === "setting" ? [placeChip(clause, words)] : thingChips(clause, state, words);
  const remove = el(
    "button",
    { type: "button", class: "clause-remove", aria: { label: `${t("delete")}: ${chips.map((chip) => chip.textContent).join(" ")}` }, onclick: () => removeClause(k) },
    icon("close"),
  );
  return el("li", { class: `clause clause-${clause.kind}` }, chips, remove);
}

const chip = (kind, art, text) => el("span", { class: `chip chip-${kind}` }, art, el("span", {}, text));

function placeChip(clause, words) {
  return chip("place", image(`places/${clause.place}.webp`, "chip-place-art"), words.places[clause.place][0]);
}

function thingChips(clause, state, words) {
  const art = (label) => (state.world.things[label] ? image(`art/${state.world.things[label]}.svg`) : null);
  const thing = (label) => chip("thing", art(label), noun(label));
  const gap = el("span", { class: "chip chip-gap" }, "?");
  const { label, action, where, other } = clause;
  const chips = [thing(label)];
  if (action === "leave") chips.push(chip("action", icon("leaves"), t("leaves")));
  if (action === "swap") chips.push(chip("action", icon("swaps"), t("swaps")), other ? thing(other) : gap);
  if (action === "move") chips.push(chip("action", icon("moves"), t("moves")));
  if (where?.cell) chips.push(chip("where", cellIcon(where.cell, state.world.cells), words.cells[where.cell]));
  else if (where) {
    chips.push(chip("where", icon(`rel-${where.relation.replaceAll(" ", "-")}`), words.relations[where.relation][0]));
    chips.push(...where.anchors.map(thing));
    if (where.anchors.length < anchorsOf(where.relation)) chips.push(gap);
  } else if (action === "move") chips.push(gap);
  return chips;
}

/** Nine dots, one of them full. */
export function cellIcon(cell, cells) {
  return el("span", { class: "cell-icon", aria: { hidden: true } }, cells.map((name) => el("i", { class: name === cell ? "full" : "" })));
}

function typingStrip(state) {
  const area = el("textarea", {
    class: "typed", rows: 2, maxlength: Math.min(400, state.info?.limits?.text_chars ?? 400), autocomplete: "off", autocapitalize: "off",
    spellcheck: "false", inputmode: config.keys === "page" ? "none" : "text", aria: { label: t("typeHere") },
    placeholder: language() === "en" ? t("typeHere") : `${t("typeHere")} (${t("typeEnglish")})`,
    oninput: () => setTyped(area.value),
    onkeydown: (event) => {
      if (event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      send();
    },
  });
  area.value = state.draft.typed;
  const tools = el("div", { class: "sentence-tools" }, button(t("tap"), { iconName: "close", kind: "plain", short: true, title: t("tap"), data: { key: "tap" }, onclick: () => setTyped(null) }), drawButton(state));
  return [el("div", { class: "sentence-words" }, area), tools, config.keys === "page" ? keyboard(area) : null];
}

