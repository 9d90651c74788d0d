// The whole story as a book: looked at, saved as one picture, printed or kept as PDF. The art's credit goes with it.

import { button, el, fill } from "./dom.js";
import { bookImage } from "./book_image.js";
import { announce } from "./announcer.js";
import { config } from "./config.js";
import { open } from "./dialogs.js";
import { capital, t } from "./i18n.js";
import { addressOf, release } from "./pictures.js";
import { get } from "./store.js";
import { shownTry } from "./story.js";
import { takeHome } from "./takeaway.js";
import { sentenceOf } from "./told.js";

/** The pages: [{address, text}], with a picture each. */
export function pagesOf(turns) {
  return turns
    .map((turn, k) => ({ address: shownTry(turn)?.address, text: capital(sentenceOf(turn, turns[k - 1])) }))
    .filter(({ address }) => address);
}

export function openBook() {
  const pages = pagesOf(get().turns);
  const dialog = el("dialog", { class: "dialog whole book", aria: { label: t("bookTitle") } });
  const saves = config.save === "both" || config.save === "png";
  const prints = config.save === "both" || config.save === "print";
  const { phones } = get().info;
  fill(
    dialog,
    el(
      "div",
      { class: "book-tools" },
      button(t("backToStory"), { iconName: "left", kind: "plain", onclick: () => dialog.close() }),
      saves ? button(t("savePng"), { iconName: "save", kind: "main", data: { key: "save" }, onclick: () => savePng(pages) }) : null,
      phones ? button(t("takeHome"), { iconName: "phone", kind: "main", data: { key: "takeHome" }, onclick: () => take(pages) }) : null,
      prints ? button(t("print"), { iconName: "print", kind: "main", data: { key: "print" }, onclick: () => window.print() }) : null,
    ),
    el("h2", { class: "book-title" }, t("bookTitle")),
    el("ol", { class: "book-pages" }, pages.map(pageOf)),
    el("p", { class: "book-credit" }, t("drawnBy"), el("br"), t("credit")),
  );
  open(dialog);
}

function pageOf({ address, text }, k) {
  return el("li", { class: "book-page" }, el("img", { src: address, alt: t("page", { n: k + 1 }) }), el("p", {}, el("span", { class: "book-number", aria: { hidden: true } }, `${k + 1}`), text));
}

const imageOf = (pages) => bookImage(pages, { title: t("bookTitle"), lines: [t("drawnBy"), t("credit")] });

async function take(pages) {
  await takeHome(await imageOf(pages));
}

async function savePng(pages) {
  const blob = await imageOf(pages);
  const address = addressOf(blob);
  el("a", { href: address, download: "story.png" }).click();
  // the download has its own hold on the picture once it has begun
  setTimeout(() => release(address), 10_000);
  announce(t("saved"));
}
