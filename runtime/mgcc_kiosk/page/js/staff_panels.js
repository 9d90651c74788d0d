// What staff see: how the server is, what is drawn for whom, and what makes a screen a visitors' one.

import { button, el } from "./dom.js";
import { t } from "./i18n.js";
import { addressOf, releaseAll } from "./pictures.js";

const whole = (seconds) => Math.round(seconds);

/** Seconds as people say them. */
export function spanOf(seconds) {
  if (seconds < 120) return t("inSeconds", { n: whole(seconds) });
  if (seconds < 7200) return t("inMinutes", { n: whole(seconds / 60) });
  return t("inHours", { n: whole(seconds / 3600) });
}

export function healthRows(health) {
  const beat = health.page_heartbeat_s;
  const rows = [
    [t("isReady"), t(health.ready ? "yes" : "notReady")],
    [t("runsFor"), spanOf(health.uptime_s)],
    [t("pageSeen"), beat === null ? t("never") : t("ago", { span: spanOf(beat) })],
    [t("drawnSoFar"), `${health.drawn}`],
    [t("failedSoFar"), `${health.failed}`],
    [t("memory"), `${whole(health.rss_mb)} MB`],
    [t("version"), health.version],
  ];
  return el("dl", { class: "facts" }, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]).flat());
}

export function jobRows(jobs, cancel) {
  if (!jobs.length) return el("p", {}, t("nothingWaits"));
  return el(
    "ul",
    { class: "rows" },
    jobs.map((job) => {
      const told = job.state === "running" ? t("isDrawn") : t("waits", { n: job.position });
      return row(`${job.session.slice(0, 4)} · ${told}`, button(t("cancel"), { kind: "plain", data: { key: `cancel-${job.tag}` }, onclick: cancel(job.tag) }));
    }),
  );
}

export function sessionRows(sessions, restart) {
  if (!sessions.length) return el("p", {}, t("nobody"));
  return el(
    "ul",
    { class: "rows" },
    sessions.map((one) => {
      const told = `${one.tag.slice(0, 4)} · ${t("pictures", { n: one.turns })} · ${t("ago", { span: spanOf(one.unused_s) })}`;
      return row(told, button(t("startOver"), { kind: "warn", data: { key: `restart-${one.tag}` }, onclick: restart(one.tag) }));
    }),
  );
}

const row = (text, ...tools) => el("li", { class: "row" }, el("span", {}, text), tools);

/** The link is as good as a key to the visitors' page: for staff to open on a screen, not to be hung up. */
export function screenPanel(link, { letIn, lock, forget }) {
  releaseAll();
  const code = addressOf(new Blob([link.qr], { type: "image/svg+xml" }));
  return [
    el("p", {}, t("screenText")),
    el(
      "div",
      { class: "screen-tools" },
      button(t("letIn"), { kind: "main", data: { key: "letIn" }, onclick: letIn }),
      button(t("lockScreen"), { kind: "plain", data: { key: "lockScreen" }, onclick: lock }),
      button(t("staffLeave"), { kind: "plain", data: { key: "staffLeave" }, onclick: forget }),
    ),
    el(
      "details",
      {},
      el("summary", { data: { key: "otherScreen" } }, t("otherScreen")),
      el("p", {}, t("linkText")),
      el("img", { class: "qr", src: code, alt: t("qrCode") }),
      el("p", { class: "qr-url" }, link.url),
    ),
  ];
}
