// A story's turns and the tries of each picture. Plain data in, plain data out; blobs are the one thing to give back.
//
// Turn: {text, clauses, tries, shown, notes}; `clauses` are null for typed words.
// Try:  {seed, boxes, address, width, height}; `address` is null where the picture was put away.

import { addressOf, release } from "./pictures.js";

const MOST_TRIES = 4; // kept of a picture, to compare

/** What tells two tries apart: the seed, and where each thing is. */
export const keyOf = (seed, boxes) => JSON.stringify([seed, (boxes ?? []).map(({ id, label, xyxy }) => [id, label, xyxy])]);

const sameTry = (one, { seed, boxes }) => keyOf(one.seed, one.boxes) === keyOf(seed, boxes);

/** A picture of a finished job as a try. */
export function tryOf(picture) {
  const { seed, boxes, width, height } = picture;
  return { seed, boxes, width, height, address: addressOf(picture.image) };
}

/** The turn with one more try, which is shown; the oldest other ones go where there are too many. */
export function withTry(turn, made) {
  const same = turn.tries.find((one) => sameTry(one, made));
  if (same) release(same.address);
  const tries = [...turn.tries.filter((one) => one !== same), made];
  while (tries.length > MOST_TRIES) release(tries.shift().address);
  return { ...turn, tries, shown: tries.length - 1 };
}

export const shownTry = (turn) => turn?.tries[turn.shown] ?? null;

/**
 * The turns as the server tells them: what is known of them already is kept. `load(path)` gives a picture's blob or null.
 */
export async function asToldBy(chat, turns, load) {
  const told = await Promise.all(chat.turns.map((one, k) => turnAsTold(one, turns[k], load)));
  for (const gone of turns.slice(told.length)) forgetTurn(gone);
  return told;
}

async function turnAsTold({ parts, picture }, known, load) {
  const text = parts.map((part) => part.text ?? "").join(" ").trim();
  const turn = known?.text === text ? known : { text, clauses: null, tries: [], shown: -1, notes: [] };
  if (known && turn !== known) forgetTurn(known);
  if (!picture?.boxes) return turn;
  const notes = picture.notes ?? [];
  const index = turn.tries.findIndex((one) => sameTry(one, picture));
  if (index >= 0 && turn.tries[index].address) {
    const same = turn.shown === index && JSON.stringify(turn.notes) === JSON.stringify(notes);
    return same ? turn : { ...turn, notes, shown: index };
  }
  const blob = picture.image ? await load(picture.image) : null;
  const { seed, boxes, width, height } = picture;
  const made = { seed, boxes, width, height, address: blob ? addressOf(blob) : null };
  return { ...withTry(turn, made), notes };
}

/** Give back a turn's pictures. */
export function forgetTurn(turn) {
  for (const one of turn.tries) release(one.address);
}
