// One stop of the Tab key for a whole group of buttons; arrow keys go on inside it. A keyboard then needs a few stops
// for a page of 60 buttons.

const STEPS = { ArrowRight: 1, ArrowLeft: -1 };

/** Make the buttons of `group` one stop. data-roving: "row", or "grid" whose arrows go up and down, too. */
export function roving(group) {
  const buttons = () => [...group.querySelectorAll("button:not(:disabled)")];
  const first = group.querySelector('[aria-selected="true"], [aria-pressed="true"]') ?? buttons()[0];
  for (const button of group.querySelectorAll("button")) button.tabIndex = -1;
  const start = group.contains(document.activeElement) ? document.activeElement : first;
  if (start) start.tabIndex = 0;
  if (group.dataset.wired) return;
  group.dataset.wired = "yes";
  group.addEventListener("keydown", (event) => {
    const all = buttons();
    const at = all.indexOf(document.activeElement);
    const to = at < 0 ? undefined : target(event.key, all, at, group.dataset.roving);
    if (!to) return;
    event.preventDefault();
    all[at].tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  });
}

function target(key, all, at, kind) {
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  if (STEPS[key]) return all[(at + STEPS[key] + all.length) % all.length];
  if (kind !== "grid" || (key !== "ArrowDown" && key !== "ArrowUp")) return undefined;
  const down = key === "ArrowDown";
  const from = all[at].getBoundingClientRect();
  const rows = all.filter((one) => (down ? one.getBoundingClientRect().top > from.top + 4 : one.getBoundingClientRect().top < from.top - 4));
  if (!rows.length) return undefined;
  const off = (one) => Math.abs(one.getBoundingClientRect().left - from.left) + 4 * Math.abs(one.getBoundingClientRect().top - from.top);
  return rows.reduce((best, one) => (off(one) < off(best) ? one : best));
}
