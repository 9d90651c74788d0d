// What a maker sets in the page's address: /?lang=de&idle=60&typing=off. One table, so that it can be read at a glance.

const number = (least, most) => (text) => Math.min(most, Math.max(least, Number(text)));
const word = (...allowed) => (text) => (allowed.includes(text) ? text : undefined);

const isPhone = matchMedia("(max-width: 600px)").matches; // its own keyboard lies over the page, and its keys are larger

const SETTINGS = {
  lang: { usual: "en", read: word("en", "de") }, // which language a new visitor meets
  idle: { usual: 75, read: number(2, 3600) }, // seconds without a touch until the page asks "Still there?"
  warn: { usual: 20, read: number(1, 120) }, // seconds that it then waits before it wipes everything
  typing: { usual: "on", read: word("on", "off") }, // whether one may type, too
  keys: { usual: isPhone ? "system" : "page", read: word("page", "system") }, // whose keyboard is on the screen
  save: { usual: "both", read: word("both", "png", "print", "none") }, // how a story is taken home
  attract: { usual: "on", read: word("on", "off") }, // whether the page shows itself off while nobody is there
  fresh: { usual: 60, read: number(0.02, 1440) }, // minutes after which a wiped page also loads itself anew
};

/** The settings of an address; a value that makes no sense is as if it were not there. */
export function settingsOf(search) {
  const given = new URLSearchParams(search);
  const found = {};
  for (const [name, { usual, read }] of Object.entries(SETTINGS)) {
    const value = given.has(name) ? read(given.get(name)) : undefined;
    found[name] = value === undefined || Number.isNaN(value) ? usual : value;
  }
  return Object.freeze(found);
}

export const config = settingsOf(location.search);
