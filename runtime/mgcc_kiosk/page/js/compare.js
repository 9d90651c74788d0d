// The tries of one picture side by side; the one that is chosen is the story's.

import { button, el, fill } from "./dom.js";
import { choose } from "./actions.js";
import { open } from "./dialogs.js";
import { thingsOf } from "./announcer.js";
import { t } from "./i18n.js";
import { get } from "./store.js";
import { shownTry } from "./story.js";

export function openCompare() {
  const { turns, selected } = get();
  const turn = turns[selected];
  const shown = shownTry(turn);
  const dialog = el("dialog", { class: "dialog wide compare", aria: { label: t("whichOne") } });
  const tries = turn.tries.filter((one) => one.address);
  const figure = (one, k) => {
    const take = () => {
      dialog.close();
      choose(one);
    };
    return el(
      "figure",
      { class: one === shown ? "try try-shown" : "try" },
      el("img", { src: one.address, alt: `${t("try", { n: k + 1 })}. ${thingsOf(one)}` }),
      el("figcaption", {}, el("span", { class: "try-name" }, t("try", { n: k + 1 }), one === shown ? ` (${t("kept")})` : ""), button(t("keep"), { iconName: "done", kind: "main", onclick: take })),
    );
  };
  fill(
    dialog,
    el("h2", {}, t("whichOne")),
    el("div", { class: "tries" }, tries.map(figure)),
    el("div", { class: "dialog-buttons" }, button(t("close"), { iconName: "close", kind: "plain", onclick: () => dialog.close() })),
  );
  open(dialog);
}
