// What a visitor can do to a story: tell on, draw again, try again, choose, take back, stop, and start over.

import { api } from "./api.js";
import { wordsOf } from "./i18n.js";
import { draftText, emptyDraft } from "./draft.js";
import { isWhole } from "./sentence.js";
import { cancelJob, endJob, handIn, watchJob } from "./jobs.js";
import { releaseAll } from "./pictures.js";
import { asToldBy, forgetTurn, shownTry, tryOf, withTry } from "./story.js";
import { get, update, wipe } from "./store.js";
import { withChat, keepRecipe } from "./recovery.js";
import { failed, say } from "./notices.js";
import { during, endVisit, thisVisit } from "./visit.js";

const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] >>> 1; // what the runtime takes: below 2 ** 31

/** Send the draft as the story's next turn. */
export async function send() {
  const state = get();
  const text = draftText(state, wordsOf("en"));
  if (!text || state.job) return;
  const goesOn = thisVisit();
  const { typed } = state.draft;
  const clauses = typed === null ? state.draft.clauses.filter(isWhole) : null;
  const job = { kind: "turn", turn: state.turns.length, text, clauses };
  update({ draft: emptyDraft(), tab: "things", edit: null, moving: false });
  const drawn = await run(job, (chat) => api.turn(chat, { text, seed: newSeed() }));
  // words that came to nothing are given back, unless there are new ones already
  if (!drawn && goesOn() && !get().draft.clauses.length && !get().draft.typed) {
    update({ draft: { clauses: clauses ?? [], typed } });
  }
}

/** Draw the chosen turn again: with other boxes, or another seed, or both. */
export function redraw({ boxes, seed } = {}) {
  const { selected, job } = get();
  if (job || selected < 0) return false;
  update({ moving: false });
  const options = { ...(boxes ? { boxes } : {}), ...(seed === undefined ? {} : { seed }) };
  return run({ kind: "redraw", turn: selected, boxes }, (chat) => api.redraw(chat, selected, options));
}

export const anotherTry = () => redraw({ seed: newSeed() });

/** Make an earlier try of the chosen turn the story's: the same seed and boxes give the same picture. */
export function choose(one) {
  const turn = get().turns[get().selected];
  if (one === shownTry(turn)) return;
  redraw({ seed: one.seed, boxes: one.boxes });
}

export async function undo() {
  if (get().job || !get().canUndo) return;
  const goesOn = thisVisit();
  try {
    await during(async () => take(await withChat((chat) => api.undo(chat))));
    if (!goesOn()) return;
    update({ selected: get().turns.length - 1, edit: null, moving: false, notice: null });
  } catch (error) {
    if (goesOn()) failed(error);
  }
}

export async function cancel() {
  if (get().job?.kind === "turn") update({ edit: null, moving: false });
  await cancelJob();
  say("cancelled");
}

/** Forget everything, here and at the server. */
export async function startOver(view) {
  const { chat, job } = get();
  const ended = endVisit(chat || job, api.endSession);
  endJob();
  releaseAll();
  wipe();
  update({ view });
  await ended;
}

/** Go on with what the server has of this visitor: after a reload, in mid-job too. Whether there was anything. */
export async function resume() {
  const { chats, jobs } = await api.session();
  const chat = chats.at(-1);
  if (!chat) return false;
  update({ view: "story", chat: chat.id });
  await take(chat);
  update({ selected: get().turns.length - 1 });
  const job = jobs.findLast(({ state, chat: id }) => id === chat.id && (state === "queued" || state === "running"));
  if (job) {
    say("resumed");
    run({ kind: job.kind, turn: job.turn, text: "", clauses: null }, async () => job);
  } else if (!chat.turns.length) {
    return false;
  }
  return true;
}

async function run(job, ask) {
  const goesOn = thisVisit();
  try {
    const id = await handIn(job, () => withChat(ask));
    if (!id) return false;
    const [name, data] = await watchJob(id);
    if (name === "done") {
      await finish(get().job, data);
      return true;
    }
    if (name === "left") return false;
    endJob();
    if (name === "error") failed(data);
    else if (name === "lost") say("errorLost", "error");
  } catch (error) {
    if (!goesOn()) return false;
    endJob();
    failed(error);
  }
  return false;
}

/** Put a finished picture into the story. Moves that a finger made meanwhile stay, to be drawn next. */
async function finish(job, result) {
  const { turns, edit } = get();
  const fresh = { text: job.text, clauses: job.clauses ?? null, tries: [], shown: -1, notes: [] };
  const turn = { ...withTry(turns[result.turn] ?? fresh, tryOf(result.pictures[0])), notes: result.notes };
  const now = [...turns];
  now[result.turn] = turn;
  const moved = edit?.changed && job.kind === "turn" ? edit : null;
  update({ turns: now, selected: result.turn, edit: moved, moving: Boolean(moved), canUndo: true });
  endJob();
  if (job.kind === "turn") say("ready", "ready");
  await during(async () => {
    await keepRecipe();
    await take(await api.chat(get().chat).catch(() => null));
  });
}

/** Take over what the server tells of the chat. */
async function take(chat) {
  if (!chat || get().chat !== chat.id) return;
  const before = get().turns;
  const turns = await asToldBy(chat, before, api.picture);
  const same = turns.length === before.length && turns.every((turn, k) => turn === before[k]);
  if (get().chat !== chat.id) turns.forEach(forgetTurn);
  else update({ turns: same ? before : turns, canUndo: chat.undo });
}
