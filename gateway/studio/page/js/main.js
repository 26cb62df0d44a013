// Starts the Studio's page: tells the state of the server, and starts each part in its region.

import { ApiError, getJson, Watcher } from "/static/js/api.js";
import * as compose from "/static/js/compose/compose_region.js";
import { byId } from "/static/js/dom.js";
import * as player from "/static/js/player/player_region.js";
import { allTakes, isFinished, on, putTake } from "/static/js/state.js";

async function start() {
  const state = byId("server-state");
  try {
    const studio = await getJson("/api/studio");
    state.textContent = studio.version ? `version ${studio.version}` : "";
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    state.textContent = error.message;
  }
}

start();
player.start();
compose.start();
const watcher = new Watcher({ onChange: putTake });
on("changed", () => watcher.set(allTakes().filter((take) => !isFinished(take)).map(({ id }) => id)));
