// Follow a job: by the server's events, and by asking every second where those do not pass.

import { api } from "./api.js";

const NAMES = ["queued", "reading", "boxes", "preview", "done", "error", "cancelled"];
const LAST = new Set(["done", "error", "cancelled", "lost"]);
const POLL_MS = 1000;
const PATIENCE_MS = 4000; // how long a broken connection may try to come back by itself

/** Calls `on(name, data)` for each event of a job, the last one being done, error, cancelled or lost. Returns a stop. */
export function follow(job, on) {
  let over = false;
  let waiting = 0;
  const source = new EventSource(`api/jobs/${job}/events`);

  const stop = () => {
    over = true;
    clearTimeout(waiting);
    source.close();
  };
  const tell = (name, data) => {
    if (over) return;
    if (LAST.has(name)) stop();
    on(name, data);
  };
  const poll = async () => {
    if (over) return;
    try {
      tellOf(await api.job(job), tell);
    } catch (error) {
      if (error.code === "not_found") tell("lost", {});
    }
    if (!over) waiting = setTimeout(poll, POLL_MS);
  };
  const giveUpEvents = () => {
    source.close();
    poll();
  };

  for (const name of NAMES) {
    source.addEventListener(name, (event) => {
      if (event.data === undefined) return; // the browser's own "error"
      clearTimeout(waiting);
      tell(name, JSON.parse(event.data));
    });
  }
  source.onopen = () => clearTimeout(waiting);
  source.onerror = (event) => {
    if (over || event.data !== undefined) return;
    clearTimeout(waiting);
    waiting = setTimeout(giveUpEvents, source.readyState === EventSource.CLOSED ? 0 : PATIENCE_MS);
  };
  return stop;
}

/** A job's state as the event that would have told it. */
function tellOf(job, tell) {
  if (job.state === "done") tell("done", { result: job.result });
  else if (job.state === "error") tell("error", { error: job.error });
  else if (job.state === "cancelled") tell("cancelled", {});
  else if (job.state === "queued") tell("queued", { position: job.position, estimate_ms: job.estimate_ms });
  else tell("running", { estimate_ms: job.estimate_ms });
}
