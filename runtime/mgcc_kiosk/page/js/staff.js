// The staff's screen. The key is in this page's memory alone: no cookie, no storage, gone with a reload or after a while.

import { button, el, fill, fillWhenNew } from "./dom.js";
import { language, loadLanguages, t } from "./i18n.js";
import { config } from "./config.js";
import { healthRows, jobRows, sessionRows, screenPanel } from "./staff_panels.js";
import { StaffApi } from "./staff_api.js";

const EVERY_MS = 2000;
const UNUSED_MS = 300_000; // a screen that staff forget to lock locks itself
const ASKED_MS = 60_000; // a visitor who strayed here is led back
const part = (id) => document.getElementById(id);

let api = null; // once the key was right
let used = performance.now();

const announce = (text) => {
  part("announcer").textContent = text;
};

function askForKey(said = "") {
  api = null;
  const field = el("input", { type: "password", class: "field", id: "staff-key", autocomplete: "off", data: { key: "staffKey" } });
  const submit = async (event) => {
    event.preventDefault();
    await open(new StaffApi(field.value));
  };
  fill(
    part("staff"),
    el(
      "form",
      { class: "panel", onsubmit: submit },
      el("label", { for: "staff-key" }, t("keyLabel")),
      field,
      el("p", { role: "alert" }, said),
      button(t("staffOpen"), { kind: "main", type: "submit", data: { key: "staffOpen" } }),
    ),
  );
  field.focus();
}

async function open(candidate) {
  try {
    await candidate.overview();
  } catch (error) {
    askForKey(t(error.code === "invalid_api_key" ? "keyWrong" : "offline"));
    return;
  }
  api = candidate;
  fill(part("staff"), panel("health", "staffHealth"), panel("jobs", "staffJobs"), panel("sessions", "staffSessions"), panel("screen", "staffScreen"));
  await show();
}

const panel = (id, title) => el("section", { class: "panel", aria: { labelledby: `${id}-title` } }, el("h2", { id: `${id}-title` }, t(title)), el("div", { id }));

/** Take a step of the staff's, then show what has come of it. */
const doing = (step) => async () => {
  await step().catch((error) => announce(error.message));
  await show();
};

async function show() {
  if (!api) return;
  let told;
  try {
    told = await api.overview();
  } catch (error) {
    if (error.code === "invalid_api_key") askForKey(t("keyWrong"));
    else announce(t("offline"));
    return;
  }
  if (!api) return;
  fillWhenNew(part("health"), told.health, () => healthRows(told.health));
  fillWhenNew(part("jobs"), told.jobs, () => jobRows(told.jobs, (tag) => doing(() => api.cancel(tag))));
  fillWhenNew(part("sessions"), told.sessions, () => sessionRows(told.sessions, (tag) => doing(() => api.restart(tag))));
  const steps = { letIn: doing(letIn), lock: doing(lock), forget: () => askForKey() };
  fillWhenNew(part("screen"), told.link, () => screenPanel(told.link, steps));
}

async function letIn() {
  await api.letIn();
  announce(t("screenIn"));
}

async function lock() {
  await api.lock();
  announce(t("screenOut"));
}

function tick() {
  const unused = performance.now() - used;
  if (api && unused > UNUSED_MS) askForKey();
  else if (api && !document.hidden) show();
  else if (!api && unused > ASKED_MS) location.assign("./");
}

async function start() {
  await loadLanguages(config.lang);
  document.title = t("staffTitle");
  part("title").textContent = t("staffTitle");
  part("back").textContent = t("backToPage");
  part("back").href = `./?lang=${language()}`;
  for (const sign of ["pointerdown", "keydown"]) addEventListener(sign, () => (used = performance.now()), { capture: true });
  askForKey();
  setInterval(tick, EVERY_MS);
}

start();
