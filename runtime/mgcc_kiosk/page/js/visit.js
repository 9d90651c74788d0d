// One visitor after the other: what one has asked of the server is over before their session ends there, and only then
// does the next one ask. Else a sentence that was on its way would begin a session anew, for whoever comes next.

const underway = new Set();
let visits = 0;
let ending = Promise.resolve();

/** Whether it is still the same visitor, to be asked later. */
export function thisVisit() {
  const visit = visits;
  return () => visit === visits;
}

/**
 * `ask()` as part of a visit: the end of the session waits for it, and it waits for the end of the one before; null where
 * the visitor left meanwhile.
 */
export async function during(ask) {
  const goesOn = thisVisit();
  const asked = ending.then(() => (goesOn() ? ask() : null));
  underway.add(asked);
  try {
    return await asked;
  } finally {
    underway.delete(asked);
  }
}

/** The visitor left: `forget()` is asked once nothing else is, where there is anything to forget. */
export function endVisit(anything, forget) {
  visits += 1;
  if (anything || underway.size) ending = Promise.allSettled([ending, ...underway]).then(forget).catch(() => {});
  return ending;
}
