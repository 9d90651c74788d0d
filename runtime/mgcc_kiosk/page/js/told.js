// The words of a turn as the page shows them: tapped ones in the visitor's language, typed ones as they were typed.

import { textOf } from "./sentence.js";
import { shownTry } from "./story.js";

/** `before` is the turn before, whose things are known already. */
export function sentenceOf(turn, before) {
  if (!turn.clauses?.length) return turn.text;
  return textOf(turn.clauses, (shownTry(before)?.boxes ?? []).map(({ label }) => label));
}
