// Sentences out of tapped pictures, as clauses, and their words in any language. The model reads the English ones.
//
// Clause: {kind: "setting", place, travel}
//       | {kind: "thing", label, known, action: "appear" | "move", where: {cell} | {relation, anchors} | null}
//       | {kind: "thing", label, known: true, action: "leave"}
//       | {kind: "thing", label, known: true, action: "swap", other: label | null}
// `known`: it is in the picture already, so it is "the cat" and not "a cat".

import { capital, filled, wordsOf } from "./i18n.js";

/** How many anchors a relation has. */
export const anchorsOf = (relation) => (relation === "between" ? 2 : 1);

/** What an unfinished clause waits for: "anchor", "other", "where", or null where it says something already. */
export function awaits(clause) {
  if (clause?.kind !== "thing") return null;
  if (clause.action === "swap") return clause.other ? null : "other";
  if (clause.where?.relation && clause.where.anchors.length < anchorsOf(clause.where.relation)) return "anchor";
  return clause.action === "move" && !clause.where ? "where" : null;
}

/** The labels that a sentence names so far, each once. */
export function named(clauses) {
  const labels = clauses.flatMap((c) => (c.kind === "thing" ? [c.label, ...(c.where?.anchors ?? []), c.other] : []));
  return [...new Set(labels.filter(Boolean))];
}

/** Whether a clause can be told as it is. */
export const isWhole = (clause) => awaits(clause) === null;

/** The noun of a label, alone or with an article: form "word", "a", "the", "to_a", "to_the" or "another". */
export function noun(label, form = "word", words = wordsOf()) {
  const entry = words.things[label];
  if (!entry) return form === "word" ? label : `${{ the: "the ", to_the: "the " }[form] ?? "a "}${label}`;
  const [gender, name, , dative] = entry;
  if (form === "word") return name;
  return `${words.articles[gender][form]} ${form.startsWith("to_") ? (dative ?? name) : name}`;
}

/** The text of clauses; `there` are the labels in the picture before. Unfinished clauses are told as far as they go. */
export function textOf(clauses, there, words = wordsOf()) {
  const met = new Set(there);
  return clauses.map((clause) => clauseText(clause, met, words)).filter(Boolean).join(" ");
}

function clauseText(clause, met, words) {
  if (clause.kind === "setting") {
    const template = words.clauses[clause.travel ? "travel" : "setting"];
    return filled(template, { setting: words.places[clause.place][1] });
  }
  const text = thingText(clause, met, words);
  for (const label of named([clause])) met.add(label);
  return text;
}

function thingText(clause, met, words) {
  const { label, known, action } = clause;
  const the = noun(label, "the", words);
  if (action === "leave") return capital(filled(words.clauses.leave, { the }));
  if (action === "swap") return clause.other ? capital(filled(words.clauses.swap, { the, other: noun(clause.other, "the", words) })) : "";
  const where = whereText(clause.where, met, words);
  if (action === "move") return where ? capital(filled(words.clauses.move, { the, where, stands: words.things[label]?.[2] ?? "" })) : "";
  const a = noun(label, known ? "the" : met.has(label) ? "another" : "a", words);
  if (!where) return capital(filled(words.clauses.there, { a }));
  return capital(filled(words.clauses.appear, { a, where, stands: words.things[label]?.[2] ?? words.things.ball[2] }));
}

/** Where something is, or "" while that is not said yet. */
export function whereText(where, met, words = wordsOf()) {
  if (!where) return "";
  if (where.cell) return words.cells[where.cell];
  if (where.anchors.length < anchorsOf(where.relation)) return "";
  const [x, y] = where.anchors.map((label) => noun(label, met.has(label) ? "to_the" : "to_a", words));
  return filled(words.relations[where.relation][1], { x, y });
}
