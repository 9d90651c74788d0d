// Languages: one JSON file each, loaded once, switched at any time. English is also what the model reads.

const NAMES = ["en", "de"];
const loaded = new Map();
let current = "en";

export async function loadLanguages(first) {
  const files = await Promise.all(NAMES.map(async (name) => (await fetch(`i18n/${name}.json`)).json()));
  files.forEach((file, i) => loaded.set(NAMES[i], file));
  setLanguage(first);
}

/** Every language as [code, its own name]. */
export const languages = () => NAMES.map((name) => [name, loaded.get(name).name]);

export const language = () => current;

/** The words of a language: forms of things, phrases of places, sentences. */
export const wordsOf = (name = current) => loaded.get(name);

export function setLanguage(name) {
  current = name;
  document.documentElement.lang = name;
  document.title = t("title");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
}

/** A text of the page, with its {slots} filled. A missing one is a fault of ours: it shows its key. */
export function t(key, slots = {}) {
  return filled(loaded.get(current)?.ui[key] ?? key, slots);
}

/** `template` with every {slot} that is given. */
export function filled(template, slots) {
  return template.replace(/\{(\w+)\}/g, (whole, name) => (name in slots ? slots[name] : whole));
}

const SOFT_HYPHEN = "\u00ad";

/** The same with the places where long words may be broken, for where there is little room. */
export function hyphenated(text) {
  return loaded.get(current).breaks.reduce((told, word) => told.replace(word.replace("-", ""), word.replace("-", SOFT_HYPHEN)), text);
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
