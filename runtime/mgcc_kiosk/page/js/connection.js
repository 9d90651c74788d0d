// Whether the server answers, and a sign of life to it: a page whose renderer died sends none, and the server tells.

import { api } from "./api.js";
import { leave } from "./idle.js";
import { LOCKED } from "./locked.js";
import { get, update, watch } from "./store.js";

const BEAT_MS = 10_000;
const RETRY_MS = 2000;

export function startConnection(node) {
  watch(["online"], ({ online }) => {
    node.hidden = online;
    if (!online) setTimeout(retry, RETRY_MS);
  });
}

/** Once the page may ask. */
export function startBeating() {
  beat();
  setInterval(beat, BEAT_MS);
}

/** A frame that was painted is the sign of life; a page that is not shown paints none. */
function beat() {
  if (document.hidden) send();
  else requestAnimationFrame(send);
}

async function send() {
  try {
    const goesOn = await api.heartbeat();
    if (!get().online) update({ online: true });
    if (!goesOn) await leave();
  } catch (error) {
    if (error.code === "offline") update({ online: false });
    // the key was changed: only what staff show at the start lets a screen in again
    if (error.code === LOCKED && get().info) location.reload();
  }
}

async function retry() {
  try {
    await api.ready();
    update({ online: true });
  } catch {
    setTimeout(retry, RETRY_MS);
  }
}
