// What the page has to say under the picture: what went wrong, or what of the words could not be drawn.

import { button, el, image } from "./dom.js";
import { capital, language, t } from "./i18n.js";
import { notesOf } from "./notices.js";
import { noun } from "./sentence.js";
import { get, update } from "./store.js";
import { shownTry } from "./story.js";

const SUGGESTED = 5;

/** What there is to say: {notice} or {notes, turn}, or null; what was said OK to is not said again. */
export function noticeAbout(state) {
  const { notice, turns, selected, job, world, info, heard } = state;
  if (job || !world || !info) return null;
  if (notice && notice.kind !== "ready") return { notice };
  const one = shownTry(turns[selected]);
  const notes = notesOf(turns[selected]);
  const turn = `${selected} ${one?.seed}`;
  return one && notes.length && heard !== turn ? { notes, turn } : null;
}

export function noticeCard({ notice, notes, turn }, state) {
  const ok = button(t("ok"), { iconName: "done", kind: "plain", data: { key: "ok" }, onclick: () => update(notice ? { notice: null } : { heard: turn }) });
  if (notice) return el("div", { class: `card notice notice-${notice.kind}` }, el("p", {}, t(notice.key)), ok);
  const lines = notes.map(([key, thing]) => el("p", {}, noteText(key, thing)));
  const help = notes.some(([key]) => key === "noteUnknown") ? suggestions(state) : null;
  return el("div", { class: "card notice notice-note" }, image("art/frog.svg", "notice-art"), el("div", { class: "notice-words" }, lines, help), ok);
}

/** A note in words; what a visitor named stands in it as they wrote it. */
function noteText(key, thing) {
  const known = Boolean(get().world.things[thing]);
  if (key === "noteContradiction") return t(key, { x: capital(known ? noun(thing, "the") : thing) });
  if (key !== "noteUnknown") return t(key);
  const named = language() === "en" ? `${/^[aeiou]/.test(thing) ? "an" : "a"} ${thing}` : `„${thing}“`;
  return t(key, { x: named });
}

function suggestions({ world, info }) {
  const able = Object.entries(world.things).filter(([label]) => !info.labels.length || info.labels.includes(label));
  const some = able.filter((_, i) => i % Math.ceil(able.length / SUGGESTED) === 0);
  const pictures = some.map(([label, art]) => el("img", { src: `art/${art}.svg`, alt: noun(label), class: "notice-thing" }));
  return el("p", { class: "notice-help" }, t("noteUnknownHelp"), pictures);
}
