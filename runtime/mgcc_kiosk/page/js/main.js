// The page's start: languages, what the server can draw, the parts of the page, and what a visitor had before a reload.

import { resume } from "./actions.js";
import { startAnnouncer } from "./announcer.js";
import { api } from "./api.js";
import { startAttract } from "./attract.js";
import { config } from "./config.js";
import { startBeating, startConnection } from "./connection.js";
import { startHead } from "./head.js";
import { loadLanguages } from "./i18n.js";
import { startIdle } from "./idle.js";
import { LOCKED, showPass, untilLetIn } from "./locked.js";
import { startPicture } from "./picture.js";
import { startSentence } from "./sentence_strip.js";
import { startStoryboard } from "./storyboard.js";
import { update } from "./store.js";
import { startWords } from "./words_panel.js";

const RETRY_MS = 2000;
const part = (id) => document.getElementById(id);

/** Ask until there is an answer: a page may be up before its server. */
async function untilAnswered(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error.code === LOCKED) {
        await untilLetIn();
        continue;
      }
      update({ online: false });
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

async function start() {
  await loadLanguages(config.lang);
  const world = await (await fetch("world.json")).json();
  update({ world, language: config.lang });
  startHead(part("head"));
  startPicture(part("picture"));
  startStoryboard(part("storyboard"));
  startSentence(part("sentence"));
  startWords(part("words"));
  startAnnouncer();
  startConnection(part("offline"));
  await untilAnswered(showPass);
  const info = await untilAnswered(api.info);
  update({ info, online: true });
  startBeating();
  const resumed = await untilAnswered(resume);
  if (!resumed) update({ view: config.attract === "on" ? "attract" : "story" });
  startAttract(part("attract"));
  startIdle();
}

start();
