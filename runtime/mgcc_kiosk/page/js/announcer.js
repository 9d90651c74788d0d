// Words for those who listen instead of look: a polite status line, and what a change of the state means.

import { capital, t, wordsOf } from "./i18n.js";
import { noun } from "./sentence.js";
import { cellOf } from "./boxes.js";
import { shownTry } from "./story.js";
import { watch } from "./store.js";

export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** What of a picture is where: "Cat: on the left. Tree: on the right." */
export function thingsOf(one) {
  const cells = wordsOf().cells;
  return (one?.boxes ?? []).map((box) => `${capital(noun(box.label))}: ${cells[cellOf(box, one)]}.`).join(" ");
}

/** A job's phase in words. */
export function phaseText(job) {
  const { phase, position, retryS, step, steps } = job;
  if (phase === "queued") return position ? t("queued", { n: position }) : t("queuedNext");
  if (phase === "full") return t("full", { n: retryS });
  if (phase === "drawing") return t("drawing", { n: step, of: steps });
  return t(phase);
}

export function startAnnouncer() {
  let phase = null;
  watch(["job"], ({ job }) => {
    if (job && job.phase !== phase) announce(phaseText(job));
    phase = job?.phase ?? null;
  });
  watch(["notice"], (state) => {
    const { notice, turns, selected } = state;
    if (!notice) return;
    announce(t(notice.key, { things: thingsOf(shownTry(turns[selected])) }));
  });
}
