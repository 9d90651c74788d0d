// What is being drawn: from the moment of sending until the picture, an error or a cancel.
//
// job: {id, kind: "turn" | "redraw", turn, phase, clauses, text, position, estimateMs, step, steps, boxes, preview, retryS}
// phase: "sending" | "full" | "queued" | "reading" | "placing" | "drawing"

import { api, ApiError } from "./api.js";
import { follow } from "./job_events.js";
import { addressOf, release } from "./pictures.js";
import { get, update } from "./store.js";
import { during } from "./visit.js";

const MOST_WAITS = 20; // how often a full server is asked again
let stopFollowing = () => {};

const patch = (part) => get().job && update({ job: { ...get().job, ...part } });

/** Hand a job in, again and again while the server is full; null where it was cancelled meanwhile. `ask()` posts it. */
export function handIn(job, ask) {
  const own = Symbol("job");
  update({ job: { ...job, own, phase: "sending" }, notice: null });
  return during(() => untilTaken(own, ask));
}

async function untilTaken(own, ask) {
  for (let wait = 0; ; wait += 1) {
    try {
      const { id } = await ask();
      if (get().job?.own !== own) {
        await api.cancel(id).catch(() => {});
        return null;
      }
      return id;
    } catch (error) {
      if (get().job?.own !== own) return null;
      if (!(error instanceof ApiError) || error.code !== "queue_full" || wait === MOST_WAITS) throw error;
      if (!(await countDown(Math.max(1, error.retryAfterS), own))) return null;
    }
  }
}

async function countDown(seconds, own) {
  for (let left = seconds; left > 0; left -= 1) {
    patch({ phase: "full", retryS: left });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    if (get().job?.own !== own) return false;
  }
  return true;
}

/** Follow a job to its end; the promise gives ["done", result] or another last event, or ["left"] after `endJob`. */
export function watchJob(id) {
  patch({ id });
  return new Promise((resolve) => {
    const stop = follow(id, (name, data) => {
      if (name === "queued") patch({ phase: "queued", position: data.position, estimateMs: data.estimate_ms });
      else if (name === "reading" || name === "running") patch({ phase: "reading", estimateMs: data.estimate_ms });
      else if (name === "boxes") patch({ phase: "placing", boxes: data.boxes });
      else if (name === "preview") showStep(data);
      else resolve([name, data.result ?? data.error ?? null]);
    });
    stopFollowing = () => {
      stop();
      resolve(["left"]);
    };
  });
}

function showStep({ step, steps, image }) {
  const before = get().job?.preview;
  patch({ phase: "drawing", step, steps, preview: image ? addressOf(image) : before });
  // the one before may still be on the screen until the new one is decoded
  if (image && before) setTimeout(() => release(before), 500);
}

/** Whatever is being drawn is over for the page. */
export function endJob() {
  stopFollowing();
  release(get().job?.preview);
  update({ job: null });
}

/** Cancel it at the server, too. */
export async function cancelJob() {
  const { job } = get();
  if (!job) return;
  endJob();
  if (job.id) await api.cancel(job.id).catch(() => {});
}
