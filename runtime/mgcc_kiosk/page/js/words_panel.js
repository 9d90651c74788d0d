// The pictures to tap, in four tabs: things, where they are, places, and what things of the picture do.

import { el, fill, icon, image } from "./dom.js";
import { inPicture, tapAction, tapPlace, tapThing } from "./draft.js";
import { t, wordsOf } from "./i18n.js";
import { roving } from "./roving.js";
import { awaits, isWhole, named, noun } from "./sentence.js";
import { update, watch } from "./store.js";
import { line, tile } from "./tiles.js";
import { wherePanel } from "./where_panel.js";

export function startWords(node) {
  watch(["tab", "draft", "turns", "language", "info", "world"], (state) => {
    node.hidden = state.draft.typed !== null;
    if (!state.world || !state.info || node.hidden) return;
    const panel = node.querySelector(".panel");
    const scroll = panel?.dataset.tab === state.tab ? panel.scrollTop : 0;
    const inside = node.contains(document.activeElement);
    fill(node, tabs(state), el("div", { class: `panel panel-${state.tab}`, role: "tabpanel", id: "panel", data: { tab: state.tab }, aria: { labelledby: `tab-${state.tab}` } }, PANELS[state.tab](state)));
    node.querySelector(".panel").scrollTop = scroll;
    for (const group of node.querySelectorAll("[data-roving]")) roving(group);
    // a tap led to other tiles: whoever goes by keys goes on among those
    if (inside && !node.contains(document.activeElement)) node.querySelector(".panel button:not(:disabled)")?.focus();
  });
}

function tabs({ tab }) {
  const icons = { things: image("art/cat.svg"), where: icon("hand"), places: image("places/meadow.webp", "tab-place"), actions: icon("moves") };
  return el(
    "div",
    { class: "tabs", role: "tablist", data: { roving: "row" }, aria: { label: t("words") } },
    Object.keys(PANELS).map((name) =>
      el(
        "button",
        {
          type: "button", class: `tab tab-${name}`, role: "tab", id: `tab-${name}`, data: { key: `tab-${name}` },
          aria: { selected: name === tab, controls: "panel" }, onclick: () => update({ tab: name }),
        },
        icons[name],
        el("span", {}, t(name)),
      ),
    ),
  );
}

const PANELS = { things: thingsPanel, where: wherePanel, places: placesPanel, actions: actionsPanel };

function thingsPanel(state) {
  const clause = state.draft.clauses.at(-1);
  const waits = awaits(clause);
  const there = inPicture(state);
  const said = named(state.draft.clauses).filter((label) => !there.includes(label));
  const question = waits === "anchor" ? t("pickAnchor", { relation: wordsOf().relations[clause.where.relation][0] }) : waits === "other" ? t("pickSwap") : null;
  const tiles = (labels, known) => el("div", { class: "tiles", role: "group", data: { roving: "grid" }, aria: { label: t(known ? "inPicture" : "newThings") } }, labels.map((label) => thingTile(label, known, clause, state)));
  const near = waits === "anchor" ? [...there, ...said].filter((label) => label !== clause.label) : there;
  return [
    question ? line(question) : null,
    near.length ? [question ? null : line(t("inPicture")), tiles(near, true)] : null,
    waits === "other" ? null : [near.length ? line(t("newThings")) : null, tiles(able(state).filter((label) => !waits || !near.includes(label)), false)],
  ].flat();
}

/** What the bundle can draw and there is a picture of; of a bundle without a list, all of them. */
function able({ info, world }) {
  const drawn = Object.keys(world.things);
  return info.labels.length ? drawn.filter((label) => info.labels.includes(label)) : drawn;
}

function thingTile(label, known, clause, state) {
  const art = state.world.things[label] ? image(`art/${state.world.things[label]}.svg`, "tile-art") : null;
  const taken = !isWhole(clause) && clause?.label === label;
  return tile(`${known ? "known-" : ""}${label}`, art, noun(label, known ? "the" : "word"), { kind: known ? "known" : "thing", disabled: taken, onclick: () => tapThing(label, known && inPicture().includes(label)) });
}

function placesPanel({ draft, world }) {
  const chosen = draft.clauses.find((clause) => clause.kind === "setting")?.place;
  return el(
    "div",
    { class: "tiles tiles-large", role: "group", data: { roving: "grid" }, aria: { label: t("places") } },
    world.places.map((place) => tile(place, image(`places/${place}.webp`, "tile-place"), wordsOf().places[place][0], { kind: "place", aria: { pressed: place === chosen }, onclick: () => tapPlace(place) })),
  );
}

function actionsPanel(state) {
  const clause = state.draft.clauses.at(-1);
  const acts = clause?.kind === "thing" && clause.known;
  const others = inPicture(state).length > 1;
  const tileOf = (action, key) =>
    tile(key, icon(key), t(key), { kind: "action", disabled: !acts || (action === "swap" && !others), aria: { pressed: Boolean(acts && clause.action === action) }, onclick: () => tapAction(action) });
  return [
    line(acts ? `${noun(clause.label, "the")} ...` : t("pickKnown")),
    el("div", { class: "tiles tiles-large", role: "group", data: { roving: "grid" }, aria: { label: t("actions") } }, tileOf("move", "moves"), tileOf("swap", "swaps"), tileOf("leave", "leaves")),
  ];
}

