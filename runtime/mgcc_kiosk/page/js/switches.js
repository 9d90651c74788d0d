// What makes the page easier to use: large text, high contrast, everything within low reach. Reset for each visitor.

import { get, update } from "./store.js";

export const switches = ["largeText", "contrast", "lowReach"];

export const isOn = (name) => document.documentElement.dataset[name] === "on";

export function turn(name, on) {
  if (on) document.documentElement.dataset[name] = "on";
  else delete document.documentElement.dataset[name];
  update({ switched: (get().switched ?? 0) + 1 });
}

export function turnAllOff() {
  for (const name of switches) turn(name, false);
}
