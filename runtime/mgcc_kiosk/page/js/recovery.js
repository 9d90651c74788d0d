// A server that was started anew knows no story: its recipe, kept here, lets it go on.

import { api, ApiError } from "./api.js";
import { get, update } from "./store.js";
import { thisVisit } from "./visit.js";

/** `ask(chat)` with the story's chat: begun where there is none, and made again from its recipe where it was lost. */
export async function withChat(ask) {
  if (!get().chat) return ask(await begin(null));
  const goesOn = thisVisit();
  try {
    return await ask(get().chat);
  } catch (error) {
    if (error.code !== "not_found" || !goesOn()) throw error;
    return ask(await begin(get().recipe));
  }
}

async function begin(recipe) {
  const goesOn = thisVisit();
  const { id } = await api.newChat(recipe);
  if (!goesOn()) throw new ApiError("left", "the visitor left");
  update({ chat: id });
  return id;
}

/** Keep the recipe of what the story is now; without one the page works, and a restarted server begins anew. */
export async function keepRecipe() {
  const { chat } = get();
  const recipe = await api.recipe(chat).catch(() => null);
  if (recipe && get().chat === chat) update({ recipe });
}
