// The sentence in the making: what a tap on a picture does to it, and which pictures come next.

import { get, update } from "./store.js";
import { awaits, isWhole, textOf } from "./sentence.js";
import { wordsOf } from "./i18n.js";
import { shownTry } from "./story.js";

const MOST_CLAUSES = 6; // more is more than a picture holds

/** The labels of the last picture's things. */
export function inPicture(state = get()) {
  const boxes = shownTry(state.turns.at(-1))?.boxes ?? [];
  return [...new Set(boxes.map((box) => box.label))];
}

export const emptyDraft = () => ({ clauses: [], typed: null });

const last = (draft) => draft.clauses.at(-1);
const replaceLast = (draft, clause) => ({ ...draft, clauses: [...draft.clauses.slice(0, -1), clause] });

/** The draft's text in a language, without what is not finished; typed words as they are. */
export function draftText(state, words = wordsOf()) {
  const { clauses, typed } = state.draft;
  return typed === null ? textOf(clauses.filter(isWhole), inPicture(state), words) : typed.trim();
}

/** A thing was tapped: it is who the next clause is about, unless the last one waits for it. */
export function tapThing(label, known) {
  const { draft } = get();
  const clause = last(draft);
  if (awaits(clause) === "anchor") {
    if (label === clause.label || clause.where.anchors.includes(label)) return;
    const where = { ...clause.where, anchors: [...clause.where.anchors, label] };
    return put(replaceLast(draft, { ...clause, where }), "things");
  }
  if (awaits(clause) === "other") {
    if (label !== clause.label) put(replaceLast(draft, { ...clause, other: label }), "things");
    return;
  }
  const clauses = draft.clauses.filter(isWhole);
  if (clauses.length >= MOST_CLAUSES) return;
  const action = known ? "move" : "appear";
  put({ ...draft, clauses: [...clauses, { kind: "thing", label, known, action, where: null }] }, known ? "actions" : "where");
}

/** Where the thing of the last clause is: a cell of the picture, or a relation that wants its anchors. */
export function tapWhere(where) {
  const { draft } = get();
  const clause = last(draft);
  if (clause?.kind !== "thing" || clause.action === "leave" || clause.action === "swap") return;
  put(replaceLast(draft, { ...clause, where }), "things");
}

/** What a thing of the picture does: "move", "leave" or "swap". */
export function tapAction(action) {
  const { draft } = get();
  const clause = last(draft);
  if (clause?.kind !== "thing" || !clause.known) return;
  const { kind, label, known } = clause;
  const next = { move: { where: null }, leave: {}, swap: { other: null } }[action];
  put(replaceLast(draft, { kind, label, known, action, ...next }), action === "move" ? "where" : "things");
}

/** Where the story is: one place a sentence, said first. */
export function tapPlace(place) {
  const { draft, turns } = get();
  const others = draft.clauses.filter((clause) => clause.kind !== "setting");
  const already = draft.clauses.some((clause) => clause.kind === "setting" && clause.place === place);
  const setting = { kind: "setting", place, travel: turns.length > 0 };
  put({ ...draft, clauses: already ? others : [setting, ...others] }, already ? "places" : "things");
}

/** Take back the last tap: an anchor, a place, an action, or the thing itself. */
export function takeBack() {
  const { draft } = get();
  const clause = last(draft);
  if (!clause) return;
  const before = oneLess(clause);
  if (before) put(replaceLast(draft, before), "where");
  else put({ ...draft, clauses: draft.clauses.slice(0, -1) }, "things");
}

function oneLess(clause) {
  if (clause.kind === "setting") return null;
  if (clause.other) return { ...clause, other: null };
  const anchors = clause.where?.anchors;
  if (anchors?.length) return { ...clause, where: { ...clause.where, anchors: anchors.slice(0, -1) } };
  return clause.where ? { ...clause, where: null } : null;
}

export function removeClause(index) {
  const { draft } = get();
  put({ ...draft, clauses: draft.clauses.filter((_, i) => i !== index) }, "things");
}

/** Typed words in place of tapped ones (in English, as the model reads), or null to tap again. */
export function setTyped(typed) {
  update({ draft: { ...get().draft, typed } });
}

function put(draft, tab) {
  update({ draft, tab, notice: null });
}
