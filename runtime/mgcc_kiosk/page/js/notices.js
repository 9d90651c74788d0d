// What the page has to say: that something did not work, or what the model could not draw.

import { update } from "./store.js";

const BY_CODE = {
  moderation_blocked: "errorBlocked",
  context_length_exceeded: "errorFull",
  too_many_turns: "errorFull",
  queue_full: "errorBusy",
  too_many_jobs: "errorBusy",
  too_many_sessions: "errorBusy",
  time_limit: "errorTime",
  not_found: "errorLost",
};

const BY_NOTE = {
  "unknown-thing": "noteUnknown",
  "too-many": "noteTooMany",
  contradiction: "noteContradiction",
  "nothing-to-place": "noteNothing",
};

/** Show one of the page's texts. `kind`: "info", "ready" or "error". */
export function say(key, kind = "info") {
  update({ notice: { key, kind } });
}

/** Show what an error means to a visitor; offline is shown by itself, for as long as it lasts. */
export function failed(error) {
  if (error?.code === "offline") update({ online: false });
  else say(BY_CODE[error?.code] ?? "errorGeneral", "error");
}

/** The notes of a turn as [key, thing], each once. */
export function notesOf(turn) {
  const seen = new Map();
  for (const { code, thing = "" } of turn?.notes ?? []) {
    if (BY_NOTE[code]) seen.set(`${code} ${thing}`, [BY_NOTE[code], thing]);
  }
  return [...seen.values()];
}
