// A story goes home on the visitor's own phone: the server keeps its picture for some minutes, a QR code leads there.

import { api } from "./api.js";
import { announce } from "./announcer.js";
import { button, el, fill } from "./dom.js";
import { open } from "./dialogs.js";
import { t } from "./i18n.js";
import { failed } from "./notices.js";
import { addressOf, release } from "./pictures.js";

const MOST_PIXELS = 12_000_000; // of a long story: what the server takes, with room to spare

/** `png`: the story's picture, as a blob. */
export async function takeHome(png) {
  let found;
  try {
    found = await api.takeaway(await smallEnough(png));
  } catch (error) {
    failed(error);
    return;
  }
  const address = addressOf(new Blob([found.qr], { type: "image/svg+xml" }));
  const dialog = el("dialog", { class: "dialog takeaway", aria: { label: t("takeHome") } });
  const text = t("takeHomeText", { n: Math.round(found.kept_s / 60) });
  fill(
    dialog,
    el("h2", {}, t("takeHome")),
    el("img", { class: "qr", src: address, alt: t("qrCode") }),
    el("p", {}, text),
    el("p", { class: "qr-url" }, found.url),
    el("div", { class: "dialog-buttons" }, button(t("close"), { kind: "plain", data: { key: "closeTakeaway" }, onclick: () => dialog.close() })),
  );
  open(dialog, () => release(address));
  announce(text);
}

async function smallEnough(png) {
  const picture = await createImageBitmap(png);
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (picture.width * picture.height)));
  if (scale === 1) return png;
  const canvas = document.createElement("canvas");
  canvas.width = Math.floor(picture.width * scale);
  canvas.height = Math.floor(picture.height * scale);
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
