// The page's one state. Parts of the page subscribe and draw themselves again when it changes.

/** What a visitor starts with. Everything that is theirs is in here and nowhere else, so that it can be wiped whole. */
const blank = () => ({
  view: "attract", // "attract" | "story"
  chat: null, // the server's id of the story
  recipe: null, // what a restarted server goes on from
  turns: [], // [{text, clauses, tries: [Try], shown, notes}]; see story.js
  selected: -1, // the turn on the stage
  canUndo: false,
  job: null, // what is being drawn; see jobs.js
  draft: { clauses: [], typed: null }, // the sentence in the making; see sentence.js
  tab: "things", // of the words to tap
  edit: null, // {boxes, picked, changed}: boxes that are being moved
  moving: false, // whether the boxes are shown to be moved
  notice: null, // {kind, key, slots, help}: what the page has to say
  heard: null, // the picture whose notes were read
});

let state = { ...blank(), info: null, world: null, online: true, language: null, switched: 0 };
const listeners = new Set();
let scheduled = false;

export const get = () => state;

/** Change the state; listeners run once, after the current task. */
export function update(patch) {
  state = { ...state, ...patch };
  if (scheduled) return;
  scheduled = true;
  queueMicrotask(() => {
    scheduled = false;
    for (const listener of listeners) listener(state);
  });
}

/** Forget everything that is a visitor's. */
export function wipe() {
  update(blank());
}

/** Call `render(state)` whenever one of the named parts is another than before, and once now. */
export function watch(names, render) {
  let seen = null;
  const listener = (now) => {
    const current = names.map((name) => now[name]);
    if (seen && current.every((value, i) => value === seen[i])) return;
    seen = current;
    render(now);
  };
  listeners.add(listener);
  listener(state);
}
