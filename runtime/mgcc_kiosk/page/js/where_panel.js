// Where a thing is: the picture's ninths as a pad, and the relations to other things.

import { el, icon, image } from "./dom.js";
import { tapWhere } from "./draft.js";
import { t, wordsOf } from "./i18n.js";
import { noun } from "./sentence.js";
import { line, tile } from "./tiles.js";

export function wherePanel({ draft, world }) {
  const clause = draft.clauses.at(-1);
  const able = clause?.kind === "thing" && clause.action !== "leave" && clause.action !== "swap";
  const words = wordsOf();
  const art = able && world.things[clause.label];
  const pad = el(
    "div",
    { class: "pad", role: "group", data: { roving: "grid" }, aria: { label: t("whereInPicture") } },
    world.cells.map((cell) => padCell(cell, { able, art, chosen: clause?.where?.cell === cell, word: words.cells[cell] })),
  );
  const relations = el(
    "div",
    { class: "tiles tiles-relations", role: "group", data: { roving: "grid" }, aria: { label: t("orNear") } },
    world.relations.map((relation) =>
      tile(relation, icon(`rel-${relation.replaceAll(" ", "-")}`), words.relations[relation][0], {
        kind: "where", disabled: !able, aria: { pressed: clause?.where?.relation === relation },
        onclick: () => tapWhere({ relation, anchors: [] }),
      }),
    ),
  );
  return [line(able ? t("whereIs", { x: noun(clause.label, "the") }) : t("pickThing")), el("div", { class: "where" }, pad, relations)];
}

function padCell(cell, { able, art, chosen, word }) {
  return el(
    "button",
    {
      type: "button", class: "pad-cell", data: { key: `cell-${cell}` }, disabled: !able,
      aria: { label: word, pressed: chosen }, onclick: () => tapWhere({ cell }),
    },
    art ? image(`art/${art}.svg`, "pad-art") : el("i", { class: "pad-dot" }),
  );
}
